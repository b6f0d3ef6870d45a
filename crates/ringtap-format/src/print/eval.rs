//! The evaluation of a program's integers and memory for one record.

use super::ast::Binary;
use super::program::{Id, Int, Memory, Program};
use super::{Context, arithmetic};
use crate::format::dynamic;
use crate::target::{Target, convert};

/// Why a record cannot be printed by its `print fmt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The record ends before a field does.
    Short {
        /// Where the field ends, in bytes from the record's start.
        needed: u32,
        /// The record's length.
        len: u32,
    },
    /// A dynamic array lies outside the record.
    Outside {
        /// Where the word that says its place stands.
        offset: u32,
    },
    /// An index behind the end of its array.
    Index,
    /// A division by zero.
    DivisionByZero,
    /// Something that the trace does not tell, by name.
    Unknown(&'static str),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short { needed, len } => {
                write!(f, "record of {len} bytes where a field ends at byte {needed}")
            }
            Self::Outside { offset } => {
                write!(f, "dynamic array named at byte {offset} lies outside the record")
            }
            Self::Index => f.write_str("index behind the end of an array"),
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::Unknown(what) => write!(f, "{what} is not known"),
        }
    }
}

impl std::error::Error for Stop {}

/// A program at work on one record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evaluator<'a> {
    pub(super) program: &'a Program,
    pub(super) record: &'a [u8],
    pub(super) target: Target,
    pub(super) context: &'a Context<'a>,
}

impl<'a> Evaluator<'a> {
    /// The value of an integer expression. Its depth was bounded when it was compiled.
    #[inline]
    pub(super) fn int(&self, id: Id) -> Result<u64, Stop> {
        let Some(int) = self.program.ints.get(index(id)) else { return Err(Stop::Unknown("an expression")) };
        match *int {
            Int::Const(value) => Ok(value),
            Int::Field(field) => field.get(self.record).ok_or_else(|| self.short(field.end(), 0)),
            _ => self.operation(*int),
        }
    }

    fn operation(&self, int: Int) -> Result<u64, Stop> {
        Ok(match int {
            Int::Const(value) => value,
            Int::Field(field) => field.get(self.record).ok_or_else(|| self.short(field.end(), 0))?,
            Int::Bits { offset, size, shift, width, signed } => {
                let whole = self.target.uint(self.record, index(offset), size);
                let whole = whole.ok_or_else(|| self.short(offset, u32::from(size)))?;
                crate::format::cut_bits(whole, shift, width, signed)
            }
            Int::DynamicLen { offset } => {
                let word = self.target.uint(self.record, index(offset), 4);
                word.ok_or_else(|| self.short(offset, 4))? >> 16
            }
            Int::Load { memory, index, size, signed } => {
                let memory = self.memory(memory)?;
                let at = usize::try_from(self.int(index)?).map_err(|_| Stop::Index)?;
                let at = at.checked_mul(usize::from(size)).ok_or(Stop::Index)?;
                self.target.int(memory, at, size, signed).ok_or(Stop::Index)?
            }
            Int::Convert { value, to } => convert(self.int(value)?, to.size, to.signed),
            Int::Minus { value, kind } => convert(self.int(value)?.wrapping_neg(), kind.size, kind.signed),
            Int::Invert { value, kind } => convert(!self.int(value)?, kind.size, kind.signed),
            Int::Not(value) => u64::from(self.int(value)? == 0),
            Int::Binary { operator: Binary::LogicalAnd, a, b, .. } => {
                u64::from(self.int(a)? != 0 && self.int(b)? != 0)
            }
            Int::Binary { operator: Binary::LogicalOr, a, b, .. } => {
                u64::from(self.int(a)? != 0 || self.int(b)? != 0)
            }
            Int::Binary { operator, a, b, kind } => {
                arithmetic::binary(operator, self.int(a)?, self.int(b)?, kind).ok_or(Stop::DivisionByZero)?
            }
            Int::Choice { condition, yes, no } => {
                self.int(if self.int(condition)? != 0 { yes } else { no })?
            }
            Int::Otherwise { value, no } => match self.int(value)? {
                0 => self.int(no)?,
                value => value,
            },
            Int::Swap { value, size } => arithmetic::swap(self.int(value)?, size),
            Int::JiffiesToMs(jiffies) => {
                let hz = self.context.hz.ok_or(Stop::Unknown("the length of a jiffy"))?;
                let ms = self.int(jiffies)?.wrapping_mul(1000);
                ms.checked_div(u64::from(hz)).ok_or(Stop::DivisionByZero)? & u64::from(u32::MAX)
            }
        })
    }

    /// The bytes that a memory expression names.
    pub(super) fn memory(&self, id: Id) -> Result<&'a [u8], Stop> {
        let Some(memory) = self.program.memories.get(index(id)) else {
            return Err(Stop::Unknown("an array"));
        };
        match *memory {
            Memory::Fixed { offset, len } => {
                let found = self.record.get(index(offset)..).and_then(|rest| rest.get(..index(len)));
                found.ok_or_else(|| self.short(offset, len))
            }
            Memory::Rest { offset } => self.record.get(index(offset)..).ok_or_else(|| self.short(offset, 0)),
            Memory::Dynamic { offset, relative } => {
                let found = dynamic(self.record, index(offset), relative, self.target);
                found.ok_or(Stop::Outside { offset })
            }
            Memory::Shift { memory, by, scale } => {
                let memory = self.memory(memory)?;
                let by = usize::try_from(self.int(by)?).map_err(|_| Stop::Index)?;
                let by = by.checked_mul(index(scale)).ok_or(Stop::Index)?;
                memory.get(by..).ok_or(Stop::Index)
            }
            Memory::Choice { condition, yes, no } => {
                self.memory(if self.int(condition)? != 0 { yes } else { no })
            }
        }
    }

    #[cold]
    fn short(&self, offset: u32, size: u32) -> Stop {
        let len = u32::try_from(self.record.len()).unwrap_or(u32::MAX);
        Stop::Short { needed: offset.saturating_add(size), len }
    }
}

/// An offset or id as an index. Sizes of this crate's targets are at least 32 bits.
#[inline(always)]
pub(super) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
