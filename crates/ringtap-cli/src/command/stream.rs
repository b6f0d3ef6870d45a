//! `ringtap stream`: follow events live.
//!
//! Here is what stands around the readers: the choice of events, the kernel's instance, the COMMAND, and the
//! order in which all of it begins and ends.

use crate::child::Running;
use anyhow::{Context, Result};
use ringtap::tracefs::{EventName, Instance, Tracefs};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  Programs that start and end, anywhere:    ringtap stream --kernel
  Task switches of the whole machine:       ringtap stream --kernel -e sched:sched_switch
  What one command and its children open:   ringtap stream --kernel -F -e '*:sys_enter_openat' -- ls -l
  All events of two systems:                ringtap stream --kernel -e irq -e 'timer:*'
  An application that serves its buffers:   ringtap stream --attach /run/app/ringtap.sock
  What would happen, without doing it:      ringtap stream --kernel -e 'sched:*' --dry-run

EVENTs are SYSTEM:EVENT, where both may hold * and ?, or one word that names an event or a system.
With a COMMAND, the stream ends when it ends, and its exit status becomes ringtap's.";

/// What is followed when nothing was asked for: few events, and everybody knows what they mean.
const DEFAULT_EVENTS: [&str; 3] =
    ["sched:sched_process_fork", "sched:sched_process_exec", "sched:sched_process_exit"];
/// The clock that an application's buffers are converted to.
const CLOCK: &str = "mono";
/// In KiB: larger than a page, because each swap of the kernel's reader page costs a system call.
const SUBBUF_KIB: u32 = 16;
const DEFAULT_BUFFER_KIB: u32 = 4096;

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("source").args(["kernel", "attach", "command"]).required(true).multiple(true))]
pub struct Args {
    /// Follow the kernel's events, through a tracing instance of our own
    #[arg(long)]
    kernel: bool,
    /// Follow these events only; may be given more than once
    #[arg(short, long = "event", value_name = "EVENT")]
    events: Vec<String>,
    /// Follow the application that serves its buffers on this socket
    #[arg(long, value_name = "SOCKET")]
    attach: Option<PathBuf>,
    /// With --kernel: only events of COMMAND and the processes that it starts
    #[arg(short = 'F', long, requires = "kernel", requires = "command")]
    follow: bool,
    /// With --kernel: size of each CPU's buffer, in KiB
    #[arg(long, value_name = "KIB", requires = "kernel", value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    buffer_size: Option<u32>,
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
    pub kernel: Option<KernelPlan>,
    /// The application to attach to.
    pub attach: Option<PathBuf>,
    /// The command to run; empty where there is none.
    pub command: Vec<OsString>,
}

/// What the kernel will be asked to record.
#[derive(Debug)]
pub struct KernelPlan {
    tracefs: Tracefs,
    events: Vec<EventName>,
    buffer_kib: u32,
    /// Only the command's own events.
    follow: bool,
}

impl Plan {
    /// Finds all mistakes that can be found without changing anything.
    ///
    /// # Errors
    /// No usable tracefs, a kernel that is too old, or an unknown event.
    pub fn new(args: &Args) -> Result<Self> {
        let kernel = args.kernel.then(|| KernelPlan::new(args)).transpose()?;
        Ok(Self { kernel, attach: args.attach.clone(), command: args.command.clone() })
    }
}

impl KernelPlan {
    fn new(args: &Args) -> Result<Self> {
        let tracefs = Tracefs::find()?;
        tracefs.check_mapping()?;
        let asked = args.events.iter().map(String::as_str);
        let patterns = if args.events.is_empty() { DEFAULT_EVENTS.to_vec() } else { asked.collect() };
        let mut events = BTreeSet::new();
        for pattern in patterns {
            events.extend(tracefs.resolve(pattern)?);
        }
        let buffer_kib = args.buffer_size.unwrap_or(DEFAULT_BUFFER_KIB);
        Ok(Self { tracefs, events: events.into_iter().collect(), buffer_kib, follow: args.follow })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kernel) = &self.kernel {
            let (sizes, folder) = (kernel.buffer_kib, kernel.tracefs.root().display());
            writeln!(f, "make a tracing instance in {folder}, {sizes} KiB a CPU, clock {CLOCK}")?;
            for event in &kernel.events {
                writeln!(f, "enable {event}")?;
            }
        }
        if let Some(socket) = &self.attach {
            writeln!(f, "attach to {}", socket.display())?;
        }
        if let Some((program, arguments)) = self.command.split_first() {
            write!(f, "run {}", program.display())?;
            arguments.iter().try_for_each(|argument| write!(f, " {}", argument.display()))?;
            let follow = self.kernel.as_ref().is_some_and(|kernel| kernel.follow);
            writeln!(f, "{}", if follow { ", and record only its events" } else { "" })?;
        }
        Ok(())
    }
}

