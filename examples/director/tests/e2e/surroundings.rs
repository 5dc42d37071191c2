//! What changes around a running director: interfaces, addresses, the way to the host.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use lvs_fwd::device::Device;
use lvs_fwd::device::ring::{Ring, RingConfig};
use lvs_fwd::frame::Frame;
use lvs_fwd::wire::ipv4;
use netlab::{HttpServer, Namespace};
use rustix::process::Signal;

use crate::stage::{Conf, Director, Stage, VIP, vip};
use crate::{once, with_workers};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        once(
            "without_its_tun_device_it_balances_and_ends",
            without_its_tun_device_it_balances_and_ends,
        ),
        once(
            "a_server_that_answers_no_arp_is_named",
            a_server_that_answers_no_arp_is_named,
        ),
        once(
            "without_a_tun_device_raw_sockets_lead_to_the_host",
            without_a_tun_device_raw_sockets_lead_to_the_host,
        ),
        once(
            "claim_is_about_frames_to_the_interface",
            claim_is_about_frames_to_the_interface,
        ),
    ];
    for (name, test) in [
        (
            "interface_made_anew_is_forwarded_at",
            interface_made_anew_is_forwarded_at as fn(u32),
        ),
        (
            "interface_that_comes_late_is_forwarded_at",
            interface_that_comes_late_is_forwarded_at,
        ),
        (
            "interface_down_and_up_again_goes_on",
            interface_down_and_up_again_goes_on,
        ),
        (
            "every_port_of_an_address_by_nat",
            every_port_of_an_address_by_nat,
        ),
    ] {
        trials.extend(with_workers(name, test));
    }
    trials
}

/// Without checks nothing else would say so.
fn a_server_that_answers_no_arp_is_named() {
    let stage = Stage::nat(1);
    let mut conf = Conf::nat(0);
    conf.protocol = "UDP";
    conf.servers = vec![("10.1.0.99 80".into(), 1)];
    let director = Director::start(&stage, &conf.text(), 1);
    assert_eq!(director.status().unreachable, []);
    let socket = stage.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    // More than may wait, and no burst that the ring has no slots for.
    for _ in 0..200 {
        socket.send_to(b"anybody?", vip()).unwrap();
        thread::sleep(Duration::from_micros(200));
    }
    let reason = "10.1.0.99 does not answer at int0";
    director.wait_for_log(&format!("real server 10.1.0.99 can't be sent to: {reason}"));
    let status = director.status();
    assert_eq!(status.unreachable[0].reason, reason);
    let dropped = &status.counters[0].dropped;
    let count = |name: &str| dropped.iter().find(|it| it.name == name).unwrap().count;
    assert!(count("hold-overflow") > 50, "{dropped:?}");
    let (_, output, _) = director.beside(&["status"]);
    assert!(output.contains(&format!("Real server 10.1.0.99 can't be sent to: {reason}")));
    // It appears.
    stage.servers[0]
        .0
        .add_address("eth0", "10.1.0.99/24")
        .unwrap();
    director.wait_until("the server's neighbour", || {
        socket.send_to(b"anybody?", vip()).unwrap();
        director.status().unreachable.is_empty()
    });
}

/// As in a container that has not got `/dev/net/tun`.
fn without_a_tun_device_raw_sockets_lead_to_the_host() {
    let stage = Stage::direct(1);
    let any = SocketAddr::from(([0, 0, 0, 0], 80));
    let _own = HttpServer::start(&stage.director, any, "own").unwrap();
    let mut conf = Conf::direct(1);
    conf.servers.push(("198.51.100.1 80".into(), 1));
    let mut nat = conf.text();
    nat.push_str(&format!(
        "virtual_server {VIP} 81 {{\n    lb_algo rr\n    lb_kind NAT\n    protocol TCP\n    real_server 198.51.100.1 80 {{\n    }}\n}}\n"
    ));
    let Some(director) = Director::start_without_tun(&stage, &nat) else {
        return println!("skipped: no mount namespaces here");
    };
    let log = director.log();
    assert!(log.contains("raw sockets lead to the host"), "{log}");
    let mut names: Vec<String> = (0..10).map(|_| stage.ask().unwrap()).collect();
    names.sort();
    assert_eq!(names, [["own"; 5], ["rs1"; 5]].concat());
    // Its answers would have another sender.
    let target = SocketAddr::new(VIP.parse().unwrap(), 81);
    let connect = || TcpStream::connect_timeout(&target, Duration::from_millis(300));
    assert_eq!(
        stage.client.run(connect).unwrap_err().kind(),
        ErrorKind::TimedOut
    );
    let (_, why, _) = director.beside(&["why", "tcp", "198.51.100.10:40000", &target.to_string()]);
    assert!(why.contains("no TUN device for its answers"), "{why}");
    // What belongs to no connection is the host's: it knows one of these, and resets the other.
    let connect = || TcpStream::connect(vip()).unwrap();
    let mut open: Vec<TcpStream> = (0..2).map(|_| stage.client.run(connect)).collect();
    director.kill();
    let _director = Director::start_without_tun(&stage, &nat).unwrap();
    let mut outcomes: Vec<Option<ErrorKind>> = open
        .iter_mut()
        .map(|stream| {
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let outcome = stream
                .write_all(b"GET / HTTP/1.0\r\n\r\n")
                .and_then(|()| stream.read(&mut [0; 16]));
            outcome.err().map(|error| error.kind())
        })
        .collect();
    outcomes.sort();
    assert_eq!(outcomes, [None, Some(ErrorKind::ConnectionReset)]);
}

