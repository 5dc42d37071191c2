//! Virtual services and their real servers while the director runs: health decides who stands in the scheduler's table.
//!
//! Only what the configuration changes is changed here: what an operator did [by hand](crate::edits) to something else stays.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use lvs_conf::model::Ssl;
use lvs_health::{
    Adjustment, BfdCheck, Change, Driver, Event, Monitor, Pool, ServerId, TlsSettings,
};
use lvs_sched::{
    Director, EngineKind, Family, LocalError, ServerConfig, ServerError, ServiceError, ServiceKey,
    Weight,
};
use tracing::{debug, info, warn};

use crate::checks::PlannedCheck;
use crate::drains::Drains;
use crate::files::Files;
use crate::logging::chain;
use crate::notify::event::ServiceName;
use crate::notify::servers::ServerNews;
use crate::notify::{self, Notifier};
use crate::ping_groups::PingGroups;
use crate::plan::{Plan, PlannedPool, PlannedServer, PlannedService};

/// The running pools: one for each `virtual_server` block.
#[derive(Debug)]
pub struct Pools {
    scheduler: Arc<Director>,
    driver: Driver,
    notifier: Notifier,
    server_news: ServerNews,
    files: Files,
    /// BFD sessions that are up.
    sessions: HashSet<String>,
    /// The addresses of this host.
    local: Vec<IpAddr>,
    ssl: Option<Ssl>,
    /// Held while there is something to ping.
    ping_groups: Option<PingGroups>,
    /// What the configuration asked for last.
    services: Vec<PlannedService>,
    pools: Vec<RunningPool>,
    /// Which server of which service a monitored server is.
    watched: HashMap<ServerId, Watched>,
    /// How servers were put into the scheduler's table from here. What is there may differ: edits by hand stay.
    placed: HashMap<(ServiceKey, SocketAddr), ServerConfig>,
    /// Servers whose place in the scheduler's table has to be looked at.
    touched: BTreeSet<(ServiceKey, SocketAddr)>,
    drains: Drains,
}

#[derive(Debug)]
struct RunningPool {
    planned: PlannedPool,
    /// For people.
    title: String,
    pool: Pool<SocketAddr>,
    servers: HashMap<SocketAddr, ServerId>,
}

/// What has changed of what checks follow.
enum Fact<'a> {
    Files(&'a [PathBuf]),
    Session(&'a str),
}

impl Fact<'_> {
    fn is_of_file(&self, path: &str) -> bool {
        matches!(self, Self::Files(paths) if paths.iter().any(|it| it.as_os_str() == path))
    }

    fn is_of_session(&self, name: &str) -> bool {
        matches!(self, Self::Session(changed) if *changed == name)
    }
}

/// Something that [`Pools::handle_news`] is to hear of.
#[derive(Debug)]
pub struct HealthNews(Inner);

#[derive(Debug)]
enum Inner {
    Event(Event),
    Files,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    pool: usize,
    addr: SocketAddr,
}

impl Pools {
    /// None yet. To be called within a runtime.
    pub fn new(scheduler: Arc<Director>, driver: Driver, notifier: Notifier) -> Self {
        Self {
            drains: Drains::new(Arc::clone(&scheduler)),
            scheduler,
            driver,
            notifier,
            server_news: ServerNews::default(),
            files: Files::open(),
            sessions: HashSet::new(),
            local: Vec::new(),
            ssl: None,
            ping_groups: None,
            services: Vec::new(),
            pools: Vec::new(),
            watched: HashMap::new(),
            placed: HashMap::new(),
            touched: BTreeSet::new(),
        }
    }

