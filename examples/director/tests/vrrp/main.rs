//! The director's VRRP beside keepalived's, on one switch between two network namespaces, in both roles.
//!
//! Without the right to make namespaces, or without keepalived, the tests are skipped, and say so.

#![allow(clippy::unwrap_used)] // without the test harness clippy does not see that this is a test

mod host;
mod steady;
mod tracking;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use director::config::ConfigFile;
use director::notify::scripts::{Limits, Runner};
use director::vrrp::{Claims, Status, Vrrp, convert};
use libtest_mimic::{Arguments, Trial};
use lvs_vrrp::State;
use netlab::{Bridge, Namespace};

fn main() {
    let mut arguments = Arguments::from_args();
    // Timings are part of what is tested.
    arguments.test_threads.get_or_insert(4);
    let mut trials = Vec::new();
    let found = ["/usr/sbin/keepalived", "/sbin/keepalived"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    match (netlab::enter(), found) {
        (Ok(_), Some(_)) => {
            trials.extend(all());
            trials.extend(tracking::trials());
            trials.extend(host::trials());
            trials.extend(steady::trial());
        }
        (Err(error), _) => {
            println!("skipped: VRRP beside keepalived needs network namespaces: {error}");
        }
        (_, None) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "keepalived is not installed"
            );
            println!("skipped: VRRP beside keepalived: keepalived is not installed");
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// VRRP on a thread of this process.
struct Ours(Vrrp);

impl Ours {
    fn start(namespace: &Namespace, file: &ConfigFile) -> Self {
        let (news, _) = tokio::sync::mpsc::unbounded_channel();
        let converted = convert(file.config());
        let scripts = Runner::start(Limits::default()).unwrap();
        Self(namespace.run(|| Vrrp::start(converted, Claims::None, scripts, news).unwrap()))
    }

    fn status(&self) -> Vec<Status> {
        self.0.status().blocking_recv().unwrap()
    }
}

/// A process of `director --vrrp`. It ends with this value.
struct Process(Child);

impl Process {
    fn start(namespace: &Namespace, configuration: &Path) -> Self {
        let child = namespace
            .command(env!("CARGO_BIN_EXE_director"))
            .unwrap()
            .args(["--vrrp", "-n", "-l", "-f"])
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// With advertisements every 10 ms the standby answers for the address tens of milliseconds after the active director was killed. The
/// dead one's kernel still has the address, but nobody who listens.
fn kill_with_10_ms() {
    let kind = Kind {
        name: "kill",
        settings: "version 3\nadvert_int 0.01",
        vip: "192.0.2.100/24",
        interval: 10,
    };
    let lan = Lan::new(kind, true);
    let standby = lan.configuration(false);
    let better = lan.configuration(true);
    let _standby = Process::start(&lan.theirs, &standby);
    let client = Namespace::new("client").unwrap();
    lan.switch.attach(&client, "eth0", "192.0.2.13/24").unwrap();
    let _listener = lan
        .theirs
        .run(|| TcpListener::bind("0.0.0.0:7000"))
        .unwrap();
    let vip: SocketAddr = "192.0.2.100:7000".parse().unwrap();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let active = Process::start(&lan.ours, &better);
        lan.wait_for(true, Duration::from_secs(5));
        // It returned, so the standby must be one again.
        std::thread::sleep(Duration::from_millis(200));
        active.kill();
        let killed = Instant::now();
        let answered = client.run(|| {
            while TcpStream::connect_timeout(&vip, Duration::from_millis(20)).is_err() {
                assert!(killed.elapsed() < Duration::from_secs(5), "no take-over");
                std::thread::sleep(Duration::from_micros(500));
            }
            killed.elapsed()
        });
        times.push(answered);
    }
    times.sort();
    let median = times[times.len() / 2];
    println!(
        "answers from the standby after kill -9 with adverts of 10 ms: median {median:?} of {times:?}"
    );
    // Without real-time priority others on the machine count.
    let most = if is_root() { 50 } else { 150 };
    assert!(median < Duration::from_millis(most), "{times:?}");
}

/// In the machine's own user namespace: only there is real-time priority to be had.
fn is_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    rustix::process::geteuid().is_root() && map.contains("4294967295")
}

/// How long a take-over took is what the timers say, a tenth more at most, and what it takes to see it.
fn in_time(took: Duration, expected: Duration) {
    let least = expected.saturating_sub(FAST.advert());
    let most = expected * 11 / 10 + Duration::from_millis(200);
    assert!(
        (least..most).contains(&took),
        "{took:?} instead of {expected:?}"
    );
}

/// keepalived is killed with its parent: ours takes over after three intervals and its skew time.
fn crash_of_keepalived() {
    let lan = Lan::new(FAST, false);
    let ours = lan.start_ours();
    let mut theirs = lan.start_theirs();
    lan.wait_for(false, lan.down_time(150) + Duration::from_secs(2));
    std::thread::sleep(Duration::from_millis(300));
    theirs.kill(&lan);
    let killed = Instant::now();
    eventually("the address at ours", lan.down_time(100) * 2, || {
        lan.has_vip(&lan.ours)
    });
    in_time(killed.elapsed(), lan.down_time(100));
    assert_eq!(ours.status()[0].state, State::Active);
}

/// Ours is killed: keepalived takes over.
fn crash_of_ours() {
    let lan = Lan::new(FAST, true);
    let ours = Process::start(&lan.ours, &lan.configuration(true));
    let _theirs = lan.start_theirs();
    lan.wait_for(true, lan.down_time(150) + Duration::from_secs(2));
    // It must have heard us to wait for our silence.
    std::thread::sleep(Duration::from_secs(1));
    ours.kill();
    let killed = Instant::now();
    eventually("the address at theirs", lan.down_time(100) * 2, || {
        lan.has_vip(&lan.theirs)
    });
    in_time(killed.elapsed(), lan.down_time(100));
    // Returned, ours takes away what it had left, then preempts.
    let back = Process::start(&lan.ours, &lan.configuration(true));
    lan.wait_for(true, lan.down_time(150) + Duration::from_secs(2));
    drop(back);
}

/// A better one of ours does not take the address from a living keepalived, but when that stops.
fn nopreempt() {
    let lan = Lan::new(
        Kind {
            name: "nopreempt",
            settings: "version 3\nadvert_int 0.2\nnopreempt",
            ..FAST
        },
        true,
    );
    let mut theirs = lan.start_theirs();
    lan.wait_for(false, lan.down_time(100) + Duration::from_secs(2));
    let ours = lan.start_ours();
    let end = Instant::now() + lan.down_time(150) * 3;
    while Instant::now() < end {
        assert_eq!(lan.holders(), (false, true));
        std::thread::sleep(Duration::from_millis(20));
    }
    theirs.stop();
    lan.wait_for(true, Duration::from_secs(1));
    assert_eq!(ours.status()[0].statistics.priority_zero_received, 1);
}

/// Two instances in a sync group: when the link of one goes down both move, and both come back.
fn sync_group() {
    let lan = Lan::new(
        Kind {
            name: "group",
            ..FAST
        },
        true,
    );
    // A second switch with a virtual router of its own.
    let switch = Namespace::new("switch").unwrap();
    let bridge = Bridge::new(&switch, "br1").unwrap();
    bridge
        .attach(&lan.ours, "eth1", "198.51.100.11/24")
        .unwrap();
    bridge
        .attach(&lan.theirs, "eth1", "198.51.100.12/24")
        .unwrap();
    for ours in [true, false] {
        let path = lan.configuration(ours);
        let first = std::fs::read_to_string(&path).unwrap();
        let second = first
            .replace("VI_1", "VI_2")
            .replace("eth0", "eth1")
            .replace("192.0.2.100", "198.51.100.100");
        let group = "vrrp_sync_group G {\ngroup {\nVI_1\nVI_2\n}\n}\n";
        std::fs::write(&path, format!("{group}{first}{second}")).unwrap();
    }
    let holders = || {
        let second: IpAddr = "198.51.100.100".parse().unwrap();
        let has = |namespace: &Namespace| {
            let mut netlink = namespace.netlink().unwrap();
            let addresses = netlink.addresses().unwrap();
            addresses.iter().any(|address| address.addr == second)
        };
        (lan.holders(), (has(&lan.ours), has(&lan.theirs)))
    };
    let at_ours = ((true, false), (true, false));
    let at_theirs = ((false, true), (false, true));
    let limit = Duration::from_secs(4);
    let file = ConfigFile::read(&lan.folder.join("ours"), None).unwrap();
    let ours = Ours::start(&lan.ours, &file);
    let _theirs = lan.start_theirs_as_written();
    eventually("both addresses at ours", limit, || holders() == at_ours);
    std::thread::sleep(Duration::from_millis(500));
    let mut netlink = lan.ours.netlink().unwrap();
    let link = netlink.link_by_name("eth1").unwrap();
    netlink.set_up(link.index, false).unwrap();
    eventually("both addresses at theirs", limit, || {
        // What is set on an interface that is down stays there in the kernel's list until it is taken away.
        holders() == at_theirs
    });
    let states: Vec<_> = ours.status().iter().map(|each| each.state).collect();
    assert_eq!(states, [State::Fault, State::Fault]);
    netlink.set_up(link.index, true).unwrap();
    eventually("both addresses at ours again", limit * 2, || {
        holders() == at_ours
    });
}

/// A reload moves what differs and nothing else; SIGTERM gives everything back.
fn reload_and_end() {
    let kind = KINDS[3];
    let lan = Lan::new(kind, true);
    let path = lan.configuration(true);
    let process = Process::start(&lan.ours, &path);
    lan.wait_for(true, lan.down_time(150) + Duration::from_secs(2));
    let text = std::fs::read_to_string(&path).unwrap();
    let more = text.replace("192.0.2.100/24", "192.0.2.100/24\n192.0.2.101/24");
    std::fs::write(&path, more).unwrap();
    let pid = rustix::process::Pid::from_child(&process.0);
    let signal = |signal| rustix::process::kill_process(pid, signal).unwrap();
    signal(rustix::process::Signal::HUP);
    let second: IpAddr = "192.0.2.101".parse().unwrap();
    let has_second = || {
        let mut netlink = lan.ours.netlink().unwrap();
        let addresses = netlink.addresses().unwrap();
        assert!(lan.has_vip(&lan.ours), "the first one stays");
        addresses.iter().any(|address| address.addr == second)
    };
    eventually("the second address", Duration::from_secs(2), has_second);
    // Somebody takes the first one away: it is set again.
    let mut netlink = lan.ours.netlink().unwrap();
    let vip: IpAddr = "192.0.2.100".parse().unwrap();
    let address = netlink
        .addresses()
        .unwrap()
        .into_iter()
        .find(|address| address.addr == vip)
        .unwrap();
    netlink.delete_address(&address).unwrap();
    eventually("the address again", Duration::from_secs(2), || {
        lan.has_vip(&lan.ours)
    });
    drop(process);
    assert!(!lan.has_vip(&lan.ours), "given back");
}

/// How often the active director is killed.
const ROUNDS: usize = 20;

/// What is said the same on both sides.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    settings: &'static str,
    vip: &'static str,
    /// Milliseconds between advertisements.
    interval: u64,
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "v2",
        settings: "version 2\nadvert_int 1",
        vip: "192.0.2.100/24",
        interval: 1000,
    },
    Kind {
        name: "v2_pass",
        settings: "version 2\nadvert_int 1\nauthentication {\nauth_type PASS\nauth_pass s3cret\n}",
        vip: "192.0.2.100/24",
        interval: 1000,
    },
    Kind {
        name: "v2_ah",
        settings: "version 2\nadvert_int 1\nauthentication {\nauth_type AH\nauth_pass k3yAH\n}",
        vip: "192.0.2.100/24",
        interval: 1000,
    },
    Kind {
        name: "v3_ipv4",
        settings: "version 3\nadvert_int 0.2",
        vip: "192.0.2.100/24",
        interval: 200,
    },
    Kind {
        name: "v3_ipv6",
        settings: "version 3\nadvert_int 0.2",
        vip: "fe80::100/64",
        interval: 200,
    },
    Kind {
        name: "v3_unicast",
        settings: "version 3\nadvert_int 0.2\nunicast_src_ip OWN\nunicast_peer {\nOTHER\n}",
        vip: "192.0.2.100/24",
        interval: 200,
    },
];

