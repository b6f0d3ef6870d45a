//! The layout of `trace-cmd report`.

use super::{Common, Entry, Sources};
use crate::out;

/// Writes lines as `trace-cmd report` does. The formats must be for [`crate::Dialect::TraceCmd`]; with
/// [`Formats::use_plugins`](crate::Formats::use_plugins), or else as with its option `-N`.
#[derive(Clone, Copy, Debug)]
pub struct TraceCmdText<'a> {
    /// What the lines are made from.
    pub sources: Sources<'a>,
    /// Whether times are nanoseconds; else, as with the clocks `counter` and `x86-tsc`, they are bare numbers.
    pub in_ns: bool,
}

impl TraceCmdText<'_> {
    /// Appends the first line: the number of CPUs.
    pub fn header(&self, cpus: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"cpus=");
        out::dec(out, u64::from(cpus));
        out.push(b'\n');
    }

    /// Appends the line of a record, ended by a newline.
    pub fn entry(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let common = Common::of(entry.record, self.sources.formats.target());
        let start = out.len();
        out.extend_from_slice(self.sources.tasks.name(common.pid));
        out::widen(out, start, 16, false);
        out.push(b'-');
        let start = out.len();
        out::signed(out, i64::from(common.pid));
        out::widen(out, start, 5, true);
        out.extend_from_slice(b" [");
        out::dec_wide(out, u64::from(entry.cpu), 3, b'0');
        out.push(b']');
        self.time(entry.time, out);
        out.extend_from_slice(b": ");
        self.body(common, entry.record, out);
        out.push(b'\n');
    }

    /// Appends the line that stands for `count` events lost on `cpu`; `None` where the number is not known.
    pub fn lost(&self, cpu: u32, count: Option<u64>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"CPU:");
        out::dec(out, u64::from(cpu));
        out.extend_from_slice(b" [");
        if let Some(count) = count {
            out::dec(out, count);
            out.push(b' ');
        }
        out.extend_from_slice(b"EVENTS DROPPED]\n");
    }

    fn time(&self, time: u64, out: &mut Vec<u8>) {
        let us = time.saturating_add(500) / 1000;
        if self.in_ns && us > 1_000_000 {
            out.push(b' ');
            super::seconds(out, time);
        } else {
            out::dec_wide(out, if self.in_ns { us } else { time }, 13, b' ');
        }
    }

    fn body(&self, common: Common, record: &[u8], out: &mut Vec<u8>) {
        let Some(event) = self.sources.formats.by_id(common.id) else {
            out.extend_from_slice(b"[UNKNOWN EVENT ");
            out::dec(out, u64::from(common.id));
            return out.push(b']');
        };
        let start = out.len();
        out.extend_from_slice(event.name().as_bytes());
        out.push(b':');
        out::widen(out, start, 21, true);
        out.push(b' ');
        let start = out.len();
        // Why a record was printed field by field stands in the text itself.
        let _ = event.print(record, &self.sources.context(), out);
        // The line's end is not the text's.
        while out.len() > start && out.last() == Some(&b'\n') {
            out.pop();
        }
    }
}
