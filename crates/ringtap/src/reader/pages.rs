//! A mapped buffer as its reader sees it: the meta-page's fields, checked, and the sub-buffers' words.
//!
//! This module exists to protect one invariant: the addresses it keeps lie in memory that it keeps mapped, as long
//! as the geometry that was checked when it was mapped, and are only read as atomics.

use super::{ReadError, Source};
use crate::clock::Conversion;
use crate::map::{self, Access, File, Mapping, Memory};
use crate::record::DataWords;
use crate::ring::{Ring, retire};
use ringtap_abi::SubbufId;
use ringtap_abi::meta::KernelMeta;
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit, SubbufHeader};
use ringtap_abi::sync::AtomicU32;
use rustix::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// One mapped buffer.
#[derive(Debug)]
pub(super) struct Pages {
    meta: NonNull<KernelMeta>,
    data: NonNull<u8>,
    subbuf_size: u32,
    nr_subbufs: u32,
    owner: Owner,
}

/// What keeps the addresses valid.
#[derive(Debug)]
enum Owner {
    Ringtap(Mapping),
    Kernel { _meta: Memory, _data: Memory },
}

// SAFETY: the addresses belong to `owner`, which is Send, and are only read as atomics.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

/// A page as the meta-page and its own header describe it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    /// Below the number of sub-buffers.
    pub(super) id: u32,
    /// Data bytes handed out, at most the capacity and a multiple of 4.
    pub(super) read: u32,
    pub(super) time_stamp: u64,
}

/// The buffer that replaced another one.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) pages: Pages,
    /// Its first page.
    pub(super) page: Page,
    /// Events between the end of what was handed out and its first one.
    pub(super) lost: u64,
}

impl Page {
    /// The bytes that `next` has more than this one; `None` where it is another page, or the same one begun anew.
    pub(super) fn follows(&self, next: &Self) -> Option<u32> {
        if self.id != next.id {
            return None;
        }
        match next.read.checked_sub(self.read) {
            Some(0) => Some(0),
            Some(more) if self.read > 0 && self.time_stamp == next.time_stamp => Some(more),
            _ => None,
        }
    }
}

impl Pages {
    pub(super) fn of_ringtap(mapping: Mapping) -> Self {
        let geometry = mapping.geometry();
        let meta = NonNull::from(&mapping.ring().meta().kernel);
        Self {
            meta,
            data: mapping.subbuf(SubbufId(0)),
            subbuf_size: geometry.subbuf_size(),
            nr_subbufs: geometry.nr_subbufs(),
            owner: Owner::Ringtap(mapping),
        }
    }

    /// # Panics
    /// Where the memory is shorter than these sizes ask for.
    pub(super) fn of_kernel(meta: Memory, data: Memory, subbuf_size: u32, nr_subbufs: u32) -> Self {
        assert!(meta.len() >= size_of::<KernelMeta>());
        assert!(subbuf_size > HEADER_LEN && subbuf_size.is_multiple_of(4096));
        assert!(data.len() >= nr_subbufs as usize * subbuf_size as usize);
        let owner = Owner::Kernel { _meta: meta, _data: data };
        let Owner::Kernel { _meta: meta, _data: data } = &owner else { unreachable!() };
        Self { meta: meta.start().cast(), data: data.start(), subbuf_size, nr_subbufs, owner }
    }

