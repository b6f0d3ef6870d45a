//! The files: opened, described, and merged by the time of their records.

use crate::provenance::Provenance;
use anyhow::{Context, Result, bail};
use ringtap_format::header::PageLayout;
use ringtap_format::trace_dat::{
    Clock, CpuData, CpuPages, Item, Origin, Timeline, TraceDat, TraceDatError, raw,
};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

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
    let mut start = [0; raw::MAGIC.len()];
    let is_trace_dat = match file.read_exact_at(&mut start, 0) {
        Ok(()) => start == *raw::MAGIC,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    Ok((Arc::new(file), is_trace_dat))
}

/// Whether one of the first two sub-buffers begins as one does, or there is none. A commit word has its bits in the lower
/// half; of a text, or of another program's file, it has them anywhere. Damage is told later, with what can be read.
fn may_be_dump(file: &File, layout: PageLayout) -> bool {
    let size = u64::from(layout.data_offset + layout.data_size);
    let commit = |page: u64| {
        let mut word = [0; 8];
        let at = page * size + u64::from(layout.commit_offset);
        file.read_exact_at(&mut word, at).ok()?;
        layout.target.uint(&word, 0, layout.commit_size)
    };
    let mut commits = [commit(0), commit(1)].into_iter().flatten().peekable();
    commits.peek().is_none() || commits.any(|commit| commit <= u32::MAX.into())
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

/// A file that is read.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    /// What its records are decoded with.
    pub(super) group: usize,
    /// The names of its buffers.
    pub(super) buffers: Vec<String>,
    /// Of each buffer, where its records come from.
    pub(super) provenance: Vec<Provenance>,
    /// What its descriptions lack.
    pub(super) complaints: Vec<TraceDatError>,
}

/// All files' records by time.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// By the number in [`Origin::file`].
    pub(super) files: Vec<Input>,
    pub(super) timeline: Timeline<Arc<File>>,
    /// CPUs that a trace.dat says it has.
    cpus: u32,
}

impl Inputs {
    /// Adds a trace.dat.
    pub(super) fn push_trace_dat(&mut self, path: &Path, file: &Arc<File>, trace: TraceDat, group: usize) {
        self.timeline.push_file(self.files.len(), &trace, file);
        self.cpus = self.cpus.max(trace.cpu_count());
        let own = Provenance::of(&trace);
        let buffers = trace.buffers.iter().map(|buffer| own.of_instance(&buffer.name));
        self.files.push(Input {
            path: path.to_owned(),
            group,
            provenance: buffers.collect(),
            buffers: trace.buffers.into_iter().map(|buffer| buffer.name).collect(),
            complaints: trace.complaints,
        });
    }

    /// Adds a CPU's sub-buffers as `trace_pipe_raw` hands them out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn push_dump(
        &mut self,
        path: &Path,
        file: &Arc<File>,
        (group, cpu): (usize, u32),
        layout: PageLayout,
    ) -> Result<()> {
        let len = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
        if !may_be_dump(file, layout) {
            bail!("{} is neither a trace.dat nor a dump of trace_pipe_raw", path.display());
        }
        let pages = CpuPages::new(Arc::clone(file), CpuData::plain(cpu, 0..len), layout);
        let origin = Origin { file: self.files.len(), buffer: 0, cpu };
        self.timeline.push(origin, Clock::default(), pages);
        let buffers = vec![String::new()];
        let provenance = vec![Provenance::default()];
        self.files.push(Input { path: path.to_owned(), group, buffers, provenance, complaints: Vec::new() });
        Ok(())
    }

    /// How many CPUs there are.
    pub(super) fn cpus(&self) -> u32 {
        let cpus: BTreeSet<u32> = self.timeline.origins().map(|origin| origin.cpu).collect();
        u32::try_from(cpus.len()).unwrap_or(u32::MAX).max(self.cpus)
    }

    /// The name of the buffer that this comes from, and whether there are others.
    pub(super) fn buffer(&self, origin: Origin) -> (&str, usize) {
        let file = &self.files[origin.file];
        let width = file.buffers.iter().map(String::len).max().unwrap_or(0);
        (file.buffers.get(origin.buffer).map_or("", String::as_str), width)
    }

    /// Counts records and known losses of all files, by so many threads at most.
    pub(super) fn count(&self, jobs: usize) -> Counts {
        let lanes = Mutex::new(self.timeline.lanes().collect::<Vec<_>>());
        let threads = self.timeline.origins().count().min(jobs);
        let next = || lanes.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = || std::iter::from_fn(next).map(Counts::of).fold(Counts::default(), Counts::and);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            let joined = others.into_iter().map(|other| match other.join() {
                Ok(counts) => counts,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.fold(own, Counts::and)
        })
    }
}

/// What the kernel's header tells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) lost: u64,
}

impl Counts {
    fn of(mut lane: Timeline<Arc<File>>) -> Self {
        let mut counts = Self::default();
        while let Some(timed) = lane.next_of_any() {
            match timed.step {
                Item::Record(_) => counts.records += 1,
                Item::Lost(lost) => counts.lost = counts.lost.saturating_add(lost.count().unwrap_or(0)),
                Item::Damaged { .. } | Item::Failed(_) => {}
            }
        }
        counts
    }

    fn and(self, other: Self) -> Self {
        let (records, lost) = (self.records + other.records, self.lost.saturating_add(other.lost));
        Self { records, lost }
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
