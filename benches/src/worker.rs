//! Contenders that live in another process.
//!
//! A worker reads from stdin how many operations to do, and answers on stdout with the nanoseconds they took
//! on the wall's clock and of its thread's CPU time: 64-bit little-endian numbers. The end of its stdin tells
//! it to clean up and go, so that it also cleans up behind a parent that was killed.
//! `lttng-ust/writer.c` speaks the same.

use crate::process::wait_within;
use crate::rotation::{Contender, Sample, timed};
use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How long a worker may take to start or to answer before it counts as hung.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to clean up after the end of its stdin.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);

/// A child process that does operations on request. Dropping it lets it clean up, and kills it when it hangs.
#[derive(Debug)]
pub struct Worker {
    name: String,
    child: Child,
    requests: Option<ChildStdin>,
    answers: ChildStdout,
}

impl Worker {
    /// Starts `command` and waits until it answers.
    ///
    /// It gets a process group of its own: a terminal's Ctrl-C ends us, and the end of its stdin then ends it.
    ///
    /// # Errors
    /// When it does not start, or ends or hangs before its first answer.
    pub fn spawn(name: impl Into<String>, command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let requests = child.stdin.take();
        let answers = child.stdout.take().context("a piped stdout is there")?;
        let mut worker = Self { name: name.into(), child, requests, answers };
        worker.run(0)?;
        Ok(worker)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks for `iterations` operations and does not wait for them.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn start(&mut self, iterations: u64) -> anyhow::Result<()> {
        let requests = self.requests.as_mut().context("the worker was told to go")?;
        requests.write_all(&iterations.to_le_bytes()).with_context(|| format!("{} is gone", self.name))
    }

    /// Waits for the answer to [`Worker::start`].
    ///
    /// # Errors
    /// When the worker ends, or does not answer within [`ANSWER_WITHIN`].
    pub fn finish(&mut self) -> anyhow::Result<Sample> {
        let timeout = Timespec { tv_sec: ANSWER_WITHIN.as_secs().cast_signed(), tv_nsec: 0 };
        if poll(&mut [PollFd::new(&self.answers, PollFlags::IN)], Some(&timeout))? == 0 {
            bail!("{} does not answer for {ANSWER_WITHIN:?}", self.name);
        }
        let mut number = || -> io::Result<u64> {
            let mut bytes = [0; 8];
            self.answers.read_exact(&mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        };
        let sample = number().and_then(|wall_ns| Ok(Sample { wall_ns, cpu_ns: number()? }));
        sample.with_context(|| format!("{} ended without an answer", self.name))
    }

    /// Ends the worker with SIGKILL, wherever it is, and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel does not let us.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .with_context(|| format!("cannot kill {}", self.name))?;
        Ok(())
    }
}

impl Contender for Worker {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
        self.start(iterations)?;
        self.finish()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.requests.take());
        if !matches!(wait_within(&mut self.child, LEAVE_WITHIN), Ok(Some(_))) {
            eprintln!("{} did not clean up within {LEAVE_WITHIN:?}: killed", self.name);
            // It may have gone just now; then there is nothing to kill.
            let _ = self.child.kill().and_then(|()| self.child.wait());
        }
    }
}

/// The worker's side, for workers in Rust: does what stdin asks for until it ends.
///
/// # Errors
/// When a request is cut off or an answer cannot be sent.
pub fn serve(mut operation: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (mut requests, mut answers) = (io::stdin().lock(), io::stdout().lock());
    let mut bytes = [0; 8];
    while requests.read_exact(&mut bytes).is_ok() {
        let mut outcome = Ok(());
        let sample = timed(|| outcome = operation(u64::from_le_bytes(bytes)));
        outcome?;
        let answer = [sample.wall_ns.to_le_bytes(), sample.cpu_ns.to_le_bytes()].concat();
        answers.write_all(&answer).and_then(|()| answers.flush()).context("nobody takes the answer")?;
    }
    Ok(())
}
