//! SQL over a trace, by DataFusion.
//!
//! Tables: one for each event, by its name or as `SYSTEM.EVENT`; `events`, with what all events have and their names;
//! `spans`, what began with one event and ended with another ([`ringtap_format::spans`]); `lost`. Only the events that a
//! query names are gathered, so memory grows with those, not with the trace.

use crate::rows::{Clock, Lost, Row};
use crate::table::{COMMON, Table, Words, common_fields, text};
use arrow::array::{
    Int32Builder, RecordBatch, StringBuilder, TimestampNanosecondArray, UInt32Builder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{MemTable, MemorySchemaProvider, SchemaProvider};
use datafusion::execution::context::SessionContext;
use datafusion::prelude::{ParquetReadOptions, SessionConfig};
use datafusion::sql::TableReference;
use datafusion::sql::resolve::resolve_table_references;
use ringtap_format::Event;
use ringtap_format::spans::Spans;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

pub use arrow::array::RecordBatch as Batch;
/// How answers become text, CSV and JSON.
pub use datafusion::arrow::{csv, json, util::pretty};

/// Rows of a batch.
const BATCH_ROWS: usize = 1 << 16;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct QueryError(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    /// DataFusion's words, without what it says of itself before them.
    #[error("{0}")]
    Query(String),
    #[error("there is no table {name}: {known}")]
    NoTable { name: String, known: String },
    #[error("cannot start the engine")]
    Runtime(#[from] std::io::Error),
}

impl From<datafusion::error::DataFusionError> for QueryError {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        Self(Kind::Query(error.strip_backtrace()))
    }
}

/// A query and what it needs of a trace.
#[derive(Debug)]
pub struct Query {
    sql: String,
    clock: Clock,
    /// The tables that it names, in lower case where it does not quote them: schema, if any, and name.
    named: Vec<(Option<String>, String)>,
    tables: Vec<Gathered>,
    /// The place of an event's table, by trace and id; `None` where the query does not ask for it.
    places: HashMap<(u32, u16), Option<usize>>,
    lost: Gathered,
    events: Option<AllEvents>,
    spans: Option<(Spans, SpanTable)>,
    declared: HashSet<(u32, u16)>,
}

#[derive(Debug)]
struct Gathered {
    table: Table,
    batches: Vec<RecordBatch>,
}

impl Gathered {
    fn of(table: Table) -> Self {
        Self { table, batches: Vec::new() }
    }

    fn flush(&mut self) {
        if !self.table.is_empty() {
            self.batches.push(self.table.take());
        }
    }

    fn row(&mut self, row: &Row<'_>) {
        self.table.push(row);
        if self.table.len() >= BATCH_ROWS {
            self.flush();
        }
    }
}

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// It is no SQL.
    pub fn new(sql: &str, clock: Clock) -> Result<Self, QueryError> {
        let context = SessionContext::new();
        let options = context.copied_config().options().sql_parser.clone();
        let statement = context.state().sql_to_statement(sql, &options.dialect)?;
        let (tables, _) = resolve_table_references(&statement, options.enable_ident_normalization)?;
        let named: Vec<_> = tables
            .iter()
            .map(|table| (table.schema().map(str::to_owned), table.table().to_owned()))
            .collect();
        let names = |name: &str| named.iter().any(|(schema, table)| schema.is_none() && table == name);
        Ok(Self {
            events: names("events").then(|| AllEvents::new(clock)),
            spans: names("spans").then(|| (Spans::default(), SpanTable::new(clock))),
            sql: sql.to_owned(),
            clock,
            named,
            tables: Vec::new(),
            places: HashMap::new(),
            lost: Gathered::of(Table::of_losses(clock)),
            declared: HashSet::new(),
        })
    }

    /// Declares the events of a trace: those that the query names have a table, also when none of them occurs.
    pub fn declare<'e>(&mut self, trace: u32, events: impl Iterator<Item = &'e Event> + Clone) {
        if let Some((spans, _)) = &mut self.spans {
            spans.add(events.clone().map(|event| (trace, event)));
        }
        for event in events {
            self.place(trace, event);
        }
    }

    fn asks_for(&self, event: &Event) -> bool {
        let is_named = |(schema, name): &(Option<String>, String)| {
            name.eq_ignore_ascii_case(event.name())
                && schema.as_ref().is_none_or(|schema| schema.eq_ignore_ascii_case(event.system()))
        };
        self.named.iter().any(is_named)
    }

    fn place(&mut self, trace: u32, event: &Event) -> Option<usize> {
        if let Some(place) = self.places.get(&(trace, event.id())) {
            return *place;
        }
        let place = self.asks_for(event).then(|| {
            let table = Table::of(event, self.clock);
            let like = |other: &Gathered| {
                (other.table.system(), other.table.name(), other.table.schema())
                    == (table.system(), table.name(), table.schema())
            };
            match self.tables.iter().position(like) {
                Some(place) => place,
                None => {
                    self.tables.push(Gathered::of(table));
                    self.tables.len() - 1
                }
            }
        });
        self.declared.insert((trace, event.id()));
        self.places.insert((trace, event.id()), place);
        place
    }

    /// Takes a record of the trace with this number.
    pub fn row(&mut self, trace: u32, row: &Row<'_>) {
        if let Some(place) = self.place(trace, row.event) {
            self.tables[place].row(row);
        }
        if let Some(events) = &mut self.events {
            events.push(row);
        }
        if let Some((spans, table)) = &mut self.spans
            && let Some(span) = spans.push(trace, row.event, row.pid(), row.cpu, row.time, row.record)
        {
            table.push(&span, row);
        }
    }

    /// Takes a loss.
    pub fn lost(&mut self, lost: &Lost<'_>) {
        self.lost.table.push_lost(lost);
    }

    /// Answers the query. `files` are Parquet files and folders of them, each a table of its name's first part.
    ///
    /// # Errors
    /// It asks for a table or column that is not there, or cannot be answered.
    pub fn run(mut self, files: &[(String, &Path)]) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Kind::Runtime);
        let runtime = runtime.map_err(QueryError)?;
        let context = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
        let known = self.register(&context)?;
        runtime.block_on(async {
            for (name, path) in files {
                let path = path.to_string_lossy();
                context
                    .register_parquet(
                        TableReference::bare(name.as_str()),
                        &*path,
                        ParquetReadOptions::default(),
                    )
                    .await?;
            }
            self.check_tables(&context, &known).await?;
            let frame = context.sql(&self.sql).await?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            Ok((schema, frame.collect().await?))
        })
    }

    /// An unknown table gets an answer that helps.
    async fn check_tables(&self, context: &SessionContext, known: &str) -> Result<(), QueryError> {
        for (schema, name) in &self.named {
            let reference = match schema {
                Some(schema) => TableReference::partial(schema.as_str(), name.as_str()),
                None => TableReference::bare(name.as_str()),
            };
            if schema.as_deref() != Some("information_schema") && !context.table_exist(reference.clone())? {
                return Err(QueryError(Kind::NoTable {
                    name: reference.to_string(),
                    known: known.to_owned(),
                }));
            }
        }
        Ok(())
    }

    /// Makes tables of what was gathered, and says which there are.
    fn register(&mut self, context: &SessionContext) -> Result<String, QueryError> {
        self.lost.flush();
        self.tables.iter_mut().for_each(Gathered::flush);
        let catalog =
            context.catalog("datafusion").ok_or_else(|| QueryError(Kind::Query("no catalog".to_owned())))?;
        let mut by_name: BTreeMap<String, Vec<&Gathered>> = BTreeMap::new();
        for gathered in &self.tables {
            by_name.entry(gathered.table.name().to_lowercase()).or_default().push(gathered);
            let system = gathered.table.system().to_lowercase();
            let schema = match catalog.schema(&system) {
                Some(schema) => schema,
                None => {
                    let schema: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
                    catalog.register_schema(&system, Arc::clone(&schema))?;
                    schema
                }
            };
            let table = mem_table(gathered.table.schema(), &gathered.batches)?;
            schema.register_table(gathered.table.name().to_lowercase(), Arc::new(table))?;
        }
        for (name, tables) in &by_name {
            // Events of two systems with the same name have no common table, unless their columns are the same.
            if let [first, others @ ..] = tables.as_slice()
                && others.iter().all(|other| other.table.schema() == first.table.schema())
            {
                let batches: Vec<_> = tables.iter().flat_map(|table| table.batches.clone()).collect();
                context.register_table(
                    TableReference::bare(name.as_str()),
                    Arc::new(mem_table(first.table.schema(), &batches)?),
                )?;
            }
        }
        context.register_table("lost", Arc::new(mem_table(self.lost.table.schema(), &self.lost.batches)?))?;
        if let Some(mut events) = self.events.take() {
            events.flush();
            context.register_table("events", Arc::new(mem_table(&events.schema, &events.batches)?))?;
        }
        if let Some((_, mut spans)) = self.spans.take() {
            spans.flush();
            context.register_table("spans", Arc::new(mem_table(&spans.schema, &spans.batches)?))?;
        }
        Ok(match self.declared.len() {
            0 => "there are events, spans and lost, and no event was recorded".to_owned(),
            declared => format!(
                "there are events, spans, lost, and one for each of the {declared} events of the trace (SELECT DISTINCT system, event FROM events)"
            ),
        })
    }
}

