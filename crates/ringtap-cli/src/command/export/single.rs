//! Formats that are one file.

use super::exporter::Exporter;
use crate::command::report::{Item, What};
use crate::output::Output;
use anyhow::{Context, Result};
use ringtap_format::model::Threads;
use ringtap_format::text::{Common, Entry, Sources};
use ringtap_format::{chrome, perfetto};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes gathered before they are written.
const CHUNK: usize = 1 << 18;

/// The two writers, which have the same manners.
#[derive(Debug)]
pub(super) enum Writer {
    Perfetto(perfetto::Writer),
    Chrome(chrome::Writer),
}

impl Writer {
    fn entry(&mut self, group: u32, entry: &Entry<'_>, sources: &Sources<'_>) {
        match self {
            Self::Perfetto(writer) => writer.entry(group, entry, sources),
            Self::Chrome(writer) => writer.entry(group, entry, sources),
        }
    }

    fn lost(&mut self, group: u32, cpu: u32, time: u64, count: Option<u64>) {
        match self {
            Self::Perfetto(writer) => writer.lost(group, cpu, time, count),
            Self::Chrome(writer) => writer.lost(group, cpu, time, count),
        }
    }

    fn finish(&mut self) {
        match self {
            Self::Perfetto(writer) => writer.finish(),
            Self::Chrome(writer) => writer.finish(),
        }
    }

    fn bytes(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Perfetto(writer) => writer.take(),
            Self::Chrome(writer) => writer.take(),
        }
    }

    fn threads(&mut self) -> &mut Threads {
        match self {
            Self::Perfetto(writer) => writer.threads(),
            Self::Chrome(writer) => writer.threads(),
        }
    }
}

/// Where the bytes go.
enum Sink {
    File(File, PathBuf),
    Stdout(Output),
}

/// A file and its writer.
pub(super) struct SingleFile {
    sink: Sink,
    writer: Writer,
    /// Threads are of this machine, and may still run.
    is_live: bool,
}

impl SingleFile {
    /// Makes the file, or empties it; `-` is the standard output.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn create(path: &Path, writer: Writer, is_live: bool) -> Result<Self> {
        let sink = match path.to_str() {
            Some("-") => Sink::Stdout(Output::stdout(clap::ColorChoice::Never)),
            _ => {
                let made = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
                Sink::File(made, path.to_owned())
            }
        };
        Ok(Self { sink, writer, is_live })
    }

    fn write(&mut self) -> Result<()> {
        let bytes = self.writer.bytes();
        match &mut self.sink {
            Sink::File(file, path) => {
                file.write_all(bytes).with_context(|| format!("cannot write to {}", path.display()))?;
            }
            Sink::Stdout(output) => output.write_as_is(bytes)?,
        }
        bytes.clear();
        Ok(())
    }

    /// Tells the process of a thread that was not seen before, where it can still be asked for.
    fn ask_process(&mut self, sources: &Sources<'_>, record: &[u8]) {
        let tid = Common::of(record, sources.formats.target()).pid;
        if tid > 0 && !self.writer.threads().knows_process(tid) {
            self.writer.threads().set_process(tid, process_of(tid).unwrap_or(tid));
        }
    }
}

fn process_of(tid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

impl Exporter for SingleFile {
    fn item(&mut self, item: &Item<'_>) -> Result<()> {
        let &Item { group, sources, cpu, time, what, .. } = item;
        match what {
            What::Record(record) => {
                if self.is_live {
                    self.ask_process(&sources, record);
                }
                self.writer.entry(group, &Entry { cpu, time, record }, &sources);
            }
            What::Lost(count) => self.writer.lost(group, cpu, time, count),
        }
        if self.writer.bytes().len() >= CHUNK { self.write() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<()> {
        self.writer.finish();
        self.write()
    }
}
