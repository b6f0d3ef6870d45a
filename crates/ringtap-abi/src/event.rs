//! Records: the 32-bit event header and what follows it, as `events/header_event` describes them.
//!
//! ```text
//!  31                              5 4        0
//!  +--------------------------------+----------+
//!  |           time_delta           | type_len |     little-endian machines
//!  +--------------------------------+----------+
//! ```
//!
//! | type_len | meaning | bytes |
//! | --- | --- | --- |
//! | 1..=28 | data of `4 * type_len` bytes | `4 + 4 * type_len` |
//! | 0 | data; the next word is its length + 4 | `4 + next word` |
//! | 29, delta 0 | padding to the end of the page | |
//! | 29 | a discarded event or filler; the next word is its length + 4 | `4 + next word` |
//! | 30 | time extend: `delta + (next word << 27)` is added to the next event's time | 8 |
//! | 31 | time stamp: the same number is the absolute time's low 59 bits | 8 |

/// Largest payload whose length fits in `type_len`, in bytes.
pub const MAX_SMALL_PAYLOAD: u32 = 28 * 4;
/// Bits of `time_delta`.
pub const DELTA_BITS: u32 = 27;
/// First delta that needs a time extend.
pub const DELTA_LIMIT: u64 = 1 << DELTA_BITS;
/// Bits of an extend's or a stamp's number.
pub const STAMP_BITS: u32 = 59;
/// Bytes of a time extend or time stamp.
pub const EXTEND_LEN: u32 = 8;

const TYPE_PADDING: u32 = 29;
const TYPE_TIME_EXTEND: u32 = 30;
const TYPE_TIME_STAMP: u32 = 31;
const STAMP_MASK: u64 = (1 << STAMP_BITS) - 1;

/// The type of a 32-bit event header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data whose length in bytes is in the header: 4 to 112.
    Small(u32),
    /// Data whose length + 4 is in the next word.
    Large,
    /// Padding, or an event that was discarded.
    Padding,
    /// A delta too large for an event header.
    TimeExtend,
    /// An absolute time.
    TimeStamp,
}

/// A 32-bit event header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    /// What follows.
    pub kind: Kind,
    /// `time_delta`: ticks since the event before, below [`DELTA_LIMIT`].
    pub delta: u32,
}

impl EventHeader {
    /// From a header word as a little-endian machine lays out its bits.
    #[must_use]
    #[inline(always)]
    pub const fn from_le_bits(word: u32) -> Self {
        Self { kind: Self::kind(word & 31), delta: word >> 5 }
    }

    /// From a header word as a big-endian machine lays out its bits: the type is on top.
    #[must_use]
    #[inline(always)]
    pub const fn from_be_bits(word: u32) -> Self {
        Self { kind: Self::kind(word >> DELTA_BITS), delta: word & ((1 << DELTA_BITS) - 1) }
    }

    #[inline(always)]
    const fn kind(type_len: u32) -> Kind {
        match type_len {
            0 => Kind::Large,
            TYPE_PADDING => Kind::Padding,
            TYPE_TIME_EXTEND => Kind::TimeExtend,
            TYPE_TIME_STAMP => Kind::TimeStamp,
            words => Kind::Small(words * 4),
        }
    }
}

/// Joins a header's delta with the word behind it: an extend's delta, or a stamp's low 59 bits.
#[must_use]
#[inline(always)]
pub const fn join_stamp(delta: u32, next_word: u32) -> u64 {
    ((next_word as u64) << DELTA_BITS) + delta as u64
}

/// The absolute time that a stamp's low 59 bits mean, after an event at `previous`.
///
/// The high five bits are the previous time's; where that would go backwards, the low bits have wrapped.
#[must_use]
pub const fn absolute_time(stamp: u64, previous: u64) -> u64 {
    let time = previous & !STAMP_MASK | stamp & STAMP_MASK;
    if time < previous { time.wrapping_add(1 << STAMP_BITS) } else { time }
}

/// The two words of a time extend for `delta` ticks; higher bits than 59 do not fit and are cut.
#[must_use]
pub const fn time_extend(delta: u64) -> [u32; 2] {
    extended(TYPE_TIME_EXTEND, delta)
}

