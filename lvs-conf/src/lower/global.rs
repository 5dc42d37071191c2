//! `global_defs`.

use std::net::IpAddr;
use std::time::Duration;

use super::Context;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::keywords::preset::preset;
use crate::model::{
    DaemonSettings, FlushOnStop, Garp, GarpExtra, GlobalDefs, IncludeChecks, RxPolicy, SyncDaemon,
};
use crate::settings::{Settings as _, settings};
use crate::tree::Statement;

settings! { DaemonSettings {
    "net_namespace" => net_namespace,
    "namespace_with_ipsets" => namespace_with_ipsets,
    "use_pid_dir" => use_pid_dir,
    "instance" => instance,
    "child_wait_time" => child_wait_time,
    "linkbeat_use_polling" => linkbeat_use_polling,
    "net_namespace_ipvs" => net_namespace_ipvs,
} }

settings! { GlobalDefs {
    "router_id" => router_id,
    "process_names" => processes.distinct_names,
    "process_name" => processes.name,
    "vrrp_process_name" => processes.vrrp.name,
    "checker_process_name" => processes.checker.name,
    "bfd_process_name" => processes.bfd.name,
    "use_symlink_paths" => use_symlink_paths,
    "set_supplementary_groups" => set_supplementary_groups,
    "notification_email_from" => mail.from,
    "smtp_helo_name" => mail.helo_name,
    "smtp_connect_timeout" => mail.connect_timeout,
    "smtp_alert" => mail.alert,
    "smtp_alert_vrrp" => mail.alert_vrrp,
    "smtp_alert_checker" => mail.alert_checker,
    "no_email_faults" => mail.no_faults,
    "no_checker_emails" => mail.no_checkers,
    "checker_log_all_failures" => checker_log_all_failures,
    "rs_init_notifies" => rs_init_notifies,
    "enable_script_security" => enable_script_security,
    "startup_script" => startup_script,
    "shutdown_script" => shutdown_script,
    "startup_script_timeout" => startup_script_timeout,
    "shutdown_script_timeout" => shutdown_script_timeout,
    "notify_fifo" => fifos.all,
    "vrrp_notify_fifo" => fifos.vrrp,
    "lvs_notify_fifo" => fifos.lvs,
    "notify_fifo_script" => fifos.all_script,
    "vrrp_notify_fifo_script" => fifos.vrrp_script,
    "lvs_notify_fifo_script" => fifos.lvs_script,
    "vrrp_notify_priority_changes" => fifos.priority_changes,
    "fifo_write_vrrp_states_on_reload" => fifos.states_on_reload,
    "vrrp_version" => vrrp.version,
    "vrrp_garp_master_delay" => vrrp.garp.delay,
    "vrrp_garp_master_repeat" => vrrp.garp.repeat,
    "vrrp_garp_master_refresh" => vrrp.garp.refresh,
    "vrrp_garp_lower_prio_delay" => vrrp.garp.lower_prio_delay,
    "vrrp_garp_lower_prio_repeat" => vrrp.garp.lower_prio_repeat,
    "vrrp_garp_interval" => vrrp.garp_interval,
    "vrrp_gna_interval" => vrrp.gna_interval,
    "vrrp_down_timer_adverts" => vrrp.down_timer_adverts,
    "vrrp_lower_prio_no_advert" => vrrp.lower_prio_no_advert,
    "vrrp_higher_prio_send_advert" => vrrp.higher_prio_send_advert,
    "vrrp_owner_ignore_adverts" => vrrp.owner_ignore_adverts,
    "v3_checksum_as_v2" => vrrp.v3_checksum_as_v2,
    "vrrp_check_unicast_src" => vrrp.check_unicast_src,
    "vrrp_skip_check_adv_addr" => vrrp.skip_check_adv_addr,
    "vrrp_strict" => vrrp.strict,
    "nftables_priority" => firewall.nftables_priority,
    "nftables_ifindex" => firewall.nftables_ifindex,
    "nftables_counters" => firewall.nftables_counters,
    "nftables_ipvs_priority" => firewall.ipvs_priority,
    "nftables_ipvs_start_fwmark" => firewall.ipvs_start_mark,
    "disable_local_igmp" => vrrp.disable_local_igmp,
    "vrrp_rx_bufs_multiplier" => buffers.multiplier,
    "vrrp_netlink_cmd_rcv_bufs" => buffers.vrrp_commands.size,
    "vrrp_netlink_cmd_rcv_bufs_force" => buffers.vrrp_commands.force,
    "vrrp_netlink_monitor_rcv_bufs" => buffers.vrrp_monitor.size,
    "vrrp_netlink_monitor_rcv_bufs_force" => buffers.vrrp_monitor.force,
    "process_monitor_rcv_bufs" => buffers.process_monitor.size,
    "process_monitor_rcv_bufs_force" => buffers.process_monitor.force,
    "lvs_netlink_cmd_rcv_bufs" => buffers.lvs_commands.size,
    "lvs_netlink_cmd_rcv_bufs_force" => buffers.lvs_commands.force,
    "lvs_netlink_monitor_rcv_bufs" => buffers.lvs_monitor.size,
    "lvs_netlink_monitor_rcv_bufs_force" => buffers.lvs_monitor.force,
    "vrrp_startup_delay" => vrrp.startup_delay,
    "vrrp_delay_after_boot" => vrrp.delay_after_boot,
    "log_unknown_vrids" => vrrp.log_unknown_vrids,
    "vmac_prefix" => vrrp.vmac_prefix,
    "vmac_addr_prefix" => vrrp.vmac_addr_prefix,
    "lvs_flush" => lvs_flush,
    "vrrp_priority" => processes.vrrp.priority,
    "vrrp_no_swap" => processes.vrrp.no_swap,
    "vrrp_rt_priority" => processes.vrrp.real_time_priority,
    "vrrp_cpu_affinity" => processes.vrrp.cpus,
    "checker_priority" => processes.checker.priority,
    "checker_no_swap" => processes.checker.no_swap,
    "checker_rt_priority" => processes.checker.real_time_priority,
    "checker_cpu_affinity" => processes.checker.cpus,
    "bfd_priority" => processes.bfd.priority,
    "bfd_no_swap" => processes.bfd.no_swap,
    "bfd_rt_priority" => processes.bfd.real_time_priority,
    "bfd_cpu_affinity" => processes.bfd.cpus,
    "snmp_socket" => snmp.socket,
    "enable_traps" => snmp.traps,
    "enable_snmp_vrrp" => snmp.vrrp,
    "enable_snmp_checker" => snmp.checker,
    "enable_snmp_rfcv2" => snmp.rfc_v2,
    "enable_snmp_rfcv3" => snmp.rfc_v3,
    "snmp_vs_stats_update_interval" => snmp.vs_update_interval,
    "snmp_rs_stats_update_interval" => snmp.rs_update_interval,
    "enable_dbus" => dbus.enabled,
    "dbus_service_name" => dbus.service_name,
    "dbus_no_interface_name" => dbus.no_interface_name,
    "reload_time_file" => reload.time_file,
    "reload_repeat" => reload.repeat,
    "config_save_dir" => files.config_save_dir,
    "tmp_config_directory" => files.tmp_config_directory,
    "data_use_instance" => files.data_use_instance,
    "state_dump_file" => files.state_dump,
    "stats_dump_file" => files.stats_dump,
    "json_dump_file" => files.json_dump,
    "json_version" => files.json_version,
    "iproute_usr_dir" => files.iproute_usr_dir,
    "iproute_etc_dir" => files.iproute_etc_dir,
    "random_seed" => random_seed,
} }

