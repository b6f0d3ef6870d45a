//! A file that is written slice by slice, each a row group.

use super::chunk::Packer;
use super::coded::{Coded, Piece, is_codable};
use super::runs::Runs;
use crate::table::dictionary;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray, new_null_array};
use arrow_schema::{DataType, Field, FieldRef, Fields, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnDescPtr;
use std::io::Write;
use std::sync::Arc;

/// Columns that mostly have the same word in many rows, where they are dictionaries.
const UNIFORM: [&str; 5] = ["host", "boot_id", "instance", "system", "event"];

/// Nulls that Arrow's writer is given at once.
const NULLS: usize = 1 << 13;

/// The writer of a file.
pub(super) struct Slices<W: Write + Send> {
    file: SerializedFileWriter<W>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// The columns of plain values: the schema's fields, and in place of structs their members.
    leaves: Vec<Leaf>,
    /// Arrow's writer of each in this slice.
    writers: Vec<ArrowColumnWriter>,
    packer: Option<Packer>,
    written: usize,
}

/// A column of plain values.
struct Leaf {
    /// The field; of a struct's member, the struct with this one member.
    field: FieldRef,
    data_type: DataType,
    way: Way,
    /// What it has in this slice, unless it is encoded at once.
    pieces: Vec<Piece>,
}

/// How a column is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By Arrow's writer, as rows come.
    General,
    /// At the slice's end, as runs.
    Runs,
    /// At the slice's end, by a dictionary of our own.
    Coded,
}

impl Leaf {
    fn new(
        field: &FieldRef,
        of: Option<&FieldRef>,
        column: &ColumnDescPtr,
        properties: &WriterProperties,
    ) -> Self {
        let has_page_statistics = properties.statistics_enabled(column.path()) == EnabledStatistics::Page;
        let is_word = *field.data_type() == dictionary();
        let way = match properties.dictionary_enabled(column.path()) {
            true if is_word && of.is_none() && UNIFORM.contains(&field.name().as_str()) => Way::Runs,
            true if is_codable(field.data_type()) && !has_page_statistics => Way::Coded,
            _ => Way::General,
        };
        let data_type = field.data_type().clone();
        let field = match of {
            None => Arc::clone(field),
            Some(of) => {
                let one = DataType::Struct(Fields::from(vec![Arc::clone(field)]));
                Arc::new(Field::new(of.name(), one, of.is_nullable()))
            }
        };
        Self { field, data_type, way, pieces: Vec::new() }
    }

    /// Adds rows.
    fn write(&mut self, piece: Piece, writer: &mut ArrowColumnWriter) -> Result<()> {
        if let (Piece::Values(values), Way::General) = (&piece, self.way) {
            self.write_gathered(writer)?;
            return self.write_values(values, writer);
        }
        match (self.pieces.last_mut(), &piece) {
            (Some(Piece::Elsewhere(known)), Piece::Elsewhere(rows)) => *known += rows,
            _ => self.pieces.push(piece),
        }
        Ok(())
    }

