//! Many processes attached to one instance: how long attaching takes, how soon they see that an event was switched, and
//! what an idle one costs the host.

use anyhow::{Context, bail, ensure};
use clap::Parser;
use ringtap::attach::Attachment;
use ringtap::{Config, Instances};
use ringtap_benches::guest;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

ringtap::event! {
    /// Nothing is written: that it is on is what counts.
    pub struct Looked as bench:looked { number: u64 }
}

/// Measure what many attached processes cost, and how soon a switched event reaches them
#[derive(Debug, Parser)]
struct Args {
    /// Processes to attach
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    processes: u32,
    /// How often the event is switched on and off
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Milliseconds that a process sleeps between two looks at its event
    #[arg(long, default_value_t = 10)]
    pause_ms: u64,
    /// Fail where attaching takes longer, in milliseconds (99th percentile)
    #[arg(long)]
    attach_limit: Option<f64>,
    /// Fail where a switch takes longer to be seen, in milliseconds (median)
    #[arg(long)]
    switch_limit: Option<f64>,
    /// Be such a process, of the host at this socket
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

fn main() -> ExitCode {
    guest::main(|| {
        let args = Args::parse();
        match &args.child {
            Some(socket) => be_child(socket, Duration::from_millis(args.pause_ms)),
            None => run(&args),
        }
    })
}

/// Nanoseconds of a clock that all processes share.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Attaches, tells how long it took, and for each line on stdin tells when it saw the event change.
fn be_child(socket: &Path, pause: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    let attachment = Attachment::attach(socket)?;
    let _writer = attachment.writer();
    let took = start.elapsed();
    Looked::register(&attachment)?;
    println!("{}", took.as_nanos());
    for line in std::io::stdin().lock().lines() {
        line?;
        let before = Looked::is_on();
        println!("looking");
        let mut last_unchanged = now_ns();
        loop {
            let now = now_ns();
            if Looked::is_on() != before {
                println!("{last_unchanged} {}", now_ns());
                break;
            }
            last_unchanged = now;
            std::thread::sleep(pause);
        }
    }
    Ok(())
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(socket: &Path, pause_ms: u64) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--child")
            .arg(socket)
            .args(["--pause-ms", &pause_ms.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start a process")?;
        let input = child.stdin.take().context("it is piped")?;
        let output = BufReader::new(child.stdout.take().context("it is piped")?);
        Ok(Self { child, input, output })
    }

    fn hear(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "a process ended early");
        Ok(line.trim_end().to_owned())
    }

    /// How often its link's thread gave up the processor: each system call in which it waits is one.
    fn link_switches(&self) -> anyhow::Result<u64> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm"))?.trim_end() == "ringtap-link" {
                return voluntary_switches(&task);
            }
        }
        bail!("a process has no link")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn voluntary_switches(task: &Path) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(task.join("status"))?;
    let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(switches.context("the kernel counts them")?.trim().parse()?)
}

fn run(args: &Args) -> anyhow::Result<()> {
    let directory = std::env::temp_dir().join(format!("ringtap-bench-attach-{}", std::process::id()));
    let socket = directory.join("host.sock");
    let instances = Instances::new(&Config::default())?;
    let server = instances.serve(&socket)?;
    let measured = measure(args, &instances, &socket);
    drop(server);
    let _ = std::fs::remove_dir(&directory);
    measured
}

