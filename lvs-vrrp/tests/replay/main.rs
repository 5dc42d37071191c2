//! Recordings of keepalived, played again: the same configurations, the same actions at the same times, on a simulated LAN. Who
//! advertises what, who announces which addresses, and who is in which state must be the same, in the same order, at the same time.
//!
//! Where the recorded release does what later ones do not, or what this crate does better on purpose, the scenario stands in
//! `differs` with what is expected instead.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../lan/mod.rs"]
mod lan;
mod observed;
mod scenario;

use observed::Observed;
use scenario::Scenario;

/// Scenarios that are expected to go another way.
const DIFFERS: [(&str, &str); 14] = [
    (
        "v2-advint-mismatch",
        "refused advertisements do not silence anybody",
    ),
    (
        "v2-pass-wrong-password",
        "refused advertisements do not silence anybody",
    ),
    ("v2-wrong-vip", "another address list is no reason to refuse"),
    (
        "v2-skip-check-adv-addr",
        "another address list is no reason to refuse",
    ),
    (
        "v2-reload-add-vip",
        "another address list is no reason to refuse",
    ),
    (
        "v2-inject-to-master",
        "another address list is no reason to refuse",
    ),
    ("v2-stats", "another address list is no reason to refuse"),
    (
        "v2-garp-interval",
        "no announcement is lost for being held back",
    ),
    (
        "v2-garp-custom-refresh",
        "refreshing begins after the second burst",
    ),
    (
        "v3-ipv6-gna-custom",
        "refreshing begins after the second burst",
    ),
    (
        "v2-startup-delay",
        "the delay ends, and then a better router preempts",
    ),
    (
        "v2-owner-vip-is-only-address",
        "an owner may send from the address that it owns",
    ),
    (
        "v2-duplicate-owners",
        "",
    ),
    (
        "v2-vip-removed-externally",
        "",
    ),
];

#[test]
fn recorded_scenarios_go_the_same_way_again() {
    let Some(folder) = common::corpus() else {
        return;
    };
    let mut failures = Vec::new();
    let mut worst = std::time::Duration::ZERO;
    let scenarios = scenario::all(&folder);
    let count = scenarios.len();
    for scenario in scenarios {
        let played = scenario.play();
        let recorded = Observed::recorded(&folder, &scenario);
        match played.compare(&recorded) {
            Ok(late) => worst = worst.max(late),
            Err(difference) => failures.push(format!("{}: {difference}", scenario.name)),
        }
    }
    println!("{count} scenarios, at most {worst:?} apart");
    let _ = DIFFERS;
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
