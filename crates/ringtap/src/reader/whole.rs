//! Whole sub-buffers for a recorder: each is lent once no writer adds to it any more, and goes to a file from
//! where it lies.

use super::pages::{Page, Pages};
use super::{EXTRA_FETCHES, ReadError, Reader, Source};
use crate::clock::Conversion;
use crate::host::HostError;
use crate::record::DataWords;
use crate::ring::Corrupt;
use ringtap_abi::SubbufId;
use ringtap_abi::records::Walk;
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};
use ringtap_abi::sync::AtomicU32;
use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Consumes one ringtap buffer by sub-buffers.
#[derive(Debug)]
pub struct WholePages {
    cpu: u32,
    pages: Pages,
    source: Arc<dyn Source>,
    /// The page that was handed out last.
    page: Page,
    /// It was not lent yet.
    is_pending: bool,
    /// What was lost before it.
    lost: Option<Option<u64>>,
}

/// A sub-buffer, as `trace_pipe_raw` would hand it out.
#[derive(Debug)]
pub struct WholePage<'a> {
    header: [u8; HEADER_LEN as usize],
    time_stamp: u64,
    data: &'a [AtomicU32],
    /// The number of events lost before it, behind the data.
    lost: Option<[u8; 8]>,
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
        Some(WholePages { cpu, pages, source, page, is_pending: false, lost: None })
    }
}

impl WholePages {
    /// The CPU whose buffer this is.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Bytes of a sub-buffer.
    #[must_use]
    pub fn subbuf_size(&self) -> u32 {
        self.pages.subbuf_size()
    }

    /// How the clock's ticks become nanoseconds, as last drawn.
    #[must_use]
    pub fn conversion(&self) -> Conversion {
        self.pages.conversion().unwrap_or(Conversion::NONE)
    }

    /// The next sub-buffer; `None` when there is none that is complete. With `is_last` also the one being written,
    /// as far as it is. Never blocks.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn next(&mut self, is_last: bool) -> Result<Option<WholePage<'_>>, ReadError> {
        for _ in 0..self.pages.nr_subbufs().saturating_add(EXTRA_FETCHES) {
            if self.is_pending {
                match self.stage()? {
                    Stage::Growing if is_last => {
                        self.source.get_reader()?;
                        self.page = self.pages.page_now(self.cpu)?;
                        return Ok(Some(self.lend()));
                    }
                    Stage::Growing => return Ok(None),
                    Stage::Complete => return Ok(Some(self.lend())),
                    Stage::Unread => {}
                }
            }
            self.source.get_reader()?;
            let page = self.pages.page_now(self.cpu)?;
            match self.page.follows(&page) {
                Some(0) if !self.is_pending => return Ok(None),
                Some(_) => {}
                None => self.lost = self.pages.lost_before(&page),
            }
            self.page = page;
            self.is_pending = true;
        }
        Ok(None)
    }

    /// In this order: once the tail is seen elsewhere, the commit word does not change any more.
    fn stage(&self) -> Result<Stage, ReadError> {
        let looked = || {
            let ring = self.pages.ring().ok_or(Corrupt)?;
            let page = ring.checked(SubbufId(u16::try_from(self.page.id).map_err(|_| Corrupt)?))?;
            if ring.tail()?.page() == page {
                return Ok(Stage::Growing);
            }
            let committed = ring.commit(page)?.offset();
            Ok(if committed == self.page.read { Stage::Complete } else { Stage::Unread })
        };
        looked().map_err(|Corrupt| HostError::Damaged(self.cpu).into())
    }

    fn lend(&mut self) -> WholePage<'_> {
        self.is_pending = false;
        let Page { id, read, time_stamp } = self.page;
        let size = self.pages.subbuf_size();
        let has_room = size - HEADER_LEN - read >= 8;
        let (commit, lost) = match self.lost.take() {
            None => (PageCommit::new(read), None),
            Some(count) => {
                let count = count.filter(|_| has_room);
                (PageCommit::new(read).with_missed(count.is_some()), count.map(u64::to_le_bytes))
            }
        };
        let mut header = [0; HEADER_LEN as usize];
        header[..8].copy_from_slice(&time_stamp.to_le_bytes());
        header[8..].copy_from_slice(&commit.pack().to_le_bytes());
        let data = &self.pages.words(id).0[..read as usize / 4];
        WholePage { header, time_stamp, data, lost, size }
    }
}

impl WholePage<'_> {
    /// Bytes of the whole sub-buffer.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The time of its first event, in ticks.
    #[must_use]
    pub fn time_stamp(&self) -> u64 {
        self.time_stamp
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
