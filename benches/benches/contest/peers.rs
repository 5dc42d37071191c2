//! Other crates.

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use anchorhash::AnchorHash;
use maglev::ConsistentHasher;
use pingora_ketama::{Bucket, Continuum};
use pingora_load_balancing::selection::{
    BackendIter, BackendSelection, Consistent, Random, RoundRobin,
};
use pingora_load_balancing::{Backend, Backends, LoadBalancer, discovery};

use super::{Calls, Contestant, Tier, repeat, unhealthy};
use crate::common::{Clients, server};

pub(super) fn contestants(tier: Tier, size: u32) -> Vec<Contestant> {
    let peer = |name, beside, build: fn(u32) -> Calls| Contestant {
        name,
        beside: Some(beside),
        build: Box::new(move || build(size)),
    };
    // `select` always asks for health, and counts nothing.
    let mut all = match tier {
        Tier::Pick | Tier::Lease => vec![
            peer("pingora RoundRobin", "rr", |size| {
                pingora::<RoundRobin>(size, false)
            }),
            peer("pingora Random", "rr", |size| {
                pingora::<Random>(size, false)
            }),
            peer("pingora Consistent", "maglev", |size| {
                pingora::<Consistent>(size, false)
            }),
        ],
        Tier::Healthy => vec![
            peer("pingora RoundRobin", "rr", |size| {
                pingora::<RoundRobin>(size, true)
            }),
            peer("pingora Random", "rr", |size| pingora::<Random>(size, true)),
            peer("pingora Consistent", "maglev", |size| {
                pingora::<Consistent>(size, true)
            }),
        ],
        Tier::Held => Vec::new(),
    };
    match tier {
        Tier::Pick => {
            all.extend([
                peer("hashring", "maglev", hashring),
                peer("pingora-ketama", "maglev", ketama),
                peer("anchorhash", "maglev", anchor),
            ]);
            // It keeps each server's whole permutation: 80 GB for ten thousand.
            if size <= 1_000 {
                all.push(peer("maglev crate", "maglev", maglev));
            }
        }
        // The choice and the count of pending requests.
        Tier::Lease => all.push(peer("tower p2c", "wlc", p2c)),
        Tier::Healthy | Tier::Held => {}
    }
    all
}

fn addrs(size: u32) -> Vec<SocketAddr> {
    (0..size).map(server).collect()
}

fn maglev(size: u32) -> Calls {
    let table = maglev::Maglev::new(addrs(size));
    let mut clients = Clients::new();
    repeat(move || {
        black_box(table.get(&clients.next()));
    })
}

fn hashring(size: u32) -> Calls {
    let mut ring = hashring::HashRing::new();
    // One by one it sorts the ring each time: minutes for ten thousand.
    ring.batch_add(addrs(size));
    let mut clients = Clients::new();
    repeat(move || {
        black_box(ring.get(&clients.next()));
    })
}

fn ketama(size: u32) -> Calls {
    let buckets: Vec<_> = (addrs(size).into_iter())
        .map(|addr| Bucket::new(addr, 1))
        .collect();
    let continuum = Continuum::new(&buckets);
    let mut clients = Clients::new();
    repeat(move || {
        black_box(continuum.node(&octets(clients.next())));
    })
}

fn anchor(size: u32) -> Calls {
    let anchor: AnchorHash<SocketAddr, SocketAddr, _> = anchorhash::Builder::default()
        .with_resources(addrs(size))
        .build(size as u16 + size as u16 / 2);
    let mut clients = Clients::new();
    repeat(move || {
        black_box(anchor.get_resource(clients.next()));
    })
}

fn pingora<S>(size: u32, some_unhealthy: bool) -> Calls
where
    S: BackendSelection + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    let backend = |number| Backend::new(&server(number).to_string()).expect("an address");
    let all: BTreeSet<Backend> = (0..size).map(backend).collect();
    let balancer = LoadBalancer::<S>::from_backends(Backends::new(discovery::Static::new(all)));
    let mut cx = Context::from_waker(Waker::noop());
    let mut update = Box::pin(balancer.update());
    while update.as_mut().poll(&mut cx).is_pending() {}
    drop(update);
    for number in unhealthy(size).filter(|_| some_unhealthy) {
        balancer.backends().set_enable(&backend(number), false);
    }
    let mut clients = Clients::new();
    repeat(move || {
        black_box(balancer.select(&octets(clients.next()), 256));
    })
}

fn octets(client: SocketAddr) -> [u8; 4] {
    match client {
        SocketAddr::V4(client) => client.ip().octets(),
        SocketAddr::V6(_) => [0; 4],
    }
}

/// A service that is always ready and answers at once.
struct Instantly;

impl tower::Service<()> for Instantly {
    type Response = ();
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<(), Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

fn p2c(size: u32) -> Calls {
    use tower::Service;
    use tower::load::{CompleteOnResponse, PendingRequests};
    let services: HashMap<u32, _> = (0..size)
        .map(|number| {
            let service = PendingRequests::new(Instantly, CompleteOnResponse::default());
            (number, service)
        })
        .collect();
    let services = tower::discover::ServiceList::new::<()>(services.into_values());
    let mut balance = tower::balance::p2c::Balance::new(services);
    repeat(move || {
        let mut cx = Context::from_waker(Waker::noop());
        let ready = Service::<()>::poll_ready(&mut balance, &mut cx);
        assert!(
            matches!(ready, Poll::Ready(Ok(()))),
            "services are always ready"
        );
        drop(black_box(balance.call(())));
    })
}
