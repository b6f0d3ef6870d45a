//! Where a thread wrote last: everything that its next event needs, behind one address.
//!
//! The hot path reads the spot inside its section, so that no signal handler comes between two of its words, and
//! compares what it says with the ring: a spot is a guess, and a wrong one costs a look. What it says is
//! used as memory only after the section compared its writer's number with that of the writer in hand,
//! which keeps the memory mapped.
//!
//! A signal handler may write events of its own while [`remember`] runs. It then finds the spot in work and leaves
//! it alone.

use crate::ring::Ring;
use crate::rseq::Area;
use ringtap_abi::meta::{Desc, MetaPage};
use ringtap_abi::subbuf::HEADER_LEN;
use ringtap_abi::words::Place;
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// One thread's spot. The hot path's assembly knows its fields by their offsets.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Spot {
    /// The thread's rseq area; one that is on no CPU until the thread has its own.
    pub(crate) area: *const Area,
    /// Number of the writer that the rest is about; 0 while it is about none.
    pub(crate) writer: u64,
    /// The writers' tail.
    pub(crate) tail: u64,
    pub(crate) meta: *const MetaPage,
    /// The tail page's desc.
    pub(crate) desc: *const Desc,
    /// The tail page's first data byte.
    pub(crate) data: *mut u8,
    /// Data bytes that a sub-buffer takes.
    pub(crate) capacity: u64,
    /// The CPU whose ring it is.
    pub(crate) cpu: u32,
    /// Whether [`remember`] is at work.
    in_work: bool,
}

/// Arming a section that will not run stores here. Nobody reads it.
static NO_AREA: SharedArea = SharedArea(Area::unregistered());

struct SharedArea(Area);

// SAFETY: sections of threads without a spot store the address of their descriptor to it, in one instruction
// each, and compare its CPU number, which nobody changes.
unsafe impl Sync for SharedArea {}

thread_local! {
    /// No destructor, so that signal handlers may use it.
    static SPOT: UnsafeCell<Spot> = const {
        UnsafeCell::new(Spot {
            area: &raw const NO_AREA.0,
            writer: 0,
            tail: 0,
            meta: ptr::null(),
            desc: ptr::null(),
            data: ptr::null_mut(),
            capacity: 0,
            cpu: 0,
            in_work: false,
        })
    };
}

/// The calling thread's spot.
#[inline(always)]
pub(crate) fn of_thread() -> *mut Spot {
    SPOT.with(UnsafeCell::get)
}

/// Notes where the calling thread writes.
pub(crate) fn remember(area: &Area, writer: u64, ring: &Ring<'_>, cpu: u32, tail: Place) {
    if !ring.geometry().contains(tail.page()) {
        return;
    }
    let spot = of_thread();
    // SAFETY: the thread's own, and valid. A signal handler's use of it ends before this code goes on.
    if unsafe { (*spot).in_work } {
        return;
    }
    // SAFETY: as above, here and below.
    unsafe { (*spot).in_work = true };
    // SAFETY: as above.
    unsafe { (*spot).writer = 0 };
    // A signal handler from here on sees a spot that is about no writer, and in work.
    compiler_fence(SeqCst);
    let now = Spot {
        area,
        writer: 0,
        tail: tail.pack(),
        meta: ring.meta(),
        desc: ring.desc(tail.page()),
        data: ring.data().at(tail.page(), HEADER_LEN),
        capacity: ring.geometry().capacity().into(),
        cpu,
        in_work: true,
    };
    // SAFETY: as above.
    unsafe { spot.write(now) };
    compiler_fence(SeqCst);
    // SAFETY: as above.
    unsafe { (*spot).writer = writer };
    // SAFETY: as above.
    unsafe { (*spot).in_work = false };
}