pub(super) fn read(cx: &mut Context, block: &Statement, global: &mut GlobalDefs) {
    for statement in block.statements() {
        if !global.set(cx, statement)
            && !mail(cx, statement, global)
            && !vrrp(cx, statement, global)
            && !lvs(cx, statement, global)
            && !process(cx, statement, global)
        {
            files(cx, statement, global);
        }
    }
    if global.script_user.is_none() && global.enable_script_security {
        cx.is_default_user_usable = cx.has_account("keepalived_script");
    }
}

fn mail(cx: &mut Context, statement: &Statement, global: &mut GlobalDefs) -> bool {
    let mail = &mut global.mail;
    match statement.spec.canonical() {
        "notification_email" => {
            let words = statement.values().iter().flat_map(|line| &line.words);
            let before = mail.to.len();
            mail.to.extend(words.map(|w| w.text.to_string()));
            if mail.to.len() == before {
                cx.report(
                    Code::EmptyBlock,
                    Consequence::Warn,
                    statement.keyword.span,
                    "`notification_email` names nobody",
                );
            }
        }
        "smtp_server" => {
            mail.server = cx.text(statement);
            if let Some(word) = statement.args.get(1)
                && let Some(port) = cx.uint("smtp_server", word, 1..=65535)
            {
                mail.port = u16::try_from(port).unwrap_or(25);
            }
        }
        _ => return false,
    }
    true
}

