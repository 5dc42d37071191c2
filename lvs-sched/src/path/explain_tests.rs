use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::{
    Director, DirectorConfig, Granularity, Packet, Persistence, Request, Scheduler, SchedulerKind,
    ServerConfig, Servers, TcpFlags, Tunables, VirtualService, Weight, Worker,
};

struct Stage {
    director: Arc<Director>,
    worker: Worker,
    now: Instant,
}

impl Stage {
    fn new(config: ServiceConfig) -> Self {
        let director = Arc::new(Director::new(DirectorConfig::new([1, 2, 3, 4])));
        let now = Instant::now();
        director.add_service(web(), config).unwrap();
        for last in 1..=3 {
            director
                .add_server(now, &web(), server(last), weighing(u32::from(last)))
                .unwrap();
        }
        Self {
            worker: director.worker(),
            director,
            now,
        }
    }

    fn tune(&self, change: impl FnOnce(&mut Tunables)) {
        let mut tunables = self.director.tunables();
        change(&mut tunables);
        self.director.set_tunables(tunables);
    }

    fn explain(&mut self, packet: &Packet) -> Explanation {
        self.worker.explain(self.now, packet)
    }

    fn send(&mut self, packet: &Packet) -> Verdict {
        self.worker.handle_packet(self.now, packet)
    }

    fn reason(&mut self, packet: &Packet) -> Reason {
        let explanation = self.explain(packet);
        assert_eq!(explanation.verdict, Some(self.send(packet)));
        explanation.reason
    }
}

fn web() -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        vip: [203, 0, 113, 10].into(),
        vport: 80,
    }
}

fn server(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 8080))
}

fn weighing(weight: u32) -> ServerConfig {
    ServerConfig {
        weight: Weight::new(weight).unwrap(),
        method: ForwardMethod::Nat,
        ..ServerConfig::default()
    }
}

fn packet(port: u16, tcp_flags: TcpFlags) -> Packet {
    Packet {
        protocol: Protocol::Tcp,
        source: SocketAddr::from(([198, 51, 100, 7], port)),
        destination: SocketAddr::from(([203, 0, 113, 10], 80)),
        direction: Direction::Inbound,
        tcp_flags,
        sctp: None,
        length: 60,
        mark: 0,
    }
}

fn syn(port: u16) -> Packet {
    packet(port, TcpFlags::SYN)
}

fn of_scheduler(scheduler: SchedulerKind) -> ServiceConfig {
    ServiceConfig {
        scheduler,
        ..ServiceConfig::default()
    }
}

#[test]
fn a_peek_tells_the_pick_and_takes_no_turn() {
    for kind in SchedulerKind::ALL {
        // The twin is never looked at, and must not differ.
        let (seen, unseen) = (VirtualService::new(of_scheduler(kind)), {
            VirtualService::new(of_scheduler(kind))
        });
        for service in [&seen, &unseen] {
            for last in 1..=5 {
                service
                    .add_server(server(last), weighing(u32::from(last) % 4))
                    .unwrap();
            }
        }
        let start = Instant::now();
        for step in 0..300_u32 {
            let client = SocketAddr::from(([198, 51, 100, (step % 7) as u8], 4000));
            let to = SocketAddr::from(([203, 0, 113, (step % 5) as u8], 80));
            let request = Request::new(client, to)
                .at(start + Duration::from_secs(u64::from(step) * 29))
                .with_cache_life(Duration::from_secs(1000));
            if step % 40 == 39 {
                let addr = server((step % 5) as u8 + 1);
                for service in [&seen, &unseen] {
                    service
                        .set_weight(addr, Weight::new(step / 40 % 3).unwrap())
                        .unwrap();
                }
            }
            let addr_of = |server: Option<Arc<RealServer>>| server.map(|server| server.addr());
            for _ in 0..step % 3 {
                let _ = seen.peek(&request);
            }
            let foreseen = addr_of(seen.peek(&request).unwrap());
            let bind = |service: &VirtualService| {
                service.schedule_and_bind(&request, crate::real_server::Class::Active)
            };
            let picked = addr_of(bind(&seen));
            assert_eq!(foreseen, picked, "{kind} step {step}");
            assert_eq!(picked, addr_of(bind(&unseen)), "{kind} step {step}");
        }
    }
}

#[test]
fn an_own_scheduler_that_does_not_peek_is_unforeseen() {
    #[derive(Debug)]
    struct First;
    impl Scheduler for First {
        fn pick(&mut self, servers: &Servers, _: &Request) -> Option<usize> {
            (!servers.is_empty()).then_some(0)
        }
    }
    let service = VirtualService::with_scheduler(ServiceConfig::default(), Box::new(First));
    service.add_server(server(1), weighing(1)).unwrap();
    let request = Request::new(syn(1).source, syn(1).destination);
    assert!(service.peek(&request).is_err());
}

