//! What the tests share: a trace read back and decoded by its own format texts.

#![allow(dead_code, reason = "each test file uses its part")]

use ringtap::{Host, Item};
use ringtap_format::format::Kind;
use ringtap_format::{Context, Dialect, Formats, Strings, Symbols, Target, Value};
use std::collections::BTreeMap;

/// An event as a reader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) ns: u64,
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) tid: u32,
    pub(crate) fields: BTreeMap<String, Field>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Line {
    pub(crate) fn get(&self, field: &str) -> &Field {
        self.fields.get(field).unwrap_or_else(|| panic!("{self:?} has a field {field}"))
    }

    pub(crate) fn number(&self, field: &str) -> u64 {
        match self.get(field) {
            Field::Unsigned(number) => *number,
            other => panic!("{field} is {other:?}"),
        }
    }

    pub(crate) fn span(&self) -> u64 {
        self.number("span")
    }
}

/// All events that a host holds, by time, and how many were lost.
pub(crate) fn read(host: &Host) -> (Vec<Line>, u64) {
    let mut formats = Formats::new(Target::HOST, Dialect::TraceCmd);
    for event in host.events() {
        formats.add(&event.system, &event.format).expect("the format can be parsed");
    }
    let (symbols, strings) = (Symbols::default(), Strings::default());
    let context = Context { symbols: &symbols, strings: &strings, hz: None };
    let (mut lines, mut lost) = (Vec::new(), 0);
    for mut reader in host.readers().expect("nobody else reads") {
        while let Some(item) = reader.next().expect("the host is here") {
            match item {
                Item::Record(record) => {
                    lines.push(line(&formats, &context, record.ns(), &record.payload.to_vec()));
                }
                Item::Lost(gone) => lost += gone.count.expect("it is counted"),
                other => panic!("{other:?}"),
            }
        }
    }
    lines.sort_by_key(|line: &Line| line.ns);
    (lines, lost)
}

fn line(formats: &Formats, context: &Context<'_>, ns: u64, record: &[u8]) -> Line {
    let event = formats.of_record(record).expect("it was declared");
    let mut text = Vec::new();
    event.print(record, context, &mut text).expect("its print fmt can be evaluated");
    let has_floats = event.fields().iter().any(|field| field.kind == Kind::Float);
    assert_eq!(event.unprintable().is_some(), has_floats, "{:?}", event.unprintable());
    let value = |field: &ringtap_format::Field| match field.value(record, Target::HOST).expect("it is there")
    {
        Value::Unsigned(number) | Value::Address(number) => Field::Unsigned(number),
        Value::Signed(number) => Field::Signed(number),
        Value::Float(number) => Field::Float(number),
        Value::Text(text) => Field::Text(String::from_utf8(text.to_vec()).expect("it was UTF-8")),
        Value::Bytes(bytes) => Field::Bytes(bytes.to_vec()),
    };
    Line {
        ns,
        name: format!("{}:{}", event.system(), event.name()),
        text: String::from_utf8(text).expect("it was UTF-8"),
        tid: u32::from_le_bytes(record[4..8].try_into().expect("four bytes")),
        fields: event.fields().iter().map(|field| (field.name.clone(), value(field))).collect(),
    }
}

/// Names and what they are printed as.
pub(crate) fn names(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.name.as_str()).collect()
}
