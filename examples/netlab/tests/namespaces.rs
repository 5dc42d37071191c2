//! End to end in real namespaces: netlab itself, and the parts of lvs-fwd that speak to the kernel.
#![allow(clippy::unwrap_used)] // without the test harness clippy does not see that this is a test

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use lvs_fwd::claim::Claim;
use lvs_fwd::device::Device;
use lvs_fwd::device::ring::{Ring, RingConfig};
use lvs_fwd::frame::Frame;
use lvs_fwd::mirror::Mirror;
use lvs_fwd::netlink::{Address, Event, Events, MARK, Netlink};
use lvs_fwd::route::{Hop, NextHop, RouteKind};
use lvs_fwd::tun::{LocalReplies, Tun};
use lvs_fwd::view::{ClaimSet, Endpoint};
use netlab::{Bridge, HttpServer, Namespace, bytes_hash, veth};

type Test = fn() -> io::Result<()>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Err(error) = netlab::enter() {
        println!("skipped: no network namespaces here ({error})");
        return ExitCode::SUCCESS;
    }
    let tests: Vec<(&str, Test)> = vec![
        ("veth_carries_http_and_bytes", veth_carries_http_and_bytes),
        (
            "bridge_joins_hosts_on_one_lan",
            bridge_joins_hosts_on_one_lan,
        ),
        (
            "router_forwards_between_two_links",
            router_forwards_between_two_links,
        ),
        (
            "stopped_server_refuses_and_restarts",
            stopped_server_refuses_and_restarts,
        ),
        (
            "command_runs_in_its_namespace",
            command_runs_in_its_namespace,
        ),
        (
            "direct_routing_vip_is_not_announced",
            direct_routing_vip_is_not_announced,
        ),
        ("addresses_carry_the_mark", addresses_carry_the_mark),
        (
            "errors_name_operation_and_object",
            errors_name_operation_and_object,
        ),
        ("rules_come_back_as_written", rules_come_back_as_written),
        (
            "events_tell_of_links_and_addresses",
            events_tell_of_links_and_addresses,
        ),
        (
            "claim_silences_the_claimed_port_only",
            claim_silences_the_claimed_port_only,
        ),
        ("claim_takes_ipv6_too", claim_takes_ipv6_too),
        (
            "claim_takes_ipv6_errors_about_what_it_claims",
            claim_takes_ipv6_errors_about_what_it_claims,
        ),
        (
            "claim_follows_its_set_and_devices",
            claim_follows_its_set_and_devices,
        ),
        (
            "claim_keeps_replies_to_the_host_itself",
            claim_keeps_replies_to_the_host_itself,
        ),
        (
            "claim_takes_all_fragments_of_its_addresses",
            claim_takes_all_fragments_of_its_addresses,
        ),
        ("claim_leaves_vlans_alone", claim_leaves_vlans_alone),
        (
            "claim_takes_errors_about_what_it_claims",
            claim_takes_errors_about_what_it_claims,
        ),
        (
            "mirror_follows_routes_and_neighbours",
            mirror_follows_routes_and_neighbours,
        ),
        (
            "mirror_forgets_routes_that_fell_silently",
            mirror_forgets_routes_that_fell_silently,
        ),
        ("tun_delivers_to_the_host", tun_delivers_to_the_host),
        (
            "replies_of_local_servers_come_to_the_tun",
            replies_of_local_servers_come_to_the_tun,
        ),
    ];
    let trials = tests
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                test().map_err(|error| Failed::from(error.to_string()))
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn veth_carries_http_and_bytes() -> io::Result<()> {
    let (client, server) = pair()?;
    let web = HttpServer::start(&server, addr("10.0.0.2:80"), "rs1")?;
    let answer = client.http_get(web.addr(), "/", SECOND)?;
    assert_eq!((answer.status, answer.server.as_str()), (200, "rs1"));
    assert_eq!(answer.body, b"rs1\n");
    let answer = client.http_get(web.addr(), "/bytes/3000001", SECOND)?;
    assert_eq!(
        (answer.length, answer.hash),
        (3_000_001, bytes_hash(3_000_001))
    );
    assert_eq!(web.requests(), 2);
    Ok(())
}

fn bridge_joins_hosts_on_one_lan() -> io::Result<()> {
    let switch = Namespace::new("switch")?;
    let lan = Bridge::new(&switch, "lan")?;
    let hosts: Vec<Namespace> = (1..4)
        .map(|_| Namespace::new("host"))
        .collect::<io::Result<_>>()?;
    for (number, host) in (1..).zip(&hosts) {
        lan.attach(host, "eth0", &format!("10.0.0.{number}/24"))?;
    }
    for (number, host) in (1..).zip(&hosts) {
        let web = HttpServer::start(host, addr(&format!("10.0.0.{number}:80")), host.name())?;
        for other in &hosts {
            assert_eq!(other.http_get(web.addr(), "/", SECOND)?.status, 200);
        }
    }
    Ok(())
}

