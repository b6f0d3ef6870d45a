//! Dead buffers' files, and what they hold, by time.

use anyhow::{Context, Result, bail};
use ringtap::clock::ClockId;
use ringtap::recover::{Recovered, Step};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A buffer's bytes.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl Dead {
    /// # Errors
    /// It is no file, or cannot be read.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        // A pipe would be waited for.
        if !std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.is_file() {
            bail!("{shown} is no regular file; copy what it holds to one");
        }
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.with_context(|| format!("cannot read {shown}"))?;
        Ok(Self { path: path.to_owned(), bytes })
    }
}

/// An event, or how many stood here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    pub(super) cpu: u32,
    /// Nanoseconds of the boot's `CLOCK_MONOTONIC`, or ticks of a clock that tells no time.
    pub(super) time: u64,
    pub(super) record: Result<&'a [u8], u64>,
}

/// All buffers' events, by time.
#[derive(Debug, Default)]
pub(super) struct Kept<'a> {
    pub(super) items: Vec<Item<'a>>,
    pub(super) records: u64,
    pub(super) lost: u64,
    /// Whether times are nanoseconds.
    pub(super) in_ns: bool,
}

impl<'a> Kept<'a> {
    /// `all`: those that were handed to a reader, too.
    pub(super) fn of<'r>(buffers: impl Iterator<Item = &'r Recovered<'a>>, all: bool) -> Self
    where
        'a: 'r,
    {
        let mut kept = Self { in_ns: true, ..Self::default() };
        for buffer in buffers {
            kept.in_ns &= buffer.clock() != Some(ClockId::Counter);
            kept.add(buffer, all);
        }
        // Each CPU's are in order: those of the same time stay so.
        kept.items.sort_by_key(|item| item.time);
        kept
    }

    fn add(&mut self, buffer: &Recovered<'a>, all: bool) {
        let (cpu, conversion) = (buffer.cpu(), buffer.conversion());
        let mut time = 0;
        // Losses have the time of the event behind them.
        let mut missing: Option<u64> = None;
        buffer.steps(all, |step| match step {
            Step::Lost(count) => missing = Some(missing.unwrap_or(0).saturating_add(count)),
            Step::Record { ticks, payload } => {
                time = conversion.ns(ticks);
                self.push_lost(cpu, time, missing.take());
                self.records += 1;
                self.items.push(Item { cpu, time, record: Ok(payload) });
            }
        });
        self.push_lost(cpu, time, missing);
    }

    fn push_lost(&mut self, cpu: u32, time: u64, count: Option<u64>) {
        if let Some(count) = count {
            self.lost = self.lost.saturating_add(count);
            self.items.push(Item { cpu, time, record: Err(count) });
        }
    }
}
