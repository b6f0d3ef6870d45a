//! What `ringtap-preload` costs a program that nobody changed: pairs of `malloc` and `free`, in one run by turns without
//! the library, with it and its events off, and with both events on.

use anyhow::{Context, ensure};
use clap::Parser;
use ringtap::{Config, Instances};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Measure what a traced malloc and free cost
#[derive(Debug, Parser)]
struct Args {
    /// Turns of each kind
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
    /// Pairs in a turn
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// The library; without it, the one beside this program
    #[arg(long)]
    library: Option<PathBuf>,
    /// Fail where a traced pair costs more above a plain one, in nanoseconds (median of the turns)
    #[arg(long)]
    limit: Option<f64>,
    /// Be the program that is traced
    #[arg(long, hide = true)]
    child: bool,
}

/// Of the events; others stay off.
const EVENTS: [&str; 2] = ["malloc", "free"];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.child { be_child(args.pairs) } else { run(&args) }
}

/// For each line on the standard input, does a turn and tells the nanoseconds of a pair.
fn be_child(pairs: u32) -> anyhow::Result<()> {
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        for _ in 0..pairs {
            // SAFETY: asks the allocator.
            let memory = unsafe { libc::malloc(black_box(24)) };
            // SAFETY: it was just allocated.
            unsafe { libc::free(black_box(memory)) };
        }
        println!("{}", start.elapsed().as_secs_f64() * 1e9 / f64::from(pairs));
    }
    Ok(())
}

struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(pairs: u32, environment: &[(&str, &Path)]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--child", "--pairs", &pairs.to_string()]).envs(environment.iter().copied());
        command.env("RINGTAP_PRELOAD_EVENTS", EVENTS.join(",")).env("RINGTAP_PRELOAD_VERBOSE", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("it is piped")?;
        let output = BufReader::new(child.stdout.take().context("it is piped")?);
        let mut program = Self { child, input, output };
        // Threads and pages find their places.
        program.turn()?;
        Ok(program)
    }

    fn turn(&mut self) -> anyhow::Result<f64> {
        writeln!(self.input)?;
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the program ended early");
        Ok(line.trim().parse()?)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let beside = std::env::current_exe()?.with_file_name("libringtap_preload.so");
    let library = args.library.clone().unwrap_or(beside);
    ensure!(library.exists(), "{} is missing: build it with -p ringtap-preload", library.display());
    let instances = Instances::new(&Config::default())?;
    let socket = std::env::temp_dir().join(format!("ringtap-bench-preload-{}", std::process::id()));
    let server = instances.serve(&socket)?;
    let mut plain = Program::start(args.pairs, &[])?;
    let mut traced =
        Program::start(args.pairs, &[("LD_PRELOAD", &library), ("RINGTAP_SOCKET", server.path())])?;
    let find = |name| instances.event("libc_alloc", name).with_context(|| format!("{name} was not declared"));
    let ids = [find(EVENTS[0])?.id, find(EVENTS[1])?.id];
    let top = instances.top();
    let written = || -> u64 {
        let host = top.host();
        host.cpus()
            .iter()
            .filter_map(|&cpu| host.stats(cpu).ok())
            .map(|stats| stats.entries + stats.overrun)
            .sum()
    };
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..args.rounds {
        times[0].push(plain.turn()?);
        times[1].push(traced.turn()?);
        ids.iter().for_each(|&id| top.set_event(id, true));
        let before = written();
        times[2].push(traced.turn()?);
        ids.iter().for_each(|&id| top.set_event(id, false));
        let events = written() - before;
        ensure!(events >= 2 * u64::from(args.pairs), "only {events} events were written");
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[0])
    };
    let [plain, off, on] = [0, 1, 2].map(|kind| median(&mut times[kind]));
    println!("ns for malloc + free     median   best");
    for (kind, (median, best)) in
        [("without the library", plain), ("with it, events off", off), ("both events on", on)]
    {
        println!("{kind:23} {median:7.1} {best:6.1}");
    }
    let above = on.0 - plain.0;
    println!(
        "events off: {:+.1} ns; traced: {above:+.1} ns a pair (best turns: {:+.1})",
        off.0 - plain.0,
        on.1 - plain.1
    );
    ensure!(
        args.limit.is_none_or(|limit| above <= limit),
        "a traced pair costs {above:.1} ns more than a plain one"
    );
    Ok(())
}
