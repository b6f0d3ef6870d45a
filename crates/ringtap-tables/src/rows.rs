//! What tables are made of: records with their names, and losses.

use arrow::datatypes::{DataType, TimeUnit};
use ringtap_format::Event;
use std::sync::Arc;

/// Where rows come from: the same for all rows of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The machine's name.
    pub host: Option<Arc<str>>,
    /// The boot that the trace is of: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<Arc<str>>,
    /// The instance, where the trace has several buffers.
    pub instance: Option<Arc<str>>,
}

/// What times mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// What must be added to a record's time to have nanoseconds since 1970, where that is known. Without, times are
    /// nanoseconds of the trace's own clock, and have no time zone.
    pub offset_ns: Option<i64>,
}

impl Clock {
    /// The type of the column `time`.
    #[must_use]
    pub fn data_type(self) -> DataType {
        DataType::Timestamp(TimeUnit::Nanosecond, self.offset_ns.map(|_| "UTC".into()))
    }

    /// A record's time as the column holds it.
    #[must_use]
    pub fn time(self, ns: u64) -> i64 {
        let ns = i64::try_from(ns).unwrap_or(i64::MAX);
        ns.saturating_add(self.offset_ns.unwrap_or(0))
    }
}

/// A record.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Where it comes from.
    pub origin: &'a Origin,
    /// Its time, in nanoseconds.
    pub time: u64,
    /// The CPU that it was written on.
    pub cpu: u32,
    /// The name of its task.
    pub comm: &'a [u8],
    /// Its event.
    pub event: &'a Event,
    /// Its bytes, the common fields first.
    pub record: &'a [u8],
}

impl Row<'_> {
    /// The thread that wrote it; 0 where the record is too short to say.
    #[must_use]
    pub fn pid(&self) -> i32 {
        let pid = self.event.target().uint(self.record, 4, 4).and_then(|pid| u32::try_from(pid).ok());
        pid.unwrap_or(0).cast_signed()
    }
}

/// Events that are not there.
#[derive(Clone, Copy, Debug)]
pub struct Lost<'a> {
    /// Where they would come from.
    pub origin: &'a Origin,
    /// The time of the record behind them, in nanoseconds.
    pub time: u64,
    /// The CPU that lost them.
    pub cpu: u32,
    /// How many, where that is known.
    pub count: Option<u64>,
}
