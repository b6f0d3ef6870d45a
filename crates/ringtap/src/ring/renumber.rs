//! Numbering the sub-buffers anew while writers go on, as Linux does when a buffer is mapped for the first time: the reader
//! page is 0, those of the ring are 1, 2, ... from the oldest on.
//!
//! A number is a place in the memory, so what is on a page moves with it. The reader page is a hole that goes round: the page
//! that stands in the wrong slot is copied there, the slot names the copy by a CAS that fails where a writer has claimed it,
//! and that page is the hole now. At each step the hole is the one page that no slot names, so a host that dies leaves
//! nothing to repair but what was unread of the reader page, which then counts as overwritten.
//!
//! The page being written stays where it is. Where it has the wrong number, the tail turns to one that has the right one,
//! if that loses nothing.

use super::ordering::{e3_claim, e5_drop, e5_look, e5_swap, fence};
use super::swap::{Reader, update_meta};
use super::write::{Refused, Step};
use super::{Corrupt, Ring, advance};
use crate::rseq::{Expected, Sections};
use ringtap_abi::SubbufId;
use ringtap_abi::subbuf::PageCommit;
use ringtap_abi::words::{Commit, Place, Slot};
use std::sync::atomic::Ordering::{Relaxed, Release};

/// How often all pages are put in order: once before the tail turns, once behind it, and twice for writers that come between.
const ROUNDS: u32 = 4;
/// How often a turn is tried: writers may append meanwhile.
const TURN_TRIES: u32 = 64;

/// Numbers the sub-buffers of a ring whose numbers nobody uses: it is neither mapped for reading nor consumed. Whether all
/// have their numbers then; writers may have given no chance to.
pub(crate) fn renumber(
    ring: &Ring<'_>,
    reader: &mut Reader,
    sections: &impl Sections,
    cpu: u32,
) -> Result<bool, Corrupt> {
    let passed_on = ring.meta().kernel.reader_read.load(Relaxed);
    if is_numbered(ring, reader)? {
        update_meta(ring, reader)?;
        ring.meta().kernel.reader_read.store(passed_on, Relaxed);
        return Ok(true);
    }
    if reader.holds(ring.tail()?) && turn(ring, sections, cpu)?.is_none() {
        return Ok(false);
    }
    let rest = Rest::take(ring, reader, passed_on)?;
    let has_rest = rest.is_some();
    let mut pages = Pages { ring, head: 0, hole: reader.page };
    let arranged = pages.put_in_order(reader, has_rest, sections, cpu);
    reader.page = pages.hole;
    if let Some(rest) = rest {
        rest.put_back(ring, reader);
    }
    update_meta(ring, reader)?;
    if has_rest {
        ring.meta().kernel.reader_read.store(passed_on, Relaxed);
    }
    arranged
}

/// The position that the numbers begin at: the oldest that is unread, or else the next to be written.
fn head(ring: &Ring<'_>, reader: &Reader) -> Result<u64, Corrupt> {
    Ok(match ring.oldest_unconsumed(reader.next_seq)? {
        Some(oldest) => oldest.seq,
        None => ring.tail()?.seq() + 1,
    })
}

fn is_numbered(ring: &Ring<'_>, reader: &Reader) -> Result<bool, Corrupt> {
    let pages = Pages { ring, head: head(ring, reader)?, hole: reader.page };
    Ok(pages.hole == SubbufId(0) && pages.positions().all(|seq| pages.is_right(seq)))
}

/// What of the reader page was not passed on, kept aside while the page is the hole.
struct Rest {
    reader: Reader,
    page: Copied,
    commit: u64,
}

/// A page's content.
struct Copied {
    w: Commit,
    first: u64,
    stamps: [u64; 2],
    time_stamp: u64,
    words: Vec<u32>,
}

