//! `filter` files: the text of a filter, or what was wrong with the last one.

use super::instance::Instance;
use crate::limits::WRITE_LEN;
use ringtap::event::registry::Event;
use ringtap_format::filter::FilterErrorKind;
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

/// What a write says, without the spaces behind it.
fn command(bytes: &[u8]) -> Result<&str, Errno> {
    if bytes.len() >= WRITE_LEN {
        return Err(Errno::INVAL);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::INVAL)?;
    Ok(text.split('\0').next().unwrap_or_default().trim_end())
}

fn parse(text: &str, event: &Event, formats: &Formats) -> Result<Filter, FilterError> {
    let decoded = formats.by_id(event.id).ok_or_else(|| FilterError {
        kind: FilterErrorKind::FieldNotFound,
        text: text.to_owned(),
        place: 0,
    })?;
    Filter::parse(text, decoded, &Symbols::default())
}

/// The errno that the kernel answers with.
fn errno(kind: FilterErrorKind) -> Errno {
    match kind {
        // It hands out its parser's own numbers for these.
        FilterErrorKind::TooManyClose | FilterErrorKind::TooManyTerms => Errno::PERM,
        FilterErrorKind::TooManyOpen => Errno::NOENT,
        FilterErrorKind::MissingQuote => Errno::SRCH,
        _ => Errno::INVAL,
    }
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

impl Instance {
    /// Sets an event's filter; `0` removes it. A bad one leaves the event without a filter, and the file says why.
    pub(crate) fn write_filter(&self, event: &Event, formats: &Formats, bytes: &[u8]) -> Result<(), Errno> {
        let text = command(bytes)?;
        if text.trim() == "0" {
            self.set_filter(event.id, None);
            return Ok(());
        }
        match parse(text, event, formats) {
            Ok(_) => {
                self.set_filter(event.id, Some(text.to_owned()));
                Ok(())
            }
            Err(error) => {
                self.log(PARSER, error.kind.message(), text, error.place);
                self.set_filter(event.id, Some(complaint(&error)));
                Err(errno(error.kind))
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
        for event in events {
            let filter = match parse(text, event, formats) {
                _ if text.trim() == "0" => None,
                Ok(_) => Some(text.to_owned()),
                Err(_) => {
                    self.log(PARSER, NOT_THIS_EVENT, text, 0);
                    Some(format!("{text}\n^\nparse_error: {NOT_THIS_EVENT}\n"))
                }
            };
            self.set_filter(event.id, filter);
        }
        Ok(())
    }
}
