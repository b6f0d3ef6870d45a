//! An open file.

#![forbid(unsafe_code)]

use crate::control::Caller;
use ringtap::{Host, HostError, Waited};
use rustix::io::Errno;
use std::time::Duration;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// `O_TRUNC`: on `trace` it empties the buffers, on lists the list.
    pub truncate: bool,
    /// `O_APPEND`: writes add to a list.
    pub append: bool,
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
    pub(super) host: Host,
    pub(super) cpus: Vec<u32>,
    pub(super) percent: u8,
}

/// What a file is besides text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Text of this open: reads of any offset see the same.
    Text,
    /// A consumed stream of text (`trace_pipe`): offsets mean nothing.
    Pipe,
    /// Sub-buffers (`trace_pipe_raw`): see [`Handle::raw`].
    Raw,
}

/// One CPU's `trace_pipe_raw`, open: what mapping, reading, polling and splicing it need.
#[derive(Clone, Debug)]
pub struct RawPipe {
    cpu: u32,
    host: Host,
}

/// An open file. Closed when it is dropped.
#[derive(Debug)]
pub struct Handle {}

impl Wait {
    /// Whether a read would find something now.
    ///
    /// # Errors
    /// As [`Host::wait`].
    pub fn is_ready(&self) -> Result<bool, HostError> {
        todo!()
    }

    /// Waits, for `timeout` at most: a thread of the server's own does.
    ///
    /// # Errors
    /// As [`Host::wait`].
    pub fn wait(&self, timeout: Duration) -> Result<Waited, HostError> {
        let _ = (timeout, &self.host, &self.cpus, self.percent);
        todo!()
    }
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
        self.host.clone()
    }

    /// The instance's `buffer_percent` now.
    #[must_use]
    pub fn buffer_percent(&self) -> u8 {
        todo!()
    }
}

impl Handle {
    /// What the file is.
    #[must_use]
    pub fn special(&self) -> Special {
        todo!()
    }

    /// Reads up to `len` bytes. Text at `offset` of this open's snapshot, which the first read takes and a read at
    /// offset 0 takes anew; a pipe wherever it stands.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn read(&mut self, offset: u64, len: usize, caller: &Caller) -> Result<Answer, Errno> {
        let _ = (offset, len, caller);
        todo!()
    }

    /// Writes; the number of bytes taken.
    ///
    /// # Errors
    /// The kernel's errno; nothing was changed then.
    pub fn write(&mut self, bytes: &[u8], caller: &Caller) -> Result<usize, Errno> {
        let _ = (bytes, caller);
        todo!()
    }

    /// `ftruncate(0)`: accepted, and without effect, as in the kernel; `O_TRUNC` is what empties.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn truncate(&mut self) -> Result<(), Errno> {
        todo!()
    }

    /// What `poll` says: `None` when it can be read, else what it waits for.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn poll(&mut self) -> Result<Option<Wait>, Errno> {
        todo!()
    }

    /// The raw pipe, where the file is one. Its `read`, `mmap`, ioctls and `splice` are the server's business: `read` and
    /// `poll` of this handle say `EINVAL` for it.
    #[must_use]
    pub fn raw(&self) -> Option<&RawPipe> {
        todo!()
    }
}
