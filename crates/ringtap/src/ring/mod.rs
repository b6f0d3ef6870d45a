//! The ring: one buffer's shared words and the steps that writers, host and cursors make on them.
//!
//! Read in the order of an event's life: [`write`] appends it, [`advance`] moves the tail to the next
//! sub-buffer, [`swap`] hands a sub-buffer to the consuming reader, [`cursor`] reads without consuming. None
//! of them knows of files or processes; rseq they see only as the outcome of a section.
//!
//! # Whom to trust
//!
//! Every word here may have been scribbled on by a writer gone wild. Ids are checked where they are read
//! ([`Ring::checked`]), lengths before they are used, and every loop has a bound.

mod advance;
mod counters;
pub(crate) mod cursor;
mod data;
pub(crate) mod ordering;
#[cfg(not(loom))]
pub(crate) mod recover;
#[cfg(not(loom))]
pub(crate) mod renumber;
pub(crate) mod reset;
pub(crate) mod retire;
pub(crate) mod snapshot;
pub(crate) mod swap;
#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::multiple_unsafe_ops_per_block,
    clippy::mem_forget,
    clippy::exit,
    missing_debug_implementations,
    reason = "numbers in tests are small, and the tests say so where they are not"
)]
pub(crate) mod tests;
pub(crate) mod watermark;
pub(crate) mod write;

pub(crate) use data::{Data, words_of};

use ordering::{e1_look, e2_look};
use ringtap_abi::meta::{Desc, MetaPage};
use ringtap_abi::sync::AtomicU64;
use ringtap_abi::words::{Commit, MAX_SEQ, Place, Slot};
use ringtap_abi::{Geometry, SubbufId};
use std::sync::atomic::Ordering::Relaxed;

/// One buffer's shared memory, borrowed from its mapping. The geometry was checked when it was mapped and is
/// private: what the shared header says later does not matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring<'m> {
    meta: &'m MetaPage,
    slots: &'m [AtomicU64],
    descs: &'m [Desc],
    data: Data<'m>,
    geometry: Geometry,
}

/// A shared word names something that cannot be: a writer has scribbled on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

impl<'m> Ring<'m> {
    /// The parts of one mapping.
    ///
    /// # Panics
    /// Where the parts are not of that geometry.
    pub(crate) fn new(
        geometry: Geometry,
        meta: &'m MetaPage,
        slots: &'m [AtomicU64],
        descs: &'m [Desc],
        data: Data<'m>,
    ) -> Self {
        assert_eq!(slots.len(), geometry.ring_subbufs() as usize);
        assert_eq!(descs.len(), geometry.nr_subbufs() as usize);
        Self { meta, slots, descs, data, geometry }
    }

