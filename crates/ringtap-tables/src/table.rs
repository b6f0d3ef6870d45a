//! One event's records as a table.

use crate::column::{Column, text};
use crate::rows::{Lost, Origin, Row};
use crate::spans::Span;
use arrow_array::builder::{BinaryBuilder, Int32Builder, UInt64Builder};
use arrow_array::types::{Int32Type, Int64Type, UInt8Type, UInt32Type};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, DictionaryArray, PrimitiveArray, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow_select::take::take_record_batch;
use ringtap_format::Event;
use std::collections::HashMap;
use std::sync::Arc;

/// The columns that every table begins with.
pub(crate) const COMMON: usize = 9;

/// The system of tables that no event's format describes.
const OURS: &str = "ringtap";

/// The records of one event, column by column.
///
/// The columns: `time`, `cpu`, `pid`, `comm` (the task's name), `common_flags`, `common_preempt_count`, `host`, `boot_id`,
/// `instance`, then the event's own fields. A field with the name of one of the first is called `field_NAME`.
#[derive(Debug)]
pub struct Table {
    system: String,
    name: String,
    schema: SchemaRef,
    common: Common,
    own: Own,
    /// Rows came in the order of their time.
    is_sorted: bool,
}

/// What every row has.
#[derive(Debug, Default)]
struct Common {
    time: Vec<i64>,
    cpu: Vec<u32>,
    /// Of losses there is none, nor the next three.
    pid: Vec<i32>,
    comm: Words,
    flags: Vec<u8>,
    preempt_count: Vec<u8>,
    origins: Origins,
}

/// What only these rows have.
#[derive(Debug)]
enum Own {
    Fields(Vec<Column>),
    Lost(UInt64Builder),
    Undecoded(BinaryBuilder),
    Spans(Box<SpanColumns>),
    /// The system and the event.
    #[cfg(feature = "sql")]
    Names(Box<[Words; 2]>),
}

#[derive(Debug, Default)]
struct SpanColumns {
    category: Words,
    name: Words,
    end: Vec<i64>,
    duration: Vec<i64>,
    depth: Vec<u32>,
}

