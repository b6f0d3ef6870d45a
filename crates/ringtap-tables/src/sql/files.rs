//! Parquet files as tables: a whole trace in one file, a folder with a file for each event, or anything else.

use super::error::Kind;
use super::{OURS, QueryError, is_meant, is_ours};
use crate::table::{common_fields, dictionary};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Fields};
use datafusion::common::Column;
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::functions::core::expr_fn::{coalesce, get_field};
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use url::Url;

/// All files of a query.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// URLs of files in folders, by system and event.
    partitioned: BTreeMap<(String, String), Vec<String>>,
    /// Files of whole traces.
    wide: Vec<WideFile>,
    /// Each under the first part of its name.
    plain: BTreeMap<String, Vec<String>>,
}

#[derive(Debug)]
struct WideFile {
    path: String,
    /// The columns of events, as they are called, and their members.
    events: Vec<(String, Fields)>,
    /// System and name of the events in it.
    names: Vec<(String, String)>,
}

impl Files {
    pub(super) async fn open(context: &SessionContext, paths: &[&Path]) -> Result<Self, QueryError> {
        let mut files = Self::default();
        for path in paths {
            for file in parquet_files(path)? {
                files.add(context, &file).await?;
            }
        }
        Ok(files)
    }

    async fn add(&mut self, context: &SessionContext, file: &Path) -> Result<(), QueryError> {
        let path = url(file)?;
        if let (Some(system), Some(event)) = (partition(file, "system="), partition(file, "event=")) {
            self.partitioned.entry((system, event)).or_default().push(path);
            return Ok(());
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('.').next().unwrap_or_default().to_lowercase();
        self.plain.entry(name).or_default().push(path.clone());
        let frame = read(context, std::slice::from_ref(&path)).await?;
        let fields = frame.schema().fields();
        let has = |name: &str| fields.iter().any(|field| field.name() == name);
        if ["time", "host", "boot_id", "system", "event"].iter().all(|name| has(name)) {
            let structs = fields.iter().filter_map(|field| match field.data_type() {
                DataType::Struct(members) => Some((field.name().clone(), members.clone())),
                _ => None,
            });
            let events = structs.collect();
            let names = names(frame).await?;
            self.wide.push(WideFile { path, events, names });
        }
        Ok(())
    }

    /// System and name of each event that is in a file.
    pub(super) fn events(&self) -> impl Iterator<Item = (&str, &str)> {
        let wide = self.wide.iter().flat_map(|wide| &wide.names);
        let all = wide.chain(self.partitioned.keys()).map(|(system, name)| (system.as_str(), name.as_str()));
        all.filter(|(system, _)| *system != OURS)
    }

    /// Names of files.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.plain.keys().map(String::as_str)
    }

    pub(super) fn have_spans(&self) -> bool {
        let is_spans = |(system, name): &(String, String)| system == OURS && name == "spans";
        self.partitioned.keys().any(is_spans) || self.wide.iter().any(|wide| wide.names.iter().any(is_spans))
    }

    /// What the files hold of a table.
    pub(super) async fn frames(
        &self,
        context: &SessionContext,
        named: &TableReference,
    ) -> Result<Vec<DataFrame>, QueryError> {
        let mut frames = Vec::new();
        if is_ours(named, "events") {
            for ((system, event), paths) in &self.partitioned {
                if is_record(system, event) {
                    let named = [("system", system), ("event", event)];
                    let named =
                        named.map(|(name, value)| cast(lit(value.as_str()), dictionary()).alias(name));
                    let columns: Vec<Expr> = common().chain(named).collect();
                    frames.push(read(context, paths).await?.select(columns)?);
                }
            }
            for wide in &self.wide {
                let columns: Vec<Expr> = common().chain(["system", "event"].map(column)).collect();
                let is_other = |name| column("event").not_eq(lit(name));
                let is_event = column("system").not_eq(lit(OURS)).or(is_other("lost").and(is_other("spans")));
                let frame = read(context, std::slice::from_ref(&wide.path)).await?;
                frames.push(frame.filter(is_event)?.select(columns)?);
            }
            return Ok(frames);
        }
        for ((system, event), paths) in &self.partitioned {
            if is_meant(named, system, event) {
                frames.push(read(context, paths).await?);
            }
        }
        for wide in &self.wide {
            for (system, event) in wide.names.iter().filter(|(system, event)| is_meant(named, system, event))
            {
                frames.push(wide.event(context, system, event).await?);
            }
        }
        if frames.is_empty()
            && named.schema().is_none()
            && let Some(paths) = self.plain.get(named.table())
        {
            frames.push(read(context, paths).await?);
        }
        Ok(frames)
    }
}