    /// Makes the services and pools what the plan says. What it shares with the present ones keeps connections,
    /// counters and the state of its checks.
    pub fn apply(&mut self, now: Instant, plan: &Plan) {
        self.take_certificates(plan);
        let mut servers = plan.pools.iter().flat_map(|pool| &pool.servers);
        let pings = servers.any(|server| server.checks.iter().any(PlannedCheck::is_ping));
        if !pings {
            self.ping_groups = None;
        } else if self.ping_groups.is_none() {
            self.ping_groups = Some(PingGroups::widen());
        }
        let is_start = self.services.is_empty() && self.pools.is_empty();
        self.files.set(&plan.track_files, is_start);
        let watched = &plan.vrrp.watched.bfd;
        self.sessions
            .retain(|name| watched.iter().any(|bfd| bfd.name == *name));
        let added = self.apply_services(now, plan);
        // The n-th block of a name goes on as the n-th block of that name.
        let mut old: HashMap<Identity, RunningPool> = std::mem::take(&mut self.pools)
            .into_iter()
            .map(|pool| (identity(&pool.planned), pool))
            .collect();
        self.watched.clear();
        let kept = plan.pools.iter().map(|pool| {
            let servers = pool.servers.iter().map(|server| server.addr);
            (pool.name.clone(), servers.collect())
        });
        let events = self.server_news.retain(&kept.collect());
        self.tell(events);
        for planned in &plan.pools {
            let same = old.remove(&identity(planned));
            let is_new = planned.services.iter().any(|key| added.contains(key));
            self.adopt(planned, same, is_new, plan.tells_up_at_start);
        }
        for gone in old.into_values() {
            self.retire(&gone);
        }
        self.tell_facts(None);
        self.suspend();
        self.settle(now);
    }

    /// What is being drained by hand.
    pub fn drains(&mut self) -> &mut Drains {
        &mut self.drains
    }

    /// Takes every server out, at the end.
    pub fn stop(&mut self, now: Instant) {
        let events = self.server_news.end();
        self.tell(events);
        self.apply(now, &Plan::default());
    }

    /// Goes on with the checks until one has something to say. Nothing gets lost if it is dropped.
    pub async fn next_news(&mut self) -> HealthNews {
        tokio::select! {
            event = self.driver.next_event() => HealthNews(Inner::Event(event)),
            () = self.files.changed() => HealthNews(Inner::Files),
        }
    }

    /// What a check has to say.
    pub fn handle_news(&mut self, now: Instant, news: HealthNews) {
        match news.0 {
            Inner::Event(event) => self.handle_event(now, event),
            Inner::Files => {
                let changed = self.files.handle_change();
                self.tell_facts(Some(&Fact::Files(&changed)));
            }
        }
    }

    /// The addresses of this host are these now: checks of services whose address is elsewhere rest, if they are to.
    pub fn handle_addresses(&mut self, local: Vec<IpAddr>) {
        if self.local != local {
            self.local = local;
            self.suspend();
        }
    }

    /// The state of all checks.
    pub fn monitor(&self) -> &Monitor {
        self.driver.monitor()
    }

