//! What a running director says about its configuration and its traffic.

use std::fs;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::stage::{Conf, Director, Stage, VIP};
use crate::{once, with_workers};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        once(
            "keywords_without_effect_are_said_once",
            keywords_without_effect_are_said_once,
        ),
        once("reload_says_what_it_changes", reload_says_what_it_changes),
        once(
            "long_list_of_changes_is_cut_short",
            long_list_of_changes_is_cut_short,
        ),
        once(
            "plan_asks_the_running_director",
            plan_asks_the_running_director,
        ),
        once(
            "an_engine_that_there_is_not_is_refused",
            an_engine_that_there_is_not_is_refused,
        ),
        once(
            "thresholds_and_one_packet_mode_are_listed",
            thresholds_and_one_packet_mode_are_listed,
        ),
    ];
    trials.extend(with_workers("rates_follow_traffic", rates_follow_traffic));
    trials
}

fn keywords_without_effect_are_said_once() {
    let stage = Stage::nat(1);
    let mut conf = Conf::nat(1);
    conf.extra = "global_defs {\n    random_seed 7\n    snmp_socket unix:/x\n}\n".into();
    let director = Director::start(&stage, &conf.text(), 1);
    let said = "no effect yet: global_defs: random_seed, snmp_socket";
    assert_eq!(director.log().matches("no effect yet").count(), 1);
    assert!(director.log().contains(said), "{}", director.log());

    conf.scheduler = "wrr";
    director.reload(&conf.text());
    director.wait_for_log("reload done");
    assert_eq!(director.log().matches("no effect yet").count(), 1);

    conf.extra = "global_defs {\n    random_seed 7\n    umask 022\n}\n".into();
    director.reload(&conf.text());
    director.wait_for_log("reload done, no service, server or address has changed");
    let said = "no effect yet: global_defs: random_seed, umask";
    assert!(director.log().contains(said), "{}", director.log());
}

fn reload_says_what_it_changes() {
    let stage = Stage::nat(2);
    let mut conf = Conf::nat(2);
    let director = Director::start(&stage, &conf.text(), 1);
    conf.servers[0].1 = 3;
    conf.servers.pop();
    director.reload(&conf.text());
    director.wait_for_log("reload done");
    let log = director.log();
    let changes: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once("reload: ").map(|(_, change)| change))
        .collect();
    assert_eq!(
        changes,
        [
            format!("remove server 10.1.0.12:80 of TCP {VIP}:80"),
            format!("change server 10.1.0.11:80 of TCP {VIP}:80")
        ]
    );
    director.signal(Signal::HUP);
    director.wait_for_log("reload: nothing has changed");
}

fn long_list_of_changes_is_cut_short() {
    let stage = Stage::nat(1);
    let conf = Conf::nat(1);
    let director = Director::start(&stage, &conf.text(), 1);
    let more: String = (1..=60)
        .map(|n| {
            format!(
                "virtual_server 192.0.2.{n} 80 {{\nprotocol TCP\nlb_algo rr\nlb_kind NAT\nreal_server 10.1.0.11 80 {{\n}}\n}}\n"
            )
        })
        .collect();
    director.reload(&(conf.text() + &more));
    director.wait_for_log("reload done");
    let log = director.log();
    assert_eq!(log.matches("reload: add service TCP").count(), 50, "{log}");
    assert!(log.contains("reload: and 10 more changes"), "{log}");
}

fn plan_asks_the_running_director() {
    let stage = Stage::nat(1);
    let mut conf = Conf::nat(1);
    conf.extra = "nosuch keyword\n".into();
    let director = Director::start(&stage, &conf.text(), 1);
    let file = director.file.to_str().unwrap();
    let plan = || director.beside(&["plan", "-f", file]);
    assert_eq!(plan(), (0, String::new(), String::new()));

    conf.servers[0].1 = 3;
    fs::write(file, conf.text()).unwrap();
    let change = format!("change server 10.1.0.11:80 of TCP {VIP}:80\n");
    assert_eq!(plan(), (1, change.clone(), String::new()));
    director.signal(Signal::HUP);
    director.wait_for_log(&format!("reload: {}", change.trim_end()));
    director.wait_for_log("reload done");
    assert_eq!(plan(), (0, String::new(), String::new()), "now it runs");

    conf.extra = "nosuch keyword\nanother\n".into();
    fs::write(file, conf.text()).unwrap();
    let (status, output, errors) = plan();
    assert_eq!((status, output.as_str()), (2, ""));
    assert!(errors.contains("unknown keyword `another`"), "{errors}");
    assert!(
        !errors.contains("`nosuch`"),
        "known when it was started: {errors}"
    );
    let namespace = stage.client.command(env!("CARGO_BIN_EXE_director"));
    let alone = namespace.unwrap().args(["plan", "-f", file]).output();
    let alone = alone.unwrap();
    assert_eq!(alone.status.code(), Some(2), "nobody to ask there");
}

