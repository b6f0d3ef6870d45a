//! What tracing must not cost: an allocation, once each callsite was met.

use ringtap::{Config, Host};
use ringtap_tracing::Builder;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;
use tracing::field::Empty;
use tracing::{Dispatch, dispatcher, info, info_span, trace};
use tracing_subscriber::layer::SubscriberExt;

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

fn builder() -> Builder {
    Builder::new().embedded().unserved().config(Config { ring_subbufs: 8, ..Config::default() })
}

/// All that a program does.
fn work(n: u64) {
    info!(a = n, b = -3i64, c = true, d = 0.5, "text {}", n);
    info!(text = "a text", shown = %n, debug = ?[n, n], maybe = n.is_multiple_of(2).then_some(n));
    let span = info_span!("work", n, later = Empty);
    let second = span.clone();
    span.in_scope(|| {
        span.record("later", n);
        info_span!("inner").in_scope(|| log::info!("a record {n}"));
    });
    second.follows_from(&span);
    drop(span);
}

fn written(host: &Host) -> u64 {
    host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is undamaged").written()).sum()
}

#[test]
fn nothing_is_allocated_once_warm() {
    // The only logger of this process; the records go to whatever dispatcher is the thread's.
    tracing_log::LogTracer::init().expect("it is the only one");
    let (subscriber, ours) = builder().subscriber().expect("memory");
    let (layer, on_registry) = builder().layer().expect("memory");
    let registry = tracing_subscriber::registry().with(layer);
    for (kind, dispatch, session) in
        [("subscriber", Dispatch::new(subscriber), ours), ("layer", Dispatch::new(registry), on_registry)]
    {
        let host = session.host().expect("it is embedded");
        dispatcher::with_default(&dispatch, || {
            // The registry makes more room for spans, twice as much each time, for as long as its generations last.
            (0..10_000).for_each(work);
            let (before, allocated) = (written(host), ALLOCATIONS.get());
            (0..10_000).for_each(work);
            let allocated = ALLOCATIONS.get() - allocated;
            assert_eq!(allocated, 0, "{kind}");
            assert_eq!(written(host) - before, 10_000 * 13, "{kind}");
        });
    }
}

/// The shortest of several runs, in nanoseconds a round: what a loaded machine shows least of its other work in.
fn shortest_ns(mut round: impl FnMut(u64)) -> f64 {
    const ROUNDS: u32 = 200_000;
    let run = || {
        let start = Instant::now();
        (0..u64::from(ROUNDS)).for_each(&mut round);
        start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
    };
    std::iter::repeat_with(run).take(10).fold(f64::INFINITY, f64::min)
}

#[test]
fn what_tracing_costs_is_printed() {
    let (subscriber, _ours) = builder().max_level(tracing::Level::INFO).subscriber().expect("memory");
    let (layer, _on_registry) = builder().max_level(tracing::Level::INFO).layer().expect("memory");
    let registry = tracing_subscriber::registry().with(layer);
    for (kind, dispatch) in [("subscriber", Dispatch::new(subscriber)), ("layer", Dispatch::new(registry))] {
        dispatcher::with_default(&dispatch, || {
            let event = shortest_ns(|n| info!(a = black_box(n), b = 2u64, c = 3u64));
            let text = shortest_ns(|n| info!(a = black_box(n), "some text"));
            let span = shortest_ns(|n| drop(info_span!("span", n = black_box(n)).entered()));
            let off = shortest_ns(|n| trace!(a = black_box(n)));
            println!(
                "{kind}: event {event:.1} ns, with text {text:.1} ns, span {span:.1} ns, off {off:.2} ns"
            );
        });
    }
    let id = ringtap::clock::cheapest();
    let clock = shortest_ns(|_| {
        black_box(ringtap::clock::read(id));
    });
    println!("a bare look at the clock: {clock:.1} ns");
}
