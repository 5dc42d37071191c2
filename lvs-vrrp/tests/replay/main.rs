//! Recordings of keepalived, played again: the same configurations, the same actions at the same times, on a simulated LAN. Who
//! advertises what, who announces which addresses, and who is in which state must be the same, in the same order, at the same time.
//!
//! Where the recorded release does what later ones do not, or what this crate does better on purpose, the scenario stands in
//! `DIFFERS` with what is expected instead.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../lan/mod.rs"]
mod lan;
mod observed;
mod scenario;

use observed::Observed;
use std::time::Duration;

/// Scenarios that are expected to go another way: which, why, and how.
const DIFFERS: [(&str, &str, &str); 14] = [
    (
        "v2-advint-mismatch",
        SILENCED,
        "a VI_1 BACKUP MASTER; b VI_1 BACKUP MASTER; a 51 150x11 0x1; b 51 100x4 0x1; a LAN 0 5 5; b LAN 0 5 5; ",
    ),
    (
        "v2-pass-wrong-password",
        SILENCED,
        "a VI_1 BACKUP MASTER; b VI_1 BACKUP MASTER; a 51 150x7 0x1; b 51 100x7 0x1; a LAN 0 5 5; b LAN 0 5 5; ",
    ),
    (
        "v2-wrong-vip",
        ADDRESS_LISTS,
        "a VI_1 BACKUP MASTER; b VI_1 BACKUP; a 51 150x8 0x1; a LAN 0 5 5; ",
    ),
    (
        "v2-skip-check-adv-addr",
        ADDRESS_LISTS,
        "a VI_1 BACKUP MASTER; b VI_1 BACKUP; a 51 150x5 150x3 150x5 0x1; a LAN 0 5 10 10; ",
    ),
    (
        "v2-reload-add-vip",
        ADDRESS_LISTS,
        "a VI_1 BACKUP MASTER; b VI_1 BACKUP; a 51 150x6 150x7 0x1; a LAN 0 5 10 10; ",
    ),
    (
        "v2-inject-to-master",
        ADDRESS_LISTS,
        "b VI_1 BACKUP MASTER BACKUP MASTER BACKUP MASTER BACKUP MASTER; b 51 100x48 0x1; b LAN 0 5 5 5 5 5 5 5 10 5 5; ",
    ),
    (
        "v2-stats",
        ADDRESS_LISTS,
        "b VI_1 BACKUP MASTER BACKUP MASTER; b 51 100x18 0x1; b LAN 0 5 5 5 5 5; ",
    ),
    (
        "v2-garp-interval",
        "no announcement is lost for being held back",
        "a VI_1 BACKUP MASTER; a 51 150x9 0x1; a LAN 0 15 15; ",
    ),
    (
        "v2-garp-custom-refresh",
        REFRESH,
        "a VI_1 BACKUP MASTER; a 51 150x17 0x1; a LAN 0 9 9 6 6 6 6; ",
    ),
    (
        "v3-ipv6-gna-custom",
        REFRESH,
        "a VI_1 BACKUP MASTER; a 51 150x11 0x1; a LAN 0 6 6 4 4; ",
    ),
    (
        "v2-startup-delay",
        "the delay ends, and then a better router preempts: a defect of the recorded release",
        "a VI_1 BACKUP MASTER; b VI_1 BACKUP MASTER BACKUP; a 51 150x6 0x1; b 51 100x10; a LAN 0 5 5; b LAN 0 5 5; ",
    ),
    (
        "v2-owner-vip-is-only-address",
        "an owner may send from the address that it owns",
        "a VI_1 MASTER; b VI_1 BACKUP MASTER BACKUP; a 51 255x7 0x1; b 51 100x3; a LAN 0 5 5; b LAN 0 5; ",
    ),
    (
        "v2-reload-lower-priority",
        "a reload keeps a Backup's running deadline, and an Active router's bursts",
        "a VI_1 BACKUP MASTER BACKUP MASTER; b VI_1 BACKUP MASTER BACKUP; a 51 150x6 80x4 160x4 0x1; b 51 100x7; a LAN 0 5 5 5; b LAN 0 5 5; ",
    ),
    (
        "v2-vip-removed-externally",
        "a second burst ends with the state that it belongs to",
        "a VI_1 BACKUP MASTER BACKUP MASTER; b VI_1 BACKUP; a 51 150x5 0x1 150x9 0x1; a LAN 0 5 5 5; ",
    ),
];

const SILENCED: &str = "refused advertisements do not silence anybody";
const ADDRESS_LISTS: &str =
    "another address list is no reason to refuse, as in later releases of keepalived";
const REFRESH: &str =
    "refreshing begins after the second burst, as in later releases of keepalived";

#[test]
fn recorded_scenarios_go_the_same_way_again() {
    let Some(folder) = common::corpus() else {
        return;
    };
    let mut failures = Vec::new();
    let mut worst = Duration::ZERO;
    let mut same = 0;
    let scenarios = scenario::all(&folder);
    for scenario in &scenarios {
        let played = scenario.play();
        let differs = DIFFERS.iter().find(|(name, ..)| *name == scenario.name);
        if let Some((name, why, expected)) = differs {
            let summary = played.summary();
            if summary != *expected {
                failures.push(format!("{name} ({why}): {summary}\ninstead of {expected}"));
            }
            continue;
        }
        let recorded = Observed::recorded(&folder, scenario);
        match played.compare(&recorded) {
            Ok(apart) => {
                worst = worst.max(apart);
                same += 1;
            }
            Err(difference) => failures.push(format!("{}: {difference}", scenario.name)),
        }
    }
    println!(
        "{same} of {} scenarios as recorded, at most {worst:?} apart",
        scenarios.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
