//! What is told about packets is what happens to them.

use super::*;
use crate::why::{Subject, claim};

proptest! {
    #[test]
    fn the_claim_that_is_told_is_the_engines(
        source in (prop::sample::select(vec![CLIENT, VIP, [10, 0, 0, 1], [10, 0, 0, 11], [10, 0, 0, 99]]),
            prop::sample::select(vec![80_u16, 8080, 53, 4000])),
        destination in (prop::sample::select(vec![CLIENT, VIP, [10, 0, 0, 1], [10, 0, 0, 11]]),
            prop::sample::select(vec![80_u16, 8080, 53, 4000])),
        is_tcp in any::<bool>(),
        is_bare in any::<bool>(),
    ) {
        let view = view();
        let frame = if is_tcp {
            tcp(ROUTER_MAC, OUTSIDE_MAC, source, destination, 64, b"x")
        } else {
            udp(source, destination, b"x")
        };
        let bytes = frame.bytes();
        let told = Subject::parse(if is_bare { &bytes[14..] } else { bytes }).unwrap();
        let headers = Headers::parse(bytes).unwrap();
        prop_assert_eq!(
            claim(&view, &told).map(|claimed| (claimed.direction, claimed.mark)),
            classify(&view, Origin::Port(OUTSIDE), &headers).map(|class| (class.direction, class.mark))
        );
        prop_assert_eq!((told.source, told.destination), (headers.source, headers.destination));
        prop_assert_eq!(told.length as usize, headers.ip_len());
    }
}
