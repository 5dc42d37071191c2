//! The loop around an engine: wait, receive, decide, send. The shell of the data path, and the only part
//! of it that reads the clock.
//!
//! [`new`] makes one [`Control`] for the control thread and one [`Seat`] for each worker. A seat becomes a
//! [`Worker`] when it gets its balancer and devices; the worker belongs to a thread, which calls
//! [`run_once`](Worker::run_once) until it says to stop.
//!
//! **Changes.** The control thread publishes a [`View`]; workers read it once per batch and say afterwards
//! which generation they have passed. When all have passed one ([`Control::is_quiet`]) nothing is decided
//! under an older picture any more, and what only the old one needed may go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::balancer::Balancer;
use crate::device::{Device, DeviceCounters};
use crate::engine::{Engine, EngineConfig, Output};
use crate::frame::Frame;
use crate::handoff::{Handoff, Origin, QueueReceiver, QueueSender, queue};
use crate::neigh::HoldingConfig;
use crate::route::Hop;
use crate::stats::{Counters, DropReason};
use crate::sys::event::wait;
use crate::view::{PortId, View};

/// How a group of workers is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerConfig {
    /// Number of workers, at least 1.
    pub workers: u32,
    /// Frames taken from a device at once. 64 by default.
    pub batch: usize,
    /// Frames on their way to one worker at most. 1024 by default.
    pub handoff: usize,
    /// Bounds for frames that wait for a neighbour.
    pub holding: HoldingConfig,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            batch: 64,
            handoff: 1024,
            holding: HoldingConfig::default(),
        }
    }
}

/// Makes the control thread's end and a seat for each worker, all under this view.
///
/// # Errors
///
/// If no event descriptor is to be had.
pub fn new(config: RunnerConfig, view: View) -> io::Result<(Control, Vec<Seat>)> {
    let workers = config.workers.max(1);
    let (resolve, requests) = queue(RESOLVE_QUEUE)?;
    let mut inboxes = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..workers {
        let (sender, receiver) = queue(config.handoff)?;
        peers.push(sender);
        inboxes.push(receiver);
    }
    let shared = Arc::new(Shared {
        generation: AtomicU64::new(view.generation),
        view: ArcSwap::from_pointee(view),
        passed: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        devices: (0..workers).map(|_| Mutex::default()).collect(),
        stop: AtomicBool::new(false),
    });
    let mut counters = Vec::new();
    let seats = (0..workers).zip(inboxes).map(|(worker, inbox)| {
        let engine = Engine::new(EngineConfig {
            worker,
            workers,
            holding: config.holding,
        });
        counters.push(engine.counters());
        Seat {
            worker,
            batch: config.batch.max(1),
            engine,
            shared: Arc::clone(&shared),
            inbox,
            peers: peers.clone(),
            resolve: resolve.clone(),
        }
    });
    let seats = seats.collect();
    let control = Control {
        shared,
        peers,
        requests,
        counters,
    };
    Ok((control, seats))
}

/// The control thread's end.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    peers: Vec<QueueSender<Parcel>>,
    requests: QueueReceiver<Hop>,
    counters: Vec<Arc<Counters>>,
}

impl Control {
    /// The view in force.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// Puts a view in force under a new generation number, which is returned. Only one thread may publish.
    pub fn publish(&self, mut view: View) -> u64 {
        let generation = self.shared.generation.load(Ordering::Relaxed) + 1;
        self.shared.generation.store(generation, Ordering::Relaxed);
        view.generation = generation;
        self.shared.view.store(Arc::new(view));
        self.wake();
        generation
    }

    /// Whether every worker works under this generation or a later one, and has finished all batches begun
    /// under earlier ones. A worker that has left passes everything.
    pub fn is_quiet(&self, generation: u64) -> bool {
        self.shared
            .passed
            .iter()
            .all(|passed| passed.load(Ordering::Acquire) >= generation)
    }

