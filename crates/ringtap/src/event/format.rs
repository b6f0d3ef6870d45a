//! The kernel's `format` text of a declared event, and the checks of a `print fmt` at compile time.

use super::layout::{self, Field};
use super::value::{Count, Kind, Shown};

/// How an event is printed: a C format and its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Print {
    /// The kernel's printf format.
    pub format: &'static str,
    /// What its conversions print, in order.
    pub args: &'static [Arg],
}

/// An argument of a [`Print`].
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A field, by its name.
    Field(&'static str),
    /// A C expression as the kernel's `print fmt` has them, taken as it is.
    C(&'static str),
}

/// The fields that each of the kernel's formats begins with.
const COMMON: &str = "\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
";

/// What stands before each [`manifest`], so that it is found in a program's file: nothing else has these bytes.
const MANIFEST_MARK: [&str; 3] = ["\u{1}ringtap", " event", " 1\n"];

/// Bytes of the [`manifest`].
#[must_use]
pub const fn manifest_len(
    system: &'static str,
    name: &'static str,
    fields: &[Field],
    print: Option<&Print>,
) -> usize {
    let mut out = Out { bytes: &mut [], len: 0 };
    write_manifest(&mut out, system, name, fields, print);
    out.len
}

/// The declaration as a program's file has it: a mark, the system, the `format` text and a NUL. Who finds it knows what the
/// program will declare before it runs.
///
/// # Panics
/// Where `LEN` is not [`manifest_len`].
#[must_use]
pub const fn manifest<const LEN: usize>(
    system: &'static str,
    name: &'static str,
    fields: &[Field],
    print: Option<&Print>,
) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let mut out = Out { bytes: &mut bytes, len: 0 };
    write_manifest(&mut out, system, name, fields, print);
    assert!(out.len == LEN, "a manifest has the length that was counted");
    bytes
}

const fn write_manifest(
    out: &mut Out<'_>,
    system: &'static str,
    name: &'static str,
    fields: &[Field],
    print: Option<&Print>,
) {
    let mut part = 0;
    while part < MANIFEST_MARK.len() {
        out.text(MANIFEST_MARK[part]);
        part += 1;
    }
    out.text(layout::bare(system));
    out.byte(b'\n');
    write(out, layout::bare(name), None, fields, print);
    out.byte(0);
}

/// The declarations in the bytes of a program's file: system, name and `format` text of each. What only looks like one is
/// left out.
pub fn manifests(program: &[u8]) -> impl Iterator<Item = (&str, &str, &str)> {
    let mark = MANIFEST_MARK.concat();
    let mut rest = program;
    std::iter::from_fn(move || {
        loop {
            let at = memchr::memmem::find(rest, mark.as_bytes())?;
            rest = rest.get(at + mark.len()..)?;
            let end = memchr::memchr(0, rest)?;
            let found = rest.get(..end).and_then(|text| std::str::from_utf8(text).ok());
            let named = found.and_then(|text| {
                let (system, format) = text.split_once('\n')?;
                let name = format.lines().next()?.strip_prefix("name: ")?;
                Some((system, name, format))
            });
            if named.is_some() {
                return named;
            }
        }
    })
}

/// The text of an event's `format` file.
pub(super) fn text(name: &str, id: Option<u16>, fields: &[Field], print: Option<&Print>) -> String {
    let mut counted = Out { bytes: &mut [], len: 0 };
    write(&mut counted, name, id, fields, print);
    let mut bytes = vec![0; counted.len];
    write(&mut Out { bytes: &mut bytes, len: 0 }, name, id, fields, print);
    String::from_utf8(bytes).expect("it is made of strings")
}

