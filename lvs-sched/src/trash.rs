//! Removed servers, kept while connections refer to them and revived when they come back.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use crate::time::{NEVER, Nanos, seconds};
use crate::{RealServer, ServiceKey, VirtualService};

/// The trash of a director.
#[derive(Debug)]
pub(crate) struct Trash {
    items: Vec<Item>,
    next: Nanos,
}

#[derive(Debug)]
struct Item {
    server: Arc<RealServer>,
    key: ServiceKey,
    service: Weak<VirtualService>,
    idle_since: Option<Nanos>,
}

impl Trash {
    pub(crate) fn new() -> Self {
        Self {
            items: Vec::new(),
            next: NEVER,
        }
    }

    /// When the timer runs; it runs only while there is something.
    pub(crate) fn next(&self) -> Nanos {
        self.next
    }

    pub(crate) fn put(
        &mut self,
        now: Nanos,
        service: &Arc<VirtualService>,
        key: ServiceKey,
        server: Arc<RealServer>,
    ) {
        if self.items.is_empty() {
            self.next = now + PERIOD;
        }
        self.items.push(Item {
            server,
            key,
            service: Arc::downgrade(service),
            idle_since: None,
        });
    }

    /// Takes out the server that `service` may revive. If it was another service object's its
    /// statistics are zeroed.
    pub(crate) fn revive(
        &mut self,
        service: &Arc<VirtualService>,
        key: ServiceKey,
        addr: SocketAddr,
    ) -> Option<Arc<RealServer>> {
        let index = self
            .items
            .iter()
            .position(|item| item.key == key && item.server.addr() == addr)?;
        let item = self.items.remove(index);
        if self.items.is_empty() {
            self.next = NEVER;
        }
        if !Weak::ptr_eq(&item.service, &Arc::downgrade(service)) {
            item.server.start_over();
        }
        Some(item.server)
    }

    pub(crate) fn handle_timeout(&mut self, now: Nanos) {
        if now < self.next {
            return;
        }
        self.items.retain_mut(|item| {
            if item.server.is_referenced() {
                return true;
            }
            let idle_since = *item.idle_since.get_or_insert(now);
            now < idle_since + GRACE
        });
        self.next = if self.items.is_empty() {
            NEVER
        } else {
            now + PERIOD
        };
    }
}

const PERIOD: Nanos = seconds(60);
const GRACE: Nanos = seconds(120);
