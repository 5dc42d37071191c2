#![allow(
    unused_must_use,
    reason = "most packets only bring a connection to a state"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::{
    DirectorConfig, Family, Granularity, SchedulerKind, ServerConfig, ServiceConfig, Stats,
    Timeouts, Tunables, Weight,
};

/// A director with one worker, one TCP service and a clock.
struct Lan {
    director: Arc<Director>,
    worker: Worker,
    start: Instant,
    now: Instant,
    key: ServiceKey,
}

const S: TcpFlags = TcpFlags::SYN;
const A: TcpFlags = TcpFlags::ACK;
const F: TcpFlags = TcpFlags::FIN;
const R: TcpFlags = TcpFlags::RST;

impl Lan {
    fn new(protocol: Protocol, vport: u16, config: ServiceConfig) -> Self {
        Self::with(DirectorConfig::new([1, 2, 3, 4]), protocol, vport, config)
    }

    fn tcp() -> Self {
        Self::new(Protocol::Tcp, 80, rr())
    }

    fn with(
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

    fn add(&self, last: u8, method: ForwardMethod) -> Arc<RealServer> {
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

    fn remove(&self, last: u8) {
        self.director
            .remove_server(self.now, &self.key, rip(last))
            .unwrap();
    }

    /// Lets all timers fire in order and stops at `seconds` after the start.
    fn at(&mut self, seconds: f64) {
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
        self.now = to;
    }

    fn send(&mut self, client: SocketAddr, vport: u16, tcp_flags: TcpFlags) -> Verdict {
        let protocol = match self.key {
            ServiceKey::Address { protocol, .. } => protocol,
            ServiceKey::Mark { .. } => Protocol::Tcp,
        };
        let packet = Packet {
            protocol,
            source: client,
            destination: vip(vport),
            direction: Direction::Inbound,
            tcp_flags,
            length: 100,
            mark: 0,
        };
        self.worker.handle_packet(self.now, &packet)
    }

    fn reply(&mut self, from: SocketAddr, client: SocketAddr, tcp_flags: TcpFlags) -> Verdict {
        let packet = Packet {
            protocol: Protocol::Tcp,
            source: from,
            destination: client,
            direction: Direction::Outbound,
            tcp_flags,
            length: 40,
            mark: 0,
        };
        self.worker.handle_packet(self.now, &packet)
    }

    fn state(&self, client: SocketAddr) -> &'static str {
        self.worker
            .connection(Protocol::Tcp, client, vip(80))
            .map_or("-", |info| info.state.name())
    }
}

fn rr() -> ServiceConfig {
    ServiceConfig {
        scheduler: SchedulerKind::RoundRobin,
        ..ServiceConfig::default()
    }
}

fn persistent(seconds: u64, mask: [u8; 4]) -> ServiceConfig {
    let persistence = Persistence {
        timeout: Duration::from_secs(seconds),
        granularity: Granularity::Mask(mask.into()),
    };
    ServiceConfig {
        persistence: Some(persistence),
        ..rr()
    }
}

fn vip(vport: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 10], vport))
}

fn rip(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 8080))
}

fn client(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], port))
}