/// `[all] N`, in any order.
pub(super) fn garp_extra(cx: &mut Context, statement: &Statement, extra: &mut GarpExtra) {
    let mut all = false;
    let mut seconds = None;
    let Some(range) = statement.spec.range else {
        return;
    };
    let per = range.unit.micros();
    for word in &statement.args {
        if word.text.as_str() == "all" {
            all = true;
        } else {
            seconds = cx.int(
                statement.keyword.text,
                word,
                range.least / per..=range.most / per,
            );
            if seconds.is_none() {
                return;
            }
        }
    }
    match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(seconds) => {
            *extra = GarpExtra {
                interval: Duration::from_secs(seconds),
                all,
            };
        }
        None => cx.invalid(
            statement.head(),
            format!("`{}` has no period", statement.keyword.text),
            "`[all] <SECONDS>`",
        ),
    }
}

fn vrrp(cx: &mut Context, statement: &Statement, global: &mut GlobalDefs) -> bool {
    let vrrp = &mut global.vrrp;
    match statement.spec.canonical() {
        "vrrp_garp_master_refresh_repeat" => cx.set(statement, &mut vrrp.garp.refresh_repeat),
        "vrrp_mcast_group4" => match cx.address_arg(statement, Code::InvalidValue) {
            Some(IpAddr::V4(group)) if group.is_multicast() => vrrp.group4 = group,
            Some(_) => not_multicast(cx, statement),
            None => {}
        },
        "vrrp_mcast_group6" => match cx.address_arg(statement, Code::InvalidValue) {
            Some(IpAddr::V6(group)) if group.is_multicast() => {
                vrrp.group6 = group;
                if group.octets()[1] & 0xf != 2 {
                    cx.report(
                        Code::InvalidValue,
                        Consequence::Warn,
                        statement.head(),
                        "the multicast group is not of link-local scope",
                    );
                }
            }
            Some(_) => not_multicast(cx, statement),
            None => {}
        },
        "vrrp_min_garp" => {
            if cx.bool_arg(statement).unwrap_or(true) {
                minimum_garp(&mut vrrp.garp);
            }
        }
        "vrrp_garp_extra_if" | "vrrp_vmac_garp_intvl" => {
            garp_extra(cx, statement, &mut vrrp.garp_extra);
        }
        "default_interface" => {
            if let Some(name) = cx.interface_arg(statement) {
                global.default_interface = name;
            }
        }
        "dynamic_interfaces" => {
            global.dynamic_interfaces = true;
            if let Some(word) = statement.args.first() {
                global.allow_if_changes |= word.text.as_str() == "allow_if_changes";
                if !global.allow_if_changes {
                    cx.push(
                        Diagnostic::new(
                            Code::InvalidValue,
                            Consequence::Warn,
                            word.span,
                            format!("unknown word `{}`", word.text),
                        )
                        .expected("`allow_if_changes` or nothing"),
                    );
                }
            }
        }
        "vrrp_iptables" => iptables(cx, statement, global),
        "vrrp_ipsets" => {
            let names: Vec<String> = statement.args.iter().map(|w| w.text.to_string()).collect();
            let distinct = (1..names.len()).all(|at| !names[..at].contains(&names[at]));
            if names.len() > 6 || !distinct || names.iter().any(|n| n.is_empty() || n.len() > 30) {
                cx.invalid(
                    statement.head(),
                    "these names cannot be those of the ipsets",
                    "up to six different names of 1 to 30 bytes",
                );
            } else {
                global.firewall.ipsets = Some(names);
            }
        }
        "nftables" => table(
            cx,
            statement,
            &mut global.firewall.nftables,
            preset!(bare_text, GlobalDefs, "nftables"),
        ),
        "nftables_ipvs" => {
            table(
                cx,
                statement,
                &mut global.firewall.ipvs_table,
                preset!(bare_text, GlobalDefs, "nftables_ipvs"),
            );
        }
        "vrrp_rx_bufs_policy" => rx_policy(cx, statement, &mut global.buffers.advertisements),
        _ => return false,
    }
    true
}

