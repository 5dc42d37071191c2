//! Real servers that are being emptied by hand.
//!
//! What the operator wants stands beside what configuration and checks want: while a server is drained its weight is 0,
//! whatever they say, and the weight that they wish for is kept for later. A drain ends by `director undrain`, by another
//! weight by hand, or with its virtual service; a reload, or a server that goes down and comes back, does not end it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_sched::{
    Director, Drain, DrainEvent, RealServer, ServerConfig, ServiceKey, VirtualService, Weight,
};
use tracing::info;

use crate::control::drain::{DrainAction, DrainInfo, DrainQuestion, DrainState};
use crate::notify::event::{self, DrainChange};

/// A server's place in the scheduler's table.
pub type Place = (ServiceKey, SocketAddr);

/// The drains of a running director.
#[derive(Debug)]
pub struct Drains {
    scheduler: Arc<Director>,
    entries: BTreeMap<Place, Entry>,
    look_again: Option<Instant>,
    /// What nobody has been told of.
    news: Vec<event::DrainEvent>,
}

#[derive(Debug)]
struct Entry {
    drain: Drain,
    state: DrainState,
    restores: Weight,
}

impl Drains {
    /// None yet.
    pub fn new(scheduler: Arc<Director>) -> Self {
        Self {
            scheduler,
            entries: BTreeMap::new(),
            look_again: None,
            news: Vec::new(),
        }
    }

    /// Does what is asked for with every server that is meant, and tells how these stand; without an action how all stand
    /// that are drained.
    ///
    /// # Errors
    ///
    /// Why nothing has changed, in one sentence.
    pub fn answer(
        &mut self,
        now: Instant,
        question: &DrainQuestion,
    ) -> Result<Vec<DrainInfo>, String> {
        self.handle_timeout(now);
        let Some(action) = question.action else {
            let drained = self.entries.keys().copied();
            let places: Vec<Place> = drained.filter(|place| is_meant(question, place)).collect();
            return Ok(self.infos(now, &places));
        };
        let places = self.places(question)?;
        match action {
            DrainAction::Drain { deadline } => {
                let deadline =
                    match deadline.map(|seconds| now.checked_add(Duration::from_secs(seconds))) {
                        Some(None) => return Err("the deadline is too far".to_owned()),
                        deadline => deadline.flatten(),
                    };
                for place in &places {
                    self.begin(*place, deadline);
                }
                self.handle_timeout(now);
            }
            DrainAction::Undrain => {
                if !places.iter().any(|place| self.entries.contains_key(place)) {
                    return Err("it is not being drained".to_owned());
                }
                for place in &places {
                    if let Some(entry) = self.entries.remove(place) {
                        self.set_weight(*place, entry.restores, DrainChange::Ended);
                    }
                }
            }
            DrainAction::Weight { weight } => {
                let weight = Weight::new(weight).map_err(|error| error.to_string())?;
                for place in &places {
                    self.entries.remove(place);
                    self.set_weight(*place, weight, DrainChange::Weight);
                }
            }
        }
        Ok(self.infos(now, &places))
    }

    /// What has happened since it was asked last, in order.
    pub fn take_news(&mut self) -> Vec<event::DrainEvent> {
        std::mem::take(&mut self.news)
    }

    /// How a server is to be put into the table that configuration and checks want to stand there like this.
    pub fn adjusted(&mut self, place: Place, wanted: ServerConfig) -> ServerConfig {
        match self.entries.get_mut(&place) {
            Some(entry) => {
                entry.restores = wanted.weight;
                ServerConfig {
                    weight: Weight::QUIESCED,
                    ..wanted
                }
            }
            None => wanted,
        }
    }