/// Fast enough to wait for.
const FAST: Kind = Kind {
    name: "crash",
    ..KINDS[3]
};

impl Kind {
    const fn advert(&self) -> Duration {
        Duration::from_millis(self.interval)
    }
}

fn all() -> Vec<Trial> {
    let mut trials = Vec::new();
    for kind in KINDS {
        for ours_is_better in [false, true] {
            let role = if ours_is_better { "better" } else { "worse" };
            trials.push(Trial::test(
                format!("{}::as_the_{role}", kind.name),
                move || {
                    life(kind, ours_is_better);
                    Ok(())
                },
            ));
        }
    }
    for (name, test) in [
        ("crash_of_keepalived", crash_of_keepalived as fn()),
        ("crash_of_ours", crash_of_ours),
        ("nopreempt", nopreempt),
        ("sync_group", sync_group),
        ("kill_with_10_ms", kill_with_10_ms),
        ("reload_and_end", reload_and_end),
    ] {
        trials.push(Trial::test(name, move || {
            test();
            Ok(())
        }));
    }
    trials
}

/// Two hosts on a switch: ours and keepalived's.
struct Lan {
    ours: Namespace,
    theirs: Namespace,
    switch: Bridge,
    folder: PathBuf,
    kind: Kind,
    ours_is_better: bool,
}

