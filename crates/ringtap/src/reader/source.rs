//! Who is asked for the next page: the host in this process, a host behind a socket, or the kernel.

use super::ReadError;
use crate::attach::ReaderHandle;
use crate::host::{Claim, Host, HostError};
use crate::wake::Waited;
use rustix::fd::OwnedFd;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// Performs a buffer's control calls for its reader. Shared with the reader's wakers.
pub(crate) trait Source: Debug + Send + Sync {
    /// The kernel's `TRACE_MMAP_IOCTL_GET_READER`, without waiting; the results are on the meta-page.
    fn get_reader(&self) -> Result<(), ReadError>;

    /// Whether the buffer is `percent` full; where not, the writers wake its futex when it may be.
    fn arm(&self, percent: u8) -> Result<bool, ReadError>;

    /// The memory of the buffer that is read now; `None` where it never changes.
    fn present(&self) -> Result<Option<Arc<OwnedFd>>, ReadError> {
        Ok(None)
    }

    /// Sends away all who sleep on the buffer.
    fn wake_all(&self) -> Result<(), ReadError>;

    /// Sleeps on a buffer whose memory has no futex: the kernel's.
    fn sleep(&self, timeout: Option<Duration>) -> Result<Waited, ReadError> {
        let _ = timeout;
        unreachable!("a ringtap buffer is waited for on its futex")
    }
}

/// The host of this process.
#[derive(Debug)]
pub(super) struct InProcess {
    host: Host,
    claim: Claim,
}

impl InProcess {
    pub(super) fn new(host: &Host, cpu: u32) -> Result<Self, HostError> {
        Ok(Self { host: host.clone(), claim: host.claim(cpu, std::process::id())? })
    }
}

impl Source for InProcess {
    fn get_reader(&self) -> Result<(), ReadError> {
        Ok(self.host.get_reader(self.claim.cpu())?)
    }

    fn arm(&self, percent: u8) -> Result<bool, ReadError> {
        // A reader with time to sleep has time to look at the clocks.
        self.host.calibrate();
        Ok(self.host.arm(self.claim.cpu(), percent)?)
    }

    fn present(&self) -> Result<Option<Arc<OwnedFd>>, ReadError> {
        Ok(Some(self.host.memory_for_consumer(self.claim.cpu())?))
    }

    fn wake_all(&self) -> Result<(), ReadError> {
        Ok(self.host.wake_all(self.claim.cpu())?)
    }
}

/// The host of another process.
impl Source for ReaderHandle {
    fn get_reader(&self) -> Result<(), ReadError> {
        Ok(self.get_reader()?)
    }

    fn arm(&self, percent: u8) -> Result<bool, ReadError> {
        Ok(self.arm(percent)?)
    }

    fn present(&self) -> Result<Option<Arc<OwnedFd>>, ReadError> {
        Ok(Some(Arc::new(self.connection().descriptor(self.cpu())?)))
    }

    fn wake_all(&self) -> Result<(), ReadError> {
        Ok(self.wake_all()?)
    }
}
