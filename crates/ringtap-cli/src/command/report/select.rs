//! Which records are printed.

use super::group::Group;
use anyhow::{Result, bail};
use ringtap::tracefs::EventName;
use ringtap_format::text::Entry;
use ringtap_format::{Event, Filter};
use std::collections::HashMap;

/// The events of one group that are printed.
pub(super) enum Wanted {
    All,
    /// By the event's number: always where there is no filter, else what satisfies one of them.
    Some(HashMap<u16, Vec<Filter>>),
}

impl Wanted {
    pub(super) fn admits(&self, id: u16, entry: &Entry<'_>, group: &Group) -> bool {
        match self {
            Self::All => true,
            Self::Some(events) => events.get(&id).is_some_and(|filters| {
                filters.is_empty() || filters.iter().any(|filter| filter.matches(entry, group.tasks()))
            }),
        }
    }
}

/// What -e and -F ask for, in each group.
///
/// # Errors
/// No group has such an event, or a filter makes no sense.
pub(super) fn wanted(groups: &[Group], events: &[String], filters: &[String]) -> Result<Vec<Wanted>> {
    let mut wanted: Vec<_> = groups.iter().map(|_| HashMap::new()).collect();
    let (mut named, mut general) = (Vec::new(), Vec::new());
    for filter in filters {
        match split(filter) {
            Some((pattern, condition)) => named.push((pattern, Some(condition))),
            None if events.is_empty() => {
                bail!("'{filter}' names no event; give 'SYSTEM:EVENT: CONDITION', or events with -e")
            }
            None => general.push(filter.trim()),
        }
    }
    for event in events {
        match general.as_slice() {
            [] => named.push((event, None)),
            conditions => named.extend(conditions.iter().map(|condition| (event.as_str(), Some(*condition)))),
        }
    }
    if named.is_empty() {
        return Ok(groups.iter().map(|_| Wanted::All).collect());
    }
    for (pattern, condition) in named {
        add(groups, &mut wanted, pattern, condition)?;
    }
    Ok(wanted.into_iter().map(Wanted::Some).collect())
}

/// Adds the events that a pattern means. Of several, those are left out that the condition makes no sense for.
fn add(
    groups: &[Group],
    wanted: &mut [HashMap<u16, Vec<Filter>>],
    pattern: &str,
    condition: Option<&str>,
) -> Result<()> {
    let (mut added, mut refused) = (false, None);
    for (group, wanted) in groups.iter().zip(wanted) {
        for event in group.formats.iter().filter(|event| name(event).is_meant_by(pattern)) {
            match condition.map(|condition| Filter::parse(condition, event, group.symbols())).transpose() {
                Ok(filter) => {
                    wanted.entry(event.id()).or_default().extend(filter);
                    added = true;
                }
                Err(error) => refused = refused.or(Some((name(event), error))),
            }
        }
    }
    match refused {
        _ if added => Ok(()),
        Some((event, error)) => bail!("cannot filter {event}: {error}"),
        None => bail!("no event matches '{pattern}'; give SYSTEM:EVENT, such as sched:sched_switch"),
    }
}

fn name(event: &Event) -> EventName {
    EventName { system: event.system().to_owned(), name: event.name().to_owned() }
}

/// `EVENT: CONDITION` or `SYSTEM:EVENT: CONDITION`, taken apart.
fn split(filter: &str) -> Option<(&str, &str)> {
    let is_name = |text: &str| {
        let text = text.trim();
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '*' | '?' | '-' | '.');
        !text.is_empty() && text.chars().all(is_part)
    };
    let (first, rest) = filter.split_once(':').filter(|(first, _)| is_name(first))?;
    match rest.split_once(':') {
        Some((second, condition)) if is_name(second) => {
            Some((filter[..first.len() + 1 + second.len()].trim(), condition.trim()))
        }
        _ => Some((first.trim(), rest.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_may_name_its_event() {
        for (filter, parts) in [
            ("sched:sched_switch: prev_pid == 1", Some(("sched:sched_switch", "prev_pid == 1"))),
            ("sched_switch:prev_pid == 1", Some(("sched_switch", "prev_pid == 1"))),
            ("sched:*:comm == \"a:b\"", Some(("sched:*", "comm == \"a:b\""))),
            ("sched_wakeup: comm == \"a:b\"", Some(("sched_wakeup", "comm == \"a:b\""))),
            ("comm == \"a:b\"", None),
            ("prev_pid == 1", None),
        ] {
            assert_eq!(split(filter), parts, "{filter}");
        }
    }
}
