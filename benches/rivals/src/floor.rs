//! What no subscriber can be cheaper than: what `tracing` itself does for an event or a span, with and without the
//! ring's records.

use ringtap::Writer;
use std::fmt::Debug;
use std::hint::black_box;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Looks at each value, and writes a record of the right size where it has a writer.
#[derive(Debug)]
pub struct Floor {
    writer: Option<Writer>,
}

impl Floor {
    pub fn new(writer: Option<Writer>) -> Self {
        Self { writer }
    }

    #[inline(always)]
    fn write<const N: usize>(&self, payload: &[u8; N]) {
        if let Some(writer) = &self.writer {
            let _ = writer.write_array(payload);
        }
    }
}

#[derive(Default)]
struct Seen(u64);

impl Visit for Seen {
    fn record_u64(&mut self, _: &Field, value: u64) {
        self.0 ^= value;
    }

    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        black_box(value);
    }
}

impl Subscriber for Floor {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut seen = Seen(1);
        attributes.record(&mut seen);
        if attributes.metadata().fields().is_empty() {
            self.write::<24>(&[1; 24]);
        } else {
            self.write::<32>(&[u8::try_from(black_box(seen.0) & 0xff).unwrap_or(0); 32]);
        }
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        self.write::<40>(&[u8::try_from(black_box(seen.0) & 0xff).unwrap_or(0); 40]);
    }

    fn enter(&self, _: &Id) {
        self.write::<16>(&[2; 16]);
    }

    fn exit(&self, _: &Id) {
        self.write::<16>(&[3; 16]);
    }
}
