//! One instance: what its files show and set.

use super::catalog::Catalog;
use super::clocks::Clock;
use super::errors::ErrorLog;
use super::options::{self, bit};
use super::pipe::Left;
use super::saved::Saver;
use super::{Control, event_rules, mask, number, pids, rules, set_event, sizes};
use ringtap::instance::{InstanceError, Pattern};
use ringtap::rules::{PidList, RulesError};
use ringtap::{Host, HostError, Mode, Writer};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An instance.
#[derive(Debug)]
pub(crate) struct Instance {
    /// 0 for the top one; never used twice.
    pub(crate) number: u32,
    pub(super) inner: ringtap::Instance,
    saver: Arc<Saver>,
    /// A writer into the buffers that there were at a generation of the host's.
    writer: Mutex<Option<(u32, Writer)>>,
    settings: Mutex<Settings>,
    /// When the buffers were emptied last, by their clock; 0 at first. Times of `latency-format` count from there.
    emptied: AtomicU64,
    rules: Mutex<BTreeMap<u16, rules::Entry>>,
    /// Of events that are yet to be declared, too.
    kept: Mutex<Vec<event_rules::Rule>>,
    uses: Mutex<Uses>,
    errors: Mutex<ErrorLog>,
    /// What a closed `trace_pipe` had taken from the rings and not handed out.
    left: Mutex<BTreeMap<u32, Left>>,
    /// And what it had made text of.
    left_text: Mutex<BTreeMap<Option<u32>, VecDeque<u8>>>,
}

/// What is set by files and needs no buffer.
#[derive(Debug)]
struct Settings {
    clock: Clock,
    options: u64,
    cpus: BTreeSet<u32>,
}

/// What is open.
#[derive(Debug, Default)]
struct Uses {
    /// All files.
    files: usize,
    /// Open `trace` files, by CPU; `None` is that of all.
    traces: BTreeMap<Option<u32>, usize>,
    /// Open `trace_pipe` files, as above; each at most once.
    pipes: BTreeSet<Option<u32>>,
    raw_pipes: usize,
}

/// How a file is used while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// As any file: its instance stays.
    Plain,
    /// Its buffers are walked, and stay.
    Trace(Option<u32>),
    /// Its events are consumed as text.
    Pipe(Option<u32>),
    /// Its events are consumed as pages.
    RawPipe,
}

