//! Schedulers with a memory or a table against the rules as the specification words them, without any of the
//! means by which the schedulers save work, over random lives of a service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::hash::{fold, h32, sip13};
use super::tests::{Pool, addr, weighing};
use crate::real_server::Class;
use crate::{RealServer, Request, SchedulerFlags, SchedulerKind, ServerConfig};

type Server = Arc<RealServer>;

/// A rule, told of everything that the kernel tells a scheduler of.
trait Plain {
    fn added(&mut self, list: &[Server]);
    fn removed(&mut self, list: &[Server], index: usize);
    fn changed(&mut self, list: &[Server]);
    fn pick(&mut self, list: &[Server], request: &Request) -> Option<Server>;
}

fn weight(server: &RealServer) -> u32 {
    server.effective_weight().get()
}

fn is_usable(server: &RealServer) -> bool {
    !server.is_overloaded() && weight(server) > 0
}

/// Whether `x / wx > y / wy`.
fn is_more((x, wx): (u64, u32), (y, wy): (u64, u32)) -> bool {
    u128::from(x) * u128::from(wy) > u128::from(y) * u128::from(wx)
}

fn load(server: &RealServer) -> (u64, u32) {
    let cost = u64::from(server.active()) * 256 + u64::from(server.inactive());
    (cost, weight(server))
}

#[derive(Default)]
struct RoundRobin {
    position: Option<usize>,
}

impl Plain for RoundRobin {
    fn added(&mut self, _: &[Server]) {
        self.position = self.position.map(|position| position + 1);
    }

    fn removed(&mut self, _: &[Server], index: usize) {
        match self.position {
            Some(position) if index <= position => self.position = position.checked_sub(1),
            _ => {}
        }
    }

    fn changed(&mut self, _: &[Server]) {}

    fn pick(&mut self, list: &[Server], _: &Request) -> Option<Server> {
        let start = self.position.map_or(0, |position| position + 1);
        for index in (start..list.len()).chain(0..start) {
            if is_usable(&list[index]) {
                self.position = Some(index);
                return Some(Arc::clone(&list[index]));
            }
        }
        None
    }
}

#[derive(Default)]
struct Weighted {
    position: Option<usize>,
    step: u32,
    top: u32,
    level: u32,
}

impl Weighted {
    fn restart(&mut self, list: &[Server]) {
        let weights: Vec<_> = list.iter().map(|s| weight(s)).filter(|w| *w > 0).collect();
        let largest = weights.iter().copied().max().unwrap_or(0);
        let divides = |divisor: &u32| weights.iter().all(|weight| weight % divisor == 0);
        self.step = (1..=largest).rev().find(divides).unwrap_or(1);
        self.top = largest.saturating_sub(self.step - 1);
        self.position = None;
        if self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }
}

impl Plain for Weighted {
    fn added(&mut self, list: &[Server]) {
        self.restart(list);
    }

    fn removed(&mut self, list: &[Server], _: usize) {
        self.restart(list);
    }

    fn changed(&mut self, list: &[Server]) {
        self.restart(list);
    }

    fn pick(&mut self, list: &[Server], _: &Request) -> Option<Server> {
        if self.top == 0 {
            return None;
        }
        let start = self.position;
        let began_lowest = start.is_some() && self.level <= self.step;
        let mut resets = 0;
        let mut next = start.map_or(0, |position| position + 1);
        loop {
            if next == list.len() {
                next = 0;
                self.position = None;
                if self.level > self.step {
                    self.level -= self.step;
                    continue;
                }
                self.level = self.top;
                resets += 1;
                if !began_lowest {
                    return None;
                }
                assert_eq!(resets, 1, "the walk ends where it began");
            }
            let server = &list[next];
            if !server.is_overloaded() && weight(server) >= self.level {
                self.position = Some(next);
                return Some(Arc::clone(server));
            }
            if resets == 1 && self.level <= self.step && Some(next) == start {
                self.position = start;
                return None;
            }
            next += 1;
        }
    }
}

/// `dh` and `sh`: 256 buckets.
#[derive(Default)]
struct Buckets {
    by_source: bool,
    table: Vec<Server>,
}

impl Buckets {
    fn fill(&mut self, list: &[Server]) {
        self.table.clear();
        while !list.is_empty() && self.table.len() < 256 {
            for server in list {
                let turns = if self.by_source {
                    weight(server).max(1)
                } else {
                    1
                };
                for _ in 0..turns.min(256) {
                    self.table.push(Arc::clone(server));
                }
            }
        }
        self.table.truncate(256);
    }
}

