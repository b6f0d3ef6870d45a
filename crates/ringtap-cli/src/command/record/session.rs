//! A recording as it happens.
//!
//! One thread: it sleeps until a buffer is as full as was asked for, moves what is complete to the file, and
//! writes the table that makes it count. The end, in order: the command is told the signal, and recorded until it has
//! ended; the kernel stops to record; what is left goes to the file; the file is put in order; the instance and the
//! host go.

use super::application::ApplicationSide;
use super::crash::{Crash, Watch};
use super::files::{Files, Target, Written};
use super::kernel::KernelSide;
use super::progress::{Counts, Progress};
use super::recent::Recent;
use super::sink::Sink;
use super::trigger::{Trigger, Triggers};
use super::{Plan, text};
use crate::child::Running;
use crate::command::host_side::{ApplicationPlan, HostSide, start_held};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::signals::Signals;
use anyhow::{Context, Result, bail};
use ringtap::attach::Connection;
use ringtap::clock::{self, ClockId, Conversion};
use ringtap::serve::{Options, Peer};
use ringtap::tracefs::EventName;
use ringtap_format::Target as Machine;
use ringtap_format::trace_dat::{BufferPlan, Compression, Descriptions, FilePlan};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use std::collections::HashSet;
use std::io::Write;
use std::mem;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest sleep where something wakes us.
const LONG: Duration = Duration::from_millis(500);
/// Longest sleep where nothing does: a writer of the application's does not wake a poll.
const SHORT: Duration = Duration::from_millis(100);
/// A CPU that writes as fast as this does not fill its buffer while we sleep, in bytes a millisecond.
const FAST: u64 = 160_000;
/// How often it is looked at what is not urgent: names of tasks, new events, whether a host lives.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// Records.
pub(super) fn run(plan: &Plan, output: &mut Output) -> Result<Outcome> {
    let signals = Signals::catch()?;
    let triggers = Triggers::new(&plan.snapshot_on)?;
    let mut watch = Watch::new();
    let watches = triggers.contains(&Trigger::Crash);
    let arrivals = watches.then(|| Arc::new(watch.arrivals()) as Arc<dyn Fn(Peer) + Send + Sync>);
    let options = Options { arrivals, ..Options::default() };
    // Whatever ends this function drops these from the last to the first.
    let host =
        plan.application.as_ref().map(|application| HostSide::open_with(application, options)).transpose()?;
    let connection = host.as_ref().and_then(HostSide::connection).filter(|_| watches);
    if let Some(connection) = connection {
        watch.main(connection.host_pid()?.context("the host's process is not to be seen from here")?)?;
    }
    let stops = host.as_ref().map(|host| stop_at(host, &plan.application_triggers)).transpose()?;
    let mut recording = Recording::open(plan, host.as_ref())?;
    let mut command = start_held(&plan.command, host.as_ref(), plan.preload.as_ref())?;
    if let Some(kernel) = &recording.kernel {
        let follow = plan.kernel.as_ref().is_some_and(|kernel| kernel.follow);
        kernel.begin(command.as_ref().filter(|_| follow))?;
    }
    if plan.announce {
        writeln!(output, "recording")?;
        output.flush()?;
    }
    if let Some(command) = &command {
        command.begin()?;
    }
    let ended = match triggers.is_empty() {
        true => recording.follow(&signals, command.as_mut())?,
        false => recording.wait(&signals, &triggers, &mut watch, command.as_mut())?,
    };
    if let Some(kernel) = &recording.kernel {
        kernel.set_recording(false)?;
    }
    if let Some(host) = host.as_ref().filter(|_| triggers.is_empty()) {
        // What is written from now on is the next recording's.
        host.switch_back();
    }
    let is_wanted = triggers.is_empty() || triggers.contains(&Trigger::Exit);
    let finished = recording.finish(is_wanted);
    recording.restore();
    let (counts, written) = finished?;
    let progress = recording.progress;
    progress.end(counts, &written, plan.json, output)?;
    if let (Some(ApplicationPlan::Embed { events, .. }), Some(host)) = (&plan.application, &host) {
        host.warn_of_unmet(events);
    }
    drop((recording.kernel, recording.application, stops));
    drop(host);
    Ok(match ended {
        Some(status) => Outcome::of_command(status, signals.caught()),
        // Asked to end, and ended: there is no other way to end a recording without a command.
        None => Outcome::Done,
    })
}

