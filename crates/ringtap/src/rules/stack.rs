//! The thread's stack as the kernel's `user_stack` record: the return addresses that frame pointers lead to.
//!
//! The walk is async-signal-safe, and safe on any stack: the memory is read by `process_vm_readv`, which fails where a
//! load would fault. As with the kernel's own `userstacktrace`, code that was compiled without frame pointers
//! breaks the chain (in Rust, `-C force-frame-pointers=yes` keeps it).

use crate::event::Common;
#[cfg(test)]
use crate::event::registry::USER_STACK_ID;

/// Return addresses in a record.
const CALLERS: usize = 8;
/// Bytes of a record: common fields, process, padding, addresses.
const LEN: usize = 16 + 8 * CALLERS;
/// Bytes of the stack that are read at a time. Few: they are copied to this very stack, which may be a signal handler's of a
/// few KiB.
const PIECE: usize = 256;
/// How far above the first frame the last one may lie, in bytes.
const REACH: u64 = 8192;

/// The payload of a `user_stack` record of the calling thread.
#[inline(never)]
pub(super) fn payload(common: Common) -> [u8; LEN] {
    let mut payload = [0; LEN];
    payload[..8].copy_from_slice(&common.word().to_le_bytes());
    payload[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    for (bytes, address) in payload[16..].chunks_mut(8).zip(callers::<CALLERS>()) {
        bytes.copy_from_slice(&address.to_le_bytes());
    }
    payload
}

/// Return addresses of the calling thread, the innermost first; 0 where there are no more.
pub(super) fn callers<const N: usize>() -> [u64; N] {
    walk(frame_pointer())
}

/// The return addresses of the frame at `base` and of those that it leads to.
fn walk<const N: usize>(base: u64) -> [u64; N] {
    let mut callers = [0; N];
    let mut piece = Piece { start: 0, len: 0, bytes: [0; PIECE] };
    let mut frame = base;
    for caller in &mut callers {
        let Some([next, address]) = piece.frame(frame) else { break };
        *caller = address;
        // Callers' frames lie above; anything else is no frame pointer.
        if next <= frame || next - base >= REACH || !next.is_multiple_of(8) {
            break;
        }
        frame = next;
    }
    callers
}

/// A copied piece of the stack.
struct Piece {
    start: u64,
    len: usize,
    bytes: [u8; PIECE],
}

impl Piece {
    /// The two words of a frame: where its caller's lies, and the return address. `None` where they cannot be read.
    fn frame(&mut self, at: u64) -> Option<[u64; 2]> {
        self.words(at).or_else(|| {
            (self.start, self.len) = (at, read_own(at, &mut self.bytes));
            self.words(at)
        })
    }

    /// The words there, if they were copied.
    fn words(&self, at: u64) -> Option<[u64; 2]> {
        let offset = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let (words, _) = self.bytes[..self.len].get(offset..)?.as_chunks::<8>();
        words.first_chunk().map(|words| words.map(u64::from_le_bytes))
    }
}

#[inline(always)]
fn frame_pointer() -> u64 {
    let frame: u64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: copies a register.
    unsafe {
        std::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: copies a register.
    unsafe {
        std::arch::asm!("mov {}, x29", out(reg) frame, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        frame = 0;
    }
    frame
}

/// Copies this process's memory from `address` on, as much as there is; how many bytes these are.
fn read_own(address: u64, into: &mut [u8; PIECE]) -> usize {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: PIECE };
    // By pages: of one that cannot be read whole, nothing is.
    let remote = pages(address);
    let me = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: the kernel writes to `into` alone, and at most its length; what it reads it checks.
    let read =
        unsafe { libc::process_vm_readv(me, &raw const local, 1, remote.as_ptr(), remote.len() as u64, 0) };
    usize::try_from(read).unwrap_or(0)
}

/// A piece's range, cut at the border of pages.
fn pages(address: u64) -> [libc::iovec; 2] {
    let mut at = address;
    let end = address.saturating_add(PIECE as u64);
    std::array::from_fn(|_| {
        let stop = (at | 4095).saturating_add(1).min(end);
        let iov_len = usize::try_from(stop - at).unwrap_or(0);
        let part = libc::iovec { iov_base: at as *mut libc::c_void, iov_len };
        at = stop;
        part
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_stack_is_read_to_its_end_and_no_further() {
        let mut piece = [0; PIECE];
        assert_eq!(read_own(8, &mut piece), 0);
        let local = [7u8; 64];
        let read = read_own(local.as_ptr().addr() as u64, &mut piece);
        assert!(piece[..read].starts_with(&local), "{read} bytes");
    }

    #[test]
    fn frames_are_followed_upwards_as_far_as_they_go() {
        let stack: [AtomicU64; 160] = std::array::from_fn(|_| AtomicU64::new(0));
        let at = |place: usize| stack.as_ptr().addr() as u64 + 8 * place as u64;
        // The third one is not in the first's piece, nor whole in the second's.
        for (frame, next, caller) in [(0, 4, 0x1001), (4, 35, 0x1002), (35, 10, 0x1003)] {
            stack[frame].store(at(next), Relaxed);
            stack[frame + 1].store(caller, Relaxed);
        }
        assert_eq!(walk(at(0)), [0x1001, 0x1002, 0x1003, 0, 0], "the third frame leads back");
        assert_eq!(walk(at(0)), [0x1001, 0x1002]);
        stack[4].store(at(35) + 1, Relaxed);
        assert_eq!(walk(at(0)), [0x1001, 0x1002, 0], "no frame lies there");
        stack[4].store(u64::MAX - 7, Relaxed);
        assert_eq!(walk(at(0)), [0x1001, 0x1002, 0], "nothing can be read there");
        stack[4].store(at(0) + REACH, Relaxed);
        assert_eq!(walk(at(0)), [0x1001, 0x1002, 0], "no frame is so far away");
        assert_eq!(walk(8), [0; 8]);
    }

    #[test]
    fn the_record_is_the_kernels() {
        let common = Common { id: USER_STACK_ID, flags: 0, preempt_count: 0, pid: 7 };
        let payload = payload(common);
        assert_eq!(payload[..8], [13, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(payload[8..12], std::process::id().to_le_bytes());
    }
}
