//! `per_cpu/cpuN/trace_pipe_raw`, open: sub-buffers mapped, read, polled and spliced.
//!
//! ```text
//!   mmap            goes to the buffer's memfd (passthrough); no request is made
//!   GET_READER      one swap for all; the results are on the mapped meta-page
//!   read            a sub-buffer, or a part of one and then its rest
//!   poll            the watermark; where it is reached, full sub-buffers are pushed into the page cache, so that
//!   splice          finds them there: the kernel makes no request for it
//! ```
//!
//! What was pushed is consumed, but stays here until the client's position shows that it was taken: a `read` at that
//! position finds it too. So each event comes out once, by whichever call. For a client that maps the file nothing is
//! pushed.

mod consumer;
mod image;
mod process;
mod snapshot;

use super::fuse::abi::{InvalInode, Store, notify};
use super::fuse::device::Device;
use super::handle::{Handle, RawPipe};
use consumer::Source;
pub(super) use consumer::{Consumer, errno};
use process::Finder;
pub(super) use process::anybody_maps;
use ringtap::subbufs::Watch;
use rustix::io::Errno;
pub(super) use snapshot::RawSnapshot;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `TRACE_MMAP_IOCTL_GET_READER`: `_IO('R', 0x20)`.
pub(super) const GET_READER: u32 = 0x5220;
/// The ioctl that wakes all waiters.
pub(super) const WAKE_ALL: u32 = 0;

/// Bytes that one poll pushes, unless a sub-buffer is larger: what one `splice` to a pipe of the usual size takes.
const PUSH: usize = 64 << 10;
/// Bytes that are kept for a client whose position may not be known.
const KEEP: u64 = 1 << 20;

/// One open file.
#[derive(Debug)]
pub(super) struct Raw {
    ino: u64,
    /// Keeps the instance from being removed.
    handle: Handle,
    consumer: Arc<Mutex<Consumer>>,
    /// Whether it was opened with `O_NONBLOCK`, or has it since: that is not taken back, and a look costs half a call.
    nonblocking: bool,
    /// Sub-buffers that were pushed and may not have been taken.
    pushed: VecDeque<Vec<u8>>,
    /// The position of the first of them.
    base: u64,
    /// The position where the stream goes on.
    end: u64,
    /// What is left of a sub-buffer that was read in part.
    rest: Vec<u8>,
    finder: Finder,
    /// The client asked for GET_READER, so that it has the buffer mapped.
    is_mapped: bool,
}

impl Raw {
    pub(super) fn new(ino: u64, handle: Handle, consumer: Arc<Mutex<Consumer>>, nonblocking: bool) -> Self {
        let finder = Finder::default();
        let (pushed, rest) = (VecDeque::new(), Vec::new());
        Self { ino, handle, consumer, nonblocking, pushed, base: 0, end: 0, rest, finder, is_mapped: false }
    }

    pub(super) fn ino(&self) -> u64 {
        self.ino
    }

    pub(super) fn consumer(&self) -> &Arc<Mutex<Consumer>> {
        &self.consumer
    }

    fn pipe(&self) -> Result<&RawPipe, Errno> {
        self.handle.raw().ok_or(Errno::INVAL)
    }

    fn source(&self) -> Result<Source, Errno> {
        let pipe = self.pipe()?;
        Ok(Source { host: pipe.host(), cpu: pipe.cpu() })
    }

