//! The tree as a file system: mounted, served by a few threads, unmounted.

#![forbid(unsafe_code)]

use super::fuse::device::Device;
use super::server::{Burst, Held, Server};
use super::tree::Tree;
use crate::limits::SLOW_THREADS;
use rustix::event::EventfdFlags;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Why a tree cannot be mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// There is no FUSE.
    #[error("failed to open /dev/fuse (is the fuse module loaded, and may this user open it?)")]
    NoFuse(#[source] std::io::Error),
    /// The kernel refuses to mount.
    #[error(
        "failed to mount on {path}: only root may, or who has a user namespace of its own (`ringtap exec` makes one)"
    )]
    NotPermitted {
        /// Where.
        path: PathBuf,
    },
    /// There can be no private view of the machine.
    #[error(
        "failed to make a private view of the machine: that takes CAP_SYS_ADMIN, or that this user may make user namespaces"
    )]
    NoNamespace(#[source] std::io::Error),
    /// The kernel's FUSE is too old.
    #[error("this kernel speaks FUSE {found}, which is too old: ringtap needs 7.23 (Linux 4.2)")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// The kernel refused.
    #[error("failed to {action} {path}")]
    System {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// A mounted tree. Dropped, it is unmounted, and those who have its files open get errors.
///
/// It is for other processes. One that waits in a file of its own mount, and is killed then, waits for itself to answer,
/// and is gone only when somebody unmounts with force.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    server: Arc<Server>,
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Mount {
    /// Mounts a tree on a directory. Where the remains of a server that was killed are mounted there, they go first.
    ///
    /// # Errors
    /// [`MountError`] says what is missing.
    pub fn new(tree: &Tree, path: &Path) -> Result<Self, MountError> {
        let system = |action| {
            let path = path.to_owned();
            move |errno: Errno| MountError::System { action, path, source: errno.into() }
        };
        remove_remains(path);
        let device = Arc::new(Device::open().map_err(|errno| MountError::NoFuse(errno.into()))?);
        attach(&device, path)?;
        let greeted = Server::greet(device, tree.clone());
        let server = greeted.inspect_err(|_| unmount(path))?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(system("serve"))?;
        let mut mount = Self {
            path: path.to_owned(),
            server: Arc::new(server),
            stop: Arc::new(stop),
            threads: Vec::new(),
        };
        let burst = Burst::default();
        mount.spawn("ringtap-fuse", move |server, stop| server.serve(stop.as_fd(), burst))?;
        mount.spawn("ringtap-fuse-wait", |server, _| server.wait_for_others())?;
        for _ in 0..SLOW_THREADS {
            mount.spawn("ringtap-fuse-slow", |server, _| server.serve_slowly())?;
        }
        tree.set_strict(mount.server.mappings());
        Ok(mount)
    }

    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce(&Server, &OwnedFd) + Send + 'static,
    ) -> Result<(), MountError> {
        let (server, stop) = (Arc::clone(&self.server), Arc::clone(&self.stop));
        let spawned = ringtap::thread::spawn_without_signals(name, move || run(&server, &stop));
        let failed = |source| MountError::System {
            action: "start a thread to serve",
            path: self.path.clone(),
            source,
        };
        self.threads.push(spawned.map_err(failed)?);
        Ok(())
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether clients can map `trace_pipe_raw`. Where they cannot, for want of `CAP_SYS_ADMIN` in the first user
    /// namespace or of a kernel with FUSE passthrough (Linux 6.9), they read.
    #[must_use]
    pub fn can_map(&self) -> bool {
        self.server.can_map()
    }

    /// What is held for clients.
    #[must_use]
    pub fn held(&self) -> Held {
        self.server.held()
    }

    /// Whether the tree is still mounted: somebody else may have unmounted it.
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted() {
            unmount(&self.path);
        }
        self.server.stop();
        // Cannot fail: a counter at 0 takes any number but u64::MAX.
        let _ = rustix::io::write(&*self.stop, &[1; 8]);
        for thread in self.threads.drain(..) {
            // It does not panic; if it did, there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

/// Unmounts what a killed server left: it answers nothing but `ENOTCONN`.
fn remove_remains(path: &Path) {
    // Each of them may hide another.
    for _ in 0..16 {
        match rustix::fs::statfs(path) {
            Err(Errno::NOTCONN) => unmount(path),
            _ => return,
        }
    }
}

/// Unmounts as soon as nobody is in it, and from all paths at once.
fn unmount(path: &Path) {
    // It may be gone already.
    let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
}

fn attach(device: &Device, path: &Path) -> Result<(), MountError> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let options = format!(
        "fd={},rootmode=40000,user_id={user},group_id={group},allow_other,default_permissions",
        device.as_fd().as_raw_fd()
    );
    let options = CString::new(options).expect("there is no NUL in it");
    // As tracefs's own: nothing in it is a program or a device.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("ringtap", path, "fuse.ringtap", flags, options.as_c_str()).map_err(|errno| {
        match errno {
            Errno::PERM | Errno::ACCESS => MountError::NotPermitted { path: path.to_owned() },
            _ => {
                MountError::System { action: "mount a FUSE on", path: path.to_owned(), source: errno.into() }
            }
        }
    })
}
