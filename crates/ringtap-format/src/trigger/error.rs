//! What is wrong with a trigger: an error number, and for filters and histograms an entry of the `error_log`.

use crate::event::Event;
use crate::filter::FilterError;
use std::fmt;

/// A trigger that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TriggerError {
    /// It is none, and nothing stands in the log.
    Invalid(&'static str),
    /// A count that no number holds.
    Range,
    /// Its filter is none.
    Filter(FilterError),
    /// A `hist` is wrong.
    Hist {
        /// What is wrong.
        kind: HistErrorKind,
        /// The command, as the log shows it.
        text: String,
        /// The byte of it that the caret points at.
        place: usize,
    },
}

/// The kinds of errors in a `hist`; their texts are those that the kernel's users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistErrorKind {
    /// `keys=` without anything.
    EmptyAssignment,
    /// A variable, which histograms here do not have.
    TooManyVars,
    /// A field that the event does not have.
    FieldNotFound,
    /// A modifier that there is not, or that the field cannot have.
    BadFieldModifier,
    /// `.buckets` without a number.
    ExpectNumber,
    /// A text as a value.
    InvalidStringOperand,
    /// `sort=` without a field.
    EmptySortField,
    /// More than two sort keys.
    TooManySortFields,
    /// A sort key that is neither a key nor a value.
    InvalidSortField,
    /// A direction that is neither `ascending` nor `descending`.
    InvalidSortModifier,
    /// The histogram is there already.
    Exists,
    /// The histogram that is to be continued or cleared is not there.
    NotThere,
    /// A histogram of this name has other keys or values.
    NamedMismatch,
}

impl HistErrorKind {
    /// The error in the kernel's words.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::EmptyAssignment => "Empty assignment",
            Self::TooManyVars => "Too many variables defined",
            Self::FieldNotFound => "Couldn't find field",
            Self::BadFieldModifier => "Invalid field modifier",
            Self::ExpectNumber => "Expecting numeric literal",
            Self::InvalidStringOperand => "String type can not be an operand in expression",
            Self::EmptySortField => "Empty sort field",
            Self::TooManySortFields => "Too many sort fields (Max = 2)",
            Self::InvalidSortField => "Sort field must be a key or a val",
            Self::InvalidSortModifier => "Invalid sort modifier",
            Self::Exists => "Hist trigger already exists",
            Self::NotThere => "Can't clear or continue a nonexistent hist trigger",
            Self::NamedMismatch => {
                "Named hist trigger doesn't match existing named trigger (includes variables)"
            }
        }
    }
}

impl TriggerError {
    /// A histogram, `hist:` and what was written behind it, that is refused as a whole.
    #[must_use]
    pub fn of_hist(kind: HistErrorKind, text: &str) -> Self {
        let name = text.find("name=").filter(|_| kind == HistErrorKind::NamedMismatch);
        Self::Hist { kind, text: text.to_owned(), place: name.unwrap_or(0) }
    }

    /// The number that the kernel's write fails with.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::Range => 34,
            Self::Filter(error) => error.kind.errno(),
            Self::Hist { kind: HistErrorKind::Exists, .. } => 17,
            Self::Hist { kind: HistErrorKind::NotThere, .. } => 2,
            Self::Invalid(_) | Self::Hist { .. } => 22,
        }
    }

    /// The entry in the `error_log`, behind its time; `None` where the kernel logs nothing.
    #[must_use]
    pub fn log(&self, event: &Event) -> Option<String> {
        match self {
            Self::Invalid(_) | Self::Range => None,
            Self::Filter(error) => Some(format!("event filter parse error: error: {error}\n")),
            Self::Hist { .. } => Some(format!("hist:{}:{}: error: {self}\n", event.system(), event.name())),
        }
    }
}

impl fmt::Display for TriggerError {
    /// The message; for filters and histograms the text and a caret below the offending place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(what) => f.write_str(what),
            Self::Range => f.write_str("the count is too large"),
            Self::Filter(error) => error.fmt(f),
            Self::Hist { kind, text, place } => {
                let before = text.get(..*place).map_or(*place, |before| before.chars().count());
                let column = before.saturating_add("  Command: ".len());
                write!(f, "{}\n  Command: {text}\n{:column$}^", kind.message(), "")
            }
        }
    }
}

impl std::error::Error for TriggerError {}
