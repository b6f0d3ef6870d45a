//! The consuming reader: one mapped buffer, ringtap's or the kernel's, through the same code.
//!
//! ```text
//!   remember id and read    from the meta-page, last time
//!   GET_READER              by a call in process, a message, or the kernel's ioctl
//!   same id                 what is new lies in [read, meta.reader.read) of the same sub-buffer
//!   another id              the losses before it, then [0, meta.reader.read) of that sub-buffer
//! ```
//!
//! Records are lent where they lie, until the next is asked for. All that the shared memory says is an
//! allegation: an id or a length that cannot be true is an error, a record that cannot be true is a value in
//! the stream, and no call makes more GET_READERs than the buffer has sub-buffers, and some.

mod error;
mod kernel;
mod pages;
mod source;
mod whole;

pub use error::ReadError;
pub(crate) use source::Source;
pub use whole::{WholePage, WholePages};

use crate::attach::Connection;
use crate::clock::{self, ClockId, Conversion};
use crate::host::{Host, HostError};
use crate::record::{DataWords, Found, Item};
use crate::ring::Corrupt;
use crate::wake::Waited;
use crate::{map, wake};
use pages::{Page, Pages, Successor};
use ringtap_abi::records::Walk;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// GET_READERs that one call makes beyond the number of sub-buffers: pages without a record need a few.
const EXTRA_FETCHES: u32 = 64;

/// Reads one buffer's events and consumes them.
///
/// There is one consuming reader of a buffer at a time. [`Cursor`](crate::Cursor)s, which consume nothing, may
/// be many.
#[derive(Debug)]
pub struct Reader {
    cpu: u32,
    pages: Pages,
    source: Arc<dyn Source>,
    conversion: Conversion,
    /// How full the buffer is when a wait ends, in percent.
    percent: u8,
    /// The page being read.
    page: Page,
    walk: Walk,
    /// A record on the page was damaged: what follows on it is not read.
    skips: bool,
}

impl Reader {
    /// Reads a ringtap buffer of which only a read-only descriptor is at hand; `source` asks its host.
    pub(crate) fn of_ringtap(
        fd: BorrowedFd<'_>,
        cpu: u32,
        percent: u8,
        source: Arc<dyn Source>,
    ) -> Result<Self, ReadError> {
        let pages = Pages::of_ringtap(map::open(fd, map::Access::Read)?);
        let conversion = pages.conversion().unwrap_or(Conversion::NONE);
        Self::new(pages, cpu, percent, source, conversion)
    }

    /// Reads one of the kernel's buffers through its `per_cpu/cpuN/trace_pipe_raw`, open for reading. `clock` is
    /// the instance's `trace_clock`. How full the buffer is when a [`wait`](Self::wait) ends is set on the
    /// instance (`buffer_percent`). Sets `O_NONBLOCK` on the descriptor.
    ///
    /// # Errors
    /// [`ReadError`] says what the descriptor, the permissions or the kernel lack.
    pub fn open_kernel(fd: OwnedFd, cpu: u32, clock: ClockId) -> Result<Self, ReadError> {
        Self::open_kernel_with(fd, cpu, clock::calibrate(clock).0)
    }

    /// As [`open_kernel`](Self::open_kernel), for a clock whose conversion to nanoseconds is known already.
    ///
    /// # Errors
    /// As there.
    pub fn open_kernel_with(fd: OwnedFd, cpu: u32, conversion: Conversion) -> Result<Self, ReadError> {
        let (pipe, pages) = kernel::open(fd, cpu)?;
        Self::new(pages, cpu, 0, Arc::new(pipe), conversion)
    }

    fn new(
        pages: Pages,
        cpu: u32,
        percent: u8,
        source: Arc<dyn Source>,
        conversion: Conversion,
    ) -> Result<Self, ReadError> {
        let page = pages.page_now(cpu)?;
        let mut reader = Self {
            cpu,
            walk: Walk::new(page.time_stamp, page.read),
            pages,
            source,
            conversion,
            percent,
            page,
            skips: false,
        };
        // What was handed out before belongs to another reader; the walk over it finds the time it ended at.
        while let Ok(Some(_)) = reader.walk.next(&reader.pages.words(page.id)) {}
        Ok(reader)
    }

