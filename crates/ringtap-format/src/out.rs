//! Numbers and padding appended to a byte buffer. Text of records is bytes: names in them need not be UTF-8.

use std::mem::size_of;

const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";
const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// The digits of a number, written from the right.
pub(crate) struct Digits {
    digits: [u8; 24],
    start: usize,
}

impl Digits {
    /// `number` in this base.
    #[inline]
    pub(crate) fn new(number: u64, base: Base) -> Self {
        match base {
            Base::Dec => Self::decimal(number),
            Base::Hex => Self::bits(number, 4, HEX_LOWER),
            Base::HexUpper => Self::bits(number, 4, HEX_UPPER),
            Base::Oct => Self::bits(number, 3, HEX_LOWER),
        }
    }

    /// Two digits a step: the divisions are what takes the time.
    #[inline]
    fn decimal(mut number: u64) -> Self {
        let mut digits = [b'0'; 24];
        let mut start = digits.len();
        for pair in digits.rchunks_exact_mut(2) {
            let two = number % 100;
            number /= 100;
            let known = usize::try_from(two).ok().and_then(|two| PAIRS.get(two)).copied().unwrap_or(*b"??");
            pair.copy_from_slice(&known);
            start = start.wrapping_sub(if number == 0 && two < 10 { 1 } else { 2 });
            if number == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    #[inline]
    fn bits(mut number: u64, bits: u32, table: &[u8; 16]) -> Self {
        let mut digits = [b'0'; 24];
        let mut start = digits.len();
        let mask = 1u64.wrapping_shl(bits).wrapping_sub(1);
        for slot in digits.iter_mut().rev() {
            *slot = nibble(table, number & mask);
            number = number.wrapping_shr(bits);
            start = start.wrapping_sub(1);
            if number == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or_default()
    }
}

/// All numbers of two digits.
const PAIRS: [[u8; 2]; 100] = pairs();

#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "evaluated at compile time")]
const fn pairs() -> [[u8; 2]; 100] {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0u8;
    while number < 100 {
        pairs[number as usize] = [b'0' + number / 10, b'0' + number % 10];
        number += 1;
    }
    pairs
}

#[inline(always)]
fn nibble(table: &[u8; 16], digit: u64) -> u8 {
    usize::try_from(digit).ok().and_then(|digit| table.get(digit)).copied().unwrap_or(b'?')
}

/// The base that a number is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Oct,
    Dec,
    Hex,
    HexUpper,
}

#[inline]
pub(crate) fn dec(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(Digits::new(number, Base::Dec).bytes());
}

#[inline]
pub(crate) fn signed(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    dec(out, number.unsigned_abs());
}

#[inline]
pub(crate) fn hex(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(Digits::new(number, Base::Hex).bytes());
}

/// `number` in decimal, at least `width` columns, filled from the left with `fill`.
#[inline]
pub(crate) fn dec_wide(out: &mut Vec<u8>, number: u64, width: usize, fill: u8) {
    let digits = Digits::new(number, Base::Dec);
    pad(out, fill, width.saturating_sub(digits.bytes().len()));
    out.extend_from_slice(digits.bytes());
}

/// `number` in hexadecimal, at least `width` columns, filled with zeros.
#[inline]
pub(crate) fn hex_wide(out: &mut Vec<u8>, number: u64, width: usize) {
    let digits = Digits::new(number, Base::Hex);
    pad(out, b'0', width.saturating_sub(digits.bytes().len()));
    out.extend_from_slice(digits.bytes());
}

/// A byte as two hexadecimal digits.
#[inline]
pub(crate) fn hex_byte(out: &mut Vec<u8>, byte: u8, upper: bool) {
    let table = if upper { HEX_UPPER } else { HEX_LOWER };
    out.extend_from_slice(&[nibble(table, u64::from(byte >> 4)), nibble(table, u64::from(byte & 15))]);
}

#[inline]
pub(crate) fn pad(out: &mut Vec<u8>, fill: u8, count: usize) {
    if count > 0 {
        out.resize(out.len().saturating_add(count), fill);
    }
}

/// Widens what was written from `start` on to `width` columns of spaces, on the side that `left` leaves free.
pub(crate) fn widen(out: &mut Vec<u8>, start: usize, width: usize, left: bool) {
    let written = out.len().saturating_sub(start);
    let missing = width.saturating_sub(written);
    if missing == 0 {
        return;
    }
    pad(out, b' ', missing);
    if !left && let Some(text) = out.get_mut(start..) {
        text.rotate_right(missing);
    }
}

/// The bytes of a C string: up to its NUL, or all where it has none.
#[inline]
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    match bytes.iter().position(|&byte| byte == 0) {
        Some(end) => bytes.get(..end).unwrap_or(bytes),
        None => bytes,
    }
}

const _: () = assert!(size_of::<usize>() >= 4, "lengths of records are 32-bit numbers");

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b">".to_vec();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers() {
        for number in [0u64, 7, 10, 99, 100, 101, 999, 1000, 12345, 123_456] {
            assert_eq!(text(|out| dec(out, number)), format!(">{number}"));
        }
        assert_eq!(text(|out| dec(out, u64::MAX)), ">18446744073709551615");
        assert_eq!(text(|out| signed(out, i64::MIN)), ">-9223372036854775808");
        assert_eq!(text(|out| hex(out, 0xdead_beef)), ">deadbeef");
        assert_eq!(text(|out| dec_wide(out, 7, 3, b'0')), ">007");
        assert_eq!(text(|out| hex_wide(out, 0xabc, 2)), ">abc");
        assert_eq!(text(|out| hex_byte(out, 0xa7, true)), ">A7");
        assert_eq!(Digits::new(u64::MAX, Base::Oct).bytes(), b"1777777777777777777777");
    }

    #[test]
    fn widening_keeps_what_stands_before() {
        let write = |left| {
            text(|out| {
                let start = out.len();
                out.extend_from_slice(b"ab");
                widen(out, start, 4, left);
            })
        };
        assert_eq!(write(false), ">  ab");
        assert_eq!(write(true), ">ab  ");
    }
}
