//! An application's part of a recording: its sub-buffers go to the file from where they lie.

use super::files::{Files, write_at};
use super::sink::Behind;
use crate::application::Registry;
use crate::command::stream::follow::HostSide;
use anyhow::{Context, Result};
use ringtap::attach::{Connection, Role, Shared};
use ringtap::clock::Conversion;
use ringtap::event::registry::Event;
use ringtap::recover::Recovered;
use ringtap::tracefs::EventName;
use ringtap::{ReadError, Stats, WholePages};
use ringtap_format::trace_dat::{Clock, Descriptions, TscToNs};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of sub-buffers that are compressed as one.
const CHUNK: usize = 1 << 18;

/// A host's buffers, consumed.
pub(super) struct ApplicationSide {
    lanes: Vec<ApplicationLane>,
    registry: Registry,
    /// The last event that was learnt.
    last_id: u16,
    formats: Vec<(String, String)>,
    /// Names of the tasks that wrote.
    tasks: BTreeMap<i32, String>,
    is_gone: bool,
    /// No other side's sub-buffers are in the file: it may have another size of them.
    is_alone: bool,
    /// Its sub-buffers became too large for the file.
    is_over: bool,
    /// What another process's host knows of its events and threads, also when it is dead.
    shared: Option<Shared>,
}

struct ApplicationLane {
    pages: WholePages,
    /// Its number in the file.
    lane: usize,
    /// Another process's memory: it can be read when that process is dead.
    memory: Option<File>,
    /// Index of the first event that was not taken.
    next: u64,
    /// The counters that a dead host's memory tells.
    last_stats: Option<Stats>,
}

impl ApplicationSide {
    /// Becomes the reader of the host's buffers.
    ///
    /// # Errors
    /// Somebody else is.
    pub(super) fn open(host: &HostSide) -> Result<Self> {
        let readers = host.readers().context("cannot consume the application's events")?;
        let pages = readers.into_iter().filter_map(ringtap::Reader::into_whole_pages);
        let lane = |pages: WholePages| {
            let memory =
                host.connection().map(|connection| connection.descriptor(pages.cpu())).transpose()?;
            Ok(ApplicationLane { pages, lane: 0, memory: memory.map(File::from), next: 0, last_stats: None })
        };
        Ok(Self {
            lanes: pages.map(lane).collect::<Result<_>>()?,
            registry: host.registry(),
            last_id: 0,
            formats: Vec::new(),
            tasks: BTreeMap::new(),
            is_gone: false,
            is_alone: false,
            is_over: false,
            shared: host.connection().map(|_| shared(host)).transpose()?,
        })
    }

    pub(super) fn cpus(&self) -> Vec<u32> {
        self.lanes.iter().map(|lane| lane.pages.cpu()).collect()
    }

