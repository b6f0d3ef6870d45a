//! Filters as the byte code of `ringtap_abi::predicate`, which writers evaluate.

use super::predicate::{Operator, Predicate, Subject, Test};
use super::{Filter, Node};
use crate::format;
use crate::target::{Target, convert};
use crate::value::IntField;
use ringtap_abi::predicate::{
    self as code, COMM_LEN, Comparison, Field, Header, MAX_STEPS, MAX_WORDS, Source, Step,
};

/// A filter that has no byte code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// Records of another machine have no writers here.
    #[error("byte code is only made for little-endian machines of 64 bits")]
    OtherMachine,
    /// More comparisons, or larger CPU masks, than byte code holds.
    #[error("the filter is too large for byte code: shorten it or its lists of CPUs")]
    TooLarge,
    /// A field that lies further from the record's start than any record is long.
    #[error("a field of the filter lies behind the end of every record")]
    FieldOutOfReach,
}

impl Filter {
    /// The filter as a program of [`ringtap_abi::predicate`]: it accepts the records that [`matches`](Self::matches)
    /// accepts.
    ///
    /// # Errors
    /// Where there is no such program.
    pub fn lower(&self) -> Result<Vec<u64>, LowerError> {
        let mut program = Lowering {
            predicates: &self.predicates,
            steps: Vec::new(),
            labels: vec![0; 2],
            pool: Vec::new(),
        };
        program.node(&self.root, Place { inverted: false, accept: ACCEPT, refuse: REFUSE, next: ACCEPT })?;
        program.finish()
    }
}

/// Stands for a step whose number is not known yet.
type Label = usize;
/// Behind the last step.
const ACCEPT: Label = 0;
/// One further.
const REFUSE: Label = 1;

/// Where a node stands.
#[derive(Clone, Copy)]
struct Place {
    /// Below an odd number of `!`.
    inverted: bool,
    /// Where it goes on when what is above it would call it true.
    accept: Label,
    /// Where, when false.
    refuse: Label,
    /// The step behind it: one of those two, so that a comparison needs one jump.
    next: Label,
}

struct Lowering<'f> {
    predicates: &'f [Predicate],
    /// Steps with the labels that they jump to. Operands in the pool count from its start.
    steps: Vec<(Step, Label)>,
    /// The step of each label.
    labels: Vec<u16>,
    pool: Vec<u64>,
}

