//! What the tree grants to its users, and why so much.

/// Bytes that one write to a control file may have: the kernel takes a page of text.
pub const WRITE_LEN: usize = 4096;

/// Entries that `error_log` keeps, as the kernel does.
pub const ERRORS: usize = 8;

/// Files that are being read over the socket: each may hold a trace's cursors, and more than a few at a time are readers
/// who went away in the middle.
pub const READERS: usize = 16;

/// Filters and triggers that an instance keeps for events that are yet to be declared: each declaration is compared with
/// all.
pub const KEPT_RULES: usize = 256;

/// Bytes that one read of an event's text makes: as many as others wait for in good grace, who are served behind it. The
/// kernel makes a page at a time.
pub const TEXT_LEN: usize = 16 << 10;

/// Threads for what takes long: so that a resize does not wait for a snapshot. More would make nothing faster.
pub const SLOW_THREADS: usize = 2;
