//! The lock for writers that cannot run sections, and for those whose sections abort without end.
//!
//! The lock word of a buffer is 0 or names the thread that writes. Whoever finds it taken yields a bounded
//! number of times and then refuses its event: nothing ever waits, and a signal handler that interrupted the
//! owner does not deadlock. An owner that died is found by its thread id and start time, and is succeeded.
//!
//! Where a buffer's other writers run sections ([`WriterKind::Rseq`]), the owner first pins itself to the
//! buffer's CPU. Once it runs there, every section of that CPU was preempted, so it will abort; and sections
//! compare the lock with 0 when they start again.
//!
//! [`WriterKind::Rseq`]: ringtap_abi::meta::WriterKind::Rseq

use crate::ring::ordering::{e4_acquire, e4_release};
use crate::thread;
use ringtap_abi::sync::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// How often somebody who finds the lock taken yields before it refuses its event. An owner needs about a
/// microsecond; one that was preempted runs again after a few yields of those who want its CPU.
const YIELDS: u32 = 64;
/// After how many of them it asks whether the owner is still alive: that takes system calls.
const YIELDS_BEFORE_INQUEST: u32 = 16;

/// The calling thread's hold on a buffer's lock.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held<'m> {
    lock: &'m AtomicU64,
}

/// Takes a buffer's lock; `None` when its owner could not be waited for.
pub(crate) fn acquire(lock: &AtomicU64) -> Option<Held<'_>> {
    let me = thread::owner_word();
    for attempt in 0..YIELDS {
        // E4: pairs with the Release in `Held::drop`. The owner before us is done with all that it stored.
        let owner = match lock.compare_exchange(0, me, e4_acquire(), Relaxed) {
            Ok(_) => return Some(Held { lock }),
            Err(owner) => owner,
        };
        if owner == me {
            // A signal handler that interrupted this thread's own write.
            return None;
        }
        if attempt >= YIELDS_BEFORE_INQUEST
            && thread::is_dead(owner)
            && lock.compare_exchange(owner, me, e4_acquire(), Relaxed).is_ok()
        {
            // Whatever the dead owner had stored was not committed, or it was: there is nothing to repair.
            return Some(Held { lock });
        }
        thread::yield_now();
    }
    None
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A test that kills a writer unwinds its thread: the dead release nothing.
        if cfg!(test) && std::thread::panicking() {
            return;
        }
        // E4: pairs with the Acquire in `acquire`.
        self.lock.store(0, e4_release());
    }
}
