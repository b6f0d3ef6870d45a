//! Whole sub-buffers for a recorder: each is lent once no writer adds to it any more, and goes to a file from
//! where it lies.

use super::pages::{Page, Pages, Successor};
use super::{EXTRA_FETCHES, ReadError, Reader, Source};
use crate::clock::Conversion;
use crate::host::HostError;
use crate::record::DataWords;
use crate::ring::Corrupt;
use ringtap_abi::SubbufId;
use ringtap_abi::meta::state;
use ringtap_abi::records::Walk;
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};
use ringtap_abi::sync::AtomicU32;
use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of the number of lost events, behind a page's data.
const COUNT_LEN: u32 = 8;

/// Consumes one ringtap buffer by sub-buffers.
#[derive(Debug)]
pub struct WholePages {
    cpu: u32,
    pages: Pages,
    source: Arc<dyn Source>,
    /// The page that was handed out last.
    page: Page,
    /// How much of it was lent, and when that ends.
    lent: Lent,
    /// There is more on it to be lent.
    is_pending: bool,
    /// What was lost before that.
    lost: Option<Option<u64>>,
    /// With `is_last`: all was lent that there was.
    has_ended: bool,
}

/// How much of a page was lent.
#[derive(Clone, Copy, Debug)]
struct Lent {
    /// Data bytes.
    bytes: u32,
    /// Time of the last event in them; of the page, where there is none.
    time: u64,
}

impl Lent {
    /// Nothing of this page.
    fn nothing(page: &Page) -> Self {
        Self { bytes: 0, time: page.time_stamp }
    }

    /// All of this page that was handed out.
    fn all(self, page: &Page, words: &DataWords<'_>) -> Self {
        let mut walk = Walk::new(self.time, page.read - self.bytes);
        let rest = self.rest(words);
        // Behind damage there are no times.
        while let Ok(Some(_)) = walk.next(&rest) {}
        Self { bytes: page.read, time: walk.time() }
    }

    /// As many events of this page more as `room` bytes hold; `None` where they do not hold one.
    fn some(self, page: &Page, words: &DataWords<'_>, room: u32) -> Option<Self> {
        let mut walk = Walk::new(self.time, page.read - self.bytes);
        let (rest, mut fitting) = (self.rest(words), None);
        while let Ok(Some(_)) = walk.next(&rest)
            && walk.offset() <= room
        {
            fitting = Some(Self { bytes: self.bytes + walk.offset(), time: walk.time() });
        }
        fitting
    }

    fn rest<'w>(self, words: &DataWords<'w>) -> DataWords<'w> {
        DataWords(&words.0[self.bytes as usize / 4..])
    }
}

/// A sub-buffer, or a part of one, as `trace_pipe_raw` would hand it out.
#[derive(Debug)]
pub struct WholePage<'a> {
    header: [u8; HEADER_LEN as usize],
    time_stamp: u64,
    data: &'a [AtomicU32],
    /// The number of events lost before it, behind the data.
    lost: Option<[u8; 8]>,
    /// The same, where it has no room there, too; 0 where it is not known.
    lost_before: u64,
    size: u32,
}

/// What a page that was handed out still is to the writers.
enum Stage {
    /// They may add to it.
    Growing,
    /// They left it, and there is more on it than was handed out.
    Unread,
    /// They left it, and all of it was handed out.
    Complete,
}

impl Reader {
    /// Reads by whole sub-buffers from now on; `None` for the kernel's buffers, which do not tell when one is
    /// complete: those are spliced.
    #[must_use]
    pub fn into_whole_pages(self) -> Option<WholePages> {
        self.pages.ring()?;
        let Self { cpu, pages, source, page, .. } = self;
        let lent = Lent::nothing(&page).all(&page, &pages.words(page.id));
        Some(WholePages { cpu, pages, source, page, lent, is_pending: false, lost: None, has_ended: false })
    }
}

impl WholePages {
    /// The CPU whose buffer this is.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Bytes of a sub-buffer, at present: what [`next`](Self::next) lends may come from memory that replaced this.
    #[must_use]
    pub fn subbuf_size(&self) -> u32 {
        self.pages.subbuf_size()
    }

    /// How the clock's ticks become nanoseconds, as last drawn.
    #[must_use]
    pub fn conversion(&self) -> Conversion {
        self.pages.conversion().unwrap_or(Conversion::NONE)
    }

