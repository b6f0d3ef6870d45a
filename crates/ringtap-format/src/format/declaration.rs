//! A field's declaration, the C text between `field:` and the first `;`, taken apart.

use super::ctype::int_type;
use super::{Element, Kind, Meaning};
use crate::target::Target;

/// A declaration: the type, the name and what stands behind it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Declaration<'a> {
    pub(super) name: &'a str,
    /// The words before the name.
    pub(super) type_name: &'a str,
    /// Dimensions behind the name as one product; `Some(0)` for `[]` or a length that is not a number.
    len: Option<u32>,
    /// Bits of a bit-field.
    bits: Option<u8>,
}

/// Takes `text` apart; `None` where no name can be found in it.
pub(super) fn declaration(text: &str) -> Option<Declaration<'_>> {
    let text = text.trim();
    let (text, bits) = match text.rsplit_once(':') {
        Some((rest, bits)) => (rest.trim_end(), Some(bits.trim().parse().ok()?)),
        None => (text, None),
    };
    let (text, len) = dimensions(text);
    let start = text.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).map_or(0, |at| {
        // What ends the type is one of C's ASCII marks or a space; step over it, however wide.
        at.saturating_add(text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8))
    });
    let (type_name, name) = (text.get(..start)?.trim(), text.get(start..)?);
    (!name.is_empty()).then_some(Declaration { name, type_name, len, bits })
}

/// Cuts `[4][2]` off the end: what stands before, and the product of the dimensions.
fn dimensions(text: &str) -> (&str, Option<u32>) {
    let mut rest = text;
    let mut len = None::<u32>;
    while let Some((before, dimension)) = rest.strip_suffix(']').and_then(|open| open.rsplit_once('[')) {
        let count = dimension.trim().parse().unwrap_or(0);
        len = Some(len.unwrap_or(1).saturating_mul(count));
        rest = before.trim_end();
    }
    (rest, len)
}

impl Declaration<'_> {
    /// What the field holds, from its declaration and from what its line says of size and sign.
    pub(super) fn kind(&self, size: u32, signed: bool, target: Target) -> Kind {
        for (prefix, relative) in [("__data_loc", false), ("__rel_loc", true)] {
            if let Some(held) = self.type_name.strip_prefix(prefix) {
                return Kind::Dynamic { relative, element: dynamic_element(held, target) };
            }
        }
        if let Some(len) = self.len {
            let element = self.element(size, len, signed, target);
            return if size == 0 { Kind::Rest(element) } else { Kind::Array(element) };
        }
        if let Some(width) = self.bits {
            return Kind::Bits { shift: 0, width: width.min(64) };
        }
        match self.type_name {
            pointer if pointer.ends_with('*') => Kind::Pointer,
            "float" | "double" => Kind::Float,
            aggregate if is_aggregate(aggregate) && !matches!(size, 1 | 2 | 4 | 8) => Kind::Opaque,
            _ if (1..=8).contains(&size) => Kind::Int,
            _ => Kind::Opaque,
        }
    }

    fn element(&self, size: u32, len: u32, signed: bool, target: Target) -> Element {
        let by_name = element(self.type_name, target);
        // The line's own numbers win over what the name seems to mean.
        let by_size = size.checked_div(len).filter(|&each| each > 0 && each.saturating_mul(len) == size);
        match by_size {
            Some(size) => Element { size, signed, ..by_name },
            None => Element { signed, ..by_name },
        }
    }
}

fn is_aggregate(name: &str) -> bool {
    name.split_ascii_whitespace().any(|word| word == "struct" || word == "union")
}

/// What a dynamic array declared as `held` holds: `char[]`, `u64[]`, `cpumask_t`, `__u8 *[]`.
fn dynamic_element(held: &str, target: Target) -> Element {
    let (name, _) = dimensions(held.trim());
    element(name, target)
}

fn element(name: &str, target: Target) -> Element {
    let words = |wanted: &[&str]| name.split_ascii_whitespace().any(|word| wanted.contains(&word));
    let long = u32::from(target.long_size);
    let unsigned = |size, meaning| Element { size, signed: false, meaning };
    if words(&["cpumask_t", "nodemask_t", "bitmask"]) {
        return unsigned(long, Meaning::Mask);
    }
    if name.ends_with('*') {
        return unsigned(long, Meaning::Pointers);
    }
    match int_type(name, target) {
        Some(int) if int.size == 1 && words(&["char"]) && !words(&["unsigned", "signed"]) => {
            Element { size: 1, signed: int.signed, meaning: Meaning::Text }
        }
        Some(int) => Element { size: u32::from(int.size), signed: int.signed, meaning: Meaning::Numbers },
        None => unsigned(1, Meaning::Opaque),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, String, Option<u32>) {
        let d = declaration(text).unwrap();
        (d.type_name.to_owned(), d.name.to_owned(), d.len)
    }

    #[test]
    fn declarations_seen_in_kernels() {
        let case = |t: &str, n: &str, len| (t.to_owned(), n.to_owned(), len);
        assert_eq!(parsed("unsigned short common_type"), case("unsigned short", "common_type", None));
        assert_eq!(parsed("char prev_comm[16]"), case("char", "prev_comm", Some(16)));
        assert_eq!(parsed("char buf[]"), case("char", "buf", Some(0)));
        assert_eq!(parsed("__data_loc char[] name"), case("__data_loc char[]", "name", None));
        assert_eq!(parsed("const char *const * argv"), case("const char *const *", "argv", None));
        assert_eq!(parsed("struct foo *p"), case("struct foo *", "p", None));
        assert_eq!(parsed("u8 matrix[4][3]"), case("u8", "matrix", Some(12)));
        assert_eq!(parsed("u8 lladdr[MAX_ADDR_LEN]"), case("u8", "lladdr", Some(0)));
        assert!(declaration("int *").is_none());
        assert!(declaration("").is_none());
        assert!(declaration("é x").is_some());
    }

    #[test]
    fn kinds_follow_declaration_and_size() {
        let kind = |text: &str, size, signed| declaration(text).unwrap().kind(size, signed, Target::LE64);
        let numbers = |size, signed| Element { size, signed, meaning: Meaning::Numbers };
        assert_eq!(kind("pid_t pid", 4, true), Kind::Int);
        assert_eq!(kind("struct page * p", 8, false), Kind::Pointer);
        assert_eq!(kind("struct timespec t", 16, false), Kind::Opaque);
        assert_eq!(kind("u8 addr[MAX]", 32, false), Kind::Array(numbers(1, false)));
        assert_eq!(kind("xyz_t a[4]", 16, true).clone(), {
            Kind::Array(Element { size: 4, signed: true, meaning: Meaning::Opaque })
        });
        assert_eq!(kind("u64 m[2][3]", 48, false), Kind::Array(numbers(8, false)));
        assert_eq!(kind("unsigned long args[]", 0, false), Kind::Rest(numbers(8, false)));
        assert_eq!(
            kind("__rel_loc u32[] v", 4, false),
            Kind::Dynamic { relative: true, element: numbers(4, false) }
        );
        let mask = Element { size: 8, signed: false, meaning: Meaning::Mask };
        for text in ["__data_loc cpumask_t cpumask", "__data_loc cpumask_t *[] cpumask"] {
            assert_eq!(kind(text, 4, false), Kind::Dynamic { relative: false, element: mask });
        }
        assert_eq!(kind("unsigned int x:3", 4, false), Kind::Bits { shift: 0, width: 3 });
    }
}
