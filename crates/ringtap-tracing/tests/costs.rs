//! What tracing must not cost: an allocation, once each callsite was met.

use ringtap::{Config, Host};
use ringtap_tracing::Builder;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use tracing::field::Empty;
use tracing::{Dispatch, dispatcher, info, info_span};
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
            assert_eq!(written(host) - before, 10_000 * 12, "{kind}");
        });
    }
}
