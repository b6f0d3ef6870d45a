//! Records as lines: decoded by the `format` texts of their source, named by what is known of its tasks.

use crate::output::{EVENT, FAINT, LOSS, Output};
use clap::ValueEnum;
use ringtap::tracefs::{EventName, Tracefs};
use ringtap::{Damaged, Lost};
use ringtap_format::text::{Common, Entry, JsonLines, Sources, TraceCmdText, TraceText};
use ringtap_format::{Constants, Dialect, Event, Field, Formats, Strings, Symbols, Target, Tasks};
use serde_json::json;
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use std::{fmt, fs};

/// How lines look, by the name that is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TextLayout {
    /// As the kernel's `trace` file
    Ftrace,
    /// As `trace-cmd report`
    TraceCmd,
    /// One JSON object a line
    Json,
}

impl TextLayout {
    /// Whose way of printing events that is.
    #[must_use]
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::TraceCmd => Dialect::TraceCmd,
            Self::Ftrace | Self::Json => Dialect::Kernel,
        }
    }
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As the kernel's `trace` file.
    Trace,
    /// As `trace-cmd report`.
    TraceCmd,
    /// For people: the time since this moment, in nanoseconds of `CLOCK_MONOTONIC`.
    Human {
        /// The moment.
        since: u64,
    },
    /// One JSON object a line.
    Json,
}

/// Where records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel's buffers.
    Kernel,
    /// Those of a ringtap host.
    Application,
}

/// A record, copied, and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its CPU.
    pub cpu: u32,
    /// Its time, in nanoseconds of `CLOCK_MONOTONIC`.
    pub ns: u64,
    /// Its bytes, the common fields first.
    pub record: &'a [u8],
}

/// Decodes one source's records.
#[derive(Debug)]
pub struct Decoder {
    source: Source,
    formats: Formats,
    tasks: Tasks,
    symbols: Symbols,
    strings: Strings,
    /// Fields that name tasks, by event.
    naming: HashMap<u16, Naming>,
    /// Names that the kernel, or a host, keeps of tasks that may be gone; old ones, where their number was given again.
    saved: Saved,
}

/// Who tells the names of tasks, as `saved_cmdlines` does.
pub type Names = Box<dyn Fn() -> String + Send>;

/// What it told at some moment.
#[derive(Default)]
struct Saved {
    names: Option<Names>,
    tasks: Tasks,
    read: Option<Instant>,
}

impl fmt::Debug for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saved").field("tasks", &self.tasks).field("read", &self.read).finish_non_exhaustive()
    }
}

/// How old the kernel's names may be.
const SAVED_AGE: Duration = Duration::from_millis(100);
/// How the kernel and we name a task that nobody knows.
const UNNAMED: &[u8] = b"<...>";

impl Saved {
    fn name(&mut self, pid: i32) -> &[u8] {
        if let Some(names) = &self.names
            && self.read.is_none_or(|read| read.elapsed() > SAVED_AGE)
        {
            self.tasks = Tasks::parse(names().as_bytes());
            self.read = Some(Instant::now());
        }
        self.tasks.name(pid)
    }
}

/// Fields of an event that tell tasks' names.
#[derive(Debug, Default)]
struct Naming {
    names: Vec<Named>,
    born: Option<Field>,
}

#[derive(Debug)]
struct Named {
    pid: Field,
    name: Field,
    /// The name is the last part of a path.
    is_path: bool,
}

/// Pairs of fields that tell a task's name, in the kernel's events of tasks.
const NAMING: [(&str, &str); 5] = [
    ("prev_pid", "prev_comm"),
    ("next_pid", "next_comm"),
    ("pid", "comm"),
    ("pid", "newcomm"),
    ("pid", "filename"),
];
/// The field of a new task, whose number may have been another's before.
const BORN: &str = "child_pid";
/// Longest name of a task, in bytes.
const COMM_LEN: usize = 15;

impl Decoder {
    /// For a ringtap host's records; [`learn`](Self::learn) its events.
    #[must_use]
    pub fn of_application(dialect: Dialect) -> Self {
        Self::new(Source::Application, dialect, Constants::new())
    }

