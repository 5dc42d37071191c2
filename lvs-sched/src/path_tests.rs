use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::worker::tests::{A, Lan, R, S, client, inbound, outbound, persistent, rip, rr, to, vip};
use crate::{
    DirectorConfig, EngineKind, Granularity, Persistence, ServerConfig, ServiceConfig, ServiceKey,
    Stats, TemplateTarget, Tunables, Weight,
};

fn nat(last: u8) -> Verdict {
    Verdict::Forward {
        method: ForwardMethod::Nat,
        server: rip(last),
    }
}

fn reply(method: ForwardMethod, vport: u16) -> Verdict {
    Verdict::Reply {
        method,
        vip: vip(vport),
    }
}

/// A service by mark 7 with one server, beside whatever `lan` has.
fn marked(lan: &mut Lan, config: ServiceConfig) {
    lan.key = ServiceKey::Mark {
        family: Family::Inet,
        mark: NonZeroU32::new(7).unwrap(),
    };
    lan.director.add_service(lan.key, config).unwrap();
}

fn sctp(event: SctpEvent) -> Packet {
    Packet {
        sctp: Some(event),
        ..inbound(Protocol::Sctp, client(1, 4000), vip(9))
    }
}

#[test]
fn an_sctp_association_lives_and_dies() {
    let mut lan = Lan::new(Protocol::Sctp, 9, rr());
    let server = lan.add(1, ForwardMethod::Nat);
    let state = |lan: &Lan| {
        lan.worker
            .connection(Protocol::Sctp, client(1, 4000), vip(9))
            .map_or("-", |info| info.state.name())
    };
    let back = |event| Packet {
        sctp: Some(event),
        ..outbound(Protocol::Sctp, rip(1), client(1, 4000))
    };
    let none = Packet {
        sctp: None,
        ..sctp(SctpEvent::Init)
    };
    assert_eq!(lan.handle(&none), Verdict::Drop(DropReason::Malformed));
    for event in [SctpEvent::Data, SctpEvent::Abort, SctpEvent::CookieEcho] {
        assert_eq!(lan.handle(&sctp(event)), Verdict::NotOurs);
    }
    assert_eq!(lan.handle(&sctp(SctpEvent::Init)), nat(1));
    assert_eq!((state(&lan), server.active()), ("INIT1", 0));
    let answer = lan.handle(&back(SctpEvent::InitAck));
    assert_eq!(answer, reply(ForwardMethod::Nat, 9));
    let _ = lan.handle(&sctp(SctpEvent::CookieEcho));
    let _ = lan.handle(&back(SctpEvent::CookieAck));
    assert_eq!((state(&lan), server.active()), ("ESTABLISHED", 1));
    lan.at(100.0);
    assert_eq!(lan.handle(&none), nat(1), "only the timer starts again");
    lan.at(999.0);
    assert_eq!(state(&lan), "ESTABLISHED");
    let _ = lan.handle(&sctp(SctpEvent::Shutdown));
    let _ = lan.handle(&back(SctpEvent::ShutdownAck));
    let _ = lan.handle(&sctp(SctpEvent::ShutdownComplete));
    assert_eq!((state(&lan), server.active()), ("CLOSED", 0));

    // An INIT on a closed association begins a new one, elsewhere.
    lan.add(2, ForwardMethod::Nat);
    assert_eq!(lan.handle(&sctp(SctpEvent::Init)), nat(2));
    assert_eq!(lan.worker.len(), 1);
    lan.at(1_004.0);
    assert_eq!(state(&lan), "-");

    lan.tune(|tunables| tunables.sloppy_sctp = true);
    assert_eq!(lan.handle(&sctp(SctpEvent::Abort)), Verdict::NotOurs);
    assert!(matches!(
        lan.handle(&sctp(SctpEvent::Data)),
        Verdict::Forward { .. }
    ));
    assert_eq!(state(&lan), "ESTABLISHED");
}

