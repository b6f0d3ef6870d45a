//! One event's `format` file: its name, number and fields.
//!
//! ```text
//! name: sched_wakeup
//! ID: 369
//! format:
//!  field:unsigned short common_type; offset:0; size:2; signed:0;
//!  ...
//! print fmt: "comm=%s pid=%d prio=%d target_cpu=%03d", REC->comm, REC->pid, REC->prio, REC->target_cpu
//! ```

pub(crate) mod ctype;
mod declaration;
mod parse;

pub use parse::{Format, FormatError};

use crate::target::Target;

/// A field of an event, as its `field:` line declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The field's name.
    pub name: String,
    /// Its type as written, without the name and without the dimensions behind it: `unsigned long`,
    /// `__data_loc char[]`, `struct mm_struct *`.
    pub type_name: String,
    /// Where it starts in the record, in bytes.
    pub offset: u32,
    /// Its bytes in the record's fixed part; 0 for an array that reaches to the record's end.
    pub size: u32,
    /// Whether its integers have a sign.
    pub signed: bool,
    /// What it holds.
    pub kind: Kind,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One integer: also `bool`, enums and typedefs of integers.
    Int,
    /// One address.
    Pointer,
    /// Some bits of an integer, `unsigned int x:3`: the lowest bit's place and their number.
    Bits {
        /// Place of the lowest bit, from the integer's lowest.
        shift: u8,
        /// How many bits.
        width: u8,
    },
    /// One floating-point number of 4 or 8 bytes.
    Float,
    /// An array of fixed length; of `char` it is text that ends at its first NUL.
    Array(Element),
    /// An array whose place stands in the field: offset in the low, length in the high 16 bits.
    Dynamic {
        /// `__rel_loc`: the offset counts from the end of the field; else, `__data_loc`, from the record's start.
        relative: bool,
        /// What the array holds.
        element: Element,
    },
    /// An array of size 0 that reaches to the record's end.
    Rest(Element),
    /// A structure: bytes whose meaning the format file does not tell.
    Opaque,
}

/// What an array holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// Bytes of one element, at least 1.
    pub size: u32,
    /// Whether the elements have a sign.
    pub signed: bool,
    /// What they mean.
    pub meaning: Meaning,
}

/// What an array's elements mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Numbers.
    Numbers,
    /// `char`: text.
    Text,
    /// Addresses.
    Pointers,
    /// A bit mask in words, of CPUs or nodes.
    Mask,
    /// Structures.
    Opaque,
}

impl Field {
    /// Bytes of this field's integer, where it is one: 1 to 8.
    #[must_use]
    pub fn int_size(&self) -> Option<u8> {
        match self.kind {
            Kind::Int | Kind::Pointer | Kind::Bits { .. } => {
                u8::try_from(self.size).ok().filter(|size| (1..=8).contains(size))
            }
            _ => None,
        }
    }

    /// Whether the field is text of any kind.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        matches!(
            self.kind,
            Kind::Array(Element { meaning: Meaning::Text, .. })
                | Kind::Rest(Element { meaning: Meaning::Text, .. })
                | Kind::Dynamic { element: Element { meaning: Meaning::Text, .. }, .. }
        )
    }

    /// What the field's array holds, where it is one.
    #[must_use]
    pub const fn element(&self) -> Option<Element> {
        match self.kind {
            Kind::Array(element) | Kind::Rest(element) | Kind::Dynamic { element, .. } => Some(element),
            _ => None,
        }
    }

    /// The bytes of the field's array in `record`; for any other field its own bytes.
    ///
    /// `None` where the record is too short for it, or where a dynamic array's place lies outside.
    #[must_use]
    #[inline]
    pub fn bytes<'r>(&self, record: &'r [u8], target: Target) -> Option<&'r [u8]> {
        let offset = usize::try_from(self.offset).ok()?;
        match self.kind {
            Kind::Dynamic { relative, .. } => dynamic(record, offset, relative, target),
            Kind::Rest(_) => record.get(offset..),
            _ => record.get(offset..)?.get(..usize::try_from(self.size).ok()?),
        }
    }

    /// The field's integer in `record`, its sign extended; `None` where it is no integer or the record too short.
    #[must_use]
    #[inline]
    pub fn int(&self, record: &[u8], target: Target) -> Option<u64> {
        let offset = usize::try_from(self.offset).ok()?;
        match self.kind {
            Kind::Int | Kind::Pointer => {
                target.int(record, offset, u8::try_from(self.size).ok()?, self.signed)
            }
            Kind::Bits { shift, width } => {
                let whole = target.uint(record, offset, u8::try_from(self.size).ok()?)?;
                Some(cut_bits(whole, shift, width, self.signed))
            }
            _ => None,
        }
    }
}

/// `width` bits of `whole` from `shift` on, their sign extended where they have one.
#[inline]
pub(crate) fn cut_bits(whole: u64, shift: u8, width: u8, signed: bool) -> u64 {
    let above = 64u32.saturating_sub(u32::from(shift)).saturating_sub(u32::from(width)).min(63);
    let unused = 64u32.saturating_sub(u32::from(width)).min(63);
    let top = whole.wrapping_shl(above);
    if signed { (top.cast_signed().wrapping_shr(unused)).cast_unsigned() } else { top.wrapping_shr(unused) }
}

/// The bytes that a `__data_loc` or `__rel_loc` word at `offset` names.
#[inline]
pub(crate) fn dynamic(record: &[u8], offset: usize, relative: bool, target: Target) -> Option<&[u8]> {
    let word = target.uint(record, offset, 4)?;
    let start = usize::try_from(word & 0xffff).ok()?;
    let len = usize::try_from(word >> 16).ok()?;
    let base = if relative { offset.saturating_add(4) } else { 0 };
    record.get(start.saturating_add(base)..)?.get(..len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_cut_from_both_ends() {
        assert_eq!(cut_bits(0b1011_0000, 4, 4, false), 0b1011);
        assert_eq!(cut_bits(0b1011_0000, 4, 4, true), 0xffff_ffff_ffff_fffb);
        assert_eq!(cut_bits(u64::MAX, 0, 64, false), u64::MAX);
        assert_eq!(cut_bits(u64::MAX, 63, 1, false), 1);
    }

    #[test]
    fn dynamic_arrays_stay_inside_the_record() {
        let mut record = vec![0; 8];
        record.extend_from_slice(&(3u32 << 16 | 12).to_le_bytes());
        record.extend_from_slice(b"abc");
        assert_eq!(dynamic(&record, 8, false, Target::LE64), Some(&b"abc"[..]));
        record[8] = 0;
        assert_eq!(dynamic(&record, 8, true, Target::LE64), Some(&b"abc"[..]));
        record[8] = 1;
        assert_eq!(dynamic(&record, 8, true, Target::LE64), None);
        assert_eq!(dynamic(&record, 13, true, Target::LE64), None);
    }
}
