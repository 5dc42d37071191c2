//! What the keyword table says of defaults is what a file without the keyword gets.

use std::collections::BTreeMap;

use lvs_conf::keywords::{DefaultValue, Keyword, Place, Shape, Status, Unit, at, find};
use lvs_conf::{Config, NoFiles, Options, SourceMap, load};

/// Statements added to the blocks of a small file.
#[derive(Default, Clone)]
struct Added(BTreeMap<usize, String>);

impl Added {
    fn with(mut self, place: Place, line: impl AsRef<str>) -> Self {
        let lines = self.0.entry(place as usize).or_default();
        lines.push_str(line.as_ref());
        lines.push('\n');
        self
    }

    fn at(&self, place: Place) -> &str {
        self.0.get(&(place as usize)).map_or("", String::as_str)
    }

    /// A block with nothing in it but what it cannot do without, and the added lines.
    fn block(&self, place: Place, head: &str, least: &str) -> String {
        format!("{head} {{\n{least}\n{}}}\n", self.at(place))
    }

    /// Blocks that change what the others mean are there only if something is added to them.
    fn block_if_used(&self, place: Place, head: &str, least: &str) -> String {
        if self.at(place).is_empty() {
            return String::new();
        }
        self.block(place, head, least)
    }

    fn text(&self) -> String {
        let url = |place| self.block(place, "url", "path /x");
        let http = |place, of, head: &str| self.block(place, head, &url(of));
        let checkers = [
            self.block(Place::TcpCheck, "TCP_CHECK", ""),
            self.block(Place::PingCheck, "PING_CHECK", ""),
            http(Place::HttpGet, Place::HttpUrl, "HTTP_GET"),
            http(Place::SslGet, Place::SslUrl, "SSL_GET"),
            self.block(
                Place::SmtpCheck,
                "SMTP_CHECK",
                &self.block_if_used(Place::SmtpHost, "host", ""),
            ),
            self.block(Place::DnsCheck, "DNS_CHECK", ""),
            self.block(Place::MiscCheck, "MISC_CHECK", "misc_path /bin/m"),
            self.block(Place::UdpCheck, "UDP_CHECK", ""),
            self.block(Place::BfdCheck, "BFD_CHECK", "name b"),
            self.block(Place::FileCheck, "FILE_CHECK", "track_file f"),
        ]
        .concat();
        let server = self.block(Place::RealServer, "real_server 10.0.0.20 80", &checkers);
        let instance = format!(
            "interface eth0\nvirtual_router_id 5\nvirtual_ipaddress {{\n10.0.0.1/24\n}}\n{}{}",
            self.block_if_used(
                Place::Authentication,
                "authentication",
                "auth_type PASS\nauth_pass p"
            ),
            self.block_if_used(
                Place::AuthHmac,
                "auth_hmac",
                "key 3 0123456789abcdef0123456789abcdef\nactive_key 3"
            ),
        );
        [
            self.at(Place::Top).to_owned(),
            self.block(Place::GlobalDefs, "global_defs", ""),
            self.block(Place::TrackFile, "track_file f", "file /f"),
            self.block(Place::VrrpScript, "vrrp_script s", "script /bin/s"),
            self.block(
                Place::TrackProcess,
                "vrrp_track_process p",
                "process /bin/p",
            ),
            self.block(Place::BfdInstance, "bfd_instance b", "neighbor_ip 10.9.0.1"),
            self.block(
                Place::GarpGroup,
                "garp_group",
                "garp_interval 1\ninterface eth0",
            ),
            self.block(Place::TrackGroup, "track_group t", "group { a }"),
            self.block(Place::Instance, "vrrp_instance a", &instance),
            self.block(Place::SyncGroup, "vrrp_sync_group y", "group { a }"),
            self.block(Place::VirtualServer, "virtual_server 10.0.0.1 80", &server),
            self.block(Place::Ssl, "SSL", ""),
        ]
        .concat()
    }

    fn config(&self) -> Config {
        let mut sources = SourceMap::new();
        let id = sources.add("x", self.text());
        load(&mut sources, id, &NoFiles, &Options::default()).config
    }
}

/// The block that a block stands in.
fn around(place: Place) -> Place {
    match place {
        Place::Authentication | Place::AuthHmac => Place::Instance,
        Place::RealServer => Place::VirtualServer,
        Place::HttpUrl => Place::HttpGet,
        Place::SslUrl => Place::SslGet,
        // What the hosts of a check do not say is the real server's.
        Place::SmtpHost
        | Place::TcpCheck
        | Place::PingCheck
        | Place::HttpGet
        | Place::SslGet
        | Place::SmtpCheck
        | Place::DnsCheck
        | Place::MiscCheck
        | Place::UdpCheck
        | Place::BfdCheck
        | Place::FileCheck => Place::RealServer,
        _ => Place::GlobalDefs,
    }
}

