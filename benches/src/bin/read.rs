//! What reading costs, ringtap's beside the kernel's own mapped buffers, as ratios within one run.

use anyhow::Context as _;
use clap::Parser;
use ringtap_benches::reading::{GetReader, KernelPage, RingtapPage, WalkRecords};
use ringtap_benches::rotation::{self, Contender, Plan};
use ringtap_benches::table::Table;
use ringtap_benches::{cpu, guest};
use std::process::ExitCode;

/// Measure readers: GET_READER, the walk over records, and the kernel's mapped pages beside ours
#[derive(Debug, Parser)]
struct Args {
    /// Print the table as one JSON object
    #[arg(long)]
    json: bool,
    /// Rounds to run; each contender runs once in each
    #[arg(long, default_value_t = Plan::default().rounds, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The CPU to run on [default: the last one allowed]
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> ExitCode {
    guest::main(|| measure(&Args::parse()))
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let cpu = args.cpu.map_or_else(cpu::last_allowed, Ok)?;
    cpu::pin(cpu)?;
    let cpu = u32::try_from(cpu)?;
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(RingtapPage::new(cpu)?),
        Box::new(GetReader::new(10, cpu)?),
        Box::new(GetReader::new(500, cpu)?),
        Box::new(WalkRecords::new(cpu)?),
    ];
    let mut skipped = Vec::new();
    match KernelPage::new(cpu) {
        Ok(kernel) => contenders.push(Box::new(kernel)),
        Err(reason) => skipped.push(format!("{}: {reason:#}", KernelPage::NAME)),
    }
    let results = rotation::run(&mut contenders, &Plan { rounds: args.rounds, ..Plan::default() })?;
    let table = Table::new(&results, RingtapPage::NAME, skipped).context("nothing was measured")?;
    guest::print(&if args.json { serde_json::to_string(&table)? + "\n" } else { table.to_string() })
}
