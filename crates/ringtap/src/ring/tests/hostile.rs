//! Words that cannot be true, anywhere in shared memory, while host and cursors are at work: nobody panics, hangs,
//! reads out of bounds or loops without bound. What they return does not matter.

use super::kit::{Follower, Random, Seed, Watchdog, fill};
use crate::clock::Ticker;
use crate::map::{self, Access, Mapping};
use crate::ring::cursor::Position;
use crate::ring::swap::{self, Reader};
use crate::ring::{Ring, hook, reset, watermark, write};
use crate::rseq::portable::Exclusive;
use crate::{Config, Host, HostError, stats};
use ringtap_abi::Geometry;
use ringtap_abi::meta::{Desc, MetaPage};
use ringtap_abi::sync::AtomicU64;
use ringtap_abi::words::{Commit, Place, Slot};
use ringtap_abi::{SubbufId, geometry};
use std::cell::Cell;
use std::mem::offset_of;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A writer's mapping as eight-byte words, wherever they lie.
#[derive(Debug)]
struct Scribbler {
    mapping: Mapping,
    geometry: Geometry,
    random: Random,
}

impl Scribbler {
    fn new(host: &Host, cpu: u32, geometry: Geometry, seed: u64) -> Self {
        let mapping =
            map::open(host.read_write(cpu, 0).expect("it is there"), Access::Write).expect("it maps");
        Self { mapping, geometry, random: Random::new(seed) }
    }

    /// Stores a word at byte `at` of the mapping.
    fn store(&self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8) && at + 8 <= self.geometry.map_len());
        let start = std::ptr::from_ref(self.mapping.ring().meta()).cast::<u8>();
        // SAFETY: the word lies in the mapping and is aligned; everybody uses these bytes as atomics.
        let place = unsafe { &*start.wrapping_add(at).cast::<AtomicU64>() };
        place.store(word, Relaxed);
    }

    /// A place that somebody will look at, or any.
    fn place(&mut self) -> usize {
        let random = &mut self.random;
        let slots =
            self.geometry.slots_offset() + 8 * random.below(self.geometry.ring_subbufs().into()) as usize;
        let desc = self.geometry.descs_offset()
            + size_of::<Desc>() * random.below(self.geometry.nr_subbufs().into()) as usize;
        let writer = offset_of!(MetaPage, writer);
        let host = offset_of!(MetaPage, host);
        let any = random.below(self.geometry.map_len() as u64 / 8) as usize * 8;
        let meta = random.below(geometry::MIN_SUBBUF_SIZE as u64 / 8) as usize * 8;
        random.of(&[slots, desc, desc + 8, desc + 24, writer, writer, writer + 8, host, host + 8, any, meta])
    }

    /// A word that might be true, one bit off, or any.
    fn word(&mut self) -> u64 {
        let random = &mut self.random;
        let tail = self.mapping.ring().meta().writer.tail.load(Relaxed);
        let seq = (Place::unpack(tail).seq() & 0xffff_ffff).wrapping_add(random.below(9)).saturating_sub(4);
        let page = SubbufId(random.below(u64::from(self.geometry.nr_subbufs()) + 2) as u16);
        let commit = Commit::first(random.below(4200) as u32).pack();
        let any = random.next();
        random.of(&[
            Slot::consumed(page, seq).pack(),
            Slot::unconsumed(page, seq).pack(),
            Place::new(page, seq).pack(),
            tail ^ 1 << random.clone().below(64),
            commit,
            commit ^ random.clone().below(64) << 32,
            Commit::BLANK.pack(),
            0,
            1,
            u64::MAX,
            any,
        ])
    }

    fn scribble(&mut self) {
        let (at, word) = (self.place(), self.word());
        self.store(at, word);
    }
}

/// All that may come back.
fn allowed<T>(result: Result<T, HostError>) {
    match result {
        Ok(_) | Err(HostError::Damaged(_) | HostError::Busy(_)) => {}
        Err(other) => panic!("{other}"),
    }
}

/// One round: a ring with some events, then scribbling while everybody is at work.
fn round(seed: u64, duration: Duration) {
    let mut random = Random::new(seed);
    let ring_subbufs = random.of(&[2, 3, 17]);
    let config = Config { ring_subbufs, absolute_stamps: random.one_in(3), ..Config::default() };
    let geometry = Geometry::new(config.subbuf_size, ring_subbufs).expect("possible");
    let host = Host::new(&config).expect("possible");
    let writer = host.writer();
    let done = Arc::new(AtomicBool::new(false));
    let cpus = host.cpus();
    let spawned: Vec<_> = cpus
        .iter()
        .map(|&cpu| {
            let (mut scribbler, done) =
                (Scribbler::new(&host, cpu, geometry, seed ^ u64::from(cpu)), Arc::clone(&done));
            std::thread::spawn(move || {
                while !done.load(Relaxed) {
                    scribbler.scribble();
                    for _ in 0..scribbler.random.below(2000) {
                        std::hint::spin_loop();
                    }
                }
            })
        })
        .collect();
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < duration {
        number += 1;
        let mut payload = [0; 40];
        fill(&mut payload, 9, number);
        let _ = writer.write(&payload);
        for &cpu in &cpus {
            at_work(&host, cpu, &mut random);
        }
    }
    done.store(true, Relaxed);
    for thread in spawned {
        thread.join().expect("a scribbler fears nothing");
    }
}

