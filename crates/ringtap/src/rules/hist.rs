//! Histograms: a writer's insertion, which may be killed anywhere, and the host's reading meanwhile.

use super::stack;
use crate::clock;
use ringtap_abi::predicate::{COMM_LEN, Field, Source, Subject, until_nul};
use ringtap_abi::rules::hist::{Layout, MAX_KEY_WORDS, Part, STACK_DEPTH, Shape, Slot, hash, place};
use ringtap_abi::rules::{Region, ordering};
use ringtap_abi::sync::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Slots that are looked at for one key; the table is never more than about half full.
const PROBES: usize = 1024;

/// A histogram in shared memory.
#[derive(Clone, Copy)]
pub(super) struct Table<'m> {
    words: &'m [AtomicU64],
    shape: Shape,
    layout: Layout,
}

impl<'m> Table<'m> {
    /// The histogram at a place, if there is one.
    pub(super) fn at(region: &Region<'m>, start: usize) -> Option<Self> {
        let words = region.hists().get(start..)?;
        let shape = Shape::unpack(words, 0)?;
        let layout = shape.layout();
        Some(Self { words: words.get(..layout.words())?, shape, layout })
    }

    fn word(&self, at: usize) -> &'m AtomicU64 {
        &self.words[at]
    }

    /// Counts the event. False where there is no room for its key.
    fn add(&self, subject: &Subject<'_>) -> bool {
        let mut words = [0; MAX_KEY_WORDS];
        let key = key(&self.shape, subject, &mut words);
        let Some(element) = self.find_or_insert(key, subject) else { return false };
        let at = self.layout.element(element as usize);
        // Relaxed: sums, of which nobody expects that they belong together.
        self.word(at).fetch_add(1, Relaxed);
        for (nth, value) in self.shape.values.iter().flatten().enumerate() {
            self.word(at + 1 + nth).fetch_add(number(value, subject), Relaxed);
        }
        true
    }

    fn find_or_insert(&self, key: &[u64], subject: &Subject<'_>) -> Option<u32> {
        let hash = hash(key);
        let mut ours = None;
        for probe in 0..PROBES.min(self.layout.slots) {
            let slot = self.word(self.layout.slot((hash as usize).wrapping_add(probe)));
            // R3: pairs with the Release below: the element's key comes with its slot.
            let mut word = slot.load(ordering::look_up());
            if word == 0 {
                let element = match ours {
                    Some(element) => element,
                    None => self.take(key, subject)?,
                };
                ours = Some(element);
                // R3: pairs with the Acquire above.
                let new = Slot { hash, element }.pack();
                match slot.compare_exchange(0, new, ordering::insert(), ordering::look_up()) {
                    Ok(_) => return Some(element),
                    Err(theirs) => word = theirs,
                }
            }
            let found = Slot::unpack(word, &self.layout).filter(|slot| slot.hash == hash);
            if let Some(found) = found.filter(|slot| self.has_key(slot.element, key)) {
                self.give_back(ours);
                return Some(found.element);
            }
        }
        self.give_back(ours);
        None
    }

    fn has_key(&self, element: u32, key: &[u64]) -> bool {
        let at = self.layout.element(element as usize) + self.layout.key;
        key.iter().enumerate().all(|(nth, word)| self.word(at + nth).load(Relaxed) == *word)
    }

    /// Takes an element that nobody has, and fills it. Who is killed from here to its publication costs one.
    fn take(&self, key: &[u64], subject: &Subject<'_>) -> Option<u32> {
        let next = |used| (used < self.layout.elements as u64).then_some(used + 1);
        // Relaxed: the number alone is what matters.
        let element = self.word(place::USED).fetch_update(Relaxed, Relaxed, next).ok()?;
        let at = self.layout.element(usize::try_from(element).ok()?);
        for sum in 0..self.layout.name {
            self.word(at + sum).store(0, Relaxed);
        }
        if self.shape.with_comm {
            for (nth, bytes) in (subject.comm)().as_chunks::<8>().0.iter().enumerate() {
                self.word(at + self.layout.name + nth).store(u64::from_le_bytes(*bytes), Relaxed);
            }
        }
        for (nth, word) in key.iter().enumerate() {
            self.word(at + self.layout.key + nth).store(*word, Relaxed);
        }
        u32::try_from(element).ok()
    }

    /// Gives an element back that was not needed, unless somebody took the next one.
    fn give_back(&self, element: Option<u32>) {
        let Some(element) = element.map(u64::from) else { return };
        // A lost race costs one element of those that are there for it.
        let _ = self.word(place::USED).compare_exchange(element + 1, element, Relaxed, Relaxed);
    }
}

