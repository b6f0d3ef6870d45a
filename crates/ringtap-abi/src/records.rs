//! The walk over a sub-buffer's records: one for mapped pages, copies and files.
//!
//! Everything read is an allegation. A walk ends at the first length that lies, with [`Damage`]; it never
//! reads at or past `end`, and each step moves it forward by at least 4 bytes.

use crate::event::{EXTEND_LEN, EventHeader, Kind, absolute_time, join_stamp};

/// Where a walk reads its words: mapped memory, a copy, or a file of another machine.
pub trait Words {
    /// The word at `offset` bytes behind the sub-buffer's header, in the host's byte order. The walk asks for
    /// multiples of 4 below the `end` it was made with.
    fn word(&self, offset: u32) -> u32;

    /// Takes an event header apart; big-endian files lay out its bits differently.
    #[inline(always)]
    fn header(&self, word: u32) -> EventHeader {
        EventHeader::from_le_bits(word)
    }
}

/// A data record: its time and where its payload lies, in bytes behind the sub-buffer's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Absolute time, in ticks of the buffer's clock.
    pub time: u64,
    /// Start of the payload.
    pub offset: u32,
    /// Length of the payload, as rounded up by the writer.
    pub len: u32,
}

/// A record whose length cannot be true; the rest of the page is unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where the record starts, in bytes behind the sub-buffer's header.
    pub offset: u32,
    /// The length that it states for itself, its header included.
    pub stated_len: u32,
    /// The bytes that were left for it.
    pub room: u32,
}

impl core::fmt::Display for Damage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { offset, stated_len, room } = self;
        write!(
            f,
            "the record at data offset {offset} states a length of {stated_len} bytes where {room} are left"
        )
    }
}

impl core::error::Error for Damage {}

/// A walk over one sub-buffer's committed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    offset: u32,
    end: u32,
    time: u64,
}

impl Walk {
    /// Starts at the first record of a page whose header says `time_stamp`, with `committed` bytes.
    #[must_use]
    pub const fn new(time_stamp: u64, committed: u32) -> Self {
        Self { offset: 0, end: committed, time: time_stamp }
    }

    /// The same walk when more was committed meanwhile; it never shrinks.
    pub const fn extend_to(&mut self, committed: u32) {
        if committed > self.end {
            self.end = committed;
        }
    }

    /// Where the next record starts.
    #[must_use]
    pub const fn offset(&self) -> u32 {
        self.offset
    }

    /// Time of the last record seen, or of the page.
    #[must_use]
    pub const fn time(&self) -> u64 {
        self.time
    }

    /// Gives up the rest of the page.
    pub const fn finish(&mut self) {
        self.offset = self.end;
    }

    /// The next data record where it is of the kind that nearly all are: up to 112 bytes, and nothing before it.
    /// `None` otherwise: ask [`next`](Self::next). Small enough to become part of its caller, which is what makes
    /// a walk fast: a result that goes through memory takes longer than the rest.
    #[inline(always)]
    pub fn next_small(&mut self, words: &impl Words) -> Option<Record> {
        let (start, room) = (self.offset, self.end - self.offset);
        if room < 4 {
            return None;
        }
        let header = words.header(words.word(start));
        let Kind::Small(len) = header.kind else { return None };
        if 4 + len > room {
            return None;
        }
        self.offset = start + 4 + len;
        self.time = self.time.wrapping_add(u64::from(header.delta));
        Some(Record { time: self.time, offset: start + 4, len })
    }

    /// The next data record; `None` at the end of what is committed.
    ///
    /// # Errors
    /// [`Damage`] where a length lies. The walk is over then.
    #[inline]
    pub fn next(&mut self, words: &impl Words) -> Result<Option<Record>, Damage> {
        while self.end - self.offset >= 4 {
            let start = self.offset;
            let header = words.header(words.word(start));
            match header.kind {
                Kind::Small(len) => {
                    self.step(start, 4 + len)?;
                    self.time = self.time.wrapping_add(u64::from(header.delta));
                    return Ok(Some(Record { time: self.time, offset: start + 4, len }));
                }
                Kind::Large => {
                    let len = self.length_word(start, words)?;
                    self.time = self.time.wrapping_add(u64::from(header.delta));
                    return Ok(Some(Record { time: self.time, offset: start + 8, len: len - 4 }));
                }
                Kind::Padding if header.delta == 0 => self.finish(),
                Kind::Padding => {
                    // Discarded: the writer took the next delta against this event's time.
                    self.length_word(start, words)?;
                    self.time = self.time.wrapping_add(u64::from(header.delta));
                }
                Kind::TimeExtend => {
                    self.step(start, EXTEND_LEN)?;
                    self.time = self.time.wrapping_add(join_stamp(header.delta, words.word(start + 4)));
                }
                Kind::TimeStamp => {
                    self.step(start, EXTEND_LEN)?;
                    self.time = absolute_time(join_stamp(header.delta, words.word(start + 4)), self.time);
                }
            }
        }
        Ok(None)
    }

