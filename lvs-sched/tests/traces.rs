//! Decisions recorded from the kernel's own IPVS, replayed.

#[path = "../examples/replay/trace.rs"]
mod trace;

use std::path::{Path, PathBuf};

use trace::Outcome;

#[test]
fn the_kernel_decided_the_same() {
    let shared = std::env::var_os("LVS_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let folder = shared.join("traces/ipvs");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        let message = format!("no traces in {}; set LVS_SHARED", folder.display());
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
        println!("skipped: {message}");
        return;
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "jsonl")
    });
    files.sort();

    let (mut passed, mut failures) = (0, Vec::new());
    for file in &files {
        let name = file.file_name().unwrap().to_string_lossy();
        match trace::replay_file(file) {
            Outcome::Passed => passed += 1,
            Outcome::Failed(message) => failures.push(format!("{name}: {message}")),
            Outcome::Skipped(scheduler) => failures.push(format!("{name}: unknown {scheduler}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(passed >= 110, "{passed} passed");
    println!("{passed} passed");
}
