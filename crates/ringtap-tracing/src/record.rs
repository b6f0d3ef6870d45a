//! Building a record from the values that a callsite hands over, in one pass and without knowing their types before.
//!
//! ```text
//!   common | head: span ids | fixed fields, as they come | ... | texts, each with a NUL
//!   0        8                8 + head                         tail_start
//! ```
//!
//! Each fixed field has a place that follows from the fields before it, and the [`Key`] tells which fields came with
//! which types: the layout follows from the key alone. Nearly always a callsite's records are alike, so a record is built
//! by a [`Plan`]: each value that comes as planned goes where the plan says, and nothing is computed. From the
//! first one on that does not, places and key are.
//!
//! Texts go behind `tail_start`, which the callsite chooses; where the fixed fields would run into it, the record is built
//! again with as much room as they can need.
//!
//! Words of four bytes are stored as halves of eight: the ring is given words of eight, and a load across two stores
//! would wait until both have reached the cache. So there is nothing to clear where a half stays empty, either.

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

/// Where a field goes in records that are laid out alike.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// How many fields come before it, and how it is stored: one word, so that one comparison tells.
    what: u16,
    at: At,
}

/// A place in a record: a word of eight bytes, or a half of one. A record has no more words than a byte can count.
#[derive(Clone, Copy, Debug)]
struct At {
    word: u8,
    is_upper: bool,
}

const _: () = assert!(CAPACITY / 8 == u8::MAX as usize + 1);

impl At {
    /// `offset` is a multiple of four, in a record.
    #[expect(clippy::cast_possible_truncation, reason = "CAPACITY has no more words")]
    const fn new(offset: usize) -> Self {
        debug_assert!(offset < CAPACITY && offset.is_multiple_of(4));
        Self { word: (offset / 8) as u8, is_upper: !offset.is_multiple_of(8) }
    }

    const fn offset(self) -> usize {
        self.word as usize * 8 + self.is_upper as usize * 4
    }
}

impl Place {
    /// Of a field that does not come.
    const NONE: Self = Self { what: 0, at: At::new(0) };

    /// As what a field is stored that comes behind so many others.
    #[expect(clippy::cast_possible_truncation, reason = "no more than MAX_FIELDS do")]
    fn new(before: usize, stored: Stored, at: At) -> Self {
        Self { what: (before as u16) << 8 | stored as u16, at }
    }

    #[inline(always)]
    fn is(self, before: usize, stored: Stored) -> bool {
        usize::from(self.what) == before << 8 | stored as usize
    }

    fn before(self) -> usize {
        usize::from(self.what >> 8)
    }

    /// How the field is stored; `None` where it does not come.
    fn stored(self) -> Option<Stored> {
        Stored::ALL.into_iter().find(|&stored| stored as u16 == self.what & 0xff)
    }
}

/// Where the fixed fields of records go that are laid out alike.
///
/// By the fields' indices: so each place is found without waiting for the ones before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    places: [Place; MAX_FIELDS],
    /// Fields that come.
    count: usize,
    /// Where they end.
    pub(crate) end: usize,
}

impl Plan {
    /// Of records of which nothing is known.
    pub(crate) const NONE: &Self = &Self::new(0);

    /// Of records without fields so far; the first one can begin at this offset.
    pub(crate) const fn new(end: usize) -> Self {
        Self { places: [Place::NONE; MAX_FIELDS], count: 0, end }
    }

    /// Another field comes. Returns where it goes.
    ///
    /// # Panics
    /// Where the record has no room for it, or the callsite no such field.
    pub(crate) fn push(&mut self, index: usize, stored: Stored) -> usize {
        let offset = self.end.next_multiple_of(stored.size());
        self.end = offset + stored.size();
        assert!(self.end <= CAPACITY, "field {index} at {offset}");
        self.places[index] = Place::new(self.count, stored, At::new(offset));
        self.count += 1;
        offset
    }
}

