//! FULLNAT through a director and its workers.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::conn::state::{State, TcpState};
use crate::worker::tests::{
    A, F, Lan, S, client, inbound, outbound, persistent, rip, rr, vip,
};
use crate::{
    ConnectionEvent, Direction, Director, DirectorConfig, DropReason, ForwardMethod, ImportError,
    ImportedConnection, Packet, Protocol, ServerConfig, ServiceConfig, ServiceKey, Verdict,
};

fn lip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// A service of one FULLNAT server and one local address, with so many ports.
fn fullnat(protocol: Protocol, ports: u16, config: ServiceConfig) -> Lan {
    let mut director = DirectorConfig::new([1, 2, 3, 4]);
    director.local_ports = 2000..=1999 + ports;
    let lan = Lan::with(director, protocol, 80, config);
    lan.add(1, ForwardMethod::FullNat);
    lan.director.add_local_address(&lan.key, lip(1)).unwrap();
    lan
}

fn local_of(verdict: Verdict) -> SocketAddr {
    match verdict {
        Verdict::ForwardFrom { local, server } => {
            assert_eq!(server, rip(1));
            local
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_keeps_its_local_port_and_answers_to_it_are_its_own() {
    let mut lan = fullnat(Protocol::Tcp, 100, rr());
    let (a, b) = (client(1, 4000), client(2, 4000));
    let local = local_of(lan.send(a, 80, S));
    assert_eq!(local.ip(), lip(1));
    assert!((2000..2100).contains(&local.port()));
    assert_eq!(local_of(lan.send(a, 80, S)), local);
    let other = local_of(lan.send(b, 80, S));
    assert_ne!(other, local);
    for (local, client) in [(local, a), (other, b)] {
        let answer = Verdict::ReplyTo {
            vip: vip(80),
            client,
        };
        assert_eq!(lan.reply(rip(1), local, S | A), answer);
        assert_eq!(lan.reply(rip(2), local, S | A), Verdict::NotOurs);
    }
    assert_eq!(lan.reply(rip(1), a, S | A), Verdict::NotOurs, "its reply goes to the local port");
    let _ = lan.send(a, 80, A);
    assert_eq!(lan.state(a), "ESTABLISHED");
    let info = lan.worker.connection(Protocol::Tcp, a, vip(80)).unwrap();
    assert_eq!((info.local, info.method), (Some(local), ForwardMethod::FullNat));
    assert!(!info.no_output);
    let infos = lan.director.service(&lan.key).unwrap().local_addresses();
    assert_eq!((infos[0].addr, infos[0].connections), (lip(1), 2));
}

#[test]
fn errors_are_found_by_what_they_quote() {
    let mut lan = fullnat(Protocol::Udp, 100, rr());
    let c = client(1, 4000);
    let local = local_of(lan.send(c, 80, S));
    // About what went to the server: it quotes the local port.
    let about = outbound(Protocol::Udp, local, rip(1));
    let answer = Verdict::ReplyTo {
        vip: vip(80),
        client: c,
    };
    assert_eq!(lan.worker.handle_icmp(lan.now, &about), answer);
    // About what the client got.
    let about = inbound(Protocol::Udp, vip(80), c);
    let forward = Verdict::ForwardFrom {
        local,
        server: rip(1),
    };
    assert_eq!(lan.worker.handle_icmp(lan.now, &about), forward);
}

#[test]
fn without_a_free_port_it_is_refused_as_without_a_server_and_counted() {
    let mut lan = fullnat(Protocol::Tcp, 3, persistent(300, [255; 4]));
    let server = lan.director.service(&lan.key).unwrap().server(rip(1)).unwrap();
    let mut locals = HashSet::new();
    for port in 0..3 {
        assert!(locals.insert(local_of(lan.send(client(1, 4000 + port), 80, S))));
    }
    for port in 0..2 {
        assert_eq!(lan.send(client(1, 5000 + port), 80, S), Verdict::Reject);
    }
    assert_eq!(lan.director.dropped(DropReason::NoLocalPort), 2);
    assert_eq!((lan.worker.len(), server.inactive() + server.active()), (3, 3));
    assert_eq!(lan.director.stats().connections, 3);
    let infos = lan.director.service(&lan.key).unwrap().local_addresses();
    assert_eq!((infos[0].connections, infos[0].misses), (3, 2));
    // SYN_RECV lasts 60 s; then the ports are free again, the oldest first.
    lan.at(60.0);
    assert!(lan.worker.is_empty());
    assert!(locals.contains(&local_of(lan.send(client(1, 6000), 80, S))));
    lan.at(2000.0);
    assert!(!server.is_referenced());
}

#[test]
fn another_address_and_another_server_have_ports_of_their_own() {
    let mut lan = fullnat(Protocol::Tcp, 1, rr());
    assert_eq!(local_of(lan.send(client(1, 1), 80, S)).ip(), lip(1));
    assert_eq!(lan.send(client(1, 2), 80, S), Verdict::Reject);
    lan.director.add_local_address(&lan.key, lip(2)).unwrap();
    assert_eq!(local_of(lan.send(client(1, 3), 80, S)).ip(), lip(2));
    assert_eq!(
        lan.director.add_local_address(&lan.key, "2001:db8::1".parse().unwrap()),
        Err(LocalError::Family)
    );
    lan.add(2, ForwardMethod::FullNat);
    let locals: HashSet<SocketAddr> = (4..8)
        .filter_map(|port| match lan.send(client(1, port), 80, S) {
            Verdict::ForwardFrom { local, server } => {
                assert_eq!(server, rip(2));
                Some(local)
            }
            Verdict::Reject => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(locals.len(), 2, "the same two towards the other server");
    lan.director.remove_local_address(&lan.key, lip(2)).unwrap();
    lan.director.remove_local_address(&lan.key, lip(1)).unwrap();
    let c = client(1, 3);
    assert_eq!(local_of(lan.send(c, 80, A)).ip(), lip(2), "it keeps what it has");
}

#[test]
fn a_replaced_connection_gets_another_port_and_gives_back_the_old_one() {
    let mut lan = fullnat(Protocol::Tcp, 2, rr());
    let c = client(1, 4000);
    let before = local_of(lan.send(c, 80, S));
    let _ = lan.reply(rip(1), before, S | A);
    let _ = lan.send(c, 80, A);
    let _ = lan.send(c, 80, F | A);
    let _ = lan.reply(rip(1), before, F | A);
    assert_eq!(lan.state(c), "TIME_WAIT");
    let after = local_of(lan.send(c, 80, S));
    assert_ne!(after, before);
    let end = lan.worker.poll_local_end().unwrap();
    assert_eq!(end.connection.local, Some(before));
    assert!(!end.timed_out);
    assert_eq!(lan.worker.poll_local_end(), None);
    assert_eq!(local_of(lan.send(client(2, 1), 80, S)), before, "it is free");
}

#[test]
fn the_end_tells_whether_nothing_was_heard() {
    let mut lan = fullnat(Protocol::Tcp, 10, rr());
    let c = client(1, 4000);
    let local = local_of(lan.send(c, 80, S));
    let _ = lan.reply(rip(1), local, S | A);
    let _ = lan.send(c, 80, A);
    lan.at(899.9);
    assert_eq!(lan.worker.poll_local_end(), None);
    lan.at(900.0);
    let end = lan.worker.poll_local_end().unwrap();
    assert!(end.timed_out);
    assert_eq!(end.connection.state, State::Tcp(TcpState::Established));
    assert_eq!(
        (end.connection.client, end.connection.destination, end.connection.local),
        (c, rip(1), Some(local))
    );
    lan.tune(|tunables| tunables.expire_nodest_conn = true);
    let _ = lan.send(c, 80, S);
    lan.remove(1);
    lan.at(902.0);
    assert!(lan.worker.is_empty());
    assert!(!lan.worker.poll_local_end().unwrap().timed_out);
}

#[test]
fn workers_have_ports_of_their_own_and_replies_name_them() {
    let director = Arc::new(Director::new(DirectorConfig::new([1, 2, 3, 4])));
    let key = ServiceKey::Address {
        protocol: Protocol::Udp,
        vip: vip(80).ip(),
        vport: 80,
    };
    let now = Instant::now();
    director.add_service(key, rr()).unwrap();
    let config = ServerConfig {
        method: ForwardMethod::FullNat,
        ..ServerConfig::default()
    };
    director.add_server(now, &key, rip(1), config).unwrap();
    director.add_local_address(&key, lip(1)).unwrap();
    let mut workers: Vec<_> = (0..3).map(|number| director.worker_of(number, 3)).collect();
    let mut seen = BTreeMap::new();
    for n in 0..300u16 {
        let number = usize::from(n % 3);
        let c = client(1, 1000 + n);
        let packet = inbound(Protocol::Udp, c, vip(80));
        let local = local_of(workers[number].handle_packet(now, &packet));
        assert_eq!(usize::from(local.port() % 4), number);
        assert_eq!(seen.insert(local, c), None);
    }
    for (local, client) in seen {
        let answer = Verdict::ReplyTo {
            vip: vip(80),
            client,
        };
        let packet = outbound(Protocol::Udp, rip(1), local);
        let worker = &mut workers[usize::from(local.port() % 4)];
        assert_eq!(worker.handle_packet(now, &packet), answer);
    }
    drop(workers);
    assert_eq!(director.service(&key).unwrap().local_addresses()[0].connections, 0);
}

#[test]
fn one_packet_scheduling_leaves_fullnat_its_connections() {
    let config = ServiceConfig {
        one_packet: true,
        ..rr()
    };
    let mut lan = fullnat(Protocol::Udp, 10, config);
    let c = client(1, 4000);
    let local = local_of(lan.send(c, 80, S));
    assert_eq!(local_of(lan.send(c, 80, S)), local);
    assert_eq!(lan.worker.len(), 1);
}

#[test]
fn an_imported_connection_comes_with_its_port_or_takes_one() {
    let mut lan = fullnat(Protocol::Tcp, 10, rr());
    lan.worker.watch(10);
    let c = client(1, 4000);
    let mut imported = ImportedConnection {
        client: c,
        virtual_addr: vip(80),
        destination: rip(1),
        method: ForwardMethod::FullNat,
        state: State::Tcp(TcpState::Established),
        packets: 5,
        remaining: Duration::from_secs(100),
        mark: 0,
        local: Some(SocketAddr::new(lip(1), 2005)),
    };
    lan.worker.import_connection(lan.now, &imported).unwrap();
    let Some(ConnectionEvent::Created(info)) = lan.worker.poll_event() else {
        panic!("nothing was told");
    };
    assert_eq!(info.local, imported.local);
    assert_eq!(local_of(lan.send(c, 80, A)), SocketAddr::new(lip(1), 2005));
    imported.client = client(2, 4000);
    let import = |lan: &mut Lan, imported| lan.worker.import_connection(lan.now, imported);
    assert_eq!(import(&mut lan, &imported), Err(ImportError::LocalPort), "in use");
    imported.local = Some(SocketAddr::new(lip(2), 2006));
    assert_eq!(import(&mut lan, &imported), Err(ImportError::LocalPort), "not ours");
    imported.local = None;
    assert_eq!(import(&mut lan, &imported), Ok(()));
    let packet = Packet {
        tcp_flags: A,
        ..inbound(Protocol::Tcp, client(2, 4000), vip(80))
    };
    assert_eq!(packet.direction, Direction::Inbound);
    assert_ne!(local_of(lan.handle(&packet)).port(), 2005);
}
