//! What keepalived's units, scripts and options find again.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use netlab::Namespace;

use crate::once;
use crate::place::Place;
use crate::stage::{Conf, Director, PATIENCE, Stage, director_texts};

/// Those that need no network.
pub(crate) fn plain_trials() -> Vec<Trial> {
    vec![once(
        "options_of_keepalived_do_what_they_did",
        options_of_keepalived,
    )]
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once(
            "the_service_manager_hears_of_begin_reload_and_end",
            the_service_manager_hears,
        ),
        once(
            "a_network_namespace_is_entered_by_option_and_by_keyword",
            a_network_namespace_is_entered,
        ),
    ]
}

fn options_of_keepalived() {
    for (function, number) in [("STOP", 15), ("RELOAD", 1), ("DATA", 10), ("STATS", 12)] {
        let printed = director_texts(&[&format!("--signum={function}")]);
        assert_eq!(printed, (0, format!("{number}\n"), String::new()));
    }
    let place = Place::new("habits");
    let (file, log) = (place.0.join("k.conf"), place.0.join("log"));
    fs::write(&file, "virtual_sever 192.0.2.1 80 {\n}\n").unwrap();
    let test = format!("--config-test={}", log.display());
    let file = file.to_str().unwrap();
    for round in 1..=2 {
        let (status, output, errors) = director_texts(&[&test, "--all", "-f", file]);
        assert_eq!((status, output.as_str(), errors.as_str()), (5, "", ""));
        let found = place.read("log").matches("virtual_sever").count();
        assert!(found >= round, "an earlier test's findings stay");
    }
    let (status, _, errors) = director_texts(&["-s", "no-such-namespace", "-t", "-f", file]);
    assert_eq!(status, 2);
    assert!(
        errors.starts_with("can't enter the network namespace no-such-namespace: "),
        "{errors}"
    );
    let (status, output, _) = director_texts(&["-T", "--help"]);
    assert!(
        status == 0 && output.contains("digest of a page"),
        "{output}"
    );
}

fn the_service_manager_hears() {
    let place = Place::new("manager");
    let path = place.0.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let stage = Stage::nat(1);
    let conf = Conf::nat(1).text();
    let mut command = stage
        .director
        .command(env!("CARGO_BIN_EXE_director"))
        .unwrap();
    command.env("NOTIFY_SOCKET", &path);
    let director = Director::start_by(command, &stage.director, &conf);
    assert_eq!(next(), "READY=1");
    for text in [
        conf.replace("lb_algo rr", "lb_algo wrr"),
        "broken {".to_owned(),
    ] {
        director.reload(&text);
        let begun = next();
        assert!(begun.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{begun}");
        // Also when nothing came of it: the director is as ready as before.
        assert_eq!(next(), "READY=1");
    }
    assert!(director.terminate().success());
    assert_eq!(next(), "STOPPING=1");
    socket
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    assert!(socket.recv(&mut [0; 10]).is_err(), "nothing more is said");
}

/// A name as `ip netns` would give it, for a namespace that has none.
struct Named {
    holder: Child,
    path: PathBuf,
}

impl Named {
    fn new(namespace: &Namespace) -> Option<Self> {
        let mut holder = namespace.command("/usr/bin/sleep").unwrap();
        let mut holder = holder.arg("600").stdin(Stdio::null()).spawn().unwrap();
        let path = Path::new("/var/run/netns").join(format!("lvs-e2e-{}", std::process::id()));
        let target = format!("/proc/{}/ns/net", holder.id());
        let made = fs::create_dir_all("/var/run/netns")
            .and_then(|()| std::os::unix::fs::symlink(target, &path));
        if let Err(error) = made {
            println!("skipped: no name can be given to a network namespace: {error}");
            let _ = holder.kill();
            let _ = holder.wait();
            return None;
        }
        Some(Self { holder, path })
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn a_network_namespace_is_entered() {
    let stage = Stage::nat(1);
    let Some(named) = Named::new(&stage.director) else {
        return;
    };
    let name = named.path.file_name().unwrap().to_str().unwrap();
    let conf = Conf::nat(1).text();
    // Started from elsewhere, both serve there.
    let begin = || {
        stage.servers[0]
            .0
            .command(env!("CARGO_BIN_EXE_director"))
            .unwrap()
    };
    let mut by_option = begin();
    by_option.args(["-s", name]);
    let other = format!("net_namespace elsewhere\n{conf}");
    let by_keyword = format!("net_namespace {name}\n{conf}");
    for (command, conf) in [(by_option, other), (begin(), by_keyword)] {
        let director = Director::start_by(command, &stage.director, &conf);
        assert_eq!(stage.ask().unwrap(), "rs1");
        assert_eq!(director.status().services, 1);
        assert!(director.terminate().success());
    }
    let director = Director::launch(
        &stage.director,
        &format!("net_namespace nowhere\n{conf}"),
        1,
    );
    let mut director = director;
    assert!(!director.wait().success());
    director.wait_for_log("can't enter the network namespace nowhere");
}
