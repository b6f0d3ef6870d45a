//! The tree of files.

mod handle;
mod node;
mod tree;

pub use handle::{Access, Answer, Handle, RawPipe, Special, Wait};
pub use node::Node;
pub use tree::{Attributes, Entry, Kind, Mapped, Tree};
