//! Typed events, described as the kernel describes its own.
//!
//! [`event!`](crate::event!) declares an event as a struct. Writing it stores the fields in a record on the stack
//! and hands that to a [`Writer`](crate::Writer); nothing is allocated, and while the event is off it costs two loads
//! and a branch. The declaration also yields the `format` text of the kernel's `events/SYSTEM/NAME/format`, so
//! libtraceevent and trace-cmd decode ringtap's events as they decode the kernel's.
//!
//! ```
//! use ringtap::{Config, Host};
//!
//! ringtap::symbols! {
//!     /// What was read.
//!     pub enum Source: u8 { Disk = 0, Cache = 1 => "page cache" }
//! }
//! ringtap::event! {
//!     /// A file was read.
//!     pub struct FileRead<'a> as demo:file_read {
//!         bytes: u64,
//!         took_ns: u32,
//!         source: Source,
//!         path: &'a str,
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::new(&Config::default())?;
//! let writer = host.writer();
//! FileRead::register(&host)?;
//! FileRead { bytes: 4096, took_ns: 1200, source: Source::Cache, path: "/etc/hosts" }.write(&writer);
//! # Ok(())
//! # }
//! ```
//!
//! # Fields
//!
//! | Rust | in the `format` text | printed by default |
//! | --- | --- | --- |
//! | `u8` to `u64`, `i8` to `i64` | `u8` … `u64`, `s8` … `s64` | decimal |
//! | `usize`, `isize` | `unsigned long`, `long` | decimal |
//! | `bool` | `bool` | `0` or `1` |
//! | `*const T`, `*mut T` | `void *` | hexadecimal |
//! | `f32`, `f64` | `float`, `double` | their bits in hexadecimal, see below |
//! | an enum of [`symbols!`](crate::symbols!) | its integer | the symbol |
//! | flags of [`symbols!`](crate::symbols!) | its integer | the symbols, joined by a bar |
//! | `[T; N]` of the above | `T name[N]` | bytes in hexadecimal, others as unsigned numbers |
//! | [`Text<N>`](Text) | `char name[N]` | the text |
//! | `&str` | `__data_loc char[]` | the text |
//! | `&[T]` of a number | `__data_loc T[]` | as the array |
//!
//! **Floats.** The kernel's `print fmt` has no `%f`. The field is typed `float` or `double`, so a decoder that looks
//! at types (ringtap-format) shows the number; one that follows the `print fmt` (trace-cmd) shows the bits of
//! the IEEE 754 number, in hexadecimal. An event that has to read well in trace-cmd carries a scaled integer instead.
//!
//! **Strings and slices** are cut where the whole payload would be longer than [`PAYLOAD_LIMIT`]: earlier fields
//! win, strings are cut between characters, slices between elements. A string goes on behind a NUL inside it,
//! but C tools end there.
//!
//! # Several instances
//!
//! An event of a process has one id, and it is the instance's to give. Registering with a second instance
//! succeeds if that gives the same id (two that are told the same events in the same order do), and is
//! [`EventError::OtherId`] otherwise; `unregister` frees the event for another instance. Threads may
//! register the same event at once.

mod declare;
mod declared;
mod dynamic;
mod format;
mod layout;
pub mod marker;
pub mod registry;
pub mod switch;
#[cfg(test)]
mod tests;
mod value;

pub use declared::{Declared, EventError, Register};
pub use format::{Arg, Print, manifests};
pub use layout::Field;
pub use switch::{Route, Switch};
pub use value::{Count, Kind, Scalar, Shown, Text, Value};

use crate::thread;

/// Largest payload of an event with strings or slices, in bytes; it is built on the stack, and fits in every
/// sub-buffer.
pub const PAYLOAD_LIMIT: usize = 1024;

/// The fields that every event begins with: the first 8 bytes of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Common {
    /// `common_type`: the event's id.
    pub id: u16,
    /// `common_flags`: what the kernel knows of interrupts. Always 0 for an application.
    pub flags: u8,
    /// `common_preempt_count`. Always 0 for an application.
    pub preempt_count: u8,
    /// `common_pid`: the kernel's id of the thread.
    pub pid: u32,
}

impl Common {
    /// Bytes in a payload.
    pub const LEN: usize = 8;

    /// For an event of the calling thread.
    #[must_use]
    #[inline(always)]
    pub fn of_thread(id: u16) -> Self {
        Self { id, flags: 0, preempt_count: 0, pid: thread::id() }
    }

    /// The fields as the payload's first word.
    #[must_use]
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.id as u64
            | (self.flags as u64) << 16
            | (self.preempt_count as u64) << 24
            | (self.pid as u64) << 32
    }
}

/// What [`event!`](crate::event!) expands to. Not for direct use.
#[doc(hidden)]
pub mod private {
    pub use super::dynamic::{Tail, write as write_dynamic};
    pub use super::format::{check as check_print, manifest, manifest_len};
    pub use super::layout::{is_dynamic, lay_out, offset_of, payload_len, plain_len, view};
}
