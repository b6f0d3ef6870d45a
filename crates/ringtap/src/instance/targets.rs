//! Where a process's events go: a writer for each instance of the host, replaced while others write.
//!
//! Each instance's writer is [`Lent`] to the threads that write, so it is freed when the last of them is done with it.

use super::tasks;
use crate::board::Board;
use crate::event::{Home, Route};
use crate::lent::Lent;
use crate::rseq::Area;
use crate::rules::{self, Actor, HasRegion};
use crate::thread;
use crate::{Refused, Writer};
use ringtap_abi::switchboard::{MAX_INSTANCES, RULES};
use std::cell::Cell;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
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
    writers: [Lent<Target>; MAX_INSTANCES],
}

/// Where an instance's events go.
struct Target {
    writer: Writer,
    /// The host's. An event that was declared with another host has an id there that may be another event's here.
    board: Arc<Board>,
}

impl Target {
    fn write(&self, home: Home, payload: &[u8]) -> Result<(), Refused> {
        // A thread that writes here alone does not come to the top writer's slow path, which notes it otherwise.
        tasks::note(&self.board);
        if home.is_valid_for(&self.board) { self.writer.write(payload) } else { self.writer.refuse_foreign() }
    }
}

impl Targets {
    pub(crate) fn new(board: Arc<Board>) -> Self {
        let pointer = AtomicPtr::new(Arc::as_ptr(&board).cast_mut());
        let boards = Mutex::new(vec![board]);
        Self { board: pointer, boards, writers: std::array::from_fn(|_| Lent::none()) }
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
        self.writers[instance].with(|target| then(&target.writer))
    }

    /// Writes a record into an instance, unless its id is another host's; `None` where this process knows no such
    /// instance.
    pub(crate) fn write_at(
        &self,
        instance: usize,
        home: Home,
        payload: &[u8],
    ) -> Option<Result<(), Refused>> {
        self.writers[instance].with(|target| target.write(home, payload))
    }

    /// Writes an event into each instance that its word names. Instances that this process has not yet heard of
    /// are left out.
    pub(crate) fn write(&self, top: &Writer, route: Route, payload: &[u8]) -> Result<(), Refused> {
        let acting = Acting { targets: self, top, home: route.home, result: Cell::new(None) };
        if route.word & RULES != 0 {
            let event = rules::Event {
                id: route.id(),
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

    /// Replaces an instance's writer by another one of this host's.
    pub(crate) fn set(&self, instance: usize, writer: Option<Writer>, board: &Arc<Board>) {
        self.writers[instance].set(writer.map(|writer| Target { writer, board: Arc::clone(board) }));
    }
}

/// Writes an event, and does what its rules call for.
struct Acting<'t> {
    targets: &'t Targets,
    top: &'t Writer,
    /// Where the event was found to be on.
    home: Home,
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
        let written = match instance {
            0 => Some(self.top.write_from(self.home, payload)),
            _ => self.targets.write_at(instance, self.home, payload),
        };
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
        if on {
            board.switch_on(event, 1 << instance);
        } else {
            board.word(event).fetch_and(!(1 << instance), Relaxed);
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
        let board = Arc::new(Board::create().expect("memory"));
        let targets = Targets::new(Arc::clone(&board));
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
                targets.set(1, (round % 3 > 0).then(|| hosts[round % 2].writer()), &board);
            }
            stop.store(true, Relaxed);
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        let stats = hosts.iter().flat_map(|host| host.cpus().into_iter().map(|cpu| host.stats(cpu)));
        let counted: u64 = stats.map(|stats| stats.expect("it is sound").written()).sum();
        assert_eq!(counted, written);
        targets.set(1, None, &board);
        assert_eq!(targets.writers[1].kept(), 0);
    }
}
