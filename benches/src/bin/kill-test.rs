//! The kill test, for each tracer that is here.

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use ringtap::WriterKind;
use ringtap_benches::kill_test::{self, Plan, Report, Ringtap};
use ringtap_benches::lttng::Recording;
use ringtap_benches::{cpu, guest, lttng};
use std::process::ExitCode;

/// Kill writers by SIGKILL and count what a healthy process loses by it
#[derive(Debug, Parser)]
struct Args {
    /// Print one JSON object per tracer and line
    #[arg(long)]
    json: bool,
    /// Try this tracer alone
    #[arg(long)]
    only: Option<Tracer>,
    /// Writers of ringtap to kill
    #[arg(long, default_value_t = 10_000)]
    kills: u64,
    /// How ringtap's writers exclude each other
    #[arg(long, value_enum, default_value_t = Writer::Rseq)]
    writer: Writer,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tracer {
    Ringtap,
    Lttng,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Writer {
    Rseq,
    Locked,
}

fn main() -> ExitCode {
    guest::main(|| kill_test(&Args::parse()))
}

fn kill_test(args: &Args) -> anyhow::Result<()> {
    let cpu = args.cpu.map_or_else(cpu::last_allowed, Ok)?;
    let plan = |kills| Plan { cpu, kills, before: args.before, after: args.after, seed: args.seed };
    let kept = match args.only {
        Some(Tracer::Lttng) => Ok(()),
        _ => ringtap(&plan(args.kills), args),
    };
    if args.only != Some(Tracer::Ringtap) {
        lttng(&plan(args.lttng_kills), args)?;
    }
    kept
}

/// Fails, behind its report, where a promise was not kept.
fn ringtap(plan: &Plan, args: &Args) -> anyhow::Result<()> {
    let kind = match args.writer {
        Writer::Rseq => WriterKind::Rseq,
        Writer::Locked => WriterKind::Locked,
    };
    let mut subject = Ringtap::new(plan.cpu, kind)?;
    let report = kill_test::run(plan, &mut subject)?;
    print(&report, args)?;
    let mut broken = report.account.exact.context("ringtap is followed")?.broken(kind);
    let (seen, kills) = (report.seen_writing, report.kills);
    broken.extend((seen != kills).then(|| format!("only {seen} of {kills} writers were seen to write")));
    if broken.is_empty() {
        return Ok(());
    }
    bail!("ringtap did not keep what it promises: {}", broken.join("; "))
}

fn lttng(plan: &Plan, args: &Args) -> anyhow::Result<()> {
    if let Err(reason) = lttng::check() {
        return guest::print(&format!("skipped {}: {reason:#}\n", lttng::NAME));
    }
    for recording in [Recording::Snapshot, Recording::Continuous] {
        print(&kill_test::lttng(plan, recording)?, args)?;
    }
    Ok(())
}

fn print(report: &Report, args: &Args) -> anyhow::Result<()> {
    let text = if args.json { serde_json::to_string(report)? } else { report.to_string() };
    guest::print(&(text + "\n"))
}
