//! What is wrong with a filter, as the kernel's `error_log` and `filter` files put it.

use std::fmt;

/// A filter that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// What is wrong.
    pub kind: FilterErrorKind,
    /// The filter.
    pub text: String,
    /// The byte of it that the caret points at; at most two behind its end.
    pub place: usize,
}

/// The kinds of errors; their texts are those that the kernel's users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterErrorKind {
    /// What should be an operator is none.
    InvalidOperator,
    /// A parenthesis is not closed.
    TooManyOpen,
    /// A parenthesis is closed that was never opened.
    TooManyClose,
    /// A quote is not closed.
    MissingQuote,
    /// `CPUS` without its brace.
    MissingBraceOpen,
    /// `CPUS{` without its end.
    MissingBraceClose,
    /// A text or number that is too long.
    OperandTooLong,
    /// A number for a field that is text.
    ExpectString,
    /// A text for a field that is a number.
    ExpectDigit,
    /// An operator that the field does not have.
    IllegalOperation,
    /// A field that the event does not have.
    FieldNotFound,
    /// A number that is none, or too large.
    IllegalInteger,
    /// Something behind a comparison that joins nothing.
    TooManyTerms,
    /// A list of CPUs that is none.
    InvalidCpuList,
    /// What should be a value is none.
    InvalidValue,
    /// A function that is not known.
    FunctionNotFound,
    /// No comparison at all, or none where one should be.
    Other,
    /// A filter as long as a page or longer.
    TooLong,
    /// Parentheses nested deeper than is supported here; the kernel has no such limit.
    TooDeep,
    /// Text behind a pointer: only the running kernel has it.
    NotInRecord,
}

impl FilterErrorKind {
    /// The error in the kernel's words.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::InvalidOperator => "Invalid operator",
            Self::TooManyOpen => "Too many '('",
            Self::TooManyClose => "Too few '('",
            Self::MissingQuote => "Missing matching quote",
            Self::MissingBraceOpen => "Missing '{'",
            Self::MissingBraceClose => "Missing '}'",
            Self::OperandTooLong => "Operand too long",
            Self::ExpectString => "Expecting string field",
            Self::ExpectDigit => "Expecting numeric field",
            Self::IllegalOperation => "Illegal operation for field type",
            Self::FieldNotFound => "Field not found",
            Self::IllegalInteger => "Illegal integer value",
            Self::TooManyTerms => "Too many terms in predicate expression",
            Self::InvalidCpuList => "Invalid cpulist",
            Self::InvalidValue => "Invalid value (did you forget quotes)?",
            Self::FunctionNotFound => "Function not found",
            Self::Other => "Error",
            Self::TooLong => "Filter of 4096 bytes or more",
            Self::TooDeep => "Parentheses nested too deeply",
            Self::NotInRecord => "Text behind a pointer is not in the record",
        }
    }
}

impl FilterErrorKind {
    /// The number that the kernel's write fails with. Where parentheses or quotes do not come in pairs, it lets its
    /// parser's own numbers out.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::TooManyClose | Self::TooManyTerms => 1,
            Self::TooManyOpen => 2,
            Self::MissingQuote => 3,
            _ => 22,
        }
    }
}

impl fmt::Display for FilterError {
    /// The message, the filter, and a caret below the offending place, as in the kernel's `error_log`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.text.get(..self.place).map_or(self.place, |before| before.chars().count());
        write!(
            f,
            "{}\n  Command: {}\n{:width$}^",
            self.kind.message(),
            self.text,
            "",
            width = before.saturating_add(11)
        )
    }
}

impl std::error::Error for FilterError {}
