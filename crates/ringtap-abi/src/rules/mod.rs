//! The rules of events: filters, triggers, lists of pids, histograms, in one region of shared memory.
//!
//! ```text
//!   words       what                                          who writes it
//!   ----------  --------------------------------------------  ---------------------------------------------
//!   HEAD        what is active, requests to the host          host; writers add requests
//!   COUNTERS    how often counted triggers may still act      host makes them, writers count down
//!   HEADS       one word an event id: where its block is      host
//!   BLOCKS      each event's rules in all instances           host, never in place while a head names them
//!   PIDS        two bitmaps an instance, one bit a pid        host; a process adds its children where it is told to
//!   HISTS       histograms, one after the other               host makes them, writers fill them (see [`hist`])
//! ```
//!
//! **A block** is found through its event's head {place:32, version:32} and looks like this:
//!
//! ```text
//!   block    {words:32, sections:8, MAGIC:16}
//!   section  {words:32, triggers:16, instance:8, flags:8}      one for each instance that has rules for the event
//!              the filter's program (if flags say so)
//!   trigger  {words:32, event:16, kind:8, flags:8}             one for each trigger
//!              {generation:32, slot:32} of its counter (if flags say so)
//!              the histogram's place (of that kind)
//!              its filter's program (if flags say so)
//! ```
//!
//! **Changing rules** waits for nobody. The host writes a new block into memory that no head names, stores the head
//! with another version (edge R1), and may use the old block's memory for something else at once. A writer
//! therefore first decides, without effect, then looks at the head again (edge R2): the same head means that
//! what it read was the event's block, else it starts over. Only then does it act. So neither a writer that is
//! killed, nor one that is stopped for an hour, holds anybody up.
//!
//! **A counter** {generation:32, left:32} is counted down by compare-exchange and only in its own generation, so a
//! writer that was stopped in between does no harm to the counter's next owner.
//!
//! **Trust.** Everything here is an allegation; whoever evaluates a block checks what it reads and does a bounded
//! amount of work.

pub mod hist;

use crate::predicate::{self, Damaged, Words};
use crate::sync::AtomicU64;
use core::sync::atomic::Ordering::{self, Relaxed};

/// Says what this is: "rtrules\0", read as a little-endian number.
pub const MAGIC: u64 = 0x0073_656c_7572_7472;
/// The layout described here. Another number is refused.
pub const VERSION: u64 = 1;

/// Instances that can have rules: the bits of an event's word but the last.
pub const INSTANCES: usize = 63;
/// Pids that a list can hold: the kernel's `PID_MAX_LIMIT`.
pub const PIDS: u32 = 1 << 22;
/// Triggers of one event, in all instances: what one decision can call for.
pub const MAX_TRIGGERS: usize = 64;
/// Longest block, in words: 128 KiB.
pub const MAX_BLOCK: u32 = 1 << 14;

/// Words of a page.
pub const PAGE: usize = 512;
/// Words of one list of pids.
const PID_LIST: usize = PIDS as usize / 64;
/// Pages of one list: each has a bit that says whether it was ever written to, since looking at one that was not would
/// give it memory.
const PID_PAGES: usize = PID_LIST / PAGE;

const HEAD: usize = 0;
const COUNTERS_START: usize = HEAD + PAGE;
/// Counters of triggers.
pub const COUNTERS: usize = 8192;
const HEADS_START: usize = COUNTERS_START + COUNTERS;
const HEADS: usize = 1 << 16;
const BLOCKS_START: usize = HEADS_START + HEADS;
/// Words of all blocks: 4 MiB. The first is never used: place 0 means that there is no block.
pub const BLOCKS: usize = 1 << 19;
const PIDS_START: usize = BLOCKS_START + BLOCKS;
const HISTS_START: usize = PIDS_START + 2 * INSTANCES * PID_LIST;
/// Words of all histograms: 128 MiB.
pub const HISTS: usize = 1 << 24;

