//! One instance: what its files show and set.

use super::catalog::Catalog;
use super::clocks::Clock;
use super::errors::ErrorLog;
use super::options::{self, bit};
use super::pipe::Left;
use super::{mask, number, pids, set_event, sizes};
use ringtap::{Config, Host, HostError, Mode, Writer};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An instance.
#[derive(Debug)]
pub(crate) struct Instance {
    /// 0 for the top one; never used twice.
    pub(crate) number: u32,
    /// Empty for the top one.
    pub(crate) name: String,
    buffers: Mutex<Buffers>,
    settings: Mutex<Settings>,
    uses: Mutex<Uses>,
    errors: Mutex<ErrorLog>,
    /// What a closed `trace_pipe` had taken from the rings and not handed out.
    left: Mutex<BTreeMap<u32, Left>>,
}

#[derive(Debug)]
struct Buffers {
    host: Host,
    writer: Writer,
    config: Config,
}

/// What is set by files and needs no buffer.
#[derive(Debug)]
struct Settings {
    clock: Clock,
    options: u64,
    cpus: BTreeSet<u32>,
    events: BTreeMap<u16, Switch>,
    pids: BTreeSet<u32>,
    notrace_pids: BTreeSet<u32>,
}

/// An event in this instance.
#[derive(Debug, Default)]
struct Switch {
    on: bool,
    filter: Option<FilterText>,
}

/// What an event's `filter` shows.
#[derive(Debug)]
pub(super) struct FilterText {
    pub(super) text: String,
    /// Whether it is in force; else the text says what is wrong with it.
    pub(super) holds: bool,
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
        HostError::Cpus(_) | HostError::Damaged(_) => Errno::IO,
    }
}

impl Instance {
    pub(super) fn new(number: u32, name: &str, config: &Config) -> Result<Self, HostError> {
        let host = Host::new(config)?;
        let cpus = host.cpus().into_iter().collect();
        let clock = Clock::of(host.clock());
        let overwrite = config.mode == Mode::Overwrite;
        let defaults = options::defaults(number == 0);
        let settings = Settings {
            clock,
            options: if overwrite { defaults } else { defaults & !bit::OVERWRITE },
            cpus,
            events: BTreeMap::new(),
            pids: BTreeSet::new(),
            notrace_pids: BTreeSet::new(),
        };
        let config = Config { clock: Some(host.clock()), ..config.clone() };
        Ok(Self {
            number,
            name: name.to_owned(),
            buffers: Mutex::new(Buffers { writer: host.writer(), host, config }),
            settings: Mutex::new(settings),
            uses: Mutex::default(),
            errors: Mutex::default(),
            left: Mutex::default(),
        })
    }

    pub(crate) fn is_top(&self) -> bool {
        self.number == 0
    }

    /// The present buffers.
    pub(crate) fn host(&self) -> Host {
        lock(&self.buffers).host.clone()
    }

