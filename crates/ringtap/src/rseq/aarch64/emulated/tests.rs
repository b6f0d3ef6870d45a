//! What the aarch64 sections store, compared with what [`Exclusive`] stores to a twin of the ring.

use super::super::{Rseq, append_plain, append_since};
use super::{AREA, CUT, FILE, GCC, QEMU, RING, STACK, STACK_LEN, arena};
use crate::ring::{Data, Ring};
use crate::rseq::portable::Exclusive;
use crate::rseq::{
    Append, Area, Expected, IN_REGISTERS, Outcome, Parts, Plain, Sections, Turn, in_registers,
    in_registers_but_last,
};
use crate::spot::{self, Spot};
use crate::writer::Writer;
use ringtap_abi::event::DELTA_LIMIT;
use ringtap_abi::meta::{Desc, MetaPage};
use ringtap_abi::subbuf::HEADER_LEN;
use ringtap_abi::sync::AtomicU64;
use ringtap_abi::words::{Commit, Place};
use ringtap_abi::{Geometry, SubbufId};
use std::any::Any;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, OnceLock, PoisonError};

const CPU: u32 = 3;
const TWIN: usize = RING + 0x10_0000;

/// Runs a test on a stack in the arena, where what it has on its stack is the emulated processor's, too.
fn on_arena(test: fn()) {
    static FILE_OF_ALL: OnceLock<std::os::fd::OwnedFd> = OnceLock::new();
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let is_there = |tool| Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
    if let Some(missing) = [GCC, QEMU].into_iter().find(|&tool| !is_there(tool)) {
        println!("skipped: {missing} is not installed (packages gcc-aarch64-linux-gnu, qemu-user)");
        return;
    }
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let file: &'static _ = FILE_OF_ALL.get_or_init(arena);
    let mut job = Job { test, file, panic: None };
    // SAFETY: the stack is nobody else's, the job outlives the thread, and both calls get what they ask for.
    unsafe {
        let (mut attributes, mut thread) = (std::mem::zeroed(), 0);
        libc::pthread_attr_init(&raw mut attributes);
        assert_eq!(libc::pthread_attr_setstack(&raw mut attributes, STACK as *mut c_void, STACK_LEN), 0);
        let job = (&raw mut job).cast();
        assert_eq!(libc::pthread_create(&raw mut thread, &raw const attributes, run, job), 0);
        libc::pthread_join(thread, std::ptr::null_mut());
        libc::pthread_attr_destroy(&raw mut attributes);
    }
    if let Some(panic) = job.panic {
        resume_unwind(panic);
    }
}

struct Job {
    test: fn(),
    file: &'static std::os::fd::OwnedFd,
    panic: Option<Box<dyn Any + Send>>,
}

extern "C" fn run(job: *mut c_void) -> *mut c_void {
    // SAFETY: `on_arena` waits for this thread.
    let job = unsafe { &mut *job.cast::<Job>() };
    FILE.set(Some(job.file));
    job.panic = catch_unwind(AssertUnwindSafe(job.test)).err();
    std::ptr::null_mut()
}

fn geometry() -> Geometry {
    Geometry::new(4096, 3).expect("possible")
}

/// The ring at an address in the arena, formatted.
fn ring(start: usize) -> Ring<'static> {
    let geometry = geometry();
    // SAFETY: the arena has room for it there, page-aligned, and stays; all of it is made of atomics.
    unsafe {
        std::ptr::write_bytes(start as *mut u8, 0, geometry.map_len());
        let slots = (start + geometry.slots_offset()) as *const AtomicU64;
        let descs = (start + geometry.descs_offset()) as *const Desc;
        let ring = Ring::new(
            geometry,
            &*(start as *const MetaPage),
            std::slice::from_raw_parts(slots, geometry.ring_subbufs() as usize),
            std::slice::from_raw_parts(descs, geometry.nr_subbufs() as usize),
            Data::new((start + geometry.subbuf_offset(SubbufId(0))) as *mut u8, geometry),
        );
        ring.format();
        ring
    }
}

/// All bytes of the ring.
fn bytes(start: usize) -> Vec<u8> {
    // SAFETY: `ring` made them, and nobody writes now.
    unsafe { std::slice::from_raw_parts(start as *const u8, geometry().map_len()) }.to_vec()
}

