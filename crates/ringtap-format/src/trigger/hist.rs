//! The trigger `hist`: `hist:keys=FIELD[,FIELD…][:values=…][:sort=…][:size=N][:name=…][:pause|continue|clear]`.
//!
//! A key is an event's field, `common_cpu`, `common_timestamp` or `common_stacktrace`; a value is one of its numbers.
//! Behind a field may stand how it is counted and shown:
//!
//! | modifier | of | shows |
//! | --- | --- | --- |
//! | `.hex` | keys, values | hexadecimal |
//! | `.sym`, `.sym-offset` | keys | the symbol at an address |
//! | `.execname` | `common_pid` | the task's name |
//! | `.log2`, `.buckets=N` | keys | numbers grouped by their logarithm, or by multiples of N |
//! | `.usecs` | `common_timestamp` | microseconds |

use super::error::{HistErrorKind as Kind, TriggerError};
use crate::event::Event;
use crate::filter::lower::{LowerError, array_field, int_field};
use crate::format::Field;
use crate::target::Target;
use crate::value::IntField;
use ringtap_abi::predicate::{self as code, Source};
use ringtap_abi::rules::hist::{BITS, MAX_KEYS, MAX_VALUES, Part, Scale, Shape};
use std::fmt;

/// Values that the kernel takes, besides the hitcount.
const VALUES: usize = 2;
/// Sort keys.
const SORT_KEYS: usize = 2;
const _: () = assert!(VALUES <= MAX_VALUES);

/// A `hist` trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hist {
    /// Its name, where it has one: it shares its table with others of that name.
    pub name: Option<String>,
    /// Its keys.
    pub keys: Vec<Column>,
    /// What it sums up, besides the hits.
    pub values: Vec<Column>,
    /// What its rows are sorted by; the first one is what matters most.
    pub sort: Vec<SortKey>,
    /// Entries, as a power of 2.
    pub bits: u8,
    /// What is to become of a histogram that is there already; `Pause` may also be how a new one starts.
    pub change: Option<Change>,
}

/// What is done to a histogram that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It counts no more.
    Pause,
    /// It goes on.
    Continue,
    /// It starts over.
    Clear,
}

/// A key or a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The field.
    pub name: String,
    /// How it is counted and shown.
    pub modifier: Modifier,
    /// What it is in the record.
    pub(super) source: ColumnSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ColumnSource {
    Int { field: IntField, size: u8, signed: bool },
    Text(Field),
    Cpu,
    Time,
    Stack,
}

/// How a column is counted and shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modifier {
    /// As it is.
    #[default]
    None,
    /// `.hex`
    Hex,
    /// `.sym`
    Sym,
    /// `.sym-offset`
    SymOffset,
    /// `.execname`
    Execname,
    /// `.log2`
    Log2,
    /// `.buckets=N`
    Buckets(u32),
    /// `.usecs`
    Usecs,
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// What.
    pub by: SortBy,
    /// Largest first.
    pub descending: bool,
}

/// A column to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// The number of hits.
    Hitcount,
    /// The value of this index.
    Value(usize),
    /// The key of this index.
    Key(usize),
}

impl Hist {
    /// Whether it is the same histogram, whatever is to become of it.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.keys == other.keys
            && self.values == other.values
            && self.sort == other.sort
    }

    /// What a writer needs to know to count into its table.
    ///
    /// # Errors
    /// Where the event's records are not made on this machine, or are too long.
    pub fn shape(&self) -> Result<Shape, LowerError> {
        let mut shape = Shape {
            keys: [None; MAX_KEYS],
            values: [None; MAX_VALUES],
            bits: self.bits,
            with_comm: self.keys.iter().any(|key| key.modifier == Modifier::Execname),
        };
        for (part, column) in shape.keys.iter_mut().zip(&self.keys) {
            *part = Some(column.part()?);
        }
        for (part, column) in shape.values.iter_mut().zip(&self.values) {
            *part = Some(column.part()?);
        }
        if shape.is_sane() { Ok(shape) } else { Err(LowerError::TooLarge) }
    }

    /// Whether it asks for times, which the kernel prints a clock for.
    fn has_times(&self) -> bool {
        self.keys.iter().chain(&self.values).any(|column| column.source == ColumnSource::Time)
    }
}

