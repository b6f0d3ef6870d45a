//! How an answer looks.

use super::Format;
use anyhow::Result;
use ringtap_tables::sql::display::{ArrayFormatter, FormatOptions};
use ringtap_tables::sql::json::writer::{LineDelimited, WriterBuilder};
use ringtap_tables::sql::pretty::pretty_format_batches_with_schema;
use ringtap_tables::sql::{BatchWriter, RecordBatch, SchemaRef};
use std::io::Write;
use std::sync::Arc;

/// Most rows of a table that is drawn: its columns are as wide as its widest row. More rows are another table.
const TABLE_ROWS: usize = 10_000;

/// Writes batches.
pub(super) enum Writer<W: Write + Send> {
    Table(Table<W>),
    Csv(W),
    Json(W),
    Parquet(Box<BatchWriter<W>>),
}

/// Rows that are drawn at once.
pub(super) struct Table<W> {
    out: W,
    schema: SchemaRef,
    gathered: Vec<RecordBatch>,
    tables: u64,
}

impl<W: Write + Send> Writer<W> {
    pub(super) fn new(format: Format, schema: &SchemaRef, mut out: W) -> Result<Self> {
        Ok(match format {
            Format::Table => {
                Self::Table(Table { out, schema: Arc::clone(schema), gathered: Vec::new(), tables: 0 })
            }
            Format::Csv => {
                let names = schema.fields().iter().map(|field| quoted(field.name()));
                writeln!(out, "{}", names.collect::<Vec<_>>().join(","))?;
                Self::Csv(out)
            }
            Format::Json => Self::Json(out),
            Format::Parquet => Self::Parquet(Box::new(BatchWriter::new(out, schema)?)),
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Table(table) => table.write(batch),
            Self::Csv(out) => write_csv(batch, out),
            Self::Json(out) => {
                let mut lines = Vec::new();
                let builder = WriterBuilder::new().with_explicit_nulls(true);
                let mut writer = builder.build::<_, LineDelimited>(&mut lines);
                writer.write(batch)?;
                writer.finish()?;
                Ok(out.write_all(&lines)?)
            }
            Self::Parquet(writer) => Ok(writer.write(batch)?),
        }
    }

    /// Hands the output back, complete.
    pub(super) fn finish(self) -> Result<W> {
        match self {
            Self::Table(mut table) => {
                if table.tables == 0 || !table.gathered.is_empty() {
                    table.draw()?;
                }
                Ok(table.out)
            }
            Self::Csv(out) | Self::Json(out) => Ok(out),
            Self::Parquet(writer) => Ok(writer.finish()?),
        }
    }
}

impl<W: Write> Table<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.gathered.push(batch.clone());
        let rows: usize = self.gathered.iter().map(RecordBatch::num_rows).sum();
        if rows < TABLE_ROWS { Ok(()) } else { self.draw() }
    }

    fn draw(&mut self) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        let table = pretty_format_batches_with_schema(Arc::clone(&self.schema), &gathered)?;
        self.tables += 1;
        // A terminal would obey control characters.
        let visible = |c: char| match c.is_control() && c != '\n' {
            true => char::REPLACEMENT_CHARACTER,
            false => c,
        };
        let table: String = table.to_string().chars().map(visible).collect();
        Ok(writeln!(self.out, "{table}")?)
    }
}

/// Lists and structures are text here; null is nothing.
fn write_csv(batch: &RecordBatch, out: &mut impl Write) -> Result<()> {
    let options = FormatOptions::default();
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let mut lines = String::new();
    for row in 0..batch.num_rows() {
        for (place, column) in columns.iter().enumerate() {
            if place > 0 {
                lines.push(',');
            }
            lines.push_str(&quoted(&column.value(row).try_to_string()?));
        }
        lines.push('\n');
    }
    Ok(out.write_all(lines.as_bytes())?)
}

/// As RFC 4180 has it.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
