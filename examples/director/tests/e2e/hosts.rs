//! What is looked at and changed on hosts: `realserver` and `host`.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use libtest_mimic::Trial;
use lvs_fwd::checksum;
use lvs_fwd::netlink::Address;
use netlab::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

use crate::once;
use crate::stage::{Conf, Director, RealServer, Stage, VIP, director_in};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once(
            "realserver_gives_everything_back",
            realserver_gives_everything_back,
        ),
        once(
            "a_killed_realserver_is_given_back_by_the_next",
            a_killed_realserver_is_given_back_by_the_next,
        ),
        once(
            "realserver_check_names_each_fault",
            realserver_check_names_each_fault,
        ),
        once("host_check_names_each_fault", host_check_names_each_fault),
        once("every_tunnel_is_unpacked_into_tun", || {
            every_tunnel_is_unpacked(&[]);
        }),
        once("every_tunnel_is_unpacked_without_tun", || {
            every_tunnel_is_unpacked(&["--without-tun"]);
        }),
    ]
}

/// Settings and addresses that a real server changes.
fn picture(namespace: &Namespace) -> (Vec<String>, Vec<Address>) {
    let settings = [
        "all/arp_ignore",
        "all/arp_announce",
        "all/rp_filter",
        "eth0/rp_filter",
    ];
    let settings = namespace.run(|| {
        let read = |name: &&str| {
            let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}")).unwrap();
            format!("{name}={}", text.trim())
        };
        settings.iter().map(read).collect()
    });
    (settings, namespace.netlink().unwrap().addresses().unwrap())
}

/// Both families in both, by IP in IP, GRE and GUE; and nothing that is for another address.
fn every_tunnel_is_unpacked(more: &[&str]) {
    const V6: &str = "2001:db8:aaaa::10";
    let [balancer, server] = ["balancer", "server"].map(|name| Namespace::new(name).unwrap());
    netlab::veth(
        (&balancer, "eth0", "10.9.0.1/24"),
        (&server, "eth0", "10.9.0.2/24"),
    )
    .unwrap();
    balancer.add_address("eth0", "2001:db8:9::1/64").unwrap();
    server.add_address("eth0", "2001:db8:9::2/64").unwrap();
    let (v4, v6): (IpAddr, IpAddr) = (VIP.parse().unwrap(), V6.parse().unwrap());
    let more = [&["--vip", V6], more].concat();
    let _realserver = RealServer::start_with(&server, "tun", v4, &more).unwrap();
    let strangers: [IpAddr; 2] = ["10.9.0.2", "2001:db8:9::2"].map(|addr| addr.parse().unwrap());
    let listeners = [v4, v6, strangers[0], strangers[1]].map(|addr| {
        let socket = server.run(|| UdpSocket::bind((addr, 5000))).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket
    });
    let clients: [IpAddr; 2] = ["203.0.113.5", "2001:db8:c::5"].map(|addr| addr.parse().unwrap());
    for outer in strangers {
        for (at, number) in [4_u8, 41].into_iter().enumerate() {
            let ethertype: [u8; 2] = if number == 4 { [8, 0] } else { [0x86, 0xdd] };
            for (carrier, header) in [
                (Carrier::Raw(number), vec![]),
                (Carrier::Raw(47), [[0, 0], ethertype].concat()),
                (Carrier::Udp(6080), vec![0, number, 0, 0]),
            ] {
                let text = format!("{outer} {number} {carrier:?}");
                for to in [strangers[at], [v4, v6][at]] {
                    let inner = datagram(clients[at], to, text.as_bytes());
                    balancer.run(|| carrier.send(outer, &[&header[..], &inner].concat()));
                }
                let mut buffer = [0; 200];
                let (length, from) = listeners[at]
                    .recv_from(&mut buffer)
                    .unwrap_or_else(|error| panic!("{text}: {error}"));
                assert_eq!(std::str::from_utf8(&buffer[..length]), Ok(&*text));
                assert_eq!(from.ip(), clients[at], "the client's own address is seen");
            }
        }
    }
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
        assert!(
            listener.recv(&mut [0; 8]).is_err(),
            "each comes once, and nothing to others"
        );
    }
}

#[derive(Debug, Clone, Copy)]
enum Carrier {
    Raw(u8),
    Udp(u16),
}

