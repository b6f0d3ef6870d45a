//! Buffers merged by time.

mod cpus;

use cpus::{allowed, pin};
use ringtap::{Config, Host, Item, Merge, Mode, Start, Waited, clock};
use std::time::{Duration, Instant};

fn host(ring_subbufs: u32) -> Host {
    let clock = Some(clock::ClockId::Mono);
    Host::new(&Config { ring_subbufs, mode: Mode::Overwrite, buffer_percent: 0, clock, ..Config::default() })
        .unwrap()
}

#[test]
fn what_was_written_alternately_is_read_alternately() {
    let host = host(64);
    let cpus = allowed(&host);
    let writer = host.writer();
    let mut merge = Merge::new(host.readers().unwrap());
    let mut cursors = Merge::new(host.cursors(Start::Oldest).unwrap());
    for round in 0..20u64 {
        let numbers = round * 100..round * 100 + 100;
        for number in numbers.clone() {
            if number % 7 == 0 {
                pin(cpus[usize::try_from(number / 7).unwrap() % cpus.len()]);
            }
            while writer.write(&number.to_le_bytes()) == Err(ringtap::Refused::Busy) {}
        }
        for merge in [&mut merge, &mut cursors] {
            assert_eq!(merge.wait(None).unwrap(), Waited::Ready);
            let mut last = 0;
            std::thread::sleep(Duration::from_micros(50));
            for number in numbers.clone() {
                let merged = merge.next().unwrap().expect("all is there, and old enough");
                let Item::Record(record) = merged.item else { panic!("{merged:?}") };
                assert_eq!(record.payload.u64_at(0), Some(number));
                assert!(merged.ns == record.ns() && merged.ns >= last);
                assert_eq!(record.cpu as usize, merged.input, "each possible CPU has an input");
                last = merged.ns;
            }
            assert!(merge.next().unwrap().is_none());
            assert_eq!(merge.wait(Some(Duration::from_millis(5))).unwrap(), Waited::TimedOut);
        }
    }
}

#[test]
fn live_streams_lose_nothing_and_stay_in_order() {
    let host = host(2);
    let cpus = allowed(&host);
    let mut merge = Merge::new(host.readers().unwrap());
    let (mut read, mut lost, mut late, mut last) = (0, 0, 0, 0);
    let written: u64 = std::thread::scope(|scope| {
        let until = Instant::now() + Duration::from_millis(400);
        let threads: Vec<_> = (0..3)
            .map(|id| {
                let (writer, cpu) = (host.writer(), cpus[id % cpus.len()]);
                scope.spawn(move || {
                    pin(cpu);
                    let mut written = 0;
                    while Instant::now() < until {
                        // Writers that share a lock may find it taken for too long.
                        while writer.write(&[7; 16]) == Err(ringtap::Refused::Busy) {}
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished())
            // The last events may be too young to go out at once.
            || merge.wait(Some(Duration::from_millis(20))).unwrap() == Waited::Ready
        {
            while let Some(merged) = merge.next().unwrap() {
                match merged.item {
                    Item::Record(_) => read += 1,
                    Item::Lost(missing) => lost += missing.count.unwrap(),
                    other => panic!("{other:?}"),
                }
                if matches!(merged.item, Item::Record(_)) {
                    late += u64::from(merged.ns < last);
                    last = last.max(merged.ns);
                }
            }
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(read + lost, written);
    // Late are the events of writers that were preempted between their look at the clock and their commit.
    println!("{read} read, {lost} lost, {late} late");
    assert!(read > 1000 && late * 1000 < read, "{late} of {read} were late");
}
