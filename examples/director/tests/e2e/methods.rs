//! Every method over both families, with and without offloads: shares, transfers, datagrams in fragments, a narrow path,
//! refusals and the hops of a traceroute.
//!
//! ```text
//! client ── edge ──┬── lan1 ──┬── director ── lan2 (narrow if wanted) ──┬── servers
//!                  └──────────┴── answers of direct routing and tunnels ┘
//! ```

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netlab::{Bridge, Decapsulator, HttpServer, Namespace};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrAny, SocketType, ipproto, recv, recvfrom, socket, sockopt,
};

use crate::fullnat;
use crate::stage::{DEVICE, Director, has_xdp};

/// Every cell of the matrix. Those by AF_XDP that say what others do are left to longer runs.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    let devices = match has_xdp() {
        true => &["ring", "xdp"][..],
        false => {
            println!("skipped: every method with AF_XDP: BPF is not permitted");
            &["ring"]
        }
    };
    for method in ["NAT", "DR", "TUN", "FNAT"] {
        for (family, v6) in [("ipv4", false), ("ipv6", true)] {
            for &device in devices {
                for (offloads, on) in [("offloads", true), ("no_offloads", false)] {
                    let cell = Cell {
                        method,
                        v6,
                        device,
                        offloads: on,
                        // Each number of workers meets every method and family.
                        workers: 1 + u32::from(on != v6),
                    };
                    let name = format!("everything_works::{method}_{family}_{device}_{offloads}");
                    let trial = Trial::test(name, move || {
                        everything_works(cell);
                        Ok(())
                    });
                    let is_rest = device == "xdp" && on == matches!(method, "NAT" | "TUN");
                    trials.push(trial.with_ignored_flag(is_rest));
                }
            }
        }
    }
    for (name, v6) in [("ipv4", false), ("ipv6", true)] {
        let name = format!("gue_and_gre_servers_are_reached::{name}");
        trials.push(Trial::test(name, move || {
            gue_and_gre_servers_are_reached(v6);
            Ok(())
        }));
    }
    trials
}

/// One of the matrix.
#[derive(Clone, Copy)]
struct Cell {
    method: &'static str,
    v6: bool,
    device: &'static str,
    offloads: bool,
    workers: u32,
}

/// The networks: client's, outer and inner LAN.
#[derive(Clone, Copy)]
enum Net {
    Client,
    Outer,
    Inner,
}

pub(crate) struct Lab {
    v6: bool,
    pub(crate) client: Namespace,
    pub(crate) director: Namespace,
    edge: Namespace,
    _switches: [Namespace; 2],
    pub(crate) servers: Vec<Namespace>,
}

