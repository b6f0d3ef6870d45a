//! What a host answers to each request.

use super::desk::Call;
use super::tree::{self, Peer};
use crate::event::registry::RegisterError;
use crate::host::{Claim, Host, HostError};
use crate::instance::common::Common;
use crate::instance::followers::Follower;
use crate::instance::{Instance, Instances, Pattern, PatternError};
use ringtap_abi::control::{Counters, Header, HostInfo, PROTOCOL, Part, answer, request, role};
use ringtap_abi::control::{cpu_of, instance_of, set_cpu, split_event};
use ringtap_abi::switchboard::MAX_INSTANCES;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::sync::Arc;

/// What a connection is and has.
#[derive(Debug)]
pub(super) struct Session {
    peer: Peer,
    /// `None` before HELLO.
    role: Option<Role>,
    /// The buffers that it consumes, and where they are: one for each CPU of an instance at most.
    claims: Vec<(u32, Claim)>,
    /// The generation that it knows, while it waits for another.
    awaiting: Option<u32>,
    /// What it hands over, so far: the CPUs and their buffers.
    handed: Vec<(u32, OwnedFd)>,
    /// What it knew when it last said so.
    follower: Option<Follower>,
    /// Where its events switch recording off.
    stops: Vec<Stop>,
}

/// Events that switch an instance's recording off, as long as this is kept.
#[derive(Debug)]
struct Stop(Instance);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop_at_none();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
}

impl Session {
    pub(super) fn new(peer: Peer) -> Self {
        let (claims, handed, stops) = (Vec::new(), Vec::new(), Vec::new());
        Self { peer, role: None, claims, awaiting: None, handed, follower: None, stops }
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether HELLO was said and accepted.
    pub(super) fn is_open(&self) -> bool {
        self.role.is_some()
    }

    /// The answer that it waits for, if there is something new.
    pub(super) fn take_news(&mut self, instances: &Instances) -> Option<Answer> {
        let generation = instances.generation();
        self.awaiting.take_if(|known| *known != generation)?;
        Some(ok(generation.into()))
    }

    /// The answer that it waits for, whether or not there is something new.
    pub(super) fn end_wait(&mut self, instances: &Instances) -> Option<Answer> {
        self.awaiting.take()?;
        Some(ok(instances.generation().into()))
    }
}

/// One packet to send.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
    pub(super) descriptor: Option<Descriptor>,
    /// The connection ends with it.
    pub(super) is_last: bool,
}

/// A descriptor of the host's, borrowed when it is sent.
#[derive(Clone, Debug)]
pub(super) enum Descriptor {
    Buffer(Arc<OwnedFd>),
    Switchboard(Arc<Common>),
    Tasks(Arc<Common>),
}

impl Descriptor {
    pub(super) fn get(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Buffer(fd) => Some(fd.as_fd()),
            Self::Switchboard(common) => common.board().fd(),
            Self::Tasks(common) => common.board().tasks_file(),
        }
    }
}

/// What a request takes of the host's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// Some microseconds.
    Low,
    /// It walks a ring, or allocates: the client's turn ends with it.
    High,
}

/// Why a request is refused.
pub(super) struct Refusal {
    errno: Errno,
    reason: String,
    is_last: bool,
}

impl From<HostError> for Refusal {
    fn from(error: HostError) -> Self {
        let errno = match error {
            HostError::NoSuchCpu(_) => Errno::NODEV,
            HostError::Percent(_) => Errno::INVAL,
            HostError::Busy(_) => Errno::AGAIN,
            HostError::Claimed { .. } => Errno::BUSY,
            _ => Errno::IO,
        };
        refusal(errno, error.to_string())
    }
}

impl From<RegisterError> for Refusal {
    fn from(error: RegisterError) -> Self {
        let errno = match error {
            RegisterError::Conflict { .. } => Errno::EXIST,
            RegisterError::Full { .. } => Errno::NOSPC,
            RegisterError::TooLong { .. } => Errno::TOOBIG,
            _ => Errno::INVAL,
        };
        refusal(errno, error.to_string())
    }
}

pub(super) fn refusal(errno: Errno, reason: impl Into<String>) -> Refusal {
    Refusal { errno, reason: reason.into(), is_last: false }
}