#[test]
fn ipsec_follows_the_key_exchange() {
    let mut lan = Lan::new(Protocol::Udp, 500, rr());
    let server = ServerConfig {
        method: ForwardMethod::Nat,
        ..ServerConfig::default()
    };
    let rip = SocketAddr::from(([192, 0, 2, 1], 500));
    lan.director
        .add_server(lan.now, &lan.key, rip, server)
        .unwrap();
    let c = client(1, 500);
    let esp = |lan: &mut Lan, direction| {
        let (source, destination) = match direction {
            Direction::Inbound => (c.ip(), vip(0).ip()),
            Direction::Outbound => (rip.ip(), c.ip()),
        };
        let told = lan
            .worker
            .explain_ipsec(lan.now, direction, source, destination);
        let verdict = lan
            .worker
            .handle_ipsec(lan.now, direction, source, destination, 200);
        assert_eq!(told.verdict, Some(verdict));
        let reason = match verdict {
            Verdict::NotOurs => Reason::BeginsNothing,
            _ => Reason::Connection,
        };
        assert_eq!((told.reason, told.service), (reason, None));
        verdict
    };
    assert_eq!(esp(&mut lan, Direction::Inbound), Verdict::NotOurs);
    let forward = Verdict::Forward {
        method: ForwardMethod::Nat,
        server: rip,
    };
    assert_eq!(lan.send(c, 500, TcpFlags::default()), forward);
    lan.at(299.0);
    assert_eq!(esp(&mut lan, Direction::Inbound), forward);
    lan.at(598.0);
    assert_eq!(
        esp(&mut lan, Direction::Outbound),
        reply(ForwardMethod::Nat, 500)
    );
    lan.at(897.0);
    assert_eq!(lan.worker.len(), 1);
    let stats = lan.director.stats();
    assert_eq!((stats.in_bytes, stats.out_bytes), (300, 200));
    lan.at(898.0);
    assert_eq!(esp(&mut lan, Direction::Inbound), Verdict::NotOurs);
}

#[test]
fn icmp_errors_follow_their_connection_and_leave_it_alone() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::Nat);
    let c = client(1, 4000);
    let _ = lan.send(c, 80, S);
    let before: Vec<_> = lan.worker.connections().collect();
    lan.at(10.0);
    // About the server's packet to the client, quoted as it was on the client's side.
    let about_reply = inbound(Protocol::Tcp, vip(80), c);
    assert_eq!(lan.worker.handle_icmp(lan.now, &about_reply), nat(1));
    // About the client's packet, as it was on the server's side.
    let about_request = outbound(Protocol::Tcp, c, rip(1));
    assert_eq!(
        lan.worker.handle_icmp(lan.now, &about_request),
        reply(ForwardMethod::Nat, 80)
    );
    // About the tunnel to the server; the client's packet was inside.
    let inside = inbound(Protocol::Tcp, c, vip(80));
    assert_eq!(lan.worker.handle_tunnel_icmp(lan.now, &inside), nat(1));
    assert_eq!(lan.worker.connections().collect::<Vec<_>>(), before);
    let expected = Stats {
        connections: 1,
        in_packets: 2,
        out_packets: 2,
        in_bytes: 200,
        out_bytes: 200,
    };
    assert_eq!(lan.director.stats(), expected);

    let unknown = inbound(Protocol::Tcp, vip(80), client(2, 4000));
    assert_eq!(lan.worker.handle_icmp(lan.now, &unknown), Verdict::NotOurs);
    lan.tune(|tunables| tunables.schedule_icmp = true);
    let not_inside = inbound(Protocol::Tcp, client(3, 4000), vip(80));
    assert_eq!(
        lan.worker.handle_tunnel_icmp(lan.now, &not_inside),
        Verdict::NotOurs
    );
    assert_eq!(lan.worker.handle_icmp(lan.now, &unknown), nat(1));
    let info = lan
        .worker
        .connection(Protocol::Tcp, client(2, 4000), vip(80))
        .unwrap();
    assert_eq!((info.state.name(), info.packets), ("NONE", 0));
    assert_eq!(info.remaining(lan.now), Duration::from_secs(3));
    lan.director
        .service(&lan.key)
        .unwrap()
        .set_weight(rip(1), Weight::QUIESCED)
        .unwrap();
    let unknown = inbound(Protocol::Tcp, vip(80), client(4, 4000));
    assert_eq!(
        lan.worker.handle_icmp(lan.now, &unknown),
        Verdict::Drop(DropReason::NoServer)
    );
}

