//! Names, inodes and attributes: what is asked of a file before it is opened.

#![forbid(unsafe_code)]

use super::Server;
use super::request::Request;
use super::state::{Open, RawInode, is_raw, raw_ino};
use crate::fs::fuse::abi::*;
use crate::fs::node::Node;
use crate::fs::tree::{Attributes, Entry, Kind};
use rustix::io::Errno;
use std::sync::LazyLock;
use std::time::SystemTime;
use zerocopy::{FromBytes as _, IntoBytes as _};

/// How long the kernel may believe names and attributes, in seconds. Others change them too: the host's socket does.
/// Names of instances it asks for each time: one that was removed and made anew is another.
const VALID: u64 = 1;
/// The name of the file of which each lookup has an inode of its own.
const RAW_FILE: &str = "trace_pipe_raw";
/// What a listing tells of each entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Detail {
    /// Its name, number and kind.
    Names,
    /// Also what a look-up says, which is spared then.
    Attributes,
}

impl Server {
    pub(super) fn node(&self, nodeid: u64) -> Result<Node, Errno> {
        if is_raw(nodeid) {
            return self.state().raw_inodes.get(&nodeid).map(|inode| inode.node).ok_or(Errno::STALE);
        }
        Node::from_ino(nodeid).ok_or(Errno::STALE)
    }

    pub(super) fn look_up(&self, parent: u64, name: &str) -> Result<Vec<u8>, Errno> {
        let node = self.tree.lookup(self.node(parent)?, name)?;
        let attributes = self.tree.attributes(node)?;
        if name != RAW_FILE || attributes.kind == Kind::Directory {
            return Ok(entry(node, &attributes).as_bytes().to_vec());
        }
        // An inode for each lookup: openings of one inode share a page cache, a size and what they are mapped to.
        let ino = raw_ino();
        self.state().raw_inodes.insert(ino, RawInode::new(node));
        let entry = EntryOut {
            nodeid: ino,
            attr_valid: VALID,
            attr: attr(ino, &attributes, 0),
            ..EntryOut::default()
        };
        Ok(entry.as_bytes().to_vec())
    }

    pub(super) fn make_dir(&self, parent: u64, name: &str) -> Result<Vec<u8>, Errno> {
        let made = self.tree.make_dir(self.node(parent)?, name)?;
        Ok(entry(made, &self.tree.attributes(made)?).as_bytes().to_vec())
    }

    pub(super) fn attributes(&self, nodeid: u64) -> Result<Vec<u8>, Errno> {
        let attributes = self.tree.attributes(self.node(nodeid)?)?;
        let size = if is_raw(nodeid) { self.state().raw_size(nodeid) } else { 0 };
        let out = AttrOut { attr_valid: VALID, attr: attr(nodeid, &attributes, size), ..AttrOut::default() };
        Ok(out.as_bytes().to_vec())
    }

    pub(super) fn set_attributes(&self, nodeid: u64, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
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

    pub(super) fn forget_many(&self, request: &Request<'_>) {
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

    /// Entries of an open directory, from a place in it on.
    pub(super) fn read_dir(&self, nodeid: u64, read: &ReadIn, detail: Detail) -> Result<Vec<u8>, Errno> {
        let state = self.state();
        let Some(Open::Directory(entries)) = state.open.get(&read.fh) else { return Err(Errno::BADF) };
        let own = [".", ".."].map(|name| (name, nodeid, Kind::Directory, None));
        let others =
            entries.iter().map(|Entry { name, node, kind }| (&**name, node.ino(), *kind, Some(*node)));
        let all = (1..).zip(own.into_iter().chain(others));
        let mut listing = Vec::new();
        for (next, (name, ino, kind, node)) in all.skip(usize::try_from(read.offset).unwrap_or(usize::MAX)) {
            let known = match detail {
                Detail::Names => Vec::new(),
                Detail::Attributes => self.known(name, node).as_bytes().to_vec(),
            };
            let entry = [&known, &*dirent(ino, next, name, kind)?].concat();
            if listing.len() + entry.len() > read.size as usize {
                break;
            }
            listing.extend(entry);
        }
        Ok(listing)
    }

    /// What a look-up would say of a directory's entry. Of one that is to be looked up each time it says nothing.
    fn known(&self, name: &str, node: Option<Node>) -> EntryOut {
        let node = node.filter(|_| name != RAW_FILE);
        let known = node.and_then(|node| Some((node, self.tree.attributes(node).ok()?)));
        known.map(|(node, attributes)| entry(node, &attributes)).unwrap_or_default()
    }
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

/// What a look-up says.
fn entry(node: Node, attributes: &Attributes) -> EntryOut {
    EntryOut {
        nodeid: node.ino(),
        entry_valid: if node.is_instance() { 0 } else { VALID },
        attr_valid: VALID,
        attr: attr(node.ino(), attributes, 0),
        ..EntryOut::default()
    }
}

fn dirent(ino: u64, next: u64, name: &str, kind: Kind) -> Result<Vec<u8>, Errno> {
    let kind = match kind {
        Kind::Directory => u32::from(libc::DT_DIR),
        Kind::File => u32::from(libc::DT_REG),
    };
    let namelen = u32::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
    let mut dirent = [Dirent { ino, off: next, namelen, kind }.as_bytes(), name.as_bytes()].concat();
    dirent.resize(dirent.len().next_multiple_of(8), 0);
    Ok(dirent)
}

/// Why nobody makes a file or a device of this mode.
pub(super) fn no_node(mode: u32) -> Errno {
    if mode & libc::S_IFMT == libc::S_IFREG { Errno::ACCESS } else { Errno::PERM }
}

/// An empty list.
pub(super) fn no_extended_attributes(list: &GetxattrIn) -> Vec<u8> {
    if list.size == 0 { GetxattrOut::default().as_bytes().to_vec() } else { Vec::new() }
}
