//! Allocations.
//!
//! An event of an allocation stands behind its call, and that of a `free` before: so memory that one thread frees and
//! another is given at once is freed before it is allocated again in the trace, too. The price is that a `free` does not
//! know how long it took.

use crate::arena;
use crate::next::{Next, next};
use crate::session::Session;
use crate::suspend::{errno_place, known, thread};
use crate::value::{Errno, short_ns};
use ringtap::Plain;
use ringtap::clock::{self, ClockId};
use ringtap::event::{Common, Declared, Route};
use std::ffi::{c_int, c_void};
use std::ptr;

pub(crate) static EVENTS: &[fn() -> &'static Declared] = &[
    Malloc::declared,
    Calloc::declared,
    Realloc::declared,
    ReallocArray::declared,
    Free::declared,
    PosixMemalign::declared,
    AlignedAlloc::declared,
    Memalign::declared,
    Valloc::declared,
    Pvalloc::declared,
];

pub(crate) static FUNCTIONS: &[&Next] = &[
    &malloc::NEXT,
    &calloc::NEXT,
    &realloc::NEXT,
    &free::NEXT,
    &reallocarray::NEXT,
    &posix_memalign::NEXT,
    &aligned_alloc::NEXT,
    &memalign::NEXT,
    &valloc::NEXT,
    &pvalloc::NEXT,
];

