//! A process's standing attachment to a host: it follows the host's instances, survives the host, and may begin
//! before there is one.
//!
//! ```text
//!   any thread ──── Writer ── loads pointers, nothing else ──┐
//!                                                            ├── Targets: a writer for each instance
//!   "ringtap-link" ── connects, maps ahead, swaps pointers ──┘
//!        └─ sleeps in poll: until the host announces a change, ends, or comes (inotify)
//! ```
//!
//! Nothing that writes events ever waits for the link. What the host announces while the link is stopped is missed
//! until the link goes on.

use super::connection::{Connection, Role};
use super::error::AttachError;
use super::follow::{Remembered, Shared, refused, system};
use super::{early, fork};
use crate::event::switch::{Switch, Word};
use crate::host::{Config, Host};
use crate::instance::common::Common;
use crate::instance::targets::Targets;
use crate::writer::Writer;
use ringtap_abi::switchboard::TOP;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What becomes of events that are written before there is a host.
#[derive(Clone, Debug)]
pub enum Early {
    /// They are off.
    Off,
    /// All events are on, and go to buffers of the process's own, made like this. The host's buffers replace them when
    /// it comes; [`Attachment::early`] still has them.
    Keep(Config),
    /// As with `Keep`; and when the host comes, it is given the buffers: as the instance `early-PID`, in which all those
    /// events are read as others are. It takes no more events. What a forked child wrote early is its parent's to give.
    HandOver(Config),
}

/// A process's attachment to a host. Clones are handles of the same; with the last one it ends, and writers go on
/// with the instances that they know.
///
/// In a forked child it goes on with a link of its own: a thread, which a child that makes itself a sandbox may not have
/// (`unshare(CLONE_NEWUSER)` fails in a process of several threads). For those see
/// [`set_follows_forks`](Self::set_follows_forks).
#[derive(Clone, Debug)]
pub struct Attachment {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A child that came about without `fork` has the parent's eventfd.
        if self.shared.pid.load(Relaxed) != std::process::id() {
            return;
        }
        // Cannot fail: a counter at 0 takes any number but u64::MAX.
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_le_bytes());
    }
}

impl Attachment {
    /// Attaches to the host at `path`.
    ///
    /// # Errors
    /// [`AttachError`] says what is in the way.
    pub fn attach(path: impl AsRef<Path>) -> Result<Self, AttachError> {
        let connection = Connection::connect(&path, Role::Writer)?;
        let targets = Arc::new(Targets::new(Arc::clone(connection.board()?)));
        let shared = Shared::new(path.as_ref(), targets, None)?;
        shared.update(&connection)?;
        Self::start(shared, Some(connection))
    }

    /// Attaches to the host at `path` as soon as there is one, and returns at once.
    ///
    /// # Errors
    /// [`AttachError`] where the process cannot make what it needs itself.
    pub fn attach_early(path: impl AsRef<Path>, early: Early) -> Result<Self, AttachError> {
        let failed = |source| AttachError::Early { source };
        let hands_over = matches!(early, Early::HandOver(_));
        let (config, on) = match early {
            // Memory that writers can look at, and that no event is written to.
            Early::Off => (Config { ring_subbufs: 2, off: true, ..Config::default() }, 0),
            Early::Keep(config) | Early::HandOver(config) => (config, TOP),
        };
        let common = Arc::new(Common::new(on).map_err(|error| failed(error.into()))?);
        let host = Host::with(&config, &common, None, 0).map_err(failed)?;
        if on == 0 {
            host.retire();
        }
        let shared = Shared::new(path.as_ref(), Arc::clone(common.targets()), Some(host))?;
        *shared.to_hand_over.lock() = hands_over.then(early::Ids::default);
        Self::start(shared, None)
    }

    fn start(shared: Shared, connection: Option<Connection>) -> Result<Self, AttachError> {
        let shared = Arc::new(shared);
        fork::watch(&shared);
        let handle = Arc::new(Handle { shared: Arc::clone(&shared) });
        shared.spawn_link(connection, Duration::ZERO).map_err(system("start the link's thread"))?;
        Ok(Self { handle })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// A writer of this process: typed events go to each instance in which they are on, all else to the top one.
    ///
    /// # Panics
    /// Never: there is a host, or the process's own buffers.
    #[must_use]
    pub fn writer(&self) -> Writer {
        let shared = self.shared();
        let state = shared.state.lock();
        let top = state.known.as_ref().and_then(|known| known.instances[0].as_ref());
        match (top.map(|top| &top.lanes), &shared.early) {
            (Some(lanes), _) => Writer::of_lanes(Arc::clone(lanes), Some(Arc::clone(&shared.targets))),
            (None, Some(early)) => early.writer(),
            (None, None) => {
                let first = shared.first.get().expect("without a host, there are early buffers");
                Writer::of_lanes(Arc::clone(first), Some(Arc::clone(&shared.targets)))
            }
        }
    }

    /// Whether children that this process forks, and that execute no other program, have a link of their own, as they
    /// have at first. Without one they go on with the buffers and instances that are known when they are forked: after
    /// a resize their events are refused, and counted as dropped.
    pub fn set_follows_forks(&self, follows: bool) {
        self.shared().follows_forks.store(follows, Relaxed);
    }

    /// Whether there is a host, its instances are known, and it switches the events declared so far.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.shared().state.lock().is_attached
    }

    /// What keeps the process from its host, when it was last tried.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared().state.lock().trouble.clone()
    }

    /// The process's own buffers, where it began with [`Early::Keep`] or [`Early::HandOver`]: what was written before there
    /// was a host. Those that are handed over are the host's to read.
    #[must_use]
    pub fn early(&self) -> Option<&Host> {
        self.shared().early.as_ref().filter(|host| host.common().new_events() != 0)
    }

    /// Declares an event with the host; without one, for now in this process alone.
    pub(crate) fn declare_event(
        &self,
        system: &str,
        name: &str,
        format: &str,
    ) -> Result<(u16, Option<Word>), AttachError> {
        let shared = self.shared();
        if shared.state.lock().has_host {
            let declared = shared.request(|connection| {
                let id = connection.register_event(system, name, format)?;
                Ok((id, Some(Word::new(connection.board()?.word_for_ever(id)))))
            });
            match declared {
                Err(error) if error.is_gone() => {}
                declared => return declared,
            }
        }
        let common = shared.local()?;
        let id = common.declare(system, name, format).map_err(refused)?;
        Ok((id, Some(common.word(id))))
    }

    /// Keeps a switch, to move it where another host comes.
    pub(crate) fn remember_switch(&self, switch: &'static Switch, system: &str, name: &str, format: &str) {
        let shared = self.shared();
        let is_it = |known: &Remembered| std::ptr::eq(known.switch, switch);
        let mut switches = shared.switches.lock();
        if !switches.iter().any(is_it) {
            let [system, name, format] = [system, name, format].map(str::to_owned);
            switches.push(Remembered { switch, system, name, format });
        }
        drop(switches);
        // The host may have come between declaring and remembering. Where it went again, the link will do it.
        if shared.is_behind(switch) {
            let _ = shared.request(|connection| shared.move_switches(connection));
        }
    }
}
