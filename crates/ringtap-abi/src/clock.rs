//! Which clock stamps a buffer's events, and how its ticks become nanoseconds of `CLOCK_MONOTONIC`.

use crate::sync::{AtomicU32, AtomicU64, fence_unless_relaxed};
use core::sync::atomic::Ordering::Relaxed;

crate::edges! {
    /// The fence behind the odd version.
    e9_odd: Release;
    /// The store of the even version.
    e9_even: Release;
    /// The first load of the version.
    e9_first: Acquire;
    /// The fence before the second load of the version.
    e9_second: Acquire;
}

/// A clock, by the kernel's name for it where the kernel has it (`trace_clock`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ClockId {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    Mono = 1,
    /// `CLOCK_MONOTONIC_RAW`, in nanoseconds.
    MonoRaw = 2,
    /// `CLOCK_BOOTTIME`, in nanoseconds.
    Boot = 3,
    /// `CLOCK_TAI`, in nanoseconds.
    Tai = 4,
    /// The processor's own counter: the TSC, or aarch64's `cntvct_el0`.
    Cycles = 5,
    /// One more with each event: an order, not a time.
    Counter = 6,
}

impl ClockId {
    /// All clocks.
    pub const ALL: [Self; 6] =
        [Self::Mono, Self::MonoRaw, Self::Boot, Self::Tai, Self::Cycles, Self::Counter];

    /// The name that `trace_clock` shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mono => "mono",
            Self::MonoRaw => "mono_raw",
            Self::Boot => "boot",
            Self::Tai => "tai",
            Self::Cycles if cfg!(target_arch = "aarch64") => "arm64-cntvct",
            Self::Cycles => "x86-tsc",
            Self::Counter => "counter",
        }
    }

    /// The clock of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|clock| clock.name() == name)
    }

    /// The clock of this number in the meta-page.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&clock| clock as u32 == number)
    }
}

/// A straight line from ticks to nanoseconds: `ns = ns0 + (ticks - ticks0) * mult / 2^32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// A moment in ticks of the buffer's clock.
    pub ticks0: u64,
    /// The same moment in nanoseconds of `CLOCK_MONOTONIC`.
    pub ns0: u64,
    /// Nanoseconds per tick, times 2^32; 0 where the clock does not tell time.
    pub mult: u64,
}

impl Conversion {
    /// Ticks that are nanoseconds already.
    pub const IDENTITY: Self = Self { ticks0: 0, ns0: 0, mult: 1 << 32 };
    /// Ticks that are only an order.
    pub const NONE: Self = Self { ticks0: 0, ns0: 0, mult: 0 };

    /// Whether this clock's ticks can become nanoseconds.
    #[must_use]
    pub const fn tells_time(&self) -> bool {
        self.mult != 0
    }

    /// The time in nanoseconds of `CLOCK_MONOTONIC`; the ticks themselves where the clock tells no time.
    /// Moments before 0 become 0, and moments too far in the future the largest number.
    #[must_use]
    pub fn ns(&self, ticks: u64) -> u64 {
        if !self.tells_time() {
            return ticks;
        }
        let scale =
            |ticks: u64| u64::try_from((u128::from(ticks) * u128::from(self.mult)) >> 32).unwrap_or(u64::MAX);
        match ticks.checked_sub(self.ticks0) {
            Some(after) => self.ns0.saturating_add(scale(after)),
            None => self.ns0.saturating_sub(scale(self.ticks0 - ticks)),
        }
    }
}

/// The clock's words in the meta-page. The host alone writes them; readers retry while it does.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ClockWords {
    /// A [`ClockId`].
    pub id: AtomicU32,
    /// Odd while the host changes the conversion.
    version: AtomicU32,
    ticks0: AtomicU64,
    ns0: AtomicU64,
    mult: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<ClockWords>() == 32);

/// Looks at words that a host changes once a second: more than a few retries mean the host died at it.
const READ_TRIES: usize = if cfg!(loom) { 2 } else { 64 };

impl ClockWords {
    /// Host: replaces the conversion.
    pub fn store(&self, conversion: Conversion) {
        let version = self.version.load(Relaxed) | 1;
        self.version.store(version, Relaxed);
        // E9: pairs with the fence in `load`. Whoever sees a new number below sees the odd version.
        fence_unless_relaxed(e9_odd());
        self.ticks0.store(conversion.ticks0, Relaxed);
        self.ns0.store(conversion.ns0, Relaxed);
        self.mult.store(conversion.mult, Relaxed);
        // E9: pairs with the Acquire in `load`. Whoever sees the even version sees these numbers.
        self.version.store(version.wrapping_add(1), e9_even());
    }

    /// The conversion; `None` when the host died while it changed it.
    #[must_use]
    pub fn load(&self) -> Option<Conversion> {
        for _ in 0..READ_TRIES {
            let version = self.version.load(e9_first());
            let conversion = Conversion {
                ticks0: self.ticks0.load(Relaxed),
                ns0: self.ns0.load(Relaxed),
                mult: self.mult.load(Relaxed),
            };
            fence_unless_relaxed(e9_second());
            if version.is_multiple_of(2) && self.version.load(Relaxed) == version {
                return Some(conversion);
            }
            core::hint::spin_loop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for clock in ClockId::ALL {
            assert_eq!(ClockId::from_name(clock.name()), Some(clock));
            assert_eq!(ClockId::from_number(clock as u32), Some(clock));
        }
        assert_eq!(ClockId::from_name("sundial"), None);
        assert_eq!(ClockId::from_number(0), None);
    }

    #[test]
    fn a_line_converts_both_ways_from_its_anchor() {
        let half = Conversion { ticks0: 1_000_000, ns0: 500, mult: 1 << 31 };
        assert_eq!(half.ns(1_000_000), 500);
        assert_eq!(half.ns(1_000_100), 550);
        assert_eq!(half.ns(999_900), 450);
        assert_eq!(half.ns(0), 0);
        assert_eq!(Conversion { mult: u64::MAX, ..half }.ns(u64::MAX), u64::MAX);
        assert_eq!(Conversion::IDENTITY.ns(77), 77);
        assert_eq!(Conversion::NONE.ns(77), 77);
    }

    #[cfg(not(loom))]
    #[test]
    fn words_hold_what_was_stored() {
        let words = ClockWords::default();
        let line = Conversion { ticks0: 1, ns0: 2, mult: 3 };
        words.store(line);
        assert_eq!(words.load(), Some(line));
        words.version.store(1, Relaxed);
        assert_eq!(words.load(), None);
    }
}
