//! The tree of files.

mod consumer;
mod fuse;
mod handle;
mod mount;
mod namespace;
mod node;
mod queue;
mod raw;
mod raw_snapshot;
mod server;
mod socket;
mod table;
mod tree;

pub use crate::control::Mapped;
pub use handle::{Access, Answer, Handle, RawPipe, Special, Wait};
pub use mount::{Mount, MountError};
pub use namespace::Namespace;
pub use node::Node;
pub use server::Held;
pub use socket::Socket;
pub use tree::{Attributes, Entry, Kind, Ownership, Tree};
