//! What an instance's files show and set of its buffers: sizes, recording, snapshots.

use super::errno::{errno, instance_errno};
use super::instance::{Instance, line};
use super::options::bit;
use super::{Control, number, sizes};
use ringtap::Host;
use rustix::io::Errno;
use std::sync::atomic::Ordering::Relaxed;

impl Instance {
    pub(crate) fn tracing_on(&self) -> Vec<u8> {
        line(u8::from(self.is_recording()))
    }

    pub(crate) fn write_tracing_on(&self, bytes: &[u8]) -> Result<(), Errno> {
        self.inner.set_recording(number::unsigned(bytes)? != 0);
        Ok(())
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.inner.is_recording()
    }

    /// Empties the buffers, or one CPU's.
    pub(crate) fn reset(&self, cpu: Option<u32>) -> Result<(), Errno> {
        let host = self.host();
        match cpu {
            None => {
                self.forget_left();
                self.note_emptied(&host);
                host.reset()
            }
            Some(cpu) => {
                self.left(cpu);
                self.left_text(Some(cpu));
                host.reset_cpu(cpu)
            }
        }
        .map_err(|error| errno(&error))
    }

    pub(super) fn note_emptied(&self, host: &Host) {
        let now = host.cpus().first().and_then(|&cpu| host.stats(cpu).ok()).map_or(0, |stats| stats.now_ts);
        // A number of its own, which orders nothing.
        self.emptied.store(now, Relaxed);
    }

    /// When the buffers were emptied last; 0 if they never were.
    pub(super) fn emptied(&self) -> u64 {
        self.emptied.load(Relaxed)
    }

    /// A CPU's size, or that of all; `X` where they differ.
    pub(crate) fn buffer_size_kb(&self, cpu: Option<u32>) -> Result<Vec<u8>, Errno> {
        let sizes = self.sizes_kb();
        match cpu {
            Some(cpu) => {
                usize::try_from(cpu).ok().and_then(|cpu| sizes.get(cpu)).map(line).ok_or(Errno::NODEV)
            }
            None => match sizes.as_slice() {
                [first, others @ ..] if others.iter().all(|size| size == first) => Ok(line(first)),
                _ => Ok(b"X\n".into()),
            },
        }
    }

    pub(crate) fn buffer_total_size_kb(&self) -> Vec<u8> {
        line(self.sizes_kb().iter().sum::<u64>())
    }

    fn sizes_kb(&self) -> Vec<u64> {
        let subbuf_size = self.subbuf_size();
        let size = |cpu| self.inner.size(cpu).map_or(0, |subbufs| sizes::kb(subbufs, subbuf_size));
        self.cpus().into_iter().map(size).collect()
    }

    /// Sets a CPU's size, or that of all.
    pub(crate) fn write_buffer_size_kb(
        &self,
        control: &Control,
        cpu: Option<u32>,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let kb = number::unsigned(bytes)?;
        let subbufs = sizes::ring_subbufs(kb, self.subbuf_size())?;
        self.resize(control, cpu, subbufs)
    }

    fn resize(&self, control: &Control, cpu: Option<u32>, subbufs: u32) -> Result<(), Errno> {
        let cpus = cpu.map_or_else(|| self.cpus(), |cpu| vec![cpu]);
        if cpu.is_some() && cpus.iter().all(|&cpu| self.inner.size(cpu) == Some(subbufs)) {
            return Ok(());
        }
        if self.uses().is_walked(cpu) || control.is_mapped(self, &cpus) {
            return Err(Errno::BUSY);
        }
        self.inner.set_size(cpu, subbufs).map_err(|error| instance_errno(&error))
    }

    /// Closing `free_buffer`: as small as can be, and perhaps off. Nobody hears of a failure.
    pub(crate) fn free(&self, control: &Control) {
        if self.has(bit::DISABLE_ON_FREE) {
            self.inner.set_recording(false);
        }
        let _ = self.resize(control, None, sizes::FEWEST);
    }

    pub(crate) fn buffer_subbuf_size_kb(&self) -> Vec<u8> {
        line(self.subbuf_size() / 1024)
    }

    pub(crate) fn write_buffer_subbuf_size_kb(&self, control: &Control, bytes: &[u8]) -> Result<(), Errno> {
        let size = sizes::subbuf_size(number::unsigned(bytes)?)?;
        if size == self.subbuf_size() {
            return Ok(());
        }
        if control.is_mapped(self, &self.cpus()) {
            return Err(Errno::BUSY);
        }
        self.inner.set_subbuf_size(size).map_err(|error| instance_errno(&error))
    }

    pub(crate) fn subbuf_size(&self) -> u32 {
        self.inner.config().subbuf_size
    }

    /// `snapshot`: 0 frees it, 1 takes one, of all CPUs or of one, anything else empties it.
    pub(crate) fn write_snapshot(
        &self,
        control: &Control,
        cpu: Option<u32>,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let command = number::unsigned(bytes)?;
        let host = self.host();
        let done = match (command, cpu) {
            (0, Some(_)) => return Err(Errno::INVAL),
            (0, None) => {
                host.free_snapshot();
                Ok(())
            }
            (1, _) if control.is_mapped(self, &self.cpus()) => return Err(Errno::BUSY),
            (1, cpu) => host.take_snapshot(cpu),
            (_, None) => host.clear_snapshot(),
            (_, Some(cpu)) => host.snapshot().map_or(Ok(()), |snapshot| snapshot.reset_cpu(cpu)),
        };
        done.map_err(|error| errno(&error))
    }

    pub(crate) fn buffer_percent(&self) -> u8 {
        self.inner.buffer_percent()
    }

    pub(crate) fn write_buffer_percent(&self, bytes: &[u8]) -> Result<(), Errno> {
        let percent = u8::try_from(number::unsigned(bytes)?).map_err(|_| Errno::INVAL)?;
        self.inner.set_buffer_percent(percent).map_err(|error| instance_errno(&error))
    }
}
