//! The host plays the kernel: it owns the memory, performs the reader swap and answers the control calls.
//!
//! An application that traces itself needs nothing but a `Host`: no socket, no other process. To let others
//! attach, it [serves](crate::serve) a Unix socket.

mod buffer;
mod config;
mod error;

pub(crate) use buffer::Buffer;
pub use config::{Config, Mode};
pub use error::HostError;

use crate::clock::{self, ClockId, Pair};
use crate::event::registry::{Event, RegisterError};
use crate::files::Files;
use crate::instance::common::Common;
use crate::lane::Lane;
use crate::map::{self, Access, MapError, Mapping};
use crate::ring::swap::Handed;
use crate::ring::{Corrupt, retire, watermark};
use crate::stats::Stats;
use crate::wake::Waited;
use crate::writer::{self, OnBoard, Writer};
use crate::{cpus, snapshot, wake};
use ringtap_abi::Geometry;
use ringtap_abi::control::request::{NEWEST, OLDEST};
use ringtap_abi::meta::{Rank, WriterKind, state};
use ringtap_abi::switchboard::{CpuWords, TOP};
use rustix::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Owns an instance's buffers. Clones are handles of the same instance.
#[derive(Clone, Debug)]
pub struct Host {
    instance: Arc<Instance>,
}

#[derive(Debug)]
struct Instance {
    /// The index is the CPU.
    lanes: Vec<Lane>,
    /// The same buffers as this process's writers have them.
    writers: Arc<[writer::Lane]>,
    clock: ClockId,
    buffer_percent: AtomicU8,
    /// The pair of moments that the stored conversion was drawn through last.
    /// `None`: the conversion stays what it is.
    calibrated: Mutex<Option<(Pair, Instant)>>,
    /// A snapshot's are those of what it was taken of.
    common: Arc<Common>,
    /// Its bit. Writers of the top instance, 0, write to the others, too. `None`: nobody writes here.
    bit: Option<usize>,
    snapshot: snapshot::Slot,
    /// Whether buffers that are consumed are not resized.
    strict: AtomicBool,
    /// Where persistent buffers are.
    files: Option<Files>,
    resizing: Mutex<()>,
}

/// The right to consume a CPU's buffer, which one reader at a time has. Dropped, it is given back.
#[derive(Debug)]
pub(crate) struct Claim {
    instance: Arc<Instance>,
    cpu: u32,
}

impl Claim {
    pub(crate) fn cpu(&self) -> u32 {
        self.cpu
    }

    /// The buffers that are consumed.
    pub(crate) fn host(&self) -> Host {
        Host { instance: Arc::clone(&self.instance) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(lane) = self.instance.lanes.get(self.cpu as usize) {
            lane.consumer.store(0, Release);
        }
    }
}

/// How long a conversion is used before a new one is drawn: long enough that reading the clocks costs nothing,
/// short enough to follow the kernel's corrections of `CLOCK_MONOTONIC`.
const CALIBRATION_AGE: Duration = Duration::from_secs(1);

impl Host {
    /// Makes an instance's buffers, one for each CPU. Used alone, as the only instance of its process: events are on as
    /// soon as they are declared. [`Instances`](crate::Instances) has more of them.
    ///
    /// # Errors
    /// [`HostError`] where the sizes are impossible or the kernel refuses the memory.
    pub fn new(config: &Config) -> Result<Self, HostError> {
        Self::with(config, &Arc::new(Common::new(TOP)?), None, 0)
    }

