//! Requests that cannot be answered yet, and who is woken when they can.

#![forbid(unsafe_code)]

use super::Server;
use super::request::Request;
use super::state::{Open, State, Waiting, What};
use crate::fs::consumer::errno;
use crate::fs::fuse::abi::*;
use crate::fs::fuse::device::Device;
use crate::fs::handle::{Answer, Wait};
use ringtap::subbufs::{self, Seen, Watch};
use rustix::io::Errno;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use zerocopy::IntoBytes as _;

/// What `poll` says of files that never block.
const ALWAYS: u32 = (libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM) as u32;
/// What it says of those that have something to read.
const READABLE: u32 = (libc::POLLIN | libc::POLLRDNORM) as u32;

/// What a read comes to.
pub(super) enum Outcome {
    Now(Vec<u8>),
    Later,
}

impl Server {
    pub(super) fn poll(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let (poll, _) = request.arguments::<PollIn>()?;
        let mut state = self.state();
        let revents = match state.open.get_mut(&poll.fh) {
            Some(Open::Raw(raw, ..)) => READABLE * u32::from(raw.poll(&self.device, request.header.pid)?),
            Some(Open::File(file)) if file.is_pipe() => READABLE * u32::from(file.lock().poll()?.is_none()),
            Some(_) => ALWAYS,
            None => return Err(Errno::BADF),
        };
        if revents == 0 && poll.flags & POLL_SCHEDULE_NOTIFY != 0 {
            state.polls.insert(poll.fh, poll.kh);
            drop(state);
            self.bell.ring();
        }
        Ok(PollOut { revents, padding: 0 }.as_bytes().to_vec())
    }

    /// A descriptor of this file was closed: who reads it in another thread goes home, as in the kernel.
    pub(super) fn flush(&self, fh: u64) {
        let mut state = self.state();
        if !matches!(state.open.get(&fh), Some(Open::Raw(..))) {
            return;
        }
        let is_ended = |waiting: &mut Waiting| waiting.handle == fh;
        for ended in state.waiting.extract_if(.., is_ended) {
            let body = match ended.what {
                What::Read { .. } => Vec::new(),
                What::GetReader { .. } => IoctlOut::default().as_bytes().to_vec(),
            };
            let _ = self.device.answer(ended.unique, 0, &[&body]);
        }
    }

    /// A signal came to the client of this request.
    pub(super) fn interrupt(&self, unique: u64) {
        let mut state = self.state();
        if let Some(at) = state.waiting.iter().position(|waiting| waiting.unique == unique) {
            state.waiting.swap_remove(at);
            let _ = self.device.answer(unique, Errno::INTR.raw_os_error(), &[]);
        }
    }

    /// Sleeps on the buffers for all who wait, until [`stop`](Self::stop).
    pub(in crate::fs) fn wait_for_others(&self) {
        while !self.stopped.load(Relaxed) {
            let rung = self.bell.seen();
            let watches = self.look_for_others();
            subbufs::sleep(&watches, (&self.bell, rung));
        }
    }

    /// Answers who waited long enough; what the others sleep on.
    fn look_for_others(&self) -> Vec<(Watch, Seen)> {
        let mut state = self.state();
        let mut watches = Vec::new();
        for waiting in std::mem::take(&mut state.waiting) {
            let is_read = matches!(waiting.what, What::Read { .. });
            // Before the look: what comes after it wakes us.
            let outcome = guarded(|| {
                state.arm(waiting.handle, is_read, &mut watches)?;
                state.attempt(&waiting, &self.device)
            });
            match outcome {
                Ok(Outcome::Later) => state.waiting.push(waiting),
                Ok(Outcome::Now(body)) => drop(self.device.answer(waiting.unique, 0, &[&body])),
                Err(errno) => drop(self.device.answer(waiting.unique, errno.raw_os_error(), &[])),
            }
        }
        let polled: Vec<_> = state.polls.iter().map(|(fh, kh)| (*fh, *kh)).collect();
        for (fh, kh) in polled {
            let is_readable = guarded(|| {
                state.arm(fh, false, &mut watches)?;
                state.is_readable(fh)
            });
            if is_readable.unwrap_or(true) {
                state.polls.remove(&fh);
                // The kernel asks again on behalf of whoever polls.
                let _ = self.device.notify(notify::POLL, &PollWakeup { kh }, &[]);
            }
        }
        watches
    }
}

/// One client's part of the work for all: what goes wrong there ends nobody else's wait.
fn guarded<T>(work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Errno::IO))
}

impl State {
    /// Has the writers wake us when an open file may have more; with `any`, at the next event, else at the watermark.
    fn arm(&mut self, fh: u64, any: bool, watches: &mut Vec<(Watch, Seen)>) -> Result<(), Errno> {
        let mut arm = |watch: Watch, percent| {
            let seen = watch.seen();
            let armed = watch.arm(percent).map_err(|error| errno(&error));
            watches.push((watch, seen));
            armed.map(|_| ())
        };
        match self.open.get_mut(&fh).ok_or(Errno::BADF)? {
            Open::Raw(raw, ..) => arm(raw.watch()?, if any { 0 } else { raw.buffer_percent() }),
            Open::File(file) if !file.is_pipe() => Ok(()),
            Open::File(file) => match file.lock().poll()? {
                Some(Wait { host, cpus, percent }) => cpus
                    .iter()
                    .try_for_each(|&cpu| arm(host.watch(cpu).map_err(|error| errno(&error))?, percent)),
                None => Ok(()),
            },
            Open::Directory(_) => Ok(()),
        }
    }

    /// Answers a request if it can be.
    pub(super) fn attempt(&mut self, waiting: &Waiting, device: &Device) -> Result<Outcome, Errno> {
        match (self.open.get_mut(&waiting.handle).ok_or(Errno::BADF)?, &waiting.what) {
            (Open::Raw(raw, ..), &What::Read { offset, len }) => {
                Ok(raw.read(device, offset, len)?.map_or(Outcome::Later, Outcome::Now))
            }
            (Open::Raw(raw, ..), &What::GetReader { kicks }) => {
                if raw.watch()?.kicks() == kicks && !raw.is_ready()? {
                    return Ok(Outcome::Later);
                }
                raw.get_reader()?;
                Ok(Outcome::Now(IoctlOut::default().as_bytes().to_vec()))
            }
            (Open::File(file), &What::Read { offset, len }) => match file.lock().read(offset, len)? {
                Answer::Bytes(bytes) => Ok(Outcome::Now(bytes)),
                Answer::Wait(_) => Ok(Outcome::Later),
            },
            _ => Err(Errno::INVAL),
        }
    }

    fn is_readable(&mut self, fh: u64) -> Result<bool, Errno> {
        match self.open.get_mut(&fh).ok_or(Errno::BADF)? {
            Open::Raw(raw, ..) => raw.is_ready(),
            Open::File(file) => Ok(!file.is_pipe() || file.lock().poll()?.is_none()),
            Open::Directory(_) => Ok(true),
        }
    }
}
