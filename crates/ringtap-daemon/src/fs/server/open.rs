//! Open files: opened, read, written, closed.

#![forbid(unsafe_code)]

use super::Server;
use super::mappings::Shown;
use super::request::Request;
use super::state::{File, Open, Waiting, What, is_raw};
use super::wait::Outcome;
use crate::control::Mapped as _;
use crate::fs::fuse::abi::*;
use crate::fs::handle::{Access, Answer, Handle, Special};
use crate::fs::node::Node;
use crate::fs::raw::{self, Raw};
use rustix::fd::AsFd as _;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::hash_map;
use std::sync::Arc;
use zerocopy::IntoBytes as _;

impl Server {
    pub(super) fn open_dir(&self, nodeid: u64) -> Result<Vec<u8>, Errno> {
        let entries = self.tree.list(self.node(nodeid)?)?;
        let fh = self.state().keep(Open::Directory(entries));
        Ok(OpenOut { fh, ..OpenOut::default() }.as_bytes().to_vec())
    }

    pub(super) fn open(&self, nodeid: u64, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let flags = OFlags::from_bits_retain(request.arguments::<OpenIn>()?.0.flags);
        let mode = flags & OFlags::RWMODE;
        let access = Access {
            read: mode != OFlags::WRONLY,
            write: mode != OFlags::RDONLY,
            truncate: flags.contains(OFlags::TRUNC),
        };
        if flags.contains(OFlags::DIRECT) {
            return Err(Errno::INVAL);
        }
        // Who may write could map the buffer's memory for writing: seals do not hold through the passthrough.
        if is_raw(nodeid) && access.write {
            return Err(Errno::ACCESS);
        }
        let node = self.node(nodeid)?;
        let handle = self.tree.open(node, access, &request.caller())?;
        if is_raw(nodeid) {
            return self.open_raw(nodeid, node, handle, flags.contains(OFlags::NONBLOCK));
        }
        // With the page cache between, files of size 0 would seem empty.
        let seek = if handle.special() == Special::Text { 0 } else { fopen::NONSEEKABLE };
        let fh = self.state().keep(Open::File(File::new(handle)));
        // Of descriptors that are closed only readers of `trace_pipe_raw` are told: see `flush`.
        let open_flags = fopen::DIRECT_IO | fopen::NOFLUSH | seek;
        Ok(OpenOut { fh, open_flags, backing_id: 0 }.as_bytes().to_vec())
    }

    fn open_raw(&self, ino: u64, node: Node, handle: Handle, nonblocking: bool) -> Result<Vec<u8>, Errno> {
        let pipe = handle.raw().ok_or(Errno::INVAL)?;
        let mut state = self.state();
        let inode = state.raw_inodes.get_mut(&ino).ok_or(Errno::STALE)?;
        let (host, cpu) = (pipe.host(), pipe.cpu());
        let mut frame = None;
        // A hugetlbfs refuses to map parts of its pages where it is asked itself; behind a FUSE file nobody asks it.
        if self.can_map && !host.frame(cpu).is_ok_and(|frame| frame.is_huge()) {
            self.mappings.forget_unused();
            if !self.mappings.may_be_mapped(node.instance, &host, cpu) {
                // Where writers give no chance to, the numbers stay, which is as good to read by.
                let _ = host.renumber(cpu);
            }
            let mut inodes = self.mappings.inodes();
            let shown = match inodes.entry(ino) {
                hash_map::Entry::Occupied(shown) => shown.into_mut(),
                hash_map::Entry::Vacant(place) => place.insert(Shown {
                    instance: node.instance,
                    cpu,
                    frame: host.frame(cpu).map_err(|_| Errno::NODEV)?,
                    openings: 0,
                }),
            };
            if inode.backing.is_none() {
                inode.backing = Some(self.device.back(shown.frame.memory().as_fd())?);
            }
            shown.openings += 1;
            frame = Some(shown.frame.clone());
        }
        inode.openings += 1;
        let backing = inode.backing.as_ref().map(|backing| backing.id());
        let consumer = state.consumers.entry(node).or_default();
        let raw = Raw::new(ino, handle, Arc::clone(consumer), frame, nonblocking);
        let fh = state.keep(Open::Raw(Box::new(raw), node));
        let open_flags = fopen::DIRECT_IO | backing.map_or(0, |_| fopen::PASSTHROUGH);
        Ok(OpenOut { fh, open_flags, backing_id: backing.unwrap_or(0) }.as_bytes().to_vec())
    }

