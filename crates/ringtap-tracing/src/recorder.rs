//! Writes what `tracing` tells as ringtap events: what [`Subscriber`](crate::Subscriber) and [`Layer`](crate::Layer)
//! share.

use crate::callsite::{Callsite, Callsites, Layout, Shape, Shapes, Steps, Tells};
use crate::names::Names;
use crate::record::{Buffer, Key, Plan, Record};
use crate::source::{self, Registering, Source};
use crate::spans::{self, Handles};
use ringtap::Writer;
use ringtap::event::{Common, Declared};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tracing_core::field::Visit;
use tracing_core::span::Attributes;
use tracing_core::subscriber::Interest;
use tracing_core::{Event, LevelFilter, Metadata};

/// What a recorder leaves out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) max_level: LevelFilter,
    pub(crate) every_close: bool,
}

/// One stream of events: a writer, and what is known of the callsites that write to it.
#[derive(Debug)]
pub(crate) struct Recorder {
    writer: Writer,
    source: Source,
    callsites: Callsites,
    pub(crate) handles: Handles,
    /// Tells its spans from those of other recorders on a thread's stack.
    number: u64,
    max_level: LevelFilter,
    /// Whether a span's close is written even where it is the last thing that happened to it.
    every_close: bool,
    /// Records that could not be described: see [`Recorder::unwritten`].
    unwritten: AtomicU64,
}

impl Recorder {
    pub(crate) fn new(writer: Writer, source: Source, options: Options) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        Self {
            writer,
            source,
            callsites: Callsites::new(),
            handles: Handles::new(),
            number: NUMBERS.fetch_add(1, Relaxed),
            max_level: options.max_level,
            every_close: options.every_close,
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
            Some(callsite) if callsite.tell() => Interest::always(),
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
        let number = self.source.next_number()?;
        let steps = |names: &Names| {
            let mut step = |tells| declare(&mut registering, metadata, names, tells, Key::default()).0;
            Steps {
                enter: step(Tells::Enter),
                exit: step(Tells::Exit),
                close: step(Tells::Close),
                follows: step(Tells::Follows),
            }
        };
        let callsite: &Callsite = Box::leak(Box::new(Callsite::new(metadata, number, steps)));
        self.callsites.add(callsite)?;
        Some(callsite)
    }

