//! What reading costs, ringtap's beside the kernel's own mapped buffers, as ratios within one run.

use anyhow::Context as _;
use clap::Parser;
use ringtap_benches::cursors::{self, Followed};
use ringtap_benches::reading::{GetReader, KernelPage, RingtapPage, WalkRecords};
use ringtap_benches::rotation::{self, Contender, Plan};
use ringtap_benches::table::Table;
use ringtap_benches::{cpu, guest};
use std::process::ExitCode;

/// Measure readers: GET_READER, the walk over records, and the kernel's mapped pages beside ours
#[derive(Debug, Parser)]
struct Args {
    /// Print the tables as one JSON array
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
    let plan = Plan { rounds: args.rounds, ..Plan::default() };
    let results = rotation::run(&mut contenders, &plan)?;
    let reading = Table::new(&results, RingtapPage::NAME, skipped).context("nothing was measured")?;
    drop(contenders);

    let mut followed: Vec<Box<dyn Contender>> =
        vec![Box::new(Followed::new(0, cpu)?), Box::new(Followed::new(64, cpu)?)];
    let alone = followed[0].name().to_owned();
    let rounds = args.rounds.div_ceil(5);
    let results = rotation::run(&mut followed, &Plan { rounds, slice: cursors::SLICE, ..plan })?;
    let following = Table::new(&results, &alone, Vec::new()).context("nothing was measured")?;

    guest::print(&if args.json {
        serde_json::to_string(&[reading, following])? + "\n"
    } else {
        format!("{reading}\n{following}")
    })
}
