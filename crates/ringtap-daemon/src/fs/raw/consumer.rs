//! The consuming reader of one CPU's buffer, for all who have its `trace_pipe_raw` open: they take turns.
//!
//! GET_READER hands out all that is new on a page at once. `read` and `splice` pass it on piece by piece, and this is
//! where what was handed out and not passed on is remembered.

#![forbid(unsafe_code)]

use super::image::{Copied, Progress};
use ringtap::subbufs::{ReaderPage, SubbufReader};
use ringtap::{Host, HostError};
use rustix::io::Errno;

/// The errno of a host's refusal.
pub(crate) fn errno(error: &HostError) -> Errno {
    match error {
        HostError::NoSuchCpu(_) => Errno::NODEV,
        HostError::Claimed { .. } | HostError::Busy(_) => Errno::BUSY,
        HostError::Percent(_) => Errno::INVAL,
        HostError::Damaged(_) => Errno::IO,
        _ => Errno::NOMEM,
    }
}

/// What is consumed: a CPU's buffer.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) host: Host,
    pub(crate) cpu: u32,
}

/// One CPU's buffer, as it is consumed.
#[derive(Debug, Default)]
pub(crate) struct Consumer {
    /// From the first consuming call until nobody has the file open.
    reader: Option<SubbufReader>,
    /// The page that `progress` is about.
    page: Option<ReaderPage>,
    /// How much of it was passed on.
    progress: Progress,
}

impl Consumer {
    /// Lets others consume the buffer. Whether there is nothing to remember either.
    pub(crate) fn release(&mut self) -> bool {
        let is_done = self.page.is_none_or(|page| self.progress.offset >= page.read);
        self.reader = None;
        is_done
    }

    /// The kernel's `TRACE_MMAP_IOCTL_GET_READER`: all that it hands out counts as passed on.
    pub(crate) fn get_reader(&mut self, source: &Source) -> Result<(), Errno> {
        self.step(source)?;
        self.progress.offset = self.page.map_or(0, |page| page.read);
        Ok(())
    }

    /// Records for who reads `room` bytes; `None` when there are none, and no bytes where there is no room for the first.
    pub(crate) fn read(&mut self, source: &Source, room: usize) -> Result<Option<Vec<u8>>, Errno> {
        if !self.has_rest(source)? {
            self.step(source)?;
            if !self.has_rest(source)? {
                return Ok(None);
            }
        }
        let Some(copied) = self.copy()? else { return Ok(None) };
        let Some((image, progress)) = copied.image(self.progress, room) else { return Ok(Some(Vec::new())) };
        self.progress = progress;
        Ok(Some(image))
    }

    /// The next sub-buffer that its writers have left; `None` when there is none.
    pub(crate) fn full(&mut self, source: &Source) -> Result<Option<Vec<u8>>, Errno> {
        // Twice at most: the page at hand may be used up, or fill up meanwhile.
        for _ in 0..3 {
            let reader = self.reader(source)?;
            let failed = |error: HostError| errno(&error);
            if !reader.is_final().map_err(failed)? {
                return Ok(None);
            }
            if reader.unread().map_err(failed)? > 0 {
                self.step(source)?;
            } else if !self.has_rest(source)? {
                if self.reader(source)?.full_subbufs().map_err(failed)? == 0 {
                    return Ok(None);
                }
                self.step(source)?;
            } else {
                let Some(copied) = self.copy()? else { return Ok(None) };
                let image = copied.image(self.progress, usize::MAX);
                self.progress.offset = copied.read;
                return Ok(image.map(|(image, _)| image));
            }
        }
        Ok(None)
    }

    /// Whether something that was handed out to us is yet to be passed on.
    pub(crate) fn is_holding(&self) -> bool {
        self.reader.is_some() && self.page.is_some_and(|page| self.progress.offset < page.read)
    }

    /// As [`is_holding`](Self::is_holding), after a look at what the reader page is now.
    fn has_rest(&mut self, source: &Source) -> Result<bool, Errno> {
        let page = self.reader(source)?.page().map_err(|error| errno(&error))?;
        self.look(page);
        Ok(self.progress.offset < page.read)
    }

    /// One GET_READER.
    fn step(&mut self, source: &Source) -> Result<(), Errno> {
        let reader = self.reader(source)?;
        reader.get_reader().map_err(|error| errno(&error))?;
        let page = reader.page().map_err(|error| errno(&error))?;
        self.look(page);
        Ok(())
    }

    /// Notes the reader page. A reset, or others' GET_READERs, may have brought another one.
    fn look(&mut self, page: ReaderPage) {
        let is_same = self.page.is_some_and(|known| {
            known.id == page.id && known.time_stamp == page.time_stamp && known.read <= page.read
        });
        if !is_same {
            self.progress = Progress { offset: 0, time: page.time_stamp };
        }
        self.page = Some(page);
    }

    fn copy(&self) -> Result<Option<Copied>, Errno> {
        let (Some(reader), Some(page)) = (&self.reader, self.page) else { return Ok(None) };
        let mut bytes = vec![0; reader.host().subbuf_size() as usize];
        let len = rustix::io::pread(reader.memory(), &mut bytes[..], page.offset)?;
        if len < bytes.len() {
            return Err(Errno::IO);
        }
        Ok(Some(Copied { bytes, read: page.read, lost: page.lost }))
    }

    /// The reader of these buffers.
    fn reader(&mut self, source: &Source) -> Result<&SubbufReader, Errno> {
        let Source { host, cpu } = source;
        if self.reader.as_ref().is_none_or(|reader| !reader.host().is_same(host)) {
            self.reader = None;
            let reader = host.subbufs(*cpu).map_err(|error| errno(&error))?;
            let page = reader.page().map_err(|error| errno(&error))?;
            let known =
                self.page.is_some_and(|known| known.id == page.id && known.time_stamp == page.time_stamp);
            if !known {
                // What was handed out before belongs to who asked for it.
                self.progress = Progress { offset: page.read, time: page.time_stamp };
                self.page = Some(page);
            }
            self.reader = Some(reader);
        }
        self.reader.as_ref().ok_or(Errno::IO)
    }
}
