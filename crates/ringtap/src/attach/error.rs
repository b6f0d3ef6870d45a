//! Why a process could not attach, or lost its host.

use crate::host::HostError;
use crate::map::MapError;
use rustix::io::Errno;
use std::path::PathBuf;
use std::time::Duration;

/// Why a host could not be reached, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no such file.
    #[error("there is no host at {path}: start one, or name its socket")]
    NoSocket {
        /// The path tried.
        path: PathBuf,
    },
    /// Nobody listens there.
    #[error("the host of {path} has ended: start it again")]
    Dead {
        /// The path tried.
        path: PathBuf,
    },
    /// Somebody else listens there than the host of before.
    #[error(
        "user {uid} listens in the place of this process's host, and is given nothing: attach again to use that host"
    )]
    Stranger {
        /// The user.
        uid: u32,
    },
    /// Something else listens there.
    #[error("{path} is not the socket of a ringtap host: name another")]
    NotAHost {
        /// The path tried.
        path: PathBuf,
    },
    /// The socket's file does not let us.
    #[error("may not attach to {path}: run as the user who owns it, or as root")]
    Permission {
        /// The path tried.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("failed to {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// The host refused, and says why.
    #[error("{reason}")]
    Refused {
        /// The kernel's number for such a refusal.
        errno: i32,
        /// The host's words.
        reason: String,
    },
    /// The host ended, or closed the connection.
    #[error("the host has ended or closed the connection: attach again")]
    Gone,
    /// The host does not answer.
    #[error("the host has not answered within {0:?}: see whether it is stopped, then attach again")]
    Stalled(Duration),
    /// The host's answer cannot be one.
    #[error("the host broke the protocol, {0}: use the same release of ringtap on both sides")]
    Protocol(&'static str),
    /// A text is too long to be sent.
    #[error("{0} bytes do not fit in a request: shorten the format text")]
    TooLong(usize),
    /// The process's own buffers cannot be made.
    #[error("failed to make buffers for the time before there is a host")]
    Early {
        /// Why not.
        #[source]
        source: HostError,
    },
    /// What the host gave is no switchboard.
    #[error("the host's switchboard cannot be mapped")]
    Switchboard {
        /// Why not.
        #[source]
        source: MapError,
    },
    /// What the host gave is no buffer.
    #[error("the buffer of CPU {cpu} cannot be mapped")]
    Map {
        /// The buffer's CPU.
        cpu: u32,
        /// Why not.
        #[source]
        source: MapError,
    },
}

impl AttachError {
    /// Whether another reader consumes the buffer.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_refused(Errno::BUSY)
    }

    /// Whether this process may not attach.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Permission { .. }) || self.is_refused(Errno::ACCESS)
    }

    /// Whether host and client are of different releases.
    #[must_use]
    pub fn is_version(&self) -> bool {
        self.is_refused(Errno::PROTONOSUPPORT)
            || matches!(
                self,
                Self::Map { source: MapError::Version { .. }, .. }
                    | Self::Switchboard { source: MapError::Version { .. } }
            )
    }

    /// Whether the host has as many clients as it takes.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.is_refused(Errno::USERS)
    }

    /// Whether there is no host, or none any more: it may be worth while to try again later.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::NoSocket { .. } | Self::Dead { .. } | Self::Gone | Self::Stalled(_))
    }

    /// Whether the host has no such instance, file or event.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.is_refused(Errno::NOENT)
    }

    /// Whether the host is just starting.
    pub(super) fn is_starting(&self) -> bool {
        self.is_refused(Errno::AGAIN)
    }

    fn is_refused(&self, expected: Errno) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == expected.raw_os_error())
    }
}
