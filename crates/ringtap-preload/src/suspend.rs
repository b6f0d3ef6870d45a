//! What is known of each thread: whether its calls are not traced, and what its events are written with.
//!
//! A child of `vfork` runs in its parent's memory, thread-local variables included, while its parent waits. The kernel
//! does not keep its restartable sequences, so it must write no event: the thread is marked before the child
//! begins, and the parent takes the mark away when it goes on. That can only be done in assembly, since
//! the function returns twice, and on a stack that the child has overwritten in between.
//!
//! The variables are of the initial-exec kind, of which the linker says where they lie relative to the thread: so looking at
//! one calls nobody. Those of Rust's `thread_local!` are not, in a library.

use crate::next::{Next, next};
use ringtap::Writer;
use std::arch::{asm, global_asm};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// A thread's marks.
#[derive(Debug)]
#[repr(C)]
struct Marks {
    /// Children of `vfork` that run in this thread's place, and work of our own.
    suspended: Cell<u32>,
    /// Whether the thread is looking for a function.
    finding: Cell<bool>,
    /// The thread's id; 0 while it and the spot are not known.
    id: Cell<u32>,
    /// See [`Writer::spot_of_thread`].
    spot: Cell<*const ()>,
    /// Where its `errno` is; null while that is not known.
    errno: Cell<*mut i32>,
}

global_asm!(
    ".pushsection .tbss.ringtap_preload_marks, \"awT\", @nobits",
    ".balign 8",
    ".globl ringtap_preload_marks",
    ".hidden ringtap_preload_marks",
    ".type ringtap_preload_marks, @object",
    ".size ringtap_preload_marks, {size}",
    "ringtap_preload_marks:",
    ".zero {size}",
    ".popsection",
    size = const size_of::<Marks>(),
);

const _: () = assert!(align_of::<Marks>() == 8 && std::mem::offset_of!(Marks, suspended) == 0);

#[inline(always)]
fn marks() -> &'static Marks {
    let marks: *const Marks;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the thread's base address, which stands at its beginning, and the variable's offset.
    unsafe {
        asm!(
            "mov {marks}, qword ptr fs:[0]",
            "add {marks}, qword ptr [rip + ringtap_preload_marks@GOTTPOFF]",
            marks = out(reg) marks,
            options(pure, nomem, nostack)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "mrs {marks}, tpidr_el0",
            "adrp {offset}, :gottprel:ringtap_preload_marks",
            "ldr {offset}, [{offset}, #:gottprel_lo12:ringtap_preload_marks]",
            "add {marks}, {marks}, {offset}",
            marks = out(reg) marks,
            offset = out(reg) _,
            options(pure, nomem, nostack)
        );
    }
    // SAFETY: the calling thread's own, zeros at first. It does not leave the thread: `Cell` is not `Sync`.
    unsafe { &*marks }
}

/// Whether the thread writes no events.
#[inline(always)]
pub(crate) fn is_suspended() -> bool {
    marks().suspended.get() != 0
}

/// The calling thread's id, as in its events, and its spot, [`Writer::spot_of_thread`]; `None` while they are not known.
#[inline(always)]
pub(crate) fn known() -> Option<(u32, *const ())> {
    let marks = marks();
    match marks.id.get() {
        0 => None,
        id => Some((id, marks.spot.get())),
    }
}

/// As [`known`], asked for where it is not.
pub(crate) fn thread() -> (u32, *const ()) {
    known().unwrap_or_else(|| learn(marks()))
}

#[cold]
#[inline(never)]
fn learn(marks: &Marks) -> (u32, *const ()) {
    let (id, spot) = (ringtap::thread::id(), Writer::spot_of_thread());
    marks.spot.set(spot);
    // A signal handler that finds the id finds the spot.
    compiler_fence(SeqCst);
    marks.id.set(id);
    (id, spot)
}

/// Where the calling thread's `errno` is: the C library tells by a call, which is made once.
#[inline(always)]
pub(crate) fn errno_place() -> *mut i32 {
    let errno = &marks().errno;
    if errno.get().is_null() {
        // SAFETY: always valid.
        errno.set(unsafe { libc::__errno_location() });
    }
    errno.get()
}

/// Has forked children, which are other threads, learn who they are.
pub(crate) fn learn_anew_in_children() {
    extern "C" fn forget() {
        marks().id.set(0);
    }
    // SAFETY: it only stores to the thread's own memory.
    unsafe { libc::pthread_atfork(None, None, Some(forget)) };
}

