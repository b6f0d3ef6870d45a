//! The query, its traces and its answer.

use super::{Args, Format};
use crate::command::report::{Item, visit};
use crate::command::rows::{Given, Rows};
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use ringtap_tables::sql::{Answer, Query, csv, json, pretty, write_batches};
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// How Parquet files begin.
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// Prints the answer.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let mut traces = args.files.clone();
    let mut parquet: Vec<PathBuf> = Vec::new();
    let Some((sql, files)) = args.files.files.split_last().filter(|(_, files)| !files.is_empty()) else {
        bail!("give one or more FILEs and, behind them, a query, such as 'SHOW TABLES'");
    };
    let sql = sql.to_str().context("the query is no UTF-8")?;
    let mut query = Query::new(sql).with_context(|| format!("cannot parse {sql:?}"))?;
    traces.files.clear();
    for path in files {
        match is_parquet(path)? {
            true => parquet.push(path.clone()),
            false => traces.files.push(path.clone()),
        }
    }
    let damage = if traces.files.is_empty() {
        None
    } else {
        let (mut rows, mut declared) = (Rows::default(), HashSet::new());
        let each = |item: &Item<'_>| {
            if declared.insert(item.group) {
                query.declare(item.group, item.sources.formats);
            }
            match rows.of(item) {
                Given::Row(row) => query.row(item.group, item.sources.formats, &row),
                Given::Lost(lost) => query.lost(item.group, &lost),
            }
            Ok(())
        };
        visit(&traces, each, |_, _| {})?
    };
    let parquet: Vec<&Path> = parquet.iter().map(PathBuf::as_path).collect();
    let answer = query.run(&parquet)?;
    match &args.output {
        None => write(&answer, args.format, output)?,
        Some(path) => {
            let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
            write(&answer, args.format, &mut file)?;
        }
    }
    match damage {
        Some(damage) => bail!("{damage}; the answer is of all that can be read"),
        None => Ok(Outcome::Done),
    }
}

fn is_parquet(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Ok(true);
    }
    let mut start = [0; PARQUET_MAGIC.len()];
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    // What is shorter is no Parquet.
    Ok(file.read_exact(&mut start).is_ok() && start == *PARQUET_MAGIC)
}

fn write(answer: &Answer, format: Format, mut out: impl Write + Send) -> Result<()> {
    let Answer { schema, batches } = answer;
    match format {
        Format::Table => {
            let schema = std::sync::Arc::clone(schema);
            let table = pretty::pretty_format_batches_with_schema(schema, batches)?;
            writeln!(out, "{table}")?;
        }
        Format::Csv => {
            let mut writer = csv::Writer::new(&mut out);
            if batches.is_empty() {
                let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                drop(writer);
                writeln!(out, "{}", names.join(","))?;
                return Ok(());
            }
            batches.iter().try_for_each(|batch| writer.write(batch))?;
        }
        Format::Json => {
            let mut writer = json::LineDelimitedWriter::new(&mut out);
            batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
        }
        Format::Parquet => write_batches(&mut out, schema, batches)?,
    }
    Ok(out.flush()?)
}
