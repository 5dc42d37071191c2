//! The TCP proxy on tokio: a lease for each connection, and a drain that ends them.
//!
//! ```text
//! cargo run -p lvs-sched --example tcp_proxy_tokio -- 127.0.0.1:8080 127.0.0.1:9001 127.0.0.1:9002
//! ```
//!
//! Expect each new connection at the server that has the fewest, and a line about it. Control-C
//! drains all servers for five seconds and ends what is left.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lvs_sched::{Lease, ServerConfig, ServiceConfig, VirtualService};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses = std::env::args().skip(1);
    let listen = addresses
        .next()
        .ok_or("usage: tcp_proxy_tokio LISTEN SERVER...")?;
    let service = Arc::new(VirtualService::new(ServiceConfig {
        scheduler: "wlc".parse()?,
        ..ServiceConfig::default()
    }));
    for server in addresses {
        service.add_server(server.parse()?, ServerConfig::default())?;
    }
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, peer) = accepted?;
                if let Ok(lease) = service.connect(peer) {
                    connections.spawn(serve(client, peer, lease));
                }
            }
            Some(_) = connections.join_next() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    for server in service.servers() {
        let mut drain = service.drain(server.addr(), None)?;
        if tokio::time::timeout(Duration::from_secs(5), &mut drain)
            .await
            .is_err()
        {
            drain.force();
        }
        println!("{}: {:?}", server.addr(), drain.poll_event());
    }
    connections.join_all().await;
    Ok(())
}

async fn serve(client: TcpStream, peer: SocketAddr, lease: Lease) {
    let (server, active) = (lease.addr(), lease.server().active());
    println!("a connection goes to {server}, which has {active}");
    tokio::select! {
        result = relay(client, lease.addr()) => {
            if let Err(error) = result {
                println!("{}: {error}", lease.addr());
            }
        }
        () = lease.ended() => println!("{peer} was ended"),
    }
}

async fn relay(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
