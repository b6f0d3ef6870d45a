//! The kill test: what does a healthy process lose when others are killed at whatever they do?
//!
//! On one CPU, writers in a tight loop are killed by SIGKILL, one after the other. A healthy process writes
//! on the same CPU before, meanwhile and afterwards; all share that CPU's ring. Counted are the events that
//! it wrote afterwards, when nobody disturbs it any more: recorded, or lost by the tracer's own count.

mod ringtap;

use crate::guest::{self, Role};
use crate::lttng::{self, Recording, Ring, Session};
use crate::process::Finished;
use crate::rotation::Contender as _;
use crate::sandbox;
use crate::worker::Worker;
use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

pub use ringtap::{Exact, Ringtap, Tally, serve_writer};

/// The healthy writer's id in its events; the killed ones count up from 1.
const HEALTHY: u64 = 0;
/// Events that the healthy process writes at a time while others are killed.
const BATCH: u64 = 1000;
/// How long a writer lives, in microseconds of the wall's clock: long enough to get the CPU that it shares.
const LIFE_US: Range<u64> = 1_000..8_000;
/// How long it lives on once it was seen to write.
const LIFE_WRITING_US: Range<u64> = 0..3_000;

/// What to do to a tracer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The CPU that all writers share.
    pub cpu: usize,
    /// Writers killed.
    pub kills: u64,
    /// Events of the healthy process before the first kill.
    pub before: u64,
    /// Events of the healthy process after the last kill.
    pub after: u64,
    /// Seed of the writers' lives.
    pub seed: u64,
}

/// A tracer under test.
pub trait Subject {
    /// What it is called in the report.
    fn name(&self) -> String;

    /// Starts a writer on the plan's CPU. Its events carry `id` and a number that counts up from 0.
    ///
    /// # Errors
    /// When it does not start.
    fn writer(&mut self, cpu: usize, id: u64) -> anyhow::Result<Worker>;

    /// Waits until writer `id` is seen to write; `false` where this tracer cannot tell while it records.
    ///
    /// # Errors
    /// When the writer does not write.
    fn await_event(&mut self, _id: u64) -> anyhow::Result<bool> {
        Ok(false)
    }

    /// Ends the recording and finds out what became of writer `id`'s events.
    ///
    /// # Errors
    /// When there is no telling. A tracer that hangs is no error but a step in the account.
    fn account(&mut self, id: u64, numbers: &Range<u64>) -> anyhow::Result<Account>;
}

/// What a tracer says about the events that were written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// Events of the range asked for that are in the trace.
    pub recorded: u64,
    /// Earlier ones of the same writer that are in the trace, not overwritten since.
    pub recorded_earlier: u64,
    /// Events lost by the tracer's own count, of all processes.
    pub lost_events: u64,
    /// Packets (sub-buffers) lost by the tracer's own count, where it does not know their events.
    pub lost_packets: u64,
    /// What it took to find out.
    pub steps: Vec<Step>,
    /// What a tracer knows whose reader followed the whole test.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exact: Option<Exact>,
}

/// One command of the account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What was run.
    pub command: String,
    /// How it went.
    pub end: StepEnd,
    /// How long it ran, in milliseconds.
    pub took_ms: u64,
}

/// How a [`Step`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEnd {
    /// It ended without an error.
    Done,
    /// It ended with an error.
    Failed,
    /// It did not end, and was killed.
    Hung,
}

impl Step {
    fn new(command: &str, finished: &Finished) -> Self {
        let end = match finished.status {
            None => StepEnd::Hung,
            Some(status) if status.success() => StepEnd::Done,
            Some(_) => StepEnd::Failed,
        };
        let took_ms = u64::try_from(finished.took.as_millis()).unwrap_or(u64::MAX);
        Self { command: command.into(), end, took_ms }
    }
}

/// What the test found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The tracer.
    pub subject: String,
    /// Writers killed.
    pub kills: u64,
    /// Those of them that were seen to write before they were killed.
    pub seen_writing: u64,
    /// Events that the healthy process wrote before the first kill.
    pub before: u64,
    /// Events that it wrote meanwhile.
    pub meanwhile: u64,
    /// Events that it wrote after the last kill.
    pub after: u64,
    /// What became of the latter.
    pub account: Account,
    /// The least number of them that are neither recorded nor can be among those counted as lost.
    pub unaccounted: u64,
    /// Nanoseconds per event before.
    pub ns_before: u64,
    /// Nanoseconds per event afterwards.
    pub ns_after: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, kills, before, meanwhile, after, account, unaccounted, .. } = self;
        let (events, packets) = (account.lost_events, account.lost_packets);
        let facts = [
            ("writers killed", kills.to_string()),
            ("healthy process wrote", format!("{before} before, {meanwhile} meanwhile, {after} afterwards")),
            ("the latter in the trace", account.recorded.to_string()),
            ("earlier ones in the trace", account.recorded_earlier.to_string()),
            ("lost by its own count", format!("{events} events, {packets} packets, of all processes")),
            ("unaccounted for", format!("at least {unaccounted}")),
            ("ns per event", format!("{} before, {} afterwards", self.ns_before, self.ns_after)),
        ];
        writeln!(f, "{subject}")?;
        for (what, figure) in facts {
            writeln!(f, "  {what:<26} {figure}")?;
        }
        if let Some(exact) = &account.exact {
            write!(f, "{exact}")?;
            writeln!(f, "  {:<26} {} of {kills}", "seen writing when killed", self.seen_writing)?;
        }
        for Step { command, end, took_ms } in &account.steps {
            let end = match end {
                StepEnd::Done => "done",
                StepEnd::Failed => "failed",
                StepEnd::Hung => "hung, killed",
            };
            writeln!(f, "  {command:<26} {end} after {took_ms} ms")?;
        }
        Ok(())
    }
}

