//! The demo as it happens: a host, its workers, and the mapped reader that prints what they trace.

use super::cost;
use super::report::Report;
use super::workers::Workers;
use super::{Plan, Show};
use crate::application::{Application, Registry};
use crate::command::host_side::names_of;
use crate::decode::{self, Layout, Seen, Source, write_lines};
use crate::outcome::Outcome;
use crate::output::{FAINT, Output};
use crate::private::Folder;
use crate::signals::Signals;
use anyhow::{Context, Result, bail};
use ringtap::{Config, Instances, Item, Merge, Stats, clock};
use ringtap_format::Dialect;
use std::io::Write;
use std::time::{Duration, Instant};

/// Longest sleep: a signal or the end of the workers is noticed after it.
const NOTICE: Duration = Duration::from_millis(20);
/// Events read before the clock is looked at.
const ROUND: u32 = 256;
/// How long workers may take to stop when asked.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer than the merge holds an event back.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// Runs the demo.
pub(super) fn run(plan: &Plan, signals: &Signals, output: &mut Output) -> Result<Outcome> {
    let config = Config {
        subbuf_size: plan.subbuf_size,
        ring_subbufs: plan.ring_subbufs,
        buffer_percent: 0,
        ..Config::default()
    };
    let instances = Instances::new(&config)
        .with_context(|| format!("cannot make buffers of {} KiB for each CPU", plan.buffer_kib))?;
    // In this order, so that an error or the end drops the workers first, then the socket, then its folder.
    let folder = Folder::new()?;
    instances.top().set_new_events(true);
    let host = instances.top().host();
    let server = instances.serve(folder.socket())?;
    let mut merge = Merge::new(host.readers()?);
    let mut screen = Screen::new(plan, &instances, output)?;
    let workers = Workers::start(&plan.path, plan.workers, plan.limit, server.path())?;

    let mut stopping: Option<Instant> = None;
    while !workers.ended()? && stopping.is_none_or(|since| since.elapsed() < PATIENCE) {
        if signals.caught().is_some() && stopping.is_none() {
            workers.stop();
            stopping = Some(Instant::now());
        }
        screen.follow(&mut merge, output)?;
        merge.wait(Some(NOTICE))?;
    }
    let work = workers.finish()?;
    while screen.follow(&mut merge, output)? || merge.wait(Some(LAST_LOOK))? == ringtap::Waited::Ready {}
    screen.tell_skipped(output)?;
    drop(merge);
    drop(server);

    let stats = host.cpus().into_iter().map(|cpu| host.stats(cpu)).collect::<Result<Vec<_>, _>>()?;
    let cost = cost::measure()?;
    let report = Report {
        written: stats.iter().map(Stats::written).sum(),
        read: screen.read,
        lost: screen.lost,
        left: stats.iter().map(|stats| stats.entries).sum(),
        ns_per_event: cost.ns_per_event,
        ns_per_clock_read: cost.ns_per_clock_read,
        cpus: u32::try_from(stats.len()).unwrap_or(u32::MAX),
        writers: plan.workers,
    };
    match plan.json {
        true => output.json_line(&report)?,
        false => report.print(&work, signals.caught().is_some(), output)?,
    }
    output.flush()?;
    // The ring's own count, the reader's, and that of the workers who lived to tell: they have to agree.
    if !report.adds_up() || (work.killed == 0 && work.totals.events != report.written) {
        bail!("events are unaccounted for: the workers wrote {}; please report this", work.totals.events);
    }
    Ok(signals.caught().map_or(Outcome::Done, Outcome::Stopped))
}

/// What is printed of the events, and their count.
struct Screen {
    application: Application,
    layout: Layout,
    pace: Pace,
    is_coloured: bool,
    is_quiet: bool,
    /// Bytes of the record being looked at.
    record: Vec<u8>,
    lines: Vec<u8>,
    read: u64,
    lost: u64,
}

impl Screen {
    fn new(plan: &Plan, instances: &Instances, output: &Output) -> Result<Self> {
        let registry = Registry::Here(instances.top().host());
        let mut application = Application::new(registry, Dialect::Kernel)?;
        // A worker may be gone before its last events are printed.
        application.decoder.ask_for_names(names_of(instances));
        Ok(Self {
            application,
            layout: if plan.json { Layout::Json } else { Layout::Human { since: clock::monotonic_ns() } },
            pace: Pace::new(plan.show == Show::Some),
            is_coloured: output.is_coloured(),
            is_quiet: plan.show == Show::None,
            record: Vec::new(),
            lines: Vec::new(),
            read: 0,
            lost: 0,
        })
    }