    /// The next neighbour that a worker wants resolved. Drain to `None` when the
    /// [descriptor](AsFd::as_fd) becomes readable.
    pub fn poll_resolve(&self) -> Option<Hop> {
        self.requests.pop().or_else(|| {
            // What is queued after this wakes again, so look once more.
            self.requests.clear();
            self.requests.pop()
        })
    }

    /// The counters of each worker.
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// The device counters of each worker. Workers leave them here once a second at most.
    pub fn devices(&self) -> Vec<Vec<DeviceReport>> {
        self.shared
            .devices
            .iter()
            .map(|devices| lock(devices).clone())
            .collect()
    }

    /// Tells all workers to stop; they do within a batch.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Makes every worker end its wait, so that its thread can look at something else.
    pub fn wake(&self) {
        for peer in &self.peers {
            peer.wake();
        }
    }
}

impl AsFd for Control {
    /// Readable while workers want neighbours resolved.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.requests.as_fd()
    }
}

/// What happened at one device of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceReport {
    /// Which: a port, or the way to the host.
    pub origin: Origin,
    /// What happened since it was opened.
    pub counters: DeviceCounters,
}

/// A worker that has no balancer and no devices yet.
#[derive(Debug)]
pub struct Seat {
    worker: u32,
    batch: usize,
    engine: Engine,
    shared: Arc<Shared>,
    inbox: QueueReceiver<Parcel>,
    peers: Vec<QueueSender<Parcel>>,
    resolve: QueueSender<Hop>,
}

impl Seat {
    /// The worker's number, from 0.
    pub fn number(&self) -> u32 {
        self.worker
    }

    /// Takes the seat. `host` is the way to and from the host's own stack, and carries IP packets. Worker 0
    /// should have one: what workers without have for the host travels through it, and what it has is
    /// dropped and counted if it has no way either.
    pub fn start<B: Balancer>(
        self,
        balancer: B,
        ports: Vec<(PortId, Box<dyn Device>)>,
        host: Option<Box<dyn Device>>,
    ) -> Worker<B> {
        let vips = self.shared.view.load().claims.vips();
        let mut worker = Worker {
            seat: self,
            balancer,
            ports,
            host,
            frames: Vec::new(),
            handoffs: Vec::new(),
            output: Output::new(),
            vips,
            generation: None,
            next_report: None,
            failing: Vec::new(),
            unwatched: 0,
            busy: false,
        };
        worker.steer();
        worker
    }
}

/// One worker: a balancer, an engine, a device for each port, and the loop's step.
#[derive(Debug)]
pub struct Worker<B> {
    seat: Seat,
    balancer: B,
    ports: Vec<(PortId, Box<dyn Device>)>,
    host: Option<Box<dyn Device>>,
    frames: Vec<Frame>,
    handoffs: Vec<Handoff>,
    output: Output,
    vips: Vec<std::net::IpAddr>,
    generation: Option<u64>,
    next_report: Option<Instant>,
    /// Devices that could not be read in the last step.
    failing: Vec<Origin>,
    /// Steps that found frames, since the descriptors were last looked at.
    unwatched: u32,
    /// Whether the last step found frames.
    busy: bool,
}

impl<B: Balancer> Worker<B> {
    /// Waits for something to do, no longer than `patience` and the next deadline, and does it: a batch from
    /// each device, what other workers have handed over, and timers that are due. Returns whether to go on.
    ///
    /// # Errors
    ///
    /// What a device reports, with the device's name, after everything else was done. A port that fails once need
    /// not be gone: an interface that is down and up again goes on working, and one that fails for good costs
    /// nothing but a look at it every few milliseconds. Whether to go on says [`is_stopped`](Self::is_stopped).
    pub fn run_once(&mut self, patience: Duration) -> io::Result<bool> {
        // Where frames were found there are probably more: whoever has just been served is served again, and the
        // descriptors, which cost a system call, are looked at now and then only.
        if self.busy && self.unwatched < UNWATCHED_STEPS {
            self.unwatched += 1;
            self.turn(Instant::now(), Ready::PORTS)?;
            return Ok(!self.is_stopped());
        }
        self.unwatched = 0;
        let timeout = if self.busy {
            Duration::ZERO
        } else {
            let now = Instant::now();
            let until = |at: Instant| at.saturating_duration_since(now);
            [
                self.balancer.poll_timeout(),
                self.seat.engine.poll_timeout(),
            ]
            .into_iter()
            .flatten()
            .map(until)
            .fold(patience, Duration::min)
        };
        let ready = self.wait(timeout)?;
        self.turn(Instant::now(), ready)?;
        Ok(!self.is_stopped())
    }