    /// For the kernel's records of these events.
    #[must_use]
    pub fn of_kernel<'e, E>(tracefs: &Tracefs, dialect: Dialect, events: E) -> Self
    where
        E: Iterator<Item = &'e (EventName, String)> + Clone,
    {
        let mut decoder = Self::new(Source::Kernel, dialect, Constants::new());
        events.clone().for_each(|(event, format)| decoder.learn(&event.system, format));
        if dialect == Dialect::Kernel && decoder.formats.iter().any(|event| !event.unresolved().is_empty()) {
            // Some name constants whose values only the kernel's type information tells; trace-cmd has none.
            let mut constants = Constants::new();
            if let Ok(btf) = fs::read("/sys/kernel/btf/vmlinux")
                && ringtap_format::btf::define(&btf, &mut constants).is_ok()
            {
                decoder = Self::new(Source::Kernel, dialect, constants);
                events.for_each(|(event, format)| decoder.learn(&event.system, format));
            }
        }
        let needs_symbols = |event: &Event| event.format().print_fmt.contains("%p");
        if decoder.formats.iter().any(needs_symbols) {
            decoder.symbols = Symbols::parse(&fs::read_to_string("/proc/kallsyms").unwrap_or_default());
        }
        let strings = fs::read_to_string(tracefs.root().join("printk_formats")).unwrap_or_default();
        decoder.strings = Strings::parse(&strings);
        let tracefs = tracefs.clone();
        decoder.ask_for_names(Box::new(move || tracefs.saved_cmdlines().unwrap_or_default()));
        decoder
    }

    /// Asks here for the names of tasks that are gone.
    pub fn ask_for_names(&mut self, names: Names) {
        self.saved.names = Some(names);
    }

    fn new(source: Source, dialect: Dialect, constants: Constants) -> Self {
        let mut formats = Formats::new(Target::HOST, dialect);
        *formats.constants_mut() = constants;
        if dialect == Dialect::TraceCmd {
            formats.use_plugins();
        }
        Self {
            source,
            formats,
            tasks: Tasks::default(),
            symbols: Symbols::default(),
            strings: Strings::default(),
            naming: HashMap::new(),
            saved: Saved::default(),
        }
    }

    /// Adds an event. One whose text makes no sense stays unknown, and its records say so.
    pub fn learn(&mut self, system: &str, format: &str) {
        let is_kernel = self.source == Source::Kernel;
        if let Ok(event) = self.formats.add(system, format)
            && is_kernel
            && matches!(system, "sched" | "task")
        {
            let naming = naming(event);
            self.naming.insert(event.id(), naming);
        }
    }

    /// The event of a record.
    #[must_use]
    pub fn event(&self, record: &[u8]) -> Option<&Event> {
        self.formats.of_record(record)
    }

    /// Takes what a record that is not printed tells of tasks, and finds its writer's name.
    pub fn note(&mut self, record: &[u8]) {
        self.learn_names(Common::of(record, self.formats.target()), record);
    }

    /// Appends the line of a record, ended by a newline.
    pub fn line(&mut self, seen: &Seen<'_>, layout: Layout, is_coloured: bool, out: &mut Vec<u8>) {
        let common = Common::of(seen.record, self.formats.target());
        self.learn_names(common, seen.record);
        let start = out.len();
        match layout {
            Layout::Trace => self.trace_line(seen, is_coloured, out),
            Layout::TraceCmd => self.trace_cmd_line(seen, out),
            Layout::Human { since } => self.human_line(seen, common, since, is_coloured, out),
            Layout::Json => self.json_line(seen, out),
        }
        // What a program wrote into its events is not to steer somebody's terminal.
        if layout == Layout::TraceCmd || (layout != Layout::Json && !is_coloured) {
            escape_controls(out, start, is_applications(seen.record));
        }
    }

