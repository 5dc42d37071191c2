//! Checks of every fault that a web server can have, weights by programs and files, suspended checks, and what
//! `director health` and `director genhash` say.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netlab::Namespace;

use crate::once;
use crate::stage::{Conf, Director, Stage, VIP, rip};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once(
            "each_fault_takes_its_server_out_in_time_and_back",
            each_fault_takes_its_server_out_in_time_and_back,
        ),
        once(
            "programs_and_files_set_weights",
            programs_and_files_set_weights,
        ),
        once(
            "script_that_cannot_run_is_down",
            script_that_cannot_run_is_down,
        ),
        once(
            "checks_rest_while_the_address_is_elsewhere",
            checks_rest_while_the_address_is_elsewhere,
        ),
        once(
            "bfd_session_decides_about_its_server",
            bfd_session_decides_about_its_server,
        ),
    ]
}

/// A web server on port 8080 that behaves as it is told.
struct Faulty {
    mode: Arc<AtomicU8>,
    namespace: Namespace,
}

const GOOD: u8 = 0;
const STATUS_500: u8 = 1;
const WRONG_BODY: u8 = 2;
const HANGS: u8 = 3;
const REFUSES: u8 = 4;

impl Faulty {
    fn start(namespace: &Namespace, at: SocketAddr) -> Self {
        let mode = Arc::new(AtomicU8::new(GOOD));
        let shared = Arc::clone(&mode);
        let place = namespace.clone();
        let listen = move || place.run(|| TcpListener::bind(at)).unwrap();
        let first = listen();
        thread::spawn(move || {
            let mut listener = Some(first);
            loop {
                let mode = shared.load(Ordering::Relaxed);
                if mode == REFUSES {
                    listener = None;
                    thread::sleep(Duration::from_millis(10));
                    continue;
                }
                let at = listener.get_or_insert_with(&listen);
                at.set_nonblocking(true).unwrap();
                match at.accept() {
                    Ok((stream, _)) => drop(thread::spawn(move || answer(stream, mode))),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self {
            mode,
            namespace: namespace.clone(),
        }
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::Relaxed);
    }
}

fn answer(mut stream: TcpStream, mode: u8) {
    let _ = stream.set_nonblocking(false);
    let mut request = [0; 2048];
    let _ = stream.read(&mut request);
    let response: &[u8] = match mode {
        STATUS_500 => b"HTTP/1.0 500 Sorry\r\n\r\nhello",
        WRONG_BODY => b"HTTP/1.0 200 OK\r\n\r\nbye",
        HANGS => {
            let _ = stream.read_to_end(&mut Vec::new());
            return;
        }
        _ => b"HTTP/1.0 200 OK\r\n\r\nhello",
    };
    let _ = stream.write_all(response);
}

fn conf(servers: &[String], service: &str) -> String {
    let mut text = Conf {
        servers: Vec::new(),
        ..Conf::nat(0)
    }
    .text();
    text.truncate(text.rfind('}').unwrap());
    text.push_str(service);
    for server in servers {
        text.push_str(server);
    }
    text.push_str("}\n");
    text
}

fn weights(director: &Director) -> Vec<(String, u32)> {
    let servers = director.service().destinations;
    let mut weights: Vec<_> = servers
        .iter()
        .map(|server| {
            let address = SocketAddr::new(server.address, server.port);
            (address.to_string(), server.weight)
        })
        .collect();
    weights.sort();
    weights
}

fn each_fault_takes_its_server_out_in_time_and_back() {
    let stage = Stage::nat(5);
    let faulty: Vec<Faulty> = (0..4)
        .map(|n| {
            let at = SocketAddr::new(rip(n + 1).ip(), 8080);
            Faulty::start(&stage.servers[n].0, at)
        })
        .collect();
    let timing = "retry 1\ndelay_before_retry 0.5\nconnect_timeout 1\nwarmup 0\ndelay_loop 1\n";
    let mut servers: Vec<String> = (1..=4)
        .map(|n| {
            format!(
                "real_server {} 80 {{\nHTTP_GET {{\nconnect_port 8080\n{timing}url {{\npath /\n\
                 digest 5d41402abc4b2a76b9719d911017c592\n}}\n}}\n}}\n",
                rip(n).ip()
            )
        })
        .collect();
    // Nobody has this address.
    servers.push(format!(
        "real_server 10.1.0.99 80 {{\nTCP_CHECK {{\n{timing}}}\n}}\n"
    ));
    let sorry = format!("sorry_server {} 80\n", rip(5).ip());
    let director = Director::start(&stage, &conf(&servers, &sorry), 1);
    let (_, hash, errors) =
        director.beside(&["genhash", "-s", "10.1.0.11", "-p", "8080", "-u", "/"]);
    assert_eq!(
        (hash.as_str(), errors.as_str()),
        ("5d41402abc4b2a76b9719d911017c592\n", "")
    );

    let health = |what: &dyn Fn(&[serde_json::Value]) -> bool| {
        let (_, json, _) = director.beside(&["health", "--json"]);
        let answer: serde_json::Value = serde_json::from_str(&json).unwrap();
        what(answer["servers"].as_array().unwrap())
    };
    director.wait_until("first results", || {
        health(&|servers| {
            servers
                .iter()
                .all(|server| server["checks"][0]["has_run"] == true)
                && servers[..4].iter().all(|server| server["up"] == true)
                && servers[4]["up"] == false
        })
    });
    assert_eq!(weights(&director).len(), 4);

    for (server, mode) in faulty.iter().zip([STATUS_500, WRONG_BODY, HANGS, REFUSES]) {
        server.set(mode);
    }
    // The longest: an interval, an attempt of 1 s, half a second, another attempt, and some for a busy machine.
    let took = director.wait_until("sorry server", || {
        weights(&director) == [("10.1.0.15:80".to_owned(), 1)]
    });
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(stage.ask().unwrap(), "rs5");
    let (status, table, _) = director.beside(&["health"]);
    assert_eq!(status, 1);
    for reason in [
        "unexpected status 500",
        "body digest differs",
        "timed out waiting for an answer",
        "connection refused",
    ] {
        assert!(table.contains(reason), "no {reason} in\n{table}");
    }
    assert!(
        table.contains("network or host unreachable") || table.contains("connect timed out"),
        "{table}"
    );
    director.wait_for_log("lost its quorum");

    for server in &faulty {
        server.set(GOOD);
    }
    director.wait_until("all back", || weights(&director).len() == 4);
    let answered = stage.ask().unwrap();
    assert!(answered != "rs5", "the sorry server still answers");
    assert!(
        faulty
            .iter()
            .all(|server| server.mode.load(Ordering::Relaxed) == GOOD)
    );
    drop(faulty.into_iter().map(|server| server.namespace));
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("director-health-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

fn programs_and_files_set_weights() {
    let stage = Stage::nat(2);
    let dir = scratch("weights");
    let (program, code, file) = (dir.join("look"), dir.join("code"), dir.join("load"));
    fs::write(
        &program,
        format!("#!/bin/sh\nexit $(cat {})\n", code.display()),
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&code, "0").unwrap();
    fs::write(&file, "0").unwrap();
    let servers = [
        format!(
            "real_server 10.1.0.11 80 {{\nweight 10\nMISC_CHECK {{\nmisc_path {}\nmisc_dynamic\nmisc_timeout 5\nwarmup 0\n\
             delay_loop 0.5\n}}\n}}\n",
            program.display()
        ),
        "real_server 10.1.0.12 80 {\nweight 10\nFILE_CHECK {\ntrack_file load\nweight 2\n}\n}\n"
            .to_owned(),
    ];
    let text = format!("track_file load {{\nfile {}\n}}\n", file.display()) + &conf(&servers, "");
    let director = Director::start(&stage, &text, 1);
    let both = |first: Option<u32>, second: Option<u32>| {
        let wanted: Vec<(String, u32)> = [(1, first), (2, second)]
            .into_iter()
            .filter_map(|(n, weight)| Some((rip(n).to_string(), weight?)))
            .collect();
        director.wait_until(&format!("weights {wanted:?}"), || {
            weights(&director) == wanted
        });
    };
    both(Some(10), Some(10));
    fs::write(&code, "22").unwrap();
    both(Some(20), Some(10));
    fs::write(&file, "5\n").unwrap();
    both(Some(20), Some(20));
    fs::write(&code, "1").unwrap();
    both(None, Some(20));
    fs::write(&file, "-2147483648\n").unwrap();
    both(None, None);
    fs::remove_file(&file).unwrap();
    both(None, Some(10));
    fs::write(&code, "0").unwrap();
    both(Some(10), Some(10));
    // Another weight, the same check: what the program said last still counts.
    fs::write(&code, "7").unwrap();
    both(Some(5), Some(10));
    director.reload(&text.replace(
        "real_server 10.1.0.11 80 {\nweight 10",
        "real_server 10.1.0.11 80 {\nweight 40",
    ));
    director.wait_for_log("reload done");
    both(Some(5), Some(10));
    drop(director);
    fs::remove_dir_all(&dir).unwrap();
}

fn script_that_cannot_run_is_down() {
    let stage = Stage::nat(2);
    let servers = [
        "real_server 10.1.0.11 80 {\nMISC_CHECK {\nmisc_path /nowhere/look\n}\n}\n".to_owned(),
        "real_server 10.1.0.12 80 {\n}\n".to_owned(),
    ];
    let director = Director::start(&stage, &conf(&servers, ""), 1);
    director.wait_until("the other alone", || {
        weights(&director) == [("10.1.0.12:80".to_owned(), 1)]
    });
    let (status, table, _) = director.beside(&["health"]);
    assert_eq!(status, 1);
    assert!(table.contains("/nowhere/look"), "{table}");
    assert!(table.contains("not checked"), "{table}");
}

fn checks_rest_while_the_address_is_elsewhere() {
    let mut stage = Stage::nat(1);
    let check = "real_server 10.1.0.11 80 {\nTCP_CHECK {\nconnect_timeout 1\nretry 0\nwarmup 0\ndelay_loop 0.5\n}\n}\n";
    let text = conf(&[check.to_owned()], "ha_suspend\n");
    // The address is nobody's here until the block that holds it comes.
    let without = &text[text.find("virtual_server").unwrap()..];
    let director = Director::start(&stage, without, 1);
    stage.servers[0].1.stop();
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(weights(&director).len(), 1, "nobody looks");
    let (_, table, _) = director.beside(&["health"]);
    assert!(table.contains("checks rest"), "{table}");
    director.reload(&text);
    director.wait_until("somebody to look", || weights(&director).is_empty());
    stage.restart(0);
    director.wait_until("it to be back", || weights(&director).len() == 1);
    assert!(text.contains(VIP));
}

/// The session is with keepalived on the server.
fn bfd_session_decides_about_its_server() {
    let stage = Stage::nat(2);
    let session = |neighbor: &str, source: &str| {
        format!(
            "bfd_instance there {{\nneighbor_ip {neighbor}\nsource_ip {source}\nmin_rx 50\nmin_tx 50\nidle_tx 1000\nmultiplier 5\n}}\n"
        )
    };
    let servers = [
        "real_server 10.1.0.11 80 {\nBFD_CHECK {\nname there\n}\n}\n".to_owned(),
        "real_server 10.1.0.12 80 {\n}\n".to_owned(),
    ];
    let text = session("10.1.0.11", "10.1.0.1") + &conf(&servers, "");
    let director = Director::start(&stage, &text, 1);
    let alone = || weights(&director) == [("10.1.0.12:80".to_owned(), 1)];
    director.wait_until("the other alone", alone);
    let (_, table, _) = director.beside(&["health"]);
    assert!(table.contains("BFD session is down"), "{table}");

    let dir = scratch("bfd");
    let path = |name: &str| dir.join(name).display().to_string();
    let theirs = session("10.1.0.1", "10.1.0.11")
        + "vrrp_instance v {\ninterface eth0\nvirtual_router_id 9\nvirtual_ipaddress {\n10.1.0.99\n}\ntrack_bfd {\nthere\n}\n}\n";
    fs::write(dir.join("conf"), theirs).unwrap();
    let mut keepalived = stage.servers[0]
        .0
        .command("/usr/sbin/keepalived")
        .unwrap()
        .args(["--dont-fork", "--log-console", "--use-file", &path("conf")])
        .args([
            "--pid",
            &path("pid"),
            "--vrrp_pid",
            &path("vrrp"),
            "--bfd_pid",
            &path("bfd"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    director.wait_until("both", || weights(&director).len() == 2);
    director.reload(&text.replace("10.1.0.12 80 {\n", "10.1.0.12 80 {\nweight 2\n"));
    director.wait_for_log("reload done");
    assert_eq!(weights(&director).len(), 2, "a reload keeps the session");

    // Its children end with it, and say no word.
    keepalived.kill().unwrap();
    keepalived.wait().unwrap();
    director.wait_until("the end of the session", || weights(&director).len() == 1);
    director.wait_for_log("is down: BFD session is down");
    drop(director);
    fs::remove_dir_all(&dir).unwrap();
}
