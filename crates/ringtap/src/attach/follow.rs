//! The life of a link, in a thread of its own: it connects, offers what it knows to a host that takes a dead one's place,
//! maps what is new, and points writers and switches there.

use super::connection::{Connection, Role, TIMEOUT, TRY_AGAIN, place, request};
use super::error::AttachError;
use super::link::Link;
use super::mapped::Mapped;
use super::{early, fork};
use crate::board::Board;
use crate::event::registry::RegisterError;
use crate::event::switch::{Switch, Word};
use crate::host::Host;
use crate::instance::common::Common;
use crate::instance::targets::Targets;
use crate::thread::spawn_without_signals;
use crate::writer::{Lane, Writer};
use ringtap_abi::control::{PROTOCOL, request};
use ringtap_abi::switchboard::MAX_INSTANCES;
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

/// What the handles and the link share.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    pub(super) targets: Arc<Targets>,
    /// The process's own buffers, where it began without a host.
    pub(super) early: Option<Host>,
    /// What the host is to be given of that; `None` where it is not, or not any more.
    pub(super) to_hand_over: fork::Lock<Option<early::Ids>>,
    /// Declarations for which there was no host to ask.
    local: OnceLock<Common>,
    /// An eventfd: the last handle is gone.
    pub(super) stop: OwnedFd,
    pub(super) state: fork::Lock<State>,
    pub(super) switches: fork::Lock<Vec<Remembered>>,
    /// The top instance's buffers as they were first known. A forked child has them, whatever its parent was at.
    pub(super) first: OnceLock<Arc<[Lane]>>,
    /// Whether forked children have a link.
    pub(super) follows_forks: AtomicBool,
    /// The process whose link this is.
    pub(super) pid: AtomicU32,
    /// The link's socket, so that a forked child can close its copy; -1 while there is none.
    socket: AtomicI32,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) known: Option<Known>,
    pub(super) has_host: bool,
    /// And the events that were declared before look at its switchboard.
    pub(super) is_attached: bool,
    pub(super) trouble: Option<String>,
}

/// A host, as far as this process has mapped it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    board: Arc<Board>,
    /// The host's user.
    user: u32,
    pub(super) instances: [Option<Mapped>; MAX_INSTANCES],
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
pub(super) struct Remembered {
    pub(super) switch: &'static Switch,
    pub(super) system: String,
    pub(super) name: String,
    pub(super) format: String,
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

impl Shared {
    pub(super) fn new(path: &Path, targets: Arc<Targets>, early: Option<Host>) -> Result<Self, AttachError> {
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

    pub(super) fn local(&self) -> Result<&Common, AttachError> {
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
    pub(super) fn request<R>(
        &self,
        ask: impl FnOnce(&Connection) -> Result<R, AttachError>,
    ) -> Result<R, AttachError> {
        ask(&Connection::connect_within(&self.path, Role::Writer, TIMEOUT)?)
    }

    pub(super) fn spawn_link(
        self: &Arc<Self>,
        connection: Option<Connection>,
        pause: Duration,
    ) -> std::io::Result<()> {
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
                End::Lost(error) => {
                    state.trouble = Some(error.to_string());
                    drop(state);
                    // With the host alive, the same would come again at once, and again.
                    if !error.is_gone() && self.wait(&[], TRY_AGAIN) {
                        return;
                    }
                }
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
    pub(super) fn update(&self, connection: &Connection) -> Result<u32, AttachError> {
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
    pub(super) fn is_behind(&self, switch: &Switch) -> bool {
        let state = self.state.lock();
        state.has_host && state.known.as_ref().is_some_and(|known| !known.board.owns(switch.home()))
    }

    /// Declares with the host what was declared elsewhere, and points its switches here.
    pub(super) fn move_switches(&self, connection: &Connection) -> Result<(), AttachError> {
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

pub(super) fn refused(error: RegisterError) -> AttachError {
    AttachError::Refused { errno: Errno::INVAL.raw_os_error(), reason: error.to_string() }
}

pub(super) fn system(action: &'static str) -> impl FnOnce(std::io::Error) -> AttachError {
    move |source| AttachError::System { action, source }
}