impl Lab {
    /// Servers' answers go back as the method needs it: with FULLNAT they know no way to the client at all.
    pub(crate) fn new(v6: bool, method: &str, offloads: bool, servers: u8) -> Self {
        let named = |name: &str| Namespace::new(name).unwrap();
        let switches = [named("switch1"), named("switch2")];
        let lab = Self {
            v6,
            client: named("client"),
            director: named("director"),
            edge: named("edge"),
            servers: (1..=servers).map(|n| named(&format!("rs{n}"))).collect(),
            _switches: switches,
        };
        let [outer, inner] = [
            Bridge::new(&lab._switches[0], "lan").unwrap(),
            Bridge::new(&lab._switches[1], "lan").unwrap(),
        ];
        let cidr = |net, host| format!("{}/{}", lab.addr(net, host), if v6 { 64 } else { 24 });
        netlab::veth(
            (&lab.client, "eth0", &cidr(Net::Client, 10)),
            (&lab.edge, "c0", &cidr(Net::Client, 1)),
        )
        .unwrap();
        outer
            .attach(&lab.edge, "l0", &cidr(Net::Outer, 254))
            .unwrap();
        outer
            .attach(&lab.director, "ext0", &cidr(Net::Outer, 1))
            .unwrap();
        inner
            .attach(&lab.director, "int0", &cidr(Net::Inner, 1))
            .unwrap();
        let mut ends = vec![
            (&lab.client, "eth0"),
            (&lab.edge, "c0"),
            (&lab.edge, "l0"),
            (&lab.director, "ext0"),
            (&lab.director, "int0"),
        ];
        for (n, server) in (11..).zip(&lab.servers) {
            inner.attach(server, "eth0", &cidr(Net::Inner, n)).unwrap();
            outer.attach(server, "eth1", &cidr(Net::Outer, n)).unwrap();
            let router = match method {
                "FNAT" => None,
                "NAT" => Some(lab.addr(Net::Inner, 1)),
                _ => Some(lab.addr(Net::Outer, 254)),
            };
            if let Some(router) = router {
                server.default_route(&router.to_string()).unwrap();
            }
            if is_direct(method) {
                server.sysctl("net.ipv4.conf.all.rp_filter", "0").unwrap();
                server.sysctl("net.ipv4.conf.eth0.rp_filter", "0").unwrap();
                server.hold_vip(&lab.vip().to_string()).unwrap();
            }
            ends.extend([(server, "eth0"), (server, "eth1")]);
        }
        for (namespace, interface) in ends {
            namespace.offloads(interface, offloads).unwrap();
        }
        lab.edge.forward().unwrap();
        lab.client
            .default_route(&lab.addr(Net::Client, 1).to_string())
            .unwrap();
        lab.director
            .default_route(&lab.addr(Net::Outer, 254).to_string())
            .unwrap();
        lab
    }

    fn addr(&self, net: Net, host: u8) -> IpAddr {
        let text = match (self.v6, net) {
            (true, Net::Client) => format!("2001:db8:c::{host}"),
            (true, Net::Outer) => format!("2001:db8:1::{host}"),
            (true, Net::Inner) => format!("2001:db8:2::{host}"),
            (false, Net::Client) => format!("203.0.113.{host}"),
            (false, Net::Outer) => format!("198.51.100.{host}"),
            (false, Net::Inner) => format!("10.1.0.{host}"),
        };
        text.parse().unwrap()
    }

    pub(crate) fn vip(&self) -> IpAddr {
        self.addr(Net::Outer, 100)
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(), port)
    }

    /// One service for each of these ports, all with every server.
    pub(crate) fn conf(&self, method: &str, services: &[(&str, u16, &str)]) -> String {
        let vip = self.vip();
        let mut text = format!(
            "vrrp_instance VI_1 {{\n    interface ext0\n    virtual_router_id 51\n    priority 255\n    virtual_ipaddress {{\n        {vip}/{}\n    }}\n}}\n",
            if self.v6 { 64 } else { 24 }
        );
        let locals = [200, 201].map(|host| self.addr(Net::Inner, host));
        if method == "FNAT" {
            let [one, two] = locals;
            writeln!(
                text,
                "local_address_group locals {{\n    {one} int0\n    {two} int0\n}}"
            )
            .unwrap();
        }
        for (protocol, port, check) in services {
            writeln!(
                text,
                "virtual_server {vip} {port} {{\n    delay_loop 1\n    lb_algo rr\n    lb_kind {method}\n    protocol {protocol}"
            )
            .unwrap();
            if method == "FNAT" {
                text.push_str("    laddr_group_name locals\n");
            }
            for n in (11..).take(self.servers.len()) {
                let rip = self.addr(Net::Inner, n);
                writeln!(
                    text,
                    "    real_server {rip} {port} {{\n        {check}    }}"
                )
                .unwrap();
            }
            text.push_str("}\n");
        }
        text
    }

    /// An address to listen at.
    fn any(&self) -> IpAddr {
        match self.v6 {
            true => IpAddr::from([0; 16]),
            false => IpAddr::from([0; 4]),
        }
    }

    fn inner_mtu(&self, mtu: u32) {
        let mut ends = vec![(&self.director, "int0")];
        ends.extend(self.servers.iter().map(|server| (server, "eth0")));
        for (namespace, interface) in ends {
            let mut netlink = namespace.netlink().unwrap();
            let index = netlink.link_by_name(interface).unwrap().index;
            netlink.set_mtu(index, mtu).unwrap();
        }
    }
}

