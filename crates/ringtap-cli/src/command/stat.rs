//! `ringtap stat`: each CPU's counters, once or again and again.

use crate::outcome::Outcome;
use crate::output::{HEADING, LOSS, Output};
use crate::remote;
use crate::signals::Signals;
use anyhow::Result;
use ringtap::Stats;
use ringtap::attach::Connection;
use ringtap::tracefs::{Buffer, Tracefs};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  Watch the kernel's own buffers:        ringtap stat --kernel
  Those of this user's `ringtap serve`:  ringtap stat
  Those of an application:               ringtap stat --attach /run/app/ringtap.sock
  Those of the tracing instance `web`:   ringtap stat --kernel=web
  Twice a second, for a program:         ringtap stat --kernel --json --interval 0.5

On a terminal the table is drawn again each second until Ctrl-C; elsewhere, and with --json, it is
printed once unless --interval is given. With --json each line is one object:
  {\"clock\":\"mono\",\"ts_unit\":\"ns\",
  \"cpus\":[{\"cpu\":0,\"entries\":0,\"overrun\":0,\"commit_overrun\":0,\"bytes\":0,\"oldest_event_ts\":0,
  \"now_ts\":0,\"dropped_events\":0,\"read_events\":0}]}
Times are those of the buffer's clock; ts_unit says what it counts: \"ns\", \"ticks\", \"jiffies\".";

/// Shortest interval, in seconds: reading the counters takes the kernel's buffer locks.
const MIN_INTERVAL: f64 = 0.01;
/// Longest interval, in seconds: a day.
const MAX_INTERVAL: f64 = 86_400.0;
const TERMINAL_INTERVAL: Duration = Duration::from_secs(1);

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Show the kernel's buffers: the top-level ones, or those of a tracing instance
    #[arg(long, value_name = "INSTANCE", num_args = 0..=1, require_equals = true, conflicts_with_all = ["attach", "instance"])]
    kernel: Option<Option<String>>,
    #[command(flatten)]
    host: remote::Args,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Print again each this many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", value_parser = parse_interval)]
    interval: Option<Duration>,
    /// Print once, even on a terminal
    #[arg(long, conflicts_with = "interval")]
    once: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (MIN_INTERVAL..=MAX_INTERVAL).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("must be {MIN_INTERVAL} to {MAX_INTERVAL} seconds"))
}

/// What will happen.
#[derive(Debug)]
struct Plan {
    source: Source,
    cpus: Vec<u32>,
    json: bool,
    /// Draw over the last table.
    redraw: bool,
    /// Pause before the next; `None`: there is only one.
    interval: Option<Duration>,
}

/// Whose counters.
#[derive(Debug)]
enum Source {
    Kernel(Buffer),
    Application(Connection),
}

impl Source {
    /// The clock's name as `trace_clock` has it, where that is known.
    fn clock(&self) -> Option<String> {
        match self {
            Self::Kernel(buffer) => {
                let clocks = std::fs::read_to_string(buffer.path().join("trace_clock")).ok()?;
                Some(clocks.split_once('[')?.1.split_once(']')?.0.to_owned())
            }
            Self::Application(connection) => connection.clock().map(|clock| clock.name().to_owned()),
        }
    }

    fn stats(&self, cpu: u32) -> Result<Stats> {
        match self {
            Self::Kernel(buffer) => Ok(buffer.stats(cpu)?),
            Self::Application(connection) => Ok(connection.stats(cpu)?),
        }
    }
}

impl Plan {
    fn new(args: &Args, can_redraw: bool) -> Result<Self> {
        let (source, cpus) = match &args.kernel {
            None => {
                let connection = args.host.buffers()?;
                let cpus = connection.cpus().to_vec();
                (Source::Application(connection), cpus)
            }
            Some(instance) => {
                let tracefs = Tracefs::find()?;
                let buffer = match instance {
                    Some(instance) => tracefs.existing_instance(instance)?,
                    None => tracefs.top_level(),
                };
                (Source::Kernel(buffer), tracefs.cpus()?)
            }
        };
        let redraw = can_redraw && !args.json && !args.once;
        let interval = args.interval.or(redraw.then_some(TERMINAL_INTERVAL));
        Ok(Self { source, cpus, json: args.json, redraw, interval })
    }
}

/// Prints the counters.
///
/// # Errors
/// There is no tracefs or no such instance, or this process may not look.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let plan = Plan::new(args, output.can_redraw())?;
    let signals = Signals::catch()?;
    let mut drawn_lines = 0;
    loop {
        let rows = read_rows(&plan)?;
        if plan.json {
            let clock = plan.source.clock();
            let ts_unit = clock.as_deref().map(unit);
            output.json_line(&Report { clock: clock.as_deref(), ts_unit, cpus: &rows })?;
        } else {
            let limit = match plan.redraw {
                true => Limit { rows: output.rows(), columns: output.columns() },
                false => Limit::default(),
            };
            let table = table(&rows, limit);
            if drawn_lines > 0 && plan.redraw {
                output.erase_lines(drawn_lines)?;
            }
            drawn_lines = table.lines().count();
            output.write_all(table.as_bytes())?;
        }
        output.flush()?;
        let Some(interval) = plan.interval else { return Ok(Outcome::Done) };
        signals.sleep(interval);
        if let Some(signal) = signals.caught() {
            return Ok(Outcome::Stopped(signal));
        }
    }
}

