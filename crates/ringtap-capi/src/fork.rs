//! A lock that a fork may come upon: the child finds it free, and what it guards complete.

use crate::trace;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// A lock that knows which thread has it.
#[derive(Debug)]
pub(crate) struct Lock<T> {
    value: Mutex<T>,
    /// The thread; 0 for none.
    owner: AtomicU32,
}

#[derive(Debug)]
pub(crate) struct Guard<'l, T> {
    value: MutexGuard<'l, T>,
    owner: &'l AtomicU32,
}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { value: Mutex::new(value), owner: AtomicU32::new(0) }
    }

    /// What it guards. Each change to it is complete or absent, so a panic of another thread says nothing about it.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        watch();
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.owner.store(ringtap::thread::id(), Relaxed);
        Guard { value, owner: &self.owner }
    }

    /// Whether the calling thread has it: Relaxed, since it would have stored that itself.
    fn is_mine(&self) -> bool {
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

/// The process's lock while its fork is under way.
struct Held(UnsafeCell<Option<Guard<'static, trace::Process>>>);

// SAFETY: only who has the lock touches it.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

/// Takes the process's lock at each fork, from the first time on that somebody else takes it.
fn watch() {
    static ONCE: Once = Once::new();
    // SAFETY: the hooks are functions of this library, which is not unloaded.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child));
    });
}

extern "C" fn before() {
    // A handler that interrupted the lock's owner forks: the child has that owner, who will let go of it.
    if trace::PROCESS.is_mine() {
        return;
    }
    let guard = trace::PROCESS.lock();
    // SAFETY: the lock is held.
    unsafe { *HELD.0.get() = Some(guard) };
}

extern "C" fn in_parent() {
    if trace::PROCESS.is_mine() {
        // SAFETY: the lock is held; where that was so before the fork, there is nothing here.
        unsafe { *HELD.0.get() = None };
    }
}

extern "C" fn in_child() {
    crate::thread::forget();
    // The thread has another id here than its guard says.
    // SAFETY: there is no other thread.
    let guard = unsafe { (*HELD.0.get()).take() };
    let is_attached = guard.as_ref().is_some_and(|process| process.is_attached());
    drop(guard);
    if is_attached {
        crate::switches::watch();
    }
}