/// The names of tasks of both. Of a thread that wrote to the application's buffers, these know better: the kernel may still have the
/// name of one that had the same number before.
fn both_tasks(kernel: &str, application: &str) -> String {
    let pid = |line: &str| line.split(' ').next().map(str::to_owned);
    let own: HashSet<_> = application.lines().filter_map(pid).collect();
    let others = kernel.split_inclusive('\n').filter(|line| pid(line).is_none_or(|pid| !own.contains(&pid)));
    others.chain([application]).collect()
}

/// Has the application's writers stop at these events, as long as the connection is kept.
fn stop_at(host: &HostSide, events: &[EventName]) -> Result<Option<Connection>> {
    if events.is_empty() {
        return Ok(None);
    }
    let connection = host.connect_again()?;
    for event in events {
        connection.stop_at(&event.to_string()).with_context(|| format!("cannot wait for {event}"))?;
    }
    Ok(Some(connection))
}

/// What is recorded, and where to.
struct Recording<'r> {
    plan: &'r Plan,
    host: Option<&'r HostSide>,
    kernel: Option<KernelSide>,
    application: Option<ApplicationSide>,
    /// Where the next file goes.
    target: Target,
    /// What each file says of the machine and its events.
    head: Descriptions,
    sink: Option<Sink>,
    progress: Progress,
    written: Written,
    bytes: u64,
    /// The sleep that keeps up with the fastest writer of the application.
    nap: Duration,
    began: Instant,
    looked: Instant,
    /// Snapshots written.
    snapshots: u32,
    /// Whether the application's host recorded before.
    was_recording: bool,
    /// An event that was asked for has happened.
    is_triggered: bool,
    /// The names of tasks that the file was told.
    told_tasks: String,
    /// What the application's buffers had counted when the recording began.
    before: Counts,
}

impl<'r> Recording<'r> {
    fn open(plan: &'r Plan, host: Option<&'r HostSide>) -> Result<Self> {
        let mut application = host.map(ApplicationSide::open).transpose()?;
        let was_recording = application.as_ref().is_some_and(ApplicationSide::is_recording);
        let subbuf_kib = application.as_ref().map_or(plan.subbuf_kib, ApplicationSide::subbuf_kib);
        let clock = match (host, &plan.kernel) {
            (Some(host), Some(kernel)) => shared_clock(host, kernel)?,
            _ => ClockId::Mono,
        };
        let prepare = |kernel| KernelSide::prepare(kernel, clock, subbuf_kib, plan.percent);
        let kernel = plan.kernel.as_ref().map(prepare).transpose()?;
        if let Some(kernel) = &kernel {
            let triggers = plan.snapshot_on.iter().filter_map(Trigger::event);
            for event in triggers.filter(|event| !plan.application_triggers.contains(event)) {
                kernel.stop_at(event)?;
            }
        }
        let mut head = text::machine(subbuf_kib);
        if let Some(kernel) = &kernel {
            kernel.describe(&mut head)?;
        }
        if let Some(application) = &mut application {
            application.learn()?;
        }
        let mut buffers = Vec::new();
        let mut buffer = |name: &str, cpus: Vec<u32>| {
            let name = if buffers.is_empty() { String::new() } else { name.to_owned() };
            buffers.push(BufferPlan { name, clock: ClockId::Mono.name().to_owned(), cpus });
        };
        if let Some(kernel) = &kernel {
            buffer("kernel", kernel.cpus());
        }
        if let Some(application) = &application {
            buffer("application", application.cpus());
        }
        let compression = if plan.level.is_some() { Compression::Zstd } else { Compression::None };
        let file = FilePlan {
            version: plan.version,
            target: Machine::HOST,
            page_size: subbuf_kib * 1024,
            compression,
            lane_size: 0,
            buffers,
        };
        let (path, level) = (plan.path.clone(), plan.level.unwrap_or(0));
        let target = Target { path, plan: file, level, keep: plan.keep, sync: plan.sync };
        let nap = Duration::from_millis(u64::from(plan.buffer_kib) * 1024 / FAST).clamp(MIN_NAP, SHORT);
        let now = Instant::now();
        let mut recording = Self {
            plan,
            host,
            kernel,
            application,
            target,
            head,
            sink: None,
            progress: Progress::new(plan.json || plan.is_quiet),
            written: Written::default(),
            bytes: 0,
            nap,
            began: now,
            looked: now,
            snapshots: 0,
            was_recording,
            is_triggered: false,
            told_tasks: String::new(),
            before: Counts::default(),
        };
        recording.before = recording.application_counts();
        if plan.snapshot_on.is_empty() {
            recording.begin_file(recording.target.path.clone())?;
        }
        Ok(recording)
    }

