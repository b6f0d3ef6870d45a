//! One CPU's buffers as the host has them: the one that is written, those that it replaced and that are not yet read
//! empty, and what is left to count of older ones.
//!
//! ```text
//!   past          spent              older                    newest
//!   numbers only  read or given up,  retired, still to be     where the writers are
//!                 memory given back  read, oldest first
//! ```
//!
//! The consuming reader has the oldest that is not read empty, and is led from one to the next. A buffer that was given
//! up (by a second resize before it was read) counts what was left on it as overwritten.

use crate::host::{Buffer, HostError};
use crate::map::Mapping;
use crate::ring::swap::{self, Handed, Reader as Swapper};
use crate::ring::{Corrupt, retire};
use crate::stats::{self, Stats};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Replaced and read buffers whose counters are still looked at: a process that has not been told of the new ones counts
/// its refused events there.
const SPENT: usize = 1024;

#[derive(Debug)]
pub(crate) struct Lane {
    /// The process of the consuming reader; 0 when there is none.
    pub(crate) consumer: AtomicU32,
    chain: Mutex<Chain>,
}

#[derive(Debug)]
pub(crate) struct Chain {
    past: Stats,
    spent: VecDeque<Spent>,
    older: VecDeque<Arc<Buffer>>,
    newest: Arc<Buffer>,
    /// What is about to take its place.
    pending: Option<Arc<Buffer>>,
    /// The one whose memory the consuming reader has, where it asked for it: nothing is handed out of another.
    told: Option<Arc<Buffer>>,
}

/// What is left of a buffer that was read or given up.
#[derive(Debug)]
struct Spent {
    mapping: Arc<Mapping>,
    reader: Swapper,
    /// Until the sub-buffers' memory is given back: its consuming reader may still be looking at it.
    held: Option<Arc<Buffer>>,
}

impl Spent {
    fn new(buffer: Arc<Buffer>) -> Self {
        let (mapping, reader) = (Arc::clone(buffer.mapping()), *buffer.reader());
        Self { mapping, reader, held: Some(buffer) }
    }

    fn give_back(&mut self) {
        if let Some(buffer) = self.held.take() {
            buffer.give_back();
        }
    }

    /// Its counters; what is left on it is lost.
    fn stats(&self) -> Result<Stats, Corrupt> {
        let stats = stats::of(&self.mapping.ring(), &self.reader, 0)?;
        Ok(Stats { overrun: stats.overrun.wrapping_add(stats.entries), entries: 0, bytes: 0, ..stats })
    }
}

impl Lane {
    pub(crate) fn new(newest: Arc<Buffer>) -> Self {
        let chain = Chain {
            past: Stats::default(),
            spent: VecDeque::new(),
            older: VecDeque::new(),
            newest,
            pending: None,
            told: None,
        };
        Self { consumer: AtomicU32::new(0), chain: Mutex::new(chain) }
    }

    /// The buffers. Each change of theirs is complete or absent, so a panic of another thread says nothing about them.
    pub(crate) fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties the buffer that is written, and forgets those before it.
    pub(crate) fn reset(&self) -> Result<(), HostError> {
        let mut chain = self.chain();
        chain.newest.reset()?;
        chain.forget(self.consumer.load(Relaxed) != 0);
        Ok(())
    }

    /// The buffer that is written.
    pub(crate) fn newest(&self) -> Arc<Buffer> {
        Arc::clone(&self.chain().newest)
    }

    /// The buffer that is read.
    pub(crate) fn front(&self) -> Arc<Buffer> {
        Arc::clone(self.chain().front())
    }
}

/// Whether a retired buffer has nothing that is unread.
fn is_empty(buffer: &Buffer) -> Result<bool, Corrupt> {
    Ok(stats::of(&buffer.mapping().ring(), &buffer.reader(), 0)?.entries == 0)
}

impl Chain {
    pub(crate) fn front(&self) -> &Arc<Buffer> {
        self.older.front().unwrap_or(&self.newest)
    }

    pub(crate) fn newest(&self) -> &Arc<Buffer> {
        &self.newest
    }

    /// Says what is about to take the newest one's place, or that nothing is.
    pub(crate) fn set_pending(&mut self, buffer: Option<Arc<Buffer>>) {
        self.pending = buffer;
    }

    /// The buffer that a writer needs whose last one is the file of this inode: what is about to follow the newest is for
    /// those who know that.
    pub(crate) fn for_writer(&self, known: u64) -> &Arc<Buffer> {
        match &self.pending {
            Some(next) if [self.newest.file().inode(), next.file().inode()].contains(&known) => next,
            _ => &self.newest,
        }
    }

