//! Events with strings or slices: the fixed fields, then the bytes that their `__data_loc`s point at.

use super::PAYLOAD_LIMIT;
use super::layout::Field;
use super::switch::Route;
use super::value::{Kind, Shown, Value, cut};
use crate::{Refused, Writer};
use std::mem::MaybeUninit;

/// What a string or slice puts behind the fixed fields; nothing for the others.
#[derive(Clone, Copy, Debug)]
pub struct Tail<'e> {
    /// The bytes, without a string's NUL.
    pub bytes: &'e [u8],
}

/// Writes an event whose fixed fields stand in `words`, with the tails of all its fields.
///
/// # Errors
/// As [`Writer::write`].
#[inline(always)]
pub fn write<const N: usize>(
    writer: &Writer,
    route: Route,
    words: &mut [u64],
    fields: &[Field; N],
    tails: [Tail<'_>; N],
) -> Result<(), Refused> {
    let fixed_len = fields.last().map_or(0, |last| last.offset + last.kind.size());
    let (tails, len) = fit(fields, tails, fixed_len);
    let dynamic = || fields.iter().zip(&tails).filter(|(field, _)| field.kind.is_dynamic());
    let mut end = fixed_len;
    for (field, tail) in dynamic() {
        let len = tail.bytes.len() + terminator(&field.kind);
        data_loc(end, len).put(words, field.offset);
        end += len;
    }
    let mut payload = Payload::new();
    payload.push_words(&words[..fixed_len / 8]);
    if !fixed_len.is_multiple_of(8) {
        payload.push(words[fixed_len / 8], fixed_len % 8);
    }
    for (field, tail) in dynamic() {
        payload.push_bytes(tail.bytes);
        if terminator(&field.kind) > 0 {
            payload.push(0, 1);
        }
    }
    // In words the record takes the ring's hot path; the zeros would be there anyway.
    writer.write_to(route, payload.finish(len.next_multiple_of(4)))
}

/// Cuts the tails so that the payload keeps its limit, and tells its length.
#[inline(always)]
fn fit<'e, const N: usize>(
    fields: &[Field; N],
    mut tails: [Tail<'e>; N],
    fixed_len: usize,
) -> ([Tail<'e>; N], usize) {
    // Each string has its NUL, however little room there is.
    let nuls: usize = fields.iter().map(|field| terminator(&field.kind)).sum();
    let mut room = PAYLOAD_LIMIT.saturating_sub(fixed_len + nuls);
    for (field, tail) in fields.iter().zip(&mut tails) {
        tail.bytes = match field.kind.shown {
            Shown::Text => cut(tail.bytes, room),
            _ => {
                &tail.bytes[..tail.bytes.len().min(room / field.kind.element_size * field.kind.element_size)]
            }
        };
        room -= tail.bytes.len();
    }
    (tails, PAYLOAD_LIMIT.max(fixed_len + nuls) - room)
}

/// Bytes behind a string's: its NUL.
fn terminator(kind: &Kind) -> usize {
    usize::from(kind.is_dynamic() && matches!(kind.shown, Shown::Text))
}

/// A payload that is built in whole words: bytes that are stored one by one and then loaded as words would
/// stall, and cost more than the event.
struct Payload {
    /// The first `full` are initialised.
    words: [MaybeUninit<u64>; PAYLOAD_LIMIT / 8],
    full: usize,
    /// The word behind the full ones, zero where it is not filled.
    last: u64,
    /// How many bits of it are filled: fewer than 64.
    bits: usize,
}

impl Payload {
    #[inline(always)]
    fn new() -> Self {
        Self { words: [MaybeUninit::uninit(); PAYLOAD_LIMIT / 8], full: 0, last: 0, bits: 0 }
    }

    /// Adds the first `len` bytes of a word, 1 to 8; the others are zero.
    #[inline(always)]
    fn push(&mut self, word: u64, len: usize) {
        self.last |= word << self.bits;
        let bits = self.bits + 8 * len;
        if bits >= 64 {
            self.words[self.full].write(self.last);
            self.full += 1;
            // What did not fit; a shift by 64 would be none.
            self.last = (word >> 1) >> (63 - self.bits);
        }
        self.bits = bits % 64;
    }

    #[inline(always)]
    fn push_words(&mut self, words: &[u64]) {
        words.iter().for_each(|&word| self.push(word, 8));
    }

    #[inline(always)]
    fn push_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|&word| self.push(u64::from_le_bytes(word), 8));
        if !rest.is_empty() {
            self.push(short_word(rest), rest.len());
        }
    }

    /// The first `len` bytes, of which all that were not pushed are zero.
    ///
    /// # Panics
    /// Where they are more than the word that was begun.
    #[inline(always)]
    fn finish(&mut self, len: usize) -> &[u8] {
        if self.bits > 0 {
            self.push(0, 8 - self.bits / 8);
        }
        assert!(len <= 8 * self.full);
        // SAFETY: `push` initialised the first `full` words, which are at least `len` bytes.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), len) }
    }
}

/// The word of 1 to 7 bytes, zero behind them.
#[inline(always)]
fn short_word(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    // Two loads that overlap instead of one for each byte.
    if let (Some(&low), Some(&high)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(low)) | u64::from(u32::from_le_bytes(high)) << (8 * (len - 4));
    }
    let (first, middle, last) = (bytes[0], bytes[len / 2], bytes[len - 1]);
    u64::from(first) | u64::from(middle) << (8 * (len / 2)) | u64::from(last) << (8 * (len - 1))
}

/// Where dynamic data lies, as the kernel packs it: the length in the upper half, the offset in the lower.
#[expect(clippy::cast_possible_truncation, reason = "both are at most PAYLOAD_LIMIT")]
fn data_loc(offset: usize, len: usize) -> u32 {
    const { assert!(PAYLOAD_LIMIT <= u16::MAX as usize) };
    (len as u32) << 16 | offset as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_lengths_come_out_as_they_went_in() {
        let text: Vec<u8> = (1..=255).collect();
        for first in 0..24 {
            for second in 0..24 {
                let mut payload = Payload::new();
                payload.push_words(&[u64::MAX]);
                payload.push_bytes(&text[..first]);
                payload.push(0, 1);
                payload.push_bytes(&text[100..100 + second]);
                let len = 8 + first + 1 + second;
                let expected = [&[0xff; 8], &text[..first], &[0], &text[100..100 + second]].concat();
                let bytes = payload.finish(len.next_multiple_of(4));
                assert_eq!(bytes[..len], expected, "{first} and {second} bytes");
                assert!(bytes[len..].iter().all(|&byte| byte == 0));
            }
        }
    }
}
