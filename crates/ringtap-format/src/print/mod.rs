//! `print fmt`: compiled once per event, then evaluated for each record into the caller's buffer.
//!
//! The way of a `print fmt`: `lex` (words) → `parse` (expressions) → `compile` (types, names, constants; `pieces`
//! for the format string) → a `program` → `eval` (numbers and memory) and `render` (text: `pointer` for what `%p`
//! points to, `mask` and `layout` for how it looks). What cannot be compiled, because it calls what only the running
//! kernel knows, is printed by `fields`.

mod arithmetic;
mod ast;
mod binary;
mod compile;
mod eval;
pub(crate) mod fields;
mod layout;
mod lex;
mod mask;
mod parse;
mod pieces;
mod pointer;
mod program;
mod render;
mod trace_cmd;

pub(crate) use binary::print as print_packed;
pub(crate) use compile::Environment;
pub use eval::Stop;
pub(crate) use mask::print as print_mask;
pub(crate) use program::Program;
pub(crate) use trace_cmd::plugin;

use crate::dialect::Dialect;
use crate::symbols::{Strings, Symbols};
use crate::target::Target;

/// What the text of records needs besides the records.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Names of addresses.
    pub symbols: &'a Symbols,
    /// Texts of addresses.
    pub strings: &'a Strings,
    /// Jiffies a second.
    pub hz: Option<u32>,
}

/// Why a `print fmt` is not evaluated: events that have one print field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unprintable {
    at: Option<usize>,
    what: String,
}

impl Unprintable {
    fn at(at: usize, what: String) -> Self {
        Self { at: Some(at), what }
    }

    pub(crate) fn missing() -> Self {
        Self { at: None, what: "no print fmt".to_owned() }
    }
}

impl std::fmt::Display for Unprintable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.at {
            Some(at) => write!(f, "byte {at}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for Unprintable {}

/// A compiled `print fmt` and the enum members in it whose values are unknown.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) program: Program,
    pub(crate) unresolved: Vec<String>,
}

/// Compiles the `print fmt` of an event.
pub(crate) fn compile(environment: Environment<'_>) -> Result<Compiled, Unprintable> {
    let text = environment.format.print_fmt.as_str();
    if text.is_empty() {
        return Err(Unprintable::missing());
    }
    let parsed = parse::print_fmt(text, environment.target, environment.dialect)?;
    let mut compiler = compile::Compiler::new(environment);
    pieces::pieces(&mut compiler, &parsed)?;
    Ok(Compiled { program: compiler.program, unresolved: compiler.unresolved })
}

impl Program {
    /// Appends the text of `record` to `out`; where that cannot be done `out` stays as it was.
    pub(crate) fn print(
        &self,
        record: &[u8],
        target: Target,
        dialect: Dialect,
        context: &Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let start = out.len();
        let evaluator = eval::Evaluator { program: self, record, target, context };
        let printed = render::Renderer { evaluator, dialect }.pieces(out);
        if printed.is_err() {
            out.truncate(start);
        }
        printed
    }
}
