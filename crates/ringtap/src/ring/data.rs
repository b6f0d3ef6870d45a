//! The sub-buffers' bytes. This module exists to protect one invariant: no reference to them is ever made,
//! because other processes write them; they are read and written as atomic words, or by a section's assembly.

use super::store_hook;
use ringtap_abi::SubbufId;
use ringtap_abi::subbuf::{HEADER_LEN, SubbufHeader};
use ringtap_abi::sync::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

#[cfg(not(loom))]
pub(crate) use mapped::Data;
#[cfg(loom)]
pub(crate) use modelled::{Data, Page};

#[cfg(not(loom))]
mod mapped {
    use super::*;
    use ringtap_abi::Geometry;
    use std::marker::PhantomData;

    /// All sub-buffers of one mapping.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Data<'m> {
        start: *mut u8,
        geometry: Geometry,
        mapping: PhantomData<&'m AtomicU32>,
    }

    // SAFETY: a `Data` is a view of shared memory that is accessed through atomics and sections alone.
    unsafe impl Send for Data<'_> {}
    // SAFETY: as above.
    unsafe impl Sync for Data<'_> {}

    impl<'m> Data<'m> {
        /// A view of the sub-buffers that begin at `start`.
        ///
        /// # Safety
        /// 1. `start` is aligned to 4096 and followed by the geometry's sub-buffers for as long as `'m`.
        /// 2. Nobody makes references to these bytes.
        pub(crate) unsafe fn new(start: *mut u8, geometry: Geometry) -> Self {
            debug_assert!(start.addr().is_multiple_of(4096));
            Self { start, geometry, mapping: PhantomData }
        }

        /// Address of byte `at` of a sub-buffer, its header included.
        #[inline(always)]
        pub(crate) fn at(&self, page: SubbufId, at: u32) -> *mut u8 {
            debug_assert!(self.geometry.contains(page) && at <= self.geometry.subbuf_size());
            self.start.wrapping_add(usize::from(page.0) * self.geometry.subbuf_size() as usize + at as usize)
        }

        /// The header of a sub-buffer.
        pub(crate) fn header(&self, page: SubbufId) -> &'m SubbufHeader {
            assert!(self.geometry.contains(page));
            // SAFETY: by `new`'s 1 the header lies in the mapping, aligned, for 'm; it is made of atomics.
            unsafe { &*self.at(page, 0).cast::<SubbufHeader>() }
        }

        pub(super) fn word(&self, page: SubbufId, at: u32) -> &'m AtomicU32 {
            assert!(self.geometry.contains(page) && at.is_multiple_of(4) && at < self.geometry.subbuf_size());
            // SAFETY: by `new`'s 1 the word lies in the mapping, aligned, for 'm, and by 2 it is only used as an atomic.
            unsafe { &*self.at(page, at).cast::<AtomicU32>() }
        }
    }
}

#[cfg(loom)]
mod modelled {
    //! Sub-buffers of loom's atomics. Loom does not mix sizes, so the header's words are the header's alone.

    use super::*;
    use ringtap_abi::sync::AtomicU64;

    /// Words behind the header that a model's sub-buffer has: each costs time.
    const WORDS: usize = 6;

    /// A sub-buffer's first words.
    #[derive(Debug)]
    pub(crate) struct Page {
        header: SubbufHeader,
        words: [AtomicU32; WORDS],
    }

    impl Default for Page {
        fn default() -> Self {
            let header = SubbufHeader { time_stamp: AtomicU64::new(0), commit: AtomicU64::new(0) };
            Self { header, words: Default::default() }
        }
    }

    /// All sub-buffers of one model.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Data<'m> {
        pages: &'m [Page],
    }

    impl<'m> Data<'m> {
        /// A view of these sub-buffers.
        pub(crate) fn new(pages: &'m [Page]) -> Self {
            Self { pages }
        }

        /// The header of a sub-buffer.
        pub(crate) fn header(&self, page: SubbufId) -> &'m SubbufHeader {
            &self.pages[usize::from(page.0)].header
        }

        pub(super) fn word(&self, page: SubbufId, at: u32) -> &'m AtomicU32 {
            &self.pages[usize::from(page.0)].words[(at - HEADER_LEN) as usize / 4]
        }
    }
}

impl Data<'_> {
    /// Stores the word at byte `at` of a sub-buffer, its header included.
    pub(crate) fn store(&self, page: SubbufId, at: u32, word: u32) {
        #[cfg(loom)]
        if at < HEADER_LEN {
            let header = self.header(page);
            // The models' times fit in one word, and a writer's commit is 0.
            match at {
                0 => header.time_stamp.store(word.into(), Relaxed),
                8 => header.commit.store(word.into(), Relaxed),
                _ => assert_eq!(word, 0),
            }
            return;
        }
        // Relaxed: the commit's Release publishes it.
        self.word(page, at).store(word, Relaxed);
    }

    /// Loads the word at byte `at` of a sub-buffer, its header included.
    pub(crate) fn load(&self, page: SubbufId, at: u32) -> u32 {
        self.word(page, at).load(Relaxed)
    }

    /// Stores a number of eight bytes at byte `at` of a sub-buffer, as two words.
    pub(crate) fn store_u64(&self, page: SubbufId, at: u32, number: u64) {
        let [low, high] = words_of(number);
        self.store(page, at, low);
        self.store(page, at + 4, high);
    }

    /// Copies words to the beginning of a sub-buffer's data, for memory that nobody else has yet.
    ///
    /// # Panics
    /// Where the sub-buffer is shorter.
    pub(crate) fn copy_in(&self, page: SubbufId, copy: &[u32]) {
        for (at, &word) in (HEADER_LEN..).step_by(4).zip(copy) {
            // Relaxed: whoever is given the memory is given it in order.
            self.word(page, at).store(word, Relaxed);
        }
    }

    /// Copies the data bytes from `from` to `to`, behind the header, to the same place in `copy`.
    ///
    /// # Panics
    /// Where the range does not lie in the sub-buffer or in `copy`.
    pub(crate) fn copy_out(&self, page: SubbufId, from: u32, to: u32, copy: &mut [u32]) {
        let copy = &mut copy[from as usize / 4..to as usize / 4];
        store_hook();
        for (at, word) in (HEADER_LEN + from..HEADER_LEN + to).step_by(4).zip(copy) {
            // Relaxed: the caller validates afterwards what it copied.
            *word = self.word(page, at).load(Relaxed);
        }
    }
}

/// A number as its two words, in the order they have in memory.
pub(crate) fn words_of(number: u64) -> [u32; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "the halves of the number")]
    let words = [number as u32, (number >> 32) as u32];
    words
}
