//! Who tells the header's look that the host switched an event.
//!
//! An event that is off costs one load, of a word in its own process: the host's word, which all processes share, would
//! be a second one behind a pointer. So a thread looks at the hosts' words ten times a second. It makes events late
//! by that much when they are switched on; switched off, they are refused by the host's word at once.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);

/// Which thread looks: the one that was started last.
static WATCH: AtomicU32 = AtomicU32::new(0);

/// Starts the thread that does `look`, in the place of one that was started before. Where there can be none, events stay as they are.
pub(crate) fn watch(look: fn()) {
    let number = end();
    let watch = move || {
        while WATCH.load(Relaxed) == number {
            look();
            std::thread::sleep(LOOK);
        }
    };
    without_signals(|| {
        let _ = std::thread::Builder::new().name("ringtap-look".into()).spawn(watch);
    });
}

/// Ends the thread, within a tenth of a second.
pub(crate) fn end() -> u32 {
    WATCH.fetch_add(1, Relaxed).wrapping_add(1)
}

/// The application's handlers belong on its own threads.
fn without_signals(start: impl FnOnce()) {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: fills the set that it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: reads the set that was filled, and fills the other.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    start();
    // SAFETY: reads the set that the call before filled.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
}
