//! Rules of marks as the steering program has them: a table of prefixes, by protocol and port.
//!
//! The program can't try rules in order. It asks for the longest prefix of the receiver's address that the table has with
//! the packet's port, and if there is none with any port. So it takes everything that a rule may claim, sometimes more: what
//! the rules say of senders and interfaces is left to the engine, which gives back what it does not want.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::program::{self, Role};
use crate::marks::{MarkRule, MarkTable};
use crate::route::Prefix;

/// Bytes of a key: how many bits count, protocol, role and family, port, address.
pub(super) const KEY_LEN: usize = 24;
/// Bits before the address.
const BITS_BEFORE: u32 = 32;

pub(super) type Key = [u8; KEY_LEN];

/// What the table says of a key: 1 to take, 0 to pass.
pub(super) type Entries = BTreeMap<Key, u8>;

/// What the program is to know of these rules; with two tables it takes what either claims.
pub(super) fn entries(tables: [&MarkTable; 2]) -> Entries {
    let mut entries = Entries::new();
    let has_exemptions = tables[0] == tables[1] || tables[1].is_empty();
    for table in tables {
        for ipv6 in [false, true] {
            for number in 0..table.rules().len() {
                add_rule(&mut entries, table, number, ipv6, has_exemptions);
            }
        }
    }
    entries
}

fn add_rule(
    entries: &mut Entries,
    table: &MarkTable,
    number: usize,
    ipv6: bool,
    has_exemptions: bool,
) {
    let rule = &table.rules()[number];
    if !rule.is_of(ipv6) {
        return;
    }
    let is_served = table.is_served(number, ipv6);
    let earlier = || {
        let all = table.rules()[..number].iter().enumerate();
        all.filter(|(_, rule)| rule.is_of(ipv6))
    };
    let prefix = receivers(rule, ipv6);
    for protocol in rule.protocols() {
        let key = |role, port| key(protocol, role, port, prefix);
        for port in ports(&rule.destination_ports) {
            if is_served {
                // What is exempt before this rule is not taken for it.
                let is_exempt = earlier().any(|(at, before)| {
                    !table.is_served(at, ipv6) && covers(before, protocol, port, prefix, ipv6)
                });
                if !is_exempt {
                    entries.insert(key(Role::Service, port), TAKE);
                }
            } else if has_exemptions && is_about_receivers(rule) {
                // Only where nothing before it may claim the same.
                let is_claimed = earlier().any(|(at, before)| {
                    table.is_served(at, ipv6) && meets(before, protocol, port, prefix, ipv6)
                });
                if !is_claimed {
                    entries.entry(key(Role::Service, port)).or_insert(PASS);
                }
            }
        }
        if is_served {
            entries.insert(key(Role::ServiceHost, ANY_PORT), TAKE);
        }
    }
}

/// A key of the table.
fn key(protocol: u8, role: Role, port: u16, prefix: Prefix) -> Key {
    let addr = prefix.addr();
    // An IPv4 address stands in the last 32 bits.
    let (family, before) = match addr {
        IpAddr::V4(_) => (0, 96),
        IpAddr::V6(_) => (IPV6, 0),
    };
    let bits = BITS_BEFORE + before + u32::from(prefix.length());
    let mut key = [0; KEY_LEN];
    key[..4].copy_from_slice(&bits.to_ne_bytes());
    key[4] = protocol;
    key[5] = role as u8 | family;
    key[6..8].copy_from_slice(&port.to_be_bytes());
    key[8..].copy_from_slice(&program::address(addr));
    key
}

/// The single ports, or any if they are too many.
fn ports(ranges: &[RangeInclusive<u16>]) -> Vec<u16> {
    let count: usize = ranges.iter().map(ExactSizeIterator::len).sum();
    if ranges.is_empty() || count > MAX_PORTS || ranges.iter().any(|range| range.contains(&0)) {
        return vec![ANY_PORT];
    }
    ranges.iter().flat_map(Clone::clone).collect()
}

/// Whether a rule says nothing of senders and interfaces.
fn is_about_receivers(rule: &MarkRule) -> bool {
    let is_exact =
        rule.destination_ports.is_empty() || ports(&rule.destination_ports) != [ANY_PORT];
    rule.interface.is_none() && rule.source.is_none() && rule.source_ports.is_empty() && is_exact
}

/// Whether everything with this protocol and port, to these receivers, matches the rule.
fn covers(rule: &MarkRule, protocol: u8, port: u16, prefix: Prefix, ipv6: bool) -> bool {
    let own = receivers(rule, ipv6);
    let has_port = rule.destination_ports.is_empty()
        || port != ANY_PORT
            && rule
                .destination_ports
                .iter()
                .any(|range| range.contains(&port));
    is_about_receivers(rule)
        && has_port
        && rule.protocols().any(|one| one == protocol)
        && own.length() <= prefix.length()
        && own.contains(&prefix.addr())
}

/// Whether something with this protocol and port, to these receivers, may match the rule.
fn meets(rule: &MarkRule, protocol: u8, port: u16, prefix: Prefix, ipv6: bool) -> bool {
    let own = receivers(rule, ipv6);
    let has_port = rule.destination_ports.is_empty()
        || port == ANY_PORT
        || rule
            .destination_ports
            .iter()
            .any(|range| range.contains(&port));
    has_port
        && rule.protocols().any(|one| one == protocol)
        && (own.contains(&prefix.addr()) || prefix.contains(&own.addr()))
}

fn receivers(rule: &MarkRule, ipv6: bool) -> Prefix {
    rule.destination.unwrap_or_else(|| match ipv6 {
        false => Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        true => Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    })
}

