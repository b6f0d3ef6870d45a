//! The reader swap: the consuming reader's page for the oldest in the ring.
//!
//! The host alone comes here, for one reader at a time. It keeps what it knows in a private [`Reader`]; the copy
//! in shared memory is for cursors and for the host's successor.

use super::counters::Oldest;
use super::ordering::{e5_swap, e6_publish};
use super::{Corrupt, Ring};
use ringtap_abi::SubbufId;
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};
use ringtap_abi::words::{Place, Slot};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::compiler_fence;

/// How often a swap that lost its page to a writer tries the next.
const SWAP_TRIES: u32 = 64;

/// What the consuming reader holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    /// The reader page.
    pub(super) page: SubbufId,
    /// The position it held in the ring; 0 while it holds none.
    pub(super) seq: u64,
    /// How much of it was handed out, in data bytes.
    pub(super) handed_bytes: u32,
    /// How much of it was handed out, in events.
    pub(super) handed_events: u32,
    /// The next position to take.
    pub(super) next_seq: u64,
    /// Index of the first event not yet handed out.
    pub(super) next_index: u64,
    /// Index of the first event since the last reset.
    pub(super) base_index: u64,
    /// Events handed out since the last reset.
    pub(super) read: u64,
    /// Data bytes handed out since the last reset.
    pub(super) read_bytes: u64,
    /// Events lost right before the reader page.
    pub(super) lost: u64,
    /// All events overwritten since the last reset, where that is known beforehand: in a copy, whose gaps may lie anywhere.
    overrun: Option<u64>,
}

/// What was committed to the reader page and not handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) bytes: u32,
    pub(crate) events: u32,
}

/// What a call of [`get_reader`] brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// Nothing new.
    Nothing,
    /// More of the page that the reader has.
    More,
    /// Another page.
    Page,
}

impl Reader {
    /// The reader of an empty ring.
    pub(crate) fn new(ring: &Ring<'_>) -> Self {
        Self {
            page: SubbufId(0),
            seq: 0,
            handed_bytes: 0,
            handed_events: 0,
            next_seq: u64::from(ring.geometry().ring_subbufs()),
            next_index: 0,
            base_index: 0,
            read: 0,
            read_bytes: 0,
            lost: 0,
            overrun: None,
        }
    }

    /// What this reader would hold in a copy of the ring: page 0 with what is unread of the reader page, if anything,
    /// at position `seq` - 1, and the rest from position `seq` on. `copied` of the `written` events are in the copy.
    pub(super) fn of_copy(&self, seq: u64, has_page: bool, written: u64, copied: u64) -> Self {
        let (handed_bytes, handed_events) =
            if has_page { (self.handed_bytes, self.handed_events) } else { (0, 0) };
        Self {
            page: SubbufId(0),
            seq: if has_page { seq - 1 } else { 0 },
            handed_bytes,
            handed_events,
            next_seq: seq,
            lost: 0,
            overrun: Some(
                written
                    .wrapping_sub(self.base_index)
                    .wrapping_sub(self.read)
                    .wrapping_add(u64::from(handed_events))
                    .wrapping_sub(copied),
            ),
            ..*self
        }
    }

    /// The reader page, while it is one.
    pub(super) fn page(&self) -> Option<SubbufId> {
        (self.seq != 0).then_some(self.page)
    }

    /// Index of the first event not yet handed out.
    pub(super) fn next_index(&self) -> u64 {
        self.next_index
    }

    /// How much of the reader page was handed out, in data bytes.
    pub(crate) fn handed_bytes(&self) -> u32 {
        self.handed_bytes
    }

    /// The next position that a swap would take.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Whether the reader page is the one being written: then what follows comes without a swap.
    pub(crate) fn holds(&self, tail: Place) -> bool {
        self.seq == tail.seq() && self.page == tail.page()
    }

