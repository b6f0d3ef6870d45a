//! One file for each subcommand: its `Args`, its `Plan` where it has choices to make, and `run`.

pub mod completions;
pub mod demo;
pub mod held;
pub mod man;
pub mod record;
pub mod report;
pub mod stat;
pub mod stream;
