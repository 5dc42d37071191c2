//! Emptying a real server: who is left, the moment when nobody is, and the forced end.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::RealServer;
use crate::atomic::{AtomicU32, Mutex};

/// A server on its way out, made by [`VirtualService::drain`](crate::VirtualService::drain).
///
/// The server's weight is 0, so it gets no new connections but those that persistence sends to it.
/// A small machine in the style of this crate: call [`handle_timeout`](Self::handle_timeout) when
/// [`poll_timeout`](Self::poll_timeout) is due and ask [`poll_event`](Self::poll_event) for the
/// outcome. It is also a [`Future`] of the outcome, which is woken by the last connection's end or
/// by [`force`](Self::force); the deadline needs a timer of the caller's runtime.
///
/// Dropping it changes nothing: the server stays at weight 0.
#[derive(Debug)]
pub struct Drain {
    server: Arc<RealServer>,
    deadline: Option<Instant>,
    outcome: Option<DrainEvent>,
    told: bool,
    waiter: Waiter,
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrainEvent {
    /// Nothing is bound to the server any longer.
    Done,
    /// The deadline passed, or the end was forced. Every lease says so from now on
    /// ([`Lease::is_ended`](crate::Lease::is_ended)).
    Forced(Remaining),
}

/// What is still bound to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remaining {
    /// Active connections and leases.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Persistence templates, each of which may bring new connections.
    pub persistent: u32,
}

impl Drain {
    pub(crate) fn new(server: Arc<RealServer>, deadline: Option<Instant>) -> Self {
        Self {
            server,
            deadline,
            outcome: None,
            told: false,
            waiter: Waiter::default(),
        }
    }

    /// The server.
    pub fn server(&self) -> &Arc<RealServer> {
        &self.server
    }

    /// Who is left.
    pub fn remaining(&self) -> Remaining {
        remaining(&self.server)
    }

    /// The deadline, until the drain is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.outcome.is_none())
    }

    /// Forces the end if the deadline has come and somebody is left.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.force();
        }
    }

    /// Forces the end now. Leases learn of it; the director ends tracked connections at their next
    /// packet.
    pub fn force(&mut self) {
        if self.settle().is_none() {
            let left = self.remaining();
            self.server.watch().force();
            self.outcome = Some(DrainEvent::Forced(left));
        }
    }

    /// The outcome, once.
    pub fn poll_event(&mut self) -> Option<DrainEvent> {
        let outcome = self.settle()?;
        (!std::mem::replace(&mut self.told, true)).then_some(outcome)
    }

    fn settle(&mut self) -> Option<DrainEvent> {
        if self.outcome.is_none() && self.server.is_idle() {
            self.outcome = Some(DrainEvent::Done);
        }
        self.outcome
    }
}

impl Future for Drain {
    type Output = DrainEvent;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<DrainEvent> {
        let this = &mut *self;
        this.waiter.register(&this.server, cx.waker());
        match this.settle() {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.waiter.leave(&self.server);
    }
}

/// The forced end of a lease's connection, made by [`Lease::ended`](crate::Lease::ended). A proxy
/// waits for it beside the connection itself.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Ended<'a> {
    server: &'a RealServer,
    generation: u32,
    waiter: Waiter,
}

impl<'a> Ended<'a> {
    pub(crate) fn new(server: &'a RealServer, generation: u32) -> Self {
        Self {
            server,
            generation,
            waiter: Waiter::default(),
        }
    }
}

impl Future for Ended<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let watch = this.server.watch();
        if watch.generation() == this.generation {
            // While the lease lives its server is never empty, so nobody but a forced end takes
            // the waker out: one registration is enough.
            this.waiter.register_once(this.server, cx.waker());
        }
        if watch.generation() == this.generation {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.waiter.leave(self.server);
    }
}

/// A server's side: who waits, and how often the end was forced.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    waiting: Mutex<BTreeMap<u64, Waker>>,
    next: AtomicU64,
    generation: AtomicU32,
    forced: AtomicBool,
}

impl Watch {
    /// Counts forced ends. A lease that has seen another number is over.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Whether the end was forced and the server got no weight since.
    pub(crate) fn is_forced(&self) -> bool {
        self.forced.load(Ordering::Relaxed)
    }

    pub(crate) fn reopen(&self) {
        if self.is_forced() {
            self.forced.store(false, Ordering::Relaxed);
        }
    }

    /// The last connection is gone.
    #[cold]
    pub(crate) fn wake(&self, server: &RealServer) {
        let mut waiting = self.waiting.lock();
        server.clear_draining();
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        woken.into_values().for_each(Waker::wake);
    }

    fn force(&self) {
        self.forced.store(true, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::SeqCst);
        let woken = std::mem::take(&mut *self.waiting.lock());
        woken.into_values().for_each(Waker::wake);
    }
}

/// A place among those who wait.
#[derive(Debug, Default)]
struct Waiter {
    id: Option<u64>,
    waker: Option<Waker>,
}

