//! The claim: packets of virtual services are taken from the host stack, before it can answer them.
//!
//! A packet socket only gets a copy of what comes in. Without more, the host would answer too: with a reset,
//! because nothing listens on the virtual address, or by routing the packet once again. A [`Claim`] is an
//! nftables table at the ingress hook of the devices that drops what the [`ClaimSet`] names:
//!
//! * IPv4 packets to a virtual service,
//! * IPv4 packets from a NAT real server, unless they go to one of the host's own addresses: answers to the
//!   host's own health checks stay the host's.
//!
//! * IPv4 packets with a [mark](crate::marks) that is served,
//! * ICMP errors about such packets: those that quote what a virtual service or a real server's client has sent.
//!
//! Of a datagram in fragments, only the first one has ports. The others are taken by address and protocol alone, and what
//! turns out not to be a service's must be given back.
//!
//! Frames with a VLAN tag are left to the host: they belong to the VLAN's interface, which is
//! a device of its own. Frames to another hardware address than the device's belong to others too, such as a
//! macvlan interface on top of it. Everything else (ARP, other ICMP, ssh, VRRP, …) is never looked at. IPv6
//! endpoints are kept in sets of their own, but no rule asks them: nothing forwards IPv6 yet, and what is
//! not forwarded must not be taken away.
//!
//! A packet socket bound to `ETH_P_ALL` sees frames before this hook drops them; one bound to a single
//! EtherType sits behind it and sees nothing.
//!
//! The table belongs to the process's socket. It is gone when the [`Claim`] is dropped, and also when the
//! process is killed: a claim without its forwarder can't stay behind. It needs `CAP_NET_ADMIN` over the
//! network namespace and no more; a container's or an unprivileged user namespace's is enough.

mod marks;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::nft::{Batch, Expression, Field, Nft};
use crate::view::{ClaimSet, Endpoint};
use crate::wire::ERRORS;

/// What is taken from the host, for as long as this value lives.
#[derive(Debug)]
pub struct Claim {
    nft: Nft,
    table: String,
    devices: BTreeSet<String>,
    set: ClaimSet,
}

impl Claim {
    /// Takes the packets of the set from the host, at the devices with these names, in the calling thread's
    /// network namespace.
    ///
    /// A device that does not exist is refused by kernels before 6.16; later ones claim at it from the moment
    /// it appears.
    ///
    /// # Errors
    ///
    /// What the kernel refused; then nothing is claimed.
    pub fn install<S: AsRef<str>>(devices: &[S], set: &ClaimSet) -> Result<Self, ClaimError> {
        let nft =
            Nft::open().map_err(|source| ClaimError::new("open", "nftables socket", source))?;
        // One process may have claims in several namespaces, and tests several in one.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut claim = Self {
            nft,
            table: format!(
                "lvs-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ),
            devices: devices
                .iter()
                .map(|device| device.as_ref().to_owned())
                .collect(),
            set: ClaimSet::new(),
        };
        let mut batch = Batch::default();
        claim.build(&mut batch);
        claim.change(&mut batch, set);
        claim.commit(batch)?;
        claim.set = set.clone();
        Ok(claim)
    }

    /// Claims another set: one transaction with the difference.
    ///
    /// # Errors
    ///
    /// What the kernel refused; then the old set stays claimed.
    pub fn replace(&mut self, set: &ClaimSet) -> Result<(), ClaimError> {
        let mut batch = Batch::default();
        self.change(&mut batch, set);
        self.commit(batch)?;
        self.set = set.clone();
        Ok(())
    }

    /// Claims at other devices: one transaction with the difference. Call it again, with the same names
    /// too, when a device has been removed and created anew.
    ///
    /// # Errors
    ///
    /// What the kernel refused; then the claim stays as it was.
    pub fn set_devices<S: AsRef<str>>(&mut self, devices: &[S]) -> Result<(), ClaimError> {
        let devices: BTreeSet<String> = devices
            .iter()
            .map(|device| device.as_ref().to_owned())
            .collect();
        let mut batch = Batch::default();
        // A device takes its chain along when it goes, so ask which chains there are.
        for device in self.devices.union(&devices) {
            let chain = ingress_chain(device);
            let exists = self
                .nft
                .has_chain(&self.table, &chain)
                .map_err(|source| ClaimError::new("find chain of", device, source))?;
            match (exists, devices.contains(device)) {
                (false, true) => add_device(&mut batch, &self.table, device),
                (true, false) => batch.delete_chain(&self.table, &chain),
                _ => {}
            }
        }
        self.commit(batch)?;
        self.devices = devices;
        Ok(())
    }

