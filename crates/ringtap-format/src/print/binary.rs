//! `trace_printk`'s own format: its string is the kernel's, its arguments are in the record as `vbin_printf` packs them.
//!
//! ```text
//!   %d %u %x, a width `*`   1, 2, 4 or 8 bytes, at a multiple of their size, 4 at most
//!   %c                      one byte
//!   %s                      the text and its NUL, at any byte
//!   %p %px %ps %pS %pe      the pointer, at a multiple of 4
//!   %pI4, all others        as text, printed when it was written
//! ```

use super::ast::{Expr, Node};
use super::compile::Compiler;
use super::parse::Parsed;
use super::pieces;
use super::{Context, Environment};
use crate::format::ctype::IntType;
use crate::target::Target;

/// Most arguments of one call.
const MAX_ARGUMENTS: usize = 256;
/// Integers of 8 bytes lie at a multiple of this, as in the kernel's 32-bit words.
const MAX_ALIGN: usize = 4;

/// Appends the text of `format` with these packed arguments; `None`, and nothing, where they do not fit together.
pub(crate) fn print(
    environment: Environment<'_>,
    format: &[u8],
    packed: &[u8],
    context: &Context<'_>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let (target, dialect) = (environment.target, environment.dialect);
    let parsed = Unpacker { target, packed, at: 0, format: Vec::new(), args: Vec::new() }.unpack(format)?;
    let mut compiler = Compiler::new(environment);
    pieces::pieces(&mut compiler, &parsed).ok()?;
    // It has no field of a record.
    compiler.program.print(&[], target, dialect, context, out).ok()
}

struct Unpacker<'a> {
    target: Target,
    packed: &'a [u8],
    at: usize,
    /// The format as it is printed: what was text when it was written is text.
    format: Vec<u8>,
    args: Vec<Expr>,
}

impl Unpacker<'_> {
    fn unpack(mut self, mut rest: &[u8]) -> Option<Parsed> {
        while let Some((&first, after)) = rest.split_first() {
            self.format.push(first);
            rest = match (first, after.split_first()) {
                (b'%', Some((b'%', behind))) => {
                    self.format.push(b'%');
                    behind
                }
                (b'%', _) => self.conversion(after)?,
                _ => after,
            };
            if self.args.len() > MAX_ARGUMENTS {
                return None;
            }
        }
        Some(Parsed { format: self.format, args: self.args })
    }

    fn conversion<'f>(&mut self, text: &'f [u8]) -> Option<&'f [u8]> {
        let rest = self.measure(pieces::flags(text).1)?;
        let rest = match rest.strip_prefix(b".") {
            Some(rest) => self.measure(rest)?,
            None => rest,
        };
        let (length, rest) = pieces::length(rest);
        let (letter, behind) = rest.split_first()?;
        let copied = text.len().checked_sub(rest.len())?;
        self.format.extend_from_slice(text.get(..copied)?);
        match letter {
            b'd' | b'i' | b'u' | b'x' | b'X' | b'o' => {
                let signed = matches!(letter, b'd' | b'i');
                self.int(length.size(self.target), signed)?;
            }
            b'c' => self.int(1, false)?,
            b's' => self.text()?,
            b'p' => return self.pointer(behind),
            _ => return None,
        }
        self.format.push(*letter);
        Some(behind)
    }

    /// A width or precision, whose argument comes first where it is one.
    fn measure<'f>(&mut self, text: &'f [u8]) -> Option<&'f [u8]> {
        if let Some(rest) = text.strip_prefix(b"*") {
            self.int(4, true)?;
            return Some(rest);
        }
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        text.get(digits..)
    }

    fn pointer<'f>(&mut self, behind: &'f [u8]) -> Option<&'f [u8]> {
        let letters = behind.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let (extension, rest) = behind.split_at_checked(letters)?;
        match extension.first() {
            None | Some(b'S' | b's' | b'x' | b'K' | b'e') => {
                self.int(self.target.long_size, false)?;
                self.format.push(b'p');
                self.format.extend_from_slice(extension);
            }
            Some(_) => {
                self.text()?;
                self.format.push(b's');
            }
        }
        Some(rest)
    }

    fn int(&mut self, size: u8, signed: bool) -> Option<()> {
        let len = usize::from(size);
        let start = self.at.checked_next_multiple_of(len.min(MAX_ALIGN))?;
        let value = self.target.int(self.packed, start, size, signed)?;
        self.at = start.checked_add(len)?;
        self.push(Node::Int(value, IntType { size, signed }));
        Some(())
    }

    fn text(&mut self) -> Option<()> {
        let rest = self.packed.get(self.at..)?;
        let len = rest.iter().position(|&byte| byte == 0)?;
        self.at = self.at.checked_add(len)?.checked_add(1)?;
        self.push(Node::Text(rest.get(..len)?.to_vec()));
        Some(())
    }

    fn push(&mut self, node: Node) {
        self.args.push(Expr { node: Box::new(node), depth: 1, at: 0 });
    }
}

