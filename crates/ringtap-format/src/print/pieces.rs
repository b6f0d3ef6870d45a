//! The format string: literals and conversions, each with its argument, as printf of the kernel reads them.

use super::compile::{Compiler, Value};
use super::parse::Parsed;
use super::program::{Conversion, IntBase, Measure, Piece, Pointed, PointerFormat, Spec, Text};
use super::{Dialect, Unprintable, ast};
use crate::ByteOrder;
use crate::format::ctype::IntType;
use crate::target::Target;

/// Widest field and longest precision: what the kernel prints of one event fits in 8 KiB.
const MAX_WIDTH: u16 = 4096;

/// Most parts of one line; the longest of Linux 6.18 has 76.
const MAX_PIECES: usize = 1024;

/// Compiles the format string and its arguments into the compiler's program.
pub(super) fn pieces(compiler: &mut Compiler<'_>, parsed: &Parsed) -> Result<(), Unprintable> {
    let mut builder = Builder { compiler, args: parsed.args.iter(), literal: Vec::new() };
    let mut rest = parsed.format.as_slice();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            builder.literal.push(*first);
            rest = after;
            continue;
        }
        rest = builder.conversion(after)?;
        if builder.compiler.program.pieces.len() > MAX_PIECES {
            return builder.compiler.cannot("more than 1024 parts of a line");
        }
    }
    builder.flush();
    Ok(())
}

struct Builder<'c, 'a, 'p> {
    compiler: &'c mut Compiler<'a>,
    args: std::slice::Iter<'p, ast::Expr>,
    literal: Vec<u8>,
}

impl Builder<'_, '_, '_> {
    fn flush(&mut self) {
        if !self.literal.is_empty() {
            let literal = std::mem::take(&mut self.literal).into_boxed_slice();
            self.compiler.program.pieces.push(Piece::Literal(literal));
        }
    }

    fn push(&mut self, piece: Piece) {
        self.flush();
        self.compiler.program.pieces.push(piece);
    }

    fn argument(&mut self) -> Result<&ast::Expr, Unprintable> {
        match self.args.next() {
            Some(arg) => Ok(arg),
            None => self.compiler.cannot("fewer arguments than conversions"),
        }
    }

    /// Reads the conversion behind a `%` and returns what follows it.
    fn conversion<'f>(&mut self, format: &'f [u8]) -> Result<&'f [u8], Unprintable> {
        if let Some(rest) = format.strip_prefix(b"%") {
            self.literal.push(b'%');
            return Ok(rest);
        }
        let (mut spec, rest) = flags(format);
        let (width, rest) = self.measure(rest)?;
        spec.width = width;
        let rest = match rest.strip_prefix(b".") {
            Some(rest) => {
                let (precision, rest) = self.measure(rest)?;
                spec.precision = Some(precision.unwrap_or(Measure::Fixed(0)));
                rest
            }
            None => rest,
        };
        let (length, rest) = length(rest);
        let Some((letter, rest)) = rest.split_first() else {
            return self.compiler.cannot("a format string that ends in the middle of a conversion");
        };
        match letter {
            b'd' | b'i' => self.int(spec, length, true, IntBase::Decimal)?,
            b'u' => self.int(spec, length, false, IntBase::Decimal)?,
            b'x' => self.int(spec, length, false, IntBase::Hex)?,
            b'X' => self.int(spec, length, false, IntBase::HexUpper)?,
            b'o' => self.int(spec, length, false, IntBase::Octal)?,
            b's' => self.text(spec)?,
            b'c' => {
                let value = self.number()?;
                self.push(Piece::Padded { what: Conversion::Char(value), spec });
            }
            b'p' => return self.pointer(spec, rest),
            other => {
                let conversion = char::from(*other);
                return self.compiler.cannot(format!("the conversion %{conversion}"));
            }
        }
        Ok(rest)
    }

    /// A width or precision: digits, or `*` and an argument.
    fn measure<'f>(&mut self, format: &'f [u8]) -> Result<(Option<Measure>, &'f [u8]), Unprintable> {
        if let Some(rest) = format.strip_prefix(b"*") {
            let value = self.number()?;
            return Ok((Some(Measure::Argument(value)), rest));
        }
        let digits = format.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = format.split_at_checked(digits).unwrap_or((&[], format));
        if number.is_empty() {
            return Ok((None, rest));
        }
        let width = number.iter().fold(0u16, |sum, digit| {
            sum.saturating_mul(10).saturating_add(u16::from(digit.wrapping_sub(b'0')))
        });
        Ok((Some(Measure::Fixed(width.min(MAX_WIDTH))), rest))
    }

    fn number(&mut self) -> Result<u32, Unprintable> {
        let arg = self.argument()?.clone();
        Ok(self.compiler.int(&arg)?.0)
    }

    fn int(&mut self, spec: Spec, length: Length, signed: bool, base: IntBase) -> Result<(), Unprintable> {
        let value = self.number()?;
        let size = length.size(self.compiler.environment.target);
        let kind = IntType { size, signed };
        let piece = match base {
            IntBase::Decimal if spec.is_plain() => Piece::Decimal { value, kind },
            IntBase::Hex if spec.is_plain() => Piece::Hex { value, kind },
            _ => Piece::Padded { what: Conversion::Int { value, kind, base }, spec },
        };
        self.push(piece);
        Ok(())
    }

    fn text(&mut self, spec: Spec) -> Result<(), Unprintable> {
        let arg = self.argument()?.clone();
        let text = self.compiler.text(&arg)?;
        let plain = spec.is_plain();
        if plain && let Some(Text::Literal(literal)) = self.compiler.last_text(text) {
            self.literal.extend_from_slice(&literal);
            return Ok(());
        }
        self.push(if plain {
            Piece::Text(text)
        } else {
            Piece::Padded { what: Conversion::Text(text), spec }
        });
        Ok(())
    }

    /// `%p` and the letters and digits behind it, all of which belong to it.
    fn pointer<'f>(&mut self, spec: Spec, rest: &'f [u8]) -> Result<&'f [u8], Unprintable> {
        let letters = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let (extension, behind) = rest.split_at_checked(letters).unwrap_or((&[], rest));
        let (mut how, used) = pointer_format(extension, self.compiler.environment.target.order);
        // libtraceevent ends the conversion where it understands no more of it.
        let after = match self.compiler.environment.dialect {
            Dialect::Kernel => behind,
            Dialect::TraceCmd => rest.get(used..).unwrap_or(behind),
        };
        let arg = self.argument()?.clone();
        let value = match self.compiler.value(&arg)? {
            Value::Int(id, _) | Value::Address(id, _) => Pointed::Address(id),
            Value::Memory(id, _) => Pointed::Memory(id),
            Value::Text(_) => return self.compiler.cannot("the address of a text"),
        };
        if matches!(value, Pointed::Address(_)) && how.needs_memory() {
            how = PointerFormat::Unknown;
        }
        self.push(Piece::Padded { what: Conversion::Pointer { value, how }, spec });
        Ok(after)
    }
}

