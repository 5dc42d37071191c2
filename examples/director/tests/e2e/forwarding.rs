//! Packets and where they go.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netlab::{HttpServer, Namespace};

use crate::stage::{Conf, Director, Stage, VIP, is_xdp, rip, vip};
use crate::{once, with_devices};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![once(
        "claim_takes_no_more_than_the_service",
        claim_takes_no_more_than_the_service,
    )];
    for (name, test) in [
        ("nat_rr_shares_evenly", nat_rr_shares_evenly as fn(u32)),
        ("nat_wrr_shares_by_weight", nat_wrr_shares_by_weight),
        (
            "nat_wlc_prefers_the_less_loaded_server",
            nat_wlc_prefers_the_less_loaded_server,
        ),
        (
            "nat_udp_requests_are_answered",
            nat_udp_requests_are_answered,
        ),
        (
            "large_datagrams_travel_in_fragments",
            large_datagrams_travel_in_fragments,
        ),
        ("nat_changes_ports", nat_changes_ports),
        (
            "large_transfer_through_nat_arrives_intact",
            large_transfer_through_nat_arrives_intact,
        ),
        ("dr_rr_shares_evenly", dr_rr_shares_evenly),
        (
            "dr_listing_shows_states_of_one_direction",
            dr_listing_shows_states_of_one_direction,
        ),
        (
            "real_server_on_the_director_by_nat",
            real_server_on_the_director_by_nat,
        ),
        (
            "real_server_on_the_director_by_dr",
            real_server_on_the_director_by_dr,
        ),
        (
            "client_reaches_a_real_server_through_the_director_as_router",
            client_reaches_a_real_server_directly,
        ),
        (
            "segment_without_a_connection_is_reset_by_the_host",
            segment_without_a_connection_is_reset,
        ),
        (
            "server_learns_of_a_narrow_path_to_the_client",
            server_learns_of_a_narrow_path,
        ),
        (
            "service_without_servers_refuses",
            service_without_servers_refuses,
        ),
    ] {
        trials.extend(with_devices(name, test));
    }
    trials
}

fn nat_rr_shares_evenly(workers: u32) {
    let stage = Stage::nat(2);
    let director = Director::start(&stage, &Conf::nat(2).text(), workers);
    assert_eq!(stage.spread(100), [50, 50]);
    let service = director.service();
    assert_eq!(service.stats.conns, 100);
    assert!(
        service.stats.inpkts > 400 && service.stats.outpkts > 400,
        "{:?}",
        service.stats
    );
    assert_eq!(
        service
            .destinations
            .iter()
            .map(|server| server.stats.conns)
            .sum::<u64>(),
        100
    );
}

fn nat_wrr_shares_by_weight(workers: u32) {
    let stage = Stage::nat(2);
    let mut conf = Conf::nat(2);
    conf.scheduler = "wrr";
    conf.servers[0].1 = 3;
    let _director = Director::start(&stage, &conf.text(), workers);
    assert_eq!(stage.spread(100), [75, 25]);
}

fn nat_wlc_prefers_the_less_loaded_server(workers: u32) {
    let stage = Stage::nat(2);
    let mut conf = Conf::nat(2);
    conf.scheduler = "wlc";
    let director = Director::start(&stage, &conf.text(), workers);
    // Each connection stays open, so the next one goes to the other server.
    let open: Vec<TcpStream> = (0..6)
        .map(|_| stage.client.run(|| TcpStream::connect(vip())).unwrap())
        .collect();
    director.wait_until("six active connections, three each", || {
        let servers = director.service().destinations;
        servers
            .iter()
            .map(|server| server.active)
            .collect::<Vec<_>>()
            == [3, 3]
    });
    drop(open);
}

fn nat_udp_requests_are_answered(workers: u32) {
    let stage = Stage::nat(2);
    let mut conf = Conf::nat(2);
    conf.protocol = "UDP";
    let director = Director::start(&stage, &conf.text(), workers);
    for (n, (namespace, _)) in stage.servers.iter().enumerate() {
        let socket = namespace.run(|| UdpSocket::bind(rip(n + 1))).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..length], from).unwrap();
            }
        });
    }
    // Kept open: a port used twice would be one flow.
    let mut open = Vec::new();
    for n in 0..20_u8 {
        let socket = stage.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.connect(vip()).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket.send(&[n; 100]).unwrap();
        let mut buffer = [0; 200];
        assert_eq!(
            socket.recv(&mut buffer).unwrap(),
            100,
            "from the virtual address, or it would not be received"
        );
        assert_eq!(buffer[..100], [n; 100]);
        open.push(socket);
    }
    let service = director.service();
    assert_eq!(
        service
            .destinations
            .iter()
            .map(|server| server.stats.conns)
            .collect::<Vec<_>>(),
        [10, 10]
    );
    assert!(
        service
            .destinations
            .iter()
            .all(|server| (server.active, server.inactive) == (0, 10))
    );
}