/// A cable between client and director, as the NAT stage has it.
fn connect(client: &Namespace, director: &Namespace) {
    netlab::veth(
        (client, "eth0", "198.51.100.10/24"),
        (director, "ext0", "198.51.100.1/24"),
    )
    .unwrap();
    client.default_route("198.51.100.1").unwrap();
}

fn disconnect(stage: &Stage) {
    let mut netlink = stage.director.netlink().unwrap();
    let link = netlink.link_by_name("ext0").unwrap();
    netlink.delete_link(link.index).unwrap();
}

fn interface_made_anew_is_forwarded_at(workers: u32) {
    let stage = Stage::nat(2);
    let director = Director::start(&stage, &Conf::nat(2).text(), workers);
    assert_eq!(stage.spread(4), [2, 2]);
    for round in 1..=3 {
        disconnect(&stage);
        director.wait_until("interface gone", || {
            director.log().matches("interface ext0 is gone").count() == round
        });
        connect(&stage.client, &stage.director);
        director.wait_until("its address back", || {
            director
                .log()
                .matches(&format!("address {VIP}/24 on ext0 added"))
                .count()
                == 1 + round
        });
        assert_eq!(stage.spread(10), [5, 5]);
    }
    assert!(director.terminate().success());
}

fn interface_that_comes_late_is_forwarded_at(workers: u32) {
    let stage = Stage::nat(2);
    disconnect(&stage);
    let director = Director::launch(&stage.director, &Conf::nat(2).text(), workers);
    director.wait_for_log("running ");
    director.wait_for_log("Fault from Initialize: interface ext0 fails");
    connect(&stage.client, &stage.director);
    director.wait_for_log(&format!("address {VIP}/24 on ext0 added"));
    assert_eq!(stage.spread(10), [5, 5]);
    let status = director.terminate();
    assert!(status.success());
}

fn interface_down_and_up_again_goes_on(workers: u32) {
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), workers);
    let mut netlink = stage.director.netlink().unwrap();
    let link = netlink.link_by_name("int0").unwrap();
    for round in 1..=3 {
        netlink.set_up(link.index, false).unwrap();
        director.wait_until("the interface down", || {
            director.log().matches("interface int0 is down").count() == round
        });
        netlink.set_up(link.index, true).unwrap();
        director.wait_until("the interface up", || {
            director.log().matches("interface int0 is up").count() == round
        });
        // The kernel passes frames a moment after it says that the interface is up.
        director.wait_until("an answer", || stage.ask().is_ok());
        director.wait_until("the server checked", || {
            director.service().destinations.len() == 1
        });
    }
}

