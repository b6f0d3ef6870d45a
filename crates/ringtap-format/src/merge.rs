//! The records of several CPUs and buffers in the order of their time, losses among them as values.

use crate::header::PageLayout;
use crate::page::{Lost, Page, PageError, PageRecord, Records};
use ringtap_abi::clock::Conversion;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// What a CPU's sub-buffers hold, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A record.
    Record(PageRecord<'a>),
    /// Events that were lost here.
    Lost(Lost),
    /// A sub-buffer that cannot be read, or not to its end; the next step is from the one behind it.
    Damaged {
        /// Where the sub-buffer starts, in bytes from the start of the CPU's data.
        offset: u64,
        /// What is wrong with it.
        error: PageError,
    },
}

/// A CPU's sub-buffers, one behind the other, as `trace_pipe_raw` hands them out.
#[derive(Clone, Debug)]
pub struct Pages<'a> {
    rest: &'a [u8],
    layout: PageLayout,
    records: Option<Records<'a>>,
    offset: u64,
    next_offset: u64,
}

impl<'a> Pages<'a> {
    /// The sub-buffers in `data`; the last may be cut short.
    #[must_use]
    pub const fn new(data: &'a [u8], layout: PageLayout) -> Self {
        Self { rest: data, layout, records: None, offset: 0, next_offset: 0 }
    }

    /// Starts with the next sub-buffer: what was lost before it, or what is wrong with it.
    fn open(&mut self) -> Option<Step<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let size = usize::try_from(self.layout.size()).unwrap_or(usize::MAX).max(1);
        let (bytes, rest) = self.rest.split_at_checked(size).unwrap_or((self.rest, &[]));
        self.rest = rest;
        self.offset = self.next_offset;
        self.next_offset = self.offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
        match Page::new(bytes, self.layout) {
            Ok(page) => {
                self.records = Some(page.records());
                page.lost().map(Step::Lost)
            }
            Err(error) => Some(Step::Damaged { offset: self.offset, error }),
        }
    }
}

impl<'a> Iterator for Pages<'a> {
    type Item = Step<'a>;

    #[inline]
    fn next(&mut self) -> Option<Step<'a>> {
        loop {
            if let Some(records) = &mut self.records {
                match records.next() {
                    Some(Ok(record)) => return Some(Step::Record(record)),
                    Some(Err(error)) => {
                        self.records = None;
                        return Some(Step::Damaged { offset: self.offset, error });
                    }
                    None => self.records = None,
                }
            }
            if self.rest.is_empty() {
                return None;
            }
            // A page without a loss goes on with its records.
            if let Some(step) = self.open() {
                return Some(step);
            }
        }
    }
}

/// A stream of one CPU and where it comes from.
#[derive(Clone, Debug)]
pub struct Source<I> {
    /// Which buffer, by the caller's numbering.
    pub buffer: u32,
    /// The CPU.
    pub cpu: u32,
    /// From the buffer's ticks to nanoseconds on the axis that all buffers share.
    pub clock: Conversion,
    /// The CPU's records.
    pub steps: I,
}

/// A step and where it comes from; a record's time is on the common axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged<'a> {
    /// Which buffer.
    pub buffer: u32,
    /// Which CPU.
    pub cpu: u32,
    /// What.
    pub step: Step<'a>,
}

/// Several sources as one stream. Of records with the same time the earlier source's comes first; losses and
/// damage come right before the record that follows them on their CPU.
#[derive(Debug)]
pub struct Merge<'a, I> {
    sources: Vec<(Source<I>, Option<PageRecord<'a>>)>,
    /// The time of each source's next record, and the source's place.
    order: BinaryHeap<Reverse<(u64, usize)>>,
    /// Steps that come before the next record.
    before: std::collections::VecDeque<Merged<'a>>,
    /// Losses and damage of each source, held back until their time comes.
    held: Vec<Vec<Step<'a>>>,
}

/// Most steps of one CPU that are held back between two of its records; one page adds at most two.
const MAX_HELD: usize = 1024;

impl<'a, I: Iterator<Item = Step<'a>>> Merge<'a, I> {
    /// Merges `sources`, each of which is in order by itself.
    #[must_use]
    pub fn new(sources: Vec<Source<I>>) -> Self {
        let held = sources.iter().map(|_| Vec::new()).collect();
        let sources: Vec<_> = sources.into_iter().map(|source| (source, None)).collect();
        let count = sources.len();
        let mut merge = Self { sources, order: BinaryHeap::new(), before: Default::default(), held };
        for place in 0..count {
            if let Some(time) = merge.pull(place) {
                merge.order.push(Reverse((time, place)));
            }
        }
        merge
    }

    /// Fetches the next record of a source and returns its time. What comes before the record is held back.
    #[inline]
    fn pull(&mut self, place: usize) -> Option<u64> {
        let (source, next) = self.sources.get_mut(place)?;
        let held = self.held.get_mut(place)?;
        *next = None;
        loop {
            match source.steps.next() {
                Some(Step::Record(mut record)) => {
                    record.time = source.clock.ns(record.time);
                    *next = Some(record);
                    return Some(record.time);
                }
                // Too many to hold: a stream of nothing but damage; its end is soon enough for telling.
                Some(step) if held.len() < MAX_HELD => held.push(step),
                Some(_) => {}
                None => {
                    let (buffer, cpu) = (source.buffer, source.cpu);
                    self.before.extend(held.drain(..).map(|step| Merged { buffer, cpu, step }));
                    return None;
                }
            }
        }
    }
}

