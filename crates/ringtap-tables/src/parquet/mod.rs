//! Parquet files: one for a whole trace ([`Wide`]), or one for each event and hour ([`Partitioned`]); in a folder of this
//! machine's or of an object store ([`Store`]).

mod chunk;
mod coded;
mod hybrid;
mod partitioned;
#[cfg(feature = "remote")]
mod remote;
mod runs;
mod slices;
mod store;
mod wide;

pub use partitioned::{By, Partitioned};
pub use store::{Store, StoreFile};
pub use wide::{Layout, Wide};

use arrow_schema::{DataType, Schema};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
#[cfg(feature = "sql")]
use {
    arrow_array::RecordBatch, arrow_schema::SchemaRef, parquet::arrow::ArrowWriter, std::io::Write,
    std::sync::Arc,
};

/// How files are written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rows of a row group: a slice of time. They are held in memory until it is full.
    pub slice_rows: usize,
    /// The level of zstd, 1 to 22.
    pub zstd_level: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self { slice_rows: 1 << 19, zstd_level: 3 }
    }
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WriteError(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("zstd has no level {0}: use 1 to 22")]
    Level(i32),
    #[error("cannot write {path}")]
    Io { path: String, source: std::io::Error },
    #[error("cannot use {place}: {why}")]
    Place { place: String, why: String },
    #[error("cannot write Parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("cannot lay out a slice of the trace")]
    Arrow(#[from] arrow_schema::ArrowError),
}

impl<E> From<E> for WriteError
where
    Kind: From<E>,
{
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files.
    pub files: u64,
    /// Rows: records, losses and spans.
    pub rows: u64,
}

/// Rows of a page, where its columns are so narrow.
const PAGE_ROWS: usize = 1 << 16;
/// Integers of which rows seldom have the same, and times: as differences, they have no more to be compressed.
const DIFFERENT: [&str; 2] = ["duration_ns", "end_time"];

/// The encodings: times as differences; all else by dictionary where there are few values, else integers as differences.
fn properties(
    options: &Options,
    schema: &Schema,
    sorted_by: &[&str],
) -> Result<WriterProperties, WriteError> {
    let level = ZstdLevel::try_new(options.zstd_level).map_err(|_| Kind::Level(options.zstd_level))?;
    let sorted = |name: &&str| {
        // Columns of structs are counted by their leaves; those that files are sorted by come before the first of them.
        let place = schema.fields().iter().position(|field| field.name() == *name);
        let column_idx = i32::try_from(place?).ok()?;
        Some(SortingColumn { column_idx, descending: false, nulls_first: false })
    };
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("ringtap ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        // Row groups end where their slice does.
        .set_max_row_group_row_count(None)
        // A file has hundreds of columns, which are null in most of its rows.
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(
            Some(sorted_by.iter().filter_map(sorted).collect()).filter(|by: &Vec<_>| !by.is_empty()),
        );
    for (path, data_type) in leaves(schema) {
        let is_time = matches!(data_type, DataType::Timestamp(..));
        let is_different = path.parts().last().is_some_and(|name| DIFFERENT.contains(&name.as_str()));
        if is_time || is_different {
            builder = builder.set_column_dictionary_enabled(path.clone(), false);
        }
        if is_different {
            builder = builder.set_column_compression(path.clone(), Compression::UNCOMPRESSED);
        }
        if is_time || data_type.is_integer() {
            builder = builder.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    for name in sorted_by {
        builder = builder.set_column_statistics_enabled(ColumnPath::from(*name), EnabledStatistics::Page);
    }
    Ok(builder.build())
}

/// The columns that hold plain values, structs' members among them.
fn leaves(schema: &Schema) -> Vec<(ColumnPath, &DataType)> {
    let mut leaves = Vec::new();
    for field in schema.fields() {
        match field.data_type() {
            DataType::Struct(members) => leaves.extend(members.iter().map(|member| {
                let path = vec![field.name().clone(), member.name().clone()];
                (ColumnPath::new(path), member.data_type())
            })),
            plain => leaves.push((ColumnPath::new(vec![field.name().clone()]), plain)),
        }
    }
    leaves
}

/// Writes batches of any columns as a file.
#[cfg(feature = "sql")]
#[derive(Debug)]
pub struct BatchWriter<W: Write + Send>(ArrowWriter<W>, usize);

#[cfg(feature = "sql")]
impl<W: Write + Send> BatchWriter<W> {
    /// A file with these columns.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn new(out: W, schema: &SchemaRef) -> Result<Self, WriteError> {
        let options = Options::default();
        let properties = properties(&options, schema, &[])?;
        Ok(Self(ArrowWriter::try_new(out, Arc::clone(schema), Some(properties))?, options.slice_rows))
    }

    /// Adds rows.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let Self(writer, slice_rows) = self;
        writer.write(batch)?;
        if writer.in_progress_rows() >= *slice_rows {
            writer.flush()?;
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn finish(self) -> Result<W, WriteError> {
        Ok(self.0.into_inner()?)
    }
}
