//! The director of the table: between a router and its servers, with both families.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use lvs_fwd::balancer::{Balancer, PacketInfo, Packets, Verdict};
use lvs_fwd::engine::{Engine, EngineConfig, Output};
use lvs_fwd::frame::Frame;
use lvs_fwd::route::{
    Hop, Neighbour, NeighbourState, NeighbourTable, NextHop, Prefix, Route, RouteTable,
};
use lvs_fwd::stats::{DropReason, LeftReason};
use lvs_fwd::view::{ClaimSet, Endpoint, LocalAddresses, Port, PortId, View};

pub(crate) const OUTSIDE: PortId = PortId(0);
pub(crate) const INSIDE: PortId = PortId(1);
pub(crate) const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
pub(crate) const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 11];
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

pub(crate) const SERVICES: [u16; 2] = [80, 500];

pub(crate) fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Client, virtual address, real server, one that is not resolved, one nowhere, local address, the director inside; by
/// family.
pub(crate) struct Names {
    pub(crate) client: IpAddr,
    pub(crate) vip: IpAddr,
    pub(crate) rip: IpAddr,
    pub(crate) silent: IpAddr,
    pub(crate) nowhere: IpAddr,
    pub(crate) local: IpAddr,
    pub(crate) inside: IpAddr,
    pub(crate) outside: IpAddr,
    pub(crate) router: IpAddr,
}

pub(crate) fn names(ipv6: bool) -> Names {
    let all = match ipv6 {
        false => [
            "203.0.113.5",
            "192.0.2.10",
            "10.0.0.11",
            "10.0.0.13",
            "10.9.0.1",
            "10.0.0.200",
            "10.0.0.1",
            "192.0.2.1",
            "198.51.100.7",
        ],
        true => [
            "2001:db8:c::5",
            "2001:db8:1::10",
            "2001:db8:2::11",
            "2001:db8:2::13",
            "2001:db8:9::1",
            "2001:db8:2::200",
            "2001:db8:2::1",
            "2001:db8:1::1",
            "2001:db8:d::7",
        ],
    };
    let [
        client,
        vip,
        rip,
        silent,
        nowhere,
        local,
        inside,
        outside,
        router,
    ] = all.map(ip);
    Names {
        client,
        vip,
        rip,
        silent,
        nowhere,
        local,
        inside,
        outside,
        router,
    }
}

pub(crate) fn view() -> View {
    let mut claims = ClaimSet::new();
    let mut local = LocalAddresses::new();
    let mut routes = RouteTable::new();
    let mut neighbours = NeighbourTable::new();
    let mut neighbour = |ifindex, addr, mac, state| {
        neighbours.insert(Hop { ifindex, addr }, Neighbour { mac, state });
    };
    let mut addresses = [Vec::new(), Vec::new()];
    for ipv6 in [false, true] {
        let at = names(ipv6);
        let endpoint = |protocol, addr, port| Endpoint {
            protocol,
            addr,
            port,
        };
        for protocol in [6, 17, 132] {
            for port in SERVICES {
                claims.insert_service(endpoint(protocol, at.vip, port));
            }
            claims.insert_server(endpoint(protocol, at.rip, 8080));
            claims.insert_local_server(endpoint(protocol, at.rip, 8081));
        }
        for protocol in [50, 51] {
            claims.insert_service(endpoint(protocol, at.vip, 0));
        }
        claims.insert_local(at.local);
        claims.insert_tunnel_server(at.rip);
        for addr in [at.inside, at.outside, at.local] {
            local.insert(addr);
        }
        addresses[0].push(at.outside);
        addresses[1].push(at.inside);
        let (gateway, inside) = match ipv6 {
            false => (ip("192.0.2.254"), Prefix::new(ip("10.0.0.0"), 24)),
            true => (ip("fe80::fe"), Prefix::new(ip("2001:db8:2::"), 64)),
        };
        for client in [at.client, at.router] {
            let length = if ipv6 { 64 } else { 24 };
            routes.insert(Route::new(
                Prefix::new(client, length),
                NextHop::Gateway(gateway),
                2,
            ));
        }
        routes.insert(Route::new(inside, NextHop::OnLink, 3));
        neighbour(2, gateway, ROUTER, NeighbourState::Reachable);
        neighbour(3, at.rip, SERVER, NeighbourState::Reachable);
    }
    let port = |id: PortId, name, addresses| Port {
        addresses,
        ..Port::new(id, u32::from(id.0) + 2, name, MACS[usize::from(id.0)])
    };
    let [outside, inside] = addresses;
    View {
        generation: 1,
        claims: Arc::new(claims),
        routes: Arc::new(routes),
        neighbours: Arc::new(neighbours),
        ports: Arc::new([
            port(OUTSIDE, "outside", outside),
            port(INSIDE, "inside", inside),
        ]),
        local: Arc::new(local),
        hostless: false,
        ..View::default()
    }
}

