//! Traces as tables: one for each event, with a typed column for each of its fields.
//!
//! Records come in the order of time, as `ringtap report` reads them. They become Arrow batches ([`Table`]), Parquet files
//! ([`parquet`]), and, with the feature `sql`, what SQL asks of them.
//!
//! A crate of its own because of what it is built on: Arrow and Parquet take a minute to build, DataFusion several.
#![forbid(unsafe_code)]

mod column;
pub mod parquet;
mod rows;
mod spans;
#[cfg(feature = "sql")]
pub mod sql;
mod table;

pub use rows::{Lost, Origin, Row};
pub use spans::{Span, Spans};
pub use table::Table;
