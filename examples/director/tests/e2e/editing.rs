//! `ipvsadm` against a running director: the original's recordings, and traffic while the table is edited.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use lvs_sched::SchedulerKind;
use rustix::process::Signal;

use crate::generated;
use crate::stage::{Conf, Director, Stage, VIP, vip};
use crate::{once, with_workers};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        once(
            "recorded_rules_list_and_save_as_the_original",
            recorded_rules_list_and_save_as_the_original,
        ),
        once(
            "a_thousand_services_survive_save_and_restore",
            a_thousand_services_survive_save_and_restore,
        ),
        once(
            "edits_stay_until_the_configuration_changes_the_object",
            edits_stay_until_the_configuration_changes_the_object,
        ),
        once(
            "edits_stay_until_health_changes_the_object",
            edits_stay_until_health_changes_the_object,
        ),
        once("servers_are_drained_by_hand", servers_are_drained_by_hand),
        once(
            "what_is_not_served_is_kept_and_not_claimed",
            what_is_not_served_is_kept_and_not_claimed,
        ),
    ];
    for (name, test) in [
        (
            "ipvsadm_alone_drives_a_director",
            ipvsadm_alone_drives_a_director as fn(u32),
        ),
        (
            "no_request_is_lost_while_servers_come_and_go",
            no_request_is_lost_while_servers_come_and_go,
        ),
    ] {
        trials.extend(with_workers(name, test));
    }
    trials
}

/// Rules with a scheduler that is not built are left out, and so is what the recordings say of their services.
fn recorded_rules_list_and_save_as_the_original() {
    let Some(corpus) = corpus() else { return };
    let stage = Stage::nat(0);
    let director = Director::start(&stage, "", 1);
    let rules = fs::read_to_string(corpus.join("rules")).unwrap();
    let missing = Missing::of(&rules);
    for rule in rules.lines().filter(|rule| !missing.names(rule)) {
        let words: Vec<&str> = rule.split_whitespace().collect();
        assert_eq!(director.ipvsadm(&words), "", "{rule}");
    }
    let mut compared = 0;
    for file in fs::read_dir(&corpus).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".txt") {
            continue;
        }
        let recorded = fs::read_to_string(&path).unwrap();
        let command = recorded.lines().next().unwrap();
        let arguments: Vec<&str> = command.split_whitespace().skip(2).collect();
        if missing.names(command) {
            continue;
        }
        let (status, output, errors) = director.ipvsadm_run(&arguments, "");
        let shown = format!("{command}\n{output}{errors}exit {status}\n");
        let expected = missing.without(&recorded);
        if name == "Ln--nosort.txt" {
            // The services' order is that of the kernel's hash table; that of the real servers is kept.
            assert_eq!(blocks(&shown), blocks(&expected), "{name}");
        } else {
            assert_eq!(shown, expected, "{name}");
        }
        compared += 1;
    }
    assert!(compared >= 17, "only {compared} listings found");

    let saved = director.ipvsadm(&["-S", "-n"]);
    director.ipvsadm(&["-C"]);
    assert_eq!(director.ipvsadm(&["-S", "-n"]), "");
    let (status, _, errors) = director.ipvsadm_run(&["-R"], &saved);
    assert_eq!((status, errors.as_str()), (0, ""));
    assert_eq!(director.ipvsadm(&["-S", "-n"]), saved);

    let table = fs::read_to_string(corpus.join("exit-status.tsv")).unwrap();
    for line in table.lines().skip(1) {
        let (command, expected) = line.rsplit_once('\t').unwrap();
        let words: Vec<&str> = command.split_whitespace().collect();
        let (status, _, errors) = director.ipvsadm_run(&words, "");
        assert_eq!(status.to_string(), expected, "ipvsadm {command}: {errors}");
    }
}

fn a_thousand_services_survive_save_and_restore() {
    let stage = Stage::nat(0);
    let director = Director::start(&stage, "", 2);
    let schedulers: Vec<&str> = SchedulerKind::ALL.iter().map(|kind| kind.name()).collect();
    let rules = generated::rules(1000, &schedulers);
    let restore = |lines: &str| {
        let started = Instant::now();
        let (status, _, errors) = director.ipvsadm_run(&["-R"], lines);
        assert_eq!((status, errors.as_str()), (0, ""));
        started.elapsed()
    };
    let took = restore(&rules);
    assert!(took < Duration::from_secs(20), "{took:?}");
    let saved = director.ipvsadm(&["-S", "-n"]);
    assert_eq!(saved.lines().count(), rules.lines().count());
    director.ipvsadm(&["-C"]);
    assert_eq!(director.status().services, 0);
    restore(&saved);
    assert_eq!(director.ipvsadm(&["-S", "-n"]), saved);
    assert_eq!(director.status().services, 1000);
}

