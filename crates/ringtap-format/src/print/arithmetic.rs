//! C's arithmetic on 64-bit words that hold numbers of any integer type, sign- or zero-extended.

use super::ast::Binary;
use crate::format::ctype::IntType;
use crate::target::convert;

/// `a operator b`, both of type `kind`; `None` for a division by zero.
#[inline]
pub(super) fn binary(operator: Binary, a: u64, b: u64, kind: IntType) -> Option<u64> {
    let order = if kind.signed { a.cast_signed().cmp(&b.cast_signed()) } else { a.cmp(&b) };
    let raw = match operator {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Div | Binary::Rem => divide(operator, a, b, kind)?,
        Binary::Shl => shift_left(a, b),
        Binary::Shr => shift_right(a, b, kind),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Lt => return Some(u64::from(order.is_lt())),
        Binary::Gt => return Some(u64::from(order.is_gt())),
        Binary::Le => return Some(u64::from(order.is_le())),
        Binary::Ge => return Some(u64::from(order.is_ge())),
        Binary::Eq => return Some(u64::from(a == b)),
        Binary::Ne => return Some(u64::from(a != b)),
        Binary::LogicalAnd => return Some(u64::from(a != 0 && b != 0)),
        Binary::LogicalOr => return Some(u64::from(a != 0 || b != 0)),
    };
    Some(convert(raw, kind.size, kind.signed))
}

fn divide(operator: Binary, a: u64, b: u64, kind: IntType) -> Option<u64> {
    let is_div = operator == Binary::Div;
    if !kind.signed {
        return if is_div { a.checked_div(b) } else { a.checked_rem(b) };
    }
    let (a, b) = (a.cast_signed(), b.cast_signed());
    // The smallest number divided by -1 does not fit; like the rest it wraps.
    let result = match b {
        0 => return None,
        -1 if is_div => a.wrapping_neg(),
        -1 => 0,
        b if is_div => a.checked_div(b)?,
        b => a.checked_rem(b)?,
    };
    Some(result.cast_unsigned())
}

/// Shifts further than the type is wide are undefined in C; here they shift everything out.
fn shift_left(a: u64, b: u64) -> u64 {
    u32::try_from(b).ok().and_then(|by| a.checked_shl(by)).unwrap_or(0)
}

fn shift_right(a: u64, b: u64, kind: IntType) -> u64 {
    let by = u32::try_from(b).unwrap_or(u32::MAX);
    if kind.signed {
        a.cast_signed().wrapping_shr(by.min(63)).cast_unsigned()
    } else {
        a.checked_shr(by).unwrap_or(0)
    }
}

/// The low `size` bytes of `value` in the opposite order.
#[inline]
pub(super) fn swap(value: u64, size: u8) -> u64 {
    let unused = 64u32.saturating_sub(u32::from(size).saturating_mul(8)).min(63);
    value.swap_bytes().wrapping_shr(unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const U8: IntType = IntType::U8;
    const INT: IntType = IntType::INT;
    const UINT: IntType = IntType::UINT;

    #[test]
    fn results_wrap_and_extend_as_their_type_does() {
        let minus = |number: i64| number.cast_unsigned();
        assert_eq!(binary(Binary::Add, 0x7fff_ffff, 1, INT), Some(minus(-0x8000_0000)));
        assert_eq!(binary(Binary::Add, 0xffff_ffff, 1, UINT), Some(0));
        assert_eq!(binary(Binary::Div, minus(-7), 2, INT), Some(minus(-3)));
        assert_eq!(binary(Binary::Rem, minus(-7), 2, INT), Some(minus(-1)));
        assert_eq!(binary(Binary::Div, minus(i64::MIN), minus(-1), IntType::S64), Some(minus(i64::MIN)));
        assert_eq!(binary(Binary::Div, 1, 0, UINT), None);
        assert_eq!(binary(Binary::Lt, minus(-1), 1, INT), Some(1));
        assert_eq!(binary(Binary::Lt, u64::MAX, 1, IntType::U64), Some(0));
    }

    #[test]
    fn shifts_of_any_width() {
        assert_eq!(binary(Binary::Shl, 1, 31, UINT), Some(0x8000_0000));
        assert_eq!(binary(Binary::Shl, 1, 64, IntType::U64), Some(0));
        assert_eq!(binary(Binary::Shr, (-8i64).cast_unsigned(), 1, INT), Some((-4i64).cast_unsigned()));
        assert_eq!(binary(Binary::Shr, (-8i64).cast_unsigned(), u64::MAX, INT), Some(u64::MAX));
        assert_eq!(binary(Binary::Shr, 0x80, 7, U8), Some(1));
    }

    #[test]
    fn swaps() {
        assert_eq!(swap(0x1234, 2), 0x3412);
        assert_eq!(swap(0x1234_5678, 4), 0x7856_3412);
        assert_eq!(swap(0x0102_0304_0506_0708, 8), 0x0807_0605_0403_0201);
    }
}
