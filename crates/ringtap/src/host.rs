//! The host plays the kernel: it owns the memory, performs the reader swap and answers the control calls.
//!
//! An application that traces itself needs nothing but a `Host`: no socket, no other process. To let others
//! attach, it [serves](crate::serve) a Unix socket.

use crate::clock::{self, ClockId, Conversion, Pair};
use crate::map::{self, MapError, Mapping};
use crate::ring::reset;
use crate::ring::swap::{self, Handed, Reader as Swapper};
use crate::ring::{Corrupt, watermark};
use crate::rseq::{self, Area, lock, portable::Exclusive};
use crate::stats::{self, Stats};
use crate::writer::{Pin, Writer};
use crate::{cpus, wake};
use ringtap_abi::Geometry;
use ringtap_abi::meta::{WriterKind, state};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, Release};
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
    #[error(
        "failed to reset the buffer of CPU {0}: this process may not run there, or writers leave no chance"
    )]
    Busy(u32),
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
    /// The index is the CPU; `None` where it cannot exist.
    buffers: Vec<Option<Buffer>>,
    clock: ClockId,
    buffer_percent: u8,
    /// The pair of moments that the stored conversion was drawn through last.
    calibrated: Mutex<(Pair, Instant)>,
}

#[derive(Debug)]
struct Buffer {
    cpu: u32,
    fd: OwnedFd,
    read_only: OwnedFd,
    mapping: Arc<Mapping>,
    reader: Mutex<Swapper>,
}

/// How long a conversion is used before a new one is drawn: long enough that reading the clocks costs nothing,
/// short enough to follow the kernel's corrections of `CLOCK_MONOTONIC`.
const CALIBRATION_AGE: Duration = Duration::from_secs(1);

impl Host {
    /// Makes an instance's buffers, one for each CPU.
    ///
    /// # Errors
    /// [`HostError`] where the sizes are impossible or the kernel refuses the memory.
    pub fn new(config: &Config) -> Result<Self, HostError> {
        let geometry = Geometry::new(config.subbuf_size, config.ring_subbufs).map_err(MapError::from)?;
        if config.buffer_percent > 100 {
            return Err(HostError::Percent(config.buffer_percent.into()));
        }
        let clock = config.clock.unwrap_or_else(clock::cheapest);
        let (conversion, pair) = clock::calibrate(clock);
        let cpus = cpus::possible().map_err(HostError::Cpus)?;
        let count = cpus.iter().max().map_or(0, |&last| last as usize + 1);
        let mut buffers: Vec<Option<Buffer>> = (0..count).map(|_| None).collect();
        for cpu in cpus {
            buffers[cpu as usize] = Some(Buffer::new(geometry, cpu, config, clock, conversion)?);
        }
        let calibrated = Mutex::new((pair, Instant::now()));
        let instance = Instance { buffers, clock, buffer_percent: config.buffer_percent, calibrated };
        Ok(Self { instance: Arc::new(instance) })
    }

    /// A writer of this process.
    #[must_use]
    pub fn writer(&self) -> Writer {
        let mappings = self.instance.buffers.iter().flatten().map(|buffer| Arc::clone(&buffer.mapping));
        Writer::new(mappings.collect())
    }

    /// The CPUs that have a buffer.
    #[must_use]
    pub fn cpus(&self) -> Vec<u32> {
        self.instance.buffers.iter().flatten().map(|buffer| buffer.cpu).collect()
    }

    /// The clock that stamps events.
    #[must_use]
    pub fn clock(&self) -> ClockId {
        self.instance.clock
    }

    /// How full a buffer is when readers are woken, in percent.
    #[must_use]
    pub fn buffer_percent(&self) -> u8 {
        self.instance.buffer_percent
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
        ring.meta().host.kicks.fetch_add(1, Release);
        wake::wake(&ring);
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
        for buffer in self.instance.buffers.iter().flatten() {
            let state = &buffer.mapping.ring().meta().switches.state;
            if on {
                state.fetch_and(!state::OFF, Relaxed)
            } else {
                state.fetch_or(state::OFF, Relaxed)
            };
        }
    }

    /// Whether recording is on.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        let off =
            |buffer: &Buffer| buffer.mapping.ring().meta().switches.state.load(Relaxed) & state::OFF != 0;
        !self.instance.buffers.iter().flatten().any(off)
    }

    /// Empties all buffers and sets their counters to 0, while writers go on.
    ///
    /// # Errors
    /// [`HostError::Busy`] where a buffer could not be emptied, [`HostError::Damaged`].
    pub fn reset(&self) -> Result<(), HostError> {
        self.instance.buffers.iter().flatten().try_for_each(Buffer::reset)
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
    fn calibrate(&self) {
        let Ok(mut calibrated) = self.instance.calibrated.try_lock() else { return };
        let (before, since) = *calibrated;
        if self.instance.clock != ClockId::Cycles || since.elapsed() < CALIBRATION_AGE {
            return;
        }
        let now = Pair::now(self.instance.clock);
        if let Some(line) = now.line_from(before) {
            for buffer in self.instance.buffers.iter().flatten() {
                buffer.mapping.ring().meta().clock.store(line);
            }
        }
        *calibrated = (now, Instant::now());
    }

    fn buffer(&self, cpu: u32) -> Result<&Buffer, HostError> {
        self.instance.buffers.get(cpu as usize).and_then(Option::as_ref).ok_or(HostError::NoSuchCpu(cpu))
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
        let read_only = map::read_only(fd.as_fd())?;
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
        let reader = Mutex::new(Swapper::new(&ring));
        Ok(Self { cpu, fd, read_only, mapping: Arc::new(mapping), reader })
    }

    /// What the consuming reader holds. A panic of another thread changes nothing about what it says.
    fn reader(&self) -> MutexGuard<'_, Swapper> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset(&self) -> Result<(), HostError> {
        let (ring, mut reader) = (self.mapping.ring(), self.reader());
        // Turning a page is the writers' business: it is done as one of them, on their CPU.
        let _pin = Pin::to(self.cpu).ok_or(HostError::Busy(self.cpu))?;
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
                let done = reset::reset(&ring, &mut reader, &Exclusive, self.cpu);
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
