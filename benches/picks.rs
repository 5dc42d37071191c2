//! Picks beside each other: who takes how long and how many times as long as another, or one alone for counting its
//! instructions.
//!
//! ```text
//! cargo run --release -p lvs-benches --bin picks --features peers                # a table for each tier
//! cargo run --release -p lvs-benches --bin picks -- 'T0 pick' maglev 100 10000   # so many calls of one
//! ```
//!
//! The rounds of all contestants with the same number of servers alternate, so that what else the machine does meets
//! all of them; shown are medians. Instructions of one call: the difference of two counts over the difference of calls,
//!
//! ```text
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/picks 'T0 pick' maglev 100 1000
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/picks 'T0 pick' maglev 100 11000
//! ```

#[path = "benches/common/mod.rs"]
mod common;
#[path = "benches/contest/mod.rs"]
mod contest;

use std::io::{self, Write};
use std::time::{Duration, Instant};
use std::{env, process};

use contest::{Contestant, SIZES, Tier, contestants};

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

fn compare((rounds, round): (usize, Duration), output: &mut impl Write) -> io::Result<()> {
    for tier in Tier::ALL {
        let columns = SIZES.map(|size| measure(&contestants(tier, size), rounds, round));
        let mut rows: Vec<Row> = Vec::new();
        for seen in columns.iter().flatten() {
            if !rows.iter().any(|row| row.name == seen.row.name) {
                rows.push(seen.row);
            }
        }
        write!(output, "\n{:<26}", format!("{tier}, ns"))?;
        for size in SIZES {
            write!(output, "{size:>10}")?;
        }
        writeln!(output)?;
        for row in rows {
            write!(output, "{:<26}", row.name)?;
            let times = |name| {
                let time = move |column: &Vec<Seen>| {
                    (column.iter().find(|seen| seen.row.name == name)).map(|seen| seen.time)
                };
                columns.iter().map(time)
            };
            for time in times(row.name) {
                write!(output, "{:>10}", shown(time, 1))?;
            }
            if let Some(ours) = row.beside {
                write!(output, "   of {ours}:")?;
                for (time, ours) in times(row.name).zip(times(ours)) {
                    let ratio = time.zip(ours).map(|(time, ours)| time / ours);
                    write!(output, " {:>6}", shown(ratio, 1))?;
                }
            }
            writeln!(output)?;
        }
    }
    Ok(())
}

fn shown(number: Option<f64>, digits: usize) -> String {
    number.map_or("-".to_owned(), |number| format!("{number:.digits$}"))
}

#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    beside: Option<&'static str>,
}

struct Seen {
    row: Row,
    /// Nanoseconds of a call.
    time: f64,
}

fn measure(all: &[Contestant], rounds: usize, round: Duration) -> Vec<Seen> {
    let mut players: Vec<_> = (all.iter())
        .map(|one| {
            let mut calls = one.build();
            calls(WARM_UP);
            let begin = Instant::now();
            calls(WARM_UP);
            let each = (begin.elapsed().as_secs_f64() / WARM_UP as f64).max(1e-10);
            let count = (round.as_secs_f64() / each).max(1.0) as u64;
            (calls, count, Vec::with_capacity(rounds))
        })
        .collect();
    for _ in 0..rounds {
        for (calls, count, times) in &mut players {
            let begin = Instant::now();
            calls(*count);
            times.push(begin.elapsed().as_secs_f64() * 1e9 / *count as f64);
        }
    }
    let seen = |(one, (_, _, mut times)): (&Contestant, (_, _, Vec<f64>))| {
        times.sort_by(f64::total_cmp);
        let row = Row {
            name: one.name,
            beside: one.beside,
        };
        Seen {
            row,
            time: times[times.len() / 2],
        }
    };
    all.iter().zip(players).map(seen).collect()
}

const WARM_UP: u64 = 2_000;
const FULL: (usize, Duration) = (51, Duration::from_millis(2));
const QUICK: (usize, Duration) = (3, Duration::from_micros(20));
