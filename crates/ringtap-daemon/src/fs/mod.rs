//! The tree of files.

mod handle;
mod node;
mod table;
mod tree;

pub use crate::control::Mapped;
pub use handle::{Access, Answer, Handle, RawPipe, Special, Wait};
pub use node::Node;
pub use tree::{Attributes, Entry, Kind, Ownership, Tree};
