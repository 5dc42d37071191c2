//! Virtual services and their real servers while the director runs: health decides who stands in the scheduler's table.
//!
//! Only what the configuration changes is changed here: what an operator did [by hand](crate::edits) to something else stays.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use lvs_health::{Change, Event, Monitor, Pool, ServerId};
use lvs_sched::{Director, ServerConfig, ServerError, ServiceError, ServiceKey, Weight};
use tracing::{debug, info, warn};

use crate::plan::{Plan, PlannedPool, PlannedServer, PlannedService};
use crate::probes::{Probes, Report};

/// The running pools: one for each `virtual_server` block.
#[derive(Debug)]
pub struct Pools {
    scheduler: Arc<Director>,
    monitor: Monitor,
    probes: Probes,
    /// What the configuration asked for last.
    services: Vec<PlannedService>,
    pools: Vec<RunningPool>,
    /// Which server of which service a monitored server is.
    watched: HashMap<ServerId, Watched>,
}

#[derive(Debug)]
struct RunningPool {
    planned: PlannedPool,
    pool: Pool<SocketAddr>,
    servers: HashMap<SocketAddr, ServerId>,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    pool: usize,
    addr: SocketAddr,
}

impl Pools {
    /// None yet. The seed spreads the first checks over their warm-up.
    pub fn new(scheduler: Arc<Director>, probes: Probes, seed: u64) -> Self {
        Self {
            scheduler,
            monitor: Monitor::new(seed),
            probes,
            services: Vec::new(),
            pools: Vec::new(),
            watched: HashMap::new(),
        }
    }

    /// Makes the services and pools what the plan says. What it shares with the present ones keeps connections,
    /// counters and the state of its checks.
    pub fn apply(&mut self, now: Instant, plan: &Plan) {
        let added = self.apply_services(now, plan);
        let mut old: Vec<Option<RunningPool>> = std::mem::take(&mut self.pools)
            .into_iter()
            .map(Some)
            .collect();
        self.watched.clear();
        for planned in &plan.pools {
            // The n-th block of a service goes on as the n-th block of that service.
            let same = old
                .iter_mut()
                .find(|slot| {
                    slot.as_ref()
                        .is_some_and(|pool| pool.planned.service == planned.service)
                })
                .and_then(Option::take);
            self.adopt(now, planned, same, added.contains(&planned.service));
        }
        for gone in old.into_iter().flatten() {
            self.retire(now, gone);
        }
        self.drain(now);
    }

    /// Takes every server out, at the end.
    pub fn stop(&mut self, now: Instant) {
        self.apply(now, &Plan::default());
    }

    /// A probe has news.
    pub fn handle_report(&mut self, now: Instant, report: Report) {
        match report {
            Report::Connected(probe, result) => self.monitor.handle_connected(now, probe, result),
            Report::Data(probe, data) => self.monitor.handle_data(now, probe, &data),
            Report::Closed(probe, result) => self.monitor.handle_closed(now, probe, result),
        }
        self.drain(now);
    }

