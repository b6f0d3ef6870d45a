//! Columns of numbers and words of which there are not many different ones: the CPU, the task, most fields.
//!
//! The general encoder hashes each row's value, words byte by byte, and does the same for each column. Here words have their
//! places already, and numbers take one look into a table that the caches hold. What is written is the same.

use super::chunk::{Chunk, Packer, PageOf, size};
use super::hybrid::{MAX_BITS, bits_for, put_all};
use super::runs::plain;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, PrimitiveArray};
use arrow_schema::DataType;
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::ColumnDescPtr;
use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

/// Most words of a dictionary.
const MAX_WORDS: usize = 1 << MAX_BITS;
/// Numbers after which it shows whether there are few different ones.
const TRIAL: usize = 1 << 12;
/// Values of a page.
const PAGE_VALUES: usize = 1 << 16;
/// Rows that a run of nulls, or of values, must have on the average; pages hold such runs only.
const MEAN_RUN: usize = 16;

/// Rows of one column.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// Nothing, as the rows are of another event, whose struct has the values.
    Elsewhere(usize),
    Values(ArrayRef),
}

impl Piece {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Elsewhere(rows) => *rows,
            Self::Values(values) => values.len(),
        }
    }
}

/// Whether columns of this type can be written here.
pub(super) fn is_codable(data_type: &DataType) -> bool {
    data_type.is_integer() || *data_type == crate::table::dictionary()
}

/// The rows of one column, encoded.
#[derive(Debug)]
pub(super) struct Coded {
    words: Vocabulary,
    /// The places of the words, of rows that have one.
    places: Vec<u32>,
    /// How deep rows are defined, in runs.
    levels: Vec<(u8, u32)>,
    rows: usize,
}

#[derive(Debug)]
enum Vocabulary {
    Words(Words),
    Numbers(Numbers),
}

#[derive(Debug, Default)]
struct Words {
    words: Vec<Box<str>>,
    known: HashMap<Box<str>, u32>,
    /// The words of the array at hand, and their places where they are known.
    array: Option<ArrayRef>,
    of_array: Vec<u32>,
}

/// Numbers, each once, found by hashing.
#[derive(Debug)]
struct Numbers {
    /// In 64 bits, with the sign where the column's type has one.
    numbers: Vec<i64>,
    /// One above a number's place; 0 where there is none. Half of them, at least, are 0.
    slots: Vec<u32>,
    /// The last that was asked for.
    last: (i64, u32),
}

impl Default for Numbers {
    fn default() -> Self {
        Self { numbers: Vec::new(), slots: vec![0; 64], last: (0, u32::MAX) }
    }
}

impl Numbers {
    /// The number's place; `None` where there are too many.
    #[inline]
    fn place(&mut self, number: i64) -> Option<u32> {
        if self.last == (number, self.last.1) && self.last.1 != u32::MAX {
            return Some(self.last.1);
        }
        let mut slot = self.slot(number);
        let place = loop {
            match self.slots[slot].checked_sub(1) {
                Some(place) if self.numbers[place as usize] == number => break place,
                Some(_) => slot = (slot + 1) & (self.slots.len() - 1),
                None => break self.add(number, slot)?,
            }
        };
        self.last = (number, place);
        Some(place)
    }

    fn slot(&self, number: i64) -> usize {
        let mixed = number.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The product's highest bits depend on all of its factor's.
        usize::try_from(mixed >> (u64::BITS - self.slots.len().ilog2())).unwrap_or(0)
    }

    #[cold]
    fn add(&mut self, number: i64, slot: usize) -> Option<u32> {
        if self.numbers.len() >= MAX_WORDS {
            return None;
        }
        let place = u32::try_from(self.numbers.len()).ok()?;
        self.numbers.push(number);
        self.slots[slot] = place + 1;
        if self.numbers.len() * 2 > self.slots.len() {
            self.grow();
        }
        Some(place)
    }

    fn grow(&mut self) {
        self.slots = vec![0; self.slots.len() * 4];
        for (number, place) in self.numbers.iter().zip(1..) {
            let mut slot = self.slot(*number);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (self.slots.len() - 1);
            }
            self.slots[slot] = place;
        }
    }
}

