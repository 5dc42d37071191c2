//! Any bytes as frames, for the parsers and the engine of lvs-fwd. The packet table's tests run the same function.
#![no_main]

#[path = "../../lvs-fwd/tests/packets/build.rs"]
#[allow(dead_code, reason = "the packet table uses the rest")]
mod build;
#[path = "../../lvs-fwd/tests/packets/victim.rs"]
#[allow(dead_code, reason = "the packet table uses the rest")]
mod victim;
#[path = "../../lvs-fwd/tests/packets/world.rs"]
#[allow(dead_code, reason = "the packet table uses the rest")]
mod world;

libfuzzer_sys::fuzz_target!(|data: &[u8]| victim::run_bytes(data));
