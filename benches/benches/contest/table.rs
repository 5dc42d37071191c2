//! All contestants of a tier side by side.
//!
//! Their rounds alternate, so that what else the machine does meets all of them; shown is of each the time that a
//! tenth of its rounds were faster than.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::{Contestant, SIZES, Tier, contestants};

/// Rounds, and how long each is.
pub(crate) type Effort = (usize, Duration);

pub(crate) const FULL: Effort = (201, Duration::from_micros(500));
/// Only that it runs.
pub(crate) const QUICK: Effort = (3, Duration::from_micros(20));

/// A table for each tier: nanoseconds of a call by number of servers, and of other crates how many times as long they
/// take as ours.
pub(crate) fn compare((rounds, round): Effort, output: &mut impl Write) -> io::Result<()> {
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
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
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
            time: times[times.len() / 10],
        }
    };
    all.iter().zip(players).map(seen).collect()
}

const WARM_UP: u64 = 2_000;