/// The thread's area: on [`CPU`], armed with nothing.
fn area() -> &'static Area {
    // SAFETY: it is in the arena's first page, behind what the runner uses, and made of integers.
    unsafe {
        (AREA as *mut u64).write(u64::from(CPU) << 32 | u64::from(CPU));
        (AREA as *mut u64).add(1).write(0);
        &*(AREA as *const Area)
    }
}

fn expected(ring: &Ring<'_>) -> Expected {
    let tail = ring.tail().expect("formatted");
    Expected { cpu: CPU, tail, w: Commit::unpack(ring.desc(tail.page()).w.load(Relaxed)) }
}

/// An append behind what is there. The parts may be anything made of words.
fn append_of<'a>(ring: &Ring<'_>, head: &'a [u32], body: &'a [u8], foot: u32, stamp: u64) -> Append<'a> {
    let expected = expected(ring);
    let w = expected.w;
    let len = (size_of_val(head) + body.len() + 4) as u32;
    let (at, commit) = match w.is_blank() {
        true => (0, Commit::first(len - HEADER_LEN)),
        false => (HEADER_LEN + w.offset(), w.and(len)),
    };
    Append { expected, at, parts: Parts { head, body, foot }, stamp, commit }
}

const HEAD: [u32; 5] = [0x1111_1111, 0x2222_2222, 0, 0, 0x4444_4444];
const BODY: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// A ring and its twin with one event each.
fn begun() -> (Ring<'static>, Ring<'static>) {
    let rings = (ring(RING), ring(TWIN));
    for ring in [&rings.0, &rings.1] {
        let append = append_of(ring, &HEAD, &[], 0x5555_5555, 1000);
        assert_eq!(Exclusive.append(ring, &append), Outcome::Committed);
    }
    rings
}

#[track_caller]
fn assert_twins() {
    let (ring, twin) = (bytes(RING), bytes(TWIN));
    let differs = ring.iter().zip(&twin).position(|(a, b)| a != b);
    assert_eq!(differs, None, "the first byte that differs");
}

/// One section as its test calls it: on the ring given, expecting what is given.
type Section = fn(Scribble<'_>, &Ring<'_>) -> Outcome;

/// Changes the ring, or what is expected of it.
type Scribble<'a> = &'a dyn Fn(&Ring<'_>, &Expected) -> Expected;

fn append_section(scribble: Scribble<'_>, ring: &Ring<'_>) -> Outcome {
    let (head, body) = ([7, 8], BODY);
    let mut append = append_of(ring, &head, &body, 9, 2000);
    append.expected = scribble(ring, &append.expected);
    Rseq(area()).append(ring, &append)
}

fn turn_of(ring: &Ring<'_>) -> Turn {
    let expected = expected(ring);
    let page = SubbufId(2);
    Turn { expected, page, first: 77, stamp: 1000, commit: Place::new(page, expected.tail.seq() + 1) }
}

fn turn_section(scribble: Scribble<'_>, ring: &Ring<'_>) -> Outcome {
    let mut turn = turn_of(ring);
    turn.expected = scribble(ring, &turn.expected);
    Rseq(area()).turn(ring, &turn)
}

const SECTIONS: [Section; 2] = [append_section, turn_section];

fn as_it_is(_: &Ring<'_>, expected: &Expected) -> Expected {
    *expected
}

#[test]
fn append_stores_what_the_lock_holder_stores() {
    on_arena(|| {
        let (ring, twin) = (ring(RING), ring(TWIN));
        let bodies: [&[u8]; 4] = [&[], &BODY[..4], &BODY, &[]];
        let heads: [&[u32]; 4] = [&HEAD, &[1], &[1, 2, 3], &[4]];
        for (round, (body, head)) in bodies.into_iter().zip(heads).enumerate() {
            // What the section reads must be where the emulated processor can read it, too.
            let (mut near_body, mut near_head) = ([0; 12], [0; 5]);
            near_body[..body.len()].copy_from_slice(body);
            near_head[..head.len()].copy_from_slice(head);
            let (body, head) = (&near_body[..body.len()], &near_head[..head.len()]);
            let stamp = 1000 + round as u64;
            let foot = 0xf007_0000 + round as u32;
            let append = append_of(&twin, head, body, foot, stamp);
            assert_eq!(Exclusive.append(&twin, &append), Outcome::Committed);
            let append = append_of(&ring, head, body, foot, stamp);
            assert_eq!(Rseq(area()).append(&ring, &append), Outcome::Committed);
            assert_twins();
        }
    });
}

#[test]
fn turn_stores_what_the_lock_holder_stores() {
    on_arena(|| {
        let (ring, twin) = begun();
        for ring in [&ring, &twin] {
            // What an earlier use of the page left.
            ring.data().header(SubbufId(2)).commit.store(5, Relaxed);
        }
        assert_eq!(Exclusive.turn(&twin, &turn_of(&twin)), Outcome::Committed);
        assert_eq!(turn_section(&as_it_is, &ring), Outcome::Committed);
        assert_twins();
        assert_eq!(ring.tail().expect("sane").page(), SubbufId(2));
    });
}

#[test]
fn what_is_not_as_expected_changes_nothing() {
    on_arena(|| {
        let scribbles: [Scribble<'_>; 5] = [
            &|_, was| Expected { cpu: CPU + 1, ..*was },
            &|ring, was| {
                ring.meta().writer.lock.store(1 << 40, Relaxed);
                *was
            },
            &|_, was| Expected { tail: Place::new(was.tail.page(), was.tail.seq() + 1), ..*was },
            &|_, was| Expected { w: was.w.closed(), ..*was },
            &|_, was| Expected { w: Commit::unpack(was.w.pack() ^ 1 << 63), ..*was },
        ];
        for section in SECTIONS {
            for scribble in scribbles {
                let (ring, twin) = begun();
                let lock = |ring: &Ring<'_>| {
                    let _ = scribble(ring, &expected(ring));
                };
                lock(&twin);
                assert_eq!(section(scribble, &ring), Outcome::Changed);
                assert_twins();
            }
        }
    });
}

