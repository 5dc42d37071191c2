//! Who picks: our schedulers and, with the feature `peers`, other crates, each in the tiers where it plays, with the
//! same servers and clients.
//!
//! The benches and the program that is counted (`picks.rs`) run the same loops.

#[cfg(feature = "peers")]
mod peers;
pub(crate) mod table;

use std::collections::VecDeque;
use std::fmt;
use std::hint::black_box;

use lvs_sched::*;

use crate::common::{Clients, server};

/// Numbers of servers.
pub(crate) const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Picks.
    Pick,
    /// Picks among servers of which a tenth is unhealthy.
    Healthy,
    /// Picks, counts and drops the lease.
    Lease,
    /// Picks, counts and drops a lease that is older, so that another server's count changes than the one just chosen.
    Held,
}

impl Tier {
    pub(crate) const ALL: [Self; 4] = [Self::Pick, Self::Healthy, Self::Lease, Self::Held];
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pick => "T0 pick",
            Self::Healthy => "T1 pick and health",
            Self::Lease => "T2 pick and lease",
            Self::Held => "T2 held pick and lease",
        })
    }
}

/// Makes so many calls.
pub(crate) type Calls = Box<dyn FnMut(u64)>;

/// A way to pick, not yet built.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// Whose of ours this one's time is told in.
    pub(crate) beside: Option<&'static str>,
    build: Box<dyn Fn() -> Calls>,
}

impl Contestant {
    pub(crate) fn build(&self) -> Calls {
        (self.build)()
    }
}

/// All that play in this tier with so many servers.
pub(crate) fn contestants(tier: Tier, size: u32) -> Vec<Contestant> {
    let mut all = Vec::new();
    for kind in SCHEDULERS {
        let is_held = tier == Tier::Held;
        let may_be_held = [
            SchedulerKind::WeightedLeastConnection,
            SchedulerKind::Maglev,
        ];
        // mh holds 4093 servers at most.
        let is_full = kind == SchedulerKind::MaglevHash && size > 4_000;
        if is_full || is_held && !may_be_held.contains(&kind) {
            continue;
        }
        let build = move || match tier {
            Tier::Pick | Tier::Healthy => picks(kind, size, tier == Tier::Healthy),
            Tier::Lease => leases(kind, size),
            Tier::Held => held(kind, size),
        };
        all.push(Contestant {
            name: kind.name(),
            beside: None,
            build: Box::new(build),
        });
    }
    #[cfg(feature = "peers")]
    all.extend(peers::contestants(tier, size));
    all
}

/// A service with so many servers of weight 1.
pub(crate) fn service(kind: SchedulerKind, size: u32) -> VirtualService {
    let service = VirtualService::new(ServiceConfig {
        scheduler: SchedulerKind::None,
        ..ServiceConfig::default()
    });
    for number in 0..size {
        service
            .add_server(server(number), ServerConfig::default())
            .expect("addresses differ");
    }
    let config = ServiceConfig {
        scheduler: kind,
        ..ServiceConfig::default()
    };
    service.edit(config).expect("not more than it can have");
    service
}

/// As long as the program runs: pickers borrow it.
fn kept(kind: SchedulerKind, size: u32) -> &'static VirtualService {
    Box::leak(Box::new(service(kind, size)))
}

/// The numbers of the servers that are unhealthy.
fn unhealthy(size: u32) -> impl Iterator<Item = u32> {
    (0..size).step_by(10)
}

fn picks(kind: SchedulerKind, size: u32, some_unhealthy: bool) -> Calls {
    let service = kept(kind, size);
    for number in unhealthy(size).filter(|_| some_unhealthy) {
        service
            .set_healthy(server(number), false)
            .expect("it was added");
    }
    let (mut clients, mut picker) = (Clients::new(), service.picker());
    repeat(move || {
        black_box(picker.pick(clients.next()).is_some());
    })
}

fn leases(kind: SchedulerKind, size: u32) -> Calls {
    let (mut clients, mut picker) = (Clients::new(), kept(kind, size).picker());
    repeat(move || drop(black_box(picker.connect(clients.next()))))
}

fn held(kind: SchedulerKind, size: u32) -> Calls {
    let (mut clients, mut picker) = (Clients::new(), kept(kind, size).picker());
    let mut held: VecDeque<_> = (0..size * 4 + size / 3)
        .map(|_| picker.connect(clients.next()))
        .collect();
    repeat(move || {
        held.push_back(picker.connect(clients.next()));
        drop(black_box(held.pop_front()));
    })
}

fn repeat(mut call: impl FnMut() + 'static) -> Calls {
    Box::new(move |calls| (0..calls).for_each(|_| call()))
}

const SCHEDULERS: [SchedulerKind; 9] = [
    SchedulerKind::RoundRobin,
    SchedulerKind::WeightedRoundRobin,
    SchedulerKind::SourceHash,
    SchedulerKind::MaglevHash,
    SchedulerKind::Maglev,
    SchedulerKind::LeastConnection,
    SchedulerKind::WeightedLeastConnection,
    SchedulerKind::ShortestExpectedDelay,
    SchedulerKind::TwoChoices,
];