/// Host and cursor look at everything that they may look at.
fn at_work(host: &Host, cpu: u32, random: &mut Random) {
    match random.below(8) {
        0 => allowed(host.stats(cpu)),
        1 => allowed(host.wait(cpu, random.below(101) as u8, Some(Duration::ZERO))),
        2 if random.one_in(20) => allowed(host.reset()),
        3 | 4 => {
            let mapping = map::open(host.read_only(cpu).expect("it is there"), Access::Read);
            // Whoever opens it now may find its header damaged.
            let Ok(mapping) = mapping else { return };
            let ring = mapping.ring();
            let _ = Position::oldest(&ring);
            let Ok(mut follower) = Follower::new(&ring, 0) else { return };
            for _ in 0..random.below(50) {
                let _ = follower.step_unbelieving(&ring);
            }
        }
        _ => allowed(host.get_reader(cpu)),
    }
}

#[test]
fn nobody_trusts_what_writers_scribble() {
    let Seed { seed, duration } = Seed::from_environment("hostile", Duration::from_secs(5));
    let _watchdog = Watchdog::new("host or cursor on hostile memory", duration + Duration::from_secs(60));
    let began = Instant::now();
    for number in 0u64.. {
        if began.elapsed() >= duration {
            break;
        }
        let seed = seed.wrapping_add(number);
        println!("round of RINGTAP_SEED={seed}");
        round(seed, Duration::from_millis(300));
    }
}

/// A lie told before one step and taken back before the next: whoever reads a word twice gets two answers.
#[test]
fn a_word_that_lies_between_two_steps_is_no_endless_loop() {
    let _watchdog = Watchdog::new("a lie between two steps", Duration::from_secs(60));
    let geometry = Geometry::new(4096, 2).expect("possible");
    let looks: [fn(&Ring<'_>, &mut Reader) -> bool; 5] = [
        |ring, reader| stats::of(ring, reader, 0).is_ok(),
        |ring, reader| swap::get_reader(ring, reader).is_ok(),
        |ring, reader| watermark::is_reached(ring, reader, 50).is_ok(),
        |ring, reader| reset::reset(ring, reader, &Exclusive, 0).is_ok(),
        |ring, _| Follower::new(ring, 0).is_ok_and(|mut follower| follower.step_unbelieving(ring).is_ok()),
    ];
    let mut lies = 0;
    for look in looks {
        for place in 0..5 {
            for lie in [0, 1 << 17, 1 << 62, u64::MAX, u64::MAX << 17, 7] {
                lies += (0..).take_while(|&at| lie_once(geometry, look, place, lie, at)).count();
            }
        }
    }
    println!("{lies} lies");
}

/// Makes a ring with an event, looks at it, and lies in word `place` from step `at` to the next. `false`: there
/// was no such step.
fn lie_once(
    geometry: Geometry,
    look: fn(&Ring<'_>, &mut Reader) -> bool,
    place: usize,
    lie: u64,
    at: u32,
) -> bool {
    let (_, mapping) = map::create(geometry, 0).expect("memory");
    let mapping = Rc::new(mapping);
    let ring = mapping.ring();
    let count = AtomicU64::new(0);
    for _ in 0..3 {
        let _ = write::append(&ring, &Exclusive, 0, &Ticker::Counter(&count), &[1; 40]);
    }
    let mut reader = Reader::new(&ring);
    let (liar, step) = (Rc::clone(&mapping), Rc::new(Cell::new(0)));
    let steps = Rc::clone(&step);
    let truth = Cell::new(0);
    hook::set(move || {
        let ring = liar.ring();
        let desc = ring.desc(SubbufId(1));
        let (tail, reader) = (&ring.meta().writer.tail, &ring.meta().host.reader);
        let word = [tail, &ring.slots[0], &desc.w, &desc.first, reader][place];
        if step.get() == at {
            truth.set(word.swap(lie, Relaxed));
        } else if step.get() == at + 1 {
            word.store(truth.get(), Relaxed);
        }
        step.set(step.get() + 1);
    });
    // Whatever it answers.
    let _ = look(&ring, &mut reader);
    hook::clear();
    // A look that never ends for other reasons is cut off here, and so is one that tries for long.
    steps.get() > at && at < 300
}
