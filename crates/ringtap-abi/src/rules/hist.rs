//! A histogram in shared memory: a table that is only added to, as the kernel's `tracing_map`.
//!
//! ```text
//!   head       what the keys and values are; hits, drops, elements used
//!   slots      {hash:32, element + 1:32}, twice as many as the elements asked for
//!   elements   hitcount, sums, the task's name (if asked for), the key's words
//! ```
//!
//! Who meets a new key takes the next element, fills it, and publishes it by one compare-exchange of an empty slot
//! (edge R3). Who is killed before that costs one element, which is why there are an eighth more than asked for;
//! who loses the race gives its element back if nobody took one meanwhile. Sums are added to; nothing is ever
//! moved or taken away, so that the host reads while writers write.

use super::PAGE;
use crate::predicate::{COMM_LEN, Field, Source, Words};

/// Keys of a histogram.
pub const MAX_KEYS: usize = 3;
/// Values of a histogram, the hitcount not counted.
pub const MAX_VALUES: usize = 3;
/// Longest key, in words: 384 bytes, as in the kernel.
pub const MAX_KEY_WORDS: usize = 48;
/// Longest text in a key, in bytes; longer ones are cut.
pub const MAX_TEXT: usize = 256;
/// Addresses of a stack in a key.
pub const STACK_DEPTH: usize = 16;
/// Fewest and most elements, as powers of 2.
pub const BITS: core::ops::RangeInclusive<u8> = 7..=17;
/// Words of the head.
pub const HEAD_WORDS: usize = 16;

const MAGIC: u64 = 0x4157;

/// What becomes of a number before it is a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Nothing.
    None,
    /// Its logarithm to the base 2, rounded up: `.log2`.
    Log2,
    /// The multiple of this size that it lies behind: `.buckets=N`.
    Buckets(u32),
    /// A thousandth: a time's microseconds, `.usecs`.
    Usecs,
}

impl Scale {
    /// Scales a number.
    #[must_use]
    pub const fn apply(self, number: u64) -> u64 {
        match self {
            Self::None => number,
            Self::Log2 if number <= 1 => 0,
            Self::Log2 => 64 - (number - 1).leading_zeros() as u64,
            Self::Buckets(0) => number,
            Self::Buckets(size) => number - number % size as u64,
            Self::Usecs => number / 1000,
        }
    }

    const fn pack(self) -> (u64, u64) {
        match self {
            Self::None => (0, 0),
            Self::Log2 => (1, 0),
            Self::Buckets(size) => (2, size as u64),
            Self::Usecs => (3, 0),
        }
    }

    fn unpack(code: u8, size: u64) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            1 => Some(Self::Log2),
            2 => Some(Self::Buckets(u32::try_from(size).ok()?)),
            3 => Some(Self::Usecs),
            _ => None,
        }
    }
}

/// What a key or a value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A number.
    Number(Field, Scale),
    /// A text.
    Text(Field),
    /// The stack.
    Stack,
    /// The time, in nanoseconds.
    Time(Scale),
}

impl Part {
    /// Words of it in a key.
    #[must_use]
    pub const fn words(&self) -> usize {
        match self {
            Self::Number(..) | Self::Time(_) => 1,
            Self::Text(field) => match field.source {
                Source::Array if (field.size as usize) < MAX_TEXT => (field.size as usize).div_ceil(8),
                Source::Comm => COMM_LEN / 8,
                _ => MAX_TEXT / 8,
            },
            Self::Stack => STACK_DEPTH,
        }
    }

    const fn pack(self) -> [u64; 2] {
        let (code, field, scale) = match self {
            Self::Number(field, scale) => (0, Some(field), scale),
            Self::Text(field) => (1, Some(field), Scale::None),
            Self::Stack => (2, None, Scale::None),
            Self::Time(scale) => (3, None, scale),
        };
        let (scale, size) = scale.pack();
        let field = match field {
            Some(field) => field.pack(),
            None => 0,
        };
        [field | code | scale << 2, size]
    }

