//! Numbers as the kernel reads them from its control files.

use rustix::io::Errno;

/// A number without a sign, in base 10: digits, perhaps a plus before and one line break behind, and nothing else.
/// What is behind a NUL does not count.
pub(super) fn unsigned(bytes: &[u8]) -> Result<u64, Errno> {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Errno::INVAL);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Errno::INVAL)?;
    text.parse().map_err(|_| Errno::RANGE)
}

/// 0 or 1.
pub(super) fn switch(bytes: &[u8]) -> Result<bool, Errno> {
    match unsigned(bytes)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Errno::INVAL),
    }
}

/// A name, without the spaces around it.
pub(crate) fn word(bytes: &[u8]) -> Result<&str, Errno> {
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::INVAL)?;
    Ok(text.split('\0').next().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_on_a_kernel() {
        for (text, number) in [("100", 100), ("3\0", 3), ("+4", 4), ("010", 10), ("1\n", 1), ("5\0x", 5)] {
            assert_eq!(unsigned(text.as_bytes()), Ok(number), "{text:?}");
        }
        for text in ["", "\n", " 5", "5 ", "0x10", "-1", "7 7", "abc", "1\n\n", "+"] {
            assert_eq!(unsigned(text.as_bytes()), Err(Errno::INVAL), "{text:?}");
        }
        assert_eq!(unsigned(b"99999999999999999999"), Err(Errno::RANGE));
        assert_eq!(switch(b"2"), Err(Errno::INVAL));
    }
}
