//! Real scripts, real pipes with real readers, a real mail server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use lvs_conf::Config;

use super::event::tests::{config, vrrp};
use super::event::{
    Cause, CheckEvent, QuorumEvent, ServerEvent, ServiceName, VrrpChange, VrrpKind,
};
use super::place::Place;
use super::scripts::{Limits, Policy, Runner};
use super::*;

/// The configuration of this text, in which `DIR` is the place. The scripts run as whoever runs the test.
fn config_at(place: &Place, text: &str) -> Config {
    let text = text.replace("DIR", &place.0.display().to_string());
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .unwrap();
    config(&format!(
        "global_defs {{\n script_user {}\n}}\n{text}",
        own.name
    ))
}

fn actions(config: &Config) -> Actions {
    let actions = Actions::new(config, &Policy::new(&config.global));
    let left_out = actions
        .remarks
        .iter()
        .find(|remark| remark.contains("left out"));
    assert_eq!(left_out, None);
    actions
}

fn start(config: &Config) -> Notifier {
    start_with(config, tokio::sync::broadcast::channel(16).0)
}

fn start_with(config: &Config, events: crate::control::events::Events) -> Notifier {
    let runner = Runner::start(Limits::default()).unwrap();
    Notifier::start(runner, actions(config), events)
}

fn instance(change: VrrpChange, priority: u8) -> Event {
    vrrp(VrrpKind::Instance, "VI_1", change, priority)
}

fn server(service: &ServiceName, addr: &str, is_up: bool, cause: Cause) -> Event {
    Event::Server(ServerEvent {
        service: service.clone(),
        server: addr.parse().unwrap(),
        is_up,
        cause,
    })
}

