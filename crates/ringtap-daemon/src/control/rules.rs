//! `filter`, `trigger` and `hist` files: what an event's rules say, as text and in force.
//!
//! The texts are kept here; what writers obey is published with each change, filter and triggers of an event together,
//! all or nothing.

use super::Control;
use super::catalog::Catalog;
use super::instance::{Instance, instance_errno};
use super::saved::{Texts, escaped};
use crate::limits::WRITE_LEN;
use ringtap::event::registry::Event;
use ringtap::rules::{self, Counter, Hist};
use ringtap_format::filter::FilterErrorKind;
use ringtap_format::trigger::hist::Change;
use ringtap_format::trigger::{
    AVAILABLE, Action, Command, HistErrorKind, HistRow, HistTable, Trigger, TriggerError,
};
use ringtap_format::{Filter, FilterError, Formats, Symbols};
use rustix::io::Errno;
use std::fmt::Write;
use std::sync::Arc;

/// Who finds the errors of filters, as `error_log` has it.
const PARSER: &str = "event filter parse error";
/// What a system's filter leaves at the events that do not have its fields.
const NOT_THIS_EVENT: &str = "Couldn't find or set field in one of a subsystem's events";

/// What a system's `filter` shows: it has no filter of its own. The kernel's words, as scripts compare them.
pub(crate) const OF_SYSTEM: &[u8] = b"### global filter ###\n\
    # Use this to set filters for multiple events.\n\
    # Only events with the given fields will be affected.\n\
    # If no events are modified, an error message will be displayed here\n";

/// An event's rules in one instance.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// What the `filter` file shows: a filter, or what is wrong with the last one.
    text: Option<String>,
    /// The filter in force.
    filter: Option<Vec<u64>>,
    /// The newest first, as the kernel keeps them.
    triggers: Vec<Armed>,
}

/// A trigger that is in force.
#[derive(Clone, Debug)]
struct Armed {
    trigger: Trigger,
    /// As it was written.
    text: String,
    counter: Option<Counter>,
    hist: Option<Hist>,
    /// The event that it switches.
    other: Option<u16>,
    is_paused: bool,
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
    fn rule(&self) -> Result<rules::Trigger, Errno> {
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

    fn line(&self, control: &Control) -> String {
        let left = self.counter.map(|counter| u64::from(control.instances().left(counter)));
        self.trigger.text(left, self.is_paused)
    }

    /// Gives back what it has of the host's.
    fn free(&self, control: &Control) {
        if let Some(counter) = self.counter {
            control.instances().free_counter(counter);
        }
        if let Some(hist) = self.hist {
            control.instances().free_hist(hist);
        }
    }
}

/// A filter as what writers evaluate.
fn program(filter: &Filter) -> Result<Vec<u64>, Errno> {
    filter.lower().map_err(|_| Errno::INVAL)
}

/// What a write says, without the spaces behind it.
fn command(bytes: &[u8]) -> Result<&str, Errno> {
    if bytes.len() >= WRITE_LEN {
        return Err(Errno::INVAL);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::INVAL)?;
    Ok(text.split('\0').next().unwrap_or_default().trim_end())
}

fn parse(text: &str, event: &Event, formats: &Formats) -> Result<Filter, FilterError> {
    let wrong = |kind| FilterError { kind, text: text.to_owned(), place: 0 };
    let decoded = formats.by_id(event.id).ok_or_else(|| wrong(FilterErrorKind::FieldNotFound))?;
    Filter::parse(text, decoded, &Symbols::default())
}

/// What the file shows after an error: the filter, a caret, what is wrong. An error without a name has a number.
fn complaint(error: &FilterError) -> String {
    let mut text = error.text.clone();
    match error.kind {
        FilterErrorKind::Other => text.push_str("\nError: (0)\n"),
        kind => {
            let place = error.place.min(text.len());
            let _ = write!(text, "\n{:place$}^\nparse_error: {}\n", "", kind.message());
        }
    }
    text
}

/// The event that a trigger switches, if it is of that kind.
fn switched(catalog: &Catalog, trigger: &Trigger) -> Result<Option<u16>, Errno> {
    let Action::Switch { system, event, .. } = &trigger.action else { return Ok(None) };
    let other = catalog.switchable().find(|it| it.system == *system && it.name == *event);
    Ok(Some(other.ok_or(Errno::INVAL)?.id))
}

impl Instance {
    /// Puts a filter in an event's entry, or takes it out, and in force; else everything stays.
    fn set_filter(&self, event: &Event, text: Option<String>, filter: Option<Vec<u64>>) -> Result<(), Errno> {
        let mut entries = self.rules();
        let entry = entries.entry(event.id).or_default();
        let before = std::mem::replace(&mut entry.filter, filter);
        if let Err(errno) = self.publish(event.id, entry) {
            entry.filter = before;
            return Err(errno);
        }
        entry.text = text;
        Ok(())
    }

