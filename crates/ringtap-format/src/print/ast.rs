//! What the parser makes of a `print fmt`: C expressions, names not yet looked up.

use crate::format::ctype::IntType;

/// An expression and how deep it is, so that no walk over it can run out of stack.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expr {
    pub(super) node: Box<Node>,
    pub(super) depth: u16,
    /// Where it starts in the text, for messages.
    pub(super) at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Int(u64, IntType),
    Text(Vec<u8>),
    Name(String),
    Unary(Unary, Expr),
    Binary(Binary, Expr, Expr),
    /// `a ? b : c`
    Choice(Expr, Expr, Expr),
    /// GNU C's `a ?: b`: `a` where it is not 0.
    Otherwise(Expr, Expr),
    Cast(TypeName, Expr),
    SizeofType(TypeName),
    Sizeof(Expr),
    Index(Expr, Expr),
    /// `a.b` and `a->b`
    Member(Expr, String),
    Call(String, Vec<Expr>),
    /// `{ value, "name" }`
    Braces(Vec<Expr>),
    /// `({ int a = b; c; })`
    Block(Vec<(TypeName, String, Expr)>, Expr),
}

/// A type in a cast, in `sizeof` or in front of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TypeName {
    pub(super) base: String,
    /// How many `*` follow.
    pub(super) pointers: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Minus,
    Plus,
    Not,
    Invert,
    Deref,
    AddressOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Mul,
    Div,
    Rem,
    Add,
    Sub,
    Shl,
    Shr,
    Lt,
    Gt,
    Le,
    Ge,
    Eq,
    Ne,
    And,
    Xor,
    Or,
    LogicalAnd,
    LogicalOr,
}

impl Binary {
    /// How tightly it binds: more is tighter.
    pub(super) const fn binding(self) -> u8 {
        match self {
            Self::Mul | Self::Div | Self::Rem => 10,
            Self::Add | Self::Sub => 9,
            Self::Shl | Self::Shr => 8,
            Self::Lt | Self::Gt | Self::Le | Self::Ge => 7,
            Self::Eq | Self::Ne => 6,
            Self::And => 5,
            Self::Xor => 4,
            Self::Or => 3,
            Self::LogicalAnd => 2,
            Self::LogicalOr => 1,
        }
    }

    /// The operator that `mark` stands for, and how tightly it binds.
    pub(super) fn from_mark(mark: &str) -> Option<(Self, u8)> {
        let operator = match mark {
            "*" => Self::Mul,
            "/" => Self::Div,
            "%" => Self::Rem,
            "+" => Self::Add,
            "-" => Self::Sub,
            "<<" => Self::Shl,
            ">>" => Self::Shr,
            "<" => Self::Lt,
            ">" => Self::Gt,
            "<=" => Self::Le,
            ">=" => Self::Ge,
            "==" => Self::Eq,
            "!=" => Self::Ne,
            "&" => Self::And,
            "^" => Self::Xor,
            "|" => Self::Or,
            "&&" => Self::LogicalAnd,
            "||" => Self::LogicalOr,
            _ => return None,
        };
        Some((operator, operator.binding()))
    }
}
