use std::sync::Arc;

use super::hash::{fold, h32};
use super::{Peek, Request, Scheduler, Servers, SharedPick, Superseded};
use crate::SchedulerFlags;

/// `sh`, source hashing.
///
/// 256 buckets: going round the list, each server gets as many in a row as its weight says, a
/// quiesced one gets one. The client's address, with [`PORT`](SchedulerFlags::PORT) also its port,
/// names the bucket. If the bucket's server is quiesced or overloaded there is no server, unless
/// [`FALLBACK`](SchedulerFlags::FALLBACK) is set: then the search starts at the bucket of twice the
/// number and goes upwards.
#[derive(Debug, Default)]
pub struct SourceHash {
    /// Built when it is first needed after a change.
    table: Option<Arc<Table>>,
}

#[derive(Debug)]
struct Table {
    /// Positions in the list; none without servers.
    buckets: Vec<u32>,
}

impl Scheduler for SourceHash {
    fn pick(&mut self, servers: &Servers, request: &Request) -> Option<usize> {
        self.table(servers).pick(servers, request)
    }

    fn peek(&mut self, servers: &Servers, request: &Request) -> Peek {
        Peek::Known(self.pick(servers, request))
    }

    fn list_changed(&mut self) {
        self.table = None;
    }

    fn share(&mut self, servers: &Servers) -> Option<Arc<dyn SharedPick>> {
        Some(Arc::clone(self.table(servers)) as _)
    }
}

impl SourceHash {
    fn table(&mut self, servers: &Servers) -> &Arc<Table> {
        self.table
            .get_or_insert_with(|| Arc::new(Table::new(servers)))
    }
}

impl SharedPick for Table {
    fn pick(&self, servers: &Servers, request: &Request) -> Result<Option<usize>, Superseded> {
        Ok(Self::pick(self, servers, request))
    }

    fn peek(&self, servers: &Servers, request: &Request) -> Peek {
        Peek::Known(Self::pick(self, servers, request))
    }

    fn is_traceless(&self) -> bool {
        true
    }
}

impl Table {
    fn new(servers: &Servers) -> Self {
        let mut buckets = Vec::with_capacity(BUCKETS);
        if !servers.is_empty() {
            for index in (0..servers.len()).cycle() {
                let weight = servers[index].effective_weight().get().max(1) as usize;
                let count = weight.min(BUCKETS - buckets.len());
                buckets.extend(std::iter::repeat_n(index as u32, count));
                if buckets.len() == BUCKETS {
                    break;
                }
            }
        }
        Self { buckets }
    }

    fn pick(&self, servers: &Servers, request: &Request) -> Option<usize> {
        let base = h32(
            fold(request.client.ip()).wrapping_add(u32::from(request.port())),
            BITS,
        );
        let usable = |bucket: usize| {
            let index = *self.buckets.get(bucket)? as usize;
            servers[index].is_usable().then_some(index)
        };
        usable(base).or_else(|| {
            if request.flags.contains(SchedulerFlags::FALLBACK) {
                (0..BUCKETS).find_map(|offset| usable((2 * base + offset) % BUCKETS))
            } else {
                None
            }
        })
    }
}

const BITS: u32 = 8;
const BUCKETS: usize = 1 << BITS;

#[cfg(test)]
mod tests {
    use crate::SchedulerFlags;
    use crate::SchedulerKind::SourceHash;
    use crate::scheduler::tests::Pool;

    const CLIENTS: [&str; 5] = [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
        "203.0.113.9",
        "10.1.2.3",
    ];

    fn pool() -> Pool {
        Pool::filled(SourceHash, &[('A', 1), ('B', 2), ('C', 1)])
    }

    #[test]
    fn worked_example() {
        let pool = pool();
        assert_eq!(pool.picks_from(&CLIENTS, 40_000), "BABAB");
        pool.set_flags(SchedulerFlags::PORT);
        assert_eq!(pool.picks_from(&CLIENTS, 40_000), "BABAB");
        // Buckets 214 and 56 hold B and A as well; one more port moves on.
        assert_eq!(pool.picks_from(&["192.0.2.1"], 40_001), "A");
    }

    #[test]
    fn fallback_starts_at_twice_the_bucket() {
        let pool = pool();
        pool.overload('B', true);
        assert_eq!(pool.picks_from(&["192.0.2.1", "192.0.2.3"], 1), "--");
        pool.set_flags(SchedulerFlags::FALLBACK);
        assert_eq!(pool.picks_from(&["192.0.2.1", "192.0.2.3"], 1), "AA");
        pool.overload('B', false);
        pool.overload('A', true);
        assert_eq!(pool.picks_from(&["192.0.2.2"], 1), "B");
    }

    #[test]
    fn a_quiesced_server_keeps_one_bucket_a_round() {
        let pool = Pool::filled(SourceHash, &[('A', 1), ('B', 0), ('C', 1)]);
        assert_eq!(pool.picks_from(&["192.0.2.1", "192.0.2.2"], 1), "C-");
    }

    #[test]
    fn weights_beyond_the_table_leave_nothing_to_the_last() {
        let pool = Pool::filled(SourceHash, &[('A', i32::MAX as u32), ('B', 1)]);
        assert_eq!(pool.picks_from(&CLIENTS, 1), "AAAAA");
    }
}
