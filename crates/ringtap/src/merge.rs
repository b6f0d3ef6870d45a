//! Several buffers as one stream in the order of time: ringtap's and the kernel's, consumed or followed.
//!
//! A record is handed out once no other buffer can bring an earlier one. A buffer that was found empty cannot
//! bring one from much before that look, so where a record is younger, the empty buffers are looked at again
//! first. Three things limit this:
//!
//! * A writer looks at the clock before it commits, so that records of the last ten microseconds are held back
//!   while another buffer is empty.
//! * A clock's conversion may be some microseconds off, so that a record seems to come from the future. It is
//!   held back until its time has come, for [`HOLD`] at most.
//! * A writer that is preempted between its look at the clock and its commit brings its record late. It is then
//!   handed out late, with its own time; within one buffer [`Merged::ns`] never goes back.

use crate::clock;
use crate::cursor::Cursor;
use crate::reader::{ReadError, Reader};
use crate::record::{Found, Item};
use crate::wake::Waited;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Longest time that a record from the future is held back. One from farther away tells no time that means
/// anything here.
pub const HOLD: Duration = Duration::from_nanos(HOLD_NS);
const HOLD_NS: u64 = 1_000_000;
/// How old a look at the clock may be when its event is committed, unless the writer was preempted in between.
const IN_FLIGHT_NS: u64 = 10_000;
/// Shortest and longest pause between two looks of a wait: the longer nothing comes, the longer.
const PAUSES: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(10));

/// A buffer to be merged.
#[derive(Debug)]
pub enum Input {
    /// Consumed.
    Reader(Reader),
    /// Followed.
    Cursor(Cursor),
}

impl From<Reader> for Input {
    fn from(reader: Reader) -> Self {
        Self::Reader(reader)
    }
}

impl From<Cursor> for Input {
    fn from(cursor: Cursor) -> Self {
        Self::Cursor(cursor)
    }
}

impl Input {
    fn advance(&mut self) -> Result<Option<Found>, ReadError> {
        match self {
            Self::Reader(reader) => reader.advance(),
            Self::Cursor(cursor) => cursor.advance(),
        }
    }

    fn lend(&self, found: Found) -> Item<'_> {
        match self {
            Self::Reader(reader) => reader.lend(found),
            Self::Cursor(cursor) => cursor.lend(found),
        }
    }

    fn ns(&self, ticks: u64) -> u64 {
        match self {
            Self::Reader(reader) => reader.ns(ticks),
            Self::Cursor(cursor) => cursor.ns(ticks),
        }
    }

    fn has_more(&mut self) -> Result<bool, ReadError> {
        match self {
            Self::Reader(reader) => reader.has_more(),
            Self::Cursor(cursor) => cursor.has_more(),
        }
    }
}

/// An item and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    /// The input's index.
    pub input: usize,
    /// Its time in nanoseconds of `CLOCK_MONOTONIC`; for what is no record, that of the input's record before.
    pub ns: u64,
    /// The item.
    pub item: Item<'a>,
}

/// Merges buffers by time.
#[derive(Debug)]
pub struct Merge {
    lanes: Vec<Lane>,
    /// Lanes that have an item, the earliest on top.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    /// The lane whose item is lent.
    lent: Option<usize>,
}

#[derive(Debug)]
struct Lane {
    input: Input,
    state: State,
    /// Time of its last item.
    ns: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Has an item, which is in `heads` or lent.
    Has(Found),
    /// Was found empty, so that nothing from before this time comes any more.
    Empty(u64),
    /// Failed, which was told.
    Failed,
}

impl Merge {
    /// Merges these; an input's index is its place.
    pub fn new<I: Into<Input>>(inputs: impl IntoIterator<Item = I>) -> Self {
        let lane = |input: I| Lane { input: input.into(), state: State::Empty(0), ns: 0 };
        Self { lanes: inputs.into_iter().map(lane).collect(), heads: BinaryHeap::new(), lent: None }
    }

    /// Adds an input, and tells its index.
    pub fn push(&mut self, input: impl Into<Input>) -> usize {
        self.lanes.push(Lane { input: input.into(), state: State::Empty(0), ns: 0 });
        self.lanes.len() - 1
    }

