//! Who forks, and who ends, as the kernel tells it: for lists of pids that follow forks.
//!
//! An event of perf's that counts nothing, on each thread of a list and inherited by whoever it makes, writes a record
//! when a thread is made, with the one that made it, and when one ends. No other thread's are told, and no privilege is needed to hear
//! of one's own processes.
//!
//! ```text
//!   anchor   one a CPU, on the thread that listens: its memory is mapped, and takes the records of that CPU
//!   root     a thread of a list: an event on each CPU, whose output goes to the anchors
//!   known    the roots and all whom they made, each with its root; a root's events stay open until all of these ended
//! ```
//!
//! This module exists to protect one invariant: memory that the kernel writes records to is read between the two places that
//! it names, behind an acquire of the one, and given back by a release of the other.

use super::HasRegion;
use crate::board::Board;
use crate::thread::spawn_without_signals;
use crate::unshared::Unshared;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::collections::HashMap;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that an anchor's records have room in: a thousand forks, each of which takes longer than reading it.
const RECORDS_LEN: usize = 64 << 10;

/// How long to wait for what was told.
const PATIENCE: Duration = Duration::from_secs(1);

/// Hears of forks until it is dropped.
#[derive(Debug)]
pub(crate) struct Forks {
    heard: Arc<Heard>,
}

#[derive(Debug)]
struct Heard {
    board: Arc<Board>,
    anchors: Vec<Anchor>,
    known: Mutex<Known>,
    /// Calls the thread that listens: to look, or to end.
    call: Unshared,
    is_over: AtomicBool,
    /// All that was told before this time is carried out. CLOCK_MONOTONIC, in nanoseconds.
    settled: Mutex<u64>,
    has_settled: Condvar,
}

impl Drop for Forks {
    fn drop(&mut self) {
        // The thread ends when it sees that. In a forked child there is none, and the descriptor is nobody's.
        self.heard.is_over.store(true, Release);
        self.heard.call();
    }
}