impl Spec {
    /// Whether nothing is said that changes how the value is written.
    pub(super) const fn is_plain(&self) -> bool {
        !self.plus && !self.space && !self.alternate && self.width.is_none() && self.precision.is_none()
    }
}

/// The length that stands before a conversion's letter.
#[derive(Clone, Copy)]
pub(super) enum Length {
    Char,
    Short,
    Int,
    Long,
    LongLong,
}

impl Length {
    /// Bytes of such an integer.
    pub(super) const fn size(self, target: Target) -> u8 {
        match self {
            Self::Char => 1,
            Self::Short => 2,
            Self::Int => 4,
            Self::Long => target.long_size,
            Self::LongLong => 8,
        }
    }
}

pub(super) fn flags(format: &[u8]) -> (Spec, &[u8]) {
    let mut spec = Spec::default();
    let mut rest = format;
    while let Some((flag, after)) = rest.split_first() {
        match flag {
            b'-' => spec.left = true,
            b'+' => spec.plus = true,
            b' ' => spec.space = true,
            b'#' => spec.alternate = true,
            b'0' => spec.zero = true,
            _ => break,
        }
        rest = after;
    }
    (spec, rest)
}

pub(super) fn length(format: &[u8]) -> (Length, &[u8]) {
    const LENGTHS: [(&[u8], Length); 9] = [
        (b"hh", Length::Char),
        (b"h", Length::Short),
        (b"ll", Length::LongLong),
        (b"l", Length::Long),
        (b"L", Length::LongLong),
        (b"q", Length::LongLong),
        (b"j", Length::LongLong),
        (b"z", Length::Long),
        (b"t", Length::Long),
    ];
    let found = LENGTHS.iter().find_map(|(prefix, length)| Some((*length, format.strip_prefix(*prefix)?)));
    match found {
        Some(found) => found,
        None => (Length::Int, format.strip_prefix(b"Z").unwrap_or(format)),
    }
}