/// A frame with this packet from the far side of a port.
pub(crate) fn frame(port: PortId, packet: &[u8]) -> Frame {
    let ethertype: [u8; 2] = match packet.first().map_or(0, |byte| byte >> 4) {
        6 => [0x86, 0xdd],
        _ => [8, 0],
    };
    let from = if port == OUTSIDE { ROUTER } else { SERVER };
    let link = [&MACS[usize::from(port.0)][..], &from, &ethertype].concat();
    Frame::from_bytes(&[&link, packet].concat())
}

/// Says the same of everything.
pub(crate) struct Always(pub Verdict);

impl Balancer for Always {
    fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        verdicts.extend(packets.iter().map(|_| self.0));
    }

    fn decide_error(&mut self, _: Instant, _: &PacketInfo) -> Verdict {
        self.0
    }

    fn decide_ipsec(&mut self, _: Instant, _: &PacketInfo) -> Verdict {
        self.0
    }

    fn decide_tunnel_error(&mut self, _: Instant, _: &PacketInfo) -> Verdict {
        self.0
    }
}

/// What became of frames.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Port, receiver's hardware address, and frame.
    pub(crate) sent: Vec<(PortId, [u8; 6], Frame)>,
    pub(crate) host: Vec<Vec<u8>>,
    pub(crate) resolved: usize,
    pub(crate) drops: Vec<(DropReason, u64)>,
    pub(crate) left: Vec<(LeftReason, u64)>,
}

/// Gives the frames to a new director, one by one.
pub(crate) fn run(view: &View, port: PortId, frames: Vec<Frame>, verdict: Verdict) -> Outcome {
    run_in(
        &mut Engine::new(EngineConfig::default()),
        view,
        port,
        frames,
        verdict,
    )
}

/// [`run`] in an engine that has had the same before, and so knows the way.
pub(crate) fn run_again(
    view: &View,
    port: PortId,
    frames: Vec<Frame>,
    verdict: Verdict,
) -> Outcome {
    let mut engine = Engine::new(EngineConfig::default());
    run_in(&mut engine, view, port, frames.clone(), verdict);
    run_in(&mut engine, view, port, frames, verdict)
}

fn run_in(
    engine: &mut Engine,
    view: &View,
    port: PortId,
    frames: Vec<Frame>,
    verdict: Verdict,
) -> Outcome {
    let counters = engine.counters();
    let drops_before = DropReason::ALL.map(|reason| counters.drops(reason));
    let left_before = LeftReason::ALL.map(|reason| counters.left(reason));
    let mut output = Output::new();
    let now = Instant::now();
    for frame in frames {
        let mut frames = vec![frame];
        engine.process(
            now,
            view,
            port,
            &mut frames,
            &mut Always(verdict),
            &mut output,
        );
    }
    assert!(output.handoff.is_empty());
    let sent = output.transmit.into_iter().map(|(port, frame)| {
        let bytes = frame.bytes();
        let to: [u8; 6] = bytes[..6].try_into().unwrap();
        assert_eq!(
            bytes[6..12],
            MACS[usize::from(port.0)],
            "the port's own address"
        );
        let version = bytes[14] >> 4;
        let expected = if version == 6 { [0x86, 0xdd] } else { [8, 0] };
        assert_eq!(bytes[12..14], expected);
        (port, to, frame)
    });
    let drops = DropReason::ALL.map(|reason| (reason, counters.drops(reason)));
    let left = LeftReason::ALL.map(|reason| (reason, counters.left(reason)));
    let drops = drops.into_iter().zip(drops_before);
    let drops = drops.map(|((reason, now), before)| (reason, now - before));
    let left = left.into_iter().zip(left_before);
    let left = left.map(|((reason, now), before)| (reason, now - before));
    Outcome {
        sent: sent.collect(),
        host: output
            .host
            .iter()
            .map(|frame| frame.bytes().to_vec())
            .collect(),
        resolved: output.resolve.len(),
        drops: drops.filter(|(_, count)| *count > 0).collect(),
        left: left.filter(|(_, count)| *count > 0).collect(),
    }
}

pub(crate) fn at(addr: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(addr, port)
}
