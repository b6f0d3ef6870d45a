//! What events must not cost: an allocation, or anything but a load and a branch while they are off. Also: the
//! macros work outside the crate.

use ringtap::event::{Text, marker};
use ringtap::{Config, Host, WriterKind};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is the system allocator's; counting touches a thread-local cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

ringtap::symbols! {
    /// Where bytes come from.
    pub enum Source: u8 { Disk = 0, Cache = 1 }
}

ringtap::event! {
    /// Three numbers and a symbol.
    pub struct Small as costs:small { bytes: u64, took_ns: u32, fd: i32, source: Source }
}

ringtap::event! {
    /// Everything that is copied.
    pub struct Large<'e> as costs:large { path: &'e str, data: &'e [u8], comm: Text<16>, ratio: f64 }
}

fn small(bytes: u64) -> Small {
    Small { bytes, took_ns: 1200, fd: 3, source: Source::Cache }
}

#[test]
fn writing_allocates_nothing() {
    let host =
        Host::new(&Config { ring_subbufs: 4, ..Config::default() }).expect("memory for a small instance");
    let writer = host.writer();
    Small::register(&host).expect("nothing refuses it");
    Large::register(&host).expect("nothing refuses it");
    let long = "x".repeat(3000);
    let before = ALLOCATIONS.get();
    for bytes in 0..10_000 {
        small(bytes).try_write(&writer).expect("an overwriting ring takes it");
        let event = Large { path: &long, data: long.as_bytes(), comm: Text::new("worker"), ratio: 0.5 };
        event.try_write(&writer).expect("an overwriting ring takes it");
        marker::print(&writer, "text").expect("an overwriting ring takes it");
        marker::raw_data(&writer, 1, b"bytes").expect("an overwriting ring takes it");
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    let entries: u64 = host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is undamaged").entries).sum();
    assert!(entries > 0, "the events are in the ring");
}

/// Under both ways that writers exclude each other, over all of a ring's pages, and off.
#[test]
fn writing_payloads_allocates_nothing() {
    for kind in [WriterKind::Rseq, WriterKind::Locked] {
        let config = Config { ring_subbufs: 4, writer: Some(kind), ..Config::default() };
        let host = Host::new(&config).expect("memory for a small instance");
        let writer = host.writer();
        let before = ALLOCATIONS.get();
        for number in 0..10_000u32 {
            writer.write_array(&[5u8; 24]).expect("an overwriting ring takes it");
            writer.write(&[5u8; 21]).expect("an overwriting ring takes it");
            writer.write(&[5u8; 3000]).expect("an overwriting ring takes it");
            let mut reservation = writer.reserve::<64>(40).expect("it fits");
            reservation.bytes()[..4].copy_from_slice(&number.to_le_bytes());
            reservation.commit().expect("an overwriting ring takes it");
            drop(writer.reserve::<64>(40).expect("it fits"));
            assert!(writer.write(&[5u8; 5000]).is_err(), "too large for a page");
        }
        host.set_recording(false);
        assert!(writer.write_array(&[5u8; 24]).is_err(), "recording is off");
        assert_eq!(ALLOCATIONS.get() - before, 0, "{kind:?}");
        let written: u64 =
            host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is undamaged").written()).sum();
        assert_eq!(written, 40_000);
    }
}

ringtap::event! {
    /// Never registered.
    pub struct Off as costs:off { bytes: u64, took_ns: u32, fd: i32, source: Source }
}

/// The shortest of several runs, in nanoseconds a round: what a loaded machine shows least of its other work in.
fn shortest_ns(mut round: impl FnMut(u64)) -> f64 {
    const ROUNDS: u32 = 2_000_000;
    let run = || {
        let start = Instant::now();
        (0..u64::from(ROUNDS)).for_each(&mut round);
        start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
    };
    std::iter::repeat_with(run).take(20).fold(f64::INFINITY, f64::min)
}

#[test]
fn an_event_that_is_off_costs_a_nanosecond_at_most() {
    let host =
        Host::new(&Config { ring_subbufs: 4, ..Config::default() }).expect("memory for a small instance");
    let writer = host.writer();
    // Whoever sees the event might switch it on: the load cannot be left out.
    black_box(Off::declared());
    let empty = shortest_ns(|bytes| {
        black_box(bytes);
    });
    let off = shortest_ns(|bytes| {
        Off { bytes: black_box(bytes), took_ns: 1, fd: 2, source: Source::Disk }.write(&writer);
    });
    println!("an empty round {empty:.2} ns, with an event that is off {off:.2} ns");
    if cfg!(debug_assertions) {
        println!("skipped: the bound is for optimised builds, run with --release");
        return;
    }
    assert!(off - empty <= 1.0, "{:.2} ns", off - empty);
}

#[test]
fn what_an_event_costs_is_printed() {
    let host = Host::new(&Config::default()).expect("memory for an instance");
    let writer = host.writer();
    Small::register(&host).expect("nothing refuses it");
    Large::register(&host).expect("nothing refuses it");
    let payload = [5u8; 28];
    let bare = shortest_ns(|_| writer.write_array(black_box(&payload)).expect("it is overwritten"));
    let fixed = shortest_ns(|bytes| small(black_box(bytes)).write(&writer));
    let slice = shortest_ns(|_| writer.write(black_box(&[5u8; 60])).expect("it is overwritten"));
    let event = Large { path: "/etc/hosts", data: &[1, 2, 3], comm: Text::new("worker"), ratio: 0.5 };
    let dynamic = shortest_ns(|_| black_box(event).write(&writer));
    println!(
        "a bare payload {bare:.2} ns, four fields {fixed:.2} ns, a slice {slice:.2} ns, strings {dynamic:.2} ns"
    );
    // A few nanoseconds are the work; ten times the bare payload would be a mistake.
    assert!(fixed < 10.0 * bare + 100.0 && dynamic < 20.0 * bare + 500.0);
}
