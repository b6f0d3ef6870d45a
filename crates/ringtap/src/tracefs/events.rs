//! Which events a user means.

use super::error::{Error, Problem};
use std::collections::BTreeSet;
use std::fmt;

/// How many near matches an error names.
const MAX_SUGGESTIONS: usize = 3;

/// An event's two names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventName {
    /// The system it belongs to, such as `sched`.
    pub system: String,
    /// Its name within the system, such as `sched_switch`.
    pub name: String,
}

impl EventName {
    /// Reads `SYSTEM:EVENT`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (system, name) = text.trim().split_once(':')?;
        (!system.is_empty() && !name.is_empty()).then(|| Self { system: system.into(), name: name.into() })
    }

    /// Whether a pattern means this event: `SYSTEM:EVENT`, either part with `*` and `?`, or one word that names
    /// an event or a whole system.
    #[must_use]
    pub fn is_meant_by(&self, pattern: &str) -> bool {
        means(pattern, self)
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.system, self.name)
    }
}

/// The events of `all` that `pattern` means, in the order of `all`.
pub(super) fn resolve(all: &[EventName], pattern: &str) -> Result<Vec<EventName>, Error> {
    let found: Vec<_> = all.iter().filter(|event| means(pattern, event)).cloned().collect();
    if found.is_empty() {
        return Err(Problem::UnknownEvent { pattern: pattern.into(), near: nearest(all, pattern) }.into());
    }
    Ok(found)
}

/// A lone word means an event or a whole system, as it does in the kernel's `set_event`.
fn means(pattern: &str, event: &EventName) -> bool {
    match pattern.split_once(':') {
        Some((system, name)) => glob(system, &event.system) && glob(name, &event.name),
        None => glob(pattern, &event.name) || glob(pattern, &event.system),
    }
}

/// Whether `pattern`, with `*` for any run of characters and `?` for any one, matches all of `text`.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star did not match: the star then takes one byte more.
    let mut last_star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                last_star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star, taken)) = last_star else { return false };
                last_star = Some((star, taken + 1));
                p = star + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// The events that a mistyped pattern may have meant, nearest first.
fn nearest(all: &[EventName], pattern: &str) -> Vec<String> {
    let typed = pattern.to_lowercase();
    let (system, name) = typed.split_once(':').unwrap_or(("", &typed));
    let limit = name.len().div_ceil(3);
    let mut near: BTreeSet<(usize, String)> = BTreeSet::new();
    for event in all {
        let mut away = distance(name, &event.name);
        if away > limit && !(name.len() >= 4 && event.name.contains(name)) {
            continue;
        }
        if !system.is_empty() && system != event.system {
            away += 1;
        }
        near.insert((away, event.to_string()));
    }
    near.into_iter().take(MAX_SUGGESTIONS).map(|(_, name)| name).collect()
}

/// How near two names are: insertions, deletions and replacements from one to the other.
#[must_use]
pub fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<EventName> {
        [
            "sched:sched_switch",
            "sched:sched_waking",
            "irq:irq_handler_entry",
            "irq:irq_handler_exit",
            "skb:kfree",
        ]
        .into_iter()
        .filter_map(EventName::parse)
        .collect()
    }

    fn found(pattern: &str) -> Vec<String> {
        resolve(&events(), pattern).unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn patterns_mean_events_and_systems() {
        assert_eq!(found("sched:sched_switch"), ["sched:sched_switch"]);
        assert_eq!(found("sched:*"), ["sched:sched_switch", "sched:sched_waking"]);
        assert_eq!(found("irq"), ["irq:irq_handler_entry", "irq:irq_handler_exit"]);
        assert_eq!(found("kfree"), ["skb:kfree"]);
        assert_eq!(found("*_e?it"), ["irq:irq_handler_exit"]);
        assert_eq!(found("*:*").len(), events().len());
        assert_eq!(found("sched"), found("sched:*"));
        assert!(found("").is_empty() && found(":").is_empty() && found("sched:").is_empty());
    }

    #[test]
    fn globs_match_whole_words() {
        assert!(glob("*", "") && glob("a*c*e", "abcde") && glob("**", "x") && glob("*ab", "aab"));
        assert!(!glob("a", "ab") && !glob("b", "ab") && !glob("?", "") && !glob("a*b", "ac"));
    }

    #[test]
    fn an_unknown_event_names_its_neighbours() {
        let error = resolve(&events(), "sched:sched_swich").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no event matches 'sched:sched_swich'; did you mean sched:sched_switch?"
        );
        let error = resolve(&events(), "irq:handler").unwrap_err().to_string();
        assert!(error.ends_with("did you mean irq:irq_handler_exit or irq:irq_handler_entry?"), "{error}");
        let error = resolve(&events(), "no_such_thing_at_all").unwrap_err();
        assert!(error.to_string().ends_with("available_events in the tracefs for all names"), "{error}");
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
