//! Perfetto's trace, which ui.perfetto.dev and its trace processor open.
//!
//! Task switches and wake-ups become `ftrace_events`, so that each CPU has its scheduling track. All else becomes
//! track events, as [`model`](crate::model) understands them: spans and instants on the track of their thread or CPU,
//! counters on tracks of their own. Fields are debug annotations.
//!
//! Each CPU of each group is a packet sequence: what it loses is told by its own packets, as
//! `previous_packet_dropped` and `lost_events`, and by an instant with the number on a track of losses.
//!
//! A trace is nothing but packets one behind the other, so a file that was cut short is a trace.

mod proto;
mod values;

use crate::model::{Meaning, Model, NewThread, Number, Role, Threads, Track};
use crate::text::{Common, Entry, Sources};
use proto::{
    CounterDescriptor, FtraceEvent, FtraceEventBundle, Interned, InternedData, ProcessDescriptor,
    ThreadDescriptor, TracePacket, TrackDescriptor, TrackEvent,
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Events of a CPU's schedule that are gathered into one packet.
const BUNDLE: usize = 512;
/// Most counters that have tracks of their own; further ones are instants.
const MAX_COUNTERS: usize = 1 << 16;

/// Makes a trace of the records it is given; [`take`](Self::take) hands out its bytes.
#[derive(Debug, Default)]
pub struct Writer {
    model: Model,
    sequences: BTreeMap<(u32, u32), Sequence>,
    threads: Threads,
    /// Tracks that are described already, but for threads'.
    tracks: HashSet<u64>,
    counters: HashMap<Counter, u64>,
    out: Vec<u8>,
}

/// What identifies a counter: its group, event and thread, and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Counter {
    group: u32,
    event: u16,
    name: String,
}

/// A CPU's packets.
#[derive(Debug)]
struct Sequence {
    id: u32,
    bundle: Vec<FtraceEvent>,
    /// Whether the next bundle comes behind a loss.
    has_bundle_lost: bool,
    state: State,
}

/// What the reader of a sequence knows by now.
#[derive(Debug, Default)]
struct State {
    /// It has been told to begin anew.
    is_cleared: bool,
    /// Events were lost before the next packet.
    has_lost: bool,
    categories: Names,
    events: Names,
    fields: Names,
}

/// Names and their numbers.
#[derive(Debug, Default)]
struct Names {
    known: HashMap<String, u64>,
    new: Vec<Interned>,
}

impl Names {
    fn id(&mut self, name: &str) -> u64 {
        if let Some(&id) = self.known.get(name) {
            return id;
        }
        let id = u64::try_from(self.known.len()).unwrap_or(u64::MAX).saturating_add(1);
        self.known.insert(name.to_owned(), id);
        self.new.push(Interned { iid: Some(id), name: Some(name.to_owned()) });
        id
    }
}

impl Writer {
    /// A trace without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The threads, whose processes may be told; without that each is taken for a process.
    pub const fn threads(&mut self) -> &mut Threads {
        &mut self.threads
    }

    /// Adds a record of a group: of one machine's or application's set of formats, by the caller's numbering.
    pub fn entry(&mut self, group: u32, entry: &Entry<'_>, sources: &Sources<'_>) {
        let common = Common::of(entry.record, sources.formats.target());
        let Self { model, .. } = self;
        let mut taken = std::mem::take(model);
        match taken.event(group, entry, common, sources.formats) {
            Some(meaning) => self.meaning(group, entry, common, sources, &meaning),
            None => self.unknown(group, entry, common, sources),
        }
        self.model = taken;
    }

    /// Adds events that were lost on a CPU before those of `time`.
    pub fn lost(&mut self, group: u32, cpu: u32, time: u64, count: Option<u64>) {
        self.model.lost();
        self.flush(group, cpu);
        let track = self.track(group, cpu, Line::Losses);
        let sequence = sequence(&mut self.sequences, group, cpu);
        sequence.has_bundle_lost = true;
        sequence.state = State { has_lost: true, ..State::default() };
        let annotations = count
            .map(|count| values::number(sequence.state.fields.id("events"), proto::Annotated::Uint(count)));
        let name = sequence.state.events.id("lost events");
        let event = TrackEvent {
            r#type: Some(proto::TYPE_INSTANT),
            track_uuid: Some(track),
            name_iid: Some(name),
            debug_annotations: annotations.into_iter().collect(),
            ..TrackEvent::default()
        };
        sequence.event(time, event, &mut self.out);
    }

