//! Resizing while writers and readers go on: new memory takes the old one's place, one CPU after the other.
//!
//! ```text
//!   1. make      new, empty buffers; nothing has changed where this fails
//!   2. tell      this process's writers, and by `announce` those of others, what follows
//!   3. retire    the old ring: nothing is written to it any more (ring/retire.rs)
//!   4. drain     readers and cursors read the old buffer to its end, and go on in the new one
//! ```
//!
//! A writer uses what it was told of once it finds the old ring retired, so each event is in one of the two, and the
//! order of a CPU's events holds across both. A process that was not told by then has its events refused, counted as
//! dropped. `origin` in the new meta-page says how many events were written before, so whoever follows knows exactly what
//! it missed, even across several resizes.

use crate::clock::ClockId;
use crate::host::{Buffer, Host, HostError};
use crate::map::{MapError, Mapping};
use crate::pin::Pin;
use crate::ring::{Corrupt, Ring, retire};
use crate::rseq::lock;
use crate::wake;
use ringtap_abi::Geometry;
use ringtap_abi::geometry::{MIN_RING_SUBBUFS, MIN_SUBBUF_SIZE};
use ringtap_abi::meta::{Rank, WriterKind, state};
use ringtap_abi::switchboard::CpuWords;
use rustix::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// How often the lock is asked for: each time its owner is waited for a while.
const LOCK_TRIES: u32 = 100;

/// A buffer that is about to take the place of a CPU's present one.
#[derive(Clone, Copy, Debug)]
pub struct Replacement<'a> {
    /// The CPU.
    pub cpu: u32,
    /// The memory, to be mapped for writing.
    pub descriptor: BorrowedFd<'a>,
}

impl Host {
    /// Gives a CPU's ring, or with `None` all of them, this many sub-buffers, the reader page not counted. Events and
    /// counters stay: readers and cursors come to the new memory behind the old one's end.
    ///
    /// # Errors
    /// [`HostError`]: with [`Host::set_strict`], [`HostError::Claimed`] while a reader has the buffer.
    pub fn set_size(&self, cpu: Option<u32>, ring_subbufs: u32) -> Result<(), HostError> {
        self.set_size_with(cpu, ring_subbufs, |_| ())
    }

