//! Files of sub-buffers, read one sub-buffer at a time and merged by the time of their records.

use anyhow::{Context, Result, bail};
use ringtap_format::header::PageLayout;
use ringtap_format::merge::{Pages, Step};
use ringtap_format::page::{Lost, PageError};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How every trace.dat begins.
const TRACE_DAT: &[u8] = b"\x17\x08\x44tracing";

/// Opens a file and tells whether it is a trace.dat.
///
/// # Errors
/// It cannot be read, or not from the start again.
pub(super) fn open(path: &Path) -> Result<(Arc<File>, bool)> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
    if !file.metadata().with_context(|| format!("cannot read {shown}"))?.is_file() {
        bail!("{shown} is no regular file; copy what it holds to one, or use `ringtap stream`");
    }
    let mut start = [0; TRACE_DAT.len()];
    let is_trace_dat = match file.read_exact_at(&mut start, 0) {
        Ok(()) => start == TRACE_DAT,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    Ok((Arc::new(file), is_trace_dat))
}

/// The number behind the last `cpu` of the file's name, or of its folder's.
pub(super) fn cpu_of(path: &Path) -> Option<u32> {
    let names = [path.file_name(), path.parent().and_then(Path::file_name)];
    names.into_iter().flatten().find_map(|name| {
        let name = name.to_str()?;
        let (_, behind) = name.rsplit_once("cpu")?;
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        behind[..digits].parse().ok()
    })
}

/// What a sub-buffer holds, in order.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// A record, and where it lies in the sub-buffer's records.
    Record {
        time: u64,
        bytes: Range<usize>,
    },
    Lost(Lost),
    Damaged {
        offset: u64,
        error: PageError,
    },
}

/// One CPU's sub-buffers in a file.
#[derive(Debug)]
pub(super) struct PageFile {
    path: PathBuf,
    file: Arc<File>,
    /// The part of the file that is still to be read.
    rest: Range<u64>,
    span: Range<u64>,
    group: usize,
    cpu: u32,
    layout: PageLayout,
    page: Vec<u8>,
    /// The records of the sub-buffer, one behind the other.
    records: Vec<u8>,
    held: VecDeque<Held>,
    /// The time of the last record; what has none happened then.
    time: u64,
    /// The file is shorter than it claims.
    missing: u64,
}

impl PageFile {
    /// The sub-buffers in the part `span` of the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn new(
        path: &Path,
        file: &Arc<File>,
        span: Range<u64>,
        (group, cpu): (usize, u32),
        layout: PageLayout,
    ) -> Result<Self> {
        let len = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
        let rest = span.start.min(len)..span.end.min(len);
        let missing = span.end - rest.end.max(span.start);
        Ok(Self {
            path: path.to_owned(),
            file: Arc::clone(file),
            span: rest.clone(),
            rest,
            group,
            cpu,
            layout,
            page: Vec::new(),
            records: Vec::new(),
            held: VecDeque::new(),
            time: 0,
            missing,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn cpu(&self) -> u32 {
        self.cpu
    }

    pub(super) const fn group(&self) -> usize {
        self.group
    }

    /// The time of the last step: of a loss or of damage, that of the record behind it.
    pub(super) const fn time(&self) -> u64 {
        self.time
    }

    /// Bytes that should be in the file and are not.
    pub(super) const fn missing(&self) -> u64 {
        self.missing
    }

    pub(super) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.records[range.clone()]
    }

    /// Reads the next sub-buffer that holds anything; whether there was one.
    fn fill(&mut self) -> Result<bool> {
        while self.held.is_empty() {
            let size = u64::from(self.layout.size()).min(self.rest.end - self.rest.start);
            if size == 0 {
                return Ok(false);
            }
            self.page.resize(usize::try_from(size)?, 0);
            let start = self.rest.start;
            let read = self.file.read_exact_at(&mut self.page, start);
            read.with_context(|| format!("cannot read {} at byte {start}", self.path.display()))?;
            self.rest.start += size;
            self.records.clear();
            for step in Pages::new(&self.page, self.layout) {
                self.held.push_back(match step {
                    Step::Record(record) => {
                        let place = self.records.len();
                        self.records.extend_from_slice(record.bytes);
                        Held::Record { time: record.time, bytes: place..self.records.len() }
                    }
                    Step::Lost(lost) => Held::Lost(lost),
                    Step::Damaged { error, .. } => Held::Damaged { offset: start, error },
                });
            }
        }
        Ok(true)
    }

    /// When the next step happens: a loss at the time of the record behind it.
    fn next_time(&mut self) -> Result<Option<u64>> {
        if !self.fill()? {
            return Ok(None);
        }
        let next = self.held.iter().find_map(|held| match held {
            Held::Record { time, .. } => Some(*time),
            _ => None,
        });
        self.time = next.unwrap_or(self.time);
        Ok(Some(self.time))
    }

    fn restart(&mut self) {
        self.rest = self.span.clone();
        self.time = 0;
    }
}

/// What the kernel's header tells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) lost: u64,
}

