//! What a running director has scripts and readers of pipes hear.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use ipvsadm::protocol::SocketAddress;
use libtest_mimic::Trial;

use crate::once;
use crate::place::Place;
use crate::stage::{Conf, Director, Stage};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once(
            "notify_scripts_and_pipes_hear_everything_once",
            scripts_and_pipes_hear_everything_once,
        ),
        once(
            "notify_of_servers_that_begin_as_down_or_are_told_at_the_start",
            servers_that_begin_as_down,
        ),
        once(
            "notify_of_a_reload_follows_the_new_file",
            a_reload_follows_the_new_file,
        ),
        once(
            "notify_events_and_reload_over_the_control_socket",
            events_and_reload_over_the_control_socket,
        ),
        once("manual_pages_are_well_formed", manual_pages_are_well_formed),
    ]
}

fn text(method: &str, server: &str, router: &str, global: &str) -> String {
    let mut conf = Conf::nat(1);
    conf.extra = format!("global_defs {{\n script_user root\n {global}\n}}\n");
    conf.text()
        .replace("lb_kind NAT\n", &format!("lb_kind NAT\n {method}\n"))
        .replace("weight 1\n", &format!("weight 1\n {server}\n"))
        .replace("priority 255\n", &format!("priority 255\n {router}\n"))
}

fn scripts_and_pipes_hear_everything_once() {
    let place = Place::new("notify");
    place.script("run", "echo \"$*\" >>\"${0%/*}/out\"");
    place.script(
        "reader",
        "while read -r line; do echo \"$line\" >>\"${0%/*}/lines\"; done <\"$1\"",
    );
    let mut stage = Stage::nat(1);
    let conf = place.fill(&text(
        "quorum_up \"DIR/run qu\"\n quorum_down \"DIR/run qd\"\n omega",
        "notify_up \"DIR/run up\"\n notify_down \"DIR/run down\"",
        "notify_master \"DIR/run master\"\n notify_stop \"DIR/run stop\"\n notify DIR/run",
        "notify_fifo DIR/fifo\n notify_fifo_script DIR/reader\n startup_script \"DIR/run startup\"\n \
         shutdown_script \"DIR/run shutdown\"",
    ));
    let director = Director::start(&stage, &conf, 1);
    let lines = |count: usize| {
        director.wait_until("the pipe's lines", || {
            place.read("lines").lines().count() == count
        });
    };
    lines(2);
    stage.servers[0].1.stop();
    lines(4);
    stage.restart(0);
    lines(6);
    director.terminate();
    let rs = "RS [10.1.0.11]:tcp:80 [198.51.100.100]:tcp:80";
    let vs = "VS [198.51.100.100]:tcp:80";
    let expected = [
        format!("{vs} UP"),
        "INSTANCE \"VI_1\" MASTER 255".to_owned(),
        format!("{rs} DOWN"),
        format!("{vs} DOWN"),
        format!("{rs} UP"),
        format!("{vs} UP"),
        "INSTANCE \"VI_1\" STOP 255".to_owned(),
        format!("{rs} DOWN"),
        format!("{vs} DOWN"),
    ];
    assert_eq!(place.read("lines").lines().collect::<Vec<_>>(), expected);
    let out = place.read("out");
    let told: Vec<&str> = out.lines().collect();
    assert_eq!((told[0], told[told.len() - 1]), ("startup", "shutdown"));
    for (words, times) in [
        ("qu", 2),
        ("qd", 2),
        ("up", 1),
        ("down", 2),
        ("master", 1),
        ("stop", 1),
        ("INSTANCE VI_1 MASTER 255", 1),
        ("INSTANCE VI_1 STOP 255", 1),
    ] {
        let count = told.iter().filter(|told| **told == words).count();
        assert_eq!(count, times, "{words}: {out}");
    }
    assert_eq!(told.len(), 13, "{out}");
    assert!(!place.0.join("fifo").exists());
}

fn servers_that_begin_as_down() {
    let place = Place::new("notify-alpha");
    place.script("run", "echo \"$*\" >>\"${0%/*}/out\"");
    place.script("reader", "exec cat \"$1\" >>\"${0%/*}/lines\"");
    let mut stage = Stage::nat(2);
    stage.servers[1].1.stop();
    let mut conf = Conf::nat(2);
    conf.extra = place.fill(
        "global_defs {\n script_user root\n rs_init_notifies\n notify_fifo DIR/fifo\n notify_fifo_script DIR/reader\n}\n\
         virtual_server 198.51.100.100 81 {\n lb_kind NAT\n protocol TCP\n real_server 10.1.0.11 80 {\n }\n}\n",
    );
    let text = place.fill(
        &conf
            .text()
            .replacen("lb_kind NAT\n", "lb_kind NAT\n alpha\n", 1)
            .replace(
                "10.1.0.12 80 {\n",
                "10.1.0.12 80 {\n notify_up \"DIR/run up\"\n notify_down \"DIR/run down\"\n",
            ),
    );
    let director = Director::start(&stage, &text, 1);
    let lines = |count: usize| -> Vec<String> {
        director.wait_until("the pipe's lines", || {
            place.read("lines").lines().count() >= count
        });
        place.read("lines").lines().map(str::to_owned).collect()
    };
    // One check fails, the other passes: in any order, and each is told once, although both changed nothing or little.
    let vs = "[198.51.100.100]:tcp:80";
    let mut told: Vec<String> = lines(6)
        .into_iter()
        .filter(|line| !line.starts_with("INSTANCE"))
        .collect();
    told.sort_unstable();
    let mut expected = [
        format!("RS [10.1.0.11]:tcp:80 {vs} UP"),
        format!("RS [10.1.0.12]:tcp:80 {vs} DOWN"),
        format!("VS {vs} UP"),
        "RS [10.1.0.11]:tcp:80 [198.51.100.100]:tcp:81 UP".to_owned(),
        "VS [198.51.100.100]:tcp:81 UP".to_owned(),
    ];
    expected.sort_unstable();
    assert_eq!(told, expected);
    stage.restart(1);
    assert_eq!(lines(7)[6], format!("RS [10.1.0.12]:tcp:80 {vs} UP"));
    assert!(director.terminate().success());
    assert_eq!(place.read("out"), "down\nup\n");
}

