//! FULLNAT: servers see a local address of the director and learn of the client by an option.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netlab::Namespace;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType, recv, socket, sockopt};
use rustix::process::Signal;

use crate::stage::{Conf, Director, Stage, VIP, vip};
use crate::{once, with_devices, with_workers};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = with_devices(
        "clients_are_named_to_servers_in_their_own_network",
        clients_are_named_to_servers_in_their_own_network,
    );
    trials.extend(with_workers(
        "an_idle_connection_is_reset_at_both_ends",
        an_idle_connection_is_reset_at_both_ends,
    ));
    trials.push(once(
        "without_a_free_port_a_connection_is_refused",
        without_a_free_port_a_connection_is_refused,
    ));
    trials.push(once(
        "local_addresses_are_announced",
        local_addresses_are_announced,
    ));
    trials.push(once(
        "local_addresses_are_edited_by_hand",
        local_addresses_are_edited_by_hand,
    ));
    trials
}

/// All on one LAN; the director holds two local addresses.
fn conf(servers: usize) -> Conf {
    let mut conf = Conf {
        method: "FNAT\n    laddr_group_name locals",
        ..Conf::direct(servers)
    };
    conf.extra =
        "local_address_group locals {\n    198.51.100.200 ext0\n    198.51.100.201 ext0\n}\n"
            .into();
    conf
}

fn locals() -> [IpAddr; 2] {
    [200, 201].map(|last| IpAddr::from([198, 51, 100, last]))
}

/// Where the frames of a namespace can be seen.
pub(crate) fn tap(namespace: &Namespace) -> OwnedFd {
    const ALL: u32 = 3;
    let tap = namespace
        .run(|| {
            let all = Protocol::from_raw((ALL << 8).try_into().unwrap());
            socket(AddressFamily::PACKET, SocketType::RAW, Some(all))
        })
        .unwrap();
    sockopt::set_socket_timeout(&tap, sockopt::Timeout::Recv, Some(Duration::from_secs(2)))
        .unwrap();
    tap
}

/// A segment to port 80: who sent it, and the client that its option names.
pub(crate) fn named(frame: &[u8]) -> Option<(SocketAddr, Option<SocketAddr>)> {
    let ip = frame.get(14..)?;
    // An address is long as its family's are, and the option's length says which it names.
    let (source, tcp) = match frame[12..14] {
        [0x08, 0] if ip.get(9)? == &6 => (ip.get(12..16)?, ip.get(20..)?),
        [0x86, 0xdd] if ip.get(6)? == &6 => (ip.get(8..24)?, ip.get(40..)?),
        _ => return None,
    };
    if tcp.get(2..4)? != [0, 80] {
        return None;
    }
    let addr = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    let port = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let options = tcp.get(20..usize::from(tcp.get(12)? >> 4) * 4)?;
    let client = match options {
        [254, len @ (8 | 20), ..] => options.get(2..usize::from(*len)),
        _ => None,
    };
    let client = client.and_then(|it| Some(SocketAddr::new(addr(&it[2..])?, port(it))));
    Some((SocketAddr::new(addr(source)?, port(tcp)), client))
}

/// Client and server would answer each other without the director, which breaks NAT.
fn clients_are_named_to_servers_in_their_own_network(workers: u32) {
    let stage = Stage::one_lan(1);
    let director = Director::start(&stage, &conf(1).text(), workers);
    let tap = tap(&stage.servers[0].0);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut stream = stage
            .client
            .run(|| TcpStream::connect_timeout(&vip(), Duration::from_secs(3)))
            .unwrap();
        clients.push(stream.local_addr().unwrap());
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("rs1"), "{answer}");
    }
    let mut buffer = vec![0; 0x1_0000];
    let (mut seen, mut sources) = (Vec::new(), Vec::new());
    while let Ok((length, _)) = recv(&tap, &mut buffer[..], RecvFlags::DONTWAIT) {
        let named = named(&buffer[..length]);
        if let Some((source, client)) = named.filter(|it| locals().contains(&it.0.ip())) {
            sources.push(source.ip());
            seen.extend(client);
        }
    }
    seen.dedup();
    assert_eq!(seen, clients, "each client, in the order of their coming");
    for local in locals() {
        assert!(sources.contains(&local), "addresses take turns");
    }
    let service = director.service();
    let stats = service.stats;
    assert_eq!(stats.conns, 8);
    assert!(stats.inpkts >= 32 && stats.outpkts >= 24, "{stats:?}");
    assert_eq!(service.locals.len(), 2);
    let listing = director.ipvsadm(&["-Ln"]);
    assert!(
        listing.contains("198.51.100.11:80             FullNat"),
        "{listing}"
    );
}

