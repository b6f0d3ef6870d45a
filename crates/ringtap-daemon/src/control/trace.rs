//! The text of `trace`: what is in the rings, by time, without consuming it.

use super::errno::errno;
use super::instance::Instance;
use super::lane::{Lane, Piece, Stream, Taken, Walk, earliest};
use super::options::bit;
use super::{Control, catalog::Catalog};
use ringtap::{Host, Start};
use ringtap_format::text::{Columns, Entry, Latency, Sources, Style, TraceText};
use ringtap_format::{Formats, Strings, Symbols, Tasks};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

/// The time of the record that is next.
fn time_of_next<S: Stream>(lanes: &mut [Lane<S>]) -> Result<Option<u64>, Errno> {
    earliest(lanes)?.map_or(Ok(None), Lane::next_time)
}

/// How an instance's entries are printed: what was known when a file was opened.
pub(super) struct Printer {
    formats: Arc<Formats>,
    tasks: Tasks,
    tgids: HashMap<i32, u32>,
    columns: Columns,
    /// With `latency-format`: what is the same for all entries.
    latency: Option<Latency>,
    in_ns: bool,
    symbols: Symbols,
    strings: Strings,
}

impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl Printer {
    pub(super) fn new(control: &Control, instance: &Instance) -> Self {
        let catalog: Arc<Catalog> = control.catalog();
        let verbose = instance.has(bit::VERBOSE);
        let latency = Latency { since: instance.emptied(), verbose, ..Latency::default() };
        let context = instance.has(bit::CONTEXT_INFO);
        let mut printer = Self {
            formats: catalog.formats(),
            tasks: Tasks::default(),
            tgids: HashMap::new(),
            columns: Columns {
                context,
                irqs: instance.has(bit::IRQ_INFO),
                tgids: instance.has(bit::RECORD_TGID),
                style: style(instance),
            },
            latency: Some(latency).filter(|_| context && instance.has(bit::LATENCY_FORMAT)),
            in_ns: instance.clock().is_ns(),
            symbols: Symbols::default(),
            strings: Strings::default(),
        };
        for (tid, task) in control.tasks().iter() {
            printer.tasks.set(tid.cast_signed(), task.name.as_bytes());
            printer.tgids.insert(tid.cast_signed(), task.tgid);
        }
        printer
    }

    fn text(&self) -> TraceText<'_> {
        let sources = Sources {
            formats: &self.formats,
            tasks: &self.tasks,
            symbols: &self.symbols,
            strings: &self.strings,
        };
        TraceText { sources, in_ns: self.in_ns }
    }

    /// Prints losses and a record, the lane's next. `number` were printed before it, and `next` is the time of the record
    /// behind it, in whatever lane.
    pub(super) fn print(&self, taken: Taken, number: u64, next: Option<u64>, out: &mut Vec<u8>) {
        let text = self.text();
        for piece in taken.pieces {
            match piece {
                Piece::Lost(count) => text.lost(taken.cpu, count, out),
                Piece::Record { ticks, bytes } => {
                    let entry = Entry { cpu: taken.cpu, time: ticks, record: &bytes };
                    match self.latency {
                        Some(of_all) => {
                            let latency = Latency { number, next, ..of_all };
                            text.latency_entry(latency, self.columns.style, &entry, out);
                        }
                        None => text.entry_of(self.columns, self.tgid(&bytes), &entry, out),
                    }
                }
            }
        }
    }

    /// The thread group of a record's task, where known.
    fn tgid(&self, record: &[u8]) -> Option<u32> {
        let common = ringtap_format::text::Common::of(record, self.formats.target());
        self.tgids.get(&common.pid).copied()
    }

    fn header(&self, instance: &Instance, entries: u64, written: u64, is_empty: bool) -> Vec<u8> {
        let (text, cpus, mut out) = (self.text(), instance.nr_cpus(), Vec::new());
        let verbose = instance.has(bit::VERBOSE);
        match self.latency {
            Some(_) if !is_empty => {
                let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
                text.latency_header(release.trim_end(), entries, written, cpus, verbose, &mut out);
            }
            latency => {
                // With `verbose`, what the columns mean is not said.
                let context = self.columns.context && !verbose && latency.is_none();
                text.header_of(Columns { context, ..self.columns }, entries, written, cpus, &mut out);
            }
        }
        out
    }
}