/// What a clock counts.
fn unit(clock: &str) -> &'static str {
    match clock {
        "x86-tsc" | "ppc-tb" | "counter" => "ticks",
        "uptime" => "jiffies",
        _ => "ns",
    }
}

/// The documented form of one object of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<&'a str>,
    /// Of the times.
    #[serde(skip_serializing_if = "Option::is_none")]
    ts_unit: Option<&'static str>,
    cpus: &'a [Row],
}

/// One CPU.
#[derive(Clone, Copy, Debug, Serialize)]
struct Row {
    cpu: u32,
    entries: u64,
    overrun: u64,
    commit_overrun: u64,
    bytes: u64,
    oldest_event_ts: u64,
    now_ts: u64,
    dropped_events: u64,
    read_events: u64,
}

impl Row {
    fn new(cpu: u32, stats: &Stats) -> Self {
        Self {
            cpu,
            entries: stats.entries,
            overrun: stats.overrun,
            commit_overrun: stats.commit_overrun,
            bytes: stats.bytes,
            oldest_event_ts: stats.oldest_event_ts,
            now_ts: stats.now_ts,
            dropped_events: stats.dropped_events,
            read_events: stats.read_events,
        }
    }
}

fn read_rows(plan: &Plan) -> Result<Vec<Row>> {
    plan.cpus.iter().map(|&cpu| Ok(Row::new(cpu, &plan.source.stats(cpu)?))).collect()
}

/// A column: its heading, width and value, and whether that is a loss.
type Column = (&'static str, usize, fn(&Row) -> u64, bool);

/// In the order of their weight: where the terminal is too narrow, the last ones go.
const COLUMNS: [Column; 7] = [
    ("CPU", 4, |row| row.cpu.into(), false),
    ("entries", 12, |row| row.entries, false),
    ("read", 12, |row| row.read_events, false),
    ("overrun", 12, |row| row.overrun, true),
    ("dropped", 12, |row| row.dropped_events, true),
    ("bytes", 12, |row| row.bytes, false),
    ("commit-ovr", 10, |row| row.commit_overrun, true),
];

/// What a terminal shows at once: what has scrolled away, and lines that were broken, cannot be drawn over.
#[derive(Clone, Copy, Debug, Default)]
struct Limit {
    rows: Option<usize>,
    columns: Option<usize>,
}

/// The columns that fit, the first one always.
fn fitting_columns(width: Option<usize>) -> &'static [Column] {
    let width = width.unwrap_or(usize::MAX);
    let mut used = 0;
    let fitting = COLUMNS.iter().take_while(|(_, column, ..)| {
        used += column + usize::from(used > 0);
        used <= width
    });
    &COLUMNS[..fitting.count().max(1)]
}

/// The table, as far as the terminal shows it.
fn table(rows: &[Row], limit: Limit) -> String {
    let columns = fitting_columns(limit.columns);
    let line = |cell: &dyn Fn(&Column) -> String| columns.iter().map(cell).collect::<Vec<_>>().join(" ");
    let heading = line(&|(name, width, ..)| format!("{name:>width$}"));
    let mut text = format!("{HEADING}{heading}{HEADING:#}\n");
    // The heading, the line about what is left out, and the cursor's own line stay free.
    let fitting = limit.rows.map_or(rows.len(), |limit| limit.saturating_sub(3).max(1));
    for row in rows.iter().take(fitting) {
        let cells = line(&|&(_, width, value, is_loss)| match value(row) {
            value if is_loss => loss(value, width),
            value => format!("{value:>width$}"),
        });
        let _ = writeln!(text, "{cells}");
    }
    if let Some(left_out) = rows.len().checked_sub(fitting).filter(|&left_out| left_out > 0) {
        let note = format!("     and {left_out} more CPUs; enlarge the terminal or use --once");
        let _ = writeln!(text, "{}", &note[..note.len().min(limit.columns.unwrap_or(usize::MAX))]);
    }
    text
}

fn loss(count: u64, width: usize) -> String {
    if count == 0 { format!("{count:>width$}") } else { format!("{LOSS}{count:>width$}{LOSS:#}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u32) -> Vec<Row> {
        let stats = Stats { entries: 12, overrun: 3, ..Stats::default() };
        (0..count).map(|cpu| Row::new(cpu, &stats)).collect()
    }

    #[test]
    fn the_table_fits_the_terminal() {
        let limit = |rows, columns| Limit { rows, columns };
        assert_eq!(table(&rows(4), Limit::default()).lines().count(), 5);
        assert_eq!(table(&rows(4), limit(Some(7), None)).lines().count(), 5);
        let cut = table(&rows(40), limit(Some(10), None));
        assert_eq!(cut.lines().count(), 9);
        assert!(cut.ends_with("and 33 more CPUs; enlarge the terminal or use --once\n"));
        for width in 1..100 {
            let table = table(&rows(40), limit(Some(10), Some(width)));
            let table = anstream::adapter::strip_str(&table).to_string();
            assert!(table.lines().all(|line| line.len() <= width.max(4)), "{width}");
            assert_eq!(table.contains("entries"), width >= 17, "{width}");
            assert_eq!(table.contains("commit-ovr"), width >= 80, "{width}");
        }
    }

    #[test]
    fn only_losses_are_red() {
        let text = table(&rows(1), Limit::default());
        assert_eq!(text.matches(&LOSS.to_string()).count(), 1);
    }

    #[test]
    fn intervals_are_bounded() {
        assert_eq!(parse_interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "soon"] {
            parse_interval(wrong).unwrap_err();
        }
    }
}
