//! The changes of a reload are all that differs, and nothing else.

mod generated;

use std::collections::BTreeSet;
use std::fmt::Debug;

use lvs_conf::diff::{
    AddressId, Change, DaemonSetting, Edit, GlobalPart, InstanceId, Object, ServiceId, diff,
};
use lvs_conf::model::{
    Config, GlobalDefs, LocalAddressGroup, RealServer, VirtualAddress, VirtualServer, VrrpInstance,
};
use lvs_conf::{NoFiles, Options, SourceMap, load};
use proptest::prelude::*;

fn config(text: String) -> Config {
    let mut sources = SourceMap::new();
    let id = sources.add("x", text);
    load(&mut sources, id, &NoFiles, &Options::default()).config
}

/// Carries out a change on an object that a list holds by its key.
fn edit<T: Clone, K: PartialEq>(
    list: &mut Vec<T>,
    goal: &[T],
    key: impl Fn(&T) -> K,
    wanted: &K,
    edit: Edit,
) {
    let found = |list: &[T]| list.iter().position(|item| key(item) == *wanted);
    let new = || goal[found(goal).expect("what is added or changed is in the new one")].clone();
    match edit {
        Edit::Remove => {
            list.remove(found(list).expect("what is removed is in the old one"));
        }
        Edit::Change => {
            let at = found(list).expect("what is changed is in the old one");
            list[at] = new();
        }
        Edit::Add => list.push(new()),
    }
}

