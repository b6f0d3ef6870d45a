//! One file for each subcommand: its `Args`, its `Plan` where it has choices to make, and `run`.

pub mod completions;
pub mod control;
pub mod demo;
pub mod exec;
pub mod export;
pub mod held;
mod host_side;
pub mod man;
pub mod mount;
pub mod query;
pub mod record;
pub mod recover;
pub mod report;
#[cfg(feature = "parquet")]
mod rows;
pub mod serve;
pub mod stat;
pub mod stream;
