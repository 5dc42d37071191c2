//! Any bytes as keepalived.conf: reading, meaning, rendering, printing back. The property tests of lvs-conf call the same
//! functions.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lvs_conf::fuzz::configuration(data);
    lvs_conf::fuzz::words(data);
});
