//! When a sleeper has waited long enough: `buffer_percent`, as in the kernel.

use super::swap::Reader;
use super::{Corrupt, Ring};
use crate::wake::Until;

/// Whether the buffer is `percent` full. 0: whether there is anything to read. Otherwise there must be
/// something, off the page being written, and that page counts as full: without it 100 could not be reached.
pub(crate) fn is_reached(ring: &Ring<'_>, reader: &Reader, percent: u8) -> Result<bool, Corrupt> {
    let tail = ring.tail()?;
    if percent == 0 {
        return has_unread(ring, reader);
    }
    if reader.holds(tail) || !has_unread(ring, reader)? {
        return Ok(false);
    }
    Ok(dirty(ring, reader)? >= dirty_wanted(ring, percent))
}

/// Sub-buffers in the ring that the tail has left and the reader has not taken.
pub(crate) fn dirty(ring: &Ring<'_>, reader: &Reader) -> Result<u64, Corrupt> {
    let tail = ring.tail()?;
    Ok(tail.seq().saturating_sub(reader.next_seq().max(ring.oldest(tail.seq()))))
}

/// What to wait for until [`is_reached`] may hold.
pub(crate) fn until(ring: &Ring<'_>, reader: &Reader, percent: u8) -> Result<Until, Corrupt> {
    if percent == 0 {
        return Ok(Until::AnyEvent);
    }
    let (tail, wanted) = (ring.tail()?, dirty_wanted(ring, percent));
    if wanted == 0 && !reader.holds(tail) {
        // The page being written is enough, once there is anything on it.
        return Ok(Until::AnyEvent);
    }
    Ok(Until::Turn((reader.next_seq() + wanted).max(tail.seq() + 1)))
}

/// Full sub-buffers behind which `percent` is reached: `(dirty + 1) * 100 >= percent * nr_pages`.
fn dirty_wanted(ring: &Ring<'_>, percent: u8) -> u64 {
    let pages = u64::from(ring.geometry().ring_subbufs());
    (u64::from(percent) * pages).div_ceil(100).saturating_sub(1)
}

fn has_unread(ring: &Ring<'_>, reader: &Reader) -> Result<bool, Corrupt> {
    if reader.unread_on_page(ring)?.bytes > 0 {
        return Ok(true);
    }
    match ring.oldest_unconsumed(reader.next_seq())? {
        Some(oldest) => Ok(!ring.commit(oldest.page)?.is_blank()),
        None => Ok(false),
    }
}
