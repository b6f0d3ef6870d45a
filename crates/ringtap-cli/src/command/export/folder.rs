//! A folder of the Common Trace Format.

use super::exporter::Exporter;
use crate::command::report::{Item, What};
use anyhow::{Context, Result, bail};
use ringtap_format::ctf::{Options, Version, Writer};
use ringtap_format::text::Entry;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Bytes gathered before they are written.
const CHUNK: usize = 1 << 20;

/// The folder and its writer.
#[derive(Debug)]
pub(super) struct CtfFolder {
    path: PathBuf,
    writer: Writer,
    files: HashMap<String, File>,
}

impl CtfFolder {
    /// Makes the folder.
    ///
    /// # Errors
    /// It cannot be made, or holds something.
    pub(super) fn create(path: &Path, version: Version) -> Result<Self> {
        let shown = path.display();
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {shown}"))?;
        let mut held = fs::read_dir(path).with_context(|| format!("cannot read {shown}"))?;
        if held.next().is_some() {
            bail!("the folder {shown} is not empty; remove it, or name another");
        }
        let options = Options { version, uuid: uuid()?, environment: environment() };
        Ok(Self { path: path.to_owned(), writer: Writer::new(options), files: HashMap::new() })
    }

    fn drain(&mut self) -> Result<()> {
        let Self { path, writer, files } = self;
        writer.drain(|name, bytes| {
            let shown = path.join(name);
            let file = match files.get_mut(name) {
                Some(file) => file,
                None => {
                    let made = File::create_new(&shown);
                    let made = made.with_context(|| format!("cannot make {}", shown.display()))?;
                    files.entry(name.to_owned()).or_insert(made)
                }
            };
            file.write_all(bytes).with_context(|| format!("cannot write to {}", shown.display()))
        })
    }
}

impl Exporter for CtfFolder {
    fn item(&mut self, item: &Item<'_>) -> Result<()> {
        let &Item { group, sources, cpu, time, what, .. } = item;
        match what {
            What::Record(record) => self.writer.entry(group, &Entry { cpu, time, record }, &sources),
            What::Lost(count) => self.writer.lost(group, cpu, time, count),
        }
        if self.writer.ready() >= CHUNK { self.drain() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<()> {
        self.writer.finish();
        self.drain()
    }

    fn notes(&self) -> Vec<String> {
        let older = match self.writer.reordered() {
            0 => None,
            count => Some(format!("{count} events were older than the one before and have its time")),
        };
        older.into_iter().collect()
    }
}

/// A random number, marked as one.
fn uuid() -> Result<[u8; 16]> {
    let mut uuid = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut uuid));
    random.context("cannot read /dev/urandom")?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

fn environment() -> Vec<(String, String)> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![pair("tracer_name", "ringtap"), pair("tracer_version", env!("CARGO_PKG_VERSION"))]
}
