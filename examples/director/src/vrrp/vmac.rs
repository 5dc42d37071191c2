//! Interfaces with a virtual router's own MAC address (`use_vmac`).

use std::collections::BTreeMap;

use lvs_fwd::netlink::{Address, Link, Netlink, NetlinkError};
use lvs_vrrp::InterfaceName;

use super::host::Host;
use crate::settings;

/// Such an interface, as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vmac {
    /// Its name.
    pub name: InterfaceName,
    /// The interface below.
    pub base: InterfaceName,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// IPv6 is spoken on it.
    pub ipv6: bool,
    /// Advertisements leave through it: then it needs the link-local address of the interface below.
    pub sends: bool,
}

/// Those that there are, with the settings that changed for them.
#[derive(Debug, Default)]
pub(super) struct Vmacs {
    present: BTreeMap<InterfaceName, Vmac>,
    /// Settings by name, with what they were.
    changed: BTreeMap<String, u32>,
}

impl Vmacs {
    /// Makes those that are missing where the interface below is there. Returns what went wrong; and whether any was made.
    pub(super) fn make(
        &mut self,
        netlink: &mut Netlink,
        host: &Host,
        wanted: &[Vmac],
    ) -> (bool, Vec<(InterfaceName, NetlinkError)>) {
        let mut failed = Vec::new();
        let mut made = false;
        for vmac in wanted {
            let Some(base) = host.index(&vmac.base) else {
                continue;
            };
            let is_there = |link: &Link| link.mac == Some(vmac.mac) && link.up;
            if host.link(&vmac.name).is_some_and(is_there) {
                self.present.insert(vmac.name.clone(), vmac.clone());
                continue;
            }
            match make(netlink, host, vmac, base) {
                Ok(()) => {
                    made = true;
                    self.change_settings(vmac, host);
                    self.present.insert(vmac.name.clone(), vmac.clone());
                }
                Err(error) => failed.push((vmac.name.clone(), error)),
            }
        }
        (made, failed)
    }

    /// Removes those that are not wanted. The last one takes the settings back.
    pub(super) fn keep_only(&mut self, netlink: &mut Netlink, host: &Host, wanted: &[Vmac]) {
        self.present.retain(|name, vmac| {
            let stays = wanted.contains(vmac);
            if !stays && let Some(index) = host.index(name) {
                // Where it went by itself there is nothing to do.
                let _ = netlink.delete_link(index);
            }
            stays
        });
        if self.present.is_empty() {
            for (name, value) in std::mem::take(&mut self.changed) {
                let _ = settings::write(&name, value);
            }
        }
    }

    /// The interface below shall not answer for addresses above it, and what comes back to the upper one is not to be dropped for
    /// having a way by the lower one.
    fn change_settings(&mut self, vmac: &Vmac, host: &Host) {
        let (upper, base) = (&vmac.name, &vmac.base);
        let own = |setting: &str, value| {
            // A kernel without the setting does not need it.
            let _ = settings::write(&format!("net/ipv4/conf/{upper}/{setting}"), value);
        };
        for (setting, value) in [
            ("arp_ignore", 1),
            ("accept_local", 1),
            ("rp_filter", 0),
            ("promote_secondaries", 1),
        ] {
            own(setting, value);
        }
        // The last one beyond keepalived: what the host asks there itself would teach its own MAC address for the virtual address.
        for (setting, value) in [("arp_ignore", 1), ("arp_filter", 1), ("arp_announce", 2)] {
            self.change(format!("net/ipv4/conf/{base}/{setting}"), value);
        }
        // The higher of both values counts: each other interface gets for its own what it had by this one.
        const ALL: &str = "net/ipv4/conf/all/rp_filter";
        let all = settings::read(ALL).unwrap_or_default();
        if all > 0 {
            let others = host.links().map(|(name, _)| name);
            let others: Vec<String> = others
                .filter(|name| !self.present.contains_key(name) && name != upper)
                .map(|name| format!("net/ipv4/conf/{name}/rp_filter"))
                .collect();
            for other in others {
                if settings::read(&other).is_some_and(|value| value < all) {
                    self.change(other, all);
                }
            }
            self.change(ALL.to_owned(), 0);
        }
    }

    fn change(&mut self, name: String, value: u32) {
        let Some(before) = settings::read(&name) else {
            return;
        };
        if before != value && settings::write(&name, value).is_ok() {
            self.changed.entry(name).or_insert(before);
        }
    }
}

fn make(netlink: &mut Netlink, host: &Host, vmac: &Vmac, base: u32) -> Result<(), NetlinkError> {
    // One of the name that is another: an earlier run had another identifier.
    if let Some(old) = host.link(&vmac.name)
        && old.kind.as_deref() == Some("macvlan")
    {
        netlink.delete_link(old.index)?;
    }
    netlink.create_macvlan(vmac.name.as_str(), base, vmac.mac)?;
    let link = netlink.link_by_name(vmac.name.as_str())?;
    let ipv6 = |setting: &str, value| {
        let _ = settings::write(&format!("net/ipv6/conf/{}/{setting}", vmac.name), value);
    };
    if vmac.ipv6 {
        // Both routers have this MAC address: none makes an address of it.
        ipv6("addr_gen_mode", 1);
        ipv6("accept_dad", 0);
    } else {
        ipv6("disable_ipv6", 1);
    }
    netlink.set_up(link.index, true)?;
    if vmac.ipv6 && vmac.sends {
        let below = host.addresses(&vmac.base);
        let mut local = below.into_iter().filter(|address| match address {
            std::net::IpAddr::V6(address) => address.is_unicast_link_local(),
            std::net::IpAddr::V4(_) => false,
        });
        if let Some(address) = local.next() {
            let mut address = Address::new(link.index, address, 64);
            address.nodad = true;
            netlink.add_address(&address)?;
        }
    }
    Ok(())
}
