//! `ringtap record`: events to a file.

mod application;
mod crash;
pub(super) mod files;
mod kernel;
mod progress;
mod recent;
mod session;
mod sink;
mod text;
mod trigger;

use crate::child;
use crate::command::held;
use crate::command::host_side::{ApplicationPlan, AttachPlan};
use crate::command::stream::kernel::KernelPlan;
use crate::command::stream::{Filter, other_host, write_command};
use crate::misuse;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::preload::{self, Preload};
use crate::probes;
use crate::remote;
use anyhow::{Result, bail};
use recent::Last;
use ringtap::clock::{self, ClockId};
use ringtap::instance::Pattern;
use ringtap::tracefs::EventName;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trigger::Trigger;

const EXAMPLES: &str = "\
Examples:
  Task switches of the whole machine:      ringtap record --kernel -e sched:sched_switch
  A program that uses ringtap:             ringtap record -o prog.dat -- ./program
  It, and what the kernel does for it:     ringtap record --kernel -e sched -- ./program
  A program that nobody changed:           ringtap record --preload libc -- make
  An application that serves its buffers:  ringtap record --attach /run/app/ringtap.sock
  The last 64 MB before a process dies:    ringtap record --kernel -e sched --last 64 \\
                                             --snapshot-on oom:mark_victim
  The last 10 s before a program crashes:  ringtap record --snapshot-on crash --last 10s -- ./prog
  Of one that serves its buffers itself:   ringtap record --snapshot-on crash --attach /run/app.sock
  Some events under `ringtap serve`:       ringtap record -e shop:*
  For days, in files of 1 GB, the last 8:  ringtap record --kernel -e irq --compress \\
                                             --rotate-size 1024 --files 8

FILE is a trace.dat, for `ringtap report`, trace-cmd and KernelShark. It can be read at each moment,
also when the recorder was killed or the disk is full. Until the recording ends it has holes: it
looks longer than the space it takes.

