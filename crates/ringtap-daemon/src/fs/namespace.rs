//! A private view of the machine in which the tree stands where tools look for the kernel's tracefs.
//!
//! Tools find a tracefs by its type in `/proc/mounts`, which a FUSE cannot have. So the kernel's own stays mounted, and
//! the tree is mounted over it, at each place where there is one. All of this is seen by the processes of the namespace
//! alone, and goes with the last of them.

#![expect(unsafe_code, reason = "unshare, which is unsafe for flags that are not used here")]

use super::mount::{Mount, MountError};
use super::tree::Tree;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;
use std::fs;
use std::path::{Path, PathBuf};

/// Where tools look first.
const TRACING: &str = "/sys/kernel/tracing";
/// Where others look first, or mount a debugfs in which the kernel's tracefs then appears.
const DEBUG: &str = "/sys/kernel/debug";
const DEBUG_TRACING: &str = "/sys/kernel/debug/tracing";
/// A switch of the function tracer outside the tracefs, which trace-cmd sets and a locked-down kernel refuses.
const FTRACE_ENABLED: &str = "/proc/sys/kernel/ftrace_enabled";

/// A namespace of mounts that this process is in, and its children will be.
#[derive(Debug)]
pub struct Namespace {
    /// Whether a user namespace was needed too.
    of_user: bool,
}

impl Namespace {
    /// Enters a mount namespace of this process's own. To be called before the process has a second thread.
    ///
    /// # Errors
    /// [`MountError::NoNamespace`] where the kernel refuses.
    pub fn enter() -> Result<Self, MountError> {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        // SAFETY: the table of descriptors stays shared.
        let unshare = |flags| unsafe { rustix::thread::unshare_unsafe(flags | UnshareFlags::NEWNS) };
        // Nobody but root may without a user namespace, and root needs one where it lacks the capability.
        let of_user = !geteuid().is_root() || unshare(UnshareFlags::empty()).is_err();
        if of_user {
            unshare(UnshareFlags::NEWUSER).map_err(|errno| MountError::NoNamespace(errno.into()))?;
            write("/proc/self/setgroups", "deny")?;
            write("/proc/self/uid_map", &format!("0 {user} 1"))?;
            write("/proc/self/gid_map", &format!("0 {group} 1"))?;
        }
        let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        let failed = |errno: Errno| MountError::System {
            action: "keep mounts private below",
            path: "/".into(),
            source: errno.into(),
        };
        rustix::mount::mount_change("/", flags).map_err(failed)?;
        Ok(Self { of_user })
    }

    /// Mounts the tree wherever a tracefs is looked for. `scratch` is a directory for a file that is to live as long.
    ///
    /// # Errors
    /// [`MountError`], where not even `/sys/kernel/tracing` can be had.
    pub fn show(&self, tree: &Tree, scratch: &Path) -> Result<Mount, MountError> {
        self.mount_kernels("tracefs", TRACING);
        self.mount_kernels("debugfs", DEBUG);
        // A debugfs mounts a tracefs there for who enters it.
        let _ = fs::metadata(Path::new(DEBUG_TRACING).join("."));
        let others = tracefs_mounts();
        let mount = Mount::new(tree, Path::new(TRACING))?;
        let others = others.iter().map(PathBuf::as_path).chain([Path::new(DEBUG_TRACING)]);
        for other in others.filter(|path| *path != Path::new(TRACING)) {
            // Where it is not for this user, the tools cannot get there either.
            let _ = rustix::mount::mount_bind(TRACING, other);
        }
        let switch = scratch.join("ftrace_enabled");
        if fs::write(&switch, "1\n").is_ok() {
            // A kernel without function tracer has no such file, and the tools know that.
            let _ = rustix::mount::mount_bind(&switch, FTRACE_ENABLED);
        }
        Ok(mount)
    }

    /// Whether tools that search for a tracefs find the tree.
    #[must_use]
    pub fn is_found(&self) -> bool {
        tracefs_mounts().iter().any(|path| path == Path::new(TRACING))
    }

    /// Mounts one of the kernel's file systems, unless it is there.
    fn mount_kernels(&self, kind: &str, path: &str) {
        // Only the first user namespace's root may, and a kernel without it has no such directory.
        if !self.of_user && !mounts().iter().any(|(mounted, of)| mounted == Path::new(path) && of == kind) {
            let _ = rustix::mount::mount("nodev", path, kind, MountFlags::empty(), None);
        }
    }
}

fn write(path: &str, text: &str) -> Result<(), MountError> {
    let failed = |source| MountError::System { action: "map this user in", path: path.into(), source };
    fs::write(path, text).map_err(failed)
}

fn tracefs_mounts() -> Vec<PathBuf> {
    mounts().into_iter().filter(|(_, kind)| kind == "tracefs").map(|(path, _)| path).collect()
}

/// What is mounted where, by type.
fn mounts() -> Vec<(PathBuf, String)> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        Some((PathBuf::from(fields.next()?), fields.next()?.to_owned()))
    };
    table.lines().filter_map(mount).collect()
}
