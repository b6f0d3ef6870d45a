//! LTTng-UST: the tracer that application developers on Linux use today.
//!
//! Everything runs in a [`sandbox`] of its own: session daemon, consumer daemon, writers, the trace. The writer,
//! `lttng-ust/writer.c`, is compiled there.

use crate::guest::{self, Role};
use crate::process::{Finished, missing, run_within};
use crate::sandbox;
use crate::worker::Worker;
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The name it has in the table.
pub const NAME: &str = "lttng-ust";

const SESSION: &str = "ringtap-bench";
const CHANNEL: &str = "rings";
const PROVIDER_H: &str = include_str!("../lttng-ust/ringtap_bench_tp.h");
const WRITER_C: &str = include_str!("../lttng-ust/writer.c");

/// How long one of LTTng's commands may take before it counts as hung; they take milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);
const COMPILE_WITHIN: Duration = Duration::from_secs(120);

/// Where a session's events go. The rings overwrite their oldest events in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recording {
    /// Nowhere until a snapshot is taken: the flight recorder.
    Snapshot,
    /// To files, all the time.
    Continuous,
}

/// Size of a channel's rings, for each CPU.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// A sub-buffer's size as LTTng's option takes it.
    pub subbuf_size: &'static str,
    /// How many of them.
    pub nr_subbufs: u32,
}

/// What LTTng makes when it is not told otherwise, stated here so that it stays comparable.
const DEFAULT_RING: Ring = Ring { subbuf_size: "512k", nr_subbufs: 4 };

/// Whether this machine has what it takes.
///
/// # Errors
/// With what is missing.
pub fn check() -> anyhow::Result<()> {
    if let Some(program) = missing(&["lttng", "lttng-sessiond", "babeltrace2"]) {
        bail!("{program} is not installed (Debian: lttng-tools, babeltrace2)");
    }
    if let Some(program) = missing(&["cc"]) {
        bail!("{program} is not installed (Debian: gcc)");
    }
    let header = ["-E", "-include", "lttng/tracepoint.h", "-x", "c", "/dev/null", "-o", "/dev/null"];
    let found = run_within(Command::new("cc").args(header), COMPILE_WITHIN)?;
    ensure!(found.is_success(), "lttng/tracepoint.h is not installed (Debian: liblttng-ust-dev)");
    sandbox::check()
}

/// The contender: one tracepoint with ringtap's payload, overwriting, in buffers shared by a user's processes.
///
/// # Errors
/// When LTTng does not start.
pub fn contender(cpu: usize) -> anyhow::Result<Worker> {
    Worker::spawn(NAME, &mut sandbox::command(&guest::command(&Role::LttngWriter { cpu })?))
}

/// The contender's first process: LTTng around a writer that answers in its place.
///
/// # Errors
/// When LTTng does not start.
pub fn serve(cpu: usize) -> anyhow::Result<()> {
    let session = Session::start(Recording::Snapshot, DEFAULT_RING)?;
    let status = session.writer(cpu, 0).status().context("cannot start the LTTng writer")?;
    ensure!(status.success(), "the LTTng writer ended with {status}");
    // The sandbox would end it anyhow; that it ends by itself shows that nothing hung.
    let destroyed = session.lttng(&["destroy", SESSION])?;
    ensure!(destroyed.is_success(), "lttng destroy failed: {}", destroyed.last_line());
    Ok(())
}

/// A session with a daemon of its own, recording the writer's event. It lives as long as the sandbox.
#[derive(Debug)]
pub struct Session {
    home: PathBuf,
}

