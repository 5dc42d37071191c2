//! Virtual services and their real servers (`-L`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::protocol::{
    DestinationInfo, Family, Granularity, Method, PersistenceInfo, ServiceAddress, ServiceId,
    ServiceInfo, ServicesInfo, TunnelChecksum, TunnelInfo, TunnelKind,
};

use super::names::Names;
use super::{cut, endpoint, numbers, protocol_name};
use crate::command::List;
use crate::values;

/// All services after a version line.
pub fn listing(info: &ServicesInfo, list: &List, names: &Names) -> String {
    let mut services: Vec<&ServiceInfo> = info.services.iter().collect();
    if !list.nosort {
        services.sort_by_key(|service| service_order(service));
    }
    let mut text = format!(
        "IP Virtual Server version {} (size={})\n",
        info.ipvs_version, info.table_size
    );
    let view = View::new(list, names);
    text.push_str(&view.titles());
    for service in services {
        text.push_str(&view.block(service));
    }
    text
}

/// One service, without the version line. `None` if the director has no such service.
pub fn single(info: &ServicesInfo, id: ServiceId, list: &List, names: &Names) -> Option<String> {
    let service = info
        .services
        .iter()
        .find(|service| service.family == id.family && service.service == id.service)?;
    let view = View::new(list, names);
    Some(view.titles() + &view.block(service))
}

/// Which columns are shown. When several are asked for, the first of this order wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    TunInfo,
    Default,
}

struct View<'a> {
    mode: Mode,
    exact: bool,
    nosort: bool,
    /// `None`: numbers.
    names: Option<&'a Names>,
}

impl<'a> View<'a> {
    fn new(list: &List, names: &'a Names) -> Self {
        let mode = if list.stats {
            Mode::Stats
        } else if list.rate {
            Mode::Rate
        } else if list.thresholds {
            Mode::Thresholds
        } else if list.persistent_conn {
            Mode::PersistentConn
        } else if list.tun_info {
            Mode::TunInfo
        } else {
            Mode::Default
        };
        Self {
            mode,
            exact: list.exact,
            nosort: list.nosort,
            names: (!list.numeric).then_some(names),
        }
    }

    fn titles(&self) -> String {
        let padded = "Prot LocalAddress:Port           ";
        let servers = "  -> RemoteAddress:Port";
        match self.mode {
            Mode::Stats => {
                format!("{padded}    Conns   InPkts  OutPkts  InBytes OutBytes\n{servers}\n")
            }
            Mode::Rate => {
                format!("{padded}      CPS    InPPS   OutPPS    InBPS   OutBPS\n{servers}\n")
            }
            Mode::Thresholds => {
                format!("{padded} Uthreshold Lthreshold ActiveConn InActConn \n{servers}\n")
            }
            Mode::PersistentConn => {
                format!("{padded} Weight    PersistConn ActiveConn InActConn \n{servers}\n")
            }
            Mode::TunInfo => format!(
                "Prot LocalAddress:Port Scheduler Flags\n{servers}           Forward TunnelInfo    Weight ActiveConn InActConn\n"
            ),
            Mode::Default => format!(
                "Prot LocalAddress:Port Scheduler Flags\n{servers}           Forward Weight ActiveConn InActConn\n"
            ),
        }
    }

    fn block(&self, service: &ServiceInfo) -> String {
        let mut text = self.service_line(service);
        let mut destinations: Vec<&DestinationInfo> = service.destinations.iter().collect();
        if !self.nosort {
            destinations.sort_by_key(|destination| (destination.address, destination.port));
        }
        let protocol = match service.service {
            ServiceAddress::Address { protocol, .. } => Some(protocol),
            ServiceAddress::Mark { .. } => None,
        };
        for destination in destinations {
            text.push('\n');
            text.push_str(&self.destination_line(destination, protocol));
        }
        text.push('\n');
        text
    }

    fn service_line(&self, service: &ServiceInfo) -> String {
        let name = self.service_name(service);
        match self.mode {
            Mode::Stats => {
                let s = service.stats;
                let values = [s.conns, s.inpkts, s.outpkts, s.inbytes, s.outbytes];
                format!("{name:<33}{}", numbers::columns(&values, self.exact))
            }
            Mode::Rate => {
                let r = service.rates;
                let values = [r.cps, r.inpps, r.outpps, r.inbps, r.outbps];
                format!("{name:<33}{}", numbers::columns(&values, self.exact))
            }
            Mode::Thresholds | Mode::PersistentConn | Mode::TunInfo | Mode::Default => {
                format!("{name} {}", settings(service))
            }
        }
    }

