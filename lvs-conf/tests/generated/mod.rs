//! Configurations of every keyword that the table has.

use lvs_conf::keywords::{Keyword, Place, Shape, Status, Unit, at};
use proptest::prelude::*;

/// Words that may be arguments, by the place and the name of the keyword.
fn argument(row: &'static Keyword, place: Place) -> BoxedStrategy<String> {
    let text =
        |all: &'static [&'static str]| prop::sample::select(all).prop_map(str::to_owned).boxed();
    if let Some(range) = row.range
        && range.unit != Unit::Bytes
    {
        let per = range.unit.micros();
        let most = range.most.min(range.least.saturating_add(5_000_000_000)) / per;
        let least = (range.least + per - 1) / per;
        return (least..=most).prop_map(|n| n.to_string()).boxed();
    }
    match (place, row.name) {
        (Place::Instance, "state") => text(&["MASTER", "BACKUP"]),
        (_, "protocol") => text(&["TCP", "UDP", "SCTP"]),
        (_, "lb_algo" | "lvs_sched") => text(&["rr", "sh", "mh", "wlc"]),
        (_, "lvs_method" | "lb_kind" | "sorry_server_lvs_method") => text(&[
            "NAT",
            "DR",
            "TUN",
            "TUN type gue port 5 csum",
            "TUN type gre",
            "FNAT",
        ]),
        (Place::Authentication, "auth_type") => text(&["PASS", "AH"]),
        (Place::DnsCheck, "type") => text(&["A", "mx", "SOA"]),
        (_, "http_protocol") => text(&["1.0", "1.0c", "1.1"]),
        (_, "digest") => text(&["0123456789abcdef0123456789abcdef"]),
        (_, "status_code") => text(&["200", "200-204 301"]),
        (_, "payload" | "require_reply") => text(&["0a1b", "ff 3"]),
        (_, "lvs_timeouts") => text(&["tcp 5", "udp 7 tcpfin 3"]),
        (_, "lvs_sync_daemon") => text(&["eth0 inst a id 5", "eth0 port 7 ttl 3"]),
        (_, "persistence_granularity") => text(&["255.255.255.0", "64"]),
        (_, "use_vmac") => text(&["", "vm1", "02:00:00:00:00:05"]),
        (_, "use_ipvlan") => text(&["", "ip1 private", "10.0.0.77/24 vepa"]),
        (_, "umask") => text(&["022", "IRGRP | IROTH"]),
        (_, "include_check") => text(&["", "match +brace_match", "-read"]),
        (_, "vrrp_rx_bufs_policy") => text(&["MTU", "advert", "4096"]),
        (_, "cpu_affinity") => text(&["0 1"]),
        (_, "key") if place == Place::AuthHmac => {
            text(&["1 0123456789abcdef0123456789abcdef", "2 file:/k"])
        }
        (_, "anti_replay") => text(&["time", "monotonic"]),
        (_, "mode") => text(&["enforce", "permissive"]),
        (_, "mcast_dst_ip" | "vrrp_mcast_group4") => text(&["224.0.0.99"]),
        (_, "vrrp_mcast_group6") => text(&["ff02::99"]),
        (_, "smtp_server") => text(&["10.0.0.3 26", "mail"]),
        (_, "init_file") => text(&["", "5 overwrite"]),
        (_, "param_match") => text(&["", "initial", "partial"]),
        (_, "ip_family") => text(&["inet"]),
        (_, "vrrp_garp_extra_if" | "garp_extra_if") => text(&["all 5", "7"]),
        (_, "virtualhost" | "snmp_name" | "router_id" | "helo_name") => text(&["n", "\"a b#c\""]),
        _ if row.name.ends_with("cpu_affinity") => text(&["0", "0 3"]),
        _ if row.args.starts_with("[BOOL") => text(&["", "on", "no"]),
        _ if row.args.starts_with("<CMD") => text(&[
            "/bin/x",
            "\"/bin/x 'a b' \\\"c\\\" $d\" nobody",
            "\"/bin/y \\\\\\\\ #z\" u g",
        ]),
        _ if row.args.contains("ADDRESS") || row.args.contains("IPADDR") => {
            text(&["10.0.0.9", "10.0.0.8"])
        }
        _ if row.args.contains("PATTERN") => text(&["\"a.*b\"", "'x\"y'"]),
        _ if row.args.is_empty() => text(&[""]),
        _ if row.args.starts_with('[') => text(&["", "5"]),
        _ => text(&["5", "word", "\"two words\"", "5 5"]),
    }
}

