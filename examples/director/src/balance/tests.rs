use lvs_fwd::balancer::{Direction, Method, Verdict};
use lvs_sched::{Director, DirectorConfig, ServerConfig, ServiceConfig, ServiceKey};

use super::*;

const CLIENT: &str = "203.0.113.5:50000";
const VIP: &str = "192.0.2.10";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A director with one service, one server behind it, and the service's key.
fn balancer(
    protocol: Protocol,
    vport: u16,
    method: ForwardMethod,
    rip: &str,
) -> (Arc<Director>, SchedBalancer, Instant) {
    let director = Arc::new(Director::new(DirectorConfig::new([1, 2, 3, 4])));
    let now = Instant::now();
    let vip = VIP.parse().unwrap();
    let key = ServiceKey::Address {
        protocol,
        vip,
        vport,
    };
    director.add_service(key, ServiceConfig::default()).unwrap();
    let config = ServerConfig {
        method,
        ..ServerConfig::default()
    };
    director.add_server(now, &key, addr(rip), config).unwrap();
    let balancer = SchedBalancer::new(director.worker(), Arc::default());
    (director, balancer, now)
}

fn info(protocol: u8, source: &str, destination: &str, direction: Direction) -> PacketInfo {
    PacketInfo {
        protocol,
        source: addr(source),
        destination: addr(destination),
        direction,
        tcp_flags: 0,
        length: 100,
        mark: 0,
    }
}

fn decide(
    balancer: &mut SchedBalancer,
    now: Instant,
    packet: PacketInfo,
    payload: &[u8],
) -> Verdict {
    let payloads = vec![payload.to_vec()];
    let infos = [packet];
    let mut verdicts = Vec::new();
    balancer.decide(now, &Packets::new(&infos, &payloads), &mut verdicts);
    assert_eq!(verdicts.len(), 1);
    verdicts[0]
}

/// A chunk of SCTP without a body.
fn chunk(kind: u8) -> [u8; 4] {
    [kind, 0, 0, 4]
}

#[test]
fn an_sctp_association_is_followed_by_its_chunks() {
    let rip = "10.0.0.11:8080";
    let (_, mut balancer, now) = balancer(Protocol::Sctp, 80, ForwardMethod::Nat, rip);
    let inbound = info(132, CLIENT, "192.0.2.10:80", Direction::Inbound);
    let outbound = info(132, rip, CLIENT, Direction::Outbound);
    let forward = Verdict::Forward(Method::Nat { rip: addr(rip) });
    let reply = Verdict::Reply {
        source: addr("192.0.2.10:80"),
    };
    let state = |balancer: &SchedBalancer| {
        let mut connections = balancer.worker().connections();
        connections.next().map(|one| one.state.name().to_owned())
    };
    // Only INIT begins one.
    assert_eq!(
        decide(&mut balancer, now, inbound, &chunk(0)),
        Verdict::NotOurs
    );
    for (packet, kind, verdict) in [
        (inbound, 1, forward),
        (outbound, 2, reply),
        (inbound, 10, forward),
        (outbound, 11, reply),
    ] {
        assert_eq!(decide(&mut balancer, now, packet, &chunk(kind)), verdict);
    }
    assert_eq!(state(&balancer).as_deref(), Some("ESTABLISHED"));
    assert_eq!(decide(&mut balancer, now, inbound, &chunk(6)), forward);
    assert_eq!(state(&balancer).as_deref(), Some("CLOSED"));
}

#[test]
fn ipsec_follows_the_key_exchange_and_begins_nothing() {
    for (method, rip) in [
        (ForwardMethod::DirectRoute, "10.0.0.11:500"),
        (ForwardMethod::Nat, "10.0.0.11:500"),
        (ForwardMethod::Tunnel, "10.0.0.11:500"),
    ] {
        let (_, mut balancer, now) = balancer(Protocol::Udp, 500, method, rip);
        let esp = info(50, "203.0.113.5:0", "192.0.2.10:0", Direction::Inbound);
        assert_eq!(balancer.decide_ipsec(now, &esp), Verdict::NotOurs);
        assert!(balancer.worker().is_empty());
        let exchange = info(17, "203.0.113.5:500", "192.0.2.10:500", Direction::Inbound);
        let verdict = decide(&mut balancer, now, exchange, b"IKE");
        assert!(matches!(verdict, Verdict::Forward(_)));
        assert_eq!(balancer.decide_ipsec(now, &esp), verdict);
        let of_another = info(51, "203.0.113.6:0", "192.0.2.10:0", Direction::Inbound);
        assert_eq!(balancer.decide_ipsec(now, &of_another), Verdict::NotOurs);
        if method == ForwardMethod::Nat {
            let answer = info(50, "10.0.0.11:0", "203.0.113.5:0", Direction::Outbound);
            let source = addr("192.0.2.10:500");
            assert_eq!(
                balancer.decide_ipsec(now, &answer),
                Verdict::Reply { source }
            );
        }
    }
}

#[test]
fn an_error_about_a_tunnels_packet_names_the_connections_tunnel() {
    let rip = "10.0.0.11:80";
    let (director, mut balancer, now) = balancer(Protocol::Tcp, 80, ForwardMethod::Tunnel, rip);
    let inner = info(6, CLIENT, "192.0.2.10:80", Direction::Outbound);
    assert_eq!(balancer.decide_tunnel_error(now, &inner), Verdict::NotOurs);
    let syn = PacketInfo {
        tcp_flags: 2,
        direction: Direction::Inbound,
        ..inner
    };
    let verdict = decide(&mut balancer, now, syn, b"");
    let tunnel = Verdict::Forward(Method::Tunnel {
        rip: addr(rip).ip(),
        encapsulation: Encapsulation::Ipip,
    });
    assert_eq!(verdict, tunnel);
    assert_eq!(balancer.decide_tunnel_error(now, &inner), tunnel);
    // It counts as something that the client got.
    assert_eq!(director.stats().out_packets, 1);
}
