//! The ring under a model checker: each order of steps, and each value that a load may return, for two or three
//! threads on a ring of two sub-buffers. `cargo xtask loom` also takes away each ordering and sees the test fail
//! that is named after its edge.
//!
//! What runs here is the ring's own code, with the sections of [`portable`](crate::rseq::portable).

use crate::clock::Ticker;
use crate::ring::cursor::{Chunk, Position};
use crate::ring::data::Page;
use crate::ring::swap::{Handed, Reader, get_reader};
use crate::ring::write::{self, Step};
use crate::ring::{Data, Ring, advance, reset, retire};
use crate::rseq::{Expected, lock, portable::Exclusive};
use crate::wake::{self, Until};
use loom::cell::UnsafeCell;
use loom::thread;
use ringtap_abi::Geometry;
use ringtap_abi::clock::{ClockWords, Conversion};
use ringtap_abi::meta::{Desc, MetaPage};
use ringtap_abi::sync::AtomicU64;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const RING_SUBBUFS: u32 = 2;
/// Event `n` carries this and `n`.
const PAYLOAD: u32 = 0x7000_0000;

/// A buffer that no file is behind.
#[derive(Debug)]
struct Memory {
    geometry: Geometry,
    meta: MetaPage,
    slots: Vec<AtomicU64>,
    descs: Vec<Desc>,
    pages: Vec<Page>,
}

impl Memory {
    fn new() -> Arc<Self> {
        let geometry = Geometry::new(4096, RING_SUBBUFS).expect("the smallest there is");
        let all = 0..geometry.nr_subbufs();
        let memory = Self {
            geometry,
            meta: MetaPage::default(),
            slots: (0..RING_SUBBUFS).map(|_| AtomicU64::default()).collect(),
            descs: all.clone().map(|_| Desc::default()).collect(),
            pages: all.map(|_| Page::default()).collect(),
        };
        STEPS.set(Some(Rc::new(AtomicU64::new(0))));
        memory.ring().format();
        Arc::new(memory)
    }

    fn ring(&self) -> Ring<'_> {
        Ring::new(self.geometry, &self.meta, &self.slots, &self.descs, Data::new(&self.pages))
    }
}

thread_local! {
    /// A word that nobody changes. All threads of a model are one thread here.
    static STEPS: RefCell<Option<Rc<AtomicU64>>> = const { RefCell::new(None) };
}

/// Between two steps on shared words: lets loom switch threads.
///
/// Of an atomic's accesses loom remembers the last alone. A writer that loads a word before it stores to it thereby
/// hides another thread's load from loom, which then sees no reason to try both orders. A compare-exchange that
/// fails is to loom a dependency on all others of its kind, and it orders no memory.
pub(crate) fn may_switch() {
    if let Some(steps) = STEPS.with_borrow(Clone::clone) {
        let _ = steps.compare_exchange(1, 1, Relaxed, Relaxed);
    }
}

/// Runs a model in each way that takes up to `preemptions` of them.
pub(crate) fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    let runs = std::sync::atomic::AtomicU64::new(0);
    let runs: &'static _ = Box::leak(Box::new(runs));
    builder.check(move || {
        STEPS.set(None);
        runs.fetch_add(1, Relaxed);
        model();
    });
    STEPS.set(None);
    println!("{} runs", runs.load(Relaxed));
}

/// Appends event `number`, of one word; its time is `number + 1`.
fn write(ring: &Ring<'_>, number: u32) {
    append(ring, &[PAYLOAD + number]);
}

fn append(ring: &Ring<'_>, payload: &[u32]) {
    let bytes: Vec<u8> = payload.iter().flat_map(|word| word.to_le_bytes()).collect();
    let clock = Ticker::Counter(&ring.meta().writer.counter);
    let step = write::append(ring, &Exclusive, 0, &clock, &bytes).expect("the ring is sound");
    assert_eq!(step, Step::Written, "there is no other writer");
}

/// Moves the tail on, as an event does that finds no room; returns the new sub-buffer.
fn turn(ring: &Ring<'_>) -> usize {
    let tail = ring.tail().expect("sound");
    let w = ring.commit(tail.page()).expect("sound");
    let last = ring.desc(tail.page()).stamp[w.parity()].load(Relaxed);
    let step = advance::turn(ring, &Exclusive, &Expected { cpu: 0, tail, w }, last);
    assert_eq!(step, Ok(Step::Turned(tail.seq() + 1)), "there is no other writer");
    usize::from(ring.tail().expect("sound").page().0)
}

