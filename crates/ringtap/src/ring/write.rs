//! Writing an event: look at the ring, read the clock, then one section.
//!
//! Nearly every event takes the hot path, which is one section of assembly: a payload of a size known at
//! compile time, the processor's counter as clock, room on the page where the thread wrote last, less than 2^27
//! ticks since the last event. All else goes through [`append`], which also turns the page.

use super::advance;
use super::{Corrupt, Ring, words_of};
use crate::clock::Ticker;
use crate::rseq::{Append, Expected, Outcome, Parts, Sections};
use ringtap_abi::event::{
    DELTA_LIMIT, EXTEND_LEN, MAX_SMALL_PAYLOAD, STAMP_BITS, Shape, max_payload, time_extend, time_stamp,
};
use ringtap_abi::meta::state;
use ringtap_abi::subbuf::HEADER_LEN;
use ringtap_abi::words::Commit;
use std::sync::atomic::Ordering::Relaxed;

/// Why an event was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Refused {
    /// Recording is off. Not counted anywhere, as in the kernel.
    Off,
    /// The ring is full and in discard mode. Counted as dropped.
    Full,
    /// The payload is larger than a sub-buffer takes. Not counted, as in the kernel.
    TooLarge,
    /// The ring was replaced, and this process does not know the new one yet. Counted as dropped.
    Retired,
    /// Another writer stopped in the middle of its event, or this is a signal handler that interrupted one,
    /// on a buffer whose writers take a lock. Counted as commit overrun.
    Busy,
    /// A word of the shared memory cannot be true, or there is no buffer for this CPU.
    Unusable,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "recording is off",
            Self::Full => "the ring is full and in discard mode",
            Self::Retired => "the ring was replaced, and this process was not told of the new one yet",
            Self::TooLarge => "the event is larger than a sub-buffer takes",
            Self::Busy => "another writer stopped in the middle of its event",
            Self::Unusable => "the buffer's shared memory is damaged, or there is none for this CPU",
        })
    }
}

impl std::error::Error for Refused {}

impl From<Corrupt> for Refused {
    fn from(Corrupt: Corrupt) -> Self {
        Self::Unusable
    }
}

/// Whether a payload of `len` bytes may take the hot path: made of words, with a length that fits in the header
/// and a record that needs no padding.
pub(crate) const fn is_plain(len: usize) -> bool {
    if len > MAX_SMALL_PAYLOAD as usize {
        return false;
    }
    #[expect(clippy::cast_possible_truncation, reason = "compared above")]
    let shape = Shape::of(len as u32);
    len > 0 && shape.body as usize == len
}

/// What one round of [`append`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Step {
    /// The event is committed. The position is the tail's, for whoever watches its turns.
    Written,
    /// The tail moved to this position; the event is yet to be written.
    Turned(u64),
    /// Another writer, or the kernel, came between.
    Again(Outcome),
}

