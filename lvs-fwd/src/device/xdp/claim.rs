//! What the steering programs of all interfaces take from the host.

use std::collections::BTreeSet;
use std::io;

use super::XdpError;
use super::program::{self, Maps, Role};
use crate::claim::ClaimCounters;
use crate::sys::bpf::{Map, MapKind};
use crate::view::{ClaimSet, Endpoint, LocalAddresses};

/// The claim of AF_XDP devices: a table in the kernel that their programs ask for each frame.
///
/// A program leaves everything to the host that the table does not name: ARP, neighbour discovery, ssh, VRRP, BGP, ICMP but
/// for errors about claimed packets, and answers to the host's own addresses. The table and the programs are gone when the
/// process is.
///
/// A change of many endpoints is not seen at once by a program, but endpoint by endpoint. Let the claim grow first, tell the
/// workers, and let it shrink then: whatever is taken in between is given back by the engine.
#[derive(Debug)]
pub struct XdpClaim {
    endpoints: Map,
    local: Map,
    counters: Map,
    set: ClaimSet,
    keys: BTreeSet<Key>,
    addresses: BTreeSet<[u8; 16]>,
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
            local: create(MapKind::Hash, 16, 1, MAX_LOCAL)?,
            counters: create(MapKind::PerProcessor, 4, 8, program::COUNTERS)?,
            set: ClaimSet::new(),
            keys: BTreeSet::new(),
            addresses: BTreeSet::new(),
        })
    }

    /// Claims another set.
    ///
    /// # Errors
    ///
    /// What the kernel refused. What was done until then stays, and a further call goes on from there.
    pub fn replace(&mut self, set: &ClaimSet) -> io::Result<()> {
        bring(&self.endpoints, &mut self.keys, &keys(set))?;
        self.set = set.clone();
        Ok(())
    }

    /// Tells which addresses are the host's own: what real servers send there is left to it.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace).
    pub fn set_local(&mut self, local: &LocalAddresses) -> io::Result<()> {
        let wanted = local.sorted().into_iter().map(program::address).collect();
        bring(&self.local, &mut self.addresses, &wanted)
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
            // The program does not look for marks.
            marked: 0,
            to_services: self.counters.total(0)?,
            from_servers: self.counters.total(1)?,
            errors: self.counters.total(2)? + self.counters.total(3)?,
        })
    }

    pub(super) fn maps(&self, sockets: &Map) -> Maps {
        Maps {
            endpoints: self.endpoints.raw(),
            local: self.local.raw(),
            counters: self.counters.raw(),
            sockets: sockets.raw(),
        }
    }
}

/// Brings a map from what it has to what is wanted. It grows before it shrinks.
fn bring<const N: usize>(
    map: &Map,
    has: &mut BTreeSet<[u8; N]>,
    wanted: &BTreeSet<[u8; N]>,
) -> io::Result<()> {
    let added: Vec<_> = wanted.difference(has).copied().collect();
    for key in added {
        map.insert(&key, &[1])?;
        has.insert(key);
    }
    let gone: Vec<_> = has.difference(wanted).copied().collect();
    for key in gone {
        map.remove(&key)?;
        has.remove(&key);
    }
    Ok(())
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