    /// Begins a file, and tells all sides where their sub-buffers go in it.
    fn begin_file(&mut self, path: std::path::PathBuf) -> Result<()> {
        let late = self.late();
        let Descriptions { formats, tasks, cpu_stats, clock, ftrace_formats, .. } = late;
        let mut head = Descriptions { formats, tasks, cpu_stats, clock, ..self.head.clone() };
        if head.ftrace_formats.is_empty() {
            head.ftrace_formats = ftrace_formats;
        }
        let files = Files::new(Target { path, ..self.target.clone() }, head)?;
        if let Some(kernel) = &mut self.kernel {
            kernel.place(&files, 0)?;
        }
        if let Some(application) = &mut self.application {
            application.place(&files, usize::from(self.kernel.is_some()))?;
        }
        self.sink = Some(Sink::new(files, self.plan.level.is_some(), self.plan.rotate_bytes)?);
        self.began = Instant::now();
        Ok(())
    }

    /// What is known now and was not when the file was begun.
    fn late(&self) -> Descriptions {
        let mut late = Descriptions { formats: self.head.formats.clone(), ..Descriptions::default() };
        if let Some(kernel) = &self.kernel {
            late.cpu_stats = kernel.stats_texts();
        }
        if let Some(application) = &self.application {
            application.describe(&mut late);
            late.clock = application.clock();
        }
        late.tasks = self.tasks().into_bytes();
        late
    }

    /// Names of tasks, one `PID NAME` a line.
    fn tasks(&self) -> String {
        let kernel = self.kernel.as_ref().map_or_else(String::new, KernelSide::tasks);
        let application = self.application.as_ref().map_or_else(String::new, ApplicationSide::tasks);
        both_tasks(&kernel, &application)
    }

    /// Records until the command ends, which is told, or a signal asks to stop, or nobody is left.
    fn follow(&mut self, signals: &Signals, mut command: Option<&mut Running>) -> Result<Option<ExitStatus>> {
        loop {
            let bytes = self.drain(false)?;
            if self.plan.rotate_time.is_some_and(|period| self.began.elapsed() >= period) {
                self.began = Instant::now();
                self.sink.as_mut().context("no file")?.rotate()?;
            }
            self.complete()?;
            self.heartbeat(command.as_deref())?;
            if self.progress.is_due() {
                let room = u64::from(self.plan.buffer_kib) * 1024;
                let fill = (bytes * 100).checked_div(room).unwrap_or(0).min(100);
                self.progress.show(self.counts(), self.bytes, fill);
            }
            match &mut command {
                Some(command) => {
                    command.heed(signals);
                    if let Some(status) = command.ended()? {
                        return Ok(Some(status));
                    }
                }
                None if signals.caught().is_some() || self.is_alone() => return Ok(None),
                None => {}
            }
            let has_ended = self.sleep(command.as_deref())?;
            if let (true, Some(command), Some(application)) = (has_ended, &command, &mut self.application) {
                // Before it is reaped: then nobody knows its name any more.
                application.note_threads(command.pid().as_raw_pid().unsigned_abs());
            }
        }
    }

