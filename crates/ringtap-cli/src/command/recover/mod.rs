//! `ringtap recover`: what persistent buffers hold after all processes were killed, or the machine was reset.

mod file;
mod trace_dat;

use crate::decode::{TextLayout, escape_controls};
use crate::misuse;
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use file::{Dead, Kept};
use ringtap::recover::{self, Recovered};
use ringtap_format::text::{Entry, JsonLines, Sources, TraceCmdText, TraceText};
use ringtap_format::{Formats, Strings, Symbols, Target, Tasks};
use serde_json::json;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  Keep buffers as files:               ringtap serve --directory /var/lib/ringtap
  After a crash, what they hold:       ringtap recover /var/lib/ringtap
  When a host was started there since: ringtap recover /var/lib/ringtap/last
  Of one CPU, for a program:           ringtap recover --json /var/lib/ringtap/cpu0
  A recorder's file that was killed:   ringtap recover trace.dat -o whole.dat

A trace.dat whose recorder was killed has holes, over which trace-cmd steps for very long: the file
that is written here has none. Damaged pages are kept up to the first record that cannot be.

Nothing in the files is believed and nothing is changed. A page that cannot be true is named with its file,
byte and reason, and the others are kept; the exit status is 1 then, and 0 where all was whole.";

/// Bytes of lines between two writes.
const BATCH: usize = 1 << 16;

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The directory of a host's persistent buffers, or one of its files; or a trace.dat
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// With a trace.dat: write all of it that can be read to this file
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["layout", "json", "all"])]
    output: Option<PathBuf>,
    /// How lines look: as the kernel's `trace` file (ftrace), as `trace-cmd report`, or json
    #[arg(long, value_enum, default_value = "ftrace", hide_possible_values = true)]
    layout: TextLayout,
    /// Print JSON, one object a line: the same as --layout json
    #[arg(long, conflicts_with = "layout")]
    json: bool,
    /// Print events that a consuming reader was given before, too, where they are still there
    #[arg(long)]
    all: bool,
}

/// Prints what can be recovered.
///
/// # Errors
/// There is no buffer; or, when all is printed, something was damaged.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let shown = args.path.display();
    match (&args.output, trace_dat::is_one(&args.path)?) {
        (Some(out), true) => return trace_dat::copy(&args.path, out).map(|()| Outcome::Done),
        (None, true) => misuse!(
            "{shown} is a trace.dat: give the file to be written by -o, or print it by `ringtap report`"
        ),
        (Some(_), false) => misuse!("{shown} is no trace.dat; leave out -o"),
        (None, false) => {}
    }
    let found = recover::find(&args.path).with_context(|| format!("cannot recover {shown}"))?;
    let layout = if args.json { TextLayout::Json } else { args.layout };
    let mut formats = Formats::new(Target::HOST, layout.dialect());
    if layout == TextLayout::TraceCmd {
        formats.use_plugins();
    }
    for event in &found.events {
        // One whose text makes no sense stays unknown, and its records say so.
        let _ = formats.add(&event.system, &event.format);
    }
    let dead: Vec<Dead> = found.buffers.iter().map(|path| Dead::read(path)).collect::<Result<_>>()?;
    let mut buffers: Vec<(&Dead, Recovered<'_>)> = Vec::new();
    let mut damages: Vec<Damage<'_>> = Vec::new();
    for file in &dead {
        match Recovered::new(&file.bytes) {
            Ok(recovered) => buffers.push((file, recovered)),
            Err(error) if dead.len() == 1 => bail!("cannot recover {}: {error}", file.path.display()),
            Err(error) => damages.push(Damage { file, cpu: None, offset: 0, reason: error.to_string() }),
        }
    }
    for (file, recovered) in &buffers {
        damages.extend(recovered.damaged().iter().map(|page| Damage {
            file,
            cpu: Some(recovered.cpu()),
            offset: page.offset,
            reason: page.reason.to_string(),
        }));
    }
    let pages: usize = buffers.iter().map(|(_, recovered)| recovered.kept()).sum();
    let kept = Kept::of(buffers.iter().map(|(_, recovered)| recovered), args.all);
    let (mut tasks, symbols, strings) = (Tasks::default(), Symbols::default(), Strings::default());
    for task in &found.tasks {
        tasks.set(task.tid.cast_signed(), task.comm.as_bytes());
    }
    let sources = Sources { formats: &formats, tasks: &tasks, symbols: &symbols, strings: &strings };
    let lines = Lines { layout, sources, in_ns: kept.in_ns };
    lines.print(&kept, &damages, buffers.len(), output)?;
    output.flush()?;
    damages.iter().for_each(|damage| anstream::eprintln!("ringtap: {damage}"));
    anstream::eprintln!(
        "ringtap: {} of {} on {}; {} lost",
        counted(kept.records, "event"),
        counted(pages as u64, "page"),
        counted(buffers.len() as u64, "CPU"),
        kept.lost
    );
    match damages.len() as u64 {
        0 => Ok(Outcome::Done),
        1 => bail!("1 page is damaged; all others are printed"),
        count => bail!("{count} pages are damaged; all others are printed"),
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What was not kept: a page, or a whole file.
struct Damage<'a> {
    file: &'a Dead,
    cpu: Option<u32>,
    offset: u64,
    reason: String,
}

impl Display for Damage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.file.path.display();
        match self.cpu {
            Some(_) => write!(f, "{path}: page at byte {}: {}", self.offset, self.reason),
            None => write!(f, "{path}: {}", self.reason),
        }
    }
}

