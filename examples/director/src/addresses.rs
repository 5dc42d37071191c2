//! The addresses that the director holds on interfaces while it runs.
//!
//! Each carries the project's mark in the kernel. An address that is there already and carries the mark was left by a
//! director that was killed: it is taken over. One without the mark is somebody else's: it is used, and stays at the end.

use lvs_fwd::netlink::{Address, MARK, Netlink, NetlinkError, Scope};
use tracing::{info, warn};

use crate::plan::PlannedAddress;

/// The addresses held.
#[derive(Debug)]
pub struct Addresses {
    netlink: Netlink,
    held: Vec<(PlannedAddress, Option<Address>)>,
}

impl Addresses {
    /// None yet; in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// What the system reports about the netlink socket.
    pub fn new() -> Result<Self, NetlinkError> {
        Ok(Self {
            netlink: Netlink::open()?,
            held: Vec::new(),
        })
    }

    /// Holds exactly these. What can't be set is logged and tried again with the next call; what is no longer wanted is
    /// removed, what is unchanged is not touched.
    pub fn set(&mut self, wanted: &[PlannedAddress]) {
        for (planned, address) in std::mem::take(&mut self.held) {
            if wanted.contains(&planned) {
                self.held.push((planned, address));
            } else {
                self.remove(&planned, address);
            }
        }
        for planned in wanted {
            if self.held.iter().any(|(held, _)| held == planned) {
                continue;
            }
            match self.add(planned) {
                Ok(address) => self.held.push((planned.clone(), address)),
                Err(error) => warn!("address {planned}: {}", crate::logging::chain(&error)),
            }
        }
    }

    /// Gives all of them up.
    pub fn clear(&mut self) {
        self.set(&[]);
    }

    /// Returns what is to be removed at the end; `None` if the address is somebody else's.
    fn add(&mut self, planned: &PlannedAddress) -> Result<Option<Address>, NetlinkError> {
        let link = self.netlink.link_by_name(&planned.interface)?;
        let mut address = Address::new(link.index, planned.addr, planned.prefix_len);
        address.label.clone_from(&planned.label);
        address.broadcast = planned.broadcast;
        address.scope = planned.scope.as_deref().map_or(Scope::Global, scope);
        // A virtual address is wanted at once; its owner is settled before, not by probing.
        address.nodad = planned.addr.is_ipv6();
        address.protocol = MARK;
        match self.netlink.add_address(&address) {
            Ok(()) => {
                info!("address {planned} added");
                Ok(Some(address))
            }
            Err(error) if error.is_exists() => {
                let present = self.netlink.addresses()?.into_iter().find(|other| {
                    other.ifindex == address.ifindex
                        && other.addr == address.addr
                        && other.prefix == address.prefix
                });
                match present {
                    Some(other) if other.protocol == MARK => {
                        info!(
                            "address {planned} was left by a director that ended early: taken over"
                        );
                        Ok(Some(other))
                    }
                    _ => {
                        info!("address {planned} is there already: used, and left at the end");
                        Ok(None)
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    fn remove(&mut self, planned: &PlannedAddress, address: Option<Address>) {
        let Some(address) = address else { return };
        match self.netlink.delete_address(&address) {
            Ok(()) => info!("address {planned} removed"),
            Err(error) if error.is_not_found() => {}
            Err(error) => warn!("address {planned}: {}", crate::logging::chain(&error)),
        }
    }
}

fn scope(name: &str) -> Scope {
    match name {
        "site" => Scope::Site,
        "link" => Scope::Link,
        "host" => Scope::Host,
        "nowhere" => Scope::Other(255),
        other => other.parse().map_or(Scope::Global, |number| match number {
            0 => Scope::Global,
            200 => Scope::Site,
            253 => Scope::Link,
            254 => Scope::Host,
            number => Scope::Other(number),
        }),
    }
}
