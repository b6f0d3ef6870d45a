//! `/dev/fuse`: one connection to the kernel.
//!
//! This module exists to keep the few calls that have no safe wrapper in one place.

#![expect(unsafe_code, reason = "ioctls of /dev/fuse, leases and signal masks, which rustix does not wrap")]

use super::abi::{OutHeader, notify};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io::IoSlice;
use std::sync::Arc;
use zerocopy::{Immutable, IntoBytes};

/// `FUSE_DEV_IOC_BACKING_OPEN`: `_IOW(229, 1, struct fuse_backing_map)`.
const BACKING_OPEN: libc::c_ulong = 0x4010_e501;
/// `FUSE_DEV_IOC_BACKING_CLOSE`: `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: libc::c_ulong = 0x4004_e502;

/// `struct fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// An open `/dev/fuse`.
#[derive(Debug)]
pub(crate) struct Device {
    fd: OwnedFd,
}

/// A file that the kernel maps in place of one of ours. Closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Backing {
    device: Arc<Device>,
    id: i32,
}

impl Device {
    pub(crate) fn open() -> Result<Self, Errno> {
        // A request that was announced may be taken back before it is read: then there is none to wait for.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Reads one request. `EAGAIN` where there is none, `ENODEV` once the file system is unmounted.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.fd, buffer)
    }

    /// Answers a request: `error` is 0 or an errno, and then there is no body.
    pub(crate) fn answer(&self, unique: u64, error: i32, body: &[&[u8]]) -> Result<(), Errno> {
        self.send(unique, -error, body)
    }

    pub(crate) fn notify<T: IntoBytes + Immutable>(
        &self,
        code: i32,
        what: &T,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        debug_assert!([notify::POLL, notify::INVAL_INODE, notify::STORE].contains(&code));
        self.send(0, code, &[what.as_bytes(), bytes])
    }

    fn send(&self, unique: u64, error: i32, body: &[&[u8]]) -> Result<(), Errno> {
        let len = size_of::<OutHeader>() + body.iter().map(|part| part.len()).sum::<usize>();
        let header = OutHeader { len: u32::try_from(len).map_err(|_| Errno::INVAL)?, error, unique };
        let mut parts = [IoSlice::new(&[]); 4];
        parts[0] = IoSlice::new(header.as_bytes());
        for (part, bytes) in parts[1..].iter_mut().zip(body) {
            *part = IoSlice::new(bytes);
        }
        rustix::io::writev(&self.fd, &parts[..=body.len()]).map(|_| ())
    }

    /// Registers a file that mappings of ours go to. Needs `CAP_SYS_ADMIN` in the first user namespace.
    pub(crate) fn back(self: &Arc<Self>, file: BorrowedFd<'_>) -> Result<Backing, Errno> {
        let map = BackingMap { fd: file.as_raw_fd(), flags: 0, padding: 0 };
        // SAFETY: reads the struct, which has the layout that the request's number states.
        let id = unsafe { libc::ioctl(self.fd.as_raw_fd(), BACKING_OPEN as _, &raw const map) };
        checked(id).map(|id| Backing { device: Arc::clone(self), id })
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Backing {
    pub(crate) fn id(&self) -> i32 {
        self.id
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        let id = self.id;
        // SAFETY: reads the number.
        unsafe { libc::ioctl(self.device.fd.as_raw_fd(), BACKING_CLOSE as _, &raw const id) };
    }
}

/// `F_SETSIG`: which signal tells a lease's holder that somebody waits for it.
const F_SETSIG: libc::c_int = 10;

/// Whether a memfd is open and mapped through no other opening than `file`'s, copies of that descriptor and the one
/// that made it not counted.
///
/// The kernel grants a write lease in this case only. It is given back at once: while it is held, others' opens wait.
pub(crate) fn is_unused(file: BorrowedFd<'_>) -> bool {
    let fcntl = |command: libc::c_int, number: libc::c_int| {
        // SAFETY: takes numbers.
        unsafe { libc::fcntl(file.as_raw_fd(), command, number) }
    };
    // Should somebody open the file right now: this signal is ignored unless asked for, and SIGIO would kill.
    fcntl(F_SETSIG, libc::SIGURG);
    let granted = fcntl(libc::F_SETLEASE, libc::F_WRLCK) == 0;
    if granted {
        fcntl(libc::F_SETLEASE, libc::F_UNLCK);
    }
    granted
}

fn checked(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
