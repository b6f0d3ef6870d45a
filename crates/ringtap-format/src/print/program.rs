//! The compact form of a `print fmt`: what is evaluated for each record, without names and without allocation.

use super::ast::Binary;
use crate::format::ctype::IntType;
use crate::value::IntField;

/// An index into one of a program's lists; which one, the field that holds it says.
pub(super) type Id = u32;

/// A compiled `print fmt`. Everything refers to everything else by index, and only backwards.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(super) pieces: Vec<Piece>,
    pub(super) ints: Vec<Int>,
    pub(super) memories: Vec<Memory>,
    pub(super) texts: Vec<Text>,
    pub(super) tables: Vec<Table>,
}

/// A part of the printed line.
#[derive(Debug)]
pub(super) enum Piece {
    Literal(Box<[u8]>),
    /// `%d`, `%u` and `%x` of any length, without flags: nearly all numbers there are.
    Decimal {
        value: Id,
        kind: IntType,
    },
    Hex {
        value: Id,
        kind: IntType,
    },
    /// `%s` without flags.
    Text(Id),
    Padded {
        what: Conversion,
        spec: Spec,
    },
}

/// A conversion that heeds flags, width or precision.
#[derive(Clone, Copy, Debug)]
pub(super) enum Conversion {
    Int { value: Id, kind: IntType, base: IntBase },
    Char(Id),
    Text(Id),
    Pointer { value: Pointed, how: PointerFormat },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntBase {
    Decimal,
    Octal,
    Hex,
    HexUpper,
}

/// What `%p` gets: an address in the kernel, or bytes of the record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pointed {
    Address(Id),
    Memory(Id),
}

/// Flags, width and precision of a conversion.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spec {
    pub(super) left: bool,
    pub(super) plus: bool,
    pub(super) space: bool,
    pub(super) alternate: bool,
    pub(super) zero: bool,
    pub(super) width: Option<Measure>,
    pub(super) precision: Option<Measure>,
}

/// A width or precision: written down, or an argument.
#[derive(Clone, Copy, Debug)]
pub(super) enum Measure {
    Fixed(u16),
    Argument(Id),
}

/// The extensions of `%p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PointerFormat {
    /// `%p`, `%px`, `%pK`: the address.
    Address,
    /// `%ps`, `%pf`
    Symbol,
    /// `%pS`, `%pF`, `%pSR`; `%pB` looks up the byte before, a return address.
    SymbolOffset { backtrace: bool },
    /// `%pI4`, `%pi4` (leading zeros), and their orders `h`, `n`, `b`, `l`.
    Ipv4 { zeros: bool, reversed: bool },
    /// `%pI6` with colons, `%pi6` without; `c` compresses.
    Ipv6 { colons: bool, compressed: bool },
    /// `%pIS`: a `struct sockaddr`.
    Socket { compressed: bool, port: bool, flow: bool, scope: bool },
    /// `%pM`, `%pMF`, `%pMR`, `%pm`, `%pmR`
    Mac { separator: Option<u8>, reversed: bool },
    /// `%pU` with `b`, `l`, `B`, `L`
    Uuid { upper: bool, little: bool },
    /// `%pb`, `%pbl`
    Bits { list: bool },
    /// `%ph` with `C`, `D`, `N`
    HexBytes { separator: Option<u8> },
    /// `%pE`: text with what is not printable escaped.
    Escaped,
    /// `%pe`: the error's name.
    Error,
    /// `%pa`, `%pad`, `%pap`: an address or size by reference.
    ByReference,
    /// `%p4cc`: a four-character code.
    FourCc,
    /// An extension that needs the kernel's memory: the address is printed instead.
    Unknown,
}

