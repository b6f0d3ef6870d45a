//! A connection to a host: each of its calls asks the host one thing, and ends in bounded time.

use super::error::AttachError;
use super::link::{Link, Reply};
use crate::board::{self, Board};
use crate::clock::ClockId;
use crate::event::registry::Event;
use crate::instance::targets::Targets;
use crate::map::{self, Access, Mapping};
use crate::serve::TreeCall;
use crate::stats::Stats;
use crate::writer::{OnBoard, Writer};
use ringtap_abi::control::split_event;
use ringtap_abi::control::{Counters, Header, HostInfo, PROTOCOL, Part, at, cpus_of, request, role};
use ringtap_abi::switchboard::MAX_INSTANCES;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a host may take to answer, where nothing else is said.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait between two tries to greet a host that is just starting.
pub(super) const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Highest number of CPUs that a kernel can be built for, on any architecture.
const MAX_CPUS: u32 = 8192;
/// More buffers of a CPU than a host keeps unread: where one tells of more, it is not believed.
const MOST_BUFFERS: usize = 64;

/// The environment variable that tells a program which host to attach to: the path of its socket.
pub const SOCKET_VARIABLE: &str = "RINGTAP_SOCKET";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Writes events: the host gives read-write descriptors.
    Writer,
    /// Reads, watches, controls: the host gives read-only descriptors.
    Reader,
}

/// Attaches to the host at `path` and maps all buffers for writing. The connection is closed again: to declare
/// events, make a [`Connection`] and take the writer from it.
///
/// # Errors
/// [`AttachError`] says what is in the way.
pub fn writer(path: impl AsRef<Path>) -> Result<Writer, AttachError> {
    Connection::connect(path, Role::Writer)?.writer()
}

/// A connection to a host. Threads may share it: their requests take turns.
///
/// After an answer that did not come in time, or made no sense, all further requests fail at once.
#[derive(Debug)]
pub struct Connection {
    link: Mutex<Link>,
    role: Role,
    info: HostInfo,
    cpus: Vec<u32>,
    /// Whose buffers are meant: the top one's, where nothing is said.
    instance: u16,
    /// The host's switchboard, once it was asked for.
    board: OnceLock<Arc<Board>>,
    /// Whether what is made of the connection may keep descriptors open.
    keeps_descriptors: bool,
}

impl Connection {
    /// Connects to the host whose socket is at `path`. Each request may take 5 seconds.
    ///
    /// # Errors
    /// [`AttachError`] says what is in the way.
    pub fn connect(path: impl AsRef<Path>, role: Role) -> Result<Self, AttachError> {
        Self::connect_within(path, role, TIMEOUT)
    }

