//! Bytes → operations on a director with two workers, with everything that must hold after each.
//! A plain function, for property tests and for fuzzers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_sched::*;

/// Does what the bytes say.
///
/// # Panics
/// If something does not hold.
pub(crate) fn run_operations(bytes: &[u8]) {
    let mut run = Run::new();
    let mut bytes = Bytes(bytes);
    while let Some(operation) = bytes.next() {
        run.step(operation, &mut bytes);
        run.check();
    }
    run.finish();
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number below `bound`; 0 when the bytes are used up.
    fn below(&mut self, bound: u8) -> u8 {
        self.next().unwrap_or(0) % bound
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.below(choices.len() as u8))]
    }
}

struct Run {
    director: Arc<Director>,
    workers: [Worker; 2],
    now: Instant,
    /// Every server that was ever seen, by its service and address.
    servers: Vec<Arc<RealServer>>,
}

const MAX: usize = 40;

impl Run {
    fn new() -> Self {
        let mut config = DirectorConfig::new([1, 2, 3, 4]);
        config.max_connections = MAX;
        config.max_templates = MAX;
        // Few, so that they run out: two for each worker at each address.
        config.local_ports = 2000..=2003;
        let director = Arc::new(Director::new(config));
        Self {
            workers: [director.worker_of(0, 2), director.worker_of(1, 2)],
            director,
            now: Instant::now(),
            servers: Vec::new(),
        }
    }

    fn step(&mut self, operation: u8, bytes: &mut Bytes<'_>) {
        match operation % 24 {
            0..=7 => {
                let (packet, worker) = packet(bytes);
                let foreseen = self.foresee(worker, |worker, now| worker.explain(now, &packet));
                let verdict = self.workers[worker].handle_packet(self.now, &packet);
                assert_eq!(foreseen.verdict, Some(verdict), "{foreseen:?}");
            }
            8 => {
                let (packet, worker) = packet(bytes);
                let payload = bytes.of(&[
                    &b"X\r\nCall-ID: a@b\r\n\r\n"[..],
                    b"X\r\ni: c\r\n\r\n",
                    b"X\r\ni: ",
                ]);
                let foreseen = self.foresee(worker, |worker, now| {
                    worker.explain_with(now, &packet, payload)
                });
                let verdict = self.workers[worker].handle_packet_with(self.now, &packet, payload);
                assert_eq!(foreseen.verdict, Some(verdict), "{foreseen:?}");
            }
            9 => {
                let (mut quoted, worker) = packet(bytes);
                if bytes.flag() {
                    std::mem::swap(&mut quoted.source, &mut quoted.destination);
                }
                let _ = if bytes.flag() {
                    self.workers[worker].handle_icmp(self.now, &quoted)
                } else {
                    self.workers[worker].handle_tunnel_icmp(self.now, &quoted)
                };
            }
            10 => {
                let (packet, worker) = packet(bytes);
                let _ = self.workers[worker].handle_ipsec(
                    self.now,
                    packet.direction,
                    packet.source.ip(),
                    packet.destination.ip(),
                    100,
                );
            }
            11 => {
                let packets: Vec<_> = (0..bytes.below(8)).map(|_| packet(bytes).0).collect();
                let mut verdicts = Vec::new();
                self.workers[1].handle_batch(self.now, &packets, &mut verdicts);
                assert_eq!(verdicts.len(), packets.len());
            }
            12 | 13 => {
                let (control, worker) = packet(bytes);
                let announced = server(bytes);
                let (client, vip) = (control.source, control.destination);
                let _ = if bytes.flag() {
                    self.workers[worker]
                        .expect_passive(self.now, client, vip, announced)
                        .map(drop)
                } else {
                    let data = SocketAddr::new(client.ip(), announced.port());
                    self.workers[worker].expect_active(self.now, client, vip, data)
                };
            }
            14 => {
                let (packet, worker) = packet(bytes);
                let state = bytes.of(&[
                    State::Tcp(TcpState::Established),
                    State::Tcp(TcpState::FinWait),
                    State::Udp,
                    State::Sctp(SctpState::Established),
                ]);
                let imported = ImportedConnection {
                    client: packet.source,
                    virtual_addr: packet.destination,
                    destination: server(bytes),
                    method: ForwardMethod::Nat,
                    state,
                    packets: 3,
                    remaining: Duration::from_secs(u64::from(bytes.below(200))),
                    mark: packet.mark,
                    local: None,
                };
                let _ = self.workers[worker].import_connection(self.now, &imported);
            }
            15 => {
                let key = service(bytes);
                let persistence = bytes.flag().then(|| Persistence {
                    timeout: Duration::from_secs(u64::from(bytes.below(100))),
                    granularity: Granularity::host(key.family()),
                });
                let scheduler = bytes.of(&SchedulerKind::ALL);
                let config = ServiceConfig {
                    scheduler,
                    persistence,
                    one_packet: bytes.flag(),
                    ..ServiceConfig::default()
                };
                if self.director.add_service(key, config).is_err() {
                    let _ = self.director.edit_service(&key, config);
                }
                let engine = (bytes.below(4) == 0).then(|| EngineKind::Sip.build());
                let _ = self.director.set_engine(&key, engine);
            }
            16 | 17 => {
                let (key, addr) = (service(bytes), server(bytes));
                let config = ServerConfig {
                    weight: Weight::new(u32::from(bytes.below(4))).expect("small"),
                    method: bytes.of(&[
                        ForwardMethod::Nat,
                        ForwardMethod::DirectRoute,
                        ForwardMethod::Tunnel,
                        ForwardMethod::FullNat,
                    ]),
                    upper_threshold: u32::from(bytes.below(4)),
                    ..ServerConfig::default()
                };
                match self.director.add_server(self.now, &key, addr, config) {
                    Ok(server) => {
                        if !self.servers.iter().any(|known| Arc::ptr_eq(known, &server)) {
                            self.servers.push(server);
                        }
                    }
                    Err(_) => {
                        let _ = self.director.edit_server(self.now, &key, addr, config);
                    }
                }
            }
            18 => {
                let (key, addr) = (service(bytes), server(bytes));
                let _ = self.director.remove_server(self.now, &key, addr);
            }
            19 => {
                let _ = self.director.remove_service(self.now, &service(bytes));
            }
            20 => self.director.set_tunables(tunables(bytes)),
            22 => {
                let key = service(bytes);
                let local = match key.family() {
                    Family::Inet => IpAddr::from([10, 0, 0, bytes.below(3)]),
                    Family::Inet6 => "2001:db8::200".parse().expect("an address"),
                };
                let _ = if bytes.flag() {
                    self.director.add_local_address(&key, local)
                } else {
                    self.director.remove_local_address(&key, local)
                };
                while self.workers[0].poll_local_end().is_some() {}
            }
            21 => {
                self.director.zero();
                self.workers[0].watch(usize::from(bytes.below(4)));
                while self.workers[0].poll_event().is_some() {}
                let pages = u64::from(bytes.below(255)) * 8;
                self.director.handle_memory(self.now, pages);
            }
            _ => {
                let seconds = [1, 20, 400][usize::from(bytes.below(3))];
                self.now += Duration::from_millis(seconds * u64::from(bytes.below(255)));
                for worker in &mut self.workers {
                    worker.handle_timeout(self.now);
                }
                self.director.handle_timeout(self.now);
                let deadlines = self.workers.iter().map(Worker::poll_timeout);
                for deadline in deadlines.chain([self.director.poll_timeout()]).flatten() {
                    assert!(deadline > self.now, "deadlines move forward");
                }
            }
        }
    }

