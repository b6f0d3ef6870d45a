//! The demo's worker processes, seen by the process that starts them.

use super::work::Totals;
use crate::child::THIS_PROGRAM;
use anyhow::{Context, Result, bail};
use ringtap::attach::SOCKET_VARIABLE;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Workers at work. Dropping this ends and reaps them.
#[derive(Debug)]
pub struct Workers {
    children: Vec<Child>,
}

/// What all workers did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The sum of what those did that told.
    pub totals: Totals,
    /// Workers that were killed before they could tell. What they traced is in the buffers all the same.
    pub killed: u32,
}

impl Workers {
    /// Starts `count` workers on the files under `path`.
    ///
    /// # Errors
    /// The system cannot make a process. Those already made are ended.
    pub fn start(path: &Path, count: u32, limit: Duration, socket: &Path) -> Result<Self> {
        let mut workers = Self { children: Vec::new() };
        for index in 0..count {
            let child = command(path, index, count, limit)
                .env(SOCKET_VARIABLE, socket)
                .spawn()
                .context("cannot start a worker")?;
            workers.children.push(child);
        }
        Ok(workers)
    }

    /// Asks all to stop and tell what they did.
    pub fn stop(&self) {
        for child in &self.children {
            // Not reaped before `finish`, so the pid is its own.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
    }

    /// Whether all have ended.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn ended(&self) -> Result<bool> {
        let mut ended = true;
        for child in &self.children {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let status = waitid(WaitId::Pid(Pid::from_child(child)), options);
            ended &= status.context("cannot wait for a worker")?.is_some();
        }
        Ok(ended)
    }

    /// Waits for all, and adds up what they did.
    ///
    /// # Errors
    /// One failed; it has said why on the standard error.
    pub fn finish(mut self) -> Result<Summary> {
        let mut summary = Summary::default();
        for child in &mut self.children {
            // One line, far shorter than a pipe holds, so no worker waits for this.
            let mut line = String::new();
            if let Some(mut stdout) = child.stdout.take() {
                stdout.read_to_string(&mut line).context("cannot read a worker's totals")?;
            }
            let status = child.wait().context("cannot wait for a worker")?;
            match (status.success(), status.signal()) {
                (true, _) => summary.totals += serde_json::from_str(&line).context("a worker's totals")?,
                (false, Some(_)) => summary.killed += 1,
                (false, None) => bail!("a worker failed, as said above"),
            }
        }
        Ok(summary)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // They hold nothing that a kill could spoil. Those already reaped are not touched.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn command(path: &Path, index: u32, of: u32, limit: Duration) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg0("ringtap").arg("demo-worker");
    command.arg("--parent").arg(std::process::id().to_string());
    command.arg("--index").arg(index.to_string());
    command.arg("--of").arg(of.to_string());
    command.arg("--milliseconds").arg(limit.as_millis().to_string());
    command.arg("--").arg(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}
