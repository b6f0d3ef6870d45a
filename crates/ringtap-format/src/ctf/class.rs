//! Events as classes of the format: what their members are, and how a record's fields are packed.

use super::UNDECODED;
use crate::event::Event;
use crate::format::{Element, Field, Kind, Meaning};
use crate::target::{ByteOrder, Target};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

/// An integer's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Int {
    /// Bytes, 1 to 8.
    pub(super) size: u8,
    pub(super) is_signed: bool,
    /// Whether people read it in hexadecimal.
    pub(super) is_hex: bool,
}

impl Int {
    pub(super) const BYTE: Self = Self { size: 1, is_signed: false, is_hex: true };

    pub(super) const fn unsigned(size: u8) -> Self {
        Self { size, is_signed: false, is_hex: false }
    }
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Int(Int),
    /// Of 4 or 8 bytes.
    Float(u8),
    /// Ends with a NUL.
    Text,
    Array(Int, u32),
    /// As long as the number says that stands before it, of 4 bytes, lowest first.
    Sequence(Int),
    Blob(u32),
    /// As `Sequence`, of bytes that mean nothing to us.
    BlobSequence,
}

/// A member of a structure.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: Cow<'static, str>,
    pub(super) shape: Shape,
}

/// How a member's bytes are found.
#[derive(Clone, Debug)]
enum Column {
    /// As they are.
    Copy(Range<usize>),
    /// An integer that is not whole bytes.
    Bits(Field, u8),
    Text(Field),
    /// An array of so long elements.
    Sequence(Field, usize),
    /// The whole record.
    Record,
}

/// An event class.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) members: Vec<Member>,
    pub(super) order: ByteOrder,
    columns: Vec<Column>,
    target: Target,
}

impl Class {
    pub(super) fn new(event: &Event) -> Self {
        let mut class = Self {
            id: u32::from(event.id()),
            name: format!("{}:{}", event.system(), event.name()),
            members: Vec::new(),
            order: event.target().order,
            columns: Vec::new(),
            target: event.target(),
        };
        let mut names = Names::default();
        for field in event.fields() {
            let (shape, column) = layout(field);
            let is_counted = matches!(shape, Shape::Sequence(_) | Shape::BlobSequence);
            class.members.push(Member { name: names.add(&field.name, is_counted).into(), shape });
            class.push(column);
        }
        class
    }

    /// The class of records that make no sense.
    pub(super) fn undecoded() -> Self {
        Self {
            id: UNDECODED,
            name: "ringtap:undecoded".to_owned(),
            members: vec![Member { name: "_record".into(), shape: Shape::BlobSequence }],
            order: ByteOrder::Little,
            columns: vec![Column::Record],
            target: Target::LE64,
        }
    }

    /// Adds a column; neighbours that are copied are copied as one.
    fn push(&mut self, column: Column) {
        match (self.columns.last_mut(), column) {
            (Some(Column::Copy(before)), Column::Copy(next)) if before.end == next.start => {
                before.end = next.end;
            }
            (_, column) => self.columns.push(column),
        }
    }

    /// Appends the payload of `record`; `None` where the record lacks a field, and what was appended is to be undone.
    pub(super) fn encode(&self, record: &[u8], is_utf8: bool, out: &mut Vec<u8>) -> Option<()> {
        for column in &self.columns {
            match column {
                Column::Copy(range) => out.extend_from_slice(record.get(range.clone())?),
                Column::Bits(field, size) => integer(field.int(record, self.target)?, *size, self.order, out),
                Column::Text(field) => text(field.text(record, self.target)?, is_utf8, out),
                Column::Sequence(field, size) => {
                    let bytes = field.bytes(record, self.target)?;
                    let count = bytes.len().checked_div(*size)?;
                    sequence(bytes.get(..count.saturating_mul(*size))?, count, out);
                }
                Column::Record => sequence(record, record.len(), out),
            }
        }
        Some(())
    }
}

