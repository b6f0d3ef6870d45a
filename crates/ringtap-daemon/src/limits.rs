//! What the tree grants to its users, and why so much.

/// Named instances at a time: each has a bit in the word that tells writers where an event is on, beside the top one's.
pub const INSTANCES: usize = 62;

/// Bytes that one write to a control file may have: the kernel takes a page of text.
pub const WRITE_LEN: usize = 4096;

/// Entries that `error_log` keeps, as the kernel does.
pub const ERRORS: usize = 8;
