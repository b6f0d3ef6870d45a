//! Events written as they happen.

use super::Args;
use super::exporter::{Exporter, Totals};
use crate::command::report::{Item, What};
use crate::command::stream::{Live, Sink, follow_into};
use crate::decode::{Decoder, Seen, Source};
use crate::misuse;
use crate::outcome::Outcome;
use crate::provenance::Provenance;
use anyhow::Result;
use ringtap::{Damaged, Lost};
use ringtap_format::text::Sources;

/// Exports until the command ends, a signal asks to stop, or nobody is left to follow.
///
/// # Errors
/// Those of `ringtap stream`, or the output cannot be written to.
pub(super) fn run(args: &Args) -> Result<Outcome> {
    if !args.files.filters.is_empty() {
        misuse!("--filter is for files; choose live events with -e");
    }
    let live = Live {
        kernel: args.kernel,
        attach: args.attach.clone(),
        all: args.all,
        events: args.files.events.clone(),
        buffer_size: args.buffer_size,
        command: args.command.clone(),
    };
    let provenance = Provenance::here();
    let mut writing = Writing { args, provenance, exporter: None, totals: Totals::default() };
    let outcome = follow_into(live, &mut writing)?;
    let Writing { exporter, totals, .. } = writing;
    let mut exporter = exporter.map_or_else(|| args.exporter(None), Ok)?;
    args.end(&mut *exporter, &totals)?;
    Ok(outcome)
}

/// What is being written.
struct Writing<'a> {
    args: &'a Args,
    provenance: Provenance,
    /// Made once all else is set up.
    exporter: Option<Box<dyn Exporter>>,
    totals: Totals,
}

impl Writing<'_> {
    fn item(
        &mut self,
        source: Source,
        sources: Sources<'_>,
        (cpu, time): (u32, u64),
        what: What<'_>,
    ) -> Result<()> {
        let group = match source {
            Source::Kernel => 0,
            Source::Application => 1,
        };
        let item = Item { group, provenance: &self.provenance, sources, cpu, time, what };
        self.totals.add(&item);
        match &mut self.exporter {
            Some(exporter) => exporter.item(&item),
            None => self.exporter.insert(self.args.exporter(None)?).item(&item),
        }
    }
}

impl Sink for Writing<'_> {
    fn begin(&mut self, _: &Decoder, _: u32) -> Result<()> {
        self.exporter = Some(self.args.exporter(None)?);
        Ok(())
    }

    fn record(&mut self, seen: &Seen<'_>, source: Source, decoder: &mut Decoder) -> Result<()> {
        decoder.note(seen.record);
        self.item(source, decoder.sources(), (seen.cpu, seen.ns), What::Record(seen.record))
    }

    fn lost(&mut self, lost: Lost, ns: u64, source: Source, decoder: &Decoder) -> Result<()> {
        self.item(source, decoder.sources(), (lost.cpu, ns), What::Lost(lost.count))
    }

    fn damaged(&mut self, damaged: Damaged, ns: u64, source: Source, decoder: &Decoder) -> Result<()> {
        anstream::eprintln!("ringtap: CPU {}: {}", damaged.cpu, damaged.damage);
        self.item(source, decoder.sources(), (damaged.cpu, ns), What::Lost(None))
    }

    fn show(&mut self, _: bool) -> Result<()> {
        Ok(())
    }
}
