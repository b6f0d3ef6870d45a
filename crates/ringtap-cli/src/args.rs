//! What can be typed. Help, completions and man pages are made from these definitions.

use crate::command::control::{instance, list, reset, set, show, snapshot, start, stop};
use crate::command::{
    completions, demo, exec, export, held, man, mount, query, record, recover, report, serve, stat, stream,
};
use clap::{ColorChoice, CommandFactory, Parser, Subcommand};

const EXAMPLES: &str = "\
Exit status:
  0      done, or whoever read the output had enough
  1      failed; one sentence on the standard error says why and what helps
  2      wrong usage
  128+N  stopped by signal N, after cleaning up: it dies of the signal, so that loops end with Ctrl-C
         (not `record` without a COMMAND, whose usual end that is: 0); signals that are ignored when
         it is started stay so: in the background of a script it is SIGTERM that ends it
  a COMMAND's own, where one was run";

/// Watch trace events of applications and of the Linux kernel, live and without a copy
#[derive(Debug, Parser)]
#[command(name = "ringtap", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Args {
    /// When to colour the output
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true, display_order = 900)]
    pub color: ColorChoice,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The program's definition, whose help fits any width.
#[must_use]
pub fn command() -> clap::Command {
    reflowed(Args::command())
}

/// Below so many columns nearly no example fits.
const NARROW: usize = 70;

/// Texts behind the options are written in lines; as paragraphs, the terminal's width breaks them.
fn reflowed(command: clap::Command) -> clap::Command {
    let text = command.get_after_help().map(|text| paragraphs(&text.to_string(), width()));
    let command = command.mut_subcommands(reflowed);
    match text {
        Some(text) => command.after_help(text),
        None => command,
    }
}

/// Columns of the terminal, as the help's other parts take them.
fn width() -> usize {
    let named = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let size = || rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok();
    named
        .or_else(|| size().map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0))
        .unwrap_or(100)
}

/// The same with each paragraph on one line. Lines that are indented, or before an indented one, stay as they are, but an
/// example that does not fit, or any where it is narrow, has a line for what it is and one for what is typed.
fn paragraphs(text: &str, width: usize) -> String {
    let mut joined = String::new();
    let is_split = |line: &str| line.starts_with("  ") && (width < NARROW || line.chars().count() > width);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        match line.split_once(":  ").filter(|_| is_split(line)) {
            Some((what, typed)) => joined += &format!("{what}:\n      {}", typed.trim_start()),
            None => joined += line,
        }
        let goes_on = |next: &str| !next.is_empty() && !next.starts_with([' ', '{']);
        let is_own = line.is_empty() || line.starts_with([' ', '{']) || line.ends_with(':');
        match lines.peek() {
            Some(next) if !is_own && goes_on(next) => joined.push(' '),
            Some(_) => joined.push('\n'),
            None => {}
        }
    }
    joined
}

/// The subcommands; each has its file in `command/`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: processes read the files of a folder and trace what they do
    Demo(demo::Args),
    /// Follow events live: an application's, the kernel's, or both on one timeline
    Stream(stream::Args),
    /// Record to a file, a trace.dat: an application's events, the kernel's, or both on one timeline
    Record(record::Args),
    /// Show each CPU's counters: events held, read, overwritten and dropped
    Stat(stat::Args),
    /// Print what files of a trace hold: dumps of the kernel's buffers, or a trace.dat
    Report(report::Args),
    /// Show this host's buffers as a tracefs, on a socket, or both, until Ctrl-C
    Serve(serve::Args),
    /// Show a new host's buffers as a tracefs under a directory, until Ctrl-C
    Mount(mount::Args),
    /// Run a command that finds ringtap's buffers where the kernel's tracefs is
    Exec(exec::Args),
    /// Switch events and recording on, and leave them on
    Start(start::Args),
    /// Switch recording off
    Stop(stop::Args),
    /// Set buffers, clock, filters, triggers and options
    Set(set::Args),
    /// Make an instance as it was at first
    Reset(reset::Args),
    /// List events, options and clocks of a host
    List(list::Args),
    /// Print what the buffers hold
    Show(show::Args),
    /// Keep what the buffers hold at one moment
    Snapshot(snapshot::Args),
    /// Make, remove and list instances
    Instance(instance::Args),
    /// Print what persistent buffers hold after a crash
    Recover(recover::Args),
    /// Convert a trace for other programs: Perfetto, babeltrace2, Chrome, DuckDB
    Export(export::Args),
    /// Ask a trace in SQL: events, spans and losses are tables
    Query(query::Args),
    /// Print a shell's completion script
    Completions(completions::Args),
    /// Print the manual page, in roff
    Man(man::Args),
    /// One of `demo`'s worker processes.
    #[command(hide = true)]
    DemoWorker(demo::worker::Args),
    /// Stops itself, and becomes COMMAND once it is continued.
    #[command(hide = true)]
    Held(held::Args),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_lines_and_examples_stay() {
        let text = "Examples:\n  one:  a\n  two:  b\n\nA text in\ntwo lines.\nAnd {:\n  {\"a\"}\nEnd.";
        let joined = "Examples:\n  one:  a\n  two:  b\n\nA text in two lines. And {:\n  {\"a\"}\nEnd.";
        assert_eq!(paragraphs(text, 100), joined);
        let narrow =
            "Examples:\n  one:\n      a\n  two:\n      b\n\nA text in two lines. And {:\n  {\"a\"}\nEnd.";
        assert_eq!(paragraphs(text, 7), narrow);
    }
}