impl Table {
    /// A table for the records of `event`.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let columns: Vec<_> = event.fields().iter().map(|field| Column::new(field, event.target())).collect();
        let fields = columns.iter().map(Column::describe).collect();
        Self::new(event.system(), event.name(), fields, Own::Fields(columns))
    }

    /// A table of losses: `ringtap:lost`, with the column `count`, which is null where nobody knows how many.
    #[must_use]
    pub fn of_losses() -> Self {
        let count = Field::new("count", DataType::UInt64, true);
        Self::new(OURS, "lost", vec![count], Own::Lost(UInt64Builder::new()))
    }

    /// A table of records that no format describes: `ringtap:undecoded`, with the column `record`.
    #[must_use]
    pub fn of_undecoded() -> Self {
        let record = Field::new("record", DataType::Binary, true);
        Self::new(OURS, "undecoded", vec![record], Own::Undecoded(BinaryBuilder::new()))
    }

    /// A table of spans: `ringtap:spans`. A span's `time` is when it began, its `category` the system of its events.
    #[must_use]
    pub fn of_spans() -> Self {
        let fields = vec![
            Field::new("category", dictionary(), true),
            Field::new("name", dictionary(), true),
            Field::new("end_time", time_type(), true),
            Field::new("duration_ns", DataType::Int64, true),
            Field::new("depth", DataType::UInt32, true),
        ];
        Self::new(OURS, "spans", fields, Own::Spans(Box::default()))
    }

    /// A table of all records: `ringtap:events`, with the columns `system` and `event`.
    #[cfg(feature = "sql")]
    pub(crate) fn of_names() -> Self {
        let fields = ["system", "event"].map(|name| Field::new(name, dictionary(), true));
        Self::new(OURS, "events", fields.to_vec(), Own::Names(Box::default()))
    }

    fn new(system: &str, name: &str, own_fields: Vec<Field>, own: Own) -> Self {
        let mut fields = common_fields();
        for field in own_fields {
            // Engines do not tell upper from lower case.
            let is_taken =
                |name: &str| fields.iter().any(|other: &Field| other.name().eq_ignore_ascii_case(name));
            let mut name = field.name().clone();
            while is_taken(&name) {
                name.insert_str(0, "field_");
            }
            fields.push(field.with_name(name));
        }
        Self {
            system: system.to_owned(),
            name: name.to_owned(),
            schema: Arc::new(Schema::new(fields)),
            common: Common::default(),
            own,
            is_sorted: true,
        }
    }

    /// The event's system.
    #[must_use]
    pub fn system(&self) -> &str {
        &self.system
    }

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns.
    #[must_use]
    pub const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The event's own columns.
    pub(crate) fn own_fields(&self) -> Fields {
        self.schema.fields().iter().skip(COMMON).cloned().collect()
    }

    /// Rows gathered.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.common.time.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both are of one event, have the same columns, and find them at the same place in records.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let is_same = match (&self.own, &other.own) {
            (Own::Fields(own), Own::Fields(other)) => {
                own.len() == other.len() && own.iter().zip(other).all(|(own, other)| own.is_like(other))
            }
            _ => true,
        };
        is_same && (&self.system, &self.name, &self.schema) == (&other.system, &other.name, &other.schema)
    }

    fn time(&mut self, origin: &Origin, ns: u64) {
        let time = origin.time(ns);
        self.is_sorted &= self.common.time.last().is_none_or(|last| *last <= time);
        self.common.time.push(time);
    }

    fn common(&mut self, row: &Row<'_>) {
        let Common { pid, comm, flags, preempt_count, .. } = &mut self.common;
        pid.push(row.common.pid);
        comm.push(row.comm);
        flags.push(row.common.flags);
        preempt_count.push(row.common.preempt_count);
    }

    /// Adds a record of the table's event; to a table of no single event, any.
    pub fn push(&mut self, row: &Row<'_>) {
        match &mut self.own {
            Own::Fields(columns) => columns.iter_mut().for_each(|column| column.push(row.record)),
            Own::Undecoded(records) => records.append_value(row.record),
            #[cfg(feature = "sql")]
            Own::Names(names) => {
                let [system, event] = &mut **names;
                let named = row.event.map_or((OURS, "undecoded"), |event| (event.system(), event.name()));
                system.push(named.0.as_bytes());
                event.push(named.1.as_bytes());
            }
            Own::Lost(_) | Own::Spans(_) => return,
        }
        self.time(row.origin, row.time);
        self.common.place(row.cpu, row.origin);
        self.common(row);
    }

    /// Adds a loss to a table of losses.
    pub fn push_lost(&mut self, lost: &Lost<'_>) {
        let Own::Lost(counts) = &mut self.own else { return };
        counts.append_option(lost.count);
        self.time(lost.origin, lost.time);
        self.common.place(lost.cpu, lost.origin);
        self.common.comm.push_null();
    }

    /// Adds a span to a table of spans; with the record that ended it.
    pub fn push_span(&mut self, span: &Span, ended_by: &Row<'_>) {
        let Own::Spans(own) = &mut self.own else { return };
        own.category.push(span.system.as_bytes());
        own.name.push(span.name.as_bytes());
        own.end.push(ended_by.origin.time(span.end));
        let duration = span.end.saturating_sub(span.start);
        own.duration.push(i64::try_from(duration).unwrap_or(i64::MAX));
        own.depth.push(span.depth);
        self.time(ended_by.origin, span.start);
        self.common.place(span.cpu, ended_by.origin);
        self.common(ended_by);
    }

    /// Takes the rows gathered so far, in the order of their time.
    ///
    /// # Panics
    /// Never: each column has a value for each row.
    pub fn take(&mut self) -> RecordBatch {
        let order = match std::mem::replace(&mut self.is_sorted, true) {
            true => None,
            false => Some(order(&self.common.time)),
        };
        let mut arrays = self.common.take();
        match &mut self.own {
            Own::Fields(columns) => arrays.extend(columns.iter_mut().map(Column::take)),
            Own::Lost(counts) => arrays.push(Arc::new(counts.finish())),
            Own::Undecoded(records) => arrays.push(Arc::new(records.finish())),
            Own::Spans(own) => own.take(&mut arrays),
            #[cfg(feature = "sql")]
            Own::Names(names) => arrays.extend(names.iter_mut().map(Words::take)),
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays);
        let batch = batch.expect("each column has a value for each row");
        match order {
            None => batch,
            Some(order) => take_record_batch(&batch, &order).expect("the order is one of the rows"),
        }
    }
}