#[test]
fn a_persistent_mark_service_has_one_template_for_everything() {
    let mut lan = Lan::tcp();
    marked(&mut lan, persistent(300, [255, 255, 255, 0]));
    lan.add(1, ForwardMethod::DirectRoute);
    lan.add(2, ForwardMethod::DirectRoute);
    let at_port = |last, port| Verdict::Forward {
        method: ForwardMethod::DirectRoute,
        server: SocketAddr::new(rip(last).ip(), port),
    };
    let mut packet = |protocol, last, port, tcp_flags| {
        let packet = Packet {
            mark: 7,
            tcp_flags,
            sctp: Some(SctpEvent::Init),
            ..inbound(protocol, client(last, 4000), vip(port))
        };
        lan.handle(&packet)
    };
    // The servers' own port is not used.
    assert_eq!(packet(Protocol::Tcp, 1, 443, S), at_port(2, 443));
    assert_eq!(
        packet(Protocol::Udp, 2, 53, TcpFlags::default()),
        at_port(2, 53)
    );
    assert_eq!(
        packet(Protocol::Sctp, 3, 9, TcpFlags::default()),
        at_port(2, 9)
    );
    let templates = lan.director.templates();
    assert_eq!(templates.len(), 1);
    assert_eq!(
        (
            templates[0].protocol,
            templates[0].target,
            templates[0].controls
        ),
        (None, TemplateTarget::Mark(NonZeroU32::new(7).unwrap()), 3)
    );
    // Without persistence the server's own port is.
    lan.director.edit_service(&lan.key, rr()).unwrap();
    let packet = Packet {
        mark: 7,
        ..inbound(Protocol::Udp, client(9, 4000), vip(53))
    };
    assert_eq!(lan.handle(&packet), to(1));
}

#[test]
fn one_packet_mode_keeps_a_template_and_counts_there() {
    let config = ServiceConfig {
        one_packet: true,
        ..persistent(100, [255; 4])
    };
    let mut lan = Lan::new(Protocol::Udp, 53, config);
    lan.add(1, ForwardMethod::DirectRoute);
    lan.add(2, ForwardMethod::DirectRoute);
    let c = client(1, 4000);
    for t in [0.0, 90.0, 180.0] {
        lan.at(t);
        assert_eq!(lan.send(c, 53, TcpFlags::default()), to(2));
    }
    let templates = lan.director.templates();
    assert_eq!((templates.len(), lan.worker.len()), (1, 0));
    assert!(!templates[0].assured);
    assert_eq!(
        templates[0].deadline.duration_since(lan.start),
        Duration::from_secs(280)
    );
    assert_eq!(lan.director.stats().connections, 3);
    lan.at(280.0);
    assert!(lan.director.templates().is_empty());
}

#[test]
fn a_bypass_goes_on_to_where_the_packet_was_sent() {
    let mut lan = Lan::tcp();
    marked(&mut lan, rr());
    let packet = Packet {
        mark: 7,
        tcp_flags: S,
        ..inbound(Protocol::Tcp, client(1, 4000), vip(80))
    };
    assert_eq!(lan.handle(&packet), Verdict::Reject);
    lan.tune(|tunables| tunables.cache_bypass = true);
    let on = Verdict::Forward {
        method: ForwardMethod::Bypass,
        server: vip(80),
    };
    assert_eq!(lan.handle(&packet), on);
    let back = Packet {
        tcp_flags: S | A,
        ..outbound(Protocol::Tcp, vip(80), client(1, 4000))
    };
    assert_eq!(lan.handle(&back), reply(ForwardMethod::Bypass, 80));
    let info = lan.worker.connections().next().unwrap();
    assert_eq!(
        (info.method, info.state.name(), info.packets, info.active),
        (ForwardMethod::Bypass, "SYN_RECV", 1, false)
    );
    assert_eq!(lan.director.stats(), Stats::default());
    // It stays one, whatever servers there are by now.
    lan.add(1, ForwardMethod::Nat);
    assert_eq!(lan.handle(&packet), on);
    lan.remove(1);
    lan.director.set_local_addresses([vip(80).ip()]);
    let other = Packet {
        source: client(2, 4000),
        ..packet
    };
    assert_eq!(lan.handle(&other), Verdict::Reject, "a local address");
    lan.at(1_000.0);
    assert!(lan.worker.is_empty());
}

