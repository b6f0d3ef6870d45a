//! The tree as a table.

#![forbid(unsafe_code)]

use super::handle::{Access, Handle};
use super::node::Node;
use crate::control::Caller;
use ringtap::Host;
use rustix::io::Errno;
use std::sync::Arc;

/// Whether a node is a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has entries.
    Directory,
    /// It has contents.
    File,
}

/// What `stat` shows. Sizes are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// File or directory.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u16,
    /// Its links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A directory's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Which file it is.
    pub node: Node,
    /// File or directory.
    pub kind: Kind,
}

/// Says whether somebody maps a buffer, where somebody can know (the FUSE server: by a lease on the memfd).
///
/// Resize, sub-buffer size and snapshot say `EBUSY` while it is so, as the kernel does.
pub trait Mapped: Send + Sync {
    /// Whether any other process has this CPU's buffer mapped for reading.
    fn is_mapped(&self, host: &Host, cpu: u32) -> bool;
}

/// The tree. Clones are handles of the same one; every call may come from any thread, and none waits.
#[derive(Clone, Debug)]
pub struct Tree {}

impl Tree {
    /// Names who knows about mappings: from now on the kernel's rules about them hold.
    pub fn set_strict(&self, mapped: Arc<dyn Mapped>) {
        let _ = mapped;
        todo!()
    }

    /// The entry of this name.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    pub fn lookup(&self, parent: Node, name: &str) -> Result<Node, Errno> {
        let _ = (parent, name);
        todo!()
    }

    /// The node at a path below the root, `/` between names.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    pub fn resolve(&self, path: &str) -> Result<Node, Errno> {
        let _ = path;
        todo!()
    }

    /// What `stat` shows.
    ///
    /// # Errors
    /// `ENOENT` where its instance is gone.
    pub fn attributes(&self, node: Node) -> Result<Attributes, Errno> {
        let _ = node;
        todo!()
    }

    /// A directory's entries, without `.` and `..`.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    pub fn list(&self, node: Node) -> Result<Vec<Entry>, Errno> {
        let _ = node;
        todo!()
    }

    /// Opens a file. Whether the caller may is the server's business, by the [`Attributes`].
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn open(&self, node: Node, access: Access, caller: &Caller) -> Result<Handle, Errno> {
        let _ = (node, access, caller);
        todo!()
    }

    /// Makes an instance.
    ///
    /// # Errors
    /// `EPERM` outside `instances`, `EEXIST`, `ENAMETOOLONG`, `ENOMEM`, `ENOSPC`.
    pub fn make_dir(&self, parent: Node, name: &str) -> Result<Node, Errno> {
        let _ = (parent, name);
        todo!()
    }

    /// Removes an instance.
    ///
    /// # Errors
    /// `EPERM` outside `instances`, `ENOENT`, `EBUSY` while a file in it is open.
    pub fn remove_dir(&self, parent: Node, name: &str) -> Result<(), Errno> {
        let _ = (parent, name);
        todo!()
    }

    /// Changes mode or owner of a file, as `chmod` and `chown` do.
    ///
    /// # Errors
    /// `ENOENT` where its instance is gone.
    pub fn set_attributes(
        &self,
        node: Node,
        mode: Option<u16>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), Errno> {
        let _ = (node, mode, uid, gid);
        todo!()
    }
}
