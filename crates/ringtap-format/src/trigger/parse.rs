//! The parser of triggers.

use super::hist;
use super::{Action, Command, Trigger, TriggerError};
use crate::event::Event;
use crate::filter::Filter;
use crate::symbols::Symbols;

/// Longest command that the kernel takes.
const MAX_COMMAND: usize = 4095;

const BLANKS: [char; 2] = [' ', '\t'];

pub(super) fn command(text: &str, event: &Event, symbols: &Symbols) -> Result<Option<Command>, TriggerError> {
    if text.len() > MAX_COMMAND {
        return Err(TriggerError::Invalid("a trigger of 4096 bytes or more"));
    }
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if text.is_empty() {
        return Ok(None);
    }
    let (removes, text) = match text.strip_prefix('!') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (name, rest) = match text.split_once([':', ' ', '\t']) {
        Some((name, rest)) => (name, rest.trim_start_matches(|c: char| c.is_ascii_whitespace())),
        None => (text, ""),
    };
    let parts = Parts { rest, event, symbols, removes };
    let trigger = match name {
        "traceon" => parts.simple(Action::TraceOn),
        "traceoff" => parts.simple(Action::TraceOff),
        "snapshot" => parts.simple(Action::Snapshot),
        "stacktrace" => parts.simple(Action::Stacktrace),
        "enable_event" => parts.switch(true),
        "disable_event" => parts.switch(false),
        "hist" => parts.hist(),
        _ => Err(TriggerError::Invalid(
            "there is no such trigger: see an empty trigger file for those there are",
        )),
    };
    let trigger = Box::new(trigger?);
    Ok(Some(if removes { Command::Remove(trigger) } else { Command::Add(trigger) }))
}

struct Parts<'a> {
    /// What stands behind the trigger's name.
    rest: &'a str,
    event: &'a Event,
    symbols: &'a Symbols,
    removes: bool,
}

impl<'a> Parts<'a> {
    /// `[:count] [if FILTER]`: only what starts with a digit is a count.
    fn simple(&self, action: Action) -> Result<Trigger, TriggerError> {
        if !self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return self.trigger(action, None, self.rest);
        }
        let (parameter, filter) = self.split();
        let number = parameter.split(':').next().unwrap_or_default();
        let count = if self.removes { None } else { Some(count(number)?) };
        self.trigger(action, count, filter)
    }

    /// `:SYSTEM:EVENT[:count] [if FILTER]`
    fn switch(&self, on: bool) -> Result<Trigger, TriggerError> {
        let (parameter, filter) = self.split();
        let mut parts = parameter.split(':');
        let (Some(system), Some(event)) = (parts.next(), parts.next()) else {
            return Err(TriggerError::Invalid("which event? write SYSTEM:EVENT"));
        };
        let count = match parts.next().filter(|_| !self.removes) {
            Some(number) => Some(count(number)?),
            None => None,
        };
        let action = Action::Switch { system: system.to_owned(), event: event.to_owned(), on };
        self.trigger(action, count, filter)
    }

    /// The parameter up to a blank, and what stands behind it.
    fn split(&self) -> (&'a str, &'a str) {
        let (parameter, filter) = self.rest.split_once(BLANKS).unwrap_or((self.rest, ""));
        (parameter, filter.trim_start_matches(BLANKS))
    }

    /// All of the command is what the log shows, and where errors' places count from.
    fn hist(&self) -> Result<Trigger, TriggerError> {
        let (parameters, filter) = split_hist(self.rest)?;
        let whole = ["hist:", self.rest].concat();
        let hist = hist::parse(parameters, &whole, self.event)?;
        self.trigger(Action::Hist(Box::new(hist)), None, filter)
    }

    fn trigger(&self, action: Action, count: Option<u64>, filter: &str) -> Result<Trigger, TriggerError> {
        // A histogram is removed by its filter, too; those of others do not matter then.
        let wanted = !filter.is_empty() && (!self.removes || matches!(action, Action::Hist(_)));
        let filter = if wanted { Some(self.filter(filter)?) } else { None };
        // The count that the kernel prints as unlimited.
        Ok(Trigger { action, count: count.filter(|count| *count != u64::MAX), filter })
    }

    fn filter(&self, text: &str) -> Result<(String, Filter), TriggerError> {
        let text = text.strip_prefix("if").and_then(|text| text.strip_prefix(BLANKS));
        let text = text
            .ok_or(TriggerError::Invalid("what stands behind the trigger is no filter: write if FILTER"))?;
        let filter = Filter::parse(text, self.event, self.symbols).map_err(TriggerError::Filter)?;
        Ok((text.to_owned(), filter))
    }
}

/// A histogram's parameters may hold blanks: its filter begins at the first `if` between two of them.
fn split_hist(rest: &str) -> Result<(&str, &str), TriggerError> {
    for (place, _) in rest.match_indices("if") {
        let (before, from) = rest.split_at(place);
        let behind = from.get("if".len()..).unwrap_or_default();
        if place == 0 || (before.ends_with(BLANKS) && behind.is_empty()) {
            return Err(TriggerError::Invalid("a histogram needs keys, and an if needs a filter"));
        }
        if before.ends_with(BLANKS) && behind.starts_with(BLANKS) {
            return Ok((before.trim(), from));
        }
    }
    Ok((rest, ""))
}

/// A number in base 10, 16 or 8.
fn count(text: &str) -> Result<u64, TriggerError> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(TriggerError::Invalid("the count is no number"));
    }
    u64::from_str_radix(digits, radix).map_err(|_| TriggerError::Range)
}
