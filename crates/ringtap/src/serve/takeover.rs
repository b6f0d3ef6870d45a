//! Starting in the place of a host that was killed, with what attached processes still have of it.
//!
//! ```text
//!   attached process                       host that starts
//!   OFFER                  ------------->  a dead host's socket was here?
//!                          <-------------  OK 1
//!   OFFER_SWITCHBOARD, fd  ------------->
//!   OFFER_BUFFER, fd       ------------->  for each instance and CPU, the one that is written, and those to be read
//!   OFFER_END              ------------->  all of it checked, as an allegation
//!                          <-------------  OK 1: their memory goes on, and their writers never knew
//! ```
//!
//! One process's offer is enough where it is whole, since all of them share the same memory. Where the host died in the
//! middle of a change, others may have more: then all offers of two seconds count ([`Remains`]). Who attaches
//! meanwhile is told to try again.

use super::requests::{Answer, ok, refusal, refused};
use super::socket::{self, Listener};
use super::{Options, ServeError, Server, limits, packet};
use crate::board::Board;
use crate::host::{Config, HostError};
use crate::instance::Instances;
use crate::instance::remains::Remains;
use ringtap_abi::control::{Header, MAX_PACKET, PROTOCOL, Part, cpu_of, instance_of, request};
use ringtap_abi::switchboard::MAX_INSTANCES;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::{Errno, FdFlags};
use rustix::net::SocketFlags;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Serves at `path`. Where a host was killed there and attached processes live, its instances go on: buffers,
/// events, what is on and what was recorded. Else they are made anew, as [`Instances::new`] does.
///
/// Where there is a dead host's socket, it waits two seconds at most for such a process.
///
/// # Errors
/// [`ServeError`] says what is in the way.
pub fn take_over(
    path: impl AsRef<Path>,
    config: &Config,
    options: Options,
) -> Result<(Instances, Server), ServeError> {
    start(Listener::bind(path.as_ref(), options.group)?, config, options)
}

/// As [`take_over`], on a socket that listens already and outlives hosts: the one that systemd passes, by
/// [`passed_socket`]. Its file stays, and its mode and group are as they are; a file beside it, with `.host` behind its
/// name, is there while a host is, and tells the next one that there is something to take over.
///
/// # Errors
/// [`ServeError`] says what is in the way.
pub fn take_over_passed(
    socket: OwnedFd,
    config: &Config,
    options: Options,
) -> Result<(Instances, Server), ServeError> {
    start(Listener::passed(socket)?, config, options)
}

/// The socket that systemd started this process with ([sd_listen_fds(3)]), taken once.
///
/// # Errors
/// [`ServeError::Passed`] where there are several.
///
/// [sd_listen_fds(3)]: https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
pub fn passed_socket() -> Result<Option<OwnedFd>, ServeError> {
    /// The first one's number.
    const FIRST: RawFd = 3;
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => Ok(None),
        Some(1) if IS_TAKEN.swap(true, Relaxed) => Ok(None),
        Some(1) => {
            // SAFETY: whoever started this process says that the descriptor is its own, and nobody took it before.
            let socket = unsafe { OwnedFd::from_raw_fd(FIRST) };
            rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)
                .map_err(|_| ServeError::Passed("is not open: see LISTEN_FDS"))?;
            Ok(Some(socket))
        }
        Some(_) => Err(ServeError::Passed("is one of several: a host serves one, see LISTEN_FDS")),
    }
}

fn start(listener: Listener, config: &Config, options: Options) -> Result<(Instances, Server), ServeError> {
    let listener = Arc::new(listener);
    let path = listener.path();
    let start = || {
        let adopted = if listener.succeeds { wait_for_offer(&listener, config, options.group) } else { None };
        let made = adopted.map_or_else(|| Instances::new(config), Ok);
        let instances = made.map_err(|source| ServeError::Buffers { path: path.to_owned(), source })?;
        let server = instances.serve_on(&listener, options)?;
        Ok((instances, server))
    };
    start().inspect_err(|_| listener.remove())
}

/// Takes the first offer that is whole, or what all have together when time is up. Processes offer at the same time: one
/// that says nothing, or a byte now and then, keeps none of the others waiting.
fn wait_for_offer(listener: &Listener, config: &Config, group: Option<u32>) -> Option<Instances> {
    let until = Instant::now() + limits::OFFERS;
    // Of each host of which anybody has something: a process may not have heard of the last one.
    let mut hosts: Vec<Remains> = Vec::new();
    let mut offering: Vec<Offering> = Vec::new();
    let mut buffer = vec![0; MAX_PACKET];
    while let Some((is_new, ready)) = wait(&listener.socket, &offering, until) {
        // From the last on, so that those before one that goes keep their places.
        for at in ready.into_iter().rev() {
            match offering[at].step(&mut buffer) {
                Step::Expects => {}
                Step::Over => drop(offering.swap_remove(at)),
                Step::Ends(offer) => {
                    let Offering { socket, .. } = offering.swap_remove(at);
                    if let Some(instances) = take(offer, &socket, &mut hosts, config) {
                        return Some(instances);
                    }
                }
            }
        }
        let now = Instant::now();
        offering.retain(|offering| now < offering.until());
        if is_new && let Some(new) = accept(&listener.socket, group) {
            offering.push(new);
        }
    }
    // The one of which there is most.
    hosts.sort_by_key(Remains::len);
    hosts.into_iter().rev().find_map(|remains| remains.adopt(config).ok())
}