/// Declares the events of functions that give memory, and the functions.
macro_rules! allocations {
    ($(
        $(#[$doc:meta])*
        $event:ident as $name:ident: fn $function:ident($($arg:ident: $type:ty),*) $(=> $early:expr)?;
    )*) => { $(
        ringtap::event! {
            $(#[$doc])*
            #[allow(dead_code, reason = "describes what the function writes")]
            struct $event as libc_alloc:$name { $($arg: $type,)* ptr: *mut c_void, took_ns: u32 }
        }
        next! { fn $function($($arg: $type),*) -> *mut c_void $(=> $early)?; }

        #[cfg_attr(not(test), unsafe(no_mangle))]
        unsafe extern "C-unwind" fn $function($($arg: $type),*) -> *mut c_void {
            #[cold]
            #[inline(never)]
            unsafe fn traced($($arg: $type),*) -> *mut c_void {
                let Some(session) = Session::get() else {
                    // SAFETY: as the caller says.
                    return unsafe { $function::call($($arg),*) };
                };
                if !session.is_by_cycles() {
                    // SAFETY: as the caller says.
                    return unsafe { traced_by_other_clocks(session, $($arg),*) };
                }
                let began = clock::read(ClockId::Cycles);
                // SAFETY: as the caller says.
                let ptr = unsafe { $function::call($($arg),*) };
                let plain = match (known(), $event::declared().route()) {
                    (Some((id, spot)), Some(route)) => {
                        let payload = payload(route, id, $($arg,)* ptr);
                        // SAFETY: 1. It is this thread's.
                        unsafe { session.writer().try_since_to_by(route, &payload, began, spot) }
                    }
                    _ => Plain::Not,
                };
                if plain == Plain::Committed { ptr } else { finish($($arg,)* ptr, began, plain) }
            }
            #[cold]
            #[inline(never)]
            unsafe fn traced_by_other_clocks(session: &Session, $($arg: $type),*) -> *mut c_void {
                let began = session.now();
                // SAFETY: as the caller says.
                let ptr = unsafe { $function::call($($arg),*) };
                finish($($arg,)* ptr, began, Plain::Not)
            }
            /// What the hot path leaves to do. It finds all out anew, so that the hot path keeps nothing for it. What the
            /// buffers refuse is counted there.
            #[cold]
            #[inline(never)]
            fn finish($($arg: $type,)* ptr: *mut c_void, began: u64, plain: Plain) -> *mut c_void {
                keeping_errno(|| {
                    if let Some(session) = Session::get()
                        && !session.writer().is_written(plain)
                        && let Some(route) = $event::declared().route()
                    {
                        let mut payload = payload(route, thread().0, $($arg,)* ptr);
                        let _ = session.writer().write_since_to(route, &mut payload, session.since(began));
                    }
                });
                ptr
            }
            /// The payload's, its common fields' and the time's included.
            const WORDS: usize = 3 + <[&str]>::len(&[$(stringify!($arg)),*]);
            const LEN: usize = 8 * WORDS - 4;
            /// As the event has it: words, in the order of its fields. The last four bytes are to come.
            #[inline(always)]
            fn payload(route: Route, pid: u32, $($arg: $type,)* ptr: *mut c_void) -> [u8; LEN] {
                let words = [common(route, pid), $($arg.word(),)* ptr.word(), 0];
                let mut payload = [0; LEN];
                payload.copy_from_slice(&words.map(u64::to_le_bytes).as_flattened()[..LEN]);
                payload
            }
            if $event::is_on() {
                // SAFETY: as the caller says.
                unsafe { traced($($arg),*) }
            } else {
                // SAFETY: as above.
                unsafe { $function::call($($arg),*) }
            }
        }
    )* };
}

allocations! {
    /// Memory was allocated.
    Malloc as malloc: fn malloc(size: usize) => arena::allocate(size);
    /// Memory was allocated for `count` elements of a size, and zeroed.
    Calloc as calloc: fn calloc(count: usize, size: usize)
        => arena::allocate(count.saturating_mul(size));
    /// Memory was made larger or smaller; it may have moved.
    Realloc as realloc: fn realloc(old: *mut c_void, size: usize) => arena::reallocate(old, size);
    /// As `realloc`, for `count` elements.
    ReallocArray as reallocarray: fn reallocarray(old: *mut c_void, count: usize, size: usize);
    /// Memory was allocated that is aligned.
    AlignedAlloc as aligned_alloc: fn aligned_alloc(alignment: usize, size: usize);
    /// Memory was allocated that is aligned.
    Memalign as memalign: fn memalign(alignment: usize, size: usize);
    /// Memory was allocated that is aligned to a page.
    Valloc as valloc: fn valloc(size: usize);
    /// As `valloc`, in whole pages.
    Pvalloc as pvalloc: fn pvalloc(size: usize);
}

/// An argument or result that fills a word.
trait Word {
    fn word(self) -> u64;
}

impl Word for usize {
    #[inline(always)]
    fn word(self) -> u64 {
        self as u64
    }
}

impl Word for *mut c_void {
    #[inline(always)]
    fn word(self) -> u64 {
        self.addr() as u64
    }
}

/// The first word of a payload.
#[inline(always)]
fn common(route: Route, pid: u32) -> u64 {
    Common { id: route.id(), flags: 0, preempt_count: 0, pid }.word()
}

/// Does what may change `errno`, and puts it back. The hot path calls nobody, and so never does.
#[inline(always)]
fn keeping_errno(work: impl FnOnce()) {
    let place = errno_place();
    // SAFETY: the calling thread's own.
    let before = unsafe { *place };
    work();
    // SAFETY: as above.
    unsafe { *place = before };
}

ringtap::event! {
    /// Memory is about to be freed.
    #[allow(dead_code, reason = "describes what `free` writes")]
    struct Free as libc_alloc:free { ptr: *mut c_void }
}
// The dynamic linker frees the text of its last error when it is next asked for a function, be it this one.
next! { fn free(memory: *mut c_void) -> () => arena::abandon(memory); }

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C-unwind" fn free(memory: *mut c_void) {
    #[cold]
    #[inline(never)]
    unsafe fn traced(memory: *mut c_void, route: Route) {
        let plain = match (Session::get(), known()) {
            (Some(session), Some((id, spot))) => {
                let payload = payload(route, id, memory);
                // SAFETY: 1. It is this thread's.
                unsafe { session.writer().try_array_to_by(route, &payload, spot) }
            }
            _ => Plain::Not,
        };
        if plain == Plain::Committed {
            // SAFETY: as the caller says.
            unsafe { free::call(memory) }
        } else {
            // SAFETY: as above.
            unsafe { finish(memory, plain) }
        }
    }
    /// As an allocation's.
    #[cold]
    #[inline(never)]
    unsafe fn finish(memory: *mut c_void, plain: Plain) {
        keeping_errno(|| {
            if let Some(session) = Session::get()
                && !session.writer().is_written(plain)
                && let Some(route) = Free::declared().route()
            {
                let payload = payload(route, thread().0, memory);
                let _ = session.writer().write_array_to(route, &payload);
            }
        });
        // SAFETY: as the caller says.
        unsafe { free::call(memory) }
    }
    #[inline(always)]
    fn payload(route: Route, pid: u32, memory: *mut c_void) -> [u8; 16] {
        (u128::from(memory.word()) << 64 | u128::from(common(route, pid))).to_le_bytes()
    }
    if let Some(route) = Free::declared().route() {
        // SAFETY: as the caller says.
        unsafe { traced(memory, route) }
    } else {
        // SAFETY: as above.
        unsafe { free::call(memory) }
    }
}

ringtap::event! {
    /// Memory was allocated that is aligned.
    struct PosixMemalign as libc_alloc:posix_memalign {
        alignment: usize, size: usize, ptr: *mut c_void, ret: Errno, took_ns: u32
    }
}
next! { fn posix_memalign(place: *mut *mut c_void, alignment: usize, size: usize) -> c_int; }

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C-unwind" fn posix_memalign(place: *mut *mut c_void, alignment: usize, size: usize) -> c_int {
    #[cold]
    #[inline(never)]
    unsafe fn traced(place: *mut *mut c_void, alignment: usize, size: usize) -> c_int {
        let Some(session) = Session::get() else {
            // SAFETY: as the caller says.
            return unsafe { posix_memalign::call(place, alignment, size) };
        };
        let began = session.now();
        // SAFETY: as the caller says.
        let ret = unsafe { posix_memalign::call(place, alignment, size) };
        let took_ns = short_ns(session.ns_since(began));
        let ptr = match ret {
            // SAFETY: the call has just written there.
            0 => unsafe { *place },
            _ => ptr::null_mut(),
        };
        let event = PosixMemalign { alignment, size, ptr, ret: Errno(ret), took_ns };
        keeping_errno(|| event.write(session.writer()));
        ret
    }
    if PosixMemalign::is_on() {
        // SAFETY: as the caller says.
        unsafe { traced(place, alignment, size) }
    } else {
        // SAFETY: as above.
        unsafe { posix_memalign::call(place, alignment, size) }
    }
}