/// The rows in the order of their time.
fn order(times: &[i64]) -> UInt64Array {
    let mut order: Vec<(i64, u64)> = times.iter().copied().zip(0..).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, row)| row).collect()
}

/// Names, each stored once.
pub(crate) fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

const fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, None)
}

/// The columns of [`Common`].
pub(crate) fn common_fields() -> Vec<Field> {
    let fields = vec![
        Field::new("time", time_type(), false),
        Field::new("cpu", DataType::UInt32, false),
        Field::new("pid", DataType::Int32, true),
        Field::new("comm", dictionary(), true),
        Field::new("common_flags", DataType::UInt8, true),
        Field::new("common_preempt_count", DataType::UInt8, true),
        Field::new("host", dictionary(), true),
        Field::new("boot_id", dictionary(), true),
        Field::new("instance", dictionary(), true),
    ];
    debug_assert_eq!(fields.len(), COMMON);
    fields
}

impl Common {
    fn place(&mut self, cpu: u32, origin: &Origin) {
        self.cpu.push(cpu);
        self.origins.push(origin);
    }

    fn take(&mut self) -> Vec<ArrayRef> {
        let rows = self.time.len();
        let [host, boot_id, instance] = self.origins.take();
        vec![
            Arc::new(TimestampNanosecondArray::from(std::mem::take(&mut self.time))),
            primitive::<UInt32Type>(&mut self.cpu, rows),
            primitive::<Int32Type>(&mut self.pid, rows),
            self.comm.take(),
            primitive::<UInt8Type>(&mut self.flags, rows),
            primitive::<UInt8Type>(&mut self.preempt_count, rows),
            host,
            boot_id,
            instance,
        ]
    }
}

/// A column of so many rows; nulls, where there are no values.
fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, rows: usize) -> ArrayRef {
    Arc::new(match std::mem::take(values) {
        none if none.is_empty() => PrimitiveArray::<T>::new_null(rows),
        values => PrimitiveArray::new(values.into(), None),
    })
}

impl SpanColumns {
    fn take(&mut self, arrays: &mut Vec<ArrayRef>) {
        let rows = self.end.len();
        arrays.extend([
            self.category.take(),
            self.name.take(),
            Arc::new(TimestampNanosecondArray::from(std::mem::take(&mut self.end))),
            primitive::<Int64Type>(&mut self.duration, rows),
            primitive::<UInt32Type>(&mut self.depth, rows),
        ]);
    }
}

/// Rows' origins: each is stored once, and mostly it is that of the row before.
#[derive(Debug, Default)]
struct Origins {
    known: Vec<Origin>,
    /// The place of each row's.
    rows: Vec<u32>,
}

impl Origins {
    fn push(&mut self, origin: &Origin) {
        let last = self.rows.last().copied().unwrap_or(0);
        let place = match self.known.get(last as usize) {
            Some(known) if known.is(origin) => last,
            _ => self.place(origin),
        };
        self.rows.push(place);
    }

