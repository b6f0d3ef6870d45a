//! `tracing_cpumask`: a set of CPUs, as hexadecimal words.

use rustix::io::Errno;
use std::collections::BTreeSet;

/// Bits in a word between commas.
const WORD: u32 = 32;

/// The text of a set of CPUs below `cpus`.
pub(super) fn text(set: &BTreeSet<u32>, cpus: u32) -> Vec<u8> {
    let digits = cpus.max(1).div_ceil(4);
    let mut out = String::new();
    for digit in (0..digits).rev() {
        let bits =
            (0..4).filter(|bit| set.contains(&(digit * 4 + bit))).fold(0, |value, bit| value | 1 << bit);
        out.push(char::from_digit(bits, 16).unwrap_or('0'));
        if digit > 0 && (digit * 4) % WORD == 0 {
            out.push(',');
        }
    }
    out.push('\n');
    out.into_bytes()
}

/// Reads such a text as the kernel's `bitmap_parse` does: up to a line's end, words between commas or spaces, of which there may be none.
/// `EOVERFLOW` where it names a CPU that there is not, or has more words or digits than are needed.
pub(super) fn parse(bytes: &[u8], cpus: u32) -> Result<BTreeSet<u32>, Errno> {
    if bytes.is_empty() {
        return Err(Errno::INVAL);
    }
    let line = bytes.split(|byte| matches!(byte, 0 | b'\n')).next().unwrap_or_default();
    let is_between = |byte: &u8| *byte == b',' || *byte == 0x0b || byte.is_ascii_whitespace();
    let words = line.rsplit(is_between).filter(|digits| !digits.is_empty());
    let mut set = BTreeSet::new();
    for (word, digits) in (0..).zip(words) {
        if word >= cpus.div_ceil(WORD) {
            return Err(Errno::OVERFLOW);
        }
        let (surplus, digits) = digits.split_at(digits.len().saturating_sub(8));
        let bits =
            digits.iter().try_fold(0, |bits, &digit| Some(bits << 4 | char::from(digit).to_digit(16)?));
        let bits: u32 = bits.ok_or(Errno::INVAL)?;
        if let Some(digit) = surplus.last() {
            return Err(if digit.is_ascii_hexdigit() { Errno::OVERFLOW } else { Errno::INVAL });
        }
        for bit in (0..WORD).filter(|bit| bits & 1 << bit != 0) {
            let cpu = word * WORD + bit;
            if cpu >= cpus {
                return Err(Errno::OVERFLOW);
            }
            set.insert(cpu);
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_32_cpus() {
        let shown = |cpus: &[u32], of| String::from_utf8(text(&cpus.iter().copied().collect(), of)).unwrap();
        assert_eq!(shown(&[0, 1], 2), "3\n");
        assert_eq!(shown(&[], 2), "0\n");
        assert_eq!(shown(&[0, 35], 40), "08,00000001\n");
        assert_eq!(parse(b"00000003\n", 2), Ok([0, 1].into()));
        assert_eq!(parse(b"8,1", 40), Ok([0, 35].into()));
        assert_eq!(parse(b"4", 2), Err(Errno::OVERFLOW));
        assert_eq!(parse(b"ffffffff,ffffffff", 2), Err(Errno::OVERFLOW));
        for many in ["0,1", "000000001", "1 2"] {
            assert_eq!(parse(many.as_bytes(), 2), Err(Errno::OVERFLOW), "{many:?}");
        }
        for none in ["\n", " ", "\0", ",", "\n1"] {
            assert_eq!(parse(none.as_bytes(), 2), Ok([].into()), "{none:?}");
        }
        for one in ["1,,", ",1", " 1 ", "1\n2", "00000001"] {
            assert_eq!(parse(one.as_bytes(), 2), Ok([0].into()), "{one:?}");
        }
        assert_eq!(parse(b"3,,1", 64), Ok([0, 32, 33].into()));
        for bad in ["", "zz", "0x3", "-1"] {
            assert_eq!(parse(bad.as_bytes(), 64), Err(Errno::INVAL), "{bad:?}");
        }
    }
}
