//! The cursor: follows a live ringtap buffer without consuming, and without a call to anybody.
//!
//! It copies what is new of a sub-buffer to memory of its own, checks that the sub-buffer was not used anew
//! meanwhile, and lends records from the copy. The writers never know: nothing is stored to shared memory. So
//! nobody wakes it either; it looks at a bounded rate, since a reader that looks at the writers' cache lines for
//! each event makes each event dearer.

use crate::attach::Connection;
use crate::clock::Conversion;
use crate::host::{Host, HostError};
use crate::map::{self, Access, File, Mapping};
use crate::reader::ReadError;
use crate::record::{DataWords, Found, Item};
use crate::ring::cursor::Position;
use crate::ring::{Corrupt, Ring, retire};
use crate::wake::Waited;
use ringtap_abi::control::request;
use ringtap_abi::records::Walk;
use ringtap_abi::sync::AtomicU32;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Pause between two looks of a wait.
const PAUSE: Duration = Duration::from_millis(1);
/// Chunks without a record that one call passes: there are none but damaged ones.
const EMPTY_CHUNKS: u32 = 64;
/// Buffers that one call goes through to the newest.
const REPLACEMENTS: u32 = 64;

/// Where a cursor begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Before the oldest event in the ring.
    #[default]
    Oldest,
    /// Before the oldest event that was not consumed: what the kernel's `trace` file shows.
    Unread,
    /// Behind the newest event in the ring.
    Newest,
}

/// Follows one buffer without consuming.
///
/// Any number of cursors may follow a buffer, with or without a consuming [`Reader`](crate::Reader). Each
/// misses only what was overwritten before it came there, and says exactly how much that was.
#[derive(Debug)]
pub struct Cursor {
    cpu: u32,
    mapping: Mapping,
    position: Position,
    /// The current sub-buffer's data, as far as it was copied.
    copy: Box<[AtomicU32]>,
    walk: Walk,
    /// A record of the current sub-buffer was damaged: what follows in it is not read.
    skips: bool,
    /// Losses to tell before the walk goes on.
    lost: u64,
    conversion: Conversion,
    /// Who knows what memory replaces this one, if somebody does.
    host: Option<Source>,
}

/// Who has the buffers.
#[derive(Debug)]
enum Source {
    InProcess(Host),
    Remote(Arc<Connection>),
}

impl Source {
    /// The buffer behind the one of this inode, as in [`request::GET_BUFFER`].
    fn after(&self, cpu: u32, known: u64) -> Result<Arc<OwnedFd>, ReadError> {
        Ok(match self {
            Self::InProcess(host) => host.read_only_after(cpu, known)?,
            Self::Remote(connection) => Arc::new(connection.descriptor_behind(cpu, known)?),
        })
    }

    fn cursor(self, cpu: u32, start: Start) -> Result<Cursor, ReadError> {
        // One that begins with the newest event begins where events are written.
        let known = match start {
            Start::Oldest | Start::Unread => request::OLDEST,
            Start::Newest => request::NEWEST,
        };
        let mut cursor = Cursor::open(self.after(cpu, known)?.as_fd(), start)?;
        cursor.host = Some(self);
        Ok(cursor)
    }
}

impl Cursor {
    /// Follows the buffer of this descriptor, which may be read-only.
    ///
    /// # Errors
    /// [`ReadError`] where the descriptor is no ringtap buffer.
    pub fn open(fd: BorrowedFd<'_>, start: Start) -> Result<Self, ReadError> {
        let mapping = map::open(fd, Access::Read)?;
        let (ring, capacity) = (mapping.ring(), mapping.geometry().capacity());
        let cpu = ring.meta().identity.cpu.load(Relaxed);
        let conversion = ring.meta().clock.load().unwrap_or(Conversion::NONE);
        let (position, walk) = place(&mapping, start).map_err(|Corrupt| HostError::Damaged(cpu))?;
        let copy = (0..capacity / 4).map(|_| AtomicU32::new(0)).collect();
        let mut cursor =
            Self { cpu, mapping, position, copy, walk, skips: false, lost: 0, conversion, host: None };
        if start == Start::Unread {
            cursor.skip_consumed()?;
        }
        Ok(cursor)
    }

