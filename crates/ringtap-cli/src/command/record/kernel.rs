//! The kernel's part of a recording: an instance of our own, whose sub-buffers are spliced to the file.
//!
//! Splicing takes a sub-buffer out of the ring and hands it to the file without a step over its events, which the
//! kernel's GET_READER makes for each of them; docs/recording.md has the figures.

use super::files::{Files, write_at};
use super::sink::Behind;
use crate::child::Running;
use crate::command::stream::kernel::KernelPlan;
use anyhow::{Context, Result};
use ringtap::Stats;
use ringtap::clock::ClockId;
use ringtap::tracefs::{EventName, Instance, Tracefs};
use ringtap_format::trace_dat::Descriptions;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Sub-buffers that one call takes out of the ring: as many as the kernel hands out.
const AT_ONCE: usize = 16;
/// Longer than any file that the kernel hands out to the first call only.
const READ_LEN: usize = 1 << 16;

/// The kernel's buffers.
pub(super) struct KernelSide {
    instance: Instance,
    tracefs: Tracefs,
    events: Vec<EventName>,
    lanes: Vec<KernelLane>,
    pipe: (OwnedFd, OwnedFd),
    subbuf: usize,
}

struct KernelLane {
    cpu: u32,
    raw: OwnedFd,
    /// Its number in the file.
    lane: usize,
}

