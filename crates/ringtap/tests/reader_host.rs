//! The consuming reader on real buffers of this process's host.

mod cpus;

use cpus::pin_here;
use ringtap::clock::{self, ClockId};
use ringtap::{Config, Host, Item, Mode, Reader, Refused, Waited, Writer};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

fn host(ring_subbufs: u32, mode: Mode) -> Host {
    Host::new(&Config { ring_subbufs, mode, buffer_percent: 0, ..Config::default() }).unwrap()
}

fn write(writer: &Writer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        writer.write(&number.to_le_bytes()).unwrap();
    }
}

/// Reads all there is: each event's number, and how many were lost. Losses stand exactly where numbers are missing.
fn drain(reader: &mut Reader, expected: &mut u64) -> (u64, u64) {
    let (mut read, mut lost, mut last) = (0, 0, 0);
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Record(record) => {
                assert_eq!(record.payload.u64_at(0), Some(*expected));
                assert!(record.ticks >= last, "time goes backwards");
                last = record.ticks;
                *expected += 1;
                read += 1;
            }
            Item::Lost(missing) => {
                let count = missing.count.expect("a ringtap buffer always knows");
                *expected += count;
                lost += count;
            }
            other => panic!("{other:?}"),
        }
    }
    (read, lost)
}

#[test]
fn losses_stand_where_they_happened() {
    let cpu = pin_here();
    for ring_subbufs in [2, 3, 16] {
        let host = host(ring_subbufs, Mode::Overwrite);
        let (writer, mut reader) = (host.writer(), host.reader(cpu).unwrap());
        let (mut expected, mut written, mut read, mut lost) = (0, 0, 0, 0);
        for burst in [1, 10, 203, 204, 205, 1000, 1, 12_345, 0, 5000] {
            write(&writer, written..written + burst);
            written += burst;
            let (more, missing) = drain(&mut reader, &mut expected);
            assert_eq!(expected, written, "ring of {ring_subbufs}, {burst} at once");
            read += more;
            lost += missing;
        }
        assert_eq!(read + lost, written);
        assert!(lost > 10_000 || ring_subbufs > 3 && lost > 0);
        let stats = host.stats(cpu).unwrap();
        assert_eq!((stats.overrun, stats.read_events, stats.entries), (lost, read, 0));
    }
}

#[test]
fn discard_mode_refuses_instead_of_losing() {
    let cpu = pin_here();
    let host = host(2, Mode::Discard);
    let (writer, mut reader) = (host.writer(), host.reader(cpu).unwrap());
    let mut expected = 0;
    for _ in 0..20 {
        let mut written: u64 = expected;
        while writer.write(&written.to_le_bytes()) != Err(Refused::Full) {
            written += 1;
        }
        let accepted = written - expected;
        assert_eq!(drain(&mut reader, &mut expected), (accepted, 0));
        assert_eq!(expected, written);
    }
}

#[test]
fn payloads_of_every_length_come_back_as_they_were() {
    let cpu = pin_here();
    for subbuf_size in [4096, 65_536] {
        let host = Host::new(&Config { subbuf_size, ring_subbufs: 4, ..Config::default() }).unwrap();
        let (writer, mut reader) = (host.writer(), host.reader(cpu).unwrap());
        let largest = writer.max_payload();
        let lens = (0..300).chain([largest / 2, largest - 1, largest, 1, largest]);
        let mut sent = VecDeque::new();
        for len in lens {
            let payload: Vec<u8> = (0..len).map(|at| ((at * 31 + len) % 251).try_into().unwrap()).collect();
            writer.write(&payload).unwrap();
            sent.push_back(payload);
            while let Some(item) = reader.next().unwrap() {
                let Item::Record(record) = item else { panic!("{item:?}") };
                let payload = sent.pop_front().unwrap();
                let bytes = record.payload.to_vec();
                assert_eq!(bytes[..payload.len()], payload);
                assert!(
                    bytes[payload.len()..].iter().all(|&byte| byte == 0) && bytes.len() <= payload.len() + 12
                );
                // SAFETY: 1. this thread writes, and not now.
                assert_eq!(unsafe { record.payload.as_bytes() }, bytes);
            }
        }
        assert!(sent.is_empty());
        assert_eq!(writer.write(&vec![0; largest + 1]), Err(Refused::TooLarge));
    }
}

#[test]
fn long_silences_are_told() {
    let cpu = pin_here();
    for (clock, absolute_stamps) in
        [(ClockId::Mono, false), (ClockId::Mono, true), (clock::cheapest(), false)]
    {
        let config = Config { clock: Some(clock), absolute_stamps, ..Config::default() };
        let host = Host::new(&config).unwrap();
        let (writer, mut reader) = (host.writer(), host.reader(cpu).unwrap());
        let mut around = Vec::new();
        for _ in 0..4 {
            let before = clock::monotonic_ns();
            writer.write(b"after a while").unwrap();
            around.push(before..clock::monotonic_ns());
            std::thread::sleep(Duration::from_millis(140));
        }
        for around in around {
            let Some(Item::Record(record)) = reader.next().unwrap() else { panic!("an event is missing") };
            // The first conversion of a processor's counter is good to some ppm.
            let slack = if clock == ClockId::Mono { 0 } else { 100_000 };
            let ns = record.ns();
            assert!(around.start - slack <= ns && ns <= around.end + slack, "{ns} is not in {around:?}");
            assert!(clock != ClockId::Mono || ns == record.ticks);
        }
        assert!(reader.next().unwrap().is_none());
    }
}

#[test]
fn events_come_from_the_page_being_written() {
    let cpu = pin_here();
    let host = host(2, Mode::Overwrite);
    let (writer, mut reader) = (host.writer(), host.reader(cpu).unwrap());
    let mut expected = 0;
    for number in 0..5000 {
        write(&writer, number..number + 1);
        assert_eq!(drain(&mut reader, &mut expected), (1, 0));
    }
}

