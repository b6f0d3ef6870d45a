//! Copying a ring while its writers go on: a cursor's walk from the consuming reader's place to the newest event.
//!
//! ```text
//!   source  [ reader page, half read ][ next_seq ]...[ tail, written up to w ]     looked at once: the moment
//!   copy    [ page 0                 ][ page 1   ]...[ page n                ]
//! ```
//!
//! The copy is of one moment: everything up to the newest event of that moment, and nothing behind it. What the
//! writers overwrite, and a consuming reader gives back, before the cursor comes there is missing from the copy, and
//! counted there as overwritten: the next page's `first` says exactly how much that is. Where even the newest page of
//! the moment went, the copy ends with the first page found behind it, so that a reader is told of the loss.

use super::cursor::Position;
use super::ordering::{e3_counted, fence};
use super::swap::{Reader, update_meta};
use super::{Corrupt, Ring};
use ringtap_abi::records::{Walk, Words};
use ringtap_abi::subbuf::PageCommit;
use ringtap_abi::words::{Commit, Place, Slot};
use ringtap_abi::{Geometry, SubbufId};
use std::sync::atomic::Ordering::Relaxed;

/// How often a moment is looked for while writers turn pages.
const LOOKS: u32 = 64;
/// Looks at a page that the consuming reader is just taking, or that nothing was written to yet, before the copy ends
/// without it.
const IDLE_LOOKS: u32 = 100_000;

/// A ring at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The consuming reader's state.
    reader: Reader,
    tail: Place,
    w: Commit,
    /// Events ever written.
    written: u64,
}

impl Moment {
    /// Looks at the ring. Whoever holds the reader keeps it until [`Copying::begin`] is done.
    fn now(ring: &Ring<'_>, reader: &Reader) -> Result<Self, Corrupt> {
        for _ in 0..LOOKS {
            let tail = ring.tail()?;
            let page = tail.page();
            let w = ring.commit(page)?;
            let written = ring.first_after(page, w);
            // E3: had the page been turned to again before we read `first`, the tail would have changed.
            fence(e3_counted());
            if ring.tail()? == tail {
                return Ok(Self { reader: *reader, tail, w, written });
            }
        }
        Err(Corrupt)
    }
}

/// A copy being made, into an empty ring of the same sizes that nobody else has yet.
#[derive(Debug)]
pub(crate) struct Copying<'s, 't> {
    source: Ring<'s>,
    target: Ring<'t>,
    moment: Moment,
    position: Position,
    /// Index of the next event, losses included.
    index: u64,
    has_page: bool,
    /// Pages copied to the ring.
    pages: u32,
    /// Events copied, those that were handed out included.
    events: u64,
    /// Time of the newest event copied.
    last: u64,
    buffer: Box<[u32]>,
    idle: u32,
}

impl<'s, 't> Copying<'s, 't> {
    /// Looks at the source, and copies what is unread of the reader page: nothing may be handed out meanwhile.
    ///
    /// # Panics
    /// Where the target's sizes are others.
    pub(crate) fn begin(source: Ring<'s>, reader: &Reader, target: Ring<'t>) -> Result<Self, Corrupt> {
        assert_eq!(source.geometry(), target.geometry());
        let moment = Moment::now(&source, reader)?;
        let buffer = vec![0; source.geometry().capacity() as usize / 4].into();
        let index = reader.next_index();
        let position = Position::at(reader.next_seq(), index);
        let mut copying = Self {
            source,
            target,
            moment,
            position,
            index,
            has_page: false,
            pages: 0,
            events: 0,
            last: 0,
            buffer,
            idle: 0,
        };
        if let Some(page) = reader.page() {
            copying.copy_reader_page(page)?;
        }
        copying.position = Position::at(reader.next_seq(), copying.index);
        Ok(copying)
    }

    fn copy_reader_page(&mut self, page: SubbufId) -> Result<(), Corrupt> {
        let Moment { tail, reader, .. } = self.moment;
        // E2: where the tail had left it at the moment, its `w` is final.
        let w = if reader.holds(tail) { self.moment.w } else { self.source.commit(page)? };
        if w.offset() <= reader.handed_bytes() {
            return Ok(());
        }
        let first = self.source.first(page);
        let time = self.source.data().header(page).time_stamp.load(Relaxed);
        self.source.data().copy_out(page, 0, w.offset(), &mut self.buffer);
        let last = self.last_time(time, w);
        self.store(SubbufId(0), time, first, w, last);
        let handed = PageCommit::new(reader.handed_bytes());
        self.target.data().header(SubbufId(0)).commit.store(handed.pack(), Relaxed);
        self.index = first.wrapping_add(u64::from(w.entries()));
        self.has_page = true;
        Ok(())
    }

