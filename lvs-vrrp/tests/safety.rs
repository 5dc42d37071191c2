//! Thousands of lives of three to five routers on one LAN: loss, delay, reordering, partitions, crashes, stops, reloads, processes that
//! are not run for a while, links that flap. Whatever happened, after the network heals one router is Active within three intervals
//! and a skew time, and two are Active no longer than one advertisement takes.
//!
//! A seed is a whole life. `SAFETY_SEEDS=10000` plays more of them, `SAFETY_SEED=77` one, and tells what happens in it.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[path = "lan/mod.rs"]
mod lan;

use lan::Host;
use lvs_vrrp::{
    Announcements, Authentication, Config, Family, Interval, LateActive, Member, Preemption,
    Priority, Reach, Setup, State, Version, VirtualAddress, Vrid,
};
use sim::{Conditions, Lan, Network, Random};
use std::net::IpAddr;
use std::time::{Duration, Instant};

#[test]
fn after_the_network_heals_exactly_one_router_is_active() {
    play(Kind::Everything);
}

#[test]
fn without_partitions_two_routers_are_never_active_for_longer_than_an_advertisement() {
    play(Kind::NoPartition);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// All that can happen.
    Everything,
    /// Nothing is lost and everybody hears everybody; processes start, stop, crash and reload.
    NoPartition,
}

fn play(kind: Kind) {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap())
    };
    let (first, count) = match number("SAFETY_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("SAFETY_SEEDS").unwrap_or(500)),
    };
    let mut failed = Vec::new();
    let mut transitions = 0;
    for seed in first..first + count {
        match Life::new(seed, kind).live(count == 1) {
            Ok(changes) => transitions += changes,
            Err(error) => failed.push(format!("seed {seed} ({kind:?}): {error}")),
        }
    }
    println!(
        "{kind:?}: seeds {first} to {}, {transitions} changes of state",
        first + count - 1
    );
    assert!(
        failed.is_empty(),
        "{} of {count}:\n{}",
        failed.len(),
        failed[..failed.len().min(20)].join("\n")
    );
}

/// One life of a LAN.
struct Life {
    kind: Kind,
    random: Random,
    network: Network,
    lan: Lan,
    hosts: Vec<Host>,
    setups: Vec<Setup>,
    conditions: Conditions,
    /// The longest of the intervals that anybody may have learned.
    interval: Duration,
    skew: Duration,
    /// Somebody was not being run when the network healed, and listens for an interval first.
    froze: bool,
    watch: Watch,
    tells: bool,
}

/// Looks at how many are Active.
#[derive(Default)]
struct Watch {
    two_since: Option<Instant>,
    longest: Duration,
    changes: usize,
    last: Vec<Option<State>>,
    crooked: Option<String>,
}

impl Watch {
    /// For how long two have been Active by now.
    fn present(&self, now: Instant) -> Duration {
        self.two_since.map_or(Duration::ZERO, |since| now - since)
    }

    fn look(&mut self, now: Instant, hosts: &[Host]) {
        let states: Vec<_> = hosts.iter().map(|host| host.state("VI_1")).collect();
        let active = states
            .iter()
            .filter(|state| **state == Some(State::Active))
            .count();
        if active >= 2 {
            let since = *self.two_since.get_or_insert(now);
            self.longest = self.longest.max(now - since);
        } else if let Some(since) = self.two_since.take() {
            self.longest = self.longest.max(now - since);
        }
        self.changes += states
            .iter()
            .zip(&self.last)
            .filter(|(now, then)| now != then)
            .count();
        self.last = states;
        for host in hosts {
            let active = host.state("VI_1") == Some(State::Active);
            if host.router.is_some() && host.set.is_empty() == active {
                self.crooked = Some(format!("{} has the wrong addresses", host.name));
            }
        }
    }
}

