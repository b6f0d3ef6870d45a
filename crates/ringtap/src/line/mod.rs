//! The way of a CPU's events through the buffers that followed each other: by which rules writers, links and the successor of
//! a dead host find it.
//!
//! Each buffer has an ordinal: the later it was made, the greater, and no other of its CPU ever had it. A buffer names what
//! follows it before it is retired, and the switchboard names the one that is written, right behind that moment. So,
//! whatever of a resize a host came to before it died:
//!
//! - **What a retired buffer names follows it**, and nothing that was made between the two: that was announced by a host
//!   that died or failed, and never used.
//! - **The writers are in the switchboard's buffer**, or where that is retired, in the one that it names: all of them, for a
//!   writer goes on once it has seen the mark in the tail of the one before, and nothing is committed behind the mark.
//! - **Nobody has a buffer that the host gave to nobody**: the switchboard says of how great an ordinal it ever did, before it
//!   does.
//!
//! A buffer that no host has any more, since nobody offered it in time, is *given up*: what it names then is where its writers are
//! sent, and says nothing of the order.

use crate::ring::{Ring, retire};
use ringtap_abi::meta::Rank;
use ringtap_abi::switchboard::CpuWords;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// What a buffer says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) ordinal: u64,
    /// The ordinal of what follows it; 0 where nothing does.
    pub(crate) next: u64,
    pub(crate) is_retired: bool,
    /// Whether all before it are spent.
    pub(crate) is_first: bool,
    pub(crate) is_given_up: bool,
}

impl Said {
    pub(crate) fn by(ring: &Ring<'_>) -> Self {
        let chain = &ring.meta().chain;
        Self {
            // First, with Acquire (E2): what follows it was named before.
            is_retired: retire::is_retired(ring) == Ok(true),
            ordinal: Rank::unpack(chain.rank.load(Relaxed)).ordinal.into(),
            next: chain.next.load(Relaxed),
            // S6: pairs with the Release in `Chain::publish`: the counters of those before it are here.
            is_first: chain.is_first.load(Acquire) != 0,
            is_given_up: chain.is_given_up.load(Relaxed) != 0,
        }
    }

    /// Whether a writer that finds this one retired goes on to the one of this ordinal, if it was told of that one first of those
    /// of which this is true.
    pub(crate) fn leads_to(&self, ordinal: u64) -> bool {
        ordinal >= self.next
    }

    /// Whether the buffer of this ordinal came right behind this one.
    fn is_before(&self, ordinal: u64) -> bool {
        self.is_retired && !self.is_given_up && self.next == ordinal
    }
}

/// What the switchboard says of a CPU's buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The ordinal of the one that is written, or was a moment ago; 0 where that is one of another set.
    pub(crate) newest: u64,
    /// The greatest ordinal that any process was told of.
    pub(crate) told: u64,
}

impl Noted {
    pub(crate) fn by(words: &CpuWords) -> Self {
        Self { newest: words.newest.load(Relaxed), told: words.told.load(Relaxed) }
    }
}

/// Whether a CPU's buffers are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    Yes,
    /// But nobody can have what is missing.
    AsFarAsCanBe,
    No,
}

/// The buffers of these, by their places, that a successor goes on with: from the first to be read to the one that is written, or to
/// the last before that one, where it is missing. Empty only where there are none.
pub(crate) fn way(all: &[Said], noted: Noted) -> Vec<usize> {
    let Some(anchor) = anchor(all, noted.newest) else { return Vec::new() };
    let mut way = vec![anchor];
    // Each step goes to a greater ordinal, or a smaller one: there is an end.
    let mut last = all[anchor];
    while let Some(at) = all.iter().position(|said| last.is_before(said.ordinal) && !said.is_given_up)
        && all[at].ordinal > last.ordinal
    {
        way.push(at);
        last = all[at];
    }
    let mut first = all[anchor];
    while !first.is_first
        && let Some(at) = before(all, first.ordinal)
    {
        way.insert(0, at);
        first = all[at];
    }
    // All before the last one that says so are spent, however it came that they are here.
    let spent = way.iter().rposition(|&at| all[at].is_first).unwrap_or(0);
    way.drain(..spent);
    way
}

/// Where to begin: with the buffer of which it is certain that it was written.
fn anchor(all: &[Said], newest: u64) -> Option<usize> {
    let sound = || (0..all.len()).filter(|&at| !all[at].is_given_up);
    let written = sound().find(|&at| all[at].ordinal == newest);
    let before_it = || sound().find(|&at| newest != 0 && all[at].is_before(newest));
    // Of a set that is no more, or of one whose last buffers are lost, the one to be read first. A buffer that was made between one
    // and what that one names was left by a host. Better than nothing is what no host had.
    let is_left = |each: &Said| {
        all.iter().any(|old| old.is_before(old.next) && (old.ordinal + 1..old.next).contains(&each.ordinal))
    };
    let kept = || sound().filter(|&at| !is_left(&all[at]));
    let first = || kept().filter(|&at| all[at].is_first).max_by_key(|&at| all[at].ordinal);
    let any = || kept().chain(sound()).next();
    written.or_else(before_it).or_else(first).or_else(any)
}

/// The buffer right before the one of this ordinal; or where that one is missing, the last before the gap.
fn before(all: &[Said], ordinal: u64) -> Option<usize> {
    let older = || (0..all.len()).filter(|&at| all[at].ordinal < ordinal);
    let is_before_gap =
        |said: &Said| said.is_retired && !said.is_given_up && (1..ordinal).contains(&said.next);
    let across = || older().filter(|&at| is_before_gap(&all[at])).max_by_key(|&at| all[at].ordinal);
    older().find(|&at| all[at].is_before(ordinal)).or_else(across)
}

/// Whether these buffers are all that there is to go on with.
pub(crate) fn is_whole(all: &[Said], noted: Noted) -> Whole {
    if all.is_empty() && noted.told < noted.newest {
        // A new set, of which nobody was told.
        return Whole::AsFarAsCanBe;
    }
    let way: Vec<_> = way(all, noted).into_iter().map(|at| all[at]).collect();
    let (Some(first), Some(last)) = (way.first(), way.last()) else { return Whole::No };
    let is_at_newest = way.iter().any(|said| [said.ordinal, said.next].contains(&noted.newest));
    let is_joined = way.windows(2).all(|pair| pair[0].next == pair[1].ordinal);
    if !is_at_newest || !is_joined || !first.is_first {
        return Whole::No;
    }
    match last.is_retired {
        false => Whole::Yes,
        true if noted.told < last.next => Whole::AsFarAsCanBe,
        true => Whole::No,
    }
}

/// A link has these buffers, in the order in which it was told of them. When it asked its host what follows the one at `asked`, it was
/// given one that it does not have, of the ordinal `given`. How many of them the host may know, then; the others were announced by a
/// host that died or failed, or are lost since nobody offered them in time.
pub(crate) fn known(held: &[Said], asked: usize, given: u64) -> usize {
    let is_known = |last: &Said, forgotten: Option<&Said>| match forgotten {
        // Nothing is given out that is older than what is known, and a failed resize's buffer names none.
        _ if last.is_given_up || last.ordinal > given || last.next == 0 => false,
        // What is replaced names what follows it before that is given out, and is retired before anything behind that is.
        _ if !last.is_retired => last.next >= given,
        // Whoever had gone on from here would have named another one.
        Some(forgotten) => last.next != forgotten.ordinal,
        None => true,
    };
    let mut known = asked + 1;
    while known > 0 && !is_known(&held[known - 1], held.get(known)) {
        known -= 1;
    }
    known
}

#[cfg(test)]
mod tests;
