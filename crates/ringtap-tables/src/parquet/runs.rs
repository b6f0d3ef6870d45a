//! Columns whose words stand in long runs: the host, and in rows that are sorted by event, the event.
//!
//! The general encoder looks at each row's word; here a run is one look, and a few bytes in the file, as they are defined by
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/>: a page of the dictionary, then pages of runs.

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};
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
    pub(super) fn of(arrays: &[ArrayRef]) -> Option<Self> {
        let rows: usize = arrays.iter().map(|array| array.len()).sum();
        let mut all = Self::default();
        for array in arrays {
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
        let mut sink = TrackedWrite::new(Vec::new());
        let mut pages = SerializedPageWriter::new(&mut sink);
        let mut dictionary = None;
        if !self.words.is_empty() {
            dictionary = Some(pages.write_page(self.dictionary())?.offset);
        }
        let (mut offsets, mut index) =
            (OffsetIndexBuilder::new(), ColumnIndexBuilder::new(column.physical_type()));
        let mut data = None;
        for runs in self.runs.chunks(self.runs.len().div_ceil(MAX_PAGES).max(1)) {
            let rows = runs.iter().map(|(_, rows)| rows).sum();
            let page = self.page(runs, rows, column.max_def_level() > 0);
            let spec = pages.write_page(page)?;
            data.get_or_insert(spec.offset);
            offsets.append_offset_and_size(signed(spec.offset)?, signed(spec.compressed_size)?);
            offsets.append_row_count(rows.into());
            let (least, greatest) = self.ends(runs);
            let bytes = |word: Option<&str>| word.map_or_else(Vec::new, |word| word.as_bytes().to_vec());
            index.append(least.is_none(), bytes(least), bytes(greatest), nulls(runs));
        }
        let bytes = Bytes::from(sink.into_inner()?);
        let (least, greatest) = self.ends(&self.runs);
        let word = |word: Option<&str>| word.map(ByteArray::from);
        let null_count = u64::try_from(nulls(&self.runs)).ok();
        let statistics = ValueStatistics::new(word(least), word(greatest), None, null_count, false);
        let metadata = ColumnChunkMetaData::builder(column.clone())
            .set_compression(Compression::UNCOMPRESSED)
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_total_compressed_size(signed(bytes.len())?)
            .set_total_uncompressed_size(signed(bytes.len())?)
            .set_num_values(signed(self.rows)?)
            .set_data_page_offset(signed(data.unwrap_or(0))?)
            .set_dictionary_page_offset(dictionary.map(signed).transpose()?)
            .set_statistics(Statistics::ByteArray(statistics))
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: signed(bytes.len())?,
            rows_written: signed(self.rows)?,
            metadata,
            bloom_filter: None,
            column_index: has_page_statistics.then(|| index.build()).transpose()?,
            offset_index: Some(offsets.build()),
        };
        Ok((bytes, close))
    }

    /// Each word once, with its length before it.
    fn dictionary(&self) -> CompressedPage {
        let mut bytes = Vec::new();
        for word in &self.words {
            bytes.extend(u32::try_from(word.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(word.as_bytes());
        }
        let (len, num_values) = (bytes.len(), u32::try_from(self.words.len()).unwrap_or(u32::MAX));
        let (encoding, is_sorted) = (Encoding::PLAIN, false);
        CompressedPage::new(Page::DictionaryPage { buf: bytes.into(), num_values, encoding, is_sorted }, len)
    }

    /// Which rows are null, where that may be; then the words' places.
    fn page(&self, runs: &[(Option<u32>, u32)], rows: u32, may_be_null: bool) -> CompressedPage {
        let mut bytes = Vec::new();
        if may_be_null {
            let mut levels = Vec::new();
            runs.iter().for_each(|(place, rows)| put_run(&mut levels, *rows, u32::from(place.is_some()), 1));
            bytes.extend(u32::try_from(levels.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.append(&mut levels);
        }
        let mut encoding = Encoding::PLAIN;
        if let Some(last) = self.words.len().checked_sub(1) {
            encoding = Encoding::RLE_DICTIONARY;
            let bits = (usize::BITS - last.leading_zeros()).max(1);
            bytes.push(u8::try_from(bits).unwrap_or(u8::MAX));
            for (place, rows) in runs {
                place.iter().for_each(|place| put_run(&mut bytes, *rows, *place, bits.div_ceil(8)));
            }
        }
        let len = bytes.len();
        let page = Page::DataPage {
            buf: bytes.into(),
            num_values: rows,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        CompressedPage::new(page, len)
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

/// A run: its length in groups of seven bits, the lowest bit of all being 0; then what it repeats.
fn put_run(out: &mut Vec<u8>, rows: u32, value: u32, value_len: u32) {
    let mut header = u64::from(rows) << 1;
    while header > 0x7f {
        out.push(0x80 | u8::try_from(header & 0x7f).unwrap_or(0));
        header >>= 7;
    }
    out.push(u8::try_from(header).unwrap_or(0));
    out.extend(value.to_le_bytes().iter().take(value_len as usize));
}

/// A size as the format has it.
fn signed<A, B: TryFrom<A>>(size: A) -> Result<B> {
    B::try_from(size).map_err(|_| ParquetError::General("a column is too large".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::DictionaryArray;
    use std::sync::Arc;

    fn array(words: &[Option<&str>]) -> ArrayRef {
        Arc::new(words.iter().copied().collect::<DictionaryArray<Int32Type>>())
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

    #[test]
    fn a_runs_length_is_cut_into_sevens() {
        for (rows, bytes) in
            [(1, &[2, 9][..]), (63, &[126, 9]), (64, &[128, 1, 9]), (100_000, &[192, 154, 12, 9])]
        {
            let mut out = Vec::new();
            put_run(&mut out, rows, 9, 1);
            assert_eq!(out, bytes, "{rows}");
        }
    }
}
