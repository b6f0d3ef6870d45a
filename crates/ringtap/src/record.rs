//! What readers and cursors hand out: records, losses, and payloads that another process may be changing.

use crate::clock::Conversion;
use ringtap_abi::records::{self, Damage};
use ringtap_abi::sync::AtomicU32;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

/// What comes next in a buffer's stream.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// An event.
    Record(Record<'a>),
    /// Events that were overwritten before they were read: they stood here.
    Lost(Lost),
    /// The rest of a sub-buffer cannot be read. The stream goes on with the next one.
    Damaged(Damaged),
}

/// An event, lent until the next one is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its time, in ticks of the buffer's clock.
    pub ticks: u64,
    /// The CPU that it was written on.
    pub cpu: u32,
    /// What was written, rounded up to a multiple of 4 bytes.
    pub payload: Payload<'a>,
    conversion: &'a Conversion,
}

impl Record<'_> {
    /// Its time in nanoseconds of `CLOCK_MONOTONIC`; the ticks themselves where the clock does not tell time.
    ///
    /// A buffer's line from ticks to nanoseconds is drawn anew now and then. Where two lines meet, times may
    /// step back by what the older one was off, some microseconds; [`ticks`](Self::ticks) never do.
    #[must_use]
    pub fn ns(&self) -> u64 {
        self.conversion.ns(self.ticks)
    }
}

/// Events lost right before what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The CPU whose buffer lost them.
    pub cpu: u32,
    /// How many; `None` where the kernel had no room on the page to say.
    pub count: Option<u64>,
}

/// A sub-buffer with a record whose length cannot be true; the events behind it are unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The CPU whose buffer it is.
    pub cpu: u32,
    /// Where, and what is wrong.
    pub damage: Damage,
}

/// A record's bytes in memory that other processes may write.
///
/// Writers that keep to the protocol leave a record alone once it is committed. One that does not can change
/// these bytes at any time, so there is no safe way to a slice of them: each access copies, and two accesses may
/// see different bytes. Check what was copied, not what is to be copied.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    words: &'a [AtomicU32],
}

impl<'a> Payload<'a> {
    /// Its length in bytes, rounded up to 4 by the writer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len() * 4
    }

    /// Whether there are no bytes: never so for what a writer of ringtap or the kernel wrote.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The word that holds byte `offset`.
    #[inline]
    fn word(&self, offset: usize) -> Option<u32> {
        // Relaxed: the commit that this record was found by is acquired.
        Some(self.words.get(offset / 4)?.load(Relaxed))
    }

    /// The byte at `offset`.
    #[must_use]
    #[inline]
    pub fn u8_at(&self, offset: usize) -> Option<u8> {
        Some(self.word(offset)?.to_le_bytes()[offset % 4])
    }

    /// The number of two bytes at `offset`, aligned or not.
    #[must_use]
    #[inline]
    pub fn u16_at(&self, offset: usize) -> Option<u16> {
        let low = self.u8_at(offset)?;
        Some(u16::from_le_bytes([low, self.u8_at(offset.checked_add(1)?)?]))
    }

    /// The number of four bytes at `offset`, aligned or not.
    #[must_use]
    #[inline]
    pub fn u32_at(&self, offset: usize) -> Option<u32> {
        let low = self.word(offset)?;
        let shift = offset % 4 * 8;
        if shift == 0 {
            return Some(low);
        }
        let high = self.word(offset.checked_add(4)?)?;
        Some(low >> shift | high << (32 - shift))
    }

    /// The number of eight bytes at `offset`, aligned or not.
    #[must_use]
    #[inline]
    pub fn u64_at(&self, offset: usize) -> Option<u64> {
        let low = self.u32_at(offset)?;
        Some(u64::from(self.u32_at(offset.checked_add(4)?)?) << 32 | u64::from(low))
    }

    /// Copies the bytes from `offset` on, as many as `to` takes. `false`, and nothing copied, where there are
    /// fewer.
    #[must_use]
    pub fn copy_to_slice(&self, offset: usize, to: &mut [u8]) -> bool {
        if offset.checked_add(to.len()).is_none_or(|end| end > self.len()) {
            return false;
        }
        for (at, byte) in (offset..).zip(to) {
            // In range: tested above.
            *byte = self.u8_at(at).unwrap_or(0);
        }
        true
    }

    /// Appends all bytes to `to`.
    pub fn copy_to(&self, to: &mut Vec<u8>) {
        to.reserve(self.len());
        to.extend(self.words.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()));
    }

    /// All bytes, copied.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.copy_to(&mut bytes);
        bytes
    }

    /// The bytes themselves, without a copy.
    ///
    /// # Safety
    /// 1. No process writes to the record while the slice lives. The kernel never does, nor do writers that keep
    ///    to the protocol; whoever was given the buffer's read-write descriptor could. A cursor's records lie
    ///    in its private copy, which nobody writes meanwhile.
    #[must_use]
    pub unsafe fn as_bytes(&self) -> &'a [u8] {
        let start = NonNull::from(self.words).cast::<u8>();
        // SAFETY: the words are mapped and initialised for 'a; by 1 nobody writes them.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.len()) }
    }
}

