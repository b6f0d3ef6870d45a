//! A trace.dat that was not finished, or is damaged, becomes one without holes that every program reads.

use crate::command::record::files::{Files, Target, write_at};
use anyhow::{Context, Result, bail};
use ringtap_format::ByteOrder;
use ringtap_format::header::PageLayout;
use ringtap_format::page::Page;
use ringtap_format::trace_dat::{
    BufferPlan, Compression, CpuPages, Descriptions, FilePlan, TraceDat, TraceDatError, raw,
};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Flag of a commit word: events were lost before the sub-buffer.
const MISSED: u64 = 1 << 31;
/// Bytes that are compressed as one.
const CHUNK: usize = 1 << 18;

/// Whether a file begins as a trace.dat does.
///
/// # Errors
/// It cannot be read.
pub(super) fn is_one(path: &Path) -> Result<bool> {
    let mut start = [0; raw::MAGIC.len()];
    let trouble = || format!("cannot recover {}", path.display());
    // A folder is none.
    if !path.metadata().with_context(trouble)?.is_file() {
        return Ok(false);
    }
    let mut file = File::open(path).with_context(trouble)?;
    Ok(file.read_exact(&mut start).is_ok() && start == *raw::MAGIC)
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    pages: u64,
    bytes: u64,
    /// Sub-buffers that were cut before the first record that cannot be.
    cut: u64,
    /// Sub-buffers of which nothing can be read.
    left_out: u64,
}

/// Writes what can be read of `path` to `out`.
///
/// # Errors
/// It is no trace.dat, or `out` cannot be written.
pub(super) fn copy(path: &Path, out: &Path) -> Result<()> {
    let trouble = || format!("cannot read {}", path.display());
    let source = Arc::new(File::open(path).with_context(trouble)?);
    let trace = TraceDat::open(&source).with_context(trouble)?;
    let same = out.canonicalize().is_ok_and(|out| path.canonicalize().is_ok_and(|path| path == out));
    if same {
        bail!("{} would be overwritten by what is read of it; choose another file", path.display());
    }
    for complaint in trace.complaints.iter().filter(|complaint| !is_of_missing_end(complaint)) {
        anstream::eprintln!("ringtap: {}: {complaint}", path.display());
    }
    let target = Target { path: out.to_owned(), plan: plan(&trace)?, level: 1, keep: None, sync: None };
    let mut files = Files::new(target, descriptions(&trace))?;
    let mut copied = Copied::default();
    for (number, buffer) in trace.buffers.iter().enumerate() {
        for data in &buffer.cpus {
            let lane = files.lane(number, data.cpu)?;
            let mut pages = CpuPages::new(Arc::clone(&source), data.clone(), buffer.layout);
            let mut chunk = Vec::new();
            loop {
                match pages.next_page() {
                    Ok(Some(page)) => take(page.bytes, buffer.layout, &mut chunk, &mut copied),
                    Ok(None) => break,
                    Err(error) => {
                        anstream::eprintln!("ringtap: {}: CPU {}: {error}", path.display(), data.cpu);
                        break;
                    }
                }
                if chunk.len() >= CHUNK {
                    put(&mut files, lane, trace.compression, &mut chunk)?;
                }
            }
            put(&mut files, lane, trace.compression, &mut chunk)?;
            files.commit()?;
        }
    }
    files.finish()?;
    let Copied { pages, bytes, cut, left_out } = copied;
    anstream::eprintln!("ringtap: {pages} pages, {:.1} MB, are in {}", bytes as f64 / 1e6, out.display());
    if cut + left_out > 0 {
        anstream::eprintln!("ringtap: {cut} damaged pages were cut short, {left_out} left out");
    }
    Ok(())
}

/// Whether it is what a recorder that was killed leaves: the place of data that it did not write.
fn is_of_missing_end(complaint: &TraceDatError) -> bool {
    matches!(complaint, TraceDatError::Missing { .. })
}

