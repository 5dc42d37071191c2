//! A `virtual_server` block for a `virtual_server_group`: one block, one set of checks, many services.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::once;
use crate::stage::{Director, Stage, rip};

pub(crate) fn trials() -> Vec<Trial> {
    vec![once(
        "group_is_one_block_of_many_services",
        group_is_one_block_of_many_services,
    )]
}

fn group_is_one_block_of_many_services() {
    let mut stage = Stage::nat(2);
    let director = Director::start(
        &stage,
        &conf("198.51.100.100-101 80\n198.51.100.102 8080"),
        1,
    );
    assert_eq!(
        director.ipvsadm(&["-S", "-n"]),
        saved(&["100:80", "101:80", "102:8080"], &[1, 2])
    );
    for addr in ["100:80", "101:80", "102:8080"] {
        assert_eq!(answers(&stage, addr, 4), [2, 2], "{addr}");
    }
    let (_, table, _) = director.beside(&["health"]);
    assert!(table.starts_with("group [web]:0  2 of 2 up"), "{table}");
    assert_eq!(table.matches("TCP_CHECK").count(), 2, "{table}");

    // What fails leaves all services of the group.
    stage.servers[1].1.stop();
    director.wait_for_log("10.1.0.12:80 of group [web]:0 is down");
    assert_eq!(
        director.ipvsadm(&["-S", "-n"]),
        saved(&["100:80", "101:80", "102:8080"], &[1])
    );

    // An entry comes and one goes: the others stay as they are, and what is down stays down.
    let zeroed = director.ipvsadm(&["-Ln", "--stats", "-t", "198.51.100.100:80"]);
    director.reload(&conf(
        "198.51.100.100 80\n198.51.100.102 8080\n198.51.100.101 8081",
    ));
    director.wait_for_log("reload done");
    assert_eq!(
        director.ipvsadm(&["-S", "-n"]),
        saved(&["100:80", "101:8081", "102:8080"], &[1])
    );
    assert_eq!(
        director.ipvsadm(&["-Ln", "--stats", "-t", "198.51.100.100:80"]),
        zeroed,
        "counters and connections stay"
    );
    assert_eq!(answers(&stage, "101:8081", 2), [2, 0]);
    let closed: SocketAddr = "198.51.100.101:80".parse().unwrap();
    let closed = stage.client.http_get(closed, "/", Duration::from_secs(2));
    assert!(closed.is_err(), "no longer a service");

    // Without servers the quorum is lost, and all services get the sorry server.
    stage.servers[0].1.stop();
    director.wait_for_log("group [web]:0 lost its quorum");
    let sorry = director.ipvsadm(&["-S", "-n"]);
    assert_eq!(sorry.matches("-r 10.1.0.13:80").count(), 3, "{sorry}");
    let (namespace, server) = &mut stage.servers[1];
    server.restart(namespace).unwrap();
    director.wait_for_log("10.1.0.12:80 of group [web]:0 is up");
    assert_eq!(answers(&stage, "102:8080", 2), [0, 2]);
}

fn conf(entries: &str) -> String {
    let mut text = format!(
        "vrrp_instance VI_1 {{\n    interface ext0\n    virtual_router_id 51\n    priority 255\n    virtual_ipaddress {{\n        \
         198.51.100.100/24\n        198.51.100.101/24\n        198.51.100.102/24\n    }}\n}}\n\
         virtual_server_group web {{\n{entries}\n}}\n\
         virtual_server group web {{\n    delay_loop 1\n    lb_algo rr\n    lb_kind NAT\n    protocol TCP\n    \
         sorry_server 10.1.0.13 80\n"
    );
    for n in 1..=2 {
        write!(
            text,
            "    real_server {} 80 {{\n        TCP_CHECK {{\n            connect_timeout 1\n            retry 0\n            \
             warmup 0\n        }}\n    }}\n",
            rip(n).ip()
        )
        .unwrap();
    }
    text + "}\n"
}

/// What `ipvsadm -S` prints.
fn saved(services: &[&str], servers: &[usize]) -> String {
    let mut text = String::new();
    for service in services {
        writeln!(text, "-A -t 198.51.100.{service} -s rr").unwrap();
        for n in servers {
            writeln!(text, "-a -t 198.51.100.{service} -r {} -m -w 1", rip(*n)).unwrap();
        }
    }
    text
}

/// How often each server answered at an address of the group.
fn answers(stage: &Stage, addr: &str, requests: usize) -> Vec<usize> {
    let addr: SocketAddr = format!("198.51.100.{addr}").parse().unwrap();
    let mut counts = vec![0; stage.servers.len()];
    for _ in 0..requests {
        let response = stage.client.http_get(addr, "/", Duration::from_secs(3));
        let name = response.unwrap().server;
        let named = |(_, server): &(_, netlab::HttpServer)| server.name() == name;
        counts[stage.servers.iter().position(named).unwrap()] += 1;
    }
    counts
}