/// How lines are made.
struct Lines<'a> {
    layout: TextLayout,
    sources: Sources<'a>,
    in_ns: bool,
}

impl Lines<'_> {
    fn print(&self, kept: &Kept<'_>, damages: &[Damage<'_>], cpus: usize, output: &mut Output) -> Result<()> {
        let mut lines = Vec::new();
        self.header(kept, u32::try_from(cpus)?, &mut lines);
        damages.iter().for_each(|damage| self.damage(damage, &mut lines));
        for item in &kept.items {
            let start = lines.len();
            match item.record {
                Ok(record) => self.entry(&Entry { cpu: item.cpu, time: item.time, record }, &mut lines),
                Err(lost) => self.lost(item.cpu, lost, &mut lines),
            }
            if self.layout != TextLayout::Json {
                escape_controls(&mut lines, start, true);
            }
            if lines.len() >= BATCH {
                output.write_all(&lines)?;
                lines.clear();
            }
        }
        Ok(output.write_all(&lines)?)
    }

    fn header(&self, kept: &Kept<'_>, cpus: u32, lines: &mut Vec<u8>) {
        let Self { layout, sources, in_ns, .. } = *self;
        let written = kept.records.saturating_add(kept.lost);
        match layout {
            TextLayout::Ftrace => TraceText { sources, in_ns }.header(kept.records, written, cpus, lines),
            TextLayout::TraceCmd => TraceCmdText { sources, in_ns }.header(cpus, lines),
            TextLayout::Json => {}
        }
    }

    fn entry(&self, entry: &Entry<'_>, lines: &mut Vec<u8>) {
        let Self { layout, sources, in_ns, .. } = *self;
        match layout {
            TextLayout::Ftrace => TraceText { sources, in_ns }.entry(entry, lines),
            TextLayout::TraceCmd => TraceCmdText { sources, in_ns }.entry(entry, lines),
            TextLayout::Json => JsonLines { sources, with_text: true }.entry(entry, lines),
        }
    }

    fn lost(&self, cpu: u32, count: u64, lines: &mut Vec<u8>) {
        let Self { layout, sources, in_ns, .. } = *self;
        match layout {
            TextLayout::Ftrace => TraceText { sources, in_ns }.lost(cpu, Some(count), lines),
            TextLayout::TraceCmd => TraceCmdText { sources, in_ns }.lost(cpu, Some(count), lines),
            TextLayout::Json => JsonLines { sources, with_text: true }.lost(cpu, Some(count), lines),
        }
    }

    /// As `ringtap report` shows it.
    fn damage(&self, damage: &Damage<'_>, lines: &mut Vec<u8>) {
        let line = match self.layout {
            TextLayout::Json => {
                let (file, error) = (damage.file.path.display().to_string(), &damage.reason);
                let Damage { cpu, offset, .. } = damage;
                json!({ "type": "damage", "cpu": cpu, "file": file, "offset": offset, "error": error })
                    .to_string()
            }
            _ => format!("[DAMAGED: {damage}]"),
        };
        lines.extend_from_slice(line.as_bytes());
        lines.push(b'\n');
    }
}