    /// Prints what there is, but not for so long that a signal would wait; whether there may be more.
    fn follow(&mut self, merge: &mut Merge, output: &mut Output) -> Result<bool> {
        let end = Instant::now() + NOTICE;
        loop {
            let mut now = None;
            for _ in 0..ROUND {
                let Some(merged) = merge.next()? else {
                    self.flush(output)?;
                    return Ok(false);
                };
                let now = *now.get_or_insert_with(Instant::now);
                self.item(merged.item, merged.ns, now)?;
            }
            write_lines(&mut self.lines, output)?;
            if Instant::now() >= end {
                self.flush(output)?;
                return Ok(true);
            }
        }
    }

    fn item(&mut self, item: Item<'_>, ns: u64, now: Instant) -> Result<()> {
        match item {
            Item::Record(record) => {
                self.read += 1;
                if self.is_quiet || !self.pace.admits(now) {
                    return Ok(());
                }
                self.record.clear();
                record.payload.copy_to(&mut self.record);
                self.application.prepare(&self.record)?;
                let seen = Seen { cpu: record.cpu, ns, record: &self.record };
                self.application.decoder.line(&seen, self.layout, self.is_coloured, &mut self.lines);
            }
            Item::Lost(lost) => {
                self.lost += lost.count.unwrap_or(0);
                if !self.is_quiet {
                    decode::lost(lost, Source::Application, self.layout, self.is_coloured, &mut self.lines);
                }
            }
            Item::Damaged(damaged) => {
                decode::damaged(damaged, Source::Application, self.layout, self.is_coloured, &mut self.lines);
            }
            _ => {}
        }
        Ok(())
    }

    fn flush(&mut self, output: &mut Output) -> Result<()> {
        if self.pace.is_time_to_tell(Instant::now()) {
            self.tell_skipped(output)?;
        }
        write_lines(&mut self.lines, output)?;
        Ok(output.flush()?)
    }

    fn tell_skipped(&mut self, output: &mut Output) -> Result<()> {
        write_lines(&mut self.lines, output)?;
        let skipped = std::mem::take(&mut self.pace.skipped);
        if skipped > 0 && !self.is_quiet {
            writeln!(output, "{FAINT}            and {skipped} more events (--all prints each){FAINT:#}")?;
        }
        Ok(())
    }
}

/// Lines that a person can follow: so many in each slice of time. The others are counted.
struct Pace {
    is_bounded: bool,
    slice: Instant,
    shown: u32,
    skipped: u64,
    told: Instant,
}

impl Pace {
    const SLICE: Duration = Duration::from_millis(250);
    const LINES_A_SLICE: u32 = 5;
    /// How often the number of those not shown is told.
    const TELL: Duration = Duration::from_secs(1);

    fn new(is_bounded: bool) -> Self {
        let now = Instant::now();
        Self { is_bounded, slice: now, shown: 0, skipped: 0, told: now }
    }

    fn admits(&mut self, now: Instant) -> bool {
        if !self.is_bounded {
            return true;
        }
        if now.saturating_duration_since(self.slice) >= Self::SLICE {
            (self.slice, self.shown) = (now, 0);
        }
        let is_admitted = self.shown < Self::LINES_A_SLICE;
        self.shown += u32::from(is_admitted);
        self.skipped += u64::from(!is_admitted);
        is_admitted
    }

    fn is_time_to_tell(&mut self, now: Instant) -> bool {
        let is_time = self.skipped > 0 && now.saturating_duration_since(self.told) >= Self::TELL;
        if is_time {
            self.told = now;
        }
        is_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_some_and_is_told_of_the_rest() {
        let mut pace = Pace::new(true);
        let start = pace.slice;
        let shown = |pace: &mut Pace, at: Instant| (0..100).filter(|_| pace.admits(at)).count();
        assert_eq!(shown(&mut pace, start), 5);
        assert_eq!(shown(&mut pace, start + Pace::SLICE), 5);
        assert_eq!(pace.skipped, 190);
        assert!(!pace.is_time_to_tell(start + Pace::SLICE));
        assert!(pace.is_time_to_tell(start + Pace::TELL));
        assert_eq!(shown(&mut Pace::new(false), start), 100);
    }
}
