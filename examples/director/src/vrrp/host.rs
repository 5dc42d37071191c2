//! The kernel's links and addresses, as VRRP sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lvs_conf::model::{Lifetime, VirtualAddress as ModelAddress};
use lvs_fwd::netlink::{
    Address, Event, Events, KernelRoute, Link, MARK, Netlink, NetlinkError, Scope,
};
use lvs_fwd::refuse::Refusals;
use lvs_vrrp::wire::MacAddress;
use lvs_vrrp::{InterfaceName, VirtualAddress};
use tokio::sync::mpsc::UnboundedSender;

use super::routes::{self, Routes};
use super::thread::{AddressChange, News};
use super::vmac::{Vmac, Vmacs};
use crate::logging::chain;
use crate::settings;

/// Links and addresses.
#[derive(Debug)]
pub(super) struct Host {
    netlink: Netlink,
    events: Events,
    links: BTreeMap<u32, Link>,
    /// In the order in which they were set.
    addresses: Vec<(u32, IpAddr)>,
    /// What the machine has had set.
    held: BTreeSet<VirtualAddress>,
    /// Routes that it has had set, by the instance.
    routes: BTreeMap<Arc<str>, Vec<KernelRoute>>,
    /// Addresses that are held and not answered for; made when it is first needed.
    refusals: Option<Refusals>,
    refused: BTreeSet<IpAddr>,
    vmacs: Vmacs,
    news: UnboundedSender<News>,
}

/// What the kernel told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HostNews {
    /// A link came, went, or changed.
    Link(InterfaceName, bool),
    /// An interface was made, removed or renamed: sockets have to follow.
    Interfaces,
    /// Own addresses changed.
    Sources,
    /// Somebody took away an address that is held.
    Removed(VirtualAddress),
    /// Somebody took away a route of this instance.
    RouteRemoved(Arc<str>),
}

impl Host {
    /// In the calling thread's network namespace.
    pub(super) fn open(news: UnboundedSender<News>) -> Result<Self, NetlinkError> {
        let events = Events::open()?;
        let mut host = Self {
            netlink: Netlink::open()?,
            events,
            links: BTreeMap::new(),
            addresses: Vec::new(),
            held: BTreeSet::new(),
            routes: BTreeMap::new(),
            refusals: None,
            refused: BTreeSet::new(),
            vmacs: Vmacs::default(),
            news,
        };
        host.look()?;
        Ok(host)
    }

    /// Reads everything anew.
    fn look(&mut self) -> Result<(), NetlinkError> {
        let links = self.netlink.links()?;
        self.links = links.into_iter().map(|link| (link.index, link)).collect();
        let addresses = self.netlink.addresses()?;
        self.addresses = addresses
            .into_iter()
            .filter(|address| !address.tentative)
            .map(|address| (address.ifindex, address.addr))
            .collect();
        Ok(())
    }

    pub(super) const fn events(&self) -> &Events {
        &self.events
    }

    /// What the kernel has told since the last call.
    pub(super) fn poll_news(&mut self) -> Vec<HostNews> {
        let mut news = Vec::new();
        loop {
            match self.events.poll_event() {
                Ok(Some(event)) => self.take(event, &mut news),
                Ok(None) => return news,
                Err(error) => {
                    self.complain(&error);
                    return news;
                }
            }
        }
    }

