//! Writing events: the application's side of an instance.

use crate::board::Board;
use crate::clock::{Since, Ticker};
use crate::event::{Home, Route};
use crate::instance::targets::Targets;
use crate::line::Said;
use crate::map::{self, Access, MapError, Mapping};
use crate::ring::write::{self, Refused, Step};
use crate::ring::{Ring, retire};
use crate::rseq::{
    self, Area, IN_REGISTERS, Outcome, Plain, from_registers, in_registers, in_registers_since,
};
use crate::rseq::{
    lock,
    portable::{Exclusive, Pinned},
};
use crate::spot::{self, Spot};
use crate::{resize, thread, wake};
use ringtap_abi::clock::{ClockId, Conversion};
use ringtap_abi::event::max_payload;
use ringtap_abi::meta::{Switches, WriterKind, state};
use ringtap_abi::switchboard::{CpuWords, TOP};
use ringtap_abi::words::{Commit, Place};
use rustix::fd::BorrowedFd;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU64};
use std::sync::{Arc, OnceLock};

/// Sections of one event that the kernel may abort before the event takes the lock instead: a debugger that
/// steps through them aborts each.
const ABORTS: u32 = 64;
/// Rounds that other writers may come between before the event takes the lock: each such round means that
/// another event was written.
const ROUNDS: u32 = 1024;
/// Rounds under the lock: append, turn, append; a claim may race with the reader's swap in between.
const LOCKED_ROUNDS: u32 = 64;
/// Replaced buffers that one event follows to the next.
const REPLACEMENTS: u32 = 64;

/// Writes events into the ring of the CPU that the calling thread runs on.
///
/// Clones share the mappings. All methods may be called from any thread and from signal handlers, and allocate
/// nothing; a forked child writes on. A child that shares its parent's memory (`vfork`, `clone` with `CLONE_VM`)
/// must not write: the kernel does not keep its rseq area.
#[derive(Clone, Debug)]
pub struct Writer {
    lanes: Arc<[Lane]>,
    /// Where the host switches recording on and off for all: the memory of the first CPU's oldest buffer here, which
    /// `lanes` keep mapped. The host switches there, too, when it was replaced.
    switches: &'static Switches,
    /// Tells this writer's spots from others'; clones share it, and it is never used again. 32 bits, or
    /// [`NUMBERLESS`].
    number: u64,
    /// Where events go that belong elsewhere than in these buffers; `None` for a writer of these alone.
    targets: Option<Arc<Targets>>,
}

/// The number of all writers behind the process's first four thousand million. No spot has it.
const NUMBERLESS: u64 = 1 << 63;

/// One CPU's buffers: the one that is written, and those that it replaced, which stay mapped because threads may still
/// look at them.
#[derive(Debug)]
pub(crate) struct Lane {
    cpu: u32,
    oldest: Arc<Buffer>,
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
    fn drop_event(&self, buffer: &Buffer) -> Result<(), Refused> {
        let unheard = self.words().map(|words| &words.unheard);
        unheard.unwrap_or(&buffer.ring.meta().writer.dropped).fetch_add(1, Relaxed);
        Err(Refused::Retired)
    }

    /// What the switchboard says of this CPU's buffers.
    fn words(&self) -> Option<&CpuWords> {
        let its = self.on_board.as_ref()?;
        its.board.cpu(its.instance, self.cpu)
    }

    /// See [`resize::pass_over`].
    pub(crate) fn pass_over(&self, mapping: &Mapping) {
        self.words().into_iter().for_each(|words| resize::pass_over(mapping, words));
    }

    fn present(&self) -> &Buffer {
        // SAFETY: a buffer of the chain, which is only dropped with the lane. Acquire: made before it was stored here.
        unsafe { &*self.present.load(Acquire) }
    }

