//! Resizing while writers, readers and cursors go on: read + lost + left = written holds exactly across it.

mod cpus;

use cpus::{allowed, pin};
use ringtap::{Config, Cursor, Host, Item, Mode, Reader, Refused, Start, WriterKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A stream whose events carry their own index, checked as it comes.
#[derive(Debug, Default)]
struct Seen {
    next: u64,
    records: u64,
    lost: u64,
    last_ticks: u64,
}

impl Seen {
    fn take(&mut self, item: Item<'_>) {
        match item {
            Item::Record(record) => {
                assert_eq!(record.payload.u64_at(0), Some(self.next), "the event's own index: {self:?}");
                assert!(record.ticks >= self.last_ticks, "time goes backwards");
                self.last_ticks = record.ticks;
                self.next += 1;
                self.records += 1;
            }
            Item::Lost(lost) => {
                let count = lost.count.expect("ringtap knows how many");
                self.next += count;
                self.lost += count;
            }
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, reader: &mut Reader) -> bool {
        let item = reader.next().expect("the ring is sound");
        item.map(|item| self.take(item)).is_some()
    }

    fn follow(&mut self, cursor: &mut Cursor) -> bool {
        let item = cursor.next().expect("the ring is sound");
        item.map(|item| self.take(item)).is_some()
    }
}

fn payload(index: u64) -> [u8; 24] {
    let mut payload = [0; 24];
    payload[..8].copy_from_slice(&index.to_le_bytes());
    payload
}

#[test]
fn a_resize_keeps_events_counters_readers_and_cursors() {
    for writer in [None, Some(WriterKind::Locked)] {
        for mode in [Mode::Overwrite, Mode::Discard] {
            let host =
                Host::new(&Config { ring_subbufs: 8, mode, writer, ..Config::default() }).expect("memory");
            let cpu = allowed(&host)[0];
            pin(cpu);
            let writer = host.writer();
            let mut reader = host.reader(cpu).expect("nobody else reads");
            let mut cursor = host.cursor(cpu, Start::Oldest).expect("it maps");
            let (mut read, mut followed) = (Seen::default(), Seen::default());
            let mut index = 0;
            let mut write = |events: u64| {
                for _ in 0..events {
                    writer.write_array(&payload(index)).expect("there is room");
                    index += 1;
                }
                index
            };
            write(300);
            for _ in 0..100 {
                assert!(read.read(&mut reader) && followed.follow(&mut cursor));
            }
            host.set_size(Some(cpu), 20).expect("memory");
            let stats = host.stats(cpu).expect("it counts");
            assert_eq!((stats.written(), stats.overrun, stats.dropped_events), (300, 0, 0));
            write(1000);
            host.set_subbuf_size(16_384).expect("memory");
            // More than the first size took: the writers know the new one.
            assert!(writer.max_payload() > 16_000);
            let written = write(500);
            let mut late = host.cursor(cpu, Start::Oldest).expect("it maps");
            while followed.follow(&mut cursor) {}
            while read.read(&mut reader) {}
            assert_eq!((read.next, followed.next), (written, written), "{mode:?}");
            assert_eq!(read.records + read.lost, written);
            // What was not read before a second resize is given up; a cursor takes what it finds.
            assert!(read.lost > 0 && read.lost <= 200, "{read:?}");
            assert_eq!(followed.lost, 0, "{followed:?}");
            let stats = host.stats(cpu).expect("it counts");
            assert_eq!((stats.entries, stats.written()), (0, written));
            assert_eq!((stats.read_events, stats.overrun, stats.bytes), (read.records, read.lost, 0));
            let mut records = 0;
            while let Some(item) = late.next().expect("sound") {
                records += u64::from(matches!(item, Item::Record(_)));
            }
            assert!(records >= 500);

            host.set_strict(true);
            let refused = host.set_size(None, 30).expect_err("it is being read");
            assert!(refused.to_string().contains("being consumed"), "{refused}");
            drop(reader);
            host.set_size(None, 30).expect("nobody reads");
            let impossible = host.set_size(None, 1).expect_err("there is no such ring");
            assert!(impossible.to_string().contains("2 to 65535"), "{impossible}");
            host.reset().expect("it can be emptied");
            assert_eq!(host.stats(cpu).expect("it counts").written(), 0);
            writer.write(b"still").expect("there is room");
            assert_eq!(host.stats(cpu).expect("it counts").written(), 1);
        }
    }
}

#[test]
fn recording_is_switched_for_writers_of_every_age() {
    let host = Host::new(&Config { ring_subbufs: 8, ..Config::default() }).expect("memory");
    pin(allowed(&host)[0]);
    let old = host.writer();
    old.write(&payload(0)).expect("it is on");
    let clone = old.clone();
    host.set_recording(false);
    host.set_size(None, 16).expect("memory");
    assert!(old.is_off() && clone.is_off());
    assert_eq!(old.write_array(&payload(1)), Err(Refused::Off));
    host.set_recording(true);
    assert!(!old.is_off() && !host.writer().is_off());
    clone.write_array(&payload(1)).expect("it is on");
    host.set_recording(false);
    assert_eq!(clone.write(&payload(2)), Err(Refused::Off));
    assert_eq!(old.write_array(&payload(2)), Err(Refused::Off));
    let stats = host.stats(allowed(&host)[0]).expect("it counts");
    assert_eq!((stats.written(), stats.dropped_events), (2, 0));
}

struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// One writer for each CPU, a reader and a cursor for each, and resizes all the while.
#[test]
fn resizes_under_load_lose_nothing_uncounted() {
    for (mode, writer, consume) in [
        (Mode::Overwrite, None, true),
        (Mode::Overwrite, None, false),
        (Mode::Discard, None, true),
        (Mode::Overwrite, Some(WriterKind::Locked), true),
    ] {
        let host =
            Host::new(&Config { ring_subbufs: 64, mode, writer, ..Config::default() }).expect("memory");
        let (stop, writing) = (AtomicBool::new(false), AtomicU64::new(0));
        let cpus = allowed(&host);
        let began = Instant::now();
        let resizes = std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            for &cpu in &cpus {
                let (host, stop, writing) = (&host, &stop, &writing);
                writing.fetch_add(1, Relaxed);
                // Before the first event: it misses none.
                let mut cursor = host.cursor(cpu, Start::Oldest).expect("it maps");
                scope.spawn(move || {
                    pin(cpu);
                    let writer = host.writer();
                    let (mut index, mut full) = (0, 0);
                    // The last event comes behind the last resize: it tells cursors what they missed.
                    let mut is_last = false;
                    while !is_last {
                        let is_over = stop.load(Relaxed);
                        match writer.write_array(&payload(index)) {
                            Ok(()) => (index, is_last) = (index + 1, is_over),
                            Err(Refused::Full) => full += 1,
                            Err(Refused::Busy) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    writing.fetch_sub(1, Relaxed);
                    let stats = host.stats(cpu).expect("it counts");
                    assert_eq!((stats.written(), stats.dropped_events), (index, full), "CPU {cpu}");
                });
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    loop {
                        let is_over = writing.load(Relaxed) == 0;
                        while seen.follow(&mut cursor) {}
                        // A cursor may find nothing while the host is just taking the page that it looks for.
                        let is_behind = || seen.next < host.stats(cpu).expect("it counts").written();
                        if is_over && !(is_behind() && began.elapsed() < Duration::from_secs(30)) {
                            break;
                        }
                        std::thread::yield_now();
                    }
                    // Trailing losses are told with the next event, which does not come.
                    let written = host.stats(cpu).expect("it counts").written();
                    assert_eq!(seen.next, written, "CPU {cpu}: {seen:?}");
                });
                if consume {
                    let mut reader = host.reader(cpu).expect("nobody else reads");
                    scope.spawn(move || {
                        let mut seen = Seen::default();
                        loop {
                            let is_over = writing.load(Relaxed) == 0;
                            while seen.read(&mut reader) {}
                            if is_over {
                                break;
                            }
                            std::thread::yield_now();
                        }
                        let stats = host.stats(cpu).expect("it counts");
                        assert_eq!(
                            (seen.next, stats.entries),
                            (stats.written(), 0),
                            "CPU {cpu}: {seen:?} {stats:?}"
                        );
                        assert_eq!(
                            (seen.records, seen.lost),
                            (stats.read_events, stats.overrun),
                            "CPU {cpu}"
                        );
                    });
                }
            }
            let until = Instant::now() + Duration::from_millis(1500);
            let mut resizes = 0u32;
            while Instant::now() < until {
                let cpu = resizes.is_multiple_of(3).then(|| cpus[resizes as usize / 3 % cpus.len()]);
                match resizes % 5 {
                    4 => host.set_subbuf_size(4096 << (resizes / 5 % 3)),
                    _ => host.set_size(cpu, [2, 500, 3, 64][resizes as usize % 4]),
                }
                .expect("memory");
                if resizes.is_multiple_of(7) {
                    host.take_snapshot(None).expect("memory");
                }
                resizes += 1;
            }
            resizes
        });
        println!("{mode:?} {writer:?}: {resizes} resizes");
        assert!(resizes > 3);
    }
}

