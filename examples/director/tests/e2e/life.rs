//! Health, reload, and every way to end.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::stage::{Conf, Director, Stage, VIP, vip};
use crate::{once, with_workers};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        once(
            "reload_adds_and_removes_servers",
            reload_adds_and_removes_servers,
        ),
        once(
            "reload_of_a_worse_file_changes_nothing",
            reload_of_a_worse_file_changes_nothing,
        ),
        once(
            "http_check_follows_the_status",
            http_check_follows_the_status,
        ),
        once(
            "sorry_server_answers_while_all_are_down",
            sorry_server_answers_while_all_are_down,
        ),
        once(
            "persistence_keeps_a_client_at_its_server",
            persistence_keeps_a_client_at_its_server,
        ),
        once(
            "end_by_sigterm_leaves_nothing",
            end_by_sigterm_leaves_nothing,
        ),
        once(
            "second_director_in_a_namespace_is_refused",
            second_director_in_a_namespace_is_refused,
        ),
        once(
            "foreign_virtual_address_moves_from_now_on",
            foreign_virtual_address_moves_from_now_on,
        ),
        once(
            "leftover_address_that_nobody_wants_is_removed",
            leftover_address_is_removed,
        ),
        once(
            "blocks_for_one_address_share_their_servers",
            blocks_for_one_address_share_their_servers,
        ),
        once(
            "sorry_server_may_be_a_real_server",
            sorry_server_may_be_a_real_server,
        ),
        once(
            "sigusr1_logs_what_was_dropped",
            sigusr1_logs_what_was_dropped,
        ),
        once(
            "unknown_requests_are_answered",
            unknown_requests_are_answered,
        ),
        once("demo_runs_without_privilege", demo_runs_without_privilege),
    ];
    for (name, test) in [
        (
            "dead_server_gets_no_new_connections_in_time",
            dead_server_gets_no_new_connections as fn(u32),
        ),
        (
            "reload_of_an_unchanged_file_drops_nothing",
            reload_of_an_unchanged_file_drops_nothing,
        ),
        (
            "reloads_in_traffic_break_no_connection",
            reloads_in_traffic_break_no_connection,
        ),
        (
            "end_by_sigterm_in_traffic_takes_a_moment",
            end_by_sigterm_in_traffic,
        ),
        (
            "killed_in_traffic_it_starts_again_at_once",
            killed_in_traffic_it_starts_again_at_once,
        ),
    ] {
        trials.extend(with_workers(name, test));
    }
    trials
}

fn dead_server_gets_no_new_connections(workers: u32) {
    let mut stage = Stage::nat(2);
    let director = Director::start(&stage, &Conf::nat(2).text(), workers);
    // Once both were checked a failure must be repeated before it counts: retry 1.
    thread::sleep(Duration::from_millis(1500));
    stage.servers[1].1.stop();
    // delay_loop 1 s at worst, then the retry 1 s after the first failure.
    let took = director.wait_until("the dead server taken out", || {
        director.service().destinations.len() == 1
    });
    assert!(took < Duration::from_millis(2600), "{took:?}");
    assert!(
        took > Duration::from_millis(900),
        "one failure is not enough: {took:?}"
    );
    assert_eq!(stage.spread(20), [20, 0]);
    stage.restart(1);
    director.wait_until("the server back", || {
        director.service().destinations.len() == 2
    });
    assert_eq!(stage.spread(20), [10, 10]);
}

fn reload_of_an_unchanged_file_drops_nothing(workers: u32) {
    let stage = Stage::nat(2);
    let director = Director::start(&stage, &Conf::nat(2).text(), workers);
    let before = stage.spread(10);
    let length = 300 << 20;
    let transfer = stage
        .client
        .spawn(move || {
            netlab::http_get(vip(), &format!("/bytes/{length}"), Duration::from_secs(10)).unwrap()
        })
        .unwrap();
    director.wait_until("the transfer under way", || {
        director.service().stats.outbytes > 1 << 20
    });
    for round in 1..=5 {
        director.signal(Signal::HUP);
        director.wait_until("the reload", || {
            let log = director.log();
            log.matches("reload: nothing has changed").count() == round
        });
    }
    let response = transfer.join().unwrap();
    assert_eq!(response.hash, netlab::bytes_hash(length));
    assert_eq!(before, [5, 5]);
    let service = director.service();
    assert_eq!(service.stats.conns, 11, "counters go on");
    // The scheduler's place in its round is kept too.
    assert_eq!(stage.spread(9).iter().sum::<usize>(), 9);
    assert_eq!(
        director
            .service()
            .destinations
            .iter()
            .map(|server| server.stats.conns)
            .collect::<Vec<_>>(),
        [10, 10]
    );
}

