//! Taking a server out without cutting anybody off, until patience ends.
//!
//! ```text
//! cargo run -p lvs-sched --example drain
//! ```
//!
//! Expect the number of connections left to fall, and those that are still there after 300 ms to be
//! told that they end.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lvs_sched::{Lease, ServerConfig, ServiceConfig, VirtualService};

fn main() -> Result<(), Box<dyn Error>> {
    let service = Arc::new(VirtualService::new(ServiceConfig::default()));
    let old: SocketAddr = "192.0.2.1:80".parse()?;
    service.add_server(old, ServerConfig::default())?;

    // Connections of different lengths; the last ones are longer than our patience.
    let mut connections = Vec::new();
    for length in [50, 100, 150, 1_000, 2_000] {
        let lease = service.connect(SocketAddr::from(([198, 51, 100, 7], 4000)))?;
        connections.push(thread::spawn(move || {
            serve(&lease, Duration::from_millis(length));
        }));
    }
    service.add_server("192.0.2.2:80".parse()?, ServerConfig::default())?;

    let mut drain = service.drain(old, Instant::now() + Duration::from_millis(300))?;
    let outcome = loop {
        drain.handle_timeout(Instant::now());
        if let Some(outcome) = drain.poll_event() {
            break outcome;
        }
        println!("{} left", drain.remaining().active);
        thread::sleep(Duration::from_millis(60));
    };
    println!("{outcome:?}");
    for connection in connections {
        let _ = connection.join();
    }
    println!("{} left", drain.remaining().active);
    service.remove_server(old)?;
    Ok(())
}

/// A connection that looks now and then whether it has to end.
fn serve(lease: &Lease, length: Duration) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        if lease.is_ended() {
            println!("a connection to {} was told to end", lease.addr());
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
