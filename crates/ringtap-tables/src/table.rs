//! One event's records as a table.

use crate::column::Column;
pub(crate) use crate::column::text;
use crate::rows::{Clock, Lost, Origin, Row};
use arrow::array::{
    ArrayRef, DictionaryArray, Int32Array, Int32Builder, RecordBatch, StringArray, StringBuilder,
    TimestampNanosecondArray, UInt32Builder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, SchemaRef};
use ringtap_format::Event;
use std::collections::HashMap;
use std::sync::Arc;

/// The columns that every table begins with.
pub(crate) const COMMON: usize = 7;

/// The records of one event, column by column. Its rows keep the order in which they came.
///
/// The columns: `time`, `cpu`, `pid`, `comm` (the task's name), `host`, `boot_id`, `instance`, then the event's own
/// fields. A field with the name of one of the first is called `field_NAME`.
#[derive(Debug)]
pub struct Table {
    system: String,
    name: String,
    schema: SchemaRef,
    clock: Clock,
    common: Common,
    own: Own,
    rows: usize,
}

/// What every row has.
#[derive(Debug, Default)]
struct Common {
    time: Vec<i64>,
    cpu: UInt32Builder,
    pid: Int32Builder,
    comm: StringBuilder,
    host: Words,
    boot_id: Words,
    instance: Words,
}

/// What only this event's rows have.
#[derive(Debug)]
enum Own {
    Fields(Vec<Column>),
    /// How many events were lost.
    Lost(UInt64Builder),
}

impl Table {
    /// A table for the records of `event`.
    #[must_use]
    pub fn of(event: &Event, clock: Clock) -> Self {
        let columns: Vec<_> = event.fields().iter().map(|field| Column::new(field, event.target())).collect();
        let fields = columns.iter().map(Column::describe);
        Self::new(event.system(), event.name(), fields.collect(), Own::Fields(columns), clock)
    }

    /// A table of losses: `ringtap:lost`, with the column `count`, which is null where nobody knows how many.
    #[must_use]
    pub fn of_losses(clock: Clock) -> Self {
        let count = Field::new("count", DataType::UInt64, true);
        Self::new("ringtap", "lost", vec![count], Own::Lost(UInt64Builder::new()), clock)
    }

    fn new(system: &str, name: &str, own_fields: Vec<Field>, own: Own, clock: Clock) -> Self {
        let mut fields = common_fields(clock);
        for field in own_fields {
            let taken = fields.iter().any(|other| other.name() == field.name());
            let name = if taken { format!("field_{}", field.name()) } else { field.name().clone() };
            fields.push(field.with_name(name));
        }
        let schema = Arc::new(Schema::new(fields));
        Self {
            system: system.to_owned(),
            name: name.to_owned(),
            schema,
            clock,
            common: Common::default(),
            own,
            rows: 0,
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
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The event's own columns.
    pub(crate) fn own_fields(&self) -> Fields {
        self.schema.fields().iter().skip(COMMON).cloned().collect()
    }

    /// Rows gathered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds a record of the table's event.
    pub fn push(&mut self, row: &Row<'_>) {
        let Own::Fields(columns) = &mut self.own else { return };
        columns.iter_mut().for_each(|column| column.push(row.record));
        self.common.push(self.clock.time(row.time), row.cpu, row.origin);
        self.common.pid.append_value(row.pid());
        self.common.comm.append_value(text(row.comm));
        self.rows += 1;
    }

    /// Adds a loss to a table of losses.
    pub fn push_lost(&mut self, lost: &Lost<'_>) {
        let Own::Lost(counts) = &mut self.own else { return };
        counts.append_option(lost.count);
        self.common.push(self.clock.time(lost.time), lost.cpu, lost.origin);
        self.common.pid.append_null();
        self.common.comm.append_null();
        self.rows += 1;
    }

    /// Takes the rows gathered so far.
    pub fn take(&mut self) -> RecordBatch {
        self.rows = 0;
        let mut arrays = self.common.take(self.clock);
        match &mut self.own {
            Own::Fields(columns) => arrays.extend(columns.iter_mut().map(Column::finish)),
            Own::Lost(counts) => arrays.push(Arc::new(counts.finish())),
        }
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).expect("each column has a value for each row")
    }
}

/// Names, each stored once.
fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The columns of [`Common`].
pub(crate) fn common_fields(clock: Clock) -> Vec<Field> {
    let fields = vec![
        Field::new("time", clock.data_type(), false),
        Field::new("cpu", DataType::UInt32, false),
        Field::new("pid", DataType::Int32, true),
        Field::new("comm", DataType::Utf8, true),
        Field::new("host", dictionary(), true),
        Field::new("boot_id", dictionary(), true),
        Field::new("instance", dictionary(), true),
    ];
    debug_assert_eq!(fields.len(), COMMON);
    fields
}

impl Common {
    fn push(&mut self, time: i64, cpu: u32, origin: &Origin) {
        self.time.push(time);
        self.cpu.append_value(cpu);
        self.host.push(origin.host.as_deref());
        self.boot_id.push(origin.boot_id.as_deref());
        self.instance.push(origin.instance.as_deref());
    }

    fn take(&mut self, clock: Clock) -> Vec<ArrayRef> {
        let time = TimestampNanosecondArray::from(std::mem::take(&mut self.time));
        vec![
            Arc::new(time.with_data_type(clock.data_type())),
            Arc::new(self.cpu.finish()),
            Arc::new(self.pid.finish()),
            Arc::new(self.comm.finish()),
            self.host.take(),
            self.boot_id.take(),
            self.instance.take(),
        ]
    }
}

/// A column of few different words, mostly the same as in the row before.
#[derive(Debug, Default)]
pub(crate) struct Words {
    words: Vec<Box<str>>,
    places: HashMap<Box<str>, i32>,
    /// The place of the last row's word.
    last: Option<i32>,
    keys: Vec<Option<i32>>,
}

impl Words {
    pub(crate) fn push(&mut self, word: Option<&str>) {
        let place = word.map(|word| match self.last {
            Some(last) if usize::try_from(last).is_ok_and(|last| &*self.words[last] == word) => last,
            _ => self.place(word),
        });
        self.last = place.or(self.last);
        self.keys.push(place);
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
        let Self { words, keys, .. } = std::mem::take(self);
        let values = StringArray::from_iter_values(words);
        let keys = Int32Array::from(keys);
        Arc::new(
            DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values))
                .expect("each key is a word's place"),
        )
    }
}
