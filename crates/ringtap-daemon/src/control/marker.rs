//! `trace_marker` and `trace_marker_raw`: what other threads write through the tree.

use super::instance::Instance;
use super::options::bit;
use super::{Caller, Control};
use ringtap::Writer;
use ringtap::cpus::Pin;
use ringtap::event::Common;
use ringtap::event::marker::{PRINT_HEAD, RAW_DATA_HEAD};
use ringtap::event::registry::{PRINT_ID, RAW_DATA_ID};
use rustix::io::Errno;

/// Largest payload of a marker, in bytes, whatever the sub-buffers take.
const LIMIT: usize = 4096;
/// The line break and the NUL behind a text.
const END: usize = 2;

impl Instance {
    /// Writes a text as the caller's, on his CPU; how many bytes of it were taken.
    pub(crate) fn write_marker(
        &self,
        control: &Control,
        bytes: &[u8],
        caller: &Caller,
    ) -> Result<usize, Errno> {
        self.check_marker()?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let writer = self.writer(control.generation());
        let (text, _) = bytes.split_at(bytes.len().min(room(&writer) - PRINT_HEAD - END));
        let mut payload = head(PRINT_ID, caller).to_vec();
        payload.resize(PRINT_HEAD, 0);
        payload.extend_from_slice(text);
        if !text.ends_with(b"\n") {
            payload.push(b'\n');
        }
        payload.push(0);
        self.write_as(&writer, payload, caller)?;
        Ok(text.len())
    }

    /// Writes a number and bytes as the caller's, on his CPU; all or nothing.
    pub(crate) fn write_raw_marker(
        &self,
        control: &Control,
        bytes: &[u8],
        caller: &Caller,
    ) -> Result<usize, Errno> {
        self.check_marker()?;
        let writer = self.writer(control.generation());
        let number = RAW_DATA_HEAD - Common::LEN;
        if bytes.len() < number || bytes.len() > room(&writer) - Common::LEN {
            return Err(Errno::INVAL);
        }
        let mut payload = head(RAW_DATA_ID, caller).to_vec();
        payload.extend_from_slice(bytes);
        self.write_as(&writer, payload, caller)?;
        Ok(bytes.len())
    }

    fn check_marker(&self) -> Result<(), Errno> {
        if self.has(bit::MARKERS) { Ok(()) } else { Err(Errno::INVAL) }
    }

    /// Writes on the caller's CPU: events of one thread stand in one ring in their order, and so does what it writes
    /// through the tree.
    fn write_as(&self, writer: &Writer, mut payload: Vec<u8>, caller: &Caller) -> Result<(), Errno> {
        let cpu = caller.cpu();
        if !cpu.is_none_or(|cpu| self.traces_cpu(cpu)) {
            return Err(Errno::BADF);
        }
        payload.resize(payload.len().next_multiple_of(4), 0);
        let _pin = cpu.and_then(Pin::to);
        // The kernel has one answer for all reasons: off, full, nobody there.
        writer.write(&payload).map_err(|_| Errno::BADF)
    }
}

fn room(writer: &Writer) -> usize {
    writer.max_payload().min(LIMIT)
}

fn head(id: u16, caller: &Caller) -> [u8; Common::LEN] {
    // The kernel writes its markers with preemption off, and tools compare their lines.
    let common = Common { id, flags: 0, preempt_count: 1, pid: caller.tid };
    let [b0, b1, b2, b3, b4, b5, b6, b7] = common.word().to_le_bytes();
    [b0, b1, b2, b3, b4, b5, b6, b7]
}
