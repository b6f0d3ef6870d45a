//! Writing events: the application's side of an instance.

mod lane;
mod reservation;

use lane::Buffer;
pub(crate) use lane::{Lane, OnBoard, lanes, lanes_of};
pub use reservation::Reservation;

use crate::clock::Since;
use crate::event::{Home, Route};
use crate::instance::targets::Targets;
use crate::map::{self, Access, MapError, Mapping};
use crate::pin::{Pin, current_cpu};
use crate::ring::write::{self, Refused, Step};
use crate::rseq::portable::{Exclusive, Pinned};
use crate::rseq::{
    self, Area, IN_REGISTERS, Outcome, Plain, from_registers, in_registers, in_registers_but_last,
};
use crate::spot::{self, Spot};
use crate::{thread, wake};
use ringtap_abi::clock::{ClockId, Conversion};
use ringtap_abi::event::max_payload;
use ringtap_abi::meta::{Switches, WriterKind, state};
use ringtap_abi::switchboard::TOP;
use ringtap_abi::words::{Commit, Place};
use rustix::fd::BorrowedFd;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

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
        if since.clock == ClockId::Cycles {
            // SAFETY: 1. It was just asked for.
            let plain = unsafe { self.try_since_to_by(route, payload, since.ticks, Self::spot_of_thread()) };
            if self.is_written(plain) {
                return Ok(());
            }
        }
        self.write_since_again(route, payload, since)
    }

    /// The hot path of [`write_since_to`](Self::write_since_to) alone, of what began at these ticks of the processor's counter, by
    /// what [`spot_of_thread`](Self::spot_of_thread) said. What it leaves to do is [`is_written`](Self::is_written)'s.
    ///
    /// # Safety
    /// 1. The spot is the calling thread's.
    #[doc(hidden)]
    #[inline(always)]
    pub unsafe fn try_since_to_by<const N: usize>(
        &self,
        route: Route,
        payload: &[u8; N],
        since: u64,
        spot: *const (),
    ) -> Plain {
        const { assert!(write::is_plain(N)) };
        if route.word != TOP || self.is_off_here() {
            return Plain::Not;
        }
        // SAFETY: 1. As the caller says.
        unsafe { self.write_since(spot.cast(), payload, since) }
    }

    /// The hot path of [`write_array_to_by`](Self::write_array_to_by) alone, as above.
    ///
    /// # Safety
    /// 1. The spot is the calling thread's.
    #[doc(hidden)]
    #[inline(always)]
    pub unsafe fn try_array_to_by<const N: usize>(
        &self,
        route: Route,
        payload: &[u8; N],
        spot: *const (),
    ) -> Plain {
        const { assert!(write::is_plain(N)) };
        if route.word != TOP || self.is_off_here() {
            return Plain::Not;
        }
        // SAFETY: 1. As the caller says. 2. They are this payload's.
        unsafe { self.write_plain::<N>(spot.cast(), in_registers(payload)) }
    }

    /// Whether the hot path has written; wakes those who sleep until something is.
    #[doc(hidden)]
    #[inline(always)]
    pub fn is_written(&self, plain: Plain) -> bool {
        if matches!(plain, Plain::CommittedForSleepers) {
            self.wake_sleepers();
        }
        !matches!(plain, Plain::Not)
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
        match unsafe { self.write_plain::<N>(spot, words) } {
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
            match unsafe { self.write_plain::<N>(spot::of_thread(), words) } {
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
    /// 2. The words are [`in_registers`]'s for a payload of `N` bytes that lives.
    #[inline(always)]
    unsafe fn write_plain<const N: usize>(&self, spot: *const Spot, words: [MaybeUninit<u64>; 3]) -> Plain {
        #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(loom)))]
        if const { write::is_plain(N) } {
            // SAFETY: 1., 2. As the caller says.
            return unsafe { rseq::native::append_plain::<N>(spot, self, words) };
        }
        let _ = (spot, words);
        Plain::Not
    }

    /// The hot path of an event that says how long something took, by the processor's counter.
    ///
    /// # Safety
    /// 1. The spot is the calling thread's.
    #[inline(always)]
    unsafe fn write_since<const N: usize>(&self, spot: *const Spot, payload: &[u8; N], since: u64) -> Plain {
        let words = in_registers_but_last(payload);
        #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(loom)))]
        // SAFETY: 1. As the caller says. 2. They are this payload's, which lives.
        return unsafe { rseq::native::append_since::<N>(spot, self, words, since) };
        #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(loom))))]
        {
            let _ = (spot, words, since);
            Plain::Not
        }
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