fn router_forwards_between_two_links() -> io::Result<()> {
    let (client, router, server) = (
        Namespace::new("client")?,
        Namespace::new("router")?,
        Namespace::new("server")?,
    );
    veth(
        (&client, "eth0", "10.1.0.1/24"),
        (&router, "eth0", "10.1.0.254/24"),
    )?;
    veth(
        (&server, "eth0", "10.2.0.1/24"),
        (&router, "eth1", "10.2.0.254/24"),
    )?;
    client.default_route("10.1.0.254")?;
    server.default_route("10.2.0.254")?;
    let web = HttpServer::start(&server, addr("10.2.0.1:80"), "far")?;
    assert!(client.http_get(web.addr(), "/", SHORT).is_err());
    router.forward()?;
    assert_eq!(client.http_get(web.addr(), "/", SECOND)?.server, "far");
    Ok(())
}

fn stopped_server_refuses_and_restarts() -> io::Result<()> {
    let (client, server) = pair()?;
    let mut web = HttpServer::start(&server, addr("10.0.0.2:80"), "rs1")?;
    web.stop();
    let error = client.http_get(web.addr(), "/", SECOND).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    web.restart(&server)?;
    assert_eq!(client.http_get(web.addr(), "/", SECOND)?.status, 200);
    Ok(())
}

fn command_runs_in_its_namespace() -> io::Result<()> {
    let (client, _server) = pair()?;
    let output = client
        .command("/bin/cat")?
        .arg("/proc/self/net/dev")
        .output()?;
    assert!(String::from_utf8_lossy(&output.stdout).contains("eth0:"));
    Ok(())
}

fn direct_routing_vip_is_not_announced() -> io::Result<()> {
    let (client, server) = pair()?;
    server.hold_vip("10.0.0.100")?;
    let web = HttpServer::start(&server, addr("10.0.0.100:80"), "rs1")?;
    assert!(client.http_get(web.addr(), "/", SHORT).is_err());
    client.add_route("10.0.0.100/32", "10.0.0.2")?;
    assert_eq!(client.http_get(web.addr(), "/", SECOND)?.server, "rs1");
    Ok(())
}

fn addresses_carry_the_mark() -> io::Result<()> {
    let (client, _server) = pair()?;
    let mut netlink = client.netlink().map_err(io::Error::other)?;
    let link = netlink.link_by_name("eth0").map_err(io::Error::other)?;
    assert!(
        link.up && link.kind.as_deref() == Some("veth") && link.mac.is_some(),
        "{link:?}"
    );
    let mut vip = Address::new(link.index, ip("192.0.2.10"), 32);
    vip.protocol = MARK;
    vip.label = Some("eth0:vip".to_owned());
    netlink.add_address(&vip).map_err(io::Error::other)?;
    assert!(netlink.add_address(&vip).unwrap_err().is_exists());
    let found = netlink.addresses().map_err(io::Error::other)?;
    let found = found
        .iter()
        .find(|address| address.addr == vip.addr)
        .unwrap();
    assert_eq!(
        (found.protocol, &found.label, found.prefix),
        (MARK, &vip.label, 32)
    );
    netlink.delete_address(found).map_err(io::Error::other)?;
    assert!(netlink.delete_address(&vip).unwrap_err().is_not_found());
    netlink
        .set_mtu(link.index, 1400)
        .map_err(io::Error::other)?;
    assert_eq!(
        netlink.link_by_name("eth0").map_err(io::Error::other)?.mtu,
        1400
    );
    netlink.delete_link(link.index).map_err(io::Error::other)?;
    assert!(netlink.link_by_name("eth0").unwrap_err().is_not_found());
    Ok(())
}

fn errors_name_operation_and_object() -> io::Result<()> {
    let (client, _server) = pair()?;
    let mut netlink = client.netlink().map_err(io::Error::other)?;
    let error = netlink
        .add_address(&Address::new(9999, ip("192.0.2.10"), 32))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot add address 192.0.2.10/32 on link 9999"
    );
    assert!(error.is_not_found());
    Ok(())
}

