//! The switchboard: what a host shares with all attached processes besides its buffers, in one memfd.
//!
//! ```text
//!       0  head        magic, version, host id, generation         host writes
//!   4 KiB  instances   one entry a bit: its name, its buffers' epoch    host writes
//!  64 KiB  tasks       who the thread ids were                     writers write, once a thread
//! 512 KiB  words       one 64-bit word an event id                 host writes, writers read with each event
//!   1 MiB  settings    the host's own state, twice                 host writes, a successor reads
//!   2 MiB  rules       filters, triggers, pids, histograms         see `rules`; writers look where RULES is set
//! 198 MiB  cpus        which buffer is written, events refused for want of news     host writes, writers count
//! 214 MiB  formats     a log of event declarations                 host appends, a successor reads
//! ```
//!
//! **An event's word** says where the event goes. Bit i, for i below [`MAX_INSTANCES`], is set while the event is on
//! in instance i; bit 0 is the top instance. [`RULES`] is set while some instance's filters, triggers or pid lists
//! have a say in it. So a word of 0 is an event that is off, and [`TOP`] alone is the way of nearly all events.
//!
//! **Who is trusted.** Writers map it read-write, as they map the buffers: they are trusted not to switch what they
//! should not, and not with memory safety. What a successor of the host, or another process, reads here is an
//! allegation.
//!
//! The part before the formats is mapped by every process; the formats are read through the descriptor. The
//! mapping's alignment is [`WORDS_LEN`], so that a word's address says its event's id.

use crate::sync::{AtomicU32, AtomicU64};
use core::sync::atomic::Ordering;

/// Says what this is: "rtboard\0", read as a little-endian number.
pub const MAGIC: u64 = 0x0064_7261_6f62_7472;
/// The layout described here. Another number is refused.
pub const VERSION: u32 = 3;

/// Instances at once, the top one included: the bits of a word but [`RULES`].
pub const MAX_INSTANCES: usize = 63;
/// The bit of the top instance.
pub const TOP: u64 = 1;
/// Some instance has rules for the event: the writer looks before it writes.
pub const RULES: u64 = 1 << 63;

/// Byte offset of the instances' entries.
pub const INSTANCES_OFFSET: usize = 4096;
/// Byte offset of the tasks.
pub const TASKS_OFFSET: usize = 64 << 10;
/// Tasks remembered: of more threads the newest are known, as with the kernel's `saved_cmdlines`.
pub const TASKS: usize = 8192;
/// Bytes of the tasks.
pub const TASKS_LEN: usize = TASKS * size_of::<Task>();
/// Byte offset of the words.
pub const WORDS_OFFSET: usize = 512 << 10;
/// Words: one an event id.
pub const WORDS: usize = 1 << 16;
/// Bytes of the words, and the alignment of the mapping.
pub const WORDS_LEN: usize = WORDS * size_of::<u64>();
/// Byte offset of the settings.
pub const SETTINGS_OFFSET: usize = 1 << 20;
/// Bytes of each of the two copies of the settings, the length before them included.
pub const SETTINGS_LEN: usize = 512 << 10;
/// Byte offset of the rules.
pub const RULES_OFFSET: usize = 2 << 20;
/// Bytes of the rules.
pub const RULES_LEN: usize = crate::rules::LEN;
/// Bytes that every process maps: all before the formats.
pub const MAPPED_LEN: usize = FORMATS_OFFSET;
/// CPUs of an instance: the highest number that a kernel can be built for, on any architecture.
pub const MAX_CPUS: usize = 8192;
/// Byte offset of the instances' CPUs: [`MAX_CPUS`] of [`CpuWords`] an instance.
pub const CPUS_OFFSET: usize = (RULES_OFFSET + RULES_LEN).next_multiple_of(1 << 20);
/// Bytes of these.
pub const CPUS_LEN: usize = MAX_INSTANCES * MAX_CPUS * size_of::<CpuWords>();
/// Byte offset of the formats.
pub const FORMATS_OFFSET: usize = (CPUS_OFFSET + CPUS_LEN).next_multiple_of(1 << 20);
/// Bytes of the formats: all that a host takes, and their names.
pub const FORMATS_LEN: usize = 80 << 20;
/// Bytes of the memfd. Untouched pages take no memory.
pub const LEN: usize = FORMATS_OFFSET + FORMATS_LEN;

