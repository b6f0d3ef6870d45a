//! Columns whose words stand in long runs: the host, and in rows that are sorted by event, the event.
//!
//! The general encoder looks at each row's word; here a run is one look, and a few bytes in the file.

use super::chunk::{Chunk, PageOf, size};
use super::coded::Piece;
use super::hybrid::{bits_for, put_run};
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::metadata::ColumnIndexBuilder;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::ColumnDescPtr;
use std::io::Write;

/// Rows that a run must have on the average.
const MEAN_RUN: usize = 16;
/// Most pages of a column; a run is a page of its own where there are no more.
const MAX_PAGES: usize = 1024;

/// The rows of one column.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    /// Words, each once.
    words: Vec<Box<str>>,
    /// The place of a word, `None` for null, and how many rows in a row have it.
    runs: Vec<(Option<u32>, u32)>,
    rows: usize,
}

impl Runs {
    /// Those of arrays of the type [`dictionary`](crate::table::dictionary); `None` where runs are too short.
    pub(super) fn of(pieces: &[Piece]) -> Option<Self> {
        let rows: usize = pieces.iter().map(Piece::len).sum();
        let mut all = Self::default();
        for piece in pieces {
            let Piece::Values(array) = piece else { return None };
            let array = array.as_dictionary_opt::<Int32Type>()?;
            let words = array.values().as_string_opt::<i32>()?;
            let keys = array.keys();
            let key = |row: usize| keys.is_valid(row).then(|| keys.value(row));
            let mut start = 0;
            while start < array.len() {
                let own = key(start);
                let rest = &keys.values()[start..];
                let len = match own {
                    Some(own) if keys.null_count() == 0 => rest.iter().take_while(|&&key| key == own).count(),
                    _ => (start..array.len()).take_while(|&row| key(row) == own).count(),
                };
                all.push(own.map(|key| words.value(usize::try_from(key).unwrap_or(0))), len)?;
                if all.runs.len() > rows / MEAN_RUN + 1 {
                    return None;
                }
                start += len;
            }
        }
        Some(all)
    }

    fn push(&mut self, word: Option<&str>, rows: usize) -> Option<()> {
        let place = word.map(|word| {
            let known = self.words.iter().position(|known| **known == *word);
            known.unwrap_or_else(|| {
                self.words.push(word.into());
                self.words.len() - 1
            })
        });
        let place = place.map(u32::try_from).transpose().ok()?;
        let len = u32::try_from(rows).ok()?;
        self.rows += rows;
        match self.runs.last_mut() {
            Some((last, known)) if *last == place => *known = known.checked_add(len)?,
            _ => self.runs.push((place, len)),
        }
        Some(())
    }

    /// Adds the column to a row group, of which it is the next.
    pub(super) fn append<W: Write + Send>(
        &self,
        column: &ColumnDescPtr,
        has_page_statistics: bool,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        let (bytes, close) = self.chunk(column, has_page_statistics)?;
        group.append_column(&bytes, close)
    }

    fn chunk(&self, column: &ColumnDescPtr, has_page_statistics: bool) -> Result<(Bytes, ColumnCloseResult)> {
        let mut chunk = Chunk::new(None);
        chunk.dictionary(plain(&self.words), self.words.len())?;
        let mut index = ColumnIndexBuilder::new(column.physical_type());
        let max_level = size(column.max_def_level())?;
        for runs in self.runs.chunks(self.runs.len().div_ceil(MAX_PAGES).max(1)) {
            self.page(runs, max_level, &mut chunk)?;
            let (least, greatest) = self.ends(runs);
            let bytes = |word: Option<&str>| word.map_or_else(Vec::new, |word| word.as_bytes().to_vec());
            index.append(least.is_none(), bytes(least), bytes(greatest), nulls(runs));
        }
        let (least, greatest) = self.ends(&self.runs);
        let word = |word: Option<&str>| word.map(ByteArray::from);
        let null_count = u64::try_from(nulls(&self.runs)).ok();
        let statistics = ValueStatistics::new(word(least), word(greatest), None, null_count, false);
        let index = has_page_statistics.then(|| index.build()).transpose()?;
        chunk.close(column, Statistics::ByteArray(statistics), index)
    }

    /// Which rows are null, where that may be; then the words' places.
    fn page(&self, runs: &[(Option<u32>, u32)], max_level: u8, chunk: &mut Chunk<'_>) -> Result<()> {
        let level = |place: Option<u32>| if place.is_some() { max_level } else { 0 };
        let levels: Vec<_> = runs.iter().map(|(place, rows)| (level(*place), *rows)).collect();
        let bits = self.words.len().checked_sub(1).map(size).transpose()?.map(bits_for);
        let mut places = Vec::new();
        if let Some(bits) = bits {
            for (place, rows) in runs {
                place.iter().for_each(|place| put_run(&mut places, *rows, *place, bits));
            }
        }
        let rows = runs.iter().map(|(_, rows)| rows).sum();
        let places = bits.map(|bits| (bits, &*places));
        chunk.page(&PageOf { levels: &levels, max_level, rows, places })
    }

    /// The least and the greatest word of some runs.
    fn ends(&self, runs: &[(Option<u32>, u32)]) -> (Option<&str>, Option<&str>) {
        let words = || runs.iter().filter_map(|(place, _)| Some(&*self.words[(*place)? as usize]));
        (words().min(), words().max())
    }
}

/// Rows that are null.
fn nulls(runs: &[(Option<u32>, u32)]) -> i64 {
    runs.iter().filter(|(place, _)| place.is_none()).map(|(_, rows)| i64::from(*rows)).sum()
}

/// Words as a page of a dictionary has them, each with its length before it.
pub(super) fn plain(words: &[Box<str>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in words {
        bytes.extend(u32::try_from(word.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(word.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::DictionaryArray;
    use std::sync::Arc;

    fn array(words: &[Option<&str>]) -> Piece {
        Piece::Values(Arc::new(words.iter().copied().collect::<DictionaryArray<Int32Type>>()))
    }

    #[test]
    fn runs_go_on_from_array_to_array() {
        let first = [vec![Some("a"); 20], vec![None; 30]].concat();
        let second = [vec![None; 30], vec![Some("b"); 40], vec![Some("a"); 50]].concat();
        let runs = Runs::of(&[array(&first), array(&second)]).unwrap();
        assert_eq!(runs.words, ["a".into(), "b".into()]);
        assert_eq!(runs.runs, [(Some(0), 20), (None, 60), (Some(1), 40), (Some(0), 50)]);
        assert_eq!((runs.rows, runs.ends(&runs.runs), nulls(&runs.runs)), (170, (Some("a"), Some("b")), 60));
    }

    #[test]
    fn short_runs_are_left_to_the_encoder() {
        let words: Vec<_> = [Some("a"), Some("b")].into_iter().cycle().take(1000).collect();
        assert_eq!(Runs::of(&[array(&words)]), None);
    }
}
