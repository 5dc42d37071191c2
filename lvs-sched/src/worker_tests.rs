#![allow(
    unused_must_use,
    reason = "most packets only bring a connection to a state"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::conn::state::Path;
use crate::{
    Defence, DirectorConfig, DropReason, ExpectError, Family, Granularity, Persistence, RealServer,
    SchedulerKind, ServerConfig, ServiceConfig, ServiceKey, Stats, TemplateTarget, Timeouts,
    Tunables, Weight,
};

/// A director with one worker, one TCP service and a clock.
pub(crate) struct Lan {
    pub(crate) director: Arc<Director>,
    pub(crate) worker: Worker,
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) key: ServiceKey,
}

pub(crate) const S: TcpFlags = TcpFlags::SYN;
pub(crate) const A: TcpFlags = TcpFlags::ACK;
pub(crate) const F: TcpFlags = TcpFlags::FIN;
pub(crate) const R: TcpFlags = TcpFlags::RST;

impl Lan {
    pub(crate) fn new(protocol: Protocol, vport: u16, config: ServiceConfig) -> Self {
        Self::with(DirectorConfig::new([1, 2, 3, 4]), protocol, vport, config)
    }

    pub(crate) fn tcp() -> Self {
        Self::new(Protocol::Tcp, 80, rr())
    }

    pub(crate) fn with(
        config: DirectorConfig,
        protocol: Protocol,
        vport: u16,
        service: ServiceConfig,
    ) -> Self {
        let director = Arc::new(Director::new(config));
        let key = ServiceKey::Address {
            protocol,
            vip: vip(vport).ip(),
            vport,
        };
        director.add_service(key, service).unwrap();
        let (worker, start) = (director.worker(), Instant::now());
        Self {
            director,
            worker,
            start,
            now: start,
            key,
        }
    }

    pub(crate) fn add(&self, last: u8, method: ForwardMethod) -> Arc<RealServer> {
        self.director
            .add_server(
                self.now,
                &self.key,
                rip(last),
                ServerConfig {
                    method,
                    ..ServerConfig::default()
                },
            )
            .unwrap()
    }

    pub(crate) fn remove(&self, last: u8) {
        self.director
            .remove_server(self.now, &self.key, rip(last))
            .unwrap();
    }

    /// Lets all timers fire in order and stops at `seconds` after the start.
    pub(crate) fn at(&mut self, seconds: f64) {
        let to = self.start + Duration::from_secs_f64(seconds);
        loop {
            let next = [self.worker.poll_timeout(), self.director.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= to) else {
                break;
            };
            self.worker.handle_timeout(next);
            self.director.handle_timeout(next);
        }
        self.worker.handle_timeout(to);
        self.director.handle_timeout(to);
        self.now = to;
    }

    pub(crate) fn send(&mut self, client: SocketAddr, vport: u16, tcp_flags: TcpFlags) -> Verdict {
        let protocol = match self.key {
            ServiceKey::Address { protocol, .. } => protocol,
            ServiceKey::Mark { .. } => Protocol::Tcp,
        };
        let packet = Packet {
            tcp_flags,
            ..inbound(protocol, client, vip(vport))
        };
        self.handle(&packet)
    }

    pub(crate) fn handle(&mut self, packet: &Packet) -> Verdict {
        self.worker.handle_packet(self.now, packet)
    }

    pub(crate) fn tune(&self, change: impl FnOnce(&mut Tunables)) {
        let mut tunables = self.director.tunables();
        change(&mut tunables);
        self.director.set_tunables(tunables);
    }

    pub(crate) fn reply(
        &mut self,
        from: SocketAddr,
        client: SocketAddr,
        tcp_flags: TcpFlags,
    ) -> Verdict {
        let packet = Packet {
            protocol: Protocol::Tcp,
            source: from,
            destination: client,
            direction: Direction::Outbound,
            tcp_flags,
            sctp: None,
            length: 40,
            mark: 0,
        };
        self.worker.handle_packet(self.now, &packet)
    }

    pub(crate) fn state(&self, client: SocketAddr) -> &'static str {
        self.worker
            .connection(Protocol::Tcp, client, vip(80))
            .map_or("-", |info| info.state.name())
    }
}

pub(crate) fn inbound(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Packet {
    Packet {
        protocol,
        source,
        destination,
        direction: Direction::Inbound,
        tcp_flags: TcpFlags::default(),
        sctp: None,
        length: 100,
        mark: 0,
    }
}

pub(crate) fn outbound(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Packet {
    Packet {
        direction: Direction::Outbound,
        ..inbound(protocol, source, destination)
    }
}

pub(crate) fn rr() -> ServiceConfig {
    ServiceConfig {
        scheduler: SchedulerKind::RoundRobin,
        ..ServiceConfig::default()
    }
}

pub(crate) fn persistent(seconds: u64, mask: [u8; 4]) -> ServiceConfig {
    let persistence = Persistence {
        timeout: Duration::from_secs(seconds),
        granularity: Granularity::Mask(mask.into()),
    };
    ServiceConfig {
        persistence: Some(persistence),
        ..rr()
    }
}

pub(crate) fn vip(vport: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 10], vport))
}

pub(crate) fn rip(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 8080))
}

pub(crate) fn client(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], port))
}

pub(crate) fn to(last: u8) -> Verdict {
    Verdict::Forward {
        method: ForwardMethod::DirectRoute,
        server: rip(last),
    }
}

#[test]
fn nat_replies_are_found_by_the_server_and_others_by_the_virtual_address() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::Nat);
    let c = client(1, 4000);
    assert_eq!(
        lan.send(c, 80, S),
        Verdict::Forward {
            method: ForwardMethod::Nat,
            server: rip(1)
        }
    );
    assert_eq!(lan.reply(vip(80), c, S | A), Verdict::NotOurs);
    assert_eq!(
        lan.reply(rip(1), c, S | A),
        Verdict::Reply {
            method: ForwardMethod::Nat,
            vip: vip(80)
        }
    );
    lan.send(c, 80, A);
    assert_eq!(lan.state(c), "ESTABLISHED");
    lan.reply(rip(1), c, F | A);
    assert_eq!(lan.state(c), "FIN_WAIT");

    lan.add(2, ForwardMethod::DirectRoute);
    let c = client(2, 4000);
    assert_eq!(lan.send(c, 80, S), to(2));
    lan.send(c, 80, A);
    assert_eq!(lan.reply(rip(2), c, A), Verdict::NotOurs);
    assert_eq!(
        lan.reply(vip(80), c, A),
        Verdict::Reply {
            method: ForwardMethod::DirectRoute,
            vip: vip(80)
        }
    );
    lan.send(c, 80, F | A);
    assert_eq!(
        lan.state(c),
        "CLOSE_WAIT",
        "replies were seen, so the two-way table applies"
    );
    let expected = Stats {
        connections: 2,
        in_packets: 5,
        out_packets: 3,
        in_bytes: 500,
        out_bytes: 120,
    };
    assert_eq!(lan.director.stats(), expected);
    assert_eq!(lan.director.service(&lan.key).unwrap().stats(), expected);
}

