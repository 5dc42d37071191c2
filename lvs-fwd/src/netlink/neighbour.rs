//! Hardware addresses of neighbours.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as State,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::family;
use super::{Netlink, NetlinkError};
use crate::route::{Hop, Neighbour, NeighbourState};

/// A neighbour entry of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// Who.
    pub hop: Hop,
    /// What is known.
    pub neighbour: Neighbour,
}

impl Netlink {
    /// All neighbour entries of both families.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn neighbours(&mut self) -> Result<Vec<NeighbourEntry>, NetlinkError> {
        let found = self
            .0
            .dump(RouteNetlinkMessage::GetNeighbour(
                NeighbourMessage::default(),
            ))
            .map_err(NetlinkError::on("list", "neighbours"))?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewNeighbour(message) => NeighbourEntry::decode(&message),
                _ => None,
            })
            .collect())
    }

    /// Asks the kernel to find or confirm a neighbour, as if a packet had been sent to it. The answer comes
    /// as an [event](super::Events).
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn probe_neighbour(&mut self, hop: &Hop) -> Result<(), NetlinkError> {
        let mut message = message(hop);
        message.header.flags = NeighbourFlags::Use;
        self.0
            .request(
                RouteNetlinkMessage::NewNeighbour(message),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
            .map_err(NetlinkError::on("probe neighbour", text(hop)))
    }

    /// Sets a permanent neighbour entry.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn set_neighbour(&mut self, hop: &Hop, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let mut message = message(hop);
        message.header.state = State::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.0
            .request(
                RouteNetlinkMessage::NewNeighbour(message),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
            .map_err(NetlinkError::on("set neighbour", text(hop)))
    }

    /// Deletes a neighbour entry.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn delete_neighbour(&mut self, hop: &Hop) -> Result<(), NetlinkError> {
        self.0
            .request(RouteNetlinkMessage::DelNeighbour(message(hop)), 0)
            .map_err(NetlinkError::on("delete neighbour", text(hop)))
    }
}

fn message(hop: &Hop) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(&hop.addr);
    message.header.ifindex = hop.ifindex;
    message
        .attributes
        .push(NeighbourAttribute::Destination(match hop.addr {
            IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
            IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
        }));
    message
}

fn text(hop: &Hop) -> String {
    format!("{} on link {}", hop.addr, hop.ifindex)
}

impl NeighbourEntry {
    /// `None` for entries of other families (a bridge's forwarding table) and for proxies.
    pub(super) fn decode(message: &NeighbourMessage) -> Option<Self> {
        let header = &message.header;
        if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6)
            || header.flags.contains(NeighbourFlags::Proxy)
        {
            return None;
        }
        let (mut addr, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    addr = Some(IpAddr::V4(*v4));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    addr = Some(IpAddr::V6(*v6));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok();
                }
                _ => {}
            }
        }
        let state = match header.state {
            State::Reachable => NeighbourState::Reachable,
            State::Stale => NeighbourState::Stale,
            State::Delay => NeighbourState::Delay,
            State::Probe => NeighbourState::Probe,
            State::Failed => NeighbourState::Failed,
            State::Noarp => NeighbourState::NoArp,
            State::Permanent => NeighbourState::Permanent,
            _ => NeighbourState::Incomplete,
        };
        // Without an address there is nothing to use, whatever the state says.
        let state = if mac.is_none() && state.is_usable() && state != NeighbourState::NoArp {
            NeighbourState::Incomplete
        } else {
            state
        };
        Some(Self {
            hop: Hop {
                ifindex: header.ifindex,
                addr: addr?,
            },
            neighbour: Neighbour {
                mac: mac.unwrap_or_default(),
                state,
            },
        })
    }
}
