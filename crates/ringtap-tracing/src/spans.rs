//! Spans: their ids, the ones that a thread is in, and how often each is held.
//!
//! A span has no entry in any table. Its id says which callsite it is of, and is never given twice while it matters;
//! nearly all spans have one handle, so only those that are cloned are counted.
//!
//! ```text
//!   63            48 47                26 25                     0
//!   | callsite, >= 1 |  thread that made it |  serial of the thread |
//! ```
//!
//! The kernel's thread ids have 22 bits and differ between all processes, so ids do too. A thread's serials begin
//! anywhere: where its id was another's before, old spans are not met again soon.

use crate::callsite::Callsite;
use ringtap::thread;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, compiler_fence};
use std::sync::{Mutex, MutexGuard, TryLockError};

const SERIAL_BITS: u32 = 26;
const THREAD_BITS: u32 = 22;
/// Spans that a thread can be in at once; those deeper are written, but are nobody's parent.
const DEPTH: usize = 128;

thread_local! {
    /// No destructor, so that signal handlers may use it.
    static THREAD: Thread = const { Thread::new() };
}

/// What a thread knows of its spans.
struct Thread {
    /// The thread that `serial` is of: a forked child's is another.
    id: Cell<u32>,
    serial: Cell<u32>,
    /// The process that it is of, in the upper bits.
    mark: Cell<u64>,
    /// The span that was made or left last: nearly always the one to be entered or closed next.
    last: Cell<Known>,
    /// The span whose leaving was the last that this thread wrote; 0 for none.
    left: Cell<u64>,
    depth: Cell<usize>,
    /// The spans that it is in.
    inside: [Cell<Known>; DEPTH],
}

/// A span, and its callsite at hand. The span is 0 where there is none.
#[derive(Clone, Copy, Debug)]
struct Known {
    span: u64,
    /// The recorder that it is of. As wide as the others, which the whole is copied by.
    recorder: u64,
    callsite: Option<&'static Callsite>,
}

impl Known {
    const NONE: Self = Self { span: 0, recorder: 0, callsite: None };

    #[inline(always)]
    fn is(&self, recorder: u64, span: u64) -> bool {
        self.span == span && self.recorder == recorder
    }
}

impl Thread {
    const fn new() -> Self {
        Self {
            id: Cell::new(0),
            serial: Cell::new(0),
            mark: Cell::new(0),
            last: Cell::new(Known::NONE),
            left: Cell::new(0),
            depth: Cell::new(0),
            inside: [const { Cell::new(Known::NONE) }; DEPTH],
        }
    }

    #[cold]
    fn begin(&self, id: u32) {
        #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
        self.serial.set((ringtap::clock::monotonic_ns() >> 4) as u32);
        self.mark.set(u64::from(std::process::id()) << (64 - THREAD_BITS));
        self.id.set(id);
    }
}

/// What tells this process's ids from those of others, in the upper bits.
#[inline(always)]
pub(crate) fn process_mark() -> u64 {
    let id = thread::id();
    THREAD.with(|thread| {
        if thread.id.get() != id {
            thread.begin(id);
        }
        thread.mark.get()
    })
}

/// A new span's id.
#[inline(always)]
pub(crate) fn new_id(callsite: u16) -> u64 {
    let id = thread::id();
    THREAD.with(|thread| {
        if thread.id.get() != id {
            thread.begin(id);
        }
        let serial = thread.serial.get().wrapping_add(1);
        thread.serial.set(serial);
        let (thread_bits, serial_bits) = ((1 << THREAD_BITS) - 1, (1 << SERIAL_BITS) - 1);
        u64::from(callsite) << (SERIAL_BITS + THREAD_BITS)
            | u64::from(id & thread_bits) << SERIAL_BITS
            | u64::from(serial & serial_bits)
    })
}

/// The callsite that a span is of.
#[inline(always)]
pub(crate) fn callsite_of(span: u64) -> u16 {
    (span >> (SERIAL_BITS + THREAD_BITS)) as u16
}

