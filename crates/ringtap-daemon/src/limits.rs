//! What the tree grants to its users, and why so much.

/// Bytes that one write to a control file may have: the kernel takes a page of text.
pub const WRITE_LEN: usize = 4096;

/// Entries that `error_log` keeps, as the kernel does.
pub const ERRORS: usize = 8;

/// Files that are being read over the socket: each may hold a trace's cursors, and more than a few at a time are readers
/// who went away in the middle.
pub const READERS: usize = 16;