    /// Makes an instance's buffers. `sizes`: the sub-buffers of each CPU's ring, where they differ.
    pub(crate) fn with(
        config: &Config,
        common: &Arc<Common>,
        sizes: Option<&[u32]>,
        bit: usize,
    ) -> Result<Self, HostError> {
        let size = |cpu: u32| sizes.and_then(|sizes| sizes.get(cpu as usize).copied());
        let geometry = |cpu| Geometry::new(config.subbuf_size, size(cpu).unwrap_or(config.ring_subbufs));
        if config.buffer_percent > 100 {
            return Err(HostError::Percent(config.buffer_percent.into()));
        }
        let clock = config.clock.unwrap_or_else(clock::cheapest);
        let (conversion, pair) = clock::calibrate(clock);
        let last = last_cpu()?;
        // Numbers that no CPU has get a buffer too, so that the index is the CPU. Untouched, it takes no memory.
        let files = config.directory.as_deref().map(Files::new).transpose()?;
        let buffer = |cpu| {
            let geometry = geometry(cpu).map_err(MapError::from)?;
            Buffer::new(geometry, cpu, files.as_ref(), config, clock, conversion).map(Arc::new)
        };
        let made = || {
            let buffers = (0..=last).map(buffer).collect::<Result<_, HostError>>()?;
            keep_tasks(files.as_ref(), common)?;
            Ok::<_, HostError>(buffers)
        };
        let buffers = made();
        let buffers = buffers.inspect_err(|_| files.iter().for_each(Files::discard))?;
        let calibrated = Some((pair, Instant::now()));
        let lanes = lanes(buffers, &on_board(common, bit));
        let instance = Instance {
            bit: Some(bit),
            files,
            ..Instance::of(lanes, clock, calibrated, common, config.buffer_percent)
        };
        let host = Self { instance: Arc::new(instance) };
        host.begin();
        host.keep_events().inspect_err(|_| host.instance.files.iter().for_each(Files::discard))?;
        Ok(host)
    }

    /// Puts the buffers on the switchboard, where others may have been before.
    fn begin(&self) {
        for buffer in self.buffers() {
            buffer.set_rank(Rank { lineage: 0, ordinal: self.new_ordinal(&buffer) });
            self.forget_unheard(buffer.cpu());
        }
    }

    /// The same instance with other buffers: a snapshot of it.
    pub(crate) fn with_lanes(&self, lanes: Vec<Lane>) -> Self {
        let Instance { clock, common, .. } = &*self.instance;
        let mappings = lanes.iter().map(|lane| Arc::clone(lane.newest().mapping())).collect();
        let lanes = (lanes, writer::lanes(mappings, None));
        let instance = Instance {
            strict: AtomicBool::new(true),
            // Its events were stamped before now: no line is drawn anew.
            ..Instance::of(lanes, *clock, None, common, self.buffer_percent())
        };
        Self { instance: Arc::new(instance) }
    }

    /// Where the instance keeps its snapshot.
    pub(crate) fn snapshot_slot(&self) -> &snapshot::Slot {
        &self.instance.snapshot
    }

    /// The buffers that are written; the index is the CPU.
    pub(crate) fn buffers(&self) -> Vec<Arc<Buffer>> {
        self.instance.lanes.iter().map(Lane::newest).collect()
    }

    pub(crate) fn strict(&self) -> &AtomicBool {
        &self.instance.strict
    }

    /// Whether the buffers are files: see [`Config::directory`].
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.instance.files.is_some()
    }

    /// One resize is done at a time.
    pub(crate) fn resizing(&self) -> MutexGuard<'_, ()> {
        self.instance.resizing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each CPU's buffers, as the host has them and as its writers do.
    pub(crate) fn lanes(&self) -> (&[Lane], &[writer::Lane]) {
        (&self.instance.lanes, &self.instance.writers)
    }

    /// Goes on with buffers that somebody else made: one for each CPU.
    pub(crate) fn adopt(
        mut fds: Vec<(u32, OwnedFd)>,
        common: &Arc<Common>,
        buffer_percent: u8,
        bit: usize,
    ) -> Result<Self, HostError> {
        fds.sort_by_key(|&(cpu, _)| cpu);
        let last = last_cpu()?;
        if !fds.iter().map(|&(cpu, _)| cpu).eq(0..=last) {
            return Err(HostError::NoSuchCpu(last));
        }
        let lane = |(cpu, fd): (u32, OwnedFd)| {
            let mapping = Arc::new(map::open(&fd, Access::Write)?);
            Ok(Lane::new(Arc::new(Buffer::adopt(cpu, fd, mapping)?)))
        };
        let lanes = fds.into_iter().map(lane).collect::<Result<_, HostError>>()?;
        let host = Self::inherit(lanes, common, buffer_percent, Some(bit), None)?;
        host.begin();
        Ok(host)
    }

