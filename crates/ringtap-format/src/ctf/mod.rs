//! The Common Trace Format, versions 1.8 and 2, as babeltrace2, Trace Compass and lttng-analyses read it.
//!
//! A trace is a folder: `metadata` describes every event that occurs, and one data stream file for each CPU of
//! each group holds the packets. The same packets serve both versions; only the metadata differ.
//!
//! ```text
//! packet:  header  magic, uuid, stream class       one stream class for each group
//!          context times, sizes, sequence number, events discarded so far, CPU
//!          events  header  id, time
//!                  context tid, procname, common_flags, common_preempt_count
//!                  payload the event's own fields, packed, in the byte order of the machine that wrote them
//! ```
//! What the format files name becomes a member with a leading underscore, which readers cut off: so no name is a
//! word of the metadata's language. Metadata are only ever appended to, and each packet stands for itself: what a
//! killed writer leaves behind is a trace.

mod class;
mod metadata;
mod packet;

use crate::text::{Common, Entry, Sources};
use class::Class;
use metadata::Language;
use packet::Stream;
use std::collections::{BTreeMap, HashMap};

/// Which version of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 1.8, which everything reads.
    #[default]
    V1,
    /// 2, which babeltrace2 reads from version 2.1 on.
    V2,
}

/// What a trace says of itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which version of the format.
    pub version: Version,
    /// The trace's own number, which ties its packets to its metadata.
    pub uuid: [u8; 16],
    /// Pairs of name and value, such as the host's name. A name is made of letters, digits and underscores.
    pub environment: Vec<(String, String)>,
}

/// The number of the class for records that no format describes, or that are too short for theirs.
const UNDECODED: u32 = 0x1_0000;
/// Bytes of events after which a packet ends.
const PACKET_LEN: usize = 1 << 16;

/// Makes a trace of the records it is given. [`drain`](Self::drain) hands out what is to be appended to which file.
#[derive(Debug)]
pub struct Writer {
    options: Options,
    metadata: Vec<u8>,
    groups: BTreeMap<u32, HashMap<u32, Option<Class>>>,
    streams: BTreeMap<(u32, u32), Stream>,
    /// Bytes of packets that are ready.
    ready: usize,
    reordered: u64,
}

impl Writer {
    /// A trace without events.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut metadata = Vec::new();
        Language::of(&options).trace(&options, &mut metadata);
        Self { options, metadata, groups: BTreeMap::new(), streams: BTreeMap::new(), ready: 0, reordered: 0 }
    }

    /// Adds a record of a group: of one machine's or application's set of formats, by the caller's numbering.
    ///
    /// A CPU's records are expected in the order of their time. One that is older than the one before is given
    /// that one's time, since the format has no other way, and is counted by [`reordered`](Self::reordered).
    pub fn entry(&mut self, group: u32, entry: &Entry<'_>, sources: &Sources<'_>) {
        let target = sources.formats.target();
        let common = Common::of(entry.record, target);
        let language = Language::of(&self.options);
        let classes = match self.groups.entry(group) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                language.stream_class(group, &mut self.metadata);
                new.insert(HashMap::new())
            }
        };
        let stream = self.streams.entry((group, entry.cpu)).or_insert_with(|| Stream::new(group, entry.cpu));
        if entry.time < stream.last() {
            self.reordered = self.reordered.saturating_add(1);
        }
        let mut id = u32::from(common.id);
        let class = classes.entry(id).or_insert_with(|| {
            let class = sources.formats.by_id(common.id).map(Class::new);
            class.inspect(|class| language.event_class(group, class, &mut self.metadata))
        });
        let is_utf8 = self.options.version == Version::V2;
        let procname = sources.tasks.name(common.pid);
        let start = stream.begin(id, entry.time, common, procname, is_utf8);
        let written = class.as_ref().and_then(|class| class.encode(entry.record, is_utf8, stream.content()));
        if written.is_none() {
            stream.undo(start);
            id = UNDECODED;
            let class = classes.entry(id).or_insert_with(|| {
                let class = Class::undecoded();
                language.event_class(group, &class, &mut self.metadata);
                Some(class)
            });
            stream.begin(id, entry.time, common, procname, is_utf8);
            if let Some(class) = class {
                class.encode(entry.record, is_utf8, stream.content());
            }
        }
        if stream.content().len() >= PACKET_LEN {
            self.ready = self.ready.saturating_add(stream.close(&self.options.uuid));
        }
    }

    /// Adds events that were lost on a CPU before those of `time`. A loss of unknown size counts as one event.
    pub fn lost(&mut self, group: u32, cpu: u32, time: u64, count: Option<u64>) {
        if let std::collections::btree_map::Entry::Vacant(new) = self.groups.entry(group) {
            Language::of(&self.options).stream_class(group, &mut self.metadata);
            new.insert(HashMap::new());
        }
        let stream = self.streams.entry((group, cpu)).or_insert_with(|| Stream::new(group, cpu));
        let closed = stream.lost(time, count.unwrap_or(1), &self.options.uuid);
        self.ready = self.ready.saturating_add(closed);
    }

    /// Ends all packets.
    pub fn finish(&mut self) {
        for stream in self.streams.values_mut() {
            self.ready = self.ready.saturating_add(stream.finish(&self.options.uuid));
        }
    }

    /// Bytes that [`drain`](Self::drain) would hand out.
    #[must_use]
    pub const fn ready(&self) -> usize {
        self.ready.saturating_add(self.metadata.len())
    }

    /// Records that were older than the one before on their CPU.
    #[must_use]
    pub const fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Hands out what is ready: the name of a file in the trace's folder, and what to append to it.
    ///
    /// # Errors
    /// Those of `append`; what was not handed out by then is lost.
    pub fn drain<E>(&mut self, mut append: impl FnMut(&str, &[u8]) -> Result<(), E>) -> Result<(), E> {
        // First, so that no packet is there before what describes it.
        if !self.metadata.is_empty() {
            append("metadata", &self.metadata)?;
            self.metadata.clear();
        }
        self.ready = 0;
        self.streams.values_mut().try_for_each(|stream| stream.drain(&mut append))
    }
}
