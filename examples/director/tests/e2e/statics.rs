//! Static addresses, routes and rules.

use libtest_mimic::Trial;
use netlab::Namespace;

use crate::once;
use crate::stage::{Conf, Director, Stage};

pub(crate) fn trials() -> Vec<Trial> {
    vec![once(
        "static_addresses_routes_and_rules_are_held",
        static_addresses_routes_and_rules_are_held,
    )]
}

fn static_addresses_routes_and_rules_are_held() {
    let stage = Stage::nat(1);
    let host = &stage.director;
    let director = Director::start(&stage, &conf("10.1.0.11"), 1);
    let all = [
        "addr 10.1.0.77/24",
        "addr 198.51.100.78/32",
        "addr fd00:77::1/64",
        "route 192.0.2.0/24 via 10.1.0.11 dev int0 table 300",
        "route blackhole 192.0.2.128/25",
        "rule from 192.0.2.0/24 lookup 300",
    ];
    assert_eq!(held(host), all);

    // What somebody takes away comes back.
    ip(host, "addr del 10.1.0.77/24 dev int0");
    ip(host, "route del 192.0.2.0/24 table 300");
    ip(host, "rule del from 192.0.2.0/24 lookup 300");
    director.wait_until("all of it again", || held(host) == all);

    // A reload changes what has changed.
    director.reload(&conf("10.1.0.12"));
    director.wait_for_log("reload done");
    let changed = all.map(|line| line.replace("via 10.1.0.11", "via 10.1.0.12"));
    assert_eq!(held(host), changed);

    // Nothing stays, not even after a death: the next one takes over what is left.
    director.kill();
    let director = Director::start(&stage, &conf("10.1.0.12"), 1);
    assert_eq!(held(host), changed);
    director.terminate();
    assert_eq!(held(host), [""; 0]);
}

fn conf(gateway: &str) -> String {
    format!(
        "global_defs {{\n    default_interface int0\n}}\n\
         static_ipaddress {{\n    10.1.0.77/24\n    198.51.100.78 dev ext0 label ext0:78\n    fd00:77::1/64 dev int0\n}}\n\
         static_routes {{\n    192.0.2.0/24 via {gateway} dev int0 table 300\n    blackhole 192.0.2.128/25\n}}\n\
         static_rules {{\n    from 192.0.2.0/24 table 300\n}}\n{}",
        Conf::nat(1).text()
    )
}

/// What there is of it, without what else the host has.
fn held(host: &Namespace) -> Vec<String> {
    let mut found = Vec::new();
    for line in ip(host, "-o addr show").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if ["10.1.0.77/24", "198.51.100.78/32", "fd00:77::1/64"].contains(&words[3]) {
            found.push(format!("addr {}", words[3]));
        }
    }
    found.sort_unstable();
    for line in ip(host, "route show table all").lines() {
        if line.contains("192.0.2.") {
            let (route, _) = line.split_once(" proto keepalived").unwrap();
            found.push(format!("route {route}"));
        }
    }
    for line in ip(host, "rule show").lines() {
        if line.contains("192.0.2.") {
            let (_, rule) = line.split_once("from").unwrap();
            let (rule, _) = rule.split_once(" proto keepalived").unwrap();
            found.push(format!("rule from{rule}"));
        }
    }
    found
}

fn ip(host: &Namespace, arguments: &str) -> String {
    let mut command = host.command("/usr/sbin/ip").unwrap();
    let output = command.args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
