//! Chrome's trace events in JSON, for the small and quick: chrome://tracing, Perfetto and Speedscope open them.
//!
//! An array of objects, one a line. The array's end may be missing, so a file that was cut short is a trace.
//! CPUs are the threads of a process 0: each has a line of what it ran and one of its interrupts. Times are
//! microseconds with three decimals.

use crate::model::{Meaning, Model, NewThread, Number, Role, Threads, Track};
use crate::out;
use crate::text::{Common, Entry, Sources, json_fields, json_string};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

/// The process whose threads are CPUs; the kernel has no other of this number.
const CPUS: i32 = 0;
/// Where the lines of interrupts begin, behind those of CPUs.
const INTERRUPTS: u32 = 1 << 20;
/// Most flows that are remembered to have begun.
const MAX_FLOWS: usize = 1 << 16;

/// Makes a trace of the records it is given; [`take`](Self::take) hands out its bytes.
#[derive(Debug)]
pub struct Writer {
    model: Model,
    threads: Threads,
    /// What each CPU of each group runs.
    running: BTreeMap<(u32, u32), Running>,
    lines: HashSet<u32>,
    flows: HashSet<u64>,
    out: Vec<u8>,
}

/// What a CPU runs since a switch.
#[derive(Debug)]
struct Running {
    since: u64,
    name: Vec<u8>,
    /// The switch's fields, an object of JSON.
    fields: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// A trace without events.
    #[must_use]
    pub fn new() -> Self {
        let mut out = b"[\n".to_vec();
        out.extend_from_slice(
            b"{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":0,\"tid\":0,\"args\":{\"name\":\"CPUs\"}}",
        );
        Self {
            model: Model::new(),
            threads: Threads::default(),
            running: BTreeMap::new(),
            lines: HashSet::new(),
            flows: HashSet::new(),
            out,
        }
    }

    /// The threads, whose processes may be told; without that each is taken for a process.
    pub const fn threads(&mut self) -> &mut Threads {
        &mut self.threads
    }

    /// Adds a record of a group: of one machine's or application's set of formats, by the caller's numbering.
    pub fn entry(&mut self, group: u32, entry: &Entry<'_>, sources: &Sources<'_>) {
        let common = Common::of(entry.record, sources.formats.target());
        let mut model = std::mem::take(&mut self.model);
        match model.event(group, entry, common, sources.formats) {
            Some(meaning) => self.meaning(group, entry, common, sources, &meaning),
            None => self.unknown(entry, common, sources),
        }
        self.model = model;
    }

    /// Adds events that were lost on a CPU before those of `time`.
    pub fn lost(&mut self, group: u32, cpu: u32, time: u64, count: Option<u64>) {
        self.model.lost();
        // What ran meanwhile is not known.
        if let Some(running) = self.running.remove(&(group, cpu)) {
            self.begin_running(cpu, &running);
        }
        self.line(cpu);
        self.object(b'i', b"lost events", time, (CPUS, i64::from(cpu)));
        self.out.extend_from_slice(b",\"s\":\"t\",\"args\":{\"count\":");
        match count {
            Some(count) => out::dec(&mut self.out, count),
            None => self.out.extend_from_slice(b"null"),
        }
        self.out.extend_from_slice(b"}}");
    }

    /// Completes the trace.
    pub fn finish(&mut self) {
        for ((_, cpu), running) in std::mem::take(&mut self.running) {
            self.begin_running(cpu, &running);
        }
        self.out.extend_from_slice(b"\n]\n");
    }

    /// Bytes that are ready.
    #[must_use]
    pub const fn ready(&self) -> usize {
        self.out.len()
    }

