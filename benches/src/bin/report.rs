//! `ringtap report` beside `trace-cmd report` on a large file: CPU time, which other processes do not change, on one
//! CPU; and how the time falls with more threads, in rounds by turns.
//!
//! The file is a small capture whose pages are repeated, each time a little later.

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
/// How much later a repetition begins than the last page of the one before.
const PAUSE_NS: u64 = 100_000_000;

/// Time `ringtap report` beside `trace-cmd report`
#[derive(Debug, Parser)]
struct Args {
    /// A capture of version 6 with pages of 4 KiB
    #[arg(long, default_value = "compliance/capture.dat")]
    capture: PathBuf,
    /// The program
    #[arg(long, default_value = "target/release/ringtap")]
    ringtap: PathBuf,
    /// Size of the file, in MiB
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// Where the file is made; it is removed at the end
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Leave trace-cmd out, which takes more than a minute for a GiB
    #[arg(long)]
    alone: bool,
    /// Only how the time falls with more threads
    #[arg(long)]
    scaling: bool,
    /// Rounds of that
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Layouts whose time is taken with more threads: the one that reads the file twice, and the one with the longest lines.
const SCALING: [&str; 2] = ["ftrace", "json"];

fn main() -> Result<()> {
    let args = Args::parse();
    let file = args.folder.join(format!("ringtap-report-{}.dat", std::process::id()));
    let result = grow(&args.capture, &file, args.mib << 20).and_then(|()| compare(&args, &file));
    let _ = fs::remove_file(&file);
    result
}

fn compare(args: &Args, file: &Path) -> Result<()> {
    let mib = fs::metadata(file)?.len() >> 20;
    println!("{mib} MiB; CPU seconds on one CPU, and the time that passed");
    if !args.scaling {
        on_one_cpu(args, file)?;
    }
    let threads = std::thread::available_parallelism()?.get();
    for layout in SCALING {
        for (name, out) in [("/dev/null", None), ("a file", Some(file.with_extension("txt")))] {
            let scaled = scale(args, file, layout, threads, out.as_deref());
            out.iter().for_each(|out| _ = fs::remove_file(out));
            println!("ringtap report --layout {layout} to {name}: {}", scaled?);
        }
    }
    Ok(())
}

fn on_one_cpu(args: &Args, file: &Path) -> Result<()> {
    let all = sched_getaffinity(None)?;
    let mut one = CpuSet::new();
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)).context("no CPU to run on")?;
    one.set(first);
    sched_setaffinity(None, &one)?;
    let rival = match args.alone {
        true => None,
        false => time("trace-cmd report", Command::new("trace-cmd").args(["report", "-i"]).arg(file)),
    };
    for layout in ["trace-cmd", "ftrace", "json"] {
        let mut command = Command::new(&args.ringtap);
        command.args(["report", "--jobs", "1", "--layout", layout]).arg(file);
        let Some((cpu, _)) = time(&format!("ringtap report --layout {layout}"), &mut command) else {
            bail!("{} does not run; build it by `cargo build --release`", args.ringtap.display());
        };
        if let Some((rival, _)) = rival {
            println!("    {:.1} times as fast as trace-cmd", rival.as_secs_f64() / cpu.as_secs_f64());
        }
    }
    sched_setaffinity(None, &all)?;
    Ok(())
}

/// The shortest times with one, two, four and more threads, and how many times as fast as one each is. Rounds go by turns, so
/// that what disturbs one disturbs the others.
fn scale(args: &Args, file: &Path, layout: &str, threads: usize, out: Option<&Path>) -> Result<String> {
    let jobs = std::iter::successors(Some(1), |jobs| Some(jobs * 2)).take_while(|&jobs| jobs <= threads);
    let mut shortest: Vec<(usize, Duration)> = jobs.map(|jobs| (jobs, Duration::MAX)).collect();
    for _ in 0..args.rounds.max(1) {
        for (jobs, shortest) in &mut shortest {
            let mut command = Command::new(&args.ringtap);
            command.args(["report", "--layout", layout, "--jobs", &jobs.to_string()]).arg(file);
            command.stdout(match out {
                Some(out) => Stdio::from(File::create(out)?),
                None => Stdio::null(),
            });
            let now = Instant::now();
            let status = command.status().context("cannot start ringtap")?;
            ensure!(status.success(), "ringtap report failed");
            *shortest = now.elapsed().min(*shortest);
        }
    }
    let alone = shortest.first().context("at least one thread")?.1.as_secs_f64();
    let shown = shortest.iter().map(|(jobs, time)| {
        let time = time.as_secs_f64();
        format!("{jobs} threads {time:.2} s, {:.2} times as fast as one", alone / time)
    });
    Ok(shown.skip(1).fold(format!("1 thread {alone:.2} s"), |all, next| format!("{all}; {next}")))
}

