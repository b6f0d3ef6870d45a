//! SQL over traces, by DataFusion.
//!
//! Tables: one for each event, by its name or as `SYSTEM.EVENT`; `events`, with what all events have and their names;
//! `spans`, what began with one event and ended with another ([`crate::Spans`]); `lost`. Of records, only those are gathered
//! whose tables a query names, so memory grows with those, not with the trace. Parquet files stay where they are.

mod files;

use crate::rows::{Lost, Row};
use crate::spans::Spans;
use crate::table::{Places, Table};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::TableReference;
use datafusion::sql::resolve::resolve_table_references;
use files::Files;
use ringtap_format::{Event, Formats};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

pub use crate::parquet::write_batches;
/// How answers become text, CSV and JSON.
pub use arrow::{csv, json, util::pretty};

/// Rows of a batch.
const BATCH_ROWS: usize = 1 << 16;
/// Most names that an error lists.
const MAX_LISTED: usize = 40;
/// Tables that are there whatever events there are.
const ALWAYS: [&str; 3] = ["events", "lost", "spans"];
/// The schema that they are in.
const OURS: &str = "ringtap";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct QueryError(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("{0}")]
    Engine(String),
    #[error("there is no table {name}; there are {known}")]
    NoTable { name: String, known: String },
    #[error("{name} may be one of {known}; name it with its system")]
    Ambiguous { name: String, known: String },
    #[error("these Parquet files hold no spans; export them with --spans")]
    NoSpans,
    #[error("cannot read {path}")]
    Io { path: String, source: std::io::Error },
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        Self(Kind::Engine(error.strip_backtrace()))
    }
}

/// What a query returned.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

/// A query and what it needs of a trace.
#[derive(Debug)]
pub struct Query {
    sql: String,
    /// The tables that it names, in lower case where it does not quote them.
    named: Vec<TableReference>,
    /// It asks which tables there are.
    shows: bool,
    tables: Vec<Gathered>,
    /// By trace and event; [`UNASKED`] where the query does not ask for it.
    places: Places,
    lost: Gathered,
    events: Option<Gathered>,
    spans: Option<(Spans, Gathered)>,
    /// System and name of what occurs.
    occurring: BTreeSet<(String, String)>,
    /// There were records, or could have been.
    has_trace: bool,
}

const UNASKED: usize = 1 << 20;

#[derive(Debug)]
struct Gathered {
    table: Table,
    batches: Vec<RecordBatch>,
}

impl Gathered {
    const fn of(table: Table) -> Self {
        Self { table, batches: Vec::new() }
    }

    fn flush(&mut self) {
        if !self.table.is_empty() {
            self.batches.push(self.table.take());
        }
    }

    fn added(&mut self) {
        if self.table.len() >= BATCH_ROWS {
            self.flush();
        }
    }

