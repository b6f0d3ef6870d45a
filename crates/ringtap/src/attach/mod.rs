//! Attaching to a host of another process: as a writer, or as a reader.
//!
//! A writer maps the buffers and needs the host no more: it writes on when the host is gone, into memory that
//! nobody may read. A reader maps them read-only and keeps its connection, for the calls that only the host
//! performs. Every call ends in bounded time, with an error where the host is dead or stopped.

mod attachment;
mod connection;
mod early;
mod error;
mod follow;
mod fork;
mod known;
mod link;
mod mapped;
mod reader_handle;
mod switchboard;

pub use attachment::{Attachment, Early};
pub use connection::{Connection, Role, SOCKET_VARIABLE, writer};
pub use error::AttachError;
pub use known::KnownEvents;
pub use reader_handle::ReaderHandle;
pub use switchboard::Switchboard;
