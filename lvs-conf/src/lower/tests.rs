use std::time::Duration;

use crate::diag::{Code, Consequence};
use crate::files::NoFiles;
use crate::load::{Loaded, load};
use crate::model::*;
use crate::options::{Mtus, Options};
use crate::source::SourceMap;

fn read(text: &str) -> Loaded {
    let mut sources = SourceMap::new();
    let id = sources.add("x", text);
    load(&mut sources, id, &NoFiles, &Options::default())
}

/// Codes that count as complaints.
fn codes(loaded: &Loaded) -> Vec<Code> {
    loaded
        .diagnostics
        .iter()
        .filter(|d| d.class() != crate::diag::Class::Ok)
        .map(|d| d.code)
        .collect()
}

/// An instance that is in order, with further lines.
fn instance(lines: &str) -> Loaded {
    read(&format!(
        "vrrp_instance a {{\ninterface eth0\nvirtual_router_id 5\nvirtual_ipaddress {{\n10.0.0.1/24\n}}\n{lines}\n}}\n"
    ))
}

fn service(head: &str, lines: &str, servers: &str) -> Loaded {
    read(&format!(
        "virtual_server {head} {{\nlb_algo rr\n{lines}\n{servers}\n}}\n"
    ))
}

#[test]
fn an_instance_has_the_documented_defaults() {
    let loaded = instance("");
    assert_eq!(codes(&loaded), []);
    let a = &loaded.config.instances[0];
    assert_eq!(
        (a.priority, a.version, a.state),
        (100, 2, InitialState::Backup)
    );
    assert_eq!(a.advert_interval, Duration::from_secs(1));
    assert!(a.preempt && a.accept && !a.strict && !a.smtp_alert);
    assert_eq!(a.garp, Garp::default());
    assert_eq!(a.virtual_addresses[0].prefix_len, 24);
}

#[test]
fn master_without_priority_is_the_owner_and_255_starts_as_master() {
    assert_eq!(instance("state MASTER").config.instances[0].priority, 255);
    assert_eq!(
        instance("priority 255").config.instances[0].state,
        InitialState::Master
    );
}

#[test]
fn a_state_in_lower_case_is_unknown_and_hinted() {
    let loaded = instance("state master");
    assert_eq!(codes(&loaded), [Code::UnknownState]);
    assert_eq!(
        loaded.diagnostics[0].hint.as_deref(),
        Some("did you mean `MASTER`?")
    );
}

#[test]
fn a_missing_or_bad_virtual_router_id_refuses_the_configuration() {
    for line in ["", "virtual_router_id 0", "virtual_router_id 256"] {
        let loaded = read(&format!(
            "vrrp_instance a {{\ninterface eth0\n{line}\nvirtual_ipaddress {{\n10.0.0.1\n}}\n}}\n"
        ));
        assert!(codes(&loaded).contains(&Code::NoVirtualRouterId));
        assert!(!loaded.is_usable());
        assert!(loaded.config.instances.is_empty());
        assert_eq!(loaded.exit_status(), 5);
    }
}

#[test]
fn an_instance_needs_an_interface_unless_it_is_unicast() {
    let text = |line| {
        format!(
            "vrrp_instance a {{\nvirtual_router_id 1\n{line}\nvirtual_ipaddress {{\n10.0.0.1\n}}\n}}\n"
        )
    };
    assert!(codes(&read(&text(""))).contains(&Code::NoInterface));
    let peers = "unicast_peer {\n10.0.0.9\n}";
    assert!(codes(&read(&text(peers))).contains(&Code::UnicastNoSource));
    let unicast = read(
        &text(&format!("unicast_src_ip 10.0.0.8\n{peers}"))
            .replace("10.0.0.1\n", "10.0.0.1 dev eth1\n"),
    );
    assert_eq!(codes(&unicast), []);
}

#[test]
fn nopreempt_and_preempt_delay_follow_the_state() {
    assert_eq!(
        codes(&instance("state MASTER\npriority 150\nnopreempt")),
        [Code::NopreemptWithMaster]
    );
    assert_eq!(
        codes(&instance("state MASTER\npriority 150\npreempt_delay 3")),
        [Code::PreemptDelayWithMaster]
    );
    let both = instance("nopreempt\npreempt_delay 3");
    assert_eq!(codes(&both), [Code::PreemptDelayWithNopreempt]);
    assert_eq!(both.config.instances[0].preempt_delay, Duration::ZERO);
    assert!(!both.config.instances[0].preempt);
    assert_eq!(
        codes(&instance("state BACKUP\npriority 255\nnopreempt")),
        [Code::NopreemptWithOwner]
    );
}

