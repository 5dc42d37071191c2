//! What a running director has scripts and readers of pipes hear.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use libtest_mimic::Trial;

use crate::once;
use crate::stage::{Conf, Director, Stage};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once(
            "notify_scripts_and_pipes_hear_everything_once",
            scripts_and_pipes_hear_everything_once,
        ),
        once(
            "notify_of_a_reload_follows_the_new_file",
            a_reload_follows_the_new_file,
        ),
    ]
}

/// A directory of its own for each test, gone with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("director-e2e-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// `DIR` in a text becomes this place.
    fn fill(&self, text: &str) -> String {
        text.replace("DIR", &self.0.display().to_string())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
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
