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
//!
//! A host that takes over finds the same in the buffers themselves: each says how many followed each other before it, and
//! the oldest that is not spent says so, and what was counted before it ([`ChainWords`]).

use crate::host::{Buffer, HostError};
use crate::map::Mapping;
use crate::ring::swap::{self, Handed};
use crate::ring::{Corrupt, retire};
use crate::stats::{self, Stats};
use ringtap_abi::meta::{ChainWords, Rank};
use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Replaced and read buffers whose counters are still looked at: a thread may have been stopped, in the middle of an event
/// that its ring refused, for as many resizes.
const SPENT: usize = 16;

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
    /// What it counted until then: that is in the past's numbers.
    dropped: u64,
    refused: u64,
    /// Until the sub-buffers' memory is given back: its consuming reader may still be looking at it.
    held: Option<Arc<Buffer>>,
}

impl Spent {
    fn give_back(&mut self) {
        if let Some(buffer) = self.held.take() {
            buffer.give_back();
        }
    }

    /// What it counted since.
    fn late(&self) -> Stats {
        let ring = self.mapping.ring();
        let writer = &ring.meta().writer;
        Stats {
            dropped_events: writer.dropped.load(Relaxed).wrapping_sub(self.dropped),
            commit_overrun: writer.refused.load(Relaxed).wrapping_sub(self.refused),
            ..Stats::default()
        }
    }
}

/// What the oldest buffer that is not spent says of those before it.
pub(crate) fn past_of(chain: &ChainWords) -> Stats {
    Stats {
        overrun: chain.overrun.load(Relaxed),
        read_events: chain.read.load(Relaxed),
        dropped_events: chain.dropped.load(Relaxed),
        commit_overrun: chain.refused.load(Relaxed),
        ..Stats::default()
    }
}

/// What there is to read of a CPU, and what was counted before.
#[derive(Clone, Debug)]
pub(crate) struct Unread {
    pub(crate) past: Stats,
    /// Retired, oldest first.
    pub(crate) older: VecDeque<Arc<Buffer>>,
    pub(crate) newest: Arc<Buffer>,
}

impl Lane {
    /// Buffers that nobody writes to.
    pub(crate) fn of(Unread { past, older, newest }: Unread) -> Self {
        Self::inherited(past, older, newest)
    }

    /// What there is to read at this moment.
    pub(crate) fn unread(&self) -> Unread {
        let chain = self.chain();
        Unread { past: chain.before(), older: chain.older.clone(), newest: Arc::clone(&chain.newest) }
    }

    pub(crate) fn new(newest: Arc<Buffer>) -> Self {
        Self::inherited(Stats::default(), VecDeque::new(), newest)
    }

