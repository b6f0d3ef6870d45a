//! One CPU's buffers as a process's writers have them.

use super::LOCKED_ROUNDS;
use crate::board::Board;
use crate::clock::Ticker;
use crate::line::Said;
use crate::map::{File, Mapping};
use crate::ring::write::{self, Refused, Step};
use crate::ring::{Ring, retire};
use crate::rseq::{self, lock};
use crate::{resize, wake};
use ringtap_abi::clock::ClockId;
use ringtap_abi::meta::{Switches, WriterKind, state};
use ringtap_abi::switchboard::CpuWords;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::{Arc, OnceLock};

/// One CPU's buffers: the one that is written, and those that it replaced, which stay mapped because threads may still
/// look at them.
#[derive(Debug)]
pub(crate) struct Lane {
    cpu: u32,
    pub(super) oldest: Arc<Buffer>,
    /// Where events are counted that no buffer takes that is known here; `None`: in the last one that is.
    on_board: Option<OnBoard>,
    /// The last buffer of the chain that begins with `oldest` whose predecessor was found retired, and to lead there.
    present: AtomicPtr<Buffer>,
}

/// An instance's place on a switchboard.
#[derive(Clone, Debug)]
pub(crate) struct OnBoard {
    pub(crate) board: Arc<Board>,
    pub(crate) instance: usize,
}

impl Lane {
    fn new(cpu: u32, buffer: Buffer, on_board: Option<OnBoard>) -> Self {
        let oldest = Arc::new(buffer);
        let present = AtomicPtr::new(ptr::from_ref(&*oldest).cast_mut());
        Self { cpu, oldest, on_board, present }
    }

    /// Counts an event that no buffer known here takes any more.
    #[cold]
    pub(super) fn drop_event(&self, buffer: &Buffer) -> Result<(), Refused> {
        let unheard = self.words().map(|words| &words.unheard);
        unheard.unwrap_or(&buffer.ring.meta().writer.dropped).fetch_add(1, Relaxed);
        Err(Refused::Retired)
    }

    /// What the switchboard says of this CPU's buffers.
    pub(crate) fn words(&self) -> Option<&CpuWords> {
        let its = self.on_board.as_ref()?;
        its.board.cpu(its.instance, self.cpu)
    }

    /// Gives up these buffers, which no host has any more ([`resize::give_up`]), and all that are open and not known to the host.
    pub(crate) fn give_up(&self, forgotten: &[Arc<Mapping>], is_known: impl Fn(File) -> bool) {
        let Some(words) = self.words() else { return };
        let left = self.chain().filter(|each| !each.is_retired() && !is_known(each.mapping.file()));
        let left = left.map(|each| &each.mapping);
        left.chain(forgotten).for_each(|mapping| resize::give_up(mapping, words));
    }

    /// Whether an instance has other buffers in the place of all of these.
    pub(crate) fn is_replaced(&self) -> bool {
        self.oldest.ring.meta().switches.state.load(Relaxed) & state::RETIRED != 0
    }

    pub(super) fn present(&self) -> &Buffer {
        // SAFETY: a buffer of the chain, which is only dropped with the lane. Acquire: made before it was stored here.
        unsafe { &*self.present.load(Acquire) }
    }

    /// As [`present`](Self::present), once it has gone on as far as is known.
    pub(super) fn find_present(&self) -> &Buffer {
        let mut buffer = self.present();
        while buffer.is_retired() && self.move_on(buffer) {
            buffer = self.present();
        }
        buffer
    }

    /// All buffers' switches, those of the replaced ones included: writers made at any time look at one of them.
    fn switches(&self) -> impl Iterator<Item = &Switches> {
        self.chain().map(|buffer| &buffer.ring.meta().switches)
    }

    /// Switches recording on or off: in the newest buffer, which decides where they differ (see `Writer::catch_up`), and
    /// wherever else writers may look.
    ///
    /// The newest comes first, so that who finds it otherwise finds it decided; and last once more, since a resize may
    /// have copied to it what stood in the one before.
    pub(crate) fn switch_recording(&self, on: bool) {
        let set = |switches: &Switches| {
            let _ = if on {
                switches.state.fetch_and(!state::OFF, SeqCst)
            } else {
                switches.state.fetch_or(state::OFF, SeqCst)
            };
        };
        self.switches().last().into_iter().for_each(set);
        self.switches().for_each(set);
        self.switches().last().into_iter().for_each(set);
    }

    /// Sends this process's writers, and all who began with the same buffers, to those in these ones' place.
    pub(crate) fn retire_all(&self) {
        for switches in self.switches() {
            switches.state.fetch_or(state::RETIRED | state::OFF, Relaxed);
        }
    }

    pub(super) fn chain(&self) -> impl Iterator<Item = &Buffer> {
        self.oldest.and_behind()
    }

    /// Goes on to the buffer that replaced `retired`; `false` where that is not known.
    ///
    /// That is the one that `retired` names, or where this process was not told of it in time, the first behind it. What was
    /// announced by a host that died, and never used, comes before.
    pub(super) fn move_on(&self, retired: &Buffer) -> bool {
        let said = Said::by(&retired.ring);
        let is_it = |buffer: &&Buffer| said.leads_to(Said::by(&buffer.ring).ordinal);
        let Some(next) = retired.and_behind().skip(1).find(is_it) else { return false };
        let (old, new) = (ptr::from_ref(retired).cast_mut(), ptr::from_ref(next).cast_mut());
        // Somebody else may have gone on before, and further.
        let _ = self.present.compare_exchange(old, new, AcqRel, Relaxed);
        true
    }