    /// Whether the control thread has told the workers to stop.
    pub fn is_stopped(&self) -> bool {
        self.seat.shared.stop.load(Ordering::Acquire)
    }

    /// The balancer, for questions between steps.
    pub fn balancer(&mut self) -> &mut B {
        &mut self.balancer
    }

    /// The devices of the ports, for their counters.
    pub fn ports(&mut self) -> &mut [(PortId, Box<dyn Device>)] {
        &mut self.ports
    }

    /// Gives the worker a device for a port: one more, or in the place of the present one, which is closed.
    pub fn set_port(&mut self, port: PortId, mut device: Box<dyn Device>) {
        let _ = device.set_steering(&self.vips);
        match self.ports.iter_mut().find(|(other, _)| *other == port) {
            Some((_, present)) => *present = device,
            None => self.ports.push((port, device)),
        }
    }

    /// Takes a port's device away and closes it.
    pub fn remove_port(&mut self, port: PortId) {
        self.ports.retain(|(other, _)| *other != port);
    }

    /// Takes the way to the host away and closes it; the view should say so too.
    pub fn remove_host(&mut self) {
        self.host = None;
    }

    fn wait(&self, timeout: Duration) -> io::Result<Ready> {
        let host = self.host.iter().map(|host| (Origin::Host, host));
        let ports = self.ports.iter();
        let devices = host
            .chain(ports.map(|(port, device)| (Origin::Port(*port), device)))
            // Its descriptor may stay readable for ever.
            .filter(|(origin, _)| !self.failing.contains(origin))
            .map(|(_, device)| device);
        // A device without a descriptor has to be looked at instead.
        let blind = devices.clone().any(|device| device.descriptor().is_none());
        let timeout = match (blind, self.failing.is_empty()) {
            (true, _) => timeout.min(BLIND),
            (false, false) => timeout.min(FAILING),
            (false, true) => timeout,
        };
        let inbox = (self.seat.inbox.as_fd(), false);
        let devices =
            devices.filter_map(|device| Some((device.descriptor()?, device.pending() > 0)));
        let bits = wait([inbox].into_iter().chain(devices), Some(timeout))?;
        // The host's is the second, unless it was left out; then whatever the bit says does no harm.
        Ok(Ready {
            inbox: bits & 1 != 0,
            host: bits & 2 != 0 || self.failing.contains(&Origin::Host),
        })
    }

    /// Everything that there is to do at this moment. For tests with a clock of their own; else see
    /// [`run_once`](Self::run_once).
    ///
    /// # Errors
    ///
    /// As [`run_once`](Self::run_once).
    pub fn step(&mut self, now: Instant) -> io::Result<()> {
        let everything = Ready {
            inbox: true,
            host: true,
        };
        self.turn(now, everything)
    }

    fn turn(&mut self, now: Instant, ready: Ready) -> io::Result<()> {
        let mut outcome = Ok(());
        let view = self.seat.shared.view.load_full();
        if self.generation != Some(view.generation) {
            self.generation = Some(view.generation);
            self.seat.engine.handle_view(now, &view, &mut self.output);
            let vips = view.claims.vips();
            if vips != self.vips {
                self.vips = vips;
                self.steer();
            }
        }
        // Timers first: what they expire must not serve this batch.
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.balancer.poll_timeout()) {
            self.balancer.handle_timeout(now);
        }
        if is_due(self.seat.engine.poll_timeout()) {
            self.seat
                .engine
                .handle_timeout(now, &view, &mut self.output);
        }