#[test]
fn only_a_syn_opens_a_connection() {
    let mut lan = Lan::tcp();
    let c = client(1, 4000);
    assert_eq!(lan.send(c, 80, S), Verdict::Reject, "no server");
    lan.add(1, ForwardMethod::DirectRoute);
    assert_eq!(lan.send(c, 80, A), Verdict::NotOurs);
    assert_eq!(lan.send(c, 80, S | R), Verdict::NotOurs);
    assert_eq!(lan.send(c, 81, S), Verdict::NotOurs);
    assert_eq!(
        lan.send(client(1, 20), 80, S),
        Verdict::NotOurs,
        "FTP data are never scheduled"
    );
    lan.director.set_tunables(Tunables {
        sloppy_tcp: true,
        ..Tunables::default()
    });
    assert_eq!(lan.send(c, 80, A), to(1));
    assert_eq!(lan.state(c), "ESTABLISHED");
}

#[test]
fn a_used_client_port_is_scheduled_anew() {
    let mut lan = Lan::tcp();
    let (first, second) = (
        lan.add(1, ForwardMethod::DirectRoute),
        lan.add(2, ForwardMethod::DirectRoute),
    );
    let c = client(1, 4000);
    assert_eq!(lan.send(c, 80, S), to(2));
    lan.send(c, 80, A);
    lan.send(c, 80, R);
    assert_eq!(lan.state(c), "CLOSE");
    assert_eq!(lan.send(c, 80, S), to(1));
    assert_eq!(
        (
            first.active(),
            second.active(),
            second.inactive(),
            lan.worker.len()
        ),
        (1, 0, 0, 1)
    );
    // FIN_WAIT only with bit value 2.
    lan.send(c, 80, A);
    lan.send(c, 80, F);
    assert_eq!(lan.send(c, 80, S), to(1));
    lan.send(c, 80, A);
    lan.send(c, 80, F);
    lan.director.set_tunables(Tunables {
        conn_reuse_mode: 2,
        ..Tunables::default()
    });
    assert_eq!(lan.send(c, 80, S), to(2));
}

#[test]
fn packets_of_a_removed_server_are_dropped_until_it_comes_back() {
    let mut lan = Lan::tcp();
    let server = lan.add(1, ForwardMethod::DirectRoute);
    let c = client(1, 4000);
    lan.send(c, 80, S);
    lan.remove(1);
    lan.at(10.0);
    assert_eq!(lan.send(c, 80, A), Verdict::Drop(DropReason::ServerRemoved));
    assert_eq!(lan.director.dropped(DropReason::ServerRemoved), 1);
    let revived = lan.add(1, ForwardMethod::Nat);
    assert!(Arc::ptr_eq(&server, &revived));
    assert_eq!(revived.active(), 1);
    assert_eq!(lan.send(c, 80, A), to(1), "the connection keeps its method");
    assert_eq!(revived.stats().connections, 1);

    // Another service of the same identity revives too, with fresh statistics.
    lan.director.remove_service(lan.now, &lan.key).unwrap();
    lan.director.add_service(lan.key, rr()).unwrap();
    let again = lan.add(1, ForwardMethod::Nat);
    assert!(Arc::ptr_eq(&server, &again));
    assert_eq!((again.active(), again.stats()), (1, Stats::default()));
    assert_eq!(
        lan.director.service(&lan.key).unwrap().stats(),
        Stats::default()
    );
}

#[test]
fn expire_nodest_conn_schedules_anew() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::DirectRoute);
    lan.add(2, ForwardMethod::DirectRoute);
    lan.director.set_tunables(Tunables {
        expire_nodest_conn: true,
        ..Tunables::default()
    });
    let c = client(1, 4000);
    assert_eq!(lan.send(c, 80, S), to(2));
    lan.remove(2);
    assert_eq!(lan.send(c, 80, A), Verdict::NotOurs);
    assert!(lan.worker.is_empty());
    assert_eq!(lan.send(c, 80, S), to(1));
}

#[test]
fn the_trash_forgets_idle_servers_after_120_seconds() {
    let mut lan = Lan::tcp();
    let server = lan.add(1, ForwardMethod::DirectRoute);
    lan.send(client(1, 4000), 80, S);
    lan.remove(1);
    // The connection ends at 60; the run at 60 finds the server idle, the one at 180 forgets it.
    lan.at(179.0);
    assert!(lan.director.poll_timeout().is_some());
    assert!(Arc::strong_count(&server) > 1);
    lan.at(180.0);
    assert_eq!(Arc::strong_count(&server), 1);
    assert_eq!(lan.director.poll_timeout(), None);
    assert!(!Arc::ptr_eq(
        &server,
        &lan.add(1, ForwardMethod::DirectRoute)
    ));
}

#[test]
fn persistence_worked_example() {
    let mut lan = Lan::new(Protocol::Tcp, 80, persistent(300, [255, 255, 255, 0]));
    let (a, b) = (
        lan.add(1, ForwardMethod::DirectRoute),
        lan.add(2, ForwardMethod::DirectRoute),
    );
    let expires = |lan: &Lan| {
        let templates = lan.director.templates();
        assert_eq!(templates.len(), 1);
        assert_eq!(
            (templates[0].client, templates[0].destination),
            (client(0, 0).ip(), rip(2))
        );
        templates[0].deadline.duration_since(lan.start).as_secs()
    };
    assert_eq!(lan.send(client(7, 4001), 80, S), to(2));
    lan.send(client(7, 4001), 80, A);
    assert_eq!(expires(&lan), 300);
    lan.at(10.0);
    assert_eq!(lan.send(client(200, 5000), 80, S), to(2));
    lan.send(client(200, 5000), 80, A);
    assert_eq!(expires(&lan), 310);
    lan.at(20.0);
    lan.send(client(200, 5000), 80, R);
    for t in [100.0, 200.0, 300.0] {
        lan.at(t);
        lan.send(client(7, 4001), 80, A);
    }
    lan.at(309.0);
    assert_eq!((expires(&lan), lan.worker.len()), (310, 1));
    lan.at(310.0);
    assert_eq!(expires(&lan), 370);
    lan.at(370.0);
    assert_eq!(expires(&lan), 430);
    lan.at(400.0);
    assert_eq!(lan.send(client(9, 6000), 80, S), to(2));
    assert_eq!(expires(&lan), 460);
    assert_eq!((a.persistent(), b.persistent()), (0, 1));
    lan.at(2_000.0);
    assert_eq!((b.persistent(), b.active(), b.inactive()), (0, 0, 0));
    assert!(lan.director.templates().is_empty());
}

