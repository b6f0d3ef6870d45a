//! Descriptors that forked children must not keep: a host's sockets and locks.
//!
//! A child that is forked from a host's process has copies of its descriptors. Were the host killed, the child's copy of
//! the listener would go on taking connections that nobody answers, its copies of the clients' sockets would hide the
//! host's death from them, and its copy of a directory would keep it locked. So in each child, before it goes on, a
//! descriptor of nothing takes the place of each of these.
//!
//! This module exists to protect one invariant: **no child is forked between the making of such a descriptor and its
//! entry in the table, nor between its exit and its closing.** The table has a lock that `fork` takes, too. Who holds
//! it is interrupted by no signal handler, so a handler that forks waits for other threads alone, and these do nothing
//! under it that waits.
//!
//! The numbers stay taken in the child, since there are still owners of them there. A child that comes about without
//! `fork` (`vfork`, `clone`) runs no hook; one that executes a program has none of them.

use crate::rseq::stay_loaded;
use crate::thread::{self, Masked};
use rustix::event::EventfdFlags;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::cell::UnsafeCell;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

/// A descriptor that forked children have no copy of.
#[derive(Debug)]
pub(crate) struct Unshared {
    /// `None` while it is dropped.
    fd: Option<OwnedFd>,
}

impl Unshared {
    /// Makes a descriptor, by a call that does not wait.
    ///
    /// # Errors
    /// The call's own; or there is no descriptor left.
    pub(crate) fn new(make: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Self, Errno> {
        let mut table = Turn::with_room()?;
        let fd = make()?;
        table.list().push(fd.as_raw_fd());
        Ok(Self { fd: Some(fd) })
    }
}

impl Drop for Unshared {
    fn drop(&mut self) {
        let mut turn = Turn::begin();
        let number = self.as_fd().as_raw_fd();
        let list = turn.list();
        // Not there in a forked child.
        if let Some(at) = list.iter().position(|known| *known == number) {
            list.swap_remove(at);
        }
        self.fd = None;
    }
}

impl AsFd for Unshared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("it is not dropped").as_fd()
    }
}

/// How often who waits for the table yields before it rests between two looks.
const YIELDS: u32 = 64;
const REST: Duration = Duration::from_micros(50);

/// What stands for them in children.
static NOTHING: OnceLock<OwnedFd> = OnceLock::new();

static TABLE: Table = Table {
    is_taken: AtomicBool::new(false),
    list: UnsafeCell::new(Vec::new()),
    forking: UnsafeCell::new(None),
};

struct Table {
    is_taken: AtomicBool,
    list: UnsafeCell<Vec<RawFd>>,
    /// The turn of the thread that forks.
    forking: UnsafeCell<Option<Turn>>,
}

// SAFETY: the cells are the turn's holder's.
unsafe impl Sync for Table {}

/// The table's lock, with all signals blocked. Nothing is allocated under it: the allocator's locks have a hook as well.
struct Turn {
    /// Until the table is given back.
    _masked: Masked,
}

impl Turn {
    fn begin() -> Self {
        let masked = Masked::new();
        let mut tries = 0;
        // Acquire: pairs with the Release in `drop`.
        while TABLE.is_taken.compare_exchange(false, true, Acquire, Relaxed).is_err() {
            tries += 1;
            if tries < YIELDS {
                thread::yield_now();
            } else {
                // Who has it may be of lower priority, and a yield is not for those.
                std::thread::sleep(REST);
            }
        }
        Self { _masked: masked }
    }

    /// The turn, with room in the list for one more, and the hooks in place.
    fn with_room() -> Result<Self, Errno> {
        watch_forks()?;
        loop {
            let mut turn = Self::begin();
            let (len, capacity) = (turn.list().len(), turn.list().capacity());
            if len < capacity {
                return Ok(turn);
            }
            drop(turn);
            let mut larger = Vec::with_capacity(2 * capacity.max(8));
            let mut turn = Self::begin();
            // Another thread may have filled even that.
            if turn.list().len() < larger.capacity() {
                larger.append(turn.list());
                std::mem::swap(turn.list(), &mut larger);
            }
            drop(turn);
        }
    }

    fn list(&mut self) -> &mut Vec<RawFd> {
        // SAFETY: this thread has the turn, and the borrow is of it.
        unsafe { &mut *TABLE.list.get() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `begin`.
        TABLE.is_taken.store(false, Release);
    }
}

/// Has forks take the table's lock, and children give up what is in it.
fn watch_forks() -> Result<(), Errno> {
    if NOTHING.get().is_some() {
        return Ok(());
    }
    let nothing = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    NOTHING.get_or_init(|| {
        stay_loaded();
        // SAFETY: the hooks are functions that stay loaded, and keep to what each of them says.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        nothing
    });
    Ok(())
}

extern "C" fn before() {
    let turn = Turn::begin();
    // SAFETY: this thread has the turn. What was there was taken out behind the fork before.
    unsafe { *TABLE.forking.get() = Some(turn) };
}

extern "C" fn in_parent() {
    // SAFETY: this thread has the turn, since `before`.
    let turn = unsafe { (*TABLE.forking.get()).take() };
    drop(turn);
}

extern "C" fn in_child() {
    // SAFETY: as in the parent: this thread is a copy of that one.
    let turn = unsafe { (*TABLE.forking.get()).take() };
    if let (Some(mut turn), Some(nothing)) = (turn, NOTHING.get()) {
        for number in turn.list().drain(..) {
            // SAFETY: replaces a descriptor that is ours; who owns it goes on with one that nothing comes from.
            unsafe { libc::dup3(nothing.as_raw_fd(), number, libc::O_CLOEXEC) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a forked child ends that does this.
    fn in_forked(child: impl FnOnce() -> bool) -> i32 {
        // SAFETY: the child makes system calls alone, and ends here.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(!child())) };
        }
        let mut status = 0;
        // SAFETY: it is our own child.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        status
    }

    #[test]
    fn a_child_has_none_of_them_and_may_drop_them() {
        let make =
            || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK);
        let (read, write) = make().expect("a pipe");
        let write = Unshared::new(|| Ok(write)).expect("there is room");
        let mut more: Vec<_> =
            (0..40).map(|_| Unshared::new(|| make().map(|(read, _)| read)).expect("there is room")).collect();
        let mut buffer = [0; 1];
        // It holds its copy of the other end.
        let is_silent = || rustix::io::write(&write, b"x").is_err();
        assert_eq!(in_forked(is_silent), 0, "it cannot write");
        assert_eq!(rustix::io::read(&read, &mut buffer), Err(Errno::AGAIN));
        rustix::io::write(&write, b"x").expect("the parent can");
        more.truncate(3);
        let dropped = in_forked(|| {
            drop(more);
            drop(write);
            // One of its own, and a child of that child.
            let Ok(own) = Unshared::new(|| make().map(|(_, write)| write)) else { return false };
            in_forked(|| rustix::io::write(&own, b"x") != Ok(1)) == 0
        });
        assert_eq!(dropped, 0);
    }

    #[test]
    fn threads_make_and_drop_them_while_others_fork() {
        let watchdog = std::thread::spawn(|| {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..2000 {
                            drop(Unshared::new(|| rustix::event::eventfd(0, EventfdFlags::CLOEXEC)));
                        }
                    });
                }
                scope.spawn(|| (0..50).for_each(|_| assert_eq!(in_forked(|| true), 0)));
            });
        });
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !watchdog.is_finished() {
            assert!(std::time::Instant::now() < until, "they wait for each other");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        watchdog.join().expect("no panic");
    }
}