/// Carries out one change, with the new configuration as the source of what is added.
fn apply(config: &mut Config, goal: &Config, change: &Change) {
    let how = change.edit;
    let instance_id = |instance: &VrrpInstance| InstanceId::of(instance);
    match &change.object {
        Object::Daemon(setting) => daemon(config, goal, *setting),
        Object::Global(part) => global(&mut config.global, &goal.global, *part),
        Object::LinkbeatInterface(name) => edit(
            &mut config.linkbeat_interfaces,
            &goal.linkbeat_interfaces,
            |o| o.name.clone(),
            name,
            how,
        ),
        Object::InterfaceDelay(name) => edit(
            &mut config.interface_delays,
            &goal.interface_delays,
            |o| o.name.clone(),
            name,
            how,
        ),
        Object::GarpGroup(names) => edit(
            &mut config.garp_groups,
            &goal.garp_groups,
            |o| o.interfaces.clone(),
            names,
            how,
        ),
        Object::TrackFile(name) => edit(
            &mut config.track_files,
            &goal.track_files,
            |o| o.name.clone(),
            name,
            how,
        ),
        Object::Script(name) => edit(
            &mut config.scripts,
            &goal.scripts,
            |o| o.name.clone(),
            name,
            how,
        ),
        Object::TrackProcess(name) => edit(
            &mut config.track_processes,
            &goal.track_processes,
            |o| o.name.clone(),
            name,
            how,
        ),
        Object::Bfd(name) => edit(
            &mut config.bfd_instances,
            &goal.bfd_instances,
            |o| o.name.clone(),
            name,
            how,
        ),
        Object::TrackGroup(name) => edit(
            &mut config.track_groups,
            &goal.track_groups,
            |o| o.name.clone(),
            name,
            how,
        ),
        Object::SyncGroup(name) => edit(
            &mut config.sync_groups,
            &goal.sync_groups,
            |o| o.name.clone(),
            name,
            how,
        ),
        Object::StaticAddress(id) => edit(
            &mut config.static_addresses,
            &goal.static_addresses,
            |vip| AddressId::of(vip, None),
            id,
            how,
        ),
        Object::StaticRoute(line) => edit(
            &mut config.static_routes,
            &goal.static_routes,
            ToString::to_string,
            line,
            how,
        ),
        Object::StaticRule(line) => edit(
            &mut config.static_rules,
            &goal.static_rules,
            ToString::to_string,
            line,
            how,
        ),
        Object::Instance(id) if how == Edit::Change => {
            let (old, new) = pair(&mut config.instances, &goal.instances, instance_id, id);
            let mut changed = VrrpInstance {
                virtual_addresses: Vec::new(),
                excluded_addresses: Vec::new(),
                routes: old.routes.clone(),
                rules: old.rules.clone(),
                ..new.clone()
            };
            // Addresses stay, each in the block that the new one has it in.
            let of = |vip: &VirtualAddress| AddressId::of(vip, new.interface.as_ref());
            for vip in &old.virtual_addresses {
                let is_excluded = new.excluded_addresses.iter().any(|v| of(v) == of(vip))
                    && !new.virtual_addresses.iter().any(|v| of(v) == of(vip));
                if is_excluded {
                    changed.excluded_addresses.push(vip.clone());
                } else {
                    changed.virtual_addresses.push(vip.clone());
                }
            }
            for vip in &old.excluded_addresses {
                if new.virtual_addresses.iter().any(|v| of(v) == of(vip)) {
                    changed.virtual_addresses.push(vip.clone());
                } else {
                    changed.excluded_addresses.push(vip.clone());
                }
            }
            *old = changed;
        }
        Object::Instance(id) => edit(&mut config.instances, &goal.instances, instance_id, id, how),
        Object::InstanceAddress(id, address) => {
            let (old, new) = pair(&mut config.instances, &goal.instances, instance_id, id);
            let interface = new.interface.clone();
            let of = |vip: &VirtualAddress| AddressId::of(vip, interface.as_ref());
            if how == Edit::Change {
                let olds = old.virtual_addresses.iter_mut();
                let mut olds = olds.chain(&mut old.excluded_addresses);
                let mut news = new.virtual_addresses.iter().chain(&new.excluded_addresses);
                let vip = olds.find(|vip| of(vip) == *address).expect("it is there");
                vip.clone_from(news.find(|vip| of(vip) == *address).expect("it stays"));
                return;
            }
            let lists = [
                (&mut old.virtual_addresses, &new.virtual_addresses),
                (&mut old.excluded_addresses, &new.excluded_addresses),
            ];
            for (list, goal) in lists {
                let holder: &[VirtualAddress] = if how == Edit::Add { goal } else { list };
                if holder.iter().any(|vip| of(vip) == *address) {
                    edit(list, goal, of, address, how);
                    return;
                }
            }
            panic!("{address} is in neither block");
        }
        Object::InstanceRoute(id, line) => {
            let (old, new) = pair(&mut config.instances, &goal.instances, instance_id, id);
            edit(&mut old.routes, &new.routes, ToString::to_string, line, how);
        }
        Object::InstanceRule(id, line) => {
            let (old, new) = pair(&mut config.instances, &goal.instances, instance_id, id);
            edit(&mut old.rules, &new.rules, ToString::to_string, line, how);
        }
        Object::GroupEntry(name, entry) => {
            // Groups without entries are none, so they come and go with their entries.
            match how {
                Edit::Remove => {
                    for group in config.server_groups.iter_mut().filter(|g| g.name == *name) {
                        group.entries.retain(|own| own != entry);
                    }
                }
                Edit::Add => {
                    if !config.server_groups.iter().any(|group| group.name == *name) {
                        let mut group = goal
                            .server_groups
                            .iter()
                            .find(|group| group.name == *name)
                            .expect("the group is new")
                            .clone();
                        group.entries.clear();
                        config.server_groups.push(group);
                    }
                    let mut groups = config.server_groups.iter_mut();
                    let group = groups.find(|group| group.name == *name).expect("see above");
                    group.entries.push(*entry);
                }
                Edit::Change => panic!("entries have nothing to change"),
            }
        }
        Object::LocalAddress(name, local) => match how {
            Edit::Remove => {
                let groups = config.local_address_groups.iter_mut();
                for group in groups.filter(|group| group.name == *name) {
                    group.addresses.retain(|own| own != local);
                }
            }
            Edit::Add => {
                let groups = &mut config.local_address_groups;
                if !groups.iter().any(|group| group.name == *name) {
                    groups.push(LocalAddressGroup {
                        name: name.clone(),
                        addresses: Vec::new(),
                    });
                }
                let group = groups.iter_mut().find(|group| group.name == *name);
                group.expect("see above").addresses.push(local.clone());
            }
            Edit::Change => panic!("addresses have nothing to change"),
        },
        Object::Ssl => config.ssl.clone_from(&goal.ssl),
        Object::Service(id) if how == Edit::Change => {
            let (old, new) = service(config, goal, id);
            *old = VirtualServer {
                quorum: old.quorum,
                hysteresis: old.hysteresis,
                sorry_server: old.sorry_server.clone(),
                real_servers: std::mem::take(&mut old.real_servers),
                ..new.clone()
            };
        }
        Object::Service(id) => edit(
            &mut config.virtual_servers,
            &goal.virtual_servers,
            ServiceId::of,
            id,
            how,
        ),
        Object::Quorum(id) => {
            let (old, new) = service(config, goal, id);
            (old.quorum, old.hysteresis) = (new.quorum, new.hysteresis);
        }
        Object::SorryServer(id, _) => {
            let (old, new) = service(config, goal, id);
            match how {
                Edit::Remove => old.sorry_server = None,
                Edit::Change => old.sorry_server.clone_from(&new.sorry_server),
                Edit::Add if old.sorry_server.is_none() => {
                    old.sorry_server.clone_from(&new.sorry_server);
                }
                // The old one has its place.
                Edit::Add => {}
            }
        }
        Object::Server(id, address) if how == Edit::Change => {
            let (old, new) = service(config, goal, id);
            let (old, new) = pair(
                &mut old.real_servers,
                &new.real_servers,
                |server| server.address,
                address,
            );
            *old = RealServer {
                checkers: std::mem::take(&mut old.checkers),
                ..new.clone()
            };
        }
        Object::Server(id, address) => {
            let (old, new) = service(config, goal, id);
            edit(
                &mut old.real_servers,
                &new.real_servers,
                |server| server.address,
                address,
                how,
            );
        }
        // Which of the old ones a changed one was is the business of whoever runs it.
        Object::Checker(..) => {}
        other => panic!("an object of a new kind: {other}"),
    }
}

