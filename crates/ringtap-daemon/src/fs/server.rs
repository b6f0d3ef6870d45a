//! The FUSE server: requests translated into calls of the tree, and their results into answers. Nothing is decided here
//! but what concerns open files as such.
//!
//! ```text
//!   one thread    reads a request, answers it, reads the next
//!   another       sleeps on the buffers for those who wait for more: blocked reads, and polls that were not ready
//! ```
//!
//! **No client hangs.** A request that cannot be answered yet is noted in [`Waiting`], not waited for. A signal to its
//! client comes as an INTERRUPT, which ends it with `EINTR`: so every client can be killed. The death of this process
//! closes `/dev/fuse`, and the kernel ends all requests with `ENOTCONN`.

#![forbid(unsafe_code)]

use super::fuse::abi::*;
use super::fuse::device::{self, Backing, Device};
use super::handle::{Access, Answer, Handle, Special, Wait};
use super::mount::{Held, MountError};
use super::node::Node;
use super::raw::{self, Consumer, Raw};
use super::tree::{Attributes, Entry, Kind, Tree};
use crate::control::{Caller, Mapped};
use ringtap::Host;
use ringtap::subbufs::{self, Bell, Seen, Watch};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest write that comes as one request, in bytes: more than any control file takes, so that the tree sees it.
const MAX_WRITE: usize = 64 << 10;
/// Longest read that comes as one request, in pages: a sub-buffer of 512 KiB comes as one.
const MAX_PAGES: u16 = 128;
/// How long the kernel may believe names and attributes, in seconds. Others change them too: the host's socket does.
const VALID: u64 = 1;
/// The name of the file of which each lookup has an inode of its own.
const RAW_FILE: &str = "trace_pipe_raw";
/// Marks the numbers of such inodes; the tree's own never have it.
const RAW_INO: u64 = 1 << 63;
/// What `poll` says of files that never block.
const ALWAYS: u32 = (libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM) as u32;
/// What it says of those that have something to read.
const READABLE: u32 = (libc::POLLIN | libc::POLLRDNORM) as u32;

/// A mounted tree's server.
#[derive(Debug)]
pub(super) struct Server {
    device: Arc<Device>,
    tree: Tree,
    can_map: bool,
    mappings: Arc<Mappings>,
    state: Mutex<State>,
    bell: Bell,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u64, Open>,
    last_handle: u64,
    raw_inodes: HashMap<u64, RawInode>,
    consumers: HashMap<Node, Arc<Mutex<Consumer>>>,
    waiting: Vec<Waiting>,
    polls: BTreeMap<u64, u64>,
}

/// An open file or directory.
#[derive(Debug)]
enum Open {
    Directory(Vec<Entry>),
    File(Handle),
    Raw(Raw, Node),
}

/// An inode of one lookup of `trace_pipe_raw`.
#[derive(Debug)]
struct RawInode {
    node: Node,
    lookups: u64,
    openings: u64,
    /// What its mappings go to, while it is open: the same for all its openings, as the kernel wants it.
    backing: Option<Backing>,
}

/// A request that is answered later.
#[derive(Debug)]
struct Waiting {
    unique: u64,
    handle: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Read {
        offset: u64,
        len: usize,
    },
    /// A GET_READER, and how often sleepers were sent away, or woken, when it began.
    GetReader {
        kicks: u32,
    },
}

/// What a read comes to.
enum Outcome {
    Now(Vec<u8>),
    Later,
}

/// Which buffers somebody may have mapped.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    /// The inodes that were ever opened and are not forgotten, which a mapping prevents; and the memory behind them.
    inodes: Mutex<HashMap<u64, Shown>>,
}

/// What an inode shows.
#[derive(Clone, Copy, Debug)]
struct Shown {
    /// Which memfd.
    memory: u64,
    /// How often it is open.
    openings: u64,
}

