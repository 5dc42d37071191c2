//! What a reload changes: two models compared, object by object, as keepalived matches them.
//!
//! Objects that are the same in both do not appear. What is matched by what is said at [`Object`].

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

use crate::model::{Config, GlobalDefs};

mod lvs;
mod object;
mod vrrp;

pub use object::{
    AddressId, CheckerId, DaemonSetting, GlobalPart, InstanceId, Object, RouterMode, ServiceId,
};

/// One step of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    /// What happens.
    pub edit: Edit,
    /// To what.
    pub object: Object,
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edit {
    /// It goes.
    Remove,
    /// It stays and keeps its state, its settings are others.
    Change,
    /// It is new.
    Add,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edit = match self.edit {
            Edit::Remove => "remove",
            Edit::Change => "change",
            Edit::Add => "add",
        };
        write!(f, "{edit} {}", self.object)?;
        if self.needs_restart() {
            f.write_str(" (needs a restart)")?;
        }
        Ok(())
    }
}

impl Change {
    /// keepalived gives the reload up because of this change and keeps its old configuration.
    pub fn needs_restart(&self) -> bool {
        matches!(self.object, Object::Daemon(setting) if setting.needs_restart())
    }
}

/// The steps from one configuration to another.
///
/// The order is that of the reload: settings that need a restart, global settings, tracked objects, static entries, instances
/// and sync groups, virtual servers. Within each part removals come first and additions last. An object that is added or removed
/// stands for everything in it: the servers of a new service do not appear one by one. The time is proportional to the size of
/// both configurations.
///
/// ```
/// use lvs_conf::diff::diff;
/// use lvs_conf::{NoFiles, Options, SourceMap, load};
///
/// let text = "virtual_server 192.0.2.10 80 {\n lb_algo rr\n lb_kind DR\n protocol TCP\n real_server 192.0.2.21 80 { weight 1 }\n}\n";
/// let mut sources = SourceMap::new();
/// let (old, new) = (sources.add("old", text), sources.add("new", text.replace("weight 1", "weight 2")));
/// let mut config = |id| load(&mut sources, id, &NoFiles, &Options::default()).config;
/// let changes = diff(&config(old), &config(new));
/// assert_eq!(changes.len(), 1);
/// assert_eq!(changes[0].to_string(), "change server 192.0.2.21:80 of TCP 192.0.2.10:80");
/// ```
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut out = Changes(Vec::new());
    daemon(&mut out, old, new);
    global(&mut out, &old.global, &new.global);
    out.named(
        &old.linkbeat_interfaces,
        &new.linkbeat_interfaces,
        |o| o.name.clone(),
        Object::LinkbeatInterface,
    );
    out.named(
        &old.interface_delays,
        &new.interface_delays,
        |o| o.name.clone(),
        Object::InterfaceDelay,
    );
    out.named(
        &old.garp_groups,
        &new.garp_groups,
        |o| o.interfaces.clone(),
        Object::GarpGroup,
    );
    out.named(
        &old.track_files,
        &new.track_files,
        |o| o.name.clone(),
        Object::TrackFile,
    );
    out.named(
        &old.scripts,
        &new.scripts,
        |o| o.name.clone(),
        Object::Script,
    );
    out.named(
        &old.track_processes,
        &new.track_processes,
        |o| o.name.clone(),
        Object::TrackProcess,
    );
    out.named(
        &old.bfd_instances,
        &new.bfd_instances,
        |o| o.name.clone(),
        Object::Bfd,
    );
    vrrp::diff(&mut out, old, new);
    lvs::diff(&mut out, old, new);
    out.0
}

/// The list as it grows.
struct Changes(Vec<Change>);

impl Changes {
    fn push(&mut self, edit: Edit, object: Object) {
        self.0.push(Change { edit, object });
    }

    fn changed_if(&mut self, changed: bool, object: Object) {
        if changed {
            self.push(Edit::Change, object);
        }
    }

    /// Objects that are all that there is of them, such as routes: they come or go, and a change is both.
    fn members<T: Hash + Eq + Clone>(
        &mut self,
        old: impl Iterator<Item = T>,
        new: impl Iterator<Item = T>,
        object: impl Fn(T) -> Object,
    ) {
        self.named(&distinct(old), &distinct(new), T::clone, object);
    }

    /// Objects that are matched by a key and have no parts.
    fn named<'a, T: PartialEq, K: Hash + Eq + Clone>(
        &mut self,
        old: &'a [T],
        new: &'a [T],
        key: impl Fn(&'a T) -> K,
        object: impl Fn(K) -> Object,
    ) {
        let (removed, kept, added) = matched(old, new, key);
        for (key, _) in removed {
            self.push(Edit::Remove, object(key));
        }
        for (key, before, after) in kept {
            self.changed_if(before != after, object(key));
        }
        for (key, _) in added {
            self.push(Edit::Add, object(key));
        }
    }
}

/// What is written twice is there once.
fn distinct<T: Hash + Eq + Clone>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}

