//! Instructions per operation, counted by valgrind's callgrind.
//!
//! Times vary with whoever else uses the machine; instruction counts of the same binary repeat exactly, so
//! that a budget on them can fail a build. The budgets are in `instructions.txt`.
//!
//! A probe prepares what it needs and passes the work to [`counted`]; callgrind counts what runs inside that
//! function, and what it calls, alone. For what this means for rseq's critical sections see `README.md`.

mod writing;

use crate::cpu;
use crate::guest::{self, Role};
use crate::process::{missing, run_within};
use anyhow::{Context as _, bail, ensure};
use ringtap_abi::clock::Conversion;
use ringtap_abi::event::Shape;
use ringtap_abi::records::{Walk, Words};
use serde::Serialize;
use std::fmt;
use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

/// Valgrind runs fifty times slower than the processor; a probe takes a second with it.
const COUNT_WITHIN: Duration = Duration::from_secs(120);

/// Something whose instructions are counted.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its name in `instructions.txt`.
    pub name: &'static str,
    /// Does the operation about as often as told, inside [`counted`]; returns how often.
    run: fn(u64) -> u64,
}

/// Everything that has a budget.
pub const PROBES: [Probe; 11] = [
    Probe { name: "walk-record", run: walk_records },
    Probe { name: "convert-time", run: convert_times },
    Probe { name: "write-array", run: writing::write_arrays },
    Probe { name: "write-odd-size", run: writing::write_odd_sizes },
    Probe { name: "write-turning", run: writing::write_turning },
    Probe { name: "write-locked", run: writing::write_locked },
    Probe { name: "write-event", run: writing::write_events },
    Probe { name: "write-filtered-in", run: writing::write_filtered::<0> },
    Probe { name: "write-filtered-out", run: writing::write_filtered::<1> },
    Probe { name: GET_READER_OF_FEW, run: writing::get_reader::<10> },
    Probe { name: GET_READER_OF_MANY, run: writing::get_reader::<255> },
];
/// The probe whose pages have ten events each.
pub const GET_READER_OF_FEW: &str = "get-reader-10";
/// The probe whose pages have 255 events each.
pub const GET_READER_OF_MANY: &str = "get-reader-255";

/// Operations per run: enough that what a probe does once, around them, does not show.
const OPERATIONS: u64 = 10_000;

/// Does `work` where callgrind counts. A probe calls it once, or a few times with much work each.
#[inline(never)]
pub fn counted(work: &mut dyn FnMut()) {
    work();
}

/// Walks pages full of 24-byte events, as a mapped reader does.
fn walk_records(at_least: u64) -> u64 {
    struct Page(Vec<u32>);
    impl Words for Page {
        fn word(&self, offset: u32) -> u32 {
            self.0[offset as usize / 4]
        }
    }
    const CAPACITY: u32 = 4080;
    let shape = Shape::of(24);
    let records = CAPACITY / shape.total();
    let record = [&[shape.header(7)[0]][..], &[1; 6]].concat();
    let page = Page(record.repeat(records as usize));
    let end = records * shape.total();

    let (mut walked, mut sum) = (0, 0u64);
    counted(&mut || {
        while walked < at_least {
            let mut walk = Walk::new(1, black_box(end));
            while let Ok(Some(record)) = walk.next(black_box(&page)) {
                sum = sum.wrapping_add(record.time);
                walked += 1;
            }
        }
    });
    black_box(sum);
    walked
}

/// Makes nanoseconds of a counter's ticks, as it is done for each event that is shown.
fn convert_times(times: u64) -> u64 {
    let conversion = black_box(Conversion { ticks0: 1 << 40, ns0: 1 << 39, mult: 0x6f4d_e9bd });
    counted(&mut || {
        for ticks in 0..times {
            black_box(conversion.ns(black_box(1 << 41 | ticks)));
        }
    });
    times
}

/// A probe's count.
#[derive(Clone, Debug, Serialize)]
pub struct Count {
    /// The probe.
    pub name: String,
    /// Instructions per operation.
    pub instructions: f64,
}

/// Whether this machine can count.
///
/// # Errors
/// With what is missing.
pub fn check() -> anyhow::Result<()> {
    match missing(&["valgrind"]) {
        Some(program) => bail!("{program} is not installed (Debian: valgrind)"),
        None => Ok(()),
    }
}

/// Counts a probe's instructions: runs this program again, under callgrind.
///
/// # Errors
/// When callgrind fails.
pub fn count(probe: &Probe) -> anyhow::Result<Count> {
    let guest = guest::command(&Role::Probe { name: probe.name.into() })?;
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=ringtap_benches::callgrind::counted*")
        .arg(guest.get_program())
        .args(guest.get_args());
    let finished = run_within(&mut valgrind, COUNT_WITHIN)?;
    ensure!(finished.is_success(), "valgrind failed on {}: {}", probe.name, finished.last_line());
    let read = || -> Option<f64> {
        Some(
            number_behind(&finished.output, "Collected :")?
                / number_behind(&finished.output, OPERATIONS_DONE)?,
        )
    };
    let instructions = read().with_context(|| format!("valgrind counted nothing for {}", probe.name))?;
    Ok(Count { name: probe.name.into(), instructions })
}

const OPERATIONS_DONE: &str = "operations done:";

