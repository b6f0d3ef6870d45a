//! Texts that describe a buffer: `stats`, `header_page`, `header_event`.

use super::instance::{Instance, errno};
use ringtap_abi::subbuf::HEADER_LEN;
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
        let fields = [
            ("u64 timestamp", 0, 8, 0),
            ("local_t commit", 8, 8, 1),
            ("int overwrite", 8, 1, 1),
            ("char data", HEADER_LEN, self.subbuf_size() - HEADER_LEN, 0),
        ];
        let line = |(field, offset, size, signed): (&str, u32, u32, u8)| {
            format!("\tfield: {field};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n")
        };
        fields.map(line).concat().into_bytes()
    }
}

/// How an event's header is laid out.
pub(crate) const HEADER_EVENT: &[u8] = b"# compressed entry header\n\
    \ttype_len    :    5 bits\n\
    \ttime_delta  :   27 bits\n\
    \tarray       :   32 bits\n\
    \n\
    \tpadding     : type == 29\n\
    \ttime_extend : type == 30\n\
    \ttime_stamp : type == 31\n\
    \tdata max type_len  == 28\n";
