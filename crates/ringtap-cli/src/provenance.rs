//! Where events come from: the machine, its boot, the instance, and what its clock means.
//!
//! A trace.dat names the machine in its option UNAME. What trace.dat has no option for stands behind the version in the
//! text of the program that wrote it, the option VERSION: `ringtap 0.1.0 boot_id=... epoch_ns=...`.

use ringtap_format::trace_dat::TraceDat;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

const BOOT_ID: &str = "boot_id=";
const EPOCH_NS: &str = "epoch_ns=";

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The machine's name.
    pub host: Option<String>,
    /// The boot: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<String>,
    /// The instance; `None` for the top one.
    pub instance: Option<String>,
    /// The real time at the zero of the trace's clock, in nanoseconds since 1970.
    pub epoch_ns: Option<i64>,
}

impl Provenance {
    /// This machine's, with the clock `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn here() -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let real = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_nanos());
        let epoch = real.map(|real| real.saturating_sub(ringtap::clock::monotonic_ns().into()));
        Self {
            host: Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
            boot_id: boot_id.ok().map(|id| id.trim().to_owned()),
            instance: None,
            epoch_ns: epoch.and_then(|epoch| i64::try_from(epoch).ok()),
        }
    }

    /// What a file says.
    #[must_use]
    pub fn of(trace: &TraceDat) -> Self {
        let word = |prefix: &str| trace.writer.split_whitespace().find_map(|word| word.strip_prefix(prefix));
        Self {
            host: trace.uname.split_whitespace().nth(1).map(str::to_owned),
            boot_id: word(BOOT_ID).map(str::to_owned),
            instance: None,
            epoch_ns: word(EPOCH_NS).and_then(|ns| ns.parse().ok()),
        }
    }

    /// The same in the instance of this name; the top one's is empty.
    #[must_use]
    pub fn of_instance(&self, name: &str) -> Self {
        Self { instance: Some(name.to_owned()).filter(|name| !name.is_empty()), ..self.clone() }
    }

    /// The boot and its clock as a file has them.
    #[must_use]
    pub fn of_boot(&self) -> String {
        let boot_id = self.boot_id.as_ref().map(|id| format!("{BOOT_ID}{id}"));
        let epoch = self.epoch_ns.map(|ns| format!("{EPOCH_NS}{ns}"));
        [boot_id, epoch].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}
