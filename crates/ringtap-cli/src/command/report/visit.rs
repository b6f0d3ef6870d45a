//! Files of a trace as one stream, for those who make something else than text of it.

use super::group::warn;
use super::source::Inputs;
use super::{FileArgs, Plan};
use crate::decode::TextLayout;
use anyhow::Result;
use ringtap_format::text::{Common, Entry, Sources};
use ringtap_format::trace_dat;
use std::fmt::Display;
use std::path::Path;

/// Most damages that are told of one by one; the others are counted.
const MAX_TOLD: u64 = 10;
/// Items between two looks at how far the reading is.
const ITEMS_A_LOOK: u32 = 1 << 14;

/// A record, or what stands in its place.
#[derive(Clone, Copy, Debug)]
pub(in crate::command) struct Item<'a> {
    /// The buffer that it is from: dumps are one, each of a trace.dat's is one.
    pub(in crate::command) group: u32,
    /// What decodes it.
    pub(in crate::command) sources: Sources<'a>,
    /// The CPU.
    pub(in crate::command) cpu: u32,
    /// Its time; that of the record behind it, where it has none.
    pub(in crate::command) time: u64,
    /// What it is.
    pub(in crate::command) what: What<'a>,
}

/// What is in a trace.
#[derive(Clone, Copy, Debug)]
pub(in crate::command) enum What<'a> {
    /// A record's bytes.
    Record(&'a [u8]),
    /// So many lost events, where that is known; with damage nobody knows.
    Lost(Option<u64>),
}

/// Hands each record that `files` choose to `each`, in the order of time; and now and then how far it is, in bytes
/// read and bytes in all, to `progress`. What was damaged, if anything was, is returned.
///
/// # Errors
/// A file cannot be read, an event or a filter makes no sense, or one of `each`.
pub(in crate::command) fn visit(
    files: &FileArgs,
    mut each: impl FnMut(&Item<'_>) -> Result<()>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Option<String>> {
    let Plan { groups, mut inputs, .. } = Plan::new(files, TextLayout::Json)?;
    let mut damages = Damages::default();
    for file in &inputs.files {
        file.complaints.iter().for_each(|complaint| damages.add(&file.path, complaint));
    }
    let bases = bases(&inputs, groups.len());
    let mut timeline = std::mem::take(&mut inputs.timeline);
    for place in 0u32.. {
        if place.is_multiple_of(ITEMS_A_LOOK) {
            let (read, all) = timeline.progress();
            progress(read, all);
        }
        let Some(timed) = timeline.next() else { break };
        let file = &inputs.files[timed.origin.file];
        let (group, wanted) = &groups[file.group];
        let mut item = Item {
            group: u32::try_from(bases[file.group] + timed.origin.buffer)?,
            sources: group.sources(),
            cpu: timed.origin.cpu,
            time: timed.time,
            what: What::Lost(None),
        };
        match timed.step {
            trace_dat::Item::Record(record) => {
                let entry = Entry { cpu: item.cpu, time: record.time, record: record.bytes };
                let common = Common::of(record.bytes, group.formats.target());
                if !wanted.admits(common, &entry, group) {
                    continue;
                }
                (item.time, item.what) = (record.time, What::Record(record.bytes));
            }
            trace_dat::Item::Lost(_) if !wanted.admits_place(item.cpu, item.time) => continue,
            trace_dat::Item::Lost(lost) => item.what = What::Lost(lost.count()),
            trace_dat::Item::Damaged { offset, error } => {
                damages.add(&file.path, &format_args!("page at byte {offset}: {error}"));
            }
            trace_dat::Item::Failed(error) => damages.add(&file.path, &error),
        }
        each(&item)?;
    }
    Ok(damages.told())
}

/// The number of the first buffer of each group.
fn bases(inputs: &Inputs, groups: usize) -> Vec<usize> {
    let mut next = 0;
    let widths = (0..groups).map(|group| {
        let files = inputs.files.iter().filter(|file| file.group == group);
        files.map(|file| file.buffers.len()).max().unwrap_or(0).max(1)
    });
    let first = |width| {
        next += width;
        next - width
    };
    widths.map(first).collect()
}

/// What cannot be read.
#[derive(Default)]
struct Damages(u64);

impl Damages {
    fn add(&mut self, path: &Path, what: &dyn Display) {
        self.0 += 1;
        if self.0 <= MAX_TOLD {
            warn(format_args!("{}: {what}", path.display()));
        }
    }

    fn told(&self) -> Option<String> {
        match self.0 {
            0 => None,
            1 => Some("one place is damaged".to_owned()),
            places => Some(format!("{places} places are damaged")),
        }
    }
}