/// The span of this recorder that the thread is in; 0 for none.
#[inline(always)]
pub(crate) fn current(recorder: u64) -> u64 {
    THREAD.with(|thread| match thread.depth.get() {
        0 => 0,
        depth => {
            let inside = thread.inside[..depth.min(DEPTH)].iter().rev().map(Cell::get);
            // A signal handler may see a place that is not filled yet.
            let mut ours = inside.filter(|known| known.recorder == recorder && known.span != 0);
            ours.next().map_or(0, |known| known.span)
        }
    })
}

/// Notes what the thread has just written: that it left this span, or with 0 anything else.
#[inline(always)]
pub(crate) fn wrote_exit(span: u64) {
    THREAD.with(|thread| thread.left.set(span));
}

/// Whether the last that the thread wrote is that it left this span.
#[inline(always)]
pub(crate) fn has_just_left(span: u64) -> bool {
    THREAD.with(|thread| thread.left.get() == span)
}

/// Notes that a span was made.
#[inline(always)]
pub(crate) fn made(recorder: u64, span: u64, callsite: &'static Callsite) {
    THREAD.with(|thread| thread.last.set(Known { span, recorder, callsite: Some(callsite) }));
}

/// The callsite of a span that was made or left last by this thread.
#[inline(always)]
pub(crate) fn last(recorder: u64, span: u64) -> Option<&'static Callsite> {
    let last = THREAD.with(|thread| thread.last.get());
    last.callsite.filter(|_| last.is(recorder, span))
}

/// Enters a span. Returns its callsite, found by `find` where it is not at hand.
#[inline(always)]
pub(crate) fn enter(
    recorder: u64,
    span: u64,
    find: impl FnOnce() -> Option<&'static Callsite>,
) -> Option<&'static Callsite> {
    let callsite = last(recorder, span).or_else(find);
    THREAD.with(|thread| {
        let depth = thread.depth.get();
        // First the place, then what is in it: a signal handler in between takes the next one.
        thread.depth.set(depth + 1);
        compiler_fence(SeqCst);
        if let Some(place) = thread.inside.get(depth) {
            place.set(Known { span, recorder, callsite });
        }
    });
    callsite
}

/// Leaves a span. Returns its callsite as [`enter`] does.
#[inline(always)]
pub(crate) fn exit(
    recorder: u64,
    span: u64,
    find: impl FnOnce() -> Option<&'static Callsite>,
) -> Option<&'static Callsite> {
    THREAD.with(|thread| {
        let depth = thread.depth.get();
        let top = depth.checked_sub(1).and_then(|top| thread.inside.get(top));
        let Some(place) = top.filter(|place| place.get().is(recorder, span)) else {
            thread.exit_below(recorder, span);
            return find();
        };
        let known = place.get();
        place.set(Known::NONE);
        compiler_fence(SeqCst);
        thread.depth.set(depth - 1);
        if !thread.last.get().is(recorder, span) {
            thread.last.set(known);
        }
        known.callsite.or_else(find)
    })
}

impl Thread {
    /// Leaves a span that is not the last one entered.
    #[cold]
    fn exit_below(&self, recorder: u64, span: u64) {
        let depth = self.depth.get();
        if depth > DEPTH {
            // Nobody knows what is down there.
            return self.depth.set(depth - 1);
        }
        let Some(at) = self.inside[..depth].iter().rposition(|place| place.get().is(recorder, span)) else {
            return;
        };
        for above in at..depth - 1 {
            self.inside[above].set(self.inside[above + 1].get());
        }
        self.inside[depth - 1].set(Known::NONE);
        self.depth.set(depth - 1);
    }
}

/// How many handles spans have, beyond the first.
#[derive(Debug)]
pub(crate) struct Handles {
    /// Handles in each shard: at 0 nobody looks there. Close together, since each span that closes looks at one.
    counts: Box<[AtomicU32; SHARDS]>,
    shards: Box<[Shard]>,
}

/// Spans, and how many handles each has beyond the first.
#[derive(Debug, Default)]
struct Shard(Mutex<HashMap<u64, u32>>);

const SHARDS: usize = 256;
/// How often to try a shard's lock: its holder is a moment's work, or in a signal handler's way, or gone with a fork.
const TRIES: u32 = 1000;