/// Services and servers come and go beside one that works; its claims, its connections and new ones do not notice.
fn reloads_in_traffic_break_no_connection(workers: u32) {
    let stage = Stage::nat(2);
    let conf = Conf::nat(1);
    let (_, block) = Conf::nat(2)
        .text()
        .split_once("virtual_server ")
        .map(|(head, block)| (head.to_owned(), block.to_owned()))
        .unwrap();
    let more = Conf {
        extra: format!(
            "virtual_server {}",
            block.replace(&format!("{VIP} 80"), &format!("{VIP} 81"))
        ),
        ..Conf::nat(1)
    };
    let director = Director::start(&stage, &conf.text(), workers);
    let length = 300 << 20;
    let transfer = stage
        .client
        .spawn(move || {
            netlab::http_get(vip(), &format!("/bytes/{length}"), Duration::from_secs(10))
        })
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let requests = stage
        .client
        .spawn(move || {
            let mut answered = 0;
            while !flag.load(Ordering::Relaxed) {
                netlab::http_get(vip(), "/", Duration::from_secs(3)).unwrap();
                answered += 1;
            }
            answered
        })
        .unwrap();
    for round in 1..=10 {
        director.reload(&if round % 2 == 1 { &more } else { &conf }.text());
        director.wait_until("the reload", || {
            director.log().matches("reload done").count() == round
        });
    }
    stop.store(true, Ordering::Relaxed);
    assert!(requests.join().unwrap() > 0);
    let response = transfer.join().unwrap().unwrap();
    assert_eq!(response.hash, netlab::bytes_hash(length));
}

fn end_by_sigterm_in_traffic(workers: u32) {
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), workers);
    let transfers: Vec<_> = (0..4)
        .map(|_| {
            let ask = || netlab::http_get(vip(), "/bytes/4000000000", Duration::from_secs(1));
            stage.client.spawn(ask).unwrap()
        })
        .collect();
    director.wait_until("the transfers under way", || {
        director.service().stats.outbytes > 50 << 20
    });
    let started = std::time::Instant::now();
    assert!(director.terminate().success());
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(!holds_vip(&stage));
    for transfer in transfers {
        assert!(transfer.join().unwrap().is_err());
    }
}

fn reload_adds_and_removes_servers() {
    let stage = Stage::nat(3);
    let mut conf = Conf::nat(3);
    let third = conf.servers.pop().unwrap();
    let director = Director::start(&stage, &conf.text(), 1);
    assert_eq!(stage.spread(10), [5, 5, 0]);
    conf.servers.push(third);
    director.reload(&conf.text());
    director.wait_for_log("reload done");
    assert_eq!(stage.spread(9), [3, 3, 3]);
    conf.servers.remove(0);
    director.reload(&conf.text());
    director.wait_until("the second reload", || {
        director.log().matches("reload done").count() == 2
    });
    assert_eq!(stage.spread(10), [0, 5, 5]);
    assert_eq!(director.service().stats.conns, 29, "the service goes on");
    let other = conf
        .text()
        .replace(&format!("{VIP} 80"), &format!("{VIP} 8080"));
    director.reload(&other);
    director.wait_until("the third reload", || {
        director.log().matches("reload done").count() == 3
    });
    let error = stage.ask().unwrap_err();
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused,
        "the old port is the host's again"
    );
    let moved = stage.client.http_get(
        format!("{VIP}:8080").parse().unwrap(),
        "/",
        Duration::from_secs(2),
    );
    assert_eq!(moved.unwrap().status, 200);
}