fn ipvsadm_alone_drives_a_director(workers: u32) {
    let stage = Stage::nat(2);
    let conf = if workers == 1 {
        ""
    } else {
        "global_defs {\n    router_id alone\n}\n"
    };
    let director = Director::start(&stage, conf, workers);
    let address = format!("{VIP}/24");
    stage.director.add_address("ext0", &address).unwrap();
    let service = format!("{VIP}:80");
    let refused = || stage.ask().unwrap_err().kind();
    assert_eq!(refused(), std::io::ErrorKind::ConnectionRefused);
    director.ipvsadm(&["-A", "-t", &service, "-s", "rr"]);
    for server in ["10.1.0.11:80", "10.1.0.12:80"] {
        director.ipvsadm(&["-a", "-t", &service, "-r", server, "-m"]);
    }
    assert_eq!(stage.spread(10), [5, 5]);
    let stats = director.ipvsadm(&["-Ln", "--stats"]);
    let line = stats.lines().find(|line| line.contains(&service)).unwrap();
    assert_eq!(line.split_whitespace().nth(2), Some("10"), "{stats}");
    director.ipvsadm(&["-Z", "-t", &service]);
    assert_eq!(director.service().stats.conns, 0);
    director.ipvsadm(&["-e", "-t", &service, "-r", "10.1.0.12:80", "-m", "-w", "0"]);
    assert_eq!(stage.spread(6), [6, 0]);
    director.ipvsadm(&["-d", "-t", &service, "-r", "10.1.0.11:80"]);
    director.ipvsadm(&["-e", "-t", &service, "-r", "10.1.0.12:80", "-m", "-w", "2"]);
    assert_eq!(stage.spread(6), [0, 6]);
    director.ipvsadm(&["-E", "-t", &service, "-s", "wrr"]);
    assert_eq!(director.service().scheduler, "wrr");
    assert_eq!(stage.spread(2), [0, 2]);
    director.ipvsadm(&["-D", "-t", &service]);
    assert_eq!(
        refused(),
        std::io::ErrorKind::ConnectionRefused,
        "the port is the host's again"
    );
    assert!(director.terminate().success());
}

fn no_request_is_lost_while_servers_come_and_go(workers: u32) {
    let stage = Stage::nat(2);
    let director = Director::start(&stage, "", workers);
    let address = format!("{VIP}/24");
    stage.director.add_address("ext0", &address).unwrap();
    let service = format!("{VIP}:80");
    let rules = format!("-A -t {service} -s rr\n-a -t {service} -r 10.1.0.11:80 -m\n");
    assert_eq!(director.ipvsadm_run(&["-R"], &rules).0, 0);
    let ended = AtomicBool::new(false);
    let (requests, reached) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut requests, mut reached) = (0, BTreeSet::new());
            while !ended.load(Ordering::Relaxed) {
                let name = stage.ask().unwrap_or_else(|error| {
                    panic!("request {requests}: {error}; the log:\n{}", director.log())
                });
                reached.insert(name);
                requests += 1;
            }
            (requests, reached)
        });
        for _ in 0..20 {
            let server = "10.1.0.12:80";
            director.ipvsadm(&["-a", "-t", &service, "-r", server, "-m", "-w", "5"]);
            thread::sleep(Duration::from_millis(20));
            director.ipvsadm(&["-e", "-t", &service, "-r", server, "-m", "-w", "0"]);
            director.wait_until("its connections ended", || {
                let servers = director.service().destinations;
                servers
                    .iter()
                    .all(|server| server.weight > 0 || server.active == 0)
            });
            director.ipvsadm(&["-d", "-t", &service, "-r", server]);
        }
        ended.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert!(requests > 20, "{requests} requests");
    assert_eq!(reached.len(), 2, "both servers took part");
}

