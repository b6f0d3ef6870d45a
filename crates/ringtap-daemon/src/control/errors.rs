//! `error_log`: what was wrong with the last commands.

use crate::limits::ERRORS;
use ringtap::clock;
use std::collections::VecDeque;
use std::fmt::Write;

/// One instance's log: the last few errors, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct ErrorLog {
    entries: VecDeque<String>,
}

impl ErrorLog {
    /// Adds an error: which parser found it, what it is, the command and the byte of it that the caret points at.
    pub(super) fn add(&mut self, parser: &str, what: &str, command: &str, place: usize) {
        /// The column in which the command begins.
        const COMMAND: usize = 11;
        let mut entry = format!("{parser}: error: {what}\n  Command: {command}\n");
        let _ = writeln!(entry, "{:width$}^", "", width = COMMAND + place);
        self.push(&entry);
    }

    /// Adds an error as its parser words it.
    pub(super) fn push(&mut self, entry: &str) {
        let us = clock::monotonic_ns() / 1000;
        let entry = format!("[{:5}.{:06}] {entry}", us / 1_000_000, us % 1_000_000);
        if self.entries.len() == ERRORS {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(super) fn text(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last() {
        let mut log = ErrorLog::default();
        for command in 0..ERRORS + 2 {
            log.add("event filter parse error", "Field not found", &format!("foo=={command}"), 4);
        }
        let text = String::from_utf8(log.text()).unwrap();
        assert_eq!(text.lines().count(), 3 * ERRORS);
        let mut lines = text.lines();
        assert!(lines.next().unwrap().ends_with("] event filter parse error: error: Field not found"));
        assert_eq!(lines.next(), Some("  Command: foo==2"));
        assert_eq!(lines.next(), Some("               ^"));
        log.clear();
        assert!(log.text().is_empty());
    }
}