    /// What a dead host left: the counters of the buffers that are no more, those to be read, and the one that is written.
    pub(crate) fn inherited(past: Stats, older: VecDeque<Arc<Buffer>>, newest: Arc<Buffer>) -> Self {
        let chain = Chain { past, spent: VecDeque::new(), older, newest, pending: None, told: None };
        chain.publish();
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

    /// See [`Host::renumber`](crate::Host::renumber).
    pub(crate) fn renumber(&self) -> Result<bool, HostError> {
        let chain = self.chain();
        // Of a ring that was replaced nothing moves any more, and a reader knows its pages by their numbers.
        if !chain.older.is_empty() || self.consumer.load(Relaxed) != 0 {
            return Ok(false);
        }
        chain.newest.renumber()
    }

    /// The buffer that is written.
    pub(crate) fn newest(&self) -> Arc<Buffer> {
        Arc::clone(&self.chain().newest)
    }

    /// Says to which set of its instance's buffers these belong.
    pub(crate) fn set_lineage(&self, lineage: u32) {
        let chain = self.chain();
        for buffer in chain.older.iter().chain([&chain.newest]) {
            buffer.set_rank(Rank { lineage, ..buffer.rank() });
        }
    }

    /// The memory of all buffers in which there are writers, or were: the oldest first.
    pub(crate) fn mappings(&self) -> Vec<Arc<Mapping>> {
        let chain = self.chain();
        chain.older.iter().chain([&chain.newest]).map(|buffer| Arc::clone(buffer.mapping())).collect()
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

    /// Says what is about to take the newest one's place.
    pub(crate) fn set_pending(&mut self, buffer: Arc<Buffer>) {
        // First, so that it is noted there who was told.
        self.newest.set_next(&buffer);
        self.pending = Some(buffer);
    }

    /// Nothing is about to take the newest one's place.
    pub(crate) fn forget_pending(&mut self) {
        self.pending = None;
    }

    pub(crate) fn is_pending(&self, buffer: &Arc<Buffer>) -> bool {
        self.pending.as_ref().is_some_and(|pending| Arc::ptr_eq(pending, buffer))
    }

    /// The buffer behind the file of the inode `known`, what is about to follow the newest included; that one itself where
    /// none follows; the oldest where it is none of these. 0: the newest.
    pub(crate) fn for_writer(&self, known: u64) -> &Arc<Buffer> {
        if known == 0 {
            return &self.newest;
        }
        let all: Vec<_> = self.older.iter().chain([&self.newest]).chain(&self.pending).collect();
        match all.iter().position(|buffer| buffer.file().inode() == known) {
            Some(at) => all.get(at + 1).unwrap_or(&all[at]),
            None => self.front(),
        }
    }

    /// Writes to the oldest buffer what was counted before it, for a successor.
    fn publish(&self) {
        let ring = self.front().mapping().ring();
        let chain = &ring.meta().chain;
        chain.overrun.store(self.past.overrun, Relaxed);
        chain.read.store(self.past.read_events, Relaxed);
        chain.dropped.store(self.past.dropped_events, Relaxed);
        chain.refused.store(self.past.commit_overrun, Relaxed);
        // S6: pairs with the Acquire in `Remains`. Who finds the mark finds the counters.
        chain.is_first.store(1, Release);
    }

    /// The oldest buffer to be read that was made after the one of this inode; the newest, where that is it.
    pub(crate) fn after(&self, known: u64) -> &Arc<Buffer> {
        // What is not found here was read or given up: all of these are later.
        match self.older.iter().position(|buffer| buffer.file().inode() == known) {
            Some(at) => self.older.get(at + 1).unwrap_or(&self.newest),
            None if self.newest.file().inode() == known => &self.newest,
            None => self.front(),
        }
    }

    /// The buffer that is read, for its consuming reader, who is through with the one that it had.
    pub(crate) fn tell(&mut self) -> Arc<Buffer> {
        let front = Arc::clone(self.front());
        self.told = Some(Arc::clone(&front));
        self.give_back();
        front
    }

    /// Gives back what nobody has to read any more: a reader that asks for more may not be through with the memory that
    /// it was told of.
    fn give_back(&mut self) {
        let told = self.told.as_ref();
        let is_told = |held: &Arc<Buffer>| told.is_some_and(|told| Arc::ptr_eq(told, held));
        for spent in &mut self.spent {
            if !spent.held.as_ref().is_some_and(is_told) {
                spent.give_back();
            }
        }
    }

    /// Another consuming reader begins.
    pub(crate) fn forget_reader(&mut self) {
        self.told = None;
    }

    /// Performs GET_READER on the buffer that is read, and goes on to the next one behind its end: the consuming reader,
    /// who finds nothing new and its buffer retired, asks for that one's memory.
    pub(crate) fn get_reader(&mut self) -> Result<Handed, Corrupt> {
        self.give_back();
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
            self.spend(front, self.told.is_some())?;
        }
        Ok(handed)
    }

    /// Puts `buffer` in the place of the newest, which was retired.
    pub(crate) fn replace(&mut self, buffer: Arc<Buffer>, has_consumer: bool) -> Result<(), Corrupt> {
        // First, whatever is wrong with those before it: the writers are there.
        self.pending = None;
        let old = std::mem::replace(&mut self.newest, buffer);
        self.older.push_back(Arc::clone(&old));
        let mut done = Ok(());
        while self.older.len() > 1
            && let Some(given_up) = self.older.pop_front()
        {
            done = self.spend(given_up, has_consumer).and(done);
        }
        // Whoever comes next need not be led through a ring that nobody reads and that has nothing to read.
        if !has_consumer && is_empty(&old)? {
            self.older.clear();
            done = self.spend(old, false).and(done);
        }
        done
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
        self.publish();
    }

    /// Forgets all but the counters of the oldest buffer, which was just taken off.
    fn spend(&mut self, buffer: Arc<Buffer>, is_held: bool) -> Result<(), Corrupt> {
        let stats = stats::of(&buffer.mapping().ring(), &buffer.reader(), 0)?;
        let overrun = stats.overrun.wrapping_add(stats.entries);
        self.past = self.past.and(Stats { overrun, entries: 0, bytes: 0, ..stats });
        // Before its memory goes: a host that dies in between leaves it to be counted, and read, once more.
        self.publish();
        let mapping = Arc::clone(buffer.mapping());
        let (dropped, refused) = (stats.dropped_events, stats.commit_overrun);
        let mut spent = Spent { mapping, dropped, refused, held: Some(buffer) };
        if !is_held {
            spent.give_back();
        }
        self.spent.push_back(spent);
        // Not the one that the reader has, however many came behind it.
        let is_told = |spent: &Spent| {
            spent.held.as_ref().zip(self.told.as_ref()).is_some_and(|(held, told)| Arc::ptr_eq(held, told))
        };
        if self.spent.len() > SPENT
            && let Some(at) = self.spent.iter().position(|spent| !is_told(spent))
            && let Some(mut oldest) = self.spent.remove(at)
        {
            oldest.give_back();
            self.past = self.past.and(oldest.late());
            self.publish();
        }
        Ok(())
    }

    /// The counters of the buffers that were read or given up.
    fn before(&self) -> Stats {
        self.spent.iter().fold(self.past, |all, spent| all.and(spent.late()))
    }

    /// All counters together.
    pub(crate) fn stats(&self, now_ts: u64) -> Result<Stats, Corrupt> {
        let mut all = self.before();
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

#[cfg(test)]
mod tests {
    use crate::{Config, Host, HostError};
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_damaged_ring_does_not_keep_the_next_one_from_its_place() {
        let host = Host::new(&Config { ring_subbufs: 4, ..Config::default() }).expect("memory");
        let writer = host.writer();
        let fill = || (0..200).for_each(|_| writer.write_array(&[7; 24]).expect("it is taken"));
        fill();
        let firsts = host.buffers();
        host.set_size(None, 8).expect("it can be resized");
        fill();
        for first in firsts {
            first.mapping().ring().meta().writer.tail.store(u64::MAX, Relaxed);
        }
        // Each time up to the first CPU that has one.
        let resized =
            (0..8).map(|round| host.set_size(None, 4 + round)).filter(Result::is_err).collect::<Vec<_>>();
        assert!(!resized.is_empty());
        assert!(resized.iter().all(|done| matches!(done, Err(HostError::Damaged(_)))), "{resized:?}");
        let written = || {
            host.cpus().iter().map(|&cpu| host.stats(cpu).expect("the rest is sound").written()).sum::<u64>()
        };
        let before = written();
        fill();
        assert_eq!(written(), before + 200);
    }
}