    /// As [`present`](Self::present), once it has gone on as far as is known.
    fn find_present(&self) -> &Buffer {
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

    fn chain(&self) -> impl Iterator<Item = &Buffer> {
        self.oldest.and_behind()
    }

    /// Goes on to the buffer that replaced `retired`; `false` where that is not known.
    ///
    /// That is the one that `retired` names, or where this process was not told of it in time, the first behind it. What was
    /// announced by a host that died, and never used, comes before.
    fn move_on(&self, retired: &Buffer) -> bool {
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
struct Buffer {
    /// Borrows from `mapping`, which is never moved out and dropped after it.
    ring: Ring<'static>,
    clock: Ticker<'static>,
    kind: WriterKind,
    /// Whether the hot path may write here.
    is_plain: bool,
    _mapping: Arc<Mapping>,
    /// Where a `counter` clock counts: the first buffer's memory.
    counter: Arc<Mapping>,
    /// The buffer that this process was told of next: not always the one that is written once this one is retired.
    next: OnceLock<Arc<Buffer>>,
}

impl Writer {
    /// Where the hot path's assembly finds the number.
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        expect(dead_code, reason = "no hot path")
    )]
    pub(crate) const NUMBER_OFFSET: usize = std::mem::offset_of!(Self, number);

    /// A writer for these buffers; the index is the CPU.
    pub(crate) fn new(
        mappings: Vec<Arc<Mapping>>,
        on_board: Option<&OnBoard>,
        targets: Option<Arc<Targets>>,
    ) -> Self {
        Self::of_lanes(lanes(mappings, on_board), targets)
    }

    /// A writer for the buffers of these lanes, and those that replace them.
    pub(crate) fn of_lanes(lanes: Arc<[Lane]>, targets: Option<Arc<Targets>>) -> Self {
        // 0 stands for none.
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        // The process's first look at its rseq areas allocates, which a signal handler must not.
        let _ = rseq::available();
        let _ = thread::id();
        wake::register_writer();
        // The lanes keep the mapping as long as this writer or a clone lives.
        let switches = &lanes[0].oldest.ring.meta().switches;
        Self {
            lanes,
            switches,
            number: match NUMBERS.fetch_add(1, Relaxed) {
                number if u32::try_from(number).is_ok() => number,
                _ => NUMBERLESS,
            },
            targets,
        }
    }

    /// Writes an event to where its switch says; [`write`](Self::write) writes to this writer's own instance alone.
    ///
    /// # Errors
    /// As [`write`](Self::write); where the event goes to several instances, the first refusal.
    #[inline(always)]
    pub fn write_to(&self, route: Route, payload: &[u8]) -> Result<(), Refused> {
        if route.word == TOP {
            self.write_from(route.home, payload)
        } else {
            self.write_to_many(route, payload)
        }
    }

    /// As [`write_to`](Self::write_to), for an event whose size is known at compile time, as with
    /// [`write_array`](Self::write_array).
    ///
    /// # Errors
    /// As [`write_to`](Self::write_to).
    #[inline(always)]
    pub fn write_array_to<const N: usize>(&self, route: Route, payload: &[u8; N]) -> Result<(), Refused> {
        if route.word == TOP {
            // SAFETY: it was just asked for.
            unsafe { self.write_array_by(route.home, payload, spot::of_thread()) }
        } else {
            self.write_to_many(route, payload)
        }
    }

    /// As [`write_array_to`](Self::write_array_to), of an event that says how long something took: its last four bytes become the
    /// nanoseconds since then, at most what 32 bits hold. Where it can, the look at the clock that stamps the event tells
    /// them, too: looking at it is most of what an event costs.
    ///
    /// # Errors
    /// As [`write_to`](Self::write_to).
    #[inline(always)]
    pub fn write_since_to<const N: usize>(
        &self,
        route: Route,
        payload: &mut [u8; N],
        since: Since,
    ) -> Result<(), Refused> {
        // SAFETY: 1. It was just asked for.
        unsafe { self.write_since_to_by(route, payload, since, Self::spot_of_thread()) }
    }

    /// As [`write_since_to`](Self::write_since_to), by what [`spot_of_thread`](Self::spot_of_thread) said.
    ///
    /// # Errors
    /// As [`write_to`](Self::write_to).
    ///
    /// # Safety
    /// 1. The spot is the calling thread's.
    #[doc(hidden)]
    #[inline(always)]
    pub unsafe fn write_since_to_by<const N: usize>(
        &self,
        route: Route,
        payload: &mut [u8; N],
        since: Since,
        spot: *const (),
    ) -> Result<(), Refused> {
        const { assert!(write::is_plain(N)) };
        if route.word == TOP && since.clock == ClockId::Cycles && !self.is_off_here() {
            let words = in_registers_since(payload, since.ticks, since.mult);
            // SAFETY: 1. As the caller says. 2. They are this payload's.
            match unsafe { self.write_plain::<N, true>(spot.cast(), words) } {
                Plain::Committed => return Ok(()),
                Plain::CommittedForSleepers => {
                    self.wake_sleepers();
                    return Ok(());
                }
                Plain::Not => {}
            }
        }
        self.write_since_again(route, payload, since)
    }

    /// As [`write_since_to`](Self::write_since_to), where the hot path is none.
    #[cold]
    #[inline(never)]
    fn write_since_again<const N: usize>(
        &self,
        route: Route,
        payload: &mut [u8; N],
        since: Since,
    ) -> Result<(), Refused> {
        let ns = u32::try_from(since.ns()).unwrap_or(u32::MAX);
        payload[N - 4..].copy_from_slice(&ns.to_le_bytes());
        self.write_array_to(route, payload)
    }

    #[cold]
    #[inline(never)]
    fn write_to_many(&self, route: Route, payload: &[u8]) -> Result<(), Refused> {
        match &self.targets {
            Some(targets) => targets.write(self, route, payload),
            None => self.write_from(route.home, payload),
        }
    }

    /// Recording is off here; or was when this writer last looked; or these buffers were replaced, and the event belongs
    /// in the new ones.
    #[cold]
    #[inline(never)]
    fn write_elsewhere(&self, home: Home, payload: &[u8]) -> Result<(), Refused> {
        match self.successors() {
            Some(targets) => targets.write_at(0, home, payload).unwrap_or(Err(Refused::Off)),
            None if self.catch_up() => self.write_slow(payload),
            None => Err(Refused::Off),
        }
    }

    /// Whether recording is on although the buffer that this writer looks at says it is not: then that one was replaced,
    /// and whoever switched it on (a trigger in another process, a host that took over) knew only what followed it.
    fn catch_up(&self) -> bool {
        let state = &self.switches.state;
        if state.load(Relaxed) & state::RETIRED != 0 {
            return false;
        }
        let present = self.lanes[0].find_present();
        let is_on = present.is_recording() && !present.is_retired();
        if is_on && !ptr::eq(&raw const present.ring.meta().switches, self.switches) {
            state.fetch_and(!state::OFF, SeqCst);
            // Switched off in between: off stays off.
            if !present.is_recording() {
                state.fetch_or(state::OFF, SeqCst);
                return false;
            }
        }
        is_on
    }

    /// Where the writer of the buffers is that replaced these, if any did.
    fn successors(&self) -> Option<&Targets> {
        let is_retired = self.switches.state.load(Relaxed) & state::RETIRED != 0;
        self.targets.as_deref().filter(|_| is_retired)
    }

    /// Lends the writer of the buffers that replaced these.
    fn with_successor<R>(&self, then: impl FnOnce(&Self) -> R) -> Option<R> {
        self.successors()?.with(0, then)
    }

    /// Counts an event that would be another one for this writer's host.
    #[cold]
    pub(crate) fn refuse_foreign(&self) -> Result<(), Refused> {
        let lane = &self.lanes[current_cpu() as usize % self.lanes.len()];
        lane.drop_event(lane.find_present())
    }

    /// Writes an event.
    ///
    /// The payload is the whole record behind the event header; what the kernel's tools read begins with eight
    /// common bytes. Its length is rounded up to 4 bytes. Where the size is known at compile time,
    /// [`write_array`](Self::write_array) is faster.
    ///
    /// # Errors
    /// [`Refused`] says why the event was not written, and whether that was counted.
    #[inline]
    pub fn write(&self, payload: &[u8]) -> Result<(), Refused> {
        self.write_from(Home::NOBODYS, payload)
    }

    /// As [`write`](Self::write), of a record that was built for an event's word there.
    #[inline]
    pub(crate) fn write_from(&self, home: Home, payload: &[u8]) -> Result<(), Refused> {
        if self.is_off_here() { self.write_elsewhere(home, payload) } else { self.write_slice(home, payload) }
    }

    /// Writes an event whose size is known at compile time: the fastest way, where `N` is a multiple of 4 from 4
    /// to 112 (but 8) and the clock is the processor's counter; the same as [`write`](Self::write) elsewhere.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[inline(always)]
    pub fn write_array<const N: usize>(&self, payload: &[u8; N]) -> Result<(), Refused> {
        // SAFETY: it was just asked for.
        unsafe { self.write_array_by(Home::NOBODYS, payload, spot::of_thread()) }
    }

    /// As [`write_array_to`](Self::write_array_to), by what [`spot_of_thread`](Self::spot_of_thread) said: for a shared
    /// library, to which thread-local memory is a call away.
    ///
    /// # Errors
    /// As [`write_to`](Self::write_to).
    ///
    /// # Safety
    /// 1. The spot is the calling thread's.
    #[doc(hidden)]
    #[inline(always)]
    pub unsafe fn write_array_to_by<const N: usize>(
        &self,
        route: Route,
        payload: &[u8; N],
        spot: *const (),
    ) -> Result<(), Refused> {
        if route.word != TOP {
            return self.write_to_many(route, payload);
        }
        // SAFETY: as the caller says.
        unsafe { self.write_array_by(route.home, payload, spot.cast()) }
    }

    /// Where the calling thread's events are written with: the same as long as the thread lives, forks included.
    #[doc(hidden)]
    #[must_use]
    pub fn spot_of_thread() -> *const () {
        spot::of_thread().cast_const().cast()
    }

    /// # Safety
    /// 1. The spot is the calling thread's.
    #[inline(always)]
    unsafe fn write_array_by<const N: usize>(
        &self,
        home: Home,
        payload: &[u8; N],
        spot: *const Spot,
    ) -> Result<(), Refused> {
        if const { !write::is_plain(N) } {
            return self.write_here(home, payload);
        }
        let words = in_registers(payload);
        if self.is_off_here() {
            // SAFETY: they are this payload's.
            return unsafe { self.write_again::<N>(home, words[0], words[1], words[2]) };
        }
        // SAFETY: 1. As the caller says. 2. They are this payload's.
        match unsafe { self.write_plain::<N, false>(spot, words) } {
            Plain::Committed => Ok(()),
            Plain::CommittedForSleepers => {
                self.wake_sleepers();
                Ok(())
            }
            // SAFETY: as above.
            Plain::Not => unsafe { self.write_again::<N>(home, words[0], words[1], words[2]) },
        }
    }

    /// The hot path once more where the thread can be told a better spot, else the slow one, or that of the buffers
    /// in these ones' place. It takes the words that
    /// the hot path took, so that only what comes here is ever stored to memory.
    ///
    /// # Safety
    /// They are [`in_registers`]'s for a payload of `N` bytes that lives.
    #[cold]
    #[inline(never)]
    unsafe fn write_again<const N: usize>(
        &self,
        home: Home,
        p0: MaybeUninit<u64>,
        p1: MaybeUninit<u64>,
        p2: MaybeUninit<u64>,
    ) -> Result<(), Refused> {
        let words = [p0, p1, p2];
        if !self.is_off_here() && self.find_spot() {
            // SAFETY: 1. It was just asked for. 2. As the caller says.
            match unsafe { self.write_plain::<N, false>(spot::of_thread(), words) } {
                Plain::Committed => return Ok(()),
                Plain::CommittedForSleepers => {
                    self.wake_sleepers();
                    return Ok(());
                }
                Plain::Not => {}
            }
        }
        if N <= IN_REGISTERS {
            // SAFETY: it is no longer than that.
            return self.write_here(home, &unsafe { from_registers::<N>(words) });
        }
        // SAFETY: of a longer one, the first is the address.
        let address = unsafe { p0.assume_init() };
        #[expect(clippy::cast_possible_truncation, reason = "it was an address")]
        let payload = std::ptr::with_exposed_provenance::<[u8; N]>(address as usize);
        // SAFETY: its provenance was exposed there, and the caller says that it lives.
        let payload = unsafe { &*payload };
        self.write_here(home, payload)
    }

    /// Where the hot path is none.
    fn write_here(&self, home: Home, payload: &[u8]) -> Result<(), Refused> {
        if self.is_off_here() { self.write_elsewhere(home, payload) } else { self.write_slow(payload) }
    }

    /// Looks whether the hot path may write on this CPU now, and did not know where: after a migration, behind
    /// another thread's turn of the page, or another writer's use of the spot.
    fn find_spot(&self) -> bool {
        let Some(area) = Area::of_thread() else { return false };
        let cpu = area.cpu();
        let Ok(buffer) = self.buffer(cpu) else { return false };
        let Ok(tail) = buffer.ring.tail() else { return false };
        let w = Commit::unpack(buffer.ring.desc(tail.page()).w.load(Relaxed));
        let is_found = buffer.is_plain && !w.is_closed() && self.remember(area, buffer, cpu, tail);
        if is_found {
            // A forked child finds its spot without ever writing slowly.
            self.note_task();
        }
        is_found
    }

    /// Tells the host who this thread is, once.
    fn note_task(&self) {
        if let Some(targets) = &self.targets {
            targets.note_task();
        }
    }

    /// The hot path may write there from now on.
    fn remember(&self, area: &Area, buffer: &Buffer, cpu: u32, tail: Place) -> bool {
        u32::try_from(self.number)
            .is_ok_and(|number| spot::remember(area, number, &buffer.ring, cpu, tail.page()))
    }

    /// The hot path.
    ///
    /// # Safety
    /// 1. The spot is the calling thread's.
    /// 2. The words are [`in_registers`]'s for a payload of `N` bytes that lives; where `TIMED`, [`in_registers_since`]'s.
    #[inline(always)]
    unsafe fn write_plain<const N: usize, const TIMED: bool>(
        &self,
        spot: *const Spot,
        words: [MaybeUninit<u64>; 3],
    ) -> Plain {
        #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(loom)))]
        if const { write::is_plain(N) } {
            // SAFETY: 1., 2. As the caller says.
            return unsafe { rseq::native::append_plain::<N, TIMED>(spot, self, words) };
        }
        let _ = (spot, words);
        Plain::Not
    }

    /// Dispatches to the hot path of the payload's size, if there is one.
    #[inline(never)]
    fn write_slice(&self, home: Home, payload: &[u8]) -> Result<(), Refused> {
        macro_rules! dispatch {
            ($($words:literal)+) => {
                match payload.len() {
                    $(len if len == 4 * $words => {
                        if let Some(payload) = payload.first_chunk::<{ 4 * $words }>() {
                            // SAFETY: it was just asked for.
                            return unsafe { self.write_array_by(home, payload, spot::of_thread()) };
                        }
                    })+
                    _ => {}
                }
            };
        }
        dispatch!(1 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28);
        self.write_slow(payload)
    }

    /// Wakes those who sleep on the ring that this thread has just written to: on all where they are.
    #[cold]
    fn wake_sleepers(&self) {
        for buffer in self.lanes.iter().map(Lane::present) {
            if buffer.ring.meta().switches.wake_any.load(Relaxed) != 0 {
                wake::wake(&buffer.ring);
            }
        }
    }

    /// Whether recording is off: an event written now would be refused.
    #[inline(always)]
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.is_off_here() && self.with_successor(Self::is_off).unwrap_or_else(|| !self.catch_up())
    }

