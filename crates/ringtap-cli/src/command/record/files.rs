//! The files of a recording: one at a time is written, and whole at each moment.

use anyhow::{Context, Result};
use ringtap_format::trace_dat::{Descriptions, FilePlan, Move, Piece, TraceDatWriter, WriteError};
use rustix::fd::{AsFd, BorrowedFd};
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Room that each CPU has in a file, unless the file system cannot: files with holes take no more than what is
/// written.
const LANE_SIZE: u64 = 1 << 36;
/// Less is no use.
const MIN_LANE_SIZE: u64 = 1 << 24;
/// Room of all CPUs together that every usual file system has.
const MAX_FILE: u64 = 1 << 42;

/// Where a recording goes.
#[derive(Clone, Debug)]
pub(in crate::command) struct Target {
    /// The first file's name; the next ones' have a number behind it.
    pub(in crate::command) path: PathBuf,
    /// How each is written; the room of a CPU is found out.
    pub(in crate::command) plan: FilePlan,
    /// How much the compression tries, by its own scale.
    pub(in crate::command) level: i32,
    /// Most files that are kept.
    pub(in crate::command) keep: Option<usize>,
    /// How often the disk is to take what was written, besides at the end.
    pub(in crate::command) sync: Option<Duration>,
}

/// Has the disk take a file's bytes, in a thread of its own: a slow disk does not keep the recorder waiting.
#[derive(Debug)]
struct Syncer {
    stop: Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncer {
    fn start(file: &File, period: Option<Duration>) -> io::Result<Self> {
        let file = file.try_clone()?;
        let (stop, stopped) = channel();
        let work = move || {
            let period = period.unwrap_or(Duration::MAX);
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                file.sync_data()?;
            }
            file.sync_all()
        };
        let thread = std::thread::Builder::new().name("sync".into()).spawn(work)?;
        Ok(Self { stop, thread })
    }

    /// Waits until the disk has all of it.
    fn finish(self) -> io::Result<()> {
        drop(self.stop);
        self.thread.join().map_err(|_| io::Error::other("the thread that waits for the disk has failed"))?
    }
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub(in crate::command) struct Written {
    /// The files that are there, the oldest first.
    pub(in crate::command) paths: Vec<PathBuf>,
    /// Bytes of sub-buffers, in all files together.
    pub(in crate::command) bytes: u64,
}

/// A file that has ended.
#[derive(Debug)]
struct Ended {
    file: File,
    writer: TraceDatWriter,
    path: PathBuf,
    /// The disk has it once this has gone, and what is written before.
    _syncer: Syncer,
}

/// The files.
#[derive(Debug)]
pub(in crate::command) struct Files {
    target: Target,
    descriptions: Descriptions,
    file: File,
    syncer: Syncer,
    path: PathBuf,
    writer: TraceDatWriter,
    /// The file before, until it is told what was learnt of its events by its end.
    ended: Option<Ended>,
    /// Something was added that the table does not tell yet.
    is_dirty: bool,
    /// Files begun so far.
    begun: usize,
    written: Written,
    packed: Vec<u8>,
}

impl Files {
    /// Begins the first file.
    ///
    /// # Errors
    /// It cannot be made.
    pub(in crate::command) fn new(target: Target, descriptions: Descriptions) -> Result<Self> {
        let path = target.path.clone();
        let (file, writer) = begin(&path, &target.plan, &descriptions)?;
        let syncer = Syncer::start(&file, target.sync)?;
        let written = Written { paths: vec![path.clone()], bytes: 0 };
        let packed = Vec::new();
        Ok(Self {
            target,
            descriptions,
            file,
            syncer,
            path,
            writer,
            ended: None,
            is_dirty: false,
            begun: 1,
            written,
            packed,
        })
    }

    /// The lane of a buffer's CPU.
    pub(in crate::command) fn lane(&self, buffer: usize, cpu: u32) -> Result<usize> {
        self.writer.lane(buffer, cpu).context("the file has no place for this CPU")
    }

    /// Bytes of sub-buffers in the file that is being written.
    pub(in crate::command) fn len(&self) -> u64 {
        self.writer.data_len()
    }

    /// Bytes of a sub-buffer in the file that is being written.
    pub(super) fn page_size(&self) -> u32 {
        self.target.plan.page_size
    }

    /// Ends this file and begins one whose sub-buffers have this size.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    pub(super) fn resize(&mut self, page_size: u32) -> Result<()> {
        self.target.plan.page_size = page_size;
        self.descriptions.header_page = ringtap_format::header::page_text(page_size);
        self.rotate()
    }

    /// Adds `len` bytes of whole sub-buffers that `write` puts where it is told.
    ///
    /// # Errors
    /// The disk is full, or cannot be written to.
    pub(in crate::command) fn add(
        &mut self,
        lane: usize,
        len: u64,
        write: impl FnOnce(BorrowedFd<'_>, u64) -> io::Result<()>,
    ) -> Result<()> {
        let place = match self.writer.place(lane, len) {
            Err(WriteError::Full) => {
                self.rotate()?;
                self.writer.place(lane, len)?
            }
            place => place?,
        };
        if let Err(error) = write(self.file.as_fd(), place) {
            // What was added before is to count. The table's place is there already, on a full disk, too.
            let _ = self.commit();
            return Err(error).with_context(|| self.trouble());
        }
        self.writer.added(lane, len);
        self.is_dirty = true;
        Ok(())
    }

    /// Adds sub-buffers, compressed.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(in crate::command) fn add_packed(&mut self, lane: usize, pages: &[u8]) -> Result<()> {
        let mut packed = mem::take(&mut self.packed);
        packed.clear();
        self.writer.chunk(pages, self.target.level, &mut packed).context("cannot compress")?;
        let len = u64::try_from(packed.len())?;
        let added = self.add(lane, len, |file, place| write_at(file, &packed, place));
        self.packed = packed;
        added
    }

