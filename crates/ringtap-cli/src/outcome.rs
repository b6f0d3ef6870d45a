//! How a run ended, and the exit status that tells it.

use crate::output::ReaderGone;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::{error, fmt};

/// Something went wrong while running.
const FAILED: u8 = 1;
/// The command line was wrong.
pub const USAGE: u8 = 2;
/// What shells add to the number of a signal.
const SIGNALLED: i32 = 128;

/// The command line asks for what cannot be, whatever the machine is like.
#[derive(Debug)]
pub struct Misuse(pub String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Misuse {}

/// Returns a [`Misuse`] that says this.
#[macro_export]
macro_rules! misuse {
    ($($what:tt)*) => {
        return Err($crate::outcome::Misuse(format!($($what)*)).into())
    };
}

/// How a run that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is done.
    Done,
    /// A signal of this number asked us to stop, and we cleaned up. The process dies of it then, as it would have without
    /// us: a shell's loop ends with Ctrl-C only where its command died of it.
    Stopped(i32),
    /// The command we ran ended like this.
    Command(ExitStatus),
}

impl Outcome {
    /// Of a command that ended like this, where we were told by this signal to stop: if it died of it, we do, too.
    #[must_use]
    pub fn of_command(ended: ExitStatus, caught: Option<i32>) -> Self {
        match caught {
            Some(signal) if ended.signal() == Some(signal) => Self::Stopped(signal),
            _ => Self::Command(ended),
        }
    }

    fn status(self) -> u8 {
        let status = match self {
            Self::Done => 0,
            Self::Stopped(signal) => SIGNALLED + signal,
            Self::Command(ended) => match (ended.code(), ended.signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => SIGNALLED + signal,
                (None, None) => i32::from(FAILED),
            },
        };
        u8::try_from(status).unwrap_or(FAILED)
    }
}

/// Prints what failed, if anything did, and chooses the exit status.
pub fn exit_code(result: anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(outcome) => {
            if let Outcome::Stopped(signal) = outcome {
                // Returns only where the signal does not end a process; then the status tells.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            outcome.status().into()
        }
        Err(error) if ReaderGone::caused(&error) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("ringtap: {error:#}");
            if error.chain().any(|cause| cause.is::<Misuse>()) { USAGE.into() } else { FAILED.into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_status() {
        assert_eq!(Outcome::Done.status(), 0);
        assert_eq!(Outcome::Stopped(2).status(), 130);
        assert_eq!(Outcome::Command(ExitStatus::from_raw(7 << 8)).status(), 7);
        assert_eq!(Outcome::Command(ExitStatus::from_raw(9)).status(), 137);
        let (died, ended) = (ExitStatus::from_raw(2), ExitStatus::from_raw(0));
        assert_eq!(Outcome::of_command(died, Some(2)), Outcome::Stopped(2));
        assert_eq!(Outcome::of_command(died, Some(15)), Outcome::Command(died));
        assert_eq!(Outcome::of_command(ended, Some(2)), Outcome::Command(ended));
    }
}