#[test]
fn a_template_looked_at_late_still_counts_as_held() {
    let mut lan = Lan::new(Protocol::Tcp, 80, persistent(50, [255; 4]));
    lan.add(1, ForwardMethod::DirectRoute);
    lan.add(2, ForwardMethod::DirectRoute);
    assert_eq!(lan.send(client(1, 4000), 80, S), to(2));
    // Fires at 50 while the connection lives until 60; nobody calls a timer until 100.
    lan.now = lan.start + Duration::from_secs(100);
    assert_eq!(lan.send(client(1, 4001), 80, S), to(2));
}

#[test]
fn a_template_of_a_removed_server_is_retired() {
    let mut lan = Lan::new(Protocol::Tcp, 80, persistent(300, [255; 4]));
    lan.add(1, ForwardMethod::DirectRoute);
    lan.add(2, ForwardMethod::DirectRoute);
    assert_eq!(lan.send(client(1, 4000), 80, S), to(2));
    lan.director
        .edit_server(
            lan.now,
            &lan.key,
            rip(2),
            ServerConfig {
                weight: Weight::QUIESCED,
                ..Default::default()
            },
        )
        .unwrap();
    assert_eq!(
        lan.send(client(1, 4001), 80, S),
        to(2),
        "weight 0 does not matter"
    );
    lan.director.set_tunables(Tunables {
        expire_quiescent_template: true,
        ..Tunables::default()
    });
    assert_eq!(lan.send(client(1, 4002), 80, S), to(1));
    let retired: Vec<_> = lan
        .director
        .templates()
        .into_iter()
        .filter(|template| template.retired)
        .collect();
    assert_eq!(retired.len(), 1);
    assert_eq!(
        (retired[0].target, retired[0].destination.port()),
        (TemplateTarget::Address(vip(65535)), 65535)
    );
}

#[test]
fn port_zero_and_ftp_services_match_in_order() {
    let mut lan = Lan::new(Protocol::Tcp, 0, persistent(300, [255; 4]));
    lan.add(1, ForwardMethod::DirectRoute);
    let at_port = |last, port| Verdict::Forward {
        method: ForwardMethod::DirectRoute,
        server: SocketAddr::new(rip(last).ip(), port),
    };
    assert_eq!(lan.send(client(1, 4000), 443, S), at_port(1, 443));
    let every_port = lan.key;
    lan.key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        vip: vip(21).ip(),
        vport: 21,
    };
    lan.director.add_service(lan.key, rr()).unwrap();
    lan.add(2, ForwardMethod::DirectRoute);
    assert_eq!(lan.send(client(2, 4000), 443, S), at_port(1, 443));
    assert_eq!(
        lan.send(client(2, 4000), 3000, S),
        Verdict::NotOurs,
        "FTP service, not persistent"
    );
    assert_eq!(lan.send(client(2, 4001), 21, S), to(2));
    lan.director.edit_service(&every_port, rr()).unwrap();
    assert_eq!(
        lan.send(client(3, 4000), 443, S),
        Verdict::Reject,
        "every port needs persistence"
    );
}

#[test]
fn a_mark_service_comes_first() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::DirectRoute);
    lan.key = ServiceKey::Mark {
        family: Family::Inet,
        mark: NonZeroU32::new(7).unwrap(),
    };
    lan.director.add_service(lan.key, rr()).unwrap();
    lan.add(2, ForwardMethod::DirectRoute);
    let packet = Packet {
        protocol: Protocol::Udp,
        source: client(1, 4000),
        destination: vip(5353),
        direction: Direction::Inbound,
        tcp_flags: TcpFlags::default(),
        sctp: None,
        length: 100,
        mark: 7,
    };
    assert_eq!(lan.worker.handle_packet(lan.now, &packet), to(2));
    assert_eq!(
        lan.worker.handle_packet(
            lan.now,
            &Packet {
                mark: 8,
                source: client(2, 1),
                ..packet
            }
        ),
        Verdict::NotOurs
    );
}

#[test]
fn one_packet_mode_leaves_no_connection() {
    let mut lan = Lan::new(
        Protocol::Udp,
        53,
        ServiceConfig {
            one_packet: true,
            ..rr()
        },
    );
    let server = lan.add(1, ForwardMethod::DirectRoute);
    lan.add(2, ForwardMethod::DirectRoute);
    let c = client(1, 4000);
    let verdicts: Vec<_> = (0..3)
        .map(|_| lan.send(c, 53, TcpFlags::default()))
        .collect();
    assert_eq!(verdicts, [to(2), to(1), to(2)]);
    assert_eq!(
        (
            lan.worker.len(),
            server.inactive(),
            server.stats().connections
        ),
        (0, 0, 1)
    );
}

#[test]
fn client_port_zero_never_finds_its_own_connection() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::Nat);
    for _ in 0..3 {
        assert!(matches!(
            lan.send(client(1, 0), 80, S),
            Verdict::Forward { .. }
        ));
    }
    assert_eq!(lan.worker.len(), 3);
    assert!(matches!(
        lan.reply(rip(1), client(1, 0), S | A),
        Verdict::Reply { .. }
    ));
    lan.at(1_000.0);
    assert!(lan.worker.is_empty());
}

#[test]
fn a_full_table_drops_new_connections_only() {
    let mut config = DirectorConfig::new([1, 2, 3, 4]);
    config.max_connections = 2;
    let mut lan = Lan::with(config, Protocol::Tcp, 80, rr());
    lan.add(1, ForwardMethod::DirectRoute);
    assert_eq!(lan.send(client(1, 1), 80, S), to(1));
    assert_eq!(lan.send(client(1, 2), 80, S), to(1));
    assert_eq!(
        lan.send(client(1, 3), 80, S),
        Verdict::Drop(DropReason::TableFull)
    );
    assert_eq!(lan.send(client(1, 2), 80, A), to(1));
    assert_eq!(lan.director.dropped(DropReason::TableFull), 1);
    lan.at(60.0);
    assert_eq!(lan.send(client(1, 3), 80, S), to(1));
}

