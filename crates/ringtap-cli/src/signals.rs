//! SIGINT, SIGTERM and SIGHUP ask a running command to stop; it then cleans up and says so in its status.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// How soon a sleeper notices a signal.
const NOTICE: Duration = Duration::from_millis(20);

/// Whether we were asked to stop.
#[derive(Clone, Debug)]
pub struct Signals {
    caught: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on these signals are noted instead of ending the process. Those that were ignored when it
    /// started, as under `nohup`, stay ignored.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn catch() -> io::Result<Self> {
        let caught = Arc::new(AtomicUsize::new(0));
        let ignored = ignored_signals();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if ignored & (1 << (signal - 1)) == 0 {
                let number = usize::try_from(signal).map_err(io::Error::other)?;
                signal_hook::flag::register_usize(signal, Arc::clone(&caught), number)?;
            }
        }
        Ok(Self { caught })
    }

    /// The last signal that asked us to stop.
    #[must_use]
    pub fn caught(&self) -> Option<i32> {
        // Relaxed: the number is all that the handler passes on.
        i32::try_from(self.caught.load(Relaxed)).ok().filter(|&signal| signal != 0)
    }

    /// Sleeps, but not on when asked to stop.
    pub fn sleep(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while self.caught().is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(NOTICE));
        }
    }
}

/// One bit for each ignored signal; signal 1 is the lowest.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
