//! A TCP proxy in one screen: std threads, and a lease for each connection.
//!
//! ```text
//! cargo run -p lvs-sched --example tcp_proxy -- 127.0.0.1:8080 127.0.0.1:9001 127.0.0.1:9002
//! ```
//!
//! Expect each new connection at the server that has the fewest, and a line about it.

use std::error::Error;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use lvs_sched::{Lease, ServerConfig, ServiceConfig, VirtualService};

fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses = std::env::args().skip(1);
    let listen = addresses
        .next()
        .ok_or("usage: tcp_proxy LISTEN SERVER...")?;
    let service = Arc::new(VirtualService::new(ServiceConfig {
        scheduler: "wlc".parse()?,
        ..ServiceConfig::default()
    }));
    for server in addresses {
        service.add_server(server.parse()?, ServerConfig::default())?;
    }
    let listener = TcpListener::bind(listen)?;
    println!("listening on {}", listener.local_addr()?);
    for client in listener.incoming() {
        let client = client?;
        let Ok(lease) = service.connect(client.peer_addr()?) else {
            continue;
        };
        thread::spawn(move || {
            let (server, active) = (lease.addr(), lease.server().active());
            println!("a connection goes to {server}, which has {active}");
            if let Err(error) = relay(client, lease) {
                println!("{server}: {error}");
            }
        });
    }
    Ok(())
}

/// Copies both ways until both sides are done; the connection counts until then.
fn relay(client: TcpStream, lease: Lease) -> io::Result<()> {
    let server = TcpStream::connect(lease.addr())?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let upstream = thread::spawn(move || copy(from_client, to_server));
    copy(server, client)?;
    upstream.join().unwrap_or(Ok(()))
}

fn copy(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}