    /// The oldest buffer to be read that was made after the one of this memory; `None` where that is the newest.
    pub(crate) fn after(&self, mapping: &Mapping) -> Option<Arc<Buffer>> {
        let mut all = self.older.iter().chain([&self.newest]);
        // What is not found here was read or given up: all of these are later.
        let known =
            self.older.iter().chain([&self.newest]).position(|buffer| buffer.file() == mapping.file());
        match known {
            Some(at) => all.nth(at + 1).map(Arc::clone),
            None => all.next().map(Arc::clone),
        }
    }

    /// The buffer that is read, for its consuming reader.
    pub(crate) fn tell(&mut self) -> Arc<Buffer> {
        let front = Arc::clone(self.front());
        self.told = Some(Arc::clone(&front));
        front
    }

    /// Another consuming reader begins.
    pub(crate) fn forget_reader(&mut self) {
        self.told = None;
    }

    /// Performs GET_READER on the buffer that is read, and goes on to the next one behind its end: the consuming reader,
    /// who finds nothing new and its buffer retired, asks for that one's memory.
    pub(crate) fn get_reader(&mut self) -> Result<Handed, Corrupt> {
        // Who asks for more is through with what it had.
        self.spent.iter_mut().for_each(Spent::give_back);
        let front = Arc::clone(self.front());
        if self.told.as_ref().is_some_and(|told| !Arc::ptr_eq(told, &front)) {
            // What the reader had was given up; it has to ask for this one.
            return Ok(Handed::Nothing);
        }
        let ring = front.mapping().ring();
        // Before the look: what is committed later is not missed then.
        let was_retired = retire::is_retired(&ring)?;
        let handed = swap::get_reader(&ring, &mut front.reader())?;
        if handed == Handed::Nothing && was_retired && self.older.pop_front().is_some() {
            self.spend(front, false)?;
        }
        Ok(handed)
    }

    /// Puts `buffer` in the place of the newest, which was retired.
    pub(crate) fn replace(&mut self, buffer: Arc<Buffer>, has_consumer: bool) -> Result<(), Corrupt> {
        let unread = std::mem::take(&mut self.older);
        for given_up in unread {
            self.spend(given_up, has_consumer)?;
        }
        self.pending = None;
        let old = std::mem::replace(&mut self.newest, buffer);
        // Whoever comes next need not be led through a ring that nobody reads and that has nothing to read.
        if !has_consumer && is_empty(&old)? {
            return self.spend(old, false);
        }
        self.older.push_back(old);
        Ok(())
    }

    /// Forgets all but the newest.
    pub(crate) fn forget(&mut self, has_consumer: bool) {
        for buffer in std::mem::take(&mut self.older) {
            if !has_consumer {
                buffer.give_back();
            }
        }
        self.spent.clear();
        self.past = Stats::default();
    }

    fn spend(&mut self, buffer: Arc<Buffer>, is_held: bool) -> Result<(), Corrupt> {
        let mut spent = Spent::new(buffer);
        if !is_held {
            spent.give_back();
        }
        self.spent.push_back(spent);
        if self.spent.len() > SPENT
            && let Some(mut oldest) = self.spent.pop_front()
        {
            oldest.give_back();
            self.past = self.past.and(oldest.stats()?);
        }
        Ok(())
    }

    /// All counters together.
    pub(crate) fn stats(&self, now_ts: u64) -> Result<Stats, Corrupt> {
        let mut all = self.past;
        for spent in &self.spent {
            all = all.and(spent.stats()?);
        }
        let mut oldest_event_ts = 0;
        for buffer in self.older.iter().chain([&self.newest]) {
            let stats = buffer.stats(now_ts)?;
            if oldest_event_ts == 0 && (stats.entries > 0 || Arc::ptr_eq(buffer, &self.newest)) {
                oldest_event_ts = stats.oldest_event_ts;
            }
            all = all.and(stats);
        }
        Ok(Stats { oldest_event_ts, now_ts, ..all })
    }
}

impl Buffer {
    fn stats(&self, now_ts: u64) -> Result<Stats, Corrupt> {
        stats::of(&self.mapping().ring(), &self.reader(), now_ts)
    }

    pub(crate) fn damaged(&self) -> HostError {
        HostError::Damaged(self.cpu())
    }
}
