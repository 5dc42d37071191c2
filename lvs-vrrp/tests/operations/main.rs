//! Random lives of a VRRP router, and random bytes for the parsers: nothing panics, deadlines move forward, addresses are set exactly while
//! a router is Active.

mod run;

use proptest::prelude::*;

proptest! {
    #[test]
    fn no_sequence_of_operations_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..1_500)) {
        run::run_operations(&bytes);
    }

    #[test]
    fn whatever_is_read_is_written_again(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        run::run_parsers(&bytes);
    }

    #[test]
    fn what_looks_like_an_advertisement_is_read_or_refused(
        vrid in any::<u8>(),
        count in 0..12_u8,
        rest in prop::collection::vec(any::<u8>(), 0..250),
        version in 2..4_u8,
    ) {
        let mut bytes = vec![version << 4 | 1, vrid, 100, count, 0, 100, 0, 0];
        bytes.extend(rest);
        run::run_parsers(&bytes);
    }
}
