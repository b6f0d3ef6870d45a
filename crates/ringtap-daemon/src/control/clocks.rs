//! `trace_clock`: the kernel's names for clocks, and the clock that each is here.

use ringtap::clock::ClockId;
use rustix::io::Errno;

/// The names, in the order of the file. The kernel's `local`, `global` and `perf` are clocks of its own that count
/// nanoseconds since boot and user space cannot read: `CLOCK_MONOTONIC` stands for them.
const CLOCKS: [(&str, ClockId); 9] = [
    ("local", ClockId::Mono),
    ("global", ClockId::Mono),
    ("counter", ClockId::Counter),
    ("perf", ClockId::Mono),
    ("mono", ClockId::Mono),
    ("mono_raw", ClockId::MonoRaw),
    ("boot", ClockId::Boot),
    ("tai", ClockId::Tai),
    (CYCLES, ClockId::Cycles),
];

/// The name of the processor's counter.
const CYCLES: &str = ClockId::Cycles.name();

/// A clock by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) name: &'static str,
    pub(crate) id: ClockId,
}

impl Clock {
    /// The name by which an instance's first clock goes.
    pub(super) fn of(id: ClockId) -> Self {
        Self { name: id.name(), id }
    }

    /// The clock that a write to the file names.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Errno> {
        let text = std::str::from_utf8(bytes).map_err(|_| Errno::INVAL)?;
        let text = text.split('\0').next().unwrap_or_default().trim();
        let (name, id) = CLOCKS.into_iter().find(|(name, _)| *name == text).ok_or(Errno::INVAL)?;
        Ok(Self { name, id })
    }

    /// Whether its ticks are nanoseconds, so that they are printed as seconds.
    pub(crate) fn is_ns(self) -> bool {
        !matches!(self.id, ClockId::Cycles | ClockId::Counter)
    }

    /// The text of the file.
    pub(super) fn text(self) -> Vec<u8> {
        let name =
            |(name, _): (&str, _)| if name == self.name { format!("[{name}]") } else { name.to_owned() };
        let mut text = CLOCKS.map(name).join(" ").into_bytes();
        text.push(b'\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let clock = Clock::parse(b" mono \n").unwrap();
        assert!(clock.is_ns());
        assert_eq!(
            String::from_utf8(clock.text()).unwrap(),
            format!("local global counter perf [mono] mono_raw boot tai {CYCLES}\n")
        );
        assert_eq!(Clock::parse(b""), Err(Errno::INVAL));
        assert_eq!(Clock::parse(b"uptime"), Err(Errno::INVAL));
        for id in ClockId::ALL {
            assert_eq!(Clock::parse(Clock::of(id).name.as_bytes()).unwrap().id, id);
        }
    }
}
