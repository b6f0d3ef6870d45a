//! The parser of filters. Errors come in the order, and with the places, of the kernel's: first quotes and
//! parentheses of the whole filter, then its comparisons from the left.

use super::cpus::CpuSet;
use super::error::{FilterError, FilterErrorKind as Kind};
use super::predicate::{Operator, Predicate, Subject, Test};
use super::{Filter, Node};
use crate::event::Event;
use crate::format::{self, Field, Meaning};
use crate::symbols::Symbols;
use crate::target::Target;
use crate::value::IntField;

/// Deepest nesting of parentheses.
const MAX_DEPTH: usize = 128;
/// Longest filter that the kernel takes.
const MAX_FILTER: usize = 4095;
/// Longest text between quotes.
const MAX_TEXT: usize = 256;
/// Longest number.
const MAX_NUMBER: usize = 24;

/// An error and its place.
type Refused = (Kind, usize);

pub(super) fn filter(text: &str, event: &Event, symbols: &Symbols) -> Result<Filter, FilterError> {
    let text = text.trim();
    if text.len() > MAX_FILTER {
        let cut = text.char_indices().map(|(place, _)| place).take_while(|place| *place <= MAX_FILTER).last();
        let text = text.get(..cut.unwrap_or(0)).unwrap_or_default().to_owned();
        return Err(FilterError { kind: Kind::TooLong, place: text.len(), text });
    }
    let mut parser =
        Parser { text: text.as_bytes(), at: 0, depth: 0, predicates: Vec::new(), event, symbols };
    let root = balanced(text.as_bytes()).and_then(|()| parser.whole());
    match root {
        Ok(root) => Ok(Filter { predicates: parser.predicates, root }),
        Err((kind, place)) => Err(FilterError { kind, text: text.to_owned(), place }),
    }
}

