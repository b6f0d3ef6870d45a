//! The host's side: rules become blocks in shared memory, and old blocks' memory is used again.

use super::block::{Hist, Rules, Trigger, block, read_program};
use super::decide::lower_half;
use super::error::RulesError;
use super::hist::{HistRow, HistTotals, Table};
use super::space::Space;
use ringtap_abi::rules::hist::Shape;
use ringtap_abi::rules::{
    self, BLOCKS, BlockHead, COUNTERS, Counter, HISTS, Head, INSTANCES, Kind, PAGE, PIDS, PidList, Region,
    ordering,
};
use rustix::thread::futex::{self, Timespec};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Somebody who has a region of rules mapped.
pub trait HasRegion {
    /// The region.
    fn region(&self) -> Region<'_>;
}

impl HasRegion for Region<'_> {
    fn region(&self) -> Region<'_> {
        *self
    }
}

/// Publishes rules. One host does, and only one at a time.
#[derive(Debug)]
pub struct Publisher<M> {
    memory: M,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: HashMap<u16, BTreeMap<u8, Rules>>,
    blocks: Space,
    hists: Space,
    /// Words of each histogram, by its place.
    hist_words: HashMap<u32, usize>,
    free_counters: Vec<u32>,
}

impl<M: HasRegion> Publisher<M> {
    /// Makes a region of memory that is all zeros.
    #[must_use]
    pub fn new(memory: M) -> Self {
        memory.region().initialise();
        Self { memory, state: Mutex::new(State::new()) }
    }

    /// Goes on where another host left off: its rules stay in force.
    ///
    /// # Errors
    /// Where the memory holds no rules. Events whose blocks are damaged have none from now on.
    pub fn adopt(memory: M) -> Result<Self, RulesError> {
        let publisher = Self { memory, state: Mutex::new(State::new()) };
        let region = publisher.region();
        if !region.is_valid() {
            return Err(RulesError::Foreign);
        }
        let mut state = publisher.lock();
        let mut counters = HashSet::new();
        for event in 0..=u16::MAX {
            if state.adopt(&region, event, &mut counters).is_none() {
                publish_head(&region, event, 0);
            }
        }
        state.free_counters.retain(|slot| !counters.contains(slot));
        drop(state);
        Ok(publisher)
    }

    /// The region that is published in.
    pub fn region(&self) -> Region<'_> {
        self.memory.region()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves room for blocks of so many words in all, so that they are used again at once.
    #[cfg(test)]
    pub(super) fn leave_words(&self, words: usize) {
        self.lock().blocks.take(BLOCKS - 1 - words).unwrap();
    }

    /// An event's rules in an instance.
    #[must_use]
    pub fn rules(&self, instance: usize, event: u16) -> Rules {
        let state = self.lock();
        let instance = u8::try_from(instance).unwrap_or(u8::MAX);
        state.rules.get(&event).and_then(|rules| rules.get(&instance)).cloned().unwrap_or_default()
    }

    /// Replaces an event's rules in an instance: all of them, or none where that fails. `mark` is told whether the
    /// event has rules in any instance, whether its word needs the RULES bit; no other change comes between.
    ///
    /// # Errors
    /// Where there is no room, or the rules are not valid.
    pub fn set(
        &self,
        instance: usize,
        event: u16,
        rules: Rules,
        mark: impl FnOnce(bool),
    ) -> Result<(), RulesError> {
        let bit = u8::try_from(instance).ok().filter(|bit| usize::from(*bit) < INSTANCES);
        let bit = bit.ok_or(RulesError::NoInstance(instance))?;
        let mut state = self.lock();
        let mut all = state.rules.get(&event).cloned().unwrap_or_default();
        if rules.is_empty() {
            all.remove(&bit)
        } else {
            all.insert(bit, rules)
        };
        let block = block(&all)?;
        let place = match &block[..] {
            [] => 0,
            block => state.blocks.take(block.len()).ok_or(RulesError::Full("the event's rules"))?,
        };
        let old = Head::unpack(self.region().head(event).load(Relaxed));
        // R2: pairs with the fence in `decide`: the head that named this memory was changed before.
        fence(ordering::reuse());
        for (word, new) in self.region().blocks()[place..].iter().zip(&block) {
            word.store(*new, Relaxed);
        }
        publish_head(&self.region(), event, place);
        if let Some(words) = state.blocks.taken(old.place as usize) {
            state.blocks.give(old.place as usize, words);
        }
        mark(!all.is_empty());
        if all.is_empty() {
            state.rules.remove(&event);
        } else {
            state.rules.insert(event, all);
        }
        Ok(())
    }

    /// The events that have rules in an instance.
    #[must_use]
    pub fn events(&self, instance: usize) -> Vec<u16> {
        let bit = u8::try_from(instance).unwrap_or(u8::MAX);
        let state = self.lock();
        let with = state.rules.iter().filter(|(_, rules)| rules.contains_key(&bit));
        with.map(|(event, _)| *event).collect()
    }