fn measure(args: &Args, instances: &Instances, socket: &Path) -> anyhow::Result<()> {
    let mut processes = Vec::new();
    let mut attach = Vec::new();
    let empty = Cost::now()?;
    for _ in 0..args.processes {
        let mut process = Process::start(socket, args.pause_ms)?;
        attach.push(ms(process.hear()?.parse()?));
        processes.push(process);
    }
    let full = Cost::now()?;
    attach.sort_by(f64::total_cmp);
    println!("{} processes", args.processes);
    println!(
        "attach: median {:.3} ms, 99 % {:.3} ms, worst {:.3} ms",
        at(&attach, 50),
        at(&attach, 99),
        at(&attach, 100)
    );
    let kib = |bytes: u64| bytes as f64 / f64::from(args.processes) / 1024.0;
    println!("host memory: {:.1} KiB a client", kib(full.rss.saturating_sub(empty.rss)));
    idle(&mut processes)?;
    let (seen, stale) = switch(args, instances, &mut processes)?;
    println!(
        "switched: seen after {:.3} ms (median), {:.3} ms (99 %), by processes that look every {} ms",
        at(&seen, 50),
        at(&seen, 99),
        args.pause_ms
    );
    println!("looks behind the switch that saw the old state: {stale}");
    if let Some(limit) = args.attach_limit {
        ensure!(at(&attach, 99) <= limit, "attaching took more than {limit} ms");
    }
    if let Some(limit) = args.switch_limit {
        ensure!(at(&seen, 50) <= limit, "the switch took more than {limit} ms to be seen");
    }
    Ok(())
}

/// What the host spends while all processes are idle.
fn idle(processes: &mut [Process]) -> anyhow::Result<()> {
    const SPELL: Duration = Duration::from_secs(3);
    std::thread::sleep(Duration::from_secs(1));
    let before = Cost::now()?;
    std::thread::sleep(SPELL);
    let after = Cost::now()?;
    println!(
        "host beside {} idle processes: {:.3} ms of CPU a second, memory {:+} KiB",
        processes.len(),
        ms(after.cpu_ns - before.cpu_ns) / SPELL.as_secs_f64(),
        after.rss.cast_signed() / 1024 - before.rss.cast_signed() / 1024,
    );
    Ok(())
}

/// When each process saw each switch, in milliseconds behind it, in order; and how many looked behind the switch
/// and saw the old state.
fn switch(
    args: &Args,
    instances: &Instances,
    processes: &mut [Process],
) -> anyhow::Result<(Vec<f64>, usize)> {
    let id = instances.event("bench", "looked").context("they declared it")?.id;
    let (mut seen, mut stale, mut woken) = (Vec::new(), 0, 0);
    for round in 0..args.rounds {
        for process in processes.iter_mut() {
            writeln!(process.input, "look")?;
        }
        for process in processes.iter_mut() {
            ensure!(process.hear()? == "looking", "a process said something else");
        }
        let links: Vec<u64> = processes.iter().map(Process::link_switches).collect::<Result<_, _>>()?;
        instances.top().set_event(id, round.is_multiple_of(2));
        let done = now_ns();
        for process in processes.iter_mut() {
            let said = process.hear()?;
            let (unchanged, changed) = said.split_once(' ').context("two numbers")?;
            let (unchanged, changed): (u64, u64) = (unchanged.parse()?, changed.parse()?);
            stale += usize::from(unchanged > done);
            seen.push(ms(changed.saturating_sub(done)));
        }
        for (process, before) in processes.iter().zip(links) {
            woken += process.link_switches()? - before;
        }
    }
    println!("links that woke for it: {woken}");
    seen.sort_by(f64::total_cmp);
    Ok((seen, stale))
}

/// What this process has spent and has.
struct Cost {
    cpu_ns: u64,
    rss: u64,
}

impl Cost {
    fn now() -> anyhow::Result<Self> {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let statm = std::fs::read_to_string("/proc/self/statm")?;
        let pages: u64 = statm.split(' ').nth(1).context("the kernel counts them")?.parse()?;
        let cpu_ns = cpu.tv_sec.cast_unsigned() * 1_000_000_000 + cpu.tv_nsec.cast_unsigned();
        Ok(Self { cpu_ns, rss: pages * rustix::param::page_size() as u64 })
    }
}

#[expect(clippy::cast_precision_loss, reason = "the numbers are far below 2^52")]
fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// The value below which so many percent are.
fn at(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