    /// Goes on with a dead host's buffers, as lanes; the index is the CPU.
    pub(crate) fn inherit(
        lanes: Vec<Lane>,
        common: &Arc<Common>,
        buffer_percent: u8,
        bit: Option<usize>,
        directory: Option<&Path>,
    ) -> Result<Self, HostError> {
        let writers = lanes.iter().map(Lane::mappings).collect();
        let newest: Vec<_> = lanes.iter().map(Lane::newest).collect();
        let first = newest.first().map(|buffer| buffer.mapping().ring().meta().clock.id.load(Relaxed));
        let clock = first.and_then(ClockId::from_number).ok_or(HostError::Damaged(0))?;
        let calibrated = Some((Pair::now(clock), Instant::now()));
        let places: Vec<_> = newest.iter().map(|buffer| buffer.file()).collect();
        let files = directory.and_then(|directory| Files::resume(directory, &places));
        keep_tasks(files.as_ref(), common)?;
        let on_board = bit.map(|bit| on_board(common, bit));
        let lanes = (lanes, writer::lanes_of(writers, on_board.as_ref()));
        let instance =
            Instance { bit, files, ..Instance::of(lanes, clock, calibrated, common, buffer_percent) };
        let host = Self { instance: Arc::new(instance) };
        host.keep_events()?;
        Ok(host)
    }

    /// Says to which set of its instance's buffers these belong.
    pub(crate) fn set_lineage(&self, lineage: u32) {
        self.instance.lanes.iter().for_each(|lane| lane.set_lineage(lineage));
    }

    /// How buffers like these are made.
    pub(crate) fn stated_config(&self) -> Config {
        let buffers = self.buffers();
        let ring = buffers[0].mapping().ring();
        let bits = ring.meta().switches.state.load(Relaxed);
        Config {
            subbuf_size: ring.geometry().subbuf_size(),
            ring_subbufs: ring.geometry().ring_subbufs(),
            mode: if bits & state::DISCARD != 0 { Mode::Discard } else { Mode::Overwrite },
            clock: Some(self.instance.clock),
            absolute_stamps: bits & state::ABSOLUTE != 0,
            writer: WriterKind::from_number(ring.meta().identity.writer_kind.load(Relaxed)),
            buffer_percent: self.buffer_percent(),
            off: bits & state::OFF != 0,
            ..Config::default()
        }
    }

    /// A writer of this process.
    #[must_use]
    pub fn writer(&self) -> Writer {
        let targets = (self.instance.bit == Some(0)).then(|| Arc::clone(self.instance.common.targets()));
        Writer::of_lanes(Arc::clone(&self.instance.writers), targets)
    }

    /// A writer of these buffers alone.
    pub(crate) fn writer_here(&self) -> Writer {
        Writer::of_lanes(Arc::clone(&self.instance.writers), None)
    }

    #[cfg(test)]
    pub(crate) fn mappings(&self) -> Vec<Arc<Mapping>> {
        self.buffers().iter().map(|buffer| Arc::clone(buffer.mapping())).collect()
    }

    pub(crate) fn common(&self) -> &Arc<Common> {
        &self.instance.common
    }

    /// Sub-buffers of each CPU's ring.
    pub(crate) fn ring_sizes(&self) -> Vec<u32> {
        self.buffers().iter().map(|buffer| buffer.mapping().geometry().ring_subbufs()).collect()
    }

    /// A process that consumes one of the buffers.
    pub(crate) fn consumer(&self) -> Option<u32> {
        let consumers = self.instance.lanes.iter().map(|lane| lane.consumer.load(Relaxed));
        consumers.into_iter().find(|&pid| pid != 0)
    }