    /// Completes the trace.
    pub fn finish(&mut self) {
        let all: Vec<_> = self.sequences.keys().copied().collect();
        for (group, cpu) in all {
            self.flush(group, cpu);
        }
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
        if matches!(meaning.role, Role::Switch | Role::Wake)
            && let Some(scheduled) = values::scheduled(event, entry, common)
        {
            self.threads.learn(event, entry.record);
            let sequence = sequence(&mut self.sequences, group, entry.cpu);
            sequence.bundle.push(scheduled);
            if sequence.bundle.len() >= BUNDLE {
                self.flush(group, entry.cpu);
            }
            return;
        }
        let track = match meaning.track {
            Track::Thread(tid) => self.thread(group, entry.cpu, tid, sources),
            Track::Cpu(cpu) => self.track(group, entry.cpu, Line::Cpu(cpu)),
        };
        let counter = match meaning.role {
            Role::Counter(value) => self.counter(group, entry.cpu, common.id, &meaning.name).zip(Some(value)),
            _ => None,
        };
        let sequence = sequence(&mut self.sequences, group, entry.cpu);
        for _ in 0..meaning.unended {
            let end = TrackEvent {
                r#type: Some(proto::TYPE_SLICE_END),
                track_uuid: Some(track),
                ..TrackEvent::default()
            };
            sequence.event(entry.time, end, &mut self.out);
        }
        let state = &mut sequence.state;
        let mut made = TrackEvent {
            category_iids: vec![state.categories.id(event.system())],
            track_uuid: Some(track),
            flow_ids: meaning.flow.into_iter().collect(),
            terminating_flow_ids: meaning.flow_end.into_iter().collect(),
            debug_annotations: values::annotations(event, entry.record, &mut state.fields),
            ..TrackEvent::default()
        };
        let kind = match (meaning.role, counter) {
            (_, Some((counter, value))) => {
                made.track_uuid = Some(counter);
                match value {
                    Number::Int(value) => made.counter_value = Some(value),
                    Number::Float(value) => made.double_counter_value = Some(value),
                }
                proto::TYPE_COUNTER
            }
            (Role::Begin, _) => proto::TYPE_SLICE_BEGIN,
            (Role::End, _) => proto::TYPE_SLICE_END,
            _ => proto::TYPE_INSTANT,
        };
        made.r#type = Some(kind);
        if matches!(kind, proto::TYPE_SLICE_BEGIN | proto::TYPE_INSTANT) {
            match meaning.is_name_common {
                true => made.name_iid = Some(state.events.id(&meaning.name)),
                false => made.name = Some(meaning.name.clone().into_owned()),
            }
        }
        sequence.event(entry.time, made, &mut self.out);
    }

    fn unknown(&mut self, group: u32, entry: &Entry<'_>, common: Common, sources: &Sources<'_>) {
        let track = match common.pid {
            ..=0 => self.track(group, entry.cpu, Line::Cpu(entry.cpu)),
            tid => self.thread(group, entry.cpu, tid, sources),
        };
        let sequence = sequence(&mut self.sequences, group, entry.cpu);
        let state = &mut sequence.state;
        let event = TrackEvent {
            r#type: Some(proto::TYPE_INSTANT),
            track_uuid: Some(track),
            name_iid: Some(state.events.id("unknown event")),
            debug_annotations: vec![
                values::number(state.fields.id("id"), proto::Annotated::Uint(common.id.into())),
                values::bytes(state.fields.id("record"), entry.record),
            ],
            ..TrackEvent::default()
        };
        sequence.event(entry.time, event, &mut self.out);
    }

    /// A thread's track, described where it is new or its name is.
    fn thread(&mut self, group: u32, cpu: u32, tid: i32, sources: &Sources<'_>) -> u64 {
        let uuid = Line::Thread(tid).uuid(0);
        let Some(NewThread { process, name }) = self.threads.see(tid, sources.tasks) else { return uuid };
        let id = sequence(&mut self.sequences, group, cpu).id;
        let parent = Line::Process(process).uuid(0);
        if process == tid || self.tracks.insert(parent) {
            let process_name = (process == tid).then(|| name.clone());
            let described = ProcessDescriptor { pid: Some(process), process_name };
            let descriptor = TrackDescriptor {
                uuid: Some(parent),
                process: Some(described),
                ..TrackDescriptor::default()
            };
            describe(id, descriptor, &mut self.out);
        }
        let described =
            ThreadDescriptor { pid: Some(process), tid: Some(tid.into()), thread_name: Some(name) };
        let descriptor = TrackDescriptor {
            uuid: Some(uuid),
            parent_uuid: Some(parent),
            thread: Some(described),
            ..TrackDescriptor::default()
        };
        describe(id, descriptor, &mut self.out);
        uuid
    }

