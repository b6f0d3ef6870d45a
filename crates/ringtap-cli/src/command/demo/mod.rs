//! `ringtap demo`: several processes read the files under a folder, and trace what they do.

pub mod report;
pub mod work;
pub mod worker;
pub mod workers;

use anyhow::{Context, Result};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  On the files of this folder:          ringtap demo
  On a large one, for ten seconds:      ringtap demo --seconds 10 /usr
  The summary only, for a program:      ringtap demo --json . | tail -n 1

The workers only read: files are opened read-only, links are not followed, and other file systems
are left out. With --json the last line is one object:
  {\"written\":0,\"read\":0,\"lost\":0,\"left\":0,\"ns_per_event\":0.0,\"ns_per_clock_read\":0.0,\"cpus\":0,
  \"writers\":0}";

/// Workers where the machine has few CPUs: it takes some to show that processes share a buffer.
const FEWEST_WORKERS: u32 = 4;
/// Workers unless more are asked for.
const MOST_WORKERS: u32 = 16;
/// Longest run, in seconds.
const MAX_SECONDS: u64 = 3600;

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder whose files the workers read
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Stop after this many seconds, or when all is read
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: u64,
    /// How many worker processes; without it, one for each CPU, and at least four
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: Option<u32>,
    /// Print no events, and the summary as one JSON object
    #[arg(long)]
    json: bool,
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
    /// The summary is for a program.
    pub json: bool,
}

impl Plan {
    /// Finds all mistakes that can be found before anything is started.
    ///
    /// # Errors
    /// The folder does not exist, or may not be looked at.
    pub fn new(args: &Args) -> Result<Self> {
        let seen = std::fs::metadata(&args.path).and_then(|found| match found.is_dir() {
            true => std::fs::read_dir(&args.path).map(drop),
            false => std::fs::File::open(&args.path).map(drop),
        });
        seen.with_context(|| {
            format!("cannot read {}; give a folder that you may read", args.path.display())
        })?;
        let cpus =
            available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(MOST_WORKERS));
        Ok(Self {
            path: args.path.clone(),
            limit: Duration::from_secs(args.seconds),
            workers: args.workers.unwrap_or(cpus.clamp(FEWEST_WORKERS, MOST_WORKERS)),
            json: args.json,
        })
    }
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
        Plan::new(&Line::try_parse_from(line.split(' '))?.args)
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