/// Counts records and known losses of all sources, which then start anew.
///
/// # Errors
/// A file cannot be read.
pub(super) fn count(sources: &mut [PageFile]) -> Result<Counts> {
    let mut counts = Counts::default();
    for source in sources {
        while source.fill()? {
            for held in source.held.drain(..) {
                match held {
                    Held::Record { .. } => counts.records += 1,
                    Held::Lost(lost) => counts.lost = counts.lost.saturating_add(lost.count().unwrap_or(0)),
                    Held::Damaged { .. } => {}
                }
            }
        }
        source.restart();
    }
    Ok(counts)
}

/// All sources as one stream. Of steps with the same time the earlier source's comes first.
#[derive(Debug)]
pub(super) struct Merged {
    sources: Vec<PageFile>,
    order: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Merged {
    pub(super) fn new(mut sources: Vec<PageFile>) -> Result<Self> {
        let mut order = BinaryHeap::with_capacity(sources.len());
        for (place, source) in sources.iter_mut().enumerate() {
            if let Some(time) = source.next_time()? {
                order.push(Reverse((time, place)));
            }
        }
        Ok(Self { sources, order })
    }

    /// How many bytes have been read, and how many there are.
    pub(super) fn progress(&self) -> (u64, u64) {
        let each = self.sources.iter().map(|source| {
            let PageFile { span, rest, missing, .. } = source;
            (rest.start - span.start.min(rest.start), (span.end - span.start).saturating_sub(*missing))
        });
        each.fold((0, 0), |(read, all), (more, len)| (read + more, all + len))
    }

    /// The next step and its source.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<(&PageFile, Held)>> {
        let Some(mut top) = self.order.peek_mut() else { return Ok(None) };
        let place = top.0.1;
        // Its time is that of the step taken before; the next one's is found only now, since looking for it may
        // overwrite the bytes of the record that the caller had.
        match self.sources[place].next_time()? {
            Some(time) if time != top.0.0 => {
                top.0.0 = time;
                drop(top);
                self.next()
            }
            Some(_) => {
                drop(top);
                let source = &mut self.sources[place];
                let held = source.held.pop_front();
                Ok(held.map(|held| (&*source, held)))
            }
            None => {
                std::collections::binary_heap::PeekMut::pop(top);
                self.next()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_in_the_name() {
        for (path, cpu) in [
            ("cpu0", Some(0)),
            ("out/web-cpu17.raw", Some(17)),
            ("per_cpu/cpu3/trace_pipe_raw", Some(3)),
            ("cpus/dump", None),
            ("dump", None),
            ("trace.cpu1.raw", Some(1)),
        ] {
            assert_eq!(cpu_of(Path::new(path)), cpu, "{path}");
        }
    }
}