/// Words of the region. What is not used takes no memory.
pub const WORDS: usize = HISTS_START + HISTS;
/// Bytes of the region.
pub const LEN: usize = WORDS * size_of::<u64>();

const _: () = assert!(LEN.is_multiple_of(4096) && HISTS_START.is_multiple_of(PAGE));

crate::edges! {
    /// R1: the host publishes a block.
    r1_publish: Release;
    /// R1: a writer finds it.
    r1_find: Acquire;
    /// R2: the host reuses a block's memory: between the head that no longer names it and the new words.
    r2_reuse: Release;
    /// R2: a writer looks at the head again, behind the words it read.
    r2_recheck: Acquire;
    /// R3: a writer publishes a histogram's element.
    r3_publish: Release;
    /// R3: others find it.
    r3_find: Acquire;
}

/// Where a counter is, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counter {
    /// Its place among the counters.
    pub slot: u32,
    /// Counts the owners that its place had.
    pub generation: u32,
}

impl Counter {
    /// To its word in a block.
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// From its word.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    pub const fn unpack(word: u64) -> Self {
        Self { slot: word as u32, generation: (word >> 32) as u32 }
    }
}

/// What a trigger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `traceon`: recording is switched on.
    TraceOn = 1,
    /// `traceoff`: recording is switched off.
    TraceOff,
    /// `snapshot`: the host is asked for one.
    Snapshot,
    /// `stacktrace`: the thread's stack is recorded behind the event.
    Stacktrace,
    /// `enable_event`: another event is switched on.
    EnableEvent,
    /// `disable_event`: another event is switched off.
    DisableEvent,
    /// `hist`: the event is added to a histogram.
    Hist,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::TraceOn,
        Self::TraceOff,
        Self::Snapshot,
        Self::Stacktrace,
        Self::EnableEvent,
        Self::DisableEvent,
        Self::Hist,
    ];

    fn of_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// Whether it needs the record: then all triggers of the event act behind it, as in the kernel.
    #[must_use]
    pub const fn needs_record(self) -> bool {
        matches!(self, Self::Stacktrace | Self::Hist)
    }
}

const FILTER: u64 = 1;
const COUNTED: u64 = 2;
const PAUSED: u64 = 4;
const BEHIND: u64 = 8;
const BLOCK_MAGIC: u64 = 0xb10c;

/// A block's first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHead {
    /// Words in all, this one included.
    pub words: u32,
    /// Sections.
    pub sections: u8,
}

impl BlockHead {
    /// To the word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.words as u64) << 32 | (self.sections as u64) << 16 | BLOCK_MAGIC
    }

    /// From the word, if it is one.
    #[must_use]
    pub fn unpack(word: u64) -> Option<Self> {
        let [m0, m1, sections, _, words @ ..] = word.to_le_bytes();
        let head = Self { words: u32::from_le_bytes(words), sections };
        let is_one = u64::from(u16::from_le_bytes([m0, m1])) == BLOCK_MAGIC;
        (is_one && head.words <= MAX_BLOCK && usize::from(sections) <= INSTANCES).then_some(head)
    }
}

/// A section's first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionHead {
    /// Words in all, this one included.
    pub words: u32,
    /// Triggers.
    pub triggers: u16,
    /// The instance.
    pub instance: u8,
    /// Whether a filter follows.
    pub has_filter: bool,
    /// Whether its triggers act behind the record: one of them has a filter, or needs the record.
    pub acts_behind: bool,
}

impl SectionHead {
    /// To the word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        let filter = if self.has_filter { FILTER } else { 0 };
        let behind = if self.acts_behind { BEHIND } else { 0 };
        let flags = filter | behind;
        (self.words as u64) << 32 | (self.triggers as u64) << 16 | (self.instance as u64) << 8 | flags
    }

    fn unpack(word: u64) -> Option<Self> {
        let [flags, instance, low, high, words @ ..] = word.to_le_bytes();
        let head = Self {
            words: u32::from_le_bytes(words),
            triggers: u16::from_le_bytes([low, high]),
            instance,
            has_filter: u64::from(flags) & FILTER != 0,
            acts_behind: u64::from(flags) & BEHIND != 0,
        };
        let is_sane = usize::from(head.triggers) <= MAX_TRIGGERS && usize::from(instance) < INSTANCES;
        is_sane.then_some(head)
    }
}

