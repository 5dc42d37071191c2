//! A tournament among servers: the least ratio, the earliest in list order among equals, found
//! without looking at everybody.

use std::fmt;
use std::marker::PhantomData;

use super::Servers;
use super::follower::Follower;
use crate::RealServer;
use crate::real_server::Load;

/// What a scheduler minimises.
pub(crate) trait Rule {
    /// The rank of a server that is usable, of its counts and its effective weight (not 0).
    fn rank(load: Load, weight: u32) -> Ratio;

    /// Whether a server counts as idle, see [`Ranked::idle`]. Asked of unusable ones too.
    fn is_idle(load: Load, weight: u32) -> bool {
        let _ = (load, weight);
        false
    }
}

/// A fraction that is compared and never divided. A denominator of 0 is infinite: never chosen.
///
/// The numerator stays below 2^40 and the denominator below 2^31, so products fit in 128 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ratio {
    pub(crate) numerator: u64,
    pub(crate) denominator: u32,
}

impl Ratio {
    pub(crate) const NEVER: Self = Self::new(1, 0);

    pub(crate) const fn new(numerator: u64, denominator: u32) -> Self {
        Self {
            numerator,
            denominator,
        }
    }

    pub(crate) fn is_less(self, other: Self) -> bool {
        u128::from(self.numerator) * u128::from(other.denominator)
            < u128::from(other.numerator) * u128::from(self.denominator)
    }
}

/// The servers' ranks as a tree of four-way matches.
///
/// A server whose counts changed costs the matches on its way up, until one ends as before. A changed
/// list is ranked anew at the next pick.
pub(crate) struct Ranked<R> {
    /// All matches, the servers' own first; one cache line each.
    matches: Vec<Match>,
    /// Where each round begins.
    rounds: Vec<usize>,
    winner: Player,
    idle: Vec<bool>,
    idle_count: usize,
    follower: Follower,
    rule: PhantomData<fn() -> R>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Player {
    ratio: Ratio,
    index: u32,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Match([Player; 4]);

impl<R: Rule> Ranked<R> {
    /// The position of the least ratio, if there is one that is not infinite.
    pub(crate) fn least(&mut self, servers: &Servers) -> Option<usize> {
        self.refresh(servers);
        (self.winner.ratio.denominator != 0)
            .then(|| self.follower.choose(self.winner.index as usize))
    }

    /// What [`least`](Self::least) would answer.
    pub(crate) fn peek(&mut self, servers: &Servers) -> Option<usize> {
        self.refresh(servers);
        (self.winner.ratio.denominator != 0).then_some(self.winner.index as usize)
    }

    /// Whether some server is idle by the rule.
    pub(crate) fn idle(&mut self, servers: &Servers) -> bool {
        self.refresh(servers);
        self.idle_count > 0
    }

    /// The position of a server of the list that was chosen in another way.
    pub(crate) fn choose(&mut self, servers: &Servers, server: &RealServer) -> Option<usize> {
        self.place(servers, server)
            .map(|index| self.follower.choose(index))
    }

    /// The position of a server, if it is of the list.
    pub(crate) fn place(&mut self, servers: &Servers, server: &RealServer) -> Option<usize> {
        self.refresh(servers);
        self.follower.place(servers, server)
    }

    /// The list is another one.
    pub(crate) fn list_changed(&mut self) {
        self.follower.list_changed();
    }

    /// A server was edited.
    pub(crate) fn server_changed(&mut self, servers: &Servers, index: usize) {
        if self.follower.is_current() {
            self.update(servers, index, servers[index].load());
        }
    }

    fn refresh(&mut self, servers: &Servers) {
        // It is away while it is walked: `update` needs the rest of `self`.
        let mut follower = std::mem::take(&mut self.follower);
        if follower.is_current() {
            follower.refresh(servers, |index, load| self.update(servers, index, load));
        } else {
            self.rebuild(servers, &mut follower);
        }
        self.follower = follower;
    }

    fn rebuild(&mut self, servers: &Servers, follower: &mut Follower) {
        self.rounds.clear();
        let (mut size, mut total) = (servers.len(), 0);
        loop {
            size = size.div_ceil(4).max(1);
            self.rounds.push(total);
            total += size;
            if size == 1 {
                break;
            }
        }
        self.matches.clear();
        self.matches.resize(total, Match([Player::NOBODY; 4]));
        self.idle.clear();
        follower.follow(servers, |index, load| {
            let weight = servers[index].effective_weight().get();
            self.idle.push(R::is_idle(load, weight));
            self.matches[index / 4].0[index % 4] = Player::new::<R>(index, load, weight);
        });
        self.idle_count = self.idle.iter().filter(|idle| **idle).count();
        for round in 1..self.rounds.len() {
            let (below, here) = (self.rounds[round - 1], self.rounds[round]);
            for game in below..here {
                let winner = self.matches[game].winner();
                let place = game - below;
                self.matches[here + place / 4].0[place % 4] = winner;
            }
        }
        self.winner = self.matches[total - 1].winner();
    }

    fn update(&mut self, servers: &Servers, index: usize, load: Load) {
        let weight = servers[index].effective_weight().get();
        let idle = R::is_idle(load, weight);
        if idle != std::mem::replace(&mut self.idle[index], idle) {
            self.idle_count = if idle {
                self.idle_count + 1
            } else {
                self.idle_count - 1
            };
        }
        let mut player = Player::new::<R>(index, load, weight);
        let mut place = index;
        for &round in &self.rounds {
            let game = &mut self.matches[round + place / 4];
            let seat = &mut game.0[place % 4];
            if *seat == player {
                return;
            }
            *seat = player;
            player = game.winner();
            place /= 4;
        }
        self.winner = player;
    }
}

impl<R> Default for Ranked<R> {
    fn default() -> Self {
        Self {
            matches: Vec::new(),
            rounds: Vec::new(),
            winner: Player::NOBODY,
            idle: Vec::new(),
            idle_count: 0,
            follower: Follower::default(),
            rule: PhantomData,
        }
    }
}

impl<R> fmt::Debug for Ranked<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranked")
            .field("servers", &self.idle.len())
            .field("is_current", &self.follower.is_current())
            .finish_non_exhaustive()
    }
}

