//! Static entries, instances and sync groups.

use std::collections::HashSet;

use super::{AddressId, Changes, Edit, InstanceId, Object, RouterMode, matched};
use crate::model::{Config, VirtualAddress, VrrpInstance};

pub(super) fn diff(out: &mut Changes, old: &Config, new: &Config) {
    out.named(
        &old.track_groups,
        &new.track_groups,
        |o| o.name.clone(),
        Object::TrackGroup,
    );
    let statics = |config: &Config| -> Vec<Address> {
        let all = config.static_addresses.iter();
        distinct(all.map(|vip| Address::of(vip, None)))
    };
    out.named(
        &statics(old),
        &statics(new),
        |address| address.id.clone(),
        Object::StaticAddress,
    );
    out.members(
        lines(&old.static_routes),
        lines(&new.static_routes),
        Object::StaticRoute,
    );
    out.members(
        lines(&old.static_rules),
        lines(&new.static_rules),
        Object::StaticRule,
    );
    let (removed, kept, added) = matched(&old.instances, &new.instances, InstanceId::of);
    for (id, _) in removed {
        out.push(Edit::Remove, Object::Instance(id));
    }
    for (id, before, after) in kept {
        instance(out, &id, before, after);
    }
    for (id, _) in added {
        out.push(Edit::Add, Object::Instance(id));
    }
    out.named(
        &old.sync_groups,
        &new.sync_groups,
        |o| o.name.clone(),
        Object::SyncGroup,
    );
}

/// What is compared of an address: what the kernel has, by which it is matched, and who watches it.
#[derive(PartialEq)]
struct Address {
    id: AddressId,
    no_track: bool,
    track_group: Option<String>,
}

impl Address {
    fn of(vip: &VirtualAddress, interface: Option<&String>) -> Self {
        Self {
            id: AddressId::of(vip, interface),
            no_track: vip.no_track,
            track_group: vip.track_group.clone(),
        }
    }
}

/// The first of the addresses that are one to the kernel.
fn distinct(addresses: impl Iterator<Item = Address>) -> Vec<Address> {
    let mut seen = HashSet::new();
    addresses
        .filter(|address| seen.insert(address.id.clone()))
        .collect()
}

/// Routes or rules as lines.
fn lines<T: ToString>(list: &[T]) -> impl Iterator<Item = String> {
    list.iter().map(ToString::to_string)
}

impl InstanceId {
    /// Of an instance.
    pub fn of(instance: &VrrpInstance) -> Self {
        Self {
            virtual_router_id: instance.virtual_router_id,
            family: instance.family,
            interface: instance.interface.clone(),
            mode: if instance.unicast_peers.is_empty() {
                RouterMode::Multicast {
                    vmac: instance.vmac.is_some(),
                    vmac_addr: instance.vmac_addr,
                    group: instance.group,
                }
            } else {
                RouterMode::Unicast {
                    source: instance.source,
                }
            },
        }
    }
}

fn instance(out: &mut Changes, id: &InstanceId, old: &VrrpInstance, new: &VrrpInstance) {
    if old == new {
        return;
    }
    // Moving an address between the two blocks does not touch it.
    let pool = |instance: &VrrpInstance| -> Vec<Address> {
        let all = instance
            .virtual_addresses
            .iter()
            .chain(&instance.excluded_addresses);
        distinct(all.map(|vip| Address::of(vip, instance.interface.as_ref())))
    };
    let (old_pool, new_pool) = (pool(old), pool(new));
    out.named(
        &old_pool,
        &new_pool,
        |address| address.id.clone(),
        |address| Object::InstanceAddress(id.clone(), address),
    );
    out.members(lines(&old.routes), lines(&new.routes), |route| {
        Object::InstanceRoute(id.clone(), route)
    });
    out.members(lines(&old.rules), lines(&new.rules), |rule| {
        Object::InstanceRule(id.clone(), rule)
    });
    let settings = |instance: &VrrpInstance| VrrpInstance {
        virtual_addresses: Vec::new(),
        excluded_addresses: Vec::new(),
        routes: Vec::new(),
        rules: Vec::new(),
        ..instance.clone()
    };
    // What comes and goes says for itself whether it is advertised; what stays may have moved from one block to the other.
    let ids = |pool: &[Address]| -> HashSet<AddressId> {
        pool.iter().map(|address| address.id.clone()).collect()
    };
    let (before, after) = (ids(&old_pool), ids(&new_pool));
    let advertised = |instance: &VrrpInstance| -> HashSet<AddressId> {
        let ids = instance.virtual_addresses.iter();
        ids.map(|vip| AddressId::of(vip, instance.interface.as_ref()))
            .filter(|id| before.contains(id) && after.contains(id))
            .collect()
    };
    out.changed_if(
        settings(old) != settings(new) || advertised(old) != advertised(new),
        Object::Instance(id.clone()),
    );
}
