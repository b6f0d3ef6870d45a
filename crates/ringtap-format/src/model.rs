//! What events mean to a viewer of time lines: which begin and end something, which count, which belong together.
//!
//! The names decide, so that the kernel's events, an application's and a library's are treated alike:
//!
//! - Two events of a system whose names differ in one word, `begin`/`end`, `start`/`end`, `start`/`stop`,
//!   `enter`/`exit` or `entry`/`exit`, are the ends of spans: `sys_enter_openat` and `sys_exit_openat`.
//! - An event whose last word is `counter` or `gauge` and that has a number `value` is a counter; the text `name`, if
//!   it has one, tells several of them apart.
//! - A number `flow` or `flow_id`, other than 0, ties events together; `flow_end` ends the tie.
//! - Markers in the words of Android's atrace, `B|1|name`, `E|1` and `C|1|name|7`, are spans and counters.
//!
//! Spans of interrupts, and of what a CPU does while it is idle, lie on the CPU's track, all others on their thread's.
//! They nest. An end whose beginning was lost is an instant; a beginning whose end was lost ends with what it is in,
//! at the latest when its thread exits.

use crate::event::{Event, Formats};
use crate::format::{Field, Kind};
use crate::hash::Keyed;
use crate::symbols::Tasks;
use crate::text::{Common, Entry};
use crate::value::Value;
use std::borrow::Cow;
use std::collections::HashMap;

/// What an event is on a time line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// A CPU goes over from one task to another: `sched:sched_switch`.
    Switch,
    /// A task is made runnable: `sched:sched_waking`, `sched_wakeup`, `sched_wakeup_new`.
    Wake,
    /// A span begins.
    Begin,
    /// The innermost open span ends.
    End,
    /// Something that happens at one moment.
    Instant,
    /// A counter's new value.
    Counter(Number),
}

/// A counter's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
}

/// The line that an event lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Track {
    /// A thread's.
    Thread(i32),
    /// A CPU's.
    Cpu(u32),
}

/// An event and what it means.
#[derive(Clone, Debug)]
pub struct Meaning<'a> {
    /// What it is.
    pub role: Role,
    /// What to call it: the span's, the counter's or the event's own name.
    pub name: Cow<'a, str>,
    /// Whether there are only as many such names as there are formats.
    pub is_name_common: bool,
    /// Where it lies.
    pub track: Track,
    /// Spans on that track that end first, because their own ends were lost.
    pub unended: usize,
    /// The flow that it is a part of.
    pub flow: Option<u64>,
    /// The flow that ends with it.
    pub flow_end: Option<u64>,
}

/// Pairs of words that stand in the names of a span's two ends.
const ENDS: [(&str, &str); 5] =
    [("enter", "exit"), ("entry", "exit"), ("begin", "end"), ("start", "end"), ("start", "stop")];
/// Between the words of a name.
const SEPARATORS: [char; 5] = ['_', '.', ':', '/', '-'];
/// Most spans that are open on one track; deeper ones are shown as instants.
const MAX_DEPTH: usize = 256;
/// Most bytes of a marker's text that are its name.
const MAX_NAME: usize = 200;

/// What an event's format says of it.
#[derive(Clone, Debug)]
struct Class {
    shape: Shape,
    name: String,
    is_of_cpu: bool,
    flow: Option<Field>,
    flow_end: Option<Field>,
    /// How many events were known: with more of them, there may be one that makes a pair with this.
    known: usize,
}

#[derive(Clone, Debug)]
enum Shape {
    Switch,
    Wake,
    Begin(Pair),
    End(Pair),
    Counter {
        value: Field,
        name: Option<Field>,
    },
    Marker(Field),
    /// The thread is at its end, and whatever it was at.
    Exit,
    Instant,
}

/// Which spans: those that begin with this event of this group; or a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pair {
    Event(u32, u16),
    Marker,
}

#[derive(Clone, Debug)]
struct Open<T> {
    pair: Pair,
    /// Losses before it began.
    losses: u64,
    note: T,
}

/// A span that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended<T> {
    /// What was noted when it began.
    pub note: T,
    /// How many others it was in.
    pub depth: usize,
}

