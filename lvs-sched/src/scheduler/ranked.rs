//! A tournament among servers: the least ratio, the earliest in list order among equals, found
//! without looking at everybody.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::follower::Follower;
use super::{Marks, Peek, Request, Servers, SharedPick, Superseded};
use crate::RealServer;
use crate::atomic::AtomicU64;
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

/// The servers by rank, as of the last look at them.
pub(crate) struct Ranked<R> {
    tree: Tree<R>,
    follower: Follower,
    outlook: Option<Arc<Outlook>>,
    /// Whether the outlook tells the winner.
    is_told: bool,
}

/// The servers' ranks as a tree of four-way matches.
///
/// A server whose counts changed costs the matches on its way up, until one ends as before. A changed
/// list is ranked anew at the next pick.
struct Tree<R> {
    winner: Player,
    /// All matches, the servers' own first; one cache line each.
    matches: Vec<Match>,
    /// Where each round begins.
    rounds: Vec<usize>,
    idle: Vec<bool>,
    idle_count: usize,
    rule: PhantomData<fn() -> R>,
}

/// The winner, for picks that count nothing and take no lock. It holds while no server has a mark.
#[derive(Debug)]
struct Outlook {
    /// In the low half the winner's position + 1, or 0 for nobody. In the high half what makes each telling another
    /// one, and [`UNTOLD`].
    word: AtomicU64,
    marks: Arc<Marks>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Player {
    numerator: u64,
    denominator: u32,
    index: u32,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Match([Player; 4]);

impl<R: Rule> Ranked<R> {
    /// The position of the least ratio, if there is one that is not infinite. It is bound next, or not.
    pub(crate) fn least(&mut self, servers: &Servers) -> Option<usize> {
        self.refresh(servers);
        self.tree.leader().map(|index| self.follower.choose(index))
    }

    /// What [`least`](Self::least) would answer, told to [`share`](Self::share) too.
    pub(crate) fn peek(&mut self, servers: &Servers) -> Option<usize> {
        if self.outlook.is_some() && self.follower.is_current() {
            self.withdraw();
            let tree = &mut self.tree;
            self.follower
                .refresh_and_part(servers, |index, load| tree.update(servers, index, load));
            self.tell();
        } else {
            self.refresh(servers);
        }
        self.tree.leader()
    }

    /// Picks that count nothing, without the lock.
    pub(crate) fn share(&mut self, servers: &Servers) -> Option<Arc<dyn SharedPick>> {
        self.refresh(servers);
        let outlook = Arc::new(Outlook {
            word: AtomicU64::new(UNTOLD),
            marks: Arc::clone(self.follower.marks()?),
        });
        self.outlook = Some(Arc::clone(&outlook));
        self.is_told = false;
        Some(outlook)
    }

    /// Whether some server is idle by the rule.
    pub(crate) fn idle(&mut self, servers: &Servers) -> bool {
        self.refresh(servers);
        self.tree.idle_count > 0
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
        self.withdraw();
        self.follower.list_changed();
    }

    /// A server was edited.
    pub(crate) fn server_changed(&mut self, servers: &Servers, index: usize) {
        self.withdraw();
        if self.follower.is_current() {
            let load = servers[index].load();
            self.follower.note(index, load);
            self.tree.update(servers, index, load);
        }
    }

    fn refresh(&mut self, servers: &Servers) {
        self.withdraw();
        let tree = &mut self.tree;
        if self.follower.is_current() {
            self.follower
                .refresh(servers, |index, load| tree.update(servers, index, load));
        } else {
            self.outlook = None;
            tree.clear(servers.len());
            self.follower
                .follow(servers, |index, load| tree.enter(servers, index, load));
            tree.play();
        }
    }

    /// Before marks are taken, so that nobody goes by their absence.
    fn withdraw(&mut self) {
        if std::mem::take(&mut self.is_told)
            && let Some(outlook) = &self.outlook
        {
            outlook.word.fetch_or(UNTOLD, SeqCst);
        }
    }

    fn tell(&mut self) {
        if let Some(outlook) = &self.outlook {
            let number = (outlook.word.load(SeqCst) & !UNTOLD) >> 32;
            let winner = self.tree.leader().map_or(0, |index| index as u64 + 1);
            let word = (number + 1) << 32 & !UNTOLD | winner;
            outlook.word.store(word, SeqCst);
            self.is_told = true;
        }
    }
}

impl SharedPick for Outlook {
    fn pick(&self, _: &Servers, _: &Request) -> Result<Option<usize>, Superseded> {
        // A change that was complete before the look at the marks has left one, unless it was taken, and who takes
        // marks has withdrawn the word before.
        let word = self.word.load(SeqCst);
        if word & UNTOLD != 0 || self.marks.is_any() || self.word.load(SeqCst) != word {
            return Err(Superseded);
        }
        Ok((word as u32).checked_sub(1).map(|index| index as usize))
    }

    fn peek(&self, servers: &Servers, request: &Request) -> Peek {
        self.pick(servers, request)
            .map_or(Peek::Unknown, Peek::Known)
    }

    fn is_traceless(&self) -> bool {
        true
    }

    fn depends_on_counts(&self) -> bool {
        true
    }
}

impl<R: Rule> Tree<R> {
    /// The position of the winner.
    fn leader(&self) -> Option<usize> {
        (self.winner.denominator != 0).then_some(self.winner.index as usize)
    }

    /// Room for so many servers.
    fn clear(&mut self, servers: usize) {
        self.rounds.clear();
        let (mut size, mut total) = (servers, 0);
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
    }

    /// The next server takes its place.
    fn enter(&mut self, servers: &Servers, index: usize, load: Load) {
        let weight = servers[index].effective_weight().get();
        self.idle.push(R::is_idle(load, weight));
        self.matches[index / 4].0[index % 4] = Player::new::<R>(index, load, weight);
    }

    /// All matches, when everybody has a place.
    fn play(&mut self) {
        self.idle_count = self.idle.iter().filter(|idle| **idle).count();
        for round in 1..self.rounds.len() {
            let (below, here) = (self.rounds[round - 1], self.rounds[round]);
            for game in below..here {
                let winner = self.matches[game].winner();
                let place = game - below;
                self.matches[here + place / 4].0[place % 4] = winner;
            }
        }
        self.winner = self.matches[self.matches.len() - 1].winner();
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
            tree: Tree {
                winner: Player::NOBODY,
                matches: Vec::new(),
                rounds: Vec::new(),
                idle: Vec::new(),
                idle_count: 0,
                rule: PhantomData,
            },
            follower: Follower::default(),
            outlook: None,
            is_told: false,
        }
    }
}

impl<R> fmt::Debug for Ranked<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranked")
            .field("servers", &self.tree.idle.len())
            .field("is_current", &self.follower.is_current())
            .finish_non_exhaustive()
    }
}

impl Player {
    const NOBODY: Self = Self {
        numerator: Ratio::NEVER.numerator,
        denominator: Ratio::NEVER.denominator,
        index: u32::MAX,
    };

    fn new<R: Rule>(index: usize, load: Load, weight: u32) -> Self {
        let ratio = if load.overloaded() || weight == 0 {
            Ratio::NEVER
        } else {
            R::rank(load, weight)
        };
        Self {
            numerator: ratio.numerator,
            denominator: ratio.denominator,
            index: index as u32,
        }
    }

    fn ratio(self) -> Ratio {
        Ratio::new(self.numerator, self.denominator)
    }
}

impl Match {
    /// Ties go to the earlier seat, which is the earlier server.
    fn winner(&self) -> Player {
        let [a, b, c, d] = self.0;
        let better = |x: Player, y: Player| {
            if y.ratio().is_less(x.ratio()) { y } else { x }
        };
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

            fn share(
                &mut self,
                servers: &$crate::Servers,
            ) -> Option<std::sync::Arc<dyn $crate::SharedPick>> {
                self.0.share(servers)
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

/// The outlook tells nothing.
const UNTOLD: u64 = 1 << 63;
