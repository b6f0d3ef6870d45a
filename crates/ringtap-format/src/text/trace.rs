//! The layout of the kernel's `trace` and `trace_pipe`.

use super::{Common, Entry, Sources, Style, flags, ftrace, seconds};
use crate::out;

/// Writes lines as the kernel's `trace` file does.
#[derive(Clone, Copy, Debug)]
pub struct TraceText<'a> {
    /// What the lines are made from.
    pub sources: Sources<'a>,
    /// Whether times are nanoseconds; else, as with the clocks `counter` and `x86-tsc`, they are bare numbers.
    pub in_ns: bool,
}

/// Which columns stand before an entry's text: the options of an instance that its `trace` file heeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Anything at all (`context-info`).
    pub context: bool,
    /// The five flags (`irq-info`).
    pub irqs: bool,
    /// The task's thread group (`record-tgid`).
    pub tgids: bool,
    /// What stands behind them.
    pub style: Style,
}

impl Default for Columns {
    fn default() -> Self {
        Self { context: true, irqs: true, tgids: false, style: Style::Text }
    }
}

impl TraceText<'_> {
    /// Appends the header for such columns: entries in the buffer, entries written, CPUs.
    pub fn header_of(&self, columns: Columns, entries: u64, written: u64, cpus: u32, out: &mut Vec<u8>) {
        if (Columns { style: Style::Text, ..columns }) == Columns::default() {
            return self.header(entries, written, cpus, out);
        }
        if !columns.context {
            return out.extend_from_slice(b"# tracer: nop\n#\n");
        }
        counts(entries, written, cpus, out);
        out.extend_from_slice(b"\n#\n");
        let (tgid, below): (&[u8], &[u8]) =
            if columns.tgids { (b"   TGID    ", b"     |     ") } else { (b" ", b" ") };
        if columns.irqs {
            const FLAGS: [&[u8]; 6] = [
                b"  _-----=> irqs-off/BH-disabled\n",
                b" / _----=> need-resched\n",
                b"| / _---=> hardirq/softirq\n",
                b"|| / _--=> preempt-depth\n",
                b"||| / _-=> migrate-disable\n",
                b"|||| /     delay\n",
            ];
            for line in FLAGS {
                let start = out.len();
                out.push(b'#');
                out::widen(out, start, tgid.len().saturating_add(30), true);
                out.extend_from_slice(line);
            }
        }
        let (flags, bars): (&[u8], &[u8]) =
            if columns.irqs { (b"  |||||  ", b"  |||||     ") } else { (b"     ", b"        ") };
        for part in [b"#           TASK-PID    ", tgid, b"CPU#", flags, b"TIMESTAMP  FUNCTION\n"] {
            out.extend_from_slice(part);
        }
        for part in [b"#              | |      ".as_slice(), below, b"  | ", bars, b"|         |\n"] {
            out.extend_from_slice(part);
        }
    }

    /// Appends the line, or lines, of a record, behind these columns; `tgid` is its task's thread group, where known.
    pub fn entry_of(&self, columns: Columns, tgid: Option<u32>, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let common = Common::of(entry.record, self.sources.formats.target());
        if matches!(columns.style, Style::Raw | Style::Hex | Style::Bin) {
            return self.styled(columns.style, columns.context, entry, out);
        }
        if columns.context {
            self.task(common, out);
            match tgid.filter(|_| columns.tgids) {
                Some(tgid) => {
                    out.push(b'(');
                    out::dec_wide(out, u64::from(tgid), 7, b' ');
                    out.extend_from_slice(b") ");
                }
                None if columns.tgids => out.extend_from_slice(b"(-------) "),
                None => {}
            }
            self.place(columns.irqs, entry, common, out);
        }
        if columns.style == Style::Fields {
            return self.styled(columns.style, columns.context, entry, out);
        }
        self.body(common, entry.record, out);
    }

    /// Appends the header: entries in the buffer, entries written, CPUs.
    pub fn header(&self, entries: u64, written: u64, cpus: u32, out: &mut Vec<u8>) {
        counts(entries, written, cpus, out);
        out.extend_from_slice(
            b"\n#\n\
            #                                _-----=> irqs-off/BH-disabled\n\
            #                               / _----=> need-resched\n\
            #                              | / _---=> hardirq/softirq\n\
            #                              || / _--=> preempt-depth\n\
            #                              ||| / _-=> migrate-disable\n\
            #                              |||| /     delay\n\
            #           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n\
            #              | |         |   |||||     |         |\n",
        );
    }

    /// Appends the line, or lines, of a record, ended by a newline.
    pub fn entry(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let common = Common::of(entry.record, self.sources.formats.target());
        self.prefix(entry, common, out);
        self.body(common, entry.record, out);
    }

    /// Appends the line that stands for `count` events lost on `cpu`; `None` where the number is not known.
    pub fn lost(&self, cpu: u32, count: Option<u64>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"CPU:");
        out::dec(out, u64::from(cpu));
        match count {
            Some(count) => {
                out.extend_from_slice(b" [LOST ");
                out::dec(out, count);
                out.extend_from_slice(b" EVENTS]\n");
            }
            None => out.extend_from_slice(b" [LOST EVENTS]\n"),
        }
    }

    /// `comm-pid [cpu] flags time: `
    fn prefix(&self, entry: &Entry<'_>, common: Common, out: &mut Vec<u8>) {
        self.task(common, out);
        self.place(true, entry, common, out);
    }

    /// `comm-pid `
    fn task(&self, common: Common, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.sources.tasks.name(common.pid));
        out::widen(out, start, 16, false);
        out.push(b'-');
        let start = out.len();
        out::signed(out, i64::from(common.pid));
        out::widen(out, start, 7, true);
        out.push(b' ');
    }

    /// `[cpu] flags time: `
    fn place(&self, with_flags: bool, entry: &Entry<'_>, common: Common, out: &mut Vec<u8>) {
        out.push(b'[');
        out::dec_wide(out, u64::from(entry.cpu), 3, b'0');
        out.extend_from_slice(b"] ");
        if with_flags {
            flags::kernel(common, out);
        }
        out.push(b' ');
        if self.in_ns {
            seconds(out, entry.time);
        } else {
            out::dec_wide(out, entry.time, 12, b' ');
        }
        out.extend_from_slice(b": ");
    }

    /// What stands behind the columns.
    pub(super) fn body(&self, common: Common, record: &[u8], out: &mut Vec<u8>) {
        let Some(event) = self.sources.formats.by_id(common.id) else {
            out.extend_from_slice(b"Unknown type ");
            out::dec(out, u64::from(common.id));
            return out.push(b'\n');
        };
        if let Some(kind) = event.by_code()
            && ftrace::print(kind, event, record, &self.sources, out)
        {
            // What is written to trace_marker brings its own end of line.
            if out.last() != Some(&b'\n') {
                out.push(b'\n');
            }
            return;
        }
        out.extend_from_slice(event.name().as_bytes());
        out.extend_from_slice(b": ");
        // Why a record was printed field by field stands in the text itself.
        let _ = event.print(record, &self.sources.context(), out);
        out.push(b'\n');
    }
}