fn reload_of_a_worse_file_changes_nothing() {
    let stage = Stage::nat(2);
    let mut conf = Conf::nat(2);
    conf.extra = "vrrp_instance typo {\n    interface ext0\n    virtual_router_id 7\n    preemtp_delay 3\n    priority 255\n    virtual_ipaddress {\n        198.51.100.101/24\n    }\n}\n".into();
    let director = Director::start(&stage, &conf.text(), 1);
    director.wait_for_log("unknown keyword `preemtp_delay`");
    let worse = conf
        .text()
        .replace("lb_algo rr", "lb_alog rr")
        .replace("10.1.0.12 80", "10.1.0.999 80");
    director.reload(&worse);
    director.wait_for_log("reload refused, the running configuration stays");
    let log = director.log();
    assert!(
        log.contains(":11:5: error: unknown keyword `lb_alog`"),
        "{log}"
    );
    assert_eq!(stage.spread(10), [5, 5]);
    // An error that the running file has too is no reason to refuse.
    director.reload(&conf.text().replace("lb_algo rr", "lb_algo wrr"));
    director.wait_for_log("reload done");
    assert_eq!(director.service().scheduler, "wrr");
    std::fs::remove_file(&director.file).unwrap();
    director.signal(Signal::HUP);
    director.wait_for_log("can't read configuration file");
    assert_eq!(stage.spread(10), [5, 5]);
}

fn http_check_follows_the_status() {
    let stage = Stage::nat(2);
    let check = |path: &str, status: u16| {
        format!(
            "HTTP_GET {{\n url {{\n path {path}\n status_code {status}\n }}\n connect_timeout 1\n retry 0\n delay_before_retry 1\n warmup 0\n }}\n"
        )
    };
    let text = Conf::nat(2).text();
    let (before, rest) = text.split_once("TCP_CHECK {").unwrap();
    let (_, rest) = rest.split_once("}\n").unwrap();
    let (between, after) = rest.split_once("TCP_CHECK {").unwrap();
    let (_, after) = after.split_once("}\n").unwrap();
    let conf = [before, &check("/", 200), between, &check("/", 404), after].concat();
    let director = Director::start(&stage, &conf, 1);
    director.wait_for_log(
        "real server 10.1.0.12:80 of TCP 198.51.100.100:80 is down: unexpected status 200",
    );
    assert_eq!(stage.spread(10), [10, 0]);
}

fn sorry_server_answers_while_all_are_down() {
    let mut stage = Stage::nat(2);
    let mut conf = Conf::nat(1);
    conf.method = "NAT\n    sorry_server 10.1.0.12 80";
    let director = Director::start(&stage, &conf.text(), 1);
    assert_eq!(stage.spread(4), [4, 0]);
    stage.servers[0].1.stop();
    director.wait_for_log("lost its quorum");
    assert_eq!(stage.spread(4), [0, 4]);
    stage.restart(0);
    director.wait_for_log("sorry server 10.1.0.12:80 of TCP 198.51.100.100:80 is not needed");
    assert_eq!(stage.spread(4), [4, 0]);
}

fn persistence_keeps_a_client_at_its_server() {
    let stage = Stage::nat(2);
    let mut conf = Conf::nat(2);
    conf.method = "NAT\n    persistence_timeout 50";
    let director = Director::start(&stage, &conf.text(), 2);
    let mut counts = stage.spread(10);
    counts.sort_unstable();
    assert_eq!(counts, [0, 10]);
    let listing = director.ipvsadm(&["-Ln"]);
    assert!(
        listing.contains("TCP  198.51.100.100:80 rr persistent 50\n"),
        "{listing}"
    );
    assert!(
        director
            .connections()
            .iter()
            .any(|entry| entry.client.port() == 0 && entry.state == "ASSURED")
    );
    assert_eq!(director.status().workers, 2);
}

