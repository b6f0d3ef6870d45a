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

/// Reads such a text; `EOVERFLOW` where it names a CPU that there is not.
pub(super) fn parse(bytes: &[u8], cpus: u32) -> Result<BTreeSet<u32>, Errno> {
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::INVAL)?;
    let text = text.split('\0').next().unwrap_or_default().trim();
    let mut set = BTreeSet::new();
    for (word, digits) in (0..).zip(text.rsplit(',')) {
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Errno::INVAL);
        }
        let bits = u32::from_str_radix(digits, 16).map_err(|_| Errno::OVERFLOW)?;
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
        for bad in ["", "zz", "0x3", "3,,1"] {
            assert_eq!(parse(bad.as_bytes(), 64), Err(Errno::INVAL), "{bad:?}");
        }
    }
}