fn quorum(service: &ServiceName, is_up: bool) -> Event {
    Event::Quorum(QuorumEvent {
        service: service.clone(),
        is_up,
        cause: Cause::Checks,
        sum: u64::from(is_up),
        threshold: 1,
    })
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "it did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const INSTANCE: &str = "vrrp_instance VI_1 {\n interface eth0\n virtual_router_id 1\n priority 150\n \
    virtual_ipaddress {\n  192.0.2.1\n }\n NOTIFY\n}\n";

#[tokio::test]
async fn scripts_of_an_instance_run_once_each_with_keepalived_arguments_in_the_order_of_events() {
    let place = Place::new();
    // What takes longest begins first: an order by luck would be another.
    place.script(
        "run",
        "case $2 in MASTER|\"\") sleep 0.2;; esac; echo \"$# $*\" >>\"${0%/*}/out\"",
    );
    let text = INSTANCE.replace(
        "NOTIFY",
        "notify_master \"DIR/run m 'two words'\"\n notify_backup \"DIR/run b\"\n notify_fault DIR/run\n \
         notify_stop \"DIR/run s\"\n notify_master_rx_lower_pri \"DIR/run l\"\n notify \"DIR/run n\"",
    );
    let notifier = start(&config_at(&place, &text));
    for (change, priority) in [
        (VrrpChange::Master, 150),
        (VrrpChange::LowerPriorityHeard, 150),
        (VrrpChange::Fault, 140),
        (VrrpChange::Backup, 140),
        (VrrpChange::BackupPriority, 130),
        (VrrpChange::Stop, 130),
    ] {
        notifier.tell(instance(change, priority));
    }
    until(|| place.read("out").contains("STOP")).await;
    notifier.stop().await;
    let out = place.read("out");
    let lines: Vec<&str> = out.lines().collect();
    // The two of one event may end in any order.
    let events: Vec<Vec<&str>> = [0..2, 2..3, 3..5, 5..7, 7..9]
        .into_iter()
        .map(|range| {
            let mut both = lines[range].to_vec();
            both.sort_unstable();
            both
        })
        .collect();
    assert_eq!(
        events,
        [
            vec!["2 m two words", "5 n INSTANCE VI_1 MASTER 150"],
            vec!["1 l"],
            vec!["0 ", "5 n INSTANCE VI_1 FAULT 140"],
            vec!["1 b", "5 n INSTANCE VI_1 BACKUP 140"],
            vec!["1 s", "5 n INSTANCE VI_1 STOP 130"],
        ]
    );
    assert_eq!(lines.len(), 9);
}

#[tokio::test]
async fn stop_scripts_run_though_an_older_one_hangs_and_get_a_second() {
    let place = Place::new();
    place.script("hang", "echo hang >>\"${0%/*}/out\"; sleep 600");
    place.script("stop", "sleep 0.3; echo stopped >>\"${0%/*}/out\"");
    let text = INSTANCE.replace("NOTIFY", "notify_master DIR/hang\n notify_stop DIR/stop");
    let notifier = start(&config_at(&place, &text));
    notifier.tell(instance(VrrpChange::Master, 1));
    until(|| !place.read("out").is_empty()).await;
    notifier.tell(instance(VrrpChange::Stop, 1));
    let begun = Instant::now();
    notifier.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(place.read("out"), "hang\nstopped\n");
}

const SERVICE: &str = "virtual_server 10.9.9.9 80 {\n protocol TCP\n quorum_up \"DIR/run qu\"\n quorum_down \"DIR/run qd\"\n \
    real_server 10.0.0.1 8080 {\n  notify_up \"DIR/run up\"\n  notify_down \"DIR/run down\"\n }\n \
    real_server 10.0.0.2 8080 {\n }\n}\n";

#[tokio::test]
async fn scripts_of_servers_and_quorum_get_what_is_configured_and_nothing_more() {
    let place = Place::new();
    place.script("run", "echo \"$# $*\" >>\"${0%/*}/out.$1\"");
    let config = config_at(&place, SERVICE);
    let name = &ServiceName::all(&config)[0];
    let notifier = start(&config);
    for is_up in [false, true, false] {
        notifier.tell(server(name, "10.0.0.1:8080", is_up, Cause::Checks));
        notifier.tell(server(name, "10.0.0.2:8080", is_up, Cause::Checks));
        notifier.tell(quorum(name, is_up));
    }
    notifier.tell(server(name, "10.0.0.3:8080", true, Cause::Checks));
    notifier.stop().await;
    for (words, times) in [("down", 2), ("up", 1), ("qd", 2), ("qu", 1)] {
        let expected = format!("1 {words}\n").repeat(times);
        assert_eq!(place.read(&format!("out.{words}")), expected);
    }
}

#[tokio::test]
async fn pipes_get_the_lines_of_their_part_and_their_readers_the_name() {
    let place = Place::new();
    place.script("reader", "echo \"$*\" >\"${0%/*}/$1.name\"; while read -r line; do echo \"$line\" >>\"${0%/*}/$1.out\"; done <\"$2\"");
    let global = "global_defs {\n notify_fifo DIR/all\n notify_fifo_script \"DIR/reader all\"\n vrrp_notify_fifo DIR/vrrp\n \
        vrrp_notify_fifo_script \"DIR/reader vrrp\"\n lvs_notify_fifo DIR/lvs\n lvs_notify_fifo_script \"DIR/reader lvs\"\n}\n";
    let router = INSTANCE.replace("NOTIFY", "notify_priority_changes");
    let services = SERVICE
        .replace("notify_up \"DIR/run up\"", "")
        .replace("notify_down \"DIR/run down\"", "");
    let services = services
        .replace("quorum_up \"DIR/run qu\"", "")
        .replace("quorum_down \"DIR/run qd\"", "");
    let config = config_at(&place, &format!("{global}{router}{services}"));
    let name = &ServiceName::all(&config)[0];
    let (events, mut heard) = tokio::sync::broadcast::channel(16);
    let notifier = start_with(&config, events);
    // The sequence that keepalived writes in such a case.
    for (change, priority) in [
        (VrrpChange::Backup, 150),
        (VrrpChange::Master, 150),
        (VrrpChange::MasterPriority, 140),
        (VrrpChange::LowerPriorityHeard, 140),
        (VrrpChange::Fault, 140),
    ] {
        notifier.tell(instance(change, priority));
    }
    notifier.tell(server(name, "10.0.0.1:8080", false, Cause::Checks));
    notifier.tell(quorum(name, false));
    notifier.tell(instance(VrrpChange::Stop, 140));
    let vrrp = "INSTANCE \"VI_1\" BACKUP 150\nINSTANCE \"VI_1\" MASTER 150\nINSTANCE \"VI_1\" MASTER_PRIORITY 140\n\
        INSTANCE \"VI_1\" MASTER_RX_LOWER_PRI 140\nINSTANCE \"VI_1\" FAULT 140\n";
    let lvs = "RS [10.0.0.1]:tcp:8080 [10.9.9.9]:tcp:80 DOWN\nVS [10.9.9.9]:tcp:80 DOWN\n";
    let stop = "INSTANCE \"VI_1\" STOP 140\n";
    until(|| place.read("all.out").ends_with(stop) && place.read("lvs.out").len() == lvs.len())
        .await;
    assert_eq!(place.read("all.out"), format!("{vrrp}{lvs}{stop}"));
    assert_eq!(place.read("lvs.out"), lvs);
    until(|| place.read("vrrp.out").ends_with(stop)).await;
    assert_eq!(place.read("vrrp.out"), format!("{vrrp}{stop}"));
    assert_eq!(
        place.read("all.name"),
        format!("all {}\n", place.path("all"))
    );
    assert!(matches!(*heard.recv().await.unwrap(), Event::Vrrp(_)));
    notifier.stop().await;
    assert!(!place.0.join("all").exists());
}

#[tokio::test]
async fn a_reload_keeps_pipes_and_readers_and_repeats_states_if_asked() {
    let place = Place::new();
    place.script(
        "reader",
        "echo begun >>\"${0%/*}/begun\"; cat \"$1\" >>\"${0%/*}/out\"",
    );
    let global = "global_defs {\n notify_fifo DIR/all\n notify_fifo_script DIR/reader\n fifo_write_vrrp_states_on_reload\n}\n";
    let config = config_at(
        &place,
        &format!("{global}{}", INSTANCE.replace("NOTIFY", "")),
    );
    let notifier = start(&config);
    notifier.tell(instance(VrrpChange::Master, 150));
    until(|| !place.read("begun").is_empty()).await;
    notifier.configure(actions(&config));
    until(|| place.read("out").lines().count() == 2).await;
    assert_eq!(
        place.read("out"),
        "INSTANCE \"VI_1\" MASTER 150\n".repeat(2)
    );
    assert_eq!(place.read("begun"), "begun\n");
    notifier.stop().await;
}

#[tokio::test]
async fn what_a_reload_removes_is_told_as_the_former_configuration_wants() {
    let place = Place::new();
    place.script("run", "echo \"$*\" >>\"${0%/*}/out\"");
    let before = config_at(
        &place,
        &format!(
            "{}{SERVICE}",
            INSTANCE.replace("NOTIFY", "notify_deleted \"DIR/run gone\"")
        ),
    );
    let name = &ServiceName::all(&before)[0];
    let notifier = start(&before);
    notifier.configure(actions(&config_at(&place, "")));
    notifier.tell(server(name, "10.0.0.1:8080", false, Cause::Removal));
    until(|| place.read("out").lines().count() == 1).await;
    notifier.tell(instance(VrrpChange::Deleted, 150));
    until(|| place.read("out").lines().count() == 2).await;
    assert_eq!(place.read("out"), "down\ngone\n");
    notifier.stop().await;
}

#[test]
fn scripts_that_cannot_be_run_are_said_and_left_out() {
    let place = Place::new();
    let text = INSTANCE.replace(
        "NOTIFY",
        "notify_master DIR/gone\n notify DIR/gone no-such-user",
    );
    let config = config_at(&place, &text);
    let actions = Actions::new(&config, &Policy::new(&config.global));
    let gone = place.path("gone");
    assert!(
        actions.remarks.contains(&format!(
            "vrrp_instance VI_1: notify_master is left out: {gone} can't be used: entity not found"
        )),
        "{:?}",
        actions.remarks
    );
    let (_, scripts) = actions.scripts(&instance(VrrpChange::Master, 1)).unwrap();
    assert_eq!(scripts, []);
}

/// A mail server on loopback that prints what it takes.
struct MailServer {
    process: Child,
    port: u16,
    mails: std::sync::mpsc::Receiver<String>,
}

impl MailServer {
    fn start() -> Option<Self> {
        let started = Process::new("/usr/bin/python3")
            .args(["-u", "-c", MAIL_SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let begun = started.ok().and_then(|mut process| {
            let mut output = BufReader::new(process.stdout.take()?);
            let mut line = String::new();
            output.read_line(&mut line).ok()?;
            let port = line.trim().parse().ok();
            if port.is_none() {
                let _ = process.wait();
            }
            let (sender, mails) = std::sync::mpsc::channel();
            let port = port?;
            std::thread::spawn(move || {
                for line in output.lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
            Some(Self {
                process,
                port,
                mails,
            })
        });
        if begun.is_none() {
            let message = "skipped: no /usr/bin/python3 with aiosmtpd";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
            eprintln!("{message}");
        }
        begun
    }

    async fn mail(&self) -> String {
        let mut mail = None;
        until(|| {
            mail = self.mails.try_recv().ok();
            mail.is_some()
        })
        .await;
        mail.unwrap()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One line a mail: sender, recipients, and the text with `|` between its lines.
const MAIL_SERVER: &str = "
import asyncio, sys
from aiosmtpd.smtp import SMTP
class Taker:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith('nobody@'):
            return '550 no such mailbox'
        envelope.rcpt_tos.append(address)
        return '250 ok'
    async def handle_DATA(self, server, session, envelope):
        text = envelope.content.decode().replace('\\r\\n', '|')
        print(session.host_name, envelope.mail_from, ','.join(envelope.rcpt_tos), text)
        return '250 taken'
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Taker()), '127.0.0.1', 0)
    print(server.sockets[0].getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)
asyncio.run(main())
";

fn mail_settings(port: u16, more: &str) -> String {
    format!(
        "global_defs {{\n router_id r1\n smtp_server 127.0.0.1 {port}\n smtp_helo_name lvs1\n smtp_connect_timeout 2\n \
         notification_email_from lvs@example.org\n notification_email {{\n  ops@example.org\n  \"Ops, Two <two@example.org>\"\n }}\n {more}\n}}\n"
    )
}

#[tokio::test]
async fn mails_say_what_keepalived_says() {
    let Some(mail_server) = MailServer::start() else {
        return;
    };
    let place = Place::new();
    let services = "virtual_server 10.9.9.9 80 {\n protocol TCP\n smtp_alert\n quorum 2\n hysteresis 1\n \
        real_server 10.0.0.1 8080 {\n }\n real_server 10.0.0.2 8080 {\n  smtp_alert false\n }\n}\n";
    let router = INSTANCE.replace("NOTIFY", "smtp_alert");
    let config = config_at(
        &place,
        &format!(
            "{}{router}{services}",
            mail_settings(mail_server.port, "no_email_faults\n no_checker_emails")
        ),
    );
    let name = &ServiceName::all(&config)[0];
    let notifier = start(&config);
    let envelope = "lvs1 lvs@example.org ops@example.org,two@example.org";
    let expect = |mail: String, subject: &str, body: &str| {
        let (before, after) = mail.split_once("Date: ").unwrap();
        assert_eq!(before.trim_end(), envelope);
        let (_, after) = after.split_once('|').unwrap();
        assert_eq!(
            after,
            format!(
                "From: lvs@example.org|Subject: [r1] {subject}|X-Mailer: Keepalived|\
                 To: ops@example.org, \"Ops, Two\" <two@example.org>||=> {body} <=||"
            )
        );
    };
    // The same state once more, and a fault, are not mailed.
    for change in [VrrpChange::Master, VrrpChange::Master, VrrpChange::Fault] {
        notifier.tell(instance(change, 150));
    }
    expect(
        mail_server.mail().await,
        "VRRP Instance VI_1 - Entering MASTER state",
        "VRRP Instance is now owning VRRP VIPs",
    );
    notifier.tell(instance(VrrpChange::Backup, 150));
    expect(
        mail_server.mail().await,
        "VRRP Instance VI_1 - Entering BACKUP state",
        "VRRP Instance is no longer owning VRRP VIPs",
    );
    let check = |addr: &str, is_change| {
        Event::Check(CheckEvent {
            service: name.clone(),
            server: addr.parse().unwrap(),
            finding: "TCP_CHECK failed: connection refused".to_owned(),
            is_up: false,
            is_change,
        })
    };
    notifier.tell(check("10.0.0.1:8080", false));
    notifier.tell(check("10.0.0.2:8080", true));
    notifier.tell(check("10.0.0.1:8080", true));
    expect(
        mail_server.mail().await,
        "Realserver [10.0.0.1]:tcp:8080 of virtual server [10.9.9.9]:tcp:80 - DOWN",
        "TCP_CHECK failed: connection refused",
    );
    notifier.tell(quorum(name, true));
    expect(
        mail_server.mail().await,
        "Virtualserver [10.9.9.9]:tcp:80 - UP",
        "quorum gained: 2+1=1 <= 1",
    );
    // What is told last still arrives, which the original's does not.
    notifier.tell(instance(VrrpChange::Stop, 150));
    notifier.stop().await;
    expect(
        mail_server.mail().await,
        "VRRP Instance VI_1 - Stopping",
        "VRRP Instance stopping",
    );
    assert!(mail_server.mails.try_recv().is_err());
}

#[tokio::test]
async fn mail_servers_that_refuse_or_are_absent_hold_nobody_up() {
    let Some(mail_server) = MailServer::start() else {
        return;
    };
    let message = |port: u16, to: &str| {
        let text = format!(
            "global_defs {{\n smtp_server 127.0.0.1 {port}\n smtp_connect_timeout 1\n notification_email {{\n {to}\n }}\n}}\n"
        );
        let global = config(&text).global;
        let settings = mail::Settings::new(&global.mail, None).unwrap();
        let message = settings.message("s", "b");
        (settings, message)
    };
    let (settings, refused) = message(mail_server.port, "nobody@example.org");
    let error = mail::send(&settings, &refused).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the mail server refuses RCPT TO: 550 no such mailbox"
    );
    // Bound and never accepting: the kernel completes the handshake, nobody speaks.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (settings, mail) = message(silent.local_addr().unwrap().port(), "a@example.org");
    let error = mail::send(&settings, &mail).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the mail server does not answer the connection in time"
    );
    // Bound and not listening: the port is nobody else's, and refused.
    let deaf = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    );
    let deaf = deaf.unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    rustix::net::bind(&deaf, &any).unwrap();
    let bound = rustix::net::getsockname(&deaf).unwrap();
    let port = std::net::SocketAddr::try_from(bound).unwrap().port();
    let (settings, mail) = message(port, "a@example.org");
    assert!(matches!(
        mail::send(&settings, &mail).await,
        Err(mail::SendError::Connect(_))
    ));
}
