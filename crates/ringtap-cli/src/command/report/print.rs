//! Steps of the merged files as lines.

use super::group::{self, Group};
use super::select::Wanted;
use super::source::{Counts, Inputs};
use crate::decode::{TextLayout, colour, escape_controls, is_applications};
use crate::output::LOSS;
use ringtap_format::text::{Common, CsvLines, Entry, JsonLines, TraceCmdText, TraceText};
use ringtap_format::trace_dat::{Item, Origin, Timed, TraceDatError};
use serde_json::json;
use std::fmt::Display;
use std::io::Write;

/// Most damaged pages that are told of one by one; the others are counted.
const MAX_TOLD: u64 = 10;

/// What lines look like.
pub(super) enum Form {
    Text(TextLayout),
    /// With columns for these fields.
    Csv(Vec<String>),
}

/// What all lines are made with.
pub(super) struct Shared {
    pub(super) form: Form,
    pub(super) in_ns: bool,
    /// Somebody's terminal is not to be steered by what a program wrote into its events.
    pub(super) hides_controls: bool,
    /// Parts of the `trace` file's lines have their colours.
    pub(super) is_coloured: bool,
    /// By their number in the files.
    pub(super) groups: Vec<(Group, Wanted)>,
    pub(super) inputs: Inputs,
    /// How many CPUs there are.
    pub(super) cpus: u32,
}

/// What is damaged.
#[derive(Debug, Default)]
pub(super) struct Damages {
    pages: u64,
    missing: u64,
    /// About each of the first.
    warnings: Vec<String>,
}

impl Damages {
    fn page(&mut self, warning: String) {
        self.pages += 1;
        if self.pages <= MAX_TOLD {
            self.warnings.push(warning);
        }
    }

    /// Adds what was found behind this, and warns of it.
    pub(super) fn add(&mut self, mut more: Self) {
        let room = MAX_TOLD.saturating_sub(self.pages);
        for warning in more.warnings.drain(..).take(usize::try_from(room).unwrap_or(0)) {
            group::warn(format_args!("{warning}"));
        }
        self.pages = self.pages.saturating_add(more.pages);
        self.missing = self.missing.saturating_add(more.missing);
    }

    /// What was damaged, if anything was.
    pub(super) fn told(&self) -> Option<String> {
        let pages = match self.pages {
            0 => None,
            1 => Some("1 page is damaged".to_owned()),
            count => Some(format!("{count} pages are damaged")),
        };
        let missing = (self.missing > 0).then(|| format!("{} bytes are missing", self.missing));
        let parts: Vec<_> = pages.into_iter().chain(missing).collect();
        (!parts.is_empty()).then(|| parts.join(" and "))
    }
}

impl Shared {
    /// Appends the layout's first lines; tells on the standard error what the files lack.
    pub(super) fn header(&self, counts: &Counts, lines: &mut Vec<u8>) -> Damages {
        let mut damages = Damages::default();
        for file in &self.inputs.files {
            for complaint in &file.complaints {
                group::warn(format_args!("{}: {complaint}", file.path.display()));
                match complaint {
                    TraceDatError::Missing { len, .. } => {
                        damages.missing = damages.missing.saturating_add(*len);
                    }
                    _ => damages.pages += 1,
                }
            }
        }
        let cpus = self.cpus;
        let Some((group, _)) = self.groups.first() else { return damages };
        let (sources, in_ns) = (group.sources(), self.in_ns);
        let written = counts.records.saturating_add(counts.lost);
        match &self.form {
            Form::Text(TextLayout::Ftrace) => {
                TraceText { sources, in_ns }.header(counts.records, written, cpus, lines);
            }
            Form::Text(TextLayout::TraceCmd) => TraceCmdText { sources, in_ns }.header(cpus, lines),
            Form::Text(TextLayout::Json) => {}
            Form::Csv(fields) => CsvLines::header(fields, lines),
        }
        damages
    }

