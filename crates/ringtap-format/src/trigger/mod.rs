//! The kernel's event triggers: `traceoff:3 if errno != 0`, `hist:keys=pid:values=bytes:sort=bytes.descending`.
//!
//! What the kernel accepts in an event's `trigger` file is accepted here, what it refuses is refused for the same reason;
//! a trigger prints itself as that file shows it.
//!
//! | trigger | does |
//! | --- | --- |
//! | `traceon`, `traceoff` | switches recording |
//! | `snapshot` | takes a snapshot |
//! | `stacktrace` | records the stack |
//! | `enable_event:SYSTEM:EVENT`, `disable_event:SYSTEM:EVENT` | switches another event |
//! | `hist:keys=…` | counts the event in a histogram: see [`hist`] |
//!
//! All but `hist` take a count, `:N`: how often they act at most. All take a filter, ` if FILTER`. A `!` in front
//! removes a trigger.

mod error;
pub mod hist;
mod hist_text;
mod parse;

pub use error::{HistErrorKind, TriggerError};
pub use hist::Hist;
pub use hist_text::{HistRow, HistTable};

use crate::event::Event;
use crate::filter::Filter;
use crate::symbols::Symbols;
use std::fmt;

/// The names of all triggers, as an event's `trigger` file lists them while it has none.
pub const AVAILABLE: &str =
    "# Available triggers:\n# traceon traceoff snapshot stacktrace enable_event disable_event hist\n";

/// What is written to a `trigger` file.
#[derive(Clone, Debug)]
pub enum Command {
    /// Adds a trigger. A `hist` may instead pause, continue or clear one that is there: [`Hist::change`].
    Add(Box<Trigger>),
    /// Removes the trigger that [is the same](Trigger::is_same) as this one, if there is one.
    Remove(Box<Trigger>),
}

/// A trigger.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// What it does.
    pub action: Action,
    /// How often, at most.
    pub count: Option<u64>,
    /// Its filter: as it was written, and ready to match.
    pub filter: Option<(String, Filter)>,
}

/// What a trigger does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `traceon`
    TraceOn,
    /// `traceoff`
    TraceOff,
    /// `snapshot`
    Snapshot,
    /// `stacktrace`
    Stacktrace,
    /// `enable_event`, or `disable_event`.
    Switch {
        /// The other event's system.
        system: String,
        /// Its name.
        event: String,
        /// Whether it is switched on.
        on: bool,
    },
    /// `hist`
    Hist(Box<Hist>),
}

impl Command {
    /// Parses what is written to the `trigger` file of `event`; `symbols` are asked for functions. Nothing but blanks is
    /// no command. Whether there is another event that a trigger names is for the caller to find out.
    ///
    /// # Errors
    /// Says what the kernel would say, and where it says nothing, its error number.
    pub fn parse(text: &str, event: &Event, symbols: &Symbols) -> Result<Option<Self>, TriggerError> {
        parse::command(text, event, symbols)
    }
}

impl Trigger {
    /// Whether two triggers of an event cannot be there at once, and removing one removes the other: the kernel's
    /// counts and filters do not matter, nor whether something is switched on or off. Histograms differ if anything
    /// does.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.action, &other.action) {
            (Action::TraceOn | Action::TraceOff, Action::TraceOn | Action::TraceOff)
            | (Action::Snapshot, Action::Snapshot)
            | (Action::Stacktrace, Action::Stacktrace) => true,
            (
                Action::Switch { system, event, .. },
                Action::Switch { system: their_system, event: their_event, .. },
            ) => system == their_system && event == their_event,
            (Action::Hist(ours), Action::Hist(theirs)) => {
                let text = |trigger: &Self| trigger.filter.as_ref().map(|(text, _)| text.clone());
                ours.is_same(theirs) && text(self) == text(other)
            }
            _ => false,
        }
    }

    /// The line of the `trigger` file, without its end; `left` is how often the trigger may still act.
    #[must_use]
    pub fn text(&self, left: Option<u64>, is_paused: bool) -> String {
        let mut text = self.action.to_string();
        if !matches!(self.action, Action::Hist(_)) {
            text += &left.map_or_else(|| ":unlimited".to_owned(), |left| format!(":count={left}"));
        }
        if let Some((filter, _)) = &self.filter {
            text += " if ";
            text += filter;
        }
        if matches!(self.action, Action::Hist(_)) {
            text += if is_paused { " [paused]" } else { " [active]" };
        }
        text
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TraceOn => f.write_str("traceon"),
            Self::TraceOff => f.write_str("traceoff"),
            Self::Snapshot => f.write_str("snapshot"),
            Self::Stacktrace => f.write_str("stacktrace"),
            Self::Switch { system, event, on } => {
                write!(f, "{}:{system}:{event}", if *on { "enable_event" } else { "disable_event" })
            }
            Self::Hist(hist) => hist.fmt(f),
        }
    }
}

/// What triggers promise on any text: a command whose own text is one again, or an error that lies in the text.
pub fn check_trigger(text: &str, event: &Event) {
    let symbols = Symbols::default();
    match Command::parse(text, event, &symbols) {
        Ok(Some(Command::Add(trigger))) => {
            let filter = trigger.filter.as_ref().map(|(filter, _)| format!(" if {filter}"));
            let text = format!("{}{}", trigger.action, filter.unwrap_or_default());
            // The kernel, too, prints sort keys with modifiers that it does not take, and filters with blanks around.
            if let Ok(Some(Command::Add(again))) = Command::parse(&text, event, &symbols) {
                assert!(trigger.is_same(&again), "{text:?} is another trigger");
                assert_eq!(again.text(None, false), trigger.text(None, false));
            }
            if let Action::Hist(hist) = &trigger.action
                && let Ok(shape) = hist.shape()
            {
                assert!(shape.is_sane(), "{text:?}: {shape:?}");
            }
        }
        Ok(_) => {}
        Err(error) => {
            if let Some(log) = error.log(event) {
                assert!(log.ends_with("^\n"), "{log}");
            }
        }
    }
}
