//! Texts that describe a buffer: `stats` and `header_page`.

use super::errno::errno;
use super::instance::Instance;
use ringtap_format::header;
use rustix::io::Errno;

impl Instance {
    /// The kernel's eight counters.
    pub(crate) fn stats(&self, cpu: u32) -> Result<Vec<u8>, Errno> {
        let stats = self.host().stats(cpu).map_err(|error| errno(&error))?;
        let is_ns = self.clock().is_ns();
        let time = |ticks: u64| {
            let us = (ticks + 500) / 1000;
            if is_ns { format!("{:5}.{:06}", us / 1_000_000, us % 1_000_000) } else { ticks.to_string() }
        };
        let lines = [
            ("entries", stats.entries.to_string()),
            ("overrun", stats.overrun.to_string()),
            ("commit overrun", stats.commit_overrun.to_string()),
            ("bytes", stats.bytes.to_string()),
            ("oldest event ts", time(stats.oldest_event_ts)),
            ("now ts", time(stats.now_ts)),
            ("dropped events", stats.dropped_events.to_string()),
            ("read events", stats.read_events.to_string()),
        ];
        Ok(lines.map(|(name, value)| format!("{name}: {value}\n")).concat().into_bytes())
    }

    /// How a sub-buffer's header is laid out.
    pub(crate) fn header_page(&self) -> Vec<u8> {
        header::page_text(self.subbuf_size()).into_bytes()
    }
}
