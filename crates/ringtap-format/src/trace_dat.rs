//! trace-cmd's file, version 6: what `trace-cmd record` wrote until 3.0 and every version reads.
//!
//! One stretch of descriptions, then each CPU's sub-buffers. Newer versions with sections and compression are
//! told apart and refused.

use crate::constants::Constants;
use crate::event::Formats;
use crate::format::FormatError;
use crate::header::{HeaderError, PageLayout};
use crate::print::Dialect;
use crate::target::{ByteOrder, Target};
use std::ops::Range;

/// Most systems, events or CPUs that a file may claim.
const MAX_COUNT: u64 = 1 << 16;

/// A trace.dat's parts, borrowed from its bytes.
#[derive(Clone, Debug)]
pub struct TraceDat<'a> {
    /// The layout of its sub-buffers, with the machine that wrote them.
    pub layout: PageLayout,
    /// Each format file with its system.
    pub formats: Vec<(&'a str, &'a str)>,
    /// `/proc/kallsyms`
    pub kallsyms: &'a str,
    /// `printk_formats`
    pub printk_formats: &'a str,
    /// `saved_cmdlines`
    pub tasks: &'a [u8],
    /// Where each CPU's sub-buffers lie in the file, in bytes.
    pub spans: Vec<Range<u64>>,
    /// Each CPU's sub-buffers; none after [`TraceDat::parse_start`].
    pub cpus: Vec<&'a [u8]>,
}

/// A file that is no trace.dat of version 6.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceDatError {
    /// Something else stands there.
    #[error("trace.dat: byte {offset}: expected {expected}")]
    Expected {
        /// Where.
        offset: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// The file ends too early.
    #[error("trace.dat: byte {offset}: expected {expected} of {len} bytes, found the file's end")]
    End {
        /// Where it starts.
        offset: usize,
        /// What it is.
        expected: &'static str,
        /// How long it claims to be.
        len: u64,
    },
    /// `header_page` is impossible.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

impl TraceDatError {
    /// Whether the bytes ended too early.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::End { .. })
    }
}

impl<'a> TraceDat<'a> {
    /// Takes a file apart.
    ///
    /// # Errors
    /// Where it is not of version 6, or ends too early.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TraceDatError> {
        let start = Self::parse_start(bytes)?;
        let data = start.spans.iter().map(|span| {
            let range = usize::try_from(span.start).ok()?..usize::try_from(span.end).ok()?;
            bytes.get(range)
        });
        match data.collect() {
            Some(cpus) => Ok(Self { cpus, ..start }),
            None => {
                let len = start.spans.iter().map(|span| span.end).max().unwrap_or(0);
                Err(TraceDatError::End { offset: 0, expected: "descriptions and data", len })
            }
        }
    }

    /// As [`parse`](Self::parse), of a file whose data is read in pieces: `bytes` need only hold what stands before
    /// the data.
    ///
    /// # Errors
    /// Where it is not of version 6, or ends too early: then [`TraceDatError::is_end`], and more bytes may help.
    pub fn parse_start(bytes: &'a [u8]) -> Result<Self, TraceDatError> {
        let mut reader = Reader { bytes, at: 0, target: Target::LE64 };
        reader.tag(b"\x17\x08\x44tracing", "the magic bytes of trace.dat")?;
        reader.tag(b"6\0", "version 6 (newer files: convert with `trace-cmd convert --file-version 6`)")?;
        let order = match reader.take(1, "the byte order")? {
            [0] => ByteOrder::Little,
            [1] => ByteOrder::Big,
            _ => return Err(reader.expected("byte order 0 or 1")),
        };
        let long_size = match reader.take(1, "the word size")? {
            [4] => 4,
            [8] => 8,
            _ => return Err(reader.expected("a word size of 4 or 8")),
        };
        reader.target = Target { order, long_size };
        reader.number(4, "the page size")?;
        reader.tag(b"header_page\0", "header_page")?;
        let header_page = reader.text(8, "header_page")?;
        reader.tag(b"header_event\0", "header_event")?;
        reader.text(8, "header_event")?;
        let mut layout = PageLayout::parse(header_page, order)?;
        layout.target.long_size = long_size;
        let formats = reader.formats()?;
        let kallsyms = reader.text(4, "kallsyms")?;
        let printk_formats = reader.text(4, "printk_formats")?;
        let tasks = reader.sized(8, "saved_cmdlines")?;
        let spans = reader.spans()?;
        Ok(Self { layout, formats, kallsyms, printk_formats, tasks, spans, cpus: Vec::new() })
    }

    /// Its events, with libtraceevent's plugins if asked for; and the format files that cannot be read.
    #[must_use]
    pub fn events(
        &self,
        dialect: Dialect,
        plugins: bool,
        constants: Constants,
    ) -> (Formats, Vec<FormatError>) {
        let mut formats = Formats::new(self.layout.target, dialect);
        *formats.constants_mut() = constants;
        if plugins {
            formats.use_plugins();
        }
        let failed =
            self.formats.iter().filter_map(|(system, text)| formats.add(system, text).err()).collect();
        (formats, failed)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    target: Target,
}

impl<'a> Reader<'a> {
    fn expected(&self, expected: &'static str) -> TraceDatError {
        TraceDatError::Expected { offset: self.at, expected }
    }

