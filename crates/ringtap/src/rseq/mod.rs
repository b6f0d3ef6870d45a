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
pub(crate) enum Plain {
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

/// A payload as the hot path takes it: an odd word first, then two words at a time; or, where it has more than
/// [`IN_REGISTERS`] bytes, its address in the first.
#[inline(always)]
pub(crate) fn in_registers<const N: usize>(payload: &[u8; N]) -> [MaybeUninit<u64>; 3] {
    if N > IN_REGISTERS {
        let address = payload.as_ptr().expose_provenance() as u64;
        return [MaybeUninit::new(address), MaybeUninit::uninit(), MaybeUninit::uninit()];
    }
    let odd = N % 8;
    let at = |start: usize| match payload.get(start..).and_then(<[u8]>::first_chunk) {
        Some(words) => MaybeUninit::new(u64::from_le_bytes(*words)),
        None => MaybeUninit::uninit(),
    };
    match payload.first_chunk() {
        Some(word) if odd != 0 => [MaybeUninit::new(u32::from_le_bytes(*word).into()), at(4), at(12)],
        _ => [at(0), at(8), at(16)],
    }
}

/// The payload that [`in_registers`] made words of.
///
/// # Safety
/// It has at most [`IN_REGISTERS`] bytes.
pub(crate) unsafe fn from_registers<const N: usize>(words: [MaybeUninit<u64>; 3]) -> [u8; N] {
    let mut payload = [0; N];
    let odd = N % 8;
    let mut starts = [0, 8, 16];
    if odd != 0 {
        starts = [0, 4, 12];
    }
    for (start, word) in starts.into_iter().zip(words) {
        let len = if start == 0 && odd != 0 { odd } else { 8 };
        let Some(bytes) = payload.get_mut(start..start + len) else { break };
        // SAFETY: `in_registers` made a word wherever there are bytes for it.
        bytes.copy_from_slice(&unsafe { word.assume_init() }.to_le_bytes()[..len]);
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
