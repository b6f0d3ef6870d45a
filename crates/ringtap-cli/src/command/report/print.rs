//! Steps of the merged files as lines.

use super::group::{self, Group};
use super::select::Wanted;
use super::source::{Counts, Inputs};
use crate::decode::{TextLayout, hide_controls};
use crate::output::Output;
use anyhow::Result;
use ringtap_format::text::{Common, Entry, JsonLines, TraceCmdText, TraceText};
use ringtap_format::trace_dat::{Item, Origin, Timed, TraceDatError};
use serde_json::json;
use std::fmt::Display;
use std::io::Write;

/// Bytes of text gathered before they are written.
const CHUNK: usize = 1 << 17;
/// Most damaged pages that are told of one by one; the others are counted.
const MAX_TOLD: u64 = 10;

/// Makes the lines, and counts what is damaged.
pub(super) struct Printer {
    layout: TextLayout,
    in_ns: bool,
    is_terminal: bool,
    lines: Vec<u8>,
    damaged: u64,
    missing: u64,
}

impl Printer {
    pub(super) fn new(layout: TextLayout, in_ns: bool, is_terminal: bool) -> Self {
        Self { layout, in_ns, is_terminal, lines: Vec::with_capacity(CHUNK * 2), damaged: 0, missing: 0 }
    }

    /// The layout's first lines; and on the standard error what the files lack.
    pub(super) fn header(&mut self, counts: &Counts, inputs: &Inputs, groups: &[(Group, Wanted)]) {
        for file in &inputs.files {
            for complaint in &file.complaints {
                group::warn(format_args!("{}: {complaint}", file.path.display()));
                match complaint {
                    TraceDatError::Missing { len, .. } => self.missing = self.missing.saturating_add(*len),
                    _ => self.damaged += 1,
                }
            }
        }
        let cpus = inputs.cpus();
        let Some((group, _)) = groups.first() else { return };
        let (sources, in_ns) = (group.sources(), self.in_ns);
        let written = counts.records.saturating_add(counts.lost);
        match self.layout {
            TextLayout::Ftrace => {
                TraceText { sources, in_ns }.header(counts.records, written, cpus, &mut self.lines);
            }
            TextLayout::TraceCmd => TraceCmdText { sources, in_ns }.header(cpus, &mut self.lines),
            TextLayout::Json => {}
        }
    }

    /// Appends the lines of a step.
    pub(super) fn step(&mut self, inputs: &Inputs, timed: Timed<'_>, group: &Group, wanted: &Wanted) {
        let (sources, in_ns, cpu) = (group.sources(), self.in_ns, timed.origin.cpu);
        let start = self.lines.len();
        match timed.step {
            Item::Record(record) => {
                let entry = Entry { cpu, time: record.time, record: record.bytes };
                let id = Common::of(entry.record, group.formats.target()).id;
                if !wanted.admits(id, &entry, group) {
                    return;
                }
                self.buffer_name(inputs, timed.origin);
                let lines = &mut self.lines;
                match self.layout {
                    TextLayout::Ftrace => TraceText { sources, in_ns }.entry(&entry, lines),
                    TextLayout::TraceCmd => TraceCmdText { sources, in_ns }.entry(&entry, lines),
                    TextLayout::Json => JsonLines { sources, with_text: true }.entry(&entry, lines),
                }
            }
            Item::Lost(lost) => {
                self.buffer_name(inputs, timed.origin);
                let (count, lines) = (lost.count(), &mut self.lines);
                match self.layout {
                    TextLayout::Ftrace => TraceText { sources, in_ns }.lost(cpu, count, lines),
                    TextLayout::TraceCmd => TraceCmdText { sources, in_ns }.lost(cpu, count, lines),
                    TextLayout::Json => JsonLines { sources, with_text: true }.lost(cpu, count, lines),
                }
            }
            Item::Damaged { offset, error } => self.damaged(inputs, timed.origin, offset, &error),
            Item::Failed(error) => self.damaged(inputs, timed.origin, error.offset(), &error),
        }
        // What a program wrote into its events is not to steer somebody's terminal.
        if self.is_terminal {
            hide_controls(&mut self.lines[start..]);
        }
    }

    /// Appends what trace-cmd puts before the lines of a file with several buffers.
    fn buffer_name(&mut self, inputs: &Inputs, origin: Origin) {
        let (name, width) = inputs.buffer(origin);
        if self.layout != TextLayout::TraceCmd || width == 0 {
            return;
        }
        let mark = if name.is_empty() { ' ' } else { ':' };
        // To a vector, which takes all.
        let _ = write!(self.lines, "{name:>width$}{mark} ");
    }

    fn damaged(&mut self, inputs: &Inputs, origin: Origin, offset: u64, error: &dyn Display) {
        let (path, cpu) = (inputs.files[origin.file].path.display(), origin.cpu);
        self.damaged += 1;
        if self.damaged <= MAX_TOLD {
            group::warn(format_args!("{path}: page at byte {offset}: {error}"));
        }
        let line = match self.layout {
            TextLayout::Json => {
                let file = path.to_string();
                let error = error.to_string();
                json!({ "type": "damage", "cpu": cpu, "file": file, "offset": offset, "error": error })
                    .to_string()
            }
            _ => format!("CPU:{cpu} [DAMAGED: {path}: page at byte {offset}: {error}]"),
        };
        self.lines.extend_from_slice(line.as_bytes());
        self.lines.push(b'\n');
    }

    /// Writes the lines where there are enough of them.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub(super) fn write_if_long(&mut self, output: &mut Output) -> Result<()> {
        if self.lines.len() >= CHUNK { self.write(output) } else { Ok(()) }
    }

    /// Writes the lines gathered.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub(super) fn write(&mut self, output: &mut Output) -> Result<()> {
        output.write_as_is(&self.lines)?;
        self.lines.clear();
        Ok(())
    }

    /// What was damaged, if anything was.
    pub(super) fn damage(&self) -> Option<String> {
        let pages = match self.damaged {
            0 => None,
            1 => Some("1 page is damaged".to_owned()),
            count => Some(format!("{count} pages are damaged")),
        };
        let missing = (self.missing > 0).then(|| format!("{} bytes are missing", self.missing));
        let parts: Vec<_> = pages.into_iter().chain(missing).collect();
        (!parts.is_empty()).then(|| parts.join(" and "))
    }
}
