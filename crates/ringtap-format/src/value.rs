//! Fields of records as values.

use crate::format::{Field, Kind, Meaning};
use crate::target::{ByteOrder, Target};

/// A field's value in one record; what is larger than a number is borrowed from the record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'r> {
    /// A number without a sign.
    Unsigned(u64),
    /// A number with a sign.
    Signed(i64),
    /// An address in the kernel or in a task.
    Address(u64),
    /// A floating-point number.
    Float(f64),
    /// Text without its NUL; kernels do not promise UTF-8.
    Text(&'r [u8]),
    /// Any other array or structure.
    Bytes(&'r [u8]),
}

impl Field {
    /// The field's text in `record`, up to its NUL; `None` where it is no text or the record too short.
    #[must_use]
    #[inline]
    pub fn text<'r>(&self, record: &'r [u8], target: Target) -> Option<&'r [u8]> {
        if self.is_text() { self.bytes(record, target).map(crate::out::until_nul) } else { None }
    }

    /// The field's value in `record`; `None` where the record is too short for it.
    #[must_use]
    #[inline]
    pub fn value<'r>(&self, record: &'r [u8], target: Target) -> Option<Value<'r>> {
        Some(match &self.kind {
            Kind::Pointer => Value::Address(self.int(record, target)?),
            Kind::Int | Kind::Bits { .. } => {
                let raw = self.int(record, target)?;
                if self.signed { Value::Signed(raw.cast_signed()) } else { Value::Unsigned(raw) }
            }
            Kind::Float => Value::Float(float(self.bytes(record, target)?, target)?),
            Kind::Opaque => Value::Bytes(self.bytes(record, target)?),
            Kind::Array(element) | Kind::Rest(element) | Kind::Dynamic { element, .. } => {
                let bytes = self.bytes(record, target)?;
                match element.meaning {
                    Meaning::Text => Value::Text(crate::out::until_nul(bytes)),
                    _ => Value::Bytes(bytes),
                }
            }
        })
    }
}

/// An integer field, resolved once for reading it from many records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntField {
    offset: u32,
    size: u8,
    signed: bool,
    target: Target,
    /// The bits of an integer of this size.
    mask: u64,
    /// Its sign bit; 0 where it has none.
    sign: u64,
}

impl IntField {
    /// The reader of `field`, where that is an integer of whole bytes.
    #[must_use]
    pub fn new(field: &Field, target: Target) -> Option<Self> {
        match field.kind {
            Kind::Int | Kind::Pointer => {
                Some(Self::at(field.offset, field.int_size()?, field.signed, target))
            }
            _ => None,
        }
    }

    /// The integer of `size` bytes, 1 to 8, at `offset`.
    pub(crate) fn at(offset: u32, size: u8, signed: bool, target: Target) -> Self {
        let mask = crate::target::convert(u64::MAX, size, false);
        let sign = if signed { mask ^ mask.wrapping_shr(1) } else { 0 };
        Self { offset, size, signed, target, mask, sign }
    }

    /// Where the field starts, in bytes from the record's start.
    pub(crate) fn offset(&self) -> u32 {
        self.offset
    }

    /// Where the field ends, in bytes from the record's start.
    pub(crate) fn end(&self) -> u32 {
        self.offset.saturating_add(u32::from(self.size))
    }

    /// The field's number in `record`, its sign extended; `None` where the record is too short.
    #[must_use]
    #[inline(always)]
    pub fn get(&self, record: &[u8]) -> Option<u64> {
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
        // Mostly eight bytes are there: one load, no branch on the size.
        match record.get(offset..)?.first_chunk() {
            Some(chunk) if self.target.order == ByteOrder::Little => {
                let raw = u64::from_le_bytes(*chunk) & self.mask;
                Some((raw ^ self.sign).wrapping_sub(self.sign))
            }
            _ => self.target.int(record, offset, self.size, self.signed),
        }
    }
}

/// The floating-point number of 4 or 8 bytes.
pub(crate) fn float(bytes: &[u8], target: Target) -> Option<f64> {
    let little = target.order == ByteOrder::Little;
    if let Ok(raw) = <[u8; 8]>::try_from(bytes) {
        return Some(if little { f64::from_le_bytes(raw) } else { f64::from_be_bytes(raw) });
    }
    let raw = <[u8; 4]>::try_from(bytes).ok()?;
    Some(f64::from(if little { f32::from_le_bytes(raw) } else { f32::from_be_bytes(raw) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;

    #[test]
    fn resolved_integers_are_those_of_their_fields() {
        let record: Vec<u8> = (0..24).map(|at| 0x81 + at * 3).collect();
        for target in [Target::LE64, Target::BE64] {
            for (size, signed) in (1..=8).flat_map(|size| [(size, false), (size, true)]) {
                for offset in 0..24u8 {
                    let field = IntField::at(offset.into(), size, signed, target);
                    let plain = target.int(&record, offset.into(), size, signed);
                    assert_eq!(field.get(&record), plain, "{size} bytes at {offset}, signed: {signed}");
                }
            }
        }
    }

    #[test]
    fn fields_of_every_kind() {
        let text = "name: e\nID: 1\nformat:\n\tfield:int a;offset:0;size:4;signed:1;\n\tfield:void * p;offset:8;size:8;\
                    signed:0;\n\tfield:double f;offset:16;size:8;signed:1;\n\tfield:char c[4];offset:24;size:4;signed:0;\n\
                    \tfield:u16 n[];offset:28;size:0;signed:0;\n";
        let format = Format::parse("x", text, Target::LE64).unwrap();
        let mut record = vec![0; 32];
        record[..4].copy_from_slice(&(-5i32).to_le_bytes());
        record[8..16].copy_from_slice(&0xffff_8880_0000_0000u64.to_le_bytes());
        record[16..24].copy_from_slice(&1.5f64.to_le_bytes());
        record[24..26].copy_from_slice(b"ab");
        let value = |name: &str| format.field(name).unwrap().value(&record, Target::LE64);
        assert_eq!(value("a"), Some(Value::Signed(-5)));
        assert_eq!(value("p"), Some(Value::Address(0xffff_8880_0000_0000)));
        assert_eq!(value("f"), Some(Value::Float(1.5)));
        assert_eq!(value("c"), Some(Value::Text(b"ab")));
        assert_eq!(value("n"), Some(Value::Bytes(&[0; 4])));
        assert_eq!(format.field("c").unwrap().value(&record[..26], Target::LE64), None);
    }
}
