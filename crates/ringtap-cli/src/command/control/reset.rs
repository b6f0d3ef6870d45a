//! `ringtap reset`: an instance as it was at first.

use crate::outcome::Outcome;
use crate::remote::{self, Remote};
use anyhow::{Context, Result};

const EXAMPLES: &str = "\
Examples:
  The top instance:                    ringtap reset
  All instances:                       ringtap reset --all
  With buffers of another size:        ringtap reset -b 1408

Switches all events off, takes filters, triggers and lists of threads away, empties the buffers, and
records again, as at first. Instances stay: `ringtap instance rm` removes them.";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    host: remote::Args,
    /// Reset all instances
    #[arg(short, long, conflicts_with = "instance")]
    all: bool,
    /// Size of each CPU's buffer from now on, in KiB
    #[arg(short, long, value_name = "KIB", value_parser = clap::value_parser!(u32).range(1..))]
    buffer_size: Option<u32>,
}

/// Resets.
///
/// # Errors
/// There is no host or no such instance, or a buffer is in use.
pub fn run(args: &Args) -> Result<Outcome> {
    let mut remote = args.host.open()?;
    reset(&remote, args.buffer_size)?;
    if args.all {
        for name in remote.instances()? {
            remote = remote.of(Some(name));
            reset(&remote, args.buffer_size)?;
        }
    }
    Ok(Outcome::Done)
}

fn reset(remote: &Remote, buffer_size: Option<u32>) -> Result<()> {
    remote.write("tracing_on", "0")?;
    remote.write("awaited_events", "")?;
    for (system, event) in remote.events()? {
        let folder = format!("events/{system}/{event}");
        let triggers = remote.read_if_there(&format!("{folder}/trigger"))?.unwrap_or_default();
        for trigger in triggers.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            remote.write(&format!("{folder}/trigger"), &format!("!{trigger}"))?;
        }
        if remote.read(&format!("{folder}/filter"))?.trim() != "none" {
            remote.write(&format!("{folder}/filter"), "0")?;
        }
        if !remote.read(&format!("{folder}/enable"))?.starts_with('0') {
            remote.write(&format!("{folder}/enable"), "0")?;
        }
    }
    for file in ["set_event_pid", "set_event_notrace_pid", "error_log"] {
        remote.write(file, "")?;
    }
    if let Some(size) = buffer_size {
        remote.write("buffer_size_kb", &size.to_string()).context("cannot resize the buffers")?;
    }
    remote.write("trace", "").context("cannot empty the buffers")?;
    remote.write("tracing_on", "1")
}
