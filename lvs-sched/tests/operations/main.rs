//! Random lives of a director: whatever comes, in whatever order, the counts agree, the tables stay
//! bounded and everything ends.

mod run;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_sequence_of_operations_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
        run::run_operations(&bytes);
    }
}
