//! Which packets carry which mark: an ordered table of rules, the first match wins.
//!
//! A packet socket sees frames before any rule of the kernel's could mark them, so the forwarder has a table of its own. A
//! packet whose mark is [served](MarkTable::new) is claimed from the host as one to a virtual service; a rule with a mark
//! that nobody serves, 0 for example, exempts what it matches from the rules behind it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ahash::RandomState;

use crate::route::Prefix;
use crate::view::hasher;
use crate::wire::protocol;

/// One rule. What is `None` or empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MarkRule {
    /// Name of the interface where the packet comes in.
    pub interface: Option<String>,
    /// Whether it is IPv6; prefixes say it too.
    pub ipv6: Option<bool>,
    /// IP protocol number, one of [`BALANCED`].
    pub protocol: Option<u8>,
    /// Senders.
    pub source: Option<Prefix>,
    /// Receivers.
    pub destination: Option<Prefix>,
    /// Ports of the sender.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// Ports of the receiver.
    pub destination_ports: Vec<RangeInclusive<u16>>,
    /// The mark; 0 for none.
    pub mark: u32,
}

impl MarkRule {
    /// Whether a packet of this family can match.
    pub fn is_of(&self, ipv6: bool) -> bool {
        let prefixes = [self.source, self.destination];
        self.ipv6.is_none_or(|of| of == ipv6)
            && prefixes
                .into_iter()
                .flatten()
                .all(|prefix| prefix.addr().is_ipv6() == ipv6)
    }

    /// The protocols that match.
    pub fn protocols(&self) -> impl Iterator<Item = u8> + '_ {
        let all = BALANCED.into_iter();
        all.filter(|protocol| self.protocol.is_none_or(|only| only == *protocol))
    }

    /// `ports` is false where the packet does not tell any.
    fn matches(&self, packet: &MarkQuery<'_>, ports: bool) -> bool {
        let port = |ranges: &[RangeInclusive<u16>], port: u16| {
            !ports || ranges.is_empty() || ranges.iter().any(|range| range.contains(&port))
        };
        let addr = |prefix: Option<Prefix>, side: &SocketAddr| {
            prefix.is_none_or(|prefix| prefix.contains(&side.ip()))
        };
        self.protocol.is_none_or(|only| only == packet.protocol)
            && self
                .ipv6
                .is_none_or(|of| of == packet.destination.is_ipv6())
            && port(&self.destination_ports, packet.destination.port())
            && port(&self.source_ports, packet.source.port())
            && addr(self.destination, &packet.destination)
            && addr(self.source, &packet.source)
            && self
                .interface
                .as_ref()
                .is_none_or(|name| name == packet.interface)
    }
}

/// What rules are asked about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkQuery<'a> {
    /// Name of the interface where it came in.
    pub interface: &'a str,
    /// IP protocol number.
    pub protocol: u8,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
}

/// Rules, made ready for looking up: those for one receiver are found by it, the others are tried in order.
#[derive(Debug, Clone)]
pub struct MarkTable {
    rules: Vec<MarkRule>,
    /// For each rule whether its mark is served in IPv4, and in IPv6.
    served: Vec<[bool; 2]>,
    by_receiver: HashMap<IpAddr, Vec<u32>, RandomState>,
    others: Vec<u32>,
}

impl MarkTable {
    /// These rules, and which marks are served: `served` is asked for family (IPv6 or not) and mark, never for mark 0.
    pub fn new(rules: Vec<MarkRule>, served: impl Fn(bool, u32) -> bool) -> Self {
        let mut by_receiver: HashMap<IpAddr, Vec<u32>, RandomState> =
            HashMap::with_hasher(hasher());
        let mut others = Vec::new();
        for (at, rule) in (0..).zip(&rules) {
            match single(rule.destination) {
                Some(receiver) => by_receiver.entry(receiver).or_default().push(at),
                None => others.push(at),
            }
        }
        let serves = |rule: &MarkRule| {
            [false, true].map(|ipv6| rule.mark != 0 && rule.is_of(ipv6) && served(ipv6, rule.mark))
        };
        Self {
            served: rules.iter().map(serves).collect(),
            rules,
            by_receiver,
            others,
        }
    }

    /// Whether there are no rules.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[MarkRule] {
        &self.rules
    }

    /// Whether a packet of this family that matches the rule with this number is claimed.
    pub fn is_served(&self, number: usize, ipv6: bool) -> bool {
        self.served
            .get(number)
            .is_some_and(|served| served[usize::from(ipv6)])
    }

    /// The mark of a packet, if it is served.
    pub fn mark(&self, packet: &MarkQuery<'_>) -> Option<u32> {
        if !BALANCED.contains(&packet.protocol) {
            return None;
        }
        let first = |of: &[u32]| {
            let mut of = of.iter().copied();
            of.find(|at| self.rules[*at as usize].matches(packet, true))
        };
        let by_receiver = self.by_receiver.get(&packet.destination.ip());
        let by_receiver = by_receiver.and_then(|of| first(of));
        let others = first(&self.others);
        let at = match (by_receiver, others) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        } as usize;
        self.is_served(at, packet.destination.is_ipv6())
            .then(|| self.rules[at].mark)
    }

    /// Whether a packet whose ports are not known may have a mark that is served.
    pub fn may_have_mark(&self, packet: &MarkQuery<'_>) -> bool {
        let ipv6 = packet.destination.is_ipv6();
        let mut rules = self.rules.iter().enumerate();
        BALANCED.contains(&packet.protocol)
            && rules.any(|(at, rule)| self.is_served(at, ipv6) && rule.matches(packet, false))
    }
}

