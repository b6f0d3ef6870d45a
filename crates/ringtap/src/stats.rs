//! A buffer's counters: the kernel's eight (`per_cpu/cpuN/stats`).

use crate::ring::swap::{self, Reader};
use crate::ring::{Corrupt, Ring};
use ringtap_abi::SubbufId;
use ringtap_abi::words::Slot;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// One buffer's counters since its last reset, in the kernel's order and meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events in the buffer, not yet read.
    pub entries: u64,
    /// Events overwritten before they were read.
    pub overrun: u64,
    /// Events refused because another writer had stopped in the middle of its own.
    pub commit_overrun: u64,
    /// Data bytes in the buffer, not yet read.
    pub bytes: u64,
    /// Time stamp of the oldest sub-buffer, in ticks of the buffer's clock; 0 when nothing was ever written.
    pub oldest_event_ts: u64,
    /// Time now, in ticks of the buffer's clock.
    pub now_ts: u64,
    /// Events refused because the ring was full, in discard mode.
    pub dropped_events: u64,
    /// Events read.
    pub read_events: u64,
}

impl Stats {
    /// Events ever written since the last reset: those in the buffer, overwritten and read.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.entries.wrapping_add(self.overrun).wrapping_add(self.read_events)
    }

    /// These counters and those of a buffer that replaced this one's; its times are the later ones.
    pub(crate) fn and(self, later: Self) -> Self {
        let add = u64::wrapping_add;
        Self {
            entries: add(self.entries, later.entries),
            overrun: add(self.overrun, later.overrun),
            commit_overrun: add(self.commit_overrun, later.commit_overrun),
            bytes: add(self.bytes, later.bytes),
            dropped_events: add(self.dropped_events, later.dropped_events),
            read_events: add(self.read_events, later.read_events),
            ..later
        }
    }

    /// As the eight numbers of a control message.
    pub(crate) fn to_array(self) -> [u64; 8] {
        let Self {
            entries,
            overrun,
            commit_overrun,
            bytes,
            oldest_event_ts,
            now_ts,
            dropped_events,
            read_events,
        } = self;
        [entries, overrun, commit_overrun, bytes, oldest_event_ts, now_ts, dropped_events, read_events]
    }

    /// From the eight numbers of a control message.
    pub(crate) fn from_array(numbers: [u64; 8]) -> Self {
        let [entries, overrun, commit_overrun, bytes, oldest_event_ts, now_ts, dropped_events, read_events] =
            numbers;
        Self { entries, overrun, commit_overrun, bytes, oldest_event_ts, now_ts, dropped_events, read_events }
    }
}

/// Looks at a buffer. Exact while nobody writes; of a moment, more or less, while somebody does.
pub(crate) fn of(ring: &Ring<'_>, reader: &Reader, now_ts: u64) -> Result<Stats, Corrupt> {
    let overrun = swap::overrun(ring, reader)?;
    let written = ring.written()?.wrapping_sub(reader.base_index());
    let (read_events, _) = reader.read();
    let writer = &ring.meta().writer;
    Ok(Stats {
        entries: written.saturating_sub(overrun).saturating_sub(read_events),
        overrun,
        commit_overrun: writer.refused.load(Relaxed),
        bytes: unread_bytes(ring, reader)?,
        oldest_event_ts: oldest_time(ring, reader)?,
        now_ts,
        dropped_events: writer.dropped.load(Relaxed),
        read_events,
    })
}

/// Data bytes on the reader page and in the ring that were not read. Walks the ring: this is no hot path.
fn unread_bytes(ring: &Ring<'_>, reader: &Reader) -> Result<u64, Corrupt> {
    let mut bytes = u64::from(reader.unread_on_page(ring)?.bytes);
    let tail = ring.tail()?;
    let Some(oldest) = ring.oldest_unconsumed(reader.next_seq())? else { return Ok(bytes) };
    // No more than once round the ring, whatever the words say.
    for seq in (oldest.seq..=tail.seq()).rev().take(ring.geometry().ring_subbufs() as usize) {
        let slot = Slot::unpack(ring.slot(seq).load(Acquire));
        if slot.seq() == seq && !slot.is_consumed() {
            bytes += u64::from(ring.commit(ring.checked(slot.page())?)?.offset());
        }
    }
    Ok(bytes)
}

/// As the kernel: the reader page's stamp when the writers are there, else the oldest ring page's.
fn oldest_time(ring: &Ring<'_>, reader: &Reader) -> Result<u64, Corrupt> {
    let page: SubbufId = match ring.oldest_unconsumed(reader.next_seq())? {
        Some(oldest) => oldest.page,
        None => ring.tail()?.page(),
    };
    Ok(ring.data().header(page).time_stamp.load(Relaxed))
}
