//! Work that threads wait for. Its length is bounded by those who hand it in and wait for the answer.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A queue of work.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    more: Condvar,
}

#[derive(Debug)]
struct State<T> {
    work: VecDeque<T>,
    is_closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { work: VecDeque::new(), is_closed: false };
        Self { state: Mutex::new(state), more: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Nothing that can panic is done while it is locked.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in work.
    pub(super) fn put(&self, work: T) {
        self.state().work.push_back(work);
        self.more.notify_one();
    }

    /// Waits for work. `None` once the queue is closed.
    pub(super) fn take(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if state.is_closed {
                return None;
            }
            match state.work.pop_front() {
                Some(work) => return Some(work),
                None => state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Sends away all who wait. What was not taken is never done.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_once_until_the_queue_is_closed() {
        let (queue, done) = (Queue::default(), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(work) = queue.take() {
                        done.lock().unwrap().push(work);
                    }
                });
            }
            (0..100).for_each(|work| queue.put(work));
            while done.lock().unwrap().len() < 100 {
                std::thread::yield_now();
            }
            queue.close();
        });
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
    }
}
