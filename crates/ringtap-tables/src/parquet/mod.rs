//! Parquet files: one for a whole trace ([`Wide`]), or one for each event and hour ([`Partitioned`]).

mod partitioned;
mod wide;

pub use partitioned::{By, Folder, Partitioned};
pub use wide::Wide;

use crate::rows::Clock;
use arrow::datatypes::Schema;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

/// How files are written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What times mean.
    pub clock: Clock,
    /// Rows of a row group: a slice of time. They are held in memory until it is full.
    pub slice_rows: usize,
    /// The level of zstd, 1 to 22.
    pub zstd_level: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self { clock: Clock::default(), slice_rows: 1 << 19, zstd_level: 3 }
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
    #[error("cannot write Parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("cannot lay out a slice of the trace")]
    Arrow(#[from] arrow::error::ArrowError),
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
    /// Rows, losses among them.
    pub rows: u64,
}

/// The encodings: times as differences, all else by dictionary where there are few values.
fn properties(
    options: &Options,
    schema: &Schema,
    sorted_by: &[&str],
) -> Result<WriterProperties, WriteError> {
    let level = ZstdLevel::try_new(options.zstd_level).map_err(|_| Kind::Level(options.zstd_level))?;
    let place = |name: &&str| {
        // Columns of structs are counted by their leaves; those that files are sorted by come before the first of them.
        let place = schema.fields().iter().position(|field| field.name() == *name);
        place.and_then(|place| i32::try_from(place).ok()).map(|column_idx| SortingColumn {
            column_idx,
            descending: false,
            nulls_first: false,
        })
    };
    let time = ColumnPath::from("time");
    let axis = match options.clock.offset_ns {
        Some(offset) => format!("since 1970; {offset} was added to the trace's clock"),
        None => "the trace's own clock".to_owned(),
    };
    Ok(WriterProperties::builder()
        .set_created_by(concat!("ringtap ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new("ringtap.time".to_owned(), axis)]))
        .set_compression(Compression::ZSTD(level))
        // Row groups end where their slice does.
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_dictionary_enabled(time.clone(), false)
        .set_column_encoding(time, Encoding::DELTA_BINARY_PACKED)
        .set_sorting_columns(Some(sorted_by.iter().filter_map(place).collect()))
        .build())
}
