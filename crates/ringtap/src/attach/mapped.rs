//! The buffers of one instance, as far as this process has mapped them.
//!
//! A resize is announced before it is done: the link adds what follows to the lanes of this process's writers, who go on
//! to it once they find the old ring retired (see [`resize`](crate::resize)).
//!
//! What was replaced is kept until it is read, so that it can be offered to a host in this one's place.

use super::connection::{Connection, map_descriptor};
use super::error::AttachError;
use crate::line::{self, Said};
use crate::map::{Access, File, Mapping};
use crate::writer::{self, Lane, OnBoard};
use ringtap_abi::control::request::OLDEST;
use rustix::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Most buffers that one look at a CPU brings: a host whose buffers follow each other faster is none.
const STEPS: usize = 64;

/// Most buffers of a CPU that are kept for another host. A host has two that are not read, and a third for a moment.
const HELD: usize = 8;

/// An instance's buffers.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    pub(super) epoch: u64,
    pub(super) lineage: u64,
    /// What this process's writers write. The index is the CPU, here and below.
    pub(super) lanes: Arc<[Lane]>,
    held: Vec<Line>,
}

/// The buffers of a CPU that are known and not read, and what is about to be written; the oldest first. There is one at
/// least.
#[derive(Clone, Debug)]
struct Line(Vec<Arc<Held>>);

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

    fn said(&self) -> Said {
        Said::by(&self.mapping.ring())
    }
}

impl Mapped {
    /// An instance that is no more.
    pub(super) fn nothing(epoch: u64, lineage: u64) -> Self {
        Self { epoch, lineage, lanes: Arc::new([]), held: Vec::new() }
    }

    /// Maps an instance's buffers.
    pub(super) fn new(
        connection: &Connection,
        bit: u16,
        epoch: u64,
        lineage: u64,
    ) -> Result<Self, AttachError> {
        connection.check_cpus()?;
        let oldest = |&cpu: &u32| {
            let descriptor = connection.descriptor_after(bit, cpu, OLDEST)?;
            let mapping = Arc::new(map_descriptor(&descriptor, cpu, Access::Write)?);
            Ok(Arc::new(Held { descriptor, mapping }))
        };
        let oldest = connection.cpus().iter().map(oldest).collect::<Result<Vec<_>, AttachError>>()?;
        let mappings = oldest.iter().map(|held| Arc::clone(&held.mapping)).collect();
        let on_board = OnBoard { board: Arc::clone(connection.board()?), instance: bit.into() };
        let lanes = writer::lanes(mappings, Some(&on_board));
        let held = oldest.into_iter().map(|held| Line(vec![held])).collect();
        let mut mapped = Self { epoch, lineage, lanes, held };
        mapped.follow(connection, bit)?;
        Ok(mapped)
    }

    /// Whether buffers are mapped that nobody writes yet.
    pub(super) fn is_ahead(&self) -> bool {
        self.held.iter().any(Line::is_ahead)
    }

    /// Maps what follows the buffers that are known.
    pub(super) fn follow(&mut self, connection: &Connection, bit: u16) -> Result<(), AttachError> {
        for ((line, lane), &cpu) in self.held.iter_mut().zip(self.lanes.iter()).zip(connection.cpus()) {
            line.follow(connection, bit, cpu, lane)?;
            line.forget_what_is_read();
        }
        Ok(())
    }

    /// The descriptors of all buffers, each with its CPU's place.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = (u32, &OwnedFd)> {
        let lines = (0u32..).zip(&self.held);
        lines.flat_map(|(cpu, line)| line.0.iter().map(move |held| (cpu, &held.descriptor)))
    }

    /// Sends this process's writers to the buffers in these ones' place.
    pub(super) fn retire(&self) {
        self.lanes.iter().for_each(Lane::retire_all);
    }

    /// Whether some buffer is also one of the other's.
    pub(super) fn shares(&self, other: &Self) -> bool {
        let has = |file: File| other.held.iter().any(|line| line.0.iter().any(|held| held.file() == file));
        self.held.iter().any(|line| line.0.iter().any(|held| has(held.file())))
    }
}

impl Line {
    fn is_ahead(&self) -> bool {
        self.0.len() > 1 && !self.0[self.0.len() - 2].said().is_retired
    }

    fn follow(
        &mut self,
        connection: &Connection,
        bit: u16,
        cpu: u32,
        lane: &Lane,
    ) -> Result<(), AttachError> {
        // Where the host does not know the last one, it may know one before it. Writers may be in those behind: they are kept until
        // there is where to send those.
        let (mut asked, mut forgotten) = (self.0.len() - 1, Vec::new());
        for _ in 0..STEPS {
            let descriptor = connection.descriptor_after(bit, cpu, self.0[asked].file().inode())?;
            let file = File::of(descriptor.as_fd()).map_err(|source| AttachError::Map { cpu, source })?;
            if file == self.0[asked].file() {
                // It is written, and what is behind it never was. Nor has the host what else is open: a forked child's link may not
                // know all that its writers do, and what was to be given up may not have been possible.
                self.0.truncate(asked + 1);
                lane.give_up(&forgotten, |file| self.0.iter().any(|held| held.file() == file));
                return Ok(());
            }
            if self.0[..asked].iter().any(|held| held.file() == file) {
                asked -= 1;
                continue;
            }
            let mapping = Arc::new(map_descriptor(&descriptor, cpu, Access::Write)?);
            let held = Arc::new(Held { descriptor, mapping });
            let given = held.said().ordinal;
            let said: Vec<_> = self.0.iter().map(|held| held.said()).collect();
            if asked > 0 && given < said[asked].ordinal {
                asked -= 1;
                continue;
            }
            lane.add(Arc::clone(&held.mapping));
            let gone = self.0.drain(line::known(&said, asked, given)..);
            forgotten.extend(gone.map(|held| Arc::clone(&held.mapping)));
            self.0.push(held);
            asked = self.0.len() - 1;
        }
        Err(AttachError::Protocol("its buffers follow each other without an end"))
    }

    /// Keeps what is not read.
    fn forget_what_is_read(&mut self) {
        let first = self.0.iter().rposition(|held| held.said().is_first).unwrap_or(0);
        let surplus = self.0.len().saturating_sub(HELD);
        self.0.drain(..first.max(surplus));
    }
}
