//! What a fork does to attachments: the child has their memory, and none of their threads.
//!
//! This module exists to protect one invariant: a lock that another thread held when the process forked is never
//! waited for in the child. There it is replaced by a new one, before the child has a second thread.

use super::follow::Shared;
use crate::rseq::stay_loaded;
use std::cell::UnsafeCell;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, TryLockError, Weak};

/// A lock that can be made anew in a forked child.
#[derive(Debug, Default)]
pub(super) struct Lock<T>(UnsafeCell<Mutex<T>>);

// SAFETY: a mutex may be shared; `renew` is called by the only thread there is.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    const fn new(value: T) -> Self {
        Self(UnsafeCell::new(Mutex::new(value)))
    }
}

impl<T: Default> Lock<T> {
    /// The value. Each change to it is complete or absent, so a panic of another thread changes nothing.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        // SAFETY: nobody replaces it while there are other threads.
        unsafe { &*self.0.get() }.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In a forked child: a new lock around an empty value, where another thread of the parent held the old one.
    ///
    /// # Safety
    /// The calling thread is the only one of its process, and does not hold the lock.
    pub(super) unsafe fn renew(&self) {
        // SAFETY: as the caller says.
        let lock = unsafe { &*self.0.get() };
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            // What the old one holds may be half changed: it is left as it is.
            // SAFETY: as the caller says; nobody borrows from it.
            unsafe { self.0.get().write(Mutex::default()) };
        }
    }
}

static ALL: Lock<Vec<Weak<Shared>>> = Lock::new(Vec::new());

/// Has forked children continue an attachment.
pub(super) fn watch(shared: &Arc<Shared>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        stay_loaded();
        // SAFETY: the hook is a function that stays loaded.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    let mut all = ALL.lock();
    all.retain(|shared| shared.strong_count() > 0);
    all.push(Arc::downgrade(shared));
}

extern "C" fn in_child() {
    // Held by another thread just then, it is empty: the child goes on with what is mapped.
    // SAFETY: a fork has just made this process, with this thread alone.
    unsafe { ALL.renew() };
    for shared in ALL.lock().iter().filter_map(Weak::upgrade) {
        // SAFETY: a fork has just made this process, with this thread alone; it did not fork inside of our locks,
        // which are not held across calls to others.
        unsafe { shared.after_fork() };
    }
}