    fn take(&mut self, len: u64, expected: &'static str) -> Result<&'a [u8], TraceDatError> {
        let wanted = usize::try_from(len).ok();
        let found = wanted.and_then(|len| self.bytes.get(self.at..)?.get(..len));
        let found = found.ok_or(TraceDatError::End { offset: self.at, expected, len })?;
        self.at = self.at.saturating_add(found.len());
        Ok(found)
    }

    fn tag(&mut self, tag: &[u8], expected: &'static str) -> Result<(), TraceDatError> {
        match self.bytes.get(self.at..) {
            Some(rest) if rest.starts_with(tag) => {
                self.at = self.at.saturating_add(tag.len());
                Ok(())
            }
            Some(rest) if tag.starts_with(rest) => {
                let len = u64::try_from(tag.len()).unwrap_or(u64::MAX);
                Err(TraceDatError::End { offset: self.at, expected, len })
            }
            _ => Err(self.expected(expected)),
        }
    }

    fn number(&mut self, size: u8, expected: &'static str) -> Result<u64, TraceDatError> {
        let bytes = self.take(u64::from(size), expected)?;
        Ok(self.target.uint(bytes, 0, size).unwrap_or(0))
    }

    fn count(&mut self, expected: &'static str) -> Result<u64, TraceDatError> {
        let count = self.number(4, expected)?;
        if count > MAX_COUNT { Err(self.expected("a smaller number of entries")) } else { Ok(count) }
    }

    /// Bytes with their length before them, a number of `size` bytes.
    fn sized(&mut self, size: u8, expected: &'static str) -> Result<&'a [u8], TraceDatError> {
        let len = self.number(size, expected)?;
        self.take(len, expected)
    }

    fn text(&mut self, size: u8, expected: &'static str) -> Result<&'a str, TraceDatError> {
        let start = self.at;
        let bytes = self.sized(size, expected)?;
        std::str::from_utf8(bytes)
            .map_err(|_| TraceDatError::Expected { offset: start, expected: "UTF-8 text" })
    }

    /// A name and its NUL.
    fn name(&mut self) -> Result<&'a str, TraceDatError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let name = crate::out::until_nul(rest);
        if name.len() == rest.len() {
            return Err(self.expected("a name that ends with a NUL"));
        }
        let name = std::str::from_utf8(name).map_err(|_| self.expected("a name in UTF-8"))?;
        self.at = self.at.saturating_add(name.len()).saturating_add(1);
        Ok(name)
    }

    fn formats(&mut self) -> Result<Vec<(&'a str, &'a str)>, TraceDatError> {
        let mut formats = Vec::new();
        for _ in 0..self.count("the number of ftrace's formats")? {
            formats.push(("ftrace", self.text(8, "a format of ftrace")?));
        }
        for _ in 0..self.count("the number of systems")? {
            let system = self.name()?;
            for _ in 0..self.count("the number of a system's formats")? {
                formats.push((system, self.text(8, "a format")?));
            }
        }
        Ok(formats)
    }

    fn spans(&mut self) -> Result<Vec<Range<u64>>, TraceDatError> {
        let count = self.count("the number of CPUs")?;
        match self.tag(b"options  \0", "options") {
            Ok(()) => {
                while self.number(2, "an option")? != 0 {
                    self.sized(4, "an option")?;
                }
            }
            // There may be none.
            Err(TraceDatError::Expected { .. }) => {}
            Err(end) => return Err(end),
        }
        self.tag(b"flyrecord\0", "flyrecord")?;
        let mut spans = Vec::new();
        for _ in 0..count {
            let start = self.number(8, "the place of a CPU's data")?;
            let len = self.number(8, "the length of a CPU's data")?;
            spans.push(start..start.saturating_add(len));
        }
        Ok(spans)
    }
}

/// What the reader promises on any bytes: a value or an error.
pub fn check_trace_dat(bytes: &[u8]) {
    if let Ok(file) = TraceDat::parse(bytes) {
        let total: usize =
            file.formats.iter().map(|(system, text)| system.len().saturating_add(text.len())).sum();
        assert!(total <= bytes.len() || file.formats.is_empty(), "formats are parts of the file");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start() -> Vec<u8> {
        let mut file = b"\x17\x08\x44tracing6\0\0\x08\x00\x10\x00\x00header_page\0".to_vec();
        let page = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\t\
                    size:8;\tsigned:1;\n\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";
        file.extend_from_slice(&u64::try_from(page.len()).unwrap().to_le_bytes());
        file.extend_from_slice(page.as_bytes());
        file.extend_from_slice(b"header_event\0\0\0\0\0\0\0\0\0");
        file
    }

    #[test]
    fn a_file_without_events() {
        let mut file = start();
        // No formats of ftrace, no systems, no symbols, no strings, no tasks, one CPU, no options.
        file.extend_from_slice(&[0; 4 + 4 + 4 + 4 + 8]);
        file.extend_from_slice(b"\x01\0\0\0options  \0\0\0flyrecord\0");
        let place = u64::try_from(file.len() + 16).unwrap();
        file.extend_from_slice(&place.to_le_bytes());
        file.extend_from_slice(&3u64.to_le_bytes());
        file.extend_from_slice(b"abc");
        let parsed = TraceDat::parse(&file).unwrap();
        assert_eq!(parsed.cpus, [b"abc"]);
        assert_eq!(parsed.layout.data_size, 4080);
        for len in 0..file.len() {
            assert!(TraceDat::parse(&file[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn other_files_are_refused_with_the_place() {
        let said = |bytes: &[u8]| TraceDat::parse(bytes).unwrap_err().to_string();
        assert_eq!(said(b"hello"), "trace.dat: byte 0: expected the magic bytes of trace.dat");
        assert!(said(b"\x17\x08\x44tracing7\0").contains("trace-cmd convert"));
        let mut file = start();
        file.extend_from_slice(&[1, 0, 0, 0, 200]);
        assert!(said(&file).contains("found the file's end"));
    }

    proptest! {
        #[test]
        fn any_bytes_behind_a_true_start(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            check_trace_dat(&[start(), bytes].concat());
        }
    }
}
