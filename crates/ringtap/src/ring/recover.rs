//! What the consuming reader held, found out by a host that takes over the rings of one that was killed.
//!
//! A host may die at any instruction of a swap, and everything else goes on meanwhile. What stands in shared memory then
//! is a prefix of the stores that [`publish`](swap::Reader::publish) and its callers make, in their order:
//!
//! ```text
//!   header.commit    what was handed out of the reader page
//!   host.reader = {old page, 0}    concealed, before a swap
//!   slot := {old page, consumed}   the swap: from here on another page is the reader's
//!   host.read, host.read_bytes, host.next_index, host.base_index, host.reader
//!   kernel.reader_id, kernel.reader_read, ..., kernel.read
//! ```
//!
//! **The reader page is the one that no slot names**: that holds between any two stores. `host.read` is stored first and
//! `kernel.read` last, and each update makes them grow: where they are equal, no update was under way, and the words
//! belong together. Where they differ, the host died in a GET_READER that it had not answered: then the whole page is
//! handed out once more, so that no committed event is lost; some of them may have been seen before.

use super::swap::Reader;
use super::{Corrupt, Ring};
use ringtap_abi::SubbufId;
use ringtap_abi::records::{Walk, Words};
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};
use ringtap_abi::words::{Place, Slot};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// What the consuming reader of a dead host held. All of it is an allegation, checked here.
pub(crate) fn reader(ring: &Ring<'_>) -> Result<Reader, Corrupt> {
    let page = reader_page(ring)?;
    let host = &ring.meta().host;
    let (read, told) = (host.read.load(Relaxed), ring.meta().kernel.read.load(Relaxed));
    let published = Place::unpack(host.reader.load(Acquire));
    let was_swapped = published.seq() == 0 && published.page() != page;
    let mut reader = Reader::new(ring);
    reader.page = page;
    reader.base_index = host.base_index.load(Relaxed);
    reader.next_index = host.next_index.load(Relaxed);
    (reader.read, reader.read_bytes) = (read, host.read_bytes.load(Relaxed));
    let w = ring.commit(page)?;
    let first = ring.first(page);
    let told_bytes = ring.meta().kernel.reader_read.load(Relaxed);
    // Who asked for the page has passed none of it on, and said so.
    let is_left = told_bytes == 0 && !was_swapped && handed(ring, page)?.bytes > 0;
    if read != told || is_left {
        let handed = handed(ring, page)?;
        reader.seq = seq(ring, page, published)?;
        reader.read = read.wrapping_sub(handed.events.into());
        reader.read_bytes = reader.read_bytes.saturating_sub(handed.bytes.into());
        reader.next_index = first;
    } else if was_swapped {
        reader.seq = seq(ring, page, published)?;
        reader.lost = first.wrapping_sub(reader.next_index);
        reader.next_index = first;
    } else if told_bytes != 0 {
        reader.seq = seq(ring, page, published)?;
        let events = u32::try_from(reader.next_index.wrapping_sub(first)).map_err(|_| Corrupt)?;
        (reader.handed_bytes, reader.handed_events) = (told_bytes, events);
        reader.lost = ring.meta().kernel.reader_lost_events.load(Relaxed);
        if told_bytes > w.offset() || events > w.entries() {
            return Err(Corrupt);
        }
    } else {
        // It holds nothing: the position is the one that comes next.
        reader.next_seq = published.seq().max(1);
        return Ok(reader);
    }
    // Positions that are gone or consumed are stepped over.
    reader.next_seq = if reader.seq > 1 { reader.seq + 1 } else { 1 };
    Ok(reader)
}

/// The page that no slot names.
fn reader_page(ring: &Ring<'_>) -> Result<SubbufId, Corrupt> {
    let pages = ring.geometry().nr_subbufs();
    for _ in 0..LOOKS {
        let mut is_named = vec![false; pages as usize];
        for seq in 0..u64::from(ring.geometry().ring_subbufs()) {
            // A writer changes a slot's position and never its page.
            let page = ring.checked(Slot::unpack(ring.slot(seq).load(Acquire)).page())?;
            is_named[usize::from(page.0)] = true;
        }
        let mut free = (0..=u16::MAX).map(SubbufId).zip(&is_named).filter(|(_, named)| !**named);
        if let (Some((page, _)), None) = (free.next(), free.next()) {
            return Ok(page);
        }
    }
    Err(Corrupt)
}