#[test]
fn a_changed_timeout_acts_at_the_next_packet() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::DirectRoute);
    let c = client(1, 4000);
    lan.send(c, 80, S);
    lan.send(c, 80, A);
    lan.director.set_timeouts(Timeouts {
        tcp: Duration::from_secs(5),
        tcp_fin: Duration::ZERO,
        udp: Duration::ZERO,
    });
    assert_eq!(lan.director.timeouts().udp, Duration::from_secs(300));
    lan.at(800.0);
    lan.send(c, 80, A);
    lan.at(804.999);
    assert_eq!(lan.state(c), "ESTABLISHED");
    lan.at(805.0);
    assert_eq!(lan.state(c), "-");
}

#[test]
fn a_worker_that_ends_gives_its_connections_back() {
    let mut lan = Lan::tcp();
    let server = lan.add(1, ForwardMethod::DirectRoute);
    lan.send(client(1, 1), 80, S);
    assert_eq!(server.active(), 1);
    drop(lan.worker);
    assert_eq!((server.active(), lan.director.stats().in_packets), (0, 1));
}

#[test]
fn a_sweep_ends_connections_of_removed_servers_in_steps() {
    let mut lan = Lan::new(Protocol::Tcp, 80, persistent(300, [255; 4]));
    let first = lan.add(1, ForwardMethod::DirectRoute);
    let second = lan.add(2, ForwardMethod::DirectRoute);
    for number in 0..4_000u16 {
        let [high, low] = number.to_be_bytes();
        lan.send(SocketAddr::from(([10, 0, high, low], 4000)), 80, S);
    }
    assert_eq!((first.active(), second.active()), (2_000, 2_000));
    assert_eq!((first.persistent(), second.persistent()), (2_000, 2_000));
    lan.remove(2);
    lan.worker.handle_timeout(lan.now);
    assert_eq!(lan.worker.len(), 4_000, "off by default");
    lan.add(2, ForwardMethod::DirectRoute);
    lan.tune(|tunables| tunables.expire_nodest_conn = true);
    lan.remove(2);
    let mut steps = 0;
    while second.active() > 0 {
        let before = second.active();
        let next = lan.worker.poll_timeout().unwrap();
        assert!(next < lan.now + Duration::from_millis(10));
        lan.worker.handle_timeout(next);
        assert!(before - second.active() <= 1_024);
        steps += 1;
    }
    assert!((2..=5).contains(&steps), "{steps}");
    assert_eq!((first.active(), lan.worker.len()), (2_000, 2_000));
    assert_eq!(
        second.persistent(),
        0,
        "templates that are not assured go with their last connection"
    );
    lan.at(10.0);
    assert!(lan.worker.poll_timeout().unwrap() > lan.now + Duration::from_secs(40));
}

#[test]
fn assured_templates_survive_a_sweep() {
    let mut lan = Lan::new(Protocol::Tcp, 80, persistent(300, [255; 4]));
    let server = lan.add(1, ForwardMethod::DirectRoute);
    lan.send(client(1, 4000), 80, S);
    lan.send(client(1, 4000), 80, A);
    lan.tune(|tunables| tunables.expire_nodest_conn = true);
    lan.remove(1);
    lan.at(1.0);
    assert_eq!((lan.worker.len(), server.persistent()), (0, 1));
}

#[test]
fn drop_entry_ends_half_open_connections_first() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::DirectRoute);
    for port in 101..=500 {
        lan.send(client(1, port), 80, S);
        lan.send(client(2, port), 80, S);
        lan.send(client(2, port), 80, A);
    }
    lan.tune(|tunables| tunables.drop_entry = Defence::Always);
    let count = |lan: &Lan, name| {
        lan.worker
            .connections()
            .filter(|connection| connection.state.name() == name)
            .count()
    };
    // 25 draws a second, each of one place in 800.
    lan.at(40.0);
    let half_open = count(&lan, "SYN_RECV");
    assert!((50..300).contains(&half_open), "{half_open}");
    assert_eq!(
        count(&lan, "ESTABLISHED"),
        400,
        "none is older than a minute"
    );
    lan.at(120.0);
    let established = count(&lan, "ESTABLISHED");
    assert!((150..400).contains(&established), "{established}");
    lan.tune(|tunables| tunables.drop_entry = Defence::Off);
    lan.at(200.0);
    assert_eq!(count(&lan, "ESTABLISHED"), established);
}

#[test]
fn drop_entry_ends_templates_that_nothing_assured() {
    let mut lan = Lan::new(Protocol::Udp, 53, persistent(1_000, [255; 4]));
    let server = lan.add(1, ForwardMethod::DirectRoute);
    for last in 0..200 {
        lan.send(client(last, 4000), 53, TcpFlags::default());
    }
    lan.director.set_timeouts(Timeouts {
        udp: Duration::from_secs(1),
        tcp: Duration::ZERO,
        tcp_fin: Duration::ZERO,
    });
    lan.at(301.0);
    assert_eq!((lan.worker.len(), server.persistent()), (0, 200));
    lan.tune(|tunables| tunables.drop_entry = Defence::Always);
    lan.at(331.0);
    assert!(
        (1..150).contains(&server.persistent()),
        "{}",
        server.persistent()
    );
}

#[test]
fn automatic_defences_follow_memory() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::DirectRoute);
    lan.tune(|tunables| {
        tunables.drop_packet = Defence::Automatic;
        tunables.secure_tcp = Defence::Automatic;
    });
    lan.at(1.0);
    assert_eq!(lan.director.tunables().drop_packet, Defence::Automatic);
    assert_eq!(lan.send(client(1, 1), 80, S), to(1));
    assert_eq!(lan.state(client(1, 1)), "SYN_RECV");
    lan.director.handle_memory(lan.now, 0);
    lan.at(2.0);
    assert_eq!(
        lan.director.tunables().drop_packet,
        Defence::AutomaticActive
    );
    assert_eq!(
        lan.send(client(1, 2), 80, S),
        Verdict::Drop(DropReason::Defence)
    );
    assert_eq!(lan.send(client(1, 1), 80, S), to(1), "known ones pass");
    assert_eq!(lan.state(client(1, 1)), "SYN_RECV");
    lan.director.handle_memory(lan.now, 768);
    lan.at(3.0);
    let dropped = (100..112).filter(|port| lan.send(client(1, *port), 80, S) != to(1));
    assert_eq!(dropped.collect::<Vec<_>>(), [103, 107, 111], "one in four");
    assert_eq!(lan.state(client(1, 100)), "SYNACK");
    lan.director.handle_memory(lan.now, 5_000);
    lan.at(4.0);
    assert_eq!(lan.director.tunables().secure_tcp, Defence::Automatic);
    lan.tune(|tunables| {
        tunables.drop_packet = Defence::Off;
        tunables.secure_tcp = Defence::Off;
    });
    lan.at(500.0);
    assert_eq!(lan.director.poll_timeout(), None);
}

