//! Locks between threads.
//!
//! An event of taking one stands behind its call, and that of giving it back before: so in the trace, too, nobody takes what
//! another still holds.

use crate::call::{announced, traced};
use libc::{
    clockid_t, pthread_barrier_t, pthread_cond_t, pthread_mutex_t, pthread_rwlock_t, pthread_spinlock_t,
    sem_t, timespec,
};
use std::ffi::c_int;

traced! {
    result, errno;

    /// A mutex was taken.
    MutexLock as libc_lock:mutex_lock { mutex: *mut pthread_mutex_t = mutex } -> status c_int {
        pthread_mutex_lock(mutex: *mut pthread_mutex_t);
    }

    /// A mutex was taken, or it was busy.
    MutexTrylock as libc_lock:mutex_trylock { mutex: *mut pthread_mutex_t = mutex } -> status c_int {
        pthread_mutex_trylock(mutex: *mut pthread_mutex_t);
    }

    /// A mutex was taken, or not in time.
    MutexTimedlock as libc_lock:mutex_timedlock { mutex: *mut pthread_mutex_t = mutex } -> status c_int {
        pthread_mutex_timedlock(mutex: *mut pthread_mutex_t, until: *const timespec);
        pthread_mutex_clocklock(mutex: *mut pthread_mutex_t, clock: clockid_t, until: *const timespec);
    }

    /// A read-write lock was taken for reading.
    RwlockRdlock as libc_lock:rwlock_rdlock { rwlock: *mut pthread_rwlock_t = rwlock } -> status c_int {
        pthread_rwlock_rdlock(rwlock: *mut pthread_rwlock_t);
        pthread_rwlock_timedrdlock(rwlock: *mut pthread_rwlock_t, until: *const timespec);
        pthread_rwlock_clockrdlock(rwlock: *mut pthread_rwlock_t, clock: clockid_t, until: *const timespec);
    }

    /// A read-write lock was taken for reading, or it was busy.
    RwlockTryrdlock as libc_lock:rwlock_tryrdlock { rwlock: *mut pthread_rwlock_t = rwlock } -> status c_int {
        pthread_rwlock_tryrdlock(rwlock: *mut pthread_rwlock_t);
    }

    /// A read-write lock was taken for writing.
    RwlockWrlock as libc_lock:rwlock_wrlock { rwlock: *mut pthread_rwlock_t = rwlock } -> status c_int {
        pthread_rwlock_wrlock(rwlock: *mut pthread_rwlock_t);
        pthread_rwlock_timedwrlock(rwlock: *mut pthread_rwlock_t, until: *const timespec);
        pthread_rwlock_clockwrlock(rwlock: *mut pthread_rwlock_t, clock: clockid_t, until: *const timespec);
    }

    /// A read-write lock was taken for writing, or it was busy.
    RwlockTrywrlock as libc_lock:rwlock_trywrlock { rwlock: *mut pthread_rwlock_t = rwlock } -> status c_int {
        pthread_rwlock_trywrlock(rwlock: *mut pthread_rwlock_t);
    }

    /// A spinlock was taken.
    SpinLock as libc_lock:spin_lock { lock: *mut pthread_spinlock_t = lock } -> status c_int {
        pthread_spin_lock(lock: *mut pthread_spinlock_t);
        pthread_spin_trylock(lock: *mut pthread_spinlock_t);
    }

    /// A condition was waited for; its mutex was given back meanwhile.
    CondWait as libc_lock:cond_wait {
        cond: *mut pthread_cond_t = cond, mutex: *mut pthread_mutex_t = mutex,
    } -> status c_int {
        pthread_cond_wait(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) [c"GLIBC_2.3.2"];
    }

    /// A condition was waited for, until a time at most.
    CondTimedwait as libc_lock:cond_timedwait {
        cond: *mut pthread_cond_t = cond, mutex: *mut pthread_mutex_t = mutex,
    } -> status c_int {
        pthread_cond_timedwait(
            cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, until: *const timespec
        ) [c"GLIBC_2.3.2"];
        pthread_cond_clockwait(
            cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, clock: clockid_t, until: *const timespec
        );
    }

    /// All threads have come to a barrier; for one of them `ret` is -1.
    BarrierWait as libc_lock:barrier_wait { barrier: *mut pthread_barrier_t = barrier } -> status c_int {
        pthread_barrier_wait(barrier: *mut pthread_barrier_t);
    }

    /// A semaphore was counted down.
    SemWait as libc_lock:sem_wait { sem: *mut sem_t = sem } -> errno c_int {
        sem_wait(sem: *mut sem_t);
    }

    /// A semaphore was counted down, or it was 0.
    SemTrywait as libc_lock:sem_trywait { sem: *mut sem_t = sem } -> errno c_int {
        sem_trywait(sem: *mut sem_t);
    }

    /// A semaphore was counted down, or not in time.
    SemTimedwait as libc_lock:sem_timedwait { sem: *mut sem_t = sem } -> errno c_int {
        sem_timedwait(sem: *mut sem_t, until: *const timespec);
        sem_clockwait(sem: *mut sem_t, clock: clockid_t, until: *const timespec);
    }
}

announced! {
    /// A mutex is about to be given back.
    MutexUnlock as libc_lock:mutex_unlock { mutex: *mut pthread_mutex_t = mutex } {
        pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int;
    }

    /// A read-write lock is about to be given back.
    RwlockUnlock as libc_lock:rwlock_unlock { rwlock: *mut pthread_rwlock_t = rwlock } {
        pthread_rwlock_unlock(rwlock: *mut pthread_rwlock_t) -> c_int;
    }

    /// A spinlock is about to be given back.
    SpinUnlock as libc_lock:spin_unlock { lock: *mut pthread_spinlock_t = lock } {
        pthread_spin_unlock(lock: *mut pthread_spinlock_t) -> c_int;
    }

    /// One who waits for a condition is about to be woken.
    CondSignal as libc_lock:cond_signal { cond: *mut pthread_cond_t = cond } {
        pthread_cond_signal(cond: *mut pthread_cond_t) -> c_int [c"GLIBC_2.3.2"];
    }

    /// All who wait for a condition are about to be woken.
    CondBroadcast as libc_lock:cond_broadcast { cond: *mut pthread_cond_t = cond } {
        pthread_cond_broadcast(cond: *mut pthread_cond_t) -> c_int [c"GLIBC_2.3.2"];
    }

    /// A semaphore is about to be counted up.
    SemPost as libc_lock:sem_post { sem: *mut sem_t = sem } {
        sem_post(sem: *mut sem_t) -> c_int;
    }
}
