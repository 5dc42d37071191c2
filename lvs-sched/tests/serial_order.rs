//! Picks and changes of several threads against all orders of the same calls.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test outside of a test function")]

mod serial;

use std::collections::BTreeSet;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};

use lvs_sched::SchedulerKind;
use serial::{Actor, Case, History, cases, is_serial, service};

/// Runs of each case. Few of them overlap in an interesting way; `tests/interleavings.rs` goes through all ways.
const RUNS: usize = 20;
fn run(case: &Case) -> History {
    let (service, clock, ready) = (service(case), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut history: History = Vec::new();
    let mut leases = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (case.threads.iter())
            .map(|calls| {
                let (service, clock, ready) = (&service, &clock, &ready);
                scope.spawn(move || {
                    let mut actor = Actor::new(service, clock);
                    ready.fetch_add(1, Ordering::SeqCst);
                    let mut waited = 0;
                    while ready.load(Ordering::SeqCst) < case.threads.len() && waited < 5_000 {
                        waited += 1;
                        spin_loop();
                    }
                    calls.iter().for_each(|call| actor.run(*call));
                    actor.finish()
                })
            })
            .collect();
        for thread in threads {
            let (done, held) = thread.join().unwrap();
            history.push(done);
            leases.extend(held);
        }
    });
    let mut actor = Actor::new(&service, &clock);
    case.last.iter().for_each(|call| actor.run(*call));
    history.push(actor.finish().0);
    history
}

#[test]
fn what_threads_are_answered_is_what_some_order_answers() {
    for kind in SchedulerKind::ALL {
        // Tables take a while, for each order that is tried too.
        let has_table = matches!(kind, SchedulerKind::Maglev | SchedulerKind::MaglevHash);
        let (runs, step) = if has_table { (1, 5) } else { (RUNS, 1) };
        for case in cases(kind).into_iter().step_by(step) {
            let histories: BTreeSet<_> = (0..runs).map(|_| run(&case)).collect();
            for history in histories {
                assert!(is_serial(&case, &history), "{case:?}\n{history:#?}");
            }
        }
    }
}

#[test]
fn an_answer_that_no_order_gives_is_noticed() {
    let case = &cases(SchedulerKind::RoundRobin)[0];
    let mut history = run(case);
    assert!(is_serial(case, &history));
    // Round robin does not serve one server three times in a row.
    let answer = history[0][0].answer;
    history[0][1].answer = answer;
    history[1][0].answer = answer;
    assert!(!is_serial(case, &history));
}
