//! Restartable sequences: the one primitive that the ring is built on.
//!
//! # The contract
//!
//! A *section* is a short run of instructions that the kernel aborts when its thread is preempted, migrated
//! or interrupted by a signal before the last of them. Two sections of one CPU can therefore never overlap:
//! the CPU is the mutex, across threads, signal handlers and processes. Each section here is, in portable
//! pseudo-code:
//!
//! ```text
//! if rseq.cpu_id != cpu           return Changed      this thread runs elsewhere now
//! if meta.writer.lock != 0        return Changed      somebody without sections writes here
//! if meta.writer.tail != tail     return Changed      the writers have moved on
//! if descs[tail.page].w != w      return Changed      somebody committed an event
//! ... plain stores that nobody looks at before the commit ...
//! one store, with Release                             the commit
//! return Committed
//! ```
//!
//! There are two: *append* copies a record behind `w` and commits by storing the new `w`; *turn* prepares the
//! next sub-buffer's [`Desc`] and commits by storing the new tail. [`x86_64`] and [`aarch64`] spell
//! them in assembly, [`portable`] in Rust for whoever holds the buffer's lock, and for the model
//! checkers. A section that returned anything but [`Outcome::Committed`] has changed nothing that matters:
//! the bytes behind `w` and the desc of a claimed sub-buffer belong to whoever commits next.

use crate::ring::Ring;
use ringtap_abi::SubbufId;
use ringtap_abi::words::{Commit, Place};
use std::mem::MaybeUninit;

#[cfg(all(any(target_arch = "aarch64", all(test, target_arch = "x86_64")), not(loom)))]
pub(crate) mod aarch64;
mod area;
pub(crate) mod lock;
pub(crate) mod portable;
#[cfg(all(target_arch = "x86_64", not(loom)))]
pub(crate) mod x86_64;

#[cfg(all(target_arch = "aarch64", not(loom)))]
pub(crate) use aarch64 as native;
#[cfg(all(target_arch = "x86_64", not(loom)))]
pub(crate) use x86_64 as native;

pub(crate) use area::{Area, available, pretend, stay_loaded};

/// How a section ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Outcome {
    /// The commit was stored.
    Committed,
    /// Something was not as expected: look again.
    Changed,
    /// The kernel interrupted the section: try again.
    Aborted,
}

/// How the hot path ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Plain {
    /// The event is committed.
    Committed,
    /// The event is committed, and somebody sleeps until there is one.
    CommittedForSleepers,
    /// Nothing has happened.
    Not,
}

/// Payloads up to this many bytes reach the hot path in registers: what the caller just computed is then never
/// stored and loaded again.
pub(crate) const IN_REGISTERS: usize = 24;

/// A payload as the hot path takes it: eight bytes at a time, four at an odd end; or, where it has more than
/// [`IN_REGISTERS`] bytes, its address in the first.
///
/// Callers build payloads in words of eight bytes. Taken as they were stored, they never stall: a load across two
/// stores waits until both have reached the cache.
#[inline(always)]
pub(crate) fn in_registers<const N: usize>(payload: &[u8; N]) -> [MaybeUninit<u64>; 3] {
    in_registers_of(payload)
}

/// The payload's length must be known at compile time where this is inlined.
#[inline(always)]
fn in_registers_of(payload: &[u8]) -> [MaybeUninit<u64>; 3] {
    if payload.len() > IN_REGISTERS {
        let address = payload.as_ptr().expose_provenance() as u64;
        return [MaybeUninit::new(address), MaybeUninit::uninit(), MaybeUninit::uninit()];
    }
    [0, 8, 16].map(|start| {
        let rest = payload.get(start..).unwrap_or_default();
        match (rest.first_chunk(), rest.first_chunk()) {
            (Some(word), _) => MaybeUninit::new(u64::from_le_bytes(*word)),
            (None, Some(half)) => MaybeUninit::new(u32::from_le_bytes(*half).into()),
            (None, None) => MaybeUninit::uninit(),
        }
    })
}

/// As [`in_registers`], of a payload whose last four bytes are to become the time since some ticks of the processor's counter,
/// told by the very tick that stamps the event.
#[inline(always)]
pub(crate) fn in_registers_but_last<const N: usize>(payload: &[u8; N]) -> [MaybeUninit<u64>; 3] {
    const { assert!(N > 4) };
    in_registers_of(payload.split_at(N - 4).0)
}

/// The payload that [`in_registers`] made words of.
///
/// # Safety
/// It has at most [`IN_REGISTERS`] bytes.
pub(crate) unsafe fn from_registers<const N: usize>(words: [MaybeUninit<u64>; 3]) -> [u8; N] {
    let mut payload = [0; N];
    for (bytes, word) in payload.chunks_mut(8).zip(words) {
        // SAFETY: `in_registers` made a word wherever there are bytes for it.
        let word = unsafe { word.assume_init() }.to_le_bytes();
        bytes.copy_from_slice(&word[..bytes.len()]);
    }
    payload
}

/// What a section compares before it stores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// The CPU whose ring this is.
    pub(crate) cpu: u32,
    /// The sub-buffer being written.
    pub(crate) tail: Place,
    /// How far it is committed.
    pub(crate) w: Commit,
}

/// A record in the three parts that are copied behind each other: nothing is assembled beforehand, so no
/// payload is ever copied twice and no scratch memory limits its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    /// Header words: a page header for the first record of a page, a time extend, the event header.
    pub(crate) head: &'a [u32],
    /// The payload but for its last word; a multiple of 4 bytes.
    pub(crate) body: &'a [u8],
    /// The payload's last word, zero-padded.
    pub(crate) foot: u32,
}

/// Where an append goes and what it commits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Append<'a> {
    pub(crate) expected: Expected,
    /// Byte offset in the sub-buffer, its header included.
    pub(crate) at: u32,
    pub(crate) parts: Parts<'a>,
    /// The event's time, for the stamp of the new parity.
    pub(crate) stamp: u64,
    pub(crate) commit: Commit,
}

/// The next sub-buffer and what its desc becomes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) expected: Expected,
    /// The claimed sub-buffer.
    pub(crate) page: SubbufId,
    /// Index of its first event.
    pub(crate) first: u64,
    /// Time of the last event before it.
    pub(crate) stamp: u64,
    pub(crate) commit: Place,
}

/// One way to run sections: the architecture's, or the lock holder's.
pub(crate) trait Sections {
    /// Copies a record and commits it.
    fn append(&self, ring: &Ring<'_>, append: &Append<'_>) -> Outcome;
    /// Moves the tail to a claimed sub-buffer.
    fn turn(&self, ring: &Ring<'_>, turn: &Turn) -> Outcome;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back_from_registers() {
        fn check<const N: usize>() {
            let payload = std::array::from_fn(|at| u8::try_from(at).expect("short") + 1);
            // SAFETY: none of those below is longer.
            assert_eq!(unsafe { from_registers::<N>(in_registers::<N>(&payload)) }, payload);
        }
        check::<4>();
        check::<12>();
        check::<16>();
        check::<20>();
        check::<24>();
    }
}