    /// Switches recording in the buffers that this writer writes into: as the host does, for all writers.
    #[cold]
    pub(crate) fn set_recording(&self, on: bool) {
        if self.with_successor(|writer| writer.set_recording(on)).is_none() {
            for lane in self.lanes.iter() {
                lane.switch_recording(on);
                if !on {
                    // As in the kernel: nothing more will come, so nobody waits for it.
                    lane.chain().for_each(|buffer| wake::send_away(&buffer.ring));
                }
            }
        }
    }

    /// The clock that stamps this writer's events.
    #[must_use]
    pub fn clock(&self) -> ClockId {
        let id = self.lanes[0].find_present().ring.meta().clock.id.load(Relaxed);
        ClockId::from_number(id).unwrap_or(ClockId::Mono)
    }

    /// How its ticks become nanoseconds just now: for durations that are part of an event.
    #[must_use]
    pub fn conversion(&self) -> Conversion {
        self.lanes[0].find_present().ring.meta().clock.load().unwrap_or(Conversion::NONE)
    }

    /// Whether these buffers take no events.
    #[inline(always)]
    fn is_off_here(&self) -> bool {
        // Relaxed: an event about to be written while recording is switched off may be either.
        self.switches.state.load(Relaxed) & (state::OFF | state::RETIRED) != 0
    }