/// A cursor, and which event comes next.
struct Follower {
    position: Position,
    copy: Vec<u32>,
    index: u64,
    copied: u32,
}

impl Follower {
    /// Before the oldest event of a ring that has not lost any.
    fn new(ring: &Ring<'_>) -> Self {
        let copy = vec![0; ring.geometry().capacity() as usize / 4];
        Self { position: Position::oldest(ring).expect("sound"), copy, index: 0, copied: 0 }
    }

    /// One step; checks the events of one word that it brought, and returns the losses.
    fn step(&mut self, ring: &Ring<'_>) -> Option<u64> {
        let chunk = self.chunk(ring)?;
        for at in (self.copied..chunk.end).step_by(8) {
            let word = self.copy[at as usize / 4 + 1];
            assert_eq!(u64::from(word - PAYLOAD), self.index, "another event's payload");
            self.index += 1;
        }
        self.copied = chunk.end;
        Some(chunk.lost)
    }

    fn chunk(&mut self, ring: &Ring<'_>) -> Option<Chunk> {
        let chunk = self.position.advance(ring, &mut self.copy).expect("the ring is sound")?;
        self.index += chunk.lost;
        if let Some(time) = chunk.begins {
            assert_eq!(time, self.index + 1, "another event's time");
            self.copied = 0;
        }
        Some(chunk)
    }
}

#[test]
fn e1_who_sees_the_commit_sees_the_record() {
    explore(2, || {
        let memory = Memory::new();
        let mut follower = Follower::new(&memory.ring());
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || write(&memory.ring(), 0))
        };
        follower.step(&memory.ring());
        writer.join().unwrap();
    });
}

#[test]
fn e2_who_sees_the_new_tail_sees_the_old_page_complete() {
    explore(2, || {
        let memory = Memory::new();
        write(&memory.ring(), 0);
        let mut follower = Follower::new(&memory.ring());
        assert_eq!(follower.step(&memory.ring()), Some(0));
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || {
                write(&memory.ring(), 1);
                turn(&memory.ring());
                write(&memory.ring(), 2);
            })
        };
        let lost = follower.step(&memory.ring());
        assert!(lost.is_none_or(|lost| lost == 0), "nothing was overwritten");
        writer.join().unwrap();
        while let Some(lost) = follower.step(&memory.ring()) {
            assert_eq!(lost, 0, "nothing was overwritten");
        }
        assert_eq!(follower.index, 3);
    });
}

#[test]
fn e2_who_sees_the_new_tail_sees_its_desc_reset() {
    explore(3, || {
        let memory = Memory::new();
        write(&memory.ring(), 0);
        let mut follower = Follower::new(&memory.ring());
        assert_eq!(follower.step(&memory.ring()), Some(0));
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || {
                turn(&memory.ring());
                write(&memory.ring(), 1);
            })
        };
        follower.step(&memory.ring());
        writer.join().unwrap();
        follower.step(&memory.ring());
        assert_eq!(follower.index, 2, "nothing was overwritten, and the cursor has it all");
    });
}

#[test]
fn e2_who_sees_a_ring_retired_sees_all_that_was_committed() {
    explore(3, || {
        let memory = Memory::new();
        let with_lock = |run: fn(&Ring<'_>)| {
            let memory = memory.clone();
            thread::spawn(move || {
                // All of loom's threads are one thread to the kernel: who finds the lock taken gives up at once.
                if let Some(_held) = lock::acquire(&memory.meta.writer.lock) {
                    run(&memory.ring());
                }
            })
        };
        let others = [
            with_lock(|ring| {
                if !retire::is_retired(ring).expect("sound") {
                    write(ring, 0);
                }
            }),
            with_lock(|ring| assert_eq!(retire::retire(ring, None), Ok(true))),
        ];
        let seen = retire::is_retired(&memory.ring()).expect("sound");
        let written = seen.then(|| memory.ring().written().expect("sound"));
        for other in others {
            other.join().unwrap();
        }
        assert!(written.is_none_or(|written| written == memory.ring().written().expect("sound")));
    });
}

