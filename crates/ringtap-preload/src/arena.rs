//! Memory for whoever allocates while the allocation functions are being found: the dynamic linker of older C libraries.
//!
//! It is never reused. Who frees or grows what lies here has to be told apart from there on, which a program where
//! nobody came here does not pay for: only then `free` and `realloc` go by way of [`free`] and [`realloc`].

use crate::value;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};

/// As much as `malloc` aligns to.
const ALIGN: usize = 16;
/// Many times what dynamic linkers were seen to ask for.
const LEN: usize = 16 << 10;

#[repr(align(16))]
struct Memory(UnsafeCell<[u8; LEN]>);

// SAFETY: each byte is given to one caller.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; LEN]));
static USED: AtomicUsize = AtomicUsize::new(0);
static IS_USED: AtomicBool = AtomicBool::new(false);
/// The functions that are asked about memory that is not ours.
static FREE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static REALLOC: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

type Free = unsafe extern "C-unwind" fn(*mut c_void);
type Realloc = unsafe extern "C-unwind" fn(*mut c_void, usize) -> *mut c_void;

/// Zeroed memory that is never used again; null where there is none left.
pub(crate) fn allocate(size: usize) -> *mut c_void {
    // Before each piece stands its length.
    let taken = size.checked_next_multiple_of(ALIGN).and_then(|size| size.checked_add(ALIGN));
    let fits = |used: usize| taken.and_then(|taken| used.checked_add(taken)).filter(|&end| end <= LEN);
    let Ok(start) = USED.fetch_update(Relaxed, Relaxed, fits) else {
        value::set_errno(libc::ENOMEM);
        return ptr::null_mut();
    };
    if !IS_USED.swap(true, SeqCst) {
        // What was found before is asked by way of us from now on.
        crate::alloc::free::NEXT.replace(guarded(c"free", crate::alloc::free::NEXT.address()));
        crate::alloc::realloc::NEXT.replace(guarded(c"realloc", crate::alloc::realloc::NEXT.address()));
    }
    let memory = MEMORY.0.get().cast::<u8>().wrapping_add(start);
    // SAFETY: inside, aligned, and this caller's alone.
    unsafe { memory.cast::<usize>().write(size) };
    memory.wrapping_add(ALIGN).cast()
}

/// Takes what is freed meanwhile: it is never used again, whoever gave it.
pub(crate) fn abandon(_: *mut c_void) {}

/// As [`allocate`], with the beginning of a piece of ours in it. What somebody else gave cannot be made larger here.
pub(crate) fn reallocate(old: *mut c_void, size: usize) -> *mut c_void {
    if !old.is_null() && !is_here(old) {
        value::set_errno(libc::ENOMEM);
        return ptr::null_mut();
    }
    let new = allocate(size);
    if !old.is_null() && !new.is_null() {
        // SAFETY: a piece of ours, and one that was just given out.
        unsafe { copy(old, new, size) };
    }
    new
}

/// Copies a piece of ours, as much of it as fits.
///
/// # Safety
/// 1. `old` is a piece of ours, and `new` another place of `size` bytes.
unsafe fn copy(old: *mut c_void, new: *mut c_void, size: usize) {
    // SAFETY: by 1, its length stands before it.
    let len = unsafe { old.cast::<u8>().wrapping_sub(ALIGN).cast::<usize>().read() };
    // SAFETY: by 1, both are that long, and apart.
    unsafe { ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast(), len.min(size)) };
}

fn is_here(memory: *mut c_void) -> bool {
    memory.addr().wrapping_sub(MEMORY.0.get().addr()) < LEN
}

/// What to store as the address of a function that was found: it, or what asks first whether memory is from here.
pub(crate) fn guarded(name: &CStr, found: *mut c_void) -> *mut c_void {
    let (keep, guard) = match name.to_bytes() {
        b"free" => (&FREE, free as Free as *mut c_void),
        b"realloc" => (&REALLOC, realloc as Realloc as *mut c_void),
        _ => return found,
    };
    if found != guard {
        keep.store(found, SeqCst);
    }
    if IS_USED.load(SeqCst) { guard } else { found }
}

unsafe extern "C-unwind" fn free(memory: *mut c_void) {
    if !is_here(memory) {
        // SAFETY: stored with the guard; the function of this name, or the stub that finds it.
        let free = unsafe { std::mem::transmute::<*mut c_void, Free>(FREE.load(SeqCst)) };
        // SAFETY: as the caller says.
        unsafe { free(memory) };
    }
}

unsafe extern "C-unwind" fn realloc(memory: *mut c_void, size: usize) -> *mut c_void {
    if !is_here(memory) {
        // SAFETY: as in `free`.
        let realloc = unsafe { std::mem::transmute::<*mut c_void, Realloc>(REALLOC.load(SeqCst)) };
        // SAFETY: as the caller says.
        return unsafe { realloc(memory, size) };
    }
    // SAFETY: asks the allocator.
    let new = unsafe { crate::alloc::malloc::call(size) };
    if !new.is_null() {
        // SAFETY: a piece of ours, and what was just allocated.
        unsafe { copy(memory, new, size) };
    }
    new
}
