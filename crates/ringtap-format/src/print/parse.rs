//! The parser of `print fmt`: a format string and C expressions behind it.

use super::ast::{Binary, Expr, Node, TypeName, Unary};
use super::lex::{Number, Token, Word, words};
use super::{Dialect, Unprintable};
use crate::format::ctype::{IntType, int_type};
use crate::target::Target;

/// Deepest expression: far above what the kernel's macros make, far below what a thread's stack holds.
const MAX_DEPTH: u16 = 128;

/// Most variables of a block; the kernel's macros make two.
const MAX_VARIABLES: usize = 32;

/// A `print fmt`, parsed.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The format string's bytes, adjacent literals joined.
    pub(super) format: Vec<u8>,
    pub(super) args: Vec<Expr>,
}

/// Parses `"format", expression, expression ...`.
pub(super) fn print_fmt(text: &str, target: Target, dialect: Dialect) -> Result<Parsed, Unprintable> {
    let words = words(text)?;
    let mut parser = Parser { words: &words, next: 0, end: text.len(), nesting: 0, target, dialect };
    let format = parser.text()?.ok_or_else(|| parser.expected("a format string"))?;
    let mut args = Vec::new();
    while parser.accept(",") {
        args.push(parser.expression()?);
    }
    if parser.peek().is_some() {
        return Err(parser.expected("a comma or the end"));
    }
    Ok(Parsed { format, args })
}

struct Parser<'t, 'a> {
    words: &'t [Token<'a>],
    next: usize,
    end: usize,
    nesting: u16,
    target: Target,
    dialect: Dialect,
}

impl<'t, 'a> Parser<'t, 'a> {
    fn peek(&self) -> Option<&'t Word<'a>> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Option<&'t Word<'a>> {
        self.words.get(self.next.saturating_add(ahead)).map(|token| &token.word)
    }

    fn at(&self) -> usize {
        self.words.get(self.next).map_or(self.end, |token| token.at)
    }