impl Lowering<'_> {
    fn node(&mut self, node: &Node, place: Place) -> Result<(), LowerError> {
        match node {
            Node::One(index) => match self.predicates.get(*index) {
                Some(predicate) => self.comparison(predicate, place),
                None => Ok(()),
            },
            Node::Not(inner) => self.node(inner, Place { inverted: !place.inverted, ..place }),
            // De Morgan: below a `!`, all are any.
            Node::All(nodes) => self.joined(nodes, !place.inverted, place),
            Node::Any(nodes) => self.joined(nodes, place.inverted, place),
        }
    }

    fn joined(&mut self, nodes: &[Node], is_all: bool, place: Place) -> Result<(), LowerError> {
        let Some((last, others)) = nodes.split_last() else { return Ok(()) };
        for node in others {
            let next = self.labels.len();
            self.labels.push(0);
            let place =
                if is_all { Place { accept: next, ..place } } else { Place { refuse: next, ..place } };
            self.node(node, Place { next, ..place })?;
            self.bind(next)?;
        }
        self.node(last, place)
    }

    /// The label stands for the step that comes next.
    fn bind(&mut self, label: Label) -> Result<(), LowerError> {
        let step = u16::try_from(self.steps.len()).map_err(|_| LowerError::TooLarge)?;
        if let Some(bound) = self.labels.get_mut(label) {
            *bound = step;
        }
        Ok(())
    }

    fn comparison(&mut self, predicate: &Predicate, place: Place) -> Result<(), LowerError> {
        if predicate.target != Target::LE64 {
            return Err(LowerError::OtherMachine);
        }
        let field = field(&predicate.subject)?;
        let (test, operand) = self.test(predicate)?;
        let falls_to_accept = place.next == place.accept;
        let label = if falls_to_accept { place.refuse } else { place.accept };
        let branch_if = place.inverted == falls_to_accept;
        self.steps.push((Step { test, field, branch_if, target: 0, operand }, label));
        Ok(())
    }

    fn test(&mut self, predicate: &Predicate) -> Result<(code::Test, u64), LowerError> {
        Ok(match &predicate.test {
            Test::Number(operator, wanted) => {
                let (size, signed) = match predicate.subject {
                    Subject::Int { size, signed, .. } => (size, signed),
                    _ => (4, true),
                };
                (code::Test::Number(comparison(*operator)), convert(*wanted, size, signed))
            }
            Test::Text { pattern, is_glob, equal } => {
                let words: Vec<u64> = pattern.chunks(8).map(word).collect();
                let equal = *equal;
                let test = if *is_glob { code::Test::Glob { equal } } else { code::Test::Text { equal } };
                (test, self.pooled(&words, pattern.len())?)
            }
            Test::Cpus { operator, cpus } => {
                let len = cpus.words().len().saturating_mul(8);
                (code::Test::Cpus(comparison(*operator)), self.pooled(cpus.words(), len)?)
            }
            Test::Function { start, end, equal } => {
                (code::Test::Range { equal: *equal }, self.pooled(&[*start, *end], 16)?)
            }
        })
    }

    /// Puts words into the pool, unless they are there: `len` bytes of them count.
    fn pooled(&mut self, words: &[u64], len: usize) -> Result<u64, LowerError> {
        let known = self.pool.windows(words.len().max(1)).position(|window| window == words);
        let place = known.unwrap_or(self.pool.len());
        if known.is_none() {
            self.pool.extend_from_slice(words);
        }
        let number = |size: usize| u32::try_from(size).ok().filter(|size| *size <= MAX_WORDS);
        let (place, len) = number(place).zip(number(len)).ok_or(LowerError::TooLarge)?;
        Ok(code::operand(place, len))
    }

    fn finish(mut self) -> Result<Vec<u64>, LowerError> {
        let too_large = LowerError::TooLarge;
        let steps = u16::try_from(self.steps.len()).ok().filter(|steps| *steps <= MAX_STEPS);
        let steps = steps.ok_or(too_large)?;
        for (label, step) in [(ACCEPT, steps), (REFUSE, steps.saturating_add(1))] {
            if let Some(bound) = self.labels.get_mut(label) {
                *bound = step;
            }
        }
        let pool = usize::from(steps).saturating_mul(2).saturating_add(1);
        let words = u32::try_from(pool.saturating_add(self.pool.len())).ok();
        let words = words.filter(|words| *words <= MAX_WORDS).ok_or(too_large)?;
        let mut program = vec![Header { steps, words }.pack()];
        for (mut step, label) in self.steps {
            step.target = self.labels.get(label).copied().unwrap_or(u16::MAX);
            if !matches!(step.test, code::Test::Number(_)) {
                step.operand = step.operand.saturating_add(u64::try_from(pool).unwrap_or(u64::MAX));
            }
            program.extend(step.pack());
        }
        program.append(&mut self.pool);
        Ok(program)
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn comparison(operator: Operator) -> Comparison {
    match operator {
        Operator::Equal => Comparison::Equal,
        Operator::NotEqual => Comparison::NotEqual,
        Operator::LessOrEqual => Comparison::LessOrEqual,
        Operator::Less => Comparison::Less,
        Operator::GreaterOrEqual => Comparison::GreaterOrEqual,
        Operator::Greater => Comparison::Greater,
        // A glob is a test of its own.
        Operator::BitAnd | Operator::Glob => Comparison::BitAnd,
    }
}

fn field(subject: &Subject) -> Result<Field, LowerError> {
    match subject {
        Subject::Int { field, size, signed } => int_field(field, *size, *signed),
        Subject::Array(field) => array_field(field),
        Subject::Cpu => Ok(Field { source: Source::Cpu, signed: true, offset: 0, size: 4 }),
        Subject::Comm => Ok(Field { source: Source::Comm, signed: false, offset: 0, size: short(COMM_LEN)? }),
    }
}

fn short<N: TryInto<u16>>(number: N) -> Result<u16, LowerError> {
    number.try_into().map_err(|_| LowerError::FieldOutOfReach)
}

/// An integer field for byte code.
pub(crate) fn int_field(field: &IntField, size: u8, signed: bool) -> Result<Field, LowerError> {
    Ok(Field { source: Source::Int, signed, offset: short(field.offset())?, size: size.into() })
}

/// An array field for byte code.
pub(crate) fn array_field(field: &format::Field) -> Result<Field, LowerError> {
    let source = match field.kind {
        format::Kind::Dynamic { relative: false, .. } => Source::DataLoc,
        format::Kind::Dynamic { relative: true, .. } => Source::RelLoc,
        format::Kind::Rest(_) => Source::Rest,
        _ => Source::Array,
    };
    Ok(Field { source, signed: false, offset: short(field.offset)?, size: short(field.size)? })
}

/// What lowering promises: the byte code answers as the filter did, `matches`, of a record of CPU 0 whose task
/// has no name.
pub(super) fn check_lowered(filter: &Filter, record: &[u8], matches: bool) {
    let Ok(program) = filter.lower() else { return };
    let pid = crate::text::Common::of(record, Target::LE64).pid;
    let name = if pid == 0 { *b"<idle>\0\0\0\0\0\0\0\0\0\0" } else { *b"<...>\0\0\0\0\0\0\0\0\0\0\0" };
    let subject = code::Subject { payload: record, cpu: 0, comm: &|| name };
    assert_eq!(code::evaluate(program.as_slice(), &subject), Ok(matches), "{filter:?}");
}
