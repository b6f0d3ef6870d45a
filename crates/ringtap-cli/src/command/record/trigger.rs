//! What asks a flight recorder for a snapshot.

use crate::misuse;
use anyhow::Result;
use ringtap::tracefs::EventName;
use signal_hook::consts::{SIGUSR1, SIGUSR2};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A reason to write a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// This signal, each time.
    Signal(i32),
    /// This event, the kernel's or the application's, which ends the recording.
    Event(EventName),
    /// The end of the recording, however it comes.
    Exit,
    /// The death of a program that traces, by a signal or a panic.
    Crash,
}

impl Trigger {
    /// Reads a signal's name, `exit`, `crash`, or `SYSTEM:EVENT`.
    ///
    /// # Errors
    /// It is none of these.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let upper = text.to_ascii_uppercase();
        match upper.strip_prefix("SIG").unwrap_or(&upper) {
            "USR1" => return Ok(Self::Signal(SIGUSR1)),
            "USR2" => return Ok(Self::Signal(SIGUSR2)),
            "EXIT" => return Ok(Self::Exit),
            "CRASH" => return Ok(Self::Crash),
            _ => {}
        }
        match EventName::parse(text) {
            Some(event) => Ok(Self::Event(event)),
            None => {
                misuse!(
                    "'{text}' triggers nothing; give USR1, USR2, exit, crash, or an event such as oom:mark_victim"
                )
            }
        }
    }

    /// The event, where it is one.
    pub(super) fn event(&self) -> Option<&EventName> {
        match self {
            Self::Event(event) => Some(event),
            _ => None,
        }
    }
}

/// Those that were asked for.
#[derive(Debug)]
pub(super) struct Triggers {
    all: Vec<Trigger>,
    signalled: Arc<AtomicBool>,
}

impl Triggers {
    /// From now on the signals are noted.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(super) fn new(all: &[Trigger]) -> Result<Self> {
        let signalled = Arc::new(AtomicBool::new(false));
        for trigger in all {
            if let Trigger::Signal(signal) = trigger {
                signal_hook::flag::register(*signal, Arc::clone(&signalled))?;
            }
        }
        Ok(Self { all: all.to_vec(), signalled })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn contains(&self, trigger: &Trigger) -> bool {
        self.all.contains(trigger)
    }

    pub(super) fn has_events(&self) -> bool {
        self.all.iter().any(|trigger| trigger.event().is_some())
    }

    /// Whether a signal came since the last time.
    pub(super) fn take_signal(&self) -> bool {
        // Relaxed: that it came is all that the handler tells.
        self.signalled.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_signals_events_and_the_end() {
        assert_eq!(Trigger::parse("USR1").unwrap(), Trigger::Signal(SIGUSR1));
        assert_eq!(Trigger::parse("sigusr2").unwrap(), Trigger::Signal(SIGUSR2));
        assert_eq!(Trigger::parse("exit").unwrap(), Trigger::Exit);
        assert_eq!(Trigger::parse("Crash").unwrap(), Trigger::Crash);
        assert_eq!(Trigger::parse("oom:mark_victim").unwrap().event().unwrap().name, "mark_victim");
        assert!(Trigger::parse("KILL").unwrap_err().to_string().contains("'KILL' triggers nothing"));
    }
}
