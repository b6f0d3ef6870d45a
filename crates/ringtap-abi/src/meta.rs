//! The meta-page: Linux's `struct trace_buffer_meta`, and ringtap's extension behind it.
//!
//! ```text
//!    0  kernel      the kernel's 80 bytes                     host writes, at GET_READER
//!   80  identity    magic, version, cpu, kind of writer       written once, before the memory is shared
//!  128  switches    recording, mode, who wants to be woken    host writes, writers read with each event
//!  192  writer      tail, lock, counters of refused events    writers write
//!  256  wake        the futex that sleepers wait on           writers write when they wake somebody
//!  320  host        which page is the reader's, and since when     host writes
//!  384  clock       clock and conversion                      host writes, once a second at most
//!  448  chain       which buffer it is of those that followed each other     host writes
//!  512  slots[]     one word a ring position                  writers claim, host consumes
//!       descs[]     one line-half a sub-buffer                writers write
//! ```
//!
//! Each party has cache lines of its own: what readers and host write is never on a line that a writer
//! touches with each event. The meta-page's rest is zero.

use crate::clock::ClockWords;
use crate::sync::{AtomicU32, AtomicU64};

/// Says that a ringtap extension follows the kernel's struct: "ringtap\0", read as a little-endian number.
pub const MAGIC: u64 = 0x0070_6174_676e_6972;
/// The layout described in this crate. Another number is refused.
pub const VERSION: u32 = 1;
/// Bytes of the kernel's own struct.
pub const KERNEL_META_LEN: usize = 80;
/// Byte offset of the `slots` array.
pub const SLOTS_OFFSET: usize = 512;
/// Alignment of the `descs` array, so that no [`Desc`] straddles two cache lines.
pub const DESCS_ALIGN: usize = 64;

/// Linux's `struct trace_buffer_meta` (6.10 and later), field for field.
#[derive(Debug, Default)]
#[repr(C)]
pub struct KernelMeta {
    /// Bytes of the meta-page, a multiple of the sub-buffer size.
    pub meta_page_size: AtomicU32,
    /// Bytes of this struct and what belongs to it; more than 80 where an extension follows.
    pub meta_struct_len: AtomicU32,
    /// Bytes of a sub-buffer.
    pub subbuf_size: AtomicU32,
    /// Sub-buffers, the reader page included.
    pub nr_subbufs: AtomicU32,
    /// `reader.lost_events`: events lost right before the reader page. Kernels up to 6.18 leave it 0.
    pub reader_lost_events: AtomicU64,
    /// `reader.id`: the sub-buffer that is the reader page.
    pub reader_id: AtomicU32,
    /// `reader.read`: bytes of the reader page that were handed out.
    pub reader_read: AtomicU32,
    /// No flag is defined.
    pub flags: AtomicU64,
    /// Events ever written, since the last reset.
    pub entries: AtomicU64,
    /// Events overwritten before they were read.
    pub overrun: AtomicU64,
    /// Events read.
    pub read: AtomicU64,
    /// `Reserved1`, later `pages_lost`. Left 0, as 6.18 does.
    pub pages_lost: AtomicU64,
    /// `Reserved2`, later `pages_touched`. Left 0, as 6.18 does.
    pub pages_touched: AtomicU64,
}

/// What kind of buffer this is; constant once the memory is shared.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Identity {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// The CPU whose ring this is.
    pub cpu: AtomicU32,
    /// A [`WriterKind`].
    pub writer_kind: AtomicU32,
    reserved: [AtomicU32; 7],
}

/// How writers exclude each other; decided by the host per buffer, when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WriterKind {
    /// Restartable sequences: the CPU is the mutex. Whoever cannot use them takes the lock, pinned.
    Rseq = 1,
    /// Everybody takes the lock.
    Locked = 2,
}

impl WriterKind {
    /// The kind of this number in the meta-page.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Rseq),
            2 => Some(Self::Locked),
            _ => None,
        }
    }
}

/// Bits of [`Switches::state`].
pub mod state {
    /// Recording is off: events are refused and not counted, as in the kernel.
    pub const OFF: u32 = 1 << 0;
    /// Discard mode: a full ring refuses events (the kernel's `overwrite=0`).
    pub const DISCARD: u32 = 1 << 1;
    /// An absolute time stamp stands before each event (the kernel's `timestamp_mode` absolute).
    pub const ABSOLUTE: u32 = 1 << 2;
    /// The memory was replaced by a resize: writers and readers move on.
    pub const RETIRED: u32 = 1 << 3;
    /// The sub-buffers' memory was given back to the kernel: what is read there is nothing.
    pub const GONE: u32 = 1 << 4;
}

/// What writers look at with each event and only the host changes.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Switches {
    /// Bits of [`state`].
    pub state: AtomicU32,
    /// How many sleepers want to be woken by the next event, whatever it is.
    pub wake_any: AtomicU32,
    /// The lowest ring position whose turn wakes a sleeper; `u64::MAX` when there is none.
    pub wake_at: AtomicU64,
}

/// The writers' own line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct WriterWords {
    /// A [`crate::words::Place`]: the sub-buffer being written.
    pub tail: AtomicU64,
    /// Owner of the locked writer's lock; 0 when free. Restartable sections compare it with 0.
    pub lock: AtomicU64,
    /// Events refused because the ring was full, in discard mode.
    pub dropped: AtomicU64,
    /// Events refused because the lock's owner could not be waited for: shown as `commit overrun`.
    pub refused: AtomicU64,
    /// Last value handed out by the `counter` clock.
    pub counter: AtomicU64,
}

