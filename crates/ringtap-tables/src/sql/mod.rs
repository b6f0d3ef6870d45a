//! SQL over traces, by DataFusion.
//!
//! Tables: one for each event, by its name or as `SYSTEM.EVENT`; `events`, with what all records have and their names;
//! `spans`, what began with one event and ended with another ([`crate::Spans`]); `lost`; `undecoded`, the records that no
//! format describes. They are streams: whatever asks for one reads the traces once, from their start ([`Traces`]). Parquet
//! files stay where they are; of them, only the columns and row groups are read that a query needs.
//!
//! Memory: each table that a query names holds at most four batches of [`BATCH_ROWS`] rows or [`BATCH_BYTES`] bytes of
//! records, whatever comes first; sorting, grouping and joining have what the caller gives them, and go on in temporary
//! files where they can; an answer is handed over batch by batch.

mod error;
mod files;
mod traces;

pub use crate::parquet::BatchWriter;
pub use arrow::array::RecordBatch;
pub use arrow::datatypes::{DataType, SchemaRef};
/// How answers become text and JSON.
pub use arrow::{json, util::display, util::pretty};
pub use error::QueryError;
pub use traces::{BATCH_BYTES, BATCH_ROWS, Failure, Step, Traces, What};

use crate::table::{Table, common_fields};
use arrow::array::{ArrayRef, AsArray, StringArray, UInt64Array};
use arrow::datatypes::{Field, Int64Type, Schema};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use error::Kind;
use files::Files;
use futures::StreamExt;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};
use traces::{Of, Scan};

/// What queries begin with, unless with a parenthesis or a comment.
const QUERIES: [&str; 9] =
    ["select", "with", "values", "table", "from", "show", "describe", "desc", "explain"];
/// Most names that an error lists.
const MAX_LISTED: usize = 20;
/// Tables that are there whatever events there are.
const ALWAYS: [&str; 3] = ["events", "lost", "spans"];
/// The schema that they are in, and whatever is named without one.
const OURS: &str = "ringtap";
/// What SQL calls the whole of all tables.
const CATALOG: &str = "traces";

/// Traces and Parquet files that can be asked.
pub struct Database {
    runtime: Arc<Runtime>,
    context: SessionContext,
    traces: Option<Arc<dyn Traces>>,
    /// System and name of the events that the traces describe.
    described: BTreeSet<(String, String)>,
    files: Files,
    memory: usize,
}

/// What a query returns, batch by batch, as it is found.
pub struct Answer {
    runtime: Arc<Runtime>,
    schema: SchemaRef,
    stream: SendableRecordBatchStream,
    memory: usize,
}

impl Answer {
    /// The columns.
    #[must_use]
    pub const fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for Answer {
    type Item = Result<RecordBatch, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.runtime.block_on(self.stream.next())?;
        Some(next.map_err(|error| QueryError::running(&error, self.memory)))
    }
}