#[test]
fn e3_a_cursor_begins_with_the_first_of_its_page() {
    explore(2, || {
        let memory = Memory::new();
        write(&memory.ring(), 0);
        turn(&memory.ring());
        write(&memory.ring(), 1);
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || {
                turn(&memory.ring());
                write(&memory.ring(), 2);
            })
        };
        let mut follower = Follower::new(&memory.ring());
        let chunk = follower.position.advance(&memory.ring(), &mut follower.copy).expect("sound");
        assert!(chunk.is_none_or(|chunk| chunk.lost <= 2), "a loss is no negative number: {chunk:?}");
        writer.join().unwrap();
    });
}

#[test]
fn e3_a_cursor_knows_a_claimed_page_by_its_slot() {
    explore(2, || {
        let memory = Memory::new();
        write(&memory.ring(), 0);
        let mut follower = Follower::new(&memory.ring());
        follower.step(&memory.ring());
        turn(&memory.ring());
        write(&memory.ring(), 1);
        turn(&memory.ring());
        write(&memory.ring(), 2);
        // Next the cursor looks for event 1, whose page goes now.
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || {
                turn(&memory.ring());
                write(&memory.ring(), 3);
            })
        };
        follower.step(&memory.ring());
        writer.join().unwrap();
    });
}

#[test]
fn e3_a_cursor_keeps_no_byte_of_a_later_use() {
    explore(2, || {
        let memory = Memory::new();
        write(&memory.ring(), 0);
        let mut follower = Follower::new(&memory.ring());
        follower.step(&memory.ring());
        write(&memory.ring(), 1);
        turn(&memory.ring());
        write(&memory.ring(), 2);
        // Event 3 covers the places of 0, which the cursor has, and of 1, which it copies next.
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || {
                turn(&memory.ring());
                append(&memory.ring(), &[0xbad; 3]);
            })
        };
        let chunk = follower.chunk(&memory.ring());
        if chunk.is_some_and(|chunk| chunk.begins.is_none()) {
            assert_eq!(follower.copy[3], PAYLOAD + 1);
        }
        writer.join().unwrap();
    });
}

#[test]
fn e3_the_host_takes_no_later_first_for_the_oldest() {
    explore(2, || {
        let memory = Memory::new();
        write(&memory.ring(), 0);
        turn(&memory.ring());
        write(&memory.ring(), 1);
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || {
                turn(&memory.ring());
                write(&memory.ring(), 2);
            })
        };
        let oldest = memory.ring().oldest_unconsumed(2).expect("sound");
        if let Some(oldest) = oldest {
            assert_eq!(oldest.first, oldest.seq - 2, "one event on each page");
        }
        writer.join().unwrap();
    });
}

#[test]
fn e4_the_next_owner_sees_all_that_its_predecessor_did() {
    explore(2, || {
        let memory = Memory::new();
        let events = Arc::new(UnsafeCell::new(0_u32));
        let event = |memory: Arc<Memory>, events: Arc<UnsafeCell<u32>>| {
            // All of loom's threads are one thread to the kernel: who finds the lock taken gives up at once.
            let Some(_held) = lock::acquire(&memory.meta.writer.lock) else { return };
            // SAFETY: the lock excludes the other thread, and loom fails where it does not.
            let number = events.with(|events| unsafe { *events });
            write(&memory.ring(), number);
            // SAFETY: as above.
            events.with_mut(|events| unsafe { *events += 1 });
        };
        let other = {
            let (memory, events) = (memory.clone(), events.clone());
            thread::spawn(move || event(memory, events))
        };
        event(memory.clone(), events.clone());
        other.join().unwrap();
        // SAFETY: the other thread has ended.
        let written = events.with(|events| unsafe { *events });
        assert_eq!(memory.ring().written().unwrap(), u64::from(written));
    });
}