#[test]
fn rates_come_every_two_seconds_and_rest() {
    let mut lan = Lan::tcp();
    let server = lan.add(1, ForwardMethod::DirectRoute);
    let service = lan.director.service(&lan.key).unwrap();
    let mut shown = Vec::new();
    for period in 0..14u16 {
        if period < 8 {
            for port in 0..100 {
                lan.send(client(1 + period as u8, 1_000 + port), 80, S);
            }
        }
        lan.at(f64::from(period) * 2.0 + 2.0);
        shown.push(server.rates().connections);
        assert_eq!(server.rates(), service.rates());
        assert_eq!(server.rates(), lan.director.rates());
    }
    assert_eq!(
        shown,
        [12, 22, 29, 34, 38, 41, 43, 45, 34, 25, 19, 14, 11, 8]
    );
    // What comes after the last estimation stays after zeroing.
    lan.send(client(99, 1), 80, S);
    lan.director.zero();
    assert_eq!(lan.director.stats().connections, 1);
    assert_eq!(
        (service.stats().connections, server.stats().connections),
        (1, 1)
    );
    assert_eq!(server.rates(), Default::default());
    lan.at(500.0);
    assert_eq!(lan.director.poll_timeout(), None, "at rest");
    lan.send(client(99, 2), 80, S);
    let next = lan.director.poll_timeout().unwrap();
    lan.director.handle_timeout(lan.now.max(next));
    lan.at(502.0);
    assert!(server.rates().in_bytes > 0);

    lan.tune(|tunables| tunables.run_estimation = false);
    let frozen = server.rates();
    lan.at(600.0);
    assert_eq!(server.rates(), frozen);
}

#[test]
fn a_service_keeps_what_removed_servers_counted() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::DirectRoute);
    lan.add(2, ForwardMethod::DirectRoute);
    for port in 1..=10 {
        lan.send(client(1, port), 80, S);
    }
    let service = lan.director.service(&lan.key).unwrap();
    let before = service.stats();
    assert_eq!(before.connections, 10);
    lan.remove(1);
    assert_eq!(service.stats(), before);
    lan.send(client(1, 1), 80, A);
    lan.send(client(1, 2), 80, A);
    assert_eq!(
        service.stats().in_packets,
        11,
        "only the server that is here"
    );
    lan.add(1, ForwardMethod::DirectRoute);
    assert_eq!(service.stats().in_packets, 11);
}

#[test]
fn imported_connections_are_bound_and_found() {
    let mut lan = Lan::tcp();
    let server = lan.add(1, ForwardMethod::Nat);
    let c = client(1, 4000);
    let mut imported = ImportedConnection {
        client: c,
        virtual_addr: vip(80),
        destination: rip(1),
        method: ForwardMethod::DirectRoute,
        state: State::Tcp(TcpState::Established),
        packets: 7,
        remaining: Duration::from_secs(100),
        mark: 0,
        local: None,
    };
    lan.worker.import_connection(lan.now, &imported).unwrap();
    let info = lan.worker.connections().next().unwrap();
    assert_eq!(
        (info.method, info.packets, info.active, info.synchronised),
        (ForwardMethod::Nat, 7, true, true)
    );
    assert_eq!((server.active(), lan.director.stats().connections), (1, 0));
    assert!(matches!(lan.reply(rip(1), c, A), Verdict::Reply { .. }));

    // Another server: only an active state replaces.
    imported.destination = rip(9);
    imported.state = State::Tcp(TcpState::Close);
    assert_eq!(
        lan.worker.import_connection(lan.now, &imported),
        Err(ImportError::Inactive)
    );
    imported.state = State::Tcp(TcpState::SynReceived);
    lan.worker.import_connection(lan.now, &imported).unwrap();
    assert_eq!((server.active(), lan.worker.len()), (0, 1));
    assert_eq!(
        lan.send(c, 80, A),
        Verdict::Forward {
            method: ForwardMethod::DirectRoute,
            server: rip(9)
        },
        "a server that is not known here"
    );
    // The same addresses: brought up to date.
    imported.remaining = Duration::from_secs(5);
    lan.worker.import_connection(lan.now, &imported).unwrap();
    lan.at(4.9);
    assert_eq!(lan.worker.len(), 1);
    lan.at(5.0);
    assert!(lan.worker.is_empty());
    imported.destination = "[2001:db8::1]:80".parse().unwrap();
    assert_eq!(
        lan.worker.import_connection(lan.now, &imported),
        Err(ImportError::Family)
    );
}

#[test]
fn the_feed_tells_what_happens_and_is_bounded() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::DirectRoute);
    lan.send(client(1, 1), 80, S);
    assert_eq!(lan.worker.poll_event(), None, "off by default");
    lan.worker.watch(3);
    let c = client(1, 2);
    lan.send(c, 80, S);
    lan.send(c, 80, A);
    lan.send(c, 80, A);
    lan.send(c, 80, R);
    lan.at(10.0);
    let mut seen = Vec::new();
    while let Some(event) = lan.worker.poll_event() {
        let (what, info) = match event {
            ConnectionEvent::Created(info) => ("created", info),
            ConnectionEvent::Changed(info) => ("changed", info),
            ConnectionEvent::Ended(info) => ("ended", info),
        };
        assert_eq!(info.client, c);
        seen.push((what, info.state.name()));
    }
    assert_eq!(
        seen,
        [
            ("created", "SYN_RECV"),
            ("changed", "ESTABLISHED"),
            ("changed", "CLOSE")
        ]
    );
    assert_eq!(lan.worker.lost_events(), 1);
    lan.worker.watch(0);
    lan.send(c, 80, S);
    assert_eq!(lan.worker.poll_event(), None);
}

