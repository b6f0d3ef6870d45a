//! The kernel's `trace_pipe_raw`, mapped: opened, checked, asked for pages, and slept on.

use super::ReadError;
use super::pages::Pages;
use super::source::Source;
use crate::map::{Access, MapError, Memory};
use crate::wake::Waited;
use ringtap_abi::geometry::{MAX_SUBBUF_SIZE, MIN_SUBBUF_SIZE};
use ringtap_abi::meta::{KERNEL_META_LEN, KernelMeta};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// File system type of a tracefs (`TRACEFS_MAGIC`).
const TRACEFS: rustix::fs::FsWord = 0x7472_6163;
/// That of a FUSE (`FUSE_SUPER_MAGIC`), as which `ringtap mount` shows buffers.
const FUSE: rustix::fs::FsWord = 0x6573_5546;
/// `TRACE_MMAP_IOCTL_GET_READER`: `_IO('R', 0x20)`.
const GET_READER: libc::c_ulong = 0x5220;
/// The ioctl that wakes all waiters.
const WAKE_ALL: libc::c_ulong = 0;
/// Most sub-buffers that are believed: at 4 KiB each, 4 TiB for one CPU.
const MAX_SUBBUFS: u32 = 1 << 30;

/// An open `trace_pipe_raw`.
#[derive(Debug)]
pub(super) struct Pipe {
    fd: OwnedFd,
    cpu: u32,
    /// Ends a sleep: the kernel's own wake-up does not end a `poll`.
    kick: OwnedFd,
}

/// Checks what the descriptor is and maps it: the meta-page first, since it tells how long it is itself.
pub(super) fn open(fd: OwnedFd, cpu: u32) -> Result<(Pipe, Pages), ReadError> {
    let system = |action| move |errno: Errno| ReadError::System { action, cpu, source: errno.into() };
    // Anything else that can be mapped could also be truncated, and each access behind its end would kill us. Who may
    // show us a FUSE is root, this user, or whom root let.
    let file_system = rustix::fs::fstatfs(&fd).map_err(system("look at the descriptor"))?;
    if ![TRACEFS, FUSE].contains(&file_system.f_type) {
        return Err(ReadError::Foreign("it lies on another file system"));
    }
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(system("look at the descriptor"))?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
        .map_err(system("set O_NONBLOCK on the descriptor"))?;

    let page = rustix::param::page_size();
    let mut meta = map(&fd, cpu, 0, page)?;
    let Sizes { meta_page_size, .. } = sizes(&meta, cpu)?;
    if meta_page_size as usize > page {
        drop(meta);
        meta = map(&fd, cpu, 0, meta_page_size as usize)?;
    }
    // A mapped buffer keeps its sizes; whoever mapped it later finds the same.
    let Sizes { meta_page_size, subbuf_size, nr_subbufs } = sizes(&meta, cpu)?;
    let len = nr_subbufs as usize * subbuf_size as usize;
    let data = map(&fd, cpu, meta_page_size.into(), len)?;
    let pages = Pages::of_kernel(meta, data, subbuf_size, nr_subbufs);

    let kick = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(system("make an eventfd for the waiters"))?;
    Ok((Pipe { fd, cpu, kick }, pages))
}

fn map(fd: &OwnedFd, cpu: u32, offset: u64, len: usize) -> Result<Memory, ReadError> {
    Memory::map(fd.as_fd(), offset, len, Access::Read).map_err(|error| refusal(error, cpu))
}

/// What the kernel means by refusing a mapping.
fn refusal(error: MapError, cpu: u32) -> ReadError {
    let MapError::System { source, .. } = &error else { return error.into() };
    match source.raw_os_error() {
        Some(libc::ENODEV) => ReadError::NoMapping(cpu),
        Some(libc::EINVAL) => ReadError::NoSuchCpu(cpu),
        Some(libc::EPERM | libc::EACCES) => ReadError::NoPermission(cpu),
        Some(libc::EBUSY) => ReadError::Busy(cpu),
        _ => error.into(),
    }
}

/// What a meta-page says of its buffer's sizes, once it is possible.
struct Sizes {
    meta_page_size: u32,
    subbuf_size: u32,
    nr_subbufs: u32,
}

