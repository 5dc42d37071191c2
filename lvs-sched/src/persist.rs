//! Persistence templates: "this client group goes to this server".
//!
//! Templates are shared by all workers, because a group's clients meet different ones. They lie in
//! locked shards by key and are touched only when a connection begins; one that ends only counts
//! down.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use ahash::RandomState;
use parking_lot::Mutex;

use crate::conn::chunks::Slab;
use crate::conn::table::PROLONGATION;
use crate::conn::wheel::Wheel;
use crate::defence::{self, Random};
use crate::real_server::Class;
use crate::time::{Epoch, NEVER, Nanos};
use crate::{Protocol, RealServer, VirtualService};

/// What a template applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TemplateTarget {
    /// A virtual address and port; port 0 is every port.
    Address(SocketAddr),
    /// Everything with a firewall mark.
    Mark(NonZeroU32),
}

/// A template, for listings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TemplateInfo {
    /// Protocol; `None` for the templates of mark services, which hold for all.
    pub protocol: Option<Protocol>,
    /// The client group: its masked address.
    pub client: IpAddr,
    /// What it applies to; a retired one shows port 65535.
    pub target: TemplateTarget,
    /// The server; port 0 keeps the packet's port, 65535 is retired.
    pub destination: SocketAddr,
    /// Whether a connection of it got beyond its opening.
    pub assured: bool,
    /// No longer used for new connections because its server was removed or quiesced.
    pub retired: bool,
    /// Connections that it controls.
    pub controls: u32,
    /// The persistence engine and its string.
    pub engine: Option<(&'static str, Arc<[u8]>)>,
    /// When its timer fires.
    pub deadline: Instant,
}

/// Key of a template. Protocol `None` is "any", of mark services.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TemplateKey {
    pub(crate) protocol: Option<Protocol>,
    pub(crate) client: IpAddr,
    pub(crate) target: TemplateTarget,
    pub(crate) engine: Option<(&'static str, Arc<[u8]>)>,
}

/// What connections hold of their template.
#[derive(Debug)]
pub(crate) struct Template {
    key: TemplateKey,
    server: Arc<RealServer>,
    /// Port shown for the server.
    port: u16,
    controls: AtomicU32,
    /// When the last connection ended, so that a timer that is looked at late still knows whether
    /// it controlled one when it fired.
    released: AtomicU64,
    assured: AtomicBool,
    /// Its place in its shard.
    id: u32,
    /// Whose it is, as long as the service lives.
    service: Weak<VirtualService>,
    /// Packets of one-packet connections.
    packets: AtomicU32,
}

impl Template {
    pub(crate) fn count_packet(&self) {
        self.packets.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn server(&self) -> &Arc<RealServer> {
        &self.server
    }

    pub(crate) fn assure(&self) {
        if !self.assured.load(Ordering::Relaxed) {
            self.assured.store(true, Ordering::Relaxed);
        }
    }

    /// A connection that it controlled ended.
    pub(crate) fn release(&self, at: Nanos) {
        self.released.fetch_max(at, Ordering::Release);
        let before = self.controls.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a connection left its template twice");
    }

    fn held_at(&self, at: Nanos) -> bool {
        self.controls.load(Ordering::Acquire) > 0 || self.released.load(Ordering::Acquire) > at
    }
}

/// Why no template could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTemplate {
    NoServer,
    Full,
}

/// What a new connection got.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) template: Arc<Template>,
    /// Whether the scheduler was asked just now, so that the connection is bound already.
    pub(crate) bound: bool,
}

/// What a new connection would get.
#[derive(Debug)]
pub(crate) enum Foreseen {
    /// A template's server.
    Template(Arc<RealServer>, Option<TemplateInfo>),
    /// A new template for the scheduler's choice, in the place of one whose server is no longer to be used.
    New { retiring: Option<TemplateInfo> },
    /// Nothing: there are too many templates.
    Full,
}

/// What a caller wants of a template.
#[derive(Debug)]
pub(crate) struct Want<'a> {
    pub(crate) key: TemplateKey,
    pub(crate) service: &'a Arc<VirtualService>,
    /// The only server that will do.
    pub(crate) server: Option<&'a Arc<RealServer>>,
    pub(crate) timeout: Nanos,
    /// Row 1 of the key table: the template shows its server's port.
    pub(crate) server_port: bool,
    /// A template whose server is quiesced is not used.
    pub(crate) expire_quiescent: bool,
}

/// All templates.
#[derive(Debug)]
pub(crate) struct Templates {
    shards: Vec<Shard>,
    hasher: RandomState,
    count: AtomicUsize,
    limit: usize,
}

#[derive(Debug)]
struct Shard {
    state: Mutex<State>,
    /// The wheel's next time, readable without the lock.
    next: AtomicU64,
}

#[derive(Debug)]
struct State {
    by_key: HashMap<TemplateKey, u32, RandomState>,
    slots: Slab<Slot>,
    wheel: Wheel,
    due: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    template: Arc<Template>,
    timeout: Nanos,
    deadline: Nanos,
    armed: Nanos,
    retired: bool,
}