impl Database {
    /// Of these traces, and these Parquet files and folders of them. `memory` is what sorting, grouping and joining may
    /// have, in bytes.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn open(traces: Option<Arc<dyn Traces>>, paths: &[&Path], memory: usize) -> Result<Self, QueryError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| QueryError(Kind::Engine(error.to_string())))?;
        let mut config = SessionConfig::new()
            .with_information_schema(true)
            .with_batch_size(BATCH_ROWS)
            // One thread answers, and each table of traces has another that reads them.
            .with_target_partitions(1)
            .with_default_catalog_and_schema(CATALOG, OURS);
        config.options_mut().sql_parser.collect_spans = true;
        // Names are dictionaries in both, so that tables of traces and of files have the same types.
        config.options_mut().execution.parquet.schema_force_view_types = false;
        let pool = Arc::new(FairSpillPool::new(memory));
        let environment = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
        let context = SessionContext::new_with_config_rt(config, environment);
        let files = runtime.block_on(Files::open(&context, paths))?;
        let mut described = BTreeSet::new();
        if let Some(traces) = &traces {
            traces.formats(&mut |formats| {
                let names = formats.iter().map(|event| (event.system().to_owned(), event.name().to_owned()));
                described.extend(names);
            });
        }
        Ok(Self { runtime: Arc::new(runtime), context, traces, described, files, memory })
    }

    /// Answers a query; nothing else than a query, as it changes nothing.
    ///
    /// # Errors
    /// It is no SQL, or asks for a table or column that is not there.
    pub fn ask(&self, sql: &str) -> Result<Answer, QueryError> {
        self.runtime.block_on(self.plan(sql))
    }

    async fn plan(&self, sql: &str) -> Result<Answer, QueryError> {
        let at = |error| QueryError::of_sql(&error, sql);
        let state = self.context.state();
        let dialect = state.config().options().sql_parser.dialect;
        let statement = state.sql_to_statement(sql, &dialect).map_err(at)?;
        let mut named = state.resolve_table_references(&statement).map_err(at)?;
        let is_catalog = |named: &TableReference| named.schema() == Some("information_schema");
        let first: String = sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
        let first = first.to_lowercase();
        if !first.is_empty() && !QUERIES.contains(&first.as_str()) {
            return Err(QueryError(Kind::NoQuery(first.to_uppercase())));
        }
        if matches!(first.as_str(), "show" | "describe" | "desc") || named.iter().any(is_catalog) {
            named.extend(self.all());
        }
        for named in named.iter().filter(|named| !is_catalog(named)) {
            self.register(named).await?;
        }
        let options =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = self.context.sql_with_options(sql, options).await.map_err(at)?;
        self.answer(frame).await
    }

    async fn answer(&self, frame: DataFrame) -> Result<Answer, QueryError> {
        let (runtime, memory) = (Arc::clone(&self.runtime), self.memory);
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let stream = frame.execute_stream().await.map_err(|error| QueryError::running(&error, memory))?;
        Ok(Answer { runtime, schema, stream, memory })
    }

    /// What can be asked for: each table that has rows, how many, and its columns behind those that all tables have.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn list(&self) -> Result<(SchemaRef, RecordBatch), QueryError> {
        let mut rows: Vec<(String, u64, String)> = Vec::new();
        let counts = "SELECT arrow_cast(system, 'Utf8'), arrow_cast(event, 'Utf8'), count(*) \
                      FROM ringtap.events GROUP BY 1, 2 ORDER BY 1, 2";
        let mut all = 0;
        for batch in self.ask(counts)? {
            let batch = batch?;
            let [systems, events] = [0, 1].map(|place| batch.column(place).as_string::<i32>());
            let counts = batch.column(2).as_primitive::<Int64Type>();
            for ((system, event), count) in systems.iter().zip(events).zip(counts.values()) {
                let (system, event) = (system.unwrap_or_default(), event.unwrap_or_default());
                let count = count.cast_unsigned();
                all += count;
                let named = TableReference::partial(system.to_lowercase(), event.to_lowercase());
                rows.push((typed(system, event), count, self.columns(&named)?));
            }
        }
        for name in ALWAYS {
            let named = TableReference::partial(OURS, name);
            let count = match name {
                "events" => all,
                "spans" if !self.have_spans() => continue,
                _ => self.count(&named)?,
            };
            rows.push((name.to_owned(), count, self.columns(&named)?));
        }
        for name in self.files.names().filter(|_| self.described.is_empty()) {
            let named = TableReference::bare(name.to_owned());
            rows.push((name.to_owned(), self.count(&named)?, self.columns(&named)?));
        }
        let text = |of: fn(&(String, u64, String)) -> &str| -> ArrayRef {
            Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
        };
        let counts: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<UInt64Array>());
        let schema = Arc::new(Schema::new(vec![
            Field::new("table", DataType::Utf8, false),
            Field::new("rows", DataType::UInt64, false),
            Field::new("columns", DataType::Utf8, false),
        ]));
        let arrays = vec![text(|row| &row.0), counts, text(|row| &row.2)];
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(QueryError::from)?;
        Ok((schema, batch))
    }

    fn have_spans(&self) -> bool {
        self.traces.is_some() || self.files.have_spans()
    }

    fn count(&self, named: &TableReference) -> Result<u64, QueryError> {
        self.runtime.block_on(async {
            self.register(named).await?;
            Ok(u64::try_from(self.context.table(named.clone()).await?.count().await?).unwrap_or(u64::MAX))
        })
    }

    /// The names and types of a table's columns, without those that all tables have.
    fn columns(&self, named: &TableReference) -> Result<String, QueryError> {
        let common = common_fields();
        self.runtime.block_on(async {
            self.register(named).await?;
            let frame = self.context.table(named.clone()).await?;
            let fields = frame.schema().fields();
            let own = fields.iter().filter(|field| common.iter().all(|common| common.name() != field.name()));
            let own = own.map(|field| format!("{} {}", field.name(), type_name(field.data_type())));
            Ok(own.collect::<Vec<_>>().join(", "))
        })
    }

    /// System and name of all events, of traces and files.
    fn events(&self) -> BTreeSet<(&str, &str)> {
        let described = self.described.iter().map(|(system, name)| (system.as_str(), name.as_str()));
        described.chain(self.files.events()).collect()
    }

    /// Every table that there is.
    fn all(&self) -> Vec<TableReference> {
        let named = |(system, name): (&str, &str)| {
            TableReference::partial(system.to_lowercase(), name.to_lowercase())
        };
        let ours = ALWAYS.iter().filter(|name| **name != "spans" || self.have_spans());
        self.events()
            .into_iter()
            .map(named)
            .chain(ours.map(|name| TableReference::partial(OURS, *name)))
            .collect()
    }

    /// Makes the table that a name means, of all that have a part of it.
    async fn register(&self, named: &TableReference) -> Result<(), QueryError> {
        let schema = named.schema().unwrap_or(OURS);
        let catalog = self.context.catalog(CATALOG);
        if let Some(catalog) = catalog.filter(|catalog| catalog.schema(schema).is_none()) {
            catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new()))?;
        }
        if self.context.table_exist(named.clone())? {
            return Ok(());
        }
        let mut frames = self.of_traces(named)?;
        frames.extend(self.files.frames(&self.context, named).await?);
        if frames.is_empty() && is_ours(named, "spans") {
            return Err(QueryError(Kind::NoSpans));
        }
        if frames.is_empty() && is_ours(named, "lost") {
            let nothing = RecordBatch::new_empty(Arc::clone(Table::of_losses().schema()));
            frames.push(self.context.read_batch(nothing)?);
        }
        let mut frames = frames.into_iter();
        let Some(first) = frames.next() else {
            return Err(QueryError(self.no_table(named)));
        };
        let table = frames.try_fold(first, DataFrame::union_by_name)?;
        self.context.register_table(named.clone(), table.into_view())?;
        Ok(())
    }

    /// The part of a table that traces hold.
    fn of_traces(&self, named: &TableReference) -> Result<Vec<DataFrame>, QueryError> {
        let Some(traces) = &self.traces else { return Ok(Vec::new()) };
        let mut meant: Vec<(Of, SchemaRef)> = Vec::new();
        let mut systems = BTreeSet::new();
        traces.formats(&mut |formats| {
            for event in formats.iter().filter(|event| is_meant(named, event.system(), event.name())) {
                systems.insert(event.system().to_owned());
                let table = Table::of(event);
                let of = Of::Event { system: event.system().to_owned(), name: event.name().to_owned() };
                if meant.iter().all(|(other, schema)| (other, schema) != (&of, table.schema())) {
                    meant.push((of, Arc::clone(table.schema())));
                }
            }
        });
        if systems.len() > 1 && named.schema().is_none() {
            let known = systems.iter().map(|system| format!("{system}.{}", named.table()));
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(QueryError(Kind::Ambiguous { name: named.to_string(), known }));
        }
        if meant.is_empty() {
            let ours = [
                ("events", Of::Names, Table::of_names()),
                ("lost", Of::Lost, Table::of_losses()),
                ("spans", Of::Spans, Table::of_spans()),
                ("undecoded", Of::Undecoded, Table::of_undecoded()),
            ];
            let ours = ours.into_iter().filter(|(name, ..)| is_ours(named, name));
            meant.extend(ours.map(|(_, of, table)| (of, Arc::clone(table.schema()))));
        }
        let frame = |(of, schema): (Of, SchemaRef)| -> Result<DataFrame, QueryError> {
            let scan: Arc<dyn PartitionStream> =
                Arc::new(Scan::new(Arc::clone(traces), of, Arc::clone(&schema)));
            let table: Arc<dyn TableProvider> = Arc::new(StreamingTable::try_new(schema, vec![scan])?);
            Ok(self.context.read_table(table)?)
        };
        meant.into_iter().map(frame).collect()
    }

    /// What there is instead.
    fn no_table(&self, named: &TableReference) -> Kind {
        let qualified = self.events().into_iter().map(|(system, name)| typed(system, name));
        let names: Vec<String> = ALWAYS
            .iter()
            .map(|name| (*name).to_owned())
            .chain(qualified)
            .chain(self.files.names().map(str::to_owned))
            .collect();
        let known = match names.len().saturating_sub(MAX_LISTED) {
            0 => names.join(", "),
            more => format!("{} and {more} more (SHOW TABLES lists them)", names[..MAX_LISTED].join(", ")),
        };
        Kind::NoTable { name: named.to_string(), near: neighbours(named.table(), &names), known }
    }
}

