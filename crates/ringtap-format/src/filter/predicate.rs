//! One comparison of a filter, evaluated on a record.

use super::cpus::CpuSet;
use crate::format::Field;
use crate::out::until_nul;
use crate::symbols::Tasks;
use crate::target::{Target, convert};
use crate::text::{Common, Entry};
use crate::value::IntField;
use ringtap_abi::predicate::glob;

/// A comparison.
#[derive(Clone, Debug)]
pub(super) struct Predicate {
    pub(super) subject: Subject,
    pub(super) test: Test,
    pub(super) target: Target,
}

/// What is compared.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    Int {
        field: IntField,
        size: u8,
        signed: bool,
    },
    /// An array, or an integer of a size that no comparison has.
    Array(Field),
    /// The CPU that wrote the record.
    Cpu,
    /// The name of the task that wrote it.
    Comm,
}

/// How it is compared, and with what.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Number(Operator, u64),
    Text {
        pattern: Box<[u8]>,
        is_glob: bool,
        equal: bool,
    },
    Cpus {
        operator: Operator,
        cpus: CpuSet,
    },
    /// Whether an address lies in a function.
    Function {
        start: u64,
        end: u64,
        equal: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    BitAnd,
    Glob,
}

impl Operator {
    /// The operator that `text` starts with, and its length.
    pub(super) fn at_start_of(text: &[u8]) -> Option<(Self, usize)> {
        const OPERATORS: [(&[u8], Operator); 8] = [
            (b"==", Operator::Equal),
            (b"!=", Operator::NotEqual),
            (b"<=", Operator::LessOrEqual),
            (b"<", Operator::Less),
            (b">=", Operator::GreaterOrEqual),
            (b">", Operator::Greater),
            (b"&", Operator::BitAnd),
            (b"~", Operator::Glob),
        ];
        let found = OPERATORS.iter().find(|(written, _)| text.starts_with(written));
        found.map(|(written, operator)| (*operator, written.len()))
    }

    fn holds(self, value: u64, wanted: u64, signed: bool) -> bool {
        let order = if signed { value.cast_signed().cmp(&wanted.cast_signed()) } else { value.cmp(&wanted) };
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::LessOrEqual => order.is_le(),
            Self::Less => order.is_lt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Greater => order.is_gt(),
            Self::BitAnd => value & wanted != 0,
            Self::Glob => false,
        }
    }
}

impl Predicate {
    #[inline]
    pub(super) fn matches(&self, entry: &Entry<'_>, tasks: &Tasks) -> bool {
        self.try_match(entry, tasks).unwrap_or(false)
    }

    /// `None` where the record is too short.
    fn try_match(&self, entry: &Entry<'_>, tasks: &Tasks) -> Option<bool> {
        let record = entry.record;
        Some(match (&self.test, &self.subject) {
            (Test::Number(operator, wanted), Subject::Int { field, size, signed }) => {
                // The kernel compares in the field's own type.
                operator.holds(field.get(record)?, convert(*wanted, *size, *signed), *signed)
            }
            (Test::Number(operator, wanted), Subject::Cpu) => {
                operator.holds(u64::from(entry.cpu), convert(*wanted, 4, true), true)
            }
            (Test::Text { pattern, is_glob, equal }, subject) => {
                let text = match subject {
                    Subject::Comm => tasks.name(Common::of(record, self.target).pid),
                    Subject::Array(field) => until_nul(field.bytes(record, self.target)?),
                    Subject::Int { .. } | Subject::Cpu => return None,
                };
                let found = if *is_glob { glob::matches(pattern, text) } else { **pattern == *text };
                found == *equal
            }
            (Test::Cpus { operator, cpus }, subject) => self.cpus(*operator, cpus, subject, entry)?,
            (Test::Function { start, end, equal }, Subject::Int { field, .. }) => {
                (*start..*end).contains(&field.get(record)?) == *equal
            }
            _ => return None,
        })
    }

    fn cpus(&self, operator: Operator, cpus: &CpuSet, subject: &Subject, entry: &Entry<'_>) -> Option<bool> {
        let (same, shared) = match subject {
            Subject::Array(field) => cpus.compare(field.bytes(entry.record, self.target)?, self.target),
            Subject::Int { field, .. } => {
                let cpu = field.get(entry.record)?;
                (cpus.is_only(cpu), cpus.contains(cpu))
            }
            Subject::Cpu => (cpus.is_only(entry.cpu.into()), cpus.contains(entry.cpu.into())),
            Subject::Comm => return None,
        };
        match operator {
            Operator::Equal => Some(same),
            Operator::NotEqual => Some(!same),
            Operator::BitAnd => Some(shared),
            _ => None,
        }
    }
}
