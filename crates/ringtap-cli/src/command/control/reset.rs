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
    args.host.open()?.visit(args.all, |remote| reset(remote, args.buffer_size))?;
    Ok(Outcome::Done)
}

/// Each step for itself: what one of them is refused for keeps nothing else from being reset.
fn reset(remote: &Remote, buffer_size: Option<u32>) -> Result<()> {
    let size = buffer_size.map(|size| size.to_string());
    let steps = [
        ("tracing_on", Some("0")),
        ("awaited_events", Some("")),
        ("event_rules", Some("")),
        ("events/enable", Some("0")),
        ("set_event_pid", Some("")),
        ("set_event_notrace_pid", Some("")),
        ("options/event-fork", Some("0")),
        ("error_log", Some("")),
        ("buffer_size_kb", size.as_deref()),
        ("trace", Some("")),
        ("tracing_on", Some("1")),
    ];
    let made = steps.into_iter().filter_map(|(file, text)| {
        Some(remote.write(file, text?).with_context(|| format!("cannot reset {file}")))
    });
    // All of them, and then what the first one says that failed.
    made.collect::<Vec<_>>().into_iter().collect()
}