    /// Of the largest sub-buffers, in KiB.
    pub(super) fn subbuf_kib(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.pages.subbuf_size() / 1024).max().unwrap_or(4)
    }

    /// Learns where the CPUs' sub-buffers go.
    ///
    /// # Errors
    /// The file was not planned for them.
    pub(super) fn place(&mut self, files: &Files, buffer: usize) -> Result<()> {
        for lane in &mut self.lanes {
            lane.lane = files.lane(buffer, lane.pages.cpu())?;
        }
        self.is_alone = buffer == 0;
        Ok(())
    }

    /// How the host's ticks become nanoseconds.
    pub(super) fn conversion(&self) -> Conversion {
        self.lanes.first().map_or(Conversion::NONE, |lane| lane.pages.conversion())
    }

    /// The same, for a file.
    pub(super) fn clock(&self) -> Clock {
        clock_of(self.conversion())
    }

    /// Learns the events that were declared meanwhile; whether there were any.
    ///
    /// # Errors
    /// The host is gone.
    pub(super) fn learn(&mut self) -> Result<bool> {
        let learnt = match (self.registry.after(self.last_id), &self.shared) {
            (Ok(learnt), _) => learnt,
            (Err(_), Some(shared)) => after(shared, self.last_id),
            (Err(error), None) => return Err(error),
        };
        for (id, name, format) in &learnt {
            self.last_id = *id;
            self.formats.push((name.system.clone(), format.clone()));
        }
        Ok(!learnt.is_empty())
    }

    /// Adds what is known of the events. Those that the kernel has, too, are known already.
    pub(super) fn describe(&self, descriptions: &mut Descriptions) {
        let is_internal = |system: &str| system == "ftrace";
        let (internal, own): (Vec<_>, Vec<_>) =
            self.formats.iter().cloned().partition(|(system, _)| is_internal(system));
        if descriptions.ftrace_formats.is_empty() {
            descriptions.ftrace_formats = internal.into_iter().map(|(_, format)| format).collect();
        }
        descriptions.formats.extend(own);
    }

    /// Names of tasks, one `PID NAME` a line.
    pub(super) fn tasks(&self) -> String {
        let mut tasks: BTreeMap<_, _> = self.shared.iter().flat_map(named).collect();
        tasks.extend(self.tasks.iter().map(|(&pid, name)| (pid, name.clone())));
        tasks.into_iter().map(|(pid, name)| format!("{pid} {name}\n")).collect()
    }

    /// Asks for the names of a process's threads, which may be gone in the end.
    pub(super) fn note_threads(&mut self, pid: u32) {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
        for thread in threads.flatten() {
            if let Some(pid) = thread.file_name().to_str().and_then(|pid| pid.parse().ok()) {
                // By now it may have become another program.
                self.tasks.extend(name_of(pid).map(|name| (pid, name)));
            }
        }
    }

    /// Each CPU's counters.
    pub(super) fn stats(&self, host: &HostSide) -> Vec<Stats> {
        let stats = |lane: &ApplicationLane| lane.last_stats.or_else(|| host.stats(lane.pages.cpu()).ok());
        self.lanes.iter().filter_map(stats).collect()
    }

    /// Asks whether the host still lives: its buffers alone do not tell.
    pub(super) fn look_after(&mut self, host: &HostSide) {
        self.is_gone |= self.lanes.first().is_some_and(|lane| host.stats(lane.pages.cpu()).is_err());
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// The size that a file's sub-buffers are to have, where all of ours became smaller than they are.
    fn smaller(&self, page_size: u32) -> Option<u32> {
        Some(self.subbuf_kib() * 1024).filter(|&size| self.is_alone && size < page_size)
    }

    /// Writes all complete sub-buffers, and with `is_last` also those that are not complete. Returns the bytes.
    ///
    /// Where their size was changed, another file begins: each has one size of them. Until all CPUs' are smaller, they are
    /// padded.
    ///
    /// # Errors
    /// The host, or the disk.
    pub(super) fn drain(&mut self, files: &mut Files, is_last: bool) -> Result<u64> {
        if let Some(size) = self.smaller(files.page_size()) {
            files.resize(size)?;
        }
        let mut bytes = 0;
        for lane in &mut self.lanes {
            while !self.is_over
                && let Some(page) = next(&mut lane.pages, is_last, &mut self.is_gone)?
            {
                if page.size() > files.page_size() {
                    if !self.is_alone {
                        self.is_over = true;
                        warn_of_size(page.size());
                        break;
                    }
                    files.resize(page.size())?;
                }
                let page = page.padded(files.page_size());
                let len = u64::from(page.size());
                files.add(lane.lane, len, |file, place| page.write_at(file, place))?;
                bytes += len;
                lane.next = page.end().unwrap_or(lane.next);
                if let Some(pid) = page.first_pid() {
                    note(&mut self.tasks, pid);
                }
            }
            if self.is_gone && is_last {
                lane.each_of_the_dead(|lane, _, page| {
                    bytes += page.len() as u64;
                    files.add(lane, page.len() as u64, |file, place| write_at(file, &page, place))
                })?;
            }
        }
        Ok(bytes)
    }

    /// Hands out all that the buffers hold, also sub-buffers that are not complete, each with its lane and the time of
    /// its first event.
    ///
    /// # Errors
    /// The host, or what `each` says.
    pub(super) fn each_left(
        &mut self,
        mut each: impl FnMut(usize, u64, Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        for lane in &mut self.lanes {
            let conversion = lane.pages.conversion();
            while let Some(page) = next(&mut lane.pages, true, &mut self.is_gone)? {
                let mut bytes = Vec::with_capacity(page.size() as usize);
                page.copy_to(&mut bytes);
                if let Some(pid) = page.first_pid() {
                    note(&mut self.tasks, pid);
                }
                lane.next = page.end().unwrap_or(lane.next);
                each(lane.lane, conversion.ns(page.time_stamp()), bytes)?;
            }
            if self.is_gone {
                lane.each_of_the_dead(&mut each)?;
            }
        }
        Ok(())
    }

    /// Whether the memory is another process's, which can be read after its death.
    pub(super) fn has_memory(&self) -> bool {
        self.lanes.iter().any(|lane| lane.memory.is_some())
    }

    /// Whether the application's writers record: a trigger can have ended it.
    pub(super) fn is_recording(&self) -> bool {
        self.lanes.iter().all(|lane| lane.pages.is_recording())
    }

    /// As [`drain`](Self::drain), by way of memory of our own.
    ///
    /// # Errors
    /// As there.
    pub(super) fn drain_behind(&mut self, behind: &mut Behind, is_last: bool) -> Result<u64> {
        if let Some(size) = self.smaller(behind.page_size()) {
            behind.resize(size)?;
        }
        let mut bytes = 0;
        for lane in &mut self.lanes {
            let mut pages = behind.vector();
            while !self.is_over
                && let Some(page) = next(&mut lane.pages, is_last, &mut self.is_gone)?
            {
                if page.size() > behind.page_size() {
                    if !self.is_alone {
                        self.is_over = true;
                        warn_of_size(page.size());
                        break;
                    }
                    if !pages.is_empty() {
                        behind.add(lane.lane, std::mem::replace(&mut pages, behind.vector()))?;
                    }
                    behind.resize(page.size())?;
                }
                let page = page.padded(behind.page_size());
                bytes += u64::from(page.size());
                page.copy_to(&mut pages);
                lane.next = page.end().unwrap_or(lane.next);
                if let Some(pid) = page.first_pid() {
                    note(&mut self.tasks, pid);
                }
                if pages.len() >= CHUNK {
                    behind.add(lane.lane, std::mem::replace(&mut pages, behind.vector()))?;
                }
            }
            if !pages.is_empty() {
                behind.add(lane.lane, pages)?;
            }
            if self.is_gone && is_last {
                lane.each_of_the_dead(|lane, _, page| {
                    bytes += page.len() as u64;
                    behind.add(lane, page)
                })?;
            }
        }
        Ok(bytes)
    }
}

/// Says why the application's part ends before the recording.
fn warn_of_size(size: u32) {
    anstream::eprintln!(
        "ringtap: the application's sub-buffers have {} KiB now, more than the kernel's, so its part of the file ends \
         here; record it to a file of its own",
        size / 1024
    );
}

impl ApplicationLane {
    /// Hands out what the memory of a host that is gone holds and nobody took.
    fn each_of_the_dead(&mut self, mut each: impl FnMut(usize, u64, Vec<u8>) -> Result<()>) -> Result<()> {
        let Some(memory) = self.memory.take() else { return Ok(()) };
        let cpu = self.pages.cpu();
        let bytes = read_all(&memory).with_context(|| format!("cannot read the buffer of CPU {cpu}"))?;
        let recovered = Recovered::new(&bytes).with_context(|| format!("the buffer of CPU {cpu}"))?;
        for page in recovered.damaged() {
            let (id, reason) = (page.id, page.reason);
            anstream::eprintln!(
                "ringtap: CPU {cpu}: sub-buffer {id} was being written or is damaged: {reason}"
            );
        }
        self.last_stats = Some(recovered.stats());
        let (conversion, mut done) = (recovered.conversion(), Ok(()));
        recovered.pages(self.next, |page, time| {
            if done.is_ok() {
                done = each(self.lane, conversion.ns(time), page);
            }
        });
        done
    }
}

/// What a host's memory tells besides the events, from a connection that may map it.
fn shared(host: &HostSide) -> Result<Shared> {
    Ok(Connection::connect(host.socket(), Role::Writer)?.shared()?)
}

/// The events with ids above `id`, by id.
fn after(shared: &Shared, id: u16) -> Vec<(u16, EventName, String)> {
    let mut events = shared.events();
    events.retain(|event| event.id > id);
    events.sort_by_key(|event| event.id);
    let named = |Event { id, system, name, format, .. }| (id, EventName { system, name }, format);
    events.into_iter().map(named).collect()
}

/// The threads that a host noted.
fn named(shared: &Shared) -> Vec<(i32, String)> {
    let tasks = shared.tasks().into_iter();
    tasks.filter_map(|task| Some((i32::try_from(task.tid).ok()?, task.comm))).collect()
}

/// All bytes of a memory that nobody need map.
fn read_all(memory: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(memory.metadata()?.len()).map_err(io::Error::other)?];
    memory.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The end of the host ends what is read from it, and is no failure.
fn next<'p>(
    pages: &'p mut WholePages,
    is_last: bool,
    is_gone: &mut bool,
) -> Result<Option<ringtap::WholePage<'p>>> {
    match pages.next(is_last) {
        Err(ReadError::Attach(error)) if error.is_gone() => {
            *is_gone = true;
            Ok(None)
        }
        page => Ok(page?),
    }
}

