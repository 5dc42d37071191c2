use proptest::prelude::*;

use super::*;
use crate::files::NoFiles;
use crate::load::load;
use crate::options::Options;
use crate::source::SourceMap;

fn config(text: &str) -> Config {
    let mut sources = SourceMap::new();
    let id = sources.add("x", text);
    load(&mut sources, id, &NoFiles, &Options::default()).config
}

fn changes(old: &str, new: &str) -> Vec<String> {
    diff(&config(old), &config(new))
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn instance(lines: &str) -> String {
    format!(
        "vrrp_instance a {{\ninterface eth0\nvirtual_router_id 5\n{lines}\nvirtual_ipaddress {{\n10.0.0.1\n}}\n}}\n"
    )
}

fn service(lines: &str, server: &str) -> String {
    format!(
        "virtual_server 10.0.0.1 80 {{\nlb_algo rr\nlb_kind NAT\nprotocol TCP\n{lines}\nreal_server 10.0.0.2 80 {{\n{server}\n}}\n}}\n"
    )
}

const I: &str = "IPv4 instance 5 on eth0";
const S: &str = "TCP 10.0.0.1:80";

/// Old, new, and what changes: one row for each rule of the reload.
fn rules() -> Vec<(String, String, Vec<String>)> {
    let global = |lines: &str| format!("global_defs {{\n{lines}\n}}\n");
    let row = |old: String, new: String, changes: &[&str]| {
        let changes = changes
            .iter()
            .map(|change| change.replace("{I}", I).replace("{S}", S))
            .collect();
        (old, new, changes)
    };
    let none = String::new();
    vec![
        row(
            "net_namespace a\n".into(),
            none.clone(),
            &["change net_namespace (needs a restart)"],
        ),
        row(
            "instance a\n".into(),
            "instance b\n".into(),
            &["change instance (needs a restart)"],
        ),
        row(
            global("nftables a"),
            global("nftables b"),
            &["change nftables (needs a restart)"],
        ),
        row(
            global("disable_local_igmp"),
            none.clone(),
            &["change disable_local_igmp (needs a restart)"],
        ),
        row(
            global("lvs_timeouts tcp 5"),
            none.clone(),
            &["change global settings of lvs_timeouts"],
        ),
        row(
            global("lvs_sync_daemon eth0"),
            global("lvs_sync_daemon eth1"),
            &["change global settings of lvs_sync_daemon"],
        ),
        // The name is not what an instance is known by.
        row(
            instance(""),
            instance("").replace("instance a", "instance b"),
            &["change {I}"],
        ),
        row(instance(""), instance("priority 50"), &["change {I}"]),
        row(
            instance(""),
            instance("").replace("_id 5", "_id 6"),
            &["remove {I}", "add IPv4 instance 6 on eth0"],
        ),
        row(
            instance(""),
            instance("").replace("eth0", "eth1"),
            &["remove {I}", "add IPv4 instance 5 on eth1"],
        ),
        row(
            instance(""),
            instance("use_vmac"),
            &["remove {I}", "add IPv4 instance 5 on eth0 with VMAC"],
        ),
        row(
            instance(""),
            instance("mcast_dst_ip 224.0.0.9"),
            &["remove {I}", "add IPv4 instance 5 on eth0 to 224.0.0.9"],
        ),
        row(
            instance("unicast_src_ip 10.0.0.8\nunicast_peer {\n10.0.0.9\n}"),
            instance("unicast_src_ip 10.0.0.7\nunicast_peer {\n10.0.0.9\n}"),
            &["remove {I} from 10.0.0.8", "add {I} from 10.0.0.7"],
        ),
        row(
            instance("unicast_src_ip 10.0.0.8\nunicast_peer {\n10.0.0.9\n}"),
            instance("unicast_src_ip 10.0.0.8\nunicast_peer {\n10.0.0.10\n}"),
            &["change {I} from 10.0.0.8"],
        ),
        // Broadcast, peer, flags and lifetime of an address are not compared; the two blocks are one pool.
        row(
            instance("virtual_ipaddress_excluded {\n10.0.0.3/24 brd 10.0.0.255\n}"),
            instance("virtual_ipaddress_excluded {\n10.0.0.3/24\n}"),
            &[],
        ),
        row(
            instance("virtual_ipaddress_excluded {\n10.0.0.3/24 label x:1\n}"),
            instance("virtual_ipaddress_excluded {\n10.0.0.3/24\n}"),
            &[
                "remove address 10.0.0.3/24 on eth0 of {I}",
                "add address 10.0.0.3/24 on eth0 of {I}",
            ],
        ),
        row(
            instance("virtual_ipaddress {\n10.0.0.3\n}"),
            instance("virtual_ipaddress_excluded {\n10.0.0.3\n}"),
            &["change {I}"],
        ),
        // An address that comes or goes says so itself, the instance stays as it is.
        row(
            instance(""),
            instance("virtual_ipaddress {\n10.0.0.3\n}"),
            &["add address 10.0.0.3 on eth0 of {I}"],
        ),
        row(
            instance("virtual_ipaddress {\n10.0.0.3\n10.0.0.4\n}"),
            instance("virtual_ipaddress {\n10.0.0.4\n10.0.0.5\n}"),
            &[
                "remove address 10.0.0.3 on eth0 of {I}",
                "add address 10.0.0.5 on eth0 of {I}",
            ],
        ),
        row(
            instance("virtual_ipaddress {\n10.0.0.3\n}"),
            instance("priority 50\nvirtual_ipaddress {\n10.0.0.4\n}"),
            &[
                "remove address 10.0.0.3 on eth0 of {I}",
                "add address 10.0.0.4 on eth0 of {I}",
                "change {I}",
            ],
        ),
        row(
            instance("virtual_routes {\n10.9.0.0/16 dev eth0\n}"),
            instance("virtual_routes {\n10.9.0.0/16 dev eth1\n}"),
            &[
                "remove route 10.9.0.0/16 dev eth0 of {I}",
                "add route 10.9.0.0/16 dev eth1 of {I}",
            ],
        ),
        row(
            "vrrp_script s {\nscript /a\n}\n".into(),
            "vrrp_script s {\nscript /b\n}\n".into(),
            &["change vrrp_script s"],
        ),
        row(
            "static_ipaddress {\n10.1.0.1/24 dev x\n}\n".into(),
            "static_ipaddress {\n10.1.0.2/24 dev x\n}\n".into(),
            &[
                "remove static address 10.1.0.1/24 on x",
                "add static address 10.1.0.2/24 on x",
            ],
        ),
        row(
            format!(
                "{}vrrp_sync_group g {{\ngroup {{\na\n}}\n}}\n",
                instance("")
            ),
            instance(""),
            &["remove vrrp_sync_group g"],
        ),
        row(
            service("", ""),
            service("persistence_timeout 5", ""),
            &["change service {S}"],
        ),
        row(
            service("", ""),
            service("", "").replace("TCP", "UDP"),
            &["remove service {S}", "add service UDP 10.0.0.1:80"],
        ),
        row(
            service("", "weight 5"),
            service("", "weight 6"),
            &["change server 10.0.0.2:80 of {S}"],
        ),
        row(
            service("", ""),
            service("", "").replace("10.0.0.2 80", "10.0.0.2 81"),
            &[
                "remove server 10.0.0.2:80 of {S}",
                "add server 10.0.0.2:81 of {S}",
            ],
        ),
        row(
            service("sorry_server 10.0.0.9 80", ""),
            service("sorry_server 10.0.0.8 80", ""),
            &[
                "remove sorry server 10.0.0.9:80 of {S}",
                "add sorry server 10.0.0.8:80 of {S}",
            ],
        ),
        row(
            service("quorum 2", "weight 5"),
            service("quorum 3", "weight 5"),
            &["change quorum of {S}"],
        ),
        // Timers are not what a checker is known by, its port is.
        row(
            service("", "TCP_CHECK {\nretry 2\n}"),
            service("", "TCP_CHECK {\nretry 3\n}"),
            &["change TCP_CHECK 1 of server 10.0.0.2:80 of {S}"],
        ),
        row(
            service("", "TCP_CHECK {\nconnect_port 2\n}"),
            service("", "TCP_CHECK {\nconnect_port 3\n}"),
            &[
                "remove TCP_CHECK 1 of server 10.0.0.2:80 of {S}",
                "add TCP_CHECK 1 of server 10.0.0.2:80 of {S}",
            ],
        ),
        row(
            format!(
                "virtual_server_group g {{\n10.0.0.1 80\n}}\n{}",
                service("", "").replace("10.0.0.1 80", "group g")
            ),
            format!(
                "virtual_server_group g {{\n10.0.0.3 80\n}}\n{}",
                service("", "").replace("10.0.0.1 80", "group g")
            ),
            &[
                "remove entry 10.0.0.1 80 of virtual_server_group g",
                "add entry 10.0.0.3 80 of virtual_server_group g",
            ],
        ),
    ]
}

#[test]
fn every_rule_of_the_reload_has_its_changes() {
    for (old, new, expected) in rules() {
        assert_eq!(changes(&old, &new), expected, "{old}\n---\n{new}");
        assert_eq!(changes(&old, &old), [""; 0]);
        assert_eq!(changes(&new, &new), [""; 0]);
    }
}

/// A few services out of few addresses, servers and weights, so that two of these have much in common.
fn services() -> impl Strategy<Value = Vec<(u8, Vec<(u8, u8)>)>> {
    let servers = prop::collection::btree_map(1..6_u8, 1..3_u8, 1..5);
    prop::collection::btree_map(1..8_u8, servers, 0..6).prop_map(|all| {
        all.into_iter()
            .map(|(a, s)| (a, s.into_iter().collect()))
            .collect()
    })
}

fn text(services: &[(u8, Vec<(u8, u8)>)]) -> String {
    let mut text = String::new();
    for (address, servers) in services {
        text += &format!(
            "virtual_server 10.1.0.{address} 80 {{\nlb_algo rr\nlb_kind NAT\nprotocol TCP\n"
        );
        for (server, weight) in servers {
            text += &format!("real_server 10.2.0.{server} 80 {{\nweight {weight}\n}}\n");
        }
        text += "}\n";
    }
    text
}

#[test]
fn ten_thousand_services_are_compared_in_linear_time() {
    let servers: Vec<(u8, u8)> = (1..=10).map(|server| (server, 1)).collect();
    let one = config(&text(&[(1, servers)]));
    let mut old = Config::default();
    for at in 0..10_000_u32 {
        let mut server = one.virtual_servers[0].clone();
        server.service = crate::model::ServiceAddress::Address {
            address: std::net::Ipv4Addr::from(0x0a00_0000 + at).into(),
            port: Some(80),
        };
        old.virtual_servers.push(server);
    }
    let mut new = old.clone();
    new.virtual_servers.reverse();
    new.virtual_servers[7].real_servers[3].weight = 2;
    let start = std::time::Instant::now();
    assert_eq!(diff(&old, &new).len(), 1);
    let took = start.elapsed();
    println!("{took:?}");
    assert!(
        took < std::time::Duration::from_secs(5),
        "far from quadratic: {took:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applied_changes_lead_from_the_old_to_the_new(old in services(), new in services()) {
        let (before, after) = (config(&text(&old)), config(&text(&new)));
        prop_assert_eq!(diff(&before, &before), vec![]);
        // The reference model: what is there, by service and server.
        let flat = |config: &Config| -> std::collections::BTreeMap<(String, String), u32> {
            config.virtual_servers.iter().flat_map(|s| {
                let id = ServiceId::of(s).to_string();
                let servers = s.real_servers.iter();
                servers.map(move |r| ((id.clone(), r.address.to_string()), r.weight)).collect::<Vec<_>>()
            }).collect()
        };
        let (mut state, goal) = (flat(&before), flat(&after));
        for change in diff(&before, &after) {
            match (change.edit, change.object) {
                (Edit::Remove, Object::Service(id)) => {
                    let count = state.len();
                    state.retain(|(service, _), _| *service != id.to_string());
                    prop_assert!(state.len() < count, "only what is there is removed");
                }
                (Edit::Add, Object::Service(id)) => {
                    let id = id.to_string();
                    prop_assert!(!state.keys().any(|(service, _)| *service == id));
                    state.extend(goal.iter().filter(|((s, _), _)| *s == id).map(|(k, w)| (k.clone(), *w)));
                }
                (edit, Object::Server(id, address)) => {
                    let key = (id.to_string(), address.to_string());
                    let old = state.remove(&key);
                    prop_assert_eq!(old.is_some(), edit != Edit::Add);
                    if edit != Edit::Remove {
                        prop_assert_ne!(old, Some(goal[&key]), "only what differs is changed");
                        state.insert(key.clone(), goal[&key]);
                    }
                }
                (Edit::Change, Object::Quorum(_)) => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(state, goal);
    }
}
