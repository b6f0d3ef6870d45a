//! Why there is no answer, with the place in the query that it is about.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use std::fmt;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct QueryError(pub(super) Kind);

#[derive(Debug, thiserror::Error)]
pub(super) enum Kind {
    #[error("{0}")]
    Engine(String),
    #[error("{what}{place}")]
    Sql { what: String, place: Place },
    #[error("there is no table {name}{near}; there are {known}")]
    NoTable { name: String, near: String, known: String },
    #[error("{name} may be one of {known}; name it with its system")]
    Ambiguous { name: String, known: String },
    #[error("{0} changes something, and traces are only read: ask with SELECT, WITH, SHOW or DESCRIBE")]
    NoQuery(String),
    #[error("these Parquet files hold no spans; export them with --spans")]
    NoSpans,
    #[error("the query needs more than {0} MiB of memory; give it more with --memory, or ask for less")]
    Memory(usize),
    #[error("cannot read {path}")]
    Io { path: String, source: std::io::Error },
}

/// Where in a query something is wrong.
#[derive(Debug, Default)]
pub(super) struct Place {
    line: String,
    /// Characters before it.
    before: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line.is_empty() {
            return Ok(());
        }
        write!(f, "\n  {}\n  {:width$}^", self.line, "", width = self.before)
    }
}

impl Place {
    /// Lines and columns are counted from 1.
    fn new(sql: &str, line: u64, column: u64) -> Self {
        let place = |number: u64| usize::try_from(number).ok()?.checked_sub(1);
        let line = place(line).and_then(|line| sql.lines().nth(line)).unwrap_or_default();
        let before = place(column).unwrap_or_default().min(line.chars().count());
        // A tab is shown as wide as anything else.
        Self { line: line.replace('\t', " "), before }
    }
}

/// What DataFusion says of its own errors before what they are.
const PREFIXES: [&str; 6] = [
    "Error during planning: ",
    "Schema error: ",
    "SQL error: ",
    "Execution error: ",
    "This feature is not implemented: ",
    "External error: ",
];

fn plain(error: &DataFusionError) -> String {
    let mut text = error.strip_backtrace();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.to_owned();
    }
    text
}

impl QueryError {
    /// What is wrong with a query.
    pub(super) fn of_sql(error: &DataFusionError, sql: &str) -> Self {
        let mut root = error;
        while let DataFusionError::Collection(errors) = root {
            let Some(first) = errors.first() else { break };
            root = first;
        }
        if let DataFusionError::SQL(parser, _) = root.find_root() {
            let (ParserError::ParserError(text) | ParserError::TokenizerError(text)) = &**parser else {
                return Self(Kind::Engine("the query is nested too deeply".to_owned()));
            };
            let (what, place) = split(text, sql);
            return Self(Kind::Sql { what, place });
        }
        let span = root.diagnostic().and_then(|diagnostic| diagnostic.span);
        let place = span.map(|span| Place::new(sql, span.start.line, span.start.column)).unwrap_or_default();
        Self(Kind::Sql { what: plain(root.find_root()), place })
    }

    /// What went wrong while a query ran, which had so many bytes of memory.
    pub(super) fn running(error: &DataFusionError, memory: usize) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self(Kind::Memory(memory >> 20)),
            root => Self(Kind::Engine(plain(root))),
        }
    }
}

/// A parser's message without the place that it ends with, and the place.
fn split(text: &str, sql: &str) -> (String, Place) {
    let place = || {
        let (what, place) = text.rsplit_once(" at Line: ")?;
        let (line, column) = place.split_once(", Column: ")?;
        Some((what.to_owned(), Place::new(sql, line.parse().ok()?, column.trim().parse().ok()?)))
    };
    place().unwrap_or_else(|| (text.to_owned(), Place::default()))
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        Self(Kind::Engine(plain(error.find_root())))
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> Self {
        Self(Kind::Engine(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_place_is_shown_below_its_line() {
        let sql = "SELECT é\nFORM\tx";
        let (what, place) = split("Expected: end of statement, found: x at Line: 2, Column: 6", sql);
        assert_eq!(format!("{what}{place}"), "Expected: end of statement, found: x\n  FORM x\n       ^");
        assert_eq!(split("no place", sql).1.to_string(), "");
        assert_eq!(split("beyond at Line: 9, Column: 1", sql).1.to_string(), "");
    }
}
