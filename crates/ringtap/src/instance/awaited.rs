//! Events that are awaited: to be on from their declaration on.
//!
//! A program declares its events when it starts. Who wants to see them from the first one on cannot switch on what is
//! not declared yet, and says by name what is awaited.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most patterns that a host keeps: each declaration is compared with all.
pub const MAX_AWAITED: usize = 1024;

/// Which events, as `set_event` names them: `SYSTEM:EVENT`, with `*` for all, or one name of either.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// A system or an event of this name.
    Either(String),
    /// System and event; `None` stands for all.
    Both(Option<String>, Option<String>),
}

/// The text names no events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write SYSTEM:EVENT, SYSTEM:*, or a name: letters, digits, underscores and dashes")]
pub struct PatternError;

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let is_name = |name: &str| !name.is_empty() && name.len() <= 255 && name.chars().all(is_name_char);
        let part = |name: &str| match name {
            "" | "*" => Ok(None),
            name if is_name(name) => Ok(Some(name.to_owned())),
            _ => Err(PatternError),
        };
        match text.split_once(':') {
            Some((system, event)) => Ok(Self::Both(part(system)?, part(event)?)),
            None if is_name(text) => Ok(Self::Either(text.to_owned())),
            None => Err(PatternError),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |name: &Option<String>| name.clone().unwrap_or_else(|| "*".to_owned());
        match self {
            Self::Either(name) => f.write_str(name),
            Self::Both(system, event) => write!(f, "{}:{}", all(system), all(event)),
        }
    }
}

impl Pattern {
    /// Whether it names this event.
    #[must_use]
    pub fn names(&self, system: &str, event: &str) -> bool {
        match self {
            Self::Either(name) => name == system || name == event,
            Self::Both(of, name) => {
                of.as_ref().is_none_or(|of| of == system) && name.as_ref().is_none_or(|name| name == event)
            }
        }
    }
}

/// Who awaits what: bits of instances, by pattern.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    bits: Mutex<BTreeMap<Pattern, u64>>,
}

impl Awaited {
    /// Each change is one step, so a panic of another thread changes nothing.
    fn bits(&self) -> MutexGuard<'_, BTreeMap<Pattern, u64>> {
        self.bits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a pattern for these instances; `false` where there are too many.
    pub(crate) fn add(&self, pattern: Pattern, bits: u64) -> bool {
        let mut all = self.bits();
        if all.len() >= MAX_AWAITED && !all.contains_key(&pattern) {
            return false;
        }
        *all.entry(pattern).or_default() |= bits;
        true
    }

    /// These instances await nothing any more.
    pub(crate) fn clear(&self, bits: u64) {
        self.bits().retain(|_, of| {
            *of &= !bits;
            *of != 0
        });
    }

    /// What these instances await.
    pub(crate) fn of(&self, bits: u64) -> Vec<Pattern> {
        let all = self.bits();
        all.iter().filter(|(_, of)| *of & bits != 0).map(|(pattern, _)| pattern.clone()).collect()
    }

    /// The instances that await this event.
    pub(crate) fn word(&self, system: &str, event: &str) -> u64 {
        let all = self.bits();
        all.iter().filter(|(pattern, _)| pattern.names(system, event)).fold(0, |word, (_, of)| word | of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn patterns_name_events_as_set_event_does() {
        for (text, system, event, named) in [
            ("app:start", "app", "start", true),
            ("app:start", "app", "stop", false),
            ("app:*", "app", "stop", true),
            ("app:", "app", "stop", true),
            ("*:start", "other-app", "start", true),
            ("*:*", "any", "thing", true),
            ("app", "app", "stop", true),
            ("stop", "app", "stop", true),
            ("stop", "app", "start", false),
        ] {
            assert_eq!(pattern(text).names(system, event), named, "{text} {system}:{event}");
        }
        for text in ["", "a b", "a*", "a:b:c", "app:st*", "ä"] {
            assert_eq!(text.parse::<Pattern>(), Err(PatternError), "{text}");
        }
        for text in ["app:start", "app:*", "*:*", "app"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn instances_await_and_forget_by_themselves() {
        let awaited = Awaited::default();
        assert!(
            awaited.add(pattern("app:*"), 1)
                && awaited.add(pattern("start"), 2)
                && awaited.add(pattern("app:*"), 4)
        );
        assert_eq!(awaited.word("app", "start"), 7);
        assert_eq!(awaited.word("app", "stop"), 5);
        assert_eq!(awaited.word("db", "stop"), 0);
        awaited.clear(1);
        assert_eq!((awaited.of(1), awaited.of(4)), (vec![], vec![pattern("app:*")]));
        awaited.clear(6);
        assert_eq!(awaited.word("app", "start"), 0);
        for number in 0..MAX_AWAITED {
            assert!(awaited.add(pattern(&format!("a{number}")), 1));
        }
        assert!(!awaited.add(pattern("more"), 1) && awaited.add(pattern("a0"), 2));
    }
}
