//! Where an event's fields lie: as C would lay them out behind the common ones. All of it happens at compile time.

use super::value::{Kind, Value};
use super::{Common, PAYLOAD_LIMIT};
use ringtap_abi::event::MAX_SMALL_PAYLOAD;

/// Largest payload of an event without strings and slices: what the smallest sub-buffer takes, with an absolute time
/// stamp before it.
const FIXED_LIMIT: usize = 4096 - 16 - 8 - 8;

/// A field of a declared event.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Byte offset in the payload.
    pub offset: usize,
}

impl Field {
    /// A field of type `T`, without a place so far.
    #[must_use]
    pub const fn new<T: Value>(name: &'static str) -> Self {
        Self { name: bare(name), kind: T::KIND, offset: 0 }
    }
}

/// Gives each field its place, behind the one before it and aligned by its kind.
#[must_use]
pub const fn lay_out<const N: usize>(mut fields: [Field; N]) -> [Field; N] {
    let (mut index, mut end) = (0, Common::LEN);
    while index < N {
        let kind = fields[index].kind;
        fields[index].offset = end.next_multiple_of(kind.align());
        end = fields[index].offset + kind.size();
        index += 1;
    }
    fields
}

/// Where a field lies.
///
/// # Panics
/// Where there is no such field.
#[must_use]
pub const fn offset_of(fields: &[Field], name: &'static str) -> usize {
    match find(fields, name) {
        Some(field) => field.offset,
        None => panic!("there is no such field"),
    }
}

/// The field of this name.
pub(super) const fn find<'f>(fields: &'f [Field], name: &'static str) -> Option<&'f Field> {
    let (mut index, name) = (0, bare(name));
    while index < fields.len() {
        if is_same(fields[index].name.as_bytes(), name.as_bytes()) {
            return Some(&fields[index]);
        }
        index += 1;
    }
    None
}

/// An identifier as C has it: a field may have to be `r#type` in Rust.
pub(super) const fn bare(identifier: &'static str) -> &'static str {
    match identifier.as_bytes() {
        [b'r', b'#', ..] => identifier.split_at(2).1,
        _ => identifier,
    }
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

/// Whether an event has strings or slices.
#[must_use]
pub const fn is_dynamic(fields: &[Field]) -> bool {
    let mut index = 0;
    while index < fields.len() {
        if fields[index].kind.is_dynamic() {
            return true;
        }
        index += 1;
    }
    false
}

/// Bytes of the payload without strings and slices, padded to words. Not 8: the ring makes 12 of those, so the zeros are
/// here from the start.
///
/// # Panics
/// Where the event is too large for the stack or for the smallest sub-buffer.
#[must_use]
pub const fn payload_len(fields: &[Field]) -> usize {
    let end = match fields {
        [.., last] => last.offset + last.kind.size(),
        [] => Common::LEN,
    };
    // Dynamic fields have a NUL each, at most.
    assert!(
        !is_dynamic(fields) || end + fields.len() <= PAYLOAD_LIMIT,
        "event: too large for one with strings"
    );
    assert!(end <= FIXED_LIMIT, "event: its fields are larger than a sub-buffer of 4 KiB takes");
    match end.next_multiple_of(4) {
        8 => 12,
        len => len,
    }
}

/// The payload's length where the ring has a hot path for it, another that has one elsewhere: so that the hot path is not
/// compiled for lengths that it does not take.
#[must_use]
pub const fn plain_len(len: usize) -> usize {
    if len <= MAX_SMALL_PAYLOAD as usize { len } else { 12 }
}

/// The first `LEN` bytes of a record that was built in words.
#[must_use]
#[inline(always)]
pub const fn view<const WORDS: usize, const LEN: usize>(words: &[u64; WORDS]) -> &[u8; LEN] {
    const { assert!(LEN <= WORDS * 8) };
    // SAFETY: the words are at least `LEN` initialised bytes, and bytes have no alignment.
    unsafe { &*std::ptr::from_ref(words).cast::<[u8; LEN]>() }
}
