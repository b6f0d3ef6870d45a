//! A flight recorder for the program's own death: a helper that outlives it, and writes its last events to a file.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = ringtap::Host::new(&ringtap::Config::default())?;
//! let server = host.serve(ringtap::serve::default_path("app")?)?;
//! let _recorder = ringtap::crash::Recorder::start(&server, "crash.dat", 16 << 20)?;
//! # Ok(())
//! # }
//! ```
//!
//! The helper is `ringtap record --attach SOCKET --snapshot-on crash`, a process of its own: it maps the rings when it
//! starts, so it needs nothing of the program any more when that dies of a panic, an abort, a signal, an overflowing stack
//! or `kill -9`. Nothing is done in a signal handler, and nothing by the dying process. A process that was forked without
//! an exec would not do: it would hold the program's sockets, locks and memory, and lack its threads.

use crate::serve::Server;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The environment's variable that names the program `ringtap`, where it is not found by `PATH`.
pub const PROGRAM_VARIABLE: &str = "RINGTAP";
/// Longest time that the helper may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the helper says when it is.
const READY: &[u8] = b"recording\n";

/// Why there is no helper.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program does not run.
    #[error("failed to start {}: install ringtap, or name the program in {PROGRAM_VARIABLE}", program.display())]
    Program {
        /// What was run.
        program: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It ended instead of recording; it has said why on the standard error.
    #[error("the crash recorder ended at once ({0}): it says why on the standard error")]
    Ended(ExitStatus),
    /// It is not ready in time.
    #[error("the crash recorder was not ready after {} seconds", PATIENCE.as_secs())]
    Late,
    /// Its pipe failed.
    #[error("failed to hear of the crash recorder")]
    Pipe(#[from] io::Error),
}

/// The helper. It goes on when this is dropped, and ends with the program.
#[derive(Debug)]
pub struct Recorder {
    child: Child,
}

impl Recorder {
    /// Starts the helper for the host that `server` serves, and waits until it is ready: events from then on are in `file`
    /// if this process dies. `last_bytes`: how much is kept, of all CPUs together; no more than the rings hold.
    ///
    /// It is the rings' consuming reader: others follow the program by cursors.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(server: &Server, file: impl AsRef<Path>, last_bytes: u64) -> Result<Self, StartError> {
        let program = std::env::var_os(PROGRAM_VARIABLE).filter(|program| !program.is_empty());
        let program = program.unwrap_or_else(|| OsString::from("ringtap"));
        let megabytes = last_bytes.div_ceil(1_000_000).max(1).to_string();
        let mut command = Command::new(&program);
        command.args(["record", "--announce", "--quiet", "--snapshot-on", "crash", "--last", &megabytes]);
        command.arg("--attach").arg(server.path()).arg("-o").arg(file.as_ref());
        // Ctrl-C is for the program.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        let program = PathBuf::from(program);
        let mut child = command.spawn().map_err(|source| StartError::Program { program, source })?;
        let told = child.stdout.take().map(is_ready).unwrap_or(Ok(false));
        match told {
            Ok(true) => Ok(Self { child }),
            Ok(false) => match child.wait() {
                Ok(status) => Err(StartError::Ended(status)),
                Err(error) => Err(error.into()),
            },
            Err(error) => {
                // It is ours, and not waited for yet.
                let _ = child.kill();
                let _ = child.wait();
                Err(if error.kind() == io::ErrorKind::TimedOut { StartError::Late } else { error.into() })
            }
        }
    }

    /// Ends the helper: from now on a crash leaves no file.
    ///
    /// # Errors
    /// The system cannot tell of its end.
    pub fn stop(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }
}

/// Waits until the helper says that it is ready; `false` where it closes its output first.
fn is_ready(mut output: ChildStdout) -> io::Result<bool> {
    let (until, mut said) = (Instant::now() + PATIENCE, Vec::new());
    while said.len() < READY.len() {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&output, PollFlags::IN)];
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let mut piece = [0; READY.len()];
        match output.read(&mut piece)? {
            0 => return Ok(false),
            len => said.extend_from_slice(&piece[..len]),
        }
    }
    Ok(said == READY)
}
