//! Spans: what began with one event and ended with another of the same thread.
//!
//! Which events belong together is told by their names, as kernels and applications choose them: `NAME_begin` and
//! `NAME_end`, `NAME_enter` (or `entry`) and `NAME_exit`, `NAME_start` and `NAME_end` (or `done`, `stop`), and the
//! kernel's `sys_enter_NAME` and `sys_exit_NAME`. Where both have a number by which they can be told from others, such as
//! `id` or `span`, it must be the same. Of several that are open, the last one ends first.

use crate::event::Event;
use crate::value::IntField;
use std::collections::HashMap;
use std::sync::Arc;

/// How names of a span's first event end, and those of its last one.
const SUFFIXES: [(&str, &[&str]); 4] = [
    ("begin", &["end"]),
    ("enter", &["exit", "leave"]),
    ("entry", &["exit", "return"]),
    ("start", &["end", "done", "stop"]),
];

/// Integer fields that tell spans of one name apart, the best first.
const KEYS: [&str; 9] = ["span", "span_id", "id", "nr", "request", "cookie", "work", "irq", "vec"];

/// Most spans that are open at a time; the events that began others are forgotten.
const MAX_OPEN: usize = 1 << 20;

/// Most spans of one thread and name that are open at a time.
const MAX_DEPTH: usize = 1 << 10;

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The system of its events.
    pub system: Arc<str>,
    /// What its events' names have in common.
    pub name: Arc<str>,
    /// The thread.
    pub pid: i32,
    /// The CPU that it began on.
    pub cpu: u32,
    /// When it began, in nanoseconds.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// How many spans of the same thread and name were open when it began.
    pub depth: u32,
}

/// What an event does to a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// It begins it.
    Begin,
    /// It ends it.
    End,
}

#[derive(Clone, Debug)]
struct Role {
    half: Half,
    name: u32,
    key: Option<IntField>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    key: u64,
    cpu: u32,
    start: u64,
}

/// Finds spans in a stream of records.
#[derive(Debug, Default)]
pub struct Spans {
    /// System and name.
    names: Vec<(Arc<str>, Arc<str>)>,
    /// By trace and the event's id.
    roles: HashMap<(u32, u16), Role>,
    /// By trace, name and thread.
    open: HashMap<(u32, u32, i32), Vec<Open>>,
    open_count: usize,
    unmatched: u64,
}

impl Spans {
    /// Spans of these events, each with the number of its trace.
    #[must_use]
    pub fn new<'e>(events: impl IntoIterator<Item = (u32, &'e Event)>) -> Self {
        let mut spans = Self::default();
        spans.add(events);
        spans
    }

    /// Adds the events of another trace, both halves of each span at once.
    pub fn add<'e>(&mut self, events: impl IntoIterator<Item = (u32, &'e Event)>) {
        let mut halves: HashMap<(u32, String, String), [Vec<&Event>; 2]> = HashMap::new();
        for (trace, event) in events {
            for (base, half) in halves_of(event.name()) {
                let [begins, ends] = halves.entry((trace, event.system().to_owned(), base)).or_default();
                if half == Half::Begin { begins.push(event) } else { ends.push(event) }
            }
        }
        let mut paired: Vec<_> = halves.into_iter().collect();
        paired.sort_by(|(a, _), (b, _)| a.cmp(b));
        for ((trace, system, base), [begins, ends]) in paired {
            if begins.is_empty() || ends.is_empty() {
                continue;
            }
            let Ok(name) = u32::try_from(self.names.len()) else { break };
            self.names.push((system.into(), base.into()));
            let mut all = begins.iter().chain(&ends);
            let key = KEYS.into_iter().find(|key| all.clone().all(|event| event.int_field(key).is_some()));
            let begins_count = begins.len();
            for (place, event) in all.by_ref().enumerate() {
                let half = if place < begins_count { Half::Begin } else { Half::End };
                let role = Role { half, name, key: key.and_then(|key| event.int_field(key)) };
                self.roles.entry((trace, event.id())).or_insert(role);
            }
        }
    }

    /// Whether no two events belong together.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty()
    }

    /// What the event does to a span, if anything.
    #[must_use]
    pub fn half(&self, trace: u32, id: u16) -> Option<Half> {
        self.roles.get(&(trace, id)).map(|role| role.half)
    }

    /// Ends without a beginning, so far: those of a trace that began later, or that lost events.
    #[must_use]
    pub const fn unmatched(&self) -> u64 {
        self.unmatched
    }

    /// Takes the next record, in the order of time. Returns the span that it ends.
    pub fn push(
        &mut self,
        trace: u32,
        event: &Event,
        pid: i32,
        cpu: u32,
        time: u64,
        record: &[u8],
    ) -> Option<Span> {
        let role = self.roles.get(&(trace, event.id()))?;
        let key = role.key.and_then(|key| key.get(record)).unwrap_or(0);
        let thread = (trace, role.name, pid);
        if role.half == Half::Begin {
            let open = self.open.entry(thread).or_default();
            if self.open_count < MAX_OPEN && open.len() < MAX_DEPTH {
                self.open_count = self.open_count.saturating_add(1);
                open.push(Open { key, cpu, start: time });
            }
            return None;
        }
        let (system, name) = self.names.get(usize::try_from(role.name).ok()?)?;
        let ended = self.open.get_mut(&thread).and_then(|open| {
            let place = open.iter().rposition(|begun| begun.key == key)?;
            // Those behind it were begun within it, and their ends are not in the trace.
            let dropped = open.len().saturating_sub(place);
            self.open_count = self.open_count.saturating_sub(dropped);
            let begun = open.get(place).copied();
            open.truncate(place);
            begun.map(|begun| (begun, place))
        });
        let Some((begun, depth)) = ended else {
            self.unmatched = self.unmatched.saturating_add(1);
            return None;
        };
        Some(Span {
            system: Arc::clone(system),
            name: Arc::clone(name),
            pid,
            cpu: begun.cpu,
            start: begun.start,
            end: time.max(begun.start),
            depth: u32::try_from(depth).unwrap_or(u32::MAX),
        })
    }
}

