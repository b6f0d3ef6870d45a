//! What the decoder promises on any input, as functions that fuzzers and tests call: no panic, no endless work, no
//! text out of proportion.

use crate::merge::Merged;
use crate::merge::{Pages, Step};
use crate::page::PageRecord;
use crate::text::{Entry, JsonLines, Sources, TraceCmdText, TraceText};
use crate::{ByteOrder, Dialect, Formats, Strings, Symbols, Target, Tasks};

pub use crate::btf::check_btf;
pub use crate::filter::check_filter;
pub use crate::page::check_page;
pub use crate::trace_dat::check_trace_dat;
pub use crate::trigger::check_trigger;

/// Most bytes of text that one record may become: its text and each of its fields.
const MAX_LINE: usize = 1 << 22;

/// A format file and a record of that event, neither of which need be right, through everything that makes text.
pub fn check_format(text: &str, record: &[u8]) {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        for long_size in [4, 8] {
            for dialect in [Dialect::Kernel, Dialect::TraceCmd] {
                check_format_of(text, record, Target { order, long_size }, dialect);
            }
        }
    }
}

fn check_format_of(text: &str, record: &[u8], target: Target, dialect: Dialect) {
    let mut formats = Formats::new(target, dialect);
    if dialect == Dialect::TraceCmd {
        formats.use_plugins();
    }
    let Ok(event) = formats.add("sched", text) else { return };
    let id = event.id();
    assert!(event.unresolved().len() <= text.len(), "names come from the text");
    let symbols = Symbols::parse("ffffffff81000000 T _stext\nffffffff81000100 t inner\n");
    let (tasks, strings) = (Tasks::default(), Strings::default());
    let sources = Sources { formats: &formats, tasks: &tasks, symbols: &symbols, strings: &strings };
    // The record's own number decides whose it is; here it is to be this event's.
    let mut record = record.to_vec();
    let raw = match target.order {
        ByteOrder::Little => id.to_le_bytes(),
        ByteOrder::Big => id.to_be_bytes(),
    };
    if let Some(start) = record.first_chunk_mut() {
        *start = raw;
    }
    let mut out = Vec::new();
    let entry = Entry { cpu: 1, time: 1, record: &record };
    TraceText { sources, in_ns: true }.entry(&entry, &mut out);
    TraceCmdText { sources, in_ns: true }.entry(&entry, &mut out);
    let step = Step::Record(PageRecord { time: 1, bytes: &record });
    JsonLines { sources, with_text: true }.merged(&Merged { buffer: 0, cpu: 1, step }, &mut out);
    assert!(
        out.len() <= MAX_LINE.saturating_add(text.len().saturating_mul(64)),
        "{} bytes of text",
        out.len()
    );
}

/// A `print fmt` and a record, neither of which need be right, for an event with fields of most kinds.
pub fn check_print_fmt(print_fmt: &str, record: &[u8]) {
    const FIELDS: &str = "name: e\nID: 1\nformat:\n\
        \tfield:unsigned short common_type;offset:0;size:2;signed:0;\n\n\
        \tfield:int a;offset:8;size:4;signed:1;\n\tfield:unsigned long b;offset:16;size:8;signed:0;\n\
        \tfield:char c[16];offset:24;size:16;signed:0;\n\tfield:__data_loc char[] d;offset:40;size:4;signed:0;\n\
        \tfield:__data_loc u32[] e;offset:44;size:4;signed:0;\n\tfield:u8 f[16];offset:48;size:16;signed:0;\n\
        \tfield:__rel_loc cpumask_t g;offset:64;size:4;signed:0;\n\tfield:const char * h;offset:72;size:8;signed:0;\n\
        \tfield:unsigned int i:3;offset:80;size:4;signed:0;\n\tfield:u16 j[];offset:84;size:0;signed:0;\n";
    check_format(&[FIELDS, "\nprint fmt: ", print_fmt, "\n"].concat(), record);
}