fn plan(trace: &TraceDat) -> Result<FilePlan> {
    let mut sizes: Vec<_> = trace.buffers.iter().map(|buffer| buffer.layout.size()).collect();
    sizes.dedup();
    let page_size = match sizes.as_slice() {
        [] => trace.layout.size(),
        [size] => *size,
        _ => bail!(
            "its buffers have pages of several sizes; take one buffer out of it with `trace-cmd split -b`"
        ),
    };
    let buffers = trace.buffers.iter().map(|buffer| BufferPlan {
        name: buffer.name.clone(),
        clock: buffer.clock.clone(),
        cpus: buffer.cpus.iter().map(|data| data.cpu).collect(),
    });
    let compression =
        if trace.compression == Compression::None { Compression::None } else { Compression::Zstd };
    let target = trace.layout.target;
    let buffers = buffers.collect();
    Ok(FilePlan { version: trace.version, target, page_size, compression, lane_size: 0, buffers })
}

fn descriptions(trace: &TraceDat) -> Descriptions {
    let (internal, formats): (Vec<_>, Vec<_>) =
        trace.formats.iter().cloned().partition(|(system, _)| system == "ftrace");
    Descriptions {
        header_page: trace.header_page.clone(),
        header_event: trace.header_event.clone(),
        ftrace_formats: internal.into_iter().map(|(_, format)| format).collect(),
        formats,
        kallsyms: trace.kallsyms.clone(),
        printk_formats: trace.printk_formats.clone(),
        tasks: trace.tasks.clone(),
        clocks: trace.clocks.clone(),
        uname: trace.uname.clone(),
        writer: trace.writer.clone(),
        cpu_stats: trace.cpu_stats.clone(),
        clock: trace.clock,
        trace_id: 0,
    }
}

/// Appends what is whole of a sub-buffer.
fn take(bytes: &[u8], layout: PageLayout, chunk: &mut Vec<u8>, copied: &mut Copied) {
    let Ok(page) = Page::new(bytes, layout) else {
        copied.left_out += 1;
        return;
    };
    let (start, mut end, mut is_damaged) = (bytes.as_ptr().addr(), 0, false);
    for record in page.records() {
        match record {
            Ok(record) => end = record.bytes.as_ptr().addr() - start + record.bytes.len(),
            Err(_) => is_damaged = true,
        }
    }
    if end == 0 {
        // What the disk had not written yet when the power went is zeros.
        copied.left_out += u64::from(is_damaged);
        return;
    }
    let at = chunk.len();
    chunk.extend_from_slice(bytes);
    chunk.resize(at + layout.size() as usize, 0);
    if is_damaged {
        copied.cut += 1;
        cut(&mut chunk[at..], layout, end);
    }
    copied.pages += 1;
    copied.bytes += u64::from(layout.size());
}

/// Ends a sub-buffer's records at this byte.
fn cut(page: &mut [u8], layout: PageLayout, end: usize) {
    let (at, size) = (layout.commit_offset as usize, usize::from(layout.commit_size));
    let before = layout.target.uint(page, at, layout.commit_size).unwrap_or(0);
    // A number of lost events that stood behind the records does not any more.
    let commit = (before & MISSED) | (end as u64 - u64::from(layout.data_offset));
    let word = match layout.target.order {
        ByteOrder::Little => commit.to_le_bytes()[..size].to_vec(),
        ByteOrder::Big => commit.to_be_bytes()[8 - size..].to_vec(),
    };
    page[at..at + size].copy_from_slice(&word);
    page[end..].fill(0);
}

fn put(files: &mut Files, lane: usize, compression: Compression, chunk: &mut Vec<u8>) -> Result<()> {
    if !chunk.is_empty() {
        match compression {
            Compression::None => {
                files.add(lane, chunk.len() as u64, |file, place| write_at(file, chunk, place))?;
            }
            _ => files.add_packed(lane, chunk)?,
        }
        chunk.clear();
    }
    Ok(())
}