    /// What is claimed.
    pub fn set(&self) -> &ClaimSet {
        &self.set
    }

    /// What has been taken from the host so far.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn counters(&mut self) -> Result<ClaimCounters, ClaimError> {
        let rules = self
            .nft
            .counters(&self.table, CHAIN)
            .map_err(|source| ClaimError::new("list rules of", &self.table, source))?;
        let rule = |number: usize| rules.get(number).map_or(0, |(packets, _)| *packets);
        let marked = self
            .nft
            .counters(&self.table, MARK_CHAINS[0])
            .map_err(|source| ClaimError::new("list rules of", &self.table, source))?;
        let errors = self
            .nft
            .counters(&self.table, ERROR_CHAIN)
            .map_err(|source| ClaimError::new("list rules of", &self.table, source))?;
        Ok(ClaimCounters {
            to_services: rule(0) + rule(1) + rule(4),
            from_servers: rule(2) + rule(3) + rule(5),
            errors: errors.iter().map(|(packets, _)| packets).sum(),
            marked: marked.iter().map(|(packets, _)| packets).sum(),
        })
    }

    /// Sets, the common chain with its rules, and a chain at each device.
    fn build(&self, batch: &mut Batch) {
        batch.add_table(&self.table);
        for (set, fields) in SETS {
            batch.add_set(&self.table, set, fields);
        }
        for chain in MARK_CHAINS {
            batch.add_chain(&self.table, chain);
        }
        batch.add_chain(&self.table, CHAIN);
        for (address, port, set, tail) in RULES {
            let mut rule = TO_US.to_vec();
            rule.extend_from_slice(&FIRST);
            rule.push(Expression::Network {
                offset: *address,
                length: 4,
                register: 0,
            });
            rule.push(Expression::Protocol { register: 1 });
            if let Some(offset) = *port {
                rule.push(Expression::Transport {
                    offset,
                    length: 2,
                    register: 2,
                });
            }
            rule.push(Expression::Lookup { set, register: 0 });
            rule.extend_from_slice(tail);
            rule.extend_from_slice(&[Expression::Counter, Expression::Drop]);
            batch.add_rule(&self.table, CHAIN, &rule);
        }
        self.build_fragments(batch);
        self.build_errors(batch);
        for device in &self.devices {
            add_device(batch, &self.table, device);
        }
    }

    /// The rules for fragments without ports.
    fn build_fragments(&self, batch: &mut Batch) {
        for (address, set, tail) in LATER_RULES {
            let mut rule = TO_US.to_vec();
            rule.extend_from_slice(&LATER);
            rule.push(Expression::Network {
                offset: *address,
                length: 4,
                register: 0,
            });
            rule.push(Expression::Protocol { register: 1 });
            rule.push(Expression::Lookup { set, register: 0 });
            rule.extend_from_slice(tail);
            rule.extend_from_slice(&[Expression::Counter, Expression::Drop]);
            batch.add_rule(&self.table, CHAIN, &rule);
        }
    }

    /// The chain for ICMP errors, and the rule that leads there.
    fn build_errors(&self, batch: &mut Batch) {
        batch.add_set(&self.table, ERROR_SET, &[Field::IcmpKind]);
        batch.add_elements(
            &self.table,
            ERROR_SET,
            &ERRORS.map(|kind| vec![kind, 0, 0, 0]),
        );
        batch.add_chain(&self.table, ERROR_CHAIN);
        for (address, port, set, tail) in ERROR_RULES {
            let mut rule = vec![
                Expression::Network {
                    offset: *address,
                    length: 4,
                    register: 0,
                },
                Expression::Network {
                    offset: QUOTED + IP_PROTOCOL,
                    length: 1,
                    register: 1,
                },
            ];
            if let Some(offset) = *port {
                rule.push(Expression::Network {
                    offset,
                    length: 2,
                    register: 2,
                });
            }
            rule.push(Expression::Lookup { set, register: 0 });
            rule.extend_from_slice(tail);
            rule.extend_from_slice(&[Expression::Counter, Expression::Drop]);
            batch.add_rule(&self.table, ERROR_CHAIN, &rule);
        }
        let mut rule = TO_US.to_vec();
        rule.extend_from_slice(&WHOLE);
        rule.extend_from_slice(&IS_ERROR);
        rule.push(Expression::Jump(ERROR_CHAIN));
        batch.add_rule(&self.table, CHAIN, &rule);
    }

    /// The way from the present set to another.
    fn change(&self, batch: &mut Batch, set: &ClaimSet) {
        let sides = [
            (self.set.services(), set.services(), Role::Service),
            (self.set.servers(), set.servers(), Role::Server),
            (
                self.set.service_hosts(),
                set.service_hosts(),
                Role::ServiceHost,
            ),
            (
                self.set.server_hosts(),
                set.server_hosts(),
                Role::ServerHost,
            ),
        ];
        let tables = |set: &ClaimSet| set.mark_tables().map(Arc::clone);
        for ((chain, old), new) in MARK_CHAINS.iter().zip(tables(&self.set)).zip(tables(set)) {
            if old != new {
                batch.flush_chain(&self.table, chain);
                marks::add_rules(batch, &self.table, chain, &new);
            }
        }
        for (old, new, role) in sides {
            let (old, new): (BTreeSet<Endpoint>, BTreeSet<Endpoint>) =
                (old.into_iter().collect(), new.into_iter().collect());
            for (name, _) in SETS {
                let keys = |endpoints: &mut dyn Iterator<Item = &Endpoint>| -> Vec<Vec<u8>> {
                    endpoints
                        .filter(|endpoint| set_of(endpoint, role) == *name)
                        .map(key)
                        .collect()
                };
                batch.delete_elements(&self.table, name, &keys(&mut old.difference(&new)));
                batch.add_elements(&self.table, name, &keys(&mut new.difference(&old)));
            }
        }
    }

    fn commit(&mut self, batch: Batch) -> Result<(), ClaimError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.nft
            .commit(batch)
            .map_err(|(operation, source)| ClaimError::new(operation, &self.table, source))
    }
}

