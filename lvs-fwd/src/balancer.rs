//! The question that the data path asks, and the answers that it understands.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::time::Instant;

use crate::rewrite::sequence::Shift;

/// Decides where packets go. One balancer belongs to one worker; it may keep a connection table of its own.
pub trait Balancer {
    /// Pushes one verdict for each packet, in order.
    ///
    /// The packets of a batch come together so that lookups can be hashed and prefetched first. `verdicts` is
    /// empty when this is called. A packet without a verdict is dropped and counted.
    fn decide(&mut self, now: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>);

    /// The next change to the stream of a packet that [`decide`](Self::decide) was just asked about, by its number among
    /// those packets; ascending, each packet once. Asked until there is none, after each batch, before the verdicts are
    /// carried out.
    ///
    /// A protocol that names addresses in its payload (FTP) needs this behind NAT; most balancers don't.
    fn poll_edit(&mut self) -> Option<(usize, Edit)> {
        None
    }

    /// The next connection behind a local address ([`Method::FullNat`]) that has ended. Asked until there is none, after each
    /// question, before the answer is carried out: its address and port may be another connection's by then.
    fn poll_ended(&mut self) -> Option<Ended> {
        None
    }

    /// What to do with a packet of ESP or AH, which has no ports: those of `packet` are 0. It belongs to the key exchange
    /// between the same addresses (UDP between ports 500) and goes the same way; it begins nothing.
    #[doc(alias = "isakmp")]
    fn decide_ipsec(&mut self, now: Instant, packet: &PacketInfo) -> Verdict {
        let _ = (now, packet);
        Verdict::NotOurs
    }

    /// What to do with an ICMP error, by the packet that it quotes: `quoted` has the addresses, ports and protocol as
    /// they stand there, `direction` and `length` are the error's own, flags are 0. An inbound error is about what a
    /// real server sent to a client, an outbound one about what went to a real server.
    ///
    /// [`Verdict::Forward`] and [`Verdict::Reply`] name the connection's real server or virtual service, as for its
    /// other packets. A balancer that does not look for connections by errors leaves them all to others.
    #[doc(alias = "icmp")]
    fn decide_error(&mut self, now: Instant, quoted: &PacketInfo) -> Verdict {
        let _ = (now, quoted);
        Verdict::NotOurs
    }

    /// Whose connection an ICMP error is about that quotes a packet in a tunnel: `inner` has the addresses, ports and
    /// protocol of the client's packet inside, `direction` is outbound, `length` the error's own, flags are 0.
    ///
    /// [`Verdict::Forward`] with the connection's tunnel says that it is one, and the client is told; after anything else it
    /// is not.
    fn decide_tunnel_error(&mut self, now: Instant, inner: &PacketInfo) -> Verdict {
        let _ = (now, inner);
        Verdict::NotOurs
    }

