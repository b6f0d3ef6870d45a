//! Emptying a ring while writers go on: everything before a new sub-buffer counts as consumed.

use super::ordering::{e3_counted, e5_drop, e5_look, fence};
use super::swap::{Handed, Reader, get_reader};
use super::write::{Refused, Step};
use super::{Corrupt, Ring, advance};
use crate::rseq::{Expected, Sections};
use ringtap_abi::words::Slot;
use std::sync::atomic::Ordering::Relaxed;

/// Rounds in which writers may come between: each means that one of them wrote an event or turned the page.
const ROUNDS: u32 = 10_000;

/// Moves the tail to a fresh sub-buffer, by the sections of the ring's CPU, and drops what was before it.
///
/// `false`: the writers gave no chance to. What was dropped until then counts as overwritten, and the counters go on.
pub(crate) fn reset(
    ring: &Ring<'_>,
    reader: &mut Reader,
    sections: &impl Sections,
    cpu: u32,
) -> Result<bool, Corrupt> {
    reader.conceal(ring);
    for _ in 0..ROUNDS {
        let tail = ring.tail()?;
        let w = ring.commit(tail.page())?;
        if w.is_blank() {
            // No turn: nothing is on this page, and a page that went round without an event would keep its `first`,
            // which tells cursors one use from the next.
            let first = ring.first(tail.page());
            fence(e3_counted());
            if ring.tail()? == tail {
                drop_until(ring, reader.next_seq(), tail.seq());
                reader.begin_again(ring, tail.seq(), first)?;
                return Ok(true);
            }
            continue;
        }
        // First, so that a full ring in discard mode has room to turn.
        drop_until(ring, reader.next_seq(), tail.seq() + 1);
        let last = ring.desc(tail.page()).stamp[w.parity()].load(Relaxed);
        // Before the turn: behind it, whoever preempts us may use the page again.
        let first = ring.first_after(tail.page(), w);
        match advance::turn(ring, sections, &Expected { cpu, tail, w }, last) {
            Ok(Step::Turned(seq)) => {
                reader.begin_again(ring, seq, first)?;
                return Ok(true);
            }
            Err(Refused::Unusable) => return Err(Corrupt),
            _ => {}
        }
    }
    reader.publish(ring);
    Ok(false)
}

/// Reads everything away, for whoever may not run on the ring's CPU. What the reader page holds then stays on it,
/// handed out.
pub(crate) fn drain(ring: &Ring<'_>, reader: &mut Reader) -> Result<(), Corrupt> {
    for _ in 0..ring.geometry().nr_subbufs() {
        if get_reader(ring, reader)? == Handed::Nothing {
            break;
        }
    }
    reader.forget(ring)
}

/// Marks the positions `from..to` consumed where no writer claimed them.
fn drop_until(ring: &Ring<'_>, from: u64, to: u64) {
    for seq in from.max(ring.oldest(to.saturating_sub(1)))..to {
        let word = ring.slot(seq).load(e5_look());
        let slot = Slot::unpack(word);
        if slot.seq() == seq && !slot.is_consumed() {
            // E5: as the swap's; a writer that claims it first drops it as well.
            let dropped = Slot::consumed(slot.page(), seq).pack();
            let _ = ring.slot(seq).compare_exchange(word, dropped, e5_drop(), Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock::Ticker;
    use crate::map;
    use crate::ring::write;
    use crate::rseq::portable::Exclusive;
    use crate::rseq::{Append, Outcome, Turn};
    use ringtap_abi::Geometry;
    use std::sync::atomic::AtomicU64;

    const PREEMPTED: u64 = 100;

    fn write_some(ring: &Ring<'_>, events: u64) {
        let count = AtomicU64::new(0);
        for _ in 0..events {
            while write::append(ring, &Exclusive, 0, &Ticker::Counter(&count), &[7; 1000])
                != Ok(Step::Written)
            {}
        }
    }

    /// Preempted right behind its turn, while others write several laps.
    struct Preempted;

    impl Sections for Preempted {
        fn append(&self, ring: &Ring<'_>, append: &Append<'_>) -> Outcome {
            Exclusive.append(ring, append)
        }

        fn turn(&self, ring: &Ring<'_>, turn: &Turn) -> Outcome {
            let outcome = Exclusive.turn(ring, turn);
            write_some(ring, PREEMPTED);
            outcome
        }
    }

    #[test]
    fn a_ring_that_is_over_stays_it() {
        let (_fd, mapping) = map::create(Geometry::new(4096, 2).unwrap(), 0).unwrap();
        let ring = mapping.ring();
        let mut reader = Reader::new(&ring);
        write_some(&ring, 10);
        assert_eq!(crate::ring::retire::retire(&ring, None), Ok(true));
        assert_eq!(reset(&ring, &mut reader, &Exclusive, 0), Ok(true));
        assert_eq!(ring.written().unwrap(), reader.base_index(), "it is empty");
        assert!(ring.tail().unwrap().is_retired());
        assert_eq!(get_reader(&ring, &mut reader), Ok(Handed::Nothing));
    }

    #[test]
    fn what_is_written_right_behind_the_turn_counts() {
        let (_fd, mapping) = map::create(Geometry::new(4096, 2).unwrap(), 0).unwrap();
        let ring = mapping.ring();
        let mut reader = Reader::new(&ring);
        write_some(&ring, 10);
        assert_eq!(reset(&ring, &mut reader, &Preempted, 0), Ok(true));
        assert_eq!(ring.written().unwrap().wrapping_sub(reader.base_index()), PREEMPTED);
    }
}