/// Processes that are never told of the new memory: what they write behind a resize is refused, and counted. Some are
/// killed while they write.
#[test]
fn processes_that_were_not_told_are_refused_and_counted() {
    let host = Host::new(&Config { ring_subbufs: 16, ..Config::default() }).expect("memory");
    let cpus = allowed(&host);
    // Written, refused as dropped: shared with the children.
    let shared = rustix::mm::MapFlags::SHARED;
    let protection = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: a new mapping.
    let counts = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, protection, shared) };
    // SAFETY: zeroed, aligned and never unmapped.
    let counts = unsafe { std::slice::from_raw_parts(counts.expect("memory").cast::<AtomicU64>(), 3) };
    let [written, dropped, refused] = counts else { unreachable!() };
    let writer = host.writer();
    let mut killed = 0;
    for round in 0u32..12 {
        let children: Vec<_> = (0..3)
            .map(|_| {
                // SAFETY: the child writes events and counts, and never comes back from here.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    loop {
                        match writer.write(&payload(0)) {
                            Ok(()) => written.fetch_add(1, Relaxed),
                            Err(Refused::Retired) => dropped.fetch_add(1, Relaxed),
                            Err(_) => refused.fetch_add(1, Relaxed),
                        };
                    }
                }
                child
            })
            .collect();
        let (before, gone) = (written.load(Relaxed), dropped.load(Relaxed));
        while written.load(Relaxed) < before + 1000 {
            std::thread::yield_now();
        }
        host.set_size(None, 8 + round % 3).expect("memory");
        while dropped.load(Relaxed) < gone + 1000 {
            std::thread::yield_now();
        }
        for child in children {
            // SAFETY: our own child, not yet waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            killed += 1;
        }
    }
    writer.write(&payload(0)).expect("this process knows");
    written.fetch_add(1, Relaxed);
    let stats = cpus.iter().map(|&cpu| host.stats(cpu).expect("it counts"));
    let (in_rings, counted) =
        stats.fold((0, 0), |(a, b), stats| (a + stats.written(), b + stats.dropped_events));
    let near = |ring: u64, own: u64| ring >= own && ring <= own + killed;
    assert!(near(in_rings, written.load(Relaxed)), "{in_rings} in the rings, {written:?} written");
    assert!(near(counted, dropped.load(Relaxed)), "{counted} counted, {dropped:?} dropped");
    println!("{in_rings} written, {counted} dropped, {refused:?} refused");
}
