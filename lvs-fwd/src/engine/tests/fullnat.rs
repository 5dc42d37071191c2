//! FULLNAT: both sides change, TCP's numbers begin elsewhere, and the server learns who the client is.

use super::*;
use crate::balancer::Ended;

const LOCAL: ([u8; 4], u16) = ([10, 0, 0, 200], 33000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 11], 8080);
const ACK: u8 = 16;

/// As [`view`], with a local address and FULLNAT servers.
fn bench() -> Bench {
    let mut bench = Bench::new();
    let mut claims = ClaimSet::clone(&bench.view.claims);
    claims.insert_local(LOCAL.0.into());
    for protocol in [6, 17] {
        claims.insert_local_server(endpoint(protocol, SERVER.0, SERVER.1));
    }
    bench.view.claims = Arc::new(claims);
    let mut local = LocalAddresses::clone(&bench.view.local);
    local.insert(LOCAL.0.into());
    bench.view.local = Arc::new(local);
    bench
}

fn to_server() -> Verdict {
    Verdict::Forward(Method::FullNat {
        rip: SERVER.into(),
        local: LOCAL.into(),
    })
}

fn to_client() -> Verdict {
    Verdict::ReplyTo {
        source: (VIP, 80).into(),
        client: (CLIENT, 50000).into(),
    }
}