    fn unpack(words: [u64; 2]) -> Option<Self> {
        let [low, ..] = words[0].to_le_bytes();
        let scale = Scale::unpack(low >> 2 & 3, words[1])?;
        match low & 3 {
            0 => Some(Self::Number(Field::unpack(words[0])?, scale)),
            1 => Some(Self::Text(Field::unpack(words[0])?)),
            2 => Some(Self::Stack),
            _ => Some(Self::Time(scale)),
        }
    }
}

/// What a histogram holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its keys; the first `None` ends them.
    pub keys: [Option<Part>; MAX_KEYS],
    /// The values that are summed up; the first `None` ends them.
    pub values: [Option<Part>; MAX_VALUES],
    /// The elements it has room for, as a power of 2.
    pub bits: u8,
    /// Whether each element keeps the name of the task that made it.
    pub with_comm: bool,
}

impl Shape {
    /// Its parts, keys first.
    fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        self.keys.iter().chain(&self.values).flatten().copied()
    }

    /// Words of a key.
    #[must_use]
    pub fn key_words(&self) -> usize {
        self.keys.iter().flatten().map(Part::words).sum()
    }

    /// Values, the hitcount not counted.
    #[must_use]
    pub fn nr_values(&self) -> usize {
        self.values.iter().flatten().count()
    }

    /// Whether a histogram of this shape can be made.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        BITS.contains(&self.bits)
            && self.keys[0].is_some()
            && self.key_words() <= MAX_KEY_WORDS
            && self.values.iter().flatten().all(|value| matches!(value, Part::Number(..) | Part::Time(_)))
    }

    /// The head's words that say all this.
    #[must_use]
    pub fn pack(&self) -> [u64; HEAD_WORDS] {
        let mut head = [0; HEAD_WORDS];
        let keys = self.keys.iter().flatten().count() as u64;
        head[0] = MAGIC
            | keys << 16
            | (self.nr_values() as u64) << 24
            | u64::from(self.bits) << 32
            | u64::from(self.with_comm) << 40;
        for (words, part) in head[place::PARTS..].chunks_mut(2).zip(self.parts()) {
            words.copy_from_slice(&part.pack());
        }
        head
    }

    /// The shape that a head says, if it is one.
    #[must_use]
    pub fn unpack<W: Words + ?Sized>(words: &W, at: usize) -> Option<Self> {
        let [m0, m1, keys, values, bits, comm, ..] = words.word(at)?.to_le_bytes();
        if u64::from(u16::from_le_bytes([m0, m1])) != MAGIC {
            return None;
        }
        let (keys, values) = (usize::from(keys), usize::from(values));
        if keys > MAX_KEYS || values > MAX_VALUES {
            return None;
        }
        let part = |nth: usize| {
            let at = at.checked_add(place::PARTS + 2 * nth)?;
            Part::unpack([words.word(at)?, words.word(at + 1)?])
        };
        let mut shape =
            Self { keys: [None; MAX_KEYS], values: [None; MAX_VALUES], bits, with_comm: comm & 1 == 1 };
        for (nth, key) in shape.keys.iter_mut().take(keys).enumerate() {
            *key = Some(part(nth)?);
        }
        for (nth, value) in shape.values.iter_mut().take(values).enumerate() {
            *value = Some(part(keys + nth)?);
        }
        shape.is_sane().then_some(shape)
    }

    /// Where everything lies, from the head's place on.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let size = 1usize << self.bits;
        let comm = if self.with_comm { COMM_LEN / 8 } else { 0 };
        let name = 1 + self.nr_values();
        let key = name + comm;
        let element = key + self.key_words();
        Layout { slots: 2 * size, elements: size + size / 8, name, key, element }
    }
}

/// Where a histogram's parts lie, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Slots; a power of 2.
    pub slots: usize,
    /// Elements.
    pub elements: usize,
    /// Place of the task's name in an element.
    pub name: usize,
    /// Place of the key in an element.
    pub key: usize,
    /// Words of an element.
    pub element: usize,
}

impl Layout {
    /// Words in all, rounded up to pages.
    #[must_use]
    pub const fn words(&self) -> usize {
        (HEAD_WORDS + self.slots + self.elements * self.element).next_multiple_of(PAGE)
    }

    /// Place of a slot, from the head's.
    #[must_use]
    pub const fn slot(&self, nth: usize) -> usize {
        HEAD_WORDS + nth % self.slots
    }

