//! What every device does, whichever it is: one suite, run over all of them by what they say they can.
//!
//! As root or in a user namespace where that is allowed; what can't be opened is skipped, and says so.

// Without the harness nothing tells clippy that this is a test.
#![allow(clippy::unwrap_used)]

mod rigs;
#[path = "../support/mod.rs"]
mod support;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use lvs_fwd::balancer::{Balancer, Direction, Method, Packets, Verdict};
use lvs_fwd::checksum;
use lvs_fwd::frame::{ChecksumState, Frame, Gso, GsoKind};
use lvs_fwd::route::{
    Hop, Neighbour, NeighbourState, NeighbourTable, NextHop, Prefix, Route, RouteTable,
};
use lvs_fwd::runner::{self, RunnerConfig};
use lvs_fwd::stats::Event;
use lvs_fwd::view::{Port, PortId, View};
use rigs::{RIP, SERVICE_PORT, Subject, VIP};
use support::{enter_namespace, say};

fn main() {
    if let Err(why) = enter_namespace() {
        say(&format!("skipped: no network namespace: {why}"));
        return;
    }
    let only = std::env::args()
        .nth(1)
        .filter(|word| !word.starts_with('-'));
    let tests: [Test; 11] = [
        ("frames_pass_both_ways", 1, frames_pass_both_ways),
        (
            "batches_are_bounded_and_in_order",
            1,
            batches_are_bounded_and_in_order,
        ),
        (
            "too_long_frames_are_refused_alone",
            1,
            too_long_frames_are_refused_alone,
        ),
        (
            "unfinished_checksums_are_finished_on_the_way",
            1,
            unfinished_checksums,
        ),
        ("super_packets_arrive_as_they_were_meant", 1, super_packets),
        (
            "received_frames_may_be_kept_and_sent_in_any_order",
            1,
            frames_may_be_kept,
        ),
        ("no_more_is_queued_than_may_be", 1, no_more_is_queued),
        ("one_worker_translates", 1, workers_translate),
        ("two_workers_translate", 2, workers_translate),
        (
            "two_workers_translate_under_wrong_steering",
            2,
            workers_translate_wrongly_steered,
        ),
        (
            "a_device_that_goes_away_says_so",
            1,
            a_device_that_goes_away,
        ),
    ];
    for (device, open) in rigs::all() {
        for (name, workers, test) in tests {
            let name = format!("{device}::{name}");
            if only.as_ref().is_some_and(|only| !name.contains(only)) {
                continue;
            }
            match open(workers) {
                Ok(mut subject) => {
                    test(&mut subject);
                    say(&format!("test {name} ... ok"));
                }
                Err(why) => say(&format!("test {name} ... skipped: {}", chain(&*why))),
            }
        }
    }
}