With --snapshot-on all stays in memory until it happens: a signal to the recorder, an EVENT (which is
not recorded itself, as with the kernel's `traceoff`), the end of the recording, or a crash. That is a
death by a signal that did not ask it to end, or a Rust panic, of COMMAND, of a process that traces
through its host, or of the host of --attach, whose buffers are read after its death. Without a crash
there is no file. The next snapshots go to FILE.1 and so on.

EVENTs are chosen as by `ringtap stream`: those that the kernel has are the kernel's, the others the
application's; a source whose events none of them names is not restricted. At a host of `ringtap
serve` they are on for as long as they are recorded, as with `ringtap start`; what is on there
besides, and what its buffers hold already, is recorded as well.

Without --kernel, --attach and COMMAND the host of RINGTAP_SOCKET, else `ringtap serve`, is recorded.
COMMAND finds the socket of the application's host in RINGTAP_SOCKET: the one of --attach, or one
that lasts as long as COMMAND. The recording ends when COMMAND ends. Ctrl-C goes to COMMAND, which is
recorded until it has ended; again, it insists: by SIGTERM, then by SIGKILL.";

const USAGE: &str = "\
ringtap record [-o <FILE>] [--kernel] [--attach <SOCKET>] [-e <EVENT>]... [OPTIONS] [-- <COMMAND>...]";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
pub struct Args {
    /// Write to this file
    #[arg(short, long, value_name = "FILE", default_value = "trace.dat")]
    output: PathBuf,
    /// Record the kernel's events, through a tracing instance of our own
    #[arg(long)]
    kernel: bool,
    /// Record these events only; may be given more than once
    #[arg(short, long = "event", value_name = "EVENT")]
    events: Vec<String>,
    /// Record the application that serves its buffers on this socket, and consume its events
    #[arg(long, value_name = "SOCKET")]
    attach: Option<PathBuf>,
    /// Record this instance of the host, instead of its top one
    #[arg(short = 'B', long, value_name = "NAME", value_parser = remote::parse_instance)]
    instance: Option<String>,
    /// With --kernel and COMMAND: events of all processes, not of COMMAND and its children only
    #[arg(short, long, requires = "kernel", requires = "command")]
    all: bool,
    /// Trace what COMMAND and its children ask of the C library: allocations, I/O, locks, waits
    #[arg(long, value_enum, value_name = "LIBRARY", requires = "command", hide_possible_values = true)]
    preload: Option<preload::Library>,
    #[command(flatten)]
    probes: probes::Args,
    /// Version of the file: 7, or 6 for old programs
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u8).range(6..=7))]
    file_version: u8,
    /// Compress with zstd, in the background; LEVEL is its own, from 1 to 19
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(i32).range(1..=19))]
    compress: Option<i32>,
    /// Size of each CPU's buffer, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(256..=1 << 20))]
    buffer_size: u32,
    /// Write when one of the kernel's buffers is this full
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    buffer_percent: u32,
    /// Begin another file, FILE.1 and so on, when one has this many MB
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    rotate_size: Option<u64>,
    /// Begin another file after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    rotate_time: Option<u64>,
    /// Keep only so many files
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    files: Option<u32>,
    /// Have the disk take what was written every so many seconds, not only in the end
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    sync: Option<u64>,
    /// Keep all in memory, and write the file on a signal (USR1, USR2), an EVENT, at `exit` or after a `crash`
    #[arg(long, value_name = "WHEN")]
    snapshot_on: Vec<String>,
    /// With --snapshot-on: how much is kept: MB of all CPUs together, or seconds such as 30s; or one of each
    #[arg(long, value_name = "AMOUNT", requires = "snapshot_on")]
    last: Vec<Last>,
    /// Tell on the standard output when all that comes is recorded: for programs that start us.
    #[arg(long, hide = true)]
    announce: bool,
    /// Print the summary as a JSON object, on the standard output
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Print what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Run this command, and record until it ends
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// In KiB: a swap of sub-buffers costs the same, however large they are.
const SUBBUF_KIB: u32 = 64;

/// What will happen.
#[derive(Debug)]
pub struct Plan {
    path: PathBuf,
    kernel: Option<KernelPlan>,
    application: Option<ApplicationPlan>,
    version: u8,
    /// Of the compression, where there is one.
    level: Option<i32>,
    buffer_kib: u32,
    subbuf_kib: u32,
    percent: u32,
    rotate_bytes: Option<u64>,
    rotate_time: Option<Duration>,
    keep: Option<usize>,
    sync: Option<Duration>,
    snapshot_on: Vec<Trigger>,
    /// Events of the application's that ask for a snapshot; the others are the kernel's.
    application_triggers: Vec<EventName>,
    last: Last,
    announce: bool,
    json: bool,
    is_quiet: bool,
    /// The command to run; empty where there is none.
    command: Vec<OsString>,
    /// What the command is traced by without its doing.
    preload: Option<Preload>,
}

impl Args {
    /// Whether the options on several files go together.
    fn check_rotation(&self, is_flight_recorder: bool) -> Result<()> {
        let rotates = self.rotate_size.is_some() || self.rotate_time.is_some();
        if is_flight_recorder && rotates {
            misuse!("a flight recorder has nothing to rotate; leave out --rotate-size and --rotate-time");
        }
        if self.files.is_some() && !rotates && !is_flight_recorder {
            misuse!("--files keeps the last of several: add --rotate-size, --rotate-time or --snapshot-on");
        }
        Ok(())
    }
}

impl Plan {
    /// Finds all mistakes that can be found without changing anything.
    ///
    /// # Errors
    /// No usable tracefs, a kernel that is too old, an unknown event, or options that exclude each other.
    pub fn new(args: &Args) -> Result<Self> {
        if args.file_version == 6 && args.compress.is_some() {
            misuse!("a file of version 6 cannot be compressed; leave out --file-version or --compress");
        }
        let snapshot_on: Vec<_> =
            args.snapshot_on.iter().map(|when| Trigger::parse(when)).collect::<Result<_>>()?;
        args.check_rotation(!snapshot_on.is_empty())?;
        let last = Last::of(&args.last)?;
        let buffer_kib = last.buffer_kib()?.unwrap_or(args.buffer_size);
        let filter = Filter::new(&args.events)?;
        let has_other = args.kernel || !args.command.is_empty();
        let attach = other_host(args.attach.as_deref(), args.instance.as_deref(), has_other)?;
        let has_application = attach.is_some() || !args.command.is_empty();
        let follow = !args.command.is_empty() && !args.all;
        let plan = || KernelPlan::new(&filter, buffer_kib, has_application, follow);
        let with_probes = |plan: KernelPlan| plan.with_probes(&args.probes, &filter);
        let kernel = args.kernel.then(|| plan().and_then(with_probes)).transpose()?;
        let is_kernels = |pattern: &&String| {
            kernel.as_ref().is_some_and(|kernel| kernel.events.iter().any(|event| event.is_meant_by(pattern)))
        };
        let own = filter.patterns.iter().filter(|pattern| !is_kernels(pattern));
        let events = own.map(pattern).collect::<Result<_>>()?;
        let application_triggers = application_triggers(&snapshot_on, kernel.as_ref(), has_application)?;
        let awaits_crash = snapshot_on.contains(&Trigger::Crash);
        if awaits_crash && !has_application {
            misuse!("there is no program whose crash is waited for; add --attach or a COMMAND");
        }
        let application = match attach {
            Some(socket) => {
                let instance = args.instance.clone();
                let (consume, new, must_switch) = (true, false, true);
                Some(ApplicationPlan::Attach(AttachPlan {
                    socket,
                    instance,
                    consume,
                    new,
                    events,
                    must_switch,
                }))
            }
            None if args.command.is_empty() => None,
            None => Some(ApplicationPlan::Embed {
                subbuf_kib: SUBBUF_KIB,
                buffer_kib,
                clock: kernel.as_ref().map(common_clock).transpose()?,
                events,
            }),
        };
        Ok(Self {
            path: match args.output.as_os_str() == "-" {
                true => misuse!("a recording is a file that is completed in the end: name one, `-` is none"),
                false => args.output.clone(),
            },
            kernel,
            application,
            version: args.file_version,
            level: args.compress,
            buffer_kib,
            subbuf_kib: SUBBUF_KIB,
            percent: args.buffer_percent,
            rotate_bytes: args.rotate_size.map(|mb| mb * 1_000_000),
            rotate_time: args.rotate_time.map(Duration::from_secs),
            keep: args.files.map(usize::try_from).transpose()?,
            sync: args.sync.map(Duration::from_secs),
            snapshot_on,
            application_triggers,
            last,
            announce: args.announce,
            json: args.json,
            is_quiet: args.quiet,
            command: args.command.clone(),
            preload: Preload::find(args.preload, &args.events)?
                .map(|preload| preload.with_children(awaits_crash)),
        })
    }
}

/// The application's events that a pattern means, as its host takes it.
fn pattern(text: &String) -> Result<Pattern> {
    match text.parse() {
        Ok(pattern) => Ok(pattern),
        Err(error) => misuse!("'{text}' cannot choose an application's events: {error}"),
    }
}

/// The events among the triggers that the kernel does not have.
fn application_triggers(
    snapshot_on: &[Trigger],
    kernel: Option<&KernelPlan>,
    has_application: bool,
) -> Result<Vec<EventName>> {
    let mut own = Vec::new();
    for event in snapshot_on.iter().filter_map(Trigger::event) {
        match kernel.map(|kernel| kernel.tracefs.resolve(&event.to_string())) {
            Some(Ok(_)) => {}
            _ if has_application => own.push(event.clone()),
            Some(Err(unknown)) => return Err(unknown.into()),
            None => misuse!("{event} is nobody's event; add --kernel, --attach or a COMMAND"),
        }
    }
    Ok(own)
}

/// The cheapest clock of ours that the kernel has, too.
fn common_clock(kernel: &KernelPlan) -> Result<ClockId> {
    let cheapest = clock::cheapest();
    let has = kernel.tracefs.clocks()?.iter().any(|name| name == cheapest.name());
    Ok(if has { cheapest } else { ClockId::Mono })
}

/// Records.
///
/// # Errors
/// What [`Plan::new`] finds, a host or the kernel refuses, or the file cannot be written. No instance stays behind.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let plan = Plan::new(args)?;
    if args.dry_run {
        write!(output, "{plan}")?;
        return Ok(Outcome::Done);
    }
    // Before there is a file, which would be in the place of another.
    if let Some(program) = plan.command.first()
        && let Err(error) = child::look_for(program)
    {
        return Ok(held::refused(program, &error));
    }
    look_for_folder(&plan.path)?;
    session::run(&plan, output)
}

/// A flight recorder makes its file when it is too late to name another.
fn look_for_folder(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => bail!("cannot write {}: {} is no folder", file.display(), folder.display()),
        Err(error) => {
            bail!("cannot write {}: {error}; make the folder, or name another file with -o", file.display())
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.buffer_kib;
        if let Some(kernel) = &self.kernel {
            writeln!(f, "make a tracing instance in {}, {kib} KiB a CPU", kernel.tracefs.root().display())?;
            for event in &kernel.events {
                writeln!(f, "enable {event}")?;
            }
            kernel.probes.iter().try_for_each(|probe| writeln!(f, "{probe}"))?;
        }
        match &self.application {
            Some(ApplicationPlan::Attach(AttachPlan { socket, events, .. })) => {
                writeln!(f, "attach to {} and consume its events", socket.display())?;
                events.iter().try_for_each(|event| writeln!(f, "switch {event} on there"))?;
            }
            Some(ApplicationPlan::Embed { .. }) => {
                writeln!(f, "serve buffers, {kib} KiB a CPU, on a socket of our own")?;
            }
            None => {}
        }
        if let Some(preload) = &self.preload {
            writeln!(f, "preload {}", preload.path().display())?;
        }
        write_command(f, &self.command, self.kernel.as_ref().is_some_and(|kernel| kernel.follow))?;
        let compressed = if self.level.is_some() { ", compressed" } else { "" };
        let when = if self.snapshot_on.is_empty() { "" } else { ", when it is asked for" };
        writeln!(f, "write {}, version {}{compressed}{when}", self.path.display(), self.version)
    }
}
