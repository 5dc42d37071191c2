use std::time::Instant;

use super::locality::{Cache, Cached, Rank, is_overburdened};
use super::ranked::Ranked;
use super::{Peek, Request, Scheduler, Servers};

/// `lblc`, locality-based least connection.
///
/// Remembers for each destination address the server that had its last connection, and chooses it
/// again unless it was removed, is quiesced or is *overburdened*: more active connections than its
/// weight while some server of the service has fewer than half of its own. The overload flag does
/// not matter for a remembered server. Without one the choice is that of
/// [`wlc`](crate::WeightedLeastConnection), and is remembered.
///
/// What was not used for [`Request::cache_life`] is forgotten, every half hour; beyond 16384
/// addresses what was not used for six minutes.
#[derive(Debug, Default)]
pub struct LocalityLeastConnection {
    cache: Cache<Cached>,
    ranked: Ranked<Rank>,
}

impl Scheduler for LocalityLeastConnection {
    fn pick(&mut self, servers: &Servers, request: &Request) -> Option<usize> {
        self.cache.advance(request);
        if let Some(server) = self.cache.find(request)
            && server.is_open()
            && !is_overburdened(&mut self.ranked, servers, server)
            && let Some(index) = self.ranked.choose(servers, server)
        {
            return Some(index);
        }
        let index = self.ranked.least(servers)?;
        let server = &servers[index];
        if !self.cache.find(request).is_some_and(|old| old.is(server)) {
            self.cache.store(request, Cached::new(server));
        }
        Some(index)
    }

    fn peek(&mut self, servers: &Servers, request: &Request) -> Peek {
        if let Some(server) = self.cache.peek(request)
            && server.is_open()
            && !is_overburdened(&mut self.ranked, servers, server)
            && let Some(index) = self.ranked.place(servers, server)
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

#[cfg(test)]
mod tests {
    use crate::SchedulerKind::LocalityLeastConnection;
    use crate::scheduler::tests::{Pool, addr, weighing};

    const X: &str = "198.51.100.1";
    const Y: &str = "198.51.100.2";

    #[test]
    fn worked_example() {
        let pool = Pool::filled(LocalityLeastConnection, &[('A', 1), ('B', 2), ('C', 3)]);
        assert_eq!(pool.pick_to(X), 'A');
        pool.set_active([1, 0, 0]);
        assert_eq!(pool.pick_to(X), 'A');
        assert_eq!(pool.pick_to(Y), 'B');
        pool.set_active([2, 2, 2]);
        assert_eq!(pool.pick_to(X), 'A');
        pool.set_active([2, 2, 1]);
        assert_eq!(pool.pick_to(X), 'C');
        pool.set_active([0, 2, 1]);
        assert_eq!(pool.pick_to(X), 'C');
        pool.limit('C', 1);
        assert!(pool.server('C').is_overloaded());
        assert_eq!(pool.pick_to(X), 'C');
        pool.edit('C', 0);
        assert_eq!(pool.pick_to(X), 'A');
    }

    #[test]
    fn a_removed_server_is_remembered_until_it_comes_back() {
        let pool = Pool::filled(LocalityLeastConnection, &[('A', 1), ('B', 1)]);
        assert_eq!(pool.pick_to(X), 'A');
        let server = pool.service.remove_server(addr('A')).unwrap();
        assert!(server.is_referenced());
        let config = weighing(1);
        pool.service.insert(server, &config).unwrap();
        pool.load('A', 1, 0);
        assert_eq!(pool.pick_to(X), 'A');
        let server = pool.service.remove_server(addr('A')).unwrap();
        assert_eq!(pool.pick_to(X), 'B');
        server.unbind(crate::real_server::Class::Active);
        assert!(!server.is_referenced());
    }
}