/// A fact, and how many workers it is about.
type Test = (&'static str, u32, fn(&mut Subject));

fn frames_pass_both_ways(subject: &mut Subject) {
    for size in [0, 1, 18, 500, 1472] {
        let frame = subject.inbound(1, &vec![7; size]);
        subject.wire.send(frame.clone());
        let got = subject.receive(1).remove(0);
        assert_eq!(bytes(&got), bytes(&frame));
        assert_eq!(got.meta.checksum, ChecksumState::Complete);
        assert!(got.meta.gso.is_none());

        let frame = subject.outbound(1, &vec![9; size]);
        subject.send(vec![frame.clone()]);
        assert_eq!(bytes(&subject.observe(1).remove(0)), bytes(&frame));
    }
    let counters = subject.devices[0].counters();
    assert_eq!(
        (counters.received, counters.transmitted),
        (5, 5),
        "{counters:?}"
    );
    assert_eq!(counters.malformed + counters.overruns + counters.refused, 0);
}

fn batches_are_bounded_and_in_order(subject: &mut Subject) {
    let body = |n: u16| n.to_be_bytes();
    for n in 0..300 {
        let frame = subject.inbound(1, &body(n));
        subject.wire.send(frame);
    }
    let mut frames = Vec::new();
    let end = Instant::now() + PATIENCE;
    while frames.len() < 300 && Instant::now() < end {
        let before = frames.len();
        let count = subject.devices[0].receive(&mut frames, 7).unwrap();
        assert!(count <= 7 && frames.len() == before + count);
        frames.retain(|frame| subject.is_ipv4(frame));
    }
    let order: Vec<Vec<u8>> = frames.iter().map(payload).collect();
    assert!(
        order
            .iter()
            .map(|it| &it[..])
            .eq((0..300).map(body).collect::<Vec<_>>())
    );

    let frames = (0..300).map(|n| subject.outbound(1, &body(n))).collect();
    subject.send(frames);
    let order: Vec<Vec<u8>> = subject.observe(300).iter().map(payload).collect();
    assert!(
        order
            .iter()
            .map(|it| &it[..])
            .eq((0..300).map(body).collect::<Vec<_>>())
    );
}

fn too_long_frames_are_refused_alone(subject: &mut Subject) {
    if subject.devices[0].capabilities().longest == usize::MAX {
        return;
    }
    // A datagram that its device can't carry in one piece, whatever it is.
    let size = if subject.devices[0].capabilities().link_header {
        1473
    } else {
        65_508
    };
    let mut long = subject.outbound(1, &vec![2; size.min(65_507)]);
    if size > 65_507 {
        let mut bytes = long.bytes().to_vec();
        bytes.resize(65_536, 0);
        long = Frame::from_bytes(&bytes);
    }
    let frames = vec![
        subject.outbound(1, b"before"),
        long,
        subject.outbound(1, b"after"),
    ];
    subject.send(frames);
    let got: Vec<Vec<u8>> = subject.observe(2).iter().map(payload).collect();
    assert_eq!(got, [&b"before"[..], b"after"]);
    let counters = subject.devices[0].counters();
    assert_eq!(
        (counters.transmitted, counters.too_long),
        (2, 1),
        "{counters:?}"
    );
}

fn unfinished_checksums(subject: &mut Subject) {
    for size in [1, 100, 1001] {
        let body = vec![0xa5; size];
        let frame = unfinished(subject.inbound(1, &body), subject.link());
        subject.wire.send(frame);
        let mut got = subject.receive(1).remove(0);
        assert!(
            matches!(got.meta.checksum, ChecksumState::Partial { .. }),
            "{got:?}"
        );
        got.complete_checksum();
        assert!(is_right(&got));

        let frame = unfinished(subject.outbound(1, &body), subject.link());
        subject.send(vec![frame]);
        let mut got = subject.observe(1).remove(0);
        if !subject.devices[0].capabilities().offloads {
            assert_eq!(got.meta.checksum, ChecksumState::Complete);
        }
        got.complete_checksum();
        assert!(is_right(&got) && payload(&got) == body);
    }
}

fn super_packets(subject: &mut Subject) {
    let body: Vec<u8> = (0..20_000u32).map(|n| (n * 7) as u8).collect();
    let (near, far) = (subject.near, subject.far);
    let segments = |got: Vec<Frame>| {
        let mut all = Vec::new();
        for mut frame in got {
            assert!(frame.len() <= 1514 || frame.meta.gso.is_some_and(|gso| gso.size == 1400));
            frame.complete_checksum();
            assert!(is_right(&frame));
            all.extend(payload(&frame));
        }
        all
    };
    let offloads = subject.devices[0].capabilities().offloads;
    if offloads {
        let frame = subject.strip(super_packet(far, near, CLIENT, VIP, &body));
        subject.wire.send(frame);
        assert!(segments(subject.receive(1)) == body);
    }
    let frame = subject.strip(super_packet(near, far, RIP, CLIENT, &body));
    subject.send(vec![frame]);
    let count = if offloads {
        1
    } else {
        body.len().div_ceil(1400)
    };
    assert!(segments(subject.observe(count)) == body);
}

fn frames_may_be_kept(subject: &mut Subject) {
    let mut kept: Vec<Frame> = Vec::new();
    for turn in 0..60u8 {
        for n in 0..3 {
            let frame = subject.inbound(1, &[turn, n]);
            subject.wire.send(frame);
        }
        for (n, frame) in (0..).zip(subject.receive(3)) {
            assert_eq!(payload(&frame), [turn, n]);
            if n == 1 {
                kept.push(frame);
            }
        }
    }
    // The newest first, from where they came in, back to where they came from. Their checksums stay right.
    let link = [subject.far, subject.near].concat();
    for frame in &mut kept {
        let network = subject.link();
        let bytes = frame.bytes_mut();
        if network > 0 {
            bytes[..12].copy_from_slice(&link);
        }
        bytes[network + 12..network + 20].rotate_left(4);
    }
    kept.reverse();
    subject.send(kept);
    let turns: Vec<u8> = subject
        .observe(60)
        .iter()
        .map(|frame| payload(frame)[0])
        .collect();
    assert!(turns.into_iter().eq((0..60).rev()));
}

fn no_more_is_queued(subject: &mut Subject) {
    for _ in 0..20_000 {
        let frame = subject.outbound(1, b"x");
        subject.devices[0].transmit(frame);
    }
    let waiting = subject.devices[0].pending() as u64;
    let counters = subject.devices[0].counters();
    assert!(waiting < 20_000);
    assert_eq!(counters.no_buffers + waiting, 20_000, "{counters:?}");
    subject.send(vec![]);
    subject.wire.receive();
    subject.send(vec![subject.outbound(1, b"y")]);
    assert!(
        subject
            .observe(1)
            .iter()
            .any(|frame| payload(frame)[0] == b'x' || payload(frame)[0] == b'y')
    );
}

fn workers_translate(subject: &mut Subject) {
    if subject.devices[0].capabilities().link_header {
        translate(subject, false);
    }
}

fn workers_translate_wrongly_steered(subject: &mut Subject) {
    if subject.devices[0].capabilities().link_header {
        translate(subject, true);
    }
}

/// Requests of many clients come in and go to the server, its answers go to them, from one cable to the same.
fn translate(subject: &mut Subject, wrongly: bool) {
    struct Nat;
    impl Balancer for Nat {
        fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
            verdicts.extend(packets.iter().map(|packet| match packet.direction {
                Direction::Inbound => Verdict::Forward(Method::Nat {
                    rip: (RIP, SERVICE_PORT).into(),
                }),
                Direction::Outbound => Verdict::Reply {
                    source: (VIP, SERVICE_PORT).into(),
                },
            }));
        }
    }
    let workers = subject.devices.len();
    let steered = subject.devices[0].capabilities().steering;
    let config = RunnerConfig {
        workers: workers as u32,
        ..RunnerConfig::default()
    };
    let (control, seats) = runner::new(config, view(subject)).unwrap();
    let mut devices = std::mem::take(&mut subject.devices);
    if wrongly {
        devices.reverse();
    }
    let mut running: Vec<_> = seats
        .into_iter()
        .zip(devices)
        .map(|(seat, device)| seat.start(Nat, vec![(PortId(0), device)], None))
        .collect();
    let (near, far) = (subject.near, subject.far);
    for n in 0..100u8 {
        let client = [203, 0, 113, n];
        let mut there = datagram(far, near, (client, 4000), (VIP, SERVICE_PORT), &[n; 40]);
        let back = datagram(far, near, (RIP, SERVICE_PORT), (client, 4000), &[n; 40]);
        if n % 3 == 0 {
            there = unfinished(there, 14);
        }
        subject.wire.send(there);
        subject.wire.send(back);
    }
    let (mut there, mut back) = (0, 0);
    let end = Instant::now() + PATIENCE;
    while there + back < 200 && Instant::now() < end {
        for worker in &mut running {
            worker.step(Instant::now()).unwrap();
        }
        for mut frame in subject.wire.receive() {
            if !subject.is_ipv4(&frame) || frame.bytes()[..6] != far {
                continue;
            }
            frame.complete_checksum();
            assert!(is_right(&frame));
            let (source, destination) = (&frame.bytes()[26..30], &frame.bytes()[30..34]);
            let client = [203, 0, 113, payload(&frame)[0]];
            if destination == RIP {
                assert_eq!(source, client);
                there += 1;
            } else {
                assert_eq!((source, destination), (&VIP[..], &client[..]));
                back += 1;
            }
        }
    }
    assert_eq!((there, back), (100, 100));
    let sum = |event| -> u64 {
        let counters = control.counters().iter();
        counters.map(|counters| counters.events(event)).sum()
    };
    assert_eq!(sum(Event::HandedOver), sum(Event::TakenOver));
    match (workers, steered, wrongly) {
        (1, ..) | (_, true, false) => assert_eq!(sum(Event::HandedOver), 0),
        (_, true, true) => assert_eq!(sum(Event::HandedOver), 200),
        (_, false, _) => assert!((50..=150).contains(&sum(Event::HandedOver))),
    }
}

