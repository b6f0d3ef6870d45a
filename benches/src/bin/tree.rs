//! How long it takes to read a mounted tree in which programs have declared many events.

use anyhow::{Context as _, ensure};
use clap::Parser;
use ringtap::{Config, Instances};
use ringtap_benches::guest;
use ringtap_daemon::control::Control;
use ringtap_daemon::fs::{Mount, Ownership, Tree};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Measure `cat` of each readable file of a mounted tree
#[derive(Debug, Parser)]
struct Args {
    /// Events that are declared
    #[arg(long, default_value_t = 2000)]
    events: u32,
    /// How often the tree is read, of which the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Fail where it takes longer, in seconds
    #[arg(long)]
    limit: Option<f64>,
}

/// Events of one system.
const OF_SYSTEM: u32 = 40;

fn main() -> ExitCode {
    guest::main(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let instances = Instances::new(&Config::default())?;
    for number in 0..args.events {
        let name = format!("event{number}");
        let text =
            format!("name: {name}\nID: 0\nformat:\n{FIELDS}\nprint fmt: \"number=%llu\", REC->number\n");
        instances.register_event(&format!("system{}", number / OF_SYSTEM), &name, &text)?;
    }
    let tree = Tree::new(Control::new(instances), Ownership::default());
    let directory = std::env::temp_dir().join(format!("ringtap-tree-{}", std::process::id()));
    std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    let measured =
        Mount::new(&tree, &directory).map_err(Into::into).and_then(|mount| measure(args, mount.path()));
    std::fs::remove_dir(&directory)?;
    measured
}

/// What each event has.
const FIELDS: &str = "\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
\tfield:u64 number;\toffset:8;\tsize:8;\tsigned:0;\n";

fn measure(args: &Args, directory: &Path) -> anyhow::Result<()> {
    // Pipes wait for events; who may not read a file is told so by its mode.
    let files = "find . -type f -perm /444 ! -name 'trace_pipe*' ! -name snapshot_raw -print0";
    let count = shell(directory, &format!("{files} | tr -cd '\\0' | wc -c"))?;
    let mut times = Vec::new();
    for _ in 0..args.rounds {
        let begin = Instant::now();
        shell(directory, &format!("{files} | xargs -0 cat > /dev/null"))?;
        times.push(begin.elapsed());
    }
    times.sort();
    let [best, median, worst] = [0, times.len() / 2, times.len() - 1].map(|place| times[place]);
    println!("{} files of {} events: {median:?} ({best:?} to {worst:?})", count.trim(), args.events);
    let limit = args.limit.map(Duration::from_secs_f64);
    ensure!(limit.is_none_or(|limit| median <= limit), "reading the tree takes too long");
    Ok(())
}

fn shell(directory: &Path, script: &str) -> anyhow::Result<String> {
    let output = Command::new("sh").args(["-c", script]).current_dir(directory).stdin(Stdio::null()).output();
    let output = output.context("run sh")?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
