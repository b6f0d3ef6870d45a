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

use super::error::AttachError;
use super::link::Link;
use super::mapped::Mapped;
use super::{Connection, Role, TIMEOUT, TRY_AGAIN, early, fork, place, request};
use crate::board::Board;
use crate::event::registry::RegisterError;
use crate::event::switch::{Switch, Word};
use crate::host::{Config, Host};
use crate::instance::common::Common;
use crate::instance::targets::Targets;
use crate::thread::spawn_without_signals;
use crate::writer::{Lane, Writer};
use ringtap_abi::control::PROTOCOL;
use ringtap_abi::switchboard::{MAX_INSTANCES, TOP};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::inotify;
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How often the link looks for a host where nothing tells it that one has come.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The same where inotify tells: for what it may have missed.
const LOOK_AGAIN_WATCHED: Duration = Duration::from_secs(30);
/// How long a forked child's link waits before it connects: a child that executes a program needs none.
const CHILDS_PAUSE: Duration = Duration::from_millis(20);
/// How often a host that is starting is greeted before it is offered once more what it was offered: another may have begun.
const GREETINGS: u32 = 10;

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

/// What the handles and the link share.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    targets: Arc<Targets>,
    /// The process's own buffers, where it began without a host.
    early: Option<Host>,
    /// What the host is to be given of that; `None` where it is not, or not any more.
    to_hand_over: fork::Lock<Option<early::Ids>>,
    /// Declarations for which there was no host to ask.
    local: OnceLock<Common>,
    /// An eventfd: the last handle is gone.
    stop: OwnedFd,
    state: fork::Lock<State>,
    switches: fork::Lock<Vec<Remembered>>,
    /// The top instance's buffers as they were first known. A forked child has them, whatever its parent was at.
    first: OnceLock<Arc<[Lane]>>,
    /// Whether forked children have a link.
    follows_forks: AtomicBool,
    /// The process whose link this is.
    pid: AtomicU32,
    /// The link's socket, so that a forked child can close its copy; -1 while there is none.
    socket: AtomicI32,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    has_host: bool,
    /// And the events that were declared before look at its switchboard.
    is_attached: bool,
    trouble: Option<String>,
}

/// A host, as far as this process has mapped it.
#[derive(Clone, Debug)]
struct Known {
    board: Arc<Board>,
    /// The host's user.
    user: u32,
    instances: [Option<Mapped>; MAX_INSTANCES],
}

impl Known {
    /// Offers all of it to a host that starts in its host's place: to one of the same user, of ours, or of root. What is
    /// offered can be written.
    fn offer(&self, path: &Path) -> Result<(), AttachError> {
        let mut link = Link::connect(path, TIMEOUT)?;
        let theirs = link.peer().map_err(system("ask who listens"))?.uid;
        if ![self.user, rustix::process::geteuid().as_raw(), 0].contains(&theirs) {
            return Err(AttachError::Stranger { uid: theirs });
        }
        if link.ask(&request(request::OFFER, PROTOCOL, 0), &[])?.value == 0 {
            return Ok(());
        }
        link.ask_with(&request(request::OFFER_SWITCHBOARD, 0, 0), &[], self.board.fd())?;
        for (bit, mapped) in (0u16..).zip(&self.instances) {
            for (cpu, descriptor) in mapped.iter().flat_map(Mapped::descriptors) {
                let header = request(request::OFFER_BUFFER, place(bit, cpu), 0);
                link.ask_with(&header, &[], Some(descriptor.as_fd()))?;
            }
        }
        link.ask(&request(request::OFFER_END, 0, 0), &[]).map(|_| ())
    }
}

/// A switch, and what its event was declared as.
#[derive(Clone, Debug)]
struct Remembered {
    switch: &'static Switch,
    system: String,
    name: String,
    format: String,
}

/// What came of a try to connect.
enum Greeted {
    Connected(Connection),
    /// To a host that is starting: it may not have what this process knows.
    Starting,
    /// The last handle is gone.
    Stopped,
    Nobody(AttachError),
}

/// Why a link stopped following a host.
enum End {
    /// The last handle is gone.
    Stopped,
    Lost(AttachError),
}