/// What is no request: nothing that follows on this connection can be trusted to be one.
fn violation(errno: Errno, reason: impl Into<String>) -> Refusal {
    Refusal { is_last: true, ..refusal(errno, reason) }
}

/// The call on the tree that a packet is, if it is one.
pub(super) fn tree_call(session: &Session, packet: Option<&[u8]>) -> Option<Call> {
    let (header, body) = Header::split(packet?)?;
    let is_call = session.is_open() && tree::is_call(header.kind);
    is_call.then(|| Call { peer: session.peer, kind: header.kind, value: header.value, body: body.to_vec() })
}

/// Answers a packet; `None` is one that was too long.
pub(super) fn answer(
    instances: &Instances,
    session: &mut Session,
    packet: Option<&[u8]>,
    descriptor: Option<OwnedFd>,
) -> (Option<Answer>, Cost) {
    let Some((header, body)) = packet.and_then(Header::split) else {
        let reason =
            "the packet is no request: it is too short or too long; attach with ringtap's own client";
        return (Some(refused(violation(Errno::PROTO, reason))), Cost::Low);
    };
    let cost = match header.kind {
        request::STATS | request::RESET | request::REGISTER | request::NEXT_EVENT => Cost::High,
        request::HAND_OVER_END | request::STOP_AT => Cost::High,
        kind if tree::is_call(kind) => Cost::High,
        _ => Cost::Low,
    };
    if header.kind == request::AWAIT && session.is_open() {
        // Whoever has never looked knows generation 0.
        let known = u32::try_from(header.value).unwrap_or(0);
        session.awaiting = Some(known);
        session.follower = Some(Follower::new(instances.common().followers(), known));
        return (session.take_news(instances), Cost::Low);
    }
    if tree::is_call(header.kind) && session.is_open() {
        return (Some(refused(tree::none())), cost);
    }
    if header.kind == request::HAND_OVER && session.is_open() {
        let taken = take_handed(instances, session, header.cpu, descriptor);
        return (Some(taken.unwrap_or_else(refused)), cost);
    }
    (Some(answer_request(instances, session, &header, body).unwrap_or_else(refused)), cost)
}

fn answer_request(
    instances: &Instances,
    session: &mut Session,
    header: &Header,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let &Header { kind, cpu: place, value } = header;
    let Some(role) = session.role else { return hello(instances, session, header) };
    let cpu = cpu_of(place);
    let host = || {
        let instance = instances.at(instance_of(place));
        instance.map(|instance| instance.host()).ok_or_else(|| no_instance(instance_of(place)))
    };
    match kind {
        request::GET_BUFFER => {
            let claim = session.claims.iter().find(|&&(claimed, _)| claimed == place && value == 0);
            match claim {
                Some((_, claim)) => get_buffer(&claim.host(), cpu, role, Wanted::Consumed),
                None => get_buffer(&host()?, cpu, role, Wanted::After(value)),
            }
        }
        request::GET_SWITCHBOARD => switchboard(instances, role, value),
        request::CLAIM => claim(&host()?, session, place, role),
        request::RELEASE => {
            session.claims.retain(|&(claimed, _)| claimed != place);
            Ok(ok(0))
        }
        request::GET_READER => {
            let claim = session.claims.iter().find(|&&(claimed, _)| claimed == place);
            let Some((_, claim)) = claim else {
                let reason =
                    format!("this connection does not consume the buffer of CPU {cpu}: claim it first");
                return Err(refusal(Errno::PERM, reason));
            };
            Ok(claim.host().get_reader(cpu).map(|()| ok(0))?)
        }
        request::ARM => {
            let percent = u8::try_from(value).map_err(|_| HostError::Percent(value))?;
            Ok(ok(host()?.arm(cpu, percent)?.into()))
        }
        request::WAKE_ALL => Ok(host()?.wake_all(cpu).map(|()| ok(0))?),
        request::STATS => {
            let counters = Counters(host()?.stats(cpu)?.to_array());
            Ok(Answer { body: counters.bytes().to_vec(), ..ok(0) })
        }
        request::RESET => Ok(host()?.reset().map(|()| ok(0))?),
        request::RECORD => {
            host()?.set_recording(value != 0);
            Ok(ok(0))
        }
        request::REGISTER => register(instances, body),
        request::STOP_AT => stop_at(instances, session, instance_of(place), body),
        request::HAND_OVER_END => hand_over(instances, session, body),
        request::NEXT_EVENT => Ok(next_event(instances, value)),
        request::NEXT_INSTANCE => Ok(next_instance(instances, value)),
        request::HELLO => {
            Err(refusal(Errno::INVAL, "this connection has said HELLO already: open another one"))
        }
        kind => Err(refusal(
            Errno::NOSYS,
            format!("request {kind} is unknown to this host: use the same release"),
        )),
    }
}