fn sizes(meta: &Memory, cpu: u32) -> Result<Sizes, ReadError> {
    assert!(meta.len() >= KERNEL_META_LEN);
    // SAFETY: mapped, page-aligned, long enough, made of atomics.
    let meta = unsafe { meta.start().cast::<KernelMeta>().as_ref() };
    let damaged = |field, value: u32| ReadError::Damaged { cpu, field, value: value.into() };
    let subbuf_size = meta.subbuf_size.load(Relaxed);
    let range = MIN_SUBBUF_SIZE..=MAX_SUBBUF_SIZE.max(u32::try_from(rustix::param::page_size()).unwrap_or(0));
    if !range.contains(&subbuf_size) || !subbuf_size.is_power_of_two() {
        return Err(damaged("subbuf_size", subbuf_size));
    }
    let meta_page_size = meta.meta_page_size.load(Relaxed);
    if meta_page_size == 0 || !meta_page_size.is_multiple_of(subbuf_size) {
        return Err(damaged("meta_page_size", meta_page_size));
    }
    let meta_struct_len = meta.meta_struct_len.load(Relaxed);
    if (meta_struct_len as usize) < KERNEL_META_LEN || meta_struct_len > meta_page_size {
        return Err(damaged("meta_struct_len", meta_struct_len));
    }
    let nr_subbufs = meta.nr_subbufs.load(Relaxed);
    if !(2..=MAX_SUBBUFS).contains(&nr_subbufs) {
        return Err(damaged("nr_subbufs", nr_subbufs));
    }
    Ok(Sizes { meta_page_size, subbuf_size, nr_subbufs })
}

impl Pipe {
    fn system(&self, action: &'static str) -> impl FnOnce(Errno) -> ReadError {
        let cpu = self.cpu;
        move |errno| ReadError::System { action, cpu, source: errno.into() }
    }

    fn ioctl(&self, command: libc::c_ulong) -> Result<(), Errno> {
        // SAFETY: these commands of a trace_pipe_raw take no argument and touch no memory but the meta-page, which
        // is only read as atomics.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), command as _) } {
            0.. => Ok(()),
            _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }
}

impl Source for Pipe {
    fn get_reader(&self) -> Result<(), ReadError> {
        loop {
            match self.ioctl(GET_READER) {
                // With O_NONBLOCK it does not wait, so nothing interrupts it; somebody may have taken the flag away.
                Err(Errno::INTR) => {}
                Err(Errno::NOTTY) => return Err(ReadError::Foreign("it does not know GET_READER")),
                done => return done.map_err(self.system("get the next page")),
            }
        }
    }

    fn arm(&self, _percent: u8) -> Result<bool, ReadError> {
        Ok(self.sleep(Some(Duration::ZERO))? == Waited::Ready)
    }

    fn wake_all(&self) -> Result<(), ReadError> {
        self.ioctl(WAKE_ALL).map_err(self.system("wake the waiters"))?;
        rustix::io::write(&self.kick, &1u64.to_le_bytes()).map_err(self.system("wake the waiters"))?;
        Ok(())
    }

    fn sleep(&self, timeout: Option<Duration>) -> Result<Waited, ReadError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            });
            let mut polled = [PollFd::new(&self.fd, PollFlags::IN), PollFd::new(&self.kick, PollFlags::IN)];
            match rustix::event::poll(&mut polled, left.as_ref()) {
                Ok(0) => return Ok(Waited::TimedOut),
                Err(Errno::INTR) => continue,
                done => done.map_err(self.system("wait for events"))?,
            };
            let [pipe, kick] = polled.map(|fd| fd.revents());
            if pipe.contains(PollFlags::ERR) {
                return Err(ReadError::NoSuchCpu(self.cpu));
            }
            if kick.contains(PollFlags::IN) {
                // One waiter takes it; with nothing there, another one has.
                let _ = rustix::io::read(&self.kick, &mut [0u8; 8]);
                return Ok(Waited::Woken);
            }
            if pipe.contains(PollFlags::IN) {
                return Ok(Waited::Ready);
            }
        }
    }
}
