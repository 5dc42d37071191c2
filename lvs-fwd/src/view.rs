//! What the data path knows of its surroundings, as one immutable snapshot.
//!
//! The control thread builds a [`View`] and publishes it; workers read it once per batch. Nothing in it
//! changes after publication, so a batch is processed under one consistent picture, and a new generation
//! number is all that a worker needs to drop what it cached from the old one.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ahash::RandomState;

use crate::marks::MarkTable;
use crate::route::{NeighbourTable, RouteTable};

/// One immutable picture: what is claimed, where addresses lead, which ports exist.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Number of this picture; grows with each publication. Caches made under another number are void.
    pub generation: u64,
    /// What is taken from the host stack.
    pub claims: Arc<ClaimSet>,
    /// The kernel's unicast routes, as the forwarder uses them.
    pub routes: Arc<RouteTable>,
    /// The kernel's neighbour entries.
    pub neighbours: Arc<NeighbourTable>,
    /// The ports that frames are received from and sent to.
    pub ports: Arc<[Port]>,
    /// The host's own addresses.
    pub local: Arc<LocalAddresses>,
    /// Whether nothing can be given to the host. What is claimed and of no connection is then refused in its place.
    pub hostless: bool,
    /// Whether the way to the host has no way back, as with raw sockets: answers of a translated real server there would
    /// leave as they are, so it gets no packets. One that answers in its own name (direct routing) does.
    pub one_way: bool,
    /// How tunnels treat large packets.
    pub tunnels: TunnelOptions,
}

/// How tunnels treat packets that are too large for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelOptions {
    /// On: the outer packet must not be fragmented where the one inside must not, and its sender is told when it does
    /// not fit. Off: outer packets may always be fragmented.
    #[doc(alias = "pmtu_disc")]
    pub path_mtu_discovery: bool,
}

impl Default for TunnelOptions {
    /// With path MTU discovery.
    fn default() -> Self {
        Self {
            path_mtu_discovery: true,
        }
    }
}

impl View {
    /// The port with this number.
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        // Ports are few and normally stand at the place that their number names.
        match self.ports.get(usize::from(id.0)) {
            Some(port) if port.index == id => Some(port),
            _ => self.ports.iter().find(|port| port.index == id),
        }
    }

    /// An address of this family of any port.
    pub fn any_addr(&self, ipv6: bool) -> Option<IpAddr> {
        self.ports.iter().find_map(|port| port.addr(ipv6))
    }

    /// The port of the interface with this index.
    pub fn port_of_interface(&self, ifindex: u32) -> Option<&Port> {
        self.ports.iter().find(|port| port.ifindex == ifindex)
    }
}

/// Number of a port within the forwarder, independent of interface indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// An interface that the forwarder receives from and sends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The forwarder's number for it.
    pub index: PortId,
    /// The kernel's interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// Hardware address: the source of every frame that leaves here.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes that may leave here.
    pub mtu: u32,
    /// Whether the kernel would route IPv4 packets that come in here (`net.ipv4.conf.NAME.forwarding`).
    pub forwarding: bool,
    /// Whether the kernel would route IPv6 packets (`net.ipv6.conf.all.forwarding`).
    pub forwarding_v6: bool,
    /// The interface's own addresses, preferred one first. Sources of ICMP errors that have no better one.
    pub addresses: Vec<IpAddr>,
}

impl Port {
    /// An Ethernet interface of a router: MTU 1500, both families forwarded, no addresses of its own.
    pub fn new(index: PortId, ifindex: u32, name: impl Into<String>, mac: [u8; 6]) -> Self {
        Self {
            index,
            ifindex,
            name: name.into(),
            mac,
            mtu: 1500,
            forwarding: true,
            forwarding_v6: true,
            addresses: Vec::new(),
        }
    }
}

impl Port {
    /// Whether the kernel would route packets of this family that come in here.
    #[inline]
    pub fn forwards(&self, ipv6: bool) -> bool {
        if ipv6 {
            self.forwarding_v6
        } else {
            self.forwarding
        }
    }