fn pair<'a, T, K: PartialEq>(
    list: &'a mut [T],
    goal: &'a [T],
    key: impl Fn(&T) -> K,
    wanted: &K,
) -> (&'a mut T, &'a T) {
    let old = list.iter_mut().find(|item| key(item) == *wanted);
    let new = goal.iter().find(|item| key(item) == *wanted);
    old.zip(new).expect("what changes is in both")
}

fn service<'a>(
    config: &'a mut Config,
    goal: &'a Config,
    id: &ServiceId,
) -> (&'a mut VirtualServer, &'a VirtualServer) {
    pair(
        &mut config.virtual_servers,
        &goal.virtual_servers,
        ServiceId::of,
        id,
    )
}

fn daemon(config: &mut Config, goal: &Config, setting: DaemonSetting) {
    let (own, new) = (&mut config.daemon, &goal.daemon);
    let (global, global_new) = (&mut config.global, &goal.global);
    match setting {
        DaemonSetting::NetNamespace => own.net_namespace.clone_from(&new.net_namespace),
        DaemonSetting::NetNamespaceIpvs => {
            own.net_namespace_ipvs.clone_from(&new.net_namespace_ipvs);
        }
        DaemonSetting::Instance => own.instance.clone_from(&new.instance),
        DaemonSetting::Nftables => {
            let table = &global_new.firewall.nftables;
            global.firewall.nftables.clone_from(table);
        }
        DaemonSetting::NftablesIpvs => {
            let table = &global_new.firewall.ipvs_table;
            global.firewall.ipvs_table.clone_from(table);
        }
        DaemonSetting::TmpConfigDirectory => {
            let directory = &global_new.files.tmp_config_directory;
            global.files.tmp_config_directory.clone_from(directory);
        }
        DaemonSetting::DisableLocalIgmp => {
            global.vrrp.disable_local_igmp = global_new.vrrp.disable_local_igmp;
        }
        DaemonSetting::Process => {
            own.namespace_with_ipsets = new.namespace_with_ipsets;
            own.use_pid_dir = new.use_pid_dir;
            own.child_wait_time = new.child_wait_time;
        }
        DaemonSetting::LinkbeatUsePolling => own.linkbeat_use_polling = new.linkbeat_use_polling,
    }
}

