//! The loop: what the drive rules of `lvs-vrrp` ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use lvs_conf::model::VirtualAddress as ModelAddress;
use lvs_vrrp::bfd::BfdState;
use lvs_vrrp::{
    Command, Event, Notice, RouterId, ScriptCommand, Task, VirtualAddress, VirtualRouter,
    VrrpRouter, select_source,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::UnboundedSender;
use tracing::debug;

use super::actions::{Action, Actions, Placed};
use super::convert::{Converted, OnHost};
use super::host::{Host, HostNews};
use super::routes::Routes;
use super::sockets::{Key, Sockets};
use super::sys;
use super::thread::{Claims, Handle, News, Order, Status, VrrpError};
use super::watch::bfd::Bfd;
use super::watch::{Watcher, files};
use crate::logging::chain;
use crate::notify::scripts::{Ended, Exit, Purpose, Runner, Ticket};

pub(super) struct Shell {
    router: VrrpRouter,
    converted: Converted,
    /// During a reload: how addresses were set that may have to go.
    before: BTreeMap<VirtualAddress, ModelAddress>,
    hosts_before: BTreeMap<Arc<str>, OnHost>,
    sockets: Sockets,
    host: Host,
    actions: Actions,
    scripts: Runner,
    /// Check scripts that run.
    running: BTreeMap<Arc<str>, Ticket>,
    /// Those that could not be run last time.
    unrunnable: BTreeSet<Arc<str>>,
    bfd: Bfd,
    watcher: Option<Watcher>,
    handle: Handle,
    changes: BTreeMap<RouterId, LastChange>,
    news: UnboundedSender<News>,
    orders: Receiver<Order>,
    wake: Arc<OwnedFd>,
    stopping: bool,
}

/// When and why a virtual router got into its state.
struct LastChange {
    at: Instant,
    reason: String,
}

impl Shell {
    pub(super) fn new(
        converted: Converted,
        claims: Claims,
        scripts: Runner,
        news: UnboundedSender<News>,
        handle: Handle,
        (orders, wake): (Receiver<Order>, Arc<OwnedFd>),
    ) -> Result<Self, VrrpError> {
        let router = VrrpRouter::new(Instant::now(), converted.setup.clone())?;
        Ok(Self {
            router,
            converted,
            before: BTreeMap::new(),
            hosts_before: BTreeMap::new(),
            sockets: Sockets::new().map_err(VrrpError::Sockets)?,
            host: Host::open(news.clone())?,
            actions: Actions::new(claims, news.clone()),
            scripts,
            running: BTreeMap::new(),
            unrunnable: BTreeSet::new(),
            bfd: Bfd::default(),
            watcher: None,
            handle,
            changes: BTreeMap::new(),
            news,
            orders,
            wake,
            stopping: false,
        })
    }

    pub(super) fn run(mut self) {
        if let Err(error) = sys::set_real_time() {
            debug!("VRRP runs without real-time priority: {error}");
        }
        let now = Instant::now();
        self.host.make_vmacs(&self.converted.vmacs());
        self.tell_links(now);
        for file in &self.converted.watched.files {
            if let Err(error) = files::create(file) {
                self.complain(format!("track_file {}: {error}", file.path));
            }
            let number = files::read(&file.path).unwrap_or_default();
            self.router.handle_file(now, &file.name, number);
        }
        self.follow_watched(now);
        self.tell_sources(now);
        self.follow_sockets();
        self.router.start(now);
        self.drain();
        while !self.stopping {
            self.wait();
            // Read before you judge.
            let router = &mut self.router;
            self.sockets.receive_all(|interface, received| {
                if let Err(discard) = router.handle_packet(Instant::now(), interface, received) {
                    debug!("on {interface}: {discard}");
                }
            });
            self.drain();
            self.hear_kernel();
            self.take_orders();
            self.bfd.receive_all();
            let now = Instant::now();
            self.bfd.handle_timeout(now);
            self.tell_bfd(now);
            if self.router.poll_timeout().is_some_and(|due| due <= now) {
                self.router.handle_timeout(now);
                self.drain();
            }
            self.act();
        }
        self.host.keep_vmacs(&[]);
    }

    fn tell_links(&mut self, now: Instant) {
        for (name, up) in self.host.links() {
            self.router.handle_link(now, &name, up);
        }
    }

    /// Until a datagram, the kernel's news, an order, or the deadline.
    fn wait(&self) {
        let due = [
            self.router.poll_timeout(),
            self.actions.poll_timeout(),
            self.bfd.poll_timeout(),
        ];
        let due = due.into_iter().flatten().min();
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = wait.map(timespec);
        let mut watched: Vec<PollFd<'_>> = self
            .sockets
            .descriptors()
            .chain(self.bfd.descriptors())
            .chain([self.host.events().as_fd(), self.wake.as_fd()])
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        // An interruption is as good as an event.
        let _ = poll(&mut watched, timeout.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    fn hear_kernel(&mut self) {
        let mut interfaces = false;
        let mut sources = false;
        for news in self.host.poll_news() {
            let now = Instant::now();
            match news {
                HostNews::Link(name, up) => self.router.handle_link(now, &name, up),
                HostNews::Interfaces => interfaces = true,
                HostNews::Sources => sources = true,
                HostNews::Removed(address) => self.router.handle_address_removed(now, &address),
                HostNews::RouteRemoved(name) => {
                    if let Some(id) = self.router.by_name(&name) {
                        self.router.handle_route_removed(now, id);
                    }
                }
            }
        }
        if interfaces && self.host.make_vmacs(&self.converted.vmacs()) {
            self.tell_links(Instant::now());
        }
        if interfaces || sources {
            self.tell_sources(Instant::now());
            self.follow_sockets();
        }
        self.drain();
    }

    /// Each virtual router's source address: the configured one, or the interface's.
    fn tell_sources(&mut self, now: Instant) {
        let sources: Vec<_> = self
            .router
            .virtual_routers()
            .map(|(id, router)| {
                let config = router.config();
                let host = self
                    .router
                    .name(id)
                    .and_then(|name| self.converted.hosts.get(name));
                let source = match host.and_then(|host| host.source) {
                    Some(source) => {
                        let is_free = host.is_none_or(|host| !host.track_source);
                        (is_free || self.host.has(source)).then_some(source)
                    }
                    None => {
                        // An interface of its own has none: what it has is virtual.
                        let vmac = host.and_then(|host| host.vmac.as_ref());
                        let base = vmac.map_or(&config.interface, |vmac| &vmac.base);
                        select_source(config, self.host.addresses(base))
                    }
                };
                (id, source)
            })
            .collect();
        for (id, source) in sources {
            self.router.handle_source(now, id, source);
        }
    }

    fn key(&self, id: RouterId) -> Option<Key> {
        let router = self.router.virtual_router(id)?;
        Key::of(router.config(), router.source())
    }

    fn follow_sockets(&mut self) {
        let wanted: BTreeMap<_, _> = self
            .router
            .virtual_routers()
            .filter_map(|(id, _)| {
                let key = self.key(id)?;
                let index = match key.interface.as_str() {
                    "" => 0,
                    _ => self.host.index(&key.interface)?,
                };
                Some((key, index))
            })
            .collect();
        for (key, error) in self.sockets.keep(&wanted) {
            self.complain(format!("VRRP socket on {}: {error}", key.interface));
        }
    }

    fn take_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            let now = Instant::now();
            match order {
                Order::Reload(converted) => self.reload(now, *converted),
                Order::SetPreemptGate(open) => self.router.set_preempt_gate(now, open),
                Order::Confirm(number) => self.actions.confirm(number),
                Order::Script(name, exit) => {
                    self.running.remove(&name);
                    self.remark_unrunnable(&name, exit);
                    self.router
                        .handle_script_exit(now, &name, exit == Exit::Code(0));
                }
                Order::File(name, number) => self.router.handle_file(now, &name, number),
                Order::Processes(name, count) => {
                    self.router.handle_process_count(now, &name, count);
                }
                Order::Status(answer) => {
                    // Who asked may be gone.
                    let _ = answer.send(self.status(now));
                }
                Order::Stop => {
                    self.actions.wait_no_more();
                    self.router.shutdown(now);
                    self.bfd.shutdown(now);
                    self.stopping = true;
                }
            }
            self.drain();
        }
    }

    fn reload(&mut self, now: Instant, converted: Converted) {
        if self.host.make_vmacs(&converted.vmacs()) {
            self.tell_links(now);
        }
        if let Err(error) = self.router.reload(now, converted.setup.clone()) {
            return self.complain(format!("reload of VRRP refused: {}", chain(&error)));
        }
        let old = std::mem::replace(&mut self.converted, converted);
        self.before = old.addresses;
        self.hosts_before = old.hosts;
        self.drain();
        let changed: Vec<RouterId> = self
            .router
            .virtual_routers()
            .filter(|(id, _)| {
                let routes = |hosts: &BTreeMap<Arc<str>, OnHost>| {
                    let name = self.router.name(*id)?;
                    hosts.get(name).map(|host| host.routes.clone())
                };
                routes(&self.converted.hosts) != routes(&self.hosts_before)
            })
            .map(|(id, _)| id)
            .collect();
        for id in changed {
            self.router.routes_changed(now, id);
        }
        self.drain();
        if self.converted.watched != old.watched {
            let known = |name: &str| old.watched.files.iter().any(|file| file.name == name);
            for file in &self.converted.watched.files {
                if let Err(error) = (!known(&file.name))
                    .then(|| files::create(file))
                    .transpose()
                {
                    self.complain(format!("track_file {}: {error}", file.path));
                }
            }
            self.follow_watched(now);
        }
        // The same address with another prefix or label is set anew.
        let changed = self.host.held().filter_map(|address| {
            let new = self.converted.addresses.get(address);
            let old = self.before.get(address);
            (new != old).then(|| (address.clone(), old.cloned(), new.cloned()))
        });
        for (address, old, new) in changed.collect::<Vec<_>>() {
            let remove = Action::RemoveAddresses(vec![(address.clone(), old)]);
            self.actions.push(remove);
            self.actions
                .push(Action::AddAddresses(vec![(address, new)]));
        }
        self.before.clear();
        self.hosts_before.clear();
        self.host.keep_vmacs(&self.converted.vmacs());
        self.tell_sources(now);
        self.follow_sockets();
        self.drain();
        let router = &self.router;
        self.changes
            .retain(|id, _| router.virtual_router(*id).is_some());
    }

    /// Sessions and files as the configuration says.
    fn follow_watched(&mut self, now: Instant) {
        let watched = &self.converted.watched;
        for (name, error) in self.bfd.keep(now, &watched.bfd) {
            self.complain(format!("bfd_instance {name}: {error}"));
        }
        for (name, state) in self.bfd.states() {
            self.router.handle_bfd(now, name, state == BfdState::Up);
        }
        // The old one must not tell any more what the new one tells.
        self.watcher = None;
        match Watcher::start(&self.converted.watched, self.handle.clone()) {
            Ok(watcher) => self.watcher = watcher,
            Err(error) => self.complain(format!("tracked files and processes: {error}")),
        }
        self.tell_bfd(now);
    }

    fn tell_bfd(&mut self, now: Instant) {
        let changes = self.bfd.drain();
        for (name, event) in &changes {
            let is_up = event.to == BfdState::Up;
            self.router.handle_bfd(now, name, is_up);
            if is_up || event.from == BfdState::Up {
                let name = Arc::clone(name);
                let _ = self.news.send(News::Session { name, is_up });
            }
        }
        if !changes.is_empty() {
            self.drain();
        }
    }

    fn check(&mut self, name: &Arc<str>, command: ScriptCommand) {
        match (command, self.running.get(name)) {
            (ScriptCommand::Run, _) => {
                let Some(program) = self.converted.watched.scripts.get(name).cloned() else {
                    return;
                };
                let (vrrp, own) = (self.handle.clone(), Arc::clone(name));
                let done = move |ended: Ended| vrrp.send(Order::Script(own, ended.exit));
                // The machine says when it has run for too long.
                let ticket = self.scripts.run(Purpose::Tracking, program, None, done);
                self.running.insert(Arc::clone(name), ticket);
            }
            (ScriptCommand::Terminate, Some(ticket)) => ticket.terminate(),
            (ScriptCommand::Kill, Some(ticket)) => ticket.kill(),
            (_, None) => {}
        }
    }

    /// A script that does not even run is more than a failure, and said once until it runs again.
    fn remark_unrunnable(&mut self, name: &Arc<str>, exit: Exit) {
        match exit {
            Exit::NotStarted(_) => {
                if self.unrunnable.insert(Arc::clone(name)) {
                    let trouble = format!("vrrp_script {name} {exit}: it counts as failed");
                    let _ = self.news.send(News::Trouble(trouble));
                }
            }
            Exit::Code(_) | Exit::Signal(_) => {
                self.unrunnable.remove(name);
            }
        }
    }

    fn status(&self, now: Instant) -> Vec<Status> {
        let groups: Vec<_> = self
            .router
            .groups()
            .filter_map(|id| self.router.group(id))
            .collect();
        let status = |(id, router): (RouterId, &VirtualRouter)| {
            let change = self.changes.get(&id);
            let group = groups.iter().find(|group| group.members.contains(&id));
            Status {
                name: self.router.name(id).cloned().unwrap_or_default(),
                config: router.config().clone(),
                state: router.state(),
                since: change.map_or(Duration::ZERO, |change| {
                    now.saturating_duration_since(change.at)
                }),
                reason: change.map_or_else(String::new, |change| change.reason.clone()),
                priority: router.effective_priority(),
                source: router.source(),
                active_router: router
                    .active_router()
                    .map(|(peer, heard)| (peer, now.saturating_duration_since(heard))),
                faults: router.faults().cloned().collect(),
                awaited: router.awaited().cloned().collect(),
                group: group.map(|group| Arc::clone(&group.name)),
                waits_for_group: router.waits_for_group(),
                preempts_in: router
                    .preempt_delay_end()
                    .map(|end| end.saturating_duration_since(now)),
                complaints: router.complaints().copied().collect(),
                statistics: *router.statistics(),
            }
        };
        self.router.virtual_routers().map(status).collect()
    }

    /// Everything that the machine asks for, in its order.
    fn drain(&mut self) {
        let mut bytes = Vec::new();
        while let Some((id, transmit)) = self.router.poll_transmit(&mut bytes) {
            let Some(key) = self.key(id) else { continue };
            if let Err(error) = self.sockets.send(&key, &transmit, &bytes) {
                debug!("advertisement on {}: {error}", key.interface);
            }
        }
        while let Some(task) = self.router.poll_command() {
            match task {
                Task::Router { router, command } => {
                    for action in self.actions_of(router, command) {
                        self.actions.push(action);
                    }
                }
                Task::Script { name, command } => self.check(&name, command),
                _ => {}
            }
        }
        self.act();
        while let Some(notice) = self.router.poll_event() {
            self.tell(notice);
        }
    }

    fn actions_of(&self, id: RouterId, command: Command) -> Vec<Action> {
        let new = &self.converted.addresses;
        let how = |address: &VirtualAddress| new.get(address).or_else(|| self.before.get(address));
        let was = |address: &VirtualAddress| self.before.get(address).or_else(|| new.get(address));
        let bare = |addresses: Vec<VirtualAddress>| {
            let addresses = addresses.into_iter();
            addresses.map(|address| address.address).collect()
        };
        let name = self.router.name(id).cloned().unwrap_or_default();
        let routes = |hosts: &BTreeMap<Arc<str>, OnHost>| {
            let host = hosts.get(&name);
            host.map(|host| host.routes.clone()).unwrap_or_default()
        };
        let now = routes(&self.converted.hosts);
        // Of an instance that a reload takes away only the old configuration knows.
        let before = match self.hosts_before.is_empty() {
            true => now.clone(),
            false => routes(&self.hosts_before),
        };
        match command {
            Command::SetAcceptMode {
                accept: true,
                addresses,
            } => vec![Action::Accept(bare(addresses))],
            Command::SetAcceptMode { addresses, .. } => vec![Action::Refuse(bare(addresses))],
            Command::AddAddresses(addresses) => {
                vec![Action::AddAddresses(placed(addresses, how))]
            }
            Command::RemoveAddresses(addresses) => {
                vec![Action::RemoveAddresses(placed(addresses, was))]
            }
            Command::AddRoutes => vec![Action::AddRoutes(name, now)],
            Command::RemoveRoutes => vec![Action::RemoveRoutes(name, before)],
            Command::ReplaceRoutes => {
                let gone = Routes {
                    routes: without(&before.routes, &now.routes),
                    rules: without(&before.rules, &now.rules),
                };
                // What is there already stays.
                vec![
                    Action::RemoveRoutes(Arc::clone(&name), gone),
                    Action::AddRoutes(name, now),
                ]
            }
            Command::Announce(announcement) => vec![Action::Announce(announcement)],
            _ => Vec::new(),
        }
    }

    fn act(&mut self) {
        let now = Instant::now();
        while let Some(action) = self.actions.next(now, &self.host) {
            self.carry_out(&action);
        }
        self.actions.release(&self.host);
    }

    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::AddAddresses(addresses) => {
                for (address, how) in addresses {
                    self.host.add(address, how.as_ref());
                }
            }
            Action::RemoveAddresses(addresses) => {
                for (address, how) in addresses {
                    self.host.remove(address, how.as_ref());
                }
            }
            Action::Refuse(addresses) => self.host.refuse(addresses),
            Action::Accept(addresses) => self.host.accept(addresses),
            Action::AddRoutes(name, routes) => self.host.add_routes(name, routes),
            Action::RemoveRoutes(name, routes) => self.host.remove_routes(name, routes),
            Action::Announce(announcement) => {
                let Some((index, mac)) = self.host.place(&announcement.interface) else {
                    return;
                };
                let is_router = announcement.address.is_ipv6()
                    && self.host.forwards_v6(&announcement.interface);
                let sent = self
                    .sockets
                    .announce(announcement.address, index, mac, is_router);
                if let Err(error) = sent {
                    debug!("announcement on {}: {error}", announcement.interface);
                }
            }
        }
    }

    fn tell(&mut self, notice: Notice) {
        let news = match notice {
            Notice::Router {
                router,
                name,
                event,
                silent,
            } => {
                if let Event::StateChanged(change) = &event {
                    let change = LastChange {
                        at: Instant::now(),
                        reason: change.reason.to_string(),
                    };
                    self.changes.insert(router, change);
                }
                let known = self.router.virtual_router(router);
                let priority = match &event {
                    Event::StateChanged(change) => change.priority,
                    _ => known.map_or(0, VirtualRouter::effective_priority),
                };
                News::Instance {
                    name,
                    event,
                    priority,
                    silent,
                }
            }
            Notice::Group { group, from, to } => {
                let Some(group) = self.router.group(group) else {
                    return;
                };
                News::Group {
                    name: group.name,
                    from,
                    to,
                }
            }
            Notice::Object { object, health } => News::Object { object, health },
            _ => return,
        };
        // Nobody listens any more at the end.
        let _ = self.news.send(news);
    }

    fn complain(&self, trouble: String) {
        let _ = self.news.send(News::Trouble(trouble));
    }
}

impl Drop for Shell {
    /// However the loop ended, no address stays that another router believes to have.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.host.remove_all();
        }
    }
}

fn without<T: PartialEq + Clone>(all: &[T], these: &[T]) -> Vec<T> {
    let all = all.iter().filter(|each| !these.contains(each));
    all.cloned().collect()
}

fn placed<'a>(
    addresses: Vec<VirtualAddress>,
    how: impl Fn(&VirtualAddress) -> Option<&'a ModelAddress>,
) -> Vec<Placed> {
    let placed = |address| {
        let how = how(&address).cloned();
        (address, how)
    };
    addresses.into_iter().map(placed).collect()
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
