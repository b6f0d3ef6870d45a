//! The kernel's `format` text of a declared event, and the checks of a `print fmt` at compile time.

use super::layout::{self, Field};
use super::value::{Count, Kind, Shown};
use std::fmt::Write as _;

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

/// The text of an event's `format` file.
pub(super) fn text(name: &str, id: Option<u16>, fields: &[Field], print: Option<&Print>) -> String {
    let id = id.map_or_else(String::new, |id| format!(" {id}"));
    let lines: String = fields.iter().map(line).collect();
    let (format, args) = print.map_or_else(|| print_all(fields), |print| print_as_told(fields, print));
    let args: String = args.iter().map(|arg| format!(", {arg}")).collect();
    format!("name: {name}\nID:{id}\nformat:\n{COMMON}\n{lines}\nprint fmt: \"{}\"{args}\n", c_string(&format))
}

fn line(field: &Field) -> String {
    let Field { name, kind, offset } = field;
    let c_type = kind.c_type;
    let declaration = match kind.count {
        Count::One => format!("{c_type} {name}"),
        Count::Fixed(count) => format!("{c_type} {name}[{count}]"),
        Count::Dynamic => format!("__data_loc {c_type}[] {name}"),
    };
    let (size, signed) = (kind.size(), u8::from(kind.signed));
    format!("\tfield:{declaration};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n")
}

/// Prints every field with its name.
fn print_all(fields: &[Field]) -> (String, Vec<String>) {
    let shown = |field: &Field| format!("{}={}", field.name, conversion(&field.kind));
    let format = fields.iter().map(shown).collect::<Vec<_>>().join(" ");
    (format, fields.iter().map(expression).collect())
}

fn print_as_told(fields: &[Field], print: &Print) -> (String, Vec<String>) {
    let arg = |arg: &Arg| match *arg {
        Arg::Field(name) => layout::find(fields, name).map_or_else(|| name.to_owned(), expression),
        Arg::C(expression) => expression.to_owned(),
    };
    (print.format.to_owned(), print.args.iter().map(arg).collect())
}

/// What stands in a format for a field of this kind.
fn conversion(kind: &Kind) -> &'static str {
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
fn expression(field: &Field) -> String {
    let Field { name, kind, .. } = field;
    let size = kind.element_size;
    match (kind.shown, kind.count) {
        (Shown::Symbol(symbols), _) => format!("__print_symbolic(REC->{name}{})", pairs(symbols)),
        (Shown::Flags(symbols), _) => format!("__print_flags(REC->{name}, \"|\"{})", pairs(symbols)),
        (Shown::Text, Count::Dynamic) => format!("__get_str({name})"),
        // libtraceevent reads short numbers without their sign; this is the value there and in C.
        (Shown::Decimal, Count::One) if kind.signed && size < 4 => {
            let (largest, wrap) = ((1 << (8 * size - 1)) - 1, 1 << (8 * size));
            format!("REC->{name} > {largest} ? REC->{name} - {wrap} : REC->{name}")
        }
        (Shown::Text, _) | (_, Count::One) => format!("REC->{name}"),
        (_, Count::Fixed(count)) if size == 1 => format!("__print_hex_str(REC->{name}, {count})"),
        (_, Count::Fixed(count)) => format!("__print_array(REC->{name}, {count}, {size})"),
        (_, Count::Dynamic) => {
            let (array, len) =
                (format!("__get_dynamic_array({name})"), format!("__get_dynamic_array_len({name})"));
            match size {
                1 => format!("__print_hex_str({array}, {len})"),
                size => format!("__print_array({array}, {len} / {size}, {size})"),
            }
        }
    }
}

fn pairs(symbols: &[(u64, &str)]) -> String {
    let mut text = String::new();
    for (value, symbol) in symbols {
        // Writing to a `String` does not fail.
        let _ = write!(text, ", {{ {value:#x}, \"{}\" }}", c_string(symbol));
    }
    text
}

/// The text as it stands between quotes in C.
fn c_string(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            c if c.is_ascii_control() => escaped.push_str(&format!("\\{:03o}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
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
