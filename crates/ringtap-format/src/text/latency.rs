//! The layout that the option `latency-format` gives the kernel's `trace`: times since the buffers were emptied, and how
//! long it took until the next entry.

use super::{Common, Entry, Style, TraceText, flags};
use crate::out;

/// Where an entry stands among its neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// When the buffers were emptied, in the unit of the entries' times.
    pub since: u64,
    /// The time of the entry behind it, where there is one.
    pub next: Option<u64>,
    /// How many entries were printed before it.
    pub number: u64,
    /// With the option `verbose`: every number in full.
    pub verbose: bool,
}

impl Latency {
    /// How long the buffers had been in use.
    fn passed(&self, entry: &Entry<'_>) -> u64 {
        entry.time.wrapping_sub(self.since)
    }

    /// How long it took until the next entry; 0 behind the last.
    fn pause(&self, entry: &Entry<'_>) -> u64 {
        self.next.map_or(0, |next| next.saturating_sub(entry.time))
    }
}

/// What marks a pause before the next entry: that it is longer than so many nanoseconds.
const MARKS: [(u64, u8); 6] = [
    (1_000_000_000, b'$'),
    (100_000_000, b'@'),
    (10_000_000, b'*'),
    (1_000_000, b'#'),
    (100_000, b'!'),
    (10_000, b'+'),
];

/// What the columns mean.
const COLUMNS: &[u8] = b"\
#                    _------=> CPU#            \n\
#                   / _-----=> irqs-off/BH-disabled\n\
#                  | / _----=> need-resched    \n\
#                  || / _---=> hardirq/softirq \n\
#                  ||| / _--=> preempt-depth   \n\
#                  |||| / _-=> migrate-disable \n\
#                  ||||| /     delay           \n\
#  cmd     pid     |||||| time  |   caller     \n\
#     \\   /        ||||||  \\    |    /       \n";

impl TraceText<'_> {
    /// Appends the header of buffers that hold something: the kernel's release, entries in the buffer, entries written,
    /// CPUs. With `verbose` the columns are not explained.
    pub fn latency_header(
        &self,
        release: &str,
        entries: u64,
        written: u64,
        cpus: u32,
        verbose: bool,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(b"# tracer: nop\n#\n");
        out.extend_from_slice(b"# nop latency trace v1.1.5 on ");
        out.extend_from_slice(release.as_bytes());
        out.extend_from_slice(b"\n# ");
        out.resize(out.len().saturating_add(68), b'-');
        out.extend_from_slice(b"\n# latency: 0 us, #");
        out::dec(out, entries);
        out.push(b'/');
        out::dec(out, written);
        // Applications' threads are preempted as the scheduler likes; no one model is theirs.
        out.extend_from_slice(b", CPU#0 | (M:unknown VP:0, KP:0, SP:0 HP:0 #P:");
        out::dec(out, u64::from(cpus));
        out.extend_from_slice(
            b")\n#    -----------------\n\
            #    | task: -0 (uid:0 nice:0 policy:0 rt_prio:0)\n\
            #    -----------------\n#\n",
        );
        if !verbose {
            out.extend_from_slice(COLUMNS);
        }
    }

    /// Appends the line, or lines, of a record in this layout.
    pub fn latency_entry(&self, latency: Latency, style: Style, entry: &Entry<'_>, out: &mut Vec<u8>) {
        if matches!(style, Style::Raw | Style::Hex | Style::Bin) {
            return self.styled(style, true, entry, out);
        }
        let common = Common::of(entry.record, self.sources.formats.target());
        if latency.verbose {
            self.place_in_full(latency, entry, common, out);
        } else {
            self.place_in_short(latency, entry, common, out);
        }
        if style == Style::Fields {
            return self.styled(style, true, entry, out);
        }
        self.body(common, entry.record, out);
    }

    /// `comm-pid cpuflags timeMARK: `
    fn place_in_short(&self, latency: Latency, entry: &Entry<'_>, common: Common, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(self.sources.tasks.name(common.pid).iter().take(8));
        out::widen(out, start, 8, false);
        out.push(b'-');
        number(out, i64::from(common.pid), 7, true);
        out.push(b' ');
        number(out, i64::from(entry.cpu), 3, false);
        flags::kernel(common, out);
        out.push(b' ');
        let passed = latency.passed(entry);
        if self.in_ns {
            out::dec_wide(out, microseconds(passed), 4, b' ');
            let pause = latency.pause(entry);
            let mark = MARKS.into_iter().find(|(longer_than, _)| pause > *longer_than);
            out.extend_from_slice(b"us");
            out.push(mark.map_or(b' ', |(_, mark)| mark));
        } else {
            out::dec_wide(out, passed, 4, b' ');
        }
        out.extend_from_slice(b": ");
    }

    /// `comm pid cpu flags depth number [time] since (+pause): `
    fn place_in_full(&self, latency: Latency, entry: &Entry<'_>, common: Common, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.sources.tasks.name(common.pid));
        out::widen(out, start, 16, false);
        out.push(b' ');
        number(out, i64::from(common.pid), 7, false);
        out.push(b' ');
        number(out, i64::from(entry.cpu), 3, false);
        out.push(b' ');
        out::dec(out, u64::from(common.flags));
        out.push(b' ');
        out::hex_wide(out, u64::from(common.preempt_count), 8);
        out.push(b' ');
        out::hex_wide(out, latency.number, 8);
        out.extend_from_slice(b" [");
        let passed = latency.passed(entry);
        let pause = latency.pause(entry);
        if self.in_ns {
            out::hex_wide(out, microseconds(entry.time), 8);
            out.extend_from_slice(b"] ");
            milliseconds(out, passed);
            out.extend_from_slice(b" (+");
            milliseconds(out, pause);
        } else {
            out::hex_wide(out, entry.time, 16);
            out.extend_from_slice(b"] ");
            out::dec(out, passed);
            out.extend_from_slice(b" (+");
            out::dec(out, pause);
        }
        out.extend_from_slice(b"): ");
    }
}

