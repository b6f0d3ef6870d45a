//! The packed 64-bit words of the ring. No mask or shift of theirs appears outside this file.
//!
//! ```text
//! slot    63                    17 16 15       0     tail    63                    17 16 15       0
//!        +------------------------+--+----------+           +------------------------+--+----------+
//!        |          seq           |c |   page   |           |          seq           |0 |   page   |
//!        +------------------------+--+----------+           +------------------------+--+----------+
//!
//! commit  63 62                32 31 30       0
//!        +--+--------------------+--+----------+
//!        |p |      entries       |x |  offset  |
//!        +--+--------------------+--+----------+
//! ```
//!
//! *seq* is a ring position; it starts at the number of ring sub-buffers and never wraps: 47 bits last for
//! fifteen years at a page turn every 3.4 µs. It is the `cnt` of the seeds' `trace_map_data_index`, and
//! *page* its `idx`.

/// Names a sub-buffer of one buffer: its place in the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubbufId(pub u16);

impl core::fmt::Display for SubbufId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

const SEQ_SHIFT: u32 = 17;
const CONSUMED: u64 = 1 << 16;
const PAGE_MASK: u64 = 0xffff;

/// Largest ring position that the words can hold.
pub const MAX_SEQ: u64 = u64::MAX >> SEQ_SHIFT;

const fn position(page: SubbufId, seq: u64) -> u64 {
    debug_assert!(seq <= MAX_SEQ);
    seq << SEQ_SHIFT | page.0 as u64
}

const fn page(word: u64) -> SubbufId {
    SubbufId((word & PAGE_MASK) as u16)
}

/// `slots[seq % ring_subbufs]`: which sub-buffer holds ring position `seq`.
///
/// | state | who makes the step |
/// | --- | --- |
/// | `{q, -, s}` | a writer claims the slot for position `s` before it moves the tail there |
/// | `{r, consumed, s}` | the host takes `q` as its reader page and leaves its old one, `r`, for reuse |
/// | `{q, consumed, s}` | the host drops position `s` (reset): nothing of it is read any more |
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Slot(u64);

impl Slot {
    /// A position that holds, or will hold, events nobody consumed.
    #[must_use]
    pub const fn unconsumed(page: SubbufId, seq: u64) -> Self {
        Self(position(page, seq))
    }

    /// A position whose events were taken; `page` is free for the writer.
    #[must_use]
    pub const fn consumed(page: SubbufId, seq: u64) -> Self {
        Self(position(page, seq) | CONSUMED)
    }

    /// From the shared word. Each bit pattern is a slot; whether it makes sense is for the caller to check.
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self(word)
    }

    /// To the shared word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.0
    }

    /// The sub-buffer named.
    #[must_use]
    pub const fn page(self) -> SubbufId {
        page(self.0)
    }

    /// The ring position named.
    #[must_use]
    pub const fn seq(self) -> u64 {
        self.0 >> SEQ_SHIFT
    }

    /// Whether the position's events were taken by the consuming reader.
    #[must_use]
    pub const fn is_consumed(self) -> bool {
        self.0 & CONSUMED != 0
    }
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let consumed = if self.is_consumed() { ", consumed" } else { "" };
        write!(f, "{{page {}, seq {}{consumed}}}", self.page(), self.seq())
    }
}

/// In a tail: the memory was replaced, and nothing is written to it any more.
const RETIRED: u64 = CONSUMED;

/// `tail`: the sub-buffer being written and its ring position. Also `reader`, the host's own page.
///
/// Every section compares the tail before it commits, so the mark that retires a buffer stands in this word: with the
/// lock held, and the page closed, one store of it ends all writing (docs/ring.md).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// Position `seq`, on sub-buffer `page`.
    #[must_use]
    pub const fn new(page: SubbufId, seq: u64) -> Self {
        Self(position(page, seq))
    }

    /// From the shared word.
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self(word)
    }

    /// To the shared word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.0
    }

    /// The same place, where nothing is written any more.
    #[must_use]
    pub const fn retired(self) -> Self {
        Self(self.0 | RETIRED)
    }

    /// Whether nothing is written any more.
    #[must_use]
    pub const fn is_retired(self) -> bool {
        self.0 & RETIRED != 0
    }

    /// The sub-buffer named.
    #[must_use]
    pub const fn page(self) -> SubbufId {
        page(self.0)
    }

    /// The ring position named.
    #[must_use]
    pub const fn seq(self) -> u64 {
        self.0 >> SEQ_SHIFT
    }
}

impl core::fmt::Debug for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let retired = if self.is_retired() { ", retired" } else { "" };
        write!(f, "{{page {}, seq {}{retired}}}", self.page(), self.seq())
    }
}

const PARITY: u64 = 1 << 63;
const ENTRIES_SHIFT: u32 = 32;
const ENTRIES_MASK: u64 = 0x7fff_ffff;
const CLOSED: u32 = 1 << 31;

/// `descs[page].w`: how far a sub-buffer is committed. One store of it publishes an event.
///
/// *offset* counts data bytes behind the sub-buffer's header, *entries* the events in them, and *parity*
/// says which of the two stamps is the last event's time. `x` says that the page is *closed*: it makes the
/// offset larger than any capacity, so that the hot path's only test, "does it fit?", also asks whether this
/// is a page that may be written right now. A page that holds nothing yet is *blank*: closed at offset 0.
///
/// | state | who makes the step |
/// | --- | --- |
/// | blank | the writer that moves the tail here; the page's header has no time yet |
/// | open | a writer commits an event: the page is the tail, and no lock holder is at work on it |
/// | closed | the writer that moves the tail on, before it does; whoever takes the lock, before it writes |
///
/// Closed says nothing but "look at the tail and the lock": a commit opens the page again, and closing it twice
/// is closing it once, so whoever dies having closed a page leaves nothing to repair.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Commit(u64);

