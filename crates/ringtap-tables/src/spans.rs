//! Spans: what began with one event and ended with another, by the names of the events ([`ringtap_format::model`]).

use crate::rows::Row;
use ringtap_format::Formats;
use ringtap_format::model::{Meaning, Model};
use ringtap_format::text::Entry;
use std::sync::Arc;

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it began, in nanoseconds.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// The CPU that it began on.
    pub cpu: u32,
    /// The system of its events.
    pub system: Arc<str>,
    /// What its events' names have in common, or what a marker said.
    pub name: Arc<str>,
    /// How many others it was in.
    pub depth: u32,
}

/// Finds spans in a stream of records.
#[derive(Debug, Default)]
pub struct Spans {
    /// By the trace's number: what is open in one has nothing to do with another.
    traces: Vec<Trace>,
}

#[derive(Debug, Default)]
struct Trace {
    model: Model<Begun>,
    names: Names,
}

/// A span that has begun.
#[derive(Debug)]
struct Begun {
    start: u64,
    cpu: u32,
    system: Arc<str>,
    name: Arc<str>,
}

/// System and name of the spans that events begin, by the events' numbers.
#[derive(Debug, Default)]
struct Names(Vec<Option<[Arc<str>; 2]>>);

impl Names {
    fn of(&mut self, id: u16, system: &str, meaning: &Meaning<'_>) -> [Arc<str>; 2] {
        let id = usize::from(id);
        if self.0.len() <= id {
            self.0.resize(id + 1, None);
        }
        match &self.0[id] {
            // Of a live trace, another format can have the number by now, and markers have many names.
            Some(known) if *known[0] == *system && *known[1] == *meaning.name => known.clone(),
            _ => self.0[id].insert([system.into(), (&*meaning.name).into()]).clone(),
        }
    }
}

impl Spans {
    fn trace(&mut self, number: u32) -> &mut Trace {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        if self.traces.len() <= place {
            self.traces.resize_with(place + 1, Trace::default);
        }
        &mut self.traces[place]
    }

    /// Notes that events of a trace were lost: what was open may have ended meanwhile. Traces are numbered in a row.
    pub fn lost(&mut self, trace: u32) {
        self.trace(trace).model.lost();
    }

    /// Takes the next record, in the order of time. Returns the span that it ends.
    ///
    /// What has an end that was lost is no span here, since nobody knows how long it took.
    pub fn push(&mut self, trace: u32, formats: &Formats, row: &Row<'_>) -> Option<Span> {
        let event = row.event?;
        let Trace { model, names } = self.trace(trace);
        let entry = Entry { cpu: row.cpu, time: row.time, record: row.record };
        let note = |meaning: &Meaning<'_>| {
            let [system, name] = names.of(event.id(), event.system(), meaning);
            Begun { start: row.time, cpu: row.cpu, system, name }
        };
        let (_, ended) = model.event_noted(trace, &entry, row.common, formats, note)?;
        let ended = ended?;
        let Begun { start, cpu, system, name } = ended.note;
        let depth = u32::try_from(ended.depth).unwrap_or(u32::MAX);
        Some(Span { start, end: row.time.max(start), cpu, system, name, depth })
    }
}
