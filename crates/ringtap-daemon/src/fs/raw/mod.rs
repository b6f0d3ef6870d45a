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
//!
//! A file that was open when other memory took its buffer's place is still mapped to the old one. Nobody writes there any
//! more: each GET_READER shows what is new on it, a copy.

mod process;

use super::consumer::{Consumer, Source, errno};
use super::fuse::abi::{InvalInode, Store, notify};
use super::fuse::device::Device;
use super::handle::{Handle, RawPipe};
pub(super) use process::anybody_maps;
use process::{Finder, maps};
use ringtap::Host;
use ringtap::subbufs::{Frame, Watch};
use ringtap_abi::geometry::MIN_SUBBUF_SIZE;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// `TRACE_MMAP_IOCTL_GET_READER`: `_IO('R', 0x20)`.
pub(super) const GET_READER: u32 = 0x5220;
/// The ioctl that wakes all waiters.
pub(super) const WAKE_ALL: u32 = 0;

/// Bytes that one poll pushes, unless a sub-buffer is larger: what one `splice` to a pipe of the usual size takes.
const PUSH: usize = 64 << 10;
/// How long a look at who maps the buffer is believed: it costs more than a GET_READER.
const MAPPED_FOR: Duration = Duration::from_secs(1);
/// And that nobody does, where many processes were looked at.
const UNMAPPED_FOR: Duration = Duration::from_millis(50);
/// Bytes that are kept for a client whose position may not be known.
const KEEP: u64 = 1 << 20;

/// One open file.
#[derive(Debug)]
pub(super) struct Raw {
    ino: u64,
    /// Keeps the instance from being removed.
    handle: Handle,
    consumer: Arc<Mutex<Consumer>>,
    /// What a mapping of it goes to; `None` where it cannot be mapped.
    frame: Option<Frame>,
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
    /// Whether somebody had the buffer mapped, and when that was found out.
    mapped: Option<(bool, Instant)>,
}

impl Raw {
    pub(super) fn new(
        ino: u64,
        handle: Handle,
        consumer: Arc<Mutex<Consumer>>,
        frame: Option<Frame>,
        nonblocking: bool,
    ) -> Self {
        Self {
            ino,
            handle,
            consumer,
            frame,
            nonblocking,
            pushed: VecDeque::new(),
            base: 0,
            end: 0,
            rest: Vec::new(),
            finder: Finder::default(),
            mapped: None,
        }
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

    /// The buffer that is read: of the instance's present buffers, this CPU's.
    pub(super) fn buffer(&self) -> Result<(Host, u32), Errno> {
        let Source { host, cpu } = self.source()?;
        Ok((host, cpu))
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
        // Splice takes whole sub-buffers; where reads went astray, as in the kernel, it takes none. What was passed on
        // before may have had another size than what comes.
        let size = u64::from(MIN_SUBBUF_SIZE);
        let was_mapped = matches!(self.mapped, Some((true, since)) if since.elapsed() < MAPPED_FOR);
        if !was_mapped && self.end.is_multiple_of(size) && maps(tid, self.ino) != Some(true) {
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

    /// Whether somebody has the buffer mapped, as GET_READER asks: the caller, or else anybody, which `others` finds out.
    pub(super) fn is_mapped(&mut self, tid: u32, others: impl FnOnce() -> bool) -> bool {
        let known = self.mapped.filter(|(is_mapped, since)| {
            since.elapsed() < if *is_mapped { MAPPED_FOR } else { UNMAPPED_FOR }
        });
        if let Some((true, _)) = known {
            return true;
        }
        // Where it may not be known, a client that asks is believed.
        let by_caller = maps(tid, self.ino).unwrap_or(true);
        if !by_caller && known.is_some() {
            return false;
        }
        let is_mapped = by_caller || others();
        self.mapped = Some((is_mapped, Instant::now()));
        is_mapped
    }

    pub(super) fn get_reader(&mut self) -> Result<(), Errno> {
        let frame = self.frame.as_ref().ok_or(Errno::NODEV)?;
        self.lock().get_reader(&self.source()?, frame)
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
