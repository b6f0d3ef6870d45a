//! The FUSE server: requests translated into calls of the tree, and their results into answers. Nothing is decided here
//! but what concerns open files as such.
//!
//! ```text
//!   one thread    reads a request, answers it, reads the next
//!   another       sleeps on the buffers for those who wait for more: blocked reads, and polls that were not ready
//!   a few more    do what takes long: the text of events, resizes, snapshots, filters, instances
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
use super::queue::Queue;
use super::raw::{self, Consumer, Raw};
use super::tree::{Attributes, Entry, Kind, Tree};
use crate::control::{Caller, Mapped};
use ringtap::Host;
use ringtap::subbufs::{self, Bell, Frame, Seen, Watch};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap, hash_map};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
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
    /// Requests that take long.
    slow: Queue<Vec<u8>>,
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
    File(File),
    Raw(Box<Raw>, Node),
}

/// An open file other than `trace_pipe_raw`.
#[derive(Clone, Debug)]
struct File {
    /// Locked for as long as one request takes; without the state's lock, unless it is a pipe.
    handle: Arc<Mutex<Handle>>,
    special: Special,
    reads_slowly: bool,
    writes_slowly: bool,
}

impl File {
    fn new(handle: Handle) -> Self {
        Self {
            special: handle.special(),
            reads_slowly: handle.reads_slowly(),
            writes_slowly: handle.writes_slowly(),
            handle: Arc::new(Mutex::new(handle)),
        }
    }

    fn is_pipe(&self) -> bool {
        self.special == Special::Pipe
    }

    /// A panic while a request was handled concerned that request.
    fn lock(&self) -> MutexGuard<'_, Handle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// The inodes that were ever opened and are not forgotten, which a mapping prevents.
    inodes: Mutex<HashMap<u64, Shown>>,
}

/// What an inode shows.
#[derive(Clone, Debug)]
struct Shown {
    /// Which buffer: of the instance of this number, and of this CPU.
    instance: u32,
    cpu: u32,
    /// What its mappings go to.
    frame: Frame,
    /// How often it is open.
    openings: u64,
}

impl Mappings {
    /// A look-up is over before anybody else asks, and a panic in it changes nothing.
    fn inodes(&self) -> MutexGuard<'_, HashMap<u64, Shown>> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inodes that show a buffer.
    fn shown(&self, instance: u32, cpu: u32) -> HashMap<u64, Shown> {
        let mut shown = self.inodes().clone();
        shown.retain(|_, shown| (shown.instance, shown.cpu) == (instance, cpu));
        shown
    }

    /// Whether anybody has open or mapped what these show, or the present memory, which the clients of a server before
    /// this one may have.
    fn is_used(shown: &HashMap<u64, Shown>, host: &Host, cpu: u32) -> bool {
        let memories = shown.values().map(|shown| shown.frame.memory()).chain(host.memory(cpu).ok());
        memories.into_iter().any(|memory| !device::is_unused(memory.as_fd()))
    }

    /// Whether somebody maps a buffer or can do so at any time, having it open.
    fn may_be_mapped(&self, instance: u32, host: &Host, cpu: u32) -> bool {
        Self::is_used(&self.shown(instance, cpu), host, cpu)
    }

    /// Forgets memory that other memory replaced and that nobody can map or has mapped any more.
    fn forget_unused(&self) {
        self.inodes()
            .retain(|_, shown| shown.openings > 0 || !device::is_unused(shown.frame.memory().as_fd()));
    }
}

impl Mapped for Mappings {
    fn is_mapped(&self, instance: u32, host: &Host, cpu: u32) -> bool {
        let shown = self.shown(instance, cpu);
        if !Self::is_used(&shown, host, cpu) {
            return false;
        }
        // Somebody has it: through a mapping, where no file is open; else the clients' own tables say it.
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
        rustix::event::poll(&mut [PollFd::new(&*device, PollFlags::IN)], None).map_err(failed)?;
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
            slow: Queue::default(),
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
        self.slow.close();
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
        let fh = self.state().keep(Open::File(File::new(handle)));
        Ok(OpenOut { fh, open_flags: fopen::DIRECT_IO | seek, backing_id: 0 }.as_bytes().to_vec())
    }

    fn open_raw(&self, ino: u64, node: Node, handle: Handle, nonblocking: bool) -> Result<Vec<u8>, Errno> {
        let pipe = handle.raw().ok_or(Errno::INVAL)?;
        let mut state = self.state();
        let inode = state.raw_inodes.get_mut(&ino).ok_or(Errno::STALE)?;
        let mut frame = None;
        if self.can_map {
            self.mappings.forget_unused();
            let (host, cpu) = (pipe.host(), pipe.cpu());
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

    fn release(&self, fh: u64) {
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

    fn write(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
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

    fn ioctl(&self, request: &Request<'_>) -> Result<Option<Vec<u8>>, Errno> {
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

    fn poll(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
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

/// When the files were made, in seconds of the calendar's time and nanoseconds: tools show it.
static SINCE: LazyLock<(u64, u32)> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
});

fn attr(ino: u64, attributes: &Attributes, size: u64) -> Attr {
    let kind = match attributes.kind {
        Kind::Directory => libc::S_IFDIR,
        Kind::File => libc::S_IFREG,
    };
    let (since, nsec) = *SINCE;
    Attr {
        ino,
        size,
        atime: since,
        mtime: since,
        ctime: since,
        atimensec: nsec,
        mtimensec: nsec,
        ctimensec: nsec,
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
            Open::File(file) if !file.is_pipe() => Ok(()),
            Open::File(file) => match file.lock().poll()? {
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
