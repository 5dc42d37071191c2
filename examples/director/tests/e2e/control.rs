//! The control socket against strangers and nonsense, and what commands tell programs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use ipvsadm::protocol::SocketAddress;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::once;
use crate::stage::{Conf, Director, Stage};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once("control_socket_refuses_other_users", refuses_other_users),
        once(
            "control_socket_survives_whatever_is_sent",
            survives_whatever_is_sent,
        ),
        once("the_page_of_the_protocol_is_true", the_page_is_true),
        once("commands_have_json_for_programs", commands_have_json),
    ]
}

fn refuses_other_users() {
    let stage = Stage::nat(1);
    let as_other = |program: &str, arguments: &[&str]| {
        let mut command = stage.director.command("/usr/bin/setpriv").unwrap();
        command
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                program,
            ])
            .args(arguments)
            .env_remove("LVS_SOCKET")
            .stdin(Stdio::null());
        command.output()
    };
    if !as_other("true", &[]).is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no other user in this namespace");
        return;
    }
    let director = Director::start(&stage, &Conf::nat(1).text(), 1);
    // Where the program can't be read by others, a copy can.
    let copy = std::env::temp_dir().join(format!("director-e2e-copy-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_director"), &copy).unwrap();
    for arguments in [
        &["status"][..],
        &["drain", "10.1.0.11"],
        &["weight", "10.1.0.11", "0"],
        &["reload"],
        &["events"],
    ] {
        let output = as_other(copy.to_str().unwrap(), arguments).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
    fs::remove_file(&copy).unwrap();
    assert_eq!(director.service().destinations[0].weight, 1);
    // Whoever knocks all the time does not fill the log.
    let said = director
        .log()
        .matches("WARN control socket: refused")
        .count();
    assert_eq!(said, 1, "{}", director.log());
    assert!(director.log().contains("of user 65534"));
}

fn resident_kilobytes(director: &Director) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", director.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn survives_whatever_is_sent() {
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), 1);
    let connect = || SocketAddress::default().connect().unwrap();
    let before = resident_kilobytes(&director);
    stage.director.run(|| {
        // Each line has its answer, and the connection goes on.
        let mut stream = connect();
        let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
        let nested = "[".repeat(30_000);
        let number = format!("{{\"version\":{}}}", "9".repeat(1000));
        let mut lines: Vec<Vec<u8>> = ["", "{", "null", "[]", "7", "\"status\"", "{}", "{\"version\":1}"]
            .into_iter()
            .chain(["{\"version\":\"1\",\"op\":\"status\"}", "{\"version\":1,\"op\":7}", &nested, &number])
            .map(|text| text.as_bytes().to_vec())
            .collect();
        lines.push(vec![0xff; 100]);
        lines.push(vec![0; 100]);
        lines.push(b"{\"version\":1,\"op\":\"status\"\r}".to_vec());
        for op in [
            "why", "marks", "tunables", "drain", "restore", "add-service", "edit-service", "delete-service", "add-server",
            "edit-server", "delete-server", "add-local-address", "delete-local-address", "set-timeouts",
        ] {
            for arguments in [
                "\"set\":7,\"add\":7,\"action\":7,\"edits\":7,\"service\":7,\"tcp\":\"x\",\"protocol\":{}",
                "\"service\":{\"address\":{\"protocol\":-1,\"address\":\"x\",\"port\":99999}},\"family\":\"inet7\",\"edits\":[7],\"set\":[7],\
                 \"add\":[],\"action\":{\"weight\":{\"weight\":-1}},\"server\":\"nobody\",\"tcp\":-1,\"tcp_fin\":1e99,\"udp\":null",
            ] {
                lines.push(format!("{{\"version\":1,\"op\":\"{op}\",{arguments}}}").into_bytes());
            }
        }
        for line in &lines {
            let shown = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            stream.write_all(line).unwrap();
            stream.write_all(b"\n").unwrap();
            let answer = answers.next().unwrap().unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            if shown.contains('\r') {
                continue;
            }
            assert_eq!(answer["ok"], false, "{shown}: {answer}");
            assert!(answer["error"]["message"].is_string(), "{shown}: {answer}");
        }

        // Whoever sends without end is cut off, whoever goes in the middle of a line is forgotten.
        for _ in 0..20 {
            let mut stream = connect();
            let _ = stream.write_all(&[b'x'; 100_000]);
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            assert!(answer.contains("too long"), "{answer}");
            let mut stream = connect();
            stream.write_all(b"{\"version\":1,\"op\":\"stat").unwrap();
        }
        // Whoever asks and does not read waits, alone; whoever says nothing at all, too.
        let mut idle: Vec<UnixStream> = (0..100).map(|_| connect()).collect();
        for stream in &mut idle {
            stream.set_nonblocking(true).unwrap();
            while stream.write(b"{\"version\":1,\"op\":\"status\"}\n").is_ok() {}
        }
        let mut stream = connect();
        stream.write_all(b"{\"version\":1,\"op\":\"timeouts\"}\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"tcp\":900"), "{answer}");
    });
    let after = resident_kilobytes(&director);
    assert!(
        after < before + 32 * 1024,
        "{before} kB before, {after} kB after"
    );
    assert_eq!(stage.ask().unwrap(), "rs1");
    assert!(!director.log().contains("panicked"), "{}", director.log());
    assert!(director.terminate().success());
}

