//! A lock that a fork, or the end of the program, may come upon: a forked child finds it free, and what it guards complete.
//!
//! This module exists to protect one invariant: what the lock guards is touched by the thread alone that the lock names.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

/// How long to sleep before the next try: it is seldom held, and for long only while a host is asked.
const NAP: Duration = Duration::from_micros(50);

/// A lock that knows which thread has it.
#[derive(Debug)]
pub(crate) struct Lock<T> {
    value: UnsafeCell<T>,
    /// The thread; 0 for none. One store takes the lock and says whose it is: a signal handler that interrupts its thread
    /// anywhere knows.
    owner: AtomicU32,
    /// Done before it is taken: has forks take it, too.
    watch: fn(),
}

// SAFETY: one thread at a time has the value, by way of its guard.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The right to the value. It stays on its thread; a forked child's only thread is that one's copy.
#[derive(Debug)]
pub(crate) struct Guard<'l, T> {
    lock: &'l Lock<T>,
    of_thread: PhantomData<*const ()>,
}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T, watch: fn()) -> Self {
        Self { value: UnsafeCell::new(value), owner: AtomicU32::new(0), watch }
    }

    /// What it guards. Each change to it is complete or absent, so a panic of another thread says nothing about it.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        (self.watch)();
        let own = ringtap::thread::id();
        // Acquire: pairs with the Release of the guard's end.
        while self.owner.compare_exchange(0, own, Acquire, Relaxed).is_err() {
            std::thread::sleep(NAP);
        }
        Guard { lock: self, of_thread: PhantomData }
    }

    /// In a forked child of the thread that has it, if one has: there it has another number.
    pub(crate) fn inherit(&self) {
        // Relaxed: there is no other thread.
        if self.owner.load(Relaxed) != 0 {
            // SAFETY: always valid.
            let own = unsafe { libc::gettid() };
            self.owner.store(own.cast_unsigned(), Relaxed);
        }
    }

    /// Whether the calling thread has it: Relaxed, since it would have stored that itself.
    pub(crate) fn is_mine(&self) -> bool {
        self.owner.load(Relaxed) == ringtap::thread::id()
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // Release: who takes it next sees what was changed.
        self.lock.owner.store(0, Release);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is this thread's until the guard ends, and this borrows the guard.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; nobody else borrows the guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_at_a_time_has_it_and_is_named() {
        static LOCK: Lock<u64> = Lock::new(0, || ());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        let mut count = LOCK.lock();
                        assert!(LOCK.is_mine());
                        *count += 1;
                        drop(count);
                        assert!(!LOCK.is_mine());
                    }
                });
            }
        });
        assert_eq!(*LOCK.lock(), 20_000);
    }
}
