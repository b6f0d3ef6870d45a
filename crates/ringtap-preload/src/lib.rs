//! Traces the C library's calls of a program that nobody changed: allocations, input and output, locks, waits.
//!
//! The dynamic linker loads this library before all others (`LD_PRELOAD`), and so gives programs its functions where
//! they ask for the C library's. Each of them looks whether its event is on, and goes on to the next function of its
//! name: the C library's, or that of another library which replaces it, such as jemalloc's `malloc`.
//!
//! ```text
//!   program ──> malloc here ── off ──────────────────────────────> malloc of the C library
//!                   └── on ──> clock, malloc of the C library, clock, event into the host's buffers
//! ```
//!
//! The host is the one that `RINGTAP_SOCKET` names. Without it, or where it cannot be reached, all events stay off.
//! `RINGTAP_PRELOAD_EVENTS` may hold patterns, separated by commas: then other events stay off, too.
//!
//! # What must not be done here
//!
//! The functions run in every state that a program can be in: in signal handlers, with any lock held, before `main`
//! and after `exit`, in forked children. So behind the constructor nothing here allocates, locks, or calls a function
//! that is traced. There is no thread of our own and no descriptor is kept, because programs count and close theirs.
//! A call that is cancelled or left by `longjmp` abandons its frame here, so no frame around a call of the C library's
//! has anything to drop.

#![cfg_attr(test, allow(dead_code, reason = "a test program keeps its own malloc"))]

mod alloc;
mod arena;
mod call;
mod futex;
mod io;
mod lock;
mod map;
mod next;
mod session;
mod suspend;
mod value;
mod wait;

use next::Next;
use ringtap::event::Declared;

/// All events, in the order in which they are declared.
fn events() -> impl Iterator<Item = &'static Declared> {
    let parts =
        [alloc::EVENTS, map::EVENTS, io::EVENTS, lock::EVENTS, lock::ANNOUNCED, wait::EVENTS, futex::EVENTS];
    parts.into_iter().flatten().map(|declared| declared())
}

/// All functions that stand in for others.
fn functions() -> impl Iterator<Item = &'static Next> {
    let parts = [
        alloc::FUNCTIONS,
        map::FUNCTIONS,
        io::FUNCTIONS,
        lock::FUNCTIONS,
        lock::ANNOUNCING,
        wait::FUNCTIONS,
        futex::FUNCTIONS,
        suspend::FUNCTIONS,
    ];
    parts.into_iter().flatten().copied()
}

/// Runs before the program's `main`, and perhaps behind other libraries' constructors.
extern "C" fn begin() {
    let errno = value::errno();
    functions().for_each(Next::find);
    suspend::untraced(session::begin);
    value::set_errno(errno);
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;
