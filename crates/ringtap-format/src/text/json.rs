//! JSON lines: one object for each record, loss or damaged page. The schema is in docs/json.md.

use super::{Common, Entry, Sources, flags};
use crate::event::Event;
use crate::format::{Element, Field, Kind, Meaning};
use crate::merge::{Merged, Step};
use crate::out;
use crate::target::Target;
use std::borrow::Cow;

/// Writes records as JSON lines.
#[derive(Clone, Copy, Debug)]
pub struct JsonLines<'a> {
    /// What the lines are made from.
    pub sources: Sources<'a>,
    /// Whether each event's text stands in its line, too.
    pub with_text: bool,
}

impl JsonLines<'_> {
    /// Appends the line of whatever comes out of a merge.
    pub fn merged(&self, merged: &Merged<'_>, out: &mut Vec<u8>) {
        let cpu = merged.cpu;
        match merged.step {
            Step::Record(record) => {
                self.entry(&Entry { cpu, time: record.time, record: record.bytes }, out);
            }
            Step::Lost(lost) => self.lost(cpu, lost.count(), out),
            Step::Damaged { offset, error } => {
                out.extend_from_slice(b"{\"type\":\"damage\",\"cpu\":");
                out::dec(out, u64::from(cpu));
                out.extend_from_slice(b",\"offset\":");
                out::dec(out, offset);
                out.extend_from_slice(b",\"error\":");
                string(error.to_string().as_bytes(), out);
                out.extend_from_slice(b"}\n");
            }
        }
    }

    /// Appends the line of a record, ended by a newline.
    pub fn entry(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let common = Common::of(entry.record, self.sources.formats.target());
        out.extend_from_slice(b"{\"type\":\"event\",\"ts\":");
        out::dec(out, entry.time);
        out.extend_from_slice(b",\"cpu\":");
        out::dec(out, u64::from(entry.cpu));
        out.extend_from_slice(b",\"pid\":");
        out::signed(out, i64::from(common.pid));
        out.extend_from_slice(b",\"comm\":");
        string(self.sources.tasks.name(common.pid), out);
        out.extend_from_slice(b",\"flags\":\"");
        flags::kernel(common, out);
        out.push(b'"');
        match self.sources.formats.by_id(common.id) {
            Some(event) => self.event(event, entry.record, out),
            None => {
                out.extend_from_slice(b",\"id\":");
                out::dec(out, u64::from(common.id));
                out.extend_from_slice(b",\"system\":null,\"event\":null");
            }
        }
        out.extend_from_slice(b"}\n");
    }

    /// Appends the line that stands for `count` events lost on `cpu`.
    pub fn lost(&self, cpu: u32, count: Option<u64>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"lost\",\"cpu\":");
        out::dec(out, u64::from(cpu));
        out.extend_from_slice(b",\"count\":");
        match count {
            Some(count) => out::dec(out, count),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"}\n");
    }

    fn event(&self, event: &Event, record: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"id\":");
        out::dec(out, u64::from(event.id()));
        out.extend_from_slice(b",\"system\":");
        string(event.system().as_bytes(), out);
        out.extend_from_slice(b",\"event\":");
        string(event.name().as_bytes(), out);
        out.extend_from_slice(b",\"fields\":");
        fields(event, record, out);
        if self.with_text {
            let mut text = Vec::new();
            let printed = event.print(record, &self.sources.context(), &mut text);
            out.extend_from_slice(b",\"text\":");
            string(text.trim_ascii_end(), out);
            let why =
                event.unprintable().map(ToString::to_string).or(printed.err().map(|stop| stop.to_string()));
            if let Some(why) = why {
                out.extend_from_slice(b",\"unprintable\":");
                string(why.as_bytes(), out);
            }
        }
    }
}

/// Appends an object of the event's own fields.
pub(crate) fn fields(event: &Event, record: &[u8], out: &mut Vec<u8>) {
    out.push(b'{');
    for (place, field) in event.fields().iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        string(field.name.as_bytes(), out);
        out.push(b':');
        let start = out.len();
        if value(field, record, event.target(), out).is_none() {
            out.truncate(start);
            out.extend_from_slice(b"null");
        }
    }
    out.push(b'}');
}

/// Appends a field's value; `None` where the record is too short for it.
pub(super) fn value(field: &Field, record: &[u8], target: Target, out: &mut Vec<u8>) -> Option<()> {
    match field.kind {
        Kind::Int | Kind::Bits { .. } => number(field.int(record, target)?, field.signed, out),
        Kind::Pointer => address(field.int(record, target)?, out),
        Kind::Float => {
            let float = crate::value::float(field.bytes(record, target)?, target)?;
            // JSON has neither infinities nor what is not a number.
            if !float.is_finite() {
                return None;
            }
            out.extend_from_slice(float.to_string().as_bytes());
        }
        Kind::Opaque => hex(field.bytes(record, target)?, out),
        Kind::Array(element) | Kind::Rest(element) | Kind::Dynamic { element, .. } => {
            array(field.bytes(record, target)?, element, target, out);
        }
    }
    Some(())
}