    /// Makes all that was added count.
    ///
    /// # Errors
    /// The table cannot be written.
    pub(in crate::command) fn commit(&mut self) -> Result<()> {
        if mem::take(&mut self.is_dirty) {
            self.write(&self.writer.table())?;
        }
        Ok(())
    }

    /// Tells of what was learnt meanwhile, in the place of what was told before: formats, tasks, counters, the clock.
    ///
    /// # Errors
    /// It cannot be written.
    pub(in crate::command) fn describe(&mut self, late: Descriptions) -> Result<()> {
        let Descriptions { formats, tasks, cpu_stats, clock, .. } = late;
        let head = mem::take(&mut self.descriptions);
        self.descriptions = Descriptions { formats, tasks, cpu_stats, clock, ..head };
        self.tell_ended()?;
        let pieces = self.writer.describe(&self.descriptions)?;
        self.write(&pieces)
    }

    /// Whether a file has ended that waits to be described.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Tells the file before of what was learnt.
    fn tell_ended(&mut self) -> Result<()> {
        let Some(mut ended) = self.ended.take() else { return Ok(()) };
        let pieces = ended.writer.describe(&self.descriptions)?;
        write_all(&ended.file, &pieces)
            .and_then(|()| ended.file.set_len(ended.writer.end()))
            .with_context(|| trouble(&ended.path))
    }

    /// Ends this file and begins the next.
    ///
    /// # Errors
    /// One of them cannot be written.
    pub(in crate::command) fn rotate(&mut self) -> Result<()> {
        self.end()?;
        self.tell_ended()?;
        let mut path = self.target.path.clone().into_os_string();
        path.push(format!(".{}", self.begun));
        self.begun += 1;
        let path = PathBuf::from(path);
        let (file, writer) = begin(&path, &self.target.plan, &self.descriptions)?;
        let syncer = Syncer::start(&file, self.target.sync)?;
        self.ended = Some(Ended {
            file: mem::replace(&mut self.file, file),
            writer: mem::replace(&mut self.writer, writer),
            path: mem::replace(&mut self.path, path),
            _syncer: mem::replace(&mut self.syncer, syncer),
        });
        self.written.paths.push(self.path.clone());
        if let Some(keep) = self.target.keep
            && self.written.paths.len() > keep
        {
            let oldest = self.written.paths.remove(0);
            std::fs::remove_file(&oldest).with_context(|| format!("cannot remove {}", oldest.display()))?;
        }
        Ok(())
    }

    /// Ends the last file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(in crate::command) fn finish(mut self) -> Result<Written> {
        self.end()?;
        let trouble = self.trouble();
        self.syncer.finish().context(trouble)?;
        Ok(self.written)
    }

    /// Moves the data together and puts the last descriptions behind them.
    fn end(&mut self) -> Result<()> {
        self.commit()?;
        self.written.bytes += self.len();
        for moved in self.writer.moves() {
            copy(&self.file, moved).with_context(|| self.trouble())?;
            self.writer.moved(moved);
            self.write(&self.writer.table())?;
        }
        self.writer.settle();
        let pieces = self.writer.describe(&self.descriptions)?;
        self.write(&pieces)?;
        self.file.set_len(self.writer.end()).with_context(|| self.trouble())
    }

    fn write(&self, pieces: &[Piece]) -> Result<()> {
        write_all(&self.file, pieces).with_context(|| self.trouble())
    }

    fn trouble(&self) -> String {
        trouble(&self.path)
    }
}

fn trouble(path: &Path) -> String {
    format!("cannot write {}; what it holds can be read: see `ringtap report`", path.display())
}

fn write_all(file: &File, pieces: &[Piece]) -> io::Result<()> {
    pieces.iter().try_for_each(|piece| file.write_all_at(&piece.bytes, piece.offset))
}

pub(in crate::command) fn write_at(file: BorrowedFd<'_>, mut bytes: &[u8], mut place: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, place) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => (bytes, place) = (&bytes[len..], place + len as u64),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Makes a file with its head, and as much room for each CPU as the file system allows.
fn begin(path: &Path, plan: &FilePlan, descriptions: &Descriptions) -> Result<(File, TraceDatWriter)> {
    let trouble = || format!("cannot write {}", path.display());
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).open(path).with_context(trouble)?;
    let lanes: usize = plan.buffers.iter().map(|buffer| buffer.cpus.len()).sum();
    let lanes = u64::try_from(lanes.max(1))?;
    let mut lane_size = LANE_SIZE.min(MAX_FILE / lanes.next_power_of_two()).max(MIN_LANE_SIZE);
    while lane_size > MIN_LANE_SIZE && file.set_len(lane_size * (lanes + 1)).is_err() {
        lane_size /= 2;
    }
    file.set_len(0).with_context(trouble)?;
    let plan = FilePlan { lane_size, ..plan.clone() };
    let (writer, head) = TraceDatWriter::new(plan, descriptions.clone())?;
    file.write_all_at(&head.bytes, head.offset).with_context(trouble)?;
    Ok((file, writer))
}

/// Copies within the file, where the file system can without moving a byte.
fn copy(file: &File, Move { from, to, len, .. }: Move) -> io::Result<()> {
    let (mut from, mut to, end) = (from, to, from + len);
    while from < end {
        let left = usize::try_from(end - from).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(file, Some(&mut from), file, Some(&mut to), left) {
            // The last sub-buffer is not written behind its events.
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
