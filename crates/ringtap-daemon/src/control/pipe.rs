//! The text of `trace_pipe`: each event is read once.

use super::Control;
use super::instance::Hold;
use super::lane::{Lane, Piece, earliest};
use super::trace::Printer;
use ringtap::{Host, ReadError, Reader};
use rustix::io::Errno;
use std::collections::VecDeque;

/// An open `trace_pipe`.
#[derive(Debug)]
pub(crate) struct Pipe {
    hold: Hold,
    cpu: Option<u32>,
    lanes: Vec<Lane<Reader>>,
    /// Text that the last read had no room for.
    text: VecDeque<u8>,
    has_read: bool,
    /// How many records were made text of.
    printed: u64,
}

impl Pipe {
    /// Begins to consume the events of `cpu` (`None`: all).
    pub(crate) fn new(hold: Hold, cpu: Option<u32>) -> Result<Self, Errno> {
        let text = hold.instance.left_text(cpu);
        let mut pipe = Self { hold, cpu, lanes: Vec::new(), text, has_read: false, printed: 0 };
        let host = pipe.hold.instance.host();
        for cpu in cpu.map_or_else(|| host.cpus(), |cpu| vec![cpu]) {
            let reader = host.reader(cpu).map_err(|error| errno(&error))?;
            let left = pipe.hold.instance.left(cpu);
            pipe.lanes.push(Lane::new(cpu, reader, left));
        }
        Ok(pipe)
    }

    /// Up to `len` bytes; `None` when there is nothing yet.
    pub(crate) fn read(&mut self, control: &Control, len: usize) -> Result<Option<Vec<u8>>, Errno> {
        if self.text.is_empty() {
            let printer = Printer::new(control, &self.hold.instance);
            let mut text = Vec::new();
            while text.len() < len {
                let Some(lane) = earliest(&mut self.lanes)? else { break };
                // As in the kernel, a pipe does not look ahead: no pause is marked.
                printer.print(lane.take(), self.printed, None, &mut text);
                self.printed += 1;
            }
            self.text = text.into();
        }
        if !self.text.is_empty() {
            self.has_read = true;
            let len = len.min(self.text.len());
            return Ok(Some(self.text.drain(..len).collect()));
        }
        // As in the kernel: the end comes only behind something, and not while more can.
        let ended = self.has_read && !self.hold.instance.is_recording();
        Ok(ended.then(Vec::new))
    }

    /// Whether a read would find something.
    pub(crate) fn is_ready(&mut self) -> Result<bool, Errno> {
        Ok(!self.text.is_empty() || earliest(&mut self.lanes)?.is_some())
    }

    pub(crate) fn host(&self) -> Host {
        self.hold.instance.host()
    }

    pub(crate) fn cpu(&self) -> Option<u32> {
        self.cpu
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        for mut lane in self.lanes.drain(..) {
            // The rest of the page that the reader was given: the next one begins behind it.
            while let Some(item) = lane.stream.next_at_hand() {
                lane.ready.push_back(Piece::of(item));
            }
            self.hold.instance.leave(lane.cpu, lane.ready);
        }
        self.hold.instance.leave_text(self.cpu, std::mem::take(&mut self.text));
    }
}

fn errno(error: &ReadError) -> Errno {
    match error {
        ReadError::Host(error) => super::errno::errno(error),
        _ => Errno::IO,
    }
}