    fn take(&mut self, event: Event, news: &mut Vec<HostNews>) {
        match event {
            Event::Link(link) => {
                let known = self.links.insert(link.index, link.clone());
                if known.as_ref().is_none_or(|known| known.name != link.name) {
                    news.push(HostNews::Interfaces);
                }
                if let Some(known) = known.filter(|known| known.name != link.name) {
                    news.push(HostNews::Link(known.name.as_str().into(), false));
                }
                let up = is_up(&link);
                news.push(HostNews::Link(link.name.as_str().into(), up));
            }
            Event::LinkGone { ifindex } => {
                if let Some(link) = self.links.remove(&ifindex) {
                    self.addresses.retain(|(index, _)| *index != ifindex);
                    news.push(HostNews::Link(link.name.as_str().into(), false));
                    news.push(HostNews::Interfaces);
                }
            }
            // It will be told of again when it can be used.
            Event::Address(address) if address.tentative => {}
            Event::RouteGone(route) => {
                let is_it = |other: &KernelRoute| {
                    (other.destination, other.table, other.metric, other.tos)
                        == (route.destination, route.table, route.metric, route.tos)
                };
                for (name, routes) in &self.routes {
                    if routes.iter().any(is_it) {
                        news.push(HostNews::RouteRemoved(Arc::clone(name)));
                    }
                }
            }
            Event::Address(address) => {
                let pair = (address.ifindex, address.addr);
                if !self.addresses.contains(&pair) {
                    self.addresses.push(pair);
                    news.push(HostNews::Sources);
                }
            }
            Event::AddressGone(address) => {
                let pair = (address.ifindex, address.addr);
                self.addresses.retain(|other| *other != pair);
                news.push(HostNews::Sources);
                if let Some(link) = self.links.get(&address.ifindex) {
                    let gone = VirtualAddress {
                        address: address.addr,
                        interface: link.name.as_str().into(),
                    };
                    if self.held.contains(&gone) {
                        news.push(HostNews::Removed(gone));
                    }
                }
            }
            Event::Overrun => {
                let held = self.held.clone();
                if let Err(error) = self.look() {
                    self.complain(&error);
                    return;
                }
                let links: Vec<_> = self.links().collect();
                news.extend(links.into_iter().map(|(name, up)| HostNews::Link(name, up)));
                news.extend([HostNews::Interfaces, HostNews::Sources]);
                let gone = held.into_iter().filter(|each| !self.is_set(each));
                news.extend(gone.map(HostNews::Removed));
            }
            _ => {}
        }
    }

    fn is_set(&self, address: &VirtualAddress) -> bool {
        self.index(&address.interface)
            .is_some_and(|index| self.addresses.contains(&(index, address.address)))
    }

    /// Every interface, and whether it is up.
    pub(super) fn links(&self) -> impl Iterator<Item = (InterfaceName, bool)> {
        let links = self.links.values();
        links.map(|link| (link.name.as_str().into(), is_up(link)))
    }

    pub(super) fn index(&self, name: &InterfaceName) -> Option<u32> {
        self.link(name).map(|link| link.index)
    }

    /// Where to announce an address, and from which MAC address.
    pub(super) fn place(&self, name: &InterfaceName) -> Option<(u32, MacAddress)> {
        let link = self.link(name)?;
        Some((link.index, MacAddress(link.mac?)))
    }

    pub(super) fn link(&self, name: &InterfaceName) -> Option<&Link> {
        let mut links = self.links.values();
        links.find(|link| link.name == name.as_str())
    }

    /// Addresses of an interface, the oldest first.
    pub(super) fn addresses(&self, name: &InterfaceName) -> Vec<IpAddr> {
        let Some(index) = self.index(name) else {
            return Vec::new();
        };
        let own = self.addresses.iter().filter(|(other, _)| *other == index);
        own.map(|(_, address)| *address).collect()
    }

    /// What the machine has had set.
    pub(super) fn held(&self) -> impl Iterator<Item = &VirtualAddress> {
        self.held.iter()
    }

    pub(super) fn held_addresses(&self) -> BTreeSet<IpAddr> {
        self.held.iter().map(|held| held.address).collect()
    }

    /// Takes every address away that the machine has had set.
    pub(super) fn remove_all(&mut self) {
        for address in std::mem::take(&mut self.held) {
            self.remove(&address, None);
        }
    }