impl Commit {
    /// A page without events. Its time stamp is set with the first one.
    pub const BLANK: Self = Self(CLOSED as u64);
    /// The bit that closes a page, in the shared word.
    pub const CLOSED_BIT: u64 = CLOSED as u64;

    /// From the shared word.
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self(word)
    }

    /// To the shared word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.0
    }

    /// Whether nothing was committed to the page since the tail moved there.
    #[must_use]
    pub const fn is_blank(self) -> bool {
        self.raw_offset() == CLOSED
    }

    /// Whether only the slow path may write here, if anybody.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        self.raw_offset() & CLOSED != 0
    }

    /// The same word, closed.
    #[must_use]
    pub const fn closed(self) -> Self {
        Self(self.0 | Self::CLOSED_BIT)
    }

    /// Where the next record would start, as the hot path tests it: larger than any capacity when closed.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the field")]
    pub const fn raw_offset(self) -> u32 {
        self.0 as u32
    }

    /// Committed data bytes; 0 when blank.
    #[must_use]
    pub const fn offset(self) -> u32 {
        self.raw_offset() & !CLOSED
    }

    /// Events committed.
    #[must_use]
    pub const fn entries(self) -> u32 {
        (self.0 >> ENTRIES_SHIFT & ENTRIES_MASK) as u32
    }

    /// Which of the page's two stamps is the time of its last event.
    #[must_use]
    #[inline(always)]
    pub const fn parity(self) -> usize {
        (self.0 >> 63) as usize
    }

    /// The word after one more event of `len` bytes, which opens the page. Not for blank pages: see
    /// [`Commit::first`].
    #[must_use]
    #[inline(always)]
    pub const fn and(self, len: u32) -> Self {
        debug_assert!(!self.is_blank());
        Self((self.0 & !Self::CLOSED_BIT).wrapping_add(Self::step(len)))
    }

    /// What one more event of `len` bytes adds to the word, wrapping: an entry, its bytes, the other parity.
    #[must_use]
    #[inline(always)]
    pub const fn step(len: u32) -> u64 {
        PARITY + (1 << ENTRIES_SHIFT) + len as u64
    }

    /// The word after a blank page's first event of `len` bytes; its time is in the stamp of parity 1.
    #[must_use]
    pub const fn first(len: u32) -> Self {
        Self(PARITY | 1 << ENTRIES_SHIFT | len as u64)
    }
}

impl core::fmt::Debug for Commit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.is_blank() {
            return f.write_str("{blank}");
        }
        let closed = if self.is_closed() { ", closed" } else { "" };
        write!(
            f,
            "{{offset {}, entries {}, parity {}{closed}}}",
            self.offset(),
            self.entries(),
            self.parity()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slots_and_places_round_trip(page: u16, seq in 0..=MAX_SEQ) {
            let page = SubbufId(page);
            for (slot, consumed) in [(Slot::unconsumed(page, seq), false), (Slot::consumed(page, seq), true)] {
                let slot = Slot::unpack(slot.pack());
                prop_assert_eq!((slot.page(), slot.seq(), slot.is_consumed()), (page, seq, consumed));
            }
            let place = Place::unpack(Place::new(page, seq).pack());
            prop_assert_eq!((place.page(), place.seq(), place.is_retired()), (page, seq, false));
            let place = Place::unpack(place.retired().pack());
            prop_assert_eq!((place.page(), place.seq(), place.is_retired()), (page, seq, true));
        }

        #[test]
        fn commits_add_up(lens in proptest::collection::vec(4u32..4096, 1..100)) {
            let mut word = Commit::first(lens[0]);
            for (done, &len) in lens.iter().enumerate().skip(1) {
                let parity = word.parity();
                word = Commit::unpack(word.pack()).and(len);
                prop_assert_eq!(word.parity(), parity ^ 1);
                prop_assert_eq!(word.entries() as usize, done + 1);
            }
            prop_assert_eq!(word.offset(), lens.iter().sum::<u32>());
        }

        #[test]
        fn foreign_words_never_panic(word: u64) {
            let (slot, commit) = (Slot::unpack(word), Commit::unpack(word));
            let _ = format!("{slot:?} {commit:?} {:?}", Place::unpack(word));
            prop_assert!(commit.parity() < 2);
        }
    }

    #[test]
    fn blank_reads_as_empty_and_fits_nothing() {
        assert!(Commit::BLANK.is_blank());
        assert_eq!((Commit::BLANK.offset(), Commit::BLANK.entries()), (0, 0));
        assert!(Commit::BLANK.raw_offset() > crate::geometry::MAX_SUBBUF_SIZE);
        assert!(!Commit::first(8).is_blank());
    }

    #[test]
    fn a_closed_page_says_the_same_and_fits_nothing_until_the_next_commit() {
        let open = Commit::first(8).and(12);
        let closed = open.closed();
        assert_eq!((closed.offset(), closed.entries(), closed.parity()), (20, 2, open.parity()));
        assert!(closed.is_closed() && !closed.is_blank() && !open.is_closed());
        assert!(closed.raw_offset() > crate::geometry::MAX_SUBBUF_SIZE);
        assert_eq!((closed.closed(), closed.and(4)), (closed, open.and(4)));
        assert_eq!(Commit::BLANK.closed(), Commit::BLANK);
    }
}
