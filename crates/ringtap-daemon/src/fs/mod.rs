//! The tree of files.

mod fuse;
mod handle;
mod mount;
mod node;
mod raw;
mod server;
mod tree;

pub use handle::{Access, Answer, Handle, RawPipe, Special, Wait};
pub use mount::{Mount, MountError, Options};
pub use node::Node;
pub use tree::{Attributes, Entry, Kind, Mapped, Tree};
