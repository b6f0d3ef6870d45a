//! The layer on `tracing_subscriber`'s registry, for those who have other layers there.

use crate::callsite::Callsite;
use crate::recorder::Recorder;
use crate::spans;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Event, LevelFilter, Metadata, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Writes spans and events of `tracing` as ringtap events, as a layer on a registry.
///
/// The registry costs more than ringtap does: where no other layer needs it, use [`Subscriber`](crate::Subscriber).
/// Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Layer {
    recorder: Arc<Recorder>,
    /// Callsites of spans, so that the registry, which takes locked instructions for each answer, is seldom asked.
    known: Arc<[Known]>,
}

/// A span and its callsite's number. The words are stored one after the other; whoever sees one of each finds that they
/// do not fit.
#[derive(Debug, Default)]
struct Known {
    /// The id, combined by exclusive or with a multiple of the number.
    mixed: AtomicU64,
    number: AtomicU64,
}

const KNOWN: usize = 4096;
/// Spreads numbers over all bits, so that the words of two spans do not fit a third.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Layer {
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder, known: (0..KNOWN).map(|_| Known::default()).collect() }
    }

    fn known(&self, id: u64) -> &Known {
        let hash = id.wrapping_mul(SPREAD) >> 40;
        &self.known[hash as usize % KNOWN]
    }

    /// A span's callsite.
    #[inline(always)]
    fn callsite<S>(&self, id: &Id, context: &Context<'_, S>) -> Option<&'static Callsite>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let known = self.known(id.into_u64());
        let number = known.number.load(Relaxed);
        if known.mixed.load(Relaxed) ^ number.wrapping_mul(SPREAD) == id.into_u64() {
            return self.recorder.numbered(number);
        }
        self.recorder.known_callsite(context.metadata(id)?)
    }

    fn remember(&self, id: u64, number: u16) {
        let (known, number) = (self.known(id), u64::from(number));
        known.number.store(number, Relaxed);
        known.mixed.store(id ^ number.wrapping_mul(SPREAD), Relaxed);
    }

    fn forget(&self, id: u64) {
        let known = self.known(id);
        if known.mixed.load(Relaxed) ^ known.number.load(Relaxed).wrapping_mul(SPREAD) == id {
            known.mixed.store(0, Relaxed);
            known.number.store(0, Relaxed);
        }
    }
}

/// A span's id in the trace: the registry gives the same ones in each process.
#[inline(always)]
fn name(id: &Id) -> u64 {
    id.into_u64() ^ spans::process_mark()
}

impl<S> tracing_subscriber::Layer<S> for Layer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.recorder.interest(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.recorder.is_enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.recorder.max_level())
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let parent = match attributes.parent() {
            Some(parent) => name(parent),
            None if attributes.is_contextual() => self.recorder.current(),
            None => 0,
        };
        let remember = |number| {
            self.remember(id.into_u64(), number);
            name(id)
        };
        self.recorder.new_span(attributes, remember, parent);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(callsite) = self.callsite(id, &context) {
            self.recorder.record(callsite, name(id), values);
        }
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        if let Some(callsite) = self.callsite(id, &context) {
            self.recorder.follows(callsite, name(id), name(follows));
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let span = match event.parent() {
            Some(parent) => name(parent),
            None if event.is_contextual() => self.recorder.current(),
            None => 0,
        };
        self.recorder.event(event, span);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.recorder.enter(name(id), || self.callsite(id, &context));
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.recorder.exit(name(id), || self.callsite(id, &context));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.recorder.close(name(&id), || self.callsite(&id, &context));
        self.forget(id.into_u64());
    }
}
