//! An event's rules in one instance: their texts, and what is in force.

use ringtap::Instances;
use ringtap::rules::{self, Counter, Hist};
use ringtap_format::Filter;
use ringtap_format::trigger::{Action, Trigger};
use rustix::io::Errno;

/// An event's rules in one instance.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// What the `filter` file shows: a filter, or what is wrong with the last one.
    pub(super) text: Option<String>,
    /// The filter in force.
    pub(super) filter: Option<Vec<u64>>,
    /// The newest first, as the kernel keeps them.
    pub(super) triggers: Vec<Armed>,
}

/// A trigger that is in force.
#[derive(Clone, Debug)]
pub(super) struct Armed {
    pub(super) trigger: Trigger,
    /// As it was written.
    pub(super) text: String,
    pub(super) counter: Option<Counter>,
    pub(super) hist: Option<Hist>,
    /// The event that it switches.
    pub(super) other: Option<u16>,
    pub(super) is_paused: bool,
}

impl Entry {
    /// Whether a trigger of the event, itself off or on, makes its file show a star.
    pub(super) fn has_triggers(&self) -> bool {
        !self.triggers.is_empty()
    }

    /// Whether a trigger may switch this event.
    pub(super) fn switches(&self, id: u16) -> bool {
        self.triggers.iter().any(|armed| armed.other == Some(id))
    }
}

impl Armed {
    pub(super) fn rule(&self) -> Result<rules::Trigger, Errno> {
        let action = match (&self.trigger.action, self.other, self.hist) {
            (Action::TraceOn, ..) => rules::Action::TraceOn,
            (Action::TraceOff, ..) => rules::Action::TraceOff,
            (Action::Snapshot, ..) => rules::Action::Snapshot,
            (Action::Stacktrace, ..) => rules::Action::Stacktrace,
            (Action::Switch { on: true, .. }, Some(id), _) => rules::Action::EnableEvent(id),
            (Action::Switch { on: false, .. }, Some(id), _) => rules::Action::DisableEvent(id),
            (Action::Hist(_), _, Some(hist)) => rules::Action::Hist(hist),
            _ => return Err(Errno::INVAL),
        };
        let filter = self.trigger.filter.as_ref().map(|(_, filter)| program(filter)).transpose()?;
        Ok(rules::Trigger { action, counter: self.counter, filter, is_paused: self.is_paused })
    }

    pub(super) fn line(&self, instances: &Instances) -> String {
        let left = self.counter.map(|counter| u64::from(instances.left(counter)));
        self.trigger.text(left, self.is_paused)
    }

    /// Gives back what it has of the host's.
    pub(super) fn free(&self, instances: &Instances) {
        if let Some(counter) = self.counter {
            instances.free_counter(counter);
        }
        if let Some(hist) = self.hist {
            instances.free_hist(hist);
        }
    }
}

/// A filter as what writers evaluate.
pub(super) fn program(filter: &Filter) -> Result<Vec<u64>, Errno> {
    filter.lower().map_err(|_| Errno::INVAL)
}
