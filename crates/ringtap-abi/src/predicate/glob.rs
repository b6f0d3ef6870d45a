//! Globs: `*`, `?`, `[a-z]`, `[!a-z]`, and `\` in front of any of them.

/// Whether `text` matches `pattern`, both to their ends. Each `*` is tried at most once for each byte of the text.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on with a longer text for the last `*`.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            if rest.is_empty() {
                return true;
            }
            retry = Some((rest, text));
            pattern = rest;
            continue;
        }
        match (one(pattern, text), text.split_first()) {
            (Some(rest), Some((_, after))) => {
                pattern = rest;
                text = after;
            }
            _ if pattern.is_empty() && text.is_empty() => return true,
            _ => {
                let Some((from, [_, shorter @ ..])) = retry else { return false };
                retry = Some((from, shorter));
                pattern = from;
                text = shorter;
            }
        }
    }
}

/// The pattern behind what matches the first byte of `text`; `None` where that does not match.
fn one<'p>(pattern: &'p [u8], text: &[u8]) -> Option<&'p [u8]> {
    let byte = text.first()?;
    let (first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some(rest),
        b'[' => match class(rest, *byte) {
            Some((true, behind)) => Some(behind),
            Some((false, _)) => None,
            // A bracket that is not closed stands for itself.
            None => (*byte == b'[').then_some(rest),
        },
        b'\\' => match rest.split_first() {
            Some((escaped, behind)) => (escaped == byte).then_some(behind),
            None => (*byte == b'\\').then_some(rest),
        },
        plain => (plain == byte).then_some(rest),
    }
}

/// Whether `byte` is in the class that starts behind its bracket, and the pattern behind the class.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (inverted, mut rest) = match pattern.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let mut found = false;
    let mut first = true;
    loop {
        let (low, after) = rest.split_first()?;
        if *low == b']' && !first {
            return Some((found != inverted, after));
        }
        first = false;
        rest = after;
        let high = match after {
            [b'-', high, behind @ ..] if *high != b']' => {
                rest = behind;
                high
            }
            _ => low,
        };
        found |= (*low..=*high).contains(&byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let yes = [
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("ab*", "abc"),
            ("*bc", "abc"),
            ("*b*", "abc"),
            ("a*c*e", "abcde"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("a\\*", "a*"),
            ("[a", "[a"),
            ("*aab", "aaaaab"),
        ];
        let no = [
            ("", "a"),
            ("?", ""),
            ("ab*", "xab"),
            ("*bc", "abcd"),
            ("[a-c]x", "dx"),
            ("a\\*", "ab"),
            ("a", "ab"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_globs_end_soon() {
        assert!(!matches(&b"a*".repeat(2000), &b"a".repeat(1999)));
    }
}
