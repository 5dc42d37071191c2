//! From the model of a configuration to the setup of the VRRP machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lvs_conf::model::{
    AuthenticationKind, Config as Model, Family as ModelFamily, Track, Tracking,
    VirtualAddress as ModelAddress, VrrpInstance,
};
use lvs_vrrp::{
    Announcements, Authentication, ChecksumSend, Config, Delays, Family, GroupConfig,
    InterfaceName, Interval, LateActive, Member, Pacing, Preemption, Priority, Reach, Setup,
    SetupError, Tracked, TrackedObject, UnicastPeer, Version, VirtualAddress, Vrid, VrrpRouter,
};

/// What VRRP needs to know of a configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Converted {
    /// For the machine.
    pub setup: Setup,
    /// Prefix lengths, labels and so on of the virtual addresses.
    pub addresses: BTreeMap<VirtualAddress, ModelAddress>,
    /// Configured source addresses by the instance's name.
    pub sources: BTreeMap<String, IpAddr>,
    /// What has no effect yet, or cannot be.
    pub remarks: Vec<String>,
}

impl Converted {
    /// Whether it hangs together.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(&self) -> Result<(), SetupError> {
        VrrpRouter::new(Instant::now(), self.setup.clone()).map(drop)
    }
}

/// Takes the VRRP part of a model.
#[must_use]
pub fn convert(model: &Model) -> Converted {
    let mut converted = Converted::default();
    let pacing = Pacing {
        arp: model.global.vrrp.garp_interval,
        na: model.global.vrrp.gna_interval,
    };
    converted.setup.pacing = pacing;
    for group in &model.garp_groups {
        for interface in &group.interfaces {
            let own = Pacing {
                arp: group.garp_interval.unwrap_or(pacing.arp),
                na: group.gna_interval.unwrap_or(pacing.na),
            };
            let name = InterfaceName::from(interface.as_str());
            converted.setup.interface_pacing.insert(name, own);
        }
    }
    for delay in &model.interface_delays {
        let name = InterfaceName::from(delay.name.as_str());
        let delays = Delays {
            up: delay.up,
            down: delay.down,
        };
        converted.setup.interface_delays.insert(name, delays);
    }
    for instance in &model.instances {
        match member(model, instance, &mut converted) {
            Ok(member) => converted.setup.virtual_routers.push(member),
            Err(reason) => converted.remarks.push(format!(
                "vrrp_instance {}: left out: {reason}",
                instance.name
            )),
        }
    }
    for group in &model.sync_groups {
        let mut track = Vec::new();
        let name = format!("vrrp_sync_group {}", group.name);
        add_tracked(&group.track, &name, &mut track, &mut converted.remarks);
        let is_there = |name: &&String| {
            let mut members = converted.setup.virtual_routers.iter();
            members.any(|member| *member.name == ***name)
        };
        let members: Vec<_> = group.members.iter().filter(is_there).collect();
        converted.setup.groups.push(GroupConfig {
            name: group.name.as_str().into(),
            members: members.iter().map(|name| name.as_str().into()).collect(),
            track,
            member_weights: group.tracking_weight,
        });
    }
    converted
}

