//! The host's socket in the file system: where it is, whose it is, and how a dead host's is replaced.
//!
//! Hosts that start at the same time in one directory take turns, by a lock on the directory: otherwise two of
//! them could find the same dead socket, and the second would remove the first one's new one.

use super::tree::Peer;
use super::{ServeError, limits};
use crate::unshared::Unshared;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The present time, for the kernel to fill in.
const NOW: rustix::fs::Timespec = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };

/// The socket, and what is needed to remove it and nothing else.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: Unshared,
    path: PathBuf,
    ours: Ours,
    /// Whether a dead host's socket was there.
    pub(super) succeeds: bool,
}

/// What is removed at the end.
#[derive(Debug)]
enum Ours {
    /// The socket's file, by its inode.
    Socket((u64, u64)),
    /// The file that says that there is a host: the socket is somebody else's, and stays.
    Mark(PathBuf),
}

impl Listener {
    /// Makes the socket, in the place of a dead host's where there is one.
    ///
    /// Members of `group` may connect, too.
    pub(super) fn bind(path: &Path, group: Option<u32>) -> Result<Self, ServeError> {
        let address = address(path).map_err(|_| ServeError::PathTooLong { path: path.to_owned() })?;
        let failed = |action| {
            move |errno: Errno| ServeError::System { action, path: path.to_owned(), source: errno.into() }
        };
        let directory = open_directory(path)?;
        let socket = Unshared::new(new_socket).map_err(failed("make a socket for"))?;
        // The file gets the socket's mode when it is bound, so it is never open to others for a moment.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed("protect"))?;
        lock(&directory, path)?;
        let succeeds = match rustix::net::bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_dead(path, &address)?;
                rustix::net::bind(&socket, &address).map_err(failed("bind"))?;
                true
            }
            bound => bound.map(|()| false).map_err(failed("bind"))?,
        };
        let inode = inode(&status(path).map_err(failed("look at"))?);
        let listener = Self { socket, path: path.to_owned(), ours: Ours::Socket(inode), succeeds };
        if let Some(group) = group {
            listener.open_to(group).inspect_err(|_| listener.remove())?;
        }
        rustix::net::listen(&listener.socket, limits::BACKLOG).map_err(failed("listen on"))?;
        // Whoever waits for a host watches the directory, and saw the file before it could connect. If this fails, it
        // tries again after a while.
        let now = rustix::fs::Timestamps { last_access: NOW, last_modification: NOW };
        let _ = rustix::fs::utimensat(CWD, path, &now, AtFlags::SYMLINK_NOFOLLOW);
        Ok(listener)
    }

    /// Takes a socket that listens already. It outlives hosts, so a file beside it says whether one was killed.
    pub(super) fn passed(socket: OwnedFd) -> Result<Self, ServeError> {
        let path = path_of(&socket).ok_or(ServeError::Passed(NOT_LISTENING))?;
        let failed = |action| {
            let path = path.clone();
            move |errno: Errno| ServeError::System { action, path, source: errno.into() }
        };
        // Whose descriptor it is as well may have made it to wait.
        rustix::io::ioctl_fionbio(&socket, true).map_err(failed("set up"))?;
        let socket = Unshared::new(|| Ok(socket)).map_err(failed("keep"))?;
        let mut mark = path.clone().into_os_string();
        mark.push(".host");
        let mark = PathBuf::from(mark);
        let succeeds = std::fs::exists(&mark).unwrap_or(false);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(&mark, flags, Mode::RUSR | Mode::WUSR).map_err(failed("make a mark beside"))?;
        Ok(Self { socket, path, ours: Ours::Mark(mark), succeeds })
    }

    /// Lets a group's members connect. Before anybody listens.
    fn open_to(&self, group: u32) -> Result<(), ServeError> {
        let failed =
            |errno: Errno| ServeError::Group { group, path: self.path.clone(), source: errno.into() };
        let group = Some(rustix::process::Gid::from_raw(group));
        rustix::fs::chownat(CWD, &self.path, None, group, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP;
        rustix::fs::chmodat(CWD, &self.path, mode, AtFlags::empty()).map_err(failed)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the socket's file, unless it was replaced by another, or it is not ours.
    pub(super) fn remove(&self) {
        // Where the directory became read-only meanwhile, the next host finds a dead one.
        let _ = match &self.ours {
            Ours::Socket(ours) if status(&self.path).is_ok_and(|status| inode(&status) == *ours) => {
                rustix::fs::unlink(&self.path)
            }
            Ours::Socket(_) => Ok(()),
            Ours::Mark(mark) => rustix::fs::unlink(mark),
        };
    }
}

/// What a passed descriptor is not.
const NOT_LISTENING: &str =
    "is no Unix socket for packets that listens at a path: use ListenSequentialPacket=";

/// Where a socket of the host's kind listens.
fn path_of(socket: &OwnedFd) -> Option<PathBuf> {
    let is_it = rustix::net::sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
        && rustix::net::sockopt::socket_type(socket) == Ok(SocketType::SEQPACKET)
        && rustix::net::sockopt::socket_acceptconn(socket) == Ok(true);
    let address = rustix::net::getsockname(socket).ok().filter(|_| is_it)?;
    let address = SocketAddrUnix::try_from(address).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(address.path_bytes()?)))
}