/// The memory that records are built in.
#[repr(align(64))]
pub(crate) struct Buffer([u8; CAPACITY]);

thread_local! {
    /// Kept, so that it need not be filled with zeros for each record. No destructor, so that signal handlers may use it.
    static BUFFER: RefCell<Buffer> = const { RefCell::new(Buffer([0; CAPACITY])) };
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self([0; CAPACITY])
    }

    /// Lends the thread's to `use_it`. `false` where a signal handler, or a field's `Debug` that traces, came in between.
    #[inline(always)]
    pub(crate) fn lend(use_it: impl FnOnce(&mut Self)) -> bool {
        BUFFER.with(|kept| {
            let borrowed = kept.try_borrow_mut();
            borrowed.map(|mut buffer| use_it(&mut buffer)).is_ok()
        })
    }
}

/// A record that is being built behind `HEAD` words of its own: a visitor that stores what it is shown.
///
/// It stays where it is made: its words were stored one by one, and would be moved by two.
pub(crate) struct Record<'b, const HEAD: usize> {
    bytes: &'b mut [u8; CAPACITY],
    plan: &'static Plan,
    /// Fields that came, as long as all is as planned; then [`UNPLANNED`]. A whole word: what is stored as a byte and loaded
    /// as more waits for the cache.
    came: usize,
    tail_start: usize,
    /// Where the texts end.
    tail: usize,
    /// Once something else came than was planned.
    unplanned: Option<Unplanned>,
}

/// As many fields as no plan has.
const UNPLANNED: usize = usize::MAX >> 8;

/// What is computed of a record that is not as planned.
#[derive(Clone, Copy)]
struct Unplanned {
    key: Key,
    /// The first field that may still come: they come in the order of the callsite's.
    next_index: usize,
    /// Where the fixed fields end.
    fixed: usize,
    /// They needed more room than there was before the texts.
    is_narrow: bool,
}

impl Unplanned {
    /// Nothing came; the first field goes at this offset.
    fn at(fixed: usize) -> Self {
        Self { key: Key::default(), next_index: 0, fixed, is_narrow: false }
    }

    /// A field went there.
    fn take(&mut self, index: usize, stored: Stored, at: usize) {
        self.key.add(index, stored);
        self.next_index = index + 1;
        self.fixed = at + stored.size();
    }
}

impl<'b, const HEAD: usize> Record<'b, HEAD> {
    /// `tail_start` is where texts begin: a multiple of eight, and not before the plan's end.
    #[inline(always)]
    pub(crate) fn new(buffer: &'b mut Buffer, plan: &'static Plan, tail_start: usize) -> Self {
        Self { bytes: &mut buffer.0, plan, came: 0, tail_start, tail: tail_start, unplanned: None }
    }

    /// Shows it what it is made of. `bound` is a `tail_start` that leaves room for all fields that can come.
    #[inline(always)]
    pub(crate) fn build(&mut self, bound: usize, visit: impl Fn(&mut dyn Visit)) {
        visit(self);
        if self.unplanned.is_some_and(|unplanned| unplanned.is_narrow) {
            self.build_again(bound, &visit);
        }
    }

    #[cold]
    #[inline(never)]
    fn build_again(&mut self, bound: usize, visit: &dyn Fn(&mut dyn Visit)) {
        (self.tail_start, self.tail) = (bound, bound);
        self.unplanned = Some(Unplanned::at(HEAD * 8));
        visit(self);
    }

    /// Whether it is laid out as planned.
    #[inline(always)]
    pub(crate) fn is_as_planned(&self) -> bool {
        self.came == self.plan.count
    }

    pub(crate) fn key(&mut self) -> Key {
        self.drop_plan().key
    }

