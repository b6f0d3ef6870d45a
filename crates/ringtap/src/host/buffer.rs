//! One buffer as its host has it: memory, descriptors, and the reader's half of the ring.

use super::{Config, HostError, Mode};
use crate::clock::{ClockId, Conversion};
use crate::files::Files;
use crate::map::{self, Mapping};
use crate::pin::Pin;
use crate::ring::snapshot::Copying;
use crate::ring::swap::Reader as Swapper;
use crate::ring::{Corrupt, recover, renumber, reset};
use crate::rseq::{self, Area, lock, portable::Pinned};
use ringtap_abi::Geometry;
use ringtap_abi::meta::{Mention, Rank, WriterKind, state};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Buffer {
    cpu: u32,
    fd: Arc<OwnedFd>,
    read_only: Arc<OwnedFd>,
    mapping: Arc<Mapping>,
    reader: Mutex<Swapper>,
}

impl Buffer {
    pub(super) fn new(
        geometry: Geometry,
        cpu: u32,
        files: Option<&Files>,
        config: &Config,
        clock: ClockId,
        conversion: Conversion,
    ) -> Result<Self, HostError> {
        let (fd, mapping) = match files {
            Some(files) => map::create_file(&files.buffer(cpu), geometry, cpu)?,
            None => map::create(geometry, cpu)?,
        };
        let ring = mapping.ring();
        let default = if rseq::available() { WriterKind::Rseq } else { WriterKind::Locked };
        ring.meta().identity.writer_kind.store(config.writer.unwrap_or(default) as u32, Relaxed);
        ring.meta().clock.id.store(clock as u32, Relaxed);
        ring.meta().clock.store(conversion);
        let mut bits = 0;
        bits |= if config.off { state::OFF } else { 0 };
        bits |= if config.mode == Mode::Discard { state::DISCARD } else { 0 };
        bits |= if config.absolute_stamps { state::ABSOLUTE } else { 0 };
        ring.meta().switches.state.store(bits, Relaxed);
        let reader = Swapper::new(&ring);
        Self::with_reader(cpu, fd, mapping, reader)
    }