impl Column {
    pub(super) fn part(&self) -> Result<Part, LowerError> {
        let scale = match self.modifier {
            Modifier::Log2 => Scale::Log2,
            Modifier::Buckets(size) => Scale::Buckets(size),
            Modifier::Usecs => Scale::Usecs,
            _ => Scale::None,
        };
        Ok(match &self.source {
            ColumnSource::Int { field, size, signed } => {
                Part::Number(int_field(field, *size, *signed)?, scale)
            }
            ColumnSource::Text(field) => Part::Text(array_field(field)?),
            ColumnSource::Cpu => {
                Part::Number(code::Field { source: Source::Cpu, signed: false, offset: 0, size: 4 }, scale)
            }
            ColumnSource::Time => Part::Time(scale),
            ColumnSource::Stack => Part::Stack,
        })
    }
}

impl fmt::Display for Hist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hist:")?;
        if let Some(name) = &self.name {
            write!(f, "name={name}:")?;
        }
        f.write_str("keys=")?;
        for (nth, key) in self.keys.iter().enumerate() {
            write!(f, "{}{key}", if nth > 0 { "," } else { "" })?;
        }
        f.write_str(":vals=hitcount")?;
        for value in &self.values {
            write!(f, ",{value}")?;
        }
        f.write_str(":sort=")?;
        for (nth, sort) in self.sort.iter().enumerate() {
            f.write_str(if nth > 0 { "," } else { "" })?;
            match sort.by {
                SortBy::Hitcount => f.write_str("hitcount")?,
                SortBy::Value(nth) => self.values.get(nth).map_or(Ok(()), |value| value.fmt(f))?,
                SortBy::Key(nth) => self.keys.get(nth).map_or(Ok(()), |key| key.fmt(f))?,
            }
            f.write_str(if sort.descending { ".descending" } else { "" })?;
        }
        write!(f, ":size={}", 1u64.wrapping_shl(self.bits.into()))?;
        f.write_str(if self.has_times() { ":clock=global" } else { "" })
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.modifier {
            Modifier::None => Ok(()),
            Modifier::Hex => f.write_str(".hex"),
            Modifier::Sym => f.write_str(".sym"),
            Modifier::SymOffset => f.write_str(".sym-offset"),
            Modifier::Execname => f.write_str(".execname"),
            Modifier::Log2 => f.write_str(".log2"),
            Modifier::Buckets(size) => write!(f, ".buckets={size}"),
            Modifier::Usecs => f.write_str(".usecs"),
        }
    }
}

/// The parameters, taken apart but not understood.
#[derive(Default)]
struct Attributes<'a> {
    keys: Option<&'a str>,
    values: Option<&'a str>,
    sort: Option<&'a str>,
    name: Option<&'a str>,
    bits: Option<u8>,
    change: Option<Change>,
}

struct Parser<'a> {
    /// The command, in which places are looked for.
    whole: &'a str,
    event: &'a Event,
}

/// Parses what stands behind `hist:`. Errors are found in the kernel's order: the parameters' form, the values, the
/// keys, the sort keys.
pub(super) fn parse(parameters: &str, whole: &str, event: &Event) -> Result<Hist, TriggerError> {
    let parser = Parser { whole, event };
    let attributes = parser.attributes(parameters)?;
    let keys = attributes.keys.ok_or(TriggerError::Invalid("a histogram needs keys"))?;
    let values = parser.values(attributes.values)?;
    let keys = parser.keys(keys)?;
    let sort = parser.sort(attributes.sort, &keys, &values)?;
    let name = attributes.name.map(str::to_owned);
    let hist =
        Hist { name, keys, values, sort, bits: attributes.bits.unwrap_or(11), change: attributes.change };
    match hist.shape() {
        Err(LowerError::TooLarge) if event.target() == Target::LE64 => {
            Err(TriggerError::Invalid("the histogram's keys are longer than 384 bytes together"))
        }
        _ => Ok(hist),
    }
}