fn a_device_that_goes_away(subject: &mut Subject) {
    if !subject.unplug() {
        return;
    }
    let started = Instant::now();
    let mut errors = 0;
    for _ in 0..500 {
        let mut frames = Vec::new();
        errors += usize::from(subject.devices[0].receive(&mut frames, 64).is_err());
        let frame = subject.outbound(1, b"lost");
        subject.devices[0].transmit(frame);
        errors += usize::from(subject.devices[0].flush().is_err());
    }
    assert!(errors > 0, "it is said");
    assert_eq!(
        subject.devices[0].pending(),
        0,
        "nothing waits for what never comes"
    );
    assert!(started.elapsed() < Duration::from_secs(2), "nothing hangs");
    let counters = subject.devices[0].counters();
    assert_eq!(counters.transmitted, 0);
    assert_eq!(counters.refused + counters.no_buffers, 500, "{counters:?}");
}

impl Subject {
    /// Bytes of the link header.
    fn link(&self) -> usize {
        match self.devices[0].capabilities().link_header {
            true => 14,
            false => 0,
        }
    }

    /// Takes the link header off where the device has none.
    fn strip(&self, mut frame: Frame) -> Frame {
        if self.link() == 0 {
            frame.trim_front(14);
        }
        frame
    }

    /// A datagram of a client's for the device.
    fn inbound(&self, client: u8, body: &[u8]) -> Frame {
        let source = ([203, 0, 113, client], 4000);
        self.strip(datagram(
            self.far,
            self.near,
            source,
            (VIP, SERVICE_PORT),
            body,
        ))
    }