/// One round of writing a payload of any length: appends it, or turns the page and leaves it to the next round.
pub(crate) fn append(
    ring: &Ring<'_>,
    sections: &impl Sections,
    cpu: u32,
    clock: &Ticker<'_>,
    payload: &[u8],
) -> Result<Step, Refused> {
    let tail = ring.tail()?;
    if tail.is_retired() {
        return Err(Refused::Retired);
    }
    let absolute = ring.meta().switches.state.load(Relaxed) & state::ABSOLUTE != 0;
    let room = ring.geometry().capacity();
    let reserved = if absolute { EXTEND_LEN } else { 0 };
    let len = u32::try_from(payload.len()).map_err(|_| Refused::TooLarge)?;
    if len > max_payload(room) - reserved {
        return Err(Refused::TooLarge);
    }
    let shape = Shape::of(len);

    let w = ring.commit(tail.page())?;
    let expected = Expected { cpu, tail, w };
    if !w.is_blank() && w.offset() + reserved + shape.total() > room {
        // However little time has passed: the clock need not be read to know.
        let last = ring.desc(tail.page()).stamp[w.parity()].load(Relaxed);
        return advance::turn(ring, sections, &expected, last);
    }
    let last = ring.desc(tail.page()).stamp[w.parity()].load(Relaxed);
    // A clock that steps back, or one read on another CPU, must not send time backwards here.
    let now = clock.ticks().max(last);

    let stamp = Stamp::of(w, now, last, absolute);
    let total = stamp.len() + shape.total();
    if w.offset() + total > room {
        return advance::turn(ring, sections, &expected, last);
    }
    let mut head = Words::default();
    if w.is_blank() {
        // The page header: its time, and a commit of 0 until the host hands the page out.
        head.push_u64(now);
        head.push_u64(0);
    }
    let delta = stamp.push_to(&mut head);
    head.push(&shape.header(delta)[..shape.head as usize / 4]);
    let (body, foot) = head.push_short(payload, shape);
    let append = Append {
        expected,
        at: if w.is_blank() { 0 } else { HEADER_LEN + w.offset() },
        parts: Parts { head: head.as_slice(), body, foot },
        stamp: now,
        commit: if w.is_blank() { Commit::first(total) } else { w.and(total) },
    };
    Ok(match sections.append(ring, &append) {
        Outcome::Committed => Step::Written,
        other => Step::Again(other),
    })
}

/// How an event's time is told.
#[derive(Clone, Copy, Debug)]
enum Stamp {
    /// In the event header.
    Delta(u32),
    /// In a time extend before it.
    Extend(u64),
    /// In an absolute time stamp before it.
    Absolute(u64),
}

impl Stamp {
    fn of(w: Commit, now: u64, last: u64, absolute: bool) -> Self {
        let delta = now - last;
        if absolute || delta >= 1 << STAMP_BITS && !w.is_blank() {
            Self::Absolute(now)
        } else if w.is_blank() {
            // The page header tells it.
            Self::Delta(0)
        } else if delta >= DELTA_LIMIT {
            Self::Extend(delta)
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "compared above")]
            Self::Delta(delta as u32)
        }
    }

    /// Bytes before the event header.
    fn len(self) -> u32 {
        if let Self::Delta(_) = self { 0 } else { EXTEND_LEN }
    }

    /// Adds the words before the event header and returns the delta that goes into it.
    fn push_to(self, head: &mut Words) -> u32 {
        match self {
            Self::Delta(delta) => return delta,
            Self::Extend(delta) => head.push(&time_extend(delta)),
            Self::Absolute(time) => head.push(&time_stamp(time)),
        }
        0
    }
}

/// The words before a payload: at most a page header, a stamp, an event header, and a payload too short to
/// be copied from where it is.
#[derive(Debug, Default)]
struct Words {
    words: [u32; 4 + 2 + 2 + 2],
    used: usize,
}

impl Words {
    fn push(&mut self, words: &[u32]) {
        self.words[self.used..self.used + words.len()].copy_from_slice(words);
        self.used += words.len();
    }

    fn push_u64(&mut self, number: u64) {
        self.push(&words_of(number));
    }

    fn as_slice(&self) -> &[u32] {
        &self.words[..self.used]
    }

    /// Splits a payload in what is copied from where it is and the last word; one of up to 8 bytes, which may
    /// grow to 12, is taken into these words instead.
    fn push_short<'p>(&mut self, payload: &'p [u8], shape: Shape) -> (&'p [u8], u32) {
        let body_len = shape.body as usize - 4;
        if payload.len() > 8 {
            let (body, foot) = payload.split_at(body_len);
            return (body, word(foot));
        }
        let mut padded = [0; 12];
        padded[..payload.len()].copy_from_slice(payload);
        for at in (0..body_len).step_by(4) {
            self.push(&[word(&padded[at..at + 4])]);
        }
        (&[], word(&padded[body_len..body_len + 4]))
    }
}

/// The word of up to four bytes, zero-padded.
fn word(bytes: &[u8]) -> u32 {
    let mut padded = [0; 4];
    padded[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(padded)
}
