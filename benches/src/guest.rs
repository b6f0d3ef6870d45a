//! What the programs of this crate do when they start themselves again.

use crate::kill_test::Plan;
use crate::{callgrind, kill_test, lttng, marker, ringtap};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The first argument that makes a program of this crate a guest.
const FLAG: &str = "--guest";

/// A part that needs a process of its own.
#[derive(Debug, Serialize, Deserialize)]
pub enum Role {
    /// Writes to the kernel's `trace_marker_raw` on request.
    MarkerWriter {
        /// Where it runs.
        cpu: usize,
    },
    /// Attaches to an instance and writes events on request.
    RingtapWriter {
        /// Where the instance is served.
        socket: PathBuf,
        /// Where it runs.
        cpu: usize,
    },
    /// Sets up LTTng inside a sandbox and writes events on request.
    LttngWriter {
        /// Where the writer runs.
        cpu: usize,
    },
    /// Attaches to an instance and writes the kill test's events on request.
    RingtapKillWriter {
        /// Where the instance is served.
        socket: PathBuf,
        /// Where it runs.
        cpu: usize,
        /// What its events carry.
        id: u64,
        /// Where it leaves its tally when it is told to go: the healthy one's. Without, it is to be killed.
        tally: Option<PathBuf>,
    },
    /// Does LTTng's part of the kill test inside a sandbox and prints the report.
    LttngKillTest {
        /// What to do.
        plan: Plan,
        /// Where the events go.
        recording: lttng::Recording,
    },
    /// Runs a probe, to be counted.
    Probe {
        /// Which one.
        name: String,
    },
}

/// The command that starts this program again in a role.
///
/// # Errors
/// When this program cannot find itself.
pub fn command(role: &Role) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args([FLAG, &serde_json::to_string(role)?]);
    Ok(command)
}

/// What each `main` of this crate does: plays the role this process was started in, or else the program's own
/// part. An error is told in one line.
pub fn main(part: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    match play().unwrap_or_else(part) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to stdout; that nobody reads on is no error.
///
/// # Errors
/// When stdout cannot be written to.
pub fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// Plays the role this process was started in; `None` when it is no guest.
fn play() -> Option<anyhow::Result<()>> {
    let mut args = std::env::args().skip(1);
    if args.next()? != FLAG {
        return None;
    }
    let role = args.next().unwrap_or_default();
    Some(serde_json::from_str(&role).context("unknown role").and_then(|role| match role {
        Role::MarkerWriter { cpu } => marker::serve(cpu),
        Role::RingtapWriter { socket, cpu } => ringtap::serve(&socket, cpu),
        Role::LttngWriter { cpu } => lttng::serve(cpu),
        Role::RingtapKillWriter { socket, cpu, id, tally } => {
            kill_test::serve_writer(&socket, cpu, id, tally.as_deref())
        }
        Role::LttngKillTest { plan, recording } => kill_test::serve_lttng(&plan, recording),
        Role::Probe { name } => callgrind::serve(&name),
    }))
}