/// The format that the letters behind `%p` name, and how many of them it takes.
fn pointer_format(letters: &[u8], order: ByteOrder) -> (PointerFormat, usize) {
    let has = |wanted: u8| letters.get(1..).unwrap_or_default().contains(&wanted);
    let second = letters.get(1).copied();
    let separator = match second {
        Some(b'C') => Some(b':'),
        Some(b'D') => Some(b'-'),
        Some(b'N') => None,
        _ => Some(b' '),
    };
    match letters.first() {
        None => (PointerFormat::Address, 0),
        Some(b'x' | b'K') => (PointerFormat::Address, 1),
        Some(b's' | b'f') if second != Some(b'w') => (PointerFormat::Symbol, 1),
        Some(b'S' | b'F') => {
            let used = if second == Some(b'R') { 2 } else { 1 };
            (PointerFormat::SymbolOffset { backtrace: false }, used)
        }
        Some(b'B') => (PointerFormat::SymbolOffset { backtrace: true }, 1),
        Some(kind @ (b'I' | b'i')) => internet(*kind, letters, order),
        Some(kind @ (b'M' | b'm')) => {
            let separator = match (kind, second) {
                (b'm', _) => None,
                (_, Some(b'F')) => Some(b'-'),
                _ => Some(b':'),
            };
            let used = if matches!(second, Some(b'F' | b'R')) { 2 } else { 1 };
            (PointerFormat::Mac { separator, reversed: second == Some(b'R') }, used)
        }
        Some(b'U') => {
            let format = PointerFormat::Uuid {
                upper: matches!(second, Some(b'B' | b'L')),
                little: matches!(second, Some(b'l' | b'L')),
            };
            (format, if matches!(second, Some(b'b' | b'B' | b'l' | b'L')) { 2 } else { 1 })
        }
        Some(b'b') => (PointerFormat::Bits { list: second == Some(b'l') }, if has(b'l') { 2 } else { 1 }),
        Some(b'h') => {
            let used = if matches!(second, Some(b'C' | b'D' | b'N')) { 2 } else { 1 };
            (PointerFormat::HexBytes { separator }, used)
        }
        Some(b'E') => (PointerFormat::Escaped, 1),
        Some(b'e') => (PointerFormat::Error, 1),
        Some(b'a') => (PointerFormat::ByReference, if matches!(second, Some(b'd' | b'p')) { 2 } else { 1 }),
        Some(b'4') if letters.starts_with(b"4cc") => (PointerFormat::FourCc, 3),
        Some(_) => (PointerFormat::Unknown, letters.len()),
    }
}

/// `%pI4`, `%pi6`, `%pI6c`, `%pISpc` and their kin.
fn internet(kind: u8, letters: &[u8], order: ByteOrder) -> (PointerFormat, usize) {
    let zeros = kind == b'i';
    let behind = letters.get(2..).unwrap_or_default();
    match letters.get(1) {
        Some(b'4') => {
            let asked = behind.first().copied();
            let reversed = match asked {
                Some(b'l') => true,
                Some(b'h') => order == ByteOrder::Little,
                _ => false,
            };
            let used = if matches!(asked, Some(b'h' | b'n' | b'b' | b'l')) { 3 } else { 2 };
            (PointerFormat::Ipv4 { zeros, reversed }, used)
        }
        Some(b'6') => {
            let compressed = behind.first() == Some(&b'c') && !zeros;
            (PointerFormat::Ipv6 { colons: !zeros, compressed }, if compressed { 3 } else { 2 })
        }
        Some(b'S') => {
            let options = behind.iter().take_while(|byte| b"pfschnbl".contains(byte)).count();
            let has = |wanted| behind.get(..options).unwrap_or_default().contains(&wanted);
            let format = PointerFormat::Socket {
                compressed: has(b'c'),
                port: has(b'p'),
                flow: has(b'f'),
                scope: has(b's'),
            };
            (format, options.saturating_add(2))
        }
        _ => (PointerFormat::Unknown, letters.len()),
    }
}

impl PointerFormat {
    /// Whether the address is only the way to the bytes that are printed.
    pub(super) const fn needs_memory(self) -> bool {
        !matches!(
            self,
            Self::Address | Self::Symbol | Self::SymbolOffset { .. } | Self::Error | Self::Unknown
        )
    }
}