#[test]
fn a_batch_is_answered_like_single_packets() {
    let mut one = Lan::tcp();
    let mut batch = Lan::tcp();
    for lan in [&one, &batch] {
        lan.add(1, ForwardMethod::Nat);
        lan.add(2, ForwardMethod::DirectRoute);
    }
    let mut packets = Vec::new();
    for number in 0..500u16 {
        let c = client((number % 7) as u8, number % 50);
        let flags = [S, A, F | A, R][usize::from(number / 100) % 4];
        packets.push(Packet {
            tcp_flags: flags,
            ..inbound(Protocol::Tcp, c, vip(80))
        });
        packets.push(Packet {
            tcp_flags: A,
            ..outbound(Protocol::Tcp, rip(1), c)
        });
        packets.push(inbound(
            Protocol::Tcp,
            c,
            "[2001:db8::1]:80".parse().unwrap(),
        ));
    }
    let single: Vec<_> = packets.iter().map(|packet| one.handle(packet)).collect();
    let mut batched = Vec::new();
    batch.worker.handle_batch(batch.now, &packets, &mut batched);
    assert_eq!(single, batched);
}

/// The same rules over plain vectors: everything is a scan, every deadline is looked at each time.
#[derive(Default)]
struct Model {
    now: u64,
    servers: Vec<ModelServer>,
    position: Option<u8>,
    /// The oldest first.
    connections: Vec<ModelConnection>,
    templates: Vec<ModelTemplate>,
    persistent: Option<u64>,
    tunables: Tunables,
    sweeps: bool,
    serial: u64,
}

struct ModelServer {
    last: u8,
    listed: bool,
    weight: u32,
    upper: u32,
    overloaded: bool,
    nat: bool,
}

struct ModelConnection {
    serial: u64,
    client: SocketAddr,
    vport: u16,
    /// It waits for its client's port.
    waits: bool,
    server: u8,
    server_port: u16,
    nat: bool,
    no_output: bool,
    state: TcpState,
    active: bool,
    deadline: u64,
    template: Option<u64>,
    control: Option<u64>,
}

struct ModelTemplate {
    serial: u64,
    client: IpAddr,
    server: u8,
    timeout: u64,
    deadline: u64,
    retired: bool,
    assured: bool,
}

impl Model {
    fn server(&mut self, last: u8) -> &mut ModelServer {
        self.servers
            .iter_mut()
            .find(|server| server.last == last)
            .unwrap()
    }

    fn counts(&self, last: u8) -> (u32, u32, u32) {
        let of = |active| {
            self.connections
                .iter()
                .filter(|c| c.server == last && c.active == active)
                .count() as u32
        };
        (
            of(true),
            of(false),
            self.templates.iter().filter(|t| t.server == last).count() as u32,
        )
    }

    fn judge(&mut self, last: u8, only_if_set: bool) {
        let (active, inactive, _) = self.counts(last);
        let server = self.server(last);
        let (n, upper) = (active + inactive, server.upper);
        if only_if_set && !server.overloaded {
            return;
        }
        if upper == 0 || n < upper - upper / 4 {
            server.overloaded = false;
        } else if n >= upper {
            server.overloaded = true;
        }
    }

    fn controls(&self, serial: u64) -> bool {
        self.connections.iter().any(|c| c.control == Some(serial))
    }

    fn advance(&mut self, to: u64) {
        if std::mem::take(&mut self.sweeps) {
            self.fire(self.now + 1);
            let lost = |model: &mut Self| {
                let gone: Vec<_> = model
                    .servers
                    .iter()
                    .filter(|s| !s.listed)
                    .map(|s| s.last)
                    .collect();
                let ends =
                    |c: &ModelConnection| gone.contains(&c.server) && !model.controls(c.serial);
                model.connections.iter().position(ends)
            };
            while let Some(index) = lost(self) {
                self.end(index, true);
            }
        }
        self.fire(to);
    }

    fn fire(&mut self, to: u64) {
        loop {
            // What controls another one comes last among equals.
            let connection = (0..self.connections.len()).min_by_key(|&index| {
                let c = &self.connections[index];
                (c.deadline, self.controls(c.serial))
            });
            let first = connection.map_or(u64::MAX, |index| self.connections[index].deadline);
            let template = self
                .templates
                .iter()
                .map(|t| t.deadline)
                .min()
                .unwrap_or(u64::MAX);
            if first.min(template) > to {
                break;
            }
            if first <= template {
                let index = connection.unwrap();
                if self.controls(self.connections[index].serial) {
                    self.connections[index].deadline += 60_000;
                } else {
                    self.end(index, false);
                }
            } else {
                let index = self
                    .templates
                    .iter()
                    .position(|t| t.deadline == template)
                    .unwrap();
                let serial = self.templates[index].serial;
                if self.connections.iter().any(|c| c.template == Some(serial)) {
                    self.templates[index].timeout = 60_000;
                    self.templates[index].deadline += 60_000;
                } else {
                    let server = self.templates.remove(index).server;
                    self.judge(server, true);
                }
            }
        }
        self.now = to;
    }

    fn end(&mut self, index: usize, forced: bool) {
        let gone = self.connections.remove(index);
        self.judge(gone.server, true);
        if !forced {
            return;
        }
        if let Some(serial) = gone.template
            && !self.connections.iter().any(|c| c.template == Some(serial))
            && let Some(index) = self
                .templates
                .iter()
                .position(|t| t.serial == serial && !t.assured)
        {
            let server = self.templates.remove(index).server;
            self.judge(server, true);
        }
        if let Some(serial) = gone.control
            && !self.controls(serial)
            && let Some(index) = self.connections.iter().position(|c| c.serial == serial)
        {
            self.end(index, true);
        }
    }

    fn pick(&mut self) -> Option<u8> {
        let list: Vec<u8> = self
            .servers
            .iter()
            .filter(|s| s.listed)
            .map(|s| s.last)
            .collect();
        let start = self
            .position
            .map_or(0, |last| list.iter().position(|l| *l == last).unwrap() + 1);
        let order: Vec<u8> = list[start..]
            .iter()
            .chain(&list[..start])
            .copied()
            .collect();
        let picked = order.into_iter().find(|&last| {
            let server = self.server(last);
            server.weight > 0 && !server.overloaded
        })?;
        self.position = Some(picked);
        Some(picked)
    }

