//! Results as people and programs read them.

use crate::rotation::Results;
use crate::stats::Summary;
use serde::Serialize;
use std::fmt;

/// One contender's line.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The contender.
    pub name: String,
    /// Nanoseconds per operation by the wall's clock.
    pub wall_ns: Summary,
    /// Nanoseconds of CPU time per operation.
    pub cpu_ns: Summary,
    /// Times the base's wall time, round by round.
    pub ratio: Summary,
    /// Times the base's CPU time, round by round.
    pub cpu_ratio: Summary,
    /// Operations in each round.
    pub iterations: u64,
}

/// Results, summed up against a base.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// The machine's processor, in the kernel's words.
    pub processor: String,
    /// Rounds run.
    pub rounds: usize,
    /// The contender that the ratios refer to.
    pub base: String,
    /// One line per contender.
    pub lines: Vec<Line>,
    /// Contenders that did not take part, and why.
    pub skipped: Vec<String>,
}

impl Table {
    /// Sums up; `None` when `base` did not take part or nothing was run.
    #[must_use]
    pub fn new(results: &Results, base: &str, skipped: Vec<String>) -> Option<Self> {
        let line = |row: &crate::rotation::Row| {
            Some(Line {
                name: row.name.clone(),
                wall_ns: Summary::of(&row.wall_ns)?,
                cpu_ns: Summary::of(&row.cpu_ns)?,
                ratio: results.ratio(&row.name, base)?,
                cpu_ratio: results.cpu_ratio(&row.name, base)?,
                iterations: row.iterations,
            })
        };
        Some(Self {
            processor: processor(),
            rounds: results.row(base)?.wall_ns.len(),
            base: base.into(),
            lines: results.rows.iter().map(line).collect::<Option<_>>()?,
            skipped,
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, rounds, base, lines, skipped } = self;
        writeln!(f, "{processor}; medians of {rounds} interleaved rounds, quartiles in brackets")?;
        let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0).max(9);
        let (ns, of_base) = ("ns per operation", format!("times {base}"));
        writeln!(
            f,
            "{:width$}  {ns:>26}  {:>10}  {of_base:>24}  {:>10}",
            "contender", "CPU ns", "of its CPU"
        )?;
        for line in lines {
            let Line { name, wall_ns: wall, ratio, .. } = line;
            let ns = format!("{:.1} [{:.1} .. {:.1}]", wall.median, wall.first_quartile, wall.third_quartile);
            let times =
                format!("{:.2} [{:.2} .. {:.2}]", ratio.median, ratio.first_quartile, ratio.third_quartile);
            let (cpu, cpu_times) = (line.cpu_ns.median, line.cpu_ratio.median);
            writeln!(f, "{name:width$}  {ns:>26}  {cpu:>10.1}  {times:>24}  {cpu_times:>10.2}")?;
        }
        skipped.iter().try_for_each(|reason| writeln!(f, "skipped {reason}"))
    }
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::Row;

    fn results() -> Results {
        let row = |name: &str, ns: f64| Row {
            name: name.into(),
            iterations: 1000,
            wall_ns: vec![ns, ns * 2.0, ns],
            cpu_ns: vec![ns / 2.0; 3],
        };
        Results { rows: vec![row("clock", 10.0), row("tracer", 25.0)] }
    }

    #[test]
    fn a_line_states_time_and_ratio() {
        let table = Table::new(&results(), "clock", vec!["rival: not installed".into()]).unwrap();
        let text = table.to_string();
        let tracer = text.lines().find(|line| line.starts_with("tracer")).unwrap();
        let words: Vec<_> = tracer.split_whitespace().collect();
        assert_eq!(
            words,
            ["tracer", "25.0", "[25.0", "..", "37.5]", "12.5", "2.50", "[2.50", "..", "2.50]", "2.50"]
        );
        assert!(text.ends_with("skipped rival: not installed\n"), "{text}");
    }

    #[test]
    fn json_has_both_clocks() {
        let table = Table::new(&results(), "clock", Vec::new()).unwrap();
        let json = serde_json::to_value(table).unwrap();
        assert_eq!(json["lines"][1]["wall_ns"]["median"], 25.0);
        assert_eq!(json["lines"][1]["cpu_ns"]["median"], 12.5);
        assert_eq!(json["lines"][1]["ratio"]["median"], 2.5);
    }

    #[test]
    fn a_base_that_did_not_run_makes_no_table() {
        assert!(Table::new(&results(), "nobody", Vec::new()).is_none());
    }
}
