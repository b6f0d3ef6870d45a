//! An open file.

#![forbid(unsafe_code)]

use super::node::{Node, Place};
use super::raw_snapshot::RawSnapshot;
use super::table::{File, Read, Write};
use super::tree::Tree;
use crate::control::Caller;
use crate::control::instance::Hold;
use crate::control::options::bit;
use crate::control::pipe::Pipe;
use crate::control::trace::Trace;
use crate::control::uses::Use;
use crate::limits::{TEXT_LEN, WRITE_LEN};
use ringtap::Host;
use rustix::io::Errno;
use std::fmt;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// `O_TRUNC`: on `trace` it empties the buffers, on lists the list.
    pub truncate: bool,
}

/// What a read comes to.
#[derive(Debug)]
pub enum Answer {
    /// These bytes; none at the file's end.
    Bytes(Vec<u8>),
    /// There is nothing yet: `EAGAIN` for who does not wait, else wait and read again.
    Wait(Wait),
}

/// What a file's next bytes wait for. No call of the tree ever waits itself.
#[derive(Clone, Debug)]
pub struct Wait {
    /// The buffers.
    pub host: Host,
    /// Any of these.
    pub cpus: Vec<u32>,
    /// To be so full, in percent; 0: to have anything.
    pub percent: u8,
}

/// What a file is besides text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Text of this open: reads of any offset see the same.
    Text,
    /// A consumed stream (`trace_pipe`, `snapshot_raw`): offsets mean nothing.
    Pipe,
    /// A place to write to that has no offsets (`trace_marker`, `free_buffer`).
    Stream,
    /// Sub-buffers (`trace_pipe_raw`): see [`Handle::raw`].
    Raw,
}

/// One CPU's `trace_pipe_raw`, open: what mapping, reading, polling and splicing it need.
#[derive(Debug)]
pub struct RawPipe {
    cpu: u32,
    hold: Hold,
}

/// An open file. Closed when it is dropped.
pub struct Handle {
    tree: Tree,
    place: Place,
    file: &'static File,
    access: Access,
    caller: Caller,
    /// The text of this open, once it was read.
    text: Option<Vec<u8>>,
    state: State,
}

/// What is held while the file is open.
#[derive(Debug)]
enum State {
    Plain(Hold),
    Trace(Hold, Option<Trace>),
    Pipe(Pipe),
    Raw(RawPipe),
    RawSnapshot(Hold, RawSnapshot),
}

impl RawPipe {
    /// The buffer's CPU.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// The instance's present buffers. They are others after a resize: ask anew with each call.
    #[must_use]
    pub fn host(&self) -> Host {
        self.hold.instance.host()
    }