/// Lines of a value block.
fn lines(name: &str) -> &'static [&'static str] {
    match name {
        "virtual_ipaddress" | "virtual_ipaddress_excluded" | "static_ipaddress" => &[
            "10.0.1.1/24 dev eth1",
            "10.0.1.2/24 brd + label eth1:x scope link",
            "10.0.1.3 peer 10.0.1.4 no_track",
            "10.0.1.5/30 noprefixroute preferred_lft 7 home",
        ],
        "virtual_routes" | "static_routes" => &[
            "10.1.0.0/16 via 10.0.1.9 dev eth1 metric 5 table 100",
            "blackhole 10.2.0.0/16",
            "default via 10.0.1.9 or 10.0.1.8 src 10.0.1.1 mtu lock 1400 rtt 800 rto_min 1s",
            "fd00::/64 dev eth1 expires 5 pref high append",
            "10.3.0.0/16 nexthop via 10.0.1.9 weight 2 nexthop dev eth2 onlink",
            "10.4.0.0/16 dev eth1 encap mpls 5/6 no_track protocol 9",
            "to 10.5.0.0/16 encap ip id 5 dst 10.9.9.9 ttl 5 dev eth1 quickack 1 features ecn",
        ],
        "virtual_rules" | "static_rules" => &[
            "from 10.0.0.0/8 to 10.1.0.0/16 table 5 preference 7",
            "not from fd00::/64 lookup main iif eth1 fwmark 0x10/0xff",
            "to 10.0.0.0/8 goto 50 preference 5 sport 5-7 no_track protocol 3",
            "from 10.0.0.0/8 blackhole uidrange 5-7 ipproto 6 tos 4",
        ],
        "unicast_peer" => &["10.0.0.30", "10.0.0.31 min_ttl 5 max_ttl 9"],
        "group" => &["a"],
        "notification_email" => &["a@b", "\"N <c@d>\""],
        "track_interface" => &["eth1 weight 5", "eth2", "eth3 weight 5 reverse"],
        "track_script" => &["s", "s weight 5 reverse"],
        "track_file" => &["f weight 0", "f weight 3 noreverse"],
        "track_process" => &["p"],
        "track_bfd" => &["b weight -5"],
        "interfaces" => &["eth4 eth5", "eth6"],
        "linkbeat_interfaces" => &["eth1 MII", "eth2"],
        "interface_up_down_delays" => &["eth1 0.5 3", "eth2 1"],
        "local_address_group" => &["10.0.0.200 eth1", "10.0.0.201", "fd00::200 eth2"],
        "virtual_server_group" => &[
            "10.0.0.40 80",
            "10.0.0.50-60",
            "10.0.0.64/26 80",
            "fwmark 5 inet",
        ],
        _ => &[],
    }
}

/// Statements of a place, any of its keywords.
fn statements(place: Place, depth: u32) -> BoxedStrategy<String> {
    let rows: Vec<&'static Keyword> = at(place)
        .filter(|row| !matches!(row.status, Status::Unknown(_)))
        .filter(|row| depth > 0 || !matches!(row.shape, Shape::Block(_)))
        .filter(|row| place != Place::Top || matches!(row.shape, Shape::Leaf | Shape::Values))
        .collect();
    if rows.is_empty() {
        return Just(String::new()).boxed();
    }
    let statement = prop::sample::select(rows).prop_flat_map(move |row| match row.shape {
        Shape::Leaf => argument(row, place)
            .prop_map(move |argument| format!("{} {argument}\n", row.name))
            .boxed(),
        Shape::Values => {
            let name = match row.name {
                "virtual_server_group" | "local_address_group" => " g",
                _ => "",
            };
            let all = lines(row.name);
            prop::sample::subsequence(all, 0..=all.len())
                .prop_map(move |lines| format!("{}{name} {{\n{}\n}}\n", row.name, lines.join("\n")))
                .boxed()
        }
        Shape::Block(inside) => statements(inside, depth - 1)
            .prop_map(move |body| {
                let (args, least) = least(inside);
                format!("{} {args} {{\n{least}{body}}}\n", row.name)
            })
            .boxed(),
    });
    prop::collection::vec(statement, 0..8)
        .prop_map(|all| all.concat())
        .boxed()
}

