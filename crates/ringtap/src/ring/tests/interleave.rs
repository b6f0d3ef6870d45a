//! Writers come between any two steps of the host and of a cursor: a little, a turn, a lap, two laps.

use super::lab::{Lab, Op};
use super::stepper::sequences;

/// What a writer does in between: small events, then turns.
const BURSTS: [(u32, u64); 6] = [(1, 0), (0, 1), (3, 1), (1, 2), (0, 3), (1, 4)];

/// Interrupts `op` before each of its steps, in the state that `before` leaves; returns how many there were.
fn interrupt_everywhere(subbufs: u32, discard: bool, before: &[Op], op: Op) -> u32 {
    let mut points = 0;
    for (events, turns) in BURSTS {
        for at in 0.. {
            let mut lab = Lab::new(subbufs, discard);
            for &op in before {
                lab.run(op);
            }
            let state = format!(
                "{subbufs} sub-buffers, discard {discard}: {before:?}, then {op:?}, before whose step {at} {events} events and {turns} turns"
            );
            let guard = Told(&state);
            let interrupted = lab.interrupt(op, at, move |pen| {
                for _ in 0..events {
                    let _ = pen.write(20);
                }
                pen.write_turns(turns);
            });
            lab.run(Op::GetReader);
            lab.run(Op::Follow);
            lab.finish();
            std::mem::forget(guard);
            if !interrupted {
                break;
            }
            points += 1;
        }
    }
    points
}

/// Tells what was tried when a test fails.
struct Told<'a>(&'a str);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("{}", self.0);
    }
}

const STATES: [Op; 6] = [Op::Write, Op::Turn, Op::GetReader, Op::Follow, Op::DieAtClaim, Op::Reset];

fn everywhere(op: Op) {
    let mut points = 0;
    for discard in [false, true] {
        for before in sequences(&STATES, 3) {
            points += interrupt_everywhere(2, discard, &before, op);
        }
    }
    println!("{points} interruptions of {op:?}");
}

#[test]
fn writers_between_any_two_steps_of_get_reader() {
    everywhere(Op::GetReader);
}

#[test]
fn writers_between_any_two_steps_of_a_cursor() {
    everywhere(Op::Follow);
}

#[test]
fn writers_between_any_two_steps_of_stats() {
    everywhere(Op::Stats);
}

#[test]
fn cursors_between_any_two_steps_of_reset_and_swap() {
    for op in [Op::GetReader, Op::Reset] {
        // A reader page full of old events, and a place published by a reset: a cursor must not be led there.
        let stale = vec![Op::Turn, Op::GetReader, Op::Reset, Op::Write];
        for before in sequences(&STATES, 2).chain([stale]) {
            // A reset is made under the lock here, so no writer comes between its steps.
            let turns: &[u64] = if op == Op::Reset { &[0] } else { &[0, 1] };
            for &turns in turns {
                for at in 0.. {
                    let mut lab = Lab::new(2, false);
                    for &op in &before {
                        lab.run(op);
                    }
                    let state =
                        format!("{before:?}, then {op:?}, before whose step {at} a cursor and {turns} turns");
                    let guard = Told(&state);
                    let more = lab.interrupt_with_cursor(op, at, turns);
                    lab.finish();
                    std::mem::forget(guard);
                    if !more {
                        break;
                    }
                }
            }
        }
    }
}
