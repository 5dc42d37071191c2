//! Addresses of interfaces.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
    AddressScope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub ifindex: u32,
    /// The address.
    pub addr: IpAddr,
    /// Prefix length of its subnet.
    pub prefix: u8,
    /// Address at the other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// Broadcast address (IPv4).
    pub broadcast: Option<Ipv4Addr>,
    /// Label (IPv4): the interface's name, or that with `:something` appended.
    pub label: Option<String>,
    /// Where it is valid.
    pub scope: Scope,
    /// No duplicate address detection (IPv6): usable at once.
    pub nodad: bool,
    /// Duplicate address detection has not ended, or found another owner (IPv6): it can't be used. The kernel's word only.
    pub tentative: bool,
    /// For so many seconds it is chosen as source by itself (IPv6); 0: never, `None`: always. Not read back.
    pub preferred: Option<u32>,
    /// No route to the subnet comes with it.
    pub noprefixroute: bool,
    /// Who put it there; 0 if nobody said so. Kernels before 5.18 do not keep it.
    pub protocol: u8,
}

/// Where an address or route is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Everywhere.
    #[default]
    Global,
    /// Within the site.
    Site,
    /// On the link.
    Link,
    /// On this host.
    Host,
    /// Another number.
    Other(u8),
}

impl Address {
    /// A global address without extras.
    pub fn new(ifindex: u32, addr: IpAddr, prefix: u8) -> Self {
        Self {
            ifindex,
            addr,
            prefix,
            peer: None,
            broadcast: None,
            label: None,
            scope: Scope::Global,
            nodad: false,
            tentative: false,
            preferred: None,
            noprefixroute: false,
            protocol: 0,
        }
    }
}

impl Netlink {
    /// All addresses of both families.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let found = self
            .0
            .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
            .map_err(NetlinkError::on("list", "addresses"))?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(message) => Address::decode(&message),
                _ => None,
            })
            .collect())
    }

    /// Adds an address.
    ///
    /// # Errors
    ///
    /// [Exists](NetlinkError::is_exists), or what the kernel reports.
    pub fn add_address(&mut self, address: &Address) -> Result<(), NetlinkError> {
        self.0
            .request(
                RouteNetlinkMessage::NewAddress(address.encode()),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .map_err(NetlinkError::on("add address", address))
    }

    /// Deletes an address. Interface, address, prefix length and, if given, label tell which.
    ///
    /// # Errors
    ///
    /// [Not found](NetlinkError::is_not_found), or what the kernel reports.
    pub fn delete_address(&mut self, address: &Address) -> Result<(), NetlinkError> {
        self.0
            .request(RouteNetlinkMessage::DelAddress(address.encode()), 0)
            .map_err(NetlinkError::on("delete address", address))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} on link {}", self.addr, self.prefix, self.ifindex)
    }
}

impl Address {
    fn encode(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(&self.addr);
        message.header.prefix_len = self.prefix;
        message.header.index = self.ifindex;
        message.header.scope = match self.scope {
            Scope::Global => AddressScope::Universe,
            Scope::Site => AddressScope::Site,
            Scope::Link => AddressScope::Link,
            Scope::Host => AddressScope::Host,
            Scope::Other(number) => AddressScope::Other(number),
        };
        let attributes = &mut message.attributes;
        attributes.push(AddressAttribute::Local(self.addr));
        attributes.push(AddressAttribute::Address(self.peer.unwrap_or(self.addr)));
        attributes.extend(self.broadcast.map(AddressAttribute::Broadcast));
        attributes.extend(self.label.clone().map(AddressAttribute::Label));
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Nodad, self.nodad);
        flags.set(AddressFlags::Noprefixroute, self.noprefixroute);
        if !flags.is_empty() {
            attributes.push(AddressAttribute::Flags(flags));
        }
        if let Some(preferred) = self.preferred {
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_preferred = preferred;
            lifetimes.ifa_valid = u32::MAX;
            attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        if self.protocol != 0 {
            attributes.push(AddressAttribute::Protocol(AddressProtocol::from(
                self.protocol,
            )));
        }
        message
    }

    pub(super) fn decode(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut address) = (None, None);
        let mut decoded = Self::new(message.header.index, UNKNOWN, message.header.prefix_len);
        decoded.scope = match message.header.scope {
            AddressScope::Universe => Scope::Global,
            AddressScope::Site => Scope::Site,
            AddressScope::Link => Scope::Link,
            AddressScope::Host => Scope::Host,
            other => Scope::Other(other.into()),
        };
        decoded.nodad = message.header.flags.contains(AddressHeaderFlags::Nodad);
        let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
        // With optimistic detection it is used meanwhile.
        decoded.tentative = message.header.flags.intersects(unusable)
            && !message
                .header
                .flags
                .contains(AddressHeaderFlags::Optimistic);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(addr) => local = Some(*addr),
                AddressAttribute::Address(addr) => address = Some(*addr),
                AddressAttribute::Broadcast(addr) => decoded.broadcast = Some(*addr),
                AddressAttribute::Label(label) => decoded.label = Some(label.clone()),
                AddressAttribute::Flags(flags) => {
                    decoded.nodad = flags.contains(AddressFlags::Nodad);
                    decoded.noprefixroute = flags.contains(AddressFlags::Noprefixroute);
                }
                AddressAttribute::Protocol(protocol) => decoded.protocol = (*protocol).into(),
                _ => {}
            }
        }
        // IPv6 sends no separate local address unless there is a peer.
        decoded.addr = local.or(address)?;
        decoded.peer = address.filter(|peer| *peer != decoded.addr);
        Some(decoded)
    }
}

pub(super) fn family(addr: &IpAddr) -> AddressFamily {
    if addr.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
