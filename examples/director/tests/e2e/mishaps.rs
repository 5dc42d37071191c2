//! What goes wrong on a host: a clear message each, and what ran before goes on.

use std::fs;

use libtest_mimic::Trial;

use crate::once;
use crate::place::Place;
use crate::stage::{Conf, Director, Stage};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once(
            "a_full_disk_for_the_pid_file_is_said",
            a_full_disk_for_the_pid_file_is_said,
        ),
        once(
            "missing_scripts_are_said_and_stop_nothing",
            missing_scripts_are_said_and_stop_nothing,
        ),
        once(
            "files_that_cannot_be_used_change_nothing",
            files_that_cannot_be_used,
        ),
        once(
            "an_address_that_comes_late_or_is_there_already_is_served",
            an_address_that_comes_late_or_is_there_already,
        ),
    ]
}

fn a_full_disk_for_the_pid_file_is_said() {
    let stage = Stage::nat(1);
    let place = Place::new("full");
    let disk = place.0.display().to_string();
    let script = "mount -t tmpfs -o size=4k none \"$DISK\" && head -c 4096 /dev/zero >\"$DISK/full\" && exec \"$0\" \"$@\"";
    let Some(director) = Director::start_unshared(
        &stage,
        &Conf::nat(1).text(),
        script,
        &[("DISK", &disk)],
        &["-p", &format!("{disk}/director.pid")],
    ) else {
        println!("skipped: no file system can be mounted here");
        return;
    };
    director.wait_for_log(&format!(
        "the pid file {disk}/director.pid can't be written, the director runs without: No space left on device"
    ));
    assert_eq!(stage.ask().unwrap(), "rs1");
    let left = fs::read_dir(format!("/proc/{}/root{disk}", director.id())).unwrap();
    assert_eq!(left.count(), 1, "half a file is worse than none");
    assert!(director.terminate().success());
}

fn missing_scripts_are_said_and_stop_nothing() {
    let stage = Stage::nat(1);
    let place = Place::new("missing");
    place.script("run", "echo \"$*\" >>\"${0%/*}/out\"");
    let mut conf = Conf::nat(1);
    conf.extra = "global_defs {\n script_user root\n startup_script /nowhere/startup\n shutdown_script /nowhere/shutdown\n \
                  notify_fifo /nowhere/fifo\n}\n"
        .to_owned();
    place.script("look", "exit 0");
    let tracked = "vrrp_script look {\n script DIR/look\n interval 0.1\n}\n";
    conf.extra += "vrrp_instance WATCHES {\n interface int0\n virtual_router_id 78\n priority 150\n virtual_ipaddress {\n  10.1.0.99/24\n }\n \
                   track_script {\n  look\n }\n}\n";
    let with = |notify: &str| {
        let instance = format!("priority 255\n {notify}\n");
        let text = conf.text().replace("priority 255\n", &instance);
        place.fill(&(tracked.to_owned() + &text))
    };
    let gone = "notify_stop /nowhere/gone\n notify_master \"DIR/run master\"";
    let director = Director::start(&stage, &with(gone), 1);
    for said in [
        "startup_script is left out: /nowhere/startup can't be used: ",
        "vrrp_instance VI_1: notify_stop is left out: /nowhere/gone can't be used: ",
        "events are not written: ",
    ] {
        director.wait_for_log(said);
    }
    director.wait_until("the script that is there", || {
        place.read("out") == "master\n"
    });
    assert_eq!(stage.ask().unwrap(), "rs1");

    // One that is missing after a reload is said then, and changes nothing but itself.
    let after = with(
        "notify_stop \"DIR/run stop\"\n notify_backup /nowhere/other\n notify_master \"DIR/run master\"",
    );
    director.reload(&after);
    director.wait_for_log("notify_backup is left out: /nowhere/other can't be used: ");
    director.wait_for_log("reload done");
    assert_eq!(stage.ask().unwrap(), "rs1");
    // One that was there when the file was read, and is not now, is said when it is wanted, and once.
    fs::remove_file(place.0.join("look")).unwrap();
    director.wait_for_log("vrrp_script look could not be run: No such file or directory (os error 2): it counts as failed");
    director.wait_for_log("vrrp_instance WATCHES: Fault from ");
    fs::remove_file(place.0.join("run")).unwrap();
    director.signal(rustix::process::Signal::TERM);
    let mut director = director;
    assert!(director.wait().success());
    let log = director.log();
    assert!(log.contains("/run stop could not be run: "), "{log}");
    assert_eq!(
        log.matches("vrrp_script look could not").count(),
        1,
        "{log}"
    );
    assert!(
        log.contains("shutdown_script is left out: /nowhere/shutdown can't be used: "),
        "{log}"
    );
    assert_eq!(place.read("out"), "master\n");
}

fn files_that_cannot_be_used() {
    let stage = Stage::nat(1);
    let conf = Conf::nat(1).text();
    let director = Director::start(&stage, &conf, 1);
    let log = |count: usize| {
        director.wait_until("the refusal", || {
            director
                .log()
                .matches("reload refused, the running configuration stays")
                .count()
                == count
        });
        assert_eq!(stage.ask().unwrap(), "rs1");
    };
    let reload = || director.signal(rustix::process::Signal::HUP);
    // Gone, a directory, written by half, with a mistake, with one mistake beside it.
    fs::remove_file(&director.file).unwrap();
    reload();
    log(1);
    fs::create_dir(&director.file).unwrap();
    reload();
    log(2);
    fs::remove_dir(&director.file).unwrap();
    fs::write(
        &director.file,
        "virtual_server 198.51.100.100 80 {\n real_server 10.1.0.11 80 {\n",
    )
    .unwrap();
    reload();
    log(3);
    director.reload(&conf.replace("10.1.0.11 80", "10.1.0.999 80"));
    log(4);
    director.reload(&format!("include /nowhere/at/all.conf\n{conf}"));
    director.wait_for_log("/nowhere/at/all.conf");
    director.reload(&conf.replace("lb_algo rr", "lb_algo wrr"));
    director.wait_for_log("reload done");
    assert_eq!(stage.ask().unwrap(), "rs1");
    assert!(director.terminate().success());
}

fn an_address_that_comes_late_or_is_there_already() {
    let stage = Stage::nat(1);
    // Somebody has it already, with another prefix.
    stage
        .director
        .add_address("ext0", "198.51.100.100/32")
        .unwrap();
    let mut conf = Conf::nat(1);
    conf.extra = "global_defs {\n dynamic_interfaces\n}\nvrrp_instance LATE {\n interface late0\n virtual_router_id 77\n priority 150\n \
                  advert_int 1\n virtual_ipaddress {\n  203.0.113.7/24\n }\n}\n"
        .to_owned();
    let director = Director::launch(&stage.director, &conf.text(), 1);
    director.wait_for_log("running ");
    director.wait_until("an answer", || stage.ask().is_ok());
    let ip = |arguments: &[&str]| {
        let mut ip = stage.director.command("/usr/sbin/ip").unwrap();
        let output = ip.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let state = || director.beside(&["vrrp"]).1;
    assert!(state().contains("late0"), "{}", state());
    netlab::veth(
        (&stage.director, "late0", "203.0.113.1/24"),
        (&stage.client, "late1", "203.0.113.2/24"),
    )
    .unwrap();
    director.wait_until("the late router's address", || {
        ip(&["address", "show", "dev", "late0"]).contains("203.0.113.7/24")
    });
    assert_eq!(stage.ask().unwrap(), "rs1");
    assert!(director.terminate().success());
    assert!(!ip(&["address"]).contains("203.0.113.7"));
}