/// Settings that need a restart are not parts of these.
fn global(own: &mut GlobalDefs, new: &GlobalDefs, part: GlobalPart) {
    match part {
        GlobalPart::RouterId => own.router_id.clone_from(&new.router_id),
        GlobalPart::Mail => own.mail.clone_from(&new.mail),
        GlobalPart::Interfaces => {
            own.default_interface.clone_from(&new.default_interface);
            own.dynamic_interfaces = new.dynamic_interfaces;
            own.allow_if_changes = new.allow_if_changes;
        }
        GlobalPart::Scripts => {
            own.script_user.clone_from(&new.script_user);
            own.enable_script_security = new.enable_script_security;
            own.use_symlink_paths = new.use_symlink_paths;
            own.set_supplementary_groups = new.set_supplementary_groups;
            own.startup_script.clone_from(&new.startup_script);
            own.startup_script_timeout = new.startup_script_timeout;
            own.shutdown_script.clone_from(&new.shutdown_script);
            own.shutdown_script_timeout = new.shutdown_script_timeout;
        }
        GlobalPart::Fifos => own.fifos.clone_from(&new.fifos),
        GlobalPart::Checkers => {
            own.rs_init_notifies = new.rs_init_notifies;
            own.checker_log_all_failures = new.checker_log_all_failures;
        }
        GlobalPart::Vrrp => {
            let igmp = own.vrrp.disable_local_igmp;
            own.vrrp.clone_from(&new.vrrp);
            own.vrrp.disable_local_igmp = igmp;
        }
        GlobalPart::Firewall => {
            let firewall = own.firewall.clone();
            own.firewall.clone_from(&new.firewall);
            own.firewall.nftables = firewall.nftables;
            own.firewall.ipvs_table = firewall.ipvs_table;
        }
        GlobalPart::LvsTimeouts => own.lvs_timeouts = new.lvs_timeouts,
        GlobalPart::LvsFlush => {
            own.lvs_flush = new.lvs_flush;
            own.lvs_flush_on_stop = new.lvs_flush_on_stop;
        }
        GlobalPart::LvsSyncDaemon => own.lvs_sync_daemon.clone_from(&new.lvs_sync_daemon),
        GlobalPart::Processes => own.processes.clone_from(&new.processes),
        GlobalPart::Buffers => own.buffers.clone_from(&new.buffers),
        GlobalPart::Snmp => own.snmp.clone_from(&new.snmp),
        GlobalPart::Dbus => own.dbus.clone_from(&new.dbus),
        GlobalPart::Reload => own.reload.clone_from(&new.reload),
        GlobalPart::Files => {
            let directory = own.files.tmp_config_directory.clone();
            own.files.clone_from(&new.files);
            own.files.tmp_config_directory = directory;
            own.random_seed = new.random_seed;
        }
    }
}

/// Without the order of objects, and without what a reload does not compare.
fn essence(config: &Config) -> Config {
    fn sorted<T: Debug>(list: &mut [T]) {
        list.sort_by_key(|item| format!("{item:?}"));
    }
    /// Broadcast, peer, flags and lifetime are not compared.
    fn addresses(list: &mut Vec<VirtualAddress>, interface: Option<&String>) {
        let mut seen = BTreeSet::new();
        // All of one id are one address.
        list.retain(|vip| seen.insert(format!("{:?}", AddressId::of(vip, interface))));
        for vip in &mut *list {
            let same = config_of_address(vip);
            *vip = same;
        }
        sorted(list);
    }
    /// What is written twice is there once.
    fn lines<T: Debug + ToString>(list: &mut Vec<T>) {
        let mut seen = BTreeSet::new();
        list.retain(|item| seen.insert(item.to_string()));
        sorted(list);
    }
    let mut config = config.clone();
    for instance in &mut config.instances {
        let interface = instance.interface.clone();
        addresses(&mut instance.virtual_addresses, interface.as_ref());
        addresses(&mut instance.excluded_addresses, interface.as_ref());
        lines(&mut instance.routes);
        lines(&mut instance.rules);
    }
    addresses(&mut config.static_addresses, None);
    lines(&mut config.static_routes);
    lines(&mut config.static_rules);
    sorted(&mut config.linkbeat_interfaces);
    sorted(&mut config.interface_delays);
    sorted(&mut config.garp_groups);
    sorted(&mut config.instances);
    sorted(&mut config.track_files);
    let mut names = BTreeSet::new();
    config
        .server_groups
        .retain(|group| !group.entries.is_empty() && names.insert(group.name.clone()));
    for group in &mut config.server_groups {
        let mut seen = BTreeSet::new();
        group.entries.retain(|entry| seen.insert(entry.to_string()));
        sorted(&mut group.entries);
    }
    let mut names = BTreeSet::new();
    config
        .local_address_groups
        .retain(|group| !group.addresses.is_empty() && names.insert(group.name.clone()));
    for group in &mut config.local_address_groups {
        let mut seen = BTreeSet::new();
        group
            .addresses
            .retain(|local| seen.insert(local.to_string()));
        sorted(&mut group.addresses);
    }
    sorted(&mut config.local_address_groups);
    for server in &mut config.virtual_servers {
        for real in &mut server.real_servers {
            // They are looked at by themselves.
            real.checkers.clear();
        }
        sorted(&mut server.real_servers);
    }
    sorted(&mut config.virtual_servers);
    config
}

