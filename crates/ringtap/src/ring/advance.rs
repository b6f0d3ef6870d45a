//! Moving the tail to the next sub-buffer: claim its slot, then turn.
//!
//! Each step can be made by anybody, any number of times. A writer that dies between the two leaves a slot
//! tagged with a position the tail has not reached; the next writer finds it claimed and goes on from there.

use super::ordering::{e3_claim, e5_claim, e5_look, fence};
use super::write::{Refused, Step};
use super::{Corrupt, Ring};
use crate::rseq::{Expected, Outcome, Sections, Turn};
use ringtap_abi::SubbufId;
use ringtap_abi::meta::state;
use ringtap_abi::words::{Place, Slot};
use std::sync::atomic::Ordering::Relaxed;

/// How often a claim looks again: only the reader's swap and a reset compete for a slot, once a lap each.
const CLAIM_TRIES: u32 = 16;

/// Moves the tail on from `expected.tail`, whose last event was at `last`.
#[cold]
pub(super) fn turn(
    ring: &Ring<'_>,
    sections: &impl Sections,
    expected: &Expected,
    last: u64,
) -> Result<Step, Refused> {
    let tail = expected.tail;
    let Some(page) = claim(ring, tail)? else { return Ok(Step::Again(Outcome::Changed)) };
    let next = Place::new(page, tail.seq() + 1);
    // A ring that was retired stays it: a reset turns its pages all the same.
    let next = if tail.is_retired() { next.retired() } else { next };
    let turn = Turn {
        expected: *expected,
        page,
        // No event can join the old page any more: the section compares its `w`.
        first: ring.first_after(tail.page(), expected.w),
        stamp: last,
        commit: next,
    };
    Ok(match sections.turn(ring, &turn) {
        Outcome::Committed => Step::Turned(next.seq()),
        other => Step::Again(other),
    })
}

/// Tags the slot behind the tail with the next position. From then on no reader takes what was there, and
/// cursors know that it goes. `None`: the tail has moved meanwhile.
fn claim(ring: &Ring<'_>, tail: Place) -> Result<Option<SubbufId>, Refused> {
    let next = tail.seq() + 1;
    let lap = u64::from(ring.geometry().ring_subbufs());
    for _ in 0..CLAIM_TRIES {
        let word = ring.slot(next).load(e5_look());
        let slot = Slot::unpack(word);
        let page = ring.checked(slot.page())?;
        if slot.seq() == next {
            // Somebody claimed it and was interrupted, or died. E3: as below, on behalf of that writer.
            fence(e3_claim());
            return Ok(Some(page));
        }
        if slot.seq() + lap != next {
            return if ring.tail()? == tail { Err(Corrupt.into()) } else { Ok(None) };
        }
        if page == tail.page() {
            // Only scribbling makes a slot behind the tail name the tail's page.
            return Err(Corrupt.into());
        }
        if !slot.is_consumed() && ring.meta().switches.state.load(Relaxed) & state::DISCARD != 0 {
            return Err(Refused::Full);
        }
        // E5: pairs with the swap's CAS of the same slot: one of the two gets it.
        let claimed = Slot::unconsumed(page, next).pack();
        if ring.slot(next).compare_exchange(word, claimed, e5_claim(), Relaxed).is_ok() {
            // E3: whoever sees a byte stored to this page from now on also sees the claim.
            fence(e3_claim());
            return Ok(Some(page));
        }
    }
    Ok(None)
}
