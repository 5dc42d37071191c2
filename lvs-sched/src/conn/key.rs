//! What an entry is found by: addresses as the table stores them, and the keys of its indexes.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Protocol;

/// An address as entries store it.
pub(crate) trait Address: Copy + Eq + Debug {
    fn ip(self) -> IpAddr;
    /// `None` if it is of the other family.
    fn from_ip(ip: IpAddr) -> Option<Self>;
    /// Hashes two addresses in as few words as possible.
    fn feed(self, other: Self, state: &mut impl Hasher);
}

/// An IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct V4(u32);

/// An IPv6 address, aligned like two words so that entries stay small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct V6([u64; 2]);

impl Address for V4 {
    #[inline]
    fn ip(self) -> IpAddr {
        Ipv4Addr::from_bits(self.0).into()
    }

    #[inline]
    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(Self(ip.to_bits())),
            IpAddr::V6(_) => None,
        }
    }

    #[inline]
    fn feed(self, other: Self, state: &mut impl Hasher) {
        state.write_u64(u64::from(self.0) << 32 | u64::from(other.0));
    }
}

impl Address for V6 {
    #[inline]
    fn ip(self) -> IpAddr {
        Ipv6Addr::from_bits(u128::from(self.0[0]) << 64 | u128::from(self.0[1])).into()
    }

    #[inline]
    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(Self([(ip.to_bits() >> 64) as u64, ip.to_bits() as u64])),
        }
    }

    #[inline]
    fn feed(self, other: Self, state: &mut impl Hasher) {
        for word in self.0.into_iter().chain(other.0) {
            state.write_u64(word);
        }
    }
}

/// Client and the other side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey<A> {
    pub(crate) client: A,
    pub(crate) other: A,
    pub(crate) client_port: u16,
    pub(crate) other_port: u16,
    pub(crate) kind: Kind,
}

/// Protocol of a key, and whether it is of an entry that does not know its client's port yet. Such
/// entries are found by other lookups than those of clients that use port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(u8);

impl Kind {
    #[inline]
    pub(crate) fn new(protocol: Protocol, no_client_port: bool) -> Self {
        // Without their highest bit the three numbers still differ.
        Self((protocol.number() & 0x7f) | u8::from(no_client_port) << 7)
    }
}

impl<A: Address> FlowKey<A> {
    #[inline]
    pub(crate) fn new(
        protocol: Protocol,
        (client, client_port): (IpAddr, u16),
        (other, other_port): (IpAddr, u16),
    ) -> Option<Self> {
        Some(Self {
            client: A::from_ip(client)?,
            other: A::from_ip(other)?,
            client_port,
            other_port,
            kind: Kind::new(protocol, false),
        })
    }

    /// The key of an entry of this flow that does not know its client's port.
    pub(crate) fn without_client_port(self) -> Self {
        Self {
            client_port: 0,
            kind: Kind(self.kind.0 | 0x80),
            ..self
        }
    }
}

impl<A: Address> Hash for FlowKey<A> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.client.feed(self.other, state);
        let ports = u64::from(self.client_port) << 16 | u64::from(self.other_port);
        state.write_u64(ports << 8 | u64::from(self.kind.0));
    }
}
