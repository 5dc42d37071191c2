//! What should be there: the configuration's model in the terms of the scheduler, the checkers and the system.
//!
//! A plan is plain data. Two plans are compared to find what a reload changes; nothing is done here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use lvs_conf::Config;
use lvs_conf::model::{
    self, GroupEntry, LocalAddressGroup, LvsMethod, Protocol as ConfProtocol, RealServer,
    Scheduler, ServerGroup, ServiceAddress, Ssl, TrackFile, Tunnel, TunnelChecksum as ConfChecksum,
    VirtualAddress, VirtualServer, VrrpInstance,
};
use lvs_health::{MemberConfig, PoolConfig};
use lvs_sched::{
    EngineKind, Family, ForwardMethod, Granularity, Persistence, Protocol, SchedulerFlags,
    SchedulerKind, ServerConfig, ServiceConfig, ServiceKey, Weight,
};

use crate::checks::{Checking, PlannedCheck};
use crate::control::protocol::{TunnelChecksum, TunnelInfo, TunnelKind};
use crate::notify::event::ServiceName;
use crate::tunnels::Served;
use crate::vrrp::{self, Converted};

/// What a configuration asks of the running director.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Virtual services, each key once, in file order.
    pub services: Vec<PlannedService>,
    /// Servers that are up when they begin are told as such (`rs_init_notifies`).
    pub tells_up_at_start: bool,
    /// One pool of real servers for each `virtual_server` block. Blocks for one address share its service.
    pub pools: Vec<PlannedPool>,
    /// Addresses to hold as long as the director runs.
    pub addresses: Vec<PlannedAddress>,
    /// Addresses of virtual routers, which are here when VRRP says so.
    pub virtual_addresses: Vec<PlannedAddress>,
    /// Virtual routers, with all that they watch.
    pub vrrp: Converted,
    /// Tunnels that are not plain IP in IP.
    pub tunnels: HashMap<Served, TunnelInfo>,
    /// Certificates of SSL_GET.
    pub ssl: Option<Ssl>,
    /// Files that say how servers are.
    pub track_files: Vec<TrackFile>,
    /// Idle times to set; `None` leaves the present value.
    pub timeouts: PlannedTimeouts,
    /// What of the configuration has another effect than written; each is said once. What has none at all is
    /// [`acted_on`](crate::acted_on)'s.
    pub remarks: Vec<String>,
}

/// A virtual service.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedService {
    /// What clients reach.
    pub key: ServiceKey,
    /// How it is scheduled.
    pub config: ServiceConfig,
    /// What keeps its connections together besides their clients, if it is persistent.
    pub engine: Option<EngineKind>,
    /// From where its FULLNAT servers are reached.
    pub locals: Vec<IpAddr>,
}

/// The real servers of one `virtual_server` block.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedPool {
    /// The block's name in pipes, mails and events.
    pub name: ServiceName,
    /// Whether the end of the director is told as the end of its servers (`omega`).
    pub omega: bool,
    /// The services that they serve: one, or all of a `virtual_server_group`.
    pub services: Vec<ServiceKey>,
    /// Quorum, hysteresis, sorry server.
    pub config: PoolConfig,
    /// The real servers.
    pub servers: Vec<PlannedServer>,
    /// Checks rest while the service's address is not on this host.
    pub ha_suspend: bool,
    /// The sorry server's address and parameters.
    pub sorry: Option<(SocketAddr, ServerConfig)>,
}

/// A real server.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedServer {
    /// Where it is.
    pub addr: SocketAddr,
    /// Weight, method, thresholds.
    pub config: ServerConfig,
    /// Weight and what happens when it is down.
    pub member: MemberConfig,
    /// How it is checked.
    pub checks: Vec<PlannedCheck>,
}