#[test]
fn e5_a_page_is_the_readers_or_the_writers() {
    explore(2, || {
        let memory = Memory::new();
        // The reader looks at its page with plain loads, through its mapping; a writer's stores must not meet them.
        let pages: Arc<[UnsafeCell<()>; 3]> = Arc::default();
        write(&memory.ring(), 0);
        turn(&memory.ring());
        write(&memory.ring(), 1);
        let mut reader = Reader::new(&memory.ring());
        let writer = {
            let (memory, pages) = (memory.clone(), pages.clone());
            thread::spawn(move || {
                let page = turn(&memory.ring());
                pages[page].with_mut(|_| ());
                write(&memory.ring(), 2);
            })
        };
        pages[0].with(|_| ());
        let handed = get_reader(&memory.ring(), &mut reader).expect("the ring is sound");
        if handed == Handed::Page {
            let page = memory.meta.kernel.reader_id.load(Relaxed) as usize;
            if page != 0 && !reader.holds(memory.ring().tail().expect("sound")) {
                pages[page].with(|_| ());
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn e5_no_cursor_is_led_to_what_an_earlier_reset_left() {
    explore(2, || {
        let memory = Memory::new();
        let mut reader = Reader::new(&memory.ring());
        write(&memory.ring(), 0);
        assert_eq!(get_reader(&memory.ring(), &mut reader), Ok(Handed::Page));
        assert_eq!(reset::reset(&memory.ring(), &mut reader, &Exclusive, 0), Ok(true));
        write(&memory.ring(), 1);
        turn(&memory.ring());
        write(&memory.ring(), 2);
        let host = {
            let memory = memory.clone();
            thread::spawn(move || {
                assert_eq!(reset::reset(&memory.ring(), &mut reader, &Exclusive, 0), Ok(true));
            })
        };
        let mut follower = Follower::new(&memory.ring());
        let chunk = follower.position.advance(&memory.ring(), &mut follower.copy).expect("sound");
        if chunk.is_some() {
            assert_ne!(follower.copy[1], PAYLOAD, "the first reset dropped this event");
        }
        host.join().unwrap();
    });
}

#[test]
fn e6_a_cursor_follows_a_page_that_the_reader_gave_back() {
    explore(2, || {
        let memory = Memory::new();
        let mut reader = Reader::new(&memory.ring());
        write(&memory.ring(), 0);
        let mut follower = Follower::new(&memory.ring());
        follower.step(&memory.ring());
        turn(&memory.ring());
        write(&memory.ring(), 1);
        assert_eq!(get_reader(&memory.ring(), &mut reader), Ok(Handed::Page));
        turn(&memory.ring());
        write(&memory.ring(), 2);
        assert_eq!(get_reader(&memory.ring(), &mut reader), Ok(Handed::Page));
        // The cursor looks for event 1, which the reader has and gives back meanwhile.
        let host = {
            let memory = memory.clone();
            thread::spawn(move || {
                assert_eq!(get_reader(&memory.ring(), &mut reader), Ok(Handed::Page));
            })
        };
        let lost = follower.step(&memory.ring());
        assert!(lost.is_none_or(|lost| lost == 0), "no writer has overwritten it");
        host.join().unwrap();
    });
}

/// A sleeper's last look before it sleeps, and whether it would sleep although there is an event: nobody has woken it.
fn would_miss(ring: &Ring<'_>, until: Until) -> (u32, bool) {
    let seen = wake::wakes(ring);
    wake::arm(&ring.meta().switches, until);
    (seen, ring.written().expect("sound") == 0)
}

#[test]
fn e7_commit_and_arming_see_each_other() {
    explore(2, || {
        let memory = Memory::new();
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || {
                write(&memory.ring(), 0);
                wake::look(&memory.ring(), Ok(Step::Written));
            })
        };
        let (seen, sleeps) = would_miss(&memory.ring(), Until::AnyEvent);
        writer.join().unwrap();
        assert!(!sleeps || wake::wakes(&memory.ring()) != seen, "it sleeps although there is an event");
    });
}

#[test]
fn e8_no_wake_up_takes_back_a_later_arming() {
    explore(2, || {
        let memory = Memory::new();
        let earlier = {
            let memory = memory.clone();
            thread::spawn(move || wake::wake(&memory.ring()))
        };
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || {
                write(&memory.ring(), 0);
                wake::look(&memory.ring(), Ok(Step::Written));
            })
        };
        let (seen, sleeps) = would_miss(&memory.ring(), Until::AnyEvent);
        writer.join().unwrap();
        earlier.join().unwrap();
        assert!(!sleeps || wake::wakes(&memory.ring()) != seen, "it sleeps although there is an event");
    });
}

#[test]
fn e9_no_conversion_is_made_of_two() {
    explore(2, || {
        let lines = [1, 5].map(|n| Conversion { ticks0: n, ns0: n + 1, mult: n + 2 });
        let words = Arc::new(ClockWords::default());
        words.store(lines[0]);
        let host = {
            let words = words.clone();
            thread::spawn(move || words.store(lines[1]))
        };
        let line = words.load();
        assert!(line.is_none_or(|line| lines.contains(&line)), "{line:?}");
        host.join().unwrap();
    });
}