impl Handles {
    pub(crate) fn new() -> Self {
        Self {
            counts: Box::new([const { AtomicU32::new(0) }; SHARDS]),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }

    #[inline(always)]
    fn shard(span: u64) -> usize {
        (span.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SHARDS
    }

    /// One more.
    pub(crate) fn add(&self, span: u64) {
        let shard = Self::shard(span);
        let Some(mut extra) = self.shards[shard].lock() else { return };
        // Relaxed: whoever drops a handle was given it after this.
        self.counts[shard].fetch_add(1, Relaxed);
        *extra.entry(span).or_default() += 1;
    }

    /// One less. Returns whether it was the last.
    #[inline(always)]
    pub(crate) fn remove(&self, span: u64) -> bool {
        let shard = Self::shard(span);
        // Relaxed: as above; and what another thread removes meanwhile was not this handle.
        self.counts[shard].load(Relaxed) == 0 || self.remove_counted(shard, span)
    }

    #[cold]
    #[inline(never)]
    fn remove_counted(&self, shard: usize, span: u64) -> bool {
        let Some(mut extra) = self.shards[shard].lock() else { return true };
        let Some(count) = extra.get_mut(&span) else { return true };
        *count -= 1;
        if *count == 0 {
            extra.remove(&span);
        }
        self.counts[shard].fetch_sub(1, Relaxed);
        false
    }
}

impl Shard {
    /// `None` where the lock cannot be had; then a span closes too early rather than that anybody waits for ever.
    fn lock(&self) -> Option<MutexGuard<'_, HashMap<u64, u32>>> {
        for _ in 0..TRIES {
            match self.0.try_lock() {
                Ok(extra) => return Some(extra),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_callsite_and_differ() {
        let ids = || (0..1000).map(|_| new_id(7)).collect::<Vec<_>>();
        let mut all = ids();
        all.extend(std::thread::spawn(ids).join().expect("no panic"));
        assert!(all.iter().all(|&id| callsite_of(id) == 7));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2000);
        assert_eq!(callsite_of(new_id(u16::MAX)), u16::MAX);
    }

    fn enter(recorder: u64, span: u64) {
        assert!(super::enter(recorder, span, || None).is_none());
    }

    fn exit(recorder: u64, span: u64) {
        assert!(super::exit(recorder, span, || None).is_none());
    }

    #[test]
    fn the_span_entered_last_is_the_current_one() {
        enter(1, 10);
        enter(2, 99);
        enter(1, 11);
        enter(1, 12);
        assert_eq!((current(1), current(2), current(3)), (12, 99, 0));
        exit(1, 11);
        assert_eq!(current(1), 12);
        exit(1, 12);
        assert_eq!(current(1), 10);
        exit(1, 12);
        assert_eq!((current(1), current(2)), (10, 99));
        exit(2, 99);
        exit(1, 10);
        assert_eq!((current(1), current(2)), (0, 0));
    }

    #[test]
    fn depth_has_no_end() {
        let deep = DEPTH as u64 + 100;
        (1..=deep).for_each(|span| enter(1, span));
        assert_eq!(current(1), DEPTH as u64);
        (1..=deep).rev().for_each(|span| exit(1, span));
        assert_eq!(current(1), 0);
        enter(1, 5);
        assert_eq!(current(1), 5);
        exit(1, 5);
    }

    #[test]
    fn the_last_handle_closes() {
        let handles = Handles::new();
        assert!(handles.remove(1));
        handles.add(2);
        handles.add(2);
        assert!(!handles.remove(2));
        assert!(!handles.remove(2));
        assert!(handles.remove(2));
        assert_eq!(handles.counts.iter().map(|count| count.load(Relaxed)).sum::<u32>(), 0);
    }

    #[test]
    fn of_threads_that_drop_at_once_one_is_the_last() {
        let handles = Handles::new();
        for span in 1..2000 {
            handles.add(span);
            let last: Vec<bool> = std::thread::scope(|scope| {
                let others = [scope.spawn(|| handles.remove(span)), scope.spawn(|| handles.remove(span))];
                others.map(|other| other.join().expect("no panic")).to_vec()
            });
            assert_eq!(last.iter().filter(|&&last| last).count(), 1);
        }
    }
}