    /// From now on places are computed.
    fn drop_plan(&mut self) -> &mut Unplanned {
        let came = std::mem::replace(&mut self.came, UNPLANNED);
        let places = &self.plan.places;
        self.unplanned.get_or_insert_with(|| {
            let mut unplanned = Unplanned::at(HEAD * 8);
            // Fields are planned in the order of their indices, so those that came are the first of them.
            for (index, place) in places.iter().enumerate().filter(|(_, place)| place.before() < came) {
                if let Some(stored) = place.stored() {
                    unplanned.take(index, stored, place.at.offset());
                }
            }
            unplanned
        })
    }

    /// The record's bytes, with these words before the fields.
    #[inline(always)]
    pub(crate) fn finish(&mut self, head: [u64; HEAD]) -> &[u8] {
        for (place, word) in self.bytes.as_chunks_mut::<8>().0.iter_mut().zip(head) {
            *place = word.to_le_bytes();
        }
        let fixed = self.unplanned.map_or(self.plan.end, |unplanned| unplanned.fixed);
        if self.tail == self.tail_start {
            return &self.bytes[..fixed];
        }
        if fixed.next_multiple_of(8) < self.tail_start {
            self.bytes[fixed.next_multiple_of(8)..self.tail_start].fill(0);
        }
        // There is always that much room, and a known length is no call.
        self.bytes[self.tail..self.tail + 4].fill(0);
        &self.bytes[..self.tail.next_multiple_of(4)]
    }

    /// The place of a field's value, where it is the next one that is planned.
    #[inline(always)]
    fn planned_place(&mut self, field: &Field, stored: Stored) -> Option<At> {
        let place = self.plan.places.get(field.index()).filter(|place| place.is(self.came, stored))?;
        self.came += 1;
        Some(place.at)
    }

    /// The place of a field's value among the fixed ones; `None` where it cannot be taken.
    #[cold]
    #[inline(never)]
    fn compute_place(&mut self, index: usize, stored: Stored) -> Option<At> {
        let tail_start = self.tail_start;
        let unplanned = self.drop_plan();
        let at = unplanned.fixed.next_multiple_of(stored.size());
        // Nobody hands fields over twice or in another order, but anybody could.
        if index < unplanned.next_index || index >= MAX_FIELDS {
            return None;
        }
        if at + stored.size() > tail_start {
            unplanned.is_narrow = true;
            return None;
        }
        unplanned.take(index, stored, at);
        Some(At::new(at))
    }

    /// A word of the record.
    #[inline(always)]
    fn word(&mut self, at: At) -> &mut [u8; 8] {
        &mut self.bytes.as_chunks_mut::<8>().0[usize::from(at.word)]
    }

    #[inline(always)]
    fn number(&mut self, field: &Field, stored: Stored, bits: u64) {
        match self.planned_place(field, stored) {
            Some(at) => *self.word(at) = bits.to_le_bytes(),
            None => self.other_number(field.index(), stored, bits),
        }
    }

    #[cold]
    #[inline(never)]
    fn other_number(&mut self, index: usize, stored: Stored, bits: u64) {
        if let Some(at) = self.compute_place(index, stored) {
            *self.word(at) = bits.to_le_bytes();
        }
    }

    /// Stores half a word: the lower one with zeros above, where the next one finds its place. No text begins in the same word.
    #[inline(always)]
    fn half(&mut self, at: At, bits: u32) {
        let word = self.word(at);
        let bits = match at.is_upper {
            false => bits.into(),
            true => {
                u64::from(bits) << 32 | u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            }
        };
        *word = bits.to_le_bytes();
    }

