//! Snapshots: copies of a moment, taken while writers and readers go on, with every event accounted for.

mod cpus;

use cpus::{allowed, pin};
use ringtap::{Config, Host, Item, Mode, Refused, Start, WriterKind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What came out of a stream whose events carry their own index: records and losses, checked against each other.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    records: u64,
    lost: u64,
}

impl Seen {
    /// Takes an item; `next` is the index that comes next.
    fn take(&mut self, item: Item<'_>, next: &mut u64) {
        match item {
            Item::Record(record) => {
                assert_eq!(record.payload.u64_at(0), Some(*next), "the event's own index");
                *next += 1;
                self.records += 1;
            }
            Item::Lost(lost) => {
                let count = lost.count.expect("ringtap knows how many");
                *next += count;
                self.lost += count;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Reads a CPU's buffer empty; its next event has this index.
fn read(host: &Host, cpu: u32, mut next: u64) -> Seen {
    let mut seen = Seen::default();
    let mut reader = host.reader(cpu).expect("nobody else reads");
    while let Some(item) = reader.next().expect("the ring is sound") {
        seen.take(item, &mut next);
    }
    seen
}

fn payload(index: u64) -> [u8; 24] {
    let mut payload = [0; 24];
    payload[..8].copy_from_slice(&index.to_le_bytes());
    payload
}

#[test]
fn a_snapshot_is_of_its_moment_and_stays() {
    for writer in [None, Some(WriterKind::Locked)] {
        for (mode, events) in
            [(Mode::Overwrite, 10_000), (Mode::Overwrite, 10), (Mode::Discard, 10_000), (Mode::Discard, 0)]
        {
            let config = Config { ring_subbufs: 4, mode, writer, ..Config::default() };
            let host = Host::new(&config).expect("memory");
            let cpu = allowed(&host)[0];
            pin(cpu);
            let writer = host.writer();
            let write = |events| {
                (0..events).take_while(|&index| writer.write(&payload(index)).is_ok()).count() as u64
            };
            let written = write(events);
            // Half a page of what there is was read.
            let mut consumed = Seen::default();
            let mut next = 0;
            let mut reader = host.reader(cpu).expect("nobody else reads");
            for _ in 0..70 {
                if let Some(item) = reader.next().expect("sound") {
                    consumed.take(item, &mut next);
                }
            }
            let before = host.stats(cpu).expect("it counts");
            host.take_snapshot(None).expect("memory");
            let snapshot = host.snapshot().expect("it was taken");
            for _ in 0..1000 {
                let _ = writer.write(&payload(u64::MAX));
            }

            let stats = snapshot.stats(cpu).expect("it counts");
            assert_eq!(
                (stats.written(), stats.entries, stats.overrun),
                (written, before.entries, before.overrun)
            );
            assert_eq!(
                (stats.read_events, stats.dropped_events),
                (before.read_events, before.dropped_events)
            );
            assert_eq!(stats.bytes, before.bytes);
            assert!(!snapshot.is_recording());
            assert_eq!(snapshot.writer().write(b"no"), Err(Refused::Off));
            // What was handed out belongs to the live reader.
            let first = stats.read_events + before.overrun.min(consumed.lost);
            let seen = read(&snapshot, cpu, first);
            assert_eq!(seen.records, before.entries, "{mode:?} {events}");
            assert_eq!(seen.lost + consumed.lost, before.overrun);
            let stats = snapshot.stats(cpu).expect("it counts");
            assert_eq!((stats.entries, stats.read_events + stats.overrun), (0, written));
        }
    }
}

#[test]
fn cursors_follow_a_snapshot_to_its_end() {
    let host = Host::new(&Config { ring_subbufs: 8, ..Config::default() }).expect("memory");
    let cpu = allowed(&host)[0];
    pin(cpu);
    let writer = host.writer();
    for index in 0..700 {
        writer.write(&payload(index)).expect("recording is on");
    }
    host.take_snapshot(Some(cpu)).expect("memory");
    let snapshot = host.snapshot().expect("it was taken");
    let mut cursor = snapshot.cursor(cpu, Start::Oldest).expect("it can be mapped");
    let (mut seen, mut next) = (Seen::default(), 0);
    while let Some(item) = cursor.next().expect("sound") {
        seen.take(item, &mut next);
    }
    assert_eq!(seen, Seen { records: 700, lost: 0 });
    let mut newest = snapshot.cursor(cpu, Start::Newest).expect("it can be mapped");
    assert!(newest.next().expect("sound").is_none());
}

#[test]
fn a_snapshot_of_one_cpu_keeps_the_others_and_can_be_cleared_and_freed() {
    let host = Host::new(&Config { ring_subbufs: 4, ..Config::default() }).expect("memory");
    let cpus = allowed(&host);
    let [first, .., last] = cpus[..] else { return println!("skipped: this machine has one CPU") };
    let writer = host.writer();
    let write = |cpu, events: u64| {
        pin(cpu);
        (0..events).for_each(|index| writer.write(&payload(index)).expect("recording is on"));
    };
    let entries = |cpu| host.snapshot().expect("taken").stats(cpu).expect("it counts").entries;
    assert!(host.snapshot().is_none());
    host.clear_snapshot().expect("there is nothing to clear");
    assert!(host.snapshot().is_none());

    write(first, 3);
    write(last, 5);
    host.take_snapshot(Some(first)).expect("memory");
    assert_eq!((entries(first), entries(last)), (3, 0));
    write(first, 1);
    host.take_snapshot(Some(last)).expect("memory");
    assert_eq!((entries(first), entries(last)), (3, 5));
    let kept = host.snapshot().expect("taken");
    host.take_snapshot(None).expect("memory");
    assert_eq!((entries(first), entries(last)), (4, 5));
    assert_eq!(kept.stats(first).expect("it counts").entries, 3, "whoever has an older one keeps it");
    host.clear_snapshot().expect("memory");
    assert_eq!((entries(first), entries(last)), (0, 0));
    host.free_snapshot();
    assert!(host.snapshot().is_none());
    let missing = host.take_snapshot(Some(100_000)).expect_err("no machine has it");
    assert!(missing.to_string().contains("100000"), "{missing}");
}

/// Sets the flag when dropped: a failed test ends its threads too.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Writers write, a reader consumes, and snapshots of it all are exact.
#[test]
fn snapshots_under_load_lose_nothing_uncounted() {
    for (ring_subbufs, mode, kind, consume) in [
        (2, Mode::Overwrite, None, true),
        (3, Mode::Discard, None, true),
        (64, Mode::Overwrite, None, false),
        (500, Mode::Overwrite, None, true),
        (500, Mode::Overwrite, Some(WriterKind::Locked), true),
        (4000, Mode::Overwrite, None, false),
    ] {
        let host =
            Host::new(&Config { ring_subbufs, mode, writer: kind, ..Config::default() }).expect("memory");
        let stop = AtomicBool::new(false);
        let snapshots = std::thread::scope(|scope| {
            for &cpu in &allowed(&host) {
                let (host, stop) = (&host, &stop);
                // One writer for each CPU: the events' numbers are their indices.
                scope.spawn(move || {
                    pin(cpu);
                    let writer = host.writer();
                    let mut index = 0;
                    while !stop.load(Relaxed) {
                        match writer.write_array(&payload(index)) {
                            Ok(()) => index += 1,
                            Err(Refused::Full | Refused::Busy) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
                if consume {
                    scope.spawn(move || {
                        let mut reader = host.reader(cpu).expect("nobody else reads");
                        let (mut seen, mut next) = (Seen::default(), 0);
                        while !stop.load(Relaxed) {
                            match reader.next().expect("the ring is sound") {
                                Some(item) => seen.take(item, &mut next),
                                None => std::thread::yield_now(),
                            }
                        }
                    });
                }
            }
            let _stop = Stop(&stop);
            let until = Instant::now() + Duration::from_millis(700);
            let mut snapshots = 0;
            while Instant::now() < until {
                host.take_snapshot(None).expect("memory");
                let snapshot = host.snapshot().expect("it was taken");
                for cpu in host.cpus() {
                    check(&snapshot, cpu);
                }
                snapshots += 1;
            }
            snapshots
        });
        println!("{ring_subbufs} sub-buffers, {mode:?}: {snapshots} snapshots");
        assert!(snapshots > 0);
    }
}

/// read + lost + left = written holds in a snapshot, and each event has the index it says.
fn check(snapshot: &Host, cpu: u32) {
    let before = snapshot.stats(cpu).expect("it counts");
    let mut reader = snapshot.reader(cpu).expect("nobody else reads");
    let mut seen = Seen::default();
    let mut next = None;
    while let Some(item) = reader.next().expect("the copy is sound") {
        // What came before the snapshot's first item is the live reader's business.
        let next = next.get_or_insert_with(|| match item {
            Item::Record(record) => record.payload.u64_at(0).expect("it has one"),
            _ => 0,
        });
        if seen == Seen::default() && matches!(item, Item::Lost(_)) {
            let Item::Lost(lost) = item else { unreachable!() };
            seen.lost += lost.count.expect("known");
            *next = u64::MAX;
            continue;
        }
        if *next == u64::MAX {
            let Item::Record(record) = item else { panic!("a loss stands before a record: {item:?}") };
            *next = record.payload.u64_at(0).expect("it has one");
        }
        seen.take(item, next);
    }
    drop(reader);
    let after = snapshot.stats(cpu).expect("it counts");
    assert_eq!(seen.records, before.entries, "CPU {cpu}: {before:?} {seen:?}");
    assert_eq!(after.read_events, before.read_events + seen.records);
    assert_eq!((after.entries, after.written()), (0, before.written()), "CPU {cpu}: {before:?} {after:?}");
    if let Some(next) = next.filter(|&next| next != u64::MAX) {
        // The moment's newest event is the last one, unless writers went round the ring before it was copied: that is
        // a loss with no record behind it, which the counters alone can tell, and did above.
        assert!(next <= before.written(), "CPU {cpu}: {next} {before:?}");
        assert!(next == before.written() || before.overrun > 0, "CPU {cpu}: {next} {before:?}");
    }
}

/// What is unread of a ring that was replaced is part of the snapshot, and so are the counters of those that are no more.
#[test]
fn a_snapshot_holds_what_is_unread_of_replaced_rings() {
    let host = Host::new(&Config { ring_subbufs: 16, ..Config::default() }).expect("memory");
    let cpu = allowed(&host)[0];
    pin(cpu);
    let writer = host.writer();
    let mut index = 0;
    let mut write = |events| {
        for _ in 0..events {
            writer.write_array(&payload(index)).expect("there is room");
            index += 1;
        }
    };
    write(300);
    host.set_size(Some(cpu), 32).expect("memory");
    write(200);
    // The first ring is given up: 300 events are overrun.
    host.set_size(Some(cpu), 8).expect("memory");
    write(100);
    let mut reader = host.reader(cpu).expect("nobody else reads");
    for _ in 0..50 {
        assert!(matches!(reader.next().expect("sound"), Some(Item::Record(_))));
    }
    host.take_snapshot(None).expect("memory");
    let (live, snapshot) = (host.stats(cpu).expect("it counts"), host.snapshot().expect("it was taken"));
    let copy = snapshot.stats(cpu).expect("it counts");
    assert_eq!(
        (copy.entries, copy.overrun, copy.read_events),
        (live.entries, live.overrun, live.read_events)
    );
    assert_eq!((live.written(), live.overrun), (600, 300));
    // Writers and readers go on, and the ring is replaced once more.
    write(500);
    host.set_subbuf_size(8192).expect("memory");
    let first = 300 + live.read_events;
    let mut cursor = snapshot.cursor(cpu, Start::Unread).expect("it maps");
    let (mut seen, mut next) = (Seen::default(), first);
    while let Some(item) = cursor.next().expect("sound") {
        seen.take(item, &mut next);
    }
    assert_eq!(seen, Seen { records: 600 - first, lost: 0 });
    assert_eq!(read(&snapshot, cpu, first), Seen { records: 600 - first, lost: 0 });
    // A snapshot of another CPU keeps this one's; this one's is of the present then.
    host.take_snapshot(Some(allowed(&host).last().copied().expect("one"))).expect("memory");
}
