//! How large a buffer's parts are and where they lie.

use crate::meta::{DESCS_ALIGN, Desc, MetaPage, SLOTS_OFFSET};
use crate::subbuf::HEADER_LEN;
use crate::words::SubbufId;

/// Smallest sub-buffer: one 4 KiB page, as in the kernel.
pub const MIN_SUBBUF_SIZE: u32 = 4096;
/// Largest sub-buffer, as in the kernel (`buffer_subbuf_size_kb` up to 512).
pub const MAX_SUBBUF_SIZE: u32 = 512 * 1024;
/// Fewest ring sub-buffers, as in the kernel: with one, a writer would overwrite the page it writes.
pub const MIN_RING_SUBBUFS: u32 = 2;
/// Most ring sub-buffers; with the reader page there are 65,536, which is what a [`SubbufId`] can name.
pub const MAX_RING_SUBBUFS: u32 = 65_535;

/// Sizes and offsets of one buffer, checked once when it is made or mapped.
///
/// `ring_subbufs` is the kernel's `nr_pages`: the sub-buffers in the ring. The reader page is one more, so
/// the meta-page's `nr_subbufs` is `ring_subbufs + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    subbuf_size: u32,
    ring_subbufs: u32,
}

/// Why a geometry is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// The sub-buffer size is not a power of two between [`MIN_SUBBUF_SIZE`] and [`MAX_SUBBUF_SIZE`].
    SubbufSize(u32),
    /// The number of ring sub-buffers is not between [`MIN_RING_SUBBUFS`] and [`MAX_RING_SUBBUFS`].
    RingSubbufs(u32),
}

impl core::fmt::Display for GeometryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::SubbufSize(bytes) => write!(
                f,
                "a sub-buffer of {bytes} bytes is impossible: use a power of two from {MIN_SUBBUF_SIZE} to {MAX_SUBBUF_SIZE}"
            ),
            Self::RingSubbufs(count) => write!(
                f,
                "a ring of {count} sub-buffers is impossible: use {MIN_RING_SUBBUFS} to {MAX_RING_SUBBUFS}"
            ),
        }
    }
}

impl core::error::Error for GeometryError {}

impl Geometry {
    /// Checks and makes a geometry: `subbuf_size` in bytes, `ring_subbufs` without the reader page.
    ///
    /// # Errors
    /// [`GeometryError`] names the value that is out of its range.
    pub const fn new(subbuf_size: u32, ring_subbufs: u32) -> Result<Self, GeometryError> {
        let in_range = MIN_SUBBUF_SIZE <= subbuf_size && subbuf_size <= MAX_SUBBUF_SIZE;
        if !in_range || !subbuf_size.is_power_of_two() {
            return Err(GeometryError::SubbufSize(subbuf_size));
        }
        if ring_subbufs < MIN_RING_SUBBUFS || ring_subbufs > MAX_RING_SUBBUFS {
            return Err(GeometryError::RingSubbufs(ring_subbufs));
        }
        Ok(Self { subbuf_size, ring_subbufs })
    }

    /// The smallest geometry of this sub-buffer size whose ring holds `bytes` of events, with the kernel's
    /// arithmetic for `buffer_size_kb`: the page headers do not count, and there are never fewer than two.
    ///
    /// # Errors
    /// [`GeometryError`] where no ring of that size exists.
    pub const fn for_bytes(subbuf_size: u32, bytes: u64) -> Result<Self, GeometryError> {
        if subbuf_size < MIN_SUBBUF_SIZE {
            return Err(GeometryError::SubbufSize(subbuf_size));
        }
        let count = bytes.div_ceil((subbuf_size - HEADER_LEN) as u64);
        let count = if count < MIN_RING_SUBBUFS as u64 { MIN_RING_SUBBUFS as u64 } else { count };
        #[expect(clippy::cast_possible_truncation, reason = "the branch before it saturates")]
        let count = if count > u32::MAX as u64 { u32::MAX } else { count as u32 };
        Self::new(subbuf_size, count)
    }

    /// Bytes of one sub-buffer, its header included.
    #[must_use]
    pub const fn subbuf_size(self) -> u32 {
        self.subbuf_size
    }

    /// Sub-buffers in the ring, the kernel's `nr_pages`.
    #[must_use]
    pub const fn ring_subbufs(self) -> u32 {
        self.ring_subbufs
    }

