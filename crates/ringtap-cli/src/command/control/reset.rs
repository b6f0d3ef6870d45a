//! `ringtap reset`: an instance as it was at first.

use super::changes::Changes;
use crate::outcome::Outcome;
use crate::remote::{self, Remote, is_programs_own};
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

/// The size first, which is the user's to choose and may be refused: then nothing is changed. Of what follows each step is for
/// itself: what one of them is refused for keeps nothing else from being reset.
fn reset(remote: &Remote, buffer_size: Option<u32>) -> Result<()> {
    if buffer_size.is_none() && remote.read("tracing_on").is_err_and(|error| is_programs_own(&error)) {
        // It has no settings, and records as a new one does.
        remote.set_recording(false)?;
        return remote.empty_own().and_then(|()| remote.set_recording(true));
    }
    if let Some(size) = buffer_size {
        Changes::new(remote).set("buffer_size_kb", &size.to_string()).context("cannot reset")?;
    }
    let steps = [
        ("tracing_on", "0"),
        ("awaited_events", ""),
        ("event_rules", ""),
        ("events/enable", "0"),
        ("set_event_pid", ""),
        ("set_event_notrace_pid", ""),
        ("options/event-fork", "0"),
        ("error_log", ""),
        ("trace", ""),
        ("tracing_on", "1"),
    ];
    let made = steps
        .into_iter()
        .map(|(file, text)| remote.write(file, text).with_context(|| format!("cannot reset {file}")));
    // All of them, and then what the first one says that failed.
    made.collect::<Vec<_>>().into_iter().collect()
}
