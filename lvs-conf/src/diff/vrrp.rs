//! Static entries, instances and sync groups.

use super::{AddressId, Changes, Edit, InstanceId, Object, RouterMode, matched};
use crate::model::{Config, VirtualAddress, VrrpInstance};
use crate::print::{route_line, rule_line};

pub(super) fn diff(out: &mut Changes, old: &Config, new: &Config) {
    out.named(
        &old.track_groups,
        &new.track_groups,
        |o| o.name.clone(),
        Object::TrackGroup,
    );
    let lines =
        |out: &mut Changes, old: Vec<String>, new: Vec<String>, object: fn(String) -> Object| {
            out.named(&old, &new, |line| line.clone(), object);
        };
    let addresses = |list: &[VirtualAddress]| -> Vec<AddressId> {
        list.iter().map(|vip| AddressId::of(vip, None)).collect()
    };
    out.named(
        &addresses(&old.static_addresses),
        &addresses(&new.static_addresses),
        |id| id.clone(),
        Object::StaticAddress,
    );
    lines(
        out,
        old.static_routes.iter().map(route_line).collect(),
        new.static_routes.iter().map(route_line).collect(),
        Object::StaticRoute,
    );
    lines(
        out,
        old.static_rules.iter().map(rule_line).collect(),
        new.static_rules.iter().map(rule_line).collect(),
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
    let pool = |instance: &VrrpInstance| -> Vec<AddressId> {
        let all = instance
            .virtual_addresses
            .iter()
            .chain(&instance.excluded_addresses);
        all.map(|vip| AddressId::of(vip, instance.interface.as_ref()))
            .collect()
    };
    let (old_pool, new_pool) = (pool(old), pool(new));
    out.named(
        &old_pool,
        &new_pool,
        |id| id.clone(),
        |address| Object::InstanceAddress(id.clone(), address),
    );
    let routes = |instance: &VrrpInstance| -> Vec<String> {
        instance.routes.iter().map(route_line).collect()
    };
    out.named(
        &routes(old),
        &routes(new),
        |line| line.clone(),
        |route| Object::InstanceRoute(id.clone(), route),
    );
    let rules =
        |instance: &VrrpInstance| -> Vec<String> { instance.rules.iter().map(rule_line).collect() };
    out.named(
        &rules(old),
        &rules(new),
        |line| line.clone(),
        |rule| Object::InstanceRule(id.clone(), rule),
    );
    let settings = |instance: &VrrpInstance| VrrpInstance {
        virtual_addresses: Vec::new(),
        excluded_addresses: Vec::new(),
        routes: Vec::new(),
        rules: Vec::new(),
        ..instance.clone()
    };
    let advertised = |instance: &VrrpInstance| -> Vec<std::net::IpAddr> {
        instance
            .virtual_addresses
            .iter()
            .map(|vip| vip.address)
            .collect()
    };
    out.changed_if(
        settings(old) != settings(new) || advertised(old) != advertised(new),
        Object::Instance(id.clone()),
    );
}
