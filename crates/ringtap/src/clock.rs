//! Reading the clocks that stamp events, and how their ticks relate to `CLOCK_MONOTONIC`.

use ringtap_abi::sync::AtomicU64;
use rustix::time::{DynamicClockId, clock_gettime_dynamic};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub use ringtap_abi::clock::{ClockId, Conversion};

/// A clock, ready to be read with each event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ticker<'m> {
    /// The processor's counter.
    Cycles,
    /// A clock of the kernel's, in nanoseconds.
    Kernel(DynamicClockId<'static>),
    /// A shared count.
    Counter(&'m AtomicU64),
}

impl<'m> Ticker<'m> {
    /// The clock named; `counter` is where a counter clock counts.
    pub(crate) fn new(clock: ClockId, counter: &'m AtomicU64) -> Self {
        match clock {
            ClockId::Cycles => Self::Cycles,
            ClockId::Mono => Self::Kernel(MONOTONIC),
            ClockId::MonoRaw => Self::Kernel(DynamicClockId::Known(rustix::time::ClockId::MonotonicRaw)),
            ClockId::Boot => Self::Kernel(DynamicClockId::Known(rustix::time::ClockId::Boottime)),
            ClockId::Tai => Self::Kernel(DynamicClockId::Tai),
            ClockId::Counter => Self::Counter(counter),
        }
    }

    /// The time now.
    #[inline(always)]
    pub(crate) fn ticks(&self) -> u64 {
        match self {
            Self::Cycles => cycles(),
            Self::Kernel(clock) => ns(*clock),
            // Relaxed: its own order is all it tells.
            Self::Counter(count) => count.fetch_add(1, Relaxed) + 1,
        }
    }
}

const MONOTONIC: DynamicClockId<'static> = DynamicClockId::Known(rustix::time::ClockId::Monotonic);

fn ns(clock: DynamicClockId<'_>) -> u64 {
    // Linux has had these clocks for longer than it has had memfds.
    let Ok(time) = clock_gettime_dynamic(clock) else { return 0 };
    time.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec.cast_unsigned())
}

/// The processor's counter. Not ordered with the instructions around it: an event's time may be some
/// nanoseconds off, and the ring keeps the times of one buffer in order.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The processor's counter, as above.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) fn cycles() -> u64 {
    let ticks;
    // SAFETY: reads a register that the kernel lets user space read.
    unsafe {
        std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags))
    };
    ticks
}

/// Elsewhere there is no counter to read: [`cheapest`] never chooses it.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn cycles() -> u64 {
    ns(MONOTONIC)
}

/// The cheapest clock that converts to `CLOCK_MONOTONIC`: the processor's counter where the kernel itself keeps
/// time by it, so that it runs evenly and alike on all CPUs.
#[must_use]
pub fn cheapest() -> ClockId {
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    match source.as_deref().map(str::trim_ascii_end) {
        Ok("tsc" | "arch_sys_counter") => ClockId::Cycles,
        _ => ClockId::Mono,
    }
}

/// Reads a clock, as an event that it stamps does: what no event can cost less than. 0 for `counter`, which counts
/// events and can only be read by writing one.
#[inline(always)]
#[must_use]
pub fn read(clock: ClockId) -> u64 {
    match clock {
        ClockId::Counter => 0,
        clock => Ticker::new(clock, &AtomicU64::new(0)).ticks(),
    }
}

/// A moment, to be told later how long ago it was: see [`Writer::write_since_to`](crate::Writer::write_since_to).
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// The clock that told it.
    pub clock: ClockId,
    /// What it told.
    pub ticks: u64,
    /// Nanoseconds per tick, times 2^32: [`Conversion::mult`].
    pub mult: u64,
}

impl Since {
    /// The nanoseconds since then. Ticks of two CPUs may differ a little: never less than none.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "64 bits of nanoseconds are five centuries")]
    pub fn ns(&self) -> u64 {
        let ticks = read(self.clock).saturating_sub(self.ticks);
        ((u128::from(ticks) * u128::from(self.mult)) >> 32) as u64
    }
}

/// The same moment on a clock and on `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) ticks: u64,
    pub(crate) ns: u64,
}

impl Pair {
    /// Reads both clocks, several times, and keeps the pair that was read fastest.
    pub(crate) fn now(clock: ClockId) -> Self {
        const ROUNDS: u32 = 8;
        let unused = AtomicU64::new(0);
        let ticker = Ticker::new(clock, &unused);
        let read = || {
            let before = ticker.ticks();
            let ns = ns(MONOTONIC);
            let after = ticker.ticks();
            let width = after.wrapping_sub(before);
            (width, Self { ticks: before.wrapping_add(width / 2), ns })
        };
        (0..ROUNDS)
            .map(|_| read())
            .min_by_key(|(width, _)| *width)
            .map_or(Self { ticks: 0, ns: 0 }, |(_, pair)| pair)
    }

    /// The line from an earlier pair through this one.
    pub(crate) fn line_from(self, earlier: Self) -> Option<Conversion> {
        let (ticks, ns) = (self.ticks.checked_sub(earlier.ticks)?, self.ns.checked_sub(earlier.ns)?);
        let mult = (u128::from(ns) << 32).checked_div(u128::from(ticks))?;
        Some(Conversion { ticks0: self.ticks, ns0: self.ns, mult: u64::try_from(mult).ok()? })
    }
}

/// How long two pairs must be apart for a first conversion. A pair is some 20 ns off, so the line is then good
/// to 10 ppm; the host draws longer ones later.
const FIRST_BASELINE: Duration = Duration::from_millis(5);

/// A first conversion of a clock's ticks, and the pair that it goes through. Takes some milliseconds where the
/// ticks are not nanoseconds.
pub(crate) fn calibrate(clock: ClockId) -> (Conversion, Pair) {
    let first = Pair::now(clock);
    let conversion = match clock {
        ClockId::Mono => Conversion::IDENTITY,
        ClockId::Counter => Conversion::NONE,
        ClockId::MonoRaw | ClockId::Boot | ClockId::Tai => {
            Conversion { ticks0: first.ticks, ns0: first.ns, ..Conversion::IDENTITY }
        }
        ClockId::Cycles => {
            std::thread::sleep(FIRST_BASELINE);
            let second = Pair::now(clock);
            return (second.line_from(first).unwrap_or(Conversion::NONE), second);
        }
    };
    (conversion, first)
}

/// The time now by `CLOCK_MONOTONIC`, in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    ns(MONOTONIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clock_converts_to_monotonic() {
        for clock in ClockId::ALL.into_iter().filter(|&clock| clock != ClockId::Counter) {
            let (line, _) = calibrate(clock);
            std::thread::sleep(Duration::from_millis(20));
            let pair = Pair::now(clock);
            let off = line.ns(pair.ticks).abs_diff(pair.ns);
            // 20 ms at a few dozen ppm, and a pair read around an interrupt.
            assert!(off < 100_000, "{} is {off} ns off after 20 ms", clock.name());
        }
    }

    #[test]
    fn counter_counts() {
        let count = AtomicU64::new(0);
        let ticker = Ticker::new(ClockId::Counter, &count);
        assert_eq!((ticker.ticks(), ticker.ticks()), (1, 2));
        assert!(!calibrate(ClockId::Counter).0.tells_time());
    }
}
