//! An application's part of a recording: its sub-buffers go to the file from where they lie.

use super::files::Files;
use super::sink::Behind;
use crate::application::Registry;
use crate::command::stream::follow::HostSide;
use anyhow::{Context, Result};
use ringtap::clock::Conversion;
use ringtap::{ReadError, Stats, WholePages};
use ringtap_format::trace_dat::{Clock, Descriptions, TscToNs};
use std::collections::BTreeMap;
use std::fs;

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
}

struct ApplicationLane {
    pages: WholePages,
    /// Its number in the file.
    lane: usize,
}

impl ApplicationSide {
    /// Becomes the reader of the host's buffers.
    ///
    /// # Errors
    /// Somebody else is.
    pub(super) fn open(host: &HostSide) -> Result<Self> {
        let readers = host.readers().context("cannot consume the application's events")?;
        let pages = readers.into_iter().filter_map(ringtap::Reader::into_whole_pages);
        Ok(Self {
            lanes: pages.map(|pages| ApplicationLane { pages, lane: 0 }).collect(),
            registry: host.registry(),
            last_id: 0,
            formats: Vec::new(),
            tasks: BTreeMap::new(),
            is_gone: false,
        })
    }

    pub(super) fn cpus(&self) -> Vec<u32> {
        self.lanes.iter().map(|lane| lane.pages.cpu()).collect()
    }

    /// In KiB.
    pub(super) fn subbuf_kib(&self) -> u32 {
        self.lanes.first().map_or(4, |lane| lane.pages.subbuf_size() / 1024)
    }

    /// Learns where the CPUs' sub-buffers go.
    ///
    /// # Errors
    /// The file was not planned for them.
    pub(super) fn place(&mut self, files: &Files, buffer: usize) -> Result<()> {
        for lane in &mut self.lanes {
            lane.lane = files.lane(buffer, lane.pages.cpu())?;
        }
        Ok(())
    }

    /// How the host's ticks become nanoseconds, for a file.
    pub(super) fn clock(&self) -> Clock {
        self.lanes.first().map_or_else(Clock::default, |lane| clock_of(lane.pages.conversion()))
    }

    /// Learns the events that were declared meanwhile; whether there were any.
    ///
    /// # Errors
    /// The host is gone.
    pub(super) fn learn(&mut self) -> Result<bool> {
        if self.is_gone {
            return Ok(false);
        }
        let learnt = self.registry.after(self.last_id)?;
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
        self.tasks.iter().map(|(pid, name)| format!("{pid} {name}\n")).collect()
    }

    /// Asks for the names of a process's threads, which may be gone in the end.
    pub(super) fn note_threads(&mut self, pid: u32) {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
        for thread in threads.flatten() {
            if let Some(pid) = thread.file_name().to_str().and_then(|pid| pid.parse().ok()) {
                note(&mut self.tasks, pid);
            }
        }
    }

    /// Each CPU's counters.
    pub(super) fn stats(&self, host: &HostSide) -> Vec<Stats> {
        self.lanes.iter().filter_map(|lane| host.stats(lane.pages.cpu()).ok()).collect()
    }

    /// Asks whether the host still lives: its buffers alone do not tell.
    pub(super) fn look_after(&mut self, host: &HostSide) {
        self.is_gone |= self.lanes.first().is_some_and(|lane| host.stats(lane.pages.cpu()).is_err());
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Writes all complete sub-buffers that `is_wanted` by their time, and with `is_last` also those that are not
    /// complete. Returns the bytes.
    ///
    /// # Errors
    /// The host, or the disk.
    pub(super) fn drain(&mut self, files: &mut Files, is_last: bool) -> Result<u64> {
        let mut bytes = 0;
        for lane in &mut self.lanes {
            while let Some(page) = next(&mut lane.pages, is_last, &mut self.is_gone)? {
                let len = u64::from(page.size());
                files.add(lane.lane, len, |file, place| page.write_at(file, place))?;
                bytes += len;
                if let Some(pid) = page.first_pid() {
                    note(&mut self.tasks, pid);
                }
            }
        }
        Ok(bytes)
    }

    /// As [`drain`](Self::drain), by way of memory of our own.
    ///
    /// # Errors
    /// As there.
    pub(super) fn drain_behind(&mut self, behind: &mut Behind, is_last: bool) -> Result<u64> {
        let mut bytes = 0;
        for lane in &mut self.lanes {
            let mut pages = behind.vector();
            while let Some(page) = next(&mut lane.pages, is_last, &mut self.is_gone)? {
                bytes += u64::from(page.size());
                page.copy_to(&mut pages);
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
        }
        Ok(bytes)
    }
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
        && let Ok(comm) = fs::read(format!("/proc/{pid}/comm"))
    {
        vacant.insert(String::from_utf8_lossy(comm.trim_ascii_end()).into_owned());
    }
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
