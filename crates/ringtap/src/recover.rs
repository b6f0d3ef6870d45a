//! Reading what a dead host's persistent buffers hold: the files of [`Config::directory`](crate::Config), after all
//! processes were killed, or the machine was reset and the memory survived.
//!
//! Nothing is mapped, and nothing is believed: a buffer's bytes may have been scribbled on, torn or cut off. The
//! meta-page must state possible sizes; each sub-buffer is checked by itself, walked from its first record to its last,
//! and against its neighbours. One that cannot be true is named with the reason, and the others are kept. The work is
//! bounded by the number of bytes.
//!
//! Sub-buffers are put in order by `first`, the index of their first event, which each use of one enlarges. So nothing
//! depends on a slot being right, and events that were handed to a reader before are still found where nobody has written
//! since.

use crate::clock::{ClockId, Conversion};
use crate::event::registry::Event;
use crate::files::{EVENTS, TASKS, whole_events};
use crate::instance::{Task, tasks};
use crate::stats::Stats;
use ringtap_abi::clock::ClockWords;
use ringtap_abi::geometry::GeometryError;
use ringtap_abi::meta::{Desc, HostWords, Identity, KernelMeta, MAGIC, MetaPage, VERSION, WriterWords};
use ringtap_abi::records::{Damage, Walk, Words};
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};
use ringtap_abi::words::{Commit, Place, Slot};
use ringtap_abi::{Geometry, SubbufId, switchboard};
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why a file yields nothing at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// It does not begin with a meta-page of ringtap's.
    #[error("it is no ringtap buffer: its magic number is missing")]
    Foreign,
    /// It is of another release.
    #[error(
        "it is of layout version {0}, this ringtap reads version {VERSION}: use the release that wrote it"
    )]
    Version(u32),
    /// Its sizes cannot be.
    #[error("its meta-page is damaged: {0}")]
    Geometry(#[from] GeometryError),
    /// It is shorter than its meta-page.
    #[error("it is cut off: {found} of {wanted} bytes are there, which is less than its meta-page")]
    Short {
        /// Bytes there are.
        found: usize,
        /// Bytes of its meta-page.
        wanted: usize,
    },
}

/// What is wrong with a sub-buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The file ends before it.
    #[error("the file ends before it")]
    CutOff,
    /// It states more bytes than it has, or no multiple of 4.
    #[error("it states {0} committed bytes, which cannot be")]
    Commit(u32),
    /// A record's length cannot be.
    #[error("{0}")]
    Record(Damage),
    /// It holds another number of events than it states.
    #[error("it states {stated} events and holds {found}")]
    Entries {
        /// The number it states.
        stated: u32,
        /// The number there are.
        found: u32,
    },
    /// Its last event has another time than it states.
    #[error("its last event is of another time than it states")]
    Time,
    /// It overlaps the sub-buffer before it, in numbers or in time.
    #[error("its events do not follow those of the sub-buffer before it")]
    Order,
}

/// A sub-buffer that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedPage {
    /// The sub-buffer.
    pub id: u16,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: Reason,
}

/// A sub-buffer that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredPage {
    /// Its bytes, as `trace_pipe_raw` would hand them out.
    pub bytes: Vec<u8>,
    /// The time of its first event, in ticks.
    pub ticks: u64,
    /// Events that are missing before it. Its bytes tell them, too, but how many only where they leave room for that.
    pub lost: u64,
}

/// What a recovered buffer yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// An event.
    Record {
        /// Its time, in ticks of the buffer's clock.
        ticks: u64,
        /// What was written.
        payload: &'a [u8],
    },
    /// This many events stood here: overwritten, or on a damaged sub-buffer.
    Lost(u64),
}

#[derive(Clone, Copy, Debug)]
struct Page {
    id: SubbufId,
    first: u64,
    entries: u32,
    /// Committed data bytes.
    len: u32,
    time: u64,
    last: u64,
}

/// A dead host's buffer, checked.
#[derive(Clone, Debug)]
pub struct Recovered<'a> {
    bytes: &'a [u8],
    geometry: Geometry,
    cpu: u32,
    clock: Option<ClockId>,
    conversion: Conversion,
    /// In order.
    pages: Vec<Page>,
    damaged: Vec<DamagedPage>,
    /// Index of the first event that was not handed to a consuming reader.
    unread: u64,
    written: u64,
    /// Events that were handed to a consuming reader.
    read: u64,
    /// Events that were refused.
    dropped: u64,
}

/// Words of a file.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u32(&self, at: usize) -> u32 {
        self.0.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_le_bytes(*word))
    }

    fn u64(&self, at: usize) -> u64 {
        self.0.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word))
    }
}

