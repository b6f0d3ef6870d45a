//! What attached processes still have of a dead host: its switchboard, and the buffers that each of them offers.
//!
//! A CPU's buffers followed each other, and [`line`](crate::line) finds the way of its events through them. Those of the instance's
//! present set, in their order:
//!
//! ```text
//!   spent     retired       retired       open            open
//!             is_first      to be read    the writers     never written: the host died before it retired
//!                                                         the one before it
//! ```
//!
//! One process's offer is enough where it is whole: the buffer that is written, and all before it up to the one that says
//! that those before it are spent. Else others may have what is missing, unless the dead host had told nobody of it.

use super::common::Common;
use super::named::Named;
use super::{Inner, Instances, check_name};
use crate::board::Board;
use crate::host::{self, Buffer, Config, Host, HostError};
use crate::lane::{Lane, past_of};
use crate::line::{self, Noted, Said, Whole};
use crate::map::{self, Access, File, Mapping};
use crate::resize;
use ringtap_abi::meta::{Rank, state};
use ringtap_abi::switchboard::{CpuWords, MAX_INSTANCES};
use rustix::fd::{AsFd, OwnedFd};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex};

/// Most buffers of a CPU that are looked at: a host has three for a moment, and each that died left one that it announced.
const MOST: usize = 64;

/// A dead host's memory, as far as it was offered.
#[derive(Debug)]
pub(crate) struct Remains {
    board: Board,
    /// The CPUs of this machine are 0 to this one.
    last_cpu: u32,
    found: Vec<Found>,
}

/// A buffer.
#[derive(Debug)]
struct Found {
    instance: usize,
    cpu: u32,
    rank: Rank,
    fd: OwnedFd,
    mapping: Arc<Mapping>,
}

impl Found {
    fn said(&self) -> Said {
        Said::by(&self.mapping.ring())
    }
}

impl Remains {
    pub(crate) fn new(board: Board) -> Result<Self, HostError> {
        Ok(Self { board, last_cpu: host::last_cpu()?, found: Vec::new() })
    }

    /// Whose they are.
    pub(crate) fn host_id(&self) -> [u64; 2] {
        self.board.host_id()
    }

    /// How many buffers they are.
    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    /// Takes a buffer, unless it is there already. It is an allegation, and whoever offers what is none is not listened to.
    pub(crate) fn add(&mut self, instance: usize, cpu: u32, fd: OwnedFd) -> Result<(), HostError> {
        let file = File::of(fd.as_fd())?;
        let of_cpu = self.found.iter().filter(|known| (known.instance, known.cpu) == (instance, cpu)).count();
        if of_cpu >= MOST || self.found.iter().any(|known| known.mapping.file() == file) {
            return Ok(());
        }
        let mapping = Arc::new(map::open(&fd, Access::Write)?);
        let (stated, rank) = {
            let ring = mapping.ring();
            (ring.meta().identity.cpu.load(Relaxed), Rank::unpack(ring.meta().chain.rank.load(Relaxed)))
        };
        if stated != cpu || cpu > self.last_cpu || instance >= MAX_INSTANCES {
            return Err(HostError::NoSuchCpu(cpu));
        }
        self.found.push(Found { instance, cpu, rank, fd, mapping });
        Ok(())
    }

    /// Whether nobody can offer more than this.
    pub(crate) fn are_whole(&self) -> bool {
        let is_whole = |bit: usize| (0..=self.last_cpu).all(|cpu| self.is_whole(bit, cpu));
        (0..MAX_INSTANCES).filter(|&bit| self.name(bit).is_some()).all(is_whole)
    }

    /// The name of the instance in this place, if there is one.
    fn name(&self, bit: usize) -> Option<String> {
        let entry = self.board.entry(bit);
        // S5: pairs with the Release in `Named::announce_more`.
        let is_there = entry.epoch.load(Acquire) != 0;
        let (name, len) = entry.name();
        let name = std::str::from_utf8(&name[..len]).ok()?;
        (is_there && (bit == 0 || check_name(name).is_ok())).then(|| name.to_owned())
    }

