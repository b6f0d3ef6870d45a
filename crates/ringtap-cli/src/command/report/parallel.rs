//! Lines made by several threads: this one reads and merges, others make the lines of batches, and this one writes
//! them in order.
//!
//! ```text
//!   timeline -> batch -> [ worker | worker | ... ] -> lines, put in order -> standard output
//!                 ^------------- empty batches ----------------'
//! ```
//! There is a fixed number of batches, so memory is bounded whoever is slow.

use super::print::{Damages, Shared};
use super::source::Counts;
use crate::output::Output;
use anyhow::Result;
use ringtap_format::page::PageRecord;
use ringtap_format::trace_dat::{Item, Origin, ReadAt, Timed, Timeline};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// Bytes of text gathered before they are written, where one thread does it all.
const CHUNK: usize = 1 << 17;
/// Bytes of records that a worker takes at once.
const BATCH: usize = 1 << 17;
/// Batches for each worker: the one at hand, one that waits for it, and one that waits to be written.
const BATCHES_A_JOB: usize = 3;

/// Prints all; what was damaged.
///
/// # Errors
/// The output cannot be written to.
pub(super) fn print<R: ReadAt>(
    shared: &Shared,
    counts: &Counts,
    timeline: Timeline<R>,
    jobs: usize,
    output: &mut Output,
) -> Result<Damages> {
    let mut lines = Vec::new();
    let damages = shared.header(counts, &mut lines);
    match jobs {
        1 => alone(shared, timeline, lines, damages, output),
        _ => together(shared, timeline, jobs, lines, damages, output),
    }
}

fn alone<R: ReadAt>(
    shared: &Shared,
    mut timeline: Timeline<R>,
    mut lines: Vec<u8>,
    mut damages: Damages,
    output: &mut Output,
) -> Result<Damages> {
    while let Some(timed) = timeline.next() {
        let mut found = Damages::default();
        shared.step(&timed, &mut lines, &mut found);
        damages.add(found);
        if lines.len() >= CHUNK {
            output.write_as_is(&lines)?;
            lines.clear();
        }
    }
    output.write_as_is(&lines)?;
    Ok(damages)
}

/// Steps that were read, and their lines once they are made.
#[derive(Default)]
struct Batch {
    number: u64,
    bytes: Vec<u8>,
    steps: Vec<Step>,
    /// The steps that are no records.
    others: Vec<Item<'static>>,
    lines: Vec<u8>,
    damages: Damages,
}

/// One step, small, since each is written by one CPU and read by another.
struct Step {
    time: u64,
    /// Where a record's bytes end in the batch's; they begin where those of the last record end. Of others,
    /// [`OTHER`].
    end: u32,
    lane: u32,
}

/// No record, but the next of the batch's others.
const OTHER: u32 = u32::MAX;

impl Batch {
    /// Takes steps until it is full; whether there are more.
    fn fill<R: ReadAt>(&mut self, timeline: &mut Timeline<R>) -> Result<bool> {
        self.bytes.clear();
        self.steps.clear();
        self.others.clear();
        self.lines.clear();
        while self.bytes.len() < BATCH && self.steps.len() < BATCH {
            let Some(Timed { lane, time, step, .. }) = timeline.next() else { return Ok(false) };
            let mut end = OTHER;
            match step {
                Item::Record(record) => {
                    self.bytes.extend_from_slice(record.bytes);
                    end = u32::try_from(self.bytes.len())?;
                }
                Item::Lost(lost) => self.others.push(Item::Lost(lost)),
                Item::Damaged { offset, error } => self.others.push(Item::Damaged { offset, error }),
                Item::Failed(error) => self.others.push(Item::Failed(error)),
            }
            self.steps.push(Step { time, end, lane: u32::try_from(lane)? });
        }
        Ok(true)
    }

    fn print(&mut self, shared: &Shared, origins: &[Origin]) {
        let Self { bytes, steps, others, lines, damages, .. } = self;
        let (mut start, mut others) = (0, others.drain(..));
        for Step { time, end, lane } in steps.drain(..) {
            let step = if end == OTHER {
                let Some(other) = others.next() else { return };
                other
            } else {
                let record = &bytes[start..end as usize];
                start = end as usize;
                Item::Record(PageRecord { time, bytes: record })
            };
            let lane = lane as usize;
            shared.step(&Timed { origin: origins[lane], lane, time, step }, lines, damages);
        }
    }
}

fn together<R: ReadAt>(
    shared: &Shared,
    mut timeline: Timeline<R>,
    jobs: usize,
    first_lines: Vec<u8>,
    damages: Damages,
    output: &mut Output,
) -> Result<Damages> {
    let (to_workers, from_reader) = channel();
    let (to_writer, from_workers) = channel();
    let from_reader = Mutex::new(from_reader);
    let origins: Vec<_> = timeline.origins().collect();
    std::thread::scope(|scope| {
        // Inside, so that whatever ends this closure ends the workers, too.
        let (to_workers, from_workers): (Sender<Batch>, Receiver<Batch>) = (to_workers, from_workers);
        for _ in 0..jobs {
            let (batches, made, origins) = (&from_reader, to_writer.clone(), &*origins);
            scope.spawn(move || work(shared, origins, batches, &made));
        }
        drop(to_writer);
        output.write_as_is(&first_lines)?;
        let mut writer = InOrder { next: 0, early: BTreeMap::new(), damages };
        let mut free: Vec<Batch> =
            std::iter::repeat_with(Batch::default).take(jobs * BATCHES_A_JOB).collect();
        let mut number = 0;
        let mut more = true;
        while more {
            let mut batch = match free.pop() {
                Some(batch) => batch,
                // All are under way: what is made next is written, and its batch is empty again.
                None => match from_workers.recv() {
                    Ok(made) => {
                        writer.take(made, &mut free, output)?;
                        continue;
                    }
                    Err(_) => break,
                },
            };
            batch.number = number;
            number += 1;
            more = batch.fill(&mut timeline)?;
            if to_workers.send(batch).is_err() {
                break;
            }
            while let Ok(made) = from_workers.try_recv() {
                writer.take(made, &mut free, output)?;
            }
        }
        drop(to_workers);
        while let Ok(made) = from_workers.recv() {
            writer.take(made, &mut free, output)?;
        }
        Ok(writer.damages)
    })
}

/// Makes lines until no more batches come.
fn work(shared: &Shared, origins: &[Origin], batches: &Mutex<Receiver<Batch>>, made: &Sender<Batch>) {
    loop {
        let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut batch) = batch else { return };
        batch.print(shared, origins);
        if made.send(batch).is_err() {
            return;
        }
    }
}

/// Writes batches by their numbers.
struct InOrder {
    next: u64,
    early: BTreeMap<u64, Batch>,
    damages: Damages,
}

impl InOrder {
    fn take(&mut self, made: Batch, free: &mut Vec<Batch>, output: &mut Output) -> Result<()> {
        self.early.insert(made.number, made);
        while let Some(mut batch) = self.early.remove(&self.next) {
            self.next += 1;
            output.write_as_is(&batch.lines)?;
            self.damages.add(std::mem::take(&mut batch.damages));
            free.push(batch);
        }
        Ok(())
    }
}
