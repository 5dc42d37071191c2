//! Small cases of threads that pick and change a service at once, and the question whether what they were
//! answered is what some order of their calls, one after the other, would have answered. A call that ended before
//! another began comes before it in that order.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use lvs_sched::*;

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    /// A pick for this client, by a picker.
    Pick(u8),
    /// A lease for this client, held to the end.
    Connect(u8),
    /// The end of the thread's last lease; answered with its server.
    End,
    /// The weight of this server.
    Weigh(u8, u32),
    /// The health of this server.
    Heal(u8, bool),
    /// A server of weight 1 comes.
    Add(u8),
    /// A server goes.
    Remove(u8),
}

/// A service, what each thread does there, and what is asked when all are done.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) kind: SchedulerKind,
    /// The weights of the first servers, in the order in which they are added.
    pub(crate) weights: &'static [u32],
    pub(crate) threads: Vec<Vec<Call>>,
    /// Makes visible what the threads have left behind.
    pub(crate) last: Vec<Call>,
}

/// A call, and what came of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Done {
    pub(crate) call: Call,
    pub(crate) answer: Option<SocketAddr>,
    /// The answer was a server that a change quiesced before it was bound, so there was another pick: both have a
    /// place in the order.
    is_lost: bool,
    /// Moments on a common clock.
    begin: usize,
    end: usize,
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            call,
            answer,
            begin,
            end,
            ..
        } = self;
        write!(f, "{begin}-{end} {call:?}")?;
        match (call, answer) {
            (Call::Pick(_) | Call::Connect(_) | Call::End, Some(addr)) => write!(f, " -> {addr}"),
            (Call::Pick(_) | Call::Connect(_), None) => f.write_str(" -> nobody"),
            _ => Ok(()),
        }
    }
}

/// What the calls of each thread came to; those of [`Case::last`] are one more thread's.
pub(crate) type History = Vec<Vec<Done>>;

/// The cases that are tried with each kind of scheduler: two threads pick while a third changes something, or leases
/// end meanwhile.
pub(crate) fn cases(kind: SchedulerKind) -> Vec<Case> {
    use Call::{Add, Connect, End, Heal, Pick, Remove, Weigh};
    let changes = [
        vec![Weigh(0, 0)],
        vec![Weigh(1, 2)],
        vec![Heal(1, false), Heal(1, true)],
        vec![Add(7)],
        vec![Remove(1)],
        vec![Weigh(2, 0), Weigh(0, 0)],
    ];
    let picks = [
        [vec![Pick(1), Pick(2)], vec![Pick(3)]],
        [vec![Connect(1), Pick(2)], vec![Connect(3)]],
    ];
    let case = |threads| Case {
        kind,
        weights: &[1, 1, 2],
        threads,
        last: vec![Pick(4), Pick(5)],
    };
    let each = |change: &Vec<Call>| {
        let change = change.clone();
        (picks.clone()).map(move |[one, two]| case(vec![one, two, change.clone()]))
    };
    let ends = [
        vec![vec![Connect(1), End, Pick(2)], vec![Connect(3), End]],
        vec![vec![Connect(1), End, Connect(2)], vec![Pick(3), Pick(4)]],
        vec![vec![Connect(1), End], vec![Connect(2)], vec![Weigh(1, 2)]],
    ];
    changes
        .iter()
        .flat_map(each)
        .chain(ends.map(case))
        .collect()
}

/// A thread of a case, at its service.
pub(crate) struct Actor<'a> {
    service: &'a VirtualService,
    picker: Picker<'a>,
    clock: &'a AtomicUsize,
    leases: Vec<Lease>,
    done: Vec<Done>,
}

impl<'a> Actor<'a> {
    pub(crate) fn new(service: &'a VirtualService, clock: &'a AtomicUsize) -> Self {
        Self {
            service,
            picker: service.picker(),
            clock,
            leases: Vec::new(),
            done: Vec::new(),
        }
    }

    pub(crate) fn run(&mut self, call: Call) {
        let begin = self.clock.fetch_add(1, Ordering::SeqCst);
        let answer = match call {
            Call::Pick(client) => self.picker.pick(flow(client)).map(|server| server.addr()),
            Call::Connect(client) => {
                let lease = self.service.connect(flow(client)).ok();
                let addr = lease.as_ref().map(Lease::addr);
                self.leases.extend(lease);
                addr
            }
            Call::End => self.leases.pop().map(|lease| lease.addr()),
            change => {
                apply(self.service, change);
                None
            }
        };
        self.note(call, begin, answer);
    }

