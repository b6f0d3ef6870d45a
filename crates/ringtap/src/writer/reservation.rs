//! An event that is built in place.

use super::Writer;
use crate::ring::write::Refused;
use std::mem::MaybeUninit;

/// An event being built: zeros at first. [`commit`](Self::commit) writes it; dropped, it never was.
#[derive(Debug)]
#[must_use = "an event that is not committed never was"]
pub struct Reservation<'w, const CAPACITY: usize> {
    pub(super) writer: &'w Writer,
    pub(super) len: usize,
    /// The first `len` are initialised.
    pub(super) bytes: [MaybeUninit<u8>; CAPACITY],
}

impl<const CAPACITY: usize> Reservation<'_, CAPACITY> {
    /// The event's bytes.
    #[must_use]
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `reserve` initialised the first `len`, and `truncate` only makes it less.
        unsafe { self.bytes[..self.len].assume_init_mut() }
    }

    /// Makes the event shorter, when it turned out so.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Writes the event.
    ///
    /// # Errors
    /// As [`Writer::write`].
    #[inline]
    pub fn commit(self) -> Result<(), Refused> {
        // SAFETY: as in `bytes`.
        self.writer.write(unsafe { self.bytes[..self.len].assume_init_ref() })
    }

    /// Drops the event, as not committing it does.
    pub fn discard(self) {}
}
