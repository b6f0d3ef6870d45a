//! The kernel's event filters: `prev_pid == 1 || next_comm ~ "cargo*" && !(cpu & CPUS{0-3})`.
//!
//! What the kernel accepts in an event's `filter` file is accepted here, what it refuses is refused with the same
//! message and place; records are matched as they are, without making text of them.
//!
//! | operator | fields |
//! | --- | --- |
//! | `==` `!=` `<` `<=` `>` `>=` `&` | numbers |
//! | `==` `!=` `~` | text; `~` is a glob of `*`, `?` and `[a-z]` |
//! | `==` `!=` `&` with `CPUS{0-3,7}` | CPU masks and CPU numbers |
//! | `==` `!=` behind `field.function` | addresses: inside a function, by its name or an address |
//!
//! `&&` binds tighter than `||`; `!` stands in front of a comparison or a parenthesis. Besides an event's own fields
//! there are `cpu` and `comm`, also as `CPU` and `COMM`: the CPU and the task that wrote the record.
//!
//! A filter can be [lowered](Filter::lower) to the byte code that ringtap's writers evaluate.

mod cpus;
mod error;
pub(crate) mod lower;
mod parse;
mod predicate;

pub use error::{FilterError, FilterErrorKind};
pub use lower::LowerError;

use crate::event::Event;
use crate::symbols::{Symbols, Tasks};
use crate::text::Entry;
use predicate::Predicate;

/// A filter of one event, ready to match its records.
#[derive(Clone, Debug)]
pub struct Filter {
    predicates: Vec<Predicate>,
    root: Node,
}

/// Predicates joined; the depth was bounded when the filter was parsed.
#[derive(Clone, Debug)]
enum Node {
    /// The predicate of this index.
    One(usize),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

impl Filter {
    /// Parses a filter of `event`; `symbols` are asked for functions.
    ///
    /// # Errors
    /// Says what the kernel would say of it, and where.
    pub fn parse(text: &str, event: &Event, symbols: &Symbols) -> Result<Self, FilterError> {
        parse::filter(text, event, symbols)
    }

    /// Whether the record satisfies the filter. A field that the record is too short for satisfies nothing.
    #[must_use]
    pub fn matches(&self, entry: &Entry<'_>, tasks: &Tasks) -> bool {
        self.node(&self.root, entry, tasks)
    }

    fn node(&self, node: &Node, entry: &Entry<'_>, tasks: &Tasks) -> bool {
        match node {
            Node::One(place) => {
                self.predicates.get(*place).is_some_and(|predicate| predicate.matches(entry, tasks))
            }
            Node::Not(inner) => !self.node(inner, entry, tasks),
            Node::All(nodes) => nodes.iter().all(|node| self.node(node, entry, tasks)),
            Node::Any(nodes) => nodes.iter().any(|node| self.node(node, entry, tasks)),
        }
    }
}

/// What filters promise on any text: a value or an error whose place lies in the text, and matching ends.
pub fn check_filter(text: &str, event: &Event, record: &[u8]) {
    match Filter::parse(text, event, &Symbols::default()) {
        Ok(filter) => {
            let matches = filter.matches(&Entry { cpu: 0, time: 0, record }, &Tasks::default());
            lower::check_lowered(&filter, record, matches);
        }
        // A value that is missing at the end is looked for behind it.
        Err(error) => {
            assert!(error.place <= text.len().saturating_add(2), "{error:?} lies behind {text:?}");
            assert!(error.to_string().ends_with('^'));
        }
    }
}
