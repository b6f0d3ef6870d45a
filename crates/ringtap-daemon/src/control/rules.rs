//! `filter`, `trigger` and `hist` files: what an event's rules say, as text and in force.
//!
//! The texts are kept here; what writers obey is published with each change, filter and triggers of an event together,
//! all or nothing.

use super::Control;
use super::catalog::Catalog;
use super::entry::{Armed, Entry, program};
use super::errno::instance_errno;
use super::instance::Instance;
use super::saver::{Texts, escaped};
use crate::limits::WRITE_LEN;
use ringtap::event::registry::Event;
use ringtap::rules::{self, Hist};
use ringtap_format::filter::FilterErrorKind;
use ringtap_format::trigger::hist::Change;
use ringtap_format::trigger::{
    AVAILABLE, Action, Command, HistErrorKind, HistRow, HistTable, Trigger, TriggerError,
};
use ringtap_format::{Event as Decoded, Filter, FilterError, Formats, Symbols};
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

/// Why a filter or trigger is not an event's.
#[derive(Clone, Debug)]
pub(super) enum Wrong {
    Filter(FilterError),
    Trigger(TriggerError),
    /// Another one is in its place.
    Exists,
    /// The event's format cannot be read.
    Format,
}

impl Wrong {
    /// What is wrong with this filter or trigger, as [`error_log`](super::errors) puts it behind the source.
    pub(super) fn text(&self, command: &str) -> String {
        let what = match self {
            Self::Filter(error) | Self::Trigger(TriggerError::Filter(error)) => return error.to_string(),
            Self::Trigger(error @ TriggerError::Hist { .. }) => return error.to_string(),
            Self::Trigger(error @ (TriggerError::Invalid(_) | TriggerError::Range)) => error.to_string(),
            Self::Exists => format!("such a trigger is there already: '!{command}' takes it away"),
            Self::Format => "the event's format cannot be read".to_owned(),
        };
        format!("{what}\n  Command: {command}\n{:11}^", "")
    }

    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::Filter(error) => Errno::from_raw_os_error(error.kind.errno()),
            Self::Trigger(error) => Errno::from_raw_os_error(error.errno()),
            Self::Exists => Errno::EXIST,
            Self::Format => Errno::INVAL,
        }
    }
}

/// A filter as what writers of the event evaluate.
pub(super) fn checked_filter(text: &str, event: &Decoded) -> Result<Vec<u64>, Wrong> {
    let filter = Filter::parse(text, event, &Symbols::default()).map_err(Wrong::Filter)?;
    filter.lower().map_err(|_| Wrong::Format)
}

/// Why no event at all can have this filter or trigger; `plain` has no fields of its own.
pub(super) fn misfit(is_trigger: bool, text: &str, plain: &Decoded) -> Option<Wrong> {
    let parsed = if is_trigger {
        Command::parse(text, plain, &Symbols::default()).map(drop).map_err(Wrong::Trigger)
    } else if text == "0" {
        Ok(())
    } else {
        checked_filter(text, plain).map(drop)
    };
    parsed.err().filter(|wrong| match wrong {
        Wrong::Filter(error) | Wrong::Trigger(TriggerError::Filter(error)) => {
            error.kind != FilterErrorKind::FieldNotFound
        }
        Wrong::Trigger(TriggerError::Hist { kind, .. }) => *kind != HistErrorKind::FieldNotFound,
        _ => true,
    })
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
    pub(super) fn set_filter(
        &self,
        event: &Event,
        text: Option<String>,
        filter: Option<Vec<u64>>,
    ) -> Result<(), Errno> {
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

    /// What an event's `filter` file says, and the filter in force.
    pub(super) fn filter_of(&self, id: u16) -> (Option<String>, Option<Vec<u64>>) {
        self.rules().get(&id).map(|entry| (entry.text.clone(), entry.filter.clone())).unwrap_or_default()
    }

    /// Whether a write to an event's `trigger` file would be taken, as far as can be foreseen. `None` where nothing is to
    /// be done, or not yet; else what undoes it.
    pub(super) fn checked_trigger(
        &self,
        control: &Control,
        id: u16,
        event: &Decoded,
        text: &str,
    ) -> Result<Option<Option<String>>, Wrong> {
        let parsed = Command::parse(text, event, &Symbols::default()).map_err(Wrong::Trigger)?;
        let Some(command) = parsed else { return Ok(None) };
        let (Command::Add(trigger) | Command::Remove(trigger)) = &command;
        let entries = self.rules();
        let triggers = entries.get(&id).map(|entry| entry.triggers.as_slice()).unwrap_or_default();
        let known = triggers.iter().find(|armed| armed.trigger.is_same(trigger));
        let change = if let Action::Hist(hist) = &trigger.action { hist.change } else { None };
        match (&command, known) {
            (Command::Remove(_), known) => Ok(known.map(|armed| Some(armed.text.clone()))),
            (_, Some(_)) if change.is_some() => Ok(Some(None)),
            (_, Some(armed)) if armed.text == text && trigger.count.is_none() => Ok(None),
            (_, Some(_)) => Err(Wrong::Exists),
            (_, None) if matches!(change, Some(Change::Continue | Change::Clear)) => {
                Err(Wrong::Trigger(TriggerError::of_hist(HistErrorKind::NotThere, text)))
            }
            // The event that it switches is not declared yet.
            (_, None) if switched(&control.catalog(), trigger).is_err() => Ok(None),
            (_, None) => Ok(Some(Some(format!("!{text}")))),
        }
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
                let lines = entry.triggers.iter().map(|armed| armed.line(control.instances()) + "\n");
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

    pub(super) fn change_trigger(&self, control: &Control, event: &Event, bytes: &[u8]) -> Result<(), Errno> {
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
        self.publish(id, entry).inspect_err(|_| entry.triggers.remove(0).free(control.instances()))
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
        armed.free(control.instances());
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
            let info = armed.line(control.instances());
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

    /// Takes the rules of all events away. Where one event's cannot be, the others' go all the same.
    pub(super) fn forget_rules(&self, control: &Control) -> Result<(), Errno> {
        let mut entries = self.rules();
        let mut done = Ok(());
        for event in control.catalog().switchable() {
            if self.inner.rules(event.id).is_empty() {
                continue;
            }
            if let Err(error) = self.inner.set_rules(event.id, rules::Rules::default()) {
                done = Err(instance_errno(&error));
            }
        }
        for (_, entry) in entries.extract_if(.., |id, _| self.inner.rules(*id).is_empty()) {
            entry.triggers.iter().for_each(|armed| armed.free(control.instances()));
        }
        done
    }

    /// Takes all triggers of the instance away: it goes.
    pub(super) fn free_rules(&self, control: &Control) {
        for entry in self.rules().values_mut() {
            entry.triggers.drain(..).for_each(|armed| armed.free(control.instances()));
        }
    }
}