impl Words for Bytes<'_> {
    fn word(&self, offset: u32) -> u32 {
        self.u32(offset as usize)
    }
}

impl<'a> Recovered<'a> {
    /// Checks a buffer's bytes.
    ///
    /// # Errors
    /// [`RecoverError`] where there is nothing to be had. Damage behind the meta-page is in
    /// [`damaged`](Self::damaged).
    pub fn new(bytes: &'a [u8]) -> Result<Self, RecoverError> {
        let words = Bytes(bytes);
        let identity = offset_of!(MetaPage, identity);
        if words.u64(identity + offset_of!(Identity, magic)) != MAGIC {
            return Err(RecoverError::Foreign);
        }
        let version = words.u32(identity + offset_of!(Identity, version));
        if version != VERSION {
            return Err(RecoverError::Version(version));
        }
        let subbufs = words.u32(offset_of!(KernelMeta, nr_subbufs));
        let geometry =
            Geometry::new(words.u32(offset_of!(KernelMeta, subbuf_size)), subbufs.wrapping_sub(1))?;
        if bytes.len() < geometry.meta_page_size() {
            return Err(RecoverError::Short { found: bytes.len(), wanted: geometry.meta_page_size() });
        }
        let host = offset_of!(MetaPage, host);
        let mut recovered = Self {
            bytes,
            geometry,
            cpu: words.u32(identity + offset_of!(Identity, cpu)),
            clock: ClockId::from_number(words.u32(offset_of!(MetaPage, clock))),
            conversion: conversion(&words),
            pages: Vec::new(),
            damaged: Vec::new(),
            unread: words.u64(host + offset_of!(HostWords, next_index)),
            written: 0,
            read: words.u64(host + offset_of!(HostWords, read)),
            dropped: words.u64(offset_of!(MetaPage, writer) + offset_of!(WriterWords, dropped)),
        };
        recovered.find_pages();
        Ok(recovered)
    }

    fn find_pages(&mut self) {
        let words = Bytes(self.bytes);
        let tail = offset_of!(MetaPage, writer) + offset_of!(WriterWords, tail);
        let tail = Place::unpack(words.u64(tail));
        let next = tail.seq().wrapping_add(1);
        let slot = next % u64::from(self.geometry.ring_subbufs());
        let slot = self.geometry.slots_offset() + usize::try_from(slot).unwrap_or(0) * size_of::<u64>();
        let claimed = Slot::unpack(words.u64(slot));
        // A writer was about to use it anew: its desc may be half changed, and its events are overwritten by right.
        let claimed = (claimed.seq() == next).then(|| claimed.page());
        let geometry = self.geometry;
        for id in (0..=u16::MAX).map(SubbufId).take_while(|&id| geometry.contains(id)) {
            if Some(id) == claimed {
                continue;
            }
            match self.check(id) {
                Ok(None) => {}
                Ok(Some(page)) => self.pages.push(page),
                Err(reason) => self.damage(id, reason),
            }
        }
        self.pages.sort_by_key(|page| page.first);
        let (mut end, mut last) = (0, 0);
        for page in std::mem::take(&mut self.pages) {
            if page.first < end || page.time < last {
                self.damage(page.id, Reason::Order);
                continue;
            }
            end = page.first.saturating_add(page.entries.into());
            last = page.last;
            self.pages.push(page);
        }
        self.damaged.sort_by_key(|page| page.id);
        let desc = self.geometry.contains(tail.page()).then(|| self.desc(tail.page()));
        let stated = desc.map_or(0, |(w, _, first)| first.saturating_add(w.entries().into()));
        // What a damaged tail states is believed where it is possible: then its events count as lost.
        let most = end.saturating_add(u64::from(self.geometry.capacity() / 8));
        self.written = if (end..=most).contains(&stated) { stated } else { end };
        if self.unread > self.written {
            self.unread = 0;
        }
    }

    fn damage(&mut self, id: SubbufId, reason: Reason) {
        let offset = self.geometry.subbuf_offset(id) as u64;
        self.damaged.push(DamagedPage { id: id.0, offset, reason });
    }

    fn desc(&self, id: SubbufId) -> (Commit, u64, u64) {
        let (words, at) =
            (Bytes(self.bytes), self.geometry.descs_offset() + usize::from(id.0) * size_of::<Desc>());
        let w = Commit::unpack(words.u64(at + offset_of!(Desc, w)));
        let stamp = words.u64(at + offset_of!(Desc, stamp) + w.parity() * size_of::<u64>());
        (w, stamp, words.u64(at + offset_of!(Desc, first)))
    }

