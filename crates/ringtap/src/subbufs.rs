//! Sub-buffers as they are: for who hands a buffer on as a file, such as the server of a `trace_pipe_raw`.
//!
//! Such a server has many sleepers and one thread for them: it [watches](Watch) any number of buffers in one wait.

use crate::host::{Buffer, Claim, Host, HostError};
use crate::ring::swap::{Handed, Reader as Swapper};
use crate::ring::{Corrupt, Ring, retire, watermark};
use crate::stats::Stats;
use crate::wake::{self, NAP};
use ringtap_abi::meta::{KernelMeta, state};
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};
use ringtap_abi::{Geometry, SubbufId};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::thread::futex::{self, Wait, WaitFlags, WaitPtr, WaitvFlags};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The consuming reader of a buffer, a sub-buffer at a time. There is one consuming reader of a buffer at a time.
///
/// Behind the end of memory that was replaced it goes on in what replaced it.
#[derive(Debug)]
pub struct SubbufReader {
    host: Host,
    claim: Claim,
    place: Mutex<Place>,
}

/// Where a reader of sub-buffers is.
#[derive(Clone, Debug)]
struct Place {
    /// The buffer that it was told of: all that it looks at is in this one.
    buffer: Arc<Buffer>,
    /// Events lost between this buffer and the page before it, while they are not told.
    missed: u64,
    /// The same of the present page, which follows them.
    lost: u64,
}

/// Buffers that one call goes through to one with something new.
const REPLACEMENTS: u32 = 64;

/// The sub-buffer that belongs to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderPage {
    /// Which one.
    pub id: u32,
    /// Data bytes handed out of it.
    pub read: u32,
    /// How many of these its meta-page says were read: fewer, where who asked for them has not
    /// [passed them on](SubbufReader::pass_on).
    pub passed_on: u32,
    /// Events lost right before it.
    pub lost: u64,
    /// Where it begins in the [memory](SubbufReader::memory), in bytes.
    pub offset: u64,
    /// Its time stamp, by which it differs from what the same sub-buffer held before.
    pub time_stamp: u64,
}

impl Host {
    /// The consuming reader of a CPU's buffer, as sub-buffers.
    ///
    /// # Errors
    /// [`HostError::Claimed`] while there is another consuming reader, [`HostError::NoSuchCpu`].
    pub fn subbufs(&self, cpu: u32) -> Result<SubbufReader, HostError> {
        let claim = self.claim(cpu, std::process::id())?;
        let place = Place { buffer: self.lane(cpu)?.chain().tell(), missed: 0, lost: 0 };
        Ok(SubbufReader { host: self.clone(), claim, place: Mutex::new(place) })
    }

    /// The memory of a CPU's buffer, as a descriptor that can be mapped read-only and nothing else.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`].
    pub fn memory(&self, cpu: u32) -> Result<Arc<OwnedFd>, HostError> {
        self.read_only(cpu)
    }

    /// Bytes of a sub-buffer, in the buffers that are written: those that they replaced may have had others.
    #[must_use]
    pub fn subbuf_size(&self) -> u32 {
        self.geometry().subbuf_size()
    }

    /// Sub-buffers of each buffer that is written, the reader page included.
    #[must_use]
    pub fn nr_subbufs(&self) -> u32 {
        self.geometry().nr_subbufs()
    }

    /// Watches a CPU's buffer.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`].
    pub fn watch(&self, cpu: u32) -> Result<Watch, HostError> {
        self.mapping(cpu)?;
        Ok(Watch { host: self.clone(), cpu })
    }

    /// Whether these are handles of the same buffers.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.address(), other.address())
    }

    fn geometry(&self) -> Geometry {
        self.lane(0).expect("every host has a buffer of CPU 0").newest().mapping().geometry()
    }
}

