//! A place for daemons of others: whatever is started there ends with its first process.
//!
//! LTTng keeps its sockets, locks and shared memory at fixed places of the system, and its daemons outlive
//! those who started them. Here it gets mount, process, network and IPC namespaces of its own, with empty
//! `/run` and `/dev/shm`: it meets no session daemon of the machine, and the kernel ends all of it and frees
//! its memory when the sandbox's first process ends, whoever hangs or was killed.

use crate::process::{missing, run_within};
use anyhow::{Context as _, bail};
use rustix::mount::{MountFlags, mount};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The sandbox's folder for files of ours.
const HOME: &str = "/run/ringtap-bench";

/// What `unshare` needs to start a command in new namespaces, and to take it along when it dies.
const NAMESPACES: [&str; 7] =
    ["--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc"];
/// Without root, a user namespace in which this user is root has to come first.
const AS_ROOT: [&str; 2] = ["--user", "--map-root-user"];

fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(AS_ROOT);
    }
    unshare.args(NAMESPACES);
    unshare
}

/// Whether this machine lets us make one.
///
/// # Errors
/// With what is in the way.
pub fn check() -> anyhow::Result<()> {
    if let Some(program) = missing(&["unshare"]) {
        bail!("{program} is not installed (Debian: util-linux)");
    }
    let tried = run_within(unshare().arg("true"), Duration::from_secs(10))?;
    if !tried.is_success() {
        bail!("new namespaces are refused: {}; run as root", tried.last_line());
    }
    Ok(())
}

/// The command that runs `guest` as the first process of a sandbox, where it calls [`enter`].
#[must_use]
pub fn command(guest: &Command) -> Command {
    let mut command = unshare();
    command.arg("--").arg(guest.get_program()).args(guest.get_args());
    command
}

/// Furnishes the sandbox from within; returns the folder for files.
///
/// # Errors
/// When this process is not the first of a sandbox, or cannot mount.
pub fn enter() -> anyhow::Result<PathBuf> {
    // Else the mounts would hide the machine's own.
    if !rustix::process::getpid().is_init() {
        bail!("this is not the first process of a sandbox");
    }
    for place in ["/run", "/dev/shm"] {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", place, "tmpfs", flags, None)
            .with_context(|| format!("cannot mount an empty {place} inside the sandbox"))?;
    }
    std::fs::create_dir(HOME).with_context(|| format!("cannot make {HOME} inside the sandbox"))?;
    Ok(Path::new(HOME).into())
}
