//! What the ring's tests share: random numbers, payloads that can be checked, consumers that check them.

use crate::ring::cursor::Position;
use crate::ring::swap::Handed;
use crate::ring::{Corrupt, Ring};
use ringtap_abi::SubbufId;
use ringtap_abi::event::Shape;
use ringtap_abi::records::{Walk, Words};
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells threads to stop when it goes: also where a test fails, which would wait for them without end.
pub(in crate::ring) struct StopAtEnd<'s>(pub(in crate::ring) &'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A small random number generator (xorshift64*): the same seed gives the same test.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Spread small seeds out, and never start at 0.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// The seed and the length of a random test.
///
/// `RINGTAP_SEED` replays a run, `RINGTAP_SECONDS` makes it longer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    pub(super) seed: u64,
    pub(super) duration: Duration,
}

impl Seed {
    /// From the environment, else a new seed and `default`. Prints what it takes to replay.
    pub(super) fn from_environment(test: &str, default: Duration) -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seed = number("RINGTAP_SEED").unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            u64::from(since.subsec_nanos()) ^ since.as_secs() << 20 ^ u64::from(std::process::id())
        });
        let duration = number("RINGTAP_SECONDS").map_or(default, Duration::from_secs);
        println!("{test}: RINGTAP_SEED={seed} RINGTAP_SECONDS={}", duration.as_secs());
        Self { seed, duration }
    }
}

/// Bytes before a payload's pattern: writer, number, length, checksum.
pub(super) const MIN_PAYLOAD: usize = 16;

/// Fills a payload of at least [`MIN_PAYLOAD`] bytes: who wrote it, its number, its length, and a pattern of these.
pub(super) fn fill(payload: &mut [u8], writer: u32, number: u32) {
    let len = u32::try_from(payload.len()).expect("payloads are small");
    for (index, chunk) in payload.chunks_mut(4).enumerate() {
        chunk.copy_from_slice(&pattern(writer, number, index).to_le_bytes()[..chunk.len()]);
    }
    let sum = checksum(writer, number, len);
    for (at, word) in [writer, number, len, sum].into_iter().enumerate() {
        payload[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// The payload's word `index`: another one in each event and at each place.
fn pattern(writer: u32, number: u32, index: usize) -> u32 {
    (writer.rotate_left(16) ^ number).wrapping_mul(0x9e37_79b1) ^ index as u32
}

/// Ties the three words to each other; the pattern ties the rest to them.
fn checksum(writer: u32, number: u32, len: u32) -> u32 {
    (writer.wrapping_mul(0x85eb_ca6b) ^ number).wrapping_mul(0xc2b2_ae35) ^ len.wrapping_mul(0x27d4_eb2f)
}

/// An event as read, its payload checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) writer: u32,
    pub(super) number: u32,
    pub(super) time: u64,
}

/// Checks a record's words. `Err` says what is wrong with them.
fn check(words: &[u32], time: u64) -> Result<Event, String> {
    let [writer, number, len, sum, ref rest @ ..] = *words else { return Err(format!("only {words:x?}")) };
    let wrong = |what: &str| Err(format!("{what}: writer {writer:#x} number {number} len {len} {words:x?}"));
    if sum != checksum(writer, number, len) {
        return wrong("the checksum is wrong");
    }
    if Shape::of(len).body as usize != words.len() * 4 {
        return wrong("the record has another length than its payload");
    }
    let is_right = |(index, &word): (usize, &u32)| {
        // The last word is cut off where the payload ends, and padded with zeros.
        let left = (len as usize).saturating_sub(index * 4).min(4);
        let mask = if left == 4 { u32::MAX } else { (1 << (8 * left)) - 1 };
        word == pattern(writer, number, index) & mask
    };
    if !rest.iter().enumerate().map(|(at, word)| (at + 4, word)).all(is_right) {
        return wrong("the pattern is wrong");
    }
    Ok(Event { writer, number, time })
}

/// Copied words of a sub-buffer's data.
struct Page<'a>(&'a [u32]);

impl Words for Page<'_> {
    fn word(&self, offset: u32) -> u32 {
        self.0[offset as usize / 4]
    }
}

/// Hands all events up to the walk's end to `each`.
fn walk(walk: &mut Walk, copy: &[u32], mut each: impl FnMut(Event)) -> u64 {
    let mut events = 0;
    while let Some(record) = walk.next(&Page(copy)).expect("records are whole") {
        let words = &copy[record.offset as usize / 4..][..record.len as usize / 4];
        let event = check(words, record.time)
            .unwrap_or_else(|wrong| panic!("at data offset {}: {wrong}", record.offset));
        each(event);
        events += 1;
    }
    events
}

/// The consuming reader's side: what a mapped reader does with the pages that GET_READER hands out.
#[derive(Debug)]
pub(super) struct Consumer {
    copy: Vec<u32>,
    walk: Walk,
    /// Index of the next event, losses included.
    pub(super) index: u64,
    pub(super) read: u64,
    pub(super) lost: u64,
    last_time: u64,
}

