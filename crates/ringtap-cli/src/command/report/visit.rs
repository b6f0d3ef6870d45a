//! Files of a trace as one stream, for those who make something else than text of it.

use super::group::warn;
use super::source::{Held, Merged};
use super::{Input, Plan};
use crate::decode::TextLayout;
use anyhow::{Result, bail};
use ringtap_format::text::{Common, Entry, Sources};

/// Most damaged pages that are told of one by one; the others are counted.
const MAX_TOLD: u64 = 10;
/// Steps between two looks at how far the reading is.
const STEPS_A_LOOK: u32 = 1 << 14;

/// A record, or what stands in its place.
#[derive(Clone, Copy, Debug)]
pub(in crate::command) struct Item<'a> {
    /// The trace that it is from: dumps are one, each trace.dat is one.
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
    /// So many lost events, where that is known.
    Lost(Option<u64>),
}

/// Hands each record that `input` chooses to `each`, in the order of time; and now and then how far it is, in bytes
/// read and bytes in all, to `progress`.
///
/// # Errors
/// A file cannot be read, an event or a filter makes no sense, or one of `each`; or, when all was handed over,
/// something was damaged.
pub(in crate::command) fn visit(
    input: &Input,
    mut each: impl FnMut(&Item<'_>) -> Result<()>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Option<String>> {
    if input.files.is_empty() {
        bail!("no FILE to read");
    }
    let Plan { groups, sources } = Plan::new(input, TextLayout::Json)?;
    let missing: u64 = sources.iter().map(super::PageFile::missing).sum();
    let (mut damaged, mut steps) = (0u64, 0u32);
    let mut merged = Merged::new(sources)?;
    loop {
        if steps.is_multiple_of(STEPS_A_LOOK) {
            let (read, all) = merged.progress();
            progress(read, all);
        }
        steps = steps.wrapping_add(1);
        let Some((source, step)) = merged.next()? else { break };
        let (group, wanted) = &groups[source.group()];
        let mut item = Item {
            group: u32::try_from(source.group())?,
            sources: group.sources(),
            cpu: source.cpu(),
            time: source.time(),
            what: What::Lost(None),
        };
        match step {
            Held::Record { time, bytes } => {
                let record = source.bytes(&bytes);
                let entry = Entry { cpu: item.cpu, time, record };
                let id = Common::of(record, group.formats.target()).id;
                if !wanted.admits(id, &entry, group) {
                    continue;
                }
                (item.time, item.what) = (time, What::Record(record));
            }
            Held::Lost(lost) => item.what = What::Lost(lost.count()),
            Held::Damaged { offset, error } => {
                damaged += 1;
                if damaged <= MAX_TOLD {
                    warn(format_args!("{}: page at byte {offset}: {error}", source.path().display()));
                }
            }
        }
        each(&item)?;
    }
    Ok(match (damaged, missing) {
        (0, 0) => None,
        (damaged, missing) => Some(format!("{damaged} pages are damaged and {missing} bytes are missing")),
    })
}
