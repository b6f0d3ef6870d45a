//! Starting in the place of a host that was killed, with what attached processes still have of it.
//!
//! ```text
//!   attached process                       host that starts
//!   OFFER                  ------------->  a dead host's socket was here?
//!                          <-------------  OK 1
//!   OFFER_SWITCHBOARD, fd  ------------->
//!   OFFER_BUFFER, fd       ------------->  one for each instance and CPU
//!   OFFER_END              ------------->  all of it checked, as an allegation
//!                          <-------------  OK 1: their memory goes on, and their writers never knew
//! ```
//!
//! One process's offer is enough, since all of them share the same memory. Who attaches meanwhile is told to try again.

use super::requests::{Answer, ok, refusal, refused};
use super::socket::{self, Listener};
use super::{Options, ServeError, Server, limits, packet};
use crate::board::Board;
use crate::host::{Config, HostError};
use crate::instance::{Instances, Offered};
use ringtap_abi::control::{Header, MAX_PACKET, PROTOCOL, Part, cpu_of, instance_of, request};
use ringtap_abi::switchboard::MAX_INSTANCES;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use std::path::Path;
use std::sync::Arc;
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
    let path = path.as_ref();
    let listener = Arc::new(Listener::bind(path, options.group)?);
    let start = || {
        let adopted = if listener.succeeds { wait_for_offer(&listener, config, options.group) } else { None };
        let made = adopted.map_or_else(|| Instances::new(config), Ok);
        let instances = made.map_err(|source| ServeError::Buffers { path: path.to_owned(), source })?;
        let server = instances.serve_on(&listener, options)?;
        Ok((instances, server))
    };
    start().inspect_err(|_| listener.remove())
}

/// Takes the first good offer.
fn wait_for_offer(listener: &Listener, config: &Config, group: Option<u32>) -> Option<Instances> {
    let until = Instant::now() + limits::OFFERS;
    loop {
        if !wait(&listener.socket, until) {
            return None;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&listener.socket, flags) else { continue };
        if !socket::may_attach(&socket, group) {
            continue;
        }
        if let Some(instances) = take_offer(&socket, config) {
            return Some(instances);
        }
    }
}

/// Waits until there is something to receive; `false` when time is up.
fn wait(socket: &OwnedFd, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).ok();
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(ready) => ready > 0,
        Err(_) => left > Duration::ZERO,
    }
}

/// What a process has offered so far.
#[derive(Default)]
struct Offer {
    board: Option<OwnedFd>,
    buffers: Vec<Offered>,
}

/// Talks with one process, to the end.
fn take_offer(socket: &OwnedFd, config: &Config) -> Option<Instances> {
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
            (request::OFFER_BUFFER, Some(fd)) if offer.has_room() => offer.buffers.push(Offered {
                instance: instance_of(header.cpu),
                epoch: header.value,
                cpu: cpu_of(header.cpu),
                fd,
            }),
            (request::OFFER_END, None) => {
                let adopted = offer.adopt(config);
                answer(
                    socket,
                    match &adopted {
                        Ok(_) => ok(1),
                        Err(error) => refused(refusal(Errno::INVAL, error.to_string())),
                    },
                );
                return adopted.ok();
            }
            _ => return None,
        }
        answer(socket, ok(1));
    }
}

impl Offer {
    /// A buffer for each instance and CPU that there can be, and no more.
    fn has_room(&self) -> bool {
        /// Highest number of CPUs that a kernel can be built for, on any architecture.
        const MAX_CPUS: usize = 8192;
        self.buffers.len() < MAX_INSTANCES * MAX_CPUS
    }

    fn adopt(self, config: &Config) -> Result<Instances, HostError> {
        let board = Board::open(self.board.ok_or(HostError::Damaged(0))?)?;
        Instances::adopt(config, board, self.buffers)
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