const CHECK: &str = "TCP_CHECK {\n            connect_timeout 1\n            retry 1\n            delay_before_retry 1\n            warmup 0\n        }\n";

/// Whether servers answer clients without the director.
fn is_direct(method: &str) -> bool {
    matches!(method, "DR" | "TUN")
}

fn everything_works(cell: Cell) {
    DEVICE.set(cell.device);
    let Cell {
        method, offloads, ..
    } = cell;
    let lab = Lab::new(cell.v6, method, offloads, 2);
    let tunnels: std::io::Result<Vec<Decapsulator>> = match method {
        "TUN" => lab.servers.iter().map(Decapsulator::start).collect(),
        _ => Ok(Vec::new()),
    };
    let Ok(_tunnels) =
        tunnels.inspect_err(|error| println!("skipped: no TUN device here: {error}"))
    else {
        return;
    };
    let mut web = Vec::new();
    for (n, server) in lab.servers.iter().enumerate() {
        let any = |port| SocketAddr::new(lab.any(), port);
        web.push(HttpServer::start(server, any(80), &format!("rs{n}")).unwrap());
        let listener = server.run(|| TcpListener::bind(any(81))).unwrap();
        thread::spawn(move || swallow(&listener));
        // Bound to the address that clients know, or else answers would come from another one.
        let own = if is_direct(method) {
            lab.vip()
        } else {
            lab.any()
        };
        let socket = server.run(|| UdpSocket::bind((own, 53))).unwrap();
        thread::spawn(move || echo(&socket));
    }
    let services = [
        ("TCP", 80, CHECK),
        ("TCP", 81, CHECK),
        ("UDP", 53, ""),
        ("TCP", 82, ""),
        ("UDP", 82, ""),
    ];
    let _director = Director::start_in(&lab.director, &lab.conf(method, &services), cell.workers);

    shares(&lab);
    if method == "FNAT" {
        clients_are_named(&lab);
    }
    let shorter = if offloads { 50 << 20 } else { 10 << 20 };
    let wanted = std::env::var("TRANSFER_BYTES").ok();
    transfers(
        &lab,
        wanted.map_or(shorter, |text| text.parse().expect("a number of bytes")),
    );
    datagrams(&lab);
    refusals(&lab);
    hops(&lab);
    lab.inner_mtu(if method == "TUN" { 1340 } else { 1300 });
    // What the client has learnt of the path is for this address; larger segments must draw the error again.
    upload(&lab, 1 << 20);
}

