//! From servers that are up or down to what stands in a virtual service's table.

#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;

/// The real servers of one virtual service: which of them stand in its table, and with which weight.
///
/// `K` names a server; an address or a [`ServerId`](crate::ServerId) will do. Every method that changes something
/// returns what the table must go through, in order. What the operator wants (weight, inhibit) and what is observed (up,
/// weight adjustment) are kept apart; the weight in the table follows from both.
///
/// ```
/// use lvs_health::{Change, MemberConfig, Pool, PoolConfig, SorryServer};
///
/// let mut pool = Pool::new(PoolConfig { sorry: Some(SorryServer::default()), ..PoolConfig::default() });
/// pool.add_server("web1", MemberConfig { weight: 3, inhibit: false }, true)?;
/// assert_eq!(pool.start()[0], Change::Add { server: "web1", weight: 3 });
///
/// let changes = pool.handle_server_down("web1")?; // on `Event::ServerDown`
/// assert_eq!(changes[..3], [
///     Change::Delete { server: "web1" },
///     Change::ServerDown { server: "web1" },
///     Change::AddSorry { weight: 1 },
/// ]);
/// assert!(matches!(changes[3], Change::QuorumLost { sum: 0, threshold: 1, .. }));
/// # Ok::<(), lvs_health::PoolError>(())
/// ```
///
/// An operation that the table refuses is the caller's to repeat: [`servers`](Self::servers) says at any time what
/// should stand there.
#[derive(Debug, Clone)]
pub struct Pool<K> {
    config: PoolConfig,
    members: Vec<Member<K>>,
    quorum_up: bool,
    started: bool,
    /// The sorry server's weight in the table; `None` while it is not there.
    sorry: Option<u32>,
}

/// What a virtual service demands of its servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// The sum of weights of servers that are up from which the service counts as working. More than the sum of all
    /// configured weights counts as that sum. 1 by default.
    pub quorum: u32,
    /// How far above the quorum the sum must be to gain it, and below it to lose it; at most `quorum - 1` counts. 0 by
    /// default.
    pub hysteresis: u32,
    /// Who answers while the quorum is lost.
    pub sorry: Option<SorryServer>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            quorum: 1,
            hysteresis: 0,
            sorry: None,
        }
    }
}

/// A sorry server: never checked, of weight 1, in the table while the quorum is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SorryServer {
    /// Stay in the table with weight 0 while not needed.
    #[doc(alias = "sorry_server_inhibit")]
    pub inhibit: bool,
}

/// What the operator wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberConfig {
    /// The configured weight, 0 to 2^31 - 1; more counts as 2^31 - 1.
    pub weight: u32,
    /// Stay in the table with weight 0 when down.
    #[doc(alias = "inhibit_on_failure")]
    pub inhibit: bool,
}

/// One step of a change: an operation on the table, or a moment at which to notify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change<K> {
    /// Put the server in. That it is there already is no error.
    Add {
        /// Which.
        server: K,
        /// With this weight.
        weight: u32,
    },
    /// Change the server's weight. If it is missing, put it in.
    SetWeight {
        /// Which.
        server: K,
        /// To this weight.
        weight: u32,
    },
    /// Take the server out. That it is not there is no error.
    Delete {
        /// Which.
        server: K,
    },
    /// Put the sorry server in.
    AddSorry {
        /// With this weight.
        weight: u32,
    },
    /// Change the sorry server's weight.
    SetSorryWeight {
        /// To this weight.
        weight: u32,
    },
    /// Take the sorry server out.
    DeleteSorry,
    /// The server counts as up from here on; its notifications belong here.
    ServerUp {
        /// Which.
        server: K,
    },
    /// The server counts as down from here on; its notifications belong here.
    ServerDown {
        /// Which.
        server: K,
    },
    /// The quorum was gained; its notifications belong here.
    QuorumGained {
        /// The sum of weights of servers that are up.
        sum: u64,
        /// What it had to reach.
        threshold: u64,
        /// Whether this is the first evaluation.
        starting: bool,
    },
    /// The quorum was lost; its notifications belong here.
    QuorumLost {
        /// The sum of weights of servers that are up.
        sum: u64,
        /// What it had to reach.
        threshold: u64,
        /// Whether this is the first evaluation.
        starting: bool,
    },
}

impl<K: Copy + Eq> Pool<K> {
    /// A pool without servers, not started.
    pub fn new(config: PoolConfig) -> Self {
        Self {
            config,
            members: Vec::new(),
            quorum_up: false,
            started: false,
            sorry: None,
        }
    }

    /// Adds a server that is up or, with `alpha`, down. Before [`start`](Self::start) this changes no table.
    ///
    /// # Errors
    ///
    /// The server is in the pool already.
    pub fn add_server(
        &mut self,
        server: K,
        config: MemberConfig,
        up: bool,
    ) -> Result<Vec<Change<K>>, PoolError> {
        if self.members.iter().any(|member| member.server == server) {
            return Err(PoolError::Duplicate);
        }
        self.members.push(Member {
            server,
            config,
            health: Health { up, adjustment: 0 },
            table: None,
        });
        let mut changes = Vec::new();
        if self.started {
            let at = self.members.len() - 1;
            self.settle(at, &mut changes);
            self.evaluate(&mut changes);
        }
        Ok(changes)
    }