    fn bind(&mut self, client: SocketAddr, server: u8, template: Option<u64>) {
        let nat = self.server(server).nat;
        self.serial += 1;
        let connection = ModelConnection {
            serial: self.serial,
            client,
            vport: 80,
            waits: false,
            server,
            server_port: 8080,
            nat,
            no_output: !nat,
            state: TcpState::None,
            active: false,
            deadline: u64::MAX,
            template,
            control: None,
        };
        self.connections.push(connection);
        self.judge(server, false);
    }

    fn find(&self, client: SocketAddr, vport: u16) -> Option<usize> {
        let own = |c: &ModelConnection| !c.waits && c.client == client && c.vport == vport;
        let waiting =
            |c: &ModelConnection| c.waits && c.client.ip() == client.ip() && c.vport == vport;
        self.connections
            .iter()
            .rposition(own)
            .or_else(|| self.connections.iter().rposition(waiting))
    }

    fn inbound(&mut self, client: SocketAddr, vport: u16, flags: TcpFlags) -> Verdict {
        let mut replaced = None;
        if let Some(index) = self.find(client, vport) {
            let c = &self.connections[index];
            let mode = self.tunables.conn_reuse_mode;
            let over = match c.state {
                TcpState::TimeWait | TcpState::Close => true,
                TcpState::FinWait => mode & 2 != 0 && c.no_output,
                _ => false,
            };
            let over = over && mode != 0 && c.template.is_none() && c.control.is_none();
            let (last, serial) = (c.server, c.serial);
            let expires = self.tunables.expire_nodest_conn;
            let quiesced = expires && self.server(last).weight == 0;
            if !(flags.contains(S) && (over || quiesced)) {
                if self.server(last).listed {
                    return self.step(index, Some(client.port()), flags);
                }
                if !expires {
                    return Verdict::Drop(DropReason::ServerRemoved);
                }
            }
            replaced = (!self.controls(serial)).then_some(serial);
        }
        let verdict = self.schedule(client, vport, flags);
        if let Some(old) = replaced {
            let index = self
                .connections
                .iter()
                .position(|c| c.serial == old)
                .unwrap();
            self.end(index, false);
        }
        match verdict {
            Some(verdict) => verdict,
            None => self.step(self.connections.len() - 1, Some(client.port()), flags),
        }
    }

    /// `None` after it added a connection at the end.
    fn schedule(&mut self, client: SocketAddr, vport: u16, flags: TcpFlags) -> Option<Verdict> {
        if flags.contains(R) || !(flags.contains(S) || self.tunables.sloppy_tcp) || vport != 80 {
            return Some(Verdict::NotOurs);
        }
        let Some(timeout) = self.persistent else {
            let Some(server) = self.pick() else {
                return Some(Verdict::Reject);
            };
            self.bind(client, server, None);
            return None;
        };
        let found = self
            .templates
            .iter()
            .position(|t| !t.retired && t.client == client.ip());
        let valid = found.filter(|&index| {
            let last = self.templates[index].server;
            let expires = self.tunables.expire_quiescent_template;
            let server = self.server(last);
            server.listed && !(expires && server.weight == 0)
        });
        if let (Some(index), None) = (found, valid) {
            self.templates[index].retired = true;
        }
        let index = match valid {
            Some(index) => index,
            None => {
                let Some(server) = self.pick() else {
                    return Some(Verdict::Reject);
                };
                self.serial += 1;
                let serial = self.serial;
                self.templates.push(ModelTemplate {
                    serial,
                    client: client.ip(),
                    server,
                    timeout,
                    deadline: 0,
                    retired: false,
                    assured: false,
                });
                self.templates.len() - 1
            }
        };
        let (server, serial) = (self.templates[index].server, self.templates[index].serial);
        self.templates[index].deadline = self.now + self.templates[index].timeout;
        self.bind(client, server, Some(serial));
        None
    }

    fn outbound(&mut self, last: u8, client: SocketAddr, flags: TcpFlags) -> Verdict {
        let fits = |c: &ModelConnection| {
            c.nat && !c.waits && c.client == client && c.server == last && c.server_port == 8080
        };
        match self.connections.iter().rposition(fits) {
            Some(index) => self.step(index, None, flags),
            None => Verdict::NotOurs,
        }
    }

    /// A packet from a client's port, or from the server.
    fn step(&mut self, index: usize, from: Option<u16>, flags: TcpFlags) -> Verdict {
        let secure = self.tunables.secure_tcp.is_active();
        let c = &mut self.connections[index];
        let direction = match from {
            Some(_) => Direction::Inbound,
            None => Direction::Outbound,
        };
        c.no_output &= direction == Direction::Inbound;
        let before = c.state;
        c.state = c
            .state
            .after(Path::new(direction, c.no_output), flags, secure);
        c.active = State::Tcp(c.state).is_active();
        c.deadline = self.now + milliseconds(c.state);
        let method = if c.nat {
            ForwardMethod::Nat
        } else {
            ForwardMethod::DirectRoute
        };
        let verdict = match direction {
            Direction::Inbound => Verdict::Forward {
                method,
                server: SocketAddr::new(rip(c.server).ip(), c.server_port),
            },
            Direction::Outbound => Verdict::Reply {
                method,
                vip: vip(c.vport),
            },
        };
        let assures = c.state != before && c.state == TcpState::Established;
        let template = c.template.filter(|_| assures);
        if let Some(port) = from
            && c.waits
        {
            (c.waits, c.client) = (false, SocketAddr::new(c.client.ip(), port));
            // It is the newest of its key now.
            let c = self.connections.remove(index);
            self.connections.push(c);
        }
        let assured = self
            .templates
            .iter_mut()
            .find(|t| Some(t.serial) == template);
        assured.into_iter().for_each(|t| t.assured = true);
        verdict
    }

    fn expect(
        &mut self,
        client: SocketAddr,
        announced: SocketAddr,
        last: u8,
    ) -> Result<(), ExpectError> {
        let control = self.find(client, 80).ok_or(ExpectError::NoControl)?;
        let c = &self.connections[control];
        if c.state != TcpState::Established {
            return Err(ExpectError::NotEstablished);
        }
        if !c.nat {
            return Err(ExpectError::Method);
        }
        let known = |c: &ModelConnection| {
            c.waits
                && c.client.ip() == client.ip()
                && rip(c.server).ip() == announced.ip()
                && c.server_port == announced.port()
        };
        if last != c.server || self.connections.iter().any(known) {
            return Ok(());
        }
        self.serial += 1;
        let data = ModelConnection {
            serial: self.serial,
            client: SocketAddr::new(client.ip(), 0),
            vport: announced.port(),
            waits: true,
            server: last,
            server_port: announced.port(),
            nat: true,
            no_output: false,
            state: TcpState::Listen,
            active: false,
            deadline: self.now + milliseconds(TcpState::Listen),
            template: None,
            control: Some(c.serial),
        };
        self.connections.push(data);
        self.judge(last, false);
        Ok(())
    }