    /// Lets the buffers run round until something asks for a snapshot.
    fn wait(
        &mut self,
        signals: &Signals,
        triggers: &Triggers,
        watch: &mut Watch,
        mut command: Option<&mut Running>,
    ) -> Result<Option<ExitStatus>> {
        loop {
            if triggers.take_signal() {
                self.snapshot(true)?;
            }
            while let Some(crash) = watch.crashed(command.as_ref().map(|command| command.id())) {
                self.snapshot_of(&crash)?;
            }
            self.heartbeat(command.as_deref())?;
            if !self.is_triggered && triggers.has_events() && self.has_stopped() {
                self.is_triggered = true;
                self.snapshot(false)?;
            }
            // The command goes on to its end, but nothing of it is of interest any more.
            if self.is_triggered && command.is_none() {
                return Ok(None);
            }
            let is_alone = self.is_alone() && !watch.has_main();
            let Some(command) = &mut command else {
                if signals.caught().is_some() || is_alone {
                    return Ok(None);
                }
                signals.sleep(SHORT / 5);
                continue;
            };
            command.heed(signals);
            if let Some(status) = command.ended()? {
                // The last to trace may have crashed just before, and the command because of it.
                let crash = Crash::of_command(&name_of(self.plan), command.id(), status)
                    .or_else(|| watch.crashed(Some(command.id())));
                if let Some(crash) = crash.filter(|_| triggers.contains(&Trigger::Crash)) {
                    self.snapshot_of(&crash)?;
                }
                return Ok(Some(status));
            }
            signals.sleep(SHORT / 5);
        }
    }

    /// Whether a trigger has ended the recording of one side.
    fn has_stopped(&self) -> bool {
        let kernel = self.kernel.as_ref().is_some_and(|kernel| !kernel.is_recording());
        kernel || self.application.as_ref().is_some_and(|application| !application.is_recording())
    }

    /// Writes what is left of a program, and says so.
    fn snapshot_of(&mut self, crash: &Crash) -> Result<()> {
        let path = self.snapshot(true)?;
        anstream::eprintln!("ringtap: {crash}; its last events are in {}", path.display());
        Ok(())
    }

    /// Takes what the buffers hold while nobody records, and writes it to a file of its own; with `goes_on` while all
    /// record again.
    fn snapshot(&mut self, goes_on: bool) -> Result<PathBuf> {
        let mut path = self.target.path.clone().into_os_string();
        if self.snapshots > 0 {
            path.push(format!(".{}", self.snapshots));
        }
        self.snapshots += 1;
        let path = PathBuf::from(path);
        self.begin_file(path.clone())?;
        self.switch(false)?;
        let mut recent = self.take_recent()?;
        if goes_on {
            self.switch(true)?;
        }
        if recent.page_size() != self.target.plan.page_size {
            self.fit(&mut recent, &path)?;
        }
        let sink = self.sink.as_mut().context("no file")?;
        for (lane, page) in recent.finish() {
            self.bytes += page.len() as u64;
            sink.add(lane, page)?;
        }
        sink.commit(None)?;
        self.end_file()?;
        self.drop_oldest()?;
        Ok(path)
    }

    /// Brings a snapshot's sub-buffers to the size of the file's, or the file's to theirs.
    fn fit(&mut self, recent: &mut Recent, path: &Path) -> Result<()> {
        let (size, of_file) = (recent.page_size(), self.target.plan.page_size);
        if size > of_file && self.kernel.is_some() {
            super::application::warn_of_size(size);
            recent.drop_larger(of_file);
        } else if size > of_file {
            self.target.plan.page_size = size;
            self.head.header_page = ringtap_format::header::page_text(size);
            self.begin_file(path.to_owned())?;
        }
        recent.pad(self.target.plan.page_size);
        Ok(())
    }