fn edits_stay_until_the_configuration_changes_the_object() {
    let stage = Stage::nat(3);
    let mut conf = Conf::nat(3);
    let third = conf.servers.pop().unwrap();
    let director = Director::start(&stage, &conf.text(), 1);
    let by_hand = format!("{VIP}:8080");
    let service = format!("{VIP}:80");
    let rules = format!(
        "-A -t {by_hand} -s rr\n-a -t {by_hand} -r 10.1.0.11:80 -m\n\
         -e -t {service} -r 10.1.0.11:80 -m -w 5\n-a -t {service} -r 10.1.0.99:80 -m -w 0\n--set 100 0 0\n"
    );
    let (status, _, errors) = director.ipvsadm_run(&["-R"], &rules);
    assert_eq!((status, errors.as_str()), (0, ""));
    let weights = || {
        let listing = director.ipvsadm(&["-Ln", "-t", &service]);
        let servers = listing.lines().skip(3);
        let weight = |line: &str| line.split_whitespace().nth(3).unwrap().to_owned();
        servers.map(weight).collect::<Vec<_>>().join(" ")
    };
    let mut reloads = 0;
    let mut reload = |conf: &Conf| {
        director.reload(&conf.text());
        reloads += 1;
        director.wait_until("the reload", || {
            director.log().matches("reload done").count() == reloads
        });
    };
    let stands = |service: &str| director.ipvsadm_run(&["-L", "-t", service], "").0 == 0;
    assert_eq!(weights(), "5 1 0");

    director.signal(Signal::HUP);
    director.wait_for_log("reload: nothing has changed");
    conf.servers.push(third);
    reload(&conf);
    assert_eq!(weights(), "5 1 1 0", "only the new server is touched");
    assert!(stands(&by_hand));
    let moved = stage.client.http_get(
        format!("{VIP}:8080").parse().unwrap(),
        "/",
        Duration::from_secs(2),
    );
    assert_eq!(moved.unwrap().server, "rs1");
    let timeouts = director.ipvsadm(&["-L", "--timeout"]);
    assert_eq!(timeouts, "Timeout (tcp tcpfin udp): 100 120 300\n");

    conf.scheduler = "wrr";
    reload(&conf);
    assert_eq!(director.ipvsadm(&["-Sn"]).matches("-s wrr").count(), 1);
    assert_eq!(weights(), "5 1 1 0", "the service is another object");
    conf.servers[0].1 = 3;
    reload(&conf);
    assert_eq!(weights(), "3 1 1 0");

    director.ipvsadm(&["-D", "-t", &service]);
    conf.extra = "global_defs {\n    lvs_timeouts tcp 200\n}\n".into();
    reload(&conf);
    assert!(
        !stands(&service),
        "it was deleted and its block is the old one"
    );
    assert_eq!(
        stage.ask().unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    let timeouts = director.ipvsadm(&["-L", "--timeout"]);
    assert_eq!(timeouts, "Timeout (tcp tcpfin udp): 200 120 300\n");
    conf.scheduler = "rr";
    reload(&conf);
    assert_eq!(
        weights(),
        "3 1 1",
        "it is back with the servers of its block"
    );
    assert_eq!(stage.spread(9), [3, 3, 3]);
}

fn edits_stay_until_health_changes_the_object() {
    let mut stage = Stage::nat(2);
    let director = Director::start(&stage, &Conf::nat(2).text(), 1);
    let service = format!("{VIP}:80");
    for server in ["10.1.0.11:80", "10.1.0.12:80"] {
        director.ipvsadm(&["-e", "-t", &service, "-r", server, "-m", "-w", "7"]);
    }
    let weights = || -> Vec<u32> {
        let mut servers = director.service().destinations;
        servers.sort_by_key(|server| server.address);
        servers.iter().map(|server| server.weight).collect()
    };
    assert_eq!(weights(), [7, 7]);
    stage.servers[1].1.stop();
    director.wait_until("the dead server taken out", || weights() == [7]);
    stage.restart(1);
    director.wait_until("the server back", || weights().len() == 2);
    assert_eq!(weights(), [7, 1]);
}

fn what_is_not_served_is_kept_and_not_claimed() {
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), 1);
    let rules = "\
-A -f 7 -s rr -p 360
-a -f 7 -r 10.1.0.11:80 -m -w 1
-A -f 8 -6 -s rr
";
    let (status, _, errors) = director.ipvsadm_run(&["-R"], rules);
    assert_eq!((status, errors.as_str()), (0, ""));
    let saved = director.ipvsadm(&["-Sn"]);
    for rule in rules.lines() {
        assert!(saved.contains(rule), "{rule} is not in\n{saved}");
    }
    let log = director.log();
    assert_eq!(
        log.matches("virtual service FWM 7: no rule gives packets this mark")
            .count(),
        1,
        "{log}"
    );
    let response = stage.client.http_get(vip(), "/", Duration::from_secs(2));
    assert_eq!(response.unwrap().status, 200);
}