fn a_reload_follows_the_new_file() {
    let place = Place::new("notify-reload");
    place.script("run", "echo \"$*\" >>\"${0%/*}/out\"");
    let mut stage = Stage::nat(1);
    let before = place.fill(&text("", "notify_down \"DIR/run old\"", "", ""));
    let director = Director::start(&stage, &before, 1);
    let after = before.replace("run old", "run new");
    director.reload(&after);
    director.wait_for_log("reload done, no service, server or address has changed");
    stage.servers[0].1.stop();
    director.wait_until("the script", || !place.read("out").is_empty());
    assert_eq!(place.read("out"), "new\n");
    // A server that is taken out while it is up goes down, as the file says that had it.
    stage.restart(0);
    director.wait_for_log("real server 10.1.0.11:80 of TCP 198.51.100.100:80 is up");
    let other = after
        .replace("10.1.0.11", "10.1.0.12")
        .replace("run new", "run other");
    director.reload(&other);
    director.wait_until("the script", || place.read("out").lines().count() == 2);
    assert_eq!(place.read("out"), "new\nnew\n");
    drop(director);
    assert_eq!(place.read("out"), "new\nnew\n");
}

fn events_and_reload_over_the_control_socket() {
    let place = Place::new("events");
    let mut stage = Stage::nat(1);
    let conf = Conf::nat(1).text();
    let pid = place.0.join("pid");
    let more = ["-p", pid.to_str().unwrap(), "-d", "-I", "-S", "local1"];
    let director = Director::start_more(&stage, &conf, 1, &more);
    let log = director.log();
    assert!(log.contains("--dont-release-ipvs has no effect"), "{log}");
    assert!(
        log.contains("configuration: virtual_server 198.51.100.100 80"),
        "{log}"
    );
    director.wait_until("the pid file", || place.read("pid").ends_with('\n'));

    let program = env!("CARGO_BIN_EXE_director");
    let mut follower = stage.director.command(program).unwrap();
    follower.args(["events", "--json"]).env_remove("LVS_SOCKET");
    let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = events.next().unwrap().unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    assert_eq!(next()["text"], "events from now on");

    fs::write(&director.file, conf.replace("lb_algo", "lb_alog")).unwrap();
    let (status, output, _) = director.beside(&["reload"]);
    assert_eq!(status, 1, "{output}");
    assert!(
        output.starts_with("reload refused, the running configuration stays: "),
        "{output}"
    );
    let refused = next();
    assert_eq!(
        (&refused["event"], &refused["is_done"]),
        (&"reload".into(), &false.into())
    );
    fs::write(&director.file, conf.replace("lb_algo rr", "lb_algo wrr")).unwrap();
    let (status, output, _) = director.beside(&["reload", "--json"]);
    assert_eq!(status, 0, "{output}");
    assert_eq!(output, "{\"is_done\":true,\"summary\":\"reload done\"}\n");
    assert_eq!(next()["is_done"], true);

    // A request that is too long costs its sender the connection, and nobody else anything.
    let reply = stage.director.run(|| {
        let mut stream = SocketAddress::default().connect().unwrap();
        let _ = stream.write_all(&[b'x'; 70_000]);
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        reply
    });
    assert!(
        reply.contains("bad-request") && reply.contains("too long"),
        "{reply}"
    );

    stage.servers[0].1.stop();
    let kinds: Vec<String> = (0..3)
        .map(|_| next()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["server", "quorum", "check"]);
    director.terminate();
    let stop = next();
    assert_eq!(
        (&stop["event"], &stop["change"]),
        (&"vrrp".into(), &"stop".into())
    );
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    assert!(!pid.exists());
}

fn manual_pages_are_well_formed() {
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/man");
    let names = ["director.8", "director.conf.5", "ipvsadm.8"];
    let paths = names.map(|name| format!("{pages}/{name}"));
    let lint = Command::new("mandoc")
        .args(["-T", "lint", "-W", "warning"])
        .args(&paths)
        .output();
    match lint {
        Ok(output) => assert!(
            output.status.success() && output.stdout.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
        Err(error) => {
            let message = format!("skipped: mandoc can't be run: {error}");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
            println!("{message}");
        }
    }
    // Every command that help shows has its place in the page.
    let page = fs::read_to_string(&paths[0]).unwrap();
    let (_, help, _) = crate::stage::director_texts(&["--help"]);
    let commands = help
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    for name in commands
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        assert!(
            page.contains(&format!(".It Cm {name}")) || page.contains(&format!(", {name}")),
            "{name}"
        );
    }
}
