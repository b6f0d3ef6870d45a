//! `ringtap held` (hidden): the process that becomes a COMMAND once tracing is on, or that stays stopped as a witness;
//! see [`crate::child`].

use crate::outcome::Outcome;
use crate::preload;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

/// What shells say of a command that is not there, or is not a program.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The process that will continue us; without it we end
    #[arg(long)]
    parent: i32,
    /// The command and its arguments; without it we stay stopped
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Waits, and becomes COMMAND. Returns only where that fails, with the status that shells use for it.
///
/// # Errors
/// The parent is gone already, or there is no COMMAND and no stopping.
pub fn run(args: &Args) -> Result<Outcome> {
    // Whoever waits stopped cannot notice that nobody is left to continue it.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot watch the parent")?;
    if getppid().map(Pid::as_raw_pid) != Some(args.parent) {
        bail!("the process that was to start the command is gone");
    }
    let Some((program, rest)) = args.command.split_first() else {
        // A shell's `fg` continues all of its job.
        loop {
            kill_process(getpid(), Signal::STOP).context("cannot stop")?;
        }
    };
    // Until it runs it has its name already, instead of that of the file /proc/self/exe.
    let name = Path::new(program).file_name().unwrap_or(program);
    let _ = std::fs::write("/proc/self/comm", name.as_bytes());
    kill_process(getpid(), Signal::STOP).context("cannot wait to be continued")?;
    set_parent_process_death_signal(None).context("cannot stop watching the parent")?;

    let error = Command::new(program)
        .args(rest)
        .env_remove(preload::NOT_FOR_COMMAND)
        .envs(preload::for_command())
        .exec();
    Ok(refused(program, &error))
}

/// Says that a command cannot be run, with the status that shells use for it.
pub(super) fn refused(program: &OsStr, error: &io::Error) -> Outcome {
    let (code, remedy) = match error.kind() {
        ErrorKind::NotFound => (NOT_FOUND, "; give its path or install it"),
        _ => (NOT_EXECUTABLE, ""),
    };
    anstream::eprintln!("ringtap: cannot run '{}': {error}{remedy}", program.display());
    Outcome::Command(ExitStatus::from_raw(code << 8))
}
