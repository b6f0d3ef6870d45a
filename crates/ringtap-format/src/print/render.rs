//! The text of a program's pieces for one record.

use super::eval::{Evaluator, Stop, index};
use super::layout::{Layout, hex_bytes, hex_dump};
use super::program::{Conversion, Id, Measure, Piece, Spec, Table, Text};
use super::{Dialect, mask, pointer};
use crate::out;
use crate::target::convert;

/// Most bytes that one event's text may take; the kernel cuts its lines at 8 KiB.
const MAX_TEXT: usize = 1 << 18;

/// A program at work on one record, for one kind of reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renderer<'a> {
    pub(super) evaluator: Evaluator<'a>,
    pub(super) dialect: Dialect,
}

impl<'a> Renderer<'a> {
    pub(super) fn pieces(&self, out: &mut Vec<u8>) -> Result<(), Stop> {
        let start = out.len();
        for piece in &self.evaluator.program.pieces {
            match piece {
                Piece::Literal(literal) => out.extend_from_slice(literal),
                Piece::Decimal { value, kind } => {
                    let value = convert(self.int(*value)?, kind.size, kind.signed);
                    if kind.signed { out::signed(out, value.cast_signed()) } else { out::dec(out, value) }
                }
                Piece::Hex { value, kind } => out::hex(out, convert(self.int(*value)?, kind.size, false)),
                Piece::Text(text) => self.text(*text, out)?,
                Piece::Padded { what, spec } => self.padded(*what, *spec, out)?,
            }
            if out.len().saturating_sub(start) > MAX_TEXT {
                out.truncate(start.saturating_add(MAX_TEXT));
                out.extend_from_slice(b"[LINE TOO BIG]");
                break;
            }
        }
        Ok(())
    }

    #[inline]
    fn int(&self, id: Id) -> Result<u64, Stop> {
        self.evaluator.int(id)
    }