    /// Events handed out, and their bytes, since the last reset.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.read, self.read_bytes)
    }

    /// Index of the first event since the last reset.
    pub(crate) fn base_index(&self) -> u64 {
        self.base_index
    }

    /// What was committed to the reader page and not handed out.
    pub(crate) fn unread_on_page(&self, ring: &Ring<'_>) -> Result<Unread, Corrupt> {
        if self.seq == 0 {
            return Ok(Unread { bytes: 0, events: 0 });
        }
        let w = ring.commit(self.page)?;
        match (w.offset().checked_sub(self.handed_bytes), w.entries().checked_sub(self.handed_events)) {
            (Some(bytes), Some(events)) => Ok(Unread { bytes, events }),
            _ => Err(Corrupt),
        }
    }

    /// After a reset: the reader page is empty, and counting begins with event `first` at position `seq`.
    pub(super) fn begin_again(&mut self, ring: &Ring<'_>, seq: u64, first: u64) -> Result<(), Corrupt> {
        *self =
            Self { page: self.page, next_seq: seq, next_index: first, base_index: first, ..Self::new(ring) };
        ring.data().header(self.page).commit.store(PageCommit::new(0).pack(), Relaxed);
        self.forget(ring)
    }

    /// Counts from here on.
    pub(super) fn forget(&mut self, ring: &Ring<'_>) -> Result<(), Corrupt> {
        (self.base_index, self.read, self.read_bytes, self.lost) = (self.next_index, 0, 0, 0);
        ring.meta().writer.dropped.store(0, Relaxed);
        ring.meta().writer.refused.store(0, Relaxed);
        update_meta(ring, self)
    }

    /// No cursor finds the reader page from here on until [`publish`](Self::publish). Before any slot is marked
    /// consumed: a cursor that finds the mark must not be led to a page of another use.
    pub(super) fn conceal(&self, ring: &Ring<'_>) {
        // Relaxed: the CAS that marks the slot is a Release.
        ring.meta().host.reader.store(Place::new(self.page, 0).pack(), Relaxed);
    }

    /// Writes the copy that cursors and a successor look at.
    pub(super) fn publish(&self, ring: &Ring<'_>) {
        let host = &ring.meta().host;
        // In this order, and `kernel.read` last of all: a successor that finds the two equal knows that what it finds
        // between them belongs together (`recover`). A store hook between any two, where tests let hosts die.
        for (word, value) in [
            (&host.read, self.read),
            (&host.read_bytes, self.read_bytes),
            (&host.next_index, self.next_index),
            (&host.base_index, self.base_index),
        ] {
            may_die();
            word.store(value, Relaxed);
            compiler_fence(Release);
        }
        may_die();
        // A reader without a page tells cursors from where on positions are not yet taken.
        let seq = if self.seq == 0 { self.next_seq } else { self.seq };
        // E6: pairs with the Acquire in `Position::find`. A cursor that finds the page here sees its desc.
        host.reader.store(Place::new(self.page, seq).pack(), e6_publish());
    }
}

/// Between two stores that nobody but a successor looks at: a model checker need not try what others do meanwhile.
#[inline(always)]
fn may_die() {
    #[cfg(not(loom))]
    super::store_hook();
}

/// Hands out what is new on the reader page, or swaps it for the oldest page in the ring, as the kernel's
/// `TRACE_MMAP_IOCTL_GET_READER`: at most one swap, and all of the page counts as read. The meta-page says the
/// rest. It takes the same time however many events the page holds.
pub(crate) fn get_reader(ring: &Ring<'_>, reader: &mut Reader) -> Result<Handed, Corrupt> {
    let handed = hand_out(ring, reader)?;
    update_meta(ring, reader)?;
    Ok(handed)
}

fn hand_out(ring: &Ring<'_>, reader: &mut Reader) -> Result<Handed, Corrupt> {
    if take_more(ring, reader)? {
        return Ok(Handed::More);
    }
    let tail = ring.tail()?;
    if reader.holds(tail) {
        return Ok(Handed::Nothing);
    }
    // The tail has left the reader page: what was committed to it before that is visible now.
    if take_more(ring, reader)? {
        return Ok(Handed::More);
    }
    let Some(old) = swap(ring, reader)? else { return Ok(Handed::Nothing) };
    let first = old.first;
    reader.lost = first.wrapping_sub(reader.next_index);
    reader.next_index = first;
    // Before its bytes are counted: if the tail has left the page, they are all that it will ever hold.
    let is_final = !reader.holds(ring.tail()?);
    take_more(ring, reader)?;
    if is_final {
        mark_lost(ring, reader);
    }
    Ok(Handed::Page)
}

/// Hands out what was committed to the reader page since the last time; whether there was anything.
fn take_more(ring: &Ring<'_>, reader: &mut Reader) -> Result<bool, Corrupt> {
    let Unread { bytes, events } = reader.unread_on_page(ring)?;
    if bytes == 0 {
        return Ok(false);
    }
    reader.handed_bytes += bytes;
    reader.handed_events += events;
    reader.next_index = reader.next_index.wrapping_add(u64::from(events));
    reader.read = reader.read.wrapping_add(u64::from(events));
    reader.read_bytes = reader.read_bytes.wrapping_add(u64::from(bytes));
    let commit = PageCommit::new(reader.handed_bytes);
    ring.data().header(reader.page).commit.store(commit.pack(), Relaxed);
    Ok(true)
}

/// Takes the oldest page that holds events, and leaves the reader page in its slot.
fn swap(ring: &Ring<'_>, reader: &mut Reader) -> Result<Option<Oldest>, Corrupt> {
    for _ in 0..SWAP_TRIES {
        let Some(oldest) = ring.oldest_unconsumed(reader.next_seq)? else { return Ok(None) };
        if oldest.page == reader.page {
            return Err(Corrupt);
        }
        if ring.commit(oldest.page)?.is_blank() {
            if ring.tail()?.seq() == oldest.seq {
                // The tail, with nothing on it yet.
                return Ok(None);
            }
            // A writer has claimed the page since we looked, or scribbled; or it was left with nothing on it (`renumber`,
            // by a host that died there), which its `w` still says now that the tail is seen to be elsewhere.
            if ring.commit(oldest.page)?.is_blank() {
                let held = Slot::unconsumed(oldest.page, oldest.seq).pack();
                let passed = Slot::consumed(oldest.page, oldest.seq).pack();
                // E5: as below.
                let _ = ring.slot(oldest.seq).compare_exchange(held, passed, e5_swap(), Relaxed);
            }
            continue;
        }
        reader.conceal(ring);
        let (held, freed) =
            (Slot::unconsumed(oldest.page, oldest.seq), Slot::consumed(reader.page, oldest.seq));
        // E5: pairs with the claim's CAS. Release: the next writer of the old reader page comes after our reads.
        if ring.slot(oldest.seq).compare_exchange(held.pack(), freed.pack(), e5_swap(), Relaxed).is_ok() {
            reader.page = oldest.page;
            reader.seq = oldest.seq;
            reader.handed_bytes = 0;
            reader.handed_events = 0;
            reader.next_seq = oldest.seq + 1;
            return Ok(Some(oldest));
        }
    }
    Ok(None)
}