/// Does to `subject` what the plan says.
///
/// # Errors
/// When a writer does not start, or the healthy one hangs.
pub fn run(plan: &Plan, subject: &mut dyn Subject) -> anyhow::Result<Report> {
    let mut healthy = subject.writer(plan.cpu, HEALTHY)?;
    let quiet = healthy.run(plan.before)?;

    let over = AtomicBool::new(false);
    let (killed, meanwhile) = thread::scope(|scope| {
        let writing = scope.spawn(|| write_until(&mut healthy, &over));
        let killed = kill_writers(plan, subject);
        over.store(true, Relaxed);
        (killed, writing.join().expect("the healthy writer's thread does not panic"))
    });
    let seen_writing = killed?;
    let meanwhile = meanwhile.context("the healthy writer did not survive the others' deaths")?;

    let alone = healthy.run(plan.after)?;
    let first = plan.before + meanwhile;
    drop(healthy);
    let account = subject.account(HEALTHY, &(first..first + plan.after))?;
    let unaccounted = match &account.exact {
        Some(exact) => exact.unaccounted,
        None => plan.after.saturating_sub(account.recorded).saturating_sub(account.lost_events),
    };
    Ok(Report {
        subject: subject.name(),
        kills: plan.kills,
        seen_writing,
        before: plan.before,
        meanwhile,
        after: plan.after,
        unaccounted,
        account,
        ns_before: quiet.wall_ns / plan.before.max(1),
        ns_after: alone.wall_ns / plan.after.max(1),
    })
}

fn write_until(healthy: &mut Worker, over: &AtomicBool) -> anyhow::Result<u64> {
    let mut written = 0;
    // Relaxed: nothing else is published with the flag.
    while !over.load(Relaxed) {
        healthy.run(BATCH)?;
        written += BATCH;
    }
    Ok(written)
}

/// Kills the plan's writers; returns how many were seen to write.
fn kill_writers(plan: &Plan, subject: &mut dyn Subject) -> anyhow::Result<u64> {
    let (mut random, mut seen_writing) = (plan.seed, 0);
    for id in 1..=plan.kills {
        let mut writer = subject.writer(plan.cpu, id)?;
        writer.start(u64::MAX)?;
        let writes = subject.await_event(id)?;
        seen_writing += u64::from(writes);
        let life = if writes { LIFE_WRITING_US } else { LIFE_US };
        let micros = life.start + split_mix(&mut random) % (life.end - life.start);
        thread::sleep(Duration::from_micros(micros));
        writer.kill()?;
    }
    Ok(seen_writing)
}