    fn service_name(&self, service: &ServiceInfo) -> String {
        let name = match service.service {
            ServiceAddress::Address {
                protocol,
                address,
                port,
            } => format!(
                "{:<4} {}",
                protocol_name(protocol),
                endpoint(address, port, Some(protocol), self.names)
            ),
            ServiceAddress::Mark { mark } => match service.family {
                Family::Inet => format!("FWM  {mark}"),
                Family::Inet6 => format!("FWM  {mark} IPv6"),
            },
        };
        match service.family {
            Family::Inet => cut(name, 33),
            Family::Inet6 => name,
        }
    }

    fn destination_line(&self, destination: &DestinationInfo, protocol: Option<u8>) -> String {
        let d = destination;
        let mut name = endpoint(d.address, d.port, protocol, self.names);
        if d.address.is_ipv4() {
            name = cut(name, 28);
        }
        let rest = match self.mode {
            Mode::Stats => {
                let s = d.stats;
                let values = [s.conns, s.inpkts, s.outpkts, s.inbytes, s.outbytes];
                return format!("  -> {name:<28}{}", numbers::columns(&values, self.exact));
            }
            Mode::Rate => {
                let r = d.rates;
                return format!(
                    "  -> {name:<28} {:>8} {:>8} {:>8}{}",
                    r.cps,
                    r.inpps,
                    r.outpps,
                    numbers::columns(&[r.inbps, r.outbps], self.exact)
                );
            }
            Mode::Thresholds => format!("{:<10} {:<10}", d.upper, d.lower),
            Mode::PersistentConn => format!("{:<9} {:<11}", d.weight, d.persistent),
            Mode::TunInfo => format!(
                "{:<7} {:<13} {:<6}",
                method_name(d.method),
                tunnel(d),
                d.weight
            ),
            Mode::Default => format!("{:<7} {:<6}", method_name(d.method), d.weight),
        };
        format!("  -> {name:<28} {rest} {:<10} {:<10}", d.active, d.inactive)
    }
}

/// Scheduler, flags, persistence and `ops`.
fn settings(service: &ServiceInfo) -> String {
    let mut text = service.scheduler.clone();
    if service.flags & values::ALL_FLAGS != 0 {
        let names = values::flag_names(&service.scheduler, service.flags);
        text.push_str(&format!(" ({})", names.join(",")));
    }
    if let Some(persistence) = &service.persistence {
        text.push_str(&persistent(persistence));
        if let Some(engine) = &service.engine {
            text.push_str(&format!(" pe {engine}"));
        }
    }
    if service.one_packet {
        text.push_str(" ops");
    }
    text
}

fn persistent(persistence: &PersistenceInfo) -> String {
    let mut text = format!(" persistent {}", persistence.timeout);
    match persistence.granularity {
        Granularity::Netmask(Ipv4Addr::BROADCAST) | Granularity::Prefix(128) => {}
        Granularity::Netmask(mask) => text.push_str(&format!(" mask {mask}")),
        Granularity::Prefix(length) => text.push_str(&format!(" mask {length}")),
    }
    text
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Nat => "Masq",
        Method::DirectRoute => "Route",
        Method::Tunnel => "Tunnel",
        Method::FullNat => "FullNat",
        Method::Local => "Local",
    }
}

fn tunnel(destination: &DestinationInfo) -> String {
    if destination.method != Method::Tunnel {
        return "n/a".into();
    }
    let Some(TunnelInfo {
        kind,
        port,
        checksum,
    }) = destination.tunnel
    else {
        return "ipip".into();
    };
    let checksum = match checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Full => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match kind {
        TunnelKind::Ipip => "ipip".into(),
        TunnelKind::Gue => format!("gue:{port}:{checksum}"),
        TunnelKind::Gre => format!("gre:{checksum}"),
    }
}

/// Address services first, by family, protocol, address and port; then marks.
pub(super) fn service_order(service: &ServiceInfo) -> (u32, Family, u8, IpAddr, u16) {
    match service.service {
        ServiceAddress::Address {
            protocol,
            address,
            port,
        } => (0, service.family, protocol, address, port),
        ServiceAddress::Mark { mark } => {
            let none = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            (mark, service.family, 0, none, 0)
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
