//! Cursors on real buffers of this process's host.

mod cpus;

use cpus::pin_here;
use ringtap::{Config, Cursor, Host, Item, Mode, Start, Waited, Writer};
use std::time::{Duration, Instant};

fn host(ring_subbufs: u32) -> Host {
    Host::new(&Config { ring_subbufs, mode: Mode::Overwrite, ..Config::default() }).unwrap()
}

fn write(writer: &Writer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        writer.write(&number.to_le_bytes()).unwrap();
    }
}

/// Follows to the end. Losses stand exactly where numbers are missing.
fn drain(cursor: &mut Cursor, expected: &mut u64) -> (u64, u64) {
    let (mut read, mut lost, mut last) = (0, 0, 0);
    while let Some(item) = cursor.next().unwrap() {
        match item {
            Item::Record(record) => {
                assert_eq!(record.payload.u64_at(0), Some(*expected));
                assert!(record.ticks >= last, "time goes backwards");
                last = record.ticks;
                *expected += 1;
                read += 1;
            }
            Item::Lost(missing) => {
                *expected += missing.count.unwrap();
                lost += missing.count.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    (read, lost)
}

#[test]
fn cursors_read_the_same_and_consume_nothing() {
    let cpu = pin_here();
    let host = host(8);
    let writer = host.writer();
    write(&writer, 0..1000);
    let mut cursors: Vec<_> = (0..64).map(|_| host.cursor(cpu, Start::Oldest).unwrap()).collect();
    for cursor in &mut cursors {
        assert_eq!(drain(cursor, &mut 0), (1000, 0));
    }
    write(&writer, 1000..1001);
    for cursor in &mut cursors {
        assert_eq!(drain(cursor, &mut 1000), (1, 0));
    }
    let stats = host.stats(cpu).unwrap();
    assert_eq!((stats.read_events, stats.entries), (0, 1001));
    let mut reader = host.reader(cpu).unwrap();
    for number in 0..1001 {
        let Some(Item::Record(record)) = reader.next().unwrap() else { panic!("consumed by a cursor") };
        assert_eq!(record.payload.u64_at(0), Some(number));
    }
}

#[test]
fn losses_stand_where_they_happened() {
    let cpu = pin_here();
    for ring_subbufs in [2, 3, 16] {
        let host = host(ring_subbufs);
        let (writer, mut cursor) = (host.writer(), host.cursor(cpu, Start::Oldest).unwrap());
        let (mut expected, mut written, mut read, mut lost) = (0, 0, 0, 0);
        for burst in [1, 10, 203, 204, 205, 1000, 1, 12_345, 0, 5000] {
            write(&writer, written..written + burst);
            written += burst;
            let (more, missing) = drain(&mut cursor, &mut expected);
            assert_eq!(expected, written, "ring of {ring_subbufs}, {burst} at once");
            (read, lost) = (read + more, lost + missing);
        }
        assert!(read + lost == written && lost > 0);
    }
}

#[test]
fn newest_begins_with_what_is_written_next() {
    let cpu = pin_here();
    let host = host(4);
    let writer = host.writer();
    for written in [0, 1, 5, 250, 10_000] {
        write(&writer, 0..written);
        let mut cursor = host.cursor(cpu, Start::Newest).unwrap();
        assert!(cursor.next().unwrap().is_none());
        write(&writer, 7..77);
        assert_eq!(drain(&mut cursor, &mut 7), (70, 0));
    }
}

#[test]
fn a_consuming_reader_takes_nothing_away() {
    let cpu = pin_here();
    let host = host(8);
    let (writer, mut reader) = (host.writer(), host.reader(cpu).unwrap());
    let mut close = host.cursor(cpu, Start::Oldest).unwrap();
    let mut behind = host.cursor(cpu, Start::Oldest).unwrap();
    let (mut expected, mut expected_behind) = (0, 0);
    for round in 0..50 {
        // Three sub-buffers: the cursor finds one of them with the reader, and two given back to the ring.
        write(&writer, round * 600..round * 600 + 600);
        while reader.next().unwrap().is_some() {}
        assert_eq!(drain(&mut close, &mut expected), (600, 0), "round {round}");
        if round % 2 == 1 {
            assert_eq!(drain(&mut behind, &mut expected_behind), (1200, 0), "round {round}");
        }
    }
}

#[test]
fn a_page_turned_while_blank_is_not_read_twice() {
    let cpu = pin_here();
    for resets in 1..6 {
        let host = host(2);
        let (writer, mut cursor) = (host.writer(), host.cursor(cpu, Start::Oldest).unwrap());
        assert!(cursor.next().unwrap().is_none());
        for _ in 0..resets {
            host.reset().unwrap();
        }
        write(&writer, 0..1);
        assert_eq!(drain(&mut cursor, &mut 0), (1, 0), "after {resets} resets");
        write(&writer, 1..700);
        let (read, lost) = drain(&mut cursor, &mut 1);
        assert_eq!(read + lost, 699);
    }
}

#[test]
fn cursors_follow_live_and_never_see_a_torn_event() {
    let host = host(4);
    let mut followers: Vec<_> = (0..3).map(|_| host.cursors(Start::Oldest).unwrap()).collect();
    let written: u64 = std::thread::scope(|scope| {
        let until = Instant::now() + Duration::from_millis(600);
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let writer = host.writer();
                scope.spawn(move || {
                    let mut number = 0u64;
                    while Instant::now() < until {
                        for _ in 0..64 {
                            number += 1;
                            let mut payload = [0; 40];
                            for (at, word) in (0..).zip(payload.chunks_mut(8)) {
                                word.copy_from_slice(&number.rotate_left(at * 8).to_le_bytes());
                            }
                            // Writers that share a lock may find it taken for too long.
                            while writer.write(&payload) == Err(ringtap::Refused::Busy) {}
                        }
                    }
                    number
                })
            })
            .collect();
        let followers: Vec<_> = followers
            .iter_mut()
            .map(|cursors| {
                scope.spawn(move || {
                    let mut seen = vec![0; cursors.len()];
                    let mut done = false;
                    while !done {
                        done = Instant::now() > until + Duration::from_millis(200);
                        for (cursor, seen) in cursors.iter_mut().zip(&mut seen) {
                            while let Some(item) = cursor.next().unwrap() {
                                match item {
                                    Item::Record(record) => {
                                        let number = record.payload.u64_at(0).unwrap();
                                        for at in 1..5u32 {
                                            let word = record.payload.u64_at(at as usize * 8);
                                            assert_eq!(word, Some(number.rotate_left(at * 8)), "torn");
                                        }
                                        *seen += 1;
                                    }
                                    Item::Lost(missing) => *seen += missing.count.unwrap(),
                                    other => panic!("{other:?}"),
                                }
                            }
                        }
                    }
                    seen.iter().sum::<u64>()
                })
            })
            .collect();
        let written = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        for follower in followers {
            assert_eq!(follower.join().unwrap(), written, "read + lost == written");
        }
        written
    });
    assert!(written > 1000);
}

#[test]
fn a_wait_ends_for_its_reason() {
    let cpu = pin_here();
    let host = host(4);
    let (writer, mut cursor) = (host.writer(), host.cursor(cpu, Start::Newest).unwrap());
    assert_eq!(cursor.wait(Some(Duration::from_millis(10))).unwrap(), Waited::TimedOut);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            write(&writer, 0..1);
        });
        assert_eq!(cursor.wait(None).unwrap(), Waited::Ready);
    });
    assert_eq!(drain(&mut cursor, &mut 0), (1, 0));
}