    /// The set of buffers that the switchboard means.
    fn lineage(&self, bit: usize) -> u32 {
        Rank::lineage_of(self.board.entry(bit).lineage.load(Relaxed))
    }

    /// A CPU's buffers of one set, in order.
    fn line(&self, bit: usize, cpu: u32, lineage: u32) -> Vec<&Found> {
        let of_it = |found: &&Found| (found.instance, found.cpu, found.rank.lineage) == (bit, cpu, lineage);
        let mut line: Vec<_> = self.found.iter().filter(of_it).collect();
        line.sort_by_key(|found| found.rank);
        line
    }

    fn is_whole(&self, bit: usize, cpu: u32) -> bool {
        let said: Vec<_> = self.line(bit, cpu, self.lineage(bit)).into_iter().map(Found::said).collect();
        let noted = self.board.cpu(bit, cpu).map(Noted::by).unwrap_or_default();
        line::is_whole(&said, noted) != Whole::No
    }

    /// Goes on with them. Named instances of which nothing is left are removed.
    ///
    /// # Errors
    /// [`HostError`] where that is true of the top instance, or something cannot be what it should be.
    pub(crate) fn adopt(mut self, config: &Config) -> Result<Instances, HostError> {
        let mut places = Vec::new();
        for bit in 0..MAX_INSTANCES {
            let name = self.name(bit);
            let lanes = name.as_ref().map(|_| self.take_lanes(bit));
            places.push(name.zip(lanes));
        }
        let common = Arc::new(Common::adopt(self.board).map_err(|_| HostError::Damaged(0))?);
        let mut table: Vec<Option<Arc<Named>>> = Vec::new();
        for (bit, place) in places.into_iter().enumerate() {
            let Some((name, lanes)) = place else {
                table.push(None);
                continue;
            };
            let percent = common.board().entry(bit).buffer_percent.load(Relaxed);
            let percent = u8::try_from(percent).unwrap_or(50).min(100);
            let directory = config.directory.as_deref().filter(|_| bit == 0);
            let host = lanes.and_then(|lanes| Host::inherit(lanes, &common, percent, Some(bit), directory));
            table.push(match host {
                Ok(host) => Some(Self::named(name, bit, host, &common)),
                Err(error) if bit == 0 => return Err(error),
                Err(_) => {
                    common.forget_rules(bit);
                    common.forget(bit);
                    None
                }
            });
        }
        let inner = Inner { common, config: config.clone(), table: Mutex::new(table) };
        let instances = Instances { inner: Arc::new(inner) };
        instances.inner.common.followers().await_return();
        instances.inner.common.changed();
        Ok(instances)
    }

    fn named(name: String, bit: usize, host: Host, common: &Arc<Common>) -> Arc<Named> {
        if bit > 0 {
            common.targets().set(bit, Some(host.writer_here()), common.board());
        }
        let config = host.stated_config();
        let named = Named::new(name, bit, config, host, common);
        // S5: as `announce_more`: links look whether anything follows what they know.
        common.board().entry(bit).epoch.fetch_add(1, Release);
        Arc::new(named)
    }

    /// An instance's buffers as its new host has them.
    fn take_lanes(&mut self, bit: usize) -> Result<Vec<Lane>, HostError> {
        let present = self.lineage(bit);
        let has_all = |lineage| (0..=self.last_cpu).all(|cpu| !self.line(bit, cpu, lineage).is_empty());
        let before = present.wrapping_sub(1);
        let lineage = if has_all(present) {
            present
        } else if has_all(before) {
            // The host died while it replaced them, before any process had the new ones: it did not, then.
            before
        } else {
            return Err(HostError::Damaged(0));
        };
        let mut lanes = Vec::new();
        for cpu in 0..=self.last_cpu {
            let its = |found: &mut Found| (found.instance, found.cpu) == (bit, cpu);
            let mut line: Vec<_> = self.found.extract_if(.., its).collect();
            line.retain(|found| found.rank.lineage == lineage);
            line.sort_by_key(|found| found.rank);
            let words = self.board.cpu(bit, cpu).ok_or(HostError::NoSuchCpu(cpu))?;
            lanes.push(lane(line, words, lineage != present)?);
        }
        if lineage != present {
            let entry = self.board.entry(bit);
            // Another one than the dead host's, of which some process may know yet.
            let next = entry.lineage.fetch_add(1, Relaxed) + 1;
            lanes.iter().for_each(|lane| lane.set_lineage(Rank::lineage_of(next)));
        }
        Ok(lanes)
    }
}

