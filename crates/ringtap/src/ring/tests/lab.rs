//! One ring in this process, with every actor at hand: for tests that decide themselves who runs when.
//!
//! Events are numbered as they are committed, so an event's number is its index in the trace: whoever reads one
//! knows at once whether what was read and lost before it adds up.

use super::kit::{Consumer, Follower, fill};
use crate::clock::Ticker;
use crate::map::{self, Mapping};
use crate::ring::swap::{self, Handed, Reader};
use crate::ring::write::{self, Refused, Step};
use crate::ring::{Ring, hook, reset};
use crate::rseq::{lock, portable::Exclusive};
use crate::{stats, thread};
use ringtap_abi::Geometry;
use ringtap_abi::meta::state;
use ringtap_abi::sync::{AtomicU32, AtomicU64};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The writers' side: shared by threads, hooks and the lab.
#[derive(Clone, Debug)]
pub(super) struct Pen {
    shared: Arc<PenShared>,
}

#[derive(Debug)]
struct PenShared {
    mapping: Mapping,
    /// The next event's number, which is its index.
    number: AtomicU32,
    clock: AtomicU64,
}

/// What a test's killed writer unwinds with.
struct Killed;

impl Pen {
    pub(super) fn ring(&self) -> Ring<'_> {
        self.shared.mapping.ring()
    }

    pub(super) fn written(&self) -> u64 {
        self.shared.number.load(Relaxed).into()
    }

    /// The next event comes so much later that it needs a time extend.
    pub(super) fn pause(&self) {
        self.shared.clock.fetch_add(1 << 28, Relaxed);
    }

    /// Writes an event of `len` bytes as the locked writer does.
    pub(super) fn write(&self, len: usize) -> Result<(), Refused> {
        let number = self.shared.number.load(Relaxed);
        let mut payload = vec![0; len];
        fill(&mut payload, 7, number);
        let ring = self.ring();
        let held = lock::acquire(&ring.meta().writer.lock).ok_or(Refused::Busy)?;
        let clock = Ticker::Counter(&self.shared.clock);
        for _ in 0..8 {
            if let Step::Written = write::append(&ring, &Exclusive, 0, &clock, &payload)? {
                self.shared.number.store(number + 1, Relaxed);
                drop(held);
                return Ok(());
            }
        }
        Err(Refused::Busy)
    }

    /// Writes events of a quarter page until the tail has turned `turns` times; fewer when the ring is full.
    pub(super) fn write_turns(&self, turns: u64) {
        let goal = self.ring().tail().expect("sound").seq() + turns;
        while self.ring().tail().expect("sound").seq() < goal {
            match self.write(QUARTER) {
                Ok(()) => {}
                Err(Refused::Full) => return,
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// A writer that dies before step `k` of an event of `len` bytes; the lock it held counts as recovered.
    /// `false`: it had fewer steps.
    pub(super) fn die_at(&self, len: usize, k: u32) -> bool {
        let died = self.unwind_at(len, k);
        if died {
            self.ring().meta().writer.lock.store(0, Relaxed);
        }
        died
    }

    /// As [`die_at`](Self::die_at), in a thread that really ends: the next writer finds its lock and succeeds it.
    pub(super) fn die_with_thread_at(&self, len: usize, k: u32) -> bool {
        let pen = self.clone();
        let died = std::thread::spawn(move || pen.unwind_at(len, k)).join().expect("it dies without a panic");
        // A joined thread may take the kernel a moment to forget.
        let owner = self.ring().meta().writer.lock.load(Relaxed);
        while owner != 0 && !thread::is_dead(owner) {
            thread::yield_now();
        }
        died
    }

    fn unwind_at(&self, len: usize, k: u32) -> bool {
        let mut steps = 0;
        hook::set(move || {
            if steps == k {
                resume_unwind(Box::new(Killed));
            }
            steps += 1;
        });
        let died = catch_unwind(AssertUnwindSafe(|| self.write(len)));
        hook::clear();
        match died {
            Ok(done) => {
                assert!(matches!(done, Ok(()) | Err(Refused::Full)), "nobody else is at work: {done:?}");
                false
            }
            Err(payload) if payload.is::<Killed>() => true,
            Err(payload) => resume_unwind(payload),
        }
    }
}

/// A payload of which four fill a page and leave room for a number of lost events.
pub(super) const QUARTER: usize = 1000;

/// A ring and all its actors.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) pen: Pen,
    reader: Reader,
    consumer: Consumer,
    follower: Rc<RefCell<Follower>>,
    /// Events that resets dropped.
    dropped: u64,
}

/// What a test lets happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A small event.
    Write,
    /// An event after a pause that needs a time extend.
    WriteLate,
    /// Events until the tail turns.
    Turn,
    /// A writer claims the next slot and dies.
    DieAtClaim,
    GetReader,
    Follow,
    Reset,
    Stats,
}

