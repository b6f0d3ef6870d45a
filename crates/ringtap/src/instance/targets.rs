//! Where a process's events go: a writer for each instance of the host, replaced while others write.
//!
//! A thread that writes into an instance counts itself in, takes the writer's pointer, writes, and counts itself out
//! (edge S4). Who replaces a writer swaps the pointer first, and frees the old writer once it has seen the count at 0
//! after that: whoever took the old pointer had been counted before the swap. A count that is never seen at 0 keeps the
//! old writer, and nobody waits for it.
//!
//! This module exists to protect that invariant: a writer's pointer is used between the two counts alone.

use super::tasks;
use crate::board::Board;
use crate::event::Route;
use crate::rseq::Area;
use crate::rules::{self, Actor, HasRegion};
use crate::thread;
use crate::{Refused, Writer};
use ringtap_abi::switchboard::{MAX_INSTANCES, RULES};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

/// The writers of a process for one host.
#[derive(Debug)]
pub(crate) struct Targets {
    /// The host's switchboard: the last of `boards`.
    board: AtomicPtr<Board>,
    /// All switchboards that were in use here, kept until nobody writes any more. A host that starts anew has
    /// another, which happens seldom.
    boards: Mutex<Vec<Arc<Board>>>,
    /// The index is the instance's bit. The top instance has one here once its buffers were replaced: until then all
    /// have it at hand.
    slots: [Slot; MAX_INSTANCES],
    /// Replaced, and perhaps still in use.
    retired: Mutex<Vec<Retired>>,
}

#[derive(Debug)]
struct Slot {
    /// Threads at work with `writer`.
    users: AtomicU64,
    writer: AtomicPtr<Writer>,
}

#[derive(Debug)]
struct Retired {
    slot: usize,
    writer: *mut Writer,
}

// SAFETY: a writer may be dropped by any thread.
unsafe impl Send for Retired {}

impl Targets {
    pub(crate) fn new(board: Arc<Board>) -> Self {
        let slot = || Slot { users: AtomicU64::new(0), writer: AtomicPtr::new(ptr::null_mut()) };
        let pointer = AtomicPtr::new(Arc::as_ptr(&board).cast_mut());
        let boards = Mutex::new(vec![board]);
        Self { board: pointer, boards, slots: std::array::from_fn(|_| slot()), retired: Mutex::default() }
    }

    /// Takes another host's switchboard.
    pub(crate) fn set_board(&self, board: &Arc<Board>) {
        let mut boards = self.boards.lock().unwrap_or_else(PoisonError::into_inner);
        boards.push(Arc::clone(board));
        // Release: whoever finds the board finds it mapped.
        self.board.store(Arc::as_ptr(board).cast_mut(), Release);
    }

    fn board(&self) -> &Board {
        // SAFETY: `boards` keeps it as long as `self` lives. Acquire: see `set_board`.
        unsafe { &*self.board.load(Acquire) }
    }

    /// Notes the calling thread among the host's tasks.
    pub(crate) fn note_task(&self) {
        tasks::note(self.board());
    }

    /// Lends an instance's writer; `None` where this process knows none.
    pub(crate) fn with<R>(&self, instance: usize, then: impl FnOnce(&Writer) -> R) -> Option<R> {
        let slot = &self.slots[instance];
        // S4: SeqCst, as the swap and the look in `collect`: in their one order the count comes before this load, so
        // a swap behind this load finds the count raised.
        slot.users.fetch_add(1, SeqCst);
        let _counted = Counted(&slot.users);
        let writer = slot.writer.load(SeqCst);
        // SAFETY: counted, so it is not freed before `_counted` is dropped.
        unsafe { writer.as_ref() }.map(then)
    }

    /// Writes an event into each instance that its word names. Instances that this process has not yet heard of
    /// are left out.
    pub(crate) fn write(&self, top: &Writer, route: Route, payload: &[u8]) -> Result<(), Refused> {
        let acting = Acting { targets: self, top, result: Cell::new(None) };
        if route.word & RULES != 0 {
            let event = rules::Event {
                id: route.id,
                on: route.word & !RULES,
                payload,
                pid: thread::id(),
                cpu: Area::of_thread().map_or_else(thread::cpu, Area::cpu),
            };
            rules::write(&self.board().region(), &event, &acting);
        } else {
            let mut rest = route.word;
            while rest != 0 {
                acting.write(rest.trailing_zeros() as usize, payload);
                rest &= rest - 1;
            }
        }
        acting.result.get().unwrap_or(Err(Refused::Off))
    }