/// Datagrams of 8 KB and more, to the server and back; and to the host's own port of the same address.
fn large_datagrams_travel_in_fragments(workers: u32) {
    let stage = Stage::nat(1);
    let mut conf = Conf::nat(1);
    conf.protocol = "UDP";
    let director = Director::start(&stage, &conf.text(), workers);
    let echo = |socket: UdpSocket| {
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        thread::spawn(move || {
            let mut buffer = vec![0; 0x1_0000];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..length], from).unwrap();
            }
        });
    };
    echo(stage.servers[0].0.run(|| UdpSocket::bind(rip(1))).unwrap());
    let own = SocketAddr::new(VIP.parse().unwrap(), 9999);
    echo(stage.director.run(|| UdpSocket::bind(own)).unwrap());
    let has_tun = !director.log().contains("no way back to the host");
    let socket = stage.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut buffer = vec![0; 0x1_0000];
    for (n, length) in [8192, 8192, 20_000, 65_000, 1472, 1473]
        .into_iter()
        .enumerate()
    {
        let sent: Vec<u8> = (0..length).map(|at| (at * 7 + n) as u8).collect();
        for to in [vip(), own] {
            if to == own && !has_tun {
                continue;
            }
            socket.send_to(&sent, to).unwrap();
            let (received, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(from, to);
            assert!(buffer[..received] == sent, "{length} bytes by {to}");
        }
    }
    assert_eq!(director.service().stats.conns, 1);
}

fn nat_changes_ports(workers: u32) {
    let stage = Stage::nat(1);
    let _other = HttpServer::start(
        &stage.servers[0].0,
        "10.1.0.11:8080".parse().unwrap(),
        "port8080",
    )
    .unwrap();
    let mut conf = Conf::nat(0);
    conf.servers = vec![("10.1.0.11 8080".into(), 1)];
    let _director = Director::start(&stage, &conf.text(), workers);
    assert_eq!(stage.ask().unwrap(), "port8080");
}

fn large_transfer_through_nat_arrives_intact(workers: u32) {
    const LENGTH: u64 = 200 << 20;
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), workers);
    let response = stage
        .client
        .http_get(vip(), &format!("/bytes/{LENGTH}"), Duration::from_secs(10))
        .unwrap();
    assert_eq!(response.length, LENGTH);
    assert_eq!(response.hash, netlab::bytes_hash(LENGTH));
    let stats = director.service().stats;
    assert!(stats.outbytes > LENGTH);
    // Offloads are on: far fewer packets than segments, where the device carries them.
    assert!(is_xdp() || stats.outpkts < LENGTH / 1448 / 4, "{stats:?}");
}

fn dr_rr_shares_evenly(workers: u32) {
    let stage = Stage::direct(2);
    let director = Director::start(&stage, &Conf::direct(2).text(), workers);
    assert_eq!(stage.spread(100), [50, 50]);
    let stats = director.service().stats;
    assert_eq!(
        (stats.conns, stats.outpkts),
        (100, 0),
        "replies do not come by"
    );
}

fn dr_listing_shows_states_of_one_direction(workers: u32) {
    let stage = Stage::direct(1);
    let director = Director::start(&stage, &Conf::direct(1).text(), workers);
    let open = stage.client.run(|| TcpStream::connect(vip())).unwrap();
    let client = open.local_addr().unwrap();
    director.wait_until("an established connection", || {
        director
            .connections()
            .iter()
            .any(|entry| entry.client == client && entry.state == "ESTABLISHED")
    });
    let listing = director.ipvsadm(&["-Lnc"]);
    let line = listing.lines().nth(2).unwrap();
    let source = format!("{client:<18}");
    assert!(
        line.starts_with("TCP 14:5") || line.starts_with("TCP 15:00"),
        "{line}"
    );
    assert!(
        line.ends_with(&format!("ESTABLISHED {source} {VIP}:80  198.51.100.11:80")),
        "{line}"
    );
    drop(open);
    director.wait_until("FIN_WAIT, as the server's side is never seen", || {
        director
            .connections()
            .iter()
            .any(|entry| entry.client == client && entry.state == "FIN_WAIT")
    });
}

fn real_server_on_the_director_by_nat(workers: u32) {
    let stage = Stage::nat(1);
    let own = HttpServer::start(&stage.director, "10.1.0.1:8080".parse().unwrap(), "own").unwrap();
    let mut conf = Conf::nat(1);
    conf.servers.push(("10.1.0.1 8080".into(), 1));
    let director = Director::start(&stage, &conf.text(), workers);
    let mut names: Vec<String> = (0..10).map(|_| stage.ask().unwrap()).collect();
    names.sort();
    assert_eq!(names, [["own"; 5], ["rs1"; 5]].concat());
    assert_eq!(own.requests(), 5);
    let listed = director
        .service()
        .destinations
        .into_iter()
        .find(|server| server.port == 8080)
        .unwrap();
    assert!(
        listed.stats.outpkts > 0,
        "replies pass the director: {:?}",
        listed.stats
    );
    // A large answer: super-packets between host and data path.
    for _ in 0..2 {
        let length = 3 << 20;
        let response = stage
            .client
            .http_get(vip(), &format!("/bytes/{length}"), Duration::from_secs(5))
            .unwrap();
        assert_eq!(response.hash, netlab::bytes_hash(length));
    }
}