/// An address to hold on an interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlannedAddress {
    /// The address.
    pub addr: IpAddr,
    /// Prefix length, 0 to 32 or 128.
    pub prefix_len: u8,
    /// The interface's name.
    pub interface: String,
    /// keepalived's `label`.
    pub label: Option<String>,
    /// keepalived's `scope`, as written.
    pub scope: Option<String>,
    /// keepalived's `brd`.
    pub broadcast: Option<Ipv4Addr>,
}

impl PlannedPool {
    /// Whether a server stands in this service: one of the block's, and of the server's family or reached through a tunnel.
    pub fn serves(&self, key: &ServiceKey, addr: SocketAddr, method: ForwardMethod) -> bool {
        let fits =
            method == ForwardMethod::Tunnel || (key.family() == Family::Inet6) == addr.is_ipv6();
        fits && self.services.contains(key)
    }

    /// Real servers and the sorry server, with their parameters.
    pub fn all_servers(&self) -> impl Iterator<Item = (SocketAddr, ServerConfig)> + '_ {
        let own = self
            .servers
            .iter()
            .map(|server| (server.addr, server.config));
        own.chain(self.sorry)
    }

    /// The block, for people: its only service, or its group.
    pub fn title(&self) -> String {
        match &self.services[..] {
            [key] => key.to_string(),
            _ => format!("group {}", self.name),
        }
    }
}

impl PlannedAddress {
    /// An address of a configuration, at this interface.
    pub fn new(address: &VirtualAddress, interface: &str) -> Self {
        Self {
            addr: address.address,
            prefix_len: address.prefix_len,
            interface: interface.to_owned(),
            label: address.label.clone(),
            scope: address.scope.clone(),
            broadcast: address.broadcast,
        }
    }
}

impl fmt::Display for PlannedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on {}", self.addr, self.prefix_len, self.interface)
    }
}

/// Where in a plan a service stands.
type Places = HashMap<ServiceKey, usize>;

/// Idle times of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlannedTimeouts {
    /// Established TCP.
    pub tcp: Option<Duration>,
    /// TCP after a FIN.
    pub tcp_fin: Option<Duration>,
    /// UDP.
    pub udp: Option<Duration>,
}

impl Plan {
    /// The plan of a configuration.
    pub fn new(config: &Config) -> Self {
        let mut vrrp = vrrp::convert(config);
        let mut plan = Self {
            remarks: std::mem::take(&mut vrrp.remarks),
            vrrp,
            timeouts: PlannedTimeouts {
                tcp: config.global.lvs_timeouts.tcp,
                tcp_fin: config.global.lvs_timeouts.tcp_fin,
                udp: config.global.lvs_timeouts.udp,
            },
            tells_up_at_start: config.global.rs_init_notifies,
            ssl: config.ssl.clone(),
            track_files: config.track_files.clone(),
            ..Self::default()
        };
        for instance in &config.instances {
            plan.add_instance(instance);
        }
        let checking = Checking::new(config);
        let mut places = HashMap::new();
        for (server, name) in config.virtual_servers.iter().zip(ServiceName::all(config)) {
            plan.add_virtual_server(server, name, config, &checking, &mut places);
        }
        plan
    }

    /// Every address that may be held.
    pub fn all_addresses(&self) -> impl Iterator<Item = &PlannedAddress> {
        let statics = self.vrrp.statics.addresses.iter();
        self.addresses
            .iter()
            .chain(&self.virtual_addresses)
            .chain(statics)
    }

    fn add_instance(&mut self, instance: &VrrpInstance) {
        let all = instance
            .virtual_addresses
            .iter()
            .chain(&instance.excluded_addresses);
        for address in all {
            let Some(interface) = address.interface.as_ref().or(instance.interface.as_ref()) else {
                self.remarks.push(format!(
                    "vrrp_instance {}: address {} names no interface and is left out",
                    instance.name, address.address
                ));
                continue;
            };
            self.virtual_addresses
                .push(PlannedAddress::new(address, interface));
        }
    }