impl Rest {
    /// Takes the page from the reader, which holds nothing from then on. `None` where all of it was passed on.
    fn take(ring: &Ring<'_>, reader: &mut Reader, passed_on: u32) -> Result<Option<Self>, Corrupt> {
        let header = ring.data().header(reader.page);
        let rest = if reader.seq != 0 && ring.commit(reader.page)?.offset() > passed_on {
            let page = Copied::of(ring, reader.page)?;
            Some(Self { reader: *reader, page, commit: header.commit.load(Relaxed) })
        } else {
            None
        };
        (reader.seq, reader.handed_bytes, reader.handed_events, reader.lost) = (0, 0, 0, 0);
        header.commit.store(PageCommit::new(0).pack(), Relaxed);
        // As a successor finds it: the reader has no page, and goes on at the next position.
        ring.meta().kernel.reader_read.store(0, Relaxed);
        reader.publish(ring);
        Ok(rest)
    }

    /// Gives the reader what was taken, on the page that it has now.
    fn put_back(self, ring: &Ring<'_>, reader: &mut Reader) {
        reader.conceal(ring);
        self.page.store(ring, reader.page);
        ring.data().header(reader.page).commit.store(self.commit, Relaxed);
        let page = reader.page;
        *reader = self.reader;
        reader.page = page;
    }
}

impl Copied {
    fn of(ring: &Ring<'_>, page: SubbufId) -> Result<Self, Corrupt> {
        let w = ring.commit(page)?;
        let mut words = vec![0; w.offset() as usize / 4];
        ring.data().copy_out(page, 0, w.offset(), &mut words);
        Ok(Self {
            w,
            first: ring.first(page),
            stamps: [0, 1].map(|at: usize| ring.desc(page).stamp[at].load(Relaxed)),
            time_stamp: ring.data().header(page).time_stamp.load(Relaxed),
            words,
        })
    }

    /// Puts it on a page that no slot names.
    fn store(&self, ring: &Ring<'_>, page: SubbufId) {
        let desc = ring.desc(page);
        // Closed: no writer takes it for the one that it wrote to before.
        desc.w.store(Commit::BLANK.pack(), Relaxed);
        desc.first.store(self.first, Relaxed);
        // E3: as behind a claim. A cursor that sees a byte stored to this page from now on also sees its new `first`.
        fence(e3_claim());
        for (stamp, value) in desc.stamp.iter().zip(self.stamps) {
            stamp.store(value, Relaxed);
        }
        ring.data().header(page).time_stamp.store(self.time_stamp, Relaxed);
        ring.data().copy_in(page, &self.words);
        desc.w.store(self.w.closed().pack(), Release);
    }
}

/// The pages, as they are put in order.
struct Pages<'r, 'm> {
    ring: &'r Ring<'m>,
    /// The position of page 1.
    head: u64,
    /// The page that no slot names.
    hole: SubbufId,
}

impl Pages<'_, '_> {
    fn put_in_order(
        &mut self,
        reader: &mut Reader,
        has_rest: bool,
        sections: &impl Sections,
        cpu: u32,
    ) -> Result<bool, Corrupt> {
        for _ in 0..ROUNDS {
            self.head = head(self.ring, reader)?;
            if !self.move_all()? {
                continue;
            }
            let tail = self.ring.tail()?;
            if self.is_right(tail.seq()) {
                return Ok(self.hole == SubbufId(0));
            }
            let is_blank = self.ring.commit(tail.page())?.is_blank();
            // Cursors would look for what the reader holds on a blank page between that and the tail.
            if is_blank && (has_rest || tail.seq() != self.head) {
                return Ok(false);
            }
            if is_blank {
                self.head += 1;
            }
            let wanted = self.wanted(tail.seq() + 1);
            if wanted == tail.page() || !self.bring(wanted, tail)? {
                return Ok(false);
            }
            let Some(left) = turn(self.ring, sections, cpu)? else { return Ok(false) };
            if left.is_blank {
                // There is nothing on it, and nobody is to wait for it.
                let slot = Slot::unconsumed(left.place.page(), left.place.seq());
                let consumed = Slot::consumed(left.place.page(), left.place.seq());
                // E5: a writer that claims it first makes it another position's.
                let word = self.ring.slot(left.place.seq());
                let _ = word.compare_exchange(slot.pack(), consumed.pack(), e5_drop(), Relaxed);
                reader.next_seq = reader.next_seq.max(left.place.seq() + 1);
                reader.publish(self.ring);
            }
        }
        Ok(false)
    }