    fn lock(&self) -> MutexGuard<'_, Consumer> {
        lock(&self.consumer)
    }

    /// What its readers sleep on.
    pub(super) fn watch(&self) -> Result<Watch, Errno> {
        let pipe = self.pipe()?;
        pipe.host().watch(pipe.cpu()).map_err(|error| errno(&error))
    }

    pub(super) fn buffer_percent(&self) -> u8 {
        self.handle.raw().map_or(0, RawPipe::buffer_percent)
    }

    /// The bytes at a position; `None` when there are none yet.
    pub(super) fn read(
        &mut self,
        device: &Device,
        position: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, Errno> {
        if (self.base..self.end).contains(&position) {
            self.forget_taken(device, position);
            if let Some(first) = self.pushed.front() {
                let from = usize::try_from(position - self.base).unwrap_or(usize::MAX).min(first.len());
                return Ok(Some(first[from..][..len.min(first.len() - from)].to_vec()));
            }
        }
        self.forget_taken(device, self.end);
        let bytes = if self.rest.is_empty() {
            let Some(image) = self.lock().read(&self.source()?, len)? else { return Ok(None) };
            self.rest = image;
            self.take_rest(len)
        } else {
            self.take_rest(len)
        };
        self.end = position + bytes.len() as u64;
        self.base = self.end;
        Ok(Some(bytes))
    }

    fn take_rest(&mut self, len: usize) -> Vec<u8> {
        let rest = self.rest.split_off(len.min(self.rest.len()));
        std::mem::replace(&mut self.rest, rest)
    }

    /// Whether `tid`, who polls, can read now. If so, and it may be about to splice, sub-buffers are pushed.
    pub(super) fn poll(&mut self, device: &Device, tid: u32) -> Result<bool, Errno> {
        let is_known = self.look_at_position(device, tid);
        if (is_known && !self.pushed.is_empty()) || !self.rest.is_empty() {
            return Ok(true);
        }
        if !self.is_ready()? {
            return Ok(false);
        }
        // Splice takes whole sub-buffers; where reads went astray, as in the kernel, it takes none.
        let size = u64::from(self.pipe()?.host().subbuf_size());
        if !self.is_mapped && self.end.is_multiple_of(size) && process::maps(tid, self.ino) != Some(true) {
            self.push(device)?;
        }
        Ok(true)
    }

    /// Whether the watermark is reached; where not, writers wake the file's [`watch`](Self::watch) when it may be.
    pub(super) fn is_ready(&self) -> Result<bool, Errno> {
        let percent = self.buffer_percent();
        if percent == 0 && self.lock().is_holding() {
            return Ok(true);
        }
        self.watch()?.arm(percent).map_err(|error| errno(&error))
    }

    /// Forgets what the client has taken from the page cache; whether it can be known.
    fn look_at_position(&mut self, device: &Device, tid: u32) -> bool {
        if self.pushed.is_empty() {
            return true;
        }
        let state = self.finder.look(tid, self.ino);
        // Who polls again has most likely taken what was there.
        let taken = state.map_or(self.end.saturating_sub(KEEP), |state| state.position);
        self.forget_taken(device, taken);
        state.is_some()
    }

    fn forget_taken(&mut self, device: &Device, position: u64) {
        let from = self.base;
        while let Some(first) = self.pushed.front() {
            let end = self.base + first.len() as u64;
            if end > position {
                break;
            }
            self.base = end;
            self.pushed.pop_front();
        }
        if self.base > from {
            let range =
                InvalInode { ino: self.ino, off: from.cast_signed(), len: (self.base - from).cast_signed() };
            // Pages that stay in the cache cost memory until the file is closed, and no more.
            let _ = device.notify(notify::INVAL_INODE, &range, &[]);
        }
    }

    /// Puts full sub-buffers where `splice` finds them.
    fn push(&mut self, device: &Device) -> Result<(), Errno> {
        let mut len = 0;
        while len < PUSH {
            // Where another reader has the buffer, there is nothing to push.
            let Ok(Some(image)) = self.lock().full(&self.source()?) else { break };
            len += image.len();
            let size = u32::try_from(image.len()).map_err(|_| Errno::INVAL)?;
            let place = Store { nodeid: self.ino, offset: self.end, size, padding: 0 };
            // Where it does not get there, a read at this position gets it from here.
            let _ = device.notify(notify::STORE, &place, &image);
            self.end += u64::from(size);
            self.pushed.push_back(image);
        }
        Ok(())
    }

    /// Whether `tid`'s GET_READER is to wait for the watermark: without `O_NONBLOCK`, as the kernel does it.
    pub(super) fn waits_for_watermark(&mut self, tid: u32) -> bool {
        // Where it cannot be known, a client that polls before it asks is better served than hung.
        if !self.nonblocking {
            self.nonblocking = self.finder.look(tid, self.ino).is_none_or(|state| state.nonblocking);
        }
        !self.nonblocking
    }

    pub(super) fn get_reader(&mut self) -> Result<(), Errno> {
        self.is_mapped = true;
        self.lock().get_reader(&self.source()?)
    }

    pub(super) fn wake_all(&self) -> Result<(), Errno> {
        let pipe = self.pipe()?;
        pipe.host().wake_all(pipe.cpu()).map_err(|error| errno(&error))
    }

    /// How long the file seems to be: as far as was pushed. Less would cut the page cache.
    pub(super) fn size(&self) -> u64 {
        self.end
    }
}

/// A panic of another thread changes nothing about what a consumer says.
pub(super) fn lock(consumer: &Mutex<Consumer>) -> MutexGuard<'_, Consumer> {
    consumer.lock().unwrap_or_else(PoisonError::into_inner)
}
