//! A checker of your own: a Redis server is up when it answers PING with PONG.
//!
//! Run it with `cargo run -p lvs-health --example own_checker`. It needs no server and no privilege, as the answers
//! are played here, and prints
//!
//! ```text
//! up
//! down: redis said: -LOADING dataset
//! ```

use lvs_health::{
    Attempt, Checker, CheckerConfig, Command, ConnectOptions, Event, Failure, Monitor, Next,
    Outcome, ServerConfig, Start, Timing,
};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct RedisCheck {
    line: Vec<u8>,
}

impl Checker for RedisCheck {
    fn name(&self) -> &'static str {
        "REDIS_CHECK"
    }

    fn begin(&mut self, _: &Attempt) -> Start {
        self.line.clear();
        Start::default()
    }

    fn handle_connected(&mut self) -> Next {
        Next::Send("PING\r\n".into())
    }

    fn handle_data(&mut self, data: &[u8]) -> Next {
        // A reply may come in pieces, and a hostile one may never end.
        self.line.extend_from_slice(&data[..data.len().min(512)]);
        match self.line.iter().position(|byte| *byte == b'\r') {
            Some(end) if &self.line[..end] == b"+PONG" => Next::Done(Outcome::Up),
            None if self.line.len() < 512 => Next::Wait,
            end => {
                let text = String::from_utf8_lossy(&self.line[..end.unwrap_or(512)]);
                let reason = format!("redis said: {text}");
                Next::Done(Outcome::Down(Failure::Other(reason.into())))
            }
        }
    }
}

fn main() {
    let mut now = Instant::now();
    let mut monitor = Monitor::new(1);
    let timing = Timing {
        retry: 0,
        warmup: Duration::ZERO,
        ..Timing::default()
    };
    let there = ConnectOptions::to(([192, 0, 2, 7], 6379).into());
    let checker = CheckerConfig::new(RedisCheck::default(), there, timing);
    monitor.add_server(now, ServerConfig::new(vec![checker]));

    for reply in ["+PONG\r\n", "-LOADING dataset\r\n"] {
        now = monitor.poll_timeout().unwrap_or(now);
        monitor.handle_timeout(now);
        while let Some(command) = monitor.poll_command() {
            match command {
                Command::Connect { probe, .. } => monitor.handle_connected(now, probe, Ok(())),
                Command::Send { probe, .. } => monitor.handle_data(now, probe, reply.as_bytes()),
                _ => {}
            }
        }
        while let Some(event) = monitor.poll_event() {
            match event {
                Event::CheckerUp { .. } => println!("up"),
                Event::CheckerDown { failure, .. } => println!("down: {failure}"),
                _ => {}
            }
        }
    }
}
