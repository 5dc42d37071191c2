//! What the director tells about packets: `why` and `status`.

use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::stage::{Conf, Director, Stage, VIP};
use crate::{once, with_workers};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, test) in [
        (
            "why_names_the_next_server_and_takes_no_turn",
            why_names_the_next_server_and_takes_no_turn as fn(u32),
        ),
        (
            "why_names_the_connection_in_both_directions",
            why_names_the_connection_in_both_directions,
        ),
    ] {
        trials.extend(with_workers(name, test));
    }
    trials.push(once("why_tells_every_refusal", why_tells_every_refusal));
    trials.push(once(
        "why_reads_packets_and_captures",
        why_reads_packets_and_captures,
    ));
    trials.push(once(
        "why_tells_of_ipsec_what_it_follows",
        why_tells_of_ipsec_what_it_follows,
    ));
    trials.push(once(
        "status_counts_drops_in_words",
        status_counts_drops_in_words,
    ));
    trials
}

/// Asks: whether the packet is served, and the answer.
fn why(director: &Director, arguments: &[&str]) -> (bool, Value) {
    let mut all = vec!["why", "--json"];
    all.extend(arguments);
    let (status, output, errors) = director.beside(&all);
    assert!(status == 0 || status == 1, "{errors}");
    (status == 0, serde_json::from_str(&output).unwrap())
}

fn why_names_the_next_server_and_takes_no_turn(workers: u32) {
    let stage = Stage::nat(3);
    let director = Director::start(&stage, &Conf::nat(3).text(), workers);
    for _ in 0..6 {
        let service = format!("{VIP}:80");
        let question = ["tcp", "198.51.100.10:45678", &service];
        let (served, first) = why(&director, &question);
        let (_, second) = why(&director, &question);
        assert!(served);
        assert_eq!(first, second, "asking changes nothing");
        assert_eq!(
            (&first["outcome"], &first["reason"], &first["method"]),
            (&"forwarded".into(), &"scheduler".into(), &"nat".into())
        );
        let target = first["target"].as_str().unwrap();
        let name = stage.ask().unwrap();
        assert_eq!(target, format!("10.1.0.1{}:80", &name[2..]), "{first}");
    }
    let stats = director.service().stats;
    assert_eq!(stats.conns, 6, "only requests are counted");
}

fn why_names_the_connection_in_both_directions(workers: u32) {
    let stage = Stage::nat(2);
    let director = Director::start(&stage, &Conf::nat(2).text(), workers);
    let mut stream = stage
        .client
        .run(|| TcpStream::connect(format!("{VIP}:80")))
        .unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n").unwrap();
    let client = stream.local_addr().unwrap().to_string();
    let connection = director.connections().remove(0);
    let (served, inbound) = why(&director, &["tcp", &client, &format!("{VIP}:80"), "--data"]);
    assert!(served);
    assert_eq!(inbound["reason"], "connection");
    assert_eq!(inbound["target"], connection.destination.to_string());
    assert_eq!(inbound["next_hop"]["interface"], "int0");
    assert!(inbound["next_hop"]["mac"].is_string(), "{inbound}");
    let server = connection.destination.to_string();
    let (served, outbound) = why(&director, &["tcp", &server, &client, "--data"]);
    assert!(served);
    assert_eq!(
        (&outbound["outcome"], &outbound["worker"]),
        (&"answered".into(), &inbound["worker"])
    );
    assert_eq!(outbound["next_hop"]["interface"], "ext0");
    // For people: a line each, and the end of it.
    let (_, prose, _) = director.beside(&["why", "tcp", &client, &format!("{VIP}:80"), "--data"]);
    for text in [
        "taken from the host",
        "ESTABLISHED",
        "FORWARDED to 10.1.0.1",
    ] {
        assert!(prose.contains(text), "{prose}");
    }
}

fn why_tells_every_refusal() {
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), 1);
    let service = format!("{VIP}:80");
    let client = "198.51.100.10:45678";
    let outcome = |arguments: &[&str]| {
        let (served, answer) = why(&director, arguments);
        assert!(!served);
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        (text("outcome"), text("reason"), answer["steps"].to_string())
    };
    let (left, reason, steps) = outcome(&["tcp", client, &format!("{VIP}:81")]);
    assert_eq!((&*left, &*reason), ("left", "not-claimed"));
    assert!(steps.contains("but at TCP 80"), "{steps}");
    let (unserved, reason, _) = outcome(&["tcp", client, &service, "--data"]);
    assert!(unserved == "given-back" || unserved == "refused");
    assert_eq!(reason, "begins-nothing");
    director.ipvsadm(&["-e", "-t", &service, "-r", "10.1.0.11:80", "-m", "-w", "0"]);
    let (refused, reason, steps) = outcome(&["tcp", client, &service]);
    assert_eq!((&*refused, &*reason), ("refused", "no-server"));
    assert!(steps.contains("quiesced"), "{steps}");
    // What it says is what happens.
    assert!(stage.ask().is_err());
}