impl<'a> Parser<'a> {
    /// An error at the first place where `text` stands in the command: what the kernel points at.
    fn wrong(&self, kind: Kind, text: &str) -> TriggerError {
        let place = self.whole.find(text).unwrap_or(0);
        TriggerError::Hist { kind, text: self.whole.to_owned(), place }
    }

    fn attributes<'p>(&self, parameters: &'p str) -> Result<Attributes<'p>, TriggerError> {
        let mut attributes = Attributes::default();
        for part in parameters.split(':') {
            match part.split_once('=') {
                Some((_, "")) => return Err(self.wrong(Kind::EmptyAssignment, part)),
                Some((name, value)) => self.assignment(&mut attributes, part, name, value)?,
                None => attributes.change = Some(change(part)?),
            }
        }
        Ok(attributes)
    }

    fn assignment<'p>(
        &self,
        attributes: &mut Attributes<'p>,
        part: &str,
        name: &str,
        value: &'p str,
    ) -> Result<(), TriggerError> {
        match name {
            "key" | "keys" => attributes.keys = Some(value),
            "val" | "vals" | "values" => attributes.values = Some(value),
            "sort" => attributes.sort = Some(value),
            "name" => attributes.name = Some(value),
            "size" => attributes.bits = Some(bits(value)?),
            // The only clock that times are taken from here is the buffer's.
            "clock" if value.trim() == "global" => {}
            _ => return Err(self.wrong(Kind::TooManyVars, part)),
        }
        Ok(())
    }

    fn values(&self, list: Option<&'a str>) -> Result<Vec<Column>, TriggerError> {
        let fields = list.into_iter().flat_map(|list| list.split(','));
        let mut values = Vec::new();
        for text in fields.filter(|text| *text != "hitcount") {
            if values.len() == VALUES {
                return Err(TriggerError::Invalid("a histogram has two values at most"));
            }
            let value = self.column(text)?;
            match value.source {
                ColumnSource::Text(_) | ColumnSource::Stack => {
                    return Err(self.wrong(Kind::InvalidStringOperand, text));
                }
                _ if !matches!(value.modifier, Modifier::None | Modifier::Hex | Modifier::Usecs) => {
                    return Err(self.wrong(Kind::BadFieldModifier, text));
                }
                _ => values.push(value),
            }
        }
        Ok(values)
    }

    fn keys(&self, list: &str) -> Result<Vec<Column>, TriggerError> {
        let keys: Result<Vec<_>, _> = list.split(',').take(MAX_KEYS).map(|text| self.column(text)).collect();
        if list.split(',').count() > MAX_KEYS {
            return Err(keys.err().unwrap_or(TriggerError::Invalid("a histogram has three keys at most")));
        }
        keys
    }

    fn column(&self, text: &str) -> Result<Column, TriggerError> {
        let (name, modifier) = match text.split_once('.') {
            Some((name, modifier)) => (name, Some(modifier)),
            None => (text, None),
        };
        let source = self.source(name).ok_or_else(|| self.wrong(Kind::FieldNotFound, name))?;
        let modifier = match modifier {
            Some(modifier) => self.modifier(modifier, name, &source)?,
            None => Modifier::None,
        };
        // One name for each, as the kernel prints them.
        let name = match source {
            ColumnSource::Stack => "common_stacktrace",
            ColumnSource::Cpu => "common_cpu",
            _ => name,
        };
        Ok(Column { name: name.to_owned(), modifier, source })
    }

    fn source(&self, name: &str) -> Option<ColumnSource> {
        if let Some(field) = self.event.field(name) {
            if let (Some(int), Some(size)) = (IntField::new(field, self.event.target()), field.int_size()) {
                return Some(ColumnSource::Int { field: int, size, signed: field.signed });
            }
            return field.is_text().then(|| ColumnSource::Text(field.clone()));
        }
        match name {
            "common_cpu" | "cpu" => Some(ColumnSource::Cpu),
            "common_timestamp" => Some(ColumnSource::Time),
            "common_stacktrace" | "stacktrace" => Some(ColumnSource::Stack),
            _ => None,
        }
    }

    fn modifier(&self, text: &str, name: &str, source: &ColumnSource) -> Result<Modifier, TriggerError> {
        let is_number = !matches!(source, ColumnSource::Text(_) | ColumnSource::Stack);
        let modifier = match text.split_once('=') {
            Some(("buckets", size)) => {
                let size = size.parse().ok().filter(|size| *size > 0);
                Modifier::Buckets(size.ok_or_else(|| self.wrong(Kind::ExpectNumber, text))?)
            }
            None if text == "usecs" && *source == ColumnSource::Time => Modifier::Usecs,
            None if text == "execname" && name == "common_pid" => Modifier::Execname,
            None => match text {
                "hex" => Modifier::Hex,
                "sym" => Modifier::Sym,
                "sym-offset" => Modifier::SymOffset,
                "log2" => Modifier::Log2,
                _ => Modifier::None,
            },
            Some(_) => Modifier::None,
        };
        match modifier {
            Modifier::None => Err(self.wrong(Kind::BadFieldModifier, text)),
            modifier if is_number => Ok(modifier),
            _ => Err(self.wrong(Kind::BadFieldModifier, text)),
        }
    }

    fn sort(
        &self,
        list: Option<&str>,
        keys: &[Column],
        values: &[Column],
    ) -> Result<Vec<SortKey>, TriggerError> {
        let Some(list) = list else {
            return Ok(vec![SortKey { by: SortBy::Hitcount, descending: false }]);
        };
        let mut sort = Vec::new();
        for text in list.split(',') {
            if text.is_empty() {
                return Err(self.wrong(Kind::EmptySortField, "sort="));
            }
            if sort.len() == SORT_KEYS {
                return Err(self.wrong(Kind::TooManySortFields, "sort="));
            }
            sort.push(self.sort_key(text, keys, values)?);
        }
        Ok(sort)
    }

    fn sort_key(&self, text: &str, keys: &[Column], values: &[Column]) -> Result<SortKey, TriggerError> {
        let (name, direction) = match text.split_once('.') {
            Some((name, direction)) => (name, Some(direction)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(self.wrong(Kind::EmptySortField, "sort="));
        }
        let place = |columns: &[Column]| columns.iter().position(|column| column.name == name);
        let by = if name == "hitcount" {
            Some(SortBy::Hitcount)
        } else {
            place(values).map(SortBy::Value).or_else(|| place(keys).map(SortBy::Key))
        };
        let by = by.ok_or_else(|| self.wrong(Kind::InvalidSortField, name))?;
        match direction {
            None | Some("ascending") => Ok(SortKey { by, descending: false }),
            Some("descending") => Ok(SortKey { by, descending: true }),
            Some(other) => Err(self.wrong(Kind::InvalidSortModifier, other)),
        }
    }
}

fn change(text: &str) -> Result<Change, TriggerError> {
    match text {
        "pause" => Ok(Change::Pause),
        "cont" | "continue" => Ok(Change::Continue),
        "clear" => Ok(Change::Clear),
        _ => Err(TriggerError::Invalid("an unknown parameter of a histogram")),
    }
}

/// A size, rounded up to a power of 2.
fn bits(text: &str) -> Result<u8, TriggerError> {
    let size = text.parse::<u32>().ok().and_then(u32::checked_next_power_of_two);
    let bits = size.and_then(|size| u8::try_from(size.trailing_zeros()).ok());
    bits.filter(|bits| BITS.contains(bits))
        .ok_or(TriggerError::Invalid("a histogram's size is a number from 128 to 131072"))
}
