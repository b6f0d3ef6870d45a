//! `ringtap stream`: follow events live.

mod follow;
pub(super) mod kernel;

use super::host_side::{ApplicationPlan, AttachPlan};
use crate::decode::TextLayout;
use crate::misuse;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::preload::{self, Preload};
use crate::probes;
use crate::remote::{self, default_socket};
use anyhow::Result;
pub(super) use follow::Sink;
use kernel::KernelPlan;
use ringtap::tracefs::EventName;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  Programs that start and end, anywhere:    ringtap stream --kernel
  Task switches of the whole machine:       ringtap stream --kernel -e sched:sched_switch
  What one command and its children open:   ringtap stream --kernel -e '*:sys_enter_openat' -- ls -l
  All events of two systems:                ringtap stream --kernel -e irq -e 'timer:*'
  What this user's `ringtap serve` holds:   ringtap stream
  An application that serves its buffers:   ringtap stream --attach /run/app/ringtap.sock
  Beside what the kernel does meanwhile:    ringtap stream --attach /run/app/ringtap.sock --kernel
  A program that uses ringtap:              ringtap stream -- ./program
  Allocations and files of any program:     ringtap stream --preload libc -e 'libc_*' -- ls -l
  Calls of a function, in any process:      ringtap stream --kernel -p 'libc.so.6:malloc size=%di:u64'
  A probe that a program brings along:      ringtap stream --kernel -u python3:python:gc__start
  What would happen, without doing it:      ringtap stream --kernel -e 'sched:*' --dry-run

EVENTs are SYSTEM:EVENT, where both may hold * and ?, or one word that names an event or a system.
With --kernel, those that the kernel does not have are the application's. A source whose events none
of them names is not restricted: the kernel then shows how processes start and end, and of COMMAND
the system calls, too. At a host of
`ringtap serve` the events are on for as long as they are followed.

Without --kernel, --attach and COMMAND the host of RINGTAP_SOCKET, else `ringtap serve`, is followed.
COMMAND finds the socket of the application's host in RINGTAP_SOCKET: the one of --attach, or one
that lasts as long as COMMAND. The stream ends when COMMAND ends, with its exit status. Ctrl-C goes to
COMMAND, which is followed until it has ended; again, it insists: by SIGTERM, then by SIGKILL.

Lines look as in the kernel's trace_pipe. Times are CLOCK_MONOTONIC's, of all sources. With --json
each line is one object, an event, or events that were lost (null: nobody knows how many):
  {\"source\":\"kernel\",\"type\":\"event\",\"ts\":0,\"cpu\":0,\"pid\":0,\"comm\":\"\",\"flags\":\".....\",\"id\":0,
  \"system\":\"\",\"event\":\"\",\"fields\":{},\"text\":\"\"}
  {\"source\":\"application\",\"type\":\"lost\",\"cpu\":0,\"count\":0}
docs/json.md describes each key.";

/// Of our own host: small, so that nothing waits for long to be seen.
const SUBBUF_KIB: u32 = 4;

const USAGE: &str = "\
ringtap stream [--kernel] [--attach <SOCKET>] [-e <EVENT>]... [OPTIONS] [-- <COMMAND>...]";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
#[command(group = clap::ArgGroup::new("source").args(["kernel", "attach", "command"]).multiple(true))]
pub struct Args {
    /// Follow the kernel's events, through a tracing instance of our own
    #[arg(long)]
    kernel: bool,
    /// Follow these events only; may be given more than once
    #[arg(short, long = "event", value_name = "EVENT")]
    events: Vec<String>,
    /// Follow the application that serves its buffers on this socket, without consuming
    #[arg(long, value_name = "SOCKET")]
    attach: Option<PathBuf>,
    /// Follow this instance of the host, instead of its top one
    #[arg(short = 'B', long, value_name = "NAME", value_parser = remote::parse_instance)]
    instance: Option<String>,
    /// With --attach: consume the events, so that the writers find room again
    #[arg(long, requires = "attach")]
    consume: bool,
    /// With --attach: leave out what is in the buffers already
    #[arg(long, requires = "attach", conflicts_with = "consume")]
    new: bool,
    /// With --kernel and COMMAND: events of all processes, not of COMMAND and its children only
    #[arg(short, long, requires = "kernel", requires = "command")]
    all: bool,
    /// Trace what COMMAND and its children ask of the C library: allocations, I/O, locks, waits
    #[arg(long, value_enum, value_name = "LIBRARY", requires = "command", hide_possible_values = true)]
    preload: Option<preload::Library>,
    #[command(flatten)]
    probes: probes::Args,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Print a header, and lines as the kernel's `trace` file (ftrace) or trace-cmd; or json
    #[arg(long, value_enum, conflicts_with = "json", hide_possible_values = true)]
    layout: Option<TextLayout>,
    /// Size of each CPU's buffer, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    buffer_size: u32,
    /// Print what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Run this command, and follow until it ends
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// What will happen.
#[derive(Debug)]
pub struct Plan {
    /// The kernel's part.
    kernel: Option<KernelPlan>,
    /// The application's part.
    application: Option<ApplicationPlan>,
    /// Which events are printed.
    filter: Filter,
    /// The command to run; empty where there is none.
    command: Vec<OsString>,
    /// What the command is traced by without its doing.
    preload: Option<Preload>,
    /// `None`: as the kernel's `trace_pipe`, which has no header.
    layout: Option<TextLayout>,
}

/// The events asked for; all, where none was named.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) patterns: Vec<String>,
}

impl Filter {
    /// These patterns.
    ///
    /// # Errors
    /// One names nothing.
    pub(super) fn new(patterns: &[String]) -> Result<Self> {
        if let Some(empty) = patterns.iter().find(|pattern| pattern.trim().is_empty()) {
            misuse!("'{empty}' names no event; give SYSTEM:EVENT, such as sched:sched_switch");
        }
        Ok(Self { patterns: patterns.to_vec() })
    }

    /// The part that restricts the application: all patterns, where one of them means no event of the kernel's; else
    /// none.
    pub(super) fn of_application(self, kernel: Option<&KernelPlan>) -> Self {
        let is_kernels = |pattern: &String| {
            kernel.is_some_and(|kernel| kernel.events.iter().any(|event| event.is_meant_by(pattern)))
        };
        if self.patterns.iter().all(is_kernels) { Self::default() } else { self }
    }

    fn admits(&self, event: &EventName) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| event.is_meant_by(pattern))
    }

    /// The first pattern that means none of these, nor any of the kernel's that were found.
    fn unmet<'f>(&'f self, kernel: Option<&KernelPlan>, events: &[EventName]) -> Option<&'f str> {
        let kernel = kernel.map_or(&[][..], |kernel| &kernel.events);
        let is_met = |pattern: &&String| kernel.iter().chain(events).any(|event| event.is_meant_by(pattern));
        self.patterns.iter().find(|pattern| !is_met(pattern)).map(String::as_str)
    }
}