/// Whoever knew the address elsewhere learns of it at once.
fn local_addresses_are_announced() {
    let stage = Stage::one_lan(1);
    let tap = tap(&stage.client);
    let _director = Director::start(&stage, &conf(1).text(), 1);
    let mut buffer = vec![0; 0x1_0000];
    let mut announced = Vec::new();
    while let Ok((length, _)) = recv(&tap, &mut buffer[..], RecvFlags::DONTWAIT) {
        let frame = &buffer[..length];
        // ARP to all, with one address as sender's and target's.
        if frame[..6] == [0xff; 6] && frame[12..14] == [8, 6] && frame[28..32] == frame[38..42] {
            announced.push(IpAddr::from([frame[28], frame[29], frame[30], frame[31]]));
        }
    }
    for local in locals() {
        assert!(announced.contains(&local), "{announced:?}");
    }
}

fn an_idle_connection_is_reset_at_both_ends(workers: u32) {
    let stage = Stage::one_lan(1);
    let (server, _) = &stage.servers[0];
    let listener = server
        .run(|| TcpListener::bind((IpAddr::from([0; 4]), 81)))
        .unwrap();
    let text = conf(1)
        .text()
        .replace(&format!("{VIP} 80"), &format!("{VIP} 81"));
    let text = text.replace("198.51.100.11 80", "198.51.100.11 81");
    let director = Director::start(&stage, &text, workers);
    director.ipvsadm(&["--set", "2", "2", "2"]);
    let accepted = thread::spawn(move || {
        loop {
            // The director's own check comes and goes.
            let (mut stream, peer) = listener.accept().unwrap();
            if locals().contains(&peer.ip()) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                stream.write_all(&byte).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                return stream.read(&mut byte).unwrap_err().kind();
            }
        }
    });
    let mut target = vip();
    target.set_port(81);
    let mut stream = stage
        .client
        .run(|| TcpStream::connect_timeout(&target, Duration::from_secs(3)))
        .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut byte = [7];
    stream.write_all(&byte).unwrap();
    stream.read_exact(&mut byte).unwrap();
    let error = stream.read(&mut byte).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the client");
    assert_eq!(
        accepted.join().unwrap(),
        ErrorKind::ConnectionReset,
        "the server"
    );
}

fn without_a_free_port_a_connection_is_refused() {
    let stage = Stage::one_lan(1);
    let more = ["--local-ports", "2000-2001"];
    let director = Director::start_more(&stage, &conf(1).text(), 1, &more);
    let connect = || {
        stage
            .client
            .run(|| TcpStream::connect_timeout(&vip(), Duration::from_secs(3)))
    };
    // Two ports at each of two addresses.
    let held: Vec<TcpStream> = (0..4).map(|_| connect().unwrap()).collect();
    assert_eq!(connect().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let listing = director.ipvsadm(&["--get-laddr", "-n"]);
    let rows: Vec<Vec<&str>> = listing
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[1], ["198.51.100.100:80", "2"], "{listing}");
    assert_eq!(rows[2], ["198.51.100.200", "1", "2"], "{listing}");
    assert_eq!(rows[3], ["198.51.100.201", "1", "2"], "{listing}");
    director.signal(Signal::USR1);
    director.wait_for_log("connections refused because no local address had a free port: 1");
    drop(held);
}

/// A service, its addresses and servers by hand, then saved and restored.
fn local_addresses_are_edited_by_hand() {
    let stage = Stage::one_lan(1);
    let director = Director::start(&stage, &Conf::direct(1).text(), 1);
    director.ipvsadm(&["-C"]);
    let service = format!("{VIP}:80");
    let refused = |arguments: &[&str], why: &str| {
        let (status, _, errors) = director.ipvsadm_run(arguments, "");
        assert_eq!((status, errors.trim()), (255, why));
    };
    let local = ["-t", &service, "--laddr", "198.51.100.1"];
    let add = [&["--add-laddr"], &local[..]].concat();
    refused(&add, "Service not defined");
    director.ipvsadm(&["-A", "-t", &service, "-s", "rr"]);
    director.ipvsadm(&["-a", "-t", &service, "-r", "198.51.100.11:80", "--fullnat"]);
    // No local address yet.
    let ask = || stage.client.http_get(vip(), "/", Duration::from_secs(3));
    assert!(ask().is_err());
    // One that the host has anyway.
    director.ipvsadm(&add);
    refused(&add, "Local address already exists");
    assert_eq!(ask().unwrap().server, "rs1");
    let saved = director.ipvsadm(&["-Sn"]);
    assert_eq!(
        saved,
        format!(
            "-A -t {service} -s rr\n--add-laddr -t {service} --laddr 198.51.100.1\n\
             -a -t {service} -r 198.51.100.11:80 --fullnat -w 1\n"
        )
    );
    director.ipvsadm(&["-C"]);
    let (status, _, errors) = director.ipvsadm_run(&["-R"], &saved);
    assert_eq!((status, errors.as_str()), (0, ""));
    assert_eq!(ask().unwrap().server, "rs1");
    director.ipvsadm(&[&["--del-laddr"], &local[..]].concat());
    refused(
        &[&["--del-laddr"], &local[..]].concat(),
        "No such local address",
    );
    assert!(ask().is_err());
}
