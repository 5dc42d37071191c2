//! Virtual routes and rules: from the model to what the kernel is asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::ParseIntError;

use lvs_conf::model::{
    Family, Id, NextHop as ModelHop, Route, RouteKind as ModelKind, RouteMetrics, RouteType, Rule,
    RuleAction,
};
use lvs_fwd::netlink::{Hop, KernelRoute, Rule as KernelRule, Scope};
use lvs_fwd::route::{NextHop, Prefix, RouteKind};

/// What moves with a virtual router besides its addresses.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Routes {
    /// Routes, in the order of the configuration.
    pub routes: Vec<Route>,
    /// Rules; each has its preference.
    pub rules: Vec<Rule>,
}

/// The kernel's form of a route, on this host now.
///
/// # Errors
///
/// What is missing here.
pub(crate) fn route(
    model: &Route,
    index: impl Fn(&str) -> Option<u32>,
) -> Result<KernelRoute, String> {
    let any: IpAddr = match model.family {
        Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
        Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let destination = match model.destination {
        None => Prefix::new(any, 0),
        Some(prefix) => Prefix::new(prefix.address, prefix.len),
    };
    let index_of = |name: &Option<String>| match name {
        None => Ok(0),
        Some(name) => index(name).ok_or_else(|| format!("there is no interface {name}")),
    };
    let next = |gateway: Option<IpAddr>| gateway.map_or(NextHop::OnLink, NextHop::Gateway);
    let mut hops = Vec::new();
    if model.gateway.is_some() || model.interface.is_some() {
        hops.push(Hop {
            next_hop: next(model.gateway),
            ifindex: index_of(&model.interface)?,
        });
    }
    if let Some(second) = model.second_gateway {
        hops.push(Hop {
            next_hop: NextHop::Gateway(second),
            ifindex: index_of(&model.interface)?,
        });
    }
    for hop in &model.next_hops {
        hops.push(Hop {
            next_hop: next(hop.gateway),
            ifindex: index_of(&hop.interface)?,
        });
    }
    let number = |id: &Option<Id>, names: &[(&str, u32)], otherwise: u32| {
        id.as_ref().map_or(Ok(otherwise), |id| number_of(id, names))
    };
    let small = |value: u32| u8::try_from(value).map_err(|error| error.to_string());
    Ok(KernelRoute {
        destination,
        hops,
        kind: kind(model.kind)?,
        metric: model.metric.unwrap_or_default(),
        table: number(&model.table, TABLES, TABLE_MAIN)?,
        tos: small(number(&model.tos, &[], 0)?)?,
        protocol: small(number(&model.protocol, PROTOCOLS, PROTOCOL_KEEPALIVED)?)?,
        scope: match &model.scope {
            None => Scope::Global,
            Some(scope) => crate::addresses::scope(&scope.to_string()),
        },
        source: model.source,
        mtu: model.metrics.mtu.map(|mtu| mtu.value),
    })
}

/// For deleting a route whatever scope the kernel has made of it: RT_SCOPE_NOWHERE stands for any.
pub(crate) fn any_scope(route: KernelRoute) -> KernelRoute {
    KernelRoute {
        scope: Scope::Other(255),
        ..route
    }
}

/// The kernel's form of a rule.
///
/// # Errors
///
/// A name that the system does not know, or an action that is not built.
pub(crate) fn rule(model: &Rule) -> Result<KernelRule, String> {
    let RuleAction::Table(table) = &model.action else {
        return Err("its action is not built".to_owned());
    };
    let prefix = |prefix: lvs_conf::model::Prefix| Prefix::new(prefix.address, prefix.len);
    let protocol = match &model.protocol {
        None => PROTOCOL_KEEPALIVED,
        Some(id) => number_of(id, PROTOCOLS)?,
    };
    let ip_protocol = match &model.ip_protocol {
        None => None,
        Some(id) => Some(number_of(id, IP_PROTOCOLS)?),
    };
    let small = |value: u32| u8::try_from(value).map_err(|error| error.to_string());
    Ok(KernelRule {
        from: model.from.map(prefix),
        to: model.to.map(prefix),
        iif: model.iif.clone(),
        oif: model.oif.clone(),
        mark: model
            .fwmark
            .map(|mark| (mark.mark, mark.mask.unwrap_or(u32::MAX))),
        ip_protocol: ip_protocol.map(small).transpose()?,
        source_ports: model.source_ports,
        destination_ports: model.destination_ports,
        protocol: small(protocol)?,
        ipv6: model.family == Family::Inet6,
        priority: model.preference.unwrap_or(LAST_PREFERENCE),
        table: number_of(table, TABLES)?,
    })
}

/// What of a route has no effect.
pub(super) fn ignored_of_route(model: &Route) -> Vec<&'static str> {
    let metrics = RouteMetrics {
        mtu: model.metrics.mtu,
        ..RouteMetrics::default()
    };
    let weighted = |hop: &ModelHop| hop.weight > 1;
    let parts = [
        (model.from.is_some(), "from"),
        (
            model.onlink || model.next_hops.iter().any(|hop| hop.onlink),
            "onlink",
        ),
        (
            model.encap.is_some() || model.next_hops.iter().any(|hop| hop.encap.is_some()),
            "encap",
        ),
        (model.next_hops.iter().any(weighted), "weight"),
        (model.expires.is_some(), "expires"),
        (model.realms.is_some(), "realms"),
        (model.preference.is_some(), "pref"),
        (model.ttl_propagate.is_some(), "ttl-propagate"),
        (model.vrf.is_some(), "vrf"),
        (model.metrics != metrics, "metrics other than mtu"),
    ];
    let parts = parts.into_iter();
    parts
        .filter_map(|(given, name)| given.then_some(name))
        .collect()
}