fn table(cx: &mut Context, statement: &Statement, slot: &mut Option<String>, default: &str) {
    if slot.is_some() {
        cx.given_before(statement);
        return;
    }
    let name = cx.text(statement).unwrap_or_else(|| default.to_owned());
    if name.is_empty() || name.len() > 254 {
        cx.invalid(
            statement.head(),
            format!("`{name}` cannot be the name of a table"),
            "1 to 254 bytes",
        );
    } else {
        *slot = Some(name);
    }
}

fn iptables(cx: &mut Context, statement: &Statement, global: &mut GlobalDefs) {
    if global.firewall.iptables.is_some() {
        cx.given_before(statement);
        return;
    }
    let name = |at: usize, default: &str| {
        statement
            .args
            .get(at)
            .map_or_else(|| default.to_owned(), |w| w.text.to_string())
    };
    let (input, output) = match statement.args.len() {
        0 => ("INPUT".to_owned(), "OUTPUT".to_owned()),
        1 => (name(0, ""), String::new()),
        _ => (name(0, ""), name(1, "")),
    };
    let second = statement.args.len() > 1;
    if input.is_empty() || input.len() > 27 || output.len() > 27 || second && output.is_empty() {
        cx.invalid(
            statement.head(),
            "a chain has an unusable name",
            "names of 1 to 27 bytes",
        );
    } else if input == output {
        cx.invalid(
            statement.head(),
            "one chain cannot be both",
            "two different names",
        );
    } else {
        global.firewall.iptables = Some((input, output));
    }
}

fn rx_policy(cx: &mut Context, statement: &Statement, policy: &mut RxPolicy) {
    for word in &statement.args {
        let asked = match word.text.to_ascii_uppercase().as_str() {
            "MTU" => RxPolicy::Mtu,
            "ADVERT" => RxPolicy::Advert,
            _ => match cx.uint("vrrp_rx_bufs_policy", word, 0..=u64::from(u32::MAX)) {
                Some(bytes) => RxPolicy::Bytes(u32::try_from(bytes).unwrap_or(u32::MAX)),
                None => continue,
            },
        };
        *policy = match (*policy, asked) {
            (RxPolicy::System, asked) => asked,
            (same, asked) if same == asked => same,
            (RxPolicy::Bytes(_), RxPolicy::Bytes(bytes)) => RxPolicy::Bytes(bytes),
            (first, asked) => {
                cx.invalid(
                    word.span,
                    format!("`{}` contradicts what was given before", word.text),
                    "one policy or a number",
                );
                if first == RxPolicy::Advert && asked == RxPolicy::Mtu {
                    asked
                } else {
                    first
                }
            }
        };
    }
}

/// Only values that nobody has changed yet.
fn minimum_garp(garp: &mut Garp) {
    let unset = Garp::default();
    if garp.repeat == unset.repeat {
        garp.repeat = 1;
    }
    if garp.refresh_repeat == unset.refresh_repeat {
        garp.refresh_repeat = 0;
    }
    if garp.delay == unset.delay {
        garp.delay = Duration::ZERO;
    }
}

fn not_multicast(cx: &mut Context, statement: &Statement) {
    cx.invalid(
        statement.head(),
        format!(
            "`{}` needs a multicast address of its family",
            statement.keyword.text
        ),
        "a multicast address",
    );
}

