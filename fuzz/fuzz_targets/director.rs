//! Any bytes as a life of a director with two workers. The property tests of lvs-sched run the same
//! function.
#![no_main]

#[path = "../../lvs-sched/tests/operations/run.rs"]
mod run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::run_operations(data));
