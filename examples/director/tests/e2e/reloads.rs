//! Many reloads while clients are at work: what did not change must not notice.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netlab::Namespace;

use crate::once;
use crate::stage::{Conf, Director, Stage, VIP, rip};

pub(crate) fn trials() -> Vec<Trial> {
    vec![once(
        "random_reloads_disturb_no_unchanged_server",
        random_reloads_disturb_no_unchanged_server,
    )]
}

/// 500 connections that are always in use and a paced stream of datagrams, while servers, services, weights, quorums and
/// time-outs beside them come and go. `RELOADS=200` in the soak; the pace is that of 200 a minute.
fn random_reloads_disturb_no_unchanged_server() {
    let reloads = std::env::var("RELOADS").map_or(30, |text| text.parse().unwrap());
    let stage = Stage::nat(3);
    let mut random = Random(0x5eed);
    let director = Director::start_more(&stage, &conf(None), 2, &["--ring-slots", "2048"]);
    let (stop, close) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let echoes: Vec<_> = stage.servers[..2]
        .iter()
        .zip(1..)
        .map(|((namespace, _), n)| echo(namespace, rip(n), &close))
        .collect();
    let talk = {
        let stop = Arc::clone(&stop);
        stage.client.spawn(move || converse(&stop)).unwrap()
    };
    let stream = {
        let stop = Arc::clone(&stop);
        stage.client.spawn(move || datagrams(&stop)).unwrap()
    };
    director.wait_until("the connections", || {
        director.status().connections > CONNECTIONS as u64
    });
    let mut swap = Vec::new();
    for round in 1..=reloads {
        let due = Instant::now() + PACE;
        director.reload(&conf(Some(&mut random)));
        director.wait_until("the reload", || {
            let log = director.log();
            log.matches("reload done").count() + log.matches("nothing has changed").count() == round
        });
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = talk.join().unwrap().unwrap_or_else(|fault| {
        panic!("{fault}; the log:\n{}", director.log());
    });
    let (sent, lost) = stream.join().unwrap();
    close.store(true, Ordering::Relaxed);
    echoes.into_iter().for_each(|echo| echo.join().unwrap());
    let dropped: Vec<_> = director
        .status()
        .counters
        .iter()
        .flat_map(|worker| worker.devices.clone())
        .flat_map(|device| device.counters)
        .filter(|counter| counter.text.contains("lost") || counter.text.contains("full"))
        .filter(|counter| counter.count > 0)
        .collect();
    assert!(rounds > 2, "{rounds} rounds of all connections");
    assert_eq!(lost, 0, "of {sent} datagrams; {dropped:?}");
    // The swap itself, with nothing else to do.
    for _ in 0..10 {
        let before = worker_time(&director);
        let log = director.log().matches("reload done").count();
        director.reload(&conf(Some(&mut random)));
        director.wait_until("the reload", || {
            director.log().matches("reload done").count() > log
        });
        swap.push(worker_time(&director) - before);
    }
    swap.sort_unstable();
    println!(
        "{reloads} reloads: {rounds} rounds of {CONNECTIONS} connections, {sent} datagrams, none lost; \
         a reload takes a worker {:?} of processor time (median of {})",
        swap[swap.len() / 2] / 2,
        swap.len()
    );
}

/// The services that are used are always the same; without a source of chance there is nothing else.
fn conf(random: Option<&mut Random>) -> String {
    let mut text = Conf::nat(2).text();
    let mut third = String::new();
    if let Some(random) = random {
        // Never the same twice in a row, so that each reload has something to do.
        let serial = random.next();
        writeln!(
            text,
            "global_defs {{\n    lvs_timeouts tcp {}\n}}",
            600 + serial % 1000
        )
        .unwrap();
        if random.one_in(2) {
            write!(
                third,
                "    real_server 10.1.0.13 7 {{\n        weight {}\n    }}\n",
                random.next() % 5
            )
            .unwrap();
        }
        for port in 81..90 {
            if random.one_in(3) {
                let quorum = 1 + random.next() % 2;
                write!(
                    text,
                    "virtual_server {VIP} {port} {{\n    lb_algo wlc\n    lb_kind NAT\n    protocol TCP\n    quorum {quorum}\n"
                )
                .unwrap();
                for server in 11..14 {
                    if server == 11 || random.one_in(2) {
                        let weight = random.next() % 10;
                        writeln!(
                            text,
                            "    real_server 10.1.0.{server} 80 {{ weight {weight} }}"
                        )
                        .unwrap();
                    }
                }
                text.push_str("}\n");
            }
        }
    }
    for (protocol, more) in [("TCP", third.as_str()), ("UDP", "")] {
        write!(
            text,
            "virtual_server {VIP} 7 {{\n    lb_algo rr\n    lb_kind NAT\n    protocol {protocol}\n    \
             real_server 10.1.0.11 7 {{\n        weight 1\n    }}\n    \
             real_server 10.1.0.12 7 {{\n        weight 1\n    }}\n{more}}}\n"
        )
        .unwrap();
    }
    text
}

/// Sends back what comes, over TCP and UDP.
fn echo(
    namespace: &Namespace,
    server: SocketAddr,
    stop: &Arc<AtomicBool>,
) -> thread::JoinHandle<()> {
    let at = SocketAddr::new(server.ip(), 7);
    let (listener, socket) =
        namespace.run(|| (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap()));
    listener.set_nonblocking(true).unwrap();
    let datagrams = {
        let stop = Arc::clone(stop);
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 100];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&buffer[..length], from).unwrap();
                }
            }
        })
    };
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = listener.accept() else {
                thread::sleep(Duration::from_millis(2));
                continue;
            };
            stream.set_nonblocking(false).unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 100];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
        datagrams.join().unwrap();
    })
}

