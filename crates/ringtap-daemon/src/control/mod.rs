//! What the files of a tracefs say and set, as text.

#![forbid(unsafe_code)]

/// Who makes a call: what the kernel knows of its caller, and a server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The calling thread; 0 where nobody said.
    pub tid: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The CPU that it makes the call on, where that is known; else it is looked up when it matters.
    pub cpu: Option<u32>,
}
