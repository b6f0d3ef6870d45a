//! One set of per-CPU buffers in the kernel: looking at it, and owning one.

use super::error::{self, Error, Problem};
use super::events::EventName;
use crate::stats::Stats;
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// How long a removal waits for the kernel to let go of a mapping that was just dropped: 20 tries, 5 ms apart.
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// A set of the kernel's buffers, to look at.
#[derive(Clone, Debug)]
pub struct Buffer {
    path: PathBuf,
}

impl Buffer {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its folder in the tracefs.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text of one of its files.
    pub(super) fn read(&self, file: &str) -> Result<String, Error> {
        let path = self.path.join(file);
        let bytes = File::open(&path).and_then(|file| read_whole(&file)).map_err(error::at("read", path))?;
        // Names of tasks may hold any byte.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sets one of its files. The kernel takes a value in one `write` only.
    fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        let path = self.path.join(file);
        let written =
            File::options().write(true).open(&path).and_then(|mut file| file.write(value.as_bytes()));
        written.map(drop).map_err(error::setting(value, path))
    }

    /// A CPU's counters.
    ///
    /// # Errors
    /// There is no such CPU, or its file cannot be read.
    pub fn stats(&self, cpu: u32) -> Result<Stats, Error> {
        let file = format!("per_cpu/cpu{cpu}/stats");
        let text = self.read(&file)?;
        Stats::parse(&text).ok_or_else(|| Problem::Malformed { file: self.path.join(file), text }.into())
    }

    /// Opens what a reader maps: `trace_pipe_raw`, read-only and non-blocking.
    ///
    /// # Errors
    /// There is no such CPU, or [`super::Kind::NoPermission`].
    pub fn open_raw(&self, cpu: u32) -> Result<OwnedFd, Error> {
        let path = self.path.join(format!("per_cpu/cpu{cpu}/trace_pipe_raw"));
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| error::at("open", path)(errno.into()))
    }
}

/// Buffers of our own. Dropping it stops recording and removes them from the kernel.
///
/// Drop all readers first: while a descriptor or mapping of the instance exists, anywhere, the kernel refuses
/// to remove it, and it stays behind with recording off.
#[derive(Debug)]
pub struct Instance {
    buffer: Buffer,
    removed: bool,
}

impl Deref for Instance {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.buffer
    }
}

impl Instance {
    pub(super) fn create(path: PathBuf) -> Result<Self, Error> {
        fs::create_dir(&path).map_err(error::at("create", &path))?;
        let instance = Self { buffer: Buffer::at(path), removed: false };
        instance.set_recording(false)?;
        Ok(instance)
    }

    /// Stamps events by this clock, one of [`super::Tracefs::clocks`]. Empties the buffers.
    ///
    /// # Errors
    /// [`super::Kind::Refused`] for a clock that the kernel does not have.
    pub fn set_clock(&self, clock: &str) -> Result<(), Error> {
        self.write("trace_clock", clock)
    }

    /// Sets the size of a sub-buffer and of each CPU's buffer, both in KiB. The kernel rounds both up, and
    /// refuses both while a CPU's buffer is mapped. Empties the buffers.
    ///
    /// # Errors
    /// [`super::Kind::Busy`] while mapped, [`super::Kind::Refused`], or out of memory.
    pub fn set_sizes_kib(&self, subbuf: u32, buffer: u32) -> Result<(), Error> {
        // In this order: a change of the sub-buffer size recomputes the number of sub-buffers.
        self.write("buffer_subbuf_size_kb", &subbuf.to_string())?;
        self.write("buffer_size_kb", &buffer.to_string())
    }

    /// Wakes readers when this share of a buffer is filled: 0 with the first event, 100 when it is full.
    ///
    /// # Errors
    /// [`super::Kind::Refused`] above 100.
    pub fn set_buffer_percent(&self, percent: u32) -> Result<(), Error> {
        self.write("buffer_percent", &percent.to_string())
    }

    /// Whether a full buffer overwrites its oldest events, or refuses new ones.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_overwrite(&self, overwrite: bool) -> Result<(), Error> {
        self.write("options/overwrite", digit(overwrite))
    }

    /// Recording on or off.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_recording(&self, on: bool) -> Result<(), Error> {
        self.write("tracing_on", digit(on))
    }

    /// Lets an event be recorded here.
    ///
    /// # Errors
    /// The kernel does not have it, or refuses to enable it.
    pub fn enable(&self, event: &EventName) -> Result<(), Error> {
        self.write(&enable_file(event), "1")
    }

    /// Takes [`Self::enable`] back.
    ///
    /// # Errors
    /// The kernel does not have the event.
    pub fn disable(&self, event: &EventName) -> Result<(), Error> {
        self.write(&enable_file(event), "0")
    }

    /// Records events only while this process, or one that it forks from now on, runs.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn follow(&self, pid: u32) -> Result<(), Error> {
        self.write("options/event-fork", "1")?;
        self.write("set_event_pid", &pid.to_string())
    }

    /// Records no events while this process runs: one that prints what it traces would trace its printing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn ignore(&self, pid: u32) -> Result<(), Error> {
        self.write("set_event_notrace_pid", &pid.to_string())
    }

    /// Writes a text into the trace, as a `print` event.
    ///
    /// # Errors
    /// Recording is off.
    pub fn write_marker(&self, text: &str) -> Result<(), Error> {
        self.write("trace_marker", text)
    }

    /// Removes the instance and says whether that worked, where dropping it could not.
    ///
    /// # Errors
    /// [`super::Kind::Busy`] while somebody has it open or mapped.
    pub fn remove(mut self) -> Result<(), Error> {
        self.stop_and_remove()
    }

    fn stop_and_remove(&mut self) -> Result<(), Error> {
        self.removed = true;
        // What fails here is made up for by the removal, and matters only if that fails too.
        let _ = self.set_recording(false);
        let _ = self.write("events/enable", "0");
        let path = self.path();
        for _ in 0..REMOVE_TRIES {
            match fs::remove_dir(path) {
                Err(busy) if busy.kind() == io::ErrorKind::ResourceBusy => sleep(REMOVE_PAUSE),
                result => return result.map_err(error::at("remove", path)),
            }
        }
        fs::remove_dir(path).map_err(error::at("remove", path))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.removed {
            // Nobody is left to be told. What stays behind is found by the next `remove_stale`.
            let _ = self.stop_and_remove();
        }
    }
}

/// Bytes asked for at once. Some files, `header_page` among them, give the first read what fits and the second
/// nothing, so it has to be more than they hold; `read_to_end` would begin with 32.
const READ_LEN: usize = 64 * 1024;

fn read_whole(mut file: &File) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    let mut piece = vec![0; READ_LEN];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(whole),
            len => whole.extend_from_slice(&piece[..len]),
        }
    }
}

const fn digit(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}

fn enable_file(event: &EventName) -> String {
    format!("events/{}/{}/enable", event.system, event.name)
}