    /// Place of an element, from the head's.
    #[must_use]
    pub const fn element(&self, nth: usize) -> usize {
        HEAD_WORDS + self.slots + nth * self.element
    }
}

/// Places of words in the head.
pub mod place {
    /// Events that were counted.
    pub const HITS: usize = 1;
    /// Events that were not: there was no room.
    pub const DROPS: usize = 2;
    /// Elements used.
    pub const USED: usize = 3;
    /// The parts, two words each.
    pub(super) const PARTS: usize = 4;
}

const _: () = assert!(place::PARTS + 2 * (MAX_KEYS + MAX_VALUES) == HEAD_WORDS);

/// A slot: the hash of its element's key, which is never 0, and the element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The key's hash.
    pub hash: u32,
    /// The element.
    pub element: u32,
}

impl Slot {
    /// To the word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.hash as u64) << 32 | (self.element + 1) as u64
    }

    /// From the word; `None` where it is empty, or the element lies outside.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    pub fn unpack(word: u64, layout: &Layout) -> Option<Self> {
        let element = (word as u32).checked_sub(1)?;
        ((element as usize) < layout.elements).then_some(Self { hash: (word >> 32) as u32, element })
    }
}

/// The hash of a key; never 0.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the upper half is mixed into the lower")]
pub fn hash(key: &[u64]) -> u32 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = key.iter().fold(PRIME, |hash, word| {
        let hash = (hash ^ word).wrapping_mul(PRIME);
        hash ^ hash >> 29
    });
    ((mixed ^ mixed >> 32) as u32).max(1)
}

/// What reading a histogram's head promises of any words: a shape that packs to the same, or none.
pub(super) fn check_hist(words: &[u64], payload: &[u8]) {
    if let Some(shape) = Shape::unpack(words, 0) {
        assert_eq!(Shape::unpack(&shape.pack()[..], 0), Some(shape));
        assert!(shape.layout().words() <= super::HISTS, "{shape:?} has no room");
        let number = payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        for part in shape.parts() {
            if let Part::Number(_, scale) = part {
                assert!(scale.apply(number) <= number || scale == Scale::None || number < 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales() {
        let log2 = |number| Scale::Log2.apply(number);
        assert_eq!([0, 1, 2, 3, 4, 5, 1024, 1025, u64::MAX].map(log2), [0, 0, 1, 2, 2, 3, 10, 11, 64]);
        assert_eq!([0, 9, 10, 25].map(|number| Scale::Buckets(10).apply(number)), [0, 0, 10, 20]);
        assert_eq!(Scale::Usecs.apply(1999), 1);
    }

    #[test]
    fn shapes_survive_packing() {
        let field = Field { source: Source::Int, signed: true, offset: 8, size: 4 };
        let text = Field { source: Source::DataLoc, signed: false, offset: 12, size: 4 };
        let shape = Shape {
            keys: [
                Some(Part::Text(text)),
                Some(Part::Number(field, Scale::Buckets(7))),
                Some(Part::Time(Scale::Usecs)),
            ],
            values: [Some(Part::Number(field, Scale::None)), None, None],
            bits: 11,
            with_comm: true,
        };
        assert_eq!(Shape::unpack(&shape.pack()[..], 0), Some(shape));
        assert_eq!(shape.key_words(), 34);
        let layout = shape.layout();
        assert_eq!((layout.slots, layout.name, layout.key, layout.element), (4096, 2, 4, 38));
        let too_long = Shape { keys: [Some(Part::Text(text)), Some(Part::Text(text)), None], ..shape };
        assert!(!too_long.is_sane());
        assert_eq!(Shape::unpack(&[0; HEAD_WORDS][..], 0), None);
    }

    #[test]
    fn the_largest_histogram_has_room() {
        let shape = Shape {
            keys: [Some(Part::Stack), Some(Part::Stack), Some(Part::Stack)],
            values: [Some(Part::Time(Scale::None)); MAX_VALUES],
            bits: *BITS.end(),
            with_comm: true,
        };
        assert!(shape.is_sane());
        assert!(shape.layout().words() <= super::super::HISTS);
    }
}