#[test]
fn a_connection_is_named_with_its_server() {
    let mut stage = Stage::new(of_scheduler(SchedulerKind::RoundRobin));
    let first = stage.explain(&syn(4000));
    assert_eq!(first.reason, Reason::Scheduler);
    assert_eq!(
        (first.service, first.server),
        (Some(web()), Some(server(3)))
    );
    assert_eq!(first.connection, None);
    assert_eq!(stage.reason(&syn(4000)), Reason::Scheduler);
    let data = packet(4000, TcpFlags::ACK);
    let met = stage.explain(&data);
    assert_eq!(
        (met.reason, met.server),
        (Reason::Connection, Some(server(3)))
    );
    assert_eq!(met.connection.unwrap().client, data.source);
    let answer = Packet {
        source: server(3),
        destination: data.source,
        direction: Direction::Outbound,
        ..data
    };
    assert_eq!(stage.reason(&answer), Reason::Connection);
    let unknown = Packet {
        source: server(2),
        ..answer
    };
    assert_eq!(stage.reason(&unknown), Reason::UnknownReply);
}

#[test]
fn a_template_is_told_from_the_scheduler() {
    let mut stage = Stage::new(ServiceConfig {
        persistence: Some(Persistence {
            timeout: Duration::from_secs(300),
            granularity: Granularity::host(crate::Family::Inet),
        }),
        ..of_scheduler(SchedulerKind::RoundRobin)
    });
    assert_eq!(stage.reason(&syn(4000)), Reason::Scheduler);
    let second = stage.explain(&syn(4001));
    assert_eq!(
        (second.reason, second.server),
        (Reason::Template, Some(server(3)))
    );
    assert_eq!(second.template.unwrap().controls, 1);
    assert_eq!(stage.reason(&syn(4001)), Reason::Template);
    stage
        .director
        .remove_server(stage.now, &web(), server(3))
        .unwrap();
    let third = stage.explain(&syn(4002));
    assert_eq!(third.reason, Reason::Scheduler);
    assert!(
        third.template.is_some(),
        "the one that is given up is shown"
    );
    assert_eq!(
        stage.reason(&packet(4001, TcpFlags::ACK)),
        Reason::ServerRemoved
    );
    stage.tune(|tunables| tunables.expire_nodest_conn = true);
    let passed = stage.explain(&syn(4001));
    assert_eq!(passed.passed_over, Some(PassedOver::Removed));
    assert_eq!(stage.reason(&syn(4001)), Reason::Scheduler);
}

#[test]
fn a_local_port_is_named_and_not_taken() {
    let mut stage = Stage::new(of_scheduler(SchedulerKind::RoundRobin));
    for last in 1..=3 {
        let config = ServerConfig {
            method: ForwardMethod::FullNat,
            ..weighing(1)
        };
        stage
            .director
            .edit_server(stage.now, &web(), server(last), config)
            .unwrap();
    }
    assert_eq!(stage.reason(&syn(4000)), Reason::NoLocalPort);
    for last in [1, 2] {
        let local = [10, 0, 0, last].into();
        stage.director.add_local_address(&web(), local).unwrap();
    }
    for port in 4000..4100 {
        let foreseen = stage.explain(&syn(port));
        assert_eq!(foreseen, stage.explain(&syn(port)));
        assert!(matches!(
            foreseen.verdict,
            Some(Verdict::ForwardFrom { .. })
        ));
        assert_eq!(stage.reason(&syn(port)), Reason::Scheduler);
        assert_eq!(
            stage.reason(&packet(port, TcpFlags::ACK)),
            Reason::Connection
        );
    }
}

#[test]
fn every_refusal_has_its_reason() {
    let mut stage = Stage::new(ServiceConfig::default());
    assert_eq!(
        stage.reason(&packet(4000, TcpFlags::ACK)),
        Reason::BeginsNothing
    );
    assert_eq!(
        stage.reason(&packet(4000, TcpFlags::RST)),
        Reason::BeginsNothing
    );
    assert_eq!(stage.reason(&syn(20)), Reason::FtpData);
    let elsewhere = Packet {
        destination: SocketAddr::from(([203, 0, 113, 10], 81)),
        ..syn(4000)
    };
    assert_eq!(stage.reason(&elsewhere), Reason::NoService);
    let mixed = Packet {
        source: "[2001:db8::1]:4000".parse().unwrap(),
        ..syn(4000)
    };
    assert_eq!(stage.reason(&mixed), Reason::MixedFamilies);
    for last in 1..=3 {
        stage
            .director
            .edit_server(stage.now, &web(), server(last), weighing(0))
            .unwrap();
    }
    assert_eq!(stage.reason(&syn(4000)), Reason::NoServer);
    stage.tune(|tunables| tunables.backup_only = true);
    stage.director.set_backup(true);
    assert_eq!(stage.reason(&syn(4000)), Reason::BackupOnly);
}
