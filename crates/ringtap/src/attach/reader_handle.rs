//! What a reader that consumes has of a host.

use super::connection::Connection;
use super::error::AttachError;
use crate::map::{Access, Mapping};
use crate::wake::{self, Waited};
use ringtap_abi::control::request;
use std::sync::Arc;
use std::time::Duration;

/// The consuming reader's hold on one CPU's buffer: its mapping, and the calls that the host performs for it.
#[derive(Debug)]
pub struct ReaderHandle {
    mapping: Arc<Mapping>,
    claim: Claim,
}

/// The right to consume a buffer. Dropped, it is given back to the host.
#[derive(Debug)]
struct Claim {
    connection: Arc<Connection>,
    cpu: u32,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // If the host is gone, so is the claim.
        let _ = self.connection.ask(request::RELEASE, self.cpu, 0);
    }
}

impl Connection {
    /// Becomes the consuming reader of a CPU's buffer, until the handle is dropped.
    ///
    /// # Errors
    /// [`AttachError::is_busy`] where another reader consumes it.
    pub fn consume(self: &Arc<Self>, cpu: u32) -> Result<ReaderHandle, AttachError> {
        self.ask(request::CLAIM, cpu, 0)?;
        let claim = Claim { connection: Arc::clone(self), cpu };
        Ok(ReaderHandle { mapping: Arc::new(self.map(cpu, Access::Read)?), claim })
    }
}

impl ReaderHandle {
    /// The buffer's CPU.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.claim.cpu
    }

    /// The connection it came from.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.claim.connection
    }

    /// Has the host hand out what is new on the reader page, or the next page; the results are on the meta-page.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn get_reader(&self) -> Result<(), AttachError> {
        self.connection().ask(request::GET_READER, self.cpu(), 0).map(|_| ())
    }

    /// As [`Connection::arm`].
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn arm(&self, percent: u8) -> Result<bool, AttachError> {
        self.connection().arm(self.cpu(), percent)
    }

    /// As [`Connection::wake_all`].
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn wake_all(&self) -> Result<(), AttachError> {
        self.connection().wake_all(self.cpu())
    }

    /// Waits until the buffer is `percent` full (0: until there is anything to read), for `timeout` at most, or
    /// until somebody sends the sleepers away.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn wait(&self, percent: u8, timeout: Option<Duration>) -> Result<Waited, AttachError> {
        wake::wait(&self.mapping.ring(), timeout, || self.arm(percent))
    }
}
