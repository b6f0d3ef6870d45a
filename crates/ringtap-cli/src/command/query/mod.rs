//! `ringtap query`: SQL over traces.

#[cfg(feature = "query")]
mod answer;
#[cfg(feature = "query")]
mod write;

use super::report::FileArgs;
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::Result;
use clap::ValueEnum;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  Which tables there are:        ringtap query trace.dat --list
  Who ran most often:            ringtap query trace.dat 'SELECT next_comm, count(*) FROM sched_switch GROUP BY 1 ORDER BY 2 DESC'
  How long spans took:           ringtap query trace.dat 'SELECT name, approx_percentile_cont(duration_ns, 0.99) FROM spans GROUP BY 1'
  What was lost, as JSON lines:  ringtap query --format json trace.dat 'SELECT * FROM lost'
  Many hosts' Parquet files:     ringtap query traces/ 'SELECT host, count(*) FROM events GROUP BY 1'
  Rows for another program:      ringtap query --format parquet -o slow.parquet trace.dat 'SELECT * FROM spans WHERE duration_ns > 1e6'

FILEs are those of `ringtap report`, or Parquet files and folders of `ringtap export --to parquet`. Tables are named
as events, or SYSTEM.EVENT; events, spans and lost are always there. docs/query.md describes them.

This command is a feature of the program: cargo build --release -p ringtap-cli --features query";

const USAGE: &str = "\
ringtap query [OPTIONS] <FILE>... <SQL>
       ringtap query --list [OPTIONS] <FILE>...";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
#[command(group = clap::ArgGroup::new("source").args(["files"]).required(true))]
pub struct Args {
    // The query is the last of the files.
    #[command(flatten)]
    files: FileArgs,
    /// Instead of a query: the tables that have rows, how many, and their columns
    #[arg(short, long)]
    list: bool,
    /// How the answer looks: table, csv, json (an object a line) or parquet
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    format: Format,
    /// Where it goes, instead of the standard output
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// What sorting, grouping and joining may hold in memory, in MiB; sorting and grouping go on in temporary files
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    memory: u32,
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
    let Args { files: _, list: _, format: _, output: _, memory: _ } = args;
    anyhow::bail!(
        "this ringtap was built without SQL, which takes minutes to build; build it with `cargo build --release -p ringtap-cli --features query`"
    )
}