    /// The interface's own addresses of this family that hosts beyond the link can answer to, preferred one first.
    pub fn addresses_of(&self, ipv6: bool) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses
            .iter()
            .copied()
            .filter(move |addr| match addr {
                IpAddr::V4(_) => !ipv6,
                IpAddr::V6(addr) => ipv6 && !addr.is_unicast_link_local(),
            })
    }

    /// The preferred one of these.
    pub fn addr(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses_of(ipv6).next()
    }
}

/// Protocol, address and port of one side of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// Address.
    pub addr: IpAddr,
    /// Port in host byte order. In a claim 0 stands for every port of the address.
    pub port: u16,
}

/// What is taken from the host stack: packets to virtual services and replies of NAT real servers.
///
/// The sets hold the operator's endpoints only, so no outsider can choose colliding keys; lookups are
/// one probe of a hash table each.
#[derive(Debug, Clone)]
pub struct ClaimSet {
    services: EndpointSet,
    servers: EndpointSet,
    /// Addresses and protocols of the services and servers; the port is 0.
    service_hosts: EndpointSet,
    server_hosts: EndpointSet,
    vips: HashSet<IpAddr, RandomState>,
    locals: HashSet<IpAddr, RandomState>,
    local_servers: EndpointSet,
    local_server_hosts: EndpointSet,
    tunnel_servers: HashSet<IpAddr, RandomState>,
    any_local_server_port: bool,
    any_service_port: bool,
    any_server_port: bool,
    marks: Arc<MarkTable>,
    marks_before: Arc<MarkTable>,
}

impl ClaimSet {
    /// An empty set: nothing is claimed.
    pub fn new() -> Self {
        Self {
            services: EndpointSet::new(),
            servers: EndpointSet::new(),
            service_hosts: EndpointSet::new(),
            server_hosts: EndpointSet::new(),
            vips: HashSet::with_hasher(hasher()),
            locals: HashSet::with_hasher(hasher()),
            local_servers: EndpointSet::new(),
            local_server_hosts: EndpointSet::new(),
            tunnel_servers: HashSet::with_hasher(hasher()),
            any_local_server_port: false,
            any_service_port: false,
            any_server_port: false,
            marks: Arc::default(),
            marks_before: Arc::default(),
        }
    }

    /// Claims packets with marks by these rules, and by no others.
    pub fn set_marks(&mut self, marks: MarkTable) {
        self.marks = Arc::new(marks);
        self.marks_before = Arc::default();
    }

    /// The rules of marks.
    #[inline]
    pub fn marks(&self) -> &MarkTable {
        &self.marks
    }