impl Drop for Claim {
    /// Gives everything back to the host at once. Closing the socket alone would do it a moment later.
    fn drop(&mut self) {
        let mut batch = Batch::default();
        batch.delete_table(&self.table);
        let _ = self.nft.commit(batch);
    }
}

/// Packets that the claim kept from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClaimCounters {
    /// To virtual services.
    pub to_services: u64,
    /// From NAT real servers.
    pub from_servers: u64,
    /// ICMP errors about either.
    pub errors: u64,
    /// What rules of marks have matched since they were changed last, exemptions too.
    pub marked: u64,
}

/// The kernel refused a claim.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}")]
pub struct ClaimError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// What it was about.
    pub object: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl ClaimError {
    fn new(operation: &'static str, object: &str, source: io::Error) -> Self {
        Self {
            operation,
            object: object.to_owned(),
            source,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Service,
    Server,
    ServiceHost,
    ServerHost,
}

fn add_device(batch: &mut Batch, table: &str, device: &str) {
    let chain = ingress_chain(device);
    batch.add_ingress_chain(table, &chain, device);
    for chain_of_marks in MARK_CHAINS {
        batch.add_rule(table, &chain, &[Expression::Jump(chain_of_marks)]);
    }
    batch.add_rule(table, &chain, &[Expression::Jump(CHAIN)]);
}

fn ingress_chain(device: &str) -> String {
    format!("in-{device}")
}

/// The set that an endpoint belongs to.
fn set_of(endpoint: &Endpoint, role: Role) -> &'static str {
    match (role, endpoint.addr, endpoint.port) {
        (Role::ServiceHost, IpAddr::V4(_), _) => "service-hosts",
        (Role::ServerHost, IpAddr::V4(_), _) => "server-hosts",
        (Role::ServiceHost, IpAddr::V6(_), _) => "service-hosts6",
        (Role::ServerHost, IpAddr::V6(_), _) => "server-hosts6",
        (Role::Service, IpAddr::V4(_), 0) => "services-any",
        (Role::Service, IpAddr::V4(_), _) => "services",
        (Role::Service, IpAddr::V6(_), 0) => "services6-any",
        (Role::Service, IpAddr::V6(_), _) => "services6",
        (Role::Server, IpAddr::V4(_), 0) => "servers-any",
        (Role::Server, IpAddr::V4(_), _) => "servers",
        (Role::Server, IpAddr::V6(_), 0) => "servers6-any",
        (Role::Server, IpAddr::V6(_), _) => "servers6",
    }
}

/// Address, protocol and, except for every port of an address, port; each filled up to four bytes.
fn key(endpoint: &Endpoint) -> Vec<u8> {
    let mut key = match endpoint.addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    key.extend_from_slice(&[endpoint.protocol, 0, 0, 0]);
    if endpoint.port != 0 {
        key.extend_from_slice(&endpoint.port.to_be_bytes());
        key.extend_from_slice(&[0, 0]);
    }
    key
}

/// The marks' rules, and beside them those that a change is about to replace.
const MARK_CHAINS: [&str; 2] = ["marks", "marks-before"];
const CHAIN: &str = "claim";
const ERROR_CHAIN: &str = "errors";
const ERROR_SET: &str = "icmp-errors";

const SETS: &[(&str, &[Field])] = &[
    ("services", &[Field::Ipv4, Field::Protocol, Field::Port]),
    ("services-any", &[Field::Ipv4, Field::Protocol]),
    ("servers", &[Field::Ipv4, Field::Protocol, Field::Port]),
    ("servers-any", &[Field::Ipv4, Field::Protocol]),
    ("service-hosts", &[Field::Ipv4, Field::Protocol]),
    ("server-hosts", &[Field::Ipv4, Field::Protocol]),
    ("service-hosts6", &[Field::Ipv6, Field::Protocol]),
    ("server-hosts6", &[Field::Ipv6, Field::Protocol]),
    ("services6", &[Field::Ipv6, Field::Protocol, Field::Port]),
    ("services6-any", &[Field::Ipv6, Field::Protocol]),
    ("servers6", &[Field::Ipv6, Field::Protocol, Field::Port]),
    ("servers6-any", &[Field::Ipv6, Field::Protocol]),
];

/// To this device's hardware address, untagged IPv4. The engine leaves alone exactly what this excludes.
const TO_US: [Expression<'static>; 4] = [
    Expression::PacketKind { register: 0 },
    Expression::Equal {
        register: 0,
        value: &[TO_HOST],
    },
    Expression::Link {
        offset: ETHERTYPE,
        length: 2,
        register: 0,
    },
    Expression::Equal {
        register: 0,
        value: &[0x08, 0x00],
    },
];

const FRAGMENT_WORD: Expression<'static> = Expression::Network {
    offset: IP_FRAGMENT,
    length: 2,
    register: 0,
};
const OFFSET: Expression<'static> = Expression::Mask {
    register: 0,
    mask: &[0x1f, 0xff],
};