impl Plain for Buckets {
    fn added(&mut self, list: &[Server]) {
        self.fill(list);
    }

    fn removed(&mut self, list: &[Server], _: usize) {
        self.fill(list);
    }

    fn changed(&mut self, list: &[Server]) {
        if self.by_source {
            self.fill(list);
        }
    }

    fn pick(&mut self, _: &[Server], request: &Request) -> Option<Server> {
        let found = |bucket: usize| self.table.get(bucket).filter(|server| is_usable(server));
        if !self.by_source {
            return found(h32(fold(request.destination.ip()), 8)).cloned();
        }
        let port = if request.flags.contains(SchedulerFlags::PORT) {
            u32::from(request.client.port())
        } else {
            0
        };
        let b = h32(fold(request.client.ip()).wrapping_add(port), 8);
        let tries = if request.flags.contains(SchedulerFlags::FALLBACK) {
            256
        } else {
            0
        };
        let again = || (0..tries).find_map(|o| found((b + (o + b) % 256) % 256));
        found(b).or_else(again).cloned()
    }
}

#[derive(Default)]
struct Maglev {
    cells: Vec<Option<Server>>,
}

impl Maglev {
    const CELLS: u32 = 4093;

    fn value(addr: IpAddr, port: u16, offset: u32) -> u32 {
        offset
            .wrapping_add(u32::from(port))
            .wrapping_add(fold(addr))
    }

    fn hash(key: u64, value: u32) -> u32 {
        sip13([key, key], &[], u64::from(value), 4) as u32
    }

    fn fill(&mut self, list: &[Server]) {
        self.cells.clear();
        let weights: Vec<u32> = list
            .iter()
            .map(|server| server.remembered_weight())
            .collect();
        let Some(largest) = weights.iter().copied().max().filter(|largest| *largest > 0) else {
            return;
        };
        let divides = |divisor: &u32| weights.iter().all(|weight| weight % divisor == 0);
        let divisor = (1..=largest).rev().find(divides).unwrap_or(1);
        let bits = 32 - (largest / divisor).leading_zeros();
        let shift = bits.saturating_sub(6);
        self.cells.resize(Self::CELLS as usize, None);
        let mut next = vec![0_u32; list.len()];
        loop {
            for (index, server) in list.iter().enumerate() {
                if weights[index] == 0 {
                    continue;
                }
                let value = Self::value(server.addr().ip(), server.addr().port(), 0);
                let start = Self::hash(2_654_435_761, value) % Self::CELLS;
                let skip = Self::hash(2_654_446_892, value) % (Self::CELLS - 1) + 1;
                for _ in 0..((weights[index] / divisor) >> shift).max(1) {
                    loop {
                        let cell = u64::from(start) + u64::from(next[index]) * u64::from(skip);
                        let cell = &mut self.cells[(cell % u64::from(Self::CELLS)) as usize];
                        next[index] += 1;
                        if cell.is_none() {
                            *cell = Some(Arc::clone(server));
                            break;
                        }
                    }
                    if self.cells.iter().all(Option::is_some) {
                        return;
                    }
                }
            }
        }
    }
}

impl Plain for Maglev {
    fn added(&mut self, list: &[Server]) {
        self.fill(list);
    }

    fn removed(&mut self, list: &[Server], _: usize) {
        self.fill(list);
    }

    fn changed(&mut self, list: &[Server]) {
        self.fill(list);
    }

    fn pick(&mut self, _: &[Server], request: &Request) -> Option<Server> {
        if self.cells.is_empty() {
            return None;
        }
        let port = if request.flags.contains(SchedulerFlags::PORT) {
            request.client.port()
        } else {
            0
        };
        let cell = |offset| {
            Self::hash(
                2_654_435_761,
                Self::value(request.client.ip(), port, offset),
            ) % Self::CELLS
        };
        let found = |cell: u32| self.cells[cell as usize].as_ref().filter(|s| is_usable(s));
        let i = cell(0);
        let has_fallback = request.flags.contains(SchedulerFlags::FALLBACK);
        let tries = if has_fallback { Self::CELLS } else { 0 };
        let again = || (0..tries).find_map(|o| found(cell((o + i) % Self::CELLS)));
        found(i).or_else(again).cloned()
    }
}

/// The first of two that are equal.
fn less_loaded<'a>(best: &'a Server, next: &'a Server) -> &'a Server {
    if is_more(load(best), load(next)) {
        next
    } else {
        best
    }
}