/// Someone who connects, where that is somebody who may attach.
fn accept(listener: impl AsFd, group: Option<u32>) -> Option<Offering> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::accept_with(listener, flags).ok()?;
    socket::may_attach(&socket, group).then(|| Offering::new(socket))
}

/// Adds an offer to what is known, and goes on with it if it is whole.
fn take(offer: Offer, socket: &OwnedFd, hosts: &mut Vec<Remains>, config: &Config) -> Option<Instances> {
    let refuse = |error: HostError| answer(socket, refused(refusal(Errno::INVAL, error.to_string())));
    let at = offer.add_to(hosts).map_err(refuse).ok()?;
    if !hosts[at].are_whole() {
        answer(socket, ok(0));
        return None;
    }
    let instances = hosts.swap_remove(at).adopt(config).map_err(refuse).ok()?;
    answer(socket, ok(1));
    Some(instances)
}

/// Waits until somebody connects, or one of those who did says something, or has run out of time; `None` when time is up.
/// Says whether there is a new one, and which of the others are ready.
fn wait(listener: impl AsFd, offering: &[Offering], until: Instant) -> Option<(bool, Vec<usize>)> {
    let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
    let soonest =
        offering.iter().map(|offering| offering.until().saturating_duration_since(Instant::now())).min();
    let timeout = Timespec::try_from(soonest.map_or(left, |soonest| left.min(soonest))).ok();
    let sockets = offering.iter().map(|offering| offering.socket.as_fd());
    let mut fds: Vec<_> = std::iter::once(listener.as_fd())
        .chain(sockets)
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    if rustix::event::poll(&mut fds, timeout.as_ref()).is_err() {
        return Some((false, Vec::new()));
    }
    let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    let ready = fds[1..].iter().enumerate().filter(|(_, fd)| is_ready(fd)).map(|(at, _)| at).collect();
    Some((is_ready(&fds[0]), ready))
}

/// A process that offers.
struct Offering {
    socket: OwnedFd,
    /// When it said something last.
    heard: Instant,
    /// `None` before it said that it offers something.
    offer: Option<Offer>,
}

/// What a process has offered so far.
#[derive(Default)]
struct Offer {
    board: Option<OwnedFd>,
    /// With the place of each.
    buffers: Vec<(u32, OwnedFd)>,
}

/// What comes of a packet.
enum Step {
    /// Another one.
    Expects,
    /// Nothing any more: it has ended, or offers nothing.
    Over,
    Ends(Offer),
}

impl Offering {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, heard: Instant::now(), offer: None }
    }

    /// When our patience with it ends.
    fn until(&self) -> Instant {
        self.heard + limits::OFFER_STEP
    }

    /// Takes its next packet.
    fn step(&mut self, buffer: &mut [u8]) -> Step {
        let (header, descriptor) = match receive(&self.socket, buffer) {
            Ok(Some(received)) => received,
            Ok(None) => return Step::Expects,
            Err(()) => return Step::Over,
        };
        self.heard = Instant::now();
        let Some(offer) = &mut self.offer else {
            if header.kind != request::OFFER || header.cpu != PROTOCOL {
                let reason = "the host is just starting in a dead one's place: try again";
                answer(&self.socket, refused(refusal(Errno::AGAIN, reason)));
                return Step::Over;
            }
            self.offer = Some(Offer::default());
            answer(&self.socket, ok(1));
            return Step::Expects;
        };
        match (header.kind, descriptor) {
            (request::OFFER_SWITCHBOARD, Some(fd)) => offer.board = Some(fd),
            (request::OFFER_BUFFER, Some(fd)) if offer.has_room() => offer.buffers.push((header.cpu, fd)),
            (request::OFFER_END, None) => return Step::Ends(std::mem::take(offer)),
            _ => return Step::Over,
        }
        answer(&self.socket, ok(1));
        Step::Expects
    }
}

impl Offer {
    /// Some buffers for each instance and CPU that there can be, and no more.
    fn has_room(&self) -> bool {
        /// Highest number of CPUs that a kernel can be built for, on any architecture.
        const MAX_CPUS: usize = 8192;
        self.buffers.len() < MAX_INSTANCES * MAX_CPUS
    }

    fn add_to(self, hosts: &mut Vec<Remains>) -> Result<usize, HostError> {
        let board = Board::open(self.board.ok_or(HostError::Damaged(0))?)?;
        let known = hosts.iter().position(|host| host.host_id() == board.host_id());
        let at = known.unwrap_or(hosts.len());
        if known.is_none() {
            hosts.push(Remains::new(board)?);
        }
        for (place, fd) in self.buffers {
            hosts[at].add(instance_of(place), cpu_of(place), fd)?;
        }
        Ok(at)
    }
}

/// The next packet, if it is there already.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<(Header, Option<OwnedFd>)>, ()> {
    match packet::receive(socket, buffer) {
        Ok(received) if !received.truncated => {
            let (header, _) = Header::split(&buffer[..received.len]).ok_or(())?;
            Ok(Some((header, received.descriptor)))
        }
        Err(Errno::AGAIN) => Ok(None),
        _ => Err(()),
    }
}

/// Answers. Who does not listen ends its own offer alone.
fn answer(socket: &OwnedFd, answer: Answer) {
    let _ = packet::send(socket, &answer.header, &answer.body, None);
}
