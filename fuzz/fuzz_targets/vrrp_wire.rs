//! Any bytes as advertisements, authentication headers, announcements and BFD packets.
#![no_main]

#[path = "../../lvs-vrrp/tests/operations/run.rs"]
mod run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::run_parsers(data));