    /// Takes what `write` puts behind the texts so far.
    #[inline(always)]
    fn dynamic(&mut self, field: &Field, stored: Stored, write: impl FnOnce(&mut Tail<'_>)) {
        let place = self.planned_place(field, stored).or_else(|| self.compute_place(field.index(), stored));
        let Some(at) = place else { return };
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
        self.half(at, data_loc(start, end - start));
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
        let place = self.planned_place(field, Stored::Bool);
        if let Some(at) = place.or_else(|| self.compute_place(field.index(), Stored::Bool)) {
            self.half(at, value.into());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callsite::{Layout, Tells};
    use tracing_core::Callsite;

    const HEAD: usize = 2;

    fn fields() -> Vec<Field> {
        let callsite = tracing::callsite! {
            name: "many",
            kind: tracing::metadata::Kind::EVENT,
            fields: a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r
        };
        callsite.metadata().fields().iter().collect()
    }

    /// What a callsite hands over: for each field nothing, or a value of that type.
    type Values = Vec<Option<Stored>>;

    fn show(values: &Values, fields: &[Field], visitor: &mut dyn Visit) {
        for (field, stored) in fields.iter().zip(values) {
            let number = 0x1111_1111_1111_1111 * (field.index() as u64 % 14 + 1);
            match stored {
                Some(Stored::U64) => visitor.record_u64(field, number),
                Some(Stored::I64) => visitor.record_i64(field, -number.cast_signed()),
                Some(Stored::F64) => visitor.record_f64(field, f64::from_bits(number)),
                Some(Stored::Bool) => visitor.record_bool(field, true),
                Some(Stored::Text) => visitor.record_str(field, &"a text"[..field.index() % 7]),
                Some(Stored::Bytes) => visitor.record_bytes(field, &[7, 8, 9]),
                None => {}
            }
        }
    }

    /// The record's key, bytes, and whether it came as planned, in memory that others left full.
    fn record(
        plan: &'static Plan,
        tail_start: usize,
        values: &Values,
        fields: &[Field],
    ) -> (Key, Vec<u8>, bool) {
        let mut buffer = Buffer([0xaa; CAPACITY]);
        let mut record = Record::<HEAD>::new(&mut buffer, plan, tail_start);
        record.build(8 * (HEAD + fields.len()), |visitor| show(values, fields, visitor));
        let is_as_planned = plan.end > 0 && record.is_as_planned();
        if !is_as_planned {
            let _ = record.key();
        }
        let bytes = record.finish([1, 2]).to_vec();
        (record.key(), bytes, is_as_planned)
    }

    #[test]
    fn planned_records_are_those_that_are_computed() {
        let fields = fields();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut values = |count: u64| -> Values {
            let mut value = |_| Stored::ALL.get(usize::try_from(next(12)).expect("small")).copied();
            (0..count).map(&mut value).collect()
        };
        let callsite = fields[0].callsite();
        let is_same =
            |one: &(Key, Vec<u8>, bool), other: &(Key, Vec<u8>, bool)| one.0.is(other.0) && one.1 == other.1;
        let (mut planned, mut others) = (0, 0);
        for round in 0..4000_u64 {
            let first = values(round % 19);
            // Of every two the same, of the others some that begin alike.
            let mut second = first.clone();
            if round % 2 == 1 {
                second.truncate(usize::try_from(round / 2).expect("small") % 19);
                let more = fields.len() - second.len();
                second.extend(values(more as u64));
            }
            let (key, ..) = record(Plan::NONE, 8 * (HEAD + fields.len()), &first, &fields);
            let plan = Layout::of(callsite.0.metadata(), "", Tells::Event, key).plan;
            let plan: &Plan = Box::leak(Box::new(plan));
            for tail_start in [plan.end.next_multiple_of(8), 8 * (HEAD + fields.len())] {
                let by_plan = record(plan, tail_start, &second, &fields);
                let computed = record(Plan::NONE, tail_start, &second, &fields);
                assert!(is_same(&by_plan, &computed), "{first:?} {second:?} {by_plan:x?} {computed:x?}");
                assert_eq!((by_plan.2, computed.2), (by_plan.0.is(key), false), "{first:?} {second:?}");
                planned += u32::from(by_plan.2);
                others += u32::from(!by_plan.2);
            }
        }
        assert!(planned > 1000 && others > 1000, "{planned} {others}");
    }
}