/// The socket of another process's host, where one is read: of the one that is named; of this user's, where there is no
/// other source.
///
/// # Errors
/// There is no place for a socket; or an instance is named, but no host.
pub(super) fn other_host(
    attach: Option<&Path>,
    instance: Option<&str>,
    has_other_source: bool,
) -> Result<Option<PathBuf>> {
    match attach {
        Some(socket) => Ok(Some(socket.to_owned())),
        None if !has_other_source => default_socket().map(Some),
        None if instance.is_some() => {
            misuse!("-B names an instance of a host: name its socket with --attach")
        }
        None => Ok(None),
    }
}

impl Plan {
    /// Finds all mistakes that can be found without changing anything.
    ///
    /// # Errors
    /// No usable tracefs, a kernel that is too old, or an unknown event.
    pub fn new(args: &Args) -> Result<Self> {
        let filter = Filter::new(&args.events)?;
        let has_other = args.kernel || !args.command.is_empty();
        let attach = other_host(args.attach.as_deref(), args.instance.as_deref(), has_other)?;
        let may_be_applications = attach.is_some() || !args.command.is_empty();
        let follow = !args.command.is_empty() && !args.all;
        let plan = || KernelPlan::new(&filter, args.buffer_size, may_be_applications, follow);
        let with_probes = |plan: KernelPlan| plan.with_probes(&args.probes, &filter);
        let kernel = args.kernel.then(|| plan().and_then(with_probes)).transpose()?;
        let filter = filter.of_application(kernel.as_ref());
        let application = match attach {
            Some(socket) => {
                Some(ApplicationPlan::Attach(AttachPlan {
                    socket,
                    instance: args.instance.clone(),
                    consume: args.consume,
                    new: args.new,
                    // What is no simple pattern chooses among those that are on.
                    events: filter.patterns.iter().filter_map(|pattern| pattern.parse().ok()).collect(),
                    must_switch: false,
                }))
            }
            None if args.command.is_empty() => None,
            None => Some(ApplicationPlan::Embed {
                subbuf_kib: SUBBUF_KIB,
                buffer_kib: args.buffer_size,
                clock: None,
                // What is left out is not recorded for nothing only where its patterns are simple: see `record`.
                events: Vec::new(),
            }),
        };
        let preload = Preload::find(args.preload, &filter.patterns)?;
        let layout = if args.json { Some(TextLayout::Json) } else { args.layout };
        Ok(Self { kernel, application, filter, command: args.command.clone(), preload, layout })
    }
}

/// Follows the events.
///
/// # Errors
/// What [`Plan::new`] finds, or a host or the kernel refuses. Nothing stays behind.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let plan = Plan::new(args)?;
    if args.dry_run {
        write!(output, "{plan}")?;
        return Ok(Outcome::Done);
    }
    follow::run(&plan, &mut follow::Lines::new(plan.layout, output))
}