    /// The CPU whose ring this is.
    pub(crate) fn cpu(&self) -> u32 {
        self.cpu
    }

    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// A descriptor that can be mapped read-only and nothing else.
    pub(crate) fn memory(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.read_only)
    }

    /// A descriptor that can be mapped read-write.
    pub(crate) fn writable(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn file(&self) -> map::File {
        self.mapping.file()
    }

    /// See [`Mapping::give_back`].
    pub(crate) fn give_back(&self) {
        self.mapping.give_back(self.fd.as_fd());
    }

    /// Memory of the same kind, empty and switched off.
    fn blank(&self, geometry: Geometry) -> Result<(OwnedFd, Mapping), HostError> {
        let (fd, mapping) = map::create(geometry, self.cpu)?;
        let (from, ring) = (self.mapping.ring(), mapping.ring());
        let (from, to) = (from.meta(), ring.meta());
        to.identity.writer_kind.store(from.identity.writer_kind.load(Relaxed), Relaxed);
        to.clock.id.store(from.clock.id.load(Relaxed), Relaxed);
        if let Some(conversion) = from.clock.load() {
            to.clock.store(conversion);
        }
        to.switches.state.store(from.switches.state.load(Relaxed) | state::OFF, Relaxed);
        Ok((fd, mapping))
    }

    fn with_reader(
        cpu: u32,
        fd: OwnedFd,
        mapping: impl Into<Arc<Mapping>>,
        reader: Swapper,
    ) -> Result<Self, HostError> {
        let read_only = map::read_only(fd.as_fd())?;
        let (mapping, reader) = (mapping.into(), Mutex::new(reader));
        Ok(Self { cpu, fd: Arc::new(fd), read_only: Arc::new(read_only), mapping, reader })
    }

    /// An empty buffer of the same sizes, switched off.
    pub(crate) fn emptied(&self) -> Result<Self, HostError> {
        self.empty(self.mapping.geometry())
    }

    /// An empty buffer of these sizes, switched off.
    pub(crate) fn empty(&self, geometry: Geometry) -> Result<Self, HostError> {
        let (fd, mapping) = self.blank(geometry)?;
        let reader = Swapper::new(&mapping.ring());
        Self::with_reader(self.cpu, fd, mapping, reader)
    }

    /// A copy of what the buffer holds now, switched off, and retired where another one is to follow it. `pace` is called
    /// behind each page.
    pub(crate) fn copied(
        &self,
        is_followed: bool,
        mut pace: impl FnMut(&Copying<'_, '_>),
    ) -> Result<Self, HostError> {
        let (fd, mapping) = self.blank(self.mapping.geometry())?;
        let ring = self.mapping.ring();
        let mut copy = || {
            // While the lock is held nothing is handed out.
            let mut copying = Copying::begin(ring, &self.reader(), mapping.ring())?;
            while copying.step()? {
                pace(&copying);
            }
            copying.finish(is_followed)
        };
        let reader = copy().map_err(|Corrupt| HostError::Damaged(self.cpu))?;
        Self::with_reader(self.cpu, fd, mapping, reader)
    }

    /// A dead host's buffer, with all that its consuming reader had not been given.
    pub(crate) fn adopt(cpu: u32, fd: OwnedFd, mapping: Arc<Mapping>) -> Result<Self, HostError> {
        if mapping.ring().meta().identity.cpu.load(Relaxed) != cpu {
            return Err(HostError::NoSuchCpu(cpu));
        }
        let reader = recover::reader(&mapping.ring()).map_err(|Corrupt| HostError::Damaged(cpu))?;
        Self::with_reader(cpu, fd, mapping, reader)
    }

    /// Its place among those that followed each other.
    pub(crate) fn rank(&self) -> Rank {
        Rank::unpack(self.mapping.ring().meta().chain.rank.load(Relaxed))
    }

    pub(crate) fn set_rank(&self, rank: Rank) {
        self.mapping.ring().meta().chain.rank.store(rank.pack(), Relaxed);
    }

    /// Which buffer is to follow this one.
    pub(crate) fn next(&self) -> Mention {
        Mention::unpack(self.mapping.ring().meta().chain.next.load(Relaxed))
    }

    /// Says which buffer is to follow this one, of which nobody was told yet.
    pub(crate) fn set_next(&self, next: &Self) {
        let mention = Mention { ordinal: next.rank().ordinal, is_told: false };
        // Relaxed: writers look here once they have seen the mark in the tail, which comes later (E2).
        self.mapping.ring().meta().chain.next.store(mention.pack(), Relaxed);
    }

    /// What the consuming reader holds. A panic of another thread changes nothing about what it says.
    pub(crate) fn reader(&self) -> MutexGuard<'_, Swapper> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Host::renumber`].
    pub(crate) fn renumber(&self) -> Result<bool, HostError> {
        let (ring, mut reader) = (self.mapping.ring(), self.reader());
        let Some(_pin) = Pin::to(self.cpu) else { return Ok(false) };
        let kind = WriterKind::from_number(ring.meta().identity.writer_kind.load(Relaxed));
        let done = match (kind, Area::of_thread()) {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            (Some(WriterKind::Rseq), Some(area)) => {
                renumber::renumber(&ring, &mut reader, &rseq::native::Rseq(area), self.cpu)
            }
            _ => {
                // A writer that stopped has it: it gives no chance to.
                let Some(held) = lock::acquire(&ring.meta().writer.lock) else { return Ok(false) };
                let done = renumber::renumber(&ring, &mut reader, &Pinned(self.cpu), self.cpu);
                drop(held);
                done
            }
        };
        done.map_err(|Corrupt| HostError::Damaged(self.cpu))
    }

    pub(crate) fn reset(&self) -> Result<(), HostError> {
        let (ring, mut reader) = (self.mapping.ring(), self.reader());
        // Turning a page is the writers' business: it is done as one of them, on their CPU.
        let Some(_pin) = Pin::to(self.cpu) else {
            // The CPU is offline, or not for this process.
            return reset::drain(&ring, &mut reader).map_err(|Corrupt| HostError::Damaged(self.cpu));
        };
        let kind = WriterKind::from_number(ring.meta().identity.writer_kind.load(Relaxed));
        let done = match (kind, Area::of_thread()) {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            (Some(WriterKind::Rseq), Some(area)) => {
                reset::reset(&ring, &mut reader, &rseq::native::Rseq(area), self.cpu)
            }
            _ => Ok(false),
        };
        let done = match done {
            // No sections here; or somebody holds the lock, who may be dead, and then nobody's section commits.
            Ok(false) => {
                let held = lock::acquire(&ring.meta().writer.lock).ok_or(HostError::Busy(self.cpu))?;
                let done = reset::reset(&ring, &mut reader, &Pinned(self.cpu), self.cpu);
                drop(held);
                done
            }
            done => done,
        };
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(HostError::Busy(self.cpu)),
            Err(Corrupt) => Err(HostError::Damaged(self.cpu)),
        }
    }
}
