//! What recording costs: the kernel's events beside `trace-cmd record`, and an application's without a loss.

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use ringtap::tracefs::Tracefs;
use ringtap_benches::{cpu, process};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

ringtap::event! {
    /// As large as the other benches' events.
    struct Tick as bench:tick { number: u64, time: u64 }
}

/// Measure `ringtap record` (build ringtap-cli with --release first)
#[derive(Debug, Parser)]
struct Args {
    /// The program [default: ringtap, beside this one]
    #[arg(long, global = true)]
    ringtap: Option<PathBuf>,
    /// The folder of the files; a tmpfs leaves the disk out
    #[arg(long, global = true, default_value = "/dev/shm")]
    folder: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// CPU time of recorders of the kernel's events, under the same load, in turn
    Kernel {
        /// How often each takes its turn
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Messages that the load sends, each a few events
        #[arg(long, default_value_t = 200_000)]
        messages: u32,
    },
    /// An application that writes at a steady rate on all CPUs
    Application {
        /// Events a second, of all CPUs together
        #[arg(long, default_value_t = 5_000_000)]
        rate: u64,
        /// How long
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Have the disk take it every so many seconds
        #[arg(long)]
        sync: Option<u32>,
    },
    /// The application.
    #[command(hide = true)]
    Writer { rate: u64, seconds: u64 },
}

fn main() -> Result<()> {
    let args = Args::parse();
    let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("ringtap"));
    let ringtap = args.ringtap.clone().map_or_else(beside, Ok)?;
    match args.what {
        What::Kernel { rounds, messages } => kernel(&ringtap, &args.folder, rounds, messages),
        What::Application { rate, seconds, sync } => application(&ringtap, &args.folder, rate, seconds, sync),
        What::Writer { rate, seconds } => write(rate, seconds),
    }
}

/// What a recorder did.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    cpu_s: f64,
    events: u64,
    lost: u64,
}

const EVENTS: [&str; 6] = ["-e", "sched:sched_switch", "-e", "sched:sched_waking", "-e", "raw_syscalls"];

fn kernel(ringtap: &Path, folder: &Path, rounds: u32, messages: u32) -> Result<()> {
    let ours: &[&str] = &["record", "--json", "--kernel", "--buffer-size", "8192"];
    let contenders: [(&str, &[&str]); 4] = [
        ("trace-cmd record", &[]),
        ("trace-cmd record --compression none", &["--compression", "none"]),
        ("ringtap record", ours),
        (
            "ringtap record --compress",
            &["record", "--json", "--kernel", "--buffer-size", "8192", "--compress"],
        ),
    ];
    let file = folder.join(format!("ringtap-bench-{}.dat", std::process::id()));
    let mut costs = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let which = (turn + round as usize) % contenders.len();
            let (name, options) = contenders[which];
            let cost = if name.starts_with("ringtap") {
                record_ours(ringtap, options, &file, messages)
            } else {
                record_theirs(options, &file, messages)
            };
            match cost {
                Ok(cost) => costs[which].push(cost),
                Err(error) if round == 0 => println!("skipped: {name}: {error:#}"),
                Err(error) => return Err(error),
            }
        }
    }
    let _ = fs::remove_file(&file);
    let median = |costs: &[Cost]| {
        let mut sorted: Vec<f64> = costs.iter().map(|cost| cost.cpu_s).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    };
    let base = median(&costs[0]).or_else(|| median(&costs[2])).context("nothing was measured")?;
    println!("{:<38} {:>9} {:>7} {:>12} {:>10}", "", "CPU s", "ratio", "events", "lost");
    for ((name, _), costs) in contenders.iter().zip(&costs) {
        let (Some(cpu), Some(last)) = (median(costs), costs.last()) else { continue };
        println!("{name:<38} {cpu:>9.2} {:>7.2} {:>12} {:>10}", cpu / base, last.events, last.lost);
    }
    Ok(())
}

