//! `ringtap export --to parquet` of a large kernel trace: raw trace a second of CPU time, on one CPU; bytes an event; and
//! how large the Parquet is beside the trace.
//!
//! The trace is one that `ringtap record` makes of this machine at work, since a small one repeated would be compressed
//! better than any real one.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is recorded: switches, system calls, interrupts, timers, page faults.
const EVENTS: [&str; 5] = ["sched", "raw_syscalls", "irq", "timer", "exceptions"];
/// What keeps the machine at work: many short processes that look into many small files.
const WORK: &str =
    "while :; do find /usr/lib /usr/share -type f | xargs -n 40 grep -l zzzz; done >/dev/null 2>&1";

/// Time `ringtap export --to parquet`, and weigh what it writes
#[derive(Debug, Parser)]
struct Args {
    /// The program, built with `--release --features parquet`
    #[arg(long, default_value = "target/release/ringtap")]
    ringtap: PathBuf,
    /// A trace, instead of one of this machine at work, which takes root
    #[arg(long)]
    trace: Option<PathBuf>,
    /// How long this machine is recorded, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Where files are made; they are removed at the end
    #[arg(long, default_value = "/dev/shm")]
    folder: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let folder = args.folder.join(format!("ringtap-parquet-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let result = measure(&args, &folder);
    let _ = fs::remove_dir_all(&folder);
    result
}

fn measure(args: &Args, folder: &Path) -> Result<()> {
    let trace = match &args.trace {
        Some(trace) => trace.clone(),
        None => record(args, &folder.join("trace.dat"))?,
    };
    let raw = fs::metadata(&trace)?.len();
    let one = first_cpu()?;
    let all = sched_getaffinity(None)?;
    sched_setaffinity(None, &one)?;
    println!("{} MB of raw trace, exported on one CPU", raw / 1_000_000);
    for (name, options) in [
        ("one file", &[][..]),
        ("one file, with spans", &["--spans"]),
        ("a file for each event", &["--partition", "event"]),
        ("a file for each event and hour", &["--partition", "hour"]),
    ] {
        let out = folder.join("out");
        let mut command = Command::new(&args.ringtap);
        command.args(["export", "--to", "parquet", "-o"]).arg(&out).args(options).arg(&trace);
        let before = children_cpu();
        let output = command.output().context("cannot start ringtap")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ringtap export failed: {said}");
        let cpu = children_cpu().saturating_sub(before).as_secs_f64();
        let events = said.rsplit(": ").next().and_then(|told| told.split(' ').next()?.parse::<f64>().ok());
        let events = events.context("ringtap does not say how many events there were")?;
        let len = size(&out)?;
        let (raw, bytes) = (to_f64(raw), to_f64(len));
        println!(
            "{name}: {cpu:.2} s CPU, {:.0} MB/s; {:.1} MB, {:.1} % of the trace, {:.1} bytes an event",
            raw / cpu / 1e6,
            bytes / 1e6,
            bytes / raw * 100.0,
            bytes / events,
        );
        if out.is_dir() { fs::remove_dir_all(&out)? } else { fs::remove_file(&out)? }
    }
    sched_setaffinity(None, &all)?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "sizes of files, to be printed with three digits")]
const fn to_f64(number: u64) -> f64 {
    number as f64
}

fn record(args: &Args, trace: &Path) -> Result<PathBuf> {
    let mut command = Command::new(&args.ringtap);
    command.args(["record", "--quiet", "--kernel", "--all", "-o"]).arg(trace);
    EVENTS.iter().for_each(|event| _ = command.args(["-e", event]));
    let work = ["--", "timeout", &args.seconds.to_string(), "sh", "-c", WORK];
    // The work never ends by itself.
    command.args(work).stdout(Stdio::null()).status().context("cannot start ringtap")?;
    ensure!(trace.exists(), "nothing was recorded; give a trace with --trace, or run as root");
    Ok(trace.to_owned())
}

fn first_cpu() -> Result<CpuSet> {
    let all = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)).context("no CPU to run on")?;
    let mut one = CpuSet::new();
    one.set(first);
    Ok(one)
}

/// Bytes of a file, or of all files below a folder.
fn size(path: &Path) -> Result<u64> {
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.len());
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}

/// CPU time of all children that were waited for.
fn children_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // The 16th and 17th of all fields; two stand before the bracket.
    let ticks: u64 = fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second())
}
