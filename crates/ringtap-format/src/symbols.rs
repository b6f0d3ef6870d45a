//! Names of addresses (`/proc/kallsyms`), texts of addresses (`printk_formats`) and names of tasks
//! (`saved_cmdlines`).

use crate::dialect::Dialect;
use crate::hash::Keyed;
use crate::out;
use std::collections::{BTreeMap, HashMap};

/// The kernel's symbols, by address.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    names: String,
    /// By address; of equal addresses in the order of the file.
    symbols: Vec<Symbol>,
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    name: Span,
    module: Span,
}

/// Bytes of `names`.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    len: u32,
}

/// Bytes of a line of kallsyms, on average.
const MEAN_LINE: usize = 44;

/// An address, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// The symbol's name.
    pub name: &'a str,
    /// The module that it belongs to.
    pub module: Option<&'a str>,
    /// The address's distance from the symbol's start.
    pub offset: u64,
    /// The distance to the next symbol; 0 for the last.
    pub size: u64,
}

impl Symbols {
    /// Reads the text of `/proc/kallsyms`: `address type name [module]`. Lines of another form are skipped, and so
    /// is a file that hides all addresses.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.len() / MEAN_LINE;
        let mut symbols =
            Self { names: String::with_capacity(text.len() / 2), symbols: Vec::with_capacity(lines) };
        for line in text.lines() {
            symbols.add(line);
        }
        if symbols.symbols.iter().all(|symbol| symbol.address == 0) {
            return Self::default();
        }
        symbols.symbols.sort_by_key(|symbol| symbol.address);
        symbols
    }

    fn add(&mut self, line: &str) {
        let Some((address, rest)) = line.split_once(' ') else { return };
        let Some((kind, rest)) = rest.split_once(' ') else { return };
        let (name, module) = rest.split_once('\t').unwrap_or((rest, ""));
        let Ok(address) = u64::from_str_radix(address, 16) else { return };
        // ARM's assembler leaves marks ($a, $d) between its symbols.
        if kind.len() != 1 || name.starts_with(['$', '\x7f']) {
            return;
        }
        let module = module.trim_matches(['[', ']']);
        let (name, module) = (self.span(name), self.span(module));
        self.symbols.push(Symbol { address, name, module });
    }

    fn span(&mut self, text: &str) -> Span {
        let start = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let len = u32::try_from(text.len()).unwrap_or(0);
        if start.checked_add(len).is_none() {
            return Span::default();
        }
        self.names.push_str(text);
        Span { start, len }
    }

    fn text(&self, span: Span) -> &str {
        let start = usize::try_from(span.start).unwrap_or(usize::MAX);
        let len = usize::try_from(span.len).unwrap_or(0);
        self.names.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    /// How many symbols there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The symbol that `address` lies in, as the kernel names it: of several at one address the first.
    #[must_use]
    pub fn resolve(&self, address: u64) -> Option<Resolved<'_>> {
        let after = self.symbols.partition_point(|symbol| symbol.address <= address);
        let start = self.symbols.get(after.checked_sub(1)?)?.address;
        let first = self.symbols.partition_point(|symbol| symbol.address < start);
        self.resolved(*self.symbols.get(first)?, after, address)
    }

    /// Start and end of the function that `address` lies in.
    pub(crate) fn function_at(&self, address: u64) -> Option<(u64, u64)> {
        let found = self.resolve(address)?;
        let start = address.checked_sub(found.offset)?;
        Some((start, start.saturating_add(found.size.max(1))))
    }

    /// Start and end of the function of this name, the first there is.
    pub(crate) fn function_named(&self, name: &str) -> Option<(u64, u64)> {
        let named = self.symbols.iter().find(|symbol| self.text(symbol.name) == name)?;
        self.function_at(named.address)
    }

    /// The symbol that libtraceevent names: of several at one address the one that a binary search meets first.
    fn resolve_as_trace_cmd(&self, address: u64) -> Option<Resolved<'_>> {
        let (mut low, mut high) = (0usize, self.symbols.len().checked_sub(1)?);
        while low < high {
            let middle = low.midpoint(high);
            let symbol = *self.symbols.get(middle)?;
            let next = self.symbols.get(middle.wrapping_add(1)).map(|next| next.address);
            if symbol.address == address
                || (symbol.address < address && next.is_none_or(|next| address < next))
            {
                return self.resolved(symbol, middle.wrapping_add(1), address);
            }
            if address < symbol.address { high = middle } else { low = middle.wrapping_add(1) }
        }
        None
    }

    fn resolved(&self, symbol: Symbol, after: usize, address: u64) -> Option<Resolved<'_>> {
        let module = self.text(symbol.module);
        let end = self.symbols.get(after).map_or(symbol.address, |next| next.address);
        Some(Resolved {
            name: self.text(symbol.name),
            module: (!module.is_empty()).then_some(module),
            offset: address.checked_sub(symbol.address)?,
            size: end.saturating_sub(symbol.address),
        })
    }

    /// Prints `%ps`, or with `offset` `%pS`.
    pub(crate) fn print(&self, address: u64, offset: bool, dialect: Dialect, out: &mut Vec<u8>) {
        let found = match dialect {
            Dialect::Kernel => self.resolve(address),
            Dialect::TraceCmd => self.resolve_as_trace_cmd(address),
        };
        let Some(found) = found else {
            out.extend_from_slice(b"0x");
            return out::hex(out, address);
        };
        out.extend_from_slice(found.name.as_bytes());
        match dialect {
            Dialect::Kernel => found.print_rest(offset, out),
            Dialect::TraceCmd if offset => {
                out.extend_from_slice(b"+0x");
                out::hex(out, found.offset);
            }
            Dialect::TraceCmd => {}
        }
    }

    /// Prints `%pB`: a return address, which belongs to the call before it.
    pub(crate) fn print_return(&self, address: u64, out: &mut Vec<u8>) {
        let Some(found) = self.resolve(address.wrapping_sub(1)) else {
            return self.print(address, true, Dialect::Kernel, out);
        };
        out.extend_from_slice(found.name.as_bytes());
        Resolved { offset: found.offset.wrapping_add(1), ..found }.print_rest(true, out);
    }
}

