//! The end of a ring whose memory is replaced: after one store, no event can be committed to it.
//!
//! Every section, and every holder of the lock, compares the tail before it commits, and the hot path asks whether the
//! page is open. So retiring takes the lock, closes the tail's page, and marks the tail. What was committed before is
//! complete and stays; what would have been written later is refused, and counted as dropped by whoever does not know
//! the memory that follows.

use super::ordering::e2_retire;
use super::{Corrupt, Ring, store_hook};
use crate::rseq::{Expected, portable};

/// Rounds in which writers may come between.
const ROUNDS: u32 = 10_000;

/// Marks the tail. To be called with the buffer's lock held; `pinned` to its CPU where its writers run sections there.
///
/// `false`: the caller was moved off the CPU each time, and nothing was retired.
pub(crate) fn retire(ring: &Ring<'_>, pinned: Option<u32>) -> Result<bool, Corrupt> {
    for _ in 0..ROUNDS {
        let tail = ring.tail()?;
        // Also where it is marked: a section that was under way then may have opened the page again.
        let w = ring.commit(tail.page())?;
        let expected = Expected { cpu: pinned.unwrap_or(0), tail, w };
        if !portable::as_expected(ring, &expected, pinned) {
            continue;
        }
        if tail.is_retired() {
            return Ok(true);
        }
        store_hook();
        // E2: as the turn's. Whoever sees the mark sees all that was ever committed.
        ring.meta().writer.tail.store(tail.retired().pack(), e2_retire());
        return Ok(true);
    }
    Ok(false)
}

/// Whether the ring was retired: what it holds then is all that it will ever hold.
pub(crate) fn is_retired(ring: &Ring<'_>) -> Result<bool, Corrupt> {
    Ok(ring.tail()?.is_retired())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::map;
    use ringtap_abi::Geometry;
    use ringtap_abi::words::Commit;
    use std::sync::atomic::Ordering::Relaxed;

    /// What a section does that read the page open before it was closed, on a CPU that nobody was pinned to.
    #[test]
    fn a_page_that_was_opened_again_is_closed_again() {
        let (_fd, mapping) = map::create(Geometry::new(4096, 2).unwrap(), 0).unwrap();
        let ring = mapping.ring();
        assert_eq!(retire(&ring, None), Ok(true));
        let w = &ring.desc(ring.tail().unwrap().page()).w;
        w.store(w.load(Relaxed) & !Commit::CLOSED_BIT, Relaxed);
        assert_eq!(retire(&ring, None), Ok(true));
        assert!(Commit::unpack(w.load(Relaxed)).is_closed());
        assert_eq!(is_retired(&ring), Ok(true));
    }
}