/// A trigger's first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TriggerHead {
    /// Words in all, this one included.
    pub words: u32,
    /// The event that it switches; 0 for other kinds.
    pub event: u16,
    /// What it does.
    pub kind: Kind,
    /// Whether a filter follows.
    pub has_filter: bool,
    /// Whether a counter follows.
    pub is_counted: bool,
    /// Whether it does nothing for the present.
    pub is_paused: bool,
}

impl TriggerHead {
    /// To the word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        let filter = if self.has_filter { FILTER } else { 0 };
        let counted = if self.is_counted { COUNTED } else { 0 };
        let paused = if self.is_paused { PAUSED } else { 0 };
        (self.words as u64) << 32
            | (self.event as u64) << 16
            | (self.kind as u64) << 8
            | filter
            | counted
            | paused
    }

    fn unpack(word: u64) -> Option<Self> {
        let [flags, kind, low, high, words @ ..] = word.to_le_bytes();
        let flags = u64::from(flags);
        Some(Self {
            words: u32::from_le_bytes(words),
            event: u16::from_le_bytes([low, high]),
            kind: Kind::of_code(kind)?,
            has_filter: flags & FILTER != 0,
            is_counted: flags & COUNTED != 0,
            is_paused: flags & PAUSED != 0,
        })
    }
}

/// A section, found in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its first word.
    pub head: SectionHead,
    /// Where its filter's program begins.
    pub filter: Option<usize>,
    /// Where its triggers begin.
    triggers: usize,
    /// Where it ends.
    end: usize,
}

/// A trigger, found in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its first word.
    pub head: TriggerHead,
    /// Its counter.
    pub counter: Option<Counter>,
    /// The histogram's place; 0 for other kinds.
    pub hist: u32,
    /// Where its filter's program begins.
    pub filter: Option<usize>,
}

/// Goes through words from `at` to `end`.
struct Walk<'w, W: ?Sized> {
    words: &'w W,
    at: usize,
    end: usize,
}

impl<W: Words + ?Sized> Walk<'_, W> {
    fn word(&mut self) -> Option<u64> {
        let word = (self.at < self.end).then(|| self.words.word(self.at))??;
        self.at += 1;
        Some(word)
    }

    /// Steps over a program, and says where it began.
    fn program(&mut self) -> Option<usize> {
        let start = self.at;
        let header = predicate::Header::unpack(self.word()?)?;
        self.at = start + header.words as usize;
        (self.at <= self.end).then_some(start)
    }

    /// Where something of this length ends that began at `start`, if that is not behind the end.
    fn until(&self, start: usize, words: u32) -> Option<usize> {
        start.checked_add(words as usize).filter(|end| *end <= self.end)
    }

    fn section(&mut self) -> Option<Section> {
        let start = self.at;
        let head = SectionHead::unpack(self.word()?)?;
        let end = self.until(start, head.words)?;
        let filter = if head.has_filter { Some(self.program()?) } else { None };
        let section = Section { head, filter, triggers: self.at, end };
        (self.at <= end).then(|| self.at = end).map(|()| section)
    }

    fn trigger(&mut self) -> Option<Trigger> {
        let start = self.at;
        let head = TriggerHead::unpack(self.word()?)?;
        let end = self.until(start, head.words)?;
        let counter = if head.is_counted { Some(Counter::unpack(self.word()?)) } else { None };
        let hist = if head.kind == Kind::Hist { u32::try_from(self.word()?).ok()? } else { 0 };
        let filter = if head.has_filter { Some(self.program()?) } else { None };
        let trigger = Trigger { head, counter, hist, filter };
        (self.at == end).then_some(trigger)
    }
}