    fn remove(&mut self, last: u8) {
        let list: Vec<u8> = self
            .servers
            .iter()
            .filter(|s| s.listed)
            .map(|s| s.last)
            .collect();
        if self.position == Some(last) {
            let index = list.iter().position(|l| *l == last).unwrap();
            self.position = index.checked_sub(1).map(|index| list[index]);
        }
        self.server(last).listed = false;
        self.sweeps |= self.tunables.expire_nodest_conn;
    }
}

fn milliseconds(state: TcpState) -> u64 {
    let timings = crate::conn::state::Timings::new(&Timeouts::default());
    timings.of(State::Tcp(state)) / 1_000_000
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn agrees_with_the_plain_model(
        persistent_seconds in prop::option::of(1u64..200),
        tunables in (0u32..4, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        steps in prop::collection::vec((0u8..14, 1u8..5, 1u8..6, 0usize..8, 0u64..130_000), 1..150),
    ) {
        let config = persistent_seconds.map_or_else(rr, |seconds| persistent(seconds, [255; 4]));
        let mut lan = Lan::new(Protocol::Tcp, 80, config);
        lan.director.epoch.nanos(lan.start);
        let (conn_reuse_mode, expire_nodest_conn, expire_quiescent_template, sloppy_tcp, secure) = tunables;
        let tunables = Tunables {
            conn_reuse_mode,
            expire_nodest_conn,
            expire_quiescent_template,
            sloppy_tcp,
            secure_tcp: if secure { Defence::Always } else { Defence::Off },
            ..Tunables::default()
        };
        lan.director.set_tunables(tunables);
        let mut model =
            Model { persistent: persistent_seconds.map(|s| s * 1_000), tunables, ..Model::default() };
        let flags = [S, S | A, A, A, F | A, R, S, TcpFlags::PSH];
        for (what, last, port, choice, pause) in steps {
            let client = client(last, u16::from(port));
            match what {
                0..=3 => {
                    let verdict = lan.send(client, 80, flags[choice]);
                    prop_assert_eq!(verdict, model.inbound(client, 80, flags[choice]));
                }
                4..=5 => {
                    let verdict = lan.reply(rip(port), client, flags[choice]);
                    prop_assert_eq!(verdict, model.outbound(port, client, flags[choice]));
                }
                6..=8 => {
                    // Odd milliseconds keep connections and templates from ending at the same
                    // moment.
                    let to = model.now + pause / [1, 10, 100][usize::from(what) - 6] * 2 + 1;
                    lan.at(to as f64 / 1_000.0);
                    lan.now = lan.start + Duration::from_millis(to);
                    model.advance(to);
                }
                12 => {
                    // The server of the control connection announces a port.
                    let of = lan.worker.connection(Protocol::Tcp, client, vip(80));
                    let Some(IpAddr::V4(ip)) = of.map(|info| info.destination.ip()) else { continue };
                    let announced = SocketAddr::new(ip.into(), 5_000 + choice as u16 % 3);
                    let ours = lan.worker.expect_passive(lan.now, client, vip(80), announced).map(drop);
                    prop_assert_eq!(ours, model.expect(client, announced, ip.octets()[3]));
                }
                13 => {
                    let vport = 5_000 + choice as u16 % 3;
                    let flags = flags[pause as usize % 8];
                    prop_assert_eq!(lan.send(client, vport, flags), model.inbound(client, vport, flags));
                }
                _ => {
                    let (weight, upper, nat) = (u32::from(choice != 0), [0, 0, 2, 3][choice % 4], choice >= 4);
                    let config = ServerConfig {
                        weight: Weight::new(weight).unwrap(),
                        method: if nat { ForwardMethod::Nat } else { ForwardMethod::DirectRoute },
                        upper_threshold: upper,
                        lower_threshold: 0,
                    };
                    let index = model.servers.iter().position(|s| s.last == last);
                    let listed = index.is_some_and(|index| model.servers[index].listed);
                    if listed && what == 9 {
                        lan.remove(last);
                        model.remove(last);
                    } else if listed {
                        lan.director.edit_server(lan.now, &lan.key, rip(last), config).unwrap();
                        let server = model.server(last);
                        (server.weight, server.upper, server.nat) = (weight, upper, nat);
                        model.judge(last, false);
                    } else {
                        lan.director.add_server(lan.now, &lan.key, rip(last), config).unwrap();
                        let overloaded = index.is_some_and(|index| model.servers.remove(index).overloaded);
                        model.servers.insert(0, ModelServer { last, listed: true, weight, upper, overloaded, nat });
                        model.judge(last, false);
                    }
                }
            }
            for server in lan.director.service(&lan.key).unwrap().servers() {
                let IpAddr::V4(ip) = server.addr().ip() else { unreachable!() };
                let last = Ipv4Addr::octets(&ip)[3];
                let counts = (server.active(), server.inactive(), server.persistent());
                prop_assert_eq!(counts, model.counts(last), "server {}", last);
                prop_assert_eq!(server.is_overloaded(), model.server(last).overloaded, "server {}", last);
            }
            let since = |at: Instant| at.duration_since(lan.start).as_millis() as u64;
            let mut ours: Vec<_> = lan.worker.connections()
                .map(|c| (c.client, c.virtual_addr.port(), c.state.name(), since(c.deadline))).collect();
            let mut theirs: Vec<_> = model.connections.iter()
                .map(|c| (c.client, c.vport, State::Tcp(c.state).name(), c.deadline)).collect();
            ours.sort_unstable();
            theirs.sort_unstable();
            prop_assert_eq!(ours, theirs);
            let mut ours: Vec<_> = lan.director.templates().iter()
                .map(|t| (t.client, t.retired, t.assured, since(t.deadline))).collect();
            let mut theirs: Vec<_> =
                model.templates.iter().map(|t| (t.client, t.retired, t.assured, t.deadline)).collect();
            ours.sort_unstable();
            theirs.sort_unstable();
            prop_assert_eq!(ours, theirs);
        }
    }
}
