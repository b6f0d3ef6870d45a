//! What two processes must agree on to share a ringtap buffer.
//!
//! # Who shares what
//!
//! One *buffer* is one CPU's ring, in one memfd:
//!
//! ```text
//! [ meta-page | sub-buffer 0 | sub-buffer 1 | ... | sub-buffer nr_subbufs-1 ]
//! ```
//!
//! * The **host** owns the memory, maps it read-write, swaps the reader page and answers control calls.
//! * **Writers** map it read-write. They are trusted not to lie about events; nobody trusts them with
//!   memory safety. What is read from shared memory is an *allegation*, checked before it is used.
//! * **Readers** map it read-only, through a descriptor that cannot be made writable.
//!
//! # What is where
//!
//! * [`geometry`]: how large the parts are and where they lie.
//! * [`meta`]: the meta-page. Its first 80 bytes are Linux's `struct trace_buffer_meta`, field for field
//!   (`include/uapi/linux/trace_mmap.h`); what follows, inside `meta_struct_len`, is ringtap's extension.
//! * [`words`]: the packed 64-bit words that writers, host and cursors exchange.
//! * [`subbuf`] and [`event`]: the sub-buffer's header and the records behind it, as the kernel writes them.
//! * [`records`]: the walk over a sub-buffer's records, the one used by every reader.
//! * [`clock`]: which clock stamps the events, and how its ticks become nanoseconds.
//! * [`control`]: the messages on a host's socket.
//! * [`switchboard`]: which events are on, where: shared by all processes of a host, besides the buffers.
//! * [`predicate`]: filters as byte code, which writers evaluate.
//! * [`rules`]: where filters, triggers, lists of pids and histograms lie.
//!
//! # Versions
//!
//! A mapping states its own lengths, as the kernel's does. [`meta::MAGIC`] and [`meta::VERSION`] stand
//! right behind the kernel's struct; another version is refused, never guessed at.
#![cfg_attr(not(any(test, loom)), no_std)]

pub mod clock;
pub mod control;
pub mod event;
pub mod geometry;
pub mod meta;
pub mod predicate;
pub mod records;
pub mod rules;
pub mod subbuf;
pub mod switchboard;
pub mod sync;
pub mod words;

pub use geometry::Geometry;
pub use words::SubbufId;