fn note(tasks: &mut BTreeMap<i32, String>, pid: i32) {
    if let std::collections::btree_map::Entry::Vacant(vacant) = tasks.entry(pid)
        && let Some(name) = name_of(pid)
    {
        vacant.insert(name);
    }
}

fn name_of(pid: i32) -> Option<String> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(comm.trim_ascii_end()).into_owned())
}

/// The line from ticks to nanoseconds as a file tells it: a number of 32 bits and a shift, and what to add.
fn clock_of(conversion: Conversion) -> Clock {
    if !conversion.tells_time() || conversion == Conversion::IDENTITY {
        return Clock::default();
    }
    let surplus = 32u32.saturating_sub(conversion.mult.leading_zeros());
    let mult = u32::try_from(conversion.mult >> surplus).unwrap_or(u32::MAX);
    let mut clock = Clock { tsc: Some(TscToNs { mult, shift: 32 - surplus, offset: 0 }), offset: 0 };
    let there = i128::from(conversion.ns0) - i128::from(clock.ns(conversion.ticks0));
    clock.offset = i64::try_from(there).unwrap_or(0);
    clock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_clock_tells_what_the_hosts_line_tells() {
        // Counters of 2.45 GHz, 19.2 MHz and 1 GHz, and their ticks in an hour.
        for (mult, up, hour) in [
            (1_753_047_672, 1u64 << 50, 8_820_000_000_000),
            (223_696_213_333, 1 << 40, 69_120_000_000),
            (1 << 32, 1 << 45, 3_600_000_000_000),
        ] {
            let line = Conversion { ticks0: up, ns0: 77_000_000_000, mult };
            let clock = clock_of(line);
            for later in [0, 1_000_000, hour] {
                let (exact, told) = (line.ns(up + later), clock.ns(up + later));
                assert!(exact.abs_diff(told) < 10_000, "{mult}: {exact} {told}");
            }
        }
        assert_eq!(clock_of(Conversion::IDENTITY), Clock::default());
        assert_eq!(clock_of(Conversion::NONE), Clock::default());
    }
}
