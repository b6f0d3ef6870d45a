//! What each event of a thread needs of it, at one instruction's distance.
//!
//! Thread-local memory of a shared library is a function call away, twice for each event, and may have to be allocated
//! by its first use in a thread, which a signal handler must not do. So it is asked for once, and kept in memory whose place
//! is known when the library is loaded: the model that linkers call initial-exec. Rust offers it for no `thread_local!`
//! so far, hence the assembly. Loaded late, by `dlopen`, the library takes its place in what the C library keeps for this.

use ringtap::Writer;
use std::cell::Cell;
#[cfg(not(target_arch = "x86_64"))]
use std::ptr;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// Zeros, until the thread's first event.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Thread {
    spot: Cell<*const ()>,
    /// As `common_pid`; 0 while the rest is not known either.
    id: Cell<u32>,
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .tbss.ringtap_capi_thread, \"awT\", @nobits",
    ".balign 16",
    ".globl ringtap_capi_thread",
    ".hidden ringtap_capi_thread",
    ".type ringtap_capi_thread, @tls_object",
    ".size ringtap_capi_thread, {size}",
    "ringtap_capi_thread: .zero {size}",
    ".popsection",
    size = const size_of::<Thread>(),
);

/// The calling thread's id, and its spot: one load behind what the loader wrote into the library's table, not two, since
/// each would show.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn known() -> (u32, *const ()) {
    let (id, spot): (u32, *const ());
    // SAFETY: loads of the thread's own memory, which begins at the offset in the table behind the thread's address.
    unsafe {
        std::arch::asm!(
            "mov {offset}, qword ptr [rip + ringtap_capi_thread@GOTTPOFF]",
            "mov {id:e}, dword ptr fs:[{offset} + {ID}]",
            "mov {spot}, qword ptr fs:[{offset} + {SPOT}]",
            offset = out(reg) _,
            id = out(reg) id,
            spot = out(reg) spot,
            ID = const std::mem::offset_of!(Thread, id),
            SPOT = const std::mem::offset_of!(Thread, spot),
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    (id, spot)
}

/// As above.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn known() -> (u32, *const ()) {
    // SAFETY: the thread's own memory, which no other has.
    let thread = unsafe { &*here() };
    (thread.id.get(), thread.spot.get())
}

/// The calling thread's.
#[cfg(target_arch = "x86_64")]
fn here() -> *const Thread {
    let here: *const Thread;
    // SAFETY: adds the memory's offset, which the loader wrote into the library's table, to the thread's address, which the
    // first word of a thread's own memory is.
    unsafe {
        std::arch::asm!(
            "mov {here}, qword ptr fs:[0]",
            "add {here}, qword ptr [rip + ringtap_capi_thread@GOTTPOFF]",
            here = out(reg) here,
            options(pure, nomem, nostack),
        );
    }
    here
}

/// The calling thread's.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn here() -> *const Thread {
    thread_local! {
        /// No destructor: signal handlers use it.
        static THREAD: Thread = const { Thread { spot: Cell::new(ptr::null()), id: Cell::new(0) } };
    }
    THREAD.with(ptr::from_ref)
}

/// The calling thread's id, and its spot: [`Writer::spot_of_thread`].
#[inline(always)]
pub(crate) fn get() -> (u32, *const ()) {
    match known() {
        (0, _) => learn(),
        known => known,
    }
}

#[cold]
#[inline(never)]
fn learn() -> (u32, *const ()) {
    // SAFETY: the thread's own memory, which no other has.
    let thread = unsafe { &*here() };
    let (id, spot) = (ringtap::thread::id(), Writer::spot_of_thread());
    thread.spot.set(spot);
    // A signal handler that finds the id finds the spot.
    compiler_fence(SeqCst);
    thread.id.set(id);
    (id, spot)
}

/// In a forked child: it is another thread.
pub(crate) fn forget() {
    // SAFETY: as in `learn`.
    unsafe { &*here() }.id.set(0);
}
