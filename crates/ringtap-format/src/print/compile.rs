//! From expressions to a [`Program`]: names are looked up, types worked out as C does, constants folded.

mod calls;

use super::ast::{Binary, Expr, Node, TypeName, Unary};
use super::program::{HexDump, Id, Int, Memory, Program, Table, Text};
use super::{Dialect, Unprintable, arithmetic};
use crate::constants::Constants;
use crate::format::ctype::{IntType, int_type};
use crate::format::{Element, Field, Format, Kind, Meaning};
use crate::target::{Target, convert};
use crate::value::IntField;

/// Most steps that one expression may take for a record. Variables of blocks are looked up where they are used,
/// so that a short text could otherwise ask for endless work, and for endless stack.
const MAX_COST: u32 = 2000;

/// What a compiler may look names up in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Environment<'a> {
    pub(crate) format: &'a Format,
    pub(crate) constants: &'a Constants,
    pub(crate) target: Target,
    pub(crate) dialect: Dialect,
}

/// What an expression is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Int(Id, IntType),
    /// An address in the kernel: a number whose memory we do not have.
    Address(Id, Pointee),
    /// Bytes of the record.
    Memory(Id, Pointee),
    Text(Id),
}

/// What a pointer points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pointee {
    Void,
    Int(IntType),
    Pointer,
    /// A structure, with its size where that is known.
    Struct(Option<u32>),
}

impl Pointee {
    fn size(self, target: Target) -> Option<u32> {
        match self {
            Self::Void => Some(1),
            Self::Int(kind) => Some(u32::from(kind.size)),
            Self::Pointer => Some(u32::from(target.long_size)),
            Self::Struct(size) => size,
        }
    }
}