impl Carrier {
    fn send(self, to: IpAddr, payload: &[u8]) {
        let domain = Domain::for_address(SocketAddr::new(to, 0));
        let (kind, protocol, port) = match self {
            Self::Raw(number) => (Type::RAW, Protocol::from(i32::from(number)), 0),
            Self::Udp(port) => (Type::DGRAM, Protocol::UDP, port),
        };
        let socket = Socket::new(domain, kind, Some(protocol)).unwrap();
        let sent = socket.send_to(payload, &SocketAddr::new(to, port).into());
        assert_eq!(sent.unwrap(), payload.len());
    }
}

/// An IP packet with a UDP datagram to port 5000.
fn datagram(from: IpAddr, to: IpAddr, text: &[u8]) -> Vec<u8> {
    let length = (8 + text.len()) as u16;
    let mut udp = [
        4000_u16.to_be_bytes(),
        5000_u16.to_be_bytes(),
        length.to_be_bytes(),
        [0, 0],
    ]
    .concat();
    udp.extend(text);
    let sum = checksum::sum(&udp) + checksum::pseudo_header(from, to, 17, u32::from(length));
    udp[6..8].copy_from_slice(&checksum::finish(sum).to_be_bytes());
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0];
            header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            header.extend([from.octets(), to.octets()].concat());
            let sum = checksum::finish(checksum::sum(&header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header.extend([from.octets(), to.octets()].concat());
            header
        }
        _ => panic!("one family"),
    };
    packet.extend(udp);
    packet
}

/// With the strictest settings that a distribution has.
fn strict_host() -> (Stage, Namespace) {
    let stage = Stage::one_lan(1);
    let host = stage.servers[0].0.clone();
    host.sysctl("net.ipv4.conf.all.rp_filter", "1").unwrap();
    host.sysctl("net.ipv4.conf.eth0.rp_filter", "0").unwrap();
    (stage, host)
}

fn realserver_gives_everything_back() {
    let (_stage, host) = strict_host();
    let before = picture(&host);
    for mode in ["dr", "tun"] {
        let realserver = RealServer::start(&host, mode).unwrap();
        let (settings, addresses) = picture(&host);
        assert_eq!(settings[..2], ["all/arp_ignore=1", "all/arp_announce=2"]);
        assert!(
            addresses
                .iter()
                .any(|address| address.addr.to_string() == VIP)
        );
        if mode == "tun" {
            assert_eq!(settings[2], "all/rp_filter=0");
            assert_eq!(
                settings[3], "eth0/rp_filter=1",
                "eth0 is as strict as before"
            );
        }
        let second = RealServer::start(&host, mode).err().unwrap();
        assert!(second.contains("already"), "{second}");
        realserver.terminate();
        assert_eq!(before, picture(&host), "{mode}");
    }
}

fn a_killed_realserver_is_given_back_by_the_next() {
    let (_stage, host) = strict_host();
    let before = picture(&host);
    RealServer::start(&host, "dr").unwrap().kill();
    assert_ne!(before, picture(&host));
    let next = RealServer::start(&host, "dr").unwrap();
    // Somebody changes his mind meanwhile: that stays.
    host.sysctl("net.ipv4.conf.all.arp_announce", "1").unwrap();
    next.terminate();
    let (settings, addresses) = picture(&host);
    assert_eq!(addresses, before.1);
    assert_eq!(settings[0], before.0[0]);
    assert_eq!(settings[1], "all/arp_announce=1");
}

fn realserver_check_names_each_fault() {
    let (_stage, host) = strict_host();
    host.default_route("198.51.100.10").unwrap();
    let before = picture(&host);
    let (status, output) = RealServer::check(&host, "dr");
    assert_eq!(status, 1);
    for text in [
        &format!("error: {VIP}: no interface has this address")[..],
        "error: eth0: arp_ignore is 0",
        "error: eth0: arp_announce is 0",
        "do: sysctl -w net.ipv4.conf.all.arp_ignore=1",
    ] {
        assert!(output.contains(text), "{output}");
    }
    let (_, output) = RealServer::check(&host, "tun");
    assert!(
        output.contains("error: all: rp_filter is strict"),
        "{output}"
    );
    assert!(output.contains("nobody unpacks"), "{output}");
    assert_eq!(before, picture(&host), "a check changes nothing");

    let realserver = RealServer::start(&host, "dr").unwrap();
    let (status, output) = RealServer::check(&host, "dr");
    assert_eq!((status, &*output), (0, "nothing wrong was found\n"));
    realserver.terminate();

    host.add_address("eth0", &format!("{VIP}/24")).unwrap();
    let (_, output) = RealServer::check(&host, "dr");
    assert!(
        output.contains("it is at eth0, where the host answers"),
        "{output}"
    );
    host.add_address("lo", "203.0.113.9/24").unwrap();
    let realserver = RealServer::start(&host, "tun").unwrap();
    let (_, output) = RealServer::check(&host, "tun");
    assert!(!output.contains("rp_filter is strict"), "{output}");
    assert!(!output.contains("nobody unpacks"), "{output}");
    realserver.terminate();
}