    fn publish(&self, id: u16, entry: &Entry) -> Result<(), Errno> {
        let triggers = entry.triggers.iter().map(Armed::rule).collect::<Result<_, _>>()?;
        let rules = rules::Rules { filter: entry.filter.clone(), triggers };
        self.inner.set_rules(id, rules).map_err(|error| instance_errno(&error))
    }

    pub(crate) fn filter_text(&self, id: u16) -> Vec<u8> {
        match self.rules().get(&id).and_then(|entry| entry.text.as_ref()) {
            Some(text) => format!("{text}\n").into_bytes(),
            None => b"none\n".to_vec(),
        }
    }

    /// Sets an event's filter; `0` removes it. A bad one leaves the event without a filter, as in the kernel, and the file
    /// says why.
    pub(crate) fn write_filter(&self, event: &Event, formats: &Formats, bytes: &[u8]) -> Result<(), Errno> {
        let done = self.change_filter(event, formats, bytes);
        self.save();
        done
    }

    fn change_filter(&self, event: &Event, formats: &Formats, bytes: &[u8]) -> Result<(), Errno> {
        let text = command(bytes)?;
        if text.trim() == "0" {
            return self.set_filter(event, None, None);
        }
        match parse(text, event, formats) {
            Ok(filter) => self.set_filter(event, Some(text.to_owned()), Some(program(&filter)?)),
            Err(error) => {
                self.log(PARSER, error.kind.message(), text, error.place);
                self.set_filter(event, Some(complaint(&error)), None)?;
                Err(Errno::from_raw_os_error(error.kind.errno()))
            }
        }
    }

    /// Sets the filter of each event of a system that has its fields; the others are left without one.
    pub(crate) fn write_system_filter(
        &self,
        events: &[Arc<Event>],
        formats: &Formats,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let text = command(bytes)?;
        let done = events.iter().try_for_each(|event| match parse(text, event, formats) {
            _ if text.trim() == "0" => self.set_filter(event, None, None),
            Ok(filter) => self.set_filter(event, Some(text.to_owned()), Some(program(&filter)?)),
            Err(_) => {
                self.log(PARSER, NOT_THIS_EVENT, text, 0);
                let text = format!("{text}\n^\nparse_error: {NOT_THIS_EVENT}\n");
                self.set_filter(event, Some(text), None)
            }
        });
        self.save();
        done
    }

    pub(crate) fn trigger_text(&self, control: &Control, id: u16) -> Vec<u8> {
        match self.rules().get(&id) {
            Some(entry) if entry.has_triggers() => {
                let lines = entry.triggers.iter().map(|armed| armed.line(control) + "\n");
                lines.collect::<String>().into_bytes()
            }
            _ => AVAILABLE.into(),
        }
    }

    /// Adds, changes or removes a trigger.
    pub(crate) fn write_trigger(&self, control: &Control, event: &Event, bytes: &[u8]) -> Result<(), Errno> {
        let done = self.change_trigger(control, event, bytes);
        self.save();
        done
    }

