//! Traces as tables: one for each event, with a typed column for each of its fields.
//!
//! Records come in the order of time, as `ringtap report` reads them. They become Arrow batches ([`Table`]) and Parquet files
//! ([`parquet`]).
//!
//! A crate of its own because of what it is built on: Arrow and Parquet take minutes to build.
#![forbid(unsafe_code)]

mod column;
pub mod parquet;
mod rows;
mod spans;
mod table;

pub use rows::{Lost, Origin, Row};
pub use spans::{Span, Spans};
pub use table::Table;
