//! The records of many CPUs, buffers and files in the order of their time, read as they are needed.
//!
//! ```
//! use ringtap_format::trace_dat::{Timeline, TraceDat};
//!
//! fn count(path: &str) -> Result<u64, Box<dyn std::error::Error>> {
//!     let file = std::sync::Arc::new(std::fs::File::open(path)?);
//!     let trace = TraceDat::open(&file)?;
//!     let mut timeline = Timeline::new();
//!     timeline.push_file(0, &trace, &file);
//!     let mut records = 0;
//!     while let Some(item) = timeline.next() {
//!         records += u64::from(matches!(item.step, ringtap_format::trace_dat::Item::Record(_)));
//!     }
//!     Ok(records)
//! }
//! ```

use super::pages::{CpuPages, RawPage};
use super::source::ReadAt;
use super::{Clock, TraceDat, TraceDatError};
use crate::header::PageLayout;
use crate::page::{Lost, Page, PageError, PageRecord};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

/// Where a lane's records come from, by the caller's numbering of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Which file.
    pub file: usize,
    /// Which of the file's buffers.
    pub buffer: usize,
    /// Which CPU.
    pub cpu: u32,
}

/// What a timeline holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A record; its time is on the file's axis of nanoseconds.
    Record(PageRecord<'a>),
    /// Events that were lost here.
    Lost(Lost),
    /// A sub-buffer that cannot be read, or not to its end. What follows is from the one behind it.
    Damaged {
        /// Where the sub-buffer stands in the file, in bytes.
        offset: u64,
        /// What is wrong with it.
        error: PageError,
    },
    /// The CPU's data cannot be read from here on.
    Failed(TraceDatError),
}

/// An item and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed<'a> {
    /// Where from.
    pub origin: Origin,
    /// The number of the lane, in the order in which they were pushed.
    pub lane: usize,
    /// A record's time, and for all else that of the record behind it on the same CPU.
    pub time: u64,
    /// What.
    pub step: Item<'a>,
}

/// Merges lanes by time. Of items with the same time the earlier lane's comes first.
#[derive(Clone, Debug)]
pub struct Timeline<R> {
    lanes: Vec<Lane<R>>,
    order: BinaryHeap<Reverse<(u64, usize)>>,
    /// Lanes below this number are in `order`, or at their end.
    begun: usize,
}

impl<R> Default for Timeline<R> {
    fn default() -> Self {
        Self { lanes: Vec::new(), order: BinaryHeap::new(), begun: 0 }
    }
}

impl<R: ReadAt> Timeline<R> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all buffers and CPUs of a trace.dat.
    pub fn push_file(&mut self, file: usize, trace: &TraceDat, source: &R)
    where
        R: Clone,
    {
        for (buffer, described) in trace.buffers.iter().enumerate() {
            for data in &described.cpus {
                let origin = Origin { file, buffer, cpu: data.cpu };
                self.push(origin, trace.clock, CpuPages::new(source.clone(), data.clone(), described.layout));
            }
        }
    }

    /// Adds a CPU's sub-buffers.
    pub fn push(&mut self, origin: Origin, clock: Clock, pages: CpuPages<R>) {
        self.lanes.push(Lane {
            origin,
            clock,
            pages,
            page: Vec::new(),
            held: Vec::new(),
            at: 0,
            time: 0,
            failed: false,
        });
    }

    /// Where the lanes come from.
    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        self.lanes.iter().map(|lane| lane.origin)
    }

    /// Each lane as a timeline of its own, from its start.
    pub fn lanes(&self) -> impl Iterator<Item = Self>
    where
        R: Clone,
    {
        self.lanes.iter().map(|lane| {
            let mut alone = Self { lanes: vec![lane.clone()], ..Self::default() };
            alone.restart();
            alone
        })
    }

    /// How many bytes have been read, and how many there are.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let each = self.lanes.iter().map(|lane| lane.pages.progress());
        each.fold((0, 0), |(read, all), (more, len)| (read.saturating_add(more), all.saturating_add(len)))
    }

    /// Starts anew.
    pub fn restart(&mut self) {
        for lane in &mut self.lanes {
            lane.restart();
        }
        self.order.clear();
        self.begun = 0;
    }

    /// The next item; what it lends ends the item before.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Option<Timed<'_>> {
        while self.begun < self.lanes.len() {
            let place = self.begun;
            self.begun = place.saturating_add(1);
            if let Some(time) = self.lanes.get_mut(place)?.next_time() {
                self.order.push(Reverse((time, place)));
            }
        }
        // The time of the lane on top is that of its last item; its next is looked for only now, since that may
        // replace the bytes that were lent.
        let place = loop {
            let mut top = self.order.peek_mut()?;
            let Reverse((at, place)) = *top;
            match self.lanes.get_mut(place)?.next_time() {
                Some(time) if time == at => break place,
                Some(time) => *top = Reverse((time, place)),
                None => drop(PeekMut::pop(top)),
            }
        };
        self.lanes.get_mut(place)?.take(place)
    }

    /// The next item of whatever lane, for who does not need them in the order of time: each lane's in its own order, one
    /// lane after the other. Begins at the start, or where [`restart`](Self::restart) was called.
    pub fn next_of_any(&mut self) -> Option<Timed<'_>> {
        while self.lanes.get_mut(self.begun)?.next_time().is_none() {
            self.begun = self.begun.saturating_add(1);
        }
        let place = self.begun;
        self.lanes.get_mut(place)?.take(place)
    }
}