#[test]
fn cut_off_anywhere_nothing_is_committed() {
    on_arena(|| {
        for section in SECTIONS {
            let (ring, _) = begun();
            let before = expected(&ring);
            let mut aborts = 0;
            for cut in 0.. {
                CUT.set(Some(cut));
                let outcome = section(&as_it_is, &ring);
                if CUT.get().is_none() {
                    assert_eq!(outcome, Outcome::Committed, "it was not cut off");
                    break;
                }
                aborts += 1;
                assert_eq!(outcome, Outcome::Aborted, "cut at {cut}");
                let after = expected(&ring);
                // A turn that was cut off may leave the page closed.
                let closed = [before.w, after.w].map(Commit::closed);
                assert_eq!((after.tail, closed[1]), (before.tail, closed[0]), "cut at {cut}");
                if after.w.is_closed() {
                    // The test expects an open one: what the next writer would expect does not matter here.
                    ring.desc(before.tail.page()).w.store(before.w.pack(), Relaxed);
                }
            }
            assert!(aborts >= 19, "only {aborts} instructions");
            let ring_then = bytes(RING);
            let (ring, _) = begun();
            assert_eq!(section(&as_it_is, &ring), Outcome::Committed);
            assert_eq!(bytes(RING), ring_then, "as if it had not been cut off");
        }
    });
}

/// A writer, a spot that is about it, and how the hot path finds them.
struct Hot {
    writer: Writer,
    spot: Spot,
}

impl Hot {
    fn new(ring: &Ring<'_>) -> Self {
        let (_, mapping) = crate::map::create(geometry(), 0).expect("a buffer");
        let writer = Writer::new(vec![mapping.into()], None, None);
        // SAFETY: the assembly finds it in the same way.
        let number = unsafe { (&raw const writer).byte_add(Writer::NUMBER_OFFSET).cast::<u64>().read() };
        let page = ring.tail().expect("sane").page();
        assert!(spot::remember(area(), number as u32, ring, CPU, page));
        // SAFETY: the thread's own; the copy is on its stack, which the emulated processor sees.
        let spot = unsafe { spot::of_thread().read() };
        // SAFETY: as above. The next one asks for a new spot.
        unsafe { (*spot::of_thread()).key = 0 };
        Self { writer, spot }
    }