impl SubbufReader {
    /// Hands out what is new: the kernel's `TRACE_MMAP_IOCTL_GET_READER`. The results are on the meta-page.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn get_reader(&self) -> Result<(), HostError> {
        for _ in 0..REPLACEMENTS {
            // Before the look: what it does not find then never comes.
            let was_retired = self.look(|ring, _| retire::is_retired(ring))?;
            match self.host.get_reader_page(self.claim.cpu())? {
                Handed::Nothing if was_retired => {
                    if !self.follow()? {
                        return Ok(());
                    }
                }
                Handed::Nothing | Handed::More => return Ok(()),
                Handed::Page => {
                    let mut place = self.place();
                    place.lost = std::mem::take(&mut place.missed);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Goes on in the buffer that replaced this one; whether there is any.
    fn follow(&self) -> Result<bool, HostError> {
        let next = self.host.lane(self.claim.cpu())?.chain().tell();
        let mut place = self.place();
        if Arc::ptr_eq(&next, &place.buffer) {
            return Ok(false);
        }
        let ends = |buffer: &Buffer| {
            let host = &buffer.mapping().ring().meta().host;
            // Relaxed: the host wrote both under locks that we have held since.
            (host.origin.load(Relaxed), host.next_index.load(Relaxed))
        };
        let ((origin, read), (end, _)) = (ends(&place.buffer), ends(&next));
        place.missed = place.missed.wrapping_add(end.wrapping_sub(origin.wrapping_add(read)));
        (place.buffer, place.lost) = (next, 0);
        Ok(true)
    }

    /// Its changes are complete or absent.
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader page, as the last [`get_reader`](Self::get_reader) left it.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn page(&self) -> Result<ReaderPage, HostError> {
        let Place { buffer, lost, .. } = self.place().clone();
        let (ring, geometry) = (buffer.mapping().ring(), buffer.mapping().geometry());
        let meta = &ring.meta().kernel;
        let id = meta.reader_id.load(Acquire);
        let passed_on = meta.reader_read.load(Acquire);
        let read = buffer.reader().handed_bytes();
        let page = checked(id, geometry).filter(|_| passed_on <= read);
        let page = page.ok_or(HostError::Damaged(self.claim.cpu()))?;
        Ok(ReaderPage {
            id,
            read,
            passed_on,
            lost: meta.reader_lost_events.load(Relaxed).saturating_add(lost),
            offset: geometry.subbuf_offset(page) as u64,
            time_stamp: ring.data().header(page).time_stamp.load(Relaxed),
        })
    }

    /// Says on the meta-page that this many data bytes of the reader page were read: those behind them are for whoever
    /// maps the buffer next.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn pass_on(&self, bytes: u32) -> Result<(), HostError> {
        self.look(|ring, _| {
            ring.meta().kernel.reader_read.store(bytes, Release);
            Ok(())
        })
    }

    /// Whether the pages lie in this memory.
    #[must_use]
    pub fn is_in(&self, frame: &Frame) -> bool {
        Arc::ptr_eq(&self.place().buffer, &frame.buffer)
    }

    /// Whether nothing more will be written on the reader page until it is given back.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn is_final(&self) -> Result<bool, HostError> {
        self.look(|ring, reader| {
            let tail = ring.tail()?;
            Ok(tail.is_retired() || !reader.holds(tail))
        })
    }

    /// Data bytes on the reader page that were not handed out.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn unread(&self) -> Result<u32, HostError> {
        self.look(|ring, reader| Ok(reader.unread_on_page(ring)?.bytes))
    }

    /// Whether a sub-buffer behind the reader page has no writers any more, or other memory is to be read.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn has_full(&self) -> Result<bool, HostError> {
        self.look(|ring, reader| Ok(retire::is_retired(ring)? || watermark::dirty(ring, reader)? > 0))
    }

    /// Bytes of a sub-buffer of the memory that the pages lie in.
    #[must_use]
    pub fn subbuf_size(&self) -> u32 {
        self.place().buffer.mapping().geometry().subbuf_size()
    }

    /// The memory that the pages lie in, as a descriptor that can be read and mapped, and nothing else: the same until the
    /// next [`get_reader`](Self::get_reader).
    #[must_use]
    pub fn memory(&self) -> Arc<OwnedFd> {
        self.place().buffer.memory()
    }

    /// The host whose buffer it is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    fn look<T>(&self, look: impl FnOnce(&Ring<'_>, &Swapper) -> Result<T, Corrupt>) -> Result<T, HostError> {
        let buffer = Arc::clone(&self.place().buffer);
        let reader = buffer.reader();
        look(&buffer.mapping().ring(), &reader).map_err(|Corrupt| buffer.damaged())
    }
}