/// The spans that an event of this name may begin or end: what is left of its name, and which half it is.
fn halves_of(name: &str) -> Vec<(String, Half)> {
    if let Some(call) = name.strip_prefix("sys_enter_") {
        return vec![(format!("sys_{call}"), Half::Begin)];
    }
    if let Some(call) = name.strip_prefix("sys_exit_") {
        return vec![(format!("sys_{call}"), Half::End)];
    }
    let Some((base, suffix)) = name.rsplit_once('_') else { return Vec::new() };
    let mut halves = Vec::new();
    for (begin, ends) in SUFFIXES {
        if suffix == begin {
            halves.push((base.to_owned(), Half::Begin));
        } else if ends.contains(&suffix) && !halves.iter().any(|(_, half)| *half == Half::End) {
            halves.push((base.to_owned(), Half::End));
        }
    }
    halves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dialect, Formats, Target};

    fn formats(names: &[(&str, &str)]) -> Formats {
        let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
        for (id, (name, field)) in (100..).zip(names) {
            let text = format!(
                "name: {name}\nID: {id}\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
                 \tfield:int {field};\toffset:8;\tsize:4;\tsigned:1;\n\nprint fmt: \"\"\n"
            );
            formats.add("app", &text).expect("a format");
        }
        formats
    }

    fn record(key: u8) -> [u8; 12] {
        [0, 0, 0, 0, 0, 0, 0, 0, key, 0, 0, 0]
    }

    fn feed(formats: &Formats, records: &[(&str, i32, u64, u8)]) -> Vec<(String, i32, u64, u64, u32)> {
        let mut spans = Spans::new(formats.iter().map(|event| (0, event)));
        let ended = records.iter().filter_map(|(name, pid, time, key)| {
            let event = formats.by_name(None, name).expect("declared");
            spans.push(0, event, *pid, 1, *time, &record(*key))
        });
        ended.map(|span| (span.name.to_string(), span.pid, span.start, span.end, span.depth)).collect()
    }

    #[test]
    fn names_tell_which_events_belong_together() {
        let names = [
            ("read_begin", "a"),
            ("read_end", "a"),
            ("job_start", "a"),
            ("job_done", "a"),
            ("sys_enter_openat", "a"),
            ("sys_exit_openat", "a"),
            ("lonely_end", "a"),
            ("file_read", "a"),
        ];
        let formats = formats(&names);
        let records = [
            ("read_begin", 1, 10, 0),
            ("sys_enter_openat", 1, 11, 0),
            ("job_start", 2, 12, 0),
            ("lonely_end", 1, 12, 0),
            ("file_read", 1, 12, 0),
            ("sys_exit_openat", 1, 13, 0),
            ("job_done", 2, 14, 0),
            ("read_end", 1, 15, 0),
        ];
        let expected = [("sys_openat", 1, 11, 13, 0), ("job", 2, 12, 14, 0), ("read", 1, 10, 15, 0)];
        assert_eq!(
            feed(&formats, &records),
            expected.map(|(name, pid, start, end, depth)| (name.to_owned(), pid, start, end, depth))
        );
    }

    #[test]
    fn the_last_one_that_began_ends_first_and_keys_tell_them_apart() {
        let nested = formats(&[("f_entry", "depth"), ("f_exit", "depth")]);
        let records = [
            ("f_entry", 1, 1, 0),
            ("f_entry", 1, 2, 1),
            ("f_exit", 1, 3, 1),
            ("f_exit", 1, 4, 0),
            ("f_exit", 1, 5, 0),
        ];
        let found = feed(&nested, &records);
        assert_eq!(found, [("f".to_owned(), 1, 2, 3, 1), ("f".to_owned(), 1, 1, 4, 0)]);
        let keyed = formats(&[("rq_start", "request"), ("rq_end", "request")]);
        let records =
            [("rq_start", 1, 1, 7), ("rq_start", 1, 2, 8), ("rq_end", 1, 3, 7), ("rq_end", 2, 4, 8)];
        assert_eq!(feed(&keyed, &records), [("rq".to_owned(), 1, 1, 3, 0)]);
    }
}
