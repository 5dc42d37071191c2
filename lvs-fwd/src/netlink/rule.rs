//! Policy routing rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage, route::RouteProtocol};

use super::{MARK, Netlink, NetlinkError, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
use crate::route::Prefix;

/// A rule: packets that match everything it names are looked up in its table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Whether it is about IPv6.
    pub ipv6: bool,
    /// Rules with lower numbers come first; the main table's is 32766.
    pub priority: u32,
    /// Source addresses.
    pub from: Option<Prefix>,
    /// Destination addresses.
    pub to: Option<Prefix>,
    /// Firewall mark, and which of its bits count.
    pub mark: Option<(u32, u32)>,
    /// Name of the interface that the packet came in by.
    pub iif: Option<String>,
    /// Name of the interface that the sending socket is bound to.
    pub oif: Option<String>,
    /// IP protocol number.
    pub ip_protocol: Option<u8>,
    /// First and last source port.
    pub source_ports: Option<(u16, u16)>,
    /// First and last destination port.
    pub destination_ports: Option<(u16, u16)>,
    /// The table to look in.
    pub table: u32,
    /// Who put it there.
    pub protocol: u8,
}

impl Rule {
    /// Whether the way that a packet takes through a director may hang on this rule, which
    /// [`Mirror`](crate::mirror::Mirror) does not follow: it knows the tables that every packet is looked up in. Rules
    /// of a director's own are none of these.
    pub fn is_policy(&self) -> bool {
        let common = [TABLE_LOCAL, TABLE_MAIN, TABLE_DEFAULT];
        !common.contains(&self.table) && self.protocol != MARK
    }
}

impl Netlink {
    /// All rules of both families that lead to a table.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn rules(&mut self) -> Result<Vec<Rule>, NetlinkError> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RuleMessage::default();
            request.header.family = family;
            match self.0.dump(RouteNetlinkMessage::GetRule(request)) {
                Ok(found) => rules.extend(found.into_iter().filter_map(|message| match message {
                    RouteNetlinkMessage::NewRule(message) => Rule::decode(&message),
                    _ => None,
                })),
                // A kernel without IPv6 has no IPv6 rules.
                Err(error)
                    if family == AddressFamily::Inet6
                        && matches!(
                            error.raw_os_error(),
                            Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
                        ) => {}
                Err(error) => return Err(NetlinkError::on("list", "rules")(error)),
            }
        }
        Ok(rules)
    }

    /// Adds a rule.
    ///
    /// # Errors
    ///
    /// [Exists](NetlinkError::is_exists), or what the kernel reports.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        self.0
            .request(
                RouteNetlinkMessage::NewRule(rule.encode()),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .map_err(NetlinkError::on("add rule", rule))
    }

    /// Deletes a rule.
    ///
    /// # Errors
    ///
    /// [Not found](NetlinkError::is_not_found), or what the kernel reports.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        self.0
            .request(RouteNetlinkMessage::DelRule(rule.encode()), 0)
            .map_err(NetlinkError::on("delete rule", rule))
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.priority)?;
        if let Some(from) = &self.from {
            write!(f, " from {from}")?;
        }
        if let Some(to) = &self.to {
            write!(f, " to {to}")?;
        }
        if let Some((mark, mask)) = self.mark {
            write!(f, " fwmark {mark:#x}")?;
            if mask != u32::MAX {
                write!(f, "/{mask:#x}")?;
            }
        }
        if let Some(iif) = &self.iif {
            write!(f, " iif {iif}")?;
        }
        if let Some(oif) = &self.oif {
            write!(f, " oif {oif}")?;
        }
        if let Some(protocol) = self.ip_protocol {
            write!(f, " ipproto {protocol}")?;
        }
        let ports = [
            ("sport", self.source_ports),
            ("dport", self.destination_ports),
        ];
        for (name, ports) in ports {
            match ports {
                None => {}
                Some((first, last)) if first == last => write!(f, " {name} {first}")?,
                Some((first, last)) => write!(f, " {name} {first}-{last}")?,
            }
        }
        write!(f, " lookup {}", self.table)
    }
}

impl Rule {
    fn encode(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.ipv6 {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        };
        message.header.action = RuleAction::ToTable;
        message.header.table = u8::try_from(self.table).unwrap_or(0);
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Table(self.table));
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Protocol(RouteProtocol::from(self.protocol)));
        if let Some(from) = &self.from {
            message.header.src_len = from.length();
            attributes.push(RuleAttribute::Source(from.addr()));
        }
        if let Some(to) = &self.to {
            message.header.dst_len = to.length();
            attributes.push(RuleAttribute::Destination(to.addr()));
        }
        if let Some((mark, mask)) = self.mark {
            attributes.push(RuleAttribute::FwMark(mark));
            attributes.push(RuleAttribute::FwMask(mask));
        }
        attributes.extend(self.iif.clone().map(RuleAttribute::Iifname));
        attributes.extend(self.oif.clone().map(RuleAttribute::Oifname));
        attributes.extend(
            self.ip_protocol
                .map(|number| RuleAttribute::IpProtocol(IpProtocol::from(number))),
        );
        attributes.extend(
            self.source_ports
                .map(|(start, end)| RuleAttribute::SourcePortRange(RulePortRange { start, end })),
        );
        attributes.extend(
            self.destination_ports.map(|(start, end)| {
                RuleAttribute::DestinationPortRange(RulePortRange { start, end })
            }),
        );
        message
    }

    pub(super) fn decode(message: &RuleMessage) -> Option<Self> {
        if message.header.action != RuleAction::ToTable {
            return None;
        }
        let ipv6 = match message.header.family {
            AddressFamily::Inet => false,
            AddressFamily::Inet6 => true,
            _ => return None,
        };
        let mut rule = Self {
            ipv6,
            table: message.header.table.into(),
            ..Self::default()
        };
        let unspecified = if ipv6 {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let (mut from, mut to) = (unspecified, unspecified);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Protocol(protocol) => rule.protocol = (*protocol).into(),
                RuleAttribute::Source(addr) => from = *addr,
                RuleAttribute::Destination(addr) => to = *addr,
                RuleAttribute::FwMark(mark) => {
                    rule.mark.get_or_insert((0, u32::MAX)).0 = *mark;
                }
                RuleAttribute::FwMask(mask) => {
                    rule.mark.get_or_insert((0, u32::MAX)).1 = *mask;
                }
                RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
                RuleAttribute::Oifname(name) => rule.oif = Some(name.clone()),
                RuleAttribute::DestinationPortRange(range) => {
                    rule.destination_ports = Some((range.start, range.end));
                }
                RuleAttribute::IpProtocol(number) => rule.ip_protocol = Some((*number).into()),
                RuleAttribute::SourcePortRange(range) => {
                    rule.source_ports = Some((range.start, range.end));
                }
                _ => {}
            }
        }
        if message.header.src_len > 0 {
            rule.from = Some(Prefix::new(from, message.header.src_len));
        }
        if message.header.dst_len > 0 {
            rule.to = Some(Prefix::new(to, message.header.dst_len));
        }
        Some(rule)
    }
}