    /// A writer into the present buffers.
    pub(super) fn writer(&self) -> Writer {
        lock(&self.buffers).writer.clone()
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

    // --- the buffers ---

    pub(crate) fn tracing_on(&self) -> Vec<u8> {
        line(u8::from(self.host().is_recording()))
    }

    pub(crate) fn set_tracing_on(&self, bytes: &[u8]) -> Result<(), Errno> {
        self.host().set_recording(number::unsigned(bytes)? != 0);
        Ok(())
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.host().is_recording()
    }

    /// Empties the buffers, or one CPU's.
    pub(crate) fn reset(&self, cpu: Option<u32>) -> Result<(), Errno> {
        let host = self.host();
        match cpu {
            None => {
                lock(&self.left).clear();
                host.reset()
            }
            Some(cpu) => {
                lock(&self.left).remove(&cpu);
                host.reset_cpu(cpu)
            }
        }
        .map_err(|error| errno(&error))
    }

    pub(crate) fn buffer_size_kb(&self) -> Vec<u8> {
        let buffers = lock(&self.buffers);
        line(sizes::kb(buffers.config.ring_subbufs, buffers.config.subbuf_size))
    }

    pub(crate) fn buffer_total_size_kb(&self) -> Vec<u8> {
        let buffers = lock(&self.buffers);
        let cpus = buffers.host.cpus().len() as u64;
        line(sizes::kb(buffers.config.ring_subbufs, buffers.config.subbuf_size) * cpus)
    }

    pub(crate) fn buffer_subbuf_size_kb(&self) -> Vec<u8> {
        line(self.subbuf_size() / 1024)
    }

    pub(crate) fn subbuf_size(&self) -> u32 {
        lock(&self.buffers).config.subbuf_size
    }

    pub(crate) fn buffer_percent(&self) -> u8 {
        self.host().buffer_percent()
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

    pub(crate) fn timestamp_mode(&self) -> Vec<u8> {
        let absolute = lock(&self.buffers).config.absolute_stamps;
        (if absolute { "delta [absolute]\n" } else { "[delta] absolute\n" }).into()
    }

    /// Whether an option of [`bit`] is on.
    pub(crate) fn has(&self, option: u64) -> bool {
        self.settings().options & option != 0
    }

    pub(crate) fn options_text(&self) -> Vec<u8> {
        options::text(self.settings().options)
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
        let mut settings = self.settings();
        settings.options = if on { settings.options | flag } else { settings.options & !flag };
        Ok(())
    }

    pub(crate) fn cpumask_text(&self) -> Vec<u8> {
        mask::text(&self.settings().cpus, self.nr_cpus())
    }

    pub(crate) fn write_cpumask(&self, bytes: &[u8]) -> Result<(), Errno> {
        self.settings().cpus = mask::parse(bytes, self.nr_cpus())?;
        Ok(())
    }

    /// Whether `tracing_cpumask` has this CPU.
    pub(super) fn traces_cpu(&self, cpu: u32) -> bool {
        self.settings().cpus.contains(&cpu)
    }

    pub(crate) fn nr_cpus(&self) -> u32 {
        u32::try_from(self.cpus().len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn pids_text(&self, which: Pids) -> Vec<u8> {
        pids::text(which.of(&mut self.settings()))
    }

    pub(crate) fn add_pids(&self, which: Pids, bytes: &[u8]) -> Result<(), Errno> {
        let more = pids::parse(bytes)?;
        which.of(&mut self.settings()).extend(more);
        Ok(())
    }

    pub(crate) fn clear_pids(&self, which: Pids) {
        which.of(&mut self.settings()).clear();
    }

    // --- events ---

    /// Whether an event is on.
    pub(crate) fn is_on(&self, id: u16) -> bool {
        self.settings().events.get(&id).is_some_and(|switch| switch.on)
    }

    /// `1`, `0`, mixed or none, for several events.
    pub(crate) fn enable_text(&self, ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
        let settings = self.settings();
        let is_on = |id| settings.events.get(&id).is_some_and(|switch: &Switch| switch.on);
        vec![set_event::summary(ids.into_iter().map(is_on)), b'\n']
    }

    pub(crate) fn switch(&self, ids: impl IntoIterator<Item = u16>, on: bool) {
        let mut settings = self.settings();
        for id in ids {
            settings.events.entry(id).or_default().on = on;
        }
    }

    pub(crate) fn write_enable(&self, ids: impl IntoIterator<Item = u16>, bytes: &[u8]) -> Result<(), Errno> {
        self.switch(ids, number::switch(bytes)?);
        Ok(())
    }

    /// `set_event`: the events that are on.
    pub(crate) fn set_event_text(&self, catalog: &Catalog) -> Vec<u8> {
        let settings = self.settings();
        let on = catalog.switchable().filter(|event| settings.events.get(&event.id).is_some_and(|it| it.on));
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

    pub(crate) fn filter_text(&self, id: u16) -> Vec<u8> {
        let settings = self.settings();
        match settings.events.get(&id).and_then(|switch| switch.filter.as_ref()) {
            Some(filter) => format!("{}\n", filter.text).into_bytes(),
            None => b"none\n".to_vec(),
        }
    }

    pub(super) fn set_filter(&self, id: u16, filter: Option<FilterText>) {
        self.settings().events.entry(id).or_default().filter = filter;
    }

    // --- errors ---

    pub(crate) fn error_log(&self) -> Vec<u8> {
        lock(&self.errors).text()
    }

    pub(crate) fn clear_error_log(&self) {
        lock(&self.errors).clear();
    }

    pub(super) fn log(&self, parser: &str, what: &str, command: &str, place: usize) {
        lock(&self.errors).add(parser, what, command, place);
    }
}

/// Which list of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pids {
    /// `set_event_pid`
    Traced,
    /// `set_event_notrace_pid`
    NotTraced,
}

impl Pids {
    fn of(self, settings: &mut Settings) -> &mut BTreeSet<u32> {
        match self {
            Self::Traced => &mut settings.pids,
            Self::NotTraced => &mut settings.notrace_pids,
        }
    }
}