    fn append<const N: usize>(&self, payload: &[u8; N]) -> Plain {
        let _ = area();
        // SAFETY: 1. Nobody else has it. 2. They are the payload's.
        unsafe {
            append_plain::<N>(&raw const self.spot, &self.writer, filled_up_to(N, in_registers(payload)))
        }
    }

    fn append_since<const N: usize>(&self, payload: &[u8; N], since: u64) -> Plain {
        let _ = area();
        let words = filled_up_to(N - 4, in_registers_but_last(payload));
        // SAFETY: as above.
        unsafe { append_since::<N>(&raw const self.spot, &self.writer, words, since) }
    }
}

/// Something in the words that a payload of `len` bytes does not fill, too: whoever emulates hands all on.
fn filled_up_to(len: usize, words: [MaybeUninit<u64>; 3]) -> [MaybeUninit<u64>; 3] {
    let used = if len > IN_REGISTERS { 1 } else { len.div_ceil(8) };
    std::array::from_fn(|at| if at < used { words[at] } else { MaybeUninit::new(0xdead_beef) })
}

/// Nanoseconds of the clock that qemu's counter is made of: in user mode, the time of day.
fn qemu_ns() -> u64 {
    let time = std::time::UNIX_EPOCH.elapsed().expect("it is later than 1970");
    u64::try_from(time.as_nanos()).expect("and earlier than 2554")
}

/// Now, on the emulated counter: it ticks once in 16 ns.
fn qemu_ticks() -> u64 {
    qemu_ns() / 16
}

/// Makes the ring's last event one that was just now, and writes another. A busy machine may take longer than a
/// delta can be to get there.
fn append_now(ring: &Ring<'_>, append: impl Fn() -> Plain) -> (Plain, u64) {
    let Expected { tail, w, .. } = expected(ring);
    for _ in 0..6 {
        let last = qemu_ticks();
        ring.desc(tail.page()).stamp[w.parity()].store(last, Relaxed);
        let outcome = append();
        if outcome != Plain::Not {
            return (outcome, last);
        }
    }
    panic!("each time the delta was too large");
}

fn plain_stores_what_the_lock_holder_stores<const N: usize>() {
    let (ring, twin) = begun();
    let mut hot = Hot::new(&ring);
    let payload: [u8; N] = std::array::from_fn(|at| at as u8 + 1);
    // Of both parities.
    for wake_any in [0, 1] {
        ring.meta().switches.wake_any.store(wake_any, Relaxed);
        twin.meta().switches.wake_any.store(wake_any, Relaxed);
        let before = expected(&ring);
        // Not a byte too many.
        hot.spot.capacity = u64::from(before.w.offset()) + 4 + N as u64;
        let (outcome, last) = append_now(&ring, || hot.append(&payload));
        let wanted = if wake_any == 0 { Plain::Committed } else { Plain::CommittedForSleepers };
        assert_eq!(outcome, wanted);
        let after = expected(&ring).w;
        let now = ring.desc(before.tail.page()).stamp[after.parity()].load(Relaxed);
        assert!((last..last + DELTA_LIMIT).contains(&now), "{now} is behind {last}");
        let header = [(N / 4) as u32 | ((now - last) << 5) as u32];
        let (body, foot) = payload.split_at(N - 4);
        let foot = u32::from_le_bytes(foot.try_into().expect("a word"));
        twin.desc(before.tail.page()).stamp[before.w.parity()].store(last, Relaxed);
        let append = append_of(&twin, &header, body, foot, now);
        assert_eq!(Exclusive.append(&twin, &append), Outcome::Committed);
        assert_twins();
    }
}

#[test]
fn the_hot_path_stores_what_the_lock_holder_stores() {
    on_arena(|| {
        plain_stores_what_the_lock_holder_stores::<4>();
        plain_stores_what_the_lock_holder_stores::<12>();
        plain_stores_what_the_lock_holder_stores::<16>();
        plain_stores_what_the_lock_holder_stores::<20>();
        plain_stores_what_the_lock_holder_stores::<IN_REGISTERS>();
        plain_stores_what_the_lock_holder_stores::<28>();
        plain_stores_what_the_lock_holder_stores::<32>();
        plain_stores_what_the_lock_holder_stores::<112>();
    });
}