impl Forks {
    /// Starts to listen; nobody is followed yet.
    pub(crate) fn start(board: &Arc<Board>) -> Result<Self, Errno> {
        let board = Arc::clone(board);
        let (tell, told) = sync_channel(1);
        // The anchors are the thread's own.
        let listen = move || match Heard::new(board).map(Arc::new) {
            Ok(heard) => {
                let is_told = tell.send(Ok(Arc::clone(&heard))).is_ok();
                drop(tell);
                if is_told {
                    heard.listen();
                }
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        spawn_without_signals("ringtap-forks", listen)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        let heard = told.recv().unwrap_or(Err(Errno::AGAIN))?;
        Ok(Self { heard })
    }

    /// Follows these threads, too: those that are not there, where all others could be.
    pub(crate) fn follow(&self, threads: &[u32]) -> Result<Vec<u32>, Errno> {
        let mut known = self.heard.known();
        let mut missing = Vec::new();
        for &thread in threads {
            if known.roots.contains_key(&thread) {
                continue;
            }
            match self.heard.open(thread) {
                Ok(events) => known.begin(thread, events),
                Err(Errno::SRCH) => missing.push(thread),
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    /// Waits until all that was told before is carried out: what changes then, changes behind it.
    pub(crate) fn settle(&self) {
        let (heard, told) = (&self.heard, now());
        heard.call();
        let settled = heard.settled.lock().unwrap_or_else(PoisonError::into_inner);
        // A forked child has no thread that listens. Where that one comes to nothing for so long, so be it.
        let _ = heard.has_settled.wait_timeout_while(settled, PATIENCE, |settled| *settled <= told);
    }
}

impl Heard {
    fn new(board: Arc<Board>) -> Result<Self, Errno> {
        let call = Unshared::new(|| rustix::event::eventfd(0, EventfdFlags::CLOEXEC))?;
        let anchors =
            crate::cpus::possible().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let anchors = anchors.into_iter().map(Anchor::new);
        // One that is offline has no threads.
        let anchors =
            anchors.filter(|anchor| !matches!(anchor, Err(Errno::NODEV))).collect::<Result<_, _>>()?;
        Ok(Self {
            board,
            anchors,
            known: Mutex::default(),
            call,
            is_over: AtomicBool::new(false),
            settled: Mutex::new(0),
            has_settled: Condvar::new(),
        })
    }

    fn call(&self) {
        let _ = rustix::io::write(&self.call, &1u64.to_le_bytes());
    }

    /// All that was told before that time is carried out.
    fn settle(&self, before: u64) {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = before;
        self.has_settled.notify_all();
    }

    /// What is known. Each change is complete or absent.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the kernel tell of a thread.
    fn open(&self, thread: u32) -> Result<Vec<Unshared>, Errno> {
        let thread = i32::try_from(thread).map_err(|_| Errno::SRCH)?;
        self.anchors.iter().map(|anchor| anchor.open(thread)).collect()
    }

    /// Carries out what the kernel tells, until it is stopped.
    fn listen(&self) {
        let mut told = Vec::new();
        loop {
            let anchors = self.anchors.iter().map(|anchor| PollFd::new(&anchor.fd, PollFlags::IN));
            let mut all: Vec<_> = anchors.collect();
            all.push(PollFd::new(&self.call, PollFlags::IN));
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let _ = poll(&mut all, Some(&at_once).filter(|_| !told.is_empty()));
            if !all.last().is_none_or(|call| call.revents().is_empty()) {
                let _ = rustix::io::read(&self.call, &mut [0u8; 8]);
            }
            if self.is_over.load(Acquire) {
                return self.settle(u64::MAX);
            }
            let before = now();
            self.anchors.iter().for_each(|anchor| anchor.take(&mut told));
            // A thread that is made on one CPU may end on another. What was told before this look has been read on all of
            // them; what came during it waits for the next one.
            told.sort_by_key(|change| change.time);
            let settled = told.partition_point(|change| change.time < before);
            told.drain(..settled).for_each(|change| self.apply(&change));
            self.settle(before);
        }
    }

    fn apply(&self, change: &Change) {
        let ended = match change.what {
            What::Made { by } => {
                self.known().made(by, change.thread);
                self.board.region().forked(by, change.thread);
                None
            }
            What::Ended => {
                self.board.region().ended(change.thread);
                self.known().ended(change.thread)
            }
        };
        // Closed without the lock: the kernel may take its time.
        drop(ended);
    }
}

fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Who is followed.
#[derive(Debug, Default)]
struct Known {
    /// Each thread's root.
    roots: HashMap<u32, u32>,
    /// Each root's events, and how many threads have it.
    events: HashMap<u32, (Vec<Unshared>, usize)>,
}

impl Known {
    fn begin(&mut self, root: u32, events: Vec<Unshared>) {
        // One of the same number may be over, and some whom it made be left: these are followed on.
        let (all, threads) = self.events.entry(root).or_default();
        all.extend(events);
        *threads += 1;
        self.roots.insert(root, root);
    }

    fn made(&mut self, by: u32, thread: u32) {
        let Some(&root) = self.roots.get(&by) else { return };
        // Told twice, where it became a root before it was heard of.
        if !self.roots.contains_key(&thread)
            && let Some((_, threads)) = self.events.get_mut(&root)
        {
            *threads += 1;
            self.roots.insert(thread, root);
        }
    }

    /// The events that nobody is left for.
    fn ended(&mut self, thread: u32) -> Option<Vec<Unshared>> {
        let root = self.roots.remove(&thread)?;
        let (_, threads) = self.events.get_mut(&root)?;
        *threads -= 1;
        if *threads > 0 {
            return None;
        }
        self.events.remove(&root).map(|(events, _)| events)
    }
}

/// What the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    thread: u32,
    what: What,
    /// CLOCK_MONOTONIC, in nanoseconds.
    time: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Made { by: u32 },
    Ended,
}

/// `PERF_RECORD_EXIT`
const EXIT: u32 = 4;
/// `PERF_RECORD_FORK`
const FORK: u32 = 7;
/// A record's head {type:32, misc:16, size:16}.
const HEAD_LEN: usize = 8;

impl Change {
    /// From a record's type and what is behind its head: {pid:32, ppid:32, tid:32, ptid:32, time:64}.
    fn parse(kind: u32, body: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(*body.get(at..)?.first_chunk()?));
        let what = match kind {
            FORK => What::Made { by: number(12)? },
            EXIT => What::Ended,
            _ => return None,
        };
        let time = u64::from_le_bytes(*body.get(16..)?.first_chunk()?);
        Some(Self { thread: number(8)?, what, time })
    }
}

/// The changes in a stream of records.
fn parse_all(mut records: &[u8], mut found: impl FnMut(Change)) {
    while let Some(head) = records.first_chunk::<HEAD_LEN>() {
        let [a, b, c, d, _, _, low, high] = *head;
        let len = usize::from(u16::from_le_bytes([low, high]));
        let Some(body) = records.get(HEAD_LEN..len) else { return };
        Change::parse(u32::from_le_bytes([a, b, c, d]), body).map(&mut found);
        records = &records[len..];
    }
}

/// Where a CPU's records go.
#[derive(Debug)]
struct Anchor {
    fd: Unshared,
    cpu: u32,
    /// A page that describes what is behind it, and [`RECORDS_LEN`] bytes of records.
    memory: NonNull<u8>,
}

// SAFETY: the memory belongs to no thread.
unsafe impl Send for Anchor {}
// SAFETY: one thread takes records, and nobody else looks at the memory.
unsafe impl Sync for Anchor {}

/// Where the page says how far the kernel has written: `data_head`.
const WRITTEN: usize = 1024;
/// And where it is told how far was read: `data_tail`.
const READ: usize = 1032;

impl Anchor {
    fn new(cpu: u32) -> Result<Self, Errno> {
        let fd = Unshared::new(|| perf_event_open(Attributes::ANCHOR, 0, cpu))?;
        let len = page_size() + RECORDS_LEN;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let memory = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                0,
            )
        };
        let memory = NonNull::new(memory?.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { fd, cpu, memory })
    }

    /// Has the kernel tell here what a thread does on this CPU.
    fn open(&self, thread: i32) -> Result<Unshared, Errno> {
        /// `PERF_EVENT_IOC_SET_OUTPUT`
        const SET_OUTPUT: libc::Ioctl = 0x2405;
        let event = Unshared::new(|| perf_event_open(Attributes::FOLLOWED, thread, self.cpu))?;
        let (from, to) = (event.as_fd().as_raw_fd(), self.fd.as_fd().as_raw_fd());
        // SAFETY: takes two descriptors, and touches no memory of ours.
        let done = unsafe { libc::ioctl(from, SET_OUTPUT, to) };
        if done < 0 { Err(last_error()) } else { Ok(event) }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: both offsets lie in the first page, and are multiples of 8; any bytes are valid.
        unsafe { &*self.memory.as_ptr().wrapping_add(offset).cast::<AtomicU64>().cast_const() }
    }

    /// Takes what was written since the last time.
    fn take(&self, changes: &mut Vec<Change>) {
        // Acquire: the kernel's records are there. Relaxed: nobody else stores it.
        let (written, read) = (self.word(WRITTEN).load(Acquire), self.word(READ).load(Relaxed));
        let len = usize::try_from(written.wrapping_sub(read)).unwrap_or(0).min(RECORDS_LEN);
        let mut records = vec![0u8; len];
        #[expect(clippy::cast_possible_truncation, reason = "it is less than the length of the records")]
        let start = (read % RECORDS_LEN as u64) as usize;
        let behind = len.min(RECORDS_LEN - start);
        let data = self.memory.as_ptr().wrapping_add(page_size()).cast_const();
        // SAFETY: they lie in the mapping, and the kernel leaves them alone until `READ` says that they were read.
        unsafe { ptr::copy_nonoverlapping(data.wrapping_add(start), records.as_mut_ptr(), behind) };
        // SAFETY: likewise: those that begin again at the start.
        unsafe { ptr::copy_nonoverlapping(data, records[behind..].as_mut_ptr(), len - behind) };
        // Release: they were read before.
        self.word(READ).store(written, Release);
        parse_all(&records, |change| changes.push(change));
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        // Not in a forked child, which has no copy of the mapping: there the thread that listens is not, and keeps its
        // share of `Heard` for ever.
        // SAFETY: nobody borrows from it any more.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), page_size() + RECORDS_LEN) };
    }
}

/// `struct perf_event_attr`, as far as kernels have it that take a clock (4.1).
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    unused: [u64; 3],
    flags: u64,
    wakeup_watermark: u32,
    unused_too: [u32; 10],
    clock: i32,
}