    /// Has Arrow's writer encode what was gathered.
    fn write_gathered(&mut self, writer: &mut ArrowColumnWriter) -> Result<()> {
        for piece in std::mem::take(&mut self.pieces) {
            match piece {
                Piece::Values(values) => self.write_values(&values, writer)?,
                Piece::Elsewhere(rows) => {
                    let nulls = new_null_array(self.field.data_type(), rows.min(NULLS));
                    for start in (0..rows).step_by(NULLS) {
                        self.write_leaf(&nulls.slice(0, NULLS.min(rows - start)), writer)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn write_values(&self, values: &ArrayRef, writer: &mut ArrowColumnWriter) -> Result<()> {
        match self.field.data_type() {
            DataType::Struct(member) => {
                let of = StructArray::try_new(member.clone(), vec![Arc::clone(values)], None)?;
                self.write_leaf(&(Arc::new(of) as ArrayRef), writer)
            }
            _ => self.write_leaf(values, writer),
        }
    }

    fn write_leaf(&self, rows: &ArrayRef, writer: &mut ArrowColumnWriter) -> Result<()> {
        compute_leaves(&self.field, rows)?.iter().try_for_each(|leaf| writer.write(leaf))
    }

    /// Ends the slice.
    fn end<W: Write + Send>(
        &mut self,
        column: &ColumnDescPtr,
        mut writer: ArrowColumnWriter,
        packer: Option<&mut Packer>,
        group: &mut SerializedRowGroupWriter<'_, W>,
        properties: &WriterProperties,
    ) -> Result<()> {
        if self.way == Way::Runs
            && let Some(runs) = Runs::of(&self.pieces)
        {
            self.pieces.clear();
            let level = properties.statistics_enabled(column.path());
            return runs.append(column, level == EnabledStatistics::Page, group);
        }
        if self.way == Way::Coded {
            let max_level = super::chunk::size(column.max_def_level())?;
            if let Some(coded) = Coded::of(&self.pieces, &self.data_type, max_level) {
                self.pieces.clear();
                return coded.append(column, self.data_type.is_signed_integer(), packer, group);
            }
            // It is going to be like this in the next slice, too.
            self.way = Way::General;
        }
        self.write_gathered(&mut writer)?;
        writer.close()?.append_to_row_group(group)
    }
}

impl<W: Write + Send> Slices<W> {
    /// An empty file.
    pub(super) fn new(out: W, schema: &SchemaRef, properties: WriterProperties) -> Result<Self> {
        let writer = ArrowWriter::try_new(out, Arc::clone(schema), Some(properties))?;
        let (file, factory) = writer.into_serialized_writer()?;
        let mut columns = file.schema_descr().columns().iter();
        let packer = columns.clone().next().map(|first| file.properties().compression(first.path()));
        let packer = packer.map(Packer::new).transpose()?.flatten();
        let mut leaves = Vec::new();
        for field in schema.fields() {
            let members = match field.data_type() {
                DataType::Struct(members) => members.iter().map(|member| (member, Some(field))).collect(),
                _ => vec![(field, None)],
            };
            for ((field, of), column) in members.into_iter().zip(columns.by_ref()) {
                leaves.push(Leaf::new(field, of, column, file.properties()));
            }
        }
        let schema = Arc::clone(schema);
        Ok(Self { file, factory, schema, leaves, writers: Vec::new(), packer, written: 0 })
    }

    /// Adds rows to the slice. A struct is null in all of them, or in none.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.writers.is_empty() {
            self.writers = self.factory.create_column_writers(self.written)?;
        }
        let mut leaves = self.leaves.iter_mut().zip(&mut self.writers);
        let mut write = |piece: Piece| {
            let (leaf, writer) = leaves.next().ok_or_else(too_few)?;
            leaf.write(piece, writer)
        };
        for (field, values) in self.schema.fields().iter().zip(rows.columns()) {
            match field.data_type() {
                DataType::Struct(members) if values.null_count() == values.len() => {
                    members.iter().try_for_each(|_| write(Piece::Elsewhere(values.len())))?;
                }
                DataType::Struct(_) => {
                    debug_assert_eq!(values.null_count(), 0, "an event's rows are handed over by themselves");
                    let members = values.as_struct().columns().iter();
                    members.cloned().try_for_each(|values| write(Piece::Values(values)))?;
                }
                _ => write(Piece::Values(Arc::clone(values)))?,
            }
        }
        Ok(())
    }

    /// Ends the slice.
    pub(super) fn end(&mut self) -> Result<()> {
        let writers = std::mem::take(&mut self.writers);
        if writers.is_empty() {
            return Ok(());
        }
        let Self { file, leaves, packer, written, .. } = self;
        let columns = file.schema_descr().columns().to_vec();
        let properties = Arc::clone(file.properties());
        let mut group = file.next_row_group()?;
        for ((leaf, writer), column) in leaves.iter_mut().zip(writers).zip(&columns) {
            leaf.end(column, writer, packer.as_mut(), &mut group, &properties)?;
        }
        group.close()?;
        *written += 1;
        Ok(())
    }

    /// Completes the file.
    pub(super) fn into_inner(mut self) -> Result<W> {
        self.end()?;
        self.file.into_inner()
    }
}

fn too_few() -> ParquetError {
    ParquetError::General("more columns than were described".to_owned())
}

impl<W: Write + Send> std::fmt::Debug for Slices<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slices")
            .field("schema", &self.schema)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}
