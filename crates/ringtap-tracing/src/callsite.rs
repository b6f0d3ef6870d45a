//! What is known of a callsite: the ringtap events that its spans or events are written as.
//!
//! `tracing` says which fields a callsite has, but not of which types, and not each record has all of them: a generic
//! function's callsite sees several types, an `Option` may be `None`. So a callsite has *shapes*: each combination of
//! fields and types that was seen is a ringtap event of its own, nearly always exactly one.

use crate::names::{self, Names};
use crate::record::{Key, MAX_FIELDS, Plan, Stored};
use ringtap::event::{Arg, Count, Declared, Field, Kind, Print, Shown, Value};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use tracing_core::Metadata;

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    /// An event.
    Event,
    /// A span was made.
    New,
    /// A span's fields were recorded later.
    Record,
    /// A span was entered, left, closed; that it follows from another.
    Enter,
    Exit,
    Close,
    Follows,
}

impl Tells {
    /// What the ringtap event's name ends in.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::Event | Self::New => "",
            Self::Record => "_record",
            Self::Enter => "_enter",
            Self::Exit => "_exit",
            Self::Close => "_close",
            Self::Follows => "_follows",
        }
    }

    /// The fields before the callsite's own, each a span's id.
    const fn head(self) -> &'static [&'static str] {
        match self {
            Self::New => &["span", "parent"],
            Self::Follows => &["span", "follows"],
            _ => &["span"],
        }
    }

    /// Words before the callsite's own fields, with the common ones.
    pub(crate) const fn head_words(self) -> usize {
        1 + self.head().len()
    }
}

/// A callsite, registered.
#[derive(Debug)]
pub(crate) struct Callsite {
    pub(crate) metadata: &'static Metadata<'static>,
    /// From 1 on.
    pub(crate) number: u16,
    /// Whether it has no fields.
    pub(crate) is_bare: bool,
    pub(crate) names: Names,
    /// Its events, or its spans when they are made.
    pub(crate) shapes: Shapes,
    /// A span's fields, recorded later.
    pub(crate) records: Shapes,
    /// What else is written of a span; `None` for an event.
    pub(crate) steps: Option<Steps>,
    /// Whether `tracing` was told that it is wanted.
    told: AtomicBool,
}

/// The ringtap events of a span's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    pub(crate) enter: &'static Declared,
    pub(crate) exit: &'static Declared,
    pub(crate) close: &'static Declared,
    pub(crate) follows: &'static Declared,
}

impl Callsite {
    /// `steps` declares what is written of a span's life.
    pub(crate) fn new(
        metadata: &'static Metadata<'static>,
        number: u16,
        steps: impl FnOnce(&Names) -> Steps,
    ) -> Self {
        let names = Names::of(metadata);
        let tells = if metadata.is_span() { Tells::New } else { Tells::Event };
        let shapes = |tells| Shapes::new(tells, metadata.fields().len());
        Self {
            metadata,
            number,
            is_bare: metadata.fields().is_empty(),
            shapes: shapes(tells),
            records: shapes(Tells::Record),
            steps: metadata.is_span().then(|| steps(&names)),
            names,
            told: AtomicBool::new(true),
        }
    }

    /// Whether some of its events are on, or nothing is known of it yet.
    pub(crate) fn is_wanted(&self) -> bool {
        let mut declared = self.declared().peekable();
        self.shapes.is_empty() || declared.peek().is_none() || declared.any(|event| event.route().is_some())
    }

    /// As [`is_wanted`](Self::is_wanted), to be told to `tracing`.
    pub(crate) fn tell(&self) -> bool {
        let wanted = self.is_wanted();
        self.told.store(wanted, Relaxed);
        wanted
    }

    /// Whether `tracing` was told otherwise.
    pub(crate) fn is_news(&self) -> bool {
        self.told.load(Relaxed) != self.is_wanted()
    }

    /// All of its ringtap events.
    pub(crate) fn declared(&self) -> impl Iterator<Item = &'static Declared> {
        let steps = self.steps.iter().flat_map(|steps| [steps.enter, steps.exit, steps.close, steps.follows]);
        self.shapes.iter().chain(self.records.iter()).map(|shape| shape.declared).chain(steps)
    }
}

/// A combination of fields and types.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) key: Key,
    pub(crate) declared: &'static Declared,
    /// Where its fields go.
    pub(crate) plan: Plan,
}

/// The shapes of a callsite's records, in the order in which they were seen.
#[derive(Debug)]
pub(crate) struct Shapes {
    pub(crate) tells: Tells,
    first: OnceLock<Shape>,
    /// Filled from the front.
    more: OnceLock<Box<[OnceLock<Shape>]>>,
    /// Where texts start in a record: behind the fixed fields of any shape seen, at `bound` as long as there is none.
    tail_start: AtomicUsize,
    /// Where they start at the latest.
    bound: usize,
}

/// Shapes of one callsite. Twelve fields that are absent independently of each other have more; records of those behind
/// are not written, and counted.
const MAX_SHAPES: usize = 256;

