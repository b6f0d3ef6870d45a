//! A CPU's counters, as its `stats` file tells them.

use crate::stats::Stats;

impl Stats {
    /// Reads the text of the kernel's `per_cpu/cpuN/stats`; `None` where a field is missing or no number. Times are
    /// nanoseconds where the buffer's clock counts in them, else the clock's own ticks.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            parse_number(value?.trim())
        };
        Some(Self {
            entries: field("entries")?,
            overrun: field("overrun")?,
            commit_overrun: field("commit overrun")?,
            bytes: field("bytes")?,
            oldest_event_ts: field("oldest event ts")?,
            now_ts: field("now ts")?,
            dropped_events: field("dropped events")?,
            read_events: field("read events")?,
        })
    }
}

/// A whole number, or seconds with six decimals as nanoseconds.
fn parse_number(text: &str) -> Option<u64> {
    let Some((seconds, micros)) = text.split_once('.') else { return text.parse().ok() };
    let (seconds, micros) = (seconds.parse::<u64>().ok()?, micros.parse::<u64>().ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(micros.checked_mul(1_000)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_eight_fields_are_read() {
        let text = "entries: 551\noverrun: 1449\ncommit overrun: 2\nbytes: 35696\noldest event ts:  1953.605085\n\
                    now ts:  1953.605683\ndropped events: 3\nread events: 119\n";
        let expected = Stats {
            entries: 551,
            overrun: 1449,
            commit_overrun: 2,
            bytes: 35696,
            oldest_event_ts: 1_953_605_085_000,
            now_ts: 1_953_605_683_000,
            dropped_events: 3,
            read_events: 119,
        };
        assert_eq!(Stats::parse(text), Some(expected));
        let ticks = text.replace("1953.605085", "77");
        assert_eq!(Stats::parse(&ticks).unwrap().oldest_event_ts, 77);
        assert_eq!(Stats::parse(&text.replace("bytes", "words")), None);
        assert_eq!(Stats::parse(&text.replace("1449", "many")), None);
    }
}
