//! The tree as a host's control protocol: calls that come over its Unix socket.
//!
//! A call names a path and is answered at once. Files that are longer than an answer are read in several calls, so what
//! a peer is reading stays open here until he has read it to its end, or others read more than [`READERS`] files.

#![forbid(unsafe_code)]

use super::handle::{Access, Answer, Handle};
use super::node::Node;
use super::tree::{Attributes, Kind, Tree};
use crate::control::Caller;
use crate::limits::READERS;
use ringtap::serve::{self, Peer, TreeCall, TreeRefusal};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of one answer to a read.
const ANSWER: usize = 8192;

/// Answers calls on a tree.
#[derive(Debug)]
pub struct Socket {
    tree: Tree,
    has_members: bool,
    /// What is being read, the latest last.
    reading: Mutex<VecDeque<Reading>>,
}

#[derive(Debug)]
struct Reading {
    pid: u32,
    path: String,
    /// How far it was read.
    offset: u64,
    handle: Handle,
}

/// What a call wants of a file or directory: bits of its mode.
const READ: u16 = 4;
const WRITE: u16 = 2;
const SEARCH: u16 = 1;

impl serve::Tree for Socket {
    fn call(&self, peer: Peer, path: &str, call: TreeCall<'_>) -> Result<Vec<u8>, TreeRefusal> {
        let done = match call {
            TreeCall::Read(from) => self.read(peer, path, from),
            TreeCall::Write(bytes) => self.write(peer, path, bytes),
            TreeCall::List(from) => self.list(peer, path, from),
            TreeCall::Mkdir => {
                self.in_parent(peer, path, |parent, name| self.tree.make_dir(parent, name).map(drop))
            }
            TreeCall::Rmdir => self.in_parent(peer, path, |parent, name| self.tree.remove_dir(parent, name)),
        };
        done.map_err(|errno| TreeRefusal {
            errno: errno.raw_os_error(),
            reason: format!("{path}: {}", io::Error::from(errno)),
        })
    }
}

impl Tree {
    /// Serves the host on a socket at `path`, its files included, until the server is dropped. The members of a
    /// group may do what the host's user may.
    ///
    /// # Errors
    /// As [`ringtap::Instances::serve_with`].
    pub fn serve(
        &self,
        path: impl AsRef<Path>,
        group: Option<u32>,
    ) -> Result<serve::Server, serve::ServeError> {
        let socket = Socket::new(self.clone());
        let socket = if group.is_some() { socket.with_members() } else { socket };
        let tree: Arc<dyn serve::Tree> = Arc::new(socket);
        let options = serve::Options { group, tree: Some(tree), ..serve::Options::default() };
        self.control().instances().serve_with(path, options)
    }
}

impl Socket {
    /// Answers calls on this tree.
    #[must_use]
    pub fn new(tree: Tree) -> Self {
        Self { tree, has_members: false, reading: Mutex::default() }
    }

    /// Behind a socket that lets nobody in but the host's user, root and the members of a group: these may do what the
    /// host's user may, whatever the files' modes say.
    #[must_use]
    pub fn with_members(self) -> Self {
        Self { has_members: true, ..self }
    }

    fn reading(&self) -> MutexGuard<'_, VecDeque<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, peer: Peer, path: &str, from: u64) -> Result<Vec<u8>, Errno> {
        let mut reading = self.reading();
        let known = reading.iter().position(|it| it.pid == peer.pid && it.path == path);
        let known = known.and_then(|at| reading.remove(at)).filter(|it| from > 0 && it.offset == from);
        let mut file = match known {
            Some(file) => file,
            None => {
                let node = self.walk(peer, path, READ)?;
                let access = Access { read: true, ..Access::default() };
                let handle = self.tree.open(node, access, &caller(peer))?;
                Reading { pid: peer.pid, path: path.to_owned(), offset: from, handle }
            }
        };
        let bytes = match file.handle.read(from, ANSWER)? {
            Answer::Bytes(bytes) => bytes,
            Answer::Wait(_) => return Err(Errno::AGAIN),
        };
        if !bytes.is_empty() {
            file.offset = from.saturating_add(bytes.len() as u64);
            if reading.len() == READERS {
                reading.pop_front();
            }
            reading.push_back(file);
        }
        Ok(bytes)
    }

    /// Writes as a shell's `>>` does; nothing at all as its `>`, which empties what can be emptied.
    fn write(&self, peer: Peer, path: &str, bytes: &[u8]) -> Result<Vec<u8>, Errno> {
        let node = self.walk(peer, path, WRITE)?;
        let access = Access { write: true, truncate: bytes.is_empty(), ..Access::default() };
        let caller = caller(peer);
        let mut handle = self.tree.open(node, access, &caller)?;
        let mut left = bytes;
        while !left.is_empty() {
            // Some files take a part of what is written, and whoever writes writes the rest.
            match handle.write(left, &caller)? {
                0 => return Err(Errno::IO),
                taken => left = left.get(taken..).unwrap_or_default(),
            }
        }
        Ok(Vec::new())
    }

    fn list(&self, peer: Peer, path: &str, from: u64) -> Result<Vec<u8>, Errno> {
        let node = self.walk(peer, path, READ)?;
        let names = self.tree.list(node)?.into_iter().map(|entry| entry.name + "\n");
        let names = names.collect::<String>().into_bytes();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        Ok(names.get(from..).map(<[u8]>::to_vec).unwrap_or_default())
    }

    fn in_parent(
        &self,
        peer: Peer,
        path: &str,
        act: impl FnOnce(Node, &str) -> Result<(), Errno>,
    ) -> Result<Vec<u8>, Errno> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.walk(peer, parent, WRITE)?;
        act(parent, name).map(|()| Vec::new())
    }

    /// Resolves a path for a peer who wants this of what is there.
    fn walk(&self, peer: Peer, path: &str, wanted: u16) -> Result<Node, Errno> {
        let mut node = Node::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let attributes = self.tree.attributes(node)?;
            if attributes.kind == Kind::Directory && !self.may(peer, &attributes, SEARCH) {
                return Err(Errno::ACCESS);
            }
            node = self.tree.lookup(node, name)?;
        }
        if self.may(peer, &self.tree.attributes(node)?, wanted) { Ok(node) } else { Err(Errno::ACCESS) }
    }

    fn may(&self, peer: Peer, attributes: &Attributes, wanted: u16) -> bool {
        self.has_members || may(peer, attributes, wanted)
    }
}