fn checked(id: u32, geometry: Geometry) -> Option<SubbufId> {
    u16::try_from(id).map(SubbufId).ok().filter(|&page| geometry.contains(page))
}

/// A buffer's memory as somebody opened it, who may map it when other memory has taken its place. Nobody writes there
/// then, so that what is read of the other one can be shown on it, as if it had stayed.
#[derive(Clone, Debug)]
pub struct Frame {
    buffer: Arc<Buffer>,
}

impl Host {
    /// The memory of a CPU's buffer that is read now.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`].
    pub fn frame(&self, cpu: u32) -> Result<Frame, HostError> {
        Ok(Frame { buffer: self.lane(cpu)?.front() })
    }
}

impl Frame {
    /// As a descriptor that can be mapped read-only and nothing else.
    #[must_use]
    pub fn memory(&self) -> Arc<OwnedFd> {
        self.buffer.memory()
    }

    /// Whether it lies in huge pages, of a persistent buffer's file on a hugetlbfs: then the kernel maps whole ones of them alone, and
    /// no sub-buffers.
    #[must_use]
    pub fn is_huge(&self) -> bool {
        self.buffer.mapping().is_huge()
    }

    /// Bytes of a sub-buffer.
    #[must_use]
    pub fn subbuf_size(&self) -> u32 {
        self.buffer.mapping().geometry().subbuf_size()
    }

    /// What the meta-page says of the reader page: its number, and the data bytes read of it.
    #[must_use]
    pub fn reader(&self) -> (u32, u32) {
        let meta = self.meta();
        (meta.reader_id.load(Acquire), meta.reader_read.load(Acquire))
    }

    fn meta(&self) -> &KernelMeta {
        &self.buffer.mapping().ring().meta().kernel
    }

    /// Makes `subbuf` the reader page, all of it read, and `stats` the counters. To be called where other memory is read;
    /// what does not fit in a sub-buffer of this one is not shown.
    ///
    /// # Errors
    /// [`HostError::Busy`] where the memory is still written to, [`HostError::Damaged`].
    pub fn show(&self, subbuf: &[u8], stats: &Stats) -> Result<(), HostError> {
        let (ring, geometry) = (self.buffer.mapping().ring(), self.buffer.mapping().geometry());
        let damaged = || HostError::Damaged(self.buffer.cpu());
        if !retire::is_retired(&ring).map_err(|Corrupt| damaged())? {
            if ring.meta().switches.state.load(Relaxed) & state::RETIRED == 0 {
                return Err(HostError::Busy(self.buffer.cpu()));
            }
            // All of the instance's were replaced, which writers see at their next look.
            self.buffer.retire()?;
        }
        // Cursors that have not read the old ring to its end find it gone, as when its memory was given back.
        ring.meta().switches.state.fetch_or(state::GONE, SeqCst);
        let words: Vec<u64> = subbuf
            .chunks_exact(8)
            .take(geometry.subbuf_size() as usize / 8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect();
        let [time_stamp, commit, data @ ..] = words.as_slice() else { return Err(damaged()) };
        let said = PageCommit::unpack(*commit);
        let len = said.len().min(geometry.capacity());
        // Their number stands behind the events, where there is room.
        let lost = subbuf.get((HEADER_LEN + len) as usize..).and_then(|behind| behind.first_chunk());
        let lost = lost.filter(|_| said.is_missed_stored()).map_or(0, |lost| u64::from_le_bytes(*lost));
        let mut commit = PageCommit::new(len);
        if said.is_missed() {
            commit = commit.with_missed(said.is_missed_stored() && len + 8 <= geometry.capacity());
        }
        let page = checked((self.reader().0 + 1) % geometry.nr_subbufs(), geometry).ok_or_else(damaged)?;
        for (at, &word) in (HEADER_LEN..).step_by(8).zip(data) {
            ring.data().store_u64(page, at, word);
        }
        ring.data().header(page).time_stamp.store(*time_stamp, Relaxed);
        ring.data().header(page).commit.store(commit.pack(), Release);
        let meta = self.meta();
        meta.reader_lost_events.store(lost, Relaxed);
        meta.reader_read.store(len, Relaxed);
        meta.reader_id.store(page.0.into(), Release);
        self.count(stats);
        Ok(())
    }

    /// Makes `stats` the counters on the meta-page.
    pub fn count(&self, stats: &Stats) {
        let meta = self.meta();
        meta.entries.store(stats.written(), Relaxed);
        meta.overrun.store(stats.overrun, Relaxed);
        meta.read.store(stats.read_events, Release);
    }
}

/// One buffer, as something to wait for.
#[derive(Clone, Debug)]
pub struct Watch {
    host: Host,
    cpu: u32,
}

/// How often a buffer's sleepers were woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(u32);

impl Watch {
    /// Whether the buffer is `percent` full; where it is not, its writers wake sleepers when it may be.
    ///
    /// # Errors
    /// [`HostError::Percent`], [`HostError::Damaged`].
    pub fn arm(&self, percent: u8) -> Result<bool, HostError> {
        self.host.calibrate();
        self.host.arm(self.cpu, percent)
    }

