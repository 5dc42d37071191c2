//! The weight of a server that has come back grows over some time.

use std::time::{Duration, Instant};

use crate::Change;

/// Slow start: between a [`Pool`](crate::Pool) and the table, lets the weight of a server that comes back grow from a
/// part of it to the whole, so that cold caches and empty connection pools meet little traffic first.
///
/// Steps of the pool pass through [`handle_change`](Self::handle_change) on their way to the table, those of
/// [`Pool::start`](crate::Pool::start) past it: servers that begin together share the load anyway. A server comes back
/// when it is put in, or gets a weight after 0; one that leaves meanwhile begins anew the next time. In
/// [`length`](Self::new) the weight grows linearly from a twentieth, in twenty steps at most and never below 1: a
/// weight of 1 has nothing to grow by, weights of some tens do.
///
/// ```
/// use std::time::{Duration, Instant};
/// use lvs_health::{Change, SlowStart};
///
/// let start = Instant::now();
/// let mut slow = SlowStart::new(Duration::from_secs(20));
/// let back = Change::Add { server: "web1", weight: 100 };
/// assert_eq!(slow.handle_change(start, back), Change::Add { server: "web1", weight: 5 });
///
/// let due = slow.poll_timeout().expect("it grows");
/// assert_eq!(due, start + Duration::from_secs(1));
/// assert_eq!(slow.handle_timeout(due), [Change::SetWeight { server: "web1", weight: 10 }]);
/// // Late calls catch up.
/// let changes = slow.handle_timeout(start + Duration::from_secs(60));
/// assert_eq!(changes, [Change::SetWeight { server: "web1", weight: 100 }]);
/// assert_eq!(slow.poll_timeout(), None);
/// ```
#[derive(Debug, Clone)]
pub struct SlowStart<K> {
    length: Duration,
    /// Servers that the table has.
    members: Vec<Member<K>>,
}

#[derive(Debug, Clone)]
struct Member<K> {
    server: K,
    /// What the pool wants.
    full: u32,
    /// What the table has.
    told: u32,
    /// When it came back, while it grows.
    since: Option<Instant>,
}

