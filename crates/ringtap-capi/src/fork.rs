//! A lock that a fork may come upon: the child finds it free, and what it guards complete.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock that knows which thread has it.
#[derive(Debug)]
pub(crate) struct Lock<T> {
    value: Mutex<T>,
    /// The thread; 0 for none.
    owner: AtomicU32,
    /// Done before it is taken: has forks take it, too.
    watch: fn(),
}

#[derive(Debug)]
pub(crate) struct Guard<'l, T> {
    value: MutexGuard<'l, T>,
    owner: &'l AtomicU32,
}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T, watch: fn()) -> Self {
        Self { value: Mutex::new(value), owner: AtomicU32::new(0), watch }
    }

    /// What it guards. Each change to it is complete or absent, so a panic of another thread says nothing about it.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        (self.watch)();
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.owner.store(ringtap::thread::id(), Relaxed);
        Guard { value, owner: &self.owner }
    }

    /// Whether the calling thread has it: Relaxed, since it would have stored that itself.
    pub(crate) fn is_mine(&self) -> bool {
        self.owner.load(Relaxed) == ringtap::thread::id()
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.owner.store(0, Relaxed);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