fn rules_come_back_as_written() -> io::Result<()> {
    let (client, _server) = pair()?;
    let mut netlink = client.netlink().map_err(io::Error::other)?;
    let rule = lvs_fwd::netlink::Rule {
        ipv6: false,
        priority: 77,
        from: Some(lvs_fwd::route::Prefix::new(ip("10.9.0.0"), 16)),
        to: Some(lvs_fwd::route::Prefix::new(ip("10.8.0.0"), 15)),
        mark: Some((0x12, 0xff)),
        iif: Some("eth0".to_owned()),
        ip_protocol: Some(17),
        source_ports: Some((53, 54)),
        destination_ports: Some((80, 80)),
        table: 70_000,
        protocol: MARK,
        ..lvs_fwd::netlink::Rule::default()
    };
    netlink.add_rule(&rule).map_err(io::Error::other)?;
    assert!(netlink.rules().map_err(io::Error::other)?.contains(&rule));
    assert_eq!(
        rule.to_string(),
        "77: from 10.9.0.0/16 to 10.8.0.0/15 fwmark 0x12/0xff iif eth0 ipproto 17 sport 53-54 dport 80 lookup 70000"
    );
    netlink.delete_rule(&rule).map_err(io::Error::other)?;
    assert!(!netlink.rules().map_err(io::Error::other)?.contains(&rule));
    Ok(())
}

fn events_tell_of_links_and_addresses() -> io::Result<()> {
    let (client, _server) = pair()?;
    let mut events = client.run(Events::open).map_err(io::Error::other)?;
    assert_eq!(events.poll_event().map_err(io::Error::other)?, None);
    client.add_address("eth0", "10.0.0.7/24")?;
    client.forward()?;
    let mut netlink = client.netlink().map_err(io::Error::other)?;
    let link = netlink.link_by_name("eth0").map_err(io::Error::other)?;
    netlink
        .set_up(link.index, false)
        .map_err(io::Error::other)?;
    let mut seen = Vec::new();
    while let Some(event) = events.poll_event().map_err(io::Error::other)? {
        seen.push(event);
    }
    let has = |wanted: &dyn Fn(&Event) -> bool| assert!(seen.iter().any(wanted), "{seen:#?}");
    has(&|event| matches!(event, Event::Address(address) if address.addr == ip("10.0.0.7")));
    has(&|event| matches!(event, Event::Link(new) if new.index == link.index && !new.up));
    has(
        &|event| matches!(event, Event::Forwarding { ifindex, enabled: true } if *ifindex == link.index),
    );
    has(&|event| matches!(event, Event::ForwardingV6 { enabled: true }));
    Ok(())
}

fn claim_silences_the_claimed_port_only() -> io::Result<()> {
    let (client, director) = pair()?;
    let web = HttpServer::start(&director, addr("10.0.0.2:80"), "host")?;
    let other = HttpServer::start(&director, addr("10.0.0.2:81"), "host")?;
    let mut set = ClaimSet::new();
    set.insert_service(endpoint("10.0.0.2:80"));
    set.insert_service(endpoint("10.0.0.2:90"));
    let mut claim = director
        .run(|| Claim::install(&["eth0"], &set))
        .map_err(io::Error::other)?;
    assert_eq!(connect(&client, "10.0.0.2:80"), io::ErrorKind::TimedOut);
    assert_eq!(connect(&client, "10.0.0.2:90"), io::ErrorKind::TimedOut);
    assert_eq!(
        connect(&client, "10.0.0.2:91"),
        io::ErrorKind::ConnectionRefused
    );
    assert_eq!(client.http_get(other.addr(), "/", SECOND)?.status, 200);
    let counters = claim.counters().map_err(io::Error::other)?;
    assert!(
        counters.to_services >= 2 && counters.from_servers == 0,
        "{counters:?}"
    );
    drop(claim);
    assert_eq!(client.http_get(web.addr(), "/", SECOND)?.status, 200);
    assert_eq!(
        connect(&client, "10.0.0.2:90"),
        io::ErrorKind::ConnectionRefused
    );
    Ok(())
}

