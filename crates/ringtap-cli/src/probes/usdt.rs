//! The arguments of a USDT probe, as its note tells where they are, in the words of the kernel's `uprobe_events`.
//!
//! A note has one word for each: `SIZE@PLACE`. The size is in bytes, below 0 for numbers with a sign. The place is an operand as
//! the assembler wrote it: a constant, a register, or memory that a register points at.

/// What to record, and what cannot be, with the reason.
pub(super) fn fetch(arguments: &str) -> (String, Vec<String>) {
    let (mut fetch, mut left_out) = (Vec::new(), Vec::new());
    for (number, argument) in (1..).zip(split(arguments)) {
        match one(argument) {
            Some(words) => fetch.push(format!("arg{number}={words}")),
            None => left_out.push(format!("arg{number}: the kernel cannot fetch '{argument}'")),
        }
    }
    (fetch.join(" "), left_out)
}

/// The words, of which those in brackets may have blanks inside.
fn split(arguments: &str) -> Vec<&str> {
    let (mut words, mut start, mut depth) = (Vec::new(), None, 0);
    for (at, c) in arguments.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            _ => {}
        }
        match (c == ' ' && depth <= 0, start) {
            (true, Some(begin)) => {
                words.push(&arguments[begin..at]);
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    words.extend(start.map(|begin| &arguments[begin..]));
    words
}

fn one(argument: &str) -> Option<String> {
    // Without a size it is a word.
    let (size, place) = argument.split_once('@').unwrap_or(("8", argument));
    let kind = match size {
        "1" => "u8",
        "2" => "u16",
        "4" => "u32",
        "8" => "u64",
        "-1" => "s8",
        "-2" => "s16",
        "-4" => "s32",
        "-8" => "s64",
        // Floating point, among others.
        _ => return None,
    };
    let place = if cfg!(target_arch = "aarch64") { aarch64(place) } else { x86_64(place) };
    Some(format!("{}:{kind}", place?))
}

/// `$5`, `%eax`, `-8(%rbp)`.
fn x86_64(place: &str) -> Option<String> {
    if let Some(constant) = place.strip_prefix('$') {
        return Some(format!("\\{}", integer(constant)?));
    }
    if let Some(register) = place.strip_prefix('%') {
        return Some(format!("%{}", x86_64_register(register)?));
    }
    let (offset, base) = place.strip_suffix(')')?.split_once('(')?;
    let base = x86_64_register(base.strip_prefix('%')?)?;
    let offset = if offset.is_empty() { 0 } else { integer(offset)? };
    Some(format!("{offset:+}(%{base})"))
}

/// The kernel's name of a register, whichever of its parts is meant: the type says how much of it is fetched.
fn x86_64_register(name: &str) -> Option<String> {
    let number = name.strip_prefix('r').map(|rest| rest.trim_end_matches(['b', 'w', 'd']));
    if let Some(number) = number.filter(|number| matches!(number.parse::<u8>(), Ok(8..=15))) {
        return Some(format!("r{number}"));
    }
    let short = match name {
        "al" | "bl" | "cl" | "dl" => format!("{}x", &name[..1]),
        "sil" | "dil" | "bpl" | "spl" => name[..2].to_owned(),
        name => name.strip_prefix(['r', 'e']).unwrap_or(name).to_owned(),
    };
    ["ax", "bx", "cx", "dx", "si", "di", "bp", "sp"].contains(&short.as_str()).then_some(short)
}

/// `5`, `x0`, `w0`, `[sp, 8]`, `[x1]`.
fn aarch64(place: &str) -> Option<String> {
    if let Some(constant) = integer(place) {
        return Some(format!("\\{constant}"));
    }
    let Some(inside) = place.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return Some(format!("%{}", aarch64_register(place)?));
    };
    let (base, offset) = inside.split_once(',').unwrap_or((inside, "0"));
    Some(format!("{:+}(%{})", integer(offset.trim())?, aarch64_register(base.trim())?))
}

fn aarch64_register(name: &str) -> Option<String> {
    match name.strip_prefix(['x', 'w']).map(str::parse::<u8>) {
        Some(Ok(number @ 0..=30)) => Some(format!("x{number}")),
        _ => (name == "sp").then(|| name.to_owned()),
    }
}

fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |hex| (hex, 16));
    // Rust's numbers may have a sign of their own.
    let magnitude = i64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with(['-', '+']))?;
    Some(sign * magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_of_x86_64_become_what_the_kernel_fetches() {
        for (place, kernels) in [
            ("$5", r"\5"),
            ("$-1", r"\-1"),
            ("%rdi", "%di"),
            ("%edi", "%di"),
            ("%dil", "%di"),
            ("%al", "%ax"),
            ("%r8", "%r8"),
            ("%r15d", "%r15"),
            ("%r9w", "%r9"),
            ("-8(%rbp)", "-8(%bp)"),
            ("(%rax)", "+0(%ax)"),
            ("0x18(%rsp)", "+24(%sp)"),
        ] {
            assert_eq!(x86_64(place).as_deref(), Some(kernels), "{place}");
        }
        for place in [
            "$--9223372036854775808",
            "$-0x-8000000000000000",
            "$+5",
            "%ah",
            "%xmm0",
            "counter(%rip)",
            "(%rax,%rbx,8)",
            "",
            "$",
            "%",
            "8(%rip)",
            "%r16",
            "(",
        ] {
            assert_eq!(x86_64(place), None, "{place}");
        }
    }

    #[test]
    fn operands_of_aarch64_become_what_the_kernel_fetches() {
        for (place, kernels) in [
            ("5", r"\5"),
            ("x0", "%x0"),
            ("w30", "%x30"),
            ("[sp, 8]", "+8(%sp)"),
            ("[x1]", "+0(%x1)"),
            ("[x29, -4]", "-4(%x29)"),
        ] {
            assert_eq!(aarch64(place).as_deref(), Some(kernels), "{place}");
        }
        for place in ["x31", "d0", "[x0, x1]", "", "[]"] {
            assert_eq!(aarch64(place), None, "{place}");
        }
    }

    #[test]
    fn arguments_are_split_at_blanks_outside_of_brackets() {
        assert_eq!(split("-4@%edi 8@-8(%rbp)"), ["-4@%edi", "8@-8(%rbp)"]);
        assert_eq!(split(" 8@[sp, 8]  4@x0 "), ["8@[sp, 8]", "4@x0"]);
        assert_eq!(split(""), [""; 0]);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_cannot_be_fetched_is_left_out_and_told() {
        let (fetch, left_out) = fetch("-4@%edi 8f@%xmm0 2@$7");
        assert_eq!(fetch, r"arg1=%di:s32 arg3=\7:u16");
        assert_eq!(left_out, ["arg2: the kernel cannot fetch '8f@%xmm0'"]);
    }
}