/// One service for each kind of tunnel, from the file and by hand.
fn gue_and_gre_servers_are_reached(v6: bool) {
    DEVICE.set("auto");
    let lab = Lab::new(v6, "TUN", true, 1);
    let server = &lab.servers[0];
    let tunnel = match Decapsulator::start(server) {
        Ok(tunnel) => tunnel,
        Err(error) => return println!("skipped: no TUN device here: {error}"),
    };
    let _web: Vec<HttpServer> = (80..85)
        .map(|port| HttpServer::start(server, SocketAddr::new(lab.any(), port), "rs1").unwrap())
        .collect();
    let mut conf = String::new();
    for (kind, port) in [
        ("gue port 6080", 80),
        ("gue port 6080 csum", 81),
        ("gue port 6080 remcsum", 82),
        ("gre", 83),
        ("gre csum", 84),
    ] {
        let one = lab.conf(&format!("TUN type {kind}"), &[("TCP", port, "")]);
        conf += match conf.is_empty() {
            true => &one[..],
            false => &one[one.find("virtual_server ").unwrap()..],
        };
    }
    let director = Director::start_in(&lab.director, &conf, 1);
    let ask = |port| {
        let answer = lab
            .client
            .http_get(lab.at(port), "/bytes/200000", Duration::from_secs(3));
        let response = answer.unwrap_or_else(|error| panic!("{port}: {error}\n{}", director.log()));
        assert_eq!(response.hash, netlab::bytes_hash(200_000));
        // The last acknowledgements are still on their way.
        let mut now = tunnel.unpacked();
        loop {
            thread::sleep(Duration::from_millis(30));
            let later = tunnel.unpacked();
            if later == now {
                return now;
            }
            now = later;
        }
    };
    let mut before = tunnel.unpacked();
    for (port, kind) in [(80, 0), (81, 0), (82, 0), (83, 1), (84, 2)] {
        let now = ask(port);
        let grown = [
            now.gue > before.gue,
            now.gre > before.gre,
            now.gre_checksum > before.gre_checksum,
            now.ipip > before.ipip,
            now.malformed > before.malformed,
        ];
        let expected: Vec<bool> = (0..5).map(|at| at == kind).collect();
        assert_eq!(grown[..], expected, "{port}");
        before = now;
    }
    // By hand: the next connection goes the other way.
    let (service, server) = (
        SocketAddr::new(lab.vip(), 80).to_string(),
        SocketAddr::new(lab.addr(Net::Inner, 11), 80).to_string(),
    );
    let edit = ["-e", "-t", &service, "-r", &server, "-i"];
    director.ipvsadm(&[&edit[..], &["--tun-type", "gre", "--tun-csum"]].concat());
    let now = ask(80);
    assert!(now.gre_checksum > before.gre_checksum && now.gue == before.gue);
    director.ipvsadm(&edit);
    assert!(ask(80).ipip > 0);
}

fn shares(lab: &Lab) {
    let mut counts = [0, 0];
    for _ in 0..100 {
        let response = lab
            .client
            .http_get(lab.at(80), "/", Duration::from_secs(3))
            .unwrap();
        counts[usize::from(response.server == "rs1")] += 1;
    }
    assert_eq!(counts, [50, 50]);
}

/// The servers learn of the client, in the very bytes that reach them.
fn clients_are_named(lab: &Lab) {
    let taps: Vec<OwnedFd> = lab.servers.iter().map(fullnat::tap).collect();
    let addr = lab.at(80);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut stream = lab
            .client
            .run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(3)))
            .unwrap();
        clients.push(stream.local_addr().unwrap());
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let locals = [200, 201].map(|host| lab.addr(Net::Inner, host));
    let mut named = Vec::new();
    let mut buffer = vec![0; 0x1_0000];
    for tap in &taps {
        while let Ok((length, _)) = recv(tap, &mut buffer[..], RecvFlags::DONTWAIT) {
            let seen = fullnat::named(&buffer[..length]);
            named.extend(
                seen.filter(|(source, _)| locals.contains(&source.ip()))
                    .and_then(|it| it.1),
            );
        }
    }
    named.sort();
    named.dedup();
    clients.sort();
    assert_eq!(named, clients);
}

fn transfers(lab: &Lab, length: u64) {
    let path = format!("/bytes/{length}");
    let response = lab
        .client
        .http_get(lab.at(80), &path, Duration::from_secs(10))
        .unwrap();
    assert_eq!(response.length, length);
    assert_eq!(response.hash, netlab::bytes_hash(length));
    upload(lab, length);
}

/// Sends so many bytes and compares what the server says of them.
fn upload(lab: &Lab, length: u64) {
    let addr = lab.at(81);
    let mut stream = lab
        .client
        .run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(3)))
        .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut hash = Hash::default();
    let mut left = length;
    let mut chunk = vec![0; 1 << 16];
    let mut state = 1u64;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            word.copy_from_slice(&state.to_le_bytes());
        }
        let part = &chunk[..chunk.len().min(usize::try_from(left).unwrap())];
        hash.add(part);
        stream.write_all(part).unwrap();
        left -= part.len() as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, hash.answer());
}

/// Length and a hash of what was sent.
#[derive(Default)]
struct Hash {
    length: u64,
    hash: u64,
}

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn answer(&self) -> [u8; 16] {
        let mut answer = [0; 16];
        answer[..8].copy_from_slice(&self.length.to_be_bytes());
        answer[8..].copy_from_slice(&self.hash.to_be_bytes());
        answer
    }
}

