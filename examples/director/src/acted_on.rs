//! Which keywords of a configuration the director acts on: what it reads and leaves without effect is said once.
//!
//! The table stands beside what [`plan`](crate::plan) does with the model and changes with it.

use std::collections::HashSet;

use lvs_conf::Tree;
use lvs_conf::keywords::{Place, Shape};
use lvs_conf::tree::Statement;

/// What of a configuration has no effect, by block, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NoEffect {
    blocks: Vec<(&'static str, Vec<&'static str>)>,
}

impl NoEffect {
    /// Of this configuration. A block without effect stands for everything in it.
    pub fn of(tree: &Tree) -> Self {
        let mut found = Self::default();
        let mut seen = HashSet::new();
        found.visit(&mut seen, Place::Top, &tree.statements);
        found
    }

    /// Everything has an effect.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    fn visit(
        &mut self,
        seen: &mut HashSet<(&'static str, &'static str)>,
        place: Place,
        statements: &[Statement],
    ) {
        for statement in statements {
            let keyword = statement.spec.canonical();
            if is_acted_on(place, keyword) {
                if let Shape::Block(inside) = statement.spec.shape {
                    self.visit(seen, inside, statement.statements());
                }
            } else if seen.insert((place.name(), statement.spec.name)) {
                self.add(place.name(), statement.spec.name);
            }
        }
    }

    fn add(&mut self, block: &'static str, keyword: &'static str) {
        match self.blocks.iter_mut().find(|(name, _)| *name == block) {
            Some((_, keywords)) => keywords.push(keyword),
            None => self.blocks.push((block, vec![keyword])),
        }
    }
}

impl std::fmt::Display for NoEffect {
    /// `block: keyword, keyword; block: keyword`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (block, keywords)) in self.blocks.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{block}: {}", keywords.join(", "))?;
        }
        Ok(())
    }
}

/// Whether the director acts on a keyword, in its current spelling, at this place.
pub fn is_acted_on(place: Place, keyword: &str) -> bool {
    ACTED_ON
        .iter()
        .any(|(places, keywords)| places.contains(&place) && keywords.contains(&keyword))
}