    /// Moves over a record that states its length in the word behind its header, and returns that length.
    #[inline]
    fn length_word(&mut self, start: u32, words: &impl Words) -> Result<u32, Damage> {
        if self.end - start < 8 {
            return Err(self.damage(start, 8));
        }
        let len = words.word(start + 4);
        // Less than its own word, or not a multiple of 4, and the walk would lose its step.
        if len < 4 || !len.is_multiple_of(4) {
            return Err(self.damage(start, len));
        }
        self.step(start, len.saturating_add(4))?;
        Ok(len)
    }

    #[inline(always)]
    fn step(&mut self, start: u32, total: u32) -> Result<(), Damage> {
        if total > self.end - start {
            return Err(self.damage(start, total));
        }
        self.offset = start + total;
        Ok(())
    }

    #[cold]
    fn damage(&mut self, offset: u32, stated_len: u32) -> Damage {
        let room = self.end - offset;
        self.finish();
        Damage { offset, stated_len, room }
    }
}

/// What the walk promises on any bytes: it ends, stays inside, and moves forward. Fuzzers and tests call it.
pub fn check_walk(page: &[u32]) {
    struct Page<'a>(&'a [u32]);
    impl Words for Page<'_> {
        fn word(&self, offset: u32) -> u32 {
            self.0[offset as usize / 4]
        }
    }
    let Ok(end) = u32::try_from(page.len() * 4) else { return };
    let mut walk = Walk::new(0, end);
    let mut seen_to = 0;
    loop {
        match walk.next(&Page(page)) {
            Ok(Some(record)) => {
                assert!(record.offset >= seen_to + 4, "records overlap");
                seen_to = record.offset + record.len;
                assert!(seen_to <= end, "a record ends outside the page");
            }
            Ok(None) => break,
            Err(damage) => {
                assert!(
                    damage.offset < end && damage.stated_len > damage.room
                        || damage.stated_len % 4 != 0
                        || damage.stated_len < 4
                );
                assert_eq!(walk.next(&Page(page)), Ok(None), "damage ends the walk");
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Shape, time_extend, time_stamp};
    use proptest::prelude::*;

    struct Page(Vec<u32>);

    impl Words for Page {
        fn word(&self, offset: u32) -> u32 {
            self.0[offset as usize / 4]
        }
    }

    fn data(page: &mut Vec<u32>, delta: u32, len: u32) {
        let shape = Shape::of(len);
        page.extend(&shape.header(delta)[..shape.head as usize / 4]);
        page.extend(vec![len; shape.body as usize / 4]);
    }

    fn walk(page: Vec<u32>) -> Vec<(u64, u32)> {
        let mut walk = Walk::new(1000, u32::try_from(page.len() * 4).unwrap());
        let page = Page(page);
        core::iter::from_fn(|| walk.next(&page).unwrap()).map(|record| (record.time, record.len)).collect()
    }

    #[test]
    fn times_add_up_over_extends_stamps_and_discarded_events() {
        let mut page = Vec::new();
        data(&mut page, 0, 16);
        page.extend(time_extend(1 << 30));
        data(&mut page, 5, 200);
        page.extend([7 << 5 | 29, 12, 0, 0]);
        data(&mut page, 1, 4);
        page.extend(time_stamp(5_000_000_000));
        data(&mut page, 0, 20);
        page.push(29);
        page.push(0xdead_beef);
        let big = 1000 + (1 << 30);
        assert_eq!(walk(page), [(1000, 16), (big + 5, 200), (big + 13, 4), (5_000_000_000, 20)]);
    }

    #[test]
    fn a_length_that_lies_ends_the_walk_with_its_place() {
        let mut page = Vec::new();
        data(&mut page, 0, 16);
        page.extend([0, 4000, 1, 2]);
        let mut walk = Walk::new(0, u32::try_from(page.len() * 4).unwrap());
        let page = Page(page);
        assert!(walk.next(&page).unwrap().is_some());
        assert_eq!(walk.next(&page), Err(Damage { offset: 20, stated_len: 4004, room: 16 }));
        assert_eq!(walk.next(&page), Ok(None));
    }

    proptest! {
        #[test]
        fn small_records_come_the_short_way_as_they_come_the_long(page in proptest::collection::vec(0u32..256, 0..64)) {
            let mut short = Walk::new(0, u32::try_from(page.len() * 4).unwrap());
            let page = Page(page);
            loop {
                let mut long = short;
                let small = short.next_small(&page);
                let next = long.next(&page);
                if let Some(record) = small {
                    prop_assert_eq!(next, Ok(Some(record)));
                } else if !matches!(next, Ok(Some(_))) {
                    break;
                }
                short = long;
            }
        }

        #[test]
        fn any_words_are_walked_safely(page in proptest::collection::vec(any::<u32>(), 0..1024)) {
            check_walk(&page);
        }

        #[test]
        fn short_headers_are_walked_safely(page in proptest::collection::vec(0u32..64, 0..256)) {
            check_walk(&page);
        }
    }
}
