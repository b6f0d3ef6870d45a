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