    /// The CPU whose buffer this is.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// How the clock's ticks become nanoseconds, as last drawn.
    #[must_use]
    pub fn conversion(&self) -> Conversion {
        self.conversion
    }

    /// The next item; `None` when there is nothing new. Never blocks. What it lends ends the item before.
    ///
    /// # Errors
    /// [`ReadError`] where the host or the kernel refuses, or the meta-page says what cannot be.
    #[inline(always)]
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        if let Some(record) = self.walk.next_small(&self.pages.words(self.page.id)) {
            return Ok(Some(self.lend(Found::Record(record))));
        }
        let found = self.advance_slowly()?;
        Ok(found.map(|found| self.lend(found)))
    }

    /// As [`next`](Self::next), of what was handed out already: `None` behind its last item. For who ends, and leaves
    /// nothing behind that was consumed and not looked at.
    pub fn next_at_hand(&mut self) -> Option<Item<'_>> {
        let record = self.walk.next(&self.pages.words(self.page.id)).ok().flatten()?;
        Some(self.lend(Found::Record(record)))
    }

    /// Finds the next item. What was found before is gone then.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<Option<Found>, ReadError> {
        match self.walk.next_small(&self.pages.words(self.page.id)) {
            Some(record) => Ok(Some(Found::Record(record))),
            None => self.advance_slowly(),
        }
    }

    #[inline(never)]
    fn advance_slowly(&mut self) -> Result<Option<Found>, ReadError> {
        match self.walk.next(&self.pages.words(self.page.id)) {
            Ok(Some(record)) => Ok(Some(Found::Record(record))),
            Ok(None) => self.fetch(),
            Err(damage) => {
                self.skips = true;
                Ok(Some(Found::Damaged(damage)))
            }
        }
    }

    /// Lends what [`advance`](Self::advance) found last.
    #[inline(always)]
    pub(crate) fn lend(&self, found: Found) -> Item<'_> {
        found.lend(self.cpu, &self.conversion, self.words())
    }

    pub(crate) fn ns(&self, ticks: u64) -> u64 {
        self.conversion.ns(ticks)
    }

    #[inline(always)]
    fn words(&self) -> DataWords<'_> {
        self.pages.words(self.page.id)
    }

    /// Asks for more until there is an item or nothing new.
    #[cold]
    fn fetch(&mut self) -> Result<Option<Found>, ReadError> {
        for _ in 0..self.pages.nr_subbufs().saturating_add(EXTRA_FETCHES) {
            // Before the host looks: what it does not find then never comes.
            let was_retired = self.pages.is_retired();
            self.source.get_reader()?;
            let mut page = self.pages.page_now(self.cpu)?;
            let lost = match self.page.follows(&page) {
                Some(0) if was_retired => match self.follow()? {
                    Some((first, lost)) => {
                        page = first;
                        lost.map(Some)
                    }
                    None => return Ok(None),
                },
                Some(0) => return Ok(None),
                Some(_) => {
                    self.walk.extend_to(page.read);
                    None
                }
                None => self.begin(&page),
            };
            self.page = page;
            if let Some(count) = lost {
                return Ok(Some(Found::Lost(count)));
            }
            if self.skips {
                self.walk.finish();
            }
            match self.walk.next(&self.pages.words(self.page.id)) {
                Ok(Some(record)) => return Ok(Some(Found::Record(record))),
                // Only padding, or nothing.
                Ok(None) => {}
                Err(damage) => {
                    self.skips = true;
                    return Ok(Some(Found::Damaged(damage)));
                }
            }
        }
        Ok(None)
    }

    /// Goes on in the memory that replaced this one, behind its end; `None` where there is none yet. Returns its first
    /// page, and how many events were lost before it.
    fn follow(&mut self) -> Result<Option<(Page, Option<u64>)>, ReadError> {
        let Some(Successor { pages, page, lost }) = self.pages.successor(self.cpu, &*self.source)? else {
            return Ok(None);
        };
        self.pages = pages;
        // Nothing was handed out there before this reader was told of it.
        self.walk = Walk::new(page.time_stamp, 0);
        self.skips = false;
        Ok(Some((page, (lost > 0).then_some(lost))))
    }

    /// Begins another page, and tells the losses before it.
    fn begin(&mut self, page: &Page) -> Option<Option<u64>> {
        self.walk = Walk::new(page.time_stamp, page.read);
        self.skips = false;
        self.conversion = self.pages.conversion().unwrap_or(self.conversion);
        self.pages.lost_before(page)
    }

    /// How full the buffer is when a [`wait`](Self::wait) ends: 0 for any event, 100 for a full buffer. On the
    /// kernel's buffers this is set on the instance.
    ///
    /// # Panics
    /// Above 100.
    pub fn set_buffer_percent(&mut self, percent: u8) {
        assert!(percent <= 100, "a buffer cannot be {percent} percent full");
        self.percent = percent;
    }

    /// Waits until the buffer is as full as its `buffer_percent` says, for `timeout` at most (`None`: for ever), or
    /// until [`Waker::wake_all`].
    ///
    /// As in the kernel, a percentage above 0 is not reached while the reader has the page being written: who
    /// follows live sets 0.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Waited, ReadError> {
        if self.has_walk() {
            return Ok(Waited::Ready);
        }
        match self.pages.ring() {
            Some(ring) => wake::wait(&ring, timeout, || self.source.arm(self.percent)),
            None => self.source.sleep(timeout),
        }
    }

    /// Whether there is more on the page that was handed out.
    fn has_walk(&self) -> bool {
        let mut ahead = self.walk;
        !matches!(ahead.next(&self.words()), Ok(None))
    }

    /// Whether [`next`](Self::next) has something to look at. Asks nobody for a wake-up.
    pub(crate) fn has_more(&self) -> Result<bool, ReadError> {
        if self.has_walk() {
            return Ok(true);
        }
        let Some(ring) = self.pages.ring() else { return self.source.arm(0) };
        let written = ring.written().map_err(|Corrupt| HostError::Damaged(self.cpu))?;
        // Relaxed: this reader's own GET_READERs wrote it.
        Ok(ring.meta().host.next_index.load(Relaxed) != written)
    }

    /// Sends away whoever waits on this buffer, from any thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker { source: Arc::clone(&self.source) }
    }

    /// As [`Waker::wake_all`].
    ///
    /// # Errors
    /// As there.
    pub fn wake_all(&self) -> Result<(), ReadError> {
        self.source.wake_all()
    }
}