const ACTED_ON: &[(&[Place], &[&str])] = &[
    (
        &[Place::Top],
        &[
            "net_namespace",
            "global_defs",
            "vrrp_instance",
            "vrrp_sync_group",
            "vrrp_script",
            "track_file",
            "vrrp_track_process",
            "bfd_instance",
            "static_ipaddress",
            "static_routes",
            "static_rules",
            "interface_up_down_delays",
            "garp_group",
            "virtual_server",
            "virtual_server_group",
            "local_address_group",
            "SSL",
        ],
    ),
    (&[Place::Ssl], &["ca", "certificate", "key"]),
    (
        &[Place::GlobalDefs],
        &[
            "lvs_timeouts",
            "checker_log_all_failures",
            "dynamic_interfaces",
            "default_interface",
            "include_check",
            // The table is empty at the start and gone at the end in any case.
            "lvs_flush",
            "lvs_flush_on_stop",
        ],
    ),
    (
        &[Place::GlobalDefs],
        &[
            "vrrp_version",
            "vrrp_mcast_group4",
            "vrrp_mcast_group6",
            "vrrp_garp_master_delay",
            "vrrp_garp_master_repeat",
            "vrrp_garp_master_refresh",
            "vrrp_garp_master_refresh_repeat",
            "vrrp_garp_lower_prio_delay",
            "vrrp_garp_lower_prio_repeat",
            "vrrp_garp_interval",
            "vrrp_gna_interval",
            "vrrp_min_garp",
            "vrrp_down_timer_adverts",
            "vrrp_lower_prio_no_advert",
            "vrrp_higher_prio_send_advert",
            "vrrp_owner_ignore_adverts",
            "vrrp_check_unicast_src",
            "vrrp_skip_check_adv_addr",
            "vrrp_strict",
            "vrrp_startup_delay",
            "vmac_prefix",
        ],
    ),
    (
        &[Place::Instance],
        &[
            // A wish: who is master is found out.
            "state",
            "interface",
            "virtual_router_id",
            "priority",
            "advert_int",
            "version",
            "native_ipv6",
            "mcast_src_ip",
            "unicast_src_ip",
            "mcast_dst_ip",
            "unicast_fault_no_peer",
            "check_unicast_src",
            "unicast_peer",
            "unicast_ttl",
            "old_unicast_checksum",
            "v3_checksum_as_v2",
            "nopreempt",
            "preempt",
            "preempt_delay",
            "accept",
            "no_accept",
            "use_vmac",
            "vmac_xmit_base",
            "track_src_ip",
            "virtual_routes",
            "virtual_rules",
            "skip_check_adv_addr",
            "strict_mode",
            "garp_master_delay",
            "garp_master_repeat",
            "garp_master_refresh",
            "garp_master_refresh_repeat",
            "garp_lower_prio_delay",
            "garp_lower_prio_repeat",
            "down_timer_adverts",
            "timer_expired_backup",
            "lower_prio_no_advert",
            "higher_prio_send_advert",
            "owner_ignore_adverts",
            "dont_track_primary",
            "no_virtual_ipaddress",
            "authentication",
            "track_interface",
            "track_script",
            "track_file",
            "track_process",
            "track_bfd",
            "virtual_ipaddress",
            "virtual_ipaddress_excluded",
        ],
    ),
    // Of `notify`.
    (
        &[Place::GlobalDefs],
        &[
            "router_id",
            "notification_email",
            "notification_email_from",
            "smtp_server",
            "smtp_helo_name",
            "smtp_connect_timeout",
            "smtp_alert",
            "smtp_alert_vrrp",
            "smtp_alert_checker",
            "no_email_faults",
            "no_checker_emails",
            "rs_init_notifies",
            "script_user",
            "enable_script_security",
            "use_symlink_paths",
            "set_supplementary_groups",
            "startup_script",
            "startup_script_timeout",
            "shutdown_script",
            "shutdown_script_timeout",
            "notify_fifo",
            "notify_fifo_script",
            "vrrp_notify_fifo",
            "vrrp_notify_fifo_script",
            "lvs_notify_fifo",
            "lvs_notify_fifo_script",
            "vrrp_notify_priority_changes",
            "fifo_write_vrrp_states_on_reload",
        ],
    ),
    (
        &[Place::Instance, Place::SyncGroup],
        &[
            "notify_master",
            "notify_backup",
            "notify_fault",
            "notify_stop",
            "notify",
            "smtp_alert",
        ],
    ),
    (
        &[Place::Instance],
        &[
            "notify_deleted",
            "notify_master_rx_lower_pri",
            "notify_priority_changes",
        ],
    ),
    (
        &[Place::VirtualServer],
        &["quorum_up", "quorum_down", "omega", "smtp_alert"],
    ),
    (
        &[Place::RealServer],
        &["notify_up", "notify_down", "smtp_alert"],
    ),
    (&[Place::Authentication], &["auth_type", "auth_pass"]),
    (
        &[Place::SyncGroup],
        &[
            "group",
            "track_interface",
            "track_script",
            "track_file",
            "track_process",
            "track_bfd",
            "global_tracking",
            "sync_group_tracking_weight",
        ],
    ),
    (
        &[Place::VrrpScript],
        &[
            "script",
            "interval",
            "timeout",
            "weight",
            "rise",
            "fall",
            "user",
            "init_fail",
        ],
    ),
    (&[Place::TrackFile], &["file", "weight", "init_file"]),
    (
        &[Place::TrackProcess],
        &[
            "process",
            "param_match",
            "weight",
            "quorum",
            "quorum_max",
            "delay",
            "terminate_delay",
            "fork_delay",
            "full_command",
        ],
    ),
    (
        &[Place::BfdInstance],
        &[
            "neighbor_ip",
            "source_ip",
            "min_rx",
            "min_tx",
            "idle_tx",
            "multiplier",
            "passive",
            "weight",
            "vrrp",
            "checker",
            "ttl",
            "hoplimit",
            "max_hops",
            "multihop",
        ],
    ),
    (
        &[Place::GarpGroup],
        &["garp_interval", "gna_interval", "interface", "interfaces"],
    ),
    (
        &[Place::VirtualServer],
        &[
            "lb_algo",
            "lvs_method",
            "protocol",
            "persistence_timeout",
            "persistence_granularity",
            "persistence_engine",
            "laddr_group_name",
            "ip_family",
            "ops",
            "flag-1",
            "flag-2",
            "flag-3",
            "sh-port",
            "sh-fallback",
            "mh-port",
            "mh-fallback",
            // Nobody acts on it, and nobody expects it.
            "hashed",
            "delay_loop",
            "retry",
            "delay_before_retry",
            "warmup",
            "connect_timeout",
            "inhibit_on_failure",
            "weight",
            "alpha",
            "quorum",
            "hysteresis",
            "virtualhost",
            "ha_suspend",
            "sorry_server",
            "sorry_server_inhibit",
            "sorry_server_lvs_method",
            "real_server",
        ],
    ),
    (
        &[Place::RealServer],
        &[
            "weight",
            "lvs_method",
            "inhibit_on_failure",
            "alpha",
            "delay_loop",
            "retry",
            "delay_before_retry",
            "warmup",
            "connect_timeout",
            "virtualhost",
            "uthreshold",
            "lthreshold",
            "TCP_CHECK",
            "HTTP_GET",
            "SSL_GET",
            "SMTP_CHECK",
            "DNS_CHECK",
            "UDP_CHECK",
            "PING_CHECK",
            "MISC_CHECK",
            "FILE_CHECK",
            "BFD_CHECK",
        ],
    ),
    (
        &[
            Place::TcpCheck,
            Place::HttpGet,
            Place::SslGet,
            Place::SmtpCheck,
            Place::DnsCheck,
            Place::UdpCheck,
            Place::PingCheck,
        ],
        &[
            "connect_ip",
            "connect_port",
            "bindto",
            "bind_port",
            "bind_if",
            "connect_timeout",
            "fwmark",
            "retry",
            "delay_before_retry",
            "warmup",
            "delay_loop",
            "alpha",
            "log_all_failures",
        ],
    ),
    (&[Place::BfdCheck], &["name", "alpha"]),
    (
        &[Place::MiscCheck],
        &[
            "misc_path",
            "misc_timeout",
            "misc_dynamic",
            "user",
            "retry",
            "delay_before_retry",
            "warmup",
            "delay_loop",
            "alpha",
            "log_all_failures",
        ],
    ),
    (&[Place::FileCheck], &["track_file", "weight"]),
    (&[Place::SmtpCheck], &["helo_name"]),
    (&[Place::DnsCheck], &["type", "name"]),
    (
        &[Place::UdpCheck],
        &[
            "payload",
            "require_reply",
            "min_reply_length",
            "max_reply_length",
        ],
    ),
    (
        &[Place::SslGet],
        &["enable_sni", "sni_name", "tls_compliant"],
    ),
    (
        &[Place::HttpGet, Place::SslGet],
        &[
            "nb_get_retry",
            "virtualhost",
            "http_protocol",
            "fast_recovery",
            "url",
        ],
    ),
    (
        &[Place::HttpUrl, Place::SslUrl],
        &[
            "path",
            "virtualhost",
            "digest",
            "status_code",
            "regex",
            "regex_no_match",
            "regex_options",
            "regex_min_offset",
            "regex_max_offset",
            // It tunes a library that is not used here, and nobody expects more.
            "regex_stack",
        ],
    ),
    (&[Place::SslUrl], &["tls_compliant"]),
];