fn since_stores_the_time_since<const N: usize>() {
    let (ring, twin) = begun();
    let mut hot = Hot::new(&ring);
    let payload: [u8; N] = std::array::from_fn(|at| at as u8 + 1);
    let now = qemu_ticks();
    for (since, mult) in
        [(now - 1_000_000, 1 << 36), (now - 7, 3 << 30), (now + (1 << 40), 1 << 36), (0, 1 << 36)]
    {
        let before = expected(&ring);
        hot.spot.capacity = u64::from(before.w.offset()) + 4 + N as u64;
        hot.spot.mult = mult;
        let (outcome, last) = append_now(&ring, || hot.append_since(&payload, since));
        assert_eq!(outcome, Plain::Committed);
        let after = expected(&ring).w;
        let now = ring.desc(before.tail.page()).stamp[after.parity()].load(Relaxed);
        let header = [(N / 4) as u32 | ((now - last) << 5) as u32];
        let ns = (u128::from(now.saturating_sub(since)) * u128::from(mult)) >> 32;
        twin.desc(before.tail.page()).stamp[before.w.parity()].store(last, Relaxed);
        let foot = u32::try_from(ns).unwrap_or(u32::MAX);
        let append = append_of(&twin, &header, &payload[..N - 4], foot, now);
        assert_eq!(Exclusive.append(&twin, &append), Outcome::Committed);
        assert_twins();
    }
}

#[test]
fn the_hot_path_counts_what_passed() {
    on_arena(|| {
        since_stores_the_time_since::<12>();
        since_stores_the_time_since::<20>();
        since_stores_the_time_since::<28>();
        since_stores_the_time_since::<32>();
    });
}

#[test]
fn the_hot_path_that_may_not_write_changes_nothing() {
    on_arena(|| {
        let refusals: [fn(&Ring<'_>, &mut Hot); 5] = [
            // Another CPU, or writer.
            |_, hot| hot.spot.key ^= 1 << 32,
            |_, hot| hot.spot.key ^= 1,
            |ring, _| {
                ring.desc(SubbufId(1)).w.fetch_or(Commit::CLOSED_BIT, Relaxed);
            },
            // A byte too few.
            |ring, hot| hot.spot.capacity = u64::from(expected(ring).w.offset()) + 4 + 16 - 1,
            // The last event is yet to come.
            |ring, _| ring.desc(SubbufId(1)).stamp[1].store(1 << 62, Relaxed),
        ];
        for refuse in refusals {
            let (ring, _) = begun();
            let mut hot = Hot::new(&ring);
            ring.desc(SubbufId(1)).stamp[1].store(qemu_ticks(), Relaxed);
            refuse(&ring, &mut hot);
            let before = bytes(RING);
            assert_eq!(hot.append(&[1; 16]), Plain::Not);
            assert!(bytes(RING) == before);
        }
    });
}

fn plain_cut_off_anywhere_commits_nothing<const N: usize>() {
    let payload = [7; N];
    let mut aborts = 0;
    for cut in 0.. {
        let (ring, _) = begun();
        let hot = Hot::new(&ring);
        let before = expected(&ring);
        CUT.set(Some(cut));
        ring.desc(before.tail.page()).stamp[before.w.parity()].store(qemu_ticks(), Relaxed);
        let outcome = hot.append(&payload);
        let after = expected(&ring);
        let is_behind = CUT.take().is_none();
        if outcome == Plain::Not {
            assert_eq!((after.tail, after.w), (before.tail, before.w), "cut at {cut}");
            aborts += 1;
            // It is tried again behind what the first try left.
            assert_eq!(append_now(&ring, || hot.append(&payload)).0, Plain::Committed);
        }
        // Else the cut was in lines that are not assembled for this length, or behind the last.
        assert_eq!(expected(&ring).w, before.w.and(4 + N as u32));
        if is_behind {
            break;
        }
    }
    assert!(aborts >= 30, "only {aborts} instructions");
}

#[test]
fn the_hot_path_cut_off_anywhere_commits_nothing() {
    on_arena(|| {
        plain_cut_off_anywhere_commits_nothing::<20>();
        plain_cut_off_anywhere_commits_nothing::<28>();
    });
}