    /// Switches recording on or off; a host that is gone records no more, and need not be told.
    fn switch(&self, on: bool) -> Result<()> {
        match self.set_recording(on) {
            Err(_) if self.application.as_ref().is_some_and(ApplicationSide::is_foreign) => Ok(()),
            done => done,
        }
    }

    /// Leaves another process's host recording, if it was when we came.
    fn restore(&self) {
        if self.was_recording
            && !self.plan.snapshot_on.is_empty()
            && let Some(host) = self.host
        {
            let _ = host.set_recording(true);
        }
    }

    /// What the buffers hold of the time and size that is kept.
    fn take_recent(&mut self) -> Result<Recent> {
        if let Some(application) = &mut self.application
            && application.learn().unwrap_or(false)
        {
            let late = self.late();
            self.sink.as_mut().context("no file")?.describe(late)?;
        }
        let mut recent = Recent::new(self.plan.last, clock::monotonic_ns());
        // Both sides have the same clock; alone, the kernel has one that counts nanoseconds.
        let conversion = self.application.as_ref().map_or(Conversion::IDENTITY, ApplicationSide::conversion);
        if let Some(kernel) = &self.kernel {
            kernel.each_left(|lane, ticks, page| {
                recent.push(lane, conversion.ns(ticks), page);
                Ok(())
            })?;
        }
        if let Some(application) = &mut self.application {
            application.each_left(|lane, ns, page| {
                recent.push(lane, ns, page);
                Ok(())
            })?;
        }
        if recent.is_short() && self.counts().lost > 0 {
            anstream::eprintln!("ringtap: the buffers do not hold so long a time; enlarge --buffer-size");
        }
        Ok(recent)
    }

    /// Keeps no more snapshots than were asked for.
    fn drop_oldest(&mut self) -> Result<()> {
        while self.target.keep.is_some_and(|keep| self.written.paths.len() > keep) {
            let oldest = self.written.paths.remove(0);
            std::fs::remove_file(&oldest).with_context(|| format!("cannot remove {}", oldest.display()))?;
        }
        Ok(())
    }

    fn set_recording(&self, on: bool) -> Result<()> {
        if let Some(kernel) = &self.kernel {
            kernel.set_recording(on)?;
        }
        match self.host {
            Some(host) => host.set_recording(on),
            None => Ok(()),
        }
    }

    /// Whether the only source was a host that has ended.
    fn is_alone(&self) -> bool {
        self.kernel.is_none() && self.application.as_ref().is_some_and(ApplicationSide::is_gone)
    }

    /// Moves what is complete to the file. Returns the most bytes that one buffer held.
    fn drain(&mut self, is_last: bool) -> Result<u64> {
        let Some(sink) = &mut self.sink else { return Ok(0) };
        // Before the records that need it.
        if let Some(application) = &mut self.application
            && application.learn().unwrap_or(false)
        {
            let late = self.late();
            self.sink.as_mut().context("no file")?.describe(late)?;
            return self.drain(is_last);
        }
        let mut bytes = 0;
        if let Some(kernel) = &self.kernel {
            bytes += match sink {
                Sink::Here(files) => kernel.drain(files, is_last)?,
                Sink::Behind(behind) => kernel.drain_behind(behind, is_last)?,
            };
        }
        if let Some(application) = &mut self.application {
            bytes += match sink {
                Sink::Here(files) => application.drain(files, is_last)?,
                Sink::Behind(behind) => application.drain_behind(behind, is_last)?,
            };
        }
        self.bytes += bytes;
        if bytes > 0 {
            sink.commit(self.plan.rotate_bytes)?;
        }
        Ok(bytes)
    }

    /// Tells files that have ended meanwhile what is known now, as the last one is told in the end: each is complete.
    fn complete(&mut self) -> Result<()> {
        if self.sink.as_mut().is_some_and(Sink::take_rotated) {
            let late = self.late();
            self.sink.as_mut().context("no file")?.describe(late)?;
        }
        Ok(())
    }

