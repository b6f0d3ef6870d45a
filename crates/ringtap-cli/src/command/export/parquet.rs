//! Parquet: one file of a whole trace, or a folder with a file for each event.

use super::exporter::Exporter;
use super::{Args, Partition};
use crate::command::report::{Item, What};
use crate::command::rows::{Given, Rows};
use crate::misuse;
use crate::provenance::Provenance;
use anyhow::{Context, Result, bail};
use ringtap_format::text::Common;
use ringtap_tables::Spans;
use ringtap_tables::parquet::{By, Layout, Options, Partitioned, Store, StoreFile, Wide};
use std::fs::File;
use std::io::Read;

/// Finds out which events a trace holds, as a file that is going to have a column for each needs to know.
#[derive(Debug)]
pub(super) struct Survey(Layout);

impl Survey {
    /// One for what was asked for, where it needs one.
    pub(super) fn of(args: &Args) -> Option<Self> {
        args.parquet.partition.is_none().then(|| Self(Layout::new(args.parquet.spans)))
    }

    pub(super) fn see(&mut self, item: &Item<'_>) {
        if let What::Record(record) = item.what {
            let id = Common::of(record, item.sources.formats.target()).id;
            self.0.see(item.group, id, item.sources.formats.by_id(id));
        }
    }
}

/// Writes Parquet.
pub(super) struct Parquet {
    writer: Option<Writer>,
    spans: Option<Spans>,
    rows: Rows,
}

enum Writer {
    Wide(Box<Wide<StoreFile>>),
    Partitioned(Box<Partitioned>),
}

impl Parquet {
    /// Makes the file; of a folder, the first file is made once there are rows for it.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn create(args: &Args, survey: Option<Survey>) -> Result<Self> {
        let typed = Provenance {
            host: args.parquet.host.clone(),
            boot_id: args.parquet.boot_id.clone(),
            instance: None,
            epoch_ns: args.parquet.epoch.and_then(|ns| i64::try_from(ns).ok()),
        };
        let place = args.output.to_str().context("the name of the output is no UTF-8")?;
        if place == "-" {
            misuse!("Parquet is a file or a folder: name one, `-` is none");
        }
        let options = Options::default();
        let by = args.parquet.partition.map(|partition| match partition {
            Partition::Event => By::Event,
            Partition::Hour => By::EventAndHour,
        });
        let writer = match (by, survey) {
            (Some(by), _) => {
                let store = Store::open(place)?;
                Writer::Partitioned(Box::new(Partitioned::new(store, &unique_name(&typed)?, by, options)))
            }
            (None, Some(Survey(layout))) => {
                let (store, name) = split(place, &typed)?;
                Writer::Wide(Box::new(Wide::new(store.create(&name)?, layout, &options)?))
            }
            (None, None) => bail!(
                "a file of Parquet has columns for all its events, and nobody knows them before a live trace ends; give --partition event"
            ),
        };
        let spans = args.parquet.spans.then(Spans::default);
        Ok(Self { writer: Some(writer), spans, rows: Rows::new(typed) })
    }
}

/// The folder and the file's name: as typed, or one that no other export has, where a folder was typed.
fn split(place: &str, typed: &Provenance) -> Result<(Store, String)> {
    let is_remote = place.contains("://");
    let is_folder = place.ends_with('/') || (!is_remote && std::path::Path::new(place).is_dir());
    if is_folder {
        return Ok((Store::open(place)?, format!("{}.parquet", unique_name(typed)?)));
    }
    let (folder, name) = place.rsplit_once('/').unwrap_or((".", place));
    let folder = if folder.is_empty() { "/" } else { folder };
    if !is_remote && !std::path::Path::new(folder).is_dir() {
        bail!("cannot make {place}: there is no folder {folder}");
    }
    Ok((Store::open(folder)?, name.to_owned()))
}

/// A name for files that no other export chooses.
fn unique_name(typed: &Provenance) -> Result<String> {
    let mut random = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    read.context("cannot read /dev/urandom")?;
    let host = typed.host.clone().or_else(|| Provenance::here().host).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let host: String = host.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    Ok(format!("{}-{:016x}", host.trim_start_matches('.'), u64::from_le_bytes(random)))
}

impl Exporter for Parquet {
    fn item(&mut self, item: &Item<'_>) -> Result<()> {
        let Self { writer, spans, rows } = self;
        let Some(writer) = writer else { return Ok(()) };
        let row = match rows.of(item) {
            Given::Row(row) => row,
            Given::Lost(lost) => {
                spans.iter_mut().for_each(|spans| spans.lost(item.group));
                return Ok(match writer {
                    Writer::Wide(writer) => writer.lost(&lost),
                    Writer::Partitioned(writer) => writer.lost(&lost),
                }?);
            }
        };
        match writer {
            Writer::Wide(writer) => writer.row(item.group, &row),
            Writer::Partitioned(writer) => writer.row(item.group, &row),
        }?;
        if let Some(spans) = spans
            && let Some(span) = spans.push(item.group, item.sources.formats, &row)
        {
            match writer {
                Writer::Wide(writer) => writer.span(&span, &row),
                Writer::Partitioned(writer) => writer.span(&span, &row),
            }?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        match self.writer.take() {
            Some(Writer::Wide(writer)) => writer.finish()?.0.complete()?,
            Some(Writer::Partitioned(writer)) => drop(writer.finish()?),
            None => {}
        }
        Ok(())
    }
}