/// The address of a path, relative or not.
pub(crate) fn address(path: &Path) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(path)
}

/// A socket of the host's kind.
pub(crate) fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// The directory of the socket; made, for its owner alone, where there is none.
fn open_directory(path: &Path) -> Result<Unshared, ServeError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |action| {
        move |errno: Errno| ServeError::System { action, path: parent.to_owned(), source: errno.into() }
    };
    match rustix::fs::mkdir(parent, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("make the directory")(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || rustix::fs::open(parent, flags, Mode::empty());
    Unshared::new(open).map_err(failed("open the directory"))
}

/// Locks the directory until its descriptor is closed.
fn lock(directory: &Unshared, path: &Path) -> Result<(), ServeError> {
    let deadline = Instant::now() + limits::DIRECTORY_LOCK;
    loop {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1))
            }
            Err(Errno::WOULDBLOCK) => return Err(ServeError::DirectoryLocked { path: path.to_owned() }),
            Err(Errno::INTR) => {}
            // Some file systems have no locks: then hosts that start at the same time are on their own.
            _ => return Ok(()),
        }
    }
}

/// Removes the socket of a host that does not listen any more.
fn remove_dead(path: &Path, address: &SocketAddrUnix) -> Result<(), ServeError> {
    let failed =
        |errno: Errno| ServeError::System { action: "replace", path: path.to_owned(), source: errno.into() };
    // To connect to what is no socket is refused as well.
    let status = status(path).map_err(failed)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::Socket {
        return Err(ServeError::NotASocket { path: path.to_owned() });
    }
    let probe = new_socket().map_err(failed)?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => rustix::fs::unlink(path).map_err(failed),
        // AGAIN: it listens, and many wait to be taken. PROTOTYPE: some other program listens.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(errno) => Err(failed(errno)),
    }
}

fn status(path: &Path) -> Result<Stat, Errno> {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
}

fn inode(status: &Stat) -> (u64, u64) {
    (status.st_dev, status.st_ino)
}

/// Asks the kernel who connected. By libc, because rustix takes a process id for never 0, and it is 0 for a
/// peer of a pid namespace that we cannot see.
pub(crate) fn peer(socket: impl AsFd) -> Result<Peer, std::io::Error> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or_default();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes, to two variables that outlive the call.
    let done = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut len)
    };
    if done != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(Peer { uid: peer.uid, gid: peer.gid, pid: peer.pid.cast_unsigned() })
}

/// Bytes that were sent, with what the kernel keeps about them, and that the other side has not read. 0 where it does not say.
pub(super) fn unread(socket: impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one number, to a variable that outlives the call.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Whether a peer is the host's user, root, or a member of the group.
pub(super) fn may_attach(socket: impl AsFd + Copy, group: Option<u32>) -> bool {
    let owner = rustix::process::geteuid().as_raw();
    peer(socket).is_ok_and(|peer| {
        peer.uid == owner || peer.uid == 0 || group.is_some_and(|group| is_member(socket, peer, group))
    })
}

/// Whether a peer belongs to a group, by its own or its supplementary ones.
pub(super) fn is_member(socket: impl AsFd, peer: Peer, group: u32) -> bool {
    /// The kernel's `NGROUPS_MAX`.
    const MAX_GROUPS: usize = 65_536;
    if peer.gid == group {
        return true;
    }
    let mut groups = vec![0u32; MAX_GROUPS];
    let mut len = libc::socklen_t::try_from(size_of_val(&groups[..])).unwrap_or_default();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes, to two variables that outlive the call.
    let done = unsafe {
        let len = &raw mut len;
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), len)
    };
    let count = if done == 0 { len as usize / size_of::<u32>() } else { 0 };
    groups.iter().take(count).any(|&its| its == group)
}