impl Mappings {
    /// A look-up is over before anybody else asks, and a panic in it changes nothing.
    fn inodes(&self) -> MutexGuard<'_, HashMap<u64, Shown>> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tells one memfd from all others.
fn identity(memory: BorrowedFd<'_>) -> u64 {
    rustix::fs::fstat(memory).map_or(0, |stat| stat.st_ino)
}

impl Mapped for Mappings {
    fn is_mapped(&self, host: &Host, cpu: u32) -> bool {
        let Ok(memory) = host.memory(cpu) else { return false };
        if device::is_unused(memory.as_fd()) {
            return false;
        }
        // Somebody has it: through a mapping, where no file is open; else the clients' own tables say it.
        let wanted = identity(memory.as_fd());
        let mut shown = self.inodes().clone();
        shown.retain(|_, shown| shown.memory == wanted);
        if shown.values().all(|shown| shown.openings == 0) {
            return true;
        }
        raw::anybody_maps(&shown.into_keys().collect::<Vec<_>>())
    }
}

/// A request's header and body.
struct Request<'a> {
    header: InHeader,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, body) = InHeader::read_from_prefix(bytes).ok()?;
        Some(Self { header, body })
    }

    /// The struct that the body begins with.
    fn arguments<T: FromBytes + KnownLayout + Immutable>(&self) -> Result<(T, &'a [u8]), Errno> {
        T::read_from_prefix(self.body).map_err(|_| Errno::INVAL)
    }

    fn caller(&self) -> Caller {
        let InHeader { pid, uid, gid, .. } = self.header;
        Caller { tid: pid, uid, gid, cpu: None }
    }
}

/// The name that a body consists of.
fn name(bytes: &[u8]) -> Result<&str, Errno> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    // Names that are no text are nobody's.
    std::str::from_utf8(&bytes[..end]).map_err(|_| Errno::NOENT)
}

impl Server {
    /// Agrees with the kernel on what both know.
    pub(super) fn greet(device: Arc<Device>, tree: Tree) -> Result<Self, MountError> {
        let failed = |errno: Errno| MountError::System {
            action: "greet the kernel through",
            path: "/dev/fuse".into(),
            source: errno.into(),
        };
        let mut buffer = vec![0; MAX_WRITE + 4096];
        let len = device.receive(&mut buffer).map_err(failed)?;
        let request = Request::parse(&buffer[..len]).ok_or(Errno::PROTO).map_err(failed)?;
        let (theirs, rest) = request.arguments::<InitIn>().map_err(failed)?;
        if theirs.major != MAJOR || theirs.minor < OLDEST_MINOR {
            return Err(MountError::TooOld { found: format!("{}.{}", theirs.major, theirs.minor) });
        }
        // Kernels that know more than 32 flags send the others behind.
        let more = u32::read_from_prefix(rest).map_or(0, |(flags2, _)| flags2);
        let theirs_flags = u64::from(theirs.flags)
            | if u64::from(theirs.flags) & init::INIT_EXT == 0 { 0 } else { u64::from(more) << 32 };
        let flags = theirs_flags
            & (init::ATOMIC_O_TRUNC
                | init::BIG_WRITES
                | init::PARALLEL_DIROPS
                | init::MAX_PAGES
                | init::INIT_EXT
                | init::PASSTHROUGH);
        let [low, high] = [flags & u64::from(u32::MAX), flags >> 32].map(|half| half.try_into().unwrap_or(0));
        let ours = InitOut {
            major: MAJOR,
            minor: MINOR.min(theirs.minor),
            max_readahead: theirs.max_readahead,
            flags: low,
            flags2: high,
            max_write: u32::try_from(MAX_WRITE).unwrap_or(u32::MAX),
            max_background: 16,
            congestion_threshold: 12,
            time_gran: 1,
            max_pages: MAX_PAGES,
            // Memfds lie on no other file system.
            max_stack_depth: u32::from(flags & init::PASSTHROUGH != 0),
            ..InitOut::default()
        };
        device.answer(request.header.unique, 0, &[ours.as_bytes()]).map_err(failed)?;
        let can_map = flags & init::PASSTHROUGH != 0 && can_back(&device);
        Ok(Self {
            device,
            tree,
            can_map,
            mappings: Arc::default(),
            state: Mutex::default(),
            bell: Bell::default(),
            stopped: AtomicBool::new(false),
        })
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
        self.bell.ring();
    }