/// Removed, kept and added objects in file order.
type Matched<'a, T, K> = (Vec<(K, &'a T)>, Vec<(K, &'a T, &'a T)>, Vec<(K, &'a T)>);

/// Matches the objects of two lists by their keys. Of objects with one key the first of the one list belongs to the first of the
/// other, and so on.
fn matched<'a, T, K: Hash + Eq + Clone>(
    old: &'a [T],
    new: &'a [T],
    key: impl Fn(&'a T) -> K,
) -> Matched<'a, T, K> {
    let mut counts: HashMap<K, usize> = HashMap::with_capacity(old.len());
    let mut number = |key: K| {
        let count = counts.entry(key.clone()).or_default();
        *count += 1;
        (key, *count)
    };
    let old: Vec<((K, usize), &T)> = old.iter().map(|item| (number(key(item)), item)).collect();
    counts.clear();
    let mut number = |key: K| {
        let count = counts.entry(key.clone()).or_default();
        *count += 1;
        (key, *count)
    };
    let new: Vec<((K, usize), &T)> = new.iter().map(|item| (number(key(item)), item)).collect();
    let mut before: HashMap<&(K, usize), (&T, bool)> = old
        .iter()
        .map(|(key, item)| (key, (*item, false)))
        .collect();
    let (mut kept, mut added) = (Vec::new(), Vec::new());
    for (key, item) in &new {
        match before.get_mut(key) {
            Some((first, seen)) => {
                *seen = true;
                kept.push((key.0.clone(), *first, *item));
            }
            None => added.push((key.0.clone(), *item)),
        }
    }
    let removed = old
        .iter()
        .filter(|(key, _)| before.get(key).is_some_and(|(_, seen)| !seen))
        .map(|(key, item)| (key.0.clone(), *item))
        .collect();
    (removed, kept, added)
}

fn daemon(out: &mut Changes, old: &Config, new: &Config) {
    let (a, b) = (&old.daemon, &new.daemon);
    let (firewall, firewall_new) = (&old.global.firewall, &new.global.firewall);
    let (files, files_new) = (&old.global.files, &new.global.files);
    let igmp = old.global.vrrp.disable_local_igmp != new.global.vrrp.disable_local_igmp;
    for (changed, setting) in [
        (
            a.net_namespace != b.net_namespace,
            DaemonSetting::NetNamespace,
        ),
        (
            a.net_namespace_ipvs != b.net_namespace_ipvs,
            DaemonSetting::NetNamespaceIpvs,
        ),
        (a.instance != b.instance, DaemonSetting::Instance),
        (
            firewall.nftables != firewall_new.nftables,
            DaemonSetting::Nftables,
        ),
        (
            firewall.ipvs_table != firewall_new.ipvs_table,
            DaemonSetting::NftablesIpvs,
        ),
        (
            files.tmp_config_directory != files_new.tmp_config_directory,
            DaemonSetting::TmpConfigDirectory,
        ),
        (igmp, DaemonSetting::DisableLocalIgmp),
        (
            (a.namespace_with_ipsets, a.use_pid_dir, a.child_wait_time)
                != (b.namespace_with_ipsets, b.use_pid_dir, b.child_wait_time),
            DaemonSetting::Process,
        ),
        (
            a.linkbeat_use_polling != b.linkbeat_use_polling,
            DaemonSetting::LinkbeatUsePolling,
        ),
    ] {
        out.changed_if(changed, Object::Daemon(setting));
    }
}

fn global(out: &mut Changes, old: &GlobalDefs, new: &GlobalDefs) {
    if old == new {
        return;
    }
    // What needs a restart has been said.
    let aligned = |global: &GlobalDefs| {
        let mut global = global.clone();
        global.firewall.nftables = None;
        global.firewall.ipvs_table = None;
        global.files.tmp_config_directory = None;
        global.vrrp.disable_local_igmp = false;
        global
    };
    let (old, new) = (aligned(old), aligned(new));
    let scripts = |g: &GlobalDefs| {
        (
            g.script_user.clone(),
            g.enable_script_security,
            g.use_symlink_paths,
            g.set_supplementary_groups,
            g.startup_script.clone(),
            g.startup_script_timeout,
            g.shutdown_script.clone(),
            g.shutdown_script_timeout,
        )
    };
    let interfaces = |g: &GlobalDefs| {
        (
            g.default_interface.clone(),
            g.dynamic_interfaces,
            g.allow_if_changes,
        )
    };
    let checkers = |g: &GlobalDefs| (g.rs_init_notifies, g.checker_log_all_failures);
    let flush = |g: &GlobalDefs| (g.lvs_flush, g.lvs_flush_on_stop);
    for (changed, part) in [
        (old.router_id != new.router_id, GlobalPart::RouterId),
        (old.mail != new.mail, GlobalPart::Mail),
        (interfaces(&old) != interfaces(&new), GlobalPart::Interfaces),
        (scripts(&old) != scripts(&new), GlobalPart::Scripts),
        (old.fifos != new.fifos, GlobalPart::Fifos),
        (checkers(&old) != checkers(&new), GlobalPart::Checkers),
        (old.vrrp != new.vrrp, GlobalPart::Vrrp),
        (old.firewall != new.firewall, GlobalPart::Firewall),
        (
            old.lvs_timeouts != new.lvs_timeouts,
            GlobalPart::LvsTimeouts,
        ),
        (flush(&old) != flush(&new), GlobalPart::LvsFlush),
        (
            old.lvs_sync_daemon != new.lvs_sync_daemon,
            GlobalPart::LvsSyncDaemon,
        ),
        (old.processes != new.processes, GlobalPart::Processes),
        (old.buffers != new.buffers, GlobalPart::Buffers),
        (old.snmp != new.snmp, GlobalPart::Snmp),
        (old.dbus != new.dbus, GlobalPart::Dbus),
        (old.reload != new.reload, GlobalPart::Reload),
        (
            old.files != new.files || old.random_seed != new.random_seed,
            GlobalPart::Files,
        ),
    ] {
        out.changed_if(changed, Object::Global(part));
    }
}

#[cfg(test)]
mod tests;
