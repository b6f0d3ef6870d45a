//! The way of a CPU's events through the buffers that followed each other: by which rules writers, links and the successor of
//! a dead host find it.
//!
//! A buffer names what follows it before it is retired, and the switchboard names the one that is written, right behind that
//! moment. So, whatever of a resize a host came to before it died:
//!
//! - **What a retired buffer names follows it**, and nothing that was made between the two: that was announced by a host
//!   that died or failed, and never used.
//! - **All before the one on the switchboard are retired.** One that is older and open was left behind, by a host that began
//!   without it since nobody offered it in time.
//! - **The first one that is open is where the writers are**, all of them: a writer goes on once it has seen the mark in the tail
//!   of the one before, and nothing is committed behind the mark. What is behind it was never used.
//!
//! Where all are retired, the next one was made and nobody who offers has it. Whether anybody can have it stands where it is
//! named, since a host notes there that it gave it away before it does.

use crate::ring::{Ring, retire};
use ringtap_abi::meta::{Mention, Rank};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// What a buffer says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) ordinal: u32,
    /// What follows it.
    pub(crate) next: Mention,
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
            ordinal: Rank::unpack(chain.rank.load(Relaxed)).ordinal,
            next: Mention::unpack(chain.next.load(Relaxed)),
            // S6: pairs with the Release in `Chain::publish`: the counters of those before it are here.
            is_first: chain.is_first.load(Acquire) != 0,
            is_given_up: chain.is_given_up.load(Relaxed) != 0,
        }
    }

    /// Whether a writer that finds this one retired goes on to the one of this ordinal, if it was told of that one first of those
    /// of which this is true.
    pub(crate) fn leads_to(&self, ordinal: u32) -> bool {
        ordinal >= self.next.ordinal
    }
}

/// A link has these buffers, in the order in which it was told of them. When it asked its host what follows the one at `asked`, it was
/// given one that it does not have, of the ordinal `given`. How many of them the host may know, then; the others were announced by a
/// host that died or failed, or are lost since nobody offered them in time.
pub(crate) fn known(held: &[Said], asked: usize, given: u32) -> usize {
    let mut known = asked + 1;
    while let Some(last) = held[..known].last() {
        let is_forgotten = match held.get(known) {
            // Nothing is given out that is older than what is known.
            _ if last.is_given_up || given < last.ordinal => true,
            // A failed resize's, where it is retired.
            _ if last.next.ordinal == 0 => true,
            // What is replaced names what follows it before that is given out, and is retired before anything behind that is.
            _ if !last.is_retired => last.next.ordinal < given,
            // Whoever had gone on from here would have named another one.
            Some(forgotten) => last.next.ordinal == forgotten.ordinal,
            None => false,
        };
        if !is_forgotten {
            break;
        }
        known -= 1;
    }
    known
}

/// Whether a CPU's buffers are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    Yes,
    /// But nobody can have what is missing.
    AsFarAsCanBe,
    No,
}

/// Which of these buffers, in the order of their ordinals, events were or will be written to. `newest` is the switchboard's word;
/// none where it means another set of buffers.
pub(crate) fn are_real(all: &[Said], newest: Mention) -> Vec<bool> {
    let is_between = |each: &Said| {
        all.iter().any(|old| old.is_retired && old.ordinal < each.ordinal && each.ordinal < old.next.ordinal)
    };
    let is_left = |each: &Said| !each.is_retired && each.ordinal < newest.ordinal;
    let is_named = |each: &Said| all.iter().any(|old| old.is_retired && old.next.ordinal == each.ordinal);
    // One that is retired and names none is a failed resize's; or the last of a set that was ended.
    let is_stray =
        |each: &Said| each.is_retired && each.next.ordinal == 0 && all.len() > 1 && !is_named(each);
    let mut is_behind = false;
    let mut is_real = |each: &Said| {
        let is_real = !(is_behind || each.is_given_up || is_between(each) || is_left(each) || is_stray(each));
        is_behind |= is_real && !each.is_retired;
        is_real
    };
    all.iter().map(&mut is_real).collect()
}

/// Whether these buffers, in the order of their ordinals, are all that there is to go on with.
pub(crate) fn is_whole(all: &[Said], newest: Mention) -> Whole {
    if all.is_empty() && !newest.is_told {
        // A new set, of which nobody was told.
        return Whole::AsFarAsCanBe;
    }
    let real: Vec<_> =
        all.iter().zip(are_real(all, newest)).filter_map(|(said, is_real)| is_real.then_some(said)).collect();
    let Some(last) = real.last() else { return Whole::No };
    let has_rest = real
        .iter()
        .rposition(|said| said.is_first)
        .is_some_and(|first| real[first..].windows(2).all(|pair| pair[0].next.ordinal == pair[1].ordinal));
    // The switchboard's is one behind where the host died right behind the mark; that of a buffer further on says nothing of
    // who has the one that is missing.
    let is_missed = newest.ordinal != last.ordinal && (newest.ordinal != last.next.ordinal || newest.is_told);
    match (has_rest, last.is_retired) {
        (true, false) => Whole::Yes,
        (true, true) if !last.next.is_told && !is_missed => Whole::AsFarAsCanBe,
        _ => Whole::No,
    }
}

#[cfg(test)]
mod tests;