    /// The deadline passed. Calling early or twice must be harmless.
    fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` means never.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl<B: Balancer + ?Sized> Balancer for Box<B> {
    fn decide(&mut self, now: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        (**self).decide(now, packets, verdicts);
    }

    fn poll_edit(&mut self) -> Option<(usize, Edit)> {
        (**self).poll_edit()
    }

    fn poll_ended(&mut self) -> Option<Ended> {
        (**self).poll_ended()
    }

    fn decide_error(&mut self, now: Instant, quoted: &PacketInfo) -> Verdict {
        (**self).decide_error(now, quoted)
    }

    fn decide_ipsec(&mut self, now: Instant, packet: &PacketInfo) -> Verdict {
        (**self).decide_ipsec(now, packet)
    }

    fn decide_tunnel_error(&mut self, now: Instant, inner: &PacketInfo) -> Verdict {
        (**self).decide_tunnel_error(now, inner)
    }

    fn handle_timeout(&mut self, now: Instant) {
        (**self).handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (**self).poll_timeout()
    }
}

/// Packets that came together: a slice of what is known of each, and the payload for whoever asks.
#[derive(Clone, Copy)]
pub struct Packets<'a> {
    infos: &'a [PacketInfo],
    payloads: &'a dyn Payloads,
}

impl<'a> Packets<'a> {
    /// Packets, and where their payloads are; without them this is `Packets::from(infos)`.
    pub fn new(infos: &'a [PacketInfo], payloads: &'a dyn Payloads) -> Self {
        Self { infos, payloads }
    }

    /// What follows the transport header of one of them, as far as it came with this very packet: nothing of what later
    /// fragments have, and all of what a super-packet has. Looked up when it is asked for, never copied.
    #[inline]
    pub fn payload(&self, index: usize) -> &'a [u8] {
        self.payloads.payload(index)
    }

    /// The sequence number of one of them, if it is a whole TCP segment, whose stream can be changed by an [`Edit`].
    #[inline]
    pub fn sequence(&self, index: usize) -> Option<u32> {
        self.payloads.sequence(index)
    }
}

impl<'a> From<&'a [PacketInfo]> for Packets<'a> {
    /// Packets with empty payloads.
    fn from(infos: &'a [PacketInfo]) -> Self {
        Self::new(infos, &())
    }
}

impl Deref for Packets<'_> {
    type Target = [PacketInfo];

    #[inline]
    fn deref(&self) -> &[PacketInfo] {
        self.infos
    }
}

impl<'a> IntoIterator for &Packets<'a> {
    type Item = &'a PacketInfo;
    type IntoIter = std::slice::Iter<'a, PacketInfo>;

    fn into_iter(self) -> Self::IntoIter {
        self.infos.iter()
    }
}

impl fmt::Debug for Packets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.infos.fmt(f)
    }
}

/// Where the payloads of a batch are.
pub trait Payloads {
    /// The payload of the packet with this number; empty if there is none.
    fn payload(&self, index: usize) -> &[u8];

    /// The sequence number of the packet with this number; `None` if it is no whole TCP segment.
    fn sequence(&self, index: usize) -> Option<u32> {
        let _ = index;
        None
    }
}

impl Payloads for () {
    fn payload(&self, _: usize) -> &[u8] {
        &[]
    }
}

impl<T: AsRef<[u8]>> Payloads for Vec<T> {
    fn payload(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], AsRef::as_ref)
    }
}

/// A change to the TCP stream that a packet is part of. Carried out before the packet is rewritten and measured, if it
/// is a whole TCP segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edit {
    /// How far this direction's sequence numbers have moved.
    pub sent: Shift,
    /// How far the other direction's have, which this one acknowledges.
    pub received: Shift,
    /// New text for a part of the payload.
    pub replacement: Option<Replacement>,
}

/// New text for a part of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// Where the old text begins, from the payload's first byte.
    pub at: usize,
    /// Length of the old text in bytes. What lies beyond the payload replaces nothing.
    pub len: usize,
    /// The new text.
    pub text: Vec<u8>,
}

/// What a balancer learns of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketInfo {
    /// IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Towards the real servers or back.
    pub direction: Direction,
    /// The TCP flags as they stand in byte 13 of the header (FIN 1, SYN 2, RST 4, ACK 16); else 0.
    pub tcp_flags: u8,
    /// IP length in bytes; a super-packet counts as one packet of its whole length.
    pub length: u32,
    /// Firewall mark; 0 if there is none.
    pub mark: u32,
}

/// Towards the real servers or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a client to a virtual service.
    Inbound,
    /// From a real server to a client.
    Outbound,
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it to a real server.
    Forward(Method),
    /// It is a reply of a NAT real server: give it this sender (the virtual service) and send it on.
    Reply {
        /// The virtual service.
        source: SocketAddr,
    },
    /// It is an answer to a local address ([`Method::FullNat`]): give it this sender and this receiver and send it on.
    ReplyTo {
        /// The virtual service.
        source: SocketAddr,
        /// The client.
        client: SocketAddr,
    },
    /// It belongs to no connection and starts none. Never a drop: the host or the router's path gets it.
    NotOurs,
    /// Drop it; the number is the balancer's own reason, counted by itself
    /// ([`balancer_drops`](crate::stats::Counters::balancer_drops)).
    Drop(u8),
    /// Drop it and tell the client "port unreachable".
    Reject,
}

/// How a packet gets to its real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Its destination becomes the real server's; replies come back through the director.
    #[doc(alias = "masquerade")]
    Nat {
        /// The real server.
        rip: SocketAddr,
    },
    /// Its source becomes the director's own and its destination the real server's; replies come back to that source, so the
    /// server need not have a route to the client. It does learn who the client is, from a TCP option (TOA) in the segment
    /// that completes the handshake.
    FullNat {
        /// The real server.
        rip: SocketAddr,
        /// The director's side, whose port the balancer gives to no other connection with this server. Its low bits name
        /// the worker ([`owner_of_port`](crate::steer::owner_of_port)).
        local: SocketAddr,
    },
    /// It goes unchanged to the real server's hardware address; replies go straight to the client.
    #[doc(alias = "gatewaying")]
    DirectRoute {
        /// The real server.
        rip: IpAddr,
    },
    /// It goes unchanged inside a packet to the real server; replies go straight to the client.
    #[doc(alias = "tunneling")]
    #[doc(alias = "ipip")]
    Tunnel {
        /// The real server.
        rip: IpAddr,
        /// How it is put into the other packet.
        encapsulation: Encapsulation,
    },
}

/// A connection behind a local address that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The client.
    pub client: SocketAddr,
    /// The virtual service.
    pub vip: SocketAddr,
    /// The director's side towards the real server.
    pub local: SocketAddr,
    /// The real server.
    pub server: SocketAddr,
    /// Both sides are to be told, by resets that fit what they have heard last: an established TCP connection was idle for
    /// too long, and they would not find out.
    pub reset: bool,
}

/// What lies between the outer IP header and the packet inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Encapsulation {
    /// Nothing (RFC 2003).
    #[default]
    Ipip,
    /// UDP and a header of Generic UDP Encapsulation, version 0.
    Gue {
        /// UDP port of the tunnel's end.
        port: u16,
        /// Whether the UDP checksum is computed; it covers all that is inside. The remote checksum option is never used:
        /// what is inside has its own checksum, so that receivers treat both alike.
        checksum: bool,
    },
    /// A header of Generic Routing Encapsulation (RFC 2784).
    Gre {
        /// Whether it carries a checksum, which covers all that is inside.
        checksum: bool,
    },
}