impl Waiter {
    fn register(&mut self, server: &RealServer, waker: &Waker) {
        let watch = server.watch();
        let id = *self
            .id
            .get_or_insert_with(|| watch.next.fetch_add(1, Ordering::Relaxed));
        let mut waiting = watch.waiting.lock();
        waiting.insert(id, waker.clone());
        server.set_draining();
    }

    fn register_once(&mut self, server: &RealServer, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            self.register(server, waker);
            self.waker = Some(waker.clone());
        }
    }

    fn leave(&mut self, server: &RealServer) {
        if let Some(id) = self.id.take() {
            server.watch().waiting.lock().remove(&id);
        }
    }
}

fn remaining(server: &RealServer) -> Remaining {
    Remaining {
        active: server.active(),
        inactive: server.inactive(),
        persistent: server.persistent(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::time::Duration;

    use super::*;
    use crate::{ServerConfig, ServiceConfig, VirtualService, Weight};

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn addr() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 80))
    }

    fn client() -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], 4000))
    }

    fn service() -> VirtualService {
        let service = VirtualService::new(ServiceConfig::default());
        service.add_server(addr(), ServerConfig::default()).unwrap();
        service
    }

    #[test]
    fn the_last_lease_ends_the_drain() {
        let service = service();
        let leases = [
            service.connect(client()).unwrap(),
            service.connect(client()).unwrap(),
        ];
        let mut drain = service.drain(addr(), None).unwrap();
        assert!(service.connect(client()).is_err());
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut drain).poll(&mut cx).is_pending());
        let [first, second] = leases;
        drop(first);
        assert_eq!((drain.remaining().active, drain.poll_event()), (1, None));
        assert_eq!(bell.0.load(Ordering::SeqCst), 0);
        drop(second);
        assert_eq!(bell.0.load(Ordering::SeqCst), 1);
        assert_eq!(
            Pin::new(&mut drain).poll(&mut cx),
            Poll::Ready(DrainEvent::Done)
        );
        assert_eq!(drain.poll_event(), Some(DrainEvent::Done));
        assert_eq!(drain.poll_event(), None);
    }

    #[test]
    fn the_deadline_forces_the_end_and_leases_learn_of_it() {
        let service = service();
        let now = Instant::now();
        let lease = service.connect(client()).unwrap();
        let deadline = now + Duration::from_secs(30);
        let mut drain = service.drain(addr(), Some(deadline)).unwrap();
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut cx = Context::from_waker(&waker);
        let mut ended = Box::pin(lease.ended());
        assert!(ended.as_mut().poll(&mut cx).is_pending());
        drain.handle_timeout(now + Duration::from_secs(29));
        assert_eq!(
            (drain.poll_event(), drain.poll_timeout()),
            (None, Some(deadline))
        );
        drain.handle_timeout(deadline);
        let left = Remaining {
            active: 1,
            ..Remaining::default()
        };
        assert_eq!(drain.poll_event(), Some(DrainEvent::Forced(left)));
        assert_eq!((drain.poll_timeout(), lease.is_ended()), (None, true));
        assert_eq!(bell.0.load(Ordering::SeqCst), 1);
        assert!(ended.as_mut().poll(&mut cx).is_ready());

        service.set_weight(addr(), Weight::ONE).unwrap();
        let fresh = service.connect(client()).unwrap();
        assert_eq!((fresh.is_ended(), lease.is_ended()), (false, true));
    }

    #[test]
    fn an_empty_server_is_done_at_once() {
        let service = service();
        let mut drain = service.drain(addr(), Some(Instant::now())).unwrap();
        assert_eq!(drain.poll_event(), Some(DrainEvent::Done));
    }

    #[test]
    fn tracked_connections_count_and_end_at_their_next_packet() {
        use crate::{
            Direction, Director, DirectorConfig, Packet, Protocol, ServiceKey, TcpFlags, Verdict,
        };
        let director = Arc::new(Director::new(DirectorConfig::new([1, 2, 3, 4])));
        let mut worker = director.worker();
        let now = Instant::now();
        let vip = SocketAddr::from(([203, 0, 113, 10], 80));
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            vip: vip.ip(),
            vport: vip.port(),
        };
        let service = director.add_service(key, ServiceConfig::default()).unwrap();
        director
            .add_server(now, &key, addr(), ServerConfig::default())
            .unwrap();
        let packet = |tcp_flags| Packet {
            protocol: Protocol::Tcp,
            source: client(),
            destination: vip,
            direction: Direction::Inbound,
            tcp_flags,
            sctp: None,
            length: 60,
            mark: 0,
        };
        for flags in [TcpFlags::SYN, TcpFlags::ACK] {
            let verdict = worker.handle_packet(now, &packet(flags));
            assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
        }
        let mut drain = service.drain(addr(), Some(now)).unwrap();
        let verdict = worker.handle_packet(now, &packet(TcpFlags::ACK));
        assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
        assert_eq!((drain.remaining().active, drain.poll_event()), (1, None));
        drain.handle_timeout(now);
        let verdict = worker.handle_packet(now, &packet(TcpFlags::ACK));
        assert_eq!(verdict, Verdict::NotOurs);
        assert_eq!((worker.len(), drain.remaining()), (0, Remaining::default()));
    }
}