/// The next number of Steele, Lea and Flood's SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut number = *state;
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// LTTng-UST's part, in a sandbox of its own.
///
/// # Errors
/// When LTTng cannot be set up.
pub fn lttng(plan: &Plan, recording: Recording) -> anyhow::Result<Report> {
    let guest = guest::command(&Role::LttngKillTest { plan: *plan, recording })?;
    let mut child = sandbox::command(&guest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a sandbox")?;
    let mut report = String::new();
    child.stdout.take().context("a piped stdout is there")?.read_to_string(&mut report)?;
    let status = child.wait()?;
    ensure!(status.success(), "LTTng's part ended with {status}");
    serde_json::from_str(&report).context("LTTng's part printed no report")
}

/// The sandbox's first process: runs the test and prints the report.
///
/// # Errors
/// When LTTng cannot be set up.
pub fn serve_lttng(plan: &Plan, recording: Recording) -> anyhow::Result<()> {
    end_with_parent();
    let report = run(plan, &mut Lttng { session: Session::start(recording, LTTNG_RING)?, recording })?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Ends this process, and the sandbox with it, when the one that started it is gone.
#[expect(clippy::exit, reason = "the main thread may be waiting for somebody that hangs")]
fn end_with_parent() {
    thread::spawn(|| {
        // Nobody writes to our stdin: it yields its end, when the parent is no more.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
}

/// Room for all events of a healthy process after the kills, so that none need be overwritten.
const LTTNG_RING: Ring = Ring { subbuf_size: "4M", nr_subbufs: 8 };

struct Lttng {
    session: Session,
    recording: Recording,
}

impl Subject for Lttng {
    fn name(&self) -> String {
        let recording = match self.recording {
            Recording::Snapshot => "flight recorder (snapshot session)",
            Recording::Continuous => "recording to files",
        };
        format!("LTTng-UST {}, buffers shared by a user's processes, {recording}", lttng::version())
    }

    fn writer(&mut self, cpu: usize, id: u64) -> anyhow::Result<Worker> {
        Worker::spawn(format!("LTTng writer {id}"), &mut self.session.writer(cpu, id))
    }

    fn account(&mut self, id: u64, numbers: &Range<u64>) -> anyhow::Result<Account> {
        let mut account = Account::default();
        account.steps.push(Step::new("lttng stop", &self.session.stop()?));
        if self.recording == Recording::Snapshot {
            account.steps.push(Step::new("lttng snapshot record", &self.session.record_snapshot()?));
        }
        let listed = self.session.list()?;
        account.steps.push(Step::new("lttng list", &listed));
        account.lost_events += counted(&listed.output, "Discarded events:");
        account.lost_packets += counted(&listed.output, "Lost packets:");
        // What a hanging `destroy` would still write is not waited for.
        account.steps.push(Step::new("lttng destroy", &self.session.destroy()?));
        read_trace(&self.session, id, numbers, &mut account)?;
        Ok(account)
    }
}

/// The number behind `label` in LTTng's listing.
fn counted(listing: &str, label: &str) -> u64 {
    let number = listing.lines().find_map(|line| line.trim().strip_prefix(label));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// Reads the trace as its own reader prints it, which warns of losses on stderr.
fn read_trace(session: &Session, id: u64, numbers: &Range<u64>, account: &mut Account) -> anyhow::Result<()> {
    let started = Instant::now();
    let warnings_path = session.trace().with_extension("warnings");
    let mut reader = Command::new("babeltrace2")
        .arg(session.trace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&warnings_path)?)
        .spawn()
        .context("cannot start babeltrace2")?;
    let lines = BufReader::new(reader.stdout.take().context("a piped stdout is there")?).lines();
    for line in lines {
        let line = line?;
        let (writer, number) = event_of(&line).with_context(|| format!("not an event of ours: {line}"))?;
        account.recorded += u64::from(writer == id && numbers.contains(&number));
        account.recorded_earlier += u64::from(writer == id && number < numbers.start);
    }
    let finished = Finished { status: Some(reader.wait()?), output: String::new(), took: started.elapsed() };
    account.steps.push(Step::new("babeltrace2", &finished));
    for warning in std::fs::read_to_string(&warnings_path)?.lines() {
        let (events, packets) = losses_of(warning);
        account.lost_events += events;
        account.lost_packets += packets;
    }
    Ok(())
}

/// Writer and number of an event as babeltrace2 prints it.
fn event_of(line: &str) -> Option<(u64, u64)> {
    let field = |label: &str| {
        let value = &line[line.find(label)? + label.len()..];
        value[..value.find([',', ' '])?].parse().ok()
    };
    Some((field("writer = ")?, field("sequence = ")?))
}

/// Events and packets that one of babeltrace2's warnings says were discarded.
fn losses_of(warning: &str) -> (u64, u64) {
    let Some((_, discarded)) = warning.split_once("Tracer discarded ") else { return (0, 0) };
    let mut words = discarded.split_whitespace();
    let count = words.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    match words.next() {
        Some("event" | "events") => (count, 0),
        Some("packet" | "packets") => (0, count),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_babeltrace2_prints_them() {
        let line = "[20:28:33.041749250] (+0.000000104) vm ringtap_bench:event: { cpu_id = 1 }, \
                    { writer = 7, sequence = 599999, check = 599992 }";
        assert_eq!(event_of(line), Some((7, 599_999)));
        assert_eq!(event_of("[20:28:33.041749250] vm other:event: { cpu_id = 1 }, { }"), None);
    }

    #[test]
    fn losses_are_read_as_babeltrace2_prints_them() {
        let events =
            "WARNING: Tracer discarded 1146663 events between [20:29:06.950902572] and [...] in trace";
        let packets = "WARNING: Tracer discarded 1 packet between [20:29:06.950902572] and [...] in trace";
        assert_eq!((losses_of(events), losses_of(packets)), ((1_146_663, 0), (0, 1)));
        assert_eq!(losses_of("WARNING: something else"), (0, 0));
    }

    #[test]
    fn counters_are_read_as_lttng_lists_them() {
        let listing = "    Statistics:\n      Discarded events: 12\n      Lost packets:     3\n";
        assert_eq!(counted(listing, "Discarded events:"), 12);
        assert_eq!(counted(listing, "Lost packets:"), 3);
        assert_eq!(counted("    Statistics:\n      None\n", "Lost packets:"), 0);
    }

    #[test]
    fn split_mix_is_the_published_one() {
        let mut state = 1_234_567;
        assert_eq!(split_mix(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut state), 3_203_168_211_198_807_973);
    }
}