impl Words {
    /// Turns to the words of another array, where it has others.
    fn turn_to(&mut self, words: &ArrayRef) -> Option<()> {
        if self.array.as_ref().is_some_and(|known| Arc::ptr_eq(known, words)) {
            return Some(());
        }
        let strings = words.as_string_opt::<i32>()?;
        self.of_array.clear();
        for word in 0..strings.len() {
            let place = self.place(strings.value(word))?;
            self.of_array.push(place);
        }
        self.array = Some(Arc::clone(words));
        Some(())
    }

    fn place(&mut self, word: &str) -> Option<u32> {
        if let Some(place) = self.known.get(word) {
            return Some(*place);
        }
        if self.words.len() >= MAX_WORDS {
            return None;
        }
        let place = u32::try_from(self.words.len()).ok()?;
        self.words.push(word.into());
        self.known.insert(word.into(), place);
        Some(place)
    }
}

impl Coded {
    /// Those of arrays of one type; `None` where they are better left to the general encoder. Values have the level `max_level`.
    pub(super) fn of(pieces: &[Piece], data_type: &DataType, max_level: u8) -> Option<Self> {
        let words = match data_type {
            DataType::Dictionary(..) => Vocabulary::Words(Words::default()),
            _ => Vocabulary::Numbers(Numbers::default()),
        };
        let mut coded = Self { words, places: Vec::new(), levels: Vec::new(), rows: 0 };
        for piece in pieces {
            match piece {
                Piece::Elsewhere(rows) => coded.level(0, *rows)?,
                Piece::Values(values) => coded.push(values, max_level)?,
            }
        }
        (coded.levels.len() <= coded.rows / MEAN_RUN + 8).then_some(coded)
    }

    fn level(&mut self, level: u8, rows: usize) -> Option<()> {
        self.rows += rows;
        let rows = u32::try_from(rows).ok()?;
        match self.levels.last_mut() {
            Some((last, known)) if *last == level => *known = known.checked_add(rows)?,
            _ => self.levels.push((level, rows)),
        }
        Some(())
    }

    fn push(&mut self, values: &ArrayRef, max_level: u8) -> Option<()> {
        if values.null_count() == 0 {
            self.level(max_level, values.len())?;
        } else {
            for row in 0..values.len() {
                let level = if values.is_valid(row) { max_level } else { max_level.checked_sub(1)? };
                self.level(level, 1)?;
            }
        }
        match values.data_type() {
            DataType::Dictionary(..) => self.words(values),
            DataType::Int8 => self.numbers::<Int8Type>(values, i64::from),
            DataType::Int16 => self.numbers::<Int16Type>(values, i64::from),
            DataType::Int32 => self.numbers::<Int32Type>(values, i64::from),
            DataType::Int64 => self.numbers::<Int64Type>(values, |number| number),
            DataType::UInt8 => self.numbers::<UInt8Type>(values, i64::from),
            DataType::UInt16 => self.numbers::<UInt16Type>(values, i64::from),
            DataType::UInt32 => self.numbers::<UInt32Type>(values, i64::from),
            DataType::UInt64 => self.numbers::<UInt64Type>(values, u64::cast_signed),
            _ => None,
        }
    }

    fn words(&mut self, values: &ArrayRef) -> Option<()> {
        let Self { words: Vocabulary::Words(words), places, .. } = self else { return None };
        let array = values.as_dictionary_opt::<Int32Type>()?;
        words.turn_to(array.values())?;
        let place = |key: i32| words.of_array.get(usize::try_from(key).ok()?).copied();
        extend(places, array.keys(), place)
    }

    fn numbers<T: ArrowPrimitiveType>(
        &mut self,
        values: &ArrayRef,
        widen: impl Fn(T::Native) -> i64,
    ) -> Option<()> {
        let Self { words: Vocabulary::Numbers(numbers), places, .. } = self else { return None };
        extend(places, values.as_primitive_opt::<T>()?, |value| numbers.place(widen(value)))?;
        // With more of them, a dictionary saves nothing.
        (places.len() < TRIAL || numbers.numbers.len() < places.len() / 2).then_some(())
    }

