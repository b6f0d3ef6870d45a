//! The probes of the live ring. The thread that runs them is pinned, and pretends to have rseq under valgrind.
//!
//! Each checks by the ring's counters that what was counted is what was meant: all was written, nothing refused.

use super::counted;
use crate::PAYLOAD_LEN;
use ringtap::clock::ClockId;
use ringtap::{Config, Host, Writer, WriterKind};
use std::hint::black_box;

/// Sub-buffers of a probe's ring: small, so that it is turned round many times.
const SUBBUFS: u32 = 64;
/// Data bytes of a sub-buffer of 4 KiB.
const CAPACITY: usize = 4080;
/// Events that a ring's memory, and the thread, know before it is counted.
const WARM_UP: u64 = 1000;

/// An instance stamped by the processor's counter, as is usual; valgrind's processor does not boast of its
/// counter's steadiness, so it has to be said.
fn host(kind: WriterKind) -> Host {
    let config = Config {
        ring_subbufs: SUBBUFS,
        writer: Some(kind),
        clock: Some(ClockId::Cycles),
        ..Config::default()
    };
    Host::new(&config).expect("memory for a small instance")
}

/// Counts `write`, `times` times, into a ring of writers of this kind.
fn count_writes(kind: WriterKind, times: u64, write: impl Fn(&Writer, u64)) -> u64 {
    let host = host(kind);
    let writer = host.writer();
    (0..WARM_UP).for_each(|number| write(&writer, number));
    counted(&mut || (0..times).for_each(|number| write(&writer, number)));
    let written: u64 = host.cpus().iter().map(|&cpu| host.stats(cpu).expect("undamaged").written()).sum();
    assert_eq!(written, WARM_UP + times, "all was written");
    times
}

fn write_array(writer: &Writer, number: u64) {
    let mut payload = [0; PAYLOAD_LEN];
    payload[8..16].copy_from_slice(&number.to_le_bytes());
    payload[16..].copy_from_slice(&(number ^ 7).to_le_bytes());
    writer.write_array(&payload).expect("an overwriting ring takes it");
}

/// The hot path, with its share of page turns: one in 145.
pub(super) fn write_arrays(times: u64) -> u64 {
    count_writes(WriterKind::Rseq, times, write_array)
}

/// The slow path: no size that the hot path knows.
pub(super) fn write_odd_sizes(times: u64) -> u64 {
    let payload = black_box([7; 21]);
    count_writes(WriterKind::Rseq, times, |writer, _| {
        writer.write(&payload).expect("an overwriting ring takes it");
    })
}

/// A turn of the page with each event, of which two do not fit on a page. The copy of its bytes is included.
pub(super) fn write_turning(times: u64) -> u64 {
    let payload = black_box([7; CAPACITY / 2]);
    count_writes(WriterKind::Rseq, times, |writer, _| {
        writer.write(&payload).expect("an overwriting ring takes it");
    })
}

/// The lock's path, that of machines without rseq.
pub(super) fn write_locked(times: u64) -> u64 {
    count_writes(WriterKind::Locked, times, write_array)
}

/// GET_READER of a page with so many events, a tenth as often: most of the time goes into writing them.
///
/// The clock counts events, so that a slow moment adds no time stamp to a page. With the processor's counter as
/// clock a line to nanoseconds is drawn as well, once a second: by the time, not by the events.
pub(super) fn get_reader<const EVENTS: u64>(times: u64) -> u64 {
    const PAGES: u64 = SUBBUFS as u64 - 4;
    let config = Config { ring_subbufs: SUBBUFS, clock: Some(ClockId::Counter), ..Config::default() };
    let host = Host::new(&config).expect("memory for a small instance");
    let writer = host.writer();
    let payload = [7; CAPACITY];
    // A header has a word, and another one where the payload is too long for the first.
    let record = CAPACITY / usize::try_from(EVENTS).expect("they fit on a page");
    let header = if record > 116 { 8 } else { 4 };
    let (mut cpu, mut done) = (None, 0);
    while done < times / 10 {
        // One page more than is taken, which is still being written.
        for _ in 0..(PAGES + 1) * EVENTS {
            writer.write(&payload[..record - header]).expect("an overwriting ring takes it");
        }
        let written = |&cpu: &u32| host.stats(cpu).expect("undamaged").written() > 0;
        let cpu = *cpu.get_or_insert_with(|| host.cpus().into_iter().find(written).expect("somewhere"));
        let before = host.stats(cpu).expect("undamaged").read_events;
        counted(&mut || (0..PAGES).for_each(|_| host.get_reader(cpu).expect("undamaged")));
        let read = host.stats(cpu).expect("undamaged").read_events - before;
        assert_eq!(read, PAGES * EVENTS, "each call handed out a full page");
        done += PAGES;
    }
    done
}
