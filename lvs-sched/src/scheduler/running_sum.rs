//! Running sums over numbers that change one by one.

/// A Fenwick tree: changing a number and finding where the running sum reaches a level cost
/// O(log n) each.
#[derive(Debug, Default)]
pub(super) struct RunningSum {
    numbers: Vec<u32>,
    /// `parts[i]` is the sum of as many numbers up to and including the `i`-th, counted from 1, as
    /// the lowest set bit of `i` says.
    parts: Vec<u64>,
    total: u64,
}

impl RunningSum {
    /// Starts over with `numbers`.
    pub(super) fn rebuild(&mut self, numbers: Vec<u32>) {
        self.numbers = numbers;
        self.parts.clear();
        self.parts.push(0);
        self.parts
            .extend(self.numbers.iter().map(|n| u64::from(*n)));
        self.total = self.parts.iter().sum();
        for i in 1..self.parts.len() {
            let parent = i + lowest_bit(i);
            if parent < self.parts.len() {
                self.parts[parent] += self.parts[i];
            }
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn set(&mut self, index: usize, number: u32) {
        let before = std::mem::replace(&mut self.numbers[index], number);
        if before == number {
            return;
        }
        let replaced = |sum: u64| sum - u64::from(before) + u64::from(number);
        self.total = replaced(self.total);
        let mut i = index + 1;
        while i < self.parts.len() {
            self.parts[i] = replaced(self.parts[i]);
            i += lowest_bit(i);
        }
    }

    /// The first position at which the running sum is not below `level`, which is in
    /// `1..=total`.
    pub(super) fn reach(&self, level: u64) -> usize {
        debug_assert!((1..=self.total).contains(&level), "nothing reaches it");
        let len = self.numbers.len();
        let mut step = (len + 1).next_power_of_two() / 2;
        let (mut passed, mut left) = (0, level);
        while step > 0 {
            let next = passed + step;
            if next <= len && self.parts[next] < left {
                left -= self.parts[next];
                passed = next;
            }
            step /= 2;
        }
        passed
    }
}

fn lowest_bit(i: usize) -> usize {
    i & i.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(numbers: &[u32], level: u64) -> usize {
        let mut sum = 0;
        let reaches = |number: &u32| {
            sum += u64::from(*number);
            sum >= level
        };
        numbers.iter().position(reaches).unwrap()
    }

    proptest! {
        #[test]
        fn each_level_is_found_where_a_scan_finds_it(
            mut numbers in prop::collection::vec(prop_oneof![0_u32..4, any::<u32>()], 1..70),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..4), 0..20),
            levels in prop::collection::vec(any::<u64>(), 20),
        ) {
            let mut sums = RunningSum::default();
            sums.rebuild(numbers.clone());
            for (index, number) in changes {
                let index = index.index(numbers.len());
                numbers[index] = number;
                sums.set(index, number);
            }
            let total = numbers.iter().map(|n| u64::from(*n)).sum();
            prop_assert_eq!(sums.total(), total);
            if total > 0 {
                for level in levels.into_iter().map(|level| level % total + 1).chain([1, total]) {
                    prop_assert_eq!(sums.reach(level), scan(&numbers, level));
                }
            }
        }
    }
}