impl Consumer {
    pub(super) fn new(ring: &Ring<'_>) -> Self {
        let copy = vec![0; ring.geometry().capacity() as usize / 4];
        Self { copy, walk: Walk::new(0, 0), index: 0, read: 0, lost: 0, last_time: 0 }
    }

    /// Reads what a call of GET_READER brought, by what stands on the meta-page and the reader page alone.
    pub(super) fn pull(&mut self, ring: &Ring<'_>, handed: Handed, mut each: impl FnMut(u64, Event)) {
        if handed == Handed::Nothing {
            return;
        }
        let kernel = &ring.meta().kernel;
        let page = SubbufId(u16::try_from(kernel.reader_id.load(Acquire)).expect("an id"));
        let header = ring.data().header(page);
        let commit = PageCommit::unpack(header.commit.load(Acquire));
        assert_eq!(commit.len(), kernel.reader_read.load(Relaxed), "meta-page and page agree");
        if handed == Handed::Page {
            let lost = kernel.reader_lost_events.load(Relaxed);
            self.check_missed(ring, page, commit, lost);
            self.index += lost;
            self.lost += lost;
            self.walk = Walk::new(header.time_stamp.load(Relaxed), commit.len());
        } else {
            self.walk.extend_to(commit.len());
        }
        ring.data().copy_out(page, self.walk.offset(), commit.len(), &mut self.copy);
        let (index, last_time) = (&mut self.index, &mut self.last_time);
        self.read += walk(&mut self.walk, &self.copy, |event| {
            assert!(event.time >= *last_time, "time goes backwards: {event:?} after {last_time}");
            *last_time = event.time;
            each(*index, event);
            *index += 1;
        });
    }

    fn check_missed(&self, ring: &Ring<'_>, page: SubbufId, commit: PageCommit, lost: u64) {
        assert!(!commit.is_missed() || lost > 0, "a page is marked without a loss");
        if commit.is_missed_stored() {
            let mut stored = [0; 2];
            let (from, to) = (commit.len(), commit.len() + 8);
            assert!(to <= ring.geometry().capacity());
            for (word, at) in stored.iter_mut().zip((from..to).step_by(4)) {
                *word = ring.data().load(page, HEADER_LEN + at);
            }
            assert_eq!(u64::from(stored[0]) | u64::from(stored[1]) << 32, lost, "the number on the page");
        }
    }

    /// Goes on behind a reset; returns how many events it dropped.
    pub(super) fn skip_to(&mut self, index: u64) -> u64 {
        let dropped = index.checked_sub(self.index).expect("a reset goes forward");
        self.index = index;
        dropped
    }
}

/// A cursor, and what it makes of its copies.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    position: Position,
    copy: Vec<u32>,
    walk: Walk,
    /// Index of the next event, losses included.
    pub(super) index: u64,
    pub(super) read: u64,
    pub(super) lost: u64,
    last_time: u64,
}

impl Follower {
    /// Starts behind the newest event, whose index is `index`.
    pub(super) fn new(ring: &Ring<'_>, index: u64) -> Result<Self, Corrupt> {
        let (position, time) = Position::newest(ring)?;
        let copied = position.copied();
        let mut walk = Walk::new(time, copied);
        walk.finish();
        let copy = vec![0; ring.geometry().capacity() as usize / 4];
        Ok(Self { position, copy, walk, index, read: 0, lost: 0, last_time: 0 })
    }

    /// One step. `false`: nothing new.
    pub(super) fn step(
        &mut self,
        ring: &Ring<'_>,
        mut each: impl FnMut(u64, Event),
    ) -> Result<bool, Corrupt> {
        let Some(chunk) = self.position.advance(ring, &mut self.copy)? else { return Ok(false) };
        match chunk.begins {
            Some(time) => self.walk = Walk::new(time, chunk.end),
            None => self.walk.extend_to(chunk.end),
        }
        self.index = self.index.checked_add(chunk.lost).expect("a loss is no negative number");
        self.lost += chunk.lost;
        let (index, last_time) = (&mut self.index, &mut self.last_time);
        self.read += walk(&mut self.walk, &self.copy, |event| {
            assert!(event.time >= *last_time, "time goes backwards: {event:?} after {last_time}");
            *last_time = event.time;
            each(*index, event);
            *index += 1;
        });
        Ok(true)
    }

    /// A step on memory that may say anything: the bytes are taken and not believed.
    pub(super) fn step_unbelieving(&mut self, ring: &Ring<'_>) -> Result<bool, Corrupt> {
        let Some(chunk) = self.position.advance(ring, &mut self.copy)? else { return Ok(false) };
        ringtap_abi::records::check_walk(&self.copy[..chunk.end as usize / 4]);
        Ok(true)
    }
}

/// Kills the process when a test hangs: nothing in the ring may wait without bound.
#[derive(Debug)]
pub(super) struct Watchdog {
    done: std::sync::mpsc::Sender<()>,
}

impl Watchdog {
    pub(super) fn new(what: &'static str, limit: Duration) -> Self {
        let (done, waiting) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            if waiting.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{what} hangs: more than {limit:?}");
                std::process::abort();
            }
        });
        Self { done }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.done.send(());
    }
}
