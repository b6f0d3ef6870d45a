//! Contenders in rotating order, round by round, within one run.

use crate::cpu::{monotonic_ns, thread_cpu_ns};
use crate::stats::{Summary, ratios};
use anyhow::Context as _;
use std::time::Duration;

/// How long a contender took for the iterations it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds by the wall's clock.
    pub wall_ns: u64,
    /// Nanoseconds of CPU time of the thread that did it.
    pub cpu_ns: u64,
}

/// Something that can do one operation many times in a row.
pub trait Contender {
    /// The name it has in the table.
    fn name(&self) -> &str;

    /// Does the operation `iterations` times.
    ///
    /// # Errors
    /// When it cannot; the whole run is worthless then.
    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample>;
}

/// A contender in this thread: a closure that does the operation as often as it is told.
#[derive(Debug)]
pub struct Closure<F> {
    name: String,
    operation: F,
}

impl<F: FnMut(u64)> Closure<F> {
    /// A contender of this name.
    pub fn new(name: impl Into<String>, operation: F) -> Self {
        Self { name: name.into(), operation }
    }
}

impl<F: FnMut(u64)> Contender for Closure<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
        Ok(timed(|| (self.operation)(iterations)))
    }
}

/// Times what this thread does.
pub fn timed(work: impl FnOnce()) -> Sample {
    // The CPU clock is a system call; the wall's clock, being cheap, stands next to the work.
    let cpu = thread_cpu_ns();
    let wall = monotonic_ns();
    work();
    let wall_ns = monotonic_ns() - wall;
    Sample { wall_ns, cpu_ns: thread_cpu_ns() - cpu }
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds; each contender runs once in each.
    pub rounds: u32,
    /// How long one contender's part of a round should take.
    pub slice: Duration,
    /// How long each contender runs before the first round: its memory is touched and its speed known then.
    pub warm_up: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { rounds: 101, slice: Duration::from_millis(2), warm_up: Duration::from_millis(40) }
    }
}

/// One contender's rounds, in the order they were run.
#[derive(Clone, Debug)]
pub struct Row {
    /// The contender.
    pub name: String,
    /// Operations in each round.
    pub iterations: u64,
    /// Nanoseconds per operation by the wall's clock, one per round.
    pub wall_ns: Vec<f64>,
    /// Nanoseconds of CPU time per operation, one per round.
    pub cpu_ns: Vec<f64>,
}

/// All contenders' rounds. They are of one run: the same index is the same round in each row.
#[derive(Clone, Debug)]
pub struct Results {
    /// One row per contender, in the order given.
    pub rows: Vec<Row>,
}

impl Results {
    /// The contender of this name.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// How many times as long as `base` the contender `name` takes, round by round.
    #[must_use]
    pub fn ratio(&self, name: &str, base: &str) -> Option<Summary> {
        Summary::of(&ratios(&self.row(name)?.wall_ns, &self.row(base)?.wall_ns))
    }

    /// The same in CPU time.
    #[must_use]
    pub fn cpu_ratio(&self, name: &str, base: &str) -> Option<Summary> {
        Summary::of(&ratios(&self.row(name)?.cpu_ns, &self.row(base)?.cpu_ns))
    }
}

/// Runs the contenders in rotating order: each round starts with the next one, so that none always runs
/// behind the same neighbour.
///
/// # Errors
/// When a contender fails.
pub fn run(contenders: &mut [Box<dyn Contender>], plan: &Plan) -> anyhow::Result<Results> {
    let mut rows = contenders
        .iter_mut()
        .map(|contender| {
            let iterations = warm_up(contender.as_mut(), plan)
                .with_context(|| format!("{} failed while warming up", contender.name()))?;
            Ok(Row { name: contender.name().into(), iterations, wall_ns: Vec::new(), cpu_ns: Vec::new() })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    for round in 0..plan.rounds {
        for turn in 0..contenders.len() {
            let at = (round as usize + turn) % contenders.len();
            let (contender, row) = (&mut contenders[at], &mut rows[at]);
            let sample = contender
                .run(row.iterations)
                .with_context(|| format!("{} failed in round {round}", contender.name()))?;
            row.wall_ns.push(per_operation(sample.wall_ns, row.iterations));
            row.cpu_ns.push(per_operation(sample.cpu_ns, row.iterations));
        }
    }
    Ok(Results { rows })
}

/// Runs a contender for a while; returns how many iterations fill one slice.
fn warm_up(contender: &mut dyn Contender, plan: &Plan) -> anyhow::Result<u64> {
    let end = monotonic_ns() + nanos(plan.warm_up);
    let mut iterations = 1;
    loop {
        let took = contender.run(iterations)?.wall_ns.max(1);
        if took >= nanos(plan.slice) / 4 && monotonic_ns() >= end {
            let fitting = u128::from(iterations) * u128::from(nanos(plan.slice)) / u128::from(took);
            return Ok(u64::try_from(fitting)?.max(1));
        }
        if took < nanos(plan.slice) / 2 {
            iterations = iterations.saturating_mul(2);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "53 bits are more than any measurement has")]
fn per_operation(ns: u64, iterations: u64) -> f64 {
    ns as f64 / iterations as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Takes exactly `ns` per operation, and writes down who ran.
    struct Scripted {
        name: &'static str,
        ns: u64,
        log: Rc<RefCell<Vec<&'static str>>>,
    }

    impl Contender for Scripted {
        fn name(&self) -> &str {
            self.name
        }

        fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
            self.log.borrow_mut().push(self.name);
            Ok(Sample { wall_ns: iterations * self.ns, cpu_ns: iterations * self.ns / 2 })
        }
    }

    #[test]
    fn each_round_starts_with_the_next_contender() {
        let log = Rc::new(RefCell::new(Vec::new()));
        let scripted =
            |name, ns| -> Box<dyn Contender> { Box::new(Scripted { name, ns, log: Rc::clone(&log) }) };
        let mut contenders = [scripted("a", 10), scripted("b", 30), scripted("c", 50)];
        let plan = Plan { rounds: 4, warm_up: Duration::ZERO, ..Plan::default() };
        let results = run(&mut contenders, &plan).unwrap();

        let log = log.borrow();
        let rounds = &log[log.len() - 12..];
        assert_eq!(rounds, ["a", "b", "c", "b", "c", "a", "c", "a", "b", "a", "b", "c"]);
        assert_eq!(results.row("b").unwrap().wall_ns, [30.0; 4]);
        assert_eq!(results.ratio("b", "a").unwrap().median, 3.0);
        assert_eq!(results.cpu_ratio("c", "a").unwrap().median, 5.0);
        assert_eq!(results.ratio("b", "nobody"), None);
    }

    #[test]
    fn the_iterations_fill_a_slice() {
        let mut contender = Scripted { name: "a", ns: 10, log: Rc::default() };
        let plan = Plan { warm_up: Duration::ZERO, ..Plan::default() };
        assert_eq!(warm_up(&mut contender, &plan).unwrap(), 200_000);
    }

    #[test]
    fn a_closure_is_timed_by_both_clocks() {
        let sleep = Duration::from_millis(20);
        let mut sleeper = Closure::new("sleeper", |_| std::thread::sleep(sleep));
        let sample = sleeper.run(1).unwrap();
        assert!(sample.wall_ns >= nanos(sleep) && sample.cpu_ns < nanos(sleep) / 2, "{sample:?}");
    }
}