/// What is followed by those who make something else than lines of it.
#[derive(Clone, Debug)]
pub(super) struct Live {
    /// The kernel's events.
    pub(super) kernel: bool,
    /// Those of the application that serves this socket.
    pub(super) attach: Option<PathBuf>,
    /// Events of all processes, not of the command's only.
    pub(super) all: bool,
    /// These events only, if there are any.
    pub(super) events: Vec<String>,
    /// Size of each CPU's buffer, in KiB.
    pub(super) buffer_size: u32,
    /// Followed until it ends.
    pub(super) command: Vec<OsString>,
}

/// Follows the events into `sink`.
///
/// # Errors
/// As [`run`], and those of the sink.
pub(super) fn follow_into(live: Live, sink: &mut dyn Sink) -> Result<Outcome> {
    let Live { kernel, attach, all, events, buffer_size, command } = live;
    let (consume, new, json, layout, dry_run) = (false, false, false, None, false);
    let (preload, probes, instance) = (None, probes::Args::default(), None);
    let args = Args {
        kernel,
        events,
        attach,
        instance,
        consume,
        new,
        all,
        preload,
        probes,
        json,
        layout,
        buffer_size,
        dry_run,
        command,
    };
    follow::run(&Plan::new(&args)?, sink)
}

/// A plan's line about the command, if there is one.
pub(in crate::command) fn write_command(
    f: &mut fmt::Formatter<'_>,
    command: &[OsString],
    follow: bool,
) -> fmt::Result {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    write!(f, "run {}", program.display())?;
    arguments.iter().try_for_each(|argument| write!(f, " {}", argument.display()))?;
    writeln!(f, "{}", if follow { ", and record only its events" } else { "" })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kernel) = &self.kernel {
            let (sizes, folder) = (kernel.buffer_kib, kernel.tracefs.root().display());
            let clock = kernel::CLOCK.name();
            writeln!(f, "make a tracing instance in {folder}, {sizes} KiB a CPU, clock {clock}")?;
            for event in &kernel.events {
                writeln!(f, "enable {event}")?;
            }
            kernel.probes.iter().try_for_each(|probe| writeln!(f, "{probe}"))?;
        }
        match &self.application {
            Some(ApplicationPlan::Attach(AttachPlan { socket, consume, .. })) => {
                let how = if *consume { "and consume its events" } else { "and follow its events" };
                writeln!(f, "attach to {} {how}", socket.display())?;
            }
            Some(ApplicationPlan::Embed { buffer_kib, .. }) => {
                writeln!(f, "serve buffers, {buffer_kib} KiB a CPU, on a socket of our own")?;
            }
            None => {}
        }
        if let Some(preload) = &self.preload {
            writeln!(f, "preload {}", preload.path().display())?;
        }
        write_command(f, &self.command, self.kernel.as_ref().is_some_and(|kernel| kernel.follow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use ringtap::tracefs::Tracefs;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn plan(line: &str) -> Result<Plan> {
        Plan::new(&Line::try_parse_from(line.split(' '))?.args)
    }

    /// A plan on the live kernel, or one line that says why not.
    pub(super) fn live(line: &str) -> Option<Plan> {
        let usable = Tracefs::find().and_then(|tracefs| tracefs.check_mapping());
        usable.inspect_err(|error| println!("skipped, as it needs the live kernel: {error}")).ok()?;
        Some(plan(line).unwrap())
    }

    #[test]
    fn options_belong_to_their_source() {
        let wrong = ["stream --kernel -a", "stream -a -- ls", "stream ls", "stream --kernel --consume"];
        for wrong in wrong {
            assert!(Line::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
        let line = Line::try_parse_from("stream --kernel -a -- ls -l --color".split(' ')).unwrap();
        assert_eq!(line.args.command, ["ls", "-l", "--color"]);
    }

    #[test]
    fn a_dry_run_shows_the_plan() {
        let Some(plan) = live("stream --kernel -e sched_process_f*k -e sched:sched_process_fork -- ls -l")
        else {
            return;
        };
        let text = plan.to_string();
        assert!(text.starts_with("make a tracing instance in /"), "{text}");
        let rest = ", 4096 KiB a CPU, clock mono\nenable sched:sched_process_fork\n\
                    serve buffers, 4096 KiB a CPU, on a socket of our own\n\
                    run ls -l, and record only its events\n";
        assert!(text.ends_with(rest), "{text}");
    }

    #[test]
    fn a_mistyped_event_is_told_and_an_applications_is_not() {
        let Some(plan) = live("stream --kernel -e sched:sched_switch -e app:started -- ls") else { return };
        assert_eq!(plan.kernel.as_ref().unwrap().events.len(), 1);
        assert_eq!(plan.filter.unmet(plan.kernel.as_ref(), &[]), Some("app:started"));
        for line in ["stream --kernel -e sched:sched_swich", "stream --kernel -e sched:sched_swich -- ls"] {
            let unknown = super::tests::plan(line).unwrap_err();
            assert!(unknown.to_string().contains("did you mean sched:sched_switch?"), "{unknown}");
        }
        let unknown = super::tests::plan("stream --kernel -e app:started").unwrap_err();
        assert!(unknown.to_string().starts_with("no event matches 'app:started'"), "{unknown}");
    }
}
