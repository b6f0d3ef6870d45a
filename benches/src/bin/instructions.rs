//! Instruction counts against their budgets; fails when one is exceeded.

use anyhow::{Context as _, bail};
use clap::Parser;
use ringtap_benches::callgrind::{self, PROBES, Verdict};
use ringtap_benches::guest;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Count instructions per operation under valgrind and compare them with their budgets
#[derive(Debug, Parser)]
struct Args {
    /// Print the counts as lines for the budgets' file instead of comparing them
    #[arg(long)]
    bless: bool,
    /// Read the budgets from this file instead of the ones built in
    #[arg(long)]
    budgets: Option<PathBuf>,
}

/// What a count may vary by with compilers of the same year.
const TOLERANCE: &str = "3%";

fn main() -> ExitCode {
    guest::main(|| instructions(&Args::parse()))
}

fn instructions(args: &Args) -> anyhow::Result<()> {
    let uses_built_in = args.budgets.is_none() && !args.bless;
    if cfg!(debug_assertions) && uses_built_in {
        bail!("the budgets are for optimised builds: run with --release");
    }
    if let Err(reason) = callgrind::check() {
        return guest::print(&format!("skipped instruction counts: {reason:#}\n"));
    }
    let text = match &args.budgets {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => include_str!("../../instructions.txt").into(),
    };
    let budgets = callgrind::parse_budgets(&text)?;
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for probe in &PROBES {
        let count = callgrind::count(probe)?;
        let (arch, name, instructions) = (std::env::consts::ARCH, probe.name, count.instructions);
        if args.bless {
            writeln!(lines, "{arch} {name} {instructions:.2} {TOLERANCE}")?;
            continue;
        }
        let budget = budgets.iter().find(|budget| budget.name == name);
        let allowed = budget.map_or(0.0, |budget| budget.instructions);
        let verdict = Verdict::of(&count, budget);
        writeln!(lines, "{name:16} {instructions:10.2} instructions, budget {allowed:10.2}: {verdict}")?;
        failed.extend(verdict.fails().then_some(name));
    }
    guest::print(&lines)?;
    if !failed.is_empty() {
        bail!(
            "over budget: {}; if it is worth it, put what --bless prints into instructions.txt",
            failed.join(", ")
        );
    }
    Ok(())
}