    /// Goes to the first event that the consuming reader was not given: it may stand on the reader's page, behind
    /// others that he was.
    fn skip_consumed(&mut self) -> Result<(), ReadError> {
        // Relaxed: the reader may be given more at any time.
        let next = self.mapping.ring().meta().host.next_index.load(Relaxed);
        let consumed = self.position.index().and_then(|index| next.checked_sub(index));
        // No event is shorter than 8 bytes, and no more than the reader's page is both here and consumed.
        let Some(mut consumed) = consumed.filter(|&count| count <= self.copy.len() as u64 / 2) else {
            return Ok(());
        };
        while consumed > 0 {
            match self.advance()? {
                Some(Found::Record(_)) => consumed -= 1,
                Some(Found::Lost(count)) => consumed = consumed.saturating_sub(count.unwrap_or(0)),
                Some(Found::Damaged(_)) | None => break,
            }
        }
        Ok(())
    }

    /// Whether the buffer was replaced: once [`next`](Self::next) finds nothing more, nothing more will come from it.
    /// Cursors of a [`Host`] or a [`Connection`] go on in the new one by themselves; one that was [opened](Self::open) on a
    /// descriptor is told of it by [`follow`](Self::follow).
    #[must_use]
    pub fn is_retired(&self) -> bool {
        retire::is_retired(&self.mapping.ring()) == Ok(true)
    }

    /// Goes on in the buffer of this descriptor, which replaced the present one. What was missed between the two, and is
    /// still unread here, counts as lost, exactly.
    ///
    /// # Errors
    /// [`ReadError`] where the descriptor is no ringtap buffer; the present one is kept then.
    pub fn follow(&mut self, fd: BorrowedFd<'_>) -> Result<(), ReadError> {
        let next = map::open(fd, Access::Read)?;
        let (from, to) = (self.mapping.ring(), next.ring());
        let origin = |ring: &Ring<'_>| ring.meta().host.origin.load(Relaxed);
        let place = self.position.index().map(|index| index.wrapping_add(origin(&from)));
        // Where another trace begins, nothing of it was missed.
        let index = place.filter(|&place| place <= origin(&to)).map(|place| place.wrapping_sub(origin(&to)));
        self.position = Position::following(&to, index);
        self.copy = (0..next.geometry().capacity() / 4).map(|_| AtomicU32::new(0)).collect();
        self.walk = Walk::new(0, 0);
        self.skips = false;
        self.mapping = next;
        Ok(())
    }

    /// Goes on in the buffer that replaced this one; whether there is one.
    fn follow_host(&mut self) -> Result<bool, ReadError> {
        let Some(host) = &self.host else { return Ok(false) };
        let fd = host.after(self.cpu, self.mapping.file().inode())?;
        if File::of(fd.as_fd())? == self.mapping.file() {
            return Ok(false);
        }
        self.follow(fd.as_fd())?;
        Ok(true)
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

    /// The next item; `None` when there is nothing new. Never blocks, and its work is bounded.
    ///
    /// # Errors
    /// [`HostError::Damaged`] where the shared memory says what cannot be.
    #[inline(always)]
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        if self.lost == 0
            && let Some(record) = self.walk.next_small(&DataWords(&self.copy))
        {
            return Ok(Some(self.lend(Found::Record(record))));
        }
        let found = self.advance_slowly()?;
        Ok(found.map(|found| self.lend(found)))
    }