/// An open file's hold on its instance; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) instance: Arc<Instance>,
    kind: Use,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut uses = self.instance.uses();
        uses.files -= 1;
        match self.kind {
            Use::Plain => {}
            Use::Trace(cpu) => {
                if let Some(count) = uses.traces.get_mut(&cpu) {
                    *count -= 1;
                }
            }
            Use::Pipe(cpu) => {
                uses.pipes.remove(&cpu);
            }
            Use::RawPipe => uses.raw_pipes -= 1,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever is behind these locks is changed in one step, so a panic of another thread leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The errno of a host's error.
pub(crate) fn errno(error: &HostError) -> Errno {
    match error {
        HostError::Map(_) => Errno::NOMEM,
        HostError::NoSuchCpu(_) => Errno::NODEV,
        HostError::Percent(_) => Errno::INVAL,
        HostError::Busy(_) | HostError::Claimed { .. } => Errno::BUSY,
        HostError::Persistent => Errno::OPNOTSUPP,
        _ => Errno::IO,
    }
}

/// The errno of an instance's error.
pub(crate) fn instance_errno(error: &InstanceError) -> Errno {
    match error {
        InstanceError::Name { .. } => Errno::INVAL,
        InstanceError::Exists { .. } => Errno::EXIST,
        InstanceError::NotFound { .. } => Errno::NOENT,
        InstanceError::TooMany | InstanceError::TooManyAwaited => Errno::NOSPC,
        InstanceError::Removed { .. } => Errno::NODEV,
        InstanceError::Rules(RulesError::Program | RulesError::Shape | RulesError::Pid(_)) => Errno::INVAL,
        InstanceError::Rules(RulesError::Forks(errno)) => *errno,
        InstanceError::Rules(_) => Errno::NOSPC,
        InstanceError::InUse { .. } => Errno::BUSY,
        InstanceError::Host(error) => errno(error),
        _ => Errno::IO,
    }
}

impl Instance {
    pub(super) fn new(number: u32, inner: ringtap::Instance, saver: &Arc<Saver>) -> Self {
        let settings = Settings {
            clock: Clock::of(inner.clock()),
            options: options::defaults(inner.is_top()) & !bit::OVERWRITE,
            cpus: inner.host().cpus().into_iter().collect(),
        };
        Self {
            number,
            inner,
            saver: Arc::clone(saver),
            writer: Mutex::default(),
            settings: Mutex::new(settings),
            emptied: AtomicU64::new(0),
            rules: Mutex::default(),
            kept: Mutex::default(),
            uses: Mutex::default(),
            errors: Mutex::default(),
            left: Mutex::default(),
            left_text: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.inner.name()
    }

    pub(crate) fn is_top(&self) -> bool {
        self.inner.is_top()
    }

    /// The present buffers.
    pub(crate) fn host(&self) -> Host {
        self.inner.host()
    }

    /// A writer into the buffers of `generation`, the host's present one.
    pub(super) fn writer(&self, generation: u32) -> Writer {
        let mut known = lock(&self.writer);
        match &*known {
            Some((of, writer)) if *of == generation => writer.clone(),
            _ => known.insert((generation, self.host().writer())).1.clone(),
        }
    }

    pub(crate) fn cpus(&self) -> Vec<u32> {
        self.host().cpus()
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        lock(&self.uses)
    }

    /// Holds the instance for an open file.
    pub(crate) fn hold(self: &Arc<Self>, kind: Use) -> Result<Hold, Errno> {
        let mut uses = self.uses();
        match kind {
            Use::Plain => {}
            Use::Trace(cpu) => *uses.traces.entry(cpu).or_default() += 1,
            Use::Pipe(cpu) => {
                // One file consumes a CPU's events, and one of all CPUs excludes the others.
                let taken = if cpu.is_none() { !uses.pipes.is_empty() } else { uses.pipes.contains(&None) };
                if taken || !uses.pipes.insert(cpu) {
                    return Err(Errno::BUSY);
                }
            }
            Use::RawPipe => uses.raw_pipes += 1,
        }
        uses.files += 1;
        Ok(Hold { instance: Arc::clone(self), kind })
    }

    /// The file `awaited_events`, which the kernel lacks: events to be switched on as soon as they are declared.
    pub(crate) fn awaited_text(&self) -> Vec<u8> {
        let lines = self.inner.awaited().into_iter().map(|pattern| format!("{pattern}\n"));
        lines.collect::<String>().into_bytes()
    }

    /// Adds patterns to what is awaited: all of them or none.
    pub(crate) fn write_awaited(&self, bytes: &[u8]) -> Result<(), Errno> {
        let text = std::str::from_utf8(bytes).map_err(|_| Errno::INVAL)?;
        let patterns = text.split_ascii_whitespace().map(str::parse);
        let patterns = patterns.collect::<Result<Vec<Pattern>, _>>().map_err(|_| Errno::INVAL)?;
        let mut patterns = patterns.into_iter();
        let done = patterns.try_for_each(|pattern| self.inner.await_events(&pattern));
        self.save();
        done.map_err(|error| instance_errno(&error))
    }

    pub(crate) fn await_none(&self) {
        self.inner.await_none();
        self.save();
    }

    /// Keeps what is set for the daemon that may have to take this one's place. Not while a lock is held.
    pub(super) fn save(&self) {
        self.saver.keep(self.name(), || {
            let (clock, options, cpus) = {
                let settings = self.settings();
                (settings.clock, settings.options, mask::text(&settings.cpus, self.nr_cpus()))
            };
            let words = String::from_utf8(options::text(options)).unwrap_or_default();
            let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
            let cpus = String::from_utf8(cpus).unwrap_or_default();
            let mut text = format!("clock {}\noptions {words}\ncpus {cpus}", clock.name);
            text.extend(self.inner.awaited().iter().map(|pattern| format!("awaited {pattern}\n")));
            text.extend(self.kept_rules().lines().map(|rule| format!("rule {rule}\n")));
            text + &self.rules_saved()
        });
    }

    /// Sets again what was kept under a key of [`saved`](super::saved).
    pub(super) fn restore_setting(&self, key: &str, value: &str) -> Result<(), Errno> {
        match key {
            "clock" => {
                let clock = Clock::parse(value.as_bytes())?;
                if clock.id != self.inner.clock() {
                    return Err(Errno::INVAL);
                }
                self.settings().clock = clock;
            }
            "options" => {
                for word in value.split(' ') {
                    let (place, on) = options::parse(word.as_bytes())?;
                    // The buffers' own mode says it.
                    if 1 << place != bit::OVERWRITE {
                        self.set_flag(place, on)?;
                    }
                }
            }
            "cpus" => self.write_cpumask(value.as_bytes())?,
            "awaited" => {
                let pattern: Pattern = value.parse().map_err(|_| Errno::INVAL)?;
                self.inner.await_new_events(&pattern).map_err(|error| instance_errno(&error))?;
            }
            "rule" => self.restore_kept(value)?,
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    /// Whether any file is open.
    pub(super) fn is_used(&self) -> bool {
        self.uses().files > 0
    }

    /// Whether a `trace` file that shows this CPU (`None`: any) is open.
    fn is_walked(&self, cpu: Option<u32>) -> bool {
        let concerns = |of: &Option<u32>| cpu.is_none() || of.is_none() || *of == cpu;
        self.uses().traces.iter().any(|(of, count)| *count > 0 && concerns(of))
    }

    /// What a closed `trace_pipe` left of a CPU's events; it is the caller's now.
    pub(super) fn left(&self, cpu: u32) -> Left {
        lock(&self.left).remove(&cpu).unwrap_or_default()
    }

    /// Keeps what was taken from a CPU's ring and not handed out.
    pub(super) fn leave(&self, cpu: u32, left: Left) {
        if !left.is_empty() {
            lock(&self.left).insert(cpu, left);
        }
    }

    /// The text that a closed `trace_pipe` left.
    pub(super) fn left_text(&self, cpu: Option<u32>) -> VecDeque<u8> {
        lock(&self.left_text).remove(&cpu).unwrap_or_default()
    }

    /// Keeps what was made text of and not handed out.
    pub(super) fn leave_text(&self, cpu: Option<u32>, text: VecDeque<u8>) {
        if !text.is_empty() {
            lock(&self.left_text).insert(cpu, text);
        }
    }

    // --- the buffers ---

    pub(crate) fn tracing_on(&self) -> Vec<u8> {
        line(u8::from(self.is_recording()))
    }

    pub(crate) fn write_tracing_on(&self, bytes: &[u8]) -> Result<(), Errno> {
        self.inner.set_recording(number::unsigned(bytes)? != 0);
        Ok(())
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.inner.is_recording()
    }

    /// Empties the buffers, or one CPU's.
    pub(crate) fn reset(&self, cpu: Option<u32>) -> Result<(), Errno> {
        let host = self.host();
        match cpu {
            None => {
                lock(&self.left).clear();
                lock(&self.left_text).clear();
                self.note_emptied(&host);
                host.reset()
            }
            Some(cpu) => {
                lock(&self.left).remove(&cpu);
                lock(&self.left_text).remove(&Some(cpu));
                host.reset_cpu(cpu)
            }
        }
        .map_err(|error| errno(&error))
    }

    fn note_emptied(&self, host: &Host) {
        let now = host.cpus().first().and_then(|&cpu| host.stats(cpu).ok()).map_or(0, |stats| stats.now_ts);
        // A number of its own, which orders nothing.
        self.emptied.store(now, Relaxed);
    }

    /// When the buffers were emptied last; 0 if they never were.
    pub(super) fn emptied(&self) -> u64 {
        self.emptied.load(Relaxed)
    }

    /// A CPU's size, or that of all; `X` where they differ.
    pub(crate) fn buffer_size_kb(&self, cpu: Option<u32>) -> Result<Vec<u8>, Errno> {
        let sizes = self.sizes_kb();
        match cpu {
            Some(cpu) => {
                usize::try_from(cpu).ok().and_then(|cpu| sizes.get(cpu)).map(line).ok_or(Errno::NODEV)
            }
            None => match sizes.as_slice() {
                [first, others @ ..] if others.iter().all(|size| size == first) => Ok(line(first)),
                _ => Ok(b"X\n".into()),
            },
        }
    }

    pub(crate) fn buffer_total_size_kb(&self) -> Vec<u8> {
        line(self.sizes_kb().iter().sum::<u64>())
    }

    fn sizes_kb(&self) -> Vec<u64> {
        let subbuf_size = self.subbuf_size();
        let size = |cpu| self.inner.size(cpu).map_or(0, |subbufs| sizes::kb(subbufs, subbuf_size));
        self.cpus().into_iter().map(size).collect()
    }

    /// Sets a CPU's size, or that of all.
    pub(crate) fn write_buffer_size_kb(
        &self,
        control: &Control,
        cpu: Option<u32>,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let kb = number::unsigned(bytes)?;
        let subbufs = sizes::ring_subbufs(kb, self.subbuf_size())?;
        self.resize(control, cpu, subbufs)
    }

    fn resize(&self, control: &Control, cpu: Option<u32>, subbufs: u32) -> Result<(), Errno> {
        let cpus = cpu.map_or_else(|| self.cpus(), |cpu| vec![cpu]);
        if cpu.is_some() && cpus.iter().all(|&cpu| self.inner.size(cpu) == Some(subbufs)) {
            return Ok(());
        }
        if self.is_walked(cpu) || control.is_mapped(self, &cpus) {
            return Err(Errno::BUSY);
        }
        self.inner.set_size(cpu, subbufs).map_err(|error| instance_errno(&error))
    }

    /// Closing `free_buffer`: as small as can be, and perhaps off. Nobody hears of a failure.
    pub(crate) fn free(&self, control: &Control) {
        if self.has(bit::DISABLE_ON_FREE) {
            self.inner.set_recording(false);
        }
        let _ = self.resize(control, None, sizes::FEWEST);
    }

    pub(crate) fn buffer_subbuf_size_kb(&self) -> Vec<u8> {
        line(self.subbuf_size() / 1024)
    }

    pub(crate) fn write_buffer_subbuf_size_kb(&self, control: &Control, bytes: &[u8]) -> Result<(), Errno> {
        let size = sizes::subbuf_size(number::unsigned(bytes)?)?;
        if size == self.subbuf_size() {
            return Ok(());
        }
        if control.is_mapped(self, &self.cpus()) {
            return Err(Errno::BUSY);
        }
        self.inner.set_subbuf_size(size).map_err(|error| instance_errno(&error))
    }

    pub(crate) fn subbuf_size(&self) -> u32 {
        self.inner.config().subbuf_size
    }

    /// `snapshot`: 0 frees it, 1 takes one, of all CPUs or of one, anything else empties it.
    pub(crate) fn write_snapshot(
        &self,
        control: &Control,
        cpu: Option<u32>,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let command = number::unsigned(bytes)?;
        let host = self.host();
        let done = match (command, cpu) {
            (0, Some(_)) => return Err(Errno::INVAL),
            (0, None) => {
                host.free_snapshot();
                Ok(())
            }
            (1, _) if control.is_mapped(self, &self.cpus()) => return Err(Errno::BUSY),
            (1, cpu) => host.take_snapshot(cpu),
            (_, None) => host.clear_snapshot(),
            (_, Some(cpu)) => host.snapshot().map_or(Ok(()), |snapshot| snapshot.reset_cpu(cpu)),
        };
        done.map_err(|error| errno(&error))
    }

    pub(crate) fn buffer_percent(&self) -> u8 {
        self.inner.buffer_percent()
    }

    pub(crate) fn write_buffer_percent(&self, bytes: &[u8]) -> Result<(), Errno> {
        let percent = u8::try_from(number::unsigned(bytes)?).map_err(|_| Errno::INVAL)?;
        self.inner.set_buffer_percent(percent).map_err(|error| instance_errno(&error))
    }
}

/// A number as a file's text.
pub(crate) fn line(number: impl std::fmt::Display) -> Vec<u8> {
    format!("{number}\n").into_bytes()
}

impl Instance {
    // --- settings ---

    pub(crate) fn clock(&self) -> Clock {
        self.settings().clock
    }

    pub(crate) fn clock_text(&self) -> Vec<u8> {
        self.settings().clock.text()
    }

    /// Sets the clock. As in the kernel this empties the buffers, also where it is the same clock.
    pub(crate) fn write_clock(&self, bytes: &[u8]) -> Result<(), Errno> {
        let clock = Clock::parse(bytes)?;
        let mut settings = self.settings();
        if clock.id == self.inner.clock() {
            self.reset(None)?;
        } else {
            self.inner.set_clock(clock.id).map_err(|error| instance_errno(&error))?;
            self.note_emptied(&self.host());
        }
        settings.clock = clock;
        drop(settings);
        self.save();
        Ok(())
    }

    pub(crate) fn timestamp_mode(&self) -> Vec<u8> {
        let absolute = self.inner.config().absolute_stamps;
        (if absolute { "delta [absolute]\n" } else { "[delta] absolute\n" }).into()
    }

    /// Whether an option of [`bit`] is on.
    pub(crate) fn has(&self, option: u64) -> bool {
        self.options() & option != 0
    }

    fn options(&self) -> u64 {
        let overwrite = if self.inner.mode() == Mode::Overwrite { bit::OVERWRITE } else { 0 };
        self.settings().options | overwrite
    }

    pub(crate) fn options_text(&self) -> Vec<u8> {
        options::text(self.options())
    }

    pub(crate) fn flag_text(&self, place: usize) -> Vec<u8> {
        line(u8::from(self.has(1 << place)))
    }

    pub(crate) fn write_options(&self, bytes: &[u8]) -> Result<(), Errno> {
        let (place, on) = options::parse(bytes)?;
        self.set_flag(place, on)
    }

    pub(crate) fn write_flag(&self, place: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.set_flag(place, number::switch(bytes)?)
    }

    fn set_flag(&self, place: usize, on: bool) -> Result<(), Errno> {
        let flag = 1 << place;
        if flag == bit::TEST_NOP_REFUSE && on {
            return Err(Errno::INVAL);
        }
        if flag == bit::OVERWRITE {
            self.inner.set_mode(if on { Mode::Overwrite } else { Mode::Discard });
            return Ok(());
        }
        if flag == bit::EVENT_FORK {
            self.inner.follow_forks(on).map_err(|error| instance_errno(&error))?;
        }
        let mut settings = self.settings();
        settings.options = if on { settings.options | flag } else { settings.options & !flag };
        drop(settings);
        self.save();
        Ok(())
    }

    pub(crate) fn cpumask_text(&self) -> Vec<u8> {
        mask::text(&self.settings().cpus, self.nr_cpus())
    }

    pub(crate) fn write_cpumask(&self, bytes: &[u8]) -> Result<(), Errno> {
        let cpus = mask::parse(bytes, self.nr_cpus())?;
        self.settings().cpus = cpus;
        self.save();
        Ok(())
    }

    /// Whether `tracing_cpumask` has this CPU.
    pub(super) fn traces_cpu(&self, cpu: u32) -> bool {
        self.settings().cpus.contains(&cpu)
    }

    pub(crate) fn nr_cpus(&self) -> u32 {
        u32::try_from(self.cpus().len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn pids_text(&self, list: PidList) -> Vec<u8> {
        pids::text(&self.inner.pids(list).unwrap_or_default())
    }

    pub(crate) fn add_pids(&self, list: PidList, bytes: &[u8]) -> Result<(), Errno> {
        let pids = pids::parse(bytes)?;
        if pids.is_empty() {
            return Ok(());
        }
        self.inner.add_pids(list, &pids).map_err(|error| instance_errno(&error))
    }

    pub(crate) fn clear_pids(&self, list: PidList) -> Result<(), Errno> {
        self.inner.set_pids(list, None).map_err(|error| instance_errno(&error))
    }

    // --- events ---

    /// `1`, `0`, mixed or none, for several events.
    pub(crate) fn enable_text(&self, ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
        vec![set_event::summary(ids.into_iter().map(|id| self.inner.event_state(id))), b'\n']
    }

    fn switch(&self, ids: impl IntoIterator<Item = u16>, on: bool) {
        for id in ids {
            self.inner.set_event(id, on);
        }
    }

    pub(crate) fn write_enable(&self, ids: impl IntoIterator<Item = u16>, bytes: &[u8]) -> Result<(), Errno> {
        self.switch(ids, number::switch(bytes)?);
        Ok(())
    }

    /// As [`write_enable`](Self::write_enable) of all events, and of those that programs declare from now on: a program
    /// that is started later brings its events with it, where the kernel has had them all along.
    pub(crate) fn write_enable_all(
        &self,
        ids: impl IntoIterator<Item = u16>,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let on = number::switch(bytes)?;
        self.inner.set_new_events(on);
        self.switch(ids, on);
        Ok(())
    }

    /// `set_event`: the events that are on.
    pub(crate) fn set_event_text(&self, catalog: &Catalog) -> Vec<u8> {
        let on = catalog.switchable().filter(|event| self.inner.event_state(event.id));
        on.map(|event| format!("{}:{}\n", event.system, event.name)).collect::<String>().into_bytes()
    }

    /// Carries out the first command of a write; how many bytes it took.
    pub(crate) fn write_set_event(&self, catalog: &Catalog, bytes: &[u8]) -> Result<usize, Errno> {
        let (word, used) = set_event::first_word(bytes);
        if !word.is_empty() {
            let command = set_event::Command::parse(word)?;
            self.switch(command.events(catalog)?, command.on);
        }
        Ok(used)
    }

    pub(crate) fn clear_events(&self, catalog: &Catalog) {
        self.switch(catalog.switchable().map(|event| event.id), false);
    }

    /// `1` or `0` for one event, with a star where triggers have a say.
    pub(crate) fn event_enable_text(&self, id: u16) -> Vec<u8> {
        let on = u8::from(self.inner.event_state(id));
        let rules = self.rules();
        let soft = rules.get(&id).is_some_and(rules::Entry::has_triggers)
            || rules.values().any(|entry| entry.switches(id));
        format!("{on}{}\n", if soft { "*" } else { "" }).into_bytes()
    }

    /// The events' rules. Each change of an entry is complete or absent.
    pub(super) fn rules(&self) -> MutexGuard<'_, BTreeMap<u16, rules::Entry>> {
        lock(&self.rules)
    }

    /// The rules that new events get, which wait for it meanwhile. To be locked before [`rules`](Self::rules).
    pub(super) fn kept(&self) -> MutexGuard<'_, Vec<event_rules::Rule>> {
        lock(&self.kept)
    }

    // --- errors ---

    pub(crate) fn error_log(&self) -> Vec<u8> {
        lock(&self.errors).text()
    }

    pub(crate) fn clear_error_log(&self) {
        lock(&self.errors).clear();
    }

    /// Adds what a parser says in the log's own form.
    pub(super) fn log_entry(&self, entry: &str) {
        lock(&self.errors).push(entry);
    }

    pub(super) fn log(&self, parser: &str, what: &str, command: &str, place: usize) {
        lock(&self.errors).add(parser, what, command, place);
    }
}