/// The sections of the block at `place`. What is not one ends them with [`Damaged`].
pub fn sections<W: Words + ?Sized>(
    words: &W,
    place: usize,
) -> impl Iterator<Item = Result<Section, Damaged>> + '_ {
    let mut walk = Walk { words, at: place, end: place.saturating_add(1) };
    let head = walk.word().and_then(BlockHead::unpack);
    walk.end = place.saturating_add(head.map_or(0, |head| head.words as usize));
    let mut left = head.map_or(0, |head| head.sections);
    let mut damaged = head.is_none();
    core::iter::from_fn(move || {
        if damaged {
            damaged = false;
            return Some(Err(Damaged));
        }
        left = left.checked_sub(1)?;
        let section = walk.section().ok_or(Damaged);
        if section.is_err() {
            left = 0;
        }
        Some(section)
    })
}

/// The triggers of a section of the block that lies in these words. What is not one ends them with [`Damaged`].
pub fn triggers<'w, W: Words + ?Sized>(
    words: &'w W,
    section: &Section,
) -> impl Iterator<Item = Result<Trigger, Damaged>> + use<'w, W> {
    let mut walk = Walk { words, at: section.triggers, end: section.end };
    let mut left = section.head.triggers;
    core::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let trigger = walk.trigger().ok_or(Damaged);
        if trigger.is_err() {
            left = 0;
        }
        Some(trigger)
    })
}

/// Where an event's block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its place among the blocks; 0 where the event has no rules.
    pub place: u32,
    /// Another one with each change.
    pub version: u32,
}

impl Head {
    /// To the word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.version as u64) << 32 | self.place as u64
    }

    /// From the word.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    pub const fn unpack(word: u64) -> Self {
        Self { place: word as u32, version: (word >> 32) as u32 }
    }
}

/// Which of an instance's two lists of pids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidList {
    /// `set_event_pid`: only these are recorded.
    Only,
    /// `set_event_notrace_pid`: these are not.
    Not,
}

/// The region, mapped.
#[derive(Clone, Copy, Debug)]
pub struct Region<'m> {
    words: &'m [AtomicU64],
}

/// Places of the head's words.
mod place {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 1;
    /// Instances whose list of this kind is in force: bit i for instance i.
    pub(super) const PIDS_ONLY: usize = 8;
    pub(super) const PIDS_NOT: usize = 9;
    /// Instances whose lists follow forks.
    pub(super) const FOLLOWS_FORKS: usize = 10;
    /// Instances of which a snapshot is asked for.
    pub(super) const SNAPSHOTS: usize = 16;
    /// Counts requests; the host sleeps on its lower half.
    pub(super) const REQUESTS: usize = 17;
    /// Bits of the pages of all lists, [`super::PID_PAGES`] a list.
    pub(super) const PID_PAGES: usize = 64;
}

const _: () = assert!(place::PID_PAGES + 2 * INSTANCES * PID_PAGES / 64 <= PAGE);

impl<'m> Region<'m> {
    /// The region that these words are; `None` where they are too few.
    #[must_use]
    pub fn new(words: &'m [AtomicU64]) -> Option<Self> {
        words.get(..WORDS).map(|words| Self { words })
    }

    /// Marks memory that is all zeros as a region.
    pub fn initialise(&self) {
        self.words[place::MAGIC].store(MAGIC, Relaxed);
        self.words[place::VERSION].store(VERSION, Relaxed);
    }