fn real_server_on_the_director_by_dr(workers: u32) {
    let stage = Stage::direct(1);
    let any = SocketAddr::from(([0, 0, 0, 0], 80));
    let _own = HttpServer::start(&stage.director, any, "own").unwrap();
    let mut conf = Conf::direct(1);
    conf.servers.push(("198.51.100.1 80".into(), 1));
    let _director = Director::start(&stage, &conf.text(), workers);
    let mut names: Vec<String> = (0..10).map(|_| stage.ask().unwrap()).collect();
    names.sort();
    assert_eq!(names, [["own"; 5], ["rs1"; 5]].concat());
}

fn client_reaches_a_real_server_directly(workers: u32) {
    let stage = Stage::nat(1);
    stage.director.forward().unwrap();
    let _director = Director::start(&stage, &Conf::nat(1).text(), workers);
    // The replies carry the address and port that are claimed from the host, and belong to no connection.
    let response = stage
        .client
        .http_get(rip(1), "/bytes/3000000", Duration::from_secs(3))
        .unwrap();
    assert_eq!(response.hash, netlab::bytes_hash(3_000_000));
    assert_eq!(stage.ask().unwrap(), "rs1");
}

/// After a director that lost its connections: the client must learn at once, not at its own timeout.
fn segment_without_a_connection_is_reset(workers: u32) {
    let stage = Stage::nat(1);
    let conf = Conf::nat(1).text();
    let director = Director::start(&stage, &conf, workers);
    let mut open = stage.client.run(|| TcpStream::connect(vip())).unwrap();
    director.kill();
    let _director = Director::start(&stage, &conf, workers);
    open.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let started = Instant::now();
    // The first write may succeed before the reset comes back.
    let outcome = open
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .and_then(|()| open.read(&mut [0; 16]).map(|_| ()));
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(started.elapsed() < Duration::from_secs(3));
}

/// A router's ICMP error goes to the virtual address; the server would send too large packets for ever without it.
fn server_learns_of_a_narrow_path(workers: u32) {
    let stage = Stage::nat(1);
    let far = Namespace::new("far").unwrap();
    netlab::veth(
        (&far, "eth0", "203.0.113.10/24"),
        (&stage.client, "far0", "203.0.113.1/24"),
    )
    .unwrap();
    far.default_route("203.0.113.1").unwrap();
    stage.client.forward().unwrap();
    stage
        .director
        .add_route("203.0.113.0/24", "198.51.100.10")
        .unwrap();
    let mut netlink = stage.client.netlink().unwrap();
    let narrow = netlink.link_by_name("far0").unwrap().index;
    netlink.set_mtu(narrow, 1300).unwrap();

    let _director = Director::start(&stage, &Conf::nat(1).text(), workers);
    let response = far
        .http_get(vip(), "/bytes/3000000", Duration::from_secs(5))
        .unwrap();
    assert_eq!(response.hash, netlab::bytes_hash(3_000_000));
}

fn service_without_servers_refuses(workers: u32) {
    let mut stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), workers);
    stage.servers[0].1.stop();
    director.wait_for_log("real server 10.1.0.11:80 of TCP 198.51.100.100:80 is down");
    let started = Instant::now();
    let error = stage.ask().unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::ConnectionRefused,
        "port unreachable ends a connection attempt at once"
    );
    assert!(started.elapsed() < Duration::from_secs(1));
}

pub(crate) fn claim_takes_no_more_than_the_service() {
    let stage = Stage::nat(1);
    let _web =
        HttpServer::start(&stage.director, "0.0.0.0:8080".parse().unwrap(), "director").unwrap();
    let _director = Director::start(&stage, &Conf::nat(1).text(), 1);
    let connect = |port: u16| {
        let addr = SocketAddr::new(VIP.parse().unwrap(), port);
        stage
            .client
            .run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(2)))
    };
    assert_eq!(
        connect(81).unwrap_err().kind(),
        ErrorKind::ConnectionRefused,
        "the host resets what nobody serves"
    );
    let response = stage
        .client
        .http_get(
            format!("{VIP}:8080").parse().unwrap(),
            "/",
            Duration::from_secs(2),
        )
        .unwrap();
    assert_eq!(
        response.server, "director",
        "the host's own services stay reachable at the virtual address"
    );
    // UDP to the port of a TCP service is the host's too: port unreachable.
    let socket = stage.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect(vip()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    socket.send(b"x").unwrap();
    assert_eq!(
        socket.recv(&mut [0; 8]).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    assert_eq!(stage.ask().unwrap(), "rs1");
}
