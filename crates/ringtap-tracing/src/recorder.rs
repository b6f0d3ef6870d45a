//! Writes what `tracing` tells as ringtap events: what [`Subscriber`](crate::Subscriber) and [`Layer`](crate::Layer)
//! share.

use crate::callsite::{Callsite, Callsites, Layout, Shape, Shapes, Tells};
use crate::record::{self, Key};
use crate::source::{self, Registering, Source};
use crate::spans::{self, Handles};
use ringtap::Writer;
use ringtap::event::{Common, Declared};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use tracing_core::field::Visit;
use tracing_core::span::Attributes;
use tracing_core::subscriber::Interest;
use tracing_core::{Event, LevelFilter, Metadata};

/// One stream of events: a writer, and what is known of the callsites that write to it.
#[derive(Debug)]
pub(crate) struct Recorder {
    writer: Writer,
    source: Source,
    callsites: Callsites,
    pub(crate) handles: Handles,
    /// Tells its spans from those of other recorders on a thread's stack.
    number: u32,
    max_level: LevelFilter,
    /// Records that could not be described: see [`Recorder::unwritten`].
    unwritten: AtomicU64,
}

impl Recorder {
    pub(crate) fn new(writer: Writer, source: Source, max_level: LevelFilter) -> Self {
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        Self {
            writer,
            source,
            callsites: Callsites::new(),
            handles: Handles::new(),
            number: NUMBERS.fetch_add(1, Relaxed),
            max_level,
            unwritten: AtomicU64::new(0),
        }
    }

    pub(crate) fn max_level(&self) -> LevelFilter {
        self.max_level
    }

    /// Records that were not written since the host knows nothing of their event.
    pub(crate) fn unwritten(&self) -> u64 {
        self.unwritten.load(Relaxed)
    }

    /// What `tracing` is told of a callsite, until its interest is asked for again.
    pub(crate) fn interest(&self, metadata: &'static Metadata<'static>) -> Interest {
        if *metadata.level() > self.max_level {
            return Interest::never();
        }
        match self.callsite(metadata) {
            Some(callsite) if callsite.is_wanted() => Interest::always(),
            Some(_) => Interest::never(),
            // Its turn comes when it is hit.
            None => Interest::sometimes(),
        }
    }