impl Lan {
    fn new(kind: Kind, ours_is_better: bool) -> Self {
        let switch = Namespace::new("switch").unwrap();
        let bridge = Bridge::new(&switch, "br0").unwrap();
        let (ours, theirs) = (
            Namespace::new("ours").unwrap(),
            Namespace::new("theirs").unwrap(),
        );
        bridge.attach(&ours, "eth0", "192.0.2.11/24").unwrap();
        bridge.attach(&theirs, "eth0", "192.0.2.12/24").unwrap();
        let name = format!(
            "director-vrrp-{}-{}-{ours_is_better}",
            std::process::id(),
            kind.name
        );
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let lan = Self {
            ours,
            theirs,
            switch: bridge,
            folder,
            kind,
            ours_is_better,
        };
        if kind.vip.contains(':') {
            // Link-local addresses are usable when they are no longer tentative.
            for namespace in [&lan.ours, &lan.theirs] {
                eventually("a link-local address", Duration::from_secs(5), || {
                    lan.link_local_is_ready(namespace)
                });
            }
        }
        lan
    }

    fn link_local_is_ready(&self, namespace: &Namespace) -> bool {
        namespace.run(|| {
            let text = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
            text.lines().any(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                fields[5] == "eth0" && fields[0].starts_with("fe80") && fields[4] == "80"
            })
        })
    }

    fn configuration(&self, ours: bool) -> PathBuf {
        let better = ours == self.ours_is_better;
        let (own, other) = if ours {
            ("192.0.2.11", "192.0.2.12")
        } else {
            ("192.0.2.12", "192.0.2.11")
        };
        let settings = self
            .kind
            .settings
            .replace("OWN", own)
            .replace("OTHER", other);
        let text = format!(
            "vrrp_instance VI_1 {{\nstate BACKUP\ninterface eth0\nvirtual_router_id 51\npriority {}\n{settings}\n\
             virtual_ipaddress {{\n{}\n}}\n}}\n",
            if better { 150 } else { 100 },
            self.kind.vip
        );
        let path = self.folder.join(if ours { "ours" } else { "theirs" });
        std::fs::write(&path, text).unwrap();
        path
    }

    fn start_ours(&self) -> Ours {
        let file = ConfigFile::read(&self.configuration(true), None).unwrap();
        Ours::start(&self.ours, &file)
    }

    fn start_theirs(&self) -> Keepalived {
        self.configuration(false);
        self.start_theirs_as_written()
    }

    fn start_theirs_as_written(&self) -> Keepalived {
        self.start_theirs_with(&["--vrrp"])
    }

    /// With BFD.
    fn start_theirs_whole(&self) -> Keepalived {
        self.start_theirs_with(&[
            "--bfd_pid",
            &self.folder.join("bfd_pid").display().to_string(),
        ])
    }

    fn start_theirs_with(&self, arguments: &[&str]) -> Keepalived {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let child = self
            .theirs
            .command("/usr/sbin/keepalived")
            .unwrap()
            .args(arguments)
            .args(["--dont-fork", "--log-console", "--log-detail"])
            .args(["--use-file", &file("theirs")])
            .args(["--pid", &file("pid"), "--vrrp_pid", &file("vrrp_pid")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Keepalived { child: Some(child) }
    }

    fn has_vip(&self, namespace: &Namespace) -> bool {
        let vip: IpAddr = self.kind.vip.split('/').next().unwrap().parse().unwrap();
        let mut netlink = namespace.netlink().unwrap();
        let addresses = netlink.addresses().unwrap();
        addresses.iter().any(|address| address.addr == vip)
    }

    /// Who has the address: ours, theirs.
    fn holders(&self) -> (bool, bool) {
        (self.has_vip(&self.ours), self.has_vip(&self.theirs))
    }

    /// Waits until exactly one side has the address, and tells how long it took.
    fn wait_for(&self, ours: bool, limit: Duration) -> Duration {
        let start = Instant::now();
        let who = if ours { "ours" } else { "theirs" };
        let what = format!("the address at {who} of {}", self.kind.name);
        eventually(&what, limit, || self.holders() == (ours, !ours));
        start.elapsed()
    }

    fn down_time(&self, priority: u64) -> Duration {
        let interval = self.kind.interval;
        Duration::from_millis(3 * interval + (256 - priority) * interval / 256)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("log"));
            println!("keepalived said:\n{}", log.unwrap_or_default());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A process of keepalived. It ends with this value.
struct Keepalived {
    child: Option<Child>,
}

impl Keepalived {
    /// Without a last word, its child first, so that the parent cannot replace it.
    fn kill(&mut self, lan: &Lan) {
        let child = self.child.as_mut().unwrap();
        let text = std::fs::read_to_string(lan.folder.join("vrrp_pid")).unwrap();
        let vrrp = rustix::process::Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        let stop = rustix::process::Signal::STOP;
        let kill = rustix::process::Signal::KILL;
        let parent = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(parent, stop).unwrap();
        rustix::process::kill_process(vrrp, kill).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        self.child = None;
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let pid = rustix::process::Pid::from_child(child);
            // The parent takes its child along.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = child.wait();
        }
    }
}

fn eventually(what: &str, limit: Duration, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !check() {
        assert!(Instant::now() < end, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The better one becomes master, keeps the address while both live, leaves in order, comes back and preempts.
fn life(kind: Kind, ours_is_better: bool) {
    let lan = Lan::new(kind, ours_is_better);
    let slack = Duration::from_millis(1500);
    let mut ours = Some(lan.start_ours());
    let mut theirs = lan.start_theirs();
    lan.wait_for(ours_is_better, lan.down_time(150) + slack);
    let stable = Instant::now() + Duration::from_millis(kind.interval * 3);
    while Instant::now() < stable {
        assert_eq!(lan.holders(), (ours_is_better, !ours_is_better));
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = ours.as_ref().unwrap().status();
    let state = if ours_is_better {
        State::Active
    } else {
        State::Backup
    };
    assert_eq!(status[0].state, state, "{status:?}");
    let statistics = status[0].statistics;
    // Alone for a moment, until the other has started, the worse one may have been Active too.
    assert!(statistics.became_active <= 1, "{statistics:?}");
    if !ours_is_better {
        assert!(statistics.adverts_received >= 3, "{statistics:?}");
        let refused = statistics.checksum_errors
            + statistics.length_errors
            + statistics.auth_failures
            + statistics.address_list_errors;
        assert_eq!(refused, 0, "{statistics:?}");
    }
    // In order: priority 0, and the other takes over after its skew time.
    let skew = lan.down_time(100) - Duration::from_millis(3 * kind.interval);
    if ours_is_better {
        let stopped = Instant::now();
        drop(ours.take());
        lan.wait_for(false, skew + slack);
        assert!(
            stopped.elapsed() < lan.down_time(100),
            "after a skew time, not after silence: {:?}",
            stopped.elapsed()
        );
        ours = Some(lan.start_ours());
        lan.wait_for(true, lan.down_time(150) + slack);
    } else {
        theirs.stop();
        lan.wait_for(true, slack);
        let status = ours.as_ref().unwrap().status();
        assert_eq!(status[0].statistics.priority_zero_received, 1);
        theirs = lan.start_theirs();
        lan.wait_for(false, lan.down_time(150) + slack);
        let status = ours.as_ref().unwrap().status();
        assert_eq!(status[0].state, State::Backup);
    }
    drop(ours);
    drop(theirs);
    eventually("everything to be taken away", slack, || {
        lan.holders() == (false, false)
    });
}
