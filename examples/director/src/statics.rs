//! `static_ipaddress`, `static_routes` and `static_rules`: there as long as the director runs, and again when somebody takes
//! them away.
//!
//! The kernel drops routes silently with their interface or source address and says nothing of rules. So everything is
//! looked at again whenever a link, an address or a route changes; what is there already is not touched.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use lvs_conf::model::{Route, Rule};
use lvs_fwd::netlink::{Event, Events, KernelRoute, Netlink, Rule as KernelRule};
use tracing::{info, warn};

use crate::addresses::Addresses;
use crate::logging::chain;
use crate::plan::PlannedAddress;
use crate::vrrp::{Routes, routes};

/// What is to be there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlannedStatics {
    /// Addresses.
    pub addresses: Vec<PlannedAddress>,
    /// Routes and rules.
    pub routes: Routes,
}

/// Addresses, routes and rules that are held.
#[derive(Debug)]
pub struct Statics {
    netlink: Netlink,
    events: Events,
    addresses: Addresses,
    wanted: PlannedStatics,
    /// What was set from here, by what asked for it.
    routes: Vec<(Route, KernelRoute)>,
    rules: Vec<(Rule, KernelRule)>,
    /// What could not be set, said once.
    troubles: BTreeSet<String>,
}

impl Statics {
    /// None yet; in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// What the system reports about the sockets.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::open().map_err(io::Error::other)?,
            events: Events::open().map_err(io::Error::other)?,
            addresses: Addresses::new()?,
            wanted: PlannedStatics::default(),
            routes: Vec::new(),
            rules: Vec::new(),
            troubles: BTreeSet::new(),
        })
    }

    /// Holds exactly these. What is unchanged is not touched; what can't be set is logged and tried again when
    /// something on this host changes.
    pub fn set(&mut self, wanted: &PlannedStatics) {
        // Rules lead to routes, routes leave by addresses: taken away in that order, set in the other.
        let (kept, gone) = std::mem::take(&mut self.rules)
            .into_iter()
            .partition(|(rule, _)| wanted.routes.rules.contains(rule));
        self.rules = kept;
        for (_, rule) in gone {
            if let Err(error) = self.netlink.delete_rule(&rule)
                && !error.is_not_found()
            {
                warn!("static rule: {}", chain(&error));
            }
        }
        let (kept, gone) = std::mem::take(&mut self.routes)
            .into_iter()
            .partition(|(route, _)| wanted.routes.routes.contains(route));
        self.routes = kept;
        for (_, route) in gone {
            if let Err(error) = self.netlink.delete_route(&routes::any_scope(route))
                && !error.is_not_found()
            {
                warn!("static route: {}", chain(&error));
            }
        }
        self.addresses.set(&wanted.addresses);
        self.wanted = wanted.clone();
        self.restore();
    }

    /// Sets again what somebody took away. To be called when the [descriptor](AsFd::as_fd) is readable.
    pub fn follow(&mut self) {
        let mut is_concerned = false;
        loop {
            match self.events.poll_event() {
                Ok(Some(Event::Neighbour(_) | Event::NeighbourGone(_))) => {}
                Ok(Some(_)) => is_concerned = true,
                Ok(None) => break,
                Err(error) => {
                    warn!("{}", chain(&error));
                    break;
                }
            }
        }
        if is_concerned && self.wanted != PlannedStatics::default() {
            self.addresses.restore(&self.wanted.addresses);
            self.restore();
        }
    }

    /// Gives all of them up.
    pub fn clear(&mut self) {
        self.set(&PlannedStatics::default());
    }

    /// Sets routes and rules that are not there.
    fn restore(&mut self) {
        let routes = std::mem::take(&mut self.wanted.routes);
        let links = self.netlink.links().unwrap_or_default();
        let index = |name: &str| {
            let mut links = links.iter();
            links.find(|link| link.name == name).map(|link| link.index)
        };
        let mut troubles = BTreeSet::new();
        for wanted in &routes.routes {
            let route = match routes::route(wanted, index) {
                Ok(route) => route,
                Err(why) => {
                    troubles.insert(format!("static route: {why}"));
                    continue;
                }
            };
            match self.netlink.add_route(&route) {
                Ok(()) => info!("static route to {} set", route.destination),
                // Taken away at the end only if it has the protocol that it would have had from here.
                Err(error) if error.is_exists() => {}
                Err(error) => {
                    troubles.insert(format!("static route: {}", chain(&error)));
                    continue;
                }
            }
            self.routes.retain(|(known, _)| known != wanted);
            self.routes.push((wanted.clone(), route));
        }
        for wanted in &routes.rules {
            let rule = match routes::rule(wanted) {
                Ok(rule) => rule,
                Err(why) => {
                    troubles.insert(format!("static rule: {why}"));
                    continue;
                }
            };
            match self.netlink.add_rule(&rule) {
                Ok(()) => info!("static rule of preference {} set", rule.priority),
                Err(error) if error.is_exists() => {}
                Err(error) => {
                    troubles.insert(format!("static rule: {}", chain(&error)));
                    continue;
                }
            }
            self.rules.retain(|(known, _)| known != wanted);
            self.rules.push((wanted.clone(), rule));
        }
        for trouble in troubles.difference(&self.troubles) {
            warn!("{trouble}");
        }
        self.troubles = troubles;
        self.wanted.routes = routes;
    }
}

impl AsFd for Statics {
    /// Readable when [`follow`](Self::follow) is due.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl Drop for Statics {
    fn drop(&mut self) {
        self.clear();
    }
}
