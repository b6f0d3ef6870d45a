//! How fast a mapped buffer is read: the walk over its records, and GET_READER. Run it with `--release`.
//!
//! Each figure is the median of interleaved rounds: a ring is filled, and read.

use ringtap::{Config, Cursor, Host, Item, Mode, Reader, Start};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::Duration;

const ROUNDS: usize = 31;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let cpu = pin()?;
    let mut walks = [("4 KiB", host(4096, 256)?), ("512 KiB", host(512 * 1024, 2)?)].map(|(size, host)| {
        let (reader, cursor) = (host.reader(cpu), host.cursor(cpu, Start::Oldest));
        (size, host, reader, cursor, Vec::new(), Vec::new())
    });
    let mut calls = [
        ("1 event", host(4096, 64)?, 4000),
        ("255 events", host(4096, 64)?, 8),
        ("1 event, 512 KiB", host(512 * 1024, 64)?, 524_000),
        ("32,767 events, 512 KiB", host(512 * 1024, 64)?, 8),
    ]
    .map(|(page, host, payload)| (page, host, payload, Vec::new()));
    // The first laps measure the kernel's page faults, and do not count for a median of this many.
    for _ in 0..ROUNDS {
        for (_, host, reader, cursor, reads, follows) in &mut walks {
            let (Ok(reader), Ok(cursor)) = (reader, cursor) else {
                return Err("cannot map the buffer".into());
            };
            fill(host, 8);
            follows.push(follow(cursor)?);
            reads.push(read(reader)?);
        }
        for (_, host, payload, times) in &mut calls {
            fill(host, *payload);
            times.push(get_reader_ns(host, cpu)?);
        }
    }
    for (size, _, _, _, reads, follows) in walks {
        println!("reader, sub-buffers of {size}: {:.0} million events/s", median(reads));
        println!("cursor, sub-buffers of {size}: {:.0} million events/s", median(follows));
    }
    for (page, _, _, times) in calls {
        println!("GET_READER of a page with {page}: {:.0} ns", median(times));
    }
    Ok(())
}

fn pin() -> Outcome<u32> {
    let cpu = rustix::thread::sched_getcpu();
    let mut only = rustix::thread::CpuSet::new();
    only.set(cpu);
    rustix::thread::sched_setaffinity(None, &only)?;
    Ok(u32::try_from(cpu)?)
}

fn host(subbuf_size: u32, ring_subbufs: u32) -> Outcome<Host> {
    Ok(Host::new(&Config { subbuf_size, ring_subbufs, mode: Mode::Discard, ..Config::default() })?)
}

/// Writes until the ring is full.
fn fill(host: &Host, payload: usize) {
    let (writer, payload) = (host.writer(), vec![7; payload]);
    while writer.write(&payload).is_ok() {}
}

/// Reads all there is: million events a second, GET_READER included.
fn read(reader: &mut Reader) -> Outcome<f64> {
    let (mut events, start) = (0, cpu_time());
    while let Some(item) = reader.next()? {
        if let Item::Record(record) = item {
            black_box((record.ticks, record.payload.u32_at(0)));
            events += 1;
        }
    }
    Ok(per_second(events, cpu_time() - start))
}

/// The same by a cursor, which copies.
fn follow(cursor: &mut Cursor) -> Outcome<f64> {
    let (mut events, start) = (0, cpu_time());
    while let Some(item) = cursor.next()? {
        if let Item::Record(record) = item {
            black_box((record.ticks, record.payload.u32_at(0)));
            events += 1;
        }
    }
    Ok(per_second(events, cpu_time() - start))
}

/// Nanoseconds of a GET_READER that brings a page.
fn get_reader_ns(host: &Host, cpu: u32) -> Outcome<f64> {
    const CALLS: u32 = 60;
    let start = cpu_time();
    for _ in 0..CALLS {
        host.get_reader(cpu)?;
    }
    let time = cpu_time() - start;
    assert!(host.stats(cpu)?.entries > 0, "each call brought a page");
    while host.stats(cpu)?.entries > 0 {
        host.get_reader(cpu)?;
    }
    Ok(time.as_nanos() as f64 / f64::from(CALLS))
}

/// Time that this thread ran: other processes' share does not count.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn per_second(events: u64, time: Duration) -> f64 {
    events as f64 / time.as_secs_f64() / 1e6
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