    /// Looks who is left, and forces the end where the deadline has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Self {
            scheduler, news, ..
        } = self;
        self.entries.retain(|place, entry| {
            let (key, addr) = place;
            let Some(service) = scheduler.service(key) else {
                news.push(told(*place, DrainChange::Ended, 0));
                return false;
            };
            if let Some(server) = service.server(*addr)
                && !server.is_quiesced()
            {
                info!("by hand: real server {addr} of {key} got a weight and is not drained any more");
                news.push(told(*place, DrainChange::Ended, server.weight().get()));
                return false;
            }
            entry.drain.handle_timeout(now);
            match entry.drain.poll_event() {
                Some(DrainEvent::Done) => {
                    info!("real server {addr} of {key} is drained: nobody is left");
                    entry.state = DrainState::Done;
                    news.push(told(*place, DrainChange::Done, 0));
                }
                Some(DrainEvent::Forced(left)) => {
                    info!(
                        "real server {addr} of {key}: its time is over, {} active and {} inactive connections end",
                        left.active, left.inactive
                    );
                    entry.state = DrainState::Forced;
                    news.push(told(*place, DrainChange::Forced, 0));
                }
                _ => {}
            }
            true
        });
        let is_running = |entry: &Entry| entry.state == DrainState::Draining;
        let is_running = self.entries.values().any(is_running);
        self.look_again = is_running.then(|| now + LOOK_AGAIN);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let entries = self.entries.values();
        let deadlines = entries.filter_map(|entry| entry.drain.poll_timeout());
        deadlines.chain(self.look_again).min()
    }

    /// A drain that is there already gets another deadline.
    fn begin(&mut self, place: Place, deadline: Option<Instant>) {
        let (key, addr) = place;
        let Some((service, server)) = self.find(place) else {
            return;
        };
        let restores = match self.entries.remove(&place) {
            Some(entry) => entry.restores,
            None => server.weight(),
        };
        if let Ok(drain) = service.drain(addr, deadline) {
            info!("by hand: real server {addr} of {key} is being drained");
            let entry = Entry {
                drain,
                state: DrainState::Draining,
                restores,
            };
            self.entries.insert(place, entry);
            self.news.push(told(place, DrainChange::Begun, 0));
        }
    }

    fn set_weight(&mut self, place: Place, weight: Weight, change: DrainChange) {
        let (key, addr) = place;
        if let Some((service, _)) = self.find(place)
            && service.set_weight(addr, weight).is_ok()
        {
            info!("by hand: real server {addr} of {key} has weight {weight}");
            self.news.push(told(place, change, weight.get()));
        }
    }

    fn find(&self, (key, addr): Place) -> Option<(Arc<VirtualService>, Arc<RealServer>)> {
        let service = self.scheduler.service(&key)?;
        let server = service.server(addr)?;
        Some((service, server))
    }

    /// The servers that a question means: those in the table, and drained ones that a check has taken out of it.
    fn places(&self, question: &DrainQuestion) -> Result<Vec<Place>, String> {
        let services = self.scheduler.services();
        let present = services.iter().flat_map(|service| {
            let servers = service.servers();
            let addrs: Vec<SocketAddr> = servers.iter().map(|server| server.addr()).collect();
            service
                .key()
                .into_iter()
                .flat_map(move |key| addrs.clone().into_iter().map(move |addr| (key, addr)))
        });
        let mut places: Vec<Place> = present
            .chain(self.entries.keys().copied())
            .filter(|place| is_meant(question, place))
            .collect();
        places.sort_unstable();
        places.dedup();
        if places.is_empty() {
            return Err("no virtual service has such a real server".to_owned());
        }
        Ok(places)
    }

    fn infos(&self, now: Instant, places: &[Place]) -> Vec<DrainInfo> {
        places
            .iter()
            .filter_map(|place| self.info(now, *place))
            .collect()
    }

    fn info(&self, now: Instant, place: Place) -> Option<DrainInfo> {
        let (key, addr) = place;
        let entry = self.entries.get(&place);
        let server = match (entry, self.find(place)) {
            (Some(entry), _) => Arc::clone(entry.drain.server()),
            (None, Some((_, server))) => server,
            (None, None) => return None,
        };
        let weight = self
            .find(place)
            .map_or(Weight::QUIESCED, |(_, server)| server.weight());
        let deadline = entry.and_then(|entry| entry.drain.poll_timeout());
        Some(DrainInfo {
            service: key.to_string(),
            server: addr.to_string(),
            state: entry.map_or(DrainState::Serving, |entry| entry.state),
            weight: weight.get(),
            restores: entry.map_or(weight, |entry| entry.restores).get(),
            active: server.active(),
            inactive: server.inactive(),
            persistent: server.persistent(),
            deadline: deadline.map(|at| at.saturating_duration_since(now).as_secs()),
        })
    }
}

fn told((key, server): Place, change: DrainChange, weight: u32) -> event::DrainEvent {
    event::DrainEvent {
        service: key.to_string(),
        server,
        change,
        weight,
    }
}

fn is_meant(question: &DrainQuestion, (key, addr): &Place) -> bool {
    let is_server = |ip: IpAddr| ip == addr.ip();
    question.server.is_none_or(is_server)
        && question.port.is_none_or(|port| port == addr.port())
        && question
            .service
            .as_ref()
            .is_none_or(|name| is_name_of(name, key))
}

