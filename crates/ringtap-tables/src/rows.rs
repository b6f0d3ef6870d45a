//! What tables are made of: records with their names, and losses.

use ringtap_format::{Event, text::Common};
use std::sync::Arc;

/// Where rows come from: the same for all rows of a buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The machine's name.
    pub host: Option<Arc<str>>,
    /// The boot that the trace is of: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<Arc<str>>,
    /// The instance, where the trace has several buffers.
    pub instance: Option<Arc<str>>,
    /// What must be added to a record's time to have nanoseconds since 1970, where that is known.
    pub epoch_ns: Option<i64>,
}

impl Origin {
    /// A record's time as the column `time` holds it: since 1970 where that is known, else as the trace's clock has it.
    pub(crate) fn time(&self, ns: u64) -> i64 {
        let ns = i64::try_from(ns).unwrap_or(i64::MAX);
        ns.saturating_add(self.epoch_ns.unwrap_or(0))
    }

    /// Whether both are the same, as it is found out at once; else they may be equal nevertheless.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let is_same = |own: &Option<Arc<str>>, other: &Option<Arc<str>>| match (own, other) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        };
        is_same(&self.host, &other.host)
            && is_same(&self.boot_id, &other.boot_id)
            && is_same(&self.instance, &other.instance)
            && self.epoch_ns == other.epoch_ns
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
    /// What all records begin with.
    pub common: Common,
    /// The name of its task.
    pub comm: &'a [u8],
    /// Its event, where its format is known.
    pub event: Option<&'a Event>,
    /// Its bytes, the common fields first.
    pub record: &'a [u8],
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