    /// Tells `mark` whether the event has rules in any instance; no change comes between.
    pub fn mark(&self, event: u16, mark: impl FnOnce(bool)) {
        mark(self.lock().rules.contains_key(&event));
    }

    /// Makes a counter.
    ///
    /// # Errors
    /// Where there are too many.
    pub fn new_counter(&self, count: u32) -> Result<Counter, RulesError> {
        let slot = self.lock().free_counters.pop().ok_or(RulesError::Full("counted triggers"))?;
        let word = self.region().counter(slot).ok_or(RulesError::Full("counted triggers"))?;
        let generation = Counter::unpack(word.load(Relaxed)).generation.wrapping_add(1);
        // Its lower half is what is left.
        word.store(Counter { slot: count, generation }.pack(), Relaxed);
        Ok(Counter { slot, generation })
    }

    /// How often the counter's trigger may still act.
    #[must_use]
    pub fn left(&self, counter: Counter) -> u32 {
        let word = self.region().counter(counter.slot).map(|word| Counter::unpack(word.load(Relaxed)));
        word.filter(|word| word.generation == counter.generation).map_or(0, |word| word.slot)
    }

    /// Forgets a counter that no rules have any more.
    pub fn free_counter(&self, counter: Counter) {
        let Some(word) = self.region().counter(counter.slot) else { return };
        if Counter::unpack(word.load(Relaxed)).generation == counter.generation {
            let generation = counter.generation.wrapping_add(1);
            word.store(Counter { slot: 0, generation }.pack(), Relaxed);
            self.lock().free_counters.push(counter.slot);
        }
    }

    /// Makes an empty histogram.
    ///
    /// # Errors
    /// Where it is not possible, or there is no room.
    pub fn new_hist(&self, shape: &Shape) -> Result<Hist, RulesError> {
        if !shape.is_sane() {
            return Err(RulesError::Shape);
        }
        let words = shape.layout().words();
        let mut state = self.lock();
        let place = state.hists.take(words).ok_or(RulesError::Full("a histogram"))?;
        let head = shape.pack().into_iter().chain(std::iter::repeat(0));
        let head_and_slots = shape.layout().element(0);
        for (word, new) in self.region().hists()[place..place + head_and_slots].iter().zip(head) {
            word.store(new, Relaxed);
        }
        let hist = Hist(u32::try_from(place).map_err(|_| RulesError::Full("a histogram"))?);
        state.hist_words.insert(hist.0, words);
        Ok(hist)
    }

    /// Forgets a histogram that no rules have any more. Its memory is used again as late as possible: a writer that was
    /// stopped while it counted could else spoil another one's sums.
    pub fn free_hist(&self, hist: Hist) {
        let mut state = self.lock();
        let Some(words) = state.hist_words.remove(&hist.0) else { return };
        let place = hist.0 as usize;
        let memory = &self.region().hists()[place..place + words];
        memory[0].store(0, Relaxed);
        give_back_memory(memory);
        state.hists.give(place, words);
    }

    /// What a histogram holds, while writers may go on.
    #[must_use]
    pub fn read_hist(&self, hist: Hist) -> (Vec<HistRow>, HistTotals) {
        let table = Table::at(&self.region(), hist.0 as usize);
        table.map(|table| table.read()).unwrap_or_default()
    }

    /// Replaces an instance's list of pids; `None` stands for no list.
    ///
    /// # Errors
    /// Where there is no such instance, or no thread can have such a pid.
    pub fn set_pids(&self, instance: usize, list: PidList, pids: Option<&[u32]>) -> Result<(), RulesError> {
        check_pids(instance, pids.unwrap_or_default())?;
        // Without a list everybody is recorded, or nobody kept out: never is a list in force that is half there.
        let active = self.region().pid_lists(list);
        active.fetch_and(!(1 << instance), Relaxed);
        self.region().clear_pids(instance, list);
        if let Some(pids) = pids {
            pids.iter().for_each(|pid| _ = self.region().add_pid(instance, list, *pid));
            // R1: pairs with the Acquire in `ignored`: the list is there.
            active.fetch_or(1 << instance, ordering::publish());
        }
        Ok(())
    }

    /// Adds to an instance's list of pids, which is in force all the while; `Ok(false)` where there is none.
    ///
    /// # Errors
    /// As [`set_pids`](Self::set_pids).
    pub fn add_pids(&self, instance: usize, list: PidList, pids: &[u32]) -> Result<bool, RulesError> {
        check_pids(instance, pids)?;
        let is_active = self.region().pid_lists(list).load(Relaxed) >> instance & 1 == 1;
        if is_active {
            pids.iter().for_each(|pid| _ = self.region().add_pid(instance, list, *pid));
        }
        Ok(is_active)
    }