    /// What to sleep on. To be asked before [`arm`](Self::arm).
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen(self.ring(wake::wakes))
    }

    /// How often all sleepers were sent away: by [`Host::wake_all`], and when recording was switched off.
    #[must_use]
    pub fn kicks(&self) -> u32 {
        self.ring(|ring| ring.meta().host.kicks.load(Acquire))
    }

    fn ring<T>(&self, look: impl FnOnce(&Ring<'_>) -> T) -> T {
        look(&self.host.mapping(self.cpu).expect("checked when the watch was made").ring())
    }
}

/// Ends a [`sleep`] from another thread.
#[derive(Debug, Default)]
pub struct Bell(AtomicU32);

impl Bell {
    /// What to sleep on.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen(self.0.load(Acquire))
    }

    /// Ends the sleep of all who asked for [`seen`](Self::seen) before.
    pub fn ring(&self) {
        self.0.fetch_add(1, Release);
        // The word is valid; nothing else can go wrong.
        let _ = futex::wake(&self.0, futex::Flags::PRIVATE, u32::MAX);
    }
}

/// Futexes that the kernel waits for in one call, the bell's included.
const MAX_WAITS: usize = 128;

/// Sleeps until one of these was woken since it was seen, or the bell rang, and for a tenth of a second at most
/// where there is anything to watch: a writer that dies may leave sleepers to their next look.
pub fn sleep(watches: &[(Watch, Seen)], bell: (&Bell, Seen)) {
    if watches.is_empty() {
        // Rung already, woken or interrupted: the caller looks again in each case.
        let _ = futex::wait(&bell.0.0, futex::Flags::PRIVATE, bell.1.0, None);
        return;
    }
    let word = |word: &AtomicU32, Seen(seen): Seen, flags| {
        let mut wait = Wait::new();
        wait.val = seen.into();
        wait.uaddr = WaitPtr::new(word.as_ptr().cast());
        wait.flags = WaitFlags::SIZE_U32 | flags;
        wait
    };
    let mut waits = vec![word(&bell.0.0, bell.1, WaitFlags::PRIVATE)];
    // Those for which there is no room are looked at when the nap is over.
    for (watch, seen) in watches.iter().take(MAX_WAITS - 1) {
        waits.push(watch.ring(|ring| word(&ring.meta().wake.wakes, *seen, WaitFlags::empty())));
    }
    let until = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let until = rustix::time::Timespec::try_from(NAP).map(|nap| until + nap).unwrap_or(until);
    // Woken, too late or timed out: the caller looks again in each case.
    let slept = futex::waitv(&waits, WaitvFlags::empty(), Some(&until), rustix::thread::ClockId::Monotonic);
    if slept == Err(Errno::NOSYS) {
        // Linux before 5.16: a nap is what is left.
        std::thread::sleep(Duration::from_millis(2));
    }
}