fn more_loaded<'a>(most: &'a Server, next: &'a Server) -> &'a Server {
    if is_more(load(next), load(most)) {
        next
    } else {
        most
    }
}

fn least_loaded(list: &[Server]) -> Option<Server> {
    let usable = list.iter().filter(|server| is_usable(server));
    let least = usable.reduce(less_loaded);
    least.cloned()
}

fn is_overburdened(list: &[Server], server: &Server) -> bool {
    server.active() > weight(server) && list.iter().any(|other| other.active() * 2 < weight(other))
}

/// `lblc`, and `lblcr` with sets of more than one. Nothing is cleaned up in the time of a test.
#[derive(Default)]
struct Locality {
    replicates: bool,
    sets: BTreeMap<IpAddr, (Vec<Server>, Option<Instant>)>,
}

impl Locality {
    fn pick_one(&mut self, list: &[Server], to: IpAddr) -> Option<Server> {
        if let Some((set, _)) = self.sets.get(&to) {
            let server = &set[0];
            if server.is_available() && weight(server) > 0 && !is_overburdened(list, server) {
                return Some(Arc::clone(server));
            }
        }
        let server = least_loaded(list)?;
        self.sets.insert(to, (vec![Arc::clone(&server)], None));
        Some(server)
    }

    fn pick_of_set(&mut self, list: &[Server], request: &Request) -> Option<Server> {
        let to = request.destination.ip();
        let Some((set, modified)) = self.sets.get_mut(&to) else {
            let server = least_loaded(list)?;
            self.sets
                .insert(to, (vec![Arc::clone(&server)], request.now));
            return Some(server);
        };
        let able = |s: &&Server| !s.is_overloaded() && s.is_available() && weight(s) > 0;
        let least = set.iter().filter(able).reduce(less_loaded).cloned();
        if set.len() > 1 && request.now > modified.map(|time| time + request.cache_life) {
            let weighted = set.iter().filter(|s| weight(s) > 0);
            if let Some(most) = weighted.reduce(more_loaded).cloned() {
                set.retain(|member| !Arc::ptr_eq(member, &most));
                *modified = request.now;
            }
        }
        if let Some(least) = least.filter(|least| !is_overburdened(list, least)) {
            return Some(least);
        }
        let server = least_loaded(list)?;
        if !set.iter().any(|member| Arc::ptr_eq(member, &server)) {
            set.insert(0, Arc::clone(&server));
            *modified = request.now;
        }
        Some(server)
    }
}

impl Plain for Locality {
    fn added(&mut self, _: &[Server]) {}

    fn removed(&mut self, _: &[Server], _: usize) {}

    fn changed(&mut self, _: &[Server]) {}

    fn pick(&mut self, list: &[Server], request: &Request) -> Option<Server> {
        if self.replicates {
            self.pick_of_set(list, request)
        } else {
            self.pick_one(list, request.destination.ip())
        }
    }
}

fn plain(kind: SchedulerKind) -> Box<dyn Plain> {
    match kind {
        SchedulerKind::RoundRobin => Box::new(RoundRobin::default()),
        SchedulerKind::WeightedRoundRobin => Box::new(Weighted::default()),
        SchedulerKind::MaglevHash => Box::new(Maglev::default()),
        SchedulerKind::SourceHash | SchedulerKind::DestinationHash => Box::new(Buckets {
            by_source: kind == SchedulerKind::SourceHash,
            ..Buckets::default()
        }),
        _ => Box::new(Locality {
            replicates: kind == SchedulerKind::ReplicatedLocality,
            ..Locality::default()
        }),
    }
}

const KINDS: [SchedulerKind; 7] = [
    SchedulerKind::RoundRobin,
    SchedulerKind::WeightedRoundRobin,
    SchedulerKind::SourceHash,
    SchedulerKind::DestinationHash,
    SchedulerKind::MaglevHash,
    SchedulerKind::LocalityLeastConnection,
    SchedulerKind::ReplicatedLocality,
];