    /// Sets an address; one that is there already will do.
    pub(super) fn add(&mut self, address: &VirtualAddress, how: Option<&ModelAddress>) {
        self.held.insert(address.clone());
        let Some(request) = self.request(address, how) else {
            let what = AddressChange::Failed("there is no such interface".to_owned());
            return self.tell(address, None, what);
        };
        let change = match self.netlink.add_address(&request) {
            Ok(()) => AddressChange::Added,
            Err(error) if error.is_exists() => AddressChange::WasThere,
            Err(error) => AddressChange::Failed(chain(&error)),
        };
        self.tell(address, Some(request.prefix), change);
    }

    /// Takes an address away, whoever set it.
    pub(super) fn remove(&mut self, address: &VirtualAddress, how: Option<&ModelAddress>) {
        // First, so that the kernel's word of it is no news.
        if self.held.remove(address) {
            let Some(request) = self.request(address, how) else {
                return;
            };
            match self.netlink.delete_address(&request) {
                Ok(()) => self.tell(address, Some(request.prefix), AddressChange::Removed),
                Err(error) if error.is_not_found() => self.remove_others(address),
                Err(error) => self.tell(
                    address,
                    Some(request.prefix),
                    AddressChange::Failed(chain(&error)),
                ),
            }
        } else if self.is_set(address) {
            self.remove_others(address);
        }
    }

    /// What an earlier run has left, or somebody has set.
    fn remove_others(&mut self, address: &VirtualAddress) {
        let index = self.index(&address.interface);
        let present = self.netlink.addresses().unwrap_or_default();
        let found = present
            .iter()
            .filter(|each| Some(each.ifindex) == index && each.addr == address.address);
        for other in found {
            let change = match self.netlink.delete_address(other) {
                Ok(()) if other.protocol == MARK => AddressChange::RemovedLeftover,
                Ok(()) => AddressChange::RemovedForeign,
                Err(error) if error.is_not_found() => continue,
                Err(error) => AddressChange::Failed(chain(&error)),
            };
            self.tell(address, Some(other.prefix), change);
        }
    }

    /// Makes the interfaces that are missing; whether there were any.
    pub(super) fn make_vmacs(&mut self, wanted: &[Vmac]) -> bool {
        if wanted.is_empty() {
            return false;
        }
        let mut vmacs = std::mem::take(&mut self.vmacs);
        let mut netlink = match Netlink::open() {
            Ok(netlink) => netlink,
            Err(error) => {
                self.complain(&error);
                return false;
            }
        };
        let (made, failed) = vmacs.make(&mut netlink, self, wanted);
        self.vmacs = vmacs;
        for (name, error) in failed {
            self.trouble(&format!("interface {name}"), &chain(&error));
        }
        // What follows needs their indexes.
        if made && let Err(error) = self.look() {
            self.complain(&error);
        }
        made
    }

    /// Removes the interfaces that are not wanted.
    pub(super) fn keep_vmacs(&mut self, wanted: &[Vmac]) {
        let mut vmacs = std::mem::take(&mut self.vmacs);
        match Netlink::open() {
            Ok(mut netlink) => vmacs.keep_only(&mut netlink, self, wanted),
            Err(error) => self.complain(&error),
        }
        self.vmacs = vmacs;
    }