    /// Connects to the host that the environment names in [`SOCKET_VARIABLE`]; `None` where it names none.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn from_environment(role: Role) -> Result<Option<Self>, AttachError> {
        let path = std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
        path.map(|path| Self::connect(path, role)).transpose()
    }

    /// Connects, and lets the host take `timeout` to answer each request.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_within(
        path: impl AsRef<Path>,
        role: Role,
        timeout: Duration,
    ) -> Result<Self, AttachError> {
        let until = Instant::now() + timeout;
        loop {
            match Self::greet(path.as_ref(), role, timeout) {
                // It is just taking over from another.
                Err(error) if error.is_starting() && Instant::now() < until => std::thread::sleep(TRY_AGAIN),
                connected => return connected,
            }
        }
    }

    pub(super) fn greet(path: &Path, role: Role, timeout: Duration) -> Result<Self, AttachError> {
        let mut link = Link::connect(path, timeout)?;
        let value = match role {
            Role::Writer => role::WRITER,
            Role::Reader => role::READER,
        };
        let hello = Header { kind: request::HELLO, cpu: PROTOCOL, value };
        let reply = link.ask(&hello, &[])?;
        let (info, bitmap) =
            HostInfo::split(reply.body).ok_or(AttachError::Protocol("its greeting is too short"))?;
        let cpus: Vec<u32> = cpus_of(bitmap).collect();
        if cpus.is_empty() || cpus.iter().any(|&cpu| cpu >= MAX_CPUS) {
            return Err(AttachError::Protocol("its CPUs are none, or more than Linux can have"));
        }
        let (link, board) = (Mutex::new(link), OnceLock::new());
        Ok(Self { link, role, info, cpus, instance: 0, board, keeps_descriptors: true })
    }

    /// The CPUs that have a buffer.
    #[must_use]
    pub fn cpus(&self) -> &[u32] {
        &self.cpus
    }

    /// The clock that stamps events; `None` where this release does not know it.
    #[must_use]
    pub fn clock(&self) -> Option<ClockId> {
        ClockId::from_number(self.info.clock)
    }

    /// How full a buffer is when readers are woken, in percent.
    #[must_use]
    pub fn buffer_percent(&self) -> u8 {
        u8::try_from(self.info.buffer_percent).unwrap_or(100).min(100)
    }

    /// Means the buffers of the instance of this name from now on: `None` where the host has none.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn of_instance(mut self, name: &str) -> Result<Option<Self>, AttachError> {
        let mut next = 0;
        while let Some((bit, info, its_name)) = self.next_instance(next)? {
            if bit > 0 && its_name == name {
                (self.instance, self.info) = (bit, info);
                return Ok(Some(self));
            }
            next = bit + 1;
        }
        Ok(None)
    }

    /// The names of the host's instances; the top one has none.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn instances(&self) -> Result<Vec<String>, AttachError> {
        let (mut names, mut next) = (Vec::new(), 1);
        while let Some((bit, _, name)) = self.next_instance(next)? {
            names.push(name);
            next = bit + 1;
        }
        Ok(names)
    }

    fn next_instance(&self, from: u16) -> Result<Option<(u16, HostInfo, String)>, AttachError> {
        let mut link = self.link();
        let reply = link.ask(&request(request::NEXT_INSTANCE, 0, from.into()), &[])?;
        if reply.body.is_empty() {
            return Ok(None);
        }
        let bit =
            u16::try_from(reply.value).ok().filter(|&bit| bit >= from && usize::from(bit) < MAX_INSTANCES);
        let next = bit.zip(HostInfo::split(reply.body));
        let (bit, (info, name)) = next.ok_or(AttachError::Protocol("its instance is none"))?;
        Ok(Some((bit, info, String::from_utf8_lossy(name).into_owned())))
    }

    /// Has the host's tree answer a call: what a `trace-cmd` would do with files.
    ///
    /// # Errors
    /// [`AttachError::Refused`] with the number that the kernel would give.
    pub fn tree(&self, path: &str, call: TreeCall<'_>) -> Result<Vec<u8>, AttachError> {
        let (kind, value, bytes) = match call {
            TreeCall::Read(from) => (request::TREE_READ, from, None),
            TreeCall::Write(bytes) => (request::TREE_WRITE, 0, Some(bytes)),
            TreeCall::List(from) => (request::TREE_LIST, from, None),
            TreeCall::Mkdir => (request::TREE_MKDIR, 0, None),
            TreeCall::Rmdir => (request::TREE_RMDIR, 0, None),
        };
        let mut body = path.as_bytes().to_vec();
        if let Some(bytes) = bytes {
            body.push(0);
            body.extend_from_slice(bytes);
        }
        Ok(self.link().ask(&request(kind, 0, value), &body)?.body.to_vec())
    }

    /// A writer for all CPUs. It needs the connection no more.
    ///
    /// # Errors
    /// [`AttachError::Map`] where what the host gave is no buffer; a reader's connection gets none that can be
    /// written.
    pub fn writer(&self) -> Result<Writer, AttachError> {
        self.check_cpus()?;
        let map = |&cpu: &u32| self.map(cpu, Access::Write).map(Arc::new);
        let mappings = self.cpus.iter().map(map).collect::<Result<_, _>>()?;
        let board = self.board()?;
        let on_board = OnBoard { board: Arc::clone(board), instance: self.instance.into() };
        let targets = Targets::new(Arc::clone(board));
        Ok(Writer::new(mappings, Some(&on_board), Some(Arc::new(targets))))
    }

    /// The host's switchboard, mapped. All connections of this process to the same host share its mapping, so that an event's
    /// word is there as long as anybody writes.
    pub(crate) fn board(&self) -> Result<&Arc<Board>, AttachError> {
        if let Some(board) = self.board.get() {
            return Ok(board);
        }
        if let Some(board) = board::find(self.info.host_id) {
            return Ok(self.board.get_or_init(|| board));
        }
        let (descriptor, has_file) = self.switchboard_descriptor(0)?;
        let tasks = has_file.then(|| self.switchboard_descriptor(1)).transpose()?.map(|(tasks, _)| tasks);
        let board = board::shared(descriptor, tasks, self.keeps_descriptors)
            .map_err(|source| AttachError::Switchboard { source })?;
        Ok(self.board.get_or_init(|| board))
    }

    /// The switchboard, or with 1 the file of its tasks; and whether there is that one.
    pub(super) fn switchboard_descriptor(&self, which: u64) -> Result<(OwnedFd, bool), AttachError> {
        let mut link = self.link();
        let reply = link.ask(&request(request::GET_SWITCHBOARD, 0, which), &[])?;
        let has_file = reply.value == 1;
        Ok((reply.descriptor.ok_or(AttachError::Protocol("it gave no descriptor"))?, has_file))
    }

    /// Leaves no descriptor open behind the connection, in a process that counts and closes its own: its writers, and the
    /// events declared with it, work by what is mapped alone.
    #[must_use]
    pub fn without_descriptors(mut self) -> Self {
        self.keeps_descriptors = false;
        self
    }

    /// A CPU's buffer as a descriptor: read-only for readers, read-write for writers. It can be passed on to a
    /// process that may not attach itself.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn descriptor(&self, cpu: u32) -> Result<OwnedFd, AttachError> {
        self.descriptor_after(self.instance, cpu, 0)
    }

    /// The descriptors of all of a CPU's buffers that are not read to the end, from the one that is read to the one that is
    /// written; more than one where it was resized. Where the host ends meanwhile, those that it gave.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn descriptors(&self, cpu: u32) -> Result<Vec<OwnedFd>, AttachError> {
        let inode = |fd: &OwnedFd| {
            let file = map::File::of(fd.as_fd()).map_err(|source| AttachError::Map { cpu, source })?;
            Ok::<_, AttachError>(file.inode())
        };
        let mut all = vec![self.descriptor(cpu)?];
        let mut known = inode(&all[0])?;
        for _ in 0..MOST_BUFFERS {
            let Ok(next) = self.descriptor_behind(cpu, known) else { break };
            let next_known = inode(&next)?;
            if next_known == known {
                break;
            }
            known = next_known;
            all.push(next);
        }
        Ok(all)
    }

    /// The descriptor of the buffer behind the file of the inode `known`, or as [`request::GET_BUFFER`] says.
    pub(super) fn descriptor_after(
        &self,
        instance: u16,
        cpu: u32,
        known: u64,
    ) -> Result<OwnedFd, AttachError> {
        let mut link = self.link();
        let reply = link.ask(&request(request::GET_BUFFER, place(instance, cpu), known), &[])?;
        reply.descriptor.ok_or(AttachError::Protocol("it gave no descriptor"))
    }

    /// As [`descriptor`](Self::descriptor), for who reads without consuming and knows the buffer of this inode.
    pub(crate) fn descriptor_behind(&self, cpu: u32, known: u64) -> Result<OwnedFd, AttachError> {
        self.descriptor_after(self.instance, cpu, known)
    }

    /// Whether a CPU's buffer is `percent` full (0: whether there is anything to read). Where it is not, the
    /// writers wake its sleepers when it may be.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn arm(&self, cpu: u32, percent: u8) -> Result<bool, AttachError> {
        Ok(self.ask(request::ARM, cpu, percent.into())? != 0)
    }

    /// Sends away all who sleep on a CPU's buffer.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn wake_all(&self, cpu: u32) -> Result<(), AttachError> {
        self.ask(request::WAKE_ALL, cpu, 0).map(|_| ())
    }

    /// A CPU's counters.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn stats(&self, cpu: u32) -> Result<Stats, AttachError> {
        let mut link = self.link();
        let reply = link.ask(&request(request::STATS, place(self.instance, cpu), 0), &[])?;
        let (Counters(numbers), _) =
            Counters::split(reply.body).ok_or(AttachError::Protocol("its counters are too few"))?;
        Ok(Stats::from_array(numbers))
    }

    /// Empties all buffers and sets their counters to 0.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn reset(&self) -> Result<(), AttachError> {
        self.ask(request::RESET, 0, 0).map(|_| ())
    }

    /// Switches recording on or off, for all writers at once.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn set_recording(&self, on: bool) -> Result<(), AttachError> {
        self.ask(request::RECORD, 0, on.into()).map(|_| ())
    }

    /// Has the events of this name (`SYSTEM:EVENT`, `SYSTEM:*`, or one name of either) switch recording off with their
    /// next record, in all processes: those that are declared, and others as soon as they are. It is taken back when this
    /// connection ends.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn stop_at(&self, events: &str) -> Result<(), AttachError> {
        let request = request(request::STOP_AT, place(self.instance, 0), 0);
        self.link().ask(&request, events.as_bytes()).map(|_| ())
    }

    /// The host's process; `None` where it has no number here.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn host_pid(&self) -> std::io::Result<Option<u32>> {
        Ok(Some(self.link().peer()?.pid).filter(|&pid| pid != 0))
    }

    /// Declares an event: `format` is the text of a kernel `format` file, whose `ID:` line the host fills in.
    /// Returns the id for its records' `common_type`; the same declaration, by whatever process, has the same id.
    ///
    /// # Errors
    /// [`AttachError::Refused`] with the host's sentence where it is no event, or differs from one declared under
    /// this name.
    pub fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, AttachError> {
        // A line break would move the border between the texts; no name has one.
        if system.contains('\n') || name.contains('\n') {
            return Err(AttachError::Refused {
                errno: rustix::io::Errno::INVAL.raw_os_error(),
                reason: "an event's names cannot contain line breaks: use letters, digits and underscores"
                    .into(),
            });
        }
        let body = format!("{system}\n{name}\n{format}");
        let mut link = self.link();
        let reply = link.ask(&request(request::REGISTER, 0, 0), body.as_bytes())?;
        u16::try_from(reply.value).map_err(|_| AttachError::Protocol("its event id is above 65,535"))
    }

    /// Hands over buffers that nobody writes any more: the host makes an instance of this name.
    pub(super) fn hand_over<'f>(
        &self,
        name: &str,
        buffers: impl Iterator<Item = (u32, BorrowedFd<'f>)>,
    ) -> Result<(), AttachError> {
        let mut link = self.link();
        for (cpu, descriptor) in buffers {
            link.ask_with(&request(request::HAND_OVER, cpu, 0), &[], Some(descriptor))?;
        }
        link.ask(&request(request::HAND_OVER_END, 0, 0), name.as_bytes()).map(|_| ())
    }

    /// The event with the lowest id above `id`; `None` after the last one.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn next_event(&self, id: u16) -> Result<Option<Event>, AttachError> {
        let mut link = self.link();
        match link.ask(&request(request::NEXT_EVENT, 0, id.into()), &[])? {
            Reply { value: 0, .. } => Ok(None),
            Reply { value, body, .. } => {
                let next = u16::try_from(value).ok().filter(|&next| next > id).zip(split_event(body));
                let (id, (system, name, format)) = next.ok_or(AttachError::Protocol("its event is none"))?;
                Ok(Some(Event {
                    id,
                    system: system.to_owned(),
                    name: name.to_owned(),
                    format: format.to_owned(),
                }))
            }
        }
    }

    /// All events declared, in the order of their ids.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn events(&self) -> Result<Vec<Event>, AttachError> {
        let mut events: Vec<Event> = Vec::new();
        // Ids grow with each answer, so there are 65,535 at most.
        while let Some(event) = self.next_event(events.last().map_or(0, |event| event.id))? {
            events.push(event);
        }
        Ok(events)
    }

    pub(super) fn map(&self, cpu: u32, access: Access) -> Result<Mapping, AttachError> {
        map_descriptor(&self.descriptor(cpu)?, cpu, access)
    }

    /// A writer finds a CPU's buffer by its index.
    pub(super) fn check_cpus(&self) -> Result<(), AttachError> {
        if (0u32..).zip(&self.cpus).all(|(index, &cpu)| index == cpu) {
            Ok(())
        } else {
            Err(AttachError::Protocol("its CPUs have gaps"))
        }
    }

    /// Waits until there is another generation of instances than this one, however long it takes; `None` where `stop`
    /// became readable meanwhile.
    pub(super) fn await_change(&self, generation: u32, stop: &OwnedFd) -> Result<Option<()>, AttachError> {
        let request = request(request::AWAIT, 0, generation.into());
        Ok(self.link().ask_patiently(&request, stop)?.map(|_| ()))
    }

    pub(super) fn ask(&self, kind: u32, cpu: u32, value: u64) -> Result<u64, AttachError> {
        Ok(self.link().ask(&request(kind, place(self.instance, cpu), value), &[])?.value)
    }

    /// The socket. Nothing panics between a request and its answer, so a poisoned lock says nothing about it.
    pub(super) fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the connection is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }
}

/// Maps a buffer that must be this CPU's.
pub(super) fn map_descriptor(descriptor: &OwnedFd, cpu: u32, access: Access) -> Result<Mapping, AttachError> {
    let mapping = map::open(descriptor.as_fd(), access).map_err(|source| AttachError::Map { cpu, source })?;
    if mapping.ring().meta().identity.cpu.load(Relaxed) != cpu {
        return Err(AttachError::Protocol("it gave the buffer of another CPU"));
    }
    Ok(mapping)
}

/// An instance's CPU. All that is no CPU number of a packet names none.
pub(super) fn place(instance: u16, cpu: u32) -> u32 {
    at(instance, u16::try_from(cpu).unwrap_or(u16::MAX))
}

pub(super) fn request(kind: u32, cpu: u32, value: u64) -> Header {
    Header { kind, cpu, value }
}