    /// As [`set_size`](Self::set_size), and tells of the new memory before the old one is retired: where `announce`
    /// passes it on to other processes' writers ([`Writer::add_buffer`](crate::Writer::add_buffer)) and returns once they
    /// have it, no event of theirs is refused.
    ///
    /// # Errors
    /// As there.
    pub fn set_size_with(
        &self,
        cpu: Option<u32>,
        ring_subbufs: u32,
        announce: impl FnOnce(&[Replacement<'_>]),
    ) -> Result<(), HostError> {
        self.resize(cpu, |old| Geometry::new(old.subbuf_size(), ring_subbufs).ok(), announce)
            .map_err(|error| or_geometry(error, MIN_SUBBUF_SIZE, ring_subbufs))
    }

    /// Gives all buffers sub-buffers of another size, in bytes, so many that the rings keep about their size.
    ///
    /// # Errors
    /// As [`set_size`](Self::set_size).
    pub fn set_subbuf_size(&self, subbuf_size: u32) -> Result<(), HostError> {
        self.set_subbuf_size_with(subbuf_size, |_| ())
    }

    /// As [`set_subbuf_size`](Self::set_subbuf_size), and tells of the new memory as
    /// [`set_size_with`](Self::set_size_with) does.
    ///
    /// # Errors
    /// As [`set_size`](Self::set_size).
    pub fn set_subbuf_size_with(
        &self,
        subbuf_size: u32,
        announce: impl FnOnce(&[Replacement<'_>]),
    ) -> Result<(), HostError> {
        let fitted = |old: Geometry| {
            let bytes = u64::from(old.ring_subbufs()) * u64::from(old.subbuf_size());
            let subbufs = bytes.div_ceil(u64::from(subbuf_size.max(1))).max(MIN_RING_SUBBUFS.into());
            Geometry::new(subbuf_size, u32::try_from(subbufs).unwrap_or(u32::MAX)).ok()
        };
        self.resize(None, fitted, announce).map_err(|error| or_geometry(error, subbuf_size, MIN_RING_SUBBUFS))
    }

    /// As the kernel: refuses to resize a buffer while a reader consumes it. Off where nothing is said.
    pub fn set_strict(&self, strict: bool) {
        self.strict().store(strict, Relaxed);
    }

    /// Ends writing to the buffers for good.
    pub(crate) fn end(&self) -> Result<(), HostError> {
        let _turn = self.resizing();
        self.buffers().iter().try_for_each(|buffer| buffer.retire())
    }

    /// Whether nothing is written to the buffers any more.
    pub(crate) fn check_ended(&self) -> Result<(), HostError> {
        self.buffers()
            .iter()
            .find(|buffer| !buffer.is_retired())
            .map_or(Ok(()), |buffer| Err(HostError::Busy(buffer.cpu())))
    }

    /// Resizes the buffers of one CPU or of all: `size` says what becomes of a size, `None` that it cannot be. Where it
    /// fails nothing has changed, but where [`HostError::Busy`] names a CPU: those before it were resized.
    fn resize(
        &self,
        cpu: Option<u32>,
        size: impl Fn(Geometry) -> Option<Geometry>,
        announce: impl FnOnce(&[Replacement<'_>]),
    ) -> Result<(), HostError> {
        let _turn = self.resizing();
        if let Some(cpu) = cpu {
            self.lane(cpu)?;
        }
        let olds = self.buffers().into_iter().filter(|buffer| cpu.is_none_or(|cpu| cpu == buffer.cpu()));
        let mut pairs = Vec::new();
        for old in olds {
            self.check_resizable(&old)?;
            let now = old.mapping().geometry();
            let geometry = size(now).ok_or(MapError::Foreign(IMPOSSIBLE))?;
            if geometry != now {
                pairs.push((Arc::new(old.following(geometry, self.new_ordinal(&old))?), old));
            }
        }
        let (lanes, writers) = self.lanes();
        for (new, _) in &pairs {
            lanes[new.cpu() as usize].chain().set_pending(Arc::clone(new));
            writers[new.cpu() as usize].add(Arc::clone(new.mapping()));
        }
        let news = pairs.iter().map(|(new, _)| Replacement { cpu: new.cpu(), descriptor: new.descriptor() });
        announce(&news.collect::<Vec<_>>());
        let mut done = Ok(());
        for (new, old) in pairs {
            let lane = &lanes[new.cpu() as usize];
            let mut chain = lane.chain();
            if done.is_ok() {
                done = old.hand_over_to(&new);
            }
            if done.is_err() && !old.is_retired() {
                // Nobody writes there, and whoever was told of it goes on to what follows it. So where its writers' CPU
                // cannot be reached, it is marked from another: no section is under way in it.
                chain.forget_pending();
                let _ = new.retire().or_else(|_| mark(new.mapping(), None).map(|_| ()));
                continue;
            }
            self.set_newest(&new);
            let has_consumer = lane.consumer.load(Relaxed) != 0;
            // Also where it fails behind the mark: the writers are in the new one.
            done = done.and(chain.replace(new, has_consumer).map_err(|Corrupt| old.damaged()));
            drop(chain);
            // Sleepers find out that it is over.
            wake::send_away(&old.mapping().ring());
        }
        done
    }

    /// Whether a buffer can be resized now.
    fn check_resizable(&self, buffer: &Buffer) -> Result<(), HostError> {
        let cpu = buffer.cpu();
        let pid = self.lane(cpu)?.consumer.load(Relaxed);
        if self.strict().load(Relaxed) && pid != 0 {
            return Err(HostError::Claimed { cpu, pid });
        }
        if self.is_persistent() {
            return Err(HostError::Persistent);
        }
        if self.clock() == ClockId::Counter {
            // Processes that come later would count in another place.
            return Err(HostError::Counter);
        }
        if buffer.kind() == WriterKind::Rseq && is_online(cpu) && Pin::to(cpu).is_none() {
            return Err(HostError::Unreachable(cpu));
        }
        Ok(())
    }
}

const IMPOSSIBLE: &str = "no buffer has such sizes";

/// What is wrong with these sizes, where that is what went wrong.
fn or_geometry(error: HostError, subbuf_size: u32, ring_subbufs: u32) -> HostError {
    match (error, Geometry::new(subbuf_size, ring_subbufs)) {
        (HostError::Map(MapError::Foreign(IMPOSSIBLE)), Err(geometry)) => MapError::from(geometry).into(),
        (error, _) => error,
    }
}

/// Whether threads can run on a CPU. Where that is not known, they can.
fn is_online(cpu: u32) -> bool {
    std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/online")).map_or_else(
        // The first CPU often has no such file; one that does not exist has no directory.
        |_| std::fs::exists(format!("/sys/devices/system/cpu/cpu{cpu}")).unwrap_or(true),
        |text| text.trim_ascii() != "0",
    )
}

impl Buffer {
    fn kind(&self) -> WriterKind {
        kind(&self.mapping().ring())
    }

    fn is_retired(&self) -> bool {
        retire::is_retired(&self.mapping().ring()) == Ok(true)
    }

    /// Ends writing here, and lets `new` begin where this buffer ends.
    fn hand_over_to(&self, new: &Self) -> Result<(), HostError> {
        // Nobody resets the ring meanwhile.
        let _reader = self.reader();
        let (old, ring) = (self.mapping().ring(), new.mapping().ring());
        let (from, to) = (&old.meta().switches.state, &ring.meta().switches.state);
        // Before the old ring is retired: from then on the new one is written.
        let before = from.load(SeqCst);
        to.store(before, SeqCst);
        self.retire()?;
        // A trigger may have switched it meanwhile: it does so in the new one first and last, but may have known the
        // old one alone.
        let after = from.load(SeqCst);
        if (before ^ after) & state::OFF != 0 {
            let _ = match after & state::OFF {
                0 => to.fetch_and(!state::OFF, SeqCst),
                off => to.fetch_or(off, SeqCst),
            };
        }
        self.precede(new)?;
        if let Some(conversion) = old.meta().clock.load() {
            ring.meta().clock.store(conversion);
        }
        Ok(())
    }

    /// Tells a buffer how many events were written before it, once this one is retired.
    pub(crate) fn precede(&self, next: &Self) -> Result<(), HostError> {
        let old = self.mapping().ring();
        let written = old.written().map_err(|Corrupt| self.damaged())?;
        let origin = old.meta().host.origin.load(Relaxed).wrapping_add(written);
        next.mapping().ring().meta().host.origin.store(origin, Relaxed);
        Ok(())
    }

    /// An empty buffer of these sizes that is to follow this one, switched off.
    pub(crate) fn following(&self, geometry: Geometry, ordinal: u32) -> Result<Self, HostError> {
        let new = self.empty(geometry)?;
        new.set_rank(Rank { ordinal, ..self.rank() });
        Ok(new)
    }

    /// Retires the ring: as one of its writers, on their CPU where they run sections.
    pub(crate) fn retire(&self) -> Result<(), HostError> {
        self::retire(self.mapping())
    }
}

/// Ends writing to a buffer.
pub(crate) fn retire(mapping: &Mapping) -> Result<(), HostError> {
    let ring = mapping.ring();
    let (cpu, kind) = (ring.meta().identity.cpu.load(Relaxed), kind(&ring));
    let mut is_marked = false;
    for _ in 0..LOCK_TRIES {
        let pin = (kind == WriterKind::Rseq).then(|| Pin::to(cpu));
        let pinned = match pin {
            Some(Some(_)) => Some(cpu),
            // It came online just now, and is not for us.
            Some(None) if is_marked => return Ok(()),
            // On a CPU that is offline no section is under way.
            Some(None) if is_online(cpu) => return Err(HostError::Unreachable(cpu)),
            _ => None,
        };
        if !mark(mapping, pinned)? {
            continue;
        }
        is_marked = true;
        // A CPU that came online since we looked may run a section that began before the mark: then once more, there.
        if kind != WriterKind::Rseq || pinned.is_some() || !is_online(cpu) {
            return Ok(());
        }
    }
    Err(HostError::Busy(cpu))
}

/// Marks a buffer's tail once, under its lock. `false`: the lock was not to be had, or the caller was moved off the CPU that it
/// is `pinned` to.
fn mark(mapping: &Mapping, pinned: Option<u32>) -> Result<bool, HostError> {
    let ring = mapping.ring();
    let Some(_held) = lock::acquire(&ring.meta().writer.lock) else { return Ok(false) };
    let damaged = |Corrupt| HostError::Damaged(ring.meta().identity.cpu.load(Relaxed));
    retire::retire(&ring, pinned).map_err(damaged)
}

/// Ends writing to a buffer that no host has any more: its writers go on to the one that is written, or to one behind it. What is
/// lost with it is counted once, whoever comes first.
pub(crate) fn give_up(mapping: &Mapping, words: &CpuWords) {
    let ring = mapping.ring();
    let meta = ring.meta();
    // Relaxed: as in `Buffer::set_next`; whoever else comes stores the same, or what is newer.
    meta.chain.next.store(words.newest.load(Relaxed), Relaxed);
    // Where it cannot be ended, its writers go on there. What is damaged is not written either.
    let (Ok(()), Ok(written)) = (retire(mapping), ring.written()) else { return };
    if meta.chain.is_given_up.swap(1, Relaxed) == 0 {
        let (host, writer) = (&meta.host, &meta.writer);
        let unread =
            written.wrapping_sub(host.base_index.load(Relaxed)).saturating_sub(host.read.load(Relaxed));
        let refused = writer.dropped.load(Relaxed).wrapping_add(writer.refused.load(Relaxed));
        words.unheard.fetch_add(unread.wrapping_add(refused), Relaxed);
    }
}

fn kind(ring: &Ring<'_>) -> WriterKind {
    let kind = ring.meta().identity.writer_kind.load(Relaxed);
    WriterKind::from_number(kind).unwrap_or(WriterKind::Locked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{self, Access};
    use crate::{Config, Mode, Refused, Writer};
    use std::sync::atomic::{AtomicBool, AtomicU64};

    /// A writer that has mapped the buffers for itself, as one of another process has.
    fn stranger(host: &Host) -> Writer {
        let map = |cpu| map::open(host.read_write(cpu, 0).expect("there"), Access::Write).expect("it maps");
        Writer::new(host.cpus().into_iter().map(|cpu| Arc::new(map(cpu))).collect(), None, None)
    }

    #[test]
    fn writers_that_were_told_ahead_lose_nothing() {
        for mode in [Mode::Overwrite, Mode::Discard] {
            let host = Host::new(&Config { ring_subbufs: 4, mode, ..Config::default() }).expect("memory");
            let strangers = [stranger(&host), stranger(&host)];
            let (stop, written, full) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
            std::thread::scope(|scope| {
                for writer in &strangers {
                    scope.spawn(|| {
                        let clone = writer.clone();
                        while !stop.load(Relaxed) {
                            match clone.write_array(&[7; 24]) {
                                Ok(()) => written.fetch_add(1, Relaxed),
                                Err(Refused::Full) => full.fetch_add(1, Relaxed),
                                Err(Refused::Busy) => 0,
                                Err(other) => panic!("{other}"),
                            };
                        }
                    });
                }
                for round in 0..100 {
                    let tell = |news: &[Replacement<'_>]| {
                        for (writer, new) in
                            strangers.iter().flat_map(|writer| news.iter().map(move |new| (writer, new)))
                        {
                            writer.add_buffer(new.cpu, new.descriptor).expect("it maps");
                        }
                    };
                    if host.set_size_with(None, 2 + round % 5, tell).is_err() {
                        stop.store(true, Relaxed);
                        panic!("it cannot be resized");
                    }
                }
                stop.store(true, Relaxed);
            });
            let stats = host.cpus().into_iter().map(|cpu| host.stats(cpu).expect("it counts"));
            let (in_rings, dropped) =
                stats.fold((0, 0), |(a, b), stats| (a + stats.written(), b + stats.dropped_events));
            assert_eq!((in_rings, dropped), (written.into_inner(), full.into_inner()), "{mode:?}");
        }
    }

    #[test]
    fn a_trigger_in_one_process_stops_and_starts_those_that_attached_before_a_resize() {
        let host = Host::new(&Config { ring_subbufs: 4, ..Config::default() }).expect("memory");
        let earlier = stranger(&host);
        host.set_size_with(None, 8, |news: &[Replacement<'_>]| {
            news.iter().for_each(|new| earlier.add_buffer(new.cpu, new.descriptor).expect("it maps"));
        })
        .expect("it can be resized");
        let later = Writer::new(
            host.buffers().iter().map(|buffer| Arc::clone(buffer.mapping())).collect::<Vec<_>>(),
            None,
            None,
        );
        let stops = |writer: &Writer| {
            // What is on its page already goes on to the page's end, and no further.
            let mut rounds = (0..1000).map(|_| writer.write_array(&[7; 24]));
            assert!(rounds.any(|written| written == Err(Refused::Off)), "it does not stop");
            assert_eq!(writer.write_array(&[7; 24]), Err(Refused::Off), "it stays off");
        };
        assert_eq!(earlier.write_array(&[7; 24]), Ok(()));
        later.set_recording(false);
        assert!(!host.is_recording());
        stops(&earlier);
        later.set_recording(true);
        assert_eq!(earlier.write_array(&[7; 24]), Ok(()));
        host.set_recording(false);
        stops(&earlier);
        stops(&later);
        later.set_recording(true);
        for writer in [&earlier, &later] {
            assert!(!writer.is_off());
            assert_eq!(writer.write_array(&[7; 24]), Ok(()));
        }
        assert!(host.is_recording());
    }

    #[test]
    fn a_locked_writer_finds_its_way_through_any_number_of_resizes() {
        let config = Config { ring_subbufs: 4, writer: Some(WriterKind::Locked), ..Config::default() };
        let host = Host::new(&config).expect("memory");
        let writer = host.writer();
        for round in 0..70 {
            host.set_size(None, 2 + round % 5).expect("it can be resized");
        }
        assert_eq!(writer.write_array(&[7; 24]), Ok(()));
    }
}