    /// The local addresses of the family of a service, which are also to be held where the group says so.
    fn add_locals(
        &mut self,
        server: &VirtualServer,
        is_ipv6: bool,
        groups: &[LocalAddressGroup],
    ) -> Vec<IpAddr> {
        let group = server
            .local_address_group
            .as_ref()
            .and_then(|name| groups.iter().find(|group| group.name == *name));
        let all = group.map_or(&[][..], |group| &group.addresses);
        let all = all.iter().filter(|it| it.address.is_ipv6() == is_ipv6);
        let mut locals = Vec::new();
        for local in all {
            locals.push(local.address);
            let held = local.interface.as_ref().map(|interface| PlannedAddress {
                addr: local.address,
                prefix_len: if is_ipv6 { 128 } else { 32 },
                interface: interface.clone(),
                label: None,
                scope: None,
                broadcast: None,
            });
            if let Some(held) = held.filter(|held| !self.addresses.contains(held)) {
                self.addresses.push(held);
            }
        }
        let needs_locals = server
            .real_servers
            .iter()
            .any(|real| real.method == LvsMethod::FullNat);
        if needs_locals && locals.is_empty() {
            self.remarks.push(format!(
                "virtual_server {}: there is no local address for its FNAT servers, name a local_address_group by \
                 laddr_group_name; until then its connections are refused",
                server.service
            ));
        }
        locals
    }

    fn add_virtual_server(
        &mut self,
        server: &VirtualServer,
        name: ServiceName,
        conf: &Config,
        checking: &Checking<'_>,
        places: &mut Places,
    ) {
        let services = match service_keys(server, &conf.server_groups) {
            Ok(services) => services,
            Err(reason) => {
                self.remarks.push(format!(
                    "virtual_server {}: {reason}; left out",
                    server.service
                ));
                return;
            }
        };
        self.add_services(server, &services, &conf.local_address_groups, places);
        let servers: Vec<PlannedServer> = server
            .real_servers
            .iter()
            .map(|real| self.real_server(server, real, &services, checking))
            .collect();
        let sorry = server.sorry_server.as_ref().map(|sorry| {
            let method = self.method(&services, sorry.address, sorry.method);
            (sorry.address, server_config(Weight::ONE, method, 0, 0))
        });
        let inhibit = server
            .sorry_server
            .as_ref()
            .is_some_and(|sorry| sorry.inhibit);
        self.pools.push(PlannedPool {
            name,
            omega: server.omega,
            services,
            config: PoolConfig {
                quorum: server.quorum,
                hysteresis: server.hysteresis,
                sorry: sorry.map(|_| lvs_health::SorryServer { inhibit }),
            },
            servers,
            ha_suspend: server.ha_suspend,
            sorry,
        });
    }

    fn add_services(
        &mut self,
        server: &VirtualServer,
        services: &[ServiceKey],
        groups: &[LocalAddressGroup],
        places: &mut Places,
    ) {
        let config = self.service_config(server);
        let engine = self.engine(server);
        let mut is_remarked = false;
        for ipv6 in [false, true] {
            let of_family = services
                .iter()
                .filter(|key| (key.family() == Family::Inet6) == ipv6);
            let mut locals = None;
            for key in of_family {
                let locals = locals.get_or_insert_with(|| self.add_locals(server, ipv6, groups));
                let Some(at) = places.get(key).copied() else {
                    places.insert(*key, self.services.len());
                    self.services.push(PlannedService {
                        key: *key,
                        config,
                        engine,
                        locals: locals.clone(),
                    });
                    continue;
                };
                let first = &mut self.services[at];
                for local in locals.iter() {
                    if !first.locals.contains(local) {
                        first.locals.push(*local);
                    }
                }
                if !is_remarked && (first.config != config || first.engine != engine) {
                    is_remarked = true;
                    self.remarks.push(format!(
                        "virtual_server {}: another block for {key} came first, its scheduler and persistence apply to both",
                        server.service
                    ));
                }
            }
        }
    }

