//! The kernel's part of a stream: which events, and the instance that records them.

use super::Filter;
use crate::child::Running;
use crate::probes::{self, Installed, Probe};
use anyhow::{Context, Result};
use ringtap::Reader;
use ringtap::clock::ClockId;
use ringtap::tracefs::{EventName, Instance, Tracefs};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

/// What is followed when nothing was asked for: few events, and everybody knows what they mean.
const DEFAULT_EVENTS: [&str; 3] =
    ["sched:sched_process_fork", "sched:sched_process_exec", "sched:sched_process_exit"];
/// What is followed besides, where only one command is: what it asks of the kernel.
const DEFAULT_OF_COMMAND: &str = "syscalls:sys_enter_*";
/// What else is recorded, to know the names of tasks that are gone when their events are printed.
const NAMING_EVENTS: [&str; 3] = ["sched:sched_process_fork", "sched:sched_process_exec", "task:task_rename"];
/// The clock that an application's times are converted to.
pub(super) const CLOCK: ClockId = ClockId::Mono;
/// In KiB: larger than a page, because each swap of the kernel's reader page costs a system call.
const SUBBUF_KIB: u32 = 16;

/// What the kernel will be asked to record.
#[derive(Debug)]
pub(in crate::command) struct KernelPlan {
    pub(in crate::command) tracefs: Tracefs,
    pub(in crate::command) events: Vec<EventName>,
    /// Probes in programs.
    pub(in crate::command) probes: Vec<Probe>,
    pub(in crate::command) buffer_kib: u32,
    /// Only the command's own events.
    pub(in crate::command) follow: bool,
}

impl KernelPlan {
    pub(in crate::command) fn new(
        filter: &Filter,
        buffer_kib: u32,
        may_be_applications: bool,
        follow: bool,
    ) -> Result<Self> {
        let tracefs = Tracefs::find()?;
        tracefs.check_mapping()?;
        let all = tracefs.events()?;
        let mut events = BTreeSet::new();
        for pattern in &filter.patterns {
            match tracefs.resolve(pattern) {
                Ok(found) => events.extend(found),
                // What the kernel does not have is the application's, where there may be one.
                Err(_) if may_be_applications && !names_system_of(pattern, &all) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Nothing was asked of the kernel.
        if events.is_empty() {
            for pattern in DEFAULT_EVENTS {
                events.extend(tracefs.resolve(pattern)?);
            }
            if follow {
                // Not every kernel has them.
                events.extend(tracefs.resolve(DEFAULT_OF_COMMAND).unwrap_or_default());
            }
        }
        Ok(Self { tracefs, events: events.into_iter().collect(), probes: Vec::new(), buffer_kib, follow })
    }

    /// The same with probes in programs; where no event of the kernel's was asked for, with these alone.
    pub(in crate::command) fn with_probes(mut self, args: &probes::Args, filter: &Filter) -> Result<Self> {
        self.probes = probes::plan(args, &self.tracefs)?;
        let is_asked_for =
            |event: &EventName| filter.patterns.iter().any(|pattern| event.is_meant_by(pattern));
        if !self.probes.is_empty() && !self.events.iter().any(is_asked_for) {
            self.events.clear();
        }
        Ok(self)
    }
}

/// Whether the pattern names a system of the kernel's: then its event was mistyped.
fn names_system_of(pattern: &str, all: &[EventName]) -> bool {
    let system = pattern.split_once(':').map(|(system, _)| system).filter(|system| !system.contains('*'));
    system.is_some_and(|system| all.iter().any(|event| event.is_meant_by(&format!("{system}:*"))))
}

/// The kernel's events, recorded into buffers of our own until this is dropped.
#[derive(Debug)]
pub(super) struct KernelSession {
    /// The text of each event's `format` file.
    pub(super) formats: Vec<(EventName, String)>,
    /// As `formats`, of events that are recorded for the names of tasks only.
    pub(super) hidden: Vec<(EventName, String)>,
    cpus: Vec<u32>,
    instance: Instance,
    /// Behind the instance that uses them.
    _probes: Installed,
}

impl KernelSession {
    /// Makes the instance and its settings; recording is still off.
    ///
    /// # Errors
    /// The kernel refuses an event or has no memory for the buffers. Nothing stays behind.
    pub(super) fn prepare(plan: &KernelPlan) -> Result<Self> {
        // What a killed run left behind is in nobody's way, so failing to tidy it is no reason to stop.
        let _ = plan.tracefs.remove_stale();
        let probes = Installed::new(&plan.probes, &plan.tracefs)?;
        let instance = plan.tracefs.create_instance()?;
        instance.set_clock(CLOCK.name())?;
        instance.set_sizes_kib(SUBBUF_KIB, plan.buffer_kib)?;
        // Wake with the first event: somebody watches.
        instance.set_buffer_percent(0)?;
        // Our own doings are left out, or each line printed would make the next. Kernels before 5.7 cannot.
        let _ = instance.ignore(std::process::id());
        let mut formats = Vec::with_capacity(plan.events.len());
        for event in &plan.events {
            formats.push((event.clone(), plan.tracefs.format(event)?));
            instance.enable(event).with_context(|| format!("cannot enable {event}"))?;
        }
        formats.extend(probes.enable(&instance, &plan.tracefs)?);
        let mut hidden = Vec::new();
        for event in NAMING_EVENTS.iter().filter_map(|event| EventName::parse(event)) {
            // One that is missing is missed by nobody but the names.
            if !plan.events.contains(&event)
                && let Ok(format) = plan.tracefs.format(&event)
                && instance.enable(&event).is_ok()
            {
                hidden.push((event, format));
            }
        }
        Ok(Self { formats, hidden, cpus: plan.tracefs.cpus()?, instance, _probes: probes })
    }

    /// Maps each CPU's buffer. All readers must be gone before the session is.
    ///
    /// # Errors
    /// The kernel cannot map them, or this process may not.
    pub(super) fn readers(&self) -> Result<Vec<Reader>> {
        let open = |&cpu: &u32| {
            let raw: OwnedFd = self.instance.open_raw(cpu)?;
            Ok(Reader::open_kernel(raw, cpu, CLOCK)?)
        };
        self.cpus.iter().map(open).collect()
    }

    /// How many CPUs' buffers there are.
    #[must_use]
    pub(super) fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// Begins to record: all, or what the held command and its children do.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn begin(&self, follow: Option<&Running>) -> Result<()> {
        if let Some(command) = follow {
            self.instance.follow(command.pid().as_raw_pid().unsigned_abs())?;
        }
        Ok(self.instance.set_recording(true)?)
    }

    /// Stops to record; what is in the buffers can still be read.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn stop(&self) -> Result<()> {
        Ok(self.instance.set_recording(false)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::live;
    use super::*;
    use ringtap::Item;

    #[test]
    fn a_session_records_and_leaves_nothing_behind() {
        let Some(plan) = live("stream --kernel -e sched:sched_process_exec --buffer-size 64") else { return };
        let kernel = plan.kernel.as_ref().unwrap();
        let session = KernelSession::prepare(kernel).unwrap();
        let folder = session.instance.path().to_owned();
        let mut readers = session.readers().unwrap();
        session.begin(None).unwrap();
        std::process::Command::new("/bin/true").status().unwrap();
        session.stop().unwrap();

        let mut records = 0;
        for reader in &mut readers {
            while let Some(item) = reader.next().unwrap() {
                records += u32::from(matches!(item, Item::Record(_)));
            }
        }
        assert!(records > 0);
        assert!(session.formats[0].1.contains("filename"));
        drop(readers);
        drop(session);
        assert!(!folder.exists());
    }
}
