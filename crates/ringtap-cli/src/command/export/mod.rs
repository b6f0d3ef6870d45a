//! `ringtap export`: a trace in the formats of other programs.

mod exporter;
mod folder;
mod live;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(not(feature = "parquet"))]
#[path = "without_parquet.rs"]
mod parquet;
mod progress;
mod single;

use super::report::{self, FileArgs, Item};
use crate::misuse;
use crate::outcome::Outcome;
use anyhow::{Result, bail};
use clap::ValueEnum;
use exporter::{Exporter, Totals};
use parquet::{Parquet, Survey};
use progress::Progress;
use ringtap_format::{chrome, perfetto};
use single::{SingleFile, Writer};
use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  For ui.perfetto.dev:                ringtap export --to perfetto -o trace.pftrace trace.dat
  For chrome://tracing, Speedscope:   ringtap export --to chrome -o trace.json trace.dat
  For babeltrace2 and Trace Compass:  ringtap export --to ctf -o folder trace.dat
  For DuckDB, pandas, DataFusion:     ringtap export --to parquet -o trace.parquet trace.dat
  Many hosts', in one folder:         ringtap export --to parquet --partition hour -o DIR trace.dat
  One event of it:                    ringtap export --to ctf -o folder -e sched_switch trace.dat
  What one command does, live:        ringtap export --to perfetto -o t.pftrace --kernel -e sched -- ls
  A program that uses ringtap:        ringtap export --to ctf -o folder -- ./program

FILEs are those of `ringtap report`, and live sources those of `ringtap stream`. docs/export.md tells what becomes of each part of a trace.";

const USAGE: &str = "\
ringtap export --to <FORMAT> -o <OUT> [OPTIONS] <FILE>...
       ringtap export --to <FORMAT> -o <OUT> [--kernel] [--attach <SOCKET>] [OPTIONS] [-- <COMMAND>...]";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
#[command(group = clap::ArgGroup::new("source").args(["files", "kernel", "attach", "command"]).required(true).multiple(true))]
pub struct Args {
    /// The format: perfetto, ctf, chrome or parquet
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    to: To,
    /// Where to: a file, or `-`; for ctf a folder, which must be empty or not exist; for parquet a file, or a folder to
    /// add to
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Version of the Common Trace Format: 1.8, or 2, which needs babeltrace2 2.1
    #[arg(long, value_enum, value_name = "VERSION", default_value = "1.8", hide_possible_values = true)]
    ctf_version: CtfVersion,
    #[command(flatten)]
    parquet: ParquetArgs,
    #[command(flatten)]
    files: FileArgs,
    /// Live: the kernel's events
    #[arg(long, conflicts_with = "files")]
    kernel: bool,
    /// Live: those of the application that serves its buffers on this socket
    #[arg(long, value_name = "SOCKET", conflicts_with = "files")]
    attach: Option<PathBuf>,
    /// With --kernel and COMMAND: events of all processes, not of COMMAND and its children only
    #[arg(short, long, requires = "kernel", requires = "command")]
    all: bool,
    /// Live: size of each CPU's buffer, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    buffer_size: u32,
    /// Live: run this command, and export until it ends
    #[arg(last = true, conflicts_with = "files")]
    command: Vec<OsString>,
}

/// The formats, by the name that is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    Perfetto,
    Ctf,
    Chrome,
    Parquet,
}

/// What concerns Parquet only.
#[derive(Clone, Debug, clap::Args)]
struct ParquetArgs {
    /// Parquet: in a folder, a file for each `event`, or for each event and `hour`
    #[arg(long, value_enum, value_name = "BY", hide_possible_values = true)]
    partition: Option<Partition>,
    /// Parquet: also the spans that events begin and end
    #[arg(long)]
    spans: bool,
    /// Parquet: the machine's name, instead of the trace's own
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Parquet: its boot's id, instead of the trace's own
    #[arg(long, value_name = "ID")]
    boot_id: Option<String>,
    /// Parquet: the real time at the zero of its clock, in seconds since 1970, instead of the trace's own
    #[arg(long, value_name = "SECONDS", value_parser = report::seconds)]
    epoch: Option<u64>,
}

/// How a folder of Parquet is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Partition {
    Event,
    Hour,
}

/// Versions of the Common Trace Format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CtfVersion {
    #[value(name = "1.8")]
    V1,
    #[value(name = "2")]
    V2,
}

impl From<CtfVersion> for ringtap_format::ctf::Version {
    fn from(version: CtfVersion) -> Self {
        match version {
            CtfVersion::V1 => Self::V1,
            CtfVersion::V2 => Self::V2,
        }
    }
}

impl Args {
    fn exporter(&self, survey: Option<Survey>) -> Result<Box<dyn Exporter>> {
        Ok(match self.to {
            To::Perfetto => self.single(Writer::Perfetto(perfetto::Writer::new()))?,
            To::Chrome => self.single(Writer::Chrome(chrome::Writer::new()))?,
            To::Parquet => Box::new(Parquet::create(self, survey)?),
            To::Ctf if self.output.as_os_str() == "-" => {
                misuse!("CTF is a folder of files: name one, `-` is none")
            }
            To::Ctf => Box::new(folder::CtfFolder::create(&self.output, self.ctf_version.into())?),
        })
    }

    /// Completes what was written, and says what it is.
    fn end(&self, exporter: &mut dyn Exporter, totals: &Totals) -> Result<()> {
        exporter.finish()?;
        anstream::eprintln!("{}: {totals}", self.output.display());
        for note in exporter.notes() {
            anstream::eprintln!("ringtap: {note}");
        }
        Ok(())
    }

    fn is_live(&self) -> bool {
        self.files.files.is_empty()
    }

    fn single(&self, writer: Writer) -> Result<Box<dyn Exporter>> {
        Ok(Box::new(SingleFile::create(&self.output, writer, self.is_live())?))
    }
}

/// Converts the files.
///
/// # Errors
/// A file cannot be read or written, an event or a filter makes no sense; or, when all is written, something was
/// damaged.
pub fn run(args: &Args) -> Result<Outcome> {
    if args.is_live() { live::run(args) } else { of_files(args) }
}

fn of_files(args: &Args) -> Result<Outcome> {
    args.files.check_output(&args.output)?;
    let mut exporter = None;
    let mut totals = Totals::default();
    let mut progress = Progress::new();
    let survey = RefCell::new(if args.to == To::Parquet { Survey::of(args) } else { None });
    let is_surveyed = survey.borrow().is_some();
    let each = |item: &Item<'_>| {
        // Only now is it sure that there is something to write.
        let exporter = match &mut exporter {
            Some(exporter) => exporter,
            None => exporter.insert(args.exporter(survey.take())?),
        };
        totals.add(item);
        exporter.item(item)
    };
    let show = |read, all| progress.show(read, all);
    let damage = match is_surveyed {
        true => {
            let see = |item: &Item<'_>| {
                survey.borrow_mut().iter_mut().for_each(|survey| survey.see(item));
                Ok(())
            };
            report::visit_twice(&args.files, see, each, show)?
        }
        false => report::visit(&args.files, each, show)?,
    };
    progress.clear();
    let mut exporter = exporter.map_or_else(|| args.exporter(survey.take()), Ok)?;
    args.end(&mut *exporter, &totals)?;
    match damage {
        Some(damage) => bail!("{damage}; all that can be read is exported"),
        None => Ok(Outcome::Done),
    }
}