impl Life {
    fn new(seed: u64, kind: Kind) -> Self {
        let mut random = Random::new(seed);
        let mut network = Network::new(random.bits());
        let millis = |number| Duration::from_millis(number);
        let conditions = Conditions {
            delay: Duration::from_micros(random.below(2000)),
            jitter: Duration::from_micros(random.below(5000)),
            reordering: random.chance(500),
            ..Conditions::default()
        };
        let lan = network.add_lan(conditions);
        let count = 3 + random.below(3);
        let names = ['a', 'b', 'c', 'd', 'e'];
        let hosts: Vec<_> = names[..usize::try_from(count).unwrap()]
            .iter()
            .map(|name| Host::new(&mut network, *name, &[lan]))
            .collect();
        let setups = setups(&mut random, &hosts);
        let mut life = Self {
            kind,
            random,
            network,
            lan,
            hosts,
            setups,
            conditions,
            interval: millis(0),
            skew: millis(0),
            froze: false,
            watch: Watch::default(),
            tells: false,
        };
        life.measure();
        life
    }

    /// Everything that anybody has been configured with counts.
    fn measure(&mut self) {
        for setup in &self.setups {
            let config = &setup.virtual_routers[0].config;
            self.interval = self.interval.max(config.interval.duration());
        }
        self.skew = match self.setups[0].virtual_routers[0].config.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.interval,
        };
    }

    fn live(mut self, tells: bool) -> Result<usize, String> {
        self.tells = tells;
        for setup in &self.setups {
            self.tell(&format!("{:?}", setup.virtual_routers[0].config));
        }
        for at in 0..self.hosts.len() {
            self.start(at);
        }
        // The first minute: whatever may come.
        let steps = 10 + self.random.below(30);
        for _ in 0..steps {
            let pause = Duration::from_millis(1) + self.random.up_to(self.interval * 4);
            self.sleep(pause);
            self.disturb();
        }
        if self.kind == Kind::NoPartition {
            self.check_pairs()?;
        }
        self.heal();
        let mut bound = self.interval * 3 + self.skew;
        if self.froze {
            bound += self.interval + self.skew;
        }
        let way = self.conditions.delay + self.conditions.jitter;
        self.sleep(bound + way * 2);
        let active = self.active();
        self.tell(&format!("healed: {active:?}"));
        // A better router may be taking over at this very moment; how long that takes is judged below.
        if active.is_empty() || self.watch.present(self.network.now()) > self.limit() {
            return Err(format!(
                "{active:?} are Active {bound:?} after the network healed"
            ));
        }
        // From here on nothing happens any more.
        self.watch.longest = Duration::ZERO;
        self.sleep(self.interval * 15);
        self.check_pairs()?;
        // Delays of preemption are over too: nothing moves any more.
        let changes = self.watch.changes;
        self.sleep(self.interval * 10);
        if self.watch.changes != changes {
            let restless = self.watch.changes - changes;
            return Err(format!(
                "{restless} changes of state although nothing happens"
            ));
        }
        let active = self.active();
        if active.is_empty() || self.watch.present(self.network.now()) > self.limit() {
            return Err(format!("{active:?} are Active at the end"));
        }
        match self.watch.crooked.take() {
            Some(crooked) => Err(crooked),
            None => Ok(self.watch.changes),
        }
    }

    /// One advertisement, there and back. With the authentication header all routers share one counter: who begins anew has to
    /// hear each of the others before all of them listen.
    fn limit(&self) -> Duration {
        let way = self.conditions.delay + self.conditions.jitter;
        let config = &self.setups[0].virtual_routers[0].config;
        let adverts = match config.authentication {
            Authentication::Header(_) => self.hosts.len(),
            _ => 1,
        };
        self.interval * u32::try_from(adverts).unwrap() + way * 2
    }

    fn check_pairs(&self) -> Result<(), String> {
        let (longest, limit) = (self.watch.longest, self.limit());
        if longest > limit {
            return Err(format!(
                "two were Active for {longest:?}, more than {limit:?}"
            ));
        }
        Ok(())
    }

    fn active(&self) -> Vec<char> {
        let active = self
            .hosts
            .iter()
            .filter(|host| host.state("VI_1") == Some(State::Active));
        active.map(|host| host.name).collect()
    }

    fn sleep(&mut self, duration: Duration) {
        let watch = &mut self.watch;
        self.network
            .run_watched(&mut self.hosts, duration, |now, hosts| {
                watch.look(now, hosts);
            });
        self.watch.look(self.network.now(), &self.hosts);
        if self.tells {
            for host in &mut self.hosts {
                for logged in host.log.drain(..) {
                    let at = logged.at - self.network.at(Duration::ZERO);
                    println!("{at:>12.3?} {} {}", host.name, logged.change);
                }
            }
        }
    }

    fn tell(&self, what: &str) {
        if self.tells {
            println!("{:>12.3?} -- {what}", self.network.elapsed());
        }
    }

    fn start(&mut self, at: usize) {
        let setup = self.setups[at].clone();
        let now = self.network.now();
        self.hosts[at].start(now, setup);
    }

    /// Something happens.
    fn disturb(&mut self) {
        let now = self.network.now();
        let at = usize::try_from(self.random.below(self.hosts.len() as u64)).unwrap();
        let runs = self.hosts[at].router.is_some();
        let name = self.hosts[at].name;
        let kinds = match self.kind {
            Kind::Everything => 9,
            Kind::NoPartition => 4,
        };
        match self.random.below(kinds) {
            0 if runs => {
                self.tell(&format!("{name} crashes"));
                self.hosts[at].crash();
            }
            1 if runs => {
                self.tell(&format!("{name} stops"));
                self.hosts[at].stop(now);
            }
            0..=2 => {
                if !runs {
                    self.tell(&format!("{name} starts"));
                    self.start(at);
                }
            }
            3 => {
                let config = &mut self.setups[at].virtual_routers[0].config;
                if !config.priority.is_owner() {
                    let priority = 1 + self.random.below(254);
                    config.priority = Priority::new(u8::try_from(priority).unwrap()).unwrap();
                }
                config.preemption = preemption(&mut self.random, self.interval);
                if config.version == Version::V3 && self.random.chance(300) {
                    config.interval = interval(&mut self.random);
                }
                if self.random.chance(300) {
                    config.addresses.rotate_left(1);
                }
                self.measure();
                let config = &self.setups[at].virtual_routers[0].config;
                self.tell(&format!(
                    "{name} reloads: priority {}, {:?}, {:?}",
                    config.priority,
                    config.preemption,
                    config.interval.duration()
                ));
                let setup = self.setups[at].clone();
                self.hosts[at].reload(now, setup);
            }
            4 => {
                let side = u32::from(self.random.chance(500));
                self.tell(&format!("{name} is on side {side}"));
                let port = self.hosts[at].interfaces[0].port;
                self.network.set_side(port, side);
            }
            5 => {
                self.conditions.loss = u32::try_from(self.random.below(400)).unwrap();
                self.conditions.duplication = u32::try_from(self.random.below(200)).unwrap();
                self.tell(&format!("{} in a thousand are lost", self.conditions.loss));
                self.network.set_conditions(self.lan, self.conditions);
            }
            6 => {
                let pause = self.random.up_to(self.interval * 8);
                self.tell(&format!("{name} is not run for {pause:?}"));
                self.hosts[at].freeze(now + pause);
            }
            7 => {
                let up = self.random.chance(500);
                self.tell(&format!("{name} link {up}"));
                self.hosts[at].set_link(now, &mut self.network, "e0", up);
            }
            _ => {
                self.tell("the LAN is whole");
                self.network.heal(self.lan);
            }
        }
    }

    /// The LAN is whole again, links are up, processes run.
    fn heal(&mut self) {
        self.tell("heals");
        self.conditions.loss = 0;
        self.conditions.duplication = 0;
        self.network.set_conditions(self.lan, self.conditions);
        self.network.heal(self.lan);
        let now = self.network.now();
        self.froze = self.hosts.iter().any(Host::is_frozen);
        for at in 0..self.hosts.len() {
            self.hosts[at].freeze(now);
            if self.hosts[at].interfaces.iter().any(|each| !each.up) {
                self.hosts[at].set_link(now, &mut self.network, "e0", true);
            }
        }
        let some = self.hosts.iter().any(|host| host.router.is_some());
        for at in 0..self.hosts.len() {
            let runs = self.hosts[at].router.is_some();
            if !runs && (!some || self.random.chance(500)) {
                self.start(at);
            }
        }
    }
}

