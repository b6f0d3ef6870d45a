//! Files of a trace as one stream, for those who make something else than text of it.

use super::group::{Group, warn};
use super::select::Wanted;
use super::source::{Input, Inputs};
use super::{FileArgs, Plan};
use crate::decode::TextLayout;
use crate::provenance::Provenance;
use anyhow::Result;
#[cfg(feature = "query")]
use ringtap_format::Formats;
use ringtap_format::text::{Common, Entry, Sources};
use ringtap_format::trace_dat::{self, Timeline};
use std::fmt::Display;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Most damages that are told of one by one; the others are counted.
const MAX_TOLD: u64 = 10;
/// Items between two looks at how far the reading is.
const ITEMS_A_LOOK: u32 = 1 << 14;

/// A record, or what stands in its place.
#[derive(Clone, Copy, Debug)]
pub(in crate::command) struct Item<'a> {
    /// The buffer that it is from: dumps are one, each of a trace.dat's is one.
    pub(in crate::command) group: u32,
    /// Where it comes from.
    #[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "only tables have a column for it"))]
    pub(in crate::command) provenance: &'a Provenance,
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
    each: impl FnMut(&Item<'_>) -> Result<()>,
    progress: impl FnMut(u64, u64),
) -> Result<Option<String>> {
    Visit::new(files)?.walk(each, progress)
}

/// As [`visit`], after a first look at everything by `survey`, in whatever order.
///
/// # Errors
/// Those of `visit`, or one of `survey`.
pub(in crate::command) fn visit_twice(
    files: &FileArgs,
    survey: impl FnMut(&Item<'_>) -> Result<()>,
    each: impl FnMut(&Item<'_>) -> Result<()>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Option<String>> {
    let mut visit = Visit::new(files)?;
    let mut again = visit.again();
    again.walk_in(Order::Any, survey, |read, all| progress(read, 2 * all))?;
    visit.walk(each, |read, all| progress(all + read, 2 * all))
}

/// In which order records are handed out.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// By their time.
    Time,
    /// One CPU's after the other's, which is faster.
    Any,
}

/// The files, opened.
pub(in crate::command) struct Visit {
    shared: Arc<Shared>,
    timeline: Timeline<Arc<File>>,
    damages: Damages,
}

/// What all visits of the same files have in common.
struct Shared {
    groups: Vec<(Group, Wanted)>,
    files: Vec<Input>,
}

impl Visit {
    /// Opens the files.
    ///
    /// # Errors
    /// A file cannot be read, or an event or a filter makes no sense.
    pub(in crate::command) fn new(files: &FileArgs) -> Result<Self> {
        let Plan { groups, inputs: Inputs { files, timeline, .. }, .. } = Plan::new(files, TextLayout::Json)?;
        Ok(Self { shared: Arc::new(Shared { groups, files }), timeline, damages: Damages::default() })
    }

    /// The same files from their start.
    pub(in crate::command) fn anew(&self) -> Self {
        let mut timeline = self.timeline.clone();
        timeline.restart();
        Self { shared: Arc::clone(&self.shared), timeline, damages: Damages::default() }
    }

    /// As [`Self::anew`], for who need not be told of damage again.
    pub(in crate::command) fn again(&self) -> Self {
        let mut again = self.anew();
        again.damages.is_silent = true;
        again
    }

    /// The events that the files describe.
    #[cfg(feature = "query")]
    pub(in crate::command) fn formats(&self) -> impl Iterator<Item = &Formats> {
        self.shared.groups.iter().map(|(group, _)| &group.formats)
    }

    /// Hands each record that is chosen to `each`, as [`visit`] does.
    ///
    /// # Errors
    /// One of `each`.
    pub(in crate::command) fn walk(
        &mut self,
        each: impl FnMut(&Item<'_>) -> Result<()>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Option<String>> {
        self.walk_in(Order::Time, each, progress)
    }

    fn walk_in(
        &mut self,
        order: Order,
        mut each: impl FnMut(&Item<'_>) -> Result<()>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Option<String>> {
        let Self { shared, timeline, damages } = self;
        let Shared { groups, files } = &**shared;
        for file in files.iter() {
            file.complaints.iter().for_each(|complaint| damages.add(&file.path, complaint));
        }
        let bases = bases(files, groups.len());
        for place in 0u32.. {
            if place.is_multiple_of(ITEMS_A_LOOK) {
                let (read, all) = timeline.progress();
                progress(read, all);
            }
            let timed = match order {
                Order::Time => timeline.next(),
                Order::Any => timeline.next_of_any(),
            };
            let Some(timed) = timed else { break };
            let file = &files[timed.origin.file];
            let (group, wanted) = &groups[file.group];
            let mut item = Item {
                group: u32::try_from(bases[file.group] + timed.origin.buffer)?,
                provenance: &file.provenance[timed.origin.buffer],
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
}

/// The number of the first buffer of each group.
fn bases(files: &[Input], groups: usize) -> Vec<usize> {
    let mut next = 0;
    let widths = (0..groups).map(|group| {
        let files = files.iter().filter(|file| file.group == group);
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
struct Damages {
    count: u64,
    is_silent: bool,
}

impl Damages {
    fn add(&mut self, path: &Path, what: &dyn Display) {
        self.count += 1;
        if self.count <= MAX_TOLD && !self.is_silent {
            warn(format_args!("{}: {what}", path.display()));
        }
    }

    fn told(&self) -> Option<String> {
        match self.count {
            0 => None,
            1 => Some("one place is damaged".to_owned()),
            places => Some(format!("{places} places are damaged")),
        }
    }
}
