//! A whole trace as one file.
//!
//! The columns are those that all events have, with `system` and `event`, then one struct for each event, which is null in the
//! rows of others: `sched_switch.prev_pid`.
//!
//! Each row group is a slice of time. In a row group, rows are sorted by event, then time: the nulls of each event's
//! columns are then two runs, which take a few bytes, and neighbours resemble each other. Who wants all events in the
//! order of time says `ORDER BY time`.

use super::slices::Slices;
use super::{Options, WriteError, Written, properties};
use crate::rows::{Lost, Row};
use crate::spans::Span;
use crate::table::{COMMON, Places, Table, common_fields, dictionary};
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, StructArray, new_null_array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use ringtap_format::Event;
use std::io::Write;
use std::sync::Arc;

/// Rows that are handed over at once; so many nulls are held for each column.
const CHUNK: usize = 1 << 13;

/// Which events a file is going to hold: a first look at the trace finds out.
#[derive(Debug)]
pub struct Layout {
    /// First those of losses.
    tables: Vec<Table>,
    places: Places,
    undecoded: Option<usize>,
    spans: Option<usize>,
}

/// The table of losses.
const LOST: usize = 0;

impl Layout {
    /// Of no event; with or without spans.
    #[must_use]
    pub fn new(with_spans: bool) -> Self {
        let mut tables = vec![Table::of_losses()];
        let spans = with_spans.then_some(tables.len());
        if with_spans {
            tables.push(Table::of_spans());
        }
        Self { tables, places: Places::default(), undecoded: None, spans }
    }

    /// There is a record with this event's number in the trace with this number.
    pub fn see(&mut self, trace: u32, id: u16, event: Option<&Event>) {
        if self.places.get(trace, id).is_some() {
            return;
        }
        let place = match event {
            Some(event) => self.place(Table::of(event)),
            None => {
                let place = self.undecoded.unwrap_or_else(|| self.place(Table::of_undecoded()));
                *self.undecoded.insert(place)
            }
        };
        self.places.set(trace, id, place);
    }

    /// Events that are declared alike share a table.
    fn place(&mut self, table: Table) -> usize {
        let like = self.tables.iter().position(|other| other.is_like(&table));
        like.unwrap_or_else(|| {
            self.tables.push(table);
            self.tables.len() - 1
        })
    }

    /// The tables by their events' names.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.tables.len()).collect();
        order.sort_by_key(|place| (self.tables[*place].system(), self.tables[*place].name()));
        order
    }
}

/// Writes one file.
#[derive(Debug)]
pub struct Wide<W: Write + Send> {
    layout: Layout,
    order: Vec<usize>,
    schema: SchemaRef,
    /// For each struct of the schema so many nulls as a chunk has rows.
    nulls: Vec<ArrayRef>,
    /// And so many zeros.
    zeros: Int32Array,
    writer: Slices<W>,
    slice_rows: usize,
    gathered: usize,
    written: Written,
}

impl<W: Write + Send> Wide<W> {
    /// A file of these events' records.
    ///
    /// # Errors
    /// The output cannot be written to, or an option is wrong.
    pub fn new(out: W, layout: Layout, options: &Options) -> Result<Self, WriteError> {
        let mut fields = common_fields();
        fields.extend(["system", "event"].map(|name| Field::new(name, dictionary(), false)));
        let order = layout.order();
        let (mut nulls, tables) = (Vec::new(), order.iter().map(|place| &layout.tables[*place]));
        for table in tables {
            // Parquet has no empty structs.
            if !table.own_fields().is_empty() {
                let members = DataType::Struct(table.own_fields());
                nulls.push(new_null_array(&members, CHUNK));
                fields.push(Field::new(struct_name(table, &fields), members, true));
            }
        }
        let schema = Arc::new(Schema::new(fields));
        let properties = properties(options, &schema, &["system", "event", "time"])?;
        let writer = Slices::new(out, &schema, properties)?;
        let slice_rows = options.slice_rows.max(1);
        Ok(Self {
            layout,
            order,
            schema,
            nulls,
            zeros: vec![0; CHUNK].into(),
            writer,
            slice_rows,
            gathered: 0,
            written: Written::default(),
        })
    }

    /// Adds a record of the trace with this number. One of an event that the layout has not seen is left out.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn row(&mut self, trace: u32, row: &Row<'_>) -> Result<(), WriteError> {
        let Some(place) = self.layout.places.get(trace, row.common.id) else { return Ok(()) };
        self.layout.tables[place].push(row);
        self.count()
    }

    /// Adds a loss.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn lost(&mut self, lost: &Lost<'_>) -> Result<(), WriteError> {
        self.layout.tables[LOST].push_lost(lost);
        self.count()
    }

    /// Adds a span, and the record that ended it; nothing where the layout has none.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn span(&mut self, span: &Span, ended_by: &Row<'_>) -> Result<(), WriteError> {
        let Some(place) = self.layout.spans else { return Ok(()) };
        self.layout.tables[place].push_span(span, ended_by);
        self.count()
    }

    fn count(&mut self) -> Result<(), WriteError> {
        self.gathered += 1;
        if self.gathered < self.slice_rows { Ok(()) } else { self.end_slice() }
    }

    /// Completes the file.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn finish(mut self) -> Result<(W, Written), WriteError> {
        self.end_slice()?;
        let Self { writer, written, .. } = self;
        Ok((writer.into_inner()?, Written { files: 1, ..written }))
    }

    /// Writes what was gathered as a row group.
    fn end_slice(&mut self) -> Result<(), WriteError> {
        let rows = std::mem::take(&mut self.gathered);
        if rows == 0 {
            return Ok(());
        }
        let mut structs = 0;
        for place in self.order.clone() {
            let table = &mut self.layout.tables[place];
            let own = if table.own_fields().is_empty() { None } else { Some(structs) };
            structs += usize::from(own.is_some());
            if table.is_empty() {
                continue;
            }
            let batch = table.take();
            let mut at = 0;
            while at < batch.num_rows() {
                let len = CHUNK.min(batch.num_rows() - at);
                let chunk = self.chunk(place, own, &batch.slice(at, len))?;
                self.writer.write(&chunk)?;
                at += len;
            }
        }
        self.writer.end()?;
        self.written.rows += u64::try_from(rows).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Rows of one event with all columns of the file.
    fn chunk(&self, place: usize, own: Option<usize>, rows: &RecordBatch) -> Result<RecordBatch, WriteError> {
        let table = &self.layout.tables[place];
        let (common, fields) = rows.columns().split_at(COMMON);
        let mut columns = common.to_vec();
        for name in [table.system(), table.name()] {
            let word = Arc::new(StringArray::from_iter_values([name]));
            let keys = self.zeros.slice(0, rows.num_rows());
            columns.push(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, word)?));
        }
        for (place, nulls) in self.nulls.iter().enumerate() {
            columns.push(match own == Some(place) {
                true => Arc::new(StructArray::try_new(table.own_fields(), fields.to_vec(), None)?),
                false => nulls.slice(0, rows.num_rows()),
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// The event's name; where another column has it, with its system before it, and a number behind it.
fn struct_name(table: &Table, fields: &[Field]) -> String {
    let plain = table.name().to_owned();
    let long = format!("{}_{}", table.system(), table.name());
    let numbered = (2..).map(|number| format!("{long}_{number}"));
    // Engines do not tell upper from lower case.
    let is_free = |name: &String| !fields.iter().any(|field| field.name().eq_ignore_ascii_case(name));
    let mut names = [plain, long.clone()].into_iter().chain(numbered);
    names.find(is_free).unwrap_or(long)
}