/// What must stand before a keyword for it to count.
fn ground(place: Place, name: &str) -> Added {
    let added = Added::default();
    match name {
        _ if place == Place::AuthHmac => added.with(place, "active_key 3"),
        _ if place == Place::SmtpHost => added.with(place, "connect_port 25"),
        "owner_ignore_adverts" => added.with(place, "priority 255"),
        "sh-port" | "sh-fallback" => added.with(place, "lb_algo sh"),
        "mh-port" | "mh-fallback" => added.with(place, "lb_algo mh"),
        "timer_expired_backup" => added.with(place, "nopreempt"),
        "preempt" => added.with(place, "nopreempt"),
        "vmac_xmit_base" => added.with(place, "use_vmac"),
        "track_src_ip" => added.with(place, "mcast_src_ip 10.0.0.3"),
        "regex_no_match" | "regex_min_offset" => added.with(place, "regex x"),
        "sorry_server_inhibit" | "sorry_server_lvs_method" => {
            added.with(place, "sorry_server 10.0.0.99")
        }
        _ => added,
    }
}

/// Arguments that are not the default.
fn other(row: &Keyword) -> String {
    match row.name {
        "lvs_method" | "lb_kind" => return "DR".to_owned(),
        "vrrp_garp_extra_if" => return "all 7".to_owned(),
        "require_reply" => return "0a".to_owned(),
        "lvs_sync_daemon" => return "eth0".to_owned(),
        "script_user" => return "nobody".to_owned(),
        // The default is one of the two.
        "vrrp_version" | "version" => return "3".to_owned(),
        _ => {}
    }
    let range = row.range.filter(|range| range.unit != Unit::Bytes);
    match range {
        Some(range) => {
            let per = range.unit.micros();
            (7_i64)
                .clamp((range.least + per - 1) / per, range.most / per)
                .to_string()
        }
        None if row.args.starts_with("[BOOL") => "yes".to_owned(),
        None if row.args.starts_with('<') => "/x".to_owned(),
        None => String::new(),
    }
}

/// The model keeps that nothing was said, and whoever reads it applies the default: its documentation names it.
const KEPT_APART: &[(Place, &str)] = &[
    (Place::GlobalDefs, "smtp_alert_vrrp"),
    (Place::GlobalDefs, "smtp_alert_checker"),
    (Place::GlobalDefs, "vrrp_garp_lower_prio_delay"),
    (Place::GlobalDefs, "vrrp_garp_lower_prio_repeat"),
    (Place::GlobalDefs, "vmac_prefix"),
    (Place::GlobalDefs, "vmac_addr_prefix"),
    (Place::GlobalDefs, "snmp_rs_stats_update_interval"),
    (Place::VrrpScript, "user"),
    (Place::SyncGroup, "notify_priority_changes"),
    (Place::Instance, "notify_priority_changes"),
];

/// Where a keyword is that others take their default from.
fn origin(place: Place, name: &str, own: &str) -> (Place, &'static Keyword) {
    let places = [
        place,
        around(place),
        around(around(place)),
        Place::GlobalDefs,
    ];
    places
        .into_iter()
        .skip(usize::from(name == own))
        .find_map(|place| find(place, name).map(|row| (place, row)))
        .unwrap_or_else(|| panic!("{own} in {place}: there is no `{name}`"))
}

#[test]
fn every_default_of_the_table_is_what_a_file_without_the_keyword_gets() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for place in Place::ALL.iter().copied() {
        for row in at(place).filter(|row| !matches!(row.status, Status::Unknown(_))) {
            let name = row.name;
            let without = ground(place, name);
            let given = |args: &str| without.clone().with(place, format!("{name} {args}"));
            let apart = KEPT_APART.contains(&(place, name));
            let mut check = |holds: bool, what: String| {
                checked += 1;
                if !holds {
                    wrong.push(format!("{place}: {name}: {what}"));
                }
            };
            match row.default {
                DefaultValue::Value(args) => check(
                    (without.config() == given(args).config()) != apart,
                    format!("`{name} {args}` is not the default"),
                ),
                DefaultValue::Of(of) => {
                    let (there, origin) = origin(place, of, name);
                    let args = other(origin);
                    let line = format!("{} {args}", origin.name);
                    let inherited = without.clone().with(there, &line);
                    let both = without
                        .clone()
                        .with(there, &line)
                        .with(place, format!("{name} {args}"));
                    check(
                        (inherited.config() == both.config()) != apart,
                        format!("is not that of `{line}` in {there}"),
                    );
                    check(
                        inherited.config() != without.config(),
                        format!("`{line}` in {there} changes nothing"),
                    );
                }
                DefaultValue::Off => check(
                    without.config() != given(&other(row)).config(),
                    format!("`{name} {}` changes nothing", other(row)),
                ),
                DefaultValue::None | DefaultValue::Told(_) => {}
            }
            if let Some(args) = row.bare {
                check(
                    given("").config() == given(args).config(),
                    format!("`{name}` alone is not `{name} {args}`"),
                );
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {checked}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(checked > 200, "most rows have a default: {checked}");
}

#[test]
fn numbers_have_a_range_and_most_keywords_a_default() {
    let mut bare = Vec::new();
    for place in Place::ALL.iter().copied() {
        for row in at(place) {
            let is_number = [
                "<UINT>",
                "<INT>",
                "<SECONDS>",
                "<MILLISECONDS>",
                "<MICROSECONDS>",
                "<BYTES>",
                "[INT]",
            ]
            .iter()
            .any(|word| row.args.starts_with(word));
            let usable = !matches!(row.status, Status::Unknown(_));
            if usable && row.shape == Shape::Leaf && is_number && row.range.is_none() {
                bare.push((place, row.name));
            }
        }
    }
    // Any number will do for a new file.
    assert_eq!(bare, [(Place::TrackFile, "init_file")]);
}