/// Longest name of an instance, in bytes: a directory's.
pub const NAME_LEN: usize = 255;

/// The head.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Head {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// One more with each instance that is made, removed, or gets other buffers.
    pub generation: AtomicU32,
    /// A random number: the host, and whoever succeeds it in this memory.
    pub host_id: [AtomicU64; 2],
    /// Bytes of the formats' log. Stored last, with Release: the entry before it is complete.
    pub formats_len: AtomicU64,
    /// Which of the two copies of the settings counts: the newer number's low bit. 0: there are none.
    pub settings: AtomicU64,
    /// The word of an event that is declared from now on: in which instances it is on at once.
    pub new_events: AtomicU64,
}

/// One instance, as attached processes and a successor see it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Entry {
    /// Counts what became of the buffers in this place: each resize, and each new set of them; 0 while there is no
    /// instance. Stored last, with Release.
    pub epoch: AtomicU64,
    /// Bytes of the name.
    pub name_len: AtomicU64,
    /// The name, in words of the machine's byte order.
    pub name: [AtomicU64; 32],
    /// How full a buffer is when readers are woken, in percent.
    pub buffer_percent: AtomicU64,
    /// Counts the sets of buffers that were in this place. Within one, each buffer follows another by a resize.
    pub lineage: AtomicU64,
    reserved: [AtomicU64; 4],
}

impl Entry {
    /// Stores a name, before the epoch that makes it count. Longer ones are cut.
    pub fn set_name(&self, name: &str) {
        let len = name.len().min(NAME_LEN);
        let mut bytes = [0; 256];
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        for (word, chunk) in self.name.iter().zip(bytes.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
        }
        self.name_len.store(len as u64, Ordering::Relaxed);
    }

    /// The name's bytes, an allegation, and their number.
    #[must_use]
    pub fn name(&self) -> ([u8; 256], usize) {
        let mut bytes = [0; 256];
        for (word, chunk) in self.name.iter().zip(bytes.as_chunks_mut::<8>().0) {
            *chunk = word.load(Ordering::Relaxed).to_le_bytes();
        }
        let len = usize::try_from(self.name_len.load(Ordering::Relaxed)).unwrap_or(0);
        (bytes, len.min(NAME_LEN))
    }
}

/// One CPU of an instance.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub struct CpuWords {
    /// Events that were refused because their process knew no buffer that takes them, or that are lost with a buffer that
    /// no host has any more.
    pub unheard: AtomicU64,
    /// A [`crate::meta::Mention`] of the buffer that is written, or was a moment ago.
    pub newest: AtomicU64,
    /// The greatest [`crate::meta::Rank::ordinal`] that a buffer was ever made with.
    pub made: AtomicU64,
    reserved: AtomicU64,
}

/// One thread.
///
/// Whoever writes it stores 0 to `ids`, then the name, then `ids` again: who finds the same `ids` before and after
/// reading the name has read what belongs together, but for two threads that write the same place at once. The
/// table is as lossy as the kernel's.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub struct Task {
    /// The thread's id in the lower half, its process's in the upper; 0 while it is no task's.
    pub ids: AtomicU64,
    /// The thread's name, padded with zeros.
    pub comm: [AtomicU64; 2],
    reserved: AtomicU64,
}

/// What a task says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskName {
    /// The thread's id.
    pub tid: u32,
    /// Its process's id.
    pub tgid: u32,
    /// Its name, padded with zeros.
    pub comm: [u8; 16],
}

/// Places in which a thread's task may be.
pub const TASK_TRIES: usize = 4;

/// The places of a thread's task, the first choice first.
pub fn task_places(tid: u32) -> impl Iterator<Item = usize> {
    let first = tid.wrapping_mul(0x9e37_79b1) >> 19;
    (0..TASK_TRIES).map(move |step| (first as usize + step) % TASKS)
}

const _: () = assert!(TASKS == 1 << (32 - 19), "the hash has as many bits");