fn claim_takes_ipv6_too() -> io::Result<()> {
    let (client, director) = pair()?;
    let (refused, silent) = (io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut);
    let other = HttpServer::start(&director, addr("[2001:db8::2]:81"), "host")?;
    let mut set = ClaimSet::new();
    set.insert_service(endpoint("[2001:db8::2]:80"));
    set.insert_server(endpoint("[2001:db8::1]:8080"));
    let mut claim = director
        .run(|| Claim::install(&["eth0"], &set))
        .map_err(io::Error::other)?;
    assert_eq!(connect(&client, "[2001:db8::2]:80"), silent);
    assert_eq!(connect(&client, "[2001:db8::2]:90"), refused);
    assert_eq!(client.http_get(other.addr(), "/", SECOND)?.status, 200);
    // The host's own checks are answered; a reply to somebody behind it is taken.
    let web = HttpServer::start(&client, addr("[2001:db8::1]:8080"), "rs1")?;
    assert_eq!(director.http_get(web.addr(), "/", SECOND)?.status, 200);
    assert_eq!(claim.counters().map_err(io::Error::other)?.from_servers, 0);
    client.default_route("2001:db8::2")?;
    set.insert_server(Endpoint {
        protocol: 17,
        ..endpoint("[2001:db8::1]:5353")
    });
    set.insert_service(Endpoint {
        protocol: 17,
        ..endpoint("[2001:db8::2]:53")
    });
    claim.replace(&set).map_err(io::Error::other)?;
    let server = client.run(|| UdpSocket::bind("[2001:db8::1]:5353"))?;
    server.send_to(b"reply", "[2001:db8:c::5]:4000")?;
    wait(|| claim.counters().unwrap().from_servers == 1);
    // Fragments: the first has the ports, the others belong to whoever has the address.
    let before = claim.counters().map_err(io::Error::other)?.to_services;
    let sender = client.run(|| UdpSocket::bind("[2001:db8::1]:0"))?;
    sender.send_to(&[1; 4000], "[2001:db8::2]:53")?;
    let to_services = |claim: &mut Claim| claim.counters().unwrap().to_services - before;
    wait(|| to_services(&mut claim) == 3);
    sender.send_to(&[1; 4000], "[2001:db8::2]:54")?;
    wait(|| to_services(&mut claim) == 5);
    // Neighbours still find each other when they have forgotten.
    let mut netlink = client.netlink().map_err(io::Error::other)?;
    let link = netlink.link_by_name("eth0").map_err(io::Error::other)?;
    netlink
        .set_up(link.index, false)
        .map_err(io::Error::other)?;
    netlink.set_up(link.index, true).map_err(io::Error::other)?;
    client.add_address("eth0", "2001:db8::1/64")?;
    wait(|| {
        client
            .http_get(other.addr(), "/", SECOND)
            .is_ok_and(|response| response.status == 200)
    });
    drop(claim);
    assert_eq!(connect(&client, "[2001:db8::2]:80"), refused);
    Ok(())
}

/// The same decision as the engine's, on the kernel's side.
fn claim_takes_ipv6_errors_about_what_it_claims() -> io::Result<()> {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

    let (client, director) = pair()?;
    client.default_route("2001:db8::2")?;
    let mut set = ClaimSet::new();
    let udp_endpoint = |text| Endpoint {
        protocol: 17,
        ..endpoint(text)
    };
    set.insert_service(udp_endpoint("[2001:db8::2]:53"));
    set.insert_server(udp_endpoint("[2001:db8:9::9]:5353"));
    let mut claim = director
        .run(|| Claim::install(&["eth0"], &set))
        .map_err(io::Error::other)?;
    let raw =
        client.run(|| socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)))?;
    let answer = udp6("[2001:db8::2]:53", "[2001:db8::1]:4000", &[]);
    let question = udp6("[2001:db8:c::5]:4000", "[2001:db8:9::9]:5353", &[]);
    let part = |offset| {
        udp6(
            "[2001:db8::2]:53",
            "[2001:db8::1]:4000",
            &[17, 0, 0, offset, 0, 0, 0, 9],
        )
    };
    let changed = |at: usize, value: u8| {
        let mut quoted = answer.clone();
        quoted[at] = value;
        quoted
    };
    let (own, elsewhere) = ("[2001:db8::2]:0", "[2001:db8:c::5]:0");
    let table = [
        ("unreachable", 1, &answer, own, true),
        ("too big", 2, &answer, own, true),
        ("time exceeded", 3, &answer, own, true),
        ("parameter problem", 4, &answer, own, true),
        ("about a request", 1, &question, elsewhere, true),
        ("about a check", 1, &question, own, false),
        ("echo", 128, &answer, own, false),
        ("router advertisement", 134, &answer, own, false),
        ("neighbour solicitation", 135, &answer, own, false),
        ("neighbour advertisement", 136, &answer, own, false),
        ("other port", 1, &changed(41, 54), own, false),
        ("TCP", 1, &changed(6, 6), own, false),
        ("not IPv6", 1, &changed(0, 0x45), own, false),
        ("first fragment", 2, &part(1), own, true),
        ("later fragment", 2, &part(8), own, false),
        ("cut", 1, &answer[..47].to_vec(), own, false),
    ];
    let mut expected = 0;
    for (name, kind, quoted, to, is_claimed) in table {
        let message = [&[kind, 0, 0, 0, 0, 0, 5, 20], &quoted[..]].concat();
        sendto(&raw, &message, SendFlags::empty(), &addr(to))?;
        expected += u64::from(is_claimed);
        wait(|| claim.counters().unwrap().errors >= expected);
        assert_eq!(claim.counters().unwrap().errors, expected, "{name}");
    }
    Ok(())
}

