//! The kernel's links and addresses, as VRRP sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_conf::model::VirtualAddress as ModelAddress;
use lvs_fwd::netlink::{Address, Event, Events, Link, MARK, Netlink, NetlinkError, Scope};
use lvs_vrrp::wire::MacAddress;
use lvs_vrrp::{InterfaceName, VirtualAddress};
use tracing::warn;

use crate::logging::chain;

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
}

/// What the kernel told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A link came, went, or changed.
    Link(InterfaceName, bool),
    /// An interface was made, removed or renamed: sockets have to follow.
    Interfaces,
    /// Own addresses changed.
    Sources,
    /// Somebody took away an address that is held.
    Removed(VirtualAddress),
}

impl Host {
    /// In the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let events = Events::open()?;
        let mut host = Self {
            netlink: Netlink::open()?,
            events,
            links: BTreeMap::new(),
            addresses: Vec::new(),
            held: BTreeSet::new(),
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
            .map(|address| (address.ifindex, address.addr))
            .collect();
        Ok(())
    }

    pub(super) const fn events(&self) -> &Events {
        &self.events
    }

    /// What the kernel has told since the last call.
    pub(super) fn poll_news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        loop {
            match self.events.poll_event() {
                Ok(Some(event)) => self.take(event, &mut news),
                Ok(None) => return news,
                Err(error) => {
                    warn!("{}", chain(&error));
                    return news;
                }
            }
        }
    }

    fn take(&mut self, event: Event, news: &mut Vec<News>) {
        match event {
            Event::Link(link) => {
                let known = self.links.insert(link.index, link.clone());
                if known.as_ref().is_none_or(|known| known.name != link.name) {
                    news.push(News::Interfaces);
                }
                if let Some(known) = known.filter(|known| known.name != link.name) {
                    news.push(News::Link(known.name.as_str().into(), false));
                }
                let up = is_up(&link);
                news.push(News::Link(link.name.as_str().into(), up));
            }
            Event::LinkGone { ifindex } => {
                if let Some(link) = self.links.remove(&ifindex) {
                    self.addresses.retain(|(index, _)| *index != ifindex);
                    news.push(News::Link(link.name.as_str().into(), false));
                    news.push(News::Interfaces);
                }
            }
            Event::Address(address) => {
                let pair = (address.ifindex, address.addr);
                if !self.addresses.contains(&pair) {
                    self.addresses.push(pair);
                    news.push(News::Sources);
                }
            }
            Event::AddressGone(address) => {
                let pair = (address.ifindex, address.addr);
                self.addresses.retain(|other| *other != pair);
                news.push(News::Sources);
                if let Some(link) = self.links.get(&address.ifindex) {
                    let gone = VirtualAddress {
                        address: address.addr,
                        interface: link.name.as_str().into(),
                    };
                    if self.held.contains(&gone) {
                        news.push(News::Removed(gone));
                    }
                }
            }
            Event::Overrun => {
                let held = self.held.clone();
                if let Err(error) = self.look() {
                    warn!("{}", chain(&error));
                    return;
                }
                let links: Vec<_> = self.links().collect();
                news.extend(links.into_iter().map(|(name, up)| News::Link(name, up)));
                news.extend([News::Interfaces, News::Sources]);
                let gone = held.into_iter().filter(|each| !self.is_set(each));
                news.extend(gone.map(News::Removed));
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

    fn link(&self, name: &InterfaceName) -> Option<&Link> {
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

    /// Sets an address; one that is there already will do.
    pub(super) fn add(&mut self, address: &VirtualAddress, how: Option<&ModelAddress>) {
        self.held.insert(address.clone());
        let Some(request) = self.request(address, how) else {
            return warn!(
                "address {}: there is no interface {}",
                address.address, address.interface
            );
        };
        match self.netlink.add_address(&request) {
            Ok(()) => {}
            Err(error) if error.is_exists() => {}
            Err(error) => warn!("{}", chain(&error)),
        }
    }

    /// Takes an address away, whoever set it.
    pub(super) fn remove(&mut self, address: &VirtualAddress, how: Option<&ModelAddress>) {
        // First, so that the kernel's word of it is no news.
        self.held.remove(address);
        if !self.is_set(address) && !self.look_for(address) {
            return;
        }
        let Some(request) = self.request(address, how) else {
            return;
        };
        match self.netlink.delete_address(&request) {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => warn!("{}", chain(&error)),
        }
    }

    /// What was set a moment ago has not been told of yet.
    fn look_for(&mut self, address: &VirtualAddress) -> bool {
        let index = self.index(&address.interface);
        self.netlink.addresses().is_ok_and(|all| {
            all.iter()
                .any(|each| Some(each.ifindex) == index && each.addr == address.address)
        })
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
            request.scope = how
                .scope
                .as_deref()
                .map_or(Scope::Global, crate::addresses::scope);
        }
        Some(request)
    }
}

const fn is_up(link: &Link) -> bool {
    link.up && link.running
}
