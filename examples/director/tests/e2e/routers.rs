//! What virtual routers, sync groups and mails tell, and as whom scripts run.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netlab::Namespace;

use crate::once;
use crate::place::Place;
use crate::stage::{Conf, Director, PATIENCE, Stage};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once(
            "notify_of_virtual_routers_and_groups_in_order_and_once",
            virtual_routers_and_groups_in_order_and_once,
        ),
        once(
            "notify_mails_reach_a_real_server",
            mails_reach_a_real_server,
        ),
        once("vrrp_alone_tells_as_much", vrrp_alone_tells_as_much),
        once(
            "one_runner_runs_checks_tracked_scripts_and_notifications_as_their_users",
            one_runner_runs_all_as_their_users,
        ),
    ]
}

/// All scripts of an instance or group, each with its own words.
fn scripts(name: &str, more: &[&str]) -> String {
    let mut text = format!(" notify \"DIR/run {name}\"\n");
    for event in ["master", "backup", "fault", "stop"].iter().chain(more) {
        text += &format!(" notify_{event} \"DIR/run {name}-{event}\"\n");
    }
    text
}

fn instance(name: &str, interface: &str, id: u8, more: &str) -> String {
    format!(
        "vrrp_instance {name} {{\n interface {interface}\n virtual_router_id {id}\n priority 150\n advert_int 0.1\n \
         virtual_ipaddress {{\n  198.51.100.{id}/32 dev ext0\n }}\n{more}}}\n"
    )
}

/// What the scripts of one object were called with, by event: the specific one and the general one may end in any order.
fn calls(place: &Place, name: &str) -> Vec<String> {
    let out = place.read("out");
    let is_its = |line: &&str| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '-']))
    };
    out.lines().filter(is_its).map(str::to_owned).collect()
}

/// For each change its specific script and the general one.
fn expected(kind: &str, name: &str, changes: &[(&str, &str, u8)]) -> Vec<[String; 2]> {
    changes
        .iter()
        .map(|(specific, word, priority)| {
            [
                format!("{name} {kind} {name} {word} {priority}"),
                format!("{name}-{specific}"),
            ]
        })
        .collect()
}

fn in_pairs(lines: &[String]) -> Vec<[String; 2]> {
    lines
        .chunks(2)
        .map(|pair| {
            let mut pair = [pair[0].clone(), pair.get(1).cloned().unwrap_or_default()];
            pair.sort_unstable();
            pair
        })
        .collect()
}

