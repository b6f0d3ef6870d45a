//! Threads that stay on a CPU for a while.

use crate::thread;

/// Where the calling thread ran a moment ago.
pub(crate) fn current_cpu() -> u32 {
    u32::try_from(rustix::thread::sched_getcpu()).unwrap_or(u32::MAX)
}

/// Keeps the calling thread on one CPU, and gives it its freedom back.
#[derive(Debug)]
pub(crate) struct Pin {
    before: rustix::thread::CpuSet,
}

impl Pin {
    /// `None` where the thread may not run there, or the kernel does not let it choose.
    pub(crate) fn to(cpu: u32) -> Option<Self> {
        let before = rustix::thread::sched_getaffinity(None).ok()?;
        let mut only = rustix::thread::CpuSet::new();
        only.set(cpu as usize);
        rustix::thread::sched_setaffinity(None, &only).ok()?;
        let pin = Self { before };
        (thread::cpu() == cpu).then_some(pin)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // If its CPUs are gone meanwhile, the kernel has already chosen others.
        let _ = rustix::thread::sched_setaffinity(None, &self.before);
    }
}
