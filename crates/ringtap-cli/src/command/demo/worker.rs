//! `ringtap demo-worker` (hidden): one of the demo's processes.

use super::events::Tracer;
use super::work::{Share, work};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::signals::Signals;
use anyhow::{Context, Result, bail};
use ringtap::attach::{Connection, Role, SOCKET_VARIABLE};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::ffi::CString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The process that reads our totals; without it we end
    #[arg(long)]
    parent: i32,
    /// Which of the workers this is
    #[arg(long)]
    index: u32,
    /// How many there are
    #[arg(long)]
    of: u32,
    /// When to stop, in milliseconds from now
    #[arg(long)]
    milliseconds: u64,
    /// The folder to work on
    path: PathBuf,
}

/// Does the work, and prints the totals as one JSON object.
///
/// # Errors
/// The folder cannot be looked at, or the parent is gone.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot watch the parent")?;
    if getppid().map(Pid::as_raw_pid) != Some(args.parent) {
        bail!("the demo that started this worker is gone");
    }
    // Asked to stop, we still tell what we did.
    let signals = Signals::catch()?;
    let _ = rustix::thread::set_name(&CString::new(format!("worker-{}", args.index))?);
    let mut tracer = match Connection::from_environment(Role::Writer)? {
        Some(host) => Tracer::attach(&host)?,
        None => bail!("{SOCKET_VARIABLE} names no host to write to: `ringtap demo` sets it"),
    };
    let deadline = Instant::now() + Duration::from_millis(args.milliseconds);
    let share = Share { index: args.index, of: args.of };
    let in_time = || Instant::now() < deadline && signals.caught().is_none();
    let totals = work(&args.path, share, in_time, |event| tracer.trace(&event));
    let mut totals = totals.with_context(|| format!("cannot read {}", args.path.display()))?;
    totals.events = tracer.written;
    output.json_line(&totals)?;
    Ok(Outcome::Done)
}
