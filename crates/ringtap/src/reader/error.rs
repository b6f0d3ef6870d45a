//! Why a buffer cannot be read, with the remedy.

use crate::attach::AttachError;
use crate::host::HostError;
use crate::map::MapError;
use std::io;

/// Why a buffer could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The kernel has no mapping for this file.
    #[error(
        "the kernel cannot map the buffer of CPU {0}: that takes Linux 6.10 or later, and the trace_pipe_raw of an instance that does not live in reserved memory"
    )]
    NoMapping(u32),
    /// The kernel has no buffer for this CPU.
    #[error("the kernel has no buffer for CPU {0}: see /sys/devices/system/cpu/online")]
    NoSuchCpu(u32),
    /// This process may not map it.
    #[error(
        "no permission to map the buffer of CPU {0}; run as root, and outside a container or kernel lockdown"
    )]
    NoPermission(u32),
    /// Something else holds the kernel's buffer.
    #[error("the kernel's buffer of CPU {0} is busy: disarm the snapshot of its instance first")]
    Busy(u32),
    /// The descriptor is something else.
    #[error("the descriptor is no trace_pipe_raw of a tracefs: {0}")]
    Foreign(&'static str),
    /// The meta-page says what cannot be.
    #[error(
        "the meta-page of CPU {cpu}'s buffer says {field} is {value}, which cannot be: somebody has scribbled on it"
    )]
    Damaged {
        /// The buffer.
        cpu: u32,
        /// The meta-page's field.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// A ringtap buffer could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The host refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The host of another process refused, or is gone.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The system refused.
    #[error("failed to {action} of CPU {cpu}'s buffer")]
    System {
        /// What was tried.
        action: &'static str,
        /// The buffer.
        cpu: u32,
        /// The answer.
        #[source]
        source: io::Error,
    },
}