impl Shapes {
    fn new(tells: Tells, fields: usize) -> Self {
        let bound = 8 * (tells.head_words() + fields.min(MAX_FIELDS));
        Self { tells, first: OnceLock::new(), more: OnceLock::new(), tail_start: bound.into(), bound }
    }

    fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }

    /// The shape that nearly all records have.
    #[inline(always)]
    pub(crate) fn first(&self) -> Option<&Shape> {
        self.first.get()
    }

    pub(crate) fn find(&self, key: Key) -> Option<&Shape> {
        self.iter().find(|shape| shape.key.is(key))
    }

    fn iter(&self) -> impl Iterator<Item = &Shape> {
        let more = self.more.get().into_iter().flatten();
        self.first.get().into_iter().chain(more.map_while(OnceLock::get))
    }

    /// Adds a shape; one thread at a time does. `None` where there are too many.
    pub(crate) fn add(&self, shape: Shape) -> Option<&Shape> {
        let (key, tail_start) = (shape.key, shape.plan.end.next_multiple_of(8));
        if self.first.get().is_none() {
            self.first.set(shape).ok()?;
            // Relaxed, here and below: a record that starts its texts earlier or later is right, too.
            self.tail_start.store(tail_start, Relaxed);
        } else {
            let more = self.more.get_or_init(|| (2..=MAX_SHAPES).map(|_| OnceLock::new()).collect());
            more.iter().find(|place| place.get().is_none())?.set(shape).ok()?;
        }
        self.tail_start.fetch_max(tail_start, Relaxed);
        self.find(key)
    }

    #[inline(always)]
    pub(crate) fn tail_start(&self) -> usize {
        self.tail_start.load(Relaxed)
    }

    pub(crate) fn bound(&self) -> usize {
        self.bound
    }
}

/// The description of a record's layout: its fields, how they are printed, and where the fixed ones go. It lives as
/// long as the process, since decoders may ask for it at any time; there is one for each shape.
pub(crate) struct Layout {
    fields: &'static [Field],
    print: Print,
    pub(crate) plan: Plan,
}

impl Layout {
    pub(crate) fn of(metadata: &Metadata<'_>, place: &str, tells: Tells, key: Key) -> Self {
        let mut layout = Builder::new(tells);
        let mut message = None;
        for field in metadata.fields().iter().take(MAX_FIELDS) {
            if let Some(stored) = key.get(field.index()) {
                let name = layout.add(&field, stored);
                if field.name() == "message" && stored == Stored::Text {
                    message = Some(name);
                }
            }
        }
        layout.finish(metadata, place, tells, message)
    }

    /// An event with this layout, not registered so far.
    pub(crate) fn declare(&self, system: &str, name: &str) -> &'static Declared {
        let event = Declared::new(keep(system), keep(name), self.fields, Some(self.print));
        Box::leak(Box::new(event))
    }
}

fn keep(text: &str) -> &'static str {
    Box::leak(Box::from(text))
}

struct Builder {
    fields: Vec<Field>,
    /// Of the fields that the callsite has, not the head.
    plan: Plan,
    conversions: Vec<&'static str>,
    taken: Vec<&'static str>,
    head_len: usize,
}

impl Builder {
    fn new(tells: Tells) -> Self {
        let head = tells.head();
        let mut builder = Self {
            fields: Vec::new(),
            plan: Plan::new(8 * tells.head_words()),
            conversions: Vec::new(),
            taken: Vec::new(),
            head_len: head.len(),
        };
        for (name, word) in head.iter().zip(1..) {
            builder.push((*name).to_owned(), <u64 as Value>::KIND, 8 * word, "0x%llx");
        }
        builder
    }

    fn add(&mut self, field: &tracing_core::Field, stored: Stored) -> &'static str {
        let bytes = Kind::number("u8", 1, false, Shown::Decimal).many(Count::Dynamic);
        let (kind, conversion) = match stored {
            Stored::U64 => (<u64 as Value>::KIND, "%llu"),
            Stored::I64 => (<i64 as Value>::KIND, "%lld"),
            Stored::F64 => (<f64 as Value>::KIND, "0x%016llx"),
            Stored::Bool => (<bool as Value>::KIND, "%u"),
            Stored::Text => (<&str as Value>::KIND, "%s"),
            Stored::Bytes => (bytes, "%s"),
        };
        let offset = self.plan.push(field.index(), stored);
        self.push(names::field(field.name(), &self.taken), kind, offset, conversion)
    }

    fn push(&mut self, name: String, kind: Kind, offset: usize, conversion: &'static str) -> &'static str {
        let name = keep(&name);
        self.fields.push(Field { name, kind, offset });
        self.conversions.push(conversion);
        self.taken.push(name);
        name
    }

    /// Prints the level, the message, the fields with their names, and the place in the source.
    fn finish(
        self,
        metadata: &Metadata<'_>,
        place: &str,
        tells: Tells,
        message: Option<&'static str>,
    ) -> Layout {
        let mut format = names::level(metadata.level()).to_owned();
        let mut args = Vec::new();
        if let Some(message) = message {
            format.push_str(" %s");
            args.push(Arg::Field(message));
        }
        // The span that an event happened in comes last; a span's own comes first.
        let head = if tells == Tells::Event { self.head_len } else { 0 };
        let fields = self.fields.iter().zip(&self.conversions);
        for (field, conversion) in fields.clone().skip(head).chain(fields.take(head)) {
            if Some(field.name) != message {
                format.push_str(&format!(" {}={conversion}", field.name));
                args.push(Arg::Field(field.name));
            }
        }
        if !place.is_empty() {
            format.push_str(&format!(" ({})", place.replace('%', "%%")));
        }
        Layout {
            fields: Box::leak(self.fields.into()),
            print: Print { format: keep(&format), args: Box::leak(args.into()) },
            plan: self.plan,
        }
    }
}

