//! The one thing that this crate needs unsafe code for.

#![allow(unsafe_code)]

/// Has the processor fetch the cache lines of a value that will be used soon. Nothing waits for them, so that the misses of
/// many calls overlap. Where the standard library has no such hint, nothing happens.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        // A value no larger than its alignment lies in one line.
        let last = (size_of::<T>() > align_of::<T>()).then(|| size_of::<T>() - 1);
        for offset in (0..size_of::<T>()).step_by(CACHE_LINE).chain(last) {
            let at = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
            // SAFETY: this is a hint. It reads nothing that the program could see, and an address where nothing is does not
            // trap. These are the value's own.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = value;
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
const CACHE_LINE: usize = 64;
