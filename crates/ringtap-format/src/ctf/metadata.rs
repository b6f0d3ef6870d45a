//! The metadata stream, in the language of either version: TSDL (1.8), or a sequence of JSON texts (2).

use super::class::{Class, Int, Member, Shape, length_name};
use super::{Options, Version};
use crate::target::ByteOrder;
use crate::text::json_string;
use std::borrow::Cow;
use std::fmt::Write as _;

/// What readers of either version know a member by.
#[derive(Clone, Copy)]
struct Known {
    name: &'static str,
    shape: Shape,
    /// Version 2's role; in version 1.8 the name is the role.
    role: Option<&'static str>,
}

const fn known(name: &'static str, shape: Shape, role: &'static str) -> Known {
    Known { name, shape, role: Some(role) }
}

const fn plain(name: &'static str, shape: Shape) -> Known {
    Known { name, shape, role: None }
}

const U32: Shape = Shape::Int(Int::unsigned(4));
const U64: Shape = Shape::Int(Int::unsigned(8));
const TIMESTAMP: &str = "default-clock-timestamp";
const PACKET_END: &str = "packet-end-default-clock-timestamp";

const PACKET_HEADER: [Known; 3] = [
    known("magic", Shape::Int(Int { size: 4, is_signed: false, is_hex: true }), "packet-magic-number"),
    known("uuid", Shape::Blob(16), "metadata-stream-uuid"),
    known("stream_id", U32, "data-stream-class-id"),
];
const PACKET_CONTEXT: [Known; 7] = [
    known("timestamp_begin", U64, TIMESTAMP),
    known("timestamp_end", U64, PACKET_END),
    known("content_size", U64, "packet-content-length"),
    known("packet_size", U64, "packet-total-length"),
    known("packet_seq_num", U64, "packet-sequence-number"),
    known("events_discarded", U64, "discarded-event-record-counter-snapshot"),
    plain("cpu_id", U32),
];
const EVENT_HEADER: [Known; 2] =
    [known("id", U32, "event-record-class-id"), known("timestamp", U64, TIMESTAMP)];
const EVENT_CONTEXT: [Known; 4] = [
    plain("_tid", Shape::Int(Int { size: 4, is_signed: true, is_hex: false })),
    plain("_procname", Shape::Text),
    plain("_common_flags", Shape::Int(Int::BYTE)),
    plain("_common_preempt_count", Shape::Int(Int::BYTE)),
];

/// The language that the metadata are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Tsdl,
    Json,
}

impl Language {
    pub(super) const fn of(options: &Options) -> Self {
        match options.version {
            Version::V1 => Self::Tsdl,
            Version::V2 => Self::Json,
        }
    }

    /// The start: the trace and its clock.
    pub(super) fn trace(self, options: &Options, out: &mut Vec<u8>) {
        match self {
            Self::Tsdl => tsdl_trace(options, out),
            Self::Json => json_trace(options, out),
        }
    }

    /// A group's stream class.
    pub(super) fn stream_class(self, group: u32, out: &mut Vec<u8>) {
        let parts: [(&str, &str, &[Known]); 3] = [
            ("packet.context", "packet-context-field-class", &PACKET_CONTEXT),
            ("event.header", "event-record-header-field-class", &EVENT_HEADER),
            ("event.context", "event-record-common-context-field-class", &EVENT_CONTEXT),
        ];
        match self {
            Self::Tsdl => {
                let mut text = format!("\nstream {{\n\tid = {group};\n");
                for (name, _, members) in parts {
                    let _ = writeln!(text, "\t{name} := {};", tsdl_known(members));
                }
                text.push_str("};\n");
                out.extend_from_slice(text.as_bytes());
            }
            Self::Json => {
                let mut text = format!(
                    "\"type\":\"data-stream-class\",\"id\":{group},\"default-clock-class-id\":\"ringtap\""
                );
                for (_, name, members) in parts {
                    let _ = write!(text, ",\"{name}\":{}", json_known(members));
                }
                fragment(&text, out);
            }
        }
    }

    /// An event class of a group's.
    pub(super) fn event_class(self, group: u32, class: &Class, out: &mut Vec<u8>) {
        let Class { id, name, members, order, .. } = class;
        match self {
            Self::Tsdl => {
                let (name, fields) = (tsdl_string(name), tsdl_members(members, *order));
                let text = format!(
                    "\nevent {{\n\tname = {name};\n\tid = {id};\n\tstream_id = {group};\n\tfields := {fields};\n}};\n"
                );
                out.extend_from_slice(text.as_bytes());
            }
            Self::Json => {
                let (name, fields) = (quoted(name), json_members(members, *order));
                fragment(
                    &format!(
                        "\"type\":\"event-record-class\",\"data-stream-class-id\":{group},\"id\":{id},\"name\":{name},\
                         \"payload-field-class\":{fields}"
                    ),
                    out,
                );
            }
        }
    }
}