#[test]
fn a_password_is_cut_to_eight_bytes() {
    let loaded = instance("authentication {\nauth_type PASS\nauth_pass 123456789\n}");
    assert_eq!(codes(&loaded), [Code::AuthPassTruncated]);
    let auth = loaded.config.instances[0].authentication.as_ref().unwrap();
    assert_eq!(auth.password, b"12345678");
}

#[test]
fn authentication_goes_where_the_version_knows_none() {
    let lines = "authentication {\nauth_type PASS\nauth_pass 1\n}\n";
    assert_eq!(
        codes(&instance(&format!("version 3\n{lines}"))),
        [Code::AuthWithV3]
    );
    assert_eq!(
        codes(&instance(&format!("strict_mode\n{lines}"))),
        [Code::StrictAuth]
    );
    assert_eq!(
        codes(&instance("authentication {\nauth_type PASS\n}")),
        [Code::AuthNoPassword]
    );
    assert_eq!(
        codes(&instance(
            "authentication {\nauth_type pass\nauth_pass 1\n}"
        )),
        [Code::UnknownAuthType]
    );
}

#[test]
fn intervals_are_rounded_to_what_the_version_carries() {
    let two = instance("advert_int 0.4");
    assert_eq!(codes(&two), [Code::AdvertIntRounded]);
    assert_eq!(
        two.config.instances[0].advert_interval,
        Duration::from_secs(1)
    );
    let three = instance("version 3\nadvert_int 0.4");
    assert_eq!(codes(&three), []);
    let long = instance("version 3\nadvert_int 60");
    assert_eq!(codes(&long), [Code::AdvertIntOutOfRange]);
    assert_eq!(
        long.config.instances[0].advert_interval,
        Duration::from_micros(40_950_000)
    );
}

#[test]
fn the_first_address_decides_the_family() {
    let loaded = read(
        "vrrp_instance a {\ninterface e\nvirtual_router_id 1\nvirtual_ipaddress {\nfe80::1/64\n10.0.0.1\n}\n}\n",
    );
    assert_eq!(codes(&loaded), [Code::FamilyMismatch]);
    let a = &loaded.config.instances[0];
    assert_eq!((a.family, a.version), (Family::Inet6, 3));
    assert_eq!(a.virtual_addresses.len(), 1);
}

#[test]
fn address_options_are_read() {
    let loaded = instance(
        "virtual_ipaddress_excluded {\n10.1.2.3/24 dev eth1 brd + label eth1:x scope link no_track\n10.0.0.2/24 peer 10.0.0.3\n10.0.0.4/33\n}",
    );
    assert_eq!(
        codes(&loaded),
        [Code::PrefixWithPeer, Code::PrefixLengthInvalid]
    );
    let list = &loaded.config.instances[0].excluded_addresses;
    assert_eq!(list[0].broadcast, "10.1.2.255".parse().ok());
    assert_eq!(list[0].label.as_deref(), Some("eth1:x"));
    assert!(list[0].no_track);
    assert_eq!(list[1].peer, "10.0.0.3".parse().ok());
    assert_eq!(list[2].prefix_len, 32);
}

#[test]
fn a_tracked_script_must_be_defined_earlier() {
    let script = "vrrp_script s {\nscript /bin/true\n}\n";
    let user = "vrrp_instance a {\ninterface e\nvirtual_router_id 1\nvirtual_ipaddress {\n10.0.0.1\n}\ntrack_script {\ns weight 5 reverse\n}\n}\n";
    let good = read(&format!("{script}{user}"));
    assert_eq!(codes(&good), []);
    let track = &good.config.instances[0].track.scripts[0];
    assert_eq!((track.weight, track.reverse), (Some(5), Some(true)));
    let bad = read(&format!("{user}{script}"));
    assert_eq!(codes(&bad), [Code::TrackScriptUndefined]);
    assert_eq!(
        bad.diagnostics[0].hint.as_deref(),
        Some("move its definition above this block")
    );
}

