//! The demo's summary: what became of the events, and what one cost.

use super::workers::Summary;
use crate::output::{HEADING, LOSS, Output};
use serde::Serialize;
use std::io::{self, Write};

/// The documented object of `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Events written, on all CPUs.
    pub written: u64,
    /// Events that the mapped reader was handed.
    pub read: u64,
    /// Events overwritten before they were read.
    pub lost: u64,
    /// Events still in the buffers at the end.
    pub left: u64,
    /// Nanoseconds that a worker needs to trace one event.
    pub ns_per_event: f64,
    /// Nanoseconds that a bare read of the same clock takes on this machine.
    pub ns_per_clock_read: f64,
    /// CPUs that have a buffer.
    pub cpus: u32,
    /// Processes that wrote.
    pub writers: u32,
}

impl Report {
    /// Whether each event is accounted for.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.read.checked_add(self.lost).and_then(|sum| sum.checked_add(self.left)) == Some(self.written)
    }

    /// Prints the summary for a person.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn print(&self, work: &Summary, was_stopped: bool, output: &mut Output) -> io::Result<()> {
        let text = self.text(work, was_stopped);
        output.write_all(text.as_bytes())
    }

    fn text(&self, work: &Summary, was_stopped: bool) -> String {
        let Self { written, read, lost, left, ns_per_event, ns_per_clock_read, cpus, writers } = *self;
        let totals = &work.totals;
        let lost = if lost == 0 { lost.to_string() } else { format!("{LOSS}{lost}{LOSS:#}") };
        let mut text = format!(
            "{HEADING}work{HEADING:#}    {} files in {} folders: {} bytes, {} lines, {} words; {} duplicates, {} skipped\n\
             {HEADING}events{HEADING:#}  {written} written by {writers} processes on {cpus} CPUs = {read} read + {lost} lost + {left} left\n\
             {HEADING}cost{HEADING:#}    {ns_per_event:.1} ns per event, where a bare clock read takes {ns_per_clock_read:.1} ns\n",
            totals.files,
            totals.folders,
            totals.bytes,
            totals.lines,
            totals.words,
            totals.duplicates,
            totals.skipped,
        );
        if totals.cut_short > 0 {
            let remedy = if was_stopped { "" } else { "; --seconds allows more time" };
            text += &format!("        stopped before all was read{remedy}\n");
        }
        if work.killed > 0 {
            text +=
                &format!("        {} workers were killed; what they had traced is counted\n", work.killed);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::demo::work::Totals;

    const REPORT: Report = Report {
        written: 10,
        read: 7,
        lost: 2,
        left: 1,
        ns_per_event: 18.44,
        ns_per_clock_read: 15.4,
        cpus: 2,
        writers: 4,
    };

    #[test]
    fn json_has_the_documented_keys() {
        let json = serde_json::to_string(&REPORT).unwrap();
        let expected = "{\"written\":10,\"read\":7,\"lost\":2,\"left\":1,\"ns_per_event\":18.44,\
                        \"ns_per_clock_read\":15.4,\"cpus\":2,\"writers\":4}";
        assert_eq!(json, expected);
    }

    #[test]
    fn the_text_says_it_in_three_lines_and_more_where_something_happened() {
        let totals = Totals { folders: 1, files: 2, bytes: 30, lines: 4, words: 5, ..Totals::default() };
        let text = REPORT.text(&Summary { totals, killed: 0 }, false);
        let plain = anstream::adapter::strip_str(&text).to_string();
        insta::assert_snapshot!(plain, @"
        work    2 files in 1 folders: 30 bytes, 4 lines, 5 words; 0 duplicates, 0 skipped
        events  10 written by 4 processes on 2 CPUs = 7 read + 2 lost + 1 left
        cost    18.4 ns per event, where a bare clock read takes 15.4 ns
        ");
        let cut = Summary { totals: Totals { cut_short: 1, ..totals }, killed: 1 };
        assert_eq!(REPORT.text(&cut, true).lines().count(), 5);
        assert!(
            REPORT.text(&cut, false).contains("--seconds") && !REPORT.text(&cut, true).contains("--seconds")
        );
    }

    #[test]
    fn it_adds_up_or_says_that_it_does_not() {
        assert!(REPORT.adds_up());
        assert!(!Report { left: 0, ..REPORT }.adds_up());
        assert!(!Report { lost: u64::MAX, ..REPORT }.adds_up());
    }
}
