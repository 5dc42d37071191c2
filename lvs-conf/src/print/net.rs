//! Address, route and rule lines.

use std::fmt::Display;
use std::time::Duration;

use super::{Milliseconds, Writer, quoted};
use crate::model::{
    Config, Encap, EncapIp, Family, Id, Insertion, Lifetime, Locked, NextHop, Prefix, Route,
    RouteKind, RouteType, Rule, RuleAction, VirtualAddress,
};

pub(super) fn statics(config: &Config, out: &mut Writer) {
    out.values(
        "static_ipaddress",
        config.static_addresses.iter().map(address),
    );
    out.values("static_routes", config.static_routes.iter().map(route));
    out.values("static_rules", config.static_rules.iter().map(rule));
}

/// Words of a line.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn flag(&mut self, name: &str, on: bool) {
        if on {
            self.0.push(name.to_owned());
        }
    }

    fn option(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.0.push(name.to_owned());
            self.0.push(value.to_string());
        }
    }

    fn name(&mut self, name: &str, value: Option<&String>) {
        self.option(name, value.map(|value| quoted(value)));
    }

    fn id(&mut self, name: &str, value: Option<&Id>) {
        self.option(name, value.map(|value| quoted(&value.to_string())));
    }

    fn locked<T>(&mut self, name: &str, value: Option<&Locked<T>>, show: impl Fn(&T) -> String) {
        if let Some(Locked { value, lock }) = value {
            self.0.push(name.to_owned());
            self.flag("lock", *lock);
            self.0.push(show(value));
        }
    }

    fn line(self) -> String {
        self.0.join(" ")
    }
}

pub(super) fn address(vip: &VirtualAddress) -> String {
    let mut words = Words::default();
    let full = if vip.address.is_ipv4() { 32 } else { 128 };
    // A prefix length beside a peer would be complained about.
    words
        .0
        .push(if vip.prefix_len == full || vip.peer.is_some() {
            vip.address.to_string()
        } else {
            format!("{}/{}", vip.address, vip.prefix_len)
        });
    words.name("dev", vip.interface.as_ref());
    words.name("scope", vip.scope.as_ref());
    words.option("brd", vip.broadcast);
    words.name("label", vip.label.as_ref());
    words.option("peer", vip.peer);
    words.flag("home", vip.flags.home);
    words.flag("-nodad", vip.flags.detect_duplicates);
    words.flag("mngtmpaddr", vip.flags.manage_temporary);
    words.flag("noprefixroute", vip.flags.no_prefix_route);
    words.flag("autojoin", vip.flags.auto_join);
    words.flag("no_track", vip.no_track);
    words.flag("use_vmac", vip.use_vmac);
    words.option(
        "preferred_lft",
        vip.preferred_lifetime.map(|lifetime| match lifetime {
            Lifetime::Forever => "forever".to_owned(),
            Lifetime::Limited(time) => time.as_secs().to_string(),
        }),
    );
    words.name("track_group", vip.track_group.as_ref());
    words.line()
}

pub(super) fn route(route: &Route) -> String {
    let mut words = Words::default();
    if route.kind != RouteKind::Named(RouteType::Unicast) {
        words.0.push(route.kind.to_string());
    }
    // A route to everywhere says nothing of its family.
    words.0.push(match (route.destination, route.family) {
        (Some(prefix), _) => prefix.to_string(),
        (None, Family::Inet) => "default".to_owned(),
        (None, Family::Inet6) => "default6".to_owned(),
    });
    words.option("src", route.source);
    words.option("from", route.from);
    words.option("via", route.gateway);
    words.option("or", route.second_gateway);
    words.name("dev", route.interface.as_ref());
    words.flag("onlink", route.onlink);
    words.id("tos", route.tos.as_ref());
    words.id("table", route.table.as_ref());
    words.id("protocol", route.protocol.as_ref());
    words.id("scope", route.scope.as_ref());
    words.option("metric", route.metric);
    words.option("encap", route.encap.as_ref().map(encap));
    words.option("expires", route.expires);
    metrics(route, &mut words);
    words.option("realms", route.realms.as_ref());
    words.id("pref", route.preference.as_ref());
    words.option(
        "ttl-propagate",
        route
            .ttl_propagate
            .map(|on| if on { "enabled" } else { "disabled" }),
    );
    words.flag(
        route.insertion.as_str(),
        route.insertion != Insertion::Prepend,
    );
    words.flag("no_track", route.no_track);
    words.name("track_group", route.track_group.as_ref());
    words.name("vrf", route.vrf.as_ref());
    for hop in &route.next_hops {
        next_hop(hop, &mut words);
    }
    words.line()
}

