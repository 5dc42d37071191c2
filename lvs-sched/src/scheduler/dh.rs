use std::sync::Arc;

use super::hash::{fold, h32};
use super::{Peek, Request, Scheduler, Servers, SharedPick, Superseded};

/// `dh`, destination hashing.
///
/// 256 buckets, dealt to the servers in list order, round after round, without regard to weights.
/// The packet's destination address names the bucket. If the bucket's server is quiesced or
/// overloaded there is no server: others do not stand in.
#[derive(Debug, Default)]
pub struct DestinationHash;

#[derive(Debug)]
struct Shared;

impl Scheduler for DestinationHash {
    fn pick(&mut self, servers: &Servers, request: &Request) -> Option<usize> {
        pick(servers, request)
    }

    fn peek(&mut self, servers: &Servers, request: &Request) -> Peek {
        Peek::Known(pick(servers, request))
    }

    fn share(&mut self, _: &Servers) -> Option<Arc<dyn SharedPick>> {
        Some(Arc::new(Shared))
    }
}

impl SharedPick for Shared {
    fn pick(&self, servers: &Servers, request: &Request) -> Result<Option<usize>, Superseded> {
        Ok(pick(servers, request))
    }

    fn peek(&self, servers: &Servers, request: &Request) -> Peek {
        Peek::Known(pick(servers, request))
    }

    fn is_traceless(&self) -> bool {
        true
    }
}

/// The table is `bucket mod n`, so it needs no memory.
fn pick(servers: &Servers, request: &Request) -> Option<usize> {
    let bucket = h32(fold(request.destination.ip()), 8);
    let index = bucket.checked_rem(servers.len())?;
    servers[index].is_usable().then_some(index)
}

#[cfg(test)]
mod tests {
    use crate::SchedulerKind::DestinationHash;
    use crate::scheduler::tests::Pool;

    #[test]
    fn worked_example() {
        let pool = Pool::filled(DestinationHash, &[('A', 1), ('B', 5), ('C', 1)]);
        let cases = [
            ("198.51.100.1", 'A'),
            ("198.51.100.2", 'C'),
            ("198.51.100.3", 'C'),
            ("203.0.113.7", 'B'),
            ("192.0.2.200", 'C'),
            ("2001:db8::1", 'A'),
            ("2001:db8:0:1:2:3:4:5", 'B'),
        ];
        for (destination, expected) in cases {
            assert_eq!(pool.pick_to(destination), expected, "{destination}");
        }
        pool.edit('C', 0);
        assert_eq!(pool.pick_to("198.51.100.2"), '-');
        pool.overload('A', true);
        assert_eq!(pool.pick_to("198.51.100.1"), '-');
    }
}