const _: () = assert!(size_of::<Attributes>() == 96 && std::mem::offset_of!(Attributes, clock) == 92);

impl Attributes {
    /// Counts nothing in user space, where we may count: `PERF_TYPE_SOFTWARE`, `PERF_COUNT_SW_DUMMY`, `exclude_kernel`,
    /// `use_clockid`.
    const DUMMY: Self = Self {
        kind: 1,
        size: 96,
        config: 9,
        unused: [0; 3],
        flags: 1 << 5 | 1 << 25,
        wakeup_watermark: 0,
        unused_too: [0; 10],
        clock: libc::CLOCK_MONOTONIC,
    };
    /// Wakes who waits with the first byte: `watermark`.
    const ANCHOR: Self = Self { flags: Self::DUMMY.flags | 1 << 14, wakeup_watermark: 1, ..Self::DUMMY };
    /// Tells who is made and who ends, of those, too: `inherit`, `task`.
    const FOLLOWED: Self = Self { flags: Self::DUMMY.flags | 1 << 1 | 1 << 13, ..Self::DUMMY };
}

/// Opens an event on a thread (0: the calling one), on one CPU.
fn perf_event_open(attributes: Attributes, thread: i32, cpu: u32) -> Result<OwnedFd, Errno> {
    /// `PERF_FLAG_FD_CLOEXEC`
    const CLOEXEC: libc::c_ulong = 8;
    // SAFETY: the kernel reads as many bytes of the attributes as these say.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, thread, cpu, -1, CLOEXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(last_error)?;
    // SAFETY: the kernel just made it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn page_size() -> usize {
    rustix::param::page_size()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, thread: u32, by: u32, time: u64) -> Vec<u8> {
        let body = [9, 8, thread, by].into_iter().flat_map(u32::to_le_bytes);
        let head = [kind.to_le_bytes(), [0, 0, 32, 0]].concat();
        head.into_iter().chain(body).chain(time.to_le_bytes()).collect()
    }

    #[test]
    fn records_of_other_kinds_are_passed_over_and_a_torn_one_is_the_end() {
        let records = [record(FORK, 2, 1, 10), record(2, 7, 7, 11), record(EXIT, 2, 1, 12)].concat();
        let parsed = |bytes: &[u8]| {
            let mut all = Vec::new();
            parse_all(bytes, |change| all.push(change));
            all
        };
        let made = Change { thread: 2, what: What::Made { by: 1 }, time: 10 };
        let ended = Change { thread: 2, what: What::Ended, time: 12 };
        assert_eq!(parsed(&records), [made, ended]);
        for len in 0..records.len() {
            assert!([made, ended].starts_with(&parsed(&records[..len])));
        }
        assert_eq!(parsed(&[0; 64]), []);
    }

    #[test]
    fn a_roots_events_stay_until_all_whom_it_made_have_ended() {
        let mut known = Known::default();
        known.begin(1, Vec::new());
        known.made(1, 2);
        known.made(2, 3);
        // Told of both by its own root and by its parent's.
        known.made(2, 3);
        known.made(8, 9);
        assert_eq!(known.roots, HashMap::from([(1, 1), (2, 1), (3, 1)]));
        assert!(known.ended(1).is_none() && known.ended(3).is_none() && known.ended(9).is_none());
        assert!(known.ended(2).is_some() && known.events.is_empty() && known.roots.is_empty());
    }
}
