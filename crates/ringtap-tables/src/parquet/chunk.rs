//! A column of one row group as it stands in a file, where it is encoded here and not by Arrow's writer: a page with the
//! words of a dictionary, then pages of places in it.

use super::hybrid::put_run;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

/// What compresses pages, and how the file calls it.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    compression: Compression,
}

impl Packer {
    /// `None` for what is not compressed, or not by zstd.
    pub(super) fn new(compression: Compression) -> Result<Option<Self>> {
        let Compression::ZSTD(level) = compression else { return Ok(None) };
        let compressor = Compressor::new(level.compression_level())?;
        Ok(Some(Self { compressor, compression }))
    }
}

/// A column as far as it is written.
pub(super) struct Chunk<'a> {
    sink: TrackedWrite<Vec<u8>>,
    packer: Option<&'a mut Packer>,
    offsets: OffsetIndexBuilder,
    dictionary: Option<u64>,
    data: Option<u64>,
    rows: u64,
    uncompressed: usize,
}

/// Rows of a page.
pub(super) struct PageOf<'a> {
    /// How deep each row's value is defined, in runs; empty where all are and must be.
    pub(super) levels: &'a [(u8, u32)],
    /// The greatest level.
    pub(super) max_level: u8,
    pub(super) rows: u32,
    /// Where the dictionary has words, how many bits a place has, and the places as [`hybrid`](super::hybrid) writes
    /// them.
    pub(super) places: Option<(u32, &'a [u8])>,
}

impl<'a> Chunk<'a> {
    pub(super) fn new(packer: Option<&'a mut Packer>) -> Self {
        Self {
            sink: TrackedWrite::new(Vec::new()),
            packer,
            offsets: OffsetIndexBuilder::new(),
            dictionary: None,
            data: None,
            rows: 0,
            uncompressed: 0,
        }
    }

    /// Writes the dictionary, where there are words.
    pub(super) fn dictionary(&mut self, words: Vec<u8>, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let num_values = size(count)?;
        let page =
            |buf| Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false };
        self.dictionary = Some(self.write(words, page)?.offset);
        Ok(())
    }

    /// Writes a page.
    pub(super) fn page(&mut self, page: &PageOf<'_>) -> Result<()> {
        let PageOf { levels, max_level, rows, places } = *page;
        let mut bytes = Vec::new();
        if max_level > 0 {
            // Its length comes first.
            bytes.extend([0; 4]);
            let bits = u8::BITS - max_level.leading_zeros();
            levels.iter().for_each(|(level, rows)| put_run(&mut bytes, *rows, (*level).into(), bits));
            let len: u32 = size(bytes.len() - 4)?;
            bytes[..4].copy_from_slice(&len.to_le_bytes());
        }
        if let Some((bits, places)) = places {
            bytes.push(size(bits)?);
            bytes.extend_from_slice(places);
        }
        let encoding = if places.is_some() { Encoding::RLE_DICTIONARY } else { Encoding::PLAIN };
        let spec = self.write(bytes, |buf| Page::DataPage {
            buf,
            num_values: rows,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })?;
        self.data.get_or_insert(spec.offset);
        self.offsets.append_offset_and_size(size(spec.offset)?, size(spec.compressed_size)?);
        self.offsets.append_row_count(rows.into());
        self.rows += u64::from(rows);
        Ok(())
    }

    fn write(&mut self, bytes: Vec<u8>, page: impl FnOnce(Bytes) -> Page) -> Result<PageWriteSpec> {
        let len = bytes.len();
        let bytes = match &mut self.packer {
            Some(packer) => packer.compressor.compress(&bytes)?,
            None => bytes,
        };
        let page = CompressedPage::new(page(bytes.into()), len);
        let spec = SerializedPageWriter::new(&mut self.sink).write_page(page)?;
        self.uncompressed += spec.uncompressed_size;
        Ok(spec)
    }

    /// Ends the column.
    pub(super) fn close(
        self,
        column: &ColumnDescPtr,
        statistics: Statistics,
        column_index: Option<ColumnIndexMetaData>,
    ) -> Result<(Bytes, ColumnCloseResult)> {
        let Self { sink, packer, offsets, dictionary, data, rows, uncompressed } = self;
        let bytes = Bytes::from(sink.into_inner()?);
        let metadata = ColumnChunkMetaData::builder(column.clone())
            .set_compression(packer.map_or(Compression::UNCOMPRESSED, |packer| packer.compression))
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_total_compressed_size(size(bytes.len())?)
            .set_total_uncompressed_size(size(uncompressed)?)
            .set_num_values(size(rows)?)
            .set_data_page_offset(size(data.unwrap_or(0))?)
            .set_dictionary_page_offset(dictionary.map(size).transpose()?)
            .set_statistics(statistics)
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: size(bytes.len())?,
            rows_written: rows,
            metadata,
            bloom_filter: None,
            column_index,
            offset_index: Some(offsets.build()),
        };
        Ok((bytes, close))
    }
}

/// A size as the format has it.
pub(super) fn size<A, B: TryFrom<A>>(size: A) -> Result<B> {
    B::try_from(size).map_err(|_| ParquetError::General("a column is too large".to_owned()))
}