/// Takes all that each client sends, and answers with its hash.
fn swallow(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        thread::spawn(move || {
            let mut hash = Hash::default();
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                hash.add(&buffer[..length]);
            }
            let _ = stream.write_all(&hash.answer());
        });
    }
}

fn echo(socket: &UdpSocket) {
    socket
        // Beyond the longest transfer before it is asked.
        .set_read_timeout(Some(Duration::from_secs(180)))
        .unwrap();
    let mut buffer = vec![0; 0x1_0000];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..length], from);
    }
}

fn client_socket(lab: &Lab, port: u16) -> UdpSocket {
    let any = SocketAddr::new(lab.any(), 0);
    let socket = lab.client.run(|| UdpSocket::bind(any)).unwrap();
    socket.connect(lab.at(port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    socket
}

fn datagrams(lab: &Lab) {
    let mut buffer = vec![0; 0x1_0000];
    for length in [1, 1000, 8192, 8193, 20_000] {
        let socket = client_socket(lab, 53);
        let sent: Vec<u8> = (0..length).map(|at| (at * 7 / 3) as u8).collect();
        socket.send(&sent).unwrap();
        let received = socket
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("{length} bytes: {error}"));
        assert!(buffer[..received] == sent, "{length} bytes");
    }
}

/// The server's port is closed; the client learns it at once.
fn refusals(lab: &Lab) {
    let addr = lab.at(82);
    let error = lab
        .client
        .run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(3)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "TCP");
    let socket = client_socket(lab, 82);
    socket.send(b"anybody?").unwrap();
    let error = socket.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "UDP");
}

/// Datagrams with few hops left: the first router answers, then the virtual address for the director, then the server.
fn hops(lab: &Lab) {
    let (family, protocol) = match lab.v6 {
        true => (AddressFamily::INET6, ipproto::ICMPV6),
        false => (AddressFamily::INET, ipproto::ICMP),
    };
    let raw = lab
        .client
        .run(|| socket(family, SocketType::RAW, Some(protocol)))
        .unwrap();
    sockopt::set_socket_timeout(&raw, sockopt::Timeout::Recv, Some(Duration::from_secs(3)))
        .unwrap();
    for (hops, expected) in [(1, lab.addr(Net::Client, 1)), (2, lab.vip())] {
        let socket = client_socket(lab, 53);
        if lab.v6 {
            sockopt::set_ipv6_unicast_hops(&socket, Some(hops)).unwrap();
        } else {
            sockopt::set_ip_ttl(&socket, u32::from(hops)).unwrap();
        }
        // The limit of errors is one a second for each receiver.
        let answered = (0..3).any(|_| {
            socket.send(b"trace").unwrap();
            time_exceeded(&raw, lab.v6) == Some(expected)
        });
        assert!(answered, "hop {hops}");
    }
    let socket = client_socket(lab, 53);
    if lab.v6 {
        sockopt::set_ipv6_unicast_hops(&socket, Some(3)).unwrap();
    } else {
        sockopt::set_ip_ttl(&socket, 3).unwrap();
    }
    socket.send(b"trace").unwrap();
    assert_eq!(
        socket.recv(&mut [0; 16]).unwrap(),
        5,
        "three hops are enough"
    );
}

/// Who said that hops were used up.
fn time_exceeded(raw: &OwnedFd, v6: bool) -> Option<IpAddr> {
    let mut buffer = [0; 2048];
    for _ in 0..20 {
        let (length, _, from) = recvfrom(raw, &mut buffer, RecvFlags::empty()).ok()?;
        let message = match v6 {
            true => &buffer[..length],
            false => buffer[..length].get(20..)?,
        };
        if message.first() == Some(if v6 { &3 } else { &11 }) {
            return SocketAddr::try_from(from? as SocketAddrAny)
                .ok()
                .map(|from| from.ip());
        }
    }
    None
}