fn virtual_routers_and_groups_in_order_and_once() {
    let place = Place::new("routers");
    // What takes longest begins first: an order by luck would be another.
    place.script(
        "run",
        "case \"$*\" in *backup|*BACKUP*) sleep 0.1;; esac; echo \"$*\" >>\"${0%/*}/out\"",
    );
    place.script("reader", "exec cat \"$1\" >>\"${0%/*}/fifo.out\"");
    fs::write(place.0.join("load"), "0").unwrap();
    let stage = Stage::nat(1);
    let global = "global_defs {\n script_user root\n vrrp_version 3\n vrrp_notify_fifo DIR/fifo\n \
         vrrp_notify_fifo_script DIR/reader\n}\ntrack_file load {\n file DIR/load\n}\n";
    let group = format!(
        "vrrp_sync_group G {{\n group {{\n  A\n  B\n }}\n{}}}\n",
        scripts("G", &[])
    );
    let kept = [
        global.to_owned(),
        instance("A", "ext0", 61, &scripts("A", &[])),
        instance("B", "int0", 62, &scripts("B", &[])),
        group,
    ]
    .concat();
    let tracked = " notify_priority_changes\n track_file {\n  load\n }\n";
    let leaving = [
        instance("C", "ext0", 63, &(scripts("C", &["deleted"]) + tracked)),
        instance("D", "ext0", 64, &scripts("D", &[])),
    ]
    .concat();
    let director = Director::start(&stage, &place.fill(&(kept.clone() + &leaving)), 1);
    let wait = |name: &str, count: usize| {
        director.wait_until(&format!("{count} calls of {name}"), || {
            calls(&place, name).len() >= count
        });
    };
    let link = |state: &str| {
        let mut ip = stage.director.command("/usr/sbin/ip").unwrap();
        let status = ip.args(["link", "set", "int0", state]).status().unwrap();
        assert!(status.success());
    };
    for name in ["A", "B", "G", "C", "D"] {
        wait(name, 4);
    }
    fs::write(place.0.join("load"), "-10\n").unwrap();
    director.wait_until("the lower priority", || {
        place
            .read("fifo.out")
            .contains("\"C\" MASTER_PRIORITY 140\n")
    });
    link("down");
    ["A", "B", "G"].iter().for_each(|name| wait(name, 6));
    link("up");
    ["A", "B", "G"].iter().for_each(|name| wait(name, 10));
    director.reload(&place.fill(&kept));
    ["C", "D"].iter().for_each(|name| wait(name, 6));
    director.wait_for_log("reload done");
    director.terminate();

    let life = |priority| {
        [
            ("backup", "BACKUP", priority),
            ("master", "MASTER", priority),
            ("fault", "FAULT", priority),
            ("backup", "BACKUP", priority),
            ("master", "MASTER", priority),
            ("stop", "STOP", priority),
        ]
    };
    for (kind, name, priority) in [
        ("INSTANCE", "A", 150),
        ("INSTANCE", "B", 150),
        ("GROUP", "G", 0),
    ] {
        let calls = calls(&place, name);
        assert_eq!(in_pairs(&calls), expected(kind, name, &life(priority)));
    }
    let begin = [("backup", "BACKUP", 150), ("master", "MASTER", 150)];
    for (name, end) in [
        ("C", ("deleted", "DELETED", 140)),
        // Nobody asked to be told of its removal as such.
        ("D", ("fault", "FAULT", 150)),
    ] {
        let changes = [&begin[..], &[end]].concat();
        assert_eq!(
            in_pairs(&calls(&place, name)),
            expected("INSTANCE", name, &changes)
        );
    }
    assert_eq!(place.read("out").lines().count(), 3 * 12 + 2 * 6);

    // Byte by byte: whole lines, each once, in the order of what happened to the object.
    let piped = place.read("fifo.out");
    let of = |object: &str| -> String {
        let lines = piped.split_inclusive('\n');
        lines
            .filter(|line| line.contains(&format!("\"{object}\"")))
            .collect()
    };
    let lines = |kind: &str, name: &str, changes: &[(&str, &str, u8)]| -> String {
        let line = |(_, word, priority): &(&str, &str, u8)| {
            format!("{kind} \"{name}\" {word} {priority}\n")
        };
        changes.iter().map(line).collect()
    };
    assert_eq!(of("A"), lines("INSTANCE", "A", &life(150)));
    assert_eq!(of("B"), lines("INSTANCE", "B", &life(150)));
    assert_eq!(of("G"), lines("GROUP", "G", &life(0)));
    assert_eq!(
        of("C"),
        "INSTANCE \"C\" BACKUP 150\nINSTANCE \"C\" MASTER 150\nINSTANCE \"C\" MASTER_PRIORITY 140\nINSTANCE \"C\" DELETED 140\n"
    );
    assert_eq!(
        of("D"),
        "INSTANCE \"D\" BACKUP 150\nINSTANCE \"D\" MASTER 150\nINSTANCE \"D\" FAULT 150\n"
    );
    assert_eq!(piped.lines().count(), 3 * 6 + 4 + 3, "{piped}");
}