/// The kernel's events, recorded into buffers of our own until this is dropped.
#[derive(Debug)]
pub struct KernelSession {
    /// What readers map, by CPU. Declared, and so dropped, before the instance, which cannot be removed while
    /// one is open; readers made from these must be gone earlier.
    pub raw: Vec<(u32, OwnedFd)>,
    /// The text of each event's `format` file.
    pub formats: Vec<(EventName, String)>,
    instance: Instance,
}

impl KernelSession {
    /// Makes the instance and its settings; recording is still off.
    ///
    /// # Errors
    /// The kernel refuses an event or has no memory for the buffers. Nothing stays behind.
    pub fn prepare(plan: &KernelPlan) -> Result<Self> {
        // What a killed run left behind is in nobody's way, so failing to tidy it is no reason to stop.
        let _ = plan.tracefs.remove_stale();
        let instance = plan.tracefs.create_instance()?;
        instance.set_clock(CLOCK)?;
        instance.set_sizes_kib(SUBBUF_KIB, plan.buffer_kib)?;
        // Wake with the first event: somebody watches.
        instance.set_buffer_percent(0)?;
        let mut formats = Vec::with_capacity(plan.events.len());
        for event in &plan.events {
            formats.push((event.clone(), plan.tracefs.format(event)?));
            instance.enable(event).with_context(|| format!("cannot enable {event}"))?;
        }
        let open = |cpu| anyhow::Ok((cpu, instance.open_raw(cpu)?));
        let raw = plan.tracefs.cpus()?.into_iter().map(open).collect::<Result<_>>()?;
        Ok(Self { raw, formats, instance })
    }

    /// Begins to record, and then lets the held command, if there is one, take its first step.
    ///
    /// # Errors
    /// The kernel refuses, or the command is gone.
    pub fn begin(&self, plan: &KernelPlan, command: Option<&Running>) -> Result<()> {
        if let Some(command) = command.filter(|_| plan.follow) {
            self.instance.follow(command.pid().as_raw_pid().unsigned_abs())?;
        }
        self.instance.set_recording(true)?;
        command.map_or(Ok(()), Running::begin)
    }

    /// Stops to record; what is in the buffers can still be read.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stop(&self) -> Result<()> {
        Ok(self.instance.set_recording(false)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::fs::File;
    use std::io::Read;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn plan(line: &str) -> Result<Plan> {
        Plan::new(&Line::try_parse_from(line.split(' '))?.args)
    }

    /// A plan on the live kernel, or one line that says why not.
    fn live(line: &str) -> Option<Plan> {
        let usable = Tracefs::find().and_then(|tracefs| tracefs.check_mapping());
        usable.inspect_err(|error| println!("skipped, as it needs the live kernel: {error}")).ok()?;
        Some(plan(line).unwrap())
    }

    #[test]
    fn a_source_is_required_and_options_belong_to_theirs() {
        for wrong in ["stream", "stream -e sched", "stream --kernel -F", "stream -F -- ls", "stream ls"] {
            assert!(Line::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
        let line = Line::try_parse_from("stream --kernel -F -- ls -l --color".split(' ')).unwrap();
        assert_eq!(line.args.command, ["ls", "-l", "--color"]);
    }

    #[test]
    fn a_dry_run_shows_the_plan() {
        let Some(plan) = live("stream --kernel -F -e sched_process_f*k -e sched:sched_process_fork -- ls -l")
        else {
            return;
        };
        let text = plan.to_string();
        assert!(text.starts_with("make a tracing instance in /"), "{text}");
        let rest = ", 4096 KiB a CPU, clock mono\nenable sched:sched_process_fork\n\
                    run ls -l, and record only its events\n";
        assert!(text.ends_with(rest), "{text}");
        let unknown = super::tests::plan("stream --kernel -e sched:sched_swich").unwrap_err();
        assert!(unknown.to_string().contains("did you mean sched:sched_switch?"), "{unknown}");
    }

    #[test]
    fn a_session_records_and_leaves_nothing_behind() {
        let Some(plan) = live("stream --kernel -e sched:sched_process_exec --buffer-size 64") else { return };
        let kernel = plan.kernel.as_ref().unwrap();
        let session = KernelSession::prepare(kernel).unwrap();
        let folder = session.instance.path().to_owned();
        session.begin(kernel, None).unwrap();
        std::process::Command::new("/bin/true").status().unwrap();
        session.stop().unwrap();

        let mut bytes = vec![0; 1 << 20];
        let mut read = |fd: &OwnedFd| File::from(fd.try_clone().unwrap()).read(&mut bytes).unwrap_or(0);
        assert!(session.raw.iter().map(|(_, fd)| read(fd)).sum::<usize>() > 0);
        assert!(session.formats[0].1.contains("filename"));
        drop(session);
        assert!(!folder.exists());
    }
}
