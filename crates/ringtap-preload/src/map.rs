//! Memory from the kernel. What the C library maps for itself, for large allocations among others, does not come by
//! here.

use crate::call::traced;
use crate::value::Mapped;
use std::ffi::{c_int, c_void};

ringtap::symbols! {
    /// What may be done with mapped memory.
    flags Protection: u32 { READ = 1, WRITE = 2, EXEC = 4 }
}
ringtap::symbols! {
    /// How memory is mapped.
    flags Mapping: u32 {
        SHARED = 1, PRIVATE = 2, FIXED = 0x10, ANONYMOUS = 0x20, POPULATE = 0x8000, STACK = 0x20000, HUGETLB = 0x40000
    }
}

traced! {
    result, errno;

    /// Memory was mapped.
    Mmap as libc_alloc:mmap {
        addr: *mut c_void = addr,
        length: usize = length,
        prot: Protection = Protection(prot.cast_unsigned()),
        flags: Mapping = Mapping(flags.cast_unsigned()),
        fd: i32 = fd,
        offset: i64 = offset,
    } -> errno Mapped {
        mmap(addr: *mut c_void, length: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64);
        mmap64(addr: *mut c_void, length: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64);
    }

    /// A mapping was made larger, smaller, or moved.
    Mremap as libc_alloc:mremap {
        addr: *mut c_void = addr, old_length: usize = old_length, length: usize = length, flags: i32 = flags,
    } -> errno Mapped {
        // The last argument is there or not, as `flags` say; one that is not is not looked at.
        mremap(addr: *mut c_void, old_length: usize, length: usize, flags: c_int, to: *mut c_void);
    }

    /// Memory was unmapped.
    Munmap as libc_alloc:munmap { addr: *mut c_void = addr, length: usize = length } -> errno c_int {
        munmap(addr: *mut c_void, length: usize);
    }
}
