//! The layout of sub-buffers, from the text of `events/header_page` and `events/header_event`.

use crate::target::{ByteOrder, Target};
use ringtap_abi::subbuf::HEADER_LEN;

/// Most bytes of records that a sub-buffer may claim.
const MAX_DATA_SIZE: u32 = 1 << 28;

/// Where the parts of a sub-buffer lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// The machine that wrote it.
    pub target: Target,
    /// Where the commit word starts, in bytes; the time stamp stands before it.
    pub commit_offset: u32,
    /// Bytes of the commit word: 4 or 8.
    pub commit_size: u8,
    /// Where the records start.
    pub data_offset: u32,
    /// Most bytes of records that fit in a sub-buffer.
    pub data_size: u32,
}

/// A header file that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A field is missing or its numbers are.
    #[error("header_page: expected a line field: with {0}, its offset: and size:")]
    Missing(&'static str),
    /// The numbers contradict each other.
    #[error("header_page: {0}")]
    Impossible(&'static str),
    /// The records' layout is not the one that this program knows.
    #[error("header_event: expected {expected}, found {found:?}")]
    Event {
        /// What the line should say.
        expected: &'static str,
        /// What it says.
        found: String,
    },
}

impl PageLayout {
    /// The layout of a sub-buffer of `size` bytes on a 64-bit machine of this program's byte order.
    #[must_use]
    pub const fn of_size(size: u32) -> Self {
        Self {
            target: Target { long_size: 8, ..Target::HOST },
            commit_offset: 8,
            commit_size: 8,
            data_offset: HEADER_LEN,
            data_size: size.saturating_sub(HEADER_LEN),
        }
    }

    /// Reads the text of `header_page`; the text does not tell the byte `order`.
    ///
    /// # Errors
    /// Where a line is missing or the numbers are impossible.
    pub fn parse(header_page: &str, order: ByteOrder) -> Result<Self, HeaderError> {
        let (stamp, stamp_size) = field(header_page, "timestamp").ok_or(HeaderError::Missing("timestamp"))?;
        let (commit_offset, commit_size) =
            field(header_page, "commit").ok_or(HeaderError::Missing("commit"))?;
        let (data_offset, data_size) = field(header_page, "data").ok_or(HeaderError::Missing("data"))?;
        if stamp != 0 || stamp_size != 8 {
            return Err(HeaderError::Impossible("the time stamp is not the first 8 bytes"));
        }
        let commit_size = match commit_size {
            4 => 4,
            8 => 8,
            _ => return Err(HeaderError::Impossible("the commit word has neither 4 nor 8 bytes")),
        };
        let behind_commit = commit_offset.saturating_add(u32::from(commit_size));
        if commit_offset < 8 || data_offset < behind_commit || !data_offset.is_multiple_of(4) {
            return Err(HeaderError::Impossible("time stamp, commit word and data overlap or are misplaced"));
        }
        if data_size > MAX_DATA_SIZE {
            return Err(HeaderError::Impossible("a sub-buffer has more than 256 MiB"));
        }
        let target = Target { order, long_size: commit_size };
        Ok(Self { target, commit_offset, commit_size, data_offset, data_size })
    }

    /// Bytes of a whole sub-buffer.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.data_offset.saturating_add(self.data_size)
    }

    /// The same layout in sub-buffers of `size` bytes; `None` where that cannot be.
    #[must_use]
    pub fn with_size(self, size: u32) -> Option<Self> {
        let data_size = size.checked_sub(self.data_offset)?;
        (data_size > 0 && data_size <= MAX_DATA_SIZE).then_some(Self { data_size, ..self })
    }
}

/// Offset and size of the field `name`.
fn field(text: &str, name: &str) -> Option<(u32, u32)> {
    let line = text.lines().find(|line| {
        let declared = line.trim().strip_prefix("field:").and_then(|line| line.split(';').next());
        declared.and_then(|declared| declared.split_ascii_whitespace().last()) == Some(name)
    })?;
    let number = |key: &str| {
        let mut parts = line.split(';').map(str::trim);
        parts.find_map(|part| part.strip_prefix(key)?.trim().parse::<u32>().ok())
    };
    Some((number("offset:")?, number("size:")?))
}

/// Checks that `header_event` describes the records that this crate walks.
///
/// # Errors
/// Names the first line that says otherwise.
pub fn check_header_event(text: &str) -> Result<(), HeaderError> {
    const EXPECTED: [(&str, &str); 5] = [
        ("type_len", "5 bits"),
        ("time_delta", "27 bits"),
        ("padding", "type == 29"),
        ("time_extend", "type == 30"),
        ("data max type_len", "== 28"),
    ];
    for (key, expected) in EXPECTED {
        let line = text.lines().map(str::trim).find(|line| line.starts_with(key)).unwrap_or_default();
        let said = line.strip_prefix(key).unwrap_or_default().trim_start_matches([' ', ':', '\t']);
        if said.split_ascii_whitespace().ne(expected.split_ascii_whitespace()) {
            return Err(HeaderError::Event { expected, found: line.chars().take(80).collect() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
                        \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
                        \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
                        \tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";
    const EVENT: &str = "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\
                         \tarray       :   32 bits\n\n\tpadding     : type == 29\n\ttime_extend : type == 30\n\
                         \ttime_stamp : type == 31\n\tdata max type_len  == 28\n";

    #[test]
    fn the_layout_of_a_64_bit_kernel() {
        let layout = PageLayout::parse(PAGE, ByteOrder::Little).unwrap();
        assert_eq!(layout, PageLayout { target: Target::LE64, ..PageLayout::of_size(4096) });
        assert_eq!(layout.size(), 4096);
        check_header_event(EVENT).unwrap();
    }

    #[test]
    fn the_layout_of_a_32_bit_kernel() {
        let text = PAGE.replace("size:8;\tsigned:1", "size:4;\tsigned:1").replace("offset:16", "offset:12");
        let layout = PageLayout::parse(&text, ByteOrder::Big).unwrap();
        assert_eq!((layout.commit_size, layout.data_offset, layout.target.long_size), (4, 12, 4));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let said = |text: &str| PageLayout::parse(text, ByteOrder::Little).unwrap_err().to_string();
        assert_eq!(said(""), "header_page: expected a line field: with timestamp, its offset: and size:");
        assert_eq!(
            said(&PAGE.replace("offset:16", "offset:14")),
            "header_page: time stamp, commit word and data overlap or are misplaced"
        );
        assert!(said(&PAGE.replace("4080", "4080000000")).contains("256 MiB"));
        let said = check_header_event(&EVENT.replace("27 bits", "28 bits")).unwrap_err().to_string();
        assert_eq!(said, "header_event: expected 27 bits, found \"time_delta  :   28 bits\"");
    }
}