    /// Replaces an instance's writer.
    pub(crate) fn set(&self, instance: usize, writer: Option<Writer>) {
        let new = writer.map_or(ptr::null_mut(), |writer| Box::into_raw(Box::new(writer)));
        // S4: see `with`.
        let old = self.slots[instance].writer.swap(new, SeqCst);
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        if !old.is_null() {
            retired.push(Retired { slot: instance, writer: old });
        }
        self.collect(&mut retired);
    }

    /// Frees what nobody uses any more.
    fn collect(&self, retired: &mut Vec<Retired>) {
        retired.retain(|old| {
            // S4: see `with`.
            let is_used = self.slots[old.slot].users.load(SeqCst) != 0;
            if !is_used {
                // SAFETY: made by `set`, swapped out before the count was 0, and taken off the list here.
                drop(unsafe { Box::from_raw(old.writer) });
            }
            is_used
        });
    }
}

/// Writes an event, and does what its rules call for.
struct Acting<'t> {
    targets: &'t Targets,
    top: &'t Writer,
    /// What has become of what was written.
    result: Cell<Option<Result<(), Refused>>>,
}

impl Acting<'_> {
    fn with<R>(&self, instance: usize, then: impl FnOnce(&Writer) -> R) -> Option<R> {
        if instance == 0 { Some(then(self.top)) } else { self.targets.with(instance, then) }
    }
}

impl Actor for Acting<'_> {
    fn write(&self, instance: usize, payload: &[u8]) {
        let written = self.with(instance, |writer| writer.write(payload));
        // The first refusal stays; else that it was written.
        if !matches!(self.result.get(), Some(Err(_))) {
            self.result.set(written.or(self.result.get()));
        }
    }

    fn is_recording(&self, instance: usize) -> bool {
        self.with(instance, |writer| !writer.is_off()).unwrap_or(false)
    }

    fn set_recording(&self, instance: usize, on: bool) {
        self.with(instance, |writer| writer.set_recording(on));
    }

    fn is_on(&self, instance: usize, event: u16) -> bool {
        // Relaxed, here and below: an event about to be written while it is switched may be either.
        self.targets.board().word(event).load(Relaxed) >> instance & 1 == 1
    }

    fn set_on(&self, instance: usize, event: u16, on: bool) {
        let board = self.targets.board();
        let word = board.word(event);
        if on {
            // Lists of pids count for events that were off when they were made.
            let rules = if board.region().has_pid_lists() { RULES } else { 0 };
            word.fetch_or(1 << instance | rules, Relaxed);
        } else {
            word.fetch_and(!(1 << instance), Relaxed);
        }
    }
}

/// Counts a thread out, even where it unwinds.
struct Counted<'t>(&'t AtomicU64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        // S4: Release, so that the writer's uses come before it is freed.
        self.0.fetch_sub(1, Release);
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        let writers =
            self.slots.iter().map(|slot| slot.writer.load(SeqCst)).filter(|writer| !writer.is_null());
        let retired = self.retired.get_mut().unwrap_or_else(PoisonError::into_inner);
        for writer in writers.chain(retired.iter().map(|old| old.writer)) {
            // SAFETY: made by `set`; nobody has the targets any more.
            drop(unsafe { Box::from_raw(writer) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Host};
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn writers_are_replaced_while_others_write_and_freed_in_the_end() {
        let config = Config { ring_subbufs: 2, ..Config::default() };
        let hosts = [Host::new(&config).expect("memory"), Host::new(&config).expect("memory")];
        let targets = Targets::new(Arc::new(Board::create().expect("memory")));
        let stop = AtomicBool::new(false);
        let write = || {
            let mut written = 0;
            while !stop.load(Relaxed) {
                written += u64::from(targets.with(1, |writer| writer.write(&[7; 12])) == Some(Ok(())));
            }
            written
        };
        let written: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(write)).collect();
            for round in 0..2000 {
                targets.set(1, (round % 3 > 0).then(|| hosts[round % 2].writer()));
            }
            stop.store(true, Relaxed);
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        let stats = hosts.iter().flat_map(|host| host.cpus().into_iter().map(|cpu| host.stats(cpu)));
        let counted: u64 = stats.map(|stats| stats.expect("it is sound").written()).sum();
        assert_eq!(counted, written);
        targets.set(1, None);
        assert!(targets.retired.lock().expect("no panic").is_empty());
    }
}