fn why_reads_packets_and_captures() {
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), 1);
    // A SYN from 198.51.100.10:50000 to the service.
    let packet = "45 00 00 28 12 34 40 00 40 06 d3 c6 c6 33 64 0a c6 33 64 64 \
                  c3 50 00 50 11 22 33 44 00 00 00 00 50 02 fa f0 00 00 00 00";
    let (served, answer) = why(&director, &["--hex", packet]);
    assert!(served, "{answer}");
    assert_eq!(answer["target"], "10.1.0.11:80");
    let bytes: Vec<u8> = packet
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let mut capture = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    capture.extend([0; 12]);
    capture.extend(101_u32.to_le_bytes());
    for _ in 0..2 {
        capture.extend([0; 8]);
        capture.extend([bytes.len() as u8, 0, 0, 0, bytes.len() as u8, 0, 0, 0]);
        capture.extend(&bytes);
    }
    let file = director.file.with_extension("pcap");
    std::fs::write(&file, capture).unwrap();
    let path = file.to_str().unwrap();
    let (_, second) = why(&director, &["--pcap", path, "--packet", "2"]);
    let (status, _, errors) = director.beside(&["why", "--pcap", path, "--packet", "3"]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(second, answer);
    assert_eq!(status, 2);
    assert!(errors.contains("has 2 packets"), "{errors}");
}

fn why_tells_of_ipsec_what_it_follows() {
    let stage = Stage::nat(1);
    let mut conf = Conf::nat(1);
    conf.extra = format!(
        "virtual_server {VIP} 500 {{\n    lb_algo rr\n    lb_kind NAT\n    protocol UDP\n    \
         real_server 10.1.0.11 500 {{\n        weight 1\n    }}\n}}\n"
    );
    let director = Director::start(&stage, &conf.text(), 2);
    assert_eq!(stage.ask().unwrap(), "rs1");
    let steps = |answer: &Value| answer["steps"].to_string();
    let (served, before) = why(&director, &["esp", "198.51.100.10", VIP]);
    assert!(!served, "{before}");
    assert_eq!(before["reason"], "begins-nothing");
    assert!(steps(&before).contains("no key exchange"), "{before}");
    let (_, other) = why(&director, &["ah", "198.51.100.10", "198.51.100.1"]);
    assert_eq!(other["reason"], "not-claimed", "{other}");
    // A key exchange begins.
    let socket = stage.client.run(|| UdpSocket::bind("0.0.0.0:500")).unwrap();
    socket.send_to(b"hello", format!("{VIP}:500")).unwrap();
    let esp = "45 00 00 24 00 00 40 00 40 32 e5 d2 c6 33 64 0a c6 33 64 64 \
               00 00 10 01 00 00 00 01 00 00 00 00 00 00 00 00";
    director.wait_until("key exchange", || why(&director, &["--hex", esp]).0);
    let (_, answer) = why(&director, &["--hex", esp]);
    assert_eq!(answer["target"], "10.1.0.11:500");
    assert!(
        steps(&answer).contains("ESP 198.51.100.10 -> 198.51.100.100, 36 bytes"),
        "{answer}"
    );
    assert_eq!(
        answer,
        why(&director, &["--hex", esp]).1,
        "it has no port 0 of TCP"
    );
    let (_, back) = why(&director, &["esp", "10.1.0.11", "198.51.100.10"]);
    assert_eq!(back["outcome"], "answered", "{back}");
}

fn status_counts_drops_in_words() {
    let stage = Stage::nat(1);
    let mut conf = Conf::nat(1);
    // Nobody has the server's address, and no check looks.
    conf.extra = format!(
        "virtual_server {VIP} 53 {{\n    lb_algo rr\n    lb_kind NAT\n    protocol UDP\n    \
         real_server 10.1.0.99 53 {{\n        weight 1\n    }}\n}}\n"
    );
    let director = Director::start(&stage, &conf.text(), 2);
    let socket = stage.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.send_to(b"hello", format!("{VIP}:53")).unwrap();
    let dropped = |name: &str| -> u64 {
        let (status, output, errors) = director.beside(&["status", "--json"]);
        assert_eq!(status, 0, "{errors}");
        let status: Value = serde_json::from_str(&output).unwrap();
        let workers = status["counters"].as_array().unwrap();
        assert_eq!(workers.len(), 2);
        let lists = workers
            .iter()
            .flat_map(|worker| worker["dropped"].as_array().unwrap());
        let named = lists.filter(|counter| counter["name"] == name);
        named
            .map(|counter| counter["count"].as_u64().unwrap())
            .sum()
    };
    director.wait_until("dropped packet", || dropped("neighbour-failed") == 1);
    assert_eq!(dropped("no-route"), 0);
    let (_, prose, _) = director.beside(&["status"]);
    for text in [
        "1 neighbour-failed",
        "does not answer ARP",
        "At ext0:",
        "to-services",
    ] {
        assert!(prose.contains(text), "{prose}");
    }
    assert!(!prose.contains("no-route"), "{prose}");
    let (_, everything, _) = director.beside(&["status", "--all"]);
    assert!(everything.contains("no-route"), "{everything}");
    let service = format!("{VIP}:53");
    let (served, answer) = why(&director, &["udp", "198.51.100.10:4000", &service]);
    // Later the kernel forgets that nobody answered.
    assert!(served || answer["reason"] == "neighbour-failed", "{answer}");
    socket
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    assert!(socket.recv(&mut [0; 8]).is_err());
}
