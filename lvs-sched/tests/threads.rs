//! Several workers over one director, each in its own thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_sched::*;

#[test]
fn counts_end_at_zero_when_everything_expired() {
    const WORKERS: u8 = 4;
    const CLIENTS: u16 = 2_000;
    let director = Arc::new(Director::new(DirectorConfig::new([5, 6, 7, 8])));
    let start = Instant::now();
    let vip = SocketAddr::from(([203, 0, 113, 10], 80));
    let key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        vip: vip.ip(),
        vport: vip.port(),
    };
    let granularity = Granularity::Mask([255, 255, 255, 0].into());
    let persistence = Some(Persistence {
        timeout: Duration::from_secs(30),
        granularity,
    });
    let server = |last| SocketAddr::from(([192, 0, 2, last], 80));

    for persistence in [None, persistence] {
        let config = ServiceConfig {
            scheduler: SchedulerKind::WeightedRoundRobin,
            persistence,
            ..ServiceConfig::default()
        };
        let service = director.add_service(key, config).unwrap();
        for last in 1..=5 {
            director
                .add_server(start, &key, server(last), ServerConfig::default())
                .unwrap();
        }
        std::thread::scope(|scope| {
            for worker_number in 0..WORKERS {
                let director = &director;
                scope.spawn(move || {
                    let mut worker = director.worker();
                    for port in 1..=CLIENTS {
                        let packet = |tcp_flags| Packet {
                            protocol: Protocol::Tcp,
                            source: SocketAddr::from((
                                [10, 0, port as u8, worker_number],
                                1024 + port,
                            )),
                            destination: vip,
                            direction: Direction::Inbound,
                            tcp_flags,
                            sctp: None,
                            length: 60,
                            mark: 0,
                        };
                        let now = start + Duration::from_millis(u64::from(port));
                        for flags in [TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN | TcpFlags::ACK] {
                            let verdict = worker.handle_packet(now, &packet(flags));
                            // The last server may be away for a moment after it was chosen.
                            let expected = matches!(
                                verdict,
                                Verdict::Forward { .. } | Verdict::Drop(DropReason::ServerRemoved)
                            );
                            assert!(expected, "{verdict:?}");
                        }
                    }
                    assert_eq!(worker.len(), usize::from(CLIENTS));
                    while let Some(next) = worker.poll_timeout() {
                        worker.handle_timeout(next);
                    }
                    assert!(worker.is_empty());
                });
            }
            // Changes while they run; the last server comes and goes.
            for _ in 0..200 {
                director.remove_server(start, &key, server(5)).unwrap();
                director
                    .add_server(start, &key, server(5), ServerConfig::default())
                    .unwrap();
            }
        });
        while let Some(next) = director.poll_timeout() {
            director.handle_timeout(next);
        }
        let mut connections = 0;
        for server in service.servers() {
            assert_eq!(
                (server.active(), server.inactive(), server.persistent()),
                (0, 0, 0),
                "{}",
                server.addr()
            );
            connections += server.stats().connections;
        }
        let expected = u64::from(WORKERS) * u64::from(CLIENTS);
        assert_eq!(
            (
                connections,
                service.stats().connections,
                director.stats().connections
            ),
            (expected, expected, expected)
        );
        director.zero();
        assert_eq!(
            (service.stats(), director.stats()),
            (Stats::default(), Stats::default())
        );
        director.remove_service(start, &key).unwrap();
    }
}