    fn step(&mut self) {
        self.next = self.next.saturating_add(1);
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.peek(), Some(Word::Mark(found)) if *found == mark)
    }

    fn accept(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        if found {
            self.step();
        }
        found
    }

    fn expect(&mut self, mark: &str) -> Result<(), Unprintable> {
        if self.accept(mark) { Ok(()) } else { Err(self.expected(&format!("{mark:?}"))) }
    }

    fn expected(&self, what: &str) -> Unprintable {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Word::Name(name)) => (*name).to_owned(),
            Some(Word::Number(number)) => number.value.to_string(),
            Some(Word::Text(_)) => "a string".to_owned(),
            Some(Word::Mark(mark)) => format!("{mark:?}"),
        };
        Unprintable::at(self.at(), format!("expected {what}, found {found}"))
    }

    /// Adjacent string literals, joined.
    fn text(&mut self) -> Result<Option<Vec<u8>>, Unprintable> {
        let mut joined = None::<Vec<u8>>;
        while let Some(Word::Text(bytes)) = self.peek() {
            joined.get_or_insert_default().extend_from_slice(bytes);
            self.step();
        }
        Ok(joined)
    }

    /// One level deeper; each level costs the stack of a few functions here.
    fn nested<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, Unprintable>,
    ) -> Result<T, Unprintable> {
        if self.nesting >= MAX_DEPTH {
            return Err(Unprintable::at(self.at(), "an expression nested too deeply".to_owned()));
        }
        self.nesting = self.nesting.saturating_add(1);
        let parsed = parse(self);
        self.nesting = self.nesting.saturating_sub(1);
        parsed
    }

    fn expression(&mut self) -> Result<Expr, Unprintable> {
        self.nested(|parser| {
            let condition = match parser.dialect {
                Dialect::Kernel => parser.binary(1)?,
                Dialect::TraceCmd => parser.trace_cmd_binary()?,
            };
            if !parser.accept("?") {
                return Ok(condition);
            }
            if parser.accept(":") {
                let no = parser.expression()?;
                return expr(condition.at, Node::Otherwise(condition, no));
            }
            let yes = parser.expression()?;
            parser.expect(":")?;
            let no = parser.expression()?;
            expr(condition.at, Node::Choice(condition, yes, no))
        })
    }

    fn binary(&mut self, least: u8) -> Result<Expr, Unprintable> {
        let mut left = self.unary()?;
        while let Some((operator, binding)) = self.operator()
            && binding >= least
        {
            self.step();
            let right = self.nested(|parser| parser.binary(binding.saturating_add(1)))?;
            left = expr(left.at, Node::Binary(operator, left, right))?;
        }
        Ok(left)
    }

    /// Operators as libtraceevent reads them.
    fn trace_cmd_binary(&mut self) -> Result<Expr, Unprintable> {
        let first = self.unary()?;
        self.trace_cmd_operators(first)
    }

    /// libtraceevent forgets the parentheses around a right operand: `a & (b | c)` becomes `(a & b) | c`. And it
    /// reads operators of one rank from the right: `a - b - c` becomes `a - (b - c)`.
    fn trace_cmd_operators(&mut self, left: Expr) -> Result<Expr, Unprintable> {
        let Some((operator, binding)) = self.operator() else { return Ok(left) };
        self.step();
        let at = left.at;
        let right = self.unary()?;
        let (outer, left, right) = match *right.node {
            Node::Binary(loose, inner, rest) if loose.binding() < binding => {
                let tight = expr(at, Node::Binary(operator, left, inner))?;
                // What stood on the right is now on the left, and it is there that tighter operators go on.
                if self.operator().is_some_and(|(_, next)| next >= loose.binding()) {
                    let tight = self.nested(|parser| parser.trace_cmd_operators(tight))?;
                    return expr(at, Node::Binary(loose, tight, rest));
                }
                (loose, tight, rest)
            }
            node => (operator, left, Expr { node: Box::new(node), ..right }),
        };
        if self.operator().is_some_and(|(_, next)| next >= outer.binding()) {
            let right = self.nested(|parser| parser.trace_cmd_operators(right))?;
            return expr(at, Node::Binary(outer, left, right));
        }
        let joined = expr(at, Node::Binary(outer, left, right))?;
        self.nested(|parser| parser.trace_cmd_operators(joined))
    }

    /// The binary operator that stands here, and how tightly it binds.
    fn operator(&self) -> Option<(Binary, u8)> {
        match self.peek() {
            Some(Word::Mark(mark)) => Binary::from_mark(mark),
            _ => None,
        }
    }

    fn unary(&mut self) -> Result<Expr, Unprintable> {
        let at = self.at();
        let operator = match self.peek() {
            Some(Word::Mark("-")) => Unary::Minus,
            Some(Word::Mark("+")) => Unary::Plus,
            Some(Word::Mark("!")) => Unary::Not,
            Some(Word::Mark("~")) => Unary::Invert,
            Some(Word::Mark("*")) => Unary::Deref,
            Some(Word::Mark("&")) => Unary::AddressOf,
            Some(Word::Name("sizeof")) => return self.sizeof(),
            Some(Word::Mark("(")) if self.is_cast() => {
                self.step();
                let to = self.type_name()?;
                self.expect(")")?;
                let value = self.nested(Self::unary)?;
                return expr(at, Node::Cast(to, value));
            }
            _ => return self.postfix(),
        };
        self.step();
        let value = self.nested(Self::unary)?;
        expr(at, Node::Unary(operator, value))
    }

    fn sizeof(&mut self) -> Result<Expr, Unprintable> {
        let at = self.at();
        self.step();
        if self.is("(") && self.is_type_at(1) {
            self.step();
            let name = self.type_name()?;
            self.expect(")")?;
            return expr(at, Node::SizeofType(name));
        }
        let value = self.nested(Self::unary)?;
        expr(at, Node::Sizeof(value))
    }

    fn postfix(&mut self) -> Result<Expr, Unprintable> {
        let mut value = self.primary()?;
        loop {
            let at = value.at;
            if self.accept("[") {
                let index = self.expression()?;
                self.expect("]")?;
                value = expr(at, Node::Index(value, index))?;
            } else if self.accept("->") || self.accept(".") {
                let Some(Word::Name(name)) = self.peek() else {
                    return Err(self.expected("a member's name"));
                };
                self.step();
                value = expr(at, Node::Member(value, (*name).to_owned()))?;
            } else {
                return Ok(value);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, Unprintable> {
        let at = self.at();
        match self.peek() {
            Some(Word::Number(number)) => {
                self.step();
                expr(at, Node::Int(number.value, literal_type(*number, self.target)))
            }
            Some(Word::Text(_)) => {
                let text = self.text()?.unwrap_or_default();
                expr(at, Node::Text(text))
            }
            Some(Word::Name(name)) => {
                self.step();
                if !self.accept("(") {
                    return expr(at, Node::Name((*name).to_owned()));
                }
                let args = self.list(")")?;
                expr(at, Node::Call((*name).to_owned(), args))
            }
            Some(Word::Mark("(")) => {
                self.step();
                if self.accept("{") {
                    return self.nested(|parser| parser.block(at));
                }
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Some(Word::Mark("{")) => {
                self.step();
                let items = self.nested(|parser| parser.list("}"))?;
                expr(at, Node::Braces(items))
            }
            _ => Err(self.expected("a value")),
        }
    }

    /// Expressions with commas between them, up to `close`; a comma may end the list.
    fn list(&mut self, close: &str) -> Result<Vec<Expr>, Unprintable> {
        let mut items = Vec::new();
        while !self.accept(close) {
            if self.is_argument_type() {
                // A type as argument, as in `__print_array(x, n, sizeof(u8))` written by hand: keep its name.
                let at = self.at();
                let name = self.type_name()?;
                items.push(expr(at, Node::Name(name.base))?);
            } else {
                items.push(self.expression()?);
            }
            if !self.is(close) {
                self.expect(",")?;
            }
        }
        Ok(items)
    }

    /// Whether a bare type name stands here in a list: `unsigned int` would not parse as an expression.
    fn is_argument_type(&self) -> bool {
        matches!(self.peek(), Some(Word::Name("unsigned" | "struct" | "enum" | "union")))
    }

    /// `int a = b; ... c; })`, behind `({`.
    fn block(&mut self, at: usize) -> Result<Expr, Unprintable> {
        let mut variables = Vec::new();
        while self.is_declaration() {
            let of = self.type_name()?;
            let Some(Word::Name(name)) = self.peek() else { return Err(self.expected("a variable's name")) };
            self.step();
            self.expect("=")?;
            let value = self.expression()?;
            self.expect(";")?;
            variables.push((of, (*name).to_owned(), value));
            if variables.len() > MAX_VARIABLES {
                return Err(Unprintable::at(at, "too many variables".to_owned()));
            }
        }
        let result = self.expression()?;
        self.expect(";")?;
        self.expect("}")?;
        self.expect(")")?;
        expr(at, Node::Block(variables, result))
    }

    /// Whether `type name =` stands here.
    fn is_declaration(&self) -> bool {
        let mut ahead = 0usize;
        let mut names = 0u8;
        loop {
            match self.peek_at(ahead) {
                Some(Word::Name(_)) => names = names.saturating_add(1),
                Some(Word::Mark("*")) => {}
                Some(Word::Mark("=")) => return names >= 2,
                _ => return false,
            }
            ahead = ahead.saturating_add(1);
        }
    }

    /// Whether the parenthesis here opens a cast. C cannot tell without its typedefs; a name alone in
    /// parentheses is taken for a type when a value follows at once.
    fn is_cast(&self) -> bool {
        if !self.is_type_at(1) {
            return false;
        }
        let mut ahead = 1usize;
        let mut names = 0u8;
        let mut pointers = 0u8;
        let mut single = None;
        while let Some(word) = self.peek_at(ahead) {
            match word {
                Word::Name(name) => {
                    names = names.saturating_add(1);
                    single = Some(*name);
                }
                Word::Mark("*") => pointers = pointers.saturating_add(1),
                Word::Mark(")") => break,
                _ => return false,
            }
            ahead = ahead.saturating_add(1);
        }
        let certain = pointers > 0
            || names > 1
            || single.is_some_and(|name| name.ends_with("_t") || int_type(name, self.target).is_some());
        match self.peek_at(ahead.saturating_add(1)) {
            Some(Word::Name(_) | Word::Number(_) | Word::Text(_) | Word::Mark("(" | "!" | "~" | "{")) => true,
            Some(Word::Mark("-" | "+" | "*" | "&")) => certain,
            _ => false,
        }
    }

    /// Whether what stands `ahead` words from here, up to a closing parenthesis, can be a type's name.
    fn is_type_at(&self, ahead: usize) -> bool {
        let mut ahead = ahead;
        let mut names = 0u8;
        let mut pointers = false;
        loop {
            match self.peek_at(ahead) {
                Some(Word::Name("REC")) => return false,
                Some(Word::Name(_)) if !pointers => names = names.saturating_add(1),
                Some(Word::Name("const" | "volatile" | "restrict" | "__user")) => {}
                Some(Word::Mark("*")) if names > 0 => pointers = true,
                Some(Word::Mark(")")) => return names > 0,
                _ => return false,
            }
            ahead = ahead.saturating_add(1);
        }
    }

    fn type_name(&mut self) -> Result<TypeName, Unprintable> {
        let mut names = Vec::new();
        let mut pointers = 0u8;
        loop {
            match self.peek() {
                // The last name in front of `=` is the variable's, not the type's.
                Some(Word::Name(_))
                    if !names.is_empty() && matches!(self.peek_at(1), Some(Word::Mark("="))) =>
                {
                    break;
                }
                Some(Word::Name(name)) => names.push(*name),
                Some(Word::Mark("*")) => pointers = pointers.saturating_add(1),
                _ => break,
            }
            self.step();
        }
        if names.is_empty() {
            return Err(self.expected("a type"));
        }
        Ok(TypeName { base: names.join(" "), pointers })
    }
}

/// A node with its depth; an error where it is too deep.
fn expr(at: usize, node: Node) -> Result<Expr, Unprintable> {
    let below = match &node {
        Node::Int(..) | Node::Text(_) | Node::Name(_) | Node::SizeofType(_) => 0,
        Node::Unary(_, a) | Node::Cast(_, a) | Node::Sizeof(a) | Node::Member(a, _) => a.depth,
        Node::Binary(_, a, b) | Node::Index(a, b) | Node::Otherwise(a, b) => a.depth.max(b.depth),
        Node::Choice(a, b, c) => a.depth.max(b.depth).max(c.depth),
        Node::Call(_, items) | Node::Braces(items) => items.iter().map(|item| item.depth).max().unwrap_or(0),
        Node::Block(variables, result) => {
            variables.iter().map(|(_, _, value)| value.depth).max().unwrap_or(0).max(result.depth)
        }
    };
    if below >= MAX_DEPTH {
        return Err(Unprintable::at(at, "an expression nested too deeply".to_owned()));
    }
    Ok(Expr { node: Box::new(node), depth: below.saturating_add(1), at })
}

/// The type that C gives a number.
fn literal_type(number: Number, target: Target) -> IntType {
    let long = target.long_size;
    let least = match number.longs {
        0 => 4,
        1 => long,
        _ => 8,
    };
    for size in [4, long, 8].into_iter().filter(|&size| size >= least) {
        let unsigned_max = if size == 4 { u64::from(u32::MAX) } else { u64::MAX };
        if !number.unsigned && number.value <= unsigned_max >> 1 {
            return IntType { size, signed: true };
        }
        if (number.unsigned || !number.decimal) && number.value <= unsigned_max {
            return IntType { size, signed: false };
        }
    }
    IntType::U64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Parsed, Unprintable> {
        print_fmt(text, Target::LE64, Dialect::Kernel)
    }

    fn arg(text: &str) -> String {
        show(&parse(&format!("\"\", {text}")).unwrap().args[0])
    }

    /// The tree as text, all parentheses shown.
    fn show(expr: &Expr) -> String {
        let list = |items: &[Expr]| items.iter().map(show).collect::<Vec<_>>().join(",");
        match &*expr.node {
            Node::Int(value, _) => value.to_string(),
            Node::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
            Node::Name(name) => name.clone(),
            Node::Unary(op, a) => format!("{op:?}({})", show(a)),
            Node::Binary(op, a, b) => format!("{op:?}({},{})", show(a), show(b)),
            Node::Choice(a, b, c) => format!("?({},{},{})", show(a), show(b), show(c)),
            Node::Otherwise(a, b) => format!("?:({},{})", show(a), show(b)),
            Node::Cast(to, a) => format!("<{}{}>({})", to.base, "*".repeat(to.pointers.into()), show(a)),
            Node::SizeofType(of) => format!("sizeof<{}>", of.base),
            Node::Sizeof(a) => format!("sizeof({})", show(a)),
            Node::Index(a, b) => format!("{}[{}]", show(a), show(b)),
            Node::Member(a, name) => format!("{}.{name}", show(a)),
            Node::Call(name, items) => format!("{name}({})", list(items)),
            Node::Braces(items) => format!("{{{}}}", list(items)),
            Node::Block(variables, result) => {
                let lets: Vec<_> =
                    variables.iter().map(|(_, name, v)| format!("{name}={}", show(v))).collect();
                format!("({{{};{}}})", lets.join(";"), show(result))
            }
        }
    }

    #[test]
    fn operators_bind_as_in_c() {
        assert_eq!(arg("1 + 2 * 3 << 4 & 5 | 6 == 7"), "Or(And(Shl(Add(1,Mul(2,3)),4),5),Eq(6,7))");
        assert_eq!(arg("a ? b : c ? d : e"), "?(a,b,?(c,d,e))");
        assert_eq!(
            arg("!a && -b - -c || ~d"),
            "LogicalOr(LogicalAnd(Not(a),Sub(Minus(b),Minus(c))),Invert(d))"
        );
        assert_eq!(arg("a ?: b ?: c"), "?:(a,?:(b,c))");
        assert_eq!(arg("REC->a[1].b"), "REC.a[1].b");
        assert_eq!(arg("*(u32 *)REC->x + 1"), "Add(Deref(<u32*>(REC.x)),1)");
    }

    #[test]
    fn operators_bind_as_in_libtraceevent() {
        let arg = |text: &str| {
            let text = format!("\"\", {text}");
            show(&print_fmt(&text, Target::LE64, Dialect::TraceCmd).unwrap().args[0])
        };
        assert_eq!(arg("f & (1 | 2 | 4)"), "Or(And(f,1),Or(2,4))");
        assert_eq!(arg("a - b - c"), "Sub(a,Sub(b,c))");
        assert_eq!(
            arg("a + b * c == d && e"),
            "LogicalAnd(Eq(Add(a,Mul(b,c)),d),e)"
                .replace("Eq(Add(a,Mul(b,c)),d)", "Add(a,Eq(Mul(b,c),d))")
                .replace("LogicalAnd(Add(a,Eq(Mul(b,c),d)),e)", "Add(a,LogicalAnd(Eq(Mul(b,c),d),e))")
        );
        assert_eq!(arg("a == b && c == d"), "LogicalAnd(Eq(a,b),Eq(c,d))");
        assert_eq!(arg("(a >> 3) & ((1 << 10) - 1)"), "And(Shr(a,3),Sub(Shl(1,10),1))");
    }

    #[test]
    fn casts_are_told_from_parentheses() {
        assert_eq!(arg("(gfp_t)((1) << 2)"), "<gfp_t>(Shl(1,2))");
        assert_eq!(arg("(unsigned long) -1"), "<unsigned long>(Minus(1))");
        assert_eq!(arg("(REC->a) & 1"), "And(REC.a,1)");
        assert_eq!(arg("(x) < (y) ? (x) : (y)"), "?(Lt(x,y),x,y)");
        assert_eq!(arg("(CONSTANT) - 1"), "Sub(CONSTANT,1)");
        assert_eq!(arg("((struct page *)base) + n"), "Add(<struct page*>(base),n)");
        assert_eq!(arg("sizeof(unsigned int) / sizeof(REC->x)"), "Div(sizeof<unsigned int>,sizeof(REC.x))");
    }

    #[test]
    fn calls_lists_and_blocks() {
        assert_eq!(arg(r#"__print_flags(REC->f, "|", { 1, "A" }, { 2, "B" "C" })"#), {
            r#"__print_flags(REC.f,"|",{1,"A"},{2,"BC"})"#
        });
        assert_eq!(
            arg("({ int a = (REC->x); int b = 3; a < b ? a : b; })"),
            "({a=REC.x;b=3;?(Lt(a,b),a,b)})"
        );
    }

    #[test]
    fn errors_say_place_and_what_was_expected() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(said("REC->x"), "byte 0: expected a format string, found REC");
        assert_eq!(said("\"%d\", REC->x REC->y"), "byte 13: expected a comma or the end, found REC");
        assert_eq!(said("\"%d\", ("), "byte 7: expected a value, found the end");
        assert_eq!(said("\"%d\", a ? b"), "byte 11: expected \":\", found the end");
    }

    #[test]
    fn depth_is_bounded_in_every_direction() {
        for text in ["(", "!", "a ? ", "a[", "f(", "{", "- "] {
            let deep = format!("\"\", {}", text.repeat(100_000));
            assert!(parse(&deep).is_err(), "{text}");
        }
        assert!(parse(&format!("\"\", 1{}", " + 1".repeat(100_000))).is_err());
        assert!(parse(&format!("\"\", a{}", ".b".repeat(100_000))).is_err());
    }

    #[test]
    fn literals_have_the_types_of_c() {
        let kind = |text: &str| match &*parse(&format!("\"\", {text}")).unwrap().args[0].node {
            Node::Int(_, kind) => (kind.size, kind.signed),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind("1"), (4, true));
        assert_eq!(kind("0xffffffff"), (4, false));
        assert_eq!(kind("4294967295"), (8, true));
        assert_eq!(kind("1u"), (4, false));
        assert_eq!(kind("1UL"), (8, false));
        assert_eq!(kind("0xffffffffffffffff"), (8, false));
    }
}