impl Default for MarkTable {
    /// Without rules.
    fn default() -> Self {
        Self::new(Vec::new(), |_, _| false)
    }
}

impl PartialEq for MarkTable {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules && self.served == other.served
    }
}

impl Eq for MarkTable {}

/// The one address that a prefix holds.
fn single(prefix: Option<Prefix>) -> Option<IpAddr> {
    let prefix = prefix?;
    let bits = if prefix.addr().is_ipv4() { 32 } else { 128 };
    (prefix.length() == bits).then_some(prefix.addr())
}

/// Transport protocols that packets with marks may have.
pub const BALANCED: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::SCTP];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(destination: &str, length: u8, ports: &[RangeInclusive<u16>], mark: u32) -> MarkRule {
        MarkRule {
            protocol: Some(6),
            destination: Some(Prefix::new(destination.parse().unwrap(), length)),
            destination_ports: ports.to_vec(),
            mark,
            ..MarkRule::default()
        }
    }

    fn query<'a>(protocol: u8, destination: &str) -> MarkQuery<'a> {
        MarkQuery {
            interface: "eth0",
            protocol,
            source: "203.0.113.5:4000".parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let table = MarkTable::new(
            vec![
                rule("192.0.2.10", 32, &[22..=22], 0),
                rule("192.0.2.0", 24, &[80..=80, 443..=443], 1),
                rule("192.0.2.10", 32, &[], 2),
                rule("192.0.2.11", 32, &[], 3),
            ],
            |ipv6, mark| !ipv6 && mark != 3,
        );
        let mark = |destination| table.mark(&query(6, destination));
        assert_eq!(mark("192.0.2.10:22"), None, "exempt");
        assert_eq!(
            mark("192.0.2.10:443"),
            Some(1),
            "though another is found by the receiver"
        );
        assert_eq!(mark("192.0.2.10:8080"), Some(2));
        assert_eq!(mark("192.0.2.12:80"), Some(1));
        assert_eq!(mark("192.0.2.11:8080"), None, "nobody serves it");
        assert_eq!(mark("192.0.3.10:80"), None);
        assert_eq!(table.mark(&query(17, "192.0.2.10:8080")), None);
        assert_eq!(table.mark(&query(1, "192.0.2.10:8080")), None);
        assert!(table.may_have_mark(&query(6, "192.0.2.10:0")));
        assert!(!table.may_have_mark(&query(6, "192.0.3.10:0")));
    }

    #[test]
    fn interface_family_sender_and_its_port_count() {
        let whole = MarkRule {
            interface: Some("eth0".into()),
            ipv6: Some(false),
            source: Some(Prefix::new("203.0.113.0".parse().unwrap(), 24)),
            source_ports: vec![4000..=4999],
            mark: 7,
            ..MarkRule::default()
        };
        let table = MarkTable::new(vec![whole], |_, _| true);
        let packet = query(17, "192.0.2.10:53");
        assert_eq!(table.mark(&packet), Some(7));
        let others = [
            MarkQuery {
                interface: "eth1",
                ..packet
            },
            MarkQuery {
                source: "203.0.113.5:5000".parse().unwrap(),
                ..packet
            },
            MarkQuery {
                source: "203.0.114.5:4000".parse().unwrap(),
                ..packet
            },
            MarkQuery {
                source: "[2001:db8::1]:4000".parse().unwrap(),
                destination: "[2001:db8::2]:53".parse().unwrap(),
                ..packet
            },
        ];
        for other in others {
            assert_eq!(table.mark(&other), None);
        }
    }

    proptest! {
        /// Looking up by the receiver finds what trying every rule in order finds.
        #[test]
        fn looking_up_is_trying_in_order(
            rules in prop::collection::vec((0u8..4, 28u8..=32, 0u16..4, 0u32..4), 0..12),
            packets in prop::collection::vec((0u8..4, 0u16..4), 1..20),
        ) {
            let rules: Vec<MarkRule> = rules
                .into_iter()
                .map(|(last, length, port, mark)| {
                    let ports = if port == 0 { vec![] } else { vec![port..=port] };
                    rule(&format!("192.0.2.{last}"), length, &ports, mark)
                })
                .collect();
            let table = MarkTable::new(rules.clone(), |_, mark| mark != 3);
            for (last, port) in packets {
                let packet = query(6, &format!("192.0.2.{last}:{port}"));
                let plain = rules.iter().find(|rule| rule.matches(&packet, true));
                let plain = plain.map(|rule| rule.mark).filter(|mark| ![0, 3].contains(mark));
                prop_assert_eq!(table.mark(&packet), plain);
            }
        }
    }
}
