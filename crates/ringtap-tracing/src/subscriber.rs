//! The subscriber of our own: no registry, no lock, no allocation.

use crate::layer::Layer;
use crate::recorder::Recorder;
use crate::spans;
use std::sync::Arc;
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Event, LevelFilter, Metadata};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::registry::Registry;

/// Writes spans and events of `tracing` as ringtap events.
///
/// It keeps no data of spans, which makes it several times faster than any layer on `tracing_subscriber`'s registry. Layers
/// that need no such data, as filters do, can be put on it with `tracing_subscriber`'s `with`; those that do, such as
/// `fmt`, with [`and`](Self::and).
///
/// Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Subscriber {
    recorder: Arc<Recorder>,
}

impl Subscriber {
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder }
    }

    /// Another layer beside ringtap's, both on the registry of `tracing_subscriber`: more can be added using `with`.
    pub fn and<L>(self, layer: L) -> Layered<L, Layered<Layer, Registry>>
    where
        L: tracing_subscriber::Layer<Layered<Layer, Registry>>,
    {
        Registry::default().with(self.into_layer()).with(layer)
    }

    /// The same as a layer for a registry.
    #[must_use]
    pub fn into_layer(self) -> Layer {
        Layer::new(self.recorder)
    }

    /// The span that something is in: its own word, or the thread's.
    #[inline(always)]
    fn parent(&self, parent: Option<&Id>, is_contextual: bool) -> u64 {
        match parent {
            Some(parent) => parent.into_u64(),
            None if is_contextual => self.recorder.current(),
            None => 0,
        }
    }
}

impl tracing_core::Subscriber for Subscriber {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.recorder.interest(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.recorder.is_enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.recorder.max_level())
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let parent = self.parent(attributes.parent(), attributes.is_contextual());
        // A span of a callsite that could not be registered has the number 0, which no callsite has.
        Id::from_u64(self.recorder.new_span(attributes, spans::new_id, parent).max(1))
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let span = span.into_u64();
        if let Some(callsite) = self.recorder.callsite_of(span) {
            self.recorder.record(callsite, span, values);
        }
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        let span = span.into_u64();
        if let Some(callsite) = self.recorder.callsite_of(span) {
            self.recorder.follows(callsite, span, follows.into_u64());
        }
    }

    fn event(&self, event: &Event<'_>) {
        self.recorder.event(event, self.parent(event.parent(), event.is_contextual()));
    }

    fn enter(&self, span: &Id) {
        let span = span.into_u64();
        self.recorder.enter(span, || self.recorder.callsite_of(span));
    }

    fn exit(&self, span: &Id) {
        let span = span.into_u64();
        self.recorder.exit(span, || self.recorder.callsite_of(span));
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.recorder.handles.add(span.into_u64());
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let span = span.into_u64();
        let is_last = self.recorder.handles.remove(span);
        if is_last {
            self.recorder.close(span, || self.recorder.callsite_of(span));
        }
        is_last
    }

    fn current_span(&self) -> Current {
        let span = self.recorder.current();
        match self.recorder.callsite_of(span) {
            Some(callsite) => Current::new(Id::from_u64(span), callsite.metadata),
            None => Current::none(),
        }
    }
}