    /// The next item of all; `None` when there is nothing new, or its time has not come. Never blocks.
    ///
    /// # Errors
    /// [`ReadError`] of one input. The next call goes on without that one.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Merged<'_>>, ReadError> {
        if let Some(lent) = self.lent.take() {
            self.look(lent, None)?;
        }
        // Each round but the last finds an item in a lane that was empty.
        loop {
            let first = self.heads.peek().map(|&Reverse(head)| head);
            if self.look_again(first.map_or(u64::MAX, |(ns, _)| ns))? {
                continue;
            }
            let Some((ns, at)) = first else { return Ok(None) };
            if !self.is_due(ns) {
                return Ok(None);
            }
            self.heads.pop();
            self.lent = Some(at);
            let lane = &self.lanes[at];
            let State::Has(found) = lane.state else { unreachable!("a lane in `heads` has an item") };
            return Ok(Some(Merged { input: at, ns, item: lane.input.lend(found) }));
        }
    }

    /// Looks again at the empty lanes that may bring something from before `ns`; whether one of them has an item
    /// now.
    fn look_again(&mut self, ns: u64) -> Result<bool, ReadError> {
        let mut now = None;
        let mut found = false;
        for at in 0..self.lanes.len() {
            if let State::Empty(looked) = self.lanes[at].state
                && looked <= ns
            {
                // Before the look.
                let now = *now.get_or_insert_with(settled_ns);
                if looked < now {
                    found |= self.look(at, Some(now))?;
                }
            }
        }
        Ok(found)
    }

    /// Takes a lane's next item; whether there is one.
    fn look(&mut self, at: usize, now: Option<u64>) -> Result<bool, ReadError> {
        let lane = &mut self.lanes[at];
        let now = now.unwrap_or(lane.ns);
        // So that it is not asked again, should it fail.
        lane.state = State::Failed;
        let Some(found) = lane.input.advance()? else {
            lane.state = State::Empty(now);
            return Ok(false);
        };
        if let Found::Record(record) = found {
            lane.ns = lane.ns.max(lane.input.ns(record.time));
        }
        lane.state = State::Has(found);
        self.heads.push(Reverse((lane.ns, at)));
        Ok(true)
    }

    /// Whether an item of this time may go out: no empty lane can bring an earlier one, or it makes no sense to
    /// wait for that.
    fn is_due(&self, ns: u64) -> bool {
        let bound = self.lanes.iter().filter_map(|lane| match lane.state {
            State::Empty(looked) => Some(looked),
            _ => None,
        });
        let Some(bound) = bound.min() else { return true };
        ns < bound || ns - bound > HOLD_NS
    }

    /// Waits until there may be an item, for `timeout` at most (`None`: for ever). Looks at a bounded rate: every half
    /// millisecond at first, every 10 ms after a while.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Waited, ReadError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut pause = PAUSES.0;
        loop {
            if self.has_more()? {
                return Ok(Waited::Ready);
            }
            let left = deadline.map_or(pause, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(Waited::TimedOut);
            }
            if !self.heads.is_empty() {
                pause = Duration::from_nanos(IN_FLIGHT_NS);
            }
            std::thread::sleep(left.min(pause));
            pause = (pause * 2).clamp(PAUSES.0, PAUSES.1);
        }
    }

    /// Whether any lane has something. An item whose time has not come does not count until it has.
    fn has_more(&mut self) -> Result<bool, ReadError> {
        if let Some(Reverse((ns, _))) = self.heads.peek() {
            return Ok(*ns < settled_ns() || self.is_due(*ns));
        }
        if let Some(lent) = self.lent.take()
            && self.look(lent, None)?
        {
            return Ok(true);
        }
        for lane in &mut self.lanes {
            if matches!(lane.state, State::Empty(_))
                && lane.input.has_more().inspect_err(|_| lane.state = State::Failed)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The time from before which nothing comes any more to a buffer that is found empty after this call.
fn settled_ns() -> u64 {
    clock::monotonic_ns().saturating_sub(IN_FLIGHT_NS)
}
