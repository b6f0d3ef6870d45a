//! The messages on a host's socket (`SOCK_SEQPACKET`): one packet each way, in the machine's byte order.
//!
//! A packet is a [`Header`] and a body of at most [`MAX_BODY`] bytes. A client asks and the host answers in
//! order. After a [`request::HELLO`] the host's answer is followed by one packet for each CPU that carries that
//! buffer's descriptor: read-write for writers, read-only for readers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Largest body, in bytes: an event's format text, or a line of an error.
pub const MAX_BODY: usize = 16 * 1024;

/// First bytes of each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// A [`request`] number; in an answer an [`answer`] number.
    pub kind: u32,
    /// The CPU asked about; 0 where that means nothing.
    pub cpu: u32,
    /// What the kind says.
    pub value: u64,
}

/// What a client asks.
pub mod request {
    /// Opens a connection. `cpu`: [`crate::meta::VERSION`]. `value`: a [`super::role`].
    pub const HELLO: u32 = 1;
    /// Hands out what is new on the reader page, or the next page (the kernel's `TRACE_MMAP_IOCTL_GET_READER`).
    pub const GET_READER: u32 = 2;
    /// Asks whether the buffer is `value` percent full (0: whether there is anything to read). The answer is 1
    /// where it is; else 0, and the writers wake the futex when it may be: read that before asking.
    pub const ARM: u32 = 3;
    /// Wakes all that sleep on the buffer (the kernel's ioctl with command 0).
    pub const WAKE_ALL: u32 = 4;
    /// Asks for a CPU's counters; the body of the answer is eight `u64`: see `Stats` in the `ringtap` crate.
    pub const STATS: u32 = 5;
    /// Empties all buffers.
    pub const RESET: u32 = 6;
    /// Recording on (`value` 1) or off (0).
    pub const RECORD: u32 = 7;
    /// Declares an event; the body is its format text without the `ID:` line's number. Answer: its id.
    pub const REGISTER: u32 = 8;
    /// Asks for the event with the lowest id above `value`. Answer: its id and, as body, system, `\n`, format.
    pub const NEXT_EVENT: u32 = 9;
}

/// What a host answers.
pub mod answer {
    /// Done; `value` is what the request says.
    pub const OK: u32 = 0x100;
    /// Refused; `value` is an errno and the body one sentence.
    pub const ERROR: u32 = 0x101;
    /// One buffer's descriptor; `cpu` is its CPU, `value` the bytes of its mapping.
    pub const BUFFER: u32 = 0x102;
}

/// What a client wants to be.
pub mod role {
    /// Maps the buffers read-write and writes events.
    pub const WRITER: u64 = 1;
    /// Maps the buffers read-only and may consume.
    pub const READER: u64 = 2;
}