fn to(last: u8) -> Verdict {
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

/// The same rules over plain vectors: everything is a scan, every deadline is looked at each time.
#[derive(Default)]
struct Model {
    now: u64,
    servers: Vec<ModelServer>,
    position: Option<u8>,
    connections: Vec<ModelConnection>,
    templates: Vec<ModelTemplate>,
    persistent: Option<u64>,
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
    client: SocketAddr,
    server: u8,
    nat: bool,
    no_output: bool,
    state: TcpState,
    active: bool,
    deadline: u64,
    template: Option<u64>,
}

struct ModelTemplate {
    serial: u64,
    client: IpAddr,
    server: u8,
    timeout: u64,
    deadline: u64,
    retired: bool,
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

    fn advance(&mut self, to: u64) {
        loop {
            let connection = self
                .connections
                .iter()
                .map(|c| c.deadline)
                .min()
                .unwrap_or(u64::MAX);
            let template = self
                .templates
                .iter()
                .map(|t| t.deadline)
                .min()
                .unwrap_or(u64::MAX);
            if connection.min(template) > to {
                break;
            }
            if connection <= template {
                let index = self
                    .connections
                    .iter()
                    .position(|c| c.deadline == connection)
                    .unwrap();
                self.end(index);
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

    fn end(&mut self, index: usize) {
        let server = self.connections.remove(index).server;
        self.judge(server, true);
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
        let connection = ModelConnection {
            client,
            server,
            nat,
            no_output: !nat,
            state: TcpState::None,
            active: false,
            deadline: u64::MAX,
            template,
        };
        self.connections.push(connection);
        self.judge(server, false);
    }

    fn inbound(&mut self, client: SocketAddr, flags: TcpFlags) -> Verdict {
        let mut replaced = None;
        if let Some(index) = self.connections.iter().position(|c| c.client == client) {
            let c = &self.connections[index];
            let over =
                matches!(c.state, TcpState::TimeWait | TcpState::Close) && c.template.is_none();
            let last = c.server;
            if !(flags.contains(S) && over) {
                if !self.server(last).listed {
                    return Verdict::Drop(DropReason::ServerRemoved);
                }
                return self.step(index, Direction::Inbound, flags);
            }
            replaced = Some(index);
        }
        let verdict = self.schedule(client, flags);
        if let Some(old) = replaced {
            self.end(old);
        }
        match verdict {
            Some(verdict) => verdict,
            None => self.step(self.connections.len() - 1, Direction::Inbound, flags),
        }
    }

    /// `None` after it added a connection at the end.
    fn schedule(&mut self, client: SocketAddr, flags: TcpFlags) -> Option<Verdict> {
        if flags.contains(R) || !flags.contains(S) {
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
            self.server(last).listed
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
        match self
            .connections
            .iter()
            .position(|c| c.nat && c.client == client && c.server == last)
        {
            Some(index) => self.step(index, Direction::Outbound, flags),
            None => Verdict::NotOurs,
        }
    }

    fn step(&mut self, index: usize, direction: Direction, flags: TcpFlags) -> Verdict {
        let c = &mut self.connections[index];
        c.no_output &= direction == Direction::Inbound;
        c.state = c.state.after(Path::new(direction, c.no_output), flags);
        c.active = State::Tcp(c.state).is_active();
        c.deadline = self.now
            + crate::conn::state::Timings::new(&Timeouts::default()).of(State::Tcp(c.state))
                / 1_000_000;
        let method = if c.nat {
            ForwardMethod::Nat
        } else {
            ForwardMethod::DirectRoute
        };
        match direction {
            Direction::Inbound => Verdict::Forward {
                method,
                server: rip(c.server),
            },
            Direction::Outbound => Verdict::Reply {
                method,
                vip: vip(80),
            },
        }
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
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_the_plain_model(
        persistent_seconds in prop::option::of(1u64..200),
        steps in prop::collection::vec((0u8..12, 1u8..5, 1u8..6, 0usize..8, 0u64..130_000), 1..150),
    ) {
        let config = persistent_seconds.map_or_else(rr, |seconds| persistent(seconds, [255; 4]));
        let mut lan = Lan::new(Protocol::Tcp, 80, config);
        lan.director.epoch.nanos(lan.start);
        let mut model = Model { persistent: persistent_seconds.map(|s| s * 1_000), ..Model::default() };
        let flags = [S, S | A, A, A, F | A, R, S, TcpFlags::PSH];
        for (what, last, port, choice, pause) in steps {
            let client = client(last, u16::from(port));
            match what {
                0..=3 => prop_assert_eq!(lan.send(client, 80, flags[choice]), model.inbound(client, flags[choice])),
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
            let ours: BTreeSet<_> = lan.worker.connections()
                .map(|c| (c.client, c.state.name(), c.deadline.duration_since(lan.start).as_millis() as u64)).collect();
            let theirs: BTreeSet<_> =
                model.connections.iter().map(|c| (c.client, State::Tcp(c.state).name(), c.deadline)).collect();
            prop_assert_eq!(ours, theirs);
            let mut ours: Vec<_> = lan.director.templates().iter()
                .map(|t| (t.client, t.retired, t.deadline.duration_since(lan.start).as_millis() as u64)).collect();
            let mut theirs: Vec<_> = model.templates.iter().map(|t| (t.client, t.retired, t.deadline)).collect();
            ours.sort_unstable();
            theirs.sort_unstable();
            prop_assert_eq!(ours, theirs);
        }
    }
}