/// Notes on the page itself that events were lost before it, as the kernel does, with their number where there is
/// room behind the events. Not for a page to which events may have been added since its bytes were counted: the
/// number would stand in their place.
fn mark_lost(ring: &Ring<'_>, reader: &Reader) {
    if reader.lost == 0 {
        return;
    }
    let len = reader.handed_bytes;
    let has_room = ring.geometry().capacity() - len >= 8;
    if has_room {
        let at = HEADER_LEN + len;
        ring.data().store_u64(reader.page, at, reader.lost);
    }
    let commit = PageCommit::new(len).with_missed(has_room);
    ring.data().header(reader.page).commit.store(commit.pack(), Relaxed);
}

/// Rewrites the kernel's part of the meta-page, as each GET_READER does.
pub(super) fn update_meta(ring: &Ring<'_>, reader: &Reader) -> Result<(), Corrupt> {
    reader.publish(ring);
    // In this order: writers go on meanwhile, and what is left must never come out as less than nothing.
    let overrun = overrun(ring, reader)?;
    let written = ring.written()?;
    let kernel = &ring.meta().kernel;
    kernel.reader_lost_events.store(reader.lost, Relaxed);
    kernel.reader_id.store(u32::from(reader.page.0), Relaxed);
    kernel.reader_read.store(reader.handed_bytes, Relaxed);
    kernel.entries.store(written.wrapping_sub(reader.base_index), Relaxed);
    kernel.overrun.store(overrun, Relaxed);
    compiler_fence(Release);
    may_die();
    kernel.read.store(reader.read, Relaxed);
    Ok(())
}

/// Events overwritten since the last reset, those that no swap has noticed yet included.
pub(crate) fn overrun(ring: &Ring<'_>, reader: &Reader) -> Result<u64, Corrupt> {
    if let Some(overrun) = reader.overrun {
        return Ok(overrun);
    }
    let noticed = reader.next_index.wrapping_sub(reader.base_index).wrapping_sub(reader.read);
    Ok(noticed.wrapping_add(unnoticed(ring, reader)?))
}

/// Events overwritten between the end of the reader page and the oldest page in the ring.
fn unnoticed(ring: &Ring<'_>, reader: &Reader) -> Result<u64, Corrupt> {
    if reader.holds(ring.tail()?) {
        return Ok(0);
    }
    let end = reader.next_index.wrapping_add(u64::from(reader.unread_on_page(ring)?.events));
    let oldest = ring.oldest_unconsumed(reader.next_seq)?;
    // None: the tail is consumed, so the reader had it when we looked there.
    Ok(oldest.map_or(0, |oldest| oldest.first.saturating_sub(end)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::map::{self, Access};
    use crate::ring::tests::kit::StopAtEnd;
    use crate::{Config, Host, Refused};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::{Duration, Instant};

    #[test]
    fn whoever_computes_what_is_left_never_gets_less_than_nothing() {
        let host = Host::new(&Config { ring_subbufs: 2, ..Config::default() }).expect("memory");
        let mappings = host.cpus().into_iter().map(|cpu| {
            let fd = host.read_only(cpu).expect("there is one");
            (cpu, map::open(fd, Access::Read).expect("it is a buffer"))
        });
        let mappings: Vec<_> = mappings.collect();
        let stop = AtomicBool::new(false);
        let mut worst = 0;
        std::thread::scope(|scope| {
            for _ in &mappings {
                scope.spawn(|| {
                    let writer = host.writer();
                    while !stop.load(Relaxed) {
                        // Writers that share a lock may find it taken for too long.
                        assert!(matches!(writer.write(&[7; 1000]), Ok(()) | Err(Refused::Busy)));
                    }
                });
            }
            let _stops = StopAtEnd(&stop);
            let until = Instant::now() + Duration::from_millis(500);
            while Instant::now() < until {
                for (cpu, mapping) in &mappings {
                    host.get_reader(*cpu).expect("the ring is sound");
                    let meta = &mapping.ring().meta().kernel;
                    let [entries, overrun, read] =
                        [&meta.entries, &meta.overrun, &meta.read].map(|count| count.load(Relaxed));
                    worst = worst.max((overrun + read).saturating_sub(entries));
                }
            }
        });
        assert_eq!(worst, 0, "more events were overwritten and read than written");
    }
}