    /// Tells writers that these buffers were replaced, and readers that nothing more will come.
    pub(crate) fn retire(&self) {
        for (lane, writers) in self.instance.lanes.iter().zip(self.instance.writers.iter()) {
            writers.retire_all();
            for buffer in [lane.front(), lane.newest()] {
                wake::send_away(&buffer.mapping().ring());
            }
        }
    }

    /// The CPUs that have a buffer.
    #[must_use]
    pub fn cpus(&self) -> Vec<u32> {
        self.buffers().iter().map(|buffer| buffer.cpu()).collect()
    }

    /// The clock that stamps events.
    #[must_use]
    pub fn clock(&self) -> ClockId {
        self.instance.clock
    }

    /// How full a buffer is when readers are woken, in percent.
    #[must_use]
    pub fn buffer_percent(&self) -> u8 {
        self.instance.buffer_percent.load(Relaxed)
    }

    /// Sets how full a buffer is when readers are woken, in percent.
    pub(crate) fn set_buffer_percent(&self, percent: u8) -> Result<(), HostError> {
        if percent > 100 {
            return Err(HostError::Percent(percent.into()));
        }
        self.instance.buffer_percent.store(percent, Relaxed);
        Ok(())
    }

    /// Lets full rings overwrite their oldest events or refuse new ones, from now on.
    pub(crate) fn set_mode(&self, mode: Mode) {
        for lane in &self.instance.lanes {
            // No resize copies the old state meanwhile.
            let chain = lane.chain();
            let ring = chain.newest().mapping().ring();
            let state = &ring.meta().switches.state;
            // Relaxed: the writer that turns a page just now may follow either.
            match mode {
                Mode::Overwrite => state.fetch_and(!state::DISCARD, Relaxed),
                Mode::Discard => state.fetch_or(state::DISCARD, Relaxed),
            };
        }
    }

    /// Hands out what is new on a CPU's reader page, or the next page: the kernel's `TRACE_MMAP_IOCTL_GET_READER`.
    /// The results are on the meta-page. Takes the same time however many events there are.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`], or [`HostError::Damaged`] where a writer scribbled.
    pub fn get_reader(&self, cpu: u32) -> Result<(), HostError> {
        self.get_reader_page(cpu).map(|_| ())
    }

    pub(crate) fn get_reader_page(&self, cpu: u32) -> Result<Handed, HostError> {
        self.calibrate();
        self.lane(cpu)?.chain().get_reader().map_err(|Corrupt| HostError::Damaged(cpu))
    }