/// One CPU's steps.
#[derive(Clone, Debug)]
struct Lane<R> {
    origin: Origin,
    clock: Clock,
    pages: CpuPages<R>,
    /// The records of the sub-buffer at hand; only its bytes are kept.
    page: Vec<u8>,
    held: Vec<Held>,
    /// The next of `held`.
    at: usize,
    time: u64,
    failed: bool,
}

#[derive(Clone, Debug)]
enum Held {
    Record { time: u64, bytes: Range<usize> },
    Lost(Lost),
    Damaged { offset: u64, error: PageError },
    Failed(TraceDatError),
}

impl<R: ReadAt> Lane<R> {
    fn restart(&mut self) {
        self.pages.restart();
        self.held.clear();
        (self.at, self.time, self.failed) = (0, 0, false);
    }

    /// When the next item happens.
    #[inline]
    fn next_time(&mut self) -> Option<u64> {
        if let Some(Held::Record { time, .. }) = self.held.get(self.at) {
            self.time = self.clock.ns(*time);
            return Some(self.time);
        }
        self.next_time_slowly()
    }

    #[inline(never)]
    fn next_time_slowly(&mut self) -> Option<u64> {
        while self.at >= self.held.len() {
            if !self.fill() {
                return None;
            }
        }
        let rest = self.held.get(self.at..).unwrap_or_default();
        let next = rest.iter().find_map(|held| match held {
            Held::Record { time, .. } => Some(self.clock.ns(*time)),
            _ => None,
        });
        self.time = next.unwrap_or(self.time);
        Some(self.time)
    }

    /// Takes the next sub-buffer apart; whether there was one.
    fn fill(&mut self) -> bool {
        self.held.clear();
        self.at = 0;
        if self.failed {
            return false;
        }
        let layout = self.pages.layout();
        match self.pages.next_page() {
            Ok(Some(page)) => split(page, layout, &mut self.page, &mut self.held),
            Ok(None) => return false,
            Err(error) => {
                self.failed = true;
                self.held.push(Held::Failed(error));
            }
        }
        true
    }

    fn take(&mut self, lane: usize) -> Option<Timed<'_>> {
        let held = self.held.get(self.at)?;
        self.at = self.at.saturating_add(1);
        let (origin, time) = (self.origin, self.time);
        let step = match held {
            Held::Record { bytes, .. } => {
                Item::Record(PageRecord { time, bytes: self.page.get(bytes.clone()).unwrap_or_default() })
            }
            Held::Lost(lost) => Item::Lost(*lost),
            Held::Damaged { offset, error } => Item::Damaged { offset: *offset, error: *error },
            Held::Failed(error) => Item::Failed(error.clone()),
        };
        Some(Timed { origin, lane, time, step })
    }
}

/// Finds a sub-buffer's steps, and keeps its bytes.
fn split(raw: RawPage<'_>, layout: PageLayout, page: &mut Vec<u8>, held: &mut Vec<Held>) {
    let offset = raw.offset;
    page.clear();
    page.extend_from_slice(raw.bytes);
    let opened = match Page::new(page, layout) {
        Ok(opened) => opened,
        Err(error) => return held.push(Held::Damaged { offset, error }),
    };
    held.extend(opened.lost().map(Held::Lost));
    let start = page.as_ptr().addr();
    for record in opened.records() {
        held.push(match record {
            Ok(PageRecord { time, bytes }) => {
                let at = bytes.as_ptr().addr().saturating_sub(start);
                Held::Record { time, bytes: at..at.saturating_add(bytes.len()) }
            }
            Err(error) => Held::Damaged { offset, error },
        });
    }
}