    /// Looks at what is not urgent.
    fn heartbeat(&mut self, command: Option<&Running>) -> Result<()> {
        if let (Some(application), Some(host)) = (&mut self.application, self.host) {
            application.look_for_replaced(host);
        }
        if self.looked.elapsed() < HEARTBEAT {
            return Ok(());
        }
        self.looked = Instant::now();
        if let (Some(application), Some(host)) = (&mut self.application, self.host) {
            if let Some(command) = command {
                application.note_threads(command.pid().as_raw_pid().unsigned_abs());
            }
            application.look_after(host);
        }
        // Should we be killed, the file has the names up to here.
        if self.sink.is_some() {
            let tasks = self.tasks();
            if tasks != self.told_tasks {
                self.told_tasks = tasks;
                let late = self.late();
                self.sink.as_mut().context("no file")?.describe(late)?;
            }
        }
        Ok(())
    }

    /// What was recorded and lost since the recording began; and before, where no other recording has told of it.
    fn counts(&self) -> Counts {
        let sides = self.application.as_ref().zip(self.host);
        let overwritten = sides.map_or(0, |(side, host)| side.lost(host));
        let kernel = Counts::of(self.kernel.iter().flat_map(KernelSide::stats));
        let application = self.application_counts().since(self.before);
        kernel.and(application).and(Counts { events: 0, lost: overwritten })
    }

    fn application_counts(&self) -> Counts {
        let stats = self.application.iter().zip(self.host).flat_map(|(side, host)| side.stats(host));
        Counts::of_shared(stats)
    }

    /// Sleeps until a buffer is full enough, the command ends, which is told, or a signal comes.
    fn sleep(&self, command: Option<&Running>) -> Result<bool> {
        let timeout = if self.application.is_some() { self.nap } else { LONG };
        let child: Option<OwnedFd> = command.and_then(|command| {
            rustix::process::pidfd_open(command.pid(), rustix::process::PidfdFlags::empty()).ok()
        });
        let pipes = self.kernel.iter().flat_map(KernelSide::pipes).chain(&child);
        let mut polled: Vec<_> = pipes.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
        // A signal ends it, too.
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) => {
                Ok(child.is_some() && polled.last().is_some_and(|fd| fd.revents().contains(PollFlags::IN)))
            }
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno).context("cannot wait for events"),
        }
    }

    /// Writes what is left, unless nobody wants it.
    fn finish(&mut self, is_wanted: bool) -> Result<(Counts, Written)> {
        if is_wanted {
            if self.sink.is_none() {
                self.snapshot(false)?;
            } else {
                self.drain(true)?;
                self.end_file()?;
            }
        }
        Ok((self.counts(), mem::take(&mut self.written)))
    }

    fn end_file(&mut self) -> Result<()> {
        let late = self.late();
        let mut sink = self.sink.take().context("no file")?;
        sink.describe(late)?;
        let written = sink.finish()?;
        self.written.paths.extend(written.paths);
        self.written.bytes += written.bytes;
        Ok(())
    }
}

/// Shortest sleep between two looks at an application's buffers.
const MIN_NAP: Duration = Duration::from_millis(2);

/// The name of the command's program.
fn name_of(plan: &Plan) -> String {
    let program = plan.command.first().map(PathBuf::from).unwrap_or_default();
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The clock that both the host and the kernel can use.
fn shared_clock(host: &HostSide, kernel: &crate::command::stream::kernel::KernelPlan) -> Result<ClockId> {
    let clock = host.clock().context("the application's clock is not known")?;
    if kernel.tracefs.clocks()?.iter().any(|name| name == clock.name()) {
        return Ok(clock);
    }
    bail!(
        "the kernel cannot stamp its events by the application's clock {}; record them to two files, which \
         `ringtap report` merges",
        clock.name()
    )
}

#[cfg(test)]
mod tests {
    use super::both_tasks;

    #[test]
    fn who_wrote_to_the_application_has_no_older_name() {
        let both = both_tasks("1 init\n12 flock\n123 cat\n", "12 shop\n3 a worker\n");
        assert_eq!(both, "1 init\n123 cat\n12 shop\n3 a worker\n");
    }
}