    #[inline(always)]
    pub(crate) fn meta(&self) -> &'m MetaPage {
        self.meta
    }

    #[inline(always)]
    pub(crate) fn data(&self) -> Data<'m> {
        self.data
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The slot of ring position `seq`.
    pub(crate) fn slot(&self, seq: u64) -> &'m AtomicU64 {
        store_hook();
        let index = seq % u64::from(self.geometry.ring_subbufs());
        &self.slots[usize::try_from(index).expect("a remainder below 65,536")]
    }

    /// The desc of a checked sub-buffer.
    #[inline(always)]
    pub(crate) fn desc(&self, page: SubbufId) -> &'m Desc {
        &self.descs[usize::from(page.0)]
    }

    /// An id found in shared memory, once it is known to name a sub-buffer.
    #[inline(always)]
    pub(crate) fn checked(&self, page: SubbufId) -> Result<SubbufId, Corrupt> {
        if self.geometry.contains(page) { Ok(page) } else { Err(Corrupt) }
    }

    /// Where the writers are.
    pub(crate) fn tail(&self) -> Result<Place, Corrupt> {
        store_hook();
        // E2: pairs with the store of `tail` in the turn section.
        let tail = Place::unpack(self.meta.writer.tail.load(e2_look()));
        self.checked(tail.page())?;
        // Position 0 has none before it, and the last one none behind it: only scribbling leads there.
        if (1..MAX_SEQ).contains(&tail.seq()) { Ok(tail) } else { Err(Corrupt) }
    }

    /// How far a checked sub-buffer is committed.
    pub(crate) fn commit(&self, page: SubbufId) -> Result<Commit, Corrupt> {
        store_hook();
        // E1: pairs with the store of `w` in the append section.
        let w = Commit::unpack(self.desc(page).w.load(e1_look()));
        if w.offset() > self.geometry.capacity() || !w.offset().is_multiple_of(4) {
            Err(Corrupt)
        } else {
            Ok(w)
        }
    }

    /// Index of a checked sub-buffer's first event.
    pub(crate) fn first(&self, page: SubbufId) -> u64 {
        store_hook();
        // Relaxed: the caller came here through a tail or slot word that it loaded with Acquire.
        self.desc(page).first.load(Relaxed)
    }

    /// Index of the first event behind a checked sub-buffer that was left at `w`.
    pub(crate) fn first_after(&self, page: SubbufId, w: Commit) -> u64 {
        self.first(page).wrapping_add(u64::from(w.entries()))
    }

    /// Ring position of the oldest sub-buffer that may still exist when the tail is at `seq`.
    fn oldest(&self, seq: u64) -> u64 {
        (seq + 1).saturating_sub(u64::from(self.geometry.ring_subbufs()))
    }

    /// What every section's stores rely on.
    pub(crate) fn assert_record_fits(&self, page: SubbufId, at: u32, len: usize) {
        assert!(self.geometry.contains(page), "the sub-buffer exists");
        assert!(at.is_multiple_of(4), "records are made of words");
        assert!(
            at as usize + len <= self.geometry.subbuf_size() as usize,
            "the record fits in its sub-buffer"
        );
    }

    /// Makes zeroed memory an empty ring, as the kernel's: reader page 0, ring pages 1, 2, ... from the head.
    ///
    /// Positions begin at the number of ring sub-buffers, so that the lap before the first, whose positions
    /// count as consumed, has numbers too.
    pub(crate) fn format(&self) {
        let lap = u64::from(self.geometry.ring_subbufs());
        for (page, seq) in (1..=u16::MAX).map(SubbufId).zip(0..lap) {
            self.slot(seq).store(Slot::consumed(page, seq).pack(), Relaxed);
        }
        self.slot(lap).store(Slot::unconsumed(SubbufId(1), lap).pack(), Relaxed);
        for desc in self.descs {
            desc.w.store(Commit::BLANK.pack(), Relaxed);
        }
        self.meta.writer.tail.store(Place::new(SubbufId(1), lap).pack(), Relaxed);
        self.meta.switches.wake_at.store(u64::MAX, Relaxed);
        self.meta.host.reader.store(Place::new(SubbufId(0), 0).pack(), Relaxed);
    }
}

/// Between any two steps on shared words, whoever makes them: where tests look, abort, die, or let others run.
#[inline(always)]
pub(crate) fn store_hook() {
    #[cfg(all(test, not(loom)))]
    hook::run();
    #[cfg(all(test, loom))]
    tests::loom::may_switch();
}

#[cfg(all(test, not(loom)))]
pub(crate) mod hook {
    //! What a test does between two stores.

    use std::cell::{Cell, RefCell};

    type Hook = Box<dyn FnMut()>;

    thread_local! {
        /// Looked at first: signal handlers come here too, and in them the rest must be left alone.
        static IS_SET: Cell<bool> = const { Cell::new(false) };
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Runs `hook` before each of the calling thread's steps on shared words, until [`clear`].
    pub(crate) fn set(hook: impl FnMut() + 'static) {
        HOOK.set(Some(Box::new(hook)));
        IS_SET.set(true);
    }

    /// No hook any more.
    pub(crate) fn clear() {
        IS_SET.set(false);
        HOOK.set(None);
    }

    pub(super) fn run() {
        if !IS_SET.get() {
            return;
        }
        // Taken out while it runs: it may unwind, and it may look at the ring itself.
        if let Some(mut hook) = HOOK.take() {
            hook();
            HOOK.with_borrow_mut(|slot| {
                slot.get_or_insert(hook);
            });
        }
    }
}
