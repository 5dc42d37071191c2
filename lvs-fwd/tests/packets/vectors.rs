//! The specification's test vectors (section 26), byte by byte.

use lvs_fwd::balancer::{Encapsulation, Method, Verdict};
use lvs_fwd::frame::ChecksumState;
use lvs_fwd::stats::DropReason;

use super::table::{Case, Expect};
use super::world::{INSIDE, OUTSIDE, ROUTER, SERVER, at, frame, ip, view};

const SYN: &str = "4500002c 12344000 40062a88 cb007105 c000020a c3500050 11223344 00000000 6002faf0 971e0000 020405b4";
const SYN_INSIDE: &str = "4500002c 12344000 3f062b88 cb007105 c000020a c3500050 11223344 00000000 6002faf0 971e0000 020405b4";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn case(name: &str, packet: &str, verdict: Verdict, expect: Expect) -> Case {
    let mut view = view();
    let claims = std::sync::Arc::make_mut(&mut view.claims);
    claims.insert_service(lvs_fwd::view::Endpoint {
        protocol: 17,
        addr: ip("192.0.2.10"),
        port: 53,
    });
    // The vectors' tunnel server.
    let neighbours = std::sync::Arc::make_mut(&mut view.neighbours);
    neighbours.insert(
        lvs_fwd::route::Hop {
            ifindex: 3,
            addr: ip("10.0.0.31"),
        },
        lvs_fwd::route::Neighbour {
            mac: SERVER,
            state: lvs_fwd::route::NeighbourState::Reachable,
        },
    );
    Case {
        name: format!("vector {name}"),
        view,
        port: OUTSIDE,
        frames: vec![frame(OUTSIDE, &hex(packet))],
        verdict,
        expect,
    }
}

fn sent(packet: String, unfinished: bool) -> Expect {
    Expect::Sent {
        port: INSIDE,
        mac: SERVER,
        packets: Box::new(move |_| vec![hex(&packet)]),
        unfinished,
        segments: None,
        parts: None,
    }
}

/// A GUE packet, but for the flow's port, which everybody may choose: it is under the checksum, if there is one.
fn sent_by_gue(packet: String) -> Expect {
    Expect::Sent {
        port: INSIDE,
        mac: SERVER,
        packets: Box::new(move |hints| {
            let mut packet = hex(&packet);
            let sum = u16::from_be_bytes([packet[26], packet[27]]);
            if sum != 0 {
                let change = u32::from(!sum) + u32::from(!0xd431u16) + u32::from(hints.port);
                let sum = !super::build::fold(change);
                packet[26..28].copy_from_slice(&sum.to_be_bytes());
            }
            packet[20..22].copy_from_slice(&hints.port.to_be_bytes());
            vec![packet]
        }),
        unfinished: false,
        segments: None,
        parts: None,
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let nat = |port| {
        Verdict::Forward(Method::Nat {
            rip: at(ip("10.0.0.11"), port),
        })
    };
    let tunnel = |encapsulation| {
        Verdict::Forward(Method::Tunnel {
            rip: ip("10.0.0.31"),
            encapsulation,
        })
    };
    let gue = |checksum| {
        tunnel(Encapsulation::Gue {
            port: 6080,
            checksum,
        })
    };
    let gre = |checksum| tunnel(Encapsulation::Gre { checksum });
    let by_nat = "4500002c 12344000 3f06e387 cb007105 0a00000b c3501f90 11223344 00000000 6002faf0 2fde0000 020405b4";
    let ipip = "45000040 00004000 3f04279b 0a000001 0a00001f";
    let by_gue = "4500004c 00004000 3f112782 0a000001 0a00001f d43117c0 0038";
    let by_gre = [
        "45000044 00004000 3f2f276c 0a000001 0a00001f 00000800",
        "45000048 00004000 3f2f2768 0a000001 0a00001f 80000800 762e0000",
    ];
    let inside = |outer: &str| format!("{outer} {SYN_INSIDE}");
    let mut partial = case(
        "26.1, unfinished",
        &SYN.replace("971e", "fe2e"),
        nat(8080),
        sent(by_nat.replace("2fde", "462f"), true),
    );
    let state = ChecksumState::Partial {
        start: 34,
        offset: 16,
    };
    partial.frames[0].meta.checksum = state;
    let mut unfinished_inside = case(
        "26.4, remote checksum: finished instead",
        &SYN.replace("971e", "fe2e"),
        gue(true),
        sent_by_gue(inside(&format!("{by_gue} fd97 00040000"))),
    );
    unfinished_inside.frames[0].meta.checksum = state;
    vec![
        case("26.1", SYN, nat(8080), sent(by_nat.to_owned(), false)),
        partial,
        case(
            "26.2",
            "45000022 12344000 40112a87 cb007105 c000020a 9c400035 000ece91 12344142 4344",
            nat(5353),
            sent(
                "45000022 12344000 3f11e386 cb007105 0a00000b 9c4014e9 000e71dd 12344142 4344"
                    .to_owned(),
                false,
            ),
        ),
        case(
            "26.3",
            SYN,
            tunnel(Encapsulation::Ipip),
            sent(inside(ipip), false),
        ),
        case(
            "26.4, no checksum",
            SYN,
            gue(false),
            sent_by_gue(inside(&format!("{by_gue} 0000 00040000"))),
        ),
        case(
            "26.4, checksum",
            SYN,
            gue(true),
            sent_by_gue(inside(&format!("{by_gue} fd97 00040000"))),
        ),
        unfinished_inside,
        case(
            "26.5, no checksum",
            SYN,
            gre(false),
            sent(inside(by_gre[0]), false),
        ),
        case(
            "26.5, checksum",
            SYN,
            gre(true),
            sent(inside(by_gre[1]), false),
        ),
        case(
            "26.8",
            SYN,
            Verdict::Reject,
            Expect::Told {
                reason: DropReason::Rejected,
                port: OUTSIDE,
                mac: ROUTER,
                packet: Box::new(move |_| {
                    hex(&format!(
                        "45c00048 00000000 40017be5 c000020a cb007105 0303fb2b 00000000 {SYN}"
                    ))
                }),
            },
        ),
    ]
}