impl WideFile {
    /// One event's rows and columns.
    async fn event(
        &self,
        context: &SessionContext,
        system: &str,
        event: &str,
    ) -> Result<DataFrame, QueryError> {
        let is_it = column("system").eq(lit(system)).and(column("event").eq(lit(event)));
        let frame = read(context, std::slice::from_ref(&self.path)).await?.filter(is_it)?;
        let family = self.family(system, event);
        let members = family.first().map(|(_, members)| members.clone()).unwrap_or_default();
        let fields = members.iter().map(|member| {
            let of = |(name, _): &&(String, Fields)| get_field(column(name), member.name().as_str());
            let mut all: Vec<Expr> = family.iter().map(of).collect();
            let field = if all.len() == 1 { all.remove(0) } else { coalesce(all) };
            field.alias(member.name())
        });
        let columns: Vec<Expr> = common().chain(fields).collect();
        Ok(frame.select(columns)?)
    }

    /// The columns that hold an event's fields. They are called as the exporter does: as the event; with the system before
    /// it where another column has that name; with a number behind it where records are laid out in several ways.
    fn family(&self, system: &str, event: &str) -> Vec<&(String, Fields)> {
        let long = format!("{system}_{event}");
        let own = |name: &str| self.events.iter().find(|(known, _)| known == name);
        let Some(first) = own(&long).or_else(|| own(event)) else { return Vec::new() };
        let is_numbered = |name: &str| {
            let number = name.strip_prefix(&long).and_then(|rest| rest.strip_prefix('_'));
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let is_of = |name: &str| name == event || name == long || is_numbered(name);
        self.events.iter().filter(|(name, members)| is_of(name) && *members == first.1).collect()
    }
}

/// Whether rows of this name are records, and not made by us.
fn is_record(system: &str, event: &str) -> bool {
    system != OURS || !matches!(event, "lost" | "spans")
}

/// System and name of the events in a file.
async fn names(frame: DataFrame) -> Result<Vec<(String, String)>, QueryError> {
    let text = |name| cast(column(name), DataType::Utf8).alias(name);
    let batches = frame.select(vec![text("system"), text("event")])?.distinct()?.collect().await?;
    let mut names = Vec::new();
    for batch in batches {
        let [systems, events] = [0, 1].map(|place| batch.column(place).as_string::<i32>().clone());
        let pairs = systems.iter().zip(&events);
        names.extend(pairs.filter_map(|(system, event)| Some((system?.to_owned(), event?.to_owned()))));
    }
    names.sort();
    Ok(names)
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

fn common() -> impl Iterator<Item = Expr> {
    common_fields().into_iter().map(|field| column(field.name()))
}

async fn read(context: &SessionContext, urls: &[String]) -> Result<DataFrame, QueryError> {
    // They are known to be Parquet, whatever their names end with.
    let options = ParquetReadOptions::default().file_extension("");
    Ok(context.read_parquet(urls.to_vec(), options).await?)
}

/// The file's name as a URL, in which no character means several files.
fn url(file: &Path) -> Result<String, QueryError> {
    let url = Url::from_file_path(file);
    url.map(String::from)
        .map_err(|()| QueryError(Kind::Engine(format!("{} has no absolute name", file.display()))))
}

/// The file, or the Parquet files in the folder and the folders in it; those that are not complete begin with a dot.
fn parquet_files(path: &Path) -> Result<Vec<PathBuf>, QueryError> {
    let failed = |source| QueryError(Kind::Io { path: path.display().to_string(), source });
    let path = &path.canonicalize().map_err(failed)?;
    if !path.is_dir() {
        return Ok(vec![path.clone()]);
    }
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        let is_hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let is_parquet = entry.extension().is_some_and(|extension| extension == "parquet");
        if !is_hidden && (entry.is_dir() || is_parquet) {
            files.append(&mut parquet_files(&entry)?);
        }
    }
    Ok(files)
}

/// What a folder's name says of the files in it: `sched` of `system=sched`.
fn partition(file: &Path, key: &str) -> Option<String> {
    let mut folders = file.parent()?.iter();
    folders.find_map(|folder| Some(unescaped(folder.to_str()?.strip_prefix(key)?)))
}

fn unescaped(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| byte == b'%');
        let escaped =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
