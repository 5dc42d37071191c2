//! The claim of packets with marks: the rules of a [`MarkTable`] as rules of nftables, in their order.
//!
//! What a rule with a served mark matches is dropped, what another one matches is not looked at any further. Errors about
//! such packets and parts of them without ports follow, by what they tell.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{FIRST, IP_DESTINATION, IP_PROTOCOL, IP_SOURCE, IS_ERROR, LATER, Ports, TO_US};
use super::{IP6_DESTINATION, IP6_NEXT_HEADER, IP6_SOURCE, QUOTED6, QUOTED6_TRANSPORT};
use super::{PORT_DESTINATION, PORT_SOURCE, QUOTED, QUOTED_PORTS};
use crate::marks::{MarkRule, MarkTable};
use crate::nft::{Batch, Expression};
use crate::route::Prefix;
use crate::wire::ipv6;

/// The chains of one table: IPv4's has everything, those of IPv6 are for whole packets, later fragments, errors, and
/// errors about fragments, and are asked where these have been told apart.
pub(super) const CHAINS: usize = 5;

/// Puts the rules of a table into its chains, which are empty.
pub(super) fn add_rules(
    batch: &mut Batch,
    table: &str,
    chains: &[&str; CHAINS],
    marks: &MarkTable,
) {
    for shape in &SHAPES {
        for (number, rule) in marks.rules().iter().enumerate() {
            let served = marks.is_served(number, shape.is_ipv6());
            // Without ports a rule says too little to exempt anything.
            if rule.is_of(shape.is_ipv6()) && (served || shape.ports.is_some()) {
                add_rule(batch, (table, chains[shape.chain]), rule, served, shape);
            }
        }
    }
}

/// Where addresses and ports stand, by their offsets from the IP header.
struct Shape {
    /// Place among the chains.
    chain: usize,
    /// What has not been asked before.
    first: &'static [&'static [Expression<'static>]],
    protocol: Expression<'static>,
    source: u32,
    destination: u32,
    /// `None` if the packet does not tell.
    ports: Option<Ports>,
}

impl Shape {
    const fn is_ipv6(&self) -> bool {
        self.chain > 0
    }

    /// Where the service's port stands, and the client's: an error quotes what the service has sent.
    fn port(&self, of_service: bool) -> Option<Expression<'static>> {
        let (is_quoted, at) = match self.ports? {
            Ports::Transport => (false, 0),
            Ports::Quoted(at) => (true, at),
        };
        let side = match of_service == is_quoted {
            true => PORT_SOURCE,
            false => PORT_DESTINATION,
        };
        Some(match is_quoted {
            true => Expression::Network {
                offset: at + side,
                length: 2,
                register: 0,
            },
            false => Expression::Transport {
                offset: side,
                length: 2,
                register: 0,
            },
        })
    }
}

static SHAPES: [Shape; 7] = [
    Shape {
        chain: 0,
        first: &[&TO_US, &FIRST],
        protocol: byte(IP_PROTOCOL),
        source: IP_SOURCE,
        destination: IP_DESTINATION,
        ports: Some(Ports::Transport),
    },
    Shape {
        chain: 0,
        first: &[&TO_US, &LATER],
        protocol: byte(IP_PROTOCOL),
        source: IP_SOURCE,
        destination: IP_DESTINATION,
        ports: None,
    },
    Shape {
        chain: 0,
        first: &[&TO_US, &IS_ERROR],
        protocol: byte(QUOTED + IP_PROTOCOL),
        source: QUOTED + IP_DESTINATION,
        destination: QUOTED + IP_SOURCE,
        ports: Some(Ports::Quoted(QUOTED_PORTS)),
    },
    Shape {
        chain: 1,
        first: &[],
        protocol: Expression::Protocol { register: 0 },
        source: IP6_SOURCE,
        destination: IP6_DESTINATION,
        ports: Some(Ports::Transport),
    },
    Shape {
        chain: 2,
        first: &[],
        protocol: Expression::Protocol { register: 0 },
        source: IP6_SOURCE,
        destination: IP6_DESTINATION,
        ports: None,
    },
    Shape {
        chain: 3,
        first: &[],
        protocol: byte(QUOTED6 + IP6_NEXT_HEADER),
        source: QUOTED6 + IP6_DESTINATION,
        destination: QUOTED6 + IP6_SOURCE,
        ports: Some(Ports::Quoted(QUOTED6_TRANSPORT)),
    },
    Shape {
        chain: 4,
        first: &[],
        protocol: byte(QUOTED6_TRANSPORT),
        source: QUOTED6 + IP6_DESTINATION,
        destination: QUOTED6 + IP6_SOURCE,
        ports: Some(Ports::Quoted(
            QUOTED6_TRANSPORT + ipv6::FRAGMENT_HEADER_LEN as u32,
        )),
    },
];

