//! The machine that wrote a trace: its byte order and word size, and how its integers are read.

/// Order of the bytes in an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant byte first: x86, most of ARM and RISC-V.
    Little,
    /// Most significant byte first: s390x, some PowerPC and MIPS.
    Big,
}

/// Byte order and word size of the machine that wrote a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Order of the bytes in an integer.
    pub order: ByteOrder,
    /// Bytes of a C `long` and of a pointer: 4 or 8.
    pub long_size: u8,
}

impl Target {
    /// The machine that this program runs on.
    pub const HOST: Self = Self {
        order: if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little },
        long_size: if cfg!(target_pointer_width = "32") { 4 } else { 8 },
    };

    /// A 64-bit little-endian machine.
    pub const LE64: Self = Self { order: ByteOrder::Little, long_size: 8 };

    /// A 64-bit big-endian machine.
    pub const BE64: Self = Self { order: ByteOrder::Big, long_size: 8 };

    /// The unsigned integer of `size` bytes, 1 to 8, at `offset`; `None` where the bytes end before it does.
    #[must_use]
    #[inline(always)]
    pub fn uint(self, bytes: &[u8], offset: usize, size: u8) -> Option<u64> {
        let rest = bytes.get(offset..)?;
        let little = matches!(self.order, ByteOrder::Little);
        Some(match size {
            1 => u64::from(*rest.first()?),
            2 => {
                let raw = *rest.first_chunk()?;
                u64::from(if little { u16::from_le_bytes(raw) } else { u16::from_be_bytes(raw) })
            }
            4 => {
                let raw = *rest.first_chunk()?;
                u64::from(if little { u32::from_le_bytes(raw) } else { u32::from_be_bytes(raw) })
            }
            8 => {
                let raw = *rest.first_chunk()?;
                if little { u64::from_le_bytes(raw) } else { u64::from_be_bytes(raw) }
            }
            odd => return self.odd_uint(rest, odd),
        })
    }

    /// Integers of 3, 5, 6 or 7 bytes, which packed structures have.
    #[cold]
    fn odd_uint(self, rest: &[u8], size: u8) -> Option<u64> {
        if size == 0 || size > 8 {
            return None;
        }
        let raw = rest.get(..usize::from(size))?;
        let join = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(match self.order {
            ByteOrder::Little => raw.iter().rev().fold(0, join),
            ByteOrder::Big => raw.iter().fold(0, join),
        })
    }

    /// The integer of `size` bytes at `offset`, its sign extended to 64 bits where it has one.
    #[must_use]
    #[inline(always)]
    pub fn int(self, bytes: &[u8], offset: usize, size: u8, signed: bool) -> Option<u64> {
        let raw = self.uint(bytes, offset, size)?;
        Some(if signed { sign_extend(raw, size) } else { raw })
    }
}

/// `raw`, an integer of `size` bytes, as the 64 bits of the same signed number.
#[must_use]
#[inline(always)]
pub(crate) fn sign_extend(raw: u64, size: u8) -> u64 {
    if size == 0 || size >= 8 {
        return raw;
    }
    let unused = 64u32.wrapping_sub(u32::from(size).wrapping_mul(8));
    (raw.wrapping_shl(unused).cast_signed().wrapping_shr(unused)).cast_unsigned()
}

/// `raw` cut to `size` bytes, its sign extended where it has one: what a C conversion does.
#[must_use]
#[inline(always)]
pub(crate) fn convert(raw: u64, size: u8, signed: bool) -> u64 {
    if size == 0 || size >= 8 {
        return raw;
    }
    if signed {
        return sign_extend(raw, size);
    }
    raw & u64::MAX.wrapping_shr(64u32.wrapping_sub(u32::from(size).wrapping_mul(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_size_and_order() {
        let bytes = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88];
        assert_eq!(Target::LE64.uint(&bytes, 0, 2), Some(0x0201));
        assert_eq!(Target::BE64.uint(&bytes, 0, 2), Some(0x0102));
        assert_eq!(Target::LE64.uint(&bytes, 1, 3), Some(0x04_0302));
        assert_eq!(Target::BE64.uint(&bytes, 1, 3), Some(0x02_0304));
        assert_eq!(Target::LE64.uint(&bytes, 0, 8), Some(0x8807_0605_0403_0201));
        assert_eq!(Target::LE64.uint(&bytes, 5, 4), None);
        assert_eq!(Target::LE64.uint(&bytes, 0, 0), None);
        assert_eq!(Target::LE64.uint(&bytes, 9, 1), None);
        assert_eq!(Target::LE64.int(&bytes, 7, 1, true), Some(0xffff_ffff_ffff_ff88));
    }

    #[test]
    fn conversions_are_those_of_c() {
        assert_eq!(convert(0x1_ffff_ffff, 4, false), 0xffff_ffff);
        assert_eq!(convert(0xffff_ffff, 4, true), u64::MAX);
        assert_eq!(convert(0x80, 1, true), 0xffff_ffff_ffff_ff80);
        assert_eq!(convert(u64::MAX, 8, true), u64::MAX);
    }
}
