//! The data path beside what else forwards packets: plain kernel forwarding, balancing by nftables DNAT, and the barest
//! loop over the same device.
//!
//! ```text
//! cargo run --release -p lvs-benches --bin net            # about two minutes; needs root for cores of their own
//! cargo run --release -p lvs-benches --bin net -- --quick # a few seconds, to see that it runs
//! cargo run --release -p lvs-benches --bin net -- --rounds 3 --seconds 0.5 director barest
//! ```
//!
//! Client, director and servers are network namespaces on this machine. The generator has the first core, and everything beyond
//! the director too: servers, and the kernel's receive processing at both ends. The path has the second core for itself: the
//! director's process is pinned there, and the kernel's receive processing of its interfaces is steered
//! there. All candidates are measured in turn, several rounds, and shown as ratios of the medians to kernel forwarding: absolute numbers of a shared machine
//! mean little.
//!
//! Beside each rate stands what the path's core spent for a packet (or KiB), and how busy it was: a generator that is at its
//! end hides what the path could do, the cost does not. It counts everything that ran on that core, so the machine should be
//! idle else; the report says how busy it was before.

mod barest;
mod stage;
mod sys;

use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, thread};

use director::cli::RunOptions;
use rustix::thread::{CpuSet, sched_setaffinity};
use stage::{SERVERS, Stage};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["director", file] if file.contains('/') => run_director(file),
        ["barest", server, client] => run_barest(server, client),
        _ => match Plan::parse(&arguments) {
            Some(plan) => compare(&plan),
            None => {
                eprintln!(
                    "usage: net [--quick] [--rounds N] [--seconds S] [{}]...",
                    CANDIDATES.map(Candidate::word).join("|")
                );
                return ExitCode::from(2);
            }
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("net: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is measured, and for how long.
struct Plan {
    rounds: usize,
    time: Duration,
    candidates: Vec<Candidate>,
}

impl Plan {
    fn parse(arguments: &[String]) -> Option<Self> {
        let mut plan = Self {
            rounds: 5,
            time: Duration::from_secs(2),
            candidates: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => (plan.rounds, plan.time) = (1, Duration::from_millis(200)),
                "--rounds" => plan.rounds = arguments.next()?.parse().ok()?,
                "--seconds" => {
                    let seconds = arguments.next()?.parse().ok()?;
                    plan.time = Duration::try_from_secs_f64(seconds).ok()?;
                }
                word => plan
                    .candidates
                    .push(CANDIDATES.into_iter().find(|c| c.word() == word)?),
            }
        }
        if plan.candidates.is_empty() {
            plan.candidates = CANDIDATES.to_vec();
        }
        Some(plan)
    }
}

/// This program again, as the director under measurement.
fn run_director(file: &str) -> io::Result<()> {
    pin(PATH_CORE)?;
    let options = RunOptions {
        file: PathBuf::from(file),
        config_id: None,
        log_console: true,
        log_detail: false,
        workers: NonZeroU32::MIN,
        device: director::devices::Choice::Auto,
        ring_slots: NonZeroU32::new(2048).expect("it is not zero"),
    };
    director::app::run(options).map_err(io::Error::other)
}

/// This program again, as the barest loop.
fn run_barest(server: &str, client: &str) -> io::Result<()> {
    pin(PATH_CORE)?;
    let parse = |text| parse_mac(text).ok_or(io::ErrorKind::InvalidInput);
    barest::run(SERVERS[0], parse(server)?, parse(client)?)
}

fn compare(plan: &Plan) -> io::Result<()> {
    if let Err(error) = netlab::enter() {
        println!("skipped: network namespaces are not permitted here: {error}");
        return Ok(());
    }
    // Before anything else, so that it holds for everything that is started. What else runs should not disturb.
    let _ = rustix::process::setpriority_process(None, -20);
    println!("the machine before: {}", machine()?);
    let stage = Stage::new()?;
    if !stage.prepare() {
        println!(
            "skipped: steering the kernel's receive processing to cores of their own needs root and ethtool; the figures below are \
             those of another set-up"
        );
    }
    let mut results: Vec<Measured> = plan.candidates.iter().map(|c| Measured::new(*c)).collect();
    for _ in 0..plan.rounds {
        for measured in &mut results {
            let candidate = measured.candidate;
            let Some(running) = stage.start(candidate)? else {
                continue;
            };
            let mut best: Option<Sample> = None;
            for pace in PACES {
                let sample = stage.flood(candidate, Some(pace), plan.time / 4)?;
                if best.is_none_or(|best| sample.rate > best.rate) {
                    best = Some(sample);
                }
            }
            let best = best.ok_or(io::ErrorKind::InvalidInput)?;
            let paced = stage.flood(candidate, Some(PACE), plan.time)?;
            let flood = stage.flood(candidate, None, plan.time / 4)?;
            let stream = stage.stream(candidate, plan.time)?;
            for (samples, sample) in measured
                .samples
                .iter_mut()
                .zip([best, paced, flood, stream])
            {
                samples.push(sample);
            }
            stage.stop(running)?;
        }
    }
    report(&results);
    println!("the machine after: {}", machine()?);
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate {
    Forwarding,
    Nftables,
    Barest,
    Director,
}

const CANDIDATES: [Candidate; 4] = [
    Candidate::Forwarding,
    Candidate::Nftables,
    Candidate::Barest,
    Candidate::Director,
];

impl Candidate {
    fn word(self) -> &'static str {
        match self {
            Self::Forwarding => "forwarding",
            Self::Nftables => "nftables",
            Self::Barest => "barest",
            Self::Director => "director",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Forwarding => "kernel forwarding",
            Self::Nftables => "nftables DNAT",
            Self::Barest => "barest ring loop",
            Self::Director => "director, ring, NAT",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Packets or bytes a second.
    pub(crate) rate: f64,
    /// Nanoseconds of the path's core for one of them.
    pub(crate) cost: f64,
    /// The part of the time in which the path's core was at work.
    pub(crate) load: f64,
}

struct Measured {
    candidate: Candidate,
    samples: [Vec<Sample>; 4],
}

impl Measured {
    fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            samples: Default::default(),
        }
    }

    /// The median of each figure by itself.
    fn median(&self, kind: usize) -> Option<Sample> {
        let median = |figure: fn(&Sample) -> f64| {
            let mut sorted: Vec<f64> = self.samples[kind].iter().map(figure).collect();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied()
        };
        Some(Sample {
            rate: median(|sample| sample.rate)?,
            cost: median(|sample| sample.cost)?,
            load: median(|sample| sample.load)?,
        })
    }
}

fn report(results: &[Measured]) {
    let tables = [
        (
            "64-byte UDP, 10,000 flows: the best of several paces",
            "packets/s",
            1.0,
            "ns/packet",
        ),
        ("the same, at a slow pace", "packets/s", 1.0, "ns/packet"),
        (
            "the same, much more than the path can take",
            "packets/s",
            1.0,
            "ns/packet",
        ),
        ("one TCP stream", "MB/s", 1e6, "ns/KiB"),
    ];
    for (kind, (title, unit, scale, cost)) in tables.into_iter().enumerate() {
        println!(
            "\n{title:<52}\n{:<22}{unit:>12}{:>8}{cost:>12}{:>8}{:>8}",
            "", "ratio", "ratio", "busy"
        );
        let base = results.first().and_then(|first| first.median(kind));
        for measured in results {
            let name = measured.candidate.name();
            let (Some(sample), Some(base)) = (measured.median(kind), base) else {
                println!("{name:<22} skipped");
                continue;
            };
            let per = if kind == 3 { 1024.0 } else { 1.0 };
            println!(
                "{name:<22}{:>12.0}{:>8.2}{:>12.0}{:>8.2}{:>7.0}%",
                sample.rate / scale,
                sample.rate / base.rate,
                sample.cost * per,
                sample.cost / base.cost,
                sample.load * 100.0
            );
        }
    }
}

/// How busy the machine is without us.
fn machine() -> io::Result<String> {
    let pause = Duration::from_millis(500);
    let before = [GENERATOR_CORE, PATH_CORE].map(stage::busy);
    thread::sleep(pause);
    let mut text = String::new();
    for (core, before) in [GENERATOR_CORE, PATH_CORE].into_iter().zip(before) {
        let busy = stage::busy(core)?.saturating_sub(before?);
        let percent = busy.as_secs_f64() / pause.as_secs_f64() * 100.0;
        text += &format!("core {core} {percent:.0} % busy, ");
    }
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: Vec<&str> = load.split_whitespace().take(1).collect();
    Ok(text + "load average " + &load.concat())
}

pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

pub(crate) fn print_mac(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map_while(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    bytes.try_into().ok()
}

pub(crate) const PORT: u16 = 9000;
pub(crate) const GENERATOR_CORE: usize = 0;
pub(crate) const PATH_CORE: usize = 1;
/// Packets a second where the path is not to be at its end.
const PACE: u32 = 150_000;
/// Beyond what a path can take, what it forwards goes down again: receiving what is then dropped takes the time.
const PACES: [u32; 10] = [
    200_000, 250_000, 300_000, 350_000, 400_000, 500_000, 600_000, 700_000, 850_000, 1_000_000,
];
