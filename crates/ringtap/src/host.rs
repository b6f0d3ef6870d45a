//! The host plays the kernel: it owns the memory, performs the reader swap and answers the control calls.
//!
//! An application that traces itself needs nothing but a `Host`: no socket, no other process. To let others
//! attach, it [serves](crate::serve) a Unix socket.

use crate::clock::{self, ClockId, Conversion, Pair};
use crate::event::registry::{Event, RegisterError};
use crate::instance::common::Common;
use crate::map::{self, MapError, Mapping};
use crate::ring::reset;
use crate::ring::snapshot::Copying;
use crate::ring::swap::{self, Handed, Reader as Swapper};
use crate::ring::{Corrupt, Ring, watermark};
use crate::rseq::{self, Area, lock, portable::Pinned};
use crate::stats::{self, Stats};
use crate::writer::{self, Pin, Writer};
use crate::{cpus, snapshot, wake};
use ringtap_abi::Geometry;
use ringtap_abi::meta::{WriterKind, state};
use ringtap_abi::switchboard::TOP;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What happens when a ring is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The oldest events are overwritten: a flight recorder.
    #[default]
    Overwrite,
    /// New events are refused and counted as dropped (the kernel's `overwrite=0`).
    Discard,
}

/// How an instance's buffers are made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of a sub-buffer: a power of two from 4 KiB to 512 KiB.
    pub subbuf_size: u32,
    /// Sub-buffers in each CPU's ring, the reader page not counted: 2 to 65,535.
    pub ring_subbufs: u32,
    /// What happens when a ring is full.
    pub mode: Mode,
    /// The clock that stamps events; `None`: the cheapest that converts to `CLOCK_MONOTONIC`.
    pub clock: Option<ClockId>,
    /// Puts an absolute time before each event, as the kernel's `timestamp_mode` absolute does.
    pub absolute_stamps: bool,
    /// How writers exclude each other; `None`: restartable sequences where this process has them.
    pub writer: Option<WriterKind>,
    /// How full a buffer is when readers are woken, in percent; 0: at any event.
    pub buffer_percent: u8,
    /// Starts with recording off.
    pub off: bool,
}

impl Default for Config {
    /// As the kernel's: 1,408 KiB for each CPU in pages of 4 KiB, overwriting, readers woken at half.
    fn default() -> Self {
        Self {
            subbuf_size: 4096,
            ring_subbufs: 354,
            mode: Mode::default(),
            clock: None,
            absolute_stamps: false,
            writer: None,
            buffer_percent: 50,
            off: false,
        }
    }
}

/// Why the host could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The memory could not be made.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The CPUs of this machine are not known.
    #[error("failed to find this machine's CPUs (is /sys mounted?)")]
    Cpus(#[source] std::io::Error),
    /// There is no buffer for this CPU.
    #[error("there is no buffer for CPU {0}: see /sys/devices/system/cpu/possible")]
    NoSuchCpu(u32),
    /// A percentage above 100.
    #[error("a buffer cannot be {0} percent full: use 0 to 100")]
    Percent(u64),
    /// A word in shared memory cannot be true.
    #[error("the memory of CPU {0}'s buffer is damaged: a writer has scribbled on it; restart the host")]
    Damaged(u32),
    /// Writers kept a buffer so busy that it could not be emptied.
    #[error("failed to reset the buffer of CPU {0}: its writers leave no chance; switch recording off first")]
    Busy(u32),
    /// Another reader consumes the buffer.
    #[error(
        "the buffer of CPU {cpu} is being consumed by process {pid}: end it, or follow the buffer with a cursor"
    )]
    Claimed {
        /// The buffer's CPU.
        cpu: u32,
        /// The process that reads it.
        pid: u32,
    },
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There is enough to read.
    Ready,
    /// Time ran out.
    TimedOut,
    /// Somebody woke all sleepers.
    Woken,
}

/// Owns an instance's buffers. Clones are handles of the same instance.
#[derive(Clone, Debug)]
pub struct Host {
    instance: Arc<Instance>,
}

