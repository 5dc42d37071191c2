//! The packet table: what goes in, and what must come out, over all methods, families and protocols.
//!
//! `table.rs` has the situations and `ways.rs` the methods, families and protocols; `oracle.rs` says what a method makes of
//! a packet, `build.rs` writes and shows packets: both know nothing of the code under test, which `world.rs` runs. A case
//! that fails is shown decoded.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod build;
mod errors;
mod hostile;
mod oracle;
mod replies;
mod table;
mod vectors;
mod victim;
mod ways;
mod world;

use lvs_fwd::balancer::{Method, Verdict};
use lvs_fwd::frame::ChecksumState;

use self::build::{decoded, join};
use self::oracle::Hints;
use self::table::{Case, Expect};
use self::world::Outcome;

fn judge(case: &Case) -> Result<(), String> {
    let outcome = world::run(&case.view, case.port, case.frames.clone(), case.verdict);
    judge_outcome(case, &outcome)
}

/// The same for the second packet on its way, which need not be looked up: what methods without a memory send.
fn judge_again(case: &Case) -> Result<(), String> {
    let has_memory = !matches!(
        case.verdict,
        Verdict::Forward(Method::Nat { .. } | Method::DirectRoute { .. }) | Verdict::Reply { .. }
    );
    if has_memory || case.frames.len() > 1 || !matches!(case.expect, Expect::Sent { .. }) {
        return Ok(());
    }
    let outcome = world::run_again(&case.view, case.port, case.frames.clone(), case.verdict);
    judge_outcome(case, &outcome).map_err(|text| format!("again: {text}"))
}

fn judge_outcome(case: &Case, outcome: &Outcome) -> Result<(), String> {
    let sent: Vec<Vec<u8>> = outcome
        .sent
        .iter()
        .map(|(.., frame)| frame.bytes()[14..].to_vec())
        .collect();
    let shown = || {
        let mut text = format!("drops {:?} left {:?}\n", outcome.drops, outcome.left);
        for packet in case.frames.iter().map(|frame| &frame.bytes()[14..]) {
            text += &format!("in:\n{}", decoded(packet));
        }
        for (packet, (port, mac, frame)) in sent.iter().zip(&outcome.sent) {
            text += &format!("out of {port:?} to {mac:02x?} {:?}:\n", frame.meta);
            text += &decoded(packet);
        }
        for packet in &outcome.host {
            text += &format!("to the host:\n{}", decoded(packet));
        }
        text
    };
    let fail = |what: &str| Err(format!("{}: {what}\n{}", case.name, shown()));
    let is_left =
        |count: usize| outcome.left.iter().map(|(_, n)| *n as usize).sum::<usize>() == count;
    match &case.expect {
        Expect::Sent {
            port,
            mac,
            packets,
            unfinished,
            segments,
            parts,
        } => {
            if !outcome.drops.is_empty() || !outcome.host.is_empty() || !is_left(0) {
                return fail("is not only sent");
            }
            if outcome
                .sent
                .iter()
                .any(|(out, to, _)| out != port || to != mac)
            {
                return fail("leaves by another way");
            }
            let has_state = |frame: &lvs_fwd::frame::Frame| {
                matches!(frame.meta.checksum, ChecksumState::Partial { .. }) == *unfinished
                    && frame.meta.gso.map(|gso| gso.size) == *segments
            };
            if !outcome.sent.iter().all(|(.., frame)| has_state(frame)) {
                return fail("has other offloads");
            }
            let sent = match (parts, sent.is_empty()) {
                (Some(most), false) => {
                    if sent.len() < 2 || sent.iter().any(|part| part.len() > *most) {
                        return fail("is not in fragments that fit");
                    }
                    vec![join(&sent)]
                }
                _ => sent.clone(),
            };
            let expected = packets(&Hints::of(&sent));
            if sent != expected {
                let wanted: String = expected.iter().map(|packet| decoded(packet)).collect();
                return fail(&format!("is not what it should be:\n{wanted}but"));
            }
        }
        Expect::Told {
            reason,
            port,
            mac,
            packet,
        } => {
            if outcome.drops != [(*reason, case.frames.len() as u64)] {
                return fail("is dropped otherwise");
            }
            if outcome
                .sent
                .iter()
                .any(|(out, to, _)| out != port || to != mac)
            {
                return fail("is told to somebody else");
            }
            let expected = packet(&Hints::of(&sent));
            if sent != [expected.clone()] {
                return fail(&format!(
                    "is told otherwise, not:\n{}but",
                    decoded(&expected)
                ));
            }
        }
        Expect::Relayed(packet) => {
            // The host has the error too.
            let way = (world::OUTSIDE, world::ROUTER);
            if outcome.sent.iter().any(|(out, to, _)| (*out, *to) != way) || !is_left(1) {
                return fail("is told to somebody else");
            }
            let expected = packet(&Hints::of(&sent));
            if sent != [expected.clone()] {
                return fail(&format!(
                    "is relayed otherwise, not:\n{}but",
                    decoded(&expected)
                ));
            }
        }
        Expect::Host(packet) => {
            if !sent.is_empty() || outcome.host != [packet.clone()] || !outcome.drops.is_empty() {
                return fail("is not the host's");
            }
        }
        Expect::Left(reason) => {
            if !sent.is_empty() || !outcome.host.is_empty() || outcome.left != [(*reason, 1)] {
                return fail("is not left alone");
            }
        }
        Expect::Dropped(reason) => {
            let all = case.frames.len() as u64;
            if !sent.is_empty() || !outcome.host.is_empty() || outcome.drops != [(*reason, all)] {
                return fail("is not dropped so");
            }
        }
        Expect::Waits => {
            if !sent.is_empty() || outcome.resolved != 1 || !outcome.drops.is_empty() {
                return fail("does not wait for its neighbour");
            }
        }
    }
    Ok(())
}

#[test]
fn every_case_of_the_table_holds() {
    let cases = table::cases();
    let judged = cases
        .iter()
        .flat_map(|case| [judge(case), judge_again(case)]);
    let failures: Vec<String> = judged.filter_map(Result::err).collect();
    let shown: String = failures.iter().take(6).map(String::as_str).collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases fail:\n{shown}",
        failures.len(),
        cases.len()
    );
}

#[test]
fn the_table_has_many_cases_each_with_a_name_of_its_own() {
    let cases = table::cases();
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    let total = names.len();
    names.dedup();
    assert_eq!(names.len(), total);
    assert!(total >= 250, "{total}");
}