#[test]
fn a_second_instance_of_one_name_is_skipped_with_a_note() {
    let one = "vrrp_instance a {\ninterface e\nvirtual_router_id 1\nvirtual_ipaddress {\n10.0.0.1\n}\n}\n";
    let loaded = read(&format!("{one}{one}"));
    assert_eq!(codes(&loaded), [Code::DuplicateVrrpInstance]);
    assert_eq!(loaded.diagnostics[0].notes[0].message, "first defined here");
    assert_eq!(loaded.config.instances.len(), 1);
    let other = one.replace("instance a", "instance b");
    assert_eq!(
        codes(&read(&format!("{one}{other}"))),
        [Code::DuplicateVrid]
    );
}

#[test]
fn arguments_of_a_script_need_quotes() {
    let loaded = instance("notify_master \"/bin/x 'a b' c\" nobody\nnotify_master /bin/y");
    assert_eq!(codes(&loaded), [Code::DuplicateKeyword]);
    let script = loaded.config.instances[0].notify.master.as_ref().unwrap();
    assert_eq!(script.command, ["/bin/x", "a b", "c"]);
    assert_eq!(script.user.as_ref().unwrap().name, "nobody");
}

#[test]
fn settings_are_inherited_from_service_to_server_to_checker() {
    let loaded = service(
        "10.0.0.1 80",
        "lb_kind NAT\nprotocol tcp\ndelay_loop 6\nretry 4\nweight 7\nvirtualhost vs\nalpha",
        "real_server 10.0.0.2 8080 {\nretry 3\nTCP_CHECK {\nconnect_timeout 2\n}\nHTTP_GET {\nretry 9\nurl {\npath /\n}\nurl {\npath /b\nvirtualhost u\nstatus_code 200 301-302\n}\n}\n}",
    );
    assert_eq!(codes(&loaded), []);
    let server = &loaded.config.virtual_servers[0];
    assert_eq!(server.protocol, Protocol::Tcp);
    let real = &server.real_servers[0];
    assert_eq!(
        (real.weight, real.alpha, real.address.port()),
        (7, true, 8080)
    );
    let tcp = real.checkers[0].probe();
    assert_eq!(
        (tcp.retry, tcp.delay_loop.as_secs(), tcp.alpha),
        (3, 6, true)
    );
    assert_eq!(
        (tcp.connect_timeout.as_secs(), tcp.warmup.as_secs()),
        (2, 6)
    );
    assert_eq!(tcp.delay_before_retry.as_secs(), 1);
    let Checker::HttpGet(http) = &real.checkers[1] else {
        panic!("an HTTP check")
    };
    assert_eq!(
        (http.probe.retry, http.probe.delay_before_retry.as_secs()),
        (9, 3)
    );
    assert_eq!(http.probe.connect_timeout.as_secs(), 5);
    assert_eq!(http.urls[0].virtualhost.as_deref(), Some("vs"));
    assert_eq!(http.urls[0].status_codes, [(200, 299)]);
    assert_eq!(http.urls[1].virtualhost.as_deref(), Some("u"));
    assert_eq!(http.urls[1].status_codes, [(200, 200), (301, 302)]);
}

#[test]
fn what_a_service_lacks_is_filled_in_with_a_complaint() {
    let loaded = read("virtual_server 10.0.0.1 {\nreal_server 10.0.0.2 {\n}\n}\n");
    let mut found = codes(&loaded);
    found.sort_by_key(|c| c.as_str());
    assert_eq!(
        found,
        [
            Code::VsNoForwardingMethod,
            Code::VsNoProtocol,
            Code::VsNoScheduler,
            Code::VsZeroPort
        ]
    );
    let server = &loaded.config.virtual_servers[0];
    assert_eq!(server.scheduler.to_string(), "wlc");
    assert_eq!(server.protocol, Protocol::Udp);
    assert_eq!(server.persistence_timeout, Some(Duration::from_secs(360)));
}

#[test]
fn an_equal_real_server_is_dropped_and_the_first_is_named() {
    let loaded = service(
        "10.0.0.1 80",
        "lb_kind DR\nprotocol TCP",
        "real_server 10.0.0.2 80 {\n}\nreal_server 10.0.0.2 80 {\n}",
    );
    assert_eq!(codes(&loaded), [Code::RsDuplicate]);
    assert_eq!(loaded.diagnostics[0].notes.len(), 1);
    assert_eq!(loaded.config.virtual_servers[0].real_servers.len(), 1);
}

