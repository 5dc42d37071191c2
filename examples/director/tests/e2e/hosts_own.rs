//! What is the host's own stays the host's, whatever the device.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netlab::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

use crate::once;
use crate::stage::{Conf, DEVICE, Director, PATIENCE, Stage, VIP, has_xdp};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        once("the_claim_by_ring_never_takes_what_is_the_hosts", || {
            is_left_to_the_host("ring");
        }),
        once("the_claim_by_pnet_never_takes_what_is_the_hosts", || {
            is_left_to_the_host("pnet");
        }),
    ];
    if has_xdp() {
        trials.push(once(
            "the_claim_by_xdp_never_takes_what_is_the_hosts",
            || is_left_to_the_host("xdp"),
        ));
    }
    trials
}

/// ssh, BGP, ARP, neighbour discovery, pings, VRRP, and answers to health checks from where NAT answers come from.
fn is_left_to_the_host(device: &'static str) {
    const OWN_V6: &str = "2001:db8:e::1";
    DEVICE.set(device);
    let mut stage = Stage::nat(1);
    stage
        .client
        .add_address("eth0", "2001:db8:e::10/64")
        .unwrap();
    let own_v6 = format!("{OWN_V6}/64");
    stage.director.add_address("ext0", &own_v6).unwrap();
    let _listeners = [SSH, BGP].map(|port| listen(&stage.director, port));
    let vrrp = raw(&stage.director, false, VRRP);
    let group = Ipv4Addr::new(224, 0, 0, 18);
    let index = stage
        .director
        .netlink()
        .unwrap()
        .link_by_name("ext0")
        .unwrap()
        .index;
    let interface = socket2::InterfaceIndexOrAddress::Index(index);
    vrrp.join_multicast_v4_n(&group, &interface).unwrap();

    let mut conf = Conf::nat(1);
    // Services of both families at addresses of the host's own.
    conf.extra = [OWN_V6, "198.51.100.1"]
        .into_iter()
        .zip(["fd00::99", "10.1.0.99"])
        .map(|(vip, rip)| {
            format!(
                "virtual_server {vip} 80 {{\n    lb_algo rr\n    lb_kind NAT\n    protocol TCP\n    \
                 real_server {rip} 80 {{\n        weight 1\n    }}\n}}\n"
            )
        })
        .collect();
    let director = Director::start(&stage, &conf.text(), 2);
    assert_eq!(stage.ask().unwrap(), "rs1");
    // Nobody has asked who has this one before the claim was there.
    stage
        .director
        .add_address("ext0", "198.51.100.2/24")
        .unwrap();
    let own: Vec<IpAddr> = ["198.51.100.1", "198.51.100.2", VIP, OWN_V6]
        .map(|addr| addr.parse().unwrap())
        .into();
    for addr in &own {
        for port in [SSH, BGP] {
            let to = SocketAddr::new(*addr, port);
            let outcome = (stage.client).run(|| TcpStream::connect_timeout(&to, PATIENCE));
            outcome.unwrap_or_else(|error| panic!("{device}: {to}: {error}"));
        }
        assert!(is_echoed(&stage.client, *addr), "{device}: ping {addr}");
    }
    let sender = raw(&stage.client, false, VRRP);
    sender
        .set_multicast_if_v4(&Ipv4Addr::new(198, 51, 100, 10))
        .unwrap();
    for (to, text) in [
        (group, b"to the group"),
        (Ipv4Addr::new(198, 51, 100, 1), b"to the host!"),
    ] {
        let addr = SocketAddr::from((to, 0));
        sender.send_to(text, &addr.into()).unwrap();
        let heard = hears(&vrrp, |packet| packet.get(20..) == Some(text));
        assert!(heard, "{device}: VRRP {}", String::from_utf8_lossy(text));
    }
    // The server is taken out and comes back, which its answers to checks alone can bring about.
    stage.servers[0].1.stop();
    let listing = || director.ipvsadm(&["-Ln"]);
    director.wait_until("server is out", || !listing().contains(SERVER));
    stage.restart(0);
    director.wait_until("server is back", || listing().contains(SERVER));
    assert_eq!(stage.ask().unwrap(), "rs1");
}

fn listen(namespace: &Namespace, port: u16) -> TcpListener {
    namespace.run(|| TcpListener::bind(("::", port))).unwrap()
}

fn raw(namespace: &Namespace, ipv6: bool, protocol: i32) -> Socket {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = namespace
        .run(|| Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))))
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    socket
}

fn is_echoed(namespace: &Namespace, addr: IpAddr) -> bool {
    let ipv6 = addr.is_ipv6();
    let (protocol, request, reply) = if ipv6 { (58, 128, 129) } else { (1, 8, 0) };
    let socket = raw(namespace, ipv6, protocol);
    let mut message = [request, 0, 0, 0, 0x77, 0x17, 0, 1];
    if !ipv6 {
        // Of ICMPv6 the kernel does it.
        let sum = lvs_fwd::checksum::finish(lvs_fwd::checksum::sum(&message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    socket
        .send_to(&message, &SocketAddr::new(addr, 0).into())
        .unwrap();
    let header = if ipv6 { 0 } else { 20 };
    hears(&socket, |packet| {
        packet.get(header) == Some(&reply) && packet.get(header + 4..) == Some(&message[4..])
    })
}

/// Whether such a packet comes, others aside.
fn hears(socket: &Socket, is_it: impl Fn(&[u8]) -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let mut buffer = [0; 512];
        let Ok(length) = Read::read(&mut &*socket, &mut buffer) else {
            continue;
        };
        if is_it(&buffer[..length]) {
            return true;
        }
    }
    false
}

const SERVER: &str = "10.1.0.11:80";
const SSH: u16 = 22;
const BGP: u16 = 179;
const VRRP: i32 = 112;
