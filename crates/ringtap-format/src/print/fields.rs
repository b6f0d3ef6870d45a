//! An event without its `print fmt`: each field's name and value.

use super::mask::print as mask;
use crate::format::{Element, Field, Kind, Meaning};
use crate::out;
use crate::target::Target;

/// Most elements of an array that are printed.
const MAX_ELEMENTS: usize = 256;

/// Appends ` name=value` for each of `fields`.
pub(crate) fn print(fields: &[Field], record: &[u8], target: Target, out: &mut Vec<u8>) {
    for (place, field) in fields.iter().enumerate() {
        if place > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(field.name.as_bytes());
        out.push(b'=');
        value(field, record, target, out);
    }
}

/// Appends one field's value: numbers in decimal, addresses in hexadecimal, text as it is, arrays in braces.
pub(crate) fn value(field: &Field, record: &[u8], target: Target, out: &mut Vec<u8>) {
    if value_or_none(field, record, target, out).is_none() {
        out.extend_from_slice(b"<outside the record>");
    }
}

fn value_or_none(field: &Field, record: &[u8], target: Target, out: &mut Vec<u8>) -> Option<()> {
    match field.kind {
        Kind::Int | Kind::Bits { .. } => {
            let value = field.int(record, target)?;
            if field.signed { out::signed(out, value.cast_signed()) } else { out::dec(out, value) }
        }
        Kind::Pointer => {
            out.extend_from_slice(b"0x");
            out::hex(out, field.int(record, target)?);
        }
        Kind::Float => {
            let bytes = field.bytes(record, target)?;
            out.extend_from_slice(crate::value::float(bytes, target)?.to_string().as_bytes());
        }
        Kind::Opaque => bytes(field.bytes(record, target)?, out),
        Kind::Array(element) | Kind::Rest(element) | Kind::Dynamic { element, .. } => {
            array(field.bytes(record, target)?, element, target, out);
        }
    }
    Some(())
}

fn array(held: &[u8], element: Element, target: Target, out: &mut Vec<u8>) {
    match (element.meaning, u8::try_from(element.size)) {
        (Meaning::Text, _) => out.extend_from_slice(out::until_nul(held)),
        (Meaning::Mask, _) => mask(held, target, out),
        (_, Ok(size @ (1 | 2 | 4 | 8))) => {
            let each = usize::from(size);
            out.push(b'{');
            for (place, chunk) in held.chunks_exact(each).take(MAX_ELEMENTS).enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                let value = target.int(chunk, 0, size, element.signed).unwrap_or(0);
                match element.meaning {
                    Meaning::Pointers => {
                        out.extend_from_slice(b"0x");
                        out::hex(out, value);
                    }
                    _ if element.signed => out::signed(out, value.cast_signed()),
                    _ => out::dec(out, value),
                }
            }
            out.push(b'}');
        }
        _ => bytes(held, out),
    }
}

fn bytes(held: &[u8], out: &mut Vec<u8>) {
    for byte in held.iter().take(MAX_ELEMENTS) {
        out::hex_byte(out, *byte, false);
    }
}