#[test]
fn quorum_and_hysteresis_are_bounded_by_the_weights() {
    let loaded = service(
        "10.0.0.1 80",
        "lb_kind DR\nprotocol TCP\nquorum 9\nhysteresis 5",
        "real_server 10.0.0.2 80 {\nweight 3\n}",
    );
    assert_eq!(
        codes(&loaded),
        [Code::QuorumExceedsWeight, Code::HysteresisGeQuorum]
    );
    let server = &loaded.config.virtual_servers[0];
    assert_eq!((server.quorum, server.hysteresis), (3, 2));
}

#[test]
fn mark_and_group_services_are_kept_apart() {
    let mark = service(
        "fwmark 5",
        "lb_kind DR\nprotocol TCP",
        "real_server 10.0.0.2 80 {\n}",
    );
    assert_eq!(
        codes(&mark),
        [Code::VsFwmarkWithProtocol, Code::FwmarkRsPort]
    );
    let server = &mark.config.virtual_servers[0];
    assert_eq!(server.service, ServiceAddress::Mark(5));
    assert_eq!(server.family, Some(Family::Inet));
    assert_eq!(server.real_servers[0].address.port(), 0);
    let text = "virtual_server group g {\nlb_algo rr\nlb_kind NAT\nprotocol TCP\nreal_server 10.0.0.2 80 {\n}\n}\n";
    let alone = read(text);
    assert_eq!(alone.diagnostics[0].code, Code::ServerGroupUnusable);
    assert_eq!(alone.exit_status(), 0, "keepalived only logs it");
    let group = read(&format!(
        "{text}virtual_server_group g {{\n10.0.0.9 80\n}}\n"
    ));
    assert_eq!(
        group.config.virtual_servers[0].service,
        ServiceAddress::Group("g".to_owned())
    );
}

#[test]
fn a_server_of_another_family_is_dropped_unless_tunnelled() {
    let loaded = service(
        "10.0.0.1 80",
        "lb_kind TUN type gue port 6080 csum\nprotocol TCP",
        "real_server fd00::1 80 {\n}\nreal_server fd00::2 80 {\nlvs_method DR\n}",
    );
    assert_eq!(codes(&loaded), [Code::FamilyMismatch]);
    let real = &loaded.config.virtual_servers[0].real_servers;
    assert_eq!(real.len(), 1);
    assert_eq!(
        real[0].method,
        LvsMethod::Tun(Tunnel::Gue {
            port: 6080,
            checksum: TunnelChecksum::Full
        })
    );
}

#[test]
fn a_method_in_lower_case_is_unknown_and_hinted() {
    let loaded = service(
        "10.0.0.1 80",
        "lb_kind dr\nprotocol TCP",
        "real_server 10.0.0.2 80 {\n}",
    );
    assert_eq!(
        loaded
            .diagnostics
            .iter()
            .find(|d| d.code == Code::UnknownForwardingMethod)
            .and_then(|d| d.hint.as_deref()),
        Some("write it in capitals: `DR`")
    );
}

#[test]
fn the_sorry_server_follows_the_service() {
    let loaded = service(
        "10.0.0.1 80",
        "lb_kind DR\nprotocol TCP\nsorry_server_inhibit\nsorry_server 10.0.0.9 81",
        "real_server 10.0.0.2 {\n}",
    );
    assert_eq!(codes(&loaded), [Code::InvalidValue, Code::SorryPortDiffers]);
    let sorry = loaded.config.virtual_servers[0]
        .sorry_server
        .as_ref()
        .unwrap();
    assert_eq!((sorry.address.port(), sorry.inhibit), (80, false));
    assert_eq!(sorry.method, LvsMethod::Dr);
}

#[test]
fn flags_of_hash_schedulers_need_that_scheduler_first() {
    let text = |order: &str| {
        format!(
            "virtual_server 10.0.0.1 80 {{\n{order}\nlb_kind DR\nprotocol TCP\nreal_server 10.0.0.2 80 {{\n}}\n}}\n"
        )
    };
    let good = read(&text("lb_algo sh\nsh-port\nsh-fallback\nmh-port"));
    assert_eq!(codes(&good), []);
    let flags = good.config.virtual_servers[0].flags;
    assert!(flags.flag1 && flags.flag2 && !flags.flag3);
    assert_eq!(
        codes(&read(&text("sh-port\nlb_algo sh"))),
        [Code::InvalidValue]
    );
}

