//! Where the tests' threads run.

#![allow(dead_code, reason = "each test file uses its part")]

use ringtap::Host;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Keeps the calling thread on a CPU.
pub(crate) fn pin(cpu: u32) {
    let mut only = CpuSet::new();
    only.set(cpu as usize);
    sched_setaffinity(None, &only).expect("it is allowed here");
}

/// Keeps the calling thread on the CPU it runs on, so that all its events come into one buffer. Returns that CPU.
pub(crate) fn pin_here() -> u32 {
    let cpu = u32::try_from(sched_getcpu()).expect("a CPU's number");
    pin(cpu);
    cpu
}

/// Those of a host's CPUs that this thread may run on.
pub(crate) fn allowed(host: &Host) -> Vec<u32> {
    let set = sched_getaffinity(None).expect("Linux tells");
    host.cpus().into_iter().filter(|&cpu| set.is_set(cpu as usize)).collect()
}