impl<'a, I: Iterator<Item = Step<'a>>> Iterator for Merge<'a, I> {
    type Item = Merged<'a>;

    #[inline]
    fn next(&mut self) -> Option<Merged<'a>> {
        if let Some(merged) = self.before.pop_front() {
            return Some(merged);
        }
        let Reverse((_, place)) = *self.order.peek()?;
        let (source, next) = self.sources.get(place)?;
        let (buffer, cpu) = (source.buffer, source.cpu);
        let held = self.held.get_mut(place)?;
        if !held.is_empty() {
            self.before.extend(held.drain(..).map(|step| Merged { buffer, cpu, step }));
            return self.before.pop_front();
        }
        let record = (*next)?;
        match self.pull(place) {
            Some(time) => {
                if let Some(mut top) = self.order.peek_mut() {
                    *top = Reverse((time, place));
                }
            }
            None => drop(self.order.peek_mut().map(PeekMut::pop)),
        }
        Some(Merged { buffer, cpu, step: Step::Record(record) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: u64) -> Step<'static> {
        Step::Record(PageRecord { time, bytes: b"" })
    }

    fn source(buffer: u32, cpu: u32, steps: Vec<Step<'static>>) -> Source<std::vec::IntoIter<Step<'static>>> {
        Source { buffer, cpu, clock: Conversion::IDENTITY, steps: steps.into_iter() }
    }

    fn shown<'a>(merge: impl Iterator<Item = Merged<'a>>) -> Vec<String> {
        merge
            .map(|merged| match merged.step {
                Step::Record(record) => format!("{}.{}@{}", merged.buffer, merged.cpu, record.time),
                Step::Lost(lost) => format!("{}.{} lost {:?}", merged.buffer, merged.cpu, lost.count()),
                Step::Damaged { offset, .. } => {
                    format!("{}.{} damaged at {offset}", merged.buffer, merged.cpu)
                }
            })
            .collect()
    }

    #[test]
    fn records_come_in_order_of_time_and_losses_before_the_next_of_their_cpu() {
        let lost = Step::Lost(Lost::Events(7));
        let merge = Merge::new(vec![
            source(0, 0, vec![record(1), record(5), lost, record(9)]),
            source(0, 1, vec![lost, record(3), record(5), Step::Lost(Lost::Unknown)]),
            source(1, 0, vec![]),
        ]);
        assert_eq!(
            shown(merge),
            [
                "0.0@1",
                "0.1 lost Some(7)",
                "0.1@3",
                "0.0@5",
                "0.1@5",
                "0.1 lost None",
                "0.0 lost Some(7)",
                "0.0@9"
            ]
        );
    }

    #[test]
    fn clocks_of_several_buffers_share_an_axis() {
        let mut ticks = source(1, 0, vec![record(100), record(200)]);
        ticks.clock = Conversion { ticks0: 100, ns0: 1000, mult: 10 << 32 };
        let merge = Merge::new(vec![source(0, 0, vec![record(500), record(1500), record(2500)]), ticks]);
        assert_eq!(shown(merge), ["0.0@500", "1.0@1000", "0.0@1500", "1.0@2000", "0.0@2500"]);
    }

    #[test]
    fn a_damaged_page_does_not_hide_the_next() {
        let layout = PageLayout { target: crate::Target::LE64, ..PageLayout::of_size(32) };
        let page = |commit: u64, header: u32| {
            let mut bytes = 77u64.to_le_bytes().to_vec();
            bytes.extend_from_slice(&commit.to_le_bytes());
            bytes.extend_from_slice(&header.to_le_bytes());
            bytes.resize(32, 0);
            bytes
        };
        // A length of 28 words in a page of 16 bytes, then a good record of one word.
        let data = [page(16, 28), page(8, 1), vec![1, 2, 3]].concat();
        let merge = Merge::new(vec![Source {
            buffer: 0,
            cpu: 2,
            clock: Conversion::IDENTITY,
            steps: Pages::new(&data, layout),
        }]);
        assert_eq!(shown(merge), ["0.2 damaged at 0", "0.2@77", "0.2 damaged at 64"]);
    }
}
