//! Which servers of a list changed since somebody looked.

use std::sync::atomic::Ordering::SeqCst;

use crate::atomic::AtomicU64;

/// A set of small numbers that any thread adds to and the holder of the service's lock empties.
///
/// A change is first made and then marked; the reader takes the mark first and then reads. So what
/// a thread has changed is seen by every pick that begins after its call returned.
#[derive(Debug)]
pub(crate) struct Marks {
    words: Box<[AtomicU64]>,
    /// One bit for each `span` words.
    summary: AtomicU64,
    span: usize,
}

impl Marks {
    pub(crate) fn new(len: usize) -> Self {
        let words: Box<[_]> = (0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self {
            summary: AtomicU64::new(0),
            span: words.len().div_ceil(64).max(1),
            words,
        }
    }

    /// Adds a number; one outside the set is ignored (it belongs to a set that was replaced).
    pub(crate) fn set(&self, number: usize) {
        let index = number / 64;
        let Some(word) = self.words.get(index) else {
            return;
        };
        // A bit that is still there will be taken after this look at it, hence after the change.
        add(word, 1 << (number % 64));
        add(&self.summary, 1 << (index / self.span));
    }

    /// Whether there is something.
    pub(crate) fn is_any(&self) -> bool {
        self.summary.load(SeqCst) != 0
    }

    /// Empties the set. Returns whether there was something.
    pub(crate) fn take(&self, mut each: impl FnMut(usize)) -> bool {
        if !self.is_any() {
            return false;
        }
        for group in bits(self.summary.swap(0, SeqCst)) {
            let from = group * self.span;
            let to = (from + self.span).min(self.words.len());
            for index in from..to {
                let word = &self.words[index];
                if word.load(SeqCst) != 0 {
                    bits(word.swap(0, SeqCst)).for_each(|bit| each(index * 64 + bit));
                }
            }
        }
        true
    }
}

fn add(word: &AtomicU64, bit: u64) {
    if word.load(SeqCst) & bit == 0 {
        word.fetch_or(bit, SeqCst);
    }
}

fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros() as usize;
            word &= word - 1;
            bit
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_comes_out_once() {
        for len in [1, 64, 65, 4096, 4097, 20_000] {
            let marks = Marks::new(len);
            let numbers = [0, len / 3, len / 2, len - 1];
            for number in numbers.into_iter().chain(numbers) {
                marks.set(number);
            }
            marks.set(len + 64);
            let mut expected = numbers.to_vec();
            expected.dedup();
            let mut taken = Vec::new();
            marks.take(|number| taken.push(number));
            assert_eq!(taken, expected);
            marks.take(|number| panic!("{number} came twice"));
        }
    }

    #[test]
    fn a_change_before_the_mark_is_never_missed() {
        let marks = Marks::new(256);
        let changes: Vec<AtomicU64> = (0..256).map(|_| AtomicU64::new(0)).collect();
        let mut seen = vec![0; 256];
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|thread| {
                    let (marks, changes) = (&marks, &changes);
                    scope.spawn(move || {
                        for step in 0..100_000_usize {
                            let number = (step * 31 + thread * 7) % 256;
                            changes[number].fetch_add(1, SeqCst);
                            marks.set(number);
                        }
                    })
                })
                .collect();
            while !threads.iter().all(|thread| thread.is_finished()) {
                marks.take(|number| seen[number] = changes[number].load(SeqCst));
            }
        });
        marks.take(|number| seen[number] = changes[number].load(SeqCst));
        let real: Vec<_> = changes.iter().map(|change| change.load(SeqCst)).collect();
        assert_eq!(seen, real);
    }
}
