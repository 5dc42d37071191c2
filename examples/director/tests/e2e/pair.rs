//! Two directors that share a virtual address by VRRP, with clients that go on asking.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netlab::Namespace;

use crate::once;
use crate::stage::{Conf, Director, Stage, VIP, vip};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once("pair_answers_soon_with_10_ms", answers_soon_with_10_ms),
        once(
            "pair_standby_serves_after_a_kill",
            standby_serves_after_a_kill,
        ),
        once(
            "pair_clean_stop_moves_the_address",
            clean_stop_moves_the_address,
        ),
        once("pair_without_preemption_stays", without_preemption_stays),
        once("pair_standby_claims_nothing", standby_claims_nothing),
        once("pair_reload_keeps_the_state", reload_keeps_the_state),
    ]
}

/// Of two equal directors on the clients' network.
struct Pair {
    stage: Stage,
    other: Namespace,
}

impl Pair {
    fn new() -> Self {
        let (stage, other) = Stage::direct_pair(2);
        Self { stage, other }
    }

    /// What both have in their files, but for the priority.
    fn conf(settings: &str, priority: u32) -> String {
        let own = format!("priority {priority}\n    {settings}");
        Conf::direct(2).text().replace("priority 255", &own)
    }

    fn start(&self, is_first: bool, settings: &str) -> Director {
        let (namespace, priority) = match is_first {
            true => (&self.stage.director, 150),
            false => (&self.other, 100),
        };
        Director::start_in(namespace, &Self::conf(settings, priority), 1)
    }

    /// Whether the first, and the second, have the address.
    fn holders(&self) -> (bool, bool) {
        (holds(&self.stage.director), holds(&self.other))
    }
}

fn holds(namespace: &Namespace) -> bool {
    let vip: IpAddr = VIP.parse().unwrap();
    let mut netlink = namespace.netlink().unwrap();
    let addresses = netlink.addresses().unwrap();
    addresses.iter().any(|address| address.addr == vip)
}

