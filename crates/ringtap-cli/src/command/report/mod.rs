//! `ringtap report`: what files of a trace hold, as text.

mod group;
mod parallel;
mod picture;
mod print;
mod select;
mod source;
mod visit;

use crate::decode::TextLayout;
use crate::misuse;
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use group::Group;
use print::{Form, Shared};
use ringtap_format::trace_dat::TraceDat;
pub(super) use select::seconds;
use select::{Place, Wanted};
use source::Inputs;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
#[cfg(feature = "query")]
pub(super) use visit::Visit;
pub(super) use visit::{Item, What, visit, visit_twice};

const EXAMPLES: &str = "\
Examples:
  Dumps of this machine's kernel:      ringtap report cpu0 cpu1
  Dumps of another machine:            ringtap report --formats events --tasks names cpu*.raw
  A file of trace-cmd's, as it would:  ringtap report --layout trace-cmd trace.dat
  One event, and only some of it:      ringtap report -F 'sched:sched_switch: prev_prio < 100' cpu*
  The same condition on all of irq:    ringtap report -e irq -F 'cpu == 1' trace.dat
  For a program:                       ringtap report --json trace.dat | jq .fields
  For a spreadsheet:                   ringtap report --csv -e sched_switch trace.dat > switches.csv
  How large reads were:                ringtap report --histogram ret -e sys_exit_read trace.dat
  A picture of a tenth of a second:    ringtap report --timeline t.svg --since 9.1 --until 9.2 trace.dat
  A tenth of a second on two CPUs:     ringtap report --cpu 0-1 --since 9.1 --until 9.2 trace.dat

FILEs are dumps, one for each CPU, of what per_cpu/cpuN/trace_pipe_raw in tracefs hands out, or a
trace.dat of version 6 or 7, which brings all it needs. A dump's CPU is the number behind `cpu` in its
name or its folder's, or else its place among the FILEs. All FILEs are merged by time.

A dump says nothing about its events, so without --formats they are the running kernel's. From
another machine take along, out of tracefs, the folder `events`, the files `saved_cmdlines` and
`printk_formats`, and /proc/kallsyms.

What was lost stands between the events. A page that cannot be read is named with its file and byte,
and makes the exit status 1 once the rest is printed. docs/json.md describes the keys of --json.";

/// Most threads that make lines unless more are asked for; one thread reads for them all.
const MAX_JOBS: usize = 16;

/// The files that are read, what is needed to decode them, and what is chosen of them.
#[derive(Clone, Debug, clap::Args)]
pub struct FileArgs {
    /// Dumps of CPUs, or a trace.dat
    // Whether they are required is the subcommand's to say, by its group `source`.
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Only these events; may be given more than once
    #[arg(short, long = "event", value_name = "EVENT")]
    pub(super) events: Vec<String>,
    /// Only what satisfies this: 'SYSTEM:EVENT: CONDITION', or a CONDITION for the events of -e
    #[arg(short = 'F', long = "filter", value_name = "FILTER")]
    pub(super) filters: Vec<String>,
    /// Only these CPUs, such as 0,2-3
    #[arg(long, value_name = "LIST", value_parser = select::cpus, value_delimiter = ',')]
    cpu: Vec<RangeInclusive<u32>>,
    /// Only what this thread wrote; may be given more than once
    #[arg(long, value_name = "PID")]
    pid: Vec<i32>,
    /// Nothing before this time, in seconds as they are printed
    #[arg(long, value_name = "SECONDS", value_parser = select::seconds)]
    since: Option<u64>,
    /// Nothing behind this time
    #[arg(long, value_name = "SECONDS", value_parser = select::seconds)]
    until: Option<u64>,
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
}

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "ringtap report [OPTIONS] <FILE>...")]
#[command(group = clap::ArgGroup::new("source").args(["files"]).required(true))]
pub struct Args {
    /// How lines look: as the kernel's `trace` file (ftrace), as `trace-cmd report`, or json
    #[arg(long, value_enum, default_value = "ftrace", hide_possible_values = true)]
    layout: TextLayout,
    /// Print JSON, one object a line: the same as --layout json
    #[arg(long, conflicts_with_all = ["layout", "flamegraph", "timeline"])]
    json: bool,
    /// Print CSV: with -e a column for each field of those events, else one of their text
    #[arg(long, conflicts_with_all = ["layout", "json", "histogram", "flamegraph", "timeline"])]
    csv: bool,
    /// Instead of lines: how often which values of this field occur, of each event that has it; also with --json
    #[arg(long, value_name = "FIELD")]
    histogram: Option<String>,
    /// Instead of lines: draw the stacks that were recorded, as SVG
    #[arg(long, value_name = "OUT")]
    flamegraph: Option<PathBuf>,
    /// Instead of lines: draw what CPUs ran and what threads were at, as SVG
    #[arg(long, value_name = "OUT")]
    timeline: Option<PathBuf>,
    /// Threads that make the lines; as many as there are CPUs if not given
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    #[command(flatten)]
    files: FileArgs,
    /// Times are no nanoseconds: the trace's clock was `counter` or `x86-tsc`
    #[arg(long)]
    ticks: bool,
}