/// A mail server in a namespace that keeps the subjects of what it takes.
struct MailServer {
    process: Child,
    port: String,
    subjects: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    fn start(namespace: &Namespace) -> Option<Self> {
        let mut command = namespace.command("/usr/bin/python3").unwrap();
        command
            .args(["-u", "-c", MAIL_SERVER])
            .stdin(Stdio::piped());
        let started = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = started.ok()?;
        let mut lines = BufReader::new(process.stdout.take()?).lines();
        let Some(Ok(port)) = lines.next() else {
            let _ = process.wait();
            let message = "skipped: no /usr/bin/python3 with aiosmtpd";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
            println!("{message}");
            return None;
        };
        let subjects = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&subjects);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Some(Self {
            process,
            port,
            subjects,
        })
    }

    /// One connection a mail: those of one moment may overtake each other.
    fn sorted(&self) -> Vec<String> {
        let mut subjects = self.subjects.lock().unwrap().clone();
        subjects.sort_unstable();
        subjects
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const MAIL_SERVER: &str = "
import asyncio, sys
from email import message_from_bytes
from aiosmtpd.smtp import SMTP
class Taker:
    async def handle_DATA(self, server, session, envelope):
        mail = message_from_bytes(envelope.content)
        print(envelope.mail_from, ','.join(envelope.rcpt_tos), mail['Subject'])
        return '250 taken'
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Taker()), '127.0.0.1', 0)
    print(server.sockets[0].getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)
asyncio.run(main())
";

fn mails_reach_a_real_server() {
    let mut stage = Stage::nat(2);
    let Some(mail_server) = MailServer::start(&stage.director) else {
        return;
    };
    let mut conf = Conf::nat(2);
    conf.extra = format!(
        "global_defs {{\n router_id lvs1\n smtp_server 127.0.0.1 {}\n smtp_connect_timeout 5\n smtp_alert\n \
         notification_email_from lvs@example.org\n notification_email {{\n  a@example.org\n  b@example.org\n }}\n}}\n",
        mail_server.port
    );
    let text = conf
        .text()
        .replace("lb_kind NAT\n", "lb_kind NAT\n omega\n");
    let director = Director::start(&stage, &text, 1);
    let mut expected = Vec::new();
    let mut wait = |subjects: &[&str]| {
        let mail = |subject: &&str| {
            format!("lvs@example.org a@example.org,b@example.org [lvs1] {subject}")
        };
        expected.extend(subjects.iter().map(mail));
        expected.sort_unstable();
        director.wait_until("the mails", || mail_server.sorted().len() >= expected.len());
        assert_eq!(mail_server.sorted(), expected, "{}", director.log());
    };
    let first = "Realserver [10.1.0.11]:tcp:80 of virtual server [198.51.100.100]:tcp:80";
    let second = first.replace("0.11", "0.12");
    let service = "Virtualserver [198.51.100.100]:tcp:80";
    wait(&[
        "VRRP Instance VI_1 - Entering MASTER state",
        &format!("{service} - UP"),
    ]);
    stage.servers[0].1.stop();
    wait(&[&format!("{first} - DOWN")]);
    stage.servers[1].1.stop();
    wait(&[&format!("{second} - DOWN"), &format!("{service} - DOWN")]);
    stage.restart(0);
    wait(&[&format!("{first} - UP"), &format!("{service} - UP")]);
    // What is told at the end arrives, which the original's does not.
    let log = director.terminate();
    assert!(log.success());
    let last = [
        "VRRP Instance VI_1 - Stopping".to_owned(),
        format!("{first} - DOWN"),
        format!("{service} - DOWN"),
    ];
    let mail =
        |subject: &String| format!("lvs@example.org a@example.org,b@example.org [lvs1] {subject}");
    expected.extend(last.iter().map(mail));
    expected.sort_unstable();
    assert_eq!(mail_server.sorted(), expected);
}