#[derive(Debug)]
struct Instance {
    /// The index is the CPU.
    buffers: Vec<Arc<Buffer>>,
    clock: ClockId,
    buffer_percent: AtomicU8,
    /// The pair of moments that the stored conversion was drawn through last.
    /// `None`: the conversion stays what it is.
    calibrated: Mutex<Option<(Pair, Instant)>>,
    /// A snapshot's are those of what it was taken of.
    common: Arc<Common>,
    /// Whether its writers write to other instances, too.
    is_top: bool,
    snapshot: snapshot::Slot,
}

#[derive(Debug)]
pub(crate) struct Buffer {
    cpu: u32,
    fd: OwnedFd,
    read_only: OwnedFd,
    mapping: Arc<Mapping>,
    reader: Mutex<Swapper>,
    /// The process of the consuming reader; 0 when there is none.
    consumer: AtomicU32,
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
        if let Some(buffer) = self.instance.buffers.get(self.cpu as usize) {
            buffer.consumer.store(0, Release);
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
        Self::with(config, &Arc::new(Common::new(TOP)?), None, true)
    }

    /// Makes an instance's buffers. `sizes`: the sub-buffers of each CPU's ring, where they differ.
    pub(crate) fn with(
        config: &Config,
        common: &Arc<Common>,
        sizes: Option<&[u32]>,
        is_top: bool,
    ) -> Result<Self, HostError> {
        let size = |cpu: u32| sizes.and_then(|sizes| sizes.get(cpu as usize).copied());
        let geometry = |cpu| Geometry::new(config.subbuf_size, size(cpu).unwrap_or(config.ring_subbufs));
        if config.buffer_percent > 100 {
            return Err(HostError::Percent(config.buffer_percent.into()));
        }
        let clock = config.clock.unwrap_or_else(clock::cheapest);
        let (conversion, pair) = clock::calibrate(clock);
        let last = cpus::possible().map_err(HostError::Cpus)?.into_iter().max().unwrap_or(0);
        // Numbers that no CPU has get a buffer too, so that the index is the CPU. Untouched, it takes no memory.
        let buffer = |cpu| {
            Buffer::new(geometry(cpu).map_err(MapError::from)?, cpu, config, clock, conversion).map(Arc::new)
        };
        let buffers = (0..=last).map(buffer).collect::<Result<_, _>>()?;
        let instance = Instance {
            buffers,
            clock,
            buffer_percent: AtomicU8::new(config.buffer_percent),
            calibrated: Mutex::new(Some((pair, Instant::now()))),
            common: Arc::clone(common),
            is_top,
            snapshot: snapshot::Slot::default(),
        };
        Ok(Self { instance: Arc::new(instance) })
    }

    /// The same instance with other buffers: a snapshot of it.
    pub(crate) fn with_buffers(&self, buffers: Vec<Arc<Buffer>>) -> Self {
        let instance = Instance {
            buffers,
            clock: self.instance.clock,
            buffer_percent: AtomicU8::new(self.buffer_percent()),
            // Its events were stamped before now.
            calibrated: Mutex::new(None),
            common: Arc::clone(&self.instance.common),
            is_top: false,
            snapshot: snapshot::Slot::default(),
        };
        Self { instance: Arc::new(instance) }
    }

    /// Where the instance keeps its snapshot.
    pub(crate) fn snapshot_slot(&self) -> &snapshot::Slot {
        &self.instance.snapshot
    }

    /// The buffers; the index is the CPU.
    pub(crate) fn buffers(&self) -> &[Arc<Buffer>] {
        &self.instance.buffers
    }

    /// A writer of this process.
    #[must_use]
    pub fn writer(&self) -> Writer {
        let targets = self.instance.is_top.then(|| Arc::clone(self.instance.common.targets()));
        Writer::new(self.mappings(), targets)
    }

    /// A writer of these buffers alone.
    pub(crate) fn writer_here(&self) -> Writer {
        Writer::new(self.mappings(), None)
    }