    /// A datagram that the device sends.
    fn outbound(&self, client: u8, body: &[u8]) -> Frame {
        let to = ([203, 0, 113, client], 4000);
        self.strip(datagram(self.near, self.far, (RIP, SERVICE_PORT), to, body))
    }

    /// Sends and flushes until nothing waits.
    fn send(&mut self, frames: Vec<Frame>) {
        let device = &mut self.devices[0];
        let end = Instant::now() + PATIENCE;
        for frame in frames {
            device.transmit(frame);
        }
        loop {
            device.flush().unwrap();
            if device.pending() == 0 || Instant::now() > end {
                return;
            }
        }
    }

    /// IPv4 packets that the device has received, waited for until there are so many.
    fn receive(&mut self, count: usize) -> Vec<Frame> {
        let mut got = Vec::new();
        let end = Instant::now() + PATIENCE;
        while got.len() < count {
            assert!(Instant::now() < end, "{} of {count} frames", got.len());
            let mut frames = Vec::new();
            self.devices[0].receive(&mut frames, 64).unwrap();
            got.extend(frames.into_iter().filter(|frame| self.is_ipv4(frame)));
        }
        got
    }

    /// IPv4 packets that the other end has seen.
    fn observe(&mut self, count: usize) -> Vec<Frame> {
        let mut got = Vec::new();
        let end = Instant::now() + PATIENCE;
        while got.len() < count {
            assert!(Instant::now() < end, "{} of {count} frames", got.len());
            let frames = self.wire.receive();
            got.extend(frames.into_iter().filter(|frame| self.is_ipv4(frame)));
        }
        got
    }

    /// The kernel has things of its own to say on every link.
    fn is_ipv4(&self, frame: &Frame) -> bool {
        let bytes = frame.bytes();
        match self.near {
            [0, 0, 0, 0, 0, 0] => bytes[0] >> 4 == 4,
            _ => bytes[12..14] == [8, 0],
        }
    }
}