/// An integer expression. Values are 64-bit, normal for their type: sign- or zero-extended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Int {
    Const(u64),
    Field(IntField),
    Bits {
        offset: u32,
        size: u8,
        shift: u8,
        width: u8,
        signed: bool,
    },
    /// The length in a `__data_loc` or `__rel_loc` word.
    DynamicLen {
        offset: u32,
    },
    Load {
        memory: Id,
        index: Id,
        size: u8,
        signed: bool,
    },
    Convert {
        value: Id,
        to: IntType,
    },
    Minus {
        value: Id,
        kind: IntType,
    },
    Invert {
        value: Id,
        kind: IntType,
    },
    Not(Id),
    /// Both operands are of type `kind` already; a comparison's result is an `int`.
    Binary {
        operator: Binary,
        a: Id,
        b: Id,
        kind: IntType,
    },
    Choice {
        condition: Id,
        yes: Id,
        no: Id,
    },
    Otherwise {
        value: Id,
        no: Id,
    },
    /// The bytes of an integer of `size` bytes, turned round.
    Swap {
        value: Id,
        size: u8,
    },
    JiffiesToMs(Id),
}

/// Bytes of the record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Memory {
    Fixed {
        offset: u32,
        len: u32,
    },
    Rest {
        offset: u32,
    },
    Dynamic {
        offset: u32,
        relative: bool,
    },
    /// Pointer arithmetic: `by` elements of `scale` bytes further on.
    Shift {
        memory: Id,
        by: Id,
        scale: u32,
    },
    Choice {
        condition: Id,
        yes: Id,
        no: Id,
    },
}

/// Text for `%s`.
#[derive(Debug)]
pub(super) enum Text {
    Literal(Box<[u8]>),
    /// Bytes of the record up to a NUL.
    Memory(Id),
    /// The address of a string in the kernel.
    Address(Id),
    Flags {
        value: Id,
        delimiter: Box<[u8]>,
        table: Id,
    },
    Symbolic {
        value: Id,
        table: Id,
    },
    Hex {
        memory: Id,
        len: Id,
        separated: bool,
    },
    Array {
        memory: Id,
        count: Option<Id>,
        size: u8,
    },
    HexDump {
        memory: Id,
        len: Id,
        dump: HexDump,
    },
    Mask(Id),
    Choice {
        condition: Id,
        yes: Id,
        no: Id,
    },
    /// Of libtraceevent's plugins: `(symbol+0x1) `, or nothing where the address has no name.
    Caller(Id),
    /// Of libtraceevent's plugins: `symbol/0x0`.
    Function(Id),
    /// Of libtraceevent's plugins: a name and a number where the condition holds; in hexadecimal where it has a
    /// least number of digits.
    Argument {
        condition: Id,
        name: Box<[u8]>,
        value: Id,
        digits: u8,
    },
    /// `mc_event_error_type()`, which a `print fmt` of the kernel calls.
    MemoryError(Id),
}

/// How `__print_hex_dump` lays out its lines.
#[derive(Clone, Debug)]
pub(super) struct HexDump {
    pub(super) prefix: Box<[u8]>,
    /// 0 none, 1 address, 2 offset.
    pub(super) prefix_type: u64,
    pub(super) row: u64,
    pub(super) group: u64,
    pub(super) ascii: bool,
}

/// The values and names of `__print_flags` and `__print_symbolic`.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// In the order of the `print fmt`.
    pub(super) entries: Vec<(u64, Box<[u8]>)>,
    /// For look-ups by value: indices of entries, sorted by value; of equal ones only the first.
    pub(super) sorted: Vec<(u64, u32)>,
}

impl Table {
    pub(super) fn new(entries: Vec<(u64, Box<[u8]>)>) -> Self {
        let mut sorted: Vec<_> =
            entries.iter().zip(0u32..).map(|((value, _), index)| (*value, index)).collect();
        sorted.sort_unstable();
        sorted.dedup_by_key(|(value, _)| *value);
        Self { entries, sorted }
    }

    /// The name of exactly this value.
    pub(super) fn name(&self, value: u64) -> Option<&[u8]> {
        let found = self.sorted.binary_search_by_key(&value, |(value, _)| *value).ok()?;
        let (_, index) = self.sorted.get(found)?;
        self.entries.get(usize::try_from(*index).ok()?).map(|(_, name)| &**name)
    }
}
