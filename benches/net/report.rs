//! Medians, and their ratios.

use crate::Sample;
use crate::candidate::Candidate;

/// What is asked of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Udp,
    Ack,
    Paced,
    Flood,
    Stream,
    Streams,
}

pub(crate) struct Measured {
    pub(crate) candidate: Candidate,
    samples: [Vec<Sample>; TASKS.len()],
    /// Median and 99th percentile of each round, in microseconds.
    latencies: Vec<(f64, f64)>,
}

impl Measured {
    pub(crate) fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            samples: Default::default(),
            latencies: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, task: Task, sample: Sample) {
        self.samples[task as usize].push(sample);
    }

    pub(crate) fn add_latency(&mut self, latency: (f64, f64)) {
        self.latencies.push(latency);
    }

    /// The median of each figure by itself.
    fn median(&self, task: usize) -> Option<Sample> {
        let samples = &self.samples[task];
        let median = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
        Some(Sample {
            rate: median(|sample| sample.rate)?,
            cost: median(|sample| sample.cost)?,
            load: median(|sample| sample.load)?,
        })
    }
}

/// Tables of all that was measured, each beside the first candidate; directors beside the barest loop over their device, too.
pub(crate) fn print(results: &[Measured]) {
    for (task, (title, unit, scale, cost, per)) in TASKS.into_iter().enumerate() {
        println!(
            "\n{title:<52}\n{:<28}{unit:>10}{:>8}{:>8}{cost:>12}{:>8}{:>8}",
            "", "ratio", "limit", "ratio", "busy"
        );
        let base = results.first().and_then(|first| first.median(task));
        for measured in results {
            let name = measured.candidate;
            let (Some(sample), Some(base)) = (measured.median(task), base) else {
                continue;
            };
            let limit = name.limit().and_then(|limit| {
                let limit = results.iter().find(|other| other.candidate == limit)?;
                Some(format!("{:.2}", sample.rate / limit.median(task)?.rate))
            });
            println!(
                "{name:<28}{:>10.0}{:>8.2}{:>8}{:>12.0}{:>8.2}{:>7.0}%",
                sample.rate / scale,
                sample.rate / base.rate,
                limit.unwrap_or_default(),
                sample.cost * per,
                sample.cost / base.cost,
                sample.load * 100.0
            );
        }
    }
    println!(
        "\n{:<52}\n{:<28}{:>10}{:>8}{:>12}{:>8}",
        "one byte there and back over TCP", "", "p50 µs", "ratio", "p99 µs", "ratio"
    );
    let latency = |measured: &Measured| {
        let half = median(measured.latencies.iter().map(|it| it.0))?;
        Some((half, median(measured.latencies.iter().map(|it| it.1))?))
    };
    let base = results.first().and_then(latency);
    for measured in results {
        if let (Some((half, most)), Some(base)) = (latency(measured), base) {
            println!(
                "{:<28}{half:>10.1}{:>8.2}{most:>12.1}{:>8.2}",
                measured.candidate,
                half / base.0,
                most / base.1
            );
        }
    }
}

pub(crate) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Title, unit, what it is divided by, unit of the cost, and what that is multiplied with.
const TASKS: [(&str, &str, f64, &str, f64); 6] = [
    (
        "64-byte UDP, 10,000 flows: the best of several paces",
        "packets/s",
        1.0,
        "ns/packet",
        1.0,
    ),
    (
        "64-byte TCP segments, 10,000 flows: the same",
        "packets/s",
        1.0,
        "ns/packet",
        1.0,
    ),
    (
        "64-byte UDP at a slow pace",
        "packets/s",
        1.0,
        "ns/packet",
        1.0,
    ),
    (
        "64-byte UDP, much more than the path can take",
        "packets/s",
        1.0,
        "ns/packet",
        1.0,
    ),
    ("one TCP stream", "MB/s", 1e6, "ns/KiB", 1024.0),
    ("16 TCP streams", "MB/s", 1e6, "ns/KiB", 1024.0),
];