fn an_engine_that_there_is_not_is_refused() {
    let stage = Stage::nat(0);
    let director = Director::start(&stage, "", 1);
    let service = format!("{VIP}:5060");
    let add = |engine| {
        director.ipvsadm_run(
            &["-A", "-u", &service, "-s", "rr", "-p", "60", "--pe", engine],
            "",
        )
    };
    let (status, _, errors) = add("sip");
    assert_eq!((status, errors.as_str()), (0, ""));
    let listing = director.ipvsadm(&["-L", "-n"]);
    let line = format!("UDP  {service} rr persistent 60 pe sip\n");
    assert!(listing.contains(&line), "{listing}");
    director.ipvsadm(&["-D", "-u", &service]);
    let (_, _, errors) = add("nosuch");
    assert!(
        errors.contains("unknown persistence engine \"nosuch\""),
        "{errors}"
    );
}

fn thresholds_and_one_packet_mode_are_listed() {
    let stage = Stage::nat(0);
    let text = format!(
        "virtual_server {VIP} 53 {{\nlb_algo rr\nlb_kind NAT\nprotocol UDP\nops\n\
         real_server 10.1.0.11 53 {{\nuthreshold 100\nlthreshold 50\n}}\n}}\n"
    );
    let director = Director::start(&stage, &text, 1);
    let listing = director.ipvsadm(&["-L", "-n"]);
    assert!(
        listing.contains(&format!("UDP  {VIP}:53 rr ops\n")),
        "{listing}"
    );
    let thresholds = director.ipvsadm(&["-L", "-n", "--thresholds"]);
    let server = thresholds.lines().last().unwrap();
    let words: Vec<&str> = server.split_whitespace().collect();
    assert_eq!(
        words[..4],
        ["->", "10.1.0.11:53", "100", "50"],
        "{thresholds}"
    );
}

/// No check of a server and no question wakes the control loop here: traffic alone must be enough.
fn rates_follow_traffic(workers: u32) {
    let stage = Stage::nat(2);
    let director = Director::start(&stage, "", workers);
    let address = format!("{VIP}/24");
    stage.director.add_address("ext0", &address).unwrap();
    let service = format!("{VIP}:80");
    let rules = format!(
        "-A -t {service} -s rr\n-a -t {service} -r 10.1.0.11:80 -m\n-a -t {service} -r 10.1.0.12:80 -m\n"
    );
    assert_eq!(director.ipvsadm_run(&["-R"], &rules).0, 0);
    let rates = || -> Vec<Vec<u64>> {
        let listing = director.ipvsadm(&["-L", "-n", "--rate"]);
        let lines = listing.lines().skip(3);
        lines
            .map(|line| {
                let words = line.split_whitespace().skip(2);
                words.map(|word| word.parse().unwrap()).collect()
            })
            .collect()
    };
    assert_eq!(rates(), vec![vec![0; 5]; 3]);

    let started = Instant::now();
    let mut requests = 0;
    while started.elapsed() < Duration::from_secs(7) {
        stage.spread(4);
        requests += 4;
        std::thread::sleep(Duration::from_millis(20));
    }
    let true_rate = requests / 7;
    let shown = rates();
    let [service, servers @ ..] = &shown[..] else {
        panic!("{shown:?}");
    };
    assert!(service.iter().all(|rate| *rate > 0), "{shown:?}");
    assert!(
        (1..=true_rate + 1).contains(&service[0]),
        "{shown:?}, {true_rate} requests a second"
    );
    assert!(
        service[1] > service[0],
        "packets and connections: {shown:?}"
    );
    for server in servers {
        let half = service[0] / 2;
        assert!(server[0].abs_diff(half) <= 1, "{shown:?}");
        assert!(server[4] > server[2], "bytes and packets: {shown:?}");
    }
    director.wait_until("the rate going down", || rates()[0][0] < service[0]);
}
