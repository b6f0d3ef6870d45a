//! Who answers calls on the tree: a thread beside the loop, since some of them wait, as a resize does for the very processes
//! that the loop serves. Calls are answered in the order in which they came, one of each client's at a time.

use super::requests::{Answer, refused};
use super::spawn_without_signals;
use super::tree::{self, Peer, Tree};
use rustix::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// Answers, until they are taken.
type Answers = Arc<Mutex<Vec<(Ticket, Answer)>>>;

/// The thread's other end. Dropped, it ends once it has answered what it is at.
pub(super) struct Desk {
    calls: Option<Sender<(Ticket, Call)>>,
    answers: Answers,
    thread: Option<JoinHandle<()>>,
    last: u64,
}

impl Desk {
    /// Starts the thread, which signals the eventfd with each answer.
    pub(super) fn new(tree: Arc<dyn Tree>, done: Arc<OwnedFd>) -> std::io::Result<Self> {
        let (calls, received) = mpsc::channel();
        let answers = Answers::default();
        let given = Arc::clone(&answers);
        let thread = spawn_without_signals("ringtap-tree", move || work(&received, &*tree, &given, &done))?;
        Ok(Self { calls: Some(calls), answers, thread: Some(thread), last: 0 })
    }

    /// Takes a call of the client in this place.
    pub(super) fn take(&mut self, place: usize, call: Call) -> Ticket {
        self.last += 1;
        let ticket = Ticket { place, number: self.last };
        if let Some(calls) = &self.calls {
            // The thread ends only behind the sender. Were it gone, nobody would be answered.
            let _ = calls.send((ticket, call));
        }
        ticket
    }

    /// What was answered since the last time.
    pub(super) fn answers(&self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut lock(&self.answers))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            // A tree that panicked has answered its last call.
            let _ = thread.join();
        }
    }
}

fn work(calls: &Receiver<(Ticket, Call)>, tree: &dyn Tree, answers: &Answers, done: &OwnedFd) {
    for (ticket, call) in calls {
        let answer = tree::answer(tree, call.peer, call.kind, call.value, &call.body);
        lock(answers).push((ticket, answer.unwrap_or_else(refused)));
        // A counter that is full will be read.
        let _ = rustix::io::write(done, &1u64.to_le_bytes());
    }
}

/// An answer is there or not, so a panic of another thread changes nothing.
fn lock(answers: &Answers) -> MutexGuard<'_, Vec<(Ticket, Answer)>> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}