    /// Whether it is a region of this version.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.words[place::MAGIC].load(Relaxed) == MAGIC && self.words[place::VERSION].load(Relaxed) == VERSION
    }

    /// The word of an event: a [`Head`].
    #[must_use]
    #[inline]
    pub fn head(&self, event: u16) -> &'m AtomicU64 {
        &self.words[HEADS_START + usize::from(event)]
    }

    /// All blocks' words.
    #[must_use]
    #[inline]
    pub fn blocks(&self) -> &'m [AtomicU64] {
        &self.words[BLOCKS_START..PIDS_START]
    }

    /// All histograms' words.
    #[must_use]
    #[inline]
    pub fn hists(&self) -> &'m [AtomicU64] {
        &self.words[HISTS_START..]
    }

    /// The word of a counter.
    #[must_use]
    pub fn counter(&self, slot: u32) -> Option<&'m AtomicU64> {
        self.words[COUNTERS_START..HEADS_START].get(slot as usize)
    }

    /// The instances whose lists of this kind are in force, as bits.
    #[must_use]
    #[inline]
    pub fn pid_lists(&self, list: PidList) -> &'m AtomicU64 {
        match list {
            PidList::Only => &self.words[place::PIDS_ONLY],
            PidList::Not => &self.words[place::PIDS_NOT],
        }
    }

    /// Whether any instance has a list of pids in force.
    #[must_use]
    pub fn has_pid_lists(&self) -> bool {
        [PidList::Only, PidList::Not].iter().any(|list| self.pid_lists(*list).load(Relaxed) != 0)
    }

    /// The words that hold a page of an instance's list, and the word and bit that say whether it is in use.
    fn pid_page(&self, instance: usize, list: PidList, page: usize) -> (&'m [AtomicU64], &'m AtomicU64, u64) {
        let page = (2 * instance + usize::from(list == PidList::Not)) * PID_PAGES + page;
        let start = PIDS_START + page * PAGE;
        let bits = &self.words[place::PID_PAGES + page / 64];
        (&self.words[start..start + PAGE], bits, 1 << (page % 64))
    }

    /// Whether a pid is in an instance's list.
    ///
    /// # Panics
    /// Where there is no such instance.
    #[must_use]
    #[inline]
    pub fn has_pid(&self, instance: usize, list: PidList, pid: u32) -> bool {
        let Some((page, nth)) = pid_place(pid) else { return false };
        let (words, in_use, bit) = self.pid_page(instance, list, page);
        in_use.load(Relaxed) & bit != 0 && words[nth].load(Relaxed) >> (pid % 64) & 1 == 1
    }

    /// Puts a pid into an instance's list; false where no thread can have it.
    ///
    /// # Panics
    /// Where there is no such instance.
    pub fn add_pid(&self, instance: usize, list: PidList, pid: u32) -> bool {
        let Some((page, nth)) = pid_place(pid) else { return false };
        let (words, in_use, bit) = self.pid_page(instance, list, page);
        words[nth].fetch_or(1 << (pid % 64), Relaxed);
        in_use.fetch_or(bit, Relaxed);
        true
    }

    /// The instances whose lists follow forks, as bits: who is forked by a thread of a list is put into it, and who ends
    /// is taken out.
    #[must_use]
    pub fn follows_forks(&self) -> &'m AtomicU64 {
        &self.words[place::FOLLOWS_FORKS]
    }

    /// The lists that follow forks and are in force.
    fn followed(&self) -> impl Iterator<Item = (usize, PidList)> {
        let follows = self.follows_forks().load(Relaxed);
        [PidList::Only, PidList::Not].into_iter().flat_map(move |list| {
            let lists = self.pid_lists(list).load(Relaxed) & follows;
            (0..INSTANCES).filter(move |instance| lists >> instance & 1 == 1).map(move |at| (at, list))
        })
    }

    /// A thread was made by another: it is in the lists that follow forks and have that one. May be said more than once,
    /// in a signal handler, too.
    pub fn forked(&self, parent: u32, child: u32) {
        for (instance, list) in self.followed() {
            if self.has_pid(instance, list, parent) {
                self.add_pid(instance, list, child);
            }
        }
    }

    /// A thread ended: it is in no list that follows forks any more.
    pub fn ended(&self, pid: u32) {
        for (instance, list) in self.followed() {
            let Some((page, nth)) = pid_place(pid) else { return };
            let (words, in_use, bit) = self.pid_page(instance, list, page);
            if in_use.load(Relaxed) & bit != 0 {
                words[nth].fetch_and(!(1 << (pid % 64)), Relaxed);
            }
        }
    }

    /// Takes all pids out of an instance's list.
    ///
    /// # Panics
    /// Where there is no such instance.
    pub fn clear_pids(&self, instance: usize, list: PidList) {
        for page in 0..PID_PAGES {
            let (words, in_use, bit) = self.pid_page(instance, list, page);
            if in_use.fetch_and(!bit, Relaxed) & bit != 0 {
                words.iter().for_each(|word| word.store(0, Relaxed));
            }
        }
    }

    /// The pids of an instance's list, in ascending order.
    ///
    /// # Panics
    /// Where there is no such instance.
    pub fn list_pids(&self, instance: usize, list: PidList, mut found: impl FnMut(u32)) {
        for page in 0..PID_PAGES {
            let (words, in_use, bit) = self.pid_page(instance, list, page);
            if in_use.load(Relaxed) & bit == 0 {
                continue;
            }
            for (nth, word) in (page * PAGE..).zip(words) {
                let word = word.load(Relaxed);
                let set = (0..64).filter(|bit| word >> bit & 1 == 1);
                set.filter_map(|bit| u32::try_from(nth * 64 + bit).ok()).for_each(&mut found);
            }
        }
    }

    /// The instances of which snapshots are asked for, as bits.
    #[must_use]
    pub fn snapshots(&self) -> &'m AtomicU64 {
        &self.words[place::SNAPSHOTS]
    }

    /// Counts requests to the host, which sleeps on its lower half.
    #[must_use]
    pub fn requests(&self) -> &'m AtomicU64 {
        &self.words[place::REQUESTS]
    }

    /// Counts a trigger's counter down; false where it has run out, or is another trigger's by now.
    #[must_use]
    pub fn count_down(&self, counter: Counter) -> bool {
        let Some(word) = self.counter(counter.slot) else { return false };
        let next = |word| {
            let now = Counter::unpack(word);
            // The lower half is what is left.
            let left = now.slot.checked_sub(1)?;
            (now.generation == counter.generation).then(|| Counter { slot: left, ..now }.pack())
        };
        // Relaxed: the count alone is what matters.
        word.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

/// The page of a list that holds a pid, and the word in it.
#[inline]
const fn pid_place(pid: u32) -> Option<(usize, usize)> {
    let word = pid as usize / 64;
    if pid < PIDS { Some((word / PAGE, word % PAGE)) } else { None }
}

/// What walking a block promises of any words: it ends, without a panic, within the words.
pub fn check_rules(words: &[u64], payload: &[u8]) {
    let subject = predicate::Subject { payload, cpu: 0, comm: &|| [0; 16] };
    for place in [0, 1, words.len() / 2] {
        let mut seen = 0usize;
        for section in sections(words, place).flatten() {
            let filters = section.filter.into_iter();
            let triggers = triggers(words, &section).flatten();
            for filter in filters.chain(triggers.filter_map(|trigger| trigger.filter)) {
                assert!(filter < words.len(), "the program at {filter} lies outside");
                let _ = predicate::evaluate_at(words, filter, &subject);
            }
            seen += 1;
        }
        assert!(seen <= INSTANCES);
    }
    hist::check_hist(words, payload);
}

/// What orderings the two sides of each edge ask for, for those who publish and evaluate.
pub mod ordering {
    use super::Ordering;

    macro_rules! public {
        ($($(#[doc = $doc:literal])+ $name:ident = $inner:ident;)+) => {$(
            $(#[doc = $doc])+
            #[inline(always)]
            #[must_use]
            pub fn $name() -> Ordering {
                super::$inner()
            }
        )+};
    }

    public! {
        /// R1, the host.
        publish = r1_publish;
        /// R1, a writer.
        find = r1_find;
        /// R2, the host's fence.
        reuse = r2_reuse;
        /// R2, a writer's fence.
        recheck = r2_recheck;
        /// R3, who inserts.
        insert = r3_publish;
        /// R3, who looks up.
        look_up = r3_find;
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