    /// Every server that is checked: its block, its address, its name in the monitor.
    pub fn servers(&self) -> impl Iterator<Item = (&str, SocketAddr, ServerId)> + '_ {
        self.pools.iter().flat_map(|pool| {
            pool.planned.servers.iter().filter_map(|server| {
                let id = pool.servers.get(&server.addr)?;
                Some((&pool.title[..], server.addr, *id))
            })
        })
    }

    /// Brings the scheduler what the configuration has changed. Returns the services that are new in the scheduler.
    fn apply_services(&mut self, now: Instant, plan: &Plan) -> HashSet<ServiceKey> {
        let before = std::mem::replace(&mut self.services, plan.services.clone());
        let before: HashMap<ServiceKey, PlannedService> =
            before.into_iter().map(|it| (it.key, it)).collect();
        let wanted: HashSet<ServiceKey> = plan.services.iter().map(|it| it.key).collect();
        for key in before.keys().filter(|key| !wanted.contains(*key)) {
            match self.scheduler.remove_service(now, key) {
                Ok(()) => info!("virtual service {key} removed"),
                Err(ServiceError::NotFound) => {}
                Err(error) => warn!("virtual service {key}: {error}"),
            }
        }
        let mut added = HashSet::new();
        for planned in &plan.services {
            let former = before.get(&planned.key);
            if former == Some(planned) {
                continue;
            }
            let PlannedService {
                key,
                config,
                engine,
                locals,
            } = planned;
            let outcome = match self.scheduler.edit_service(key, *config) {
                Ok(()) => Ok("changed"),
                Err(ServiceError::NotFound) => {
                    added.insert(*key);
                    self.scheduler.add_service(*key, *config).map(|_| "added")
                }
                Err(error) => Err(error),
            };
            let outcome = outcome.and_then(|what| {
                let engine = engine.map(EngineKind::build);
                self.scheduler.set_engine(key, engine).map(|()| what)
            });
            match outcome {
                Ok(what) => info!(
                    "virtual service {key} {what}, scheduler {}",
                    config.scheduler
                ),
                Err(error) => warn!("virtual service {key}: {error}"),
            }
            let former = former.filter(|_| !added.contains(key));
            let former = former.map_or(&[][..], |former| &former.locals);
            self.apply_locals(key, former, locals);
        }
        let scheduler = &self.scheduler;
        self.placed
            .retain(|(key, _), _| !added.contains(key) && scheduler.service(key).is_some());
        added
    }

    /// Local addresses that came or went by hand stay as they are.
    fn apply_locals(&self, key: &ServiceKey, former: &[IpAddr], locals: &[IpAddr]) {
        for gone in former.iter().filter(|addr| !locals.contains(addr)) {
            match self.scheduler.remove_local_address(key, *gone) {
                Ok(()) => info!("local address {gone} of {key} removed"),
                Err(LocalError::NotFound) => {}
                Err(error) => warn!("local address {gone} of {key}: {error}"),
            }
        }
        for new in locals.iter().filter(|addr| !former.contains(addr)) {
            match self.scheduler.add_local_address(key, *new) {
                Ok(()) => info!("local address {new} of {key} added"),
                Err(LocalError::Exists) => {}
                Err(error) => warn!("local address {new} of {key}: {error}"),
            }
        }
    }

    /// A service that is new in the scheduler has no servers yet, even if the pool is the old one.
    fn adopt(
        &mut self,
        planned: &PlannedPool,
        old: Option<RunningPool>,
        is_new: bool,
        tells_up: bool,
    ) {
        let at = self.pools.len();
        if let Some(same) = old
            .as_ref()
            .filter(|old| old.planned == *planned && !is_new)
        {
            for (addr, id) in &same.servers {
                self.watched.insert(
                    *id,
                    Watched {
                        pool: at,
                        addr: *addr,
                    },
                );
            }
            self.pools.extend(old);
            return;
        }
        let mut pool = Pool::new(planned.config.clone());
        let mut servers = HashMap::new();
        for server in &planned.servers {
            let id = self.watch(server, old.as_ref());
            let up = self.driver.monitor().is_up(id).unwrap_or(true);
            if let Err(error) = pool.add_server(server.addr, server.member, up) {
                // lvs-conf drops duplicates within a block.
                warn!("real server {}: {error}", server.addr);
            }
            servers.insert(server.addr, id);
            self.watched.insert(
                id,
                Watched {
                    pool: at,
                    addr: server.addr,
                },
            );
        }
        let states: Vec<(SocketAddr, bool)> = servers
            .iter()
            .map(|(addr, id)| (*addr, self.driver.monitor().is_up(*id).unwrap_or(true)))
            .collect();
        let events = self
            .server_news
            .begin(&planned.name, planned.omega, &states, tells_up);
        self.tell(events);
        let mut changes = pool.start();
        if old.as_ref().is_some_and(|old| old.pool.has_quorum()) {
            // Nothing that anybody has to hear of again.
            changes.retain(|change| !matches!(change, Change::QuorumGained { .. }));
        }
        self.pools.push(RunningPool {
            planned: planned.clone(),
            title: planned.title(),
            pool,
            servers,
        });
        if let Some(old) = old {
            self.clean_after(at, &old);
        }
        self.apply_changes(at, changes);
    }

    /// A server that was there before goes on with those of its checks that it still has.
    fn watch(&mut self, server: &PlannedServer, old: Option<&RunningPool>) -> ServerId {
        let config = || lvs_health::ServerConfig {
            checkers: server.checks.iter().map(|check| check.config()).collect(),
            weight: server.member.weight,
        };
        let Some(id) = old.and_then(|old| old.servers.get(&server.addr).copied()) else {
            return self.driver.add_server(config());
        };
        let old = old.and_then(|old| old.planned.servers.iter().find(|it| it.addr == server.addr));
        let is_same =
            old.is_some_and(|old| old.checks == server.checks && old.member == server.member);
        if !is_same && self.driver.update_server(id, config()).is_err() {
            return self.driver.add_server(config());
        }
        id
    }

    /// Forgets the checks that only the pool's predecessor had. What it had in the table is looked at again.
    fn clean_after(&mut self, at: usize, old: &RunningPool) {
        let kept: Vec<ServerId> = self.pools[at].servers.values().copied().collect();
        for id in old.servers.values().filter(|id| !kept.contains(id)) {
            // Known until now, so it is there.
            let _ = self.driver.remove_server(*id);
        }
        self.touched.extend(old.members());
        self.touched.extend(self.pools[at].members());
    }

    fn retire(&mut self, gone: &RunningPool) {
        for id in gone.servers.values() {
            let _ = self.driver.remove_server(*id);
        }
        self.touched.extend(gone.members());
    }

    /// Brings the scheduler's table up to date with what all pools of a service want. Blocks for one address share its
    /// table, and a sorry server may be a real server too: what one of them gives up another may still want. Of several
    /// wishes the first counts, real servers before sorry servers.
    fn settle(&mut self, now: Instant) {
        let touched = std::mem::take(&mut self.touched);
        let mut pools: HashMap<ServiceKey, Vec<&RunningPool>> =
            touched.iter().map(|(key, _)| (*key, Vec::new())).collect();
        for pool in &self.pools {
            for key in &pool.planned.services {
                if let Some(pools) = pools.get_mut(key) {
                    pools.push(pool);
                }
            }
        }
        let mut wishes = Vec::with_capacity(touched.len());
        for (key, addr) in touched {
            let pools = || pools[&key].iter();
            let wish = pools()
                .find_map(|pool| pool.wish(&key, addr))
                .or_else(|| pools().find_map(|pool| pool.sorry_wish(&key, addr)));
            wishes.push((key, addr, wish));
        }
        for (key, addr, wish) in wishes {
            if self.scheduler.service(&key).is_none() {
                continue;
            }
            // Nothing new from the configuration or from health: then what was done by hand stays.
            if self.placed.get(&(key, addr)) == wish.as_ref() {
                continue;
            }
            match wish {
                Some(config) => {
                    self.put(now, key, addr, config);
                    self.placed.insert((key, addr), config);
                }
                None => {
                    self.remove(now, key, addr);
                    self.placed.remove(&(key, addr));
                }
            }
        }
    }

    /// A BFD session is up, or is so no longer.
    pub fn handle_session(&mut self, now: Instant, name: &str, is_up: bool) {
        match is_up {
            true => self.sessions.insert(name.to_owned()),
            false => self.sessions.remove(name),
        };
        self.tell_facts(Some(&Fact::Session(name)));
        self.settle(now);
    }

    /// What checks follow that are not asked themselves: what has changed, or all, and what can't be checked at all.
    fn tell_facts(&mut self, changed: Option<&Fact<'_>>) {
        let Self {
            driver,
            files,
            sessions,
            pools,
            ..
        } = self;
        for pool in pools.iter() {
            for server in &pool.planned.servers {
                let Some(id) = pool.servers.get(&server.addr) else {
                    continue;
                };
                for (at, check) in server.checks.iter().enumerate() {
                    let (outcome, adjustment) = if let Some((path, check)) = check.file() {
                        if changed.is_some_and(|fact| !fact.is_of_file(path)) {
                            continue;
                        }
                        check.judge(files.value(path))
                    } else if let Some(name) = check.session() {
                        if changed.is_some_and(|fact| !fact.is_of_session(name)) {
                            continue;
                        }
                        let outcome = BfdCheck::judge(sessions.contains(name));
                        (outcome, Adjustment::None)
                    } else if let (Some(fault), None) = (check.fault(), changed) {
                        (fault, Adjustment::None)
                    } else {
                        continue;
                    };
                    // It was made from this very plan.
                    let _ = driver.handle_outcome(*id, at, outcome, adjustment);
                }
            }
        }
    }

    fn suspend(&mut self) {
        for pool in &self.pools {
            let is_away = pool.planned.services.iter().all(|key| match key {
                ServiceKey::Address { vip, .. } => !self.local.contains(vip),
                ServiceKey::Mark { .. } => false,
            });
            for id in pool.servers.values() {
                let rests = pool.planned.ha_suspend && is_away;
                let _ = self.driver.set_suspended(*id, rests);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::CheckerUp { server, checker } => {
                if let Some(name) = self.name(server) {
                    debug!("check {checker} of {name} succeeded");
                }
                self.tell_check(server, checker, true, "succeeded");
            }
            Event::CheckerDown {
                server,
                checker,
                failure,
                attempts,
            } => {
                if let Some(name) = self.name(server) {
                    info!("check {checker} of {name} failed: {failure} (attempts: {attempts})");
                }
                self.tell_check(server, checker, false, &format!("failed: {failure}"));
            }
            Event::ServerUp { server } => self.observe(now, server, true, None),
            Event::ServerDown {
                server, failure, ..
            } => {
                self.observe(now, server, false, Some(failure.to_string()));
            }
            Event::Adjusted { server, adjustment } => self.adjust(now, server, adjustment),
            Event::AttemptFailed {
                server,
                checker,
                failure,
            } => {
                if let Some(name) = self.name(server) {
                    info!("check {checker} of {name}: an attempt failed: {failure}");
                }
            }
            Event::NotRun {
                server,
                checker,
                reason,
            } => {
                if let Some(name) = self.name(server) {
                    warn!("check {checker} of {name} could not be run: {reason}");
                }
            }
            Event::Noted {
                server,
                checker,
                note,
            } => {
                if let Some(name) = self.name(server) {
                    info!("check {checker} of {name}: {note}");
                }
            }
            _ => {}
        }
    }

    fn observe(&mut self, now: Instant, id: ServerId, up: bool, why: Option<String>) {
        let Some(Watched { pool: at, addr }) = self.watched.get(&id).copied() else {
            return;
        };
        let title = &self.pools[at].title;
        match why {
            Some(why) => warn!("real server {addr} of {title} is down: {why}"),
            None => info!("real server {addr} of {title} is up"),
        }
        if !up {
            let name = &self.pools[at].planned.name;
            let events = self.server_news.handle_down(name, addr);
            self.tell(events);
        }
        let RunningPool { title, pool, .. } = &mut self.pools[at];
        let changes = if up {
            pool.handle_server_up(addr)
        } else {
            pool.handle_server_down(addr)
        };
        match changes {
            Ok(changes) => self.apply_changes(at, changes),
            Err(error) => warn!("real server {addr} of {title}: {error}"),
        }
        self.settle(now);
    }

    fn adjust(&mut self, now: Instant, id: ServerId, adjustment: i64) {
        let Some(Watched { pool: at, addr }) = self.watched.get(&id).copied() else {
            return;
        };
        let RunningPool { title, pool, .. } = &mut self.pools[at];
        info!("the checks of real server {addr} of {title} change its weight by {adjustment}");
        match pool.handle_adjustment(addr, adjustment) {
            Ok(changes) => self.apply_changes(at, changes),
            Err(error) => warn!("real server {addr} of {title}: {error}"),
        }
        self.settle(now);
    }

    /// Logs what a pool says and notes which servers it concerns; [`settle`](Self::settle) does the rest.
    fn apply_changes(&mut self, at: usize, changes: Vec<Change<SocketAddr>>) {
        let RunningPool { planned, title, .. } = &self.pools[at];
        let sorry = planned.sorry.map(|(addr, _)| addr);
        let mut events = Vec::new();
        for change in changes {
            events.extend(self.server_news.handle_change(&planned.name, &change));
            let touched = match change {
                Change::Add { server, .. }
                | Change::SetWeight { server, .. }
                | Change::Delete { server } => Some(server),
                Change::AddSorry { weight } | Change::SetSorryWeight { weight } => {
                    if let Some(addr) = sorry {
                        info!("sorry server {addr} of {title} has weight {weight}");
                    }
                    sorry
                }
                Change::DeleteSorry => {
                    if let Some(addr) = sorry {
                        info!("sorry server {addr} of {title} is not needed");
                    }
                    sorry
                }
                Change::QuorumGained { sum, threshold, .. } => {
                    info!("{title} has its quorum: weight {sum}, {threshold} needed");
                    None
                }
                Change::QuorumLost { sum, threshold, .. } => {
                    warn!("{title} lost its quorum: weight {sum}, {threshold} needed");
                    None
                }
                _ => None,
            };
            let services = planned.services.iter();
            self.touched.extend(
                touched
                    .into_iter()
                    .flat_map(|addr| services.clone().map(move |key| (*key, addr))),
            );
        }
        events.extend(self.server_news.settle(&planned.name));
        self.tell(events);
    }

    fn tell_check(&mut self, id: ServerId, checker: usize, has_passed: bool, what: &str) {
        let Some(Watched { pool, addr }) = self.watched.get(&id).copied() else {
            return;
        };
        let name = self.pools[pool].planned.name.clone();
        let finding = format!("check {checker} {what}");
        let is_up = self.driver.monitor().is_up(id).unwrap_or(true);
        let check = (checker, has_passed);
        let events = self
            .server_news
            .handle_check(&name, addr, check, finding, is_up);
        self.tell(events);
    }

    fn tell(&self, events: Vec<notify::Event>) {
        for event in events {
            self.notifier.tell(event);
        }
    }

    fn take_certificates(&mut self, plan: &Plan) {
        if self.ssl == plan.ssl {
            return;
        }
        self.ssl.clone_from(&plan.ssl);
        let settings = self
            .ssl
            .as_ref()
            .map_or_else(|| Ok(TlsSettings::new()), tls_settings);
        let outcome = settings.and_then(|settings| {
            let outcome = self.driver.set_tls(settings);
            outcome.map_err(|error| error.to_string())
        });
        if let Err(reason) = outcome {
            warn!("SSL: {reason}; the checks go on without");
        }
    }

    fn put(&mut self, now: Instant, key: ServiceKey, addr: SocketAddr, config: ServerConfig) {
        let config = self.drains.adjusted((key, addr), config);
        let outcome = match self.scheduler.add_server(now, &key, addr, config) {
            Err(ServerError::Exists) => self.scheduler.edit_server(now, &key, addr, config),
            other => other.map(|_| ()),
        };
        match outcome {
            Ok(()) => debug!("real server {addr} of {key} has weight {}", config.weight),
            Err(error) => warn!("real server {addr} of {key}: {error}"),
        }
    }

    fn remove(&self, now: Instant, key: ServiceKey, addr: SocketAddr) {
        match self.scheduler.remove_server(now, &key, addr) {
            Ok(_) => debug!("real server {addr} of {key} taken out"),
            Err(ServerError::NotFound) => {}
            Err(error) => warn!("real server {addr} of {key}: {error}"),
        }
    }

    fn name(&self, id: ServerId) -> Option<String> {
        let watched = self.watched.get(&id)?;
        let title = &self.pools[watched.pool].title;
        Some(format!("{} of {title}", watched.addr))
    }
}

