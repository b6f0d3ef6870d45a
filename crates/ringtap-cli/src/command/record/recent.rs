//! The part of a snapshot that is kept: the last so many bytes, and the last so many seconds.

use crate::misuse;
use anyhow::Result;
use std::str::FromStr;
use std::time::Duration;

/// How much a flight recorder keeps. Without a limit, all that the buffers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Last {
    /// Bytes of sub-buffers, of all CPUs together.
    pub(super) bytes: Option<u64>,
    /// Time before the snapshot.
    pub(super) time: Option<Duration>,
}

/// Most MB that can be asked for.
const MAX_MB: u64 = 1 << 20;

impl FromStr for Last {
    type Err = String;

    /// Reads `64`, `64MB` or `30s`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no amount: give MB such as 64, or seconds such as 30s");
        if let Some(seconds) = text.strip_suffix('s') {
            let seconds = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let time = seconds.filter(|time| !time.is_zero()).ok_or_else(wrong)?;
            return Ok(Self { time: Some(time), bytes: None });
        }
        let mb = text.strip_suffix("MB").unwrap_or(text).parse().ok();
        let mb: u64 = mb.filter(|mb| (1..=MAX_MB).contains(mb)).ok_or_else(wrong)?;
        Ok(Self { bytes: Some(mb * 1_000_000), time: None })
    }
}

impl Last {
    /// What was asked for, each limit once.
    ///
    /// # Errors
    /// One was given twice.
    pub(super) fn of(asked: &[Self]) -> Result<Self> {
        let mut last = Self::default();
        for asked in asked {
            let is_twice = last.bytes.is_some() && asked.bytes.is_some();
            if is_twice || (last.time.is_some() && asked.time.is_some()) {
                misuse!("--last is given twice; give MB once and seconds once");
            }
            last.bytes = last.bytes.or(asked.bytes);
            last.time = last.time.or(asked.time);
        }
        Ok(last)
    }

    /// The size of each CPU's buffer, in KiB, that holds so many bytes; `None` where no bytes were asked for.
    ///
    /// # Errors
    /// The number of CPUs is not to be had.
    pub(super) fn buffer_kib(&self) -> Result<Option<u32>> {
        let Some(bytes) = self.bytes else { return Ok(None) };
        let cpus = u64::try_from(std::thread::available_parallelism()?.get())?;
        Ok(Some(u32::try_from((bytes / 1000 / cpus).max(256))?))
    }
}

/// Sub-buffers of a snapshot: those that are too old go.
#[derive(Debug)]
pub(super) struct Recent {
    limit: u64,
    since_ns: u64,
    pages: Vec<Page>,
    bytes: u64,
    /// When the latest of the CPUs' oldest sub-buffers begins: before that, something is missing.
    begins_ns: u64,
}

#[derive(Debug)]
struct Page {
    lane: usize,
    /// When its first event was written.
    ns: u64,
    bytes: Vec<u8>,
}

impl Recent {
    /// What is kept of a snapshot that is taken at `now_ns`.
    pub(super) fn new(last: Last, now_ns: u64) -> Self {
        let ago = last.time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let since_ns = ago.map_or(0, |ago| now_ns.saturating_sub(ago));
        let limit = last.bytes.unwrap_or(u64::MAX);
        Self { limit, since_ns, pages: Vec::new(), bytes: 0, begins_ns: 0 }
    }

    /// Takes a lane's next sub-buffer, whose first event was written at `ns`.
    pub(super) fn push(&mut self, lane: usize, ns: u64, bytes: Vec<u8>) {
        match self.pages.last() {
            // All events of the one before are older than the first of this one.
            Some(before) if before.lane == lane && ns <= self.since_ns => {
                self.bytes -= before.bytes.len() as u64;
                self.pages.pop();
            }
            Some(before) if before.lane == lane => {}
            _ => self.begins_ns = self.begins_ns.max(ns),
        }
        self.bytes += bytes.len() as u64;
        self.pages.push(Page { lane, ns, bytes });
        while self.bytes > self.limit.saturating_mul(2) {
            self.cut();
        }
    }