impl Task {
    /// Makes it the task of a thread.
    pub fn store(&self, task: &TaskName) {
        let (low, high) = (&task.comm[..8], &task.comm[8..]);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        self.ids.store(0, Ordering::Relaxed);
        // S2: pairs with the fence in `load`. Who reads a part of the new name sees that the old ids are gone.
        crate::sync::fence(Ordering::Release);
        self.comm[0].store(word(low), Ordering::Relaxed);
        self.comm[1].store(word(high), Ordering::Relaxed);
        // S2: pairs with the Acquire in `load`: the name comes with its ids.
        self.ids.store(u64::from(task.tgid) << 32 | u64::from(task.tid), Ordering::Release);
    }

    /// The task here; `None` where there is none, or it changes just now.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    pub fn load(&self) -> Option<TaskName> {
        // S2: pairs with the Release in `store`.
        let ids = self.ids.load(Ordering::Acquire);
        let mut comm = [0; 16];
        for (bytes, word) in comm.as_chunks_mut::<8>().0.iter_mut().zip(&self.comm) {
            *bytes = word.load(Ordering::Relaxed).to_le_bytes();
        }
        // S2: pairs with the fence in `store`.
        crate::sync::fence(Ordering::Acquire);
        let unchanged = ids != 0 && self.ids.load(Ordering::Relaxed) == ids;
        unchanged.then_some(TaskName { tid: ids as u32, tgid: (ids >> 32) as u32, comm })
    }
}

/// Head of an entry in the formats' log; system, `\n`, name, `\n` and format follow, and zeros up to a multiple of 8.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct FormatHead {
    /// Bytes of the text.
    pub len: u32,
    /// The event's id.
    pub id: u32,
}

impl crate::control::Part for FormatHead {}

/// Bytes of an entry whose text has `len` bytes.
#[must_use]
pub const fn format_entry_len(len: usize) -> usize {
    size_of::<FormatHead>() + len.next_multiple_of(8)
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Head>() <= INSTANCES_OFFSET);
    assert!(size_of::<Entry>() == 320 && size_of::<Task>() == 32 && size_of::<CpuWords>() == 32);
    assert!(INSTANCES_OFFSET + MAX_INSTANCES * size_of::<Entry>() <= TASKS_OFFSET);
    assert!(TASKS_OFFSET + TASKS_LEN <= WORDS_OFFSET && TASKS_OFFSET.is_multiple_of(64 << 10));
    assert!(WORDS_OFFSET.is_multiple_of(WORDS_LEN) && WORDS_OFFSET + WORDS_LEN <= SETTINGS_OFFSET);
    assert!(SETTINGS_OFFSET + 2 * SETTINGS_LEN <= RULES_OFFSET);
    assert!(RULES_OFFSET + RULES_LEN <= CPUS_OFFSET);
    assert!(CPUS_OFFSET + CPUS_LEN <= FORMATS_OFFSET);
};

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> Entry {
        let zero = || AtomicU64::new(0);
        Entry {
            epoch: zero(),
            name_len: zero(),
            name: [const { AtomicU64::new(0) }; 32],
            buffer_percent: zero(),
            lineage: zero(),
            reserved: [const { AtomicU64::new(0) }; 4],
        }
    }

    proptest! {
        #[test]
        fn tasks_round_trip(tid in 1u32.., tgid: u32, comm: [u8; 16]) {
            let (place, task) = (Task::default(), TaskName { tid, tgid, comm });
            place.store(&task);
            prop_assert_eq!(place.load(), Some(task));
            prop_assert!(task_places(tid).all(|place| place < TASKS));
        }

        #[test]
        fn names_round_trip_and_any_word_is_one(name in "[a-z/ä]{0,127}", len: u64) {
            let entry = entry();
            entry.set_name(&name);
            let (bytes, read) = entry.name();
            prop_assert_eq!(&bytes[..read], name.as_bytes());
            entry.name_len.store(len, Ordering::Relaxed);
            prop_assert!(entry.name().1 <= NAME_LEN);
        }
    }

    #[test]
    fn a_place_without_a_task_has_none() {
        assert_eq!(Task::default().load(), None);
    }
}