fn lvs(cx: &mut Context, statement: &Statement, global: &mut GlobalDefs) -> bool {
    match statement.spec.canonical() {
        "lvs_timeouts" => timeouts(cx, statement, global),
        "lvs_flush_on_stop" => match statement.args.first() {
            None => global.lvs_flush_on_stop = FlushOnStop::All,
            Some(word) if word.text.as_str() == "VS" => {
                global.lvs_flush_on_stop = FlushOnStop::VirtualServers;
            }
            Some(word) => cx.invalid(
                word.span,
                format!("unknown word `{}`", word.text),
                "`VS` or nothing",
            ),
        },
        "lvs_sync_daemon" => {
            if global.lvs_sync_daemon.is_some() {
                cx.given_before(statement);
            } else {
                global.lvs_sync_daemon = sync_daemon(cx, statement);
            }
        }
        _ => return false,
    }
    true
}

fn timeouts(cx: &mut Context, statement: &Statement, global: &mut GlobalDefs) {
    for pair in statement.args.chunks(2) {
        let slot = match pair[0].text.as_str() {
            "tcp" => &mut global.lvs_timeouts.tcp,
            "tcpfin" => &mut global.lvs_timeouts.tcp_fin,
            "udp" => &mut global.lvs_timeouts.udp,
            other => {
                cx.invalid(
                    pair[0].span,
                    format!("unknown timeout `{other}`"),
                    "`tcp`, `tcpfin` or `udp`",
                );
                continue;
            }
        };
        match pair.get(1) {
            Some(word) => {
                if let Some(seconds) = cx.uint(&pair[0].text, word, 0..=2_678_400) {
                    *slot = Some(Duration::from_secs(seconds));
                }
            }
            None => cx.report(
                Code::InvalidValue,
                Consequence::Ignore,
                pair[0].span,
                format!("timeout `{}` without seconds", pair[0].text),
            ),
        }
    }
}

fn sync_daemon(cx: &mut Context, statement: &Statement) -> Option<SyncDaemon> {
    let (first, rest) = statement.args.split_first()?;
    let mut daemon = SyncDaemon {
        interface: cx.interface(first)?,
        instance: None,
        id: None,
        max_length: None,
        port: None,
        ttl: None,
        group: None,
    };
    let mut at = 0;
    while let Some(word) = rest.get(at) {
        let option = word.text.as_str();
        if !matches!(option, "inst" | "id" | "maxlen" | "port" | "ttl" | "group") {
            if at == 0 {
                daemon.instance = Some(option.to_owned());
            } else if at == 1 && daemon.instance.is_some() {
                daemon.id = cx.small("id", word, 0..=255);
                cx.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        Consequence::Warn,
                        word.span,
                        "a bare id is an old way to write it",
                    )
                    .expected(format!("`id {option}`")),
                );
            } else {
                cx.report(
                    Code::InvalidValue,
                    Consequence::Ignore,
                    word.span,
                    format!("unknown option `{option}`"),
                );
            }
            at += 1;
            continue;
        }
        let Some(value) = rest.get(at + 1) else {
            cx.report(
                Code::InvalidValue,
                Consequence::Ignore,
                word.span,
                format!("option `{option}` without value"),
            );
            break;
        };
        match option {
            "inst" => daemon.instance = Some(value.text.to_string()),
            "id" => daemon.id = cx.small(option, value, 0..=255),
            "maxlen" => daemon.max_length = cx.small(option, value, 1..=65507),
            "port" => daemon.port = cx.small(option, value, 1..=65535),
            "ttl" => daemon.ttl = cx.small(option, value, 1..=255),
            _ => match value.text.parse::<IpAddr>() {
                Ok(group) if group.is_multicast() => daemon.group = Some(group),
                _ => cx.invalid(
                    value.span,
                    format!("`{}` is not a multicast address", value.text),
                    "a multicast address",
                ),
            },
        }
        at += 2;
    }
    Some(daemon)
}

