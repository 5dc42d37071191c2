//! What virtual routers watch: scripts, files, processes, BFD sessions.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use director::config::ConfigFile;
use libtest_mimic::Trial;
use lvs_vrrp::State;

use crate::{FAST, Kind, Lan, Ours, eventually};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for ours_is_better in [false, true] {
        let role = if ours_is_better { "better" } else { "worse" };
        trials.push(Trial::test(
            format!("track_script_weight::as_the_{role}"),
            move || {
                track_script_weight(ours_is_better);
                Ok(())
            },
        ));
    }
    for (name, test) in [
        ("track_script_fault", track_script_fault as fn()),
        ("track_file", track_file),
        ("track_process", track_process),
        ("bfd_between_two_of_ours", bfd_between_two_of_ours),
        ("bfd_with_keepalived", bfd_with_keepalived),
    ] {
        trials.push(Trial::test(name, move || {
            test();
            Ok(())
        }));
    }
    trials
}

/// Two hosts, with more in a host's file.
struct Watching {
    lan: Lan,
    /// What is watched looks at this.
    object: PathBuf,
}

impl Watching {
    fn new(name: &'static str, ours_is_better: bool) -> Self {
        let lan = Lan::new(Kind { name, ..FAST }, ours_is_better);
        let object = lan.folder.join("object");
        Self { lan, object }
    }

    /// Adds blocks before and lines within the instance of a host.
    fn write(&self, ours: bool, before: &str, within: &str) -> PathBuf {
        let path = self.lan.configuration(ours);
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("state BACKUP\n", &format!("state BACKUP\n{within}\n"));
        fs::write(&path, format!("{before}\n{text}")).unwrap();
        path
    }

    fn start_ours(&self, path: &Path) -> Ours {
        Ours::start(&self.lan.ours, &ConfigFile::read(path, None).unwrap())
    }

    fn patience(&self) -> Duration {
        self.lan.down_time(100) * 3 + Duration::from_secs(2)
    }
}

/// The better one's script fails and takes 60 of its 150: the worse one takes over, and gives back when it succeeds again.
fn track_script_weight(ours_is_better: bool) {
    let name = if ours_is_better {
        "script-a"
    } else {
        "script-b"
    };
    let case = Watching::new(name, ours_is_better);
    let script = format!(
        "vrrp_script chk {{\nscript \"/usr/bin/test ! -e {}\"\ninterval 0.2\nweight -60\nrise 2\nfall 2\n}}",
        case.object.display()
    );
    case.lan.configuration(false);
    let path = case.write(true, "", "");
    let better = case.write(ours_is_better, &script, "track_script {\nchk\n}");
    let ours = case.start_ours(if ours_is_better { &better } else { &path });
    let theirs = case.lan.start_theirs_as_written();
    case.lan.wait_for(ours_is_better, case.patience());
    std::thread::sleep(Duration::from_millis(500));
    fs::write(&case.object, "").unwrap();
    case.lan.wait_for(!ours_is_better, case.patience());
    if ours_is_better {
        assert_eq!(ours.status()[0].priority, 90);
    }
    fs::remove_file(&case.object).unwrap();
    case.lan.wait_for(ours_is_better, case.patience());
    drop((ours, theirs));
}

/// Without a weight a failing script is a fault. One that hangs is ended, and is a failure.
fn track_script_fault() {
    let case = Watching::new("script-fault", true);
    let object = case.object.display();
    let script = format!(
        "vrrp_script chk {{\nscript \"/bin/sh -c 'test ! -e {object} || sleep 60'\"\ninterval 0.2\ntimeout 0.3\n}}"
    );
    let path = case.write(true, &script, "track_script {\nchk\n}");
    let ours = case.start_ours(&path);
    let _theirs = case.lan.start_theirs();
    case.lan.wait_for(true, case.patience());
    fs::write(&case.object, "").unwrap();
    case.lan.wait_for(false, case.patience());
    let status = &ours.status()[0];
    assert_eq!(status.state, State::Fault);
    assert_eq!(status.reason, "script chk fails");
    fs::remove_file(&case.object).unwrap();
    case.lan.wait_for(true, case.patience());
}

