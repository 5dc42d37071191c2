//! All interleavings of a few picks and changes, as far as threads interrupt each other three times at most:
//! what they are answered is what some order of the calls would have answered.
//!
//! ```text
//! RUSTFLAGS='--cfg loom' cargo test --release -p lvs-sched --test interleavings
//! ```

#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test outside of a test function")]

mod serial;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use lvs_sched::SchedulerKind;
use serial::{Actor, Case, History, cases, is_serial, service};

fn explore(bound: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.max_branches = 100_000;
    builder.check(f);
}

fn run(case: &Case) -> History {
    let shared = Arc::new((service(case), AtomicUsize::new(0)));
    let threads: Vec<_> = (case.threads.iter().cloned())
        .map(|calls| {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || {
                let mut actor = Actor::new(&shared.0, &shared.1);
                calls.iter().for_each(|call| actor.run(*call));
                actor.finish()
            })
        })
        .collect();
    let mut leases = Vec::new();
    let mut history: History = (threads.into_iter())
        .map(|thread| {
            let (done, held) = thread.join().unwrap();
            leases.extend(held);
            done
        })
        .collect();
    let mut actor = Actor::new(&shared.0, &shared.1);
    case.last.iter().for_each(|call| actor.run(*call));
    history.push(actor.finish().0);
    history
}

fn all_orders(kind: SchedulerKind, bound: usize) {
    for case in cases(kind) {
        let histories = Arc::new(Mutex::new(BTreeSet::new()));
        let (explored, note) = (case.clone(), Arc::clone(&histories));
        let runs = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&runs);
        // Two threads have fewer ways.
        let is_pair = case.threads.len() < 3;
        explore(bound + usize::from(is_pair), move || {
            let history = run(&explored);
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            note.lock().unwrap().insert(history);
        });
        let histories: Vec<_> = histories.lock().unwrap().iter().cloned().collect();
        println!(
            "{kind}: {} histories of {runs:?} runs of {:?}",
            histories.len(),
            case.threads
        );
        let least = if is_pair { 5 } else { 20 };
        assert!(histories.len() > least, "they were interleaved");
        for history in histories {
            let case = case.clone();
            // The orders are tried where loom's parts work.
            explore(0, move || {
                assert!(is_serial(&case, &history), "{case:?}\n{history:#?}");
            });
        }
    }
}

#[test]
fn round_robin() {
    all_orders(SchedulerKind::RoundRobin, 2);
}

#[test]
fn weighted_round_robin() {
    all_orders(SchedulerKind::WeightedRoundRobin, 2);
}

#[test]
fn source_hash() {
    all_orders(SchedulerKind::SourceHash, 2);
}

#[test]
fn weighted_least_connection() {
    all_orders(SchedulerKind::WeightedLeastConnection, 2);
}

#[test]
fn two_choices() {
    all_orders(SchedulerKind::TwoChoices, 2);
}

#[test]
fn locality() {
    all_orders(SchedulerKind::LocalityLeastConnection, 2);
}

#[test]
fn destination_hash() {
    all_orders(SchedulerKind::DestinationHash, 2);
}

#[test]
fn maglev_hash() {
    all_orders(SchedulerKind::MaglevHash, 1);
}