    /// A shape that was not seen before: from now on it is known.
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
        let (metadata, names) = (callsite.metadata, &callsite.names);
        let (declared, plan) = declare(&mut registering, metadata, names, shapes.tells, key);
        let shape = shapes.add(Shape { key, declared, plan });
        drop(registering);
        if declared.route().is_none() {
            // What was switched off before it was met is not to be asked again.
            tracing_core::callsite::rebuild_interest_cache();
        }
        shape
    }

    #[cold]
    #[inline(never)]
    fn find_shape(
        &self,
        callsite: &'static Callsite,
        shapes: &'static Shapes,
        key: Key,
    ) -> Option<&'static Shape> {
        shapes.find(key).or_else(|| self.learn(callsite, shapes, key))
    }

    #[cold]
    fn count_unwritten(&self) {
        self.unwritten.fetch_add(1, Relaxed);
    }

    /// Writes an event that has fields. The first word of `head` is left for the common fields.
    #[inline(always)]
    fn write<const HEAD: usize>(
        &self,
        callsite: &'static Callsite,
        shapes: &'static Shapes,
        head: [u64; HEAD],
        visit: impl Fn(&mut dyn Visit) + Copy,
    ) {
        let is_lent = Buffer::lend(|buffer| match shapes.first() {
            Some(first) => {
                let mut record = Record::new(buffer, &first.plan, shapes.tail_start());
                record.build(shapes.bound(), visit);
                let shape = if record.is_as_planned() {
                    Some(first)
                } else {
                    self.find_shape(callsite, shapes, record.key())
                };
                self.write_record(shape, &mut record, head);
            }
            None => self.write_first(buffer, callsite, shapes, head, visit),
        });
        if !is_lent {
            self.write_first(&mut Buffer::new(), callsite, shapes, head, visit);
        }
    }

    /// As [`write`](Self::write), of a callsite of whose records nothing is known.
    #[cold]
    #[inline(never)]
    fn write_first<const HEAD: usize>(
        &self,
        buffer: &mut Buffer,
        callsite: &'static Callsite,
        shapes: &'static Shapes,
        head: [u64; HEAD],
        visit: impl Fn(&mut dyn Visit) + Copy,
    ) {
        let mut record = Record::new(buffer, Plan::NONE, shapes.tail_start());
        record.build(shapes.bound(), visit);
        let shape = self.find_shape(callsite, shapes, record.key());
        self.write_record(shape, &mut record, head);
    }

    #[inline(always)]
    fn write_record<const HEAD: usize>(
        &self,
        shape: Option<&'static Shape>,
        record: &mut Record<'_, HEAD>,
        mut head: [u64; HEAD],
    ) {
        let Some(shape) = shape else { return self.count_unwritten() };
        match shape.declared.route() {
            // What the ring refuses is counted there.
            Some(route) => {
                spans::wrote_exit(0);
                head[0] = Common::of_thread(route.id()).word();
                let _ = self.writer.write_to(route, record.finish(head));
            }
            None if shape.declared.id().is_none() => self.count_unwritten(),
            None => {}
        }
    }

    /// Writes a step of a span's life. Returns whether it was written.
    #[inline(always)]
    fn step(&self, event: &'static Declared, span: u64) -> bool {
        let Some(route) = event.route() else { return false };
        let common = Common::of_thread(route.id()).word();
        // What the ring refuses is counted there.
        self.writer.write_array_to(route, &payload(common, span)).is_ok()
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
    #[cold]
    #[inline(never)]
    pub(crate) fn callsite_of(&self, span: u64) -> Option<&'static Callsite> {
        self.callsites.numbered(spans::callsite_of(span))
    }

    /// An event, in this span.
    #[inline(always)]
    pub(crate) fn event(&self, event: &Event<'_>, span: u64) {
        let Some(callsite) = self.callsite(event.metadata()) else { return self.count_unwritten() };
        self.write(callsite, &callsite.shapes, [0, span], move |visitor| event.record(visitor));
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
        spans::made(self.number, span, callsite);
        if callsite.is_bare && self.new_bare_span(callsite, span, parent) {
            return span;
        }
        self.new_span_with_fields(attributes, callsite, span, parent);
        span
    }

    /// Apart, since spans without fields need none of the room that this does.
    #[inline(never)]
    fn new_span_with_fields(
        &self,
        attributes: &Attributes<'_>,
        callsite: &'static Callsite,
        span: u64,
        parent: u64,
    ) {
        self.write(callsite, &callsite.shapes, [0, span, parent], move |visitor| attributes.record(visitor));
    }

    /// A new span of a callsite without fields: nothing is visited, and its record needs no memory. `false` where the
    /// callsite's event is not known yet.
    #[inline(always)]
    fn new_bare_span(&self, callsite: &'static Callsite, span: u64, parent: u64) -> bool {
        let Some(shape) = callsite.shapes.first() else { return false };
        match shape.declared.route() {
            Some(route) => {
                spans::wrote_exit(0);
                let common = Common::of_thread(route.id()).word();
                // What the ring refuses is counted there.
                let _ = self.writer.write_array_to(route, &bare_payload(common, span, parent));
            }
            None if shape.declared.id().is_none() => self.count_unwritten(),
            None => {}
        }
        true
    }

    /// Fields of a span, recorded later.
    pub(crate) fn record(
        &self,
        callsite: &'static Callsite,
        span: u64,
        values: &tracing_core::span::Record<'_>,
    ) {
        self.write(callsite, &callsite.records, [0, span], move |visitor| values.record(visitor));
    }

    pub(crate) fn follows(&self, callsite: &'static Callsite, span: u64, follows: u64) {
        let event = callsite.steps.map(|steps| steps.follows);
        if let Some(route) = event.and_then(Declared::route) {
            spans::wrote_exit(0);
            let words = [Common::of_thread(route.id()).word(), span, follows].map(u64::to_le_bytes);
            let _ = self.writer.write_to(route, words.as_flattened());
        }
    }

    /// `find` finds the span's callsite, here and below, where it is not at hand.
    #[inline(always)]
    pub(crate) fn enter(&self, span: u64, find: impl FnOnce() -> Option<&'static Callsite>) {
        let callsite = spans::enter(self.number, span, find);
        if let Some(steps) = callsite.and_then(|callsite| callsite.steps.as_ref()) {
            spans::wrote_exit(0);
            self.step(steps.enter, span);
        }
    }

    #[inline(always)]
    pub(crate) fn exit(&self, span: u64, find: impl FnOnce() -> Option<&'static Callsite>) {
        let callsite = spans::exit(self.number, span, find);
        if let Some(steps) = callsite.and_then(|callsite| callsite.steps.as_ref()) {
            let is_written = self.step(steps.exit, span);
            spans::wrote_exit(if is_written { span } else { 0 });
        }
    }

    /// A span that was left right before is closed by that, where nothing else is asked for: a record of it would cost
    /// a fifth of what the span does, and tell the same.
    #[inline(always)]
    pub(crate) fn close(&self, span: u64, find: impl FnOnce() -> Option<&'static Callsite>) {
        if spans::has_just_left(span) && !self.every_close {
            return;
        }
        let callsite = spans::last(self.number, span).or_else(find);
        if let Some(steps) = callsite.and_then(|callsite| callsite.steps.as_ref()) {
            spans::wrote_exit(0);
            self.step(steps.close, span);
        }
    }

    /// Has `tracing` ask again where the host switched callsites on or off since it last did.
    pub(crate) fn notice_switches(&self) {
        let news: Vec<_> = self.callsites.iter().filter(|callsite| callsite.is_news()).collect();
        if !news.is_empty() {
            tracing_core::callsite::rebuild_interest_cache();
            // Nobody asks where the recorder is no dispatcher's any more.
            for callsite in news {
                callsite.tell();
            }
        }
    }

    /// Switches the events that a pattern names, those known and those that come. Returns how many are known.
    pub(crate) fn switch(&self, pattern: &str, on: bool) -> usize {
        let Some(registering) = self.source.lock() else { return 0 };
        self.source.note_switch(pattern, on);
        let declared = self.callsites.iter().flat_map(Callsite::declared);
        let named = declared.filter(|event| is_named(pattern, event));
        let count = named.map(|event| event.set_on(on)).count();
        drop(registering);
        // Asks for the interest of all callsites again, which must not come in between.
        tracing_core::callsite::rebuild_interest_cache();
        count
    }
}

/// A record of two words.
#[inline(always)]
fn payload(common: u64, span: u64) -> [u8; 16] {
    (u128::from(span) << 64 | u128::from(common)).to_le_bytes()
}

/// A record of three.
#[inline(always)]
fn bare_payload(common: u64, span: u64, parent: u64) -> [u8; 24] {
    let mut payload = [0; 24];
    payload[..16].copy_from_slice(&(u128::from(span) << 64 | u128::from(common)).to_le_bytes());
    payload[16..].copy_from_slice(&parent.to_le_bytes());
    payload
}

/// Declares an event under the first name that is not another's. Returns where its fixed fields go, too. An event that
/// nobody registers is never on.
fn declare(
    registering: &mut Registering<'_>,
    metadata: &Metadata<'_>,
    names: &Names,
    tells: Tells,
    key: Key,
) -> (&'static Declared, Plan) {
    let layout = Layout::of(metadata, &names.place, tells, key);
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
    for (pattern, on) in registering.source().switched() {
        if is_named(&pattern, event) {
            event.set_on(on);
        }
    }
    (event, layout.plan)
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
