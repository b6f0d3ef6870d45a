//! Which records are printed.

use super::group::Group;
use crate::misuse;
use anyhow::{Result, bail};
use ringtap::tracefs::EventName;
use ringtap_format::text::{Common, Entry};
use ringtap_format::{Event, Filter};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

/// The records of one group that are wanted.
pub(super) struct Wanted {
    events: Events,
    place: Place,
}

/// The events of one group that are wanted.
enum Events {
    All,
    /// By the event's number: always where there is no filter, else what satisfies one of them.
    Some(HashMap<u16, Vec<Filter>>),
}

/// Where, when and of whom records are wanted; all, where nothing was chosen.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) cpus: Vec<RangeInclusive<u32>>,
    pub(super) pids: Vec<i32>,
    pub(super) since: Option<u64>,
    pub(super) until: Option<u64>,
}

impl Wanted {
    /// Whether anything of this CPU and time is wanted.
    pub(super) fn admits_place(&self, cpu: u32, time: u64) -> bool {
        let Place { cpus, since, until, .. } = &self.place;
        // Lines show microseconds: who copies a time from one means that line.
        let shown = |bound: u64| {
            if bound.is_multiple_of(1000) { time.saturating_add(500) / 1000 * 1000 } else { time }
        };
        (cpus.is_empty() || cpus.iter().any(|range| range.contains(&cpu)))
            && since.is_none_or(|since| shown(since) >= since)
            && until.is_none_or(|until| shown(until) <= until)
    }

    /// Whether a record is wanted.
    pub(super) fn admits(&self, common: Common, entry: &Entry<'_>, group: &Group) -> bool {
        let is_event = match &self.events {
            Events::All => true,
            Events::Some(events) => events.get(&common.id).is_some_and(|filters| {
                filters.is_empty() || filters.iter().any(|filter| filter.matches(entry, group.tasks()))
            }),
        };
        let pids = &self.place.pids;
        is_event
            && (pids.is_empty() || pids.contains(&common.pid))
            && self.admits_place(entry.cpu, entry.time)
    }

    /// The numbers of the events that were named; none where all are wanted.
    pub(super) fn named(&self) -> Vec<u16> {
        match &self.events {
            Events::All => Vec::new(),
            Events::Some(events) => events.keys().copied().collect(),
        }
    }
}

/// Reads a list of CPUs: `0,2-3`.
///
/// # Errors
/// It is none.
pub(super) fn cpus(list: &str) -> Result<RangeInclusive<u32>, String> {
    let (first, last) = list.split_once('-').unwrap_or((list, list));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("expected numbers such as 0,2-3".to_owned()),
    }
}

/// Reads seconds with up to nine decimals, as nanoseconds.
///
/// # Errors
/// It is no such number.
pub(in crate::command) fn seconds(text: &str) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_part = part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
    let ns = || {
        let whole: u64 = whole.parse().ok()?;
        let part: u64 = format!("{part:0<9}").parse().ok()?;
        whole.checked_mul(1_000_000_000)?.checked_add(part)
    };
    Some(()).filter(|()| is_part).and_then(|()| ns()).ok_or("expected seconds such as 6669.148024".to_owned())
}

/// What -e and -F ask for, in each group.
///
/// # Errors
/// No group has such an event, or a filter makes no sense.
pub(super) fn wanted(
    groups: &[Group],
    events: &[String],
    filters: &[String],
    place: &Place,
) -> Result<Vec<Wanted>> {
    let of = |events| Wanted { events, place: place.clone() };
    let mut wanted: Vec<_> = groups.iter().map(|_| HashMap::new()).collect();
    let (mut named, mut general) = (Vec::new(), Vec::new());
    for filter in filters {
        match split(filter) {
            Some((pattern, condition)) => named.push((pattern, Some(condition))),
            None if events.is_empty() => {
                misuse!("'{filter}' names no event; give 'SYSTEM:EVENT: CONDITION', or events with -e")
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
        return Ok(groups.iter().map(|_| of(Events::All)).collect());
    }
    for (pattern, condition) in named {
        add(groups, &mut wanted, pattern, condition)?;
    }
    Ok(wanted.into_iter().map(|events| of(Events::Some(events))).collect())
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
        None => bail!("no event matches '{pattern}'; {}", known(groups, pattern)),
    }
}

/// The events that there are, shortened: those first that begin most like what was typed.
fn known(groups: &[Group], typed: &str) -> String {
    const SHOWN: usize = 6;
    let alike = |event: &str| {
        let common =
            |one: &str| one.bytes().zip(typed.bytes()).take_while(|(one, other)| one == other).count();
        common(event).max(event.split_once(':').map_or(0, |(_, name)| common(name)))
    };
    let all: BTreeSet<String> = groups
        .iter()
        .flat_map(|group| group.formats.iter())
        .filter(|event| event.system() != "ftrace")
        .map(|event| name(event).to_string())
        .collect();
    let mut sorted: Vec<&str> = all.iter().map(String::as_str).collect();
    sorted.sort_by_key(|event| Reverse(alike(event)));
    sorted.truncate(SHOWN);
    let shown = sorted.join(", ");
    match all.len() {
        0 => "the files describe none".to_owned(),
        len @ 1..=SHOWN => format!("there {} {shown}", if len == 1 { "is" } else { "are" }),
        len => format!("there are {shown} and {} more", len - SHOWN),
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
    fn places_and_times_are_numbers() {
        assert_eq!(cpus("3"), Ok(3..=3));
        assert_eq!(cpus("2-5"), Ok(2..=5));
        for wrong in ["", "x", "5-2", "-1", "1-"] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
        assert_eq!(seconds("6669.148024"), Ok(6_669_148_024_000));
        assert_eq!(seconds("1"), Ok(1_000_000_000));
        assert_eq!(seconds("0.000000001"), Ok(1));
        for wrong in ["", ".", "-1", "1.0000000001", "1e3", "99999999999999999999"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

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