    /// Claims what another set claims, too: what is right for the host while the one gives way to the other. Marks are
    /// found by this set's rules alone.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        for service in other.services() {
            joined.insert_service(service);
        }
        for server in other.servers() {
            joined.insert_server(server);
        }
        joined.locals.extend(&other.locals);
        for server in other.local_servers() {
            joined.insert_local_server(server);
        }
        joined.tunnel_servers.extend(&other.tunnel_servers);
        if other.marks != joined.marks {
            joined.marks_before = Arc::clone(&other.marks);
        }
        joined
    }

    /// The rules of marks, and those that go.
    pub(crate) fn mark_tables(&self) -> [&Arc<MarkTable>; 2] {
        [&self.marks, &self.marks_before]
    }

    /// Claims packets to this virtual service; port 0 claims every port of the address. `false` if it was
    /// there already.
    pub fn insert_service(&mut self, service: Endpoint) -> bool {
        self.any_service_port |= service.port == 0;
        self.service_hosts.insert(host(&service));
        self.vips.insert(service.addr);
        self.services.insert(service)
    }

    /// Claims replies from this NAT real server; port 0, a server that keeps the client's choice, claims every
    /// port of the address. `false` if it was there already.
    pub fn insert_server(&mut self, server: Endpoint) -> bool {
        self.any_server_port |= server.port == 0;
        self.server_hosts.insert(host(&server));
        self.servers.insert(server)
    }

    /// Claims answers to a local address, of those [servers](Self::insert_local_server) whose packets come to it, and only at
    /// [ports](LOCAL_PORTS) that FULLNAT uses. `false` if it was there already.
    pub fn insert_local(&mut self, addr: IpAddr) -> bool {
        self.locals.insert(addr)
    }

    /// Claims answers of this FULLNAT real server to local addresses; port 0 as for a NAT server. `false` if it was there
    /// already.
    pub fn insert_local_server(&mut self, server: Endpoint) -> bool {
        self.any_local_server_port |= server.port == 0;
        self.local_server_hosts.insert(host(&server));
        self.local_servers.insert(server)
    }

    /// Looks at ICMP errors about packets that were sent through a tunnel to this real server. They are the host's too.
    /// `false` if it was there already.
    pub fn insert_tunnel_server(&mut self, addr: IpAddr) -> bool {
        self.tunnel_servers.insert(addr)
    }

    /// Whether packets go through a tunnel to this address.
    #[inline]
    pub fn is_tunnel_server(&self, addr: &IpAddr) -> bool {
        self.tunnel_servers.contains(addr)
    }

    /// The real servers behind tunnels, ordered.
    pub fn tunnel_servers(&self) -> Vec<IpAddr> {
        let mut servers: Vec<IpAddr> = self.tunnel_servers.iter().copied().collect();
        servers.sort_unstable();
        servers
    }

    /// Whether this is a local address.
    #[inline]
    pub fn is_local(&self, addr: &IpAddr) -> bool {
        !self.locals.is_empty() && self.locals.contains(addr)
    }

    /// Whether a packet from this endpoint to this address and port is an answer of a FULLNAT real server.
    #[inline]
    pub fn is_local_answer(&self, source: &Endpoint, destination: &SocketAddr) -> bool {
        self.is_local(&destination.ip())
            && LOCAL_PORTS.contains(&destination.port())
            && self
                .local_servers
                .covers(source, self.any_local_server_port)
    }

    /// Whether a packet from this endpoint to this address, whatever their ports are, may be such an answer.
    #[inline]
    pub fn is_local_answer_host(&self, source: &Endpoint, destination: &IpAddr) -> bool {
        self.is_local(destination) && self.local_server_hosts.contains(&host(source))
    }

    /// The local addresses, ordered.
    pub fn locals(&self) -> Vec<IpAddr> {
        let mut locals: Vec<IpAddr> = self.locals.iter().copied().collect();
        locals.sort_unstable();
        locals
    }

    /// The FULLNAT real servers, ordered.
    pub fn local_servers(&self) -> Vec<Endpoint> {
        self.local_servers.sorted()
    }

    /// Addresses and protocols of the FULLNAT real servers, ordered, each once; the port is 0.
    pub fn local_server_hosts(&self) -> Vec<Endpoint> {
        self.local_server_hosts.sorted()
    }

    /// Whether packets to this endpoint belong to a virtual service.
    #[inline]
    pub fn is_service(&self, destination: &Endpoint) -> bool {
        self.services.covers(destination, self.any_service_port)
    }

    /// Whether packets from this endpoint are replies of a NAT real server.
    #[inline]
    pub fn is_server(&self, source: &Endpoint) -> bool {
        self.servers.covers(source, self.any_server_port)
    }

    /// Whether a packet to this endpoint, whatever its port is, may belong to a virtual service: all that a fragment
    /// without ports tells.
    #[inline]
    pub fn is_service_host(&self, destination: &Endpoint) -> bool {
        self.service_hosts.contains(&host(destination))
    }

    /// Whether a packet from this endpoint, whatever its port is, may be a reply of a NAT real server.
    #[inline]
    pub fn is_server_host(&self, source: &Endpoint) -> bool {
        self.server_hosts.contains(&host(source))
    }

    /// Addresses and protocols of the virtual services, ordered, each once; the port is 0.
    pub fn service_hosts(&self) -> Vec<Endpoint> {
        self.service_hosts.sorted()
    }

    /// Addresses and protocols of the NAT real servers, ordered, each once; the port is 0.
    pub fn server_hosts(&self) -> Vec<Endpoint> {
        self.server_hosts.sorted()
    }

    /// The virtual services, ordered.
    pub fn services(&self) -> Vec<Endpoint> {
        self.services.sorted()
    }

    /// The NAT real servers, ordered.
    pub fn servers(&self) -> Vec<Endpoint> {
        self.servers.sorted()
    }

    /// The addresses of the virtual services, ordered, each once.
    pub fn vips(&self) -> Vec<IpAddr> {
        let mut vips: Vec<IpAddr> = self.vips.iter().copied().collect();
        vips.sort_unstable();
        vips
    }

    /// Whether a virtual service has this address.
    #[inline]
    pub fn holds(&self, addr: &IpAddr) -> bool {
        self.vips.contains(addr)
    }

    /// Whether nothing is claimed.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.servers.is_empty()
            && self.local_servers.is_empty()
            && self.marks.is_empty()
    }
}

