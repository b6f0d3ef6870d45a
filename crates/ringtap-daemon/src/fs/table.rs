//! The table: every file of the tree, with its mode, what reading it gives and what writing it does.
//!
//! To be held beside `ls -l`. A row's functions are told where they are ([`At`]) and say text or errno; they know nothing of
//! open files, offsets or servers.

#![forbid(unsafe_code)]

use crate::control::instance::{Instance, line};
use crate::control::options::{FLAGS, Flag, bit};
use crate::control::{Caller, Control, number, readme, rules};
use ringtap::event::registry::Event;
use ringtap::rules::PidList;
use ringtap_format::header::HEADER_EVENT;
use rustix::io::Errno;
use std::sync::Arc;

/// Where a file is, and who asks.
pub(super) struct At<'a> {
    pub(super) control: &'a Control,
    pub(super) instance: &'a Instance,
    /// In `per_cpu/cpuN`.
    pub(super) cpu: Option<u32>,
    /// In `options`: the option's place.
    pub(super) flag: usize,
    /// In a system's directory: its events. In `events`: all that can be switched.
    pub(super) events: &'a [Arc<Event>],
    pub(super) caller: &'a Caller,
}

type Text = Result<Vec<u8>, Errno>;
type Act = fn(&At<'_>) -> Result<(), Errno>;

/// What reading a file gives.
#[derive(Clone, Copy)]
pub(super) enum Read {
    /// Nothing: `EINVAL`.
    No,
    /// A text, the same for the whole of a reading.
    Text(fn(&At<'_>) -> Text),
    /// `trace`: a text that is made as it is read.
    Trace,
    /// `snapshot`: the same of a copy of the buffers.
    Snapshot,
    /// `trace_pipe`: a text that is consumed.
    Pipe,
    /// `trace_pipe_raw`: sub-buffers.
    Raw,
    /// `snapshot_raw`: the sub-buffers of a copy.
    RawSnapshot,
}

/// What writing a file does.
#[derive(Clone, Copy)]
pub(super) enum Write {
    /// Nothing: `EINVAL`.
    No,
    /// Sets something to what is written.
    Set(fn(&At<'_>, &[u8]) -> Result<(), Errno>),
    /// Takes some of what is written; how many bytes.
    Take(fn(&At<'_>, &[u8]) -> Result<usize, Errno>),
}

/// In which instances a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// In all.
    All,
    /// In the top one.
    Top,
}

/// A row.
pub(super) struct File {
    pub(super) name: &'static str,
    pub(super) mode: u16,
    pub(super) of: Of,
    pub(super) read: Read,
    pub(super) write: Write,
    /// What opening it with `O_TRUNC` does.
    pub(super) truncate: Option<Act>,
    /// What closing it does.
    pub(super) close: Option<fn(&At<'_>)>,
}

const fn file(name: &'static str, mode: u16, read: Read, write: Write) -> File {
    File { name, mode, of: Of::All, read, write, truncate: None, close: None }
}

impl File {
    const fn top(mut self) -> Self {
        self.of = Of::Top;
        self
    }

    const fn truncated(mut self, truncate: Act) -> Self {
        self.truncate = Some(truncate);
        self
    }

    const fn closed(mut self, close: fn(&At<'_>)) -> Self {
        self.close = Some(close);
        self
    }
}

use Read::{Pipe, Raw, RawSnapshot, Snapshot, Text as Say, Trace};
use Write::{No, Set, Take};

/// An instance's directory.
#[rustfmt::skip]
pub(super) const INSTANCE: &[File] = &[
    file("README",                0o440, Say(|_| Ok(readme::TEXT.into())),            No).top(),
    file("available_events",      0o440, Say(available_events),                       No).top(),
    file("available_tracers",     0o440, Say(|_| Ok(b"nop\n".into())),                No),
    file("awaited_events",        0o640, Say(|at| Ok(at.instance.awaited_text())),    Set(|at, bytes| at.instance.write_awaited(bytes)))
        .truncated(|at| { at.instance.await_none(); Ok(()) }),
    file("buffer_percent",        0o640, Say(|at| Ok(line(at.instance.buffer_percent()))),
                                         Set(|at, bytes| at.instance.write_buffer_percent(bytes))),
    file("buffer_size_kb",        0o640, Say(|at| at.instance.buffer_size_kb(at.cpu)), Set(resize)),
    file("buffer_subbuf_size_kb", 0o640, Say(|at| Ok(at.instance.buffer_subbuf_size_kb())),
                                         Set(|at, bytes| at.instance.write_buffer_subbuf_size_kb(at.control, bytes))),
    file("buffer_total_size_kb",  0o440, Say(|at| Ok(at.instance.buffer_total_size_kb())), No),
    file("current_tracer",        0o640, Say(|_| Ok(b"nop\n".into())),                Set(set_tracer)),
    file("error_log",             0o640, Say(|at| Ok(at.instance.error_log())),       Set(|_, _| Ok(())))
        .truncated(|at| { at.instance.clear_error_log(); Ok(()) }),
    file("event_rules",           0o640, Say(|at| Ok(at.instance.event_rules_text())),
                                         Take(|at, bytes| at.instance.write_event_rules(at.control, bytes).map(|()| bytes.len())))
        .truncated(|at| at.instance.forget_event_rules(at.control)),
    file("free_buffer",           0o200, Read::No,                                    Set(|_, _| Ok(())))
        .closed(|at| at.instance.free(at.control)),
    file("printk_formats",        0o440, Say(|_| Ok(Vec::new())),                     No).top(),
    file("saved_cmdlines",        0o440, Say(saved_cmdlines),                         No).top(),
    file("saved_cmdlines_size",   0o640, Say(|at| Ok(at.control.tasks_kept())),       Set(|at, bytes| at.control.keep_tasks(bytes))).top(),
    file("saved_tgids",           0o440, Say(saved_tgids),                            No).top(),
    file("set_event",             0o640, Say(|at| Ok(at.instance.set_event_text(&at.control.catalog()))),
                                         Take(|at, bytes| at.instance.write_set_event(&at.control.catalog(), bytes)))
        .truncated(|at| { at.instance.clear_events(&at.control.catalog()); Ok(()) }),
    file("set_event_notrace_pid", 0o640, Say(|at| Ok(at.instance.pids_text(PidList::Not))),
                                         Set(|at, bytes| at.instance.add_pids(PidList::Not, bytes)))
        .truncated(|at| at.instance.clear_pids(PidList::Not)),
    file("set_event_pid",         0o640, Say(|at| Ok(at.instance.pids_text(PidList::Only))),
                                         Set(|at, bytes| at.instance.add_pids(PidList::Only, bytes)))
        .truncated(|at| at.instance.clear_pids(PidList::Only)),
    file("snapshot",              0o640, Snapshot,                                    Set(snapshot)),
    file("timestamp_mode",        0o440, Say(|at| Ok(at.instance.timestamp_mode())),  No),
    file("trace",                 0o640, Trace,                                       Set(|_, _| Ok(())))
        .truncated(|at| at.instance.reset(None)),
    file("trace_clock",           0o640, Say(|at| Ok(at.instance.clock_text())),      Set(|at, bytes| at.instance.write_clock(bytes))),
    file("trace_marker",          0o220, Read::No,                                    Take(|at, bytes| mark(at, bytes, Instance::write_marker))),
    file("trace_marker_raw",      0o220, Read::No,                                    Take(|at, bytes| mark(at, bytes, Instance::write_raw_marker))),
    file("trace_options",         0o640, Say(|at| Ok(at.instance.options_text())),    Set(|at, bytes| at.instance.write_options(bytes))),
    file("trace_pipe",            0o440, Pipe,                                        No),
    file("tracing_cpumask",       0o640, Say(|at| Ok(at.instance.cpumask_text())),    Set(|at, bytes| at.instance.write_cpumask(bytes))),
    file("tracing_on",            0o640, Say(|at| Ok(at.instance.tracing_on())),      Set(|at, bytes| at.instance.write_tracing_on(bytes))),
];

/// `per_cpu/cpuN`.
#[rustfmt::skip]
pub(super) const CPU: &[File] = &[
    file("buffer_size_kb",        0o640, Say(|at| at.instance.buffer_size_kb(at.cpu)), Set(resize)),
    file("snapshot",              0o640, Snapshot,                                    Set(snapshot)),
    file("snapshot_raw",          0o440, RawSnapshot,                                 No),
    file("stats",                 0o440, Say(|at| at.instance.stats(at.cpu.ok_or(Errno::NODEV)?)), No),
    file("trace",                 0o640, Trace,                                       Set(|_, _| Ok(())))
        .truncated(|at| at.instance.reset(at.cpu)),
    file("trace_pipe",            0o440, Pipe,                                        No),
    file("trace_pipe_raw",        0o440, Raw,                                         No),
];

/// `events`.
#[rustfmt::skip]
pub(super) const EVENTS: &[File] = &[
    file("enable",                0o640, Say(enabled),                                Set(|at, bytes| at.instance.write_enable_all(ids(at), bytes))),
    file("header_event",          0o440, Say(|_| Ok(HEADER_EVENT.into())),            No),
    file("header_page",           0o440, Say(|at| Ok(at.instance.header_page())),     No),
];

/// `events/SYSTEM`; the system `ftrace` has none of them.
#[rustfmt::skip]
pub(super) const SYSTEM: &[File] = &[
    file("enable",                0o640, Say(enabled),                                Set(enable)),
    file("filter",                0o640, Say(|_| Ok(rules::OF_SYSTEM.into())),       Set(filter_system)),
];

/// `events/SYSTEM/EVENT`.
#[rustfmt::skip]
pub(super) const EVENT: &[File] = &[
    file("format",                0o440, Say(|at| Ok(event(at)?.format.clone().into())), No),
    file("id",                    0o440, Say(|at| Ok(line(event(at)?.id))),           No),
    file("trigger",               0o640, Say(|at| Ok(at.instance.trigger_text(at.control, event(at)?.id))),
                                         Set(|at, bytes| at.instance.write_trigger(at.control, event(at)?, bytes))),
    file("enable",                0o640, Say(|at| Ok(at.instance.event_enable_text(event(at)?.id))), Set(enable)),
    file("filter",                0o640, Say(|at| Ok(at.instance.filter_text(event(at)?.id))), Set(filter_event)),
    file("hist",                  0o440, Say(|at| Ok(at.instance.hist_text(at.control, event(at)?.id))), No),
];

/// How many of [`EVENT`]'s rows an event of the system `ftrace` has.
pub(super) const FTRACE_EVENT_FILES: usize = 3;

/// Each file of `options`.
pub(super) const FLAG: File = file(
    "",
    0o640,
    Say(|at| Ok(at.instance.flag_text(at.flag))),
    Set(|at, bytes| at.instance.write_flag(at.flag, bytes)),
);

/// The directories, by the mode of each: an instance's own, `instances`, `options`, `per_cpu` and below; `events` and below.
pub(super) const ROOT_MODE: u16 = 0o700;
pub(super) const DIRECTORY_MODE: u16 = 0o750;
pub(super) const EVENTS_MODE: u16 = 0o755;

/// Whether an option has a file in `options`.
pub(super) fn has_file(flag: &Flag, is_top: bool) -> bool {
    is_top || !flag.top_only
}

/// The option that a file of `options` is.
pub(super) fn flag_of(name: &str) -> Option<usize> {
    FLAGS.iter().position(|flag| flag.name == name)
}

fn event<'a>(at: &At<'a>) -> Result<&'a Event, Errno> {
    at.events.first().map(Arc::as_ref).ok_or(Errno::NOENT)
}

fn ids(at: &At<'_>) -> impl Iterator<Item = u16> {
    at.events.iter().map(|event| event.id)
}

fn enabled(at: &At<'_>) -> Text {
    Ok(at.instance.enable_text(ids(at)))
}

fn enable(at: &At<'_>, bytes: &[u8]) -> Result<(), Errno> {
    at.instance.write_enable(ids(at), bytes)
}

fn filter_event(at: &At<'_>, bytes: &[u8]) -> Result<(), Errno> {
    at.instance.write_filter(event(at)?, &at.control.catalog().formats(), bytes)
}

fn filter_system(at: &At<'_>, bytes: &[u8]) -> Result<(), Errno> {
    at.instance.write_system_filter(at.events, &at.control.catalog().formats(), bytes)
}

fn available_events(at: &At<'_>) -> Text {
    let catalog = at.control.catalog();
    let names = catalog.switchable().map(|event| format!("{}:{}\n", event.system, event.name));
    Ok(names.collect::<String>().into_bytes())
}

fn resize(at: &At<'_>, bytes: &[u8]) -> Result<(), Errno> {
    at.instance.write_buffer_size_kb(at.control, at.cpu, bytes)
}

fn snapshot(at: &At<'_>, bytes: &[u8]) -> Result<(), Errno> {
    at.instance.write_snapshot(at.control, at.cpu, bytes)
}

/// There is one tracer.
fn set_tracer(_: &At<'_>, bytes: &[u8]) -> Result<(), Errno> {
    if number::word(bytes)? == "nop" { Ok(()) } else { Err(Errno::INVAL) }
}

fn saved_cmdlines(at: &At<'_>) -> Text {
    let tasks = at.control.tasks();
    let lines = tasks.iter().map(|(tid, task)| format!("{tid} {}\n", task.name));
    Ok(lines.collect::<String>().into_bytes())
}

fn saved_tgids(at: &At<'_>) -> Text {
    let tasks = at.control.tasks();
    let lines = tasks.iter().map(|(tid, task)| format!("{tid} {}\n", task.tgid));
    Ok(lines.collect::<String>().into_bytes())
}

fn mark(
    at: &At<'_>,
    bytes: &[u8],
    write: fn(&Instance, &Control, &[u8], &Caller) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let taken = write(at.instance, at.control, bytes, at.caller)?;
    if at.instance.is_top() {
        for copies in at.control.named().iter().filter(|instance| instance.has(bit::COPY_TRACE_MARKER)) {
            // Its buffers may be off or full, which is their affair.
            let _ = write(copies, at.control, bytes, at.caller);
        }
    }
    at.control.remember(at.caller);
    Ok(taken)
}