fn sequence(bytes: &[u8], count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a string and its NUL; with `is_utf8`, what is not UTF-8 becomes U+FFFD.
pub(super) fn text(bytes: &[u8], is_utf8: bool, out: &mut Vec<u8>) {
    match is_utf8 {
        true => out.extend_from_slice(String::from_utf8_lossy(bytes).as_bytes()),
        false => out.extend_from_slice(bytes),
    }
    out.push(0);
}

fn integer(value: u64, size: u8, order: ByteOrder, out: &mut Vec<u8>) {
    let size = usize::from(size.min(8));
    match order {
        ByteOrder::Little => out.extend_from_slice(value.to_le_bytes().get(..size).unwrap_or_default()),
        ByteOrder::Big => {
            let bytes = value.to_be_bytes();
            out.extend_from_slice(bytes.get(bytes.len().saturating_sub(size)..).unwrap_or_default());
        }
    }
}

fn layout(field: &Field) -> (Shape, Column) {
    let start = usize::try_from(field.offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(field.size).unwrap_or(usize::MAX));
    let copy = Column::Copy(start..end);
    let sequence = |element: Element| {
        let (shape, size) = match int_of(element) {
            Some(int) => (Shape::Sequence(int), usize::from(int.size)),
            None => (Shape::BlobSequence, 1),
        };
        (shape, Column::Sequence(field.clone(), size))
    };
    match field.kind {
        _ if field.is_text() => (Shape::Text, Column::Text(field.clone())),
        Kind::Int | Kind::Pointer => match field.int_size() {
            Some(size) => {
                let is_hex = field.kind == Kind::Pointer;
                (Shape::Int(Int { size, is_signed: field.signed && !is_hex, is_hex }), copy)
            }
            None => (Shape::Blob(field.size), copy),
        },
        Kind::Bits { .. } => match field.int_size() {
            Some(size) => {
                let int = Int { size, is_signed: field.signed, is_hex: false };
                (Shape::Int(int), Column::Bits(field.clone(), size))
            }
            None => (Shape::Blob(field.size), copy),
        },
        Kind::Float => match field.size {
            4 => (Shape::Float(4), copy),
            8 => (Shape::Float(8), copy),
            size => (Shape::Blob(size), copy),
        },
        Kind::Opaque => (Shape::Blob(field.size), copy),
        Kind::Array(element) => match int_of(element) {
            Some(int) if field.size.is_multiple_of(element.size.max(1)) => {
                let len = field.size.checked_div(element.size).unwrap_or(0);
                (Shape::Array(int, len), copy)
            }
            _ => (Shape::Blob(field.size), copy),
        },
        Kind::Rest(element) | Kind::Dynamic { element, .. } => sequence(element),
    }
}

/// The integer that an element is, where it is one.
fn int_of(element: Element) -> Option<Int> {
    let size = u8::try_from(element.size).ok().filter(|size| matches!(size, 1 | 2 | 4 | 8))?;
    let is_hex = matches!(element.meaning, Meaning::Pointers | Meaning::Mask);
    let is_signed = element.signed && !is_hex;
    (element.meaning != Meaning::Opaque || size > 1).then_some(Int { size, is_signed, is_hex })
}

/// The name of the number that stands before a sequence of this name.
pub(super) fn length_name(name: &str) -> String {
    format!("_{name}_length")
}

/// The names of a structure's members, each once.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// A member's name for a field's: its letters and digits behind an underscore.
    fn add(&mut self, name: &str, is_counted: bool) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let base: String = std::iter::once('_').chain(name.chars().map(plain)).collect();
        let mut chosen = base.clone();
        for number in 2u32.. {
            let length = is_counted.then(|| length_name(&chosen));
            if !self.0.contains(&chosen) && !length.as_ref().is_some_and(|length| self.0.contains(length)) {
                self.0.extend(length);
                break;
            }
            chosen = format!("{base}_{number}");
        }
        self.0.insert(chosen.clone());
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers_and_unique() {
        let mut names = Names::default();
        assert_eq!(names.add("integer", false), "_integer");
        assert_eq!(names.add("a.b", false), "_a_b");
        assert_eq!(names.add("a-b", false), "_a_b_2");
        assert_eq!(names.add("_v_length", false), "__v_length");
        assert_eq!(names.add("v", true), "_v_2");
        assert_eq!(length_name("_v_2"), "__v_2_length");
        assert_eq!(names.add("é", false), "__");
    }
}