    /// Lets the oldest go until the limit is kept.
    fn cut(&mut self) {
        let mut times: Vec<_> = self.pages.iter().map(|page| (page.ns, page.bytes.len() as u64)).collect();
        times.sort_unstable();
        let mut since = 0;
        for (ns, len) in times {
            if self.bytes <= self.limit {
                break;
            }
            self.bytes -= len;
            since = ns;
        }
        self.pages.retain(|page| page.ns > since);
        self.bytes = self.pages.iter().map(|page| page.bytes.len() as u64).sum();
    }

    /// Bytes of the largest sub-buffer.
    pub(super) fn page_size(&self) -> u32 {
        let largest = self.pages.iter().map(|page| page.bytes.len()).max().unwrap_or(0);
        u32::try_from(largest).unwrap_or(u32::MAX)
    }

    /// Makes all sub-buffers at least this large.
    pub(super) fn pad(&mut self, size: u32) {
        for page in &mut self.pages {
            page.bytes.resize(page.bytes.len().max(size as usize), 0);
        }
    }

    /// Lets those go that are larger.
    pub(super) fn drop_larger(&mut self, size: u32) {
        self.pages.retain(|page| page.bytes.len() <= size as usize);
    }

    /// Whether the buffers may have lost something of the time that was asked for.
    pub(super) fn is_short(&self) -> bool {
        self.since_ns > 0 && self.begins_ns > self.since_ns
    }

    /// What is kept, each lane's sub-buffers in order.
    pub(super) fn finish(mut self) -> impl Iterator<Item = (usize, Vec<u8>)> {
        self.cut();
        self.pages.into_iter().map(|page| (page.lane, page.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(last: Last, pages: &[(usize, u64)]) -> Vec<(usize, u8)> {
        let mut recent = Recent::new(last, 1000);
        for &(lane, ns) in pages {
            recent.push(lane, ns, vec![ns.to_le_bytes()[0]; 10]);
        }
        recent.finish().map(|(lane, bytes)| (lane, bytes[0])).collect()
    }

    const PAGES: [(usize, u64); 5] = [(0, 100), (0, 110), (0, 120), (1, 105), (1, 125)];

    #[test]
    fn amounts_are_megabytes_or_seconds() {
        let parse = |text: &str| text.parse::<Last>();
        assert_eq!(parse("64"), Ok(Last { bytes: Some(64_000_000), time: None }));
        assert_eq!(parse("64MB"), parse("64"));
        assert_eq!(parse("0.5s"), Ok(Last { bytes: None, time: Some(Duration::from_millis(500)) }));
        for wrong in ["", "0", "0s", "-1s", "s", "MB", "1e30s", "64kB", "1048577"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let (mb, s) = (parse("1").unwrap(), parse("2s").unwrap());
        let both = Last { bytes: Some(1_000_000), time: Some(Duration::from_secs(2)) };
        assert_eq!(Last::of(&[mb, s]).unwrap(), both);
        assert!(Last::of(&[mb, mb]).is_err() && Last::of(&[s, s]).is_err());
    }

    #[test]
    fn all_is_kept_without_a_limit() {
        assert_eq!(kept(Last::default(), &PAGES).len(), 5);
    }

    #[test]
    fn the_last_bytes_are_kept_whichever_cpu_wrote_them() {
        let last = Last { bytes: Some(30), time: None };
        assert_eq!(kept(last, &PAGES), [(0, 110), (0, 120), (1, 125)]);
        assert_eq!(kept(Last { bytes: Some(9), ..last }, &PAGES), []);
    }

    #[test]
    fn a_sub_buffer_is_kept_that_may_reach_into_the_time() {
        let last = Last { bytes: None, time: Some(Duration::from_nanos(1000 - 112)) };
        assert_eq!(kept(last, &PAGES), [(0, 110), (0, 120), (1, 105), (1, 125)]);
        let last = Last { bytes: None, time: Some(Duration::from_nanos(1000 - 200)) };
        assert_eq!(kept(last, &PAGES), [(0, 120), (1, 125)], "the last one of each may");
    }
}
