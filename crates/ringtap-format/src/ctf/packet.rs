//! A data stream: one CPU's packets.

use super::class::text;
use crate::text::Common;

/// Starts every packet.
const MAGIC: u32 = 0xc1fc_1fc1;
/// Bytes of packet header and packet context.
const START_LEN: usize = 24 + 52;

#[derive(Debug)]
pub(super) struct Stream {
    group: u32,
    cpu: u32,
    name: String,
    /// The events of the packet that is being filled.
    content: Vec<u8>,
    begin: u64,
    last: u64,
    packets: u64,
    discarded: u64,
    /// No packet tells yet of all that was discarded.
    is_loss_untold: bool,
    /// Packets that are ready.
    ready: Vec<u8>,
}

impl Stream {
    pub(super) fn new(group: u32, cpu: u32) -> Self {
        Self {
            group,
            cpu,
            name: format!("stream-{group}-cpu{cpu}"),
            content: Vec::new(),
            begin: 0,
            last: 0,
            packets: 0,
            discarded: 0,
            is_loss_untold: false,
            ready: Vec::new(),
        }
    }

    /// The time of the last event.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Where the payload of the event goes that was begun.
    pub(super) const fn content(&mut self) -> &mut Vec<u8> {
        &mut self.content
    }

    /// Begins an event: its header and its context. What it returns is for [`undo`](Self::undo).
    pub(super) fn begin(
        &mut self,
        id: u32,
        time: u64,
        common: Common,
        procname: &[u8],
        is_utf8: bool,
    ) -> usize {
        let time = time.max(self.last);
        if self.content.is_empty() {
            self.begin = time;
        }
        self.last = time;
        let (start, out) = (self.content.len(), &mut self.content);
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&time.to_le_bytes());
        out.extend_from_slice(&common.pid.to_le_bytes());
        text(procname, is_utf8, out);
        out.extend_from_slice(&[common.flags, common.preempt_count]);
        start
    }

    /// Forgets an event that was begun.
    pub(super) fn undo(&mut self, start: usize) {
        self.content.truncate(start);
    }

    /// Notes a loss, between this packet and the next; returns the bytes of packets that got ready.
    pub(super) fn lost(&mut self, time: u64, count: u64, uuid: &[u8; 16]) -> usize {
        // Readers take the difference between two packets, so there must be one before the first loss.
        let mut ready = 0;
        if !self.content.is_empty() || self.packets == 0 {
            if self.content.is_empty() {
                (self.begin, self.last) = (time, time);
            }
            ready = self.close(uuid);
        }
        self.discarded = self.discarded.saturating_add(count);
        self.is_loss_untold = true;
        ready
    }

    /// Ends the last packet; returns the bytes of packets that got ready.
    pub(super) fn finish(&mut self, uuid: &[u8; 16]) -> usize {
        if self.content.is_empty() && !self.is_loss_untold {
            return 0;
        }
        if self.content.is_empty() {
            self.begin = self.last;
        }
        self.close(uuid)
    }

    /// Makes a packet of the events; returns its bytes.
    pub(super) fn close(&mut self, uuid: &[u8; 16]) -> usize {
        let len = START_LEN.saturating_add(self.content.len());
        let bits = u64::try_from(len).unwrap_or(u64::MAX).saturating_mul(8);
        let out = &mut self.ready;
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(uuid);
        out.extend_from_slice(&self.group.to_le_bytes());
        // Content and packet are the same: nothing has to be aligned.
        for number in [self.begin, self.last, bits, bits, self.packets, self.discarded] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.cpu.to_le_bytes());
        out.append(&mut self.content);
        self.packets = self.packets.saturating_add(1);
        self.is_loss_untold = false;
        len
    }

    pub(super) fn drain<E>(
        &mut self,
        append: &mut impl FnMut(&str, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.ready.is_empty() {
            append(&self.name, &self.ready)?;
            self.ready.clear();
        }
        Ok(())
    }
}