fn hello(instances: &Instances, session: &mut Session, header: &Header) -> Result<Answer, Refusal> {
    if header.kind == request::OFFER {
        // This host has what it needs.
        return Ok(Answer { is_last: true, ..ok(0) });
    }
    if header.kind != request::HELLO {
        return Err(violation(
            Errno::PROTO,
            "the first packet is no HELLO: attach with ringtap's own client",
        ));
    }
    if header.cpu != PROTOCOL {
        let reason = format!(
            "the client speaks version {} and this host version {PROTOCOL}: use the same release of ringtap on both sides",
            header.cpu
        );
        return Err(violation(Errno::PROTONOSUPPORT, reason));
    }
    session.role = Some(match header.value {
        role::WRITER => Role::Writer,
        role::READER => Role::Reader,
        other => {
            return Err(violation(
                Errno::PROTO,
                format!("{other} is no role: be a writer (1) or a reader (2)"),
            ));
        }
    });
    let host = instances.top().host();
    let info = info(&host);
    let cpus = host.cpus();
    let mut bitmap = vec![0; cpus.iter().max().map_or(0, |&last| last as usize / 8 + 1)];
    for cpu in cpus {
        set_cpu(&mut bitmap, cpu);
    }
    Ok(Answer { body: [info.bytes(), &bitmap].concat(), ..ok(0) })
}

fn info(host: &Host) -> HostInfo {
    HostInfo {
        clock: host.clock() as u32,
        buffer_percent: host.buffer_percent().into(),
        host_id: host.common().board().host_id(),
    }
}

fn next_instance(instances: &Instances, from: u64) -> Answer {
    let from = usize::try_from(from).unwrap_or(MAX_INSTANCES);
    match (from..MAX_INSTANCES).find_map(|bit| instances.at(bit)) {
        Some(instance) => {
            let body = [info(&instance.host()).bytes(), instance.name().as_bytes()].concat();
            Answer { body, ..ok(instance.bit() as u64) }
        }
        None => ok(0),
    }
}

fn no_instance(bit: usize) -> Refusal {
    refusal(Errno::NOENT, format!("this host has no instance {bit}: it was removed"))
}

/// Which of a CPU's buffers is asked for.
enum Wanted {
    /// The one that the client consumes.
    Consumed,
    /// The one behind the file of this inode, or as [`request::GET_BUFFER`] says.
    After(u64),
}

fn get_buffer(host: &Host, cpu: u32, role: Role, wanted: Wanted) -> Result<Answer, Refusal> {
    let fd = match (role, wanted) {
        (Role::Reader, Wanted::Consumed) => host.memory_for_consumer(cpu)?,
        (Role::Reader, Wanted::After(0)) => host.read_only(cpu)?,
        (Role::Reader, Wanted::After(known)) => host.read_only_after(cpu, known)?,
        (Role::Writer, Wanted::After(known)) => host.read_write(cpu, known)?,
        (Role::Writer, Wanted::Consumed) => host.read_write(cpu, 0)?,
    };
    let len = rustix::fs::fstat(&fd).map_or(0, |status| status.st_size.cast_unsigned());
    Ok(Answer { descriptor: Some(Descriptor::Buffer(fd)), ..ok(len) })
}

fn switchboard(instances: &Instances, role: Role, which: u64) -> Result<Answer, Refusal> {
    if role != Role::Writer {
        let reason = "the switchboard can be written, so a reader does not get it: attach as a writer";
        return Err(refusal(Errno::PERM, reason));
    }
    let common = Arc::clone(instances.common());
    let has_file = u64::from(common.board().tasks_file().is_some());
    let descriptor = match which {
        0 => Descriptor::Switchboard(common),
        1 if has_file == 1 => Descriptor::Tasks(common),
        _ => return Err(refusal(Errno::NOENT, "the tasks lie on the switchboard: ask for that")),
    };
    Ok(Answer { descriptor: Some(descriptor), ..ok(has_file) })
}

