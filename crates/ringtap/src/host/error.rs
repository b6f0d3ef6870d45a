//! What a host cannot do.

use crate::map::MapError;

/// Why the host could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The memory could not be made.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The CPUs of this machine are not known.
    #[error("failed to find this machine's CPUs (is /sys mounted?)")]
    Cpus(#[source] std::io::Error),
    /// There is no buffer for this CPU.
    #[error("there is no buffer for CPU {0}: see /sys/devices/system/cpu/possible")]
    NoSuchCpu(u32),
    /// A percentage above 100.
    #[error("a buffer cannot be {0} percent full: use 0 to 100")]
    Percent(u64),
    /// A word in shared memory cannot be true.
    #[error("the memory of CPU {0}'s buffer is damaged: a writer has scribbled on it; restart the host")]
    Damaged(u32),
    /// Writers kept a buffer so busy that it could not be emptied.
    #[error("failed to reset the buffer of CPU {0}: its writers leave no chance; switch recording off first")]
    Busy(u32),
    /// The buffer's CPU is not for this process, so that nothing can be done there between its writers' events.
    #[error(
        "this process may not run on CPU {0}, and so cannot resize its buffer: resize it from outside the cpuset"
    )]
    Unreachable(u32),
    /// The buffers are files.
    #[error("persistent buffers cannot be resized: start a new host with other sizes")]
    Persistent,
    /// The clock counts events in the buffers' memory.
    #[error("buffers with the clock `counter` cannot be resized: set another clock first")]
    Counter,
    /// Another reader consumes the buffer.
    #[error(
        "the buffer of CPU {cpu} is being consumed by process {pid}: end it, or follow without consuming, as `ringtap stream --attach` does"
    )]
    Claimed {
        /// The buffer's CPU.
        cpu: u32,
        /// The process that reads it.
        pid: u32,
    },
}