    /// Whether some interface has this address.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(_, other)| *other == address)
    }

    /// Whether neighbours may have this host for a router there.
    pub(super) fn forwards_v6(&self, interface: &InterfaceName) -> bool {
        settings::read(&format!("net/ipv6/conf/{interface}/forwarding")) == Some(1)
    }

    /// Drops packets to and from these.
    pub(super) fn refuse(&mut self, addresses: &[IpAddr]) {
        self.refused.extend(addresses);
        self.follow_refused();
    }

    pub(super) fn accept(&mut self, addresses: &[IpAddr]) {
        self.refused.retain(|address| !addresses.contains(address));
        self.follow_refused();
    }

    fn follow_refused(&mut self) {
        if self.refusals.is_none() {
            if self.refused.is_empty() {
                return;
            }
            match Refusals::new(REFUSALS) {
                Ok(refusals) => self.refusals = Some(refusals),
                Err(error) => return self.trouble("no_accept", &chain(&error)),
            }
        }
        if let Some(refusals) = &mut self.refusals
            && let Err(error) = refusals.set(&self.refused)
        {
            self.trouble("no_accept", &chain(&error));
        }
    }

    /// Sets routes, then rules. What is there already will do.
    pub(super) fn add_routes(&mut self, name: &Arc<str>, all: &Routes) {
        let mut held = Vec::new();
        for model in &all.routes {
            let outcome = routes::route(model, |name| self.index(&name.into()));
            let added = outcome.and_then(|route| match self.netlink.add_route(&route) {
                Err(error) if !error.is_exists() => Err(chain(&error)),
                _ => Ok(route),
            });
            match added {
                Ok(route) if !model.no_track => held.push(route),
                Ok(_) => {}
                Err(why) => self.trouble(&format!("vrrp_instance {name}: virtual route"), &why),
            }
        }
        for model in &all.rules {
            let added = routes::rule(model).and_then(|rule| match self.netlink.add_rule(&rule) {
                Err(error) if !error.is_exists() => Err(chain(&error)),
                _ => Ok(()),
            });
            if let Err(why) = added {
                self.trouble(&format!("vrrp_instance {name}: virtual rule"), &why);
            }
        }
        if !held.is_empty() {
            self.routes.insert(Arc::clone(name), held);
        }
    }

    /// Takes rules, then routes away, whoever set them.
    pub(super) fn remove_routes(&mut self, name: &Arc<str>, all: &Routes) {
        for model in &all.rules {
            if let Ok(rule) = routes::rule(model) {
                // It may never have been there.
                let _ = self.netlink.delete_rule(&rule);
            }
        }
        for model in &all.routes {
            let Ok(route) = routes::route(model, |name| self.index(&name.into())) else {
                continue;
            };
            // First, so that the kernel's word of it is no news.
            if let Some(held) = self.routes.get_mut(name) {
                held.retain(|other| *other != route);
            }
            let _ = self.netlink.delete_route(&routes::any_scope(route));
        }
    }

    fn trouble(&self, what: &str, why: &str) {
        let _ = self.news.send(News::Trouble(format!("{what}: {why}")));
    }

    fn tell(&self, address: &VirtualAddress, prefix_len: Option<u8>, change: AddressChange) {
        let news = News::Address {
            address: address.clone(),
            prefix_len,
            change,
        };
        // Nobody listens any more at the end.
        let _ = self.news.send(news);
    }

    fn complain(&self, error: &NetlinkError) {
        let _ = self.news.send(News::Trouble(chain(error)));
    }

    fn request(&self, address: &VirtualAddress, how: Option<&ModelAddress>) -> Option<Address> {
        let index = self.index(&address.interface)?;
        let prefix = match (how, address.address) {
            (Some(how), _) => how.prefix_len,
            (None, IpAddr::V4(_)) => 32,
            (None, IpAddr::V6(_)) => 128,
        };
        let mut request = Address::new(index, address.address, prefix);
        request.protocol = MARK;
        request.nodad = address.address.is_ipv6();
        if let Some(how) = how {
            request.peer = how.peer;
            request.broadcast = how.broadcast;
            request.label.clone_from(&how.label);
            request.noprefixroute = how.flags.no_prefix_route;
            request.nodad = address.address.is_ipv6() && !how.flags.detect_duplicates;
            // An address of its own alone is not for connections that begin here.
            request.preferred = match how.preferred_lifetime {
                Some(Lifetime::Forever) => None,
                Some(Lifetime::Limited(time)) => Some(seconds(time)),
                None => (address.address.is_ipv6() && prefix == 128).then_some(0),
            };
            request.scope = how
                .scope
                .as_deref()
                .map_or(Scope::Global, crate::addresses::scope);
        }
        Some(request)
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// Name of the tables of addresses that are not answered for.
const REFUSALS: &str = "lvs-vrrp";

const fn is_up(link: &Link) -> bool {
    link.up && link.running
}