#[test]
fn a_check_without_url_or_with_a_bad_digest_is_reported() {
    let loaded = service(
        "10.0.0.1 80",
        "lb_kind DR\nprotocol TCP",
        "real_server 10.0.0.2 80 {\nHTTP_GET {\nurl {\ndigest xyz\n}\n}\n}",
    );
    assert_eq!(
        codes(&loaded),
        [
            Code::HttpCheckWithoutUrl,
            Code::HttpUrlWithoutPath,
            Code::DigestInvalid
        ]
    );
    assert!(
        loaded.config.virtual_servers[0].real_servers[0]
            .checkers
            .is_empty()
    );
}

#[test]
fn other_checkers_have_defaults_of_their_own() {
    let loaded = service(
        "10.0.0.1 80",
        "lb_kind DR\nprotocol TCP",
        "real_server 10.0.0.2 80 {\nPING_CHECK {\n}\nMISC_CHECK {\nmisc_path /bin/true\n}\n}",
    );
    assert_eq!(codes(&loaded), []);
    assert_eq!(loaded.exit_status(), 0);
    let checkers = &loaded.config.virtual_servers[0].real_servers[0].checkers;
    assert!(matches!(checkers[0], Checker::PingCheck(_)));
    assert!(matches!(&checkers[1], Checker::MiscCheck(misc) if misc.probe.retry == 0));
}

#[test]
fn a_port_glued_to_an_address_is_hinted() {
    let loaded = service("10.0.0.1:80", "", "real_server 10.0.0.2 80 {\n}");
    let bad = &loaded.diagnostics[0];
    assert_eq!(bad.code, Code::VsAddressInvalid);
    assert_eq!(
        bad.hint.as_deref(),
        Some("put a blank before the port: `10.0.0.1 80`")
    );
}

#[test]
fn mail_defaults_reach_instances_and_servers() {
    let loaded = read(
        "virtual_server 10.0.0.1 80 {\nlb_algo rr\nlb_kind DR\nprotocol TCP\nreal_server 10.0.0.2 80 {\n}\n}\nglobal_defs {\nsmtp_alert_checker no\n}\n",
    );
    let server = &loaded.config.virtual_servers[0];
    assert!(!server.smtp_alert && !server.real_servers[0].smtp_alert);
    let plain = service(
        "10.0.0.1 80",
        "lb_kind DR\nprotocol TCP",
        "real_server 10.0.0.2 80 {\n}",
    );
    assert!(plain.config.virtual_servers[0].real_servers[0].smtp_alert);
}

#[test]
fn sync_daemon_options_are_read() {
    let loaded = read(
        "global_defs {\nlvs_sync_daemon eth0 inst VI id 7 group 224.0.0.81\nlvs_timeouts tcp 100 udp x\n}\n",
    );
    let daemon = loaded.config.global.lvs_sync_daemon.as_ref().unwrap();
    assert_eq!(
        (daemon.instance.as_deref(), daemon.id),
        (Some("VI"), Some(7))
    );
    assert_eq!(
        loaded.config.global.lvs_timeouts.tcp,
        Some(Duration::from_secs(100))
    );
    assert_eq!(codes(&loaded), [Code::InvalidNumber]);
}

#[test]
fn equal_texts_in_other_places_give_equal_models() {
    let text = "vrrp_instance a {\ninterface e\nvirtual_router_id 1\nvirtual_ipaddress {\n10.0.0.1\n}\nvirtual_routes {\n10.9.0.0/16 via 10.0.0.9\n}\n}\n";
    assert_eq!(
        read(text).config,
        read(&format!("\n# moved\n{text}")).config
    );
}

/// Code, consequence and line of everything that is found.
fn found(text: &str) -> (Config, Vec<(Code, Consequence, u32)>) {
    let mut sources = SourceMap::new();
    let main = sources.add("k.conf", text);
    let loaded = load(&mut sources, main, &NoFiles, &Options::default());
    let found = loaded.diagnostics.iter();
    let found = found.map(|d| (d.code, d.consequence, sources.position(d.span).line));
    (loaded.config, found.collect())
}

/// Without it the firewall that a VMAC needs is mentioned.
const NFTABLES: &str = "global_defs {\nnftables\n}\n";

