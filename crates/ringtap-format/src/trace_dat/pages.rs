//! The sub-buffers of one CPU, read in windows of bounded size and unpacked where they are compressed.

use super::compression::Compression;
use super::source::{ReadAt, read_full};
use super::{CpuData, TraceDatError};
use crate::header::PageLayout;
use std::ops::Range;

/// Bytes that are read at once, or one sub-buffer where that is larger.
const WINDOW: usize = 1 << 16;
/// Most bytes of a chunk, before and after it is unpacked.
const MAX_CHUNK: u64 = 1 << 28;

/// One CPU's sub-buffers, lent one by one.
#[derive(Clone, Debug)]
pub struct CpuPages<R> {
    source: R,
    layout: PageLayout,
    data: CpuData,
    /// Where the next bytes are read.
    next: u64,
    /// Chunks still to come; `None` before their number was read.
    chunks: Option<u64>,
    window: Vec<u8>,
    /// The part of the window that was not lent yet.
    at: usize,
    /// Where the window starts in the file, or what it was unpacked from.
    place: u64,
    packed: Vec<u8>,
}

/// A sub-buffer's bytes.
#[derive(Clone, Copy, Debug)]
pub struct RawPage<'a> {
    /// Where it stands in the file, or the chunk that it was unpacked from.
    pub offset: u64,
    /// Its bytes, fewer than a sub-buffer has where the data end early.
    pub bytes: &'a [u8],
}

impl<R: ReadAt> CpuPages<R> {
    /// The sub-buffers of `data`.
    #[must_use]
    pub const fn new(source: R, data: CpuData, layout: PageLayout) -> Self {
        let (next, place) = (data.span.start, data.span.start);
        Self {
            source,
            layout,
            data,
            next,
            chunks: None,
            window: Vec::new(),
            at: 0,
            place,
            packed: Vec::new(),
        }
    }

    /// The CPU.
    #[must_use]
    pub const fn cpu(&self) -> u32 {
        self.data.cpu
    }

    /// How its sub-buffers are laid out.
    #[must_use]
    pub const fn layout(&self) -> PageLayout {
        self.layout
    }

    /// How many bytes have been read, and how many there are.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let Range { start, end } = self.data.span;
        (self.next.saturating_sub(start), end.saturating_sub(start))
    }

    /// Starts anew.
    pub fn restart(&mut self) {
        (self.next, self.chunks, self.at) = (self.data.span.start, None, 0);
        self.window.clear();
    }

    /// The next sub-buffer; `None` behind the last. After an error there are no more.
    ///
    /// # Errors
    /// The file cannot be read, or a chunk cannot be unpacked.
    pub fn next_page(&mut self) -> Result<Option<RawPage<'_>>, TraceDatError> {
        if self.at >= self.window.len() {
            let filled = match self.data.compression {
                Compression::None => self.fill(),
                _ => self.unpack(),
            };
            if let Err(error) = filled {
                (self.next, self.chunks) = (self.data.span.end, Some(0));
                self.window.clear();
                self.at = 0;
                return Err(error);
            }
        }
        let rest = self.window.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let bytes = rest.get(..self.page_size()).unwrap_or(rest);
        let is_packed = self.data.compression != Compression::None;
        let offset = if is_packed {
            self.place
        } else {
            self.place.saturating_add(u64::try_from(self.at).unwrap_or(0))
        };
        self.at = self.at.saturating_add(bytes.len());
        Ok(Some(RawPage { offset, bytes }))
    }

    fn page_size(&self) -> usize {
        usize::try_from(self.layout.size()).unwrap_or(usize::MAX).max(1)
    }

    /// Reads as many whole sub-buffers as the window holds.
    fn fill(&mut self) -> Result<(), TraceDatError> {
        let page = self.page_size();
        let whole = WINDOW.checked_div(page).unwrap_or(1).max(1).saturating_mul(page);
        let left = self.data.span.end.saturating_sub(self.next);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(whole);
        self.read(len)
    }

    fn read(&mut self, len: usize) -> Result<(), TraceDatError> {
        (self.at, self.place) = (0, self.next);
        self.window.resize(len, 0);
        let got = read_full(&self.source, &mut self.window, self.next);
        let got = got.map_err(|error| TraceDatError::io(self.next, &error))?;
        self.window.truncate(got);
        self.next = self.next.saturating_add(u64::try_from(got).unwrap_or(0));
        if got < len {
            // The file became shorter.
            self.next = self.data.span.end;
        }
        Ok(())
    }

    /// Unpacks the next chunk.
    fn unpack(&mut self) -> Result<(), TraceDatError> {
        self.window.clear();
        self.at = 0;
        if self.data.span.is_empty() {
            return Ok(());
        }
        let chunks = match self.chunks {
            Some(chunks) => chunks,
            None => self.number("the number of a CPU's chunks")?,
        };
        self.chunks = Some(chunks.saturating_sub(1));
        if chunks == 0 {
            return Ok(());
        }
        self.place = self.next;
        let packed_len = self.number("the length of a chunk")?;
        let len = self.number("the length of a chunk's sub-buffers")?;
        let offset = self.place;
        if len > MAX_CHUNK || packed_len > MAX_CHUNK || len == 0 {
            return Err(TraceDatError::Expected { offset, expected: "a chunk of 1 byte to 256 MiB" });
        }
        if self.next.saturating_add(packed_len) > self.data.span.end {
            return Err(TraceDatError::End { offset, expected: "a chunk", len: packed_len });
        }
        self.packed.resize(usize::try_from(packed_len).unwrap_or(0), 0);
        let got = read_full(&self.source, &mut self.packed, self.next);
        if got.map_err(|error| TraceDatError::io(self.next, &error))? < self.packed.len() {
            return Err(TraceDatError::End { offset, expected: "a chunk", len: packed_len });
        }
        self.next = self.next.saturating_add(packed_len);
        let unpacked = self.data.compression.unpack(&self.packed, len, &mut self.window);
        unpacked.map_err(|error| TraceDatError::Compressed { offset, error: error.to_string() })
    }

    fn number(&mut self, expected: &'static str) -> Result<u64, TraceDatError> {
        let mut bytes = [0; 4];
        let end = TraceDatError::End { offset: self.next, expected, len: 4 };
        if self.data.span.end.saturating_sub(self.next) < 4 {
            return Err(end);
        }
        let got = read_full(&self.source, &mut bytes, self.next);
        if got.map_err(|error| TraceDatError::io(self.next, &error))? < bytes.len() {
            return Err(end);
        }
        self.next = self.next.saturating_add(4);
        Ok(self.layout.target.uint(&bytes, 0, 4).unwrap_or(0))
    }
}
