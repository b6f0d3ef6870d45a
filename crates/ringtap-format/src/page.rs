//! Raw sub-buffers, as `trace_pipe_raw` hands them out: their records and what was lost before them.

use crate::header::PageLayout;
use crate::target::ByteOrder;
use ringtap_abi::event::EventHeader;
use ringtap_abi::records::{Damage, Walk, Words};
use ringtap_abi::subbuf::PageCommit;

/// One sub-buffer's bytes with its header read.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    layout: PageLayout,
    /// The committed records.
    data: &'a [u8],
    time_stamp: u64,
    lost: Option<Lost>,
    /// Bytes that the commit word claims and the page does not have.
    missing: u32,
}

/// Events that were lost right before a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// So many.
    Events(u64),
    /// The page was too full to say how many.
    Unknown,
}

impl Lost {
    /// How many, where that is known.
    #[must_use]
    pub const fn count(self) -> Option<u64> {
        match self {
            Self::Events(count) => Some(count),
            Self::Unknown => None,
        }
    }
}

/// A page that cannot be read, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Fewer bytes than a page's header.
    #[error("page of {len} bytes where its header alone has {header}")]
    Short {
        /// The bytes there are.
        len: usize,
        /// Bytes of the header.
        header: u32,
    },
    /// The commit word claims more bytes than the page has.
    #[error("page's commit word claims {stated} bytes of records where {room} fit")]
    Commit {
        /// What it claims.
        stated: u32,
        /// What there is.
        room: u32,
    },
    /// A record whose length cannot be true.
    #[error(transparent)]
    Record(#[from] Damage),
}

/// A record of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRecord<'a> {
    /// Its time, in ticks of the buffer's clock.
    pub time: u64,
    /// Its bytes, the common fields first; rounded up to 4 by the writer.
    pub bytes: &'a [u8],
}

impl<'a> Page<'a> {
    /// Reads the header of the page in `bytes`, which may be longer than the page.
    ///
    /// # Errors
    /// Where not even the header is there. A commit word that lies is an error of [`records`](Self::records), behind
    /// the records that can be read.
    pub fn new(bytes: &'a [u8], layout: PageLayout) -> Result<Self, PageError> {
        let short = || PageError::Short { len: bytes.len(), header: layout.data_offset };
        let at = |offset: u32| usize::try_from(offset).unwrap_or(usize::MAX);
        let target = layout.target;
        let time_stamp = target.uint(bytes, 0, 8).ok_or_else(short)?;
        let commit = target.uint(bytes, at(layout.commit_offset), layout.commit_size).ok_or_else(short)?;
        let data = bytes.get(at(layout.data_offset)..).ok_or_else(short)?;
        let data = data.get(..at(layout.data_size)).unwrap_or(data);
        let commit = PageCommit::unpack(commit);
        let room = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let lost = match target.uint(data, at(commit.len()), layout.commit_size) {
            _ if !commit.is_missed() => None,
            Some(count) if commit.is_missed_stored() => Some(Lost::Events(count)),
            _ => Some(Lost::Unknown),
        };
        let missing = commit.len().saturating_sub(room);
        let data = data.get(..at(commit.len())).unwrap_or(data);
        Ok(Self { layout, data, time_stamp, lost, missing })
    }

    /// What was lost right before this page.
    #[must_use]
    pub const fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// The page's own time, that of its first record.
    #[must_use]
    pub const fn time_stamp(&self) -> u64 {
        self.time_stamp
    }

    /// The page's records, in order.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        let committed = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        Records {
            walk: Walk::new(self.time_stamp, committed),
            words: PageWords { data: self.data, order: self.layout.target.order },
            missing: self.missing,
        }
    }
}

/// The records of a page; after an error there are no more of them.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    walk: Walk,
    words: PageWords<'a>,
    missing: u32,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<PageRecord<'a>, PageError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.walk.next(&self.words) {
            Ok(Some(record)) => {
                let start = usize::try_from(record.offset).ok()?;
                let len = usize::try_from(record.len).ok()?;
                let bytes = self.words.data.get(start..)?.get(..len)?;
                Some(Ok(PageRecord { time: record.time, bytes }))
            }
            Ok(None) if self.missing > 0 => {
                let room = u32::try_from(self.words.data.len()).unwrap_or(u32::MAX);
                let stated = room.saturating_add(std::mem::take(&mut self.missing));
                Some(Err(PageError::Commit { stated, room }))
            }
            Ok(None) => None,
            Err(damage) => {
                self.missing = 0;
                Some(Err(damage.into()))
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct PageWords<'a> {
    data: &'a [u8],
    order: ByteOrder,
}

