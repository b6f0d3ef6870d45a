//! Which buffers somebody may have mapped.

#![forbid(unsafe_code)]

use crate::control::Mapped;
use crate::fs::fuse::device;
use crate::fs::raw;
use ringtap::Host;
use ringtap::subbufs::Frame;
use rustix::fd::AsFd as _;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which buffers somebody may have mapped.
#[derive(Debug, Default)]
pub(in crate::fs) struct Mappings {
    /// The inodes that were ever opened and are not forgotten, which a mapping prevents.
    inodes: Mutex<HashMap<u64, Shown>>,
}

/// What an inode shows.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// Which buffer: of the instance of this number, and of this CPU.
    pub(super) instance: u32,
    pub(super) cpu: u32,
    /// What its mappings go to.
    pub(super) frame: Frame,
    /// How often it is open.
    pub(super) openings: u64,
}

impl Mappings {
    /// A look-up is over before anybody else asks, and a panic in it changes nothing.
    pub(super) fn inodes(&self) -> MutexGuard<'_, HashMap<u64, Shown>> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inodes that show a buffer.
    fn shown(&self, instance: u32, cpu: u32) -> HashMap<u64, Shown> {
        let mut shown = self.inodes().clone();
        shown.retain(|_, shown| (shown.instance, shown.cpu) == (instance, cpu));
        shown
    }

    /// Whether anybody has open or mapped what these show, or the present memory, which the clients of a server before
    /// this one may have.
    fn is_used(shown: &HashMap<u64, Shown>, host: &Host, cpu: u32) -> bool {
        let memories = shown.values().map(|shown| shown.frame.memory()).chain(host.memory(cpu).ok());
        memories.into_iter().any(|memory| !device::is_unused(memory.as_fd()))
    }

    /// Whether somebody maps a buffer or can do so at any time, having it open.
    pub(super) fn may_be_mapped(&self, instance: u32, host: &Host, cpu: u32) -> bool {
        Self::is_used(&self.shown(instance, cpu), host, cpu)
    }

    /// Forgets memory that other memory replaced and that nobody can map or has mapped any more.
    pub(super) fn forget_unused(&self) {
        self.inodes()
            .retain(|_, shown| shown.openings > 0 || !device::is_unused(shown.frame.memory().as_fd()));
    }
}

impl Mapped for Mappings {
    fn is_mapped(&self, instance: u32, host: &Host, cpu: u32) -> bool {
        let shown = self.shown(instance, cpu);
        if !Self::is_used(&shown, host, cpu) {
            return false;
        }
        // Somebody has it: through a mapping, where no file is open. Else the clients' own tables say it, and where the memory
        // is a file with a name, which its host has open for writing.
        if !host.is_persistent() && shown.values().all(|shown| shown.openings == 0) {
            return true;
        }
        !shown.is_empty() && raw::anybody_maps(&shown.into_keys().collect::<Vec<_>>())
    }
}