    /// The committed data of a sub-buffer.
    fn data(&self, id: SubbufId, len: u32) -> Option<&'a [u8]> {
        let at = self.geometry.subbuf_offset(id) + HEADER_LEN as usize;
        self.bytes.get(at..at + len as usize)
    }

    /// A sub-buffer that holds events, if it can be believed.
    fn check(&self, id: SubbufId) -> Result<Option<Page>, Reason> {
        let (w, last, first) = self.desc(id);
        let (len, entries) = (w.offset(), w.entries());
        if len == 0 && entries == 0 {
            return Ok(None);
        }
        if len > self.geometry.capacity() || !len.is_multiple_of(4) {
            return Err(Reason::Commit(len));
        }
        let data = self.data(id, len).ok_or(Reason::CutOff)?;
        let time = Bytes(self.bytes).u64(self.geometry.subbuf_offset(id));
        let mut walk = Walk::new(time, len);
        let mut found = 0;
        while walk.next(&Bytes(data)).map_err(Reason::Record)?.is_some() {
            found += 1;
        }
        if found != entries {
            return Err(Reason::Entries { stated: entries, found });
        }
        if walk.time() != last || last < time {
            return Err(Reason::Time);
        }
        Ok(Some(Page { id, first, entries, len, time, last }))
    }

    /// The buffer's CPU.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// The clock that stamped its events; `None` where this release does not know it.
    #[must_use]
    pub fn clock(&self) -> Option<ClockId> {
        self.clock
    }

    /// How its ticks become nanoseconds of its boot's `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn conversion(&self) -> Conversion {
        self.conversion
    }

    /// Sub-buffers that were kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.pages.len()
    }

    /// Sub-buffers that were not.
    #[must_use]
    pub fn damaged(&self) -> &[DamagedPage] {
        &self.damaged
    }

    /// The counters as they would be had a consuming reader been given all that was kept.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let unread = self.pages.iter().map(|page| {
            let end = page.first.saturating_add(page.entries.into());
            end.saturating_sub(page.first.max(self.unread))
        });
        let read = self.read.saturating_add(unread.sum());
        let overrun = self.written.saturating_sub(read);
        Stats { read_events: read, overrun, dropped_events: self.dropped, ..Stats::default() }
    }

    /// Hands out the sub-buffers that were kept and end behind event number `from`. Of one that begins before `from` the
    /// rest is. What is missing before and between them is told with the page behind it. Returns the number of events.
    pub fn pages(&self, from: u64, mut each: impl FnMut(RecoveredPage)) -> u64 {
        let (mut expected, mut events) = (if from > self.written { 0 } else { from }, 0u64);
        for page in self.pages.iter().filter(|page| page.entries > 0) {
            let end = page.first.saturating_add(page.entries.into());
            let Some(data) = self.data(page.id, page.len).filter(|_| end > expected) else { continue };
            let (page, data) = behind(*page, data, expected);
            let lost = page.first.saturating_sub(expected);
            expected = end;
            events = events.saturating_add(page.entries.into());
            each(RecoveredPage { bytes: self.whole(&page, data, lost), ticks: page.time, lost });
        }
        events
    }

    /// A sub-buffer with its header, and behind its data the number of events lost before it.
    fn whole(&self, page: &Page, data: &[u8], lost: u64) -> Vec<u8> {
        let mut commit = PageCommit::new(page.len);
        let has_room = self.geometry.capacity() - page.len >= 8;
        if lost > 0 {
            commit = commit.with_missed(has_room);
        }
        let mut bytes = Vec::with_capacity(self.geometry.subbuf_size() as usize);
        bytes.extend_from_slice(&page.time.to_le_bytes());
        bytes.extend_from_slice(&commit.pack().to_le_bytes());
        bytes.extend_from_slice(data);
        if lost > 0 && has_room {
            bytes.extend_from_slice(&lost.to_le_bytes());
        }
        bytes.resize(self.geometry.subbuf_size() as usize, 0);
        bytes
    }

    /// Hands out the events that no consuming reader was given; or with `all`, those that are still there, too. What is
    /// missing before, between and behind them is told.
    pub fn steps(&self, all: bool, mut each: impl FnMut(Step<'a>)) {
        let from = if all { self.pages.first().map_or(self.unread, |page| page.first) } else { self.unread };
        let mut expected = from;
        for page in &self.pages {
            let end = page.first.saturating_add(page.entries.into());
            if end <= from {
                continue;
            }
            if page.first > expected {
                each(Step::Lost(page.first - expected));
            }
            expected = end;
            let Some(data) = self.data(page.id, page.len) else { continue };
            let (mut walk, mut index) = (Walk::new(page.time, page.len), page.first);
            while let Ok(Some(record)) = walk.next(&Bytes(data)) {
                if index >= from {
                    let payload = &data[record.offset as usize..(record.offset + record.len) as usize];
                    each(Step::Record { ticks: record.time, payload });
                }
                index = index.saturating_add(1);
            }
        }
        if self.written > expected {
            each(Step::Lost(self.written - expected));
        }
    }
}