    /// Answers requests until the file system is unmounted, or `stop` can be read.
    pub(super) fn serve(&self, stop: BorrowedFd<'_>) {
        let mut buffer = vec![0; MAX_WRITE + 4096];
        loop {
            let mut ready =
                [PollFd::new(&*self.device, PollFlags::IN), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
            match rustix::event::poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                Err(_) => break,
                Ok(_) if !ready[1].revents().is_empty() => break,
                Ok(_) => {}
            }
            match self.device.receive(&mut buffer) {
                Ok(len) => self.handle(&buffer[..len]),
                // The client has gone before its request was read, or a signal came.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Err(_) => break,
            }
        }
        self.stop();
    }

    fn handle(&self, bytes: &[u8]) {
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
                let made = self.tree.make_dir(self.node(nodeid)?, name(rest)?)?;
                entry(made.ino(), &self.tree.attributes(made)?)
            }
            opcode::RMDIR => {
                self.tree.remove_dir(self.node(nodeid)?, name(request.body)?)?;
                Vec::new()
            }
            // As tracefs, which has no such operations, says it.
            opcode::MKNOD | opcode::CREATE => return Err(Errno::ACCESS),
            opcode::UNLINK
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::LINK
            | opcode::SYMLINK
            | opcode::TMPFILE => {
                return Err(Errno::PERM);
            }
            opcode::OPENDIR => {
                let entries = self.tree.list(self.node(nodeid)?)?;
                let fh = self.state().keep(Open::Directory(entries));
                OpenOut { fh, ..OpenOut::default() }.as_bytes().to_vec()
            }
            opcode::READDIR => self.read_dir(nodeid, &request.arguments::<ReadIn>()?.0)?,
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

    fn node(&self, nodeid: u64) -> Result<Node, Errno> {
        if nodeid & RAW_INO != 0 {
            return self.state().raw_inodes.get(&nodeid).map(|inode| inode.node).ok_or(Errno::STALE);
        }
        Node::from_ino(nodeid).ok_or(Errno::STALE)
    }

    fn look_up(&self, parent: u64, name: &str) -> Result<Vec<u8>, Errno> {
        let node = self.tree.lookup(self.node(parent)?, name)?;
        let attributes = self.tree.attributes(node)?;
        if name != RAW_FILE || attributes.kind == Kind::Directory {
            return Ok(entry(node.ino(), &attributes));
        }
        // An inode for each lookup: openings of one inode share a page cache, a size and what they are mapped to.
        let ino = raw_ino();
        self.state().raw_inodes.insert(ino, RawInode { node, lookups: 1, openings: 0, backing: None });
        let entry = EntryOut {
            nodeid: ino,
            attr_valid: VALID,
            attr: attr(ino, &attributes, 0),
            ..EntryOut::default()
        };
        Ok(entry.as_bytes().to_vec())
    }

    fn attributes(&self, nodeid: u64) -> Result<Vec<u8>, Errno> {
        let attributes = self.tree.attributes(self.node(nodeid)?)?;
        let size = if nodeid & RAW_INO == 0 { 0 } else { self.state().raw_size(nodeid) };
        let out = AttrOut { attr_valid: VALID, attr: attr(nodeid, &attributes, size), ..AttrOut::default() };
        Ok(out.as_bytes().to_vec())
    }

    fn set_attributes(&self, nodeid: u64, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let (wanted, _) = request.arguments::<SetattrIn>()?;
        let has = |bit| wanted.valid & bit != 0;
        // `ftruncate` is accepted and without effect, as in the kernel; `O_TRUNC` is what empties.
        let mode = has(fattr::MODE).then(|| u16::try_from(wanted.mode & 0o7777).unwrap_or(0));
        let [uid, gid] =
            [(fattr::UID, wanted.uid), (fattr::GID, wanted.gid)].map(|(bit, id)| has(bit).then_some(id));
        if mode.is_some() || uid.is_some() || gid.is_some() {
            self.tree.set_attributes(self.node(nodeid)?, mode, uid, gid)?;
        }
        self.attributes(nodeid)
    }

