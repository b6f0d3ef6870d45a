//! Sub-buffers as they are: for who hands a buffer on as a file, such as the server of a `trace_pipe_raw`.
//!
//! Such a server has many sleepers and one thread for them: it [watches](Watch) any number of buffers in one wait.

use crate::host::{Claim, Host, HostError};
use crate::ring::{Corrupt, Ring};
use crate::wake::{self, NAP};
use ringtap_abi::{Geometry, SubbufId};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::thread::futex::{self, Wait, WaitFlags, WaitPtr, WaitvFlags};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

/// The consuming reader of a buffer, a sub-buffer at a time. There is one consuming reader of a buffer at a time.
#[derive(Debug)]
pub struct SubbufReader {
    host: Host,
    claim: Claim,
}

/// The sub-buffer that belongs to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderPage {
    /// Which one.
    pub id: u32,
    /// Data bytes handed out of it.
    pub read: u32,
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
        Ok(SubbufReader { host: self.clone(), claim: self.claim(cpu, std::process::id())? })
    }

    /// The memory of a CPU's buffer, as a descriptor that can be mapped read-only and nothing else.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`].
    pub fn memory(&self, cpu: u32) -> Result<Arc<OwnedFd>, HostError> {
        self.read_only(cpu)
    }

    /// Bytes of a sub-buffer.
    #[must_use]
    pub fn subbuf_size(&self) -> u32 {
        self.geometry().subbuf_size()
    }

    /// Sub-buffers of each buffer, the reader page included.
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
        self.mapping(0).expect("every host has a buffer of CPU 0").geometry()
    }
}

impl SubbufReader {
    /// Hands out what is new: the kernel's `TRACE_MMAP_IOCTL_GET_READER`. The results are on the meta-page.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn get_reader(&self) -> Result<(), HostError> {
        self.host.get_reader(self.claim.cpu())
    }

    /// The reader page, as the last [`get_reader`](Self::get_reader) left it.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn page(&self) -> Result<ReaderPage, HostError> {
        let mapping = self.host.mapping(self.claim.cpu())?;
        let (ring, geometry) = (mapping.ring(), mapping.geometry());
        let meta = &ring.meta().kernel;
        let id = meta.reader_id.load(Acquire);
        let read = meta.reader_read.load(Acquire);
        let page = u16::try_from(id).map(SubbufId).ok().filter(|&page| geometry.contains(page));
        let page = page.filter(|_| read <= geometry.capacity());
        let page = page.ok_or(HostError::Damaged(self.claim.cpu()))?;
        Ok(ReaderPage {
            id,
            read,
            lost: meta.reader_lost_events.load(Relaxed),
            offset: geometry.subbuf_offset(page) as u64,
            time_stamp: ring.data().header(page).time_stamp.load(Relaxed),
        })
    }

    /// Whether nothing more will be written on the reader page until it is given back.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn is_final(&self) -> Result<bool, HostError> {
        self.look(|ring| Ok(!self.host.holds_tail(self.claim.cpu(), ring)?))
    }

    /// Data bytes on the reader page that were not handed out.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn unread(&self) -> Result<u32, HostError> {
        self.look(|ring| self.host.unread_on_page(self.claim.cpu(), ring))
    }

    /// Full sub-buffers that wait behind the reader page.
    ///
    /// # Errors
    /// [`HostError::Damaged`].
    pub fn full_subbufs(&self) -> Result<u64, HostError> {
        self.look(|ring| self.host.dirty(self.claim.cpu(), ring))
    }

    /// The memory that the pages lie in, as a descriptor that can be read and mapped, and nothing else.
    ///
    /// # Panics
    /// Never: a claim is on a buffer that exists.
    #[must_use]
    pub fn memory(&self) -> Arc<OwnedFd> {
        self.host.read_only(self.claim.cpu()).expect("claimed")
    }

    /// The host whose buffer it is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    fn look<T>(&self, look: impl FnOnce(&Ring<'_>) -> Result<T, Corrupt>) -> Result<T, HostError> {
        let cpu = self.claim.cpu();
        look(&self.host.mapping(cpu)?.ring()).map_err(|Corrupt| HostError::Damaged(cpu))
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