/// Somebody removes `lvs0`: reading it fails for ever after.
fn without_its_tun_device_it_balances_and_ends() {
    let stage = Stage::nat(2);
    let director = Director::start(&stage, &Conf::nat(2).text(), 1);
    let mut netlink = stage.director.netlink().unwrap();
    let Ok(tun) = netlink.link_by_name("lvs0") else {
        return println!("skipped: no TUN device here");
    };
    let mut open = stage.client.run(|| TcpStream::connect(vip())).unwrap();
    netlink.delete_link(tun.index).unwrap();
    // More than there are slots in the rings.
    send_to_vip(&stage, 200);
    assert_eq!(stage.spread(10), [5, 5]);
    open.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(open.read(&mut [0; 16]).unwrap() > 0, "it goes on");
    director.wait_for_log("the TUN device has been removed");
    director.signal(Signal::USR1);
    director.wait_for_log("packets ResetSent: ");
    let before = director.processor_time();
    std::thread::sleep(Duration::from_millis(500));
    let spent = director.processor_time() - before;
    assert!(spent < Duration::from_millis(200), "it spins: {spent:?}");
    let started = Instant::now();
    assert!(director.terminate().success());
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// Segments of no connection.
fn send_to_vip(stage: &Stage, count: usize) {
    let [source, target] =
        [(&stage.client, "eth0"), (&stage.director, "ext0")].map(|(namespace, name)| {
            let mut netlink = namespace.netlink().unwrap();
            netlink.link_by_name(name).unwrap()
        });
    let mut ring = stage
        .client
        .run(|| Ring::open(&RingConfig::new(source.index)))
        .unwrap();
    let mut frame = [&target.mac.unwrap()[..], &source.mac.unwrap(), &[8, 0]].concat();
    let header = ipv4::Repr {
        source: [198, 51, 100, 10].into(),
        destination: VIP.parse().unwrap(),
        protocol: 6,
        tos: 0,
        ttl: 64,
        ident: 0,
        dont_fragment: true,
        payload_len: 20,
    };
    frame.resize(14 + 40, 0);
    header.emit(&mut frame[14..]);
    frame[34..38].copy_from_slice(&[0x03, 0xe8, 0, 80]); // from port 1000
    frame[46..48].copy_from_slice(&[0x50, 0x10]); // 20 bytes, ACK
    for _ in 0..count {
        ring.transmit(Frame::from_bytes(&frame));
        ring.flush().unwrap();
    }
}

/// What goes to another hardware address, such as that of a macvlan interface, is not the interface's to take.
fn claim_is_about_frames_to_the_interface() {
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), 1);
    let [source, target] =
        [(&stage.client, "eth0"), (&stage.director, "ext0")].map(|(namespace, name)| {
            let mut netlink = namespace.netlink().unwrap();
            netlink.link_by_name(name).unwrap()
        });
    let mut ring = stage
        .client
        .run(|| Ring::open(&RingConfig::new(source.index)))
        .unwrap();
    let packet = [
        0x45, 0, 0, 0x2c, 0x12, 0x34, 0x40, 0, 0x40, 6, 0, 0, 198, 51, 100, 10, 198, 51, 100, 100,
        0xc3, 0x50, 0, 80, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 0x60, 2, 0xfa, 0xf0, 0, 0, 0, 0, 2,
        4, 5, 0xb4,
    ];
    let mut send = |target: [u8; 6]| {
        let frame = [&target[..], &source.mac.unwrap(), &[8, 0], &packet].concat();
        ring.transmit(Frame::from_bytes(&frame));
        ring.flush().unwrap();
    };
    send([2, 9, 9, 9, 9, 9]);
    send(target.mac.unwrap());
    director.wait_until("one of the two claimed", || {
        director.signal(Signal::USR1);
        director
            .log()
            .contains("claimed from the host: 1 packets to services")
    });
    assert!(
        !director
            .log()
            .contains("claimed from the host: 2 packets to services")
    );
}

fn every_port_of_an_address_by_nat(workers: u32) {
    let stage = Stage::nat(2);
    let others: Vec<HttpServer> = stage
        .servers
        .iter()
        .zip(["10.1.0.11:8080", "10.1.0.12:8080"])
        .map(|((namespace, server), addr)| {
            HttpServer::start(namespace, addr.parse().unwrap(), server.name()).unwrap()
        })
        .collect();
    let conf = Conf::nat(2)
        .text()
        .replace(
            &format!("virtual_server {VIP} 80"),
            &format!("virtual_server {VIP} 0"),
        )
        .replace("10.1.0.11 80", "10.1.0.11 0")
        .replace("10.1.0.12 80", "10.1.0.12 0")
        .replace("TCP_CHECK {", "TCP_CHECK {\nconnect_port 80")
        .replace("lb_kind", "persistence_timeout 60\nlb_kind");
    let director = Director::start(&stage, &conf, workers);
    assert!(!director.log().contains("ERROR"), "{}", director.log());
    let first = stage.ask().unwrap();
    let mut other = vip();
    other.set_port(8080);
    let second = stage
        .client
        .http_get(other, "/", Duration::from_secs(3))
        .unwrap();
    assert_eq!(second.server, first, "one client, one server, every port");
    assert_eq!(others.iter().map(HttpServer::requests).sum::<u64>(), 1);
}
