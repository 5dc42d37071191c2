//! What the data path would do with a packet outside the balancer: for people who ask.
//!
//! The same lookups as the engine's, with all that they found instead of the outcome alone. Nothing here
//! changes anything, and nothing here is fast.

use std::net::{IpAddr, SocketAddr};

use crate::balancer::{Direction, Method};
use crate::marks::MarkQuery;
use crate::rewrite::tun;
use crate::route::{Hop, Neighbour, NextHop, Route, RouteKind};
use crate::stats::DropReason;
use crate::view::{Endpoint, Port, View};
use crate::wire::{Headers, Unparsed, ethernet, ipv4};

/// A packet, as far as anything depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// IP protocol number.
    pub protocol: u8,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// The TCP flags as they stand in byte 13 of the header; else 0.
    pub tcp_flags: u8,
    /// IP length in bytes.
    pub length: u32,
    /// Where its payload begins, from the first byte that was parsed; `None` if there are no bytes.
    pub payload: Option<usize>,
}

impl Subject {
    /// Reads a packet: an Ethernet frame, or an IP packet without a link header.
    ///
    /// # Errors
    ///
    /// Why no balancer could look at it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unparsed> {
        if let Some(ethertype) = ethertype_of_bare(bytes) {
            let mut frame = vec![0; ethernet::HEADER_LEN];
            let header = ethernet::Repr {
                destination: [0; 6],
                source: [0; 6],
                ethertype,
            };
            header.emit(&mut frame);
            frame.extend_from_slice(bytes);
            let mut subject = Self::of_frame(&frame)?;
            subject.payload = subject.payload.map(|at| at - ethernet::HEADER_LEN);
            return Ok(subject);
        }
        Self::of_frame(bytes)
    }

    fn of_frame(frame: &[u8]) -> Result<Self, Unparsed> {
        let headers = Headers::parse(frame)?;
        if !headers.is_sound(frame) {
            return Err(Unparsed::Malformed);
        }
        let transport = match headers.protocol {
            crate::wire::protocol::TCP => frame
                .get(headers.transport + 12)
                .map_or(20, |byte| usize::from(byte >> 4) * 4),
            _ => 8,
        };
        Ok(Self {
            protocol: headers.protocol,
            source: headers.source,
            destination: headers.destination,
            tcp_flags: headers.tcp_flags(frame),
            length: headers.ip_len() as u32,
            payload: Some((headers.transport + transport).min(headers.end)),
        })
    }

    fn endpoint(&self, side: SocketAddr) -> Endpoint {
        Endpoint {
            protocol: self.protocol,
            addr: side.ip(),
            port: side.port(),
        }
    }
}

/// By what a packet is taken from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// Which way it goes.
    pub direction: Direction,
    /// The service that it goes to, or the NAT real server that it comes from; with port 0 if every port of the address is
    /// claimed.
    pub endpoint: Endpoint,
    /// Its mark, if that is served; else 0.
    pub mark: u32,
}

impl Claimed {
    /// The client of the packet.
    pub fn client(&self, subject: &Subject) -> IpAddr {
        match self.direction {
            Direction::Inbound => subject.source.ip(),
            Direction::Outbound => subject.destination.ip(),
        }
    }
}

/// By what a packet is claimed; `None`: the host has it.
pub fn claim(view: &View, subject: &Subject) -> Option<Claimed> {
    let narrowed = |endpoint: Endpoint, exact: &[Endpoint]| {
        let port = if exact.binary_search(&endpoint).is_ok() {
            endpoint.port
        } else {
            0
        };
        Endpoint { port, ..endpoint }
    };
    let (to, from) = (
        subject.endpoint(subject.destination),
        subject.endpoint(subject.source),
    );
    // It may have come in where its sender is.
    let interface = match way(view, subject.source.ip()) {
        Way::Out { port, .. } => port.name.as_str(),
        Way::Host | Way::Nowhere { .. } => "",
    };
    let mark = view.claims.marks().mark(&MarkQuery {
        interface,
        protocol: subject.protocol,
        source: subject.source,
        destination: subject.destination,
    });
    if view.claims.is_service(&to) {
        Some(Claimed {
            direction: Direction::Inbound,
            endpoint: narrowed(to, &view.claims.services()),
            mark: mark.unwrap_or(0),
        })
    } else if view.claims.is_server(&from) && !view.local.contains(&subject.destination.ip()) {
        Some(Claimed {
            direction: Direction::Outbound,
            endpoint: narrowed(from, &view.claims.servers()),
            mark: 0,
        })
    } else if view.claims.is_local_answer(&from, &subject.destination) {
        Some(Claimed {
            direction: Direction::Outbound,
            endpoint: narrowed(from, &view.claims.local_servers()),
            mark: 0,
        })
    } else {
        mark.map(|mark| Claimed {
            direction: Direction::Inbound,
            endpoint: to,
            mark,
        })
    }
}

