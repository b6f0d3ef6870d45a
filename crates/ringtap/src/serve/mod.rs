//! Serving an instance to other processes, on a Unix socket.
//!
//! ```text
//!   Host::serve(path) ── Server ── one thread, one poll loop
//!                                   ├─ listener   the socket's file, mode 0600
//!                                   ├─ stop       an eventfd, signalled when the Server is dropped
//!                                   └─ client ... one answer for each request, never more than one unsent
//! ```
//!
//! **Who may attach.** The user who runs the host, and root: by the socket file's mode, and by the credentials
//! that the kernel states for each connection. Readers get a descriptor that cannot be mapped for writing, of
//! memory whose size is sealed and whose mode lets nobody but root open it again for writing. A process of the
//! same user could change that mode, as it could trace the host with ptrace: run readers as another user, with
//! descriptors passed on to them, where they are not to be trusted that far.
//!
//! **What a client cannot do.** Garbage gets an error and ends its own connection. A flood gets its share of each
//! turn. A client that does not take its answers is not read from, and is dropped after a while. One that dies
//! gives back what it held. None of this keeps the others waiting.

mod client;
mod desk;
pub(crate) mod limits;
pub(crate) mod packet;
mod requests;
mod run;
pub(crate) mod socket;
mod takeover;
mod tree;

pub use takeover::{passed_socket, take_over, take_over_passed};

pub use tree::{Peer, Tree, TreeCall, TreeRefusal};

use crate::host::{Host, HostError};
use crate::instance::Instances;
use crate::thread::spawn_without_signals;
use rustix::event::EventfdFlags;
use rustix::fd::OwnedFd;
use rustix::fs::FileType;
use rustix::io::Errno;
use socket::Listener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Why a host cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Another host is there.
    #[error("a living host serves {path} already: stop it, or choose another path")]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// There is something else under this path.
    #[error("{path} exists and is no socket: remove it, or choose another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The kernel takes no longer paths for sockets.
    #[error("{path} is too long for a socket, which takes 107 bytes: choose a shorter path")]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// Somebody keeps the socket's directory locked.
    #[error("the directory of {path} is locked by another process: choose a directory of your own")]
    DirectoryLocked {
        /// The socket's path.
        path: PathBuf,
    },
    /// What this process was started with is not what a host serves on.
    #[error("the descriptor that was passed to serve on {0}")]
    Passed(&'static str),
    /// A name that cannot be a file's.
    #[error("{name:?} cannot name an instance: use letters, digits, '-', '_' and '.', no '.' first")]
    Name {
        /// The name.
        name: String,
    },
    /// The directory for sockets belongs to somebody else.
    #[error("{path} is not a directory of this user alone: remove it, or set XDG_RUNTIME_DIR")]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The buffers cannot be made.
    #[error("failed to make the buffers of the host at {path}")]
    Buffers {
        /// The socket's path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: HostError,
    },
    /// The socket cannot be given to the group.
    #[error("failed to open {path} to the group {group}: run as one of its members, or as root")]
    Group {
        /// The group's number.
        group: u32,
        /// The socket's path.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
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

/// Where an instance's socket is when nobody says otherwise: hosts make it there, and clients look for it there.
///
/// `$XDG_RUNTIME_DIR/ringtap/NAME.sock`; without that variable `/run/ringtap/NAME.sock` for root and
/// `/tmp/ringtap-UID/NAME.sock` for others. A directory under `/tmp` that is not this user's alone is refused.
///
/// # Errors
/// [`ServeError::Name`], [`ServeError::ForeignDirectory`].
pub fn default_path(name: &str) -> Result<PathBuf, ServeError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
        return Err(ServeError::Name { name: name.to_owned() });
    }
    let uid = rustix::process::geteuid();
    let directory = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(runtime) if runtime.is_absolute() => runtime.join("ringtap"),
        _ if uid.is_root() => PathBuf::from("/run/ringtap"),
        _ => PathBuf::from(format!("/tmp/ringtap-{}", uid.as_raw())),
    };
    if is_foreign(&directory) {
        return Err(ServeError::ForeignDirectory { path: directory });
    }
    Ok(directory.join(format!("{name}.sock")))
}

