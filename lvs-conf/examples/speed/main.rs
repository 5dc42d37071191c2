//! How long a large configuration takes from text to model and to the changes against itself, and how much memory.
//!
//! ```text
//! cargo run --release -p lvs-conf --example speed            # 100, 1000 and 10 000 virtual servers
//! cargo run --release -p lvs-conf --example speed -- 1000    # one size
//! cargo run --release -p lvs-conf --example speed -- 1000 --write FILE
//! ```
//!
//! Where keepalived is installed, `keepalived -t` reads the same file in the same run, for at most two minutes.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lvs_conf::diff::diff;
use lvs_conf::{NoFiles, Options, SourceMap, lower, parse};

mod generate;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let size = arguments.first().and_then(|size| size.parse().ok());
    if let (Some(size), Some(path)) = (size, arguments.get(2)) {
        if let Err(error) = std::fs::write(path, generate::generate(size)) {
            eprintln!("{path}: {error}");
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    }
    for size in size.map_or_else(|| vec![100, 1000, 10_000], |size| vec![size]) {
        measure(size);
    }
    ExitCode::SUCCESS
}

fn measure(size: usize) {
    let text = generate::generate(size);
    let bytes = text.len();
    let before = peak_memory();
    let start = Instant::now();
    let mut sources = SourceMap::new();
    let main = sources.add("generated.conf", text.as_str());
    let options = Options::default();
    let parsed = parse(&mut sources, main, &NoFiles, &options);
    let parse_time = start.elapsed();
    let parse_memory = peak_memory()
        .zip(before)
        .map(|(after, before)| after - before);
    let (config, findings) = lower(&parsed.tree, &options);
    let lower_time = start.elapsed();
    let changes = diff(&config, &config).len();
    let total = start.elapsed();
    let memory = peak_memory()
        .zip(before)
        .map(|(after, before)| after - before);
    println!(
        "{size} virtual servers, {:.1} MB: parse {:.0?}, lower {:.0?}, diff {:.0?}, total {total:.0?}",
        bytes as f64 / 1e6,
        parse_time,
        lower_time - parse_time,
        total - lower_time,
    );
    println!(
        "  {} virtual servers, {} findings, {changes} changes",
        config.virtual_servers.len(),
        parsed.diagnostics.len() + findings.len()
    );
    if let (Some(parse), Some(memory)) = (parse_memory, memory) {
        println!(
            "  memory {:.1} MB, {:.1}x the file; {:.1}x after parsing",
            memory as f64 / 1e6,
            memory as f64 / bytes as f64,
            parse as f64 / bytes as f64
        );
    }
    match original(&text) {
        Some(Ok(theirs)) => println!(
            "  keepalived -t {theirs:.1?}, {:.0}x as long",
            theirs.as_secs_f64() / total.as_secs_f64()
        ),
        Some(Err(limit)) => println!(
            "  keepalived -t more than {limit:.0?}, over {:.0}x as long",
            limit.as_secs_f64() / total.as_secs_f64()
        ),
        None => println!("  keepalived is not installed"),
    }
}

/// How long the original takes, or the limit that it did not keep.
fn original(text: &str) -> Option<Result<Duration, Duration>> {
    let path = std::env::temp_dir().join(format!("lvs-conf-speed-{}.conf", std::process::id()));
    std::fs::write(&path, text).ok()?;
    let start = Instant::now();
    let child = Command::new("keepalived")
        .arg("-t")
        .arg("-f")
        .arg(&path)
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
            std::thread::sleep(Duration::from_millis(2));
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