#[test]
fn one_reader_at_a_time() {
    let cpu = pin_here();
    let host = host(2, Mode::Overwrite);
    let mut first = host.reader(cpu).unwrap();
    let refused = host.reader(cpu).unwrap_err().to_string();
    assert!(refused.contains("is being consumed") && refused.contains(&format!("CPU {cpu}")), "{refused}");
    write(&host.writer(), 0..7);
    let mut expected = 0;
    assert!(first.next().unwrap().is_some());
    let waker = first.waker();
    drop(first);
    // A waker alone keeps nobody out for longer than it lives.
    assert!(host.reader(cpu).is_err());
    drop(waker);
    // What was handed out is read; the next reader begins behind it.
    let mut second = host.reader(cpu).unwrap();
    assert!(second.next().unwrap().is_none());
    expected += 7;
    write(&host.writer(), 7..300);
    assert_eq!(drain(&mut second, &mut expected), (293, 0));
    assert!(host.reader(cpu + 1000).unwrap_err().to_string().contains("no buffer for CPU"));
}

#[test]
fn a_reset_begins_anew() {
    let cpu = pin_here();
    let host = host(4, Mode::Overwrite);
    let (writer, mut reader) = (host.writer(), host.reader(cpu).unwrap());
    let mut expected = 0;
    let mut written = 0;
    for _ in 0..10 {
        write(&writer, written..written + 100);
        drain(&mut reader, &mut expected);
        write(&writer, written + 100..written + 500);
        host.reset().unwrap();
        assert!(reader.next().unwrap().is_none(), "what was reset is gone");
        written += 500;
        expected = written;
        write(&writer, written..written + 1);
        assert_eq!(drain(&mut reader, &mut expected), (1, 0));
        written += 1;
    }
}

#[test]
fn a_wait_ends_for_its_reason() {
    let cpu = pin_here();
    let host = host(8, Mode::Overwrite);
    let (writer, mut reader) = (host.writer(), host.reader(cpu).unwrap());
    let short = Some(Duration::from_millis(20));
    assert_eq!(reader.wait(short).unwrap(), Waited::TimedOut);
    write(&writer, 0..1);
    assert_eq!(reader.wait(None).unwrap(), Waited::Ready);
    assert!(reader.next().unwrap().is_some());

    // The futex lies in memory that the reader cannot write. Without it, each sleep lasts a nap of 100 ms.
    let mut slept = Vec::new();
    for number in 1..20 {
        assert!(reader.next().unwrap().is_none());
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(10));
                write(&writer, number..number + 1);
            });
            assert_eq!(reader.wait(None).unwrap(), Waited::Ready);
        });
        slept.push(start.elapsed());
        assert!(reader.next().unwrap().is_some());
    }
    slept.sort();
    assert!(slept[slept.len() / 2] < Duration::from_millis(60), "{slept:?}");

    assert!(reader.next().unwrap().is_none());
    let waker = reader.waker();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            waker.wake_all().unwrap();
        });
        assert_eq!(reader.wait(None).unwrap(), Waited::Woken);
    });

    reader.set_buffer_percent(50);
    write(&writer, 100..101);
    assert_eq!(reader.wait(short).unwrap(), Waited::TimedOut, "one event is not half a buffer");
    write(&writer, 101..2000);
    assert_eq!(reader.wait(short).unwrap(), Waited::Ready);
}

#[test]
fn counts_add_up_while_writers_write() {
    const WRITERS: usize = 3;
    for (ring_subbufs, mode) in [(2, Mode::Overwrite), (64, Mode::Overwrite), (3, Mode::Discard)] {
        let host = host(ring_subbufs, mode);
        let mut readers = host.readers().unwrap();
        let (mut read, mut lost) = (0, 0);
        // The last number seen of each writer on each CPU.
        let mut last = vec![[0; WRITERS]; readers.len()];
        let mut count = |readers: &mut Vec<Reader>| {
            for (reader, last) in readers.iter_mut().zip(&mut last) {
                while let Some(item) = reader.next().unwrap() {
                    match item {
                        Item::Record(record) => {
                            let (writer, number) = (record.payload.u64_at(0), record.payload.u64_at(8));
                            let last = &mut last[usize::try_from(writer.unwrap()).unwrap()];
                            assert!(number.unwrap() > *last, "out of order");
                            *last = number.unwrap();
                            assert_eq!(record.payload.u64_at(16), Some(!number.unwrap()), "torn");
                            read += 1;
                        }
                        Item::Lost(missing) => lost += missing.count.unwrap(),
                        other => panic!("{other:?}"),
                    }
                }
            }
        };
        let accepted: u64 = std::thread::scope(|scope| {
            let until = Instant::now() + Duration::from_millis(500);
            let threads: Vec<_> = (0..WRITERS as u64)
                .map(|id| {
                    let writer = host.writer();
                    scope.spawn(move || {
                        let (mut accepted, mut number) = (0, 0u64);
                        while Instant::now() < until {
                            for _ in 0..100 {
                                number += 1;
                                let mut payload = [0; 24];
                                payload[..8].copy_from_slice(&id.to_le_bytes());
                                payload[8..16].copy_from_slice(&number.to_le_bytes());
                                payload[16..].copy_from_slice(&(!number).to_le_bytes());
                                accepted += u64::from(writer.write(&payload).is_ok());
                            }
                        }
                        accepted
                    })
                })
                .collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                count(&mut readers);
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        count(&mut readers);
        assert_eq!(read + lost, accepted, "ring of {ring_subbufs}, {mode:?}");
        assert!(read > 0 && (mode == Mode::Overwrite || lost == 0));
    }
}