#[cfg(test)]
mod tests {
    use crate::{Context, Dialect, Formats, Strings, Symbols, Target};

    const BPRINT: &str = "name: bprint\nID: 6\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:const char * fmt;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:u32 buf[];\toffset:24;\tsize:0;\tsigned:0;\n\n\
        print fmt: \"%ps: %s\", (void *)REC->ip, REC->fmt\n";

    /// The text of a record whose format string and arguments are these.
    fn printed(format: &str, arguments: &[&[u8]]) -> String {
        let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
        let event = formats.add("ftrace", BPRINT).unwrap();
        let mut record = vec![6, 0, 0, 0, 1, 0, 0, 0];
        record.extend_from_slice(&0xffff_0000u64.to_le_bytes());
        record.extend_from_slice(&0x1000u64.to_le_bytes());
        arguments.iter().for_each(|argument| record.extend_from_slice(argument));
        let (symbols, strings) = (
            Symbols::parse("00000000ffff0000 T do_work\n00000000ffff1000 T other\n"),
            Strings::parse(&format!("0x1000 : \"{format}\"\n")),
        );
        let mut out = Vec::new();
        let _ = event.print(&record, &Context { symbols: &symbols, strings: &strings, hz: None }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn arguments_stand_where_the_kernel_packs_them() {
        let seven = 7u32.to_le_bytes();
        assert_eq!(printed("plain 100%%", &[]), "do_work: plain 100%");
        assert_eq!(printed("%d of %u", &[&(-3i32).to_le_bytes(), &seven]), "do_work: -3 of 7");
        // A byte, a short at 2, a text at 4 that ends at 8, a long at 8.
        let packed: [&[u8]; 5] = [b"\xff", b"\0", &300u16.to_le_bytes(), b"abc\0", &u64::MAX.to_le_bytes()];
        assert_eq!(printed("%hhd %hu %s %lx", &packed), "do_work: -1 300 abc ffffffffffffffff");
        let packed: [&[u8]; 4] = [b"x", b"hi\0", &5u32.to_le_bytes(), &seven];
        assert_eq!(printed("%c %s [%*d]", &packed), "do_work: x hi [    7]");
        let packed: [&[u8]; 2] = [&0xffff_1000u64.to_le_bytes(), b"10.0.0.1\0"];
        assert_eq!(printed("%ps %pI4", &packed), "do_work: other 10.0.0.1");
        assert_eq!(printed("%5.2s|", &[b"abc\0"]), "do_work:    ab|");
    }

    #[test]
    fn arguments_that_are_missing_show_the_format() {
        for (format, packed) in
            [("%d %d", &b"\x01\0\0\0"[..]), ("%s", b"abc"), ("%d", b""), ("%f", b"12345678"), ("%", b"")]
        {
            assert_eq!(printed(format, &[packed]), format!("do_work: {format}"));
        }
    }
}