fn number(value: u64, signed: bool, out: &mut Vec<u8>) {
    if signed { out::signed(out, value.cast_signed()) } else { out::dec(out, value) }
}

/// Addresses are strings: as numbers they would lose digits in JavaScript.
fn address(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"0x");
    out::hex(out, value);
    out.push(b'"');
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in bytes {
        out::hex_byte(out, *byte, false);
    }
    out.push(b'"');
}

fn array(bytes: &[u8], element: Element, target: Target, out: &mut Vec<u8>) {
    match (element.meaning, u8::try_from(element.size)) {
        (Meaning::Text, _) => string(out::until_nul(bytes), out),
        (Meaning::Mask, _) => {
            out.push(b'"');
            crate::print::print_mask(bytes, target, out);
            out.push(b'"');
        }
        (meaning, Ok(size @ (1 | 2 | 4 | 8))) => {
            out.push(b'[');
            for (place, chunk) in bytes.chunks_exact(usize::from(size)).enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                let value = target.int(chunk, 0, size, element.signed).unwrap_or(0);
                if meaning == Meaning::Pointers {
                    address(value, out)
                } else {
                    number(value, element.signed, out)
                }
            }
            out.push(b']');
        }
        _ => hex(bytes, out),
    }
}

/// A string; bytes that are not UTF-8 become U+FFFD.
pub(crate) fn string(bytes: &[u8], out: &mut Vec<u8>) {
    let text: Cow<'_, str> = String::from_utf8_lossy(bytes);
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..32 | 127 => {
                out.extend_from_slice(b"\\u00");
                out::hex_byte(out, byte, false);
            }
            plain => out.push(plain),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dialect, Formats, Strings, Symbols, Tasks};

    const EVENT: &str = "name: e\nID: 9\nformat:\n\tfield:unsigned short common_type;offset:0;size:2;signed:0;\n\n\
                         \tfield:int a;offset:8;size:4;signed:1;\n\tfield:void * p;offset:16;size:8;signed:0;\n\
                         \tfield:char c[4];offset:24;size:4;signed:0;\n\tfield:u16 n[2];offset:28;size:4;signed:0;\n\
                         \tfield:u64 late;offset:32;size:8;signed:0;\n\nprint fmt: \"a=%d\", REC->a\n";

    #[test]
    fn lines_are_json_of_the_schema() {
        let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
        formats.add("x", EVENT).unwrap();
        let mut tasks = Tasks::default();
        tasks.set(7, b"a\"\xff\x01");
        let (symbols, strings) = (Symbols::default(), Strings::default());
        let sources = Sources { formats: &formats, tasks: &tasks, symbols: &symbols, strings: &strings };
        let json = JsonLines { sources, with_text: true };
        let mut record = vec![9, 0, 1, 0, 7, 0, 0, 0];
        record.extend_from_slice(&(-3i32).to_le_bytes());
        record.resize(16, 0);
        record.extend_from_slice(&u64::MAX.to_le_bytes());
        record.extend_from_slice(b"hi\0\0\x01\0\x02\0");
        let mut out = Vec::new();
        json.entry(&Entry { cpu: 1, time: 55, record: &record }, &mut out);
        json.entry(&Entry { cpu: 1, time: 56, record: &[8, 0] }, &mut out);
        json.lost(0, Some(3), &mut out);
        json.lost(0, None, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "{\"type\":\"event\",\"ts\":55,\"cpu\":1,\"pid\":7,\"comm\":\"a\\\"\u{fffd}\\u0001\",\"flags\":\"d....\",\
             \"id\":9,\"system\":\"x\",\"event\":\"e\",\"fields\":{\"a\":-3,\"p\":\"0xffffffffffffffff\",\"c\":\"hi\",\
             \"n\":[1,2],\"late\":null},\"text\":\"a=-3\"}\n\
             {\"type\":\"event\",\"ts\":56,\"cpu\":1,\"pid\":0,\"comm\":\"<idle>\",\"flags\":\".....\",\"id\":8,\
             \"system\":null,\"event\":null}\n\
             {\"type\":\"lost\",\"cpu\":0,\"count\":3}\n{\"type\":\"lost\",\"cpu\":0,\"count\":null}\n"
        );
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}
