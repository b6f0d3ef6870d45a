//! What can be counted by looking: no counter is bumped on the hot path.

use super::ordering::{e3_counted, fence};
use super::{Corrupt, Ring};
use ringtap_abi::SubbufId;
use ringtap_abi::words::Slot;
use std::sync::atomic::Ordering::Acquire;

/// How often a consistent look at moving writers is tried. They turn a page in microseconds, a look takes
/// nanoseconds.
const LOOKS: u32 = if cfg!(loom) { 2 } else { 64 };

/// The oldest sub-buffer in the ring that was not consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oldest {
    pub(crate) page: SubbufId,
    pub(crate) seq: u64,
    /// Index of its first event.
    pub(crate) first: u64,
}

impl Ring<'_> {
    /// Events ever committed, those before the last reset included.
    pub(crate) fn written(&self) -> Result<u64, Corrupt> {
        let mut written = 0;
        for _ in 0..LOOKS {
            let tail = self.tail()?;
            let first = self.first(tail.page());
            written = first.wrapping_add(u64::from(self.commit(tail.page())?.entries()));
            // E3: had the page been turned to again before we read `first`, the tail would have changed.
            fence(e3_counted());
            if self.tail()? == tail {
                break;
            }
        }
        Ok(written)
    }

    /// The oldest unconsumed sub-buffer from position `from` on; `None` when all is consumed.
    ///
    /// Steps over a position that a writer has claimed and not yet turned to: its events are lost, even where
    /// that writer died.
    pub(crate) fn oldest_unconsumed(&self, from: u64) -> Result<Option<Oldest>, Corrupt> {
        let mut seq = from;
        // Once round the ring, and a little for writers that turn pages meanwhile.
        for _ in 0..u64::from(self.geometry().ring_subbufs()) + u64::from(LOOKS) {
            let tail = self.tail()?;
            seq = seq.max(self.oldest(tail.seq()));
            if seq > tail.seq() {
                return Ok(None);
            }
            let word = self.slot(seq).load(Acquire);
            let slot = Slot::unpack(word);
            if slot.seq() < seq {
                // The tail is there, so somebody claimed it: only scribbling takes that back.
                return Err(Corrupt);
            }
            if slot.seq() > seq || slot.is_consumed() {
                seq += 1;
                continue;
            }
            let page = self.checked(slot.page())?;
            let first = self.first(page);
            // E3: if the slot is unchanged, nobody had reset the desc when we read it.
            fence(e3_counted());
            if self.slot(seq).load(std::sync::atomic::Ordering::Relaxed) == word {
                return Ok(Some(Oldest { page, seq, first }));
            }
        }
        Ok(None)
    }
}