    /// Waits until a CPU's buffer is `percent` full (0: until there is anything to read), for `timeout` at
    /// most, or until [`wake_all`](Self::wake_all).
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`], [`HostError::Percent`], [`HostError::Damaged`].
    pub fn wait(&self, cpu: u32, percent: u8, timeout: Option<Duration>) -> Result<Waited, HostError> {
        let buffer = self.lane(cpu)?.front();
        let ring = buffer.mapping().ring();
        wake::wait(&ring, timeout, || self.arm(cpu, percent))
    }

    /// Whether a CPU's buffer is `percent` full; where it is not, asks the writers to wake sleepers when it may be.
    pub(crate) fn arm(&self, cpu: u32, percent: u8) -> Result<bool, HostError> {
        if percent > 100 {
            return Err(HostError::Percent(percent.into()));
        }
        let buffer = self.lane(cpu)?.front();
        let (ring, reader) = (buffer.mapping().ring(), buffer.reader());
        let armed = || {
            // Of a buffer that was replaced, the end is news, too.
            if retire::is_retired(&ring)? || watermark::is_reached(&ring, &reader, percent)? {
                return Ok(true);
            }
            wake::arm(&ring.meta().switches, watermark::until(&ring, &reader, percent)?);
            watermark::is_reached(&ring, &reader, percent)
        };
        armed().map_err(|Corrupt| HostError::Damaged(cpu))
    }

    /// Sends away all who sleep on a CPU's buffer, as the kernel's ioctl with command 0 does.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`].
    pub fn wake_all(&self, cpu: u32) -> Result<(), HostError> {
        let buffer = self.lane(cpu)?.front();
        wake::send_away(&buffer.mapping().ring());
        Ok(())
    }

    /// A CPU's counters.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`], [`HostError::Damaged`].
    pub fn stats(&self, cpu: u32) -> Result<Stats, HostError> {
        let chain = self.lane(cpu)?.chain();
        let now = Pair::now(self.instance.clock).ticks;
        let stats = chain.stats(now).map_err(|Corrupt| HostError::Damaged(cpu))?;
        let unheard = self.words(cpu).map_or(0, |words| words.unheard.load(Relaxed));
        Ok(Stats { dropped_events: stats.dropped_events.wrapping_add(unheard), ..stats })
    }

    /// What the switchboard says of a CPU's buffers; `None` where these are not an instance's, or no more.
    fn words(&self, cpu: u32) -> Option<&CpuWords> {
        self.instance.writers.get(cpu as usize).filter(|lane| !lane.is_replaced())?.words()
    }

    fn forget_unheard(&self, cpu: u32) {
        self.words(cpu).into_iter().for_each(|words| words.unheard.store(0, Relaxed));
    }

    /// An ordinal for a buffer that is to follow this one, or for the first.
    pub(crate) fn new_ordinal(&self, buffer: &Buffer) -> u32 {
        match self.words(buffer.cpu()) {
            Some(words) => new_ordinal(words, buffer.rank()),
            // Nobody else makes buffers here.
            None => buffer.rank().ordinal.wrapping_add(1),
        }
    }

    /// Says on the switchboard which buffers are written.
    pub(crate) fn publish_newest(&self) {
        for lane in &self.instance.lanes {
            // No resize comes between.
            let chain = lane.chain();
            self.set_newest(chain.newest());
        }
    }

    /// Says on the switchboard that this buffer is written from now on.
    pub(crate) fn set_newest(&self, buffer: &Buffer) {
        if let Some(words) = self.words(buffer.cpu()) {
            set_newest(words, buffer);
        }
    }

    /// Switches recording on or off, for all writers at once.
    pub fn set_recording(&self, on: bool) {
        for (lane, writers) in self.instance.lanes.iter().zip(self.instance.writers.iter()) {
            // No resize copies the old state meanwhile.
            let chain = lane.chain();
            writers.switch_recording(on);
            if !on {
                // As in the kernel: nothing more will come, so nobody waits for it.
                wake::send_away(&chain.front().mapping().ring());
            }
        }
    }

    /// Whether recording is on.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        let off = |buffer: &Arc<Buffer>| {
            buffer.mapping().ring().meta().switches.state.load(Relaxed) & state::OFF != 0
        };
        !self.buffers().iter().any(off)
    }

    /// Empties all buffers and sets their counters to 0, while writers go on.
    ///
    /// # Errors
    /// [`HostError::Busy`] where a buffer could not be emptied, [`HostError::Damaged`].
    pub fn reset(&self) -> Result<(), HostError> {
        self.cpus().into_iter().try_for_each(|cpu| self.reset_cpu(cpu))
    }

    /// As [`reset`](Self::reset), for one CPU's buffer.
    ///
    /// # Errors
    /// As there, and [`HostError::NoSuchCpu`].
    pub fn reset_cpu(&self, cpu: u32) -> Result<(), HostError> {
        self.lane(cpu)?.reset()?;
        self.forget_unheard(cpu);
        Ok(())
    }

    /// Numbers the sub-buffers of a CPU's buffer anew, while writers go on: the reader page is 0, the others are 1, 2, ...
    /// from the oldest on, as the kernel does it when a buffer is mapped for the first time. Brings the meta-page up to date.
    /// For a buffer that nobody has mapped for reading: its pages move. Whether all have their numbers then; where the ring
    /// is full of unread events, or read by another, they keep some.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`], [`HostError::Damaged`].
    pub fn renumber(&self, cpu: u32) -> Result<bool, HostError> {
        self.lane(cpu)?.renumber()
    }

    /// Declares an event: `format` is the text of a kernel `format` file, whose `ID:` line the host fills in.
    /// Returns the id for its records' `common_type`; the same declaration, by whatever process, has the same id.
    ///
    /// # Errors
    /// [`RegisterError`] names what is wrong, or what differs from an event declared under this name.
    pub fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, RegisterError> {
        self.declare_kept(&[], system, name, format)
    }

    /// As [`register_event`](Self::register_event), also written down beside the others' persistent buffers.
    pub(crate) fn declare_kept(
        &self,
        others: &[Self],
        system: &str,
        name: &str,
        format: &str,
    ) -> Result<u16, RegisterError> {
        let id = self.instance.common.declare(system, name, format)?;
        let kept = std::iter::once(self).chain(others).try_for_each(Self::keep_events);
        kept.map_err(|_| RegisterError::Full {
            event: format!("{system}:{name}"),
            what: "blocks on the disk of its persistent buffers",
        })?;
        Ok(id)
    }

    /// Writes down what is declared, beside persistent buffers.
    fn keep_events(&self) -> Result<(), MapError> {
        match &self.instance.files {
            Some(files) => files.keep(self.instance.common.registry().events()),
            None => Ok(()),
        }
    }

    /// All events declared, in the order of their ids.
    #[must_use]
    pub fn events(&self) -> Vec<Arc<Event>> {
        self.instance.common.registry().events().map(Arc::clone).collect()
    }

    /// The event of this system and name.
    #[must_use]
    pub fn event(&self, system: &str, name: &str) -> Option<Arc<Event>> {
        self.instance.common.registry().find(system, name).map(Arc::clone)
    }

    /// Makes process `pid` the consuming reader of a CPU's buffer, until the claim is dropped.
    pub(crate) fn claim(&self, cpu: u32, pid: u32) -> Result<Claim, HostError> {
        // Acquire: what the last consumer did is done. Its swaps are ordered by the reader's lock anyway.
        match self.lane(cpu)?.consumer.compare_exchange(0, pid, AcqRel, Acquire) {
            Ok(_) => {
                self.lane(cpu)?.chain().forget_reader();
                Ok(Claim { instance: Arc::clone(&self.instance), cpu })
            }
            Err(pid) => Err(HostError::Claimed { cpu, pid }),
        }
    }

    /// A descriptor of the buffer that is read, which can be mapped read-only and nothing else.
    pub(crate) fn read_only(&self, cpu: u32) -> Result<Arc<OwnedFd>, HostError> {
        Ok(self.lane(cpu)?.front().memory())
    }

    /// As [`read_only`](Self::read_only), for the consuming reader.
    pub(crate) fn memory_for_consumer(&self, cpu: u32) -> Result<Arc<OwnedFd>, HostError> {
        Ok(self.lane(cpu)?.chain().tell().memory())
    }

    /// A descriptor of the buffer that is written, which can be mapped read-write; or of the one that is about to follow
    /// it, for a writer who knows it by this inode.
    pub(crate) fn read_write(&self, cpu: u32, known: u64) -> Result<Arc<OwnedFd>, HostError> {
        let chain = self.lane(cpu)?.chain();
        let buffer = chain.for_writer(known);
        if let Some(words) = self.words(cpu) {
            // Before it is given away: a successor that is not offered it knows that somebody may have it.
            words.told.fetch_max(buffer.rank().ordinal.into(), Release);
        }
        Ok(buffer.writable())
    }

    /// A descriptor as [`read_only`](Self::read_only)'s of the buffer behind the one of this inode, or of the same where
    /// none followed; [`OLDEST`] and [`NEWEST`] are before and behind all of them.
    pub(crate) fn read_only_after(&self, cpu: u32, known: u64) -> Result<Arc<OwnedFd>, HostError> {
        let chain = self.lane(cpu)?.chain();
        let buffer = match known {
            OLDEST => chain.front(),
            NEWEST => chain.newest(),
            known => chain.after(known),
        };
        Ok(buffer.memory())
    }

    /// Draws the line from ticks to nanoseconds anew where the last one is old.
    pub(crate) fn calibrate(&self) {
        let Ok(mut calibrated) = self.instance.calibrated.try_lock() else { return };
        let Some((before, since)) = *calibrated else { return };
        if self.instance.clock != ClockId::Cycles || since.elapsed() < CALIBRATION_AGE {
            return;
        }
        let now = Pair::now(self.instance.clock);
        if let Some(line) = now.line_from(before) {
            for buffer in self.buffers() {
                buffer.mapping().ring().meta().clock.store(line);
            }
        }
        *calibrated = Some((now, Instant::now()));
    }

    /// The buffer's memory.
    pub(crate) fn mapping(&self, cpu: u32) -> Result<Arc<Mapping>, HostError> {
        Ok(Arc::clone(self.lane(cpu)?.front().mapping()))
    }

    /// Where the buffers' list is: two handles of the same say the same.
    pub(crate) fn address(&self) -> *const () {
        Arc::as_ptr(&self.instance).cast()
    }

    pub(crate) fn lane(&self, cpu: u32) -> Result<&Lane, HostError> {
        self.instance.lanes.get(cpu as usize).ok_or(HostError::NoSuchCpu(cpu))
    }
}