/// Goes on with a CPU's buffers, in their order. `is_before`: they are those of the set before the present one, and the
/// dead host had told writers to leave them.
fn lane(line: Vec<Found>, words: &CpuWords, is_before: bool) -> Result<Lane, HostError> {
    let said: Vec<_> = line.iter().map(Found::said).collect();
    let noted = if is_before { Noted::default() } else { Noted::by(words) };
    let way = line::way(&said, noted);
    let is_written =
        way.last().is_some_and(|&last| !said[last].is_retired && said[last].ordinal >= noted.newest);
    let oldest = way.first().map_or(0, |&first| said[first].ordinal);
    let (mut behind, mut spent, mut never) = (Vec::new(), Vec::new(), Vec::new());
    for (at, found) in line.into_iter().enumerate() {
        if way.contains(&at) {
            behind.push(found);
        } else if said[at].is_retired && said[at].ordinal < oldest {
            spent.push(found);
        } else {
            never.push(found);
        }
    }
    let is_first = way.first().is_some_and(|&first| said[first].is_first);
    // The host may have died before it did.
    spent.iter().for_each(|spent| spent.mapping.give_back(spent.fd.as_fd()));
    let of_first = |first: &Found| {
        let chain = &first.mapping.ring().meta().chain;
        // What came before was read or not: nobody knows. It is not here.
        chain.overrun.store(first.mapping.ring().meta().host.origin.load(Relaxed), Relaxed);
    };
    if !is_first {
        behind.first().into_iter().for_each(of_first);
    }
    if is_before {
        for found in &behind {
            let state = &found.mapping.ring().meta().switches.state;
            state.fetch_and(!(state::RETIRED | state::OFF), Relaxed);
        }
    }
    let mut past = past_of(&behind.first().ok_or(HostError::Damaged(0))?.mapping.ring().meta().chain);
    let adopt = |found: Found| Buffer::adopt(found.cpu, found.fd, found.mapping);
    let mut buffers = behind.into_iter().map(adopt).collect::<Result<VecDeque<_>, _>>()?;
    for at in 1..buffers.len() {
        past.overrun = past.overrun.wrapping_add(join(&buffers[at - 1], &buffers[at])?);
    }
    if !is_written && let Some(last) = buffers.back() {
        let next = last.following(last.mapping().geometry(), host::new_ordinal(words, last.rank()))?;
        let state = last.mapping().ring().meta().switches.state.load(Relaxed);
        next.mapping().ring().meta().switches.state.store(state & !state::GONE, Relaxed);
        // In this order, whoever is killed in between: the one after that takes what is missing for lost.
        host::set_newest(words, &next);
        last.set_next(&next);
        // It may be open: then its successors are lost, to which other processes had gone on. Where it cannot be ended, it goes on.
        if last.retire().is_ok() {
            last.precede(&next)?;
            buffers.push_back(next);
        }
    }
    let newest = buffers.pop_back().ok_or(HostError::Damaged(0))?;
    host::set_newest(words, &newest);
    for never in &never {
        resize::give_up(&never.mapping, words);
    }
    let older = buffers.into_iter().map(Arc::new).collect();
    Ok(Lane::inherited(past, older, Arc::new(newest)))
}

/// Lets one buffer follow another, which is retired; how many events were written in between, to buffers that are gone.
fn join(old: &Buffer, new: &Buffer) -> Result<u64, HostError> {
    if old.next() == new.rank().ordinal.into() {
        // The host may have died before it said so.
        return old.precede(new).map(|()| 0);
    }
    let ring = old.mapping().ring();
    let written = ring.written().map_err(|_| old.damaged())?;
    let end = ring.meta().host.origin.load(Relaxed).wrapping_add(written);
    Ok(new.mapping().ring().meta().host.origin.load(Relaxed).saturating_sub(end))
}