    fn forget_many(&self, request: &Request<'_>) {
        let Ok((BatchForgetIn { count, .. }, mut rest)) = request.arguments() else { return };
        let mut state = self.state();
        for _ in 0..count {
            let Ok((ForgetOne { nodeid, nlookup }, behind)) = ForgetOne::read_from_prefix(rest) else {
                return;
            };
            state.forget(nodeid, nlookup, &self.mappings);
            rest = behind;
        }
    }

    fn read_dir(&self, nodeid: u64, read: &ReadIn) -> Result<Vec<u8>, Errno> {
        let state = self.state();
        let Some(Open::Directory(entries)) = state.open.get(&read.fh) else { return Err(Errno::BADF) };
        let own = [".", ".."].map(|name| (name, nodeid, Kind::Directory));
        let all =
            own.into_iter().chain(entries.iter().map(|entry| (&*entry.name, entry.node.ino(), entry.kind)));
        let mut listing = Vec::new();
        for (at, (name, ino, kind)) in
            (0u64..).zip(all).skip(usize::try_from(read.offset).unwrap_or(usize::MAX))
        {
            let kind = match kind {
                Kind::Directory => u32::from(libc::DT_DIR),
                Kind::File => u32::from(libc::DT_REG),
            };
            let namelen = u32::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
            let end = (listing.len() + size_of::<Dirent>() + name.len()).next_multiple_of(8);
            if end > read.size as usize {
                break;
            }
            listing.extend_from_slice(Dirent { ino, off: at + 1, namelen, kind }.as_bytes());
            listing.extend_from_slice(name.as_bytes());
            listing.resize(end, 0);
        }
        Ok(listing)
    }

    fn open(&self, nodeid: u64, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let flags = OFlags::from_bits_retain(request.arguments::<OpenIn>()?.0.flags);
        let mode = flags & OFlags::RWMODE;
        let access = Access {
            read: mode != OFlags::WRONLY,
            write: mode != OFlags::RDONLY,
            truncate: flags.contains(OFlags::TRUNC),
        };
        let is_raw = nodeid & RAW_INO != 0;
        // Who may write could map the buffer's memory for writing: seals do not hold through the passthrough.
        if is_raw && access.write {
            return Err(Errno::ACCESS);
        }
        let node = self.node(nodeid)?;
        let handle = self.tree.open(node, access, &request.caller())?;
        if is_raw {
            return self.open_raw(nodeid, node, handle, flags.contains(OFlags::NONBLOCK));
        }
        // With the page cache between, files of size 0 would seem empty.
        let seek = if handle.special() == Special::Text { 0 } else { fopen::NONSEEKABLE };
        let fh = self.state().keep(Open::File(handle));
        Ok(OpenOut { fh, open_flags: fopen::DIRECT_IO | seek, backing_id: 0 }.as_bytes().to_vec())
    }

    fn open_raw(&self, ino: u64, node: Node, handle: Handle, nonblocking: bool) -> Result<Vec<u8>, Errno> {
        let pipe = handle.raw().ok_or(Errno::INVAL)?;
        let mut state = self.state();
        let inode = state.raw_inodes.get_mut(&ino).ok_or(Errno::STALE)?;
        if self.can_map && inode.backing.is_none() {
            let host = pipe.host();
            let memory = host.memory(pipe.cpu()).map_err(|_| Errno::NODEV)?;
            inode.backing = Some(self.device.back(memory.as_fd())?);
            self.mappings.inodes().insert(ino, Shown { memory: identity(memory.as_fd()), openings: 0 });
        }
        inode.openings += 1;
        if let Some(shown) = self.mappings.inodes().get_mut(&ino) {
            shown.openings = inode.openings;
        }
        let backing = inode.backing.as_ref().map(|backing| backing.id());
        let consumer = state.consumers.entry(node).or_default();
        let raw = Raw::new(ino, handle, Arc::clone(consumer), nonblocking);
        let fh = state.keep(Open::Raw(raw, node));
        let open_flags = fopen::DIRECT_IO | backing.map_or(0, |_| fopen::PASSTHROUGH);
        Ok(OpenOut { fh, open_flags, backing_id: backing.unwrap_or(0) }.as_bytes().to_vec())
    }