fn number(out: &mut Vec<u8>, number: i64, width: usize, left: bool) {
    let start = out.len();
    out::signed(out, number);
    out::widen(out, start, width, left);
}

fn microseconds(ns: u64) -> u64 {
    ns.saturating_add(500) / 1000
}

/// `8.258ms`
fn milliseconds(out: &mut Vec<u8>, ns: u64) {
    let us = microseconds(ns);
    out::dec(out, us / 1000);
    out.push(b'.');
    out::dec_wide(out, us % 1000, 3, b'0');
    out.extend_from_slice(b"ms");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Sources;
    use crate::{Dialect, Formats, Strings, Symbols, Target, Tasks};

    #[test]
    fn lines_seen_on_a_kernel() {
        let formats = Formats::new(Target::LE64, Dialect::Kernel);
        let (tasks, symbols, strings) = (Tasks::default(), Symbols::default(), Strings::default());
        let sources = Sources { formats: &formats, tasks: &tasks, symbols: &symbols, strings: &strings };
        let mut record = vec![77, 0, 0, 1];
        record.extend_from_slice(&14144i32.to_le_bytes());
        let line = |in_ns, verbose, time, pause| {
            let latency = Latency { since: 41_160_856_000_000, next: Some(time + pause), number: 1, verbose };
            let mut out = Vec::new();
            let entry = Entry { cpu: 0, time, record: &record };
            TraceText { sources, in_ns }.latency_entry(latency, Style::Text, &entry, &mut out);
            String::from_utf8(out).unwrap()
        };
        let time = 41_160_869_375_200;
        assert_eq!(
            line(true, false, time, 24_614_000),
            "   <...>-14144     0...1. 13375us*: Unknown type 77\n"
        );
        for (pause, mark) in
            [(0, ' '), (10_000, ' '), (10_001, '+'), (999_999, '!'), (5_117_000, '#'), (2_000_000_000, '$')]
        {
            assert!(line(true, false, time, pause).contains(&format!("us{mark}: ")), "{pause}");
        }
        assert_eq!(
            line(true, true, time, 24_614_000),
            "           <...>   14144   0 0 00000001 00000001 [9956105ff] 13.375ms (+24.614ms): Unknown type 77\n"
        );
        assert_eq!(
            line(false, false, 41_160_856_000_002, 3),
            "   <...>-14144     0...1.    2: Unknown type 77\n"
        );
        assert_eq!(
            line(false, true, 41_160_856_000_002, 3),
            "           <...>   14144   0 0 00000001 00000001 [0000256f82335602] 2 (+3): Unknown type 77\n"
        );
    }
}
