//! The claim: packets of virtual services are taken from the host stack, before it can answer them.
//!
//! A packet socket only gets a copy of what comes in. Without more, the host would answer too: with a reset,
//! because nothing listens on the virtual address, or by routing the packet once again. A [`Claim`] is an
//! nftables table at the ingress hook of the devices that drops what the [`ClaimSet`] names, IPv4 and IPv6:
//!
//! * packets to a virtual service,
//! * packets from a NAT real server, unless they go to one of the host's own addresses: answers to the host's own
//!   health checks stay the host's,
//! * packets from a FULLNAT real server to one of the local addresses, at the ports that FULLNAT uses,
//! * packets with a [mark](crate::marks) that is served,
//! * ICMP errors about such packets: those that quote what a virtual service or a real server's client has sent.
//!
//! Of a datagram in fragments, only the first one has ports. The others are taken by address and protocol alone, and what
//! turns out not to be a service's must be given back.
//!
//! Frames with a VLAN tag are left to the host: they belong to the VLAN's interface, which is
//! a device of its own. Frames to another hardware address than the device's belong to others too, such as a
//! macvlan interface on top of it. IPv6 packets whose routing header has segments left go to somebody else in the end.
//! Everything else (ARP, neighbour discovery and other ICMP, ssh, VRRP, …) is never looked at.
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
use crate::view::{ClaimSet, Endpoint, LOCAL_PORTS};
use crate::wire::{ERRORS, INFORMATIONAL, ipv6, protocol};

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
        let mut sum = ClaimCounters::default();
        for family in &FAMILIES {
            let rules = self.packets(family.chain)?;
            let parts = self.packets(family.parts)?;
            let of = |rules: &[u64], from: usize, to: usize| rules.iter().skip(from).take(to).sum();
            let (services, servers): (u64, u64) = (of(&rules, 0, 2), of(&rules, 2, 4));
            let (service_parts, server_parts): (u64, u64) = (of(&parts, 0, 1), of(&parts, 1, 2));
            sum.to_services += services + service_parts;
            sum.from_servers += servers + server_parts;
            for shape in family.errors {
                sum.errors += self.packets(shape.chain)?.iter().sum::<u64>();
            }
        }
        for chain in MARK_CHAINS[0] {
            sum.marked += self.packets(chain)?.iter().sum::<u64>();
        }
        Ok(sum)
    }

    fn packets(&mut self, chain: &str) -> Result<Vec<u64>, ClaimError> {
        let rules = self
            .nft
            .counters(&self.table, chain)
            .map_err(|source| ClaimError::new("list rules of", &self.table, source))?;
        Ok(rules.into_iter().map(|(packets, _)| packets).collect())
    }

    /// Sets, the common chains with their rules, and a chain at each device.
    fn build(&self, batch: &mut Batch) {
        batch.add_table(&self.table);
        for (set, fields) in SETS {
            batch.add_set(&self.table, set, fields);
        }
        for chain in MARK_CHAINS.as_flattened() {
            batch.add_chain(&self.table, chain);
        }
        batch.add_set(&self.table, ERROR_SET, &[Field::IcmpKind]);
        batch.add_elements(
            &self.table,
            ERROR_SET,
            &ERRORS.map(|kind| vec![kind, 0, 0, 0]),
        );
        batch.add_set(&self.table, EXTENSION_SET, &[Field::NextHeader]);
        batch.add_elements(
            &self.table,
            EXTENSION_SET,
            &EXTENSIONS.map(|kind| vec![kind, 0, 0, 0]),
        );
        batch.add_chain(&self.table, EXTENSION_CHAIN);
        for family in &FAMILIES {
            for chain in [family.chain, family.parts] {
                batch.add_chain(&self.table, chain);
            }
            for shape in family.errors {
                batch.add_chain(&self.table, shape.chain);
            }
        }
        for family in &FAMILIES {
            self.build_family(batch, family);
        }
        for rule in EXTENSION_RULES {
            batch.add_rule(&self.table, EXTENSION_CHAIN, rule);
        }
        for device in &self.devices {
            add_device(batch, &self.table, device);
        }
    }

    /// The rules of one family. What is asked of every packet comes first, and the services before the servers.
    fn build_family(&self, batch: &mut Batch, family: &Family) {
        for rule in family.first {
            batch.add_rule(&self.table, family.chain, rule);
        }
        self.jump_to_marks(batch, family.chain, family.marks[0]);
        let whole = Key {
            destination: family.destination,
            source: family.source,
            protocol: Expression::Protocol {
                register: family.words,
            },
            ports: Some(Ports::Transport),
        };
        self.build_lookups(batch, family, family.chain, &whole);
        self.build_local_lookups(batch, family, family.chain, &whole);
        let mut rule = family.is_error.to_vec();
        rule.push(Expression::Goto(family.errors[0].chain));
        batch.add_rule(&self.table, family.chain, &rule);
        let part = Key {
            ports: None,
            ..whole
        };
        self.build_lookups(batch, family, family.parts, &part);
        self.build_local_lookups(batch, family, family.parts, &part);
        self.jump_to_marks(batch, family.parts, family.marks[1]);
        // Who came here on the way through another chain is not to go on there.
        batch.add_rule(&self.table, family.parts, &[Expression::Accept]);
        for (shape, marks) in family.errors.iter().zip(&family.marks[2..]) {
            for rule in shape.first {
                batch.add_rule(&self.table, shape.chain, rule);
            }
            self.jump_to_marks(batch, shape.chain, *marks);
            // The error goes to who sent what it quotes: a service's answer, or a client's request.
            let key = Key {
                destination: family.destination,
                source: shape.quoted + family.destination,
                protocol: Expression::Network {
                    offset: shape.protocol,
                    length: 1,
                    register: family.words,
                },
                ports: Some(Ports::Quoted(shape.ports)),
            };
            self.build_lookups(batch, family, shape.chain, &key);
            self.build_local_lookups(batch, family, shape.chain, &key);
        }
    }

    /// A rule that asks the chains of marks with this place among theirs.
    fn jump_to_marks(&self, batch: &mut Batch, chain: &str, marks: Option<usize>) {
        for chains in marks
            .map(|place| MARK_CHAINS.map(|chains| chains[place]))
            .iter()
            .flatten()
        {
            batch.add_rule(&self.table, chain, &[Expression::Jump(chains)]);
        }
    }

    /// Rules that ask the sets of services, then those of servers.
    fn build_lookups(&self, batch: &mut Batch, family: &Family, chain: &str, key: &Key) {
        let [
            services,
            any_service,
            servers,
            any_server,
            service_hosts,
            server_hosts,
            ..,
        ] = family.sets;
        let lookups: &[(u32, usize, &str)] = match key.ports {
            Some(_) => &[
                (key.destination, 0, services),
                (key.destination, 2, any_service),
                (key.source, 1, servers),
                (key.source, 2, any_server),
            ],
            None => &[
                (key.destination, 2, service_hosts),
                (key.source, 2, server_hosts),
            ],
        };
        for (number, (address, side, set)) in lookups.iter().enumerate() {
            let mut rule = vec![
                Expression::Network {
                    offset: *address,
                    length: family.words * 4,
                    register: 0,
                },
                key.protocol,
            ];
            let register = family.words + 1;
            rule.extend(match (*side, &key.ports) {
                (2, _) | (_, None) => None,
                (side, Some(Ports::Transport)) => Some(Expression::Transport {
                    offset: [PORT_DESTINATION, PORT_SOURCE][side],
                    length: 2,
                    register,
                }),
                // A service is the quoted sender, a server the quoted receiver.
                (side, Some(Ports::Quoted(at))) => Some(Expression::Network {
                    offset: at + [PORT_SOURCE, PORT_DESTINATION][side],
                    length: 2,
                    register,
                }),
            });
            rule.push(Expression::Lookup { set, register: 0 });
            if number >= lookups.len() / 2 {
                rule.extend_from_slice(&NOT_TO_LOCAL);
            }
            rule.extend_from_slice(&[Expression::Counter, Expression::Drop]);
            batch.add_rule(&self.table, chain, &rule);
        }
    }

    /// Rules for answers to local addresses: who they are from, whom they go to, and at which port.
    fn build_local_lookups(&self, batch: &mut Batch, family: &Family, chain: &str, key: &Key) {
        let [.., locals, servers, any_server, server_hosts] = family.sets;
        let whole = [(servers, true), (any_server, false)];
        let part = [(server_hosts, false)];
        let lookups: &[(&str, bool)] = match key.ports {
            Some(_) => &whole,
            None => &part,
        };
        let address = |offset| Expression::Network {
            offset,
            length: family.words * 4,
            register: 0,
        };
        let port = |side: usize, register| match key.ports {
            Some(Ports::Transport) => Some(Expression::Transport {
                offset: [PORT_DESTINATION, PORT_SOURCE][side],
                length: 2,
                register,
            }),
            Some(Ports::Quoted(at)) => Some(Expression::Network {
                offset: at + [PORT_SOURCE, PORT_DESTINATION][side],
                length: 2,
                register,
            }),
            None => None,
        };
        for (set, has_port) in lookups {
            let mut rule = vec![
                address(key.destination),
                Expression::Lookup {
                    set: locals,
                    register: 0,
                },
            ];
            if let Some(port) = port(0, 0) {
                rule.extend_from_slice(&[port, LOCAL_PORT]);
            }
            rule.extend_from_slice(&[address(key.source), key.protocol]);
            rule.extend(port(1, family.words + 1).filter(|_| *has_port));
            rule.push(Expression::Lookup { set, register: 0 });
            rule.extend_from_slice(&[Expression::Counter, Expression::Drop]);
            batch.add_rule(&self.table, chain, &rule);
        }
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
            (locals(&self.set), locals(set), Role::Local),
            (
                self.set.local_servers(),
                set.local_servers(),
                Role::LocalServer,
            ),
            (
                self.set.local_server_hosts(),
                set.local_server_hosts(),
                Role::LocalServerHost,
            ),
        ];
        let tables = |set: &ClaimSet| set.mark_tables().map(Arc::clone);
        for ((chains, old), new) in MARK_CHAINS.iter().zip(tables(&self.set)).zip(tables(set)) {
            if old != new {
                for chain in chains {
                    batch.flush_chain(&self.table, chain);
                }
                marks::add_rules(batch, &self.table, chains, &new);
            }
        }
        for (old, new, role) in sides {
            let (old, new): (BTreeSet<Endpoint>, BTreeSet<Endpoint>) =
                (old.into_iter().collect(), new.into_iter().collect());
            for (name, _) in SETS {
                let keys = |endpoints: &mut dyn Iterator<Item = &Endpoint>| -> Vec<Vec<u8>> {
                    endpoints
                        .filter(|endpoint| set_of(endpoint, role) == *name)
                        .map(|endpoint| key(endpoint, role))
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
    /// From NAT and FULLNAT real servers.
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
    Local,
    LocalServer,
    LocalServerHost,
}

fn add_device(batch: &mut Batch, table: &str, device: &str) {
    let chain = ingress_chain(device);
    batch.add_ingress_chain(table, &chain, device);
    batch.add_rule(table, &chain, &NOT_TO_US);
    for [chain_of_marks, ..] in MARK_CHAINS {
        batch.add_rule(table, &chain, &[Expression::Jump(chain_of_marks)]);
    }
    for family in &FAMILIES {
        batch.add_rule(table, &chain, &family.is_this);
    }
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
        (Role::Local, IpAddr::V4(_), _) => "locals",
        (Role::Local, IpAddr::V6(_), _) => "locals6",
        (Role::LocalServerHost, IpAddr::V4(_), _) => "local-server-hosts",
        (Role::LocalServerHost, IpAddr::V6(_), _) => "local-server-hosts6",
        (Role::LocalServer, IpAddr::V4(_), 0) => "local-servers-any",
        (Role::LocalServer, IpAddr::V4(_), _) => "local-servers",
        (Role::LocalServer, IpAddr::V6(_), 0) => "local-servers6-any",
        (Role::LocalServer, IpAddr::V6(_), _) => "local-servers6",
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

/// The local addresses as the other sets' members are.
fn locals(set: &ClaimSet) -> Vec<Endpoint> {
    let endpoint = |addr| Endpoint {
        protocol: 0,
        addr,
        port: 0,
    };
    set.locals().into_iter().map(endpoint).collect()
}

/// Address, protocol and, except for every port of an address, port; each filled up to four bytes. Of a local address
/// nothing but that.
fn key(endpoint: &Endpoint, role: Role) -> Vec<u8> {
    let mut key = match endpoint.addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    if matches!(role, Role::Local) {
        return key;
    }
    key.extend_from_slice(&[endpoint.protocol, 0, 0, 0]);
    if endpoint.port != 0 {
        key.extend_from_slice(&endpoint.port.to_be_bytes());
        key.extend_from_slice(&[0, 0]);
    }
    key
}

/// The marks' rules, and beside them those that a change is about to replace.
const MARK_CHAINS: [[&str; marks::CHAINS]; 2] = [
    [
        "marks",
        "marks6",
        "marks6-fragments",
        "marks6-errors",
        "marks6-errors-fragment",
    ],
    [
        "marks-before",
        "marks6-before",
        "marks6-fragments-before",
        "marks6-errors-before",
        "marks6-errors-fragment-before",
    ],
];

/// Where the parts of a set's key are loaded from.
#[derive(Debug, Clone, Copy)]
struct Key {
    /// Offsets from the IP header of the address that services are looked for by, and of the one for servers.
    destination: u32,
    source: u32,
    protocol: Expression<'static>,
    ports: Option<Ports>,
}

#[derive(Debug, Clone, Copy)]
enum Ports {
    /// In the transport header.
    Transport,
    /// At this offset from the IP header, in a quoted transport header.
    Quoted(u32),
}

/// What differs between IPv4 and IPv6.
struct Family {
    /// Chain of whole packets and first fragments.
    chain: &'static str,
    /// Chain of later fragments.
    parts: &'static str,
    /// The rule that leads to the chain: untagged frames of this family. The engine leaves alone exactly what this
    /// excludes.
    is_this: [Expression<'static>; 3],
    /// Rules that come first.
    first: &'static [&'static [Expression<'static>]],
    /// What leads to the first chain of errors.
    is_error: &'static [Expression<'static>],
    /// Chains of ICMP errors.
    errors: &'static [ErrorShape],
    /// Which chains of marks are asked about whole packets, about fragments, and in each of the chains of errors.
    marks: [Option<usize>; 4],
    /// Registers that an address takes.
    words: u32,
    source: u32,
    destination: u32,
    sets: [&'static str; 10],
}

/// An ICMP error with a quoted packet, all offsets from the error's own IP header.
struct ErrorShape {
    chain: &'static str,
    first: &'static [&'static [Expression<'static>]],
    /// Where the quoted IP header begins, its protocol stands, and its transport header begins.
    quoted: u32,
    protocol: u32,
    ports: u32,
}

static FAMILIES: [Family; 2] = [
    Family {
        chain: "claim",
        parts: "fragments",
        is_this: is_family(&[0x08, 0x00], "claim"),
        first: &[&[
            FRAGMENT_WORD,
            OFFSET,
            Expression::Differs {
                register: 0,
                value: &[0, 0],
            },
            Expression::Goto("fragments"),
        ]],
        is_error: &IS_ERROR,
        errors: &[ErrorShape {
            chain: "errors",
            first: &[],
            quoted: QUOTED,
            protocol: QUOTED + IP_PROTOCOL,
            ports: QUOTED_PORTS,
        }],
        // Its chain of marks tells them apart itself.
        marks: [None; 4],
        words: 1,
        source: IP_SOURCE,
        destination: IP_DESTINATION,
        sets: [
            "services",
            "services-any",
            "servers",
            "servers-any",
            "service-hosts",
            "server-hosts",
            "locals",
            "local-servers",
            "local-servers-any",
            "local-server-hosts",
        ],
    },
    Family {
        chain: "claim6",
        parts: "fragments6",
        is_this: is_family(&[0x86, 0xdd], "claim6"),
        first: &[&[
            NEXT_HEADER,
            Expression::Lookup {
                set: EXTENSION_SET,
                register: 0,
            },
            Expression::Jump(EXTENSION_CHAIN),
        ]],
        is_error: &IS_ERROR6,
        errors: &[
            ErrorShape {
                chain: "errors6",
                first: &[&[
                    QUOTED_NEXT_HEADER,
                    Expression::Equal {
                        register: 0,
                        value: &[ipv6::FRAGMENT],
                    },
                    // No match if it is not there.
                    Expression::Network {
                        offset: QUOTED6_TRANSPORT + 15,
                        length: 1,
                        register: 0,
                    },
                    Expression::Goto("errors6-fragment"),
                ]],
                quoted: QUOTED6,
                protocol: QUOTED6 + IP6_NEXT_HEADER,
                ports: QUOTED6_TRANSPORT,
            },
            ErrorShape {
                chain: "errors6-fragment",
                first: &[&[
                    Expression::Network {
                        offset: QUOTED6_TRANSPORT + FRAGMENT_OFFSET,
                        length: 2,
                        register: 0,
                    },
                    OFFSET6,
                    Expression::Differs {
                        register: 0,
                        value: &[0, 0],
                    },
                    Expression::Accept,
                ]],
                quoted: QUOTED6,
                protocol: QUOTED6_TRANSPORT,
                ports: QUOTED6_TRANSPORT + ipv6::FRAGMENT_HEADER_LEN as u32,
            },
        ],
        marks: [Some(1), Some(2), Some(3), Some(4)],
        words: 4,
        source: IP6_SOURCE,
        destination: IP6_DESTINATION,
        sets: [
            "services6",
            "services6-any",
            "servers6",
            "servers6-any",
            "service-hosts6",
            "server-hosts6",
            "locals6",
            "local-servers6",
            "local-servers6-any",
            "local-server-hosts6",
        ],
    },
];

/// What to look for where there are IPv6 extension headers.
const EXTENSION_RULES: &[&[Expression<'static>]] = &[
    &[
        Expression::Extension {
            kind: ipv6::ROUTING,
            offset: SEGMENTS_LEFT,
            length: 1,
            register: 0,
        },
        Expression::Differs {
            register: 0,
            value: &[0],
        },
        Expression::Accept,
    ],
    &[
        Expression::Protocol { register: 0 },
        Expression::Equal {
            register: 0,
            value: &[protocol::ICMPV6],
        },
        Expression::Accept,
    ],
    &[
        Expression::Extension {
            kind: ipv6::FRAGMENT,
            offset: FRAGMENT_OFFSET,
            length: 2,
            register: 0,
        },
        OFFSET6,
        Expression::Differs {
            register: 0,
            value: &[0, 0],
        },
        Expression::Goto("fragments6"),
    ],
];

const fn is_family(ethertype: &'static [u8; 2], chain: &'static str) -> [Expression<'static>; 3] {
    [
        Expression::Link {
            offset: ETHERTYPE,
            length: 2,
            register: 0,
        },
        Expression::Equal {
            register: 0,
            value: ethertype,
        },
        Expression::Goto(chain),
    ]
}

const ERROR_SET: &str = "icmp-errors";
const EXTENSION_SET: &str = "extensions";
const EXTENSION_CHAIN: &str = "extensions";
const EXTENSIONS: [u8; 5] = [
    ipv6::HOP_BY_HOP,
    ipv6::ROUTING,
    ipv6::FRAGMENT,
    ipv6::AUTHENTICATION,
    ipv6::DESTINATION_OPTIONS,
];

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
    ("locals", &[Field::Ipv4]),
    ("locals6", &[Field::Ipv6]),
    (
        "local-servers",
        &[Field::Ipv4, Field::Protocol, Field::Port],
    ),
    ("local-servers-any", &[Field::Ipv4, Field::Protocol]),
    ("local-server-hosts", &[Field::Ipv4, Field::Protocol]),
    (
        "local-servers6",
        &[Field::Ipv6, Field::Protocol, Field::Port],
    ),
    ("local-servers6-any", &[Field::Ipv6, Field::Protocol]),
    ("local-server-hosts6", &[Field::Ipv6, Field::Protocol]),
];

/// A port that FULLNAT uses, in the first register.
const LOCAL_PORT: Expression<'static> = Expression::AtLeast {
    register: 0,
    value: &LOCAL_PORTS.start().to_be_bytes(),
};

/// Not to this device's hardware address.
const NOT_TO_US: [Expression<'static>; 3] = [
    Expression::PacketKind { register: 0 },
    Expression::Differs {
        register: 0,
        value: &[TO_HOST],
    },
    Expression::Accept,
];

/// To this device's hardware address, untagged IPv4.
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

const FRAGMENT_WORD: Expression<'static> = Expression::Network {
    offset: IP_FRAGMENT,
    length: 2,
    register: 0,
};
const OFFSET: Expression<'static> = Expression::Mask {
    register: 0,
    mask: &[0x1f, 0xff],
};
const OFFSET6: Expression<'static> = Expression::Mask {
    register: 0,
    mask: &[0xff, 0xf8],
};
const NEXT_HEADER: Expression<'static> = Expression::Network {
    offset: IP6_NEXT_HEADER,
    length: 1,
    register: 0,
};
const QUOTED_NEXT_HEADER: Expression<'static> = Expression::Network {
    offset: QUOTED6 + IP6_NEXT_HEADER,
    length: 1,
    register: 0,
};