    /// A check is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.monitor.handle_timeout(now);
        self.drain(now);
    }

    /// When the next check is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.monitor.poll_timeout()
    }

    /// Brings the scheduler what the configuration has changed. Returns the services that are new in the scheduler.
    fn apply_services(&mut self, now: Instant, plan: &Plan) -> Vec<ServiceKey> {
        let before = std::mem::replace(&mut self.services, plan.services.clone());
        for PlannedService { key, .. } in &before {
            if plan.services.iter().any(|planned| planned.key == *key) {
                continue;
            }
            match self.scheduler.remove_service(now, key) {
                Ok(()) => info!("virtual service {key} removed"),
                Err(ServiceError::NotFound) => {}
                Err(error) => warn!("virtual service {key}: {error}"),
            }
        }
        let mut added = Vec::new();
        for planned in &plan.services {
            if before.contains(planned) {
                continue;
            }
            let PlannedService { key, config } = planned;
            let outcome = match self.scheduler.edit_service(key, *config) {
                Ok(()) => Ok("changed"),
                Err(ServiceError::NotFound) => {
                    added.push(*key);
                    self.scheduler.add_service(*key, *config).map(|_| "added")
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(what) => info!(
                    "virtual service {key} {what}, scheduler {}",
                    config.scheduler
                ),
                Err(error) => warn!("virtual service {key}: {error}"),
            }
        }
        added
    }

    /// A service that is new in the scheduler has no servers yet, even if the pool is the old one.
    fn adopt(
        &mut self,
        now: Instant,
        planned: &PlannedPool,
        old: Option<RunningPool>,
        is_new: bool,
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
            let id = self.watch(now, server, old.as_ref());
            let up = self.monitor.is_up(id).unwrap_or(true);
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
        let mut changes = pool.start();
        if let Some(old) = old.as_ref().filter(|_| !is_new) {
            changes.retain(|change| !stands_already(change, planned, old));
        }
        self.pools.push(RunningPool {
            planned: planned.clone(),
            pool,
            servers,
        });
        if let Some(old) = old {
            self.clean_after(now, at, &old);
        }
        self.apply_changes(now, at, changes);
    }

    /// A server that goes on with the same checks keeps their state.
    fn watch(
        &mut self,
        now: Instant,
        server: &PlannedServer,
        old: Option<&RunningPool>,
    ) -> ServerId {
        let known = old.and_then(|old| {
            let id = old.servers.get(&server.addr)?;
            let before = old
                .planned
                .servers
                .iter()
                .find(|other| other.addr == server.addr)?;
            (before.checks == server.checks).then_some(*id)
        });
        known.unwrap_or_else(|| {
            let checkers = server.checks.iter().map(|check| check.checker()).collect();
            self.monitor
                .add_server(now, lvs_health::ServerConfig { checkers })
        })
    }

    /// Takes out what the pool's predecessor had in the table and the pool has not.
    fn clean_after(&mut self, now: Instant, at: usize, old: &RunningPool) {
        let key = old.planned.service;
        let wanted: Vec<SocketAddr> = self.pools[at]
            .pool
            .servers()
            .filter(|(_, weight)| weight.is_some())
            .map(|(addr, _)| addr)
            .collect();
        let kept: Vec<ServerId> = self.pools[at].servers.values().copied().collect();
        for (addr, id) in &old.servers {
            if !kept.contains(id) {
                // Known until now, so it is there.
                let _ = self.monitor.remove_server(*id);
            }
            if !wanted.contains(addr) {
                self.remove(now, key, *addr);
            }
        }
        if let Some((addr, _)) = old.planned.sorry
            && old.pool.sorry_weight().is_some()
            && !wanted.contains(&addr)
        {
            self.remove(now, key, addr);
        }
    }

    fn retire(&mut self, now: Instant, mut gone: RunningPool) {
        for id in gone.servers.values() {
            let _ = self.monitor.remove_server(*id);
        }
        let key = gone.planned.service;
        if self.scheduler.service(&key).is_none() {
            return;
        }
        for change in gone.pool.stop() {
            match change {
                Change::Delete { server } => self.remove(now, key, server),
                Change::DeleteSorry => {
                    if let Some((addr, _)) = gone.planned.sorry {
                        self.remove(now, key, addr);
                    }
                }
                _ => {}
            }
        }
    }

    /// The drain rule: commands and events, to the last.
    fn drain(&mut self, now: Instant) {
        loop {
            while let Some(command) = self.monitor.poll_command() {
                self.probes.carry_out(command);
            }
            let Some(event) = self.monitor.poll_event() else {
                return;
            };
            self.handle_event(now, event);
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::CheckerUp { server, checker } => {
                if let Some(name) = self.name(server) {
                    debug!("check {checker} of {name} succeeded");
                }
            }
            Event::CheckerDown {
                server,
                checker,
                failure,
                attempts,
            } => {
                if let Some(name) = self.name(server) {
                    info!("check {checker} of {name} failed after {attempts} attempts: {failure}");
                }
            }
            Event::ServerUp { server } => self.observe(now, server, true, None),
            Event::ServerDown {
                server, failure, ..
            } => {
                self.observe(now, server, false, Some(failure.to_string()));
            }
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
        let key = self.pools[at].planned.service;
        match why {
            Some(why) => warn!("real server {addr} of {key} is down: {why}"),
            None => info!("real server {addr} of {key} is up"),
        }
        let pool = &mut self.pools[at].pool;
        let changes = if up {
            pool.handle_server_up(addr)
        } else {
            pool.handle_server_down(addr)
        };
        match changes {
            Ok(changes) => self.apply_changes(now, at, changes),
            Err(error) => warn!("real server {addr} of {key}: {error}"),
        }
    }

    fn apply_changes(&self, now: Instant, at: usize, changes: Vec<Change<SocketAddr>>) {
        let key = self.pools[at].planned.service;
        for change in changes {
            match change {
                Change::Add { server, weight } | Change::SetWeight { server, weight } => {
                    if let Some(config) = self.config_of(at, server) {
                        self.put(now, key, server, config, weight);
                    }
                }
                Change::Delete { server } => self.remove(now, key, server),
                Change::AddSorry { weight } | Change::SetSorryWeight { weight } => {
                    if let Some((addr, config)) = self.pools[at].planned.sorry {
                        info!("sorry server {addr} of {key} has weight {weight}");
                        self.put(now, key, addr, config, weight);
                    }
                }
                Change::DeleteSorry => {
                    if let Some((addr, _)) = self.pools[at].planned.sorry {
                        info!("sorry server {addr} of {key} is not needed");
                        self.remove(now, key, addr);
                    }
                }
                Change::QuorumGained { sum, threshold, .. } => {
                    info!("{key} has its quorum: weight {sum}, {threshold} needed");
                }
                Change::QuorumLost { sum, threshold, .. } => {
                    warn!("{key} lost its quorum: weight {sum}, {threshold} needed");
                }
                _ => {}
            }
        }
    }

    fn config_of(&self, at: usize, addr: SocketAddr) -> Option<ServerConfig> {
        let servers = &self.pools[at].planned.servers;
        servers
            .iter()
            .find(|server| server.addr == addr)
            .map(|server| server.config)
    }

    fn put(
        &self,
        now: Instant,
        key: ServiceKey,
        addr: SocketAddr,
        config: ServerConfig,
        weight: u32,
    ) {
        let config = ServerConfig {
            weight: Weight::new(weight).unwrap_or(Weight::MAX),
            ..config
        };
        let outcome = match self.scheduler.add_server(now, &key, addr, config) {
            Err(ServerError::Exists) => self.scheduler.edit_server(now, &key, addr, config),
            other => other.map(|_| ()),
        };
        match outcome {
            Ok(()) => debug!("real server {addr} of {key} has weight {weight}"),
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
        let key = self.pools[watched.pool].planned.service;
        Some(format!("{} of {key}", watched.addr))
    }
}

/// Whether a pool's predecessor has put the very same into the table: then it is left as it is, edited by hand or not.
fn stands_already(change: &Change<SocketAddr>, planned: &PlannedPool, old: &RunningPool) -> bool {
    let config = |pool: &PlannedPool, addr: SocketAddr| {
        let server = pool.servers.iter().find(|server| server.addr == addr)?;
        Some(server.config)
    };
    match change {
        Change::Add { server, weight } => {
            config(planned, *server) == config(&old.planned, *server)
                && old
                    .pool
                    .servers()
                    .any(|stood| stood == (*server, Some(*weight)))
        }
        Change::AddSorry { weight } => {
            planned.sorry == old.planned.sorry && old.pool.sorry_weight() == Some(*weight)
        }
        _ => false,
    }
}