/// The first lines of a header, and the numbers behind them.
fn counts(entries: u64, written: u64, cpus: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"# tracer: nop\n#\n# entries-in-buffer/entries-written: ");
    out::dec(out, entries);
    out.push(b'/');
    out::dec(out, written);
    out.extend_from_slice(b"   #P:");
    out::dec(out, u64::from(cpus));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dialect, Formats, Strings, Symbols, Target, Tasks};

    #[test]
    fn lines_seen_on_a_kernel() {
        let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
        let text = "name: print\nID: 5\nformat:\n\tfield:unsigned long ip; offset:8; size:8; signed:0;\n\
                    \tfield:char buf[]; offset:16; size:0; signed:0;\n";
        formats.add("ftrace", text).unwrap();
        let (tasks, symbols, strings) = (Tasks::default(), Symbols::default(), Strings::default());
        let sources = Sources { formats: &formats, tasks: &tasks, symbols: &symbols, strings: &strings };
        let trace = TraceText { sources, in_ns: true };
        let mut record = vec![5, 0, 0, 1];
        record.extend_from_slice(&25420i32.to_le_bytes());
        record.extend_from_slice(&[0; 8]);
        record.extend_from_slice(b"ev 680\n\0");
        let mut out = Vec::new();
        trace.lost(0, Some(680), &mut out);
        trace.entry(&Entry { cpu: 0, time: 2_345_687_527_600, record: &record }, &mut out);
        TraceText { in_ns: false, ..trace }.entry(&Entry { cpu: 0, time: 2, record: &record }, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "CPU:0 [LOST 680 EVENTS]\n\
             \u{20}          <...>-25420   [000] ...1.  2345.687528: tracing_mark_write: ev 680\n\
             \u{20}          <...>-25420   [000] ...1.            2: tracing_mark_write: ev 680\n"
        );
    }
    #[test]
    fn columns_seen_on_a_kernel() {
        let formats = Formats::new(Target::LE64, Dialect::Kernel);
        let (tasks, symbols, strings) = (Tasks::default(), Symbols::default(), Strings::default());
        let sources = Sources { formats: &formats, tasks: &tasks, symbols: &symbols, strings: &strings };
        let trace = TraceText { sources, in_ns: true };
        let header = |context, irqs, tgids| {
            let mut out = Vec::new();
            trace.header_of(Columns { context, irqs, tgids, style: Style::Text }, 2, 3, 2, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(header(false, true, false), "# tracer: nop\n#\n");
        assert_eq!(
            header(true, true, true),
            "# tracer: nop\n#\n# entries-in-buffer/entries-written: 2/3   #P:2\n#\n\
             #                                          _-----=> irqs-off/BH-disabled\n\
             #                                         / _----=> need-resched\n\
             #                                        | / _---=> hardirq/softirq\n\
             #                                        || / _--=> preempt-depth\n\
             #                                        ||| / _-=> migrate-disable\n\
             #                                        |||| /     delay\n\
             #           TASK-PID       TGID    CPU#  |||||  TIMESTAMP  FUNCTION\n\
             #              | |           |       |   |||||     |         |\n"
        );
        assert_eq!(
            header(true, false, false),
            "# tracer: nop\n#\n# entries-in-buffer/entries-written: 2/3   #P:2\n#\n\
             #           TASK-PID     CPU#     TIMESTAMP  FUNCTION\n\
             #              | |         |         |         |\n"
        );
        assert!(header(true, false, true).ends_with(
            "#           TASK-PID       TGID    CPU#     TIMESTAMP  FUNCTION\n\
             #              | |           |       |         |         |\n"
        ));
        let record = [77, 0, 0, 0, 9, 0, 0, 0];
        let mut out = Vec::new();
        let entry = Entry { cpu: 1, time: 2_000_000_000, record: &record };
        trace.entry_of(Columns { irqs: false, tgids: true, ..Columns::default() }, Some(8), &entry, &mut out);
        trace.entry_of(Columns { context: false, ..Columns::default() }, None, &entry, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "           <...>-9       (      8) [001]      2.000000: Unknown type 77\nUnknown type 77\n"
        );
    }
}
