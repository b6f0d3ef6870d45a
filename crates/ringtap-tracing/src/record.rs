//! Building a record from the values that a callsite hands over, in one pass and without knowing their types before.
//!
//! ```text
//!   common | head: span ids | fixed fields, as they come | ... | texts, each with a NUL
//!   0        8                8 + head                         tail_start
//! ```
//!
//! Each fixed field has a place that follows from the fields before it, and the [`Key`] tells which fields came with
//! which types: the layout follows from the key alone. Texts go behind `tail_start`, which the callsite chooses; where
//! the fixed fields would run into it, the record is built again with as much room as they can need.

use std::cell::RefCell;
use std::fmt;
use tracing_core::field::{Field, Visit};

/// Largest record, in bytes. What does not fit is cut off the texts, the last ones first.
pub(crate) const CAPACITY: usize = 2048;
/// Fields that a record can hold; a callsite has no more, unless it is made by hand.
pub(crate) const MAX_FIELDS: usize = 32;
/// Bytes that are kept for the NULs of texts that find no more room, and for the record's padding.
const RESERVE: usize = MAX_FIELDS + 4;

/// How a field's value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stored {
    U64 = 1,
    I64 = 2,
    F64 = 3,
    /// In four bytes, of which the kernel's `bool` is the first.
    Bool = 4,
    /// A `__data_loc char[]`.
    Text = 5,
    /// A `__data_loc u8[]`.
    Bytes = 6,
}

impl Stored {
    pub(crate) const ALL: [Self; 6] = [Self::U64, Self::I64, Self::F64, Self::Bool, Self::Text, Self::Bytes];

    /// Bytes among the fixed fields; also their alignment.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Bool | Self::Text | Self::Bytes => 4,
        }
    }
}

/// Which of a callsite's fields a record has, and how each is stored: four bits a field.
///
/// Two words, added to and compared one by one: a wide load of words that were stored apart would stall.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Key {
    /// Of the first sixteen fields.
    low: u64,
    high: u64,
}

impl Key {
    #[inline(always)]
    fn add(&mut self, index: usize, stored: Stored) {
        let bits = (stored as u64) << (index % 16 * 4);
        if index < 16 {
            self.low |= bits;
        } else {
            self.high |= bits;
        }
    }

    #[inline(always)]
    pub(crate) fn is(self, other: Self) -> bool {
        self.low == other.low && self.high == other.high
    }

    /// How a field is stored; `None` where the record has no such field.
    pub(crate) fn get(self, index: usize) -> Option<Stored> {
        let word = if index < 16 { self.low } else { self.high };
        let nibble = word >> (index % 16 * 4) & 0xf;
        Stored::ALL.into_iter().find(|&stored| stored as u64 == nibble)
    }
}

/// The memory that records are built in.
#[repr(align(64))]
struct Buffer([u8; CAPACITY]);

thread_local! {
    /// Kept, so that it need not be filled with zeros for each record. No destructor, so that signal handlers may use it.
    static BUFFER: RefCell<Buffer> = const { RefCell::new(Buffer([0; CAPACITY])) };
}

/// Builds a record behind `HEAD` words of its own and lends it to `then`. `tail_start` is where texts begin: at most
/// `bound`, which must leave room for all fields that can come.
#[inline(always)]
pub(crate) fn build<const HEAD: usize>(
    tail_start: usize,
    bound: usize,
    visit: impl Fn(&mut dyn Visit),
    then: impl FnOnce(Record<'_, HEAD>),
) {
    BUFFER.with(|kept| {
        let (mut borrowed, mut spare);
        let buffer = match kept.try_borrow_mut() {
            Ok(buffer) => {
                borrowed = buffer;
                &mut *borrowed
            }
            // A signal handler, or a field's `Debug` that traces, came in between.
            Err(_) => {
                spare = Buffer([0; CAPACITY]);
                &mut spare
            }
        };
        let mut record = Record::new(buffer, tail_start);
        visit(&mut record);
        if record.is_narrow {
            record = Record::new(buffer, bound);
            visit(&mut record);
        }
        then(record);
    });
}

/// A record that is being built: a visitor that stores what it is shown.
pub(crate) struct Record<'b, const HEAD: usize> {
    bytes: &'b mut [u8; CAPACITY],
    key: Key,
    /// The first field that may still come: they come in the order of the callsite's.
    next_index: usize,
    /// Where the fixed fields end.
    fixed: usize,
    tail_start: usize,
    /// Where the texts end.
    tail: usize,
    /// The fixed fields needed more room than there was before the texts.
    is_narrow: bool,
}