fn claim(host: &Host, session: &mut Session, place: u32, role: Role) -> Result<Answer, Refusal> {
    if role != Role::Reader {
        return Err(refusal(Errno::PERM, "a writer's connection cannot consume: attach as a reader"));
    }
    session.claims.push((place, host.claim(cpu_of(place), session.peer.pid.max(1))?));
    Ok(ok(0))
}

fn register(instances: &Instances, body: &[u8]) -> Result<Answer, Refusal> {
    let no_event =
        || refusal(Errno::INVAL, "the body declares no event: send system, name and format as lines");
    let (system, name, format) = split_event(body).ok_or_else(no_event)?;
    Ok(ok(instances.register_event(system, name, format)?.into()))
}

fn stop_at(
    instances: &Instances,
    session: &mut Session,
    instance: usize,
    body: &[u8],
) -> Result<Answer, Refusal> {
    if session.role != Some(Role::Reader) {
        return Err(refusal(Errno::PERM, "a writer's connection stops nothing: attach as a reader"));
    }
    let instance = instances.at(instance).ok_or_else(|| no_instance(instance))?;
    let pattern = std::str::from_utf8(body).ok().and_then(|text| text.parse::<Pattern>().ok());
    let pattern = pattern.ok_or_else(|| refusal(Errno::INVAL, PatternError.to_string()))?;
    instance.stop_at(&pattern).map_err(|error| refusal(Errno::NOSPC, error.to_string()))?;
    // One for each instance, however often it is asked for.
    if !session.stops.iter().any(|Stop(known)| known.is_same(&instance)) {
        session.stops.push(Stop(instance));
    }
    Ok(ok(0))
}

/// Keeps a buffer until all of them are there.
fn take_handed(
    instances: &Instances,
    session: &mut Session,
    cpu: u32,
    descriptor: Option<OwnedFd>,
) -> Result<Answer, Refusal> {
    let no_buffer =
        || refusal(Errno::INVAL, "this is no buffer to be handed over: send one for each CPU, as a writer");
    let has_room = session.handed.len() < instances.top().host().cpus().len();
    let fd = descriptor.filter(|_| has_room && session.role == Some(Role::Writer)).ok_or_else(no_buffer)?;
    session.handed.push((cpu, fd));
    Ok(ok(0))
}

fn hand_over(instances: &Instances, session: &mut Session, body: &[u8]) -> Result<Answer, Refusal> {
    let name = std::str::from_utf8(body).map_err(|_| refusal(Errno::INVAL, "the name is not UTF-8"))?;
    let fds = std::mem::take(&mut session.handed);
    let made = instances.take_in(name, fds).map_err(|error| refusal(Errno::INVAL, error.to_string()))?;
    Ok(ok(made.bit() as u64))
}

fn next_event(instances: &Instances, after: u64) -> Answer {
    match u16::try_from(after).ok().and_then(|after| instances.next_event(after)) {
        Some(event) => {
            let body = format!("{}\n{}\n{}", event.system, event.name, event.format).into_bytes();
            Answer { body, ..ok(event.id.into()) }
        }
        None => ok(0),
    }
}

/// Instead of one more descriptor for a client that takes none.
pub(super) fn unread_descriptors() -> Answer {
    refused(violation(
        Errno::PROTO,
        "descriptors were sent and not taken: read each answer before asking again",
    ))
}

/// Instead of an answer whose descriptor the kernel does not take.
pub(super) fn no_room_for_descriptor() -> Answer {
    let reason =
        "this user has more descriptors in flight between processes than RLIMIT_NOFILE: try again later";
    refused(refusal(Errno::TOOMANYREFS, reason))
}

pub(super) fn ok(value: u64) -> Answer {
    let header = Header { kind: answer::OK, cpu: 0, value };
    Answer { header, body: Vec::new(), descriptor: None, is_last: false }
}

pub(super) fn refused(refusal: Refusal) -> Answer {
    let value = u64::from(refusal.errno.raw_os_error().cast_unsigned());
    let header = Header { kind: answer::ERROR, ..ok(value).header };
    Answer { header, body: refusal.reason.into_bytes(), descriptor: None, is_last: refusal.is_last }
}
