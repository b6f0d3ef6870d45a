//! The reader of `format` files.

use super::Field;
use super::declaration::declaration;
use crate::target::Target;

/// Largest format file that is read, in bytes; the largest of Linux 6.18 has 27 KiB.
const MAX_TEXT: usize = 1 << 18;
/// Most fields of one event; the kernel's own limit for an event's C structure is far below.
const MAX_FIELDS: usize = 4096;

/// A format file, taken apart; its `print fmt` stays text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The event's name.
    pub name: String,
    /// The number that starts each of its records.
    pub id: u16,
    /// All fields, the common ones first.
    pub fields: Vec<Field>,
    /// How many of the fields are common to all events.
    pub common: usize,
    /// What stands behind `print fmt:`; empty where there is none.
    pub print_fmt: String,
}

/// A format file that cannot be read: where, what was expected, what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event}: line {line}: expected {expected}, found {found:?}")]
pub struct FormatError {
    /// The event's system and name, as far as they are known.
    pub event: String,
    /// The line, from 1.
    pub line: usize,
    /// What should have stood there.
    pub expected: &'static str,
    /// What stood there, cut to a readable length.
    pub found: String,
}

impl Format {
    /// Reads the format file of an event of `system`, from a machine `target`.
    ///
    /// # Errors
    /// Where the text is not that of a format file.
    pub fn parse(system: &str, text: &str, target: Target) -> Result<Self, FormatError> {
        let mut parser = Parser { system, name: None, line: 0 };
        if text.len() > MAX_TEXT {
            return Err(parser.error("a format file of at most 256 KiB", ""));
        }
        parser.parse(text, target)
    }

    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

struct Parser<'a> {
    system: &'a str,
    name: Option<&'a str>,
    line: usize,
}

impl<'a> Parser<'a> {
    fn parse(&mut self, text: &'a str, target: Target) -> Result<Format, FormatError> {
        let mut id = None;
        let mut fields = Vec::new();
        let mut common = None;
        let mut print_fmt = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            self.line = self.line.saturating_add(1);
            let line = line.trim();
            if let Some(name) = line.strip_prefix("name:") {
                self.name = Some(name.trim()).filter(|name| !name.is_empty());
            } else if let Some(number) = line.strip_prefix("ID:") {
                let number = number.trim();
                id = Some(number.parse().map_err(|_| self.error("a number below 65536 behind ID:", number))?);
            } else if line.starts_with("field:") {
                if fields.len() >= MAX_FIELDS {
                    return Err(self.error("at most 4096 fields", line));
                }
                fields.push(self.field(line, target)?);
            } else if line.is_empty() {
                // An empty line ends the common fields.
                if common.is_none() && !fields.is_empty() {
                    common = Some(fields.len());
                }
            } else if line.starts_with("print fmt:") {
                let whole = rest.split_once("print fmt:").map_or("", |(_, whole)| whole);
                whole.trim().clone_into(&mut print_fmt);
                break;
            } else if line != "format:" {
                return Err(self.error("name:, ID:, format:, field: or print fmt:", line));
            }
            rest = after;
        }
        place_bits(&mut fields, target);
        let named = |field: &Field| field.name.starts_with("common_");
        let name = self.name.ok_or_else(|| self.error("a line name:", ""))?.to_owned();
        let id = id.ok_or_else(|| self.error("a line ID:", ""))?;
        let common = common.unwrap_or_else(|| fields.iter().take_while(|field| named(field)).count());
        Ok(Format { name, id, fields, common, print_fmt })
    }

    fn field(&self, line: &str, target: Target) -> Result<Field, FormatError> {
        let mut parts = line.split(';').map(str::trim);
        let text = parts.next().and_then(|part| part.strip_prefix("field:")).unwrap_or_default();
        let declared = declaration(text).ok_or_else(|| self.error("a field's type and name", text))?;
        let mut offset = None;
        let mut size = None;
        let mut signed = None;
        for part in parts.filter(|part| !part.is_empty()) {
            let (key, number) = part.split_once(':').unwrap_or((part, ""));
            let number = number
                .trim()
                .parse::<u32>()
                .map_err(|_| self.error("offset:, size: or signed: and a number", part))?;
            match key.trim() {
                "offset" => offset = Some(number),
                "size" => size = Some(number),
                "signed" => signed = Some(number != 0),
                _ => {}
            }
        }
        let offset = offset.ok_or_else(|| self.error("the field's offset:", line))?;
        let size = size.ok_or_else(|| self.error("the field's size:", line))?;
        // Kernels before 2.6.33 do not say it.
        let signed = signed.unwrap_or(false);
        Ok(Field {
            name: declared.name.to_owned(),
            type_name: declared.type_name.to_owned(),
            offset,
            size,
            signed,
            kind: declared.kind(size, signed, target),
        })
    }

    fn error(&self, expected: &'static str, found: &str) -> FormatError {
        let event = format!("{}/{}", self.system, self.name.unwrap_or("?"));
        FormatError { event, line: self.line, expected, found: found.chars().take(80).collect() }
    }
}