    fn service_config(&mut self, server: &VirtualServer) -> ServiceConfig {
        let scheduler = scheduler(server.scheduler).unwrap_or_else(|| {
            self.remarks.push(format!(
                "virtual_server {}: scheduler {} is not built yet, wlc is used",
                server.service, server.scheduler
            ));
            SchedulerKind::WeightedLeastConnection
        });
        ServiceConfig {
            scheduler,
            flags: scheduler_flags(server.flags),
            persistence: server.persistence_timeout.map(|timeout| Persistence {
                timeout,
                granularity: granularity(server),
            }),
            one_packet: server.one_packet,
        }
    }

    fn engine(&mut self, server: &VirtualServer) -> Option<EngineKind> {
        let name = server.persistence_engine.as_ref()?;
        let engine = name.parse().ok();
        if engine.is_none() {
            self.remarks.push(format!(
                "virtual_server {}: there is no persistence engine {name}, clients alone decide",
                server.service
            ));
        }
        engine.filter(|_| server.persistence_timeout.is_some())
    }

    fn real_server(
        &mut self,
        service: &VirtualServer,
        real: &RealServer,
        services: &[ServiceKey],
        checking: &Checking<'_>,
    ) -> PlannedServer {
        let method = self.method(services, real.address, real.method);
        let weight = Weight::new(real.weight).unwrap_or(Weight::MAX);
        let mut checks = Vec::with_capacity(real.checkers.len());
        for checker in &real.checkers {
            let about = |remark| {
                format!(
                    "virtual_server {}: {} of server {}: {remark}",
                    service.service,
                    checker.keyword(),
                    real.address
                )
            };
            let (planned, remarks) = PlannedCheck::new(checker, checking);
            checks.push(planned);
            self.remarks.extend(remarks.into_iter().map(about));
        }
        PlannedServer {
            addr: real.address,
            config: server_config(weight, method, real.upper_threshold, real.lower_threshold),
            member: MemberConfig {
                weight: real.weight,
                inhibit: real.inhibit_on_failure,
            },
            checks,
        }
    }

    fn method(
        &mut self,
        services: &[ServiceKey],
        addr: SocketAddr,
        method: LvsMethod,
    ) -> ForwardMethod {
        match method {
            LvsMethod::Nat => ForwardMethod::Nat,
            LvsMethod::Dr => ForwardMethod::DirectRoute,
            LvsMethod::FullNat => ForwardMethod::FullNat,
            LvsMethod::Tun(kind) => {
                if let Some(tunnel) = tunnel(kind) {
                    let served = services.iter().map(|key| ((*key, addr), tunnel));
                    self.tunnels.extend(served);
                }
                ForwardMethod::Tunnel
            }
        }
    }
}

/// What clients reach by a block, in the order of its group, each once.
fn service_keys(server: &VirtualServer, groups: &[ServerGroup]) -> Result<Vec<ServiceKey>, String> {
    let address = |vip, port: Option<u16>| ServiceKey::Address {
        protocol: protocol(server.protocol),
        vip,
        vport: port.unwrap_or(0),
    };
    let mark = |number, family| {
        let mark = NonZeroU32::new(number).ok_or("mark 0 is no mark")?;
        Ok::<_, String>(ServiceKey::Mark { family, mark })
    };
    let name = match &server.service {
        ServiceAddress::Address { address: vip, port } => return Ok(vec![address(*vip, *port)]),
        ServiceAddress::Mark(number) => return Ok(vec![mark(*number, family(server.family))?]),
        ServiceAddress::Group(name) => name,
    };
    let group = groups.iter().find(|group| group.name == *name);
    let group = group.ok_or("there is no such group")?;
    let mut keys = Vec::new();
    let mut seen = HashSet::new();
    for entry in &group.entries {
        match entry {
            GroupEntry::Range { first, last, port } => {
                let room = MAX_GROUP_SERVICES - keys.len();
                let addresses = ip_range(*first, *last);
                let all = addresses.take(room + 1).map(|vip| address(vip, *port));
                keys.extend(all.filter(|key| seen.insert(*key)));
                if keys.len() > MAX_GROUP_SERVICES {
                    return Err(format!(
                        "it has more than {MAX_GROUP_SERVICES} addresses; a firewall mark is one service for any number"
                    ));
                }
            }
            GroupEntry::Mark {
                mark: number,
                family: own,
            } => {
                let key = mark(*number, family(own.or(server.family)))?;
                keys.extend(seen.insert(key).then_some(key));
            }
        }
    }
    Ok(keys)
}

