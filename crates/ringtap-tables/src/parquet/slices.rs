//! A file that is written slice by slice, each a row group.

use super::runs::Runs;
use crate::table::dictionary;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use std::io::Write;
use std::sync::Arc;

/// Columns that mostly have the same word in many rows, where they are dictionaries.
const UNIFORM: [&str; 5] = ["host", "boot_id", "instance", "system", "event"];

/// The writer of a file.
pub(super) struct Slices<W: Write + Send> {
    file: SerializedFileWriter<W>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// The slice's columns as far as they are encoded: one for each that holds plain values, structs' members among them.
    columns: Vec<ArrowColumnWriter>,
    /// Of each of the schema's fields that is uniform, what it has in this slice; encoded at its end.
    uniform: Vec<Option<Vec<ArrayRef>>>,
    written: usize,
}

impl<W: Write + Send> Slices<W> {
    /// An empty file.
    pub(super) fn new(out: W, schema: &SchemaRef, properties: WriterProperties) -> Result<Self> {
        let writer = ArrowWriter::try_new(out, Arc::clone(schema), Some(properties))?;
        let (file, factory) = writer.into_serialized_writer()?;
        let of_dictionary = dictionary();
        let is_uniform = |name: &str| UNIFORM.contains(&name);
        let fields = schema.fields().iter();
        let uniform = fields
            .map(|field| (is_uniform(field.name()) && *field.data_type() == of_dictionary).then(Vec::new));
        let uniform = uniform.collect();
        Ok(Self { file, factory, schema: Arc::clone(schema), columns: Vec::new(), uniform, written: 0 })
    }

    /// Adds rows to the slice.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.columns.is_empty() {
            self.columns = self.factory.create_column_writers(self.written)?;
        }
        let mut columns = self.columns.iter_mut();
        let fields = self.schema.fields().iter().zip(rows.columns());
        for ((field, values), uniform) in fields.zip(&mut self.uniform) {
            if let Some(arrays) = uniform {
                arrays.push(Arc::clone(values));
                columns.next();
                continue;
            }
            for leaf in compute_leaves(field, values)? {
                columns.next().ok_or_else(too_few)?.write(&leaf)?;
            }
        }
        Ok(())
    }

    /// Ends the slice.
    pub(super) fn end(&mut self) -> Result<()> {
        let columns = std::mem::take(&mut self.columns);
        if columns.is_empty() {
            return Ok(());
        }
        let Self { file, schema, uniform, written, .. } = self;
        let (descriptions, properties) =
            (file.schema_descr().columns().to_vec(), Arc::clone(file.properties()));
        let mut group = file.next_row_group()?;
        for (place, mut column) in columns.into_iter().enumerate() {
            // The uniform fields come before lists and structs: up to there, fields and columns are the same.
            if let Some(Some(arrays)) = uniform.get_mut(place) {
                let (arrays, description) = (std::mem::take(arrays), &descriptions[place]);
                if let Some(runs) = Runs::of(&arrays) {
                    let level = properties.statistics_enabled(description.path());
                    runs.append(description, level == EnabledStatistics::Page, &mut group)?;
                    continue;
                }
                for array in arrays {
                    compute_leaves(schema.field(place), &array)?
                        .iter()
                        .try_for_each(|leaf| column.write(leaf))?;
                }
            }
            column.close()?.append_to_row_group(&mut group)?;
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