/// A TCP segment.
struct Seg {
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Seg {
    fn new(flags: u8, sequence: u32, acknowledgement: u32) -> Self {
        Self {
            flags,
            sequence,
            acknowledgement,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    fn with(mut self, options: &[u8], payload: &[u8]) -> Self {
        self.options = options.to_vec();
        self.payload = payload.to_vec();
        self
    }

    fn frame(&self, source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Frame {
        let (from, to) = match source == SERVER {
            true => (server_mac(11), INSIDE_MAC),
            false => (ROUTER_MAC, OUTSIDE_MAC),
        };
        let mut builder = PacketBuilder::ethernet2(from, to)
            .ipv4(source.0, destination.0, 64)
            .tcp(source.1, destination.1, self.sequence, 1000);
        if self.flags & SYN != 0 {
            builder = builder.syn();
        }
        if self.flags & ACK != 0 {
            builder = builder.ack(self.acknowledgement);
        }
        let mut bytes = Vec::new();
        builder
            .options_raw(&self.options)
            .unwrap()
            .write(&mut bytes, &self.payload)
            .unwrap();
        Frame::from_bytes(&bytes)
    }

    fn read(packet: &[u8], source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Self {
        assert_checksums(packet);
        let ip = Ipv4Packet::new(packet).unwrap();
        assert_eq!(ip.get_ttl(), 63);
        let tcp = TcpPacket::new(&packet[20..]).unwrap();
        assert_eq!(
            (ip.get_source().octets(), tcp.get_source()),
            source,
            "source"
        );
        assert_eq!(
            (ip.get_destination().octets(), tcp.get_destination()),
            destination,
            "destination"
        );
        Self {
            flags: tcp.get_flags() & 0x3f,
            sequence: tcp.get_sequence(),
            acknowledgement: tcp.get_acknowledgement(),
            options: packet[40..20 + usize::from(tcp.get_data_offset()) * 4].to_vec(),
            payload: packet[20 + usize::from(tcp.get_data_offset()) * 4..].to_vec(),
        }
    }
}

impl Bench {
    fn ask(&mut self, segment: &Seg) -> Seg {
        let frame = segment.frame((CLIENT, 50000), (VIP, 80));
        let output = self.run(OUTSIDE, frame, to_server());
        Seg::read(&sent(output, 0, INSIDE, server_mac(11)), LOCAL, SERVER)
    }

    fn answer(&mut self, segment: &Seg) -> Seg {
        let frame = segment.frame(SERVER, LOCAL);
        let output = self.run(INSIDE, frame, to_client());
        Seg::read(
            &sent(output, 0, OUTSIDE, ROUTER_MAC),
            (VIP, 80),
            (CLIENT, 50000),
        )
    }
}

const MSS: [u8; 4] = [2, 4, 5, 0xb4];
const TOA: [u8; 8] = [254, 8, 0xc3, 0x50, 203, 0, 113, 5];

/// Client and server agree on a connection. Returns how far the server's view of the client is ahead.
fn established(bench: &mut Bench) -> u32 {
    let syn = bench.ask(&Seg::new(SYN, 1000, 0).with(&MSS, b""));
    assert_eq!(syn.options, MSS);
    let accept = Seg::new(SYN | ACK, 7000, syn.sequence.wrapping_add(1)).with(&MSS, b"");
    let accept = bench.answer(&accept);
    assert_eq!((accept.sequence, accept.acknowledgement), (7000, 1001));
    assert_eq!(
        accept.options,
        [2, 4, 5, 0xac],
        "room for the client's address"
    );
    syn.sequence.wrapping_sub(1000)
}

#[test]
fn a_handshake_names_the_client_and_data_go_both_ways() {
    let mut bench = bench();
    let delta = established(&mut bench);
    for payload in [&b""[..], b"GET / HTTP/1.0"] {
        let segment = Seg::new(ACK, 1001, 7001).with(&[], payload);
        let seen = bench.ask(&segment);
        assert_eq!(seen.sequence, delta.wrapping_add(1001));
        assert_eq!((seen.acknowledgement, &seen.payload[..]), (7001, payload));
        assert_eq!(seen.options, TOA, "until the client has seen data");
    }
    let data = bench.answer(&Seg::new(ACK, 7001, delta.wrapping_add(1015)).with(&[], b"200"));
    assert_eq!((data.sequence, data.acknowledgement), (7001, 1015));
    let seen = bench.ask(&Seg::new(ACK, 1015, 7004));
    assert!(seen.options.is_empty());
    assert_eq!(bench.events(Event::ClientsNamed), 2);
    assert_eq!(bench.events(Event::Outbound), 2);
}

#[test]
fn the_end_of_an_idle_connection_resets_both_sides() {
    let ended = |reset| Ended {
        client: (CLIENT, 50000).into(),
        vip: (VIP, 80).into(),
        local: LOCAL.into(),
        server: SERVER.into(),
        reset,
    };
    struct Over(Vec<Ended>);
    impl Balancer for Over {
        fn decide(&mut self, _: Instant, _: &Packets<'_>, _: &mut Vec<Verdict>) {}

        fn poll_ended(&mut self) -> Option<Ended> {
            self.0.pop()
        }
    }
    for reset in [true, false] {
        let mut bench = bench();
        let delta = established(&mut bench);
        bench.answer(&Seg::new(ACK, 7001, delta.wrapping_add(1001)).with(&[], b"hello"));
        bench.output.clear();
        // The first tells; of the second nothing is known any more.
        let mut balancer = Over(vec![ended(true), ended(reset)]);
        bench.engine.process(
            bench.now,
            &bench.view,
            INSIDE,
            &mut Vec::new(),
            &mut balancer,
            &mut bench.output,
        );
        let frames = &bench.output;
        assert_eq!(frames.transmit.len(), if reset { 2 } else { 0 });
        if !reset {
            continue;
        }
        let read = |packet: Vec<u8>| {
            assert_checksums(&packet);
            let tcp = TcpPacket::new(&packet[20..]).unwrap().get_sequence();
            assert_eq!((packet.len(), packet[33]), (40, 4));
            (packet[12..20].to_vec(), tcp)
        };
        let (to_server, to_client) = (
            read(sent(frames, 0, INSIDE, server_mac(11))),
            read(sent(frames, 1, OUTSIDE, ROUTER_MAC)),
        );
        assert_eq!(
            to_server,
            ([LOCAL.0, SERVER.0].concat(), delta.wrapping_add(1001))
        );
        assert_eq!(to_client, ([VIP, CLIENT].concat(), 7006));
    }
}

#[test]
fn answers_to_a_local_address_are_claimed_at_its_ports_and_from_its_servers_only() {
    let mut bench = bench();
    for (source, destination, is_claimed) in [
        (SERVER, LOCAL, true),
        (SERVER, (LOCAL.0, 1024), false),
        ((SERVER.0, 8081), LOCAL, false),
        (([10, 0, 0, 12], 8080), LOCAL, false),
        (SERVER, ([10, 0, 0, 1], 33000), false),
    ] {
        let frame = Seg::new(ACK, 1, 1).frame(source, destination);
        let mut frame = frame;
        frame.bytes_mut()[..6].copy_from_slice(&INSIDE_MAC);
        let before = bench.left(LeftReason::NotClaimed);
        bench.run(INSIDE, frame, Verdict::NotOurs);
        let is_left = bench.left(LeftReason::NotClaimed) > before;
        assert_eq!(!is_left, is_claimed, "{source:?} {destination:?}");
        // Nobody's, so the host answers, also where it routes nothing.
        assert_eq!(bench.output.host.len(), usize::from(is_claimed));
    }
}

#[test]
fn errors_change_on_both_sides() {
    let mut bench = bench();
    let delta = established(&mut bench);
    let packet = |frame: Frame| frame.bytes()[14..].to_vec();
    // What the server got, quoted by a router on the way there.
    let quoted = Seg::new(ACK, delta.wrapping_add(1001), 7001).with(&[], b"hello");
    let quoted = packet(quoted.frame(LOCAL, SERVER));
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(server_mac(12), INSIDE_MAC)
        .ipv4([10, 0, 0, 12], LOCAL.0, 64)
        .icmpv4_raw(3, 1, [0; 4])
        .write(&mut bytes, &quoted)
        .unwrap();
    let output = bench.run(INSIDE, Frame::from_bytes(&bytes), to_client());
    let error = sent(output, 0, OUTSIDE, ROUTER_MAC);
    assert_checksums(&error);
    assert_eq!(error[12..20], [VIP, CLIENT].concat());
    let expected = packet(
        Seg::new(ACK, 1001, 7001)
            .with(&[], b"hello")
            .frame((CLIENT, 50000), (VIP, 80)),
    );
    // But for what the server's side has counted down.
    assert_eq!(error[28 + 12..28 + 28], expected[12..28]);
    // And what the client got.
    let quoted = packet(Seg::new(ACK, 7001, 1001).frame((VIP, 80), (CLIENT, 50000)));
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(ROUTER_MAC, OUTSIDE_MAC)
        .ipv4([198, 51, 100, 7], VIP, 64)
        .icmpv4_raw(3, 4, [0, 0, 5, 20])
        .write(&mut bytes, &quoted)
        .unwrap();
    let output = bench.run(OUTSIDE, Frame::from_bytes(&bytes), to_server());
    let error = sent(output, 0, INSIDE, server_mac(11));
    assert_checksums(&error);
    assert_eq!(error[12..20], [LOCAL.0, SERVER.0].concat());
    assert_eq!(error[28 + 12..28 + 20], [SERVER.0, LOCAL.0].concat());
    assert_eq!(error[28 + 20..28 + 24], [0x1f, 0x90, 0x80, 0xe8]);
}

#[test]
fn datagrams_of_several_clients_are_told_apart() {
    let mut bench = bench();
    let mut idents = std::collections::HashSet::new();
    for _ in 0..3 {
        let output = bench.run(OUTSIDE, udp((CLIENT, 50000), (VIP, 53), b"hi"), to_server());
        let packet = sent(output, 0, INSIDE, server_mac(11));
        assert_checksums(&packet);
        let ip = Ipv4Packet::new(&packet).unwrap();
        assert_eq!(ip.get_source().octets(), LOCAL.0);
        // The builder's packets may not be fragmented.
        assert_eq!(ip.get_flags(), 2);
        let mut loose = udp((CLIENT, 50000), (VIP, 53), b"hi");
        let bytes = loose.bytes_mut();
        bytes[20] &= !0x40;
        let sum = u16::from_be_bytes([bytes[24], bytes[25]]).wrapping_add(0x4000);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        let output = bench.run(OUTSIDE, loose, to_server());
        let packet = sent(output, 0, INSIDE, server_mac(11));
        assert_checksums(&packet);
        assert!(idents.insert(Ipv4Packet::new(&packet).unwrap().get_identification()));
    }
}

/// A UDP datagram from the server in two parts.
fn parts(ident: u16) -> [Frame; 2] {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(server_mac(11), INSIDE_MAC)
        .ipv4(SERVER.0, LOCAL.0, 64)
        .udp(SERVER.1, LOCAL.1)
        .write(&mut bytes, &[7; 1200])
        .unwrap();
    let mut frame = Frame::from_bytes(&bytes);
    let bytes = frame.bytes_mut();
    bytes[18..20].copy_from_slice(&ident.to_be_bytes());
    bytes[20] &= !0x40;
    bytes[24..26].fill(0);
    let sum = crate::checksum::finish(crate::checksum::sum(&bytes[14..34]));
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    let mut parts = Vec::new();
    crate::rewrite::fragment::fragment(&mut frame, 14, 700, |mut part| {
        part.bytes_mut()[..14]
            .copy_from_slice(&[&INSIDE_MAC[..], &server_mac(11), &[8, 0]].concat());
        parts.push(part);
    });
    parts.try_into().unwrap()
}

#[test]
fn parts_of_an_answer_find_the_worker_that_the_first_one_names() {
    for reversed in [false, true] {
        let mut engines: Vec<Engine> = (0..4)
            .map(|worker| {
                Engine::new(EngineConfig {
                    worker,
                    workers: 4,
                    ..EngineConfig::default()
                })
            })
            .collect();
        let owner = steer::owner_of_port(LOCAL.1, 4) as usize;
        let (view, now) = (bench().view, Instant::now());
        let mut script = Script(|_: &PacketInfo| to_client());
        let mut output = Output::new();
        // Each part comes in at another worker.
        let mut frames: Vec<Frame> = parts(9).into();
        if reversed {
            frames.reverse();
        }
        let mut pending: Vec<(usize, Handoff)> = Vec::new();
        let mut transmitted = Vec::new();
        let mut collect = |worker: usize, output: &mut Output, pending: &mut Vec<_>| {
            for (_, frame) in output.transmit.drain(..) {
                transmitted.push((worker, frame));
            }
            pending.extend(
                output
                    .handoff
                    .drain(..)
                    .map(|(to, handoff)| (to as usize, handoff)),
            );
        };
        for (worker, frame) in frames.into_iter().enumerate() {
            let mut batch = vec![frame];
            engines[worker].process(now, &view, INSIDE, &mut batch, &mut script, &mut output);
            collect(worker, &mut output, &mut pending);
            for _ in 0..6 {
                for (to, handoff) in std::mem::take(&mut pending) {
                    let mut batch = vec![handoff];
                    engines[to].process_handoff(now, &view, &mut batch, &mut script, &mut output);
                    collect(to, &mut output, &mut pending);
                }
            }
        }
        assert!(pending.is_empty(), "frames go round");
        assert_eq!(transmitted.len(), 2, "reversed: {reversed}");
        for (worker, frame) in &transmitted {
            assert_eq!(*worker, owner);
            assert_eq!(frame.bytes()[26..34], [VIP, CLIENT].concat());
        }
    }
}

#[test]
fn a_server_on_the_director_itself_can_not_be_reached_this_way() {
    let mut bench = bench();
    let verdict = Verdict::Forward(Method::FullNat {
        rip: SocketAddr::from(([10, 0, 0, 1], 8080)),
        local: LOCAL.into(),
    });
    bench.run(OUTSIDE, request(64, b""), verdict);
    assert_eq!(bench.drops(DropReason::BadVerdict), 1);
    assert!(bench.is_silent());
}
