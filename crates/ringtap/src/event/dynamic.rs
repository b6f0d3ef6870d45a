//! Events with strings or slices: the fixed fields, then the bytes that their `__data_loc`s point at.

use super::PAYLOAD_LIMIT;
use super::layout::Field;
use super::value::{Kind, Shown, cut};
use crate::{Refused, Writer};

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
#[inline]
pub fn write<const N: usize>(
    writer: &Writer,
    words: &[u64],
    fields: &[Field; N],
    tails: [Tail<'_>; N],
) -> Result<(), Refused> {
    let fixed_len = fields.last().map_or(0, |last| last.offset + last.kind.size());
    let (tails, len) = fit(fields, tails, fixed_len);
    let mut reservation = writer.reserve::<PAYLOAD_LIMIT>(len)?;
    let payload = reservation.bytes();
    for (bytes, word) in payload[..fixed_len].chunks_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
    }
    let mut end = fixed_len;
    for (field, tail) in fields.iter().zip(tails).filter(|(field, _)| field.kind.is_dynamic()) {
        let len = tail.bytes.len() + terminator(&field.kind);
        payload[end..end + tail.bytes.len()].copy_from_slice(tail.bytes);
        payload[field.offset..field.offset + 4].copy_from_slice(&data_loc(end, len).to_le_bytes());
        end += len;
    }
    reservation.commit()
}

/// Cuts the tails so that the payload keeps its limit, and tells its length.
#[inline]
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

/// Where dynamic data lies, as the kernel packs it: the length in the upper half, the offset in the lower.
#[expect(clippy::cast_possible_truncation, reason = "both are at most PAYLOAD_LIMIT")]
fn data_loc(offset: usize, len: usize) -> u32 {
    const { assert!(PAYLOAD_LIMIT <= u16::MAX as usize) };
    (len as u32) << 16 | offset as u32
}
