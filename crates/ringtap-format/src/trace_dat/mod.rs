//! trace-cmd's file, versions 6 and 7, of any byte order and word size, compressed or not.
//!
//! ```text
//!   TraceDat::open(source)    the descriptions: events, names, clocks, where each CPU's data lie
//!     .events(..)             the events, to be printed
//!   Timeline                  the records of all CPUs and buffers, of one or several files, by time
//!   CpuPages                  one CPU's sub-buffers as they are
//!   TraceDatWriter            a file while it is recorded
//! ```
//!
//! The descriptions are held in memory; the data are read in windows, however long they are. What is damaged is
//! told beside what can be read: see [`TraceDat::complaints`] and [`Item`].

mod compression;
mod pages;
pub mod raw;
mod read;
mod source;
mod timeline;
mod write;

pub use compression::Compression;
pub use pages::{CpuPages, RawPage};
pub use source::ReadAt;
pub use timeline::{Item, Origin, Timed, Timeline};
pub use write::{BufferPlan, Descriptions, FilePlan, Move, Piece, TraceDatWriter, WriteError};

use crate::constants::Constants;
use crate::dialect::Dialect;
use crate::event::Formats;
use crate::format::FormatError;
use crate::header::{HeaderError, PageLayout};
use std::ops::Range;

/// A trace.dat's descriptions.
#[derive(Clone, Debug)]
pub struct TraceDat {
    /// 6 or 7.
    pub version: u8,
    /// The layout of its sub-buffers, with the machine that wrote them.
    pub layout: PageLayout,
    /// The text of `events/header_page`.
    pub header_page: String,
    /// The text of `events/header_event`.
    pub header_event: String,
    /// How its sections are compressed.
    pub compression: Compression,
    /// Each format file with its system.
    pub formats: Vec<(String, String)>,
    /// `/proc/kallsyms`
    pub kallsyms: String,
    /// `printk_formats`
    pub printk_formats: String,
    /// `saved_cmdlines`
    pub tasks: Vec<u8>,
    /// The clocks as `trace_clock` shows them, the chosen one in brackets.
    pub clocks: String,
    /// The machine's system and release.
    pub uname: String,
    /// The version of the program that wrote the file.
    pub writer: String,
    /// The CPUs' counters when the recording ended, as text.
    pub cpu_stats: Vec<String>,
    /// How the file's times become nanoseconds.
    pub clock: Clock,
    /// The buffers; one without a name is the main one.
    pub buffers: Vec<Buffer>,
    /// What is damaged, or missing, or makes no sense; all else is here.
    pub complaints: Vec<TraceDatError>,
}

/// A buffer: the sub-buffers of its CPUs.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// The name of the tracing instance; empty for the main one.
    pub name: String,
    /// The name of its clock.
    pub clock: String,
    /// The layout of its sub-buffers.
    pub layout: PageLayout,
    /// Its CPUs' data.
    pub cpus: Vec<CpuData>,
}

/// Where a CPU's sub-buffers lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuData {
    /// The CPU.
    pub cpu: u32,
    /// Where in the file, in bytes.
    pub span: Range<u64>,
    /// How they are compressed.
    pub compression: Compression,
}

impl CpuData {
    /// All of a file that holds one CPU's sub-buffers and nothing else, as `trace_pipe_raw` hands them out.
    #[must_use]
    pub const fn plain(cpu: u32, span: Range<u64>) -> Self {
        Self { cpu, span, compression: Compression::None }
    }
}

/// From ticks of a processor's counter to nanoseconds: `(ticks * mult) >> shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TscToNs {
    /// Nanoseconds per tick, times two to the power of `shift`.
    pub mult: u32,
    /// See `mult`.
    pub shift: u32,
    /// Nanoseconds between the counter's zero and that of the kernel's clock.
    pub offset: u64,
}

/// How a file's times become nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// For a clock that counts the processor's ticks.
    pub tsc: Option<TscToNs>,
    /// Added then, in nanoseconds: what `--date` and `--ts-offset` asked for.
    pub offset: i64,
}

impl Clock {
    fn add(&mut self, ns: i64) {
        self.offset = self.offset.saturating_add(ns);
    }

    /// The time of a record.
    #[must_use]
    #[inline]
    pub fn ns(&self, time: u64) -> u64 {
        let ns = match self.tsc {
            None => time,
            Some(TscToNs { mult, shift, .. }) => {
                let product = u128::from(time).wrapping_mul(u128::from(mult));
                u64::try_from(product.checked_shr(shift).unwrap_or(0)).unwrap_or(u64::MAX)
            }
        };
        ns.saturating_add_signed(self.offset)
    }
}