/// The highest number of a CPU that this machine may have.
pub(crate) fn last_cpu() -> Result<u32, HostError> {
    Ok(cpus::possible().map_err(HostError::Cpus)?.into_iter().max().unwrap_or(0))
}

impl Instance {
    /// A named instance of these buffers, in memory; `calibrated` as in the field.
    fn of(
        (lanes, writers): (Vec<Lane>, Arc<[writer::Lane]>),
        clock: ClockId,
        calibrated: Option<(Pair, Instant)>,
        common: &Arc<Common>,
        buffer_percent: u8,
    ) -> Self {
        Self {
            lanes,
            writers,
            clock,
            buffer_percent: AtomicU8::new(buffer_percent),
            calibrated: Mutex::new(calibrated),
            common: Arc::clone(common),
            bit: None,
            snapshot: snapshot::Slot::default(),
            strict: AtomicBool::new(false),
            files: None,
            resizing: Mutex::default(),
        }
    }
}

/// Has a host's tasks lie beside its buffers, where these are files: the first ones' of its instances that are.
fn keep_tasks(files: Option<&Files>, common: &Common) -> Result<(), HostError> {
    if let Some(files) = files
        && common.board().tasks_file().is_none()
    {
        common.board().keep_tasks_in(files.tasks()?)?;
    }
    Ok(())
}