fn host_check_names_each_fault() {
    let stage = Stage::one_lan(1);
    let file = std::env::temp_dir().join(format!("director-e2e-host-{}.conf", std::process::id()));
    let look = |conf: &str| {
        fs::write(&file, conf).unwrap();
        let path = file.to_str().unwrap();
        let arguments = ["host", "--check", "-f", path];
        let (status, output, errors) = director_in(&stage.director, &arguments);
        assert_eq!(errors, "");
        (status, output)
    };
    let mut conf = Conf::direct(1);
    let (status, output) = look(&conf.text());
    assert_eq!(status, 0, "{output}");
    // AF_XDP wants more of a host than packet rings do.
    let mut netlink = stage.director.netlink().unwrap();
    let index = netlink.link_by_name("ext0").unwrap().index;
    netlink.set_mtu(index, 9000).unwrap();
    let path = file.to_str().unwrap();
    for (kind, expected) in [("ring", 0), ("auto", 0), ("xdp", 1)] {
        let arguments = ["host", "--check", "-f", path, "--device", kind];
        let (status, output, _) = director_in(&stage.director, &arguments);
        assert_eq!(status, expected, "{kind}: {output}");
    }
    netlink.set_mtu(index, 1500).unwrap();

    conf.method = "NAT";
    conf.servers.push(("192.0.2.99 80".into(), 1));
    stage.director.sysctl("net.ipv4.ip_forward", "0").unwrap();
    stage
        .director
        .sysctl("net.ipv4.conf.all.send_redirects", "1")
        .unwrap();
    stage
        .director
        .sysctl("net.ipv4.conf.all.rp_filter", "1")
        .unwrap();
    // Where a packet goes shall hang on where it comes from.
    let rule = lvs_fwd::netlink::Rule {
        priority: 100,
        from: Some(lvs_fwd::route::Prefix::new(VIP.parse().unwrap(), 32)),
        table: 100,
        ..lvs_fwd::netlink::Rule::default()
    };
    netlink.add_rule(&rule).unwrap();
    let (status, output) = look(&conf.text());
    assert_eq!(status, 1);
    netlink.delete_rule(&rule).unwrap();
    for text in [
        "warning: rule 100: from 198.51.100.100/32 lookup 100: this host chooses routes by more",
        "192.0.2.99:80: there is no way to this real server: no-route",
        "warning: net.ipv4.ip_forward: this host does not forward",
        "warning: ext0: NAT servers and clients share this interface",
        "warning: net.ipv4.conf.all.rp_filter",
        "can't be seen from here",
    ] {
        assert!(output.contains(text), "{text} in {output}");
    }

    // A DR server behind a router, an interface that is not there, an address that nobody holds.
    stage.director.default_route("198.51.100.10").unwrap();
    conf.method = "DR";
    let text = conf.text().replace("interface ext0", "interface ext9");
    let (_, output) = look(&text);
    for text in [
        "this one is behind 198.51.100.10 at ext0",
        "error: ext9: there is no such interface",
    ] {
        assert!(output.contains(text), "{text} in {output}");
    }
    let service = conf
        .text()
        .split_once("virtual_server")
        .unwrap()
        .1
        .to_owned();
    let (_, output) = look(&format!("virtual_server{service}"));
    assert!(
        output.contains("no vrrp_instance of the file holds"),
        "{output}"
    );
    let (status, _, errors) = director_in(&stage.director, &["host", "--check", "-f", "/nowhere"]);
    assert_eq!(status, 2);
    assert!(errors.contains("/nowhere"), "{errors}");
    fs::remove_file(&file).unwrap();

    let director = Director::start(&stage, &Conf::direct(1).text(), 1);
    let path = director.file.to_str().unwrap();
    let (_, output, _) = director.beside(&["host", "--check", "-f", path, "--json"]);
    assert!(output.contains("\"code\":\"running\""), "{output}");
}
