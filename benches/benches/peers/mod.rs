//! Other crates, each in the tier where it plays, with the same servers and clients.

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use anchorhash::AnchorHash;
use criterion::{BenchmarkId, Criterion, Throughput};
use maglev::ConsistentHasher;
use pingora_ketama::{Bucket, Continuum};
use pingora_load_balancing::selection::{
    BackendIter, BackendSelection, Consistent, Random, RoundRobin,
};
use pingora_load_balancing::{Backend, Backends, LoadBalancer, discovery};

use super::{Clients, SIZES, server};

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("T0 pick, peers");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let addrs: Vec<SocketAddr> = (0..size).map(server).collect();
        let mut clients = Clients::new();

        // It keeps each server's whole permutation: 80 GB for ten thousand.
        if size <= 1_000 {
            let table = maglev::Maglev::new(addrs.clone());
            group.bench_function(BenchmarkId::new("maglev", size), |b| {
                b.iter(|| black_box(table.get(&clients.next())));
            });
        }
        let mut ring = hashring::HashRing::new();
        // One by one it sorts the ring each time: minutes for ten thousand.
        ring.batch_add(addrs.clone());
        group.bench_function(BenchmarkId::new("hashring", size), |b| {
            b.iter(|| black_box(ring.get(&clients.next())));
        });
        let buckets: Vec<_> = addrs.iter().map(|addr| Bucket::new(*addr, 1)).collect();
        let continuum = Continuum::new(&buckets);
        group.bench_function(BenchmarkId::new("pingora-ketama", size), |b| {
            b.iter(|| {
                let SocketAddr::V4(client) = clients.next() else {
                    return None;
                };
                black_box(continuum.node(&client.ip().octets()))
            });
        });
        let anchor: AnchorHash<SocketAddr, SocketAddr, _> = anchorhash::Builder::default()
            .with_resources(addrs.clone())
            .build(size as u16 + size as u16 / 2);
        group.bench_function(BenchmarkId::new("anchorhash", size), |b| {
            b.iter(|| black_box(anchor.get_resource(clients.next())));
        });
    }
    group.finish();
    pingora::<RoundRobin>(c, "pingora round robin");
    pingora::<Random>(c, "pingora random");
    pingora::<Consistent>(c, "pingora consistent");
    p2c(c);
}

/// `select` asks for health too: tier 1.
fn pingora<S>(c: &mut Criterion, name: &str)
where
    S: BackendSelection + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    let mut group = c.benchmark_group("T1 pick and health, peers");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let backends: BTreeSet<Backend> = (0..size)
            .map(|number| Backend::new(&server(number).to_string()).expect("an address"))
            .collect();
        let backends = Backends::new(discovery::Static::new(backends));
        let balancer = LoadBalancer::<S>::from_backends(backends);
        let mut update = Box::pin(balancer.update());
        let mut cx = Context::from_waker(Waker::noop());
        while update.as_mut().poll(&mut cx).is_pending() {}
        let mut clients = Clients::new();
        group.bench_function(BenchmarkId::new(name, size), |b| {
            b.iter(|| {
                let SocketAddr::V4(client) = clients.next() else {
                    return None;
                };
                black_box(balancer.select(&client.ip().octets(), 256))
            });
        });
    }
    group.finish();
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

/// The choice and the count of pending requests: tier 2.
fn p2c(c: &mut Criterion) {
    use tower::Service;
    use tower::load::{CompleteOnResponse, PendingRequests};
    let mut group = c.benchmark_group("T2 pick and lease, peers");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let services: HashMap<u32, _> = (0..size)
            .map(|number| {
                (
                    number,
                    PendingRequests::new(Instantly, CompleteOnResponse::default()),
                )
            })
            .collect();
        let mut balance = tower::balance::p2c::Balance::new(
            tower::discover::ServiceList::new::<()>(services.into_values()),
        );
        let mut cx = Context::from_waker(Waker::noop());
        group.bench_function(BenchmarkId::new("tower p2c", size), |b| {
            b.iter(|| {
                let ready = Service::<()>::poll_ready(&mut balance, &mut cx);
                assert!(
                    matches!(ready, Poll::Ready(Ok(()))),
                    "services are always ready"
                );
                drop(black_box(balance.call(())));
            });
        });
    }
    group.finish();
}
