//! What an instance keeps for events that are yet to be declared: the lines of `event_rules`.

use super::catalog::FTRACE;
use ringtap::event::registry::Event;
use ringtap::instance::Pattern;
use std::fmt;

/// A filter or trigger for the events of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) kind: Kind,
    pub(super) pattern: Pattern,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Filter,
    Trigger,
}

impl Rule {
    /// Parses a line that is none of the others.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        let (pattern, text) = rest.split_once(' ')?;
        let kind = match kind {
            "filter" => Kind::Filter,
            "trigger" => Kind::Trigger,
            _ => return None,
        };
        Some(Self { kind, pattern: pattern.parse().ok()?, text: text.trim().to_owned() })
    }

    pub(super) fn noun(&self) -> &'static str {
        match self.kind {
            Kind::Filter => "filter",
            Kind::Trigger => "trigger",
        }
    }

    /// What the rule takes away, if that is what it does.
    pub(super) fn removed(&self) -> Option<&str> {
        match self.kind {
            Kind::Filter => (self.text == "0").then_some(""),
            Kind::Trigger => self.text.strip_prefix('!'),
        }
    }

    /// Whether this one is no more, once that one is carried out.
    pub(super) fn is_replaced_by(&self, new: &Self) -> bool {
        let is_same_text = match new.kind {
            Kind::Filter => true,
            Kind::Trigger => self.text == new.removed().unwrap_or(&new.text),
        };
        self.kind == new.kind && self.pattern == new.pattern && is_same_text
    }

    pub(super) fn names(&self, event: &Event) -> bool {
        event.system != FTRACE && self.pattern.names(&event.system, &event.name)
    }

    /// Whether it is a trigger that could not be set where the event was not there that it switches.
    pub(super) fn switches(&self, event: &Event) -> bool {
        let switched = self.text.split_once("_event:").map(|(_, switched)| switched);
        let name = switched.and_then(|text| text.split([' ', '\t']).next());
        self.kind == Kind::Trigger
            && name.is_some_and(|name| {
                let mut parts = name.split(':');
                parts.next() == Some(&event.system) && parts.next() == Some(&event.name)
            })
    }

    /// Whether it names one event at most.
    pub(super) fn is_of_one(&self) -> bool {
        is_of_one(&self.pattern)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.noun(), self.pattern, self.text)
    }
}

pub(super) fn is_of_one(pattern: &Pattern) -> bool {
    matches!(pattern, Pattern::Both(Some(_), Some(_)))
}