/// CPU time of the children that were waited for, in seconds.
fn children_cpu_s() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let behind_name = stat.rsplit_once(')').context("/proc/self/stat")?.1;
    // Fields 16 and 17 of all, the first two of which are cut off.
    let ticks = behind_name.split_whitespace().skip(13).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Runs a recorder while the load runs, and what it printed.
fn run(command: &mut Command, is_ready: impl Fn() -> bool, messages: u32) -> Result<(f64, String)> {
    let before = children_cpu_s()?;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_ready() {
        ensure!(child.try_wait()?.is_none() && Instant::now() < deadline, "it does not record");
        thread::sleep(Duration::from_millis(10));
    }
    ping_pong(messages)?;
    kill_process(Pid::from_child(&child), Signal::INT)?;
    let mut output = String::new();
    child.stdout.take().context("no output")?.read_to_string(&mut output)?;
    child.wait()?;
    Ok((children_cpu_s()? - before, output))
}

fn record_ours(ringtap: &Path, options: &[&str], file: &Path, messages: u32) -> Result<Cost> {
    let mut command = Command::new(ringtap);
    command.args(options).args(EVENTS).arg("-o").arg(file);
    let before = recording_instances()?;
    let is_ready = || recording_instances().is_ok_and(|now| now > before);
    let (cpu_s, output) = run(&mut command, is_ready, messages)?;
    let (events, lost) = summary(&output)?;
    Ok(Cost { cpu_s, events, lost })
}

/// Events and losses, of the line that `ringtap record --json` prints.
fn summary(output: &str) -> Result<(u64, u64)> {
    let objects = output.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let summary = objects.into_iter().find(|object| object["type"] == "recorded");
    let summary = summary.with_context(|| format!("no summary in {output:?}"))?;
    let number = |key: &str| summary[key].as_u64().with_context(|| format!("no {key}"));
    Ok((number("events")?, number("lost")?))
}

/// How many instances record now.
fn recording_instances() -> Result<usize> {
    let instances = fs::read_dir(Tracefs::find()?.root().join("instances"))?;
    let records =
        |path: PathBuf| fs::read_to_string(path.join("tracing_on")).is_ok_and(|on| on.trim() == "1");
    Ok(instances.flatten().filter(|entry| records(entry.path())).count())
}

/// As a user runs it; but where a sandbox forbids it to choose functions, which it does unasked, those files are
/// hidden from it.
fn record_theirs(options: &[&str], file: &Path, messages: u32) -> Result<Cost> {
    if let Some(missing) = process::missing(&["trace-cmd", "unshare", "mount"]) {
        bail!("{missing} is not installed");
    }
    let name = format!("ringtap-bench-{}", std::process::id());
    let folder = Tracefs::find()?.root().join("instances").join(&name);
    fs::create_dir(&folder)?;
    let script = "echo 1 >\"$0\"; mount --bind \"$0\" /proc/sys/kernel/ftrace_enabled; cd \"$1\" || exit; shift\n\
        for f in set_ftrace_* set_graph_*; do [ ! -e $f ] || mount --bind /dev/null $f; done\n\
        cd /; exec trace-cmd record \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(file.with_extension("scratch")).arg(&folder);
    command.args(["-B", &name, "-b", "8192"]).args(EVENTS).args(options).arg("-o").arg(file);
    fs::write(folder.join("tracing_on"), "0")?;
    let is_ready = || {
        let on = |file: &str| fs::read_to_string(folder.join(file)).is_ok_and(|on| on.trim() == "1");
        on("tracing_on") && on("events/sched/sched_waking/enable")
    };
    let ran = run(&mut command, is_ready, messages);
    let _ = fs::remove_dir(&folder);
    let _ = fs::remove_file(file.with_extension("scratch"));
    let (cpu_s, _) = ran?;
    // The counters of its CPUs are in its file.
    let dump = Command::new("trace-cmd").args(["dump", "--options", "-i"]).arg(file).output()?;
    let output = String::from_utf8_lossy(&dump.stdout);
    let sum = |key: &str| -> u64 {
        let numbers = output.lines().filter_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        numbers.sum()
    };
    Ok(Cost { cpu_s, events: sum("read events:"), lost: sum("overrun:") + sum("dropped events:") })
}