fn the_page_is_true() {
    let page = include_str!("../../PROTOCOL.md");
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), 1);
    let answer = |request: &str| -> String {
        stage.director.run(|| {
            let mut stream = SocketAddress::default().connect().unwrap();
            writeln!(stream, "{request}").unwrap();
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).unwrap();
            answer
        })
    };
    // The first example, word by word.
    let example = page.split("```").nth(1).unwrap();
    let mut lines = example.trim().lines();
    while let (Some(asked), Some(answered)) = (lines.next(), lines.next()) {
        let (request, reply) = (asked.strip_prefix("→ "), answered.strip_prefix("← "));
        assert_eq!(answer(request.unwrap()).trim(), reply.unwrap());
    }
    // Every operation that it names is known, and those that are known to commands are named.
    let section = |title: &str| {
        let (_, rest) = page.split_once(&format!("## {title}\n")).unwrap();
        rest.split("\n## ").next().unwrap()
    };
    let questions = section("Questions").lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
        (name != "op").then_some(name)
    });
    let changes = section("Changes").split("`").skip(1).step_by(2);
    let is_operation =
        |word: &&str| word.len() > 3 && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let others = [
        "action",
        "server",
        "port",
        "service",
        "edits",
        "servers",
        "state",
        "weight",
        "restores",
        "active",
        "inactive",
        "persistent",
        "deadline",
        "serving",
        "draining",
        "done",
        "forced",
        "summary",
        "null",
    ];
    let changes = changes
        .filter(is_operation)
        .filter(|word| !others.contains(word));
    let named: Vec<&str> = questions.chain(changes).chain(["events"]).collect();
    for op in &named {
        let reply: Value =
            serde_json::from_str(&answer(&format!("{{\"version\":1,\"op\":\"{op}\"}}"))).unwrap();
        assert_ne!(reply["error"]["kind"], "unknown-op", "{op}: {reply}");
    }
    for op in [
        "status",
        "services",
        "connections",
        "timeouts",
        "configuration",
        "vrrp",
        "health",
        "why",
        "marks",
        "tunables",
        "drain",
        "reload",
        "restore",
        "flush",
        "zero",
        "set-timeouts",
        "add-server",
        "delete-local-address",
    ] {
        assert!(named.contains(&op), "{op} is not on the page: {named:?}");
    }
    // So is every kind of error.
    for kind in [
        "bad-request",
        "bad-version",
        "unknown-op",
        "no-service",
        "unsupported",
        "internal",
    ] {
        assert!(page.contains(&format!("`{kind}`")), "{kind}");
    }
    assert!(director.terminate().success());
}

fn commands_have_json() {
    let stage = Stage::nat(2);
    let conf = Conf::nat(2).text();
    let director = Director::start(&stage, &conf, 1);
    let file = director.file.to_str().unwrap().to_owned();
    let ask = |arguments: &[&str], expected: i32| -> Value {
        let (status, output, errors) = director.beside(&[arguments, &["--json"]].concat());
        assert_eq!(
            (status, errors.as_str()),
            (expected, ""),
            "{arguments:?}: {output}"
        );
        serde_json::from_str(&output)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output}"))
    };
    let mut follower = stage
        .director
        .command(env!("CARGO_BIN_EXE_director"))
        .unwrap();
    follower.args(["events", "--json"]).env_remove("LVS_SOCKET");
    let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&events.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["text"], "events from now on");

    assert_eq!(ask(&["status"], 0)["pid"], director.id());
    assert_eq!(ask(&["health"], 0)["servers"][1]["server"], "10.1.0.12:80");
    assert_eq!(ask(&["vrrp"], 0)["instances"][0]["name"], "VI_1");
    assert!(
        ask(
            &["why", "tcp", "198.51.100.10:5555", "198.51.100.100:80"],
            0
        )
        .is_object()
    );
    let service = "TCP 198.51.100.100:80";
    let drained = ask(&["drain", "10.1.0.11:80"], 0);
    assert_eq!(drained["servers"][0]["service"], service);
    assert_eq!(ask(&["drain"], 0)["servers"][0]["restores"], 1);
    assert_eq!(
        ask(&["undrain", "10.1.0.11:80"], 0)["servers"][0]["weight"],
        1
    );
    assert_eq!(
        ask(&["weight", "10.1.0.12:80", "7"], 0)["servers"][0]["weight"],
        7
    );
    for (server, change, weight) in [
        ("10.1.0.11:80", "begun", 0),
        ("10.1.0.11:80", "done", 0),
        ("10.1.0.11:80", "ended", 1),
        ("10.1.0.12:80", "weight", 7),
    ] {
        let mut event = next();
        let said = event.as_object_mut().unwrap();
        said.retain(|name, _| name != "time" && name != "text");
        let expected = json!({"event": "drain", "service": service, "server": server, "change": change, "weight": weight});
        assert_eq!(event, expected);
    }

    assert_eq!(
        ask(&["plan", "-f", &file], 0)["changes"],
        Value::Array(Vec::new())
    );
    fs::write(&file, conf.replace("weight 1", "weight 5")).unwrap();
    let object = format!("server 10.1.0.11:80 of {service}");
    assert_eq!(
        ask(&["plan", "-f", &file], 1)["changes"][0],
        json!({"edit": "change", "object": object, "needs_restart": false})
    );
    assert_eq!(ask(&["reload"], 0)["is_done"], true);
    fs::write(&file, "virtual_server {").unwrap();
    let refusal = ask(&["plan", "-f", &file], 2)["refusal"].clone();
    assert!(
        refusal.as_array().is_some_and(|lines| !lines.is_empty()),
        "{refusal}"
    );
    assert_eq!(ask(&["reload"], 1)["is_done"], false);
    assert_eq!(
        [next(), next()].map(|event| event["event"].clone()),
        ["reload"; 2]
    );
    assert!(director.terminate().success());
    // The end of VRRP, then of the director.
    assert_eq!(next()["change"], "stop");
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}