/// The number of a file is a weight; it is noticed when the file is written, replaced or deleted.
fn track_file() {
    let case = Watching::new("file", true);
    let block = format!(
        "track_file num {{\nfile {}\nweight 1\ninit_file 0\n}}",
        case.object.display()
    );
    let path = case.write(true, &block, "track_file {\nnum\n}");
    let ours = case.start_ours(&path);
    let _theirs = case.lan.start_theirs();
    case.lan.wait_for(true, case.patience());
    assert_eq!(fs::read_to_string(&case.object).unwrap(), "0\n");
    let has = |priority| {
        eventually("the priority", Duration::from_secs(2), || {
            ours.status()[0].priority == priority
        });
    };
    fs::write(&case.object, "-100\n").unwrap();
    has(50);
    case.lan.wait_for(false, case.patience());
    let other = case.lan.folder.join("other");
    fs::write(&other, "20 and words").unwrap();
    fs::rename(&other, &case.object).unwrap();
    has(170);
    case.lan.wait_for(true, case.patience());
    fs::write(&case.object, "-1000").unwrap();
    eventually("the fault", Duration::from_secs(2), || {
        ours.status()[0].state == State::Fault
    });
    fs::remove_file(&case.object).unwrap();
    has(150);
}

/// A process ends and is started again.
fn track_process() {
    let case = Watching::new("process", true);
    let name = "lvs-tracked";
    let program = case.lan.folder.join(name);
    fs::copy("/bin/sleep", &program).unwrap();
    let block = format!("vrrp_track_process p {{\nprocess {name}\nweight -60\n}}");
    let path = case.write(true, &block, "track_process {\np\n}");
    let mut process = Sleeper::start(&program);
    let ours = case.start_ours(&path);
    let _theirs = case.lan.start_theirs();
    case.lan.wait_for(true, case.patience());
    assert_eq!(ours.status()[0].priority, 150);
    drop(process);
    case.lan.wait_for(false, case.patience());
    assert_eq!(ours.status()[0].priority, 90);
    process = Sleeper::start(&program);
    case.lan.wait_for(true, case.patience());
    drop(process);
}

struct Sleeper(Child);

impl Sleeper {
    fn start(program: &Path) -> Self {
        let child = Command::new(program)
            .arg("600")
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn bfd(neighbor: &str, source: &str, more: &str) -> String {
    format!(
        "bfd_instance peer {{\nneighbor_ip {neighbor}\nsource_ip {source}\nmin_rx 20\nmin_tx 20\nidle_tx 100\n\
         multiplier 5\nweight 40\n{more}\n}}"
    )
}

const ONE: &str = "192.0.2.11";
const TWO: &str = "192.0.2.12";

/// A session comes up, and its end is noticed after five packets of 20 ms; the one that ends in order says so.
fn bfd_between_two_of_ours() {
    for more in ["", "multihop"] {
        let case = Watching::new("bfd", true);
        let first = case.write(true, &bfd(TWO, ONE, more), "track_bfd {\npeer\n}");
        let second = case.write(false, &bfd(ONE, TWO, more), "track_bfd {\npeer\n}");
        let ours = case.start_ours(&first);
        let priority = || ours.status()[0].priority;
        assert_eq!(priority(), 150);
        let other = Ours::start(&case.lan.theirs, &ConfigFile::read(&second, None).unwrap());
        eventually("the session", Duration::from_secs(3), || priority() == 190);
        eventually("the session there", Duration::from_secs(1), || {
            other.status()[0].priority == 140
        });
        // It lasts.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!((priority(), other.status()[0].priority), (190, 140));
        drop(other);
        eventually("its end", Duration::from_secs(1), || priority() == 150);
        // Cut off without a word.
        let other = Ours::start(&case.lan.theirs, &ConfigFile::read(&second, None).unwrap());
        eventually("the session again", Duration::from_secs(3), || {
            priority() == 190
        });
        let mut netlink = case.lan.theirs.netlink().unwrap();
        let link = netlink.link_by_name("eth0").unwrap();
        netlink.set_up(link.index, false).unwrap();
        let cut = Instant::now();
        eventually("its end", Duration::from_secs(2), || priority() == 150);
        println!(
            "BFD noticed after {:?} (five packets of 20 ms)",
            cut.elapsed()
        );
        drop(other);
    }
}

/// keepalived speaks BFD too.
fn bfd_with_keepalived() {
    let case = Watching::new("bfd-keepalived", true);
    let first = case.write(true, &bfd(TWO, ONE, ""), "track_bfd {\npeer\n}");
    case.write(false, &bfd(ONE, TWO, ""), "track_bfd {\npeer\n}");
    let ours = case.start_ours(&first);
    let priority = || ours.status()[0].priority;
    let mut theirs = case.lan.start_theirs_whole();
    eventually("the session", Duration::from_secs(5), || priority() == 190);
    case.lan.wait_for(true, case.patience());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(priority(), 190, "it lasts");
    let own: IpAddr = TWO.parse().unwrap();
    let heard = ours.status()[0].active_router;
    assert!(heard.is_none_or(|(peer, _)| peer.address == own));
    theirs.stop();
    eventually("its end", Duration::from_secs(2), || priority() == 150);
}
