//! A large configuration from text to model, and the changes from one to another.
//!
//! ```text
//! cargo bench -p lvs-benches --bench conf              # times, then the comparison
//! cargo bench -p lvs-benches --bench conf -- beside    # only the comparison
//! ```
//!
//! The comparison reads each file once in this process, and once with `keepalived -t` where that is installed (for at
//! most two minutes), and prints times, their ratio, and memory as a multiple of the file.

#![allow(missing_docs)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use lvs_conf::diff::diff;
use lvs_conf::{Config, NoFiles, Options, Parsed, SourceMap, lower, parse};

const SIZES: [usize; 3] = [100, 1_000, 10_000];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let is_test = has("--test") || !has("--bench");
    let mut wanted = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'));
    let comparison = wanted
        .clone()
        .any(|filter| COMPARISON.contains(filter.as_str()));
    if wanted.next().is_none() || comparison {
        // The smallest first: the peak of memory is that of the process.
        let sizes = if is_test { &SIZES[..1] } else { &SIZES };
        for size in sizes {
            beside_the_original(*size);
        }
    }
    if !comparison {
        let mut criterion = Criterion::default()
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1))
            .sample_size(10)
            .configure_from_args();
        phases(&mut criterion, if is_test { &SIZES[..1] } else { &SIZES });
        criterion.final_summary();
    }
}

/// What the comparison answers to.
const COMPARISON: &str = "beside keepalived";

fn phases(criterion: &mut Criterion, sizes: &[usize]) {
    let mut group = criterion.benchmark_group("configuration");
    let options = Options::default();
    for size in sizes.iter().copied() {
        let text = generate(size);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("parse", size), |b| {
            b.iter_with_large_drop(|| read(black_box(&text)));
        });
        let parsed = read(&text);
        group.bench_function(BenchmarkId::new("lower", size), |b| {
            b.iter_with_large_drop(|| lower(black_box(&parsed.tree), &options));
        });
        let (config, _) = lower(&parsed.tree, &options);
        group.bench_function(BenchmarkId::new("diff, nothing changed", size), |b| {
            b.iter(|| diff(black_box(&config), black_box(&config)));
        });
        let other = shuffled(&config);
        group.bench_function(BenchmarkId::new("diff, one in ten changed", size), |b| {
            b.iter(|| diff(black_box(&config), black_box(&other)));
        });
    }
    group.finish();
}

fn read(text: &str) -> Parsed {
    let mut sources = SourceMap::new();
    let main = sources.add("generated.conf", text);
    parse(&mut sources, main, &NoFiles, &Options::default())
}

/// The same in another order, and every tenth service with another weight.
fn shuffled(config: &Config) -> Config {
    let mut config = config.clone();
    config.virtual_servers.reverse();
    for server in config.virtual_servers.iter_mut().step_by(10) {
        if let Some(server) = server.real_servers.first_mut() {
            server.weight += 1;
        }
    }
    config
}

fn beside_the_original(size: usize) {
    let text = generate(size);
    let bytes = text.len();
    let before = peak_memory();
    let start = Instant::now();
    let mut sources = SourceMap::new();
    let main = sources.add("generated.conf", text.as_str());
    let options = Options::default();
    let parsed = parse(&mut sources, main, &NoFiles, &options);
    let parse_time = start.elapsed();
    let (config, findings) = lower(&parsed.tree, &options);
    let lower_time = start.elapsed();
    let changes = diff(&config, &config).len();
    let total = start.elapsed();
    let memory = peak_memory()
        .zip(before)
        .map(|(after, before)| after - before);
    assert_eq!(
        (
            config.virtual_servers.len(),
            parsed.diagnostics.len() + findings.len(),
            changes
        ),
        (size, 0, 0),
        "the file is in order"
    );
    print!(
        "{size} virtual servers, {:.1} MB: parse {parse_time:.1?}, lower {:.1?}, diff {:.1?}, total {total:.1?}",
        bytes as f64 / 1e6,
        lower_time - parse_time,
        total - lower_time,
    );
    if let Some(memory) = memory {
        print!(
            ", {:.1} MB of memory ({:.1} x the file)",
            memory as f64 / 1e6,
            memory as f64 / bytes as f64
        );
    }
    match original(&text) {
        Some(Ok(theirs)) => println!(
            "; keepalived -t {theirs:.1?}, {:.0} x as long",
            theirs.as_secs_f64() / total.as_secs_f64()
        ),
        Some(Err(limit)) => println!(
            "; keepalived -t more than {limit:.0?}, over {:.0} x as long",
            limit.as_secs_f64() / total.as_secs_f64()
        ),
        None => println!("; skipped keepalived -t, it is not installed"),
    }
}

/// How long the original takes, or the limit that it did not keep.
fn original(text: &str) -> Option<Result<Duration, Duration>> {
    let path = std::env::temp_dir().join(format!("lvs-bench-conf-{}.conf", std::process::id()));
    std::fs::write(&path, text).ok()?;
    let start = Instant::now();
    let child = Command::new("keepalived")
        .arg("-t")
        .arg("-f")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let result = child.ok().map(|mut child| {
        loop {
            if !matches!(child.try_wait(), Ok(None)) {
                return Ok(start.elapsed());
            }
            if start.elapsed() > LIMIT {
                // It may have ended in between.
                let _ = child.kill();
                let _ = child.wait();
                return Err(LIMIT);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let _ = std::fs::remove_file(&path);
    result
}

/// The most memory that the process had so far, in bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

const LIMIT: Duration = Duration::from_secs(120);

/// So many virtual servers with ten real servers each, every one with an HTTP checker; about 3 KiB a virtual server.
fn generate(services: usize) -> String {
    let mut text = String::from("! generated\nglobal_defs {\n    router_id generated\n}\n");
    for service in 0..services {
        let (high, low) = (service / 250, service % 250 + 1);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nvirtual_server 10.1.{high}.{low} 80 {{
    delay_loop 6
    lb_algo wlc
    lb_kind NAT
    persistence_timeout 600
    protocol TCP
    quorum 3
    hysteresis 1
"
        );
        for server in 0..SERVERS {
            let _ = write!(
                text,
                "
    real_server 10.{}.{high}.{low} 8080 {{
        weight {}
        inhibit_on_failure
        HTTP_GET {{
            url {{
                path /health/{service}
                status_code 200
            }}
            connect_timeout 3
            retry 3
            delay_before_retry 2
        }}
    }}
",
                server + 100,
                server + 1
            );
        }
        text.push_str("}\n");
    }
    text
}

const SERVERS: usize = 10;