fn tsdl_trace(options: &Options, out: &mut Vec<u8>) {
    let header = tsdl_known(&PACKET_HEADER);
    let uuid = dashed(&options.uuid);
    let mut text = format!(
        "/* CTF 1.8 */\n\ntrace {{\n\tmajor = 1;\n\tminor = 8;\n\tuuid = \"{uuid}\";\n\tbyte_order = le;\n\
         \tpacket.header := {header};\n}};\n\nenv {{\n"
    );
    for (name, value) in &options.environment {
        let _ = writeln!(text, "\t{name} = {};", tsdl_string(value));
    }
    let _ = write!(
        text,
        "}};\n\nclock {{\n\tname = \"ringtap\";\n\tuuid = \"{uuid}\";\n\tfreq = 1000000000;\n\toffset = 0;\n}};\n"
    );
    out.extend_from_slice(text.as_bytes());
}

fn tsdl_known(members: &[Known]) -> String {
    let mut text = "struct {\n".to_owned();
    for member in members {
        let map = match member.role {
            Some(TIMESTAMP | PACKET_END) => " map = clock.ringtap.value;",
            _ => "",
        };
        tsdl_member(member.name, member.shape, ByteOrder::Little, map, &mut text);
    }
    text.push_str("\t}");
    text
}

fn tsdl_members(members: &[Member], order: ByteOrder) -> String {
    let mut text = "struct {\n".to_owned();
    for Member { name, shape } in members {
        tsdl_member(name, *shape, order, "", &mut text);
    }
    text.push_str("\t}");
    text
}

fn tsdl_member(name: &str, shape: Shape, order: ByteOrder, map: &str, text: &mut String) {
    let bytes_of = |count| (Int::BYTE, count);
    let integer = |int, order| tsdl_int(int, order, map);
    let length = length_name(name);
    if matches!(shape, Shape::Sequence(_) | Shape::BlobSequence) {
        let _ = writeln!(text, "\t\t{} {length};", integer(Int::unsigned(4), ByteOrder::Little));
    }
    let _ = match shape {
        Shape::Int(int) => writeln!(text, "\t\t{} {name};", integer(int, order)),
        Shape::Float(size) => {
            let (exponent, mantissa) = if size == 4 { (8, 24) } else { (11, 53) };
            let order = tsdl_order(order);
            writeln!(
                text,
                "\t\tfloating_point {{ exp_dig = {exponent}; mant_dig = {mantissa}; byte_order = {order}; align = 8; }} \
                 {name};"
            )
        }
        Shape::Text => writeln!(text, "\t\tstring {{ encoding = UTF8; }} {name};"),
        Shape::Array(int, len) => writeln!(text, "\t\t{} {name}[{len}];", integer(int, order)),
        Shape::Sequence(int) => writeln!(text, "\t\t{} {name}[{length}];", integer(int, order)),
        Shape::Blob(len) => {
            let (int, len) = bytes_of(len);
            writeln!(text, "\t\t{} {name}[{len}];", integer(int, order))
        }
        Shape::BlobSequence => writeln!(text, "\t\t{} {name}[{length}];", integer(Int::BYTE, order)),
    };
}

fn tsdl_int(int: Int, order: ByteOrder, map: &str) -> String {
    let (size, base) = (u32::from(int.size).saturating_mul(8), if int.is_hex { 16 } else { 10 });
    let (signed, order) = (int.is_signed, tsdl_order(order));
    format!(
        "integer {{ size = {size}; align = 8; signed = {signed}; byte_order = {order}; base = {base};{map} }}"
    )
}

const fn tsdl_order(order: ByteOrder) -> &'static str {
    match order {
        ByteOrder::Little => "le",
        ByteOrder::Big => "be",
    }
}