/// A client that asks all the time, each time anew.
struct Traffic {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Instant>>>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    fn start(client: &Namespace) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let (flag, list) = (Arc::clone(&stop), Arc::clone(&answers));
        let thread = client
            .spawn(move || {
                while !flag.load(Ordering::Relaxed) {
                    // A client that lost a packet does not wait a second for its stack to send it again.
                    if netlab::http_get(vip(), "/", Duration::from_millis(100)).is_ok() {
                        list.lock().unwrap().push(Instant::now());
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            })
            .unwrap();
        Self {
            stop,
            answers,
            thread: Some(thread),
        }
    }

    /// How long after this instant the first answer came to a request that was not answered by the one that went.
    fn silence_after(&self, since: Instant) -> Duration {
        let end = since + Duration::from_secs(10);
        while Instant::now() < end {
            let answers = self.answers.lock().unwrap().clone();
            // What was under way is answered at once.
            let later = since + Duration::from_millis(50);
            if let Some(first) = answers.iter().find(|answer| **answer > later) {
                return *first - since;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("no answer for ten seconds");
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const FAST: &str = "version 3\n    advert_int 0.1";

/// 3 x 100 ms and the skew time of priority 100.
const FAST_DOWN: Duration = Duration::from_millis(361);

fn standby_serves_after_a_kill() {
    let pair = Pair::new();
    let first = pair.start(true, FAST);
    first.wait_for_log("Active from Backup");
    let second = pair.start(false, FAST);
    second.wait_for_log("follows 198.51.100.1 (priority 150)");
    second.wait_until("both servers", || second.service().destinations.len() == 2);
    let traffic = Traffic::start(&pair.stage.client);
    second.wait_until("traffic", || traffic.answers.lock().unwrap().len() > 20);
    let killed = Instant::now();
    first.kill();
    let silence = traffic.silence_after(killed);
    println!("the standby answers {silence:?} after kill -9, with advertisements of 100 ms");
    assert!(
        silence < FAST_DOWN + Duration::from_millis(400),
        "{silence:?}"
    );
    assert!(
        second
            .log()
            .contains("Active from Backup: no advertisement of 198.51.100.1 (priority 150) for ")
    );
    // It comes back, takes away what it had left, and preempts.
    assert_eq!(
        pair.holders(),
        (true, true),
        "a killed director leaves its address"
    );
    let first = pair.start(true, FAST);
    first.wait_for_log("was left by a director that ended early: removed");
    first.wait_for_log(
        "Active from Backup: its priority 150 is better than 198.51.100.2 (priority 100)",
    );
    first.wait_until("the address at one", || pair.holders() == (true, false));
    let returned = Instant::now();
    let silence = traffic.silence_after(returned);
    assert!(silence < Duration::from_millis(500), "{silence:?}");
    drop(traffic);
    assert_eq!(pair.stage.spread(10), [5, 5]);
    drop((first, second));
}

/// With advertisements of 10 ms the standby balances tens of milliseconds after the active director was killed, its claim included.
fn answers_soon_with_10_ms() {
    let pair = Pair::new();
    let settings = "version 3\n    advert_int 0.01";
    let second = pair.start(false, settings);
    second.wait_until("both servers", || second.service().destinations.len() == 2);
    let mut times = Vec::new();
    for _ in 0..7 {
        let first = pair.start(true, settings);
        first.wait_until("the address at one", || pair.holders() == (true, false));
        first.wait_until("an answer", || pair.stage.ask().is_ok());
        thread::sleep(Duration::from_millis(200));
        first.kill();
        let killed = Instant::now();
        second.wait_until("an answer", || {
            let patience = Duration::from_millis(20);
            pair.stage.client.http_get(vip(), "/", patience).is_ok()
        });
        times.push(killed.elapsed());
    }
    times.sort();
    let median = times[times.len() / 2];
    println!(
        "the standby balances after kill -9 with adverts of 10 ms: median {median:?} of {times:?}"
    );
    assert!(median < Duration::from_millis(250), "{times:?}");
}

fn clean_stop_moves_the_address() {
    let pair = Pair::new();
    let first = pair.start(true, "advert_int 1");
    first.wait_for_log("Active from Backup");
    let second = pair.start(false, "advert_int 1");
    second.wait_for_log("follows 198.51.100.1 (priority 150)");
    second.wait_until("both servers", || second.service().destinations.len() == 2);
    let traffic = Traffic::start(&pair.stage.client);
    second.wait_until("traffic", || traffic.answers.lock().unwrap().len() > 20);
    let stopped = Instant::now();
    assert!(first.terminate().success());
    let silence = traffic.silence_after(stopped);
    println!("the standby answers {silence:?} after SIGTERM, with advertisements of 1 s");
    assert!(silence < Duration::from_secs(1), "{silence:?}");
    assert_eq!(pair.holders(), (false, true));
    assert!(second.log().contains("198.51.100.1 left with priority 0"));
}

fn without_preemption_stays() {
    let pair = Pair::new();
    let settings = format!("{FAST}\n    nopreempt");
    let second = pair.start(false, &settings);
    second.wait_for_log("address 198.51.100.100/24 on ext0 added");
    let first = pair.start(true, &settings);
    first.wait_for_log("follows 198.51.100.2 (priority 100)");
    let end = Instant::now() + FAST_DOWN * 3;
    while Instant::now() < end {
        assert_eq!(pair.holders(), (false, true));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(pair.stage.spread(4), [2, 2]);
    assert!(second.terminate().success());
    first.wait_until("the address", || pair.holders() == (true, false));
}

/// A client that has the standby as its router reaches the active director, not the standby's services.
fn standby_claims_nothing() {
    let pair = Pair::new();
    pair.other.forward().unwrap();
    let second = pair.start(false, FAST);
    second.wait_for_log("address 198.51.100.100/24 on ext0 added");
    let first = pair.start(true, FAST);
    first.wait_for_log("address 198.51.100.100/24 on ext0 added");
    first.wait_until("the address at one", || pair.holders() == (true, false));
    let counted = |director: &Director| -> u64 {
        let destinations = director.service().destinations;
        destinations.iter().map(|server| server.stats.conns).sum()
    };
    first.wait_until("both servers", || first.service().destinations.len() == 2);
    let before = counted(&second);
    pair.stage
        .client
        .add_route(&format!("{VIP}/32"), "198.51.100.2")
        .unwrap();
    assert_eq!(pair.stage.spread(10), [5, 5]);
    assert_eq!((counted(&first), counted(&second)), (10, before));
    // Its services are there and ready.
    assert!(
        second
            .ipvsadm(&["-Ln"])
            .contains(&format!("TCP  {VIP}:80 rr"))
    );
}

/// A reload touches neither state nor address; another priority is told to the peers at once.
fn reload_keeps_the_state() {
    let pair = Pair::new();
    let first = pair.start(true, FAST);
    first.wait_for_log("Active from Backup");
    let second = pair.start(false, FAST);
    second.wait_for_log("follows 198.51.100.1 (priority 150)");
    let more = Pair::conf(FAST, 150).replace(
        "198.51.100.100/24",
        "198.51.100.100/24\n        198.51.100.101/24",
    );
    first.reload(&more);
    first.wait_for_log("address 198.51.100.101/24 on ext0 added");
    first.wait_for_log("reload done");
    assert_eq!(pair.holders(), (true, false));
    assert_eq!(first.log().matches("Active from").count(), 1);
    // Worse than the other: that preempts.
    first.reload(&Pair::conf(FAST, 50));
    first.wait_until("the address at the other", || {
        pair.holders() == (false, true)
    });
    assert!(first.log().contains(
        "Backup from Active: 198.51.100.2 (priority 100) is better than its priority 50"
    ));
    // No instance any more: nothing moves, the services stay.
    let text = Pair::conf(FAST, 50);
    let (_, service) = text.split_once("virtual_server").unwrap();
    first.reload(&format!("virtual_server{service}"));
    first.wait_for_log("Initialize from Backup: no longer configured");
    assert_eq!(pair.holders(), (false, true));
    drop(second);
}
