//! Instances and sync groups.

use super::{Writer, global, net, quoted};
use crate::model::{
    AntiReplay, AuthHmac, AuthenticationKind, Family, GlobalDefs, HmacMode, HmacValue,
    InitialState, Notify, SyncGroup, Track, Tracking, Vmac, VmacKind, VrrpInstance,
};
use crate::settings::{Setting as _, Settings as _};

pub(super) fn instance(instance: &VrrpInstance, defaults: &GlobalDefs, out: &mut Writer) {
    let default = VrrpInstance::with_defaults(&instance.name, defaults);
    out.block(format!("vrrp_instance {}", quoted(&instance.name)), |out| {
        let master = instance.state == InitialState::Master;
        out.line(if master {
            "state MASTER"
        } else {
            "state BACKUP"
        });
        if let Some(interface) = &instance.interface {
            out.line(format!("interface {}", quoted(interface)));
        }
        out.line(format!("virtual_router_id {}", instance.virtual_router_id));
        out.line(format!("priority {}", instance.priority));
        let version = match instance.family {
            Family::Inet => default.version,
            Family::Inet6 => 3,
        };
        if instance.version != version {
            out.line(format!("version {}", instance.version));
        }
        behaviour(instance, &default, out);
        own_interface(instance, out);
        addresses(instance, out);
        tracking(&instance.track, out);
        notify(&instance.notify, out);
    });
}

fn behaviour(instance: &VrrpInstance, default: &VrrpInstance, out: &mut Writer) {
    instance.write(default, out);
    if !instance.preempt {
        out.line("nopreempt");
    }
    if instance.preempt_delay != default.preempt_delay {
        instance.preempt_delay.write("preempt_delay", out);
    }
    let owner = instance.priority == 255;
    if instance.accept != (!instance.strict || owner) {
        out.line(if instance.accept {
            "accept"
        } else {
            "no_accept"
        });
    }
    if instance.lower_prio_no_advert != (instance.strict || default.lower_prio_no_advert) {
        instance
            .lower_prio_no_advert
            .write("lower_prio_no_advert", out);
    }
    let ignores = instance.strict && owner || default.owner_ignore_adverts;
    if instance.owner_ignore_adverts != ignores {
        instance
            .owner_ignore_adverts
            .write("owner_ignore_adverts", out);
    }
    if let Some(priority) = instance.timer_expired_backup {
        out.line(format!("timer_expired_backup {priority}"));
    }
    match instance.old_unicast_checksum {
        None => {}
        Some(true) => out.line("old_unicast_checksum"),
        Some(false) => out.line("old_unicast_checksum never"),
    }
    global::garp_extra(
        "garp_extra_if",
        instance.garp_extra,
        default.garp_extra,
        out,
    );
    if let Some(authentication) = &instance.authentication {
        out.block("authentication", |out| {
            out.line(match authentication.kind {
                AuthenticationKind::Pass => "auth_type PASS",
                AuthenticationKind::Ah => "auth_type AH",
            });
            let password = String::from_utf8_lossy(&authentication.password);
            out.line(format!("auth_pass {}", quoted(&password)));
        });
    }
    if let Some(auth) = &instance.hmac {
        out.block("auth_hmac", |out| hmac(auth, out));
    }
}

fn hmac(hmac: &AuthHmac, out: &mut Writer) {
    for key in &hmac.keys {
        let value = match &key.value {
            HmacValue::File(path) => quoted(&format!("file:{path}")),
            HmacValue::Bytes(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("hex:{hex}")
            }
        };
        out.line(format!("key {} {value}", key.id));
    }
    out.line(format!("active_key {}", hmac.active_key));
    hmac.time_window.write("time_window", out);
    if hmac.anti_replay != AntiReplay::DEFAULT {
        out.line(format!("anti_replay {}", hmac.anti_replay));
    }
    if hmac.mode != HmacMode::DEFAULT {
        out.line(format!("mode {}", hmac.mode));
    }
}

