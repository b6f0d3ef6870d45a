//! What a recording tells while it runs, and in the end.

use super::files::Written;
use crate::output::Output;
use anyhow::Result;
use ringtap::Stats;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line changes.
const PERIOD: Duration = Duration::from_millis(500);
/// Returns to the line's start and clears it.
const ANEW: &str = "\r\x1b[K";

/// Events recorded and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Events taken out of the buffers.
    pub(super) events: u64,
    /// Events overwritten or refused before they were.
    pub(super) lost: u64,
}

impl Counts {
    /// The sum of these counters, of buffers whose losses nobody has told before.
    pub(super) fn of(stats: impl Iterator<Item = Stats>) -> Self {
        stats.fold(Self::default(), |sum, stats| Self {
            events: sum.events + stats.read_events,
            lost: sum.lost + stats.overrun + stats.dropped_events + stats.commit_overrun,
        })
    }

    /// The same without what was overwritten: that is told with the events behind it.
    pub(super) fn of_shared(stats: impl Iterator<Item = Stats>) -> Self {
        Self::of(stats.map(|stats| Stats { overrun: 0, ..stats }))
    }

    /// What was added to an earlier count.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            events: self.events.saturating_sub(before.events),
            lost: self.lost.saturating_sub(before.lost),
        }
    }

    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self { events: self.events + other.events, lost: self.lost + other.lost }
    }
}

/// The line on a terminal.
pub(super) struct Progress {
    start: Instant,
    shown: Instant,
    before: (Counts, u64),
    is_quiet: bool,
    is_shown: bool,
}

impl Progress {
    pub(super) fn new(is_quiet: bool) -> Self {
        let now = Instant::now();
        let is_shown = !is_quiet && std::io::stderr().is_terminal();
        Self { start: now, shown: now, before: (Counts::default(), 0), is_quiet, is_shown }
    }

    pub(super) fn is_due(&self) -> bool {
        self.is_shown && self.shown.elapsed() >= PERIOD
    }

    /// Shows where things stand; `fill` is the largest share of a buffer that was found full, in percent.
    pub(super) fn show(&mut self, counts: Counts, bytes: u64, fill: u64) {
        let us = self.shown.elapsed().as_micros().max(1);
        let (before, bytes_before) = self.before;
        let events = u128::from(counts.events.saturating_sub(before.events)) * 1_000_000 / us;
        // Bytes a microsecond are MB a second.
        let speed = bytes.saturating_sub(bytes_before) as f64 / us as f64;
        let lost = grouped(counts.lost);
        let time = self.start.elapsed().as_secs();
        anstream::eprint!(
            "{ANEW}{time} s  {} events/s  {speed:.1} MB/s  lost {lost}  fill {fill}%",
            grouped(u64::try_from(events).unwrap_or(u64::MAX))
        );
        let _ = std::io::stderr().flush();
        (self.shown, self.before) = (Instant::now(), (counts, bytes));
    }

    /// Tells what was recorded.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub(super) fn end(
        self,
        counts: Counts,
        written: &Written,
        is_json: bool,
        output: &mut Output,
    ) -> Result<()> {
        if self.is_shown {
            anstream::eprint!("{ANEW}");
        }
        let seconds = self.start.elapsed().as_secs_f64();
        if is_json {
            let files: Vec<_> = written.paths.iter().map(|path| path.display().to_string()).collect();
            let (events, lost, bytes) = (counts.events, counts.lost, written.bytes);
            let summary = json!({
                "type": "recorded", "files": files, "events": events, "lost": lost, "bytes": bytes,
                "seconds": (seconds * 1000.0).round() / 1000.0,
            });
            writeln!(output, "{summary}")?;
            return Ok(());
        }
        if written.paths.is_empty() {
            // A program's own recorder says nothing behind a program that ended well.
            if !self.is_quiet {
                anstream::eprintln!(
                    "ringtap: nothing that --snapshot-on waits for happened: no file was written"
                );
            }
            return Ok(());
        }
        let names: Vec<_> = written.paths.iter().map(|path| path.display().to_string()).collect();
        anstream::eprintln!(
            "ringtap: recorded {} events, {:.1} MB, in {seconds:.1} s to {}; lost {}",
            grouped(counts.events),
            written.bytes as f64 / 1e6,
            names.join(", "),
            grouped(counts.lost),
        );
        Ok(())
    }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let shown = [0, 12, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "12", "999", "1,000", "1,234,567"]);
    }
}
