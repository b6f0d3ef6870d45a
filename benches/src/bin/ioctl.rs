//! What a GET_READER through FUSE costs, beside an empty ioctl through FUSE in the same run.

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use ringtap::clock::ClockId;
use ringtap::{Config, Instances, Reader};
use ringtap_benches::guest;
use ringtap_daemon::control::Control;
use ringtap_daemon::fs::{Mount, Ownership, Tree};
use rustix::fd::{AsRawFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::CpuSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Measure a GET_READER through FUSE beside an empty ioctl through FUSE
#[derive(Debug, Parser)]
struct Args {
    /// Rounds, of which the median counts
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Calls of each kind in a round
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Where the client and the thread that answers it run
    #[arg(long, value_enum, default_value_t = Place::Free)]
    place: Place,
    /// Fail where the ratio is higher
    #[arg(long)]
    limit: Option<f64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Place {
    /// Where the scheduler puts them
    Free,
    /// On one CPU
    Together,
    /// On CPU 0, and on CPU 1
    Apart,
}

/// Keeps a thread on a CPU: this one, or one of this process.
fn pin(thread: Option<Pid>, cpu: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    rustix::thread::sched_setaffinity(thread, &only).with_context(|| format!("run on CPU {cpu}"))
}

/// The thread that answers requests, which gives itself its name when it begins.
fn server() -> anyhow::Result<Pid> {
    for _ in 0..1000 {
        if let Some(thread) = find_server()? {
            return Ok(thread);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    anyhow::bail!("find the server's thread")
}

fn find_server() -> anyhow::Result<Option<Pid>> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.trim_end() == "ringtap-fuse" {
            let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            return Ok(number.and_then(Pid::from_raw));
        }
    }
    Ok(None)
}

/// `TRACE_MMAP_IOCTL_GET_READER`.
const GET_READER: libc::c_ulong = 0x5220;
/// No command: the server looks the file up, and says `ENOTTY`.
const EMPTY: libc::c_ulong = 0x5299;

fn main() -> ExitCode {
    guest::main(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let instances = Instances::new(&Config { clock: Some(ClockId::Mono), ..Config::default() })?;
    let tree = Tree::new(Control::new(instances.clone()), Ownership::default());
    let directory = std::env::temp_dir().join(format!("ringtap-ioctl-{}", std::process::id()));
    std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    let measured = Mount::new(&tree, &directory)
        .map_err(Into::into)
        .and_then(|mount| measure(args, mount.path(), &instances));
    std::fs::remove_dir(&directory)?;
    measured
}

fn measure(args: &Args, directory: &Path, instances: &Instances) -> anyhow::Result<()> {
    if let Some(cpu) = match args.place {
        Place::Free => None,
        Place::Together => Some(0),
        Place::Apart => Some(1),
    } {
        pin(None, 0)?;
        pin(Some(server()?), cpu)?;
    }
    let open = || -> Result<OwnedFd, rustix::io::Errno> {
        let path = directory.join("per_cpu/cpu0/trace_pipe_raw");
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    };
    // Kept, so that the buffer stays mapped.
    let _mapped = Reader::open_kernel(open()?, 0, ClockId::Mono)?;
    let raw = open()?;
    rustix::fs::fcntl_setfl(&raw, OFlags::NONBLOCK)?;
    let writer = instances.writer();
    let mut each = [EMPTY, GET_READER].map(|command| (command, Vec::new()));
    for _ in 0..args.rounds {
        for (command, times) in &mut each {
            let begin = Instant::now();
            for _ in 0..args.calls {
                ringtap::event::marker::print(&writer, "one event for each")?;
                // SAFETY: these commands take no argument and touch no memory of ours but what is mapped.
                let done = unsafe { libc::ioctl(raw.as_raw_fd(), *command as _) };
                ensure!(
                    done == 0 || *command == EMPTY,
                    "ioctl {command:#x}: {}",
                    std::io::Error::last_os_error()
                );
            }
            times.push(begin.elapsed() / args.calls);
        }
    }
    let [empty, get_reader] = each.map(|(_, mut times)| {
        times.sort();
        times[times.len() / 2]
    });
    let ratio = get_reader.as_secs_f64() / empty.as_secs_f64();
    println!("empty ioctl {empty:?}, GET_READER {get_reader:?}: {ratio:.2} times");
    ensure!(args.limit.is_none_or(|limit| ratio <= limit), "GET_READER through FUSE costs too much");
    Ok(())
}
