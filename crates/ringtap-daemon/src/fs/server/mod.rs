//! The FUSE server: requests translated into calls of the tree, and their results into answers. Nothing is decided here
//! but what concerns open files as such.
//!
//! The way of a request: [`super::fuse::device`] receives it, [`serve`](Server::serve) has it handled here or by a slower
//! thread, [`dispatch`](Server::dispatch) finds what answers it: [`names`] what concerns names and attributes, [`open`]
//! what concerns open files, [`wait`] what is answered later; [`state`] is what they keep. [`burst`] sees to it that many
//! requests are answered fast.
//!
//! ```text
//!   one thread    reads a request, answers it, reads the next
//!   another       sleeps on the buffers for those who wait for more: blocked reads, and polls that were not ready
//!   a few more    do what takes long: the text of events, resizes, snapshots, filters, instances
//! ```
//!
//! **No client hangs.** A request that cannot be answered yet is noted as [`state::Waiting`], not waited for. A signal to its
//! client comes as an INTERRUPT, which ends it with `EINTR`: so every client can be killed. The death of this process
//! closes `/dev/fuse`, and the kernel ends all requests with `ENOTCONN`.

#![forbid(unsafe_code)]

mod burst;
mod greet;
mod mappings;
mod names;
mod open;
mod request;
mod state;
mod wait;

use super::fuse::abi::*;
use super::fuse::device::Device;
use super::queue::Queue;
use super::tree::Tree;
pub(super) use burst::Burst;
use mappings::Mappings;
use names::Detail;
use request::{Request, name};
use ringtap::subbufs::Bell;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::BorrowedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use state::{File, Open, State};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use zerocopy::IntoBytes as _;

/// Longest write that comes as one request, in bytes: more than any control file takes, so that the tree sees it.
const MAX_WRITE: usize = 64 << 10;

/// A mounted tree's server.
#[derive(Debug)]
pub(super) struct Server {
    device: Arc<Device>,
    tree: Tree,
    can_map: bool,
    mappings: Arc<Mappings>,
    state: Mutex<State>,
    /// Requests that take long.
    slow: Queue<Vec<u8>>,
    bell: Bell,
    stopped: AtomicBool,
}

/// What a mount holds for its clients at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Open files and directories.
    pub files: usize,
    /// Inodes of `trace_pipe_raw`, of which each lookup makes one.
    pub inodes: usize,
    /// Files of ours that the kernel maps in place of theirs.
    pub backings: usize,
    /// Requests that wait for events.
    pub waiting: usize,
}

impl Server {
    fn new(device: Arc<Device>, tree: Tree, can_map: bool) -> Self {
        Self {
            device,
            tree,
            can_map,
            mappings: Arc::default(),
            state: Mutex::default(),
            slow: Queue::default(),
            bell: Bell::default(),
            stopped: AtomicBool::new(false),
        }
    }

    pub(super) fn can_map(&self) -> bool {
        self.can_map
    }

    pub(super) fn mappings(&self) -> Arc<Mappings> {
        Arc::clone(&self.mappings)
    }

    pub(super) fn held(&self) -> Held {
        let state = self.state();
        Held {
            files: state.open.len(),
            inodes: state.raw_inodes.len(),
            backings: state.raw_inodes.values().filter(|inode| inode.backing.is_some()).count(),
            waiting: state.waiting.len() + state.polls.len(),
        }
    }