/// The addresses from the first to the last, both included.
fn ip_range(first: IpAddr, last: IpAddr) -> Box<dyn Iterator<Item = IpAddr>> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Box::new(
            (first.to_bits()..=last.to_bits()).map(|bits| Ipv4Addr::from_bits(bits).into()),
        ),
        (IpAddr::V6(first), IpAddr::V6(last)) => Box::new(
            (first.to_bits()..=last.to_bits()).map(|bits| Ipv6Addr::from_bits(bits).into()),
        ),
        _ => Box::new(std::iter::once(first)),
    }
}

const fn protocol(protocol: ConfProtocol) -> Protocol {
    match protocol {
        ConfProtocol::Tcp => Protocol::Tcp,
        ConfProtocol::Udp => Protocol::Udp,
        ConfProtocol::Sctp => Protocol::Sctp,
    }
}

/// `None` is IP in IP.
fn tunnel(kind: Tunnel) -> Option<TunnelInfo> {
    let checksum = |checksum| match checksum {
        ConfChecksum::None => TunnelChecksum::None,
        ConfChecksum::Full => TunnelChecksum::Full,
        ConfChecksum::Remote => TunnelChecksum::Remote,
    };
    match kind {
        Tunnel::Ipip => None,
        Tunnel::Gue { port, checksum: c } => Some(TunnelInfo {
            kind: TunnelKind::Gue,
            port,
            checksum: checksum(c),
        }),
        Tunnel::Gre { checksum: c } => Some(TunnelInfo {
            kind: TunnelKind::Gre,
            port: 0,
            checksum: checksum(c),
        }),
    }
}

fn scheduler(kind: Scheduler) -> Option<SchedulerKind> {
    kind.as_str().parse().ok()
}

