//! Prints a trace.dat as text: `report FILE [--kernel | --plain]`.
//!
//! `--kernel` prints in the layout of the kernel's `trace` file, `--plain` as `trace-cmd report -N`, else as
//! `trace-cmd report`.

use ringtap_format::text::{Entry, Sources, TraceCmdText, TraceText};
use ringtap_format::trace_dat::{Item, Timeline, TraceDat};
use ringtap_format::{Constants, Dialect, Strings, Symbols, Tasks};
use std::io::{self, Write};

/// Bytes of text that are gathered before they are written.
const CHUNK: usize = 1 << 16;

/// Layout of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The kernel's `trace` file.
    Kernel,
    /// `trace-cmd report`
    TraceCmd,
    /// `trace-cmd report -N`
    TraceCmdPlain,
}

/// What the running kernel tells of itself: right for its own traces only.
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) fn kernel_constants() -> Constants {
    let mut constants = Constants::new();
    if let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux")
        && let Err(error) = ringtap_format::btf::define(&bytes, &mut constants)
    {
        eprintln!("{error}");
    }
    constants
}

/// Writes the text of the trace.dat in `bytes`.
pub(crate) fn report(
    bytes: &[u8],
    layout: Layout,
    constants: Constants,
    to: &mut impl Write,
) -> io::Result<()> {
    let file = TraceDat::open(&bytes).map_err(io::Error::other)?;
    let dialect = if layout == Layout::Kernel { Dialect::Kernel } else { Dialect::TraceCmd };
    let (formats, failed) = file.events(dialect, layout == Layout::TraceCmd, constants);
    failed.iter().for_each(|error| eprintln!("{error}"));
    let symbols = Symbols::parse(&file.kallsyms);
    let strings = Strings::parse(&file.printk_formats);
    let tasks = Tasks::parse(&file.tasks);
    let sources = Sources { formats: &formats, tasks: &tasks, symbols: &symbols, strings: &strings };
    let trace = TraceText { sources, in_ns: true };
    let trace_cmd = TraceCmdText { sources, in_ns: true };
    let mut out = Vec::with_capacity(CHUNK * 2);
    if layout != Layout::Kernel {
        trace_cmd.header(file.cpu_count(), &mut out);
    }
    let mut timeline = Timeline::new();
    timeline.push_file(0, &file, &bytes);
    while let Some(timed) = timeline.next() {
        let cpu = timed.origin.cpu;
        match (timed.step, layout) {
            (Item::Record(record), Layout::Kernel) => {
                trace.entry(&Entry { cpu, time: record.time, record: record.bytes }, &mut out);
            }
            (Item::Record(record), _) => {
                trace_cmd.entry(&Entry { cpu, time: record.time, record: record.bytes }, &mut out);
            }
            (Item::Lost(lost), Layout::Kernel) => trace.lost(cpu, lost.count(), &mut out),
            (Item::Lost(lost), _) => trace_cmd.lost(cpu, lost.count(), &mut out),
            (Item::Damaged { offset, error }, _) => eprintln!("cpu {cpu}: page at byte {offset}: {error}"),
            (Item::Failed(error), _) => eprintln!("cpu {cpu}: {error}"),
        }
        if out.len() > CHUNK {
            to.write_all(&out)?;
            out.clear();
        }
    }
    to.write_all(&out)
}

#[allow(dead_code, reason = "tests include this file as a module")]
fn main() -> io::Result<()> {
    let mut layout = Layout::TraceCmd;
    let mut path = None;
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--kernel" => layout = Layout::Kernel,
            "--plain" => layout = Layout::TraceCmdPlain,
            _ => path = Some(arg),
        }
    }
    let path = path.ok_or_else(|| io::Error::other("usage: report FILE [--kernel | --plain]"))?;
    let constants = if layout == Layout::Kernel { kernel_constants() } else { Constants::new() };
    report(&std::fs::read(path)?, layout, constants, &mut io::stdout().lock())
}