/// What of a sub-buffer is not before the event number `from`.
fn behind(page: Page, data: &[u8], from: u64) -> (Page, &[u8]) {
    let (mut walk, mut rest) = (Walk::new(page.time, page.len), page);
    while rest.first < from && matches!(walk.next(&Bytes(data)), Ok(Some(_))) {
        rest.first = rest.first.saturating_add(1);
        rest.entries = rest.entries.saturating_sub(1);
    }
    // The next event tells the time since the one before it.
    (rest.time, rest.len) = (walk.time(), page.len.saturating_sub(walk.offset()));
    (rest, data.get(walk.offset() as usize..).unwrap_or_default())
}

/// The conversion in a meta-page: the clock's words lie as `ClockWords` says, version behind id.
fn conversion(words: &Bytes<'_>) -> Conversion {
    let at = offset_of!(MetaPage, clock) + size_of::<u64>();
    const _: () = assert!(size_of::<ClockWords>() == 32);
    Conversion { ticks0: words.u64(at), ns0: words.u64(at + 8), mult: words.u64(at + 16) }
}

/// What recovering promises on any bytes: it ends, and tells no more events than there is room for. Fuzzers and tests
/// call it.
pub fn check_recover(bytes: &[u8]) {
    let Ok(recovered) = Recovered::new(bytes) else { return };
    assert!(recovered.kept() + recovered.damaged().len() <= 1 << 16);
    for all in [false, true] {
        let mut taken = 0;
        recovered.steps(all, |step| {
            if let Step::Record { payload, .. } = step {
                taken += 4 + payload.len();
            }
        });
        assert!(taken <= bytes.len(), "records overlap");
    }
    let mut pages = 0;
    recovered.pages(recovered.unread, |page| {
        assert_eq!(page.bytes.len(), recovered.geometry.subbuf_size() as usize);
        pages += 1;
    });
    assert!(pages <= recovered.kept());
}

/// A dead host's files, by CPU.
#[derive(Debug)]
pub struct Found {
    /// The buffers' files.
    pub buffers: Vec<PathBuf>,
    /// The events that were declared, as far as their file is whole.
    pub events: Vec<Event>,
    /// The threads that wrote events, by their ids: as lossy as the kernel's `saved_cmdlines`.
    pub tasks: Vec<Task>,
}

/// Looks at a directory of persistent buffers, or at one of its files.
///
/// # Errors
/// It cannot be read, or there is no buffer in it.
pub fn find(path: &Path) -> io::Result<Found> {
    let is_folder = fs::metadata(path)?.is_dir();
    let folder = if is_folder { path } else { path.parent().unwrap_or(Path::new("")) };
    let mut buffers = Vec::new();
    if is_folder {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
            buffers.extend(number.map(|number: u32| (number, entry.path())));
        }
        buffers.sort_unstable();
        if buffers.is_empty() {
            let reason = "there is no persistent buffer in it: its files are cpu0, cpu1, ...";
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
    } else {
        buffers.push((0, path.to_owned()));
    }
    let events = fs::read(folder.join(EVENTS)).unwrap_or_default();
    let tasks = parse_tasks(&fs::read(folder.join(TASKS)).unwrap_or_default());
    let buffers = buffers.into_iter().map(|(_, path)| path).collect();
    Ok(Found { buffers, events: whole_events(&String::from_utf8_lossy(&events)).0, tasks })
}

/// The tasks of a switchboard's bytes, which lie as [`switchboard::Task`] says.
fn parse_tasks(bytes: &[u8]) -> Vec<Task> {
    let task = |place: &[u8; size_of::<switchboard::Task>()]| {
        let ids = Bytes(place).u64(offset_of!(switchboard::Task, ids));
        let comm = *place.get(offset_of!(switchboard::Task, comm)..)?.first_chunk()?;
        #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
        let (tid, tgid) = (ids as u32, (ids >> 32) as u32);
        (tid != 0).then(|| tasks::named(switchboard::TaskName { tid, tgid, comm }))
    };
    let places = bytes.get(..switchboard::TASKS_LEN.min(bytes.len())).unwrap_or_default();
    let mut tasks: Vec<_> = places.as_chunks().0.iter().filter_map(task).collect();
    tasks.sort_by_key(|task| task.tid);
    tasks.dedup_by_key(|task| task.tid);
    tasks
}