impl Resolved<'_> {
    fn print_rest(&self, offset: bool, out: &mut Vec<u8>) {
        if offset {
            out.extend_from_slice(b"+0x");
            out::hex(out, self.offset);
            out.extend_from_slice(b"/0x");
            out::hex(out, self.size);
        }
        if let Some(module) = self.module {
            out.extend_from_slice(b" [");
            out.extend_from_slice(module.as_bytes());
            out.push(b']');
        }
    }
}

/// Strings of the kernel by their address: what `printk_formats` lists.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    strings: BTreeMap<u64, Box<str>>,
}

impl Strings {
    /// Reads the text of `printk_formats`: `0xaddress : "text"`. Lines of another form are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut strings = Self::default();
        for line in text.lines() {
            let Some((address, text)) = line.split_once(':') else { continue };
            let digits = address.trim().trim_start_matches("0x");
            let (Ok(address), Some(text)) = (u64::from_str_radix(digits, 16), quoted(text.trim())) else {
                continue;
            };
            strings.strings.insert(address, text.into());
        }
        strings
    }

    /// The text at `address`.
    #[must_use]
    pub fn get(&self, address: u64) -> Option<&str> {
        self.strings.get(&address).map(|text| &**text)
    }
}

/// The text between quotes, its escapes resolved.
fn quoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next()? {
                'n' => '\n',
                't' => '\t',
                other => other,
            },
            c => c,
        });
    }
    Some(plain)
}

/// Names of tasks by thread id: what `saved_cmdlines` lists, and what records of a live trace tell.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    names: HashMap<i32, Box<[u8]>, Keyed>,
}

impl Tasks {
    /// Reads the text of `saved_cmdlines`: `pid name`. Lines of another form are skipped.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut tasks = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let Some(space) = line.iter().position(|byte| *byte == b' ') else { continue };
            let (Some(pid), Some([_, name @ ..])) = (line.get(..space), line.get(space..)) else { continue };
            if let Some(pid) = std::str::from_utf8(pid).ok().and_then(|pid| pid.parse().ok()) {
                tasks.set(pid, name);
            }
        }
        tasks
    }

    /// Gives task `pid` a name; the bytes need not be UTF-8.
    pub fn set(&mut self, pid: i32, name: &[u8]) {
        match self.names.get(&pid) {
            Some(known) if **known == *name => {}
            _ => {
                self.names.insert(pid, name.into());
            }
        }
    }

    /// The name of task `pid`, as the kernel writes it: `<idle>` for 0 and `<...>` where it is unknown.
    #[must_use]
    pub fn name(&self, pid: i32) -> &[u8] {
        match self.names.get(&pid) {
            _ if pid == 0 => b"<idle>",
            Some(name) => name,
            None => b"<...>",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "ffffffff81000100 t inner\nffffffff81000000 T _stext\nffffffff81000000 T alias\n\
                            ffffffffc0000000 t probe\t[driver]\nffffffffc0000080 t last\t[driver]\nnonsense\n";

    fn printed(address: u64, offset: bool, dialect: Dialect) -> String {
        let mut out = Vec::new();
        Symbols::parse(KALLSYMS).print(address, offset, dialect, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn symbols_in_the_kernels_words() {
        assert_eq!(printed(0xffff_ffff_8100_0010, true, Dialect::Kernel), "_stext+0x10/0x100");
        assert_eq!(printed(0xffff_ffff_8100_0010, false, Dialect::Kernel), "_stext");
        assert_eq!(printed(0xffff_ffff_c000_0001, true, Dialect::Kernel), "probe+0x1/0x80 [driver]");
        assert_eq!(printed(0xffff_ffff_c000_0001, false, Dialect::Kernel), "probe [driver]");
        assert_eq!(printed(0x10, true, Dialect::Kernel), "0x10");
        let mut out = Vec::new();
        Symbols::parse(KALLSYMS).print_return(0xffff_ffff_8100_0100, &mut out);
        assert_eq!(out, b"_stext+0x100/0x100");
    }

    #[test]
    fn symbols_in_trace_cmds_words() {
        assert_eq!(printed(0xffff_ffff_8100_0110, true, Dialect::TraceCmd), "inner+0x10");
        assert_eq!(printed(0xffff_ffff_c000_0001, false, Dialect::TraceCmd), "probe");
    }

    #[test]
    fn hidden_addresses_are_no_symbols() {
        assert!(Symbols::parse("0000000000000000 T a\n0000000000000000 T b\n").is_empty());
    }

    #[test]
    fn strings_and_their_escapes() {
        let strings = Strings::parse("0xffffffff82000000 : \"a \\\"b\\\"\\n\"\nbad\n0xzz : \"x\"\n");
        assert_eq!(strings.get(0xffff_ffff_8200_0000), Some("a \"b\"\n"));
        assert_eq!(strings.get(1), None);
    }

    #[test]
    fn tasks() {
        let tasks = Tasks::parse(b"12 cargo build\n7 \xff\nx y\n");
        assert_eq!(tasks.name(12), b"cargo build");
        assert_eq!(tasks.name(7), b"\xff");
        assert_eq!((tasks.name(0), tasks.name(1)), (&b"<idle>"[..], &b"<...>"[..]));
    }
}
