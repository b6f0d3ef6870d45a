//! The sections in Rust, for whoever may not be interrupted anyway: the holder of the buffer's lock. They are
//! also what the model checkers run, and what the stepper cuts off before each store.

use super::{Append, Expected, Outcome, Sections, Turn};
use crate::ring::ordering::{e1_commit, e2_turn, e3_record, fence};
use crate::ring::{Ring, store_hook};
#[cfg(not(loom))]
use crate::thread;
use ringtap_abi::words::Commit;
use std::sync::atomic::Ordering::Relaxed;

/// Steps of a thread that holds the lock of a buffer whose writers all take it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exclusive;

/// Steps of a thread that holds the lock of a buffer whose other writers run sections on this CPU, to which
/// it is pinned.
#[derive(Debug, Clone, Copy)]
#[cfg(not(loom))]
pub(crate) struct Pinned(pub(crate) u32);

/// Closes the page to the hot path, then makes two of the four comparisons; the lock is ours.
///
/// The hot path looks at nothing but the page. Sections that run while we are preempted between two of our steps
/// find it closed, and those of the slow path find the lock taken.
///
/// A pin can be undone from outside. So whoever is pinned looks where it is once the page is closed: if
/// that is the CPU, no section that found the page open is under way there any more, and if one had committed
/// before that, the page is open again.
pub(crate) fn as_expected(ring: &Ring<'_>, expected: &Expected, pinned: Option<u32>) -> bool {
    let w = &ring.desc(expected.tail.page()).w;
    store_hook();
    // Relaxed: the lock's Acquire ordered us behind the writer who had it before; whoever wrote here by a section
    // did so on this CPU.
    let before = Commit::unpack(w.fetch_or(Commit::CLOSED_BIT, Relaxed));
    let stays = pinned.is_none_or(|cpu| runs_on(cpu) && Commit::unpack(w.load(Relaxed)) == before.closed());
    stays
        && ring.meta().writer.tail.load(Relaxed) == expected.tail.pack()
        && before.closed() == expected.w.closed()
}

/// Whether the calling thread runs on this CPU. A model checker's threads run nowhere.
fn runs_on(cpu: u32) -> bool {
    #[cfg(loom)]
    return cpu == 0;
    #[cfg(not(loom))]
    return thread::cpu() == cpu;
}

impl Sections for Exclusive {
    fn append(&self, ring: &Ring<'_>, append: &Append<'_>) -> Outcome {
        self::append(ring, append, None)
    }

    fn turn(&self, ring: &Ring<'_>, turn: &Turn) -> Outcome {
        self::turn(ring, turn, None)
    }
}

#[cfg(not(loom))]
impl Sections for Pinned {
    fn append(&self, ring: &Ring<'_>, append: &Append<'_>) -> Outcome {
        self::append(ring, append, Some(self.0))
    }

    fn turn(&self, ring: &Ring<'_>, turn: &Turn) -> Outcome {
        self::turn(ring, turn, Some(self.0))
    }
}

fn append(ring: &Ring<'_>, append: &Append<'_>, pinned: Option<u32>) -> Outcome {
    let Append { expected, at, parts, stamp, commit } = *append;
    let page = expected.tail.page();
    ring.assert_record_fits(page, at, size_of_val(parts.head) + parts.body.len() + 4);
    if !as_expected(ring, &expected, pinned) {
        return Outcome::Changed;
    }
    // E3: pairs with the fence in `cursor::still_holds`. Whoever sees a byte stored below also sees that the
    // sub-buffer was claimed and reset, although another thread may have done that.
    fence(e3_record());
    let body =
        parts.body.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let words = parts.head.iter().copied().chain(body).chain([parts.foot]);
    for (offset, word) in (at..).step_by(4).zip(words) {
        store_hook();
        ring.data().store(page, offset, word);
    }
    let desc = ring.desc(page);
    store_hook();
    desc.stamp[commit.parity()].store(stamp, Relaxed);
    store_hook();
    // E1: pairs with the Acquire loads of `w`. Whoever sees the commit sees the record and its time.
    desc.w.store(commit.pack(), e1_commit());
    Outcome::Committed
}

fn turn(ring: &Ring<'_>, turn: &Turn, pinned: Option<u32>) -> Outcome {
    let Turn { expected, page, first, stamp, commit } = *turn;
    if !as_expected(ring, &expected, pinned) {
        return Outcome::Changed;
    }
    let next = ring.desc(page);
    store_hook();
    ring.data().header(page).commit.store(0, Relaxed);
    store_hook();
    next.first.store(first, Relaxed);
    store_hook();
    next.stamp[Commit::BLANK.parity()].store(stamp, Relaxed);
    store_hook();
    next.w.store(Commit::BLANK.pack(), Relaxed);
    store_hook();
    // E2: pairs with the Acquire loads of `tail`. Whoever sees the new tail sees its desc reset, and all
    // that was committed to the page before it.
    ring.meta().writer.tail.store(commit.pack(), e2_turn());
    Outcome::Committed
}
