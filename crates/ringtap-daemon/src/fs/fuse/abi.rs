//! The messages of `/dev/fuse`, with the names and sizes of the kernel's `include/uapi/linux/fuse.h` (version 7.40
//! and those before it that lack only the last fields).
//!
//! The kernel writes requests and reads answers in the byte order of the machine; every field is fixed in width.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's version.
pub(crate) const MAJOR: u32 = 7;
/// The newest minor version that this server knows.
pub(crate) const MINOR: u32 = 40;
/// The oldest that it speaks: since then answers have the sizes below (Linux 4.2).
pub(crate) const OLDEST_MINOR: u32 = 23;

/// What a request asks.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const POLL: u32 = 40;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const TMPFILE: u32 = 51;
}

/// What the server tells without being asked; stands where an answer has its error.
pub(crate) mod notify {
    pub(crate) const POLL: i32 = 1;
    pub(crate) const INVAL_INODE: i32 = 2;
    pub(crate) const STORE: i32 = 4;
}

/// Bits of `InitIn::flags` and `InitOut::flags`, with those of `flags2` above them.
pub(crate) mod init {
    pub(crate) const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub(crate) const BIG_WRITES: u64 = 1 << 5;
    pub(crate) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(crate) const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    pub(crate) const PASSTHROUGH: u64 = 1 << 37;
}

/// Bits of `OpenOut::open_flags`.
pub(crate) mod fopen {
    pub(crate) const DIRECT_IO: u32 = 1;
    pub(crate) const NONSEEKABLE: u32 = 1 << 2;
    pub(crate) const NOFLUSH: u32 = 1 << 5;
    pub(crate) const PASSTHROUGH: u32 = 1 << 7;
}

/// `FATTR_*`: what a SETATTR sets.
pub(crate) mod fattr {
    pub(crate) const MODE: u32 = 1;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
}

/// `FUSE_POLL_SCHEDULE_NOTIFY`.
pub(crate) const POLL_SCHEDULE_NOTIFY: u32 = 1;

macro_rules! messages {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $kind:ty),* $(,)? } $size:literal)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $kind),* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

messages! {
    /// Begins each request.
    struct InHeader {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16,
    } 40
    /// Begins each answer. `error` is 0 or a negative errno.
    struct OutHeader { len: u32, error: i32, unique: u64 } 16
    struct Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32,
        blksize: u32, flags: u32,
    } 88
    struct EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32,
        attr: Attr,
    } 128
    struct AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr } 104
    struct ForgetIn { nlookup: u64 } 8
    struct ForgetOne { nodeid: u64, nlookup: u64 } 16
    struct BatchForgetIn { count: u32, dummy: u32 } 8
    struct MkdirIn { mode: u32, umask: u32 } 8
    struct SetattrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    } 88
    struct OpenIn { flags: u32, open_flags: u32 } 8
    struct OpenOut { fh: u64, open_flags: u32, backing_id: i32 } 16
    struct ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 } 24
    struct ReadIn {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    } 40
    struct WriteIn {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    } 40
    struct WriteOut { size: u32, padding: u32 } 8
    struct StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    } 80
    /// Only the fields that every kernel sends; newer ones send more behind them.
    struct InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32 } 16
    struct InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        unused: [u32; 6],
    } 64
    struct InterruptIn { unique: u64 } 8
    struct IoctlIn { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 } 32
    struct IoctlOut { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 } 16
    struct PollIn { fh: u64, kh: u64, flags: u32, events: u32 } 24
    struct PollOut { revents: u32, padding: u32 } 8
    struct PollWakeup { kh: u64 } 8
    struct InvalInode { ino: u64, off: i64, len: i64 } 24
    struct Store { nodeid: u64, offset: u64, size: u32, padding: u32 } 24
    /// A directory's entry, its name behind it; the next begins at a multiple of 8.
    struct Dirent { ino: u64, off: u64, namelen: u32, kind: u32 } 24
}