#[cfg(test)]
mod tests {
    use lvs_conf::{NoFiles, Options, SourceMap, keywords, load};

    use super::*;

    fn no_effect(text: &str) -> String {
        let mut sources = SourceMap::new();
        let main = sources.add("k.conf", text);
        let loaded = load(&mut sources, main, &NoFiles, &Options::default());
        NoEffect::of(&loaded.tree).to_string()
    }

    #[test]
    fn every_name_of_the_table_is_a_keyword_there_in_its_current_spelling() {
        for (places, names) in ACTED_ON {
            for (place, name) in places
                .iter()
                .flat_map(|place| names.iter().map(move |name| (*place, *name)))
            {
                let row = keywords::find(place, name);
                assert!(
                    row.is_some_and(|row| row.canonical() == name),
                    "{name} in {place}"
                );
            }
        }
    }

    #[test]
    fn keywords_without_effect_are_named_once_and_by_block() {
        let text = "\
global_defs {
    random_seed 7
    snmp_socket unix:/x
    lvs_timeouts tcp 900
}
vrrp_script up {
    script /bin/true
}
vrrp_instance a {
    interface eth0
    virtual_router_id 1
    priority 100
    authentication {
        auth_type PASS
        auth_pass secret
    }
    virtual_ipaddress {
        192.0.2.10
    }
}
vrrp_instance b {
    interface eth0
    virtual_router_id 2
    virtual_ipaddress {
        192.0.2.11
    }
}
virtual_server 192.0.2.10 80 {
    lvs_sched rr
    lb_kind NAT
    protocol TCP
    snmp_name web
    real_server 10.0.0.1 80 {
        HTTP_GET {
            nb_get_retry 3
            url {
                path /
                regex ok
            }
        }
        notify_up /bin/true
    }
    real_server 10.0.0.2 443 {
        SSL_GET {
            url {
                path /
            }
        }
    }
}
";
        assert_eq!(
            no_effect(text),
            "global_defs: random_seed, snmp_socket; virtual_server: snmp_name"
        );
    }

    #[test]
    fn a_plain_virtual_server_has_nothing_without_effect() {
        let text = "virtual_server 192.0.2.10 80 {\n lb_algo wlc\n lb_kind DR\n protocol TCP\n delay_loop 5\n \
                    real_server 10.0.0.1 80 {\n weight 2\n TCP_CHECK {\n connect_timeout 3\n }\n }\n}\n";
        assert_eq!(no_effect(text), "");
    }
}