/// Whether a service goes by this name: that of listings, its address and port, or its mark.
fn is_name_of(name: &str, key: &ServiceKey) -> bool {
    name == key.to_string()
        || match key {
            ServiceKey::Address { vip, vport, .. } => {
                name == SocketAddr::new(*vip, *vport).to_string()
            }
            ServiceKey::Mark { mark, .. } => name == mark.to_string(),
        }
}

/// How often somebody looks who is left.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use lvs_sched::{
        Direction, DirectorConfig, Packet, Protocol, ServiceConfig, TcpFlags, Verdict, Worker,
    };

    use super::*;

    struct Stage {
        drains: Drains,
        scheduler: Arc<Director>,
        worker: Worker,
        now: Instant,
    }

    const SERVICES: [&str; 2] = ["192.0.2.1:80", "192.0.2.1:443"];

    impl Stage {
        /// Two services with the same two servers, of weight 3.
        fn new() -> Self {
            let scheduler = Arc::new(Director::new(DirectorConfig::new([1, 2, 3, 4])));
            let now = Instant::now();
            for service in SERVICES {
                let key = key(service);
                scheduler
                    .add_service(key, ServiceConfig::default())
                    .unwrap();
                for server in ["10.0.0.1:80", "10.0.0.2:80"] {
                    let config = config(3);
                    scheduler
                        .add_server(now, &key, server.parse().unwrap(), config)
                        .unwrap();
                }
            }
            Self {
                drains: Drains::new(Arc::clone(&scheduler)),
                worker: scheduler.worker(),
                scheduler,
                now,
            }
        }

        fn ask(
            &mut self,
            action: Option<DrainAction>,
            server: &str,
        ) -> Result<Vec<DrainInfo>, String> {
            let addr: SocketAddr = server.parse().unwrap();
            let question = DrainQuestion {
                action,
                server: Some(addr.ip()),
                port: Some(addr.port()),
                service: None,
            };
            self.drains.answer(self.now, &question)
        }

        fn drain(&mut self, deadline: Option<u64>) -> Vec<DrainInfo> {
            let action = DrainAction::Drain { deadline };
            self.ask(Some(action), "10.0.0.1:80").unwrap()
        }

        fn weights(&self) -> Vec<u32> {
            let weight = |service: &&str| {
                let service = self.scheduler.service(&key(service)).unwrap();
                let server = service.server("10.0.0.1:80".parse().unwrap());
                server.unwrap().weight().get()
            };
            SERVICES.iter().map(weight).collect()
        }

        /// A client opens a connection, or goes on with it; where that leads.
        fn packet(&mut self, port: u16, flags: TcpFlags) -> Verdict {
            let packet = Packet {
                protocol: Protocol::Tcp,
                source: ([198, 51, 100, 7], port).into(),
                destination: "192.0.2.1:80".parse().unwrap(),
                direction: Direction::Inbound,
                tcp_flags: flags,
                sctp: None,
                length: 60,
                mark: 0,
            };
            self.worker.handle_packet(self.now, &packet)
        }
    }

    fn config(weight: u32) -> ServerConfig {
        ServerConfig {
            weight: Weight::new(weight).unwrap(),
            ..ServerConfig::default()
        }
    }

    fn key(service: &str) -> ServiceKey {
        let addr: SocketAddr = service.parse().unwrap();
        ServiceKey::Address {
            protocol: Protocol::Tcp,
            vip: addr.ip(),
            vport: addr.port(),
        }
    }

    #[test]
    fn every_service_of_a_server_is_drained_and_comes_back() {
        let mut stage = Stage::new();
        let drained = stage.drain(None);
        assert_eq!(stage.weights(), [0, 0]);
        assert_eq!(drained.len(), 2);
        assert!(
            drained.iter().all(|info| info.state == DrainState::Done),
            "nobody was there"
        );
        assert!(
            drained
                .iter()
                .all(|info| info.restores == 3 && info.deadline.is_none())
        );
        assert_eq!(stage.drains.poll_timeout(), None, "nothing more to see");
        let restored = stage
            .ask(Some(DrainAction::Undrain), "10.0.0.1:80")
            .unwrap();
        assert!(
            restored
                .iter()
                .all(|info| info.state == DrainState::Serving && info.weight == 3)
        );
        assert_eq!(stage.weights(), [3, 3]);
        assert!(stage.ask(None, "10.0.0.1:80").unwrap().is_empty());
        assert!(
            stage
                .ask(Some(DrainAction::Undrain), "10.0.0.1:80")
                .is_err()
        );
    }

    #[test]
    fn a_service_may_be_named() {
        for name in ["192.0.2.1:443", "TCP 192.0.2.1:443"] {
            let mut stage = Stage::new();
            let question = DrainQuestion {
                action: Some(DrainAction::Drain { deadline: None }),
                server: Some("10.0.0.1".parse().unwrap()),
                port: None,
                service: Some(name.into()),
            };
            let drained = stage.drains.answer(stage.now, &question).unwrap();
            assert_eq!((drained.len(), stage.weights()), (1, vec![3, 0]), "{name}");
        }
        let mut stage = Stage::new();
        assert!(
            stage
                .ask(Some(DrainAction::Undrain), "10.0.0.9:80")
                .is_err()
        );
    }

    #[test]
    fn who_is_left_is_told_and_ended_at_the_deadline() {
        let mut stage = Stage::new();
        // Both servers get one.
        for port in [4000, 4001] {
            assert!(matches!(
                stage.packet(port, TcpFlags::SYN),
                Verdict::Forward { .. }
            ));
        }
        let drained = stage.drain(Some(30));
        let left: Vec<_> = (drained.iter())
            .map(|info| (info.state, info.active + info.inactive, info.deadline))
            .collect();
        // Ordered by service: port 80 comes first.
        assert_eq!(left[0], (DrainState::Draining, 1, Some(30)));
        assert_eq!(left[1].0, DrainState::Done);
        assert_eq!(stage.drains.poll_timeout(), Some(stage.now + LOOK_AGAIN));
        stage.now += Duration::from_secs(30);
        stage.drains.handle_timeout(stage.now);
        let listed = stage.ask(None, "10.0.0.1:80").unwrap();
        assert_eq!(listed[0].state, DrainState::Forced);
        assert_eq!(stage.drains.poll_timeout(), None);
        // One of the two is not known any more.
        let known = [4000, 4001].map(|port| stage.packet(port, TcpFlags::ACK) != Verdict::NotOurs);
        assert_eq!(known.iter().filter(|known| **known).count(), 1);
    }

    #[test]
    fn the_last_connection_s_end_ends_the_drain() {
        let mut stage = Stage::new();
        for port in [4000, 4001] {
            let _ = stage.packet(port, TcpFlags::SYN);
        }
        assert_eq!(stage.drain(None)[0].state, DrainState::Draining);
        // SYN_RECV ends after 60 s.
        stage.now += Duration::from_secs(61);
        stage.worker.handle_timeout(stage.now);
        assert_eq!(
            stage.ask(None, "10.0.0.1:80").unwrap()[0].state,
            DrainState::Done
        );
    }

    #[test]
    fn configuration_and_checks_do_not_end_a_drain() {
        let mut stage = Stage::new();
        stage.drain(None);
        let (place, addr) = (
            (key(SERVICES[0]), "10.0.0.1:80".parse().unwrap()),
            "10.0.0.1:80",
        );
        // It goes down and comes back, with another weight.
        stage
            .scheduler
            .remove_server(stage.now, &place.0, place.1)
            .unwrap();
        assert_eq!(stage.ask(None, addr).unwrap().len(), 2, "still wanted");
        let adjusted = stage.drains.adjusted(place, config(7));
        assert_eq!(adjusted.weight, Weight::QUIESCED);
        stage
            .scheduler
            .add_server(stage.now, &place.0, place.1, adjusted)
            .unwrap();
        stage.drains.handle_timeout(stage.now);
        stage.ask(Some(DrainAction::Undrain), addr).unwrap();
        assert_eq!(stage.weights(), [7, 3]);
        assert_eq!(stage.drains.adjusted(place, config(5)), config(5));
    }

    #[test]
    fn a_weight_by_hand_ends_a_drain() {
        let mut stage = Stage::new();
        stage.drain(None);
        let action = DrainAction::Weight { weight: 9 };
        stage.ask(Some(action), "10.0.0.1:80").unwrap();
        assert_eq!(stage.weights(), [9, 9]);
        stage.drain(None);
        // As `ipvsadm -e` does it.
        let service = stage.scheduler.service(&key(SERVICES[0])).unwrap();
        service
            .set_weight("10.0.0.1:80".parse().unwrap(), Weight::new(2).unwrap())
            .unwrap();
        let listed = stage.ask(None, "10.0.0.1:80").unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].service, "TCP 192.0.2.1:443");
        let action = DrainAction::Weight { weight: u32::MAX };
        assert!(stage.ask(Some(action), "10.0.0.1:80").is_err());
    }
}