fn claim_follows_its_set_and_devices() -> io::Result<()> {
    let (client, director) = pair()?;
    let (refused, silent) = (io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut);
    let set = |ports: &[&str]| {
        let mut set = ClaimSet::new();
        for port in ports {
            set.insert_service(endpoint(port));
        }
        set
    };
    let empty: [&str; 0] = [];
    let mut claim = director
        .run(|| Claim::install(&empty, &set(&["10.0.0.2:80"])))
        .map_err(io::Error::other)?;
    assert_eq!(connect(&client, "10.0.0.2:80"), refused);
    claim.set_devices(&["eth0"]).map_err(io::Error::other)?;
    assert_eq!(connect(&client, "10.0.0.2:80"), silent);
    claim
        .replace(&set(&["10.0.0.2:81"]))
        .map_err(io::Error::other)?;
    assert_eq!(connect(&client, "10.0.0.2:80"), refused);
    assert_eq!(connect(&client, "10.0.0.2:81"), silent);
    claim
        .replace(&set(&["10.0.0.2:0"]))
        .map_err(io::Error::other)?;
    assert_eq!(connect(&client, "10.0.0.2:80"), silent);
    // Thousands of endpoints are one transaction.
    let many: Vec<String> = (1..=5000).map(|port| format!("10.0.0.2:{port}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    claim.replace(&set(&many)).map_err(io::Error::other)?;
    assert_eq!(connect(&client, "10.0.0.2:5000"), silent);
    assert_eq!(connect(&client, "10.0.0.2:5001"), refused);
    claim.replace(&ClaimSet::new()).map_err(io::Error::other)?;
    assert_eq!(connect(&client, "10.0.0.2:5000"), refused);
    // A refused change leaves the claim as it was.
    claim
        .replace(&set(&["10.0.0.2:80"]))
        .map_err(io::Error::other)?;
    assert!(
        claim
            .set_devices(&["eth0", "a-name-too-long-for-a-device"])
            .is_err()
    );
    assert_eq!(connect(&client, "10.0.0.2:80"), silent);
    // The chain goes with its device and comes back with it.
    let mut netlink = director.netlink().map_err(io::Error::other)?;
    let link = netlink.link_by_name("eth0").map_err(io::Error::other)?;
    netlink.delete_link(link.index).map_err(io::Error::other)?;
    veth(
        (&client, "eth0", "10.0.0.1/24"),
        (&director, "eth0", "10.0.0.2/24"),
    )?;
    claim.set_devices(&["eth0"]).map_err(io::Error::other)?;
    assert_eq!(connect(&client, "10.0.0.2:80"), silent);
    claim.set_devices(&empty).map_err(io::Error::other)?;
    assert_eq!(connect(&client, "10.0.0.2:80"), refused);
    Ok(())
}

fn claim_keeps_replies_to_the_host_itself() -> io::Result<()> {
    let (server, director) = pair()?;
    let web = HttpServer::start(&server, addr("10.0.0.1:80"), "rs1")?;
    let mut set = ClaimSet::new();
    set.insert_server(endpoint("10.0.0.1:80"));
    let mut claim = director
        .run(|| Claim::install(&["eth0"], &set))
        .map_err(io::Error::other)?;
    // The director's own check is answered.
    assert_eq!(director.http_get(web.addr(), "/", SECOND)?.status, 200);
    // A reply to somebody behind the director is taken.
    let socket = server.run(|| UdpSocket::bind("10.0.0.1:53"))?;
    server.default_route("10.0.0.2")?;
    set.insert_server(Endpoint {
        protocol: 17,
        ..endpoint("10.0.0.1:53")
    });
    claim.replace(&set).map_err(io::Error::other)?;
    socket.send_to(b"reply", "203.0.113.5:4000")?;
    socket.send_to(b"check", "10.0.0.2:4000")?;
    assert_eq!(claim.counters().map_err(io::Error::other)?.from_servers, 1);
    Ok(())
}

fn claim_takes_all_fragments_of_its_addresses() -> io::Result<()> {
    let (client, director) = pair()?;
    let receiver = director.run(|| UdpSocket::bind("10.0.0.2:53"))?;
    receiver.set_read_timeout(Some(SHORT))?;
    let mut set = ClaimSet::new();
    set.insert_service(Endpoint {
        protocol: 17,
        ..endpoint("10.0.0.2:53")
    });
    director.add_address("eth0", "10.0.0.3/24")?;
    let mut claim = director
        .run(|| Claim::install(&["eth0"], &set))
        .map_err(io::Error::other)?;
    let sender = client.run(|| UdpSocket::bind("10.0.0.1:0"))?;
    let mut buffer = [0; 8192];
    sender.send_to(&[1; 100], "10.0.0.2:53")?;
    assert!(receiver.recv(&mut buffer).is_err());
    let mut claimed = || claim.counters().unwrap().to_services;
    assert_eq!(claimed(), 1);
    sender.send_to(&[1; 4000], "10.0.0.2:53")?;
    wait(|| claimed() == 4);
    // Of another port the fragments that have no port, of another address nothing.
    sender.send_to(&[1; 4000], "10.0.0.2:54")?;
    wait(|| claimed() == 6);
    let other = director.run(|| UdpSocket::bind("10.0.0.3:53"))?;
    other.set_read_timeout(Some(SECOND))?;
    sender.send_to(&[1; 4000], "10.0.0.3:53")?;
    assert_eq!(other.recv(&mut buffer)?, 4000);
    assert_eq!(claimed(), 6);
    claim.replace(&ClaimSet::new()).map_err(io::Error::other)?;
    sender.send_to(&[1; 4000], "10.0.0.2:53")?;
    assert_eq!(receiver.recv(&mut buffer)?, 4000);
    Ok(())
}

fn claim_leaves_vlans_alone() -> io::Result<()> {
    let (client, director) = pair()?;
    let mut set = ClaimSet::new();
    set.insert_service(Endpoint {
        protocol: 17,
        ..endpoint("10.0.0.2:53")
    });
    let mut claim = director
        .run(|| Claim::install(&["eth0"], &set))
        .map_err(io::Error::other)?;
    let packet = udp("10.0.0.1:5000", "10.0.0.2:53", b"hello");
    let target = director
        .netlink()
        .map_err(io::Error::other)?
        .link_by_name("eth0");
    let target = target.map_err(io::Error::other)?.mac.unwrap();
    let link = client
        .netlink()
        .map_err(io::Error::other)?
        .link_by_name("eth0");
    let link = link.map_err(io::Error::other)?;
    let mut ring = client.run(|| Ring::open(&RingConfig::new(link.index)))?;
    let mut send = |tag: &[u8]| {
        let frame = [
            &target[..],
            &link.mac.unwrap()[..],
            tag,
            &[0x08, 0x00],
            &packet,
        ]
        .concat();
        ring.transmit(Frame::from_bytes(&frame));
        ring.flush()
    };
    // VLAN 100: the claim must not see through the tag, though the kernel takes it off first.
    send(&[0x81, 0x00, 0x00, 0x64])?;
    send(&[])?;
    wait(|| claim.counters().unwrap().to_services > 0);
    assert_eq!(
        claim.counters().unwrap().to_services,
        1,
        "the tagged frame came first and was left alone"
    );
    Ok(())
}

fn mirror_follows_routes_and_neighbours() -> io::Result<()> {
    let (client, director) = pair()?;
    let mut mirror = director
        .run(|| Mirror::open(&["eth0"]))
        .map_err(io::Error::other)?;
    let before = mirror.snapshot();
    assert!(before.local.contains(&ip("10.0.0.2")));
    assert_eq!(before.ports.len(), 1);
    let port = before.ports[0].clone();
    assert_eq!(
        (port.name.as_str(), port.mtu, port.forwarding),
        ("eth0", 1500, false)
    );
    assert_eq!(port.addr(false), Some("10.0.0.2".parse().unwrap()));
    assert_eq!(
        before.routes.lookup(&ip("10.0.0.2")).unwrap().kind,
        RouteKind::Local
    );
    assert_eq!(
        before.routes.lookup(&ip("10.0.0.1")).unwrap().next_hop,
        NextHop::OnLink
    );
    assert_eq!(before.routes.lookup(&ip("192.0.2.1")), None);

    director.default_route("10.0.0.1")?;
    director.forward()?;
    assert!(director.run(|| mirror.poll()).map_err(io::Error::other)?);
    let after = mirror.snapshot();
    let route = after.routes.lookup(&ip("192.0.2.1")).unwrap();
    assert_eq!(
        (route.next_hop, route.ifindex),
        (NextHop::Gateway(ip("10.0.0.1")), port.ifindex)
    );
    assert!(after.ports[0].forwarding);

    let hop = Hop {
        ifindex: port.ifindex,
        addr: ip("10.0.0.1"),
    };
    mirror
        .netlink()
        .probe_neighbour(&hop)
        .map_err(io::Error::other)?;
    let routes = std::sync::Arc::as_ptr(&mirror.snapshot().routes);
    wait(|| {
        director.run(|| mirror.poll()).unwrap();
        mirror
            .snapshot()
            .neighbours
            .lookup(&hop)
            .is_some_and(|entry| entry.state.is_usable())
    });
    let mac = client
        .netlink()
        .map_err(io::Error::other)?
        .link_by_name("eth0")
        .map_err(io::Error::other)?
        .mac;
    assert_eq!(
        mirror
            .snapshot()
            .neighbours
            .lookup(&hop)
            .map(|entry| entry.mac),
        mac
    );
    assert_eq!(std::sync::Arc::as_ptr(&mirror.snapshot().routes), routes);
    assert!(!director.run(|| mirror.poll()).map_err(io::Error::other)?);
    Ok(())
}

fn mirror_forgets_routes_that_fell_silently() -> io::Result<()> {
    let (_client, director) = pair()?;
    let mut mirror = director
        .run(|| Mirror::open(&["eth0"]))
        .map_err(io::Error::other)?;
    director.default_route("10.0.0.1")?;
    director.run(|| mirror.poll()).map_err(io::Error::other)?;
    assert!(mirror.snapshot().routes.lookup(&ip("192.0.2.1")).is_some());
    let mut netlink = director.netlink().map_err(io::Error::other)?;
    let link = netlink.link_by_name("eth0").map_err(io::Error::other)?;
    netlink
        .set_up(link.index, false)
        .map_err(io::Error::other)?;
    director.run(|| mirror.poll()).map_err(io::Error::other)?;
    let snapshot = mirror.snapshot();
    assert_eq!(snapshot.routes.lookup(&ip("192.0.2.1")), None);
    assert!(snapshot.ports.is_empty());
    Ok(())
}

fn tun_delivers_to_the_host() -> io::Result<()> {
    if no_tun() {
        return Ok(());
    }
    let (_client, director) = pair()?;
    director.default_route("10.0.0.1")?;
    let (mut tun, socket) = director.run(|| {
        let tun = Tun::open().map_err(io::Error::other)?;
        assert!(!tun.is_filtered());
        Ok::<_, io::Error>((tun, UdpSocket::bind("10.0.0.2:53")?))
    })?;
    assert_eq!(tun.name(), "lvs0");
    socket.set_read_timeout(Some(SECOND))?;
    // No UDP checksum; the client is somewhere beyond eth0.
    tun.transmit(Frame::from_bytes(&udp(
        "203.0.113.5:4000",
        "10.0.0.2:53",
        b"hello",
    )));
    tun.flush()?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(
        (&buffer[..length], from),
        (&b"hello"[..], addr("203.0.113.5:4000"))
    );
    assert_eq!(
        (
            tun.pending(),
            tun.counters().transmitted,
            tun.counters().refused
        ),
        (0, 1, 0)
    );
    let second = director.run(Tun::open).map_err(io::Error::other)?;
    assert_eq!(second.name(), "lvs1");
    Ok(())
}

fn replies_of_local_servers_come_to_the_tun() -> io::Result<()> {
    if no_tun() {
        return Ok(());
    }
    let (_client, director) = pair()?;
    director.default_route("10.0.0.1")?;
    let (mut tun, socket) = director.run(|| {
        Ok::<_, io::Error>((
            Tun::open().map_err(io::Error::other)?,
            UdpSocket::bind("10.0.0.2:5353")?,
        ))
    })?;
    let server = Endpoint {
        protocol: 17,
        ..endpoint("10.0.0.2:5353")
    };
    let mut replies = director
        .run(|| LocalReplies::open(&tun))
        .map_err(io::Error::other)?;
    replies.set(&[server]).map_err(io::Error::other)?;
    tun.transmit(Frame::from_bytes(&udp(
        "203.0.113.5:4000",
        "10.0.0.2:5353",
        b"ask",
    )));
    tun.flush()?;
    let mut buffer = [0; 64];
    socket.set_read_timeout(Some(SECOND))?;
    let (_, from) = socket.recv_from(&mut buffer)?;
    socket.send_to(b"answer", from)?;
    let mut frames = Vec::new();
    wait(|| {
        tun.receive(&mut frames, 16).unwrap();
        frames
            .iter()
            .any(|frame| frame.bytes().ends_with(b"answer"))
    });
    // A predecessor's rules are removed, as are one's own in the end.
    std::mem::forget(replies);
    let marked = |netlink: &mut Netlink| {
        netlink
            .rules()
            .unwrap()
            .iter()
            .filter(|rule| rule.protocol == MARK)
            .count()
    };
    let mut netlink = director.netlink().map_err(io::Error::other)?;
    assert_eq!(marked(&mut netlink), 1);
    let mut next = director
        .run(|| LocalReplies::open(&tun))
        .map_err(io::Error::other)?;
    assert_eq!(marked(&mut netlink), 0);
    next.set(&[server]).map_err(io::Error::other)?;
    assert_eq!(marked(&mut netlink), 1);
    drop(next);
    assert_eq!(marked(&mut netlink), 0);
    Ok(())
}
/// The same decision as the engine's, on the kernel's side.
fn claim_takes_errors_about_what_it_claims() -> io::Result<()> {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

    let (client, director) = pair()?;
    client.default_route("10.0.0.2")?;
    let mut set = ClaimSet::new();
    let udp_endpoint = |text| Endpoint {
        protocol: 17,
        ..endpoint(text)
    };
    set.insert_service(udp_endpoint("10.0.0.2:53"));
    set.insert_server(udp_endpoint("10.0.0.9:5353"));
    let mut claim = director
        .run(|| Claim::install(&["eth0"], &set))
        .map_err(io::Error::other)?;
    let raw = client.run(|| socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)))?;
    let answer = udp("10.0.0.2:53", "10.0.0.1:4000", b"hello");
    let question = udp("203.0.113.5:4000", "10.0.0.9:5353", b"hello");
    let changed = |at: usize, value: u8| {
        let mut quoted = answer.clone();
        quoted[at] = value;
        quoted
    };
    let (director_addr, elsewhere) = ("10.0.0.2:0", "203.0.113.5:0");
    let table = [
        ("unreachable", 3, &answer, director_addr, true),
        ("source quench", 4, &answer, director_addr, true),
        ("time exceeded", 11, &answer, director_addr, true),
        ("about a request", 3, &question, elsewhere, true),
        ("about a check", 3, &question, director_addr, false),
        ("redirect", 5, &answer, director_addr, false),
        ("echo", 8, &answer, director_addr, false),
        ("parameter problem", 12, &answer, director_addr, false),
        ("other port", 3, &changed(21, 54), director_addr, false),
        ("options", 3, &changed(0, 0x46), director_addr, false),
        ("later fragment", 3, &changed(7, 1), director_addr, false),
        ("first fragment", 3, &changed(6, 0x20), director_addr, true),
        ("TCP", 3, &changed(9, 6), director_addr, false),
        ("cut", 3, &answer[..21].to_vec(), director_addr, false),
    ];
    let mut expected = 0;
    for (name, kind, quoted, to, is_claimed) in table {
        let message = [&[kind, 0, 0, 0, 0, 0, 5, 20], &quoted[..]].concat();
        sendto(&raw, &message, SendFlags::empty(), &addr(to))?;
        expected += u64::from(is_claimed);
        wait(|| claim.counters().unwrap().errors >= expected);
        assert_eq!(claim.counters().unwrap().errors, expected, "{name}");
    }
    // Taken back with what it is about.
    claim.replace(&ClaimSet::new()).map_err(io::Error::other)?;
    let message = [&[3, 0, 0, 0, 0, 0, 5, 20], &answer[..]].concat();
    sendto(&raw, &message, SendFlags::empty(), &addr(director_addr))?;
    assert_eq!(claim.counters().unwrap().errors, expected);
    Ok(())
}

