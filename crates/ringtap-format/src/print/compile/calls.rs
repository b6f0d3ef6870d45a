//! Calls in a `print fmt`: of the kernel's helpers, which print, and of its functions and macros that tell values.

use super::*;

impl Compiler<'_> {
    pub(super) fn call(&mut self, name: &str, args: &[Expr]) -> Result<Value, Unprintable> {
        let int = |id, kind| Ok(Value::Int(id, kind));
        match (name, args) {
            (
                "__get_str"
                | "__get_rel_str"
                | "__get_dynamic_array"
                | "__get_rel_dynamic_array"
                | "__get_sockaddr"
                | "__get_rel_sockaddr",
                args,
            ) => self.dynamic_array(args),
            ("__get_dynamic_array_len" | "__get_rel_dynamic_array_len", args) => {
                let (field, ..) = self.dynamic(args)?;
                int(self.push_int(Int::DynamicLen { offset: field.offset })?, IntType::UINT)
            }
            ("__get_bitmask" | "__get_rel_bitmask" | "__get_cpumask" | "__get_rel_cpumask", args) => {
                let Value::Memory(memory, _) = self.dynamic_array(args)? else {
                    return self.cannot("a bit mask");
                };
                self.text_value(Text::Mask(memory))
            }
            ("__print_flags" | "__print_flags_u64", [value, delimiter, entries @ ..]) => {
                let value = self.long_value(value, name)?;
                let delimiter = self.literal(delimiter)?;
                let table = self.table(entries, name)?;
                self.text_value(Text::Flags { value, delimiter, table })
            }
            ("__print_symbolic" | "__print_symbolic_u64" | "__print_symbolic_str", [value, entries @ ..]) => {
                let value = self.long_value(value, name)?;
                let table = self.table(entries, name)?;
                self.text_value(Text::Symbolic { value, table })
            }
            ("__print_hex" | "__print_hex_str", [memory, len]) => {
                let (memory, _) = self.memory(memory)?;
                let (len, _) = self.int(len)?;
                self.text_value(Text::Hex { memory, len, separated: name == "__print_hex" })
            }
            ("__print_array", [memory, count, size]) => {
                let (memory, _) = self.memory(memory)?;
                let (count, _) = self.int(count)?;
                self.print_array(memory, Some(count), size)
            }
            ("__print_dynamic_array" | "__print_rel_dynamic_array", [_, size]) => {
                let Value::Memory(memory, _) = self.dynamic_array(args)? else {
                    return self.cannot("an array");
                };
                self.print_array(memory, None, size)
            }
            ("__print_hex_dump", [prefix, kind, row, group, memory, len, ascii]) => {
                let dump = HexDump {
                    prefix: self.literal(prefix)?,
                    prefix_type: self.prefix_type(kind)?,
                    row: self.fixed(row)?,
                    group: self.fixed(group)?,
                    ascii: self.fixed(ascii)? != 0,
                };
                let (memory, _) = self.memory(memory)?;
                let (len, _) = self.int(len)?;
                self.text_value(Text::HexDump { memory, len, dump })
            }
            ("__print_ns_to_secs", [ns]) => self.divided(ns, Binary::Div, IntType::U64),
            ("__print_ns_without_secs", [ns]) => self.divided(ns, Binary::Rem, IntType::UINT),
            ("__builtin_expect", [value, _]) | ("likely" | "unlikely", [value]) => self.value(value),
            ("__builtin_constant_p", [_]) => int(self.push_const(0)?, IntType::INT),
            ("BIT" | "BIT_ULL", [bit]) => {
                let (bit, _) = self.int(bit)?;
                let one = self.push_const(1)?;
                int(self.operation(Binary::Shl, one, bit, IntType::U64)?, IntType::U64)
            }
            ("jiffies_to_msecs", [jiffies]) => {
                let (jiffies, _) = self.int(jiffies)?;
                int(self.push_int(Int::JiffiesToMs(jiffies))?, IntType::UINT)
            }
            ("mc_event_error_type", [kind]) => {
                let (kind, _) = self.int(kind)?;
                self.text_value(Text::MemoryError(kind))
            }
            ("__caller", [address]) => {
                let (address, _) = self.int(address)?;
                self.text_value(Text::Caller(address))
            }
            ("__function", [address]) => {
                let (address, _) = self.int(address)?;
                self.text_value(Text::Function(address))
            }
            // Printed where the bit is set in the mask.
            ("__argument", [mask, bit, name, value, digits]) => {
                let ((mask, _), (bit, _)) = (self.int(mask)?, self.int(bit)?);
                let shifted = self.operation(Binary::Shr, mask, bit, IntType::U64)?;
                let one = self.push_const(1)?;
                let condition = self.operation(Binary::And, shifted, one, IntType::U64)?;
                let name = self.literal(name)?;
                let (value, _) = self.int(value)?;
                let digits = u8::try_from(self.fixed(digits)?).unwrap_or(0);
                self.text_value(Text::Argument { condition, name, value, digits })
            }
            (name, [value]) if let Some((size, always)) = swap(name) => self.swapped(value, size, always),
            _ => self.cannot(format!("a call of {name}()")),
        }
    }

    fn text_value(&mut self, text: Text) -> Result<Value, Unprintable> {
        Ok(Value::Text(self.push_text(text)?))
    }

    /// The value of flags or symbols: the kernel takes it as `unsigned long`, or as `u64` by another name.
    fn long_value(&mut self, expr: &Expr, call: &str) -> Result<Id, Unprintable> {
        let (value, from) = self.int(expr)?;
        self.converted(value, from, self.table_type(call))
    }

    fn table_type(&self, call: &str) -> IntType {
        if call.ends_with("_u64") { IntType::U64 } else { IntType::ulong(self.target()) }
    }

    fn table(&mut self, entries: &[Expr], call: &str) -> Result<Id, Unprintable> {
        let kind = self.table_type(call);
        let mut listed = Vec::new();
        for entry in entries {
            self.at = entry.at;
            let Node::Braces(pair) = &*entry.node else {
                return self.cannot("a value and its name in braces");
            };
            if pair.is_empty() {
                continue;
            }
            let [value, name] = pair.as_slice() else { return self.cannot("a value and its name in braces") };
            let Node::Text(name) = &*name.node else { break };
            if let Some(value) = self.entry(value)? {
                listed.push((convert(value, kind.size, kind.signed), name.clone().into_boxed_slice()));
            }
        }
        let id = self.next_id(self.program.tables.len(), 0)?;
        self.program.tables.push(Table::new(listed));
        Ok(id)
    }

    /// The value of a table's entry; `None` where it is an enum member whose value nobody knows.
    fn entry(&mut self, expr: &Expr) -> Result<Option<u64>, Unprintable> {
        if let Node::Name(name) = &*expr.node
            && self.environment.dialect == Dialect::TraceCmd
        {
            // libtraceevent takes each name that it does not know for -1.
            return Ok(Some(super::super::trace_cmd::constant(name)));
        }
        match self.int(expr) {
            Ok((value, _)) => match self.constant(value) {
                Some(value) => Ok(Some(value)),
                None => self.cannot("a constant"),
            },
            Err(_) => {
                let name = match &*expr.node {
                    Node::Name(name) => name.clone(),
                    _ => "an expression".to_owned(),
                };
                self.unresolved.push(name);
                Ok(None)
            }
        }
    }

    fn literal(&self, expr: &Expr) -> Result<Box<[u8]>, Unprintable> {
        match &*expr.node {
            Node::Text(text) => Ok(text.clone().into()),
            Node::Int(0, _) => Ok(Box::default()),
            Node::Cast(_, zero) if matches!(&*zero.node, Node::Int(0, _)) => Ok(Box::default()),
            _ => self.cannot("a string"),
        }
    }

    fn fixed(&mut self, expr: &Expr) -> Result<u64, Unprintable> {
        let (id, _) = self.int(expr)?;
        self.constant(id).map_or_else(|| self.cannot("a constant"), Ok)
    }

    fn prefix_type(&mut self, expr: &Expr) -> Result<u64, Unprintable> {
        match &*expr.node {
            Node::Name(name) if name == "DUMP_PREFIX_NONE" => Ok(0),
            Node::Name(name) if name == "DUMP_PREFIX_ADDRESS" => Ok(1),
            Node::Name(name) if name == "DUMP_PREFIX_OFFSET" => Ok(2),
            _ => self.fixed(expr),
        }
    }

    fn print_array(&mut self, memory: Id, count: Option<Id>, size: &Expr) -> Result<Value, Unprintable> {
        match u8::try_from(self.fixed(size)?) {
            Ok(size @ (1 | 2 | 4 | 8)) => self.text_value(Text::Array { memory, count, size }),
            _ => self.cannot("an element of 1, 2, 4 or 8 bytes"),
        }
    }

    /// Nanoseconds divided by those of a second.
    fn divided(&mut self, ns: &Expr, operator: Binary, result: IntType) -> Result<Value, Unprintable> {
        let (ns, from) = self.int(ns)?;
        let ns = self.converted(ns, from, IntType::U64)?;
        let second = self.push_const(1_000_000_000)?;
        let id = self.operation(operator, ns, second, IntType::U64)?;
        Ok(Value::Int(self.converted(id, IntType::U64, result)?, result))
    }

    fn swapped(&mut self, value: &Expr, size: u8, always: bool) -> Result<Value, Unprintable> {
        let (value, from) = self.int(value)?;
        let kind = IntType { size, signed: false };
        let value = self.converted(value, from, kind)?;
        let swaps = always || self.target().order == crate::ByteOrder::Little;
        let id = match (swaps, self.constant(value)) {
            (false, _) => value,
            (true, Some(number)) => self.push_const(arithmetic::swap(number, size))?,
            (true, None) => self.push_int(Int::Swap { value, size })?,
        };
        Ok(Value::Int(id, kind))
    }
}

/// The bytes that a call swaps, and whether it does so on machines of either order.
fn swap(name: &str) -> Option<(u8, bool)> {
    Some(match name {
        "__fswab16" | "__swab16" | "__builtin_bswap16" => (2, true),
        "__fswab32" | "__swab32" | "__builtin_bswap32" => (4, true),
        "__fswab64" | "__swab64" | "__builtin_bswap64" => (8, true),
        "ntohs" | "htons" | "be16_to_cpu" | "cpu_to_be16" | "__be16_to_cpu" => (2, false),
        "ntohl" | "htonl" | "be32_to_cpu" | "cpu_to_be32" | "__be32_to_cpu" => (4, false),
        "be64_to_cpu" | "cpu_to_be64" | "__be64_to_cpu" => (8, false),
        _ => return None,
    })
}