impl Slot {
    /// Whether new connections may go to its server.
    fn serves(&self, want: &Want<'_>) -> bool {
        let server = self.template.server();
        want.server.is_none_or(|wanted| Arc::ptr_eq(wanted, server))
            && server.is_available()
            && !server.watch().is_forced()
            && !(want.expire_quiescent && server.is_quiesced())
    }

    /// Lets the timer fire as often as it did until `now`. Returns the deadline, past if the
    /// template ended.
    fn settle(&mut self, now: Nanos) -> Nanos {
        while self.deadline <= now && self.template.held_at(self.deadline) {
            // The timeout is not restored later: from now on new connections refresh it for this
            // long only.
            self.timeout = PROLONGATION;
            self.deadline += PROLONGATION;
        }
        self.deadline
    }
}

impl Templates {
    pub(crate) fn new(hasher: RandomState, limit: usize) -> Self {
        let shard = || Shard {
            state: Mutex::new(State {
                by_key: HashMap::with_hasher(hasher.clone()),
                slots: Slab::default(),
                wheel: Wheel::default(),
                due: Vec::new(),
            }),
            next: AtomicU64::new(NEVER),
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher,
            count: AtomicUsize::new(0),
            limit,
        }
    }

    /// The template for a new connection: the present one if it is valid, else a new one for the
    /// server that `schedule` binds the connection to. It controls one connection more and its
    /// timer starts again.
    pub(crate) fn take(
        &self,
        now: Nanos,
        want: &Want<'_>,
        schedule: impl FnOnce() -> Option<Arc<RealServer>>,
    ) -> Result<Grant, NoTemplate> {
        let shard = self.shard(&want.key);
        let mut state = shard.state.lock();
        let mut found = state.by_key.get(&want.key).copied();
        if let Some(id) = found {
            let slot = state.slot_mut(id);
            if slot.settle(now) <= now {
                self.end(&mut state, id);
                found = None;
            } else {
                if !slot.serves(want) {
                    slot.retired = true;
                    state.by_key.remove(&want.key);
                    found = None;
                }
            }
        }
        let bound = found.is_none();
        let id = match found {
            Some(id) => id,
            None => {
                if self.count.load(Ordering::Relaxed) >= self.limit {
                    return Err(NoTemplate::Full);
                }
                let server = schedule().ok_or(NoTemplate::NoServer)?;
                self.begin(&mut state, want, now, server)
            }
        };
        let slot = state.slot_mut(id);
        slot.template.controls.fetch_add(1, Ordering::AcqRel);
        slot.deadline = now + slot.timeout;
        let (template, deadline, armed) = (Arc::clone(&slot.template), slot.deadline, slot.armed);
        if deadline < armed {
            slot.armed = deadline;
            state.wheel.cancel(id);
            state.wheel.arm(id, deadline);
        }
        shard.next.store(state.wheel.next(), Ordering::Relaxed);
        Ok(Grant { template, bound })
    }

    /// What [`take`](Self::take) would find, without taking it.
    pub(crate) fn peek(&self, now: Nanos, epoch: &Epoch, want: &Want<'_>) -> Foreseen {
        let shard = self.shard(&want.key);
        let mut state = shard.state.lock();
        let mut retiring = None;
        let mut ending = 0;
        if let Some(id) = state.by_key.get(&want.key).copied() {
            let slot = state.slot_mut(id);
            if slot.settle(now) <= now {
                ending = 1;
            } else {
                let info = slot.info(epoch);
                if slot.serves(want) {
                    return Foreseen::Template(Arc::clone(slot.template.server()), info);
                }
                retiring = info;
            }
        }
        if self.count.load(Ordering::Relaxed) - ending >= self.limit {
            return Foreseen::Full;
        }
        Foreseen::New { retiring }
    }

    /// A connection's template, as listings show it, while it lives.
    pub(crate) fn info_of(&self, epoch: &Epoch, template: &Arc<Template>) -> Option<TemplateInfo> {
        let state = self.shard(&template.key).state.lock();
        let slot = state.slots.get(template.id)?;
        Arc::ptr_eq(&slot.template, template).then(|| slot.info(epoch))?
    }

    /// Ends a template because the last connection that it controlled was ended by force, unless it
    /// is assured or controls another one by now.
    pub(crate) fn cascade(&self, template: &Arc<Template>) {
        let shard = self.shard(&template.key);
        let mut state = shard.state.lock();
        let is_it = |slot: &Slot| Arc::ptr_eq(&slot.template, template);
        if state.slots.get(template.id).is_some_and(is_it)
            && template.controls.load(Ordering::Acquire) == 0
            && !template.assured.load(Ordering::Relaxed)
        {
            self.end(&mut state, template.id);
            shard.next.store(state.wheel.next(), Ordering::Relaxed);
        }
    }