fn member(
    model: &Model,
    instance: &VrrpInstance,
    converted: &mut Converted,
) -> Result<Member, String> {
    let family = match instance.family {
        ModelFamily::Inet => Family::V4,
        ModelFamily::Inet6 => Family::V6,
    };
    let vrid = Vrid::new(instance.virtual_router_id).ok_or("no virtual_router_id")?;
    // Only unicast does without one.
    let interface = instance.interface.as_deref().unwrap_or_default();
    let mut config = Config::new(vrid, family, interface);
    config.version = Version::new(instance.version).ok_or("an unknown version")?;
    config.priority = Priority::new(instance.priority).ok_or("no priority")?;
    config.interval = Interval::new(instance.advert_interval).ok_or("an impossible advert_int")?;
    config.reach = reach(model, instance, family);
    config.authentication = authentication(instance)?;
    config.preemption = match (instance.preempt, instance.preempt_delay) {
        (false, _) => Preemption::Off,
        (true, Duration::ZERO) => Preemption::Immediate,
        (true, delay) => Preemption::After(delay),
    };
    config.down_timer_adverts = instance.down_timer_adverts;
    config.accept = instance.accept;
    config.answer_lower = !instance.lower_prio_no_advert;
    // Harmless to every peer, and it cures the hosts that learned the wrong MAC address in a split.
    config.answer_higher = instance.higher_prio_send_advert || !instance.strict;
    config.owner_ignores_adverts = instance.owner_ignore_adverts;
    config.skip_known_addresses = instance.skip_check_adv_addr;
    config.startup_delay = model.global.vrrp.startup_delay;
    config.checksum = match (instance.v3_checksum_as_v2, instance.old_unicast_checksum) {
        (true, _) => ChecksumSend::Message,
        (false, Some(true)) => ChecksumSend::GroupPseudoHeader,
        (false, Some(false)) => ChecksumSend::PseudoHeaderAlways,
        (false, None) => ChecksumSend::PseudoHeader,
    };
    config.late = match instance.timer_expired_backup.and_then(Priority::new) {
        Some(best) if !instance.preempt => LateActive::YieldTo(best),
        _ => LateActive::Reannounce,
    };
    let garp = instance.garp;
    config.announcements = Announcements {
        repeat: garp.repeat.max(1),
        delay: garp.delay,
        refresh: garp.refresh,
        refresh_repeat: garp.refresh_repeat.max(1),
        lower_priority_repeat: garp.lower_prio_repeat.unwrap_or(garp.repeat),
        lower_priority_delay: garp.lower_prio_delay.unwrap_or(garp.delay),
        after_rival: !instance.strict,
    };
    let mut track = Vec::new();
    for (list, into) in [
        (&instance.virtual_addresses, &mut config.addresses),
        (&instance.excluded_addresses, &mut config.excluded),
    ] {
        for address in list {
            let device = address.interface.as_deref().unwrap_or(interface);
            let virtual_address = VirtualAddress {
                address: address.address,
                interface: device.into(),
            };
            if !address.no_track && device != interface {
                let object = TrackedObject::Interface(device.into());
                track.push(Tracked::fault(object));
            }
            converted
                .addresses
                .insert(virtual_address.clone(), address.clone());
            into.push(virtual_address);
        }
    }
    config.check().map_err(|error| error.to_string())?;
    let name = format!("vrrp_instance {}", instance.name);
    add_tracked(&instance.track, &name, &mut track, &mut converted.remarks);
    for (asked, what) in [
        (instance.vmac.is_some(), "use_vmac"),
        (instance.hmac.is_some(), "authentication by HMAC"),
        (!instance.routes.is_empty(), "virtual_routes"),
        (!instance.rules.is_empty(), "virtual_rules"),
        (!instance.accept, "no_accept"),
    ] {
        if asked {
            converted
                .remarks
                .push(format!("{name}: {what} has no effect yet"));
        }
    }
    if let Some(source) = instance.source {
        converted.sources.insert(instance.name.clone(), source);
    }
    let mut member = Member::new(&instance.name, config);
    member.track = track;
    member.track_own_interface = !instance.dont_track_primary && !interface.is_empty();
    if instance.unicast_fault_no_peer && instance.unicast_peers.is_empty() {
        member.fault = Some("it has no unicast peers".into());
    }
    Ok(member)
}

fn reach(model: &Model, instance: &VrrpInstance, family: Family) -> Reach {
    if instance.unicast_peers.is_empty() {
        let global = &model.global.vrrp;
        let group = match (instance.group, family) {
            (Some(group), _) => group,
            (None, Family::V4) => global.group4.into(),
            (None, Family::V6) => global.group6.into(),
        };
        return Reach::Multicast { group };
    }
    let peers = instance.unicast_peers.iter().map(|peer| UnicastPeer {
        address: peer.address,
        ttl: (
            peer.min_ttl.unwrap_or_default(),
            peer.max_ttl.unwrap_or(u8::MAX),
        ),
    });
    Reach::Unicast {
        peers: peers.collect(),
        ttl: instance.unicast_ttl,
        check_source: instance.check_unicast_src,
    }
}

fn authentication(instance: &VrrpInstance) -> Result<Authentication, String> {
    let Some(configured) = &instance.authentication else {
        return Ok(Authentication::None);
    };
    let padded = Authentication::pad(&configured.password).ok_or("a password of over 8 bytes")?;
    Ok(match configured.kind {
        AuthenticationKind::Pass => Authentication::Password(padded),
        AuthenticationKind::Ah => Authentication::Header(padded),
    })
}

/// Interfaces are watched already; the rest is named.
fn add_tracked(
    tracking: &Tracking,
    name: &str,
    list: &mut Vec<Tracked>,
    remarks: &mut Vec<String>,
) {
    for track in &tracking.interfaces {
        list.push(Tracked {
            object: TrackedObject::Interface(track.name.as_str().into()),
            weight: track.weight.unwrap_or_default(),
            reverse: track.reverse.unwrap_or_default(),
        });
    }
    let others: [(&[Track], &str); 4] = [
        (&tracking.scripts, "track_script"),
        (&tracking.files, "track_file"),
        (&tracking.processes, "track_process"),
        (&tracking.bfd, "track_bfd"),
    ];
    for (tracks, keyword) in others {
        if !tracks.is_empty() {
            remarks.push(format!("{name}: {keyword} has no effect yet"));
        }
    }
}
