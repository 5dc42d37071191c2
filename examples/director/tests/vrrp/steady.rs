//! Two busy processes at ordinary priority, advertisements of 100 ms, and no transition. It takes a machine of its own: only with
//! `LVS_VRRP_HOGS=SECONDS`, and as root, for real-time priority is what it is about.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::{Kind, Lan, Ours, Process, eventually};

pub(crate) fn trial() -> Option<Trial> {
    let seconds = std::env::var("LVS_VRRP_HOGS").ok()?.parse().ok()?;
    Some(Trial::test("steady_beside_hogs", move || {
        steady(Duration::from_secs(seconds));
        Ok(())
    }))
}

fn steady(length: Duration) {
    let kind = Kind {
        name: "hogs",
        settings: "version 3\nadvert_int 0.1",
        vip: "192.0.2.100/24",
        interval: 100,
    };
    let lan = Lan::new(kind, true);
    let active = Process::start(&lan.ours, &lan.configuration(true));
    let file = director::config::ConfigFile::read(&lan.configuration(false), None).unwrap();
    lan.wait_for(true, Duration::from_secs(5));
    let standby = Ours::start(&lan.theirs, &file);
    eventually("the active one", Duration::from_secs(2), || {
        standby.status()[0].active_router.is_some()
    });
    let cores = std::thread::available_parallelism().unwrap().get();
    let hogs: Vec<Hog> = (0..cores.max(2)).map(|_| Hog::start()).collect();
    let end = Instant::now() + length;
    let mut longest = Duration::ZERO;
    while Instant::now() < end {
        let status = &standby.status()[0];
        assert_eq!(status.statistics.became_active, 0, "{status:?}");
        if let Some((_, silent)) = status.active_router {
            longest = longest.max(silent);
        }
        assert_eq!(lan.holders(), (true, false));
        std::thread::sleep(Duration::from_millis(20));
    }
    let statistics = standby.status()[0].statistics;
    println!(
        "{} busy processes for {length:?}: no transition, {} advertisements heard, longest silence seen {longest:?}",
        hogs.len(),
        statistics.adverts_received
    );
    // Ten a second, less what a loaded machine swallows.
    let expected = u64::try_from(length.as_millis() / 100).unwrap();
    assert!(statistics.adverts_received * 100 >= expected * 95);
    drop(active);
}

/// A process that does nothing, as fast as it can.
struct Hog(Child);

impl Hog {
    fn start() -> Self {
        let child = Command::new("/bin/sh")
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