/// Routers that can understand each other, and are otherwise as different as can be.
fn setups(random: &mut Random, hosts: &[Host]) -> Vec<Setup> {
    let family = *random.pick(&[Family::V4, Family::V4, Family::V6]);
    let version = match family {
        Family::V4 => *random.pick(&[Version::V2, Version::V3]),
        Family::V6 => Version::V3,
    };
    let seconds = Interval::from_centis(100 * (1 + u16::try_from(random.below(2)).unwrap()));
    let authentication = match (version, random.below(3)) {
        (Version::V2, 1) => Authentication::Password(*b"s3cret\0\0"),
        (Version::V2, 2) => Authentication::Header(*b"k3yAH\0\0\0"),
        _ => Authentication::None,
    };
    let unicast = family == Family::V4 && random.chance(200);
    let one_interval = random.chance(500);
    let shared = interval(random);
    let vips: &[&str] = match family {
        Family::V4 => &["192.0.2.100", "192.0.2.101"],
        Family::V6 => &["fe80::100", "2001:db8::100"],
    };
    let owner = random.chance(200);
    let own = |host: &Host| host.interfaces[0].addresses[0];
    hosts
        .iter()
        .enumerate()
        .map(|(at, host)| {
            let mut config = Config::new(Vrid::new(51).unwrap(), family, "e0");
            config.version = version;
            config.interval = match version {
                Version::V2 => seconds.unwrap(),
                Version::V3 if one_interval => shared,
                Version::V3 => interval(random),
            };
            config.authentication = authentication;
            config.addresses = vips
                .iter()
                .map(|vip| VirtualAddress {
                    address: vip.parse().unwrap(),
                    interface: "e0".into(),
                })
                .collect();
            // Few of them, so that some are equal.
            let priority = *random.pick(&[1, 50, 100, 100, 150, 200, 254]);
            config.priority = Priority::new(priority).unwrap();
            if owner && at == 0 {
                config.priority = Priority::OWNER;
            }
            config.preemption = preemption(random, config.interval.duration());
            config.answer_higher = random.chance(500);
            config.answer_lower = random.chance(800);
            config.announcements = Announcements {
                after_rival: random.chance(500),
                ..Announcements::default()
            };
            if random.chance(300) {
                config.late = LateActive::YieldTo(Priority::new(254).unwrap());
            }
            if unicast {
                let others = hosts.iter().filter(|other| other.name != host.name);
                config.reach = Reach::Unicast {
                    peers: others.map(|other| IpAddr::into(own(other))).collect(),
                    ttl: None,
                    check_source: random.chance(500),
                };
            }
            Setup {
                virtual_routers: vec![Member::new("VI_1", config)],
                ..Setup::default()
            }
        })
        .collect()
}

fn interval(random: &mut Random) -> Interval {
    Interval::from_centis(*random.pick(&[1, 5, 10, 20, 50, 100, 200])).unwrap()
}

fn preemption(random: &mut Random, interval: Duration) -> Preemption {
    match random.below(4) {
        0 => Preemption::Off,
        1 => Preemption::After(random.up_to(interval * 5)),
        _ => Preemption::Immediate,
    }
}
