//! What the steering programs of all interfaces take from the host.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::program::{self, Maps, Role};
use super::{XdpError, marks};
use crate::claim::ClaimCounters;
use crate::sys::bpf::{Map, MapKind};
use crate::view::{ClaimSet, Endpoint, LocalAddresses};

/// The claim of AF_XDP devices: a table in the kernel that their programs ask for each frame.
///
/// A program leaves everything to the host that the table does not name: ARP, neighbour discovery, ssh, VRRP, BGP, ICMP but
/// for errors about claimed packets, and answers to the host's own addresses. The table and the programs are gone when the
/// process is.
///
/// Of [marks](crate::marks) it takes what may have one: what a rule says of senders and interfaces, and which of more than a
/// thousand ports, is asked by the engine, which gives the rest back. So marks need a way to the host.
///
/// A change of many endpoints is not seen at once by a program, but endpoint by endpoint. Let the claim grow first, tell the
/// workers, and let it shrink then: whatever is taken in between is given back by the engine.
#[derive(Debug)]
pub struct XdpClaim {
    endpoints: Map,
    marks: Map,
    local: Map,
    counters: Map,
    set: ClaimSet,
    keys: BTreeMap<Key, u8>,
    prefixes: marks::Entries,
    addresses: BTreeMap<[u8; 16], u8>,
}

type Key = [u8; program::KEY_LEN];

impl XdpClaim {
    /// An empty claim.
    ///
    /// # Errors
    ///
    /// [`XdpError::NotPermitted`] where the process may not use BPF: it needs CAP_BPF and CAP_NET_ADMIN in the initial user
    /// namespace. What else the kernel says.
    pub fn new() -> Result<Self, XdpError> {
        let create = |kind, key, value, entries| {
            Map::create(kind, key, value, entries).map_err(XdpError::from_bpf)
        };
        Ok(Self {
            endpoints: create(MapKind::Hash, program::KEY_LEN, 1, MAX_ENDPOINTS)?,
            marks: create(MapKind::Prefixes, marks::KEY_LEN, 1, MAX_ENDPOINTS)?,
            local: create(MapKind::Hash, 16, 1, MAX_LOCAL)?,
            counters: create(MapKind::PerProcessor, 4, 8, program::COUNTERS)?,
            set: ClaimSet::new(),
            keys: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            addresses: BTreeMap::new(),
        })
    }

    /// Claims another set.
    ///
    /// # Errors
    ///
    /// What the kernel refused. What was done until then stays, and a further call goes on from there.
    pub fn replace(&mut self, set: &ClaimSet) -> io::Result<()> {
        bring(&self.endpoints, &mut self.keys, &all(keys(set)))?;
        let [marks, before] = set.mark_tables();
        let prefixes = marks::entries([marks, before]);
        bring(&self.marks, &mut self.prefixes, &prefixes)?;
        self.set = set.clone();
        Ok(())
    }

    /// Tells which addresses are the host's own: what real servers send there is left to it.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace).
    pub fn set_local(&mut self, local: &LocalAddresses) -> io::Result<()> {
        let wanted = local.sorted().into_iter().map(program::address);
        bring(&self.local, &mut self.addresses, &all(wanted))
    }

    /// What is claimed.
    pub fn set(&self) -> &ClaimSet {
        &self.set
    }

    /// What has been taken from the host so far, at all interfaces.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn counters(&self) -> io::Result<ClaimCounters> {
        Ok(ClaimCounters {
            marked: self.counters.total(4)? + self.counters.total(6)?,
            to_services: self.counters.total(0)?,
            from_servers: self.counters.total(1)?,
            errors: self.counters.total(2)? + self.counters.total(3)?,
        })
    }

    pub(super) fn maps(&self, sockets: &Map) -> Maps {
        Maps {
            endpoints: self.endpoints.raw(),
            marks: self.marks.raw(),
            local: self.local.raw(),
            counters: self.counters.raw(),
            sockets: sockets.raw(),
        }
    }
}

/// Brings a map from what it has to what is wanted. It grows before it shrinks.
fn bring<const N: usize>(
    map: &Map,
    has: &mut BTreeMap<[u8; N], u8>,
    wanted: &BTreeMap<[u8; N], u8>,
) -> io::Result<()> {
    let (taken, passed): (Vec<_>, Vec<_>) = wanted
        .iter()
        .map(|(key, value)| (*key, *value))
        .filter(|(key, value)| has.get(key) != Some(value))
        .partition(|(_, value)| *value == marks::TAKE);
    let gone: Vec<_> = has
        .keys()
        .filter(|key| !wanted.contains_key(*key))
        .copied()
        .collect();
    for (key, value) in taken {
        map.insert(&key, &[value])?;
        has.insert(key, value);
    }
    for key in gone {
        map.remove(&key)?;
        has.remove(&key);
    }
    for (key, value) in passed {
        map.insert(&key, &[value])?;
        has.insert(key, value);
    }
    Ok(())
}

/// All of them are to be taken.
fn all<const N: usize>(keys: impl IntoIterator<Item = [u8; N]>) -> BTreeMap<[u8; N], u8> {
    keys.into_iter().map(|key| (key, marks::TAKE)).collect()
}

fn keys(set: &ClaimSet) -> BTreeSet<Key> {
    let tunnel_ends = set.tunnel_servers().into_iter().map(|addr| Endpoint {
        protocol: 0,
        addr,
        port: 0,
    });
    [
        (tunnel_ends.collect(), Role::TunnelServer),
        (set.services(), Role::Service),
        (set.servers(), Role::Server),
        (set.service_hosts(), Role::ServiceHost),
        (set.server_hosts(), Role::ServerHost),
    ]
    .into_iter()
    .chain(local_answers(set))
    .flat_map(|(endpoints, role)| {
        endpoints
            .into_iter()
            .map(move |it| program::key(it.addr, it.protocol, role, it.port))
    })
    .collect()
}

/// All that comes to local addresses by the protocols of the servers behind them, wherever from: the program asks nothing
/// more of it, and the engine gives back what is no answer.
fn local_answers(set: &ClaimSet) -> [(Vec<Endpoint>, Role); 2] {
    let protocols: BTreeSet<u8> = set.local_servers().iter().map(|it| it.protocol).collect();
    let all: Vec<Endpoint> = set
        .locals()
        .into_iter()
        .flat_map(|addr| {
            protocols.iter().map(move |protocol| Endpoint {
                protocol: *protocol,
                addr,
                port: 0,
            })
        })
        .collect();
    [(all.clone(), Role::Service), (all, Role::ServiceHost)]
}

/// Memory is taken for what there is only.
const MAX_ENDPOINTS: u32 = 1 << 20;
const MAX_LOCAL: u32 = 1 << 16;
