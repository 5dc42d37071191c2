//! Picks beside each other: who takes how long and how many times as long as another, or one alone for counting its
//! instructions.
//!
//! ```text
//! cargo run --release -p lvs-benches --bin picks --features peers                # a table for each tier
//! cargo run --release -p lvs-benches --bin picks -- 'T0 pick' maglev 100 10000   # so many calls of one
//! ```
//!
//! Instructions of one call: the difference of two counts over the difference of calls,
//!
//! ```text
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/picks 'T0 pick' maglev 100 1000
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/picks 'T0 pick' maglev 100 11000
//! ```

#[path = "benches/common/mod.rs"]
mod common;
#[path = "benches/contest/mod.rs"]
mod contest;

use std::io;
use std::{env, process};

use contest::table::{FULL, QUICK, compare};
use contest::{Tier, contestants};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [] => compare(FULL, &mut io::stdout()),
        [quick] if quick == "--quick" => compare(QUICK, &mut io::stdout()),
        [tier, name, size, calls] => match (size.parse(), calls.parse()) {
            (Ok(size), Ok(calls)) => one(tier, name, size, calls),
            _ => Err(io::Error::other("SERVERS and CALLS are numbers")),
        },
        _ => Err(io::Error::other(
            "usage: picks [--quick | TIER SCHEDULER SERVERS CALLS]",
        )),
    };
    if let Err(error) = done {
        eprintln!("picks: {error}");
        process::exit(2);
    }
}

/// What is counted.
fn one(tier: &str, name: &str, size: u32, calls: u64) -> io::Result<()> {
    let mut all = (Tier::ALL.into_iter())
        .filter(|one| one.to_string() == tier)
        .flat_map(|tier| contestants(tier, size));
    let found = all.find(|one| one.name == name);
    let contestant = found.ok_or_else(|| io::Error::other("there is no such contestant"))?;
    (contestant.build())(calls);
    Ok(())
}
