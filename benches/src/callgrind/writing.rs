//! The probes of the live ring. The thread that runs them is pinned, and pretends to have rseq under valgrind.
//!
//! Each checks by the ring's counters that what was counted is what was meant: all was written, nothing refused.

use super::counted;
use crate::PAYLOAD_LEN;
use ringtap::clock::ClockId;
use ringtap::rules::Rules;
use ringtap::{Config, Host, Instances, Writer, WriterKind};
use ringtap_abi::predicate::{Comparison, Field, Header, Source, Step, Test};
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

ringtap::event! {
    /// Two numbers.
    pub struct Probed as benches:probed { number: u64, other: u64 }
}

/// Counts typed events, of which the first number has one value; with a filter on it, where there is one. All or none of
/// them are written.
fn count_events(times: u64, filter: Option<u64>) -> u64 {
    let clock = Some(ClockId::Cycles);
    let config = Config { ring_subbufs: SUBBUFS, writer: Some(WriterKind::Rseq), clock, ..Config::default() };
    let instances = Instances::new(&config).expect("memory for a small instance");
    let id = Probed::register(&instances).expect("a good event");
    let (top, writer) = (instances.top(), instances.writer());
    top.set_event(id, true);
    if let Some(wanted) = filter {
        let rules = Rules { filter: Some(equals(wanted)), triggers: Vec::new() };
        top.set_rules(id, rules).expect("there is room");
    }
    let write = |other| Probed { number: black_box(0), other }.write(&writer);
    (0..WARM_UP).for_each(write);
    counted(&mut || (0..times).for_each(write));
    let host = top.host();
    let written: u64 = host.cpus().iter().map(|&cpu| host.stats(cpu).expect("undamaged").written()).sum();
    let expected = if filter.is_none_or(|wanted| wanted == 0) { WARM_UP + times } else { 0 };
    assert_eq!(written, expected, "the filter decides");
    times
}

/// The byte code of `number == wanted`.
fn equals(wanted: u64) -> Vec<u64> {
    let field = Field { source: Source::Int, signed: false, offset: 8, size: 8 };
    let test = Test::Number(Comparison::Equal);
    let step = Step { test, field, branch_if: false, target: 2, operand: wanted };
    [&[Header { steps: 1, words: 3 }.pack()][..], &step.pack()].concat()
}

/// A typed event that is on in the top instance, without rules.
pub(super) fn write_events(times: u64) -> u64 {
    count_events(times, None)
}

/// A typed event with a filter of one comparison, which takes events of this value; they have 0.
pub(super) fn write_filtered<const WANTED: u64>(times: u64) -> u64 {
    count_events(times, Some(WANTED))
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