fn scheduler_flags(flags: model::SchedulerFlags) -> SchedulerFlags {
    [
        (flags.flag1, SchedulerFlags::FALLBACK),
        (flags.flag2, SchedulerFlags::PORT),
        (flags.flag3, SchedulerFlags::FLAG_3),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(SchedulerFlags::default(), |all, (_, flag)| all.union(flag))
}

fn granularity(server: &VirtualServer) -> Granularity {
    match server.persistence_granularity {
        Some(model::Granularity::Mask(mask)) => Granularity::Mask(mask),
        Some(model::Granularity::Prefix(length)) => Granularity::Prefix(length),
        None => Granularity::host(family(server.family)),
    }
}

fn family(family: Option<model::Family>) -> Family {
    match family {
        Some(model::Family::Inet6) => Family::Inet6,
        Some(model::Family::Inet) | None => Family::Inet,
    }
}

fn server_config(weight: Weight, method: ForwardMethod, upper: u32, lower: u32) -> ServerConfig {
    ServerConfig {
        weight,
        method,
        upper_threshold: upper,
        lower_threshold: lower,
    }
}

/// Services of one block at most.
const MAX_GROUP_SERVICES: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        let mut sources = lvs_conf::SourceMap::new();
        let main = sources.add("test.conf", text);
        let options = lvs_conf::Options::default();
        let loaded = lvs_conf::load(&mut sources, main, &lvs_conf::NoFiles, &options);
        Plan::new(&loaded.config)
    }

    fn block(method: &str, servers: &[&str]) -> String {
        let servers: String = servers
            .iter()
            .map(|server| {
                format!(
                    "real_server {server} {{\nweight 3\nTCP_CHECK {{\nconnect_timeout 2\n}}\n}}\n"
                )
            })
            .collect();
        format!(
            "virtual_server 192.0.2.10 80 {{\nlb_algo wrr\nlb_kind {method}\nprotocol TCP\ndelay_loop 7\n{servers}}}\n"
        )
    }

    #[test]
    fn server_takes_weight_method_and_check_from_its_block() {
        let plan = plan(&block("NAT", &["10.0.0.1 8080"]));
        assert_eq!(plan.services.len(), 1);
        assert_eq!(
            plan.services[0].config.scheduler,
            SchedulerKind::WeightedRoundRobin
        );
        let server = &plan.pools[0].servers[0];
        assert_eq!(server.addr, "10.0.0.1:8080".parse().unwrap());
        assert_eq!(server.config.method, ForwardMethod::Nat);
        assert_eq!((server.config.weight.get(), server.member.weight), (3, 3));
        let check = server.checks[0].config();
        assert_eq!(check.connect.destination, server.addr);
        assert_eq!(check.timing.connect_timeout, Duration::from_secs(2));
        assert_eq!(check.timing.delay_loop, Duration::from_secs(7));
        assert_eq!(
            check.timing.warmup,
            Duration::from_secs(7),
            "keepalived's default is the delay_loop"
        );
        assert!(plan.remarks.is_empty(), "{:?}", plan.remarks);
    }

    #[test]
    fn two_blocks_for_one_address_share_its_service() {
        let text = block("DR", &["10.0.0.1 80"])
            + &block("TUN", &["10.0.0.2 80"])
            + &block("NAT", &["10.0.0.3 80"]);
        let plan = plan(&text);
        assert_eq!((plan.services.len(), plan.pools.len()), (1, 3));
        assert_eq!(plan.pools[0].services, plan.pools[2].services);
        assert!(plan.remarks.is_empty(), "{:?}", plan.remarks);
        let methods: Vec<_> = plan
            .pools
            .iter()
            .map(|pool| pool.servers[0].config.method)
            .collect();
        assert_eq!(
            methods,
            [
                ForwardMethod::DirectRoute,
                ForwardMethod::Tunnel,
                ForwardMethod::Nat
            ]
        );
    }

    #[test]
    fn tunnels_are_kept_beside_their_servers() {
        let other = |text: String, host: &str| text.replace("192.0.2.10", host);
        let text = block("TUN", &["10.0.0.1 80"])
            + &other(block("TUN type gre csum", &["10.0.0.2 80"]), "192.0.2.11")
            + &other(
                block("TUN type gue port 6080", &["10.0.0.3 80"]),
                "192.0.2.12",
            );
        let plan = plan(&text);
        let mut tunnels: Vec<_> = plan
            .tunnels
            .iter()
            .map(|((_, addr), tunnel)| (addr.to_string(), *tunnel))
            .collect();
        tunnels.sort_by(|one, other| one.0.cmp(&other.0));
        let tunnel = |kind, port, checksum| TunnelInfo {
            kind,
            port,
            checksum,
        };
        assert_eq!(
            tunnels,
            [
                (
                    "10.0.0.2:80".to_owned(),
                    tunnel(TunnelKind::Gre, 0, TunnelChecksum::Full)
                ),
                (
                    "10.0.0.3:80".to_owned(),
                    tunnel(TunnelKind::Gue, 6080, TunnelChecksum::None)
                ),
            ]
        );
        assert!(
            plan.pools
                .iter()
                .all(|pool| pool.servers[0].config.method == ForwardMethod::Tunnel)
        );
    }

    #[test]
    fn local_addresses_are_of_the_services_family_and_held_where_the_group_says() {
        let text = format!(
            "local_address_group g {{\n10.0.0.200 eth1\n10.0.0.201\nfd00::200 eth1\n}}\n{}",
            block("FNAT", &["10.0.0.1 8080"])
                .replace("protocol TCP", "protocol TCP\nladdr_group_name g")
        );
        let plan = plan(&text);
        let locals = ["10.0.0.200", "10.0.0.201"].map(|addr| addr.parse::<IpAddr>().unwrap());
        assert_eq!(plan.services[0].locals, locals);
        let held: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(held, ["10.0.0.200/32 on eth1"]);
        let server = &plan.pools[0].servers[0];
        assert_eq!(server.config.method, ForwardMethod::FullNat);
        assert_eq!(server.addr.port(), 8080);
        assert!(plan.remarks.is_empty(), "{:?}", plan.remarks);
        let without = self::plan(&text.replace("laddr_group_name g", ""));
        assert!(without.remarks[0].contains("there is no local address for its FNAT servers"));
    }

    #[test]
    fn addresses_stand_on_their_own_device_or_the_instances() {
        let plan = plan(
            "vrrp_instance a {\ninterface eth0\nvirtual_router_id 1\nvirtual_ipaddress {\n192.0.2.1/24\n\
             192.0.2.2/24 dev eth1 label eth1:1\n}\n}\n",
        );
        let moving = plan.virtual_addresses.iter();
        let addresses: Vec<String> = moving.map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1/24 on eth0", "192.0.2.2/24 on eth1"]);
        assert!(plan.addresses.is_empty() && plan.remarks.is_empty());
    }

    #[test]
    fn group_is_one_pool_of_many_services() {
        let text = "virtual_server_group g {\n192.0.2.1-2 80\n192.0.2.8/30 443\nfwmark 7 inet\n2001:db8::1-2 80\n192.0.2.2 80\n}\n"
            .to_owned()
            + &block("NAT", &["10.0.0.1 80", "fd00::1 80"])
                .replace("192.0.2.10 80", "group g")
                .replace("lb_algo", "persistence_timeout 60\nlb_algo");
        let plan = plan(&text);
        let services: Vec<String> = plan.services.iter().map(|it| it.key.to_string()).collect();
        assert_eq!(
            services,
            [
                "TCP 192.0.2.1:80",
                "TCP 192.0.2.2:80",
                "TCP 192.0.2.8:443",
                "TCP 192.0.2.9:443",
                "TCP 192.0.2.10:443",
                "TCP 192.0.2.11:443",
                "FWM 7",
                "TCP [2001:db8::1]:80",
                "TCP [2001:db8::2]:80",
            ]
        );
        let [pool] = &plan.pools[..] else {
            panic!("{:?}", plan.pools)
        };
        assert_eq!(pool.title(), "group [g]:0");
        // A server stands in the services of its own family.
        for server in &pool.servers {
            let services = plan.services.iter();
            let serves =
                services.filter(|it| pool.serves(&it.key, server.addr, server.config.method));
            let expected = if server.addr.is_ipv6() { 2 } else { 7 };
            assert_eq!(serves.count(), expected, "{}", server.addr);
        }
        assert!(plan.remarks.is_empty(), "{:?}", plan.remarks);
    }

    #[test]
    fn group_of_too_many_addresses_is_left_out_and_says_what_to_do() {
        let text = "virtual_server_group g {\n10.0.0.0/8 80\n}\n".to_owned()
            + &block("NAT", &["192.168.0.1 80"]).replace("192.0.2.10 80", "group g");
        let plan = plan(&text);
        assert!(plan.services.is_empty() && plan.pools.is_empty());
        assert!(
            plan.remarks[0].contains("more than 65536 addresses; a firewall mark"),
            "{:?}",
            plan.remarks
        );
    }

    #[test]
    fn plans_of_equal_texts_are_equal() {
        let text = block("NAT", &["10.0.0.1 80", "10.0.0.2 80"]);
        assert_eq!(plan(&text), plan(&format!("# a comment\n\n{text}")));
        assert_ne!(plan(&text), plan(&text.replace("weight 3", "weight 4")));
    }
}
