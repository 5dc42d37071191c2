//! How virtual routers stand, as it is asked over the control socket by `director vrrp`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lvs_vrrp::{Event, Statistics, VirtualAddress};
use serde::{Deserialize, Serialize};

use crate::vrrp::Status;

/// The name of the operation; it has no arguments and is answered by [`VrrpInfo`].
pub const OPERATION: &str = "vrrp";

/// All virtual routers, in the order of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VrrpInfo {
    /// They.
    pub instances: Vec<InstanceInfo>,
}

/// A virtual router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// Its name.
    pub name: String,
    /// keepalived's word: `INIT`, `BACKUP`, `MASTER` or `FAULT`.
    pub state: String,
    /// Milliseconds in this state.
    pub since: u64,
    /// Why it is in this state, in one sentence.
    pub reason: String,
    /// What keeps it from what it would do: faults, what has not reported yet, its sync group, its preemption delay.
    pub waits_for: Vec<String>,
    /// What is advertised.
    pub priority: u8,
    /// What is configured.
    pub base_priority: u8,
    /// Virtual router identifier.
    pub virtual_router_id: u8,
    /// 2 or 3.
    pub version: u8,
    /// Where advertisements are sent; empty for unicast by route.
    pub interface: String,
    /// From where.
    pub source: Option<IpAddr>,
    /// Own interval of advertisements, in milliseconds.
    pub interval: u64,
    /// Its sync group.
    pub group: Option<String>,
    /// The router that it follows or last followed.
    pub active_router: Option<ActiveInfo>,
    /// Addresses that it advertises.
    pub addresses: Vec<AddressInfo>,
    /// Addresses that move along.
    pub excluded: Vec<AddressInfo>,
    /// Senders that cannot be understood, each in one sentence.
    pub complaints: Vec<String>,
    /// Counters by name.
    pub statistics: BTreeMap<String, u64>,
}

/// Another router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveInfo {
    /// Its address.
    pub address: IpAddr,
    /// Its last priority.
    pub priority: u8,
    /// Milliseconds since it was last heard.
    pub heard: u64,
}

/// A virtual address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressInfo {
    /// The address.
    pub address: IpAddr,
    /// Where it is set.
    pub interface: String,
}

impl VrrpInfo {
    /// Of these.
    pub fn new(all: &[Status]) -> Self {
        let instances = all.iter().map(InstanceInfo::new).collect();
        Self { instances }
    }
}

impl InstanceInfo {
    fn new(status: &Status) -> Self {
        let config = &status.config;
        let addresses = |list: &[VirtualAddress]| {
            let list = list.iter();
            list.map(|address| AddressInfo {
                address: address.address,
                interface: address.interface.to_string(),
            })
            .collect()
        };
        Self {
            name: status.name.to_string(),
            state: status.state.keepalived_word().into(),
            since: milliseconds(status.since),
            reason: status.reason.clone(),
            waits_for: waits_for(status),
            priority: status.priority,
            base_priority: config.priority.get(),
            virtual_router_id: config.vrid.get(),
            version: config.version.number(),
            interface: config.interface.to_string(),
            source: status.source,
            interval: milliseconds(config.interval.duration()),
            group: status.group.as_ref().map(ToString::to_string),
            active_router: status.active_router.map(|(peer, heard)| ActiveInfo {
                address: peer.address,
                priority: peer.priority,
                heard: milliseconds(heard),
            }),
            addresses: addresses(&config.addresses),
            excluded: addresses(&config.excluded),
            complaints: status
                .complaints
                .iter()
                .map(|complaint| format!("{complaint}, {} times", complaint.count))
                .collect(),
            statistics: counters(&status.statistics),
        }
    }
}

fn waits_for(status: &Status) -> Vec<String> {
    let mut waits: Vec<String> = status.faults.iter().map(ToString::to_string).collect();
    let awaited = status.awaited.iter();
    waits.extend(awaited.map(|object| format!("{object} has not reported yet")));
    if status.waits_for_group {
        waits.push(Event::WaitsForGroup.to_string());
    }
    if let Some(left) = status.preempts_in {
        waits.push(format!("its preemption delay ends in {left:.1?}"));
    }
    waits
}

fn counters(all: &Statistics) -> BTreeMap<String, u64> {
    let named = [
        ("adverts_received", all.adverts_received),
        ("adverts_sent", all.adverts_sent),
        ("became_master", all.became_active),
        ("released_master", all.released_active),
        ("priority_zero_received", all.priority_zero_received),
        ("priority_zero_sent", all.priority_zero_sent),
        ("length_errors", all.length_errors),
        ("ttl_errors", all.ttl_errors),
        ("type_errors", all.type_errors),
        ("interval_errors", all.interval_errors),
        ("address_list_errors", all.address_list_errors),
        ("auth_type_errors", all.auth_type_errors),
        ("auth_type_mismatches", all.auth_type_mismatches),
        ("auth_failures", all.auth_failures),
        ("checksum_errors", all.checksum_errors),
        ("version_errors", all.version_errors),
        ("peer_errors", all.peer_errors),
        ("late_wakeups", all.late_wakeups),
    ];
    let named = named.into_iter();
    named
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