/// Ends waits on a buffer.
#[derive(Clone, Debug)]
pub struct Waker {
    source: Arc<dyn Source>,
}

impl Waker {
    /// Sends away all who wait on the buffer now. A wait on a kernel's buffer that begins later may be ended too,
    /// where none was under way.
    ///
    /// # Errors
    /// The host or the kernel cannot be asked.
    pub fn wake_all(&self) -> Result<(), ReadError> {
        self.source.wake_all()
    }
}

impl Host {
    /// The consuming reader of a CPU's buffer.
    ///
    /// # Errors
    /// [`HostError::Claimed`](crate::HostError::Claimed) while there is another one; [`ReadError`] where the buffer
    /// cannot be mapped.
    pub fn reader(&self, cpu: u32) -> Result<Reader, ReadError> {
        let source = Arc::new(source::InProcess::new(self, cpu)?);
        Reader::of_ringtap(self.memory_for_consumer(cpu)?.as_fd(), cpu, self.buffer_percent(), source)
    }

    /// The consuming readers of all CPUs' buffers.
    ///
    /// # Errors
    /// As [`reader`](Self::reader).
    pub fn readers(&self) -> Result<Vec<Reader>, ReadError> {
        self.cpus().into_iter().map(|cpu| self.reader(cpu)).collect()
    }
}

impl Connection {
    /// The consuming reader of a CPU's buffer.
    ///
    /// # Errors
    /// [`AttachError::is_busy`](crate::attach::AttachError::is_busy) while there is another one; [`ReadError`] where the buffer cannot be mapped.
    pub fn reader(self: &Arc<Self>, cpu: u32) -> Result<Reader, ReadError> {
        let source = Arc::new(self.consume(cpu)?);
        Reader::of_ringtap(self.descriptor(cpu)?.as_fd(), cpu, self.buffer_percent(), source)
    }

    /// The consuming readers of all CPUs' buffers.
    ///
    /// # Errors
    /// As [`reader`](Self::reader).
    pub fn readers(self: &Arc<Self>) -> Result<Vec<Reader>, ReadError> {
        self.cpus().iter().map(|&cpu| self.reader(cpu)).collect()
    }
}
