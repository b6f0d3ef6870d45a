//! Waits: for descriptors, time, children, threads and signals.

use crate::call::traced;
use libc::{
    clockid_t, epoll_event, fd_set, id_t, idtype_t, nfds_t, pid_t, pollfd, pthread_t, rusage, siginfo_t,
    sigset_t, timespec, timeval,
};
use std::ffi::{c_int, c_uint, c_void};

/// A time that was given to a call, in nanoseconds: -1 where there was none, or the call ended with an error that the kernel
/// may have found before it read the time, such as a clock that is none.
///
/// # Safety
/// 1. Unless the error is `EFAULT`, `EINVAL` or `EOPNOTSUPP`, the pointer is null, or there is a time.
unsafe fn ns_of(time: *const timespec, errno: i32) -> i64 {
    if matches!(errno, libc::EFAULT | libc::EINVAL | libc::EOPNOTSUPP) || time.is_null() {
        return -1;
    }
    // SAFETY: by 1.
    let time = unsafe { time.read() };
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// As [`ns_of`], of `select`'s.
///
/// # Safety
/// As there.
unsafe fn ns_of_timeval(time: *const timeval, errno: i32) -> i64 {
    if errno == libc::EFAULT || time.is_null() {
        return -1;
    }
    // SAFETY: as the caller says.
    let time = unsafe { time.read() };
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_usec.saturating_mul(1000))
}

traced! {
    result, errno;

    /// Descriptors were waited for; the result is how many are ready.
    Poll as libc_wait:poll { nfds: u64 = nfds, timeout_ms: i32 = timeout } -> errno c_int {
        poll(fds: *mut pollfd, nfds: nfds_t, timeout: c_int);
        __poll_chk(fds: *mut pollfd, nfds: nfds_t, timeout: c_int, size: usize);
    }

    /// Descriptors were waited for, and signals.
    Ppoll as libc_wait:ppoll {
        // SAFETY: what the call was given.
        nfds: u64 = nfds, timeout_ns: i64 = unsafe { ns_of(timeout, errno) },
    } -> errno c_int {
        ppoll(fds: *mut pollfd, nfds: nfds_t, timeout: *const timespec, mask: *const sigset_t);
        __ppoll_chk(fds: *mut pollfd, nfds: nfds_t, timeout: *const timespec, mask: *const sigset_t, size: usize);
    }

    /// Descriptors were waited for; the time left is what the kernel says behind the call.
    Select as libc_wait:select {
        // SAFETY: what the call was given.
        nfds: i32 = nfds, left_ns: i64 = unsafe { ns_of_timeval(timeout, errno) },
    } -> errno c_int {
        select(nfds: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval);
    }

    /// Descriptors were waited for, and signals.
    Pselect as libc_wait:pselect {
        // SAFETY: what the call was given.
        nfds: i32 = nfds, timeout_ns: i64 = unsafe { ns_of(timeout, errno) },
    } -> errno c_int {
        pselect(
            nfds: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *const timespec,
            mask: *const sigset_t
        );
    }

    /// Descriptors were waited for; the result is how many are ready.
    EpollWait as libc_wait:epoll_wait {
        epfd: i32 = epfd, max_events: i32 = max_events, timeout_ms: i32 = timeout,
    } -> errno c_int {
        epoll_wait(epfd: c_int, events: *mut epoll_event, max_events: c_int, timeout: c_int);
        epoll_pwait(
            epfd: c_int, events: *mut epoll_event, max_events: c_int, timeout: c_int, mask: *const sigset_t
        );
    }

    /// Descriptors were waited for, to the nanosecond.
    EpollPwait2 as libc_wait:epoll_pwait2 {
        // SAFETY: what the call was given.
        epfd: i32 = epfd, max_events: i32 = max_events, timeout_ns: i64 = unsafe { ns_of(timeout, errno) },
    } -> errno c_int {
        epoll_pwait2(
            epfd: c_int, events: *mut epoll_event, max_events: c_int, timeout: *const timespec, mask: *const sigset_t
        );
    }

    /// The thread slept.
    Nanosleep as libc_wait:nanosleep {
        // SAFETY: what the call was given.
        time_ns: i64 = unsafe { ns_of(time, errno) },
    } -> errno c_int {
        nanosleep(time: *const timespec, left: *mut timespec);
    }

    /// The thread slept by a clock, for a time or until one.
    ClockNanosleep as libc_wait:clock_nanosleep {
        // SAFETY: what the call was given.
        clock: i32 = clock, flags: i32 = flags, time_ns: i64 = unsafe { ns_of(time, errno) },
    } -> status c_int {
        clock_nanosleep(clock: clockid_t, flags: c_int, time: *const timespec, left: *mut timespec);
    }

    /// The thread slept.
    Usleep as libc_wait:usleep { time_us: u32 = time } -> errno c_int {
        usleep(time: c_uint);
    }

    /// The thread slept; the result is the seconds that were left.
    Sleep as libc_wait:sleep { time_s: u32 = time } -> errno c_uint {
        sleep(time: c_uint);
    }

    /// A child was waited for; the result is its pid.
    Waitpid as libc_wait:waitpid { pid: i32 = pid, options: i32 = options } -> errno pid_t {
        waitpid(pid: pid_t, status: *mut c_int, options: c_int);
        wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage);
    }

    /// Any child was waited for; the result is its pid.
    Wait as libc_wait:wait {} -> errno pid_t {
        wait(status: *mut c_int);
        wait3(status: *mut c_int, options: c_int, usage: *mut rusage);
    }

    /// A child was waited for.
    Waitid as libc_wait:waitid { kind: u32 = kind, id: u32 = id, options: i32 = options } -> errno c_int {
        waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int);
    }

    /// A thread was waited for.
    Join as libc_wait:join { thread: u64 = thread } -> status c_int {
        pthread_join(thread: pthread_t, value: *mut *mut c_void);
        pthread_tryjoin_np(thread: pthread_t, value: *mut *mut c_void);
        pthread_timedjoin_np(thread: pthread_t, value: *mut *mut c_void, until: *const timespec);
    }

    /// A signal was waited for.
    Pause as libc_wait:pause {} -> errno c_int {
        pause();
    }

    /// A signal was waited for.
    Sigsuspend as libc_wait:sigsuspend {} -> errno c_int {
        sigsuspend(mask: *const sigset_t);
    }

    /// A signal was waited for; `signal` is it, 0 where the call failed.
    Sigwait as libc_wait:sigwait {
        // SAFETY: the call has written there, where it succeeded.
        signal: i32 = if result == 0 { unsafe { *signal } } else { 0 },
    } -> status c_int {
        sigwait(set: *const sigset_t, signal: *mut c_int);
    }

    /// A signal was waited for; the result is it.
    Sigwaitinfo as libc_wait:sigwaitinfo {} -> errno c_int {
        sigwaitinfo(set: *const sigset_t, info: *mut siginfo_t);
        sigtimedwait(set: *const sigset_t, info: *mut siginfo_t, timeout: *const timespec);
    }
}