    fn provider(&mut self) -> Result<Arc<dyn TableProvider>, QueryError> {
        self.flush();
        Ok(Arc::new(MemTable::try_new(Arc::clone(self.table.schema()), vec![self.batches.clone()])?))
    }
}

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// It is no SQL.
    pub fn new(sql: &str) -> Result<Self, QueryError> {
        let context = SessionContext::new();
        let options = context.copied_config().options().sql_parser.clone();
        let statement = context.state().sql_to_statement(sql, &options.dialect)?;
        let (named, _) = resolve_table_references(&statement, options.enable_ident_normalization)?;
        let first = sql.split_whitespace().next().unwrap_or_default().to_lowercase();
        let is_catalog = |named: &TableReference| named.schema() == Some("information_schema");
        let shows = matches!(first.as_str(), "show" | "describe" | "desc") || named.iter().any(is_catalog);
        let asks = |name: &str| named.iter().any(|named| is_ours(named, name));
        Ok(Self {
            events: asks("events").then(|| Gathered::of(Table::of_names())),
            spans: asks("spans").then(|| (Spans::default(), Gathered::of(Table::of_spans()))),
            lost: Gathered::of(Table::of_losses()),
            sql: sql.to_owned(),
            named: named.into_iter().filter(|named| !is_catalog(named)).collect(),
            shows,
            tables: Vec::new(),
            places: Places::default(),
            occurring: BTreeSet::new(),
            has_trace: false,
        })
    }

    /// Declares a trace: those of its events that the query names have a table, also where none of them occurs.
    pub fn declare(&mut self, trace: u32, formats: &Formats) {
        self.has_trace = true;
        for event in formats.iter().filter(|event| self.asks_for(event)).collect::<Vec<_>>() {
            self.place(trace, event);
        }
    }

    fn asks_for(&self, event: &Event) -> bool {
        self.named.iter().any(|named| is_meant(named, event.system(), event.name()))
    }

    fn place(&mut self, trace: u32, event: &Event) -> usize {
        if let Some(place) = self.places.get(trace, event.id()) {
            return place;
        }
        let place = match self.asks_for(event) || self.shows {
            false => UNASKED,
            true => {
                let table = Table::of(event);
                let like = self.tables.iter().position(|other| other.table.is_like(&table));
                like.unwrap_or_else(|| {
                    self.tables.push(Gathered::of(table));
                    self.tables.len() - 1
                })
            }
        };
        self.places.set(trace, event.id(), place);
        place
    }

    /// Takes a record of the trace with this number, whose events these are; in the order of time.
    pub fn row(&mut self, trace: u32, formats: &Formats, row: &Row<'_>) {
        if let Some(event) = row.event {
            let is_new = self.places.get(trace, event.id()).is_none();
            let place = self.place(trace, event);
            if is_new || place < UNASKED {
                self.note(event);
            }
            if let Some(gathered) = self.tables.get_mut(place).filter(|_| !self.shows) {
                gathered.table.push(row);
                gathered.added();
            }
        }
        if let Some(events) = &mut self.events {
            events.table.push(row);
            events.added();
        }
        if let Some((spans, gathered)) = &mut self.spans
            && let Some(span) = spans.push(trace, formats, row)
        {
            gathered.table.push_span(&span, row);
            gathered.added();
        }
    }

    fn note(&mut self, event: &Event) {
        let is_known = |(system, name): &(String, String)| system == event.system() && name == event.name();
        if !self.occurring.iter().any(is_known) {
            self.occurring.insert((event.system().to_owned(), event.name().to_owned()));
        }
    }

    /// Takes a loss in the trace with this number.
    pub fn lost(&mut self, trace: u32, lost: &Lost<'_>) {
        self.lost.table.push_lost(lost);
        self.lost.added();
        if let Some((spans, _)) = &mut self.spans {
            spans.lost(trace);
        }
    }

    /// Answers the query, of what was taken and of these Parquet files and folders of them.
    ///
    /// # Errors
    /// It asks for a table or column that is not there, or cannot be answered.
    pub fn run(mut self, paths: &[&Path]) -> Result<Answer, QueryError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| QueryError(Kind::Engine(error.to_string())))?;
        let config = SessionConfig::new().with_information_schema(true);
        let context = SessionContext::new_with_config(config);
        runtime.block_on(async {
            let files = Files::open(&context, paths).await?;
            if self.shows {
                self.name_all(&files);
            }
            for named in std::mem::take(&mut self.named) {
                self.register(&context, &files, &named).await?;
            }
            let frame = context.sql(&self.sql).await?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            Ok(Answer { schema, batches: frame.collect().await? })
        })
    }

    /// Asks for every table that there is.
    fn name_all(&mut self, files: &Files) {
        let tables = self.tables.iter().map(|gathered| (gathered.table.system(), gathered.table.name()));
        let all: BTreeSet<_> = tables.chain(files.events()).collect();
        let mut named: Vec<_> = all
            .iter()
            .map(|(system, name)| TableReference::partial(system.to_lowercase(), name.to_lowercase()))
            .collect();
        named.extend(
            ALWAYS
                .iter()
                .filter(|name| **name != "spans" || self.has_trace || files.have_spans())
                .map(|name| TableReference::bare(*name)),
        );
        self.events.get_or_insert_with(|| Gathered::of(Table::of_names()));
        self.spans.get_or_insert_with(|| (Spans::default(), Gathered::of(Table::of_spans())));
        self.named.retain(|own| !named.contains(own));
        self.named.append(&mut named);
    }

    /// Makes the table that a name means, of all that have a part of it.
    async fn register(
        &mut self,
        context: &SessionContext,
        files: &Files,
        named: &TableReference,
    ) -> Result<(), QueryError> {
        let mut frames = self.own(context, named)?;
        frames.extend(files.frames(context, named).await?);
        if frames.is_empty() && is_ours(named, "spans") {
            return Err(QueryError(Kind::NoSpans));
        }
        if frames.is_empty() && is_ours(named, "lost") {
            frames.push(context.read_table(self.lost.provider()?)?);
        }
        let mut frames = frames.into_iter();
        let Some(first) = frames.next() else {
            return Err(QueryError(Kind::NoTable { name: named.to_string(), known: self.known(files) }));
        };
        let table = frames.try_fold(first, DataFrame::union_by_name)?;
        if let (Some(schema), Some(catalog)) = (named.schema(), context.catalog("datafusion"))
            && catalog.schema(schema).is_none()
        {
            catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new()))?;
        }
        context.register_table(named.clone(), table.into_view())?;
        Ok(())
    }

    /// The part of a table that was taken from records.
    fn own(
        &mut self,
        context: &SessionContext,
        named: &TableReference,
    ) -> Result<Vec<DataFrame>, QueryError> {
        let mut meant: Vec<_> = self
            .tables
            .iter_mut()
            .filter(|gathered| is_meant(named, gathered.table.system(), gathered.table.name()))
            .collect();
        let systems: BTreeSet<_> = meant.iter().map(|gathered| gathered.table.system().to_owned()).collect();
        if systems.len() > 1 && named.schema().is_none() {
            let known = systems.iter().map(|system| format!("{system}.{}", named.table()));
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(QueryError(Kind::Ambiguous { name: named.to_string(), known }));
        }
        let mut providers =
            meant.iter_mut().map(|gathered| gathered.provider()).collect::<Result<Vec<_>, _>>()?;
        if self.has_trace && providers.is_empty() {
            let ours = [
                ("events", self.events.as_mut()),
                ("lost", Some(&mut self.lost)),
                ("spans", self.spans.as_mut().map(|(_, gathered)| gathered)),
            ];
            for (name, gathered) in ours {
                if let Some(gathered) = gathered.filter(|_| is_ours(named, name)) {
                    providers.push(gathered.provider()?);
                }
            }
        }
        let frames = providers.into_iter().map(|provider| context.read_table(provider));
        Ok(frames.collect::<Result<_, _>>()?)
    }

    /// The names of the tables that there are.
    fn known(&self, files: &Files) -> String {
        let own = self.occurring.iter().map(|(system, name)| (system.as_str(), name.as_str()));
        let all: BTreeSet<_> = own.chain(files.events()).collect();
        let listed = all.iter().take(MAX_LISTED).map(|(system, name)| format!("{system}.{name}"));
        let mut known: Vec<_> = ALWAYS.iter().map(|name| (*name).to_owned()).chain(listed).collect();
        known.extend(files.names().map(str::to_owned));
        match all.len().saturating_sub(MAX_LISTED) {
            0 => known.join(", "),
            more => format!("{} and {more} more (SHOW TABLES lists them)", known.join(", ")),
        }
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
