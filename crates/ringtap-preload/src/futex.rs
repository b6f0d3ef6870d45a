//! Futexes, where a program calls the kernel through the C library's `syscall`: Rust's locks do.

use crate::next::{Next, next};
use crate::session::Session;
use crate::value::{Errno, Ret, errno, set_errno};
use ringtap::event::{Declared, Kind, Shown, Value};
use std::ffi::{c_int, c_long, c_void};

pub(crate) static EVENTS: &[fn() -> &'static Declared] = &[Futex::declared];
pub(crate) static FUNCTIONS: &[&Next] = &[&syscall::NEXT];

/// What is done with a futex, without the flags.
#[derive(Clone, Copy, Debug)]
struct Operation(u8);

impl Operation {
    const MASK: c_int = !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);

    fn of(op: c_long) -> Self {
        let op = c_int::try_from(op).unwrap_or(c_int::MAX) & Self::MASK;
        Self(u8::try_from(op).unwrap_or(u8::MAX))
    }
}

impl Value for Operation {
    const KIND: Kind = Kind::number(
        "u8",
        1,
        false,
        Shown::Symbol(&[
            (0, "WAIT"),
            (1, "WAKE"),
            (3, "REQUEUE"),
            (4, "CMP_REQUEUE"),
            (5, "WAKE_OP"),
            (6, "LOCK_PI"),
            (7, "UNLOCK_PI"),
            (8, "TRYLOCK_PI"),
            (9, "WAIT_BITSET"),
            (10, "WAKE_BITSET"),
            (11, "WAIT_REQUEUE_PI"),
            (12, "CMP_REQUEUE_PI"),
            (13, "LOCK_PI2"),
        ]),
    );

    #[inline(always)]
    fn put(&self, words: &mut [u64], at: usize) {
        self.0.put(words, at);
    }
}

ringtap::event! {
    /// A futex was waited for or its sleepers woken.
    struct Futex as libc_wait:futex {
        addr: *mut c_void, op: Operation, value: u32, ret: i64, errno: Errno, took_ns: u64
    }
}

next! {
    fn syscall(
        number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long,
    ) -> c_long;
}

/// In C it takes as many arguments as the call needs. All are handed on: what was not given is not looked at.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C-unwind" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    #[cold]
    #[inline(never)]
    unsafe fn traced(a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long {
        let Some(session) = Session::get() else {
            // SAFETY: as the caller says.
            return unsafe { syscall::call(libc::SYS_futex, a, b, c, d, e, f) };
        };
        let began = session.now();
        // SAFETY: as the caller says.
        let ret = unsafe { syscall::call(libc::SYS_futex, a, b, c, d, e, f) };
        let took_ns = session.ns_since(began);
        let before = errno();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the kernel takes so many bits"
        )]
        let (addr, value) = (std::ptr::without_provenance_mut(a as usize), c as u32);
        let errno = Errno(if ret.is_refused() { before } else { 0 });
        Futex { addr, op: Operation::of(b), value, ret, errno, took_ns }.write(session.writer());
        set_errno(before);
        ret
    }
    if number == libc::SYS_futex && Futex::is_on() {
        // SAFETY: as the caller says.
        unsafe { traced(a, b, c, d, e, f) }
    } else {
        // SAFETY: as above.
        unsafe { syscall::call(number, a, b, c, d, e, f) }
    }
}
