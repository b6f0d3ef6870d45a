//! `per_cpu/cpuN/snapshot_raw`, open: the sub-buffers of the last snapshot, consumed as `trace_pipe_raw`'s are.

#![forbid(unsafe_code)]

use super::consumer::{Consumer, Source};
use ringtap::Host;
use rustix::io::Errno;

/// One open file.
#[derive(Debug)]
pub(crate) struct RawSnapshot {
    cpu: u32,
    /// The snapshot that is being read. Another one is read from its start.
    reading: Option<(Source, Consumer)>,
    /// What is left of a sub-buffer that was read in part.
    rest: Vec<u8>,
}

impl RawSnapshot {
    pub(crate) fn new(cpu: u32) -> Self {
        Self { cpu, reading: None, rest: Vec::new() }
    }

    /// The next bytes of `snapshot`, the present one; none behind its last event.
    pub(crate) fn read(&mut self, snapshot: Option<Host>, len: usize) -> Result<Vec<u8>, Errno> {
        if self.rest.is_empty() {
            let Some(snapshot) = snapshot else {
                self.reading = None;
                return Ok(Vec::new());
            };
            let is_same = |(source, _): &(Source, Consumer)| source.host.is_same(&snapshot);
            let known = self.reading.take().filter(is_same);
            let (source, consumer) = self
                .reading
                .insert(known.unwrap_or((Source { host: snapshot, cpu: self.cpu }, Consumer::default())));
            self.rest = consumer.read(source, len)?.unwrap_or_default();
        }
        let rest = self.rest.split_off(len.min(self.rest.len()));
        Ok(std::mem::replace(&mut self.rest, rest))
    }
}
