//! A checker of your own on real sockets, and a pool that follows it: a Redis server is up when it answers PING with PONG.
//!
//! Run it with `cargo run -p embed --bin own_checker`. It plays the server itself, needs no privilege, and prints
//!
//! ```text
//! Add { server: ServerId(0), weight: 3 }
//! redis says PONG
//! Delete { server: ServerId(0) }: redis said -LOADING dataset
//! Add { server: ServerId(0), weight: 3 }
//! ```

use lvs_health::{
    Attempt, Change, Checker, CheckerConfig, ConnectOptions, Driver, DriverOptions, Event, Failure,
    MemberConfig, Next, Outcome, Pool, PoolConfig, ServerConfig, Start, Timing,
};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// One attempt's conversation: connected, say PING; data, judge the line.
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
                let said = String::from_utf8_lossy(&self.line[..end.unwrap_or(512)]);
                let reason = format!("redis said {said}");
                Next::Done(Outcome::Down(Failure::Other(reason.into())))
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut driver = Driver::new(DriverOptions::new(1))?;
    let timing = Timing {
        delay_loop: Duration::from_millis(200),
        retry: 0,
        warmup: Duration::ZERO,
        ..Timing::default()
    };
    let there = ConnectOptions::to(redis()?);
    let checker = CheckerConfig::new(RedisCheck::default(), there, timing);
    let server = driver.add_server(ServerConfig::new(vec![checker]));

    // What stands in a virtual service's table; a program of your own carries the changes out.
    let mut pool = Pool::new(PoolConfig::default());
    let member = MemberConfig {
        weight: 3,
        inhibit: false,
    };
    pool.add_server(server, member, true)
        .map_err(io::Error::other)?;
    let told = |changes: Vec<Change<_>>, why: &str| {
        for change in changes {
            if matches!(change, Change::Add { .. } | Change::Delete { .. }) {
                println!("{change:?}{why}");
            }
        }
    };
    told(pool.start(), "");
    loop {
        match driver.next_event().await {
            Event::CheckerUp { .. } if pool.has_quorum() => println!("redis says PONG"),
            Event::ServerDown {
                server, failure, ..
            } => {
                let changes = pool.handle_server_down(server).map_err(io::Error::other)?;
                told(changes, &format!(": {failure}"));
            }
            Event::ServerUp { server } => {
                told(pool.handle_server_up(server).map_err(io::Error::other)?, "");
                return Ok(());
            }
            _ => {}
        }
    }
}

/// A server that loads its data at every second and third question.
fn redis() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = stream;
            let mut question = [0; 64];
            let _ = stream.read(&mut question);
            let answer = match number {
                1 | 2 => "-LOADING dataset\r\n",
                _ => "+PONG\r\n",
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Ok(address)
}