/// The counted process: runs one probe.
///
/// # Errors
/// When there is no such probe.
pub fn serve(name: &str) -> anyhow::Result<()> {
    let probe = PROBES.iter().find(|probe| probe.name == name).context("no such probe")?;
    let cpu = cpu::last_allowed()?;
    cpu::pin(cpu)?;
    // SAFETY: 1. This process has one thread and no signal handlers, and was just pinned. 2. The probes' instances
    // are its own, and served to nobody.
    let pretends = unsafe { ringtap::pretend_rseq_for_counting(u32::try_from(cpu)?) };
    ensure!(pretends, "valgrind knows rseq: count without pretending");
    println!("{OPERATIONS_DONE} {}", (probe.run)(OPERATIONS));
    Ok(())
}

fn number_behind(output: &str, label: &str) -> Option<f64> {
    let (_, behind) = output.split_once(label)?;
    behind.split_whitespace().next()?.parse().ok().filter(|&number: &f64| number > 0.0)
}

/// What a probe may cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// The probe.
    pub name: String,
    /// Instructions per operation, when it was last set.
    pub instructions: f64,
    /// By how much a count may exceed it, in percent of it.
    pub tolerance_percent: f64,
}

/// Reads budgets: lines of `ARCHITECTURE PROBE INSTRUCTIONS TOLERANCE%`, with comments after `#`. Lines of
/// other architectures are passed over.
///
/// # Errors
/// When a line is not of this form; the error names it.
pub fn parse_budgets(text: &str) -> anyhow::Result<Vec<Budget>> {
    let mut budgets = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<_> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        match words[..] {
            [] => {}
            [arch, name, instructions, tolerance] => {
                let budget = || -> Option<Budget> {
                    let tolerance_percent = tolerance.strip_suffix('%')?.parse().ok()?;
                    Some(Budget {
                        name: name.into(),
                        instructions: instructions.parse().ok()?,
                        tolerance_percent,
                    })
                };
                let budget = budget().with_context(|| format!("line {}: not numbers: {line}", index + 1))?;
                budgets.extend((arch == std::env::consts::ARCH).then_some(budget));
            }
            _ => {
                bail!("line {}: expected ARCHITECTURE PROBE INSTRUCTIONS TOLERANCE%, found {line}", index + 1)
            }
        }
    }
    Ok(budgets)
}

/// How a count compares with its budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Within the tolerance.
    Kept,
    /// So much cheaper that the budget should be lowered, lest it be eaten up unnoticed.
    Lower,
    /// Too dear.
    Exceeded,
    /// There is no budget for it.
    Missing,
}

impl Verdict {
    /// Compares.
    #[must_use]
    pub fn of(count: &Count, budget: Option<&Budget>) -> Self {
        let Some(budget) = budget else { return Self::Missing };
        let room = budget.instructions * budget.tolerance_percent / 100.0;
        match count.instructions - budget.instructions {
            over if over > room => Self::Exceeded,
            over if over < -room => Self::Lower,
            _ => Self::Kept,
        }
    }

    /// Whether a build should fail by it.
    #[must_use]
    pub const fn fails(self) -> bool {
        matches!(self, Self::Exceeded | Self::Missing)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kept => "kept",
            Self::Lower => "cheaper: lower the budget",
            Self::Exceeded => "EXCEEDED",
            Self::Missing => "NO BUDGET",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(instructions: f64) -> Budget {
        Budget { name: "probe".into(), instructions, tolerance_percent: 5.0 }
    }

    #[test]
    fn budgets_are_read_for_this_architecture() {
        let arch = std::env::consts::ARCH;
        let text = format!("# comment\n\n{arch} probe 100 5% # why\nz80 probe 900 5%\n");
        assert_eq!(parse_budgets(&text).unwrap(), [budget(100.0)]);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, place) in
            [("x86_64 probe 100 5%\nx86_64 probe 100", "line 2"), ("x86_64 p ten 5%", "line 1")]
        {
            let error = parse_budgets(text).unwrap_err().to_string();
            assert!(error.starts_with(place), "{error}");
        }
    }

    #[test]
    fn the_checked_in_budgets_name_each_probe_once() {
        let budgets = parse_budgets(include_str!("../instructions.txt")).unwrap();
        if cfg!(target_arch = "x86_64") {
            let names: Vec<_> = budgets.iter().map(|budget| budget.name.as_str()).collect();
            assert_eq!(names, PROBES.map(|probe| probe.name));
        }
    }

    #[test]
    fn a_verdict_leaves_the_tolerance_on_both_sides() {
        let verdict = |instructions, budget: Option<&Budget>| {
            Verdict::of(&Count { name: "probe".into(), instructions }, budget)
        };
        let budget = budget(100.0);
        assert_eq!(verdict(105.0, Some(&budget)), Verdict::Kept);
        assert_eq!(verdict(95.0, Some(&budget)), Verdict::Kept);
        assert_eq!(verdict(105.1, Some(&budget)), Verdict::Exceeded);
        assert_eq!(verdict(94.9, Some(&budget)), Verdict::Lower);
        assert_eq!(verdict(1.0, None), Verdict::Missing);
        assert!(!Verdict::Lower.fails() && Verdict::Exceeded.fails() && Verdict::Missing.fails());
    }

    #[test]
    fn probes_do_what_they_say() {
        // Those that write count on one CPU's ring.
        cpu::pin(cpu::last_allowed().unwrap()).unwrap();
        for probe in PROBES {
            let done = (probe.run)(1000);
            assert!((100..1300).contains(&done), "{}: {done}", probe.name);
        }
    }
}
