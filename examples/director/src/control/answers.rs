//! The scheduler's state in the terms of the control socket.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipvsadm::protocol::{
    ConnectionInfo, CountersInfo, DestinationInfo, EngineInfo, Family, Granularity,
    LocalAddressInfo, Method, PersistenceInfo, RatesInfo, ServiceAddress, ServiceInfo,
    ServicesInfo, TimeoutsInfo, TunnelInfo,
};
use lvs_sched::{
    self as sched, ConnectionInfo as Connection, ForwardMethod, Rates, RealServer, ServiceKey,
    Stats, TemplateInfo, TemplateTarget,
};

/// All virtual services in the order of their keys, each with its real servers, newest first as the kernel lists them.
/// `tunnel` knows encapsulations.
pub fn services(
    scheduler: &sched::Director,
    tunnel: impl Fn(&ServiceKey, SocketAddr) -> Option<TunnelInfo>,
) -> ServicesInfo {
    ServicesInfo {
        ipvs_version: IPVS_VERSION.into(),
        table_size: TABLE_SIZE,
        services: scheduler
            .services()
            .iter()
            .filter_map(|each| {
                let engine = scheduler.engine(&each.key()?);
                service(each, engine.map(|engine| engine.name()), &tunnel)
            })
            .collect(),
    }
}

/// The idle times.
pub fn timeouts(scheduler: &sched::Director) -> TimeoutsInfo {
    let timeouts = scheduler.timeouts();
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    TimeoutsInfo {
        tcp: seconds(timeouts.tcp),
        tcp_fin: seconds(timeouts.tcp_fin),
        udp: seconds(timeouts.udp),
    }
}

/// One connection as of `now`.
pub fn connection(now: Instant, connection: &Connection) -> ConnectionInfo {
    ConnectionInfo {
        protocol: connection.protocol.number(),
        client: connection.client,
        vip: connection.virtual_addr,
        destination: connection.destination,
        local: connection.local,
        state: connection.state.to_string(),
        expires: connection.remaining(now).as_secs(),
        engine: None,
    }
}

/// One persistence template as of `now`: client port 0, and for a mark the mark as its virtual address.
pub fn template(now: Instant, template: &TemplateInfo) -> ConnectionInfo {
    let vip = match template.target {
        TemplateTarget::Address(addr) => addr,
        TemplateTarget::Mark(mark) => SocketAddr::new(IpAddr::V4(mark.get().into()), 0),
    };
    ConnectionInfo {
        protocol: template.protocol.map_or(0, sched::Protocol::number),
        client: SocketAddr::new(template.client, 0),
        vip,
        destination: template.destination,
        local: None,
        state: if template.assured { "ASSURED" } else { "NONE" }.into(),
        expires: template.deadline.saturating_duration_since(now).as_secs(),
        engine: template.engine.as_ref().map(|(name, data)| EngineInfo {
            name: (*name).to_owned(),
            data: String::from_utf8_lossy(data).into_owned(),
        }),
    }
}

fn service(
    service: &Arc<sched::VirtualService>,
    engine: Option<&str>,
    tunnel: impl Fn(&ServiceKey, SocketAddr) -> Option<TunnelInfo>,
) -> Option<ServiceInfo> {
    let key = service.key()?;
    let config = service.config();
    Some(ServiceInfo {
        family: match key.family() {
            sched::Family::Inet => Family::Inet,
            sched::Family::Inet6 => Family::Inet6,
        },
        service: match key {
            ServiceKey::Address {
                protocol,
                vip,
                vport,
            } => ServiceAddress::Address {
                protocol: protocol.number(),
                address: vip,
                port: vport,
            },
            ServiceKey::Mark { mark, .. } => ServiceAddress::Mark { mark: mark.get() },
        },
        scheduler: config.scheduler.to_string(),
        flags: u32::from(config.flags.bits()),
        persistence: config.persistence.map(|persistence| PersistenceInfo {
            timeout: u32::try_from(persistence.timeout.as_secs()).unwrap_or(u32::MAX),
            granularity: match persistence.granularity {
                sched::Granularity::Mask(mask) => Granularity::Netmask(mask),
                sched::Granularity::Prefix(length) => Granularity::Prefix(length),
            },
        }),
        engine: engine.map(str::to_owned),
        one_packet: config.one_packet,
        stats: counters(service.stats()),
        rates: rates(service.rates()),
        destinations: service
            .servers()
            .iter()
            .map(|server| destination(server, tunnel(&key, server.addr())))
            .collect(),
        locals: service
            .local_addresses()
            .iter()
            .map(|local| LocalAddressInfo {
                address: local.addr,
                connections: local.connections,
                conflicts: local.misses,
            })
            .collect(),
    })
}

fn destination(server: &RealServer, tunnel: Option<TunnelInfo>) -> DestinationInfo {
    let config = server.config();
    DestinationInfo {
        address: server.addr().ip(),
        port: server.addr().port(),
        method: match server.method() {
            ForwardMethod::Nat => Method::Nat,
            ForwardMethod::DirectRoute => Method::DirectRoute,
            ForwardMethod::Tunnel => Method::Tunnel,
            ForwardMethod::FullNat => Method::FullNat,
            // No server is bypassed; only connections without a server are.
            ForwardMethod::Local | ForwardMethod::Bypass => Method::Local,
        },
        weight: server.weight().get(),
        active: server.active(),
        inactive: server.inactive(),
        persistent: server.persistent(),
        upper: config.upper_threshold,
        lower: config.lower_threshold,
        tunnel: tunnel.filter(|_| server.method() == ForwardMethod::Tunnel),
        stats: counters(server.stats()),
        rates: rates(server.rates()),
    }
}

fn counters(stats: Stats) -> CountersInfo {
    CountersInfo {
        conns: stats.connections,
        inpkts: stats.in_packets,
        outpkts: stats.out_packets,
        inbytes: stats.in_bytes,
        outbytes: stats.out_bytes,
    }
}

fn rates(rates: Rates) -> RatesInfo {
    RatesInfo {
        cps: rates.connections,
        inpps: rates.in_packets,
        outpps: rates.out_packets,
        inbps: rates.in_bytes,
        outbps: rates.out_bytes,
    }
}

/// What the kernel's own balancer reports: scripts look at it.
const IPVS_VERSION: &str = "1.2.1";

/// The kernel's default number of buckets; ours has no fixed number.
const TABLE_SIZE: u32 = 4096;