/// Does something without tracing what it asks of the C library.
pub(crate) fn untraced(work: impl FnOnce()) {
    let suspended = &marks().suspended;
    suspended.set(suspended.get() + 1);
    work();
    suspended.set(suspended.get() - 1);
}

/// Whether the thread is looking for a function.
pub(crate) fn is_finding() -> bool {
    marks().finding.get()
}

/// Notes whether the thread is looking for a function, and tells whether it was.
pub(crate) fn set_finding(is_finding: bool) -> bool {
    marks().finding.replace(is_finding)
}

next! {
    fn clone(
        run: *mut c_void, stack: *mut c_void, flags: c_int, argument: *mut c_void, parent: *mut c_void,
        tls: *mut c_void, child: *mut c_void,
    ) -> c_int;
}

pub(crate) static FUNCTIONS: &[&Next] = &[&clone::NEXT];

/// As the C library's, with the calling thread marked where the child has its variables: while the child runs, if it waits for
/// that, and else for ever, since nobody says when the child ends. In C the last arguments are there or not, as the flags say;
/// those that are not are not looked at.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C-unwind" fn clone(
    run: *mut c_void,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent: *mut c_void,
    tls: *mut c_void,
    child: *mut c_void,
) -> c_int {
    let shares = flags & (libc::CLONE_VM | libc::CLONE_SETTLS) == libc::CLONE_VM;
    let suspended = &marks().suspended;
    suspended.set(suspended.get() + u32::from(shares));
    // SAFETY: as the caller says.
    let pid = unsafe { clone::call(run, stack, flags, argument, parent, tls, child) };
    if shares && (flags & libc::CLONE_VFORK != 0 || pid < 0) {
        suspended.set(suspended.get() - 1);
    }
    pid
}

/// As the C library's, with the calling thread marked while the child runs.
///
/// # Safety
/// As the C library's.
#[cfg(target_arch = "x86_64")]
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn vfork() -> libc::pid_t {
    std::arch::naked_asm!(
        ".cfi_startproc",
        "mov rcx, qword ptr [rip + ringtap_preload_marks@GOTTPOFF]",
        "inc dword ptr fs:[rcx]",
        // The child returns first, and overwrites the stack above: the way back is kept in rdi, which the kernel preserves.
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_register rip, rdi",
        "mov eax, {VFORK}",
        "syscall",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_offset rip, -8",
        // The child goes, marked.
        "test rax, rax",
        "jz 2f",
        // The parent goes on: the kernel has used rcx.
        "mov rcx, qword ptr [rip + ringtap_preload_marks@GOTTPOFF]",
        "dec dword ptr fs:[rcx]",
        "test rax, rax",
        "js 3f",
        "2:",
        "ret",
        "3:",
        "neg eax",
        "mov edi, eax",
        "jmp {refuse}",
        ".cfi_endproc",
        VFORK = const libc::SYS_vfork,
        refuse = sym refuse,
    );
}

/// As the C library's, with the calling thread marked while the child runs.
///
/// # Safety
/// As the C library's.
#[cfg(target_arch = "aarch64")]
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn vfork() -> libc::pid_t {
    std::arch::naked_asm!(
        "mrs x2, tpidr_el0",
        "adrp x3, :gottprel:ringtap_preload_marks",
        "ldr x3, [x3, #:gottprel_lo12:ringtap_preload_marks]",
        "add x2, x2, x3",
        "ldr w3, [x2]",
        "add w3, w3, #1",
        "str w3, [x2]",
        // The way back is in x30, which child and parent have each.
        "mov x0, #{FLAGS}",
        "mov x1, #0",
        "mov x8, #{CLONE}",
        "svc #0",
        "cbz x0, 2f",
        "ldr w3, [x2]",
        "sub w3, w3, #1",
        "str w3, [x2]",
        "tbnz x0, #63, 3f",
        "2:",
        "ret",
        "3:",
        "neg w0, w0",
        "b {refuse}",
        FLAGS = const libc::CLONE_VFORK | libc::CLONE_VM | libc::SIGCHLD,
        CLONE = const libc::SYS_clone,
        refuse = sym refuse,
    );
}

/// The end of a `vfork` that the kernel refused.
extern "C" fn refuse(errno: i32) -> libc::pid_t {
    crate::value::set_errno(errno);
    -1
}