fn router(settings: &str) -> String {
    format!(
        "vrrp_instance a {{\ninterface eth0\nvirtual_router_id 5\n{settings}\nvirtual_ipaddress {{\n10.0.0.1\n}}\n}}\n"
    )
}

#[test]
fn addresses_that_do_not_fit_an_advertisement_are_excluded() {
    let many = "virtual_ipaddress {\n~SEQ(i, 1, 255) 10.0.1.$i\n}";
    let (config, list) = found(&router(many));
    let instance = &config.instances[0];
    assert_eq!(instance.virtual_addresses.len(), 255);
    assert_eq!(
        instance.excluded_addresses[0].address.to_string(),
        "10.0.0.1"
    );
    assert_eq!(list, [(Code::TooManyVips, Consequence::Adjust, 1)]);
}

#[test]
fn an_advertisement_must_fit_the_interface() {
    let read = |text: String, mtus| {
        let mut sources = SourceMap::new();
        let id = sources.add("x", text);
        let options = Options {
            mtus,
            ..Options::default()
        };
        let config = load(&mut sources, id, &NoFiles, &options).config;
        let instance = &config.instances[0];
        (
            instance.virtual_addresses.len(),
            instance.excluded_addresses.len(),
        )
    };
    let six = "vrrp_instance a {\ninterface eth0\nvirtual_router_id 5\nvirtual_ipaddress {\nfe80::1\n~SEQ(i, 1, 99) fd00::$i\n}\n}\n".to_owned();
    let four = router("virtual_ipaddress {\n~SEQ(i, 1, 99) 10.0.1.$i\n}");
    let small = || Mtus::default().with("eth0", 76 + 8 + 14);
    // What keepalived 2.2.7 says: 14 of the frame, 40 of IPv6, 8 of VRRP, 16 an address.
    assert_eq!(read(six.clone(), Mtus::all(1500)), (89, 11));
    assert_eq!(read(six.clone(), Mtus::default()), (100, 0));
    assert_eq!(read(six, small()), (2, 98));
    // 14 of the frame, 20 of IPv4, 8 of VRRP, 8 of a password in version 2, 4 an address.
    assert_eq!(read(four.clone(), Mtus::all(1500)), (100, 0));
    assert_eq!(read(four.clone(), small()), (12, 88));
    let third = four.replace("interface", "version 3\ninterface");
    assert_eq!(read(third, small()), (14, 86));
    let ah = four.replace(
        "interface",
        "authentication {\nauth_type AH\nauth_pass x\n}\ninterface",
    );
    assert_eq!(read(ah, small()), (6, 94));
    let elsewhere = Mtus::all(1500).with("eth1", 98);
    assert_eq!(read(four, elsewhere), (100, 0));
}

#[test]
fn a_firewall_that_is_switched_on_by_itself_is_mentioned() {
    let implied = |global: &str, settings: &str| {
        let text = format!("global_defs {{\n{global}\n}}\n{}", router(settings));
        let (config, list) = found(&text);
        assert!(config.global.firewall.nftables.is_none() || !global.is_empty());
        list.iter().any(|(code, consequence, _)| {
            (*code, *consequence) == (Code::FirewallImplied, Consequence::Log)
        })
    };
    assert!(!implied("", ""));
    for settings in ["no_accept", "use_vmac", "strict_mode"] {
        assert!(implied("", settings), "{settings}");
        assert!(!implied("nftables", settings), "{settings}");
        assert!(!implied("vrrp_iptables", settings), "{settings}");
    }
}

#[test]
fn random_parameters_follow_the_seed_of_the_file_from_its_line_on() {
    let drawn = |text: &str, random_seed| {
        let mut sources = SourceMap::new();
        let id = sources.add("x", text);
        let options = Options {
            random_seed,
            ..Options::default()
        };
        let config = load(&mut sources, id, &NoFiles, &options).config;
        let scripts = config.scripts.iter();
        scripts.map(|s| s.rise).collect::<Vec<_>>()
    };
    let script =
        |name: &str| format!("vrrp_script {name} {{\nscript /x\nrise ${{_RANDOM 1 30000}}\n}}\n");
    let seed = |n: u32| format!("global_defs {{\nrandom_seed {n}\n}}\n");
    let after = format!("{}{}", seed(7), script("a"));
    assert_eq!(drawn(&after, 1), drawn(&after, 2), "the file's seed counts");
    assert_ne!(drawn(&after, 1), drawn(&after.replace('7', "8"), 1));
    let around = format!("{}{}{}", script("b"), seed(7), script("a"));
    let (one, other) = (drawn(&around, 1), drawn(&around, 2));
    assert_ne!(
        one[0], other[0],
        "what stands before is drawn from the caller's"
    );
    assert_eq!(
        (one[1], other[1]),
        (drawn(&after, 1)[0], drawn(&after, 1)[0])
    );
}