impl<K: Copy + Eq> SlowStart<K> {
    /// Weights grow for this long; with zero they are whole at once.
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            members: Vec::new(),
        }
    }

    /// The step that the table should take for a step of the pool.
    pub fn handle_change(&mut self, now: Instant, change: Change<K>) -> Change<K> {
        match change {
            Change::Add { server, weight } => {
                let weight = self.set(now, server, weight);
                Change::Add { server, weight }
            }
            Change::SetWeight { server, weight } => {
                let weight = self.set(now, server, weight);
                Change::SetWeight { server, weight }
            }
            Change::Delete { server } => {
                self.members.retain(|member| member.server != server);
                change
            }
            other => other,
        }
    }

    /// A server that is in the table with its whole weight, from [`Pool::start`](crate::Pool::start) for example: if it is
    /// given another one it does not grow.
    pub fn add_whole(&mut self, server: K, weight: u32) {
        self.members.retain(|member| member.server != server);
        self.members.push(Member {
            server,
            full: weight,
            told: weight,
            since: None,
        });
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` while nothing grows.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let growing = self.members.iter();
        growing.filter_map(|member| self.next(member)).min()
    }

    /// The steps that are due.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Change<K>> {
        let mut changes = Vec::new();
        let length = self.length;
        for member in &mut self.members {
            let weight = member.weight(now, length);
            if weight != member.told {
                member.told = weight;
                changes.push(Change::SetWeight {
                    server: member.server,
                    weight,
                });
            }
        }
        changes
    }

    fn set(&mut self, now: Instant, server: K, full: u32) -> u32 {
        let length = self.length;
        let at = self.members.iter().position(|it| it.server == server);
        let at = at.unwrap_or_else(|| {
            self.members.push(Member {
                server,
                full: 0,
                told: 0,
                since: None,
            });
            self.members.len() - 1
        });
        let member = &mut self.members[at];
        if full == 0 {
            member.since = None;
        } else if member.full == 0 {
            member.since = Some(now);
        }
        member.full = full;
        member.told = member.weight(now, length);
        member.told
    }

    fn next(&self, member: &Member<K>) -> Option<Instant> {
        let since = member.since?;
        // A step that changes nothing is not waited for.
        let step = (1..STEPS).find(|step| part(member.full, *step) > member.told)?;
        since.checked_add(self.length / STEPS * step)
    }
}

impl<K> Member<K> {
    /// What it should have now. Forgets that it grew when it is whole.
    fn weight(&mut self, now: Instant, length: Duration) -> u32 {
        let Some(since) = self.since else {
            return self.full;
        };
        let (passed, each) = (now.saturating_duration_since(since), length / STEPS);
        let step = (0..STEPS).rev().find(|step| passed >= each * *step);
        let weight = part(self.full, step.unwrap_or_default());
        if weight == self.full {
            self.since = None;
        }
        weight
    }
}

/// The weight after so many steps, of which the last gives the whole one.
fn part(full: u32, step: u32) -> u32 {
    let part = u64::from(full) * u64::from(step + 1) / u64::from(STEPS);
    u32::try_from(part).unwrap_or(full).max(full.min(1))
}

const STEPS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemberConfig, Pool, PoolConfig};

    const SECOND: Duration = Duration::from_secs(1);

    fn grow(slow: &mut SlowStart<u8>) -> Vec<(Instant, Change<u8>)> {
        let mut seen = Vec::new();
        while let Some(due) = slow.poll_timeout() {
            let changes = slow.handle_timeout(due);
            assert!(!changes.is_empty(), "woken for nothing");
            seen.extend(changes.into_iter().map(|change| (due, change)));
            assert!(seen.len() <= 100, "it never ends");
        }
        seen
    }

    #[test]
    fn weight_grows_in_equal_steps_to_the_whole() {
        let start = Instant::now();
        let mut slow = SlowStart::new(20 * SECOND);
        let first = slow.handle_change(
            start,
            Change::Add {
                server: 1,
                weight: 200,
            },
        );
        assert_eq!(
            first,
            Change::Add {
                server: 1,
                weight: 10
            }
        );
        let seen = grow(&mut slow);
        let expected: Vec<_> = (1..20)
            .map(|n| {
                (
                    start + n * SECOND,
                    Change::SetWeight {
                        server: 1,
                        weight: 10 * (n + 1),
                    },
                )
            })
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn small_weights_wake_only_for_what_changes() {
        let start = Instant::now();
        for (weight, steps) in [(1, 0), (2, 1), (3, 2), (7, 6), (u32::MAX, 19)] {
            let mut slow = SlowStart::new(20 * SECOND);
            slow.handle_change(start, Change::Add { server: 1, weight });
            let seen = grow(&mut slow);
            assert_eq!(seen.len(), steps, "{weight}");
            if let Some((_, last)) = seen.last() {
                assert_eq!(*last, Change::SetWeight { server: 1, weight });
            }
        }
        let mut none = SlowStart::new(Duration::ZERO);
        let whole = Change::Add {
            server: 1,
            weight: 100,
        };
        assert_eq!(none.handle_change(start, whole), whole);
        assert_eq!(none.poll_timeout(), None);
    }

    #[test]
    fn new_weight_keeps_the_place_and_a_failure_begins_anew() {
        let start = Instant::now();
        let mut slow = SlowStart::new(20 * SECOND);
        slow.handle_change(
            start,
            Change::Add {
                server: 1,
                weight: 100,
            },
        );
        let half = start + 9 * SECOND;
        let reweighed = slow.handle_change(
            half,
            Change::SetWeight {
                server: 1,
                weight: 40,
            },
        );
        assert_eq!(
            reweighed,
            Change::SetWeight {
                server: 1,
                weight: 20
            }
        );
        slow.handle_change(half, Change::Delete { server: 1 });
        assert_eq!(slow.poll_timeout(), None);
        let again = slow.handle_change(
            half,
            Change::Add {
                server: 1,
                weight: 40,
            },
        );
        assert_eq!(
            again,
            Change::Add {
                server: 1,
                weight: 2
            }
        );
    }

    /// A server with inhibit_on_failure stays with weight 0; one that was there from the start does not grow when it is
    /// given another weight.
    #[test]
    fn pool_steps_pass_through() {
        let start = Instant::now();
        let mut pool = Pool::new(PoolConfig::default());
        let config = |inhibit| MemberConfig {
            weight: 100,
            inhibit,
        };
        pool.add_server(1, config(true), true).unwrap();
        pool.add_server(2, config(false), true).unwrap();
        let mut slow = SlowStart::new(20 * SECOND);
        for change in pool.start() {
            if let Change::Add { server, weight } = change {
                slow.add_whole(server, weight);
            }
        }
        let table = |slow: &mut SlowStart<u8>, changes: Vec<Change<u8>>| -> Vec<Change<u8>> {
            let steps = changes.into_iter();
            steps
                .map(|change| slow.handle_change(start, change))
                .collect()
        };
        let changes = pool.set_weight(2, 50).unwrap();
        let set = table(&mut slow, changes);
        assert_eq!(
            set[0],
            Change::SetWeight {
                server: 2,
                weight: 50
            }
        );
        let changes = pool.handle_server_down(1).unwrap();
        let down = table(&mut slow, changes);
        assert_eq!(
            down[0],
            Change::SetWeight {
                server: 1,
                weight: 0
            }
        );
        let changes = pool.handle_server_up(1).unwrap();
        let up = table(&mut slow, changes);
        assert_eq!(
            up,
            [
                Change::SetWeight {
                    server: 1,
                    weight: 5
                },
                Change::ServerUp { server: 1 }
            ]
        );
    }
}