/// Follows a trace's events in the order of their time. Something may be noted of each span that begins.
#[derive(Debug)]
pub struct Model<T = ()> {
    classes: HashMap<(u32, u16), Class, Keyed>,
    open: HashMap<Track, Vec<Open<T>>, Keyed>,
    losses: u64,
}

impl<T> Default for Model<T> {
    fn default() -> Self {
        Self { classes: HashMap::default(), open: HashMap::default(), losses: 0 }
    }
}

impl Model {
    /// Nothing has happened yet, and nothing is noted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the next event means; `None` where no format describes it. A group is a set of formats.
    pub fn event<'a>(
        &'a mut self,
        group: u32,
        entry: &Entry<'a>,
        common: Common,
        formats: &'a Formats,
    ) -> Option<Meaning<'a>> {
        Some(self.event_noted(group, entry, common, formats, |_| ())?.0)
    }
}

impl<T> Model<T> {
    /// Notes that events were lost.
    pub const fn lost(&mut self) {
        self.losses = self.losses.saturating_add(1);
    }

    /// As [`event`](Model::event): what begins is noted as `note` says, and what ends is returned.
    pub fn event_noted<'a>(
        &'a mut self,
        group: u32,
        entry: &Entry<'a>,
        common: Common,
        formats: &'a Formats,
        note: impl FnOnce(&Meaning<'a>) -> T,
    ) -> Option<(Meaning<'a>, Option<Ended<T>>)> {
        let event = formats.by_id(common.id)?;
        let class = match self.classes.entry((group, common.id)) {
            std::collections::hash_map::Entry::Occupied(known) => {
                let class = known.into_mut();
                if class.known != formats.len() {
                    *class = Class::new(group, event, formats);
                }
                &*class
            }
            std::collections::hash_map::Entry::Vacant(new) => new.insert(Class::new(group, event, formats)),
        };
        let is_idle = common.pid <= 0;
        let track =
            if class.is_of_cpu || is_idle { Track::Cpu(entry.cpu) } else { Track::Thread(common.pid) };
        let number = |field: &Option<Field>| {
            field.as_ref()?.int(entry.record, event.target()).filter(|&number| number != 0)
        };
        let mut meaning = Meaning {
            role: Role::Instant,
            name: Cow::Borrowed(event.name()),
            is_name_common: true,
            track,
            unended: 0,
            flow: number(&class.flow),
            flow_end: number(&class.flow_end),
        };
        let mut ended = None;
        match &class.shape {
            Shape::Instant => {}
            Shape::Exit => {
                meaning.unended = self.open.remove(&track).map_or(0, |open| open.len());
            }
            Shape::Switch => meaning.role = Role::Switch,
            Shape::Wake => meaning.role = Role::Wake,
            Shape::Begin(pair) => {
                let open = self.open.entry(track).or_default();
                if let Some(unended) = make_room(open, *pair, self.losses) {
                    (meaning.role, meaning.unended) = (Role::Begin, unended);
                    meaning.name = Cow::Borrowed(&class.name);
                    open.push(Open { pair: *pair, losses: self.losses, note: note(&meaning) });
                }
            }
            Shape::End(pair) => {
                if let Some((unended, span)) = end(self.open.entry(track).or_default(), *pair) {
                    (meaning.role, meaning.unended) = (Role::End, unended);
                    meaning.name = Cow::Borrowed(&class.name);
                    ended = Some(span);
                }
            }
            Shape::Counter { value, name } => {
                if let Some(value) = counted(value, entry.record, event) {
                    meaning.role = Role::Counter(value);
                }
                if let Some(text) = name.as_ref().and_then(|name| name.text(entry.record, event.target())) {
                    (meaning.name, meaning.is_name_common) = (String::from_utf8_lossy(text), false);
                }
            }
            Shape::Marker(field) => {
                let text = field.text(entry.record, event.target()).unwrap_or_default();
                let open = self.open.entry(track).or_default();
                (meaning, ended) = marker(text, open, self.losses, meaning, note);
            }
        }
        Some((meaning, ended))
    }
}

/// How a task is called that nobody knows.
const UNNAMED: &[u8] = b"<...>";
/// Pairs of fields of the kernel's `sched` events that tell a task's name.
const NAMING: [(&str, &str); 3] = [("prev_pid", "prev_comm"), ("next_pid", "next_comm"), ("pid", "comm")];

