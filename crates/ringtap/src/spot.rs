//! Where a thread wrote last: everything that its next event needs, behind one address.
//!
//! The hot path reads the spot inside its section, so that no signal handler comes between two of its words. A spot
//! is a guess: it names a writer, a CPU and a sub-buffer, and whether that is the page to write is asked of
//! the page itself, which is open or not ([`Commit`]). What the spot says is used as memory only after the section
//! compared its key with the number of the writer in hand, which keeps the memory mapped.
//!
//! A signal handler may write events of its own while [`remember`] runs. It then finds the spot in work and leaves
//! it alone. One that never returns (`siglongjmp`) leaves the spot in work: that thread's events go the slow way from then
//! on, since nobody can tell such a handler from one that is still at work.
//!
//! [`Commit`]: ringtap_abi::words::Commit

use crate::ring::Ring;
use crate::rseq::Area;
use ringtap_abi::SubbufId;
use ringtap_abi::meta::{Desc, MetaPage};
use ringtap_abi::subbuf::HEADER_LEN;
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// One thread's spot. The hot path's assembly knows its fields by their offsets.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Spot {
    /// The thread's rseq area; one that is on no CPU until the thread has its own.
    pub(crate) area: *const Area,
    /// Of which writer, on which CPU: see [`key`]. 0 while it is about none.
    pub(crate) key: u64,
    pub(crate) meta: *const MetaPage,
    /// The sub-buffer's desc.
    pub(crate) desc: *const Desc,
    /// The sub-buffer's first data byte.
    pub(crate) data: *mut u8,
    /// Data bytes that a sub-buffer takes.
    pub(crate) capacity: u64,
    /// Nanoseconds of a tick of the processor's counter, times 2^32.
    pub(crate) mult: u64,
    /// Whether [`remember`] is at work.
    in_work: bool,
}

/// What, combined by exclusive or with the first word of the thread's rseq area, gives the writer's number where
/// the thread is still on that CPU.
///
/// The word is `cpu_id << 32 | cpu_id_start`, of which the kernel keeps both halves equal. So another CPU changes the
/// upper half, which numbers do not reach, and the key 0, or an area that is on no CPU, gives no writer's number.
const fn key(writer: u32, cpu: u32) -> u64 {
    ((cpu as u64) << 32 | cpu as u64) ^ writer as u64
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
            key: 0,
            meta: ptr::null(),
            desc: ptr::null(),
            data: ptr::null_mut(),
            capacity: 0,
            mult: 0,
            in_work: false,
        })
    };
}

/// The calling thread's spot.
#[inline(always)]
pub(crate) fn of_thread() -> *mut Spot {
    SPOT.with(UnsafeCell::get)
}

/// Forgets where the calling thread wrote last: a forked child has to be seen once by the slow path.
pub(crate) fn forget() {
    // SAFETY: the thread's own. A handler that interrupts this sees one value or the other.
    unsafe { (*of_thread()).key = 0 };
}

/// Notes where the calling thread writes. `false` where the spot says so already, or cannot be changed now.
pub(crate) fn remember(area: &Area, writer: u32, ring: &Ring<'_>, cpu: u32, page: SubbufId) -> bool {
    let spot = of_thread();
    let (key, desc) = (key(writer, cpu), ptr::from_ref(ring.desc(page)));
    // SAFETY: the thread's own, and valid. A signal handler's use of it ends before this code goes on.
    let before = unsafe { &*spot };
    if before.in_work || (before.key == key && before.desc == desc) {
        return false;
    }
    let mult = match ring.meta().clock.load() {
        Some(conversion) => conversion.mult,
        // Its host died while it changed it. The counter is the same for all hosts.
        None if before.mult != 0 => before.mult,
        None => return false,
    };
    // SAFETY: as above, here and below.
    unsafe { (*spot).in_work = true };
    // SAFETY: as above.
    unsafe { (*spot).key = 0 };
    // A signal handler from here on sees a spot that is about no writer, and in work.
    compiler_fence(SeqCst);
    let now = Spot {
        area,
        key: 0,
        meta: ring.meta(),
        desc,
        data: ring.data().at(page, HEADER_LEN),
        capacity: ring.geometry().capacity().into(),
        mult,
        in_work: true,
    };
    // SAFETY: as above.
    unsafe { spot.write(now) };
    compiler_fence(SeqCst);
    // SAFETY: as above.
    unsafe { (*spot).key = key };
    // SAFETY: as above.
    unsafe { (*spot).in_work = false };
    true
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn only_the_writer_on_its_cpu_finds_its_number() {
        let first_word = |cpu: u32| u64::from(cpu) << 32 | u64::from(cpu);
        for (writer, cpu) in [(1, 0), (1, 1), (7, 0), (u32::MAX, 3), (3, 4095)] {
            assert_eq!(first_word(cpu) ^ key(writer, cpu), u64::from(writer));
            for other in (0..8192).filter(|&other| other != cpu) {
                assert!(first_word(other) ^ key(writer, cpu) > u64::from(u32::MAX));
            }
            let unregistered = u64::from(u32::MAX) << 32;
            assert!(unregistered ^ key(writer, cpu) > u64::from(u32::MAX));
        }
        // The key 0 gives a number only on CPU 0, and it is 0, which is no writer's.
        assert_eq!(first_word(0), 0);
    }
}