    fn change_trigger(&self, control: &Control, event: &Event, bytes: &[u8]) -> Result<(), Errno> {
        let catalog = control.catalog();
        let formats = catalog.formats();
        let decoded = formats.by_id(event.id).ok_or(Errno::INVAL)?;
        let refuse = |error: &TriggerError| {
            if let Some(log) = error.log(decoded) {
                self.log_entry(&log);
            }
            Errno::from_raw_os_error(error.errno())
        };
        let text = command(bytes)?;
        let Some(command) =
            Command::parse(text, decoded, &Symbols::default()).map_err(|error| refuse(&error))?
        else {
            return Ok(());
        };
        let (Command::Add(trigger) | Command::Remove(trigger)) = &command;
        let other = switched(&catalog, trigger)?;
        let mut entries = self.rules();
        let entry = entries.entry(event.id).or_default();
        let known = entry.triggers.iter().position(|armed| armed.trigger.is_same(trigger));
        match command {
            Command::Remove(_) => match known {
                Some(at) => self.disarm(control, event.id, entry, at),
                None => Ok(()),
            },
            Command::Add(trigger) => {
                let change = if let Action::Hist(hist) = &trigger.action { hist.change } else { None };
                let wrong = |kind| refuse(&TriggerError::of_hist(kind, text));
                match (known, change) {
                    (Some(at), Some(change)) => self.change_hist(control, event.id, entry, at, change),
                    (Some(_), None) if matches!(trigger.action, Action::Hist(_)) => {
                        Err(wrong(HistErrorKind::Exists))
                    }
                    (Some(_), None) => Err(Errno::EXIST),
                    (None, Some(Change::Continue | Change::Clear)) => Err(wrong(HistErrorKind::NotThere)),
                    (None, _) => self.arm(control, event.id, entry, (*trigger, text), other),
                }
            }
        }
    }

    fn arm(
        &self,
        control: &Control,
        id: u16,
        entry: &mut Entry,
        (trigger, text): (Trigger, &str),
        other: Option<u16>,
    ) -> Result<(), Errno> {
        let mut armed =
            Armed { counter: None, hist: None, other, is_paused: false, trigger, text: text.to_owned() };
        if let Some(count) = armed.trigger.count {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let counter = control.instances().new_counter(count);
            armed.counter = Some(counter.map_err(|error| instance_errno(&error))?);
        }
        if let Action::Hist(hist) = &armed.trigger.action {
            armed.is_paused = hist.change == Some(Change::Pause);
            armed.hist = Some(self.new_hist(control, hist)?);
        }
        entry.triggers.insert(0, armed);
        self.publish(id, entry).inspect_err(|_| entry.triggers.remove(0).free(control))
    }

    fn new_hist(&self, control: &Control, hist: &ringtap_format::trigger::Hist) -> Result<Hist, Errno> {
        let shape = hist.shape().map_err(|_| Errno::INVAL)?;
        control.instances().new_hist(&shape).map_err(|error| instance_errno(&error))
    }

    fn disarm(&self, control: &Control, id: u16, entry: &mut Entry, at: usize) -> Result<(), Errno> {
        let armed = entry.triggers.remove(at);
        if let Err(errno) = self.publish(id, entry) {
            entry.triggers.insert(at, armed);
            return Err(errno);
        }
        armed.free(control);
        Ok(())
    }

    fn change_hist(
        &self,
        control: &Control,
        id: u16,
        entry: &mut Entry,
        at: usize,
        change: Change,
    ) -> Result<(), Errno> {
        let Some(armed) = entry.triggers.get_mut(at) else { return Err(Errno::NOENT) };
        let before = armed.clone();
        match (change, &armed.trigger.action) {
            (Change::Pause, _) => armed.is_paused = true,
            (Change::Continue, _) => armed.is_paused = false,
            (Change::Clear, Action::Hist(hist)) => armed.hist = Some(self.new_hist(control, hist)?),
            (Change::Clear, _) => return Err(Errno::INVAL),
        }
        let after = armed.clone();
        let published = self.publish(id, entry);
        // Of a cleared one there were two: the one that nobody names any more goes.
        let gone = if published.is_ok() { &before } else { &after };
        if let Some(hist) = gone.hist.filter(|_| before.hist != after.hist) {
            control.instances().free_hist(hist);
        }
        if published.is_err()
            && let Some(armed) = entry.triggers.get_mut(at)
        {
            *armed = before;
        }
        published
    }

