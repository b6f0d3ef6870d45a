//! Allocations.
//!
//! An event of an allocation stands behind its call, and that of a `free` before: so memory that one thread frees and
//! another is given at once is freed before it is allocated again in the trace, too. The price is that a `free` does not
//! know how long it took.

use crate::arena;
use crate::next::{Next, next};
use crate::session::Session;
use crate::suspend::{errno_place, thread};
use crate::value::{Errno, short_ns};
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
            #[allow(dead_code, reason = "describes what `write_since` writes")]
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
                let began = session.now();
                // SAFETY: as the caller says.
                let ptr = unsafe { $function::call($($arg),*) };
                // As the event has them: words, in the order of its fields. The last four bytes are to come.
                let words = [0, $(Word::word($arg),)* ptr.word(), 0];
                write_since::<WORDS, { 8 * WORDS - 4 }>(session, $event::declared(), words, began);
                ptr
            }
            /// The payload's, its common fields' and the time's included.
            const WORDS: usize = 3 + <[&str]>::len(&[$(stringify!($arg)),*]);
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
    Realloc as realloc: fn realloc(old: *mut c_void, size: usize);
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

/// Writes an event of an allocation, which ends with how long it took: told by the look at the clock that stamps it.
#[inline(always)]
fn write_since<const WORDS: usize, const LEN: usize>(
    session: &Session,
    event: &'static Declared,
    mut words: [u64; WORDS],
    began: u64,
) {
    if let Some(route) = event.route() {
        let (id, spot) = thread();
        words[0] = common(route, id);
        let bytes = words.map(u64::to_le_bytes);
        let Some(payload) = bytes.as_flattened().first_chunk::<LEN>() else { return };
        // SAFETY: 1. It was just asked for.
        if !unsafe { session.writer().try_since_to_by(route, payload, session.since(began), spot) } {
            write_since_slowly(session, route, *payload, began);
        }
    }
}

/// Where the hot path is none. What the buffers refuse is counted there.
#[cold]
#[inline(never)]
fn write_since_slowly<const LEN: usize>(session: &Session, route: Route, mut payload: [u8; LEN], began: u64) {
    keeping_errno(|| {
        let _ = session.writer().write_since_to(route, &mut payload, session.since(began));
    });
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
    #[allow(dead_code, reason = "describes what `write_free` writes")]
    struct Free as libc_alloc:free { ptr: *mut c_void }
}
next! { fn free(memory: *mut c_void) -> (); }

#[inline(always)]
fn write_free(session: &Session, route: Route, memory: *mut c_void) {
    let (id, spot) = thread();
    let words = u128::from(memory.word()) << 64 | u128::from(common(route, id));
    // SAFETY: 1. It was just asked for.
    if !unsafe { session.writer().try_array_to_by(route, &words.to_le_bytes(), spot) } {
        write_free_slowly(session, route, words);
    }
}

/// Where the hot path is none. What the buffers refuse is counted there.
#[cold]
#[inline(never)]
fn write_free_slowly(session: &Session, route: Route, words: u128) {
    keeping_errno(|| {
        let _ = session.writer().write_array_to(route, &words.to_le_bytes());
    });
}

#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C-unwind" fn free(memory: *mut c_void) {
    #[cold]
    #[inline(never)]
    unsafe fn traced(memory: *mut c_void, route: Route) {
        if let Some(session) = Session::get() {
            write_free(session, route, memory);
        }
        // SAFETY: as the caller says.
        unsafe { free::call(memory) }
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
