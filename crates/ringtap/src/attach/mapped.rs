//! The buffers of one instance, as far as this process has mapped them.
//!
//! A resize is announced before it is done: the link adds what follows to the lanes of this process's writers, who go on
//! to it once they find the old ring retired (see [`resize`](crate::resize)).

use super::error::AttachError;
use super::{Connection, map_descriptor};
use crate::map::{Access, File, Mapping};
use crate::ring::retire;
use crate::rseq::lock;
use crate::writer::{self, Lane};
use rustix::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Most buffers that one look at a CPU brings: a host whose buffers follow each other faster is none.
const STEPS: usize = 64;

/// An instance's buffers.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) epoch: u64,
    pub(super) lineage: u64,
    /// What this process's writers write. The index is the CPU, here and below.
    pub(super) lanes: Arc<[Lane]>,
    latest: Vec<Latest>,
}

/// The last buffers of a CPU that are known.
#[derive(Debug)]
struct Latest {
    /// The one before the last, which may still be the one that is written.
    before: Option<Held>,
    last: Held,
}

/// A buffer, and what can be offered to a host in this one's place.
#[derive(Debug)]
struct Held {
    descriptor: OwnedFd,
    mapping: Arc<Mapping>,
}

impl Held {
    fn file(&self) -> File {
        self.mapping.file()
    }

    fn is_retired(&self) -> bool {
        retire::is_retired(&self.mapping.ring()) == Ok(true)
    }
}

impl Mapped {
    /// An instance that is no more.
    pub(super) fn nothing(epoch: u64, lineage: u64) -> Self {
        Self { epoch, lineage, lanes: Arc::new([]), latest: Vec::new() }
    }

    /// Maps an instance's buffers.
    pub(super) fn new(
        connection: &Connection,
        bit: u16,
        epoch: u64,
        lineage: u64,
    ) -> Result<Self, AttachError> {
        let (descriptors, mappings) = connection.map_all(bit)?;
        let held = descriptors
            .into_iter()
            .zip(&mappings)
            .map(|(descriptor, mapping)| Held { descriptor, mapping: Arc::clone(mapping) });
        let latest = held.map(|last| Latest { before: None, last }).collect();
        let mut mapped = Self { epoch, lineage, lanes: writer::lanes(mappings), latest };
        mapped.follow(connection, bit)?;
        Ok(mapped)
    }

    /// Whether buffers are mapped that nobody writes yet.
    pub(super) fn is_ahead(&self) -> bool {
        self.latest.iter().any(Latest::is_ahead)
    }

    /// Maps what follows the buffers that are known.
    pub(super) fn follow(&mut self, connection: &Connection, bit: u16) -> Result<(), AttachError> {
        for (cpu, (latest, lane)) in (0u32..).zip(self.latest.iter_mut().zip(self.lanes.iter())) {
            latest.follow(connection, bit, cpu, lane)?;
        }
        Ok(())
    }

    /// The descriptors of the buffers that are written.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        self.latest.iter().map(|latest| match &latest.before {
            Some(before) if latest.is_ahead() => &before.descriptor,
            _ => &latest.last.descriptor,
        })
    }

    /// Sends this process's writers to the buffers in these ones' place.
    pub(super) fn retire(&self) {
        self.lanes.iter().for_each(Lane::retire_all);
    }
}

impl Latest {
    fn is_ahead(&self) -> bool {
        self.before.as_ref().is_some_and(|before| !before.is_retired())
    }

    fn follow(
        &mut self,
        connection: &Connection,
        bit: u16,
        cpu: u32,
        lane: &Lane,
    ) -> Result<(), AttachError> {
        for _ in 0..STEPS {
            let descriptor = connection.descriptor_after(bit, cpu, self.last.file().inode())?;
            let file = File::of(descriptor.as_fd()).map_err(|source| AttachError::Map { cpu, source })?;
            if file == self.last.file() {
                return Ok(());
            }
            if self.before.as_ref().is_some_and(|before| before.file() == file) {
                self.step_back();
                continue;
            }
            let mapping = Arc::new(map_descriptor(&descriptor, cpu, Access::Write)?);
            lane.add(Arc::clone(&mapping));
            self.before = Some(std::mem::replace(&mut self.last, Held { descriptor, mapping }));
        }
        Err(AttachError::Protocol("its buffers follow each other without an end"))
    }

    /// The last one will not follow the one before it: the host died or failed in between. Retired, it is passed over to
    /// what follows instead.
    fn step_back(&mut self) {
        let Some(before) = self.before.take() else { return };
        let never = std::mem::replace(&mut self.last, before);
        let ring = never.mapping.ring();
        if let Some(_held) = lock::acquire(&ring.meta().writer.lock) {
            // Nobody writes there. What is damaged is not written either.
            let _ = retire::retire(&ring, None);
        }
    }
}
