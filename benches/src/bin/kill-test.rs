//! The kill test, for each tracer that is here.

use clap::Parser;
use ringtap_benches::kill_test::{self, Plan};
use ringtap_benches::lttng::Recording;
use ringtap_benches::{cpu, guest, lttng};
use std::process::ExitCode;

/// Kill writers by SIGKILL and count what a healthy process loses by it
#[derive(Debug, Parser)]
struct Args {
    /// Print one JSON object per tracer and line
    #[arg(long)]
    json: bool,
    /// Writers of LTTng-UST to kill
    #[arg(long, default_value_t = 20)]
    lttng_kills: u64,
    /// Events of the healthy process before the first kill
    #[arg(long, default_value_t = 10_000)]
    before: u64,
    /// Events of the healthy process after the last kill
    #[arg(long, default_value_t = 220_000)]
    after: u64,
    /// Seed of the writers' lives
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The CPU that all writers share [default: the last one allowed]
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> ExitCode {
    guest::main(|| kill_test(&Args::parse()))
}

fn kill_test(args: &Args) -> anyhow::Result<()> {
    let cpu = args.cpu.map_or_else(cpu::last_allowed, Ok)?;
    let plan = Plan { cpu, kills: args.lttng_kills, before: args.before, after: args.after, seed: args.seed };
    if let Err(reason) = lttng::check() {
        return guest::print(&format!("skipped {}: {reason:#}\n", lttng::NAME));
    }
    for recording in [Recording::Snapshot, Recording::Continuous] {
        let report = kill_test::lttng(&plan, recording)?;
        let text = if args.json { serde_json::to_string(&report)? } else { report.to_string() };
        guest::print(&(text + "\n"))?;
    }
    Ok(())
}