    /// Whether the buffer's writers record.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        // Relaxed: that it was switched off is all that is asked.
        let state = self.pages.ring().map(|ring| ring.meta().switches.state.load(Relaxed));
        state.is_none_or(|state| state & state::OFF == 0)
    }

    /// The next sub-buffer; `None` when there is none that is complete. With `is_last` also the one being written,
    /// as far as it is; what is added to it later comes as a part of its own. Never blocks.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn next(&mut self, is_last: bool) -> Result<Option<WholePage<'_>>, ReadError> {
        if std::mem::take(&mut self.has_ended) && is_last {
            return Ok(None);
        }
        let mut has_asked = false;
        for _ in 0..self.pages.nr_subbufs().saturating_add(EXTRA_FETCHES) {
            if self.is_pending {
                match self.stage()? {
                    // What was handed out is lent before more is asked for: that could be the next page.
                    Stage::Growing if is_last => {
                        self.has_ended = has_asked;
                        return Ok(Some(self.lend(true)));
                    }
                    Stage::Growing => return Ok(None),
                    Stage::Complete => return Ok(Some(self.lend(false))),
                    Stage::Unread => {}
                }
            }
            has_asked = true;
            // Before the host looks: what it does not find then never comes.
            let was_retired = self.pages.is_retired();
            self.source.get_reader()?;
            let page = self.pages.page_now(self.cpu)?;
            match self.page.follows(&page) {
                // The rest of it is not handed out any more: the buffer was given up.
                Some(0) if self.is_pending => return Ok(Some(self.lend(false))),
                Some(0) if was_retired => match self.follow()? {
                    true => continue,
                    false => return Ok(None),
                },
                Some(0) => return Ok(None),
                Some(_) => {}
                None => self.begin(&page),
            }
            self.page = page;
            self.is_pending = true;
        }
        Ok(None)
    }

    /// Begins another page.
    fn begin(&mut self, page: &Page) {
        self.lent = Lent::nothing(page);
        if let Some(count) = self.pages.lost_before(page) {
            self.lose(count);
        }
    }

    /// Tells more losses with the next page.
    fn lose(&mut self, count: Option<u64>) {
        let before = self.lost.unwrap_or(Some(0));
        self.lost = Some(before.zip(count).map(|(before, count)| before.saturating_add(count)));
    }

    /// Goes on in the memory that replaced this one; whether there is any.
    fn follow(&mut self) -> Result<bool, ReadError> {
        let Some(Successor { pages, page, lost }) = self.pages.successor(self.cpu, &*self.source)? else {
            return Ok(false);
        };
        (self.pages, self.page, self.lent) = (pages, page, Lent::nothing(&page));
        if lost > 0 {
            self.lose(Some(lost));
        }
        Ok(true)
    }

    /// In this order: once the tail is seen elsewhere, or retired, the commit word does not change any more.
    fn stage(&self) -> Result<Stage, ReadError> {
        let looked = || {
            let ring = self.pages.ring().ok_or(Corrupt)?;
            let page = ring.checked(SubbufId(u16::try_from(self.page.id).map_err(|_| Corrupt)?))?;
            let tail = ring.tail()?;
            if tail.page() == page && !tail.is_retired() {
                return Ok(Stage::Growing);
            }
            let committed = ring.commit(page)?.offset();
            Ok(if committed == self.page.read { Stage::Complete } else { Stage::Unread })
        };
        looked().map_err(|Corrupt| HostError::Damaged(self.cpu).into())
    }

    /// Index, in the buffer that is read at present, of the first event that was not lent: where to go on in a copy of
    /// its [`memory`](Self::memory).
    #[must_use]
    pub fn unread(&self) -> Option<u64> {
        let ring = self.pages.ring()?;
        let page = ring.checked(SubbufId(u16::try_from(self.page.id).ok()?)).ok()?;
        let words = self.pages.words(self.page.id);
        let (mut walk, mut lent) = (Walk::new(self.page.time_stamp, self.lent.bytes), 0u32);
        while let Ok(Some(_)) = walk.next(&words) {
            lent += 1;
        }
        Some(ring.first(page).wrapping_add(lent.into()))
    }

    /// Whether this descriptor is of the buffer that is read at present.
    #[must_use]
    pub fn is_of(&self, fd: BorrowedFd<'_>) -> bool {
        self.pages.is_other(fd).is_ok_and(|is_other| !is_other)
    }

    /// Events of the trace that were handed out or lost before what is lent next, by this reader or those before it.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.pages.place().unwrap_or(0)
    }

    /// Whether another buffer has taken the place of the one that is read at present.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.pages.is_retired()
    }

    /// A copy of all bytes of the buffer that is read at present, for [`Recovered`](crate::recover::Recovered), once its
    /// host is gone; of the kernel's, none.
    #[must_use]
    pub fn memory(&self) -> Vec<u8> {
        // Relaxed: what is torn is found when it is checked.
        let words = self.pages.all_words().iter();
        words.flat_map(|word| word.load(Relaxed).to_le_bytes()).collect()
    }

    /// Lends what was handed out and not yet lent, of a page that may still grow or not; less of it, where the number of
    /// events lost before it finds no room behind it.
    fn lend(&mut self, grows: bool) -> WholePage<'_> {
        let (page, from, size) = (self.page, self.lent, self.pages.subbuf_size());
        let (words, room) = (self.pages.words(page.id), size - HEADER_LEN - COUNT_LEN);
        let has_room = page.read - from.bytes <= room;
        let fitting = self.lost.flatten().filter(|_| !has_room).and_then(|_| from.some(&page, &words, room));
        let has_room = has_room || fitting.is_some();
        self.lent = match fitting {
            Some(fitting) => fitting,
            None if grows => from.all(&page, &words),
            None => Lent { bytes: page.read, ..from },
        };
        self.is_pending = self.lent.bytes < page.read;
        let (time_stamp, len) = (from.time, self.lent.bytes - from.bytes);
        let lost = self.lost.take();
        let lost_before = lost.flatten().unwrap_or(0);
        let (commit, lost) = match lost {
            None => (PageCommit::new(len), None),
            Some(count) => {
                let count = count.filter(|_| has_room);
                (PageCommit::new(len).with_missed(count.is_some()), count.map(u64::to_le_bytes))
            }
        };
        let mut header = [0; HEADER_LEN as usize];
        header[..8].copy_from_slice(&time_stamp.to_le_bytes());
        header[8..].copy_from_slice(&commit.pack().to_le_bytes());
        let data = &self.pages.words(page.id).0[from.bytes as usize / 4..self.lent.bytes as usize / 4];
        WholePage { header, time_stamp, data, lost, lost_before, size }
    }
}

