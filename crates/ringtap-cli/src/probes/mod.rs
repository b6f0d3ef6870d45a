//! Probes in programs that nobody changed: `-p BINARY:FUNCTION` and `-u BINARY:PROVIDER:NAME`.
//!
//! ```text
//!   Args      what was typed
//!   plan      files found, symbols and notes read: where each probe goes, and what it records
//!   install   the kernel's uprobe_events, in a group of this process's own; gone when dropped
//! ```

mod elf;
mod spec;
mod usdt;

use anyhow::{Context, Result, anyhow};
use ringtap::tracefs::{EventName, Instance, Place, Tracefs, Uprobes};
use spec::{FunctionSpec, UsdtSpec};
use std::fmt;

/// What was typed.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "probes")]
pub struct Args {
    /// With --kernel: trace a function's calls, or its returns: BINARY:FUNCTION[%return], then what is recorded
    #[arg(short = 'p', long = "probe", value_name = "PROBE", requires = "kernel")]
    functions: Vec<FunctionSpec>,
    /// With --kernel: trace a probe that a program's authors put there (USDT): BINARY:PROVIDER:NAME
    #[arg(short, long, value_name = "PROBE", requires = "kernel")]
    usdt: Vec<UsdtSpec>,
}

impl Args {
    /// Whether nothing was typed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.usdt.is_empty()
    }
}

/// A probe that can be put in.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The event that it is shown as.
    pub shown: EventName,
    place: Place,
    fetch: String,
    /// Arguments that the kernel cannot record, and why.
    left_out: Vec<String>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { path, offset, is_return, .. } = &self.place;
        let at = if *is_return { "the return of" } else { "" };
        let at = if at.is_empty() { String::new() } else { format!("{at} ") };
        write!(f, "probe {at}{}+{offset:#x} as {}", path.display(), self.shown)?;
        if !self.fetch.is_empty() {
            write!(f, ", recording {}", self.fetch)?;
        }
        self.left_out.iter().try_for_each(|why| write!(f, "\n  without {why}"))
    }
}

/// Finds where the probes go; nothing is changed.
///
/// # Errors
/// No such file, function or probe, or this kernel or user may not probe.
pub fn plan(args: &Args, tracefs: &Tracefs) -> Result<Vec<Probe>> {
    if args.is_empty() {
        return Ok(Vec::new());
    }
    tracefs.check_uprobes()?;
    let mut probes = Vec::new();
    for spec in &args.functions {
        probes.push(spec.plan()?);
    }
    for spec in &args.usdt {
        probes.extend(spec.plan()?);
    }
    Ok(probes)
}

/// What may be wrong where the kernel refuses a probe that records something.
const ARGS_HINT: &str =
    "what is recorded is written NAME=WHERE:TYPE, such as size=%di:u64, and $retval needs %return";

/// Probes that are in use. They have to outlive the instance that records them.
#[derive(Debug)]
pub struct Installed {
    /// How each is shown, and what the kernel calls it.
    pub events: Vec<(EventName, EventName)>,
    /// Removes them.
    _group: Option<Uprobes>,
}

impl Installed {
    /// Puts the probes in, and removes those of runs that were killed.
    ///
    /// # Errors
    /// The kernel refuses one. None stays behind.
    pub fn new(probes: &[Probe], tracefs: &Tracefs) -> Result<Self> {
        if probes.is_empty() {
            return Ok(Self { events: Vec::new(), _group: None });
        }
        // What a killed run left behind is in nobody's way, so failing to tidy it is no reason to stop.
        let _ = tracefs.remove_stale_uprobes();
        let mut group = tracefs.uprobes()?;
        let mut events = Vec::new();
        for probe in probes {
            let added = group.add(&probe.shown.name, &probe.place, &probe.fetch);
            let kernels = added.map_err(|error| match probe.fetch.is_empty() {
                true => anyhow!(error),
                false => anyhow!("{error}; {ARGS_HINT}"),
            })?;
            let shown = EventName { system: probe.shown.system.clone(), name: kernels.name.clone() };
            events.push((shown, kernels));
            probe
                .left_out
                .iter()
                .for_each(|why| anstream::eprintln!("ringtap: {}: without {why}", probe.shown));
        }
        Ok(Self { events, _group: Some(group) })
    }

    /// Has an instance record them, and returns how each is shown with the text of its `format` file.
    ///
    /// # Errors
    /// The kernel refuses: it cannot put a probe into that instruction.
    pub fn enable(&self, instance: &Instance, tracefs: &Tracefs) -> Result<Vec<(EventName, String)>> {
        let enable = |(shown, kernels): &(EventName, EventName)| {
            instance.enable(kernels).with_context(|| format!("cannot enable the probe {shown}"))?;
            Ok((shown.clone(), tracefs.format(kernels)?))
        };
        self.events.iter().map(enable).collect()
    }
}
