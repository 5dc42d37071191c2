//! `global_defs`.

use super::{Writer, quoted};
use crate::model::{Config, FlushOnStop, GarpExtra, GlobalDefs, IncludeChecks, Process, RxPolicy};
use crate::settings::{Setting as _, Settings as _};

pub(super) fn write(config: &Config, out: &mut Writer) {
    out.block_unless_empty("global_defs", |out| global(&config.global, out));
    out.values(
        "linkbeat_interfaces",
        config.linkbeat_interfaces.iter().map(|interface| {
            let method = interface.method.map(|method| format!(" {method}"));
            quoted(&interface.name) + &method.unwrap_or_default()
        }),
    );
    out.values(
        "interface_up_down_delays",
        config.interface_delays.iter().map(|delay| {
            format!(
                "{} {} {}",
                quoted(&delay.name),
                super::Seconds(delay.down),
                super::Seconds(delay.up)
            )
        }),
    );
}

fn global(global: &GlobalDefs, out: &mut Writer) {
    let mut default = GlobalDefs::default();
    // Only this keyword makes it zero, and it changes others that have their defaults.
    if global.vrrp.garp.refresh_repeat == 0 {
        out.line("vrrp_min_garp");
        default.vrrp.garp.repeat = 1;
        default.vrrp.garp.delay = std::time::Duration::ZERO;
    } else if global.vrrp.garp.refresh_repeat != 1 {
        out.line(format!(
            "vrrp_garp_master_refresh_repeat {}",
            global.vrrp.garp.refresh_repeat
        ));
    }
    global.write(&default, out);
    global.script_user.write("script_user", out);
    out.values(
        "notification_email",
        global.mail.to.iter().map(|to| quoted(to)),
    );
    if let Some(server) = &global.mail.server {
        out.line(format!(
            "smtp_server {} {}",
            quoted(server),
            global.mail.port
        ));
    }
    if global.default_interface != default.default_interface {
        out.line(format!(
            "default_interface {}",
            quoted(&global.default_interface)
        ));
    }
    if global.dynamic_interfaces {
        out.line(if global.allow_if_changes {
            "dynamic_interfaces allow_if_changes"
        } else {
            "dynamic_interfaces"
        });
    }
    if global.vrrp.group4 != default.vrrp.group4 {
        out.line(format!("vrrp_mcast_group4 {}", global.vrrp.group4));
    }
    if global.vrrp.group6 != default.vrrp.group6 {
        out.line(format!("vrrp_mcast_group6 {}", global.vrrp.group6));
    }
    garp_extra(
        "vrrp_garp_extra_if",
        global.vrrp.garp_extra,
        GarpExtra::default(),
        out,
    );
    firewall(global, out);
    lvs(global, out);
    processes(global, out);
    files(global, out);
}

pub(super) fn garp_extra(name: &str, extra: GarpExtra, default: GarpExtra, out: &mut Writer) {
    if extra != default {
        let all = if extra.all { "all " } else { "" };
        out.line(format!("{name} {all}{}", extra.interval.as_secs()));
    }
}

fn firewall(global: &GlobalDefs, out: &mut Writer) {
    let firewall = &global.firewall;
    match &firewall.iptables {
        Some((input, output)) if output.is_empty() => {
            out.line(format!("vrrp_iptables {}", quoted(input)));
        }
        Some((input, output)) => {
            out.line(format!(
                "vrrp_iptables {} {}",
                quoted(input),
                quoted(output)
            ));
        }
        None => {}
    }
    if let Some(names) = &firewall.ipsets {
        let names: String = names
            .iter()
            .map(|name| format!(" {}", quoted(name)))
            .collect();
        out.line(format!("vrrp_ipsets{names}"));
    }
    if let Some(table) = &firewall.nftables {
        out.line(format!("nftables {}", quoted(table)));
    }
    if let Some(table) = &firewall.ipvs_table {
        out.line(format!("nftables_ipvs {}", quoted(table)));
    }
    match global.buffers.advertisements {
        RxPolicy::System => {}
        RxPolicy::Mtu => out.line("vrrp_rx_bufs_policy MTU"),
        RxPolicy::Advert => out.line("vrrp_rx_bufs_policy ADVERT"),
        RxPolicy::Bytes(bytes) => out.line(format!("vrrp_rx_bufs_policy {bytes}")),
    }
}

fn lvs(global: &GlobalDefs, out: &mut Writer) {
    let timeouts = [
        ("tcp", global.lvs_timeouts.tcp),
        ("tcpfin", global.lvs_timeouts.tcp_fin),
        ("udp", global.lvs_timeouts.udp),
    ];
    let timeouts: String = timeouts
        .iter()
        .filter_map(|(name, time)| Some(format!(" {name} {}", (*time)?.as_secs())))
        .collect();
    if !timeouts.is_empty() {
        out.line(format!("lvs_timeouts{timeouts}"));
    }
    match global.lvs_flush_on_stop {
        FlushOnStop::No => {}
        FlushOnStop::All => out.line("lvs_flush_on_stop"),
        FlushOnStop::VirtualServers => out.line("lvs_flush_on_stop VS"),
    }
    if let Some(daemon) = &global.lvs_sync_daemon {
        let options = [
            ("inst", daemon.instance.as_ref().map(|name| quoted(name))),
            ("id", daemon.id.map(|id| id.to_string())),
            ("maxlen", daemon.max_length.map(|length| length.to_string())),
            ("port", daemon.port.map(|port| port.to_string())),
            ("ttl", daemon.ttl.map(|ttl| ttl.to_string())),
            ("group", daemon.group.map(|group| group.to_string())),
        ];
        let options: String = options
            .iter()
            .filter_map(|(name, value)| Some(format!(" {name} {}", value.as_ref()?)))
            .collect();
        out.line(format!(
            "lvs_sync_daemon {}{options}",
            quoted(&daemon.interface)
        ));
    }
}

fn processes(global: &GlobalDefs, out: &mut Writer) {
    let processes = &global.processes;
    let each = [
        ("vrrp", &processes.vrrp),
        ("checker", &processes.checker),
        ("bfd", &processes.bfd),
    ];
    for (name, process) in each {
        let limit = process.real_time_limit;
        if limit != Process::default().real_time_limit {
            out.line(format!("{name}_rlimit_rttime {}", limit.as_micros()));
        }
    }
    if processes.max_auto_priority != 0 {
        out.line(format!("max_auto_priority {}", processes.max_auto_priority));
    }
    let delay = processes.min_auto_priority_delay.as_micros();
    if delay != 1_000_000 {
        out.line(format!("min_auto_priority_delay {delay}"));
    }
}

fn files(global: &GlobalDefs, out: &mut Writer) {
    let optional = |name: &str, path: &Option<String>, out: &mut Writer| match path.as_deref() {
        None => {}
        Some("") => out.line(name),
        Some(path) => out.line(format!("{name} {}", quoted(path))),
    };
    optional("reload_check_config", &global.reload.check_config, out);
    optional("reload_file", &global.reload.file, out);
    let checks = global.files.include_check;
    if checks != IncludeChecks::default() {
        let words = [
            ("read", checks.read),
            ("match", checks.matches),
            ("wildcard_match", checks.wildcard),
            ("brace_match", checks.brace),
        ];
        let words: String = words
            .iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| format!(" +{name}"))
            .collect();
        out.line(format!("include_check{words}"));
    }
    if global.files.umask != 0o177 {
        out.line(format!("umask 0{:o}", global.files.umask));
    }
}