    fn release(&self, fh: u64) {
        let mut state = self.state();
        state.polls.remove(&fh);
        let Some(Open::Raw(raw, node)) = state.open.remove(&fh) else { return };
        if let Some(inode) = state.raw_inodes.get_mut(&raw.ino()) {
            inode.openings -= 1;
            inode.backing = inode.backing.take().filter(|_| inode.openings > 0);
            if let Some(shown) = self.mappings.inodes().get_mut(&raw.ino()) {
                shown.openings = inode.openings;
            }
        }
        let is_last = !state.open.values().any(|open| matches!(open, Open::Raw(_, other) if *other == node));
        if is_last && raw::lock(raw.consumer()).release() {
            state.consumers.remove(&node);
        }
    }

    /// A descriptor of this file was closed: who reads it in another thread goes home, as in the kernel.
    fn flush(&self, fh: u64) {
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
    fn interrupt(&self, unique: u64) {
        let mut state = self.state();
        if let Some(at) = state.waiting.iter().position(|waiting| waiting.unique == unique) {
            state.waiting.swap_remove(at);
            let _ = self.device.answer(unique, Errno::INTR.raw_os_error(), &[]);
        }
    }

    fn read(&self, request: &Request<'_>) -> Result<Option<Vec<u8>>, Errno> {
        let (read, _) = request.arguments::<ReadIn>()?;
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

    fn write(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let (write, bytes) = request.arguments::<WriteIn>()?;
        let bytes = bytes.get(..write.size as usize).ok_or(Errno::INVAL)?;
        let mut state = self.state();
        let Some(Open::File(handle)) = state.open.get_mut(&write.fh) else { return Err(Errno::BADF) };
        let written = handle.write(bytes, &request.caller())?;
        let size = u32::try_from(written).map_err(|_| Errno::INVAL)?;
        Ok(WriteOut { size, padding: 0 }.as_bytes().to_vec())
    }

    fn ioctl(&self, request: &Request<'_>) -> Result<Option<Vec<u8>>, Errno> {
        let (ioctl, _) = request.arguments::<IoctlIn>()?;
        let mut state = self.state();
        let Some(Open::Raw(raw, ..)) = state.open.get_mut(&ioctl.fh) else { return Err(Errno::NOTTY) };
        match ioctl.cmd {
            raw::GET_READER => {
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

    fn poll(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let (poll, _) = request.arguments::<PollIn>()?;
        let mut state = self.state();
        let revents = match state.open.get_mut(&poll.fh) {
            Some(Open::Raw(raw, ..)) => READABLE * u32::from(raw.poll(&self.device, request.header.pid)?),
            Some(Open::File(handle)) if handle.special() == Special::Pipe => {
                READABLE * u32::from(handle.poll()?.is_none())
            }
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

    /// Sleeps on the buffers for all who wait, until [`stop`](Self::stop).
    pub(super) fn wait_for_others(&self) {
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
            let armed = state.arm(waiting.handle, is_read, &mut watches);
            let outcome = armed.and_then(|()| state.attempt(&waiting, &self.device));
            match outcome {
                Ok(Outcome::Later) => state.waiting.push(waiting),
                Ok(Outcome::Now(body)) => drop(self.device.answer(waiting.unique, 0, &[&body])),
                Err(errno) => drop(self.device.answer(waiting.unique, errno.raw_os_error(), &[])),
            }
        }
        let polled: Vec<_> = state.polls.iter().map(|(fh, kh)| (*fh, *kh)).collect();
        for (fh, kh) in polled {
            let armed = state.arm(fh, false, &mut watches);
            if armed.and_then(|()| state.is_readable(fh)).unwrap_or(true) {
                state.polls.remove(&fh);
                // The kernel asks again on behalf of whoever polls.
                let _ = self.device.notify(notify::POLL, &PollWakeup { kh }, &[]);
            }
        }
        watches
    }
}

fn attr(ino: u64, attributes: &Attributes, size: u64) -> Attr {
    let kind = match attributes.kind {
        Kind::Directory => libc::S_IFDIR,
        Kind::File => libc::S_IFREG,
    };
    Attr {
        ino,
        size,
        mode: kind | u32::from(attributes.mode),
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        blksize: 4096,
        ..Attr::default()
    }
}

fn entry(ino: u64, attributes: &Attributes) -> Vec<u8> {
    let entry = EntryOut {
        nodeid: ino,
        entry_valid: VALID,
        attr_valid: VALID,
        attr: attr(ino, attributes, 0),
        ..EntryOut::default()
    };
    entry.as_bytes().to_vec()
}

impl State {
    fn keep(&mut self, open: Open) -> u64 {
        self.last_handle += 1;
        self.open.insert(self.last_handle, open);
        self.last_handle
    }

    fn forget(&mut self, nodeid: u64, lookups: u64, mappings: &Mappings) {
        let Some(inode) = self.raw_inodes.get_mut(&nodeid) else { return };
        inode.lookups = inode.lookups.saturating_sub(lookups);
        if inode.lookups == 0 {
            self.raw_inodes.remove(&nodeid);
            mappings.inodes().remove(&nodeid);
        }
    }

    /// How far an inode's openings were pushed.
    fn raw_size(&self, ino: u64) -> u64 {
        let sizes = self.open.values().filter_map(|open| match open {
            Open::Raw(raw, ..) if raw.ino() == ino => Some(raw.size()),
            _ => None,
        });
        sizes.max().unwrap_or(0)
    }

    /// Has the writers wake us when an open file may have more; with `any`, at the next event, else at the watermark.
    fn arm(&mut self, fh: u64, any: bool, watches: &mut Vec<(Watch, Seen)>) -> Result<(), Errno> {
        let mut arm = |watch: Watch, percent| {
            let seen = watch.seen();
            let armed = watch.arm(percent).map_err(|error| raw::errno(&error));
            watches.push((watch, seen));
            armed.map(|_| ())
        };
        match self.open.get_mut(&fh).ok_or(Errno::BADF)? {
            Open::Raw(raw, ..) => arm(raw.watch()?, if any { 0 } else { raw.buffer_percent() }),
            Open::File(handle) => match handle.poll()? {
                Some(Wait { host, cpus, percent }) => cpus
                    .iter()
                    .try_for_each(|&cpu| arm(host.watch(cpu).map_err(|error| raw::errno(&error))?, percent)),
                None => Ok(()),
            },
            Open::Directory(_) => Ok(()),
        }
    }

    /// Answers a request if it can be.
    fn attempt(&mut self, waiting: &Waiting, device: &Device) -> Result<Outcome, Errno> {
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
            (Open::File(handle), &What::Read { offset, len }) => match handle.read(offset, len)? {
                Answer::Bytes(bytes) => Ok(Outcome::Now(bytes)),
                Answer::Wait(_) => Ok(Outcome::Later),
            },
            _ => Err(Errno::INVAL),
        }
    }

    fn is_readable(&mut self, fh: u64) -> Result<bool, Errno> {
        match self.open.get_mut(&fh).ok_or(Errno::BADF)? {
            Open::Raw(raw, ..) => raw.is_ready(),
            Open::File(handle) => Ok(handle.poll()?.is_none()),
            Open::Directory(_) => Ok(true),
        }
    }
}

/// The number of an inode of `trace_pipe_raw`. A client's tables in `/proc` tell it by that alone, so that no other mount
/// is to have it, of this process or another.
fn raw_ino() -> u64 {
    static LAST: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish()));
    LAST.fetch_add(1, Relaxed) | RAW_INO
}

/// Whether this process may let others map its files. A file of no bytes is enough to find out.
fn can_back(device: &Arc<Device>) -> bool {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("ringtap-probe", flags)
        .is_ok_and(|file| device.back(rustix::fd::AsFd::as_fd(&file)).is_ok())
}