/// Where text goes, also at compile time. Behind the end of the bytes it is only counted.
struct Out<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl Out<'_> {
    const fn byte(&mut self, byte: u8) {
        if self.len < self.bytes.len() {
            self.bytes[self.len] = byte;
        }
        self.len += 1;
    }

    const fn text(&mut self, text: &str) {
        let (bytes, mut at) = (text.as_bytes(), 0);
        while at < bytes.len() {
            self.byte(bytes[at]);
            at += 1;
        }
    }

    /// The text as it stands between quotes in C.
    const fn c_text(&mut self, text: &str) {
        let (bytes, mut at) = (text.as_bytes(), 0);
        while at < bytes.len() {
            match bytes[at] {
                b'\n' => self.text("\\n"),
                b'\t' => self.text("\\t"),
                byte @ (b'"' | b'\\') => {
                    self.byte(b'\\');
                    self.byte(byte);
                }
                byte if byte.is_ascii_control() => {
                    self.byte(b'\\');
                    self.byte(b'0' + (byte >> 6));
                    self.byte(b'0' + (byte >> 3 & 7));
                    self.byte(b'0' + (byte & 7));
                }
                byte => self.byte(byte),
            }
            at += 1;
        }
    }

    const fn number(&mut self, number: usize) {
        self.digits(number as u64, 10);
    }

    const fn digits(&mut self, number: u64, base: u64) {
        if number >= base {
            self.digits(number / base, base);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a digit")]
        self.byte(b"0123456789abcdef"[(number % base) as usize]);
    }
}

const fn write(out: &mut Out<'_>, name: &str, id: Option<u16>, fields: &[Field], print: Option<&Print>) {
    out.text("name: ");
    out.text(name);
    out.text("\nID:");
    if let Some(id) = id {
        out.byte(b' ');
        out.number(id as usize);
    }
    out.text("\nformat:\n");
    out.text(COMMON);
    out.byte(b'\n');
    let mut at = 0;
    while at < fields.len() {
        write_line(out, &fields[at]);
        at += 1;
    }
    out.text("\nprint fmt: \"");
    match print {
        None => write_print_all(out, fields),
        Some(print) => write_print(out, fields, print),
    }
    out.byte(b'\n');
}

const fn write_line(out: &mut Out<'_>, field: &Field) {
    let kind = &field.kind;
    out.text("\tfield:");
    if let Count::Dynamic = kind.count {
        out.text("__data_loc ");
    }
    out.text(kind.c_type);
    if let Count::Dynamic = kind.count {
        out.text("[]");
    }
    out.byte(b' ');
    out.text(field.name);
    if let Count::Fixed(count) = kind.count {
        out.byte(b'[');
        out.number(count);
        out.byte(b']');
    }
    out.text(";\toffset:");
    out.number(field.offset);
    out.text(";\tsize:");
    out.number(kind.size());
    out.text(";\tsigned:");
    out.number(kind.signed as usize);
    out.text(";\n");
}

/// Prints every field with its name.
const fn write_print_all(out: &mut Out<'_>, fields: &[Field]) {
    let mut at = 0;
    while at < fields.len() {
        if at > 0 {
            out.byte(b' ');
        }
        out.text(fields[at].name);
        out.byte(b'=');
        out.text(conversion(&fields[at].kind));
        at += 1;
    }
    out.byte(b'"');
    at = 0;
    while at < fields.len() {
        out.text(", ");
        write_expression(out, &fields[at]);
        at += 1;
    }
}

const fn write_print(out: &mut Out<'_>, fields: &[Field], print: &Print) {
    out.c_text(print.format);
    out.byte(b'"');
    let mut at = 0;
    while at < print.args.len() {
        out.text(", ");
        match print.args[at] {
            Arg::C(expression) => out.text(expression),
            Arg::Field(name) => match layout::find(fields, name) {
                Some(field) => write_expression(out, field),
                None => out.text(name),
            },
        }
        at += 1;
    }
}

/// What stands in a format for a field of this kind.
const fn conversion(kind: &Kind) -> &'static str {
    if is_string(kind) {
        return "%s";
    }
    match (kind.shown, kind.element_size, kind.signed) {
        (Shown::Hexadecimal, 8, _) => "0x%016llx",
        (Shown::Hexadecimal, ..) => "0x%08x",
        (_, 8, true) => "%lld",
        (_, 8, false) => "%llu",
        (_, _, true) => "%d",
        (_, _, false) => "%u",
    }
}

/// Whether the expression of such a field is a string for `%s`.
const fn is_string(kind: &Kind) -> bool {
    !matches!(kind.count, Count::One)
        || matches!(kind.shown, Shown::Text | Shown::Symbol(_) | Shown::Flags(_))
}