/// Counts an event in the histogram at `start`.
pub(super) fn add(region: &Region<'_>, start: usize, subject: &Subject<'_>) {
    let Some(table) = Table::at(region, start) else { return };
    let count = if table.add(subject) { place::HITS } else { place::DROPS };
    table.word(count).fetch_add(1, Relaxed);
}

fn key<'k>(shape: &Shape, subject: &Subject<'_>, words: &'k mut [u64; MAX_KEY_WORDS]) -> &'k [u64] {
    let mut end = 0;
    for part in shape.keys.iter().flatten() {
        let start = end;
        end += part.words();
        match part {
            Part::Text(field) => text(field, subject, &mut words[start..end]),
            Part::Stack => words[start..end].copy_from_slice(&stack::callers::<STACK_DEPTH>()),
            _ => words[start] = number(part, subject),
        }
    }
    &words[..end]
}

/// A field that the record is too short for counts as 0.
fn number(part: &Part, subject: &Subject<'_>) -> u64 {
    match part {
        Part::Number(field, scale) => scale.apply(field.int(subject).unwrap_or(0)),
        Part::Time(scale) => scale.apply(clock::monotonic_ns()),
        Part::Text(_) | Part::Stack => 0,
    }
}

/// A text up to its NUL, cut so that a NUL follows it.
fn text(field: &Field, subject: &Subject<'_>, words: &mut [u64]) {
    let comm;
    let bytes = if field.source == Source::Comm {
        comm = (subject.comm)();
        &comm[..]
    } else {
        field.bytes(subject).unwrap_or_default()
    };
    let bytes = until_nul(bytes);
    let bytes = &bytes[..bytes.len().min(8 * words.len() - 1)];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
}

/// What a histogram counted in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistTotals {
    /// Events that were counted.
    pub hits: u64,
    /// Events that were not: there was no room for their keys.
    pub drops: u64,
}

/// One entry of a histogram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistRow {
    /// The key's words, as its shape says.
    pub key: Vec<u64>,
    /// The hitcount, then the sums.
    pub sums: Vec<u64>,
    /// The name of the task that made the entry, where names are kept.
    pub comm: Option<[u8; COMM_LEN]>,
}

impl Table<'_> {
    /// All entries, in no order, while writers may go on.
    pub(super) fn read(&self) -> (Vec<HistRow>, HistTotals) {
        let count = |at| self.word(at).load(Relaxed);
        let totals = HistTotals { hits: count(place::HITS), drops: count(place::DROPS) };
        // R3: pairs with the Release of whoever inserted it.
        let slots =
            (0..self.layout.slots).map(|nth| self.word(self.layout.slot(nth)).load(ordering::look_up()));
        let mut elements: Vec<_> = slots.filter_map(|word| Slot::unpack(word, &self.layout)).collect();
        // Hostile slots may name an element twice.
        elements.sort_unstable_by_key(|slot| slot.element);
        elements.dedup_by_key(|slot| slot.element);
        (elements.iter().map(|slot| self.row(slot.element as usize)).collect(), totals)
    }

    fn row(&self, element: usize) -> HistRow {
        let (at, layout) = (self.layout.element(element), &self.layout);
        let words = |range: std::ops::Range<usize>| -> Vec<u64> {
            range.map(|nth| self.word(at + nth).load(Relaxed)).collect()
        };
        let comm = self.shape.with_comm.then(|| {
            let name: Vec<u8> =
                words(layout.name..layout.key).iter().flat_map(|word| word.to_le_bytes()).collect();
            std::array::from_fn(|nth| name.get(nth).copied().unwrap_or(0))
        });
        HistRow { key: words(layout.key..layout.element), sums: words(0..layout.name), comm }
    }
}