    /// Ends [`wait_for_others`](Self::wait_for_others).
    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.slow.close();
        self.bell.ring();
    }

    /// Answers requests until the file system is unmounted, or `stop` can be read.
    pub(super) fn serve(&self, stop: BorrowedFd<'_>, mut burst: Burst) {
        let mut buffer = vec![0; MAX_WRITE + 4096];
        loop {
            let mut ready =
                [PollFd::new(&*self.device, PollFlags::IN), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
            match rustix::event::poll(&mut ready, burst.patience()) {
                Err(Errno::INTR) => continue,
                Err(_) => break,
                Ok(_) if !ready[1].revents().is_empty() => break,
                Ok(0) => {
                    burst.end();
                    continue;
                }
                Ok(_) => burst.request_came(Instant::now()),
            }
            match self.device.receive(&mut buffer) {
                Ok(len) => self.handle(&buffer[..len]),
                // The client has gone before its request was read, or a signal came.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Err(_) => break,
            }
            burst.request_done(Instant::now());
        }
        self.stop();
    }

    /// Answers what takes long, until [`stop`](Self::stop).
    pub(super) fn serve_slowly(&self) {
        while let Some(request) = self.slow.take() {
            self.answer(&request);
        }
    }

    fn handle(&self, bytes: &[u8]) {
        if self.takes_long(bytes) {
            self.slow.put(bytes.to_vec());
        } else {
            self.answer(bytes);
        }
    }

    /// Whether others are not to wait for this request.
    fn takes_long(&self, bytes: &[u8]) -> bool {
        let Some(request) = Request::parse(bytes) else { return false };
        let of_file = |fh, is_slow: fn(&File) -> bool| match self.state().open.get(&fh) {
            // Nor for one that is under way in the same file.
            Some(Open::File(file)) => is_slow(file) || (!file.is_pipe() && file.handle.try_lock().is_err()),
            _ => false,
        };
        match request.header.opcode {
            opcode::MKDIR | opcode::RMDIR => true,
            opcode::OPEN => request
                .arguments::<OpenIn>()
                .is_ok_and(|(open, _)| OFlags::from_bits_retain(open.flags).contains(OFlags::TRUNC)),
            opcode::READ => request
                .arguments::<ReadIn>()
                .is_ok_and(|(read, _)| of_file(read.fh, |file| file.reads_slowly)),
            opcode::WRITE => request
                .arguments::<WriteIn>()
                .is_ok_and(|(write, _)| of_file(write.fh, |file| file.writes_slowly)),
            _ => false,
        }
    }

    fn answer(&self, bytes: &[u8]) {
        let Some(request) = Request::parse(bytes) else { return };
        let unique = request.header.unique;
        // Without it a panic would end the thread, and leave all clients to wait for ever.
        let answer = catch_unwind(AssertUnwindSafe(|| self.dispatch(&request)));
        match answer.unwrap_or(Err(Errno::IO)) {
            // The client may have been killed meanwhile: then there is nobody to answer.
            Ok(Some(body)) => drop(self.device.answer(unique, 0, &[&body])),
            Ok(None) => {}
            Err(errno) => drop(self.device.answer(unique, errno.raw_os_error(), &[])),
        }
    }

    /// The answer's body; `None` where there is no answer, or not yet.
    fn dispatch(&self, request: &Request<'_>) -> Result<Option<Vec<u8>>, Errno> {
        let nodeid = request.header.nodeid;
        let body = match request.header.opcode {
            opcode::LOOKUP => self.look_up(nodeid, name(request.body)?)?,
            opcode::FORGET => {
                let (ForgetIn { nlookup }, _) = request.arguments()?;
                self.state().forget(nodeid, nlookup, &self.mappings);
                return Ok(None);
            }
            opcode::BATCH_FORGET => {
                self.forget_many(request);
                return Ok(None);
            }
            opcode::GETATTR => self.attributes(nodeid)?,
            opcode::SETATTR => self.set_attributes(nodeid, request)?,
            opcode::MKDIR => {
                let (MkdirIn { .. }, rest) = request.arguments()?;
                self.make_dir(nodeid, name(rest)?)?
            }
            opcode::RMDIR => {
                self.tree.remove_dir(self.node(nodeid)?, name(request.body)?)?;
                Vec::new()
            }
            // As tracefs, which has no such operations, says it.
            opcode::CREATE => return Err(Errno::ACCESS),
            opcode::MKNOD => return Err(names::no_node(request.arguments::<MknodIn>()?.0.mode)),
            opcode::UNLINK | opcode::RENAME | opcode::RENAME2 | opcode::LINK | opcode::SYMLINK => {
                return Err(Errno::PERM);
            }
            opcode::LISTXATTR => names::no_extended_attributes(&request.arguments()?.0),
            opcode::OPENDIR => self.open_dir(nodeid)?,
            opcode::READDIR => self.read_dir(nodeid, &request.arguments()?.0, Detail::Names)?,
            opcode::READDIRPLUS => self.read_dir(nodeid, &request.arguments()?.0, Detail::Attributes)?,
            opcode::OPEN => self.open(nodeid, request)?,
            opcode::RELEASE | opcode::RELEASEDIR => {
                self.release(request.arguments::<ReleaseIn>()?.0.fh);
                Vec::new()
            }
            opcode::READ => return self.read(request),
            opcode::WRITE => self.write(request)?,
            opcode::IOCTL => return self.ioctl(request),
            opcode::POLL => self.poll(request)?,
            opcode::FLUSH => {
                self.flush(request.arguments::<ReleaseIn>()?.0.fh);
                Vec::new()
            }
            opcode::INTERRUPT => {
                self.interrupt(request.arguments::<InterruptIn>()?.0.unique);
                return Ok(None);
            }
            opcode::FSYNC => return Err(Errno::INVAL),
            opcode::STATFS => StatfsOut { namelen: 255, bsize: 4096, frsize: 4096, ..StatfsOut::default() }
                .as_bytes()
                .to_vec(),
            opcode::DESTROY => return Ok(None),
            opcode::LSEEK => return Err(Errno::NOSYS),
            _ => return Err(Errno::NOSYS),
        };
        Ok(Some(body))
    }

    /// A panic while a request is handled concerns that request: the tables are complete between any two statements.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