/// The two words of an absolute time stamp; higher bits than 59 are the reader's to restore.
#[must_use]
pub const fn time_stamp(time: u64) -> [u32; 2] {
    extended(TYPE_TIME_STAMP, time)
}

const fn extended(type_len: u32, number: u64) -> [u32; 2] {
    let low = (number & (DELTA_LIMIT - 1)) as u32;
    [low << 5 | type_len, ((number & STAMP_MASK) >> DELTA_BITS) as u32]
}

/// How a payload is laid out in a record: computed from its length alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of the header words: 4, or 8 when the length has a word of its own.
    pub head: u32,
    /// Bytes of the payload, rounded up as the kernel does.
    pub body: u32,
}

impl Shape {
    /// The record for `len` payload bytes, with the kernel's rules: an empty payload takes one byte, all is
    /// rounded up to 4, and a total of 12 bytes never occurs (16 is used), because a discarded event must be
    /// able to become a time extend and padding.
    #[must_use]
    #[inline(always)]
    pub const fn of(len: u32) -> Self {
        let body = if len == 0 { 4 } else { len.next_multiple_of(4) };
        match body {
            8 => Self { head: 4, body: 12 },
            body if body <= MAX_SMALL_PAYLOAD => Self { head: 4, body },
            body => Self { head: 8, body },
        }
    }

    /// Bytes of the whole record, a time extend in front of it not counted.
    #[must_use]
    #[inline(always)]
    pub const fn total(self) -> u32 {
        self.head + self.body
    }

    /// The header words: the first `head` bytes of the array are used. `delta` is below [`DELTA_LIMIT`].
    #[must_use]
    #[inline(always)]
    pub const fn header(self, delta: u32) -> [u32; 2] {
        debug_assert!((delta as u64) < DELTA_LIMIT);
        let type_len = if self.head == 4 { self.body / 4 } else { 0 };
        [delta << 5 | type_len, self.body + 4]
    }
}

/// Largest payload that a page of `capacity` data bytes takes: 8 bytes go to the header.
#[must_use]
pub const fn max_payload(capacity: u32) -> u32 {
    capacity - 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_sizes_are_the_kernels() {
        // Payload length -> total record bytes, as Linux 6.18 lays them out.
        let seen =
            [(0, 8), (1, 8), (4, 8), (5, 16), (8, 16), (9, 16), (12, 16), (13, 20), (16, 20), (112, 116)];
        for (len, total) in seen {
            assert_eq!(Shape::of(len).total(), total, "{len} bytes");
        }
        // One more and the length takes a word of its own; 1124 is what a 1128-byte record says there.
        assert_eq!(Shape::of(113).total(), 8 + 116);
        assert_eq!(Shape::of(1120).header(0), [0, 1124]);
        assert_eq!(Shape::of(max_payload(4080)).total(), 4080);
    }

    #[test]
    fn headers_round_trip() {
        for delta in [0, 1, 77, (1 << 27) - 1] {
            let [word, _] = Shape::of(24).header(delta);
            assert_eq!(EventHeader::from_le_bits(word), EventHeader { kind: Kind::Small(24), delta });
            let [word, len] = Shape::of(200).header(delta);
            assert_eq!(EventHeader::from_le_bits(word), EventHeader { kind: Kind::Large, delta });
            assert_eq!(len, 204);
        }
        let be = EventHeader::from_be_bits(29 << 27 | 5);
        assert_eq!(be, EventHeader { kind: Kind::Padding, delta: 5 });
    }

    #[test]
    fn extends_and_stamps_round_trip() {
        for number in [0, 1, DELTA_LIMIT, 300_180_000, (1 << 59) - 1] {
            let [head, next] = time_extend(number);
            let header = EventHeader::from_le_bits(head);
            assert_eq!(header.kind, Kind::TimeExtend);
            assert_eq!(join_stamp(header.delta, next), number);
        }
        // 300.18 ms on a kernel: next word 2, delta 31748896.
        assert_eq!(time_extend((2 << 27) + 31_748_896), [31_748_896 << 5 | 30, 2]);
    }

    #[test]
    fn absolute_times_regain_their_high_bits() {
        let high = 3u64 << 59;
        assert_eq!(absolute_time(7, high | 5), high | 7);
        assert_eq!(absolute_time(3, high | 5), (4u64 << 59) | 3);
        assert_eq!(absolute_time(9, 0), 9);
    }
}