    fn memory(&self, id: Id) -> Result<&'a [u8], Stop> {
        self.evaluator.memory(id)
    }

    /// A width or precision; a negative one means what the caller says.
    fn measure(&self, measure: Option<Measure>) -> Result<Option<i64>, Stop> {
        Ok(match measure {
            None => None,
            Some(Measure::Fixed(fixed)) => Some(i64::from(fixed)),
            Some(Measure::Argument(id)) => {
                Some(convert(self.int(id)?, 4, true).cast_signed().clamp(-4096, 4096))
            }
        })
    }

    fn padded(&self, what: Conversion, mut spec: Spec, out: &mut Vec<u8>) -> Result<(), Stop> {
        let width = self.measure(spec.width)?.unwrap_or(0);
        spec.left |= width < 0;
        let width = usize::try_from(width.unsigned_abs()).unwrap_or(0);
        let precision = self.measure(spec.precision)?.and_then(|precision| usize::try_from(precision).ok());
        let layout = Layout { spec, width, precision, dialect: self.dialect };
        match what {
            Conversion::Int { value, kind, base } => layout.int(self.int(value)?, kind, base, out),
            Conversion::Char(value) => {
                let start = out.len();
                out.push(u8::try_from(self.int(value)? & 255).unwrap_or(0));
                out::widen(out, start, width, spec.left);
            }
            Conversion::Text(text) => {
                let start = out.len();
                self.text(text, out)?;
                if let Some(precision) = precision {
                    out.truncate(out.len().min(start.saturating_add(precision)));
                }
                out::widen(out, start, width, spec.left);
            }
            Conversion::Pointer { value, how } => {
                pointer::print(&self.evaluator, value, how, layout, out)?;
            }
        }
        Ok(())
    }

    /// The text for `%s`. Choices are followed in a loop: they may be nested as deep as their text is long.
    fn text(&self, mut id: Id, out: &mut Vec<u8>) -> Result<(), Stop> {
        loop {
            let Some(text) = self.evaluator.program.texts.get(index(id)) else {
                return Err(Stop::Unknown("a text"));
            };
            match text {
                Text::Choice { condition, yes, no } => {
                    id = if self.int(*condition)? != 0 { *yes } else { *no }
                }
                Text::Literal(literal) => {
                    out.extend_from_slice(out::until_nul(literal));
                    return Ok(());
                }
                Text::Memory(memory) => {
                    out.extend_from_slice(out::until_nul(self.memory(*memory)?));
                    return Ok(());
                }
                text => return self.helper(text, out),
            }
        }
    }

    /// What the kernel's helpers of `print fmt` print.
    fn helper(&self, text: &Text, out: &mut Vec<u8>) -> Result<(), Stop> {
        match text {
            Text::Literal(_) | Text::Memory(_) | Text::Choice { .. } => {}
            Text::Address(address) => self.string_at(self.int(*address)?, out),
            Text::Flags { value, delimiter, table } => {
                self.flags(self.int(*value)?, delimiter, self.table(*table)?, out);
            }
            Text::Symbolic { value, table } => {
                let value = self.int(*value)?;
                match self.table(*table)?.name(value) {
                    Some(name) => out.extend_from_slice(name),
                    None => {
                        out.extend_from_slice(b"0x");
                        out::hex(out, value);
                    }
                }
            }
            Text::Hex { memory, len, separated } => {
                let bytes = self.memory(*memory)?;
                let bytes = bytes.get(..self.length(*len)?).ok_or(Stop::Index)?;
                hex_bytes(bytes, separated.then_some(b' '), out);
            }
            Text::Array { memory, count, size } => self.array(*memory, *count, *size, out)?,
            Text::HexDump { memory, len, dump } => {
                let bytes = self.memory(*memory)?;
                hex_dump(
                    bytes.get(..self.length(*len)?).ok_or(Stop::Index)?,
                    dump,
                    self.evaluator.target,
                    out,
                );
            }
            Text::Mask(memory) => mask::print(self.memory(*memory)?, self.evaluator.target, out),
            Text::Caller(address) => {
                let address = self.int(*address)?;
                let symbols = self.evaluator.context.symbols;
                if symbols.resolve(address).is_some() {
                    out.push(b'(');
                    symbols.print(address, true, Dialect::TraceCmd, out);
                    out.extend_from_slice(b") ");
                }
            }
            Text::Function(address) => self.function(self.int(*address)?, out),
            Text::Argument { condition, name, value, digits } => {
                if self.int(*condition)? != 0 {
                    out.extend_from_slice(name);
                    let value = self.int(*value)?;
                    match digits {
                        0 => out::dec(out, value),
                        digits => out::hex_wide(out, value, usize::from(*digits)),
                    }
                }
            }
            Text::MemoryError(kind) => out.extend_from_slice(match convert(self.int(*kind)?, 4, false) {
                0 => b"Corrected",
                1 => b"Uncorrected",
                2 => b"Deferred",
                3 => b"Fatal",
                _ => b"Info",
            }),
        }
        Ok(())
    }

    fn table(&self, id: Id) -> Result<&Table, Stop> {
        self.evaluator.program.tables.get(index(id)).ok_or(Stop::Unknown("a table"))
    }

    fn length(&self, id: Id) -> Result<usize, Stop> {
        usize::try_from(convert(self.int(id)?, 4, true)).map_err(|_| Stop::Index)
    }

    /// The kernel's string at `address`: from `printk_formats`, or the address itself.
    fn string_at(&self, address: u64, out: &mut Vec<u8>) {
        match self.evaluator.context.strings.get(address) {
            Some(text) => out.extend_from_slice(text.as_bytes()),
            None if address == 0 => out.extend_from_slice(b"(null)"),
            None => {
                if self.dialect == Dialect::Kernel {
                    out.extend_from_slice(b"0x");
                }
                out::hex(out, address);
            }
        }
    }

    /// The plugins print a function's distance from the address, which is none.
    fn function(&self, address: u64, out: &mut Vec<u8>) {
        let symbols = self.evaluator.context.symbols;
        if symbols.resolve(address).is_some() {
            symbols.print(address, false, Dialect::TraceCmd, out);
            out.extend_from_slice(b"/0x0");
        } else {
            out.extend_from_slice(b"0x");
            out::hex_wide(out, address, 8);
        }
    }

    fn flags(&self, value: u64, delimiter: &[u8], table: &Table, out: &mut Vec<u8>) {
        let mut left = value;
        let mut separator: &[u8] = b"";
        for (mask, name) in &table.entries {
            if left == 0 && self.dialect == Dialect::Kernel {
                break;
            }
            let is_set = left & mask == *mask;
            let counts = match self.dialect {
                Dialect::Kernel => is_set,
                Dialect::TraceCmd => {
                    // It prints the first name whose value it does not know, or is negative, for 0.
                    if left == 0 && value == 0 && mask.cast_signed() < 0 {
                        out.extend_from_slice(name);
                        break;
                    }
                    mask.cast_signed() > 0 && is_set
                }
            };
            if counts {
                out.extend_from_slice(separator);
                out.extend_from_slice(name);
                separator = delimiter;
                left &= !mask;
            }
        }
        if left != 0 {
            out.extend_from_slice(separator);
            out.extend_from_slice(b"0x");
            out::hex(out, left);
        }
    }

    fn array(&self, memory: Id, count: Option<Id>, size: u8, out: &mut Vec<u8>) -> Result<(), Stop> {
        let bytes = self.memory(memory)?;
        let each = usize::from(size).max(1);
        let bytes = match count {
            Some(count) => {
                let len = self.length(count)?.checked_mul(each).ok_or(Stop::Index)?;
                bytes.get(..len).ok_or(Stop::Index)?
            }
            None => bytes,
        };
        out.push(b'{');
        for (place, element) in bytes.chunks_exact(each).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"0x");
            out::hex(out, self.evaluator.target.uint(element, 0, size).unwrap_or(0));
        }
        out.push(b'}');
        Ok(())
    }
}