#[test]
fn a_server_that_answers_without_a_connection_may_be_told() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::Nat);
    lan.add(2, ForwardMethod::DirectRoute);
    let c = client(1, 4000);
    assert_eq!(lan.reply(rip(1), c, A), Verdict::NotOurs);
    lan.tune(|tunables| tunables.nat_icmp_send = true);
    assert_eq!(lan.reply(rip(1), c, A), Verdict::Reject);
    assert_eq!(lan.reply(rip(1), c, R), Verdict::NotOurs);
    assert_eq!(lan.reply(rip(2), c, A), Verdict::NotOurs);
    let udp = outbound(Protocol::Udp, rip(1), c);
    assert_eq!(lan.handle(&udp), Verdict::NotOurs, "not of its service");
    lan.remove(1);
    assert_eq!(lan.reply(rip(1), c, A), Verdict::NotOurs);
}

#[test]
fn a_synchronisation_backup_forwards_replies_only() {
    let mut lan = Lan::tcp();
    lan.add(1, ForwardMethod::Nat);
    let c = client(1, 4000);
    let _ = lan.send(c, 80, S);
    lan.tune(|tunables| tunables.backup_only = true);
    assert_eq!(lan.send(c, 80, A), nat(1), "it is no backup");
    lan.director.set_backup(true);
    assert_eq!(lan.send(c, 80, A), Verdict::NotOurs);
    assert_eq!(lan.send(client(2, 1), 80, S), Verdict::NotOurs);
    assert_eq!(lan.reply(rip(1), c, S | A), reply(ForwardMethod::Nat, 80));
}

const CALL: &[u8] = b"INVITE sip:x SIP/2.0\r\nCall-ID: one@host\r\n\r\n";
const OTHER_CALL: &[u8] = b"INVITE sip:x SIP/2.0\r\ni: two@host\r\n\r\n";

fn sip() -> Lan {
    let config = ServiceConfig {
        one_packet: true,
        ..persistent(100, [0; 4])
    };
    let mut lan = Lan::new(Protocol::Udp, 5060, config);
    for last in [1, 2] {
        let config = ServerConfig {
            method: ForwardMethod::Nat,
            ..ServerConfig::default()
        };
        lan.director
            .add_server(lan.now, &lan.key, sip_server(last), config)
            .unwrap();
    }
    lan.director
        .set_engine(&lan.key, Some(EngineKind::Sip.build()))
        .unwrap();
    lan.now = lan.start;
    lan
}

fn sip_server(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 5060))
}

fn to_sip(last: u8) -> Verdict {
    Verdict::Forward {
        method: ForwardMethod::Nat,
        server: sip_server(last),
    }
}

#[test]
fn calls_stay_together_by_their_id() {
    let mut lan = sip();
    let mut send = |last, payload: &[u8]| {
        let packet = inbound(Protocol::Udp, client(last, 5060), vip(5060));
        lan.worker.handle_packet_with(lan.now, &packet, payload)
    };
    assert_eq!(send(1, CALL), to_sip(2));
    assert_eq!(send(1, OTHER_CALL), to_sip(1));
    assert_eq!(send(2, CALL), to_sip(2), "the mask joins all clients");
    let packets = [3, 4].map(|last| inbound(Protocol::Udp, client(last, 5060), vip(5060)));
    let mut verdicts = Vec::new();
    lan.worker
        .handle_batch_with(lan.now, &packets, &[OTHER_CALL, CALL], &mut verdicts);
    assert_eq!(verdicts, [to_sip(1), to_sip(2)], "each by its own");
    let mut send = |last, payload: &[u8]| {
        let packet = inbound(Protocol::Udp, client(last, 5060), vip(5060));
        lan.worker.handle_packet_with(lan.now, &packet, payload)
    };
    assert_eq!(
        send(1, b"OPTIONS sip:x SIP/2.0\r\n\r\n"),
        Verdict::Drop(DropReason::Engine)
    );
    let packet = inbound(Protocol::Udp, client(1, 5060), vip(5060));
    assert_eq!(lan.handle(&packet), Verdict::Drop(DropReason::Engine));
    let mut ids: Vec<_> = lan
        .director
        .templates()
        .into_iter()
        .filter_map(|template| template.engine)
        .map(|(name, id)| (name, String::from_utf8(id.to_vec()).unwrap()))
        .collect();
    ids.sort_unstable();
    assert_eq!(
        ids,
        [
            ("sip", "one@host".to_owned()),
            ("sip", "two@host".to_owned())
        ]
    );
    lan.director.set_engine(&lan.key, None).unwrap();
    assert!(matches!(lan.handle(&packet), Verdict::Forward { .. }));
}