    /// An instance's list of pids, in ascending order.
    #[must_use]
    pub fn pids(&self, instance: usize, list: PidList) -> Option<Vec<u32>> {
        let is_active =
            instance < INSTANCES && self.region().pid_lists(list).load(Relaxed) >> instance & 1 == 1;
        is_active.then(|| {
            let mut pids = Vec::new();
            self.region().list_pids(instance, list, |pid| pids.push(pid));
            pids
        })
    }

    /// The instances of which writers asked for snapshots, as bits; they are asked for no more. Waits for the first at
    /// most this long.
    pub fn wait_for_snapshot_requests(&self, timeout: Duration) -> u64 {
        let deadline = Instant::now() + timeout;
        let region = self.region();
        let (word, requests) = (region.snapshots(), lower_half(region.requests()));
        loop {
            // SeqCst: see `request_snapshot`.
            let seen = requests.load(SeqCst);
            let asked = word.swap(0, SeqCst);
            let left = deadline.saturating_duration_since(Instant::now());
            if asked != 0 || left.is_zero() {
                return asked;
            }
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            // Woken, timed out or not gone to sleep: what counts is the next look.
            let _ = futex::wait(requests, futex::Flags::empty(), seen, Some(&left));
        }
    }
}

fn check_pids(instance: usize, pids: &[u32]) -> Result<(), RulesError> {
    if instance >= INSTANCES {
        return Err(RulesError::NoInstance(instance));
    }
    pids.iter().find(|pid| **pid >= PIDS).map_or(Ok(()), |pid| Err(RulesError::Pid(*pid)))
}

/// Tells the kernel that shared memory holds nothing any more. Where it does not care, the memory stays as it is.
fn give_back_memory(words: &[ringtap_abi::sync::AtomicU64]) {
    // SAFETY: the words are atomics, of which any values are valid, and nobody relies on what these hold.
    unsafe { libc::madvise(words.as_ptr().cast_mut().cast(), size_of_val(words), libc::MADV_REMOVE) };
}

/// Makes an event's head name another block.
fn publish_head(region: &Region<'_>, event: u16, place: usize) {
    let head = region.head(event);
    let old = Head::unpack(head.load(Relaxed));
    if old.place == 0 && place == 0 {
        return;
    }
    let place = u32::try_from(place).unwrap_or(0);
    // R1: pairs with the Acquire in `decide`: the block comes with its head.
    head.store(Head { place, version: old.version.wrapping_add(1) }.pack(), ordering::publish());
}

impl State {
    fn new() -> Self {
        Self {
            rules: HashMap::new(),
            // Place 0 stands for no block.
            blocks: Space::new(1..BLOCKS),
            hists: Space::new(0..HISTS),
            hist_words: HashMap::new(),
            free_counters: (0..u32::try_from(COUNTERS).unwrap_or(0)).rev().collect(),
        }
    }

    /// Takes an event's block over; `None` where it is damaged. Its words are taken first, so that each is looked at once,
    /// whatever the heads say; those of a damaged block are never used again.
    fn adopt(&mut self, region: &Region<'_>, event: u16, counters: &mut HashSet<u32>) -> Option<()> {
        let place = Head::unpack(region.head(event).load(Relaxed)).place as usize;
        if place == 0 {
            return Some(());
        }
        let blocks = region.blocks();
        let words = BlockHead::unpack(blocks.get(place)?.load(Relaxed))?.words as usize;
        self.blocks.take_at(place, words).then_some(())?;
        let mut all = BTreeMap::new();
        for section in rules::sections(blocks, place) {
            let section = section.ok()?;
            let filter = read_program(blocks, section.filter);
            let mut triggers = Vec::new();
            for trigger in rules::triggers(blocks, &section) {
                let trigger = trigger.ok()?;
                counters.extend(trigger.counter.map(|counter| counter.slot));
                self.adopt_hist(region, &trigger)?;
                triggers.push(Trigger::read(blocks, &trigger));
            }
            all.insert(section.head.instance, Rules { filter, triggers });
        }
        // Written as a host would write it, it is as long: there is nothing in it that was not understood.
        (block(&all).ok()?.len() == words).then_some(())?;
        self.rules.insert(event, all);
        Some(())
    }

    /// Takes the histogram of a trigger over, where it has one; `None` where there can be none.
    fn adopt_hist(&mut self, region: &Region<'_>, trigger: &rules::Trigger) -> Option<()> {
        if trigger.head.kind == Kind::Hist && !self.hist_words.contains_key(&trigger.hist) {
            let place = trigger.hist as usize;
            let words = Shape::unpack(region.hists().get(place..)?, 0)?.layout().words();
            self.hists.take_at(place, words).then_some(())?;
            self.hist_words.insert(trigger.hist, words);
        }
        Some(())
    }
}

const _: () = assert!(HISTS.is_multiple_of(PAGE), "histograms are whole pages");