/// CPU time and time of a command; `None`, and one line that says so, where it does not run.
fn time(name: &str, command: &mut Command) -> Option<(Duration, Duration)> {
    let (cpu, now) = (children_cpu(), Instant::now());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let passed = now.elapsed();
    let cpu = children_cpu().saturating_sub(cpu);
    if !status.is_ok_and(|status| status.success()) {
        println!("{name}: skipped, as it does not run");
        return None;
    }
    println!("{name}: {:.2} s CPU, {:.2} s", cpu.as_secs_f64(), passed.as_secs_f64());
    Some((cpu, passed))
}

/// CPU time of all children that were waited for.
fn children_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // The 16th and 17th of all fields; two stand before the bracket.
    let ticks: u64 = fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second())
}

/// Writes a file of about `size` bytes.
fn grow(capture: &Path, out: &Path, size: usize) -> Result<()> {
    let bytes = fs::read(capture).with_context(|| format!("cannot read {}", capture.display()))?;
    ensure!(
        bytes.starts_with(b"\x17\x08\x44tracing6\0"),
        "{} is no trace.dat of version 6",
        capture.display()
    );
    let mark = b"flyrecord\0";
    let behind = bytes.windows(mark.len()).position(|window| window == mark).context("no data")? + mark.len();
    let number = |at: usize| {
        let number =
            bytes.get(at..).and_then(|rest| rest.first_chunk()).context("the capture is cut short")?;
        anyhow::Ok(u64::from_le_bytes(*number))
    };
    // The first CPU's data begin behind the table of all.
    let first = usize::try_from(number(behind)?)?;
    let mut spans: Vec<Range<usize>> = Vec::new();
    let mut at = behind;
    while at + 16 <= first && number(at)? != 0 {
        let start = usize::try_from(number(at)?)?;
        spans.push(start..start + usize::try_from(number(at + 8)?)?);
        at += 16;
    }
    let held: usize = spans.iter().map(Range::len).sum();
    ensure!(held > 0 && spans.iter().all(|span| span.len().is_multiple_of(PAGE)), "pages are not of 4 KiB");
    let times: Vec<u64> =
        spans.iter().cloned().flat_map(|span| span.step_by(PAGE)).map(&number).collect::<Result<_>>()?;
    let (earliest, latest) = (times.iter().min().context("no page")?, times.iter().max().context("no page")?);
    let period = latest - earliest + PAUSE_NS;
    let rounds = (size / held).max(1);

    let mut file =
        BufWriter::new(File::create(out).with_context(|| format!("cannot make {}", out.display()))?);
    file.write_all(&bytes[..behind])?;
    let mut place = first;
    for span in &spans {
        let len = span.len() * rounds;
        file.write_all(&u64::try_from(place)?.to_le_bytes())?;
        file.write_all(&u64::try_from(len)?.to_le_bytes())?;
        place += len;
    }
    file.write_all(&vec![0; first - at])?;
    for span in spans {
        for round in 0..u64::try_from(rounds)? {
            for page in bytes[span.clone()].chunks_exact(PAGE) {
                let time = u64::from_le_bytes(*page.first_chunk().context("a page has a time")?);
                file.write_all(&(time + round * period).to_le_bytes())?;
                file.write_all(&page[8..])?;
            }
        }
    }
    Ok(file.flush()?)
}
