//! Which files of an instance are open, and what that excludes.

use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// What is open.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// All files.
    files: usize,
    /// Open `trace` files, by CPU; `None` is that of all.
    traces: BTreeMap<Option<u32>, usize>,
    /// Open `trace_pipe` files, as above; each at most once.
    pipes: BTreeSet<Option<u32>>,
    raw_pipes: usize,
}

/// How a file is used while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// As any file: its instance stays.
    Plain,
    /// Its buffers are walked, and stay.
    Trace(Option<u32>),
    /// Its events are consumed as text.
    Pipe(Option<u32>),
    /// Its events are consumed as pages.
    RawPipe,
}

impl Uses {
    /// One more file is open, unless it cannot be beside the others.
    pub(super) fn begin(&mut self, kind: Use) -> Result<(), Errno> {
        match kind {
            Use::Plain => {}
            Use::Trace(cpu) => *self.traces.entry(cpu).or_default() += 1,
            Use::Pipe(cpu) => {
                // One file consumes a CPU's events, and one of all CPUs excludes the others.
                let taken = if cpu.is_none() { !self.pipes.is_empty() } else { self.pipes.contains(&None) };
                if taken || !self.pipes.insert(cpu) {
                    return Err(Errno::BUSY);
                }
            }
            Use::RawPipe => self.raw_pipes += 1,
        }
        self.files += 1;
        Ok(())
    }

    /// A file was closed.
    pub(super) fn end(&mut self, kind: Use) {
        self.files -= 1;
        match kind {
            Use::Plain => {}
            Use::Trace(cpu) => {
                if let Some(count) = self.traces.get_mut(&cpu) {
                    *count -= 1;
                }
            }
            Use::Pipe(cpu) => {
                self.pipes.remove(&cpu);
            }
            Use::RawPipe => self.raw_pipes -= 1,
        }
    }

    /// Whether any file is open.
    pub(super) fn is_any(&self) -> bool {
        self.files > 0
    }

    /// Whether a `trace` file that shows this CPU (`None`: any) is open.
    pub(super) fn is_walked(&self, cpu: Option<u32>) -> bool {
        let concerns = |of: &Option<u32>| cpu.is_none() || of.is_none() || *of == cpu;
        self.traces.iter().any(|(of, count)| *count > 0 && concerns(of))
    }
}
