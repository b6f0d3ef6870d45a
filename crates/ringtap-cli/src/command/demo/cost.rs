//! What an event costs on this machine, beside the bare read of the clock that stamps it.

use super::events::FileRead;
use anyhow::Result;
use ringtap::{Config, Host, clock};
use std::hint::black_box;
use std::time::Instant;

/// Rounds, each of which times both: a neighbour on the machine then disturbs both alike. They take some microseconds, so that
/// what interrupts them is in few.
const ROUNDS: usize = 1001;
const EVENTS_A_ROUND: u32 = 200;

/// Nanoseconds, each the median of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// To trace one event of 24 bytes.
    pub ns_per_event: f64,
    /// To read the clock that stamps it, and nothing else.
    pub ns_per_clock_read: f64,
}

/// Measures, with buffers of its own that nobody reads.
///
/// # Errors
/// There is no memory for the buffers.
pub fn measure() -> Result<Cost> {
    let host = Host::new(&Config::default())?;
    let (writer, clock) = (host.writer(), host.clock());
    FileRead::register(&host)?;
    let event = || FileRead { bytes: 4096, took_ns: 1000, offset: 0 }.write(&writer);
    let read = || {
        black_box(clock::read(clock));
    };
    // The first round brings the memory in.
    each(event);
    let mut rounds = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        rounds[0].push(each(event));
        rounds[1].push(each(read));
    }
    FileRead::declared().unregister();
    let [ns_per_event, ns_per_clock_read] = rounds.map(median);
    Ok(Cost { ns_per_event, ns_per_clock_read })
}

/// Nanoseconds that one call takes.
#[inline(always)]
fn each(what: impl Fn()) -> f64 {
    let start = Instant::now();
    for _ in 0..EVENTS_A_ROUND {
        what();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(EVENTS_A_ROUND)
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_costs_more_than_its_time_stamp() {
        let cost = measure().unwrap();
        assert!(cost.ns_per_clock_read > 0.5, "{cost:?}");
        assert!(cost.ns_per_event > cost.ns_per_clock_read, "{cost:?}");
        assert!(cost.ns_per_event < 100_000.0, "{cost:?}");
    }
}