impl Args {
    fn layout(&self) -> TextLayout {
        if self.json || self.csv { TextLayout::Json } else { self.layout }
    }

    /// How many threads make the lines.
    fn jobs(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_JOBS);
        self.jobs.map_or_else(cpus, usize::from)
    }
}

impl FileArgs {
    /// That what is made does not take the place of what it is made of.
    ///
    /// # Errors
    /// It is one of the files.
    pub(in crate::command) fn check_output(&self, out: &Path) -> Result<()> {
        let place = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).ok();
        let Some(taken) = place(out) else { return Ok(()) };
        match self.files.iter().find(|path| place(path) == Some(taken)) {
            Some(_) => {
                misuse!("{} is one of the files that are read; give what is made another name", out.display())
            }
            None => Ok(()),
        }
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
    fn new(args: &FileArgs, layout: TextLayout) -> Result<Self> {
        let (mut groups, mut inputs, mut dumps) = (Vec::new(), Inputs::default(), Vec::new());
        let mut in_ns = true;
        for path in &args.files {
            match source::open(path)? {
                (file, true) => {
                    let trace =
                        TraceDat::open(&file).with_context(|| format!("cannot read {}", path.display()))?;
                    in_ns &= trace.is_in_ns();
                    let group = Group::of_trace_dat(path, &trace, args, layout)?;
                    inputs.push_trace_dat(path, &file, trace, groups.len());
                    groups.push(group);
                }
                (file, false) => dumps.push((path, file)),
            }
        }
        if !dumps.is_empty() {
            let group = Group::of_dumps(args, layout)?;
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
        let FileArgs { cpu, pid, since, until, .. } = args.clone();
        let cpus = inputs.cpus();
        if !cpu.is_empty() && cpu.iter().all(|range| *range.start() >= cpus) {
            bail!("the files have no such CPU: they have {cpus}, from 0 on");
        }
        let place = Place { cpus: cpu, pids: pid, since, until };
        let wanted = select::wanted(&groups, &args.events, &args.filters, &place)?;
        Ok(Self { groups: groups.into_iter().zip(wanted).collect(), inputs, in_ns })
    }
}

/// Prints the records.
///
/// # Errors
/// A file cannot be read, an event or a filter makes no sense; or, when all is printed, something was damaged.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    if let Some(damage) = look(args, output)? {
        return match damage {
            Some(damage) => bail!("{damage}; all that can be read is shown"),
            None => Ok(Outcome::Done),
        };
    }
    let layout = args.layout();
    let Plan { groups, mut inputs, in_ns } = Plan::new(&args.files, layout)?;
    // The kernel's header counts what follows, so that is read twice.
    let counts = match layout {
        TextLayout::Ftrace => inputs.count(args.jobs()),
        _ => source::Counts::default(),
    };
    let form = match args.csv {
        true => Form::Csv(columns(&groups)),
        false => Form::Text(layout),
    };
    let cpus = inputs.cpus();
    let timeline = std::mem::take(&mut inputs.timeline);
    let shared = Shared {
        form,
        in_ns: in_ns && !args.ticks,
        hides_controls: output.is_terminal(),
        is_coloured: output.is_coloured(),
        groups,
        inputs,
        cpus,
    };
    let damage = parallel::print(&shared, &counts, timeline, args.jobs(), output)?;
    match damage.told() {
        Some(damage) => bail!("{damage}; all that can be read is printed"),
        None => Ok(Outcome::Done),
    }
}

/// Makes what is asked for instead of lines: what was damaged; `None` where nothing was asked for.
fn look(args: &Args, output: &mut Output) -> Result<Option<Option<String>>> {
    let Args { files, histogram, flamegraph, timeline, .. } = args;
    let mut damage = None;
    if let Some(field) = histogram {
        damage = Some(picture::histogram(files, field, args.json, output)?);
    }
    if let Some(out) = flamegraph {
        damage = Some(picture::flamegraph(files, out)?);
    }
    if let Some(out) = timeline {
        damage = Some(picture::timeline(files, out)?);
    }
    Ok(damage)
}

/// The fields of the events that were named, in the order of their formats.
fn columns(groups: &[(Group, Wanted)]) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for (group, wanted) in groups {
        let named = wanted.named();
        for event in group.formats.iter().filter(|event| named.contains(&event.id())) {
            for field in event.fields() {
                if !columns.contains(&field.name) {
                    columns.push(field.name.clone());
                }
            }
        }
    }
    columns
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}