fn servers_are_drained_by_hand() {
    let mut stage = Stage::nat(2);
    let director = Director::start(&stage, &Conf::nat(2).text(), 1);
    let has = |count: usize| director.service().destinations.len() == count;
    director.wait_until("both servers", || has(2));
    assert_eq!(stage.spread(4), [2, 2]);
    // One client hangs at the first server.
    let connect = || {
        let stream = TcpStream::connect(vip()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream
    };
    let hanging = [0; 2].map(|_| stage.client.run(connect));
    let (status, drained, _) = director.beside(&["drain", "10.1.0.11:80", "--json"]);
    assert_eq!(status, 0);
    assert!(drained.contains(r#""state":"draining""#), "{drained}");
    assert_eq!(stage.spread(4), [0, 4]);
    // Down and up again: it stays without new connections.
    stage.servers[0].1.stop();
    director.wait_until("one server", || has(1));
    stage.restart(0);
    director.wait_until("both servers", || has(2));
    assert_eq!(stage.spread(2), [0, 2]);
    let text = Conf::nat(2).text().replacen("weight 1", "weight 5", 1);
    director.reload(&text);
    director.wait_for_log("reload done");
    let (_, listed, _) = director.beside(&["drain"]);
    assert!(
        listed.starts_with("10.1.0.11:80 of TCP 198.51.100.100:80: ")
            && listed.contains("weight 5 when it is taken back"),
        "{listed}"
    );
    // Connections of the server that went down ended with it; the other one's do not end by themselves.
    let (status, forced, errors) =
        director.beside(&["drain", "10.1.0.12", "--deadline", "1", "--wait"]);
    assert_eq!((status, errors.as_str()), (1, ""), "{forced}");
    assert!(forced.contains("its time is over"), "{forced}");
    let ended = hanging.into_iter().any(|mut stream| {
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).is_err()
    });
    assert!(ended, "{}", director.log());
    assert!(stage.ask().is_err(), "nobody is there");
    let (status, taken, _) = director.beside(&["undrain", "10.1.0.11:80"]);
    assert!(
        status == 0 && taken.contains("serving, weight 5"),
        "{taken}"
    );
    let (status, _, _) = director.beside(&["weight", "10.1.0.12:80", "5"]);
    assert_eq!(status, 0);
    assert_eq!(stage.spread(4), [2, 2]);
    assert_eq!(
        director.beside(&["drain"]),
        (0, String::new(), String::new())
    );
    let (status, _, errors) = director.beside(&["undrain", "10.1.0.12"]);
    assert_eq!(status, 2);
    assert!(errors.contains("it is not being drained"), "{errors}");
}

/// The services of rules whose scheduler is not built, as rules and listings name them.
struct Missing(BTreeSet<String>);

impl Missing {
    fn of(rules: &str) -> Self {
        let mut missing = BTreeSet::new();
        for rule in rules.lines().filter(|rule| rule.starts_with("-A")) {
            let words: Vec<&str> = rule.split_whitespace().collect();
            let after = |option| {
                let at = words.iter().position(|word| *word == option)?;
                words.get(at + 1).copied()
            };
            let scheduler = after("-s").unwrap();
            if scheduler.parse::<SchedulerKind>().is_ok() {
                continue;
            }
            println!("skipped: scheduler {scheduler} is not built");
            match after("-f") {
                Some(mark) => missing.extend([format!("-f {mark}"), format!("FWM  {mark}")]),
                None => {
                    let (address, _) = words[2].rsplit_once(':').unwrap();
                    missing.insert(format!("{address}:"));
                }
            }
        }
        Self(missing)
    }

    fn names(&self, line: &str) -> bool {
        let is_named = |name: &String| {
            let named = line.match_indices(name.as_str());
            let mut ends = named.map(|(at, _)| line[at + name.len()..].chars().next());
            // Mark 7 is not mark 70.
            ends.any(|next| name.ends_with(':') || !next.is_some_and(|c| c.is_ascii_digit()))
        };
        self.0.iter().any(is_named)
    }

    /// A recording without the services and their real servers.
    fn without(&self, recorded: &str) -> String {
        let mut skipping = false;
        let mut rest = String::new();
        for line in recorded.lines() {
            if !line.starts_with("  ->") {
                skipping = self.names(line);
            }
            if !skipping {
                rest.push_str(line);
                rest.push('\n');
            }
        }
        rest
    }
}

/// The services of a listing with their real servers, in an order of their own.
fn blocks(listing: &str) -> BTreeSet<String> {
    let mut blocks: Vec<String> = Vec::new();
    for line in listing.lines() {
        match blocks.last_mut().filter(|_| line.starts_with("  ->")) {
            Some(block) => *block += &format!("\n{line}"),
            None => blocks.push(line.to_owned()),
        }
    }
    blocks.into_iter().collect()
}

fn corpus() -> Option<PathBuf> {
    let shared = std::env::var_os("LVS_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let corpus = shared.join("corpus/ipvsadm");
    if corpus.is_dir() {
        return Some(corpus);
    }
    let message = format!("{} is missing: set LVS_SHARED", corpus.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
    println!("skipped: {message}");
    None
}