    /// Appends the lines of a step.
    pub(super) fn step(&self, timed: &Timed<'_>, lines: &mut Vec<u8>, damages: &mut Damages) {
        let (group, wanted) = &self.groups[self.inputs.files[timed.origin.file].group];
        let start = lines.len();
        match &timed.step {
            Item::Record(record) => {
                let entry = Entry { cpu: timed.origin.cpu, time: record.time, record: record.bytes };
                let common = Common::of(entry.record, group.formats.target());
                if !wanted.admits(common, &entry, group) {
                    return;
                }
                self.buffer_name(timed.origin, lines);
                self.entry(group, &entry, lines);
            }
            Item::Lost(_) if !wanted.admits_place(timed.origin.cpu, timed.time) => return,
            Item::Lost(lost) => {
                self.buffer_name(timed.origin, lines);
                self.lost(group, timed, lost.count(), lines);
            }
            Item::Damaged { offset, error } => self.damaged(timed.origin, *offset, error, lines, damages),
            Item::Failed(error) => self.damaged(timed.origin, error.offset(), error, lines, damages),
        }
        // As trace-cmd prints them, where a program reads; JSON and CSV have their own way.
        let is_exact = match self.form {
            Form::Text(TextLayout::Json) | Form::Csv(_) => true,
            Form::Text(TextLayout::TraceCmd) => !self.hides_controls,
            Form::Text(TextLayout::Ftrace) => false,
        };
        let is_applications = matches!(&timed.step, Item::Record(record) if is_applications(record.bytes));
        if !is_exact && (self.hides_controls || is_applications) {
            escape_controls(lines, start, is_applications);
        }
        if self.is_coloured && matches!(self.form, Form::Text(TextLayout::Ftrace)) {
            let line = lines.split_off(start);
            match &timed.step {
                Item::Record(_) => colour(&line, lines),
                _ => {
                    let text = line.trim_ascii_end();
                    // To a vector, which takes all.
                    let _ = write!(lines, "{LOSS}");
                    lines.extend_from_slice(text);
                    let _ = writeln!(lines, "{LOSS:#}");
                }
            }
        }
    }

    fn entry(&self, group: &Group, entry: &Entry<'_>, lines: &mut Vec<u8>) {
        let (sources, in_ns) = (group.sources(), self.in_ns);
        match &self.form {
            Form::Text(TextLayout::Ftrace) => TraceText { sources, in_ns }.entry(entry, lines),
            Form::Text(TextLayout::TraceCmd) => TraceCmdText { sources, in_ns }.entry(entry, lines),
            Form::Text(TextLayout::Json) => JsonLines { sources, with_text: true }.entry(entry, lines),
            Form::Csv(fields) => CsvLines { sources, fields }.entry(entry, lines),
        }
    }

    fn lost(&self, group: &Group, timed: &Timed<'_>, count: Option<u64>, lines: &mut Vec<u8>) {
        let (sources, in_ns, cpu) = (group.sources(), self.in_ns, timed.origin.cpu);
        match &self.form {
            Form::Text(TextLayout::Ftrace) => TraceText { sources, in_ns }.lost(cpu, count, lines),
            Form::Text(TextLayout::TraceCmd) => TraceCmdText { sources, in_ns }.lost(cpu, count, lines),
            Form::Text(TextLayout::Json) => JsonLines { sources, with_text: true }.lost(cpu, count, lines),
            Form::Csv(fields) => CsvLines { sources, fields }.lost(cpu, timed.time, count, lines),
        }
    }

    /// Appends what trace-cmd puts before the lines of a file with several buffers.
    fn buffer_name(&self, origin: Origin, lines: &mut Vec<u8>) {
        let (name, width) = self.inputs.buffer(origin);
        if !matches!(self.form, Form::Text(TextLayout::TraceCmd)) || width == 0 {
            return;
        }
        let mark = if name.is_empty() { ' ' } else { ':' };
        // To a vector, which takes all.
        let _ = write!(lines, "{name:>width$}{mark} ");
    }

    fn damaged(
        &self,
        origin: Origin,
        offset: u64,
        error: &dyn Display,
        lines: &mut Vec<u8>,
        damages: &mut Damages,
    ) {
        let (path, cpu) = (self.inputs.files[origin.file].path.display(), origin.cpu);
        damages.page(format!("{path}: page at byte {offset}: {error}"));
        let line = match self.form {
            Form::Text(TextLayout::Json) => {
                let file = path.to_string();
                let error = error.to_string();
                json!({ "type": "damage", "cpu": cpu, "file": file, "offset": offset, "error": error })
                    .to_string()
            }
            Form::Text(_) => format!("CPU:{cpu} [DAMAGED: {path}: page at byte {offset}: {error}]"),
            // It has no column for it.
            Form::Csv(_) => return,
        };
        lines.extend_from_slice(line.as_bytes());
        lines.push(b'\n');
    }
}