/// Arguments and first statements that make a block usable.
fn least(place: Place) -> (&'static str, &'static str) {
    match place {
        Place::TrackFile => ("f", "file /f\n"),
        Place::VrrpScript => ("s", "script /bin/s\n"),
        Place::TrackProcess => ("p", "process /bin/p\n"),
        Place::BfdInstance => ("b", "neighbor_ip 10.9.0.1\n"),
        Place::TrackGroup => ("t", "group { a }\n"),
        Place::SyncGroup => ("y", "group { a }\n"),
        Place::Instance => (
            "a",
            "interface eth0\nvirtual_router_id 5\nvirtual_ipaddress {\n10.0.0.1/24\n}\n",
        ),
        Place::VirtualServer => (
            "10.0.0.1 80",
            "lb_algo sh\nlb_kind NAT\nprotocol TCP\nreal_server 10.0.0.20 80 {\nweight 3\n}\n",
        ),
        Place::RealServer => ("10.0.0.21 81", ""),
        Place::HttpGet | Place::SslGet => ("", "url {\npath /\n}\n"),
        Place::HttpUrl | Place::SslUrl => ("", "path /x\n"),
        Place::MiscCheck => ("", "misc_path /bin/m\n"),
        Place::BfdCheck => ("", "name b\n"),
        Place::FileCheck => ("", "track_file f\n"),
        Place::AuthHmac => ("", "key 3 0123456789abcdef0123456789abcdef\nactive_key 3\n"),
        Place::Authentication => ("", "auth_type PASS\nauth_pass secret\n"),
        Place::GarpGroup => ("", "garp_interval 1\n"),
        _ => ("", ""),
    }
}

/// Parts of a file that is usable whichever of them it has, in order. The second of two may replace the first.
pub(crate) fn sections() -> impl Strategy<Value = Vec<String>> {
    let block = |place: Place, keyword: &'static str| {
        let (args, least) = least(place);
        statements(place, 3).prop_map(move |body| format!("{keyword} {args} {{\n{least}{body}}}\n"))
    };
    let second = |text: String, from: &str, to: &str| text.replace(from, to);
    (
        (
            statements(Place::Top, 0),
            block(Place::GlobalDefs, "global_defs"),
            block(Place::TrackFile, "track_file"),
            block(Place::VrrpScript, "vrrp_script"),
            block(Place::TrackProcess, "vrrp_track_process"),
            block(Place::BfdInstance, "bfd_instance"),
            block(Place::GarpGroup, "garp_group"),
            block(Place::TrackGroup, "track_group"),
        ),
        (
            block(Place::Instance, "vrrp_instance"),
            block(Place::Instance, "vrrp_instance").prop_map(move |text| {
                second(
                    second(text, "vrrp_instance a", "vrrp_instance c"),
                    "virtual_router_id 5",
                    "virtual_router_id 6",
                )
            }),
            block(Place::SyncGroup, "vrrp_sync_group"),
            block(Place::VirtualServer, "virtual_server"),
            block(Place::VirtualServer, "virtual_server")
                .prop_map(move |text| second(text, "10.0.0.1 80", "10.0.0.2 80")),
            block(Place::Ssl, "SSL"),
        ),
    )
        .prop_map(|((a, b, c, d, e, f, g, h), (i, j, k, l, m, n))| {
            vec![a, b, c, d, e, f, g, h, i, j, k, l, m, n]
        })
}