        if ready.inbox {
            self.seat.inbox.clear();
        }
        // Looked at in any case: that is cheap, and the wake-up that stays costs one look more.
        let mut found = 0;
        for _ in 0..self.seat.batch {
            match self.seat.inbox.pop() {
                Some(Parcel::Handoff(handoff)) => self.handoffs.push(handoff),
                Some(Parcel::Host(packet)) => self.output.host.push(packet),
                None => break,
            }
        }
        found += self.handoffs.len() + self.output.host.len();
        if found >= self.seat.batch {
            // There may be more, and the wake-up was taken back.
            self.seat.peers[self.seat.worker as usize].wake();
        }
        self.seat.engine.process_handoff(
            now,
            &view,
            &mut self.handoffs,
            &mut self.balancer,
            &mut self.output,
        );
        self.failing.clear();
        for at in 0..self.ports.len() {
            let (port, device) = &mut self.ports[at];
            let origin = Origin::Port(*port);
            match device.receive(&mut self.frames, self.seat.batch) {
                Ok(count) => found += count,
                Err(error) => {
                    self.failing.push(origin);
                    keep(&mut outcome, &view, origin, error);
                }
            }
            if self.frames.is_empty() {
                continue;
            }
            self.seat.engine.process(
                now,
                &view,
                *port,
                &mut self.frames,
                &mut self.balancer,
                &mut self.output,
            );
        }
        let host = self.host.as_mut();
        if let Some(host) = host.filter(|host| ready.host || host.descriptor().is_none()) {
            match host.receive(&mut self.frames, self.seat.batch) {
                Ok(count) => found += count,
                Err(error) => {
                    self.failing.push(Origin::Host);
                    keep(&mut outcome, &view, Origin::Host, error);
                }
            }
            self.seat.engine.process_host(
                now,
                &view,
                &mut self.frames,
                &mut self.balancer,
                &mut self.output,
            );
        }
        self.busy = found > 0 && self.failing.is_empty();
        self.deliver(&view, &mut outcome);
        if self.next_report.is_none_or(|at| now >= at) {
            self.next_report = Some(now + REPORT_INTERVAL);
            self.report();
        }
        // Everything decided under this view has been sent: the quiet point.
        self.seat.shared.passed[self.seat.worker as usize]
            .store(view.generation, Ordering::Release);
        outcome
    }

    fn deliver(&mut self, view: &View, outcome: &mut io::Result<()>) {
        let counters = self.seat.engine.counters();
        for (id, frame) in self.output.transmit.drain(..) {
            match self.ports.iter_mut().find(|(port, _)| *port == id) {
                Some((_, device)) => device.transmit(frame),
                None => counters.count_drop(DropReason::NoPort, 1),
            }
        }
        for (port, device) in &mut self.ports {
            if let Err(error) = device.flush() {
                keep(outcome, view, Origin::Port(*port), error);
            }
        }
        match &mut self.host {
            Some(host) => {
                for frame in self.output.host.drain(..) {
                    host.transmit(frame);
                }
                if let Err(error) = host.flush() {
                    keep(outcome, view, Origin::Host, error);
                }
            }
            None if self.seat.worker == 0 => {
                counters.count_drop(DropReason::NoHost, self.output.host.len());
                self.output.host.clear();
            }
            None if self.output.host.is_empty() => {}
            None => {
                let peer = &self.seat.peers[0];
                for packet in self.output.host.drain(..) {
                    if peer.push(Parcel::Host(packet.into_owned())).is_err() {
                        counters.count_drop(DropReason::HandoffOverflow, 1);
                    }
                }
                peer.wake();
            }
        }
        // One wake-up for a run of frames to the same worker; a second one for the same does no harm.
        let mut woken = None;
        for (worker, handoff) in self.output.handoff.drain(..) {
            let peer = &self.seat.peers[worker as usize];
            if peer.push(Parcel::Handoff(handoff)).is_err() {
                counters.count_drop(DropReason::HandoffOverflow, 1);
            } else if woken != Some(worker) {
                peer.wake();
                woken = Some(worker);
            }
        }
        if !self.output.resolve.is_empty() {
            for hop in self.output.resolve.drain(..) {
                // The control thread is behind: the request comes again after the retry time.
                let _ = self.seat.resolve.push(hop);
            }
            self.seat.resolve.wake();
        }
    }

    fn report(&mut self) {
        let ports = self
            .ports
            .iter_mut()
            .map(|(port, device)| (Origin::Port(*port), device));
        let host = self.host.iter_mut().map(|device| (Origin::Host, device));
        let mut reports = lock(&self.seat.shared.devices[self.seat.worker as usize]);
        reports.clear();
        reports.extend(ports.chain(host).map(|(origin, device)| DeviceReport {
            origin,
            counters: device.counters(),
        }));
    }

    /// Brings the devices' steering up to date. It is only a hint, so a failure costs hand-overs, not frames.
    fn steer(&mut self) {
        for (_, device) in &mut self.ports {
            let _ = device.set_steering(&self.vips);
        }
    }
}

