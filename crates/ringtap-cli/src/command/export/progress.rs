//! How far a conversion is, on a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two looks; and before the first, since most conversions are over by then.
const INTERVAL: Duration = Duration::from_millis(250);

/// A line on the standard error that is drawn over.
#[derive(Debug)]
pub(super) struct Progress {
    is_terminal: bool,
    started: Instant,
    shown: Instant,
    is_visible: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_terminal, started: now, shown: now, is_visible: false }
    }

    /// Shows how much was read of how much, in bytes.
    pub(super) fn show(&mut self, read: u64, all: u64) {
        if !self.is_terminal || all == 0 || self.shown.elapsed() < INTERVAL {
            return;
        }
        self.shown = Instant::now();
        self.is_visible = true;
        let (mib, ms) = (read >> 20, self.started.elapsed().as_millis().max(1));
        let percent = u128::from(read) * 100 / u128::from(all);
        let rate = (u128::from(read) * 1000 / ms) >> 20;
        // A terminal that cannot be written to is no reason to stop.
        let _ = write!(std::io::stderr(), "\r\x1b[K{percent} %, {mib} of {} MiB, {rate} MiB/s", all >> 20);
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_visible) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
