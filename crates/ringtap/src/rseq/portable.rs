//! The sections in Rust, for whoever may not be interrupted anyway: the holder of the buffer's lock. They are
//! also what the model checkers run, and what the stepper cuts off before each store.

use super::{Append, Expected, Outcome, Sections, Turn};
use crate::ring::ordering::{e1_commit, e2_turn, e3_record, fence};
use crate::ring::{Ring, store_hook};
use ringtap_abi::words::Commit;
use std::sync::atomic::Ordering::Relaxed;

/// Sections of a thread that holds the buffer's lock, so that no other writer is at work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exclusive;

/// Closes the page to the hot path, then makes two of the four comparisons; the lock is ours, and with it the
/// CPU does not matter.
///
/// The hot path looks at nothing but the page. Sections that run while we are preempted between two of our steps
/// find it closed, and those of the slow path find the lock taken.
fn as_expected(ring: &Ring<'_>, expected: &Expected) -> bool {
    let w = &ring.desc(expected.tail.page()).w;
    store_hook();
    // Relaxed: the lock's Acquire ordered us behind the writer who had it before; whoever wrote here by a section
    // did so on this CPU.
    let before = Commit::unpack(w.fetch_or(Commit::CLOSED_BIT, Relaxed));
    ring.meta().writer.tail.load(Relaxed) == expected.tail.pack() && before.closed() == expected.w.closed()
}

impl Sections for Exclusive {
    fn append(&self, ring: &Ring<'_>, append: &Append<'_>) -> Outcome {
        let Append { expected, at, parts, stamp, commit } = *append;
        let page = expected.tail.page();
        ring.assert_record_fits(page, at, size_of_val(parts.head) + parts.body.len() + 4);
        if !as_expected(ring, &expected) {
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

    fn turn(&self, ring: &Ring<'_>, turn: &Turn) -> Outcome {
        let Turn { expected, page, first, stamp, commit } = *turn;
        if !as_expected(ring, &expected) {
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
}