impl RunningPool {
    /// What stands in the services' tables on this pool's behalf, or may.
    fn members(&self) -> impl Iterator<Item = (ServiceKey, SocketAddr)> + '_ {
        let services = self.planned.services.iter();
        services.flat_map(|key| self.planned.all_servers().map(|(addr, _)| (*key, addr)))
    }

    /// How this pool wants a real server to stand in a service's table; `None` if it does not.
    fn wish(&self, key: &ServiceKey, addr: SocketAddr) -> Option<ServerConfig> {
        let (_, weight) = self.pool.servers().find(|(server, _)| *server == addr)?;
        let planned = &self.planned.servers;
        let server = planned.iter().find(|server| server.addr == addr)?;
        self.placed(key, addr, server.config, weight?)
    }

    /// The same for the sorry server.
    fn sorry_wish(&self, key: &ServiceKey, addr: SocketAddr) -> Option<ServerConfig> {
        let (_, config) = self.planned.sorry.filter(|(sorry, _)| *sorry == addr)?;
        self.placed(key, addr, config, self.pool.sorry_weight()?)
    }

    fn placed(
        &self,
        key: &ServiceKey,
        addr: SocketAddr,
        config: ServerConfig,
        weight: u32,
    ) -> Option<ServerConfig> {
        let is_served = self.planned.serves(key, addr, config.method);
        is_served.then(|| weighted(config, weight))
    }
}

/// What a block is known by from one configuration to the next.
type Identity = (ServiceName, Option<Family>);

fn identity(planned: &PlannedPool) -> Identity {
    // Services of one mark differ by their family.
    let family = planned.services.first().map(ServiceKey::family);
    (planned.name.clone(), family)
}

fn tls_settings(ssl: &Ssl) -> Result<TlsSettings, String> {
    let read = |path: &String| std::fs::read(path).map_err(|error| format!("{path}: {error}"));
    let mut settings = TlsSettings::new();
    if let Some(ca) = &ssl.ca {
        let told = |error| format!("{ca}: {}", chain(&error));
        settings = settings.with_authorities(&read(ca)?).map_err(told)?;
    }
    match (&ssl.certificate, &ssl.key) {
        (Some(certificate), Some(key)) => settings
            .with_identity(&read(certificate)?, &read(key)?)
            .map_err(|error| format!("{certificate}, {key}: {}", chain(&error))),
        (None, None) => Ok(settings),
        _ => Err("a certificate and its key belong together".to_owned()),
    }
}

fn weighted(config: ServerConfig, weight: u32) -> ServerConfig {
    ServerConfig {
        weight: Weight::new(weight).unwrap_or(Weight::MAX),
        ..config
    }
}
