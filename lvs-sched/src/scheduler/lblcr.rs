use std::collections::VecDeque;
use std::time::Instant;

use super::locality::{Cache, Cached, Rank, is_overburdened};
use super::ranked::{Ranked, Ratio};
use super::{Peek, Request, Scheduler, Servers};

/// `lblcr`, locality-based least connection with replication.
///
/// Like [`lblc`](crate::LocalityLeastConnection), but remembers a set of servers for each
/// destination address. The least loaded member is chosen unless it is overburdened; then the
/// choice of [`wlc`](crate::WeightedLeastConnection) joins the set. A set that nobody joined or
/// left for [`Request::cache_life`] loses its most loaded member, one for each pick at most.
#[derive(Debug, Default)]
pub struct ReplicatedLocality {
    cache: Cache<Set>,
    ranked: Ranked<Rank>,
}

#[derive(Debug)]
struct Set {
    /// The latest first.
    members: VecDeque<Cached>,
    /// When somebody joined or left.
    modified: Option<Instant>,
}

impl Scheduler for ReplicatedLocality {
    fn pick(&mut self, servers: &Servers, request: &Request) -> Option<usize> {
        self.cache.advance(request);
        let Some(set) = self.cache.find(request) else {
            let index = self.ranked.least(servers)?;
            let set = Set {
                members: VecDeque::from([Cached::new(&servers[index])]),
                modified: request.now,
            };
            self.cache.store(request, set);
            return Some(index);
        };
        let mut chosen = None;
        if let Some(least) = set.least_loaded()
            && !is_overburdened(&mut self.ranked, servers, least)
        {
            chosen = self.ranked.choose(servers, least);
        }
        set.trim(request);
        if chosen.is_some() {
            return chosen;
        }
        let index = self.ranked.least(servers)?;
        let server = &servers[index];
        if !set.members.iter().any(|member| member.is(server)) {
            set.members.push_front(Cached::new(server));
            set.modified = request.now;
        }
        Some(index)
    }

    fn peek(&mut self, servers: &Servers, request: &Request) -> Peek {
        if let Some(set) = self.cache.peek(request)
            && let Some(least) = set.least_loaded()
            && !is_overburdened(&mut self.ranked, servers, least)
            && let Some(index) = self.ranked.place(servers, least)
        {
            return Peek::Known(Some(index));
        }
        Peek::Known(self.ranked.peek(servers))
    }

    fn list_changed(&mut self) {
        self.ranked.list_changed();
    }

    fn attached(&mut self, _: &Servers) {
        self.cache = Cache::default();
        self.ranked.list_changed();
    }

    fn server_changed(&mut self, servers: &Servers, index: usize) {
        self.ranked.server_changed(servers, index);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.cache.handle_timeout(now);
    }
}

impl Set {
    fn least_loaded(&self) -> Option<&Cached> {
        let able = self
            .members
            .iter()
            .filter(|member| member.is_open() && !member.is_overloaded());
        able.reduce(|best, member| {
            if ratio(member).is_less(ratio(best)) {
                member
            } else {
                best
            }
        })
    }

    /// Lets the most loaded member go, whether or not it is available or overloaded.
    fn trim(&mut self, request: &Request) {
        let Some(now) = request.now else { return };
        let rested = self
            .modified
            .and_then(|modified| modified.checked_add(request.cache_life))
            .is_some_and(|end| now > end);
        if self.members.len() < 2 || !rested {
            return;
        }
        let weighted = (0..self.members.len()).filter(|i| !self.members[*i].is_quiesced());
        let most = weighted.reduce(|most, i| {
            if ratio(&self.members[most]).is_less(ratio(&self.members[i])) {
                i
            } else {
                most
            }
        });
        if let Some(most) = most {
            self.members.remove(most);
            self.modified = Some(now);
        }
    }
}

fn ratio(member: &Cached) -> Ratio {
    Ratio::new(member.cost(), member.effective_weight().get())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::SchedulerKind::ReplicatedLocality;
    use crate::scheduler::tests::Pool;

    #[test]
    fn worked_example() {
        let start = Instant::now();
        let pool = Pool::filled(ReplicatedLocality, &[('A', 1), ('B', 2), ('C', 3)]);
        let pick = |seconds, active| {
            pool.set_active(active);
            pool.pick_timed(
                "198.51.100.1",
                start + Duration::from_secs(seconds),
                Duration::from_secs(1000),
            )
        };
        assert_eq!(pick(0, [0, 0, 0]), 'A');
        assert_eq!(pick(0, [2, 0, 0]), 'B');
        assert_eq!(pick(0, [2, 3, 0]), 'C');
        assert_eq!(pick(0, [2, 3, 1]), 'C');
        assert_eq!(pick(1000, [2, 3, 1]), 'C');
        // A is still a member: the only one with a weight.
        pool.edit('B', 0);
        pool.edit('C', 0);
        assert_eq!(pick(1000, [1, 3, 1]), 'A');
        pool.edit('B', 2);
        pool.edit('C', 3);
        assert_eq!(pick(1001, [2, 3, 1]), 'C');
        assert_eq!(pick(1901, [2, 3, 1]), 'C');
        assert_eq!(pick(2002, [2, 3, 1]), 'C');
        assert_eq!(pick(9999, [2, 3, 1]), 'C');
    }
}
