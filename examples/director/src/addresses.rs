//! The addresses that the director holds on interfaces while it runs.
//!
//! Each carries the project's mark in the kernel. An address that is there already and carries the mark was left by a
//! director that was killed: it is taken over. One without the mark is somebody else's: it is used, and stays at the end.

use std::io;
use std::net::IpAddr;

use lvs_fwd::netlink::{Address, Link, MARK, Netlink, NetlinkError, Scope};
use lvs_vrrp::wire::MacAddress;
use tracing::{debug, info, warn};

use crate::plan::PlannedAddress;
use crate::vrrp::Announcer;

/// The addresses held.
#[derive(Debug)]
pub struct Addresses {
    netlink: Netlink,
    announcer: Announcer,
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    planned: PlannedAddress,
    ifindex: u32,
    /// What is to be removed at the end; `None` if the address is somebody else's.
    own: Option<Address>,
}

impl Addresses {
    /// None yet; in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// What the system reports about the sockets.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::open().map_err(io::Error::other)?,
            announcer: Announcer::open()?,
            held: Vec::new(),
        })
    }

    /// Holds exactly these. What can't be set is logged and tried again with the next call; what is no longer wanted is
    /// removed, what is unchanged is not touched.
    pub fn set(&mut self, wanted: &[PlannedAddress]) {
        for held in std::mem::take(&mut self.held) {
            if wanted.contains(&held.planned) {
                self.held.push(held);
            } else {
                self.remove(&held);
            }
        }
        for planned in wanted {
            if self.held.iter().any(|held| held.planned == *planned) {
                continue;
            }
            match self.add(planned) {
                Ok(held) => self.held.push(held),
                Err(error) => warn!("address {planned}: {}", crate::logging::chain(&error)),
            }
        }
    }

    /// Holds these again where somebody took one away, or an interface was made anew.
    pub fn restore(&mut self, wanted: &[PlannedAddress]) {
        match self.netlink.addresses() {
            Ok(present) => self.held.retain(|held| {
                let planned = &held.planned;
                present.iter().any(|it| {
                    (it.ifindex, it.addr, it.prefix)
                        == (held.ifindex, planned.addr, planned.prefix_len)
                })
            }),
            Err(error) => warn!("{}", crate::logging::chain(&error)),
        }
        self.set(wanted);
    }

    /// Removes what a director that was killed has left and nobody wants now.
    pub fn remove_leftovers<'a>(&mut self, wanted: impl IntoIterator<Item = &'a PlannedAddress>) {
        let wanted: Vec<IpAddr> = wanted.into_iter().map(|planned| planned.addr).collect();
        let present = match self.netlink.addresses() {
            Ok(present) => present,
            Err(error) => return warn!("{}", crate::logging::chain(&error)),
        };
        for address in present {
            if address.protocol == MARK && !wanted.contains(&address.addr) {
                match self.netlink.delete_address(&address) {
                    Ok(()) => info!(
                        "address {} was left by a director that ended early: removed",
                        address.addr
                    ),
                    Err(error) => warn!("{}", crate::logging::chain(&error)),
                }
            }
        }
    }

    /// Gives all of them up.
    pub fn clear(&mut self) {
        self.set(&[]);
    }

    fn add(&mut self, planned: &PlannedAddress) -> Result<Held, NetlinkError> {
        let link = self.netlink.link_by_name(&planned.interface)?;
        let mut address = Address::new(link.index, planned.addr, planned.prefix_len);
        address.label.clone_from(&planned.label);
        address.broadcast = planned.broadcast;
        address.scope = planned.scope.as_deref().map_or(Scope::Global, scope);
        // A virtual address is wanted at once; its owner is settled before, not by probing.
        address.nodad = planned.addr.is_ipv6();
        address.protocol = MARK;
        let held = |own| Held {
            planned: planned.clone(),
            ifindex: link.index,
            own,
        };
        match self.netlink.add_address(&address) {
            Ok(()) => {
                info!("address {planned} added");
                self.announce(&link, &address);
                Ok(held(Some(address)))
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
                        self.announce(&link, &address);
                        Ok(held(Some(other)))
                    }
                    _ => {
                        info!("address {planned} is there already: used, and left at the end");
                        Ok(held(None))
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Neighbours that knew the address elsewhere, most often at another director, must not wait for their memory to end.
    fn announce(&self, link: &Link, address: &Address) {
        let Some(mac) = link.mac.filter(|_| link.up) else {
            return;
        };
        let is_router = crate::settings::read("net/ipv6/conf/all/forwarding") == Some(1);
        // Neither ARP nor ND repeats what was lost.
        for _ in 0..ANNOUNCEMENTS {
            let mac = MacAddress(mac);
            let sent = (self.announcer).announce(address.addr, link.index, mac, is_router);
            if let Err(error) = sent {
                return debug!(
                    "{} was not announced at {}: {error}",
                    address.addr, link.name
                );
            }
        }
    }

    fn remove(&mut self, held: &Held) {
        let planned = &held.planned;
        let Some(address) = &held.own else { return };
        match self.netlink.delete_address(address) {
            Ok(()) => info!("address {planned} removed"),
            Err(error) if error.is_not_found() => {}
            Err(error) => warn!("address {planned}: {}", crate::logging::chain(&error)),
        }
    }
}

pub(crate) fn scope(name: &str) -> Scope {
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

/// How often a new address is announced, as keepalived does (`garp_master_repeat`).
const ANNOUNCEMENTS: usize = 5;