    pub(crate) fn is_enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.max_level
    }

    /// The callsite of this metadata, registered now if it is new. `None` where that cannot be done now.
    #[inline(always)]
    fn callsite(&self, metadata: &'static Metadata<'static>) -> Option<&'static Callsite> {
        self.callsites.find(metadata).or_else(|| self.add_callsite(metadata))
    }

    #[cold]
    #[inline(never)]
    fn add_callsite(&self, metadata: &'static Metadata<'static>) -> Option<&'static Callsite> {
        let mut registering = self.source.lock()?;
        // Another thread may have been faster.
        if let Some(callsite) = self.callsites.find(metadata) {
            return Some(callsite);
        }
        let number = registering.state().callsites.checked_add(1)?;
        let callsite: &Callsite = Box::leak(Box::new(Callsite::new(metadata, number)));
        if let Some(steps) = &callsite.steps {
            let each = [
                (&steps.enter, Tells::Enter),
                (&steps.exit, Tells::Exit),
                (&steps.close, Tells::Close),
                (&steps.follows, Tells::Follows),
            ];
            for (step, tells) in each {
                // Filled here alone.
                let _ = step.set(declare(&mut registering, callsite, tells, Key::default()).0);
            }
        }
        self.callsites.add(callsite)?;
        registering.state().callsites = number;
        Some(callsite)
    }

    /// A shape that was not seen before: from now on it is known.
    #[cold]
    #[inline(never)]
    fn learn(
        &self,
        callsite: &'static Callsite,
        shapes: &'static Shapes,
        key: Key,
    ) -> Option<&'static Shape> {
        let mut registering = self.source.lock()?;
        if let Some(shape) = shapes.find(key) {
            return Some(shape);
        }
        let (declared, fixed_end) = declare(&mut registering, callsite, shapes.tells, key);
        let shape = shapes.add(Shape { key, declared }, fixed_end);
        drop(registering);
        if declared.id_if_on().is_none() {
            // What was switched off before it was met is not to be asked again.
            tracing_core::callsite::rebuild_interest_cache();
        }
        shape
    }

    fn count_unwritten(&self) {
        self.unwritten.fetch_add(1, Relaxed);
    }

    /// Writes an event that has fields.
    #[inline(always)]
    fn write<const HEAD: usize>(
        &self,
        callsite: &'static Callsite,
        shapes: &'static Shapes,
        spans: impl FnOnce(u64) -> [u64; HEAD],
        visit: impl Fn(&mut dyn Visit),
    ) {
        record::build::<HEAD>(shapes.tail_start(), shapes.bound(), visit, |mut record| {
            let key = record.key();
            let Some(shape) = shapes.find(key).or_else(|| self.learn(callsite, shapes, key)) else {
                return self.count_unwritten();
            };
            match shape.declared.id_if_on() {
                // What the ring refuses is counted there.
                Some(id) => {
                    let _ = self.writer.write(record.finish(spans(Common::of_thread(id).word())));
                }
                None if shape.declared.id().is_none() => self.count_unwritten(),
                None => {}
            }
        });
    }

    /// Writes a step of a span's life.
    #[inline(always)]
    fn step(&self, event: &OnceLock<&'static Declared>, span: u64) {
        if let Some(id) = event.get().and_then(|event| event.id_if_on()) {
            let mut payload = [0; 16];
            payload[..8].copy_from_slice(&Common::of_thread(id).word().to_le_bytes());
            payload[8..].copy_from_slice(&span.to_le_bytes());
            // What the ring refuses is counted there.
            let _ = self.writer.write_array(&payload);
        }
    }

    /// The thread's current span; 0 for none.
    #[inline(always)]
    pub(crate) fn current(&self) -> u64 {
        spans::current(self.number)
    }

    /// A callsite by its number.
    pub(crate) fn numbered(&self, number: u64) -> Option<&'static Callsite> {
        self.callsites.numbered(u16::try_from(number).ok()?)
    }

    /// A callsite that is registered already.
    pub(crate) fn known_callsite(&self, metadata: &'static Metadata<'static>) -> Option<&'static Callsite> {
        self.callsites.find(metadata)
    }

    /// The callsite that this recorder gave a span's id from.
    pub(crate) fn callsite_of(&self, span: u64) -> Option<&'static Callsite> {
        self.callsites.numbered(spans::callsite_of(span))
    }

    /// An event, in this span.
    #[inline(always)]
    pub(crate) fn event(&self, event: &Event<'_>, span: u64) {
        let Some(callsite) = self.callsite(event.metadata()) else { return self.count_unwritten() };
        self.write(callsite, &callsite.shapes, |common| [common, span], |visitor| event.record(visitor));
    }

    /// A new span in this parent; `name` names it.
    #[inline(always)]
    pub(crate) fn new_span(
        &self,
        attributes: &Attributes<'_>,
        name: impl FnOnce(u16) -> u64,
        parent: u64,
    ) -> u64 {
        let Some(callsite) = self.callsite(attributes.metadata()) else {
            self.count_unwritten();
            return name(0);
        };
        let span = name(callsite.number);
        let head = |common| [common, span, parent];
        self.write(callsite, &callsite.shapes, head, |visitor| attributes.record(visitor));
        span
    }

    /// Fields of a span, recorded later.
    pub(crate) fn record(
        &self,
        callsite: &'static Callsite,
        span: u64,
        values: &tracing_core::span::Record<'_>,
    ) {
        self.write(callsite, &callsite.records, |common| [common, span], |visitor| values.record(visitor));
    }

    pub(crate) fn follows(&self, callsite: &'static Callsite, span: u64, follows: u64) {
        let event = callsite.steps.as_ref().and_then(|steps| steps.follows.get());
        if let Some(id) = event.and_then(|event| event.id_if_on()) {
            let words = [Common::of_thread(id).word(), span, follows].map(u64::to_le_bytes);
            let _ = self.writer.write(words.as_flattened());
        }
    }

    #[inline(always)]
    pub(crate) fn enter(&self, callsite: Option<&'static Callsite>, span: u64) {
        spans::enter(self.number, span);
        if let Some(steps) = callsite.and_then(|callsite| callsite.steps.as_ref()) {
            self.step(&steps.enter, span);
        }
    }

    #[inline(always)]
    pub(crate) fn exit(&self, callsite: Option<&'static Callsite>, span: u64) {
        spans::exit(self.number, span);
        if let Some(steps) = callsite.and_then(|callsite| callsite.steps.as_ref()) {
            self.step(&steps.exit, span);
        }
    }

    #[inline(always)]
    pub(crate) fn close(&self, callsite: Option<&'static Callsite>, span: u64) {
        if let Some(steps) = callsite.and_then(|callsite| callsite.steps.as_ref()) {
            self.step(&steps.close, span);
        }
    }

    /// Switches the events that a pattern names, those known and those that come. Returns how many are known.
    pub(crate) fn switch(&self, pattern: &str, on: bool) -> usize {
        let Some(mut registering) = self.source.lock() else { return 0 };
        registering.state().switched.push((pattern.to_owned(), on));
        let declared = self.callsites.iter().flat_map(Callsite::declared);
        let named = declared.filter(|event| is_named(pattern, event));
        let count = named.map(|event| event.set_on(on)).count();
        drop(registering);
        // Asks for the interest of all callsites again, which must not come in between.
        tracing_core::callsite::rebuild_interest_cache();
        count
    }
}

