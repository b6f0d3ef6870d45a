//! Bit masks, such as those of CPUs.

use crate::out;
use crate::target::{ByteOrder, Target};

/// A mask in hexadecimal, as `%*pb` prints it.
pub(crate) fn print(bytes: &[u8], target: Target, out: &mut Vec<u8>) {
    let mask = Mask::new(bytes, target);
    mask.hex(mask.bits(), out);
}

/// Most bits of a mask that are printed: a kernel can be built for so many CPUs.
const MAX_BITS: usize = 8192;

/// A bit mask: words of the target's `long` size.
#[derive(Clone, Copy)]
pub(super) struct Mask<'a> {
    bytes: &'a [u8],
    target: Target,
}

impl<'a> Mask<'a> {
    pub(super) const fn new(bytes: &'a [u8], target: Target) -> Self {
        Self { bytes, target }
    }

    /// All bits there are, up to those of the largest kernel's CPUs.
    pub(super) fn bits(&self) -> usize {
        self.bytes.len().saturating_mul(8).min(MAX_BITS)
    }

    fn is_set(&self, bit: usize) -> bool {
        let size = usize::from(self.target.long_size).max(1);
        let byte = bit / 8;
        let in_word = byte.checked_rem(size).unwrap_or(0);
        // In a big-endian word the lowest bits are in the last byte.
        let at = match self.target.order {
            ByteOrder::Little => byte,
            ByteOrder::Big => {
                byte.saturating_sub(in_word).saturating_add(size).saturating_sub(in_word).saturating_sub(1)
            }
        };
        let shift = u32::try_from(bit % 8).unwrap_or(0);
        self.bytes.get(at).is_some_and(|byte| byte.wrapping_shr(shift) & 1 == 1)
    }

    /// `%*pb`: groups of 32 bits in hexadecimal, the highest first.
    pub(super) fn hex(&self, bits: usize, out: &mut Vec<u8>) {
        let groups = bits.div_ceil(32);
        for group in (0..groups).rev() {
            let low = group.saturating_mul(32);
            let here = bits.saturating_sub(low).min(32);
            let word = (0..here)
                .rev()
                .fold(0u64, |sum, bit| sum << 1 | u64::from(self.is_set(low.saturating_add(bit))));
            out::hex_wide(out, word, here.div_ceil(4));
            if group > 0 {
                out.push(b',');
            }
        }
    }

    /// `%*pbl`: ranges of the bits that are set, as in `0-3,7`.
    pub(super) fn list(&self, bits: usize, out: &mut Vec<u8>) {
        let mut start = None;
        let mut first = true;
        for bit in 0..=bits {
            let set = bit < bits && self.is_set(bit);
            match (set, start) {
                (true, None) => start = Some(bit),
                (false, Some(from)) => {
                    if !first {
                        out.push(b',');
                    }
                    first = false;
                    let last = bit.saturating_sub(1);
                    out::dec(out, u64::try_from(from).unwrap_or(0));
                    if last > from {
                        out.push(b'-');
                        out::dec(out, u64::try_from(last).unwrap_or(0));
                    }
                    start = None;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn masks_of_both_orders() {
        let mut bytes = [0; 16];
        bytes[0] = 0b1000_1111;
        bytes[8] = 1;
        let mask = Mask::new(&bytes, Target::LE64);
        assert_eq!(text(|out| mask.list(128, out)), "0-3,7,64");
        assert_eq!(text(|out| mask.hex(8, out)), "8f");
        assert_eq!(text(|out| mask.hex(66, out)), "1,00000000,0000008f");
        let mut bytes = [0; 8];
        bytes[7] = 0b11;
        assert_eq!(text(|out| Mask::new(&bytes, Target::BE64).list(64, out)), "0-1");
    }
}
