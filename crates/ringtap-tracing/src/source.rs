//! Who gives events their ids: a host in this process or another. What is asked of it may take a while, but never
//! forever: a signal handler may ask while its own thread does, and a forked child while a thread that it has not did.

use ringtap::attach::{AttachError, Connection, Role};
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

/// A host, or a connection to one.
#[derive(Debug)]
enum Side {
    Here(Host),
    There(Connection),
}

/// Registers events, one thread at a time.
#[derive(Debug)]
pub(crate) struct Source {
    state: Mutex<State>,
    /// The thread that is at it; 0 for none.
    owner: AtomicU32,
    /// Where a forked child finds the host; its parent's connection is not for it.
    socket: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct State {
    host: Side,
    /// The process that `host` is of.
    pid: u32,
    /// Callsites so far.
    pub(crate) callsites: u16,
    /// What was switched, in this order: patterns, and whether on.
    pub(crate) switched: Vec<(String, bool)>,
}

/// The right to register.
pub(crate) struct Registering<'s> {
    source: &'s Source,
    state: MutexGuard<'s, State>,
}

impl Source {
    pub(crate) fn here(host: Host, socket: Option<&Path>) -> Self {
        Self::new(Side::Here(host), socket)
    }

    pub(crate) fn there(connection: Connection, socket: Option<&Path>) -> Self {
        Self::new(Side::There(connection), socket)
    }

    fn new(host: Side, socket: Option<&Path>) -> Self {
        let state = State { host, pid: std::process::id(), callsites: 0, switched: Vec::new() };
        Self { state: Mutex::new(state), owner: AtomicU32::new(0), socket: socket.map(Path::to_owned) }
    }

    /// `None` where it is this thread's turn already, or another's for too long.
    pub(crate) fn lock(&self) -> Option<Registering<'_>> {
        for _ in 0..PATIENCE {
            let state = match self.state.try_lock() {
                Ok(state) => state,
                // Nothing is half done that a panic could have left behind.
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if self.owner.load(Relaxed) == thread::id() => return None,
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(NAP);
                    continue;
                }
            };
            self.owner.store(thread::id(), Relaxed);
            return Some(Registering { source: self, state });
        }
        None
    }
}

impl Drop for Registering<'_> {
    fn drop(&mut self) {
        self.source.owner.store(0, Relaxed);
    }
}

impl Registering<'_> {
    pub(crate) fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// Registers an event. `None` in a forked child that cannot reach the host: its copy is known to nobody.
    pub(crate) fn register(&mut self, event: &Declared) -> Option<Result<u16, EventError>> {
        self.follow_fork()?;
        Some(match &self.state.host {
            Side::Here(host) => event.register(host),
            Side::There(connection) => event.register(connection),
        })
    }

    /// In a forked child, finds the host anew: the parent's connection is not for it.
    fn follow_fork(&mut self) -> Option<()> {
        let pid = std::process::id();
        if self.state.pid != pid {
            let connection = Connection::connect(self.source.socket.as_ref()?, Role::Writer).ok()?;
            self.state.host = Side::There(connection);
            self.state.pid = pid;
        }
        Some(())
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