fn process(cx: &mut Context, statement: &Statement, global: &mut GlobalDefs) -> bool {
    let processes = &mut global.processes;
    let limit = match statement.spec.canonical() {
        "vrrp_rlimit_rttime" => &mut processes.vrrp.real_time_limit,
        "checker_rlimit_rttime" => &mut processes.checker.real_time_limit,
        "bfd_rlimit_rttime" => &mut processes.bfd.real_time_limit,
        "min_auto_priority_delay" => {
            cx.set(statement, &mut processes.min_auto_priority_delay);
            return true;
        }
        "max_auto_priority" => {
            if statement.args.is_empty() {
                processes.max_auto_priority =
                    preset!(bare_number as i8, GlobalDefs, "max_auto_priority");
            } else {
                cx.set(statement, &mut processes.max_auto_priority);
            }
            return true;
        }
        "enable_snmp_rfc" => {
            (global.snmp.rfc_v2, global.snmp.rfc_v3) = (true, true);
            return true;
        }
        "enable_snmp_keepalived" => {
            global.snmp.vrrp = true;
            return true;
        }
        _ => return false,
    };
    cx.set(statement, limit);
    // The kernel takes the limit for none if it is one.
    *limit = (*limit).max(Duration::from_micros(2));
    true
}

fn files(cx: &mut Context, statement: &Statement, global: &mut GlobalDefs) {
    match statement.spec.canonical() {
        "script_user" => {
            cx.set(statement, &mut global.script_user);
            cx.is_default_user_usable = statement
                .args
                .first()
                .is_none_or(|word| cx.check_account(word, "scripts without user are dropped"));
        }
        "reload_check_config" => {
            global.reload.check_config = Some(cx.text(statement).unwrap_or_default());
        }
        "reload_file" => global.reload.file = Some(cx.text(statement).unwrap_or_default()),
        "include_check" => include_check(cx, statement, &mut global.files.include_check),
        "umask" => umask(cx, statement, &mut global.files.umask),
        _ => {}
    }
}

fn include_check(cx: &mut Context, statement: &Statement, checks: &mut IncludeChecks) {
    let all = IncludeChecks {
        read: true,
        matches: true,
        wildcard: true,
        brace: true,
    };
    if statement.args.is_empty() {
        *checks = all;
    }
    for (at, word) in statement.args.iter().enumerate() {
        let (name, on) = match word.text.as_bytes().first() {
            Some(b'+') => (&word.text[1..], true),
            Some(b'-') => (&word.text[1..], false),
            _ if at == 0 => {
                *checks = IncludeChecks {
                    read: true,
                    ..IncludeChecks::default()
                };
                (&word.text[..], true)
            }
            _ => {
                cx.invalid(
                    word.span,
                    format!("`{}` lacks its sign", word.text),
                    "`+` or `-` before every word but the first",
                );
                continue;
            }
        };
        match name {
            "read" => checks.read = on,
            "match" => checks.matches = on,
            "wildcard_match" => checks.wildcard = on,
            "brace_match" => checks.brace = on,
            _ => cx.invalid(
                word.span,
                format!("unknown check `{name}`"),
                "`read`, `match`, `wildcard_match` or `brace_match`",
            ),
        }
    }
}

/// A number, or names of bits with `|` between them.
fn umask(cx: &mut Context, statement: &Statement, umask: &mut u16) {
    let words: Vec<&str> = statement.args.iter().map(|w| w.text.as_str()).collect();
    let text = words.join("");
    let number = super::scalar::any_base(&text).and_then(|n| u16::try_from(n).ok());
    let value = number.or_else(|| {
        text.split('|')
            .try_fold(0, |all, bit| Some(all | mode_bit(bit)?))
    });
    match value {
        Some(value) if value <= 0o777 => *umask = value,
        _ => cx.invalid(
            statement.head(),
            format!("`{text}` is no file mode"),
            "a number up to 0777 or bits such as `IRGRP | IROTH`",
        ),
    }
}

fn mode_bit(name: &str) -> Option<u16> {
    let (kind, who) = name.strip_prefix('I')?.split_at_checked(1)?;
    let bits = match (kind, who) {
        ("R", "WXU") => return Some(0o700),
        ("R", "WXG") => return Some(0o070),
        ("R", "WXO") => return Some(0o007),
        ("R", _) => 4,
        ("W", _) => 2,
        ("X", _) => 1,
        _ => return None,
    };
    match who {
        "USR" => Some(bits << 6),
        "GRP" => Some(bits << 3),
        "OTH" => Some(bits),
        _ => None,
    }
}
