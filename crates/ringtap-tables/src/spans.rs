//! Spans: what began with one event and ended with another, by the names of the events ([`ringtap_format::model`]).

use crate::rows::Row;
use ringtap_format::Formats;
use ringtap_format::model::{Model, Role, Track};
use ringtap_format::text::Entry;
use std::collections::HashMap;
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
    traces: HashMap<u32, Trace>,
}

#[derive(Debug, Default)]
struct Trace {
    model: Model,
    open: HashMap<Track, Vec<Open>>,
}

#[derive(Debug)]
struct Open {
    start: u64,
    cpu: u32,
    system: Arc<str>,
    name: Arc<str>,
}

impl Spans {
    /// Notes that events of a trace were lost: what was open may have ended meanwhile.
    pub fn lost(&mut self, trace: u32) {
        self.traces.entry(trace).or_default().model.lost();
    }

    /// Takes the next record, in the order of time. Returns the span that it ends.
    ///
    /// What has an end that was lost is no span here, since nobody knows how long it took.
    pub fn push(&mut self, trace: u32, formats: &Formats, row: &Row<'_>) -> Option<Span> {
        let event = row.event?;
        let Trace { model, open } = self.traces.entry(trace).or_default();
        let entry = Entry { cpu: row.cpu, time: row.time, record: row.record };
        let meaning = model.event(trace, &entry, row.common, formats)?;
        if meaning.unended > 0
            && let Some(open) = open.get_mut(&meaning.track)
        {
            open.truncate(open.len().saturating_sub(meaning.unended));
        }
        match meaning.role {
            Role::Begin => {
                let (system, name) = (event.system().into(), meaning.name.into());
                let begun = Open { start: row.time, cpu: row.cpu, system, name };
                open.entry(meaning.track).or_default().push(begun);
                None
            }
            Role::End => {
                let open = open.get_mut(&meaning.track)?;
                let Open { start, cpu, system, name } = open.pop()?;
                let depth = u32::try_from(open.len()).unwrap_or(u32::MAX);
                Some(Span { start, end: row.time.max(start), cpu, system, name, depth })
            }
            _ => None,
        }
    }
}