    /// What decodes its records.
    #[must_use]
    pub fn sources(&self) -> Sources<'_> {
        let Self { formats, tasks, symbols, strings, .. } = self;
        Sources { formats, tasks, symbols, strings }
    }

    fn trace_line(&self, seen: &Seen<'_>, is_coloured: bool, out: &mut Vec<u8>) {
        let text = TraceText { sources: self.sources(), in_ns: true };
        let entry = Entry { cpu: seen.cpu, time: seen.ns, record: seen.record };
        if !is_coloured {
            return text.entry(&entry, out);
        }
        let mut line = Vec::new();
        text.entry(&entry, &mut line);
        escape_controls(&mut line, 0, is_applications(seen.record));
        colour(&line, out);
    }

    fn trace_cmd_line(&self, seen: &Seen<'_>, out: &mut Vec<u8>) {
        let entry = Entry { cpu: seen.cpu, time: seen.ns, record: seen.record };
        TraceCmdText { sources: self.sources(), in_ns: true }.entry(&entry, out);
    }

    /// Appends the first lines of a layout: those of a buffer of so many CPUs that is still empty.
    pub fn header(&self, layout: TextLayout, cpus: u32, out: &mut Vec<u8>) {
        let (sources, in_ns) = (self.sources(), true);
        match layout {
            TextLayout::Ftrace => TraceText { sources, in_ns }.header(0, 0, cpus, out),
            TextLayout::TraceCmd => TraceCmdText { sources, in_ns }.header(cpus, out),
            TextLayout::Json => {}
        }
    }

    fn human_line(&self, seen: &Seen<'_>, common: Common, since: u64, is_coloured: bool, out: &mut Vec<u8>) {
        let us = seen.ns.saturating_sub(since) / 1000;
        let task = format!("{}-{}", String::from_utf8_lossy(self.tasks.name(common.pid)), common.pid);
        let (name, mut text) = (self.full_name(seen.record, common), Vec::new());
        self.print(seen.record, &mut text);
        escape_controls(&mut text, 0, true);
        let (faint, event) = if is_coloured { (FAINT, EVENT) } else { Default::default() };
        let _ = write!(
            out,
            "{faint}{:>4}.{:06} cpu{:<2} {task:<16}{faint:#} {event}{name:<20}{event:#} ",
            us / 1_000_000,
            us % 1_000_000,
            seen.cpu,
        );
        out.extend_from_slice(&text);
        out.push(b'\n');
    }

    fn json_line(&self, seen: &Seen<'_>, out: &mut Vec<u8>) {
        let json = JsonLines { sources: self.sources(), with_text: true };
        let entry = Entry { cpu: seen.cpu, time: seen.ns, record: seen.record };
        named(self.source, out, |out| json.entry(&entry, out));
    }

    fn full_name(&self, record: &[u8], common: Common) -> String {
        match self.event(record) {
            Some(event) => format!("{}:{}", event.system(), event.name()),
            None => format!("unknown event {}", common.id),
        }
    }

    fn print(&self, record: &[u8], out: &mut Vec<u8>) {
        if let Some(event) = self.event(record) {
            // Why one was printed field by field stands in the text itself.
            let _ = event.print(record, &self.sources().context(), out);
        }
    }

    /// Takes the names of tasks from a record, and asks the system for the writer's where nobody told it.
    fn learn_names(&mut self, common: Common, record: &[u8]) {
        let target = self.formats.target();
        let naming = self.naming.get(&common.id);
        let pid_of = |field: &Field| field.int(record, target).and_then(|pid| i32::try_from(pid).ok());
        for named in naming.map_or(&[][..], |naming| &naming.names) {
            let Some((pid, name)) = pid_of(&named.pid).zip(named.name.text(record, target)) else { continue };
            let name = match named.is_path {
                true => name.rsplit(|&byte| byte == b'/').next().unwrap_or(name),
                false => name,
            };
            self.tasks.set(pid, &name[..name.len().min(COMM_LEN)]);
        }
        if let Some(born) = naming.and_then(|naming| pid_of(naming.born.as_ref()?)) {
            self.tasks.set(born, UNNAMED);
        }
        if common.pid > 0 && self.tasks.name(common.pid) == UNNAMED {
            match fs::read(format!("/proc/{}/comm", common.pid)) {
                Ok(comm) => self.tasks.set(common.pid, comm.trim_ascii_end()),
                Err(_) => self.tasks.set(common.pid, self.saved.name(common.pid)),
            }
        }
    }
}

fn naming(event: &Event) -> Naming {
    let names = NAMING.iter().filter_map(|&(pid, name)| {
        let (pid, text) = (event.field(pid)?.clone(), event.field(name)?.clone());
        text.is_text().then(|| Named { pid, name: text, is_path: name == "filename" })
    });
    Naming { names: names.collect(), born: event.field(BORN).cloned() }
}