/// A string in quotes; what is not printed stands in octal digits.
fn tsdl_string(value: &str) -> String {
    let mut text = "\"".to_owned();
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_ascii_control() => {
                let _ = write!(text, "\\{:03o}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

fn dashed(uuid: &[u8; 16]) -> String {
    let mut text = String::new();
    for (place, byte) in uuid.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn json_trace(options: &Options, out: &mut Vec<u8>) {
    let uuid: Vec<_> = options.uuid.iter().map(u8::to_string).collect();
    fragment(&format!("\"type\":\"preamble\",\"version\":2,\"uuid\":[{}]", uuid.join(",")), out);
    let environment: Vec<_> = options
        .environment
        .iter()
        .map(|(name, value)| format!("{}:{}", quoted(name), quoted(value)))
        .collect();
    fragment(
        &format!(
            "\"type\":\"trace-class\",\"name\":\"ringtap\",\"uid\":\"{}\",\"environment\":{{{}}},\"packet-header-field-class\":{}",
            dashed(&options.uuid),
            environment.join(","),
            json_known(&PACKET_HEADER)
        ),
        out,
    );
    fragment(
        "\"type\":\"clock-class\",\"id\":\"ringtap\",\"name\":\"ringtap\",\"frequency\":1000000000,\
         \"offset-from-origin\":{\"seconds\":0,\"cycles\":0}",
        out,
    );
}

/// A fragment of the metadata: a JSON text of RFC 7464.
fn fragment(members: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\x1e{");
    out.extend_from_slice(members.as_bytes());
    out.extend_from_slice(b"}\n");
}

fn json_known(members: &[Known]) -> String {
    let each = members
        .iter()
        .map(|member| (member.name.trim_start_matches('_'), member.shape, ByteOrder::Little, member.role));
    json_structure(each)
}

fn json_members(members: &[Member], order: ByteOrder) -> String {
    // This language has no words that a name could be taken for.
    let each = members
        .iter()
        .map(|Member { name, shape }| (name.strip_prefix('_').unwrap_or(name), *shape, order, None));
    json_structure(each)
}

fn json_structure<'a>(
    members: impl Iterator<Item = (&'a str, Shape, ByteOrder, Option<&'static str>)>,
) -> String {
    let mut classes = Vec::new();
    for (name, shape, order, role) in members {
        let length: Cow<'_, str> = length_name(name).into();
        if matches!(shape, Shape::Sequence(_) | Shape::BlobSequence) {
            let class = json_int(Int::unsigned(4), ByteOrder::Little, "");
            classes.push(format!("{{\"name\":{},\"field-class\":{class}}}", quoted(&length)));
        }
        let roles = role.map_or_else(String::new, |role| format!(",\"roles\":[\"{role}\"]"));
        let class = json_class(shape, order, &length, &roles);
        classes.push(format!("{{\"name\":{},\"field-class\":{class}}}", quoted(name)));
    }
    format!("{{\"type\":\"structure\",\"member-classes\":[{}]}}", classes.join(","))
}

fn json_class(shape: Shape, order: ByteOrder, length: &str, roles: &str) -> String {
    let location = || {
        format!(
            "\"length-field-location\":{{\"origin\":\"event-record-payload\",\"path\":[{}]}}",
            quoted(length)
        )
    };
    match shape {
        Shape::Int(int) => json_int(int, order, roles),
        Shape::Float(size) => {
            let (bits, order) = (u32::from(size).saturating_mul(8), json_order(order));
            format!(
                "{{\"type\":\"fixed-length-floating-point-number\",\"length\":{bits},\"byte-order\":\"{order}\",\
                 \"alignment\":8}}"
            )
        }
        Shape::Text => "{\"type\":\"null-terminated-string\",\"encoding\":\"utf-8\"}".to_owned(),
        Shape::Array(int, len) => {
            let element = json_int(int, order, "");
            format!("{{\"type\":\"static-length-array\",\"length\":{len},\"element-field-class\":{element}}}")
        }
        Shape::Sequence(int) => {
            let (element, location) = (json_int(int, order, ""), location());
            format!("{{\"type\":\"dynamic-length-array\",\"element-field-class\":{element},{location}}}")
        }
        Shape::Blob(len) => format!("{{\"type\":\"static-length-blob\",\"length\":{len}{roles}}}"),
        Shape::BlobSequence => format!("{{\"type\":\"dynamic-length-blob\",{}}}", location()),
    }
}

fn json_int(int: Int, order: ByteOrder, roles: &str) -> String {
    let sign = if int.is_signed { "signed" } else { "unsigned" };
    let (bits, order) = (u32::from(int.size).saturating_mul(8), json_order(order));
    let base = if int.is_hex { ",\"preferred-display-base\":16" } else { "" };
    format!(
        "{{\"type\":\"fixed-length-{sign}-integer\",\"length\":{bits},\"byte-order\":\"{order}\",\"alignment\":8\
         {base}{roles}}}"
    )
}

const fn json_order(order: ByteOrder) -> &'static str {
    match order {
        ByteOrder::Little => "little-endian",
        ByteOrder::Big => "big-endian",
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    json_string(text.as_bytes(), &mut out);
    String::from_utf8(out).unwrap_or_default()
}