impl Default for ClaimSet {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for ClaimSet {
    fn eq(&self, other: &Self) -> bool {
        self.services() == other.services()
            && self.servers() == other.servers()
            && self.locals == other.locals
            && self.local_servers() == other.local_servers()
            && self.tunnel_servers == other.tunnel_servers
            && self.mark_tables() == other.mark_tables()
    }
}

impl Eq for ClaimSet {}

/// The host's own addresses.
#[derive(Debug, Clone)]
pub struct LocalAddresses(HashSet<IpAddr, RandomState>);

impl LocalAddresses {
    /// An empty set.
    pub fn new() -> Self {
        Self(HashSet::with_hasher(hasher()))
    }

    /// Adds an address; `false` if it was there already.
    pub fn insert(&mut self, addr: IpAddr) -> bool {
        self.0.insert(addr)
    }

    /// Removes an address; `false` if it was not there.
    pub fn remove(&mut self, addr: &IpAddr) -> bool {
        self.0.remove(addr)
    }

    /// Whether the host owns this address.
    #[inline]
    pub fn contains(&self, addr: &IpAddr) -> bool {
        self.0.contains(addr)
    }

    /// The addresses, ordered.
    pub fn sorted(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = self.0.iter().copied().collect();
        all.sort_unstable();
        all
    }
}

impl Default for LocalAddresses {
    fn default() -> Self {
        Self::new()
    }
}

impl FromIterator<IpAddr> for LocalAddresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addrs: I) -> Self {
        let mut set = Self::new();
        for addr in addrs {
            set.insert(addr);
        }
        set
    }
}

/// IPv4 endpoints are packed into one word, which hashes and compares in a few instructions.
#[derive(Debug, Clone)]
struct EndpointSet {
    v4: HashSet<u64, BuildHasherDefault<WordHasher>>,
    v6: HashSet<Endpoint, RandomState>,
}

impl EndpointSet {
    fn new() -> Self {
        Self {
            v4: HashSet::default(),
            v6: HashSet::with_hasher(hasher()),
        }
    }

    fn insert(&mut self, endpoint: Endpoint) -> bool {
        match endpoint.addr {
            IpAddr::V4(addr) => self.v4.insert(pack(endpoint.protocol, addr, endpoint.port)),
            IpAddr::V6(_) => self.v6.insert(endpoint),
        }
    }

    #[inline]
    fn contains(&self, endpoint: &Endpoint) -> bool {
        match endpoint.addr {
            IpAddr::V4(addr) => self
                .v4
                .contains(&pack(endpoint.protocol, addr, endpoint.port)),
            IpAddr::V6(_) => self.v6.contains(endpoint),
        }
    }