/// Uses all connections again and again. The number of rounds, or what went wrong.
fn converse(stop: &AtomicBool) -> Result<usize, String> {
    let service: SocketAddr = format!("{VIP}:7").parse().unwrap();
    let mut streams = Vec::new();
    for n in 0..CONNECTIONS {
        let stream = TcpStream::connect_timeout(&service, Duration::from_secs(3))
            .map_err(|error| format!("connection {n}: {error}"))?;
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        streams.push(stream);
    }
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let word = [rounds as u8; 32];
        for (n, mut stream) in streams.iter().enumerate() {
            let sent = stream.write_all(&word);
            sent.map_err(|error| format!("connection {n}, round {rounds}: {error}"))?;
        }
        for (n, mut stream) in streams.iter().enumerate() {
            let mut answer = [0; 32];
            let read = stream.read_exact(&mut answer);
            read.map_err(|error| format!("connection {n}, round {rounds}: {error}"))?;
            assert_eq!(answer, word);
        }
        rounds += 1;
    }
    Ok(rounds)
}

/// A thousand datagrams a second, each of which comes back. How many were sent and how many did not.
fn datagrams(stop: &AtomicBool) -> (usize, usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((VIP, 7)).unwrap();
    let back = socket.try_clone().unwrap();
    back.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let receiver = thread::spawn(move || {
        let mut buffer = [0; 100];
        let mut received = 0;
        while back.recv(&mut buffer).is_ok() {
            received += 1;
        }
        received
    });
    let mut sent = 0;
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        socket.send(b"datagram").unwrap();
        sent += 1;
        let due = started + Duration::from_millis(sent as u64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    (sent, sent - receiver.join().unwrap())
}

/// Processor time of all data-path threads.
fn worker_time(director: &Director) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", director.id())).unwrap();
    let nanoseconds = |task: fs::DirEntry| -> u64 {
        let name = fs::read_to_string(task.path().join("comm")).unwrap();
        if !name.starts_with("worker-") {
            return 0;
        }
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse().unwrap()
    };
    Duration::from_nanos(tasks.flatten().map(nanoseconds).sum())
}

/// Enough chance for a test, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

const CONNECTIONS: usize = 500;

const PACE: Duration = Duration::from_millis(300);
