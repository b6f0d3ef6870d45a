//! What a server keeps between requests: open files, inodes, and who waits.

#![forbid(unsafe_code)]

use super::mappings::Mappings;
use crate::fs::consumer::Consumer;
use crate::fs::fuse::device::Backing;
use crate::fs::handle::{Handle, Special};
use crate::fs::node::Node;
use crate::fs::raw::Raw;
use crate::fs::tree::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// What the kernel's requests name by a number, and what was promised to it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// By handle.
    pub(super) open: HashMap<u64, Open>,
    last_handle: u64,
    /// By number.
    pub(super) raw_inodes: HashMap<u64, RawInode>,
    pub(super) consumers: HashMap<Node, Arc<Mutex<Consumer>>>,
    pub(super) waiting: Vec<Waiting>,
    /// By handle, what the kernel wants to be told by when there is something to read.
    pub(super) polls: BTreeMap<u64, u64>,
}

impl State {
    /// The handle that an open file has from now on.
    pub(super) fn keep(&mut self, open: Open) -> u64 {
        self.last_handle += 1;
        self.open.insert(self.last_handle, open);
        self.last_handle
    }

    /// The kernel forgets so many look-ups of an inode.
    pub(super) fn forget(&mut self, nodeid: u64, lookups: u64, mappings: &Mappings) {
        let Some(inode) = self.raw_inodes.get_mut(&nodeid) else { return };
        inode.lookups = inode.lookups.saturating_sub(lookups);
        if inode.lookups == 0 {
            self.raw_inodes.remove(&nodeid);
            mappings.inodes().remove(&nodeid);
        }
    }

    /// How far an inode's openings were pushed.
    pub(super) fn raw_size(&self, ino: u64) -> u64 {
        let sizes = self.open.values().filter_map(|open| match open {
            Open::Raw(raw, ..) if raw.ino() == ino => Some(raw.size()),
            _ => None,
        });
        sizes.max().unwrap_or(0)
    }
}

/// An open file or directory.
#[derive(Debug)]
pub(super) enum Open {
    Directory(Vec<Entry>),
    File(File),
    Raw(Box<Raw>, Node),
}

/// An open file other than `trace_pipe_raw`.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Locked for as long as one request takes; without the state's lock, unless it is a pipe.
    pub(super) handle: Arc<Mutex<Handle>>,
    special: Special,
    pub(super) reads_slowly: bool,
    pub(super) writes_slowly: bool,
}

impl File {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            special: handle.special(),
            reads_slowly: handle.reads_slowly(),
            writes_slowly: handle.writes_slowly(),
            handle: Arc::new(Mutex::new(handle)),
        }
    }

    pub(super) fn is_pipe(&self) -> bool {
        self.special == Special::Pipe
    }

    /// A panic while a request was handled concerned that request.
    pub(super) fn lock(&self) -> MutexGuard<'_, Handle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the numbers of inodes of one lookup; the tree's own never have it.
const RAW_INO: u64 = 1 << 63;

/// Whether an inode is of one lookup of `trace_pipe_raw`.
pub(super) fn is_raw(ino: u64) -> bool {
    ino & RAW_INO != 0
}

/// An inode of one lookup of `trace_pipe_raw`.
#[derive(Debug)]
pub(super) struct RawInode {
    pub(super) node: Node,
    lookups: u64,
    pub(super) openings: u64,
    /// What its mappings go to, while it is open: the same for all its openings, as the kernel wants it.
    pub(super) backing: Option<Backing>,
}

impl RawInode {
    pub(super) fn new(node: Node) -> Self {
        Self { node, lookups: 1, openings: 0, backing: None }
    }
}

/// The number of an inode of `trace_pipe_raw`. A client's tables in `/proc` tell it by that alone, so that no other mount
/// is to have it, of this process or another.
pub(super) fn raw_ino() -> u64 {
    static LAST: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish()));
    LAST.fetch_add(1, Relaxed) | RAW_INO
}

/// A request that is answered later.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) unique: u64,
    pub(super) handle: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Read {
        offset: u64,
        len: usize,
    },
    /// A GET_READER, and how often sleepers were sent away, or woken, when it began.
    GetReader {
        kicks: u32,
    },
}