/// Two threads that send each other a byte.
fn ping_pong(messages: u32) -> Result<()> {
    let (mut from_first, mut to_second) = std::io::pipe()?;
    let (mut from_second, mut to_first) = std::io::pipe()?;
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> std::io::Result<()> {
            let mut byte = [0];
            for _ in 0..messages {
                from_first.read_exact(&mut byte)?;
                to_first.write_all(&byte)?;
            }
            Ok(())
        });
        let mut byte = [1];
        for _ in 0..messages {
            to_second.write_all(&byte)?;
            from_second.read_exact(&mut byte)?;
        }
        echo.join().map_err(|_| anyhow::anyhow!("the echo has failed"))??;
        Ok(())
    })
}

fn application(ringtap: &Path, folder: &Path, rate: u64, seconds: u64, sync: Option<u32>) -> Result<()> {
    let file = folder.join(format!("ringtap-bench-{}.dat", std::process::id()));
    let mut command = Command::new(ringtap);
    command.args(["record", "--json", "-o"]).arg(&file);
    if let Some(seconds) = sync {
        command.args(["--sync", &seconds.to_string()]);
    }
    command.arg("--").arg(std::env::current_exe()?);
    command.args(["writer", &rate.to_string(), &seconds.to_string()]);
    let before = children_cpu_s()?;
    let began = Instant::now();
    let output = command.stderr(Stdio::inherit()).output()?;
    let passed = began.elapsed();
    let cpu_s = children_cpu_s()? - before;
    let output = String::from_utf8_lossy(&output.stdout);
    let (events, lost) = summary(&output)?;
    let len = fs::metadata(&file)?.len();
    let _ = fs::remove_file(&file);
    let written: u64 =
        output.lines().find_map(|line| line.strip_prefix("written ")?.parse().ok()).unwrap_or(0);
    let writers_s: f64 =
        output.lines().find_map(|line| line.strip_prefix("cpu ")?.parse().ok()).unwrap_or(0.0);
    println!("written   {written} events, {:.2} million a second", written as f64 / seconds as f64 / 1e6);
    println!("recorded  {events} events, {:.1} MB", len as f64 / 1e6);
    println!("lost      {lost}");
    println!("time      {:.1} s, the end of the file included", passed.as_secs_f64());
    println!("CPU       {:.2} s of the recorder, {writers_s:.2} s of the writers", cpu_s - writers_s);
    ensure!(events == written && lost == 0, "events were lost");
    Ok(())
}

/// Writes at a steady rate: a thousandth of a second's events at once on each CPU, then sleeps.
fn write(rate: u64, seconds: u64) -> Result<()> {
    let connection = ringtap::attach::Connection::from_environment(ringtap::attach::Role::Writer)?
        .context("to be started by `record application`")?;
    let cpus = cpu::allowed()?;
    let each = rate / cpus.len() as u64 / 1000;
    Tick::register(&connection)?;
    let start = Instant::now();
    let written: u64 = thread::scope(|scope| {
        let writers: Vec<_> = cpus
            .iter()
            .map(|&cpu| {
                let connection = &connection;
                scope.spawn(move || -> Result<u64> {
                    cpu::pin(cpu)?;
                    let writer = connection.writer()?;
                    let mut number = 0;
                    for ms in 0..seconds * 1000 {
                        for _ in 0..each {
                            Tick { number, time: ms }.write(&writer);
                            number += 1;
                        }
                        let next = start + Duration::from_millis(ms + 1);
                        thread::sleep(next.saturating_duration_since(Instant::now()));
                    }
                    Ok(number)
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("no panic")).sum::<Result<u64>>()
    })?;
    println!("written {written}");
    let stat = fs::read_to_string("/proc/self/stat")?;
    let ticks = stat.rsplit_once(')').context("/proc/self/stat")?.1.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(str::parse::<u64>).sum::<Result<_, _>>()?;
    println!("cpu {}", ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
    Ok(())
}