    /// The `hist` file: each histogram of the event.
    pub(crate) fn hist_text(&self, control: &Control, id: u16) -> Vec<u8> {
        let mut out = Vec::new();
        let entries = self.rules();
        let triggers = entries.get(&id).map(|entry| entry.triggers.as_slice()).unwrap_or_default();
        for armed in triggers {
            let (Action::Hist(hist), Some(counted)) = (&armed.trigger.action, armed.hist) else { continue };
            if !out.is_empty() {
                out.extend_from_slice(b"\n\n");
            }
            let (rows, totals) = control.instances().read_hist(counted);
            let row = |row: &'_ rules::HistRow| row.comm;
            let comms: Vec<_> = rows.iter().map(|it| row(it).unwrap_or_default()).collect();
            let rows: Vec<_> = rows
                .iter()
                .zip(&comms)
                .map(|(row, comm)| HistRow { key: &row.key, sums: &row.sums, comm })
                .collect();
            let info = armed.line(control);
            let table =
                HistTable { hist, info: &info, rows: &rows, hits: totals.hits, dropped: totals.drops };
            table.print(&Symbols::default(), &mut out);
        }
        out
    }

    /// The texts of all rules, as [`saved`](super::saved) keeps them.
    pub(super) fn rules_saved(&self) -> String {
        let mut lines = String::new();
        for (id, entry) in self.rules().iter() {
            let texts = entry.text.iter().map(|text| ("filter", text));
            let triggers = entry.triggers.iter().map(|armed| ("trigger", &armed.text));
            for (key, text) in texts.chain(triggers) {
                // To a string, which takes all.
                let _ = writeln!(lines, "{key} {id} {}", escaped(text));
            }
        }
        lines
    }

    /// Takes an event's rules over from a daemon that was killed. Where they are in force as the texts say, they stay as
    /// they are, with all that was counted; else they are set anew.
    pub(super) fn restore_rules(
        &self,
        control: &Control,
        event: &Event,
        texts: Texts,
        complain: &mut dyn FnMut(&str),
    ) {
        if let Some(entry) = self.entry_in_force(control, event, &texts) {
            self.rules().insert(event.id, entry);
            return;
        }
        let name = format!("{}:{}", event.system, event.name);
        if self.inner.set_rules(event.id, rules::Rules::default()).is_err() {
            return complain(&format!("the filter and triggers of {name}"));
        }
        let formats = control.catalog().formats();
        if let Some(text) = &texts.filter
            && self.change_filter(event, &formats, text.as_bytes()).is_err()
        {
            complain(&format!("the filter of {name}: {text}"));
        }
        for text in texts.triggers.iter().rev() {
            if self.change_trigger(control, event, text.as_bytes()).is_err() {
                complain(&format!("a trigger of {name}: {text}"));
            }
        }
    }

    /// The entry of these texts, where just that is in force.
    fn entry_in_force(&self, control: &Control, event: &Event, texts: &Texts) -> Option<Entry> {
        let (catalog, in_force) = (control.catalog(), self.inner.rules(event.id));
        let formats = catalog.formats();
        let filter = texts.filter.as_ref().and_then(|text| program(&parse(text, event, &formats).ok()?).ok());
        if filter != in_force.filter || texts.triggers.len() != in_force.triggers.len() {
            return None;
        }
        let armed = |(text, rule): (&String, &rules::Trigger)| {
            let command = Command::parse(text, formats.by_id(event.id)?, &Symbols::default()).ok()??;
            let Command::Add(trigger) = command else { return None };
            let hist = if let rules::Action::Hist(hist) = rule.action { Some(hist) } else { None };
            let other = switched(&catalog, &trigger).ok()?;
            let (counter, is_paused, text) = (rule.counter, rule.is_paused, text.clone());
            let armed = Armed { trigger: *trigger, text, counter, hist, other, is_paused };
            (armed.trigger.count.is_some() == counter.is_some() && armed.rule().as_ref() == Ok(rule))
                .then_some(armed)
        };
        let triggers = texts.triggers.iter().zip(&in_force.triggers).map(armed).collect::<Option<_>>()?;
        Some(Entry { text: texts.filter.clone(), filter, triggers })
    }

    /// Takes all triggers of the instance away: it goes.
    pub(super) fn free_rules(&self, control: &Control) {
        for entry in self.rules().values_mut() {
            entry.triggers.drain(..).for_each(|armed| armed.free(control));
        }
    }
}