impl Lab {
    pub(super) fn new(ring_subbufs: u32, discard: bool) -> Self {
        let geometry = Geometry::new(4096, ring_subbufs).expect("possible");
        let (_, mapping) = map::create(geometry, 0).expect("memory");
        let ring = mapping.ring();
        if discard {
            ring.meta().switches.state.fetch_or(state::DISCARD, Relaxed);
        }
        let (reader, consumer) = (Reader::new(&ring), Consumer::new(&ring));
        let follower = Rc::new(RefCell::new(Follower::new(&ring, 0).expect("sound")));
        let shared = PenShared { mapping, number: AtomicU32::new(0), clock: AtomicU64::new(0) };
        let pen = Pen { shared: Arc::new(shared) };
        Self { pen, reader, consumer, follower, dropped: 0 }
    }

    /// Does it; returns whether there was anything to do.
    pub(super) fn run(&mut self, op: Op) -> bool {
        match op {
            Op::Write => return self.pen.write(20) != Err(Refused::Full),
            Op::WriteLate => {
                self.pen.pause();
                return self.pen.write(64) != Err(Refused::Full);
            }
            Op::Turn => self.pen.write_turns(1),
            Op::DieAtClaim => self.die_at_claim(),
            Op::GetReader => return self.get_reader(),
            Op::Follow => return self.follow(),
            Op::Reset => self.reset(),
            Op::Stats => self.look(),
        }
        true
    }

    fn die_at_claim(&mut self) {
        let ring = self.pen.ring();
        let tail = ring.tail().expect("sound");
        if ring.commit(tail.page()).expect("sound").is_blank() {
            return;
        }
        let next = tail.seq() + 1;
        let claimed =
            |ring: &Ring<'_>| ringtap_abi::words::Slot::unpack(ring.slot(next).load(Relaxed)).seq() == next;
        // The largest event needs a turn.
        for k in 0.. {
            if claimed(&ring) || !self.pen.die_at(4072, k) {
                return;
            }
        }
    }

    fn get_reader(&mut self) -> bool {
        let ring = self.pen.ring();
        let handed = swap::get_reader(&ring, &mut self.reader).expect("sound");
        self.consumer.pull(&ring, handed, |index, event| {
            assert_eq!(u64::from(event.number), index, "the consumer's count is off");
        });
        handed != Handed::Nothing
    }

    fn follow(&mut self) -> bool {
        follow(&self.pen, &self.follower)
    }

    fn reset(&mut self) {
        let ring = self.pen.ring();
        let held = lock::acquire(&ring.meta().writer.lock).expect("the lock is free or its owner dead");
        let done = reset::reset(&ring, &mut self.reader, &Exclusive, 0).expect("sound");
        drop(held);
        assert!(done, "nobody keeps it from it");
        self.dropped += self.consumer.skip_to(ring.meta().host.next_index.load(Relaxed));
    }

    fn look(&self) {
        stats::of(&self.pen.ring(), &self.reader, 0).expect("sound");
    }

    /// Runs `op`, and `intrude` before its step `at`. `false`: it had fewer steps.
    pub(super) fn interrupt(&mut self, op: Op, at: u32, intrude: impl Fn(&Pen) + 'static) -> bool {
        let (pen, intruded, mut step) = (self.pen.clone(), Rc::new(Cell::new(false)), 0);
        let mark = Rc::clone(&intruded);
        hook::set(move || {
            if step == at {
                mark.set(true);
                intrude(&pen);
            }
            step += 1;
        });
        self.run(op);
        hook::clear();
        intruded.get()
    }

    /// Runs `op`; before its step `at` the cursor reads all it can, writers turn, and it reads again.
    pub(super) fn interrupt_with_cursor(&mut self, op: Op, at: u32, turns: u64) -> bool {
        let follower = Rc::clone(&self.follower);
        self.interrupt(op, at, move |pen| {
            while follow(pen, &follower) {}
            pen.write_turns(turns);
            while follow(pen, &follower) {}
        })
    }

    /// Reads all that is left and adds up.
    pub(super) fn finish(mut self) {
        self.check_stats();
        while self.get_reader() {}
        while self.follow() {}
        // A last event tells the cursor what it lost before it; no writer that died keeps it from being written.
        self.pen.write(20).expect("there is room");
        while self.get_reader() {}
        while self.follow() {}
        self.check_stats();
        let written = self.pen.written();
        assert_eq!(self.pen.ring().written(), Ok(written), "the ring's own count");
        assert_eq!(self.consumer.read + self.consumer.lost + self.dropped, written, "the consumer's sum");
        let follower = self.follower.borrow();
        assert_eq!(follower.read + follower.lost, written, "the cursor's sum");
    }

    /// The counters add up while nobody is at work.
    fn check_stats(&self) {
        let stats = stats::of(&self.pen.ring(), &self.reader, 0).expect("sound");
        assert_eq!(stats.written() + self.reader.base_index(), self.pen.written(), "{stats:?}");
    }
}

/// One step of the cursor; whether it brought anything.
fn follow(pen: &Pen, follower: &RefCell<Follower>) -> bool {
    let check = |index, event: super::kit::Event| {
        assert_eq!(u64::from(event.number), index, "the cursor's count is off");
    };
    follower.borrow_mut().step(&pen.ring(), check).expect("sound")
}