    /// The end of a lease at this server, whose thread had it.
    fn end_at(&mut self, server: Option<SocketAddr>) {
        let begin = self.clock.fetch_add(1, Ordering::SeqCst);
        let place = (self.leases.iter()).position(|lease| Some(lease.addr()) == server);
        let answer = place.map(|place| self.leases.swap_remove(place).addr());
        self.note(Call::End, begin, answer);
    }

    fn note(&mut self, call: Call, begin: usize, answer: Option<SocketAddr>) {
        let end = self.clock.fetch_add(1, Ordering::SeqCst);
        self.done.push(Done {
            call,
            answer,
            is_lost: false,
            begin,
            end,
        });
    }

    /// What was done, and the leases, which must outlive everybody's last call.
    pub(crate) fn finish(self) -> (Vec<Done>, Vec<Lease>) {
        (self.done, self.leases)
    }
}

pub(crate) fn service(case: &Case) -> VirtualService {
    let service = VirtualService::new(ServiceConfig {
        scheduler: case.kind,
        ..ServiceConfig::default()
    });
    for (number, weight) in (0..).zip(case.weights) {
        add(&service, number, *weight);
    }
    service
}

/// Whether an order explains the history. Each is tried on a service of its own.
pub(crate) fn is_serial(case: &Case, history: &History) -> bool {
    search(case, history, &mut Vec::new()) || {
        let leases = (0..history.len()).flat_map(|thread| {
            let is_lease = move |(place, done): (usize, &Done)| {
                matches!(done.call, Call::Connect(_)).then_some((thread, place))
            };
            history[thread].iter().enumerate().filter_map(is_lease)
        });
        leases.into_iter().any(|(thread, place)| {
            let mut longer = history.clone();
            let lost = Done {
                is_lost: true,
                ..history[thread][place].clone()
            };
            longer[thread].insert(place, lost);
            search(case, &longer, &mut Vec::new())
        })
    }
}

fn search(case: &Case, history: &History, order: &mut Vec<usize>) -> bool {
    let place = |order: &[usize], thread| order.iter().filter(|other| **other == thread).count();
    let waiting: Vec<_> = (0..history.len())
        .filter_map(|thread| {
            let next = history[thread].get(place(order, thread))?;
            Some((thread, next))
        })
        .collect();
    if waiting.is_empty() {
        return explains(case, history, order);
    }
    let first_end = waiting.iter().map(|(_, next)| next.end).min();
    for (thread, next) in waiting {
        if Some(next.begin) > first_end {
            continue;
        }
        order.push(thread);
        if search(case, history, order) {
            return true;
        }
        order.pop();
    }
    false
}

fn explains(case: &Case, history: &History, order: &[usize]) -> bool {
    let (service, clock) = (service(case), AtomicUsize::new(0));
    let mut actor = Actor::new(&service, &clock);
    let mut next = vec![0; history.len()];
    for thread in order {
        let done = &history[*thread][next[*thread]];
        next[*thread] += 1;
        match (done.is_lost, done.call) {
            (true, Call::Connect(client)) => actor.run(Call::Pick(client)),
            (_, Call::End) => actor.end_at(done.answer),
            (_, call) => actor.run(call),
        }
        let answer = actor.done.last().and_then(|again| again.answer);
        let is_right = if done.is_lost {
            answer.is_some_and(|lost| is_quiesced_meanwhile(history, done, lost))
        } else {
            answer == done.answer
        };
        if !is_right {
            return false;
        }
    }
    true
}

fn is_quiesced_meanwhile(history: &History, lost: &Done, server: SocketAddr) -> bool {
    history.iter().flatten().any(|done| {
        let quiesced = match done.call {
            Call::Weigh(number, 0) | Call::Heal(number, false) => Some(addr(number)),
            _ => None,
        };
        quiesced == Some(server) && done.begin < lost.end && lost.begin < done.end
    })
}

fn apply(service: &VirtualService, change: Call) {
    match change {
        Call::Weigh(server, weight) => service
            .set_weight(addr(server), Weight::new(weight).expect("small"))
            .expect("it is there"),
        Call::Heal(server, healthy) => service
            .set_healthy(addr(server), healthy)
            .expect("it is there"),
        Call::Add(server) => add(service, server, 1),
        Call::Remove(server) => {
            service.remove_server(addr(server)).expect("it is there");
        }
        Call::Pick(_) | Call::Connect(_) | Call::End => unreachable!("not a change"),
    }
}

fn add(service: &VirtualService, number: u8, weight: u32) {
    let config = ServerConfig {
        weight: Weight::new(weight).expect("small"),
        ..ServerConfig::default()
    };
    service
        .add_server(addr(number), config)
        .expect("addresses differ");
}

fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number + 1], 80))
}

fn flow(client: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(198, 51, 100, client), 4000))
}
