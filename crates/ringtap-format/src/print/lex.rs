//! The words of a `print fmt`: C's identifiers, numbers, strings and marks.

use super::Unprintable;

/// A word and where it starts, in bytes from the text's start.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) at: usize,
    pub(super) word: Word<'a>,
}

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word<'a> {
    Name(&'a str),
    Number(Number),
    /// A string's bytes, its escapes resolved.
    Text(Vec<u8>),
    /// An operator or bracket, one to three characters.
    Mark(&'static str),
}

/// A number with what its suffix says about its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) value: u64,
    pub(super) unsigned: bool,
    /// 0 for `int`, 1 for `long`, 2 for `long long`.
    pub(super) longs: u8,
    /// Whether it is written in base 10: C makes those signed where they fit.
    pub(super) decimal: bool,
}

/// Longest first, so that `<<=` is not read as `<` and `<=`.
const MARKS: [&str; 43] = [
    "<<=", ">>=", "...", "->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "++", "--", "+=", "-=", "*=",
    "/=", "|=", "&=", "(", ")", "{", "}", "[", "]", ",", ";", "?", ":", "+", "-", "*", "/", "%", "&", "|",
    "^", "~", "!", "<", ">", "=",
];

/// The words of `text`.
pub(super) fn words(text: &str) -> Result<Vec<Token<'_>>, Unprintable> {
    let mut lexer = Lexer { text, at: 0 };
    let mut words = Vec::new();
    while let Some(token) = lexer.next()? {
        words.push(token);
    }
    Ok(words)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn step(&mut self, len: usize) {
        self.at = self.at.saturating_add(len);
    }

    /// Takes the longest start of the rest whose characters all satisfy `wanted`.
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.step(end);
        rest.get(..end).unwrap_or_default()
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, Unprintable> {
        self.take(|c| c.is_whitespace() || c == '\\');
        let at = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let word = match first {
            'a'..='z' | 'A'..='Z' | '_' => {
                // A wide or prefixed literal (L"..", u8"..") does not occur in the kernel.
                Word::Name(self.take(|c| c.is_ascii_alphanumeric() || c == '_'))
            }
            '0'..='9' => Word::Number(self.number()?),
            '"' => Word::Text(self.quoted('"')?),
            '\'' => {
                let bytes = self.quoted('\'')?;
                let value = bytes.iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
                Word::Number(Number { value, unsigned: false, longs: 0, decimal: true })
            }
            '.' if !rest.starts_with("...") => {
                self.step(1);
                Word::Mark(".")
            }
            _ => match MARKS.iter().find(|mark| rest.starts_with(**mark)) {
                Some(mark) => {
                    self.step(mark.len());
                    Word::Mark(mark)
                }
                None => return Err(Unprintable::at(at, format!("the character {first:?}"))),
            },
        };
        Ok(Some(Token { at, word }))
    }

    fn number(&mut self) -> Result<Number, Unprintable> {
        let at = self.at;
        let written = self.take(|c| c.is_ascii_alphanumeric());
        let body = written.trim_end_matches(['u', 'U', 'l', 'L']);
        let suffix = written.get(body.len()..).unwrap_or_default();
        let (digits, radix) = match body.get(..2) {
            Some("0x" | "0X") => (body.get(2..).unwrap_or_default(), 16),
            Some("0b" | "0B") => (body.get(2..).unwrap_or_default(), 2),
            _ if body.starts_with('0') && body.len() > 1 => (body, 8),
            _ => (body, 10),
        };
        let value = u64::from_str_radix(digits, radix)
            .map_err(|_| Unprintable::at(at, format!("the number {written}")))?;
        let longs = suffix.bytes().filter(|byte| byte.eq_ignore_ascii_case(&b'l')).count();
        Ok(Number {
            value,
            unsigned: suffix.contains(['u', 'U']),
            longs: u8::try_from(longs).unwrap_or(2).min(2),
            decimal: radix == 10,
        })
    }

    /// The bytes between two `quote`s, escapes resolved; the closing one is consumed.
    fn quoted(&mut self, quote: char) -> Result<Vec<u8>, Unprintable> {
        let at = self.at;
        self.step(1);
        let mut bytes = Vec::new();
        loop {
            let plain = self.take(|c| c != quote && c != '\\');
            bytes.extend_from_slice(plain.as_bytes());
            if self.rest().starts_with(quote) {
                self.step(1);
                return Ok(bytes);
            }
            if self.rest().is_empty() {
                return Err(Unprintable::at(at, "a string without its closing quote".to_owned()));
            }
            self.step(1);
            self.escape(&mut bytes);
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self, bytes: &mut Vec<u8>) {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return };
        let digits = |wanted: &dyn Fn(char) -> bool, most: usize, skip: usize| {
            let body = rest.get(skip..).unwrap_or_default();
            body.chars().take(most).take_while(|c| wanted(*c)).count()
        };
        let (len, byte) = match first {
            'n' => (1, b'\n'),
            't' => (1, b'\t'),
            'r' => (1, b'\r'),
            'a' => (1, 7),
            'b' => (1, 8),
            'f' => (1, 12),
            'v' => (1, 11),
            'e' => (1, 27),
            '0'..='7' => {
                let len = digits(&|c| ('0'..='7').contains(&c), 3, 0);
                (len, number_byte(rest, 0, len, 8))
            }
            'x' => {
                let len = digits(&|c| c.is_ascii_hexdigit(), 2, 1);
                (len.saturating_add(1), number_byte(rest, 1, len, 16))
            }
            other => {
                let mut utf8 = [0; 4];
                bytes.extend_from_slice(other.encode_utf8(&mut utf8).as_bytes());
                self.step(other.len_utf8());
                return;
            }
        };
        bytes.push(byte);
        self.step(len);
    }
}

fn number_byte(text: &str, start: usize, len: usize, radix: u32) -> u8 {
    let digits = text.get(start..start.saturating_add(len)).unwrap_or_default();
    u32::from_str_radix(digits, radix).map_or(0, |value| u8::try_from(value & 255).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_print_fmt() {
        let text = r#""a\n\x41\101\"", REC->x >> 0x10UL, 'z' <= 077"#;
        let found: Vec<_> = words(text).unwrap().into_iter().map(|token| token.word).collect();
        let number =
            |value, unsigned, longs, decimal| Word::Number(Number { value, unsigned, longs, decimal });
        assert_eq!(
            found,
            [
                Word::Text(b"a\nAA\"".to_vec()),
                Word::Mark(","),
                Word::Name("REC"),
                Word::Mark("->"),
                Word::Name("x"),
                Word::Mark(">>"),
                number(16, true, 1, false),
                Word::Mark(","),
                number(0x7a, false, 0, true),
                Word::Mark("<="),
                number(0o77, false, 0, false),
            ]
        );
    }

    #[test]
    fn what_is_no_word_is_named_with_its_place() {
        assert_eq!(words("a @").unwrap_err().to_string(), "byte 2: the character '@'");
        assert_eq!(words("\"abc").unwrap_err().to_string(), "byte 0: a string without its closing quote");
        assert_eq!(words("0xyz").unwrap_err().to_string(), "byte 0: the number 0xyz");
        assert!(words("\"\\").is_err());
    }
}
