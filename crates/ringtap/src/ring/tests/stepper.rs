//! A writer dies before each of its steps, in each of many states of small rings, again and again. Nothing but
//! the event it was writing is missing, and everybody goes on.

use std::sync::atomic::Ordering::Relaxed;

use super::lab::{Lab, Op, QUARTER};
use crate::map::{self, Access};
use crate::{Config, Host, thread};

/// All sequences of `len` of these.
pub(super) fn sequences(ops: &[Op], len: u32) -> impl Iterator<Item = Vec<Op>> {
    let base = ops.len();
    (0..base.pow(len)).map(move |mut number| {
        (0..len)
            .map(|_| {
                let op = ops[number % base];
                number /= base;
                op
            })
            .collect()
    })
}

/// Runs `before`, kills a writer of `len` bytes before its step `k`, runs `after`, and adds up.
fn run(subbufs: u32, discard: bool, before: &[Op], len: usize, k: u32, after: &[Op]) -> bool {
    let mut lab = Lab::new(subbufs, discard);
    for &op in before {
        lab.run(op);
    }
    let died = lab.pen.die_at(len, k);
    for &op in after {
        lab.run(op);
    }
    lab.finish();
    died
}

/// Every step of a small event, of one that turns the page, and of one in between.
#[test]
fn a_writer_that_dies_before_any_store_costs_only_its_event() {
    let mut deaths = 0u32;
    let ops = [Op::Write, Op::WriteLate, Op::Turn, Op::GetReader, Op::Follow];
    for discard in [false, true] {
        for subbufs in [2, 3] {
            for before in sequences(&ops, 3) {
                for after in [&[][..], &[Op::Turn, Op::GetReader, Op::Turn]] {
                    deaths +=
                        (0..).take_while(|&k| run(subbufs, discard, &before, 20, k, after)).count() as u32;
                }
            }
        }
    }
    println!("{deaths} deaths in small events");
    assert!(deaths > 5_000);
}

/// An event that does not fit turns the page first: each store of the claim's aftermath, the turn and the record.
#[test]
fn a_writer_that_dies_in_any_turn_costs_only_its_event() {
    let mut deaths = 0u32;
    let befores: [&[Op]; 6] = [
        &[Op::Write],
        &[Op::Turn, Op::Write],
        &[Op::Turn, Op::Turn, Op::Turn],
        &[Op::Turn, Op::GetReader, Op::Write],
        &[Op::Write, Op::GetReader],
        &[Op::Turn, Op::Turn, Op::GetReader, Op::Follow, Op::GetReader, Op::GetReader],
    ];
    for discard in [false, true] {
        for before in befores {
            for k in 0.. {
                // All of the steps around the claim and the turn, then every 16th of the thousand stores of the record.
                if k > 40 && k % 16 != 0 {
                    continue;
                }
                if !run(2, discard, before, 4072, k, &[Op::Write, Op::GetReader, Op::Turn]) {
                    break;
                }
                deaths += 1;
            }
        }
    }
    println!("{deaths} deaths in turns");
    assert!(deaths > 500);
}

/// Deaths one after the other: whatever one leaves behind, the next may leave more.
#[test]
fn writers_that_die_in_a_row_leave_nothing_to_repair() {
    for discard in [false, true] {
        for first in 0..24 {
            for second in 0..24 {
                let mut lab = Lab::new(2, discard);
                lab.run(Op::Turn);
                lab.run(Op::Write);
                lab.pen.die_at(4072, first);
                lab.pen.die_at(QUARTER, second);
                lab.run(Op::GetReader);
                lab.pen.die_at(4072, second);
                lab.run(Op::Turn);
                lab.pen.die_at(20, first);
                lab.run(Op::Follow);
                lab.finish();
            }
        }
    }
}

/// The same with threads that end and leave their lock behind.
#[test]
fn the_lock_of_a_dead_thread_is_succeeded() {
    for k in 0..40 {
        let mut lab = Lab::new(2, false);
        lab.run(Op::Turn);
        lab.run(Op::Write);
        let died = lab.pen.die_with_thread_at(4072, k);
        assert_eq!(lab.pen.ring().meta().writer.lock.load(Relaxed) != 0, died);
        lab.run(Op::Write);
        lab.pen.die_with_thread_at(20, k);
        lab.finish();
    }
}

/// A writer that fell back to the lock and died there must not keep the host from emptying the ring.
#[test]
fn a_reset_succeeds_a_dead_owner_of_the_lock() {
    let owner = std::thread::spawn(thread::owner_word).join().expect("no panic");
    while !thread::is_dead(owner) {
        thread::yield_now();
    }
    let host = Host::new(&Config::default()).expect("possible");
    let _ = host.writer().write(&[1; 40]);
    for cpu in host.cpus() {
        let mapping = map::open(host.read_write(cpu, 0).expect("there"), Access::Write).expect("it maps");
        mapping.ring().meta().writer.lock.store(owner, Relaxed);
    }
    host.reset().expect("the dead keep nobody");
    assert!(host.cpus().into_iter().all(|cpu| host.stats(cpu).is_ok_and(|stats| stats.written() == 0)));
}
