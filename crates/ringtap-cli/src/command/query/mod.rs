//! `ringtap query`: SQL over traces.

#[cfg(feature = "query")]
mod answer;

use super::report::FileArgs;
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::Result;
use clap::ValueEnum;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  Which tables there are:        ringtap query trace.dat 'SHOW TABLES'
  Who ran most often:            ringtap query trace.dat 'SELECT next_comm, count(*) FROM sched_switch GROUP BY 1 ORDER BY 2 DESC'
  How long spans took:           ringtap query trace.dat 'SELECT name, approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ns) FROM spans GROUP BY 1'
  What was lost, as JSON lines:  ringtap query --format json trace.dat 'SELECT * FROM lost'
  Of many hosts' Parquet files:  ringtap query traces/ 'SELECT host, count(*) FROM events GROUP BY 1'

FILEs are those of `ringtap report`, or Parquet files and folders of `ringtap export --to parquet`. Tables are named
as events, or SYSTEM.EVENT; events, spans and lost are always there. docs/query.md describes them.";

const USAGE: &str = "ringtap query [OPTIONS] <FILE>... <SQL>";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
#[command(group = clap::ArgGroup::new("source").args(["files"]).required(true))]
pub struct Args {
    // The query is the last of the files.
    #[command(flatten)]
    files: FileArgs,
    /// How the answer looks: table, csv, json (an object a line) or parquet
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    format: Format,
    /// Where it goes, instead of the standard output
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
}

/// How an answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
    Parquet,
}

/// Prints the answer.
///
/// # Errors
/// A file cannot be read, or the query not be answered.
#[cfg(feature = "query")]
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    answer::run(args, output)
}

/// Says how to build what is missing.
///
/// # Errors
/// Always.
#[cfg(not(feature = "query"))]
pub fn run(args: &Args, _: &mut Output) -> Result<Outcome> {
    let Args { files: _, format: _, output: _ } = args;
    anyhow::bail!(
        "this ringtap was built without DataFusion; build it with `cargo build --release -p ringtap-cli --features query`"
    )
}