/// A file that is no trace.dat, or a part of it that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceDatError {
    /// Something else stands there.
    #[error("byte {offset}: expected {expected}")]
    Expected {
        /// Where.
        offset: u64,
        /// What should stand there.
        expected: &'static str,
    },
    /// The file ends too early.
    #[error("byte {offset}: expected {expected} of {len} bytes, found the file's end")]
    End {
        /// Where it starts.
        offset: u64,
        /// What it is.
        expected: &'static str,
        /// How long it claims to be.
        len: u64,
    },
    /// The end of a CPU's data is missing.
    #[error("byte {offset}: the last {len} bytes of CPU {cpu}'s data are missing")]
    Missing {
        /// Where they should start.
        offset: u64,
        /// The CPU.
        cpu: u32,
        /// How many there should be.
        len: u64,
    },
    /// What is compressed cannot be unpacked.
    #[error("byte {offset}: cannot unpack: {error}")]
    Compressed {
        /// Where it starts.
        offset: u64,
        /// Why.
        error: String,
    },
    /// `header_page` is impossible.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The system cannot read the file.
    #[error("byte {offset}: {error}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        error: String,
    },
}

impl TraceDatError {
    pub(crate) fn io(offset: u64, error: &std::io::Error) -> Self {
        Self::Io { offset, error: error.to_string() }
    }

    /// Where in the file, in bytes.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        match self {
            Self::Expected { offset, .. }
            | Self::End { offset, .. }
            | Self::Missing { offset, .. }
            | Self::Compressed { offset, .. }
            | Self::Io { offset, .. } => *offset,
            Self::Header(_) => 0,
        }
    }

    /// Whether the bytes ended too early.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::End { .. })
    }
}

impl TraceDat {
    /// Reads a file's descriptions. Those that are damaged are left out and complained of; the records are read
    /// by a [`Timeline`].
    ///
    /// # Errors
    /// It is no trace.dat of version 6 or 7, or what is needed to read any record is missing.
    pub fn open(source: &impl ReadAt) -> Result<Self, TraceDatError> {
        read::open(source)
    }

    /// Its events, with libtraceevent's plugins if asked for; and the format files that cannot be read.
    #[must_use]
    pub fn events(
        &self,
        dialect: Dialect,
        plugins: bool,
        constants: Constants,
    ) -> (Formats, Vec<FormatError>) {
        let mut formats = Formats::new(self.layout.target, dialect);
        *formats.constants_mut() = constants;
        if plugins {
            formats.use_plugins();
        }
        let failed =
            self.formats.iter().filter_map(|(system, text)| formats.add(system, text).err()).collect();
        (formats, failed)
    }

    /// Whether its records' times are nanoseconds, by way of [`Clock::ns`].
    #[must_use]
    pub fn is_in_ns(&self) -> bool {
        self.clock.tsc.is_some() || !matches!(self.clock_name(), "counter" | "x86-tsc" | "arm64-cntvct")
    }

    /// How many CPUs it has data of, as `trace-cmd report` counts them: in its largest buffer.
    #[must_use]
    pub fn cpu_count(&self) -> u32 {
        let cpus = self.buffers.iter().map(|buffer| buffer.cpus.len()).max();
        u32::try_from(cpus.unwrap_or(0)).unwrap_or(u32::MAX)
    }
}

/// Most steps that a byte of a file may become: a record takes 4 bytes, and each chunk is limited by what it says.
const MAX_STEPS: usize = 1 << 16;

/// What the reader promises on any bytes: values, losses and complaints in the end, and no panic. Fuzzers and tests
/// call it.
pub fn check_trace_dat(bytes: &[u8]) {
    let Ok(file) = TraceDat::open(&bytes) else { return };
    let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut timeline = Timeline::new();
    timeline.push_file(0, &file, &bytes);
    let mut failed = 0;
    for _ in 0..MAX_STEPS {
        let Some(timed) = timeline.next() else { break };
        match timed.step {
            Item::Damaged { offset, .. } => assert!(offset <= len, "damage lies in the file"),
            Item::Failed(_) => failed = usize::saturating_add(failed, 1),
            Item::Record(_) | Item::Lost(_) => {}
        }
    }
    assert!(failed <= timeline.origins().count(), "each lane fails once");
}

#[cfg(test)]
mod tests;
