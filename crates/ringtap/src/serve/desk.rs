//! Who answers calls on the tree: a thread beside the loop, since some of them wait, as a resize does for the very processes
//! that the loop serves. The processes that call take turns, and each client has one call there at a time.

use super::requests::{Answer, refused};
use super::spawn_without_signals;
use super::tree::{self, Peer, Tree};
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// A client's call, as it came.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) peer: Peer,
    pub(super) kind: u32,
    pub(super) value: u64,
    pub(super) body: Vec<u8>,
}

/// Which call is answered: the place of the client that made it, and a number that no other call has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) place: usize,
    number: u64,
}

/// Calls that wait, by the process that made them: each process's in their order, and the processes in turn, so that one with a
/// thousand calls keeps another's waiting for one.
#[derive(Debug, Default)]
struct Queue {
    /// None is empty. The next one first.
    processes: VecDeque<(u32, VecDeque<(Ticket, Call)>)>,
    /// Nobody takes answers any more.
    is_over: bool,
}

impl Queue {
    fn push(&mut self, ticket: Ticket, call: Call) {
        let pid = call.peer.pid;
        match self.processes.iter_mut().find(|(its, _)| *its == pid) {
            Some((_, calls)) => calls.push_back((ticket, call)),
            None => self.processes.push_back((pid, VecDeque::from([(ticket, call)]))),
        }
    }

    fn pop(&mut self) -> Option<(Ticket, Call)> {
        let (pid, mut calls) = self.processes.pop_front()?;
        let next = calls.pop_front();
        if !calls.is_empty() {
            self.processes.push_back((pid, calls));
        }
        next
    }
}

/// What both threads see.
#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signalled with each change of the queue.
    changed: Condvar,
    /// Until they are taken.
    answers: Mutex<Vec<(Ticket, Answer)>>,
}

impl Shared {
    /// Waits for the next call; `None` at the end.
    fn next(&self) -> Option<(Ticket, Call)> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.is_over {
                return None;
            }
            if let Some(next) = queue.pop() {
                return Some(next);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread's other end. Dropped, it ends once it has answered what it is at.
pub(super) struct Desk {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    last: u64,
}

impl Desk {
    /// Starts the thread, which signals the eventfd with each answer.
    pub(super) fn new(tree: Arc<dyn Tree>, done: Arc<OwnedFd>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let given = Arc::clone(&shared);
        let thread = spawn_without_signals("ringtap-tree", move || work(&given, &*tree, &done))?;
        Ok(Self { shared, thread: Some(thread), last: 0 })
    }

    /// Takes a call of the client in this place.
    pub(super) fn take(&mut self, place: usize, call: Call) -> Ticket {
        self.last += 1;
        let ticket = Ticket { place, number: self.last };
        lock(&self.shared.queue).push(ticket, call);
        self.shared.changed.notify_one();
        ticket
    }

    /// What was answered since the last time.
    pub(super) fn answers(&self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut lock(&self.shared.answers))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        lock(&self.shared.queue).is_over = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A tree that panicked has answered its last call.
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared, tree: &dyn Tree, done: &OwnedFd) {
    while let Some((ticket, call)) = shared.next() {
        let answer = tree::answer(tree, call.peer, call.kind, call.value, &call.body);
        lock(&shared.answers).push((ticket, answer.unwrap_or_else(refused)));
        // A counter that is full will be read.
        let _ = rustix::io::write(done, &1u64.to_le_bytes());
    }
}

/// No step of ours can panic half-way, so another thread's panic changes nothing.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_take_turns_and_each_ones_calls_keep_their_order() {
        let mut queue = Queue::default();
        for (number, pid) in (0..).zip([7, 7, 7, 8, 9, 7, 9]) {
            let peer = Peer { uid: 0, gid: 0, pid };
            let call = Call { peer, kind: 0, value: 0, body: Vec::new() };
            queue.push(Ticket { place: 0, number }, call);
        }
        let order = std::iter::from_fn(|| queue.pop()).map(|(ticket, _)| ticket.number);
        assert_eq!(order.collect::<Vec<_>>(), [0, 3, 4, 1, 6, 2, 5]);
        assert!(queue.processes.is_empty());
    }
}