/// The first lines in which two configurations differ.
fn differing(one: &Config, other: &Config) -> Vec<String> {
    let (one, other) = (essence(one), essence(other));
    if one == other {
        return Vec::new();
    }
    let (one, other) = (format!("{one:#?}"), format!("{other:#?}"));
    let lines = one.lines().zip(other.lines());
    let lines = lines.filter(|(a, b)| a != b).take(4);
    lines.map(|(a, b)| format!("{a} | {b}")).collect()
}

fn list(changes: &[Change]) -> String {
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// What of an address is compared.
fn config_of_address(vip: &VirtualAddress) -> VirtualAddress {
    let mut plain = vip.clone();
    plain.broadcast = None;
    plain.peer = None;
    plain.flags = Default::default();
    plain.preferred_lifetime = None;
    plain
}

/// Every checker that is not as an old one appears, and none where all are as before.
fn checkers_are_covered(old: &Config, new: &Config, changes: &[Change]) -> Result<(), String> {
    for server in &new.virtual_servers {
        let id = ServiceId::of(server);
        let Some(before) = old.virtual_servers.iter().find(|s| ServiceId::of(s) == id) else {
            continue;
        };
        for real in &server.real_servers {
            let Some(was) = before
                .real_servers
                .iter()
                .find(|r| r.address == real.address)
            else {
                continue;
            };
            let named: Vec<&Change> = changes
                .iter()
                .filter(|change| {
                    matches!(&change.object, Object::Checker(s, a, _) if *s == id && *a == real.address)
                })
                .collect();
            let gone = named.iter().filter(|c| c.edit == Edit::Remove).count();
            let come = named.iter().filter(|c| c.edit == Edit::Add).count();
            if was.checkers.len() - gone + come != real.checkers.len() {
                return Err(format!("{gone} gone, {come} come: {named:?}"));
            }
            for (at, checker) in real.checkers.iter().enumerate() {
                let is_named = named.iter().any(|change| {
                    matches!(&change.object, Object::Checker(_, _, c) if c.index == at)
                        && change.edit != Edit::Remove
                });
                if !is_named && !was.checkers.contains(checker) {
                    return Err(format!("{checker:?} is new and not named"));
                }
            }
            if was.checkers == real.checkers && !named.is_empty() {
                return Err(format!("nothing changed: {named:?}"));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 192, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn changes_are_all_that_differs_and_nothing_else(
        one in generated::sections(),
        other in generated::sections(),
        taken in prop::collection::vec(any::<bool>(), 14),
    ) {
        // The new file has some parts of the old one, and some of another.
        let mixed: Vec<String> = one
            .iter()
            .zip(&other)
            .zip(taken)
            .map(|((one, other), taken)| if taken { other.clone() } else { one.clone() })
            .collect();
        let (old, new) = (config(one.concat()), config(mixed.concat()));
        prop_assert_eq!(diff(&old, &old), vec![]);
        let changes = diff(&old, &new);
        let mut reached = essence(&old);
        for change in &changes {
            apply(&mut reached, &new, change);
        }
        prop_assert_eq!(differing(&reached, &new), Vec::<String>::new(), "{}", list(&changes));
        prop_assert_eq!(checkers_are_covered(&old, &new, &changes), Ok(()));
        for (at, left_out) in changes.iter().enumerate() {
            if matches!(left_out.object, Object::Checker(..)) {
                continue;
            }
            let mut reached = essence(&old);
            for change in changes.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, c)| c) {
                apply(&mut reached, &new, change);
            }
            prop_assert_ne!(
                essence(&reached),
                essence(&new),
                "{} is needless among {}",
                left_out,
                list(&changes)
            );
        }
    }
}