/// Declares an event under the first name that is not another's. Returns where its fixed fields end, too. An event that
/// nobody registers is never on.
fn declare(
    registering: &mut Registering<'_>,
    callsite: &Callsite,
    tells: Tells,
    key: Key,
) -> (&'static Declared, usize) {
    let names = &callsite.names;
    let layout = Layout::of(callsite.metadata, &names.place, tells, key);
    let mut declared = None;
    for name in names.candidates(tells.suffix()) {
        let event = layout.declare(&names.system, &name);
        declared = Some(event);
        match registering.register(event) {
            Some(Err(error)) if source::is_taken(&error) => {}
            _ => break,
        }
    }
    let event = declared.expect("there is a name at least");
    for (pattern, on) in &registering.state().switched {
        if is_named(pattern, event) {
            event.set_on(*on);
        }
    }
    (event, layout.fixed_end)
}

/// Whether a pattern `SYSTEM:NAME` with stars, or one of those alone, names an event.
fn is_named(pattern: &str, event: &Declared) -> bool {
    match pattern.split_once(':') {
        Some((system, name)) => is_match(system, event.system()) && is_match(name, event.name()),
        None => is_match(pattern, event.system()) || is_match(pattern, event.name()),
    }
}

/// Whether a text is what a pattern with stars says; an empty pattern says all.
fn is_match(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern.is_empty() || pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_match;

    #[test]
    fn patterns_have_stars() {
        for (pattern, text) in [
            ("", "a"),
            ("*", ""),
            ("*", "ab"),
            ("a*", "ab"),
            ("*b", "ab"),
            ("a*c*e", "abcde"),
            ("a", "a"),
            ("a*a", "aa"),
        ] {
            assert!(is_match(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "ab"), ("*b*b", "ab"), ("a*a", "a"), ("b*", "ab")] {
            assert!(!is_match(pattern, text), "{pattern} {text}");
        }
    }
}
