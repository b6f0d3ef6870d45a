//! The kernel's own way for an application to leave an event: `write` to `trace_marker_raw`.

use crate::guest::{self, Role};
use crate::worker::{self, Worker};
use crate::{PAYLOAD_LEN, cpu};
use anyhow::Context as _;
use rustix::fs::{Access, access};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

/// The name it has in the table.
pub const NAME: &str = "trace_marker_raw";
const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// A tracefs instance of our own; dropping it removes it.
struct Instance(PathBuf);

impl Instance {
    fn create() -> anyhow::Result<Self> {
        let path = PathBuf::from(INSTANCES).join(format!("ringtap-bench-{}", std::process::id()));
        fs::create_dir(&path)
            .with_context(|| format!("cannot make the tracefs instance {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("cannot remove the tracefs instance {}: {error}", self.0.display());
        }
    }
}

/// Whether this machine lets us write markers.
///
/// # Errors
/// With what is in the way.
pub fn check() -> anyhow::Result<()> {
    // Making an instance to try would leave it behind if we were killed right then.
    access(INSTANCES, Access::WRITE_OK)
        .with_context(|| format!("cannot write to {INSTANCES}; mount tracefs and run as root"))?;
    Ok(())
}

/// The contender. It lives in a process of its own, which removes its instance when we go, however we go.
///
/// # Errors
/// When it does not start.
pub fn contender(cpu: usize) -> anyhow::Result<Worker> {
    Worker::spawn(NAME, &mut guest::command(&Role::MarkerWriter { cpu })?)
}

/// The contender's process: writes markers on request.
///
/// # Errors
/// When the instance cannot be made or a write fails.
pub fn serve(cpu: usize) -> anyhow::Result<()> {
    cpu::pin(cpu)?;
    let instance = Instance::create()?;
    let mut marker = File::options().write(true).open(instance.0.join(NAME))?;
    // The kernel takes the first four bytes as the marker's id.
    let event = [1; 4 + PAYLOAD_LEN];
    worker::serve(|iterations| {
        for _ in 0..iterations {
            marker.write_all(&event).context("trace_marker_raw refuses an event")?;
        }
        Ok(())
    })
}