/// Sub-buffers of a trace whose formats are right and whose bytes need not be.
pub fn check_pages(bytes: &[u8], sources: Sources<'_>) {
    let layout = crate::header::PageLayout {
        target: sources.formats.target(),
        ..crate::header::PageLayout::of_size(4096)
    };
    let mut out = Vec::new();
    for step in Pages::new(bytes, layout) {
        out.clear();
        JsonLines { sources, with_text: true }.merged(&Merged { buffer: 0, cpu: 0, step }, &mut out);
        assert!(out.len() <= MAX_LINE, "{} bytes of text", out.len());
        if let Step::Record(record) = step {
            let entry = Entry { cpu: 0, time: record.time, record: record.bytes };
            TraceText { sources, in_ns: true }.entry(&entry, &mut out);
        }
    }
}

/// Most bytes that one record may become in a file of another format, with all that describes it.
#[cfg(all(feature = "chrome", feature = "ctf", feature = "perfetto"))]
const MAX_EXPORTED: usize = 1 << 22;
/// Most steps of a file that are exported.
#[cfg(all(feature = "chrome", feature = "ctf", feature = "perfetto"))]
const MAX_EXPORTED_STEPS: u32 = 1 << 14;

/// A file that need not be right, through each exporter and each layout of text.
#[cfg(all(feature = "chrome", feature = "ctf", feature = "perfetto"))]
pub fn check_export(bytes: &[u8]) {
    use crate::text::CsvLines;
    use crate::trace_dat::{Item, Timeline, TraceDat};
    use crate::{Constants, chrome, ctf, perfetto};

    let Ok(file) = TraceDat::open(&bytes) else { return };
    let (formats, _) = file.events(Dialect::Kernel, false, Constants::new());
    let (symbols, strings) = (Symbols::parse(&file.kallsyms), Strings::parse(&file.printk_formats));
    let tasks = Tasks::parse(&file.tasks);
    let sources = Sources { formats: &formats, tasks: &tasks, symbols: &symbols, strings: &strings };
    let (mut to_chrome, mut to_perfetto) = (chrome::Writer::new(), perfetto::Writer::new());
    let mut to_ctf = ctf::Writer::new(ctf::Options::default());
    let (mut text, mut exported, mut steps) = (Vec::new(), 0usize, 0u32);
    let mut timeline = Timeline::new();
    timeline.push_file(0, &file, &bytes);
    while let Some(timed) = timeline.next() {
        steps = steps.saturating_add(1);
        if steps > MAX_EXPORTED_STEPS {
            break;
        }
        let (cpu, time) = (timed.origin.cpu, timed.time);
        let group = u32::try_from(timed.origin.buffer).unwrap_or(0);
        let count = match &timed.step {
            Item::Record(record) => {
                let entry = Entry { cpu, time, record: record.bytes };
                to_chrome.entry(group, &entry, &sources);
                to_perfetto.entry(group, &entry, &sources);
                to_ctf.entry(group, &entry, &sources);
                CsvLines { sources, fields: &[] }.entry(&entry, &mut text);
                JsonLines { sources, with_text: false }.entry(&entry, &mut text);
                None
            }
            Item::Lost(lost) => Some(lost.count()),
            Item::Damaged { .. } | Item::Failed(_) => Some(None),
        };
        if let Some(count) = count {
            to_chrome.lost(group, cpu, time, count);
            to_perfetto.lost(group, cpu, time, count);
            to_ctf.lost(group, cpu, time, count);
        }
        for made in [to_chrome.take(), to_perfetto.take(), &mut text] {
            exported = exported.saturating_add(made.len());
            made.clear();
        }
    }
    to_chrome.finish();
    to_perfetto.finish();
    to_ctf.finish();
    exported = exported.saturating_add(to_chrome.take().len()).saturating_add(to_perfetto.take().len());
    let counted: Result<(), ()> = to_ctf.drain(|_, bytes| {
        exported = exported.saturating_add(bytes.len());
        Ok(())
    });
    assert!(counted.is_ok(), "counting cannot fail");
    let allowed = usize::try_from(steps).unwrap_or(usize::MAX).saturating_add(1).saturating_mul(MAX_EXPORTED);
    assert!(exported <= allowed, "{exported} bytes of {steps} steps");
}
