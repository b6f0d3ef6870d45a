//! Snapshots: a second set of buffers with what the first held at one moment, taken while its writers go on.
//!
//! The kernel swaps its snapshot's pages with the ring's and therefore refuses while the ring is mapped. Here a cursor
//! copies them, so neither writers nor readers are disturbed. A snapshot is a [`Host`] of its own: readers, cursors and
//! counters work on it as on any other, and nobody writes to it. Its counters are those of the moment; what was
//! overwritten before it was copied counts as overrun.
//!
//! Each snapshot gets new memory, so whoever still reads an older one keeps it until it is dropped.

use crate::host::{Buffer, Host, HostError};
use crate::ring::snapshot::Copying;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An instance's snapshot, if it has one.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    taking: Mutex<()>,
    taken: Mutex<Option<Host>>,
}

impl Slot {
    /// One snapshot is made at a time.
    fn take_turns(&self) -> MutexGuard<'_, ()> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> MutexGuard<'_, Option<Host>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// Copies what the buffers hold now, of all CPUs or of one, to a second set of buffers, which takes the place of
    /// the last snapshot. Of one CPU: the others' keep what they had. The writers go on meanwhile.
    ///
    /// # Errors
    /// [`HostError`] where there is no such CPU or no memory; the last snapshot then stays.
    pub fn take_snapshot(&self, cpu: Option<u32>) -> Result<(), HostError> {
        let slot = self.snapshot_slot();
        let _turn = slot.take_turns();
        if let Some(cpu) = cpu.filter(|&cpu| cpu as usize >= self.buffers().len()) {
            return Err(HostError::NoSuchCpu(cpu));
        }
        let before = self.snapshot();
        let buffer = |live: &Arc<Buffer>| match (cpu, &before) {
            (Some(cpu), Some(before)) if cpu != live.cpu() => before.snapshot_buffer(live),
            (Some(cpu), None) if cpu != live.cpu() => live.emptied().map(Arc::new),
            _ => live.copied(Pace::default().keeper()).map(Arc::new),
        };
        let buffers = self.buffers().iter().map(buffer).collect::<Result<_, _>>()?;
        *slot.taken() = Some(self.with_buffers(buffers));
        Ok(())
    }

    /// The last snapshot, which stays as it is until the last handle of it is dropped.
    #[must_use]
    pub fn snapshot(&self) -> Option<Self> {
        self.snapshot_slot().taken().clone()
    }

    /// Empties the snapshot, if there is one, and keeps its memory ready.
    ///
    /// # Errors
    /// [`HostError`] where there is no memory; the snapshot then stays.
    pub fn clear_snapshot(&self) -> Result<(), HostError> {
        let slot = self.snapshot_slot();
        let _turn = slot.take_turns();
        if slot.taken().is_some() {
            let empty = |live: &Arc<Buffer>| live.emptied().map(Arc::new);
            let buffers = self.buffers().iter().map(empty).collect::<Result<_, _>>()?;
            *slot.taken() = Some(self.with_buffers(buffers));
        }
        Ok(())
    }

    /// Drops the snapshot, if there is one.
    pub fn free_snapshot(&self) {
        let slot = self.snapshot_slot();
        let _turn = slot.take_turns();
        *slot.taken() = None;
    }

    /// The snapshot's buffer of the same CPU.
    fn snapshot_buffer(&self, live: &Buffer) -> Result<Arc<Buffer>, HostError> {
        let buffer = self.buffers().into_iter().nth(live.cpu() as usize);
        buffer.ok_or(HostError::NoSuchCpu(live.cpu()))
    }
}

/// How many bytes are copied between two looks at the clock.
const SLICE: u64 = 128 * 1024;
/// How much of the time is spent copying at most, where the writers are far: one part in this many.
const SHARE: u32 = 12;
/// A pause is taken only while the writers have this part of the ring before them, whatever else it costs.
const HEADROOM: u64 = 8;

/// Keeps a copy from taking a CPU, and the memory's bandwidth, away from the writers.
#[derive(Debug)]
struct Pace {
    since: Instant,
    bytes: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }
}

impl Pace {
    fn keeper(mut self) -> impl FnMut(&Copying<'_, '_>) {
        move |copying| self.keep(copying)
    }

    /// Pauses where enough was copied since the last pause.
    fn keep(&mut self, copying: &Copying<'_, '_>) {
        let geometry = copying.geometry();
        self.bytes += u64::from(geometry.subbuf_size());
        if self.bytes < SLICE {
            return;
        }
        let spent = self.since.elapsed();
        let is_far =
            copying.headroom().is_ok_and(|pages| pages > u64::from(geometry.ring_subbufs()) / HEADROOM);
        if is_far {
            std::thread::sleep((spent * (SHARE - 1)).min(LONGEST_PAUSE));
        }
        *self = Self::default();
    }
}

/// Longest pause: what was taken for the copy's own time may have been another thread's.
const LONGEST_PAUSE: Duration = Duration::from_millis(2);