impl Words for PageWords<'_> {
    #[inline(always)]
    fn word(&self, offset: u32) -> u32 {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        // A page cut short can end inside a word: the walk finds a length that lies and ends.
        let raw = self.data.get(start..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        match self.order {
            ByteOrder::Little => u32::from_le_bytes(raw),
            ByteOrder::Big => u32::from_be_bytes(raw),
        }
    }

    #[inline(always)]
    fn header(&self, word: u32) -> EventHeader {
        match self.order {
            ByteOrder::Little => EventHeader::from_le_bits(word),
            ByteOrder::Big => EventHeader::from_be_bits(word),
        }
    }
}

/// What the walk over any bytes promises: it ends and its records lie inside. Fuzzers and tests call it.
pub fn check_page(bytes: &[u8]) {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let mut layout = PageLayout::of_size(4096);
        layout.target.order = order;
        let Ok(page) = Page::new(bytes, layout) else { continue };
        let mut left = bytes.len();
        let mut ended = false;
        for record in page.records() {
            assert!(!ended, "a record behind an error");
            match record {
                Ok(record) => {
                    let used = record.bytes.len().saturating_add(4);
                    assert!(used <= left, "records are larger than their page");
                    left = left.saturating_sub(used);
                }
                Err(_) => ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;
    use proptest::prelude::*;

    /// A page of one record of 8 bytes with delta 5, on a machine of this byte order.
    fn page(order: ByteOrder, commit: u64, lost: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |number: u64, len: usize| match order {
            ByteOrder::Little => bytes.extend_from_slice(&number.to_le_bytes()[..len]),
            ByteOrder::Big => bytes.extend_from_slice(&number.to_be_bytes()[8 - len..]),
        };
        put(1000, 8);
        put(commit, 8);
        put(if order == ByteOrder::Little { 5 << 5 | 2 } else { 2 << 27 | 5 }, 4);
        put(0x1111_2222, 4);
        put(0x3333_4444, 4);
        put(lost, 8);
        bytes
    }

    #[test]
    fn pages_of_both_byte_orders() {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let layout = PageLayout { target: Target { order, long_size: 8 }, ..PageLayout::of_size(4096) };
            let bytes = page(order, 0xffff_ffff_c000_000c, 77);
            let page = Page::new(&bytes, layout).unwrap();
            assert_eq!(page.lost(), Some(Lost::Events(77)));
            let records: Vec<_> = page.records().map(Result::unwrap).collect();
            assert_eq!(records.len(), 1);
            assert_eq!((records[0].time, records[0].bytes.len()), (1005, 8));
            assert_eq!(layout.target.uint(records[0].bytes, 4, 4), Some(0x3333_4444));
        }
    }

    #[test]
    fn lies_are_errors_behind_what_can_be_read() {
        let layout = PageLayout { target: Target::LE64, ..PageLayout::of_size(4096) };
        let bytes = &page(ByteOrder::Little, 4000, 0)[..28];
        let found: Vec<_> = Page::new(bytes, layout).unwrap().records().collect();
        assert!(found[0].is_ok());
        assert_eq!(found.last().unwrap(), &Err(PageError::Commit { stated: 4000, room: 12 }));
        let bytes = page(ByteOrder::Little, 8, 0);
        let found: Vec<_> = Page::new(&bytes, layout).unwrap().records().collect();
        assert!(matches!(found[..], [Err(PageError::Record(Damage { offset: 0, stated_len: 12, room: 8 }))]));
        let said = Page::new(&bytes[..10], layout).unwrap_err().to_string();
        assert_eq!(said, "page of 10 bytes where its header alone has 16");
    }

    #[test]
    fn a_loss_without_room_for_its_number() {
        let layout = PageLayout { target: Target::LE64, ..PageLayout::of_size(28) };
        let bytes = page(ByteOrder::Little, 0xffff_ffff_8000_000c, 0);
        assert_eq!(Page::new(&bytes, layout).unwrap().lost(), Some(Lost::Unknown));
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_safely(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            check_page(&bytes);
        }

        #[test]
        fn small_lengths_are_walked_safely(
            commit in 0u64..300,
            words in proptest::collection::vec(0u32..64, 0..64),
        ) {
            let mut bytes = vec![0; 8];
            bytes.extend_from_slice(&commit.to_le_bytes());
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            check_page(&bytes);
        }
    }
}