fn mem_table(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<MemTable, QueryError> {
    Ok(MemTable::try_new(Arc::clone(schema), vec![batches.to_vec()])?)
}

/// The table `events`.
#[derive(Debug)]
struct AllEvents {
    schema: SchemaRef,
    clock: Clock,
    time: Vec<i64>,
    cpu: UInt32Builder,
    pid: Int32Builder,
    comm: StringBuilder,
    words: [Words; 5],
    batches: Vec<RecordBatch>,
}

impl AllEvents {
    fn new(clock: Clock) -> Self {
        let mut fields = common_fields(clock);
        let dictionary = fields[COMMON - 1].data_type().clone();
        fields.push(Field::new("system", dictionary.clone(), true));
        fields.push(Field::new("event", dictionary, true));
        Self {
            schema: Arc::new(Schema::new(fields)),
            clock,
            time: Vec::new(),
            cpu: UInt32Builder::new(),
            pid: Int32Builder::new(),
            comm: StringBuilder::new(),
            words: Default::default(),
            batches: Vec::new(),
        }
    }

    fn push(&mut self, row: &Row<'_>) {
        self.time.push(self.clock.time(row.time));
        self.cpu.append_value(row.cpu);
        self.pid.append_value(row.pid());
        self.comm.append_value(text(row.comm));
        let origin = row.origin;
        let named = [
            origin.host.as_deref(),
            origin.boot_id.as_deref(),
            origin.instance.as_deref(),
            Some(row.event.system()),
            Some(row.event.name()),
        ];
        self.words.iter_mut().zip(named).for_each(|(words, word)| words.push(word));
        if self.time.len() >= BATCH_ROWS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.time.is_empty() {
            return;
        }
        let time = TimestampNanosecondArray::from(std::mem::take(&mut self.time))
            .with_data_type(self.clock.data_type());
        let mut arrays: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(time),
            Arc::new(self.cpu.finish()),
            Arc::new(self.pid.finish()),
            Arc::new(self.comm.finish()),
        ];
        arrays.extend(self.words.iter_mut().map(Words::take));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays);
        self.batches.push(batch.expect("each column has a value for each row"));
    }
}