impl KernelSide {
    /// Makes the instance; recording is still off.
    ///
    /// # Errors
    /// The kernel refuses an event, a clock, or has no memory for the buffers. Nothing stays behind.
    pub(super) fn prepare(plan: &KernelPlan, clock: ClockId, subbuf_kib: u32, percent: u32) -> Result<Self> {
        // What a killed run left behind is in nobody's way, so failing to tidy it is no reason to stop.
        let _ = plan.tracefs.remove_stale();
        let instance = plan.tracefs.create_instance()?;
        instance.set_clock(clock.name())?;
        instance.set_sizes_kib(subbuf_kib, plan.buffer_kib)?;
        instance.set_buffer_percent(percent)?;
        // Our own doings are left out. Kernels before 5.7 cannot.
        let _ = instance.ignore(std::process::id());
        for event in &plan.events {
            instance.enable(event).with_context(|| format!("cannot enable {event}"))?;
        }
        let open = |cpu| Ok(KernelLane { cpu, raw: instance.open_raw(cpu)?, lane: 0 });
        let lanes = plan.tracefs.cpus()?.into_iter().map(open).collect::<Result<_>>()?;
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self {
            lanes,
            tracefs: plan.tracefs.clone(),
            events: plan.events.clone(),
            instance,
            pipe,
            subbuf: usize::try_from(subbuf_kib)? * 1024,
        })
    }

    pub(super) fn cpus(&self) -> Vec<u32> {
        self.lanes.iter().map(|lane| lane.cpu).collect()
    }

    /// Learns where the CPUs' sub-buffers go.
    ///
    /// # Errors
    /// The file was not planned for them.
    pub(super) fn place(&mut self, files: &Files, buffer: usize) -> Result<()> {
        for lane in &mut self.lanes {
            lane.lane = files.lane(buffer, lane.cpu)?;
        }
        Ok(())
    }

    /// Adds what the kernel says of its events and itself.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub(super) fn describe(&self, descriptions: &mut Descriptions) -> Result<()> {
        let events = self.instance.path().join("events");
        descriptions.header_page = read(&events.join("header_page"))?;
        descriptions.header_event = read(&events.join("header_event"))?;
        let mut needs_symbols = false;
        for event in &self.events {
            let format = self.tracefs.format(event)?;
            needs_symbols |= format.contains("%p");
            descriptions.formats.push((event.system.clone(), format));
        }
        descriptions.ftrace_formats = internal_formats(&self.tracefs.root().join("events/ftrace"))?;
        // Without them texts and names of functions are missed, and nothing else.
        let root = self.tracefs.root();
        descriptions.printk_formats = read(&root.join("printk_formats")).unwrap_or_default();
        if needs_symbols {
            descriptions.kallsyms = read(Path::new("/proc/kallsyms")).unwrap_or_default();
        }
        Ok(())
    }

    /// Names of tasks, one `PID NAME` a line.
    pub(super) fn tasks(&self) -> String {
        self.tracefs.saved_cmdlines().unwrap_or_default()
    }

    /// The text of each CPU's counters.
    pub(super) fn stats_texts(&self) -> Vec<String> {
        let text = |cpu: u32| {
            let path = self.instance.path().join(format!("per_cpu/cpu{cpu}/stats"));
            format!("CPU: {cpu}\n{}", read(&path).unwrap_or_default())
        };
        self.lanes.iter().map(|lane| text(lane.cpu)).collect()
    }

    /// Each CPU's counters.
    pub(super) fn stats(&self) -> impl Iterator<Item = Stats> {
        self.lanes.iter().filter_map(|lane| self.instance.stats(lane.cpu).ok())
    }

    /// What becomes ready when a buffer is as full as was asked for.
    pub(super) fn pipes(&self) -> impl Iterator<Item = &OwnedFd> {
        self.lanes.iter().map(|lane| &lane.raw)
    }

    /// Begins to record: all, or what the held command and its children do.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn begin(&self, follow: Option<&Running>) -> Result<()> {
        if let Some(command) = follow {
            self.instance.follow(command.pid().as_raw_pid().unsigned_abs())?;
        }
        self.set_recording(true)
    }

    /// Recording on or off.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn set_recording(&self, on: bool) -> Result<()> {
        Ok(self.instance.set_recording(on)?)
    }

    /// Whether recording is on: a trigger of the kernel's can have ended it.
    pub(super) fn is_recording(&self) -> bool {
        read(&self.instance.path().join("tracing_on")).is_ok_and(|text| text.trim() == "1")
    }

    /// Has the kernel stop recording when this event happens.
    ///
    /// # Errors
    /// It has no such event, or no triggers.
    pub(super) fn stop_at(&self, event: &EventName) -> Result<()> {
        let path = self.instance.path().join(format!("events/{}/{}/trigger", event.system, event.name));
        fs::write(&path, "traceoff").with_context(|| format!("cannot set a trigger on {event}"))
    }

    /// Writes all complete sub-buffers to the file, and with `is_last` also those that are not. Returns the bytes.
    ///
    /// # Errors
    /// The kernel, or the disk.
    pub(super) fn drain(&self, files: &mut Files, is_last: bool) -> Result<u64> {
        let mut bytes = 0;
        for lane in &self.lanes {
            while let Some(len) = self.splice(lane, files)? {
                bytes += len;
            }
            let mut page = Vec::new();
            while is_last && self.read(lane, &mut page)? {
                let len = u64::try_from(page.len())?;
                files.add(lane.lane, len, |file, place| write_at(file, &page, place))?;
                page.clear();
                bytes += len;
            }
        }
        Ok(bytes)
    }

    /// As [`drain`](Self::drain), by way of memory of our own.
    ///
    /// # Errors
    /// As there.
    pub(super) fn drain_behind(&self, behind: &mut Behind, is_last: bool) -> Result<u64> {
        let mut bytes = 0;
        for lane in &self.lanes {
            // Read as long as whole sub-buffers wait: a read would also take the one being written.
            let mut whole = match is_last {
                true => u64::MAX,
                false => self.instance.stats(lane.cpu)?.bytes / u64::try_from(self.subbuf)?,
            };
            while whole > 0 {
                let mut pages = behind.vector();
                while whole > 0 && pages.len() < AT_ONCE * self.subbuf && self.read(lane, &mut pages)? {
                    whole -= 1;
                }
                if pages.is_empty() {
                    break;
                }
                bytes += u64::try_from(pages.len())?;
                behind.add(lane.lane, pages)?;
            }
        }
        Ok(bytes)
    }

    /// Moves sub-buffers from the ring to the file; `None` when there is no complete one.
    fn splice(&self, lane: &KernelLane, files: &mut Files) -> Result<Option<u64>> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let want = AT_ONCE * self.subbuf;
        let got = loop {
            match rustix::pipe::splice(&lane.raw, None, &self.pipe.1, None, want, flags) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                got => break got.context("cannot take events out of the kernel's buffer")?,
            }
        };
        let len = u64::try_from(got)?;
        files.add(lane.lane, len, |file, place| {
            let (mut place, mut left) = (place, got);
            while left > 0 {
                match rustix::pipe::splice(
                    &self.pipe.0,
                    None,
                    file,
                    Some(&mut place),
                    left,
                    SpliceFlags::MOVE,
                ) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(moved) => left -= moved,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Ok(())
        })?;
        Ok(Some(len))
    }

    /// Appends the next sub-buffer, complete or not; whether there was one.
    fn read(&self, lane: &KernelLane, pages: &mut Vec<u8>) -> Result<bool> {
        let start = pages.len();
        pages.resize(start + self.subbuf, 0);
        let got = loop {
            match rustix::io::read(&lane.raw, &mut pages[start..]) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break 0,
                got => break got.context("cannot read the kernel's buffer")?,
            }
        };
        if got == 0 {
            pages.truncate(start);
        }
        Ok(got > 0)
    }
}

/// The text of a file of the kernel's, some of which give the first call all or nothing.
fn read(path: &Path) -> Result<String> {
    let trouble = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(trouble)?;
    let (mut text, mut piece) = (Vec::new(), vec![0; READ_LEN]);
    loop {
        match file.read(&mut piece).with_context(trouble)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            len => text.extend_from_slice(&piece[..len]),
        }
    }
}

/// The formats of the events that the kernel itself needs.
fn internal_formats(folder: &Path) -> Result<Vec<String>> {
    let listed = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths: Vec<PathBuf> =
        listed.filter_map(|entry| Some(entry.ok()?.path().join("format"))).collect();
    paths.retain(|path| path.exists());
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}