impl<'b, const HEAD: usize> Record<'b, HEAD> {
    fn new(buffer: &'b mut Buffer, tail_start: usize) -> Self {
        Self {
            bytes: &mut buffer.0,
            key: Key::default(),
            next_index: 0,
            fixed: HEAD * 8,
            tail_start,
            tail: tail_start,
            is_narrow: false,
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// The record's bytes, with these words before the fields.
    #[inline(always)]
    pub(crate) fn finish(&mut self, head: [u64; HEAD]) -> &[u8] {
        for (place, word) in self.bytes.as_chunks_mut::<8>().0.iter_mut().zip(head) {
            *place = word.to_le_bytes();
        }
        if self.tail == self.tail_start {
            return &self.bytes[..self.fixed];
        }
        self.bytes[self.fixed..self.tail_start].fill(0);
        let end = self.tail.next_multiple_of(4);
        self.bytes[self.tail..end].fill(0);
        &self.bytes[..end]
    }

    /// The place of a field's value among the fixed ones; `None` where it cannot be taken.
    #[inline(always)]
    fn place(&mut self, field: &Field, stored: Stored) -> Option<usize> {
        let (index, size) = (field.index(), stored.size());
        let at = self.fixed.next_multiple_of(size);
        // Nobody hands fields over twice or in another order, but anybody could.
        if index < self.next_index || index >= MAX_FIELDS {
            return None;
        }
        if at + size > self.tail_start {
            self.is_narrow = true;
            return None;
        }
        if at > self.fixed {
            // A hole is as large as what stands before it: a word of four bytes.
            self.bytes[self.fixed..][..4].fill(0);
        }
        self.next_index = index + 1;
        self.key.add(index, stored);
        self.fixed = at + size;
        Some(at)
    }

    #[inline(always)]
    fn number(&mut self, field: &Field, stored: Stored, bits: u64) {
        if let Some(at) = self.place(field, stored) {
            self.bytes[at..at + 8].copy_from_slice(&bits.to_le_bytes());
        }
    }

    /// Takes what `write` puts behind the texts so far.
    #[inline(always)]
    fn dynamic(&mut self, field: &Field, stored: Stored, write: impl FnOnce(&mut Tail<'_>)) {
        let Some(at) = self.place(field, stored) else { return };
        let start = self.tail;
        let limit = (CAPACITY - RESERVE).max(start);
        let mut tail = Tail { bytes: self.bytes, end: start, limit };
        write(&mut tail);
        let mut end = tail.end;
        if stored == Stored::Text {
            self.bytes[end] = 0;
            end += 1;
        }
        self.tail = end;
        self.bytes[at..at + 4].copy_from_slice(&data_loc(start, end - start).to_le_bytes());
    }
}

/// Where dynamic data lies, as the kernel packs it: the length in the upper half, the offset in the lower.
#[expect(clippy::cast_possible_truncation, reason = "both are at most CAPACITY")]
fn data_loc(offset: usize, len: usize) -> u32 {
    const { assert!(CAPACITY <= u16::MAX as usize) };
    (len as u32) << 16 | offset as u32
}

impl<const HEAD: usize> Visit for Record<'_, HEAD> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.number(field, Stored::F64, value.to_bits());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, Stored::I64, value.cast_unsigned());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, Stored::U64, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if let Some(at) = self.place(field, Stored::Bool) {
            self.bytes[at..at + 4].copy_from_slice(&u32::from(value).to_le_bytes());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.dynamic(field, Stored::Text, |tail| tail.push(value));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.dynamic(field, Stored::Bytes, |tail| tail.push_bytes(value));
    }

    // The kernel's formats have no numbers of 128 bits: they, and all else, are told as text.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A `Debug` that fails has written what it could.
        self.dynamic(field, Stored::Text, |tail| {
            let _ = fmt::write(tail, format_args!("{value:?}"));
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.dynamic(field, Stored::Text, |tail| {
            let _ = fmt::write(tail, format_args!("{value}"));
        });
    }
}

/// Where texts are written to; what finds no room is left out.
struct Tail<'b> {
    bytes: &'b mut [u8; CAPACITY],
    end: usize,
    limit: usize,
}

impl Tail<'_> {
    #[inline(always)]
    fn push(&mut self, text: &str) {
        let room = self.limit - self.end;
        if text.len() <= room {
            return self.push_bytes(text.as_bytes());
        }
        let cut = text.floor_char_boundary(room);
        self.push_bytes(&text.as_bytes()[..cut]);
        // Nothing goes behind a text that was cut.
        self.limit = self.end;
    }

    #[inline(always)]
    fn push_bytes(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(self.limit - self.end)];
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }
}

impl fmt::Write for Tail<'_> {
    /// Never fails: there are `Debug`s that panic where writing does.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}
