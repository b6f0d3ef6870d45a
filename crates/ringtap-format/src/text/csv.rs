//! Comma-separated values, as in RFC 4180 but for the line's end: one line for each record or loss.

use super::{Common, Entry, Sources, flags, json};
use crate::event::Event;
use crate::out;

/// Writes records as lines of comma-separated values.
///
/// The columns are `ts`, `cpu`, `pid`, `comm`, `flags`, `system`, `event`, `lost`; then the fields that were chosen,
/// or else the event's `text`. Of a loss, `event` is `lost` and `lost` is the number of events, if it is known.
#[derive(Clone, Copy, Debug)]
pub struct CsvLines<'a> {
    /// What the lines are made from.
    pub sources: Sources<'a>,
    /// Names of the fields that have columns; without any there is a column of text.
    pub fields: &'a [String],
}

impl CsvLines<'_> {
    /// Appends the line of the columns' names.
    pub fn header(fields: &[String], out: &mut Vec<u8>) {
        out.extend_from_slice(b"ts,cpu,pid,comm,flags,system,event,lost");
        if fields.is_empty() {
            out.extend_from_slice(b",text");
        }
        for field in fields {
            out.push(b',');
            quoted(field.as_bytes(), out);
        }
        out.push(b'\n');
    }

    /// Appends the line of a record.
    pub fn entry(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let common = Common::of(entry.record, self.sources.formats.target());
        out::dec(out, entry.time);
        out.push(b',');
        out::dec(out, u64::from(entry.cpu));
        out.push(b',');
        out::signed(out, i64::from(common.pid));
        out.push(b',');
        quoted(self.sources.tasks.name(common.pid), out);
        out.push(b',');
        flags::kernel(common, out);
        out.push(b',');
        match self.sources.formats.by_id(common.id) {
            Some(event) => self.event(event, entry.record, out),
            None => {
                out.extend_from_slice(b",unknown event ");
                out::dec(out, u64::from(common.id));
                out.push(b',');
                self.nothing(out);
            }
        }
        out.push(b'\n');
    }

    /// Appends the line of a loss on `cpu`, before the record of `time`.
    pub fn lost(&self, cpu: u32, time: u64, count: Option<u64>, out: &mut Vec<u8>) {
        out::dec(out, time);
        out.push(b',');
        out::dec(out, u64::from(cpu));
        out.extend_from_slice(b",,,,,lost,");
        if let Some(count) = count {
            out::dec(out, count);
        }
        self.nothing(out);
        out.push(b'\n');
    }

    fn event(&self, event: &Event, record: &[u8], out: &mut Vec<u8>) {
        quoted(event.system().as_bytes(), out);
        out.push(b',');
        quoted(event.name().as_bytes(), out);
        out.push(b',');
        if self.fields.is_empty() {
            let mut text = Vec::new();
            // Why a record was printed field by field stands in the text itself.
            let _ = event.print(record, &self.sources.context(), &mut text);
            out.push(b',');
            quoted(text.trim_ascii_end(), out);
        }
        for name in self.fields {
            out.push(b',');
            let field = event.fields().iter().find(|field| field.name == *name);
            if let Some(field) = field {
                match field.text(record, event.target()) {
                    Some(text) => quoted(text, out),
                    None => other(field, record, event, out),
                }
            }
        }
    }

    /// Appends empty columns.
    fn nothing(&self, out: &mut Vec<u8>) {
        out::pad(out, b',', self.fields.len().max(1));
    }
}

/// What is not text, as in JSON lines but for the quotes; nothing where the record is too short for it.
fn other(field: &crate::Field, record: &[u8], event: &Event, out: &mut Vec<u8>) {
    let mut value = Vec::new();
    if json::value(field, record, event.target(), &mut value).is_some() {
        let plain = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        quoted(plain.unwrap_or(&value), out);
    }
}

/// A value, in quotes where it needs them; bytes that are not UTF-8 become U+FFFD.
fn quoted(value: &[u8], out: &mut Vec<u8>) {
    let value = String::from_utf8_lossy(value);
    if !value.contains(['"', ',', '\n', '\r']) {
        return out.extend_from_slice(value.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(value.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}
