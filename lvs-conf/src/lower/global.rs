//! `global_defs`.

use std::net::IpAddr;
use std::time::Duration;

use super::Context;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::model::{FlushOnStop, Garp, GlobalDefs, ScriptUser, SyncDaemon};
use crate::tree::Statement;

pub(super) fn read(cx: &mut Context, block: &Statement, global: &mut GlobalDefs) {
    for statement in block.statements() {
        if !mail(cx, statement, global)
            && !vrrp(cx, statement, global)
            && !lvs(cx, statement, global)
        {
            general(cx, statement, global);
        }
    }
    if global.script_user.is_none() && global.enable_script_security {
        cx.is_default_user_usable = cx.has_account("keepalived_script");
    }
}

/// Gratuitous ARP settings, which have the same meaning here (after `vrrp_`) and in an instance.
pub(super) fn garp(cx: &mut Context, statement: &Statement, name: &str, garp: &mut Garp) -> bool {
    let span = statement.head();
    let at_least_one = |cx: &mut Context| {
        let value = cx.u32_arg(statement, 0..=u32::MAX)?;
        if value == 0 {
            cx.report(
                Code::ZeroRaisedToOne,
                Consequence::Adjust,
                span,
                format!("`{}` cannot be zero, it becomes 1", statement.keyword.text),
            );
        }
        Some(value.max(1))
    };
    match name {
        "garp_master_repeat" => garp.repeat = at_least_one(cx).unwrap_or(garp.repeat),
        "garp_master_refresh_repeat" => {
            garp.refresh_repeat = at_least_one(cx).unwrap_or(garp.refresh_repeat);
        }
        "garp_master_delay" => {
            garp.delay = cx
                .seconds_arg(statement, 0..=MAX_SECONDS)
                .unwrap_or(garp.delay);
        }
        "garp_master_refresh" => {
            garp.refresh = cx.seconds_arg(statement, 0..=u32::MAX).unwrap_or_default();
        }
        "garp_lower_prio_delay" => {
            garp.lower_prio_delay = cx
                .seconds_arg(statement, 0..=MAX_SECONDS)
                .or(garp.lower_prio_delay);
        }
        "garp_lower_prio_repeat" => {
            garp.lower_prio_repeat = cx
                .u32_arg(statement, 0..=i32::MAX as u32)
                .or(garp.lower_prio_repeat);
        }
        _ => return false,
    }
    true
}

pub(super) fn script_user(statement: &Statement) -> Option<ScriptUser> {
    Some(ScriptUser {
        name: statement.args.first()?.text.to_string(),
        group: statement.args.get(1).map(|w| w.text.to_string()),
    })
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
        "notification_email_from" => mail.from = cx.text_arg(statement),
        "smtp_server" => {
            mail.server = cx.text_arg(statement);
            if let Some(word) = statement.args.get(1)
                && let Some(port) = cx.uint("smtp_server", word, 1..=65535)
            {
                mail.port = u16::try_from(port).unwrap_or(25);
            }
        }
        "smtp_helo_name" => mail.helo_name = cx.text_arg(statement),
        "smtp_connect_timeout" => {
            if let Some(timeout) = cx.seconds_arg(statement, 0..=MAX_SECONDS) {
                if timeout.is_zero() {
                    cx.report(
                        Code::ZeroRaisedToOne,
                        Consequence::Adjust,
                        statement.head(),
                        "`smtp_connect_timeout` cannot be zero, it becomes 1",
                    );
                }
                mail.connect_timeout = timeout.max(Duration::from_secs(1));
            }
        }
        "smtp_alert" => mail.alert = cx.bool_arg(statement).or(mail.alert),
        "smtp_alert_vrrp" => mail.alert_vrrp = cx.bool_arg(statement).or(mail.alert_vrrp),
        "smtp_alert_checker" => mail.alert_checker = cx.bool_arg(statement).or(mail.alert_checker),
        "no_email_faults" => mail.no_faults = true,
        "no_checker_emails" => {
            mail.no_checkers = cx.bool_arg(statement).unwrap_or(mail.no_checkers);
        }
        _ => return false,
    }
    true
}