impl Drop for Seat {
    /// Who has left decides nothing any more, so nobody must wait for it.
    fn drop(&mut self) {
        self.shared.passed[self.worker as usize].store(u64::MAX, Ordering::Release);
    }
}

/// What there is to read, beyond the ports, where a look costs nothing.
#[derive(Debug, Clone, Copy)]
struct Ready {
    /// Other workers, or the control thread, have woken this one.
    inbox: bool,
    /// The way to the host has packets.
    host: bool,
}

impl Ready {
    const PORTS: Self = Self {
        inbox: false,
        host: false,
    };
}

/// What workers send each other.
#[derive(Debug)]
enum Parcel {
    /// A frame for the owner of its flow.
    Handoff(Handoff),
    /// A packet for the host, from a worker that has no way there.
    Host(Frame),
}

#[derive(Debug)]
struct Shared {
    view: ArcSwap<View>,
    generation: AtomicU64,
    /// The generation that each worker has passed.
    passed: Box<[AtomicU64]>,
    /// The device counters of each worker, as it last left them here.
    devices: Box<[Mutex<Vec<DeviceReport>>]>,
    stop: AtomicBool,
}

/// Remembers the first error, with the name of its device.
fn keep(outcome: &mut io::Result<()>, view: &View, origin: Origin, error: io::Error) {
    if outcome.is_ok() {
        let name = match origin {
            Origin::Host => "the way to the host".to_owned(),
            Origin::Port(id) => view.port(id).map_or_else(
                || format!("port {}", id.0),
                |port| format!("interface {}", port.name),
            ),
        };
        *outcome = Err(io::Error::new(error.kind(), format!("{name}: {error}")));
    }
}

/// A panic elsewhere leaves the reports whole, so the lock is taken all the same.
fn lock(reports: &Mutex<Vec<DeviceReport>>) -> MutexGuard<'_, Vec<DeviceReport>> {
    reports.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Neighbours that wait for the control thread at most.
