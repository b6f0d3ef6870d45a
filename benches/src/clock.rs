//! Bare clock reads: the floor under every tracer's price.

use crate::cpu::monotonic_ns;
use crate::rotation::{Closure, Contender};
use std::hint::black_box;

/// What the processor's own counter is called here.
pub const CYCLES: &str = if cfg!(target_arch = "aarch64") { "cntvct_el0" } else { "rdtsc" };

/// The processor's counter, as ringtap's cheapest clock reads it: not ordered with the code around it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[must_use]
pub fn cycles() -> u64 {
    // SAFETY: each x86-64 has the instruction, and Linux lets user space run it unless a process asks
    // otherwise for itself (PR_SET_TSC).
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The processor's counter, as ringtap's cheapest clock reads it: not ordered with the code around it.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
#[must_use]
pub fn cycles() -> u64 {
    let ticks;
    // SAFETY: Linux lets user space read the virtual counter; it touches no memory, no flags, no stack.
    unsafe {
        core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags));
    }
    ticks
}

/// The clock reads to compare with.
#[must_use]
pub fn contenders() -> Vec<Box<dyn Contender>> {
    let counter = Closure::new(CYCLES, |iterations| {
        for _ in 0..iterations {
            black_box(cycles());
        }
    });
    // Through the vDSO, as libc's does.
    let monotonic = Closure::new("clock_gettime", |iterations| {
        for _ in 0..iterations {
            black_box(monotonic_ns());
        }
    });
    vec![Box::new(counter), Box::new(monotonic)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_counts_on() {
        let before = cycles();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(cycles() > before);
    }
}
