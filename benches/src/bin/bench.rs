//! ringtap's times beside its rivals', as ratios within one run.

use anyhow::{Context as _, ensure};
use clap::Parser;
use ringtap_benches::rotation::{self, Plan};
use ringtap_benches::table::Table;
use ringtap_benches::{clock, cpu, guest, lttng, marker, ringtap};
use std::process::ExitCode;

/// Measure ringtap beside its rivals, in interleaved rounds of one run
#[derive(Debug, Parser)]
struct Args {
    /// Print the table as one JSON object
    #[arg(long)]
    json: bool,
    /// Rounds to run; each contender runs once in each
    #[arg(long, default_value_t = Plan::default().rounds, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Run only contenders whose name contains this (and the base)
    #[arg(long, default_value = "")]
    filter: String,
    /// The contender that ratios refer to
    #[arg(long, default_value = clock::CYCLES)]
    base: String,
    /// The CPU to run on [default: the last one allowed]
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> ExitCode {
    guest::main(|| bench(&Args::parse()))
}

fn bench(args: &Args) -> anyhow::Result<()> {
    let cpu = args.cpu.map_or_else(cpu::last_allowed, Ok)?;
    let wanted = |name: &str| name == args.base || name.contains(&args.filter);
    let mut skipped = Vec::new();
    let mut contenders = clock::contenders();
    contenders.extend(ringtap::contenders(cpu)?);
    contenders.retain(|contender| wanted(contender.name()));

    let rivals: [Rival; 2] =
        [(marker::NAME, marker::check, marker::contender), (lttng::NAME, lttng::check, lttng::contender)];
    for (name, check, contender) in rivals.into_iter().filter(|(name, ..)| wanted(name)) {
        match check() {
            Ok(()) => contenders.push(Box::new(contender(cpu)?)),
            Err(reason) => skipped.push(format!("{name}: {reason:#}")),
        }
    }
    let has_base = contenders.iter().any(|contender| contender.name() == args.base);
    ensure!(has_base, "--base {}: there is no such contender here", args.base);
    // Only now: daemons that the rivals start should not crowd onto the measured CPU.
    cpu::pin(cpu)?;
    let results = rotation::run(&mut contenders, &Plan { rounds: args.rounds, ..Plan::default() })?;
    let table = Table::new(&results, &args.base, skipped).context("nothing was measured")?;
    guest::print(&if args.json { serde_json::to_string(&table)? + "\n" } else { table.to_string() })
}

/// Name, whether it can take part, and how it is started on a CPU.
type Rival =
    (&'static str, fn() -> anyhow::Result<()>, fn(usize) -> anyhow::Result<ringtap_benches::worker::Worker>);
