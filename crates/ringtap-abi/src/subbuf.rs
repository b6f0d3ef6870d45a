//! The sub-buffer's header, as `events/header_page` describes it on a 64-bit kernel.
//!
//! ```text
//!  0        8        16                                   subbuf_size
//!  +--------+--------+-------------------------------------+
//!  |  time  | commit | records ...                         |
//!  | stamp  |  word  |                                     |
//!  +--------+--------+-------------------------------------+
//! ```
//!
//! In ringtap only the host writes `commit`, when it hands the page to a reader; writers publish through
//! [`crate::words::Commit`] in the meta-page. The kernel's extra word for lost events stands behind the
//! committed bytes where there is room for it.

use crate::sync::AtomicU64;

/// Bytes of a sub-buffer's header on a 64-bit machine.
pub const HEADER_LEN: u32 = 16;

/// First 16 bytes of every sub-buffer.
#[derive(Debug)]
#[repr(C)]
pub struct SubbufHeader {
    /// Time of the page's first event, in ticks of the buffer's clock. Writer: with the first commit.
    pub time_stamp: AtomicU64,
    /// Committed data bytes with the kernel's loss flags, see [`PageCommit`]. Host: when it hands the page out.
    pub commit: AtomicU64,
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<SubbufHeader>() == HEADER_LEN as usize);
    assert!(core::mem::offset_of!(SubbufHeader, commit) == 8);
};

/// "Events were lost before this page." The kernel's flag is a negative 32-bit number added to a 64-bit
/// word, so in memory it stands sign-extended.
const MISSED_EVENTS: u64 = 0xffff_ffff_8000_0000;
/// "How many is stored behind the committed bytes."
const MISSED_STORED: u64 = 1 << 30;
const SIZE_MASK: u64 = (1 << 30) - 1;

/// A sub-buffer's commit word as the kernel writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCommit(u64);

impl PageCommit {
    /// `len` committed bytes, nothing lost before them.
    #[must_use]
    pub const fn new(len: u32) -> Self {
        Self(len as u64)
    }

    /// The same page, marked: events were lost before it.
    #[must_use]
    pub const fn with_missed(self, count_is_stored: bool) -> Self {
        Self(self.0 | MISSED_EVENTS | if count_is_stored { MISSED_STORED } else { 0 })
    }

    /// From the shared word. Only the low 32 bits count: kernels differ in the sign extension.
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self(word)
    }

    /// To the shared word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.0
    }

    /// Committed data bytes, behind the header. An allegation: compare it with the capacity.
    #[must_use]
    pub const fn len(self) -> u32 {
        (self.0 & SIZE_MASK) as u32
    }

    /// Whether the page holds no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether events were lost right before this page.
    #[must_use]
    pub const fn is_missed(self) -> bool {
        self.0 & (1 << 31) != 0
    }

    /// Whether their number stands behind the committed bytes, as a `u64`.
    #[must_use]
    pub const fn is_missed_stored(self) -> bool {
        self.is_missed() && self.0 & MISSED_STORED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_seen_on_a_kernel() {
        // Linux 6.18, mapped page: 0xfc0 bytes, events lost, their number stored.
        let word = PageCommit::unpack(0xffff_ffff_c000_0fc0);
        assert_eq!((word.len(), word.is_missed(), word.is_missed_stored()), (0xfc0, true, true));
        assert_eq!(PageCommit::new(0xfc0).with_missed(true), word);
        // A full page has no room for the number.
        assert_eq!(PageCommit::new(0xff0).with_missed(false).pack(), 0xffff_ffff_8000_0ff0);
        // The read path of some kernels extends with zeros.
        let word = PageCommit::unpack(0xc000_0fc0);
        assert_eq!((word.len(), word.is_missed_stored()), (0xfc0, true));
        assert!(!PageCommit::new(4080).is_missed());
    }
}