/// Gives bit-fields that share a word their places in it: C lays them out from the lowest bit on little-endian
/// machines, from the highest on others.
fn place_bits(fields: &mut [Field], target: Target) {
    let mut word = None;
    let mut used = 0u32;
    for field in fields {
        let super::Kind::Bits { shift, width } = &mut field.kind else { continue };
        if word != Some(field.offset) {
            word = Some(field.offset);
            used = 0;
        }
        let above = match target.order {
            crate::ByteOrder::Little => used,
            crate::ByteOrder::Big => {
                field.size.saturating_mul(8).saturating_sub(used).saturating_sub(u32::from(*width))
            }
        };
        *shift = u8::try_from(above.min(63)).unwrap_or(63);
        used = used.saturating_add(u32::from(*width));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    const WAKEUP: &str = "name: sched_wakeup
ID: 369
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;

print fmt: \"comm=%s pid=%d\", REC->comm, REC->pid
";

    #[test]
    fn a_format_file_of_the_kernel() {
        let format = Format::parse("sched", WAKEUP, Target::LE64).unwrap();
        assert_eq!((format.name.as_str(), format.id, format.common), ("sched_wakeup", 369, 4));
        let pid = format.field("pid").unwrap();
        assert_eq!((pid.offset, pid.size, pid.signed, &pid.kind), (24, 4, true, &Kind::Int));
        assert!(format.field("comm").unwrap().is_text());
        assert_eq!(format.print_fmt, r#""comm=%s pid=%d", REC->comm, REC->pid"#);
    }

    #[test]
    fn errors_name_event_line_and_what_was_there() {
        let said = |text: &str| Format::parse("sched", text, Target::LE64).unwrap_err().to_string();
        assert_eq!(
            said("name: x\nID: 70000\n"),
            "sched/x: line 2: expected a number below 65536 behind ID:, found \"70000\""
        );
        assert_eq!(said("ID: 7\n"), "sched/?: line 1: expected a line name:, found \"\"");
        assert_eq!(
            said("name: x\nID: 1\nfield:int *;offset:0;size:4;\n"),
            "sched/x: line 3: expected a field's type and name, found \"int *\""
        );
        assert_eq!(
            said("name: x\nwhat is this\n"),
            "sched/x: line 2: expected name:, ID:, format:, field: or print fmt:, found \"what is this\""
        );
    }

    #[test]
    fn bit_fields_share_their_word() {
        let text = "name: b\nID: 1\nformat:\n\tfield:unsigned int a:3; offset:8; size:4; signed:0;\n\tfield:int \
                    b:5; offset:8; size:4; signed:1;\n";
        let shifts = |target| {
            let format = Format::parse("x", text, target).unwrap();
            format.fields.iter().map(|field| field.kind.clone()).collect::<Vec<_>>()
        };
        let bits = |shift, width| Kind::Bits { shift, width };
        assert_eq!(shifts(Target::LE64), [bits(0, 3), bits(3, 5)]);
        assert_eq!(shifts(Target::BE64), [bits(29, 3), bits(24, 5)]);
    }
}
