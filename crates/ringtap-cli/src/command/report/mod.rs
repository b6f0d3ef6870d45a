//! `ringtap report`: what files of a trace hold, as text.

mod group;
mod print;
mod select;
mod source;

use crate::decode::TextLayout;
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use group::Group;
use print::Printer;
use ringtap_format::trace_dat::TraceDat;
use select::Wanted;
use source::Inputs;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  Dumps of this machine's kernel:      ringtap report cpu0 cpu1
  Dumps of another machine:            ringtap report --formats events --tasks names cpu*.raw
  A file of trace-cmd's, as it would:  ringtap report --layout trace-cmd trace.dat
  One event, and only some of it:      ringtap report -F 'sched:sched_switch: prev_prio < 100' cpu*
  The same condition on all of irq:    ringtap report -e irq -F 'cpu == 1' trace.dat
  For a program:                       ringtap report --json trace.dat | jq .fields

FILEs are dumps, one for each CPU, of what per_cpu/cpuN/trace_pipe_raw in tracefs hands out, or a
trace.dat of version 6 or 7, which brings all it needs. A dump's CPU is the number behind `cpu` in its
name or its folder's, or else its place among the FILEs. All FILEs are merged by time.

A dump says nothing about its events, so without --formats they are the running kernel's. From
another machine take along, out of tracefs, the folder `events`, the files `saved_cmdlines` and
`printk_formats`, and /proc/kallsyms.

What was lost stands between the events. A page that cannot be read is named with its file and byte,
and makes the exit status 1 once the rest is printed. docs/json.md describes the keys of --json.";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Dumps of CPUs, or a trace.dat
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How lines look: as the kernel's `trace` file (ftrace), as `trace-cmd report`, or json
    #[arg(long, value_enum, default_value = "ftrace", hide_possible_values = true)]
    layout: TextLayout,
    /// Print JSON, one object a line: the same as --layout json
    #[arg(long, conflicts_with = "layout")]
    json: bool,
    /// Print these events only; may be given more than once
    #[arg(short, long = "event", value_name = "EVENT")]
    events: Vec<String>,
    /// Print only what satisfies this: 'SYSTEM:EVENT: CONDITION', or a CONDITION for the events of -e
    #[arg(short = 'F', long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// The tracefs folder `events`, copied from the machine that wrote the dumps
    #[arg(long, value_name = "DIR")]
    formats: Option<PathBuf>,
    /// Names of its functions: a copy of /proc/kallsyms
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Names of its tasks: a copy of `saved_cmdlines`
    #[arg(long, value_name = "FILE")]
    tasks: Option<PathBuf>,
    /// Its kernel's strings: a copy of `printk_formats`
    #[arg(long, value_name = "FILE")]
    strings: Option<PathBuf>,
    /// Its kernel's types, for values of enums: a copy of /sys/kernel/btf/vmlinux
    #[arg(long, value_name = "FILE")]
    btf: Option<PathBuf>,
    /// Times are no nanoseconds: the trace's clock was `counter` or `x86-tsc`
    #[arg(long)]
    ticks: bool,
}

impl Args {
    fn layout(&self) -> TextLayout {
        if self.json { TextLayout::Json } else { self.layout }
    }
}

/// What will happen.
struct Plan {
    /// Each with what its files' records are decoded with: those of each trace.dat, then the dumps'.
    groups: Vec<(Group, Wanted)>,
    inputs: Inputs,
    /// Whether times are nanoseconds.
    in_ns: bool,
}

impl Plan {
    fn new(args: &Args) -> Result<Self> {
        let (mut groups, mut inputs, mut dumps) = (Vec::new(), Inputs::default(), Vec::new());
        let mut in_ns = true;
        for path in &args.files {
            match source::open(path)? {
                (file, true) => {
                    let trace =
                        TraceDat::open(&file).with_context(|| format!("cannot read {}", path.display()))?;
                    in_ns &= trace.is_in_ns();
                    let group = Group::of_trace_dat(path, &trace, args)?;
                    inputs.push_trace_dat(path, &file, trace, groups.len());
                    groups.push(group);
                }
                (file, false) => dumps.push((path, file)),
            }
        }
        if !dumps.is_empty() {
            let group = Group::of_dumps(args)?;
            let numbered = (0..).zip(dumps);
            let mut dumps: Vec<_> = numbered
                .map(|(place, (path, file))| (source::cpu_of(path).unwrap_or(place), path, file))
                .collect();
            dumps.sort_by_key(|(cpu, ..)| *cpu);
            for (cpu, path, file) in dumps {
                inputs.push_dump(path, &file, (groups.len(), cpu), group.layout)?;
            }
            groups.push(group);
        }
        let wanted = select::wanted(&groups, &args.events, &args.filters)?;
        let in_ns = in_ns && !args.ticks;
        Ok(Self { groups: groups.into_iter().zip(wanted).collect(), inputs, in_ns })
    }
}

/// Prints the records.
///
/// # Errors
/// A file cannot be read, an event or a filter makes no sense; or, when all is printed, something was damaged.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let Plan { groups, mut inputs, in_ns } = Plan::new(args)?;
    let layout = args.layout();
    // The kernel's header counts what follows, so that is read twice.
    let counts = match layout {
        TextLayout::Ftrace => inputs.count(),
        _ => source::Counts::default(),
    };
    let mut printer = Printer::new(layout, in_ns, output.is_terminal());
    printer.header(&counts, &inputs, &groups);
    let mut timeline = std::mem::take(&mut inputs.timeline);
    while let Some(timed) = timeline.next() {
        let (group, wanted) = &groups[inputs.files[timed.origin.file].group];
        printer.step(&inputs, timed, group, wanted);
        printer.write_if_long(output)?;
    }
    printer.write(output)?;
    match printer.damage() {
        Some(damage) => bail!("{damage}; all that can be read is printed"),
        None => Ok(Outcome::Done),
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}
