use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use super::*;
use crate::notify::place::Place;

fn shell(text: &str, arguments: &[&str]) -> Command {
    let words = ["-c", text, "sh"]
        .into_iter()
        .chain(arguments.iter().copied());
    Command {
        program: "/bin/sh".into(),
        arguments: words.map(OsString::from).collect(),
        account: None,
    }
}

fn quick() -> Limits {
    Limits {
        patience: Duration::from_millis(200),
        farewell: Duration::from_millis(400),
        ..Limits::default()
    }
}

fn run(runner: &Runner, command: Command, limit: Option<Duration>) -> (Ticket, Receiver<Ended>) {
    let (sender, receiver) = channel();
    let ticket = runner.run(Purpose::Check, command, limit, move |ended| {
        sender.send(ended).unwrap();
    });
    (ticket, receiver)
}

fn wait(receiver: &Receiver<Ended>) -> Ended {
    receiver.recv_timeout(Duration::from_secs(20)).unwrap()
}

fn ended(exit: Exit) -> Ended {
    Ended {
        exit,
        was_stopped: false,
    }
}

/// Polls: what is waited for happens in another process.
fn until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "it did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_alive(pid: &str) -> bool {
    // A zombie of somebody else's is dead enough.
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z"))
}

#[test]
fn status_and_signal_are_told() {
    let runner = Runner::start(quick()).unwrap();
    for (text, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 255", Exit::Code(255)),
        ("kill -9 $$", Exit::Signal(9)),
    ] {
        let (_, receiver) = run(&runner, shell(text, &[]), None);
        assert_eq!(wait(&receiver), ended(exit), "{text}");
    }
}

#[test]
fn what_cannot_be_executed_says_so_and_is_no_success() {
    let place = Place::new();
    let runner = Runner::start(quick()).unwrap();
    let plain = place.path("plain");
    fs::write(&plain, "exit 0\n").unwrap();
    for (program, error) in [
        (place.path("gone"), Errno::NOENT),
        (plain, Errno::ACCESS),
        ("/bin/\0".to_owned(), Errno::INVAL),
    ] {
        let command = Command {
            program: program.into(),
            arguments: Vec::new(),
            account: None,
        };
        let (_, receiver) = run(&runner, command, None);
        assert_eq!(wait(&receiver), ended(Exit::NotStarted(error)));
    }
}

#[test]
fn a_text_without_interpreter_line_goes_to_the_shell() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let text = place.path("text");
    fs::write(&text, "exit \"$1\"\n").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
    let runner = Runner::start(quick()).unwrap();
    let command = Command {
        program: text.into(),
        arguments: vec!["7".into()],
        account: None,
    };
    let (_, receiver) = run(&runner, command, None);
    assert_eq!(wait(&receiver), ended(Exit::Code(7)));
}

#[test]
fn a_program_gets_its_own_group_null_streams_and_no_descriptor_more() {
    let place = Place::new();
    let runner = Runner::start(quick()).unwrap();
    // Without close-on-exec, as a descriptor that the director was started with.
    let inherited = rustix::pipe::pipe().unwrap();
    let text = "ps_group=$(cut -d' ' -f5 /proc/$$/stat); [ \"$ps_group\" = $$ ] && echo own-group >>\"$1\"; \
                ls -l /proc/$$/fd | sed -n 's/.*\\([0-9][0-9]* -> .*\\)/\\1/p' >>\"$1\"; echo \"$2|$IFS|$LD_PRELOAD\" >>\"$1\"";
    let (_, receiver) = run(
        &runner,
        shell(text, &[&place.path("out"), "two words"]),
        None,
    );
    assert_eq!(wait(&receiver), ended(Exit::Code(0)));
    drop(inherited);
    assert_eq!(
        place.read("out"),
        "own-group\n0 -> /dev/null\n1 -> /dev/null\n2 -> /dev/null\ntwo words| \t\n|\n"
    );
}

#[test]
fn another_account_is_taken_on_whole() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let place = Place::new();
    let out = place.path("out");
    fs::write(&out, "").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&out, fs::Permissions::from_mode(0o666)).unwrap();
    let runner = Runner::start(quick()).unwrap();
    let text = "sed -n 's/^\\(Uid\\|Gid\\|Groups\\|SigIgn\\):[ \\t]*//p' /proc/$$/status >\"$1\"";
    let mut command = shell(text, &[&out]);
    command.account = Some(Account {
        uid: 12345,
        gid: 23456,
        groups: vec![7, 8],
    });
    let (_, receiver) = run(&runner, command.clone(), None);
    let outcome = wait(&receiver);
    if outcome.exit == Exit::NotStarted(Errno::PERM)
        || outcome.exit == Exit::NotStarted(Errno::INVAL)
    {
        eprintln!("skipped: this namespace has no other users");
        return;
    }
    assert_eq!(outcome, ended(Exit::Code(0)));
    let facts = place.read("out");
    let mut lines = facts
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["12345"; 4]);
    assert_eq!(lines.next().unwrap(), ["23456"; 4]);
    assert_eq!(lines.next().unwrap(), ["7", "8"]);
    // The C library keeps two signals for itself.
    let ignored = u64::from_str_radix(lines.next().unwrap()[0], 16).unwrap();
    assert_eq!(ignored & !(0b11 << 31), 0);
}

