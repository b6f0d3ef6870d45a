//! How numbers and bytes are laid out.

use super::Dialect;
use super::program::{HexDump, IntBase, Spec};
use crate::format::ctype::IntType;
use crate::out::{self, Base, Digits};
use crate::target::{Target, convert};

/// How a number is laid out.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) spec: Spec,
    pub(super) width: usize,
    pub(super) precision: Option<usize>,
    pub(super) dialect: Dialect,
}

impl Layout {
    pub(super) fn int(&self, value: u64, kind: IntType, base: IntBase, out: &mut Vec<u8>) {
        let value = convert(value, kind.size, kind.signed);
        let negative = kind.signed && base == IntBase::Decimal && value.cast_signed() < 0;
        let magnitude = if negative { value.wrapping_neg() } else { value };
        let digits = match base {
            IntBase::Decimal => Digits::new(magnitude, Base::Dec),
            IntBase::Octal => Digits::new(magnitude, Base::Oct),
            IntBase::Hex => Digits::new(magnitude, Base::Hex),
            IntBase::HexUpper => Digits::new(magnitude, Base::HexUpper),
        };
        // The kernel writes 0x in front of a 0, the C library does not.
        let nonzero = value != 0;
        let prefix: &[u8] = match base {
            _ if negative => b"-",
            IntBase::Decimal if kind.signed && self.spec.plus => b"+",
            IntBase::Decimal if kind.signed && self.spec.space => b" ",
            IntBase::Octal if self.spec.alternate && nonzero => b"0",
            IntBase::Hex if self.spec.alternate && (nonzero || self.dialect == Dialect::Kernel) => b"0x",
            IntBase::HexUpper if self.spec.alternate && (nonzero || self.dialect == Dialect::Kernel) => b"0X",
            _ => b"",
        };
        self.number(prefix, digits.bytes(), out);
    }

    /// A number's prefix and digits, padded as printf does.
    pub(super) fn number(&self, prefix: &[u8], digits: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let least = self.precision.unwrap_or(0);
        let zeros = if self.spec.zero && !self.spec.left && self.precision.is_none() {
            self.width.saturating_sub(prefix.len())
        } else {
            least
        };
        out.extend_from_slice(prefix);
        out::pad(out, b'0', zeros.saturating_sub(digits.len()));
        out.extend_from_slice(digits);
        out::widen(out, start, self.width, self.spec.left);
    }
}

/// Bytes as pairs of digits.
pub(super) fn hex_bytes(bytes: &[u8], separator: Option<u8>, out: &mut Vec<u8>) {
    for (place, byte) in bytes.iter().enumerate() {
        if place > 0
            && let Some(separator) = separator
        {
            out.push(separator);
        }
        out::hex_byte(out, *byte, false);
    }
}

/// The kernel's hex dump: rows of 16 or 32 bytes in groups of 1, 2, 4 or 8, each on a line of its own.
pub(super) fn hex_dump(bytes: &[u8], dump: &HexDump, target: Target, out: &mut Vec<u8>) {
    let row = if dump.row == 32 { 32 } else { 16 };
    out.push(b'\n');
    for (place, line) in bytes.chunks(row).enumerate() {
        out.extend_from_slice(&dump.prefix);
        // Of an address only the offset can be known: it is one of the running kernel's.
        if dump.prefix_type != 0 {
            out::hex_wide(out, u64::try_from(place.saturating_mul(row)).unwrap_or(0), 8);
            out.extend_from_slice(b": ");
        }
        hex_line(line, row, dump, target, out);
        out.push(b'\n');
    }
}

fn hex_line(line: &[u8], row: usize, dump: &HexDump, target: Target, out: &mut Vec<u8>) {
    let size: u8 = match dump.group {
        2 if line.len().is_multiple_of(2) => 2,
        4 if line.len().is_multiple_of(4) => 4,
        8 if line.len().is_multiple_of(8) => 8,
        _ => 1,
    };
    let start = out.len();
    for (nth, chunk) in line.chunks(usize::from(size)).enumerate() {
        if nth > 0 {
            out.push(b' ');
        }
        out::hex_wide(out, target.uint(chunk, 0, size).unwrap_or(0), usize::from(size).saturating_mul(2));
    }
    if dump.ascii {
        let groups = row.checked_div(usize::from(size)).unwrap_or(row);
        let column = row.saturating_mul(2).saturating_add(groups).saturating_add(1);
        out::widen(out, start, column, true);
        out.extend(line.iter().map(|byte| if (32..127).contains(byte) { *byte } else { b'.' }));
    }
}
