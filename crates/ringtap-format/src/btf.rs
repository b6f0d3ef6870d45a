//! BTF, the kernel's description of its own types (`/sys/kernel/btf/vmlinux`): values of enum members and sizes of
//! types, which `print fmt`s name without telling them. The layout is in the kernel's Documentation/bpf/btf.rst.

use crate::constants::Constants;
use crate::target::{ByteOrder, Target};

const MAGIC: u64 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// Most types between a typedef and what it stands for.
const MAX_CHAIN: usize = 32;

/// Bytes that are not BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("btf: byte {offset}: expected {expected}")]
pub struct BtfError {
    /// Where.
    pub offset: usize,
    /// What should stand there.
    pub expected: &'static str,
}

/// A type's entry, its members not among it.
#[derive(Clone, Copy)]
struct Type {
    name: usize,
    kind: u64,
    size_or_type: u64,
}

mod kind {
    pub(super) const INT: u64 = 1;
    pub(super) const PTR: u64 = 2;
    pub(super) const ARRAY: u64 = 3;
    pub(super) const STRUCT: u64 = 4;
    pub(super) const UNION: u64 = 5;
    pub(super) const ENUM: u64 = 6;
    pub(super) const TYPEDEF: u64 = 8;
    pub(super) const VOLATILE: u64 = 9;
    pub(super) const RESTRICT: u64 = 11;
    pub(super) const FUNC_PROTO: u64 = 13;
    pub(super) const VAR: u64 = 14;
    pub(super) const DATASEC: u64 = 15;
    pub(super) const DECL_TAG: u64 = 17;
    pub(super) const TYPE_TAG: u64 = 18;
    pub(super) const ENUM64: u64 = 19;
}

/// Adds to `constants` all enum members and sizes that `bytes` describe. What is known already stays.
///
/// # Errors
/// Where the bytes are not BTF, or end too early; what was read until then is added.
pub fn define(bytes: &[u8], constants: &mut Constants) -> Result<(), BtfError> {
    let reader = Reader::new(bytes)?;
    let mut types = Vec::new();
    let ended = reader.types(&mut types, constants);
    for entry in &types {
        reader.size(entry, &types, constants);
    }
    ended
}

struct Reader<'a> {
    target: Target,
    types: &'a [u8],
    types_offset: usize,
    strings: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let wrong = |offset, expected| BtfError { offset, expected };
        let with = |order| Target { order, ..Target::LE64 };
        let target = [ByteOrder::Little, ByteOrder::Big].map(with);
        let target = target.into_iter().find(|target| target.uint(bytes, 0, 2) == Some(MAGIC));
        let target = target.ok_or(wrong(0, "the magic number 0xeb9f"))?;
        let field = |offset| {
            let value = target.uint(bytes, offset, 4).and_then(|value| usize::try_from(value).ok());
            value.ok_or(wrong(offset, "a header of 24 bytes"))
        };
        let header_len = field(4)?;
        if header_len < HEADER_LEN {
            return Err(wrong(4, "a header of 24 bytes or more"));
        }
        let section = |offset: usize, len: usize| {
            let start = header_len.checked_add(offset)?;
            bytes.get(start..)?.get(..len)
        };
        let types_offset = header_len.saturating_add(field(8)?);
        let types = section(field(8)?, field(12)?).ok_or(wrong(8, "types inside the file"))?;
        let strings = section(field(16)?, field(20)?).ok_or(wrong(16, "strings inside the file"))?;
        Ok(Self { target, types, types_offset, strings })
    }

    fn name(&self, offset: usize) -> Option<&'a str> {
        let name = crate::out::until_nul(self.strings.get(offset..)?);
        std::str::from_utf8(name).ok().filter(|name| !name.is_empty())
    }

    fn word(&self, offset: usize) -> Option<u64> {
        self.target.uint(self.types, offset, 4)
    }

    /// Walks over the types and defines the members of enums.
    fn types(&self, types: &mut Vec<Type>, constants: &mut Constants) -> Result<(), BtfError> {
        let mut at = 0usize;
        while at < self.types.len() {
            let next = self.one_type(at, types, constants);
            let offset = self.types_offset.saturating_add(at);
            at = next.ok_or(BtfError { offset, expected: "a type that ends inside its section" })?;
        }
        Ok(())
    }

    /// Reads the type at `at` and returns where the next one starts.
    fn one_type(&self, at: usize, types: &mut Vec<Type>, constants: &mut Constants) -> Option<usize> {
        let field = |index: usize| self.word(at.checked_add(index.checked_mul(4)?)?);
        let info = field(1)?;
        let entry =
            Type { name: usize::try_from(field(0)?).ok()?, kind: info >> 24 & 0x1f, size_or_type: field(2)? };
        let members = at.checked_add(12)?;
        let count = usize::try_from(info & 0xffff).ok()?;
        let len = match entry.kind {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => count.checked_mul(12)?,
            kind::ENUM | kind::FUNC_PROTO => count.checked_mul(8)?,
            _ => 0,
        };
        let end = members.checked_add(len)?;
        let members = self.types.get(members..end)?;
        match entry.kind {
            kind::ENUM => self.enum_members(members, 8, constants),
            kind::ENUM64 => self.enum_members(members, 12, constants),
            _ => {}
        }
        types.push(entry);
        Some(end)
    }

    fn enum_members(&self, members: &[u8], size: usize, constants: &mut Constants) {
        for member in members.chunks_exact(size.max(1)) {
            let word = |at| self.target.uint(member, at, 4);
            let (Some(name), Some(low)) = (word(0), word(4)) else { continue };
            let value = match word(8) {
                Some(high) => (high << 32 | low).cast_signed(),
                None => crate::target::sign_extend(low, 4).cast_signed(),
            };
            if let Some(name) = usize::try_from(name).ok().and_then(|name| self.name(name)) {
                constants.define_if_new(name, value);
            }
        }
    }

    /// Defines the size of a structure, union or typedef.
    fn size(&self, entry: &Type, types: &[Type], constants: &mut Constants) {
        let prefix = match entry.kind {
            kind::STRUCT => "struct ",
            kind::UNION => "union ",
            kind::TYPEDEF => "",
            _ => return,
        };
        let Some(name) = self.name(entry.name) else { return };
        let mut found = *entry;
        for _ in 0..MAX_CHAIN {
            match found.kind {
                kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => {
                    if let Ok(size) = u32::try_from(found.size_or_type) {
                        constants.define_size(&format!("{prefix}{name}"), size);
                    }
                    return;
                }
                kind::PTR => return constants.define_size(name, u32::from(self.target.long_size)),
                kind::TYPEDEF..=kind::RESTRICT | kind::TYPE_TAG => {}
                _ => return,
            }
            // Types are numbered from 1; 0 is void.
            let place = usize::try_from(found.size_or_type).ok().and_then(|id| id.checked_sub(1));
            match place.and_then(|place| types.get(place)) {
                Some(next) => found = *next,
                None => return,
            }
        }
    }
}