/// The table `spans`.
#[derive(Debug)]
struct SpanTable {
    schema: SchemaRef,
    clock: Clock,
    start: Vec<i64>,
    end: Vec<i64>,
    duration: UInt64Builder,
    cpu: UInt32Builder,
    pid: Int32Builder,
    comm: StringBuilder,
    depth: UInt32Builder,
    words: [Words; 3],
    batches: Vec<RecordBatch>,
}

impl SpanTable {
    fn new(clock: Clock) -> Self {
        let mut common = common_fields(clock);
        let host = common.swap_remove(COMMON - 3);
        let named = |name: &str| host.clone().with_name(name);
        let fields = vec![
            Field::new("start", clock.data_type(), false),
            Field::new("end", clock.data_type(), false),
            Field::new("duration_ns", DataType::UInt64, false),
            Field::new("cpu", DataType::UInt32, false),
            Field::new("pid", DataType::Int32, true),
            Field::new("comm", DataType::Utf8, true),
            Field::new("depth", DataType::UInt32, false),
            named("host"),
            named("system"),
            named("name"),
        ];
        Self {
            schema: Arc::new(Schema::new(fields)),
            clock,
            start: Vec::new(),
            end: Vec::new(),
            duration: UInt64Builder::new(),
            cpu: UInt32Builder::new(),
            pid: Int32Builder::new(),
            comm: StringBuilder::new(),
            depth: UInt32Builder::new(),
            words: Default::default(),
            batches: Vec::new(),
        }
    }

    fn push(&mut self, span: &ringtap_format::spans::Span, ended_by: &Row<'_>) {
        self.start.push(self.clock.time(span.start));
        self.end.push(self.clock.time(span.end));
        self.duration.append_value(span.end - span.start);
        self.cpu.append_value(span.cpu);
        self.pid.append_value(span.pid);
        self.comm.append_value(text(ended_by.comm));
        self.depth.append_value(span.depth);
        let named = [ended_by.origin.host.as_deref(), Some(&*span.system), Some(&*span.name)];
        self.words.iter_mut().zip(named).for_each(|(words, word)| words.push(word));
        if self.start.len() >= BATCH_ROWS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.start.is_empty() {
            return;
        }
        let time = |times: &mut Vec<i64>| {
            Arc::new(
                TimestampNanosecondArray::from(std::mem::take(times)).with_data_type(self.clock.data_type()),
            )
        };
        let mut arrays: Vec<arrow::array::ArrayRef> = vec![
            time(&mut self.start),
            time(&mut self.end),
            Arc::new(self.duration.finish()),
            Arc::new(self.cpu.finish()),
            Arc::new(self.pid.finish()),
            Arc::new(self.comm.finish()),
            Arc::new(self.depth.finish()),
        ];
        arrays.extend(self.words.iter_mut().map(Words::take));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays);
        self.batches.push(batch.expect("each column has a value for each row"));
    }
}
