//! A whole trace as one file.
//!
//! The columns are those that all events have (`time`, `cpu`, `pid`, `comm`, `host`, `boot_id`, `instance`, `system`,
//! `event`), then one struct for each event, which is null in the rows of others: `sched_switch.prev_pid`.
//!
//! Each row group is a slice of time. In a row group, rows are sorted by event, then time: the nulls of each event's
//! columns are then two runs, which take a few bytes, and neighbours resemble each other. Who wants all events in the
//! order of time says `ORDER BY time`.

use super::{Options, WriteError, Written, properties};
use crate::rows::{Lost, Row};
use crate::table::{COMMON, Table, Words, common_fields};
use arrow::array::{Array, ArrayRef, RecordBatch, StructArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use ringtap_format::Event;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;

/// Columns before the first event's.
const BEFORE: usize = COMMON + 2;

/// Writes one file.
#[derive(Debug)]
pub struct Wide<W: Write + Send> {
    /// Sorted by system and name; the last is of losses.
    tables: Vec<Table>,
    /// The place of an event's table, by trace and id.
    places: HashMap<(u32, u16), usize>,
    schema: SchemaRef,
    writer: ArrowWriter<W>,
    slice_rows: usize,
    gathered: usize,
    written: Written,
}

impl<W: Write + Send> Wide<W> {
    /// A file of these events' records; each event with the number of its trace. What other events' records are
    /// given to it have no columns of their own.
    ///
    /// # Errors
    /// The output cannot be written to, or an option is wrong.
    pub fn new<'e>(
        out: W,
        events: impl IntoIterator<Item = (u32, &'e Event)>,
        options: &Options,
    ) -> Result<Self, WriteError> {
        let (tables, places) = tables(events, options);
        let mut fields = common_fields(options.clock);
        let dictionary = fields[COMMON - 1].data_type().clone();
        fields.push(Field::new("system", dictionary.clone(), false));
        fields.push(Field::new("event", dictionary, false));
        let mut names = HashSet::new();
        for table in &tables {
            let known =
                fields.iter().any(|field| field.name() == table.name()) || names.contains(table.name());
            let name =
                if known { format!("{}_{}", table.system(), table.name()) } else { table.name().to_owned() };
            names.insert(table.name());
            // Parquet has no empty structs.
            if !table.own_fields().is_empty() {
                fields.push(Field::new(name, DataType::Struct(table.own_fields()), true));
            }
        }
        let schema = Arc::new(Schema::new(fields));
        let properties = properties(options, &schema, &["system", "event", "time"])?;
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties))?;
        let slice_rows = options.slice_rows.max(1);
        Ok(Self { tables, places, schema, writer, slice_rows, gathered: 0, written: Written::default() })
    }

    /// Adds a record of the trace with this number.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn row(&mut self, trace: u32, row: &Row<'_>) -> Result<(), WriteError> {
        let Some(table) =
            self.places.get(&(trace, row.event.id())).and_then(|place| self.tables.get_mut(*place))
        else {
            return Ok(());
        };
        table.push(row);
        self.count()
    }

    /// Adds a loss.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn lost(&mut self, lost: &Lost<'_>) -> Result<(), WriteError> {
        if let Some(table) = self.tables.last_mut() {
            table.push_lost(lost);
        }
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
        let all = std::mem::take(&mut self.gathered);
        if all == 0 {
            return Ok(());
        }
        let (mut systems, mut events) = (Words::default(), Words::default());
        let mut commons: Vec<Vec<ArrayRef>> = vec![Vec::new(); COMMON];
        let mut structs: Vec<ArrayRef> = Vec::new();
        let mut before = 0;
        for table in &mut self.tables {
            let (fields, rows) = (table.own_fields(), table.len());
            if rows == 0 {
                if !fields.is_empty() {
                    structs.push(new_null_array(&DataType::Struct(fields), all));
                }
                continue;
            }
            let batch = table.take();
            for (columns, column) in commons.iter_mut().zip(batch.columns()) {
                columns.push(Arc::clone(column));
            }
            for _ in 0..rows {
                systems.push(Some(table.system()));
                events.push(Some(table.name()));
            }
            if !fields.is_empty() {
                let behind = all - before - rows;
                let columns: Vec<_> = batch
                    .columns()
                    .iter()
                    .skip(COMMON)
                    .map(|column| between_nulls(before, column, behind))
                    .collect::<Result<_, _>>()?;
                let valid = (0..all).map(|row| (before..before + rows).contains(&row));
                structs.push(Arc::new(StructArray::try_new(
                    fields,
                    columns,
                    Some(valid.collect::<NullBuffer>()),
                )?));
            }
            before += rows;
        }
        let mut columns = Vec::with_capacity(BEFORE + structs.len());
        for parts in &commons {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            columns.push(concat(&parts)?);
        }
        columns.extend([systems.take(), events.take()]);
        columns.append(&mut structs);
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?;
        self.writer.flush()?;
        self.written.rows += u64::try_from(all).unwrap_or(u64::MAX);
        Ok(())
    }
}

/// A table for each event, and one of losses; events that are declared alike share one.
fn tables<'e>(
    events: impl IntoIterator<Item = (u32, &'e Event)>,
    options: &Options,
) -> (Vec<Table>, HashMap<(u32, u16), usize>) {
    let mut sorted: BTreeMap<(&str, &str), Vec<(u32, &Event)>> = BTreeMap::new();
    for (trace, event) in events {
        sorted.entry((event.system(), event.name())).or_default().push((trace, event));
    }
    let (mut tables, mut places) = (Vec::<Table>::new(), HashMap::new());
    for declared in sorted.into_values() {
        let first = tables.len();
        for (trace, event) in declared {
            let table = Table::of(event, options.clock);
            let like = tables.iter().skip(first).position(|other| other.schema() == table.schema());
            let place = like.map_or(tables.len(), |like| first + like);
            if like.is_none() {
                tables.push(table);
            }
            places.insert((trace, event.id()), place);
        }
    }
    tables.push(Table::of_losses(options.clock));
    (tables, places)
}

/// The column with so many nulls before and behind it.
fn between_nulls(
    before: usize,
    column: &ArrayRef,
    behind: usize,
) -> Result<ArrayRef, arrow::error::ArrowError> {
    let (before, behind) =
        (new_null_array(column.data_type(), before), new_null_array(column.data_type(), behind));
    concat(&[&before, column, &behind])
}