    /// Adds the column to a row group, of which it is the next.
    pub(super) fn append<W: Write + Send>(
        &self,
        column: &ColumnDescPtr,
        is_signed: bool,
        packer: Option<&mut Packer>,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        let mut chunk = Chunk::new(packer);
        let max_level = size(column.max_def_level())?;
        let (words, count) = self.words.plain(column);
        chunk.dictionary(words, count)?;
        let bits = count.checked_sub(1).map(size).transpose()?.map(bits_for);
        self.pages(max_level, bits, &mut chunk)?;
        let values: usize = self.places.len();
        let nulls = u64::try_from(self.rows.saturating_sub(values)).ok();
        let statistics = self.words.statistics(column, is_signed, nulls);
        let (bytes, close) = chunk.close(column, statistics, None)?;
        group.append_column(&bytes, close)
    }

    fn pages(&self, max_level: u8, bits: Option<u32>, chunk: &mut Chunk<'_>) -> Result<()> {
        let mut levels = self.levels.iter().copied();
        let mut rest = levels.next();
        let mut places = &*self.places;
        let mut bytes = Vec::new();
        while rest.is_some() {
            let (mut of_page, mut values, mut rows) = (Vec::new(), 0, 0);
            while let Some((level, len)) = rest {
                let is_value = level == max_level;
                let room: u32 = size(PAGE_VALUES - values)?;
                let taken = if is_value { len.min(room) } else { len };
                if taken == 0 {
                    break;
                }
                of_page.push((level, taken));
                rows += taken;
                values += if is_value { taken as usize } else { 0 };
                rest = if taken < len { Some((level, len - taken)) } else { levels.next() };
            }
            let (own, behind) = places.split_at(values);
            places = behind;
            bytes.clear();
            bits.into_iter().for_each(|bits| put_all(&mut bytes, own, bits));
            let places = bits.map(|bits| (bits, &*bytes));
            chunk.page(&PageOf { levels: &of_page, max_level, rows, places })?;
        }
        Ok(())
    }
}

impl Vocabulary {
    /// The page of the dictionary, and how many words it has.
    fn plain(&self, column: &ColumnDescPtr) -> (Vec<u8>, usize) {
        let numbers = match self {
            Self::Words(Words { words, .. }) => return (plain(words), words.len()),
            Self::Numbers(Numbers { numbers, .. }) => numbers,
        };
        let len = if column.physical_type() == parquet::basic::Type::INT32 { 4 } else { 8 };
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes().into_iter().take(len));
        (bytes.collect(), numbers.len())
    }

    /// The least and the greatest of them.
    fn statistics(&self, column: &ColumnDescPtr, is_signed: bool, nulls: Option<u64>) -> Statistics {
        let numbers = match self {
            Self::Words(Words { words, .. }) => {
                let word = |word: Option<&Box<str>>| word.map(|word| ByteArray::from(&**word));
                let (least, greatest) = (words.iter().min(), words.iter().max());
                let values = ValueStatistics::new(word(least), word(greatest), None, nulls, false);
                return Statistics::ByteArray(values);
            }
            Self::Numbers(Numbers { numbers, .. }) => numbers.iter().copied(),
        };
        // Without a sign, those with the highest bit are the greatest.
        let key = |number: &i64| if is_signed { *number } else { *number ^ i64::MIN };
        let (least, greatest) = (numbers.clone().min_by_key(key), numbers.max_by_key(key));
        // A column of four bytes has only their bits.
        let narrow = |number: i64| {
            let [a, b, c, d, ..] = number.to_le_bytes();
            i32::from_le_bytes([a, b, c, d])
        };
        if column.physical_type() == parquet::basic::Type::INT32 {
            let (least, greatest) = (least.map(narrow), greatest.map(narrow));
            return Statistics::Int32(ValueStatistics::new(least, greatest, None, nulls, false));
        }
        Statistics::Int64(ValueStatistics::new(least, greatest, None, nulls, false))
    }
}

/// Adds the places of the values that are not null.
fn extend<T: ArrowPrimitiveType>(
    places: &mut Vec<u32>,
    values: &PrimitiveArray<T>,
    mut place: impl FnMut(T::Native) -> Option<u32>,
) -> Option<()> {
    places.reserve(values.len());
    if values.null_count() == 0 {
        for value in values.values() {
            places.push(place(*value)?);
        }
        return Some(());
    }
    for value in values.iter().flatten() {
        places.push(place(value)?);
    }
    Some(())
}
