//! Sizes of C types by name, as far as a format file's reader has to know them.

use crate::target::Target;

/// An integer type: its bytes, and whether it has a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IntType {
    pub(crate) size: u8,
    pub(crate) signed: bool,
}

impl IntType {
    pub(crate) const INT: Self = Self { size: 4, signed: true };
    pub(crate) const UINT: Self = Self { size: 4, signed: false };
    pub(crate) const S64: Self = Self { size: 8, signed: true };
    pub(crate) const U64: Self = Self { size: 8, signed: false };
    pub(crate) const U8: Self = Self { size: 1, signed: false };

    pub(crate) const fn ulong(target: Target) -> Self {
        Self { size: target.long_size, signed: false }
    }
}

/// The integer that a type name stands for; `None` where the name is not one of C's or the kernel's common ones.
///
/// Qualifiers (`const`, `volatile`, `__user`) may stand in it; pointers may not.
pub(crate) fn int_type(name: &str, target: Target) -> Option<IntType> {
    let mut spelled = Spelled::default();
    let mut other = None;
    for word in name.split_ascii_whitespace() {
        match word {
            "const" | "volatile" | "restrict" | "__user" | "__rcu" | "__iomem" | "__percpu" | "__force"
            | "__bitwise" | "__private" | "__seg_gs" | "__seg_fs" => {}
            "unsigned" => spelled.sign = Some(false),
            "signed" => spelled.sign = Some(true),
            "long" => spelled.longs = spelled.longs.saturating_add(1),
            "short" => spelled.short = true,
            "char" => spelled.char = true,
            "int" => spelled.int = true,
            "enum" => return Some(IntType::UINT),
            word => other = Some(word),
        }
    }
    match other {
        Some(word) if !spelled.is_any() => typedef(word, target),
        Some(_) => None,
        None => spelled.int_type(target),
    }
}

/// The words of C's own integer types that a name holds.
#[derive(Default)]
struct Spelled {
    sign: Option<bool>,
    longs: u8,
    short: bool,
    char: bool,
    int: bool,
}

impl Spelled {
    const fn is_any(&self) -> bool {
        self.sign.is_some() || self.longs > 0 || self.short || self.char || self.int
    }

    fn int_type(&self, target: Target) -> Option<IntType> {
        let size = match self {
            Self { char: true, .. } => 1,
            Self { short: true, .. } => 2,
            Self { longs: 1, .. } => target.long_size,
            Self { longs: 2.., .. } => 8,
            _ if self.is_any() => 4,
            _ => return None,
        };
        Some(IntType { size, signed: self.sign.unwrap_or(true) })
    }
}

/// The kernel's typedefs whose size is the same in every kernel.
fn typedef(name: &str, target: Target) -> Option<IntType> {
    let of = |size, signed| Some(IntType { size, signed });
    let long = target.long_size;
    match name {
        "bool" | "_Bool" | "u8" | "__u8" | "uint8_t" | "u_char" | "unchar" => of(1, false),
        "s8" | "__s8" | "int8_t" => of(1, true),
        "u16" | "__u16" | "uint16_t" | "ushort" | "__be16" | "__le16" | "umode_t" | "sa_family_t" => {
            of(2, false)
        }
        "s16" | "__s16" | "int16_t" => of(2, true),
        "u32" | "__u32" | "uint32_t" | "uint" | "u_int" | "__be32" | "__le32" | "gfp_t" | "dev_t"
        | "uid_t" | "gid_t" | "fmode_t" | "blk_opf_t" | "__poll_t" | "slab_flags_t" | "qid_t" | "tid_t"
        | "vm_fault_t" | "xfs_agnumber_t" | "xfs_agblock_t" | "xfs_agino_t" | "xfs_extlen_t"
        | "xfs_dahash_t" => of(4, false),
        "s32" | "__s32" | "int32_t" | "pid_t" | "key_t" | "errseq_t" | "rwf_t" | "__kernel_rwf_t" => {
            of(4, true)
        }
        "u64" | "__u64" | "uint64_t" | "__be64" | "__le64" | "sector_t" | "blkcnt_t" | "dma_addr_t"
        | "phys_addr_t" | "resource_size_t" | "xfs_ino_t" | "xfs_fsblock_t" | "xfs_filblks_t"
        | "xfs_fileoff_t" | "gpa_t" | "gfn_t" | "netdev_features_t" => of(8, false),
        "s64" | "__s64" | "int64_t" | "loff_t" | "ktime_t" | "time64_t" | "xfs_daddr_t" | "xfs_lsn_t"
        | "xfs_fsize_t" => of(8, true),
        "size_t" | "uintptr_t" | "ulong" | "u_long" | "ino_t" | "pgoff_t" | "vm_flags_t"
        | "aio_context_t" | "__kernel_size_t" | "__kernel_ulong_t" => of(long, false),
        "ssize_t" | "ptrdiff_t" | "intptr_t" | "off_t" | "time_t" | "clock_t" | "__kernel_long_t" => {
            of(long, true)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        let cases = [
            ("int", 4, true),
            ("unsigned", 4, false),
            ("unsigned long long int", 8, false),
            ("long", 8, true),
            ("const char", 1, true),
            ("short unsigned int", 2, false),
            ("enum zone_type", 4, false),
            ("gfp_t", 4, false),
            ("bool", 1, false),
        ];
        for (name, size, signed) in cases {
            assert_eq!(int_type(name, Target::LE64), Some(IntType { size, signed }), "{name}");
        }
        let long = int_type("unsigned long", Target { long_size: 4, ..Target::LE64 });
        assert_eq!(long, Some(IntType { size: 4, signed: false }));
        for unknown in ["", "struct page", "xyz_t", "const"] {
            assert_eq!(int_type(unknown, Target::LE64), None, "{unknown}");
        }
    }
}
