//! What moves with a virtual router besides its addresses, and what keeps it from working.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use director::config::ConfigFile;
use director::vrrp::convert;
use libtest_mimic::Trial;
use lvs_fwd::netlink::{KernelRoute, Rule};
use lvs_vrrp::State;
use netlab::Namespace;

use crate::{FAST, Kind, Lan, Ours, eventually};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, test) in [
        ("routes_and_rules", routes_and_rules as fn()),
        ("no_accept", no_accept),
        ("source_that_is_tracked", source_that_is_tracked),
        ("prefix_and_label", prefix_and_label),
        ("own_mac_address", || own_mac_address(VMAC)),
        ("own_mac_address_of_ipv6", || own_mac_address(VMAC_IPV6)),
        ("own_mac_address_for_the_addresses_only", || {
            own_mac_address(VMAC_ABOVE);
        }),
    ] {
        trials.push(Trial::test(name, move || {
            test();
            Ok(())
        }));
    }
    trials
}

const VMAC: Kind = Kind {
    name: "vmac",
    settings: "version 3\nadvert_int 0.2\nuse_vmac",
    vip: "192.0.2.100/32",
    interval: 200,
};

const VMAC_ABOVE: Kind = Kind {
    name: "vmac-above",
    settings: "version 3\nadvert_int 0.2\nuse_vmac\nvmac_xmit_base",
    ..VMAC
};

const VMAC_IPV6: Kind = Kind {
    name: "vmac-ipv6",
    vip: "fe80::100/128",
    ..VMAC
};

/// The address stands on an interface of its own with the virtual router's MAC address, of which keepalived's makes no other. It is gone at the
/// end.
fn own_mac_address(kind: Kind) {
    let lan = Lan::new(kind, true);
    let ipv6 = kind.vip.contains(':');
    let ours = lan.start_ours();
    let theirs = lan.start_theirs();
    lan.wait_for(true, 6 * SECOND);
    let link = lan.ours.netlink().unwrap().link_by_name("vrrp.51").unwrap();
    assert_eq!(
        link.mac,
        Some([0, 0, 0x5e, 0, if ipv6 { 2 } else { 1 }, 51])
    );
    let vip: IpAddr = kind.vip.split('/').next().unwrap().parse().unwrap();
    let addresses = lan.ours.netlink().unwrap().addresses().unwrap();
    let vip_at: Vec<u32> = addresses
        .iter()
        .filter(|address| address.addr == vip)
        .map(|address| address.ifindex)
        .collect();
    assert_eq!(vip_at, [link.index]);
    // The other hears it, and stays what it is.
    let end = Instant::now() + SECOND;
    while Instant::now() < end {
        assert_eq!(lan.holders(), (true, false));
        std::thread::sleep(Duration::from_millis(20));
    }
    if !ipv6 {
        let client = Namespace::new("client").unwrap();
        lan.switch.attach(&client, "eth0", "192.0.2.13/24").unwrap();
        let _listener = lan.ours.run(|| TcpListener::bind("0.0.0.0:7000")).unwrap();
        let to = SocketAddr::new(vip, 7000);
        client
            .run(|| TcpStream::connect_timeout(&to, 3 * SECOND))
            .unwrap();
        let neighbours = client.netlink().unwrap().neighbours().unwrap();
        let macs: Vec<_> = neighbours
            .iter()
            .filter(|entry| format!("{entry:?}").contains("192.0.2.100"))
            .collect();
        let macs = format!("{macs:?}");
        assert!(macs.contains("[0, 0, 94, 0, 1, 51]"), "{macs}");
    }
    drop(ours);
    assert!(lan.ours.netlink().unwrap().link_by_name("vrrp.51").is_err());
    lan.wait_for(false, 3 * SECOND);
    drop(theirs);
}

const SECOND: Duration = Duration::from_secs(1);

fn alone(name: &'static str, more: &str) -> (Lan, Ours) {
    let lan = Lan::new(Kind { name, ..FAST }, true);
    let file = write(&lan, more);
    let ours = Ours::start(&lan.ours, &file);
    (lan, ours)
}

fn write(lan: &Lan, more: &str) -> ConfigFile {
    let path = lan.configuration(true);
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("state BACKUP\n", &format!("state BACKUP\n{more}\n"));
    fs::write(&path, text).unwrap();
    ConfigFile::read(&path, None).unwrap()
}

fn route(namespace: &Namespace, destination: &str) -> Option<KernelRoute> {
    let mut netlink = namespace.netlink().unwrap();
    let routes = netlink.routes().unwrap();
    let mut routes = routes.into_iter();
    routes.find(|route| route.destination.to_string() == destination)
}