/// Whether something is there that others own or may write to.
fn is_foreign(directory: &Path) -> bool {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    match rustix::fs::lstat(directory) {
        Ok(status) => {
            FileType::from_raw_mode(status.st_mode) != FileType::Directory
                || status.st_uid != rustix::process::geteuid().as_raw()
                || status.st_mode & WRITABLE_BY_OTHERS != 0
        }
        Err(errno) => errno != Errno::NOENT,
    }
}

/// How a host serves.
#[derive(Clone, Default)]
pub struct Options {
    /// A group whose members may attach as the host's user may. Its directory must let them pass.
    pub group: Option<u32>,
    /// Answers requests about files.
    pub tree: Option<Arc<dyn Tree>>,
    /// Told of each process that attaches, before it is answered, in the server's thread.
    pub arrivals: Option<Arc<dyn Fn(Peer) + Send + Sync>>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tree = self.tree.as_ref().map(|_| "a tree");
        f.debug_struct("Options").field("group", &self.group).field("tree", &tree).finish_non_exhaustive()
    }
}

/// A host's socket. Dropped, it ends all connections and removes the socket's file.
///
/// Writers that are attached go on without it, as long as somebody maps the memory.
#[derive(Debug)]
pub struct Server {
    listener: Arc<Listener>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    /// A forked child has the struct, but not the thread.
    pid: u32,
}

impl Host {
    /// Serves the instance on a socket at `path`, in a thread of its own, until the [`Server`] is dropped.
    ///
    /// The socket's file has mode 0600; a directory that does not exist is made with mode 0700. A socket that a
    /// dead host left behind is replaced.
    ///
    /// # Errors
    /// [`ServeError`] says what is in the way.
    pub fn serve(&self, path: impl AsRef<Path>) -> Result<Server, ServeError> {
        self.serve_with(path, Options::default())
    }

    /// As [`serve`](Self::serve), to more users, or with files.
    ///
    /// # Errors
    /// [`ServeError`] says what is in the way.
    pub fn serve_with(&self, path: impl AsRef<Path>, options: Options) -> Result<Server, ServeError> {
        Instances::around(self).serve_with(path, options)
    }
}

impl Instances {
    /// Serves all instances on a socket at `path`, as [`Host::serve`] does one.
    ///
    /// # Errors
    /// [`ServeError`] says what is in the way.
    pub fn serve(&self, path: impl AsRef<Path>) -> Result<Server, ServeError> {
        self.serve_with(path, Options::default())
    }

    /// As [`serve`](Self::serve), to more users, or with files.
    ///
    /// # Errors
    /// [`ServeError`] says what is in the way.
    pub fn serve_with(&self, path: impl AsRef<Path>, options: Options) -> Result<Server, ServeError> {
        let path = path.as_ref();
        let listener = Arc::new(Listener::bind(path, options.group)?);
        self.serve_on(&listener, options).inspect_err(|_| listener.remove())
    }

    fn serve_on(&self, listener: &Arc<Listener>, options: Options) -> Result<Server, ServeError> {
        let failed = |action| {
            move |source: std::io::Error| ServeError::System {
                action,
                path: listener.path().to_owned(),
                source,
            }
        };
        let eventfd = || {
            let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            fd.map(Arc::new).map_err(|errno| failed("make an eventfd for")(errno.into()))
        };
        let (stop, news) = (eventfd()?, eventfd()?);
        self.common().tell(&news);
        let turns = run::Loop::new(self.clone(), options, Arc::clone(listener), Arc::clone(&stop), news)
            .map_err(|errno| failed("make an epoll for")(errno.into()))?;
        let thread = spawn_without_signals("ringtap-serve", move || turns.run())
            .map_err(failed("start a thread for"))?;
        Ok(Server { listener: Arc::clone(listener), stop, thread: Some(thread), pid: std::process::id() })
    }
}

impl Server {
    /// The socket's path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.listener.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            return;
        }
        // First, so that nobody connects to a socket that is going away.
        self.listener.remove();
        // Cannot fail: a counter at 0 takes any number but u64::MAX.
        let _ = rustix::io::write(&self.stop, &[1; 8]);
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there is nothing left to stop.
            let _ = thread.join();
        }
    }
}