    /// Takes a server out for good, also an inhibited one.
    ///
    /// # Errors
    ///
    /// There is no such server.
    pub fn remove_server(&mut self, server: K) -> Result<Vec<Change<K>>, PoolError> {
        let at = self.find(server)?;
        let member = self.members.remove(at);
        let mut changes = Vec::new();
        if member.table.is_some() {
            changes.push(Change::Delete { server });
        }
        if self.started {
            if member.health.up {
                changes.push(Change::ServerDown { server });
            }
            self.evaluate(&mut changes);
        }
        Ok(changes)
    }

    /// Fills the empty table and evaluates the quorum for the first time. A second call changes nothing.
    ///
    /// Without enough servers and without a sorry server the quorum stays down silently, and the servers stay in.
    pub fn start(&mut self) -> Vec<Change<K>> {
        let mut changes = Vec::new();
        if std::mem::replace(&mut self.started, true) {
            return changes;
        }
        for at in 0..self.members.len() {
            self.settle(at, &mut changes);
        }
        if self.sum() >= self.threshold() {
            self.gain(true, &mut changes);
        } else if self.config.sorry.is_some() {
            self.lose(true, &mut changes);
        }
        changes
    }

    /// Empties the table: sorry server, then all servers. Whether anybody is notified is the caller's choice (`omega`).
    pub fn stop(&mut self) -> Vec<Change<K>> {
        let mut changes = Vec::new();
        if !std::mem::replace(&mut self.started, false) {
            return changes;
        }
        if self.sorry.take().is_some() {
            changes.push(Change::DeleteSorry);
        }
        let (sum, threshold) = (self.sum(), self.threshold());
        for member in &mut self.members {
            let server = member.server;
            if member.table.take().is_some() {
                changes.push(Change::Delete { server });
            }
            if member.health.up {
                changes.push(Change::ServerDown { server });
            }
        }
        self.quorum_up = false;
        changes.push(Change::QuorumLost {
            sum,
            threshold,
            starting: false,
        });
        changes
    }

    /// The server works (again). Nothing changes if that is known.
    ///
    /// # Errors
    ///
    /// There is no such server.
    pub fn handle_server_up(&mut self, server: K) -> Result<Vec<Change<K>>, PoolError> {
        self.set_health(server, true)
    }

    /// The server does not work (any more). Nothing changes if that is known.
    ///
    /// # Errors
    ///
    /// There is no such server.
    pub fn handle_server_down(&mut self, server: K) -> Result<Vec<Change<K>>, PoolError> {
        self.set_health(server, false)
    }

    /// A checker observed by how much the weight should differ from the configured one.
    ///
    /// # Errors
    ///
    /// There is no such server.
    pub fn handle_adjustment(
        &mut self,
        server: K,
        adjustment: i64,
    ) -> Result<Vec<Change<K>>, PoolError> {
        let at = self.find(server)?;
        self.members[at].health.adjustment = adjustment;
        Ok(self.reweigh(at))
    }

    /// The operator wants another weight; 0 quiesces the server. The limits of the quorum follow.
    ///
    /// # Errors
    ///
    /// There is no such server.
    pub fn set_weight(&mut self, server: K, weight: u32) -> Result<Vec<Change<K>>, PoolError> {
        let at = self.find(server)?;
        self.members[at].config.weight = weight;
        Ok(self.reweigh(at))
    }

    /// Whether the quorum is held.
    pub fn has_quorum(&self) -> bool {
        self.quorum_up
    }

    /// The weight that the sorry server has in the table; `None` while it is not there.
    pub fn sorry_weight(&self) -> Option<u32> {
        self.sorry
    }

    /// Whether the sorry server answers in place of the servers.
    pub fn is_sorry(&self) -> bool {
        !self.quorum_up && self.sorry.is_some()
    }

    /// The sum of effective weights of the servers that are up.
    pub fn sum(&self) -> u64 {
        let up = self.members.iter().filter(|member| member.health.up);
        up.map(|member| u64::from(member.weight())).sum()
    }

    /// What the sum must reach now: the quorum less the hysteresis while held, plus the hysteresis while lost.
    pub fn threshold(&self) -> u64 {
        let (quorum, hysteresis) = self.limits();
        if self.quorum_up {
            quorum - hysteresis
        } else {
            quorum + hysteresis
        }
    }