#[test]
fn a_call_that_a_server_starts_comes_back_to_it() {
    let mut lan = sip();
    let remote = client(1, 5060);
    let out = outbound(Protocol::Udp, sip_server(1), remote);
    assert_eq!(lan.handle(&out), Verdict::NotOurs, "without its payload");
    let sent = lan.worker.handle_packet_with(lan.now, &out, CALL);
    assert_eq!(sent, reply(ForwardMethod::Nat, 5060));
    let packet = inbound(Protocol::Udp, remote, vip(5060));
    let answer = lan.worker.handle_packet_with(lan.now, &packet, CALL);
    assert_eq!(answer, to_sip(1));
    assert_eq!(lan.director.stats().connections, 2);

    // Another server with the same call: the template was for the first one.
    let out = outbound(Protocol::Udp, sip_server(2), remote);
    let sent = lan.worker.handle_packet_with(lan.now, &out, CALL);
    assert_eq!(sent, reply(ForwardMethod::Nat, 5060));
    let answer = lan.worker.handle_packet_with(lan.now, &packet, CALL);
    assert_eq!(answer, to_sip(2));
    assert_eq!(
        lan.director
            .templates()
            .iter()
            .filter(|t| t.retired)
            .count(),
        1
    );

    // Without one-packet mode there is a connection, found in both directions.
    let config = persistent(100, [0; 4]);
    lan.director.edit_service(&lan.key, config).unwrap();
    let sent = lan.worker.handle_packet_with(lan.now, &out, OTHER_CALL);
    assert_eq!(sent, reply(ForwardMethod::Nat, 5060));
    assert_eq!(lan.worker.len(), 1);
    assert_eq!(lan.handle(&out), reply(ForwardMethod::Nat, 5060));
    assert_eq!(lan.handle(&packet), to_sip(2));
    lan.at(2_000.0);
    assert!(lan.worker.is_empty() && lan.director.templates().is_empty());
}

#[test]
fn ipv6_flows_are_tracked_by_their_own_table() {
    let director = Arc::new(Director::new(DirectorConfig::new([1, 2, 3, 4])));
    let mut worker = director.worker();
    let now = std::time::Instant::now();
    let vip: SocketAddr = "[2001:db8::10]:80".parse().unwrap();
    let key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        vip: vip.ip(),
        vport: 80,
    };
    let config = ServiceConfig {
        persistence: Some(Persistence {
            timeout: Duration::from_secs(100),
            granularity: Granularity::Prefix(64),
        }),
        ..rr()
    };
    director.add_service(key, config).unwrap();
    let server = "[fd00::1]:8080".parse().unwrap();
    let config = ServerConfig {
        method: ForwardMethod::Nat,
        ..ServerConfig::default()
    };
    let kept = director.add_server(now, &key, server, config).unwrap();
    let c: SocketAddr = "[2001:db8:1::5]:4000".parse().unwrap();
    let syn = Packet {
        tcp_flags: S,
        ..inbound(Protocol::Tcp, c, vip)
    };
    let expected = Verdict::Forward {
        method: ForwardMethod::Nat,
        server,
    };
    assert_eq!(worker.handle_packet(now, &syn), expected);
    let quoted = inbound(Protocol::Tcp, vip, c);
    assert_eq!(worker.handle_icmp(now, &quoted), expected);
    let back = outbound(Protocol::Tcp, server, c);
    assert!(matches!(
        worker.handle_packet(now, &back),
        Verdict::Reply { .. }
    ));
    let tunables = Tunables {
        expire_nodest_conn: true,
        ..Tunables::default()
    };
    director.set_tunables(tunables);
    director.remove_server(now, &key, server).unwrap();
    worker.handle_timeout(now);
    assert!(worker.is_empty());
    assert!(!kept.is_referenced());
}