/// The threads that were seen, with their names and processes.
#[derive(Debug, Default)]
pub struct Threads {
    known: HashMap<i32, Thread>,
    /// Names learnt from the events themselves.
    learnt: Tasks,
}

#[derive(Debug, Default)]
struct Thread {
    process: Option<i32>,
    /// The name that was told.
    told: Option<Vec<u8>>,
}

/// A thread that is new, or has a new name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewThread {
    /// Its process; the thread itself, where nobody told.
    pub process: i32,
    /// Its name.
    pub name: String,
}

impl Threads {
    /// Whether a thread's process is known.
    #[must_use]
    pub fn knows_process(&self, tid: i32) -> bool {
        self.known.get(&tid).is_some_and(|thread| thread.process.is_some())
    }

    /// The process of a thread; the thread itself, where nobody told.
    #[must_use]
    pub fn process(&self, tid: i32) -> i32 {
        self.known.get(&tid).and_then(|thread| thread.process).unwrap_or(tid)
    }

    /// Tells the process that a thread belongs to.
    pub fn set_process(&mut self, tid: i32, process: i32) {
        let thread = self.known.entry(tid).or_default();
        if thread.process != Some(process) {
            *thread = Thread { process: Some(process), told: None };
        }
    }

    /// Takes tasks' names from a record of the system `sched`.
    pub fn learn(&mut self, event: &Event, record: &[u8]) {
        for (pid, name) in NAMING {
            let pid = event.field(pid).and_then(|pid| pid.int(record, event.target()));
            let pid = pid.and_then(|pid| i32::try_from(pid).ok()).filter(|&pid| pid > 0);
            let name = event.field(name).and_then(|name| name.text(record, event.target()));
            if let (Some(pid), Some(name)) = (pid, name) {
                self.learnt.set(pid, name);
            }
        }
    }

    /// What has to be told of a thread before its next event is; `None` where all has been.
    pub fn see(&mut self, tid: i32, tasks: &Tasks) -> Option<NewThread> {
        let name = match tasks.name(tid) {
            UNNAMED => self.learnt.name(tid),
            known => known,
        };
        let thread = self.known.entry(tid).or_default();
        if thread.told.as_deref() == Some(name) {
            return None;
        }
        thread.told = Some(name.to_vec());
        let name = String::from_utf8_lossy(name).into_owned();
        Some(NewThread { process: thread.process.unwrap_or(tid), name })
    }
}

/// Makes room for a span that begins; how many others end before it, or `None` where too many are open.
fn make_room<T>(open: &mut Vec<Open<T>>, pair: Pair, losses: u64) -> Option<usize> {
    // One of the same that began before a loss has probably ended in it. Markers are all of one kind, and do nest.
    let is_stale = |open: &Open<T>| open.pair == pair && pair != Pair::Marker && open.losses != losses;
    let stale = open.iter().position(is_stale);
    let unended = stale.map_or(0, |at| open.len().saturating_sub(at));
    open.truncate(open.len().saturating_sub(unended));
    if open.len() >= MAX_DEPTH { None } else { Some(unended) }
}

/// Closes a span, and how many others end before it; `None` where none of the kind is open.
fn end<T>(open: &mut Vec<Open<T>>, pair: Pair) -> Option<(usize, Ended<T>)> {
    let depth = open.iter().rposition(|open| open.pair == pair)?;
    let below = depth.saturating_add(1);
    let unended = open.len().saturating_sub(below);
    open.truncate(below);
    Some((unended, Ended { note: open.pop()?.note, depth }))
}