    /// The instance's `buffer_percent` now.
    #[must_use]
    pub fn buffer_percent(&self) -> u8 {
        self.hold.instance.buffer_percent()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("file", &self.file.name)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Tree {
    /// Opens a file. Whether the caller may is the server's business, by the [attributes](super::tree::Attributes).
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn open(&self, node: Node, access: Access, caller: &Caller) -> Result<Handle, Errno> {
        Handle::open(self, node, access, caller)
    }
}

impl Handle {
    fn open(tree: &Tree, node: Node, access: Access, caller: &Caller) -> Result<Self, Errno> {
        let file = tree.file(node.place).ok_or(Errno::ISDIR)?;
        let instance = tree.control().instance(node.instance)?;
        let cpu = match node.place {
            Place::CpuFile(cpu, _) => Some(u32::from(cpu)),
            _ => None,
        };
        let state = match file.read {
            // Opened for writing alone, the rings are not walked.
            Read::Trace if access.read => State::Trace(instance.hold(Use::Trace(cpu))?, None),
            Read::Snapshot if access.read => State::Trace(instance.hold(Use::Plain)?, None),
            Read::Pipe => State::Pipe(Pipe::new(instance.hold(Use::Pipe(cpu))?, cpu)?),
            Read::Raw => {
                let hold = instance.hold(Use::RawPipe)?;
                State::Raw(RawPipe { cpu: cpu.ok_or(Errno::NODEV)?, hold })
            }
            Read::RawSnapshot => {
                let snapshot = RawSnapshot::new(cpu.ok_or(Errno::NODEV)?);
                State::RawSnapshot(instance.hold(Use::Plain)?, snapshot)
            }
            _ => State::Plain(instance.hold(Use::Plain)?),
        };
        // Gone between the look-up and the hold: nobody could remove it from now on.
        tree.control().instance(node.instance)?;
        let handle =
            Self { tree: tree.clone(), place: node.place, file, access, caller: *caller, text: None, state };
        if let Some(truncate) = file.truncate.filter(|_| access.truncate && access.write) {
            handle.tree.at(&instance, node.place, caller, truncate)?;
        }
        Ok(handle)
    }

    fn hold(&self) -> &Hold {
        match &self.state {
            State::Plain(hold) | State::Trace(hold, _) | State::RawSnapshot(hold, _) => hold,
            State::Pipe(pipe) => pipe.hold(),
            State::Raw(raw) => &raw.hold,
        }
    }

    /// What the file is.
    #[must_use]
    pub fn special(&self) -> Special {
        match self.file.read {
            Read::Pipe | Read::RawSnapshot => Special::Pipe,
            Read::Raw => Special::Raw,
            Read::No => Special::Stream,
            Read::Text(_) | Read::Trace | Read::Snapshot => Special::Text,
        }
    }

    /// Whether reading may take long: others are better not made to wait for it.
    #[must_use]
    pub fn reads_slowly(&self) -> bool {
        matches!(self.file.read, Read::Trace | Read::Snapshot)
    }

    /// Whether writing may take long.
    #[must_use]
    pub fn writes_slowly(&self) -> bool {
        matches!(self.file.write, Write::Set(_))
    }

    /// Reads up to `len` bytes. Text at `offset` of this open's snapshot, which the first read takes and a read at
    /// offset 0 takes anew; a pipe wherever it stands.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn read(&mut self, offset: u64, len: usize) -> Result<Answer, Errno> {
        if !self.access.read {
            return Err(Errno::BADF);
        }
        let control = self.tree.control();
        let (read, place, caller) = (self.file.read, self.place, self.caller);
        match (&mut self.state, read) {
            (State::Pipe(pipe), _) => match pipe.read(control, len.min(TEXT_LEN))? {
                Some(bytes) => Ok(Answer::Bytes(bytes)),
                None => Ok(Answer::Wait(self.wait(0)?)),
            },
            (State::Trace(hold, trace), _) => {
                let cpu = if let Place::CpuFile(cpu, _) = place { Some(u32::from(cpu)) } else { None };
                if trace.as_ref().is_none_or(|trace| offset < trace.start() || offset == 0) {
                    let begin = if let Read::Snapshot = read { Trace::of_snapshot } else { Trace::new };
                    *trace = Some(begin(control, &hold.instance, cpu)?);
                }
                match trace {
                    Some(trace) => trace.read(offset, len.min(TEXT_LEN)).map(Answer::Bytes),
                    None => Err(Errno::IO),
                }
            }
            (State::RawSnapshot(hold, snapshot), _) => {
                // A copy gets no more events, so nobody waits for them.
                snapshot.read(hold.instance.host().snapshot(), len).map(Answer::Bytes)
            }
            (State::Plain(hold), Read::Text(say)) => {
                if self.text.is_none() || offset == 0 {
                    self.text = Some(self.tree.at(&hold.instance, place, &caller, say)?);
                }
                let text = self.text.as_deref().unwrap_or_default();
                let start = usize::try_from(offset).map_or(text.len(), |offset| offset.min(text.len()));
                let bytes = text.iter().skip(start).take(len).copied().collect();
                Ok(Answer::Bytes(bytes))
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// Writes; the number of bytes taken.
    ///
    /// # Errors
    /// The kernel's errno; nothing was changed then.
    pub fn write(&mut self, bytes: &[u8], caller: &Caller) -> Result<usize, Errno> {
        if !self.access.write {
            return Err(Errno::BADF);
        }
        let instance = &self.hold().instance;
        match self.file.write {
            Write::No => Err(Errno::INVAL),
            Write::Set(_) if bytes.len() > WRITE_LEN => Err(Errno::INVAL),
            Write::Set(set) => {
                self.tree.at(instance, self.place, caller, |at| set(at, bytes)).map(|()| bytes.len())
            }
            Write::Take(take) => self.tree.at(instance, self.place, caller, |at| take(at, bytes)),
        }
    }

    /// What `poll` says: `None` when it can be read, else what it waits for.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn poll(&mut self) -> Result<Option<Wait>, Errno> {
        let State::Pipe(pipe) = &mut self.state else { return Ok(None) };
        if pipe.hold().instance.has(bit::BLOCK) {
            return Ok(None);
        }
        let percent = match pipe.cpu() {
            Some(_) => pipe.host().buffer_percent(),
            None => 0,
        };
        let wait = self.wait(percent)?;
        let State::Pipe(pipe) = &mut self.state else { return Ok(None) };
        Ok(if pipe.is_ready()? { None } else { Some(wait) })
    }

    /// What the next bytes of a pipe wait for.
    fn wait(&self, percent: u8) -> Result<Wait, Errno> {
        let State::Pipe(pipe) = &self.state else { return Err(Errno::INVAL) };
        let host = pipe.host();
        let cpus = pipe.cpu().map_or_else(|| host.cpus(), |cpu| vec![cpu]);
        Ok(Wait { host, cpus, percent })
    }

    /// The raw pipe, where the file is one. Its `read`, `mmap`, ioctls and `splice` are the server's business: `read` of
    /// this handle says `EINVAL` for it, and `poll` that it can be read.
    #[must_use]
    pub fn raw(&self) -> Option<&RawPipe> {
        match &self.state {
            State::Raw(raw) => Some(raw),
            _ => None,
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(close) = self.file.close {
            let instance = &self.hold().instance;
            // What closing does cannot fail for anybody to know.
            let _ = self.tree.at(instance, self.place, &self.caller, |at| {
                close(at);
                Ok(())
            });
        }
    }
}