fn killed_in_traffic_it_starts_again_at_once(workers: u32) {
    let stage = Stage::nat(2);
    let conf = Conf::nat(2).text();
    let mut director = Director::start(&stage, &conf, workers);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let (flag, count) = (Arc::clone(&stop), Arc::clone(&answered));
    let traffic = stage
        .client
        .spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                if netlab::http_get(vip(), "/", Duration::from_millis(500)).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .unwrap();
    for _ in 0..3 {
        let before = answered.load(Ordering::Relaxed);
        director.wait_until("traffic", || answered.load(Ordering::Relaxed) > before + 20);
        director.kill();
        // The same file, the same address, the same socket: nothing of the dead process is in the way.
        director = Director::start(&stage, &conf, workers);
        assert!(
            director
                .log()
                .contains("was left by a director that ended early: removed")
        );
        assert!(!director.log().contains("ERROR"), "{}", director.log());
    }
    let before = answered.load(Ordering::Relaxed);
    director.wait_until("traffic again", || {
        answered.load(Ordering::Relaxed) > before + 20
    });
    stop.store(true, Ordering::Relaxed);
    traffic.join().unwrap();
    assert!(director.terminate().success());
    assert!(
        !holds_vip(&stage),
        "an address that was taken over is removed at the end"
    );
}

fn end_by_sigterm_leaves_nothing() {
    let stage = Stage::nat(1);
    let mut conf = Conf::nat(1);
    conf.servers.push(("10.1.0.1 80".into(), 1)); // a policy rule comes with a server on this host
    let rules = |stage: &Stage| stage.director.netlink().unwrap().rules().unwrap().len();
    let links = |stage: &Stage| stage.director.netlink().unwrap().links().unwrap().len();
    let (rules_before, links_before) = (rules(&stage), links(&stage));
    let director = Director::start(&stage, &conf.text(), 2);
    assert!(holds_vip(&stage));
    assert_eq!(
        (rules(&stage), links(&stage)),
        (rules_before + 1, links_before + 1)
    );
    assert!(director.terminate().success());
    assert!(!holds_vip(&stage));
    assert_eq!((rules(&stage), links(&stage)), (rules_before, links_before));
    let tables = stage
        .director
        .command("/usr/sbin/nft")
        .and_then(|mut nft| nft.args(["list", "tables"]).output());
    match tables {
        Ok(tables) => assert_eq!(
            String::from_utf8_lossy(&tables.stdout),
            "",
            "no claim is left"
        ),
        Err(error) => println!("skipped: asking nft for tables: {error}"),
    }
}

fn second_director_in_a_namespace_is_refused() {
    let stage = Stage::nat(1);
    let conf = Conf::nat(1).text();
    let first = Director::start(&stage, &conf, 1);
    let mut second = Director::launch(&stage.director, &conf, 1);
    assert_eq!(second.wait().code(), Some(1));
    second.wait_for_log("does a director run in this network namespace already?");
    // Nor does another control socket help.
    let third = stage
        .director
        .command(env!("CARGO_BIN_EXE_director"))
        .unwrap()
        .args(["-n", "-l", "-f"])
        .arg(&first.file)
        .env("LVS_SOCKET", "@other")
        .output()
        .unwrap();
    assert_eq!(third.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&third.stderr);
    assert!(
        errors.contains("a director runs in this network namespace already"),
        "{errors}"
    );
    assert_eq!(stage.spread(4), [4]);
    drop(first);
}

fn foreign_virtual_address_moves_from_now_on() {
    let stage = Stage::nat(1);
    stage
        .director
        .add_address("ext0", &format!("{VIP}/24"))
        .unwrap();
    let director = Director::start(&stage, &Conf::nat(1).text(), 1);
    director.wait_for_log("had been set by somebody else, but it moves by VRRP: removed");
    assert_eq!(stage.spread(4), [4]);
    assert!(director.terminate().success());
    assert!(!holds_vip(&stage));
}

fn leftover_address_is_removed() {
    let stage = Stage::nat(1);
    let conf = Conf::nat(1).text();
    let director = Director::start(&stage, &conf, 1);
    director.kill();
    assert!(holds_vip(&stage));
    let other = conf.replace(&format!("{VIP}/24"), "198.51.100.101/24");
    let director = Director::start(&stage, &other, 1);
    assert!(!holds_vip(&stage), "{}", director.log());
}