    /// Explains a packet, twice: the second time everything is as before.
    fn foresee(
        &mut self,
        worker: usize,
        explain: impl Fn(&mut Worker, Instant) -> Explanation,
    ) -> Explanation {
        // What has ended by now ends with any call.
        self.workers[worker].handle_timeout(self.now);
        let before = self.picture();
        let first = explain(&mut self.workers[worker], self.now);
        assert_eq!(before, self.picture(), "an explanation changes nothing");
        assert_eq!(first, explain(&mut self.workers[worker], self.now));
        first
    }

    /// All that shows from outside.
    fn picture(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let connections: Vec<Vec<ConnectionInfo>> = self
            .workers
            .iter()
            .map(|worker| worker.connections().collect())
            .collect();
        let servers: Vec<_> = self
            .servers
            .iter()
            .map(|server| {
                let counts = (server.active(), server.inactive(), server.persistent());
                (
                    server.addr(),
                    counts,
                    server.is_overloaded(),
                    server.stats(),
                )
            })
            .collect();
        let dropped = DropReason::ALL.map(|reason| self.director.dropped(reason));
        let mut templates = self.director.templates();
        templates.sort_by_key(|template| format!("{template:?}"));
        (
            connections,
            servers,
            dropped,
            templates,
            self.director.stats(),
        )
    }

    fn check(&self) {
        let mut listed = 0;
        let mut bound = BTreeMap::new();
        let mut locals = BTreeSet::new();
        for worker in &self.workers {
            assert!(worker.len() <= MAX, "the table is bounded");
            assert_eq!(worker.len(), worker.connections().count());
            for connection in worker.connections() {
                listed += 1;
                if let Some(local) = connection.local {
                    let sides = (local, connection.destination);
                    assert!(locals.insert(sides), "{local} is held twice");
                }
                *bound.entry(connection.active).or_insert(0) += 1;
                assert!(connection.state.is_active() || !connection.active);
            }
        }
        let sum = |of: fn(&RealServer) -> u32| -> u32 {
            self.servers.iter().map(|server| of(server)).sum()
        };
        // Connections without a server are in no count.
        let (active, inactive) = (sum(RealServer::active), sum(RealServer::inactive));
        assert!(active + inactive <= listed);
        assert_eq!(active, bound.get(&true).copied().unwrap_or(0));
        let templates = self.director.templates();
        assert!(templates.len() <= MAX, "templates are bounded");
        assert_eq!(sum(RealServer::persistent) as usize, templates.len());
    }