/// Whether a peer may, by the mode alone: as the kernel decides about files, except that who serves may do all.
fn may(peer: Peer, attributes: &Attributes, wanted: u16) -> bool {
    let host = rustix::process::geteuid().as_raw();
    if peer.uid == 0 || peer.uid == host {
        return true;
    }
    let bits = match attributes {
        Attributes { uid, mode, .. } if *uid == peer.uid => mode >> 6,
        Attributes { gid, mode, .. } if *gid == peer.gid => mode >> 3,
        Attributes { mode, .. } => *mode,
    };
    bits & wanted == wanted
}

fn caller(peer: Peer) -> Caller {
    Caller { tid: peer.pid, uid: peer.uid, gid: peer.gid, cpu: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;
    use crate::fs::Ownership;
    use ringtap::serve::Tree as _;
    use ringtap::{Config, Instances};

    fn peer(uid: u32) -> Peer {
        Peer { uid, gid: uid, pid: std::process::id() }
    }

    fn socket() -> Socket {
        let config = Config { ring_subbufs: 16, ..Config::default() };
        Socket::new(Tree::new(Control::new(Instances::new(&config).unwrap()), Ownership::default()))
    }

    fn whole(socket: &Socket, path: &str) -> String {
        let mut text = Vec::new();
        loop {
            let more = socket.call(peer(0), path, TreeCall::Read(text.len() as u64)).unwrap();
            if more.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            text.extend(more);
        }
    }

    #[test]
    fn files_over_the_socket() {
        let socket = socket();
        socket.call(peer(0), "instances/net", TreeCall::Mkdir).unwrap();
        assert_eq!(socket.call(peer(0), "instances", TreeCall::List(0)).unwrap(), b"net\n");
        assert_eq!(socket.call(peer(0), "instances", TreeCall::List(4)).unwrap(), b"");
        socket.call(peer(0), "instances/net/buffer_percent", TreeCall::Write(b"7")).unwrap();
        assert_eq!(whole(&socket, "instances/net/buffer_percent"), "7\n");
        assert_eq!(whole(&socket, "buffer_percent"), "50\n");
        let refused = socket.call(peer(0), "buffer_percent", TreeCall::Write(b"x")).unwrap_err();
        assert_eq!(refused.errno, Errno::INVAL.raw_os_error());
        assert!(refused.reason.starts_with("buffer_percent: "), "{}", refused.reason);
        socket.call(peer(0), "instances/net", TreeCall::Rmdir).unwrap();
        assert_eq!(socket.call(peer(0), "instances/net", TreeCall::Rmdir).unwrap_err().errno, 2);
    }

    #[test]
    fn a_long_trace_is_read_in_parts_and_emptied() {
        let socket = socket();
        for number in 0..500 {
            let text = format!("line {number} of a trace that is longer than an answer");
            socket.call(peer(0), "trace_marker", TreeCall::Write(text.as_bytes())).unwrap();
        }
        let text = whole(&socket, "trace");
        assert!(text.len() > 2 * ANSWER);
        for number in 0..500 {
            assert_eq!(text.matches(&format!(": line {number} of")).count(), 1, "{number}");
        }
        assert!(socket.reading().is_empty(), "what was read to its end is closed");
        socket.call(peer(0), "trace", TreeCall::Write(b"")).unwrap();
        assert!(!whole(&socket, "trace").contains("line"));
        let none = socket.call(peer(0), "trace_pipe", TreeCall::Read(0)).unwrap_err();
        assert_eq!(none.errno, Errno::AGAIN.raw_os_error());
    }

    #[test]
    fn strangers_get_what_the_modes_grant() {
        let socket = socket();
        let stranger = peer(12345);
        let ask = |path, call| socket.call(stranger, path, call).map_err(|refused| refused.errno);
        assert_eq!(ask("tracing_on", TreeCall::Read(0)), Err(Errno::ACCESS.raw_os_error()));
        socket.tree.set_attributes(Node::ROOT, Some(0o755), None, None).unwrap();
        assert_eq!(ask("tracing_on", TreeCall::Read(0)), Err(Errno::ACCESS.raw_os_error()));
        let file = socket.tree.resolve("tracing_on").unwrap();
        socket.tree.set_attributes(file, None, None, Some(12345)).unwrap();
        assert_eq!(ask("tracing_on", TreeCall::Read(0)), Ok(b"1\n".to_vec()));
        assert_eq!(ask("tracing_on", TreeCall::Write(b"0")), Err(Errno::ACCESS.raw_os_error()));
    }

    #[test]
    fn members_of_the_hosts_group_may_what_its_user_may() {
        let socket = socket().with_members();
        let ask = |call| socket.call(peer(12345), "tracing_on", call);
        ask(TreeCall::Write(b"0")).unwrap();
        assert_eq!(ask(TreeCall::Read(0)).unwrap(), b"0\n");
    }
}
