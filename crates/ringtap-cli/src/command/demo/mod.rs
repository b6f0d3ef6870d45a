//! `ringtap demo`: several processes read the files under a folder, and trace what they do.

pub mod cost;
pub mod events;
mod live;
pub mod report;
pub mod work;
pub mod worker;
pub mod workers;

use super::serve::buffers::parse_subbuf_kib;
use crate::misuse;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::signals::Signals;
use anyhow::{Context, Result};
use ringtap_abi::Geometry;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  On the files of this folder:          ringtap demo
  On a large one, for ten seconds:      ringtap demo --seconds 10 /usr
  The summary only:                     ringtap demo --quiet
  For a program:                        ringtap demo --json . | tail -n 1
  A small buffer loses events:          ringtap demo --buffer-size 32 --all

It needs no root and changes nothing: the workers open files read-only, follow no links and stay on
one file system. They attach to buffers that exist only while the demo runs. On a terminal, more
events than one can follow are counted instead of printed. With --json an event is as `ringtap
stream --help` shows, and the last line is the summary:
  {\"written\":0,\"read\":0,\"lost\":0,\"left\":0,\"ns_per_event\":0.0,\"ns_per_clock_read\":0.0,\"cpus\":0,
  \"writers\":0}
Each event is accounted for: written = read + lost + left.";

/// Workers where the machine has few CPUs: it takes two to show that processes share a buffer.
const FEWEST_WORKERS: u32 = 2;
/// Workers unless more are asked for.
const MOST_WORKERS: u32 = 16;
/// Shortest and longest run, in seconds.
const SECONDS: RangeInclusive<f64> = 0.1..=3600.0;

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder whose files the workers read, or one file
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Stop after this many seconds, or when all is read
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_limit)]
    seconds: Duration,
    /// How many worker processes; without it, one for each CPU, and at least two
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: Option<u32>,
    /// Print every event on a terminal too, however many there are
    #[arg(long)]
    all: bool,
    /// Print no events, only the summary
    #[arg(short, long, conflicts_with = "all")]
    quiet: bool,
    /// Print JSON: one object for each event, and one for the summary on the last line
    #[arg(long)]
    json: bool,
    /// Size of each CPU's buffer, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 4096)]
    buffer_size: u32,
    /// Size of a sub-buffer, in KiB: a power of two from 4 to 512
    #[arg(long, value_name = "KIB", default_value_t = 4, value_parser = parse_subbuf_kib)]
    subbuf_size: u32,
}

fn parse_limit(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| SECONDS.contains(seconds));
    let wrong = || format!("must be {} to {} seconds", SECONDS.start(), SECONDS.end());
    seconds.map(Duration::from_secs_f64).ok_or_else(wrong)
}

/// What will happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The folder, or file, to work on.
    pub path: PathBuf,
    /// When the workers stop at the latest.
    pub limit: Duration,
    /// How many workers.
    pub workers: u32,
    /// Which events are printed.
    pub show: Show,
    /// The output is for a program.
    pub json: bool,
    /// Size of each CPU's buffer, in KiB.
    pub buffer_kib: u32,
    /// Bytes of a sub-buffer.
    pub subbuf_size: u32,
    /// Sub-buffers in each CPU's ring.
    pub ring_subbufs: u32,
}

/// Which events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Each.
    All,
    /// As many as a person can follow; the others are counted.
    Some,
    /// None.
    None,
}

impl Plan {
    /// Finds all mistakes that can be found before anything is started.
    ///
    /// # Errors
    /// The folder does not exist, or may not be looked at.
    pub fn new(args: &Args, is_terminal: bool) -> Result<Self> {
        let seen = std::fs::metadata(&args.path).and_then(|found| match found.is_dir() {
            true => std::fs::read_dir(&args.path).map(drop),
            false => std::fs::File::open(&args.path).map(drop),
        });
        seen.with_context(|| {
            format!("cannot read {}; give a folder that you may read", args.path.display())
        })?;
        let cpus =
            available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(MOST_WORKERS));
        let ring_subbufs = args.buffer_size / args.subbuf_size;
        if Geometry::new(args.subbuf_size * 1024, ring_subbufs).is_err() {
            let (least, most) = (2 * args.subbuf_size, 65_535 * u64::from(args.subbuf_size));
            misuse!(
                "--buffer-size {} is impossible: with sub-buffers of {} KiB it is {least} to {most} KiB",
                args.buffer_size,
                args.subbuf_size
            );
        }
        Ok(Self {
            path: args.path.clone(),
            limit: args.seconds,
            workers: args.workers.unwrap_or(cpus.clamp(FEWEST_WORKERS, MOST_WORKERS)),
            show: match (args.quiet, is_terminal && !args.json && !args.all) {
                (true, _) => Show::None,
                (false, true) => Show::Some,
                (false, false) => Show::All,
            },
            json: args.json,
            buffer_kib: args.buffer_size,
            subbuf_size: args.subbuf_size * 1024,
            ring_subbufs,
        })
    }
}

/// Runs the demo.
///
/// # Errors
/// The folder cannot be read, the sizes are impossible, or the system refuses memory, a socket or a process.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let plan = Plan::new(args, output.is_terminal())?;
    let signals = Signals::catch()?;
    live::run(&plan, &signals, output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn plan(line: &str) -> Result<Plan> {
        Plan::new(&Line::try_parse_from(line.split(' '))?.args, true)
    }

    #[test]
    fn a_plan_has_bounds() {
        let default = plan("demo").unwrap();
        assert_eq!((default.path.to_str(), default.limit.as_secs()), (Some("."), 5));
        assert!((FEWEST_WORKERS..=MOST_WORKERS).contains(&default.workers));
        assert_eq!(plan("demo --workers 2 --seconds 1 --json /").unwrap().workers, 2);
        for wrong in ["demo --workers 0", "demo --seconds 0", "demo --seconds 4000", "demo a b"] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
        let missing = format!("{:#}", plan("demo no-such-folder").unwrap_err());
        assert!(
            missing.starts_with("cannot read no-such-folder; give a folder that you may read: "),
            "{missing}"
        );
    }
}
