//! The set-ups of `examples/director/setups`, as a user runs them.

use libtest_mimic::Trial;

use crate::once;
use crate::stage::director_texts;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once("setup_nat", || shows("nat", 1)),
        once("setup_dr", || shows("dr", 2)),
        once("setup_tun", || shows("tun", 1)),
        once("setup_mixed_dr_tun", || shows("mixed-dr-tun", 2)),
        once("setup_ha_pair", pair_shows),
    ]
}

/// The demo judges by itself: servers take turns, counters are equal, everything is given back.
fn shows(name: &str, workers: u32) {
    let workers = workers.to_string();
    let arguments = ["demo", "--setup", name, "--workers", &workers];
    let (status, output, errors) = director_texts(&arguments);
    assert_eq!(status, 0, "{output}{errors}");
    for text in [
        "everything was as it should be",
        "FORWARDED to",
        "IP Virtual Server",
    ] {
        assert!(output.contains(text), "{output}");
    }
    let kinds = ["NAT", "DR", "TUN"].map(|kind| output.contains(&format!("lb_kind {kind}")));
    let expected = match name {
        "nat" => [true, false, false],
        "dr" => [false, true, false],
        "tun" => [false, false, true],
        _ => [false, true, true],
    };
    assert_eq!(kinds, expected);
}

/// A killed director, a returning one, and one that is stopped: the demo judges by itself.
fn pair_shows() {
    let (status, output, errors) = director_texts(&["demo", "--setup", "ha-pair"]);
    assert_eq!(status, 0, "{output}{errors}");
    for text in [
        "everything was as it should be",
        "Active from Backup: no advertisement of 10.65.32.1 (priority 150) for 3.6",
        "10.65.32.2 left with priority 0",
    ] {
        assert!(output.contains(text), "{text} in {output}");
    }
}