const RESOLVE_QUEUE: usize = 256;
/// How often a device without a descriptor is looked at.
const BLIND: Duration = Duration::from_millis(1);
/// How often a device that could not be read is looked at.
const FAILING: Duration = Duration::from_millis(10);
/// Steps that find frames in a row without a look at the descriptors at most.
const UNWATCHED_STEPS: u32 = 8;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::thread;

    use super::*;
    use crate::balancer::{Method, Packets, Verdict};
    use crate::device::Capabilities;
    use crate::device::memory::{Memory, Peer};
    use crate::route::{
        Neighbour, NeighbourState, NeighbourTable, NextHop, Prefix, Route, RouteTable,
    };
    use crate::stats::Event;
    use crate::view::{ClaimSet, Endpoint, Port};

    struct ToServer;

    impl Balancer for ToServer {
        fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
            verdicts.extend(packets.iter().map(|packet| match packet.source.port() {
                1 => Verdict::NotOurs,
                _ => Verdict::Forward(Method::Nat {
                    rip: SocketAddr::from(([10, 0, 0, 11], 8080)),
                }),
            }));
        }
    }

    fn view(neighbour: NeighbourState) -> View {
        let mut claims = ClaimSet::new();
        claims.insert_service(Endpoint {
            protocol: 17,
            addr: [192, 0, 2, 10].into(),
            port: 53,
        });
        let mut routes = RouteTable::new();
        routes.insert(Route::new(
            Prefix::new(IpAddr::from([0, 0, 0, 0]), 0),
            NextHop::OnLink,
            2,
        ));
        let mut neighbours = NeighbourTable::new();
        let hop = Hop {
            ifindex: 2,
            addr: [10, 0, 0, 11].into(),
        };
        neighbours.insert(
            hop,
            Neighbour {
                mac: [2, 0, 0, 0, 0, 11],
                state: neighbour,
            },
        );
        View {
            claims: Arc::new(claims),
            routes: Arc::new(routes),
            neighbours: Arc::new(neighbours),
            ports: Arc::new([Port::new(PortId(0), 2, "eth0", [2, 0, 0, 0, 0, 1])]),
            ..View::default()
        }
    }

    fn query(client: [u8; 4], cport: u16) -> Frame {
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1])
            .ipv4(client, [192, 0, 2, 10], 64)
            .udp(cport, 53)
            .write(&mut bytes, b"query")
            .unwrap();
        Frame::from_bytes(&bytes)
    }

    fn worker(neighbour: NeighbourState) -> (Control, Worker<ToServer>, Peer, Peer) {
        let (control, mut seats) = new(RunnerConfig::default(), view(neighbour)).unwrap();
        let (device, wire) = Memory::new(64);
        let (host, stack) = Memory::new(64);
        let worker = seats.remove(0).start(
            ToServer,
            vec![(PortId(0), Box::new(device))],
            Some(Box::new(host)),
        );
        (control, worker, wire, stack)
    }

    #[test]
    fn packets_reach_server_and_host() {
        let (_control, mut worker, wire, stack) = worker(NeighbourState::Reachable);
        wire.send(query([203, 0, 113, 5], 2)).unwrap();
        wire.send(query([203, 0, 113, 5], 1)).unwrap();
        assert!(worker.run_once(Duration::ZERO).unwrap());
        assert_eq!(wire.receive().unwrap().bytes()[30..34], [10, 0, 0, 11]);
        assert_eq!(stack.receive().unwrap().bytes()[0], 0x45);
    }

    #[test]
    fn a_new_neighbour_is_asked_for_and_the_frame_goes_out_with_the_new_view() {
        let (control, mut worker, wire, _stack) = worker(NeighbourState::Incomplete);
        wire.send(query([203, 0, 113, 5], 2)).unwrap();
        worker.run_once(Duration::ZERO).unwrap();
        assert!(wire.receive().is_none());
        assert_eq!(
            control.poll_resolve().unwrap().addr,
            IpAddr::from([10, 0, 0, 11])
        );
        assert!(control.poll_resolve().is_none());

        let generation = control.publish(view(NeighbourState::Reachable));
        assert!(!control.is_quiet(generation));
        worker.run_once(Duration::from_secs(10)).unwrap();
        assert!(control.is_quiet(generation));
        assert!(wire.receive().is_some());
    }

    #[test]
    fn a_worker_without_a_host_sends_through_worker_zero() {
        let config = RunnerConfig {
            workers: 2,
            ..RunnerConfig::default()
        };
        let (control, seats) = new(config, view(NeighbourState::Reachable)).unwrap();
        let (host, stack) = Memory::new(64);
        let mut host: Option<Box<dyn Device>> = Some(Box::new(host));
        let mut wires = Vec::new();
        let mut workers: Vec<_> = seats
            .into_iter()
            .map(|seat| {
                let (device, wire) = Memory::new(64);
                wires.push(wire);
                seat.start(
                    ToServer,
                    vec![(PortId(0), Box::new(device) as _)],
                    host.take(),
                )
            })
            .collect();
        for n in 0..20 {
            wires[1].send(query([203, 0, 113, n], 1)).unwrap();
        }
        for _ in 0..2 {
            for worker in workers.iter_mut().rev() {
                worker.step(Instant::now()).unwrap();
            }
        }
        assert_eq!(std::iter::from_fn(|| stack.receive()).count(), 20);
        let reports = control.devices();
        assert_eq!((reports[0].len(), reports[1].len()), (2, 1));
        assert_eq!(reports[1][0].counters.received, 20);
    }

    /// A device that is gone: its descriptor is readable, and reading it fails.
    #[derive(Debug)]
    struct Gone(crate::sys::event::Event);

    impl Device for Gone {
        fn capabilities(&self) -> Capabilities {
            Capabilities {
                link_header: true,
                offloads: false,
                exclusive: false,
                steering: false,
                longest: 0,
            }
        }
        fn receive(&mut self, _: &mut Vec<Frame>, _: usize) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EBADFD))
        }
        fn transmit(&mut self, _: Frame) {}
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn pending(&self) -> usize {
            0
        }
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            Some(self.0.as_fd())
        }
        fn counters(&mut self) -> DeviceCounters {
            DeviceCounters::default()
        }
    }

    #[test]
    fn a_device_that_is_gone_neither_spins_nor_stops_the_worker() {
        let (control, mut seats) =
            new(RunnerConfig::default(), view(NeighbourState::Reachable)).unwrap();
        let event = crate::sys::event::Event::new().unwrap();
        event.signal();
        let (ring, wire) = Memory::new(64);
        let mut worker = seats.remove(0).start(
            ToServer,
            vec![(PortId(1), Box::new(Gone(event)) as _)],
            None,
        );
        worker.set_port(PortId(0), Box::new(ring));
        let started = Instant::now();
        for n in 0..20 {
            wire.send(query([203, 0, 113, n], 2)).unwrap();
            let error = worker.run_once(Duration::from_millis(2)).unwrap_err();
            assert!(error.to_string().starts_with("port 1: "), "{error}");
        }
        assert!(
            started.elapsed() >= Duration::from_millis(15),
            "it waits although a descriptor is readable"
        );
        assert_eq!(std::iter::from_fn(|| wire.receive()).count(), 20);
        worker.remove_port(PortId(1));
        assert!(worker.run_once(Duration::ZERO).unwrap());
        control.stop();
        assert!(worker.is_stopped());
    }

    #[test]
    fn workers_on_threads_hand_over_and_stop() {
        let config = RunnerConfig {
            workers: 3,
            ..RunnerConfig::default()
        };
        let (control, seats) = new(config, view(NeighbourState::Reachable)).unwrap();
        let mut wires = Vec::new();
        let mut threads = Vec::new();
        for seat in seats {
            let (device, wire) = Memory::new(1024);
            wires.push(wire);
            let mut worker = seat.start(ToServer, vec![(PortId(0), Box::new(device) as _)], None);
            threads.push(thread::spawn(move || {
                while worker.run_once(Duration::from_millis(10)).unwrap() {}
            }));
        }
        // Everything arrives at worker 0; each packet leaves through its owner's device.
        for n in 0..300u32 {
            wires[0]
                .send(query([203, 0, (n >> 8) as u8, n as u8], 2))
                .unwrap();
        }
        let end = Instant::now() + Duration::from_secs(20);
        let sent = || -> u64 {
            control
                .counters()
                .iter()
                .map(|counters| counters.events(Event::Transmitted))
                .sum()
        };
        while sent() < 300 && Instant::now() < end {
            thread::yield_now();
        }
        control.stop();
        for thread in threads {
            thread.join().unwrap();
        }
        let counts: Vec<usize> = wires
            .iter()
            .map(|wire| std::iter::from_fn(|| wire.receive()).count())
            .collect();
        assert_eq!(counts.iter().sum::<usize>(), 300, "{counts:?}");
        assert!(counts.iter().all(|&count| count > 50), "{counts:?}");
        assert!(control.is_quiet(u64::MAX), "who has left is passed");
    }
}