/// No fragment: offset and "more fragments" are zero.
const WHOLE: [Expression<'static>; 3] = [
    FRAGMENT_WORD,
    Expression::Mask {
        register: 0,
        mask: &[0x3f, 0xff],
    },
    Expression::Equal {
        register: 0,
        value: &[0, 0],
    },
];

/// No fragment, or the first one, which has the ports.
const FIRST: [Expression<'static>; 3] = [
    FRAGMENT_WORD,
    OFFSET,
    Expression::Equal {
        register: 0,
        value: &[0, 0],
    },
];

/// A fragment without ports.
const LATER: [Expression<'static>; 3] = [
    FRAGMENT_WORD,
    OFFSET,
    Expression::Differs {
        register: 0,
        value: &[0, 0],
    },
];

/// Offset of the address in the IP header, set of addresses and protocols, further conditions.
type LaterRule = (u32, &'static str, &'static [Expression<'static>]);

const LATER_RULES: &[LaterRule] = &[
    (IP_DESTINATION, "service-hosts", &[]),
    (IP_SOURCE, "server-hosts", &NOT_TO_LOCAL),
];

/// Offset of the address in the IP header and of the port in the transport header, set, further conditions.
type RuleShape = (
    u32,
    Option<u32>,
    &'static str,
    &'static [Expression<'static>],
);

const RULES: &[RuleShape] = &[
    (IP_DESTINATION, Some(PORT_DESTINATION), "services", &[]),
    (IP_DESTINATION, None, "services-any", &[]),
    (IP_SOURCE, Some(PORT_SOURCE), "servers", &NOT_TO_LOCAL),
    (IP_SOURCE, None, "servers-any", &NOT_TO_LOCAL),
];

/// ICMP by its number, no options in the IP header, an error, about a packet without options that is no later fragment.
const IS_ERROR: [Expression<'static>; 11] = [
    Expression::Protocol { register: 0 },
    Expression::Equal {
        register: 0,
        value: &[1],
    },
    Expression::Network {
        offset: 0,
        length: 1,
        register: 0,
    },
    Expression::Equal {
        register: 0,
        value: &[0x45],
    },
    Expression::Network {
        offset: ICMP_KIND,
        length: 1,
        register: 0,
    },
    Expression::Lookup {
        set: ERROR_SET,
        register: 0,
    },
    Expression::Network {
        offset: QUOTED,
        length: 1,
        register: 0,
    },
    Expression::Equal {
        register: 0,
        value: &[0x45],
    },
    Expression::Network {
        offset: QUOTED + IP_FRAGMENT,
        length: 2,
        register: 0,
    },
    Expression::Mask {
        register: 0,
        mask: &[0x1f, 0xff],
    },
    Expression::Equal {
        register: 0,
        value: &[0, 0],
    },
];

/// As [`RULES`], with all offsets in the IP packet: the error's receiver and the quoted sender's port, or the quoted
/// receiver.
const ERROR_RULES: &[RuleShape] = &[
    (
        IP_DESTINATION,
        Some(QUOTED_PORTS + PORT_SOURCE),
        "services",
        &[],
    ),
    (IP_DESTINATION, None, "services-any", &[]),
    (
        QUOTED + IP_DESTINATION,
        Some(QUOTED_PORTS + PORT_DESTINATION),
        "servers",
        &NOT_TO_LOCAL,
    ),
    (QUOTED + IP_DESTINATION, None, "servers-any", &NOT_TO_LOCAL),
];

const NOT_TO_LOCAL: [Expression<'static>; 2] = [
    Expression::DestinationKind { register: 0 },
    Expression::Differs {
        register: 0,
        value: &LOCAL.to_ne_bytes(),
    },
];

const ETHERTYPE: u32 = 12;
const IP_FRAGMENT: u32 = 6;
const IP_PROTOCOL: u32 = 9;
const IP_SOURCE: u32 = 12;
const IP_DESTINATION: u32 = 16;
/// The ICMP message and what it quotes, behind an IP header without options.
const ICMP_KIND: u32 = 20;
const QUOTED: u32 = 28;
const QUOTED_PORTS: u32 = QUOTED + 20;
const PORT_SOURCE: u32 = 0;
const PORT_DESTINATION: u32 = 2;
/// PACKET_HOST
const TO_HOST: u8 = 0;
/// RTN_LOCAL
const LOCAL: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(addr: &str, port: u16) -> Endpoint {
        Endpoint {
            protocol: 6,
            addr: addr.parse().unwrap(),
            port,
        }
    }

    #[test]
    fn keys_fill_their_sets() {
        for (addr, port, role, name, length) in [
            ("10.0.0.1", 80, Role::Service, "services", 12),
            ("10.0.0.1", 0, Role::Service, "services-any", 8),
            ("10.0.0.1", 80, Role::Server, "servers", 12),
            ("10.0.0.1", 0, Role::Server, "servers-any", 8),
            ("2001:db8::1", 80, Role::Service, "services6", 24),
            ("2001:db8::1", 0, Role::Service, "services6-any", 20),
            ("2001:db8::1", 80, Role::Server, "servers6", 24),
            ("2001:db8::1", 0, Role::Server, "servers6-any", 20),
        ] {
            let endpoint = endpoint(addr, port);
            assert_eq!(set_of(&endpoint, role), name);
            assert_eq!(key(&endpoint).len(), length, "{name}");
            assert!(SETS.iter().any(|(set, _)| *set == name));
        }
        assert_eq!(
            key(&endpoint("10.0.0.1", 80)),
            [10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]
        );
    }
}
