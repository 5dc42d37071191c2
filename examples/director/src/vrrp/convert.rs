//! From the model of a configuration to the setup of the VRRP machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_conf::model::{
    AuthenticationKind, BfdInstance, Checker, Config as Model, Family as ModelFamily, Route, Rule,
    Track, Tracking, VirtualAddress as ModelAddress, VmacKind, VrrpInstance, VrrpScript,
};
use lvs_vrrp::{
    Announcements, Authentication, ChecksumSend, Config, Delays, Family, GroupConfig,
    InterfaceName, Interval, LateActive, Member, Pacing, Preemption, Priority, ProcessConfig,
    Reach, ScriptConfig, Setup, SetupError, Tracked, TrackedObject, UnicastPeer, Version,
    VirtualAddress, Vrid, VrrpRouter,
};

use super::routes::{LAST_PREFERENCE, Routes, ignored_of_route, ignored_of_rule};
use super::vmac::Vmac;
use super::watch::Watched;
use crate::notify::scripts::Policy;
use crate::plan::PlannedAddress;
use crate::statics::PlannedStatics;

/// What VRRP needs to know of a configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Converted {
    /// For the machine.
    pub setup: Setup,
    /// Prefix lengths, labels and so on of the virtual addresses.
    pub addresses: BTreeMap<VirtualAddress, ModelAddress>,
    /// More about instances, by their names.
    pub hosts: BTreeMap<Arc<str>, OnHost>,
    /// What is watched besides interfaces.
    pub watched: Watched,
    /// What is there whatever the instances do.
    pub statics: PlannedStatics,
    /// Rules of each family that were given a preference.
    given_preferences: (u32, u32),
    /// What has no effect yet, or cannot be.
    pub remarks: Vec<String>,
}

/// What the machine need not know of an instance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OnHost {
    /// The configured source address.
    pub source: Option<IpAddr>,
    /// It has to be there.
    pub track_source: bool,
    /// Routes and rules.
    pub routes: Routes,
    /// Its interface.
    pub vmac: Option<Vmac>,
}

