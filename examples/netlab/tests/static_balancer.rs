//! The balancer of lvs-fwd's example, between real TCP stacks.
#![allow(clippy::unwrap_used)] // without the test harness clippy does not see that this is a test

#[allow(missing_docs, unreachable_pub)]
#[path = "../../../lvs-fwd/examples/static.rs"]
mod balancer;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use netlab::{Bridge, HttpServer, Namespace, veth};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Err(error) = netlab::enter() {
        println!("skipped: no network namespaces here ({error})");
        return ExitCode::SUCCESS;
    }
    let name = "each_client_keeps_its_server_and_all_servers_have_clients";
    let trial = Trial::test(name, || {
        each_client_keeps_its_server_and_all_servers_have_clients();
        Ok(())
    });
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

fn each_client_keeps_its_server_and_all_servers_have_clients() {
    let [client, director, switch] =
        ["client", "director", "switch"].map(|name| Namespace::new(name).unwrap());
    veth(
        (&client, "eth0", "198.51.100.10/24"),
        (&director, "ext0", "198.51.100.1/24"),
    )
    .unwrap();
    for last in 11..30 {
        let address = format!("198.51.100.{last}/24");
        client.add_address("eth0", &address).unwrap();
    }
    let lan = Bridge::new(&switch, "lan").unwrap();
    lan.attach(&director, "int0", "10.1.0.1/24").unwrap();
    let servers: Vec<(Namespace, HttpServer)> = (1..=2)
        .map(|n| {
            let namespace = Namespace::new(&format!("rs{n}")).unwrap();
            let address = format!("10.1.0.{}/24", 10 + n);
            lan.attach(&namespace, "eth0", &address).unwrap();
            namespace.default_route("10.1.0.1").unwrap();
            let listen = SocketAddr::from(([10, 1, 0, 10 + n], 8080));
            let server = HttpServer::start(&namespace, listen, &format!("rs{n}")).unwrap();
            (namespace, server)
        })
        .collect();
    let service = SocketAddr::from(([198, 51, 100, 1], 80));
    let running = Arc::new(AtomicBool::new(true));
    let (own, rips) = (
        Arc::clone(&running),
        servers.iter().map(|(_, rs)| rs.addr()).collect(),
    );
    let balancer = director
        .spawn(move || balancer::balance(service, rips, &own).map_err(|error| error.to_string()))
        .unwrap();
    let mut names = BTreeSet::new();
    for last in 10..30 {
        let from = SocketAddr::from(([198, 51, 100, last], 0));
        let first = ask(&client, from, service);
        assert_eq!(
            first,
            ask(&client, from, service),
            "{from} keeps its server"
        );
        names.insert(first);
    }
    assert_eq!(names.len(), 2);
    running.store(false, Ordering::Relaxed);
    balancer.join().unwrap().unwrap();
}

/// Who answers this client. The balancer may have begun a moment ago only.
fn ask(namespace: &Namespace, from: SocketAddr, service: SocketAddr) -> String {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match namespace.run(|| get(from, service)) {
            Ok(name) => return name,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    }
}

fn get(from: SocketAddr, service: SocketAddr) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&service.into(), Duration::from_secs(1))?;
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let name = answer
        .lines()
        .find_map(|line| line.strip_prefix("X-Server: "));
    name.map(str::to_owned)
        .ok_or_else(|| std::io::Error::other(answer.clone()))
}