/// Lanes that begin with these buffers.
fn lanes(buffers: Vec<Arc<Buffer>>, on_board: &OnBoard) -> (Vec<Lane>, Arc<[writer::Lane]>) {
    let mappings = buffers.iter().map(|buffer| Arc::clone(buffer.mapping())).collect();
    (buffers.into_iter().map(Lane::new).collect(), writer::lanes(mappings, Some(on_board)))
}

/// An ordinal that no buffer of this CPU ever had, for one that is to follow one of this rank.
pub(crate) fn new_ordinal(words: &CpuWords, after: Rank) -> u32 {
    words.made.fetch_max(after.ordinal.into(), Relaxed);
    let last = words.made.fetch_add(1, Relaxed);
    // Nobody resizes a buffer four thousand million times.
    u32::try_from(last.wrapping_add(1)).unwrap_or(u32::MAX)
}

/// Says on the switchboard that this buffer is written from now on.
pub(crate) fn set_newest(words: &CpuWords, buffer: &Buffer) {
    // Release: a host may be killed behind each store, and its successor finds none of a later one without this.
    words.newest.store(buffer.rank().ordinal.into(), Release);
}

fn on_board(common: &Common, instance: usize) -> OnBoard {
    OnBoard { board: Arc::clone(common.board()), instance }
}