const _: () = assert!(kind::VOLATILE > kind::TYPEDEF && kind::VOLATILE < kind::RESTRICT);

/// What the reader promises on any bytes: it ends. Fuzzers and tests call it.
pub fn check_btf(bytes: &[u8]) {
    let mut constants = Constants::new();
    let _ = define(bytes, &mut constants);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// BTF of these type words, with the strings "\0A\0B\0page\0word\0".
    fn btf(types: &[u32]) -> Vec<u8> {
        let strings = b"\0A\0B\0page\0word\0";
        let types_len = u32::try_from(types.len() * 4).unwrap();
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types_len, types_len, u32::try_from(strings.len()).unwrap()] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend(types.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend_from_slice(strings);
        bytes
    }

    #[test]
    fn enums_structures_and_typedefs() {
        let types = [
            [0, 6 << 24 | 2, 4].as_slice(),
            &[1, 5],
            &[3, u32::MAX],
            // struct page of 64 bytes with one member, and a typedef of it.
            &[5, 4 << 24 | 1, 64, 1, 0, 0],
            &[10, 8 << 24, 2],
        ];
        let mut constants = Constants::new();
        define(&btf(&types.concat()), &mut constants).unwrap();
        assert_eq!((constants.value("A"), constants.value("B")), (Some(5), Some(-1)));
        assert_eq!((constants.size("struct page"), constants.size("word")), (Some(64), Some(64)));
    }

    #[test]
    fn typedefs_in_a_circle_end() {
        let mut constants = Constants::new();
        define(&btf(&[10, 8 << 24, 1]), &mut constants).unwrap();
        assert_eq!(constants.size("word"), None);
    }

    #[test]
    fn what_is_not_btf() {
        let said = |bytes: &[u8]| define(bytes, &mut Constants::new()).unwrap_err().to_string();
        assert_eq!(said(b"ELF"), "btf: byte 0: expected the magic number 0xeb9f");
        assert_eq!(
            said(&btf(&[0, 6 << 24 | 9, 4])),
            "btf: byte 24: expected a type that ends inside its section"
        );
        assert_eq!(said(&btf(&[])[..6]), "btf: byte 4: expected a header of 24 bytes");
    }

    #[test]
    fn the_running_kernels() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            println!("skipped: this kernel does not describe its types");
            return;
        };
        let mut constants = Constants::new();
        define(&bytes, &mut constants).unwrap();
        assert_eq!(constants.value("BPF_PROG_TYPE_KPROBE"), Some(2));
        assert!(constants.size("struct page").is_some_and(|size| size >= 32));
        assert_eq!(constants.size("pid_t"), Some(4));
    }

    proptest! {
        #[test]
        fn any_types(types in proptest::collection::vec(any::<u32>(), 0..64)) {
            check_btf(&btf(&types));
        }
    }
}