/// Checks that quotes and parentheses come in pairs.
fn balanced(text: &[u8]) -> Result<(), Refused> {
    let mut open = Vec::new();
    let mut quote = None;
    for (place, byte) in text.iter().enumerate() {
        match (quote, byte) {
            (Some((mark, _)), _) if mark == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some((byte, place)),
            (None, b'(') => open.push(place),
            (None, b')') if open.pop().is_none() => return Err((Kind::TooManyClose, place)),
            _ => {}
        }
    }
    match (quote, open.last()) {
        (Some((_, place)), _) => Err((Kind::MissingQuote, place)),
        (None, Some(place)) => Err((Kind::TooManyOpen, *place)),
        (None, None) => Ok(()),
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    predicates: Vec<Predicate>,
    event: &'a Event,
    symbols: &'a Symbols,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn first(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn step(&mut self, len: usize) {
        self.at = self.at.saturating_add(len);
    }

    fn spaces(&mut self) {
        self.take(|byte| byte.is_ascii_whitespace());
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let len = rest.iter().take_while(|byte| wanted(**byte)).count();
        self.step(len);
        rest.get(..len).unwrap_or_default()
    }

    fn whole(&mut self) -> Result<Node, Refused> {
        let root = self.any()?;
        match self.first() {
            None => Ok(root),
            Some(_) => Err((Kind::TooManyTerms, self.at)),
        }
    }

    /// `a || b`
    fn any(&mut self) -> Result<Node, Refused> {
        self.joined(b"||", Self::all, Node::Any)
    }

    /// `a && b`
    fn all(&mut self) -> Result<Node, Refused> {
        self.joined(b"&&", Self::one, Node::All)
    }

    fn joined(
        &mut self,
        mark: &[u8],
        part: impl Fn(&mut Self) -> Result<Node, Refused>,
        join: impl Fn(Vec<Node>) -> Node,
    ) -> Result<Node, Refused> {
        let first = part(self)?;
        let mut nodes = vec![first];
        while self.rest().starts_with(mark) {
            self.step(mark.len());
            self.spaces();
            // The kernel lets an operator at the end join nothing.
            if self.rest().iter().all(|byte| *byte == b'!' || byte.is_ascii_whitespace()) {
                self.at = self.text.len();
                break;
            }
            nodes.push(part(self)?);
        }
        Ok(if nodes.len() == 1 { nodes.pop().unwrap_or(Node::Any(Vec::new())) } else { join(nodes) })
    }

    /// A comparison or a parenthesis, with any number of `!` before it.
    fn one(&mut self) -> Result<Node, Refused> {
        self.spaces();
        let mut inverted = false;
        while self.first() == Some(b'!') && !matches!(self.rest().get(1), Some(b'=' | b'~')) {
            inverted = !inverted;
            self.step(1);
            self.spaces();
        }
        let node = if self.first() == Some(b'(') { self.parenthesis()? } else { self.comparison()? };
        self.spaces();
        Ok(if inverted { Node::Not(Box::new(node)) } else { node })
    }

    fn parenthesis(&mut self) -> Result<Node, Refused> {
        if self.depth >= MAX_DEPTH {
            return Err((Kind::TooDeep, self.at));
        }
        self.depth = self.depth.saturating_add(1);
        self.step(1);
        let node = self.any()?;
        self.depth = self.depth.saturating_sub(1);
        if self.first() != Some(b')') {
            return Err((Kind::TooManyTerms, self.at));
        }
        self.step(1);
        Ok(node)
    }

    /// `field operator value`. The kernel reckons the places of errors in it from one byte further on.
    fn comparison(&mut self) -> Result<Node, Refused> {
        let predicate = self.predicate().map_err(|(kind, place)| match kind {
            Kind::Other => (kind, 0),
            _ => (kind, place.saturating_add(1)),
        })?;
        self.predicates.push(predicate);
        Ok(Node::One(self.predicates.len().saturating_sub(1)))
    }

    fn predicate(&mut self) -> Result<Predicate, Refused> {
        let name = self.take(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() {
            return Err((Kind::Other, 0));
        }
        let is_function = self.suffix(b".function");
        let is_user_text = self.suffix(b".ustring");
        let (subject, nature) = self.subject(name).ok_or((Kind::FieldNotFound, self.at))?;
        self.spaces();
        let (operator, len) = Operator::at_start_of(self.rest()).ok_or((Kind::InvalidOperator, self.at))?;
        self.step(len);
        self.spaces();
        let test = match self.first() {
            _ if is_function => self.function(&subject, operator)?,
            _ if self.rest().starts_with(b"CPUS") => self.cpus(nature, operator)?,
            Some(b'"' | b'\'') if is_user_text => return Err((Kind::NotInRecord, self.at)),
            Some(quote @ (b'"' | b'\'')) => self.quoted(quote, nature, operator)?,
            Some(b'0'..=b'9' | b'-') => self.number(&subject, nature, operator)?,
            _ => return Err((Kind::InvalidValue, self.at)),
        };
        Ok(Predicate { subject, test, target: self.event.target() })
    }

    fn suffix(&mut self, suffix: &[u8]) -> bool {
        let found = self.rest().starts_with(suffix);
        if found {
            self.step(suffix.len());
        }
        found
    }

    /// What `name` means: an event's own field, the CPU or the task, or a common field, in this order.
    fn subject(&self, name: &[u8]) -> Option<(Subject, Nature)> {
        let name = std::str::from_utf8(name).ok()?;
        let own = self.event.fields().iter().find(|field| field.name == name);
        if let Some(field) = own {
            return Some(subject(field, self.event.target()));
        }
        match name {
            "cpu" | "CPU" => Some((Subject::Cpu, Nature::Number)),
            "comm" | "COMM" => Some((Subject::Comm, Nature::Text)),
            _ => {
                let common = self.event.common_fields().iter().find(|field| field.name == name)?;
                Some(subject(common, self.event.target()))
            }
        }
    }

    /// The name or address of a function.
    fn function(&mut self, subject: &Subject, operator: Operator) -> Result<Test, Refused> {
        let long = self.event.target().long_size;
        if !matches!(subject, Subject::Int { size, .. } if *size == long) {
            return Err((Kind::IllegalOperation, self.at));
        }
        if !matches!(operator, Operator::Equal | Operator::NotEqual) {
            return Err((Kind::InvalidOperator, self.at));
        }
        let written = self.take(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
        let written = std::str::from_utf8(written).unwrap_or_default();
        let range = match written.bytes().next() {
            Some(b'0'..=b'9') => {
                let address = unsigned(written).ok_or((Kind::InvalidValue, self.at))?;
                self.symbols.function_at(address)
            }
            _ => self.symbols.function_named(written),
        };
        let (start, end) = range.ok_or((Kind::FunctionNotFound, self.at))?;
        Ok(Test::Function { start, end, equal: operator == Operator::Equal })
    }

    /// `CPUS{0-3}`
    fn cpus(&mut self, nature: Nature, operator: Operator) -> Result<Test, Refused> {
        let is_legal = matches!(nature, Nature::Number | Nature::Mask)
            && matches!(operator, Operator::Equal | Operator::NotEqual | Operator::BitAnd);
        if !is_legal {
            return Err((Kind::IllegalOperation, self.at));
        }
        self.step(4);
        let brace = self.first();
        self.step(1);
        if brace != Some(b'{') {
            return Err((Kind::MissingBraceOpen, self.at));
        }
        let list = self.take(|byte| byte != b'}');
        if self.first().is_none() {
            return Err((Kind::MissingBraceClose, self.at));
        }
        let list = std::str::from_utf8(list).ok().filter(|list| !list.is_empty());
        let cpus = list.and_then(CpuSet::parse).ok_or((Kind::InvalidCpuList, self.at))?;
        self.step(1);
        Ok(Test::Cpus { operator, cpus })
    }

    fn quoted(&mut self, quote: u8, nature: Nature, operator: Operator) -> Result<Test, Refused> {
        if !matches!(operator, Operator::Equal | Operator::NotEqual | Operator::Glob) {
            return Err((Kind::IllegalOperation, self.at));
        }
        match nature {
            Nature::Text => {}
            Nature::TextElsewhere => return Err((Kind::NotInRecord, self.at)),
            Nature::Number | Nature::Mask | Nature::Other => return Err((Kind::ExpectDigit, self.at)),
        }
        self.step(1);
        let text = self.take(|byte| byte != quote);
        if self.first().is_none() {
            return Err((Kind::MissingQuote, self.at));
        }
        if text.len() >= MAX_TEXT {
            return Err((Kind::OperandTooLong, self.at));
        }
        self.step(1);
        let is_glob = operator == Operator::Glob;
        // A glob may be inverted by its first character.
        let (pattern, equal) = match text.strip_prefix(b"!") {
            Some(pattern) if is_glob => (pattern, false),
            _ => (text, operator != Operator::NotEqual),
        };
        Ok(Test::Text { pattern: pattern.into(), is_glob, equal })
    }

    fn number(&mut self, subject: &Subject, nature: Nature, operator: Operator) -> Result<Test, Refused> {
        if matches!(nature, Nature::Text | Nature::TextElsewhere) {
            return Err((Kind::ExpectString, self.at));
        }
        if operator == Operator::Glob {
            return Err((Kind::IllegalOperation, self.at));
        }
        let start = self.at;
        let is_negative = self.suffix(b"-");
        let digits = self.take(|byte| byte.is_ascii_alphanumeric());
        if self.at.saturating_sub(start) >= MAX_NUMBER {
            return Err((Kind::OperandTooLong, self.at));
        }
        let signed = matches!(subject, Subject::Int { signed: true, .. } | Subject::Cpu);
        let value = std::str::from_utf8(digits).ok().and_then(unsigned);
        let value = value.and_then(|value| match (signed, is_negative) {
            (false, true) => None,
            (false, false) => Some(value),
            (true, false) => i64::try_from(value).ok().map(i64::cast_unsigned),
            (true, true) => 0i64.checked_sub_unsigned(value).map(i64::cast_unsigned),
        });
        let value = value.ok_or((Kind::IllegalInteger, start))?;
        match subject {
            Subject::Int { size: 1 | 2 | 4 | 8, .. } | Subject::Cpu => Ok(Test::Number(operator, value)),
            _ => Err((Kind::InvalidOperator, self.at)),
        }
    }
}

/// What a field can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Number,
    Text,
    /// A pointer to text.
    TextElsewhere,
    Mask,
    Other,
}

fn subject(field: &Field, target: Target) -> (Subject, Nature) {
    if let (Some(int), Some(size)) = (IntField::new(field, target), field.int_size()) {
        let is_text = field.kind == format::Kind::Pointer && field.type_name.contains("char");
        let nature = if is_text { Nature::TextElsewhere } else { Nature::Number };
        return (Subject::Int { field: int, size, signed: field.signed }, nature);
    }
    let nature = match field.element().map(|element| element.meaning) {
        Some(Meaning::Text) => Nature::Text,
        Some(Meaning::Mask) => Nature::Mask,
        _ => Nature::Other,
    };
    (Subject::Array(field.clone()), nature)
}

/// A number in base 10, 16 or 8, by its first digits.
fn unsigned(text: &str) -> Option<u64> {
    let is_plain = |digits: &str| !digits.starts_with('+');
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if is_plain(digits) { u64::from_str_radix(digits, radix).ok() } else { None }
}