/// What writers touch only when they wake somebody.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct WakeWords {
    /// The futex: one more with each wake-up.
    pub wakes: AtomicU32,
}

/// What the host remembers, so that a cursor finds the reader page and a new host can take over.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct HostWords {
    /// A [`crate::words::Place`]: the reader page and the position it held; position 0 while none.
    pub reader: AtomicU64,
    /// Index of the first event not yet handed to the consuming reader, lost ones included.
    pub next_index: AtomicU64,
    /// Index of the first event since the last reset.
    pub base_index: AtomicU64,
    /// Events handed to the consuming reader since the last reset.
    pub read: AtomicU64,
    /// Data bytes handed to the consuming reader since the last reset.
    pub read_bytes: AtomicU64,
    /// How often all sleepers were sent away without anything to read.
    pub kicks: AtomicU32,
    reserved: u32,
    /// Events ever written to the buffers that this one replaced: the place of its event 0 in the trace.
    pub origin: AtomicU64,
}

/// One sub-buffer as its writers see it.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub struct Desc {
    /// A [`crate::words::Commit`]. Stored last, with Release: the commit.
    pub w: AtomicU64,
    /// Times: the one of `w`'s parity is the last event's; the other is the next one's to fill.
    pub stamp: [AtomicU64; 2],
    /// Index, counted from the start of the trace, of the page's first event. It grows with each use of the
    /// page, so it also tells a cursor that the page it copied is still the one it looked up.
    pub first: AtomicU64,
}

/// Which buffer this is of those that followed each other in one CPU's place, and what was counted in those that are no
/// more: what a new host cannot find out from the buffers that processes still have.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct ChainWords {
    /// A [`Rank`].
    pub rank: AtomicU64,
    /// 1 once all buffers before this one were read or given up, and the next four words say what was counted in them.
    /// Stored behind those, with Release.
    pub is_first: AtomicU64,
    /// Events of the buffers before this one that were overwritten, or given up.
    pub overrun: AtomicU64,
    /// Events of the buffers before this one that were read.
    pub read: AtomicU64,
    /// Events of the buffers before this one that a full ring refused.
    pub dropped: AtomicU64,
    /// Events of the buffers before this one that could not wait for the lock.
    pub refused: AtomicU64,
    /// [`Rank::ordinal`] of the buffer that follows this one. Stored before this one is retired: writers go to that one, or to
    /// one behind it, and to no other. 0: none does.
    pub next: AtomicU64,
    /// 1 once this one was given up, since no host has it any more, and what is lost with it was counted.
    pub is_given_up: AtomicU64,
}

/// Tells a CPU's buffers apart and puts them in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The set of buffers that it belongs to: what [`lineage_of`](Self::lineage_of) makes of the switchboard's count.
    pub lineage: u32,
    /// The later a buffer was made, the greater. No two buffers ever made for a CPU of an instance have the same, also
    /// where one was announced by a host that died, and never used; none has 0.
    pub ordinal: u32,
}

impl Rank {
    /// What buffers keep of [`crate::switchboard::Entry::lineage`]: its low half.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what buffers keep")]
    pub const fn lineage_of(sets: u64) -> u32 {
        sets as u32
    }

    /// From the shared word.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    pub const fn unpack(word: u64) -> Self {
        Self { lineage: (word >> 32) as u32, ordinal: word as u32 }
    }

    /// To the shared word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.lineage as u64) << 32 | self.ordinal as u64
    }
}

/// The meta-page without its arrays.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct MetaPage {
    /// The kernel's struct.
    pub kernel: KernelMeta,
    /// What kind of buffer this is.
    pub identity: Identity,
    /// Recording, mode, wake-ups.
    pub switches: Switches,
    /// Tail and lock.
    pub writer: WriterWords,
    /// The futex.
    pub wake: WakeWords,
    /// The host's memory.
    pub host: HostWords,
    /// The clock.
    pub clock: ClockWords,
    /// Its place among the buffers that followed each other.
    pub chain: ChainWords,
}

#[cfg(not(loom))]
const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<KernelMeta>() == KERNEL_META_LEN);
    assert!(offset_of!(KernelMeta, reader_lost_events) == 16);
    assert!(offset_of!(KernelMeta, reader_id) == 24);
    assert!(offset_of!(KernelMeta, flags) == 32);
    assert!(offset_of!(KernelMeta, pages_touched) == 72);
    assert!(offset_of!(MetaPage, identity) == KERNEL_META_LEN);
    assert!(offset_of!(MetaPage, switches) == 128);
    assert!(offset_of!(MetaPage, writer) == 192);
    assert!(offset_of!(MetaPage, wake) == 256);
    assert!(offset_of!(MetaPage, host) == 320);
    assert!(offset_of!(MetaPage, clock) == 384);
    assert!(offset_of!(MetaPage, chain) == 448);
    assert!(size_of::<MetaPage>() <= SLOTS_OFFSET);
    assert!(size_of::<Desc>() == 32 && DESCS_ALIGN.is_multiple_of(size_of::<Desc>()));
};