impl WholePage<'_> {
    /// Bytes of the whole sub-buffer.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The same as a sub-buffer of this size, where that is a larger one.
    #[must_use]
    pub fn padded(self, size: u32) -> Self {
        Self { size: self.size.max(size), ..self }
    }

    /// The time of its first event, in ticks.
    #[must_use]
    pub fn time_stamp(&self) -> u64 {
        self.time_stamp
    }

    /// Events that were lost before it, as far as their number is known.
    #[must_use]
    pub fn lost_before(&self) -> u64 {
        self.lost_before
    }

    /// The task that wrote its first event.
    #[must_use]
    pub fn first_pid(&self) -> Option<i32> {
        let words = DataWords(self.data);
        let len = u32::try_from(size_of_val(self.data)).ok()?;
        let record = Walk::new(self.time_stamp, len).next(&words).ok()??;
        // Behind the number of the event, its flags and its preemption count.
        let pid = self.data.get(record.offset as usize / 4 + 1).filter(|_| record.len >= 8)?;
        Some(pid.load(Relaxed).cast_signed())
    }

    /// Appends the whole sub-buffer, zeros behind its events.
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.size as usize;
        out.extend_from_slice(&self.header);
        // Relaxed: the commit word that told their number was acquired.
        out.extend(self.data.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()));
        out.extend_from_slice(self.lost.as_ref().map_or(&[], <[u8; 8]>::as_slice));
        out.resize(end, 0);
    }

    /// Writes it to a file from where it lies. Behind its events only the last byte is written, as 0: the others stay
    /// what they were, or a hole.
    ///
    /// # Errors
    /// The system's.
    pub fn write_at(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        let lost = self.lost.as_ref().map_or(&[][..], <[u8; 8]>::as_slice);
        let parts = [
            (self.header.as_ptr(), self.header.len()),
            (self.data.as_ptr().cast::<u8>(), size_of_val(self.data)),
            (lost.as_ptr(), lost.len()),
        ];
        let total: usize = parts.iter().map(|(_, len)| len).sum();
        let mut written = 0;
        while written < total {
            let mut skip = written;
            let rest = parts.map(|(start, len)| {
                let skipped = skip.min(len);
                skip -= skipped;
                libc::iovec {
                    iov_base: start.wrapping_add(skipped).cast_mut().cast(),
                    iov_len: len - skipped,
                }
            });
            let at = offset.saturating_add(written as u64);
            let at = libc::off_t::try_from(at).map_err(io::Error::other)?;
            // SAFETY: the parts are borrowed for as long as `self`; the kernel only reads them. What the middle one
            // lies in is shared, and a writer gone wild could change it: then the file holds that.
            let done = unsafe { libc::pwritev(file.as_raw_fd(), rest.as_ptr(), 3, at) };
            match usize::try_from(done) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(done) => written += done,
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        let end = offset.saturating_add(self.size.into());
        if offset.saturating_add(total as u64) < end {
            rustix::io::retry_on_intr(|| rustix::io::pwrite(file, &[0], end - 1))?;
        }
        Ok(())
    }
}
