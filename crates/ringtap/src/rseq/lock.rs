//! The lock for writers that cannot run sections, and for those whose sections abort without end.
//!
//! The lock word of a buffer is 0 or names the thread that writes. Whoever finds it taken yields a bounded
//! number of times and then refuses its event: nothing ever waits, and a signal handler that interrupted the
//! owner does not deadlock. An owner that died is found by its thread id, birth and program, and is succeeded. One that
//! seems to be the caller, who knows that it holds no lock, is the process that it was before it executed its program.
//!
//! Where a buffer's other writers run sections ([`WriterKind::Rseq`]), the owner first pins itself to the
//! buffer's CPU. Once it runs there, every section of that CPU was preempted, so it will abort; and sections
//! compare the lock with 0 when they start again.
//!
//! [`WriterKind::Rseq`]: ringtap_abi::meta::WriterKind::Rseq

use crate::ring::ordering::{e4_acquire, e4_release};
use crate::thread;
use ringtap_abi::sync::AtomicU64;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::compiler_fence;

/// How often somebody who finds the lock taken yields before it refuses its event. An owner needs about a
/// microsecond; one that was preempted runs again after a few yields of those who want its CPU.
const YIELDS: u32 = 64;
/// After how many of them it asks whether the owner is still alive: that takes system calls.
const YIELDS_BEFORE_INQUEST: u32 = 16;

thread_local! {
    /// How many locks the calling thread holds, or is about to take: a signal handler that finds its own thread's word
    /// in a lock thereby knows whether it interrupted the owner. No destructor.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// A model checker's threads are all one to the kernel, which takes turns: they are not counted.
fn held() -> u32 {
    if cfg!(loom) { 0 } else { HELD.get() }
}

fn set_held(count: u32) {
    if !cfg!(loom) {
        HELD.set(count);
    }
}

/// The calling thread's hold on a buffer's lock.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held<'m> {
    lock: &'m AtomicU64,
    /// It is counted in [`HELD`], which is the thread's own.
    not_send: PhantomData<*const ()>,
}

/// Takes a buffer's lock; `None` when its owner could not be waited for.
pub(crate) fn acquire(lock: &AtomicU64) -> Option<Held<'_>> {
    let before = held();
    set_held(before + 1);
    // A signal handler from here on knows.
    compiler_fence(SeqCst);
    if take(lock, before > 0) {
        return Some(Held { lock, not_send: PhantomData });
    }
    set_held(before);
    None
}

/// `holds_some`: whether this thread has a lock, which may be this one.
fn take(lock: &AtomicU64, holds_some: bool) -> bool {
    let me = thread::owner_word();
    for attempt in 0..YIELDS {
        // E4: pairs with the Release in `Held::drop`. The owner before us is done with all that it stored.
        let owner = match lock.compare_exchange(0, me, e4_acquire(), Relaxed) {
            Ok(_) => return true,
            Err(owner) => owner,
        };
        // All of a model checker's threads are one to the kernel, and have its word: another may hold it.
        if owner == me && (holds_some || cfg!(loom)) {
            // A signal handler that interrupted this thread's own write.
            return false;
        }
        let is_over = owner == me || attempt >= YIELDS_BEFORE_INQUEST && thread::is_dead(owner);
        if is_over && lock.compare_exchange(owner, me, e4_acquire(), Relaxed).is_ok() {
            // Whatever the dead owner had stored was not committed, or it was: there is nothing to repair.
            return true;
        }
        thread::yield_now();
    }
    false
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A test that kills a writer unwinds its thread: the dead release nothing.
        if cfg!(test) && std::thread::panicking() {
            return;
        }
        // E4: pairs with the Acquire in `take`.
        self.lock.store(0, e4_release());
        compiler_fence(SeqCst);
        set_held(held().wrapping_sub(1));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_handler_knows_its_threads_own_lock_from_a_dead_ones() {
        let (one, other) = (AtomicU64::new(0), AtomicU64::new(0));
        let held = acquire(&one).expect("it is free");
        assert!(acquire(&one).is_none(), "this thread has it");
        drop(acquire(&other).expect("it is free"));
        drop(held);
        assert_eq!(one.load(Relaxed), 0);
        // What a program left that this process ran before.
        one.store(thread::owner_word(), Relaxed);
        drop(acquire(&one).expect("its owner is no more"));
        assert_eq!((one.load(Relaxed), HELD.get()), (0, 0));
    }
}