    /// The bytes that are ready, to be appended to the trace; they are the caller's to clear.
    pub const fn take(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn meaning(
        &mut self,
        group: u32,
        entry: &Entry<'_>,
        common: Common,
        sources: &Sources<'_>,
        meaning: &Meaning<'_>,
    ) {
        let Some(event) = sources.formats.by_id(common.id) else { return };
        if matches!(meaning.role, Role::Switch | Role::Wake) {
            self.threads.learn(event, entry.record);
        }
        if meaning.role == Role::Switch {
            return self.switch(group, entry, event);
        }
        let place = match meaning.track {
            Track::Thread(tid) => self.thread(tid, sources),
            Track::Cpu(cpu) => self.line(INTERRUPTS.saturating_add(cpu)),
        };
        for _ in 0..meaning.unended {
            self.object(b'E', b"", entry.time, place);
            self.out.push(b'}');
        }
        let kind = match meaning.role {
            Role::Begin => b'B',
            Role::End => b'E',
            Role::Counter(_) => b'C',
            _ => b'i',
        };
        let name = if kind == b'E' { "" } else { &*meaning.name };
        self.object(kind, name.as_bytes(), entry.time, place);
        self.out.extend_from_slice(b",\"cat\":");
        json_string(event.system().as_bytes(), &mut self.out);
        if kind == b'i' {
            self.out.extend_from_slice(b",\"s\":\"t\"");
        }
        self.out.extend_from_slice(b",\"args\":");
        match meaning.role {
            // Each of its arguments would be a line of its own.
            Role::Counter(Number::Int(value)) => {
                self.out.extend_from_slice(format!("{{\"value\":{value}}}").as_bytes());
            }
            Role::Counter(Number::Float(value)) => {
                let value = if value.is_finite() { value.to_string() } else { "null".to_owned() };
                self.out.extend_from_slice(format!("{{\"value\":{value}}}").as_bytes());
            }
            _ => json_fields(event, entry.record, &mut self.out),
        }
        self.out.push(b'}');
        for (flow, is_end) in [(meaning.flow, false), (meaning.flow_end, true)] {
            if let Some(flow) = flow {
                self.flow(flow, is_end, entry.time, place);
            }
        }
    }

    fn switch(&mut self, group: u32, entry: &Entry<'_>, event: &crate::Event) {
        let mut fields = Vec::new();
        json_fields(event, entry.record, &mut fields);
        let name = event.field("next_comm").and_then(|name| name.text(entry.record, event.target()));
        let next = Running { since: entry.time, name: name.unwrap_or(b"?").to_vec(), fields };
        let place = self.line(entry.cpu);
        if let Some(ran) = self.running.insert((group, entry.cpu), next) {
            self.object(b'X', &ran.name, ran.since, place);
            self.out.extend_from_slice(b",\"dur\":");
            microseconds(entry.time.saturating_sub(ran.since), &mut self.out);
            self.out.extend_from_slice(b",\"cat\":\"sched\",\"args\":");
            self.out.extend_from_slice(&ran.fields);
            self.out.push(b'}');
        }
    }

    /// Writes what a CPU began to run, of which the end is not known.
    fn begin_running(&mut self, cpu: u32, running: &Running) {
        let place = self.line(cpu);
        self.object(b'i', &running.name, running.since, place);
        self.out.extend_from_slice(b",\"s\":\"t\",\"cat\":\"sched\",\"args\":");
        self.out.extend_from_slice(&running.fields);
        self.out.push(b'}');
    }

    fn unknown(&mut self, entry: &Entry<'_>, common: Common, sources: &Sources<'_>) {
        let place = match common.pid {
            ..=0 => self.line(INTERRUPTS.saturating_add(entry.cpu)),
            tid => self.thread(tid, sources),
        };
        self.object(b'i', b"unknown event", entry.time, place);
        self.out.extend_from_slice(b",\"s\":\"t\",\"args\":{\"id\":");
        out::dec(&mut self.out, u64::from(common.id));
        self.out.extend_from_slice(b"}}");
    }

    fn flow(&mut self, flow: u64, is_end: bool, time: u64, place: (i32, i64)) {
        if self.flows.len() >= MAX_FLOWS {
            self.flows.clear();
        }
        let kind = match (is_end, self.flows.insert(flow)) {
            (true, _) => b'f',
            (false, true) => b's',
            (false, false) => b't',
        };
        if is_end {
            self.flows.remove(&flow);
        }
        self.object(kind, b"flow", time, place);
        self.out.extend_from_slice(b",\"cat\":\"flow\",\"bp\":\"e\",\"id\":\"0x");
        out::hex(&mut self.out, flow);
        self.out.extend_from_slice(b"\"}");
    }

    /// Begins an object; where it lies is its process and thread.
    fn object(&mut self, kind: u8, name: &[u8], time: u64, (pid, tid): (i32, i64)) {
        let out = &mut self.out;
        out.extend_from_slice(b",\n{\"ph\":\"");
        out.push(kind);
        out.extend_from_slice(b"\",\"ts\":");
        microseconds(time, out);
        out.extend_from_slice(b",\"pid\":");
        out::signed(out, i64::from(pid));
        out.extend_from_slice(b",\"tid\":");
        out::signed(out, tid);
        if !name.is_empty() || kind != b'E' {
            out.extend_from_slice(b",\"name\":");
            json_string(name, out);
        }
    }

    fn thread(&mut self, tid: i32, sources: &Sources<'_>) -> (i32, i64) {
        if let Some(NewThread { process, name }) = self.threads.see(tid, sources.tasks) {
            self.named("thread_name", process, tid.into(), &name);
            if process == tid {
                self.named("process_name", process, tid.into(), &name);
            }
        }
        (self.threads.process(tid), tid.into())
    }

    /// The line of a CPU, or of its interrupts.
    fn line(&mut self, line: u32) -> (i32, i64) {
        if self.lines.insert(line) {
            let mut name = format!("CPU {}", line.checked_sub(INTERRUPTS).unwrap_or(line));
            if line >= INTERRUPTS {
                let _ = write!(name, ", interrupts");
            }
            self.named("thread_name", CPUS, line.into(), &name);
        }
        (CPUS, line.into())
    }

    fn named(&mut self, what: &str, pid: i32, tid: i64, name: &str) {
        let text =
            format!(",\n{{\"ph\":\"M\",\"name\":\"{what}\",\"pid\":{pid},\"tid\":{tid},\"args\":{{\"name\":");
        self.out.extend_from_slice(text.as_bytes());
        json_string(name.as_bytes(), &mut self.out);
        self.out.extend_from_slice(b"}}");
    }
}

/// Nanoseconds as microseconds with three decimals.
fn microseconds(ns: u64, out: &mut Vec<u8>) {
    out::dec(out, ns / 1000);
    out.push(b'.');
    out::dec_wide(out, ns % 1000, 3, b'0');
}
