//! A value that is replaced while other threads use it, and freed once none of them can.
//!
//! A user counts himself in, takes the pointer, uses what it points to, and counts himself out (edge S4). Who replaces the
//! value swaps the pointer first, and frees the old value once he has found the count at 0 after that. The count
//! decides since both look at it by a read-modify-write, which always sees the latest: either the user's came first, and
//! the count is not 0, or it came second, and then the user sees the swap. A count that is never found at 0 (a thread was
//! killed by a fork in the midst) keeps what was replaced, and nobody waits for it.
//!
//! This module exists to protect that invariant: a pointer is used between the two counts alone.

#[cfg(loom)]
use ::loom::sync::atomic::AtomicPtr;
use ringtap_abi::sync::AtomicU64;
use std::fmt;
use std::ptr;
#[cfg(not(loom))]
use std::sync::atomic::AtomicPtr;
use std::sync::{Mutex, PoisonError};

ringtap_abi::edges! {
    /// A user counts himself in.
    s4_enter: Acquire;
    /// He takes the pointer.
    s4_take: Acquire;
    /// He counts himself out.
    s4_leave: Release;
    /// The pointer is replaced.
    s4_swap: Release;
    /// Who replaced it looks for users.
    s4_look: AcqRel;
}

/// A value, or none, that is lent to any thread and signal handler.
pub(crate) struct Lent<T> {
    /// Threads at work with `value`, or with one before it.
    users: AtomicU64,
    value: AtomicPtr<T>,
    /// Replaced, and perhaps still in use.
    replaced: Mutex<Vec<Replaced<T>>>,
}

struct Replaced<T>(*mut T);

// SAFETY: the pointer owns a value that may be dropped by any thread.
unsafe impl<T: Send> Send for Replaced<T> {}

// SAFETY: values come in by `set` from any thread, are used as `&T` by several at once, and dropped by another.
unsafe impl<T: Send + Sync> Sync for Lent<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for Lent<T> {}

impl<T> Lent<T> {
    /// Nothing to lend.
    pub(crate) fn none() -> Self {
        let value = AtomicPtr::new(ptr::null_mut());
        Self { users: AtomicU64::new(0), value, replaced: Mutex::default() }
    }

    /// Lends the value, where there is one. Without waiting, allocating or freeing.
    pub(crate) fn with<R>(&self, then: impl FnOnce(&T) -> R) -> Option<R> {
        // S4: Acquire. If this count comes behind a look, the swap before that look is seen by the load below.
        self.users.fetch_add(1, s4_enter());
        let _counted = Counted(&self.users);
        // S4: Acquire, for what the pointer points to.
        let value = self.value.load(s4_take());
        // SAFETY: made by `set`; counted, so it is not freed before `_counted` is dropped.
        unsafe { value.as_ref() }.map(then)
    }

    /// Replaces the value, and frees what was replaced and is no longer used.
    pub(crate) fn set(&self, value: Option<T>) {
        let new = value.map_or(ptr::null_mut(), |value| Box::into_raw(Box::new(value)));
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        // S4: Release, for what the pointer points to. Others who replace are excluded by the lock.
        let old = self.value.swap(new, s4_swap());
        if !old.is_null() {
            replaced.push(Replaced(old));
        }
        // S4: a read-modify-write, which sees the latest count. Acquire: behind it, the uses of those who counted
        // themselves out are over. Release: who counts himself in behind it sees the swap.
        if self.users.fetch_add(0, s4_look()) == 0 {
            // Users of the present value may come now; none of them can find an older one.
            replaced.drain(..).for_each(|Replaced(old)| {
                // SAFETY: made by `set` and swapped out before the count was 0; taken off the list here.
                unsafe { free(old) };
            });
        }
    }

    /// How many values were replaced and are still kept.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// # Safety
/// The pointer is from `Box::into_raw`, and nobody uses it any more.
#[cfg(not(loom))]
unsafe fn free<T>(value: *mut T) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(value) });
}

/// As above, but the place stays: a model finds who uses it behind the end by what is in the value.
#[cfg(loom)]
unsafe fn free<T>(value: *mut T) {
    // SAFETY: the caller's promise.
    unsafe { ptr::drop_in_place(value) };
}

/// Counts a thread out, even where it unwinds.
struct Counted<'t>(&'t AtomicU64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        // S4: Release, so that the uses come before the value is freed.
        self.0.fetch_sub(1, s4_leave());
    }
}

impl<T> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("users", &self.users).field("value", &self.value).finish_non_exhaustive()
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        let replaced = self.replaced.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Relaxed: nobody else has it any more.
        let last = self.value.load(std::sync::atomic::Ordering::Relaxed);
        for value in replaced.drain(..).map(|Replaced(old)| old).chain([last]) {
            if !value.is_null() {
                // SAFETY: made by `set`; nobody can use it any more.
                unsafe { free(value) };
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom {
    use super::Lent;
    use crate::ring::tests::loom::explore;
    use ::loom::cell::UnsafeCell;
    use ::loom::thread;
    use std::sync::Arc;

    /// Of whose accesses loom knows which came before which, the last one included: that it was dropped.
    struct Watched(Arc<UnsafeCell<u32>>);

    impl Watched {
        fn new(number: u32) -> Self {
            let cell = Arc::new(UnsafeCell::new(0));
            // SAFETY: nobody else has it.
            cell.with_mut(|cell| unsafe { *cell = number });
            Self(cell)
        }

        fn number(&self) -> u32 {
            // SAFETY: loom fails where another thread writes it meanwhile.
            self.0.with(|cell| unsafe { *cell })
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            // SAFETY: loom fails where another thread uses it meanwhile, or might afterwards.
            self.0.with_mut(|cell| unsafe { *cell = 0 });
        }
    }

    /// The cells outlive the run, for those who look behind the end.
    fn watched(number: u32) -> (Watched, Arc<UnsafeCell<u32>>) {
        let watched = Watched::new(number);
        let cell = watched.0.clone();
        (watched, cell)
    }

    #[test]
    fn s4_nobody_uses_what_was_freed() {
        explore(3, || {
            let lent = Arc::new(Lent::none());
            let (first, _cell) = watched(1);
            lent.set(Some(first));
            let user = {
                let lent = lent.clone();
                thread::spawn(move || {
                    for _ in 0..2 {
                        if let Some(number) = lent.with(Watched::number) {
                            assert_eq!(number, 1);
                        }
                    }
                })
            };
            lent.set(None);
            user.join().unwrap();
            lent.set(None);
            assert_eq!(lent.kept(), 0, "nobody uses it any more");
        });
    }

    #[test]
    fn s4_what_is_lent_is_whole() {
        explore(3, || {
            let lent = Arc::new(Lent::none());
            let (first, _first) = watched(1);
            lent.set(Some(first));
            let user = {
                let lent = lent.clone();
                thread::spawn(move || {
                    let number = lent.with(Watched::number).expect("there always is one");
                    assert!([1, 2].contains(&number));
                })
            };
            let (second, _second) = watched(2);
            lent.set(Some(second));
            user.join().unwrap();
        });
    }
}