impl Session {
    /// Starts a session daemon and a session inside the sandbox whose first process this is.
    ///
    /// # Errors
    /// When a step fails, with LTTng's own words.
    pub fn start(recording: Recording, ring: Ring) -> anyhow::Result<Self> {
        let session = Self { home: sandbox::enter()? };
        session.compile_writer()?;
        let mut daemon = session.command("lttng-sessiond");
        // The group that may control it by default need not exist in a sandbox.
        daemon.args(["--daemonize", "--no-kernel", "--group=root"]);
        expect(run_within(&mut daemon, PATIENCE)?, "lttng-sessiond")?;

        let output = format!("--output={}", session.trace().display());
        let mut create = vec!["create", SESSION, &output];
        if recording == Recording::Snapshot {
            create.push("--snapshot");
        }
        let subbuf_size = format!("--subbuf-size={}", ring.subbuf_size);
        let nr_subbufs = format!("--num-subbuf={}", ring.nr_subbufs);
        let channel = ["enable-channel", "--userspace", "--overwrite", "--buffers-uid", CHANNEL];
        let channel = [&channel[..], &[&subbuf_size, &nr_subbufs]].concat();
        let event = ["enable-event", "--userspace", "--channel", CHANNEL, "ringtap_bench:event"];
        for step in [&create[..], &channel, &event, &["start", SESSION]] {
            expect(session.lttng(step)?, "lttng")?;
        }
        Ok(session)
    }

    fn compile_writer(&self) -> anyhow::Result<()> {
        fs::write(self.home.join("ringtap_bench_tp.h"), PROVIDER_H)?;
        fs::write(self.home.join("writer.c"), WRITER_C)?;
        let mut cc = self.command("cc");
        cc.args(["-O2", "-I.", "-o", "writer", "writer.c", "-llttng-ust", "-ldl"]);
        expect(run_within(&mut cc, COMPILE_WITHIN)?, "cc")
    }

    /// The command that starts a writer.
    #[must_use]
    pub fn writer(&self, cpu: usize, id: u64) -> Command {
        let mut writer = self.command("./writer");
        // Do not run before the session daemon has switched the event on, however long it takes.
        writer.args([cpu.to_string(), id.to_string()]).env("LTTNG_UST_REGISTER_TIMEOUT", "-1");
        writer
    }

    /// Where the trace is written.
    #[must_use]
    pub fn trace(&self) -> PathBuf {
        self.home.join("trace")
    }

    /// Stops recording.
    ///
    /// # Errors
    /// When `lttng` cannot be started.
    pub fn stop(&self) -> anyhow::Result<Finished> {
        self.lttng(&["stop", SESSION])
    }

    /// Writes what the rings hold to files.
    ///
    /// # Errors
    /// When `lttng` cannot be started.
    pub fn record_snapshot(&self) -> anyhow::Result<Finished> {
        self.lttng(&["snapshot", "record", "--session", SESSION])
    }

    /// Prints the channel's state, with its counters of losses.
    ///
    /// # Errors
    /// When `lttng` cannot be started.
    pub fn list(&self) -> anyhow::Result<Finished> {
        self.lttng(&["list", SESSION])
    }

    /// Ends the session.
    ///
    /// # Errors
    /// When `lttng` cannot be started.
    pub fn destroy(&self) -> anyhow::Result<Finished> {
        self.lttng(&["destroy", SESSION])
    }

    fn lttng(&self, args: &[&str]) -> anyhow::Result<Finished> {
        run_within(self.command("lttng").args(args), PATIENCE)
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.home).env("LTTNG_HOME", &self.home).env("HOME", &self.home);
        command
    }
}

fn expect(finished: Finished, program: &str) -> anyhow::Result<()> {
    match finished.status {
        Some(status) if status.success() => Ok(()),
        Some(_) => bail!("{program} failed: {}", finished.last_line()),
        None => bail!("{program} hung, killed after {:?}", finished.took),
    }
}

/// The version, in LTTng's own words.
#[must_use]
pub fn version() -> String {
    let told = run_within(Command::new("lttng").arg("--version").stderr(Stdio::null()), PATIENCE);
    told.ok()
        .and_then(|told| told.output.split_whitespace().find(|word| word.contains('.')).map(str::to_owned))
        .unwrap_or_else(|| "of unknown version".into())
}
