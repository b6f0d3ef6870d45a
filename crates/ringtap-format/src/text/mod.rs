//! Records as text: in the layout of the kernel's `trace` file, of `trace-cmd report`, as JSON lines or as CSV.

mod csv;
mod flags;
mod ftrace;
mod json;
mod latency;
mod styles;
mod trace;
mod trace_cmd;

pub use csv::CsvLines;
pub(crate) use ftrace::ByCode;
pub use json::JsonLines;
#[cfg(feature = "chrome")]
pub(crate) use json::fields as json_fields;
#[cfg(any(feature = "chrome", feature = "ctf"))]
pub(crate) use json::string as json_string;
pub use latency::Latency;
pub use styles::Style;
pub use trace::{Columns, TraceText};
pub use trace_cmd::TraceCmdText;

use crate::symbols::{Strings, Symbols, Tasks};
use crate::{Context, Formats};

/// What the text of records needs besides the records.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The events.
    pub formats: &'a Formats,
    /// Names of tasks.
    pub tasks: &'a Tasks,
    /// Names of addresses.
    pub symbols: &'a Symbols,
    /// Texts of addresses.
    pub strings: &'a Strings,
}

impl<'a> Sources<'a> {
    /// The part of it that events need.
    #[must_use]
    pub fn context(&self) -> Context<'a> {
        Context { symbols: self.symbols, strings: self.strings, hz: self.formats.hz() }
    }
}

/// A record and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The CPU that it was written on.
    pub cpu: u32,
    /// Its time: nanoseconds, or ticks of a clock that tells no time.
    pub time: u64,
    /// The record, its common fields first.
    pub record: &'a [u8],
}

/// What every record starts with: the number of its event, flags, depth of preemption, task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// Number of the event.
    pub id: u16,
    /// The CPU's state: interrupts off, in an interrupt, about to reschedule.
    pub flags: u8,
    /// Depth of disabled preemption in the low, of disabled migration in the high 4 bits.
    pub preempt_count: u8,
    /// The thread.
    pub pid: i32,
}

impl Common {
    /// The common fields of `record`; what it is too short for is 0.
    #[must_use]
    #[inline]
    pub fn of(record: &[u8], target: crate::Target) -> Self {
        if target.order == crate::ByteOrder::Little
            && let Some(&[id0, id1, flags, preempt_count, ref pid @ ..]) = record.first_chunk::<8>()
        {
            let id = u16::from_le_bytes([id0, id1]);
            return Self { id, flags, preempt_count, pid: i32::from_le_bytes(*pid) };
        }
        let field = |offset, size| target.uint(record, offset, size).unwrap_or(0);
        Self {
            id: u16::try_from(field(0, 2)).unwrap_or(0),
            flags: u8::try_from(field(2, 1)).unwrap_or(0),
            preempt_count: u8::try_from(field(3, 1)).unwrap_or(0),
            pid: u32::try_from(field(4, 4)).unwrap_or(0).cast_signed(),
        }
    }
}

/// Nanoseconds as the kernel prints them: seconds, a dot, microseconds, rounded.
pub(crate) fn seconds(out: &mut Vec<u8>, ns: u64) {
    let us = ns.saturating_add(500) / 1000;
    crate::out::dec_wide(out, us / 1_000_000, 5, b' ');
    out.push(b'.');
    crate::out::dec_wide(out, us % 1_000_000, 6, b'0');
}