    /// The whole ring, where it is ringtap's.
    pub(super) fn ring(&self) -> Option<Ring<'_>> {
        match &self.owner {
            Owner::Ringtap(mapping) => Some(mapping.ring()),
            Owner::Kernel { .. } => None,
        }
    }

    /// All words of a ringtap buffer, its meta-page first.
    pub(super) fn all_words(&self) -> &[AtomicU32] {
        match &self.owner {
            Owner::Ringtap(mapping) => mapping.words(),
            Owner::Kernel { .. } => &[],
        }
    }

    /// Whether the buffer is ringtap's and was replaced.
    pub(super) fn is_retired(&self) -> bool {
        self.ring().is_some_and(|ring| retire::is_retired(&ring) == Ok(true))
    }

    /// What replaced this buffer, behind whose end its reader stands; `None` where nothing has yet.
    pub(super) fn successor(&self, cpu: u32, source: &dyn Source) -> Result<Option<Successor>, ReadError> {
        let Some(fd) = source.present()? else { return Ok(None) };
        if !self.is_other(fd.as_fd())? {
            return Ok(None);
        }
        let pages = Self::of_ringtap(map::open(fd.as_fd(), Access::Read)?);
        let page = pages.page_now(cpu)?;
        let lost = pages.origin().zip(self.place()).map_or(0, |(origin, place)| origin.wrapping_sub(place));
        Ok(Some(Successor { pages, page, lost }))
    }

    /// Whether this descriptor is of other memory.
    pub(super) fn is_other(&self, fd: BorrowedFd<'_>) -> Result<bool, ReadError> {
        match &self.owner {
            Owner::Ringtap(mapping) => Ok(mapping.file() != File::of(fd)?),
            Owner::Kernel { .. } => Ok(false),
        }
    }

    /// Events of the trace that were handed out of the buffer or lost before: the place of the next one.
    pub(super) fn place(&self) -> Option<u64> {
        let ring = self.ring()?;
        let host = &ring.meta().host;
        // Relaxed: this reader's own GET_READERs wrote the one, and the host the other before it told of the buffer.
        Some(host.origin.load(Relaxed).wrapping_add(host.next_index.load(Relaxed)))
    }

    /// The place in the trace of the buffer's first event.
    fn origin(&self) -> Option<u64> {
        Some(self.ring()?.meta().host.origin.load(Relaxed))
    }

    /// The conversion that stands beside a ringtap buffer.
    pub(super) fn conversion(&self) -> Option<Conversion> {
        self.ring()?.meta().clock.load()
    }

    pub(super) fn subbuf_size(&self) -> u32 {
        self.subbuf_size
    }

    pub(super) fn nr_subbufs(&self) -> u32 {
        self.nr_subbufs
    }

    fn meta(&self) -> &KernelMeta {
        // SAFETY: mapped by `owner`, page-aligned, as long as the struct; made of atomics.
        unsafe { self.meta.as_ref() }
    }

    fn subbuf(&self, id: u32) -> NonNull<u8> {
        assert!(id < self.nr_subbufs);
        // SAFETY: `owner` maps this many sub-buffers.
        unsafe { self.data.add(id as usize * self.subbuf_size as usize) }
    }

    fn header(&self, id: u32) -> &SubbufHeader {
        // SAFETY: mapped by `owner`, page-aligned; made of atomics.
        unsafe { self.subbuf(id).cast::<SubbufHeader>().as_ref() }
    }

    /// The words of a sub-buffer's data.
    #[inline(always)]
    pub(super) fn words(&self, id: u32) -> DataWords<'_> {
        let capacity = self.subbuf_size - HEADER_LEN;
        // SAFETY: the header lies within the sub-buffer.
        let start = unsafe { self.subbuf(id).add(HEADER_LEN as usize) };
        // SAFETY: mapped by `owner` for as long as `self` is borrowed, aligned to 16, read as atomics alone.
        DataWords(unsafe {
            std::slice::from_raw_parts(start.cast::<AtomicU32>().as_ptr(), capacity as usize / 4)
        })
    }

    /// The reader page, as the last GET_READER of `cpu` left it.
    pub(super) fn page_now(&self, cpu: u32) -> Result<Page, ReadError> {
        let damaged = |field, value: u32| ReadError::Damaged { cpu, field, value: value.into() };
        let id = self.meta().reader_id.load(Acquire);
        if id >= self.nr_subbufs {
            return Err(damaged("reader.id", id));
        }
        let read = self.meta().reader_read.load(Acquire);
        if read > self.subbuf_size - HEADER_LEN || !read.is_multiple_of(4) {
            return Err(damaged("reader.read", read));
        }
        // Relaxed: who performed GET_READER had seen the page's commit, and the call's return orders us behind it.
        Ok(Page { id, read, time_stamp: self.header(id).time_stamp.load(Relaxed) })
    }

    /// The events lost before a page that was just handed out: `Some(None)` where their number is unknown.
    pub(super) fn lost_before(&self, page: &Page) -> Option<Option<u64>> {
        let lost = self.meta().reader_lost_events.load(Relaxed);
        if lost != 0 {
            return Some(Some(lost));
        }
        let commit = PageCommit::unpack(self.header(page.id).commit.load(Acquire));
        commit.is_missed().then(|| self.stored_count(page, commit))
    }

    /// The kernel's number of lost events behind the committed bytes.
    fn stored_count(&self, page: &Page, commit: PageCommit) -> Option<u64> {
        if !commit.is_missed_stored() {
            return None;
        }
        let words = self.words(page.id).0;
        let at = commit.len() as usize / 4;
        let [low, high] = [words.get(at)?, words.get(at + 1)?].map(|word| u64::from(word.load(Relaxed)));
        Some(high << 32 | low)
    }
}