fn vrrp(cx: &mut Context, statement: &Statement, global: &mut GlobalDefs) -> bool {
    let vrrp = &mut global.vrrp;
    let name = statement.spec.canonical();
    if let Some(name) = name.strip_prefix("vrrp_")
        && garp(cx, statement, name, &mut vrrp.garp)
    {
        return true;
    }
    match name {
        "vrrp_version" => vrrp.version = cx.u8_arg(statement, 2..=3).unwrap_or(vrrp.version),
        "vrrp_mcast_group4" => match cx.address_arg(statement, Code::InvalidValue) {
            Some(IpAddr::V4(group)) if group.is_multicast() => vrrp.group4 = group,
            Some(_) => not_multicast(cx, statement),
            None => {}
        },
        "vrrp_mcast_group6" => match cx.address_arg(statement, Code::InvalidValue) {
            Some(IpAddr::V6(group)) if group.is_multicast() => vrrp.group6 = group,
            Some(_) => not_multicast(cx, statement),
            None => {}
        },
        "vrrp_garp_interval" => {
            vrrp.garp_interval = cx
                .timer_arg(statement, 6, 1..=MAX_MICROS)
                .unwrap_or(vrrp.garp_interval);
        }
        "vrrp_gna_interval" => {
            vrrp.gna_interval = cx
                .timer_arg(statement, 6, 1..=MAX_MICROS)
                .unwrap_or(vrrp.gna_interval);
        }
        "vrrp_min_garp" => {
            if cx.bool_arg(statement).unwrap_or(true) {
                minimum_garp(&mut vrrp.garp);
            }
        }
        "vrrp_down_timer_adverts" => {
            vrrp.down_timer_adverts = cx
                .u8_arg(statement, 1..=100)
                .unwrap_or(vrrp.down_timer_adverts);
        }
        "vrrp_lower_prio_no_advert" => {
            vrrp.lower_prio_no_advert = cx.bool_arg(statement).unwrap_or(vrrp.lower_prio_no_advert);
        }
        "vrrp_higher_prio_send_advert" => {
            vrrp.higher_prio_send_advert = cx
                .bool_arg(statement)
                .unwrap_or(vrrp.higher_prio_send_advert);
        }
        "vrrp_check_unicast_src" => vrrp.check_unicast_src = true,
        "vrrp_skip_check_adv_addr" => {
            vrrp.skip_check_adv_addr = cx.bool_arg(statement).unwrap_or(vrrp.skip_check_adv_addr);
        }
        "vrrp_strict" => vrrp.strict = cx.bool_arg(statement).unwrap_or(vrrp.strict),
        "vrrp_startup_delay" => {
            vrrp.startup_delay = cx
                .timer_arg(statement, 6, 1_000..=MAX_MICROS)
                .unwrap_or(vrrp.startup_delay);
        }
        _ => return false,
    }
    true
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
    cx.push(
        Diagnostic::new(
            Code::InvalidValue,
            Consequence::Ignore,
            statement.head(),
            format!(
                "`{}` needs a multicast address of its family",
                statement.keyword.text
            ),
        )
        .expected("a multicast address"),
    );
}

fn lvs(cx: &mut Context, statement: &Statement, global: &mut GlobalDefs) -> bool {
    match statement.spec.canonical() {
        "lvs_timeouts" => timeouts(cx, statement, global),
        "lvs_flush" => global.lvs_flush = true,
        "lvs_flush_on_stop" => match statement.args.first() {
            None => global.lvs_flush_on_stop = FlushOnStop::All,
            Some(word) if word.text == "VS" => {
                global.lvs_flush_on_stop = FlushOnStop::VirtualServers;
            }
            Some(word) => cx.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    Consequence::Ignore,
                    word.span,
                    format!("unknown word `{}`", word.text),
                )
                .expected("`VS` or nothing"),
            ),
        },
        "lvs_sync_daemon" => {
            let daemon = sync_daemon(cx, statement);
            cx.first_wins(statement, &mut global.lvs_sync_daemon, daemon);
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
                cx.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        Consequence::Ignore,
                        pair[0].span,
                        format!("unknown timeout `{other}`"),
                    )
                    .expected("`tcp`, `tcpfin` or `udp`"),
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
                daemon.instance = Some(word.text.to_string());
            } else if at == 1 && daemon.instance.is_some() {
                daemon.id = cx
                    .uint("id", word, 0..=255)
                    .and_then(|v| u8::try_from(v).ok());
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
            "id" => {
                daemon.id = cx
                    .uint(option, value, 0..=255)
                    .and_then(|v| u8::try_from(v).ok());
            }
            "maxlen" => {
                daemon.max_length = cx
                    .uint(option, value, 1..=65507)
                    .and_then(|v| u16::try_from(v).ok());
            }
            "port" => {
                daemon.port = cx
                    .uint(option, value, 1..=65535)
                    .and_then(|v| u16::try_from(v).ok());
            }
            "ttl" => {
                daemon.ttl = cx
                    .uint(option, value, 1..=255)
                    .and_then(|v| u8::try_from(v).ok());
            }
            _ => match value.text.parse::<IpAddr>() {
                Ok(group) if group.is_multicast() => daemon.group = Some(group),
                _ => cx.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        Consequence::Ignore,
                        value.span,
                        format!("`{}` is not a multicast address", value.text),
                    )
                    .expected("a multicast address"),
                ),
            },
        }
        at += 2;
    }
    Some(daemon)
}

fn general(cx: &mut Context, statement: &Statement, global: &mut GlobalDefs) {
    match statement.spec.canonical() {
        "router_id" => global.router_id = cx.text_arg(statement),
        "default_interface" => {
            if let Some(name) = cx.interface_arg(statement) {
                global.default_interface = name;
            }
        }
        "dynamic_interfaces" => global.dynamic_interfaces = true,
        "script_user" => {
            global.script_user = script_user(statement);
            cx.is_default_user_usable = statement
                .args
                .first()
                .is_none_or(|word| cx.check_account(word, "scripts without user are dropped"));
        }
        "enable_script_security" => global.enable_script_security = true,
        "startup_script" => {
            let script = cx.script_arg(statement);
            cx.first_wins(statement, &mut global.startup_script, script);
        }
        "shutdown_script" => {
            let script = cx.script_arg(statement);
            cx.first_wins(statement, &mut global.shutdown_script, script);
        }
        "rs_init_notifies" => {
            global.rs_init_notifies = cx.bool_arg(statement).unwrap_or(global.rs_init_notifies);
        }
        "checker_log_all_failures" => {
            global.checker_log_all_failures = cx
                .bool_arg(statement)
                .unwrap_or(global.checker_log_all_failures);
        }
        _ => cx.not_acted_on(statement),
    }
}

/// Largest number of seconds that fits microseconds in 32 bits.
pub(super) const MAX_SECONDS: u32 = 4294;
pub(super) const MAX_MICROS: u64 = u32::MAX as u64;
