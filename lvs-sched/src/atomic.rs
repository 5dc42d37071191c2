//! What several threads read and write without a lock, and the lock of a service: the usual parts, or loom's, which
//! run a test through all interleavings of its threads (`RUSTFLAGS='--cfg loom'`, `tests/interleavings.rs`).
//!
//! Only those are here whose order matters to a decision; plain counters are std's.

#[cfg(not(loom))]
pub(crate) use arc_swap::{ArcSwapOption, Guard};
#[cfg(not(loom))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};

#[cfg(loom)]
pub(crate) use explored::{ArcSwapOption, AtomicU32, AtomicU64, Guard, Mutex, MutexGuard};

#[cfg(loom)]
mod explored {
    use std::ops::Deref;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    pub(crate) use loom::sync::MutexGuard;

    /// loom has no total order of loads and stores; as read-modify-writes they have one.
    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    match order {
                        Ordering::SeqCst => self.0.fetch_add(0, order),
                        order => self.0.load(order),
                    }
                }

                #[allow(dead_code, reason = "one of the two is not stored to")]
                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    match order {
                        Ordering::SeqCst => {
                            self.0.swap(value, order);
                        }
                        order => self.0.store(value, order),
                    }
                }
            }

            impl Deref for $name {
                type Target = loom::sync::atomic::$name;

                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }
        };
    }

    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a thread that panics ends the test")
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    #[derive(Debug)]
    pub(crate) struct ArcSwapOption<T>(Mutex<Option<Arc<T>>>);

    impl<T> ArcSwapOption<T> {
        pub(crate) fn empty() -> Self {
            Self(Mutex::new(None))
        }

        pub(crate) fn load(&self) -> Guard<Option<Arc<T>>> {
            Guard(self.0.lock().clone())
        }

        pub(crate) fn store(&self, value: Option<Arc<T>>) {
            *self.0.lock() = value;
        }
    }

    impl<T> Default for ArcSwapOption<T> {
        fn default() -> Self {
            Self::empty()
        }
    }

    #[derive(Debug)]
    pub(crate) struct Guard<T>(T);

    impl<T> Deref for Guard<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }
}
