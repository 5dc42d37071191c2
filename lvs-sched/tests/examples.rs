//! The examples, as a reader runs them: what they print is what they promise.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test outside of a test function")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Builds an example, which `cargo test --test examples` alone does not, in the profile of this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "build",
        "--quiet",
        "--locked",
        "-p",
        "lvs-sched",
        "--example",
        name,
    ]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let target = profile.parent().unwrap();
    assert!(
        cargo
            .env("CARGO_TARGET_DIR", target)
            .status()
            .unwrap()
            .success()
    );
    profile.join("examples").join(name)
}

fn output(name: &str) -> String {
    let output = Command::new(example(name)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn own_scheduler_sends_clients_to_the_nearest_server() {
    assert_eq!(
        output("own_scheduler"),
        "10.1.7.7:4000 -> 10.1.0.9:80\n\
         10.2.7.7:4000 -> 10.2.0.9:80\n\
         192.0.2.77:4000 -> 192.0.2.9:80\n\
         10.1.7.7:4000 -> 10.1.0.9:80\n\
         10.2.7.7:4000 -> 10.1.0.9:80\n\
         192.0.2.77:4000 -> 192.0.2.9:80\n"
    );
}

#[test]
fn drain_waits_for_connections_and_then_ends_the_rest() {
    let output = output("drain");
    let lines: Vec<_> = output.lines().collect();
    let left = |line: &&str| line.strip_suffix(" left")?.parse().ok();
    let left: Vec<u32> = lines.iter().filter_map(left).collect();
    assert!(
        left.is_sorted_by(|before, after| before >= after),
        "{output}"
    );
    assert_eq!(left.last(), Some(&0), "{output}");
    // Two of the five are longer than its patience; on a busy machine more may be.
    let forced = lines.iter().find_map(|line| {
        let rest = line.strip_prefix("Forced(Remaining { active: ")?;
        let count = rest.strip_suffix(", inactive: 0, persistent: 0 })")?;
        count.parse().ok()
    });
    let told = "a connection to 192.0.2.1:80 was told to end";
    let told = lines.iter().filter(|line| **line == told).count();
    assert_eq!(forced, Some(told), "{output}");
    assert!(told >= 2, "{output}");
}

#[test]
fn tcp_proxy_gives_each_connection_to_the_server_with_the_fewest() {
    let mut proxy = Proxy::start("tcp_proxy");
    proxy.balances();
}

#[test]
fn tcp_proxy_on_tokio_balances_and_drains() {
    let mut proxy = Proxy::start("tcp_proxy_tokio");
    proxy.balances();
    // Control-C.
    let pid = proxy.child.id().to_string();
    let interrupted = Command::new("sh")
        .args(["-c", "kill -INT \"$0\"", &pid])
        .status();
    assert!(interrupted.unwrap().success());
    let drained: BTreeSet<_> = (0..2).map(|_| proxy.line()).collect();
    let expected = proxy.servers.map(|server| format!("{server}: Some(Done)"));
    assert_eq!(drained, BTreeSet::from(expected));
    assert!(proxy.child.wait().unwrap().success());
}

/// A proxy before two servers that send back what they get, with their port in front.
struct Proxy {
    child: Child,
    lines: BufReader<ChildStdout>,
    addr: SocketAddr,
    servers: [SocketAddr; 2],
}

impl Proxy {
    fn start(name: &str) -> Self {
        let servers = [(); 2].map(|()| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            std::thread::spawn(move || {
                for client in listener.incoming() {
                    let _ = client.and_then(|client| echo(client, addr));
                }
            });
            addr
        });
        let mut child = Command::new(example(name))
            .arg("127.0.0.1:0")
            .args(servers.map(|server| server.to_string()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut proxy = Self {
            lines: BufReader::new(child.stdout.take().unwrap()),
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            servers,
        };
        let line = proxy.line();
        proxy.addr = line.strip_prefix("listening on ").unwrap().parse().unwrap();
        proxy
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn balances(&mut self) {
        let [first, second] = self.servers;
        let mut open = Vec::new();
        // The newest server comes first among equals.
        for (server, active) in [(second, 1), (first, 1), (second, 2)] {
            let mut client = TcpStream::connect(self.addr).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            client.write_all(b"hello\n").unwrap();
            let expected = format!("{} hello\n", server.port());
            let mut answer = vec![0; expected.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), expected);
            let expected = format!("a connection goes to {server}, which has {active}");
            assert_eq!(self.line(), expected);
            open.push(client);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line to and fro, then the end from both sides.
fn echo(mut client: TcpStream, addr: SocketAddr) -> std::io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?);
    std::thread::spawn(move || -> std::io::Result<()> {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        write!(client, "{} {line}", addr.port())?;
        lines.read_to_string(&mut line)?;
        client.shutdown(std::net::Shutdown::Write)
    });
    Ok(())
}