impl Player {
    const NOBODY: Self = Self {
        ratio: Ratio::NEVER,
        index: u32::MAX,
    };

    fn new<R: Rule>(index: usize, load: Load, weight: u32) -> Self {
        let ratio = if load.overloaded() || weight == 0 {
            Ratio::NEVER
        } else {
            R::rank(load, weight)
        };
        Self {
            ratio,
            index: index as u32,
        }
    }
}

impl Match {
    /// Ties go to the earlier seat, which is the earlier server.
    fn winner(&self) -> Player {
        let [a, b, c, d] = self.0;
        let better = |x: Player, y: Player| if y.ratio.is_less(x.ratio) { y } else { x };
        better(better(a, b), better(c, d))
    }
}

/// Makes a scheduler that is nothing but a [`Rule`].
macro_rules! ranked_scheduler {
    ($scheduler:ident) => {
        impl $crate::Scheduler for $scheduler {
            fn pick(&mut self, servers: &$crate::Servers, _: &$crate::Request) -> Option<usize> {
                self.0.least(servers)
            }

            fn peek(
                &mut self,
                servers: &$crate::Servers,
                _: &$crate::Request,
            ) -> $crate::scheduler::Peek {
                $crate::scheduler::Peek::Known(self.0.peek(servers))
            }

            fn list_changed(&mut self) {
                self.0.list_changed();
            }

            fn server_changed(&mut self, servers: &$crate::Servers, index: usize) {
                self.0.server_changed(servers, index);
            }
        }
    };
}
pub(super) use ranked_scheduler;