    fn place(&mut self, origin: &Origin) -> u32 {
        let place = self.known.iter().position(|known| known == origin).unwrap_or_else(|| {
            self.known.push(origin.clone());
            self.known.len() - 1
        });
        u32::try_from(place).expect("fewer origins than memory could hold")
    }

    /// The columns `host`, `boot_id` and `instance`.
    fn take(&mut self) -> [ArrayRef; 3] {
        let Self { known, rows } = std::mem::take(self);
        let columns: [fn(&Origin) -> Option<&str>; 3] = [
            |origin| origin.host.as_deref(),
            |origin| origin.boot_id.as_deref(),
            |origin| origin.instance.as_deref(),
        ];
        columns.map(|column| {
            let mut words = Words::default();
            let places: Vec<_> =
                known.iter().map(|origin| column(origin).map(|word| words.place(word))).collect();
            words.keys.extend(rows.iter().map(|&row| places[row as usize]));
            words.take()
        })
    }
}

/// A column of few different words.
#[derive(Debug, Default)]
pub(crate) struct Words {
    words: Vec<Box<str>>,
    places: HashMap<Box<str>, i32>,
    /// The places of words that came lately.
    recent: [i32; RECENT],
    keys: Int32Builder,
}

/// Words that are found without a search.
const RECENT: usize = 32;

impl Words {
    /// Adds a row of this word; what is no UTF-8 becomes U+FFFD.
    pub(crate) fn push(&mut self, word: &[u8]) {
        let recent = recent_place(word);
        let place = self.recent[recent];
        let place = if self.is_at(place, word) { place } else { self.place(&text(word)) };
        self.recent[recent] = place;
        self.keys.append_value(place);
    }

    fn push_null(&mut self) {
        self.keys.append_null();
    }

    fn is_at(&self, place: i32, word: &[u8]) -> bool {
        let known = usize::try_from(place).ok().and_then(|place| self.words.get(place));
        known.is_some_and(|known| known.as_bytes() == word)
    }

    fn place(&mut self, word: &str) -> i32 {
        if let Some(place) = self.places.get(word) {
            return *place;
        }
        let place = i32::try_from(self.words.len()).expect("fewer words than memory could hold");
        self.words.push(word.into());
        self.places.insert(word.into(), place);
        place
    }

    pub(crate) fn take(&mut self) -> ArrayRef {
        let Self { words, mut keys, .. } = std::mem::take(self);
        let values = StringArray::from_iter_values(words);
        let array = DictionaryArray::<Int32Type>::try_new(keys.finish(), Arc::new(values));
        Arc::new(array.expect("each key is a word's place"))
    }
}

/// A number below [`RECENT`] that words share which have the same length and bytes at both ends.
fn recent_place(word: &[u8]) -> usize {
    let end = |bytes: Option<&[u8; 4]>| bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let ends = u64::from(end(word.first_chunk())) << 32 | u64::from(end(word.last_chunk()));
    let mixed = (ends ^ word.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The product's highest bits depend on all of its factor's.
    usize::try_from(mixed >> (u64::BITS - RECENT.ilog2())).unwrap_or(0)
}

/// The places of events' tables, by trace and event.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<Vec<u32>>);

/// No place.
const NOWHERE: u32 = u32::MAX;

impl Places {
    pub(crate) fn get(&self, trace: u32, id: u16) -> Option<usize> {
        let place = *self.0.get(usize::try_from(trace).ok()?)?.get(usize::from(id))?;
        if place == NOWHERE { None } else { usize::try_from(place).ok() }
    }

    pub(crate) fn set(&mut self, trace: u32, id: u16, place: usize) {
        let (trace, id) = (usize::try_from(trace).unwrap_or(usize::MAX), usize::from(id));
        if self.0.len() <= trace {
            self.0.resize(trace + 1, Vec::new());
        }
        let ids = &mut self.0[trace];
        if ids.len() <= id {
            ids.resize(id + 1, NOWHERE);
        }
        ids[id] = u32::try_from(place).unwrap_or(NOWHERE);
    }
}