#[test]
fn an_address_is_advertised_or_excluded_not_both() {
    let text = router("virtual_ipaddress_excluded {\n10.0.0.1 dev eth0\n10.0.0.1 dev eth1\n}");
    let (config, list) = found(&text);
    assert_eq!(
        list,
        [
            (Code::NoVip, Consequence::Warn, 1),
            (Code::VipAddressInvalid, Consequence::Drop, 9),
        ]
    );
    assert_eq!(config.instances[0].excluded_addresses.len(), 2);
}

#[test]
fn two_instances_do_not_share_a_vmac_interface() {
    let one = router("use_vmac vrrp5");
    let other = one.replace("a {", "b {").replace("id 5", "id 6");
    let (_, list) = found(&format!("{one}{other}{NFTABLES}"));
    assert_eq!(list, [(Code::ConfigFault, Consequence::Warn, 9)]);
    assert_eq!(
        found(&format!(
            "{one}{}{NFTABLES}",
            other.replace("vrrp5", "vrrp6")
        ))
        .1,
        []
    );
}

#[test]
fn an_ipv4_ipvlan_needs_an_address() {
    assert_eq!(
        found(&(router("use_ipvlan") + NFTABLES)).1,
        [(Code::ConfigFault, Consequence::Warn, 1)]
    );
    assert_eq!(found(&(router("use_ipvlan 10.0.0.9/24") + NFTABLES)).1, []);
}

#[test]
fn advertisements_over_ipv6_stay_on_the_link() {
    let text =
        |group: &str| router(&format!("mcast_dst_ip {group}")).replace("10.0.0.1", "fe80::1");
    let (config, list) = found(&text("ff05::12"));
    assert_eq!(list, [(Code::InvalidValue, Consequence::Ignore, 4)]);
    assert_eq!(config.instances[0].group, None);
    let (config, list) = found(&text("ff02::99"));
    assert_eq!(list, []);
    assert!(config.instances[0].group.is_some());
}

#[test]
fn an_interface_counts_as_down_before_the_backups_take_over() {
    let text = format!(
        "interface_up_down_delays {{\neth1 9\neth0 2\n}}\n{}",
        router("")
    );
    let (config, list) = found(&text);
    assert_eq!(list, [(Code::NumberOutOfRange, Consequence::Log, 3)]);
    let delays: Vec<_> = config
        .interface_delays
        .iter()
        .map(|d| d.down.as_millis())
        .collect();
    assert_eq!(delays, [9000, 1999]);
}

#[test]
fn what_the_original_only_logs_is_information() {
    let text = format!(
        "global_defs {{\nvrrp_iptables\nnftables\n}}\ntrack_group g {{\ngroup {{\na\nnobody\n}}\n}}\n{}",
        router("")
    );
    let (config, list) = found(&text);
    assert_eq!(
        list,
        [
            (Code::InvalidValue, Consequence::Log, 2),
            (Code::TrackGroupUndefined, Consequence::Log, 8),
        ]
    );
    assert_eq!(config.track_groups[0].members, ["a"]);
}

#[test]
fn words_that_are_no_numbers_are_told_how_to_become_one() {
    for (word, hint) in [
        ("1O0", "did you mean `100`?"),
        ("5s", "write `5`, without unit"),
        ("0x10", "write it in decimal"),
        ("1.5", "write a whole number"),
        ("high", "write a number such as `1`, or remove the line"),
    ] {
        let mut sources = SourceMap::new();
        let main = sources.add("k.conf", router(&format!("priority {word}")));
        let loaded = load(&mut sources, main, &NoFiles, &Options::default());
        let found = loaded.diagnostics.iter().find(|d| d.hint.is_some());
        assert_eq!(found.unwrap().hint.as_deref(), Some(hint), "{word}");
    }
}