/// The C expression that yields a field's value, or its text.
const fn write_expression(out: &mut Out<'_>, field: &Field) {
    let Field { name, kind, .. } = field;
    let size = kind.element_size;
    match (kind.shown, kind.count) {
        (Shown::Symbol(symbols), _) => {
            out.text("__print_symbolic(REC->");
            out.text(name);
            write_pairs(out, symbols);
        }
        (Shown::Flags(symbols), _) => {
            out.text("__print_flags(REC->");
            out.text(name);
            out.text(", \"|\"");
            write_pairs(out, symbols);
        }
        (Shown::Text, Count::Dynamic) => {
            out.text("__get_str(");
            out.text(name);
            out.byte(b')');
        }
        // libtraceevent reads short numbers without their sign; this is the value there and in C.
        (Shown::Decimal, Count::One) if kind.signed && size < 4 => {
            write_record(out, name);
            out.text(" > ");
            out.number((1 << (8 * size - 1)) - 1);
            out.text(" ? ");
            write_record(out, name);
            out.text(" - ");
            out.number(1 << (8 * size));
            out.text(" : ");
            write_record(out, name);
        }
        (Shown::Text, _) | (_, Count::One) => write_record(out, name),
        (_, Count::Fixed(count)) => {
            out.text(if size == 1 { "__print_hex_str(" } else { "__print_array(" });
            write_record(out, name);
            out.text(", ");
            out.number(count);
            write_element(out, size);
        }
        (_, Count::Dynamic) => {
            out.text(if size == 1 { "__print_hex_str(" } else { "__print_array(" });
            out.text("__get_dynamic_array(");
            out.text(name);
            out.text("), __get_dynamic_array_len(");
            out.text(name);
            out.byte(b')');
            if size != 1 {
                out.text(" / ");
                out.number(size);
            }
            write_element(out, size);
        }
    }
}

const fn write_record(out: &mut Out<'_>, name: &str) {
    out.text("REC->");
    out.text(name);
}

/// The size of an array's elements, and the end of what prints it.
const fn write_element(out: &mut Out<'_>, size: usize) {
    if size != 1 {
        out.text(", ");
        out.number(size);
    }
    out.byte(b')');
}

const fn write_pairs(out: &mut Out<'_>, symbols: &[(u64, &str)]) {
    let mut at = 0;
    while at < symbols.len() {
        let (value, symbol) = symbols[at];
        out.text(", { 0x");
        out.digits(value, 16);
        out.text(", \"");
        out.c_text(symbol);
        out.text("\" }");
        at += 1;
    }
    out.byte(b')');
}

/// Checks that a print format's conversions suit its arguments; [`event!`](crate::event!) calls it at compile time.
///
/// # Panics
/// Where they do not.
pub const fn check(fields: &[Field], print: &Print) {
    let format = print.format.as_bytes();
    let (mut at, mut arg) = (0, 0);
    while at < format.len() {
        if format[at] != b'%' {
            at += 1;
            continue;
        }
        at += 1;
        let (mut longs, mut star) = (0, false);
        while at < format.len() && !format[at].is_ascii_alphabetic() && format[at] != b'%' {
            star |= format[at] == b'*';
            at += 1;
        }
        assert!(!star, "print format: a width of `*` is not supported");
        while at < format.len() && matches!(format[at], b'l' | b'h' | b'z') {
            longs += (format[at] != b'h') as usize;
            at += 1;
        }
        assert!(at < format.len(), "print format: it ends within a conversion");
        if format[at] != b'%' {
            assert!(arg < print.args.len(), "print format: it has more conversions than arguments");
            check_arg(fields, print.args[arg], format[at], longs);
            arg += 1;
        }
        at += 1;
    }
    assert!(arg == print.args.len(), "print format: it has fewer conversions than arguments");
}

const fn check_arg(fields: &[Field], arg: Arg, letter: u8, longs: usize) {
    let Arg::Field(name) = arg else { return };
    let Some(field) = layout::find(fields, name) else {
        panic!("print format: an argument is neither a field of the event nor a C expression in quotes")
    };
    match letter {
        b's' => assert!(is_string(&field.kind), "print format: `%s` prints a field that is a number"),
        b'd' | b'i' | b'u' | b'x' | b'X' | b'o' | b'c' => {
            assert!(!is_string(&field.kind), "print format: a field that is not a number needs `%s`");
            assert!(
                (field.kind.element_size == 8) == (longs > 0),
                "print format: a field of 64 bits needs `ll`, such as `%llu`, and others must not have it"
            );
        }
        b'p' => assert!(
            matches!(field.kind.shown, Shown::Hexadecimal) && field.kind.element_size == 8,
            "print format: `%p` prints a field that is not a pointer"
        ),
        _ => panic!("print format: use the conversions d, i, u, x, X, o, c, s or p"),
    }
}