#[derive(Clone, Debug)]
enum Step {
    Add {
        weight: u32,
        upper: u32,
    },
    Remove(usize),
    Weigh(usize, u32),
    Heal(usize, bool),
    Limit(usize, u32),
    Pick {
        client: u32,
        to: u8,
        flags: u8,
        class: Option<Class>,
    },
    End(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let weight = || prop_oneof![5 => 0_u32..5, 1 => (0_u32..7).prop_map(|weight| weight * 10)];
    let upper = || prop_oneof![5 => Just(0_u32), 1 => 1_u32..4];
    let any_server = || 0_usize..64;
    let class = || {
        prop::sample::select(vec![
            None,
            Some(Class::Active),
            Some(Class::Active),
            Some(Class::Inactive),
        ])
    };
    let step = prop_oneof![
        3 => (weight(), upper()).prop_map(|(weight, upper)| Step::Add { weight, upper }),
        1 => any_server().prop_map(Step::Remove),
        2 => (any_server(), weight()).prop_map(|(server, weight)| Step::Weigh(server, weight)),
        1 => (any_server(), any::<bool>()).prop_map(|(server, on)| Step::Heal(server, on)),
        1 => (any_server(), upper()).prop_map(|(server, upper)| Step::Limit(server, upper)),
        12 => (any::<u32>(), 0_u8..2, 0_u8..4, class())
            .prop_map(|(client, to, flags, class)| Step::Pick { client, to, flags, class }),
        3 => any_server().prop_map(Step::End),
        3 => prop::sample::select(vec![1, 5, 10]).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..150)
}

struct Life {
    pool: Pool,
    plain: Box<dyn Plain>,
    added: u8,
    bound: Vec<(Server, Class)>,
    now: Instant,
}

impl Life {
    fn edit(&mut self, number: usize, edit: impl Fn(&mut ServerConfig)) {
        let list = self.pool.servers();
        if let Some(index) = number.checked_rem(list.len()) {
            let mut config = list[index].config();
            edit(&mut config);
            let addr = list[index].addr();
            self.pool.service.edit_server(addr, config).unwrap();
            self.plain.changed(&list);
        }
    }

    fn run(&mut self, step: &Step) {
        let list = self.pool.servers();
        let index = |number: &usize| number.checked_rem(list.len());
        let service = &self.pool.service;
        match *step {
            Step::Add { weight, upper } => {
                self.added += 1;
                let config = ServerConfig {
                    upper_threshold: upper,
                    ..weighing(weight)
                };
                service
                    .add_server(addr(self.added as char), config)
                    .unwrap();
                self.plain.added(&self.pool.servers());
            }
            Step::Remove(ref number) => {
                if let Some(index) = index(number) {
                    service.remove_server(list[index].addr()).unwrap();
                    self.plain.removed(&self.pool.servers(), index);
                }
            }
            Step::Weigh(number, weight) => {
                self.edit(number, |config| config.weight = weighing(weight).weight);
            }
            Step::Limit(number, upper) => {
                self.edit(number, |config| config.upper_threshold = upper);
            }
            Step::Heal(ref number, healthy) => {
                if let Some(index) = index(number)
                    && list[index].is_healthy() != healthy
                {
                    service.set_healthy(list[index].addr(), healthy).unwrap();
                    self.plain.changed(&list);
                }
            }
            Step::Pick {
                client,
                to,
                flags,
                class,
            } => {
                let client = SocketAddr::from((client.to_be_bytes(), client as u16 | 1));
                let mut chosen = SchedulerFlags::default();
                for (bit, flag) in [(1, SchedulerFlags::PORT), (2, SchedulerFlags::FALLBACK)] {
                    if flags & bit != 0 {
                        chosen = chosen.union(flag);
                    }
                }
                let request = Request::new(client, SocketAddr::from(([203, 0, 113, to], 80)))
                    .with_flags(chosen)
                    .at(self.now)
                    .with_cache_life(Duration::from_secs(10));
                let expected = self.plain.pick(&list, &request);
                let picked = match class {
                    Some(class) => service.schedule_and_bind(&request, class),
                    None => service.schedule(&request),
                };
                let name = |server: &Server| server.addr();
                assert_eq!(picked.as_ref().map(name), expected.as_ref().map(name));
                self.bound.extend(picked.zip(class));
            }
            Step::End(number) => {
                if !self.bound.is_empty() {
                    let (server, class) = self.bound.swap_remove(number % self.bound.len());
                    server.unbind(class);
                }
            }
            Step::Wait(seconds) => self.now += Duration::from_secs(seconds),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn decisions_are_those_of_the_plain_rules(
        kind in prop::sample::select(KINDS.to_vec()),
        steps in steps(),
    ) {
        let mut life = Life {
            pool: Pool::adding(kind, &[]),
            plain: plain(kind),
            added: 0,
            bound: Vec::new(),
            now: Instant::now(),
        };
        for step in &steps {
            life.run(step);
        }
    }
}