fn blocks_for_one_address_share_their_servers() {
    let stage = Stage::nat(2);
    let mut conf = Conf::nat(2);
    let second = |servers| {
        let text = Conf::nat(servers).text();
        let (_, block) = text.split_once("virtual_server ").unwrap();
        format!("virtual_server {block}")
    };
    conf.extra = second(2);
    let director = Director::start(&stage, &conf.text(), 1);
    assert_eq!(stage.spread(10), [5, 5]);
    // The second block gives a server up that the first still wants.
    conf.extra = second(1);
    director.reload(&conf.text());
    director.wait_for_log("reload done");
    assert_eq!(stage.spread(10), [5, 5]);
    // Both give it up.
    conf.servers.remove(1);
    director.reload(&conf.text());
    director.wait_until("the second reload", || {
        director.log().matches("reload done").count() == 2
    });
    assert_eq!(stage.spread(4), [4, 0]);
    // The first block goes, the second stays.
    director.reload(&conf.text().replacen(
        "    real_server 10.1.0.11 80 {\n        weight 1\n",
        "    real_server 10.1.0.12 80 {\n        weight 1\n",
        1,
    ));
    director.wait_until("the third reload", || {
        director.log().matches("reload done").count() == 3
    });
    assert_eq!(stage.spread(10), [5, 5]);
}

fn sorry_server_may_be_a_real_server() {
    let mut stage = Stage::nat(2);
    let mut conf = Conf::nat(2);
    conf.method = "NAT\n    quorum 2\n    sorry_server 10.1.0.11 80";
    let director = Director::start(&stage, &conf.text(), 1);
    assert_eq!(stage.spread(4), [2, 2]);
    stage.servers[1].1.stop();
    director.wait_for_log("lost its quorum");
    assert_eq!(stage.spread(4), [4, 0]);
    stage.restart(1);
    director.wait_for_log("sorry server 10.1.0.11:80 of TCP 198.51.100.100:80 is not needed");
    assert_eq!(
        stage.spread(4),
        [2, 2],
        "what the sorry server gives up is still a real server"
    );
}

fn sigusr1_logs_what_was_dropped() {
    let mut stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), 1);
    stage.servers[0].1.stop();
    director.wait_for_log("is down");
    assert!(stage.ask().is_err());
    director.signal(Signal::USR1);
    director.wait_for_log("packets dropped, rejected: 1");
    director.signal(Signal::USR2);
    director.wait_until("it logs again and goes on", || {
        director.log().matches("packets dropped, rejected").count() == 2
    });
    assert_eq!(director.status().workers, 1);
}

fn unknown_requests_are_answered() {
    use std::io::{BufRead, BufReader, Write};

    let stage = Stage::nat(1);
    let _director = Director::start(&stage, &Conf::nat(1).text(), 1);
    stage.director.run(|| {
        let mut stream = ipvsadm::protocol::SocketAddress::default()
            .connect()
            .unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
        for (line, kind) in [
            ("{\"version\":1,\"op\":\"dance\"}", "unknown-op"),
            ("nonsense", "bad-request"),
            ("{\"version\":99,\"op\":\"services\"}", "bad-version"),
        ] {
            writeln!(stream, "{line}").unwrap();
            let answer = answers.next().unwrap().unwrap();
            assert!(answer.contains(&format!("\"kind\":\"{kind}\"")), "{answer}");
        }
        writeln!(stream, "{{\"version\":1,\"op\":\"timeouts\"}}").unwrap();
        assert!(answers.next().unwrap().unwrap().contains("\"tcp\":900"));
    });
}

/// The README's first command, as a user without any rights.
fn demo_runs_without_privilege() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_director"));
    command.arg("demo").stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            return println!("skipped: the demo can't be started as another user: {error}");
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("can't make network namespaces") {
        return println!("skipped: unprivileged user namespaces are not permitted here");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("everything was as it should be"), "{text}");
    assert!(!text.contains('\x1b'), "plain when piped");
}

fn holds_vip(stage: &Stage) -> bool {
    let addresses = stage.director.netlink().unwrap().addresses().unwrap();
    addresses
        .iter()
        .any(|address| address.addr == VIP.parse::<std::net::IpAddr>().unwrap())
}

const NOBODY: u32 = 65534;
