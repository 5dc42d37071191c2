//! The data path beside what else forwards packets: plain kernel forwarding, balancing by nftables DNAT, and the barest
//! loop over each kind of device.
//!
//! ```text
//! cargo run --release -p lvs-benches --bin net            # about ten minutes; needs root for cores of their own
//! cargo run --release -p lvs-benches --bin net -- --quick # a few seconds, to see that it runs
//! cargo run --release -p lvs-benches --bin net -- --rounds 3 --seconds 0.5 forwarding barest director-xdp-nat
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
mod candidate;
mod report;
mod stage;
mod sys;

use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, thread};

use candidate::Candidate;
use director::cli::RunOptions;
use director::devices::Choice;
use director::logging::LogOptions;
use report::{Measured, Task};
use rustix::thread::{CpuSet, sched_setaffinity};
use stage::{Packets, SERVERS, Stage};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run-director", device, workers, file] => run_director(device, workers, file),
        ["run-barest", device, server, client] => run_barest(device, server, client),
        _ => match Plan::parse(&arguments) {
            Some(plan) => compare(&plan),
            None => {
                let words: Vec<String> =
                    Candidate::all().into_iter().map(Candidate::word).collect();
                eprintln!(
                    "usage: net [--quick] [--rounds N] [--seconds S] [CANDIDATE]...\n\
                     candidates, or what they begin with: {}",
                    words.join(" ")
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
    paces: &'static [u32],
    candidates: Vec<Candidate>,
}

impl Plan {
    fn parse(arguments: &[String]) -> Option<Self> {
        let mut plan = Self {
            rounds: 5,
            time: Duration::from_secs(1),
            paces: &PACES,
            candidates: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => {
                    (plan.rounds, plan.time) = (1, Duration::from_millis(100));
                    plan.paces = &PACES[2..4];
                }
                "--rounds" => plan.rounds = arguments.next()?.parse().ok()?,
                "--seconds" => {
                    let seconds = arguments.next()?.parse().ok()?;
                    plan.time = Duration::try_from_secs_f64(seconds).ok()?;
                }
                word => {
                    let named = Candidate::named(word);
                    if named.is_empty() {
                        return None;
                    }
                    plan.candidates.extend(named);
                }
            }
        }
        if plan.candidates.is_empty() {
            plan.candidates = Candidate::all();
        }
        Some(plan)
    }
}

/// This program again, as the director under measurement.
fn run_director(device: &str, workers: &str, file: &str) -> io::Result<()> {
    pin(PATH_CORE)?;
    let options = RunOptions {
        file: PathBuf::from(file),
        config_id: None,
        log: LogOptions {
            console: true,
            ..LogOptions::default()
        },
        namespace: None,
        pid_file: None,
        without_vrrp: false,
        dump_config: false,
        remarks: Vec::new(),
        workers: workers.parse().map_err(io::Error::other)?,
        device: choice(device)?,
        ring_slots: NonZeroU32::new(barest::SLOTS).expect("it is not zero"),
        local_ports: lvs_fwd::view::LOCAL_PORTS,
    };
    director::app::run(options).map_err(io::Error::other)
}

/// This program again, as the barest loop.
fn run_barest(device: &str, server: &str, client: &str) -> io::Result<()> {
    pin(PATH_CORE)?;
    let parse = |text| parse_mac(text).ok_or(io::ErrorKind::InvalidInput);
    barest::run(choice(device)?, SERVERS[0], parse(server)?, parse(client)?)
}

fn choice(word: &str) -> io::Result<Choice> {
    Choice::from_word(word).ok_or_else(|| io::ErrorKind::InvalidInput.into())
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
            for (task, packets) in [(Task::Udp, Packets::Udp), (Task::Ack, Packets::Ack)] {
                let mut best: Option<Sample> = None;
                for pace in plan.paces {
                    let sample = stage.flood(candidate, packets, Some(*pace), plan.time / 4)?;
                    match best {
                        // It only gets worse from there.
                        Some(best) if sample.rate < best.rate * PAST_ITS_BEST => break,
                        Some(best) if sample.rate <= best.rate => {}
                        _ => best = Some(sample),
                    }
                }
                measured.add(task, best.ok_or(io::ErrorKind::InvalidInput)?);
            }
            let paced = stage.flood(candidate, Packets::Udp, Some(PACE), plan.time)?;
            measured.add(Task::Paced, paced);
            let flood = stage.flood(candidate, Packets::Udp, None, plan.time / 4)?;
            measured.add(Task::Flood, flood);
            if candidate.is_two_way() {
                measured.add(Task::Stream, stage.streams(candidate, 1, plan.time)?);
                measured.add(Task::Streams, stage.streams(candidate, 16, plan.time)?);
                measured.add_latency(stage.latency(candidate, plan.time)?);
            }
            stage.stop(running)?;
        }
    }
    report::print(&results);
    println!("the machine after: {}", machine()?);
    Ok(())
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
/// A rate that is so much lower than the best one is no accident.
const PAST_ITS_BEST: f64 = 0.8;
/// Beyond what a path can take, what it forwards goes down again: receiving what is then dropped takes the time.
const PACES: [u32; 10] = [
    200_000, 250_000, 300_000, 350_000, 400_000, 500_000, 600_000, 700_000, 850_000, 1_000_000,
];