const fn byte(offset: u32) -> Expression<'static> {
    Expression::Network {
        offset,
        length: 1,
        register: 0,
    }
}

fn add_rule(
    batch: &mut Batch,
    (table, chain): (&str, &str),
    rule: &MarkRule,
    served: bool,
    shape: &Shape,
) {
    let any = [0..=u16::MAX];
    let ranges = |ranges: &[RangeInclusive<u16>]| {
        if ranges.is_empty() || shape.ports.is_none() {
            any.to_vec()
        } else {
            ranges.to_vec()
        }
    };
    let name = rule.interface.as_deref().map(padded);
    let prefixes = [rule.source, rule.destination]
        .map(|prefix| prefix.filter(|prefix| prefix.length() > 0).map(bytes));
    for protocol in rule.protocols() {
        let protocol = [protocol];
        for client in &ranges(&rule.source_ports) {
            for service in &ranges(&rule.destination_ports) {
                let bounds = [client, service].map(bytes_of_range);
                let mut all: Vec<Expression<'_>> = shape.first.concat();
                all.extend([
                    shape.protocol,
                    Expression::Equal {
                        register: 0,
                        value: &protocol,
                    },
                ]);
                add_prefixes(&mut all, shape, &prefixes);
                for (of_service, bounds) in [false, true].into_iter().zip(&bounds) {
                    add_ports(&mut all, shape.port(of_service), bounds);
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

/// Address and mask.
type Bytes = (Vec<u8>, Vec<u8>);

fn add_prefixes<'a>(
    all: &mut Vec<Expression<'a>>,
    shape: &Shape,
    [source, destination]: &'a [Option<Bytes>; 2],
) {
    for (prefix, offset) in [(source, shape.source), (destination, shape.destination)] {
        if let Some((addr, mask)) = prefix {
            all.extend([
                Expression::Network {
                    offset,
                    length: addr.len() as u32,
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
}

/// Bounds of a port; all ports need no condition.
fn add_ports<'a>(
    all: &mut Vec<Expression<'a>>,
    port: Option<Expression<'a>>,
    [first, last]: &'a [[u8; 2]; 2],
) {
    let Some(port) = port.filter(|_| *first != [0, 0] || *last != [0xff, 0xff]) else {
        return;
    };
    all.extend([
        port,
        Expression::AtLeast {
            register: 0,
            value: first,
        },
        Expression::AtMost {
            register: 0,
            value: last,
        },
    ]);
}

fn bytes_of_range(range: &RangeInclusive<u16>) -> [[u8; 2]; 2] {
    [range.start().to_be_bytes(), range.end().to_be_bytes()]
}

fn bytes(prefix: Prefix) -> Bytes {
    let addr = match prefix.addr() {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    let bits = usize::from(prefix.length());
    let mask = (0..addr.len()).map(|at| {
        let left = bits.saturating_sub(at * 8).min(8);
        !(0xff_u16 >> left) as u8
    });
    let mask = mask.collect();
    (addr, mask)
}

/// An interface's name as the kernel compares it.
fn padded(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cover_as_many_bits() {
        let of = |addr: &str, length| bytes(Prefix::new(addr.parse().unwrap(), length)).1;
        assert_eq!(of("192.0.2.0", 24), [255, 255, 255, 0]);
        assert_eq!(of("192.0.2.0", 29), [255, 255, 255, 0xf8]);
        assert_eq!(of("192.0.2.1", 32), [255; 4]);
        assert_eq!(of("128.0.0.0", 1), [128, 0, 0, 0]);
        let mask = of("2001:db8::", 45);
        assert_eq!(
            (mask[..5].to_vec(), mask[5], mask[6]),
            (vec![255; 5], 0xf8, 0)
        );
        assert_eq!(of("2001:db8::1", 128), [255; 16]);
    }
}