/// How an instance's entries are printed. Of several options the first of these is heeded, as in the kernel.
fn style(instance: &Instance) -> Style {
    let styles = [
        (bit::HEX, Style::Hex),
        (bit::BIN, Style::Bin),
        (bit::RAW, Style::Raw),
        (bit::FIELDS, Style::Fields),
    ];
    styles.iter().find(|(option, _)| instance.has(*option)).map_or(Style::Text, |(_, style)| *style)
}

/// What `snapshot` shows where there is nothing to show.
const SNAPSHOT_HELP: &str = "# tracer: nop\n#\n#\n# * Snapshot is STATE *\n#\n\
    # Snapshot commands:\n\
    # echo 0 > snapshot : frees the snapshot's memory\n\
    # echo 1 > snapshot : takes a snapshot, in new memory where there is none yet\n\
    # echo 2 > snapshot : empties the snapshot, as any other number does\n";

/// An open `trace`, being read.
#[derive(Debug)]
pub(crate) struct Trace {
    printer: Printer,
    lanes: Vec<Lane<Walk>>,
    /// Whether a CPU's first line is announced: events were lost, so that its beginning says nothing.
    announces: bool,
    /// How many records were printed.
    printed: u64,
    /// Text at hand, which begins at `start` of the file.
    text: Vec<u8>,
    start: u64,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Trace {
    /// Begins to read what is in the ring of `cpu` (`None`: all) now.
    pub(crate) fn new(control: &Control, instance: &Instance, cpu: Option<u32>) -> Result<Self, Errno> {
        Self::of(&instance.host(), control, instance, cpu)
    }

    /// Begins to read the snapshot, likewise; where it holds nothing, what it is and how one is taken.
    pub(crate) fn of_snapshot(
        control: &Control,
        instance: &Instance,
        cpu: Option<u32>,
    ) -> Result<Self, Errno> {
        let snapshot = instance.host().snapshot();
        let state = if snapshot.is_some() { "allocated" } else { "freed" };
        let mut trace = Self::of(&snapshot.unwrap_or_else(|| instance.host()), control, instance, cpu)?;
        if state == "freed" {
            trace.lanes.clear();
        }
        if earliest(&mut trace.lanes)?.is_none() {
            trace.text = SNAPSHOT_HELP.replace("STATE", state).into_bytes();
        }
        Ok(trace)
    }

    fn of(host: &Host, control: &Control, instance: &Instance, cpu: Option<u32>) -> Result<Self, Errno> {
        let printer = Printer::new(control, instance);
        let (mut entries, mut written, mut overrun) = (0u64, 0u64, 0u64);
        let mut lanes = Vec::new();
        for of in host.cpus() {
            let stats = host.stats(of).map_err(|error| errno(&error))?;
            if cpu.is_none_or(|cpu| cpu == of) {
                let cursor = host.cursor(of, Start::Unread).map_err(|_| Errno::NOMEM)?;
                lanes.push(Lane::new(of, Walk { cursor, left: stats.entries }, VecDeque::new()));
            }
            // As the kernel's, the header counts all CPUs in each file.
            entries = entries.saturating_add(stats.entries);
            // As the kernel: what was read is not counted.
            written = written.saturating_add(stats.entries).saturating_add(stats.overrun);
            overrun = overrun.saturating_add(stats.overrun);
        }
        let is_empty = earliest(&mut lanes)?.is_none();
        let text = printer.header(instance, entries, written, is_empty);
        let announces = overrun > 0 && instance.has(bit::ANNOTATE);
        Ok(Self { printer, lanes, announces, printed: 0, text, start: 0 })
    }

    /// Where the text at hand begins: what is before it cannot be read any more.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Up to `len` bytes from `offset` on, which is not before [`start`](Self::start).
    pub(crate) fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let skip = usize::try_from(offset.saturating_sub(self.start)).map_err(|_| Errno::INVAL)?;
        let want = skip.saturating_add(len);
        while self.text.len() < want {
            let Some(lane) = earliest(&mut self.lanes)? else { break };
            if self.announces && !lane.begun && self.printed > 0 {
                let line = format!("##### CPU {} buffer started ####\n", lane.cpu);
                self.text.extend_from_slice(line.as_bytes());
            }
            lane.begun = true;
            let taken = lane.take();
            let next = match self.printer.latency {
                Some(_) => time_of_next(&mut self.lanes)?,
                None => None,
            };
            self.printer.print(taken, self.printed, next, &mut self.text);
            self.printed += 1;
        }
        let skip = skip.min(self.text.len());
        self.text.drain(..skip);
        self.start = self.start.saturating_add(skip as u64);
        Ok(self.text.iter().copied().take(len).collect())
    }
}