    /// The servers with the weight each has in the table; `None` if it is not there.
    pub fn servers(&self) -> impl Iterator<Item = (K, Option<u32>)> + '_ {
        self.members
            .iter()
            .map(|member| (member.server, member.table))
    }

    /// Quorum and hysteresis, limited by the configured weights; hysteresis is the smaller one unless both are 0.
    fn limits(&self) -> (u64, u64) {
        let all: u64 = self
            .members
            .iter()
            .map(|member| u64::from(member.config.weight.min(MAX_WEIGHT)))
            .sum();
        let quorum = u64::from(self.config.quorum).min(all);
        let hysteresis = u64::from(self.config.hysteresis).min(quorum.saturating_sub(1));
        (quorum, hysteresis)
    }

    fn find(&self, server: K) -> Result<usize, PoolError> {
        let mut servers = self.members.iter();
        servers
            .position(|member| member.server == server)
            .ok_or(PoolError::Unknown)
    }

    fn set_health(&mut self, server: K, up: bool) -> Result<Vec<Change<K>>, PoolError> {
        let at = self.find(server)?;
        let mut changes = Vec::new();
        if std::mem::replace(&mut self.members[at].health.up, up) == up || !self.started {
            return Ok(changes);
        }
        self.settle(at, &mut changes);
        changes.push(if up {
            Change::ServerUp { server }
        } else {
            Change::ServerDown { server }
        });
        self.evaluate(&mut changes);
        Ok(changes)
    }

    fn reweigh(&mut self, at: usize) -> Vec<Change<K>> {
        let mut changes = Vec::new();
        if self.started {
            self.settle(at, &mut changes);
            self.evaluate(&mut changes);
        }
        changes
    }

    fn evaluate(&mut self, changes: &mut Vec<Change<K>>) {
        let (sum, threshold) = (self.sum(), self.threshold());
        // While held the threshold is at least 1, so a sum of 0 loses it, except for the quorum of 0 that all-zero
        // weights leave: that one cannot be lost.
        if !self.quorum_up && sum >= threshold {
            self.gain(false, changes);
        } else if self.quorum_up && sum < threshold {
            self.lose(false, changes);
        }
    }

    fn gain(&mut self, starting: bool, changes: &mut Vec<Change<K>>) {
        let (sum, threshold) = (self.sum(), self.threshold());
        self.quorum_up = true;
        let inhibit = self.config.sorry.is_some_and(|sorry| sorry.inhibit);
        self.set_sorry(inhibit.then_some(0), changes);
        self.settle_all(changes);
        changes.push(Change::QuorumGained {
            sum,
            threshold,
            starting,
        });
    }

    fn lose(&mut self, starting: bool, changes: &mut Vec<Change<K>>) {
        let (sum, threshold) = (self.sum(), self.threshold());
        self.quorum_up = false;
        if self.config.sorry.is_some() {
            // The servers leave first, as the sorry server may be one of them.
            for member in &mut self.members {
                member.place(false, changes);
            }
            self.set_sorry(Some(1), changes);
        }
        changes.push(Change::QuorumLost {
            sum,
            threshold,
            starting,
        });
    }

    fn set_sorry(&mut self, wanted: Option<u32>, changes: &mut Vec<Change<K>>) {
        changes.extend(match (std::mem::replace(&mut self.sorry, wanted), wanted) {
            (None, Some(weight)) => Some(Change::AddSorry { weight }),
            (Some(old), Some(weight)) if old != weight => Some(Change::SetSorryWeight { weight }),
            (Some(_), None) => Some(Change::DeleteSorry),
            _ => None,
        });
    }

    fn settle_all(&mut self, changes: &mut Vec<Change<K>>) {
        for at in 0..self.members.len() {
            self.settle(at, changes);
        }
    }

    /// Brings one server's place in the table in line with its state.
    fn settle(&mut self, at: usize, changes: &mut Vec<Change<K>>) {
        let serves = !self.is_sorry();
        let member = &mut self.members[at];
        member.place(serves && member.health.up, changes);
    }
}

/// A call named a server that the pool does not have, or has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// The server is in the pool already.
    Duplicate,
    /// There is no such server.
    Unknown,
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "the server is in the pool already",
            Self::Unknown => "no such server in the pool",
        })
    }
}

impl Error for PoolError {}

#[derive(Debug, Clone)]
struct Member<K> {
    server: K,
    /// What the operator wants.
    config: MemberConfig,
    /// What is observed.
    health: Health,
    /// The weight in the table; `None` while it is not there.
    table: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Health {
    up: bool,
    adjustment: i64,
}

impl<K: Copy> Member<K> {
    fn weight(&self) -> u32 {
        let adjusted =
            i64::from(self.config.weight.min(MAX_WEIGHT)).saturating_add(self.health.adjustment);
        u32::try_from(adjusted.clamp(0, i64::from(MAX_WEIGHT))).expect("clamped to 31 bits")
    }

    fn place(&mut self, serves: bool, changes: &mut Vec<Change<K>>) {
        let server = self.server;
        let wanted = match (serves, self.config.inhibit) {
            (true, _) => Some(self.weight()),
            (false, true) => Some(0),
            (false, false) => None,
        };
        changes.extend(match (std::mem::replace(&mut self.table, wanted), wanted) {
            (None, Some(weight)) => Some(Change::Add { server, weight }),
            (Some(old), Some(weight)) if old != weight => {
                Some(Change::SetWeight { server, weight })
            }
            (Some(_), None) => Some(Change::Delete { server }),
            _ => None,
        });
    }
}

/// What a real server's weight is at most: the table keeps it in a signed 32-bit number.
const MAX_WEIGHT: u32 = i32::MAX as u32;