    /// All positions of one lap, from the head on.
    fn positions(&self) -> impl Iterator<Item = u64> + use<> {
        self.head..self.head + u64::from(self.ring.geometry().ring_subbufs())
    }

    /// The page that belongs to a position.
    fn wanted(&self, seq: u64) -> SubbufId {
        let lap = u64::from(self.ring.geometry().ring_subbufs());
        // A remainder of less than the ring's sub-buffers, which have 16 bits.
        SubbufId(u16::try_from((seq + lap - self.head) % lap + 1).unwrap_or(u16::MAX))
    }

    fn slot(&self, seq: u64) -> (u64, Slot) {
        let word = self.ring.slot(seq).load(e5_look());
        (word, Slot::unpack(word))
    }

    fn is_right(&self, seq: u64) -> bool {
        self.slot(seq).1.page() == self.wanted(seq)
    }

    /// Puts each page where it belongs, but the one being written and what that stands in the way of. `false`: a writer came
    /// between.
    fn move_all(&mut self) -> Result<bool, Corrupt> {
        let tail = self.ring.tail()?;
        let is_fixed = |pages: &Self, seq: u64| pages.slot(seq).1.seq() >= tail.seq();
        let (mut positions, mut sought) = (self.positions(), false);
        // Each move puts a page where it belongs, but for the one that begins a cycle.
        for _ in 0..2 * u64::from(self.ring.geometry().nr_subbufs()) {
            let home = u64::from(self.hole.0).checked_sub(1).map(|at| self.head + at);
            let is_readers = |seq: &u64| self.slot(*seq).1.page() == SubbufId(0) && !is_fixed(self, *seq);
            let next = match home.filter(|&home| !is_fixed(self, home)) {
                Some(home) => Some(home),
                // What is written stands in its place: first of all the reader gets page 0.
                None => home
                    .filter(|_| !std::mem::replace(&mut sought, true))
                    .and_then(|_| self.positions().find(is_readers))
                    .or_else(|| {
                        positions.find(|&seq| {
                            !self.is_right(seq) && !is_fixed(self, seq) && self.wanted(seq) != tail.page()
                        })
                    }),
            };
            let Some(next) = next else { return Ok(true) };
            if !self.move_to_hole(next)? {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Lets the slot behind the tail name `page`. `false`: a writer came between.
    fn bring(&mut self, page: SubbufId, tail: Place) -> Result<bool, Corrupt> {
        let next = tail.seq() + 1;
        if self.slot(next).1.page() == page {
            return Ok(true);
        }
        if self.hole != page {
            let Some(seq) = self.positions().find(|&seq| self.slot(seq).1.page() == page) else {
                return Ok(false);
            };
            if !self.move_to_hole(seq)? {
                return Ok(false);
            }
        }
        self.move_to_hole(next)
    }

    /// Moves what the slot of this position names to the hole. `false`: a writer has claimed it, or writes there.
    fn move_to_hole(&mut self, seq: u64) -> Result<bool, Corrupt> {
        let (word, slot) = self.slot(seq);
        let page = self.ring.checked(slot.page())?;
        // The tail first: a page that it has left is complete.
        if slot.seq() >= self.ring.tail()?.seq() {
            return Ok(false);
        }
        if page == self.hole {
            return Err(Corrupt);
        }
        let moved = if slot.is_consumed() {
            Slot::consumed(self.hole, slot.seq())
        } else {
            Copied::of(self.ring, page)?.store(self.ring, self.hole);
            Slot::unconsumed(self.hole, slot.seq())
        };
        // A successor that finds it as the reader page finds nothing on it.
        self.ring.data().header(page).commit.store(PageCommit::new(0).pack(), Relaxed);
        // E5: as the swap's.
        if self.ring.slot(seq).compare_exchange(word, moved.pack(), e5_swap(), Relaxed).is_err() {
            return Ok(false);
        }
        self.hole = page;
        Ok(true)
    }
}

/// A page that the tail has left.
struct Left {
    place: Place,
    is_blank: bool,
}

/// Turns the tail. `None` where that would overwrite what is unread, or writers gave no chance to.
fn turn(ring: &Ring<'_>, sections: &impl Sections, cpu: u32) -> Result<Option<Left>, Corrupt> {
    for _ in 0..TURN_TRIES {
        let tail = ring.tail()?;
        let next = Slot::unpack(ring.slot(tail.seq() + 1).load(e5_look()));
        if !next.is_consumed() && next.seq() <= tail.seq() {
            return Ok(None);
        }
        let w = ring.commit(tail.page())?;
        let last = ring.desc(tail.page()).stamp[w.parity()].load(Relaxed);
        match advance::turn(ring, sections, &Expected { cpu, tail, w }, last) {
            Ok(Step::Turned(_)) => return Ok(Some(Left { place: tail, is_blank: w.is_blank() })),
            Err(Refused::Unusable) => return Err(Corrupt),
            Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::tests::kit::StopAtEnd;
    use crate::ring::{hook, recover, swap};
    use crate::rseq::portable::Exclusive;
    use crate::{Config, Host, Item, Mode, Refused};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, AtomicU64};

    /// The numbers written and read so far.
    struct Trial {
        host: Host,
        written: u64,
        expected: u64,
    }

    impl Trial {
        fn new(ring_subbufs: u32, mode: Mode) -> Self {
            let host = Host::new(&Config { ring_subbufs, mode, ..Config::default() }).expect("memory");
            Self { host, written: 0, expected: 0 }
        }

        /// On CPU 0, where the caller is pinned.
        fn write(&mut self, events: u64) {
            let writer = self.host.writer();
            for _ in 0..events {
                let mut payload = [0; 400];
                payload[..8].copy_from_slice(&self.written.to_le_bytes());
                if writer.write(&payload) != Err(Refused::Full) {
                    self.written += 1;
                }
            }
        }

        /// Reads this many events at most; each is the next one, or losses say which.
        fn read(&mut self, events: u64) {
            let mut reader = self.host.reader(0).expect("nobody else reads");
            for _ in 0..events {
                match reader.next().expect("the ring is sound") {
                    Some(Item::Lost(lost)) => self.expected += lost.count.expect("ringtap counts them"),
                    Some(Item::Record(record)) => {
                        let bytes = record.payload.to_vec();
                        let number = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
                        assert_eq!(number, self.expected);
                        self.expected += 1;
                    }
                    Some(other) => panic!("{other:?}"),
                    None => break,
                }
            }
            // The rest of the page is this reader's.
            while let Some(item) = reader.next_at_hand() {
                assert!(matches!(item, Item::Record(_)));
                self.expected += 1;
            }
        }

        fn numbers(&self) -> Vec<u16> {
            let mapping = self.host.mapping(0).expect("there is a CPU 0");
            let ring = mapping.ring();
            let tail = ring.tail().expect("sound").seq();
            let lap = u64::from(ring.geometry().ring_subbufs());
            (0..lap).map(|at| Slot::unpack(ring.slot(tail + at).load(Relaxed)).page().0).collect()
        }
    }

    #[test]
    fn with_nothing_to_read_the_next_page_is_1_whatever_was_read_before() {
        let _pin = crate::pin::Pin::to(0).expect("there is a CPU 0");
        for ring_subbufs in [2, 3, 17] {
            let mut trial = Trial::new(ring_subbufs, Mode::Overwrite);
            for round in 0..40 {
                trial.write(1 + round * 7 % 60);
                trial.read(u64::MAX);
                assert!(trial.host.renumber(0).expect("sound"), "round {round} of {ring_subbufs}");
                let ordered: Vec<_> = (1..=u16::try_from(ring_subbufs).expect("small")).collect();
                assert_eq!(trial.numbers(), ordered, "round {round} of {ring_subbufs}");
                assert!(trial.host.renumber(0).expect("sound"), "and they stay");
            }
            assert_eq!(trial.written, trial.expected);
        }
    }

    #[test]
    fn no_event_is_lost_or_seen_twice() {
        let _pin = crate::pin::Pin::to(0).expect("there is a CPU 0");
        for mode in [Mode::Overwrite, Mode::Discard] {
            for ring_subbufs in [2, 3, 5, 17] {
                let mut trial = Trial::new(ring_subbufs, mode);
                let mut numbered = 0;
                for round in 0..300u64 {
                    trial.write(round * 31 % 67);
                    if round % 3 != 0 {
                        trial.read(round * 13 % 90);
                    }
                    let before = trial.host.stats(0).expect("sound").entries;
                    numbered += u64::from(trial.host.renumber(0).expect("sound"));
                    let stats = trial.host.stats(0).expect("sound");
                    assert_eq!(stats.entries, before, "round {round} of {ring_subbufs}, {mode:?}");
                }
                trial.read(u64::MAX);
                assert_eq!(trial.written, trial.expected, "{mode:?}, {ring_subbufs}");
                assert!(numbered > 50, "{numbered} of 300");
            }
        }
    }

    #[test]
    fn writers_go_on_meanwhile() {
        let host = Host::new(&Config { ring_subbufs: 4, ..Config::default() }).expect("memory");
        let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let _pin = crate::pin::Pin::to(0).expect("there is a CPU 0");
                    let writer = host.writer();
                    while !stop.load(Relaxed) {
                        match writer.write(&[7; 100]) {
                            Ok(()) => written.fetch_add(1, Relaxed),
                            Err(Refused::Busy) => 0,
                            Err(refused) => panic!("{refused:?}"),
                        };
                    }
                });
            }
            let _stops = StopAtEnd(&stop);
            for round in 0..3000 {
                host.renumber(0).expect("sound");
                if round % 3 == 0 {
                    host.get_reader(0).expect("sound");
                }
            }
        });
        let stats = host.stats(0).expect("sound");
        assert_eq!(stats.written(), written.into_inner());
    }

    /// Each step is the last one of some host: its successor finds all events, but those unread of the reader page, which
    /// count as overwritten.
    #[test]
    fn a_host_that_dies_at_any_step_leaves_a_ring_that_is_sound() {
        let _pin = crate::pin::Pin::to(0).expect("there is a CPU 0");
        for (before, handed, between) in [(0, 0, 5), (30, 100, 0), (30, 100, 3), (25, 1, 30), (100, 2, 4)] {
            for step in 0.. {
                let mut trial = Trial::new(4, Mode::Overwrite);
                let mappings = trial.host.mappings();
                let ring = mappings[0].ring();
                let mut first = Reader::new(&ring);
                trial.write(before);
                for _ in 0..handed {
                    swap::get_reader(&ring, &mut first).expect("the ring is sound");
                }
                trial.write(between);
                let mut left = step;
                hook::set(move || {
                    assert!(left > 0, "the host dies here");
                    left -= 1;
                });
                let died =
                    catch_unwind(AssertUnwindSafe(|| renumber(&ring, &mut first, &Exclusive, 0))).is_err();
                hook::clear();
                let mut second = recover::reader(&ring).expect("the ring is sound");
                trial.write(3);
                for _ in 0..20 {
                    swap::get_reader(&ring, &mut second).expect("the ring is sound");
                }
                let unread = second.unread_on_page(&ring).expect("the ring is sound");
                assert_eq!(
                    (unread.bytes, ring.oldest_unconsumed(second.next_seq()).expect("sound")),
                    (0, None)
                );
                let (read, _) = second.read();
                let overrun = swap::overrun(&ring, &second).expect("the ring is sound");
                assert_eq!(read + overrun, trial.written, "step {step} of {before}, {handed}, {between}");
                if !died {
                    break;
                }
            }
        }
    }
}