/// Appends an object with its source as the first key.
fn named(source: Source, out: &mut Vec<u8>, object: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    object(out);
    let key: &[u8] = match source {
        Source::Kernel => b"{\"source\":\"kernel\",",
        Source::Application => b"{\"source\":\"application\",",
    };
    // In the place of the brace.
    out.splice(start..out.len().min(start + 1), key.iter().copied());
}

/// Appends a line of the `trace` file with its parts in their colours.
pub fn colour(line: &[u8], out: &mut Vec<u8>) {
    let (surroundings, rest) = split_after(line, b"] ").unwrap_or((&line[..0], line));
    let (time, rest) = split_after(rest, b": ").unwrap_or((&rest[..0], rest));
    let (name, rest) = split_after(rest, b": ").unwrap_or((&rest[..0], rest));
    // To a vector, which takes all.
    let _ = write!(out, "{FAINT}");
    out.extend_from_slice(surroundings);
    out.extend_from_slice(time);
    let _ = write!(out, "{FAINT:#}{EVENT}");
    out.extend_from_slice(name);
    let _ = write!(out, "{EVENT:#}");
    out.extend_from_slice(rest);
}

/// Appends the line that stands for lost events.
pub fn lost(lost: Lost, source: Source, layout: Layout, is_coloured: bool, out: &mut Vec<u8>) {
    let Lost { cpu, count } = lost;
    if layout == Layout::Json {
        return named(source, out, |out| {
            let line = json!({ "type": "lost", "cpu": cpu, "count": count });
            out.extend_from_slice(format!("{line}\n").as_bytes());
        });
    }
    let style = if is_coloured { LOSS } else { Default::default() };
    let count = count.map_or_else(String::new, |count| format!("{count} "));
    let text = match layout {
        Layout::TraceCmd => format!("CPU:{cpu} [{count}EVENTS DROPPED]"),
        _ => format!("CPU:{cpu} [LOST {count}EVENTS]"),
    };
    out.extend_from_slice(format!("{style}{text}{style:#}\n").as_bytes());
}

/// Appends the line that stands for events that cannot be read.
pub fn damaged(damaged: Damaged, source: Source, layout: Layout, is_coloured: bool, out: &mut Vec<u8>) {
    let Damaged { cpu, damage } = damaged;
    if layout == Layout::Json {
        return named(source, out, |out| {
            let (offset, error) = (damage.offset, damage.to_string());
            let line = json!({ "type": "damage", "cpu": cpu, "offset": offset, "error": error });
            out.extend_from_slice(format!("{line}\n").as_bytes());
        });
    }
    let style = if is_coloured { LOSS } else { Default::default() };
    out.extend_from_slice(format!("{style}CPU:{cpu} [DAMAGED: {damage}]{style:#}\n").as_bytes());
}

fn split_after<'a>(line: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line.windows(mark.len()).position(|window| window == mark)?;
    Some(line.split_at(at + mark.len()))
}

/// Whether a record is of an event that a program declared, and not of the kernel's, which breaks lines where it means to.
pub(crate) fn is_applications(record: &[u8]) -> bool {
    record.first_chunk().is_some_and(|&id| u16::from_le_bytes(id) >= ringtap::event::registry::FIRST_ID)
}

/// Writes what a terminal might obey as C's escapes, and with `newlines` all breaks of a line but the last.
pub(crate) fn escape_controls(lines: &mut Vec<u8>, start: usize, newlines: bool) {
    let line = lines.get(start..).unwrap_or_default();
    let end = line.strip_suffix(b"\n").unwrap_or(line).len();
    let is_escaped = |byte: u8| byte.is_ascii_control() && byte != b'\t' && (newlines || byte != b'\n');
    // Mostly there are none.
    if !line[..end].iter().any(|&byte| is_escaped(byte)) {
        return;
    }
    let line = lines.split_off(start);
    for &byte in &line[..end] {
        match byte {
            b'\n' if newlines => lines.extend_from_slice(b"\\n"),
            b'\r' => lines.extend_from_slice(b"\\r"),
            byte if is_escaped(byte) => lines.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
            byte => lines.push(byte),
        }
    }
    lines.extend_from_slice(&line[end..]);
}