impl From<AttachError> for End {
    fn from(error: AttachError) -> Self {
        Self::Lost(error)
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

impl Shared {
    fn new(path: &Path, targets: Arc<Targets>, early: Option<Host>) -> Result<Self, AttachError> {
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self {
            path: path.to_owned(),
            targets,
            early,
            to_hand_over: fork::Lock::default(),
            local: OnceLock::new(),
            stop: stop.map_err(|errno| system("make an eventfd")(errno.into()))?,
            state: fork::Lock::default(),
            switches: fork::Lock::default(),
            first: OnceLock::new(),
            follows_forks: AtomicBool::new(true),
            pid: AtomicU32::new(std::process::id()),
            socket: AtomicI32::new(-1),
        })
    }

    fn local(&self) -> Result<&Common, AttachError> {
        if let Some(early) = &self.early {
            return Ok(early.common());
        }
        if let Some(local) = self.local.get() {
            return Ok(local);
        }
        let common = Common::new(0).map_err(|error| AttachError::Early { source: error.into() })?;
        Ok(self.local.get_or_init(|| common))
    }

    /// Asks the host on a connection of its own: the link's waits for news.
    fn request<R>(&self, ask: impl FnOnce(&Connection) -> Result<R, AttachError>) -> Result<R, AttachError> {
        ask(&Connection::connect_within(&self.path, Role::Writer, TIMEOUT)?)
    }

    fn spawn_link(self: &Arc<Self>, connection: Option<Connection>, pause: Duration) -> std::io::Result<()> {
        let shared = Arc::clone(self);
        let run = move || {
            if pause.is_zero() || !shared.wait(&[], pause) {
                shared.run(connection);
            }
        };
        spawn_without_signals("ringtap-link", run).map(|_| ())
    }

    /// The link's life.
    fn run(&self, mut connection: Option<Connection>) {
        loop {
            let Some(connected) = connection.take().or_else(|| self.connect_when_there()) else { return };
            let end = self.follow(&connected);
            self.socket.store(-1, Relaxed);
            let mut state = self.state.lock();
            (state.has_host, state.is_attached) = (false, false);
            match end {
                End::Stopped => return,
                End::Lost(error) => state.trouble = Some(error.to_string()),
            }
        }
    }

    /// Follows a host until its end, or ours.
    fn follow(&self, connection: &Connection) -> End {
        self.socket.store(connection.link().raw(), Relaxed);
        let follow = || -> Result<(), End> {
            loop {
                let generation = self.update(connection)?;
                connection.await_change(generation, &self.stop)?.ok_or(End::Stopped)?;
            }
        };
        follow().err().unwrap_or(End::Stopped)
    }

    /// Tries to connect until it succeeds; `None` where the last handle is gone.
    fn connect_when_there(&self) -> Option<Connection> {
        loop {
            // Before the try: who comes behind it is told of.
            let watch = self.watch();
            let known = self.state.lock().known.clone();
            // Where there is no host, the same goes for the connection.
            let is_offered = known.is_some_and(|known| known.offer(&self.path).is_ok());
            match self.greet(if is_offered { GREETINGS } else { 1 }) {
                Greeted::Connected(connection) => return Some(connection),
                Greeted::Starting => continue,
                Greeted::Stopped => return None,
                Greeted::Nobody(error) => self.state.lock().trouble = Some(error.to_string()),
            }
            let is_stopped = match &watch {
                Some(watch) => self.wait(&[watch], LOOK_AGAIN_WATCHED),
                None => self.wait(&[], LOOK_AGAIN),
            };
            if is_stopped {
                return None;
            }
        }
    }

    /// Connects; so many times to a host that is starting in a dead one's place, and takes no connections yet.
    fn greet(&self, times: u32) -> Greeted {
        for _ in 0..times {
            match Connection::greet(&self.path, Role::Writer, TIMEOUT) {
                Ok(connection) => return Greeted::Connected(connection),
                Err(error) if error.is_starting() => {
                    if self.wait(&[], TRY_AGAIN) {
                        return Greeted::Stopped;
                    }
                }
                Err(error) => return Greeted::Nobody(error),
            }
        }
        Greeted::Starting
    }

    /// Tells when files are made in the socket's directory.
    fn watch(&self) -> Option<OwnedFd> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).ok()?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // A socket's file is there before anybody listens: then the host touches it.
        let events =
            inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ATTRIB;
        inotify::add_watch(&watch, directory.unwrap_or(Path::new(".")), events).ok()?;
        Some(watch)
    }

    /// Waits until one of them is readable, for a while; whether the last handle is gone.
    fn wait(&self, for_what: &[&OwnedFd], timeout: Duration) -> bool {
        let mut fds = vec![PollFd::new(&self.stop, PollFlags::IN)];
        fds.extend(for_what.iter().map(|fd| PollFd::new(*fd, PollFlags::IN)));
        let timeout = Timespec::try_from(timeout).ok();
        while let Err(Errno::INTR) = rustix::event::poll(&mut fds, timeout.as_ref()) {}
        !fds[0].revents().is_empty()
    }

    /// Maps what is new at the host; returns the generation that is known now.
    ///
    /// Asks the host without holding a lock: a fork meanwhile leaves the child all that is known.
    fn update(&self, connection: &Connection) -> Result<u32, AttachError> {
        let board = Arc::clone(connection.board()?);
        // S5: pairs with the Release in `Common::changed`: the entries are at least what this generation says.
        let generation = board.head().generation.load(Acquire);
        let known = self.state.lock().known.clone();
        let (known, done) = match known.filter(|known| known.board.host_id() == board.host_id()) {
            Some(mut known) => {
                let done = self.map_instances(&mut known, connection);
                (known, done)
            }
            None => (self.go_over(&board, connection)?, Ok(())),
        };
        if let Some(top) = &known.instances[0] {
            self.first.get_or_init(|| Arc::clone(&top.lanes));
        }
        // Also where the host died half-way: the writers have what was mapped until then, and the next host may have
        // another buffer in its place.
        self.state.lock().known = Some(known);
        done?;
        let mut state = self.state.lock();
        (state.has_host, state.trouble) = (true, None);
        drop(state);
        // What was declared elsewhere since.
        self.move_switches(connection)?;
        self.hand_over(connection)?;
        self.state.lock().is_attached = true;
        Ok(generation)
    }

    /// Goes over to another host than the one that was known, or from none to the first.
    ///
    /// First all that has to be asked; then the writers are sent to its buffers, and right behind that the events are
    /// pointed at its words. Records that were built with an old id and come between are refused and counted, as
    /// they would be other events there.
    fn go_over(&self, board: &Arc<Board>, connection: &Connection) -> Result<Known, AttachError> {
        let declared = self.declare_again(connection)?;
        let user = connection.link().peer().map_err(system("ask who listens"))?.uid;
        let mut known = Known { board: Arc::clone(board), user, instances: [const { None }; MAX_INSTANCES] };
        self.map_instances(&mut known, connection)?;
        for (bit, _) in known.instances.iter().enumerate().filter(|(_, mapped)| mapped.is_none()) {
            self.targets.set(bit, None, board);
        }
        self.targets.set_board(board);
        self.leave();
        declared.into_iter().for_each(|(switch, word)| switch.move_to(word));
        Ok(known)
    }

    /// Gives the host what was written before it came, where that was asked. What it refuses stays here.
    fn hand_over(&self, connection: &Connection) -> Result<(), AttachError> {
        let mut ids = self.to_hand_over.lock();
        let (Some(known), Some(early)) = (&mut *ids, &self.early) else { return Ok(()) };
        match early::hand_over(early, known, connection) {
            Err(error) if error.is_gone() => return Err(error),
            Err(error) => self.state.lock().trouble = Some(error.to_string()),
            Ok(()) => {}
        }
        *ids = None;
        Ok(())
    }

    /// Maps the instances whose buffers are not those that are known.
    fn map_instances(&self, known: &mut Known, connection: &Connection) -> Result<(), AttachError> {
        for (bit, place) in (0u16..).zip(&mut known.instances) {
            let entry = known.board.entry(bit.into());
            // S5: as above.
            let epoch = entry.epoch.load(Acquire);
            let lineage = entry.lineage.load(Relaxed);
            // Where it is replaced meanwhile, the generation grows, and it is looked at again.
            match place {
                None if epoch == 0 => continue,
                Some(mapped) if mapped.epoch == epoch && !mapped.is_ahead() => continue,
                _ => {}
            }
            let mapped = match place {
                Some(mapped) if mapped.lineage == lineage => {
                    mapped.follow(connection, bit).map(|()| mapped.epoch = epoch).map(|()| None)
                }
                _ => Mapped::new(connection, bit, epoch, lineage).map(Some),
            };
            let mapped = match mapped {
                Ok(None) => continue,
                Ok(Some(mapped)) => mapped,
                Err(error) if error.is_missing() && bit > 0 => Mapped::nothing(epoch, lineage),
                Err(error) => return Err(error),
            };
            let lanes = Some(&mapped.lanes).filter(|lanes| !lanes.is_empty());
            let writer = lanes.map(|lanes| Writer::of_lanes(Arc::clone(lanes), None));
            self.targets.set(bit.into(), writer, &known.board);
            // Its host does the same, if it lives.
            let old = place.replace(mapped);
            if let (Some(old), Some(new)) = (old, &place)
                && !old.shares(new)
            {
                old.retire();
            }
        }
        Ok(())
    }

    /// Sends the writers from a host that is no more, or from the early buffers, to the new one.
    fn leave(&self) {
        if let Some(old) = &self.state.lock().known {
            old.instances.iter().flatten().for_each(Mapped::retire);
        }
        if let Some(early) = &self.early {
            early.retire();
        }
    }

    /// Whether a switch looks at another switchboard than the host's.
    fn is_behind(&self, switch: &Switch) -> bool {
        let state = self.state.lock();
        state.has_host && state.known.as_ref().is_some_and(|known| !known.board.owns(switch.home()))
    }

    /// Declares with the host what was declared elsewhere, and points its switches here.
    fn move_switches(&self, connection: &Connection) -> Result<(), AttachError> {
        let declared = self.declare_again(connection)?;
        declared.into_iter().for_each(|(switch, word)| switch.move_to(word));
        Ok(())
    }

    /// Declares with the host what was declared elsewhere; returns where each switch is to point. What the host refuses
    /// is off there.
    fn declare_again(&self, connection: &Connection) -> Result<Vec<(&'static Switch, Word)>, AttachError> {
        let board = connection.board()?;
        let elsewhere: Vec<Remembered> = {
            let mut switches = self.switches.lock();
            // Unregistered by the application.
            switches.retain(|remembered| !remembered.switch.home().is_null());
            switches.iter().filter(|each| !board.owns(each.switch.home())).cloned().collect()
        };
        let declare = |each: Remembered| {
            let word = match connection.register_event(&each.system, &each.name, &each.format) {
                Ok(id) => Word::new(board.word_for_ever(id)),
                Err(AttachError::Refused { .. }) => Word::nowhere(each.switch.id().unwrap_or(0)),
                Err(error) => return Err(error),
            };
            Ok((each.switch, word))
        };
        elsewhere.into_iter().map(declare).collect()
    }

    /// In a forked child, where no other thread is: begins anew with what is mapped.
    ///
    /// # Safety
    /// This thread is the only one of its process, and holds none of the locks.
    pub(super) unsafe fn after_fork(self: &Arc<Self>) {
        // SAFETY: as the caller says.
        unsafe { self.state.renew() };
        // SAFETY: as above.
        unsafe { self.switches.renew() };
        // SAFETY: as above.
        unsafe { self.to_hand_over.renew() };
        *self.to_hand_over.lock() = None;
        let socket = self.socket.swap(-1, Relaxed);
        if socket >= 0 {
            // SAFETY: the link's own, whose thread is not here: nobody uses this copy.
            unsafe { libc::close(socket) };
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let Ok(stop) = rustix::event::eventfd(0, flags) else { return };
        // The parent's handles stop the parent's link.
        // SAFETY: replaces a descriptor of this process by another one of the same kind.
        if unsafe { libc::dup3(stop.as_raw_fd(), self.stop.as_raw_fd(), libc::O_CLOEXEC) } < 0 {
            return;
        }
        self.pid.store(std::process::id(), Relaxed);
        if !self.follows_forks.load(Relaxed) {
            return;
        }
        // Without the thread, the child writes on with what is mapped.
        let _ = self.spawn_link(None, CHILDS_PAUSE);
    }
}

fn refused(error: RegisterError) -> AttachError {
    AttachError::Refused { errno: Errno::INVAL.raw_os_error(), reason: error.to_string() }
}

fn system(action: &'static str) -> impl FnOnce(std::io::Error) -> AttachError {
    move |source| AttachError::System { action, source }
}