/// In the byte of the role.
pub(super) const IPV6: u8 = 0x10;
pub(super) const TAKE: u8 = 1;
const PASS: u8 = 0;
const ANY_PORT: u16 = 0;
/// A rule with more ports takes all of its addresses.
const MAX_PORTS: usize = 1024;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::marks::MarkQuery;

    /// What the program would answer.
    fn takes(entries: &Entries, protocol: u8, role: Role, to: SocketAddr) -> bool {
        let bits = if to.is_ipv4() { 32 } else { 128 };
        let longest = |port: u16| {
            (0..=bits).rev().find_map(|length| {
                let prefix = Prefix::new(to.ip(), length);
                entries.get(&key(protocol, role, port, prefix)).copied()
            })
        };
        longest(to.port()).or_else(|| longest(ANY_PORT)) == Some(TAKE)
    }

    fn rule(destination: Option<(&str, u8)>, ports: &[RangeInclusive<u16>], mark: u32) -> MarkRule {
        MarkRule {
            protocol: Some(6),
            destination: destination
                .map(|(addr, length)| Prefix::new(addr.parse().unwrap(), length)),
            destination_ports: ports.to_vec(),
            mark,
            ..MarkRule::default()
        }
    }

    #[test]
    fn simple_rules_are_told_exactly() {
        let table = MarkTable::new(
            vec![
                rule(Some(("192.0.2.10", 32)), &[22..=22], 0),
                rule(Some(("192.0.2.10", 32)), &[], 1),
                rule(Some(("192.0.2.0", 24)), &[80..=80, 443..=443], 1),
                rule(Some(("2001:db8::", 32)), &[80..=90], 2),
            ],
            |_, _| true,
        );
        let entries = entries([&table, &MarkTable::default()]);
        let taken = |to: &str| takes(&entries, 6, Role::Service, to.parse().unwrap());
        for (to, expected) in [
            ("192.0.2.10:22", false),
            ("192.0.2.10:23", true),
            ("192.0.2.11:80", true),
            ("192.0.2.11:23", false),
            ("192.0.3.11:80", false),
            ("[2001:db8::7]:85", true),
            ("[2001:db8::7]:91", false),
            ("[2001:db9::7]:85", false),
        ] {
            assert_eq!(taken(to), expected, "{to}");
        }
        let udp = "192.0.2.10:23".parse().unwrap();
        assert!(!takes(&entries, 17, Role::Service, udp));
        assert!(takes(
            &entries,
            6,
            Role::ServiceHost,
            "192.0.2.10:0".parse().unwrap()
        ));
    }

    #[test]
    fn a_rule_for_all_ipv6_is_none_for_ipv4() {
        let all = MarkRule {
            ipv6: Some(true),
            ..rule(None, &[80..=80], 1)
        };
        let table = MarkTable::new(vec![all], |_, _| true);
        let entries = entries([&table, &MarkTable::default()]);
        let taken = |to: &str| takes(&entries, 6, Role::Service, to.parse().unwrap());
        assert!(taken("[2001:db8::1]:80") && !taken("192.0.2.1:80"));
    }

    #[test]
    fn many_ports_are_all_ports() {
        let table = MarkTable::new(
            vec![rule(Some(("192.0.2.10", 32)), &[1000..=60000], 1)],
            |_, _| true,
        );
        let entries = entries([&table, &MarkTable::default()]);
        assert_eq!(entries.len(), 2, "and one for fragments");
        let near = "192.0.2.10:80".parse().unwrap();
        assert!(
            takes(&entries, 6, Role::Service, near),
            "given back by the engine"
        );
    }

    proptest! {
        /// Whatever has a mark is taken, also while one table gives way to another.
        #[test]
        fn nothing_with_a_mark_is_left(
            rules in prop::collection::vec((0u8..4, 28u8..=32, 0u16..4, 0u32..4, 0u8..5, any::<bool>()), 0..10),
            packets in prop::collection::vec((0u8..4, 1u16..4), 1..20),
            split in 0usize..10,
        ) {
            let rules: Vec<MarkRule> = rules
                .into_iter()
                .map(|(last, length, port, mark, more, ipv6)| {
                    let ports = if port == 0 { vec![] } else { vec![port..=port] };
                    let addr = if ipv6 { format!("2001:db8::{last}") } else { format!("192.0.2.{last}") };
                    let length = if ipv6 { length + 96 } else { length };
                    let mut one = rule(Some((&addr, length)), &ports, mark);
                    match more {
                        0 => one.interface = Some("eth1".into()),
                        1 => one.source_ports = vec![1..=1],
                        2 => one.destination = None,
                        3 => one.protocol = None,
                        _ => {}
                    }
                    one
                })
                .collect();
            let (left, right) = rules.split_at(split.min(rules.len()));
            let served = |_, mark| mark != 3;
            let whole = MarkTable::new(rules.clone(), served);
            let halves = [left, right].map(|half| MarkTable::new(half.to_vec(), served));
            let of_whole = entries([&whole, &MarkTable::default()]);
            let of_halves = entries([&halves[0], &halves[1]]);
            for (last, port) in packets {
                for addr in [format!("192.0.2.{last}:{port}"), format!("[2001:db8::{last}]:{port}")] {
                    let destination: SocketAddr = addr.parse().unwrap();
                    let source = SocketAddr::new(destination.ip(), 4000);
                    let query = MarkQuery { interface: "eth0", protocol: 6, source, destination };
                    if whole.mark(&query).is_some() {
                        prop_assert!(takes(&of_whole, 6, Role::Service, destination));
                    }
                    if halves.iter().any(|half| half.mark(&query).is_some()) {
                        prop_assert!(takes(&of_halves, 6, Role::Service, destination));
                    }
                }
            }
        }
    }
}