/// ICMP by its number, no fragment, no options in the IP header, an error, about a packet without options that is no later
/// fragment, and of which there are eight bytes behind the header.
const IS_ERROR: [Expression<'static>; 15] = [
    Expression::Protocol { register: 0 },
    Expression::Equal {
        register: 0,
        value: &[protocol::ICMP],
    },
    FRAGMENT_WORD,
    Expression::Mask {
        register: 0,
        mask: &[0x3f, 0xff],
    },
    Expression::Equal {
        register: 0,
        value: &[0, 0],
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
    OFFSET,
    Expression::Equal {
        register: 0,
        value: &[0, 0],
    },
    // No match if it is not there.
    Expression::Network {
        offset: QUOTED_PORTS + 7,
        length: 1,
        register: 0,
    },
];

/// ICMPv6 right behind the IP header, an error, about an IPv6 packet of which there are eight bytes behind the header.
const IS_ERROR6: [Expression<'static>; 9] = [
    NEXT_HEADER,
    Expression::Equal {
        register: 0,
        value: &[protocol::ICMPV6],
    },
    Expression::Network {
        offset: ICMP6_KIND,
        length: 1,
        register: 0,
    },
    Expression::Mask {
        register: 0,
        mask: &[INFORMATIONAL],
    },
    Expression::Equal {
        register: 0,
        value: &[0],
    },
    Expression::Network {
        offset: QUOTED6,
        length: 1,
        register: 0,
    },
    Expression::Mask {
        register: 0,
        mask: &[0xf0],
    },
    Expression::Equal {
        register: 0,
        value: &[0x60],
    },
    // No match if it is not there.
    Expression::Network {
        offset: QUOTED6_TRANSPORT + 7,
        length: 1,
        register: 0,
    },
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
const IP6_NEXT_HEADER: u32 = 6;
const IP6_SOURCE: u32 = 8;
const IP6_DESTINATION: u32 = 24;
/// The ICMP message and what it quotes, behind an IP header without options.
const ICMP_KIND: u32 = 20;
const QUOTED: u32 = 28;
const QUOTED_PORTS: u32 = QUOTED + 20;
const ICMP6_KIND: u32 = 40;
const QUOTED6: u32 = 48;
const QUOTED6_TRANSPORT: u32 = QUOTED6 + 40;
/// In extension headers.
const SEGMENTS_LEFT: u32 = 3;
const FRAGMENT_OFFSET: u32 = 2;
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
            ("10.0.0.1", 0, Role::Local, "locals", 4),
            ("2001:db8::1", 0, Role::Local, "locals6", 16),
            ("10.0.0.1", 80, Role::LocalServer, "local-servers", 12),
            (
                "2001:db8::1",
                0,
                Role::LocalServerHost,
                "local-server-hosts6",
                20,
            ),
        ] {
            let endpoint = endpoint(addr, port);
            assert_eq!(set_of(&endpoint, role), name);
            assert_eq!(key(&endpoint, role).len(), length, "{name}");
            assert!(SETS.iter().any(|(set, _)| *set == name));
        }
        assert_eq!(
            key(&endpoint("10.0.0.1", 80), Role::Server),
            [10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]
        );
    }
}
