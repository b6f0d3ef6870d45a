//! Who the thread ids were: noted by each thread in the switchboard when it writes its first event.

use crate::board::Board;
use crate::thread;
use ringtap_abi::switchboard::{TaskName, task_places};
use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

/// A thread that wrote events, as it was called when it wrote its first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id, `common_pid` of its events.
    pub tid: u32,
    /// Its process's id.
    pub tgid: u32,
    /// Its name.
    pub comm: String,
}

thread_local! {
    /// The number of the switchboard in which the thread is noted. No destructor: signal handlers come here.
    static NOTED: Cell<u64> = const { Cell::new(0) };
}

/// Notes the calling thread, unless it is noted already. Neither allocates nor locks.
#[inline]
pub(crate) fn note(board: &Board) {
    if NOTED.get() != board.number() {
        NOTED.set(board.number());
        write(board);
    }
}

/// A forked child's thread is another one.
pub(crate) fn forget() {
    NOTED.set(0);
}

#[cold]
fn write(board: &Board) {
    let mut comm = [0u8; 16];
    // SAFETY: the kernel writes 16 bytes at most.
    unsafe { libc::prctl(libc::PR_GET_NAME, comm.as_mut_ptr()) };
    let tgid = rustix::process::getpid().as_raw_nonzero().get().cast_unsigned();
    let task = TaskName { tid: thread::id(), tgid, comm };
    let tasks = board.tasks();
    let mut places = task_places(task.tid).map(|place| &tasks[place]);
    let is_free = |ids: u64| ids == 0 || ids & u64::from(u32::MAX) == u64::from(task.tid);
    // Where all places are others', the newest is worth more than the oldest, and one is as old as another.
    let place = places.find(|place| is_free(place.ids.load(Relaxed))).unwrap_or_else(|| {
        let tried = ringtap_abi::switchboard::TASK_TRIES;
        let index = (task.tid >> 13) as usize % tried;
        &tasks[task_places(task.tid).nth(index).expect("there are as many places as tries")]
    });
    place.store(&task);
}

/// All threads noted, by their ids.
pub(crate) fn all(board: &Board) -> Vec<Task> {
    let mut tasks: Vec<_> = board.tasks().iter().filter_map(|task| Some(named(task.load()?))).collect();
    tasks.sort_by_key(|task| task.tid);
    tasks.dedup_by_key(|task| task.tid);
    tasks
}

/// A thread noted.
pub(crate) fn find(board: &Board, tid: u32) -> Option<Task> {
    let mut found = task_places(tid).filter_map(|place| board.tasks()[place].load());
    found.find(|task| task.tid == tid).map(named)
}

pub(crate) fn named(task: TaskName) -> Task {
    let len = task.comm.iter().position(|&byte| byte == 0).unwrap_or(task.comm.len());
    let comm = String::from_utf8_lossy(&task.comm[..len]);
    // What a process calls itself is its own affair, but a trace has lines.
    let comm = comm.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    Task { tid: task.tid, tgid: task.tgid, comm }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of which one may lie where the one before lay.
    #[test]
    fn a_thread_is_noted_in_each_of_many_switchboards() {
        for round in 0..20 {
            let board = Board::create().expect("memory");
            note(&board);
            assert!(find(&board, thread::id()).is_some(), "round {round}");
        }
    }

    #[test]
    fn threads_are_noted_with_their_names_and_the_newest_are_kept() {
        let board = std::sync::Arc::new(Board::create().expect("memory"));
        let noted = std::sync::Arc::clone(&board);
        let thread = std::thread::Builder::new().name("a worker".into());
        let tid = thread.spawn(move || {
            note(&noted);
            thread::id()
        });
        let tid = tid.expect("threads can be made").join().expect("no panic");
        let task = Task { tid, tgid: std::process::id(), comm: "a worker".into() };
        assert_eq!(find(&board, tid), Some(task.clone()));
        assert_eq!(all(&board), [task]);
        // The real one stands in another of its places.
        for tid in (1..100_000).filter(|other| *other != tid) {
            let places = task_places(tid).map(|place| &board.tasks()[place]);
            let task = TaskName { tid, tgid: 1, comm: *b"x\ny\0\0\0\0\0\0\0\0\0\0\0\0\0" };
            places.last().expect("there are some").store(&task);
            assert_eq!(find(&board, tid).map(|task| task.comm), Some("x?y".into()));
        }
    }
}
