//! An application's part of a recording: its sub-buffers go to the file from where they lie.

use super::files::{Files, write_at};
use super::sink::Behind;
use crate::application::Registry;
use crate::command::host_side::HostSide;
use anyhow::{Context, Result};
use ringtap::attach::{Connection, Role, Switchboard};
use ringtap::clock::Conversion;
use ringtap::event::registry::Event;
use ringtap::instance::Task;
use ringtap::recover::Recovered;
use ringtap::tracefs::EventName;
use ringtap::{Instances, ReadError, Stats, WholePages};
use ringtap_format::trace_dat::{Clock, Descriptions, TscToNs};
use rustix::fd::AsFd;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::mem;
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
    /// It was told that some CPU's sub-buffers became too large for the file.
    has_warned: bool,
    /// What another process's host knows of its events and threads, also when it is dead.
    switchboard: Option<Switchboard>,
    /// A host of our own.
    own: Option<Instances>,
}

struct ApplicationLane {
    pages: WholePages,
    /// Its number in the file.
    lane: usize,
    /// Its sub-buffers became too large for the file.
    is_over: bool,
    /// The buffers of another process's host, from the one that is read on, as of the last look: they can be read when that
    /// process is dead.
    memories: Vec<File>,
    /// The counters that a dead host's memory tells.
    last_stats: Option<Stats>,
    /// Events that were lost before those that were taken.
    lost: u64,
    /// Events whose loss another recording has told.
    told_before: u64,
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
            let read = host.stats(pages.cpu())?.read_events;
            let told_before = pages.place().saturating_sub(read);
            let (memories, last_stats) = (Vec::new(), None);
            Ok(ApplicationLane { pages, lane: 0, is_over: false, memories, last_stats, lost: 0, told_before })
        };
        let mut lanes: Vec<_> = pages.map(lane).collect::<Result<_>>()?;
        for lane in &mut lanes {
            lane.look_for_memories(host)?;
        }
        Ok(Self {
            lanes,
            registry: host.registry(),
            last_id: 0,
            formats: Vec::new(),
            tasks: BTreeMap::new(),
            is_gone: false,
            is_alone: false,
            has_warned: false,
            switchboard: host.connection().map(|_| switchboard(host)).transpose()?,
            own: host.instances().cloned(),
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
        let learnt = match (self.registry.after(self.last_id), &self.switchboard) {
            (Ok(learnt), _) => learnt,
            (Err(_), Some(switchboard)) => after(switchboard, self.last_id),
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
        let noted = self
            .switchboard
            .iter()
            .flat_map(Switchboard::tasks)
            .chain(self.own.iter().flat_map(Instances::tasks));
        let named = |task: Task| Some((i32::try_from(task.tid).ok()?, task.comm));
        let mut tasks: BTreeMap<_, _> = noted.filter_map(named).collect();
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

    /// Events that were overwritten and that no other recording has told of: as the file tells them, and those behind the
    /// last one that was taken.
    pub(super) fn lost(&self, host: &HostSide) -> u64 {
        let of = |lane: &ApplicationLane| {
            let living = lane.last_stats.is_none().then(|| host.stats(lane.pages.cpu()).ok()).flatten();
            let all = living.map_or(0, |stats| stats.overrun.saturating_sub(lane.told_before));
            lane.lost.max(all)
        };
        self.lanes.iter().map(of).sum()
    }

    /// Asks whether the host still lives, which its buffers alone do not tell, and whether it has others now.
    pub(super) fn look_after(&mut self, host: &HostSide) {
        let looked = self.lanes.iter_mut().try_for_each(|lane| lane.look_for_memories(host));
        let stats = self.lanes.first().map(|lane| host.stats(lane.pages.cpu()));
        self.is_gone |= looked.is_err() || stats.is_some_and(|stats| stats.is_err());
    }

    /// Asks for buffers that took the place of those that are read, before the host can die; whether it lives is asked
    /// elsewhere.
    pub(super) fn look_for_replaced(&mut self, host: &HostSide) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.pages.is_replaced()) {
            let _ = lane.look_for_memories(host);
        }
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
            while !lane.is_over
                && let Some(page) = next(&mut lane.pages, is_last, &mut self.is_gone)?
            {
                if page.size() > files.page_size() {
                    if !self.is_alone {
                        // Other CPUs may have smaller ones yet.
                        lane.is_over = true;
                        warn_once(&mut self.has_warned, page.size());
                        break;
                    }
                    files.resize(page.size())?;
                }
                let page = page.padded(files.page_size());
                let len = u64::from(page.size());
                files.add(lane.lane, len, |file, place| page.write_at(file, place))?;
                bytes += len;
                lane.lost += page.lost_before();
                if let Some(pid) = page.first_pid() {
                    note(&mut self.tasks, pid);
                }
            }
            if self.is_gone && is_last && !lane.is_over {
                let (is_alone, has_warned) = (self.is_alone, &mut self.has_warned);
                lane.each_of_the_dead(|lane, _, page| {
                    let Some(page) = fitted(page, files.page_size(), is_alone, has_warned) else {
                        return Ok(());
                    };
                    if page.len() > files.page_size() as usize {
                        files.resize(u32::try_from(page.len())?)?;
                    }
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
                lane.lost += page.lost_before();
                each(lane.lane, conversion.ns(page.time_stamp()), bytes)?;
            }
            if self.is_gone {
                lane.each_of_the_dead(&mut each)?;
            }
        }
        Ok(())
    }

    /// Whether the host is another process, which may be dead.
    pub(super) fn is_foreign(&self) -> bool {
        self.switchboard.is_some()
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
            while !lane.is_over
                && let Some(page) = next(&mut lane.pages, is_last, &mut self.is_gone)?
            {
                if page.size() > behind.page_size() {
                    if !self.is_alone {
                        // Other CPUs may have smaller ones yet.
                        lane.is_over = true;
                        warn_once(&mut self.has_warned, page.size());
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
                lane.lost += page.lost_before();
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
            if self.is_gone && is_last && !lane.is_over {
                let (is_alone, has_warned) = (self.is_alone, &mut self.has_warned);
                lane.each_of_the_dead(|lane, _, page| {
                    let Some(page) = fitted(page, behind.page_size(), is_alone, has_warned) else {
                        return Ok(());
                    };
                    if page.len() > behind.page_size() as usize {
                        behind.resize(u32::try_from(page.len())?)?;
                    }
                    bytes += page.len() as u64;
                    behind.add(lane, page)
                })?;
            }
        }
        Ok(bytes)
    }
}

/// Says why the application's part ends before the recording.
pub(super) fn warn_of_size(size: u32) {
    anstream::eprintln!(
        "ringtap: the application's sub-buffers have {} KiB now, more than the kernel's, so its part of the file ends \
         here; record it to a file of its own",
        size / 1024
    );
}

/// The same, unless it was said.
fn warn_once(has_warned: &mut bool, size: u32) {
    if !mem::replace(has_warned, true) {
        warn_of_size(size);
    }
}

/// A sub-buffer as a file takes it whose sub-buffers have this size: not smaller, and larger only where it is the file's
/// only source; else `None`.
fn fitted(mut page: Vec<u8>, size: u32, is_alone: bool, has_warned: &mut bool) -> Option<Vec<u8>> {
    if page.len() > size as usize && !is_alone {
        warn_once(has_warned, u32::try_from(page.len()).unwrap_or(u32::MAX));
        return None;
    }
    page.resize(page.len().max(size as usize), 0);
    Some(page)
}

impl ApplicationLane {
    /// Asks another process's host for the buffers that it has now.
    fn look_for_memories(&mut self, host: &HostSide) -> Result<()> {
        if let Some(connection) = host.connection() {
            let descriptors = connection.descriptors(self.pages.cpu())?;
            self.memories = descriptors.into_iter().map(File::from).collect();
        }
        Ok(())
    }

    /// Hands out what the memory of a host that is gone holds and nobody took.
    fn each_of_the_dead(&mut self, mut each: impl FnMut(usize, u64, Vec<u8>) -> Result<()>) -> Result<()> {
        if self.last_stats.is_some() {
            return Ok(());
        }
        let memories = mem::take(&mut self.memories);
        let later = match memories.iter().position(|memory| self.pages.is_of(memory.as_fd())) {
            Some(present) => &memories[present + 1..],
            // It was read to its end.
            None if self.pages.is_replaced() => &memories[..],
            // It came behind the last look, and is the newest that is known.
            None => &[],
        };
        let mut buffers = vec![(self.pages.memory(), self.pages.unread().unwrap_or(0))];
        for memory in later {
            buffers.push((read_all(memory).context("cannot read a dead host's buffer")?, 0));
        }
        for (bytes, from) in buffers {
            self.hand_out(&bytes, from, &mut each)?;
        }
        Ok(())
    }

    /// Hands out what a buffer holds from an event on.
    fn hand_out(
        &mut self,
        bytes: &[u8],
        from: u64,
        mut each: impl FnMut(usize, u64, Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let cpu = self.pages.cpu();
        let recovered = Recovered::new(bytes).with_context(|| format!("the buffer of CPU {cpu}"))?;
        for page in recovered.damaged() {
            let (id, reason) = (page.id, page.reason);
            anstream::eprintln!(
                "ringtap: CPU {cpu}: sub-buffer {id} was being written or is damaged: {reason}"
            );
        }
        let (conversion, lost, mut done) = (recovered.conversion(), &mut self.lost, Ok(()));
        let events = recovered.pages(from, |page| {
            *lost += page.lost;
            if done.is_ok() {
                done = each(self.lane, conversion.ns(page.ticks), page.bytes);
            }
        });
        let before = self.last_stats;
        self.last_stats = Some(match before {
            // The first tells what was read of it before, and of those before it.
            None => recovered.stats(),
            Some(before) => Stats { read_events: before.read_events + events, ..before },
        });
        done
    }
}

/// What a host's memory tells besides the events, from a connection that may map it.
fn switchboard(host: &HostSide) -> Result<Switchboard> {
    Ok(Connection::connect(host.socket(), Role::Writer)?.switchboard()?)
}

/// The events with ids above `id`, by id.
fn after(switchboard: &Switchboard, id: u16) -> Vec<(u16, EventName, String)> {
    let mut events = switchboard.events();
    events.retain(|event| event.id > id);
    events.sort_by_key(|event| event.id);
    let named = |Event { id, system, name, format, .. }| (id, EventName { system, name }, format);
    events.into_iter().map(named).collect()
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
