//! Replays recordings of the kernel's decisions with a virtual clock.
//!
//! ```text
//! cargo run --release -p lvs-sched --example replay -- ../shared/traces/ipvs/*.jsonl
//! ```
//!
//! Prints one line a file: `NAME: ok`, the first step that differs, or `NAME: skipped` for schedulers that are not known. The
//! last line is `N passed, N failed, N skipped`; the exit status is 1 if a file failed.

mod trace;

use std::io::Write as _;
use std::process::ExitCode;

use trace::Outcome;

/// Prints a line. A reader that has seen enough, such as `head`, is no failure.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

fn main() -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for file in std::env::args().skip(1) {
        match trace::replay_file(file.as_ref()) {
            Outcome::Passed => {
                passed += 1;
                say!("{file}: ok");
            }
            Outcome::Failed(message) => {
                failed += 1;
                say!("{file}: {message}");
            }
            Outcome::Skipped(scheduler) => {
                skipped += 1;
                say!("{file}: skipped (scheduler {scheduler})");
            }
        }
    }
    say!("{passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed > 0))
}
