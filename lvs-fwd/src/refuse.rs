//! Addresses that the host has and does not answer for: packets to and from them are dropped by the host's stack.
//!
//! What is claimed is taken before this; what is only routed does not come by here. Neighbour discovery is let through. The tables belong to
//! the socket and vanish with the process.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use crate::nft::{Batch, Expression, Field, Nft};

/// The tables, and what is in them.
#[derive(Debug)]
pub struct Refusals {
    nft: Nft,
    table: String,
    addresses: BTreeSet<IpAddr>,
}

/// The kernel refused a change.
#[derive(Debug, thiserror::Error)]
#[error("nftables: cannot {operation} in table {table}")]
pub struct RefuseError {
    operation: &'static str,
    table: String,
    source: io::Error,
}

impl Refusals {
    /// None yet. The tables, one for each family, get this name.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn new(table: &str) -> Result<Self, RefuseError> {
        let error = |operation, source| RefuseError {
            operation,
            table: table.to_owned(),
            source,
        };
        let nft = Nft::open().map_err(|source| error("open a socket", source))?;
        let mut refusals = Self {
            nft,
            table: table.to_owned(),
            addresses: BTreeSet::new(),
        };
        for family in &FAMILIES {
            refusals.commit(family.tables(table))?;
        }
        Ok(refusals)
    }

    /// Drops packets to and from exactly these.
    ///
    /// # Errors
    ///
    /// What the kernel refuses; of each family all is changed or nothing.
    pub fn set(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), RefuseError> {
        for family in &FAMILIES {
            let of_family = |address: &&IpAddr| address.is_ipv6() == family.ipv6;
            let keys = |one: &BTreeSet<IpAddr>, other: &BTreeSet<IpAddr>| -> Vec<Vec<u8>> {
                let only = one.difference(other).filter(of_family);
                only.map(octets).collect()
            };
            let (old, new) = (keys(&self.addresses, wanted), keys(wanted, &self.addresses));
            let mut batch = Batch::of_family(family.number);
            if !old.is_empty() {
                batch.delete_elements(&self.table, SET, &old);
            }
            if !new.is_empty() {
                batch.add_elements(&self.table, SET, &new);
            }
            if !batch.is_empty() {
                self.commit(batch)?;
                self.addresses.retain(|address| !of_family(&address));
                let now = wanted.iter().filter(of_family).copied();
                self.addresses.extend(now);
            }
        }
        Ok(())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), RefuseError> {
        self.nft
            .commit(batch)
            .map_err(|(operation, source)| RefuseError {
                operation,
                table: self.table.clone(),
                source,
            })
    }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

struct Family {
    ipv6: bool,
    /// Of netfilter.
    number: u8,
    key: Field,
    /// Where source and destination stand in the header, and their length.
    source: u32,
    destination: u32,
    length: u32,
}

impl Family {
    fn tables(&self, table: &str) -> Batch {
        let mut batch = Batch::of_family(self.number);
        batch.add_table(table);
        batch.add_set(table, SET, &[self.key]);
        for (chain, hook, offset) in [
            ("in", LOCAL_IN, self.destination),
            ("out", LOCAL_OUT, self.source),
        ] {
            batch.add_hook_chain(table, chain, hook, PRIORITY);
            if self.ipv6 {
                batch.add_rule(table, chain, &NEIGHBOUR_DISCOVERY);
            }
            let rule = [
                Expression::Network {
                    offset,
                    length: self.length,
                    register: 0,
                },
                Expression::Lookup {
                    set: SET,
                    register: 0,
                },
                Expression::Counter,
                Expression::Drop,
            ];
            batch.add_rule(table, chain, &rule);
        }
        batch
    }
}

const FAMILIES: [Family; 2] = [
    Family {
        ipv6: false,
        number: 2,
        key: Field::Ipv4,
        source: 12,
        destination: 16,
        length: 4,
    },
    Family {
        ipv6: true,
        number: 10,
        key: Field::Ipv6,
        source: 8,
        destination: 24,
        length: 16,
    },
];

/// Neighbour solicitations and advertisements.
const NEIGHBOUR_DISCOVERY: [Expression<'static>; 6] = [
    Expression::Protocol { register: 0 },
    Expression::Equal {
        register: 0,
        value: &[58],
    },
    Expression::Transport {
        offset: 0,
        length: 1,
        register: 0,
    },
    Expression::AtLeast {
        register: 0,
        value: &[135],
    },
    Expression::AtMost {
        register: 0,
        value: &[136],
    },
    Expression::Accept,
];

const SET: &str = "addresses";

/// NF_INET_LOCAL_IN and NF_INET_LOCAL_OUT.
const LOCAL_IN: u32 = 1;
const LOCAL_OUT: u32 = 3;

/// Just before ordinary filters.
const PRIORITY: i32 = -1;