    /// Everything ends by itself, and nothing is left.
    fn finish(mut self) {
        self.director.set_tunables(Tunables::default());
        for _ in 0..100_000 {
            let deadlines = self.workers.iter().map(Worker::poll_timeout);
            let next = deadlines
                .chain([self.director.poll_timeout()])
                .flatten()
                .min();
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            for worker in &mut self.workers {
                worker.handle_timeout(self.now);
            }
            self.director.handle_timeout(self.now);
        }
        assert!(self.workers.iter().all(Worker::is_empty));
        assert!(self.director.templates().is_empty());
        for server in &self.servers {
            let counts = (server.active(), server.inactive(), server.persistent());
            assert_eq!(counts, (0, 0, 0), "{}", server.addr());
            assert!(!server.is_overloaded() || server.config().upper_threshold > 0);
        }
    }
}

fn vip(bytes: &mut Bytes<'_>) -> IpAddr {
    bytes.of(&[
        IpAddr::from([203, 0, 113, 10]),
        IpAddr::from([203, 0, 113, 11]),
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    ])
}

fn vport(bytes: &mut Bytes<'_>) -> u16 {
    bytes.of(&[80, 80, 21, 20, 0, 500, 5000, 65535])
}

fn server(bytes: &mut Bytes<'_>) -> SocketAddr {
    let ip = bytes.of(&[
        IpAddr::from([192, 0, 2, 1]),
        IpAddr::from([192, 0, 2, 2]),
        IpAddr::from([192, 0, 2, 3]),
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]),
    ]);
    SocketAddr::new(ip, bytes.of(&[8080, 80, 0, 500, 5000]))
}

fn service(bytes: &mut Bytes<'_>) -> ServiceKey {
    if bytes.below(4) == 0 {
        let mark = NonZeroU32::new(u32::from(bytes.below(2)) + 1).expect("not zero");
        let family = bytes.of(&[Family::Inet, Family::Inet6]);
        return ServiceKey::Mark { family, mark };
    }
    ServiceKey::Address {
        protocol: bytes.of(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
        vip: vip(bytes),
        vport: vport(bytes),
    }
}

/// And the worker that has it.
fn packet(bytes: &mut Bytes<'_>) -> (Packet, usize) {
    let number = bytes.below(6);
    let port = bytes.of(&[4000, 4001, 0, 20, 500]);
    let worker = usize::from(number % 2);
    let outbound = bytes.below(3) == 0;
    let other = if outbound {
        server(bytes)
    } else {
        SocketAddr::new(vip(bytes), vport(bytes))
    };
    let client = if other.is_ipv4() {
        SocketAddr::from(([198, 51, 100, number], port))
    } else {
        SocketAddr::from(([0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(number)], port))
    };
    let protocol = bytes.of(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let chunk = [bytes.below(16), 0, 0, 4];
    let packet = Packet {
        protocol,
        source: if outbound { other } else { client },
        destination: if outbound { client } else { other },
        direction: if outbound {
            Direction::Outbound
        } else {
            Direction::Inbound
        },
        tcp_flags: TcpFlags::from_bits(bytes.of(&[2, 2, 0x10, 0x12, 0x11, 4, 0])),
        sctp: SctpEvent::parse(&chunk).filter(|_| chunk[0] != 15),
        length: 100,
        mark: u32::from(bytes.below(12).saturating_sub(9)),
    };
    (packet, worker)
}

fn tunables(bytes: &mut Bytes<'_>) -> Tunables {
    let defence = |bytes: &mut Bytes<'_>| {
        let number = bytes.below(8).saturating_sub(4);
        Defence::from_number(number).expect("in 0..=3")
    };
    let mut tunables = Tunables::default();
    tunables.am_droprate = i32::from(bytes.below(5)) - 1;
    tunables.cache_bypass = bytes.flag();
    tunables.conn_reuse_mode = u32::from(bytes.below(4));
    tunables.drop_entry = defence(bytes);
    tunables.drop_packet = defence(bytes);
    tunables.secure_tcp = defence(bytes);
    tunables.expire_nodest_conn = bytes.flag();
    tunables.expire_quiescent_template = bytes.flag();
    tunables.nat_icmp_send = bytes.flag();
    tunables.schedule_icmp = bytes.flag();
    tunables.sloppy_sctp = bytes.flag();
    tunables.sloppy_tcp = bytes.flag();
    tunables.backup_only = bytes.below(8) == 7;
    tunables.run_estimation = bytes.below(8) != 7;
    tunables
}
