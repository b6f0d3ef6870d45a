//! Where a thread runs, and how long it ran.

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Keeps the calling thread, and what it spawns from now on, on one CPU.
///
/// # Errors
/// When this thread may not run on `cpu`.
pub fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    anyhow::ensure!(cpu < CpuSet::MAX_CPU, "CPU {cpu} is beyond the {} that Linux counts", CpuSet::MAX_CPU);
    set.set(cpu);
    sched_setaffinity(None, &set)
        .with_context(|| format!("this process may not run on CPU {cpu}; `taskset -p $$` shows where it may"))
}

/// Keeps the calling thread off one CPU.
///
/// # Errors
/// When this process has no other.
pub fn avoid(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|&other| other != cpu).for_each(|other| set.set(other));
    sched_setaffinity(None, &set).with_context(|| format!("this process may run nowhere but on CPU {cpu}"))
}

/// The last CPU that this thread may run on: the first one takes most of the machine's interrupts.
///
/// # Errors
/// When the kernel does not say.
pub fn last_allowed() -> anyhow::Result<usize> {
    let set = sched_getaffinity(None).context("cannot read this thread's CPU affinity")?;
    (0..CpuSet::MAX_CPU).rev().find(|&cpu| set.is_set(cpu)).context("the CPU affinity mask is empty")
}

/// All CPUs that this thread may run on.
///
/// # Errors
/// When the kernel does not say.
pub fn allowed() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("cannot read this thread's CPU affinity")?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// CPU time of the calling thread, in nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    ns(ClockId::ThreadCPUTime)
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    ns(ClockId::Monotonic)
}

#[inline]
fn ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Neither clock is ever negative.
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_takes_wall_time_but_no_cpu_time() {
        let (wall, cpu) = (monotonic_ns(), thread_cpu_ns());
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(monotonic_ns() - wall >= 30_000_000);
        assert!(thread_cpu_ns() - cpu < 15_000_000);
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_named() {
        let error = pin(CpuSet::MAX_CPU).unwrap_err().to_string();
        assert!(error.contains(&CpuSet::MAX_CPU.to_string()), "{error}");
    }
}