    pub(super) fn release(&self, fh: u64) {
        let mut state = self.state();
        state.polls.remove(&fh);
        let (raw, node) = match state.open.remove(&fh) {
            Some(Open::Raw(raw, node)) => (raw, node),
            // What closing it does is seen by whoever asks next, so it is done here, where that one is served.
            other => {
                drop(state);
                return drop(other);
            }
        };
        if let Some(inode) = state.raw_inodes.get_mut(&raw.ino()) {
            inode.openings -= 1;
            inode.backing = inode.backing.take().filter(|_| inode.openings > 0);
            if let Some(shown) = self.mappings.inodes().get_mut(&raw.ino()) {
                shown.openings -= 1;
            }
        }
        let is_last = !state.open.values().any(|open| matches!(open, Open::Raw(_, other) if *other == node));
        if is_last && raw::lock(raw.consumer()).release() {
            state.consumers.remove(&node);
        }
    }

    pub(super) fn read(&self, request: &Request<'_>) -> Result<Option<Vec<u8>>, Errno> {
        let (read, _) = request.arguments::<ReadIn>()?;
        let file = match self.state().open.get(&read.fh) {
            Some(Open::File(file)) if !file.is_pipe() => Some(file.clone()),
            _ => None,
        };
        if let Some(file) = file {
            return match file.lock().read(read.offset, read.size as usize)? {
                Answer::Bytes(bytes) => Ok(Some(bytes)),
                Answer::Wait(_) => Err(Errno::AGAIN),
            };
        }
        let what = What::Read { offset: read.offset, len: read.size as usize };
        let waiting = Waiting { unique: request.header.unique, handle: read.fh, what };
        let mut state = self.state();
        match state.attempt(&waiting, &self.device)? {
            Outcome::Now(bytes) => Ok(Some(bytes)),
            Outcome::Later if OFlags::from_bits_retain(read.flags).contains(OFlags::NONBLOCK) => {
                Err(Errno::AGAIN)
            }
            Outcome::Later => {
                state.waiting.push(waiting);
                drop(state);
                self.bell.ring();
                Ok(None)
            }
        }
    }

    pub(super) fn write(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let (write, bytes) = request.arguments::<WriteIn>()?;
        let bytes = bytes.get(..write.size as usize).ok_or(Errno::INVAL)?;
        let file = match self.state().open.get(&write.fh) {
            Some(Open::File(file)) => file.clone(),
            _ => return Err(Errno::BADF),
        };
        let written = file.lock().write(bytes, &request.caller())?;
        let size = u32::try_from(written).map_err(|_| Errno::INVAL)?;
        Ok(WriteOut { size, padding: 0 }.as_bytes().to_vec())
    }

    pub(super) fn ioctl(&self, request: &Request<'_>) -> Result<Option<Vec<u8>>, Errno> {
        let (ioctl, _) = request.arguments::<IoctlIn>()?;
        let mut state = self.state();
        let Some(Open::Raw(raw, node)) = state.open.get_mut(&ioctl.fh) else { return Err(Errno::NOTTY) };
        match ioctl.cmd {
            raw::GET_READER => {
                let (host, cpu) = raw.buffer()?;
                let others = || self.mappings.is_mapped(node.instance, &host, cpu);
                if !raw.is_mapped(request.header.pid, others) {
                    return Err(Errno::NODEV);
                }
                if raw.waits_for_watermark(request.header.pid) && !raw.is_ready()? {
                    let what = What::GetReader { kicks: raw.watch()?.kicks() };
                    state.waiting.push(Waiting { unique: request.header.unique, handle: ioctl.fh, what });
                    drop(state);
                    self.bell.ring();
                    return Ok(None);
                }
                raw.get_reader()?;
            }
            raw::WAKE_ALL => raw.wake_all()?,
            _ => return Err(Errno::NOTTY),
        }
        Ok(Some(IoctlOut::default().as_bytes().to_vec()))
    }
}