pub(super) struct Compiler<'a> {
    pub(super) environment: Environment<'a>,
    pub(super) program: Program,
    /// Names of enum members that nobody knows.
    pub(super) unresolved: Vec<String>,
    int_costs: Vec<u32>,
    memory_costs: Vec<u32>,
    variables: Vec<(String, Value)>,
    at: usize,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(environment: Environment<'a>) -> Self {
        Self {
            environment,
            program: Program::default(),
            unresolved: Vec::new(),
            int_costs: Vec::new(),
            memory_costs: Vec::new(),
            variables: Vec::new(),
            at: 0,
        }
    }

    fn target(&self) -> Target {
        self.environment.target
    }

    pub(super) fn cannot<T>(&self, what: impl Into<String>) -> Result<T, Unprintable> {
        Err(Unprintable::at(self.at, what.into()))
    }

    // --- Adding to the program ---

    pub(super) fn push_int(&mut self, int: Int) -> Result<Id, Unprintable> {
        let cost = match int {
            Int::Const(_) | Int::Field(_) | Int::Bits { .. } | Int::DynamicLen { .. } => 0,
            Int::Load { memory, index, .. } => self.memory_cost(memory).saturating_add(self.int_cost(index)),
            Int::Convert { value, .. }
            | Int::Minus { value, .. }
            | Int::Invert { value, .. }
            | Int::Not(value)
            | Int::Swap { value, .. }
            | Int::JiffiesToMs(value) => self.int_cost(value),
            Int::Binary { a, b, .. } => self.int_cost(a).saturating_add(self.int_cost(b)),
            Int::Choice { condition, yes, no } => {
                self.int_cost(condition).saturating_add(self.int_cost(yes).max(self.int_cost(no)))
            }
            Int::Otherwise { value, no } => self.int_cost(value).saturating_add(self.int_cost(no)),
        };
        let id = self.next_id(self.program.ints.len(), cost)?;
        self.program.ints.push(int);
        self.int_costs.push(cost.saturating_add(1));
        Ok(id)
    }

    fn push_memory(&mut self, memory: Memory) -> Result<Id, Unprintable> {
        let cost = match memory {
            Memory::Fixed { .. } | Memory::Rest { .. } | Memory::Dynamic { .. } => 0,
            Memory::Shift { memory, by, .. } => self.memory_cost(memory).saturating_add(self.int_cost(by)),
            Memory::Choice { condition, yes, no } => {
                self.int_cost(condition).saturating_add(self.memory_cost(yes).max(self.memory_cost(no)))
            }
        };
        let id = self.next_id(self.program.memories.len(), cost)?;
        self.program.memories.push(memory);
        self.memory_costs.push(cost.saturating_add(1));
        Ok(id)
    }

    pub(super) fn push_text(&mut self, text: Text) -> Result<Id, Unprintable> {
        // Of a choice's texts only one is printed, and depth is bounded by what the blocks allow.
        let id = self.next_id(self.program.texts.len(), 0)?;
        self.program.texts.push(text);
        Ok(id)
    }

    fn next_id(&self, len: usize, cost: u32) -> Result<Id, Unprintable> {
        if cost >= MAX_COST {
            return self.cannot("an expression that takes too many steps");
        }
        Id::try_from(len).or_else(|_| self.cannot("too many expressions"))
    }

    fn int_cost(&self, id: Id) -> u32 {
        usize::try_from(id).ok().and_then(|id| self.int_costs.get(id)).copied().unwrap_or(MAX_COST)
    }

    fn memory_cost(&self, id: Id) -> u32 {
        usize::try_from(id).ok().and_then(|id| self.memory_costs.get(id)).copied().unwrap_or(MAX_COST)
    }

    pub(super) fn constant(&self, id: Id) -> Option<u64> {
        match self.program.ints.get(usize::try_from(id).ok()?)? {
            Int::Const(value) => Some(*value),
            _ => None,
        }
    }

    /// The text of this id, where it is a literal and nothing else refers to it yet: the last one added.
    pub(super) fn last_text(&mut self, id: Id) -> Option<Text> {
        let is_last = usize::try_from(id).ok()?.checked_add(1)? == self.program.texts.len();
        if is_last && matches!(self.program.texts.last()?, Text::Literal(_)) {
            self.program.texts.pop()
        } else {
            None
        }
    }

    fn push_const(&mut self, value: u64) -> Result<Id, Unprintable> {
        self.push_int(Int::Const(value))
    }

    /// `value` as a number of type `to`; a step of the program only where that changes bits.
    fn converted(&mut self, value: Id, from: IntType, to: IntType) -> Result<Id, Unprintable> {
        let same = to.size >= 8 || to == from || to.size > from.size && (to.signed || !from.signed);
        if same {
            return Ok(value);
        }
        match self.constant(value) {
            Some(number) => self.push_const(convert(number, to.size, to.signed)),
            None => self.push_int(Int::Convert { value, to }),
        }
    }

    // --- Expressions ---

    pub(super) fn value(&mut self, expr: &Expr) -> Result<Value, Unprintable> {
        self.at = expr.at;
        match &*expr.node {
            Node::Int(value, kind) => Ok(Value::Int(self.push_const(*value)?, *kind)),
            Node::Text(bytes) => Ok(Value::Text(self.push_text(Text::Literal(bytes.clone().into()))?)),
            Node::Name(name) => self.name(name),
            Node::Unary(operator, operand) => self.unary(*operator, operand),
            Node::Binary(operator, a, b) => self.binary(*operator, a, b),
            Node::Choice(condition, yes, no) => self.choice(condition, yes, no),
            Node::Otherwise(value, no) => self.otherwise(value, no),
            Node::Cast(to, value) => {
                let value = self.value(value)?;
                self.cast(to, value)
            }
            Node::SizeofType(name) => self.sizeof_type(name),
            Node::Sizeof(of) => self.sizeof(of),
            Node::Index(base, index) => {
                let base = self.value(base)?;
                let (index, _) = self.int(index)?;
                self.load(base, index)
            }
            Node::Member(of, member) => self.member(of, member),
            Node::Call(name, args) => self.call(name, args),
            Node::Braces(_) => self.cannot("braces where a value should stand"),
            Node::Block(variables, result) => self.block(variables, result),
        }
    }

    /// `expr` as a number.
    pub(super) fn int(&mut self, expr: &Expr) -> Result<(Id, IntType), Unprintable> {
        match self.value(expr)? {
            Value::Int(id, kind) => Ok((id, kind)),
            Value::Address(id, _) => Ok((id, IntType::ulong(self.target()))),
            Value::Memory(..) => self.cannot("an address inside the record used as a number"),
            Value::Text(_) => self.cannot("a text used as a number"),
        }
    }

    /// `expr` as a condition; memory and texts are never null.
    fn condition(&mut self, expr: &Expr) -> Result<Id, Unprintable> {
        match self.value(expr)? {
            Value::Int(id, _) | Value::Address(id, _) => Ok(id),
            Value::Memory(..) | Value::Text(_) => self.push_const(1),
        }
    }

    /// `expr` as what `%s` prints.
    pub(super) fn text(&mut self, expr: &Expr) -> Result<Id, Unprintable> {
        let value = self.value(expr)?;
        self.text_of(value)
    }

    pub(super) fn text_of(&mut self, value: Value) -> Result<Id, Unprintable> {
        match value {
            Value::Text(id) => Ok(id),
            Value::Memory(memory, _) => self.push_text(Text::Memory(memory)),
            Value::Int(id, _) | Value::Address(id, _) => match self.constant(id) {
                Some(0) => self.push_text(Text::Literal(b"(null)".as_slice().into())),
                _ => self.push_text(Text::Address(id)),
            },
        }
    }

    /// Bytes of the record.
    fn memory(&mut self, expr: &Expr) -> Result<(Id, Pointee), Unprintable> {
        match self.value(expr)? {
            Value::Memory(id, of) => Ok((id, of)),
            Value::Address(..) | Value::Int(..) => self.cannot("the memory behind a pointer of the kernel"),
            Value::Text(_) => self.cannot("a text used as an array"),
        }
    }

    fn name(&mut self, name: &str) -> Result<Value, Unprintable> {
        if let Some((_, value)) = self.variables.iter().rev().find(|(known, _)| known == name) {
            return Ok(*value);
        }
        if let Some(value) = self.environment.constants.value(name) {
            let id = self.push_const(value.cast_unsigned())?;
            let small = i32::try_from(value).is_ok();
            return Ok(Value::Int(id, if small { IntType::INT } else { IntType::S64 }));
        }
        if self.environment.dialect == Dialect::TraceCmd {
            // libtraceevent takes a name for a number without digits.
            return Ok(Value::Int(self.push_const(0)?, IntType::S64));
        }
        self.cannot(format!("the value of {name}"))
    }

    fn unary(&mut self, operator: Unary, operand: &Expr) -> Result<Value, Unprintable> {
        match operator {
            Unary::Deref => {
                let base = self.value(operand)?;
                let zero = self.push_const(0)?;
                return self.load(base, zero);
            }
            Unary::AddressOf => return self.address_of(operand),
            Unary::Not => {
                let value = self.condition(operand)?;
                let id = match self.constant(value) {
                    Some(number) => self.push_const(u64::from(number == 0))?,
                    None => self.push_int(Int::Not(value))?,
                };
                return Ok(Value::Int(id, IntType::INT));
            }
            Unary::Minus | Unary::Plus | Unary::Invert => {}
        }
        let (value, from) = self.int(operand)?;
        let kind = promoted(from);
        let value = self.converted(value, from, kind)?;
        let id = match (operator, self.constant(value)) {
            (Unary::Minus, Some(number)) => {
                self.push_const(convert(number.wrapping_neg(), kind.size, kind.signed))?
            }
            (Unary::Invert, Some(number)) => self.push_const(convert(!number, kind.size, kind.signed))?,
            (Unary::Minus, None) => self.push_int(Int::Minus { value, kind })?,
            (Unary::Invert, None) => self.push_int(Int::Invert { value, kind })?,
            _ => value,
        };
        Ok(Value::Int(id, kind))
    }

    /// `&array`, `&array[n]`, `&field`
    fn address_of(&mut self, operand: &Expr) -> Result<Value, Unprintable> {
        match &*operand.node {
            Node::Index(base, index) => {
                let (memory, of) = self.memory(base)?;
                let (by, _) = self.int(index)?;
                self.shifted(memory, of, by)
            }
            Node::Member(..) => {
                let field = self.field_at(operand)?;
                if matches!(field.kind, Kind::Array(_) | Kind::Rest(_) | Kind::Dynamic { .. }) {
                    return self.value(operand);
                }
                let of = field.int_size().map_or(Pointee::Struct(Some(field.size)), |size| {
                    Pointee::Int(IntType { size, signed: field.signed })
                });
                let memory = self.push_memory(Memory::Fixed { offset: field.offset, len: field.size })?;
                Ok(Value::Memory(memory, of))
            }
            _ => self.cannot("the address of something that is no field"),
        }
    }

    fn shifted(&mut self, memory: Id, of: Pointee, by: Id) -> Result<Value, Unprintable> {
        if self.constant(by) == Some(0) {
            return Ok(Value::Memory(memory, of));
        }
        let Some(scale) = of.size(self.target()) else { return self.cannot("the size of a structure") };
        Ok(Value::Memory(self.push_memory(Memory::Shift { memory, by, scale })?, of))
    }

    fn load(&mut self, base: Value, index: Id) -> Result<Value, Unprintable> {
        let Value::Memory(memory, of) = base else {
            return self.cannot("the memory behind a pointer of the kernel");
        };
        let ulong = IntType::ulong(self.target());
        let kind = match of {
            Pointee::Int(kind) => kind,
            Pointee::Pointer => ulong,
            Pointee::Void => IntType::U8,
            Pointee::Struct(_) => return self.cannot("a structure used as a number"),
        };
        let id = self.push_int(Int::Load { memory, index, size: kind.size, signed: kind.signed })?;
        Ok(if of == Pointee::Pointer { Value::Address(id, Pointee::Void) } else { Value::Int(id, kind) })
    }

    fn binary(&mut self, operator: Binary, a: &Expr, b: &Expr) -> Result<Value, Unprintable> {
        if matches!(operator, Binary::LogicalAnd | Binary::LogicalOr) {
            let (a, b) = (self.condition(a)?, self.condition(b)?);
            return Ok(Value::Int(self.operation(operator, a, b, IntType::INT)?, IntType::INT));
        }
        match (operator, self.value(a)?, self.value(b)?) {
            (Binary::Add, Value::Memory(memory, of), Value::Int(by, _))
            | (Binary::Add, Value::Int(by, _), Value::Memory(memory, of)) => self.shifted(memory, of, by),
            (Binary::Sub, Value::Memory(memory, of), Value::Int(by, from)) => {
                let by = self.converted(by, from, IntType::S64)?;
                let by = self.push_int(Int::Minus { value: by, kind: IntType::S64 })?;
                self.shifted(memory, of, by)
            }
            (Binary::Add | Binary::Sub, Value::Address(address, of), Value::Int(by, _)) => {
                let scale = match self.environment.dialect {
                    Dialect::Kernel => of.size(self.target()),
                    Dialect::TraceCmd => Some(1),
                };
                let Some(scale) = scale else {
                    return self.cannot("the size of a structure of the kernel");
                };
                let long = IntType::ulong(self.target());
                let scale = self.push_const(u64::from(scale))?;
                let by = self.operation(Binary::Mul, by, scale, long)?;
                Ok(Value::Address(self.operation(operator, address, by, long)?, of))
            }
            (_, Value::Memory(..) | Value::Text(_), _) | (_, _, Value::Memory(..) | Value::Text(_)) => {
                self.cannot("arithmetic with an address inside the record")
            }
            (_, a, b) => {
                let (a, from_a) = self.number(a);
                let (b, from_b) = self.number(b);
                self.arithmetic(operator, (a, from_a), (b, from_b))
            }
        }
    }

    fn number(&self, value: Value) -> (Id, IntType) {
        match value {
            Value::Int(id, kind) => (id, kind),
            Value::Address(id, _) | Value::Memory(id, _) | Value::Text(id) => {
                (id, IntType::ulong(self.target()))
            }
        }
    }

    /// C's arithmetic on two numbers: both are brought to one type first.
    fn arithmetic(
        &mut self,
        operator: Binary,
        (a, from_a): (Id, IntType),
        (b, from_b): (Id, IntType),
    ) -> Result<Value, Unprintable> {
        let is_shift = matches!(operator, Binary::Shl | Binary::Shr);
        let kind = if is_shift { promoted(from_a) } else { common(from_a, from_b) };
        let a = self.converted(a, from_a, kind)?;
        let b = if is_shift { b } else { self.converted(b, from_b, kind)? };
        let id = self.operation(operator, a, b, kind)?;
        let compares =
            matches!(operator, Binary::Lt | Binary::Gt | Binary::Le | Binary::Ge | Binary::Eq | Binary::Ne);
        Ok(Value::Int(id, if compares { IntType::INT } else { kind }))
    }

    fn operation(&mut self, operator: Binary, a: Id, b: Id, kind: IntType) -> Result<Id, Unprintable> {
        if let (Some(a), Some(b)) = (self.constant(a), self.constant(b))
            && let Some(value) = arithmetic::binary(operator, a, b, kind)
        {
            return self.push_const(value);
        }
        self.push_int(Int::Binary { operator, a, b, kind })
    }

    fn choice(&mut self, condition: &Expr, yes: &Expr, no: &Expr) -> Result<Value, Unprintable> {
        let condition = self.condition(condition)?;
        match self.constant(condition) {
            Some(0) => return self.value(no),
            Some(_) => return self.value(yes),
            None => {}
        }
        let (yes, no) = (self.value(yes)?, self.value(no)?);
        self.choose(condition, yes, no)
    }

    fn choose(&mut self, condition: Id, yes: Value, no: Value) -> Result<Value, Unprintable> {
        match (yes, no) {
            (Value::Memory(yes, of), Value::Memory(no, other)) if of == other => {
                Ok(Value::Memory(self.push_memory(Memory::Choice { condition, yes, no })?, of))
            }
            (Value::Text(_) | Value::Memory(..), _) | (_, Value::Text(_) | Value::Memory(..)) => {
                let (yes, no) = (self.text_of(yes)?, self.text_of(no)?);
                Ok(Value::Text(self.push_text(Text::Choice { condition, yes, no })?))
            }
            (Value::Address(_, of), _) | (_, Value::Address(_, of)) => {
                let ((yes, _), (no, _)) = (self.number(yes), self.number(no));
                Ok(Value::Address(self.push_int(Int::Choice { condition, yes, no })?, of))
            }
            (Value::Int(yes, from_yes), Value::Int(no, from_no)) => {
                let kind = common(from_yes, from_no);
                let (yes, no) = (self.converted(yes, from_yes, kind)?, self.converted(no, from_no, kind)?);
                Ok(Value::Int(self.push_int(Int::Choice { condition, yes, no })?, kind))
            }
        }
    }

    fn otherwise(&mut self, value: &Expr, no: &Expr) -> Result<Value, Unprintable> {
        match self.value(value)? {
            Value::Int(value, from) => {
                let (no, from_no) = self.int(no)?;
                let kind = common(from, from_no);
                let (value, no) = (self.converted(value, from, kind)?, self.converted(no, from_no, kind)?);
                Ok(Value::Int(self.push_int(Int::Otherwise { value, no })?, kind))
            }
            Value::Address(value, of) => {
                let (no, _) = self.int(no)?;
                Ok(Value::Address(self.push_int(Int::Otherwise { value, no })?, of))
            }
            // Never null.
            value => Ok(value),
        }
    }

    // --- Types ---

    fn cast(&mut self, to: &TypeName, value: Value) -> Result<Value, Unprintable> {
        if to.pointers > 0 {
            let of = self.pointee(to);
            return Ok(match value {
                Value::Int(id, from) => {
                    let long = IntType::ulong(self.target());
                    Value::Address(self.converted(id, from, long)?, of)
                }
                Value::Address(id, _) => Value::Address(id, of),
                Value::Memory(id, _) => Value::Memory(id, of),
                Value::Text(id) => Value::Text(id),
            });
        }
        let kind = self.int_type(&to.base);
        match (value, kind) {
            (Value::Int(id, from), Some(kind)) => {
                Ok(Value::Int(self.cast_int(id, from, &to.base, kind)?, kind))
            }
            (Value::Address(id, _), Some(kind)) => {
                let from = IntType::ulong(self.target());
                Ok(Value::Int(self.cast_int(id, from, &to.base, kind)?, kind))
            }
            (Value::Address(..) | Value::Int(..) | Value::Text(_), None) if !to.base.contains(' ') => {
                Ok(value)
            }
            _ => self.cannot(format!("a cast to {}", to.base)),
        }
    }

    fn cast_int(&mut self, id: Id, from: IntType, name: &str, to: IntType) -> Result<Id, Unprintable> {
        if name != "bool" && name != "_Bool" {
            return self.converted(id, from, to);
        }
        let no = self.push_int(Int::Not(id))?;
        self.push_int(Int::Not(no))
    }

    /// The integer type of this name: C's, the kernel's, or that of a field declared with it.
    fn int_type(&self, name: &str) -> Option<IntType> {
        int_type(name, self.target()).or_else(|| {
            let mut fields = self.environment.format.fields.iter();
            let field = fields.find(|field| field.kind == Kind::Int && field.type_name == name)?;
            Some(IntType { size: field.int_size()?, signed: field.signed })
        })
    }

    fn pointee(&self, name: &TypeName) -> Pointee {
        if name.pointers > 1 {
            return Pointee::Pointer;
        }
        let base = name.base.trim_start_matches("const ").trim_end_matches(" const");
        if base == "void" {
            return Pointee::Void;
        }
        match self.int_type(base) {
            Some(kind) => Pointee::Int(kind),
            None => Pointee::Struct(self.environment.constants.size(base)),
        }
    }

    fn sizeof_type(&mut self, name: &TypeName) -> Result<Value, Unprintable> {
        let size = if name.pointers > 0 {
            Some(u32::from(self.target().long_size))
        } else {
            self.int_type(&name.base)
                .map(|kind| u32::from(kind.size))
                .or_else(|| self.environment.constants.size(&name.base))
        };
        match size {
            Some(size) => self.size(size),
            // `sizeof(variable)` looks like this too.
            None => match self.variables.iter().rev().find(|(known, _)| *known == name.base) {
                Some((_, Value::Int(_, kind))) => self.size(u32::from(kind.size)),
                _ => self.cannot(format!("the size of {}", name.base)),
            },
        }
    }

    fn size(&mut self, size: u32) -> Result<Value, Unprintable> {
        Ok(Value::Int(self.push_const(u64::from(size))?, IntType::ulong(self.target())))
    }

    fn sizeof(&mut self, of: &Expr) -> Result<Value, Unprintable> {
        if matches!(&*of.node, Node::Member(..)) {
            let size = self.field_at(of)?.size;
            return self.size(size);
        }
        match self.value(of)? {
            Value::Int(_, kind) => self.size(u32::from(kind.size)),
            Value::Address(..) => self.size(u32::from(self.target().long_size)),
            Value::Memory(..) | Value::Text(_) => self.cannot("the size of an array of unknown length"),
        }
    }

    // --- Fields ---

    fn member(&mut self, of: &Expr, member: &str) -> Result<Value, Unprintable> {
        let path = path(of, member);
        match path.and_then(|path| self.find(&path)) {
            Some(field) => self.field(field),
            None => self.cannot(format!("the member {member}, which the format does not declare")),
        }
    }

    fn field_at(&self, expr: &Expr) -> Result<&'a Field, Unprintable> {
        let Node::Member(of, member) = &*expr.node else { return self.cannot("what is no field") };
        let found = path(of, member).and_then(|path| self.find(&path));
        found.map_or_else(
            || self.cannot(format!("the member {member}, which the format does not declare")),
            Ok,
        )
    }

    /// The field of this path: `a.b` as such, or, as ftrace's own events flatten their structures, `b`.
    fn find(&self, path: &str) -> Option<&'a Field> {
        let format = self.environment.format;
        let last = path.rsplit('.').next().unwrap_or(path);
        format
            .field(path)
            .or_else(|| format.field(last))
            .or_else(|| format.field(path.strip_prefix("__data_loc_").or(path.strip_prefix("__rel_loc_"))?))
    }

    fn field(&mut self, field: &Field) -> Result<Value, Unprintable> {
        let Field { offset, size, signed, .. } = *field;
        match field.kind {
            Kind::Int | Kind::Pointer => {
                let Some(size) = field.int_size() else { return self.cannot("an integer of odd size") };
                let id = self.push_int(Int::Field(IntField::at(offset, size, signed, self.target())))?;
                if field.kind == Kind::Pointer {
                    return Ok(Value::Address(id, self.pointee(&pointer_type(&field.type_name))));
                }
                // Packed integers of 3, 5, 6 or 7 bytes reckon as the next larger one.
                Ok(Value::Int(id, IntType { size: size.next_power_of_two(), signed }))
            }
            Kind::Bits { shift, width } => {
                let Some(size) = field.int_size() else { return self.cannot("a bit-field of odd size") };
                let id = self.push_int(Int::Bits { offset, size, shift, width, signed })?;
                Ok(Value::Int(id, IntType { size, signed }))
            }
            Kind::Float => self.cannot("a floating-point number"),
            Kind::Array(element) => self.array(Memory::Fixed { offset, len: size }, element),
            Kind::Rest(element) => self.array(Memory::Rest { offset }, element),
            Kind::Dynamic { relative, element } => self.array(Memory::Dynamic { offset, relative }, element),
            Kind::Opaque => {
                let memory = self.push_memory(Memory::Fixed { offset, len: size })?;
                Ok(Value::Memory(memory, Pointee::Struct(Some(size))))
            }
        }
    }

    fn array(&mut self, memory: Memory, element: Element) -> Result<Value, Unprintable> {
        let of = match (element.meaning, u8::try_from(element.size)) {
            (Meaning::Pointers, _) => Pointee::Pointer,
            (Meaning::Opaque, _) if !matches!(element.size, 1 | 2 | 4 | 8) => {
                Pointee::Struct(Some(element.size))
            }
            (_, Ok(size @ (1 | 2 | 4 | 8))) => Pointee::Int(IntType { size, signed: element.signed }),
            _ => Pointee::Struct(Some(element.size)),
        };
        Ok(Value::Memory(self.push_memory(memory)?, of))
    }

    /// The dynamic array that a call names.
    fn dynamic(&mut self, args: &[Expr]) -> Result<(&'a Field, bool, Element), Unprintable> {
        let name = args.first().and_then(|arg| match &*arg.node {
            Node::Name(name) => Some(name.as_str()),
            _ => None,
        });
        let field = name.and_then(|name| self.environment.format.field(name));
        match field.map(|field| (field, &field.kind)) {
            Some((field, Kind::Dynamic { relative, element })) => Ok((field, *relative, *element)),
            _ => self.cannot(format!("the dynamic array {}", name.unwrap_or("of a call"))),
        }
    }

    fn dynamic_array(&mut self, args: &[Expr]) -> Result<Value, Unprintable> {
        let (field, relative, element) = self.dynamic(args)?;
        self.array(Memory::Dynamic { offset: field.offset, relative }, element)
    }

    fn block(&mut self, variables: &[(TypeName, String, Expr)], result: &Expr) -> Result<Value, Unprintable> {
        let outside = self.variables.len();
        for (of, name, value) in variables {
            let value = self.value(value)?;
            let value = self.cast(of, value)?;
            self.variables.push((name.clone(), value));
        }
        let result = self.value(result);
        self.variables.truncate(outside);
        result
    }
}

/// `REC->a.b` as "a.b"; `None` where it does not start at the record.
fn path(of: &Expr, member: &str) -> Option<String> {
    match &*of.node {
        Node::Name(name) if name == "REC" => Some(member.to_owned()),
        Node::Member(of, outer) => Some(format!("{}.{member}", path(of, outer)?)),
        _ => None,
    }
}

/// A pointer field's type as a type name: `struct page *`.
fn pointer_type(name: &str) -> TypeName {
    let pointers = name.bytes().filter(|&byte| byte == b'*').count();
    let base = name.split('*').next().unwrap_or_default().trim().to_owned();
    TypeName { base, pointers: u8::try_from(pointers).unwrap_or(u8::MAX).max(1) }
}

/// C's integer promotion.
fn promoted(kind: IntType) -> IntType {
    if kind.size < 4 { IntType::INT } else { kind }
}

/// C's usual arithmetic conversions.
fn common(a: IntType, b: IntType) -> IntType {
    let (a, b) = (promoted(a), promoted(b));
    match a.size.cmp(&b.size) {
        std::cmp::Ordering::Less => b,
        std::cmp::Ordering::Greater => a,
        std::cmp::Ordering::Equal => IntType { size: a.size, signed: a.signed && b.signed },
    }
}