/// Two hosts with a cable: 10.0.0.1 and 10.0.0.2, 2001:db8::1 and ::2.
fn pair() -> io::Result<(Namespace, Namespace)> {
    let (one, two) = (Namespace::new("one")?, Namespace::new("two")?);
    veth((&one, "eth0", "10.0.0.1/24"), (&two, "eth0", "10.0.0.2/24"))?;
    one.add_address("eth0", "2001:db8::1/64")?;
    two.add_address("eth0", "2001:db8::2/64")?;
    Ok((one, two))
}

/// Some systems keep the TUN device to root; a user namespace does not help there.
fn no_tun() -> bool {
    let opened = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    opened
        .inspect_err(|error| println!("skipped: no TUN device here ({error})"))
        .is_err()
}

/// How a connection attempt fails.
fn connect(from: &Namespace, to: &str) -> io::ErrorKind {
    match from.run(|| TcpStream::connect_timeout(&addr(to), SHORT)) {
        Ok(_) => panic!("{to} accepts"),
        Err(error) => error.kind(),
    }
}

fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (addr(from), addr(to)) else {
        unreachable!("IPv4 tests")
    };
    let length = (28 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend_from_slice(&from.ip().octets());
    packet.extend_from_slice(&to.ip().octets());
    let sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    for word in [from.port(), to.port(), length - 20, 0] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet.extend_from_slice(payload);
    packet
}

fn wait(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(3);
    while !done() {
        assert!(
            Instant::now() < end,
            "it did not happen within three seconds"
        );
        sleep(Duration::from_millis(5));
    }
}

fn endpoint(text: &str) -> Endpoint {
    let addr = addr(text);
    Endpoint {
        protocol: 6,
        addr: addr.ip(),
        port: addr.port(),
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const SECOND: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(200);

/// A UDP packet over IPv6 without payload, with these headers in front of UDP's: a fragment header, or none.
fn udp6(from: &str, to: &str, fragment: &[u8]) -> Vec<u8> {
    let (SocketAddr::V6(from), SocketAddr::V6(to)) = (addr(from), addr(to)) else {
        unreachable!("IPv6 tests")
    };
    let mut packet = vec![0x60, 0, 0, 0, 0, 8 + fragment.len() as u8, 17, 64];
    if !fragment.is_empty() {
        packet[6] = 44;
    }
    packet.extend_from_slice(&from.ip().octets());
    packet.extend_from_slice(&to.ip().octets());
    packet.extend_from_slice(fragment);
    for word in [from.port(), to.port(), 8, 0] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet
}