    pub(crate) fn mappings(&self) -> Vec<Arc<Mapping>> {
        self.instance.buffers.iter().map(|buffer| Arc::clone(&buffer.mapping)).collect()
    }

    pub(crate) fn common(&self) -> &Arc<Common> {
        &self.instance.common
    }

    /// Sub-buffers of each CPU's ring.
    pub(crate) fn ring_sizes(&self) -> Vec<u32> {
        self.instance.buffers.iter().map(|buffer| buffer.mapping.geometry().ring_subbufs()).collect()
    }

    /// A process that consumes one of the buffers.
    pub(crate) fn consumer(&self) -> Option<u32> {
        let consumers = self.instance.buffers.iter().map(|buffer| buffer.consumer.load(Relaxed));
        consumers.into_iter().find(|&pid| pid != 0)
    }

    /// Tells writers that these buffers were replaced, and readers that nothing more will come.
    pub(crate) fn retire(&self) {
        for buffer in &self.instance.buffers {
            let ring = buffer.mapping.ring();
            ring.meta().switches.state.fetch_or(state::RETIRED | state::OFF, Relaxed);
            wake::send_away(&ring);
        }
    }

    /// The CPUs that have a buffer.
    #[must_use]
    pub fn cpus(&self) -> Vec<u32> {
        self.instance.buffers.iter().map(|buffer| buffer.cpu).collect()
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
        for buffer in &self.instance.buffers {
            let state = &buffer.mapping.ring().meta().switches.state;
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
        let buffer = self.buffer(cpu)?;
        let mut reader = buffer.reader();
        swap::get_reader(&buffer.mapping.ring(), &mut reader).map_err(|Corrupt| HostError::Damaged(cpu))
    }

    /// Waits until a CPU's buffer is `percent` full (0: until there is anything to read), for `timeout` at
    /// most, or until [`wake_all`](Self::wake_all).
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`], [`HostError::Percent`], [`HostError::Damaged`].
    pub fn wait(&self, cpu: u32, percent: u8, timeout: Option<Duration>) -> Result<Waited, HostError> {
        let buffer = self.buffer(cpu)?;
        let ring = buffer.mapping.ring();
        wake::wait(&ring, timeout, || self.arm(cpu, percent))
    }

    /// Whether a CPU's buffer is `percent` full; where it is not, asks the writers to wake sleepers when it may be.
    pub(crate) fn arm(&self, cpu: u32, percent: u8) -> Result<bool, HostError> {
        if percent > 100 {
            return Err(HostError::Percent(percent.into()));
        }
        let buffer = self.buffer(cpu)?;
        let (ring, reader) = (buffer.mapping.ring(), buffer.reader());
        let armed = || {
            if watermark::is_reached(&ring, &reader, percent)? {
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
        let ring = self.buffer(cpu)?.mapping.ring();
        wake::send_away(&ring);
        Ok(())
    }

    /// A CPU's counters.
    ///
    /// # Errors
    /// [`HostError::NoSuchCpu`], [`HostError::Damaged`].
    pub fn stats(&self, cpu: u32) -> Result<Stats, HostError> {
        let buffer = self.buffer(cpu)?;
        let (ring, reader) = (buffer.mapping.ring(), buffer.reader());
        let now = Pair::now(self.instance.clock).ticks;
        stats::of(&ring, &reader, now).map_err(|Corrupt| HostError::Damaged(cpu))
    }

    /// Switches recording on or off, for all writers at once.
    pub fn set_recording(&self, on: bool) {
        for buffer in &self.instance.buffers {
            writer::switch_recording(&buffer.mapping.ring(), on);
        }
    }

    /// Whether recording is on.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        let off = |buffer: &Arc<Buffer>| {
            buffer.mapping.ring().meta().switches.state.load(Relaxed) & state::OFF != 0
        };
        !self.instance.buffers.iter().any(off)
    }

    /// Empties all buffers and sets their counters to 0, while writers go on.
    ///
    /// # Errors
    /// [`HostError::Busy`] where a buffer could not be emptied, [`HostError::Damaged`].
    pub fn reset(&self) -> Result<(), HostError> {
        self.instance.buffers.iter().try_for_each(|buffer| buffer.reset())
    }

    /// As [`reset`](Self::reset), for one CPU's buffer.
    ///
    /// # Errors
    /// As there, and [`HostError::NoSuchCpu`].
    pub fn reset_cpu(&self, cpu: u32) -> Result<(), HostError> {
        self.buffer(cpu)?.reset()
    }

    /// Declares an event: `format` is the text of a kernel `format` file, whose `ID:` line the host fills in.
    /// Returns the id for its records' `common_type`; the same declaration, by whatever process, has the same id.
    ///
    /// # Errors
    /// [`RegisterError`] names what is wrong, or what differs from an event declared under this name.
    pub fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, RegisterError> {
        self.instance.common.declare(system, name, format)
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
        match self.buffer(cpu)?.consumer.compare_exchange(0, pid, AcqRel, Acquire) {
            Ok(_) => Ok(Claim { instance: Arc::clone(&self.instance), cpu }),
            Err(pid) => Err(HostError::Claimed { cpu, pid }),
        }
    }

    /// A descriptor that can be mapped read-only and nothing else.
    pub(crate) fn read_only(&self, cpu: u32) -> Result<BorrowedFd<'_>, HostError> {
        Ok(self.buffer(cpu)?.read_only.as_fd())
    }

    /// A descriptor that can be mapped read-write.
    pub(crate) fn read_write(&self, cpu: u32) -> Result<BorrowedFd<'_>, HostError> {
        Ok(self.buffer(cpu)?.fd.as_fd())
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
            for buffer in self.instance.buffers.iter() {
                buffer.mapping.ring().meta().clock.store(line);
            }
        }
        *calibrated = Some((now, Instant::now()));
    }

    /// The buffer's memory.
    pub(crate) fn mapping(&self, cpu: u32) -> Result<&Mapping, HostError> {
        Ok(&self.buffer(cpu)?.mapping)
    }

    /// Whether the reader page is the one being written.
    pub(crate) fn holds_tail(&self, cpu: u32, ring: &Ring<'_>) -> Result<bool, Corrupt> {
        let Ok(buffer) = self.buffer(cpu) else { return Err(Corrupt) };
        Ok(buffer.reader().holds(ring.tail()?))
    }

    /// Data bytes on the reader page that were not handed out.
    pub(crate) fn unread_on_page(&self, cpu: u32, ring: &Ring<'_>) -> Result<u32, Corrupt> {
        let Ok(buffer) = self.buffer(cpu) else { return Err(Corrupt) };
        Ok(buffer.reader().unread_on_page(ring)?.bytes)
    }

    /// Where the buffers' list is: two handles of the same say the same.
    pub(crate) fn address(&self) -> *const () {
        Arc::as_ptr(&self.instance).cast()
    }

    /// Full sub-buffers that nobody has read.
    pub(crate) fn dirty(&self, cpu: u32, ring: &Ring<'_>) -> Result<u64, Corrupt> {
        let Ok(buffer) = self.buffer(cpu) else { return Err(Corrupt) };
        watermark::dirty(ring, &buffer.reader())
    }

    fn buffer(&self, cpu: u32) -> Result<&Buffer, HostError> {
        self.instance.buffers.get(cpu as usize).map(Arc::as_ref).ok_or(HostError::NoSuchCpu(cpu))
    }
}

impl Buffer {
    fn new(
        geometry: Geometry,
        cpu: u32,
        config: &Config,
        clock: ClockId,
        conversion: Conversion,
    ) -> Result<Self, HostError> {
        let (fd, mapping) = map::create(geometry, cpu)?;
        let ring = mapping.ring();
        let default = if rseq::available() { WriterKind::Rseq } else { WriterKind::Locked };
        ring.meta().identity.writer_kind.store(config.writer.unwrap_or(default) as u32, Relaxed);
        ring.meta().clock.id.store(clock as u32, Relaxed);
        ring.meta().clock.store(conversion);
        let mut bits = 0;
        bits |= if config.off { state::OFF } else { 0 };
        bits |= if config.mode == Mode::Discard { state::DISCARD } else { 0 };
        bits |= if config.absolute_stamps { state::ABSOLUTE } else { 0 };
        ring.meta().switches.state.store(bits, Relaxed);
        let reader = Swapper::new(&ring);
        Self::with_reader(cpu, fd, mapping, reader)
    }

    /// The CPU whose ring this is.
    pub(crate) fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Memory of the same kind and sizes, empty and switched off.
    fn blank(&self) -> Result<(OwnedFd, Mapping), HostError> {
        let (fd, mapping) = map::create(self.mapping.geometry(), self.cpu)?;
        let (from, ring) = (self.mapping.ring(), mapping.ring());
        let (from, to) = (from.meta(), ring.meta());
        to.identity.writer_kind.store(from.identity.writer_kind.load(Relaxed), Relaxed);
        to.clock.id.store(from.clock.id.load(Relaxed), Relaxed);
        if let Some(conversion) = from.clock.load() {
            to.clock.store(conversion);
        }
        to.switches.state.store(from.switches.state.load(Relaxed) | state::OFF, Relaxed);
        Ok((fd, mapping))
    }

    fn with_reader(cpu: u32, fd: OwnedFd, mapping: Mapping, reader: Swapper) -> Result<Self, HostError> {
        let read_only = map::read_only(fd.as_fd())?;
        let (mapping, reader) = (Arc::new(mapping), Mutex::new(reader));
        Ok(Self { cpu, fd, read_only, mapping, reader, consumer: AtomicU32::new(0) })
    }

    /// An empty buffer of the same sizes, switched off.
    pub(crate) fn emptied(&self) -> Result<Self, HostError> {
        let (fd, mapping) = self.blank()?;
        let reader = Swapper::new(&mapping.ring());
        Self::with_reader(self.cpu, fd, mapping, reader)
    }

    /// A copy of what the buffer holds now, switched off. `pace` is called behind each page.
    pub(crate) fn copied(&self, mut pace: impl FnMut(&Copying<'_, '_>)) -> Result<Self, HostError> {
        let (fd, mapping) = self.blank()?;
        let ring = self.mapping.ring();
        let mut copy = || {
            // While the lock is held nothing is handed out.
            let mut copying = Copying::begin(ring, &self.reader(), mapping.ring())?;
            while copying.step()? {
                pace(&copying);
            }
            copying.finish()
        };
        let reader = copy().map_err(|Corrupt| HostError::Damaged(self.cpu))?;
        Self::with_reader(self.cpu, fd, mapping, reader)
    }

    /// What the consuming reader holds. A panic of another thread changes nothing about what it says.
    fn reader(&self) -> MutexGuard<'_, Swapper> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset(&self) -> Result<(), HostError> {
        let (ring, mut reader) = (self.mapping.ring(), self.reader());
        // Turning a page is the writers' business: it is done as one of them, on their CPU.
        let Some(_pin) = Pin::to(self.cpu) else {
            // The CPU is offline, or not for this process.
            return reset::drain(&ring, &mut reader).map_err(|Corrupt| HostError::Damaged(self.cpu));
        };
        let kind = WriterKind::from_number(ring.meta().identity.writer_kind.load(Relaxed));
        let done = match (kind, Area::of_thread()) {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            (Some(WriterKind::Rseq), Some(area)) => {
                reset::reset(&ring, &mut reader, &rseq::native::Rseq(area), self.cpu)
            }
            _ => Ok(false),
        };
        let done = match done {
            // No sections here; or somebody holds the lock, who may be dead, and then nobody's section commits.
            Ok(false) => {
                let held = lock::acquire(&ring.meta().writer.lock).ok_or(HostError::Busy(self.cpu))?;
                let done = reset::reset(&ring, &mut reader, &Pinned(self.cpu), self.cpu);
                drop(held);
                done
            }
            done => done,
        };
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(HostError::Busy(self.cpu)),
            Err(Corrupt) => Err(HostError::Damaged(self.cpu)),
        }
    }
}