/// A table's name as it is typed.
fn typed(system: &str, name: &str) -> String {
    let part = |part: &str| {
        let is_plain = part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_plain { part.to_owned() } else { format!("\"{}\"", part.replace('"', "\"\"")) }
    };
    format!("{}.{}", part(system), part(name))
}

/// Names that are written nearly as this one.
fn neighbours(name: &str, names: &[String]) -> String {
    let name = name.to_lowercase();
    let distance = |known: &String| {
        let known = known.to_lowercase();
        let short = known.rsplit('.').next().unwrap_or(&known);
        levenshtein(&name, short).min(levenshtein(&name, &known))
    };
    let mut near: Vec<_> = names.iter().map(|known| (distance(known), known)).collect();
    near.retain(|(distance, known)| {
        *distance <= name.len() / 3 || known.to_lowercase().contains(&name) && name.len() > 2
    });
    near.sort();
    let near: Vec<_> = near.iter().take(3).map(|(_, known)| known.as_str()).collect();
    match near.as_slice() {
        [] => String::new(),
        near => format!(" (did you mean {}?)", near.join(" or ")),
    }
}

/// A type as a person calls it.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Dictionary(_, of) => type_name(of),
        DataType::List(of) => format!("{}[]", type_name(of.data_type())),
        DataType::Utf8 => "text".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

/// Whether a query's name means the event.
fn is_meant(named: &TableReference, system: &str, name: &str) -> bool {
    named.table().eq_ignore_ascii_case(name)
        && named.schema().is_none_or(|schema| schema.eq_ignore_ascii_case(system))
}

/// Whether a query's name means our own table.
fn is_ours(named: &TableReference, name: &str) -> bool {
    is_meant(named, OURS, name)
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("traces", &self.traces)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("schema", &self.schema).finish_non_exhaustive()
    }
}