fn vrrp_alone_tells_as_much() {
    let place = Place::new("alone");
    place.script("run", "echo \"$*\" >>\"${0%/*}/out\"");
    place.script("reader", "exec cat \"$1\" >>\"${0%/*}/lines\"");
    let stage = Stage::nat(1);
    let text = place.fill(
        "global_defs {\n script_user root\n notify_fifo DIR/fifo\n notify_fifo_script DIR/reader\n startup_script \"DIR/run startup\"\n \
         shutdown_script \"DIR/run shutdown\"\n}\n\
         vrrp_instance VI_1 {\n interface ext0\n virtual_router_id 51\n priority 255\n virtual_ipaddress {\n  198.51.100.100/24\n }\n \
         notify_master \"DIR/run master\"\n notify_stop \"DIR/run stop\"\n}\n",
    );
    let (file, pid) = (place.0.join("k.conf"), place.0.join("pid"));
    fs::write(&file, &text).unwrap();
    let socket = UnixDatagram::bind(place.0.join("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut command = stage
        .director
        .command(env!("CARGO_BIN_EXE_director"))
        .unwrap();
    command
        .env("NOTIFY_SOCKET", place.0.join("notify"))
        .args(["-P", "-n", "-l", "-p"])
        .arg(&pid)
        .arg("-f")
        .arg(&file);
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let wait = |what: &str, holds: &dyn Fn() -> bool| {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < end, "no {what}: {}", place.read("out"));
            thread::sleep(Duration::from_millis(10));
        }
    };
    wait("master", &|| place.read("out") == "startup\nmaster\n");
    let signal = |signal| {
        let number = i32::try_from(child.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(number).unwrap(), signal)
            .unwrap();
    };
    assert_eq!(next(), "READY=1");
    // A file with a mistake, one that is written by half, and a good one.
    let mistake = text.replace("priority 255", "priority 999");
    let half = text[..text.len() - 2].to_owned();
    for text in [mistake, half, text.replace("run stop", "run halt")] {
        fs::write(&file, text).unwrap();
        signal(rustix::process::Signal::HUP);
        assert!(next().starts_with("RELOADING=1"));
        assert_eq!(next(), "READY=1");
    }
    assert_eq!(place.read("pid"), format!("{}\n", child.id()));
    signal(rustix::process::Signal::TERM);
    assert!(child.wait().unwrap().success());
    assert_eq!(place.read("out"), "startup\nmaster\nhalt\nshutdown\n");
    assert_eq!(
        place.read("lines"),
        "INSTANCE \"VI_1\" MASTER 255\nINSTANCE \"VI_1\" STOP 255\n"
    );
    assert!(!pid.exists());
}

fn one_runner_runs_all_as_their_users() {
    let stage = Stage::nat(1);
    let mut other = stage.director.command("/usr/bin/setpriv").unwrap();
    other.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "true",
    ]);
    if !other
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("skipped: there is no other user in this namespace");
        return;
    }
    let place = Place::new("users");
    fs::write(place.0.join("out"), "").unwrap();
    fs::set_permissions(place.0.join("out"), fs::Permissions::from_mode(0o666)).unwrap();
    // No interpreter's line: all of them go to the shell, which only one runner does for them.
    let text = "echo \"$1 $(id -u) $(id -g) $(id -G) $(ulimit -n)\" >>\"${0%/*}/out\"\n";
    fs::write(place.0.join("run"), text).unwrap();
    fs::set_permissions(place.0.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    let global = "global_defs {\n script_user nobody nogroup\n enable_script_security\n}\n\
                  vrrp_script look {\n script \"DIR/run tracked\"\n interval 100\n}\n";
    let text = place.fill(
        &(global.to_owned() + &Conf::nat(1).text())
            .replace(
                "priority 255\n",
                "priority 255\n track_script {\n  look\n }\n notify_master \"DIR/run notified\"\n",
            )
            .replace(
                "weight 1\n",
                "weight 1\n MISC_CHECK {\n  misc_path \"DIR/run checked\"\n  delay_loop 100\n  warmup 0\n }\n",
            ),
    );
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let director = Director::start(&stage, &text, 1);
    director.wait_until("three scripts", || place.read("out").lines().count() >= 3);
    let out = place.read("out");
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    // The director's own limit of descriptors, which it raises, is not for scripts.
    let facts = format!("65534 65534 65534 {}", limit.unwrap());
    let expected = ["checked", "notified", "tracked"].map(|word| format!("{word} {facts}"));
    assert_eq!(lines, expected);
}