fn rule(namespace: &Namespace, table: u32) -> Option<Rule> {
    let mut netlink = namespace.netlink().unwrap();
    let rules = netlink.rules().unwrap();
    rules.into_iter().find(|rule| rule.table == table)
}

/// They come and go with the state; what somebody takes away is set again; a reload changes what differs.
fn routes_and_rules() {
    let (lan, ours) = alone(
        "routes",
        "virtual_routes {\n203.0.113.0/24 via 192.0.2.12 dev eth0 metric 5\n198.51.100.0/24 dev eth0 table 100\n}\n\
         virtual_rules {\nfrom 192.0.2.0/24 table 100\n}",
    );
    let has = |destination| route(&lan.ours, destination).is_some();
    eventually("the routes", 5 * SECOND, || {
        has("203.0.113.0/24") && has("198.51.100.0/24") && rule(&lan.ours, 100).is_some()
    });
    let first = route(&lan.ours, "203.0.113.0/24").unwrap();
    assert_eq!((first.metric, first.table, first.protocol), (5, 254, 18));
    assert_eq!(route(&lan.ours, "198.51.100.0/24").unwrap().table, 100);
    assert_eq!(rule(&lan.ours, 100).unwrap().priority, 16_384);
    lan.ours.netlink().unwrap().delete_route(&first).unwrap();
    eventually("the route again", SECOND, || has("203.0.113.0/24"));
    assert_eq!(ours.status()[0].state, State::Active);
    let file = write(
        &lan,
        "virtual_routes {\n203.0.113.0/24 via 192.0.2.12 dev eth0 metric 5\n100.64.0.0/10 via 192.0.2.12\n}",
    );
    ours.0.reload(convert(file.config()));
    eventually("the other route", SECOND, || {
        has("100.64.0.0/10") && !has("198.51.100.0/24") && rule(&lan.ours, 100).is_none()
    });
    assert!(has("203.0.113.0/24"));
    drop(ours);
    assert!(!has("203.0.113.0/24") && !has("100.64.0.0/10"));
}

/// A host that holds addresses without accepting packets to them answers ARP, and nothing else.
fn no_accept() {
    let (lan, ours) = alone("no-accept", "no_accept");
    eventually("the address", 5 * SECOND, || lan.has_vip(&lan.ours));
    let listener = lan.ours.run(|| TcpListener::bind("0.0.0.0:7000")).unwrap();
    let ask = |address: &str| {
        let to: SocketAddr = address.parse().unwrap();
        lan.theirs
            .run(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)))
    };
    assert!(ask("192.0.2.11:7000").is_ok(), "its own address answers");
    let refused = ask("192.0.2.100:7000").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TimedOut);
    let file = write(&lan, "accept");
    ours.0.reload(convert(file.config()));
    eventually("an answer", 2 * SECOND, || ask("192.0.2.100:7000").is_ok());
    drop(listener);
}

/// Without its configured source address it is in Fault, and works when that comes.
fn source_that_is_tracked() {
    let (lan, ours) = alone("source", "mcast_src_ip 192.0.2.77\ntrack_src_ip");
    let state = || ours.status()[0].state;
    eventually("the fault", SECOND, || state() == State::Fault);
    assert_eq!(
        ours.status()[0].reason,
        "there is no address to send from",
        "{:?}",
        ours.status()
    );
    lan.ours.add_address("eth0", "192.0.2.77/32").unwrap();
    eventually("the address", 5 * SECOND, || lan.has_vip(&lan.ours));
    let source: IpAddr = "192.0.2.77".parse().unwrap();
    assert_eq!(ours.status()[0].source, Some(source));
}

/// What a reload changes about an address is changed, and nothing else happens.
fn prefix_and_label() {
    let (lan, ours) = alone("label", "");
    let find = || {
        let vip: IpAddr = "192.0.2.100".parse().unwrap();
        let mut netlink = lan.ours.netlink().unwrap();
        let addresses = netlink.addresses().unwrap();
        addresses.into_iter().find(|address| address.addr == vip)
    };
    eventually("the address", 5 * SECOND, || find().is_some());
    let text = fs::read_to_string(lan.configuration(true)).unwrap();
    let path = lan.folder.join("ours");
    let text = text.replace("192.0.2.100/24", "192.0.2.100/32 label eth0:vip");
    fs::write(&path, text).unwrap();
    let file = ConfigFile::read(&path, None).unwrap();
    ours.0.reload(convert(file.config()));
    let changed = Instant::now();
    eventually("the label", SECOND, || {
        find().is_some_and(|address| {
            (address.prefix, address.label.as_deref()) == (32, Some("eth0:vip"))
        })
    });
    assert!(changed.elapsed() < SECOND);
    assert_eq!(ours.status()[0].statistics.released_active, 0);
}
