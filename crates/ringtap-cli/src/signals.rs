//! SIGINT, SIGTERM, SIGHUP and SIGQUIT ask a running command to stop; it then cleans up and says so in its status.

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// How soon a sleeper notices a signal.
const NOTICE: Duration = Duration::from_millis(20);

/// Whether we were asked to stop.
#[derive(Clone, Debug)]
pub struct Signals {
    /// The last one that nobody has taken; 0 for none.
    arrived: Arc<AtomicUsize>,
    /// The last one that was taken, likewise.
    taken: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on these signals are noted instead of ending the process. Those that were ignored when it
    /// started stay ignored: SIGHUP under `nohup`, SIGINT and SIGQUIT in what a script has started with `&`.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn catch() -> io::Result<Self> {
        let (arrived, taken) = Default::default();
        let ignored = ignored_signals();
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            if ignored & (1 << (signal - 1)) == 0 {
                let number = usize::try_from(signal).map_err(io::Error::other)?;
                signal_hook::flag::register_usize(signal, Arc::clone(&arrived), number)?;
            }
        }
        Ok(Self { arrived, taken })
    }

    /// The last signal that asked us to stop.
    #[must_use]
    pub fn caught(&self) -> Option<i32> {
        // Relaxed: the number is all that the handler passes on.
        number(self.arrived.load(Relaxed)).or_else(|| number(self.taken.load(Relaxed)))
    }

    /// The signal that came since the last time this was called, for those who go on after it.
    #[must_use]
    pub fn take(&self) -> Option<i32> {
        let arrived = self.arrived.swap(0, Relaxed);
        if arrived != 0 {
            self.taken.store(arrived, Relaxed);
        }
        number(arrived)
    }

    /// Sleeps, but not on when a signal comes that nobody has taken.
    pub fn sleep(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while self.arrived.load(Relaxed) == 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(NOTICE));
        }
    }
}

fn number(signal: usize) -> Option<i32> {
    i32::try_from(signal).ok().filter(|&signal| signal != 0)
}

/// One bit for each ignored signal; signal 1 is the lowest.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