    /// Finds the next item. What was found before is gone then.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<Option<Found>, ReadError> {
        // Losses stand before a sub-buffer's first record, and a walk begins after they were told.
        if self.lost == 0
            && let Some(record) = self.walk.next_small(&DataWords(&self.copy))
        {
            return Ok(Some(Found::Record(record)));
        }
        self.advance_slowly()
    }

    #[inline(never)]
    fn advance_slowly(&mut self) -> Result<Option<Found>, ReadError> {
        for _ in 0..EMPTY_CHUNKS {
            if self.lost > 0 {
                return Ok(Some(Found::Lost(Some(std::mem::take(&mut self.lost)))));
            }
            match self.walk.next(&DataWords(&self.copy)) {
                Ok(Some(record)) => return Ok(Some(Found::Record(record))),
                Err(damage) => {
                    self.skips = true;
                    return Ok(Some(Found::Damaged(damage)));
                }
                Ok(None) if self.pull()? => {}
                Ok(None) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Lends what [`advance`](Self::advance) found last.
    #[inline(always)]
    pub(crate) fn lend(&self, found: Found) -> Item<'_> {
        found.lend(self.cpu, &self.conversion, DataWords(&self.copy))
    }

    pub(crate) fn ns(&self, ticks: u64) -> u64 {
        self.conversion.ns(ticks)
    }

    /// Copies what is new in the ring; whether there was anything.
    fn pull(&mut self) -> Result<bool, ReadError> {
        for _ in 0..REPLACEMENTS {
            // Before the look: what it does not find then never comes.
            let was_retired = self.is_retired();
            if self.pull_here()? {
                return Ok(true);
            }
            if !was_retired || !self.follow_host()? {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn pull_here(&mut self) -> Result<bool, ReadError> {
        let ring = self.mapping.ring();
        let chunk = self.position.advance(&ring, plain(&mut self.copy));
        let Some(chunk) = chunk.map_err(|Corrupt| HostError::Damaged(self.cpu))? else { return Ok(false) };
        match chunk.begins {
            Some(time) => {
                self.walk = Walk::new(time, chunk.end);
                self.skips = false;
                self.lost = chunk.lost;
                self.conversion = ring.meta().clock.load().unwrap_or(self.conversion);
            }
            None => self.walk.extend_to(chunk.end),
        }
        if self.skips {
            self.walk.finish();
        }
        Ok(true)
    }

    /// Waits until there is something to read, for `timeout` at most (`None`: for ever). Looks once a millisecond.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Waited, ReadError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        while !self.has_more()? {
            let left = deadline.map_or(PAUSE, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(Waited::TimedOut);
            }
            std::thread::sleep(left.min(PAUSE));
        }
        Ok(Waited::Ready)
    }

    /// Whether [`next`](Self::next) has something to look at.
    pub(crate) fn has_more(&mut self) -> Result<bool, ReadError> {
        let mut ahead = self.walk;
        Ok(self.lost > 0 || !matches!(ahead.next(&DataWords(&self.copy)), Ok(None)) || self.pull()?)
    }
}

/// The position to start at, and a walk that stands there.
fn place(mapping: &Mapping, start: Start) -> Result<(Position, Walk), Corrupt> {
    let ring = mapping.ring();
    match start {
        Start::Oldest | Start::Unread => Ok((Position::oldest(&ring)?, Walk::new(0, 0))),
        Start::Newest => {
            let (position, time) = Position::newest(&ring)?;
            let mut walk = Walk::new(time, position.copied());
            walk.finish();
            Ok((position, walk))
        }
    }
}

/// The copy as the plain words that it is while nothing of it is lent.
fn plain(copy: &mut [AtomicU32]) -> &mut [u32] {
    let words: *mut [AtomicU32] = copy;
    // SAFETY: an `AtomicU32` has the size, alignment and values of a `u32`, and the borrow is exclusive.
    unsafe { &mut *(words as *mut [u32]) }
}

impl Host {
    /// A cursor on a CPU's buffer.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`], or the buffer cannot be mapped once more.
    pub fn cursor(&self, cpu: u32, start: Start) -> Result<Cursor, ReadError> {
        Source::InProcess(self.clone()).cursor(cpu, start)
    }

    /// Cursors on all CPUs' buffers.
    ///
    /// # Errors
    /// As [`cursor`](Self::cursor).
    pub fn cursors(&self, start: Start) -> Result<Vec<Cursor>, ReadError> {
        self.cpus().into_iter().map(|cpu| self.cursor(cpu, start)).collect()
    }
}

impl Connection {
    /// A cursor on a CPU's buffer.
    ///
    /// # Errors
    /// The host refuses, or the buffer cannot be mapped.
    pub fn cursor(self: &Arc<Self>, cpu: u32, start: Start) -> Result<Cursor, ReadError> {
        Source::Remote(Arc::clone(self)).cursor(cpu, start)
    }

    /// Cursors on all CPUs' buffers.
    ///
    /// # Errors
    /// As [`cursor`](Self::cursor).
    pub fn cursors(self: &Arc<Self>, start: Start) -> Result<Vec<Cursor>, ReadError> {
        self.cpus().iter().map(|&cpu| self.cursor(cpu, start)).collect()
    }
}
