//! `ringtap snapshot`: what the buffers hold at one moment, kept beside them.

use crate::outcome::Outcome;
use crate::output::Output;
use crate::remote::{self, errno};
use anyhow::{Context, Result};
use rustix::io::Errno;

const EXAMPLES: &str = "\
Examples:
  Keep what is there now:              ringtap snapshot --take
  Look at it:                          ringtap snapshot
  Empty it:                            ringtap snapshot --reset
  Give its memory back:                ringtap snapshot --free

Writers and readers of the live buffers go on meanwhile.";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("action").args(["take", "reset", "free"]))]
pub struct Args {
    #[command(flatten)]
    host: remote::Args,
    /// Take a snapshot, in place of the last one
    #[arg(short = 's', long)]
    take: bool,
    /// Empty the snapshot, and keep its memory
    #[arg(short, long)]
    reset: bool,
    /// Free the snapshot's memory
    #[arg(short, long)]
    free: bool,
    /// Of one CPU
    #[arg(short, long, value_name = "CPU", conflicts_with = "free")]
    cpu: Option<u32>,
}

/// Takes, empties, frees or prints it.
///
/// # Errors
/// There is no host or no such instance or CPU, or no memory.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let remote = args.host.open()?;
    let file = match args.cpu {
        Some(cpu) => format!("per_cpu/cpu{cpu}/snapshot"),
        None => "snapshot".to_owned(),
    };
    let action = match (args.take, args.reset, args.free) {
        (true, _, _) => Some(("1", "take a snapshot")),
        (_, true, _) => Some(("2", "empty the snapshot")),
        (_, _, true) => Some(("0", "free the snapshot")),
        _ => None,
    };
    let done = match action {
        Some((number, what)) => remote.write(&file, number).with_context(|| format!("cannot {what}")),
        None => remote.read_to(&file, |bytes| Ok(output.write_as_is(bytes)?)),
    };
    match (done, args.cpu) {
        (Err(error), Some(cpu)) if errno(&error) == Some(Errno::NOENT) => remote.no_cpu(cpu),
        (done, _) => done.map(|()| Outcome::Done),
    }
}