/// A lock-free table from metadata to callsites, and from their numbers.
#[derive(Debug)]
pub(crate) struct Callsites {
    /// Nearly all callsites are here, where their hash says.
    first: Box<[Entry; FIRST_LEVEL]>,
    /// Each level is four times as large as the one before; a callsite is in the first that had room near its hash.
    more: [OnceLock<Box<[Entry]>>; LEVELS - 1],
    /// By number, in blocks of 256.
    numbered: Box<[OnceLock<Block>]>,
}

const LEVELS: usize = 6;
const FIRST_LEVEL: usize = 1024;
/// Entries that are looked at in a level.
const WINDOW: usize = 8;
const BLOCK: usize = 256;

/// Callsites with numbers in a row.
type Block = Box<[OnceLock<&'static Callsite>]>;

#[derive(Debug, Default)]
struct Entry {
    /// The metadata's address; 0 while the entry is free.
    address: AtomicUsize,
    callsite: OnceLock<&'static Callsite>,
}

impl Callsites {
    pub(crate) fn new() -> Self {
        let blocks = (0..=usize::from(u16::MAX) / BLOCK).map(|_| OnceLock::new());
        let first: Box<[Entry]> = (0..FIRST_LEVEL).map(|_| Entry::default()).collect();
        let first = first.try_into().expect("it has that many");
        Self { first, more: Default::default(), numbered: blocks.collect() }
    }

    #[inline(always)]
    pub(crate) fn find(&self, metadata: &'static Metadata<'static>) -> Option<&'static Callsite> {
        let address = address(metadata);
        let entry = &self.first[place(address, 0, FIRST_LEVEL)];
        // Acquire: pairs with the Release of `add`.
        if entry.address.load(Acquire) == address {
            return entry.callsite.get().copied();
        }
        self.find_elsewhere(address)
    }

    #[cold]
    #[inline(never)]
    fn find_elsewhere(&self, address: usize) -> Option<&'static Callsite> {
        let more = self.more.iter().map_while(OnceLock::get);
        for entries in std::iter::once(&self.first[..]).chain(more.map(|entries| &**entries)) {
            for step in 0..WINDOW {
                let entry = &entries[place(address, step, entries.len())];
                match entry.address.load(Acquire) {
                    found if found == address => return entry.callsite.get().copied(),
                    0 => return None,
                    _ => {}
                }
            }
        }
        None
    }

    /// A level, made now if it is new.
    fn level(&self, level: usize) -> &[Entry] {
        let Some(beyond) = level.checked_sub(1) else { return &*self.first };
        let len = FIRST_LEVEL << (2 * level);
        self.more[beyond].get_or_init(|| (0..len).map(|_| Entry::default()).collect())
    }

    pub(crate) fn numbered(&self, number: u16) -> Option<&'static Callsite> {
        let number = usize::from(number);
        self.numbered[number / BLOCK].get()?[number % BLOCK].get().copied()
    }

    /// Adds a callsite; one thread at a time does. `None` where there is no room.
    pub(crate) fn add(&self, callsite: &'static Callsite) -> Option<()> {
        let address = address(callsite.metadata);
        let block = self.numbered[usize::from(callsite.number) / BLOCK]
            .get_or_init(|| (0..BLOCK).map(|_| OnceLock::new()).collect());
        block[usize::from(callsite.number) % BLOCK].set(callsite).ok()?;
        for level in 0..LEVELS {
            let entries = self.level(level);
            let mut window = (0..WINDOW).map(|step| &entries[place(address, step, entries.len())]);
            if let Some(entry) = window.find(|entry| entry.address.load(Relaxed) == 0) {
                entry.callsite.set(callsite).ok()?;
                // Release: pairs with the Acquire of `find`. The callsite is there when its address is.
                entry.address.store(address, Release);
                return Some(());
            }
        }
        None
    }

    /// All callsites, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static Callsite> {
        let blocks = self.numbered.iter().map_while(OnceLock::get);
        blocks.flat_map(|block| block.iter().filter_map(|place| place.get().copied()))
    }
}

fn address(metadata: &'static Metadata<'static>) -> usize {
    std::ptr::from_ref(metadata).addr()
}

#[inline(always)]
fn place(address: usize, step: usize, len: usize) -> usize {
    // Fibonacci hashing; statics are aligned, so the low bits say nothing.
    let hash = (address >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((hash >> 40) + step) & (len - 1)
}
