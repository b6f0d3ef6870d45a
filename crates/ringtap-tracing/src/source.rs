//! Who gives events their ids: a host in this process or another. What is asked of it may take a while, but never
//! forever: a signal handler may ask while its own thread does, and a forked child while a thread that it has not did.

use ringtap::attach::{AttachError, Attachment, Connection, Role};
use ringtap::event::registry::RegisterError;
use ringtap::event::{Declared, EventError};
use ringtap::{Host, thread};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

/// How long to wait for another thread that registers a callsite.
const PATIENCE: u32 = 2000;
const NAP: Duration = Duration::from_millis(1);

/// Where the host is.
#[derive(Debug)]
enum Side {
    /// In this process, or the one that it was forked from.
    Here(Host),
    /// In another one.
    There(Attachment),
}

/// Registers events, one thread of a process at a time.
///
/// A forked child inherits locks that threads hold which it has not. So each process has a lock of its own: a child takes
/// the next one.
#[derive(Debug)]
pub(crate) struct Source {
    host: Side,
    turns: [Turn; GENERATIONS],
    /// Callsites so far, with those that could not be registered.
    callsites: AtomicU32,
    /// What was switched, in this order: patterns, and whether on.
    switched: Mutex<Vec<(String, bool)>>,
    /// Where a forked child finds its parent's host.
    socket: Option<PathBuf>,
}

/// How deep forks may go: children of children. Those below register no callsites that their parents had not met.
const GENERATIONS: usize = 8;

/// One process's turn to register.
#[derive(Debug, Default)]
struct Turn {
    /// The process; 0 while it is nobody's.
    pid: AtomicU32,
    /// The thread that is at it; 0 for none.
    owner: AtomicU32,
    /// How a forked child reaches the host that was in its parent: its own is a copy that nobody else knows.
    to_parent: Mutex<Option<Connection>>,
}

/// The right to register.
pub(crate) struct Registering<'s> {
    source: &'s Source,
    turn: &'s Turn,
    to_parent: MutexGuard<'s, Option<Connection>>,
}

impl Source {
    pub(crate) fn here(host: Host, socket: Option<&Path>) -> Self {
        Self::new(Side::Here(host), socket)
    }

    pub(crate) fn there(attachment: Attachment) -> Self {
        Self::new(Side::There(attachment), None)
    }

    fn new(host: Side, socket: Option<&Path>) -> Self {
        let turns: [Turn; GENERATIONS] = Default::default();
        turns[0].pid.store(std::process::id(), Relaxed);
        let socket = socket.map(Path::to_owned);
        Self { host, turns, callsites: 0.into(), switched: Mutex::default(), socket }
    }

    /// `None` where it is this thread's turn already, or another's for too long.
    pub(crate) fn lock(&self) -> Option<Registering<'_>> {
        let turn = self.turn()?;
        for _ in 0..PATIENCE {
            let to_parent = match turn.to_parent.try_lock() {
                Ok(to_parent) => to_parent,
                // Nothing is half done that a panic could have left behind.
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if turn.owner.load(Relaxed) == thread::id() => return None,
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(NAP);
                    continue;
                }
            };
            turn.owner.store(thread::id(), Relaxed);
            return Some(Registering { source: self, turn, to_parent });
        }
        None
    }

    /// This process's turn.
    fn turn(&self) -> Option<&Turn> {
        let pid = std::process::id();
        // Relaxed: only this process's threads take a turn for it, and they agree on the first that is free.
        self.turns.iter().find(|turn| match turn.pid.compare_exchange(0, pid, Relaxed, Relaxed) {
            Ok(_) => true,
            Err(taken) => taken == pid,
        })
    }

    /// A number for a callsite: from 1 on.
    pub(crate) fn next_number(&self) -> Option<u16> {
        u16::try_from(self.callsites.fetch_add(1, Relaxed) + 1).ok()
    }

    /// Notes what was switched, for events that are registered later.
    pub(crate) fn note_switch(&self, pattern: &str, on: bool) {
        if let Ok(mut switched) = self.switched.try_lock() {
            switched.push((pattern.to_owned(), on));
        }
    }

    /// What was switched so far.
    pub(crate) fn switched(&self) -> Vec<(String, bool)> {
        self.switched.try_lock().map(|switched| switched.clone()).unwrap_or_default()
    }
}

impl Drop for Registering<'_> {
    fn drop(&mut self) {
        self.turn.owner.store(0, Relaxed);
    }
}

impl Registering<'_> {
    pub(crate) fn source(&self) -> &Source {
        self.source
    }

    /// Registers an event. `None` in a forked child that cannot reach its parent's host.
    pub(crate) fn register(&mut self, event: &'static Declared) -> Option<Result<u16, EventError>> {
        match &self.source.host {
            Side::There(attachment) => Some(event.register(attachment)),
            Side::Here(host) if std::ptr::eq(self.turn, &raw const self.source.turns[0]) => {
                Some(event.register(host))
            }
            Side::Here(_) => {
                if self.to_parent.is_none() {
                    *self.to_parent = Connection::connect(self.source.socket.as_ref()?, Role::Writer).ok();
                }
                Some(event.register(self.to_parent.as_ref()?))
            }
        }
    }
}

/// Whether another description has the event's name.
pub(crate) fn is_taken(error: &EventError) -> bool {
    let EventError::Refused { source, .. } = error else { return false };
    match (source.downcast_ref(), source.downcast_ref()) {
        (Some(RegisterError::Conflict { .. }), _) => true,
        (_, Some(AttachError::Refused { errno, .. })) => {
            std::io::Error::from_raw_os_error(*errno).kind() == std::io::ErrorKind::AlreadyExists
        }
        _ => false,
    }
}