    /// Copies one page; whether there may be more. `false` at the end.
    pub(crate) fn step(&mut self) -> Result<bool, Corrupt> {
        let is_behind = self.moment.written.wrapping_sub(self.index).cast_signed() > 0;
        if !is_behind || self.pages == self.source.geometry().ring_subbufs() || self.idle > IDLE_LOOKS {
            return Ok(false);
        }
        let Some(chunk) = self.position.advance(&self.source, &mut self.buffer)? else {
            self.idle += 1;
            return Ok(true);
        };
        // Pages are copied whole, in one chunk each.
        let Some(time) = chunk.begins else { return Ok(true) };
        let seq = self.position.seq();
        let w = if seq == self.moment.tail.seq() { self.moment.w } else { chunk.w };
        // Of a page that the writers may be on, the last stamp may be a later event's.
        let last = if seq < self.moment.tail.seq() { chunk.last } else { self.last_time(time, w) };
        self.pages += 1;
        // The ring's pages begin with 1: there are no more than 65,535.
        let page = SubbufId(u16::try_from(self.pages).map_err(|_| Corrupt)?);
        self.store(page, time, chunk.first, w, last);
        self.index = chunk.first.wrapping_add(u64::from(w.entries()));
        Ok(true)
    }

    /// The sizes of both rings.
    pub(crate) fn geometry(&self) -> Geometry {
        self.source.geometry()
    }

    /// How many pages the writers have to write before they overwrite the next one to copy.
    pub(crate) fn headroom(&self) -> Result<u64, Corrupt> {
        Ok(self.position.seq().saturating_sub(self.source.oldest(self.source.tail()?.seq())))
    }

    /// Time of the last event of the page in the buffer, which begins with `time` and was committed up to `w`.
    fn last_time(&self, time: u64, w: Commit) -> u64 {
        let mut walk = Walk::new(time, w.offset());
        while let Ok(Some(_)) = walk.next(&Copied(&self.buffer)) {}
        walk.time()
    }

    fn store(&mut self, page: SubbufId, time: u64, first: u64, w: Commit, last: u64) {
        let (data, desc) = (self.target.data(), self.target.desc(page));
        data.header(page).time_stamp.store(time, Relaxed);
        data.header(page).commit.store(0, Relaxed);
        data.copy_in(page, &self.buffer[..w.offset() as usize / 4]);
        desc.first.store(first, Relaxed);
        desc.stamp[w.parity()].store(last, Relaxed);
        // Nobody is to write here.
        desc.w.store(w.closed().pack(), Relaxed);
        self.last = last;
        self.events += u64::from(w.entries());
    }

    /// Makes a ring of the pages, and returns its reader.
    ///
    /// Positions begin with the third lap, so that the reader page has one too that a cursor believes.
    pub(crate) fn finish(self) -> Result<Reader, Corrupt> {
        let target = &self.target;
        let lap = u64::from(target.geometry().ring_subbufs());
        let begin = 2 * lap;
        let mut pages = u64::from(self.pages);
        let is_behind = self.moment.written.wrapping_sub(self.index).cast_signed() > 0;
        if pages == 0 || is_behind && pages < lap {
            // An empty tail says what is missing at the end.
            pages += 1;
            let page = SubbufId(u16::try_from(pages).map_err(|_| Corrupt)?);
            let end = if is_behind { self.moment.written } else { self.index };
            target.desc(page).first.store(end, Relaxed);
            target.desc(page).stamp[Commit::BLANK.parity()].store(self.last, Relaxed);
        }
        for (page, at) in (1..=u16::MAX).map(SubbufId).zip(0..lap) {
            let slot = if at < pages {
                Slot::unconsumed(page, begin + at)
            } else {
                Slot::consumed(page, begin - lap + at)
            };
            target.slot(at).store(slot.pack(), Relaxed);
        }
        let last = SubbufId(u16::try_from(pages).map_err(|_| Corrupt)?);
        target.meta().writer.tail.store(Place::new(last, begin + pages - 1).pack(), Relaxed);
        let (from, to) = (&self.source.meta().writer, &target.meta().writer);
        to.dropped.store(from.dropped.load(Relaxed), Relaxed);
        to.refused.store(from.refused.load(Relaxed), Relaxed);
        let reader = self.moment.reader.of_copy(begin, self.has_page, target.written()?, self.events);
        update_meta(target, &reader)?;
        Ok(reader)
    }
}

/// Words copied from a sub-buffer's data.
struct Copied<'a>(&'a [u32]);

impl Words for Copied<'_> {
    fn word(&self, offset: u32) -> u32 {
        self.0[offset as usize / 4]
    }
}