    /// Makes room for an event of `len` bytes, to be built in place and then committed or dropped. `CAPACITY` is the
    /// most that the reservation can hold; it lives where the caller keeps it, so it costs no allocation.
    ///
    /// Nothing is in the ring before the commit: an event that is dropped never was.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] when `len` is more than `CAPACITY` or a sub-buffer takes, [`Refused::Off`] when
    /// recording is off.
    #[inline]
    pub fn reserve<const CAPACITY: usize>(&self, len: usize) -> Result<Reservation<'_, CAPACITY>, Refused> {
        if len > CAPACITY || len > self.max_payload() {
            return Err(Refused::TooLarge);
        }
        if self.is_off() {
            return Err(Refused::Off);
        }
        let mut reservation = Reservation { writer: self, len, bytes: [MaybeUninit::uninit(); CAPACITY] };
        reservation.bytes[..len].fill(MaybeUninit::new(0));
        Ok(reservation)
    }

    /// The largest payload that [`write`](Self::write) takes, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        let here = max_payload(self.lanes[0].find_present().ring.geometry().capacity()) as usize;
        self.with_successor(Self::max_payload).unwrap_or(here)
    }

    #[cold]
    #[inline(never)]
    fn write_slow(&self, payload: &[u8]) -> Result<(), Refused> {
        self.note_task();
        let Some(area) = Area::of_thread() else { return self.write_locked(payload) };
        let mut aborts = 0;
        for _ in 0..ROUNDS {
            let cpu = area.cpu();
            let buffer = self.buffer(cpu)?;
            if buffer.kind == WriterKind::Locked || aborts >= ABORTS {
                break;
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            break;
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            match buffer.append(&rseq::native::Rseq(area), cpu, payload) {
                Err(Refused::Off) => return self.note_off(),
                Err(Refused::Retired) if self.lanes[cpu as usize].move_on(buffer) => {}
                Err(Refused::Retired) => return self.lanes[cpu as usize].drop_event(buffer),
                Err(refused) => return Err(refused),
                Ok(step) => match step {
                    Step::Written => {
                        if let (true, Ok(tail)) = (buffer.is_plain, buffer.ring.tail()) {
                            self.remember(area, buffer, cpu, tail);
                        }
                        return Ok(());
                    }
                    Step::Turned(_) => {}
                    Step::Again(Outcome::Aborted) => aborts += 1,
                    Step::Again(_) if buffer.ring.meta().writer.lock.load(Relaxed) != 0 => break,
                    Step::Again(_) => {}
                },
            }
        }
        self.write_locked(payload)
    }

    /// Writes under the lock of the buffer whose CPU this is, and will be while it is held.
    fn write_locked(&self, payload: &[u8]) -> Result<(), Refused> {
        let cpu = current_cpu();
        for _ in 0..REPLACEMENTS {
            let buffer = self.buffer(cpu)?;
            let written = match buffer.kind {
                WriterKind::Locked => buffer.append_locked(&Exclusive, cpu, payload),
                WriterKind::Rseq => match Pin::to(cpu) {
                    Some(_pin) => buffer.append_locked(&Pinned(cpu), cpu, payload),
                    None => buffer.refuse(),
                },
            };
            match written {
                Err(Refused::Off) => return self.note_off(),
                // Where this CPU was idle, it may have been replaced more often than there are rounds.
                Err(Refused::Retired) if !ptr::eq(self.lanes[cpu as usize].find_present(), buffer) => {}
                Err(Refused::Retired) => return self.lanes[cpu as usize].drop_event(buffer),
                written => return written,
            }
        }
        self.buffer(cpu)?.refuse()
    }

    /// The present buffer is switched off by somebody who does not know the one that this writer looks at: from now on
    /// this writer sees it there.
    fn note_off(&self) -> Result<(), Refused> {
        self.switches.state.fetch_or(state::OFF, SeqCst);
        // Switched on in between: on stays on.
        self.catch_up();
        Err(Refused::Off)
    }

    fn buffer(&self, cpu: u32) -> Result<&Buffer, Refused> {
        self.lanes.get(cpu as usize).map(Lane::present).ok_or(Refused::Unusable)
    }

    /// Tells this writer and its clones of the buffer that replaces a CPU's: written from the moment that the host
    /// retires the present one. Until then this changes nothing, so it can be told ahead.
    ///
    /// # Errors
    /// [`MapError`] where the descriptor is no buffer of that CPU that can be written.
    pub fn add_buffer(&self, cpu: u32, fd: BorrowedFd<'_>) -> Result<(), MapError> {
        let mapping = map::open(fd, Access::Write)?;
        let lane = self.lanes.get(cpu as usize).ok_or(MapError::Foreign("its CPU had no buffer before"))?;
        if mapping.ring().meta().identity.cpu.load(Relaxed) != cpu {
            return Err(MapError::Foreign("it is another CPU's"));
        }
        lane.add(Arc::new(mapping));
        Ok(())
    }
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
            _mapping: mapping,
            counter,
            next: OnceLock::new(),
        }
    }

    /// All rounds of one event, under the lock.
    fn append_locked(&self, steps: &impl rseq::Sections, cpu: u32, payload: &[u8]) -> Result<(), Refused> {
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

    fn is_retired(&self) -> bool {
        retire::is_retired(&self.ring) == Ok(true)
    }

    fn is_recording(&self) -> bool {
        // SeqCst: see `Writer::catch_up`. No hot path asks here.
        self.ring.meta().switches.state.load(SeqCst) & state::OFF == 0
    }

    /// One round; wakes whom it concerns.
    fn append(&self, sections: &impl rseq::Sections, cpu: u32, payload: &[u8]) -> Result<Step, Refused> {
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
    fn refuse(&self) -> Result<(), Refused> {
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

/// Where the calling thread ran a moment ago.
fn current_cpu() -> u32 {
    u32::try_from(rustix::thread::sched_getcpu()).unwrap_or(u32::MAX)
}

/// Keeps the calling thread on one CPU, and gives it its freedom back.
#[derive(Debug)]
pub(crate) struct Pin {
    before: rustix::thread::CpuSet,
}

impl Pin {
    /// `None` where the thread may not run there, or the kernel does not let it choose.
    pub(crate) fn to(cpu: u32) -> Option<Self> {
        let before = rustix::thread::sched_getaffinity(None).ok()?;
        let mut only = rustix::thread::CpuSet::new();
        only.set(cpu as usize);
        rustix::thread::sched_setaffinity(None, &only).ok()?;
        let pin = Self { before };
        (thread::cpu() == cpu).then_some(pin)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // If its CPUs are gone meanwhile, the kernel has already chosen others.
        let _ = rustix::thread::sched_setaffinity(None, &self.before);
    }
}

/// An event being built: zeros at first. [`commit`](Self::commit) writes it; dropped, it never was.
#[derive(Debug)]
#[must_use = "an event that is not committed never was"]
pub struct Reservation<'w, const CAPACITY: usize> {
    writer: &'w Writer,
    len: usize,
    /// The first `len` are initialised.
    bytes: [MaybeUninit<u8>; CAPACITY],
}

impl<const CAPACITY: usize> Reservation<'_, CAPACITY> {
    /// The event's bytes.
    #[must_use]
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `reserve` initialised the first `len`, and `truncate` only makes it less.
        unsafe { self.bytes[..self.len].assume_init_mut() }
    }

    /// Makes the event shorter, when it turned out so.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Writes the event.
    ///
    /// # Errors
    /// As [`Writer::write`].
    #[inline]
    pub fn commit(self) -> Result<(), Refused> {
        // SAFETY: as in `bytes`.
        self.writer.write(unsafe { self.bytes[..self.len].assume_init_ref() })
    }

    /// Drops the event, as not committing it does.
    pub fn discard(self) {}
}
