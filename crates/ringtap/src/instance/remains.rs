//! What attached processes still have of a dead host: its switchboard, and the buffers that each of them offers.
//!
//! A CPU's buffers followed each other, and each knows its rank. Those of the instance's present set, in their order:
//!
//! ```text
//!   spent     retired       retired       open            open
//!             is_first      to be read    the writers     never written: the host died before it retired
//!                                                         the one before it
//! ```
//!
//! **The lowest one that is not retired is where the writers are**, all of them: a writer goes on to the next buffer once it
//! has seen the mark in the tail of the one before, and nothing is committed behind the mark. So what stands behind it
//! was announced and never used. Where all are retired, the next one was made by the dead host, and nobody who offers
//! has it: then a new one follows.
//!
//! One process's offer is enough where it is whole: the buffer that is written, and all before it up to the one that says
//! that those before it are spent. Else others may have what is missing, unless the switchboard says that nobody does.

use super::common::Common;
use super::named::Named;
use super::{Inner, Instances, check_name};
use crate::board::Board;
use crate::host::{self, Buffer, Config, Host, HostError};
use crate::lane::{Lane, past_of};
use crate::map::{self, Access, File, Mapping};
use crate::resize;
use crate::ring::retire;
use ringtap_abi::meta::{Rank, state};
use ringtap_abi::switchboard::MAX_INSTANCES;
use rustix::fd::{AsFd, OwnedFd};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex};

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
    fn is_retired(&self) -> bool {
        retire::is_retired(&self.mapping.ring()) == Ok(true)
    }

    /// Whether all before it are spent.
    fn is_first(&self) -> bool {
        // S6: pairs with the Release in `Chain::publish`: the counters of those are here.
        self.mapping.ring().meta().chain.is_first.load(Acquire) != 0
    }

    fn follows(&self, other: &Self) -> bool {
        self.rank == other.rank.next()
    }
}

/// Whether a place's buffers are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    Yes,
    /// But no attached process can have what is missing.
    AsFarAsCanBe,
    No,
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
        if self.found.iter().any(|known| known.mapping.file() == file) {
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
        let is_whole = |bit: usize| (0..=self.last_cpu).all(|cpu| self.is_whole(bit, cpu) != Whole::No);
        (0..MAX_INSTANCES).filter(|&bit| self.name(bit).is_some()).all(is_whole)
    }

    /// The name of the instance in this place, if there is one.
    fn name(&self, bit: usize) -> Option<String> {
        let entry = self.board.entry(bit);
        // S5: pairs with the Release in `announce`.
        let is_there = entry.epoch.load(Acquire) != 0;
        let (name, len) = entry.name();
        let name = std::str::from_utf8(&name[..len]).ok()?;
        (is_there && (bit == 0 || check_name(name).is_ok())).then(|| name.to_owned())
    }

    /// The set of buffers that the switchboard means.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what buffers keep")]
    fn lineage(&self, bit: usize) -> u32 {
        self.board.entry(bit).lineage.load(Relaxed) as u32
    }

    /// A CPU's buffers of one set, in order.
    fn line(&self, bit: usize, cpu: u32, lineage: u32) -> Vec<&Found> {
        let of_it = |found: &&Found| (found.instance, found.cpu, found.rank.lineage) == (bit, cpu, lineage);
        let mut line: Vec<_> = self.found.iter().filter(of_it).collect();
        line.sort_by_key(|found| found.rank);
        line
    }

    fn is_whole(&self, bit: usize, cpu: u32) -> Whole {
        let line = self.line(bit, cpu, self.lineage(bit));
        let open = line.iter().position(|found| !found.is_retired());
        let end = open.map_or(line.len(), |open| open + 1);
        let has_rest = line[..end]
            .iter()
            .rposition(|found| found.is_first())
            .is_some_and(|first| line[first..end].windows(2).all(|pair| pair[1].follows(pair[0])));
        let entry = self.board.entry(bit);
        let is_new = entry.mapped.load(Relaxed) < entry.epoch.load(Relaxed);
        match (open, has_rest) {
            (Some(_), true) => Whole::Yes,
            // What was announced last is missing, and nobody had mapped it; or all of a new set is.
            (None, _) if is_new && (has_rest || line.is_empty()) => Whole::AsFarAsCanBe,
            _ => Whole::No,
        }
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
            lanes.push(lane(line, lineage != present)?);
        }
        if lineage != present {
            let entry = self.board.entry(bit);
            // Another one than the dead host's, of which some process may know yet.
            let next = entry.lineage.fetch_add(1, Relaxed) + 1;
            #[expect(clippy::cast_possible_truncation, reason = "the low half is what buffers keep")]
            lanes.iter().for_each(|lane| lane.set_lineage(next as u32));
        }
        Ok(lanes)
    }
}

/// Goes on with a CPU's buffers, in their order. `is_retired`: the dead host had told writers to leave them.
fn lane(mut line: Vec<Found>, is_retired: bool) -> Result<Lane, HostError> {
    let open = line.iter().position(|found| !found.is_retired());
    // Behind the one that is written, none ever was. Whoever knows one passes over it.
    for never in line.split_off(open.map_or(line.len(), |open| open + 1)) {
        resize::retire(&never.mapping)?;
    }
    let first = line.iter().rposition(Found::is_first);
    let behind = line.split_off(first.unwrap_or(0));
    // The host may have died before it did.
    line.iter().for_each(|spent| spent.mapping.give_back(spent.fd.as_fd()));
    let of_first = |first: &Found| {
        let chain = &first.mapping.ring().meta().chain;
        // What came before was read or not: nobody knows. It is not here.
        chain.overrun.store(first.mapping.ring().meta().host.origin.load(Relaxed), Relaxed);
    };
    if first.is_none() {
        behind.first().into_iter().for_each(of_first);
    }
    if is_retired {
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
    if open.is_none()
        && let Some(last) = buffers.back()
    {
        let next = last.following(last.mapping().geometry())?;
        let state = last.mapping().ring().meta().switches.state.load(Relaxed);
        next.mapping().ring().meta().switches.state.store(state & !state::GONE, Relaxed);
        last.precede(&next)?;
        buffers.push_back(next);
    }
    let newest = buffers.pop_back().ok_or(HostError::Damaged(0))?;
    let older = buffers.into_iter().map(Arc::new).collect();
    Ok(Lane::inherited(past, older, Arc::new(newest)))
}

/// Lets one buffer follow another, which is retired; how many events were written in between, to buffers that are gone.
fn join(old: &Buffer, new: &Buffer) -> Result<u64, HostError> {
    if new.rank() == old.rank().next() {
        // The host may have died before it said so.
        return old.precede(new).map(|()| 0);
    }
    let ring = old.mapping().ring();
    let written = ring.written().map_err(|_| old.damaged())?;
    let end = ring.meta().host.origin.load(Relaxed).wrapping_add(written);
    Ok(new.mapping().ring().meta().host.origin.load(Relaxed).saturating_sub(end))
}