/// Where an address leads.
#[derive(Debug, Clone, Copy)]
pub enum Way<'v> {
    /// To the host itself.
    Host,
    /// Out of a port.
    Out {
        /// The route taken.
        route: &'v Route,
        /// The port.
        port: &'v Port,
        /// Whom the frame is for on the link.
        hop: Hop,
        /// What is known of that neighbour; `None` if it was never asked for.
        neighbour: Option<Neighbour>,
        /// Largest IP packet in bytes on this way.
        mtu: u32,
    },
    /// Nowhere: it is dropped for this reason.
    Nowhere {
        /// The route taken, if there is one.
        route: Option<&'v Route>,
        /// Why.
        reason: DropReason,
    },
}

/// Where an address leads under this view.
pub fn way(view: &View, addr: IpAddr) -> Way<'_> {
    if view.local.contains(&addr) {
        return Way::Host;
    }
    let nowhere = |route, reason| Way::Nowhere { route, reason };
    let Some(route) = view.routes.lookup(&addr) else {
        return nowhere(None, DropReason::NoRoute);
    };
    match route.kind {
        RouteKind::Unicast => {}
        RouteKind::Local => return Way::Host,
        RouteKind::Blackhole | RouteKind::Broadcast => {
            return nowhere(Some(route), DropReason::Blackhole);
        }
        RouteKind::Unreachable => return nowhere(Some(route), DropReason::NoRoute),
        RouteKind::Prohibit => return nowhere(Some(route), DropReason::Prohibited),
    }
    let Some(port) = view.port_of_interface(route.ifindex) else {
        return nowhere(Some(route), DropReason::NoPort);
    };
    let hop = Hop {
        ifindex: route.ifindex,
        addr: match route.next_hop {
            NextHop::OnLink => addr,
            NextHop::Gateway(gateway) => gateway,
        },
    };
    Way::Out {
        route,
        port,
        hop,
        neighbour: view.neighbours.lookup(&hop).copied(),
        mtu: route.mtu.map_or(port.mtu, |mtu| mtu.min(port.mtu)),
    }
}

/// Whom a method sends packets to, and how many bytes it adds to each.
pub fn target(method: &Method) -> (IpAddr, usize) {
    match *method {
        Method::Nat { rip } | Method::FullNat { rip, .. } => (rip.ip(), 0),
        Method::DirectRoute { rip } => (rip, 0),
        Method::Tunnel { rip, encapsulation } => (rip, tun::overhead(encapsulation, &rip)),
    }
}

