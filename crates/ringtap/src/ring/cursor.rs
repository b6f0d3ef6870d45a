//! Reading without consuming: no call, no store, and the writers never know.
//!
//! A cursor finds the sub-buffer of its position, copies what is new on it, and then looks whether the
//! sub-buffer is still in the same use: its desc's `first` grows with each. If it is not, the copy is dropped
//! and what it held counts as lost, exactly: the next page says which event it begins with.

use super::ordering::{e3_copied, e3_found, e6_find, fence};
use super::{Corrupt, Ring};
use ringtap_abi::SubbufId;
use ringtap_abi::meta::state;
use ringtap_abi::sync::AtomicU64;
use ringtap_abi::words::{Commit, Place, Slot};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// How often a cursor looks for a position that the host is just taking, before it counts it as lost: the
/// host needs nanoseconds, unless it died.
const PATIENCE: u32 = 10_000;
/// How many looks at moving writers one call makes beyond once round the ring.
const LOOKS: u32 = if cfg!(loom) { 2 } else { 64 };

/// Where a cursor stands in a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// The ring position being read.
    seq: u64,
    /// Its sub-buffer, once found.
    page: Option<Found>,
    /// Data bytes of it that were copied.
    copied: u32,
    /// Index of the next event expected; `None` where no page was found yet, so that nothing can be missing.
    index: Option<u64>,
    /// Looks left for a position that the host is taking.
    patience: u32,
}

/// A sub-buffer in one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    page: SubbufId,
    /// Index of its first event: the mark of this use.
    first: u64,
}

/// New bytes of one sub-buffer, copied and still valid when that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Events lost before these.
    pub(crate) lost: u64,
    /// The page's time stamp where the bytes begin a page.
    pub(crate) begins: Option<u64>,
    /// Data bytes of the page that are in the copy now.
    pub(crate) end: u32,
    /// Index of the page's first event.
    pub(crate) first: u64,
    /// How far the page was committed.
    pub(crate) w: Commit,
    /// Time of the last event in the copy, where the tail had left the page before; of a later one where not.
    pub(crate) last: u64,
}

/// What looking for a position found.
enum Search {
    Found(Found),
    /// The writers have not come there, or the host is just taking it.
    NotYet,
    /// Overwritten.
    Gone,
    /// The ring changed during the look.
    Again,
}

impl Position {
    /// Stands at this ring position, where event `index` is expected: what was overwritten before it is found is
    /// missed.
    pub(super) fn at(seq: u64, index: u64) -> Self {
        Self { seq, page: None, copied: 0, index: Some(index), patience: PATIENCE }
    }

    /// Stands before the oldest event in a ring that replaced another one, where event `index` is expected.
    pub(crate) fn following(ring: &Ring<'_>, index: Option<u64>) -> Self {
        let seq = u64::from(ring.geometry().ring_subbufs());
        Self { seq, page: None, copied: 0, index, patience: PATIENCE }
    }

    /// The ring position being read.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Stands before the oldest event in the ring.
    pub(crate) fn oldest(ring: &Ring<'_>) -> Result<Self, Corrupt> {
        let seq = ring.oldest(ring.tail()?.seq()).max(u64::from(ring.geometry().ring_subbufs()));
        let mut position = Self { seq, page: None, copied: 0, index: None, patience: PATIENCE };
        for _ in 0..u64::from(ring.geometry().ring_subbufs()) + u64::from(LOOKS) {
            match position.find(ring)? {
                Search::Found(found) => {
                    // From now on, what is overwritten is missed.
                    position.page = Some(found);
                    position.index = Some(found.first);
                    break;
                }
                Search::Gone => position.step(),
                Search::NotYet => break,
                Search::Again => {}
            }
        }
        Ok(position)
    }

    /// Stands behind the newest event in the ring, and tells its time.
    pub(crate) fn newest(ring: &Ring<'_>) -> Result<(Self, u64), Corrupt> {
        for _ in 0..LOOKS {
            let tail = ring.tail()?;
            let page = tail.page();
            let w = ring.commit(page)?;
            let time = ring.desc(page).stamp[w.parity()].load(Relaxed);
            let found = Found { page, first: ring.first(page) };
            fence(e3_copied());
            if ring.desc(page).w.load(Relaxed) == w.pack() && ring.tail()? == tail {
                let index = found.first.wrapping_add(u64::from(w.entries()));
                let position = Self {
                    seq: tail.seq(),
                    page: Some(found),
                    copied: w.offset(),
                    index: Some(index),
                    patience: PATIENCE,
                };
                return Ok((position, time));
            }
        }
        Err(Corrupt)
    }

    /// Index of the next event expected; `None` where no page was found yet.
    pub(crate) fn index(&self) -> Option<u64> {
        self.index
    }

    /// Data bytes of the current page that were copied.
    pub(crate) fn copied(&self) -> u32 {
        self.copied
    }