    /// Adds a buffer that may be written once the present one is retired.
    pub(crate) fn add(&self, mapping: Arc<Mapping>) {
        let mut last = &*self.oldest;
        let mut buffer = Arc::new(Buffer::new(mapping, Arc::clone(&last.counter)));
        loop {
            match last.next.set(buffer) {
                Ok(()) => return,
                Err(back) => buffer = back,
            }
            last = last.next.get().expect("it was just found there");
        }
    }
}

/// Lanes for these buffers; the index is the CPU.
pub(crate) fn lanes(mappings: Vec<Arc<Mapping>>, on_board: Option<&OnBoard>) -> Arc<[Lane]> {
    let first = Arc::clone(mappings.first().expect("an instance has a CPU"));
    let lane = |(cpu, mapping)| Lane::new(cpu, Buffer::new(mapping, Arc::clone(&first)), on_board.cloned());
    (0..).zip(mappings).map(lane).collect()
}

/// Lanes for buffers that follow each other, the oldest first; the index is the CPU.
pub(crate) fn lanes_of(mappings: Vec<Vec<Arc<Mapping>>>, on_board: Option<&OnBoard>) -> Arc<[Lane]> {
    let oldest = mappings.iter().map(|all| Arc::clone(all.first().expect("a CPU has a buffer")));
    let lanes = lanes(oldest.collect(), on_board);
    for (lane, all) in lanes.iter().zip(mappings) {
        all.into_iter().skip(1).for_each(|mapping| lane.add(mapping));
    }
    lanes
}

/// One CPU's buffer, mapped for writing, with what each event needs at hand.
#[derive(Debug)]
pub(super) struct Buffer {
    /// Borrows from `mapping`, which is never moved out and dropped after it.
    pub(super) ring: Ring<'static>,
    pub(super) clock: Ticker<'static>,
    pub(super) kind: WriterKind,
    /// Whether the hot path may write here.
    pub(super) is_plain: bool,
    mapping: Arc<Mapping>,
    /// Where a `counter` clock counts: the first buffer's memory.
    pub(super) counter: Arc<Mapping>,
    /// The buffer that this process was told of next: not always the one that is written once this one is retired.
    pub(super) next: OnceLock<Arc<Buffer>>,
}

impl Buffer {
    fn new(mapping: Arc<Mapping>, counter: Arc<Mapping>) -> Self {
        // SAFETY: the memory stays mapped as long as the `Arc` beside this borrow, which is private here.
        let ring = unsafe { extend(mapping.ring()) };
        // SAFETY: as above.
        let count = unsafe { extend(counter.ring()) };
        let clock = ClockId::from_number(ring.meta().clock.id.load(Relaxed)).unwrap_or(ClockId::Mono);
        let absolute = ring.meta().switches.state.load(Relaxed) & state::ABSOLUTE != 0;
        let kind = WriterKind::from_number(ring.meta().identity.writer_kind.load(Relaxed));
        Self {
            is_plain: clock == ClockId::Cycles && kind == Some(WriterKind::Rseq) && !absolute,
            ring,
            clock: Ticker::new(clock, &count.meta().writer.counter),
            kind: kind.unwrap_or(WriterKind::Locked),
            mapping,
            counter,
            next: OnceLock::new(),
        }
    }

    /// All rounds of one event, under the lock.
    pub(super) fn append_locked(
        &self,
        steps: &impl rseq::Sections,
        cpu: u32,
        payload: &[u8],
    ) -> Result<(), Refused> {
        let Some(_held) = lock::acquire(&self.ring.meta().writer.lock) else { return self.refuse() };
        for _ in 0..LOCKED_ROUNDS {
            if let Step::Written = self.append(steps, cpu, payload)? {
                return Ok(());
            }
        }
        self.refuse()
    }

    /// This one, and those that were added behind it.
    fn and_behind(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |buffer| buffer.next.get().map(|next| &**next))
    }

    pub(super) fn is_retired(&self) -> bool {
        retire::is_retired(&self.ring) == Ok(true)
    }

    pub(super) fn is_recording(&self) -> bool {
        // SeqCst: see `Writer::catch_up`. No hot path asks here.
        self.ring.meta().switches.state.load(SeqCst) & state::OFF == 0
    }

    /// One round; wakes whom it concerns.
    pub(super) fn append(
        &self,
        sections: &impl rseq::Sections,
        cpu: u32,
        payload: &[u8],
    ) -> Result<Step, Refused> {
        if !self.is_recording() {
            return Err(if self.is_retired() { Refused::Retired } else { Refused::Off });
        }
        let step = write::append(&self.ring, sections, cpu, &self.clock, payload);
        wake::look(&self.ring, step);
        if step == Err(Refused::Full) {
            self.ring.meta().writer.dropped.fetch_add(1, Relaxed);
        }
        step
    }

    /// Counts an event that could not wait for the lock.
    pub(super) fn refuse(&self) -> Result<(), Refused> {
        self.ring.meta().writer.refused.fetch_add(1, Relaxed);
        Err(Refused::Busy)
    }
}

/// Forgets how long a ring is borrowed.
///
/// # Safety
/// The mapping outlives every use of the result.
unsafe fn extend(ring: Ring<'_>) -> Ring<'static> {
    // SAFETY: only the lifetime changes, and the caller answers for it.
    unsafe { std::mem::transmute::<Ring<'_>, Ring<'static>>(ring) }
}
