//! Why rules are refused.

use ringtap_abi::rules::{INSTANCES, MAX_TRIGGERS, PIDS};
use rustix::io::Errno;

/// Why rules were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// There is no such instance.
    #[error("no instance {0} can have rules: there are {INSTANCES} at most")]
    NoInstance(usize),
    /// A program is not one.
    #[error("the filter's byte code is damaged: lower the filter again")]
    Program,
    /// More triggers than an event can have.
    #[error("an event can have {MAX_TRIGGERS} triggers in all instances: remove some")]
    TooManyTriggers,
    /// Filters longer than a block.
    #[error("the filters and triggers of the event are too long together: shorten them")]
    TooLong,
    /// A shape that no histogram can have.
    #[error("the histogram's keys are too long, or its size is not possible")]
    Shape,
    /// Nothing is left.
    #[error("no room is left for {0}: remove filters and triggers that are not needed")]
    Full(&'static str),
    /// A pid that no thread can have.
    #[error("{0} is no thread's id: they are below {PIDS}")]
    Pid(u32),
    /// The kernel does not tell who forks.
    #[error(
        "forks cannot be followed, the kernel does not tell of them (perf_event_open: {0}): allow it, or leave event-fork off"
    )]
    Forks(Errno),
    /// The memory holds something else.
    #[error("the memory holds no rules, or those of another version of ringtap")]
    Foreign,
}
