//! The numbers that the kernel's control files refuse with, for the errors of a host and its instances.

use ringtap::HostError;
use ringtap::instance::InstanceError;
use ringtap::rules::RulesError;
use rustix::io::Errno;

/// The errno of a host's error.
pub(super) fn errno(error: &HostError) -> Errno {
    match error {
        HostError::Map(_) => Errno::NOMEM,
        HostError::NoSuchCpu(_) => Errno::NODEV,
        HostError::Percent(_) => Errno::INVAL,
        HostError::Busy(_) | HostError::Claimed { .. } => Errno::BUSY,
        HostError::Persistent => Errno::OPNOTSUPP,
        _ => Errno::IO,
    }
}

/// The errno of an instance's error.
pub(super) fn instance_errno(error: &InstanceError) -> Errno {
    match error {
        InstanceError::Name { .. } => Errno::INVAL,
        InstanceError::Exists { .. } => Errno::EXIST,
        InstanceError::NotFound { .. } => Errno::NOENT,
        InstanceError::TooMany | InstanceError::TooManyAwaited => Errno::NOSPC,
        InstanceError::Removed { .. } => Errno::NODEV,
        InstanceError::Rules(RulesError::Program | RulesError::Shape | RulesError::Pid(_)) => Errno::INVAL,
        InstanceError::Rules(RulesError::Forks(errno)) => *errno,
        InstanceError::Rules(_) => Errno::NOSPC,
        InstanceError::InUse { .. } => Errno::BUSY,
        InstanceError::Host(error) => errno(error),
        _ => Errno::IO,
    }
}
