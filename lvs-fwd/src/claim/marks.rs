//! The claim of packets with marks: the rules of a [`MarkTable`] as rules of nftables, in their order.
//!
//! What a rule with a served mark matches is dropped, what another one matches is not looked at any further. Errors about
//! such packets and parts of them without ports follow, by what they tell.

use std::ops::RangeInclusive;

use super::{ERROR_SET, FIRST, IP_DESTINATION, IP_PROTOCOL, IP_SOURCE, IS_ERROR, LATER, TO_US};
use super::{PORT_DESTINATION, PORT_SOURCE, QUOTED, QUOTED_PORTS};
use crate::marks::{MarkRule, MarkTable};
use crate::nft::{Batch, Expression};
use crate::route::Prefix;

/// Puts the rules of a table into a chain that is empty.
pub(super) fn add_rules(batch: &mut Batch, table: &str, chain: &str, marks: &MarkTable) {
    debug_assert_eq!(ERROR_SET, "icmp-errors");
    for place in [Place::Whole, Place::Later, Place::Quoted] {
        for (number, rule) in marks.rules().iter().enumerate() {
            let served = marks.is_served(number, false);
            // Without ports a rule says too little to exempt anything.
            if rule.is_of(false) && (served || place != Place::Later) {
                add_rule(batch, (table, chain), rule, served, place);
            }
        }
    }
}

/// Where addresses and ports stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the packet itself.
    Whole,
    /// In the packet itself, but for the ports.
    Later,
    /// In the packet that an ICMP error quotes: the service is its sender.
    Quoted,
}

fn add_rule(
    batch: &mut Batch,
    (table, chain): (&str, &str),
    rule: &MarkRule,
    served: bool,
    place: Place,
) {
    let any = [0..=u16::MAX];
    let ranges = |ranges: &[RangeInclusive<u16>]| {
        if ranges.is_empty() || place == Place::Later {
            any.to_vec()
        } else {
            ranges.to_vec()
        }
    };
    for protocol in rule.protocols() {
        for source in &ranges(&rule.source_ports) {
            for destination in &ranges(&rule.destination_ports) {
                let bounds = [
                    source.start(),
                    source.end(),
                    destination.start(),
                    destination.end(),
                ]
                .map(|port| port.to_be_bytes());
                let name = rule.interface.as_deref().map(padded);
                let prefixes = [rule.source, rule.destination]
                    .map(|prefix| prefix.filter(|prefix| prefix.length() > 0).map(bytes));
                let protocol = [protocol];
                let mut all = conditions(place, &protocol, &prefixes);
                if place != Place::Later {
                    add_ports(&mut all, place, &bounds);
                }
                if let Some(name) = &name {
                    all.push(Expression::InterfaceName { register: 0 });
                    all.push(Expression::Equal {
                        register: 0,
                        value: name,
                    });
                }
                all.push(Expression::Counter);
                all.push(if served {
                    Expression::Drop
                } else {
                    Expression::Return
                });
                batch.add_rule(table, chain, &all);
            }
        }
    }
}

/// All but ports and interface.
fn conditions<'a>(
    place: Place,
    protocol: &'a [u8; 1],
    [source, destination]: &'a [Option<([u8; 4], [u8; 4])>; 2],
) -> Vec<Expression<'a>> {
    let mut all: Vec<Expression<'a>> = TO_US.to_vec();
    let (at_protocol, at_source, at_destination) = match place {
        Place::Whole | Place::Later => (IP_PROTOCOL, IP_SOURCE, IP_DESTINATION),
        Place::Quoted => (
            QUOTED + IP_PROTOCOL,
            QUOTED + IP_DESTINATION,
            QUOTED + IP_SOURCE,
        ),
    };
    match place {
        Place::Whole => all.extend_from_slice(&FIRST),
        Place::Later => all.extend_from_slice(&LATER),
        Place::Quoted => all.extend_from_slice(&IS_ERROR),
    }
    all.extend([
        Expression::Network {
            offset: at_protocol,
            length: 1,
            register: 0,
        },
        Expression::Equal {
            register: 0,
            value: protocol,
        },
    ]);
    for (prefix, offset) in [(source, at_source), (destination, at_destination)] {
        if let Some((addr, mask)) = prefix {
            all.extend([
                Expression::Network {
                    offset,
                    length: 4,
                    register: 0,
                },
                Expression::Mask { register: 0, mask },
                Expression::Equal {
                    register: 0,
                    value: addr,
                },
            ]);
        }
    }
    all
}

/// Bounds of the sender's and of the receiver's port; all ports need no condition.
fn add_ports<'a>(all: &mut Vec<Expression<'a>>, place: Place, bounds: &'a [[u8; 2]; 4]) {
    let sides = match place {
        Place::Quoted => [PORT_DESTINATION, PORT_SOURCE],
        _ => [PORT_SOURCE, PORT_DESTINATION],
    };
    for (side, bounds) in sides.into_iter().zip(bounds.chunks(2)) {
        if bounds[0] == [0, 0] && bounds[1] == [0xff, 0xff] {
            continue;
        }
        all.push(match place {
            Place::Quoted => Expression::Network {
                offset: QUOTED_PORTS + side,
                length: 2,
                register: 0,
            },
            _ => Expression::Transport {
                offset: side,
                length: 2,
                register: 0,
            },
        });
        all.push(Expression::AtLeast {
            register: 0,
            value: &bounds[0],
        });
        all.push(Expression::AtMost {
            register: 0,
            value: &bounds[1],
        });
    }
}

fn bytes(prefix: Prefix) -> ([u8; 4], [u8; 4]) {
    let addr = match prefix.addr() {
        std::net::IpAddr::V4(addr) => addr.octets(),
        std::net::IpAddr::V6(_) => [0; 4],
    };
    let mask = u32::MAX << (32 - u32::from(prefix.length().clamp(1, 32)));
    (addr, mask.to_be_bytes())
}

/// An interface's name as the kernel compares it.
fn padded(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    padded
}