#[test]
fn what_addresses_hang_on_does_not_wait_for_checks() {
    let limits = Limits {
        checks: 1,
        ..quick()
    };
    let runner = Runner::start(limits).unwrap();
    let (hanging, first) = run(&runner, shell("sleep 600", &[]), None);
    let (_, second) = run(&runner, shell("exit 0", &[]), None);
    let (sender, tracking) = channel();
    let _ = runner.run(
        Purpose::Tracking,
        shell("exit 3", &[]),
        None,
        move |ended| {
            sender.send(ended).unwrap();
        },
    );
    assert_eq!(wait(&tracking), ended(Exit::Code(3)));
    assert!(second.try_recv().is_err(), "only one check runs at a time");
    hanging.terminate();
    assert!(wait(&first).was_stopped);
    assert_eq!(wait(&second), ended(Exit::Code(0)));
}

#[test]
fn a_limit_ends_the_whole_group() {
    let place = Place::new();
    let runner = Runner::start(quick()).unwrap();
    // The child of the script ignores SIGTERM and would outlive it.
    let text = "(trap '' TERM; echo $$ >/dev/null; sh -c 'echo $PPID >\"$0\"; exec sleep 600' \"$1\") & sleep 600";
    let (_, receiver) = run(
        &runner,
        shell(text, &[&place.path("pid")]),
        Some(Duration::from_millis(300)),
    );
    until(|| place.read("pid").ends_with('\n'));
    let child = place.read("pid");
    assert_eq!(
        wait(&receiver),
        Ended {
            exit: Exit::Signal(15),
            was_stopped: true,
        }
    );
    until(|| !is_alive(&child));
}

#[test]
fn what_ignores_the_request_is_killed_and_what_obeys_is_judged_by_its_status() {
    let place = Place::new();
    let runner = Runner::start(quick()).unwrap();
    let (stubborn, stubborn_end) = run(
        &runner,
        shell(
            "trap '' TERM; echo >\"$1\"; while :; do sleep 1; done",
            &[&place.path("a")],
        ),
        None,
    );
    let (obedient, obedient_end) = run(
        &runner,
        shell(
            "trap 'exit 0' TERM; echo >\"$1\"; while :; do sleep 0.05; done",
            &[&place.path("b")],
        ),
        None,
    );
    until(|| !place.read("a").is_empty() && !place.read("b").is_empty());
    stubborn.terminate();
    obedient.terminate();
    let stopped = |exit| Ended {
        exit,
        was_stopped: true,
    };
    assert_eq!(wait(&obedient_end), stopped(Exit::Code(0)));
    assert_eq!(wait(&stubborn_end), stopped(Exit::Signal(9)));
    // An end is told once.
    stubborn.kill();
    assert!(stubborn_end.recv().is_err());
}

#[test]
fn only_so_many_checks_run_at_once_and_notifications_do_not_wait_for_them() {
    let place = Place::new();
    let runner = Runner::start(Limits {
        checks: 2,
        ..quick()
    })
    .unwrap();
    let gate = place.path("gate");
    let text = "echo x >>\"$2\"; while [ ! -e \"$1\" ]; do sleep 0.02; done";
    let checks: Vec<_> = (0..5)
        .map(|_| run(&runner, shell(text, &[&gate, &place.path("begun")]), None))
        .collect();
    until(|| place.read("begun").len() == 4);
    let (sender, receiver) = channel();
    let _ = runner.run(
        Purpose::Notification,
        shell("exit 3", &[]),
        None,
        move |ended| {
            sender.send(ended).unwrap();
        },
    );
    assert_eq!(wait(&receiver), ended(Exit::Code(3)));
    assert_eq!(place.read("begun").len(), 4);
    checks[4].0.terminate();
    assert_eq!(wait(&checks[4].1), ended(Exit::NotStarted(Errno::CANCELED)));
    fs::write(&gate, "").unwrap();
    for (_, receiver) in &checks[..4] {
        assert_eq!(wait(receiver), ended(Exit::Code(0)));
    }
    assert_eq!(place.read("begun").len(), 8);
}

#[test]
fn at_the_end_notifications_finish_and_nobody_is_left() {
    let place = Place::new();
    let runner = Runner::start(quick()).unwrap();
    let out = place.path("out");
    let pids = place.path("pids");
    let forever = "echo $$ >>\"$1\"; exec sleep 600";
    let (_, check) = run(&runner, shell(forever, &[&pids]), None);
    let purpose = |purpose, text: &str, arguments: &[&str]| {
        drop(runner.run(purpose, shell(text, arguments), None, |_| ()));
    };
    purpose(Purpose::Reader, forever, &[&pids]);
    purpose(
        Purpose::Notification,
        "sleep 0.1; echo done >>\"$1\"",
        &[&out],
    );
    purpose(Purpose::Notification, forever, &[&pids]);
    until(|| place.read("pids").lines().count() == 3);
    let begun = Instant::now();
    runner.stop();
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(place.read("out"), "done\n");
    assert_eq!(wait(&check).exit, Exit::Signal(15));
    assert!(place.read("pids").lines().all(|pid| !is_alive(pid)));
    let (_, late) = run(&runner, shell("exit 0", &[]), None);
    assert_eq!(wait(&late), ended(Exit::NotStarted(Errno::CANCELED)));
}

#[test]
fn hundreds_of_programs_leave_no_zombie() {
    let runner = Runner::start(quick()).unwrap();
    let (sender, receiver) = channel();
    for _ in 0..300 {
        let sender = sender.clone();
        let command = Command {
            program: Path::new("/bin/true").to_owned(),
            arguments: Vec::new(),
            account: None,
        };
        let _ = runner.run(Purpose::Check, command, None, move |ended| {
            sender.send(ended).unwrap();
        });
    }
    for _ in 0..300 {
        assert_eq!(wait(&receiver), ended(Exit::Code(0)));
    }
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let children: String = threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .collect();
    // Other tests of this process have children of their own, living ones.
    assert!(children.split_whitespace().all(|pid| {
        !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains("(true) Z"))
    }));
}