/// Nobody swaps while a host takes over: one look tells.
const LOOKS: u32 = 1;

/// The position at which the reader page was, or one that was never, where it is forgotten: of a page that the tail
/// has left, it matters no more.
fn seq(ring: &Ring<'_>, page: SubbufId, published: Place) -> Result<u64, Corrupt> {
    let tail = ring.tail()?;
    if tail.page() == page {
        return Ok(tail.seq());
    }
    if published.seq() != 0 {
        return Ok(published.seq());
    }
    // Concealed, and swapped: the slot that has the old reader page was this page's.
    let lap = u64::from(ring.geometry().ring_subbufs());
    let slots = (0..lap).map(|seq| Slot::unpack(ring.slot(seq).load(Acquire)));
    let freed = slots.into_iter().find(|slot| slot.page() == published.page());
    let seq = freed.map(|slot| if slot.is_consumed() { slot.seq() } else { slot.seq().saturating_sub(lap) });
    Ok(seq.unwrap_or(1).max(1))
}

/// How much of the reader page was handed out.
struct HandedOut {
    bytes: u32,
    events: u32,
}

fn handed(ring: &Ring<'_>, page: SubbufId) -> Result<HandedOut, Corrupt> {
    let bytes = PageCommit::unpack(ring.data().header(page).commit.load(Relaxed)).len();
    if bytes > ring.geometry().capacity() || !bytes.is_multiple_of(4) {
        return Err(Corrupt);
    }
    let words = PageWords { ring, page };
    let mut walk = Walk::new(0, bytes);
    let mut events = 0;
    while walk.next(&words).map_err(|_| Corrupt)?.is_some() {
        events += 1;
    }
    Ok(HandedOut { bytes, events })
}

/// A page's words, to be walked.
pub(crate) struct PageWords<'r, 'm> {
    pub(crate) ring: &'r Ring<'m>,
    pub(crate) page: SubbufId,
}

impl Words for PageWords<'_, '_> {
    fn word(&self, offset: u32) -> u32 {
        self.ring.data().load(self.page, HEADER_LEN + offset)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ring::{hook, swap};
    use crate::{Config, Host};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Each step that a swap makes on shared words is the last one of some host; its successor finds all events.
    #[test]
    fn a_host_that_dies_at_any_step_loses_no_event() {
        for (before, between) in [(0, 5), (3, 40), (100, 1), (700, 900), (5, 0)] {
            for step in 0.. {
                let host = Host::new(&Config { ring_subbufs: 4, ..Config::default() }).expect("memory");
                let writer = host.writer();
                let pin = crate::pin::Pin::to(0).expect("there is a CPU 0");
                let write =
                    |count| (0..count).for_each(|_| writer.write(&[7; 60]).expect("it is overwritten"));
                write(before);
                let mappings = host.mappings();
                let ring = mappings[0].ring();
                let mut first = Reader::new(&ring);
                swap::get_reader(&ring, &mut first).expect("the ring is sound");
                write(between);
                let mut left = step;
                hook::set(move || {
                    assert!(left > 0, "the host dies here");
                    left -= 1;
                });
                let died = catch_unwind(AssertUnwindSafe(|| swap::get_reader(&ring, &mut first))).is_err();
                hook::clear();
                let mut second = reader(&ring).expect("the ring is sound");
                write(3);
                while swap::get_reader(&ring, &mut second).expect("the ring is sound")
                    != swap::Handed::Nothing
                {}
                let (read, _) = second.read();
                let overrun = swap::overrun(&ring, &second).expect("the ring is sound");
                assert_eq!(
                    read + overrun,
                    before + between + 3,
                    "died at step {step} of {before}, {between}"
                );
                drop(pin);
                if !died {
                    break;
                }
            }
        }
    }
}