fn metrics(route: &Route, words: &mut Words) {
    let metrics = &route.metrics;
    words.locked("mtu", metrics.mtu.as_ref(), u32::to_string);
    words.locked("advmss", metrics.advmss.as_ref(), u32::to_string);
    words.locked("reordering", metrics.reordering.as_ref(), u32::to_string);
    words.locked("cwnd", metrics.cwnd.as_ref(), u32::to_string);
    words.locked("ssthresh", metrics.ssthresh.as_ref(), u32::to_string);
    words.option("hoplimit", metrics.hoplimit);
    words.locked("rtt", metrics.rtt.as_ref(), |time| time_word(*time, 125));
    words.locked("rttvar", metrics.rttvar.as_ref(), |time| {
        time_word(*time, 250)
    });
    words.locked("rto_min", metrics.rto_min.as_ref(), |time| {
        time_word(*time, 1_000)
    });
    words.option("window", metrics.window);
    words.option("initcwnd", metrics.initcwnd);
    words.option("initrwnd", metrics.initrwnd);
    words.option("features", metrics.ecn.then_some("ecn"));
    words.option("quickack", metrics.quickack.map(u8::from));
    words.option(
        "fastopen_no_cookie",
        metrics.fastopen_no_cookie.map(u8::from),
    );
    words.locked("congctl", metrics.congctl.as_ref(), |name| quoted(name));
}

/// A number of the kernel's unit, which is so many microseconds, if the time is one.
fn time_word(time: Duration, unit: u128) -> String {
    let micros = time.as_micros();
    if micros.is_multiple_of(unit) {
        (micros / unit).to_string()
    } else {
        format!("{}ms", Milliseconds(time))
    }
}

fn next_hop(hop: &NextHop, words: &mut Words) {
    words.0.push("nexthop".to_owned());
    words.option("via", hop.gateway);
    words.name("dev", hop.interface.as_ref());
    words.option("weight", (hop.weight != 1).then_some(hop.weight));
    words.flag("onlink", hop.onlink);
    words.option("encap", hop.encap.as_ref().map(encap));
    words.option("realms", hop.realms.as_ref());
}

fn encap(encap: &Encap) -> String {
    match encap {
        Encap::Mpls(labels) => {
            let labels: Vec<String> = labels.iter().map(u32::to_string).collect();
            format!("mpls {}", labels.join("/"))
        }
        Encap::Ila(locator) => format!("ila {}", quoted(locator)),
        Encap::Ip(header) => format!("ip {}", encap_ip(header)),
        Encap::Ip6(header) => format!("ip6 {}", encap_ip(header)),
    }
}

fn encap_ip(header: &EncapIp) -> String {
    let mut words = Words::default();
    words.option("id", header.id);
    words.option("dst", header.destination);
    words.option("src", header.source);
    words.id("tos", header.tos.as_ref());
    words.option("ttl", header.ttl);
    words.option("flags", header.flags);
    words.line()
}

pub(super) fn rule(rule: &Rule) -> String {
    let mut words = Words::default();
    words.flag("not", rule.not);
    let side = |prefix: Option<Prefix>| prefix.map(|prefix| prefix.to_string());
    words.option("from", side(rule.from));
    words.option("to", side(rule.to));
    if rule.from.is_none() && rule.to.is_none() && rule.family == Family::Inet6 {
        words.option("from", Some("::/0"));
    }
    words.option("preference", rule.preference);
    words.id("tos", rule.tos.as_ref());
    words.option(
        "fwmark",
        rule.fwmark.map(|fwmark| match fwmark.mask {
            Some(mask) => format!("{}/{mask}", fwmark.mark),
            None => fwmark.mark.to_string(),
        }),
    );
    words.option("realms", rule.realms.as_ref());
    words.option("suppress_prefixlength", rule.suppress_prefix_length);
    words.id("suppress_ifgroup", rule.suppress_group.as_ref());
    words.name("iif", rule.iif.as_ref());
    words.name("oif", rule.oif.as_ref());
    words.option("tunnel-id", rule.tunnel_id);
    words.option(
        "uidrange",
        rule.uid_range
            .map(|(first, last)| format!("{first}-{last}")),
    );
    words.id("protocol", rule.protocol.as_ref());
    words.id("ipproto", rule.ip_protocol.as_ref());
    let ports = |range: Option<(u16, u16)>| range.map(|(first, last)| format!("{first}-{last}"));
    words.option("sport", ports(rule.source_ports));
    words.option("dport", ports(rule.destination_ports));
    match &rule.action {
        RuleAction::Table(table) => words.id("table", Some(table)),
        RuleAction::L3mdev => words.flag("l3mdev", true),
        RuleAction::Goto(target) => words.option("goto", Some(target)),
        RuleAction::Nop => words.flag("nop", true),
        RuleAction::Blackhole => words.flag("blackhole", true),
        RuleAction::Unreachable => words.flag("unreachable", true),
        RuleAction::Prohibit => words.flag("prohibit", true),
    }
    words.flag("no_track", rule.no_track);
    words.name("track_group", rule.track_group.as_ref());
    words.line()
}