    /// Whether the endpoint is in the set, itself or under port 0.
    #[inline]
    fn covers(&self, endpoint: &Endpoint, any_port: bool) -> bool {
        self.contains(endpoint)
            || any_port
                && self.contains(&Endpoint {
                    port: 0,
                    ..*endpoint
                })
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    fn sorted(&self) -> Vec<Endpoint> {
        let v4 = self.v4.iter().map(|&key| unpack(key));
        let mut all: Vec<Endpoint> = v4.chain(self.v6.iter().copied()).collect();
        all.sort_unstable();
        all
    }
}

/// Hashes one word by one multiplication. Like the [fixed seeds](hasher) this is for the operator's values alone.
#[derive(Debug, Clone, Copy, Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ SEEDS[0]) * u128::from(SEEDS[1] | 1);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The endpoint without its port.
#[inline]
fn host(endpoint: &Endpoint) -> Endpoint {
    Endpoint {
        port: 0,
        ..*endpoint
    }
}

#[inline]
fn pack(protocol: u8, addr: Ipv4Addr, port: u16) -> u64 {
    u64::from(u32::from(addr)) << 32 | u64::from(port) << 8 | u64::from(protocol)
}

fn unpack(key: u64) -> Endpoint {
    Endpoint {
        protocol: key as u8,
        addr: IpAddr::V4(Ipv4Addr::from((key >> 32) as u32)),
        port: (key >> 8) as u16,
    }
}

/// Ports at local addresses that FULLNAT may use; what comes to others is the host's.
pub const LOCAL_PORTS: RangeInclusive<u16> = 1025..=65535;

/// Fixed seeds: these tables hold the operator's values, never keys that a sender chooses.
pub(crate) fn hasher() -> RandomState {
    RandomState::with_seeds(SEEDS[0], SEEDS[1], SEEDS[2], SEEDS[3])
}

const SEEDS: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(protocol: u8, addr: &str, port: u16) -> Endpoint {
        Endpoint {
            protocol,
            addr: addr.parse().unwrap(),
            port,
        }
    }

    #[test]
    fn endpoints_of_both_families_are_found_and_listed_in_order() {
        let mut claims = ClaimSet::new();
        let all = [
            endpoint(6, "192.0.2.10", 80),
            endpoint(6, "255.255.255.255", 65535),
            endpoint(17, "192.0.2.10", 80),
            endpoint(6, "2001:db8::1", 80),
        ];
        for service in all {
            assert!(claims.insert_service(service));
            assert!(!claims.insert_service(service));
        }
        let mut expected = all.to_vec();
        expected.sort();
        assert_eq!(claims.services(), expected);
        for service in all {
            assert!(claims.is_service(&service));
            assert!(!claims.is_server(&service));
        }
        assert!(!claims.is_service(&endpoint(6, "192.0.2.10", 81)));
        assert_eq!(claims.vips().len(), 3);
    }

    #[test]
    fn joined_sets_claim_what_either_does() {
        let mut old = ClaimSet::new();
        old.insert_service(endpoint(6, "192.0.2.1", 80));
        old.insert_server(endpoint(6, "10.0.0.1", 80));
        old.insert_local("10.0.0.200".parse().unwrap());
        old.insert_local_server(endpoint(6, "10.0.0.2", 80));
        let mut new = ClaimSet::new();
        new.insert_service(endpoint(17, "192.0.2.1", 53));
        let mut both = old.clone();
        both.insert_service(endpoint(17, "192.0.2.1", 53));
        assert_eq!(new.joined(&old), both);
        assert_eq!(old.joined(&new), both);
    }

    #[test]
    fn port_zero_claims_every_port_of_its_protocol() {
        let mut claims = ClaimSet::new();
        claims.insert_service(endpoint(6, "192.0.2.10", 0));
        assert!(claims.is_service(&endpoint(6, "192.0.2.10", 12345)));
        assert!(!claims.is_service(&endpoint(17, "192.0.2.10", 12345)));
        assert!(!claims.is_service(&endpoint(6, "192.0.2.11", 12345)));
        claims.insert_server(endpoint(6, "10.0.0.11", 0));
        assert!(claims.is_server(&endpoint(6, "10.0.0.11", 12345)));
        assert!(!claims.is_server(&endpoint(17, "10.0.0.11", 12345)));
        assert!(!claims.is_server(&endpoint(6, "10.0.0.12", 12345)));
    }
}