impl Converted {
    /// Interfaces to make.
    pub(super) fn vmacs(&self) -> Vec<Vmac> {
        let hosts = self.hosts.values();
        hosts.filter_map(|host| host.vmac.clone()).collect()
    }

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
    let objects = Objects::new(model, &mut converted);
    converted.statics = statics(model, &mut converted);
    for instance in &model.instances {
        match member(model, instance, &objects, &mut converted) {
            Ok(member) => converted.setup.virtual_routers.push(member),
            Err(reason) => converted.remarks.push(format!(
                "vrrp_instance {}: left out: {reason}",
                instance.name
            )),
        }
    }
    for group in &model.sync_groups {
        let mut track = Vec::new();
        objects.add_tracked(&group.track, &mut track);
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
    objects: &Objects<'_>,
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
    let vmac = vmac(model, instance, converted);
    if let Some(vmac) = &vmac {
        if !instance.vmac_xmit_base {
            config.interface = vmac.name.clone();
        }
        for name in [&vmac.name, &vmac.base] {
            if *name != config.interface && !instance.dont_track_primary {
                track.push(Tracked::fault(TrackedObject::Interface(name.clone())));
            }
        }
    }
    for (list, into) in [
        (&instance.virtual_addresses, &mut config.addresses),
        (&instance.excluded_addresses, &mut config.excluded),
    ] {
        for address in list {
            let device = address.interface.as_deref().unwrap_or(interface);
            let above = vmac.as_ref().filter(|_| {
                device == interface && address.address.is_ipv6() == (family == Family::V6)
            });
            let virtual_address = VirtualAddress {
                address: address.address,
                interface: above.map_or_else(|| device.into(), |vmac| vmac.name.clone()),
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
    let addresses = || {
        let all = instance.virtual_addresses.iter();
        all.chain(&instance.excluded_addresses)
    };
    objects.add_tracked(&instance.track, &mut track);
    for (asked, what) in [
        (
            instance.vmac.is_some() && vmac.is_none(),
            "use_ipvlan, or use_vmac without an interface,",
        ),
        (
            instance.vmac_addr || addresses().any(|address| address.use_vmac),
            "use_vmac_addr",
        ),
        (instance.hmac.is_some(), "authentication by HMAC"),
    ] {
        if asked {
            converted
                .remarks
                .push(format!("{name}: {what} has no effect yet"));
        }
    }
    let host = OnHost {
        source: instance.source,
        track_source: instance.track_src_ip,
        routes: routes(instance, &mut track, converted),
        vmac,
    };
    let key = Arc::from(instance.name.as_str());
    converted.hosts.insert(key, host);
    let mut member = Member::new(&instance.name, config);
    member.track = track;
    member.track_own_interface = !instance.dont_track_primary && !interface.is_empty();
    if instance.unicast_fault_no_peer && instance.unicast_peers.is_empty() {
        member.fault = Some("it has no unicast peers".into());
    }
    Ok(member)
}

/// The interface with its MAC address.
fn vmac(model: &Model, instance: &VrrpInstance, converted: &Converted) -> Option<Vmac> {
    let wanted = instance.vmac.as_ref()?;
    let base = InterfaceName::from(instance.interface.as_deref()?);
    let VmacKind::Macvlan { mac, .. } = &wanted.kind else {
        return None;
    };
    let ipv6 = instance.family == ModelFamily::Inet6;
    let vrid = instance.virtual_router_id;
    let mac = mac.map_or([0, 0, 0x5e, 0, if ipv6 { 2 } else { 1 }, vrid], |mac| mac.0);
    let taken = |name: &str| {
        let mut hosts = converted.hosts.values();
        hosts.any(|host| {
            host.vmac
                .as_ref()
                .is_some_and(|vmac| vmac.name.as_str() == name)
        })
    };
    let prefix = model.global.vrrp.vmac_prefix.as_deref().unwrap_or("vrrp");
    let name = wanted.name.clone().unwrap_or_else(|| {
        let plain = format!("{prefix}.{vrid}");
        let family = format!("{prefix}{}.{vrid}", if ipv6 { 6 } else { 4 });
        let numbered = (1..).map(|n| format!("{prefix}{n}.{vrid}"));
        let mut names = [plain, family].into_iter().chain(numbered);
        names
            .find(|name| !taken(name))
            .unwrap_or_else(|| format!("{prefix}.{vrid}"))
    });
    let excluded = instance.excluded_addresses.iter();
    Some(Vmac {
        name: name.as_str().into(),
        base,
        mac,
        ipv6: ipv6 || excluded.clone().any(|address| address.address.is_ipv6()),
        sends: ipv6 && !instance.vmac_xmit_base,
    })
}

/// Its routes and rules. Their interfaces must be up.
fn routes(instance: &VrrpInstance, track: &mut Vec<Tracked>, converted: &mut Converted) -> Routes {
    let own = instance.interface.as_deref();
    let mut watch = |interface: &str| {
        if Some(interface) != own {
            let object = TrackedObject::Interface(interface.into());
            if track.iter().all(|known| known.object != object) {
                track.push(Tracked::fault(object));
            }
        }
    };
    for route in &instance.routes {
        let hops = route.next_hops.iter().map(|hop| &hop.interface);
        let interfaces = hops.chain([&route.interface]).flatten();
        if !route.no_track {
            interfaces.for_each(|interface| watch(interface));
        }
    }
    for rule in &instance.rules {
        if !rule.no_track {
            let interfaces = [&rule.iif, &rule.oif].into_iter().flatten();
            interfaces.for_each(|interface| watch(interface));
        }
    }
    let who = format!("vrrp_instance {}", instance.name);
    prepared(&who, &instance.routes, &instance.rules, converted)
}

/// Gives a preference to rules that have none, and remarks what has no effect.
fn prepared(who: &str, routes: &[Route], rules: &[Rule], converted: &mut Converted) -> Routes {
    let mut ignored: Vec<_> = routes.iter().flat_map(ignored_of_route).collect();
    ignored.extend(rules.iter().flat_map(ignored_of_rule));
    ignored.sort_unstable();
    ignored.dedup();
    if !ignored.is_empty() {
        let ignored = ignored.join(", ");
        converted.remarks.push(format!(
            "{who}: no effect in routes and rules yet: {ignored}"
        ));
    }
    let mut rules = rules.to_vec();
    for rule in rules.iter_mut().filter(|rule| rule.preference.is_none()) {
        let given = match rule.family {
            ModelFamily::Inet => &mut converted.given_preferences.0,
            ModelFamily::Inet6 => &mut converted.given_preferences.1,
        };
        rule.preference = Some(LAST_PREFERENCE.saturating_sub(*given));
        *given += 1;
    }
    Routes {
        routes: routes.to_vec(),
        rules,
    }
}

fn statics(model: &Model, converted: &mut Converted) -> PlannedStatics {
    let mut addresses = Vec::new();
    for address in &model.static_addresses {
        // Lines that name none have default_interface.
        let planned = address.interface.as_deref();
        addresses.extend(planned.map(|interface| PlannedAddress::new(address, interface)));
    }
    let follow = |track_group: &Option<String>| track_group.is_some();
    if model
        .static_addresses
        .iter()
        .any(|it| follow(&it.track_group))
        || model.static_routes.iter().any(|it| follow(&it.track_group))
        || model.static_rules.iter().any(|it| follow(&it.track_group))
    {
        let remark = "static entries: track_group has no effect yet, instances do not follow them";
        converted.remarks.push(remark.to_owned());
    }
    PlannedStatics {
        addresses,
        routes: prepared(
            "static_routes and static_rules",
            &model.static_routes,
            &model.static_rules,
            converted,
        ),
    }
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

/// What is left without VRRP: the sessions that real servers are checked by.
#[must_use]
pub fn convert_checks(model: &Model) -> Converted {
    let mut converted = Converted::default();
    converted.watched.bfd = model.bfd_instances.clone();
    converted.watched.bfd.retain(|bfd| is_checked(model, bfd));
    converted
}

/// Whether a real server is checked by this session.
fn is_checked(model: &Model, bfd: &BfdInstance) -> bool {
    let servers = model.virtual_servers.iter().flat_map(|it| &it.real_servers);
    let mut checkers = servers.flat_map(|server| &server.checkers);
    bfd.checker
        && checkers
            .any(|checker| matches!(checker, Checker::BfdCheck(check) if check.name == bfd.name))
}

/// What can be watched, by its name.
struct Objects<'a> {
    model: &'a Model,
    /// Scripts that must not or can't be run are not watched: nobody is in Fault because of a mistake in a path.
    scripts: BTreeSet<&'a str>,
}

impl<'a> Objects<'a> {
    /// Notes what has to be run, read and counted: of the objects that somebody watches.
    fn new(model: &'a Model, converted: &mut Converted) -> Self {
        let instances = model.instances.iter().map(|instance| &instance.track);
        let groups = model.sync_groups.iter().map(|group| &group.track);
        let all: Vec<&Tracking> = instances.chain(groups).collect();
        let is_in = |name: &str, of: fn(&Tracking) -> &Vec<Track>| {
            all.iter()
                .any(|tracking| of(tracking).iter().any(|track| track.name == name))
        };
        let mut scripts = BTreeSet::new();
        let mut policy = None;
        let used = |script: &&VrrpScript| is_in(&script.name, |tracking| &tracking.scripts);
        for script in model.scripts.iter().filter(used) {
            let policy = policy.get_or_insert_with(|| Policy::new(&model.global));
            let name = format!("vrrp_script {}", script.name);
            match policy.check(&script.script) {
                Ok(checked) => {
                    let remarks = checked.remarks.iter();
                    let remarks = remarks.map(|remark| format!("{name}: {remark}"));
                    converted.remarks.extend(remarks);
                    let key = script.name.as_str().into();
                    converted.watched.scripts.insert(key, checked.command);
                    converted.setup.scripts.push(script_config(script));
                    scripts.insert(script.name.as_str());
                }
                Err(refusal) => converted
                    .remarks
                    .push(format!("{name}: not watched: {refusal}")),
            }
        }
        let watched = &mut converted.watched;
        watched.files = model.track_files.clone();
        watched
            .files
            .retain(|file| is_in(&file.name, |tracking| &tracking.files));
        watched.processes = model.track_processes.clone();
        watched
            .processes
            .retain(|process| is_in(&process.name, |tracking| &tracking.processes));
        watched.bfd = model.bfd_instances.clone();
        let tracked = |bfd: &BfdInstance| bfd.vrrp && is_in(&bfd.name, |tracking| &tracking.bfd);
        watched
            .bfd
            .retain(|bfd| tracked(bfd) || is_checked(model, bfd));
        let processes = watched.processes.iter().map(|process| ProcessConfig {
            name: process.name.as_str().into(),
            quorum: process.quorum.into(),
            quorum_max: process.quorum_max.map(u32::from),
            delays: Delays {
                up: process.fork_delay,
                down: process.terminate_delay,
            },
        });
        converted.setup.processes = processes.collect();
        Self { model, scripts }
    }

    fn add_tracked(&self, tracking: &Tracking, list: &mut Vec<Tracked>) {
        let mut add = |track: &Track, object: TrackedObject, (weight, reverse): (i16, bool)| {
            list.push(Tracked {
                object,
                weight: track.weight.unwrap_or(weight),
                reverse: track.reverse.unwrap_or(reverse),
            });
        };
        for track in &tracking.interfaces {
            let object = TrackedObject::Interface(track.name.as_str().into());
            add(track, object, (0, false));
        }
        let model = self.model;
        for track in &tracking.scripts {
            let known = model.scripts.iter().find(|it| it.name == track.name);
            if let Some(script) = known.filter(|it| self.scripts.contains(it.name.as_str())) {
                let object = TrackedObject::Script(track.name.as_str().into());
                add(track, object, (script.weight, script.reverse));
            }
        }
        for track in &tracking.files {
            if let Some(file) = model.track_files.iter().find(|it| it.name == track.name) {
                let object = TrackedObject::File(track.name.as_str().into());
                add(track, object, (file.weight, file.reverse));
            }
        }
        for track in &tracking.processes {
            let mut known = model.track_processes.iter();
            if let Some(process) = known.find(|it| it.name == track.name) {
                let object = TrackedObject::Process(track.name.as_str().into());
                add(track, object, (process.weight, process.reverse));
            }
        }
        for track in &tracking.bfd {
            if let Some(bfd) = model.bfd_instances.iter().find(|it| it.name == track.name) {
                let object = TrackedObject::Bfd(track.name.as_str().into());
                add(track, object, (bfd.weight, bfd.reverse));
            }
        }
    }
}

fn script_config(script: &VrrpScript) -> ScriptConfig {
    ScriptConfig {
        interval: script.interval,
        timeout: script.timeout,
        rise: script.rise,
        fall: script.fall,
        init_fail: script.init_fail,
        ..ScriptConfig::new(&script.name)
    }
}
