//! Events of another process's host that are on for as long as somebody follows them.

use crate::remote::{Remote, errno};
use anyhow::{Result, bail};
use ringtap::instance::Pattern;
use rustix::io::Errno;
use std::collections::BTreeSet;

/// What is switched on. Dropping it brings back what was before; what others switch meanwhile stays as they want it.
#[derive(Debug)]
pub struct Switched {
    remote: Remote,
    patterns: Vec<Pattern>,
    before: State,
}

/// What the host's files say.
#[derive(Debug)]
struct State {
    /// The events that are on, `SYSTEM:EVENT`.
    on: BTreeSet<String>,
    /// The patterns whose events are on once they are declared, a line each.
    awaited: String,
    is_recording: bool,
}

impl State {
    fn of(remote: &Remote) -> Result<Self> {
        Ok(Self {
            on: remote.read("set_event")?.lines().map(str::to_owned).collect(),
            awaited: remote.read("awaited_events")?,
            is_recording: remote.read("tracing_on")?.trim() == "1",
        })
    }
}

impl Switched {
    /// Switches the events of these patterns on, as `ringtap start -e` does, and recording.
    ///
    /// # Errors
    /// The host is gone, or its events cannot be switched.
    pub fn on(remote: Remote, patterns: Vec<Pattern>) -> Result<Self> {
        let before = match State::of(&remote) {
            Err(error) if errno(&error).is_some_and(|errno| errno != Errno::ACCESS) => {
                bail!(
                    "the events of a program's own host are always on: leave out -e, and choose when you look at them"
                )
            }
            before => before?,
        };
        let lines: String = patterns.iter().map(|pattern| format!("on {pattern}\n")).collect();
        let switched = Self { remote, patterns, before };
        switched.remote.write("event_rules", &lines)?;
        switched.remote.write("tracing_on", "1")?;
        Ok(switched)
    }

    /// The patterns that mean no event that was declared by now.
    ///
    /// # Errors
    /// The host is gone.
    pub fn awaited(&self) -> Result<Vec<String>> {
        let declared = self.remote.events()?;
        let is_declared =
            |pattern: &&Pattern| declared.iter().any(|(system, event)| pattern.names(system, event));
        Ok(self.patterns.iter().filter(|pattern| !is_declared(pattern)).map(Pattern::to_string).collect())
    }

    /// Brings back what was before, as far as the host lives.
    fn restore(&self) -> Result<()> {
        let now = State::of(&self.remote)?;
        for event in now.on.difference(&self.before.on) {
            let (system, name) = event.split_once(':').unwrap_or((event, ""));
            if self.patterns.iter().any(|pattern| pattern.names(system, name)) {
                self.remote.write("set_event", &format!("!{event}"))?;
            }
        }
        if now.awaited != self.before.awaited {
            self.remote.write("awaited_events", "")?;
            if !self.before.awaited.is_empty() {
                self.remote.write("awaited_events", &self.before.awaited)?;
            }
        }
        if !self.before.is_recording {
            self.remote.write("tracing_on", "0")?;
        }
        Ok(())
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        // A host that is gone has nothing to be switched.
        let _ = self.restore();
    }
}
