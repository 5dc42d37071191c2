//! Any bytes as a life of a VRRP router with three virtual routers. The property tests of lvs-vrrp run the same function.
#![no_main]

#[path = "../../lvs-vrrp/tests/operations/run.rs"]
mod run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::run_operations(data));