    /// Number of templates.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Looks at `draws` templates by chance, for [`Tunables::drop_entry`](crate::Tunables).
    pub(crate) fn thin(
        &self,
        now: Nanos,
        draws: u32,
        random: &mut Random,
        shared: &defence::Shared,
    ) {
        for _ in 0..draws {
            let shard = &self.shards[random.below(SHARDS as u32) as usize];
            let mut state = shard.state.lock();
            let id = random.below(state.slots.places());
            let Some(slot) = state.slots.get(id) else {
                continue;
            };
            let template = &*slot.template;
            let one_packet = template
                .service
                .upgrade()
                .is_some_and(|service| service.config().one_packet);
            let ends = template.controls.load(Ordering::Acquire) == 0
                && if one_packet {
                    let restarted = slot.deadline.saturating_sub(slot.timeout);
                    let packets = template.packets.load(Ordering::Relaxed);
                    shared.thins(packets, now.saturating_sub(restarted))
                } else {
                    !template.assured.load(Ordering::Relaxed)
                };
            if ends {
                self.end(&mut state, id);
                shard.next.store(state.wheel.next(), Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn next(&self) -> Nanos {
        self.shards
            .iter()
            .map(|shard| shard.next.load(Ordering::Relaxed))
            .min()
            .unwrap_or(NEVER)
    }

    pub(crate) fn handle_timeout(&self, now: Nanos) {
        for shard in &self.shards {
            if shard.next.load(Ordering::Relaxed) > now {
                continue;
            }
            let mut state = shard.state.lock();
            let State {
                slots, wheel, due, ..
            } = &mut *state;
            let deadline = |id: u32| {
                slots.get_mut(id).map_or(0, |slot| {
                    slot.armed = slot.settle(now);
                    slot.armed
                })
            };
            wheel.advance(now, deadline, due);
            let mut ended = std::mem::take(due);
            for id in ended.drain(..) {
                self.end(&mut state, id);
            }
            state.due = ended;
            shard.next.store(state.wheel.next(), Ordering::Relaxed);
        }
    }

    pub(crate) fn infos(&self, epoch: &Epoch) -> Vec<TemplateInfo> {
        let mut infos = Vec::new();
        for shard in &self.shards {
            let state = shard.state.lock();
            infos.extend(state.slots.iter().filter_map(|slot| slot.info(epoch)));
        }
        infos
    }

    fn shard(&self, key: &TemplateKey) -> &Shard {
        // The maps use the low bits of the same hash.
        &self.shards[(self.hasher.hash_one(key) >> 48) as usize % SHARDS]
    }

    fn begin(
        &self,
        state: &mut State,
        want: &Want<'_>,
        now: Nanos,
        server: Arc<RealServer>,
    ) -> u32 {
        server.bind(Class::Persistent);
        self.count.fetch_add(1, Ordering::Relaxed);
        let port = if want.server_port {
            server.addr().port()
        } else {
            0
        };
        let deadline = now + want.timeout;
        let id = state.slots.insert_with(|id| Slot {
            template: Arc::new(Template {
                key: want.key.clone(),
                server,
                port,
                controls: AtomicU32::new(0),
                released: AtomicU64::new(0),
                assured: AtomicBool::new(false),
                id,
                service: Arc::downgrade(want.service),
                packets: AtomicU32::new(0),
            }),
            timeout: want.timeout,
            deadline,
            armed: deadline,
            retired: false,
        });
        state.by_key.insert(want.key.clone(), id);
        state.wheel.arm(id, deadline);
        id
    }

    fn end(&self, state: &mut State, id: u32) {
        state.wheel.cancel(id);
        let Some(slot) = state.slots.remove(id) else {
            return;
        };
        if !slot.retired {
            state.by_key.remove(&slot.template.key);
        }
        slot.template.server.unbind(Class::Persistent);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl State {
    fn slot_mut(&mut self, id: u32) -> &mut Slot {
        self.slots
            .get_mut(id)
            .expect("the key map and the wheel know only living templates")
    }
}

impl Slot {
    fn info(&self, epoch: &Epoch) -> Option<TemplateInfo> {
        let Template {
            key, server, port, ..
        } = &*self.template;
        let mut target = key.target;
        if self.retired
            && let TemplateTarget::Address(addr) = &mut target
        {
            addr.set_port(RETIRED_PORT);
        }
        let port = if self.retired { RETIRED_PORT } else { *port };
        Some(TemplateInfo {
            protocol: key.protocol,
            client: key.client,
            target,
            destination: SocketAddr::new(server.addr().ip(), port),
            assured: self.template.assured.load(Ordering::Relaxed),
            retired: self.retired,
            controls: self.template.controls.load(Ordering::Relaxed),
            engine: key.engine.clone(),
            deadline: epoch.instant(self.deadline)?,
        })
    }
}

/// Many, so that growing one of them is short.
const SHARDS: usize = 256;
const RETIRED_PORT: u16 = 65535;
