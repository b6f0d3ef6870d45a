//! Tables that are read from traces while they are asked for.

use crate::rows::{Lost, Row};
use crate::spans::Spans;
use crate::table::{Places, Table};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;
use ringtap_format::{Event, Formats};
use std::error::Error;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::mpsc::Sender;

/// Most rows of a batch.
pub const BATCH_ROWS: usize = 1 << 13;
/// Most bytes of records that become one batch; one record more may be in it.
pub const BATCH_BYTES: usize = 1 << 22;
/// Batches that wait for whoever asked. One more is being made, and one is in its hands.
const WAITING: usize = 2;
/// Records between two looks at whether anybody still waits for the answer.
const RECORDS_A_LOOK: u32 = 1 << 12;

/// Why traces cannot be read.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Traces that can be read again and again, each time from their start: each table of a query reads them once, and
/// several may do so at a time.
pub trait Traces: Debug + Send + Sync {
    /// Hands over what describes the events.
    fn formats(&self, each: &mut dyn FnMut(&Formats));

    /// Hands over all records and losses in the order of time, until `each` has enough.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&self, each: &mut dyn FnMut(&Step<'_>) -> ControlFlow<()>) -> Result<(), Failure>;
}

/// A record, or what stands in its place.
#[derive(Debug)]
pub struct Step<'a> {
    /// The number of its trace.
    pub trace: u32,
    /// The trace's events.
    pub formats: &'a Formats,
    /// What it is.
    pub what: What<'a>,
}

/// What traces hold.
#[derive(Debug)]
pub enum What<'a> {
    /// A record.
    Row(Row<'a>),
    /// A loss.
    Lost(Lost<'a>),
}

/// What a table's rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The records of one event.
    Event {
        system: String,
        name: String,
    },
    /// All records, without their fields.
    Names,
    Lost,
    Spans,
    /// The records that no format describes.
    Undecoded,
}

/// A table of traces.
#[derive(Debug)]
pub(super) struct Scan {
    traces: Arc<dyn Traces>,
    of: Of,
    schema: SchemaRef,
}

impl Scan {
    pub(super) const fn new(traces: Arc<dyn Traces>, of: Of, schema: SchemaRef) -> Self {
        Self { traces, of, schema }
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), WAITING);
        let gathering = Gathering::new(self.of.clone(), Arc::clone(&self.schema), stream.tx());
        let traces = Arc::clone(&self.traces);
        stream.spawn_blocking(move || gathering.run(&*traces));
        stream.build()
    }
}

/// What reads the traces for one table.
#[derive(Debug)]
struct Gathering {
    of: Of,
    schema: SchemaRef,
    /// One for each way in which traces lay out the same event.
    tables: Vec<Table>,
    /// By trace and event; [`UNASKED`] for other events.
    places: Places,
    spans: Spans,
    /// Bytes of records since the last batch.
    bytes: usize,
    records: u32,
    sender: Sender<Result<RecordBatch>>,
}

const UNASKED: usize = 1 << 20;
/// The table of what is not divided by events.
const ONLY: usize = 0;

impl Gathering {
    fn new(of: Of, schema: SchemaRef, sender: Sender<Result<RecordBatch>>) -> Self {
        let tables = match of {
            Of::Event { .. } => Vec::new(),
            Of::Names => vec![Table::of_names()],
            Of::Lost => vec![Table::of_losses()],
            Of::Spans => vec![Table::of_spans()],
            Of::Undecoded => vec![Table::of_undecoded()],
        };
        let (places, spans) = (Places::default(), Spans::default());
        Self { of, schema, tables, places, spans, bytes: 0, records: 0, sender }
    }

    fn run(mut self, traces: &dyn Traces) -> Result<()> {
        traces.read(&mut |step| self.step(step)).map_err(DataFusionError::External)?;
        let places = 0..self.tables.len();
        // Where nobody waits any more, nothing is left to do.
        let _ = places.map(|place| self.flush(place)).find(ControlFlow::is_break);
        Ok(())
    }

    fn step(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        self.records = self.records.wrapping_add(1);
        if self.records.is_multiple_of(RECORDS_A_LOOK) && self.sender.is_closed() {
            return ControlFlow::Break(());
        }
        match &step.what {
            What::Lost(lost) => self.lost(step.trace, lost),
            What::Row(row) => self.row(step, row),
        }
    }

    fn lost(&mut self, trace: u32, lost: &Lost<'_>) -> ControlFlow<()> {
        match self.of {
            Of::Spans => self.spans.lost(trace),
            Of::Lost => {
                self.tables[ONLY].push_lost(lost);
                return self.added(ONLY, 0);
            }
            Of::Event { .. } | Of::Names | Of::Undecoded => {}
        }
        ControlFlow::Continue(())
    }

    fn row(&mut self, step: &Step<'_>, row: &Row<'_>) -> ControlFlow<()> {
        match self.of {
            Of::Event { .. } => {
                let Some(event) = row.event else { return ControlFlow::Continue(()) };
                let place = self.places.get(step.trace, event.id());
                let place = place.unwrap_or_else(|| self.place(step.trace, event));
                let Some(table) = self.tables.get_mut(place) else { return ControlFlow::Continue(()) };
                table.push(row);
                self.added(place, row.record.len())
            }
            Of::Names => {
                self.tables[ONLY].push(row);
                self.added(ONLY, 0)
            }
            Of::Spans => match self.spans.push(step.trace, step.formats, row) {
                Some(span) => {
                    self.tables[ONLY].push_span(&span, row);
                    self.added(ONLY, span.name.len())
                }
                None => ControlFlow::Continue(()),
            },
            Of::Undecoded if row.event.is_none() => {
                self.tables[ONLY].push(row);
                self.added(ONLY, row.record.len())
            }
            Of::Lost | Of::Undecoded => ControlFlow::Continue(()),
        }
    }

    /// The place of the event's table, which is found or made once for each trace.
    fn place(&mut self, trace: u32, event: &Event) -> usize {
        let is_asked = match &self.of {
            Of::Event { system, name } => *system == event.system() && *name == event.name(),
            Of::Names | Of::Lost | Of::Spans | Of::Undecoded => false,
        };
        let table = is_asked.then(|| Table::of(event)).filter(|table| *table.schema() == self.schema);
        let place = table.map_or(UNASKED, |table| {
            let like = self.tables.iter().position(|other| other.is_like(&table));
            like.unwrap_or_else(|| {
                self.tables.push(table);
                self.tables.len() - 1
            })
        });
        self.places.set(trace, event.id(), place);
        place
    }

    fn added(&mut self, place: usize, bytes: usize) -> ControlFlow<()> {
        self.bytes += bytes;
        if self.tables[place].len() >= BATCH_ROWS {
            return self.flush(place);
        }
        if self.bytes >= BATCH_BYTES {
            self.bytes = 0;
            return match (0..self.tables.len()).map(|place| self.flush(place)).find(ControlFlow::is_break) {
                Some(end) => end,
                None => ControlFlow::Continue(()),
            };
        }
        ControlFlow::Continue(())
    }

    /// Hands over what was gathered; breaks off where nobody waits for it.
    fn flush(&mut self, place: usize) -> ControlFlow<()> {
        let table = &mut self.tables[place];
        if table.is_empty() {
            return ControlFlow::Continue(());
        }
        match self.sender.blocking_send(Ok(table.take())) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}