/// Writes the lines gathered, if there are any, and forgets them.
///
/// # Errors
/// The output cannot be written to.
pub fn write_lines(lines: &mut Vec<u8>, output: &mut Output) -> io::Result<()> {
    if !lines.is_empty() {
        output.write_all(lines)?;
        lines.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: greet\nID: 40\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:s32 mood;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:char name[8];\toffset:12;\tsize:8;\tsigned:0;\n\n\
        print fmt: \"%s feels %d\", REC->name, REC->mood\n";

    /// A record of the event, written by a task that cannot be.
    fn record() -> Vec<u8> {
        let mut record = vec![40, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f];
        record.extend_from_slice(&(-3i32).to_le_bytes());
        record.extend_from_slice(b"a\x1b[2Jz\0\0");
        record
    }

    fn line(layout: Layout, is_coloured: bool) -> String {
        let mut decoder = Decoder::of_application(Dialect::Kernel);
        decoder.learn("test", FORMAT);
        let mut out = Vec::new();
        let seen = Seen { cpu: 1, ns: 2_000_003_000, record: &record() };
        decoder.line(&seen, layout, is_coloured, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_layout() {
        let trace = "           <...>-2147483647 [001] .....     2.000003: greet: a\\x1b[2Jz feels -3\n";
        assert_eq!(line(Layout::Trace, false), trace);
        let human = "   1.000003 cpu1  <...>-2147483647 test:greet           a\\x1b[2Jz feels -3\n";
        assert_eq!(line(Layout::Human { since: 1_000_000_000 }, false), human);
        let json: serde_json::Value = serde_json::from_str(&line(Layout::Json, false)).unwrap();
        assert_eq!(json["fields"]["mood"], -3);
        assert_eq!(json["fields"]["name"], "a\x1b[2Jz");
        assert_eq!((&json["type"], &json["source"]), (&"event".into(), &"application".into()));
        assert_eq!((&json["system"], &json["event"]), (&"test".into(), &"greet".into()));
    }

    #[test]
    fn an_applications_event_is_one_line() {
        let escaped = |text: &[u8], newlines| {
            let mut out = [b"before\n", text].concat();
            escape_controls(&mut out, 7, newlines);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(escaped(b"a\nb\r\x1b\x7f\tc\0\n", true), "before\na\\nb\\r\\x1b\\x7f\tc\\x00\n");
        assert_eq!(escaped(b"a\n => b\x07\n", false), "before\na\n => b\\x07\n");
        assert_eq!(escaped("schön\n".as_bytes(), true), "before\nschön\n");
        assert_eq!(escaped(b"", true), "before\n");
    }

    #[test]
    fn losses_in_each_layout() {
        let text = |layout, count| {
            let mut out = Vec::new();
            lost(Lost { cpu: 2, count }, Source::Kernel, layout, false, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(Layout::Trace, Some(680)), "CPU:2 [LOST 680 EVENTS]\n");
        assert_eq!(text(Layout::Trace, None), "CPU:2 [LOST EVENTS]\n");
        let json: serde_json::Value = serde_json::from_str(&text(Layout::Json, Some(680))).unwrap();
        let expected = json!({ "source": "kernel", "type": "lost", "cpu": 2, "count": 680 });
        assert_eq!(json, expected);
    }

    #[test]
    fn colours_are_ours_alone() {
        for (layout, plain) in [
            (Layout::Trace, line(Layout::Trace, false)),
            (Layout::Human { since: 0 }, line(Layout::Human { since: 0 }, false)),
        ] {
            let coloured = line(layout, true);
            assert!(coloured.contains(&EVENT.to_string()) && !coloured.contains("\x1b[2J"), "{coloured:?}");
            assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
        }
    }

    #[test]
    fn an_unknown_event_and_a_short_record_are_shown_as_such() {
        let mut decoder = Decoder::of_application(Dialect::Kernel);
        decoder.learn("test", FORMAT);
        for record in [&[][..], &[40], &[40, 0, 0, 0], &[99, 0, 0, 0, 1, 0, 0, 0], &record()[..13]] {
            for layout in [Layout::Trace, Layout::Human { since: 0 }, Layout::Json] {
                let mut out = Vec::new();
                decoder.line(&Seen { cpu: 0, ns: 1, record }, layout, false, &mut out);
                assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1, "{record:?} {layout:?}");
            }
        }
    }
}