/// What of a rule has no effect.
pub(super) fn ignored_of_rule(model: &Rule) -> Vec<&'static str> {
    let parts = [
        (model.not, "not"),
        (model.tos.is_some(), "tos"),
        (model.realms.is_some(), "realms"),
        (
            model.suppress_prefix_length.is_some(),
            "suppress_prefixlength",
        ),
        (model.suppress_group.is_some(), "suppress_ifgroup"),
        (model.tunnel_id.is_some(), "tun_id"),
        (model.uid_range.is_some(), "uidrange"),
    ];
    let parts = parts.into_iter();
    parts
        .filter_map(|(given, name)| given.then_some(name))
        .collect()
}

fn kind(model: ModelKind) -> Result<RouteKind, String> {
    Ok(match model {
        ModelKind::Named(RouteType::Unicast) | ModelKind::Number(1) => RouteKind::Unicast,
        ModelKind::Named(RouteType::Local) | ModelKind::Number(2) => RouteKind::Local,
        ModelKind::Named(RouteType::Broadcast) | ModelKind::Number(3) => RouteKind::Broadcast,
        ModelKind::Named(RouteType::Blackhole) | ModelKind::Number(6) => RouteKind::Blackhole,
        ModelKind::Named(RouteType::Unreachable) | ModelKind::Number(7) => RouteKind::Unreachable,
        ModelKind::Named(RouteType::Prohibit) | ModelKind::Number(8) => RouteKind::Prohibit,
        other => return Err(format!("routes of the type {other} are not built")),
    })
}

fn number_of(id: &Id, names: &[(&str, u32)]) -> Result<u32, String> {
    match id {
        Id::Number(number) => Ok(*number),
        Id::Name(name) => {
            let known = names.iter().find(|(known, _)| known == name);
            let parsed = || match name.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => name.parse(),
            };
            known
                .map_or_else(parsed, |(_, number)| Ok(*number))
                .map_err(|_: ParseIntError| format!("the name {name} is not known here"))
        }
    }
}

const TABLE_MAIN: u32 = 254;

const TABLES: &[(&str, u32)] = &[("main", TABLE_MAIN), ("default", 253), ("local", 255)];

/// Listed by `ip route` as `keepalived`.
const PROTOCOL_KEEPALIVED: u32 = 18;

const PROTOCOLS: &[(&str, u32)] = &[
    ("kernel", 2),
    ("boot", 3),
    ("static", 4),
    ("keepalived", PROTOCOL_KEEPALIVED),
];

const IP_PROTOCOLS: &[(&str, u32)] = &[("icmp", 1), ("tcp", 6), ("udp", 17), ("sctp", 132)];

/// The first preference that is given to a rule without one.
pub(super) const LAST_PREFERENCE: u32 = 16_384;