    /// A track that belongs to no thread, described where it is new.
    fn track(&mut self, group: u32, cpu: u32, line: Line) -> u64 {
        let uuid = match line {
            Line::Losses => line.uuid(u64::from(group) << 32 | u64::from(cpu)),
            _ => line.uuid(0),
        };
        if self.tracks.insert(uuid) {
            let name = match line {
                Line::Losses => format!("Lost events, CPU {cpu}"),
                _ => format!("CPU {cpu}"),
            };
            let id = sequence(&mut self.sequences, group, cpu).id;
            let descriptor =
                TrackDescriptor { uuid: Some(uuid), name: Some(name), ..TrackDescriptor::default() };
            describe(id, descriptor, &mut self.out);
        }
        uuid
    }

    /// A counter's track; `None` where there are too many.
    fn counter(&mut self, group: u32, cpu: u32, event: u16, name: &str) -> Option<u64> {
        let counter = Counter { group, event, name: name.to_owned() };
        if let Some(&uuid) = self.counters.get(&counter) {
            return Some(uuid);
        }
        let place = u64::try_from(self.counters.len()).ok().filter(|_| self.counters.len() < MAX_COUNTERS)?;
        let uuid = Line::Counter.uuid(place);
        self.counters.insert(counter, uuid);
        let descriptor = TrackDescriptor {
            uuid: Some(uuid),
            name: Some(name.to_owned()),
            counter: Some(CounterDescriptor {}),
            ..TrackDescriptor::default()
        };
        describe(sequence(&mut self.sequences, group, cpu).id, descriptor, &mut self.out);
        Some(uuid)
    }

    /// Writes the schedule gathered of a CPU.
    fn flush(&mut self, group: u32, cpu: u32) {
        let sequence = sequence(&mut self.sequences, group, cpu);
        if sequence.bundle.is_empty() {
            return;
        }
        let bundle = FtraceEventBundle {
            cpu: Some(cpu),
            event: std::mem::take(&mut sequence.bundle),
            lost_events: std::mem::take(&mut sequence.has_bundle_lost).then_some(true),
        };
        let packet = TracePacket {
            ftrace_events: Some(bundle),
            trusted_packet_sequence_id: Some(sequence.id),
            ..TracePacket::default()
        };
        append(&packet, &mut self.out);
    }
}

fn sequence(sequences: &mut BTreeMap<(u32, u32), Sequence>, group: u32, cpu: u32) -> &mut Sequence {
    let next = u32::try_from(sequences.len()).unwrap_or(u32::MAX).saturating_add(1);
    sequences.entry((group, cpu)).or_insert_with(|| Sequence {
        id: next,
        bundle: Vec::new(),
        has_bundle_lost: false,
        state: State::default(),
    })
}

impl Sequence {
    /// Writes an event, and before it the names that it is the first to use.
    fn event(&mut self, time: u64, event: TrackEvent, out: &mut Vec<u8>) {
        let State { is_cleared, has_lost, categories, events, fields } = &mut self.state;
        let mut flags = proto::SEQ_NEEDS_INCREMENTAL_STATE;
        if !std::mem::replace(is_cleared, true) {
            flags |= proto::SEQ_INCREMENTAL_STATE_CLEARED;
        }
        let interned_data = InternedData {
            event_categories: std::mem::take(&mut categories.new),
            event_names: std::mem::take(&mut events.new),
            debug_annotation_names: std::mem::take(&mut fields.new),
        };
        let packet = TracePacket {
            timestamp: Some(time),
            trusted_packet_sequence_id: Some(self.id),
            track_event: Some(event),
            interned_data: (interned_data != InternedData::default()).then_some(interned_data),
            sequence_flags: Some(flags),
            previous_packet_dropped: std::mem::take(has_lost).then_some(true),
            ..TracePacket::default()
        };
        append(&packet, out);
    }
}

/// What tracks there are.
#[derive(Clone, Copy, Debug)]
enum Line {
    Process(i32),
    Thread(i32),
    Cpu(u32),
    Losses,
    Counter,
}

impl Line {
    /// A number that no other track has.
    fn uuid(self, number: u64) -> u64 {
        let (kind, number) = match self {
            Self::Process(pid) => (1u64, u64::from(pid.cast_unsigned())),
            Self::Thread(tid) => (2, u64::from(tid.cast_unsigned())),
            Self::Cpu(cpu) => (3, u64::from(cpu)),
            Self::Losses => (4, number),
            Self::Counter => (5, number),
        };
        kind << 60 | number & (u64::MAX >> 4)
    }
}

fn describe(sequence: u32, descriptor: TrackDescriptor, out: &mut Vec<u8>) {
    let packet = TracePacket {
        trusted_packet_sequence_id: Some(sequence),
        track_descriptor: Some(descriptor),
        ..TracePacket::default()
    };
    append(&packet, out);
}

/// Appends a packet: a field of the message `Trace`, which is the whole file.
fn append(packet: &TracePacket, out: &mut Vec<u8>) {
    const PACKET: u32 = 1;
    prost::encoding::message::encode(PACKET, packet, out);
}
