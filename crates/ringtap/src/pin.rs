//! Threads that stay on a CPU for a while.

use crate::thread;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Where the calling thread ran a moment ago.
pub(crate) fn current_cpu() -> u32 {
    u32::try_from(sched_getcpu()).unwrap_or(u32::MAX)
}

/// Keeps the calling thread on one CPU, and gives it its freedom back.
#[derive(Debug)]
pub struct Pin {
    /// Where it may run otherwise; `None` where that is this CPU alone.
    before: Option<CpuSet>,
}

impl Pin {
    /// `None` where the thread may not run there, or the kernel does not let it choose.
    #[must_use]
    pub fn to(cpu: u32) -> Option<Self> {
        let before = sched_getaffinity(None).ok()?;
        let mut only = CpuSet::new();
        only.set(usize::try_from(cpu).ok().filter(|&cpu| cpu < CpuSet::MAX_CPU)?);
        let is_free = only != before;
        if is_free {
            sched_setaffinity(None, &only).ok()?;
        }
        let pin = Self { before: is_free.then_some(before) };
        (thread::cpu() == cpu).then_some(pin)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // If its CPUs are gone meanwhile, the kernel has already chosen others.
            let _ = sched_setaffinity(None, before);
        }
    }
}