/// A sub-buffer's data, or a copy of it, as words that may change while they are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataWords<'a>(pub(crate) &'a [AtomicU32]);

impl records::Words for DataWords<'_> {
    #[inline(always)]
    fn word(&self, offset: u32) -> u32 {
        // Relaxed: what the walk may look at lies before a commit that was acquired.
        self.0[offset as usize / 4].load(Relaxed)
    }
}

/// An item that is not yet lent: where it lies in the words that it was found in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    Record(records::Record),
    Lost(Option<u64>),
    Damaged(Damage),
}

impl Found {
    /// Lends the item. `words` are those that it was found in.
    #[inline(always)]
    pub(crate) fn lend<'a>(self, cpu: u32, conversion: &'a Conversion, words: DataWords<'a>) -> Item<'a> {
        match self {
            Self::Record(records::Record { time, offset, len }) => {
                let words = &words.0[offset as usize / 4..(offset + len) as usize / 4];
                Item::Record(Record { ticks: time, cpu, payload: Payload { words }, conversion })
            }
            Self::Lost(count) => Item::Lost(Lost { cpu, count }),
            Self::Damaged(damage) => Item::Damaged(Damaged { cpu, damage }),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn words(bytes: &[u8]) -> Vec<AtomicU32> {
        let word = |four: &[u8]| u32::from_le_bytes(four.try_into().unwrap());
        bytes.chunks(4).map(|four| AtomicU32::new(word(four))).collect()
    }

    #[test]
    fn numbers_are_read_at_any_offset_inside() {
        let bytes: Vec<u8> = (1..=24).collect();
        let words = words(&bytes);
        let payload = Payload { words: &words };
        assert_eq!(payload.len(), 24);
        for at in 0..24 {
            let rest = &bytes[at..];
            assert_eq!(payload.u8_at(at), Some(rest[0]));
            assert_eq!(payload.u16_at(at), rest.first_chunk().map(|b| u16::from_le_bytes(*b)), "{at}");
            assert_eq!(payload.u32_at(at), rest.first_chunk().map(|b| u32::from_le_bytes(*b)), "{at}");
            assert_eq!(payload.u64_at(at), rest.first_chunk().map(|b| u64::from_le_bytes(*b)), "{at}");
        }
        for outside in [24, 25, usize::MAX - 3, usize::MAX] {
            assert_eq!(payload.u8_at(outside), None);
            assert_eq!(payload.u16_at(outside), None);
            assert_eq!(payload.u32_at(outside), None);
            assert_eq!(payload.u64_at(outside), None);
        }
    }

    #[test]
    fn bytes_are_copied_whole_or_not_at_all() {
        let bytes: Vec<u8> = (1..=12).collect();
        let words = words(&bytes);
        let payload = Payload { words: &words };
        assert_eq!(payload.to_vec(), bytes);
        // SAFETY: 1. the words are this test's own.
        assert_eq!(unsafe { payload.as_bytes() }, bytes);
        let mut seven = [0; 7];
        assert!(payload.copy_to_slice(5, &mut seven));
        assert_eq!(seven, bytes[5..]);
        assert!(!payload.copy_to_slice(6, &mut seven) && !payload.copy_to_slice(usize::MAX, &mut seven));
    }
}