    /// All sub-buffers: the ring's and the reader page.
    #[must_use]
    pub const fn nr_subbufs(self) -> u32 {
        self.ring_subbufs + 1
    }

    /// Bytes of a sub-buffer that hold records: all but its header.
    #[must_use]
    pub const fn capacity(self) -> u32 {
        self.subbuf_size - HEADER_LEN
    }

    /// Whether `id` names a sub-buffer of this buffer.
    #[must_use]
    pub const fn contains(self, id: SubbufId) -> bool {
        (id.0 as u32) < self.nr_subbufs()
    }

    /// Byte offset of the `slots` array in the mapping.
    #[must_use]
    pub const fn slots_offset(self) -> usize {
        SLOTS_OFFSET
    }

    /// Byte offset of the `descs` array in the mapping.
    #[must_use]
    pub const fn descs_offset(self) -> usize {
        let end = SLOTS_OFFSET + self.ring_subbufs as usize * size_of::<u64>();
        end.next_multiple_of(DESCS_ALIGN)
    }

    /// Value of `meta_struct_len`: the extension with its arrays included.
    #[must_use]
    pub const fn meta_struct_len(self) -> usize {
        self.descs_offset() + self.nr_subbufs() as usize * size_of::<Desc>()
    }

    /// Value of `meta_page_size`: a multiple of the sub-buffer size, because clients compute with that.
    #[must_use]
    pub const fn meta_page_size(self) -> usize {
        self.meta_struct_len().next_multiple_of(self.subbuf_size as usize)
    }

    /// Byte offset of a sub-buffer in the mapping.
    #[must_use]
    pub const fn subbuf_offset(self, id: SubbufId) -> usize {
        self.meta_page_size() + id.0 as usize * self.subbuf_size as usize
    }

    /// Bytes of the whole mapping.
    #[must_use]
    pub const fn map_len(self) -> usize {
        self.meta_page_size() + self.nr_subbufs() as usize * self.subbuf_size as usize
    }
}

// A model checker's atomics are larger, and nothing of theirs is mapped.
#[cfg(not(loom))]
const _: () = assert!(SLOTS_OFFSET >= size_of::<MetaPage>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_geometries_are_refused_by_name() {
        assert_eq!(Geometry::new(4095, 8), Err(GeometryError::SubbufSize(4095)));
        assert_eq!(Geometry::new(12288, 8), Err(GeometryError::SubbufSize(12288)));
        assert_eq!(Geometry::new(1 << 20, 8), Err(GeometryError::SubbufSize(1 << 20)));
        assert_eq!(Geometry::new(4096, 1), Err(GeometryError::RingSubbufs(1)));
        assert_eq!(Geometry::new(4096, 65_536), Err(GeometryError::RingSubbufs(65_536)));
        assert!(Geometry::new(4096, 65_535).is_ok());
    }

    #[test]
    fn buffer_size_arithmetic_is_the_kernels() {
        // Seen on Linux 6.18: writing 64, 16, 40, 100, 4 and 1 gives 17, 5, 11, 26, 2 and 2 pages.
        for (kb, pages) in [(64, 17), (16, 5), (40, 11), (100, 26), (4, 2), (1, 2)] {
            assert_eq!(Geometry::for_bytes(4096, kb * 1024).unwrap().ring_subbufs(), pages, "{kb} KiB");
        }
        assert!(Geometry::for_bytes(4096, u64::MAX).is_err());
    }

    #[test]
    fn parts_do_not_overlap_and_are_aligned() {
        for size in [4096, 8192, 65_536, 524_288] {
            for ring in [2, 3, 354, 4096, 65_535] {
                let g = Geometry::new(size, ring).unwrap();
                assert_eq!(g.meta_page_size() % size as usize, 0);
                assert!(g.meta_struct_len() <= g.meta_page_size());
                assert!(g.slots_offset() + ring as usize * 8 <= g.descs_offset());
                assert_eq!(g.subbuf_offset(SubbufId(0)), g.meta_page_size());
                let last = SubbufId(u16::try_from(ring).unwrap());
                assert!(g.contains(last));
                assert_eq!(g.subbuf_offset(last) + size as usize, g.map_len());
            }
        }
    }
}