fn own_interface(instance: &VrrpInstance, out: &mut Writer) {
    let Some(Vmac { name, kind, group }) = &instance.vmac else {
        return;
    };
    let mut line = match kind {
        VmacKind::Macvlan { .. } => "use_vmac".to_owned(),
        VmacKind::Ipvlan { .. } => "use_ipvlan".to_owned(),
    };
    let mut word = |word: String| {
        line.push(' ');
        line.push_str(&word);
    };
    if let Some(name) = name {
        word(format!("name {}", quoted(name)));
    }
    match kind {
        VmacKind::Macvlan { mac, notify } => {
            if let Some(mac) = mac {
                word(mac.to_string());
            }
            if *notify {
                word("netlink_notify_msg".to_owned());
            }
        }
        VmacKind::Ipvlan { address, mode } => {
            if let Some((address, len)) = address {
                word(format!("{address}/{len}"));
            }
            word(mode.to_string());
        }
    }
    if let Some(group) = group {
        word(format!("group {group}"));
    }
    out.line(line);
}

fn addresses(instance: &VrrpInstance, out: &mut Writer) {
    let says_family = instance.source.is_some()
        || instance.group.is_some()
        || !instance.unicast_peers.is_empty()
        || !instance.virtual_addresses.is_empty();
    if instance.family == Family::Inet6 && !says_family {
        out.line("native_ipv6");
    }
    if let Some(source) = instance.source {
        out.line(format!("mcast_src_ip {source}"));
    }
    if let Some(group) = instance.group {
        out.line(format!("mcast_dst_ip {group}"));
    }
    out.values(
        "unicast_peer",
        instance.unicast_peers.iter().map(|peer| {
            let min = peer.min_ttl.map(|ttl| format!(" min_ttl {ttl}"));
            let max = peer.max_ttl.map(|ttl| format!(" max_ttl {ttl}"));
            format!(
                "{}{}{}",
                peer.address,
                min.unwrap_or_default(),
                max.unwrap_or_default()
            )
        }),
    );
    out.values(
        "virtual_ipaddress",
        instance.virtual_addresses.iter().map(net::address),
    );
    out.values(
        "virtual_ipaddress_excluded",
        instance.excluded_addresses.iter().map(net::address),
    );
    out.values("virtual_routes", instance.routes.iter().map(net::route));
    out.values("virtual_rules", instance.rules.iter().map(net::rule));
}

fn tracking(track: &Tracking, out: &mut Writer) {
    for (name, entries) in [
        ("track_interface", &track.interfaces),
        ("track_script", &track.scripts),
        ("track_file", &track.files),
        ("track_process", &track.processes),
        ("track_bfd", &track.bfd),
    ] {
        out.values(name, entries.iter().map(entry));
    }
}

fn entry(track: &Track) -> String {
    let weight = track.weight.map(|weight| format!(" weight {weight}"));
    let reverse = match track.reverse {
        None => "",
        Some(true) => " reverse",
        Some(false) => " noreverse",
    };
    format!(
        "{}{}{reverse}",
        quoted(&track.name),
        weight.unwrap_or_default()
    )
}

fn notify(notify: &Notify, out: &mut Writer) {
    notify.write(&Notify::default(), out);
    match &notify.deleted {
        Some(script) => out.script("notify_deleted", script),
        None if notify.report_deleted => out.line("notify_deleted"),
        None => {}
    }
}

pub(super) fn sync_group(group: &SyncGroup, global: &GlobalDefs, out: &mut Writer) {
    out.block(format!("vrrp_sync_group {}", quoted(&group.name)), |out| {
        out.values("group", group.members.iter().map(|name| quoted(name)));
        tracking(&group.track, out);
        notify(&group.notify, out);
        let alert = global
            .mail
            .alert_vrrp
            .or(global.mail.alert)
            .unwrap_or(false);
        if group.smtp_alert != alert {
            group.smtp_alert.write("smtp_alert", out);
        }
        if group.tracking_weight {
            out.line("sync_group_tracking_weight");
        }
    });
}
