//! The short way that most packets take does what the long one does, which looks everything up.

use super::ipv6::{CLIENT6, VIP6, bench, dr6, nat6, tcp6, udp6, un_nat6};
use super::*;

/// All that is put out for one frame, and what was counted for it.
fn outcome(bench: &mut Bench, port: PortId, frame: Frame, verdict: Verdict) -> (String, Vec<u64>) {
    let counts = |bench: &Bench| -> Vec<u64> {
        let counters = bench.engine.counters();
        let drops = DropReason::ALL.map(|reason| counters.drops(reason));
        let events = Event::ALL.map(|event| counters.events(event));
        drops.into_iter().chain(events).collect()
    };
    let before = counts(bench);
    bench.run(port, frame, verdict);
    let differences = counts(bench).into_iter().zip(before);
    let counted = differences.map(|(now, before)| now - before).collect();
    let Output {
        transmit,
        host,
        handoff,
        resolve,
    } = &bench.output;
    let told = |frame: &Frame| format!("{:02x?} {:?}", frame.bytes(), frame.meta);
    let sent: Vec<_> = transmit
        .iter()
        .map(|(port, frame)| format!("{port:?} {}", told(frame)))
        .collect();
    let host: Vec<_> = host.iter().map(told).collect();
    let text = format!("{sent:#?} {host:#?} {} {resolve:?}", handoff.len());
    (text, counted)
}

proptest! {
    #[test]
    fn it_does_what_the_long_way_does(
        v6 in any::<bool>(),
        is_tcp in any::<bool>(),
        choice in 0..4,
        last in prop::sample::select(vec![11_u8, 12, 13, 14]),
        port in any::<u16>(),
        hops in prop::sample::select(vec![2_u8, 3, 64, 255]),
        dont_fragment in any::<bool>(),
        length in prop_oneof![0..200_usize, 1400..1500_usize, Just(2000)],
        checksum in 0..3,
        gso in prop::option::of(300..1400_u16),
        longest_part in prop::option::of(600..1400_u16),
    ) {
        let is_reply = choice > 1;
        let payload = vec![0x5a; length];
        let (server, server6) = ([10, 0, 0, last], super::ipv6::server(last));
        let mut frame = match (v6, is_reply, is_tcp) {
            (true, false, true) => tcp6((CLIENT6, 50000), (VIP6, 80), hops, &payload),
            (true, false, false) => udp6((CLIENT6, 50000), (VIP6, 80), hops, &payload),
            (true, true, true) => tcp6((&server6, 8080), (CLIENT6, 50000), hops, &payload),
            (true, true, false) => udp6((&server6, 8080), (CLIENT6, 50000), hops, &payload),
            (false, false, true) => request(hops, &payload),
            (false, false, false) => udp((CLIENT, 50000), (VIP, 80), &payload),
            (false, true, true) => reply(last, hops, &payload),
            (false, true, false) => udp((server, 8080), (CLIENT, 50000), &payload),
        };
        let (ingress, mac) = if is_reply { (INSIDE, INSIDE_MAC) } else { (OUTSIDE, OUTSIDE_MAC) };
        frame.bytes_mut()[..6].copy_from_slice(&mac);
        if !v6 {
            let flags = if dont_fragment { 0x40 } else { 0 };
            frame.bytes_mut()[20] = flags;
            frame.bytes_mut()[22] = hops;
            fix_header(&mut frame);
        }
        let transport = if v6 { 54 } else { 34 };
        frame.meta.checksum = match checksum {
            0 => ChecksumState::Complete,
            1 => ChecksumState::Verified,
            _ => ChecksumState::Partial { start: transport, offset: if is_tcp { 16 } else { 6 } },
        };
        if is_tcp && let Some(size) = gso {
            frame.meta.gso = Some(Gso {
                kind: if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 },
                ecn: false,
                size,
                header_len: transport + 20,
            });
        }
        frame.meta.longest_part = longest_part;
        let verdict = match (v6, choice) {
            (false, 0) => nat(last, port),
            (false, 1) => dr(last),
            (false, _) => un_nat(),
            (true, 0) => nat6(last, port),
            (true, 1) => dr6(last),
            (true, _) => un_nat6(),
        };
        let mut bench = if v6 { bench() } else { Bench::new() };
        // The first way to an address is looked up.
        let long = outcome(&mut bench, ingress, frame.clone(), verdict);
        let plain = frame.meta.gso.is_none()
            && longest_part.is_none()
            && length < 1400
            && (is_reply || matches!(last, 11 | 12));
        // What is told or numbered afresh each time differs from time to time.
        if plain || long.1[DropReason::TooBig as usize] == 0 && !long.0.contains("Held") {
            let short = outcome(&mut bench, ingress, frame, verdict);
            if plain {
prop_assert!(v6 && is_reply || long.0.contains("PortId"), "it is sent: {}", long.0);
                prop_assert_eq!(&long.0, &short.0);
            }
            prop_assert_eq!(long.1, short.1);
        }
    }
}