    /// Copies what is new to its place in `copy`, which is as long as a sub-buffer's data. `None`: nothing new.
    pub(crate) fn advance(&mut self, ring: &Ring<'_>, copy: &mut [u32]) -> Result<Option<Chunk>, Corrupt> {
        for _ in 0..u64::from(ring.geometry().ring_subbufs()) + u64::from(LOOKS) {
            let found = match self.page {
                Some(found) => found,
                None => match self.find(ring)? {
                    Search::Found(found) => *self.page.insert(found),
                    Search::NotYet => return Ok(None),
                    Search::Gone => {
                        self.step();
                        continue;
                    }
                    Search::Again => continue,
                },
            };
            // E2: if the tail has left the page, its `w` read below is final.
            let left = ring.tail()?.seq() > self.seq;
            let w = ring.commit(found.page)?;
            if w.offset() <= self.copied {
                if left || !still_holds(ring, found) {
                    self.step();
                    continue;
                }
                return Ok(None);
            }
            match self.copy(ring, found, w, copy) {
                Some(chunk) => return Ok(Some(chunk)),
                None => self.step(),
            }
        }
        Ok(None)
    }

    /// Goes to the next position. What was not read of this one is missed when the next page is found.
    fn step(&mut self) {
        self.seq += 1;
        self.page = None;
        self.copied = 0;
        self.patience = PATIENCE;
    }

    /// Copies up to `w`; `None` when the page was reused meanwhile.
    fn copy(&mut self, ring: &Ring<'_>, found: Found, w: Commit, copy: &mut [u32]) -> Option<Chunk> {
        let begins = self.copied == 0;
        let time = ring.data().header(found.page).time_stamp.load(Relaxed);
        ring.data().copy_out(found.page, self.copied, w.offset(), copy);
        let last = ring.desc(found.page).stamp[w.parity()].load(Relaxed);
        if !still_holds(ring, found) {
            return None;
        }
        // A sub-buffer that nothing was written to (a reset turns such) is used anew under the same `first`.
        if begins && Slot::unpack(ring.slot(self.seq).load(Relaxed)).seq() != self.seq {
            return None;
        }
        let expected = self.index.unwrap_or(found.first);
        let lost = if begins { found.first.wrapping_sub(expected) } else { 0 };
        self.copied = w.offset();
        self.index = Some(found.first.wrapping_add(u64::from(w.entries())));
        Some(Chunk { lost, begins: begins.then_some(time), end: w.offset(), first: found.first, w, last })
    }

    /// Looks for the sub-buffer that holds the position.
    fn find(&mut self, ring: &Ring<'_>) -> Result<Search, Corrupt> {
        let tail = ring.tail()?;
        if self.seq > tail.seq() {
            return Ok(Search::NotYet);
        }
        self.seq = self.seq.max(ring.oldest(tail.seq()));
        let slot = ring.slot(self.seq);
        let word = slot.load(Acquire);
        let named = Slot::unpack(word);
        if named.seq() < self.seq {
            return Err(Corrupt);
        }
        if named.seq() > self.seq {
            return Ok(Search::Gone);
        }
        if !named.is_consumed() {
            return found(ring, slot, word, named.page());
        }
        // The consuming reader has it: it may still be written, or be read.
        if tail.seq() == self.seq {
            return found(ring, &ring.meta().writer.tail, tail.pack(), tail.page());
        }
        // E6: pairs with the store in `Reader::publish`.
        let reader = Place::unpack(ring.meta().host.reader.load(e6_find()));
        if reader.seq() == self.seq {
            return found(ring, &ring.meta().host.reader, reader.pack(), reader.page());
        }
        if reader.seq() > self.seq {
            return self.find_given_back(ring);
        }
        // The host has taken it and not yet said where it is.
        self.patience = self.patience.saturating_sub(1);
        Ok(if self.patience == 0 { Search::Gone } else { Search::NotYet })
    }

    /// The sub-buffer that the consuming reader is through with: it stands, until a writer claims it, in the slot
    /// that the reader took next, and is known by its first event.
    fn find_given_back(&self, ring: &Ring<'_>) -> Result<Search, Corrupt> {
        let slot = ring.slot(self.seq + 1);
        let word = slot.load(Acquire);
        let named = Slot::unpack(word);
        if named.seq() != self.seq + 1 || !named.is_consumed() {
            return Ok(Search::Gone);
        }
        let search = found(ring, slot, word, named.page())?;
        Ok(match search {
            Search::Found(found) if self.index != Some(found.first) => Search::Gone,
            other => other,
        })
    }
}

/// The sub-buffer that `word` names, if `place` still holds that word once its desc was read.
fn found(ring: &Ring<'_>, place: &AtomicU64, word: u64, page: SubbufId) -> Result<Search, Corrupt> {
    let page = ring.checked(page)?;
    let first = ring.first(page);
    // E3: had the page been reset for another position before we read `first`, the place would have changed.
    fence(e3_found());
    Ok(if place.load(Relaxed) == word { Search::Found(Found { page, first }) } else { Search::Again })
}

/// Whether what was read of the page before this call is still of the same use.
fn still_holds(ring: &Ring<'_>, found: Found) -> bool {
    // E3: pairs with the fence before a record's first byte. A byte of a later use among ours means that the
    // later `first` is visible here.
    fence(e3_copied());
    // Memory that was given back reads as zeros: it was marked before.
    ring.first(found.page) == found.first && ring.meta().switches.state.load(Relaxed) & state::GONE == 0
}