/// The EtherType that an IP packet without a link header would have; `None` for what looks like a frame.
fn ethertype_of_bare(bytes: &[u8]) -> Option<u16> {
    let is_frame = bytes.get(12..14).is_some_and(|ethertype| {
        matches!(
            u16::from_be_bytes([ethertype[0], ethertype[1]]),
            ethernet::IPV4 | ethernet::IPV6
        )
    });
    match bytes.first()? >> 4 {
        // An IPv4 packet has its sender where a frame has its EtherType.
        4 if !is_frame || ipv4::Packet::new_checked(bytes).is_ok_and(|ip| ip.verify_checksum()) => {
            Some(ethernet::IPV4)
        }
        6 if !is_frame => Some(ethernet::IPV6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::route::{NeighbourState, NeighbourTable, Prefix, RouteTable};
    use crate::view::{ClaimSet, PortId};

    /// The SYN of the crate's example: 203.0.113.5:50000 to 192.0.2.10:80.
    const SYN: [u8; 58] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 9, 8, 0, 0x45, 0, 0, 0x2c, 0x12, 0x34, 0x40, 0, 0x40, 6,
        0x2a, 0x88, 203, 0, 113, 5, 192, 0, 2, 10, 0xc3, 0x50, 0, 80, 0x11, 0x22, 0x33, 0x44, 0, 0,
        0, 0, 0x60, 2, 0xfa, 0xf0, 0x97, 0x1e, 0, 0, 2, 4, 5, 0xb4,
    ];

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn view() -> View {
        let mut claims = ClaimSet::new();
        let endpoint = |text: &str, port| Endpoint {
            protocol: 6,
            addr: addr(text),
            port,
        };
        claims.insert_service(endpoint("192.0.2.10", 80));
        claims.insert_service(endpoint("192.0.2.11", 0));
        claims.insert_server(endpoint("10.0.0.11", 8080));
        let mut routes = RouteTable::new();
        for (prefix, length, next_hop, kind, ifindex) in [
            ("10.0.0.0", 24, NextHop::OnLink, RouteKind::Unicast, 2),
            ("10.0.1.0", 24, NextHop::OnLink, RouteKind::Blackhole, 0),
            ("10.0.2.0", 24, NextHop::OnLink, RouteKind::Unicast, 9),
            (
                "203.0.113.0",
                24,
                NextHop::Gateway(addr("10.0.0.254")),
                RouteKind::Unicast,
                2,
            ),
        ] {
            routes.insert(Route {
                kind,
                ..Route::new(Prefix::new(addr(prefix), length), next_hop, ifindex)
            });
        }
        let mut neighbours = NeighbourTable::new();
        neighbours.insert(
            Hop {
                ifindex: 2,
                addr: addr("10.0.0.254"),
            },
            Neighbour {
                mac: [2, 0, 0, 0, 0, 9],
                state: NeighbourState::Reachable,
            },
        );
        View {
            claims: Arc::new(claims),
            routes: Arc::new(routes),
            neighbours: Arc::new(neighbours),
            local: Arc::new([addr("10.0.0.1")].into_iter().collect()),
            ports: Arc::new([Port::new(PortId(0), 2, "eth0", [2, 0, 0, 0, 0, 1])]),
            ..View::default()
        }
    }

    #[test]
    fn a_frame_and_the_packet_in_it_are_the_same_subject() {
        let frame = Subject::parse(&SYN).unwrap();
        assert_eq!(frame.source, "203.0.113.5:50000".parse().unwrap());
        assert_eq!(frame.destination, "192.0.2.10:80".parse().unwrap());
        assert_eq!((frame.protocol, frame.tcp_flags, frame.length), (6, 2, 44));
        assert_eq!(frame.payload, Some(SYN.len()));
        let bare = Subject::parse(&SYN[14..]).unwrap();
        assert_eq!(bare.payload, Some(SYN.len() - 14));
        assert_eq!(
            Subject {
                payload: None,
                ..bare
            },
            Subject {
                payload: None,
                ..frame
            }
        );
        for length in 0..SYN.len() {
            assert!(Subject::parse(&SYN[..length]).is_err(), "{length}");
        }
        assert_eq!(Subject::parse(&[]), Err(Unparsed::Malformed));
    }

    #[test]
    fn the_claim_names_what_it_is_for() {
        let view = view();
        let subject = |source: &str, destination: &str| Subject {
            protocol: 6,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            tcp_flags: 2,
            length: 60,
            payload: None,
        };
        let inbound = subject("203.0.113.5:50000", "192.0.2.10:80");
        let claimed = claim(&view, &inbound).unwrap();
        assert_eq!(claimed.direction, Direction::Inbound);
        assert_eq!(claimed.endpoint.port, 80);
        assert_eq!(claimed.client(&inbound), addr("203.0.113.5"));
        let any = claim(&view, &subject("203.0.113.5:50000", "192.0.2.11:99")).unwrap();
        assert_eq!(any.endpoint.port, 0, "the whole address is claimed");
        let answer = subject("10.0.0.11:8080", "203.0.113.5:50000");
        let claimed = claim(&view, &answer).unwrap();
        assert_eq!(claimed.direction, Direction::Outbound);
        assert_eq!(claimed.client(&answer), addr("203.0.113.5"));
        for (source, destination) in [
            ("203.0.113.5:50000", "192.0.2.10:81"),
            ("10.0.0.11:8080", "10.0.0.1:50000"),
            ("10.0.0.11:8081", "203.0.113.5:50000"),
        ] {
            assert_eq!(claim(&view, &subject(source, destination)), None);
        }
    }

    #[test]
    fn a_way_tells_route_port_and_neighbour() {
        let view = view();
        assert!(matches!(way(&view, addr("10.0.0.1")), Way::Host));
        let Way::Out { hop, neighbour, .. } = way(&view, addr("203.0.113.5")) else {
            panic!("there is a gateway");
        };
        assert_eq!(hop.addr, addr("10.0.0.254"));
        assert_eq!(neighbour.unwrap().mac, [2, 0, 0, 0, 0, 9]);
        assert!(matches!(
            way(&view, addr("10.0.0.11")),
            Way::Out { neighbour: None, port, .. } if port.name == "eth0"
        ));
        for (to, expected) in [
            ("10.0.1.1", DropReason::Blackhole),
            ("10.0.2.1", DropReason::NoPort),
            ("192.0.2.99", DropReason::NoRoute),
        ] {
            let Way::Nowhere { reason, .. } = way(&view, addr(to)) else {
                panic!("{to} leads nowhere");
            };
            assert_eq!(reason, expected);
        }
    }
}