fn view(subject: &Subject) -> View {
    let mut routes = RouteTable::new();
    routes.insert(Route::new(
        Prefix::new(IpAddr::from([0, 0, 0, 0]), 0),
        NextHop::Gateway(IpAddr::from(ROUTER)),
        2,
    ));
    let mut neighbours = NeighbourTable::new();
    let hop = Hop {
        ifindex: 2,
        addr: ROUTER.into(),
    };
    let neighbour = Neighbour {
        mac: subject.far,
        state: NeighbourState::Reachable,
    };
    neighbours.insert(hop, neighbour);
    View {
        claims: Arc::new(rigs::claims()),
        routes: Arc::new(routes),
        neighbours: Arc::new(neighbours),
        ports: Arc::new([Port::new(PortId(0), 2, "near", subject.near)]),
        ..View::default()
    }
}

fn datagram(
    from: [u8; 6],
    to: [u8; 6],
    (source, sport): ([u8; 4], u16),
    (destination, dport): ([u8; 4], u16),
    body: &[u8],
) -> Frame {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .ipv4(source, destination, 64)
        .udp(sport, dport)
        .write(&mut bytes, body)
        .unwrap();
    Frame::from_bytes(&bytes)
}

fn super_packet(
    from: [u8; 6],
    to: [u8; 6],
    source: [u8; 4],
    destination: [u8; 4],
    body: &[u8],
) -> Frame {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .ipv4(source, destination, 64)
        .tcp(SERVICE_PORT, SERVICE_PORT, 1000, 500)
        .ack(7)
        .write(&mut bytes, body)
        .unwrap();
    let mut frame = unfinished(Frame::from_bytes(&bytes), 14);
    frame.meta.gso = Some(Gso {
        kind: GsoKind::Tcp4,
        ecn: false,
        size: 1400,
        header_len: 54,
    });
    frame
}

/// The frame with the bare sum of its pseudo-header for a checksum.
fn unfinished(mut frame: Frame, link: usize) -> Frame {
    let bytes = frame.bytes();
    let addr = |at: usize| IpAddr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (kind, length) = (bytes[link + 9], (bytes.len() - link - 20) as u32);
    let sum = checksum::pseudo_header(addr(link + 12), addr(link + 16), kind, length);
    let offset = if kind == 6 { 16 } else { 6 };
    let at = link + 20 + offset;
    frame.bytes_mut()[at..at + 2].copy_from_slice(&checksum::fold(sum).to_be_bytes());
    frame.meta.checksum = ChecksumState::Partial {
        start: (link + 20) as u16,
        offset: offset as u16,
    };
    frame
}

fn parse(frame: &Frame) -> PacketHeaders<'_> {
    match frame.bytes()[0] >> 4 {
        4 if frame.bytes()[12..14] != [8, 0] => {
            PacketHeaders::from_ip_slice(frame.bytes()).unwrap()
        }
        _ => PacketHeaders::from_ethernet_slice(frame.bytes()).unwrap(),
    }
}

fn payload(frame: &Frame) -> Vec<u8> {
    parse(frame).payload.slice().to_vec()
}

/// Whether IP and transport checksums are right.
fn is_right(frame: &Frame) -> bool {
    let packet = parse(frame);
    let Some(NetHeaders::Ipv4(ip, _)) = &packet.net else {
        return false;
    };
    let body = packet.payload.slice();
    ip.header_checksum == ip.calc_header_checksum()
        && match &packet.transport {
            Some(TransportHeader::Udp(udp)) => Ok(udp.checksum) == udp.calc_checksum_ipv4(ip, body),
            Some(TransportHeader::Tcp(tcp)) => Ok(tcp.checksum) == tcp.calc_checksum_ipv4(ip, body),
            _ => false,
        }
}

/// What the frame says, without padding.
fn bytes(frame: &Frame) -> Vec<u8> {
    frame.bytes().to_vec()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

const CLIENT: [u8; 4] = [203, 0, 113, 1];
const ROUTER: [u8; 4] = [198, 51, 100, 1];
const PATIENCE: Duration = Duration::from_secs(5);
