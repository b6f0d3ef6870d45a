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
use std::time::{Duration, Instant};

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

/// Takes the first offer that is whole, or what all have together when time is up.
fn wait_for_offer(listener: &Listener, config: &Config, group: Option<u32>) -> Option<Instances> {
    let until = Instant::now() + limits::OFFERS;
    // Of each host of which anybody has something: a process may not have heard of the last one.
    let mut hosts: Vec<Remains> = Vec::new();
    while wait(&listener.socket, until) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&listener.socket, flags) else { continue };
        if !socket::may_attach(&socket, group) {
            continue;
        }
        let Some(at) = take_offer(&socket, &mut hosts) else { continue };
        if !hosts[at].are_whole() {
            answer(&socket, ok(0));
            continue;
        }
        match hosts.swap_remove(at).adopt(config) {
            Ok(instances) => {
                answer(&socket, ok(1));
                return Some(instances);
            }
            Err(error) => answer(&socket, refused(refusal(Errno::INVAL, error.to_string()))),
        }
    }
    // The one of which there is most.
    hosts.sort_by_key(Remains::len);
    hosts.into_iter().rev().find_map(|remains| remains.adopt(config).ok())
}

/// Waits until there is something to receive; `false` when time is up.
fn wait(socket: impl AsFd, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).ok();
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(ready) => ready > 0,
        Err(_) => left > Duration::ZERO,
    }
}

/// What a process has offered so far.
#[derive(Default)]
struct Offer {
    board: Option<OwnedFd>,
    /// With the place of each.
    buffers: Vec<(u32, OwnedFd)>,
}

/// Talks with one process, to the end of its offer. Says which host's it is.
fn take_offer(socket: &OwnedFd, hosts: &mut Vec<Remains>) -> Option<usize> {
    let mut buffer = vec![0; MAX_PACKET];
    let mut offer = Offer::default();
    let (opening, _) = receive(socket, &mut buffer)?;
    if opening.kind != request::OFFER || opening.cpu != PROTOCOL {
        let reason = "the host is just starting in a dead one's place: try again";
        answer(socket, refused(refusal(Errno::AGAIN, reason)));
        return None;
    }
    answer(socket, ok(1));
    loop {
        let (header, descriptor) = receive(socket, &mut buffer)?;
        match (header.kind, descriptor) {
            (request::OFFER_SWITCHBOARD, Some(fd)) => offer.board = Some(fd),
            (request::OFFER_BUFFER, Some(fd)) if offer.has_room() => offer.buffers.push((header.cpu, fd)),
            (request::OFFER_END, None) => {
                let refuse =
                    |error: HostError| answer(socket, refused(refusal(Errno::INVAL, error.to_string())));
                return offer.add_to(hosts).map_err(refuse).ok();
            }
            _ => return None,
        }
        answer(socket, ok(1));
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

/// The next packet; `None` where the process has ended, or takes too long.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<(Header, Option<OwnedFd>)> {
    let until = Instant::now() + limits::OFFER_STEP;
    loop {
        match packet::receive(socket, buffer) {
            Ok(received) if !received.truncated => {
                let (header, _) = Header::split(&buffer[..received.len])?;
                return Some((header, received.descriptor));
            }
            Err(Errno::AGAIN) if wait(socket, until) => {}
            _ => return None,
        }
    }
}

/// Answers. Who does not listen ends its own offer alone.
fn answer(socket: &OwnedFd, answer: Answer) {
    let _ = packet::send(socket, &answer.header, &answer.body, None);
}
