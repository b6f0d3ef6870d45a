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
use std::ops::Range;
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
    lines: Vec<u8>,
    damages: Damages,
}

struct Step {
    origin: Origin,
    lane: usize,
    time: u64,
    what: What,
}

enum What {
    /// Its place in the batch's bytes.
    Record(Range<usize>),
    Other(Item<'static>),
}

impl Batch {
    /// Takes steps until it is full; whether there are more.
    fn fill<R: ReadAt>(&mut self, timeline: &mut Timeline<R>) -> bool {
        self.bytes.clear();
        self.steps.clear();
        self.lines.clear();
        while self.bytes.len() < BATCH && self.steps.len() < BATCH {
            let Some(Timed { origin, lane, time, step }) = timeline.next() else { return false };
            let what = match step {
                Item::Record(record) => {
                    let start = self.bytes.len();
                    self.bytes.extend_from_slice(record.bytes);
                    What::Record(start..self.bytes.len())
                }
                Item::Lost(lost) => What::Other(Item::Lost(lost)),
                Item::Damaged { offset, error } => What::Other(Item::Damaged { offset, error }),
                Item::Failed(error) => What::Other(Item::Failed(error)),
            };
            self.steps.push(Step { origin, lane, time, what });
        }
        true
    }

    fn print(&mut self, shared: &Shared) {
        let Self { bytes, steps, lines, damages, .. } = self;
        for Step { origin, lane, time, what } in steps.drain(..) {
            let step = match what {
                What::Record(range) => Item::Record(PageRecord { time, bytes: &bytes[range] }),
                What::Other(item) => item,
            };
            shared.step(&Timed { origin, lane, time, step }, lines, damages);
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
    std::thread::scope(|scope| {
        // Inside, so that whatever ends this closure ends the workers, too.
        let (to_workers, from_workers): (Sender<Batch>, Receiver<Batch>) = (to_workers, from_workers);
        for _ in 0..jobs {
            let (batches, made) = (&from_reader, to_writer.clone());
            scope.spawn(move || work(shared, batches, &made));
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
            more = batch.fill(&mut timeline);
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
fn work(shared: &Shared, batches: &Mutex<Receiver<Batch>>, made: &Sender<Batch>) {
    loop {
        let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut batch) = batch else { return };
        batch.print(shared);
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