fn marker<'a, T>(
    text: &'a [u8],
    open: &mut Vec<Open<T>>,
    losses: u64,
    mut meaning: Meaning<'a>,
    note: impl FnOnce(&Meaning<'a>) -> T,
) -> (Meaning<'a>, Option<Ended<T>>) {
    let mut ended = None;
    let text = text.trim_ascii_end();
    let mut parts = text.split(|&byte| byte == b'|');
    let (kind, _, name) = (parts.next(), parts.next(), parts.next());
    let named = |name: &'a [u8]| String::from_utf8_lossy(name.get(..MAX_NAME).unwrap_or(name));
    meaning.is_name_common = false;
    match (kind, name) {
        (Some(b"B"), Some(name)) => {
            meaning.name = named(name);
            if let Some(unended) = make_room(open, Pair::Marker, losses) {
                (meaning.role, meaning.unended) = (Role::Begin, unended);
                open.push(Open { pair: Pair::Marker, losses, note: note(&meaning) });
            }
        }
        (Some(b"E"), _) => {
            meaning.name = Cow::Borrowed("");
            if let Some((unended, span)) = end(open, Pair::Marker) {
                (meaning.role, meaning.unended) = (Role::End, unended);
                ended = Some(span);
            }
        }
        (Some(b"C"), Some(name)) => {
            meaning.name = named(name);
            let value = parts.next().and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
            meaning.role = value.map_or(Role::Instant, |value| Role::Counter(Number::Int(value)));
        }
        _ => meaning.name = named(text),
    }
    (meaning, ended)
}

fn counted(field: &Field, record: &[u8], event: &Event) -> Option<Number> {
    Some(match field.value(record, event.target())? {
        Value::Signed(value) => Number::Int(value),
        Value::Unsigned(value) => match i64::try_from(value) {
            Ok(value) => Number::Int(value),
            Err(_) => Number::Int(i64::MAX),
        },
        Value::Float(value) => Number::Float(value),
        _ => return None,
    })
}

impl Class {
    fn new(group: u32, event: &Event, formats: &Formats) -> Self {
        let integer =
            |name: &str| event.fields().iter().find(|field| field.name == name && is_integer(field));
        let (shape, name) = shape(group, event, formats);
        Self {
            shape,
            name,
            is_of_cpu: matches!(event.system(), "irq" | "irq_vectors" | "ipi"),
            flow: integer("flow").or_else(|| integer("flow_id")).cloned(),
            flow_end: integer("flow_end").cloned(),
            known: formats.len(),
        }
    }
}

fn shape(group: u32, event: &Event, formats: &Formats) -> (Shape, String) {
    let name = || event.name().to_owned();
    match (event.system(), event.name()) {
        ("sched", "sched_switch") => return (Shape::Switch, name()),
        ("sched", "sched_waking" | "sched_wakeup" | "sched_wakeup_new") => return (Shape::Wake, name()),
        ("sched", "sched_process_exit") => return (Shape::Exit, name()),
        ("ftrace", "print") => {
            let text = event.field("buf").filter(|field| field.is_text());
            return (text.map_or(Shape::Instant, |text| Shape::Marker(text.clone())), name());
        }
        _ => {}
    }
    let own = |name: &str| event.fields().iter().find(|field| field.name == name);
    let last = event.name().rsplit(SEPARATORS).next().unwrap_or_default();
    if matches!(last, "counter" | "gauge")
        && let Some(value) = own("value").filter(|field| is_integer(field) || field.kind == Kind::Float)
    {
        let name_field = own("name").filter(|field| field.is_text()).cloned();
        return (Shape::Counter { value: value.clone(), name: name_field }, name());
    }
    for (first, second) in ENDS {
        if let Some((_, stem)) = partner(event, first, second, formats) {
            return (Shape::Begin(Pair::Event(group, event.id())), stem);
        }
        if let Some((other, stem)) = partner(event, second, first, formats) {
            return (Shape::End(Pair::Event(group, other)), stem);
        }
    }
    (Shape::Instant, name())
}

const fn is_integer(field: &Field) -> bool {
    matches!(field.kind, Kind::Int | Kind::Bits { .. })
}

/// The event of the same system whose name has `other` where this one's has `own`; and the name without either.
fn partner(event: &Event, own: &str, other: &str, formats: &Formats) -> Option<(u16, String)> {
    let name = event.name();
    let mut start = 0usize;
    for word in name.split(SEPARATORS) {
        let end = start.saturating_add(word.len());
        if word == own {
            let (before, behind) = (name.get(..start)?, name.get(end..)?);
            if let Some(found) = formats.by_name(Some(event.system()), &format!("{before}{other}{behind}")) {
                let behind = behind.trim_start_matches(SEPARATORS);
                let stem = format!("{before}{behind}");
                return Some((found.id(), stem.trim_end_matches(SEPARATORS).to_owned()));
            }
        }
        // One byte of separator.
        start = end.saturating_add(1);
    }
    None
}
