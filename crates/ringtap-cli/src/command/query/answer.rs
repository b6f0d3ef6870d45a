//! The query, what it is about, and its answer.

use super::write::Writer;
use super::{Args, Format};
use crate::command::report::{FileArgs, Item, Visit};
use crate::command::rows::{Given, Rows};
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Context, Result, anyhow, bail};
use ringtap_format::Formats;
use ringtap_tables::parquet::Store;
use ringtap_tables::sql::{Database, Failure, RecordBatch, SchemaRef, Step, Traces, What};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

/// How Parquet files begin.
const PARQUET_MAGIC: &[u8] = b"PAR1";
const MIB: usize = 1 << 20;

/// Prints the answer.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let (sql, files) = split(args)?;
    let (parquet, traces) = sort(files)?;
    let files = match traces.as_slice() {
        [] => None,
        _ => {
            let mut only = args.files.clone();
            only.files = traces;
            Some(Arc::new(Files::open(&only)?))
        }
    };
    let paths: Vec<&Path> = parquet.iter().map(PathBuf::as_path).collect();
    let memory = usize::try_from(args.memory)?.saturating_mul(MIB);
    let database = Database::open(files.clone().map(|files| -> Arc<dyn Traces> { files }), &paths, memory)?;
    match sql {
        Some(sql) => {
            let answer = database.ask(sql)?;
            let schema = Arc::clone(answer.schema());
            write(args, &schema, answer.map(|batch| batch.map_err(anyhow::Error::from)), output)?;
        }
        None => {
            let (schema, batch) = database.list()?;
            write(args, &schema, std::iter::once(Ok(batch)), output)?;
        }
    }
    match files.and_then(|files| files.damage.lock().unwrap_or_else(PoisonError::into_inner).take()) {
        Some(damage) => bail!("{damage}; the answer is of all that can be read"),
        None => Ok(Outcome::Done),
    }
}

/// The query, if there is one, and the files before it.
fn split(args: &Args) -> Result<(Option<&str>, &[PathBuf])> {
    let all = args.files.files.as_slice();
    if args.list {
        return Ok((None, all));
    }
    match all.split_last() {
        Some((sql, files)) if !files.is_empty() && !sql.exists() => {
            Ok((Some(sql.to_str().context("the query is no UTF-8")?), files))
        }
        Some((last, _)) if last.exists() => {
            bail!(
                "behind the FILEs there is no query, such as 'SELECT count(*) FROM events'; --list tells which tables there are"
            )
        }
        _ => bail!("before the query there is no FILE to be asked"),
    }
}

/// Files of Parquet, and others.
fn sort(files: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut parquet, mut traces) = (Vec::new(), Vec::new());
    for path in files {
        let kind = if is_parquet(path)? { &mut parquet } else { &mut traces };
        kind.push(path.clone());
    }
    Ok((parquet, traces))
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

/// Writes the batches where they were asked for. A file has its name once it is complete.
fn write(
    args: &Args,
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch>>,
    output: &mut Output,
) -> Result<()> {
    let Some(path) = &args.output else {
        if args.format == Format::Parquet && output.is_terminal() {
            bail!("Parquet is nothing to look at; name a file with -o");
        }
        let out = BufWriter::new(AsIs(output));
        return Ok(write_to(args.format, schema, batches, out)?.flush()?);
    };
    args.files.check_output(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).context("the output has no name in UTF-8")?;
    if !folder.is_dir() {
        bail!("cannot make {}: there is no folder {}", path.display(), folder.display());
    }
    let store = Store::open(folder.to_str().context("the output's folder is no UTF-8")?)?;
    Ok(write_to(args.format, schema, batches, store.create(name)?)?.complete()?)
}

/// The standard output without a filter for colours, which would take away what only looks like them.
struct AsIs<'a>(&'a mut Output);

impl Write for AsIs<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_as_is(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

fn write_to<W: Write + Send>(
    format: Format,
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch>>,
    out: W,
) -> Result<W> {
    let mut writer = Writer::new(format, schema, out)?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.finish()
}

/// The traces' files.
struct Files {
    first: Visit,
    /// Nobody has read them so far, who would have told what is damaged.
    is_new: Mutex<bool>,
    /// What is damaged in them, as far as they were read.
    damage: Mutex<Option<String>>,
}

impl Files {
    fn open(args: &FileArgs) -> Result<Self> {
        Ok(Self { first: Visit::new(args)?, is_new: Mutex::new(true), damage: Mutex::default() })
    }
}

/// A reader has enough.
#[derive(Debug, Error)]
#[error("enough")]
struct Enough;

impl Traces for Files {
    fn formats(&self, each: &mut dyn FnMut(&Formats)) {
        self.first.formats().for_each(each);
    }

    fn read(&self, each: &mut dyn FnMut(&Step<'_>) -> ControlFlow<()>) -> Result<(), Failure> {
        let is_new = std::mem::take(&mut *self.is_new.lock().unwrap_or_else(PoisonError::into_inner));
        let mut visit = if is_new { self.first.anew() } else { self.first.again() };
        let mut rows = Rows::default();
        let each = |item: &Item<'_>| {
            let what = match rows.of(item) {
                Given::Row(row) => What::Row(row),
                Given::Lost(lost) => What::Lost(lost),
            };
            match each(&Step { trace: item.group, formats: item.sources.formats, what }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(anyhow!(Enough)),
            }
        };
        match visit.walk(each, |_, _| {}) {
            Ok(None) => Ok(()),
            Ok(damage) => {
                *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = damage;
                Ok(())
            }
            Err(error) if error.is::<Enough>() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("damage", &self.damage).finish_non_exhaustive()
    }
}
